"""What carries streams: attach, exec and logs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from .. import Stream, pack_frame
from .containers import Exec
from .detach import DetachKeys
from .lifecycle import PID, go_time, size_asked, strings, swarm
from .personality import JSON, RefusedError
from .processes import Outlet

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .containers import Container, LogEntry
    from .exchange import Exchange

#: Seconds for which what a client still sends is read after the end of its stream, so that it can read that end.
LINGER = 0.2

#: Seconds that a process takes to start: less than a real one's. Where its output comes in one packet with the head,
#: clients that read the head through a buffer lose it; docker-py does. Fault(join=True) is for that.
SPAWN_TIME = 0.02

#: Seconds for which a head that is to come in one packet with the first frames waits for more of them.
JOIN_DELAY = 0.05

#: Seconds for which Docker waits at an exec's resize for its start.
EXEC_RESIZE_TIMEOUT = 10.0


def frame(stream: int, data: bytes, *, tty: bool) -> bytes:
    """Return what goes over the wire for a piece of output."""
    return data if tty else bytes(pack_frame(Stream(stream), data))


def received(x: Exchange) -> Iterator[bytes]:
    """Yield what the client sends behind its request."""
    if not x.personality.is_docker and x.request.extra:
        yield x.request.extra  # Docker drops what comes before its answer
    while data := x.wire.recv():
        yield data


def carry(
    x: Exchange,
    outlet: Outlet,
    encode: Callable[[int, bytes], bytes],
    data: Iterator[bytes],
    on_data: Callable[[bytes], None],
    on_eof: Callable[[], None],
    ending: bytes = b"",
) -> None:
    """Send what comes out of outlet until its end, while another thread hands on what the client sends."""

    def receive() -> None:
        try:
            for piece in data:
                on_data(piece)
        finally:
            on_eof()

    receiver = x.engine.spawn("stdin of a client", receive)
    try:
        x.answer.linger(JOIN_DELAY)
        while items := outlet.take():
            x.send(b"".join(encode(stream, piece) for stream, piece in items))
        x.send(ending)
        x.finish()
        x.wire.finish()
        receiver.join(LINGER)
    finally:
        outlet.cancel()


# --- attach ----------------------------------------------------------------------------------------------------------


class Attachment:
    """A client of a container: what it asked for, and what its stdin does."""

    def __init__(self, x: Exchange, container: Container, *, selects: bool) -> None:
        p = x.personality
        self.container = container
        self.is_docker: bool = p.is_docker
        self.asked: frozenset[int] = x.streams(default=not p.is_docker) if selects else frozenset({1, 2})
        self.keys: DetachKeys = DetachKeys.parse(x)
        self.wants_stream: bool = x.request.flag("stream", default=not p.is_docker)
        self.wants_logs: bool = x.request.flag("logs")
        self.has_stdin: bool = self.wants_stream and x.request.flag("stdin")
        self.outlet: Outlet = Outlet(self.asked)
        self._stdin = container.stdin
        self._farewell = p.detach_farewell()

    def join(self) -> list[LogEntry]:
        """Attach it; return what it gets from the log."""
        if not self.asked and not self.has_stdin:
            self.outlet.end()
        history = self.container.attach(self.outlet, replay=self.wants_logs, stream=self.wants_stream)
        return [entry for entry in history if entry.stream in self.asked or not self.is_docker]

    def leave(self) -> None:
        """Detach it; what it has not got yet is lost."""
        self.container.detach(self.outlet)
        self.outlet.cancel()

    def on_data(self, data: bytes) -> None:
        """Take what the client sends."""
        if not (self.has_stdin and self.container.open_stdin):
            return
        if self.container.tty or not self.is_docker:
            data, is_detached = self.keys.feed(data)
            if is_detached:
                self.outlet.put(2, self._farewell)
                self.container.detach(self.outlet)
        if data:
            self._stdin.feed(data)

    def on_eof(self) -> None:
        """Take the end of what the client sends."""
        if not self.container.open_stdin:
            return
        if not self.is_docker:
            if not self.container.tty:
                self._stdin.end()  # whether the client asked for stdin or not
        elif self.has_stdin and self.container.stdin_once and not self.container.tty:
            self._stdin.end()
        elif self.has_stdin:
            self.leave()


def attach(x: Exchange, name: str) -> None:
    """POST /containers/{id}/attach."""
    container = prepare_attach(x, name)
    client = Attachment(x, container, selects=True)
    if not client.wants_stream and not client.wants_logs and not x.personality.is_docker:
        raise RefusedError(400, "at least one of Logs or Stream must be set")
    history = client.join()
    tty = container.tty
    content_type = x.personality.stream_type(x.request, tty=tty, upgraded=x.upgrade is not None)
    try:
        x.hijack({}, content_type, hold=x.answer.fault.join and (container.is_running or bool(history)))
        _spawn(x, container.begin)
        for entry in history:
            x.send(_replayed(x, entry, tty=tty))
        carry(
            x,
            client.outlet,
            lambda stream, data: frame(stream, data, tty=tty),
            received(x),
            client.on_data,
            client.on_eof,
        )
    finally:
        client.leave()


def _spawn(x: Exchange, begin: Callable[[], None]) -> None:
    """Begin a script behind a head that has been sent."""
    if not x.answer.is_held:
        x.engine.pause(SPAWN_TIME)
    begin()


def prepare_attach(x: Exchange, name: str) -> Container:
    """Find a container that can be attached to. One that has exited can: it waits for the next start."""
    container = x.container(name)
    if container.state == "paused":
        raise x.personality.paused_at_attach(name)
    if container.state == "exited" and not x.personality.is_docker:
        container.reset()  # Podman forgets the last run by that
    return container


def _replayed(x: Exchange, entry: LogEntry, *, tty: bool) -> bytes:
    """Return a message of the log as attach sends it. Podman 4 forgets the newline when it counts."""
    packed = frame(entry.stream, entry.data, tty=tty)
    if tty or not x.personality.is_podman_4:
        return packed
    size = len(entry.data.removesuffix(b"\n"))
    return packed[:4] + size.to_bytes(4, "big") + packed[8:]


# --- exec ------------------------------------------------------------------------------------------------------------


def exec_create(x: Exchange, name: str) -> None:
    """POST /containers/{id}/exec."""
    container = x.container(name)
    config = x.document()
    command = strings(config.get("Cmd"))
    if container.state == "paused":
        raise x.personality.paused_at_exec(name, container.id)
    if not command:
        raise x.personality.no_command()
    if not container.is_running:
        raise x.personality.not_running(container.id, "can only create exec sessions on running containers")
    exec = Exec(container, config, command)
    container.execs.append(exec)
    x.engine.execs.append(exec)
    x.json({"Id": exec.id}, 201)


def _find_exec(x: Exchange, name: str) -> Exec:
    for exec in x.engine.execs:
        if exec.id == name:
            return exec
    raise x.personality.no_exec(name)


def exec_start(x: Exchange, name: str) -> None:
    """POST /exec/{id}/start."""
    p = x.personality
    options = _start_options(x)
    exec = _find_exec(x, name)
    if exec.is_started and not p.is_docker:
        raise p.exec_started(exec.container.id, exec.id, is_running=exec.is_running)
    if not exec.container.is_running:
        text = "can only start exec sessions on running containers"
        raise p.not_running(exec.container.id, text, podman_status=409)
    if options.get("Detach"):
        _run(x, exec, Outlet(frozenset()))
        return x.reply(200) if p.is_docker else x.reply(200, b"\n", {"Content-Type": "text/plain; charset=us-ascii"})
    asked = ((1, "AttachStdout"), (2, "AttachStderr"))
    outlet = Outlet(frozenset(stream for stream, name in asked if exec.config.get(name)))
    has_stdin = bool(exec.config.get("AttachStdin"))

    def on_data(data: bytes) -> None:
        if has_stdin:
            exec.stdin.feed(data)

    def on_eof() -> None:
        if not exec.tty:
            exec.stdin.end()
        elif has_stdin and p.is_docker:
            outlet.cancel()

    tty = bool(options.get("Tty")) if p.is_docker else exec.tty  # Docker believes the start, Podman the create
    content_type = p.stream_type(x.request, tty=tty, upgraded=x.upgrade is not None)
    try:
        x.hijack(p.headers() if p.is_docker else {}, content_type, hold=x.answer.fault.join)
        _spawn(x, lambda: _run(x, exec, outlet, options.get("ConsoleSize")))
        carry(x, outlet, lambda stream, data: frame(stream, data, tty=tty), received(x), on_data, on_eof)
    finally:
        outlet.cancel()


def _start_options(x: Exchange) -> dict[str, Any]:
    p = x.personality
    content_type = x.request.headers.get("content-type", "")
    if not x.request.body:
        if p.is_docker and p.is_new:
            return {}
        podman = (400, f"failed to decode parameters for {x.request.target}", "EOF")
        raise p.choose_error((400, "got EOF while reading request body"), podman)
    if p.is_docker and content_type.partition(";")[0] != JSON:
        raise p.bad_content_type(content_type)
    return x.document()


def _run(x: Exchange, exec: Exec, outlet: Outlet, size: tuple[int, int] | None = None) -> None:
    """Run an exec's script. What cannot be run says so in the stream: a command without a script is not found."""
    if exec.is_started:
        outlet.put(1, x.personality.exec_started(exec.container.id, exec.id).message.encode())
        return outlet.end()
    script = x.engine.script_for(x.engine.on_exec, exec.command)
    if script is not None:
        return exec.start(x.engine, script, outlet, size if x.personality.is_docker and x.personality.is_new else None)
    stream, message, exec.exit_code = x.personality.command_not_found(exec.command[0])
    outlet.put(stream, message.encode())
    exec.is_started = True
    outlet.end()


