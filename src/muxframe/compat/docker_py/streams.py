"""What takes the place of parts of APIClient, and of the response under it."""

from __future__ import annotations

import functools
import http.client
import io
import re
import socket
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

import requests.exceptions
from docker.types import CancellableStream

from ..._framing import Demuxer, FrameReader
from ..._framing_py import RECEIVE_BUFFER_SIZE
from ...copying import copy_on
from ...errors import DaemonError, FramingError
from ...protocol import Stream
from ...sources import Source, open_source
from .errors import fail, lose
from .sockets import Patient, demux_adaptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import TypeAlias

    from ...protocol import Chunk

    _CancellableStream: TypeAlias = CancellableStream[Any]
else:
    _CancellableStream = CancellableStream  # generic for type checkers alone

#: Whether the request at hand asks for an upgrade.
_upgrades: ContextVar[bool] = ContextVar("upgrades", default=False)

#: In a call of logs: its demux.
_logs: ContextVar[bool | None] = ContextVar("logs", default=None)

_PEEK_SIZE = 8192


# --- the response ----------------------------------------------------------------------------------------------------


class Response(http.client.HTTPResponse):
    """A response that, where an upgrade was asked for, leaves what came behind its head in the socket.

    http.client reads heads through a buffer of some kilobytes, which docker-py then throws away with what is in it.
    """

    fp: Any

    def begin(self) -> None:
        if self.fp is not None and not hasattr(self.fp, "raw") and hasattr(self.fp, "channel"):
            self.fp = _buffered_channel(self.fp.channel)
        if not _upgrades.get() or self.fp is None or not hasattr(self.fp, "raw"):
            super().begin()
            return
        file, self.fp = self.fp, _head_of(self.fp.raw)
        try:
            super().begin()
        finally:
            if self.fp is None:  # it was no HTTP
                file.close()
            else:
                self.fp = file


def _head_of(raw: Any) -> io.RawIOBase:
    """Return a file to read lines from, which takes no byte behind them."""
    sock = getattr(raw, "_sock", None)
    return _PlainHead(sock) if type(sock) is socket.socket else _Head(raw)


class _Head(io.RawIOBase):
    """Reads lines byte by byte, as files do that have no peek: under TLS, most of the bytes are in memory."""

    def __init__(self, raw: Any) -> None:
        self._raw = raw

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int | None:
        size: int | None = self._raw.readinto(buffer)
        return size


class _PlainHead(io.RawIOBase):
    """Reads a line with two calls: one to see where it ends."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock

    def readable(self) -> bool:
        return True

    def peek(self, _: int) -> bytes:
        return self._sock.recv(_PEEK_SIZE, socket.MSG_PEEK)

    def readinto(self, buffer: Any, /) -> int:
        return self._sock.recv_into(buffer)


class _Channel(io.RawIOBase):
    """A channel of paramiko's as a file. What paramiko makes of it has no read1."""

    def __init__(self, channel: Any) -> None:
        self._sock = channel  # as in SocketIO: what CancellableStream shuts down

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        data: bytes = self._sock.recv(len(buffer))
        buffer[: len(data)] = data
        return len(data)


def _buffered_channel(channel: Any) -> io.BufferedReader:
    file: Any = io.BufferedReader(_Channel(channel))
    file.channel = channel  # where docker-py looks for it
    return file  # type: ignore[no-any-return]


