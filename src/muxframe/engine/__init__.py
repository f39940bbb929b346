"""The attach wrapper: container engines that speak Docker's API, blocking (here) and asyncio (`muxframe.aio`).

    endpoint.py     where an engine is
    dial.py tls.py  connections to it
    handshake.py    HTTP up to the hijack, without I/O; websocket.py the same for attach over a WebSocket
    calls.py        what is asked of an engine, in which order, and what the answers mean; parameters.py podman.py
    base.py         what both shells share
    client.py session.py    the blocking shell: Engine, Session
    aio.py aio_session.py aio_link.py       the asyncio shell: Engine, Session, connections
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .client import Engine, connect
from .handshake import Request, Response
from .session import Session

if TYPE_CHECKING:
    from ..ingest.follow import Follower
    from ..ingest.gather import Gathering

__all__ = ["Engine", "Request", "Response", "Session", "attach", "connect", "exec", "follow", "gather", "logs"]


def attach(container: str, *, host: str | None = None, **options: Any) -> Session:
    """Attach to a container of the engine that `connect(host)` finds; otherwise as `Engine.attach`."""
    return connect(host).attach(container, **options)


def exec(container: str, command: Any, *, host: str | None = None, **options: Any) -> Session:
    """Run a command in a container of the engine that `connect(host)` finds; otherwise as `Engine.exec`."""
    return connect(host).exec(container, command, **options)


def logs(name: str, *, host: str | None = None, **options: Any) -> Session:
    """Read the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.logs`."""
    return connect(host).logs(name, **options)


def follow(container: str, *, host: str | None = None, **options: Any) -> Follower:
    """Follow the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.follow`."""
    return connect(host).follow(container, **options)


def gather(*names: str, host: str | None = None, **options: Any) -> Gathering:
    """Gather the logs of containers of the engine that `connect(host)` finds; otherwise as `Engine.gather`."""
    return connect(host).gather(*names, **options)
