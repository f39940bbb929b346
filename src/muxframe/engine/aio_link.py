"""The asyncio shell's connections, and the stream that one of them becomes.

During the handshake who wants bytes asks for them (`Connection`). Then a transport receives them straight into a buffer
that all share, and what reads them pauses it (`Link`). Writing goes past the transport, through a duplicate of the
socket: a transport whose writing fails throws away what was still to be read, which may be the last words of a command
that has stopped reading.
"""

from __future__ import annotations

import asyncio
import os
import socket
from contextlib import AsyncExitStack
from functools import cached_property
from typing import TYPE_CHECKING, Any

from .. import aio
from .._framing import Demuxer
from ..errors import ConnectionLostError, HandshakeError, MuxframeError
from .base import Deadline
from .dial import spawn_ssh
from .endpoint import reason_of
from .handshake import MAX_BODY_SIZE, Response, StackedBody
from .session import MAX_OWED, RECEIVE_SIZE, lost

if TYPE_CHECKING:
    from collections.abc import Generator

    from typing_extensions import Buffer

    from .dial import SshProcess
    from .endpoint import Endpoint
    from .handshake import Body
    from .tls import TlsStream

__all__ = ["Connection", "Link", "dial"]

WRITE_POLL = 0.01  #: seconds between attempts to write, where the loop cannot tell when there is room

RENEGOTIATION_POLL = 0.01  #: seconds between attempts to write, while TLS wants to read first

WRITE_SIZE = 256 * 1024  #: bytes of one write to stdin that are encrypted or packed at a time


class Connection:
    """A connection during the handshake: who wants bytes asks for them."""

    __slots__ = ("_loop", "process", "socket", "tls")

    def __init__(self, sock: socket.socket, tls: TlsStream | None, process: SshProcess | None) -> None:
        self.socket: socket.socket = sock
        self.tls: TlsStream | None = tls
        self.process: SshProcess | None = process
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
            try:
                await self._loop.sock_sendall(self.socket, data)
            except ConnectionError as error:
                await self._check_ssh(error)
                raise
        else:
            self.tls.write(data)
            await self._send_outgoing()

    async def receive(self) -> bytes:
        if self.tls is None:
            try:
                received = await self._loop.sock_recv(self.socket, RECEIVE_SIZE)
            except ConnectionError as error:  # ssh has ended and left the request unread
                await self._check_ssh(error)
                raise
            if not received:
                await self._check_ssh(None)
            return received
        buffer = memoryview(bytearray(RECEIVE_SIZE))
        while (size := self.tls.read_into(buffer)) is None:
            await self._send_outgoing()
            self.tls.receive(await self._loop.sock_recv(self.socket, RECEIVE_SIZE))
        return bytes(buffer[:size])

    async def _check_ssh(self, error: Exception | None) -> None:
        """Let ssh, if that is what has ended, say why."""
        failure = None if self.process is None else await asyncio.to_thread(self.process.failure)
        if failure is not None:
            raise ConnectionLostError(failure) from error

    async def _send_outgoing(self) -> None:
        assert self.tls is not None
        await self._loop.sock_sendall(self.socket, self.tls.outgoing())

    def close(self) -> None:
        self.socket.close()
        if self.process is not None:
            self.process.close()


async def dial(endpoint: Endpoint, deadline: Deadline) -> Connection:
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
            connection = Connection(sock, None, process)
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
    except BaseException as error:
        sock.close()
        if isinstance(error, OSError) and error.errno:  # asyncio's own text tells the address, not the reason
            raise OSError(error.errno, os.strerror(error.errno)) from error
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

    def __init__(self, connection: Connection, head: Response | None, received: bytes, body: Body | None) -> None:
        self.head = head
        self.body = body
        self.is_closed: bool = False
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
    def _rest(self) -> bytearray:
        """What `read_rest` has read."""
        return bytearray()

    @cached_property
    def _rest_reader(self) -> aio.ChunkReader:
        return aio.ChunkReader(self, Demuxer(raw=True), "error")

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
        is_broken = self.body is not None and self.body.is_broken
        if self._early or is_broken or self._tls is not None:  # or what the handshake has decrypted
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
            self._end_with_connection()
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
            if self.body is not None and self.body.is_broken:
                self._take(b"")  # raises why
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
        """The stream has ended, and said so."""
        assert self._reader is not None
        self._reader.eof_received()
        self._transport.close()

    def _end_with_connection(self) -> None:
        """Nothing more comes; whether that is an end, of ssh its exit status tells."""
        assert self._reader is not None
        if self._connection.process is None:
            self._end()
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
            self._end_with_connection()

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
        while batch := await self._rest_reader.read():
            for _, payload in batch:
                self._rest += payload
            if len(self._rest) > MAX_BODY_SIZE:
                raise HandshakeError(f"the answer's body is larger than {MAX_BODY_SIZE} bytes")
        return bytes(self._rest)

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


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
