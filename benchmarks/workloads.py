"""The wires that are measured, each with the payload it must give. Seeded: the same bytes on every machine.

Streams alternate as engines send them. A container's writes come in runs: 1 to 31 frames of stdout (16 on average),
then 1 to 3 of stderr (2 on average): one frame in nine is stderr, and one in nine is followed by one of the other
stream. Where every size is the same, those switches are all that a branch predictor can get wrong; in log lines the
sizes are random, too.

A wire is made of blocks of 4 MiB with nothing repeated inside: a shorter one would be learnt by heart by the branch
predictor of a current processor, and measured better than it is. Two sizes are used:

    CACHE    4 MiB: the wire and the output stay in the last cache of most machines, and memcpy is at its fastest
    MEMORY  32 MiB: both come from and go to memory, as data does that nobody has just touched

The captured mixture is what real engines sent (examples/streams), one scenario after the other, whole streams only.
"""

from __future__ import annotations

import functools
import json
import random
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

STREAMS = Path(__file__).resolve().parent.parent / "examples" / "streams"

KIB, MIB = 1024, 1024 * 1024
BLOCK, CACHE, MEMORY = 4 * MIB, 4 * MIB, 32 * MIB
DRIBBLE = 16 * KIB  # of wire; what takes a call a byte needs no more

STDOUT, STDERR = 1, 2
LOG_LINE = (20, 250)  # bytes, line end included

#: Fixed sizes of the payload, by name.
SIZES = {"16 B": 16, "64 B": 64, "1 KiB": KIB, "16 KiB": 16 * KIB, "32 KiB": 32 * KIB}
LINES, MIXTURE, ONE_BYTE = "20-250 B", "captured", "one-byte dribble"
NAMES = ("16 B", "64 B", LINES, "1 KiB", "16 KiB", "32 KiB", MIXTURE)  # the dribble is a way to feed, not a size

_HEADER = struct.Struct(">BxxxL")


@dataclass(frozen=True)
class Workload:
    """A wire, and the payload that is in it."""

    name: str
    wire: bytes
    stdout: bytes
    stderr: bytes
    frames: int
    piece: int | None = None  #: bytes of the wire that arrive at once; None: as many as are asked for

    @property
    def payload_size(self) -> int:
        return len(self.stdout) + len(self.stderr)

    @property
    def frame_size(self) -> float:
        """Mean payload of a frame, in bytes."""
        return self.payload_size / self.frames

    def pieces(self, size: int) -> Iterator[memoryview]:
        """Yield the wire as it arrives: at most size bytes at once."""
        step = self.piece or size
        view = memoryview(self.wire)
        for start in range(0, len(view), step):
            yield view[start : start + step]


@functools.lru_cache(maxsize=4)
def make(name: str, size: int = CACHE) -> Workload:
    """Make a workload: whole frames, about size bytes of wire (the dribble: at most 16 KiB)."""
    if name == ONE_BYTE:
        lines = _repeated(_make_frames(LINES, min(size, DRIBBLE)), ONE_BYTE, 1)
        return Workload(ONE_BYTE, lines.wire, lines.stdout, lines.stderr, lines.frames, piece=1)
    if name == MIXTURE:
        block = _captured()
    elif name == LINES or name in SIZES:
        block = _make_frames(name, min(size, BLOCK))
    else:
        raise ValueError(f"no workload {name!r}")
    block_size = sum(_HEADER.size + len(payload) for _, payload in block)
    return _repeated(block, name, max(1, size // block_size))


def cut(workload: Workload, size: int) -> Workload:
    """Return the beginning of a workload: whole frames, at most size bytes of wire."""
    wire, position, frames = workload.wire, 0, 0
    sizes = {STDOUT: 0, STDERR: 0}
    while position < len(wire):
        stream, payload_size = _HEADER.unpack_from(wire, position)
        behind = position + _HEADER.size + payload_size
        if behind > size:
            break
        sizes[stream] += payload_size
        position, frames = behind, frames + 1
    return Workload(
        workload.name,
        wire[:position],
        workload.stdout[: sizes[STDOUT]],
        workload.stderr[: sizes[STDERR]],
        frames,
        workload.piece,
    )


def _repeated(block: list[tuple[int, bytes]], name: str, times: int) -> Workload:
    wire = b"".join(part for stream, payload in block for part in (_HEADER.pack(stream, len(payload)), payload))
    stdout, stderr = (b"".join(payload for stream, payload in block if stream == which) for which in (STDOUT, STDERR))
    return Workload(name, wire * times, stdout * times, stderr * times, len(block) * times)


def _make_frames(name: str, size: int) -> list[tuple[int, bytes]]:
    """Make (stream, payload) pairs that take about size bytes of wire."""
    random_ = random.Random(f"muxframe {name}")
    content = _text(random_) if name == LINES else random_.randbytes(MIB)
    frames: list[tuple[int, bytes]] = []
    wire_size = 0
    while True:
        for stream, longest_run in ((STDOUT, 31), (STDERR, 3)):
            for _ in range(random_.randint(1, longest_run)):
                length = random_.randint(*LOG_LINE) if name == LINES else SIZES[name]
                if frames and wire_size + _HEADER.size + length > size:
                    return frames
                start = random_.randrange(len(content) - length)
                payload = content[start : start + length]
                if name == LINES:
                    payload = payload[:-1] + b"\n"
                frames.append((stream, payload))
                wire_size += _HEADER.size + length


def _text(random_: random.Random) -> bytes:
    words = ("request", "path=/items/4711", "took", "13", "ms", "GET", "200", "user=anne", "INFO", "WARN", "retry")
    return " ".join(random_.choices(words, k=64 * KIB)).encode()


def _captured() -> list[tuple[int, bytes]]:
    """Read what engines sent. A reader of its own, so that what is measured does not check itself."""
    frames: list[tuple[int, bytes]] = []
    for about in sorted(STREAMS.glob("*/*/about.json")):
        if json.loads(about.read_text(encoding="utf-8"))["tty"]:
            continue  # not framed
        wire = about.with_name("stream.bin").read_bytes()
        stream_frames, position = [], 0
        while position < len(wire):
            stream, size = _HEADER.unpack_from(wire, position)
            position += _HEADER.size + size
            stream_frames.append((stream, wire[position - size : position]))
        for which, name in ((STDOUT, "stdout.bin"), (STDERR, "stderr.bin")):
            written = about.with_name(name).read_bytes()
            if b"".join(payload for stream, payload in stream_frames if stream == which) != written:
                raise ValueError(f"{about.parent}: the stream does not hold what {name} says")
        frames += stream_frames
    if not frames:
        raise FileNotFoundError(f"no captured streams in {STREAMS}")
    return frames
