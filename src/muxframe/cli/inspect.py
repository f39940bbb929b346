"""`muxframe inspect`: what is in a stream.

`inspect_wire` looks, and knows nothing of files; `to_json` and `to_text` show.
"""

from __future__ import annotations

import struct
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .. import recovery
from ..errors import DaemonError, FramingError, TruncatedStreamError, UnknownStreamError, header_error
from ..protocol import HEADER_SIZE, MAX_PAYLOAD_SIZE, MAX_SYSTEMERR_SIZE, Stream
from ..sources import open_source
from .files import Naming, one_line, open_input, say
from .interrupt import Interrupt

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable, Iterator

BAR_WIDTH = 40  # characters
MAX_DISTINCT = 4096  # headers counted apart before they are summed up

_HEADER = struct.Struct(">Q")  # one number: its high byte is the stream, its low half the size
_STREAM_SHIFT = 56
_SYSTEMERR = Stream.SYSTEMERR << _STREAM_SHIFT  # headers from here on are a systemerr's, or wrong


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with open_input(arguments.source) as source, Interrupt(source) as interrupt, Naming(source.name):
        source.await_writer()
        wire = open_source(source.descriptor)
        report = inspect_wire(wire.blocks(), max_frame_size=arguments.max_frame_size, recover=arguments.recover)
        if interrupt.happened:
            report.end_early()
        say(to_json(report, source.name) if arguments.json else to_text(report, source.name))
    return 1 if report.fault or report.gaps else 0


# --- looking ---------------------------------------------------------------------------------------------------------


@dataclass
class StreamTally:
    """What a stream carries. `sizes` counts frames by the bits their size takes: 1 is 1, 2 is 2..3, 3 is 4..7."""

    frames: int = 0
    payload_size: int = 0
    empty_frames: int = 0
    sizes: Counter[int] = field(default_factory=Counter)

    def add(self, size: int, count: int = 1) -> None:
        """Count frames of the same size."""
        self.frames += count
        self.payload_size += size * count
        if size:
            self.sizes[size.bit_length()] += count
        else:
            self.empty_frames += count


@dataclass(frozen=True)
class Place:
    """A frame worth naming."""

    stream: Stream
    offset: int
    size: int


@dataclass
class Report:
    """What `inspect_wire` found. The help of --json explains the fields."""

    wire_size: int = 0
    streams: dict[Stream, StreamTally] = field(default_factory=lambda: {stream: StreamTally() for stream in Stream})
    largest: Place | None = None
    smallest: Place | None = None
    fault: FramingError | DaemonError | None = None
    systemerr: str | None = None
    gaps: list[recovery.Gap] | None = None
    interrupted: bool = False

    @property
    def frames(self) -> int:
        return sum(tally.frames for tally in self.streams.values())

    @property
    def payload_size(self) -> int:
        return sum(tally.payload_size for tally in self.streams.values())

    @property
    def truncated(self) -> bool:
        return isinstance(self.fault, TruncatedStreamError) or bool(self.gaps and not self.gaps[-1].size)

    @property
    def raw_tty(self) -> str | None:
        """Why this looks like a raw (TTY) stream, if it does."""
        fault = self.fault
        if not isinstance(fault, UnknownStreamError) or fault.offset or fault.header[:1] == b"{":
            return None
        return f"the first byte is 0x{fault.stream:02x}, where a multiplexed stream has a number from 0 to 3"

    def note(self, place: Place) -> None:
        """Take a frame into account as the largest or smallest."""
        if self.largest is None or place.size > self.largest.size:
            self.largest = place
        if self.smallest is None or place.size < self.smallest.size:
            self.smallest = place

    def end_early(self) -> None:
        """Say that this is what was seen before an interrupt: where that cut the stream is no fault of it."""
        self.interrupted = True
        if isinstance(self.fault, TruncatedStreamError):
            self.fault = None
        if self.gaps and self.gaps[-1].offset + self.gaps[-1].size == self.wire_size:
            self.gaps.pop()


def inspect_wire(blocks: Iterable[memoryview], *, max_frame_size: int | None = None, recover: bool = False) -> Report:
    """Look into a stream, up to its end or its first fault.

    Args:
        blocks: the wire, cut anywhere.
        max_frame_size: largest payload a header may announce, in bytes. Memory depends on it only to recover.
        recover: go on behind faults, as `muxframe.recover` does.
    """
    if recover:
        return _inspect_damaged(blocks, {} if max_frame_size is None else {"max_frame_size": max_frame_size})
    walker = FrameWalker(max_frame_size)
    for block in blocks:
        walker.feed(block)
        if walker.fault is not None:
            break
    return walker.report()


