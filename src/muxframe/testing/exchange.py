"""One request and its answer, written as the engine at hand writes it."""

from __future__ import annotations

import time
from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from .personality import JSON, PLAIN, RAW, RefusedError, dump
from .wire import GoneError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping

    from .answers import Answer, Request
    from .containers import Container
    from .engine import LoopbackEngine
    from .personality import Personality
    from .wire import Wire

Headers = dict[str, str | None]

NO_BODY = (204, 304)

#: Seconds between looks at whether a client that only waits is still there.
LOOK_INTERVAL = 0.1


class Exchange:
    """A request, and the ways to answer it.

    Attributes:
        engine: where it is answered.
        personality: how.
        request: what is asked.
        answer: where the bytes go.
        wire: the connection.
        keeps_alive: whether another request may follow on it.
        upgrade: protocol that the request is upgraded to, or None.
    """

    def __init__(self, engine: LoopbackEngine, request: Request, answer: Answer) -> None:
        self.engine = engine
        self.personality: Personality = engine.personality
        self.request = request
        self.answer = answer
        self.wire: Wire = answer.wire
        self.upgrade: str | None = None if answer.fault.no_upgrade else self.personality.upgrade(request)
        self._is_chunked = False
        closes = "close" in request.headers.get("connection", "").lower()
        self.keeps_alive: bool = request.http_version == "1.1" and not closes

    # --- what is asked ------------------------------------------------------------------------------------------------

    def container(self, name: str) -> Container:
        """Find the container of that name or id.

        Raises:
            RefusedError: there is none.
        """
        container = self.engine.find("container", name)
        if container is None:
            raise self.personality.no_container(name)
        return container

    def document(self) -> dict[str, Any]:
        """Return the JSON object in the body.

        Raises:
            RefusedError: it is none.
        """
        try:
            document = self.request.json()
        except ValueError as error:
            raise RefusedError(400, f"invalid JSON: {error}") from None
        if not isinstance(document, dict):
            raise RefusedError(400, "invalid JSON: not an object")
        return document

    def streams(self, *, default: bool = False) -> frozenset[int]:
        """Return the numbers of the streams that the query asks for; default: those too that it does not name."""
        names = (1, "stdout"), (2, "stderr")
        return frozenset(number for number, name in names if self.request.flag(name, default=default))

    # --- heads --------------------------------------------------------------------------------------------------------

    def head(self, status: int, headers: Mapping[str, str | None], *, version: str = "1.1", hold: bool = False) -> None:
        """Send a head with nothing but these headers, and the changes that a fault makes to them."""
        fields = {**headers, **(self.answer.fault.headers or {})}
        lines = [f"HTTP/{version} {status} {reason(status, fields)}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.answer.head("\r\n".join([*lines, "", ""]).encode("latin-1"), hold=hold)

    def _http_head(self, status: int, headers: Headers, *, hold: bool = False) -> None:
        """Send a head with what HTTP servers add."""
        headers["Date"] = formatdate(usegmt=True)
        if not self.keeps_alive and self.request.http_version == "1.1":
            headers["Connection"] = "close"
        self.head(status, headers, version=self.request.http_version, hold=hold)

    # --- whole answers ------------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str | None] | None = None) -> None:
        """Send an answer whose size is known."""
        fields: Headers = {**self.personality.headers(), **(headers or {})}
        if status not in NO_BODY:
            fields.setdefault("Content-Length", str(len(body)))
        self._http_head(status, fields)
        if status not in NO_BODY:
            self.answer.send(body)

    def json(self, document: object, status: int = 200) -> None:
        """Send JSON."""
        self.reply(status, dump(document), {"Content-Type": JSON})

    def text(self, status: int, text: str, headers: Mapping[str, str | None] | None = None) -> None:
        """Send an error as Go's HTTP server does: text, without the engine's headers unless they are given."""
        nothing: Headers = dict.fromkeys(self.personality.headers())
        sniffed = {"Content-Type": PLAIN, "X-Content-Type-Options": "nosniff"}
        self.reply(status, text.encode(), {**nothing, **sniffed, **(headers or {})})

    def refuse(self, error: RefusedError) -> None:
        """Send an error in the engine's own shape."""
        nothing: Headers = dict.fromkeys(self.personality.headers()) if error.is_bare else {}
        kept = {name: value for name, value in self.personality.headers().items() if name == "X-Reference-Id"}
        self.reply(error.status, self.personality.error_body(error), {**nothing, **kept, "Content-Type": JSON})

    def refuse_hijacked(self, error: RefusedError) -> None:
        """Send an error of attach: Docker has left HTTP by then, and sends text up to the end of the connection."""
        if not self.personality.is_docker:
            return self.refuse(error)
        self.keeps_alive = False
        self.head(error.status, {"Content-Type": RAW})
        self.answer.send(f"{error.message}\r\n".encode())

    # --- bodies that come bit by bit ----------------------------------------------------------------------------------

    def start_body(self, content_type: str | None, *, hold: bool = False) -> None:
        """Begin a body of unknown size: chunks, or for HTTP/1.0 everything up to the end of the connection."""
        self._is_chunked = self.request.http_version == "1.1"
        headers: Headers = {**self.personality.headers(), "Content-Type": content_type}
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            self.keeps_alive = False
        self._http_head(200, headers, hold=hold)

    def hijack(self, headers: Mapping[str, str], content_type: str, *, hold: bool = False) -> None:
        """Leave HTTP: 101 where the client asked for it, else a 200 without an end."""
        self.keeps_alive = False
        if self.answer.fault.chunked:
            return self.start_body(content_type, hold=hold)
        upgrade = {} if self.upgrade is None else {"Connection": "Upgrade", "Upgrade": self.upgrade}
        self.head(200 if self.upgrade is None else 101, {"Content-Type": content_type, **upgrade, **headers}, hold=hold)

    def send(self, data: bytes) -> None:
        """Send a piece of the body: one chunk."""
        if data:
            self.answer.send(b"%x\r\n%s\r\n" % (len(data), data) if self._is_chunked else data)

    def finish(self) -> None:
        """End the body."""
        if self._is_chunked:
            self.answer.send(b"0\r\n\r\n")
            self._is_chunked = False
        self.answer.finish()

    def watch(self, changed: threading.Condition, ready: Callable[[], bool], timeout: float | None = None) -> bool:
        """Wait until something is so; return False where the time is over first.

        Raises:
            GoneError: the client has left, or the engine is closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with changed:
            while not ready():
                left = LOOK_INTERVAL if deadline is None else min(LOOK_INTERVAL, deadline - time.monotonic())
                if left <= 0:
                    return False
                changed.wait(left)
                if self.engine.is_closed or self.wire.has_left():
                    raise GoneError
        return True


def reason(status: int, headers: Mapping[str, str | None]) -> str:
    """Return a status' reason phrase."""
    if status == 101 and headers.get("Upgrade") != "websocket":
        return "UPGRADED"
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"
