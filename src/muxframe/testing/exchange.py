"""One request and its answer, written as the engine at hand writes it."""

from __future__ import annotations

from email.utils import formatdate
from http import HTTPStatus
from typing import TYPE_CHECKING

from .personality import JSON, PLAIN, RAW, RefusedError, dump

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .answers import Answer, Request
    from .personality import Personality

NO_BODY = (204, 304)


def reason(status: int) -> str:
    """Return a status' reason phrase."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


class Exchange:
    """A request, and the ways to answer it.

    Attributes:
        request: what is asked.
        keeps_alive: whether another request may follow on this connection.
        upgrade: protocol that the request is upgraded to, or None.
    """

    def __init__(self, request: Request, answer: Answer, personality: Personality) -> None:
        self.request = request
        self.answer = answer
        self.wire = answer.wire
        self.personality = personality
        self.upgrade = None if answer.fault.no_upgrade else personality.upgrade(request)
        self._is_chunked = False
        closes = "close" in request.headers.get("connection", "").lower()
        self.keeps_alive = request.http_version == "1.1" and not closes

    def head(self, status: int, headers: Mapping[str, str | None], *, version: str = "1.1", hold: bool = False) -> None:
        """Send a head, with the changes that a fault makes to it."""
        fields = {**headers, **(self.answer.fault.headers or {})}
        phrase = "UPGRADED" if status == 101 and fields.get("Upgrade") != "websocket" else reason(status)
        lines = [f"HTTP/{version} {status} {phrase}"]
        lines += [f"{name}: {value}" for name, value in fields.items() if value is not None]
        self.answer.head("\r\n".join([*lines, "", ""]).encode("latin-1"), hold=hold)

    def _ordinary(self, status: int, headers: Mapping[str, str | None], *, hold: bool = False) -> None:
        headers = {**headers, "Date": formatdate(usegmt=True)}
        if not self.keeps_alive and self.request.http_version == "1.1":
            headers["Connection"] = "close"
        self.head(status, headers, version=self.request.http_version, hold=hold)

    # --- whole answers -----------------------------------------------------------------------------------------------

    def reply(self, status: int, body: bytes = b"", headers: Mapping[str, str | None] | None = None) -> None:
        """Send an answer whose size is known."""
        fields = {**self.personality.headers(), **(headers or {})}
        if status not in NO_BODY:
            fields.setdefault("Content-Length", str(len(body)))
        self._ordinary(status, fields)
        if body and self.request.method != "HEAD" and status not in NO_BODY:
            self.answer.send(body)

    def json(self, document: object, status: int = 200) -> None:
        """Send JSON."""
        self.reply(status, dump(document), {"Content-Type": JSON})

    def refuse(self, error: RefusedError) -> None:
        """Send an error in the engine's own shape."""
        self.reply(error.status, self.personality.error_body(error), {"Content-Type": JSON})

    def refuse_hijacked(self, error: RefusedError) -> None:
        """Send an error of attach: Docker has left HTTP behind by then, and sends text to the end of the connection."""
        if not self.personality.is_docker:
            return self.refuse(error)
        self.keeps_alive = False
        self.head(error.status, {"Content-Type": RAW})
        self.answer.send(f"{error.message}\r\n".encode())

    def plain(self, status: int, text: str, headers: Mapping[str, str | None] | None = None) -> None:
        """Send text from the layer below the engine's API: without its headers."""
        body = text.encode()
        extra = {"X-Content-Type-Options": "nosniff", "Content-Length": str(len(body))}
        self._ordinary(status, {"Content-Type": PLAIN, **extra, **(headers or {})})
        self.answer.send(body)

    # --- bodies that come bit by bit ---------------------------------------------------------------------------------

    def start_body(self, content_type: str | None, *, hold: bool = False) -> None:
        """Begin a body of unknown size: chunks, or for HTTP/1.0 everything up to the end of the connection."""
        self._is_chunked = self.request.http_version == "1.1"
        headers: dict[str, str | None] = {**self.personality.headers(), "Content-Type": content_type}
        if self._is_chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            self.keeps_alive = False
        self._ordinary(200, headers, hold=hold)

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
