"""Choose the frame core: the compiled one where it is there, its Python twin otherwise.

MUXFRAME_BACKEND=cython or =python forces one; a forced one that is missing fails. Only an extension that was not built,
or that a subinterpreter may not load, is passed over: a broken one is an error.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

__all__ = ["BACKEND", "Demuxer", "Frame", "FrameReader", "Pump", "demux", "demux_into", "pack_frame"]


def _choose() -> str:
    wanted = os.environ.get("MUXFRAME_BACKEND")
    if wanted not in (None, "cython", "python"):
        raise ImportError(f"MUXFRAME_BACKEND must be 'cython' or 'python', not {wanted!r}")
    if wanted == "python":
        return "python"
    try:
        import_module(f"{__package__}._framing_c")
    except ImportError as error:
        absent = isinstance(error, ModuleNotFoundError) and error.name == f"{__package__}._framing_c"
        if wanted is None and (absent or "subinterpreters" in str(error)):
            return "python"
        raise
    return "cython"


#: "cython" or "python".
BACKEND = _choose()

if TYPE_CHECKING or BACKEND == "python":
    from ._framing_py import Demuxer, Frame, FrameReader, demux, demux_into, pack_frame

    Pump: Any = None  # the loop between descriptors: only compiled code is worth one of its own
else:
    from ._framing_c import Demuxer, Frame, FrameReader, Pump, demux, demux_into, pack_frame
