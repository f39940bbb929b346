"""Where lines go: files that rotate, JSON lines, Parquet, the logging module.

A sink has `write(source, line)`, `flush()` and `close()`; `source` is what `gather` gives, or any object whose `str` is
a name. What was flushed is where it belongs: then is the time to keep a checkpoint. Those here have `write_lines`, too,
for what `gathering.read()` gives: several times as fast.

Nothing is lost where writing fails (disk full, no permission): a `write` that raises OSError has not taken its line,
what was taken before is kept for the next attempt, and a file always ends with a whole line. How many of its lines a
`write_lines` that fails has taken, nobody knows.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import OrderedDict, deque
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from ..protocol import Stream
from .formats import json_line, text_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import Literal, Self

    from .._lines_py import Line

__all__ = ["Files", "JsonLines", "LineSink", "Logging", "Parquet", "Queued"]

#: Bytes that a file may wait for before they are written.
BUFFER_SIZE = 64 * 1024

#: Files that are open at the same time.
MAX_OPEN = 256


class LineSink(Protocol):
    """Where lines go."""

    def write(self, source: Any, line: Line, /) -> None:
        """Take a line of a source's."""

    def flush(self) -> None:
        """Write what is held back."""

    def close(self) -> None:
        """Flush, and let everything go."""


class _Sink:
    """What is the same in all of them."""

    def write(self, source: Any, line: Line, /) -> None:
        """Take a line of a source's."""
        raise NotImplementedError

    def write_lines(self, source: Any, lines: Sequence[Line], /) -> None:
        """Take lines of a source's."""
        for line in lines:
            self.write(source, line)


def _by_stream(lines: Sequence[Line]) -> Iterator[tuple[Stream, Sequence[Line]]]:
    for stream in Stream:
        if mine := [line for line in lines if line.stream is stream]:
            yield stream, mine


# --- files -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def file_name(name: str) -> str:
    """Return a container's name as the name of one file, whatever it holds: no separator, no leading dot."""
    quoted = re.sub(r"[^A-Za-z0-9_.-]", lambda found: "".join(f"%{byte:02X}" for byte in _encoded(found[0])), name)
    if not quoted or quoted[0] == "." or quoted.split(".")[0].upper() in _RESERVED:
        quoted = f"%{quoted}"
    if len(quoted) > MAX_NAME_SIZE:
        quoted = f"{quoted[: MAX_NAME_SIZE - 17]}~{sha256(_encoded(name)).hexdigest()[:16]}"
    return quoted


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


MAX_NAME_SIZE = 200

#: Names that Windows has given away.
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(f"{port}{i}" for port in ("COM", "LPT") for i in range(10))}


