"""asyncio: the same frames and copies, from sockets, pipes, StreamReaders and asynchronous iterables.

A socket or pipe is received straight into the Demuxer's buffer (asyncio.BufferedProtocol) and paused while more than
HIGH_WATER bytes wait to be taken, so that a slow reader is backpressure and memory stays flat. Readers are objects, not
generators: a read that is cancelled has taken nothing, and the next one goes on.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import socket
import sys
import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar, cast

from ._batches import BatchBuilder, LineBatch
from ._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from ._framing import Demuxer, Frame, FrameReader
from ._framing_py import RECEIVE_BUFFER_SIZE, again, check_truncated, readable
from ._lines import Line, LineSplitter
from ._lines_py import DEFAULT_MAX_LINE_SIZE
from .batches import Age
from .errors import DaemonError, FramingError, SinkError, TruncatedStreamError
from .protocol import DEFAULT_MAX_FRAME_SIZE, HEADER_SIZE, Chunk, Copied, Stream, Truncated
from .sinks import clear, open_sink

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, Sequence
    from typing import Self, Union

    from typing_extensions import Buffer

    from ._batches_py import LineType
    from .engine.aio import Engine, Session, attach, connect, exec, follow, gather, logs
    from .ingest.waiting import wait_for_async as wait_for
    from .sinks import AnySink, Sink

    #: Connected stream socket, file object of a pipe, asyncio.StreamReader, or asynchronous iterable of bytes-like
    #: objects.
    AnyAsyncSource = Union[socket.socket, asyncio.StreamReader, AsyncIterable[Buffer], Any]

__all__ = [
    "HIGH_WATER",
    "BatchIterator",
    "ChunkReader",
    "Engine",
    "FrameIterator",
    "LineIterator",
    "Session",
    "attach",
    "batches",
    "chunks",
    "connect",
    "copy",
    "exec",
    "follow",
    "frames",
    "gather",
    "lines",
    "logs",
    "wait_for",
]

#: Bytes of frames that wait to be taken before receiving pauses. One receive may go beyond it.
HIGH_WATER = 256 * 1024

T = TypeVar("T", Chunk, Frame, Line, LineBatch)

_ENGINE = ("Engine", "Session", "attach", "connect", "exec", "follow", "gather", "logs")


if not TYPE_CHECKING:  # a type checker would let any misspelt name pass

    def __getattr__(name: str) -> Any:
        """Import the attach wrapper, and h11 with it, when it is first asked for."""
        if name == "wait_for":
            from .ingest.waiting import wait_for_async

            return wait_for_async
        if name not in _ENGINE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from .engine import aio as engine

        return getattr(engine, name)


class Reader(asyncio.BufferedProtocol, Generic[T]):
    """What has been decoded and waits to be taken; where it comes from; how it ended."""

    def __init__(self, source: AnyAsyncSource, truncated: Truncated) -> None:
        check_truncated(truncated)
        if not any(hasattr(source, name) for name in ("__aiter__", "fileno", "start_reading")):
            raise TypeError(f"cannot read a multiplexed stream asynchronously from {type(source).__name__}")
        self._source = source
        self._is_truncated_ignored = truncated == "ignore"
        self._waiting: deque[T] = deque()
        self._size = 0  # of what is in _waiting
        self._fault: BaseException | None = None
        self._is_over = False
        self._transport: Any = None
        self._connecting: asyncio.Task[None] | None = None
        self._is_paused = False
        self._wakeup: asyncio.Future[None] | None = None
        self._buffer = ReceiveBuffer()
        self.timeout: float | None = None

    # What the decoder below does with wire bytes.

    def _decode(self, data: memoryview) -> list[T]:
        raise NotImplementedError

    def _decode_eof(self) -> None:
        raise NotImplementedError

    # The reader's side.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        while not self._waiting:
            await self._more()
        item = self._waiting.popleft()
        self._taken(_size_of(item))
        return item

    async def read(self) -> list[T]:
        """Return everything that waits to be taken, waiting for at least one; nothing at the end.

        Raises:
            FramingError, DaemonError, OSError: as iteration does.
        """
        while not self._waiting:
            try:
                await self._more()
            except StopAsyncIteration:
                return []
        items = list(self._waiting)
        self._waiting.clear()
        self._taken(self._size)
        return items

    def put_back(self, items: list[T]) -> None:
        """Give back what was taken, to be taken again first."""
        self._waiting.extendleft(reversed(items))
        self._size += sum(map(_size_of, items))

    def close(self) -> None:
        """Close the connection, if this reader has made it. What waits can still be taken; then iteration ends."""
        if self._transport is not None:
            self._transport.close()
        self._end(None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    async def _more(self) -> None:
        """Wait until something was decoded; raise how it ended."""
        if self._fault is not None:
            fault = self._fault
            if isinstance(fault, (FramingError, DaemonError)):
                self._fault = again(fault)  # what it carries is delivered once
            raise fault
        if self._is_over:
            raise StopAsyncIteration
        if hasattr(self._source, "__aiter__"):
            await self._pull()
            return
        if self._transport is None:
            await self._connect()
        if not self._waiting and self._fault is None and not self._is_over:
            if self._wakeup is not None:
                raise RuntimeError("another task reads this already")
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.timeout):
                    await self._wakeup
            except TimeoutError:
                raise TimeoutError("timed out") from None
            finally:
                self._wakeup = None

    async def _pull(self) -> None:
        """Take one piece from a StreamReader or an asynchronous iterable."""
        if isinstance(self._source, asyncio.StreamReader):
            data = await self._source.read(RECEIVE_BUFFER_SIZE)
            if not data:
                self.eof_received()
                return
        else:
            if not hasattr(self, "_iterator"):
                self._iterator = aiter(cast("AsyncIterable[Buffer]", self._source))
            try:
                data = await self._iterator.__anext__()  # type: ignore[assignment]
            except StopAsyncIteration:
                self.eof_received()
                return
        self.data_received(data)

    async def _connect(self) -> None:
        if hasattr(self._source, "start_reading"):  # a stream of an engine's
            self._source.start_reading(self)
            return
        if self._connecting is None:
            self._connecting = asyncio.get_running_loop().create_task(self._open())
        try:
            await asyncio.shield(self._connecting)  # cancelled, it would close the transport: an end, to whom reads on
        except Exception:
            self._connecting = None
            raise

    async def _open(self) -> None:
        """Become the protocol of a transport."""
        loop = asyncio.get_running_loop()
        if not isinstance(self._source, socket.socket):
            await loop.connect_read_pipe(lambda: _Unbuffered(self), self._source)
        elif self._source.family == getattr(socket, "AF_UNIX", None):
            await loop.create_unix_connection(lambda: self, sock=self._source)
        else:
            await loop.create_connection(lambda: self, sock=self._source)
        if self._is_over:  # closed meanwhile
            self._transport.close()

    def _taken(self, size: int) -> None:
        self._size -= size
        if self._is_paused and self._size <= HIGH_WATER // 2:
            self._is_paused = False
            self._transport.resume_reading()

    # The transport's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer.view()

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(self._buffer.view()[:nbytes])

    def data_received(self, data: Buffer) -> None:
        """Take wire bytes from a transport that knows no buffers."""
        try:
            self._add(self._decode(readable(data)))
        except (FramingError, DaemonError) as fault:
            self._fail(fault)

    def eof_received(self) -> bool:
        try:
            self._decode_eof()
        except TruncatedStreamError as fault:
            if not self._is_truncated_ignored:
                self._fail(fault)
        except (FramingError, DaemonError) as fault:
            self._fail(fault)
        self._end(None)
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None and not self._is_over:
            self.eof_received()
        self._end(exc)

    def _add(self, items: list[T]) -> None:
        self._waiting += items
        self._size += sum(map(_size_of, items))
        if self._size > HIGH_WATER and self._transport is not None and not self._is_paused:
            self._is_paused = True
            self._transport.pause_reading()
        if items:
            self._wake()

    def _fail(self, fault: FramingError | DaemonError) -> None:
        """Deliver what was decoded before the fault, then the fault."""
        before: Any = fault.chunks if isinstance(self, ChunkReader) else []
        self._add(before)
        if before:
            fault.chunks = []
        self._fault = fault
        self._wake()
        if self._transport is not None:
            self._transport.close()

    def _end(self, error: Exception | None) -> None:
        if not self._is_over and error is not None and self._fault is None:
            self._fault = error
        self._is_over = True
        self._wake()

    def _wake(self) -> None:
        if self._wakeup is not None and not self._wakeup.done():
            self._wakeup.set_result(None)


def _size_of(item: Chunk | Frame | Line | LineBatch) -> int:
    """Return what an item counts: empty frames and lines count, too, or any number of them could wait."""
    if isinstance(item, tuple):
        return len(item[1]) + HEADER_SIZE
    if isinstance(item, Frame):
        return len(item) + HEADER_SIZE
    return len(item.data) + HEADER_SIZE if isinstance(item, Line) else HIGH_WATER  # one batch waits at a time


class ReceiveBuffer:
    """Where a transport puts what it receives, to be taken before it receives again.

    Most event loops ask for memory when there is something to read, and say at once how much they have read: then all
    connections of a thread share one buffer. Windows' asks early, and each connection needs its own.
    """

    __slots__ = ("_own",)

    _shared = threading.local()

    def __init__(self) -> None:
        self._own: memoryview | None = None

    def view(self) -> memoryview:
        """Return the buffer: the same memory each time, in one thread."""
        holder: Any = self if sys.platform == "win32" else self._shared
        buffer: memoryview | None = getattr(holder, "_own", None)
        if buffer is None:
            buffer = holder._own = memoryview(bytearray(RECEIVE_BUFFER_SIZE))
        return buffer


class _Unbuffered(asyncio.Protocol):
    """What a pipe's transport, which knows no buffers, talks to."""

    def __init__(self, reader: Reader[Any]) -> None:
        self.connection_made = reader.connection_made  # type: ignore[method-assign]
        self.data_received = reader.data_received  # type: ignore[method-assign]
        self.eof_received = reader.eof_received  # type: ignore[method-assign]
        self.connection_lost = reader.connection_lost  # type: ignore[method-assign]