def _inspect_damaged(blocks: Iterable[memoryview], options: dict[str, int]) -> Report:
    walker = FrameWalker(options.get("max_frame_size", 1024 * 1024))  # finds the first fault, as the library tells it
    report = Report(gaps=[])
    assert report.gaps is not None
    place = None
    for item in recovery.recover(_watched(blocks, walker), **options):
        if isinstance(item, recovery.Gap):
            report.gaps.append(item)
            report.wire_size += item.size
            if not item.size and place is not None:  # the frame before is not whole
                report.streams[place.stream].add(place.size, -1)
                report.streams[place.stream].payload_size += place.size
            continue
        place = Place(item.stream, report.wire_size, len(item))
        report.streams[place.stream].add(place.size)
        report.note(place)
        report.wire_size += HEADER_SIZE + place.size
        if item.stream is Stream.SYSTEMERR and report.systemerr is None:
            report.systemerr = str(item.payload, "utf-8", "replace")
    report.fault = walker.report().fault
    return report


def _watched(blocks: Iterable[memoryview], walker: FrameWalker) -> Iterator[memoryview]:
    for block in blocks:
        walker.feed(block)
        yield block


class FrameWalker:
    """Go from header to header, and count.

    Of payload nothing is looked at or kept, except a systemerr's text. What a header says is judged when its value is
    first seen; from then on it is a key to count with, which is what makes this fast.
    """

    def __init__(self, max_frame_size: int | None = None) -> None:
        self.fault: FramingError | DaemonError | None = None
        self._max_frame_size = max_frame_size
        self._report = Report()
        self._counts: dict[int, int] = {}  # whole frames by header, not yet in the report
        self._offset = 0  # of the bytes that are being taken
        self._unfinished = b""  # beginning of a header
        self._header = 0  # of the frame that goes on behind what was taken
        self._frame_offset = 0  # where it begins
        self._due = 0  # bytes of its payload still to come
        self._text: bytearray | None = None  # it, in a systemerr

    def feed(self, block: memoryview) -> None:
        """Take wire bytes. What comes behind a fault is ignored."""
        try:
            while block and self.fault is None:
                if self._due:
                    taken = self._take_payload(block)
                elif self._unfinished or len(block) < HEADER_SIZE:
                    taken = self._take_header(block)
                else:
                    taken = self._take_frames(block)
                self._offset += taken
                block = block[taken:]
        except (FramingError, DaemonError) as fault:
            self.fault = fault
        if len(self._counts) > MAX_DISTINCT:
            self._sum_up()

    def report(self) -> Report:
        """Say what there was, now that the stream has ended."""
        self._sum_up()
        report = self._report
        report.wire_size = self._offset
        if self.fault is None and self._due:
            stream, size = _parts(self._header)
            if self._text is None:
                report.streams[stream].payload_size += size - self._due
                self.fault = TruncatedStreamError(self._frame_offset, _HEADER.pack(self._header), self._due)
            else:
                self.fault = DaemonError(str(self._text, "utf-8", "replace"), self._frame_offset)
        elif self.fault is None and self._unfinished:
            missing = HEADER_SIZE - len(self._unfinished)
            self.fault = TruncatedStreamError(self._frame_offset, self._unfinished, missing)
        elif isinstance(self.fault, FramingError):
            report.wire_size = self.fault.offset
        if self._text is not None:
            report.systemerr = str(self._text, "utf-8", "replace")
            report.streams[Stream.SYSTEMERR].frames += not self._due
            report.streams[Stream.SYSTEMERR].payload_size += len(self._text)
            report.wire_size = self._frame_offset + HEADER_SIZE + len(self._text)
        report.fault = self.fault
        return report

    def _take_frames(self, block: memoryview) -> int:
        """Take whole frames, and the header of the one that the block ends in."""
        counts, unpack = self._counts, _HEADER.unpack_from
        position, end = 0, len(block)
        while position <= end - HEADER_SIZE:
            (header,) = unpack(block, position)
            behind = position + HEADER_SIZE + (header & MAX_PAYLOAD_SIZE)
            if behind > end or header >= _SYSTEMERR:
                self._begin(header, self._offset + position)
                return position + HEADER_SIZE
            if header in counts:
                counts[header] += 1
            else:
                self._check(_HEADER.pack(header), self._offset + position)
                self._count(header, self._offset + position)
            position = behind
        return position

    def _take_header(self, block: memoryview) -> int:
        """Take what there is of a header that is cut."""
        if not self._unfinished:
            self._frame_offset = self._offset
        taken = bytes(block[: HEADER_SIZE - len(self._unfinished)])
        self._unfinished += taken
        self._check(self._unfinished, self._frame_offset)
        if len(self._unfinished) == HEADER_SIZE:
            (header,) = _HEADER.unpack(self._unfinished)
            self._unfinished = b""
            self._begin(header, self._frame_offset)
        return len(taken)

    def _begin(self, header: int, offset: int) -> None:
        """Begin a frame of which the header alone is there."""
        self._check(_HEADER.pack(header), offset)
        self._header, self._frame_offset = header, offset
        stream, self._due = _parts(header)
        if stream is Stream.SYSTEMERR:
            self._text = bytearray()
            self._due = min(self._due, MAX_SYSTEMERR_SIZE)
        if not self._due:
            self._end()

    def _take_payload(self, block: memoryview) -> int:
        taken = min(self._due, len(block))
        self._due -= taken
        if self._text is not None:
            self._text += block[:taken]
        if not self._due:
            self._end()
        return taken

    def _end(self) -> None:
        """End the frame that `_begin` began."""
        if self._text is not None:
            raise DaemonError(str(self._text, "utf-8", "replace"), self._frame_offset)
        self._count(self._header, self._frame_offset)

    def _check(self, header: bytes, offset: int) -> None:
        fault = header_error(header, offset, max_frame_size=self._max_frame_size, check_reserved=True)
        if fault is not None:
            raise fault

    def _count(self, header: int, offset: int) -> None:
        if header not in self._counts:
            stream, size = _parts(header)
            self._report.note(Place(stream, offset, size))
        self._counts[header] = self._counts.get(header, 0) + 1

    def _sum_up(self) -> None:
        """Move the counts into the report, so that they do not grow with the stream."""
        for header, count in self._counts.items():
            stream, size = _parts(header)
            self._report.streams[stream].add(size, count)
        self._counts.clear()


