"""Whole clients and ports of StdCopy: what benchmarks/migration.py compares and no other file has."""

from __future__ import annotations

import gc
import os
import warnings
from typing import Any

import pytest

from . import migration, workloads
from .conftest import each
from .contenders import Contender, clients, stdcopy


@pytest.mark.skipif(os.name != "posix", reason="the engine listens on a Unix socket")
@pytest.mark.benchmark(group="attached")
@each(clients.CLIENTS)
def test_clients(contender: Contender, size: int, measure: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)  # docker-py leaves its sockets to the garbage collector
        measure(contender, workloads.make(workloads.LINES, size), rounds=5)
        gc.collect()


@pytest.mark.benchmark(group="StdCopy")
@each(stdcopy.IN_MEMORY)
def test_stdcopy(contender: Contender, size: int, measure: Any) -> None:
    measure(contender, workloads.make(workloads.LINES, size), rounds=5)


def test_moves_name_contenders() -> None:
    for section, *pair in migration.MOVES:
        names = {contender.name for contender in migration.taking_part(section)}
        assert {name for name in pair if not name.endswith("(Go)")} <= names
