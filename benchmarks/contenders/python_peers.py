"""What Python programs use today, from the packages that are published. What is not installed is skipped."""

from __future__ import annotations

import importlib
import io
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from . import Contender, Job, Unavailable, joined, sockets

if TYPE_CHECKING:
    from ..workloads import Workload


def imported(module: str, package: str) -> Any:
    """Return a module of a package that may be missing."""
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise Unavailable(f"package {package} is not installed ({error})") from error


def docker_py(workload: Workload) -> Job:
    """frames_iter, which polls and reads twice a frame; what it yields is kept."""
    frames_iter = imported("docker.utils.socket", "docker").frames_iter
    return sockets.job(workload, lambda sock: list(frames_iter(sock, tty=False)), joined)


def docker_py_installed(workload: Workload) -> Job:
    """The same with muxframe in docker-py: it looks at what lies in the socket, and takes from it what it has given."""
    frames_iter = imported("muxframe.compat.docker_py", "docker").frames_iter
    return sockets.job(workload, lambda sock: list(frames_iter(sock, tty=False)), joined)


class _Queue:
    """Where aiodocker's parser puts its messages: the cheapest that could be behind it."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    def feed_data(self, message: Any, size: int) -> None:
        self.messages.append(message)


def aiodocker(workload: Workload) -> Job:
    """The parser of its exec and attach streams, fed with 64 KiB at a time, without its queue and event loop."""
    parser = getattr(imported("aiodocker.stream", "aiodocker"), "_ExecParser", None)
    if parser is None:
        raise Unavailable("this aiodocker has no _ExecParser")
    wires = [bytes(wire) for wire in workload.pieces(64 * 1024)]

    def run() -> list[Any]:
        queue = _Queue()
        feed = parser(queue).feed_data
        for wire in wires:
            feed(wire)
        return queue.messages

    return Job(run, joined)


def podman_py(workload: Workload) -> Job:
    """stream_frames with demux, on a response whose body is in memory. (It has another that is quadratic.)"""
    stream_frames = imported("podman.api.parse_utils", "podman").stream_frames

    def run() -> list[tuple[bytes | None, bytes | None]]:
        return list(stream_frames(SimpleNamespace(raw=io.BytesIO(workload.wire)), demux=True))

    def payload(pairs: Any) -> tuple[bytes, bytes]:
        return b"".join(out for out, _ in pairs if out), b"".join(err for _, err in pairs if err)

    return Job(run, payload)


IN_MEMORY = [
    Contender("aiodocker's parser", "peer", aiodocker, package="aiodocker"),
    Contender("podman-py stream_frames", "peer", podman_py, package="podman"),
]
FRAME_BY_FRAME = [Contender("podman-py stream_frames", "peer", podman_py, package="podman")]
ON_SOCKET = [
    Contender("docker-py frames_iter", "peer", docker_py, package="docker"),
    Contender("docker-py frames_iter, muxframe installed", "muxframe", docker_py_installed, package="docker"),
]
IN_PIECES = [Contender("aiodocker's parser", "peer", aiodocker, package="aiodocker")]
