"""HTTP up to the hijack, without any I/O: requests out, answers in, and the connection handed over at the end.

    Request, Response        what is asked and what is answered
    Conversation             the HTTP side of one connection: exchange by exchange; the last may become a stream
    Body                     what stands between a connection's bytes and the stream: nothing at all (None) after a
                             hijack or in an answer that lasts until the connection's end, HTTP chunks otherwise

h11 does the parsing, save that of the chunks of a stream. What came in the same packet as the head of an answer belongs
to the stream and is handed over with it. An answer's head has a cap, as has the body of an answer that is not a stream;
redirects are never followed.

Source: RFC 9112; Docker Engine API, "Attach to a container", hijacking.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode, urlsplit

import h11

from .. import __version__
from ..errors import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    EngineError,
    HandshakeError,
    NotFoundError,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

    from typing_extensions import Buffer

__all__ = ["MAX_BODY_SIZE", "Body", "Conversation", "LateBody", "Request", "Response", "StackedBody"]

MAX_HEAD_SIZE = 64 * 1024
MAX_BODY_SIZE = 64 * 1024 * 1024  #: of an answer that is not a stream; the largest inspect seen is a few hundred KiB
MAX_INTERIM = 32  #: 1xx answers before the one that counts
MAX_MESSAGE_SIZE = 16 * 1024  #: of a server's error text that an exception keeps
MAX_QUOTE_SIZE = 200  #: of what is no HTTP

TLS_ALERT = b"\x15"  #: what an answer begins with that comes from who expects a TLS handshake

MAX_CHUNK_HEAD_SIZE = 4096  #: bytes; nobody is known to send extensions

#: The end of a chunk, and the size of the next.
_CHUNK_HEAD = re.compile(rb"\r\n([0-9A-Fa-f]{1,16})[ \t]*(?:;[^\r\n]*)?\r\n")

_ERRORS = {400: BadRequestError, 404: NotFoundError, 409: ConflictError}

#: What Podman says with a 500 where Docker has a status of its own.
_ERRORS_OF_500 = {
    "container state improper": ConflictError,
    "no such container": NotFoundError,
    "invalid detach keys": BadRequestError,
}


def kind_of(message: str) -> type[EngineError]:
    """Return the kind of error that an engine's own words are about, where no status says so."""
    return next((kind for words, kind in _ERRORS_OF_500.items() if words in message), EngineError)


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request.

    Attributes:
        method: GET, POST and so on.
        path: quoted, beginning with a slash. It may be a secret, as may what follows: `repr` shows none of it.
        query: parameters, not quoted yet.
        headers: beyond Host, User-Agent and those of the body and the upgrade.
        body: bytes, or what json can say, or None.
        upgrade: what the connection is to become: "tcp" (hijack), "websocket", or nothing.
        is_http10: send it as HTTP/1.0, which an engine answers without HTTP chunks.
        host: the Host header, of the engine it is sent to.
    """

    method: str
    path: str = field(repr=False)
    query: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: Any = field(default=None, repr=False)
    upgrade: str = ""
    is_http10: bool = False
    host: str = "localhost"

    @property
    def target(self) -> str:
        """Path and query, as they stand in the request line."""
        return f"{self.path}?{urlencode(self.query, quote_via=quote)}" if self.query else self.path

    @property
    def content(self) -> bytes:
        """The body's bytes.

        Raises:
            ValueError: there is a str in it that is no text: engines would put U+FFFD in its place.
        """
        if self.body is None:
            return b""
        if isinstance(self.body, bytes):
            return self.body
        try:
            return json.dumps(self.body, ensure_ascii=False).encode()
        except UnicodeEncodeError as error:
            wrong = error.object[error.start : error.end]
            raise ValueError(f"not Unicode text, which is all that an engine takes: {wrong!r}") from None

    def all_headers(self) -> list[tuple[str, str]]:
        """List the headers as they are sent."""
        headers = {"Host": self.host, "User-Agent": f"muxframe/{__version__}"}
        if self.body is not None and not isinstance(self.body, bytes):
            headers["Content-Type"] = "application/json"
        if self.upgrade:
            headers |= {"Connection": "Upgrade", "Upgrade": self.upgrade}
        if self.method != "GET" or self.content:
            headers["Content-Length"] = str(len(self.content))
        return list((headers | dict(self.headers)).items())


@dataclass(frozen=True, slots=True)
class Response:
    """The answer to a Request.

    Attributes:
        status: 101 or 200..599.
        reason: its reason phrase.
        headers: by lower-case name.
        body: empty where the answer became a stream.
    """

    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def content_type(self) -> str:
        """The media type without its parameters, in lower case; empty where the answer has none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def json(self) -> Any:
        """Return what the body says.

        Raises:
            HandshakeError: it is no JSON.
        """
        try:
            return json.loads(self.body)
        except (ValueError, RecursionError) as error:
            raise HandshakeError(f"the answer is no JSON: {error}", self.status, self.reason) from None

    def check(self) -> None:
        """Raise what an answer that is no success stands for.

        Raises:
            NotFoundError, ConflictError, BadRequestError, EngineError: by status; HandshakeError for a redirect.
        """
        if self.status < 300 or self.status == 304:  # 304: it was so already
            return
        message = self._message()
        if self.status < 400:
            place = _host_of(self.headers.get("location", "")) or "another path"
            raise HandshakeError(f"redirected to {place}, which is not followed", self.status, self.reason)
        kind = kind_of(message) if self.status == 500 else _ERRORS.get(self.status, EngineError)
        raise kind(message, self.status, self.reason)

    def _message(self) -> str:
        """Find the server's own words: {"message"} of JSON, with Podman's "cause", or plain text."""
        text = self.body[:MAX_MESSAGE_SIZE].decode("utf-8", "replace").strip()
        try:
            answer = json.loads(self.body)
            message = str(answer["message"])[:MAX_MESSAGE_SIZE]
        except (ValueError, LookupError, TypeError, RecursionError):
            return text or "the engine said no more"
        cause = str(answer.get("cause") or "")[:MAX_MESSAGE_SIZE]
        return message if cause in message else f"{message}: {cause}"


