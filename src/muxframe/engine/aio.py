"""The asyncio shell: `connect`, `Engine` and `Session` under the names, and with the behaviour, of the blocking ones.

Received bytes go from a transport straight into the Demuxer. Writing goes past the transport, through a duplicate of
the socket: a transport whose writing fails throws away what was still to be read, which may be the last words of a
command that has stopped reading. Who reads slowly pauses the transport. A read that is cancelled has taken nothing.
"""

from __future__ import annotations

import asyncio
import socket
import warnings
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from .. import aio
from .._batches import LineBatch
from .._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES
from .._framing import Demuxer, Frame
from .._framing_py import check_limit, check_truncated, readable
from .._lines import Line, LineSplitter
from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..errors import ConnectionLostError, DaemonError, FramingError, HandshakeError, MuxframeError
from ..protocol import Chunk, Copied, Demuxed, Stream, Truncated
from . import calls
from .base import DEFAULT_TIMEOUT, TOO_LATE, Deadline, EngineBase, SessionBase
from .dial import check_timeout, spawn_ssh
from .endpoint import describe_failures, find_endpoints, reason_of
from .handshake import MAX_BODY_SIZE, Conversation, LateBody, Response, StackedBody
from .session import MAX_OWED, RECEIVE_SIZE, is_timeout, lost

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
    from typing import Literal, Self

    from typing_extensions import Buffer

    from .._batches_py import LineType
    from ..ingest.aio import Follower
    from ..ingest.following import Following
    from ..ingest.gather import AsyncGathering
    from ..sinks import AnySink
    from .calls import Flow, Opened, Step
    from .dial import SshProcess
    from .endpoint import Endpoint
    from .handshake import Body
    from .tls import TlsStream

__all__ = ["Engine", "Opening", "Session", "attach", "connect", "exec", "follow", "gather", "logs"]

WRITE_POLL = 0.01  #: seconds between attempts to write, where the loop cannot tell when there is room

RENEGOTIATION_POLL = 0.01  #: seconds between attempts to write, while TLS wants to read first

WRITE_SIZE = 256 * 1024  #: bytes of one write to stdin that are encrypted or packed at a time

T = TypeVar("T")
C = TypeVar("C", Chunk, Frame, Line, LineBatch)
R = TypeVar("R", bound="aio.Reader[Any]")


class Opening(Generic[T]):
    """Something that is still to be opened: `await` it, or `async with` it. Once."""

    def __init__(self, open_it: Callable[[], Awaitable[T]]) -> None:
        self._open: Callable[[], Awaitable[T]] | None = open_it
        self._opened: Any = None

    def __await__(self) -> Generator[Any, None, T]:
        open_it, self._open = self._open, None
        if open_it is None:
            raise RuntimeError("cannot be opened twice: make the call again")
        return open_it().__await__()

    async def __aenter__(self) -> T:
        opened = await self
        self._opened = opened
        await self._opened.__aenter__()
        return opened

    async def __aexit__(self, *error: Any) -> None:
        await self._opened.__aexit__(*error)


