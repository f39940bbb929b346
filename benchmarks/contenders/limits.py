"""What nobody can beat: moving the same payload without looking at it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import Contender, Job, sockets

if TYPE_CHECKING:
    import socket

    from ..workloads import Workload

READ_SIZE = 256 * 1024


def memcpy(workload: Workload) -> Job:
    """Copy the payload, already apart, into two buffers: two calls of memcpy."""
    stdout, stderr = bytearray(len(workload.stdout)), bytearray(len(workload.stderr))
    out, err = memoryview(stdout), memoryview(stderr)

    def run() -> None:
        out[:] = workload.stdout
        err[:] = workload.stderr

    return Job(run, lambda _: (stdout, stderr))


def discard(workload: Workload) -> Job:
    """Receive into the same buffer until the end, and look at nothing."""
    buffer = bytearray(READ_SIZE)

    def run(sock: socket.socket) -> int:
        total = 0
        while size := sock.recv_into(buffer):
            total += size
        return total

    return sockets.job(workload, run, lambda total: total)


IN_MEMORY = [Contender("memcpy", "limit", memcpy, large=True)]
ON_SOCKET = [Contender("recv_into and discard", "limit", discard)]
