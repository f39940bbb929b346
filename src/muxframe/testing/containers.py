"""Containers, services, tasks and execs: their state, their logs, and who is attached to them."""

from __future__ import annotations

import threading
import time
from secrets import token_hex
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, get_args

from .processes import FATAL, FRAME_SIZE, SIGKILL, Killed, Process, State, Stdin, idle, say

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from .processes import Outlet, Output, Script

#: A longer line is logged in pieces of this size.
LOG_PIECE_SIZE = 16 << 10


class Owner(Protocol):
    """What containers and execs need of their engine."""

    flavor: str

    def spawn(self, name: str, work: Callable[[], None]) -> threading.Thread: ...
    def discard(self, container: Container) -> None: ...
    def note(self, container: Container, action: str) -> None: ...
    def report(self, error: BaseException) -> None: ...


class LogEntry(NamedTuple):
    """One message of a log: a line with its newline, or a piece of one."""

    stream: int
    data: bytes
    timestamp: int  #: nanoseconds since 1970


class Log:
    """What a container has written, in messages.

    Docker keeps the beginning of a line back until its end comes, and gives all pieces of a line the same time; Podman
    logs each at once, with its own.
    """

    def __init__(self, entries: Iterable[LogEntry] = ()) -> None:
        self.entries: list[LogEntry] = list(entries)
        self.keeps_lines = True
        self._partial = {1: b"", 2: b""}
        self._began: dict[int, int] = {}  # when the unfinished line of a stream was

    def write(self, stream: int, data: bytes) -> None:
        """Add what a program wrote."""
        lines = _split_lines(self._partial[stream] + data)
        self._partial[stream] = b""
        if self.keeps_lines and lines and not lines[-1].endswith(b"\n") and len(lines[-1]) < LOG_PIECE_SIZE:
            self._partial[stream] = lines.pop()
        for line in lines:
            self._add(stream, line)

    def flush(self) -> None:
        """Add the lines that will never end."""
        for stream, data in self._partial.items():
            if data:
                self._add(stream, data)
        self._partial = {1: b"", 2: b""}
        self._began.clear()

    def _add(self, stream: int, data: bytes) -> None:
        timestamp = self._began.pop(stream, None) or time.time_ns()
        self.entries.append(LogEntry(stream, data, timestamp))
        if self.keeps_lines and not data.endswith(b"\n"):
            self._began[stream] = timestamp


def _split_lines(data: bytes) -> list[bytes]:
    pieces = []
    while data:
        end = data.find(b"\n", 0, LOG_PIECE_SIZE) + 1 or min(len(data), LOG_PIECE_SIZE)
        pieces.append(data[:end])
        data = data[end:]
    return pieces


def run_script(script: Script, process: Process, owner: Owner) -> int:
    """Run a script to its end and return the exit code; an error of its own is reported, and exits with 1."""
    try:
        return script(process) or 0
    except Killed as killed:
        return 128 + killed.signal
    except BaseException as error:
        owner.report(error)
        return 1


def pieces(data: bytes, size: int) -> list[bytes]:
    """Cut data into frames' payloads."""
    return [data[start : start + size] for start in range(0, len(data), size)]


