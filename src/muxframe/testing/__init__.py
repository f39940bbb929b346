"""A loopback container engine, to test code with that talks to container engines.

    with LoopbackEngine() as engine:
        engine.add(Container("web", output=[(1, b"out\\n"), (2, b"err\\n")]))
        ...                                     engine.host is its address: DOCKER_HOST for any client

It speaks attach, exec and logs as Docker or Podman of a given version do, byte for byte, runs scripts in place of
containers, and lets go wrong what can go wrong on the way.

    engine.py        LoopbackEngine: listening, connections, faults
    routes.py        which path is answered by what
    lifecycle.py     create, start, kill, wait, inspect, ...
    streams.py       attach, exec, logs
    websocket.py     attach over WebSocket
    detach.py        detach keys
    containers.py    containers, execs, their logs
    processes.py     scripts and what they can do
    personality.py   what differs between engines
    exchange.py      a request and its answer
    answers.py       the answer's bytes, and what goes wrong with them
    wire.py          a connection, plain or with TLS
"""

from .answers import Fault, Request
from .containers import Container, Exec, LogEntry, Service, Task
from .engine import LoopbackEngine
from .personality import Personality
from .processes import Killed, Output, Process, Script, cat, idle, say

__all__ = [
    "Container",
    "Exec",
    "Fault",
    "Killed",
    "LogEntry",
    "LoopbackEngine",
    "Output",
    "Personality",
    "Process",
    "Request",
    "Script",
    "Service",
    "Task",
    "cat",
    "idle",
    "say",
]