def _host_of(url: str) -> str | None:
    """Name the host of an address, and nothing else of it: a path may be a secret."""
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


class Body:
    """What stands between the bytes of a connection and those of the stream it carries.

    Attributes:
        is_over: the stream has ended, whether or not the connection has.
    """

    is_over = False

    @property
    def is_broken(self) -> bool:
        """Say whether feeding can but raise: what came before the fault has been returned, and no more will come."""
        return False

    def feed(self, data: Buffer) -> bytes:
        """Take bytes off the connection (none: it has ended) and return those of the stream.

        Raises:
            ConnectionLostError: the connection ended before the stream did.
        """
        raise NotImplementedError

    def outgoing(self) -> bytes:
        """Return what must be sent in answer to what was fed."""
        return b""

    def pack(self, data: bytes) -> bytes:
        """Return what carries data to the other side.

        Raises:
            ConnectionLostError: it takes no more.
        """
        return data

    def pack_eof(self) -> bytes | None:
        """Return what says that no more will be written; None: closing the connection's write side says it."""
        return None


class StackedBody(Body):
    """Two bodies, one behind the other: the second unpacks what the first gives."""

    def __init__(self, first: Body, second: Body) -> None:
        self._first = first
        self._second = second
        # With the head: then nothing may come any more, not even the connection's end.
        self.is_over: bool = first.is_over

    @property
    def is_broken(self) -> bool:
        return self._first.is_broken

    def feed(self, data: Buffer) -> bytes:
        packed = self._first.feed(data)
        stream = self._second.feed(packed) if packed else b""
        if self._first.is_over or not data:
            self.is_over = True
            stream += self._second.feed(b"")
        return stream


