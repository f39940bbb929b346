"""The blocking shell's `Session`: bytes are moved.

What they mean is decided in handshake.py (up to the stream) and in the frame core.
"""

from __future__ import annotations

import errno
import select
import threading
import time
from collections import deque
from functools import cached_property
from typing import TYPE_CHECKING, Generic, TypeVar

from .._batches import BatchBuilder
from .._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from .._framing import Demuxer, Frame, FrameReader
from .._framing_py import readable
from .._lines import Line, LineReader
from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..batches import Age, BatchReader
from ..copying import copy_on
from ..errors import ConnectionLostError, DaemonError, FramingError, HandshakeError, MuxframeError, TruncatedStreamError
from ..protocol import Chunk, Copied, Demuxed, Stream, Truncated
from ..sources import Source, open_source
from .base import SessionBase
from .dial import check_timeout
from .handshake import MAX_BODY_SIZE, StackedBody

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from typing_extensions import Buffer

    from .._batches_py import LineType
    from ..sinks import AnySink
    from .base import Deadline
    from .calls import Opened
    from .client import Opener
    from .dial import Connection
    from .handshake import Body, Response

__all__ = ["Link", "Session"]

RECEIVE_SIZE = 64 * 1024

#: What the system says of a connection that is dead, beside ConnectionError: keepalives were not answered.
UNREACHABLE = (errno.ETIMEDOUT, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN)

LITTLE = 64 * 1024  #: bytes of one read, after which the next waits for more where a session has a delay

MAX_OWED = 1024 * 1024  #: bytes of answers (to pings) that may wait until the other side takes them

T = TypeVar("T")