class ChunkReader(Reader[Chunk]):
    """Iterate over (stream, payload) chunks as they come: what `chunks` returns.

    `await reader.read()` takes all that wait at once. `close()` (or `async with`) closes a connection early.
    """

    def __init__(self, source: AnyAsyncSource, demuxer: Demuxer, truncated: Truncated) -> None:
        super().__init__(source, truncated)
        self._demuxer = demuxer

    def _decode(self, data: memoryview) -> list[Chunk]:
        return self._demuxer.feed(data)

    def _decode_eof(self) -> None:
        self._demuxer.feed_eof()


class FrameIterator(Reader[Frame]):
    """Iterate over whole frames: what `frames` returns. Otherwise as ChunkReader."""

    def __init__(self, source: AnyAsyncSource, max_frame_size: int | None, check_reserved: bool, truncated: Truncated):
        super().__init__(source, truncated)
        self._wire = memoryview(b"")
        self._has_ended = False
        self._reader = FrameReader(self._readinto, max_frame_size=max_frame_size, check_reserved=check_reserved)

    def _readinto(self, buffer: memoryview) -> int:
        """Give the FrameReader what has arrived, and stop it where that is used up."""
        size = min(len(buffer), len(self._wire))
        if not size and not self._has_ended:
            raise BlockingIOError
        buffer[:size] = self._wire[:size]
        self._wire = self._wire[size:]
        return size

    def _decode(self, data: memoryview) -> list[Frame]:
        self._wire = data
        whole: list[Frame] = []
        try:
            whole.extend(self._reader)
        except BlockingIOError:
            pass
        except (FramingError, DaemonError):
            self._add(whole)
            raise
        return whole

    def _decode_eof(self) -> None:
        self._has_ended = True
        self._add(self._decode(memoryview(b"")))


