"""HTTP up to the hijack, and what stands behind it, without any I/O: whole, byte by byte, cut in two anywhere."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

import muxframe
from muxframe import pack_frame
from muxframe.engine import handshake
from muxframe.engine.handshake import Body, Conversation, LateBody, Request, Response, StackedBody
from muxframe.engine.podman import RepairedReplay
from muxframe.errors import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    EngineError,
    HandshakeError,
    MuxframeError,
    NotFoundError,
)

OK = b"HTTP/1.1 200 OK\r\n"
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
FRAMES = bytes(pack_frame(1, b"out\n") + pack_frame(2, b"err\n"))


# --- a shell without a connection ------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What a shell would have made of an answer."""

    status: int | None = None
    payload: bytes = b""  #: of the stream, or else the answer's body
    is_over: bool = False  #: the stream has ended before the connection did
    fault: MuxframeError | None = None

    @property
    def facts(self) -> tuple[object, ...]:
        return self.status, self.payload, self.is_over, type(self.fault)


def receive(pieces: list[bytes], *, stream: bool = False, late: bool = False, has_end: bool = True) -> Outcome:
    """Do what the shells do with an answer that comes in these pieces, up to the end of the connection."""
    conversation = Conversation()
    conversation.send(Request("POST", "/attach", upgrade="tcp" if stream else ""), stream=stream)
    outcome = Outcome()
    body: Body | None = LateBody(conversation) if late else None
    is_handed_over = late
    try:
        for piece in [*pieces, b""] if has_end else pieces:
            if outcome.is_over or (conversation.is_complete and not is_handed_over):
                break
            if is_handed_over:
                outcome.payload += piece if body is None else body.feed(piece)
            else:
                conversation.receive(piece)
                if conversation.is_stream:
                    received, body = conversation.take_over()
                    outcome.payload += received
                    is_handed_over = True
            outcome.is_over = body is not None and body.is_over
        if conversation.is_complete and not is_handed_over:
            outcome.payload = conversation.response.body
            conversation.check()
    except MuxframeError as fault:
        outcome.fault = fault
    if conversation.is_complete or conversation.is_stream:
        outcome.status = conversation.response.status
    return outcome


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Cut an answer: not at all, into bytes, in two anywhere."""
    yield [wire]
    yield [wire[i : i + 1] for i in range(len(wire))]
    for i in range(1, len(wire)):
        yield [wire[:i], wire[i:]]


def receive_cut(wire: bytes, **options: bool) -> Outcome:
    """Receive an answer in all ways, which make no difference."""
    outcomes = [receive(pieces, **options) for pieces in cuts(wire)]
    for outcome in outcomes:
        assert outcome.facts == outcomes[0].facts
    return outcomes[0]


# --- requests --------------------------------------------------------------------------------------------------------


def sent(request: Request, host: str = "localhost") -> tuple[bytes, dict[bytes, bytes], bytes]:
    """Return a request's line, its headers and its body."""
    head, _, body = Conversation().send(dataclasses.replace(request, host=host)).partition(b"\r\n\r\n")
    line, *fields = head.split(b"\r\n")
    pairs = [field.partition(b": ") for field in fields]
    assert len({name.lower() for name, _, _ in pairs}) == len(pairs)
    return line, {name: value for name, _, value in pairs}, body


def test_request() -> None:
    query = {"stdin": "1", "detachKeys": "ctrl-p,ctrl-q", "odd": "a b&c=d/ü"}
    line, headers, body = sent(Request("POST", "/v1.41/containers/web/attach", query, upgrade="tcp"), "engine:2375")
    assert line == (
        b"POST /v1.41/containers/web/attach?stdin=1&detachKeys=ctrl-p%2Cctrl-q&odd=a%20b%26c%3Dd%2F%C3%BC HTTP/1.1"
    )
    assert headers[b"Host"] == b"engine:2375"
    assert headers[b"User-Agent"].startswith(b"muxframe/")
    assert (headers[b"Connection"], headers[b"Upgrade"], headers[b"Content-Length"]) == (b"Upgrade", b"tcp", b"0")
    assert body == b""


