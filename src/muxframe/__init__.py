"""muxframe: Docker's and Podman's multiplexed streams, taken apart at the speed of memcpy.

    muxframe.demux(data)                  a whole buffer at once
    muxframe.copy(source, stdout, stderr) from any source to any two sinks
    muxframe.frames(source)               whole frames, one by one
    muxframe.lines(source)                lines, with what the engine cut joined again and timestamps parsed
    muxframe.batches(source)              the same as columns, for pyarrow, polars, duckdb and pandas
    muxframe.Demuxer()                    incremental, without I/O
    muxframe.recover(source)              what can be saved of a damaged archive
    muxframe.FrameWriter, pack_frame      the way back
    muxframe.attach, exec, logs           streams of Docker and Podman, through muxframe.connect()
    muxframe.follow, gather               logs of one container, or of many, for ever: lines that survive restarts
    muxframe.wait_for                     up to a line that matches
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._batches import BatchBuilder, LineBatch
from ._framing import BACKEND, Demuxer, Frame, demux, demux_into, pack_frame
from ._lines import Line, LineSplitter
from .batches import batches
from .copying import copy, frames
from .errors import (
    ArchiveError,
    BadRequestError,
    CheckpointError,
    ConflictError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    FrameTooLargeError,
    FramingError,
    HandshakeError,
    MuxframeError,
    NoMatchError,
    NotFoundError,
    ReservedBytesError,
    SinkError,
    TruncatedStreamError,
    UnknownStreamError,
)
from .lines import lines
from .protocol import HEADER_SIZE, Chunk, Copied, Demuxed, DemuxedInto, Stream
from .recovery import Gap, recover
from .sinks import FrameWriter

if TYPE_CHECKING:
    from .engine import Engine, Session, attach, connect, exec, follow, gather, logs
    from .ingest import Checkpoint, wait_for

__version__ = "0.1.0"

__all__ = [
    "BACKEND",
    "HEADER_SIZE",
    "ArchiveError",
    "BadRequestError",
    "BatchBuilder",
    "Checkpoint",
    "CheckpointError",
    "Chunk",
    "ConflictError",
    "ConnectionLostError",
    "Copied",
    "DaemonError",
    "Demuxed",
    "DemuxedInto",
    "Demuxer",
    "Engine",
    "EngineError",
    "Frame",
    "FrameTooLargeError",
    "FrameWriter",
    "FramingError",
    "Gap",
    "HandshakeError",
    "Line",
    "LineBatch",
    "LineSplitter",
    "MuxframeError",
    "NoMatchError",
    "NotFoundError",
    "ReservedBytesError",
    "Session",
    "SinkError",
    "Stream",
    "TruncatedStreamError",
    "UnknownStreamError",
    "attach",
    "batches",
    "connect",
    "copy",
    "demux",
    "demux_into",
    "exec",
    "follow",
    "frames",
    "gather",
    "lines",
    "logs",
    "pack_frame",
    "recover",
    "wait_for",
]

#: What is imported when it is first asked for: the attach wrapper needs h11.
_LATE = {
    **dict.fromkeys(("Engine", "Session", "attach", "connect", "exec", "follow", "gather", "logs"), "engine"),
    **dict.fromkeys(("Checkpoint", "wait_for"), "ingest"),
}


if not TYPE_CHECKING:  # a type checker would let any misspelt name pass

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from importlib import import_module

        value = globals()[name] = getattr(import_module(f"{__name__}.{_LATE[name]}"), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
