"""Signals of a command that waits for a container.

A handler of Python's runs between any two instructions of the main thread, and not before a blocked call there lets it:
no place to ask an engine or to close a session. So handlers do nothing; a thread learns from a pipe what has come.
"""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from typing import TYPE_CHECKING, Any

from .interrupt import PATIENCE, Ended

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import FrameType
    from typing import Self

#: Those that end a process, and can be caught.
ENDING = [
    getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM") if hasattr(signal, name)
]


def start_thread(target: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that gets no signals: those are to wake the main thread."""

    def run() -> None:
        if hasattr(signal, "pthread_sigmask"):
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        target()

    thread = threading.Thread(target=run, name=name, daemon=True)
    thread.start()
    return thread


class Signals:
    """Serves signals in a thread while its block runs. Those that are ignored, as after nohup, stay ignored.

    Where there are no such signals (Windows), or in another thread than the main one, nothing is done.

    Args:
        actions: what is done for each.
        end: called for a signal without an action that ends this process, once: the block is to end soon. It is left
            by `Ended` then; after `patience`, or for the next such signal, wherever it is.
        patience: in seconds.
    """

    def __init__(
        self, actions: Mapping[int, Callable[[], None]], end: Callable[[], object], *, patience: float = PATIENCE
    ) -> None:
        self._actions = actions
        self._end = end
        self._patience = patience
        self._ended_by: int | None = None
        self._is_urgent = False

    def __enter__(self) -> Self:
        self._old: dict[int, Any] = {}
        if os.name != "posix" or threading.current_thread() is not threading.main_thread():
            return self
        self._reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        self._old_descriptor = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in {*self._actions, *ENDING}:
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                self._old[number] = signal.signal(number, self._take)
        self._main = threading.get_ident()
        self._thread = start_thread(self._serve, "muxframe-signals")
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._old:
            for number, handler in self._old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(self._old_descriptor)
            os.close(self._writer)  # what the thread sees
            self._thread.join(1)
            os.close(self._reader)
        if self._ended_by is not None and (error is None or isinstance(error, Exception)):
            raise Ended(self._ended_by) from None

    def end(self, number: int) -> None:
        """Let a signal end the process, from one of the actions."""
        if self._ended_by is None:
            self._ended_by = number
            self._deadline = time.monotonic() + self._patience
            self._end()
        else:
            self._hurry()

    def _take(self, _: int, __: FrameType | None) -> None:
        """Handle a signal in the main thread, which may be blocked in writing where nobody reads."""
        if self._is_urgent and self._ended_by is not None:
            raise Ended(self._ended_by)

    def _serve(self) -> None:
        while not self._is_urgent:
            patience = None if self._ended_by is None else max(self._deadline - time.monotonic(), 0)
            if not select.select([self._reader], [], [], patience)[0]:
                self._hurry()
                return
            numbers = os.read(self._reader, 256)
            if not numbers:
                return
            for number in numbers:
                if number in self._actions:
                    self._actions[number]()
                elif number in ENDING:
                    self.end(number)

    def _hurry(self) -> None:
        if self._ended_by is not None and not self._is_urgent:
            self._is_urgent = True
            signal.pthread_kill(self._main, self._ended_by)
