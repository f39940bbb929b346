"""The columnar core of the backend in use: see `_framing`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._framing import BACKEND

__all__ = ["BatchBuilder", "LineBatch", "export_stream"]

if TYPE_CHECKING or BACKEND == "python":
    from ._batches_py import BatchBuilder, LineBatch, export_stream
else:
    from ._batches_c import BatchBuilder, LineBatch, export_stream
