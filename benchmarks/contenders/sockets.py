"""Sockets with a wire in them, or with another process that sends it."""

from __future__ import annotations

import atexit
import functools
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
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
    """Make a job whose run gets a socket that holds the wire, or as much of it as fits, and then ends.

    Where all of it fits, it is there before the run: what is measured is the receiver alone, and nobody waits. A longer
    wire comes from another process, as it does in life.
    """

    def filled() -> tuple[socket.socket, None]:
        ours, theirs = _pair()
        with ours:
            ours.setblocking(False)
            if ours.send(workload.wire) != len(workload.wire):
                theirs.close()
                raise BufferError("the wire does not fit into the socket")
        return theirs, None

    def sent() -> tuple[socket.socket, subprocess.Popen[bytes]]:
        ours, theirs = socket.socketpair()
        with ours:
            command = [sys.executable, "-S", "-E", "-c", _SENDER, str(ours.fileno()), wire_file(workload)]
            sender = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[ours.fileno()])
        select.select([theirs], [], [])
        return theirs, sender

    def close(sock: socket.socket, sender: subprocess.Popen[bytes] | None) -> None:
        sock.close()
        if sender is not None:
            sender.wait()

    fits = len(workload.wire) <= capacity()
    return Job(lambda sock, _: run(sock), payload, filled if fits else sent, close)


_SENDER = """
import socket, sys
wire = open(sys.argv[2], "rb").read()
with socket.socket(fileno=int(sys.argv[1])) as sock:
    sock.sendall(wire)
"""


@functools.cache
def _scratch() -> Path:
    directory = Path(tempfile.mkdtemp(prefix="muxframe-bench-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def wire_file(workload: Workload) -> str:
    """Return the name of a file that holds the wire, until this process ends."""
    return str(wire_path(workload))


def wire_path(workload: Workload) -> Path:
    """Return the path of that file."""
    path = _scratch() / f"{workload.name}-{len(workload.wire)}".replace(" ", "-")
    if not path.exists():
        path.write_bytes(workload.wire)
    return path


def _pair() -> tuple[socket.socket, socket.socket]:
    pair = socket.socketpair()
    for option in (_SO_SNDBUFFORCE, socket.SO_SNDBUF):
        try:
            pair[0].setsockopt(socket.SOL_SOCKET, option, 4 * MAX_SIZE)
            break
        except OSError:
            continue
    return pair
