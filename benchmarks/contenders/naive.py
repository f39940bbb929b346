"""The loop everybody writes: read 8 bytes, unpack, read as many as they say."""

from __future__ import annotations

import io
import struct
from typing import TYPE_CHECKING

from . import Contender, Job, joined, sockets

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from ..workloads import Workload


def demux(read: Callable[[int], bytes]) -> tuple[bytes, bytes]:
    """Take a stream apart; read returns as many bytes as it is asked for, fewer only at the end."""
    stdout: list[bytes] = []
    stderr: list[bytes] = []
    while True:
        header = read(8)
        if len(header) < 8:
            break
        stream, size = struct.unpack(">BxxxL", header)
        payload = read(size)
        if stream == 2:
            stderr.append(payload)
        else:
            stdout.append(payload)
    return b"".join(stdout), b"".join(stderr)


def in_memory(workload: Workload) -> Job:
    """On a BytesIO."""
    return Job(lambda: demux(io.BytesIO(workload.wire).read), tuple)


def frames(workload: Workload) -> Job:
    """On a BytesIO, a frame a round, not kept."""

    def run() -> int:
        read = io.BytesIO(workload.wire).read
        count = 0
        while header := read(8):
            _stream, size = struct.unpack(">BxxxL", header)
            read(size)
            count += 1
        return count

    return Job(run, int)


def buffered(workload: Workload) -> Job:
    """On a socket's buffered file."""

    def run(sock: socket.socket) -> tuple[bytes, bytes]:
        with sock.makefile("rb") as file:
            return demux(file.read)

    return sockets.job(workload, run, tuple)


def raw(workload: Workload) -> Job:
    """On the socket itself: a recv for each header, and one or more for each payload."""

    def run(sock: socket.socket) -> tuple[bytes, bytes]:
        def read(size: int) -> bytes:
            data = sock.recv(size) if size else b""
            while len(data) < size:
                more = sock.recv(size - len(data))
                if not more:
                    break
                data += more
            return data

        return demux(read)

    return sockets.job(workload, run, tuple)


class _Parser:
    """The same loop for a wire that comes in pieces: keep what is there until a frame is whole."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: memoryview) -> list[tuple[int, bytes]]:
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            stream, size = struct.unpack(">BxxxL", self._buffer[:8])
            if len(self._buffer) < 8 + size:
                break
            frames.append((stream, self._buffer[8 : 8 + size]))
            self._buffer = self._buffer[8 + size :]
        return frames


def pieces(workload: Workload) -> Job:
    """In pieces, as they come."""
    wires = list(workload.pieces(64 * 1024))

    def run() -> list[tuple[int, bytes]]:
        feed = _Parser().feed
        frames: list[tuple[int, bytes]] = []
        for wire in wires:
            frames += feed(wire)
        return frames

    return Job(run, joined)


IN_MEMORY = [Contender("naive loop, BytesIO", "naive", in_memory, large=True)]
FRAME_BY_FRAME = [Contender("naive loop, BytesIO", "naive", frames)]
ON_SOCKET = [
    Contender("naive loop, buffered file", "naive", buffered),
    Contender("naive loop, raw socket", "naive", raw),
]
IN_PIECES = [Contender("naive buffer", "naive", pieces)]
