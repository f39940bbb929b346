"""Out of an archive: all of it, from a time, or a slice at a time."""

from __future__ import annotations

import os
from builtins import open as open_file
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, BinaryIO, Union, cast

from .._batches import BatchBuilder
from .._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from .._framing_py import BLOCK_SIZE, again
from .._lines import LineSplitter
from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..errors import ArchiveError, DaemonError, FramingError, TruncatedStreamError
from ..sources import open_source
from .codecs import find_codec, suffix_of, unpacked
from .index import Cut, Entry, Index, Shape, parse
from .recording import INDEX_SUFFIX, check_before

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager

    from .._batches_py import LineBatch, LineType
    from .._lines_py import Line
    from ..engine.parameters import Moment

    #: A path, or what opens a seekable binary file whenever it is entered, such as fsspec's OpenFile.
    AnyFile = Union[str, os.PathLike[str], AbstractContextManager[Any]]

__all__ = ["Archive", "Slice", "open"]

#: Bytes; with usual intervals that of an archive of 20 TB has so many.
MAX_INDEX_SIZE = 256 * 1024 * 1024


def open(
    file: AnyFile,
    /,
    *,
    index: AnyFile | bool = True,
    raw: bool | None = None,
    timestamps: bool | None = None,
    details: bool | None = None,
) -> Archive:
    """Open an archive, and look at its index; nothing else is read yet.

    Args:
        file: a path, or what opens a seekable binary file each time it is entered, such as `fsspec.open(url)`. Slices
            pickle if it does. It is compressed if the name ends in .gz or .zst.
        index: the same of the index; True: a path's is at path + ".idx", if it is there; False: do without.
        raw, timestamps, details: as for `muxframe.lines`: what the log was asked for. None: as the index says, or no.

    Raises:
        ArchiveError: the index is damaged, or another archive's, or the archive has become shorter or was written over.
            `build_index` makes a new one.
        ValueError: the index says otherwise than raw, timestamps or details.
        OSError: a file cannot be opened. Without an index nothing is opened before it is read.
    """
    name = name_of(file)
    suffix = suffix_of(name)
    if index is True:
        path = f"{name}{INDEX_SUFFIX}" if isinstance(file, (str, os.PathLike)) else ""
        index = path if path and os.path.exists(path) else False
    found = None
    if index is not False:
        found = _read_index(cast("AnyFile", index), file)
        suffix = found.suffix
    said = {"raw": raw, "timestamps": timestamps, "details": details}
    shape = Shape() if found is None else found.shape
    for key, value in said.items():
        if value is not None and found is not None and value != getattr(shape, key):
            raise ValueError(f"{name}: the index says {key}={getattr(shape, key)}")
    shape = shape._replace(**{key: bool(value) for key, value in said.items() if value is not None})
    return Archive(file, shape, suffix, found)


def name_of(file: AnyFile) -> str:
    """Return what a file is called."""
    return str(os.fspath(file) if isinstance(file, (str, os.PathLike)) else getattr(file, "path", ""))


def _read_index(index: AnyFile, file: AnyFile) -> Index:
    """Read an index, and make sure that it is this file's."""
    with opened(index) as source:
        if source.seek(0, os.SEEK_END) > MAX_INDEX_SIZE:
            raise ArchiveError(f"{name_of(index)}: is larger than {MAX_INDEX_SIZE} bytes")
        source.seek(0)
        data = source.read()
    try:
        found = parse(data)
    except ArchiveError as error:
        raise ArchiveError(f"{name_of(index)}: {error}") from None
    if found.entries:
        with opened(file) as archive:
            last = found.entries[-1]
            size = archive.seek(0, os.SEEK_END)
            if size < last.offset or check_before(archive, last.offset) != last.before:
                raise changed(file)
            if last.is_end and size > last.offset:  # it has grown: what is behind may be of any time
                found.entries.pop()
    return found


@contextmanager
def opened(file: AnyFile) -> Iterator[BinaryIO]:
    """Open a file and close it."""
    if isinstance(file, (str, os.PathLike)):
        with open_file(file, "rb", buffering=0) as stream:
            yield cast("BinaryIO", stream)
    else:
        with file as stream:
            yield stream


def changed(file: AnyFile) -> ArchiveError:
    """Say that an index is not of this file as it is now."""
    return ArchiveError(f"{name_of(file)}: is not what its index was made of; make it anew (muxframe index)")


