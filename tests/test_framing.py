"""The frame core: both twins against the oracle, whole, byte by byte, at every two-way cut and at random ones."""

from __future__ import annotations

import array
import ctypes
import gc
import mmap
import os
import pickle
import random
import sys
import threading
import weakref
from pathlib import Path
from typing import Any

import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import muxframe
from muxframe import (
    DaemonError,
    Demuxed,
    DemuxedInto,
    FrameTooLargeError,
    FramingError,
    ReservedBytesError,
    Stream,
    TruncatedStreamError,
    UnknownStreamError,
)

pack = oracle.pack
FRAMES = [(1, b"hello "), (2, b"oh no\n"), (1, b""), (0, b"typed\n"), (2, b""), (1, b"world\n")]
WIRE = b"".join(pack(*frame) for frame in FRAMES)
FAULTS: dict[str, Any] = {
    "unknown": UnknownStreamError,
    "reserved": ReservedBytesError,
    "too large": FrameTooLargeError,
    "truncated": TruncatedStreamError,
    "systemerr": DaemonError,
}


def feed_all(core: Any, pieces: list[bytes], **options: Any) -> tuple[list[tuple[int, bytes]], Exception | None]:
    """Feed pieces and the end; return the chunks of all calls, and the fault."""
    demuxer = core.Demuxer(**options)
    chunks: list[tuple[int, bytes]] = []
    try:
        for piece in pieces:
            chunks += demuxer.feed(piece)
        demuxer.feed_eof()
    except (FramingError, DaemonError) as fault:
        return [*chunks, *fault.chunks], fault
    return chunks, None


def check_against_oracle(core: Any, wire: bytes, pieces: list[bytes], **options: Any) -> None:
    expected = oracle.decode(wire, **options)
    chunks, fault = feed_all(core, pieces, **options)
    assert b"".join(data for stream, data in chunks if stream != 2) == expected.stdout
    assert b"".join(data for stream, data in chunks if stream == 2) == expected.stderr
    merged = [stream for stream, data in chunks for _ in data]
    assert merged == [stream for stream, data in [*expected.frames, *filter(None, [expected.partial])] for _ in data]
    assert all(data for _, data in chunks), "empty chunks"
    check_fault(fault, expected)


def check_fault(fault: Any, expected: oracle.Outcome) -> None:
    if expected.end == "clean":
        assert fault is None
        return
    assert type(fault) is FAULTS[expected.end], fault
    assert fault.offset == expected.offset
    if expected.end == "truncated":
        assert fault.missing == expected.missing
    if expected.end == "systemerr":
        assert fault.message == expected.text


# --- any cut gives the same ------------------------------------------------------------------------------------------

DAMAGED = [
    WIRE,
    b"",
    WIRE[:-1],
    WIRE[:-8],
    WIRE + b"\x01\0\0",
    WIRE + pack(4, b"raw"),
    WIRE + b"\xff",
    WIRE + pack(1, b"x", reserved=b"\0\1\0"),
    WIRE + pack(1, b"x", size=0xFFFF_FFFF),
    WIRE + pack(3, b"boom \xe2\x98") + WIRE,
    WIRE + pack(3, b""),
    WIRE + pack(3, b"half", size=9),
    b"\x1b[31mroot@host:/# ",
    b'{"message":"No such container: x"}\n',
    b"Invalid input",
]


@pytest.mark.parametrize("wire", DAMAGED)
def test_every_two_way_cut(core: Any, wire: bytes) -> None:
    for cut in range(len(wire) + 1):
        check_against_oracle(core, wire, [wire[:cut], wire[cut:]])


@pytest.mark.parametrize("wire", DAMAGED)
def test_byte_by_byte_and_whole(core: Any, wire: bytes) -> None:
    check_against_oracle(core, wire, [wire[i : i + 1] for i in range(len(wire))])
    check_against_oracle(core, wire, [wire])


@pytest.mark.parametrize("seed", range(150))
def test_random_streams_at_random_cuts(core: Any, seed: int) -> None:
    rng = random.Random(seed)
    wire = oracle.random_wire(rng)
    choices: list[dict[str, Any]] = [{}, {"max_frame_size": 300}, {"check_reserved": False}, {"max_frame_size": 0}]
    options = rng.choice(choices)
    check_against_oracle(core, wire, oracle.cuts(wire, rng), **options)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=60), st.lists(st.integers(0, 60)))
