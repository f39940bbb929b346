"""`wait_for`: read lines up to one that matches."""

from __future__ import annotations

import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple, Union

from ..errors import NoMatchError

if TYPE_CHECKING:
    from .._lines_py import Line

    #: A regular expression; of str it is looked for in a line's text, of bytes in its data.
    Pattern = Union[str, bytes, re.Pattern[str], re.Pattern[bytes]]

__all__ = ["Found", "wait_for", "wait_for_async"]

#: Lines that are kept, the last ones, to be shown when something went wrong.
KEPT = 1000


class Found(NamedTuple):
    """What `wait_for` has found.

    Attributes:
        line: the line that matches.
        match: the match.
        lines: the lines that came, this one included: all, or the last thousand.
    """

    line: Line
    match: re.Match[Any]
    lines: list[Line]


class _Search:
    def __init__(self, pattern: Pattern, timeout: float | None) -> None:
        self._pattern: re.Pattern[Any] = re.compile(pattern)
        self._end = None if timeout is None else time.monotonic() + timeout
        self._lines: deque[Line] = deque(maxlen=KEPT)

    def take(self, line: Line) -> Found | None:
        self._lines.append(line)
        match = self._pattern.search(line.text if isinstance(self._pattern.pattern, str) else line.data)
        return None if match is None else Found(line, match, list(self._lines))

    def left(self) -> float | None:
        return None if self._end is None else max(self._end - time.monotonic(), 0.001)

    def late(self) -> TimeoutError:
        error = TimeoutError(f"no line that matches {self._pattern.pattern!r} came in time")
        error.lines = list(self._lines)  # type: ignore[attr-defined]
        return error

    def over(self) -> NoMatchError:
        return NoMatchError(self._pattern.pattern, list(self._lines))


def wait_for(source: Any, pattern: Pattern, *, timeout: float | None = None) -> Found:
    """Read lines up to one that matches: "listening on port", say. The source can be read on behind it.

    A prompt without a line end is no line yet.

    Args:
        source: a Session, which is then read as lines, or a Follower.
        pattern: a regular expression; of str it is looked for in a line's text, of bytes in its data.
        timeout: seconds for the whole.

    Returns:
        Found(line, match, lines).

    Raises:
        NoMatchError: the output ended without, mostly because the container has exited; `exc.lines` are those that
            came.
        TimeoutError: no such line came in time; `exc.lines` as above. The source can be read on.
        re.error: pattern is none.
    """
    search = _Search(pattern, timeout)
    lines = source.lines() if hasattr(source, "lines") else source
    before = source.timeout
    try:
        while True:
            source.timeout = search.left()
            try:
                line = next(lines)
            except StopIteration:
                raise search.over() from None
            except TimeoutError:
                raise search.late() from None
            if (found := search.take(line)) is not None:
                return found
    finally:
        source.timeout = before


async def wait_for_async(source: Any, pattern: Pattern, *, timeout: float | None = None) -> Found:
    """Read lines up to one that matches: `wait_for` on asyncio."""
    search = _Search(pattern, timeout)
    lines = source.lines() if hasattr(source, "lines") else source
    before = source.timeout
    try:
        while True:
            source.timeout = search.left()
            try:
                line = await anext(lines)
            except StopAsyncIteration:
                raise search.over() from None
            except TimeoutError:
                raise search.late() from None
            if (found := search.take(line)) is not None:
                return found
    finally:
        source.timeout = before