def post(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make APIClient.post of it: attach and exec ask for an upgrade."""

    @functools.wraps(original)
    def post(self: Any, *args: Any, **kwargs: Any) -> Any:
        token = _upgrades.set("Upgrade" in (kwargs.get("headers") or ()))
        try:
            return original(self, *args, **kwargs)
        finally:
            _upgrades.reset(token)

    return post


def get(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make APIClient.get of it: the body of logs comes as it is, and is not read before `get_result_tty` does it."""

    @functools.wraps(original)
    def get(self: Any, url: str, **kwargs: Any) -> Any:
        if url.endswith("/logs"):  # requests would ask proxies to compress it
            kwargs["headers"] = {**(kwargs.get("headers") or {}), "Accept-Encoding": "identity"}
            if _logs.get() is not None:
                kwargs["stream"] = True
        return original(self, url, **kwargs)

    return get


class _Body(Source):
    """The body of a response."""

    def __init__(self, response: Any) -> None:
        self._http = response.raw._fp

    def readinto(self, buffer: memoryview, /) -> int:
        data: bytes = self._http.read1(len(buffer))
        if not data and self._http.length:
            raise http.client.IncompleteRead(data, self._http.length)
        buffer[: len(data)] = data
        return len(data)


class _ChunkedBody(Source):
    """The body of a response that comes in HTTP's chunks: engines send one for each frame, so they have to be cheap."""

    def __init__(self, response: Any) -> None:
        self._http = response.raw._fp
        self._wire = b""
        self._position = 0
        self._left = 0  # of the chunk at hand
        self._expected = _FIRST_SIZE

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._http.isclosed():
            if not self._left:
                size = self._take_whole_chunks(buffer)
                if size:
                    return size
                if self._take_size():
                    continue
            piece = self._wire[self._position : self._position + min(self._left, len(buffer))]
            if piece:
                buffer[: len(piece)] = piece
                self._position += len(piece)
                self._left -= len(piece)
                return len(piece)
            self._read_more()
        return 0

    def _take_whole_chunks(self, buffer: memoryview) -> int:
        """Take the chunks that are there and fit, up to the first that is not whole or is the last."""
        if self._expected is not _NEXT_SIZE:
            return 0
        wire, position, room = self._wire, self._position, len(buffer)
        match = _NEXT_SIZE.match
        parts = []
        while found := match(wire, position):
            start = found.end()
            size = int(found[1], 16)
            if not size or size > room or start + size > len(wire):
                break
            position = start + size
            room -= size
            parts.append(wire[start:position])
        self._position = position
        data = b"".join(parts)
        buffer[: len(data)] = data
        return len(data)

    def _take_size(self) -> bool:
        """Take what stands between two chunks, or behind the last, if it is there; return whether it was."""
        found = self._expected.match(self._wire, self._position)
        if found is None:
            rest = self._wire[self._position :]
            if len(rest) > _MAX_SIZE_LINE or (self._expected is not _TRAILER and rest.count(b"\n") > 1):
                raise http.client.HTTPException(f"no HTTP chunk: {rest[:40]!r}")
            return False
        self._position = found.end()
        if self._expected is _TRAILER:
            self._http.close()
            return True
        self._left = int(found[1], 16)
        self._expected = _NEXT_SIZE if self._left else _TRAILER
        return True

    def _read_more(self) -> None:
        data = self._http.fp.read1(RECEIVE_BUFFER_SIZE)
        if not data:
            raise http.client.IncompleteRead(b"")
        self._wire = self._wire[self._position :] + data
        self._position = 0


_FIRST_SIZE = re.compile(rb"([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\n]*)?\r?\n")
_NEXT_SIZE = re.compile(rb"\r?\n" + _FIRST_SIZE.pattern)
_TRAILER = re.compile(rb"(?:[^\r\n]+\r?\n)*\r?\n")
_MAX_SIZE_LINE = 8192


def _body(response: Any) -> Source:
    return _ChunkedBody(response) if response.raw._fp.chunked else _Body(response)


class _Gathered(Source):
    """A source that waits until the memory it is given is full: for who waits for the end anyway."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._error: Exception | None = None

    def readinto(self, buffer: memoryview, /) -> int:
        if self._error is not None:
            raise self._error
        filled = 0
        try:
            while filled < len(buffer) and (size := self._source.readinto(buffer[filled:])):
                filled += size
        except Exception as error:
            if not filled:
                raise
            self._error = error
        return filled


def _finish(response: Any) -> None:
    """Give the connection back where the body was read to its end; otherwise close it."""
    if response.raw._fp.isclosed():
        response.raw.release_conn()
    else:
        response.close()


# --- streams and results ---------------------------------------------------------------------------------------------


def _pieces(source: Source, tty: bool) -> Iterator[Chunk]:
    """Yield payload as it comes."""
    demuxer, block = Demuxer(raw=tty), memoryview(bytearray(RECEIVE_BUFFER_SIZE))
    while size := source.readinto(block):
        try:
            chunks = demuxer.feed(block[:size])
        except (FramingError, DaemonError) as fault:
            yield from fault.chunks
            fault.chunks = []
            raise
        yield from chunks
    demuxer.feed_eof()


def _messages(source: Source) -> Iterator[Chunk]:
    """Yield the payload of whole frames: in logs each is a line, or what the engine has cut off one."""
    for stream, payload in FrameReader(source.readinto):
        if payload:
            yield stream, bytes(payload)


def _stream(chunks: Iterator[Chunk], response: Any, demux: bool) -> Iterator[Any]:
    try:
        for stream, data in chunks:
            yield demux_adaptor(stream, data) if demux else data
    except (FramingError, DaemonError) as fault:
        fail(fault, fault.chunks)
    except (OSError, http.client.HTTPException) as error:
        lose(error)
    finally:
        _finish(response)


def _whole(source: Source, tty: bool, demux: bool) -> Any:
    """Return all that source brings: bytes, or (stdout, stderr) with None for what did not come at all."""
    chunks: list[Chunk] = []
    out, err = (partial(_keep, chunks, stream) for stream in (Stream.STDOUT, Stream.STDERR))
    try:
        copy_on(source if source.memory is not None else _Gathered(source), Demuxer(raw=tty), out, err)
    except (FramingError, DaemonError) as fault:
        fail(fault, chunks)
    except TimeoutError:
        raise
    except (OSError, http.client.HTTPException) as error:
        lose(error, chunks)
    if not demux:
        return b"".join(data for _, data in chunks)
    return tuple(
        b"".join(data for stream, data in chunks if stream is each) or None for each in (Stream.STDOUT, Stream.STDERR)
    )


def _keep(chunks: list[Chunk], stream: Stream, data: bytes) -> None:
    chunks.append((stream, data))


# --- methods of APIClient --------------------------------------------------------------------------------------------


def read_from_socket(self: Any, response: Any, stream: bool, tty: bool = True, demux: bool = False) -> Any:
    """APIClient._read_from_socket: attach and exec."""
    sock = self._get_raw_response_socket(response)  # or raise the error that the response is
    self._disable_socket_timeout(sock)
    source = _body(response) if response.raw._fp.chunked else Patient(sock)
    if stream:
        return _stream(_pieces(source, tty), response, demux)
    try:
        return _whole(source, tty, demux)
    finally:
        response.close()


def get_result_tty(self: Any, stream: bool, res: Any, is_tty: bool) -> Any:
    """APIClient._get_result_tty: logs of containers and services."""
    demux = bool(_logs.get())
    self._raise_for_status(res)
    if stream and is_tty:
        pieces = self._stream_raw_result(res)
        return ((data, None) for data in pieces) if demux else pieces
    if stream:
        return _stream_body(self, res, _messages, demux)
    http_response = getattr(res.raw, "_fp", None)
    if not isinstance(http_response, http.client.HTTPResponse) or http_response.isclosed():
        return _whole(open_source(res.content), is_tty, demux)  # requests has read it already, or a test made it up
    try:
        return _whole(_body(res), is_tty, demux)
    except TimeoutError as error:
        raise requests.exceptions.ConnectionError(error) from error  # what requests makes of it
    finally:
        _finish(res)


def stream_raw_result(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make APIClient._stream_raw_result of it: of a TTY's log it gives what is there, and not byte by byte."""

    @functools.wraps(original)
    def stream_raw_result(self: Any, response: Any, chunk_size: int = 1, decode: bool = True) -> Any:
        if chunk_size != 1:  # a download
            return original(self, response, chunk_size, decode)
        return _stream_body(self, response, partial(_pieces, tty=True), False)

    return stream_raw_result


def _stream_body(client: Any, response: Any, read: Callable[[Source], Iterator[Chunk]], demux: bool) -> Iterator[Any]:
    """Begin only when the first piece is asked for, as docker-py does."""
    client._disable_socket_timeout(client._get_raw_response_socket(response))
    yield from _stream(read(_body(response)), response, demux)


def logs(original: Callable[..., Any]) -> Callable[..., Any]:
    """Make APIClient.logs of it: it takes demux=True, and then gives what attach gives."""

    @functools.wraps(original)
    def logs(self: Any, *args: Any, demux: bool = False, **kwargs: Any) -> Any:
        token = _logs.set(bool(demux))
        try:
            return original(self, *args, **kwargs)
        finally:
            _logs.reset(token)

    return logs


class Cancellable(_CancellableStream):  # type: ignore[misc]
    """A stream that close() ends quietly, and nothing else: docker-py takes every OSError for the end."""

    _is_cancelled = False

    def __next__(self) -> Any:
        try:
            return next(self._stream)
        except StopIteration:
            raise
        except Exception:
            if self._is_cancelled:
                raise StopIteration from None
            raise

    next = __next__

    def close(self) -> None:
        if not self._is_cancelled:
            self._is_cancelled = True
            super().close()
