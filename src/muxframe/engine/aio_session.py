"""The asyncio shell's `Session`."""

from __future__ import annotations

import asyncio
import warnings
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .. import aio
from .._batches import LineBatch
from .._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from .._framing import Demuxer, Frame
from .._framing_py import readable
from .._lines import Line, LineSplitter
from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..errors import ConnectionLostError, DaemonError, FramingError, MuxframeError
from ..protocol import Chunk, Copied, Demuxed, Stream, Truncated
from .aio_link import Link
from .base import SessionBase
from .dial import check_timeout

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from typing import Self

    from typing_extensions import Buffer

    from .._batches_py import LineType
    from ..sinks import AnySink
    from .aio import Opener
    from .calls import Opened

__all__ = ["Session"]

C = TypeVar("C", Chunk, Frame, Line, LineBatch)
S = TypeVar("S", Line, LineBatch)
R = TypeVar("R", bound="aio.Reader[Any]")
T = TypeVar("T")


class Session(SessionBase):
    """One stream of an engine's, as the blocking Session. An asynchronous context manager.

    Read it in one way: as whole frames (`async for frame in session`), as `lines`, as payload as it comes (`chunks`,
    `copy_to`, `read_all`, which can follow one another), or as the `wire` itself. One task may read while another
    writes. Who does not read holds the container up. A read that is cancelled, or times out, has taken nothing.

    Attributes:
        tty, stream_type, exit_code: see SessionBase.
    """

    def __init__(self, engine: Opener, opened: Opened, max_frame_size: int | None, truncated: Truncated) -> None:
        super().__init__(opened)
        self._engine = engine
        self._loop = asyncio.get_running_loop()
        self._link: Link = opened.link
        self._link.has_stdin = opened.has_stdin
        self._demuxer = Demuxer(raw=opened.is_raw)
        self._max_frame_size = max_frame_size
        self._truncated = truncated
        self._collected: list[Chunk] = []  # by read_all, if it was interrupted
        self._is_closed = False
        self._line_iterator: aio.LineIterator | None = None
        self._timeout: float | None = None
        self._ending: asyncio.Task[None] | None = None  # learns the exit code once the output has ended

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    # Reading.

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Frame:
        """Return the next whole frame; of a raw stream the next piece, as it came.

        Raises:
            FramingError, DaemonError, ConnectionLostError, TimeoutError, RuntimeError: as the blocking Session.
        """
        self._choose("frames")
        if self._opened.is_raw:
            return Frame(*await self._next(self._chunk_reader))
        return await self._next(self._frame_iterator)

    def chunks(self) -> AsyncIterator[Chunk]:
        """Iterate over the payload as it comes: (stream, bytes)."""
        self._choose("payload")
        return _Items(self, self._chunk_reader)

    def lines(self, *, max_line_size: int = DEFAULT_MAX_LINE_SIZE) -> SplitItems[Line]:
        """Iterate over the lines of the output: as the blocking Session."""
        self._choose("lines")
        if self._line_iterator is None:
            splitter = LineSplitter(**self.line_options, max_line_size=max_line_size)
            self._line_iterator = aio.LineIterator(self._link, splitter, self._truncated)
        return SplitItems(self, self._line_iterator)

    def batches(
        self,
        *,
        line_type: LineType = "large_binary",
        source_name: str | None = None,
        max_lines: int = DEFAULT_MAX_LINES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age: float | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> SplitItems[LineBatch]:
        """Iterate over the lines of the output in columnar batches: as the blocking Session. To be called once."""
        self._choose("batches")
        iterator = aio.batches(
            self._link,
            **self.line_options,
            line_type=line_type,
            source_name=source_name,
            max_lines=max_lines,
            max_bytes=max_bytes,
            max_age=max_age,
            max_line_size=max_line_size,
            truncated=self._truncated,
        )
        return SplitItems(self, iterator)

    def wire(self) -> AsyncIterator[bytes]:
        """Iterate over the stream as it came, frames and all: as the blocking Session."""
        self._choose("wire")
        return _Wire(self, self._wire_reader)

    async def copy_to(
        self, stdout: AnySink | asyncio.StreamWriter, stderr: AnySink | asyncio.StreamWriter = None, /
    ) -> Copied:
        """Copy the rest of the payload to two sinks, as `muxframe.aio.copy` does.

        Raises:
            FramingError, DaemonError, SinkError, ConnectionLostError, TimeoutError, RuntimeError: as the blocking
                Session.
        """
        self._choose("payload")
        reader = self._limited(self._chunk_reader)
        copied = await aio.copy_from(reader, self._demuxer, stdout, stderr)
        await self._finish()
        return copied

    async def read_all(self) -> Demuxed:
        """Read the rest of the payload into memory: (stdout, stderr).

        Raises:
            FramingError, DaemonError, ConnectionLostError: what came before is in `exc.chunks`.
            TimeoutError, RuntimeError: as the blocking Session.
        """
        self._choose("payload")
        reader = self._limited(self._chunk_reader)
        try:
            while batch := await reader.read():
                self._collected += batch
        except (FramingError, DaemonError, ConnectionLostError) as fault:
            fault.chunks = [
                (stream, data) for stream, data in zip((Stream.STDOUT, Stream.STDERR), self._joined()) if data
            ]
            raise
        await self._finish()
        read, self._collected = self._joined(), []
        return read

    def _joined(self) -> Demuxed:
        parts: tuple[list[bytes], list[bytes]] = ([], [])
        for stream, payload in self._collected:
            parts[stream >> 1].append(payload)
        return Demuxed(b"".join(parts[0]), b"".join(parts[1]))

    @cached_property
    def _chunk_reader(self) -> aio.ChunkReader:
        return aio.ChunkReader(self._link, self._demuxer, self._truncated)

    @cached_property
    def _wire_reader(self) -> aio.ChunkReader:
        return aio.ChunkReader(self._link, Demuxer(raw=True), "error")

    @cached_property
    def _frame_iterator(self) -> aio.FrameIterator:
        return aio.FrameIterator(self._link, self._max_frame_size, True, self._truncated)

    def _limited(self, reader: R) -> R:
        reader.timeout = self.timeout
        return reader

    async def _next(self, reader: aio.Reader[C]) -> C:
        try:
            return await anext(self._limited(reader))
        except StopAsyncIteration:
            await self._finish()
            raise

    async def _finish(self) -> None:
        """The output has ended: let the connection go, and learn an exec's exit code."""
        if self._is_over or self.closed:
            return
        self._link.close()
        if self.exit_code is None:
            if self._ending is None:
                self._ending = self._loop.create_task(self._learn_exit())
            await asyncio.wait([self._ending])  # it goes on where this is cancelled: who reads again waits again
            if not self._ending.cancelled():
                self._ending.result()
        self._is_over = True

    async def _learn_exit(self) -> None:
        try:
            self.exit_code = await self._engine._run(self._opened.end())
        except (OSError, MuxframeError):  # `wait` says why
            pass

    # Writing.

    async def write(self, data: Buffer, /) -> int:
        """Write to stdin, all of data, and return its size in bytes. Cancelled, it may have written some.

        Raises:
            ValueError, ConnectionLostError, TimeoutError: as the blocking Session.
        """
        self._check_stdin()
        with readable(data) as view:
            try:
                async with asyncio.timeout(self.timeout):
                    return await self._link.write(view)
            except TimeoutError as error:
                cancelled = error.__cause__ or error.__context__  # before Python 3.11.4 it is no cause
                error.characters_written = getattr(cancelled, "characters_written", 0)  # type: ignore[attr-defined]
                error.args = ("timed out",)
                raise

    async def close_stdin(self) -> None:
        """Say that stdin has ended (a half-close), and go on reading: as the blocking Session.

        Raises:
            ValueError, ConnectionLostError, TimeoutError: as `write`.
        """
        if self._begin_close_stdin():
            try:
                async with asyncio.timeout(self.timeout):
                    await self._link.close_write()
            except BaseException:
                self._has_closed_stdin = False
                raise

    # The rest.

    async def resize(self, height: int, width: int) -> None:
        """Tell the TTY how large its terminal is, in characters."""
        await self._engine._run(self._opened.resize(height, width))

    async def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit of the container, or of the command; return its exit code. As the blocking Session."""
        if self.exit_code is None:
            try:
                self.exit_code = await self._engine._run(self._opened.wait(), timeout)
            finally:
                if self.closed:  # nobody will close what was opened to wait
                    self._opened.close()
        return self.exit_code

    @property
    def timeout(self) -> float | None:
        """Seconds that a read or write waits for the other side; None, as at first: for ever."""
        return self._timeout

    @timeout.setter
    def timeout(self, seconds: float | None) -> None:
        self._timeout = check_timeout(seconds)

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._is_closed

    def close(self) -> None:
        """Close the connection. What waits for it in another task ends at once: reading as at the end."""
        self._is_closed = True
        if self._ending is not None:
            self._ending.cancel()
        self._opened.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, after `close`."""
        for link in self._opened.links():
            await link.wait_closed()

    def __del__(self) -> None:
        """Close what was forgotten: the loop holds connections, and would read them as long as the container runs."""
        if all(link.is_closed for link in self._opened.links()):
            return
        warnings.warn(f"unclosed {self!r}", ResourceWarning, source=self, stacklevel=1)
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._opened.close)


class _Items(Generic[C]):
    """An iterator over what one of a session's readers gives."""

    def __init__(self, session: Session, reader: aio.Reader[C]) -> None:
        self._session = session
        self._reader: aio.Reader[C] = reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> C:
        return await self._session._next(self._reader)


class SplitItems(_Items[S]):
    """An iterator over lines, or batches of them: what `Session.lines` and `Session.batches` return."""

    _reader: aio._SplitReader[S]

    def flush(self) -> list[S]:
        """Return all that has come: after a TimeoutError, say. Of lines unfinished ones, too: a prompt.

        Of lines the rest of each piece follows; batches are not full.
        """
        return self._reader.flush()


class _Wire:
    """An iterator over what comes, frames and all."""

    def __init__(self, session: Session, reader: aio.ChunkReader) -> None:
        self._session = session
        self._reader = reader

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        return (await self._session._next(self._reader))[1]
