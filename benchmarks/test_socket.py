"""From a socket: one that holds the wire already, and one that another process fills."""

from __future__ import annotations

import os
from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, on_socket, sockets

pytestmark = pytest.mark.skipif(os.name != "posix", reason="passes a socket to another process, and waits for pipes")


@pytest.mark.benchmark(group="filled socket")
@pytest.mark.parametrize("name", ["64 B", workloads.LINES, "32 KiB", workloads.MIXTURE])
@each(on_socket())
def test_filled_socket(contender: Contender, name: str, size: int, measure: Any) -> None:
    measure(contender, sockets.fitting(workloads.make(name, size)))


@pytest.mark.benchmark(group="socket")
@each(on_socket())
def test_socket(contender: Contender, size: int, measure: Any) -> None:
    measure(contender, workloads.make("64 B", max(size, 2 * sockets.capacity())), rounds=5)
