"""The lines of a source: the blocking loop. The rules are `_lines_py`'s."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._lines import LineReader
from ._lines_py import DEFAULT_MAX_LINE_SIZE
from .sources import open_source

if TYPE_CHECKING:
    from ._lines_py import LineReader as _LineReader
    from .protocol import Truncated
    from .sources import AnySource


def lines(
    source: AnySource,
    /,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> _LineReader:
    """Iterate over the lines of a stream, in the order in which they end.

    LF ends a line; CRs right before it belong to the line end. What the engine cut into parts is one line again. The
    last line needs no line end.

    Args:
        source: bytes-like object, path, file descriptor, binary file object, socket (TLS too), or iterable of
            bytes-like objects. Only a path is opened and closed here.
        raw: the stream is a terminal's: no frames, all of it stdout.
        timestamps: the log was asked for with timestamps=1: they are taken out of the lines, and parsed.
        details: the same for details=1.
        max_line_size: largest line in bytes; a longer one comes in pieces, all but the last marked `partial`.
        max_frame_size: largest payload a header may announce, in bytes; None allows 4 GiB - 1. Memory does not depend
            on it.
        check_reserved: refuse headers whose bytes 1..3 are not zero.
        truncated: what an end inside a frame is: "error" raises, "ignore" ends the iteration. The unfinished lines come
            before, either way.

    Returns:
        An iterator of Line. It can be shared between threads. `invalid_timestamps` counts frames (of a raw stream:
        lines) that had none where one was due: their lines are whole, and their `timestamp` is None.

    Raises:
        FramingError: by `next`, after all lines before the fault, unfinished ones included (`partial`).
        DaemonError: by `next`: the stream carried a systemerr frame; otherwise as FramingError.
        OSError: by `next`: what the source raised; iteration can go on afterwards (TimeoutError, BlockingIOError).

    >>> for stream, timestamp, data in lines(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo"):
    ...     print(stream.name, timestamp, data)
    STDOUT None b'one'
    STDOUT None b'two'
    """
    opened = open_source(source)
    return LineReader(
        opened.reader(),
        raw=raw,
        timestamps=timestamps,
        details=details,
        max_line_size=max_line_size,
        max_frame_size=max_frame_size,
        check_reserved=check_reserved,
        truncated=truncated,
    )
