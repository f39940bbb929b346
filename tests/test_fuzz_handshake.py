"""The fuzz harness of the handshake, for a few seconds with a fixed seed, and on every input that has failed before."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parent / "fuzz"
sys.path.insert(0, str(FUZZ))

pytest.importorskip("websockets")

import fuzz_handshake  # noqa: E402

from muxframe.engine.handshake import Conversation  # noqa: E402


@pytest.mark.parametrize("path", sorted((FUZZ / "cases" / "handshake").glob("*.bin")), ids=lambda path: path.stem)
def test_case(path: Path) -> None:
    fuzz_handshake.run_one(path.read_bytes())


def test_random_inputs(tmp_path: Path) -> None:
    assert fuzz_handshake.run_for(3, seed=1, keep_in=tmp_path) > 0


def test_the_harness_sees_a_lost_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: what came in one packet with the head is dropped."""
    take_over = Conversation.take_over
    monkeypatch.setattr(Conversation, "take_over", lambda self: (b"", take_over(self)[1]))
    with pytest.raises(AssertionError):
        for number in range(500):
            fuzz_handshake.run_one(fuzz_handshake.random_input(random.Random(number)))
