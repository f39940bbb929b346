"""Lines of several containers on this process's outputs, each with the name of its container before it."""

from __future__ import annotations

import os
from contextlib import nullcontext
from itertools import compress
from typing import TYPE_CHECKING

from ..ingest.formats import json_line
from ..protocol import Stream
from ..sinks import open_sink
from .files import Naming, one_line
from .terminal import is_terminal, understands_escapes

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .._lines_py import Line
    from ..ingest import Source
    from .files import File
    from .status import Status

#: As SGR codes; containers get them in turn.
COLORS = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)

#: Names up to this width are made equally wide.
MAX_PADDING = 40

#: Names whose prefixes are remembered.
MAX_KNOWN = 1000


def wants_color(choice: str, output: File) -> bool:
    """Say whether an output is coloured: a terminal, unless NO_COLOR (no-color.org) or --color says something else."""
    if choice != "auto":
        return choice == "always"
    return is_terminal(output.descriptor) and understands_escapes() and not os.environ.get("NO_COLOR")


class Printer:
    """A sink: lines as text, or as JSON objects, on stdout and stderr. What it was given is written when it returns.

    Each begins with its container's name, if that is wanted, and is a line of its own, if only a piece of one.

    Args:
        stdout, stderr: where the lines go.
        status: what is on the same terminal.
        sources: returns the containers there are: their names are made equally wide.
        json: objects, on stdout, instead of text.
        color: as --color says: auto, always or never.
        has_prefix: whether the names are wanted.
        before: returns what is between the name and the line; None: nothing is.
    """

    def __init__(
        self,
        stdout: File,
        stderr: File,
        status: Status,
        sources: Callable[[], Sequence[Source]],
        *,
        json: bool,
        color: str,
        has_prefix: bool,
        before: Callable[[Line], bytes] | None,
    ) -> None:
        self._files = [(file, open_sink(file.descriptor), wants_color(color, file)) for file in (stdout, stderr)]
        self._is_one = json or _are_one(stdout, stderr)
        self._status = status if any(is_terminal(file.descriptor) for file in (stdout, stderr)) else None
        self._sources = sources
        self._is_json = json
        self._has_prefix = has_prefix
        self._before = before
        self._prefixes: dict[str, tuple[bytes, bytes]] = {}  # plain, coloured
        self._colors: dict[str, int] = {}
        self._width: int | None = None

    def write_lines(self, source: Source, lines: Sequence[Line], /) -> None:
        """Write lines of a source's."""
        with nullcontext() if self._status is None else self._status.hidden():
            if self._is_json:
                self._write(0, b"".join([json_line(source, line) for line in lines]))
            elif self._is_one:
                self._write_text(0, source, lines)
            else:
                is_stderr = [line.stream is Stream.STDERR for line in lines]
                self._write_text(0, source, [line for line, is_it in zip(lines, is_stderr) if not is_it])
                self._write_text(1, source, list(compress(lines, is_stderr)))

    def flush(self) -> None:
        """Do nothing: nothing is held back."""

    def _write_text(self, number: int, source: Source, lines: Sequence[Line]) -> None:
        prefix = self._prefix(source)[self._files[number][2]] if self._has_prefix else b""
        before = self._before
        if before is None:
            text = [b"%b%b\n" % (prefix, line.data) for line in lines]
        else:
            text = [b"%b%b%b\n" % (prefix, before(line), line.data) for line in lines]
        self._write(number, b"".join(text))

    def _write(self, number: int, data: bytes) -> None:
        file, sink, _ = self._files[number]
        with Naming(file.name):
            sink.write(memoryview(data))

    def _prefix(self, source: Source) -> tuple[bytes, bytes]:
        found = self._prefixes.get(source.name)
        return self._make_prefix(source.name) if found is None else found

    def _make_prefix(self, name: str) -> tuple[bytes, bytes]:
        if self._width is None:
            self._width = max((_width(each.name) for each in self._sources()), default=0)
        if _width(name) > self._width:
            self._width = _width(name)
            self._prefixes.clear()
        if len(self._prefixes) >= MAX_KNOWN:
            self._prefixes.clear()
            self._colors.clear()
        color = self._colors.setdefault(name, COLORS[len(self._colors) % len(COLORS)])
        plain = f"{one_line(name):{self._width}} |".encode()
        self._prefixes[name] = prefixes = plain + b" ", b"\x1b[%dm%b\x1b[0m " % (color, plain)
        return prefixes


def _are_one(stdout: File, stderr: File) -> bool:
    """Say whether what is written to both has an order that can be seen."""
    if not stdout.status.st_ino:  # Windows knows files only
        return is_terminal(stdout.descriptor) and is_terminal(stderr.descriptor)
    return os.path.samestat(stdout.status, stderr.status)


def _width(name: str) -> int:
    """Return how wide a prefix is to be for a name's sake."""
    width = len(one_line(name))
    return width if width <= MAX_PADDING else 0