class _SplitReader(Reader[T]):
    """What a LineSplitter or BatchBuilder makes of the wire."""

    def __init__(self, source: AnyAsyncSource, splitter: Any, truncated: Truncated) -> None:
        super().__init__(source, truncated)
        self._splitter = splitter
        self._is_split = False  # to the end, or to a fault

    def _decode(self, data: memoryview) -> list[T]:
        try:
            decoded: list[T] = self._splitter.feed(data)
            return decoded
        except (FramingError, DaemonError) as fault:
            self._is_split = True
            self._add(fault.lines)
            raise

    def flush(self) -> list[T]:
        """Return all that has come: after a TimeoutError, say. Of lines unfinished ones, too: a prompt.

        Of lines the rest of each piece follows; batches are not full.
        """
        items = list(self._waiting)
        self._waiting.clear()
        self._taken(self._size)
        return items if self._is_split else items + self._splitter.flush()

    def _end(self, error: Exception | None) -> None:
        if error is not None and not self._is_over and not self._is_split:
            self._add(self._splitter.flush())  # everything before comes first
        super()._end(error)

    def _decode_eof(self) -> None:
        self._is_split = True
        try:
            self._add(self._splitter.feed_eof())
        except (FramingError, DaemonError) as fault:
            self._add(fault.lines)
            raise


