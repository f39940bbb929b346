"""The terminal of this process, lent to a container."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING, Any

from .files import STDERR, STDIN, STDOUT, complain

if TYPE_CHECKING:
    from typing import Self

try:
    import termios
    import tty
except ModuleNotFoundError:  # Windows
    HAS_RAW_MODE = False
else:
    HAS_RAW_MODE = True


def is_terminal(descriptor: int) -> bool:
    """Say whether a descriptor is open, and a terminal."""
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def terminal_size() -> tuple[int, int] | None:
    """Return the height and width of this process's terminal, in characters; None where there is none, or no size."""
    for descriptor in (STDOUT, STDIN, STDERR):
        if is_terminal(descriptor):
            try:
                width, height = os.get_terminal_size(descriptor)
            except OSError:
                continue
            return (height, width) if height and width else None
    return None


def understands_escapes() -> bool:
    """Say whether what terminals are told by escape sequences is understood here, as far as the environment knows."""
    return os.environ.get("TERM", "dumb") != "dumb" or "WT_SESSION" in os.environ


def is_foreground(descriptor: int) -> bool:
    """Say whether a terminal belongs to this job just now, not to one in the foreground."""
    try:
        return os.tcgetpgrp(descriptor) == os.getpgrp()
    except (OSError, AttributeError):  # one that controls no jobs; Windows
        return True


class RawTerminal:
    """stdin's terminal in raw mode: every key is passed on, and acts only at the other end. A context manager.

    May be used from several threads. A terminal that belongs to another job just now (this one is in the background) is
    left alone.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cooked: list[Any] | None = None  # what to restore, while it is raw
        self._is_over = False

    def __enter__(self) -> Self:
        if HAS_RAW_MODE:
            self.make_raw()
        else:
            complain("this system has no raw terminal mode: what is typed is passed on line by line")
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def make_raw(self) -> None:
        """Set raw mode, unless this has been left; again, too, where others may have changed the mode meanwhile."""
        with self._lock:
            if self._is_over or not is_foreground(STDIN):
                return
            try:
                if self._cooked is None:
                    self._cooked = termios.tcgetattr(STDIN)
                tty.setraw(STDIN, termios.TCSANOW)
            except termios.error:  # it has been hung up
                pass

    def restore(self) -> None:
        """Set the mode that was there before."""
        with self._lock:
            if self._cooked is not None and is_foreground(STDIN):
                try:
                    termios.tcsetattr(STDIN, termios.TCSANOW, self._cooked)
                except termios.error:
                    pass

    def leave(self) -> None:
        """Restore the mode for good."""
        self._is_over = True
        self.restore()
