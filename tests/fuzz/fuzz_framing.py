"""Whatever the bytes and the cuts, both twins and the oracle agree on payload, counts and fault, for every API.

Of a fault they agree on its kind, offset and text, and on when it is raised.

An input is 6 bytes of settings and the wire (see `Case.parse`). Each check runs one API on one twin, compares with the
oracle, and returns all it saw; both twins must have seen the same. `CONTRACT` is what a decoder may raise: anything
else ends the run. harness.py says how to run it.
"""

from __future__ import annotations

import importlib
import io
import os
import random
import socket
import sys
import tempfile
from bisect import bisect_right
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any, Literal

from harness import Fuzzer, instrumented

import oracle  # isort: skip
from oracle import HEADER_SIZE, MAX_TEXT_SIZE, Outcome

with instrumented():
    import muxframe
    from muxframe import _framing_py, copying
    from muxframe.compat import stdcopy
    from muxframe.errors import (
        DaemonError,
        FrameTooLargeError,
        ReservedBytesError,
        SinkError,
        TruncatedStreamError,
        UnknownStreamError,
    )

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    Twin = Any  # a module
    Check = Callable[[Twin, "Case", Outcome], object]
    Pieces = list[tuple[int, bytes]]

#: What a decoder may raise, and the oracle's word for it.
FAULTS: dict[type[Exception], str] = {
    UnknownStreamError: "unknown",
    ReservedBytesError: "reserved",
    FrameTooLargeError: "too large",
    TruncatedStreamError: "truncated",
    DaemonError: "systemerr",
}
CONTRACT = tuple(FAULTS)

LIMITS = (None, None, None, None, 0, 1, 8, 255, 256, 1000, 32768, 0xFFFF_FFFE, 0xFFFF_FFFF, 1 << 40)
SETTINGS_SIZE = 6


def load_twins() -> list[Twin]:
    """Return the Python twin and, where it was built, the compiled one; a broken one is an error."""
    try:
        compiled = importlib.import_module("muxframe._framing_c")
    except ModuleNotFoundError as error:  # muxframe itself does not import where MUXFRAME_BACKEND asks for it in vain
        if error.name != "muxframe._framing_c":
            raise
        print("fuzz_framing: no compiled twin here: only the Python twin and the oracle are compared", file=sys.stderr)
        return [_framing_py]
    return [_framing_py, compiled]


TWINS = load_twins()


# --- inputs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One input: a stream, and how it is decoded."""

    wire: bytes
    max_frame_size: int | None = None
    check_reserved: bool = True
    truncated: Literal["error", "ignore"] = "error"
    seed: int = 0  #: of cuts, buffer sizes and kinds of sources and sinks

    @classmethod
    def parse(cls, data: bytes) -> Case:
        """Take an input apart: flags, the limit's index, a seed of 4 bytes, the wire."""
        settings, wire = data[:SETTINGS_SIZE].ljust(SETTINGS_SIZE, b"\0"), data[SETTINGS_SIZE:]
        return cls(
            wire,
            max_frame_size=LIMITS[settings[1] % len(LIMITS)],
            check_reserved=not settings[0] & 1,
            truncated="ignore" if settings[0] & 2 else "error",
            seed=int.from_bytes(settings[2:], "big"),
        )

    @property
    def options(self) -> dict[str, Any]:
        return {"max_frame_size": self.max_frame_size, "check_reserved": self.check_reserved}

    def rng(self) -> random.Random:
        """Return the same random numbers for each twin."""
        return random.Random(self.seed)


def random_input(rng: random.Random) -> bytes:
    """Make an input that `Case.parse` takes."""
    settings = bytes((rng.choice((0, 0, 1, 2, 3)), rng.randrange(len(LIMITS)))) + rng.randbytes(4)
    return settings + oracle.random_wire(rng)


# --- what is compared ------------------------------------------------------------------------------------------------