def test_any_bytes(wire: bytes, places: list[int]) -> None:
    from muxframe import _framing

    bounds = [0, *sorted(min(place, len(wire)) for place in places), len(wire)]
    check_against_oracle(_framing, wire, [wire[a:b] for a, b in zip(bounds, bounds[1:], strict=False)])


# --- Demuxer ---------------------------------------------------------------------------------------------------------


def test_chunks_are_streams_and_bytes(core: Any) -> None:
    [(stream, payload)] = core.Demuxer().feed(pack(2, b"x"))
    assert stream is Stream.STDERR
    assert type(payload) is bytes


def test_counts(core: Any) -> None:
    demuxer = core.Demuxer()
    demuxer.feed(WIRE[:20])
    assert (demuxer.offset, demuxer.frames) == (20, 1)
    demuxer.feed_into(WIRE[20:], None, None)
    assert (demuxer.offset, demuxer.frames) == (len(WIRE), 6)


def test_failed_stays_failed(core: Any) -> None:
    demuxer = core.Demuxer()
    with pytest.raises(UnknownStreamError) as first:
        demuxer.feed(pack(1, b"ok") + pack(9, b""))
    assert first.value.chunks == [(1, b"ok")]
    assert first.value.header == pack(9, b"")
    calls = [
        lambda: demuxer.feed(pack(1, b"ok")),
        lambda: demuxer.feed(b""),
        lambda: demuxer.feed_into(b"", None, None),
        lambda: demuxer.buffer_updated(0),
        demuxer.feed_eof,
    ]
    for call in calls:
        with pytest.raises(UnknownStreamError) as later:
            call()
        assert later.value is not first.value
        assert (later.value.offset, later.value.header) == (first.value.offset, first.value.header)
        assert (later.value.chunks, str(later.value)) == ([], str(first.value))


def test_truncated_stays_truncated(core: Any) -> None:
    demuxer = core.Demuxer()
    demuxer.feed(pack(1, b"abc")[:-1])
    for _ in range(2):
        with pytest.raises(TruncatedStreamError) as caught:
            demuxer.feed_eof()
        assert (caught.value.offset, caught.value.missing) == (0, 1)
    with pytest.raises(TruncatedStreamError):
        demuxer.feed(b"c")


def test_closed(core: Any) -> None:
    demuxer = core.Demuxer()
    demuxer.feed(WIRE)
    demuxer.feed_eof()
    demuxer.feed_eof()
    for call in (lambda: demuxer.feed(b""), lambda: demuxer.feed_into(WIRE, None, None)):
        with pytest.raises(ValueError, match="feed after feed_eof"):
            call()


def test_cap(core: Any) -> None:
    demuxer = core.Demuxer(max_frame_size=5)
    assert demuxer.feed(pack(1, b"12345")) == [(1, b"12345")]
    with pytest.raises(FrameTooLargeError) as caught:
        demuxer.feed(pack(1, b"123456"))
    assert (caught.value.size, caught.value.limit, caught.value.offset) == (6, 5, 13)


@pytest.mark.parametrize(("limit", "error"), [(-1, ValueError), ("1", TypeError), (1.5, TypeError)])
def test_cap_that_is_none(core: Any, limit: Any, error: type[Exception]) -> None:
    for call in (core.Demuxer, lambda **k: core.demux(b"", **k), lambda **k: core.FrameReader(b"", **k)):
        with pytest.raises(error, match="max_frame_size"):
            call(max_frame_size=limit)


def test_cap_above_the_wire(core: Any) -> None:
    demuxer = core.Demuxer(max_frame_size=1 << 70)
    demuxer.feed(pack(1, b"x", size=0xFFFF_FFFF))


