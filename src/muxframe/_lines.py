"""The line core of the backend in use: see `_framing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._framing import BACKEND

__all__ = ["Line", "LineReader", "LineSplitter", "parse_timestamp"]

if TYPE_CHECKING or BACKEND == "python":
    from ._lines_py import Line, LineReader, LineSplitter, parse_timestamp
else:
    from ._lines_c import Line, LineReader, LineSplitter, parse_timestamp