def test_request_with_a_body() -> None:
    line, headers, body = sent(Request("POST", "/exec", body={"Cmd": ["ü"]}))
    assert (line, body) == (b"POST /exec HTTP/1.1", '{"Cmd": ["ü"]}'.encode())
    assert headers[b"Content-Type"] == b"application/json"
    assert headers[b"Content-Length"] == str(len(body)).encode()
    with pytest.raises(ValueError, match=r"not Unicode text.*: '\\udcff'"):  # engines would run something else
        sent(Request("POST", "/exec", body={"Cmd": ["printf", "\udcff"]}))
    _, headers, body = sent(Request("PUT", "/archive", body=b"\0\xff", headers={"Content-Type": "application/x-tar"}))
    assert (headers[b"Content-Type"], body) == (b"application/x-tar", b"\0\xff")


def test_request_of_http10_differs_in_its_first_line_only() -> None:
    assert sent(Request("GET", "/logs", is_http10=True))[0] == b"GET /logs HTTP/1.0"
    assert b" HTTP/1.1" in sent(Request("POST", "/x", body=b" HTTP/1.1\r\n", is_http10=True))[2]


@pytest.mark.parametrize(
    "request_",
    [
        Request("GET", "/a b"),
        Request("GET", "/a\r\nX: y"),
        Request("GET", "/ü"),
        Request("GET\r\nX: y", "/"),
        Request("GET", "/", headers={"X": "a\r\nY: b"}),
        Request("GET", "/", headers={"X\r\nY": "b"}),
        Request("POST", "/", headers={"Content-Length": "x"}),
    ],
)
def test_what_is_no_http_is_not_sent(request_: Request) -> None:
    with pytest.raises(ValueError):
        Conversation().send(request_)


# --- answers ---------------------------------------------------------------------------------------------------------

LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody"

