"""An independent oracle: a small, obviously right decoder of the multiplexed stream, and a generator of streams.

It imports nothing of muxframe and has no speed, so that it can be read in a minute. Tests compare the library with
`decode`; `random_wire` and `cuts` make what they feed.

>>> decode(b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi\\x02\\0")
Outcome(frames=[(1, b'hi')], partial=None, end='truncated', offset=10, text='', missing=6)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import random

HEADER_SIZE = 8
MAX_TEXT_SIZE = 64 * 1024
SYSTEMERR = 3
SIZES = (0, 1, 2, 7, 8, 9, 15, 16, 31, 32, 33, 63, 64, 223, 224, 255, 256, 257, 288, 1000, 4096, 32767, 32768, 32769)

End = Literal["clean", "truncated", "unknown", "reserved", "too large", "systemerr"]


@dataclass
class Outcome:
    """What a stream holds, and how it ends."""

    frames: list[tuple[int, bytes]] = field(default_factory=list)  #: whole ones of streams 0..2, empty ones included
    partial: tuple[int, bytes] | None = None  #: what came of an unfinished frame's payload, if any of it did
    end: End = "clean"
    offset: int = 0  #: where the header of the faulty frame begins; for a clean end, the size of the wire
    text: str = ""  #: of a systemerr frame, made of 64 KiB at most
    missing: int = 0  #: for "truncated": bytes still due of the header, or of the payload where the header is whole

    def payload(self, *streams: int, partial: bool = True) -> bytes:
        """Join the payload of these streams, the partial one at the end included."""
        pieces = [*self.frames, *([self.partial] if partial and self.partial else [])]
        return b"".join(data for stream, data in pieces if stream in streams)

    @property
    def stdout(self) -> bytes:
        """All payload of streams 0 and 1."""
        return self.payload(0, 1)

    @property
    def stderr(self) -> bytes:
        """All payload of stream 2."""
        return self.payload(2)


def decode(data: bytes, *, max_frame_size: int | None = None, check_reserved: bool = True) -> Outcome:
    """Take a whole stream apart. What comes first in a header is judged first, and as soon as it is there."""
    outcome = Outcome()
    while outcome.offset < len(data):
        header = data[outcome.offset : outcome.offset + HEADER_SIZE]
        start = outcome.offset + HEADER_SIZE
        stream = header[0]
        if stream > SYSTEMERR:
            outcome.end = "unknown"
            return outcome
        if len(header) < HEADER_SIZE:
            outcome.end, outcome.missing = "truncated", HEADER_SIZE - len(header)
            return outcome
        size = int.from_bytes(header[4:8], "big")
        if check_reserved and header[1:4] != b"\0\0\0":
            outcome.end = "reserved"
            return outcome
        if max_frame_size is not None and size > max_frame_size:
            outcome.end = "too large"
            return outcome
        if stream == SYSTEMERR:
            text = data[start : start + min(size, MAX_TEXT_SIZE)]
            outcome.end, outcome.text = "systemerr", text.decode("utf-8", "replace")
            return outcome
        payload = data[start : start + size]
        if len(payload) < size:
            outcome.end, outcome.missing = "truncated", size - len(payload)
            outcome.partial = (stream, payload) if payload else None
            return outcome
        outcome.frames.append((stream, payload))
        outcome.offset = start + size
    return outcome


# --- streams to decode -----------------------------------------------------------------------------------------------


def pack(stream: int, payload: bytes, *, size: int | None = None, reserved: bytes = b"\0\0\0") -> bytes:
    """Make a frame, or something like one: size and reserved may lie."""
    claimed = len(payload) if size is None else size
    return bytes([stream]) + reserved + claimed.to_bytes(4, "big") + payload


def random_wire(rng: random.Random, *, max_frames: int = 12) -> bytes:
    """Make a stream of valid frames of telling sizes; two times out of three, damage it."""
    frames = [pack(rng.choice((0, 1, 1, 2, 2)), _some_payload(rng)) for _ in range(rng.randrange(max_frames + 1))]
    return b"".join(frames) if rng.random() < 1 / 3 else random_damage(frames, rng)


def random_damage(frames: list[bytes], rng: random.Random) -> bytes:
    """Join frames to a stream that is damaged somewhere."""
    return rng.choice(_DAMAGES)(frames, rng)


def cuts(data: bytes, rng: random.Random) -> list[bytes]:
    """Cut data anywhere, into few pieces or many, empty ones among them; joined they are data."""
    if rng.random() < 0.1 and len(data) <= 600:
        return [data[i : i + 1] for i in range(len(data))]
    count = rng.choice((0, 1, 2, 5, 30))
    places = [0, *sorted(rng.randint(0, len(data)) for _ in range(count)), len(data)]
    return [data[start:end] for start, end in pairwise(places)]


def _some_payload(rng: random.Random) -> bytes:
    # Mostly small: many short frames reach more states than a few long ones.
    size = rng.choice(SIZES) if rng.random() < 0.3 else rng.choice(SIZES[:15]) + rng.randrange(3)
    return rng.randbytes(size)


def _truncate(frames: list[bytes], rng: random.Random) -> bytes:
    wire = b"".join(frames)
    return wire[: rng.randint(max(0, len(wire) - 40), len(wire)) if rng.random() < 0.5 else rng.randint(0, len(wire))]


def _flip(frames: list[bytes], rng: random.Random) -> bytes:
    """Flip one bit, mostly of a header."""
    if not frames:
        return b""
    victim = rng.randrange(len(frames))
    frame = bytearray(frames[victim])
    frame[rng.randrange(HEADER_SIZE if rng.random() < 0.8 else len(frame))] ^= 1 << rng.randrange(8)
    return b"".join((*frames[:victim], frame, *frames[victim + 1 :]))


def _insert(frame: bytes, frames: list[bytes], rng: random.Random) -> bytes:
    place = rng.randint(0, len(frames))
    return b"".join((*frames[:place], frame, *frames[place:]))


def _bad_stream(frames: list[bytes], rng: random.Random) -> bytes:
    return _insert(pack(rng.choice((4, 5, 0x7B, 0x7F, 0x80, 0xFF, rng.randint(4, 255))), b"raw"), frames, rng)


def _reserved(frames: list[bytes], rng: random.Random) -> bytes:
    reserved = bytearray(3)
    reserved[rng.randrange(3)] = rng.randint(1, 255)
    return _insert(pack(rng.randrange(4), _some_payload(rng), reserved=bytes(reserved)), frames, rng)


def _giant(frames: list[bytes], rng: random.Random) -> bytes:
    size = rng.choice((0xFFFF_FFFF, 0xFFFF_FFF8, 0x8000_0000, 0x7FFF_FFFF, 0x0100_0000, rng.getrandbits(32)))
    return _insert(pack(rng.randrange(4), _some_payload(rng), size=size), frames, rng)


def _systemerr(frames: list[bytes], rng: random.Random) -> bytes:
    size = rng.choice((0, 1, 20, 300, MAX_TEXT_SIZE - 1, MAX_TEXT_SIZE, MAX_TEXT_SIZE + 1, MAX_TEXT_SIZE + 3000))
    text = ("Error grabbing logs: \N{SNOWMAN}\xe9 " * (size // 20 + 1)).encode()[:size]
    claimed = rng.choice((size, size, size + 1, 0xFFFF_FFFF))
    return _insert(pack(SYSTEMERR, text, size=claimed), frames, rng)


_DAMAGES = (_truncate, _flip, _bad_stream, _reserved, _giant, _systemerr)
