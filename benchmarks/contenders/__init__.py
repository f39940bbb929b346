"""Who takes part. Each contender is one function that prepares a Job for a workload; nothing is timed here.

A Job's `run` is what is timed; `setup` makes its arguments, untimed, before each run; `payload` says what came out of
it, and `check` compares that with what the workload must give: nobody is timed who gets it wrong. Who cannot take part
raises Unavailable, with the reason, and is skipped by name.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from ..workloads import Workload

    Kind = Literal["limit", "muxframe", "twin", "naive", "peer"]


class Unavailable(Exception):
    """A contender cannot take part here; the text says why."""


class WrongOutput(Exception):
    """A contender did not give what the wire holds."""


def _nothing() -> tuple[Any, ...]:
    return ()


def _forget(*_: Any) -> None:
    pass


@dataclass
class Job:
    """Work on one workload, ready to be done again and again."""

    run: Callable[..., Any]
    #: From what run returned: (stdout, stderr), or how many bytes there were where it throws the payload away.
    payload: Callable[[Any], tuple[Any, Any] | int]
    setup: Callable[[], tuple[Any, ...]] = _nothing
    teardown: Callable[..., None] = _forget  #: takes what setup returned

    def once(self) -> tuple[float, Any]:
        """Run once; return the seconds it took, and what it returned."""
        arguments = self.setup()
        try:
            start = time.perf_counter()
            result = self.run(*arguments)
            return time.perf_counter() - start, result
        finally:
            self.teardown(*arguments)

    def check(self, workload: Workload) -> None:
        """Run once and compare.

        Raises:
            WrongOutput: it is not what the wire holds.
        """
        payload = self.payload(self.once()[1])
        if isinstance(payload, int):
            if payload not in (workload.payload_size, len(workload.wire), workload.frames):
                raise WrongOutput(f"{workload.name}: {payload} counted")
        elif payload[0] != workload.stdout or payload[1] != workload.stderr:
            sizes = [len(part) for part in payload]
            raise WrongOutput(
                f"{workload.name}: {sizes} bytes, or other bytes, instead of"
                f" {[len(workload.stdout), len(workload.stderr)]}"
            )


@dataclass(frozen=True)
class Contender:
    """One way to do the work of a section of the benchmarks."""

    name: str
    kind: Kind
    prepare: Callable[[Workload], Job]
    #: Takes part in memory-sized workloads, too. What is slow for its own reasons does not depend on caches.
    large: bool = field(default=False, kw_only=True)
    package: str | None = field(default=None, kw_only=True)  #: distribution it comes from


def joined(parts: Any) -> tuple[bytes, bytes]:
    """Join (stream, payload) pairs."""
    stdout, stderr = bytearray(), bytearray()
    for stream, payload in parts:
        (stderr if stream == 2 else stdout).extend(payload)
    return bytes(stdout), bytes(stderr)


def in_memory() -> list[Contender]:
    """List who takes a wire apart that is in memory."""
    from . import limits, naive, ours, python_peers

    return [*limits.IN_MEMORY, *ours.IN_MEMORY, *naive.IN_MEMORY, *python_peers.IN_MEMORY]


def frame_by_frame() -> list[Contender]:
    """List who gives an object a frame in a loop."""
    from . import naive, ours, python_peers

    return [*ours.FRAME_BY_FRAME, *naive.FRAME_BY_FRAME, *python_peers.FRAME_BY_FRAME]


def on_socket() -> list[Contender]:
    """List who reads from a socket."""
    from . import limits, naive, ours, python_peers

    return [*limits.ON_SOCKET, *ours.ON_SOCKET, *naive.ON_SOCKET, *python_peers.ON_SOCKET]


def in_pieces() -> list[Contender]:
    """List who can be fed with pieces, however small."""
    from . import naive, ours, python_peers

    return [*ours.IN_PIECES, *naive.IN_PIECES, *python_peers.IN_PIECES]
