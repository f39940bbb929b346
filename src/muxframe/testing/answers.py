"""Requests as they came, and answers as they go out: as they should, or with faults."""

from __future__ import annotations

import json
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import h11

from .wire import GoneError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .wire import Wire

MAX_HEAD_SIZE = 1 << 20  # Go's


@dataclass(frozen=True)
class Request:
    """What a client asked.

    Attributes:
        method: "GET", "POST", ...
        target: path and query, as they came.
        path: the path without the version prefix.
        version: the prefix's version ("1.41"), or None.
        query: parameters, the last of each name.
        headers: by lower-case name, the last of each.
        body: its body.
        http_version: "1.1" or "1.0".
        extra: bytes that came behind it, before anything was answered.
    """

    method: str
    target: str
    path: str
    version: str | None
    query: Mapping[str, str]
    headers: Mapping[str, str]
    body: bytes
    http_version: str
    extra: bytes = b""

    def json(self) -> Any:
        """Return the body's JSON value."""
        return json.loads(self.body)

    def flag(self, name: str, default: bool = False) -> bool:
        """Return a parameter as Docker reads a boolean."""
        value = self.query.get(name)
        return default if value is None else value.strip().lower() not in ("", "0", "no", "false", "none")


def read_message(wire: Wire, start: bytes) -> tuple[h11.Request, bytes, bytes] | None:
    """Read a request: head, body, and what came behind it. None where the client has gone instead.

    Raises:
        h11.RemoteProtocolError: it is none.
    """
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=MAX_HEAD_SIZE)
    if start:
        parser.receive_data(start)
    head: h11.Request | None = None
    body = b""
    while True:
        event = parser.next_event()
        if event is h11.NEED_DATA:
            if parser.they_are_waiting_for_100_continue:
                wire.send(parser.send(h11.InformationalResponse(status_code=100, headers=[])) or b"")
            data = wire.recv()
            if not data and head is not None:
                raise GoneError
            parser.receive_data(data)
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            return head, body, parser.trailing_data[0]
        else:
            return None


@dataclass(frozen=True, kw_only=True)
class Fault:
    """What goes wrong with an answer. Any combination; without any it is as it should be.

    Offsets count the bytes behind the answer's head, as they are on the wire.

    Attributes:
        delay: seconds before anything is sent.
        garbage: bytes sent in place of an answer, then the end.
        status: answer with this error, and nothing happens in the engine.
        body: its body: text, or a JSON value.
        redirect: answer 301 with this Location.
        refuse_http10: answer requests of HTTP/1.0 with this status: 426 or 505.
        no_upgrade: act as if the request had not asked for an upgrade: 200 in place of 101, as behind some proxies.
        interim: statuses of responses before the head: 100, 103.
        headers: what to change in the head; None removes a header. Names as the engine writes them.
        chunked: send what would be a raw stream in HTTP chunks, with a 200.
        endless_head: a head that never ends: header after header until the client leaves.
        head_pieces: send the head in so many pieces,
        head_delay: so many seconds apart.
        join: send the head together with what follows it, in one packet: it waits for the first output. Where that
            would be a wait for the start of a container it does not.
        dribble: send byte by byte, so many seconds apart.
        stall: send no more from this offset on, until `LoopbackEngine.release`.
        cut: end the connection at this offset, cleanly.
        reset: break the connection at this offset with TCP's RST: needs transport="tcp".
    """

    delay: float = 0
    garbage: bytes | None = None
    status: int | None = None
    body: object = ""
    redirect: str | None = None
    refuse_http10: int | None = None
    no_upgrade: bool = False
    interim: tuple[int, ...] = ()
    headers: Mapping[str, str | None] | None = None
    chunked: bool = False
    endless_head: bool = False
    head_pieces: int = 1
    head_delay: float = 0.01
    join: bool = False
    dribble: float | None = None
    stall: int | None = None
    cut: int | None = None
    reset: int | None = None


NO_FAULT = Fault()


class CutError(Exception):
    """A fault has ended the answer."""


class Answer:
    """The bytes of an answer on their way out, with what goes wrong on it.

    Args:
        wire: where to.
        fault: what goes wrong.
        pause: waits a number of seconds.
        stall: waits until stalled answers are released. Both raise GoneError once the engine is closed.
    """

    def __init__(self, wire: Wire, fault: Fault, pause: Callable[[float], None], stall: Callable[[], None]) -> None:
        self.wire = wire
        self.fault = fault
        self._pause = pause
        self._head = b""  # held back
        self._sent = 0
        marks = [(fault.stall, stall), (fault.cut, self._cut), (fault.reset, self._reset)]
        self._marks = sorted(((at, act) for at, act in marks if at is not None), key=lambda mark: mark[0])

    @property
    def is_held(self) -> bool:
        """Whether the head waits for what follows it."""
        return bool(self._head)

    def head(self, data: bytes, *, hold: bool = False) -> None:
        """Send the head; hold: together with what follows it."""
        for status in self.fault.interim:
            self.wire.send(f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\n\r\n".encode())
        if self.fault.endless_head:
            self._send_endless(data)
        if hold:
            self._head = data
            return
        if self.fault.dribble is None:
            size = -(-len(data) // self.fault.head_pieces)
            for start in range(0, len(data), size):
                if start:
                    self._pause(self.fault.head_delay)
                self.wire.send(data[start : start + size])
        else:
            self._put(data)
        self.send(b"")

    def _send_endless(self, head: bytes) -> None:
        self.wire.send(head[:-2])
        while True:
            self.wire.send(b"X-Padding: %s\r\n" % (b"x" * 1000))
            self._pause(0.001)

    def send(self, data: bytes) -> None:
        """Send what follows the head."""
        while True:
            mark = self._marks[0] if self._marks else None
            size = len(data) if mark is None else min(len(data), mark[0] - self._sent)
            self._put(data[:size])
            self._sent += size
            data = data[size:]
            if mark is not None and self._sent == mark[0]:
                self._marks.pop(0)
                mark[1]()
            elif not data:
                return

    def _put(self, data: bytes) -> None:
        data, self._head = self._head + data, b""
        if self.fault.dribble is None:
            if data:
                self.wire.send(data)
            return
        for index in range(len(data)):
            self._pause(self.fault.dribble)
            self.wire.send(data[index : index + 1])

    def _cut(self) -> None:
        raise CutError

    def _reset(self) -> None:
        self.wire.reset()
        raise CutError

    def finish(self) -> None:
        """Send what was held back."""
        if self._head:
            self._put(b"")

    def linger(self, seconds: float) -> None:
        """Give what comes next the chance to go out with a head that is held back."""
        if self._head:
            self._pause(seconds)