class _ChunkedBody(Body):
    """HTTP's chunks. Engines make one of each message of a log: too many for a parser that knows more than that.

    Args:
        data: what has come behind the head.
    """

    def __init__(self, data: bytes) -> None:
        self._waiting = b"\r\n" + data  # as if there had been a chunk before
        self._left = 0  # bytes of the chunk
        self._is_last = False  # what is waiting is behind the last chunk
        self._fault: str | None = None

    @property
    def is_broken(self) -> bool:
        return self._fault is not None and not self.is_over

    def feed(self, data: Buffer) -> bytes:
        if not (data or self.is_over or self._fault):
            self._fault = "the connection ended"
        self._waiting += bytes(data)
        return self.held()

    def held(self) -> bytes:
        """Return what has come, with the head for example; a fault is raised once nothing is before it."""
        wire, position, left, parts = self._waiting, 0, self._left, []
        while not self._is_last:
            if left:
                part = wire[position : position + left]
                parts.append(part)
                position += len(part)
                left -= len(part)
            if left or (head := _CHUNK_HEAD.match(wire, position)) is None:
                break
            position = head.end()
            left = int(head[1], 16)
            if not left:
                self._is_last = True
                position -= 2  # an empty line ends what trails it
        self._waiting, self._left = wire[position:], left
        if not left:
            self._look_ahead()
        received = b"".join(parts)
        if self._fault is not None and not (received or self.is_over):
            raise ConnectionLostError(f"the answer broke off: {self._fault}")
        return received

    def _look_ahead(self) -> None:
        """Find the end, or what is no chunk."""
        if self._is_last:
            self.is_over = b"\r\n\r\n" in self._waiting
        elif b"\n" in self._waiting[2:]:
            self._fault = self._fault or "illegal chunk header"
        if len(self._waiting) > MAX_CHUNK_HEAD_SIZE and not self.is_over:
            self._fault = self._fault or "a chunk header without end"


class _HttpBody(Body):
    """Of a known length."""

    def __init__(self, connection: h11.Connection) -> None:
        self._connection = connection
        self._fault: h11.RemoteProtocolError | None = None

    @property
    def is_broken(self) -> bool:
        return self._fault is not None

    def feed(self, data: Buffer) -> bytes:
        if not self.is_over and self._fault is None:
            self._connection.receive_data(bytes(data))
        return self.held()

    def held(self) -> bytes:
        """Return what has come, with the head for example; a fault is raised once nothing is before it."""
        parts: list[bytes] = []
        try:
            while not self.is_over and (event := self._connection.next_event()) is not h11.NEED_DATA:
                if isinstance(event, h11.Data):
                    parts.append(bytes(event.data))
                else:
                    self.is_over = True
        except h11.RemoteProtocolError as error:
            self._fault = self._fault or error
        if self._fault is not None and not parts:
            raise ConnectionLostError(f"the answer broke off: {self._fault}")
        return b"".join(parts)


