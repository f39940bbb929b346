"""Where an archive can be cut, and how its index says so. No I/O.

    index   := head entry*
    head    := MAGIC version flags codec 0 check        16 bytes, all numbers are big-endian
    entry   := kind 0 carry_size offset wire_offset before first last carry check

An entry is either a cut (kind 1), or says where the archive ends (kind 2), and then is the last. It is written once the
archive is there up to `offset`; so an index that ends early, as that of a recorder that was killed, is right as far as
it goes.

- offset: bytes of the file before the cut; wire_offset: the same, unpacked.
- before: CRC-32 of up to CHECK_SIZE bytes of the file before the cut: an index of another archive shows.
- first, last: the least and the greatest timestamp of the lines since the entry before, in nanoseconds since the epoch;
  first > last: there are none. The lines that are unfinished at the cut count on both sides.
- carry: the frames that these lines are in. Whoever begins at the cut feeds them first and drops what comes of it:
  this is how a slice can begin in the middle of a line. Mostly nothing is.
- check: CRC-32 of the entry, begun with the check before it: none is missing, and none is another index's.
"""

from __future__ import annotations

import math
import zlib
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from .._batches import BatchBuilder
from ..errors import ArchiveError, DaemonError, TruncatedStreamError, header_error
from ..protocol import HEADER_SIZE, MAX_SYSTEMERR_SIZE, Stream
from .codecs import CODECS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .._batches import LineBatch

__all__ = ["CHECK_SIZE", "Cut", "Entry", "Index", "Packer", "Scanner", "Shape", "parse"]

MAGIC = b"\x89muxidx\n"
VERSION = 1
CHECK_SIZE = 1024
MAX_CARRY_SIZE = 1024  # where more than that is unfinished, no cut is made

_HEAD = Struct(">8sBBBx")
_ENTRY = Struct(">BxHQQIqq")
_CHECK = Struct(">I")
_CUT, _END = 1, 2
_NO_TIMES = (1 << 63) - 1, -1 << 63  # first, last
_KIND_AND_SIZE = Struct(">II")
_STREAM_OF_KIND = {stream << 24: int(stream) for stream in (Stream.STDIN, Stream.STDOUT, Stream.STDERR)}
_LF = 10


class Shape(NamedTuple):
    """What the stream is, as for `muxframe.lines`."""

    raw: bool = False
    timestamps: bool = False
    details: bool = False


class Cut(NamedTuple):
    """A place at which an archive can be cut, or its end."""

    wire_offset: int
    first: int
    last: int
    carry: bytes = b""


class Entry(NamedTuple):
    """A cut, and where it is in the file."""

    cut: Cut
    offset: int
    before: int  #: CRC-32 of the file's bytes before it
    is_end: bool = False


class Index(NamedTuple):
    """What an index says."""

    shape: Shape
    suffix: str  #: of the codec
    entries: list[Entry]


# --- the format ------------------------------------------------------------------------------------------------------


class Packer:
    """Makes an index: `head`, and then what `pack` returns."""

    def __init__(self, shape: Shape, suffix: str) -> None:
        flags = sum(flag << i for i, flag in enumerate(shape))
        self._check = 0
        self.head: bytes = self._checked(_HEAD.pack(MAGIC, VERSION, flags, list(CODECS).index(suffix)))

    def pack(self, entry: Entry) -> bytes:
        """Return the entry's bytes."""
        cut = entry.cut
        kind = _END if entry.is_end else _CUT
        fixed = _ENTRY.pack(
            kind, len(cut.carry), entry.offset, cut.wire_offset, entry.before, cut.first, cut.last
        )
        return self._checked(fixed + cut.carry)

    def _checked(self, data: bytes) -> bytes:
        self._check = zlib.crc32(data, self._check)
        return data + _CHECK.pack(self._check)


