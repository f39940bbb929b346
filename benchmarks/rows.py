"""The figures to reach, as rows: what was wanted, and what a run measured. Those that need an engine are not here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .workloads import LINES

if TYPE_CHECKING:
    from .measure import Results

#: Sections of a run.
MEMORY, CACHE, FRAMES, SOCKET, FILLED, PIECES = "memory", "cache", "frames", "socket", "filled socket", "pieces"
LINES_OF_LOG = "lines"
TO_NULL, TO_FILES, START = "pipe to /dev/null", "pipe to files", "start"
PEAK = "peak memory of a 1 GiB frame, bytes over import"
NOMINAL_MEMCPY = 15e9  # bytes a second at which the figure for 16 B frames holds
MIB = 1024 * 1024


@dataclass(frozen=True)
class Row:
    """One figure."""

    work: str
    wanted: str
    measured: str
    reached: bool | None  #: None: not measured

    @property
    def verdict(self) -> str:
        return {True: "reached", False: "NOT reached", None: "not measured"}[self.reached]


def ratio(results: Results, section: str, workload: str, slow: str, fast: str) -> tuple[float, float] | None:
    """How many times as long slow takes as fast does: the median of the rounds' ratios; and of the minima."""
    one, other = results.find(section, workload, slow), results.find(section, workload, fast)
    if one is None or other is None:
        return None
    return one.over(other), one.minimum / other.minimum


def make_rows(results: Results) -> list[Row]:
    """Compare a run with the figures. The verdict is on the median; the minimum is told beside it."""
    rows = [_small_frames(results)]
    for name in ("64 B", LINES, "1 KiB", "16 KiB", "32 KiB"):
        measured = ratio(results, MEMORY, name, "memcpy", "demux_into")
        rows.append(_at_least(f"demux_into of memcpy, {name}", 0.90, measured))
    for name, least in (("16 B", 20), ("64 B", 20), (LINES, 20), ("32 KiB", 1.2)):
        measured = ratio(results, MEMORY, name, "Moby StdCopy (Go)", "demux_into")
        rows.append(_at_least(f"demux_into over Moby StdCopy, {name}", least, measured))
    for name, least in (("16 B", 30), ("64 B", 30), (LINES, 15)):
        measured = ratio(results, MEMORY, name, "naive loop, BytesIO", "demux_into")
        rows.append(_at_least(f"demux_into over the naive loop, {name}", least, measured))
    for contender in ("recv_into + feed_into", "copy, socket to buffers"):
        measured = ratio(results, SOCKET, "64 B", contender, "recv_into and discard")
        rows.append(_at_most(f"{contender}, 64 B, of receive and discard", 1.15, measured))
    for contender in ("recv_into + feed_into", "copy, socket to buffers"):
        measured = ratio(results, SOCKET, "64 B", "docker-py frames_iter", contender)
        rows.append(_at_least(f"{contender}, 64 B, over docker-py", 100, measured))
    for contender, most in (("frames, untouched", 30), ("frames, bytes(frame)", 80)):
        rows.append(_nanoseconds(results, f"{contender}, 64 B", FRAMES, contender, most))
    rows += _log_rows(results)
    for section in (TO_NULL, TO_FILES):
        names = dict.fromkeys(series.workload for series in results.series if series.section == section)
        for name in names or ("any size",):
            measured = ratio(results, section, name, "muxframe demux", "cat")
            rows.append(_at_most(f"muxframe demux, {section}, {name}, of cat", 1.2, measured))
    rows.append(_start(results))
    measured = ratio(results, MEMORY, LINES, "naive loop, BytesIO", "Python twin, demux")
    rows.append(_at_least(f"Python twin over the naive loop, {LINES}", 2, measured))
    peak = results.values.get(PEAK)
    text = "" if peak is None else f"{peak / MIB:.1f} MiB"
    reached = None if peak is None else peak <= 8 * MIB
    rows.append(Row("peak memory copying a 1 GiB frame", "<= 8 MiB over import", text, reached))
    return rows


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:.0f}"


def _at_least(work: str, least: float, measured: tuple[float, float] | None) -> Row:
    wanted = f">= {least:g}x"
    if measured is None:
        return Row(work, wanted, "", None)
    return Row(work, wanted, f"{_number(measured[0])}x (min {_number(measured[1])}x)", measured[0] >= least)


def _at_most(work: str, most: float, measured: tuple[float, float] | None) -> Row:
    wanted = f"<= {most:g}x"
    if measured is None:
        return Row(work, wanted, "", None)
    return Row(work, wanted, f"{_number(measured[0])}x (min {_number(measured[1])}x)", measured[0] <= most)


def _log_rows(results: Results) -> list[Row]:
    name = "100 B lines"
    rows = [
        _nanoseconds(results, f"{contender}, {name} with timestamps", LINES_OF_LOG, contender, most, name)
        for contender, most in (("batches", 200), ("batches, large_utf8", 200), ("lines, timestamp and data", 1000))
    ]
    measured = ratio(results, LINES_OF_LOG, name, "split-and-parse loop", "batches")
    rows.append(_at_least(f"batches over a split-and-parse loop, {name}", 20, measured))
    return rows


def _nanoseconds(
    results: Results, work: str, section: str, contender: str, most: float, workload: str = "64 B"
) -> Row:
    series = results.find(section, workload, contender)
    if series is None:
        return Row(work, f"<= {most:g} ns", "", None)
    median, minimum = (1e9 * seconds / series.frames for seconds in (series.median, series.minimum))
    return Row(work, f"<= {most:g} ns", f"{median:.1f} ns (min {minimum:.1f})", median <= most)


def _small_frames(results: Results) -> Row:
    work, wanted = "demux_into, 16 B", "<= 5 ns a frame where memcpy runs at 15 GB/s"
    series, limit = results.find(MEMORY, "16 B", "demux_into"), results.find(MEMORY, "32 KiB", "memcpy")
    if series is None or limit is None:
        return Row(work, wanted, "", None)
    median, minimum = (1e9 * seconds / series.frames for seconds in (series.median, series.minimum))
    speed = limit.payload_size / limit.median
    allowed = 5 * max(1, NOMINAL_MEMCPY / speed)  # a slower memory slows everybody; a faster one is no excuse
    measured = f"{median:.2f} ns (min {minimum:.2f}), memcpy {speed / 1e9:.1f} GB/s"
    return Row(work, wanted, measured, median <= allowed)


def _start(results: Results) -> Row:
    series, python = (results.find(START, "empty", name) for name in ("muxframe demux, empty stream", "python -c pass"))
    if series is None or python is None:
        return Row("start-up of the command", "<= 60 ms", "", None)
    measured = f"{series.median * 1e3:.0f} ms (min {series.minimum * 1e3:.0f}; python alone {python.median * 1e3:.0f})"
    return Row("start-up of the command", "<= 60 ms", measured, series.median <= 0.060)