def test_reserved_bytes_on_request(core: Any) -> None:
    wire = pack(1, b"x", reserved=b"\1\2\3")
    assert core.Demuxer(check_reserved=False).feed(wire) == [(1, b"x")]
    assert core.demux(wire, check_reserved=False) == (b"x", b"")
    assert core.demux_into(wire, bytearray(9), None, check_reserved=False) == (9, 1, 0)
    assert [bytes(frame) for frame in core.FrameReader(wire, check_reserved=False)] == [b"x"]


def test_huge_claim_allocates_nothing(core: Any) -> None:
    import tracemalloc

    wire = pack(1, b"x" * 100, size=0xFFFF_FFFF)
    tracemalloc.start()
    try:
        core.Demuxer().feed(wire)
        with pytest.raises(TruncatedStreamError):
            core.demux(wire)
        with pytest.raises(TruncatedStreamError):
            next(core.FrameReader(_readinto([wire]), max_frame_size=None))
        assert tracemalloc.get_traced_memory()[1] < 2 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_offsets_past_4_gib(core: Any) -> None:
    demuxer = core.Demuxer()
    block = bytes(1 << 20)
    demuxer.feed(pack(1, b"", size=0xFFFF_FFFF))
    for _ in range(4095):
        assert demuxer.feed_into(block, None, None) == (1 << 20, 1 << 20, 0)
    demuxer.feed_into(block[:-1], None, None)
    assert (demuxer.offset, demuxer.frames) == (8 + 0xFFFF_FFFF, 1)
    with pytest.raises(UnknownStreamError) as caught:
        demuxer.feed(pack(1, b"x") + b"\x99")
    assert caught.value.offset == 8 + 0xFFFF_FFFF + 9


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 300_000])
def test_systemerr_text_is_bounded(core: Any, size: int) -> None:
    wire = WIRE + pack(3, b"e" * size)
    for pieces in ([wire], [wire[i : i + 1000] for i in range(0, len(wire), 1000)]):
        _, fault = feed_all(core, pieces)
        assert isinstance(fault, DaemonError)
        assert fault.message == "e" * min(size, 65536)
        assert str(fault) == "error from daemon in stream: " + fault.message


def test_get_buffer(core: Any) -> None:
    demuxer = core.Demuxer()
    rest = memoryview(WIRE)
    chunks = []
    while rest:
        buffer = demuxer.get_buffer(-1)
        size = min(7, len(rest))
        buffer[:size] = rest[:size]
        chunks += demuxer.buffer_updated(size)
        rest = rest[size:]
    assert b"".join(data for stream, data in chunks if stream == 2) == b"oh no\n"
    assert demuxer.offset == len(WIRE)


@pytest.mark.parametrize("nbytes", [-1, 65537, 1 << 40])
def test_buffer_updated_beyond_the_buffer(core: Any, nbytes: int) -> None:
    demuxer = core.Demuxer()
    with pytest.raises(ValueError, match="the buffer has 0"):
        demuxer.buffer_updated(1)
    demuxer.get_buffer()
    with pytest.raises(ValueError, match=f"nbytes is {nbytes}, the buffer has 65536"):
        demuxer.buffer_updated(nbytes)


# --- buffers in and out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [(0, 0), (1, 1), (3, 5), (6, 1000), (1000, 6), (17, 17), (1000, 1000)])
def test_feed_into_small_buffers(core: Any, room: tuple[int, int]) -> None:
    """Stops only when a buffer is full, loses nothing, and writes nothing beyond."""
    demuxer = core.Demuxer()
    out, err = bytearray(room[0]), bytearray(room[1])
    got = [b"", b""]
    rest = WIRE
    while rest:
        done = demuxer.feed_into(rest, out, err)
        assert isinstance(done, DemuxedInto)
        got[0] += out[: done.stdout_size]
        got[1] += err[: done.stderr_size]
        if done.consumed < len(rest):
            assert done.stdout_size == len(out) or done.stderr_size == len(err)
            if 0 in room:
                break
        rest = rest[done.consumed :]
    else:
        assert got == [b"hello typed\nworld\n", b"oh no\n"]


