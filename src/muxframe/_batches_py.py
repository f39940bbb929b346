"""Columnar batches in Python: the specification, and what serves where nothing can be compiled.

A batch owns its memory and is never changed. Its columns, of which the schema says which there are:

    stream      int8
    timestamp   timestamp[ns, UTC]     with timestamps=True; null where there was none
    line        large_binary, large_utf8 or binary_view; in large_utf8, U+FFFD stands for what is no UTF-8
    source      dictionary<int32, utf8>     with a source: the same name in every row
    attrs       large_utf8     with details=True, as the engine sent them; null where there were none
    partial     bool

It is handed on by the Arrow PyCapsule interface, which needs no library: by ctypes in `_arrow_py.py`,
by C in `_arrow.h`.
"""

from __future__ import annotations

from array import array
from itertools import accumulate
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from ._framing_py import Unique
from ._lines_py import DEFAULT_MAX_LINE_SIZE, Line, _line, _Splitter
from .protocol import Stream

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from typing_extensions import Buffer

__all__ = ["BatchBuilder", "LineBatch", "export_stream"]

#: What lines are as a column, named as Arrow names them.
LineType = Literal["large_binary", "large_utf8", "binary_view"]

DEFAULT_MAX_LINES = 65_536
DEFAULT_MAX_BYTES = 16 * 1024 * 1024
LIMIT = (1 << 31) - 1  # bytes of lines in a batch: what a view can point into

LINE_TYPES = ("large_binary", "large_utf8", "binary_view")


class Shape(NamedTuple):
    """Which columns there are."""

    timestamps: bool
    details: bool
    line_type: LineType
    source: str | None


def check_shape(timestamps: bool, details: bool, line_type: str, source: str | None) -> Shape:
    """Refuse columns that there are not."""
    if line_type not in LINE_TYPES:
        raise ValueError(f"line_type must be one of {', '.join(map(repr, LINE_TYPES))}, not {line_type!r}")
    if not isinstance(source, (str, type(None))):
        raise TypeError(f"source must be a str or None, not {type(source).__name__}")
    if source is not None:
        source.encode()  # raises for what a column cannot hold
    return Shape(bool(timestamps), bool(details), line_type, source)  # type: ignore[arg-type]


def check_limits(max_lines: int, max_bytes: int, max_line_size: int) -> None:
    """Refuse sizes that are none, or that a batch cannot have."""
    for value, name in ((max_lines, "max_lines"), (max_bytes, "max_bytes"), (max_line_size, "max_line_size")):
        if not isinstance(value, int):
            raise TypeError(f"{name} must be an int, not {type(value).__name__}")
        if not 1 <= value <= LIMIT:
            raise ValueError(f"{name} must be 1..{LIMIT}, not {value}")


# --- a batch ---------------------------------------------------------------------------------------------------------