def judge(fault: Exception | None, expected: Outcome) -> None:
    """Compare how decoding ended with how the oracle says it ends."""
    if fault is None:
        assert expected.end == "clean", f"no error, but {expected.end} expected"
        return
    assert FAULTS[type(fault)] == expected.end, f"{fault!r}, but {expected.end} expected"
    assert fault.offset == expected.offset, f"offset {fault.offset}, not {expected.offset}"  # type: ignore[attr-defined]
    if isinstance(fault, TruncatedStreamError):
        assert fault.missing == expected.missing
    if isinstance(fault, DaemonError):
        assert fault.message == expected.text


def facts(fault: Exception | None) -> object:
    """Return all there is to a fault, for a comparison of the twins."""
    return fault and (type(fault), fault.args, str(fault), repr(fault), dict(vars(fault)))


def runs(pieces: Iterable[tuple[int, bytes]]) -> Pieces:
    """Join neighbours of the same stream, and drop the empty ones: what no cut may change."""
    joined: list[tuple[int, bytearray]] = []
    for stream, payload in pieces:
        if not payload:
            continue
        if not joined or joined[-1][0] != stream:
            joined.append((stream, bytearray()))
        joined[-1][1].extend(payload)
    return [(stream, bytes(payload)) for stream, payload in joined]


def pieces_of(expected: Outcome) -> Pieces:
    """Return the payload in wire order, the partial one at the end included."""
    return expected.frames + ([expected.partial] if expected.partial else [])


def by_output(pieces: Iterable[tuple[int, bytes]]) -> Pieces:
    """Say of each piece which output it goes to, instead of its stream."""
    return [(stream >> 1, payload) for stream, payload in pieces]


def joined(pieces: Iterable[tuple[int, bytes]], output: int) -> bytes:
    """Join what one output gets."""
    return b"".join(payload for target, payload in pieces if target == output)


def deciding_byte(case: Case, expected: Outcome) -> int | None:
    """Return where the byte is with which the fault must be raised; None where only the end tells."""
    if expected.end in ("clean", "truncated"):
        return None
    if expected.end == "unknown":
        return expected.offset
    if expected.end != "systemerr":
        return expected.offset + HEADER_SIZE - 1
    size = int.from_bytes(case.wire[expected.offset + 4 : expected.offset + HEADER_SIZE], "big")
    place = expected.offset + HEADER_SIZE + min(size, MAX_TEXT_SIZE) - 1
    return place if place < len(case.wire) else None


def check_stays_failed(demuxer: Any, fault: Exception | None) -> None:
    """Each later call raises the fault again, without what was delivered; after a clean end, that it has ended."""
    wire = b"\1\0\0\0\0\0\0\1x"
    calls: list[Callable[[], object]] = [
        lambda: demuxer.feed(wire),
        lambda: demuxer.feed_into(wire, bytearray(9), None),
        lambda: demuxer.buffer_updated(0),
        lambda: muxframe.copy(wire, None, demuxer=demuxer),
    ]
    for call in calls:
        try:
            call()
        except CONTRACT as again:
            assert fault is not None
            assert (type(again), str(again), again.offset) == (type(fault), str(fault), fault.offset)  # type: ignore[attr-defined]
            assert not again.chunks and again.delivered in (None, (0, 0, 0))  # type: ignore[attr-defined]
        except ValueError as error:
            assert fault is None, error
            assert str(error) == "feed after feed_eof"
        else:
            raise AssertionError("a call after the end was accepted")


# --- the incremental API ---------------------------------------------------------------------------------------------


def drive(
    case: Case, expected: Outcome, demuxer: Any, pieces: Sequence[bytes], take: Callable[[bytes], None]
) -> object:
    """Feed pieces and the end; compare what it raises, when, and what holds afterwards."""
    fault: Exception | None = None
    fed = start = 0
    decisive = deciding_byte(case, expected)
    try:
        for piece in pieces:
            start, fed = fed, fed + len(piece)
            take(piece)
        start, fed = fed, fed + 1
        assert decisive is None, f"{expected.end} was not raised before the end"
        demuxer.feed_eof()
    except CONTRACT as error:
        fault = error
        assert start <= (len(case.wire) if decisive is None else decisive) < fed, f"{fault!r} was not raised in time"
    judge(fault, expected)
    assert demuxer.frames == len(expected.frames)
    if expected.end in ("clean", "truncated"):
        assert demuxer.offset == len(case.wire)
    check_stays_failed(demuxer, fault)
    return facts(fault), demuxer.offset


