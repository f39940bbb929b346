"""Whatever a WebSocket's bytes and cuts, channels give what an oracle says: stream, exit code, end, and answers.

The oracle (`decode`) is written from RFC 6455 and Kubernetes' remotecommand, and shares nothing with muxframe or the
websockets library. It says which frames of the multiplexed stream come out, whether the end is a proper one, which exit
code was told, and which pings were answered. All of that must hold for the wire whole, byte by byte and cut at random;
a connection that broke must say so behind what came before, with a text of bounded size, and stay broken.

An input is 5 bytes of settings (the protocol, iSulad or not, a seed of the cuts) and what comes behind the answer to
the upgrade. Most are made: messages on all channels, in fragments, with statuses, pings and a Close. Some are then
changed at random. harness.py says how to run it.
"""

from __future__ import annotations

import base64
import json
import random
from dataclasses import dataclass, field
from typing import Any

from harness import Fuzzer, instrumented, random_cuts

with instrumented():
    from muxframe.cri.channel import ChannelBody
    from muxframe.errors import ConnectionLostError

SETTINGS_SIZE = 5

V4_BASE64, V1_BASE64 = "v4.base64.channel.k8s.io", "base64.channel.k8s.io"
PROTOCOLS = ("v5.channel.k8s.io", "v4.channel.k8s.io", "channel.k8s.io", V4_BASE64, V1_BASE64, "")
WITH_JSON = ("v5.channel.k8s.io", "v4.channel.k8s.io", V4_BASE64)

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
MAX_MESSAGE = 16 << 20
MAX_STATUS = 1 << 20
MAX_FAULT_TEXT = 1000

STATUSES: tuple[Any, ...] = (
    {"status": "Success"},
    {"status": "Failure", "message": "no\x1b[2J", "reason": "InternalError"},
    {"status": "Failure", "reason": "Gone"},
    {"reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "7"}]}},
    {"reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": "1" * 5000}]}},
    {"reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": None}]}},
    {"reason": "NonZeroExitCode", "details": {"causes": [{"reason": "ExitCode", "message": True}, 5]}},
    {"reason": "NonZeroExitCode", "details": None},
    {"status": "Failure", "message": ["\ud800"] * 9},
    [],
    "text",
)
TEXTS = (b"it ended with exit code 3", b"exit code 999999", b" \n", b"{", b"[" * 5000, b"Exit code :4\n", b"9" * 5000)
CLOSES = (b"\x88\x02\x03\xe8", b"\x88\x00", b"\x88\x02\x03\xed", b"\x88\x08\x03\xf3broken", b"\x88\x01x")
TOKENS = (*CLOSES, b"\x89\x00", b"\x82\x7f" + b"\xff" * 8, b"\xc2\x01\x01", b"=")


# --- inputs ----------------------------------------------------------------------------------------------------------


def random_input(rng: random.Random) -> bytes:
    """Make an input: settings, and messages that fit them, changed or not."""
    settings = rng.randbytes(SETTINGS_SIZE)
    protocol, is_isulad = read_settings(settings)
    wire = b"".join(random_message(rng, protocol) for _ in range(rng.randrange(8)))
    if is_isulad and rng.random() < 0.7:
        wire += fragments(rng, content(protocol, 1, b"Exit code :%d\n" % rng.randrange(300)), TEXT)
    if rng.random() < 0.5:
        status = json.dumps(rng.choice(STATUSES)).encode() if rng.random() < 0.7 else rng.choice(TEXTS)
        wire += fragments(rng, content(protocol, 3, status), TEXT)
    wire += rng.choice((b"", *CLOSES))
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        start = rng.randrange(len(wire) + 1)
        end = min(len(wire), start + rng.choice((0, 1, 1, 5, 1000)))
        middle = rng.choice((b"", rng.randbytes(1), rng.choice(TOKENS), wire[start:end] * 2))
        wire = wire[:start] + middle + wire[end:]
    return settings + wire


def random_message(rng: random.Random, protocol: str) -> bytes:
    if rng.random() < 0.2:
        return frame(rng.choice((PING, PONG)), rng.randbytes(rng.choice((0, 3, 125))))
    number = rng.choice((1, 1, 1, 2, 2, 0, 3, 4, 9, 255))
    data = rng.randbytes(rng.choice((0, 1, 2, 3, 20, 126, 300)))
    return fragments(rng, content(protocol, number, data), rng.choice((TEXT, BINARY)))


def content(protocol: str, number: int, data: bytes) -> bytes:
    """Return what a message on a channel holds."""
    if protocol in (V4_BASE64, V1_BASE64):
        return b"%d" % (number % 10) + base64.b64encode(data)
    return bytes([number]) + data


def fragments(rng: random.Random, data: bytes, opcode: int) -> bytes:
    """Send a message, in one piece or several, with a ping in between perhaps."""
    wire = b""
    while rng.random() < 0.4:
        size = rng.randrange(len(data) + 1)
        wire += frame(opcode, data[:size], fin=False) + rng.choice((b"", b"", frame(PING, b"x")))
        data, opcode = data[size:], CONT
    return wire + frame(opcode, data)


