"""Lines in Python: the specification, and what serves where nothing can be compiled.

The rules, which `_lines_c.pyx` follows to the last error message:

- No I/O, no clock. Wire bytes come in, lines come out; where the wire is cut does not matter.
- LF ends a line. CRs right before it belong to the line end: on a terminal they move the cursor to where it goes anyway
  (a program that writes CR LF to a terminal sends CR CR LF). Any other CR is data: on a terminal the line goes on after
  it, and what it overwrites would be lost.
- Each stream has its own unfinished line. Lines come in the order in which they end.
- With timestamps (or details) each frame begins with a prefix, which is no part of the line; all lines that begin in
  the frame have it. A raw stream has no frames: there each line begins with one.
- A frame that does not end with LF is continued by the next frame of its stream: without timestamps by any, with them
  by one of the same time. Podman's have whole seconds, and it cuts lines wherever its reads of 8 KiB end: there the
  next second is the same time, too. So an unterminated last line and the first one after a restart stay apart.
- In a raw stream a part is known only by its size, as Docker cuts it, and the repeated timestamp behind it.
- A frame without a valid timestamp keeps all its bytes, has none, and is counted.
- A line longer than max_line_size is cut: every piece but the last is marked `partial`. So is what `flush` hands out,
  and what a fault cuts off. The rest of a partial line always follows, be it empty; only after a fault there is none.
  A cut is between UTF-8's characters, up to three bytes earlier, where that leaves anything before it.
- Faults come after all lines before them, unfinished ones included.
"""

from __future__ import annotations

import re
from _thread import RLock
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ._framing_py import _KIND_AND_SIZE, _STREAM_OF_KIND, BLOCK_SIZE, Demuxer, Unique, again, check_truncated, readable
from .errors import DaemonError, FramingError, TruncatedStreamError
from .protocol import HEADER_SIZE, MAX_PAYLOAD_SIZE, Stream, Truncated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from typing_extensions import Buffer

__all__ = ["Line", "LineReader", "LineSplitter", "parse_timestamp"]

DEFAULT_MAX_LINE_SIZE = 1024 * 1024
MAX_TIMESTAMP_SIZE = 64  # bytes; RFC3339Nano has at most 35
PART_SIZE = 16 * 1024  # bytes; Docker cuts a line's parts so
MAX_DETAILS_SIZE = 16 * 1024  # bytes; longer ones stay in the line

_TIMESTAMP = re.compile(rb"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d+))?(Z|[+-]\d\d:\d\d)")
_DETAILS_CHARACTERS = re.compile(rb"[A-Za-z0-9_.~%+=,-]*")  # what url.QueryEscape leaves, "=" and ","
_DETAILS = re.compile(rb"(?:[^=,]*=[^=,]*(?:,[^=,]*=[^=,]*)*)?")
_SECOND = 1_000_000_000  # nanoseconds
_EPOCH = 719_163  # date(1970, 1, 1).toordinal()


# --- timestamps ------------------------------------------------------------------------------------------------------


def parse_timestamp(text: Buffer, /) -> int | None:
    """Read an RFC 3339 timestamp, to the nanosecond.

    Args:
        text: nothing but the timestamp: `YYYY-MM-DDTHH:MM:SS`, a fraction of any number of digits or none (those after
            the ninth are dropped), `Z` or an offset `+HH:MM` or `-HH:MM`. Second 60 is the first of the next minute.

    Returns:
        Nanoseconds since 1970-01-01T00:00:00Z, or None where text is no such timestamp or does not fit into 64 bits
        (before 1677-09-21 or after 2262-04-11).

    >>> parse_timestamp(b"2026-11-21T05:46:37.125648057Z")
    1795239997125648057
    """
    with readable(text, "text") as view:
        return _parse_timestamp(bytes(view))


def _parse_timestamp(text: bytes) -> int | None:
    match = _TIMESTAMP.fullmatch(text) if len(text) <= MAX_TIMESTAMP_SIZE else None
    if match is None:
        return None
    moment, fraction, zone = match.groups()
    seconds = _seconds(moment, zone)
    if seconds is None:
        return None
    timestamp = seconds * _SECOND + (int(fraction[:9].ljust(9, b"0")) if fraction else 0)
    return timestamp if -(1 << 63) <= timestamp < 1 << 63 else None