ANSWERS = {
    "length": (LENGTH, 200, b"body"),
    "no body": (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    "empty body": (b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n", 201, b""),
    "to the end": (OK + b"\r\nbody", 200, b"body"),
    "http/1.0": (b"HTTP/1.0 200 OK\r\n\r\nbody", 200, b"body"),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 4\r\n\r\nbody", 200, b"body"),
    "bare line feeds": (b"HTTP/1.1 200 OK\nContent-Length: 4\n\nbody", 200, b"body"),
    "chunked": (CHUNKED + b"2\r\nbo\r\n2\r\ndy\r\n0\r\n\r\n", 200, b"body"),
    "chunk extensions": (CHUNKED + b"2;a=b\r\nbo\r\n02\r\ndy\r\n00\r\n\r\n", 200, b"body"),
    "trailers": (CHUNKED + b"4\r\nbody\r\n0\r\nX-Checksum: 1\r\n\r\n", 200, b"body"),
    "unchanged": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 12\r\n\r\n", 304, b""),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + LENGTH, 200, b"body"),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_answer(name: str) -> None:
    wire, status, body = ANSWERS[name]
    outcome = receive_cut(wire)
    assert (outcome.status, outcome.payload, outcome.fault) == (status, body, None)


STREAMS = {
    "hijack": (UPGRADED + FRAMES, False),
    "to the end": (OK + b"Content-Type: application/vnd.docker.raw-stream\r\n\r\n" + FRAMES, False),
    "http/1.0": (b"HTTP/1.0 200 OK\r\n\r\n" + FRAMES, False),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\n" + UPGRADED + FRAMES, False),
    "length": (OK + b"Content-Length: %d\r\n\r\n" % len(FRAMES) + FRAMES, True),
    "chunked": (CHUNKED + b"5\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (FRAMES[:5], len(FRAMES) - 5, FRAMES[5:]), True),
    "trailers": (CHUNKED + b"%x\r\n%s\r\n0\r\nX-Error: no\r\n\r\n" % (len(FRAMES), FRAMES), True),
}


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("name", STREAMS)
def test_stream(name: str, late: bool) -> None:
    wire, ends_itself = STREAMS[name]
    outcome = receive_cut(wire, stream=True, late=late)
    assert (outcome.payload, outcome.is_over, outcome.fault) == (FRAMES, ends_itself, None)


def test_stream_is_there_with_its_head() -> None:
    """Its first bytes need not come: a program that waits for input says nothing."""
    for wire in (UPGRADED, OK + b"\r\n", CHUNKED):
        conversation = Conversation()
        conversation.send(Request("POST", "/attach", upgrade="tcp"), stream=True)
        conversation.receive(wire[:-1])
        assert not conversation.is_stream
        conversation.receive(wire[-1:])
        assert conversation.is_stream
        assert conversation.take_over()[0] == b""


def test_bytes_behind_a_hijack_are_not_looked_at() -> None:
    wire = b"HTTP/1.1 500 No\r\nContent-Length: 9\r\n\r\n\0\xff"
    assert receive_cut(UPGRADED + wire, stream=True).payload == wire


def test_answer_to_what_should_become_a_stream() -> None:
    outcome = receive_cut(b"HTTP/1.1 404 Not Found\r\nContent-Length: 16\r\n\r\n" + b'{"message": "x"}', stream=True)
    assert isinstance(outcome.fault, NotFoundError)
    outcome = receive_cut(b"HTTP/1.1 304 Not Modified\r\n\r\n", stream=True)
    assert isinstance(outcome.fault, HandshakeError)
    assert str(outcome.fault) == "304 Not Modified: the answer is no stream"


def test_late_answer_may_be_a_refusal() -> None:
    wire = b"HTTP/1.1 409 Conflict\r\nContent-Length: 4\r\n\r\nbusy"
    outcome = receive_cut(wire, stream=True, late=True)
    assert isinstance(outcome.fault, ConflictError)
    assert outcome.payload == b""
    outcome = receive([], stream=True, late=True)
    assert isinstance(outcome.fault, ConnectionLostError)


# --- answers that are none -------------------------------------------------------------------------------------------

BROKEN_HEADS = {
    "garbage": (b"SSH-2.0-OpenSSH_9.2\r\n\r\n", HandshakeError),
    "tls": (b"\x15\x03\x03\x00\x02\x02\x46\n\n", HandshakeError),
    "binary": (bytes(range(256)) + b"\n\n", HandshakeError),
    "no status": (b"HTTP/1.1 OK\r\n\r\n", HandshakeError),
    "no header": (OK + b"no colon\r\n\r\n", HandshakeError),
    "header with a blank": (OK + b"Content-Length : 4\r\n\r\nbody", HandshakeError),
    "two lengths": (OK + b"Content-Length: 4\r\nContent-Length: 5\r\n\r\nbody", HandshakeError),
    "no length": (OK + b"Content-Length: -1\r\n\r\n", HandshakeError),
    "unknown coding": (OK + b"Transfer-Encoding: gzip\r\n\r\n", HandshakeError),
    "nothing": (b"", ConnectionLostError),
    "half a head": (OK + b"Content-Le", ConnectionLostError),
    "interim only": (b"HTTP/1.1 100 Continue\r\n\r\n", ConnectionLostError),
}

#: The answer; what it is where a whole one is expected; what of it is delivered where it is a stream.
BROKEN_BODIES = {
    "half a body": (OK + b"Content-Length: 4\r\n\r\nbod", ConnectionLostError, b"bod"),
    "half a chunk": (CHUNKED + b"4\r\nbod", ConnectionLostError, b"bod"),
    "no last chunk": (CHUNKED + b"4\r\nbody\r\n", ConnectionLostError, b"body"),
    "half a trailer": (CHUNKED + b"4\r\nbody\r\n0\r\nX-Check", ConnectionLostError, b"body"),
    "no chunk size": (CHUNKED + b"4\r\nbody\r\nzz\r\nmore\r\n0\r\n\r\n", HandshakeError, b"body"),
    "no first chunk size": (CHUNKED + b"zz\r\nbody\r\n0\r\n\r\n", HandshakeError, b""),
    "negative chunk size": (CHUNKED + b"-4\r\nbody\r\n0\r\n\r\n", HandshakeError, b""),
    "chunk size without end": (CHUNKED + b"f" * 30 + b"\r\nbody\r\n0\r\n\r\n", HandshakeError, b""),
    "half a chunk's end": (CHUNKED + b"4\r\nbody\r", ConnectionLostError, b"body"),
    "no chunk's end": (CHUNKED + b"4\r\nbodyX\n0\r\n\r\n", HandshakeError, b"body"),
    "longer than its size": (CHUNKED + b"3\r\nbody\r\n0\r\n\r\n", HandshakeError, b"bod"),
}


@pytest.mark.parametrize("name", BROKEN_HEADS)
def test_broken_head(name: str) -> None:
    wire, kind = BROKEN_HEADS[name]
    for options in ({}, {"stream": True}, {"stream": True, "late": True}):
        outcome = receive_cut(wire, **options)
        assert (type(outcome.fault), outcome.payload) == (kind, b"")


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_broken_body(name: str) -> None:
    """Of a stream that breaks off the beginning is delivered, however it was cut."""
    wire, kind, payload = BROKEN_BODIES[name]
    assert type(receive_cut(wire).fault) is kind
    for late in (False, True):
        outcome = receive_cut(wire, stream=True, late=late)
        assert (type(outcome.fault), outcome.payload) == (ConnectionLostError, payload)


def test_chunks_of_any_size_however_cut() -> None:
    rng = random.Random(3)
    for _ in range(100):
        payloads = [rng.randbytes(rng.choice((1, 2, 13, 500, 5000))) for _ in range(rng.randrange(20))]
        wire = b"".join(b"%x%s\r\n%b\r\n" % (len(each), rng.choice((b"", b" ", b";a=b")), each) for each in payloads)
        wire += rng.choice((b"0\r\n\r\n", b"000\r\nX-Check: 1\r\n\r\n"))
        cuts = sorted(rng.choices(range(len(wire) + 1), k=5))
        pieces = [wire[start:end] for start, end in zip([0, *cuts], [*cuts, len(wire)])]
        outcome = receive([CHUNKED, *filter(None, pieces)], stream=True)
        assert (outcome.fault, outcome.payload) == (None, b"".join(payloads))


@pytest.mark.parametrize("start", [b"", b"0\r\nX-Check: "])
def test_a_chunk_header_without_end(start: bytes) -> None:
    outcome = receive([CHUNKED, start, *[b"0" * 1000] * 5], stream=True)
    assert isinstance(outcome.fault, ConnectionLostError)


def test_protocols_switched_unasked() -> None:
    assert type(receive_cut(UPGRADED).fault) is HandshakeError


def test_stream_that_failed_stays_failed() -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/logs"), stream=True)
    conversation.receive(CHUNKED + b"4\r\nbody\r\nzz\r\n")
    received, body = conversation.take_over()
    assert (received, body is not None) == (b"body", True)
    for _ in range(2):
        for data in (b"4\r\nbody\r\n", b""):
            with pytest.raises(ConnectionLostError, match="illegal chunk header"):
                body.feed(data)  # type: ignore[union-attr]


def test_head_without_end() -> None:
    for line in (b"X-Padding: x\r\n", b"x", b"\0"):
        conversation = Conversation()
        conversation.send(Request("GET", "/"))
        conversation.receive(OK)
        with pytest.raises(HandshakeError):
            for _ in range(handshake.MAX_HEAD_SIZE // len(line) + 1):
                conversation.receive(line)


def test_head_at_the_limit() -> None:
    for extra in (0, 1):
        head = OK + b"X: "
        head += b"x" * (handshake.MAX_HEAD_SIZE - len(head) - 4 + extra) + b"\r\n\r\n"
        outcome = receive([head[:-1], head[-1:]])
        assert type(outcome.fault) is (HandshakeError if extra > 1 else type(None))
        outcome = receive([head, b"body"], stream=True)
        assert (outcome.fault, outcome.payload) == (None, b"body")


def test_interim_answers_without_end() -> None:
    interim = b"HTTP/1.1 102 Processing\r\n\r\n"
    assert receive([interim * handshake.MAX_INTERIM + LENGTH]).payload == b"body"
    outcome = receive([interim * (handshake.MAX_INTERIM + 1) + LENGTH])
    assert isinstance(outcome.fault, HandshakeError)


def test_body_at_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "MAX_BODY_SIZE", 1000)
    assert receive([OK + b"Content-Length: 1000\r\n\r\n", b"x" * 1000]).payload == b"x" * 1000
    for head in (OK + b"Content-Length: 1001\r\n\r\n", OK + b"\r\n"):
        assert isinstance(receive([head, b"x" * 1001]).fault, HandshakeError)
    chunk = b"1f4\r\n" + b"x" * 500 + b"\r\n"
    assert receive([CHUNKED, chunk * 2, b"0\r\n\r\n"]).payload == b"x" * 1000
    assert isinstance(receive([CHUNKED, *[chunk] * 100]).fault, HandshakeError)


def test_stream_has_no_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handshake, "MAX_BODY_SIZE", 1000)
    chunk = b"400\r\n" + b"x" * 1024 + b"\r\n"
    assert receive([CHUNKED, *[chunk] * 10, b"0\r\n\r\n"], stream=True).payload == b"x" * 10240


# --- one exchange after the other ------------------------------------------------------------------------------------


def test_connection_is_used_again() -> None:
    conversation = Conversation()
    for wire in (LENGTH, ANSWERS["trailers"][0], ANSWERS["unchanged"][0], ANSWERS["no body"][0]):
        assert b"GET /x" in conversation.send(Request("GET", "/x"))
        assert not conversation.is_reusable
        conversation.receive(wire)
        assert conversation.is_complete
        assert conversation.is_reusable
    conversation.send(Request("POST", "/attach", upgrade="tcp"), stream=True)
    conversation.receive(UPGRADED + FRAMES)
    assert conversation.is_stream
    assert not conversation.is_reusable
    assert conversation.take_over() == (FRAMES, None)


@pytest.mark.parametrize(
    "wire",
    [
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
    ],
)
def test_connection_that_will_be_closed_is_not_used_again(wire: bytes) -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/x"))
    conversation.receive(wire)
    assert conversation.is_complete
    assert not conversation.is_reusable


def test_nothing_is_left_of_the_exchange_before() -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/x"))
    conversation.receive(LENGTH)
    conversation.send(Request("GET", "/x"))
    assert not conversation.is_complete
    conversation.receive(b"HTTP/1.1 500 Oops\r\nContent-Length: 3\r\n\r\nbad")
    assert (conversation.response.status, conversation.response.body) == (500, b"bad")


# --- what answers say ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "body", "kind", "text"),
    [
        (404, b'{"message":"No such container: x"}', NotFoundError, "404 Reason: No such container: x"),
        (409, b"container is paused\r\n", ConflictError, "409 Reason: container is paused"),
        (400, b'{"message":"bad"}', BadRequestError, "400 Reason: bad"),
        (500, b'{"message":"oops"}', EngineError, "500 Reason: oops"),
        (503, b"<html>\xff", EngineError, "503 Reason: <html>\ufffd"),
        (418, b"", EngineError, "418 Reason: the engine said no more"),
        (500, b'{"cause":"c","message":"m","response":500}', EngineError, "500 Reason: m: c"),
        (500, b'{"cause":"c","message":"m: c"}', EngineError, "500 Reason: m: c"),
        (500, b'{"cause":null,"message":"m"}', EngineError, "500 Reason: m"),
        (500, b'{"cause":"container state improper","message":"no"}', ConflictError, "500 Reason: no: container"),
        (500, b'{"message":"no such container"}', NotFoundError, "500 Reason: no such container"),
        (500, b'{"message":"invalid detach keys: x"}', BadRequestError, "500 Reason: invalid detach keys: x"),
        (500, b'["message"]', EngineError, '500 Reason: ["message"]'),
        (500, b'"message"', EngineError, '500 Reason: "message"'),
        (500, b'{"error":"e"}', EngineError, '500 Reason: {"error":"e"}'),
        (500, b"[" * 100_000, EngineError, "500 Reason: [[["),
        (301, b"", HandshakeError, "301 Reason: redirected to another path, which is not followed"),
    ],
)
def test_refusal(status: int, body: bytes, kind: type[EngineError], text: str) -> None:
    with pytest.raises(EngineError) as caught:
        Response(status, "Reason", {}, body).check()
    assert type(caught.value) is kind
    assert str(caught.value).startswith(text)
    assert (caught.value.status, caught.value.reason) == (status, "Reason")


@pytest.mark.parametrize("status", [200, 201, 204, 304])
def test_success(status: int) -> None:
    Response(status, "", {}, b"").check()


def test_redirect_is_named_and_not_followed() -> None:
    head = b"HTTP/1.1 307 Away\r\nLocation: http://user:secret@other/token?x\r\nContent-Length: 0\r\n\r\n"
    outcome = receive_cut(head, stream=True)
    assert isinstance(outcome.fault, HandshakeError)
    assert str(outcome.fault) == "307 Away: redirected to other, which is not followed"
    with pytest.raises(HandshakeError, match="another path"):
        Response(307, "Away", {"location": "http://[x"}).check()


@pytest.mark.parametrize("body", [b"x" * 1_000_000, b'{"message":"%s"}' % (b"x" * 1_000_000)])
def test_exceptions_keep_no_megabytes(body: bytes) -> None:
    with pytest.raises(EngineError) as caught:
        Response(500, "", {}, body).check()
    assert len(str(caught.value)) < 2 * handshake.MAX_MESSAGE_SIZE


@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000])
def test_no_json(body: bytes) -> None:
    with pytest.raises(HandshakeError, match="no JSON"):
        Response(200, "OK", {}, body).json()


