"""aiodocker with muxframe's streams: the same calls, with nothing lost and nothing passed over in silence.

    from muxframe.compat import aiodocker
    aiodocker.install()

makes aiodocker's `attach`, `exec.start`, `log` and the logs of services demultiplex here. The connections stay
aiodocker's own (aiohttp's), and so do requests, timeouts and errors of HTTP. What is different from aiodocker:

- An answer of 200 without an upgrade is a stream like that of 101, and one that has ended already is read, too.
- `Stream.write_eof` ends stdin; the output goes on.
- A cancelled `read_out` has taken nothing; if it was still opening, the next call waits for the same answer.
- An end inside a frame (whose beginning is delivered), an unknown stream, a frame above 16 MiB (before it is read), an
  error that the daemon reports and a lost connection are errors, after everything that came before.
- `log(..., demux=True)` yields Messages. Text is decoded for each stream by itself, and what is no UTF-8 is replaced.

As before, `container.logs` (DockerLog) publishes the lines of the wire, headers and all; `websocket` has no frames.
"""

from __future__ import annotations

import asyncio
import codecs
import errno
import socket
import warnings
from collections import deque
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

try:
    import aiodocker.containers
    import aiodocker.execs
    import aiodocker.multiplexed
    import aiodocker.services
    import aiodocker.stream
    import aiohttp
except ImportError as _error:
    missing = "muxframe.compat.aiodocker needs aiodocker: pip install aiodocker"
    raise ModuleNotFoundError(missing, name=_error.name) from _error

from .. import aio
from .._framing import Demuxer
from ..engine.calls import MULTIPLEXED
from ..errors import ConnectionLostError, DaemonError, FramingError, HandshakeError
from ._patching import Patch, UncheckedVersionWarning

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from ._patching import Installed

__all__ = [
    "CHECKED_VERSIONS",
    "Message",
    "Stream",
    "UncheckedVersionWarning",
    "install",
    "multiplexed_result_list",
    "multiplexed_result_stream",
    "uninstall",
]

#: The versions of aiodocker that the tests were run with.
CHECKED_VERSIONS = ("0.25.0", "0.26.0", "0.27.0")

#: Bytes that aiohttp may hold, twice, before it stops to receive.
RECEIVE_LIMIT = 64 * 1024

Message = aiodocker.stream.Message


def install() -> Installed:
    """Make aiodocker read through muxframe. Once is enough; streams that are open already stay as they are.

    Returns:
        A context manager that undoes it, to be used or not: `with install(): ...`.

    Warns:
        UncheckedVersionWarning: the version of aiodocker is not one of CHECKED_VERSIONS.

    Raises:
        AttributeError: it is one that this does not fit; nothing has been replaced.
    """
    return _PATCH.install()


def uninstall() -> None:
    """Put everything back as it was found."""
    _PATCH.uninstall()


# --- what aiohttp receives -------------------------------------------------------------------------------------------


class _Body:
    """The bytes of a stream, as they come: all of them, and the truth about their end."""

    def __init__(self, content: Any, protocol: Any) -> None:
        self._content = content
        self._protocol = protocol
        self.has_stdin = False  # written to: a reset is an end, as the system makes one where input is left unread

    def __aiter__(self) -> _Body:
        return self

    async def __anext__(self) -> bytes:
        try:
            data: bytes = await self._content.readany()
        except Exception:
            data = self._content._read_nowait(-1)  # aiohttp would drop what came before the fault
            if not data:
                raise
        if not data:
            self._check_end()
            raise StopAsyncIteration
        return data

    def _check_end(self) -> None:
        """Refuse what aiohttp calls an end, too: a broken connection."""
        error = None if self._protocol is None else self._protocol.exception()
        if isinstance(error, aiohttp.ClientOSError) and not (self.has_stdin and error.errno == errno.ECONNRESET):
            raise ConnectionLostError(f"the connection was lost: {error}") from error


class _Upgraded:
    """What aiohttp hands the bytes of an upgraded connection to."""

    def __init__(self, content: Any) -> None:
        self.feed_eof = content.feed_eof
        self.set_exception = content.set_exception
        self._feed = content.feed_data

    def feed_data(self, data: bytes) -> tuple[bool, bytes]:
        self._feed(data)
        return False, b""