def frame(opcode: int, data: bytes, *, fin: bool = True) -> bytes:
    size = len(data)
    length = bytes([size]) if size < 126 else b"\x7e" + size.to_bytes(2, "big")
    return bytes([opcode | fin << 7]) + length + data


def read_settings(settings: bytes) -> tuple[str, bool]:
    """Return the protocol, and whether the server is iSulad."""
    return PROTOCOLS[settings[0] % len(PROTOCOLS)], settings[1] % 4 == 0


# --- the oracle ------------------------------------------------------------------------------------------------------


@dataclass
class Outcome:
    """What comes of a wire."""

    stream: bytes = b""
    is_proper: bool = False
    exit_code: int | None = None
    pongs: list[bytes] = field(default_factory=list)


class Broken(Exception):
    """The rest of the wire is of no account."""


def decode(protocol: str, is_isulad: bool, wire: bytes) -> Outcome:
    """Say what comes of a wire."""
    found = Outcome()
    decoder = _Channels(protocol or "channel.k8s.io", is_isulad, found)
    closed: bytes | None = None
    try:
        for fin, opcode, data in _frames(wire):
            if opcode == PING:
                found.pongs.append(data)
            elif opcode == CLOSE:
                closed = _check_close(data)
                break
            elif opcode != PONG:
                decoder.take(fin, opcode, data)
    except Broken:
        return found
    if decoder.is_inside:
        return found
    found.is_proper = closed in (b"", b"\x03\xe8") or bool(decoder.status) or is_isulad
    if found.is_proper:
        decoder.finish()
    return found


def _frames(wire: bytes) -> Any:
    """Yield whole frames: (fin, opcode, data).

    Raises:
        Broken: RFC 6455 forbids what comes next. A wire that is cut off ends.
    """
    position = size = 0
    inside = False
    while len(wire) - position >= 2:
        first, second = wire[position], wire[position + 1]
        opcode, fin = first & 15, bool(first & 0x80)
        if opcode not in (CONT, TEXT, BINARY, CLOSE, PING, PONG) or second & 0x80:
            raise Broken
        width = {126: 2, 127: 8}.get(second, 0)
        if len(wire) - position < 2 + width:
            raise Broken  # at the latest with the end
        length = int.from_bytes(wire[position + 2 : position + 2 + width], "big") if width else second
        begin = position + 2 + width
        if length > MAX_MESSAGE - (size if inside else 0) or len(wire) - begin < length:
            raise Broken
        if first & 0x70:
            raise Broken
        if opcode >= CLOSE:
            if length > 125 or not fin:
                raise Broken
        else:
            if inside != (opcode == CONT):
                raise Broken
            inside = not fin
            size = size + length if opcode == CONT else length
        position = begin + length
        yield fin, opcode, wire[begin:position]
    if position < len(wire):
        raise Broken


def _check_close(data: bytes) -> bytes:
    """Return a Close's code, if there is one."""
    code = int.from_bytes(data[:2], "big")
    is_valid = code in (1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014) or 3000 <= code < 5000
    try:
        data[2:].decode()
    except UnicodeDecodeError:
        is_valid = False
    if data and not is_valid:
        raise Broken
    return data[:2]


class _Channels:
    def __init__(self, protocol: str, is_isulad: bool, found: Outcome) -> None:
        self._found = found
        self._protocol = protocol
        self._is_isulad = is_isulad
        self._number: int | None = None
        self._text = b""  # base64 that was not decoded yet
        self._held = b""
        self.is_inside = False
        self.status = b""

    def take(self, fin: bool, opcode: int, data: bytes) -> None:
        self.is_inside = not fin
        if opcode != CONT:
            self._number = None
            self._text = b""
        is_base64 = self._protocol in (V4_BASE64, V1_BASE64)
        if self._number is None:
            if not data:
                return
            self._number = (data[0] - 48) % 256 if is_base64 else data[0]
            data = data[1:]
        if is_base64:
            data = self._decode(data, fin)
        if data:
            self._deliver(self._number, data)

    def _decode(self, data: bytes, fin: bool) -> bytes:
        text = self._text + data
        size = len(text) if fin else len(text) - len(text) % 4
        whole, self._text = text[:size], text[size:]
        decoded = b""
        for start in range(0, len(whole), 4):
            four = whole[start : start + 4]
            ends = start + 4 >= len(whole)
            letters = four.rstrip(b"=") if ends else four
            if len(four) < 4 or len(letters) < 2 or any(each not in _ALPHABET for each in letters):
                raise Broken
            bits = sum(_ALPHABET.index(each) << 18 - 6 * i for i, each in enumerate(letters))
            decoded += bits.to_bytes(3, "big")[: len(letters) - 1]
        return decoded

    def _deliver(self, number: int, data: bytes) -> None:
        if number == 3:
            self.status = (self.status + data)[:MAX_STATUS]
        elif number == 255 and self._protocol == "v5.channel.k8s.io":
            pass
        elif self._is_isulad:
            self._write(1, self._held)
            self._held = b""
            if number == 1 and _isulad_code(data) is not None:
                self._held = data
            else:
                self._write(number, data)
        else:
            self._write(number, data)

    def _write(self, number: int, data: bytes) -> None:
        if data:
            self._found.stream += bytes([number, 0, 0, 0]) + len(data).to_bytes(4, "big") + data

    def finish(self) -> None:
        """Read the end: what the status says, or that there is none."""
        code = _isulad_code(self._held) or 0 if self._is_isulad else None
        text = self.status.decode("utf-8", "replace")
        failure = ""
        if self._protocol in WITH_JSON:
            if self.status:
                code, failure = _status(text)
        elif self.status:
            code, failure = _last_word(text)
        elif code is None:
            code = 0
        self._found.exit_code = code
        self._write(3, failure.encode("utf-8", "replace")[: 64 << 10])


