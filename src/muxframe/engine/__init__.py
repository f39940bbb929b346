"""The attach wrapper: container engines that speak Docker's API, blocking (here) and asyncio (`muxframe.aio`).

    endpoint.py     where an engine is
    dial.py tls.py  connections to it
    handshake.py    HTTP up to the hijack, without I/O; websocket.py the same for attach over a WebSocket
    calls.py        what is asked of an engine, in which order, and what the answers mean; parameters.py podman.py
    base.py         what both shells share
    client.py session.py    the blocking shell: Engine, Session
    aio.py                  the asyncio shell
"""

from __future__ import annotations

from typing import Any

from .client import Engine, connect
from .handshake import Request, Response
from .session import Session

__all__ = ["Engine", "Request", "Response", "Session", "attach", "connect", "exec", "logs"]


def attach(container: str, *, host: str | None = None, **options: Any) -> Session:
    """Attach to a container of the engine that `connect(host)` finds; otherwise as `Engine.attach`."""
    return connect(host).attach(container, **options)


def exec(container: str, command: Any, *, host: str | None = None, **options: Any) -> Session:
    """Run a command in a container of the engine that `connect(host)` finds; otherwise as `Engine.exec`."""
    return connect(host).exec(container, command, **options)


def logs(name: str, *, host: str | None = None, **options: Any) -> Session:
    """Read the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.logs`."""
    return connect(host).logs(name, **options)
