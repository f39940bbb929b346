"""One-byte dribble: a call for every byte of the wire."""

from __future__ import annotations

from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, in_pieces


@pytest.mark.benchmark(group="pieces")
@each(in_pieces())
def test_one_byte_dribble(contender: Contender, measure: Any) -> None:
    measure(contender, workloads.make(workloads.ONE_BYTE))
