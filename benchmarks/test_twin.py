"""The Python twin beside the naive loop, whatever backend is in use."""

from __future__ import annotations

from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, naive, ours


@pytest.mark.benchmark(group="twin")
@pytest.mark.parametrize("name", ["16 B", workloads.LINES, "1 KiB"])
@each([*(contender for contender in ours.IN_MEMORY if contender.kind == "twin"), *naive.IN_MEMORY])
def test_twin(contender: Contender, name: str, size: int, measure: Any) -> None:
    measure(contender, workloads.make(name, size))