def connect(
    host: str | None = None,
    *,
    context: str | None = None,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    api_version: str | None = None,
    auth: Any = None,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> Opening[Engine]:
    """Find an engine and agree on the version of its API: as `muxframe.connect`, to be awaited."""

    async def open_it() -> Engine:
        fixed = calls.fixed_version(api_version)
        failures = []
        for endpoint in find_endpoints(host, context=context, tls=tls):
            engine = Engine(endpoint, calls.Api(), auth=auth, timeout=timeout)
            try:
                engine._api = await engine._run(calls.negotiate(fixed))
            except (ConnectionLostError, TimeoutError) as error:
                failures.append((endpoint, error))
            else:
                return engine
        if len(failures) == 1:
            raise failures[0][1]
        raise ConnectionLostError(describe_failures(failures))

    return Opening(open_it)


def attach(container: str, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Attach to a container of the engine that `connect(host)` finds; otherwise as `Engine.attach`."""

    async def open_it() -> Session:
        return await (await connect(host)).attach(container, **options)

    return Opening(open_it)


def exec(container: str, command: Any, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Run a command in a container of the engine that `connect(host)` finds; otherwise as `Engine.exec`."""

    async def open_it() -> Session:
        return await (await connect(host)).exec(container, command, **options)

    return Opening(open_it)


def logs(name: str, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Read the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.logs`."""

    async def open_it() -> Session:
        return await (await connect(host)).logs(name, **options)

    return Opening(open_it)


def follow(container: str, *, host: str | None = None, **options: Any) -> Follower:
    """Follow the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.follow`."""
    from ..ingest.aio import Follower
    from ..ingest.following import Following

    return Follower(lambda: connect(host), Following(container, **options))


def gather(*names: str, host: str | None = None, **options: Any) -> AsyncGathering:
    """Gather the logs of containers of the engine that `connect(host)` finds; otherwise as `Engine.gather`."""
    from ..ingest.gather import AsyncGathering

    return AsyncGathering(lambda: connect(host), names, **options)


class Engine(EngineBase["Opening[Session]", "Follower", "AsyncGathering"]):
    """A container engine: what awaiting `connect` returns. It holds no connection; each call makes its own.

    `attach`, `exec` and `logs` return what can be awaited, or used with `async with`, for the Session.
    """

    def _open(self, flow: Flow[Opened], max_frame_size: int | None, truncated: Truncated) -> Opening[Session]:
        check_limit(max_frame_size)
        check_truncated(truncated)

        async def open_it() -> Session:
            return Session(self, await self._run(flow), max_frame_size, truncated)

        return Opening(open_it)

    def _follow(self, following: Following) -> Follower:
        from ..ingest.aio import Follower

        return Follower(self._itself, following)

    def _gather(self, names: Sequence[str], **options: Any) -> AsyncGathering:
        from ..ingest.gather import AsyncGathering

        return AsyncGathering(self._itself, names, **options)

    async def _itself(self) -> Engine:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        return await self._run(calls.inspect(self._api, container))

    async def start(self, container: str) -> None:
        """Start a container; nothing happens if it runs. To see all of its output use `attach(..., start=True)`."""
        await self.request("POST", calls.container_path(container, "/start"))

    async def kill(self, container: str, signal: str = "KILL") -> None:
        """Send a signal to a container's main process."""
        await self.request("POST", calls.container_path(container, "/kill"), query={"signal": signal})

    async def resize(self, container: str, height: int, width: int) -> None:
        """Tell a container's TTY how large its terminal is, in characters."""
        await self._run(calls.resize(self._api, calls.container_path(container), height, width))

    async def wait(
        self,
        container: str,
        condition: Literal["not-running", "next-exit", "removed"] = "not-running",
        *,
        timeout: float | None = None,
    ) -> int:
        """Wait for a container's exit; return its exit code. As the blocking Engine's."""
        waiting = await self._run(calls.open_wait(self._api, calls.container_path(container), condition))
        try:
            return await self._run(calls.read_wait(waiting), timeout)
        finally:
            waiting.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Ask for anything else that the API offers. As the blocking Engine's."""
        request = self._api.request(method, path, query=query or {}, body=body, headers=headers or {})
        return await self._run(calls.plain(request))

    async def _run(self, flow: Flow[T], timeout: float | None = -1) -> T:
        """Perform a flow: see the blocking Engine's."""
        return await run_flow(flow, Run(self._endpoint, self._auth, self._timeout, timeout))


async def run_flow(flow: Flow[T], run: Run) -> T:
    """Perform a flow's steps and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                result = await run.perform(step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        run.close()


class Run:
    """What performs the steps of one flow: as the blocking Run."""

    def __init__(
        self, endpoint: Endpoint | None, auth: Any, step_timeout: float | None, timeout: float | None = -1
    ) -> None:
        self._endpoint = endpoint
        self._auth = auth
        self._step_timeout = step_timeout
        self._deadline = None if timeout == -1 else Deadline(timeout)
        self._connection: _Connection | None = None
        self._conversation: Conversation | None = None

    async def perform(self, step: Step) -> Any:
        """Perform a step; return what the flow is sent for it."""
        deadline = self._deadline or Deadline(self._step_timeout)
        async with _until(deadline):
            if isinstance(step, calls.Sleep):
                return await asyncio.sleep(step.seconds)
            if isinstance(step, calls.Read):
                return await step.link.read_rest()
            if isinstance(step, calls.Write):
                return await step.link.send(step.packed)
            return await self._exchange(step, deadline)

    async def _exchange(self, step: calls.Call | calls.Open, deadline: Deadline) -> Any:
        endpoint = (step.endpoint if isinstance(step, calls.Open) else None) or self._endpoint
        assert endpoint is not None
        if self._conversation is None or not self._conversation.is_reusable:
            self.close()
            self._connection = await _dial(endpoint, deadline)
            self._conversation = Conversation()
        connection, conversation = self._connection, self._conversation
        assert connection is not None
        request = calls.signed(step.request, endpoint, self._auth)
        try:
            await connection.send(conversation.send(request, stream=isinstance(step, calls.Open)))
            if isinstance(step, calls.Open) and step.is_late:
                return await self._hand_over(None, b"", LateBody(conversation))
            while not conversation.is_complete:
                conversation.receive(await connection.receive())
                if conversation.is_stream:
                    return await self._hand_over(conversation.response, *conversation.take_over())
        except ConnectionLostError:
            raise
        except OSError as error:
            if is_timeout(error):
                raise
            raise lost(error) from error
        conversation.check()
        return conversation.response

    async def _hand_over(self, head: Response | None, received: bytes, body: Body | None) -> Link:
        assert self._connection is not None
        connection, self._connection, self._conversation = self._connection, None, None
        link = Link(connection, head, received, body)
        await link.connect()
        return link

    def close(self) -> None:
        """Close what has not been handed over."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._conversation = None


@asynccontextmanager
async def _until(deadline: Deadline) -> AsyncIterator[None]:
    """Raise TimeoutError where it takes longer."""
    try:
        async with asyncio.timeout(deadline.left()) as limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(TOO_LATE) from None
        raise


# --- connections -----------------------------------------------------------------------------------------------------


class _Connection:
    """A connection during the handshake: who wants bytes asks for them."""

    __slots__ = ("_loop", "process", "socket", "tls")

    def __init__(self, sock: socket.socket, tls: TlsStream | None, process: SshProcess | None) -> None:
        self.socket = sock
        self.tls = tls
        self.process = process
        self._loop = asyncio.get_running_loop()

    async def shake_hands(self) -> None:
        """Do TLS's own handshake."""
        assert self.tls is not None
        try:
            while not self.tls.handshake():
                await self._send_outgoing()
                self.tls.receive(await self._loop.sock_recv(self.socket, RECEIVE_SIZE))
        finally:
            await self._send_outgoing()  # an alert, too

    async def send(self, data: bytes) -> None:
        if self.tls is None:
            await self._loop.sock_sendall(self.socket, data)
        else:
            self.tls.write(data)
            await self._send_outgoing()

    async def receive(self) -> bytes:
        if self.tls is None:
            received = await self._loop.sock_recv(self.socket, RECEIVE_SIZE)
            if not received and self.process is not None:
                failure = await asyncio.to_thread(self.process.failure)
                if failure is not None:
                    raise ConnectionLostError(failure)
            return received
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while (size := self.tls.read_into(buffer)) is None:
            await self._send_outgoing()
            self.tls.receive(await self._loop.sock_recv(self.socket, RECEIVE_SIZE))
        return bytes(buffer[:size])

    async def _send_outgoing(self) -> None:
        assert self.tls is not None
        await self._loop.sock_sendall(self.socket, self.tls.outgoing())

    def close(self) -> None:
        self.socket.close()
        if self.process is not None:
            self.process.close()


async def _dial(endpoint: Endpoint, deadline: Deadline) -> _Connection:
    """Connect to an endpoint.

    Raises:
        ConnectionLostError: it cannot be connected; the cause is chained.
        OSError, ValueError: a file of certificates is not usable.
    """
    context = endpoint.ssl_context()
    process = None
    try:
        async with AsyncExitStack() as stack:
            if endpoint.kind == "ssh":
                sock, process = spawn_ssh(endpoint, deadline.left())
            elif endpoint.kind == "unix":
                if not hasattr(socket, "AF_UNIX"):
                    raise OSError("this Python has no Unix sockets")
                sock = await _connect(stack, socket.AF_UNIX, endpoint.path)
            elif endpoint.kind == "tcp":
                sock = await _connect_tcp(stack, endpoint)
            else:
                raise OSError("named pipes have no asyncio shell: use the blocking one")
            connection = _Connection(sock, None, process)
            stack.callback(connection.close)
            sock.setblocking(False)
            if context is not None:
                from .tls import TlsStream

                connection.tls = TlsStream(context, endpoint.server_hostname)
                await connection.shake_hands()
            stack.pop_all()
            return connection
    except OSError as error:
        if isinstance(error, TimeoutError) and error.errno is None:
            raise
        raise ConnectionLostError(f"cannot connect to {endpoint} ({endpoint.origin}): {reason_of(error)}") from error


async def _connect_tcp(stack: AsyncExitStack, endpoint: Endpoint) -> socket.socket:
    """Try every address of the host."""
    loop = asyncio.get_running_loop()
    addresses = await loop.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for i, (family, _, _, _, address) in enumerate(addresses, 1):
        try:
            sock = await _connect(stack, family, address)
        except OSError:
            if i == len(addresses):
                raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
    raise OSError("the name has no address")


async def _connect(stack: AsyncExitStack, family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, address)
    except BaseException:
        sock.close()
        raise
    return sock


class Link(asyncio.BufferedProtocol):
    """A stream that an engine has opened: its transport, and what stands between that and the stream's own bytes.

    Attributes:
        has_stdin: see the blocking Link.
        room: its `next_size()` says how many bytes may be received now; None: as many as the buffer holds.
    """

    has_stdin = False
    room: Any = None

    def __init__(self, connection: _Connection, head: Response | None, received: bytes, body: Body | None) -> None:
        self.head = head
        self.body = body
        self.is_closed = False
        self._received = received
        self._connection = connection
        self._tls = connection.tls
        self._reader: aio.Reader[Any] | None = None
        self._transport: Any = None
        self._broken: Exception | None = None
        self._has_ended = False
        self._early = b""  # received before anybody read
        self._has_early_end = False
        self._writer: socket.socket | None = None
        self._is_writable: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._answer = b""
        self._answering: asyncio.Task[None] | None = None
        self._buffer = aio.ReceiveBuffer()
        self._is_gone = False  # the transport is
        self._gone: asyncio.Future[None] | None = None  # tells who waits for that
        self._rest: aio.ChunkReader | None = None

    # Most links are never written to: what that needs is made when it is.

    @cached_property
    def _writing(self) -> asyncio.Lock:
        return asyncio.Lock()

    @cached_property
    def _plain(self) -> bytearray:
        """What is to be encrypted."""
        return bytearray()

    @cached_property
    def _unsent(self) -> bytearray:
        """What is left of what has been packed."""
        return bytearray()

    @cached_property
    def _rest_parts(self) -> list[bytes]:
        return []

    def unpack(self, body: Body) -> None:
        """Let body stand before the rest of the stream."""
        self.body = body if self.body is None else StackedBody(self.body, body)
        self._received = body.feed(self._received) if self._received else b""

    async def connect(self) -> None:
        """Give the socket to a transport, which reads nothing until `start_reading`."""
        loop = asyncio.get_running_loop()
        sock = self._connection.socket
        try:
            if sock.family == getattr(socket, "AF_UNIX", None):
                await loop.create_unix_connection(lambda: self, sock=sock)
            else:
                await loop.create_connection(lambda: self, sock=sock)
        except BaseException:
            self._connection.close()
            raise

    def start_reading(self, reader: aio.Reader[Any]) -> None:
        """Give everything that comes from now on to reader."""
        self.head = None  # has told what it had to
        self._reader = reader
        reader.connection_made(self._transport)
        received, self._received = self._received, b""
        if received:
            reader.data_received(received)
        if self._early or self._tls is not None:  # or what the handshake has decrypted
            early, self._early = self._early, b""
            self._feed(early)
        if self._has_early_end:
            self.eof_received()
        elif self._broken is not None:
            self._break_off(self._broken)
        elif self._is_gone:
            reader.connection_lost(None)
        elif self.body is not None and self.body.is_over:
            self._end()
        elif not self.is_closed:
            self._transport.resume_reading()

    # The transport's side.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        transport.pause_reading()

    def get_buffer(self, sizehint: int) -> memoryview:
        view = self._buffer.view()
        return view if self.room is None else view[: self.room.next_size()]

    def buffer_updated(self, nbytes: int) -> None:
        data = self._buffer.view()[:nbytes]
        if self._reader is None:  # uvloop reads once before it notices that it is paused
            self._early += bytes(data)
            self._transport.pause_reading()
        elif self._tls is None and self.body is None:
            self._reader.data_received(data)
        else:
            self._feed(data)

    def eof_received(self) -> bool:
        if self._reader is None:
            self._has_early_end = True
            return True  # keep the transport: it is not only read from
        try:
            if self._tls is not None and not self._has_ended:
                self._tls.receive(b"")
                for piece in self._decrypted():  # raises what makes this no proper end
                    self._take(piece)
            if self.body is not None and not self.body.is_over:
                self._hand_on(self.body.feed(b""))
        except (OSError, MuxframeError) as error:
            self._fail(error)
        else:
            self._end()
        return self._ending is not None

    def connection_lost(self, exc: Exception | None) -> None:
        self._is_gone = True
        if self._gone is not None:
            _set(self._gone)
        if exc is not None and not self.is_closed:
            self._broken = exc
            if self._reader is not None:
                self._break_off(exc)
            if self._connection.process is not None:
                return  # it is to say why, first
        elif self._reader is not None:
            self._reader.connection_lost(None)
        self.close()

    def _feed(self, data: Buffer) -> None:
        """Unpack what was received, and hand it on."""
        try:
            if self._tls is None:
                self._take(bytes(data))
            else:
                if data:
                    self._tls.receive(data)
                for piece in self._decrypted():
                    self._take(piece)
        except (OSError, MuxframeError) as error:
            self._fail(error)
            return
        if self.body is not None:
            self._answer += self.body.outgoing()
            if len(self._answer) > MAX_OWED:
                self._fail(ConnectionLostError("the other side takes none of the answers that it asks for"))
                return
        if self._answer or (self._tls is not None and self._tls.has_outgoing):
            self._send_answer()
        if self._has_ended or (self.body is not None and self.body.is_over):
            self._end()

    def _decrypted(self) -> Generator[bytes, None, None]:
        assert self._tls is not None
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while size := self._tls.read_into(buffer):
            yield bytes(buffer[:size])
        self._has_ended = size == 0

    def _take(self, data: bytes) -> None:
        self._hand_on(data if self.body is None else self.body.feed(data))

    def _hand_on(self, data: bytes) -> None:
        assert self._reader is not None
        if data:
            self._reader.data_received(data)

    def _end(self) -> None:
        assert self._reader is not None
        if self._connection.process is None:
            self._reader.eof_received()
            self._transport.close()
        elif self._ending is None:
            self._ending = asyncio.get_running_loop().create_task(self._end_ssh(self._connection.process, self._reader))

    async def _end_ssh(self, process: SshProcess, reader: aio.Reader[Any]) -> None:
        """Let ssh say whether this is a proper end."""
        failure = await asyncio.to_thread(process.failure)
        if failure is not None:
            reader.connection_lost(ConnectionLostError(failure))
        elif self._broken is not None:
            self._fail_unless_reset(self._broken)
        else:
            reader.eof_received()
        self._transport.close()

    def _break_off(self, error: Exception) -> None:
        """The connection is gone, and nobody has closed it: nothing more will come."""
        if self._connection.process is None:
            self._fail_unless_reset(error)
        else:
            self._end()

    def _fail_unless_reset(self, error: Exception) -> None:
        """A reset is an end where there is stdin, but not before what stands before the stream has come to its own."""
        assert self._reader is not None
        if not (self.has_stdin and isinstance(error, ConnectionResetError)):
            self._fail(error)
            return
        try:
            if self.body is not None and not self.body.is_over:
                self._hand_on(self.body.feed(b""))
        except MuxframeError as fault:
            self._fail(fault)
        else:
            self._reader.connection_lost(None)

    def _fail(self, error: Exception) -> None:
        assert self._reader is not None
        self._reader.connection_lost(error if isinstance(error, MuxframeError) else lost(error))
        self._transport.close()

    # Writing.

    async def write(self, data: Buffer) -> int:
        """Send all of data; return its size.

        Raises:
            ConnectionLostError: nobody is there to take it.
            TimeoutError: passes through, with `characters_written`.
        """
        view = memoryview(data)
        done = 0
        try:
            async with self._writing:
                while done < len(view):
                    piece = view[done : done + WRITE_SIZE]
                    if self._tls is None and self.body is None:
                        done += await self._send_some(piece)
                    else:
                        self._pack(bytes(piece) if self.body is None else self.body.pack(bytes(piece)))
                        done += len(piece)  # taken, for the rest of a record or a message has to follow
                        await self._flush()
        except asyncio.CancelledError as cancelled:
            cancelled.characters_written = done  # type: ignore[attr-defined]
            raise
        return done

    async def send(self, packed: bytes) -> None:
        """Send what the body has packed."""
        async with self._writing:
            self._pack(packed)
            await self._flush()

    async def close_write(self) -> None:
        """Say that nothing more will be written."""
        async with self._writing:
            end = None if self.body is None else self.body.pack_eof()
            if end is not None:
                self._pack(end)
            elif self._tls is not None:
                await self._flush()  # what is not encrypted yet could not be any more
                try:
                    self._tls.close_write()
                except OSError as error:
                    raise lost(error) from error
                self._pack(b"")
            await self._flush()
            if end is None and self._tls is None:
                try:
                    self._output().shutdown(socket.SHUT_WR)
                except OSError as error:
                    raise lost(error) from error

    def _pack(self, data: bytes) -> None:
        """Take data to be sent; what TLS does not take yet stays behind in `_plain`."""
        if self._tls is None:
            self._unsent += data
            return
        self._plain += data
        try:
            while self._plain and (size := self._tls.write(self._plain)):
                del self._plain[:size]
        except (OSError, ValueError) as error:  # it broke while it was read
            raise lost(error) from error
        self._unsent += self._tls.outgoing()

    async def _flush(self) -> None:
        while self._plain:  # the peer renegotiates, and reading has to be first
            await self._flush_packed()
            await asyncio.sleep(RENEGOTIATION_POLL)
            self._pack(b"")
        await self._flush_packed()

    async def _flush_packed(self) -> None:
        while self._unsent:
            size = await self._send_some(memoryview(bytes(self._unsent[:WRITE_SIZE])))
            del self._unsent[:size]

    async def _send_some(self, data: memoryview) -> int:
        """Send some bytes, waiting for at least one; cancelled, it has sent none."""
        try:
            while True:
                try:
                    return self._output().send(data)
                except BlockingIOError:
                    await self._writable()
        except ConnectionLostError:
            raise
        except OSError as error:
            raise lost(error) from error

    async def _writable(self) -> None:
        loop = asyncio.get_running_loop()
        is_writable = loop.create_future()
        descriptor = self._output().fileno()
        try:
            loop.add_writer(descriptor, _set, is_writable)
        except NotImplementedError:  # of Windows' own loop
            await asyncio.sleep(WRITE_POLL)
            return
        self._is_writable = is_writable
        try:
            await is_writable
        finally:
            self._is_writable = None
            if not self.is_closed:  # closing has removed it
                loop.remove_writer(descriptor)

    def _output(self) -> socket.socket:
        """Return the socket to write to: not the transport's, for that lets nobody else wait for it."""
        if self.is_closed:
            raise ConnectionLostError("the connection is closed")
        if self._writer is None:
            self._writer = self._connection.socket.dup()
            self._writer.setblocking(False)
        return self._writer

    def _send_answer(self) -> None:
        """Send what the other side has to be told of what came from there."""
        if self._answering is None or self._answering.done():
            self._answering = asyncio.get_running_loop().create_task(self._flush_answer())

    async def _flush_answer(self) -> None:
        try:
            async with self._writing:
                while self._answer or (self._tls is not None and self._tls.has_outgoing):
                    answer, self._answer = self._answer, b""
                    self._pack(answer)
                    await self._flush()
        except ConnectionLostError:  # reading says so, too
            pass

    # The end.

    async def read_rest(self) -> bytes:
        """Read to the end; what has come before a cancellation is there for the next call."""
        if self._rest is None:
            self._rest = aio.ChunkReader(self, Demuxer(raw=True), "error")
        while batch := await self._rest.read():
            self._rest_parts += [payload for _, payload in batch]
            if sum(map(len, self._rest_parts)) > MAX_BODY_SIZE:
                raise HandshakeError(f"the answer's body is larger than {MAX_BODY_SIZE} bytes")
        return b"".join(self._rest_parts)

    def close(self) -> None:
        """Close the connection. Reading ends."""
        if not self.is_closed and not self._is_gone:
            self._say_goodbye()
        self.is_closed = True
        for task in (self._answering, self._ending):
            if task is not None:
                task.cancel()
        if self._writer is not None:
            if self._is_writable is not None:
                asyncio.get_running_loop().remove_writer(self._writer.fileno())
                _set(self._is_writable)
            self._writer.close()
            self._writer = None
        if self._reader is not None:
            self._reader.close()
        self._transport.close()
        if self._connection.process is not None:
            self._connection.process.close()

    def _say_goodbye(self) -> None:
        """Declare the end, as TLS wants it, unless that would have to wait."""
        if self._tls is None or self._unsent:
            return
        try:
            self._tls.close_write()
            self._connection.socket.send(self._tls.outgoing())
        except (OSError, ValueError):  # nobody is there to hear it
            pass

    async def wait_closed(self) -> None:
        """Wait until the transport has let the socket go."""
        if not self._is_gone:
            self._gone = self._gone or asyncio.get_running_loop().create_future()
            await asyncio.shield(self._gone)


# --- sessions --------------------------------------------------------------------------------------------------------


class Shell(Protocol):
    """What has opened a session, and performs its flows."""

    async def _run(self, flow: Flow[T], timeout: float | None = -1) -> T: ...


class Session(SessionBase):
    """One stream of an engine's, as the blocking Session. An asynchronous context manager.

    Read it in one way: as whole frames (`async for frame in session`), as `lines`, or as payload as it comes (`chunks`,
    `copy_to`, `read_all`, which can follow one another). One task may read while another writes. Who does not read
    holds the container up. A read that is cancelled, or times out, has taken nothing.

    Attributes:
        tty, stream_type, exit_code: see SessionBase.
    """

    def __init__(self, engine: Shell, opened: Opened, max_frame_size: int | None, truncated: Truncated) -> None:
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

    def lines(self, *, max_line_size: int = DEFAULT_MAX_LINE_SIZE) -> AsyncIterator[Line]:
        """Iterate over the lines of the output: as the blocking Session."""
        self._choose("lines")
        if self._line_iterator is None:
            splitter = LineSplitter(
                raw=self._opened.is_raw,
                timestamps=self._opened.has_timestamps,
                details=self._opened.has_details,
                max_line_size=max_line_size,
            )
            self._line_iterator = aio.LineIterator(self._link, splitter, self._truncated)
        return _Items(self, self._line_iterator)

    def batches(
        self,
        *,
        line_type: LineType = "large_binary",
        source_name: str | None = None,
        max_lines: int = DEFAULT_MAX_LINES,
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> AsyncIterator[LineBatch]:
        """Iterate over the lines of the output in columnar batches: as the blocking Session. To be called once."""
        self._choose("batches")
        iterator = aio.batches(
            self._link,
            raw=self._opened.is_raw,
            timestamps=self._opened.has_timestamps,
            details=self._opened.has_details,
            line_type=line_type,
            source_name=source_name,
            max_lines=max_lines,
            max_bytes=max_bytes,
            max_line_size=max_line_size,
            truncated=self._truncated,
        )
        return _Items(self, iterator)

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
        if self._is_over:
            return
        self._is_over = True
        if self.closed:
            return
        self._link.close()
        if self.exit_code is None:
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
                error.characters_written = getattr(error.__cause__, "characters_written", 0)  # type: ignore[attr-defined]
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
        self._opened.close()

    async def wait_closed(self) -> None:
        """Wait until the connection is gone, after `close`."""
        for link in self._opened.links():
            await link.wait_closed()

    def __del__(self) -> None:
        """Close what was forgotten: the loop holds the connection, and would read it as long as the container runs."""
        if self._link.is_closed:
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


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