def test_content_type() -> None:
    assert Response(200, "OK", {}).content_type == ""
    assert Response(200, "OK", {"content-type": "Text/Plain ; charset=x"}).content_type == "text/plain"


# --- Podman 4's replay -----------------------------------------------------------------------------------------------


def misnumber(stream: int, line: bytes) -> bytes:
    """Pack a line as Podman 4.3 does: the line feed is not counted."""
    return bytes(pack_frame(stream, line[:-1])) + line[-1:]


def test_replay_is_repaired_however_it_is_cut() -> None:
    wire = misnumber(1, b"out0\n") + misnumber(2, b"\n") + misnumber(1, b"\n\n") + FRAMES + bytes(pack_frame(1, b"\n"))
    expected = b"".join(
        bytes(pack_frame(stream, payload))
        for stream, payload in [(1, b"out0"), (1, b"\n"), (2, b""), (2, b"\n"), (1, b"\n"), (1, b"\n")]
    )
    for pieces in cuts(wire):
        body = RepairedReplay()
        assert b"".join(map(body.feed, pieces)) == expected + FRAMES + pack_frame(1, b"\n")
        assert body.feed(b"") == b""
        assert body.is_over


def test_replay_is_not_repaired_where_nothing_is_wrong() -> None:
    for wire in (b"", FRAMES, b"\n", b"\n" + FRAMES, FRAMES + b"\n\n", FRAMES[:3], bytes(pack_frame(3, b"error"))):
        for pieces in cuts(wire):
            body = RepairedReplay()
            repaired = b"".join(map(body.feed, pieces))
            assert repaired.replace(pack_frame(2, b"\n"), b"\n") == wire