class Conversation:
    """The HTTP side of one connection.

    Give `send`'s bytes to the other side and what comes from there to `receive`, until `is_complete` (or, of an answer
    that is to become a stream, until `is_stream`). Then send the next request if `is_reusable`, or `take_over`.

    """

    def __init__(self) -> None:
        self._connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=MAX_HEAD_SIZE)
        self._wants_stream = False
        self._has_ended = False
        self._interim = 0
        self._body = bytearray()
        self._head: Response | None = None
        self.is_complete: bool = False

    @property
    def is_stream(self) -> bool:
        """The head is there, and what follows is a stream."""
        return self._wants_stream and self._head is not None and self._head.status < 300

    @property
    def is_reusable(self) -> bool:
        """Say whether another request can be sent on the connection."""
        states = self._connection.our_state, self._connection.their_state
        return self.is_complete and not self._has_ended and states == (h11.DONE, h11.DONE)

    @property
    def response(self) -> Response:
        """The answer, whole if it is no stream."""
        assert self._head is not None
        head = self._head
        return Response(head.status, head.reason, head.headers, bytes(self._body))

    def check(self) -> None:
        """Raise what the whole answer stands for, if it is no success, or not the stream that was asked for.

        Raises:
            EngineError: or one of its kinds.
        """
        response = self.response
        response.check()
        if self._wants_stream:
            raise HandshakeError("the answer is no stream", response.status, response.reason)

    def send(self, request: Request, *, stream: bool = False) -> bytes:
        """Begin an exchange; return the bytes to send.

        Args:
            request: what to ask for.
            stream: what follows the head of a success is a stream.
        """
        if self._connection.our_state is not h11.IDLE:
            self._connection.start_next_cycle()
        self._wants_stream = stream
        self._interim, self._body = 0, bytearray()
        self._head, self.is_complete = None, False
        content = request.content
        try:
            head = h11.Request(method=request.method, target=request.target, headers=request.all_headers())
            wire = self._connection.send(head) or b""
            wire += (self._connection.send(h11.Data(data=content)) or b"") if content else b""
            wire += self._connection.send(h11.EndOfMessage()) or b""
        except h11.LocalProtocolError as error:
            text = re.split(r" b['\"]", str(error))[0]  # without the value, which may be a token
            raise ValueError(f"cannot be said in HTTP: {text}") from None
        except UnicodeEncodeError:  # has all of what it could not encode
            raise ValueError("cannot be said in HTTP: not ASCII") from None
        if request.is_http10:  # h11 writes 1.1 only, and reads both
            wire = wire.replace(b" HTTP/1.1\r\n", b" HTTP/1.0\r\n", 1)
        return wire

    def receive(self, data: Buffer) -> None:
        """Take bytes off the connection; none: it has ended.

        Raises:
            HandshakeError: this is no HTTP, or has no end.
            ConnectionLostError: the connection ended before the answer did.
        """
        self._has_ended = not data
        try:
            self._connection.receive_data(bytes(data))
            while not self.is_complete and not self.is_stream:
                event = self._connection.next_event()
                if event is h11.NEED_DATA:
                    break
                self._take(event)
        except h11.RemoteProtocolError as error:
            if not data:
                raise ConnectionLostError("the connection ended before the answer did") from None
            if self._head is None and bytes(data).startswith(TLS_ALERT):
                raise HandshakeError("the other side wants TLS: https://, or tls") from None
            raise HandshakeError(f"the answer is not usable HTTP: {str(error)[:MAX_QUOTE_SIZE]}") from None

    def _take(self, event: Any) -> None:
        if isinstance(event, h11.InformationalResponse) and event.status_code != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise HandshakeError(f"more than {MAX_INTERIM} interim answers")
        elif isinstance(event, (h11.Response, h11.InformationalResponse)):
            headers: dict[str, str] = {}
            for name, value in event.headers:
                headers[name.decode("ascii")] = value.decode("latin-1")
            self._head = Response(event.status_code, bytes(event.reason).decode("latin-1"), headers)
            if event.status_code == 101 and not self._wants_stream:
                raise HandshakeError("the engine switched protocols unasked", 101, self._head.reason)
        elif isinstance(event, h11.Data):
            if len(self._body) + len(event.data) > MAX_BODY_SIZE:
                raise HandshakeError(f"the answer's body is larger than {MAX_BODY_SIZE} bytes")
            self._body += event.data
        elif isinstance(event, h11.EndOfMessage):
            self.is_complete = True
        else:
            raise ConnectionLostError("the connection ended without an answer")

    def take_over(self) -> tuple[bytes, Body | None]:
        """Leave HTTP: return what has come of the stream already, and what stands before the rest."""
        assert self._head is not None
        headers = self._head.headers
        if self._head.status == 101 or not ("transfer-encoding" in headers or "content-length" in headers):
            return self._connection.trailing_data[0], None
        is_chunked = "transfer-encoding" in headers  # h11 takes no other
        body = _ChunkedBody(self._connection.trailing_data[0]) if is_chunked else _HttpBody(self._connection)
        return body.held(), body


class LateBody(Body):
    """An answer whose head is still to come: with the first bytes of the stream.

    Args:
        conversation: a request has been sent.
    """

    def __init__(self, conversation: Conversation) -> None:
        self._conversation = conversation
        self._has_begun = False
        self._inner: Body | None = None

    @property
    def is_broken(self) -> bool:
        return self._inner is not None and self._inner.is_broken

    def feed(self, data: Buffer) -> bytes:
        """Take bytes off the connection.

        Raises:
            EngineError: the engine refused after all.
            HandshakeError, ConnectionLostError: as `Conversation.receive`.
        """
        if not self._has_begun:
            self._conversation.receive(data)
            if not self._conversation.is_stream:
                if self._conversation.is_complete:
                    self._conversation.check()
                return b""
            self._has_begun = True
            received, self._inner = self._conversation.take_over()
        elif self._inner is None:
            return bytes(data)
        else:
            received = self._inner.feed(data)
        self.is_over: bool = self._inner is not None and self._inner.is_over
        return received
