"""`muxframe bench`: what this machine does with small and large frames, in about ten seconds.

`measure` measures and knows nothing of the command line; `to_json` and `to_text` show. Everybody's output is compared
with what the wire holds before anything is timed. benchmarks/ in the sources has the long version, with others'
libraries in it.
"""

from __future__ import annotations

import gc
import io
import random
import struct
import time
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

from .. import _framing_py
from .._framing import BACKEND, demux_into
from ..copying import frames
from .files import say

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

SECONDS = 10.0

#: Payload of a frame, in bytes: both ends of a range.
SIZES = {"16 B": (16, 16), "64 B": (64, 64), "20-250 B": (20, 250), "1 KiB": (1024, 1024), "32 KiB": (32768, 32768)}

BLOCK_SIZE = 4 * 1024 * 1024  # of wire without repetition: a branch predictor learns shorter ones by heart
BLOCKS = 8  # so that a wire and its payload are more than most caches hold: from and to memory

_HEADER = struct.Struct(">BxxxL")


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    report = measure(arguments.seconds)
    say(to_json(report) if arguments.json else to_text(report))
    return 0


# --- measuring -------------------------------------------------------------------------------------------------------


@dataclass
class Wire:
    """A stream in memory, and what is in it."""

    data: bytes
    stdout: bytes
    stderr: bytes
    frames: int

    @property
    def payload_size(self) -> int:
        return len(self.stdout) + len(self.stderr)


@dataclass
class Timing:
    """What one contender took for one size of frames."""

    contender: str
    frame_size: str
    frames: int  #: in a pass
    payload_size: int  #: in a pass, in bytes
    seconds: list[float] = field(default_factory=list)  #: of each pass

    @property
    def nanoseconds(self) -> float:
        """Median, for a frame."""
        return median(self.seconds) / self.frames * 1e9

    @property
    def bytes_per_second(self) -> float:
        """Payload at the median."""
        return self.payload_size / median(self.seconds)


@dataclass
class Report:
    """Every pass, by contender and size."""

    timings: list[Timing] = field(default_factory=list)

    def find(self, contender: str, frame_size: str) -> Timing:
        """Return the timing of a contender at a size."""
        return next(one for one in self.timings if (one.contender, one.frame_size) == (contender, frame_size))


def measure(seconds: float = SECONDS, *, block_size: int | None = None) -> Report:
    """Time every contender on every size of frames, in turns.

    Args:
        seconds: about how long it takes. Each contender has at least one pass, however little that is.
        block_size: bytes of wire without repetition; None: 4 MiB.

    Raises:
        AssertionError: a contender's output is not what the wire holds.
    """
    report = Report()
    block_size = BLOCK_SIZE if block_size is None else block_size
    deadline = time.monotonic()
    for frame_size in SIZES:
        deadline += seconds / len(SIZES)
        wire = make_wire(frame_size, block_size, BLOCKS)
        turns = []
        for name, prepare in CONTENDERS.items():
            work, output = prepare(wire)
            stdout, stderr = output(work())
            if stdout != wire.stdout or stderr != wire.stderr:
                raise AssertionError(f"{name} got {frame_size} frames wrong")
            timing = Timing(name, frame_size, wire.frames, wire.payload_size)
            report.timings.append(timing)
            turns.append((work, timing.seconds))
        _take_turns(turns, deadline)
    return report


def _take_turns(turns: list[tuple[Callable[[], Any], list[float]]], deadline: float) -> None:
    """Give everybody a turn until the time is up. A turn is one pass, or several that are short."""
    shortest = 0.01
    enabled = gc.isenabled()
    while True:
        for work, seconds in turns:
            gc.collect()
            gc.disable()
            try:
                turn = 0.0
                while turn < shortest:
                    start = time.perf_counter()
                    work()
                    took = time.perf_counter() - start
                    seconds.append(took)
                    turn += max(took, shortest / 20)
            finally:
                if enabled:
                    gc.enable()
        if time.monotonic() >= deadline:
            return


def make_wire(frame_size: str, block_size: int, blocks: int) -> Wire:
    """Make a stream: runs of 1 to 31 frames of stdout, and of 1 to 3 of stderr. The same bytes each time."""
    random_ = random.Random(frame_size)
    smallest, largest = SIZES[frame_size]
    content = random_.randbytes(2 * largest)
    wire, outputs = bytearray(), {1: bytearray(), 2: bytearray()}
    count = 0
    while len(wire) < block_size:
        for stream, longest_run in ((1, 31), (2, 3)):
            for _ in range(random_.randint(1, longest_run)):
                size = random_.randint(smallest, largest)
                start = random_.randrange(largest)
                wire += _HEADER.pack(stream, size)
                wire += content[start : start + size]
                outputs[stream] += content[start : start + size]
                count += 1
    return Wire(bytes(wire) * blocks, bytes(outputs[1]) * blocks, bytes(outputs[2]) * blocks, count * blocks)


