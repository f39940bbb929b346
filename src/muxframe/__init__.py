"""muxframe: Docker's and Podman's multiplexed streams, taken apart at the speed of memcpy.

    muxframe.demux(data)                  a whole buffer at once
    muxframe.copy(source, stdout, stderr) from any source to any two sinks
    muxframe.frames(source)               whole frames, one by one
    muxframe.Demuxer()                    incremental, without I/O
    muxframe.recover(source)              what can be saved of a damaged archive
    muxframe.FrameWriter, pack_frame      the way back
"""

from ._framing import BACKEND, Demuxer, Frame, demux, demux_into, pack_frame
from .copying import copy, frames
from .errors import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    FrameTooLargeError,
    FramingError,
    HandshakeError,
    MuxframeError,
    NotFoundError,
    ReservedBytesError,
    SinkError,
    TruncatedStreamError,
    UnknownStreamError,
)
from .protocol import HEADER_SIZE, Chunk, Copied, Demuxed, DemuxedInto, Stream
from .recovery import Gap, recover
from .sinks import FrameWriter

__version__ = "0.1.0"

__all__ = [
    "BACKEND",
    "HEADER_SIZE",
    "BadRequestError",
    "Chunk",
    "ConflictError",
    "ConnectionLostError",
    "Copied",
    "DaemonError",
    "Demuxed",
    "DemuxedInto",
    "Demuxer",
    "EngineError",
    "Frame",
    "FrameTooLargeError",
    "FrameWriter",
    "FramingError",
    "Gap",
    "HandshakeError",
    "MuxframeError",
    "NotFoundError",
    "ReservedBytesError",
    "SinkError",
    "Stream",
    "TruncatedStreamError",
    "UnknownStreamError",
    "copy",
    "demux",
    "demux_into",
    "frames",
    "pack_frame",
    "recover",
]
