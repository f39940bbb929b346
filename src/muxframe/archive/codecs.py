"""What compresses an archive: gzip and zstd, in members that can be read alone."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

from .._framing_py import BLOCK_SIZE
from ..errors import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["CODECS", "Codec", "find_codec", "suffix_of", "unpacked"]

#: Compressed bytes that are unpacked at once: 32 MiB at most come of so many.
PIECE_SIZE = 1024


class Codec:
    """A way to compress. What it makes are objects as the standard library's, one for each member."""

    sync: int  #: for a compressor's flush: lets all that was compressed be read
    end: int  #: ends the member
    error: type[Exception]  #: what damaged data raises

    def compressor(self) -> Any:
        """Return what has `compress` and `flush(sync or end)`."""
        raise NotImplementedError

    def decompressor(self) -> Any:
        """Return what has `decompress`, `eof` and `unused_data`."""
        raise NotImplementedError


class Gzip(Codec):
    """gzip, by the standard library."""

    sync: int = zlib.Z_SYNC_FLUSH
    end: int = zlib.Z_FINISH
    error: type[Exception] = zlib.error

    def compressor(self) -> Any:
        return zlib.compressobj(wbits=31)

    def decompressor(self) -> Any:
        return zlib.decompressobj(wbits=31)


class Zstd(Codec):
    """zstd, by the standard library of Python 3.14."""

    def __init__(self) -> None:
        self._zstd: Any = import_module("compression.zstd")
        self.sync: int = self._zstd.ZstdCompressor.FLUSH_BLOCK
        self.end: int = self._zstd.ZstdCompressor.FLUSH_FRAME
        self.error: type[Exception] = self._zstd.ZstdError

    def compressor(self) -> Any:
        return self._zstd.ZstdCompressor(options={self._zstd.CompressionParameter.checksum_flag: 1})

    def decompressor(self) -> Any:
        return self._zstd.ZstdDecompressor()


class Zstandard(Codec):
    """zstd, by the zstandard library."""

    def __init__(self) -> None:
        self._zstd: Any = import_module("zstandard")
        self.sync: int = self._zstd.COMPRESSOBJ_FLUSH_BLOCK
        self.end: int = self._zstd.COMPRESSOBJ_FLUSH_FINISH
        self.error: type[Exception] = self._zstd.ZstdError

    def compressor(self) -> Any:
        return self._zstd.ZstdCompressor(write_checksum=True).compressobj()

    def decompressor(self) -> Any:
        return self._zstd.ZstdDecompressor().decompressobj()


def _make_zstd() -> Codec:
    for codec in (Zstd, Zstandard):
        try:
            return codec()
        except ModuleNotFoundError:
            pass
    raise ModuleNotFoundError('zstd needs Python 3.14, or zstandard: pip install "muxframe[zstd]"', name="zstandard")


#: By the end of a file's name. The index has their places in this list.
CODECS: dict[str, Callable[[], Codec | None]] = {"": lambda: None, ".gz": Gzip, ".zst": _make_zstd}


def suffix_of(name: str) -> str:
    """Return the end of a file's name that says what compresses it."""
    return next((suffix for suffix in CODECS if suffix and name.endswith(suffix)), "")


def find_codec(name: str) -> Codec | None:
    """Return what compresses a file of this name; None: nothing does.

    Raises:
        ModuleNotFoundError: zstd, and nothing here knows it.
    """
    return CODECS[suffix_of(name)]()


def unpacked(pieces: Iterable[bytes | memoryview], codec: Codec) -> Iterator[tuple[int, bytes]]:
    """Unpack members that follow one another.

    Yields:
        Where a member begins in the file, and some of what is in it.

    Raises:
        ArchiveError: it is damaged, or ends inside a member; what comes before was yielded.
    """
    begin = taken = 0
    member = codec.decompressor()
    for piece in pieces:
        for start in range(0, len(piece), PIECE_SIZE):
            rest: bytes | memoryview = piece[start : start + PIECE_SIZE]
            while rest:
                if member.eof:
                    member, begin = codec.decompressor(), taken
                try:
                    data = member.decompress(rest)
                except codec.error as error:
                    raise ArchiveError(f"damaged in the member at offset {begin}: {error}") from error
                taken += len(rest)
                rest = member.unused_data if member.eof else b""
                taken -= len(rest)
                for begun in range(0, len(data), BLOCK_SIZE):  # who takes it may make an object of each byte
                    yield begin, data[begun : begun + BLOCK_SIZE]
    if taken > begin and not member.eof:
        raise ArchiveError(f"ends inside the member at offset {begin}")