def _parts(header: int) -> tuple[Stream, int]:
    return Stream(header >> _STREAM_SHIFT), header & MAX_PAYLOAD_SIZE


# --- showing ---------------------------------------------------------------------------------------------------------


def to_json(report: Report, source: str) -> str:
    """Render a report as one JSON object; the help of --json explains the keys."""
    import json

    content = {
        "source": source,
        "wire_size": report.wire_size,
        "frames": report.frames,
        "payload_size": report.payload_size,
        "streams": {
            stream.name.lower(): {
                "frames": tally.frames,
                "payload_size": tally.payload_size,
                "empty_frames": tally.empty_frames,
                "sizes": [
                    {"from": 1 << bits - 1, "to": (1 << bits) - 1, "frames": count}
                    for bits, count in sorted(tally.sizes.items())
                ],
            }
            for stream, tally in report.streams.items()
        },
        "largest": _place_json(report.largest),
        "smallest": _place_json(report.smallest),
        "fault": report.fault
        and {"error": type(report.fault).__name__, "offset": report.fault.offset, "text": str(report.fault)},
        "systemerr": report.systemerr,
        "truncated": report.truncated,
        "raw_tty": {"suspected": report.raw_tty is not None, "reason": report.raw_tty},
        "gaps": None if report.gaps is None else [gap._asdict() for gap in report.gaps],
        "interrupted": report.interrupted,
    }
    return json.dumps(content, indent=2) + "\n"


def _place_json(place: Place | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {"stream": place.stream.name.lower(), "offset": place.offset, "size": place.size}


def to_text(report: Report, source: str) -> str:
    """Render a report for people."""
    seen = {stream: tally for stream, tally in report.streams.items() if tally.frames or tally.payload_size}
    lines = [
        f"{source}: {report.wire_size:,} bytes of wire, {report.frames:,} frames, "
        f"{report.payload_size:,} bytes of payload",
    ]
    if seen:
        lines += ["", f"{'stream':<10}{'frames':>16}{'empty':>16}{'payload bytes':>20}"]
        lines += [
            f"{stream.name.lower():<10}{tally.frames:>16,}{tally.empty_frames:>16,}{tally.payload_size:>20,}"
            for stream, tally in seen.items()
        ]
    for name, place in (("largest", report.largest), ("smallest", report.smallest)):
        if place is not None:
            lines += [""] if name == "largest" else []
            lines.append(f"{name:<10}{place.size:,} bytes, {place.stream.name.lower()}, at offset {place.offset}")
    lines += _histogram(seen)
    lines += _findings(report)
    return "\n".join(map(one_line, lines)) + "\n"


def _histogram(streams: dict[Stream, StreamTally]) -> list[str]:
    """Draw how many frames are of which size; the longest bar is the most frequent size of all."""
    most = max((count for tally in streams.values() for count in tally.sizes.values()), default=0)
    lines = []
    for stream, tally in streams.items():
        if tally.sizes:
            lines += ["", f"sizes of {stream.name.lower()}"]
        for bits in range(min(tally.sizes, default=0), max(tally.sizes, default=-1) + 1):
            count = tally.sizes[bits]
            bar = "#" * -(-count * BAR_WIDTH // most)  # rounded up: what is there is seen
            lines.append(f"{1 << bits - 1:>15,} ..{(1 << bits) - 1:>14,} {bar:<{BAR_WIDTH}} {count:>14,}")
    return lines


def _findings(report: Report) -> list[str]:
    lines = [""]
    if report.interrupted:
        lines.append("interrupted: this is what was there until then")
    if report.fault is not None:
        lines.append(f"fault: {type(report.fault).__name__}: {report.fault}")
    if report.systemerr is not None and not isinstance(report.fault, DaemonError):
        lines.append(f"systemerr: {report.systemerr}")
    if report.raw_tty is not None:
        lines.append(f"probably a raw (TTY) stream: {report.raw_tty}")
    if report.truncated:
        lines.append("the stream ends inside a frame")
    lines += [f"gap of {gap.size:,} bytes at offset {gap.offset}: {gap.reason}" for gap in report.gaps or ()]
    return lines if len(lines) > 1 else ["", "no faults"]