# --- WebSocket -------------------------------------------------------------------------------------------------------

websockets = pytest.importorskip("websockets")


def message(payload: bytes, opcode: int = 2, *, is_last: bool = True) -> bytes:
    """Pack what a server sends."""
    size = len(payload)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    if size > 0xFFFF:
        length = b"\x7f" + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if is_last else 0)]) + length + payload


def unmask(wire: bytes) -> list[tuple[int, bytes]]:
    """Unpack what a client sends: (opcode, payload)."""
    frames = []
    while wire:
        assert wire[0] & 0x80 and wire[1] & 0x80, "whole messages, masked"
        size, start = wire[1] & 0x7F, 2
        if size > 125:
            start = 4 if size == 126 else 10
            size = int.from_bytes(wire[2:start], "big")
        mask, payload = wire[start : start + 4], wire[start + 4 : start + 4 + size]
        frames.append((wire[0] & 0xF, bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))))
        wire = wire[start + 4 + size :]
    return frames


CLOSE = message(b"\x03\xe8", 8)


def websocket() -> Any:
    from muxframe.engine.websocket import WebSocketBody

    return WebSocketBody()


def test_messages_are_joined_however_they_are_cut() -> None:
    parts = [message(b"out"), message("ü".encode(), 1), message(b""), message(b"a", is_last=False), message(b"b", 0)]
    wire = b"".join(parts) + message(b"x" * 300) + CLOSE
    for pieces in cuts(wire):
        body = websocket()
        assert b"".join(map(body.feed, pieces)) == "outüab".encode() + b"x" * 300
        assert body.is_over


