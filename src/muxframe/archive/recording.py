"""Into an archive: a stream as it comes, or the index of a file that is there already."""

from __future__ import annotations

import os
import secrets
import sys
import time
import zlib
from builtins import open as open_file
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any, NamedTuple

from .._framing_py import BLOCK_SIZE, check_truncated
from ..errors import ArchiveError, DaemonError, FramingError, TruncatedStreamError
from ..protocol import DEFAULT_MAX_FRAME_SIZE
from ..sources import open_source
from .codecs import find_codec, suffix_of, unpacked
from .index import CHECK_SIZE, Cut, Entry, Packer, Scanner, Shape

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO, Self

    from ..protocol import Truncated
    from ..sources import AnySource, Source
    from .codecs import Codec

__all__ = ["DEFAULT_INTERVAL", "INDEX_SUFFIX", "Recorded", "build_index", "record"]

DEFAULT_INTERVAL = 4 * 1024 * 1024
INDEX_SUFFIX = ".idx"
MAX_AGE = 1.0  # seconds after which what is compressed is passed on when more comes, so that others can read it


class Recorded(NamedTuple):
    """What is in an archive, in bytes."""

    wire_size: int  #: of the stream
    file_size: int  #: of the file: less, if it is compressed


def record(
    source: AnySource,
    path: str | os.PathLike[str],
    /,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    interval: int = DEFAULT_INTERVAL,
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
    truncated: Truncated = "error",
) -> Recorded:
    """Write a stream into a new file, and its index into another beside it.

    Whatever ends the recording, the file ends where a frame does, and the index is right. What has been read has been
    written before more is read; if it is compressed, one second later at most, as long as more comes.

    Args:
        source: a Session, or anything `muxframe.copy` reads from.
        path: the archive: compressed if its name ends in .gz or .zst. It must not exist. The index is at path + ".idx".
        raw, timestamps, details: as for `muxframe.lines`; they are written into the index. A Session knows better.
        interval: bytes of the stream between two places at which the archive can be cut, at least.
        max_frame_size: largest payload a header may announce, in bytes.
        truncated: what an end inside a frame is: "error" raises, "ignore" returns. The frame is not written.

    Returns:
        What was written.

    Raises:
        FileExistsError: there is such a file.
        ModuleNotFoundError: zstd, and nothing here knows it.
        FramingError, DaemonError: as `muxframe.copy`. What came before is written, the daemon's message too.
        OSError: of the source or the file. A file that takes no more ends with the last block (compressed: with the
            last `interval`) that it took as a whole.
    """
    check_truncated(truncated)
    check_interval(interval)
    codec = find_codec(os.fspath(path))
    opened, shape, session = _open(source, Shape(bool(raw), bool(timestamps), bool(details)))
    scanner = Scanner(shape, interval, max_frame_size)
    wire = bytearray()
    with opened, _Writer(os.fspath(path), scanner, codec) as writer:
        for block in opened.blocks():
            wire += block
            writer.write(wire)
        missing = scanner.missing(wire)
        may_miss = truncated == "ignore" or (session is not None and session.closed)
        if missing is not None and not (may_miss and isinstance(missing, TruncatedStreamError)):
            raise missing
    return writer.recorded


def _open(source: AnySource, shape: Shape) -> tuple[Source, Shape, Any]:
    """Return what to read, what it is, and the session that it belongs to."""
    module = sys.modules.get("muxframe.engine.session")  # whoever has a session has imported it
    if module is None or not isinstance(source, module.Session):
        return open_source(source), shape, None
    return source.wire(), Shape(**source.line_options), source


def build_index(
    path: str | os.PathLike[str],
    /,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    interval: int = DEFAULT_INTERVAL,
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE,
) -> None:
    """Write the index of an archive, in one pass. One that is there already is replaced.

    A compressed file can only be cut between its members: of those that `record` makes there are many, gzip and zstd
    make one.

    Args:
        path: the archive. The index is at path + ".idx".
        raw, timestamps, details: as for `muxframe.lines`: what the log was asked for. It is written into the index.
        interval, max_frame_size: as for `record`.

    Raises:
        FramingError, DaemonError, ArchiveError: the archive is damaged, or carries an error of the daemon's. Its index
            is written, up to there.
        ModuleNotFoundError: zstd, and nothing here knows it.
        OSError: a file cannot be read or written.
    """
    check_interval(interval)
    name = os.fspath(path)
    shape = Shape(bool(raw), bool(timestamps), bool(details))
    temporary = f"{name}{INDEX_SUFFIX}.{secrets.token_hex(4)}"
    with open_file(name, "rb", buffering=0) as file, ExitStack() as stack:
        index = stack.enter_context(open_file(temporary, "xb"))
        stack.callback(_remove, temporary)
        packer = Packer(shape, suffix_of(name))
        index.write(packer.head)
        fault = None
        try:
            for cut, offset, is_end in _cuts(file, find_codec(name), shape, interval, max_frame_size):
                position = file.tell()
                index.write(packer.pack(Entry(cut, offset, check_before(file, offset), is_end)))
                file.seek(position)
        except (FramingError, DaemonError, ArchiveError) as error:
            fault = error
        index.close()
        os.replace(temporary, name + INDEX_SUFFIX)
    if fault is not None:
        raise fault