def time_range(since: Moment | None, until: Moment | None) -> tuple[int, int] | None:
    """Return the first nanosecond, and the first behind the last; None: all of them."""
    if since is None and until is None:
        return None
    from ..engine.parameters import nanoseconds

    first = -1 << 63 if since is None else nanoseconds(since)
    return first, 1 << 63 if until is None else nanoseconds(until)


class Archive:
    """A recorded stream: what `open` returns. Nothing is kept open.

    Attributes:
        raw, timestamps, details: what the stream is.
    """

    raw: bool
    timestamps: bool
    details: bool

    def __init__(self, file: AnyFile, shape: Shape, suffix: str, index: Index | None) -> None:
        self._file = file
        self.raw, self.timestamps, self.details = shape
        self._slices = list(_slices(file, shape, suffix, [] if index is None else index.entries))

    def __repr__(self) -> str:
        return f"<Archive {name_of(self._file)}>"

    def slices(
        self, count: int | None = None, /, *, since: Moment | None = None, until: Moment | None = None
    ) -> list[Slice]:
        """Divide it into parts that can be read alone: by threads, processes, or machines that see the same file.

        One behind the other they have every line once, in order. Without an index there is one.

        Args:
            count: how many at most; None: as many as the index allows.
            since, until: only those that may have lines of that time. They have others, too: see `Slice.lines`.

        Raises:
            ValueError: count is not positive, a moment is none, or the archive has no timestamps.
        """
        if count is not None and count < 1:
            raise ValueError("count must be positive")
        slices = self._slices
        times = self._check_range(since, until)
        if times is not None:
            wanted = [i for i, each in enumerate(slices) if each.may_have(times)]
            slices = slices[wanted[0] : wanted[-1] + 1] if wanted else []
        count = len(slices) if count is None else min(count, len(slices))
        bounds = [len(slices) * i // count for i in range(count + 1)] if count else []
        return [_joined(slices[start:end]) for start, end in pairwise(bounds)]

    def lines(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> Iterator[Line]:
        """Iterate over the lines. What the index says is not of the time asked for is not read.

        Args:
            since, until: only lines whose timestamp is in this range: `since` belongs to it, `until` does not. Moments
                as for `muxframe.logs`. Lines without a timestamp are in no range.
            max_line_size: largest line in bytes; a longer one comes in pieces.

        Raises:
            FramingError, DaemonError: by `next`, as `muxframe.lines`: after all lines before the fault.
            ArchiveError: by `next`: a compressed file is damaged, or the file is not what its index was made of.
            ValueError: a moment is none, or the archive has no timestamps.
        """
        slices = self.slices(1, since=since, until=until)
        times = self._check_range(since, until)
        return chain.from_iterable(each._lines(times, max_line_size) for each in slices)

    def batches(self, **options: Any) -> Iterator[LineBatch]:
        """Iterate over the lines in columnar batches: as `Slice.batches`, of all of it."""
        return chain.from_iterable(each.batches(**options) for each in self.slices(1))

    def _check_range(self, since: Moment | None, until: Moment | None) -> tuple[int, int] | None:
        times = time_range(since, until)
        if times is not None and not self.timestamps:
            raise ValueError(f"{name_of(self._file)}: has no timestamps, or no index that says so")
        return times


@dataclass(frozen=True)
class Slice:
    """A part of an archive. It is small, and pickles: let whoever can see the file read it.

    Attributes:
        file: the archive, as it was opened.
        start, stop: bytes of the file; stop is None for its end, wherever that is.
        raw, timestamps, details: what the stream is.
        times: the least and the greatest timestamp in it; None: nobody knows. Where no line
            has one, the first is the greater.
    """

    file: Any
    start: int
    stop: int | None
    raw: bool
    timestamps: bool
    details: bool
    times: tuple[int, int] | None
    suffix: str
    wire_offset: int
    carry: bytes
    before: int

    def lines(
        self,
        *,
        since: Moment | None = None,
        until: Moment | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> Iterator[Line]:
        """Iterate over the lines: as `Archive.lines`, of this slice alone."""
        return self._lines(time_range(since, until), max_line_size)

    def _lines(self, times: tuple[int, int] | None, max_line_size: int) -> Iterator[Line]:
        splitter = LineSplitter(**self._shape, max_line_size=max_line_size)
        lines: Iterator[Line] = chain.from_iterable(self._read(splitter))
        if times is None:
            return lines
        first, end = times
        return (line for line in lines if line.timestamp is not None and first <= line.timestamp < end)

    def batches(
        self,
        *,
        line_type: LineType = "large_binary",
        source_name: str | None = None,
        max_lines: int = DEFAULT_MAX_LINES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> Iterator[LineBatch]:
        """Iterate over the lines in columnar batches.

        Args:
            line_type, source_name, max_lines, max_bytes, max_line_size: as for `muxframe.batches`.

        Raises:
            FramingError, DaemonError, ArchiveError: as `lines`.
        """
        builder = BatchBuilder(
            **self._shape,
            line_type=line_type,
            source=source_name,
            max_lines=max_lines,
            max_bytes=max_bytes,
            max_line_size=max_line_size,
        )
        return chain.from_iterable(self._read(builder))

    def may_have(self, times: tuple[int, int]) -> bool:
        """Say whether there may be lines of this time."""
        return self.times is None or (self.times[0] < times[1] and self.times[1] >= times[0])

    @property
    def _shape(self) -> dict[str, bool]:
        return {"raw": self.raw, "timestamps": self.timestamps, "details": self.details}

    def _read(self, splitter: Any) -> Iterator[Any]:
        """Yield what a splitter, or a builder, makes of the slice."""
        flush = splitter.flush if isinstance(splitter, BatchBuilder) else list  # a splitter keeps no completed lines
        splitter.feed(self.carry)
        flush()  # of the slice before
        fault: FramingError | DaemonError
        try:
            for wire in self._wire():
                yield splitter.feed(wire)
            if self.stop is not None:
                yield flush()  # what is unfinished is carried on into the next slice
            completed = splitter.feed_eof()
        except (FramingError, DaemonError) as error:
            fault = error
        else:
            if self.stop is None:
                yield completed
            return
        if self.stop is not None and isinstance(fault, TruncatedStreamError):
            raise changed(self.file)
        yield fault.lines
        fault.offset += self.wire_offset - len(self.carry)
        raise again(fault)

    def _wire(self) -> Iterator[bytes | memoryview]:
        with opened(self.file) as file:
            if check_before(file, self.start) != self.before:
                raise changed(self.file)
            pieces = self._pieces(file)
            codec = find_codec(self.suffix)
            if codec is None:
                yield from pieces
                return
            try:
                for _, piece in unpacked(pieces, codec):
                    yield piece
            except ArchiveError as error:
                raise ArchiveError(f"{name_of(self.file)}: from offset {self.start}: {error}") from error

    def _pieces(self, file: BinaryIO) -> Iterator[memoryview]:
        """Yield the slice's bytes of the file; each piece is valid until the next."""
        source = open_source(file)
        block = memoryview(bytearray(BLOCK_SIZE))
        position = self.start
        while position != self.stop:
            size = source.readinto(block if self.stop is None else block[: self.stop - position])
            if not size:
                if self.stop is not None:
                    raise changed(self.file)
                return
            position += size
            yield block[:size]


def _slices(file: AnyFile, shape: Shape, suffix: str, entries: list[Entry]) -> Iterator[Slice]:
    """Yield the slices between the cuts; the last goes on to the end of the file."""
    start = Entry(Cut(0, 0, 0), 0, 0)
    cuts: list[Entry | None] = [entry for entry in entries if not entry.is_end]
    end = entries[-1] if entries and entries[-1].is_end else None
    if end is not None and cuts and cuts[-1] is not None and cuts[-1].offset == end.offset:
        end = cuts.pop()  # there is nothing behind it
    for entry in [*cuts, None]:
        known = entry or end
        yield Slice(
            file,
            start.offset,
            None if entry is None else entry.offset,
            *shape,
            times=None if known is None else (known.cut.first, known.cut.last),
            suffix=suffix,
            wire_offset=start.cut.wire_offset,
            carry=start.cut.carry,
            before=start.before,
        )
        start = entry or start


def _joined(slices: list[Slice]) -> Slice:
    """Join slices that follow one another."""
    times = None
    if all(each.times is not None for each in slices):
        first, last = zip(*(each.times or () for each in slices))
        times = min(first), max(last)
    return replace(slices[0], stop=slices[-1].stop, times=times)