def test_ordered_feed_into_stops_at_the_other_output(core: Any) -> None:
    demuxer = core.Demuxer()
    out, err = bytearray(100), bytearray(100)
    order = []
    rest = WIRE
    while rest:
        done = demuxer._feed_into(rest, out, err, True, 0)
        assert not (done.stdout_size and done.stderr_size)
        order.append(bytes(out[: done.stdout_size]) + bytes(err[: done.stderr_size]))
        rest = rest[done.consumed :]
    assert order == [b"hello ", b"oh no\n", b"typed\nworld\n"]


@pytest.mark.parametrize("seed", range(100))
def test_demux_into_whole_frames(core: Any, seed: int) -> None:
    rng = random.Random(seed)
    wire = oracle.random_wire(rng)
    expected = oracle.decode(wire)
    out, err = bytearray(rng.choice((9, 300, 70000))), bytearray(rng.choice((9, 300, 70000)))
    rest = wire
    got = [b"", b""]
    count = 0
    fault = None
    while rest:
        try:
            done = core.demux_into(rest, out, err)
        except (FramingError, DaemonError) as error:
            fault, done = error, error.delivered
        got[0] += out[: done.stdout_size]
        got[1] += err[: done.stderr_size]
        count += done.consumed
        rest = rest[done.consumed :]
        if fault or not done.consumed:
            break
    whole = [b"".join(d for s, d in expected.frames if s != 2), b"".join(d for s, d in expected.frames if s == 2)]
    if isinstance(fault, FrameTooLargeError):
        assert fault.size > fault.limit
        assert fault.limit in (len(out), len(err))
        assert [whole[i].startswith(got[i]) for i in (0, 1)] == [True, True]
    else:
        assert got == whole
        assert count == expected.offset
        half = expected.end == "truncated" or (expected.end == "systemerr" and fault is None)
        assert half or (fault is None) == (expected.end == "clean")


def test_demux_into_first_frame_larger_than_its_buffer(core: Any) -> None:
    with pytest.raises(FrameTooLargeError) as caught:
        core.demux_into(pack(2, b"123456"), bytearray(100), bytearray(5))
    assert (caught.value.size, caught.value.limit, caught.value.delivered) == (6, 5, (0, 0, 0))
    with pytest.raises(FrameTooLargeError):  # however little of it has come
        core.demux_into(pack(2, b"", size=6), bytearray(100), bytearray(5))
    assert core.demux_into(pack(1, b"") + pack(2, b"123456"), bytearray(100), bytearray(5)) == (8, 0, 0)


def test_discard(core: Any) -> None:
    assert core.demux_into(WIRE, None, None) == (len(WIRE), 18, 6)
    err = bytearray(6)
    assert core.Demuxer().feed_into(WIRE, None, err) == (len(WIRE), 18, 6)
    assert err == b"oh no\n"


def test_fault_after_delivery_into_buffers(core: Any) -> None:
    out, err = bytearray(100), bytearray(100)
    for call in (core.demux_into, core.Demuxer().feed_into):
        with pytest.raises(UnknownStreamError) as caught:
            call(WIRE + b"\x77 and more", out, err)
        assert caught.value.delivered == (len(WIRE), 18, 6)
        assert caught.value.offset == len(WIRE)
        assert out[:18] == b"hello typed\nworld\n"


def test_any_item_size_is_read_as_bytes(core: Any) -> None:
    wire = pack(1, bytes(range(8)))
    sources: list[Any] = [
        bytearray(wire),
        memoryview(wire),
        array.array("H", wire),
        array.array("d", wire),
        memoryview(wire).cast("B", (4, 4)),
        (ctypes.c_uint32 * 4).from_buffer_copy(wire),
        ctypes.create_string_buffer(wire, len(wire)),
    ]
    for source in sources:
        assert core.demux(source) == (bytes(range(8)), b"")
        assert core.Demuxer().feed(source) == [(1, bytes(range(8)))]
        assert [bytes(frame) for frame in core.FrameReader(source)] == [bytes(range(8))]
    matrix = memoryview(bytearray(8)).cast("B", (2, 4))
    outputs: list[Any] = [array.array("H", bytes(8)), (ctypes.c_uint32 * 2)(), matrix]
    for output in outputs:
        assert core.demux_into(wire, output, None) == (16, 8, 0)
        assert bytes(output) == bytes(range(8))
    with mmap.mmap(-1, 100) as memory:
        assert core.demux_into(wire, memory, None) == (16, 8, 0)
        assert memory[:8] == bytes(range(8))


