"""Every benchmark runs as a test, too: checked against the expected output, and with --benchmark-disable only once."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from . import workloads
from .contenders import Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from .contenders import Contender

ROUNDS = 20
QUICK_SIZE = 256 * workloads.KIB


@pytest.fixture
def size(request: pytest.FixtureRequest) -> int:
    """Bytes of wire: few where nothing is timed."""
    return QUICK_SIZE if request.config.getoption("benchmark_disable") else workloads.CACHE


@pytest.fixture
def measure(benchmark: Any) -> Callable[..., None]:
    """Time a contender on a workload, after it has shown that it gets it right."""

    def measure(contender: Contender, workload: workloads.Workload, *, rounds: int = ROUNDS) -> None:
        try:
            job = contender.prepare(workload)
            job.check(workload)
        except Unavailable as why:
            pytest.skip(f"{contender.name}: {why}")
        benchmark.group = f"{benchmark.group or ''} {workload.name}".strip()
        benchmark.extra_info.update(
            frames=workload.frames, payload_size=workload.payload_size, wire_size=len(workload.wire)
        )
        if benchmark.disabled:
            benchmark(job.once)  # pedantic would leave out the teardown
            return
        benchmark.pedantic(
            job.run,
            setup=lambda: (job.setup(), {}),
            teardown=job.teardown,
            rounds=rounds,
            warmup_rounds=1,
            iterations=1,
        )

    return measure


def each(contenders: list[Contender]) -> pytest.MarkDecorator:
    """Parametrise a benchmark with contenders."""
    return pytest.mark.parametrize("contender", contenders, ids=lambda contender: contender.name.replace(" ", "-"))