@lru_cache(maxsize=64)
def _seconds(moment: bytes, zone: bytes) -> int | None:
    """Return seconds since the epoch, or None where there is no such moment."""
    from datetime import date  # here: `import muxframe` need not wait for it

    hour, minute, second = int(moment[11:13]), int(moment[14:16]), int(moment[17:19])
    try:
        day = date(int(moment[:4]), int(moment[5:7]), int(moment[8:10])).toordinal() - _EPOCH
    except ValueError:
        return None
    offset = 0
    if zone != b"Z":
        hours, minutes = int(zone[1:3]), int(zone[4:6])
        if hours > 23 or minutes > 59:
            return None
        offset = (hours * 60 + minutes) * (60 if zone[:1] == b"+" else -60)
    if hour > 23 or minute > 59 or second > 60:
        return None
    return ((day * 24 + hour) * 60 + minute) * 60 + second - offset


# --- one line --------------------------------------------------------------------------------------------------------


class Line:
    """One line of one stream, without its line end.

    Unpacks as `stream, timestamp, data`. Immutable, hashable, equal to a line of the same content.

    Args:
        stream: 0..2.
        timestamp: nanoseconds since 1970-01-01T00:00:00Z (64 bits, signed), or None.
        data: the line's bytes.
        partial: the line goes on: in the next line of this stream, or where a fault cut it off.
        details: the attributes as the engine sent them (`k=v,k=v`), or None.

    >>> stream, timestamp, data = line = Line(Stream.STDOUT, None, b"caf\\xc3\\xa9")
    >>> line.text
    'caf\xe9'
    """

    __slots__ = ("_data", "_details", "_partial", "_stream", "_timestamp")

    def __init__(
        self,
        stream: int,
        timestamp: int | None,
        data: bytes,
        /,
        *,
        partial: bool = False,
        details: bytes | None = None,
    ) -> None:
        self._stream = Stream(stream)
        self._timestamp = check_timestamp(timestamp)
        self._data = check_bytes(data, "data")
        self._partial = bool(partial)
        self._details = None if details is None else check_bytes(details, "details")

    @property
    def stream(self) -> Stream:
        """Which of the container's streams."""
        return self._stream

    @property
    def timestamp(self) -> int | None:
        """When it was written, in nanoseconds since 1970-01-01T00:00:00Z, or None."""
        return self._timestamp

    @property
    def data(self) -> bytes:
        """The line's bytes, without the line end."""
        return self._data

    @property
    def partial(self) -> bool:
        """Whether the line goes on: in the next line of this stream, or where a fault cut it off."""
        return self._partial

    @property
    def details(self) -> bytes | None:
        """The attributes as the engine sent them, `k=v,k=v` with URL quoting, or None."""
        return self._details

    @property
    def text(self) -> str:
        """The line as text: UTF-8, with U+FFFD for what is none."""
        return str(self._data, "utf-8", "replace")

    @property
    def attrs(self) -> dict[str, str]:
        """The attributes, parsed; empty where there are none."""
        return parse_details(self._details or b"")

    def __iter__(self) -> Iterator[Any]:
        return iter((self._stream, self._timestamp, self._data))

    def _key(self) -> tuple[int, int | None, bytes, bool, bytes | None]:
        return int(self._stream), self._timestamp, self._data, self._partial, self._details

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Line):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return show_line(self._stream, self._timestamp, self._data, self._partial, self._details)

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), *self._key())


def _rebuild(
    kind: type[Line], stream: int, timestamp: int | None, data: bytes, partial: bool, details: bytes | None
) -> Line:
    return kind(stream, timestamp, data, partial=partial, details=details)


def show_line(stream: Stream, timestamp: int | None, data: bytes, partial: bool, details: bytes | None) -> str:
    """Return what repr(line) is."""
    marks = (", partial=True" if partial else "") + ("" if details is None else f", details={details!r}")
    return f"Line({stream!r}, {timestamp!r}, {data!r}{marks})"


