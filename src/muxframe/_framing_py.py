"""The frame core in Python: the specification, and what serves where nothing can be compiled.

The rules, which `_framing_c.pyx` follows to the last error message:

- No I/O, no clock. Bytes come in through arguments or one `readinto` callable.
- A header is remembered until its 8 bytes are there; payload is never held back (`Demuxer`), or held back only to
  complete a frame that `max_frame_size` allows (`FrameReader`). Nothing is allocated from a length field.
- Every fault names the offset of the header of the frame it is in. What was decoded before it is delivered first.
  A failed object stays failed: each later call raises the same fault, without the chunks, which were delivered once.
- Calls on one object from several threads take turns. A call from inside another on the same thread is refused.
"""

from __future__ import annotations

import sys
from _thread import RLock
from operator import index
from struct import Struct
from typing import TYPE_CHECKING, Any, NoReturn

from .errors import DaemonError, FrameTooLargeError, FramingError, TruncatedStreamError, header_error
from .protocol import (
    DEFAULT_MAX_FRAME_SIZE,
    HEADER_SIZE,
    MAX_PAYLOAD_SIZE,
    MAX_SYSTEMERR_SIZE,
    Chunk,
    Demuxed,
    DemuxedInto,
    Stream,
    Truncated,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from typing_extensions import Buffer

__all__ = ["Demuxer", "Frame", "FrameReader", "demux", "demux_into", "pack_frame"]

RECEIVE_BUFFER_SIZE = 64 * 1024  # get_buffer: what one read of a socket gives at most, as a rule
BLOCK_SIZE = 256 * 1024  # FrameReader: what is asked of the source at once

_HEADER = Struct(">BxxxI")
_KIND_AND_SIZE = Struct(">II")  # kind: the stream and, below it, the reserved bytes
_STREAMS = tuple(Stream)
_STREAM_OF_KIND = {stream << 24: stream for stream in _STREAMS[: Stream.SYSTEMERR]}
_RAW_HEADER = _HEADER.pack(Stream.STDOUT, 0)
_ENDLESS = (1 << 64) - 1
_OUTPUTS = {0 << 24: 0, 1 << 24: 0, 2 << 24: 1}  # the output of a kind; of a stream's number it is number >> 1


# --- buffers ---------------------------------------------------------------------------------------------------------


def readable(data: Buffer, name: str = "data") -> memoryview:
    """View any C-contiguous bytes-like object as bytes."""
    try:
        view = memoryview(data)
    except TypeError:
        raise TypeError(f"{name} must be a bytes-like object, not {type(data).__name__}") from None
    if not view.c_contiguous:
        raise BufferError(f"{name} is not C-contiguous")
    return _flat(view)


def writable(buffer: Buffer, name: str) -> memoryview:
    """View any writable C-contiguous bytes-like object as bytes."""
    view = readable(buffer, name)
    if view.readonly:
        raise BufferError(f"{name} is read-only")
    return view


def _flat(view: memoryview) -> memoryview:
    if view.format == "B" and view.ndim == 1:
        return view
    if not view.nbytes:
        return memoryview(b"" if view.readonly else bytearray())
    try:
        return view.cast("B")
    except (TypeError, ValueError):  # ctypes and numpy have formats that cast does not know
        from pickle import PickleBuffer

        return PickleBuffer(view).raw()


class _Outputs(list["memoryview | None"]):
    """The two outputs of a call, [0] for streams 0 and 1: writable buffers, held while it runs, or None to discard."""

    def __init__(self, stdout: Buffer | None, stderr: Buffer | None) -> None:
        super().__init__()
        for buffer, name in ((stdout, "stdout"), (stderr, "stderr")):
            self.append(None if buffer is None else writable(buffer, name))

    def rooms(self, sizes: list[int]) -> list[int]:
        """Say how much fits into each behind what is there."""
        return [sys.maxsize if view is None else len(view) - size for view, size in zip(self, sizes)]

    def put(self, parts: tuple[list[bytes], list[bytes]], sizes: list[int]) -> None:
        """Put what fits behind what is there, and count it."""
        for i, view in enumerate(self):
            data = b"".join(parts[i])
            if view is not None:
                view[sizes[i] : sizes[i] + len(data)] = data
            sizes[i] += len(data)

    def __enter__(self) -> _Outputs:
        return self

    def __exit__(self, *_: object) -> None:
        for view in self:
            if view is not None:
                view.release()


def take_whole_frames(
    wire: bytes, position: int, rooms: list[int], limit: int | None, check_reserved: bool, stop: int | None = None
) -> tuple[int, int, tuple[list[bytes], list[bytes]]]:
    """Take whole, valid frames of streams 0..2 that fit into their output, up to the first that is anything else.

    Args:
        wire: at position there is a header, or the beginning of one.
        rooms: bytes that fit into each output; counted down.
        limit: largest payload, or None.
        check_reserved: refuse a frame whose reserved bytes are not zero.
        stop: take no frame that begins here or behind.

    Returns:
        The position behind them, how many, and their payloads for each output.
    """
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    size_of_wire = len(wire)
    last = size_of_wire - HEADER_SIZE if stop is None else min(size_of_wire - HEADER_SIZE, stop - 1)
    largest = MAX_PAYLOAD_SIZE if limit is None else limit
    is_bounded = min(rooms) < size_of_wire
    unpack = _KIND_AND_SIZE.unpack_from
    frames = 0
    kind_at_hand, target, append = -1, 0, parts[0].append
    while position <= last:
        kind, size = unpack(wire, position)
        if kind != kind_at_hand:
            found = _OUTPUTS.get(kind if check_reserved else kind & 0xFF00_0000)
            if found is None:
                break
            kind_at_hand, target, append = kind, found, parts[found].append
        start = position + HEADER_SIZE
        end = start + size
        if end > size_of_wire or size > largest:
            break
        if is_bounded:
            if size > rooms[target]:
                break
            rooms[target] -= size
        append(wire[start:end])
        position = end
        frames += 1
    return position, frames, parts


def check_limit(max_frame_size: int | None) -> None:
    """Refuse a cap that is none."""
    if max_frame_size is None:
        return
    if not isinstance(max_frame_size, int):
        raise TypeError(f"max_frame_size must be an int or None, not {type(max_frame_size).__name__}")
    if max_frame_size < 0:
        raise ValueError("max_frame_size must not be negative")


def check_truncated(truncated: str) -> None:
    """Refuse a word that `truncated` does not know."""
    if truncated not in ("error", "ignore"):
        raise ValueError(f"truncated must be 'error' or 'ignore', not {truncated!r}")


class Unique:
    """Has no copies and no pickles: they would share what only one may go on with."""

    __slots__ = ()

    def __reduce__(self) -> NoReturn:
        raise TypeError(f"cannot pickle {type(self).__name__!r} object")


# --- the incremental demultiplexer -----------------------------------------------------------------------------------


class Demuxer(Unique):
    """Take a multiplexed stream apart as it arrives, without doing any I/O.

    Feed it what comes off the wire, cut anywhere; it remembers at most an unfinished header (and, of a systemerr
    frame, the text up to 64 KiB). Safe to share between threads: calls take turns.

    Args:
        max_frame_size: largest payload a header may announce, in bytes; None allows the wire's 4 GiB - 1. Memory does
            not depend on it: it is a guard against nonsense.
        check_reserved: refuse headers whose bytes 1..3 are not zero. No engine sends such.
        raw: the stream is that of a TTY, which is not framed: all of it is stdout, and it may end anywhere.

    Raises:
        TypeError, ValueError: max_frame_size is not a size.

    >>> demuxer = Demuxer()
    >>> demuxer.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x05he")
    [(<Stream.STDOUT: 1>, b'he')]
    >>> demuxer.feed(b"llo\\x02\\0\\0\\0\\0\\0\\0\\x02no")
    [(<Stream.STDOUT: 1>, b'llo'), (<Stream.STDERR: 2>, b'no')]
    >>> demuxer.feed_eof()
    """

    __slots__ = (
        "__weakref__",
        "_check_reserved",
        "_closed",
        "_fault",
        "_frame_offset",
        "_frames",
        "_header",
        "_is_lost",
        "_lock",
        "_max_frame_size",
        "_offset",
        "_raw",
        "_receive_buffer",
        "_remaining",
        "_stream",
        "_text",
    )

    def __init__(
        self, *, max_frame_size: int | None = None, check_reserved: bool = True, raw: bool = False
    ) -> None:
        check_limit(max_frame_size)
        self._lock = RLock()
        self._max_frame_size = max_frame_size
        self._check_reserved = bool(check_reserved)
        self._offset = 0  # wire bytes taken
        self._frame_offset = 0  # where the current frame's header begins
        self._frames = 0  # whole frames taken
        self._header = b""  # of the current frame, as far as it came
        self._stream = Stream.STDIN  # of the current frame; valid while _remaining
        self._remaining = 0  # payload bytes of the current frame still due
        self._text: bytearray | None = None  # of a systemerr frame, while inside one
        self._fault: FramingError | DaemonError | None = None
        self._is_lost = False
        self._closed = False
        self._receive_buffer: bytearray | None = None
        self._raw = bool(raw)
        if raw:  # inside a frame of stdout that never ends
            self._header, self._stream, self._remaining = _RAW_HEADER, Stream.STDOUT, _ENDLESS

    @property
    def offset(self) -> int:
        """Bytes taken off the wire so far."""
        return self._offset

    @property
    def frames(self) -> int:
        """Whole frames taken so far, empty ones included."""
        return self._frames

    def feed(self, data: Buffer, /) -> list[Chunk]:
        """Take bytes off the wire and return the payload they carry.

        Frames may be cut anywhere between calls. Payload is handed out as it comes and never held back to
        complete a frame; only an unfinished header is remembered.

        Args:
            data: C-contiguous bytes-like object of any size. Read during the call, not kept.

        Returns:
            (stream, payload) pairs in wire order. Empty frames add nothing.

        Raises:
            FramingError: the header at `exc.offset` is invalid. Payload before it is in `exc.chunks`; every later call
                raises the same.
            DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
            BufferError: data is not contiguous.
            MemoryError: there was none for the chunks. They are lost; every later call raises RuntimeError.
            ValueError: feed_eof was called before.
        """
        with readable(data) as view, self._turn():
            return self._feed(data if type(data) is bytes else bytes(view))

    def feed_into(self, data: Buffer, stdout: Buffer | None, stderr: Buffer | None, /) -> DemuxedInto:
        """Take bytes off the wire and copy the payload into two buffers, from their beginning.

        Stops only when the buffer that is needed next is full: empty it and pass `data[consumed:]` again.

        Args:
            data: C-contiguous bytes-like object of any size. Read during the call, not kept.
            stdout: writable C-contiguous buffer for streams 0 and 1, or None to discard them. It may be (part of)
                data, but should share nothing with stderr.
            stderr: the same for stream 2.

        Returns:
            Wire bytes consumed and payload bytes per buffer (or discarded). What lies behind them in the buffers is
            unspecified.

        Raises:
            FramingError: the header at `exc.offset` is invalid. What was copied before it is in the buffers, and
                `exc.delivered` says how much (consumed: as far as that header); every later call raises the same.
            DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
            BufferError: data is not contiguous, or an output is not contiguous or not writable.
            ValueError: feed_eof was called before.
        """
        return self._feed_into(data, stdout, stderr, False, 0)

    def _feed_into(
        self, data: Buffer, stdout: Buffer | None, stderr: Buffer | None, ordered: bool, start: int, /
    ) -> DemuxedInto:
        """As `feed_into` of data[start:]; if ordered, also stop before payload of the other output follows.

        So at most one output gets bytes in a call, and writing them out call by call keeps the wire's order.
        """
        with readable(data) as view, _Outputs(stdout, stderr) as outputs, self._turn():
            self._check_open()
            wire = data if type(data) is bytes else bytes(view)
            first = self._offset
            sizes = [0, 0]
            position = start
            try:
                while position < len(wire):
                    if not self._remaining:
                        position = self._copy_whole_frames(wire, position, outputs, sizes, ordered)
                        position = self._take_header(wire, position)
                        continue
                    if self._text is not None:
                        position = self._take_text(wire, position)
                        continue
                    target = self._stream >> 1
                    output = outputs[target]
                    size = min(self._remaining, len(wire) - position)
                    if output is not None:
                        size = min(size, len(output) - sizes[target])
                        if ordered and outputs[1 - target] is not None and sizes[1 - target]:
                            break
                    if not size:
                        break
                    if output is not None:
                        output[sizes[target] : sizes[target] + size] = wire[position : position + size]
                    sizes[target] += size
                    position += size
                    self._take_payload(size)
            except (FramingError, DaemonError) as fault:
                fault.delivered = DemuxedInto(max(0, fault.offset - first), *sizes)
                raise
            return DemuxedInto(position - start, *sizes)

    def get_buffer(self, sizehint: int = -1, /) -> memoryview:
        """Return memory to receive wire bytes into: with `buffer_updated` the pair asyncio.BufferedProtocol asks for.

        Args:
            sizehint: ignored: always 64 KiB, the same memory each time.

        Returns:
            A writable memoryview. Its content is taken by the next `buffer_updated`.
        """
        with self._lock:
            if self._receive_buffer is None:
                self._receive_buffer = bytearray(RECEIVE_BUFFER_SIZE)
        return memoryview(self._receive_buffer)

    def buffer_updated(self, nbytes: int, /) -> list[Chunk]:
        """Take the first nbytes of what `get_buffer` returned off the wire, as `feed` does.

        Args:
            nbytes: bytes received into the buffer.

        Returns:
            As `feed`.

        Raises:
            ValueError: nbytes is negative or larger than the buffer; otherwise as `feed`.
        """
        size = len(self._receive_buffer or b"")
        if not 0 <= index(nbytes) <= size:
            raise ValueError(f"nbytes is {nbytes}, the buffer has {size}")
        with self._turn():
            return self._feed(bytes(memoryview(self._receive_buffer or b"")[:nbytes]))

    def feed_eof(self) -> None:
        """Say that the stream has ended. Nothing can be fed afterwards.

        Raises:
            TruncatedStreamError: it ended inside a header or a payload; every later call raises the same.
            DaemonError: it ended inside a systemerr frame: the text is as much as came.
        """
        with self._turn():
            if self._fault is not None:
                self._raise_again()
            self._closed = True
            if self._text is not None:
                self._fail(DaemonError(_decode(self._text), self._frame_offset))
            if self._remaining and not self._raw:
                self._fail(TruncatedStreamError(self._frame_offset, self._header, self._remaining))
            if 0 < len(self._header) < HEADER_SIZE:
                missing = HEADER_SIZE - len(self._header)
                self._fail(TruncatedStreamError(self._frame_offset, self._header, missing))

    def _feed(self, wire: bytes) -> list[Chunk]:
        self._check_open()
        chunks: list[Chunk] = []
        position = 0
        end = len(wire)
        try:
            while position < end:
                if not self._remaining:
                    position = self._feed_whole_frames(wire, position, chunks)
                    position = self._take_header(wire, position)
                elif self._text is not None:
                    position = self._take_text(wire, position)
                else:
                    size = min(self._remaining, end - position)
                    chunks.append((self._stream, wire[position : position + size]))
                    position += size
                    self._take_payload(size)
        except (FramingError, DaemonError) as fault:
            fault.chunks = chunks
            raise
        except MemoryError:
            self._is_lost = True
            raise
        return chunks

    def _feed_whole_frames(self, wire: bytes, position: int, chunks: list[Chunk]) -> int:
        """Append the chunks of whole frames, if position is between frames; return the position behind them."""
        if 0 < len(self._header) < HEADER_SIZE:
            return position
        first = position
        limit = MAX_PAYLOAD_SIZE if self._max_frame_size is None else self._max_frame_size
        mask = 0xFFFF_FFFF if self._check_reserved else 0xFF00_0000
        while position <= len(wire) - HEADER_SIZE:
            kind, size = _KIND_AND_SIZE.unpack_from(wire, position)
            stream = _STREAM_OF_KIND.get(kind & mask)
            start = position + HEADER_SIZE
            end = start + size
            if stream is None or end > len(wire) or size > limit:
                break
            if size:
                chunks.append((stream, wire[start:end]))
            position = end
            self._frames += 1
        self._offset += position - first
        return position

    def _copy_whole_frames(
        self, wire: bytes, position: int, outputs: _Outputs, sizes: list[int], ordered: bool
    ) -> int:
        """Copy the payload of whole frames, if position is between frames; return the position behind them."""
        if 0 < len(self._header) < HEADER_SIZE or wire[position] >= Stream.SYSTEMERR:
            return position
        rooms = outputs.rooms(sizes)
        if ordered and None not in outputs:  # no room for the other output than the one that gets, or got, some
            target = 0 if sizes[0] else 1 if sizes[1] else wire[position] >> 1
            rooms[1 - target] = 0
        end, frames, parts = take_whole_frames(wire, position, rooms, self._max_frame_size, self._check_reserved)
        outputs.put(parts, sizes)
        self._frames += frames
        self._offset += end - position
        return end

    def _turn(self) -> RLock:
        """Return the lock, for this call's turn; a call from inside another on the same thread is refused."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("Demuxer is in use: re-entrant call")
        return self._lock

    def _check_open(self) -> None:
        if self._fault is not None:
            self._raise_again()
        if self._is_lost:
            raise RuntimeError("the Demuxer ran out of memory inside a call and has lost its place")
        if self._closed:
            raise ValueError("feed after feed_eof")

    def _take_header(self, wire: bytes, position: int) -> int:
        """Take what there is of a header, if anything; return the position behind it."""
        if position == len(wire):
            return position
        if not self._header or len(self._header) == HEADER_SIZE:  # the one at hand is an earlier frame's
            self._header = b""
            self._frame_offset = self._offset
        taken = wire[position : position + HEADER_SIZE - len(self._header)]
        header = self._header = self._header + taken
        fault = header_error(
            header, self._frame_offset, max_frame_size=self._max_frame_size, check_reserved=self._check_reserved
        )
        if fault is not None:
            self._fail(fault)
        self._offset += len(taken)
        if len(header) == HEADER_SIZE:
            number, self._remaining = _HEADER.unpack(header)
            self._stream = _STREAMS[number]
            if self._stream is Stream.SYSTEMERR:
                self._text = bytearray()
                self._finish_text()
            elif not self._remaining:
                self._frames += 1
        return position + len(taken)

    def _take_payload(self, size: int) -> None:
        self._remaining -= size
        self._offset += size
        if not self._remaining:
            self._frames += 1

    def _take_text(self, wire: bytes, position: int) -> int:
        """Take what there is of a daemon's error text; raise it as soon as enough of it is there."""
        assert self._text is not None
        size = min(self._remaining, MAX_SYSTEMERR_SIZE - len(self._text), len(wire) - position)
        self._text += wire[position : position + size]
        self._remaining -= size
        self._offset += size
        self._finish_text()
        return position + size

    def _finish_text(self) -> None:
        assert self._text is not None
        if not self._remaining or len(self._text) == MAX_SYSTEMERR_SIZE:
            self._fail(DaemonError(_decode(self._text), self._frame_offset))

    def _fail(self, fault: FramingError | DaemonError) -> NoReturn:
        self._fault = again(fault)  # not fault itself: its traceback would keep frames alive
        raise fault

    def _raise_again(self) -> NoReturn:
        assert self._fault is not None
        raise again(self._fault)


def again(fault: FramingError | DaemonError) -> FramingError | DaemonError:
    """Copy a fault without what it delivered, which must not be delivered twice."""
    rebuild, (kind, args, state) = fault.__reduce__()
    copy: FramingError | DaemonError = rebuild(kind, args, {**state, "chunks": [], "delivered": None, "lines": []})
    return copy


def _decode(text: bytes | bytearray | memoryview) -> str:
    return str(text, "utf-8", "replace")


# --- whole buffers ---------------------------------------------------------------------------------------------------


def demux(
    data: Buffer,
    /,
    *,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> Demuxed:
    """Take a whole multiplexed stream apart at once.

    Args:
        data: C-contiguous bytes-like object holding the whole stream.
        max_frame_size, check_reserved: as for Demuxer.
        truncated: what an end inside a frame is: "error" raises, "ignore" returns what there is, the partial payload
            included.

    Returns:
        The payload of streams 0 and 1, and of stream 2.

    Raises:
        FramingError: the header at `exc.offset` is invalid, or (TruncatedStreamError) the data ends inside the frame
            there. `exc.chunks` holds the payload before it, joined to at most one pair a stream.
        DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
        BufferError: data is not contiguous.

    >>> demux(b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi\\x02\\0\\0\\0\\0\\0\\0\\x02no")
    Demuxed(stdout=b'hi', stderr=b'no')
    """
    check_limit(max_frame_size)
    check_truncated(truncated)
    with readable(data) as view:
        wire = data if type(data) is bytes else bytes(view)
    payloads: tuple[list[bytes], list[bytes]] = ([], [])
    rooms = [sys.maxsize, sys.maxsize]
    position, frames = 0, -1
    while frames:  # block by block: small objects are made and joined while they are in the cache
        stop = position + RECEIVE_BUFFER_SIZE
        position, frames, parts = take_whole_frames(wire, position, rooms, max_frame_size, check_reserved, stop)
        for i in (0, 1):
            payloads[i].append(b"".join(parts[i]))
    rest = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
    rest._offset = position
    try:  # at most one frame more
        for stream, payload in rest.feed(memoryview(wire)[position:]):
            payloads[stream >> 1].append(payload)
        rest.feed_eof()
    except (FramingError, DaemonError) as fault:
        for stream, payload in fault.chunks:
            payloads[stream >> 1].append(payload)
        if truncated == "error" or not isinstance(fault, TruncatedStreamError):
            stdout, stderr = map(b"".join, payloads)
            fault.chunks = [pair for pair in ((Stream.STDOUT, stdout), (Stream.STDERR, stderr)) if pair[1]]
            raise
    return Demuxed(*map(b"".join, payloads))


def demux_into(
    data: Buffer,
    stdout: Buffer | None,
    stderr: Buffer | None,
    /,
    *,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
) -> DemuxedInto:
    """Copy the payload of the whole frames in data into two buffers, from their beginning.

    Stops before a frame that is not whole yet or does not fit: pass `data[consumed:]` again, with more behind it or
    with the buffers emptied.

    Args:
        data: C-contiguous bytes-like object, beginning with a header.
        stdout: writable C-contiguous buffer for streams 0 and 1, or None to discard them. It may be (part of) data, but
            should share nothing with stderr.
        stderr: the same for stream 2.
        max_frame_size, check_reserved: as for Demuxer.

    Returns:
        Wire bytes consumed and payload bytes per buffer (or discarded). What lies behind them in the buffers is
        unspecified.

    Raises:
        FrameTooLargeError: the first frame is larger than the whole buffer it belongs to.
        FramingError: the header at `exc.offset` is invalid. What was copied before it is in the buffers, and
            `exc.delivered` says how much.
        DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
        BufferError: data is not contiguous, or an output is not contiguous or not writable.

    >>> out, err = bytearray(16), bytearray(16)
    >>> demux_into(b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi\\x01\\0", out, err)
    DemuxedInto(consumed=10, stdout_size=2, stderr_size=0)
    >>> out[:2]
    bytearray(b'hi')
    """
    check_limit(max_frame_size)
    sizes = [0, 0]
    with readable(data) as view, _Outputs(stdout, stderr) as outputs:
        wire = data if type(data) is bytes else bytes(view)
        position, _, parts = take_whole_frames(wire, 0, outputs.rooms(sizes), max_frame_size, check_reserved)
        outputs.put(parts, sizes)
        done = DemuxedInto(position, *sizes)
        if position < len(view):
            rooms = [None if output is None else len(output) for output in outputs]
            rest = memoryview(wire)[position:]
            check_rest(rest, done, rooms, max_frame_size=max_frame_size, check_reserved=check_reserved)
        return done


def check_rest(
    rest: memoryview,
    done: DemuxedInto,
    rooms: Sequence[int | None],
    *,
    max_frame_size: int | None,
    check_reserved: bool,
) -> None:
    """Raise what makes rest something `demux_into` can never take: it is not just incomplete or waiting for room."""
    offset = done.consumed
    with rest:
        header = bytes(rest[:HEADER_SIZE])
        fault: FramingError | DaemonError | None = header_error(
            header, offset, max_frame_size=max_frame_size, check_reserved=check_reserved
        )
        if fault is None and len(header) == HEADER_SIZE:
            number, size = _HEADER.unpack(header)
            if number == Stream.SYSTEMERR:
                text = bytes(rest[HEADER_SIZE : HEADER_SIZE + min(size, MAX_SYSTEMERR_SIZE)])
                if len(text) == min(size, MAX_SYSTEMERR_SIZE):
                    fault = DaemonError(_decode(text), offset)
            else:
                room = rooms[number >> 1]
                if not offset and room is not None and size > room:
                    fault = FrameTooLargeError(offset, header, room)
    if fault is not None:
        fault.delivered = done
        raise fault


def pack_frame(stream: int, payload: Buffer, /) -> bytes:
    """Return a whole frame: header and payload.

    Args:
        stream: 0..3.
        payload: C-contiguous bytes-like object of at most 4 GiB - 1; empty makes a frame that is a header alone.

    Raises:
        ValueError: stream or the payload's size is not one that a header can hold.
        BufferError: payload is not contiguous.

    >>> pack_frame(Stream.STDERR, b"no")
    b'\\x02\\x00\\x00\\x00\\x00\\x00\\x00\\x02no'
    """
    if not 0 <= index(stream) <= Stream.SYSTEMERR:
        raise ValueError(f"stream must be 0..3, not {stream}")
    with readable(payload, "payload") as view:
        if len(view) > MAX_PAYLOAD_SIZE:
            raise ValueError(f"payload of {len(view)} bytes does not fit into a frame")
        return b"".join((_HEADER.pack(stream, len(view)), view))


# --- whole frames ----------------------------------------------------------------------------------------------------


class Frame:
    """One whole frame: which stream, and its payload.

    Unpacks as `stream, payload`; `bytes(frame)` copies the payload, `len(frame)` is its size in bytes. Immutable,
    hashable, equal to a frame of the same stream and payload.

    >>> stream, payload = Frame(Stream.STDOUT, b"hi")
    >>> stream, bytes(payload)
    (<Stream.STDOUT: 1>, b'hi')
    """

    __slots__ = ("_payload", "_stream")

    def __init__(self, stream: int, payload: Buffer, /) -> None:
        self._stream = Stream(stream)
        self._payload = readable(payload, "payload").toreadonly()

    @property
    def stream(self) -> Stream:
        """Which of the container's streams."""
        return self._stream

    @property
    def payload(self) -> memoryview:
        """The payload: a read-only view, which keeps the memory it was received in as long as it lives."""
        return self._payload[:]

    def __iter__(self) -> Iterator[Any]:
        return iter((self._stream, self._payload[:]))

    def __bytes__(self) -> bytes:
        return bytes(self._payload)

    def __len__(self) -> int:
        return len(self._payload)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Frame):
            return NotImplemented
        return self.stream == other.stream and self.payload == other.payload

    def __hash__(self) -> int:
        return hash((int(self.stream), bytes(self.payload)))

    def __repr__(self) -> str:
        return f"Frame({self.stream!r}, {bytes(self.payload)!r})"

    def __reduce__(self) -> tuple[type[Frame], tuple[int, bytes]]:
        return Frame, (int(self.stream), bytes(self.payload))


class FrameReader(Unique):
    """Iterate over whole frames: what `muxframe.frames` returns.

    Args:
        source: memory that holds the whole stream, or a callable `readinto(memoryview) -> int` that fills the
            beginning of the memory it is given and returns 0 at the end. Read-only memory is not copied: frames point
            into it. What readinto raises passes through, and iteration can go on afterwards.
        max_frame_size: largest payload, in bytes; a frame is held in memory whole. None allows 4 GiB - 1.
        check_reserved: as for Demuxer.
        truncated: what an end inside a frame is: "error" raises, "ignore" drops the unfinished frame.
        raise_systemerr: raise a systemerr frame as DaemonError; otherwise it is a frame like any other.

    Raises:
        FramingError, DaemonError: by `next`, after all frames before the fault; every later `next` raises the same.
            A truncated frame's partial payload is in `exc.chunks`.
        ValueError: by `next`: readinto returned more than it was given room for.
    """

    __slots__ = (
        "__weakref__",
        "_check_reserved",
        "_end",
        "_eof",
        "_fault",
        "_ignore_truncated",
        "_is_reading",
        "_largest",
        "_lock",
        "_mask",
        "_max_frame_size",
        "_offset",
        "_position",
        "_raise_systemerr",
        "_readinto",
        "_view",
        "_writable",
    )

    def __init__(
        self,
        source: Buffer | Callable[[memoryview], int],
        /,
        *,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        check_reserved: bool = True,
        truncated: Truncated = "error",
        raise_systemerr: bool = True,
    ) -> None:
        check_limit(max_frame_size)
        check_truncated(truncated)
        self._max_frame_size = max_frame_size
        self._check_reserved = bool(check_reserved)
        self._ignore_truncated = truncated == "ignore"
        self._raise_systemerr = bool(raise_systemerr)
        self._mask = 0xFFFF_FFFF if check_reserved else 0xFF00_0000
        self._largest = MAX_PAYLOAD_SIZE if max_frame_size is None else max_frame_size
        self._lock = RLock()
        self._is_reading = False
        self._offset = 0  # wire position of self._position
        self._position = 0  # where the next header begins in _view
        self._fault: FramingError | DaemonError | None = None
        if callable(source):
            self._readinto = source
            self._eof = False
            self._end = 0  # of what was read into the block
            self._writable = memoryview(bytearray())  # the block, to read into
            self._view = self._writable.toreadonly()  # the block, for the frames to point into
        else:
            view = readable(source)
            if not view.readonly:
                with view:
                    view = memoryview(bytes(view))
            self._view = view
            self._end = len(self._view)
            self._eof = True

    def __iter__(self) -> FrameReader:
        return self

    def __next__(self) -> Frame:
        with self._lock:
            if self._end - self._position >= HEADER_SIZE:  # the short way: a whole, valid frame of streams 0..2
                kind, size = _KIND_AND_SIZE.unpack_from(self._view, self._position)
                stream = _STREAM_OF_KIND.get(kind & self._mask)
                start = self._position + HEADER_SIZE
                end = start + size
                if stream is not None and end <= self._end and size <= self._largest:
                    self._offset += end - self._position
                    self._position = end
                    return _frame(stream, self._view[start:end])
            if self._is_reading:
                raise RuntimeError("FrameReader is in use: re-entrant call")
            return self._read_frame()

    def _read_frame(self) -> Frame:
        """Read until there is a whole frame; raise what is wrong, or StopIteration."""
        if self._fault is not None:
            raise again(self._fault)
        while True:
            needed = self._next_frame_size()
            start = self._position + HEADER_SIZE
            if self._end - self._position >= needed:
                self._position += needed
                self._offset += needed
                number = self._view[start - HEADER_SIZE]
                return _frame(_STREAMS[number], self._view[start : self._position])
            if self._eof:
                self._finish(needed)
            self._is_reading = True
            try:
                self._read_more(needed)
            finally:
                self._is_reading = False

    def _next_frame_size(self) -> int:
        """Return the bytes the next frame takes on the wire, as far as its header tells; raise what is wrong in it."""
        header = bytes(self._view[self._position : min(self._position + HEADER_SIZE, self._end)])
        if not header:
            return HEADER_SIZE
        fault = header_error(
            header, self._offset, max_frame_size=self._max_frame_size, check_reserved=self._check_reserved
        )
        if fault is not None:
            self._fail(fault)
        if len(header) < HEADER_SIZE:
            return HEADER_SIZE
        number, size = _HEADER.unpack(header)
        if number == Stream.SYSTEMERR and self._raise_systemerr:
            text = self._view[self._position + HEADER_SIZE : min(self._position + HEADER_SIZE + size, self._end)]
            needed = min(size, MAX_SYSTEMERR_SIZE)
            if len(text) >= needed or self._eof:
                self._fail(DaemonError(_decode(text[:needed]), self._offset))
            size = needed
        return HEADER_SIZE + int(size)

    def _read_more(self, needed: int) -> None:
        """Read once, behind what is there; move to a new block where the next frame has no room in this one.

        A new block is twice what has arrived of the frame, not what its header claims.
        """
        have = self._end - self._position
        if len(self._view) - self._position < needed and (
            self._end == len(self._view) or len(self._view) - self._position < BLOCK_SIZE
        ):
            block = memoryview(bytearray(max(BLOCK_SIZE, min(needed, 2 * have))))
            block[:have] = self._view[self._position : self._end]
            self._writable, self._view = block, block.toreadonly()
            self._position, self._end = 0, have
        room = self._writable[self._end :]
        size = self._readinto(room)
        if not 0 <= size <= len(room):
            raise ValueError(f"source returned {size} bytes where {len(room)} were asked for")
        self._end += size
        self._eof = not size

    def _finish(self, needed: int) -> NoReturn:
        """End the iteration: nothing is left, or the beginning of a frame."""
        rest = self._view[self._position : self._end]
        if not rest or self._ignore_truncated:
            raise StopIteration
        header, payload = bytes(rest[:HEADER_SIZE]), bytes(rest[HEADER_SIZE:])
        chunks = [(_STREAMS[header[0]], payload)] if payload else []
        self._fail(TruncatedStreamError(self._offset, header, needed - len(rest), chunks))

    def _fail(self, fault: FramingError | DaemonError) -> NoReturn:
        self._fault = again(fault)
        raise fault


def _frame(stream: Stream, payload: memoryview) -> Frame:
    """Make a Frame of parts known to be right."""
    frame = _new(Frame)
    frame._stream = stream
    frame._payload = payload
    return frame


_new = object.__new__