@pytest.mark.parametrize("empty", [b"", bytearray(), memoryview(b"12")[1:1], array.array("d")])
def test_empty_buffers(core: Any, empty: Any) -> None:
    assert core.demux(empty) == (b"", b"")
    assert core.Demuxer().feed(empty) == []
    assert core.demux_into(empty, bytearray(), array.array("d")) == (0, 0, 0)
    assert core.Demuxer().feed_into(pack(1, b"x"), bytearray(), bytearray()) == (8, 0, 0)
    assert list(core.FrameReader(empty)) == []


def test_buffers_that_are_refused(core: Any) -> None:
    every_other = memoryview(bytearray(32))[::2]
    calls: list[tuple[Any, str]] = [
        (lambda: core.demux(every_other), "data is not C-contiguous"),
        (lambda: core.Demuxer().feed(every_other), "data is not C-contiguous"),
        (lambda: core.demux_into(b"", every_other, None), "stdout is not C-contiguous"),
        (lambda: core.demux_into(b"", None, b"12345678"), "stderr is read-only"),
        (lambda: core.Demuxer().feed_into(b"", memoryview(b"123"), None), "stdout is read-only"),
        (lambda: core.pack_frame(1, every_other), "payload is not C-contiguous"),
        (lambda: core.FrameReader(every_other), "data is not C-contiguous"),
    ]
    for call, text in calls:
        with pytest.raises(BufferError, match=text):
            call()
    for call, text in [
        (lambda: core.demux("text"), "data must be a bytes-like object, not str"),
        (lambda: core.Demuxer().feed(None), "data must be a bytes-like object, not NoneType"),
        (lambda: core.demux_into(b"", 5, None), "stdout must be a bytes-like object, not int"),
    ]:
        with pytest.raises(TypeError, match=text):
            call()


def test_payload_of_its_own(core: Any) -> None:
    """Who lets go of a payload does so for himself."""
    frame = core.Frame(1, b"hi")
    frame.payload.release()
    _, payload = frame
    payload.release()
    assert bytes(frame) == frame.payload == b"hi"


def test_buffers_are_released(core: Any) -> None:
    data, out, err = bytearray(WIRE), bytearray(100), bytearray(100)
    core.demux(data)
    core.demux_into(data, out, err)
    demuxer = core.Demuxer()
    demuxer.feed(data)
    demuxer.feed_into(data, out, err)
    for bad in (pack(9, b""), pack(3, b"x")):
        with pytest.raises((FramingError, DaemonError)):
            core.demux_into(bytearray(bad), out, err)
        with pytest.raises((FramingError, DaemonError)):
            core.Demuxer().feed_into(bytearray(bad), out, err)
    with pytest.raises(BufferError):
        core.demux_into(data, out, b"read-only")
    frames = list(core.FrameReader(data))
    for buffer in (data, out, err):
        buffer += b"resized"  # a BufferError where an export is left
    assert bytes(frames[0]) == b"hello ", "a frame of mutable memory has a copy"


def test_overlapping_memory(core: Any) -> None:
    """An output may be the input's own memory: what counts is what was there before the call."""
    payloads = [bytes([i]) * (i * 7 % 60) for i in range(50)]
    wire = bytearray(b"".join(pack(1, payload) for payload in payloads))
    done = core.demux_into(wire, wire, None)
    assert wire[: done.stdout_size] == b"".join(payloads)
    wire = bytearray(b"".join(pack(1, payload) for payload in payloads))
    done = core.Demuxer().feed_into(wire, wire, None)
    assert wire[: done.stdout_size] == b"".join(payloads)