class LineIterator(_SplitReader[Line]):
    """Iterate over lines: what `lines` returns. Otherwise as ChunkReader."""


class BatchIterator(_SplitReader[LineBatch]):
    """Iterate over columnar batches: what `batches` returns. Otherwise as ChunkReader."""

    def __init__(self, source: AnyAsyncSource, builder: BatchBuilder, truncated: Truncated, age: Age) -> None:
        super().__init__(source, builder, truncated)
        self._age = age

    def _decode(self, data: memoryview) -> list[LineBatch]:
        return self._age.ripe(self._splitter, super()._decode(data))

    def flush(self) -> list[LineBatch]:
        self._age.restart()
        return super().flush()


def chunks(
    source: AnyAsyncSource,
    /,
    *,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
    demuxer: Demuxer | None = None,
) -> ChunkReader:
    """Iterate asynchronously over the payload of a stream as it comes.

    Args:
        source: connected stream socket or file object of a pipe (which the reader then owns and closes), an
            asyncio.StreamReader, or an asynchronous iterable of bytes-like objects.
        max_frame_size, check_reserved: as for Demuxer.
        truncated: what an end inside a frame is: "error" raises, "ignore" ends.
        demuxer: a Demuxer to go on with; its own settings hold.

    Returns:
        An asynchronous iterator of (stream, payload) chunks.

    Raises:
        FramingError, DaemonError: by iteration, after everything before the fault; every later one raises the same.
        OSError: by iteration: the connection was lost, after everything before.
        TypeError: source is none.
    """
    if demuxer is None:
        demuxer = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
    return ChunkReader(source, demuxer, truncated)


