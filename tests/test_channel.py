"""The channels of a WebSocket: every shape of message, every cut, every kind of end, against frames made here."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from runtime import (
    ALL,
    CLOSE,
    CONT,
    DATA,
    PING,
    PONG,
    SUCCESS,
    TEXT,
    V1,
    V1_BASE64,
    V4,
    V4_BASE64,
    V5,
    close,
    heard,
    message,
    said,
    ws,
)

import muxframe
from muxframe import BadRequestError, ConnectionLostError, DaemonError, Demuxer, UnknownStreamError

pytest.importorskip("websockets")

from muxframe.cri import channel
from muxframe.cri.channel import ChannelBody
from muxframe.engine import websocket

BINARY = (V5, V4, V1)


def run(body: ChannelBody, pieces: Iterable[bytes]) -> tuple[bytes, bytes]:
    """Feed pieces, then the end if there has been none; return stdout and stderr."""
    demuxer = Demuxer()
    out = {1: b"", 2: b""}

    def feed(data: bytes) -> None:
        for stream, payload in demuxer.feed(body.feed(data)):
            out[stream] += payload

    for piece in pieces:
        feed(piece)
    if not body.is_over:
        feed(b"")
    demuxer.feed_eof()
    assert body.is_over
    return out[1], out[2]


def cuts(wire: bytes) -> Iterator[list[bytes]]:
    """Cut whole, byte by byte, in two at every place, and at random."""
    yield [wire]
    yield [wire[i : i + 1] for i in range(len(wire))]
    for i in range(1, len(wire)):
        yield [wire[:i], wire[i:]]
    rng = random.Random(5)
    for _ in range(50):
        places = sorted(rng.sample(range(1, len(wire)), min(5, len(wire) - 1)))
        yield [wire[a:b] for a, b in zip([0, *places], [*places, len(wire)])]


# --- output ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ALL)
def test_every_cut(protocol: str) -> None:
    opcode = TEXT if "base64" in protocol else DATA
    halves = message(protocol, 1, b"in\0 parts\xff")
    wire = (
        said(protocol, 1, b"")  # what servers begin with
        + ws(b"", opcode)
        + said(protocol, 1, b"out\n")
        + said(protocol, 2, b"err\n")
        + ws(b"", opcode, fin=False)
        + ws(halves[:1], CONT, fin=False)
        + ws(halves[1:3], CONT, fin=False)
        + ws(b"ping", PING)
        + ws(b"", CONT, fin=False)
        + ws(halves[3:], CONT)
        + ws(b"unasked", PONG)
        + said(protocol, 2, b"x" * 130)
        + (said(protocol, 3, SUCCESS) if protocol not in (V1, V1_BASE64) else b"")
        + close()
        + b"\x82\x05\x01late"
    )
    for pieces in cuts(wire):
        body = ChannelBody(protocol)
        assert run(body, pieces) == (b"out\nin\0 parts\xff", b"err\n" + b"x" * 130)
        assert body.exit_code == 0
        assert body.feed(b"more") == b"", "what comes behind the end is nothing"
        assert list(heard(body.outgoing())) == [(PONG, b"ping"), (CLOSE, b"\x03\xe8")]


@pytest.mark.parametrize("protocol", ALL)
def test_random_messages(protocol: str) -> None:
    rng = random.Random(protocol)
    for _ in range(30):
        wire, out = b"", {1: b"", 2: b""}
        for _ in range(rng.randrange(20)):
            number, data = rng.choice((1, 2)), rng.randbytes(rng.choice((0, 1, 2, 3, 125, 126, 127, 65535, 65536)))
            out[number] += data
            content = message(protocol, number, data)
            opcode = TEXT if "base64" in protocol else DATA
            while len(content) > 3 and rng.random() < 0.5:
                size = rng.randrange(len(content))
                wire += ws(content[:size], opcode, fin=False)
                content, opcode = content[size:], CONT
            wire += ws(content, opcode)
        wire += said(protocol, 3, SUCCESS if "v" in protocol[:1] else b"") + close(None)
        pieces = []
        while wire:
            size = rng.choice((1, 10, 1000, 100_000))
            pieces.append(wire[:size])
            wire = wire[size:]
        body = ChannelBody(protocol)
        assert run(body, pieces) == (out[1], out[2])
        assert body.exit_code == 0


def test_each_message_is_a_frame() -> None:
    body = ChannelBody(V4)
    wire = said(V4, 1, b"a") + said(V4, 1, b"b") + said(V4, 2, b"c") + said(V4, 3, SUCCESS) + close()
    frames = muxframe.frames(body.feed(wire))
    assert [(int(stream), bytes(payload)) for stream, payload in frames] == [(1, b"a"), (1, b"b"), (2, b"c")]


@pytest.mark.parametrize("protocol", [*BINARY, ""])
def test_text_is_taken_where_data_is_due(protocol: str) -> None:
    body = ChannelBody(protocol)
    wire = ws(b"\x01caf\xc3\xa9", TEXT) + ws(b"\x02\xff not UTF-8", TEXT) + close()
    assert run(body, [wire]) == ("café".encode(), b"\xff not UTF-8")


@pytest.mark.parametrize("number", [4, 5, 9, 254, 255])
def test_unknown_channel(number: int) -> None:
    body = ChannelBody(V4)
    demuxer = Demuxer()
    with pytest.raises(UnknownStreamError, match=f"unrecognized stream: {number} at offset 14") as caught:
        demuxer.feed(body.feed(said(V4, 1, b"before") + said(V4, number, b"?") + said(V4, 1, b"after")))
    assert caught.value.chunks == [(1, b"before")]


def test_v5_may_tell_that_a_channel_has_ended() -> None:
    wire = said(V5, 1, b"out") + ws(b"\xff\x01") + said(V5, 3, SUCCESS) + close()
    assert run(ChannelBody(V5), [wire]) == (b"out", b"")


def test_not_base64() -> None:
    body = ChannelBody(V4_BASE64)
    assert body.feed(said(V4_BASE64, 1, b"good") + ws(b"1aG@VsbG8=", TEXT) + said(V4_BASE64, 1, b"late"))[8:] == b"good"
    assert next(heard(body.outgoing()))[0] == CLOSE
    for data in (b"\x81\x01", b""):
        with pytest.raises(ConnectionLostError, match="broke: not base64"):
            body.feed(data)


# --- limits ----------------------------------------------------------------------------------------------------------


def test_size_of_a_message_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(websocket, "MAX_MESSAGE_SIZE", 1000)
    assert ChannelBody(V4).feed(said(V4, 1, b"x" * 999))[8:] == b"x" * 999
    body = ChannelBody(V4)
    assert body.feed(said(V4, 1, b"before") + said(V4, 1, b"x" * 1000))[8:] == b"before"
    assert [data[:2] for _, data in heard(body.outgoing())] == [(1009).to_bytes(2, "big")]
    with pytest.raises(ConnectionLostError, match="the WebSocket broke: .*1001"):
        body.feed(b"")
    parts = ws(b"\x01" + b"x" * 600, fin=False) + ws(b"x" * 600, CONT)
    assert len(ChannelBody(V4).feed(parts)) == 608, "fragments count together"


def test_size_is_not_believed() -> None:
    body = ChannelBody(V4)
    with pytest.raises(ConnectionLostError, match="broke"):
        body.feed(b"\x82\x7f" + (2**62).to_bytes(8, "big"))


def test_size_of_the_status_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    status = json.dumps({"status": "Success", "message": "x" * 100}).encode()
    monkeypatch.setattr(channel, "MAX_STATUS_SIZE", len(status))
    body = ChannelBody(V4)
    run(body, [said(V4, 3, status[:50]), said(V4, 3, status[50:]), close()])
    assert body.exit_code == 0, "in two messages, too"
    body = ChannelBody(V4)
    with pytest.raises(DaemonError) as caught:
        run(body, [said(V4, 3, b" " + status), close()])
    assert caught.value.message == (b" " + status)[:-1].decode()
    assert body.exit_code is None


def test_exit_code_of_a_long_command() -> None:
    """Linux takes 2 MiB of words; Go writes six bytes for each of some characters."""
    status = json.loads(exited("3"))
    status["message"] = "error executing command [sh -c exit 3 " + "<" * 2**21
    body = ChannelBody(V4)
    run(body, [said(V4, 3, json.dumps(status).replace("<", "\\u003c").encode()), close()])
    assert body.exit_code == 3


def test_text_of_a_failure_is_limited() -> None:
    status = json.dumps({"status": "Failure", "message": "x" * 200_000}).encode()
    with pytest.raises(DaemonError) as caught:
        run(ChannelBody(V4), [said(V4, 3, status), close()])
    assert caught.value.message == "x" * 65536


# --- the end ---------------------------------------------------------------------------------------------------------


def exited(code: Any) -> bytes:
    causes = [{"reason": "Other", "message": "1"}, {"reason": "ExitCode", "message": code}]
    details = {"causes": causes}
    message = f"command terminated with non-zero exit code: error executing command [sh], exit code {code}"
    return json.dumps(
        {"metadata": {}, "status": "Failure", "message": message, "reason": "NonZeroExitCode", "details": details}
    ).encode()


INTERNAL = b'{"metadata":{},"status":"Failure","message":"no such file","reason":"InternalError","code":500}'


@pytest.mark.parametrize(
    ("protocol", "status", "exit_code", "failure"),
    [
        (V4, SUCCESS, 0, ""),
        (V5, SUCCESS, 0, ""),
        (V4_BASE64, SUCCESS, 0, ""),
        (V4, exited("42"), 42, ""),
        (V5, exited("137"), 137, ""),
        (V4, INTERNAL, None, "no such file"),
        (V4, b'{"status":"Failure","reason":"Forbidden"}', None, "Forbidden"),
        (V4, b'{"status":"Failure"}', None, '{"status":"Failure"}'),
        (V4, rb'{"status":"Failure","message":"\ud800"}', None, "?"),
        (V4, b"plain text", None, "plain text"),
        (V4, b"\xff", None, "\ufffd"),
        (V4, b"[1]", None, "[1]"),
        (V4, b"[" * 100_000, None, "[" * 65536),
        (V4, exited("many"), None, exited("many").decode()),
        (V4, exited(None), None, exited(None).decode()),
        (V4, b'{"reason":"NonZeroExitCode"}', None, '{"reason":"NonZeroExitCode"}'),
        (V4, b"", None, ""),
        (V1, b"", 0, ""),
        ("", b"", 0, ""),
        (V1_BASE64, b"", 0, ""),
        (V1, b"command terminated with non-zero exit code: error executing command [x], exit code 5", 5, ""),
        (V1, b"error executing command: not found\n", None, "error executing command: not found"),
        (V1, SUCCESS, None, SUCCESS.decode()),
    ],
)
@pytest.mark.parametrize("ending", [close(), close(None), b""], ids=["close", "empty close", "none"])
def test_status(protocol: str, status: bytes, exit_code: int | None, failure: str, ending: bytes) -> None:
    body = ChannelBody(protocol)
    wire = said(protocol, 1, b"out") + said(protocol, 3, status) + ending
    if not status and not ending:
        with pytest.raises(ConnectionLostError, match="without the WebSocket's Close"):
            run(body, [wire])
        return
    if failure:
        with pytest.raises(DaemonError) as caught:
            run(body, [wire])
        assert caught.value.message == failure
    else:
        assert run(body, [wire]) == (b"out", b"")
    assert body.exit_code == exit_code


@pytest.mark.parametrize("code", [1001, 1011, 4000])
def test_close_for_another_reason(code: int) -> None:
    body = ChannelBody(V4)
    assert body.feed(said(V4, 1, b"out") + close(code, "why"))[8:] == b"out"
    with pytest.raises(ConnectionLostError, match=f"closed the WebSocket: {code} .*why"):
        body.feed(b"")
    body = ChannelBody(V4)
    run(body, [said(V4, 3, SUCCESS) + close(code)])
    assert body.exit_code == 0, "whatever the reason, the status has told how it ended"


def test_broken_off() -> None:
    for wire in (b"", said(V4, 1, b"out"), said(V4, 1, b"out")[:-1], ws(b"\x01half", fin=False)):
        body = ChannelBody(V4)
        with pytest.raises(ConnectionLostError, match="ended without"):
            run(body, [wire] if wire else [])


def test_no_websocket() -> None:
    for wire in (b"HTTP/1.1 200 OK\r\n" * 9, ws(b"x", CONT), b"\x82\x84abcdmask"):
        with pytest.raises(ConnectionLostError, match="the WebSocket broke"):
            run(ChannelBody(V4), [wire])


# --- sending ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", ALL)
def test_stdin(protocol: str) -> None:
    data = random.Random(1).randbytes(100_000)
    body = ChannelBody(protocol)
    messages = list(heard(body.pack(data)))
    assert len(messages) == 4, "in pieces of 32 KiB"
    if "base64" in protocol:
        assert all(opcode == TEXT and each[:1] == b"0" for opcode, each in messages)
        assert b"".join(base64.b64decode(each[1:], validate=True) for _, each in messages) == data
    else:
        assert all(opcode == DATA and each[0] == 0 for opcode, each in messages)
        assert b"".join(each[1:] for _, each in messages) == data
    assert body.pack(b"") == b""


def test_end_of_stdin() -> None:
    assert list(heard(ChannelBody(V5).pack_eof())) == [(DATA, b"\xff\x00")]
    for protocol in ALL[1:]:
        body = ChannelBody(protocol)
        with pytest.raises(BadRequestError, match=f"stdin cannot be closed alone: {protocol} has no words"):
            body.pack_eof()
        assert body.pack(b"still there")


def test_resize() -> None:
    ((opcode, data),) = heard(ChannelBody(V4).pack_resize(22, 77))
    assert (opcode, data[0], json.loads(data[1:])) == (DATA, 4, {"Width": 77, "Height": 22})
    ((opcode, data),) = heard(ChannelBody(V1_BASE64).pack_resize(22, 77))
    assert (opcode, data[:1], json.loads(base64.b64decode(data[1:]))) == (TEXT, b"4", {"Width": 77, "Height": 22})


def test_nothing_is_sent_behind_the_end() -> None:
    body = ChannelBody(V4)
    body.feed(close())
    assert list(heard(body.outgoing())) == [(CLOSE, b"\x03\xe8")]
    with pytest.raises(ConnectionLostError, match="the WebSocket is closed"):
        body.pack(b"late")


# --- iSulad ----------------------------------------------------------------------------------------------------------


def isulad(*messages: bytes) -> list[bytes]:
    return [ws(each, TEXT) for each in messages]


@pytest.mark.parametrize("ending", [b"", close(), close(1011)], ids=["none", "close", "1011"])
@pytest.mark.parametrize(
    ("messages", "out", "exit_code"),
    [
        ([], b"", 0),
        ([b"\x01out\n"], b"out\n", 0),
        ([b"\x01out\n", b"\x01Exit code :42\n"], b"out\n", 42),
        ([b"\x01Exit code :42\n", b"\x01Exit code :7\n"], b"Exit code :42\n", 7),
        ([b"\x01Exit code :42\n", b"\x01more"], b"Exit code :42\nmore", 0),
        ([b"\x01my Exit code :42\n"], b"my Exit code :42\n", 0),
        ([b"\x01Exit code :42"], b"Exit code :42", 0),
        ([b"\x01Exit code :4200\n"], b"Exit code :4200\n", 0),
        ([b"\x02Exit code :42\n"], b"", 0),
    ],
)
def test_isulad(messages: list[bytes], out: bytes, exit_code: int, ending: bytes) -> None:
    body = ChannelBody(V1, is_isulad=True)
    assert run(body, [b"".join(isulad(*messages)) + ending])[0] == out
    assert body.exit_code == exit_code


def test_exit_code_in_the_output_of_others_is_output() -> None:
    body = ChannelBody(V1)
    assert run(body, [*isulad(b"\x01Exit code :42\n"), close()]) == (b"Exit code :42\n", b"")
    assert body.exit_code == 0
