"""Lines of a log with timestamps: as objects, as columns, and by the loop that one would write."""

from __future__ import annotations

import random
import struct
from concurrent.futures import ProcessPoolExecutor
from datetime import datetime
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import muxframe
from muxframe import _batches_py, _lines_py, archive

from ..workloads import STDERR, STDOUT, Workload
from . import Contender, Job

if TYPE_CHECKING:
    from collections.abc import Iterable

_HEADER = struct.Struct(">BxxxI")
LINE_SIZE = 100  # bytes, line end included
START = 1_795_239_997_000_000_000  # nanoseconds since the epoch: 2026-11-21T05:46:37Z
FIRST = b"2026-11-21T05:46:"  # a log of less than 23 seconds


def make(size: int) -> Workload:
    """Make a log as Docker sends it, of about size bytes: a frame a line, one in nine of stderr.

    What a stream's payload holds is, for each line, its time and its text: that is what contenders must give.
    """
    rng = random.Random("muxframe lines")
    letters = b"abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOPQRSTUVWXYZ =/0123456789"
    wire: list[bytes] = []
    payloads: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    frames = total = 0
    while total < size:
        time = 37 * 1_000_000_000 + frames * 12_345 % 22_000_000_000
        line = bytes(rng.choices(letters, k=LINE_SIZE - 1))
        payload = b"%s%02d.%09dZ %s\n" % (FIRST, time // 1_000_000_000, time % 1_000_000_000, line)
        stream = STDERR if rng.randrange(9) == 0 else STDOUT
        wire += _HEADER.pack(stream, len(payload)), payload
        payloads[stream].append(b"%d %s\n" % (START + time - 37 * 1_000_000_000, line))
        frames += 1
        total += 8 + len(payload)
    stdout, stderr = (b"".join(payloads[stream]) for stream in (STDOUT, STDERR))
    return Workload("100 B lines", b"".join(wire), stdout, stderr, frames)


def _apart(rows: Iterable[tuple[int, Any, bytes]]) -> tuple[bytes, bytes]:
    """Put rows into the form of the workload's payload."""
    payloads: dict[int, list[bytes]] = {STDOUT: [], STDERR: []}
    for stream, timestamp, line in rows:
        payloads[stream].append(b"%d %s\n" % (timestamp, line))
    return b"".join(payloads[STDOUT]), b"".join(payloads[STDERR])


# --- the loop that one would write -----------------------------------------------------------------------------------


def loop(workload: Workload) -> Job:
    """Split and parse into columns. The date is parsed once a second; nothing is joined, checked or bounded."""

    def run() -> tuple[list[int], list[int], list[bytes]]:
        wire = workload.wire
        unpack = _HEADER.unpack_from
        streams: list[int] = []
        timestamps: list[int] = []
        lines: list[bytes] = []
        seconds: dict[bytes, int] = {}
        position, end = 0, len(wire)
        while position < end:
            stream, size = unpack(wire, position)
            start = position + 8
            position = start + size
            moment = wire[start : start + 19]
            if moment not in seconds:
                seconds[moment] = int(datetime.fromisoformat(moment.decode() + "+00:00").timestamp()) * 1_000_000_000
            streams.append(stream)
            timestamps.append(seconds[moment] + int(wire[start + 20 : start + 29]))
            lines.append(wire[start + 31 : position - 1])
        return streams, timestamps, lines

    return Job(run, lambda columns: _apart(zip(*columns)))


# --- columns ---------------------------------------------------------------------------------------------------------


def _batches(workload: Workload, **options: Any) -> Job:
    def run() -> list[Any]:
        return list(muxframe.batches(workload.wire, timestamps=True, **options))

    return Job(run, lambda batches: _apart(line for batch in batches for line in batch))


def batches(workload: Workload) -> Job:
    return _batches(workload)


def batches_utf8(workload: Workload) -> Job:
    return _batches(workload, line_type="large_utf8")


def batches_view(workload: Workload) -> Job:
    return _batches(workload, line_type="binary_view", source_name="web-1")


def dropped(workload: Workload) -> Job:
    """One batch at a time, as a writer of files sees them."""

    def run() -> int:
        return sum(batch.num_rows for batch in muxframe.batches(workload.wire, timestamps=True))

    return Job(run, int)


def twin_batches(workload: Workload) -> Job:
    def run() -> list[Any]:
        builder = _batches_py.BatchBuilder(timestamps=True)
        return builder.feed(workload.wire) + builder.feed_eof()

    return Job(run, lambda batches: _apart(line for batch in batches for line in batch))


# --- objects ---------------------------------------------------------------------------------------------------------


def untouched(workload: Workload) -> Job:
    def run() -> int:
        count = 0
        for _line in muxframe.lines(workload.wire, timestamps=True):
            count += 1
        return count

    return Job(run, int)


def attributes(workload: Workload) -> Job:
    def run() -> int:
        count = 0
        for line in muxframe.lines(workload.wire, timestamps=True):
            line.timestamp, line.data  # noqa: B018
            count += 1
        return count

    return Job(run, int)


def kept(workload: Workload) -> Job:
    """All of them at once: the one that shows that the others see the right lines."""
    return Job(lambda: list(muxframe.lines(workload.wire, timestamps=True)), _apart)


def twin(workload: Workload) -> Job:
    return Job(lambda: list(_lines_py.LineReader(workload.wire, timestamps=True)), _apart)


# --- out of an archive -----------------------------------------------------------------------------------------------


_kept: list[TemporaryDirectory[str]] = []  # until this process ends


def _count(part: archive.Slice) -> int:
    return sum(batch.num_rows for batch in part.batches())


def _archive(workload: Workload, processes: int) -> Job:
    """Read an archive's slices as batches, which are counted and dropped; processes are there already."""
    directory = TemporaryDirectory()
    path = Path(directory.name) / "log"
    archive.record(workload.wire, path, timestamps=True, interval=1024 * 1024)
    slices = archive.open(path).slices(4 * processes)
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn")) if processes > 1 else None

    def run() -> int:
        return sum(map(_count, slices) if pool is None else pool.map(_count, slices))

    _kept.append(directory)
    return Job(run, int)


def archive_alone(workload: Workload) -> Job:
    return _archive(workload, 1)


def archive_by_two(workload: Workload) -> Job:
    return _archive(workload, 2)


LINES = [
    Contender("batches", "muxframe", batches),
    Contender("batches, large_utf8", "muxframe", batches_utf8),
    Contender("batches, binary_view and source", "muxframe", batches_view),
    Contender("batches, one at a time", "muxframe", dropped),
    Contender("archive, batches, one process", "muxframe", archive_alone),
    Contender("archive, batches, two processes", "muxframe", archive_by_two),
    Contender("lines, untouched", "muxframe", untouched),
    Contender("lines, timestamp and data", "muxframe", attributes),
    Contender("lines, all kept", "muxframe", kept),
    Contender("split-and-parse loop", "naive", loop),
    Contender("Python twin, batches", "twin", twin_batches),
    Contender("Python twin, lines, all kept", "twin", twin),
]
