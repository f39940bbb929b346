"""A progress bar on the terminal, where there is one, something to wait for, and rich to draw it."""

from __future__ import annotations

import os
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ..sources import open_source
from .files import STDERR

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..sources import Source
    from .files import File

THRESHOLD = 64 * 1024 * 1024  # bytes; less is over before a bar is drawn


@contextmanager
def watched(source: File, outputs: Sequence[File], *, wanted: bool) -> Iterator[Any]:
    """Draw a bar on stderr while source is read through what this gives; without a reason to, give its descriptor.

    No bar where payload goes to a terminal: it would be drawn into it.
    """
    is_long = source.is_regular and source.status.st_size > THRESHOLD
    is_seen = os.isatty(STDERR) and not any(os.isatty(output.descriptor) for output in outputs)
    if not (wanted and is_long and is_seen):
        yield source.descriptor
        return
    try:
        progress: Any = import_module("rich.progress")
    except ImportError:
        yield source.descriptor
        return
    bar = progress.Progress(
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(binary_units=True),
        progress.TransferSpeedColumn(),
        progress.TimeRemainingColumn(),
        console=import_module("rich.console").Console(stderr=True),
        transient=True,
    )
    with bar:
        yield _Counting(open_source(source.descriptor), bar, bar.add_task(source.name, total=source.status.st_size))


class _Counting:
    def __init__(self, wire: Source, bar: Any, task: Any) -> None:
        self._wire = wire
        self._bar = bar
        self._task = task

    def readinto(self, buffer: memoryview, /) -> int:
        size = self._wire.readinto(buffer)
        self._bar.advance(self._task, size)
        return size
