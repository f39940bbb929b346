"""The differential fuzz harnesses, for a few seconds with a fixed seed, and on every input that has failed before."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path
from typing import Any

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

import fuzz_framing  # noqa: E402
import fuzz_lines  # noqa: E402

import muxframe  # noqa: E402
from muxframe import _framing_py, _lines_py  # noqa: E402

CASES = sorted((FUZZ / "cases").glob("*.bin"))


def test_the_compiled_twin_takes_part_where_it_is_asked_for() -> None:
    if os.environ.get("MUXFRAME_BACKEND") == "cython":
        assert [twin.__name__ for twin in fuzz_framing.TWINS] == ["muxframe._framing_py", "muxframe._framing_c"]
        assert [twin[0].__name__ for twin in fuzz_lines.TWINS] == ["muxframe._lines_py", "muxframe._lines_c"]


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    harness = fuzz_lines if path.name.startswith("lines-") else fuzz_framing
    harness.run_one(path.read_bytes())


@pytest.mark.parametrize("harness", [fuzz_framing, fuzz_lines], ids=lambda module: module.__name__)
def test_random_inputs(harness: Any, tmp_path: Path) -> None:
    assert harness.run_for(5, seed=1, keep_in=tmp_path) > 0


def test_the_harness_of_lines_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: a twin that takes the next second for the same one, of any timestamps, is found."""
    monkeypatch.setattr(_lines_py._Unfinished, "continues", lambda self, timestamp, whole: timestamp is not None)
    inputs = map(fuzz_lines.random_input, map(random.Random, range(500)))
    found = next(data for data in inputs if not agrees(data, fuzz_lines))
    monkeypatch.undo()
    assert agrees(found, fuzz_lines)


def test_the_harness_sees_a_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: a decoder that loses one byte, of one frame size, is found."""

    class Lossy(_framing_py.Demuxer):
        def feed(self, data: Any, /) -> list[tuple[muxframe.Stream, bytes]]:
            chunks = super().feed(data)
            return [(stream, payload[:-1] if len(payload) == 257 else payload) for stream, payload in chunks]

    monkeypatch.setattr(_framing_py, "Demuxer", Lossy)
    found = next(data for data in map(fuzz_framing.random_input, map(random.Random, range(500))) if not agrees(data))
    monkeypatch.undo()
    assert agrees(found)


def agrees(data: bytes, harness: Any = fuzz_framing) -> bool:
    try:
        harness.run_one(data)
    except AssertionError:
        return False
    return True
