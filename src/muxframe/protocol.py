"""The wire format on one page, and the shapes in which muxframe hands it on.

    header  := STREAM 0 0 0 SIZE SIZE SIZE SIZE      8 bytes, SIZE is a big-endian uint32
    frame   := header payload[SIZE]
    stream  := frame*

STREAM is 0..3 (see `Stream`). SIZE may be zero. Bytes 1..3 are reserved: every known writer sends zeros.
A frame boundary says nothing about lines or characters. A TTY stream is not framed at all.

Source: Docker Engine API, "Attach to a container", stream format; Moby's api/pkg/stdcopy.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal, NamedTuple

HEADER_SIZE = 8
MAX_PAYLOAD_SIZE = 0xFFFF_FFFF

#: Text of a systemerr frame that is kept at most, in bytes: an error message needs no more, and a header claiming
#: 4 GiB must not be believed.
MAX_SYSTEMERR_SIZE = 64 * 1024

#: Cap of `frames` unless told otherwise. Engines send at most 32 KiB a frame (logs: 16 KiB and its prefix).
DEFAULT_MAX_FRAME_SIZE = 16 * 1024 * 1024

#: What an end of the stream inside a frame is: an error, or what Docker's own reader makes of it, nothing.
Truncated = Literal["error", "ignore"]


class Stream(IntEnum):
    """The first header byte: which of the container's streams a frame belongs to.

    >>> Stream(2)
    <Stream.STDERR: 2>
    """

    STDIN = 0  #: present for completeness, delivered to stdout
    STDOUT = 1  #: what the process wrote to its stdout, and all that a terminal shows
    STDERR = 2  #: what it wrote to its stderr
    SYSTEMERR = 3  #: the payload is an error text from the daemon and ends the stream


Chunk = tuple[Stream, bytes]


class Demuxed(NamedTuple):
    """The payload of a whole stream, apart."""

    stdout: bytes
    stderr: bytes


class DemuxedInto(NamedTuple):
    """What a call wrote into the buffers it was given, in bytes."""

    consumed: int  #: wire bytes taken from the input
    stdout_size: int
    stderr_size: int


class Copied(NamedTuple):
    """What a copy delivered, in bytes of payload and whole frames."""

    stdout_size: int
    stderr_size: int
    frames: int