class Files(_Sink):
    """A file for each container and stream: DIRECTORY/NAME.stdout.log, and older ones behind it: .log.1, .log.2, ...

    Safe to share between threads. A directory belongs to one process.

    Args:
        directory: made if it is not there.
        format: what a line looks like: `text_line`, `json_line`, or any function of (source, line) that returns bytes.
        suffix: of the names: "log".
        max_size: bytes after which a file is rotated; None: never. A longer line has a file of its own.
        max_age: seconds after which it is; None: never.
        max_files: how many files of a stream are kept, the one that is written to included.

    Raises:
        OSError: by write, flush and close. A write that raises has not taken its line.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        format: Callable[[Any, Line], bytes] = text_line,
        suffix: str = "log",
        max_size: int | None = 10 * 1024 * 1024,
        max_age: float | None = None,
        max_files: int = 5,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if max_files < 1 or (max_size is not None and max_size < 1):
            raise ValueError("max_files and max_size must be positive")
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._format = format
        self._suffix = suffix
        self._limits = _Limits(max_size, max_age, max_files, clock)
        self._files: OrderedDict[str, _File] = OrderedDict()  # the one written to last, last
        self._lock = threading.Lock()

    def write(self, source: Any, line: Line, /) -> None:
        with self._lock:
            self._file(source, line.stream).write(self._format(source, line))

    def write_lines(self, source: Any, lines: Sequence[Line], /) -> None:
        with self._lock:
            for stream, mine in _by_stream(lines):
                self._file(source, stream).write_all([self._format(source, line) for line in mine])

    def _file(self, source: Any, stream: Stream) -> _File:
        name = f"{file_name(str(source))}.{stream.name.lower()}"
        if name not in self._files:
            if len(self._files) >= MAX_OPEN:
                self._close_one()
            self._files[name] = _File(self._directory / f"{name}.{self._suffix}", self._limits)
        self._files.move_to_end(name)
        return self._files[name]

    def _close_one(self) -> None:
        """Close the file that has been written to least lately."""
        name, file = next(iter(self._files.items()))
        file.close()
        del self._files[name]

    def flush(self) -> None:
        with self._lock:
            for file in self._files.values():
                file.flush()

    def close(self) -> None:
        with self._lock:
            while self._files:
                self._close_one()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Limits:
    def __init__(self, size: int | None, age: float | None, count: int, clock: Callable[[], float]) -> None:
        self.size = size
        self.age = age
        self.count = count
        self.clock = clock


class _File:
    """A file that is appended to, and rotated."""

    def __init__(self, path: Path, limits: _Limits) -> None:
        self._path = path
        self._limits = limits
        self._waiting = bytearray()
        self._descriptor: int | None = None
        self._size = 0  # on disk
        self._began = 0.0

    def write(self, data: bytes) -> None:
        if len(self._waiting) >= BUFFER_SIZE:
            self.flush()
        if self._is_old() or (self._total and not self._has_room(len(data))):
            self.flush()
            self._rotate()
        self._waiting += data

    def write_all(self, pieces: list[bytes]) -> None:
        """Write pieces that no rotation may cut: one by one only where it comes to that."""
        data = b"".join(pieces)
        if self._has_room(len(data)):
            pieces = [data]
        for piece in pieces:
            self.write(piece)

    def _has_room(self, size: int) -> bool:
        return self._limits.size is None or self._total + size <= self._limits.size

    @property
    def _total(self) -> int:
        if self._descriptor is None:
            self._open()
        return self._size + len(self._waiting)

    def _is_old(self) -> bool:
        age = self._limits.age
        return age is not None and bool(self._total) and self._limits.clock() - self._began >= age

    def _open(self) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        for name in ("O_CLOEXEC", "O_NOFOLLOW", "O_BINARY"):
            flags |= getattr(os, name, 0)
        self._descriptor = os.open(self._path, flags, 0o640)
        self._size = os.fstat(self._descriptor).st_size
        self._began = os.fstat(self._descriptor).st_mtime if self._size else self._limits.clock()

    def flush(self) -> None:
        """Write what waits, whole; what cannot be written waits on."""
        if not self._waiting:
            return
        if self._descriptor is None:
            self._open()
        assert self._descriptor is not None
        done = 0
        try:
            with memoryview(self._waiting) as view:
                while done < len(view):
                    done += os.write(self._descriptor, view[done:])
        except OSError:
            self._take_back(done)
            raise
        self._size += done
        self._waiting.clear()

    def _take_back(self, done: int) -> None:
        """Undo a write that was cut short, so that the file ends where it did; if that fails, too, the rest goes on."""
        assert self._descriptor is not None
        if not done:
            return
        try:
            os.ftruncate(self._descriptor, self._size)
        except OSError:
            self._size += done
            del self._waiting[:done]

    def _rotate(self) -> None:
        """Make room: the file becomes .1, .1 becomes .2, and the last one goes."""
        self.close()
        if self._limits.count == 1:
            self._path.unlink(missing_ok=True)
        for number in range(self._limits.count - 1, 0, -1):
            older = self._numbered(number - 1)
            if older.exists():
                older.replace(self._numbered(number))
        self._open()

    def _numbered(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}") if number else self._path

    def close(self) -> None:
        self.flush()
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class JsonLines(_Sink):
    """Every line as a JSON object in a line of its own, to a binary file object: `json_line` says what is in it.

    Safe to share between threads. The file object is the caller's to close.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._lock = threading.Lock()

    def write(self, source: Any, line: Line, /) -> None:
        with self._lock:
            self._file.write(json_line(source, line))

    def write_lines(self, source: Any, lines: Sequence[Line], /) -> None:
        data = b"".join([json_line(source, line) for line in lines])
        with self._lock:
            self._file.write(data)

    def flush(self) -> None:
        with self._lock:
            self._file.flush()

    def close(self) -> None:
        self.flush()