def parse(data: bytes) -> Index:
    """Read an index. What is cut off at its end is passed over.

    Raises:
        ArchiveError: it is none, or damaged.
    """
    if not data.startswith(MAGIC):
        raise ArchiveError("not an index of an archive")
    if len(data) < _HEAD.size + _CHECK.size:
        raise ArchiveError("ends inside its head")
    _, version, flags, codec = _HEAD.unpack_from(data)
    if version != VERSION:
        raise ArchiveError(f"is of version {version}; this muxframe knows {VERSION}")
    check = _verify(data, 0, _HEAD.size, 0)
    if flags >= 1 << len(Shape._fields) or codec >= len(CODECS):
        raise ArchiveError("says what this muxframe does not know")
    shape = Shape(*(bool(flags >> i & 1) for i in range(len(Shape._fields))))
    entries: list[Entry] = []
    position = _HEAD.size + _CHECK.size
    while len(data) - position >= _ENTRY.size:
        kind, carry_size, offset, wire_offset, before, first, last = _ENTRY.unpack_from(data, position)
        end = position + _ENTRY.size + carry_size
        if len(data) < end + _CHECK.size:
            break
        check = _verify(data, position, end, check)
        carry = data[position + _ENTRY.size : end]
        entry = Entry(Cut(wire_offset, first, last, carry), offset, before, kind == _END)
        _check_order(entries, entry, kind)
        entries.append(entry)
        position = end + _CHECK.size
    return Index(shape, list(CODECS)[codec], entries)


def _verify(data: bytes, start: int, end: int, previous: int) -> int:
    check = zlib.crc32(data[start:end], previous)
    if _CHECK.unpack_from(data, end) != (check,):
        raise ArchiveError(f"is damaged at offset {start}")
    return check


def _check_order(entries: list[Entry], entry: Entry, kind: int) -> None:
    """Refuse what no recorder writes, though its checks are right."""
    before = entries[-1] if entries else Entry(Cut(0, 0, 0), 0, 0)
    is_later = entry.offset > before.offset and entry.cut.wire_offset > before.cut.wire_offset
    is_end = kind == _END and entry.offset >= before.offset and entry.cut.wire_offset >= before.cut.wire_offset
    if before.is_end or not (is_end or (kind == _CUT and is_later)):
        raise ArchiveError("its entries are out of order")


# --- the cuts --------------------------------------------------------------------------------------------------------


