"""Lines of a log with timestamps: as objects, as columns, and by the loop that one would write."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import each
from .contenders import Contender, lines


@pytest.mark.benchmark(group="lines")
@each(lines.LINES)
def test_lines(contender: Contender, size: int, measure: Any) -> None:
    measure(contender, lines.make(size))
