"""What runs in a container: a script in a thread of its own, what it reads, and what its clients are still to get."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Union

if TYPE_CHECKING:

    from collections.abc import Iterator

#: A container's or exec's program: gets its Process, returns the exit code (None is 0).
Script = Callable[["Process"], Union[int, None]]

#: Bytes for stdout, or (stream, bytes).
Output = Union[bytes, tuple[int, bytes]]

State = Literal["created", "running", "paused", "exited"]

#: Bytes that wait for a client before the script that writes them is held up: Docker's pipe holds about as much.
OUTLET_SIZE = 1 << 20

#: Bytes of stdin that wait for a script before its clients are held up.
STDIN_SIZE = 64 << 10

#: The largest frame each engine makes of what a program writes.
FRAME_SIZE = {"docker": 32768, "podman": 8192}

#: Linux's signals, wherever the tests run.
SIGNALS = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
    "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
    "WINCH", "IO", "PWR", "SYS",
]

SIGKILL = 9

#: Signals that end a script; all others are only recorded.
FATAL = frozenset({1, 2, 3, SIGKILL, 15})  # HUP, INT, QUIT, KILL, TERM


class Killed(BaseException):
    """A signal ends the process: raised by whatever `Process` method it calls next, or is blocked in.

    A script may catch it to end in its own way, and return its own exit code. After SIGKILL nothing helps.

    Attributes:
        signal: its number.
    """

    def __init__(self, signal: int) -> None:
        super().__init__(signal)
        self.signal = signal


class Outlet:
    """What one client is still to get: bounded, so that a slow client holds the script up."""

    def __init__(self, streams: frozenset[int] = frozenset({1, 2}), size: int = OUTLET_SIZE) -> None:
        self._streams = streams
        self._room = size
        self._items: deque[tuple[int, bytes]] = deque()
        self._is_ended = False
        self._changed = threading.Condition()

    def put(self, stream: int, data: bytes) -> None:
        """Queue a frame's payload, waiting for room; drop it where nobody asked for it."""
        if stream not in self._streams:
            return
        with self._changed:
            self._changed.wait_for(lambda: self._room > 0 or self._is_ended)
            if not self._is_ended:
                self._items.append((stream, data))
                self._room -= len(data)
                self._changed.notify_all()

    def take(self) -> list[tuple[int, bytes]]:
        """Return all there is, waiting for the first; nothing at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_ended)
            items = list(self._items)
            self._items.clear()
            self._room += sum(len(data) for _, data in items)
            self._changed.notify_all()
            return items

    def end(self) -> None:
        """Nothing more comes; what is there can still be taken."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()

    def cancel(self) -> None:
        """Drop everything: the client has gone."""
        with self._changed:
            self._items.clear()
            self.end()


class Stdin:
    """The standard input of a process: what its clients have written, in a file's clothes."""

    def __init__(self, changed: threading.Condition, *, tty: bool) -> None:
        self._changed = changed
        self._tty = tty
        self._data = bytearray()
        self._is_ended = False
        self.check: Callable[[], None] = lambda: None  # raises Killed, once there is a process

    def read(self, size: int = -1, /) -> bytes:
        """Read what there is, up to size bytes, waiting for the first; b"" at the end. -1 reads to the end."""
        if size < 0:
            return b"".join(iter(lambda: self.read(STDIN_SIZE), b""))
        with self._changed:
            self._wait(lambda: bool(self._data))
            return self._cut(size)

    def readline(self) -> bytes:
        """Read up to and with the next newline; what is left where the input ends without one."""
        line = b""
        with self._changed:
            while not line.endswith(b"\n"):
                self._wait(lambda: bool(self._data))
                found = self._data.find(b"\n")
                part = self._cut(found + 1 if found >= 0 else len(self._data))
                if not part:
                    break
                line += part
        return line

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.readline, b"")

    def _wait(self, ready: Callable[[], bool]) -> None:
        while True:
            self.check()
            if ready() or self._is_ended:
                return
            self._changed.wait()

    def _cut(self, size: int) -> bytes:
        data = bytes(self._data[:size])
        del self._data[:size]
        self._changed.notify_all()
        return data

    def feed(self, data: bytes) -> None:
        """Take what a client has sent, waiting for room. In a terminal, ^D is the end."""
        data, eof, _ = data.partition(b"\x04") if self._tty else (data, b"", b"")
        with self._changed:
            self._changed.wait_for(lambda: len(self._data) < STDIN_SIZE or self._is_ended)
            if not self._is_ended:
                self._data += data
                self._is_ended = bool(eof)
                self._changed.notify_all()

    def end(self) -> None:
        """No more comes."""
        with self._changed:
            self._is_ended = True
            self._changed.notify_all()