# --- Parquet ---------------------------------------------------------------------------------------------------------


class Parquet(_Sink):
    """Columns in Parquet files: DIRECTORY/lines-TIME-NUMBER.parquet, the columns of `muxframe.batches`. Needs pyarrow.

    All have all columns, whether the log has details or not. A file appears under its name when it is whole. Safe to
    share between threads.

    Args:
        directory: made if it is not there.
        max_rows: rows of a file.
        max_bytes: bytes of its lines, before compression.
        max_age: seconds after which a file is finished by the next `write`; None: never.
        compression: as pyarrow has it.

    Raises:
        OSError: by write, flush and close. A write that raises has not taken its line.
    """

    def __init__(
        self,
        directory: str | os.PathLike[str],
        *,
        max_rows: int = 1_000_000,
        max_bytes: int = 64 * 1024 * 1024,
        max_age: float | None = None,
        compression: str = "zstd",
        clock: Callable[[], float] = time.time,
    ) -> None:
        try:
            import pyarrow
            import pyarrow.parquet
        except ImportError as error:
            raise ImportError("Parquet needs pyarrow: install muxframe[parquet]") from error
        self._arrow = pyarrow
        self._directory = Path(directory)
        self._directory.mkdir(parents=True, exist_ok=True)
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._compression = compression
        self._clock = clock
        self._number = 0
        self._lock = threading.Lock()
        self._schema = pyarrow.schema(
            [
                ("stream", pyarrow.int8()),
                ("timestamp", pyarrow.timestamp("ns", "UTC")),
                ("line", pyarrow.large_binary()),
                ("source", pyarrow.dictionary(pyarrow.int32(), pyarrow.string())),
                ("attrs", pyarrow.large_string()),
                ("partial", pyarrow.bool_()),
            ]
        )
        self._clear()

    def _clear(self) -> None:
        self._began = 0.0
        self._rows = 0
        self._size = 0
        self._columns: dict[str, list[Any]] = {field.name: [] for field in self._schema}
        self._names: dict[str, int] = {}  # of sources, in the order of the dictionary

    def write(self, source: Any, line: Line, /) -> None:
        self.write_lines(source, (line,))

    def write_lines(self, source: Any, lines: Sequence[Line], /) -> None:
        with self._lock:
            while lines:
                is_old = self._max_age is not None and self._clock() - self._began >= self._max_age
                if is_old or self._rows >= self._max_rows or self._size >= self._max_bytes:
                    self._write_file()
                room = self._max_rows - self._rows
                self._append(_valid(str(source)), lines[:room])
                lines = lines[room:]

    def _append(self, name: str, lines: Sequence[Line]) -> None:
        if not self._rows:
            self._began = self._clock()
        data = [line.data for line in lines]
        self._rows += len(data)
        self._size += sum(map(len, data))
        columns = self._columns
        columns["stream"] += [line.stream for line in lines]
        columns["timestamp"] += [line.timestamp for line in lines]
        columns["line"] += data
        columns["source"] += [self._names.setdefault(name, len(self._names))] * len(data)
        details = [line.details for line in lines]
        columns["attrs"] += [None if each is None else str(each, "utf-8", "replace") for each in details]
        columns["partial"] += [line.partial for line in lines]

    def flush(self) -> None:
        with self._lock:
            self._write_file()

    def close(self) -> None:
        self.flush()

    def _write_file(self) -> None:
        if not self._rows:
            return
        arrays = [self._array(field) for field in self._schema]
        table = self._arrow.Table.from_arrays(arrays, schema=self._schema)
        moment = f"{datetime.fromtimestamp(self._began, UTC):%Y%m%dT%H%M%S}"
        name = f"lines-{moment}-{os.getpid()}-{self._number:06d}.parquet"
        unfinished = self._directory / f".{name}.part"
        try:
            self._arrow.parquet.write_table(table, unfinished, compression=self._compression)
            unfinished.replace(self._directory / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        self._number += 1
        self._clear()

    def _array(self, field: Any) -> Any:
        column = self._columns[field.name]
        if field.name != "source":
            return self._arrow.array(column, field.type)
        names = self._arrow.array(list(self._names), field.type.value_type)
        return self._arrow.DictionaryArray.from_arrays(self._arrow.array(column, field.type.index_type), names)


def _valid(name: str) -> str:
    """Return a name as UTF-8 can hold it."""
    return name.encode("utf-8", "replace").decode()


# --- logging ---------------------------------------------------------------------------------------------------------


class Logging(_Sink):
    """Lines as records of the logging module, with the time at which they were written.

    Records have `container` and `stream`, for formatters and filters.

    Args:
        logger: a Logger, or its name.
        stdout, stderr: levels.
    """

    def __init__(
        self,
        logger: logging.Logger | str = "muxframe.lines",
        *,
        stdout: int = logging.INFO,
        stderr: int = logging.WARNING,
    ) -> None:
        self._logger = logging.getLogger(logger) if isinstance(logger, str) else logger
        self._levels = {Stream.STDOUT: stdout, Stream.STDERR: stderr}

    def write(self, source: Any, line: Line, /) -> None:
        level = self._levels.get(line.stream, logging.INFO)
        if not self._logger.isEnabledFor(level):
            return
        extra = {"container": str(source), "stream": line.stream.name.lower()}
        record = self._logger.makeRecord(self._logger.name, level, "", 0, line.text, (), None, extra=extra)
        if line.timestamp is not None:
            record.created = line.timestamp / 1e9
            record.msecs = line.timestamp // 10**6 % 1000
        self._logger.handle(record)

    def flush(self) -> None:
        """Do nothing: handlers decide."""

    def close(self) -> None:
        """Do nothing."""


# --- a sink of its own speed -----------------------------------------------------------------------------------------


class Queued(_Sink):
    """A sink that is written to by a thread of its own, so that it holds nobody up.

    Args:
        sink: where the lines go: a sink, or a function of (source, line).
        max_bytes: of lines that wait for it.
        full: what happens to a line there is no room for: "drop" counts and forgets it; "wait" holds the caller up.

    Attributes:
        dropped: how many lines were dropped.

    Raises:
        Exception: by write, flush and close: what the sink has raised. Lines behind the one that failed are kept;
            writing goes on with them.
    """

    def __init__(self, sink: Any, *, max_bytes: int = 64 * 1024 * 1024, full: Literal["drop", "wait"] = "drop") -> None:
        if full not in ("drop", "wait"):
            raise ValueError(f'full must be "drop" or "wait", not {full!r}')
        self.dropped: int = 0
        self._sink = sink
        self._write = sink.write if hasattr(sink, "write") else sink
        self._full = full
        self._room = max_bytes
        self._lines: deque[tuple[Any, Line]] = deque()
        self._is_busy = False
        self._is_closed = False
        self._error: BaseException | None = None
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="muxframe.Queued", daemon=True)
        self._thread.start()

    def write(self, source: Any, line: Line, /) -> None:
        size = _size(line)
        with self._changed:
            self._check()
            if self._is_closed:
                raise ValueError("the sink is closed")
            if self._room < size and self._lines:
                if self._full == "drop":
                    self.dropped += 1
                    return
                self._changed.wait_for(lambda: self._room >= size or not self._lines or self._error is not None)
                self._check()
            self._room -= size
            self._lines.append((source, line))
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._lines or self._is_closed)
                if not self._lines:
                    return
                source, line = self._lines.popleft()
                self._room += _size(line)
                self._is_busy = True
            try:
                self._write(source, line)
            except Exception as error:
                self._error = error
            finally:
                with self._changed:
                    self._is_busy = False
                    self._changed.notify_all()

    def flush(self) -> None:
        """Wait until all lines are written, then flush the sink."""
        with self._changed:
            self._changed.wait_for(lambda: not self._lines and not self._is_busy)
            self._check()
        getattr(self._sink, "flush", _nothing)()

    def close(self) -> None:
        """Write what waits, and close the sink."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        self._thread.join()
        getattr(self._sink, "close", _nothing)()
        self._check()

    def _check(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error


def _size(line: Line) -> int:
    return len(line.data) + 200  # the object's own


def _nothing() -> None:
    pass
