"""Moby's StdCopy in Python: as it is ported by hand, and the one that is to the letter."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING, Any

from muxframe.compat.stdcopy import StdCopy

from . import Contender, Job

if TYPE_CHECKING:
    from ..workloads import Workload


def std_copy(dst_out: Any, dst_err: Any, src: Any) -> int:
    """Copy as Moby's does: one buffer, of which a frame is written, and the rest moved to the front."""
    buffer = bytearray(32 * 1024 + 8)
    filled = written = 0
    while True:
        while filled < 8:
            size = src.readinto(memoryview(buffer)[filled:])
            if not size:
                return written
            filled += size
        stream, size = struct.unpack_from(">BxxxL", buffer)
        end = 8 + size
        if end > len(buffer):
            buffer += bytes(end - len(buffer) + 1)
        while filled < end:
            more = src.readinto(memoryview(buffer)[filled:])
            if not more:
                return written
            filled += more
        written += (dst_err if stream == 2 else dst_out).write(memoryview(buffer)[8:end])
        buffer[: filled - end] = memoryview(buffer)[end:filled]
        filled -= end


def _job(workload: Workload, copy: Any) -> Job:
    def run() -> tuple[io.BytesIO, io.BytesIO]:
        outputs = io.BytesIO(), io.BytesIO()
        copy(*outputs, io.BytesIO(workload.wire))
        return outputs

    return Job(run, lambda outputs: (outputs[0].getvalue(), outputs[1].getvalue()))


def ported(workload: Workload) -> Job:
    return _job(workload, std_copy)


def to_the_letter(workload: Workload) -> Job:
    return _job(workload, StdCopy)


IN_MEMORY = [
    Contender("Python port of StdCopy", "naive", ported),
    Contender("compat.stdcopy.StdCopy", "muxframe", to_the_letter),
]