def check_feed(twin: Twin, case: Case, expected: Outcome) -> object:
    """Demuxer.feed with random cuts, of several kinds of memory."""
    rng = case.rng()
    demuxer = twin.Demuxer(**case.options)
    chunks: Pieces = []

    def take(piece: bytes) -> None:
        try:
            chunks.extend(demuxer.feed(rng.choice((bytes, bytearray, memoryview))(piece)))
        except CONTRACT as fault:
            chunks.extend(fault.chunks)  # type: ignore[attr-defined]
            raise

    seen = drive(case, expected, demuxer, oracle.cuts(case.wire, rng), take)
    assert runs(chunks) == runs(pieces_of(expected))
    assert all(type(stream) is muxframe.Stream and type(payload) is bytes and payload for stream, payload in chunks)
    return seen, chunks


def check_buffer_updated(twin: Twin, case: Case, expected: Outcome) -> object:
    """get_buffer and buffer_updated."""
    rng = case.rng()
    demuxer = twin.Demuxer(**case.options)
    chunks: Pieces = []
    room = len(demuxer.get_buffer())
    pieces = [cut[i : i + room] for cut in oracle.cuts(case.wire, rng) for i in range(0, len(cut), room)]

    def take(piece: bytes) -> None:
        demuxer.get_buffer(rng.choice((-1, 1, 1 << 20)))[: len(piece)] = piece
        try:
            chunks.extend(demuxer.buffer_updated(len(piece)))
        except CONTRACT as fault:
            chunks.extend(fault.chunks)  # type: ignore[attr-defined]
            raise

    seen = drive(case, expected, demuxer, pieces, take)
    assert runs(chunks) == runs(pieces_of(expected))
    return seen, chunks, room


class Guarded:
    """A buffer of exactly so many bytes, with guards on both sides that nobody may touch."""

    GUARD = bytes(range(1, 65))

    def __init__(self, size: int) -> None:
        self._memory = bytearray(self.GUARD + bytes(size) + self.GUARD)
        self.view = memoryview(self._memory)[len(self.GUARD) : len(self.GUARD) + size]

    def taken(self, size: int) -> bytes:
        """Return what was written into it."""
        assert self._memory.startswith(self.GUARD), "written before the buffer"
        assert self._memory.endswith(self.GUARD), "written behind the buffer"
        assert size <= len(self.view)
        return bytes(self.view[:size])


def random_rooms(rng: random.Random, smallest: int) -> list[int | None]:
    """Choose the sizes of two buffers; None discards."""
    largest = rng.choice((1, 8, 40, 300, 600, 5000, 100_000))
    return [None if rng.random() < 0.1 else rng.randint(smallest, max(smallest, largest)) for _ in range(2)]


class Outputs:
    """The two outputs of a call, and what was written into them so far."""

    def __init__(self, rooms: Sequence[int | None]) -> None:
        self.rooms = rooms
        self.buffers = [None if room is None else Guarded(room) for room in rooms]
        self.views = [buffer and buffer.view for buffer in self.buffers]
        self.pieces: Pieces = []
        self.sizes = [0, 0]

    def collect(self, done: muxframe.DemuxedInto) -> None:
        """Take note of what a call has written."""
        assert type(done) is muxframe.DemuxedInto
        for i, (buffer, size) in enumerate(zip(self.buffers, done[1:], strict=True)):
            self.sizes[i] += size
            self.pieces.append((i, bytes(size) if buffer is None else buffer.taken(size)))

    def compare(self, expected: Pieces, *, ordered: bool = False) -> None:
        """Compare with what each output should have got; discarded bytes are only counted."""
        for i in range(2):
            payload = joined(expected, i)
            assert self.sizes[i] == len(payload)
            assert self.rooms[i] is None or joined(self.pieces, i) == payload
        if ordered and None not in self.rooms:
            assert runs(self.pieces) == runs(expected)