_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"


def _isulad_code(data: bytes) -> int | None:
    digits = data.removeprefix(b"Exit code :").removesuffix(b"\n")
    is_one = data == b"Exit code :" + digits + b"\n" and digits.isdigit() and len(digits) <= 3
    return int(digits) if is_one else None


def _status(text: str) -> tuple[int | None, str]:
    """Read a Status: what is not as it should be is shown as it came."""
    try:
        status = json.loads(text)
    except (ValueError, RecursionError):
        return None, text
    if not isinstance(status, dict):
        return None, text
    if status.get("status") == "Success":
        return 0, ""
    if status.get("reason") != "NonZeroExitCode":
        return None, str(status.get("message") or status.get("reason") or text)
    details = status.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    for cause in causes if isinstance(causes, list) else ():
        if not isinstance(cause, dict):
            break
        if cause.get("reason") == "ExitCode":
            said = cause.get("message")
            if isinstance(said, str) and said.isascii() and said.isdigit() and len(said) <= 10:
                return int(said), ""
            break
    return None, text


def _last_word(text: str) -> tuple[int | None, str]:
    """Read v1's text: a last "exit code N" is one."""
    _, words, code = text.rstrip().rpartition("exit code ")
    if words and code.isascii() and code.isdigit() and len(code) <= 3:
        return int(code), ""
    return None, text.strip()


# --- running ---------------------------------------------------------------------------------------------------------


def run_one(data: bytes) -> None:
    """Decode an input whole, byte by byte and cut at random.

    Raises:
        AssertionError: what comes of it is not what the oracle says.
    """
    settings, wire = data[:SETTINGS_SIZE].ljust(SETTINGS_SIZE, b"\0"), data[SETTINGS_SIZE:]
    protocol, is_isulad = read_settings(settings)
    expected = decode(protocol, is_isulad, wire)
    for pieces in ([wire], [wire[i : i + 1] for i in range(len(wire))], random_cuts(random.Random(settings), wire)):
        found = receive(ChannelBody(protocol, is_isulad=is_isulad), [piece for piece in pieces if piece])
        if not expected.is_proper:  # what came in one piece with a fault may have been answered, too
            del found.pongs[len(expected.pongs) :]
        assert found == expected, f"{protocol or 'none'}, {len(pieces)} pieces: {found!r:.2000}, not {expected!r:.2000}"


def receive(body: ChannelBody, pieces: list[bytes]) -> Outcome:
    """Do what a shell does."""
    found = Outcome()
    answers = b""
    try:
        for piece in [*pieces, b""]:
            found.stream += body.feed(piece)
            answers += body.outgoing()
            if body.is_over:
                break
        else:
            found.stream += body.feed(b"")  # after payload the fault is due with the next call
        assert body.is_over, "an end without a word"
        assert body.feed(b"\x82\x02\x01x") == b"", "something came behind the end"
        found.is_proper, found.exit_code = True, body.exit_code
    except ConnectionLostError as fault:
        assert len(str(fault)) <= MAX_FAULT_TEXT, "an error keeps too much"
        answers += body.outgoing()
        check_stays_broken(body)
    found.pongs = read_answers(answers)
    return found


def check_stays_broken(body: ChannelBody) -> None:
    for piece in (b"\x82\x02\x01x", b"\x88\x02\x03\xe8", b""):
        try:
            assert body.feed(piece) == b"" and not body.is_over, "it went on behind a fault"
        except ConnectionLostError:
            continue
        raise AssertionError("a fault was forgotten")


def read_answers(wire: bytes) -> list[bytes]:
    """Take apart what was sent: masked pongs, then at most one Close."""
    pongs = []
    while wire:
        size = wire[1] & 0x7F
        assert wire[1] & 0x80 and size <= 125, "an answer that no client sends"
        mask, data = wire[2:6], wire[6 : 6 + size]
        data = bytes(each ^ mask[i % 4] for i, each in enumerate(data))
        if wire[0] == 0x80 | CLOSE:
            assert len(wire) == 6 + size, "something was sent behind the Close"
            break
        assert wire[0] == 0x80 | PONG
        pongs.append(data)
        wire = wire[6 + size :]
    return pongs


FUZZER = Fuzzer("channel", random_input, run_one)

if __name__ == "__main__":
    FUZZER.main()