def test_ping_and_close_are_answered() -> None:
    body = websocket()
    assert body.feed(message(b"?", 9) + message(b"out")) == b"out"
    assert unmask(body.outgoing()) == [(10, b"?")]
    assert body.outgoing() == b""
    body.feed(CLOSE)
    assert unmask(body.outgoing()) == [(8, b"\x03\xe8")]


def test_what_is_written_is_a_message() -> None:
    body = websocket()
    for data in (b"", b"in", b"x" * 300, b"x" * 70_000):  # in messages that no server refuses
        pieces = [data[start : start + 32768] for start in range(0, len(data), 32768)]
        assert unmask(body.pack(data)) == [(2, piece) for piece in pieces]
    assert unmask(body.pack_eof()) == [(8, b"\x03\xe8")]
    assert body.feed(message(b"out")) == b"out", "closing is half-closing"
    assert body.pack_eof() == b""


def test_a_fault_behind_the_stream_is_known_at_once() -> None:
    """So that nobody waits for more of what is broken."""
    wire = CHUNKED + b"2\r\nab\r\nno chunk\r\n"
    conversation = Conversation()
    conversation.send(Request("GET", "/logs"), stream=True)
    conversation.receive(wire)
    received, chunked = conversation.take_over()
    late = LateBody(conversation := Conversation())
    conversation.send(Request("GET", "/logs"), stream=True)
    assert not late.is_broken
    framed = websocket()
    assert [received, late.feed(wire), framed.feed(message(b"ab") + b"\xff\xff")] == [b"ab"] * 3
    assert chunked is not None
    for body in (chunked, late, framed, StackedBody(chunked, RepairedReplay())):
        assert body.is_broken
        assert not body.is_over
        with pytest.raises(ConnectionLostError):
            body.feed(b"")