def check_feed_into(twin: Twin, case: Case, expected: Outcome) -> object:
    """Demuxer.feed_into and _feed_into(ordered), with random cuts and random small buffers."""
    return [_feed_into(twin, case, expected, ordered) for ordered in (None, False, True)]


def _feed_into(twin: Twin, case: Case, expected: Outcome, ordered: bool | None) -> object:
    rng = case.rng()
    demuxer = twin.Demuxer(**case.options)
    outputs = Outputs(random_rooms(rng, 1 + len(case.wire) // 40))
    trace: list[tuple[int, ...]] = []

    def call(piece: bytes) -> muxframe.DemuxedInto:
        if ordered is None:
            return demuxer.feed_into(piece, *outputs.views)  # type: ignore[no-any-return]
        return demuxer._feed_into(b"before" + piece, *outputs.views, ordered, 6)  # type: ignore[no-any-return]

    def take(piece: bytes) -> None:
        while piece:
            try:
                done = call(piece)
            except CONTRACT as fault:
                assert fault.chunks == []  # type: ignore[attr-defined]
                outputs.collect(fault.delivered)  # type: ignore[attr-defined]
                raise
            outputs.collect(done)
            check_stop(done, len(piece), outputs.rooms, bool(ordered))
            trace.append(tuple(done))
            piece = piece[done.consumed :]

    seen = drive(case, expected, demuxer, oracle.cuts(case.wire, rng), take)
    outputs.compare(by_output(pieces_of(expected)), ordered=bool(ordered))
    return seen, trace


def check_stop(done: muxframe.DemuxedInto, size: int, rooms: Sequence[int | None], ordered: bool) -> None:
    """A call that left something behind had a reason: a full buffer, or, ordered, the other output's turn."""
    both = ordered and None not in rooms
    assert not (both and done.stdout_size and done.stderr_size)
    if done.consumed < size:
        assert done.consumed, "no progress"
        assert both or done.stdout_size == rooms[0] or done.stderr_size == rooms[1], "stopped, but nothing is full"


# --- whole buffers ---------------------------------------------------------------------------------------------------


def check_demux(twin: Twin, case: Case, expected: Outcome) -> object:
    """Take the whole buffer at once."""
    outputs = (expected.stdout, expected.stderr)
    try:
        done = twin.demux(case.wire, truncated=case.truncated, **case.options)
    except CONTRACT as fault:
        judge(fault, expected)
        assert case.truncated == "error" or expected.end != "truncated"
        assert fault.chunks == [pair for pair in zip((1, 2), outputs, strict=True) if pair[1]]  # type: ignore[attr-defined]
        return facts(fault)
    if expected.end != "truncated" or case.truncated == "error":
        judge(None, expected)
    assert type(done) is muxframe.Demuxed
    assert done == outputs
    return done


def check_demux_into(twin: Twin, case: Case, expected: Outcome) -> object:
    """demux_into with random buffers, again and again with what it left."""
    rng = case.rng()
    outputs = Outputs(random_rooms(rng, 0))
    trace: list[object] = []
    position = 0
    while len(trace) < 30:
        wire = case.wire[position:]
        consumed, sizes, end = model_demux_into(case, wire, outputs.rooms)
        fault = None
        try:
            done = twin.demux_into(wire, *outputs.views, **case.options)
        except CONTRACT as error:
            fault, done = error, error.delivered  # type: ignore[attr-defined]
            assert (fault.chunks, fault.offset) == ([], consumed)  # type: ignore[attr-defined]
        assert (done, fault and FAULTS[type(fault)]) == ((consumed, *sizes), end)
        outputs.collect(done)
        trace.append((done, facts(fault)))
        position += consumed
        if fault is not None or not consumed:
            break
    taken = oracle.decode(case.wire[:position], **case.options)
    assert taken.end == "clean"
    outputs.compare(by_output(taken.frames))
    return trace


def model_demux_into(case: Case, wire: bytes, rooms: Sequence[int | None]) -> tuple[int, list[int], str | None]:
    """Say what one call should return: bytes consumed, bytes written, and the word for what it raises."""
    expected = oracle.decode(wire, **case.options)
    consumed, sizes = 0, [0, 0]
    frames = [(stream >> 1, len(payload), True) for stream, payload in expected.frames]
    header = wire[expected.offset : expected.offset + HEADER_SIZE]
    claimed = int.from_bytes(header[4:], "big")
    if expected.end == "truncated" and len(header) == HEADER_SIZE:
        frames.append((header[0] >> 1, claimed, False))
    for target, size, is_whole in frames:
        room = rooms[target]
        if not consumed and room is not None and size > room:
            return consumed, sizes, "too large"
        if not is_whole or (room is not None and size > room - sizes[target]):
            return consumed, sizes, None
        sizes[target] += size
        consumed += HEADER_SIZE + size
    text_is_due = expected.end == "systemerr" and len(wire) - consumed - HEADER_SIZE < min(claimed, MAX_TEXT_SIZE)
    return consumed, sizes, None if expected.end in ("clean", "truncated") or text_is_due else expected.end


def check_overlap(twin: Twin, case: Case, expected: Outcome) -> object:
    """demux_into and feed_into where outputs lie in the input's memory: as if the input had been read before."""
    rng = case.rng()
    trace: list[object] = []
    for make in (lambda: twin.demux_into, lambda: twin.Demuxer(**case.options).feed_into):
        memory = bytearray(case.wire[:3000] * 2)
        options = case.options if make() == twin.demux_into else {}
        marks = sorted(rng.randint(0, len(memory)) for _ in range(3))
        views = [memoryview(memory)[: len(memory) // 2], *(memoryview(memory)[a:b] for a, b in pairwise(marks))]
        results = []
        for data, *outputs in (views_apart(views), views):
            try:
                done = make()(data, *outputs, **options)
                outcome: object = done
            except CONTRACT as fault:
                done, outcome = fault.delivered, facts(fault)  # type: ignore[attr-defined]
            results.append((outcome, bytes(outputs[0][: done.stdout_size]), bytes(outputs[1][: done.stderr_size])))
        assert results[0] == results[1]
        trace.append(results[0])
    return trace


def views_apart(views: Sequence[memoryview]) -> list[memoryview]:
    """Copy each piece of memory to a place of its own."""
    return [memoryview(bytearray(view)) for view in views]


def check_pack_frame(twin: Twin, case: Case, expected: Outcome) -> object:
    """Pack the frames again: the wire comes back, but for what is reserved."""
    wire = b"".join(twin.pack_frame(stream, payload) for stream, payload in expected.frames)
    assert wire == b"".join(oracle.pack(stream, payload) for stream, payload in expected.frames)
    return wire


# --- sources ---------------------------------------------------------------------------------------------------------


class Trickle:
    """A file object whose readinto gives a few bytes at a time, and now and then raises TimeoutError."""

    def __init__(self, wire: bytes, rng: random.Random, *, timeouts: bool = False) -> None:
        self.wire = wire
        self.position = 0
        self.asked: list[int] = []
        self.before_reading: Callable[[], None] = lambda: None
        self._rng = rng
        self._timeouts = timeouts
        self._largest = rng.choice((1, 3, 8, 9, 50, 1000)) + len(wire) // rng.choice((1, 10, 100))

    def readinto(self, memory: memoryview) -> int:
        """Fill the beginning of memory."""
        self.before_reading()
        self.asked.append(len(memory))
        if self._timeouts and self._rng.random() < 0.1:
            raise TimeoutError("nothing came")
        size = min(len(memory), self._rng.randint(1, self._largest), len(self.wire) - self.position)
        memory[:size] = self.wire[self.position : self.position + size]
        self.position += size
        return size


def check_frame_reader(twin: Twin, case: Case, expected: Outcome) -> object:
    """FrameReader over memory, and over a readinto with short reads."""
    rng = case.rng()
    memory = rng.choice((bytes, bytearray, memoryview))(case.wire)
    source = Trickle(case.wire, rng, timeouts=True)
    frames: list[Any] = []
    watch(source, frames, case, expected)
    seen = [
        _read_frames(twin, case, expected, memory, []),
        _read_frames(twin, case, expected, source.readinto, frames),
        source.asked,
    ]
    return seen


def watch(source: Trickle, frames: list[Any], case: Case, expected: Outcome) -> None:
    """Refuse a read before everything that is there was delivered."""
    ends = list(accumulate(HEADER_SIZE + len(payload) for _, payload in expected.frames))
    decisive = deciding_byte(case, expected)

    def before_reading() -> None:
        assert len(frames) == bisect_right(ends, source.position), "a read, although a whole frame was there"
        assert decisive is None or source.position <= decisive, f"a read, although {expected.end} was certain"

    source.before_reading = before_reading


def _read_frames(twin: Twin, case: Case, expected: Outcome, source: Any, frames: list[Any]) -> object:
    reader = twin.FrameReader(source, truncated=case.truncated, **case.options)
    fault = read_all(reader, frames)
    if fault is None and case.truncated == "ignore" and expected.end == "truncated":
        assert read_all(reader, []) is None
    else:
        judge(fault, expected)
    if fault is not None:
        partial = [expected.partial] if expected.partial and expected.end == "truncated" else []
        assert fault.chunks == partial  # type: ignore[attr-defined]
        again = read_all(reader, [])
        assert (type(again), str(again), again.chunks) == (type(fault), str(fault), [])  # type: ignore[union-attr]
    assert [(frame.stream, bytes(frame)) for frame in frames] == expected.frames
    for frame, (stream, payload) in zip(frames, expected.frames, strict=True):
        assert (frame.payload, len(frame), frame.payload.readonly) == (payload, len(payload), True)
        assert frame == twin.Frame(stream, payload)
    return facts(fault)


def read_all(reader: Any, frames: list[Any]) -> Exception | None:
    """Append the frames up to the end or the fault; go on after a timeout."""
    while True:
        try:
            frames.append(next(reader))
        except StopIteration:
            return None
        except TimeoutError:
            continue
        except CONTRACT as fault:
            return fault


# --- from a source to sinks ------------------------------------------------------------------------------------------


class Recorder(io.RawIOBase):
    """A raw file that takes some of what it is given, and once may fail."""

    def __init__(self, log: Pieces, output: int, rng: random.Random, fail_after: int | None) -> None:
        super().__init__()
        self._log = log
        self._output = output
        self._rng = rng
        self._fail_after = fail_after

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Any) -> int:
        """Take a part; with fail_after, raise OSError once when so many bytes were taken."""
        if self._fail_after is not None and len(joined(self._log, self._output)) >= self._fail_after:
            self._fail_after = None
            raise OSError(28, "no space left")
        size = self._rng.randint(1, len(data)) if len(data) < 5000 else len(data) - self._rng.randrange(50)
        self._log.append((self._output, bytes(data[:size])))
        return size


def any_source(wire: bytes, rng: random.Random, *, can_resume: bool) -> tuple[Any, bool]:
    """Choose a source; say whether a second copy goes on where the first one stopped."""
    choices: list[Callable[[], Any]] = [
        lambda: iter(oracle.cuts(wire, rng)),
        lambda: Trickle(wire, rng, timeouts=can_resume),
        lambda: io.BufferedReader(io.BytesIO(wire), 16),  # type: ignore[type-var, unused-ignore]
        lambda: wire,
        lambda: bytearray(wire),
    ]
    number = rng.randrange(3 if can_resume else len(choices))
    return choices[number](), number < 3


def check_copy(twin: Twin, case: Case, expected: Outcome) -> object:
    """copy() from all sorts of sources, with short and failing writes; resumed after a failure, nothing is lost."""
    rng = case.rng()
    demuxer = twin.Demuxer(**case.options)
    source, can_resume = any_source(case.wire, rng, can_resume=rng.random() < 0.5)
    fail_after = [rng.randrange(300) if can_resume and rng.random() < 0.5 else None for _ in range(2)]
    log: Pieces = []
    sinks = [Recorder(log, output, rng, fail_after[output]) for output in range(2)]
    trace: list[object] = []
    while True:
        try:
            done = muxframe.copy(source, *sinks, truncated=case.truncated, demuxer=demuxer)
        except TimeoutError:
            continue
        except SinkError as failure:
            log.extend(by_output(failure.undelivered))
            trace.append(facts(failure))
        except CONTRACT as fault:
            judge(fault, expected)
            trace.append(facts(fault))
            break
        else:
            assert expected.end == "clean" or (expected.end, case.truncated) == ("truncated", "ignore")
            trace.append(done)
            break
    assert demuxer.frames == len(expected.frames)
    assert joined(log, 0) == expected.stdout
    assert joined(log, 1) == expected.stderr
    if len(trace) == 1:  # what is left undelivered by a failure is in order within a stream only
        assert runs(log) == runs(by_output(pieces_of(expected)))
    return trace, log


def check_copy_into(twin: Twin, case: Case, expected: Outcome) -> object:
    """copy() at once: its counts, discarded streams, and both streams merged into one sink."""
    rng = case.rng()
    out, err = bytearray(), io.BytesIO()
    sinks: tuple[Any, Any] = rng.choice(((out, err), ((out, err), None), (out, out), (None, err)))
    source, _ = any_source(case.wire, rng, can_resume=False)
    fault: Exception | None = None
    with using(twin):
        try:
            done = muxframe.copy(source, *sinks, truncated=case.truncated, **case.options)
        except CONTRACT as error:
            fault, done = error, error.delivered  # type: ignore[attr-defined]
    if expected.end != "truncated" or case.truncated == "error":
        judge(fault, expected)
    assert type(done) is muxframe.Copied
    assert done == (len(expected.stdout), len(expected.stderr), len(expected.frames))
    to_out = expected.payload(0, 1, 2) if sinks[1] is out else expected.stdout if sinks[0] else b""
    to_err = expected.stderr if sinks[1] is err else expected.stdout if sinks[1] is None else b""
    assert (bytes(out), err.getvalue()) == (to_out, to_err)
    return facts(fault), done


def check_copy_descriptors(twin: Twin, case: Case, expected: Outcome) -> object:
    """copy() between file descriptors, which compiled code does without Python."""
    rng = case.rng()
    fault: Exception | None = None
    with (
        descriptor_source(case.wire, rng) as source,
        tempfile.TemporaryFile(buffering=0) as out,
        tempfile.TemporaryFile(buffering=0) as err,
        open(os.dup(out.fileno()), "wb", buffering=0) as also_out,
        using(twin),
    ):
        to_err = rng.choice((err, err, also_out, None))
        try:
            done = muxframe.copy(source.fileno(), out, to_err, truncated=case.truncated, **case.options)
        except CONTRACT as error:
            fault, done = error, error.delivered  # type: ignore[attr-defined]
        written = [file.read() for file in (out, err) if file.seek(0) == 0]
    if expected.end != "truncated" or case.truncated == "error":
        judge(fault, expected)
    assert done == (len(expected.stdout), len(expected.stderr), len(expected.frames))
    to_out = expected.payload(0, 1, 2) if to_err is also_out else expected.stdout
    assert written == [to_out, expected.stderr if to_err is err else b""]
    return facts(fault), done


def descriptor_source(wire: bytes, rng: random.Random) -> Any:
    """Return something with a file descriptor: where each read gives one random cut, or, where it cannot be, a file."""
    if hasattr(socket, "SOCK_SEQPACKET") and len(wire) < 50_000:
        near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        far.setblocking(False)
        with far:
            try:
                for cut in filter(None, oracle.cuts(wire, rng)):
                    far.send(cut)
            except BlockingIOError:  # more of them than the socket holds
                near.close()
            else:
                return near
    file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115 - the caller closes it
    file.write(wire)
    file.seek(0)
    return file


class using:  # noqa: N801
    """Make copy, frames and StdCopy use a twin."""

    def __init__(self, twin: Twin) -> None:
        self._twin = twin

    def __enter__(self) -> None:
        self._put(self._twin)

    def __exit__(self, *_: object) -> None:
        self._put(muxframe._framing)

    def _put(self, core: Any) -> None:
        for module, name in ((copying, "Demuxer"), (copying, "FrameReader"), (stdcopy, "FrameReader")):
            assert hasattr(module, name)
            setattr(module, name, getattr(core, name))
        if hasattr(copying, "Pump"):
            copying.Pump = getattr(core, "Pump", None)  # only compiled code is worth a loop of its own


def check_frames(twin: Twin, case: Case, expected: Outcome) -> object:
    """frames() from all sorts of sources."""
    source, _ = any_source(case.wire, case.rng(), can_resume=False)
    frames: list[Any] = []
    with using(twin):
        fault = read_all(muxframe.frames(source, truncated=case.truncated, **case.options), frames)
    if expected.end != "truncated" or case.truncated == "error":
        judge(fault, expected)
    assert [(stream, bytes(payload)) for stream, payload in frames] == expected.frames
    return facts(fault)


def check_std_copy(twin: Twin, case: Case, expected: Outcome) -> object:
    """StdCopy does what Moby's does: one write a frame, ends inside frames ignored, its texts and counts."""
    rng = case.rng()
    limit = rng.choice((None, None, 100))
    log: Pieces = []
    sinks = [OneWrite(log, output, limit) for output in range(2)]
    source, _ = any_source(case.wire, rng, can_resume=False)
    with using(twin):
        try:
            seen: object = stdcopy.StdCopy(sinks[0], sinks[1], source)
        except stdcopy.StdCopyError as error:
            seen = (error.args[0], error.written)
    assert (seen, log) == model_std_copy(case.wire, limit)
    return seen


class OneWrite:
    """A writer that takes at most so much of each write."""

    def __init__(self, log: Pieces, output: int, limit: int | None) -> None:
        self._log = log
        self._output = output
        self._limit = limit

    def write(self, data: bytes) -> int:
        """Take data as far as the limit allows."""
        self._log.append((self._output, data))
        return len(data[: self._limit])


def model_std_copy(wire: bytes, limit: int | None) -> tuple[object, Pieces]:
    """Moby's StdCopy, frame by frame: what it returns, and what it writes."""
    written = position = 0
    log: Pieces = []
    while len(header := wire[position : position + HEADER_SIZE]) == HEADER_SIZE:
        size = int.from_bytes(header[4:], "big")
        payload = wire[position + HEADER_SIZE : position + HEADER_SIZE + size]
        if header[0] > oracle.SYSTEMERR:
            return (f"unrecognized stream: {header[0]}", 0), log
        if len(payload) < size:
            break
        if header[0] == oracle.SYSTEMERR:
            return (f"error from daemon in stream: {payload.decode('utf-8', 'replace')}", written), log
        log.append((header[0] >> 1, payload))
        if len(payload[:limit]) < size:
            return ("short write", 0), log
        written += size
        position += HEADER_SIZE + size
    return written, log


CHECKS: tuple[Check, ...] = (
    check_feed,
    check_buffer_updated,
    check_feed_into,
    check_demux,
    check_demux_into,
    check_overlap,
    check_pack_frame,
    check_frame_reader,
    check_frames,
    check_copy,
    check_copy_into,
    check_copy_descriptors,
    check_std_copy,
)


# --- running ---------------------------------------------------------------------------------------------------------


def run_one(data: bytes) -> None:
    """Run every check on one input.

    Raises:
        AssertionError: a twin differs from the oracle, or from the other twin.
    """
    case = Case.parse(data)
    expected = oracle.decode(case.wire, **case.options)
    for check in CHECKS:
        seen = [check(twin, case, expected) for twin in TWINS]
        assert all(each == seen[0] for each in seen), f"the twins differ in {check.__name__}: {seen!r:.2000}"


FUZZER = Fuzzer("framing", random_input, run_one)

if __name__ == "__main__":
    print(f"fuzz_framing: {', '.join(twin.__name__ for twin in TWINS)}, oracle", file=sys.stderr)
    FUZZER.main()
