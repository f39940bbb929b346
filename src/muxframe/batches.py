"""The lines of a source as columns: the blocking loop. The rules are `_lines_py`'s, the columns `_batches_py`'s."""

from __future__ import annotations

import time
from _thread import RLock
from typing import TYPE_CHECKING

from ._batches import BatchBuilder, export_stream
from ._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from ._framing_py import BLOCK_SIZE, again, check_truncated
from ._lines_py import DEFAULT_MAX_LINE_SIZE
from .errors import DaemonError, FramingError, TruncatedStreamError
from .sources import open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ._batches_py import LineBatch, LineType
    from .protocol import Truncated
    from .sources import AnySource, Source


def batches(
    source: AnySource,
    /,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    line_type: LineType = "large_binary",
    source_name: str | None = None,
    max_lines: int = DEFAULT_MAX_LINES,
    max_bytes: int = DEFAULT_MAX_BYTES,
    max_age: float | None = None,
    max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> BatchReader:
    """Iterate over the lines of a stream in columnar batches, which Arrow's readers take without a copy.

    The columns are stream (int8), timestamp (timestamp[ns, UTC]; with timestamps), line, source (dictionary of strings;
    with source_name), attrs (large_utf8; with details) and partial (bool). Lines are as `lines` gives them.

    Args:
        source: bytes-like object, path, file descriptor, binary file object, socket (TLS too), or iterable of
            bytes-like objects. Only a path is opened and closed here.
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved, truncated: as for `lines`.
        line_type: "large_binary"; "large_utf8", where U+FFFD stands for what is no UTF-8; or "binary_view", which not
            every reader knows.
        source_name: what the source column says in every row.
        max_lines: rows of a batch.
        max_bytes: bytes of its lines; one line alone may be larger.
        max_age: seconds after which a batch is handed out though it is not full, as soon as something comes; where
            nothing may come, give the source a timeout, and call `flush` of the iterator. None: never.

    Returns:
        An iterator of LineBatch, which is also a stream to Arrow's readers: `pyarrow.table(batches(path))`.

    Raises:
        FramingError: by `next`, after batches of all lines before the fault.
        DaemonError: by `next`: the stream carried a systemerr frame; otherwise as FramingError.
        OSError: by `next`: what the source raised; iteration can go on afterwards (TimeoutError, BlockingIOError).

    >>> [batch.num_rows for batch in batches(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo")]
    [2]
    """
    check_truncated(truncated)
    builder = BatchBuilder(
        raw=raw,
        timestamps=timestamps,
        details=details,
        line_type=line_type,
        source=source_name,
        max_lines=max_lines,
        max_bytes=max_bytes,
        max_line_size=max_line_size,
        max_frame_size=max_frame_size,
        check_reserved=check_reserved,
    )
    return BatchReader(open_source(source), builder, Age(max_age), ignore_truncated=truncated == "ignore")


class Age:
    """How old a batch may grow: from the first piece of a stream that is in it.

    Args:
        longest: seconds; None: as old as it likes.
    """

    def __init__(self, longest: float | None) -> None:
        if longest is not None and not longest > 0:
            raise ValueError("max_age must be positive")
        self._longest = longest
        self._end = 0.0
        self._has_begun = False

    def ripe(self, builder: BatchBuilder, batches: list[LineBatch]) -> list[LineBatch]:
        """Return what is to be handed out behind a piece that has completed some batches, or none."""
        if self._longest is None:
            return batches
        now = time.monotonic()
        if batches or not self._has_begun:
            self._has_begun = True
            self._end = now + self._longest
        elif now >= self._end:
            self.restart()
            return builder.flush()
        return batches

    def restart(self) -> None:
        """The next piece begins another batch."""
        self._has_begun = False


class BatchReader:
    """Iterate over batches: what `batches` returns. It can be shared between threads.

    To pyarrow, polars, duckdb and others it is a stream of batches: it is read as they ask for more, and its errors
    become theirs.
    """

    def __init__(self, source: Source, builder: BatchBuilder, age: Age, *, ignore_truncated: bool) -> None:
        self._source = source
        self._builder = builder
        self._age = age
        self._ignore_truncated = ignore_truncated
        self._lock = RLock()
        self._position = 0  # in memory that is all there is
        self._block = memoryview(b"" if source.memory is not None else bytearray(BLOCK_SIZE))
        self._ready: list[LineBatch] = []  # the next one last
        self._fault: FramingError | DaemonError | None = None  # raised when they are handed out
        self._eof = False

    @property
    def invalid_timestamps(self) -> int:
        """How many frames (of a raw stream: lines) had no valid timestamp where one was due."""
        return self._builder.invalid_timestamps

    def __iter__(self) -> Iterator[LineBatch]:
        return self

    def __next__(self) -> LineBatch:
        with self._turn():
            while not self._ready:
                if self._fault is not None:
                    raise again(self._fault)
                if self._eof:
                    raise StopIteration
                self._read()
            return self._ready.pop()

    def flush(self) -> list[LineBatch]:
        """Return what there is of completed lines: after a TimeoutError of the source, say, so that none grows old."""
        with self._turn():
            ready, self._ready = self._ready[::-1], []
            self._age.restart()
            return ready if self._eof else ready + self._builder.flush()

    def _turn(self) -> RLock:
        """Return the lock, for this call's turn; a call from inside another on the same thread is refused."""
        if self._lock._is_owned():  # type: ignore[attr-defined]
            raise RuntimeError("BatchReader is in use: re-entrant call")
        return self._lock

    def _read(self) -> None:
        """Read once, and make batches of what there is."""
        piece = self._next_piece()
        try:
            if piece:
                self._ready = self._age.ripe(self._builder, self._builder.feed(piece))[::-1]
            else:
                self._eof = True
                self._ready = self._builder.feed_eof()[::-1]
        except (FramingError, DaemonError) as fault:
            self._eof = True
            self._ready = fault.lines[::-1]
            if not (self._ignore_truncated and isinstance(fault, TruncatedStreamError)):
                self._fault = again(fault)

    def _next_piece(self) -> memoryview:
        memory = self._source.memory
        if memory is None:
            return self._block[: self._source.readinto(self._block)]
        piece = memory[self._position : self._position + BLOCK_SIZE]
        self._position += len(piece)
        return piece

    def __arrow_c_schema__(self) -> object:
        """Return a PyCapsule of an ArrowSchema: a struct of the columns."""
        return self._builder.__arrow_c_schema__()

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a PyCapsule of an ArrowArrayStream of the batches that are still to come."""
        return export_stream(self._builder, self)