def exec_inspect(x: Exchange, name: str) -> None:
    """GET /exec/{id}/json."""
    exec = _find_exec(x, name)
    is_docker = x.personality.is_docker
    command, *arguments = exec.command
    process = {
        "tty": exec.tty,
        "entrypoint": command,
        "arguments": arguments if arguments or is_docker else None,
        "privileged": bool(exec.config.get("Privileged")),
    }
    x.json(
        {
            "ID": exec.id,
            "Running": exec.is_running,
            "ExitCode": exec.exit_code if is_docker else exec.exit_code or 0,
            "ProcessConfig": process,
            "OpenStdin": bool(exec.config.get("AttachStdin")),
            "OpenStderr": bool(exec.config.get("AttachStderr")),
            "OpenStdout": bool(exec.config.get("AttachStdout")),
            "CanRemove": not is_docker and exec.exit_code is not None,
            "ContainerID": exec.container.id,
            "DetachKeys": "",
            "Pid": PID if exec.is_started else 0,
        }
    )


def exec_resize(x: Exchange, name: str) -> None:
    """POST /exec/{id}/resize. Before the start Docker waits for it, and Podman does not."""
    exec = _find_exec(x, name)
    height, width = size_asked(x)
    if x.personality.is_docker:
        x.watch(exec.changed, lambda: exec.process is not None, EXEC_RESIZE_TIMEOUT)
    if exec.process is None:
        raise x.personality.exec_not_ready(exec.container.id, exec.id)
    exec.process.resize(height, width)
    x.reply(200 if x.personality.is_docker else 201)


