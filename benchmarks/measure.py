"""Rounds of interleaved samples: everybody has turns in each, in another order, so that noise meets all alike.

A ratio is the median of the rounds' own ratios: what a round compares was measured within seconds.
"""

from __future__ import annotations

import gc
import random
import statistics
import sys
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .contenders import Job, Unavailable, WrongOutput, sockets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .contenders import Contender
    from .contenders.foreign import Foreign
    from .workloads import Workload

TURN = 0.02  # seconds a turn takes at most, if a pass does not take longer
MAX_PASSES = 20  # in a turn
TURNS = 4  # of who is fast, in a round; others have one


@dataclass
class Series:
    """Samples of one contender on one workload: seconds for one pass over the wire, by round."""

    section: str
    workload: str
    contender: str
    kind: str
    frames: int
    payload_size: int
    wire_size: int
    package: str | None = None
    rounds: list[list[float]] = field(default_factory=list)

    @property
    def median(self) -> float:
        return statistics.median(seconds for turn in self.rounds for seconds in turn)

    @property
    def minimum(self) -> float:
        return min(seconds for turn in self.rounds for seconds in turn)

    def over(self, other: Series) -> float:
        """How many times as long this takes as another does: the median of the rounds' ratios of medians."""
        ratios = [
            statistics.median(ours) / statistics.median(theirs) for ours, theirs in zip(self.rounds, other.rounds)
        ]
        return statistics.median(ratios)


@dataclass
class Results:
    """All series of a run, and who was skipped."""

    series: list[Series] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)  #: name of a contender: why
    values: dict[str, float] = field(default_factory=dict)  #: what is no time: peak memory

    def find(self, section: str, workload: str, contender: str) -> Series | None:
        """Return a series, or None where it was not measured."""
        for series in self.series:
            if (series.section, series.workload, series.contender) == (section, workload, contender):
                return series
        return None

    def skip(self, name: str, why: Exception) -> None:
        if name not in self.skipped:
            say(f"  skipped: {name}: {why}")
        self.skipped[name] = str(why)


def say(text: str) -> None:
    """Tell what is going on, on stderr: stdout is for the result."""
    print(text, file=sys.stderr, flush=True)


def run_section(
    results: Results,
    section: str,
    workload: Workload,
    contenders: Sequence[Contender],
    foreign: Sequence[Foreign] = (),
    *,
    rounds: int,
    repeats: int = 1,
) -> None:
    """Measure contenders on one workload. repeats: how often the wire goes through in one pass."""
    say(f"{section}: {workload.name}")
    turns: list[tuple[Series, _Turn | _ForeignTurn]] = []

    def add(name: str, kind: str, package: str | None, turn: _Turn | _ForeignTurn) -> None:
        series = Series(
            section,
            workload.name,
            name,
            kind,
            workload.frames * repeats,
            workload.payload_size * repeats,
            len(workload.wire) * repeats,
            package,
        )
        turns.append((series, turn))

    for contender in contenders:
        try:
            job = contender.prepare(workload)
            job.check(workload)
        except Unavailable as why:
            results.skip(contender.name, why)
            continue
        add(contender.name, contender.kind, _version(contender.package), _Turn(job))
    for peer in foreign:
        try:
            turn = _ForeignTurn(peer, workload)
            package = turn.package
        except (Unavailable, WrongOutput) as why:
            results.skip(peer.name, why)
            continue
        add(peer.name, "peer", package, turn)

    shuffle = random.Random(0).shuffle
    for _ in range(rounds):
        for series, _take in turns:
            series.rounds.append([])
        for number in range(TURNS):
            order = [turn for turn in turns if turn[1].is_fast or number == 0]
            shuffle(order)
            for series, take in order:
                series.rounds[-1] += take()
    results.series += [series for series, _ in turns]


class _Turn:
    """One turn of a job: a pass to warm up, if that is short, and as many more as fit."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._estimate = job.once()[0]
        self.is_fast = self._estimate < TURN

    def __call__(self) -> list[float]:
        gc.collect()
        gc.disable()
        try:
            if self._estimate < TURN:
                self._estimate = self._job.once()[0]
            passes = min(MAX_PASSES, max(1, int(TURN / max(self._estimate, 1e-9))))
            return [self._job.once()[0] for _ in range(passes)]
        finally:
            gc.enable()


class _ForeignTurn:
    """One turn of a peer: a process that warms up and takes some passes."""

    is_fast = False  # a process a turn

    def __init__(self, peer: Foreign, workload: Workload) -> None:
        self._peer, self._workload = peer, workload
        self._command = peer.command()
        self._wire = sockets.wire_path(workload)
        said = self._run(1)
        self.package = f"{said['package']} ({said['runtime']})"
        self._passes = min(MAX_PASSES, max(1, int(TURN / said["seconds"][0])))

    def __call__(self) -> list[float]:
        seconds: list[float] = self._run(self._passes)["seconds"]
        return seconds

    def _run(self, repeats: int) -> dict[str, Any]:
        return self._peer.run(self._command, self._wire, self._workload, repeats)


def _version(package: str | None) -> str | None:
    from importlib.metadata import version

    return None if package is None else f"{package} {version(package)}"
