"""What attach, exec and logs share: an engine found, a session's output delivered, and a session led from here."""

from __future__ import annotations

import os
import queue
import signal
import time
from argparse import ArgumentTypeError
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..engine import connect, endpoint
from ..errors import ConflictError, EngineError, MuxframeError, NotFoundError, SinkError
from ..ingest.formats import json_line
from ..sinks import open_sink
from .files import STDERR, STDIN, STDOUT, Failure, Naming, complain, delivery_failure, open_input, open_outputs
from .keyboard import DetachKeys, Keyboard
from .parser import key_codes
from .signals import Signals, start_thread
from .terminal import RawTerminal, is_terminal, terminal_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterator
    from typing import Self

    from ..engine import Engine, Session

DEFAULT_DETACH_KEYS = b"\x10\x11"  # ctrl-p,ctrl-q

#: Signals that are passed on to a container; all others are about this process.
FORWARDED = ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2")

#: Seconds within which a second interrupt is meant for this process, not for the container.
INSISTENCE = 2.0

#: Seconds between attempts to tell a size.
RESIZE_DELAYS = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)

#: Seconds between a size and the next one: Podman's monitor takes but the first of those that come at once.
RESIZE_PERIOD = 0.2

#: Seconds after the end of the output in which the exit is expected; after that what was running still does.
EXIT_PATIENCE = 2.0


@contextmanager
def misuse() -> Iterator[None]:
    """Tell values that the library refuses from failures."""
    try:
        yield
    except MuxframeError:
        raise
    except ValueError as error:
        raise Failure(str(error), 2) from error


def find_engine(arguments: argparse.Namespace) -> Engine:
    """Return the engine that the command line asks for."""
    return connect(arguments.host, context=arguments.context, tls=arguments.tls)


def detach_keys(engine: Engine, arguments: argparse.Namespace) -> tuple[str | None, bytes | None]:
    """Return the detach keys that the engine is to look for, and the codes of those that are looked for here.

    The command line says which, or else Docker's configuration. What the engine does with them matters where stdin is
    no terminal: see DetachKeys.
    """
    if arguments.detach_keys is not None:
        keys: tuple[str, bytes] = arguments.detach_keys
        return keys
    configured = endpoint.detach_keys()
    if configured is None:
        return "" if engine.is_podman else None, None  # it would find them in data
    try:
        return key_codes(configured)
    except ArgumentTypeError as error:
        raise ValueError(f"the detachKeys in Docker's configuration: {error}") from None


class Output:
    """Where a session's output goes, as the command line says.

    Args:
        stack: closes it.
        arguments: stdout, stderr, json.
        has_stdin: stdin is being read: none of the outputs may be the same file.
    """

    def __init__(self, stack: ExitStack, arguments: argparse.Namespace, *, has_stdin: bool = False) -> None:
        inputs = [open_input("-")] if has_stdin else []
        paths = {STDOUT: arguments.stdout, STDERR: arguments.stderr}
        self._stdout, self._stderr = open_outputs(stack, paths, inputs)
        self._is_json = arguments.json

    def deliver(self, session: Session) -> None:
        """Deliver a session's output, to its end."""
        if self._is_json:
            return self._deliver_json(session)
        try:
            session.copy_to(self._stdout.descriptor, self._stderr.descriptor)
        except SinkError as error:
            raise delivery_failure(error, self._stdout, self._stderr) from error

    def _deliver_json(self, session: Session) -> None:
        sink = open_sink(self._stdout.descriptor)
        for line in session.lines():
            with Naming(self._stdout.name):
                sink.write(memoryview(json_line(None, line)))


