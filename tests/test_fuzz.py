"""The fuzz harnesses, for a few seconds with a fixed seed, and on every input that has failed before."""

from __future__ import annotations

import os
import random
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz_framing  # noqa: E402
import fuzz_lines  # noqa: E402

import muxframe  # noqa: E402
from muxframe import _framing_py, _lines_py  # noqa: E402

#: Seconds for each.
TARGETS = {"framing": 4, "lines": 4, "handshake": 3, "channel": 3, "archive": 2}

CASES = sorted((FUZZ / "cases").glob("*/*.bin"))


def harness(name: str) -> Any:
    if name in ("handshake", "channel"):
        pytest.importorskip("websockets")
    return import_module(f"fuzz_{name}")


def agrees(target: Any, data: bytes) -> bool:
    try:
        target.run_one(data)
    except AssertionError:
        return False
    return True


def test_the_compiled_twin_takes_part_where_it_is_asked_for() -> None:
    if os.environ.get("MUXFRAME_BACKEND") == "cython":
        assert [twin.__name__ for twin in fuzz_framing.TWINS] == ["muxframe._framing_py", "muxframe._framing_c"]
        assert [twin[0].__name__ for twin in fuzz_lines.TWINS] == ["muxframe._lines_py", "muxframe._lines_c"]


def test_every_harness_runs_here() -> None:
    assert {f"fuzz_{name}" for name in TARGETS} == {path.stem for path in FUZZ.glob("fuzz_*.py")}
    assert all(path.parent.name in TARGETS for path in CASES)


@pytest.mark.parametrize("path", CASES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_case(path: Path) -> None:
    harness(path.parent.name).run_one(path.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs(name: str, tmp_path: Path) -> None:
    assert harness(name).FUZZER.run_for(TARGETS[name], seed=1, keep_in=tmp_path) > 0


# --- controls: a planted defect is found -----------------------------------------------------------------------------


def check_is_found(target: Any, planted: pytest.MonkeyPatch) -> None:
    inputs = map(target.random_input, map(random.Random, range(500)))
    found = next(data for data in inputs if not agrees(target, data))
    planted.undo()
    assert agrees(target, found)


def test_a_lost_byte_of_one_frame_size(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy(_framing_py.Demuxer):
        def feed(self, data: Any, /) -> list[tuple[muxframe.Stream, bytes]]:
            chunks = super().feed(data)
            return [(stream, payload[:-1] if len(payload) == 257 else payload) for stream, payload in chunks]

    monkeypatch.setattr(_framing_py, "Demuxer", Lossy)
    check_is_found(fuzz_framing, monkeypatch)


def test_a_next_second_taken_for_the_same_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_lines_py._Unfinished, "continues", lambda self, timestamp, whole: timestamp is not None)
    check_is_found(fuzz_lines, monkeypatch)


def test_a_lost_byte_behind_a_head(monkeypatch: pytest.MonkeyPatch) -> None:
    target = harness("handshake")
    take_over = target.Conversation.take_over
    monkeypatch.setattr(target.Conversation, "take_over", lambda self: (b"", take_over(self)[1]))
    check_is_found(target, monkeypatch)


def test_an_end_inside_a_message_taken_for_a_proper_one(monkeypatch: pytest.MonkeyPatch) -> None:
    target = harness("channel")
    monkeypatch.setattr(target.ChannelBody, "_is_end", lambda self: True)
    check_is_found(target, monkeypatch)


def test_entries_of_an_index_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    target = harness("archive")
    monkeypatch.setattr(target.index, "_check_order", lambda entries, entry, kind: None)
    check_is_found(target, monkeypatch)