def parse_details(text: bytes) -> dict[str, str]:
    """Parse what an engine puts before a line for details=1: `k=v,k=v`, quoted as in a URL's query."""
    from urllib.parse import unquote_plus

    pairs = (item.partition("=") for item in text.decode("ascii", "replace").split(",") if item)
    return {unquote_plus(key): unquote_plus(value) for key, _, value in pairs}


def check_timestamp(timestamp: int | None) -> int | None:
    """Refuse what no column holds."""
    if timestamp is None:
        return None
    if not isinstance(timestamp, int):
        raise TypeError(f"timestamp must be an int or None, not {type(timestamp).__name__}")
    if not -(1 << 63) <= timestamp < 1 << 63:
        raise ValueError("timestamp does not fit into 64 bits")
    return int(timestamp)


def check_bytes(data: object, name: str) -> bytes:
    """Refuse anything but bytes; of a subclass take what it holds."""
    if not isinstance(data, bytes):
        raise TypeError(f"{name} must be bytes, not {type(data).__name__}")
    return bytes(data)


def check_max_line_size(size: int) -> int:
    """Refuse a cap that is none."""
    if not isinstance(size, int):
        raise TypeError(f"max_line_size must be an int, not {type(size).__name__}")
    if size < 1:
        raise ValueError("max_line_size must be positive")
    return size


# --- the incremental splitter ----------------------------------------------------------------------------------------


class _Unfinished:
    """The unfinished line of one stream, and the part that it is in."""

    __slots__ = ("began", "data", "details", "is_cut", "part_details", "part_timestamp", "part_whole", "timestamp")

    def __init__(self) -> None:
        self.data = bytearray()
        self.is_cut = False  # a piece of it was handed out already
        self.began = 0  # orders the unfinished lines of all streams
        self.timestamp: int | None = None  # of the line: of the part in which it began
        self.details: bytes | None = None
        self.part_timestamp: int | None = None  # of the part at hand: of the next line that begins in it
        self.part_whole = False  # it has whole seconds
        self.part_details: bytes | None = None

    @property
    def is_open(self) -> bool:
        return bool(self.data) or self.is_cut

    def continues(self, timestamp: int | None, whole: bool) -> bool:
        """Say whether a part of this time continues the line."""
        if timestamp is None or self.part_timestamp is None:
            return False
        later = timestamp - self.part_timestamp
        return later == 0 or (later == _SECOND and whole and self.part_whole)