class Link(Source):
    """A stream that an engine has opened: its connection, and what stands between that and the stream's own bytes.

    Attributes:
        has_stdin: it is written to. Then a reset is an end like any other: that is what the system makes of an engine's
            close where input is left that nobody wanted to read.
    """

    has_stdin = False

    def __init__(self, connection: Connection, head: Response | None, received: bytes, body: Body | None) -> None:
        self.connection = connection
        self.head = head
        self.received: memoryview = memoryview(received)
        self.body = body
        self.fault: MuxframeError | None = None  # that ended reading
        self.is_over: bool = False
        self.is_closed: bool = False
        self._writing = threading.Lock()
        self._unsent = b""  # of what was packed: it goes before everything else
        self._answers: deque[bytes] = deque()  # to what was received
        self._owed = 0  # bytes of answers since all had been sent
        self._rest = bytearray()  # what `read_rest` has read

    @property
    def descriptor(self) -> int | None:  # type: ignore[override]
        """What can be read without further ado."""
        is_plain = self.body is None and not self.has_stdin and not self.is_closed and self.fault is None
        return self.connection.descriptor if is_plain else None

    def unpack(self, body: Body) -> None:
        """Let body stand before the rest of the stream."""
        self.body = body if self.body is None else StackedBody(self.body, body)
        if self.received:
            self.received = memoryview(body.feed(self.received))

    def readinto(self, buffer: memoryview, /) -> int:
        if self.fault is not None and not self.is_closed:
            raise self.fault
        try:
            while not self.received and not self.is_over:
                if self.body is None:
                    return self._receive(buffer)
                self._feed(buffer)
        except MuxframeError as fault:
            self.fault = fault
            raise
        size = min(len(buffer), len(self.received))
        buffer[:size] = self.received[:size]
        self.received = self.received[size:]
        return size

    def _feed(self, buffer: memoryview) -> None:
        """Receive what has to be unpacked; buffer is only lent."""
        assert self.body is not None
        if self.body.is_over:
            self.is_over = True
            return
        size = 0 if self.body.is_broken else self._receive(buffer)
        if self.is_closed:
            return
        self.received = memoryview(self.body.feed(buffer[:size]))
        answer = self.body.outgoing()
        if answer:
            self._answers.append(answer)
            self._owed += len(answer)
            self._answer()
            if self._owed > MAX_OWED:
                raise ConnectionLostError("the other side takes none of the answers that it asks for")

    def _receive(self, buffer: memoryview) -> int:
        """Receive some bytes; none at the end, and when this end has been closed."""
        try:
            size = self.connection.recv_into(buffer)
        except (OSError, ValueError) as error:  # ValueError: the connection is closed
            if isinstance(error, ConnectionLostError) or (is_timeout(error) and not self.is_closed):
                raise
            if self.is_closed or (self.has_stdin and isinstance(error, ConnectionResetError)):
                self.is_over = True
                return 0
            raise lost(error) from error
        self.is_over = not size
        return size

    def has_more(self) -> bool:
        """Say whether something is there to be received, where that is easily known."""
        descriptor = self.descriptor
        if descriptor is None:
            return False
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        return bool(poll.poll(0))

    def read_rest(self, deadline: Deadline) -> bytes:
        """Read to the end; what has come before a timeout is there for the next call."""
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while True:
            self.connection.settimeout(deadline.left())
            size = self.readinto(buffer)
            if not size:
                return bytes(self._rest)
            self._rest += buffer[:size]
            if len(self._rest) > MAX_BODY_SIZE:
                raise HandshakeError(f"the answer's body is larger than {MAX_BODY_SIZE} bytes")

    def write(self, view: memoryview) -> None:
        """Send all of view, packed if it has to be.

        Raises:
            TimeoutError: its `characters_written` says how much was taken: all, where it was packed.
        """
        if self.body is not None:
            try:
                self.send(self.body.pack(bytes(view)))
            except TimeoutError as error:
                error.characters_written = len(view)  # type: ignore[attr-defined]
                raise
            return
        size = len(view)
        with self._writing:
            try:
                while view:
                    view = view[self.connection.send(view) :]
            except ConnectionLostError:
                raise
            except (OSError, ValueError) as error:
                if not is_timeout(error):
                    raise lost(error) from error
                error.characters_written = size - len(view)  # type: ignore[union-attr]
                raise

    def send(self, packed: bytes) -> None:
        """Send what the body has packed. What a timeout leaves of it is sent before anything else."""
        with self._writing:
            self._flush(packed)
        try:
            while self._answers:  # that have come meanwhile
                with self._writing:
                    self._flush(b"")
        except ConnectionLostError:
            pass  # what was to be sent has been; of the rest reading tells

    def _answer(self) -> None:
        """Send the answers, unless somebody is writing, who then does it, or it would have to wait.

        Reading must go on: the other side may read no more until what it writes has been read.
        """
        if not self._writing.acquire(blocking=False):
            return
        timeout = self.connection.timeout
        try:
            self.connection.settimeout(0.001)
            try:
                self._flush(b"")
            finally:
                self.connection.settimeout(timeout)
        except (OSError, ValueError):
            pass  # it takes none now, or is gone, of which reading tells
        finally:
            self._writing.release()

    def _flush(self, packed: bytes) -> None:
        while self._answers:
            self._unsent += self._answers.popleft()
        self._unsent += packed
        view = memoryview(self._unsent)
        try:
            while view:
                view = view[self.connection.send(view) :]
            self._owed = 0
        except ConnectionLostError:
            raise
        except (OSError, ValueError) as error:  # ValueError: the output has ended, and the connection with it
            if not is_timeout(error):
                raise lost(error) from error
            raise
        finally:
            self._unsent = bytes(view)

    def close_write(self) -> None:
        """Say that nothing more will be written."""
        end = None if self.body is None else self.body.pack_eof()
        if end is not None:
            self.send(end)
            return
        try:
            with self._writing:
                self.connection.close_write()
        except ConnectionLostError:
            raise
        except (OSError, ValueError) as error:
            if is_timeout(error):
                raise
            raise lost(error) from error

    def close(self) -> None:
        """Close the connection. Whoever is blocked on it is woken first."""
        self.is_closed = True
        self.connection.close()


def is_timeout(error: Exception) -> bool:
    """Say whether a timeout of ours has passed; the system's (ETIMEDOUT) means that the connection is dead."""
    return isinstance(error, TimeoutError) and error.errno is None


def lost(error: Exception) -> ConnectionLostError:
    """Say that the connection broke."""
    return ConnectionLostError(f"the connection to the engine broke: {error}")


