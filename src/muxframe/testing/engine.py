"""The loopback engine: it listens, keeps the containers, and hands each request to its answer."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import socket
import tempfile
import threading
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Union
from urllib.parse import parse_qsl

import h11

from .answers import NO_FAULT, Answer, CutError, Fault, Request, read_message
from .exchange import Exchange
from .personality import JSON, PLAIN, Flavor, Personality, dump
from .routes import ROUTES, answer, find_route
from .wire import GoneError, TlsWire, Wire

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence
    from types import TracebackType
    from typing import Self

    from .containers import Container, Exec
    from .processes import Script

    #: How commands become scripts: by the command (words as a shell reads them), by its first word, or by a function.
    Commands = Union[Mapping[str, Script], Callable[[Sequence[str]], Union[Script, None]]]

#: Seconds that close() gives the threads. They end by themselves; a script that ignores Killed does not.
CLOSING_TIME = 1.0

BACKLOG = 128


class LoopbackEngine:
    """A container engine without containers, for tests: it speaks Docker's API on a socket, and runs Python functions.

    Args:
        transport: "unix" (a socket in a private temporary directory; the default where there are such sockets) or
            "tcp" (127.0.0.1, any port).
        tls: server-side context, with certificate and key loaded; needs transport "tcp", which it then is by default.
        flavor: "docker" or "podman".
        api_version: newest API version it speaks, "1.24" to "1.51".
        server_version: version of the server, which some behaviour depends on: Podman "4.3.1" has its defects.
        on_exec: scripts of exec's commands: a mapping from "command with arguments" or its first word, or a function of
            the command that returns a script or None. A command without a script is one that is not found.
        on_create: the same for containers that clients create; without a script these do nothing until a signal comes.

    Attributes:
        host: its address, as DOCKER_HOST has it.
        requests: every Request it got, in order.
        errors: what went wrong in scripts and in the engine itself. Leaving the `with` block raises it.
        execs: every Exec, in order.
        personality: which engine it is.

    >>> with LoopbackEngine() as engine:
    ...     engine.host.partition(":")[0] in ("unix", "tcp")
    True
    """

    def __init__(
        self,
        *,
        transport: Literal["unix", "tcp"] | None = None,
        tls: ssl.SSLContext | None = None,
        flavor: Flavor = "docker",
        api_version: str | None = None,
        server_version: str | None = None,
        on_exec: Commands | None = None,
        on_create: Commands | None = None,
    ) -> None:
        if transport is None:
            transport = "unix" if hasattr(socket, "AF_UNIX") and tls is None else "tcp"
        if transport not in ("unix", "tcp"):
            raise ValueError(f"transport must be 'unix' or 'tcp', not {transport!r}")
        if tls is not None and transport == "unix":
            raise ValueError("tls needs transport='tcp'")
        self.personality: Personality = Personality.choose(flavor, api_version, server_version)
        self.flavor: str = flavor
        self.on_exec: Commands = on_exec or {}
        self.on_create: Commands = on_create or {}
        self.requests: list[Request] = []
        self.errors: list[BaseException] = []
        self.execs: list[Exec] = []
        self.host: str
        self.is_closed: bool = False
        self._tls = tls
        self._containers: list[Container] = []
        self._faults: list[_Planted] = []
        self._wires: set[Wire] = set()
        self._threads: list[threading.Thread] = []
        self._lock = threading.RLock()
        self._woken = threading.Condition(self._lock)
        self._releases = 0
        self._directory: str | None = None
        self._address: Any = None  # while it is stopped
        self.events: list[tuple[int, str, Container]] = []  # nanoseconds since 1970, what, to which
        self.happened: threading.Condition = threading.Condition()
        self._is_stopped = False
        self._listener = self._listen_unix() if transport == "unix" else self._listen_tcp()
        self._acceptor = self._spawn_acceptor()

    def _spawn_acceptor(self) -> threading.Thread:
        listener = self._listener
        return self.spawn("accept", lambda: self._accept(listener))

    def _listen_unix(self) -> socket.socket:
        self._directory = tempfile.mkdtemp(prefix="muxframe-")
        path = os.path.join(self._directory, "engine.sock")
        self.host = f"unix://{path}"
        return _listen_unix(path)

    def _listen_tcp(self) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", 0), backlog=BACKLOG)
        self.host = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        return listener

    # --- what tests use ----------------------------------------------------------------------------------------------

    def add(self, container: Container) -> Container:
        """Add a container, service or task, and return it.

        Raises:
            ValueError: its name is taken, or it has been added before.
        """
        with self._lock:
            if any((each.kind, each.name) == (container.kind, container.name) for each in self._containers):
                raise ValueError(f"there is a {container.kind} {container.name!r}")
            self._containers.append(container)
        container.bind(self)
        return container

    def find(self, kind: str, name: str) -> Container | None:
        """Find a container ("container"), service or task by name, id, or the beginning of its id."""
        with self._lock:
            candidates = [each for each in self._containers if each.kind == kind]
        for each in candidates:
            if name in (each.name, each.id):
                return each
        found = [each for each in candidates if name and each.id.startswith(name)]
        return found[0] if len(found) == 1 else None

    @property
    def is_swarm(self) -> bool:
        """Whether there are services or tasks."""
        with self._lock:
            return any(each.kind != "container" for each in self._containers)

    def fault(self, route: str, fault: Fault, *, container: str | None = None, times: int | None = None) -> None:
        """Let something go wrong from now on. Of several faults that apply to a request, the first planted does.

        Args:
            route: what is asked for: "attach", "logs", "exec-start" (see the list in docs/testing.md), or "*".
            fault: what goes wrong.
            container: only for this name or id, as the request has it.
            times: only for so many requests.

        Raises:
            ValueError: there is no such route, or the transport cannot do it.
        """
        if route != "*" and route not in {each.name for each in ROUTES}:
            raise ValueError(f"there is no route {route!r}")
        if fault.reset is not None and not self.host.startswith("tcp:"):
            raise ValueError("reset needs transport='tcp': a unix socket has no RST")
        with self._lock:
            self._faults.append(_Planted(route, fault, container, times))

    def clear_faults(self) -> None:
        """Let nothing go wrong any more with requests to come."""
        with self._lock:
            self._faults.clear()

    def release(self) -> None:
        """Let the answers to all requests so far go on, if they are stalled or would be."""
        with self._woken:
            self._releases += 1
            self._woken.notify_all()

    def stop(self) -> None:
        """Be away: no connection survives, and none is accepted before `restart`. Containers run on."""
        with self._lock:
            if self.is_closed or self._is_stopped:
                raise ValueError("the engine does not run")
            self._is_stopped = True
            address = self._listener.getsockname()
        self._wake_listener()
        self._acceptor.join(CLOSING_TIME)
        self._listener.close()
        if isinstance(address, str):
            os.unlink(address)
        with self._lock:
            wires = list(self._wires)
        for wire in wires:
            wire.abort()
        self._address = address

    def restart(self) -> None:
        """Be there again after `stop`, at the same address."""
        with self._lock:
            if self.is_closed or not self._is_stopped:
                raise ValueError("the engine was not stopped")
            unix = isinstance(self._address, str)
            self._listener = (
                _listen_unix(self._address) if unix else socket.create_server(self._address, backlog=BACKLOG)
            )
            self._is_stopped = False
        self._acceptor = self._spawn_acceptor()

    def close(self) -> None:
        """End everything: connections, scripts, threads, and the socket's directory. What went wrong is in `errors`."""
        with self._woken:
            if self.is_closed:
                return
            self.is_closed = True
            self._woken.notify_all()
            containers, wires = list(self._containers), list(self._wires)
        if not self._is_stopped:
            self._wake_listener()
        for wire in wires:
            wire.abort()
        for container in containers:
            container.remove()
        self._join()
        self._listener.close()
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _wake_listener(self) -> None:
        """Connect once, so that accept() returns: closing the socket wakes it on some systems only."""
        with socket.socket(self._listener.family) as caller:
            caller.settimeout(CLOSING_TIME)
            try:
                caller.connect(self._listener.getsockname())
            except OSError:
                pass

    def _join(self) -> None:
        """Wait for the threads; they end by themselves now, and so do those that they start meanwhile."""
        deadline = time.monotonic() + CLOSING_TIME
        while True:
            with self._lock:
                alive = [each for each in self._threads if each.is_alive() and each is not threading.current_thread()]
            left = deadline - time.monotonic()
            if not alive:
                return
            if left <= 0:
                return self.report(RuntimeError(f"still running: {', '.join(each.name for each in alive)}"))
            alive[0].join(left)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()
        if error is None and self.errors:
            if len(self.errors) == 1:
                raise self.errors[0]
            raise BaseExceptionGroup("errors in the loopback engine", self.errors)

    # --- what its parts use ------------------------------------------------------------------------------------------

    def spawn(self, name: str, work: Callable[[], None]) -> threading.Thread:
        """Run work in a thread that close() ends and joins."""

        def run() -> None:
            try:
                work()
            except GoneError:
                pass
            except BaseException as error:
                self.report(error)
            finally:
                with self._lock:
                    if not self.is_closed:
                        self._threads.remove(thread)

        thread = threading.Thread(target=run, name=f"muxframe.testing: {name}", daemon=True)
        with self._lock:
            self._threads.append(thread)
            thread.start()
        return thread

    def report(self, error: BaseException) -> None:
        """Keep an error for the test to see."""
        with self._lock:
            self.errors.append(error)

    def discard(self, container: Container) -> None:
        """Remove a container."""
        with self._lock:
            if container in self._containers:
                self._containers.remove(container)
        container.remove()
        self.note(container, "destroy" if self.personality.is_docker else "remove")

    def note(self, container: Container, action: str) -> None:
        """Remember that something has happened to a container, and tell who wants to know."""
        with self.happened:
            self.events.append((time.time_ns(), action, container))
            self.happened.notify_all()

    def containers(self) -> list[Container]:
        """List the containers."""
        with self._lock:
            return [each for each in self._containers if each.kind == "container"]

    def script_for(self, commands: Commands, command: Sequence[str]) -> Script | None:
        """Return the script of a command, or None."""
        if callable(commands):
            return commands(command)
        for text, script in commands.items():
            if shlex.split(text) == list(command):
                return script
        return commands.get(command[0]) if command else None

    def pause(self, seconds: float) -> None:
        """Wait a while.

        Raises:
            GoneError: the engine is closed.
        """
        self._wait(lambda: False, seconds)

    def _stall(self, releases: int) -> None:
        """Wait until there have been more releases than these."""
        self._wait(lambda: self._releases > releases)

    def _wait(self, ready: Callable[[], bool], timeout: float | None = None) -> None:
        with self._woken:
            self._woken.wait_for(lambda: self.is_closed or ready(), timeout)
            if self.is_closed:
                raise GoneError

    # --- connections -------------------------------------------------------------------------------------------------

    def _accept(self, listener: socket.socket) -> None:
        while True:
            sock, _ = listener.accept()
            with self._lock:
                if self.is_closed or self._is_stopped:
                    return sock.close()
                wire = Wire(sock) if self._tls is None else TlsWire(sock, self._tls)
                self._wires.add(wire)
            self.spawn("connection", lambda wire=wire: self._serve(wire))  # type: ignore[misc]

    def _serve(self, wire: Wire) -> None:
        try:
            wire.handshake()
            rest: bytes | None = b""
            while rest is not None:
                rest = self._serve_one(wire, rest)
            wire.finish()
        except CutError:
            wire.finish()
        finally:
            with self._lock:
                self._wires.discard(wire)
            wire.abort()
            wire.close()

    def _serve_one(self, wire: Wire, start: bytes) -> bytes | None:
        """Answer one request; return what came behind it, or None at the end of the connection."""
        try:
            message = read_message(wire, start)
        except h11.RemoteProtocolError as error:
            self._refuse_garbage(wire, str(error))
            return None
        if message is None:
            return None
        request = _request(*message)
        with self._lock:
            self.requests.append(request)
        route, name = find_route(request.method, request.path)
        fault = self._fault_of(route.name if route else "", name)
        x = Exchange(self, request, Answer(wire, fault, self.pause, partial(self._stall, self._releases)))
        if not self._refuse(x, fault):
            answer(x, route, name)
        return request.extra if x.keeps_alive else None

    def _fault_of(self, route: str, name: str) -> Fault:
        with self._lock:
            for planted in self._faults:
                if planted.applies(route, name):
                    return planted.fault
        return NO_FAULT

    def _refuse(self, x: Exchange, fault: Fault) -> bool:
        """Answer in place of the engine, where the fault says so."""
        if fault.delay:
            self.pause(fault.delay)
        if fault.garbage is not None:
            x.keeps_alive = False
            x.wire.send(fault.garbage)
        elif fault.redirect is not None:
            x.reply(301, headers={"Location": fault.redirect})
        elif fault.refuse_http10 is not None and x.request.http_version == "1.0":
            x.reply(fault.refuse_http10)
        elif fault.status is not None:
            is_text = isinstance(fault.body, str)
            body = fault.body.encode() if isinstance(fault.body, str) else dump(fault.body)
            x.reply(fault.status, body, {"Content-Type": PLAIN if is_text else JSON})
        else:
            return False
        return True

    def _refuse_garbage(self, wire: Wire, why: str) -> None:
        if "Host" in why:
            why = "missing required Host header"
        body = f"400 Bad Request: {why}"
        head = f"HTTP/1.1 400 Bad Request\r\nContent-Type: {PLAIN}\r\nConnection: close\r\n\r\n"
        wire.send((head + body).encode())


def _listen_unix(path: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(BACKLOG)
    return listener


class _Planted:
    """A fault, and what it applies to."""

    def __init__(self, route: str, fault: Fault, container: str | None, times: int | None) -> None:
        self.fault = fault
        self._route = route
        self._container = container
        self._times = times

    def applies(self, route: str, container: str) -> bool:
        if self._route not in ("*", route) or self._container not in (None, container) or self._times == 0:
            return False
        if self._times is not None:
            self._times -= 1
        return True


def _request(head: h11.Request, body: bytes, extra: bytes) -> Request:
    target = head.target.decode("latin-1")
    path, _, query = target.partition("?")
    found = re.fullmatch(r"(?:/v(\d+\.\d+))?(/.*)", path)
    return Request(
        method=head.method.decode(),
        target=target,
        path=found[2] if found else path,
        version=found[1] if found else None,
        query=dict(parse_qsl(query, keep_blank_values=True)),
        headers={name.decode(): value.decode("latin-1") for name, value in head.headers},
        body=body,
        http_version=head.http_version.decode(),
        extra=extra,
    )
