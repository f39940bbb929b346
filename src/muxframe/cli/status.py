"""A line at the bottom of the terminal that says how much has come, and how fast.

It is taken away before anything else is written there, and put back behind it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from .files import STDERR
from .terminal import is_foreground, is_terminal, understands_escapes

if TYPE_CHECKING:
    from typing import Self

    from ..ingest import Gathering

PERIOD = 0.5  # seconds between changes of what it says
WINDOW = 4  # periods that a rate is the mean of
ERASE = b"\r\x1b[K"


class Status:
    """The line. A context manager: it is gone behind its block. May be used from several threads.

    Args:
        is_wanted: whether there is to be one at all. There is none where stderr is no terminal.

    Attributes:
        is_shown: whether there is one.
    """

    def __init__(self, is_wanted: bool) -> None:
        self.is_shown: bool = is_wanted and is_terminal(STDERR) and understands_escapes()
        self._lock = threading.RLock()
        self._lines = 0
        self._size = 0
        self._past: deque[tuple[float, int, int]] = deque([(time.monotonic(), 0, 0)], WINDOW + 1)
        self._text = b""
        self._is_drawn = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._erase()
            self.is_shown = False

    def count(self, lines: int, size: int) -> None:
        """Count what has come: so many lines, and bytes."""
        self._lines += lines
        self._size += size

    def update(self, gathering: Gathering) -> None:
        """Say how it is now, if it is time to."""
        now = time.monotonic()
        if not self.is_shown or now - self._past[-1][0] < PERIOD:
            return
        self._past.append((now, self._lines, self._size))
        then, lines, size = self._past[0]
        seconds = now - then
        count = len(gathering.sources)
        with self._lock:
            self._text = (
                f"{count} container{'' if count == 1 else 's'}, {self._lines:,} lines, {in_units(self._size)}; "
                f"{(self._lines - lines) / seconds:,.0f} lines/s, {in_units((self._size - size) / seconds)}/s"
            ).encode()
            self._draw()

    def hidden(self) -> _Hidden:
        """Return a context manager: the line is away while something else is written."""
        return _Hidden(self)

    def _draw(self) -> None:
        if self.is_shown and self._text and is_foreground(STDERR):
            try:
                width = os.get_terminal_size(STDERR).columns or 80
                os.write(STDERR, ERASE + self._text[: width - 3])  # there may be ^C behind it
                self._is_drawn = True
            except OSError:  # it has been hung up
                self.is_shown = False

    def _erase(self) -> None:
        if self._is_drawn:
            self._is_drawn = False
            try:
                os.write(STDERR, ERASE)
            except OSError:
                self.is_shown = False


class _Hidden:
    def __init__(self, status: Status) -> None:
        self._status = status

    def __enter__(self) -> None:
        self._status._lock.acquire()
        self._status._erase()

    def __exit__(self, *_: object) -> None:
        try:
            self._status._draw()
        finally:
            self._status._lock.release()


def in_units(size: float) -> str:
    """Write a number of bytes for people.

    >>> in_units(1_234_567)
    '1.2 MB'
    """
    units = ["B", "kB", "MB", "GB", "TB"]
    while size >= 999.95 and len(units) > 1:
        size /= 1000
        del units[0]
    return f"{size:.0f} B" if units[0] == "B" else f"{size:.1f} {units[0]}"
