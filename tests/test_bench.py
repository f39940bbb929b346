"""`muxframe bench`: its structure, and that nobody is timed who gets it wrong. Never how fast anything is."""

from __future__ import annotations

import argparse
import json
from typing import Any

import pytest

import muxframe
from muxframe.cli import bench

BLOCK_SIZE = 4096


@pytest.fixture(scope="module")
def report() -> bench.Report:
    return bench.measure(0, block_size=BLOCK_SIZE)


@pytest.mark.parametrize("frame_size", bench.SIZES)
def test_wires_hold_what_they_say(frame_size: str) -> None:
    wire = bench.make_wire(frame_size, BLOCK_SIZE, 2)
    assert muxframe.demux(wire.data) == (wire.stdout, wire.stderr)
    frames = list(muxframe.frames(wire.data))
    assert len(frames) == wire.frames and {frame.stream for frame in frames} == {1, 2}
    smallest, largest = bench.SIZES[frame_size]
    assert all(smallest <= len(frame) <= largest for frame in frames)
    assert wire == bench.make_wire(frame_size, BLOCK_SIZE, 2)


def test_every_contender_has_passes_at_every_size(report: bench.Report) -> None:
    measured = {(one.contender, one.frame_size) for one in report.timings}
    assert measured == {(contender, size) for contender in bench.CONTENDERS for size in bench.SIZES}
    for one in report.timings:
        assert one.seconds and all(seconds >= 0 for seconds in one.seconds)
        assert 0 < one.frames < one.payload_size


@pytest.mark.parametrize("contender", bench.CONTENDERS)
def test_a_wrong_contender_is_refused(contender: str, monkeypatch: pytest.MonkeyPatch) -> None:
    right = bench.CONTENDERS[contender]

    def prepare(wire: bench.Wire) -> Any:
        work, output = right(wire)
        return work, lambda result: (bytes(output(result)[0])[:-1], output(result)[1])

    monkeypatch.setitem(bench.CONTENDERS, contender, prepare)
    with pytest.raises(AssertionError, match=f"{contender} got"):
        bench.measure(0, block_size=BLOCK_SIZE)


def test_json(report: bench.Report) -> None:
    content = json.loads(bench.to_json(report))
    assert content["muxframe"] == muxframe.__version__ and content["backend"] == muxframe.BACKEND
    assert len(content["timings"]) == len(bench.CONTENDERS) * len(bench.SIZES)
    keys = {"contender", "frame_size", "frames", "payload_size", "seconds", "nanoseconds_per_frame", "bytes_per_second"}
    assert all(timing.keys() == keys for timing in content["timings"])


def test_text(report: bench.Report) -> None:
    lines = bench.to_text(report).splitlines()
    for frame_size in bench.SIZES:
        rows = [line.removeprefix(f"  {frame_size}").split() for line in lines if line.startswith(f"  {frame_size} ")]
        assert len(rows) == 3 and all(len(row) == len(bench.CONTENDERS) for row in rows)
    assert max(map(len, lines)) <= 120


@pytest.mark.parametrize("as_json", [False, True])
def test_the_command(as_json: bool, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "BLOCK_SIZE", BLOCK_SIZE)
    assert bench.run(argparse.Namespace(seconds=0.01, json=as_json)) == 0
    shown = capfd.readouterr().out
    assert shown.startswith("{" if as_json else "muxframe ")