class Container:
    """A container of a loopback engine: a script, and the state an engine keeps of it.

    The script of a container that is added running begins when the first client attaches to it, asks for its logs or
    waits for its exit, so that a test loses nothing to a race (unless `begin="add"`). That of a created one begins at
    its start.

    Args:
        name: its name.
        script: its program: a callable that gets a `Process` and returns the exit code. It runs in a thread of its own.
        output: in place of a script: what it writes before it exits, (stream, bytes) pairs or bytes for stdout. With
            neither it does nothing until a signal comes.
        exit_code: with output, what it exits with; with state "exited", what it has exited with.
        state: "running", "created", "exited" (output is then in its log) or "paused".
        tty: whether it has a terminal: its stream is raw then. What the script writes is sent as it is; newlines are
            not translated.
        open_stdin: whether it reads what clients send.
        stdin_once: whether its stdin ends with the first client's.
        labels: labels, for inspect.
        log: what its log holds already: (stream, bytes) or (stream, bytes, nanoseconds since 1970).
        log_details: attributes that logs?details=1 puts before each line.
        auto_remove: whether it vanishes when it exits.
        begin: "client" or "add": see above.
        id: 64 hexadecimal digits; chosen at random if not given.
        command, config: what its Process is to have for them.

    Attributes:
        state: what inspect says.
        exit_code: of its last run.
        log: the messages logged so far: `log.entries`.
        process: the Process of its current or last run, or None.
        stdin: what the next or current run reads.
    """

    kind = "container"

    def __init__(
        self,
        name: str,
        script: Script | None = None,
        *,
        output: Sequence[Output] = (),
        exit_code: int = 0,
        state: State = "running",
        tty: bool = False,
        open_stdin: bool = False,
        stdin_once: bool = False,
        labels: Mapping[str, str] | None = None,
        log: Iterable[tuple[int, bytes] | tuple[int, bytes, int]] = (),
        log_details: Mapping[str, str] | None = None,
        auto_remove: bool = False,
        begin: Literal["client", "add"] = "client",
        id: str | None = None,
        command: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
    ) -> None:
        if script is not None and output:
            raise TypeError("a container has a script or an output, not both")
        if state not in get_args(State):
            raise ValueError(f"state must be one of {', '.join(get_args(State))}, not {state!r}")
        if begin not in ("client", "add"):
            raise ValueError(f"begin must be 'client' or 'add', not {begin!r}")
        self.name = name
        self.id: str = id or token_hex(32)
        self.tty = tty
        self.open_stdin = open_stdin
        self.stdin_once = stdin_once
        self.labels: dict[str, str] = dict(labels or {})
        self.auto_remove = auto_remove
        self.log_details: dict[str, str] = dict(log_details or {})
        self.begins_at_add: bool = begin == "add"
        self.command: tuple[str, ...] = tuple(command)
        self.config: dict[str, object] = dict(config or {})
        self.is_plain: bool = bool(output)  # its script ends by itself
        self.script: Script = script or (say(*output, exit_code=exit_code) if output else idle)
        self.log: Log = Log(LogEntry(*entry) if len(entry) == 3 else LogEntry(*entry, time.time_ns()) for entry in log)
        self.changed: threading.Condition = threading.Condition()
        self.created: int = time.time_ns()
        self.started: int = 0
        self.finished: int = 0
        self.exits: int = 0
        self.is_removed: bool = False
        self.exit_code: int = 0
        self.state: State = state
        self.process: Process | None = None
        self.stdin: Stdin = Stdin(self.changed, tty=tty)
        self._thread: threading.Thread | None = None
        self.execs: list[Exec] = []
        self._outlets: list[Outlet] = []
        self._owner: Owner | None = None
        if state == "exited":
            self.exit_code = exit_code
            for item in output:
                self.log.write(*((1, item) if isinstance(item, bytes) else item))
            self.log.flush()

    @property
    def is_running(self) -> bool:
        """Whether it has a process: running or paused."""
        return self.state in ("running", "paused")

    def bind(self, owner: Owner) -> None:
        """Become a part of an engine."""
        if self._owner is not None:
            raise ValueError(f"container {self.name!r} has been added to an engine before")
        self._owner = owner
        owner.note(self, "create")
        self.log.keeps_lines = owner.flavor == "docker"
        if self.is_running:
            self._make_process()
            if self.begins_at_add:
                self.begin()

    def start(self) -> None:
        """Start it, if it does not run."""
        with self.changed:
            if not self.is_running:
                self.state = "running"
                self._make_process()
        self.begin()

    def _make_process(self) -> None:
        self.started = time.time_ns()
        if self._owner is not None:
            self._owner.note(self, "start")
        self._thread = None
        self.process = Process(
            self.changed, self.stdin, self._write, tty=self.tty, command=self.command, config=self.config
        )

    def begin(self) -> None:
        """Run the script of a running container, if nothing has done so yet."""
        with self.changed:
            process = self.process
            if self._owner is None or process is None or not self.is_running or self._thread is not None:
                return
            self._thread = self._owner.spawn(f"script of {self.name}", lambda: self._run(process))

    def finish_plain(self) -> None:
        """Run a script that is nothing but output to its end."""
        self.begin()
        if self.is_plain and self._thread is not None:
            self._thread.join()

    def _run(self, process: Process) -> None:
        assert self._owner is not None
        self._exit(process, run_script(self.script, process, self._owner))

    def _write(self, stream: int, data: bytes) -> None:
        assert self._owner is not None and self.process is not None
        process = self.process
        with self.changed:
            self.changed.wait_for(lambda: self.state != "paused" or process.killed)
            self.log.write(stream, data)
            outlets = tuple(self._outlets)
            self.changed.notify_all()
        for piece in pieces(data, FRAME_SIZE[self._owner.flavor]):
            for outlet in outlets:
                outlet.put(stream, piece)

    def _exit(self, process: Process, exit_code: int) -> None:
        with self.changed:
            if self.process is not process or not self.is_running:
                return  # killed before
            self.log.flush()
            self.state = "exited"
            self.exit_code = exit_code
            self.finished = time.time_ns()
            self.exits += 1
            self.stdin.end()
            self.stdin = Stdin(self.changed, tty=self.tty)
            outlets, self._outlets = self._outlets, []
            self.changed.notify_all()
        if self._owner is not None:
            self._owner.note(self, "die")
        for exec in self.execs:
            exec.kill()
        if self.auto_remove and self._owner is not None:
            self._owner.discard(self)
        for outlet in outlets:
            outlet.end()

    def kill(self, number: int = SIGKILL) -> None:
        """Send it a signal. SIGKILL ends it at once, whatever its script is doing."""
        with self.changed:
            process = self.process
            if process is None or not self.is_running:
                return
            process.send_signal(number)
            has_begun = self._thread is not None
        if number == SIGKILL or (number in FATAL and not has_begun):
            self._exit(process, 128 + number)

    def pause(self, paused: bool = True) -> None:
        """Hold its output up, or let it go on."""
        with self.changed:
            self.state = "paused" if paused else "running"
            self.changed.notify_all()

    def remove(self) -> None:
        """Kill it and end what waits for it."""
        self.kill()
        with self.changed:
            self.is_removed = True
            self.stdin.end()
            outlets, self._outlets = self._outlets, []
            self.changed.notify_all()
        for outlet in outlets:
            outlet.end()

    def attach(self, outlet: Outlet, *, replay: bool, stream: bool) -> list[LogEntry]:
        """Send what is written from now on to outlet, and return the log up to now."""
        with self.changed:
            history = list(self.log.entries) if replay else []
            if stream:
                self._outlets.append(outlet)
            else:
                outlet.end()
            return history

    def detach(self, outlet: Outlet) -> None:
        """Send no more to outlet."""
        with self.changed:
            if outlet in self._outlets:
                self._outlets.remove(outlet)
        outlet.end()

    def reset(self) -> None:
        """Forget the last run."""
        with self.changed:
            self.state, self.exit_code = "created", 0