# --- logs ------------------------------------------------------------------------------------------------------------


def logs(x: Exchange, name: str) -> None:
    """GET /containers/{id}/logs."""
    _send_logs(x, x.container(name))


def service_logs(x: Exchange, name: str) -> None:
    """GET /services/{id}/logs."""
    _send_logs(x, swarm(x, "service", name))


def task_logs(x: Exchange, name: str) -> None:
    """GET /tasks/{id}/logs."""
    _send_logs(x, swarm(x, "task", name))


def _send_logs(x: Exchange, container: Container) -> None:
    p = x.personality
    streams = x.streams()
    if not streams:
        raise p.no_stream(x.request.target)
    since, until, tail = _time(x, "since"), _time(x, "until"), _tail(x)
    follow = x.request.flag("follow")
    if not follow:
        container.finish_plain()

    def messages(entries: list[LogEntry]) -> list[bytes]:
        wanted = (each for each in entries if each.stream in streams and since <= each.timestamp)
        return [_message(x, container, each) for each in wanted if not until or each.timestamp <= until]

    log = container.log.entries
    with container.changed:
        position, exits = len(log), container.exits
        may_come = follow and container.is_running
    first = messages(log[max(position - tail, 0) if tail is not None else 0 : position])  # streams do not matter to it
    if p.is_podman_4 and not first and not may_come:
        return x.reply(200)
    x.start_body(p.logs_type(x.request, tty=container.tty), hold=p.is_podman_4 or (x.answer.fault.join and bool(first)))
    if follow:
        container.begin()
    for message in first:
        x.send(message)
    while may_come:
        x.watch(container.changed, lambda known=position: len(log) > known or container.exits > exits)  # type: ignore[misc]
        with container.changed:
            fresh, position = log[position:], len(log)
            may_come = container.exits == exits
        for message in messages(fresh):
            x.send(message)
    x.finish()


def _message(x: Exchange, container: Container, entry: LogEntry) -> bytes:
    data = entry.data
    if x.request.flag("details") and x.personality.is_docker:
        details = ",".join(f"{key}={value}" for key, value in sorted(container.log_details.items()))
        data = f"{details} ".encode() + data
    if x.request.flag("timestamps"):
        data = f"{go_time(entry.timestamp, whole_seconds=not x.personality.is_docker)} ".encode() + data
    return frame(entry.stream, data, tty=container.tty)


def _time(x: Exchange, name: str) -> int:
    """Return a time in nanoseconds: the query has seconds since 1970, with up to nine decimals."""
    text = x.request.query.get(name) or "0"
    found = re.fullmatch(r"(\d+)(?:\.(\d{1,9}))?", text)
    if not found:
        raise x.personality.bad_time(name, text)
    return int(found[1]) * 10**9 + int((found[2] or "0").ljust(9, "0"))


def _tail(x: Exchange) -> int | None:
    text = x.request.query.get("tail") or "all"
    if text.isdigit():
        return int(text)
    if text != "all" and not x.personality.is_docker:
        raise x.personality.bad_tail(text)
    return None