def _take_over(response: Any) -> _Body:
    """Return what follows the head of an answer."""
    connection = response.connection
    if response.status != 101:
        return _Body(response.content, None if connection is None else connection.protocol)
    if connection is None:  # let go by aiohttp, which goes by the headers
        raise HandshakeError("the answer is 101, but its headers speak of no upgrade", response.status)
    protocol = connection.protocol
    content = aiohttp.StreamReader(protocol, RECEIVE_LIMIT, loop=asyncio.get_running_loop())
    protocol.set_parser(_Upgraded(content), content)  # hands over what came with the head
    if protocol.transport is None:  # it has ended since, and nobody was there to be told
        content.feed_eof()
    return _Body(content, protocol)


def _open_reader(response: Any, body: _Body, is_tty: bool) -> aio.Reader[Any]:
    if is_tty and response.content_type != MULTIPLEXED:
        return aio.chunks(body, demuxer=Demuxer(raw=True))
    return aio.frames(body)


async def _take(reader: aio.Reader[Any]) -> list[Any]:
    """Return the Messages that wait, at least one; none at the end. The beginning of a frame goes before its fault."""
    try:
        batch = await reader.read()
    except FramingError as fault:
        if not fault.chunks:
            raise
        batch = fault.chunks  # the next call raises
    return [Message(stream, bytes(data)) for stream, data in batch]


# --- attach and exec -------------------------------------------------------------------------------------------------


class Stream(aiodocker.stream.Stream):  # type: ignore[misc]
    """What `attach` and `exec.start` return: aiodocker's Stream, read through muxframe.

    A Message is a whole frame, as the engine sent it; with a TTY it is what has come. `async with`, or the first call,
    opens it.
    """

    _closed: bool
    _resp: Any

    def __init__(self, docker: Any, setup: Any, timeout: Any = None) -> None:
        super().__init__(docker, setup, timeout)
        self._opening: asyncio.Task[None] | None = None
        self._body: Any = None
        self._reader: Any = None
        self._waiting: deque[Any] = deque()

    async def _init(self) -> None:
        if self._opening is None:
            self._opening = asyncio.ensure_future(self._open())
        if not self._opening.done():
            await asyncio.wait([self._opening])  # cancelled, this leaves it to the next call
        if self._opening.cancelled():
            raise ConnectionLostError("the stream was closed while it was being opened")
        self._opening.result()

    async def _open(self) -> None:
        url, body, is_tty = await self._setup()
        timeouts = self._timeout or self.docker._timeout
        response = await self.docker._do_query(
            url,
            method="POST",
            data=body,
            headers={"Connection": "Upgrade", "Upgrade": "tcp"},
            timeout=aiohttp.ClientTimeout(connect=timeouts.connect, sock_connect=timeouts.sock_connect),
            read_until_eof=True,
        )
        self._resp = response
        self._body = _take_over(response)
        self._reader = _open_reader(response, self._body, is_tty)
        if response.connection is not None:
            response.connection.protocol.force_close()  # nobody else may have it afterwards
            sock = response.connection.transport and response.connection.transport.get_extra_info("socket")
            if sock is not None:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)

    async def read_out(self) -> Any:
        """Return the next Message of stdout or stderr; None at the end, and once this end is closed.

        Raises:
            FramingError, DaemonError: after everything before the fault; every later call raises the same.
            ConnectionLostError: the connection broke; likewise.
            aiohttp.ClientError: the body of a 200 broke off; likewise.
        """
        while not self._waiting:
            await self._init()
            try:
                messages = await _take(self._reader)
            except Exception:
                if self._closed:  # whatever it makes of that
                    return None
                raise
            if not messages:
                return None
            self._waiting.extend(messages)
        return self._waiting.popleft()

    async def write_in(self, data: bytes) -> None:
        """Write into stdin, waiting while the engine does not take it.

        Raises:
            RuntimeError: this was closed, or stdin ended.
            ConnectionLostError: nobody is there to take it.
        """
        await self._init()
        transport = self._transport()
        transport.write(data)
        await self._resp.connection.protocol._drain_helper()

    async def write_eof(self) -> None:
        """End stdin; the output goes on, as far as the engine passes the end on to the process.

        Raises:
            NotImplementedError: asyncio has no such thing for this connection (TLS): `muxframe.aio` has.
            RuntimeError, ConnectionLostError: as by `write_in`.
        """
        await self._init()
        transport = self._transport()
        if not transport.can_write_eof():
            raise NotImplementedError("asyncio cannot end stdin alone on this connection (TLS): use muxframe.aio")
        transport.write_eof()

    def _transport(self) -> Any:
        if self._closed:
            raise RuntimeError("Cannot write to closed transport")
        connection = self._resp.connection
        transport = None if connection is None else connection.transport
        if transport is None or transport.is_closing():
            raise ConnectionLostError("the connection has ended")
        self._body.has_stdin = True
        return transport

    async def close(self) -> None:
        """Close the connection. What was received can still be read."""
        if self._opening is not None and not self._opening.done():
            self._opening.cancel()
        if self._resp is not None and not self._closed:
            self._closed = True
            self._resp.close()

    async def __aenter__(self) -> Stream:
        try:
            await self._init()
        except BaseException:
            await self.close()
            raise
        return self

    def __del__(self, _warn: Any = warnings.warn) -> None:
        if self._resp is not None and not self._closed:  # up to 0.26 aiodocker warns of the others
            _warn("Unclosed ExecStream", ResourceWarning)