def test_writing_to_a_closed_websocket() -> None:
    for end in (lambda body: body.pack_eof(), lambda body: body.feed(CLOSE)):
        body = websocket()
        end(body)
        with pytest.raises(ConnectionLostError):
            body.pack(b"x")
        body.pack_eof()


@pytest.mark.parametrize(
    "wire",
    [b"", b"\x82", b"\x82\x05ab", message(b"a", is_last=False)],
)
def test_websocket_without_a_close(wire: bytes) -> None:
    body = websocket()
    assert body.feed(wire) == (b"a" if wire.endswith(b"\x01a") else b"") if wire else True
    for _ in range(2):
        with pytest.raises(ConnectionLostError):
            body.feed(b"")
    assert not body.is_over


@pytest.mark.parametrize(
    "wire",
    [
        b"\xff\xff",
        b"\xc2\x01a",  # compressed
        b"\x82\x81aaaaa",  # masked
        b"\x80\x01a",  # the rest of nothing
        b"\x89\x7e\x01\x00" + b"x" * 256,  # a ping of 256 bytes
        b"\x82\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
        b"\x82\x7f\x00\x00\x00\x00\x01\x00\x00\x01",  # a byte above the limit
    ],
)
def test_broken_websocket(wire: bytes) -> None:
    body = websocket()
    with pytest.raises(ConnectionLostError):
        body.feed(wire)
    body = websocket()
    assert body.feed(message(b"before") + wire) == b"before"
    for data in (message(b"behind"), b""):
        with pytest.raises(ConnectionLostError, match="broke"):
            body.feed(data)