def _memcpy(wire: Wire) -> Any:
    """Copy the payload, already apart: the limit."""
    outputs = bytearray(len(wire.stdout)), bytearray(len(wire.stderr))
    out, err = memoryview(outputs[0]), memoryview(outputs[1])

    def work() -> None:
        out[:] = wire.stdout
        err[:] = wire.stderr

    return work, lambda _: outputs


def _demux_into(wire: Wire) -> Any:
    outputs = bytearray(len(wire.stdout)), bytearray(len(wire.stderr))
    return lambda: demux_into(wire.data, *outputs), lambda _: outputs


def _frames(wire: Wire) -> Any:
    """An object a frame, and its payload as bytes."""

    def work() -> None:
        for frame in frames(wire.data):
            bytes(frame)

    def output(_: Any) -> tuple[bytearray, bytearray]:
        outputs = bytearray(), bytearray()
        for frame in frames(wire.data):
            outputs[frame.stream >> 1].extend(bytes(frame))
        return outputs

    return work, output


def _twin(wire: Wire) -> Any:
    return lambda: _framing_py.demux(wire.data), tuple


def _naive(wire: Wire) -> Any:
    """Read 8 bytes, unpack, read as many as they say."""

    def work() -> tuple[bytes, bytes]:
        read = io.BytesIO(wire.data).read
        stdout: list[bytes] = []
        stderr: list[bytes] = []
        while header := read(8):
            stream, size = struct.unpack(">BxxxL", header)
            (stderr if stream == 2 else stdout).append(read(size))
        return b"".join(stdout), b"".join(stderr)

    return work, tuple


MEMCPY, NAIVE = "memcpy", "naive loop"
#: Each takes a wire, and gives a function to time and one that says what came out of it.
CONTENDERS: dict[str, Callable[[Wire], Any]] = {
    MEMCPY: _memcpy,
    "demux_into": _demux_into,
    "frames": _frames,
    "Python twin": _twin,
    NAIVE: _naive,
}


# --- showing ---------------------------------------------------------------------------------------------------------


def to_json(report: Report) -> str:
    """Render a report as one JSON object; the help of --json explains the keys."""
    import json

    timings = [
        {**asdict(one), "nanoseconds_per_frame": one.nanoseconds, "bytes_per_second": one.bytes_per_second}
        for one in report.timings
    ]
    return json.dumps({**_about(), "timings": timings}, indent=2) + "\n"


def to_text(report: Report) -> str:
    """Render a report as tables for people."""
    about = _about()
    lines = [
        f"muxframe {about['muxframe']} ({about['backend']} backend), Python {about['python']}, {about['machine']}",
        "",
        "ns a frame (median)",
        *_table(report, lambda one: _number(one.nanoseconds)),
        "",
        "payload, GB/s",
        *_table(report, lambda one: _number(one.bytes_per_second / 1e9)),
        "",
        f"times as fast as the {NAIVE}",
        *_table(report, lambda one: _number(report.find(NAIVE, one.frame_size).nanoseconds / one.nanoseconds)),
        "",
        f"{MEMCPY} moves the same payload, already apart, unseen: the limit. frames includes bytes(frame).",
    ]
    return "\n".join(lines) + "\n"


def _table(report: Report, cell: Callable[[Timing], str]) -> list[str]:
    lines = [f"  {'frames':10}" + "".join(f"{name:>13}" for name in CONTENDERS)]
    for frame_size in SIZES:
        cells = [cell(report.find(name, frame_size)) for name in CONTENDERS]
        lines.append(f"  {frame_size:10}" + "".join(f"{text:>13}" for text in cells))
    return lines


def _number(value: float) -> str:
    return f"{value:.3f}" if value < 0.1 else f"{value:.2f}" if value < 10 else f"{value:,.0f}"


def _about() -> dict[str, str]:
    import platform

    from .. import __version__

    return {
        "muxframe": __version__,
        "backend": BACKEND,
        "python": f"{platform.python_version()} ({platform.python_implementation()})",
        "machine": f"{platform.system()} {platform.machine()}",
    }