# --- logs ------------------------------------------------------------------------------------------------------------


async def _messages(response: Any, is_tty: bool) -> AsyncGenerator[Any, None]:
    """Iterate over the Messages of a log."""
    reader = _open_reader(response, _take_over(response), is_tty)
    try:
        while messages := await _take(reader):
            for message in messages:
                yield message
    finally:
        response.release()


async def multiplexed_result_stream(
    response: Any, is_tty: bool = False, encoding: str = "utf-8"
) -> AsyncGenerator[str, None]:
    """Iterate over the text of a log, both streams in the order of the wire; a character is never cut.

    Raises:
        FramingError, DaemonError, ConnectionLostError, aiohttp.ClientError: as `Stream.read_out`.
    """
    decoders: dict[int, codecs.IncrementalDecoder] = {}
    async with aclosing(_messages(response, is_tty)) as messages:
        async for stream, data in messages:
            if stream not in decoders:
                decoders[stream] = codecs.getincrementaldecoder(encoding)("replace")
            if text := decoders[stream].decode(data):
                yield text
    for decoder in decoders.values():
        if text := decoder.decode(b"", final=True):
            yield text


async def multiplexed_result_list(response: Any, is_tty: bool = False, encoding: str = "utf-8") -> list[str]:
    """Return the text of a log, as `multiplexed_result_stream` yields it."""
    return [text async for text in multiplexed_result_stream(response, is_tty, encoding)]


class _Demuxed:
    """Stands in for the container (or the services) whose log is asked for, and takes the answer as Messages."""

    def __init__(self, asked: Any) -> None:
        self._asked = asked

    def __getattr__(self, name: str) -> Any:
        return getattr(self._asked, name)

    async def _logs_stream(self, asking: Any, is_tty: bool | None = None) -> AsyncGenerator[Any, None]:
        if is_tty is None:
            is_tty = (await self.show())["Config"]["Tty"]
        async with asking as response, aclosing(_messages(response, is_tty)) as messages:
            async for message in messages:
                yield message

    async def _logs_list(self, asking: Any, is_tty: bool | None = None) -> list[Any]:
        messages: list[Any] = []
        try:
            async for message in self._logs_stream(asking, is_tty):
                messages.append(message)
        except (FramingError, DaemonError) as fault:
            fault.chunks = messages
            raise
        return messages


_container_log = aiodocker.containers.DockerContainer.log
_service_logs = aiodocker.services.DockerServices.logs


def _log(self: Any, *, demux: bool = False, **options: Any) -> Any:
    """Read the container's log, as aiodocker does; with `demux` in Messages (stream, bytes), not text."""
    return _container_log(_Demuxed(self) if demux else self, **options)


def _logs(self: Any, service_id: str, *, demux: bool = False, **options: Any) -> Any:
    """Read the service's logs, as aiodocker does; with `demux` in Messages (stream, bytes), not text."""
    return _service_logs(_Demuxed(self) if demux else self, service_id, **options)


_PATCH = Patch(
    "aiodocker",
    CHECKED_VERSIONS,
    [
        *((module, "Stream", Stream) for module in (aiodocker.stream, aiodocker.containers, aiodocker.execs)),
        *(
            (module, replacement.__name__, replacement)
            for module in (aiodocker.multiplexed, aiodocker.containers, aiodocker.services)
            for replacement in (multiplexed_result_stream, multiplexed_result_list)
        ),
        (aiodocker.containers.DockerContainer, "log", _log),
        (aiodocker.services.DockerServices, "logs", _logs),
    ],
)
