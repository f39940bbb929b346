"""What the engine does for each path."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import unquote

from .. import Stream, pack_frame
from .containers import Container, Exec
from .personality import JSON, PLAIN, RefusedError, dump
from .processes import SIGKILL, Outlet, signal_number
from .wire import GoneError

if TYPE_CHECKING:
    from collections.abc import Callable

    from .containers import LogEntry
    from .engine import LoopbackEngine
    from .exchange import Exchange

#: Seconds between looks at whether a client that only waits is still there.
LOOK_INTERVAL = 0.1

#: Seconds for which what a client still sends is read after the end of its stream, so that it can read that end.
LINGER = 0.2

NEVER = "0001-01-01T00:00:00Z"


class Route(NamedTuple):
    """A path and who answers it."""

    name: str
    method: str
    path: re.Pattern[str]
    answer: Callable[[Api, Exchange, str], None]


class Api:
    """The engine's answers. Each method answers one path; its last argument is the name in the path."""

    def __init__(self, engine: LoopbackEngine) -> None:
        self.engine = engine
        self.personality = engine.personality

    def find(self, x: Exchange) -> tuple[Route | None, str]:
        """Find the route of a request, and the name in its path."""
        for route in ROUTES:
            found = route.path.fullmatch(x.request.path)
            if found and (x.request.method == route.method or (x.request.method, route.name) == ("HEAD", "ping")):
                return route, unquote(found[1]) if found.re.groups else ""
        return None, ""

    def answer(self, x: Exchange, route: Route | None, name: str) -> None:
        """Answer a request."""
        p = self.personality
        if route is None:
            return self._no_route(x)
        refused = p.check_version(x.request)
        if refused is not None:
            if "old" in refused.message and not (1, 42) <= p.api <= (1, 45):
                return x.plain(400, refused.message + "\n", p.headers())
            return x.refuse(refused)
        try:
            route.answer(self, x, name)
        except RefusedError as error:
            (x.refuse_hijacked if route.name == "attach" else x.refuse)(error)

    def _no_route(self, x: Exchange) -> None:
        if self.personality.is_docker:
            body = self.personality.error_body(RefusedError(404, "page not found"))
            nothing = dict.fromkeys(self.personality.headers())
            return x.reply(404, body, {**nothing, "Content-Type": JSON})
        if any(route.path.fullmatch(x.request.path) for route in ROUTES):
            return x.plain(405, "Method Not Allowed\n")
        x.plain(404, "Not Found\n")

    def _container(self, name: str) -> Container:
        container = self.engine.find("container", name)
        if container is None:
            raise self.personality.no_container(name)
        return container

    # --- the engine --------------------------------------------------------------------------------------------------

    def ping(self, x: Exchange, _: str) -> None:
        """GET, HEAD /_ping."""
        body = b"" if x.request.method == "HEAD" else b"OK"
        x.reply(200, body, {**self.personality.ping_headers(), "Content-Type": PLAIN})

    def version(self, x: Exchange, _: str) -> None:
        """GET /version."""
        p = self.personality
        name = "Engine" if p.is_docker else "Podman Engine"
        details = {"ApiVersion" if p.is_docker else "APIVersion": p.api_version if p.is_docker else p.server_version}
        common = {"Version": p.server_version, "Os": "linux", "Arch": "amd64"}
        x.json(
            {
                "Platform": {"Name": "" if p.is_docker else "linux/amd64"},
                "Components": [{"Name": name, "Version": p.server_version, "Details": details}],
                **common,
                "ApiVersion": p.api_version,
                "MinAPIVersion": p.min_api_version,
            }
        )

    # --- the life of a container -------------------------------------------------------------------------------------

    def create(self, x: Exchange, _: str) -> None:
        """POST /containers/create."""
        config = self._json(x)
        name = x.request.query.get("name") or f"unnamed-{time.time_ns()}"
        known = self.engine.find("container", name)
        if known is not None and self.personality.is_docker:
            raise RefusedError(
                409,
                f'Conflict. The container name "/{name}" is already in use by container "{known.id}". '
                "You have to remove (or rename) that container to be able to reuse that name.",
            )
        if known is not None:
            cause = "that name is already in use"
            text = f'container create: creating container storage: the container name "{name}" is already in use by'
            advice = "You have to remove that container to be able to reuse that name"
            raise RefusedError(500, f"{text} {known.id}. {advice}: {cause}", cause)
        command = [*_strings(config.get("Entrypoint")), *_strings(config.get("Cmd"))]
        container = Container(
            name,
            self.engine.script_for(self.engine.on_create, command),
            state="created",
            tty=bool(config.get("Tty")),
            open_stdin=bool(config.get("OpenStdin")),
            stdin_once=bool(config.get("StdinOnce")),
            labels=config.get("Labels"),
            auto_remove=bool((config.get("HostConfig") or {}).get("AutoRemove")),
            command=command,
            config=config,
        )
        self.engine.add(container)
        x.json({"Id": container.id, "Warnings": []}, 201)

    def inspect(self, x: Exchange, name: str) -> None:
        """GET /containers/{id}/json."""
        container = self._container(name)
        document = describe(container)
        x.start_body(JSON)
        x.send(dump(document))
        x.finish()

    def start(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/start."""
        container = self._container(name)
        if container.state == "paused":
            if self.personality.is_docker:
                raise RefusedError(409, "cannot start a paused container, try unpause instead")
            cause = "container state improper"
            text = f"container {container.id} must be in Created or Stopped state to be started"
            raise RefusedError(500, f"{text}: {cause}", cause)
        if container.is_running:
            return x.reply(304)
        container.start()
        x.reply(204)

    def kill(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/kill."""
        container = self._container(name)
        text = x.request.query.get("signal") or "KILL"
        p = self.personality
        try:
            number = signal_number(text)
        except ValueError:
            if not p.is_docker:
                raise RefusedError(500, f"invalid signal: {text}") from None
            new = f"cannot kill container: {name}: invalid signal: {text}"
            raise RefusedError(400, new if p.server >= (24,) else f"Invalid signal: {text}") from None
        if not container.is_running:
            raise p.not_running(
                container.id,
                f"can only kill running containers. {container.id} is in state {container.state}",
                podman_status=409 if p.server >= (5,) else 500,
                docker=f"{'cannot' if p.server >= (24,) else 'Cannot'} kill container: {name}: ",
            )
        container.kill(number)
        x.reply(204)

    def stop(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/stop: SIGTERM, and SIGKILL a while later."""
        container = self._container(name)
        if not container.is_running:
            return x.reply(304)
        container.kill(15)
        seconds = float(x.request.query.get("t") or x.request.query.get("timeout") or 10)
        if not self._watch(x, container.changed, lambda: not container.is_running, seconds):
            container.kill(SIGKILL)
        x.reply(204)

    def pause(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/pause."""
        self._pause(x, name, paused=True)

    def unpause(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/unpause."""
        self._pause(x, name, paused=False)

    def _pause(self, x: Exchange, name: str, *, paused: bool) -> None:
        container = self._container(name)
        if not container.is_running:
            raise self.personality.not_running(container.id, f'"{container.id}" is not running, can\'t pause')
        container.pause(paused)
        x.reply(204)

    def remove(self, x: Exchange, name: str) -> None:
        """DELETE /containers/{id}."""
        container = self._container(name)
        if container.is_running and not x.request.flag("force"):
            raise self._cannot_remove(container)
        self.engine.discard(container)
        x.reply(204)

    def _cannot_remove(self, container: Container) -> RefusedError:
        p = self.personality
        if not p.is_docker:
            text = f"cannot remove container {container.id} as it is running - running or paused containers"
            cause = "container state improper"
            return RefusedError(500, f"{text} cannot be removed without force: {cause}", cause)
        if p.server < (24,):
            text = f"You cannot remove a running container {container.id}."
            return RefusedError(409, f"{text} Stop the container before attempting removal or force remove")
        text = f'cannot remove container "/{container.name}": container is running:'
        return RefusedError(409, f"{text} stop the container before removing or force remove")

    def wait(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/wait: the head at once, the body when it is so far."""
        container = self._container(name)
        p = self.personality
        condition = x.request.query.get("condition") or "not-running"
        if condition not in ("not-running", "next-exit", "removed"):
            if not p.is_docker:
                cause = "not a valid docker condition"
                raise RefusedError(400, f"failed to parse query parameter 'condition': \"{condition}\": {cause}", cause)
            if p.api >= (1, 42):
                raise RefusedError(400, f'invalid condition: "{condition}"')
            condition = "not-running"
        exits = container.exits
        ready = {
            "not-running": lambda: not container.is_running,
            "next-exit": lambda: container.exits > exits or container.is_removed,
            "removed": lambda: container.is_removed,
        }[condition]
        x.start_body(JSON)
        container.begin()
        self._watch(x, container.changed, ready)
        forgotten = condition == "removed" and not p.is_docker and p.server < (5,)
        code = 0 if forgotten else container.exit_code
        if p.is_docker:
            document = {"StatusCode": code} if p.api >= (1, 42) else {"Error": None, "StatusCode": code}
        else:
            document = {"StatusCode": code, "Error": None}
        x.send(dump(document))
        x.finish()

    def _watch(
        self, x: Exchange, changed: threading.Condition, ready: Callable[[], bool], timeout: float | None = None
    ) -> bool:
        """Wait until something is so; False where the time is over first.

        Raises:
            GoneError: the client has gone first, or the engine is closed.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        with changed:
            while not ready():
                left = LOOK_INTERVAL if deadline is None else min(LOOK_INTERVAL, deadline - time.monotonic())
                if left <= 0:
                    return False
                changed.wait(left)
                if self.engine.is_closed or x.wire.has_left():
                    raise GoneError
        return True

    def resize(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/resize."""
        container = self._container(name)
        size = self._size(x)
        if container.process is None or not container.is_running:
            text = "can only resize created or running containers"
            raise self.personality.not_running(container.id, text, podman_status=409)
        container.process.resize(*size)
        x.reply(200)

    def _size(self, x: Exchange) -> tuple[int, int]:
        sizes = []
        for name in ("h", "w"):
            text = x.request.query.get(name, "")
            if not text.isdigit():
                if self.personality.is_docker:
                    raise RefusedError(400, f'strconv.Atoi: parsing "{text}": invalid syntax')
                cause = f'schema: error converting value for "{name}"'
                raise RefusedError(400, f"failed to parse parameters for {x.request.target}: {cause}", cause)
            sizes.append(int(text))
        return sizes[0], sizes[1]

    # --- attach ------------------------------------------------------------------------------------------------------

    def attach(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/attach."""
        p = self.personality
        container = self._container(name)
        if container.state == "paused":
            if p.is_docker:
                raise RefusedError(409, f"container {name} is paused, unpause the container before attach")
            cause = "container state improper"
            text = "can only attach to created or running containers - currently in state paused"
            raise RefusedError(500, f"{text}: {cause}", cause)
        stream, replay = x.request.flag("stream", default=not p.is_docker), x.request.flag("logs")
        if not p.is_docker and not (stream or replay):
            raise RefusedError(400, "at least one of Logs or Stream must be set")
        if not p.is_docker and container.state == "exited":
            container.state, container.exit_code = "created", 0
        asked = {number for number, flag in ((1, "stdout"), (2, "stderr")) if x.request.flag(flag)}
        outlet = Outlet(frozenset(asked if p.is_docker else {1, 2}))
        has_stdin = stream and x.request.flag("stdin")
        if p.is_docker and stream and not asked and not has_stdin:
            outlet.end()
        history = container.attach(outlet, replay=replay, stream=stream or not p.is_docker)
        stdin = container.stdin

        def on_data(data: bytes) -> None:
            if has_stdin and container.open_stdin:
                stdin.feed(data)

        def on_eof() -> None:
            if not container.open_stdin or (p.is_docker and not has_stdin):
                return
            if p.is_docker and (container.tty or not container.stdin_once):
                container.detach(outlet)
            elif not container.tty:
                stdin.end()

        content_type = p.stream_type(x.request, tty=container.tty, upgraded=x.upgrade is not None)
        x.hijack({}, content_type, hold=x.answer.fault.join and (container.is_running or bool(history)))
        container.begin()
        try:
            for entry in history:
                if entry.stream in asked or not p.is_docker:
                    x.send(self._replayed(entry, tty=container.tty))
            if not p.is_docker:
                on_data(x.request.extra)
            self._carry(x, outlet, on_data, on_eof, tty=container.tty)
        finally:
            container.detach(outlet)

    def _replayed(self, entry: LogEntry, *, tty: bool) -> bytes:
        """Return a message of the log as attach sends it: Podman 4.3 forgets the newline when it counts."""
        packed = frame(entry.stream, entry.data, tty=tty)
        if tty or self.personality.is_docker or self.personality.server >= (5,):
            return packed
        size = len(entry.data.removesuffix(b"\n"))
        return packed[:4] + size.to_bytes(4, "big") + packed[8:]

    def _carry(
        self, x: Exchange, outlet: Outlet, on_data: Callable[[bytes], None], on_eof: Callable[[], None], *, tty: bool
    ) -> None:
        """Send what comes out of an outlet, while another thread hands on what the client sends."""

        def receive() -> None:
            try:
                while data := x.wire.recv():
                    on_data(data)
            finally:
                on_eof()

        receiver = self.engine.spawn("stdin of a client", receive)
        x.answer.linger(0.05)
        while items := outlet.take():
            x.send(b"".join(frame(stream, data, tty=tty) for stream, data in items))
        x.finish()
        x.wire.finish()
        receiver.join(LINGER)

    # --- exec --------------------------------------------------------------------------------------------------------

    def exec_create(self, x: Exchange, name: str) -> None:
        """POST /containers/{id}/exec."""
        p = self.personality
        container = self._container(name)
        config = self._json(x)
        command = _strings(config.get("Cmd"))
        if container.state == "paused":
            docker = f"Container {name} is paused, unpause the container before exec"
            podman = f"cannot create exec session as container {container.id} is paused"
            raise RefusedError(409, docker if p.is_docker else podman)
        if not command:
            if p.is_docker:
                raise RefusedError(400, "No exec command specified")
            cause = "invalid argument"
            raise RefusedError(500, f"must provide a non-empty command to start an exec session: {cause}", cause)
        if not container.is_running:
            raise p.not_running(container.id, "can only create exec sessions on running containers")
        exec = Exec(container, config, command)
        container.execs.append(exec)
        self.engine.execs.append(exec)
        x.json({"Id": exec.id}, 201)

    def _exec(self, name: str) -> Exec:
        for exec in self.engine.execs:
            if exec.id == name:
                return exec
        raise self.personality.no_exec(name)

    def exec_start(self, x: Exchange, name: str) -> None:
        """POST /exec/{id}/start."""
        p = self.personality
        options = self._start_options(x)
        exec = self._exec(name)
        detach = bool(options.get("Detach"))
        tty = bool(options.get("Tty")) if p.is_docker else exec.tty
        if exec.is_started and not p.is_docker:
            state = "running" if exec.is_running else "stopped"
            cause = "exec session state improper"
            text = f"can only start created exec sessions, while container {exec.container.id} session {exec.id}"
            raise RefusedError(500, f'{text} state is "{state}": {cause}', cause)
        if not exec.container.is_running:
            text = "can only start exec sessions on running containers"
            raise p.not_running(exec.container.id, text, podman_status=409)
        if detach:
            if not exec.is_started:
                self._run_exec(exec, Outlet(frozenset()))
            return x.reply(200) if p.is_docker else x.reply(200, b"\n")
        asked = {number for number, flag in ((1, "AttachStdout"), (2, "AttachStderr")) if exec.config.get(flag)}
        outlet = Outlet(frozenset(asked))
        if exec.is_started:
            what = "Exec" if p.server < (28,) else "exec"
            outlet.put(1, f"Error: {what} command {exec.id} has already run\r\n".encode())
            outlet.end()
        else:
            size = options.get("ConsoleSize")
            self._run_exec(exec, outlet)
            if p.is_docker and p.api >= (1, 42) and size and exec.process is not None:
                exec.process.resize(*size)

        def on_data(data: bytes) -> None:
            if exec.config.get("AttachStdin"):
                exec.stdin.feed(data)

        def on_eof() -> None:
            if exec.tty and p.is_docker and exec.config.get("AttachStdin"):
                outlet.cancel()
            elif not exec.tty:
                exec.stdin.end()

        content_type = p.stream_type(x.request, tty=tty, upgraded=x.upgrade is not None)
        x.hijack(p.headers() if p.is_docker else {}, content_type, hold=x.answer.fault.join)
        try:
            self._carry(x, outlet, on_data, on_eof, tty=tty)
        finally:
            outlet.cancel()

    def _start_options(self, x: Exchange) -> dict[str, Any]:
        p = self.personality
        if p.is_docker and x.request.headers.get("content-type", "").partition(";")[0] != JSON:
            if not x.request.body and p.api >= (1, 42):
                return {}
            kind = x.request.headers.get("content-type", "")
            new = f"malformed Content-Type header ({kind}): mime: no media type"
            old = f"Content-Type specified ({kind}) must be 'application/json'"
            raise RefusedError(400, new if p.api >= (1, 42) else old)
        if not x.request.body:
            if p.is_docker and p.api >= (1, 42):
                return {}
            raise RefusedError(400, "got EOF while reading request body" if p.is_docker else "EOF")
        return self._json(x)

    def _run_exec(self, exec: Exec, outlet: Outlet) -> None:
        script = self.engine.script_for(self.engine.on_exec, exec.command)
        if script is None:
            return self._fail_exec(exec, outlet)
        exec.start(self.engine, script, outlet)

    def _fail_exec(self, exec: Exec, outlet: Outlet) -> None:
        """Say what each engine says in the stream of a command that is not there."""
        p = self.personality
        problem = f'exec: "{exec.command[0]}": executable file not found in $PATH'
        failed = f"exec failed: unable to start container process: {problem}"
        if p.is_docker:
            outlet.put(1, f"OCI runtime exec failed: {failed}: unknown\r\n".encode())
        else:
            attempt = "OCI runtime attempted to invoke a command that was not found"
            outlet.put(2, f"Error: runc: {failed}: {attempt}\n".encode())
            outlet.put(2, b"Error: read unixpacket @->/proc/self/fd/13/attach: read: connection reset by peer\n")
        exec.is_started = True
        exec.exit_code = 126 if p.is_docker and p.server < (28,) else 127
        outlet.end()

    def exec_inspect(self, x: Exchange, name: str) -> None:
        """GET /exec/{id}/json."""
        exec = self._exec(name)
        code = exec.exit_code
        process = {
            "tty": exec.tty,
            "entrypoint": exec.command[0],
            "arguments": list(exec.command[1:]),
            "privileged": bool(exec.config.get("Privileged")),
        }
        x.json(
            {
                "ID": exec.id,
                "Running": exec.is_running,
                "ExitCode": code if self.personality.is_docker else code or 0,
                "ProcessConfig": process,
                "OpenStdin": bool(exec.config.get("AttachStdin")),
                "OpenStderr": bool(exec.config.get("AttachStderr")),
                "OpenStdout": bool(exec.config.get("AttachStdout")),
                "CanRemove": not self.personality.is_docker and code is not None,
                "ContainerID": exec.container.id,
                "DetachKeys": "",
                "Pid": 4242 if exec.is_started else 0,
            }
        )

    def exec_resize(self, x: Exchange, name: str) -> None:
        """POST /exec/{id}/resize."""
        exec = self._exec(name)
        size = self._size(x)
        if exec.process is None:
            if self.personality.is_docker:
                self._watch(x, exec.changed, lambda: exec.process is not None, 10)
            if exec.process is None:
                cause = "exec session state improper"
                text = f"cannot resize session: cannot resize container {exec.container.id} exec session {exec.id}"
                raise self.personality.choose_error(
                    (500, "timeout waiting for exec session ready"), (500, f"{text} as it is not running", cause)
                )
        exec.process.resize(*size)
        x.reply(200 if self.personality.is_docker else 201)

    # --- logs --------------------------------------------------------------------------------------------------------

    def logs(self, x: Exchange, name: str) -> None:
        """GET /containers/{id}/logs."""
        self._send_logs(x, self._container(name))

    def _send_logs(self, x: Exchange, container: Container) -> None:
        p = self.personality
        streams = {number for number, flag in ((1, "stdout"), (2, "stderr")) if x.request.flag(flag)}
        if not streams:
            raise RefusedError(400, p.no_stream(x.request))
        since, until = self._time(x, "since"), self._time(x, "until")
        tail = self._tail(x)
        follow = x.request.flag("follow")
        if follow:
            container.begin()
        else:
            container.finish_plain()

        def wanted(entry: LogEntry) -> bool:
            if entry.stream not in streams or (since and entry.timestamp < since):
                return False
            return not until or entry.timestamp <= until

        with container.changed:
            position = len(container.log.entries)
            entries = [entry for entry in container.log.entries if wanted(entry)]
        if tail is not None:
            entries = entries[len(entries) - min(tail, len(entries)) :]
        sniffs = not p.is_docker and p.server < (5,)
        content_type = p.logs_type(x.request, tty=container.tty)
        if sniffs and not entries and not (follow and container.is_running):
            return x.reply(200, b"")
        x.start_body(content_type, hold=sniffs or (x.answer.fault.join and bool(entries)))
        for entry in entries:
            x.send(self._message(x, container, entry))
        exits = container.exits
        log = container.log.entries
        while follow:

            def more(position: int = position) -> bool:
                return len(log) > position or not container.is_running or container.exits != exits

            self._watch(x, container.changed, more)
            with container.changed:
                fresh, position = log[position:], len(log)
                follow = bool(fresh) or (container.is_running and container.exits == exits)
            for entry in fresh:
                if wanted(entry):
                    x.send(self._message(x, container, entry))
        x.finish()

    def _message(self, x: Exchange, container: Container, entry: LogEntry) -> bytes:
        data = entry.data
        if x.request.flag("details") and self.personality.is_docker:
            details = ",".join(f"{key}={value}" for key, value in sorted(container.log_details.items()))
            data = f"{details} ".encode() + data
        if x.request.flag("timestamps"):
            data = f"{go_time(entry.timestamp, nanoseconds=self.personality.is_docker)} ".encode() + data
        return frame(entry.stream, data, tty=container.tty)

    def _time(self, x: Exchange, name: str) -> int | None:
        """Return a time in nanoseconds: seconds since 1970 with up to nine decimals."""
        text = x.request.query.get(name) or "0"
        found = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?", text)
        if found:
            return int(found[1]) * 10**9 + int((found[2] or "").ljust(9, "0")) or None
        if self.personality.is_docker:
            raise RefusedError(500, f'strconv.ParseInt: parsing "{text}": invalid syntax')
        cause = f'parsing time "{text}"'
        raise RefusedError(400, f"failed to parse parameters for {x.request.target}: {cause}", cause)

    def _tail(self, x: Exchange) -> int | None:
        text = x.request.query.get("tail") or "all"
        if text.isdigit():
            return int(text)
        if text == "all" or self.personality.is_docker:
            return None
        cause = f'strconv.ParseUint: parsing "{text}": invalid syntax'
        raise RefusedError(400, f"bad tail: {cause}", cause)

    # --- swarm -------------------------------------------------------------------------------------------------------

    def _swarm(self, x: Exchange, kind: str, name: str) -> Container:
        if not self.personality.is_docker:
            raise RefusedError(503, f"Podman does not support service: {x.request.target}")
        found = self.engine.find(kind, name)
        if found is None:
            raise RefusedError(404, f"{kind} {name} not found")
        return found

    def service(self, x: Exchange, name: str) -> None:
        """GET /services/{id}."""
        found = self._swarm(x, "service", name)
        spec = {"ContainerSpec": {"Image": "image", "TTY": found.tty}}
        x.json({"ID": found.id, "Spec": {"Name": found.name, "Labels": found.labels, "TaskTemplate": spec}})

    def service_logs(self, x: Exchange, name: str) -> None:
        """GET /services/{id}/logs."""
        self._send_logs(x, self._swarm(x, "service", name))

    def task(self, x: Exchange, name: str) -> None:
        """GET /tasks/{id}."""
        found = self._swarm(x, "task", name)
        x.json({"ID": found.id, "Spec": {"ContainerSpec": {"Image": "image", "TTY": found.tty}}})

    def task_logs(self, x: Exchange, name: str) -> None:
        """GET /tasks/{id}/logs."""
        self._send_logs(x, self._swarm(x, "task", name))

    def _json(self, x: Exchange) -> dict[str, Any]:
        try:
            document = x.request.json()
        except ValueError as error:
            raise RefusedError(400, f"invalid JSON: {error}") from None
        if not isinstance(document, dict):
            raise RefusedError(400, "invalid JSON: not an object")
        return document


def frame(stream: int, data: bytes, *, tty: bool) -> bytes:
    """Return what goes over the wire for a piece of output."""
    return data if tty else bytes(pack_frame(Stream(stream), data))


def go_time(nanoseconds_since_1970: int, *, nanoseconds: bool = True) -> str:
    """Write a time as Go does."""
    if not nanoseconds_since_1970:
        return NEVER
    seconds, rest = divmod(nanoseconds_since_1970, 10**9)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{rest:09}Z" if nanoseconds else f"{text}Z"


def describe(container: Container) -> dict[str, object]:
    """Return what inspect says of a container: what clients of streams look at, and little else."""
    command = container.command or ("script",)
    return {
        "Id": container.id,
        "Created": go_time(container.created),
        "Path": command[0],
        "Args": list(command[1:]),
        "State": {
            "Status": container.state,
            "Running": container.is_running,
            "Paused": container.state == "paused",
            "Restarting": False,
            "OOMKilled": False,
            "Dead": False,
            "Pid": 4242 if container.is_running else 0,
            "ExitCode": container.exit_code,
            "Error": "",
            "StartedAt": go_time(container.started),
            "FinishedAt": go_time(container.finished),
        },
        "Name": f"/{container.name}",
        "RestartCount": 0,
        "HostConfig": {"LogConfig": {"Type": "json-file", "Config": {}}, "AutoRemove": container.auto_remove},
        "Config": {
            "AttachStdin": False,
            "AttachStdout": True,
            "AttachStderr": True,
            "Tty": container.tty,
            "OpenStdin": container.open_stdin,
            "StdinOnce": container.stdin_once,
            "Env": container.config.get("Env") or [],
            "Cmd": list(container.command),
            "Image": container.config.get("Image", "image"),
            "Labels": container.labels,
        },
    }


def _strings(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list) else []


def _route(name: str, method: str, path: str, answer: Callable[[Api, Exchange, str], None]) -> Route:
    return Route(name, method, re.compile(path.replace("{id}", "([^/]+)")), answer)


#: The names are those that `LoopbackEngine.fault` takes.
ROUTES = [
    _route("ping", "GET", "/_ping", Api.ping),
    _route("version", "GET", "/version", Api.version),
    _route("create", "POST", "/containers/create", Api.create),
    _route("inspect", "GET", "/containers/{id}/json", Api.inspect),
    _route("start", "POST", "/containers/{id}/start", Api.start),
    _route("stop", "POST", "/containers/{id}/stop", Api.stop),
    _route("kill", "POST", "/containers/{id}/kill", Api.kill),
    _route("pause", "POST", "/containers/{id}/pause", Api.pause),
    _route("unpause", "POST", "/containers/{id}/unpause", Api.unpause),
    _route("wait", "POST", "/containers/{id}/wait", Api.wait),
    _route("resize", "POST", "/containers/{id}/resize", Api.resize),
    _route("remove", "DELETE", "/containers/{id}", Api.remove),
    _route("attach", "POST", "/containers/{id}/attach", Api.attach),
    _route("logs", "GET", "/containers/{id}/logs", Api.logs),
    _route("exec-create", "POST", "/containers/{id}/exec", Api.exec_create),
    _route("exec-start", "POST", "/exec/{id}/start", Api.exec_start),
    _route("exec-inspect", "GET", "/exec/{id}/json", Api.exec_inspect),
    _route("exec-resize", "POST", "/exec/{id}/resize", Api.exec_resize),
    _route("service", "GET", "/services/{id}", Api.service),
    _route("service-logs", "GET", "/services/{id}/logs", Api.service_logs),
    _route("task", "GET", "/tasks/{id}", Api.task),
    _route("task-logs", "GET", "/tasks/{id}/logs", Api.task_logs),
]