class Service(Container):
    """A swarm service: it has nothing but a log. Takes a `Container`'s arguments."""

    kind = "service"


class Task(Container):
    """A swarm task: it has nothing but a log. Takes a `Container`'s arguments."""

    kind = "task"


class Exec:
    """A command that a client has created in a container.

    Attributes:
        id: 64 hexadecimal digits.
        container: where it runs.
        config: the body of the request that created it.
        command: its Cmd.
        tty: whether it has a terminal.
        is_running, exit_code: as inspect says; exit_code is None before its end.
        process: its Process, once it is started.
    """

    def __init__(self, container: Container, config: Mapping[str, object], command: Sequence[str]) -> None:
        self.id: str = token_hex(32)
        self.container = container
        self.config: dict[str, object] = dict(config)
        self.command: tuple[str, ...] = tuple(command)
        self.tty: bool = bool(config.get("Tty"))
        self.is_started: bool = False
        self.is_running: bool = False
        self.exit_code: int | None = None
        self.process: Process | None = None
        self.changed: threading.Condition = threading.Condition()
        self.stdin: Stdin = Stdin(self.changed, tty=self.tty)
        self._outlet: Outlet | None = None

    def start(self, owner: Owner, script: Script, outlet: Outlet, size: tuple[int, int] | None = None) -> None:
        """Run its script, and send what it writes to outlet. Its terminal may have a size from the beginning."""

        def write(stream: int, data: bytes) -> None:
            for piece in pieces(data, FRAME_SIZE[owner.flavor]):
                outlet.put(1 if self.tty else stream, piece)

        def run() -> None:
            exit_code = run_script(script, process, owner)
            with self.changed:
                self.is_running = False
                self.exit_code = exit_code
                self.changed.notify_all()
            self.stdin.end()
            outlet.end()

        process = Process(self.changed, self.stdin, write, tty=self.tty, command=self.command, config=self.config)
        if size is not None:
            process.resize(*size)
        with self.container.changed:
            self._outlet = outlet
            self.is_started = self.is_running = True
            self.process = process
            if not self.container.is_running:
                self.kill()
        owner.spawn(f"exec of {' '.join(self.command)}", run)

    def kill(self) -> None:
        """End it with its container."""
        if self.process is not None and self._outlet is not None and self.is_running:
            self.process.send_signal(SIGKILL)
            self._outlet.end()
