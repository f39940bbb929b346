"""Wires in memory: demux_into and the others beside memcpy, the naive loop and the peers, for every workload."""

from __future__ import annotations

from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, in_memory


@pytest.mark.benchmark(group="memory")
@pytest.mark.parametrize("name", workloads.NAMES)
@each(in_memory())
def test_memory(contender: Contender, name: str, size: int, measure: Any) -> None:
    measure(contender, workloads.make(name, size))