class Session(SessionBase):
    """One stream of an engine's: what `attach`, `exec` and `logs` return. A context manager.

    Read it in one way: as whole frames (`for frame in session`), as `lines`, as payload as it comes (`chunks`,
    `copy_to`, `read_all`, which can follow one another), or as the `wire` itself. One thread may read while another
    writes. Nothing is read ahead: who does not read holds the container up.

    A timeout leaves the session as it was: call again. Reading ends where the stream ends, or the session is closed.

    Attributes:
        tty, stream_type, exit_code: see SessionBase.
    """

    def __init__(self, engine: Opener, opened: Opened, max_frame_size: int | None, truncated: Truncated) -> None:
        super().__init__(opened)
        self._engine = engine
        self._link: Link = opened.link
        self._link.has_stdin = opened.has_stdin
        self._truncated = truncated
        frames = FrameReader(self._readinto, max_frame_size=max_frame_size, truncated=truncated)
        self._frames = _UntilClosed(self, frames)
        self._lines: LineIterator | None = None
        self._demuxer = Demuxer(raw=opened.is_raw)
        self._waiting: deque[Chunk] = deque()  # decoded and not taken yet
        self._collected = (bytearray(), bytearray())  # by read_all, if it was interrupted
        self._reading = threading.Lock()
        self._got_little = False  # where little comes at a time

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # Reading.

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Frame:
        """Return the next whole frame; of a raw stream the next piece, as it came.

        Raises:
            FramingError, DaemonError: as `muxframe.frames`.
            ConnectionLostError: the connection broke.
            TimeoutError: nothing came in `timeout` seconds.
            RuntimeError: the session is read in another way.
        """
        self._choose("frames")
        if self._opened.is_raw:
            return Frame(*self._next_chunk())
        return next(self._frames)

    def chunks(self) -> Iterator[Chunk]:
        """Iterate over the payload as it comes: (stream, bytes).

        Raises:
            FramingError, DaemonError, ConnectionLostError, TimeoutError, RuntimeError: by iteration, as iteration over
                the session does; what came before is delivered first.
        """
        self._choose("payload")
        return _Chunks(self)

    def lines(self, *, max_line_size: int = DEFAULT_MAX_LINE_SIZE) -> LineIterator:
        """Iterate over the lines of the output, as `muxframe.lines` does.

        Of a log that was asked for with timestamps or details these are taken out of the lines.

        Args:
            max_line_size: largest line in bytes; a longer one comes in pieces.

        Returns:
            An iterator of Line. After a TimeoutError its `flush` returns what has come of unfinished lines: a prompt.

        Raises:
            FramingError, DaemonError, ConnectionLostError, TimeoutError, RuntimeError: by iteration, as iteration over
                the session does; what came before is delivered first, unfinished lines too.
        """
        self._choose("lines")
        if self._lines is None:
            reader = LineReader(
                self._readinto,
                **self.line_options,
                max_line_size=max_line_size,
                truncated=self._truncated,
            )
            self._lines = LineIterator(self, reader)
        return self._lines

    def batches(
        self,
        *,
        line_type: LineType = "large_binary",
        source_name: str | None = None,
        max_lines: int = DEFAULT_MAX_LINES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_age: float | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> BatchReader:
        """Iterate over the lines of the output in columnar batches, as `muxframe.batches` does. To be called once.

        Args:
            line_type, source_name, max_lines, max_bytes, max_age, max_line_size: as for `muxframe.batches`.

        Raises:
            FramingError, DaemonError, ConnectionLostError, TimeoutError: by iteration, as `lines`.
            RuntimeError: the session is read in another way.
        """
        self._choose("batches")
        builder = BatchBuilder(
            **self.line_options,
            line_type=line_type,
            source=source_name,
            max_lines=max_lines,
            max_bytes=max_bytes,
            max_line_size=max_line_size,
        )
        return _Batches(self, builder, Age(max_age), ignore_truncated=self._truncated == "ignore")

    def wire(self) -> Wire:
        """Iterate over the stream as it came, frames and all; it is a source for `muxframe.copy` and others, too.

        `line_options` tell what it consists of. It ends where the session is closed, which may be inside a frame.

        Raises:
            ConnectionLostError, TimeoutError: by iteration, as iteration over the session does.
            RuntimeError: the session is read in another way.
        """
        self._choose("wire")
        return Wire(self)

    def copy_to(self, stdout: AnySink, stderr: AnySink = None, /, *, delay: float | None = None) -> Copied:
        """Copy the rest of the payload to two sinks, as `muxframe.copy` does.

        Args:
            stdout, stderr: as for `muxframe.copy`.
            delay: seconds to wait between reads while there is more to come, so that bytes gather: see `muxframe.copy`.
                None is 0.0005 for logs, 0 otherwise.

        Returns:
            What was delivered by this call.

        Raises:
            FramingError, DaemonError, SinkError: as `muxframe.copy`. After a SinkError deliver what is in its
                `undelivered`, then call again.
            ConnectionLostError: the connection broke; what came before is delivered.
            TimeoutError: nothing came in `timeout` seconds; call again to go on.
            RuntimeError: the session is read in another way.
        """
        self._choose("payload")
        if delay is None:
            delay = self._opened.delay
        with self._reading:
            if self._is_over or self.closed:
                return self._copy_waiting(stdout, stderr)
            try:
                with self._link.connection.hold:
                    copied = copy_on(
                        self._link,
                        self._demuxer,
                        stdout,
                        stderr,
                        truncated=self._truncated,
                        delay=delay,
                        waiting=self._waiting,
                    )
            except TruncatedStreamError as fault:
                if not self.closed or not isinstance(fault.delivered, Copied):
                    raise
                copied = fault.delivered
            except MuxframeError:
                raise
            except ValueError:
                if not self.closed:
                    raise
                return self._copy_waiting(stdout, stderr)  # closed by another thread, before it was held
            except OSError as error:
                if isinstance(error, ConnectionError) or error.errno in UNREACHABLE:
                    self._link.fault = lost(error)
                    raise self._link.fault from error
                raise
            self._finish()
            return copied

    def _copy_waiting(self, stdout: AnySink, stderr: AnySink) -> Copied:
        return copy_on(open_source(b""), Demuxer(), stdout, stderr, waiting=self._waiting)

    def read_all(self) -> Demuxed:
        """Read the rest of the payload into memory.

        Returns:
            (stdout, stderr); what an earlier call had read before it raised TimeoutError is in it.

        Raises:
            FramingError, DaemonError, ConnectionLostError: what came before is in `exc.chunks`.
            TimeoutError, RuntimeError: as `copy_to`; after a timeout call again.
        """
        stdout, stderr = self._collected
        try:
            self.copy_to(stdout, stderr)
        except (FramingError, DaemonError, ConnectionLostError) as fault:
            fault.chunks = [
                (stream, bytes(data)) for stream, data in zip((Stream.STDOUT, Stream.STDERR), self._collected) if data
            ]
            raise
        self._collected = (bytearray(), bytearray())
        return Demuxed(bytes(stdout), bytes(stderr))

    def _readinto(self, buffer: memoryview) -> int:
        """Read for iteration over frames or lines."""
        with self._reading:
            if self._got_little and self._link.has_more():
                time.sleep(self._opened.delay)  # so that more gathers
            size = self._link.readinto(buffer)
            self._got_little = bool(self._opened.delay) and 0 < size < LITTLE
        if not size:
            self._finish()
        return size

    def _next_chunk(self) -> Chunk:
        with self._reading:
            while not self._waiting:
                self._receive_chunks()
            return self._waiting.popleft()

    def _receive_chunks(self) -> None:
        if self._is_over:
            raise StopIteration
        self._demuxer.feed(b"")  # raises what it has raised before
        try:
            size = self._link.readinto(self._demuxer.get_buffer())
            if size:
                self._waiting += self._demuxer.buffer_updated(size)
                return
            self._demuxer.feed_eof()
        except (FramingError, DaemonError) as fault:
            self._waiting += fault.chunks
            if not (isinstance(fault, TruncatedStreamError) and (self._truncated == "ignore" or self.closed)):
                if not self._waiting:  # otherwise the next call raises it
                    raise
                return
        self._finish()
        raise StopIteration

    def _finish(self) -> None:
        """The output has ended: let the connection go, and learn an exec's exit code."""
        if self._is_over:
            return
        self._is_over = True
        if self.closed:
            return
        self._link.connection.close()
        if self.exit_code is None:
            try:
                self.exit_code = self._engine._run(self._opened.end())
            except (OSError, MuxframeError):  # `wait` says why
                pass

    # Writing.

    def write(self, data: Buffer, /) -> int:
        """Write to stdin, all of data.

        Args:
            data: C-contiguous bytes-like object.

        Returns:
            Its size in bytes.

        Raises:
            ValueError: the session has no stdin, or it is closed.
            ConnectionLostError: nobody is there to take it.
            TimeoutError: it was not taken within `timeout` seconds; `exc.characters_written` bytes of it were.
        """
        self._check_stdin()
        with readable(data) as view:
            self._link.write(view)
            return len(view)

    def close_stdin(self) -> None:
        """Say that stdin has ended (a half-close), and go on reading.

        Docker passes it on to a container only if that was made with StdinOnce (as `docker run -i` does) and has no
        TTY; otherwise Docker ends the session's output instead: a RuntimeWarning says so.

        Raises:
            ValueError: the session has no stdin, or is closed.
            ConnectionLostError, TimeoutError: as `write`.
        """
        if self._begin_close_stdin():
            try:
                self._link.close_write()
            except BaseException:
                self._has_closed_stdin = False
                raise

    # The rest.

    def resize(self, height: int, width: int) -> None:
        """Tell the TTY how large its terminal is, in characters.

        Raises:
            EngineError: or one of its kinds: nothing runs any more. Where there is no TTY most engines say nothing.
        """
        self._engine._run(self._opened.resize(height, width))

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit of the container, or of the command; return its exit code.

        The end of the output is not the exit: detach keys end it too, and some engines tell the exit later.

        Args:
            timeout: seconds.

        Raises:
            TimeoutError: it has not exited in time.
            NotFoundError: the container was removed, and nobody had asked before.
            ValueError: a log has no exit, and that of an exec by the CRI comes behind the output.
        """
        if self.exit_code is None:
            try:
                self.exit_code = self._engine._run(self._opened.wait(), timeout)
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
        seconds = check_timeout(seconds)
        if not (self.closed or self._is_over):
            try:
                self._link.connection.settimeout(seconds)
            except ValueError:
                if not self.closed:  # by another thread, right now
                    raise
        self._timeout = seconds

    _timeout: float | None = None

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._link.is_closed

    def close(self) -> None:
        """Close the connection. What is blocked on it in another thread ends at once: reading as at the end."""
        self._opened.close()


class Wire(Source):
    """What a session reads: an iterable of bytes, and a source."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        size = self._session._readinto(self._block)
        if not size:
            raise StopIteration
        return bytes(self._block[:size])

    @cached_property
    def _block(self) -> memoryview:
        return memoryview(bytearray(RECEIVE_SIZE))

    def readinto(self, buffer: memoryview, /) -> int:
        return self._session._readinto(buffer)


class _Batches(BatchReader):
    """Batches that end where the session is closed, which may be inside a frame."""

    def __init__(self, session: Session, builder: BatchBuilder, age: Age, *, ignore_truncated: bool) -> None:
        super().__init__(Wire(session), builder, age, ignore_truncated=ignore_truncated)
        self._session = session

    def _next_piece(self) -> memoryview:
        piece = super()._next_piece()
        self._ignore_truncated = self._ignore_truncated or self._session.closed
        return piece


class _UntilClosed(Generic[T]):
    """An iterator that ends where the session is closed, which may be inside a frame."""

    def __init__(self, session: Session, items: Iterator[T]) -> None:
        self._session = session
        self._items = items

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> T:
        try:
            return next(self._items)
        except TruncatedStreamError:
            if not self._session.closed:
                raise
            raise StopIteration from None


class LineIterator(_UntilClosed[Line]):
    """The lines of a session's output: what `Session.lines` returns."""

    _items: LineReader

    def flush(self) -> list[Line]:
        """Return all that has come, of unfinished lines too: after a TimeoutError, say, a prompt.

        Returns:
            Lines that were not taken yet, then pieces (`partial`); the rest of each follows, be it empty.
        """
        return self._items.flush()


class _Chunks:
    def __init__(self, session: Session) -> None:
        self._session = session

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Chunk:
        return self._session._next_chunk()
