"""What stands between a WebSocket's bytes and the stream: messages, without I/O, by the websockets library.

The upgrade itself is an ordinary exchange (`Conversation`); here is the rest. Needs the extra: `muxframe[websocket]`.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from websockets.frames import Opcode
from websockets.protocol import CLIENT, State
from websockets.protocol import Protocol as Messages
from websockets.utils import accept_key, generate_key

from ..errors import ConnectionLostError, HandshakeError
from .handshake import Body

if TYPE_CHECKING:
    from typing_extensions import Buffer

    from .handshake import Response

__all__ = ["WebSocketBody", "check_upgrade", "upgrade_headers"]

MAX_MESSAGE_SIZE = 16 * 1024 * 1024  #: engines send at most 32 KiB at a time

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
    """The payload of messages, one behind the other; what is written becomes one binary message."""

    def __init__(self) -> None:
        self._messages = Messages(CLIENT, state=State.OPEN, max_size=MAX_MESSAGE_SIZE, logger=_SILENT)

    def feed(self, data: Buffer) -> bytes:
        parts: list[bytes] = []
        if data:
            self._messages.receive_data(bytes(data))
        else:
            self._messages.receive_eof()
        for frame in self._messages.events_received():
            if frame.opcode in (Opcode.BINARY, Opcode.TEXT, Opcode.CONT):  # type: ignore[union-attr]
                parts.append(bytes(frame.data))  # type: ignore[union-attr]
            elif frame.opcode is Opcode.CLOSE:  # type: ignore[union-attr]
                self.is_over = True
        if not parts and not self.is_over:
            if self._messages.parser_exc is not None:
                raise ConnectionLostError(f"the WebSocket broke: {self._messages.parser_exc}")
            if not data:
                raise ConnectionLostError("the connection ended without the WebSocket's Close")
        return b"".join(parts)

    def outgoing(self) -> bytes:
        return b"".join(self._messages.data_to_send())

    def pack(self, data: bytes) -> bytes:
        if self._messages.state is not State.OPEN:
            raise ConnectionLostError("the WebSocket is closed")
        self._messages.send_binary(data)
        return self.outgoing()

    def pack_eof(self) -> bytes:
        if self._messages.state is State.OPEN:
            self._messages.send_close(1000)
        return self.outgoing()