class Guidance:
    """Leads a session from here while its block delivers the output: input, window size, signals, detach keys.

    Args:
        session: what is led. It is closed where keys or a signal end it, so that delivering ends.
        has_stdin: stdin is passed on to it.
        keys: the detach keys' codes; None takes the default.
        forward: passes the signal of that name on to the container; None: signals are about this process.

    Attributes:
        is_detached: the detach keys were pressed.
    """

    def __init__(
        self,
        session: Session,
        *,
        has_stdin: bool = False,
        keys: bytes | None = None,
        forward: Callable[[str], None] | None = None,
    ) -> None:
        self.is_detached: bool = False
        self._session = session
        self._forward = forward
        self._requests: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._last_interrupt = -INSISTENCE
        self._told_size: tuple[int, int] | None = None
        self._terminal = RawTerminal() if has_stdin and session.tty and is_terminal(STDIN) else None
        self._signals = Signals(self._actions(), self._end)
        self._keyboard = None
        if has_stdin:
            detach_keys = DetachKeys(keys or DEFAULT_DETACH_KEYS) if self._terminal is not None else None
            self._keyboard = Keyboard(session, detach_keys, self._detach)

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            start_thread(self._serve_requests, "muxframe-requests")
            stack.callback(self._requests.put, None)
            stack.enter_context(self._signals)
            if self._terminal is not None:
                stack.enter_context(self._terminal)
            if self._keyboard is not None:
                stack.enter_context(self._keyboard)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        if error[0] is not None:
            self._session.close()  # ends what the input may be blocked in; otherwise the end of the output did
        self._stack.__exit__(*error)

    def send_size(self, *, redraw: bool = False) -> None:
        """Tell the other end how large this terminal is.

        Args:
            redraw: by way of another size, so that what runs there draws itself anew for who has just come.
        """
        if self._session.tty:
            if redraw:
                self._requests.put(lambda: self._resize(1))
            self._requests.put(self._resize)

    def _resize(self, more: int = 0) -> None:
        """Try until there is a TTY: an engine may be about to start what has it. Of a burst the last size counts."""
        size = terminal_size()
        if size is None or (size := (size[0] + more, size[1] + more)) == self._told_size:
            return
        for delay in RESIZE_DELAYS:
            try:
                self._session.resize(*size)
            except (EngineError, OSError):
                time.sleep(delay)
            else:
                self._told_size = size
                return time.sleep(RESIZE_PERIOD)

    def _serve_requests(self) -> None:
        """Ask the engine, apart from all that must not wait for it."""
        while (request := self._requests.get()) is not None:
            try:
                request()
            except (EngineError, OSError) as error:  # nothing runs any more: then it does not matter
                if not self._session.tty and not isinstance(error, (ConflictError, NotFoundError)):
                    complain(str(error))

    def _actions(self) -> dict[int, Callable[[], None]]:
        actions: dict[str, Callable[[], None]] = {}
        if self._session.tty:
            actions["SIGWINCH"] = self.send_size
        if self._terminal is not None:
            actions["SIGTSTP"] = self._stop
            actions["SIGCONT"] = self._go_on
        if self._forward is not None and not self._session.tty:
            actions.update({name: self._forwarding(name) for name in FORWARDED})
        return {getattr(signal, name): action for name, action in actions.items() if hasattr(signal, name)}

    def _forwarding(self, name: str) -> Callable[[], None]:
        forward = self._forward
        assert forward is not None

        def act() -> None:
            now = time.monotonic()
            if name == "SIGINT" and now < self._last_interrupt + INSISTENCE:
                return self._signals.end(signal.SIGINT)
            if name == "SIGINT":
                self._last_interrupt = now
            self._requests.put(lambda: forward(name))

        return act

    def _stop(self) -> None:
        """Stop as SIGTSTP does. SIGCONT goes on."""
        assert self._terminal is not None
        self._terminal.restore()
        os.kill(os.getpid(), signal.SIGSTOP)

    def _go_on(self) -> None:
        assert self._terminal is not None
        self._terminal.make_raw()
        self.send_size()

    def _end(self) -> None:
        if self._terminal is not None:
            self._terminal.leave()
        self._session.close()

    def _detach(self) -> None:
        self.is_detached = True
        self._session.close()


def exit_code(session: Session, guidance: Guidance, what: str) -> int:
    """Return the exit code to hand on, once the output has ended.

    That is no exit yet: it ends with detach keys, too, or because all who could write have closed it.
    """
    if guidance.is_detached:
        complain(f"read escape sequence: detached, the {what} runs on")
        return 0
    try:
        return session.wait(EXIT_PATIENCE)
    except TimeoutError:
        complain(f"the output has ended, but the {what} runs on")
        return 0
    except NotFoundError as error:
        raise Failure(f"the {what} has been removed: its exit code is not known") from error
