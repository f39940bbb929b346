"""`muxframe demux`: take a stream apart."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .._framing import pack_frame
from ..copying import copy
from ..errors import DaemonError, FramingError, SinkError
from ..protocol import Stream
from .files import STDERR, STDOUT, Failure, Naming, complain, delivery_failure, open_input, open_outputs
from .interrupt import Interrupt
from .progress import watched

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

    from ..sources import AnySource
    from .files import File

BATCH_SIZE = 256 * 1024  # of recovered frames from a file on a disk; from elsewhere each is passed on at once


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with ExitStack() as stack:
        source = stack.enter_context(open_input(arguments.source))
        outputs = {STDOUT: arguments.stdout, STDERR: arguments.stderr}
        stdout, stderr = open_outputs(stack, outputs, [source])
        try:
            with Interrupt(source) as interrupt, Naming(source.name):
                source.await_writer()
                source.widen()
                wire = stack.enter_context(watched(source, (stdout, stderr), wanted=arguments.progress))
                if arguments.recover:
                    recovery = _Recovery(source, interrupt, arguments.max_frame_size)
                    copy(recovery.frames(wire), stdout.descriptor, stderr.descriptor)
                    return 1 if recovery.complaints else 0
                copy(
                    wire,
                    stdout.descriptor,
                    stderr.descriptor,
                    max_frame_size=arguments.max_frame_size,
                    truncated=arguments.truncated,
                )
        except (FramingError, DaemonError) as fault:
            raise Failure(f"{source.name}: {fault}") from fault
        except SinkError as error:
            raise delivery_failure(error, stdout, stderr) from error
    return 0


class _Recovery:
    """A damaged archive made whole: its healthy frames on the wire again; everything else is told on stderr."""

    def __init__(self, source: File, interrupt: Interrupt, max_frame_size: int | None) -> None:
        self._source = source
        self._interrupt = interrupt
        self._options = {} if max_frame_size is None else {"max_frame_size": max_frame_size}
        self.complaints = 0

    def frames(self, wire: AnySource) -> Iterator[bytes]:
        """Yield the frames that carry payload, several at a time where nobody waits for them."""
        from ..recovery import Gap, recover  # needs re

        batch_size = BATCH_SIZE if self._source.is_regular else 0
        batch = bytearray()
        for item in recover(wire, **self._options):
            if isinstance(item, Gap):
                yield _emptied(batch)
                if not self._interrupt.happened:  # else the end of what was read is no damage
                    self._complain(f"gap of {item.size} bytes at offset {item.offset}: {item.reason}")
            elif item.stream is Stream.SYSTEMERR:
                yield _emptied(batch)
                self._complain(str(DaemonError(str(item.payload, "utf-8", "replace"))))
            else:
                batch += pack_frame(item.stream, item.payload)
                if len(batch) > batch_size:
                    yield _emptied(batch)
        yield _emptied(batch)

    def _complain(self, text: str) -> None:
        self.complaints += 1
        complain(f"{self._source.name}: {text}")


def _emptied(batch: bytearray) -> bytes:
    content = bytes(batch)
    batch.clear()
    return content
