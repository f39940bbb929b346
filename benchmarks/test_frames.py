"""An object a frame in a Python loop: untouched, as bytes, unpacked."""

from __future__ import annotations

from typing import Any

import pytest

from . import workloads
from .conftest import each
from .contenders import Contender, frame_by_frame


@pytest.mark.benchmark(group="frames")
@pytest.mark.parametrize("name", ["16 B", "64 B", workloads.LINES, "32 KiB"])
@each(frame_by_frame())
def test_frames(contender: Contender, name: str, size: int, measure: Any) -> None:
    measure(contender, workloads.make(name, size))