def frames(
    source: AnyAsyncSource,
    /,
    *,
    max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> FrameIterator:
    """Iterate asynchronously over the whole frames of a stream.

    Args:
        source: as for `chunks`.
        max_frame_size: largest payload, in bytes; a frame is held in memory whole. None allows 4 GiB - 1.
        check_reserved: as for Demuxer.
        truncated: what an end inside a frame is: "error" raises, "ignore" drops the unfinished frame.

    Returns:
        An asynchronous iterator of Frame.

    Raises:
        FramingError, DaemonError, OSError, TypeError: as `chunks` does.
    """
    return FrameIterator(source, max_frame_size, check_reserved, truncated)


def lines(
    source: AnyAsyncSource,
    /,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> LineIterator:
    """Iterate asynchronously over the lines of a stream.

    Args:
        source: as for `chunks`.
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved, truncated: as for `muxframe.lines`.

    Returns:
        An asynchronous iterator of Line.

    Raises:
        FramingError, DaemonError, OSError, TypeError: as `chunks` does.
    """
    splitter = LineSplitter(
        raw=raw,
        timestamps=timestamps,
        details=details,
        max_line_size=max_line_size,
        max_frame_size=max_frame_size,
        check_reserved=check_reserved,
    )
    return LineIterator(source, splitter, truncated)


def batches(
    source: AnyAsyncSource,
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
) -> BatchIterator:
    """Iterate asynchronously over the lines of a stream in columnar batches.

    Args:
        source: as for `chunks`.
        raw, timestamps, details, line_type, source_name: as for `muxframe.batches`.
        max_lines, max_bytes, max_age, max_line_size, max_frame_size, check_reserved, truncated: likewise.

    Returns:
        An asynchronous iterator of LineBatch.

    Raises:
        FramingError, DaemonError, OSError, TypeError: as `chunks` does.
    """
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
    return BatchIterator(source, builder, truncated, Age(max_age))


async def copy(
    source: AnyAsyncSource,
    stdout: AnySink | asyncio.StreamWriter,
    stderr: AnySink | asyncio.StreamWriter = None,
    /,
    *,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
    demuxer: Demuxer | None = None,
) -> Copied:
    """Copy the payload of a stream to two sinks, in wire order.

    Args:
        source: as for `chunks`.
        stdout: where streams 0 and 1 go: an asyncio.StreamWriter (which is drained), a callable (gets bytes; what it
            returns is awaited where it can be), or any sink of `muxframe.copy`, which is written to while the loop
            waits: memory and files on a disk, not what may block.
        stderr: where stream 2 goes.
        max_frame_size, check_reserved, truncated, demuxer: as for `chunks`.

    Returns:
        Payload bytes of each stream and whole frames.

    Raises:
        FramingError, DaemonError, SinkError, OSError: as `muxframe.copy` does.
    """
    if demuxer is None:
        demuxer = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
    async with ChunkReader(source, demuxer, truncated) as reader:
        return await copy_from(reader, demuxer, stdout, stderr)


async def copy_from(
    reader: ChunkReader,
    demuxer: Demuxer,
    stdout: AnySink | asyncio.StreamWriter,
    stderr: AnySink | asyncio.StreamWriter,
) -> Copied:
    """Copy what a reader, which decodes with demuxer, still gives, as `copy` does."""
    before = demuxer.frames
    sizes = [0, 0]
    outputs = [_open(stdout, "stdout")]
    outputs.append(outputs[0] if stderr is stdout and stderr is not None else _open(stderr, "stderr"))

    def copied() -> Copied:
        return Copied(sizes[0], sizes[1], demuxer.frames - before)

    try:
        while batch := await reader.read():
            runs = _runs(batch)
            for i, (target, payload) in enumerate(runs):
                try:
                    await outputs[target].write(payload)
                except Exception as error:
                    _refuse(target, error, copied(), runs[i:], outputs[target])
                except BaseException:  # cancelled: the sink has this one, the others are still to be delivered
                    reader.put_back([((Stream.STDOUT, Stream.STDERR)[to], data) for to, data in runs[i + 1 :]])
                    raise
                sizes[target] += len(payload)
    except (FramingError, DaemonError) as fault:
        fault.delivered = copied()
        raise
    finally:
        for output in outputs:
            output.close()
    return copied()


def _runs(batch: list[Chunk]) -> list[tuple[int, bytes]]:
    """Join neighbours that go to the same output (0 or 1)."""
    joined: list[tuple[int, list[bytes]]] = []
    for stream, payload in batch:
        if joined and joined[-1][0] == stream >> 1:
            joined[-1][1].append(payload)
        else:
            joined.append((stream >> 1, [payload]))
    return [(target, parts[0] if len(parts) == 1 else b"".join(parts)) for target, parts in joined]


def _refuse(
    target: int, error: Exception, copied: Copied, runs: Sequence[tuple[int, bytes]], output: _Output
) -> NoReturn:
    (_, payload), *rest = runs
    taken = output.taken_of_failed
    left = [(target, payload[taken:]), *rest]
    sizes = [copied.stdout_size, copied.stderr_size]
    sizes[target] += taken
    undelivered = [((Stream.STDOUT, Stream.STDERR)[i], data) for i, data in left if data]
    delivered = Copied(sizes[0], sizes[1], copied.frames)
    raise SinkError(("stdout", "stderr")[target], delivered, undelivered, error) from error


class _Output:
    """Where one stream goes."""

    taken_of_failed = 0  #: bytes of the write that failed which were taken all the same

    async def write(self, payload: bytes) -> None:
        raise NotImplementedError

    def close(self) -> None:
        """Close what was opened here."""


class _Drained(_Output):
    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def write(self, payload: bytes) -> None:
        self._writer.write(payload)
        await self._writer.drain()


class _Called(_Output):
    def __init__(self, target: Any) -> None:
        self._target = target

    async def write(self, payload: bytes) -> None:
        result = self._target(payload)
        if inspect.isawaitable(result):
            await result


class _Written(_Output):
    def __init__(self, sink: Sink) -> None:
        self._sink = sink

    async def write(self, payload: bytes) -> None:
        size = self._sink.size
        try:
            self._sink.write(memoryview(payload))
            self._sink.flush()
        except Exception:
            self.taken_of_failed = self._sink.size - size
            raise

    def close(self) -> None:
        self._sink.close()


def _open(sink: Any, name: str) -> _Output:
    if isinstance(sink, asyncio.StreamWriter):
        return _Drained(sink)
    if callable(sink) and not hasattr(sink, "write") and not isinstance(sink, (str, os.PathLike)):
        return _Called(sink)
    opened = open_sink(sink, name)
    clear(opened)
    return _Written(opened)
