"""The workloads themselves: deterministic, and what they say they are."""

from __future__ import annotations

import hashlib

import pytest

import muxframe

from . import report, rows, workloads
from .measure import Results, Series

SIZE = 256 * workloads.KIB


@pytest.mark.parametrize("name", [*workloads.NAMES, workloads.ONE_BYTE])
def test_the_wire_holds_the_payload(name: str) -> None:
    workload = workloads.make(name, SIZE)
    assert muxframe.demux(workload.wire) == (workload.stdout, workload.stderr)
    assert sum(1 for _ in muxframe.frames(workload.wire)) == workload.frames


def test_the_same_everywhere() -> None:
    digest = hashlib.sha256(workloads.make("64 B", SIZE).wire).hexdigest()
    assert digest == hashlib.sha256(workloads.make.__wrapped__("64 B", SIZE).wire).hexdigest()
    assert digest.startswith("35096aacc5bc5b46")


def test_a_cut_workload_is_whole() -> None:
    workload = workloads.cut(workloads.make(workloads.LINES, SIZE), 10_000)
    assert 9_000 < len(workload.wire) <= 10_000
    assert muxframe.demux(workload.wire) == (workload.stdout, workload.stderr)


def test_rows_and_tables_of_a_run() -> None:
    results = Results()
    for contender, seconds in (("memcpy", 1e-3), ("demux_into", 1e-3), ("naive loop, BytesIO", 0.02)):
        results.series.append(Series(rows.MEMORY, "64 B", contender, "limit", 1000, 64_000, 72_000, None, [[seconds]]))
    verdicts = {row.work: row.reached for row in rows.make_rows(results)}
    assert verdicts["demux_into of memcpy, 64 B"] is True
    assert verdicts["demux_into over the naive loop, 64 B"] is False
    assert verdicts["demux_into, 16 B"] is None
    assert "NOT reached" in report.as_text(results, {"muxframe": "?"})
    assert set(report.as_blocks(results, {})) >= {"machine", "figures", "memory"}