class Scanner:
    """Goes through a stream once, and says where it can be cut.

    Args:
        shape: what the stream is.
        interval: bytes of the wire between cuts, at least; None: only `cut` makes any.
        max_frame_size: largest payload a header may announce, in bytes. Frames are held in memory whole.

    Attributes:
        shape: as given.
        offset: bytes of the wire that were taken: up to the end of a frame.
    """

    def __init__(self, shape: Shape, interval: int | None, max_frame_size: int) -> None:
        self.offset: int = 0
        self.shape = shape
        self._interval = math.inf if interval is None else interval
        self._target = self._interval
        self._max_frame_size = max_frame_size
        self._builder = BatchBuilder(**shape._asdict()) if shape.timestamps else None
        self._times = _NO_TIMES
        self._carry: list[tuple[int, bytes]] = []  # the frames that unfinished lines are in, in wire order
        self._unfinished: dict[int, int] = {}  # bytes of these, by stream; of many not all are kept

    def scan(self, wire: bytes | bytearray) -> Iterator[Cut]:
        """Take whole frames; `offset` grows by their size.

        Args:
            wire: what follows `offset`. What is left of it comes again, with more behind it.

        Yields:
            Cuts as they are reached: `offset` is there.

        Raises:
            FramingError, DaemonError: the rest is no stream any more. `offset` is where it begins; that is behind the
                daemon's message.
        """
        start = self.offset
        measured = taken = 0
        try:
            for taken in self._line_ends(wire) if self.shape.raw else self._frame_ends(wire):
                self.offset = start + taken
                if self.offset < self._target:
                    continue
                self._measure(wire[measured:taken])
                measured = taken
                cut = self.cut()
                if cut is not None:
                    yield cut
        except DaemonError:
            self.offset += HEADER_SIZE + _KIND_AND_SIZE.unpack_from(wire, taken)[1]
            raise
        finally:
            self._measure(wire[measured:taken])

    def cut(self) -> Cut | None:
        """Cut where the stream is now, if it can be cut there."""
        if sum(self._unfinished.values()) > MAX_CARRY_SIZE:
            return None
        carry = b"".join(frame for _, frame in self._carry)
        if self._builder is not None:
            unfinished = BatchBuilder(**self.shape._asdict())
            self._note_times(self._builder.flush() + unfinished.feed(carry) + unfinished.feed_eof())
        cut = Cut(self.offset, *self._times, carry)
        self._times = _NO_TIMES
        self._target = self.offset + self._interval
        return cut

    def end(self) -> Cut:
        """Say what there is behind the last cut. Nothing can be scanned afterwards."""
        if self._builder is not None:
            self._note_times(self._builder.feed_eof())
        return Cut(self.offset, *self._times)

    def missing(self, rest: bytes | bytearray) -> TruncatedStreamError | DaemonError | None:
        """Say what it is that the stream ends with a rest that `scan` did not take; None: nothing is missing."""
        if self.shape.raw or not rest:
            return None
        header, text = bytes(rest[:HEADER_SIZE]), rest[HEADER_SIZE:]
        if len(header) < HEADER_SIZE:
            return TruncatedStreamError(self.offset, header, HEADER_SIZE - len(header))
        if header[0] == Stream.SYSTEMERR:
            return _daemon_error(text, self.offset)
        return TruncatedStreamError(self.offset, header, _KIND_AND_SIZE.unpack(header)[1] - len(text))

    def _frame_ends(self, wire: bytes | bytearray) -> Iterator[int]:
        """Yield where whole frames end: each at which a cut is due, and the last."""
        position, end = 0, len(wire)
        start = self.offset
        while end - position >= HEADER_SIZE:
            kind, size = _KIND_AND_SIZE.unpack_from(wire, position)
            stream = _STREAM_OF_KIND.get(kind)
            stop = position + HEADER_SIZE + size
            if stream is None or stop > end or size > self._max_frame_size:
                break
            if size:
                if wire[stop - 1] != _LF:
                    self._keep(stream, wire[position:stop])
                elif self._unfinished:
                    self._drop(stream)
            position = stop
            if start + position >= self._target:
                yield position
        yield position
        self._check_next(wire, position)

    def _check_next(self, wire: bytes | bytearray, position: int) -> None:
        """Raise what the frame at position is, if it is none, or the daemon's message."""
        header = bytes(wire[position : position + HEADER_SIZE])
        error = None
        if header:
            error = header_error(header, self.offset, max_frame_size=self._max_frame_size, check_reserved=True)
        if error is not None:
            raise error
        if len(header) == HEADER_SIZE and header[0] == Stream.SYSTEMERR:
            start, size = position + HEADER_SIZE, _KIND_AND_SIZE.unpack(header)[1]
            if len(wire) - start >= size:
                raise _daemon_error(wire[start : start + size], self.offset)

    def _line_ends(self, wire: bytes | bytearray) -> Iterator[int]:
        """Yield where lines of a raw stream end: each at which a cut is due; and then the end of what there is."""
        start = self.offset
        while start + len(wire) >= self._target:
            position = wire.find(b"\n", max(int(self._target) - start, 1) - 1) + 1
            if not position:
                break
            self._unfinished.clear()
            yield position
        if wire:
            self._unfinished = {} if wire[-1] == _LF else {Stream.STDOUT: MAX_CARRY_SIZE + 1}  # no cut in a line
        yield len(wire)

    def _keep(self, stream: int, frame: bytes | bytearray) -> None:
        """Keep a frame whose last line is unfinished, with those before it that this line is in."""
        size = self._unfinished.get(stream, 0)
        self._unfinished[stream] = size + len(frame)
        if size + len(frame) <= MAX_CARRY_SIZE:
            self._carry.append((stream, bytes(frame)))

    def _drop(self, stream: int) -> None:
        """Forget frames whose lines have all ended."""
        if self._unfinished.pop(stream, 0):
            self._carry = [(other, frame) for other, frame in self._carry if other != stream]

    def _measure(self, wire: bytes | bytearray) -> None:
        if self._builder is not None and wire:
            self._note_times(self._builder.feed(wire))

    def _note_times(self, batches: list[LineBatch]) -> None:
        for batch in batches:
            times: Sequence[int] | memoryview[int] | None = batch.timestamps
            if batch.timestamp_validity is not None:
                times = [line.timestamp for line in batch if line.timestamp is not None]
            if times:
                self._times = min(self._times[0], min(times)), max(self._times[1], max(times))


def _daemon_error(text: bytes | bytearray, offset: int) -> DaemonError:
    return DaemonError(str(text[:MAX_SYSTEMERR_SIZE], "utf-8", "replace"), offset)
