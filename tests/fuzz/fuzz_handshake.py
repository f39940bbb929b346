"""Whatever answers, however it is cut: only documented errors, no byte of a stream lost or invented, bounded memory.

An input is 5 bytes of settings and the answer (see `run_one`). Most answers are made: a head of some kind, and a body
as that head says. Some are then changed at random. harness.py says how to run it.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from harness import Fuzzer, instrumented, random_cuts

with instrumented():
    from muxframe.engine import handshake
    from muxframe.engine.handshake import Body, Conversation, LateBody, Request, Response
    from muxframe.engine.podman import RepairedReplay
    from muxframe.engine.websocket import WebSocketBody
    from muxframe.errors import ConnectionLostError, EngineError

SETTINGS_SIZE = 5

#: What an answer may raise. Anything else ends the run.
CONTRACT = (EngineError, ConnectionLostError)

KINDS = ("exchange", "stream", "late stream", "replay", "websocket")

HEADS = (
    b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\n",
    b"HTTP/1.0 200 OK\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n",
    b"HTTP/1.1 500 Internal Server Error\r\n\r\n",
    b"HTTP/1.1 304 Not Modified\r\n\r\n",
    b"HTTP/1.1 301 Moved\r\nLocation: /\r\nTransfer-Encoding: chunked\r\n\r\n",
)
INTERIM = b"HTTP/1.1 100 Continue\r\n\r\n"

#: What changes put in.
TOKENS = (b"\r\n", b"\n", b"\0", b"0\r\n\r\n", b"ffffffffffffffffffff\r\n", b"HTTP/1.1 ", b": ", b"-1", b'{"message":')


# --- inputs ----------------------------------------------------------------------------------------------------------


def random_input(rng: random.Random) -> bytes:
    """Make an input: settings, and an answer that fits them, changed or not."""
    settings = bytes([rng.randrange(256), *rng.randbytes(4)])
    payload = rng.randbytes(rng.choice((0, 1, 5, 200))) + rng.choice((b"", b'{"message": "no"}', b"\n" * 9))
    if KINDS[settings[0] % len(KINDS)] in ("replay", "websocket"):
        wire = random_messages(rng)
    else:
        head = rng.choice(HEADS)
        wire = INTERIM * rng.choice((0, 0, 0, 1, 40)) + encode(rng, head, payload)
    for _ in range(rng.choice((0, 0, 1, 1, 3))):
        wire = change(rng, wire)
    return settings + wire


def encode(rng: random.Random, head: bytes, payload: bytes) -> bytes:
    """Send a payload as a head says."""
    if b"%d" in head:
        return head % len(payload) + payload
    if b"chunked" not in head:
        return head + payload
    wire = head
    while payload:
        size = rng.randrange(1, len(payload) + 1)
        wire += b"%x\r\n%s\r\n" % (size, payload[:size])
        payload = payload[size:]
    return wire + b"0\r\n\r\n"


def random_messages(rng: random.Random) -> bytes:
    """Make frames, of WebSocket or of the stream, as they happen to come."""
    wire = b""
    for _ in range(rng.randrange(6)):
        data = rng.randbytes(rng.randrange(20))
        if rng.random() < 0.5:
            wire += bytes([rng.choice((0x82, 0x81, 0x02, 0x80, 0x88, 0x89, 0x8A, 0xFF)), len(data)]) + data
        else:
            wire += bytes([rng.randrange(4), 0, 0, 0]) + len(data).to_bytes(4, "big") + data + rng.choice((b"", b"\n"))
    return wire


def change(rng: random.Random, wire: bytes) -> bytes:
    """Take something away, put something in, or repeat something."""
    start = rng.randrange(len(wire) + 1)
    end = min(len(wire), start + rng.choice((0, 1, 1, 5, 1000)))
    middle = rng.choice((b"", rng.randbytes(1), rng.choice(TOKENS), wire[start:end] * rng.choice((2, 100))))
    return wire[:start] + middle + wire[end:]


# --- what is judged --------------------------------------------------------------------------------------------------


def run_one(data: bytes) -> None:
    """Receive an answer whole and cut at random.

    The first byte of the settings says what is expected, the others are the seed of the cuts.

    Raises:
        AssertionError: the outcome depends on the cuts, payload is wrong, or too much was kept.
    """
    settings, wire = data[:SETTINGS_SIZE].ljust(SETTINGS_SIZE, b"\0"), data[SETTINGS_SIZE:]
    kind = KINDS[settings[0] % len(KINDS)]
    rng = random.Random(settings)
    whole = receive(kind, [wire])
    for pieces in ([wire[i : i + 1] for i in range(len(wire))], random_cuts(rng, wire)):
        cut = receive(kind, pieces)
        assert cut == whole, f"{kind}: cut {cut!r:.500}, whole {whole!r:.500}"
    payload, fault = whole
    assert len(payload) <= 2 * len(wire) + 9, "something was invented"
    if kind.endswith("stream") and fault is None and wire.startswith(HEADS[:3]):
        assert payload == wire.partition(b"\r\n\r\n")[2], "trailing bytes"


def receive(kind: str, pieces: list[bytes]) -> tuple[bytes, type[Exception] | None]:
    """Do what a shell does; return the payload and the kind of error."""
    payload: list[bytes] = []
    try:
        if kind == "exchange":
            exchange(pieces, payload)
        elif kind == "stream":
            stream(pieces, payload)
        else:
            feed(BODIES[kind](), pieces, payload)
    except CONTRACT as fault:
        assert len(str(fault)) < 3 * handshake.MAX_MESSAGE_SIZE, "an error keeps too much"
        return b"".join(payload), type(fault)
    return b"".join(payload), None


def exchange(pieces: list[bytes], payload: list[bytes]) -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/"))
    for piece in [*pieces, b""]:
        if conversation.is_complete:
            break
        conversation.receive(piece)
    assert conversation.is_complete
    response: Response = conversation.response
    payload.append(response.body)
    conversation.check()


def stream(pieces: list[bytes], payload: list[bytes]) -> None:
    conversation = Conversation()
    conversation.send(Request("POST", "/", upgrade="tcp"), stream=True)
    for position, piece in enumerate([*pieces, b""]):
        conversation.receive(piece)
        if conversation.is_stream:
            received, body = conversation.take_over()
            payload.append(received)
            feed(body, pieces[position + 1 :] if piece else [], payload)
            return
        if conversation.is_complete:
            conversation.check()
    raise AssertionError("an answer without an end")


def late() -> Body:
    conversation = Conversation()
    conversation.send(Request("GET", "/"), stream=True)
    return LateBody(conversation)


BODIES: dict[str, Callable[[], Body]] = {
    "late stream": late,
    "websocket": WebSocketBody,
    "replay": RepairedReplay,
}


def feed(body: Body | None, pieces: list[bytes], payload: list[bytes]) -> None:
    for piece in [*pieces, b""]:
        if body is not None and body.is_over:
            return
        payload.append(piece if body is None else body.feed(piece))
        if body is not None:
            assert len(body.outgoing()) <= 16 * (len(piece) + 9)


# --- running ---------------------------------------------------------------------------------------------------------


FUZZER = Fuzzer("handshake", random_input, run_one)

if __name__ == "__main__":
    FUZZER.main()
