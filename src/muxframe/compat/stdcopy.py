"""Moby's stdcopy, to the letter: for code that depends on what it does at the edges.

`StdCopy` writes each frame with one write, takes an end inside a frame for an end, and counts as Moby counts. For new
code use `muxframe.copy`, which loses nothing silently.

Source: Moby, api/pkg/stdcopy.
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any, NoReturn

from .._framing import FrameReader, pack_frame
from .._framing_py import readable
from ..errors import MuxframeError, UnknownStreamError
from ..protocol import HEADER_SIZE, Stream
from ..sinks import clear, open_sink
from ..sources import open_source

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Buffer

    from ..sinks import AnySink
    from ..sources import AnySource, Source

__all__ = ["NewStdWriter", "StdCopy", "StdCopyError", "Stderr", "Stdin", "Stdout", "StdWriter", "Systemerr"]

Stdin: Stream = Stream.STDIN
Stdout: Stream = Stream.STDOUT
Stderr: Stream = Stream.STDERR
Systemerr: Stream = Stream.SYSTEMERR


class StdCopyError(MuxframeError):
    """What StdCopy returns as an error of its own, with Moby's text.

    Attributes:
        written: the count that Moby returns with it.

    The text as it came is its first argument; `str` of it has escaped what a terminal would act on.
    """

    def __init__(self, message: str, written: int) -> None:
        super().__init__(message)
        self.written = written


def StdCopy(dst_out: AnySink, dst_err: AnySink, src: AnySource, /) -> int:  # noqa: N802
    """Demultiplex src: streams 0 and 1 to dst_out, 2 to dst_err, each frame with exactly one write.

    Like Moby's, it holds each frame in memory whole (as it arrives, not as its header claims), ignores the reserved
    header bytes, and takes an end inside a header or payload for the end: what came of that frame is dropped.

    Args:
        dst_out: file object whose write may say how much it took; or any sink of `muxframe.copy`.
        dst_err: likewise.
        src: any source of `muxframe.copy`.

    Returns:
        Payload bytes written to both.

    Raises:
        StdCopyError: "unrecognized stream: N" (written is 0), "error from daemon in stream: TEXT" (written is what was
            written so far), "short write" (0).
        Exception: what src or a destination raised, as it is (Moby returns 0 with it).
    """
    writes = [_one_write(dst) for dst in (dst_out, dst_err)]
    written = 0
    with open_source(src) as source:
        reader = FrameReader(
            source.reader(), max_frame_size=None, check_reserved=False, truncated="ignore", raise_systemerr=False
        )
        try:
            for stream, payload in reader:
                if stream is Systemerr:
                    text = str(payload, "utf-8", "replace")
                    raise StdCopyError(f"error from daemon in stream: {text}", written)
                if writes[stream >> 1](payload) != len(payload):
                    raise StdCopyError("short write", 0)
                written += len(payload)
        except UnknownStreamError as fault:
            if _has_whole_header(fault.header, source):
                _refuse(fault.stream)
    return written


def _has_whole_header(header: bytes, source: Source) -> bool:
    """Wait for the rest of a header that was refused for its first byte: Moby judges whole headers only."""
    missing = HEADER_SIZE - len(header)
    while missing and source.memory is None:
        size = source.readinto(memoryview(bytearray(missing)))
        if not size:
            break
        missing -= size
    return not missing


def _refuse(stream: int) -> NoReturn:
    raise StdCopyError(f"unrecognized stream: {stream}", 0) from None


def _one_write(dst: Any) -> Callable[[memoryview], int]:
    """Make a function that writes once and returns how much was taken."""
    if not hasattr(dst, "write") or hasattr(dst, "sendall"):
        sink = open_sink(dst)
        clear(sink)

        def write_all(payload: memoryview) -> int:
            sink.write(payload)
            return len(payload)

        return write_all

    takes_views = isinstance(dst, io.IOBase)  # other objects get bytes, which they may expect

    def write_once(payload: memoryview) -> int:
        taken = dst.write(payload if takes_views else bytes(payload))
        return len(payload) if taken is None else taken

    return write_once


class StdWriter:
    """What NewStdWriter returns."""

    def __init__(self, w: Any, stream: int) -> None:
        self._w = w
        self._stream = stream

    def write(self, data: Buffer | None, /) -> int:
        """Write data as one frame, with one write.

        Args:
            data: bytes-like object; None (Go's nil slice) and an empty one write nothing.

        Returns:
            What the write returned, less the 8 bytes of the header, but never below 0.

        Raises:
            StdCopyError: there is nothing to write to.
            Exception: what the write raised.
        """
        if self._w is None:
            raise StdCopyError("writer not instantiated", 0)
        if data is None or not readable(data):
            return 0
        frame = pack_frame(self._stream, data)
        taken = self._w.write(frame)
        return max(0, (len(frame) if taken is None else taken) - HEADER_SIZE)


def NewStdWriter(w: Any, stream: int, /) -> StdWriter:  # noqa: N802
    """Return a writer that multiplexes into w (an object with write) as the given stream."""
    return StdWriter(w, stream)
