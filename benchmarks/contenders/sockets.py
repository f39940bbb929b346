"""A socket with a wire already in it: the time to take it out is not the sender's, and needs no second processor."""

from __future__ import annotations

import functools
import socket
from typing import TYPE_CHECKING

from ..workloads import MIB, cut
from . import Job

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..workloads import Workload

MAX_SIZE = MIB
_SO_SNDBUFFORCE = 32  # Linux, for root; others get what the system's limit allows


@functools.cache
def capacity() -> int:
    """Return the bytes a socket here takes before anybody reads: at most 1 MiB."""
    ours, theirs = _pair()
    with ours, theirs:
        ours.setblocking(False)
        sent = 0
        while sent < MAX_SIZE:
            try:
                sent += ours.send(bytes(MAX_SIZE - sent))
            except BlockingIOError:
                break
    return MAX_SIZE if sent == MAX_SIZE else sent // 2  # smaller pieces have more overhead in the kernel


def fitting(workload: Workload) -> Workload:
    """Return as much of a workload as a socket holds."""
    return cut(workload, capacity())


def job(workload: Workload, run: Callable[[socket.socket], Any], payload: Callable[[Any], Any]) -> Job:
    """Make a job whose run gets a socket that holds the wire and then ends."""

    def setup() -> tuple[socket.socket]:
        ours, theirs = _pair()
        with ours:
            ours.setblocking(False)  # what does not fit is an error, not a deadlock
            if ours.send(workload.wire) != len(workload.wire):
                theirs.close()
                raise BufferError("the wire does not fit into the socket")
        return (theirs,)

    return Job(run, payload, setup, lambda sock: sock.close())


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
        try:
            pair[0].setsockopt(socket.SOL_SOCKET, option, 4 * MAX_SIZE)
            break
        except OSError:
            continue
    return pair