def test_references_do_not_grow(core: Any) -> None:
    out, err = bytearray(100), bytearray(100)
    demuxer = core.Demuxer()

    def use() -> None:
        core.demux(WIRE)
        core.demux_into(WIRE, out, err)
        demuxer.feed(WIRE)
        demuxer.feed_into(WIRE, out, err)
        for stream, payload in core.FrameReader(WIRE):
            bytes(payload), repr(stream)
        for bad in (WIRE + b"\x99", WIRE[:-1], pack(3, b"x")):
            with pytest.raises((FramingError, DaemonError)):
                core.demux(bad)

    use()
    gc.collect()
    before = [sys.getrefcount(thing) for thing in (WIRE, out, err, demuxer, None, Stream.STDOUT)]
    for _ in range(50):
        use()
    gc.collect()
    after = [sys.getrefcount(thing) for thing in (WIRE, out, err, demuxer, None, Stream.STDOUT)]
    assert all(abs(a - b) < 25 for a, b in zip(after, before, strict=True)), (before, after)


# --- demux -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(100))
def test_demux_against_the_oracle(core: Any, seed: int) -> None:
    rng = random.Random(1000 + seed)
    wire = oracle.random_wire(rng)
    options: dict[str, Any] = rng.choice([{}, {"max_frame_size": 300}, {"check_reserved": False}])
    expected = oracle.decode(wire, **options)
    both = (expected.stdout, expected.stderr)
    for truncated in ("error", "ignore"):
        try:
            result = core.demux(wire, truncated=truncated, **options)
        except (FramingError, DaemonError) as fault:
            check_fault(fault, expected)
            assert fault.chunks == [pair for pair in zip((1, 2), both, strict=True) if pair[1]]
            assert truncated == "error" or not isinstance(fault, TruncatedStreamError)
        else:
            assert isinstance(result, Demuxed)
            assert result == both
            assert expected.end == "clean" or (expected.end, truncated) == ("truncated", "ignore")


def test_unknown_word_for_truncated(core: Any) -> None:
    for call in (core.demux, core.FrameReader):
        with pytest.raises(ValueError, match="truncated must be 'error' or 'ignore', not 'maybe'"):
            call(b"", truncated="maybe")


# --- frames ----------------------------------------------------------------------------------------------------------


def _readinto(pieces: list[bytes]) -> Any:
    """Make a readinto that gives each piece by itself, as far as there is room, and then the end."""
    rest = [piece for piece in pieces if piece]

    def readinto(buffer: memoryview) -> int:
        if not rest:
            return 0
        piece = rest.pop(0)
        size = min(len(piece), len(buffer))
        buffer[:size] = piece[:size]
        if piece[size:]:
            rest.insert(0, piece[size:])
        return size

    return readinto


@pytest.mark.parametrize("seed", range(150))
def test_frames_against_the_oracle(core: Any, seed: int) -> None:
    rng = random.Random(2000 + seed)
    wire = oracle.random_wire(rng, max_frames=60)
    options: dict[str, Any] = {"max_frame_size": rng.choice((None, 300)), "check_reserved": rng.random() < 0.7}
    expected = oracle.decode(wire, **options)
    for source in (wire, bytearray(wire), _readinto(oracle.cuts(wire, rng))):
        frames: list[Any] = []
        fault = None
        reader = core.FrameReader(source, **options)
        try:
            frames.extend(reader)
        except (FramingError, DaemonError) as error:
            fault = error
            with pytest.raises(type(fault)) as again:
                next(reader)
            assert (again.value.chunks, again.value.offset) == ([], fault.offset)
        assert [(frame.stream, bytes(frame)) for frame in frames] == expected.frames
        check_fault(fault, expected)
        if expected.end == "truncated":
            assert fault is not None
            assert fault.chunks == ([expected.partial] if expected.partial else [])


def test_frames_drop_a_truncated_one_on_request(core: Any) -> None:
    assert [bytes(frame) for frame in core.FrameReader(WIRE[:-1], truncated="ignore")][-1] == b""
    assert [bytes(frame) for frame in core.FrameReader(_readinto([WIRE + b"\1"]), truncated="ignore")][-1] == b"world\n"


