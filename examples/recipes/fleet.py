"""What the recipes share: lines of all containers with a label, for ever, and nothing forgotten at a restart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import muxframe
from muxframe import Line
from muxframe.ingest import CheckpointFile, Source


def read(
    state: str, *labels: str, flush: Callable[[], None] = lambda: None, interval: float = 1.0, **options: Any
) -> Iterator[tuple[Source, list[Line]]]:
    """Yield a container and lines of it. Who asks for the next ones says that these are safe, or will be after flush().

    Where that is, is kept in the file `state`, every `interval` seconds.
    """
    file = CheckpointFile(state)
    with muxframe.connect().gather(labels=labels, checkpoints=file.checkpoints, **options) as gathering:
        gathering.timeout = interval
        stored = time.monotonic()
        while not gathering.closed:
            try:
                taken = gathering.read()
            except TimeoutError:  # nobody has anything to say
                taken = None
            if taken:
                yield taken
            if gathering.closed or time.monotonic() > stored + interval:
                flush()
                file.store(gathering.checkpoints)
                stored = time.monotonic()
