"""What stands between a WebSocket's bytes and the stream: messages, without I/O, by the websockets library.

The upgrade itself is an ordinary exchange (`Conversation`); here is the rest. Needs the extra: `muxframe[websocket]`.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, cast

try:
    from websockets.exceptions import InvalidState
    from websockets.frames import CloseCode, Frame, Opcode
    from websockets.protocol import CLIENT, State
    from websockets.protocol import Protocol as Messages
    from websockets.utils import accept_key, generate_key
except ModuleNotFoundError as _error:
    if _error.name != "websockets":
        raise
    text = 'WebSockets need the websockets library: pip install "muxframe[websocket]"'
    raise ModuleNotFoundError(text, name=_error.name) from None

from ..errors import ConnectionLostError, HandshakeError
from .handshake import Body

if TYPE_CHECKING:
    from collections.abc import Iterable

    from typing_extensions import Buffer

    from .handshake import Response

__all__ = ["WebSocketBody", "check_upgrade", "upgrade_headers"]

MAX_MESSAGE_SIZE = 16 * 1024 * 1024  #: engines send at most 32 KiB at a time
PIECE_SIZE = 32 * 1024  #: of what is written in one message: servers have caps, too

_SILENT = logging.getLogger("muxframe.websocket")
_SILENT.addHandler(logging.NullHandler())
_SILENT.propagate = False  # what the library would log is raised here


def upgrade_headers() -> dict[str, str]:
    """Return the headers that ask for a WebSocket, with a fresh key."""
    return {"Sec-WebSocket-Key": generate_key(), "Sec-WebSocket-Version": "13"}


def check_upgrade(head: Response, headers: dict[str, str]) -> None:
    """Make sure that the other side has agreed to what `headers` asked for.

    Raises:
        HandshakeError: it has not.
    """
    if head.status != 101 or head.headers.get("sec-websocket-accept") != accept_key(headers["Sec-WebSocket-Key"]):
        raise HandshakeError("the engine did not agree to a WebSocket", head.status, head.reason)


class WebSocketBody(Body):
    """The payload of messages, one behind the other; what is written becomes binary messages.

    One thread may feed while another packs.
    """

    _is_text = False  # what is written

    def __init__(self) -> None:
        self._messages = Messages(CLIENT, state=State.OPEN, max_size=MAX_MESSAGE_SIZE, logger=_SILENT)
        self._lock = threading.Lock()  # around the library's object, which knows of no threads
        self._is_inside = False  # a message whose end has not come
        self._fault = ""

    @property
    def is_broken(self) -> bool:
        return bool(self._fault)

    def feed(self, data: Buffer) -> bytes:
        if self.is_over:
            return b""
        with self._lock:
            stream = b"" if self._fault else self._receive(bytes(data))
            if self._fault and not stream:  # behind what came before it
                raise ConnectionLostError(self._fault)
            return stream

    def _receive(self, data: bytes) -> bytes:
        """Return what bytes add to the stream; find out whether it ends or breaks with them."""
        messages = self._messages
        if data:
            messages.receive_data(data)
        else:
            messages.receive_eof()
        parts: list[bytes] = []
        for frame in cast("list[Frame]", messages.events_received()):
            if frame.opcode in _DATA and not self._fault:
                self._is_inside = not frame.fin
                parts.append(self._unpack(frame))
        stream, error = b"".join(parts), messages.parser_exc
        if self._fault:
            return stream
        if error is not None and not isinstance(error, EOFError):
            self._fault = f"the WebSocket broke: {error}"
        elif messages.close_rcvd is not None:
            if self._is_end():
                return stream + self._finish()
            self._fault = f"the other side has closed the WebSocket: {messages.close_rcvd}"
        elif not data:
            is_cut = self._is_inside or str(error).startswith("stream ends after")
            if not is_cut and self._is_end():
                return stream + self._finish()
            self._fault = "the connection ended without the WebSocket's Close"
        return stream

    def _finish(self) -> bytes:
        self.is_over = True
        return self._last_words()

    def _unpack(self, frame: Frame) -> bytes:
        """Return what a message, or a part of one, adds to the stream."""
        return bytes(frame.data)

    def _is_end(self) -> bool:
        """The other side has sent its Close, or has gone without: say whether that is a proper end."""
        return self._messages.close_rcvd is not None

    def _last_words(self) -> bytes:
        """Return what the end adds to the stream."""
        return b""

    def _fail(self, reason: str) -> None:
        """Give up: what a message said makes no sense."""
        self._fault = f"the WebSocket broke: {reason}"
        self._messages.fail(CloseCode.INVALID_DATA)

    def outgoing(self) -> bytes:
        with self._lock:
            return b"".join(self._messages.data_to_send())

    def pack(self, data: bytes) -> bytes:
        return self._packed([data[start : start + PIECE_SIZE] for start in range(0, len(data), PIECE_SIZE)])

    def pack_eof(self) -> bytes | None:
        with self._lock:
            if self._messages.state is State.OPEN:
                self._messages.send_close(CloseCode.NORMAL_CLOSURE)
            return b"".join(self._messages.data_to_send())

    def _packed(self, messages: Iterable[bytes]) -> bytes:
        """Return what carries some messages.

        Raises:
            ConnectionLostError: the other side has said that it will read no more.
        """
        with self._lock:
            try:
                send = self._messages.send_text if self._is_text else self._messages.send_binary
                for message in messages:
                    send(message)
            except InvalidState:
                raise ConnectionLostError("the WebSocket is closed") from None
            return b"".join(self._messages.data_to_send())


_DATA = (Opcode.BINARY, Opcode.TEXT, Opcode.CONT)