def test_frame(core: Any) -> None:
    [frame] = core.FrameReader(pack(2, b"payload"))
    stream, payload = frame
    assert stream is frame.stream is Stream.STDERR
    assert type(payload) is type(frame.payload) is memoryview
    assert payload == frame.payload == b"payload"
    assert payload.readonly
    assert payload.format == "B"
    assert (bytes(frame), len(frame)) == (b"payload", 7)
    assert frame == core.Frame(Stream.STDERR, b"payload") == core.Frame(2, bytearray(b"payload"))
    assert frame != core.Frame(1, b"payload")
    assert frame != core.Frame(2, b"Payload")
    assert frame != (2, b"payload")
    assert hash(frame) == hash(core.Frame(2, b"payload"))
    assert repr(frame) == "Frame(<Stream.STDERR: 2>, b'payload')"
    assert pickle.loads(pickle.dumps(frame)) == frame
    for name in ("stream", "payload", "other"):
        with pytest.raises(AttributeError):
            setattr(frame, name, 1)
    with pytest.raises(ValueError, match="7 is not a valid Stream"):
        core.Frame(7, b"")


def test_frames_stay_valid(core: Any) -> None:
    payloads = [bytes([i % 256]) * 5000 for i in range(500)]
    reader = core.FrameReader(_readinto([pack(1, payload) for payload in payloads]))
    views = [payload for _, payload in reader]
    del reader
    gc.collect()
    assert views == payloads


def test_frames_of_memory_are_not_copied(core: Any) -> None:
    wire = bytes(pack(1, b"x" * 100_000))
    before = sys.getrefcount(wire)
    [frame] = core.FrameReader(wire)
    assert sys.getrefcount(wire) > before
    del frame


def test_large_frames_grow_with_what_arrives(core: Any) -> None:
    payload = random.Random(7).randbytes(3_000_000)
    wire = pack(1, payload) + pack(2, b"behind")
    for step in (1000, 65536, 700_000):
        pieces = [wire[i : i + step] for i in range(0, len(wire), step)]
        assert [bytes(frame) for frame in core.FrameReader(_readinto(pieces))] == [payload, b"behind"]


def test_frame_cap(core: Any) -> None:
    cap = 16 * 1024 * 1024
    with pytest.raises(FrameTooLargeError) as caught:
        next(core.FrameReader(pack(1, b"", size=cap + 1)))
    assert caught.value.limit == cap
    with pytest.raises(TruncatedStreamError):
        next(core.FrameReader(pack(1, b"", size=cap)))


def test_source_that_fails(core: Any) -> None:
    """What the source raises passes through, and iteration can go on afterwards."""
    steps: list[Any] = [pack(1, b"one")[:5], TimeoutError("slow"), pack(1, b"one")[5:], OSError("gone")]

    def readinto(buffer: memoryview) -> int:
        step = steps.pop(0)
        if isinstance(step, Exception):
            raise step
        buffer[: len(step)] = step
        return len(step)

    reader = core.FrameReader(readinto)
    with pytest.raises(TimeoutError, match="slow"):
        next(reader)
    assert bytes(next(reader)) == b"one"
    with pytest.raises(OSError, match="gone"):
        next(reader)


@pytest.mark.parametrize("size", [-1, 1 << 30])
def test_source_that_lies(core: Any, size: int) -> None:
    with pytest.raises(ValueError, match=f"source returned {size} bytes where 262144 were asked for"):
        next(core.FrameReader(lambda buffer: size))


def test_reentrant_reading_is_refused(core: Any) -> None:
    def readinto(buffer: memoryview) -> int:
        next(reader)
        return 0

    reader = core.FrameReader(readinto)
    with pytest.raises(RuntimeError, match="FrameReader is in use: re-entrant call"):
        next(reader)


def test_systemerr_as_a_frame(core: Any) -> None:
    wire = pack(1, b"a") + pack(3, b"boom") + pack(2, b"b")
    for source in (wire, _readinto([wire[i : i + 1] for i in range(len(wire))])):
        frames = list(core.FrameReader(source, raise_systemerr=False))
        assert [(frame.stream, bytes(frame)) for frame in frames] == [(1, b"a"), (3, b"boom"), (2, b"b")]


# --- the way back ----------------------------------------------------------------------------------------------------