def _cuts(
    file: BinaryIO, codec: Codec | None, shape: Shape, interval: int, max_frame_size: int
) -> Iterator[tuple[Cut, int, bool]]:
    """Yield the cuts of an archive, where they are in the file, and last its end."""
    scanner = Scanner(shape, interval if codec is None else None, max_frame_size)
    wire = bytearray()
    last = 0
    for begin, piece in _members(file, codec):
        if begin is not None and not wire and scanner.offset - last >= interval:
            cut = scanner.cut()
            if cut is not None:
                last = scanner.offset
                yield cut, begin, False
        wire += piece
        start = scanner.offset
        for cut in scanner.scan(wire):
            yield cut, cut.wire_offset, False
        del wire[: scanner.offset - start]
    missing = scanner.missing(wire)
    if missing is not None:
        raise missing
    yield scanner.end(), file.tell(), True


def _members(file: BinaryIO, codec: Codec | None) -> Iterator[tuple[int | None, bytes]]:
    """Yield what is in a file, with where a member begins or the last one ends; None: nowhere there."""
    pieces = iter(lambda: file.read(BLOCK_SIZE), b"")
    if codec is None:
        for piece in pieces:
            yield None, piece
        return
    last = 0
    for begin, piece in unpacked(pieces, codec):
        yield (None if begin == last else begin), piece
        last = begin
    yield file.tell(), b""


def check_before(file: BinaryIO, offset: int) -> int:
    """Go to an offset of a file; return the CRC-32 of what is right before it."""
    start = max(offset - CHECK_SIZE, 0)
    file.seek(start)
    return zlib.crc32(file.read(offset - start))


def check_interval(interval: int) -> None:
    """Refuse an interval that is none."""
    if interval < 1:
        raise ValueError("interval must be positive")


def _remove(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:  # it has taken the other's place
        pass


# --- writing ---------------------------------------------------------------------------------------------------------


class _File:
    """A file that ends with the last that was written as a whole."""

    def __init__(self, path: str, mode: str) -> None:
        self.file: Any = open_file(path, mode, buffering=0)  # noqa: SIM115
        self.size = 0
        self.is_whole = True

    def append(self, data: bytes | bytearray) -> None:
        self.is_whole = False
        with memoryview(data) as view:
            written = 0
            while written < len(view):
                try:
                    written += self.file.write(view[written:])
                except OSError as error:
                    error.filename = self.file.name
                    raise
        self.size += len(data)
        self.is_whole = True

    def truncate(self, size: int) -> None:
        self.file.truncate(size)
        self.file.seek(size)
        self.size = size
        self.is_whole = True

    def close(self) -> None:
        try:
            if not self.is_whole:
                self.truncate(self.size)
        finally:
            self.file.close()


class _Writer:
    """An archive and its index, being written.

    Attributes:
        recorded: what stays, whatever happens.
    """

    def __init__(self, path: str, scanner: Scanner, codec: Codec | None) -> None:
        self.recorded = Recorded(0, 0)
        self._scanner = scanner
        self._codec = codec
        self._compressor: Any = None  # of the member that is being written
        self._flushed = 0.0
        self._packer = Packer(scanner.shape, suffix_of(path))
        self._file = _File(path, "x+b")
        try:
            _remove(path + INDEX_SUFFIX)  # it may be a link to what must not be written over
            self._index = _File(path + INDEX_SUFFIX, "xb")
            self._index.append(self._packer.head)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        try:
            if self._file.is_whole:
                self._end_member()
        finally:
            try:
                self._file.truncate(self.recorded.file_size)
                if self._index.is_whole:
                    self._enter(self._scanner.end()._replace(wire_offset=self.recorded.wire_size), is_end=True)
            finally:
                self._file.close()
                self._index.close()

    def write(self, wire: bytearray) -> None:
        """Write whole frames, and take them out of wire."""
        start = self._scanner.offset
        written = 0
        fault = None
        try:
            for cut in self._scanner.scan(wire):
                self._put(wire[written : cut.wire_offset - start], cut.wire_offset)
                written = cut.wire_offset - start
                self._end_member()
                self._enter(cut)
        except (FramingError, DaemonError) as error:  # the scanner's: what comes before is written first
            fault = error
        taken = self._scanner.offset - start
        self._put(wire[written:taken], self._scanner.offset)
        del wire[:taken]
        if fault is not None:
            raise fault

    def _put(self, wire: bytes | bytearray, wire_size: int) -> None:
        """Write what goes up to an offset of the wire."""
        if not wire:
            return
        if self._codec is None:
            self._file.append(wire)
            self.recorded = Recorded(wire_size, self._file.size)
            return
        if self._compressor is None:
            self._compressor = self._codec.compressor()
        self._wire_size = wire_size
        packed = self._compressor.compress(wire)
        now = time.monotonic()
        if now - self._flushed > MAX_AGE:
            self._flushed = now
            packed += self._compressor.flush(self._codec.sync)
        self._file.append(packed)

    def _end_member(self) -> None:
        if self._codec is not None and self._compressor is not None:
            self._file.append(self._compressor.flush(self._codec.end))
            self._compressor = None
            self.recorded = Recorded(self._wire_size, self._file.size)

    def _enter(self, cut: Cut, *, is_end: bool = False) -> None:
        """Put a cut at the end of the file into the index."""
        offset = self._file.size
        self._index.append(self._packer.pack(Entry(cut, offset, check_before(self._file.file, offset), is_end)))
