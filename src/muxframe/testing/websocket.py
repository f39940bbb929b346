"""Attach over WebSocket: Docker only, and only where the package websockets is installed."""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

from .personality import version_tuple
from .streams import Attachment, carry, prepare_attach

if TYPE_CHECKING:
    from collections.abc import Iterator

    from websockets.server import ServerProtocol

    from .exchange import Exchange
    from .personality import Personality

NORMAL_CLOSURE = (1000).to_bytes(2, "big")


def is_available(personality: Personality) -> bool:
    """Say whether there is such a path at all."""
    return personality.is_docker and importlib.util.find_spec("websockets") is not None


def attach(x: Exchange, name: str) -> None:
    """GET /containers/{id}/attach/ws: both streams as they come, never multiplexed."""
    from websockets.frames import Frame, Opcode

    container = prepare_attach(x, name)
    client = Attachment(x, container, selects=x.personality.is_new)
    x.keeps_alive = False
    protocol = _handshake(x)
    if protocol is None:
        return
    asked = x.personality.api if x.request.version is None else version_tuple(x.request.version)
    opcode = Opcode.TEXT if asked <= (1, 27) else Opcode.BINARY

    def encode(_: int, data: bytes) -> bytes:
        return Frame(opcode, data).serialize(mask=False)

    history = client.join()
    container.begin()
    try:
        for entry in history:
            x.send(encode(entry.stream, entry.data))
        # What the client's Close frame does to stdin is what the end of a plain connection does.
        carry(
            x,
            client.outlet,
            encode,
            _received(x, protocol),
            client.on_data,
            client.on_eof,
            Frame(Opcode.CLOSE, NORMAL_CLOSURE).serialize(mask=False),
        )
    finally:
        client.leave()


def _handshake(x: Exchange) -> ServerProtocol | None:
    from websockets.server import ServerProtocol

    offered = [name.strip() for name in x.request.headers.get("sec-websocket-protocol", "").split(",") if name.strip()]
    protocol = ServerProtocol()
    lines = [f"{x.request.method} {x.request.target} HTTP/1.1"]
    lines += [f"{name}: {value}" for name, value in x.request.headers.items()]
    protocol.receive_data("\r\n".join([*lines, "", ""]).encode("latin-1"))
    events = protocol.events_received()
    response = protocol.accept(events[0]) if events else None  # type: ignore[arg-type]
    if response is None or response.status_code != 101 or len(offered) > 1:
        x.head(400, {})
        x.answer.send(b"" if offered else b"not websocket protocol")
        return None
    protocol.send_response(response)
    protocol.data_to_send()  # written by ourselves, below: Docker's has no Date
    accept = response.headers["Sec-WebSocket-Accept"]
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    if offered:
        headers["Sec-WebSocket-Protocol"] = offered[0]
    x.head(101, headers)
    return protocol


def _received(x: Exchange, protocol: ServerProtocol) -> Iterator[bytes]:
    """Yield the payload of what the client sends, up to its Close frame."""
    from websockets.frames import Frame, Opcode

    data = x.request.extra
    while True:
        protocol.receive_data(data)
        for frame in protocol.events_received():
            assert isinstance(frame, Frame)
            if frame.opcode is Opcode.CLOSE:
                return
            if frame.opcode is Opcode.PING:
                x.wire.send(Frame(Opcode.PONG, frame.data).serialize(mask=False))
            elif frame.opcode is not Opcode.PONG:
                yield bytes(frame.data)
        data = x.wire.recv()
        if not data:
            return