def test_pack_frame(core: Any) -> None:
    for stream in (0, 1, 2, 3):
        for payload in (b"", b"x", bytearray(b"abc"), array.array("H", [1, 2]), b"y" * 70_000):
            assert core.pack_frame(stream, payload) == pack(stream, bytes(payload))
    for stream in (-1, 4, 256):
        with pytest.raises(ValueError, match=f"stream must be 0..3, not {stream}"):
            core.pack_frame(stream, b"")


def test_pack_frame_larger_than_a_header_can_say(core: Any) -> None:
    with mmap.mmap(-1, 1 << 32) as memory, pytest.raises(ValueError, match="4294967296 bytes does not fit"):
        core.pack_frame(1, memory)


# --- threads ---------------------------------------------------------------------------------------------------------


def run_threads(count: int, work: Any) -> None:
    errors = []

    def run(i: int) -> None:
        try:
            work(i)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not any(thread.is_alive() for thread in threads)
    assert not errors, errors


def test_threads_share_one_demuxer(core: Any) -> None:
    """Calls take turns: whole frames fed by several threads come out whole, and all are counted."""
    demuxer = core.Demuxer()
    wire = b"".join(pack(1 + i % 2, b"z" * (i % 50)) for i in range(2000))
    out, err = [bytearray(200_000) for _ in range(4)], [bytearray(200_000) for _ in range(4)]

    def work(i: int) -> None:
        for _ in range(10):
            done = demuxer.feed_into(wire, out[i], err[i])
            assert done.consumed == len(wire)
            assert not out[i][: done.stdout_size].strip(b"z")
            demuxer.feed(wire)

    run_threads(4, work)
    assert (demuxer.frames, demuxer.offset) == (4 * 10 * 2 * 2000, 4 * 10 * 2 * len(wire))


def test_threads_use_many(core: Any) -> None:
    def work(i: int) -> None:
        rng = random.Random(i)
        for _ in range(20):
            wire = oracle.random_wire(rng)
            check_against_oracle(core, wire, oracle.cuts(wire, rng))

    run_threads(4, work)


def test_threads_share_one_reader(core: Any) -> None:
    wire = b"".join(pack(1, i.to_bytes(4, "big") * 5) for i in range(20_000))
    reader = core.FrameReader(_readinto([wire[i : i + 5000] for i in range(0, len(wire), 5000)]))
    got: list[list[bytes]] = [[] for _ in range(4)]
    run_threads(4, lambda i: got[i].extend(bytes(frame) for frame in reader))
    assert sorted(b for part in got for b in part) == [i.to_bytes(4, "big") * 5 for i in range(20_000)]


def test_weak_references_and_subclasses(core: Any) -> None:
    class Mine(core.Demuxer):  # type: ignore[misc, name-defined]
        pass

    demuxer = Mine(max_frame_size=3)
    assert weakref.ref(demuxer)() is demuxer
    assert demuxer.feed(pack(1, b"abc")) == [(1, b"abc")]
    assert weakref.ref(core.FrameReader(b"")) is not None


# --- raw streams -----------------------------------------------------------------------------------------------------


def test_raw_stream_is_all_stdout(core: Any) -> None:
    demuxer = core.Demuxer(raw=True)
    wire = b"\x01\0\0\0\0\0\0\x02hi\r\n$ " + bytes(range(256))
    assert demuxer.feed(wire[:3]) == [(Stream.STDOUT, wire[:3])]
    out, err = bytearray(5), bytearray(5)
    assert demuxer.feed_into(wire[3:], out, err) == (5, 5, 0)
    assert out == wire[3:8]
    demuxer.get_buffer()[: len(wire) - 8] = wire[8:]
    assert demuxer.buffer_updated(len(wire) - 8) == [(Stream.STDOUT, wire[8:])]
    assert demuxer.feed(b"") == []
    assert (demuxer.offset, demuxer.frames) == (len(wire), 0)
    demuxer.feed_eof()


def test_raw_stream_is_copied_between_descriptors(tmp_path: Path) -> None:
    wire = os.urandom(1 << 20)
    (tmp_path / "in").write_bytes(wire)
    copied = muxframe.copy(tmp_path / "in", tmp_path / "out", demuxer=muxframe.Demuxer(raw=True))
    assert copied == (len(wire), 0, 0)
    assert (tmp_path / "out").read_bytes() == wire
