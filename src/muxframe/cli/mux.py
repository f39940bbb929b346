"""`muxframe mux`: the way back, from files into a multiplexed stream."""

from __future__ import annotations

import os
import select
from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..protocol import Stream
from ..sinks import FrameWriter
from .files import STDOUT, Failure, Naming, open_input, open_outputs
from .interrupt import Interrupt

if TYPE_CHECKING:
    import argparse

    from .files import File


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with ExitStack() as stack:
        files = {stack.enter_context(open_input(path)): stream for stream, path in _inputs(arguments)}
        (output,) = open_outputs(stack, {STDOUT: arguments.output}, list(files))
        writers = {file: FrameWriter(output.descriptor, stream) for file, stream in files.items()}
        with Interrupt(*files):
            while writers:
                for file in _ready(list(writers)):
                    data = _read(file, arguments.frame_size)
                    if data:
                        with Naming(output.name):
                            writers[file].write(data)
                    elif data is not None:
                        del writers[file]
    return 0


def _ready(files: list[File]) -> list[File]:
    """Wait until some can be read, or are at their end. Without poll (Windows), each is waited for in turn."""
    if not hasattr(select, "poll"):
        return files
    poll = select.poll()
    for file in files:
        poll.register(file.descriptor, select.POLLIN)
    events = dict(poll.poll())
    return [file for file in files if file.descriptor in events]


def _inputs(arguments: argparse.Namespace) -> list[tuple[Stream, str]]:
    """Pair each stream that is given with its path."""
    inputs = []
    for stream, argument, option in (
        (Stream.STDOUT, arguments.stdout_file, arguments.stdout),
        (Stream.STDERR, arguments.stderr_file, arguments.stderr),
    ):
        if argument is not None and option is not None:
            raise Failure(f"{stream.name.lower()} is given twice: {argument} and {option}", 2)
        path = argument if option is None else option
        if path is not None:
            inputs.append((stream, path))
    if [path for _, path in inputs] == ["-", "-"]:
        raise Failure("only one of the streams can be read from -", 2)
    return inputs or [(Stream.STDOUT, "-")]


def _read(file: File, size: int) -> bytes | None:
    """Read what there is; return None where there is nothing yet, and nothing at the end."""
    with Naming(file.name):
        try:
            return os.read(file.descriptor, size)
        except BlockingIOError:  # another process was faster
            return None
