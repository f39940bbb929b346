"""Whole clients, attached to an engine that sends as fast as they take it: HTTP, sockets and event loops included."""

from __future__ import annotations

import asyncio
import atexit
import functools
import subprocess
import sys
import tempfile
from contextlib import closing, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import muxframe
import muxframe.aio

from . import Contender, Job, joined, sockets
from .python_peers import imported

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..workloads import Workload

API = "1.41"

#: An engine whose containers are the wires in a directory.
_ENGINE = r"""
import os, socketserver, sys, threading

is_inspected = threading.Event()

class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        while line := self.rfile.readline():
            path = line.split()[1].partition(b"?")[0].decode()
            while self.rfile.readline().strip():
                pass
            if path.endswith("/attach"):
                is_inspected.clear()
                self.wfile.write(b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n")
                name = path.split("/")[-2]
                if name.startswith("late."):
                    is_inspected.wait(10)
                with open(os.path.join(sys.argv[2], name.removeprefix("late.")), "rb") as wire:
                    self.wfile.write(wire.read())
                return
            body = b'{"Id": "one", "State": {"Status": "running", "Running": true}, "Config": {"Tty": false}}'
            head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            self.wfile.write(head % len(body) + body)
            is_inspected.set()

class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True

with Server(sys.argv[1], Handler) as server:
    print("ready", flush=True)
    server.serve_forever()
"""


@functools.cache
def _engine(wires: Path) -> str:
    """Start the engine, in a process of its own until this one ends; return its address."""
    directory = tempfile.TemporaryDirectory(prefix="muxframe-bench-")
    path = str(Path(directory.name, "engine.sock"))
    command = [sys.executable, "-S", "-E", "-c", _ENGINE, path, str(wires)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE)

    def stop() -> None:
        process.kill()
        process.communicate()
        directory.cleanup()

    atexit.register(stop)
    assert process.stdout is not None and process.stdout.readline()
    return f"unix://{path}"


def _container(workload: Workload) -> tuple[str, str]:
    """Return an engine's address, and the name of its container whose output the workload is."""
    wire = sockets.wire_path(workload)
    return _engine(wire.parent), wire.name


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    loop = asyncio.new_event_loop()
    atexit.register(loop.close)
    return loop


def _aiodocker(workload: Workload, installed: Callable[[], AbstractContextManager[Any]]) -> Job:
    docker = imported("aiodocker", "aiodocker")
    host, name = _container(workload)

    async def read() -> list[Any]:
        messages = []
        client = docker.Docker(url=host, api_version=f"v{API}")
        async with client, client.containers.container(name).attach(stdout=True, stderr=True) as stream:
            while (message := await stream.read_out()) is not None:
                messages.append(message)
        return messages

    def run() -> list[Any]:
        with installed():
            return _loop().run_until_complete(read())

    return Job(run, joined)


def aiodocker(workload: Workload) -> Job:
    """Messages of an attach, as aiodocker reads them."""
    return _aiodocker(workload, nullcontext)


def aiodocker_installed(workload: Workload) -> Job:
    """The same program, with muxframe installed."""
    return _aiodocker(workload, imported("muxframe.compat.aiodocker", "aiodocker").install)


def aio_attach(workload: Workload) -> Job:
    """Chunks of an attach, with muxframe alone."""
    host, name = _container(workload)

    async def read() -> list[Any]:
        chunks = []
        engine = await muxframe.aio.connect(host, api_version=API)
        async with engine.attach(name) as session:
            async for chunk in session.chunks():
                chunks.append(chunk)
        return chunks

    return Job(lambda: _loop().run_until_complete(read()), joined)


def _docker_py(workload: Workload, installed: Callable[[], AbstractContextManager[Any]]) -> Job:
    docker = imported("docker", "docker")
    host, name = _container(workload)

    def run() -> list[Any]:  # late: after docker-py's inspect, for it loses what comes together with the head
        with installed(), closing(docker.APIClient(base_url=host, version=API)) as client:
            return list(client.attach(f"late.{name}", stdout=True, stderr=True, stream=True, demux=True))

    def payload(pairs: Any) -> tuple[bytes, bytes]:
        return b"".join(out for out, _ in pairs if out), b"".join(err for _, err in pairs if err)

    return Job(run, payload)


def docker_py(workload: Workload) -> Job:
    """Pairs of an attach, as docker-py reads them."""
    return _docker_py(workload, nullcontext)


def docker_py_installed(workload: Workload) -> Job:
    """The same program, with muxframe installed."""
    return _docker_py(workload, imported("muxframe.compat.docker_py", "docker").install)


def attach(workload: Workload) -> Job:
    """An attach into two buffers, with muxframe alone."""
    host, name = _container(workload)
    outputs = bytearray(len(workload.stdout)), bytearray(len(workload.stderr))

    def run() -> None:
        with muxframe.connect(host, api_version=API).attach(name) as session:
            session.copy_to(*(memoryview(output) for output in outputs))

    return Job(run, lambda _: outputs)


CLIENTS = [
    Contender("aiodocker attach", "peer", aiodocker, package="aiodocker"),
    Contender("aiodocker attach, installed", "muxframe", aiodocker_installed, package="aiodocker"),
    Contender("muxframe.aio.attach, chunks", "muxframe", aio_attach),
    Contender("docker-py attach", "peer", docker_py, package="docker"),
    Contender("docker-py attach, installed", "muxframe", docker_py_installed, package="docker"),
    Contender("muxframe.attach, copy_to", "muxframe", attach),
]
