"""An independent oracle of lines, beside that of frames: small, obviously right, without speed.

It imports nothing of muxframe. It sees each frame whole and goes through it byte by byte; tests compare the library,
which sees the wire in any pieces, with `split`. `random_log` makes what they feed.

>>> split(b"\\x01\\0\\0\\0\\0\\0\\0\\x05a\\nb\\rc").lines
[(1, None, b'a', False, None), (1, None, b'b\\rc', False, None)]
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import TYPE_CHECKING

import oracle

if TYPE_CHECKING:
    import random

LF, CR = 10, 13
SECOND = 1_000_000_000
PART_SIZE = 16 * 1024  # as Docker cuts

#: stream, timestamp, data, partial, details
Row = tuple[int, "int | None", bytes, bool, "bytes | None"]


@dataclass
class Outcome:
    """What lines a stream has, and how it ends (as `oracle.Outcome` says)."""

    lines: list[Row] = field(default_factory=list)
    invalid: int = 0  #: prefixes without a valid timestamp
    end: str = "clean"
    offset: int = 0

    def of(self, stream: int) -> list[bytes]:
        """Return the data of one stream's lines."""
        return [row[2] for row in self.lines if row[0] == stream]


@dataclass
class _Unfinished:
    held: bytes = b""
    is_cut: bool = False
    began: int = 0
    line: tuple[int | None, bytes | None] = None, None  # timestamp and details
    part: tuple[int | None, bytes | None] = None, None
    part_text: bytes = b""  # of the timestamp

    @property
    def is_open(self) -> bool:
        return self.held != b"" or self.is_cut


def split(
    wire: bytes,
    *,
    raw: bool = False,
    timestamps: bool = False,
    details: bool = False,
    max_line_size: int = 1 << 20,
) -> Outcome:
    """Split a whole stream."""
    outcome = Outcome()
    streams = {number: _Unfinished() for number in (0, 1, 2)}
    clock = 0

    def emit(number: int, data: bytes, partial: bool) -> None:
        timestamp, attrs = streams[number].line
        outcome.lines.append((number, timestamp, data, partial, attrs))

    def close(number: int) -> None:
        line = streams[number]
        if line.is_open:
            emit(number, line.held, False)
            line.held, line.is_cut = b"", False

    def begin(number: int, payload: bytes) -> bytes:
        """Begin a part; return it without its prefix."""
        line = streams[number]
        text, timestamp, attrs, rest = prefix_of(payload, timestamps, details)
        outcome.invalid += timestamps and timestamp is None
        if not timestamps:
            continues = True
        elif timestamp is None or line.part[0] is None:
            continues = False
        else:
            whole = b"." not in text and b"." not in line.part_text
            continues = timestamp - line.part[0] in ({0, SECOND} if whole else {0})
        if not (line.is_open and continues):
            close(number)
            line.line = timestamp, attrs
        line.part, line.part_text = (timestamp, attrs), text
        return rest

    def take(number: int, body: bytes) -> None:
        nonlocal clock
        line = streams[number]
        for byte in body:
            clock += 1
            if byte == LF:
                emit(number, line.held.rstrip(b"\r"), False)
                line.held, line.is_cut, line.line = b"", False, line.part
                continue
            if not line.is_open:
                line.began = clock
            if len(line.held) == max_line_size:
                size = character_end(line.held)
                emit(number, line.held[:size], True)
                line.held, line.is_cut = line.held[size:], True
            line.held += bytes([byte])

    if raw:
        outcome.offset = len(wire)
        for text in re.findall(rb"[^\n]*\n|[^\n]+", wire):
            body = begin(1, text) if timestamps or details else text
            while timestamps and len(body) > PART_SIZE:
                take(1, body[:PART_SIZE])
                body = body[PART_SIZE:]
                stamp, timestamp, _, rest = prefix_of(body, timestamps, details)
                if timestamp is None or timestamp != streams[1].part[0] or b"." not in stamp:
                    break
                body = rest
            take(1, body)
    else:
        frames = oracle.decode(wire)
        outcome.end, outcome.offset = frames.end, frames.offset
        for number, payload in [*frames.frames, *([frames.partial] if frames.partial else [])]:
            if payload:
                take(number, begin(number, payload) if timestamps or details else payload)
    for number in sorted(streams, key=lambda number: streams[number].began):
        if outcome.end == "clean":
            close(number)
        elif streams[number].held:
            emit(number, streams[number].held, True)
    return outcome


def character_end(data: bytes) -> int:
    """Return where to cut data so that no UTF-8 character is broken: at its end, or up to three bytes before."""
    for begun in (1, 2, 3):
        rest = data[-begun:]
        lengths = {0xC0: 2, 0xE0: 3, 0xF0: 4}
        if 0xC2 <= rest[0] < 0xF5 and begun < len(data):
            mask = 0xF0 if rest[0] >= 0xE0 else 0xC0  # of 0xD0: the same as of 0xC0
            if begun < lengths[rest[0] & mask] and all(0x80 <= byte < 0xC0 for byte in rest[1:]):
                return len(data) - begun
    return len(data)