class LineBatch(Unique):
    """Lines as columns. Immutable; its memory lives as long as anything that was made of it does.

    `len(batch)` is its number of rows, `batch[i]` one of them as a Line. The columns are there as memoryviews, and for
    Arrow's readers (pyarrow, polars, duckdb, pandas, nanoarrow) through the PyCapsule interface. Only a BatchBuilder
    makes batches.

    >>> [batch] = BatchBuilder(max_lines=1).feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x08one\\ntwo\\n")
    >>> batch.num_rows, bytes(batch.data)
    (1, b'one')
    """

    __slots__ = (
        "__weakref__",
        "_data",
        "_details",
        "_offsets",
        "_partials",
        "_shape",
        "_streams",
        "_timestamps",
        "_valid",
    )

    _shape: Shape
    _streams: bytes  # int8
    _timestamps: bytes  # int64
    _valid: bytes | None  # bitmap of rows with a timestamp; None: all of them
    _offsets: bytes  # int64
    _data: bytes
    _details: list[bytes | None]
    _partials: bytes  # one byte a row

    def __init__(self) -> None:
        raise TypeError("only a BatchBuilder makes a LineBatch")

    @property
    def num_rows(self) -> int:
        """How many lines."""
        return len(self._streams)

    @property
    def source(self) -> str | None:
        """The name in the source column, or None where there is none."""
        return self._shape.source

    @property
    def streams(self) -> memoryview:
        """The stream of each row: int8."""
        return memoryview(self._streams).cast("b")

    @property
    def timestamps(self) -> memoryview | None:
        """Nanoseconds since 1970-01-01T00:00:00Z of each row: int64, 0 where it has none; None without the column."""
        return memoryview(self._timestamps).cast("q") if self._shape.timestamps else None

    @property
    def timestamp_validity(self) -> memoryview | None:
        """Bitmap of the rows that have a timestamp, lowest bit first; None where all have one."""
        return None if self._valid is None else memoryview(self._valid)

    @property
    def offsets(self) -> memoryview:
        """Where each line begins in `data`, and the last one ends: int64, one more than there are rows."""
        return memoryview(self._offsets).cast("q")

    @property
    def data(self) -> memoryview:
        """The bytes of all lines, one behind the other."""
        return memoryview(self._data)

    @property
    def partials(self) -> memoryview[bool]:
        """Whether each row's line goes on: bool, one byte each."""
        return memoryview(self._partials).cast("?")

    def __len__(self) -> int:
        return len(self._streams)

    def __getitem__(self, index: int) -> Line:
        row = range(len(self))[index]
        timestamp = None
        if self._shape.timestamps and (self._valid is None or self._valid[row // 8] >> row % 8 & 1):
            timestamp = memoryview(self._timestamps).cast("q")[row]
        start, end = self.offsets[row : row + 2]
        stream = Stream(self._streams[row])
        return _line(stream, timestamp, self._data[start:end], bool(self._partials[row]), self._details[row])

    def __iter__(self) -> Iterator[Line]:
        return (self[row] for row in range(len(self)))

    def __repr__(self) -> str:
        return f"<LineBatch of {len(self)} rows>"

    def __arrow_c_schema__(self) -> object:
        """Return a PyCapsule of an ArrowSchema: a struct of the columns."""
        from ._arrow_py import schema_capsule

        return schema_capsule(self._shape)

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """Return PyCapsules of an ArrowSchema and an ArrowArray: a struct of the columns, whatever is requested."""
        from ._arrow_py import array_capsule, schema_capsule

        return schema_capsule(self._shape), array_capsule(self)

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """Return a PyCapsule of an ArrowArrayStream: of this batch alone."""
        return export_stream(self, iter((self,)))


class _Rows:
    """Lines that become a batch."""

    def __init__(self) -> None:
        self.streams = array("b")
        self.timestamps: list[int | None] = []
        self.lines: list[bytes] = []
        self.size = 0  # of the lines
        self.details: list[bytes | None] = []
        self.partials = bytearray()

    def batch(self, shape: Shape) -> LineBatch:
        lines = self.lines
        if shape.line_type == "large_utf8":
            lines = [line if line.isascii() else line.decode("utf-8", "replace").encode() for line in lines]
        batch = object.__new__(LineBatch)
        batch._shape = shape
        batch._streams = self.streams.tobytes()
        batch._timestamps = array("q", [timestamp or 0 for timestamp in self.timestamps]).tobytes()
        missing = shape.timestamps and None in self.timestamps
        batch._valid = bitmap([timestamp is not None for timestamp in self.timestamps]) if missing else None
        batch._offsets = array("q", accumulate(map(len, lines), initial=0)).tobytes()
        batch._data = b"".join(lines)
        batch._details = self.details
        batch._partials = bytes(self.partials)
        return batch


def bitmap(flags: Iterable[object]) -> bytes:
    """Pack flags into bits, the lowest first."""
    bits = "".join("1" if flag else "0" for flag in flags)
    return int(bits[::-1] or "0", 2).to_bytes(len(bits) // 8 + 1, "little")


# --- the builder -----------------------------------------------------------------------------------------------------


class BatchBuilder(_Splitter):
    """Make batches of a stream's lines as it arrives, without doing any I/O. Safe to share between threads.

    Args:
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved: as for LineSplitter.
        line_type: what lines are as a column: "large_binary", "large_utf8" or "binary_view".
        source: a name for a column that says where lines are from, or None for no such column.
        max_lines: rows of a batch.
        max_bytes: bytes of its lines; one line alone may be larger.

    Raises:
        TypeError, ValueError: an option is not what it should be. Sizes end at 2 GiB - 1.

    >>> builder = BatchBuilder()
    >>> builder.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo")
    []
    >>> builder.feed_eof()
    [<LineBatch of 2 rows>]
    """

    __slots__ = ("_full", "_max_bytes", "_max_lines", "_rows", "_shape")

    def __init__(
        self,
        *,
        raw: bool = False,
        timestamps: bool = False,
        details: bool = False,
        line_type: LineType = "large_binary",
        source: str | None = None,
        max_lines: int = DEFAULT_MAX_LINES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        max_frame_size: int | None = None,
        check_reserved: bool = True,
    ) -> None:
        self._shape = check_shape(timestamps, details, line_type, source)
        check_limits(max_lines, max_bytes, max_line_size)
        self._max_lines = max_lines
        self._max_bytes = max_bytes
        self._rows = _Rows()
        self._full: list[LineBatch] = []
        super().__init__(raw, timestamps, details, max_line_size, max_frame_size, check_reserved)

    def feed(self, data: Buffer, /) -> list[LineBatch]:
        """Take bytes off the wire and return the batches that they complete.

        Args:
            data: C-contiguous bytes-like object of any size. Read during the call, not kept.

        Returns:
            Batches that are full: the next line would be one too many, or too large.

        Raises:
            FramingError: the header at `exc.offset` is invalid. Batches of all lines before it, unfinished ones
                included, are in `exc.lines`; every later call raises the same.
            DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
            BufferError: data is not contiguous.
            MemoryError: there was none for the lines. They are lost; every later call raises RuntimeError.
            ValueError: feed_eof was called before.
        """
        return self._feed(data)

    def flush(self) -> list[LineBatch]:
        """Return what there is of completed lines, as a batch that is not full: for batches that shall not grow old.

        Returns:
            One batch, or none.

        Raises:
            ValueError, RuntimeError, FramingError, DaemonError: as `feed`.
        """
        with self._turn():
            self._check_open()
            return self._run(self._set_aside)

    def feed_eof(self) -> list[LineBatch]:
        """Say that the stream has ended, and return the last batch. Nothing can be fed afterwards.

        Raises:
            TruncatedStreamError: it ended inside a frame. The last batch is in `exc.lines`; every later call raises the
                same.
            DaemonError: it ended inside a systemerr frame; otherwise as TruncatedStreamError.
        """
        return self._feed_eof()

    def __arrow_c_schema__(self) -> object:
        """Return a PyCapsule of an ArrowSchema: a struct of the columns that batches have."""
        from ._arrow_py import schema_capsule

        return schema_capsule(self._shape)

    def _emit(self, stream: int, data: bytes, partial: bool) -> None:
        rows = self._rows
        if len(rows.lines) == self._max_lines or (rows.lines and rows.size + len(data) > self._max_bytes):
            self._set_aside()
            rows = self._rows
        line = self._unfinished[stream]
        rows.streams.append(stream)
        rows.timestamps.append(line.timestamp)
        rows.lines.append(data)
        rows.size += len(data)
        rows.details.append(line.details)
        rows.partials.append(partial)

    def _completed(self) -> list[Any]:
        if self._closed or self._fault is not None:
            self._set_aside()
        batches, self._full = self._full, []
        return batches

    def _set_aside(self) -> None:
        """Make a batch of the lines there are, if there are any."""
        if self._rows.lines:
            self._full.append(self._rows.batch(self._shape))
            self._rows = _Rows()


def export_stream(first: LineBatch | BatchBuilder, batches: Iterator[LineBatch], /) -> object:
    """Return a PyCapsule of an ArrowArrayStream over batches that have the same columns as the first, or the builder.

    What the iterator raises becomes an error of the stream, with its text.
    """
    from ._arrow_py import stream_capsule

    return stream_capsule(first._shape, batches)
