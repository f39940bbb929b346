"""`muxframe lines`: the lines of an archive."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from ..archive import open as open_archive
from ..errors import DaemonError, FramingError
from ..ingest.formats import TextLines, json_line
from ..protocol import Stream
from ..sinks import Sink, open_sink
from .files import STDERR, STDOUT, Failure, Naming, open_input, open_outputs
from .sessions import misuse

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from .._lines_py import Line
    from .files import File

BATCH_SIZE = 64 * 1024  # bytes that are written at once


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with ExitStack() as stack:
        source = stack.enter_context(open_input(arguments.file))
        outputs = {STDOUT: arguments.stdout, STDERR: arguments.stderr}
        with misuse():
            lines = open_archive(arguments.file).lines(since=arguments.since, until=arguments.until)
        stdout, stderr = open_outputs(stack, outputs, [source])
        try:
            with Naming(arguments.file):
                if arguments.json:
                    _write(lines, stdout, stdout, json_line)
                else:
                    _write(lines, stdout, stderr, TextLines(timestamps=arguments.timestamps))
        except (FramingError, DaemonError) as error:
            raise Failure(f"{arguments.file}: {error}") from error
        except ModuleNotFoundError as error:
            raise Failure(str(error)) from error
    return 0


def _write(lines: Iterable[Line], stdout: File, stderr: File, render: Callable[[Any, Line], bytes]) -> None:
    """Write lines, in their order where both outputs are one; several at a time."""
    sinks = {file: open_sink(file.descriptor) for file in (stdout, stderr)}
    current, batch = stdout, bytearray()
    try:
        for line in lines:
            file = stderr if line.stream is Stream.STDERR else stdout
            if file is not current or len(batch) >= BATCH_SIZE:
                _flush(current, sinks[current], batch)
                current = file
            batch += render(None, line)
    finally:
        _flush(current, sinks[current], batch)


def _flush(file: File, sink: Sink, batch: bytearray) -> None:
    data = bytes(batch)
    batch.clear()
    with Naming(file.name):
        sink.write(memoryview(data))