class _Splitter(Unique):
    """What completes lines: all but handing them out."""

    __slots__ = (
        "__weakref__",
        "_began",
        "_closed",
        "_demuxer",
        "_details",
        "_fault",
        "_has_prefixes",
        "_head",
        "_invalid",
        "_is_lost",
        "_is_midway",
        "_lock",
        "_max_line_size",
        "_offset",
        "_part_size",
        "_raw",
        "_timestamps",
        "_unfinished",
    )

    def __init__(
        self,
        raw: bool,
        timestamps: bool,
        details: bool,
        max_line_size: int,
        max_frame_size: int | None,
        check_reserved: bool,
    ) -> None:
        self._max_line_size = check_max_line_size(max_line_size)
        self._demuxer = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
        self._lock = RLock()
        self._raw = bool(raw)
        self._timestamps = bool(timestamps)
        self._details = bool(details)
        self._unfinished = tuple(_Unfinished() for _ in range(Stream.SYSTEMERR))
        self._began = 0  # lines begun that did not end in the same piece
        self._has_prefixes = self._timestamps or self._details
        self._head: bytes | None = None  # what came of a prefix, while it may not be all of it
        if self._raw and self._has_prefixes:
            self._head = b""
        self._part_size = 0  # of a raw stream: bytes of the line since its last prefix, up to PART_SIZE
        self._is_midway = False  # the prefix that is due is that of another part, if it is one
        self._invalid = 0
        self._offset = 0  # of a raw stream
        self._fault: FramingError | DaemonError | None = None
        self._is_lost = False
        self._closed = False

    @property
    def offset(self) -> int:
        """Bytes taken off the wire so far."""
        return self._offset if self._raw else self._demuxer.offset

    @property
    def invalid_timestamps(self) -> int:
        """How many frames (of a raw stream: lines) had no valid timestamp where one was due."""
        return self._invalid

    def _emit(self, stream: int, data: bytes, partial: bool) -> None:
        """Take a completed line."""
        raise NotImplementedError

    def _completed(self) -> list[Any]:
        """Hand out what was completed."""
        raise NotImplementedError

    def _feed(self, data: Buffer) -> list[Any]:
        with readable(data) as view, self._turn():
            self._check_open()
            return self._run(self._take, data if type(data) is bytes else bytes(view))

    def _feed_eof(self) -> list[Any]:
        with self._turn():
            if self._fault is not None:
                raise again(self._fault)
            return self._run(self._finish)

    def _turn(self) -> RLock:
        """Return the lock, for this call's turn; a call from inside another on the same thread is refused."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError(f"{type(self).__name__} is in use: re-entrant call")
        return self._lock

    # --- from here on the lock is held

    def _check_open(self) -> None:
        if self._fault is not None:
            raise again(self._fault)
        if self._is_lost:
            raise RuntimeError(f"the {type(self).__name__} ran out of memory inside a call and has lost its place")
        if self._closed:
            raise ValueError("feed after feed_eof")

    def _run(self, work: Callable[..., None], *arguments: bytes) -> list[Any]:
        """Return what a piece of work completes; put it into the fault that ends it."""
        try:
            work(*arguments)
        except (FramingError, DaemonError) as fault:
            self._break_off()
            self._fault = again(fault)  # not fault itself: its traceback would keep lines alive
            fault.lines = self._completed()
            raise
        except MemoryError:
            self._is_lost = True
            raise
        return self._completed()

    def _take(self, wire: bytes) -> None:
        if self._raw:
            self._offset += len(wire)
            self._take_raw(wire)
            return
        demuxer = self._demuxer
        position, end = 0, len(wire)
        while position < end:
            if not demuxer._remaining:
                position = demuxer._take_header(wire, self._take_whole_frames(wire, position))
                if demuxer._remaining and self._has_prefixes:
                    self._head = b""
            elif demuxer._text is not None:
                position = demuxer._take_text(wire, position)
            else:
                size = min(demuxer._remaining, end - position)
                demuxer._take_payload(size)
                self._take_payload(demuxer._stream, wire[position : position + size], not demuxer._remaining)
                position += size

    def _take_whole_frames(self, wire: bytes, position: int) -> int:
        """Take whole, valid frames at once, if position is between frames; return the position behind them."""
        demuxer = self._demuxer
        if 0 < len(demuxer._header) < HEADER_SIZE:
            return position
        first, last = position, len(wire) - HEADER_SIZE
        limit = MAX_PAYLOAD_SIZE if demuxer._max_frame_size is None else demuxer._max_frame_size
        mask = 0xFFFF_FFFF if demuxer._check_reserved else 0xFF00_0000
        while position <= last:
            kind, size = _KIND_AND_SIZE.unpack_from(wire, position)
            stream = _STREAM_OF_KIND.get(kind & mask)
            start = position + HEADER_SIZE
            end = start + size
            if stream is None or end > len(wire) or size > limit:
                break
            if size:
                if self._has_prefixes:
                    self._head = b""
                self._take_payload(stream, wire[start:end], True)
            position = end
            demuxer._frames += 1
        demuxer._offset += position - first
        return position

    def _take_payload(self, stream: int, data: bytes, is_end: bool) -> None:
        """Take some of a frame; is_end: up to its end."""
        if self._head is not None:
            taken = self._take_prefix(stream, data, is_end)
            if taken is None:
                return
            data = taken
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            self._end_line(stream, data[start:end])
            start = end + 1
        if start < len(data):
            self._add(stream, data[start:])

    def _take_raw(self, data: bytes) -> None:
        """Take some of a raw stream."""
        while data:
            if self._head is not None:
                taken = self._take_prefix(Stream.STDOUT, data, False)
                if taken is None:
                    return
                data = taken
            stop = len(data)
            if self._timestamps and self._part_size < PART_SIZE:
                stop = min(stop, PART_SIZE - self._part_size)
            end = data.find(b"\n", 0, stop)
            if end >= 0:
                self._end_line(Stream.STDOUT, data[:end])
                self._head = b"" if self._has_prefixes else None
                data = data[end + 1 :]
            elif stop:
                self._add(Stream.STDOUT, data[:stop])
                data = data[stop:]
                if self._timestamps and self._part_size < PART_SIZE:
                    self._part_size += stop
                    self._is_midway = self._part_size == PART_SIZE
                    self._head = b"" if self._is_midway else None

    def _take_prefix(self, stream: int, data: bytes, is_end: bool) -> bytes | None:
        """Begin a part with its prefix; return what lies behind it, or None where more must come before it is known."""
        assert self._head is not None
        head = self._head + data
        timestamp, details, position = None, None, 0
        if self._timestamps:
            size = head.find(b" ", 0, MAX_TIMESTAMP_SIZE + 1)
            if size < 0:
                if len(head) <= MAX_TIMESTAMP_SIZE and b"\n" not in head and not is_end:
                    self._head = head
                    return None
            else:
                timestamp = _parse_timestamp(head[:size])
            if timestamp is not None:
                position = size + 1
        whole = b"." not in head[:position]
        if self._details and (timestamp is not None or not self._timestamps):
            match = _DETAILS_CHARACTERS.match(head, position, position + MAX_DETAILS_SIZE)
            assert match is not None
            if match.end() == len(head) and not is_end:
                self._head = head
                return None
            if head[match.end() : match.end() + 1] == b" " and _DETAILS.fullmatch(match[0]):
                details = match[0]
                position = match.end() + 1
        self._head = None
        if self._is_midway:
            self._is_midway = False
            if whole or timestamp is None or timestamp != self._unfinished[stream].part_timestamp:
                return head  # no other part
        self._part_size = 0
        self._begin_part(stream, timestamp, whole, details)
        return head[position:]

    def _begin_part(self, stream: int, timestamp: int | None, whole: bool, details: bytes | None) -> None:
        self._invalid += self._timestamps and timestamp is None
        line = self._unfinished[stream]
        if not line.is_open:
            line.timestamp, line.details = timestamp, details
        elif self._timestamps and not line.continues(timestamp, whole):
            self._close(stream)
            line.timestamp, line.details = timestamp, details
        line.part_timestamp, line.part_whole, line.part_details = timestamp, whole, details

    def _end_line(self, stream: int, data: bytes) -> None:
        """End the line of a stream with data and LF."""
        line = self._unfinished[stream]
        if line.data or len(data) > self._max_line_size:
            self._add(stream, data)
            data = bytes(line.data)
            line.data.clear()
        self._emit(stream, data.rstrip(b"\r"), False)
        line.is_cut = False
        line.timestamp, line.details = line.part_timestamp, line.part_details

    def _add(self, stream: int, data: bytes) -> None:
        """Add to the unfinished line of a stream; hand out pieces as long as it is too large."""
        line = self._unfinished[stream]
        if not line.is_open:
            self._began += 1
            line.began = self._began
        start = 0
        while len(line.data) + len(data) - start > self._max_line_size:
            end = start + self._max_line_size - len(line.data)
            piece = bytes(line.data) + data[start:end]
            whole = _whole_size(piece) or len(piece)
            self._emit(stream, piece[:whole], True)
            line.data[:] = piece[whole:]
            line.is_cut = True
            start = end
        line.data += data[start:]

    def _close(self, stream: int) -> None:
        """End the unfinished line of a stream, if there is one, where there is no LF."""
        line = self._unfinished[stream]
        if line.is_open:
            self._emit(stream, bytes(line.data), False)
            line.data.clear()
            line.is_cut = False

    def _open_streams(self) -> list[int]:
        """Return the streams that have an unfinished line, in the order in which those began."""
        streams = [stream for stream, line in enumerate(self._unfinished) if line.is_open]
        return sorted(streams, key=lambda stream: self._unfinished[stream].began)

    def _flush(self) -> None:
        for stream in self._open_streams():
            line = self._unfinished[stream]
            size = min(len(line.data.rstrip(b"\r")), _whole_size(line.data))
            if size:
                self._emit(stream, bytes(line.data[:size]), True)
                del line.data[:size]
                line.is_cut = True

    def _finish(self) -> None:
        self._closed = True
        if not self._raw:
            self._demuxer.feed_eof()
        elif self._head:
            self._end_prefix()
        for stream in self._open_streams():
            self._close(stream)

    def _break_off(self) -> None:
        """Hand out what there is of unfinished lines before a fault."""
        if self._head:
            self._end_prefix()
        for stream in self._open_streams():
            line = self._unfinished[stream]
            if line.data:
                self._emit(stream, bytes(line.data), True)
                line.data.clear()

    def _end_prefix(self) -> None:
        """Begin a part whose prefix will not go on."""
        stream = Stream.STDOUT if self._raw else self._demuxer._stream
        rest = self._take_prefix(stream, b"", True)
        if rest:
            self._add(stream, rest)


def _whole_size(data: bytes | bytearray) -> int:
    """Return the size of data without the UTF-8 character that it ends inside of, if it does."""
    for size, least in ((1, 0xC2), (2, 0xE0), (3, 0xF0)):
        lead = data[-size] if size <= len(data) else 0
        if lead & 0xC0 != 0x80:
            return len(data) - size if least <= lead < 0xF5 else len(data)
    return len(data)


class LineSplitter(_Splitter):
    """Take a stream's lines apart as it arrives, without doing any I/O.

    Feed it what comes off the wire, cut anywhere. Of each stream it remembers an unfinished line, up to max_line_size.
    Safe to share between threads: calls take turns.

    Args:
        raw: the stream is a terminal's: no frames, all of it stdout.
        timestamps: the log was asked for with timestamps=1: a prefix to be taken out of the line.
        details: the same for details=1. Podman sends none, whatever it is asked for.
        max_line_size: largest line in bytes, CRs of the line end included; a longer one comes in pieces.
        max_frame_size, check_reserved: as for Demuxer.

    Raises:
        TypeError, ValueError: max_line_size or max_frame_size is not a size.

    >>> splitter = LineSplitter()
    >>> splitter.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo")
    [Line(<Stream.STDOUT: 1>, None, b'one')]
    >>> splitter.feed_eof()
    [Line(<Stream.STDOUT: 1>, None, b'two')]
    """

    __slots__ = ("_lines",)

    def __init__(
        self,
        *,
        raw: bool = False,
        timestamps: bool = False,
        details: bool = False,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_frame_size: int | None = None,
        check_reserved: bool = True,
    ) -> None:
        self._lines: list[Line] = []  # completed in this call
        super().__init__(raw, timestamps, details, max_line_size, max_frame_size, check_reserved)

    def feed(self, data: Buffer, /) -> list[Line]:
        """Take bytes off the wire and return the lines that end in them.

        Args:
            data: C-contiguous bytes-like object of any size. Read during the call, not kept.

        Returns:
            Lines in the order in which they end.

        Raises:
            FramingError: the header at `exc.offset` is invalid. The lines before it, unfinished ones included, are in
                `exc.lines`; every later call raises the same.
            DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
            BufferError: data is not contiguous.
            MemoryError: there was none for the lines. They are lost; every later call raises RuntimeError.
            ValueError: feed_eof was called before.
        """
        return self._feed(data)

    def flush(self) -> list[Line]:
        """Hand out what there is of unfinished lines: prompts, say, that nobody will end before they are answered.

        CRs at their end stay: LF may follow. So does a UTF-8 character that has only begun.

        Returns:
            Pieces, marked as partial; the rest of the line, or its end, comes as another piece.

        Raises:
            ValueError, RuntimeError, FramingError, DaemonError: as `feed`.
        """
        with self._turn():
            self._check_open()
            return self._run(self._flush)

    def feed_eof(self) -> list[Line]:
        """Say that the stream has ended, and return the unfinished lines. Nothing can be fed afterwards.

        Raises:
            TruncatedStreamError: it ended inside a frame. The unfinished lines are in `exc.lines`; every later call
                raises the same.
            DaemonError: it ended inside a systemerr frame; otherwise as TruncatedStreamError.
        """
        return self._feed_eof()

    def _emit(self, stream: int, data: bytes, partial: bool) -> None:
        line = self._unfinished[stream]
        self._lines.append(_line(_STREAMS[stream], line.timestamp, data, partial, line.details))

    def _completed(self) -> list[Any]:
        lines, self._lines = self._lines, []
        return lines


class LineReader(Unique):
    """Iterate over lines: what `muxframe.lines` returns.

    Args:
        source: memory that holds the whole stream, or a callable `readinto(memoryview) -> int` that fills the
            beginning of the memory it is given and returns 0 at the end. What it raises passes through, and iteration
            can go on afterwards.
        truncated: what an end inside a frame is: "error" raises, "ignore" ends the iteration. The unfinished lines come
            before, either way.
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved: as for LineSplitter.

    Raises:
        FramingError, DaemonError: by `next`, after all lines before the fault; every later `next` raises the same.
        ValueError: by `next`: readinto returned more than it was given room for.
    """

    __slots__ = (
        "__weakref__",
        "_block",
        "_eof",
        "_fault",
        "_ignore_truncated",
        "_lines",
        "_lock",
        "_position",
        "_readinto",
        "_splitter",
    )

    def __init__(
        self,
        source: Buffer | Callable[[memoryview], int],
        /,
        *,
        raw: bool = False,
        timestamps: bool = False,
        details: bool = False,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_frame_size: int | None = None,
        check_reserved: bool = True,
        truncated: Truncated = "error",
    ) -> None:
        check_truncated(truncated)
        self._ignore_truncated = truncated == "ignore"
        self._splitter = LineSplitter(
            raw=raw,
            timestamps=timestamps,
            details=details,
            max_line_size=max_line_size,
            max_frame_size=max_frame_size,
            check_reserved=check_reserved,
        )
        self._lock = RLock()
        self._readinto = source if callable(source) else None
        self._block = memoryview(bytearray(BLOCK_SIZE)) if callable(source) else readable(source)
        self._position = 0  # in memory that is all there is
        self._lines: Iterator[Line] = iter(())  # completed
        self._fault: FramingError | DaemonError | None = None  # raised when they are handed out
        self._eof = False

    @property
    def invalid_timestamps(self) -> int:
        """How many frames (of a raw stream: lines) had no valid timestamp where one was due."""
        return self._splitter.invalid_timestamps

    def __iter__(self) -> LineReader:
        return self

    def __next__(self) -> Line:
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("LineReader is in use: re-entrant call")
        with self._lock:
            while True:
                for line in self._lines:
                    return line
                if self._fault is not None:
                    fault, self._fault = self._fault, again(self._fault)
                    raise fault
                if self._eof:
                    raise StopIteration
                self._read()

    def flush(self) -> list[Line]:
        """Return all that has come, of unfinished lines too: after a TimeoutError of the source, say, a prompt.

        Returns:
            Lines that were not taken yet, then pieces as `LineSplitter.flush` gives them; the rest of each follows.
        """
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("LineReader is in use: re-entrant call")
        with self._lock:
            lines, self._lines = list(self._lines), iter(())
            return lines if self._eof else lines + self._splitter.flush()

    def _read(self) -> None:
        """Read once, and split what there is."""
        piece = self._next_piece()
        try:
            if piece:
                self._lines = iter(self._splitter.feed(piece))
            else:
                self._eof = True
                self._lines = iter(self._splitter.feed_eof())
        except (FramingError, DaemonError) as fault:
            self._eof = True
            self._lines = iter(fault.lines)
            if not (self._ignore_truncated and isinstance(fault, TruncatedStreamError)):
                self._fault = again(fault)  # its traceback would keep lines alive

    def _next_piece(self) -> memoryview:
        if self._readinto is None:
            piece = self._block[self._position : self._position + BLOCK_SIZE]
            self._position += len(piece)
            return piece
        size = self._readinto(self._block)
        if not 0 <= size <= len(self._block):
            raise ValueError(f"source returned {size} bytes where {len(self._block)} were asked for")
        return self._block[:size]


def _line(stream: Stream, timestamp: int | None, data: bytes, partial: bool, details: bytes | None) -> Line:
    """Make a Line of parts known to be right."""
    line = _new(Line)
    line._stream = stream
    line._timestamp = timestamp
    line._data = data
    line._partial = partial
    line._details = details
    return line


_new = object.__new__
_STREAMS = tuple(Stream)