def test_agreement() -> None:
    from muxframe.engine.websocket import check_upgrade

    headers = {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}  # RFC 6455, 1.3
    accepted = {"sec-websocket-accept": "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="}
    check_upgrade(Response(101, "", accepted), headers)
    for head in (Response(200, "", accepted), Response(101, "", {}), Response(101, "", {"sec-websocket-accept": "x"})):
        with pytest.raises(HandshakeError):
            check_upgrade(head, headers)


def test_bodies_may_stand_one_behind_the_other() -> None:
    """A proxy has put the replay that is to be repaired into HTTP chunks."""
    wire = b"\x01\0\0\0\0\0\0\x04out0\n\x02\0\0\0\0\0\0\x04err0"
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    pieces = (wire[:5], wire[5:14], wire[14:], b"")
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces)
    for cut in range(len(chunks) + 1):
        conversation = Conversation()
        conversation.send(Request("POST", "/attach"), stream=True)
        conversation.receive(head)
        received, first = conversation.take_over()
        assert first is not None and received == b""
        body = StackedBody(first, RepairedReplay())
        stream = body.feed(chunks[:cut]) if cut else b""
        stream += body.feed(chunks[cut:]) if cut < len(chunks) else b""
        assert body.is_over
        assert muxframe.demux(stream) == (b"out0\n", b"err0")


def test_what_cannot_be_said_is_not_repeated() -> None:
    """A token that was read from a file often ends in a line feed; the exception may end in a log."""
    request = Request("GET", "/_ping", headers={"Authorization": "Bearer s3cret\n"})
    assert "s3cret" not in repr(request)
    with pytest.raises(ValueError, match="cannot be said in HTTP: Illegal header value$"):
        Conversation().send(request)
    with pytest.raises(ValueError, match="cannot be said in HTTP: not ASCII$") as caught:
        Conversation().send(dataclasses.replace(request, headers={"Authorization": "Bearer s3cret\u2026"}))
    assert "s3cret" not in repr(caught.value)


def test_a_body_behind_one_that_has_ended_with_the_head() -> None:
    conversation = Conversation()
    conversation.send(Request("POST", "/attach"), stream=True)
    conversation.receive(CHUNKED + b"%x\r\n%s\r\n0\r\n\r\n" % (len(FRAMES), FRAMES))
    received, first = conversation.take_over()
    assert first is not None and received == FRAMES
    assert StackedBody(first, RepairedReplay()).is_over  # to wait for more would be to wait for ever