def prefix_of(payload: bytes, timestamps: bool, details: bool) -> tuple[bytes, int | None, bytes | None, bytes]:
    """Return a timestamp's text, the timestamp, the details and the rest."""
    text, timestamp, attrs = b"", None, None
    if timestamps:
        text, blank, rest = payload.partition(b" ")
        timestamp = nanoseconds(text) if blank else None
        if timestamp is None:
            return b"", None, None, payload
        payload = rest
    if details:
        match = re.match(rb"((?:[\w.~%+-]*=[\w.~%+-]*(?:,[\w.~%+-]*=[\w.~%+-]*)*)?) ", payload)
        if match and len(match[1]) <= 16 * 1024:
            attrs, payload = match[1], payload[match.end() :]
    return text, timestamp, attrs, payload


def nanoseconds(text: bytes) -> int | None:
    """Read RFC 3339 by the standard library's calendar."""
    match = re.fullmatch(
        rb"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:Z|([+-])(\d\d):(\d\d))", text
    )
    if match is None or len(text) > 64:
        return None
    year, month, day, hour, minute, second = map(int, match.groups()[:6])
    offset = timedelta()
    if match[8]:
        if int(match[9]) > 23 or int(match[10]) > 59:
            return None
        offset = timedelta(hours=int(match[9]), minutes=int(match[10])) * (-1 if match[8] == b"-" else 1)
    if second > 60:
        return None
    try:
        there = datetime(year, month, day, hour, minute, 0, tzinfo=timezone(offset))
    except ValueError:
        return None
    since = there - datetime(1970, 1, 1, tzinfo=UTC)
    fraction = int((match[7] or b"0").ljust(9, b"0")[:9])
    result = ((since // timedelta(seconds=1)) + second) * SECOND + fraction
    return result if -(2**63) <= result < 2**63 else None


# --- logs to split ---------------------------------------------------------------------------------------------------

TIMES = [
    b"2026-11-21T05:46:37.125648057Z",
    b"2026-11-21T05:46:37.125648057Z",
    b"2026-11-21T05:46:37.125648058Z",
    b"2026-11-21T05:46:36.9Z",
    b"2026-11-21T05:46:37Z",
    b"2026-11-21T05:46:37Z",
    b"2026-11-21T05:46:38Z",
    b"2026-11-21T05:46:39Z",
    b"2026-11-21T05:46:38+00:00",
    b"2026-11-21T07:16:38.0+01:30",
    b"2026-11-21T05:46:37.125648057123Z",
    b"0001-01-01T00:00:00Z",
    b"2262-04-11T23:47:16.854775807Z",
    b"2262-04-11T23:47:16.854775808Z",
    b"1677-09-21T00:12:43.145224192Z",
    b"1677-09-21T00:12:43.145224191Z",
    b"2016-12-31T23:59:60.5Z",
    b"2023-02-29T00:00:00Z",
    b"yesterday",
    b"\0" * 19 + b"Z",
    b"",
]
DETAILS = [b"", b"a=b", b"a=b,c=%20+", b"a", b"a=b=c", b"a=b,", b"k=" + b"v" * 70, b"k=" + b"v" * (16 * 1024 - 2)]
WORDS = [b"\n", b"\r", b"\r\n", b"\r\r\n", b"a", b"hello world", b" ", b"", b"\xff\xc3", b"\xe2\x82\xac", b"k=v "]
WORDS += [b"\n", b"y" * 30]


def random_payload(rng: random.Random, *, timestamps: bool, details: bool) -> bytes:
    """Make what a frame carries: mostly a prefix, and some of a line or of several."""
    payload = b""
    if timestamps and rng.random() < 0.95:
        payload += rng.choice(TIMES) + b" "
    if details and rng.random() < 0.9:
        payload += rng.choice(DETAILS if rng.random() < 0.1 else DETAILS[:-1]) + b" "
    return payload + b"".join(rng.choice(WORDS) for _ in range(rng.randrange(6)))


def random_log(rng: random.Random, *, raw: bool, timestamps: bool, details: bool) -> bytes:
    """Make a stream; a framed one is damaged, one time out of three."""
    payloads = [random_payload(rng, timestamps=timestamps, details=details) for _ in range(rng.randrange(9))]
    if raw and timestamps and rng.random() < 0.2:  # long lines, with and without what a part repeats
        long = rng.choice(TIMES) + b" " + b"p" * rng.choice((PART_SIZE, PART_SIZE, PART_SIZE - 1, PART_SIZE + 1))
        payloads.insert(rng.randint(0, len(payloads)), b"".join((b"\n", *[long] * rng.randrange(4), rng.choice(WORDS))))
    if raw:
        return b"".join(payloads)
    frames = [oracle.pack(rng.choice((0, 1, 1, 1, 2, 2)), payload) for payload in payloads]
    return oracle.random_damage(frames, rng) if rng.random() < 0.3 else b"".join(frames)
