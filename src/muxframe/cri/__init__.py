"""Container runtimes that speak the CRI (containerd, CRI-O, iSulad), and Kubernetes API servers: attach and exec.

    messages.py     the messages of gRPC that are used
    rpc.py          where a runtime is, and how it is called
    channel.py      the streams of a WebSocket, without I/O
    calls.py        what is asked of a runtime, in which order, and what the answers mean
    base.py client.py    Runtime, blocking; its sessions are those of muxframe.engine
    aio.py          the same for asyncio

Needs the extra: `muxframe[cri]`; `connect_stream` needs only `muxframe[websocket]`.
"""

from __future__ import annotations

from typing import Any

from ..engine.session import Session

try:
    from .client import Runtime, connect, connect_stream
except ModuleNotFoundError as _error:
    if _error.name != "websockets":
        raise
    text = 'muxframe.cri needs websockets, and grpcio for all but connect_stream: pip install "muxframe[cri]"'
    raise ModuleNotFoundError(text, name=_error.name) from None
from .messages import Container, Version

__all__ = ["Container", "Runtime", "Session", "Version", "attach", "connect", "connect_stream", "exec"]


def attach(endpoint: str | None, container: str, **options: Any) -> Session:
    """Attach to a container of the runtime that `connect(endpoint)` finds; otherwise as `Runtime.attach`."""
    return connect(endpoint).attach(container, **options)


def exec(endpoint: str | None, container: str, command: Any, **options: Any) -> Session:
    """Run a command in a container of the runtime that `connect(endpoint)` finds; otherwise as `Runtime.exec`."""
    return connect(endpoint).exec(container, command, **options)
