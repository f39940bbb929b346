"""The command at the end of a pipe, as a whole process, beside cat; its start; its memory."""

from __future__ import annotations

import os
from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, processes

pytestmark = pytest.mark.skipif(os.name != "posix", reason="waits for pipes with select")

REPEATS = {True: 1, False: 16}  # of the wire; True: where nothing is timed
NOTHING = workloads.Workload("empty", b"", b"", b"", 0)


def through_pipe(contender: Contender, request: pytest.FixtureRequest, *, files: bool) -> Contender:
    repeats = REPEATS[bool(request.config.getoption("benchmark_disable"))]
    return next(one for one in processes.through_pipe(repeats, files=files) if one.name == contender.name)


@pytest.mark.benchmark(group="pipe to /dev/null")
@pytest.mark.parametrize("name", ["16 B", "64 B", workloads.LINES, "32 KiB"])
@each(processes.through_pipe(1, files=False))
def test_pipe_to_null(contender: Contender, name: str, size: int, measure: Any, request: pytest.FixtureRequest) -> None:
    measure(through_pipe(contender, request, files=False), workloads.make(name, size), rounds=3)


@pytest.mark.benchmark(group="pipe to files")
@pytest.mark.parametrize("name", ["16 B", "64 B", workloads.LINES, "32 KiB"])
@each(processes.through_pipe(1, files=True))
def test_pipe_to_files(
    contender: Contender, name: str, size: int, measure: Any, request: pytest.FixtureRequest
) -> None:
    measure(through_pipe(contender, request, files=True), workloads.make(name, size), rounds=3)


@pytest.mark.benchmark(group="start")
@each(processes.starting())
def test_start(contender: Contender, measure: Any) -> None:
    measure(contender, NOTHING, rounds=5)


def test_peak_memory() -> None:
    """No time, so this one is judged: a frame of 128 MiB takes at most 8 MiB."""
    assert processes.peak_memory(128 * workloads.MIB) <= 8 * workloads.MIB
