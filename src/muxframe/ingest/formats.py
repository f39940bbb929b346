"""What a line looks like where it is written: as text, as JSON.

A format is a function of (source, line) that returns bytes; `source` is what `gather` gives, or any object whose `str`
is a name.
"""

from __future__ import annotations

import json
from datetime import datetime, timedelta
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .._lines_py import Line

__all__ = ["TextLines", "json_line", "rfc3339", "text_line"]

_STREAM_NAMES = ("stdin", "stdout", "stderr")
_EPOCH = datetime(1970, 1, 1)

#: A value as JSON. `json.dumps` with options would make an encoder for each.
_json = json.JSONEncoder(ensure_ascii=False).encode


def text_line(source: Any, line: Line, /) -> bytes:
    """Return the line as it was written. A piece of a line that goes on has no line end."""
    return line.data if line.partial else line.data + b"\n"


class TextLines:
    """`text_line` with more before each line: a format. It remembers which lines go on: the rest has nothing before it.

    Args:
        timestamps: the time, where it is known.
        details: what the log driver was told to add, where it has.
    """

    def __init__(self, *, timestamps: bool = False, details: bool = False) -> None:
        self._timestamps = timestamps
        self._details = details
        self._cut: set[tuple[str, int]] = set()  # whose last line goes on

    def __call__(self, source: Any, line: Line, /) -> bytes:
        if not (line.partial or self._cut):
            return self.before(line) + line.data + b"\n"
        key = str(source), int(line.stream)
        before = b"" if key in self._cut else self.before(line)
        if line.partial:
            self._cut.add(key)
        else:
            self._cut.discard(key)
        return before + text_line(source, line)

    def before(self, line: Line) -> bytes:
        """Return what comes before a line."""
        before = b""
        if self._timestamps and line.timestamp is not None:
            before = b"%b " % rfc3339(line.timestamp).encode()
        if self._details and line.details:
            before += b"%b " % line.details
        return before


def json_line(source: Any, line: Line, /) -> bytes:
    """Return the line as a JSON object in one line. What there is not is left out.

        container, id   whose line it is: the source's name, and its `id`; not where `source` is None
        stream          stdout or stderr
        timestamp       RFC 3339, UTC, to the nanosecond
        details         an object of what the log driver was told to add
        data            the line without its end, where it is valid UTF-8
        base64          its bytes, where it is not
        partial         true where the line goes on in the next object of its stream

    >>> from muxframe import Line
    >>> json_line("web", Line(1, 1795239997125648057, b"ready"))
    b'{"container": "web", "stream": "stdout", "timestamp": "2026-11-21T05:46:37.125648057Z", "data": "ready"}\\n'
    """
    shown = "{" if source is None else _source_members(str(source), getattr(source, "id", None))
    shown += f'"stream": "{_STREAM_NAMES[line.stream]}", '
    if line.timestamp is not None:
        shown += f'"timestamp": "{rfc3339(line.timestamp)}", '
    if line.details is not None:
        shown += f'"details": {_json(line.attrs)}, '
    try:
        shown += f'"data": {_json(str(line.data, "utf-8"))}'
    except UnicodeDecodeError:
        shown += f'"base64": "{_base64(line.data)}"'
    return (shown + (', "partial": true}\n' if line.partial else "}\n")).encode("utf-8", "replace")


@lru_cache
def _source_members(name: str, id: object) -> str:
    return f'{{"container": {_json(name)}, ' + (f'"id": {_json(id)}, ' if id else "")


def _base64(data: bytes) -> str:
    import base64

    return base64.b64encode(data).decode()


def rfc3339(timestamp: int) -> str:
    """Write nanoseconds since 1970 as a time in UTC. None of them is lost.

    >>> rfc3339(1795239997125648057)
    '2026-11-21T05:46:37.125648057Z'
    """
    seconds, fraction = divmod(timestamp, 10**9)
    return f"{_second(seconds)}.{fraction:09d}Z"


@lru_cache
def _second(seconds: int) -> str:
    return (_EPOCH + timedelta(seconds=seconds)).isoformat()
