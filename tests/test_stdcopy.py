"""compat.stdcopy does what Moby's stdcopy does, to its numbers and texts, told in muxframe's own words."""

from __future__ import annotations

import io
import random
from typing import Any

import oracle
import pytest

from muxframe.compat.stdcopy import NewStdWriter, StdCopy, StdCopyError, Stderr, Stdin, Stdout, Systemerr

pack = oracle.pack


class Writes(list[bytes]):
    """Remembers each write by itself."""

    def write(self, data: bytes) -> int:
        self.append(data)
        return len(data)


def test_two_large_frames_and_a_cut() -> None:
    wire = pack(1, b"." * 32777) + pack(2, b"," * 32777)
    out, err = Writes(), Writes()
    assert StdCopy(out, err, io.BytesIO(wire)) == 65554
    assert (out, err) == ([b"." * 32777], [b"," * 32777])
    out, err = Writes(), Writes()
    assert StdCopy(out, err, io.BytesIO(wire[:-10])) == 32777
    assert (out, err) == ([b"." * 32777], [])


@pytest.mark.parametrize("wire", [b"", b"\1", b"\1\2\3", b"\x77\2\3", b"\x77\2\3\4\5\6\7", b"\1\0\0\0\0\0\0"])
@pytest.mark.parametrize("dribble", [False, True])
def test_less_than_a_header_is_an_end(wire: bytes, dribble: bool) -> None:
    source: Any = [wire[i : i + 1] for i in range(len(wire))] if dribble else io.BytesIO(wire)
    assert StdCopy(Writes(), Writes(), source) == 0


@pytest.mark.parametrize("dribble", [False, True])
def test_unrecognized_stream(dribble: bool) -> None:
    for wire, number in ((b"Invalid input", 73), (pack(1, b"fine") + pack(4, b""), 4)):
        source: Any = [wire[i : i + 1] for i in range(len(wire))] if dribble else io.BytesIO(wire)
        with pytest.raises(StdCopyError) as caught:
            StdCopy(Writes(), Writes(), source)
        assert str(caught.value) == f"unrecognized stream: {number}"
        assert caught.value.written == 0


def test_stream_is_judged_before_its_payload_is_read() -> None:
    with pytest.raises(StdCopyError, match="unrecognized stream: 9"):
        StdCopy(Writes(), Writes(), iter([pack(9, b"", size=0xFFFF_FFFF), None]))  # type: ignore[list-item]


@pytest.mark.parametrize("text", [b"", b"no more disk", b"x" * 100_000])
def test_systemerr(text: bytes) -> None:
    out = Writes()
    with pytest.raises(StdCopyError) as caught:
        StdCopy(out, Writes(), pack(1, b"12345") + pack(3, text) + pack(1, b"never"))
    assert str(caught.value) == "error from daemon in stream: " + text.decode()
    assert caught.value.written == 5
    assert out == [b"12345"]


def test_cut_systemerr_is_an_end() -> None:
    assert StdCopy(Writes(), Writes(), pack(1, b"12345") + pack(3, b"half", size=5)) == 5


def test_one_frame_one_write_and_stdin_goes_out() -> None:
    out, err = Writes(), Writes()
    assert StdCopy(out, err, pack(0, b"in") + pack(1, b"") + pack(1, b"out") + pack(2, b"err") + pack(2, b"")) == 8
    assert out == [b"in", b"", b"out"]
    assert err == [b"err", b""]


def test_reserved_bytes_are_not_looked_at() -> None:
    assert StdCopy(out := Writes(), Writes(), pack(1, b"x", reserved=b"\7\7\7")) == 1
    assert out == [b"x"]


@pytest.mark.parametrize("taken", [0, 1, 2, 4])
def test_short_write(taken: int) -> None:
    class Short:
        def write(self, data: bytes) -> int:
            return taken

    with pytest.raises(StdCopyError) as caught:
        StdCopy(io.BytesIO(), Short(), pack(1, b"123") + pack(2, b"123"))
    assert (str(caught.value), caught.value.written) == ("short write", 0)


def test_errors_of_either_side_pass_through() -> None:
    class Broken:
        def write(self, data: bytes) -> int:
            raise ConnectionResetError("sink")

        def read(self, size: int) -> bytes:
            raise TimeoutError("source")

    with pytest.raises(TimeoutError, match="source"):
        StdCopy(Writes(), Writes(), Broken())
    with pytest.raises(ConnectionResetError, match="sink"):
        StdCopy(Broken(), Writes(), pack(1, b"x"))


def test_other_destinations() -> None:
    out = bytearray()
    assert StdCopy(out, None, pack(1, b"x") + pack(2, b"y")) == 2
    assert out == b"x"


@pytest.mark.parametrize("seed", range(60))
def test_against_the_oracle(seed: int) -> None:
    rng = random.Random(seed)
    wire = oracle.random_wire(rng)
    expected = oracle.decode(wire, check_reserved=False)
    out, err = Writes(), Writes()
    written: int | None
    try:
        written = StdCopy(out, err, oracle.cuts(wire, rng))
    except StdCopyError as error:
        assert expected.end == ("unknown" if error.written == 0 and "unrecognized" in str(error) else "systemerr")
    else:
        assert written == sum(len(payload) for _, payload in expected.frames)
    assert out == [payload for stream, payload in expected.frames if stream != 2]
    assert err == [payload for stream, payload in expected.frames if stream == 2]


# --- the writer ------------------------------------------------------------------------------------------------------


def test_writer() -> None:
    wire = Writes()
    assert NewStdWriter(wire, Stdout).write(b"hello") == 5
    assert NewStdWriter(wire, Stderr).write(bytearray(b"no")) == 2
    assert wire == [pack(1, b"hello"), pack(2, b"no")]
    for nothing in (None, b"", bytearray()):
        assert NewStdWriter(wire, Stdout).write(nothing) == 0
    assert len(wire) == 2
    with pytest.raises(StdCopyError, match="writer not instantiated"):
        NewStdWriter(None, Stdin).write(b"x")


@pytest.mark.parametrize(("taken", "count"), [(0, 0), (7, 0), (8, 0), (10, 2), (13, 5), (None, 5)])
def test_writer_counts_payload_only(taken: int | None, count: int) -> None:
    class Says:
        def write(self, data: bytes) -> int | None:
            return taken

    assert NewStdWriter(Says(), Systemerr).write(b"hello") == count