class Process:
    """A running script's side of the engine.

    Every method raises `Killed` when a signal ends the process.

    Attributes:
        stdin: binary reader with `read`, `readline` and iteration over lines. It ends as the engine's rules for a
            half-closed connection say.
        command: what it was started with: the exec's command, or the created container's.
        config: the body of the request that created it, if there was one: "Env", "WorkingDir", "User" and so on.
        tty: whether it has a terminal.
        signals: numbers of the signals it got, in order.
        size: (height, width) that a client gave the terminal last, or None.
    """

    def __init__(
        self,
        changed: threading.Condition,
        stdin: Stdin,
        output: Callable[[int, bytes], None],
        *,
        tty: bool = False,
        command: Sequence[str] = (),
        config: Mapping[str, object] | None = None,
    ) -> None:
        self.stdin = stdin
        self.command: tuple[str, ...] = tuple(command)
        self.config: dict[str, object] = dict(config or {})
        self.tty = tty
        self.signals: list[int] = []
        self.size: tuple[int, int] | None = None
        self._changed = changed
        self._output = output
        self._pending = 0
        self._is_resized = False
        stdin.check = self._check

    @property
    def killed(self) -> bool:
        """Whether SIGKILL has ended it, or the engine's end."""
        return SIGKILL in self.signals

    def write(self, data: bytes, stream: int = 1) -> None:
        """Write to stdout (1) or stderr (2): to the log, and to each client that is attached now.

        A client that does not read holds this up once about a megabyte waits for it.
        """
        self._check()
        if data:
            self._output(stream, bytes(data))
        self._check()

    def wait_for_resize(self, timeout: float | None = None) -> tuple[int, int]:
        """Wait for the next resize, or one that nobody has waited for yet.

        Returns:
            (height, width)

        Raises:
            TimeoutError: none came within timeout seconds.
        """
        self._wait(lambda: self._is_resized, timeout)
        with self._changed:
            if not self._is_resized or self.size is None:
                raise TimeoutError("no resize")
            self._is_resized = False
            return self.size

    def sleep(self, seconds: float | None = None) -> None:
        """Do nothing for a while; None: until a signal comes."""
        self._wait(lambda: False, seconds)

    def _wait(self, ready: Callable[[], bool], timeout: float | None) -> None:
        deadline = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while True:
                self._check()
                left = None if deadline is None else deadline - time.monotonic()
                if ready() or (left is not None and left <= 0):
                    return
                self._changed.wait(left)

    def _check(self) -> None:
        if self.killed:
            raise Killed(SIGKILL)
        with self._changed:
            number, self._pending = self._pending, 0
        if number:
            raise Killed(number)

    def resize(self, height: int, width: int) -> None:
        """Give the terminal a size."""
        with self._changed:
            self.size = (height, width)
            self._is_resized = True
            self._changed.notify_all()

    def send_signal(self, number: int) -> None:
        """Deliver a signal."""
        with self._changed:
            self.signals.append(number)
            if number in FATAL:
                self._pending = number
            self._changed.notify_all()


def signal_number(name: str) -> int:
    """Return the number of a signal: "TERM", "SIGTERM" or "15".

    Raises:
        ValueError: there is none.
    """
    if name.isdigit() and 0 < int(name) < 65:
        return int(name)
    return SIGNALS.index(name.upper().removeprefix("SIG")) + 1


# --- scripts ---------------------------------------------------------------------------------------------------------


def say(*output: Output, exit_code: int = 0) -> Script:
    """Make a script that writes something and exits.

    Args:
        output: bytes for stdout, or (stream, bytes); each becomes a frame.
        exit_code: what it exits with.
    """

    def script(process: Process) -> int:
        for item in output:
            stream, data = (1, item) if isinstance(item, bytes) else item
            process.write(data, stream)
        return exit_code

    return script


def cat(process: Process) -> None:
    """Write to stdout what comes on stdin, piece by piece, until it ends."""
    while data := process.stdin.read(STDIN_SIZE):
        process.write(data)


def idle(process: Process) -> None:
    """Do nothing until a signal comes."""
    process.sleep()
