"""From a source to two sinks, and from a source to frames: the blocking loops."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, NoReturn

from ._framing import BACKEND, Demuxer, FrameReader, Pump
from ._framing_py import BLOCK_SIZE, check_truncated
from .errors import DaemonError, FramingError, SinkError, TruncatedStreamError
from .protocol import DEFAULT_MAX_FRAME_SIZE, Chunk, Copied, DemuxedInto, Stream, Truncated
from .sinks import Memory, Sink, clear, open_sink
from .sources import open_source

if TYPE_CHECKING:
    from collections import deque
    from collections.abc import Iterator, Sequence

    from typing_extensions import Buffer

    from ._framing_py import Frame
    from .sinks import AnySink
    from .sources import AnySource, Source


MAX_DELAY = 60  # seconds


def frames(
    source: AnySource,
    /,
    *,
    max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
    check_reserved: bool = True,
    truncated: Truncated = "error",
) -> Iterator[Frame]:
    """Iterate over the whole frames of a stream, in wire order.

    Each is held in memory whole; its payload is a view of the memory it was received in, which lives as long as a
    frame or a view of it does: keep `bytes(frame)` of the few that are to be kept for long.

    Args:
        source: bytes-like object, path, file descriptor, binary file object, socket (TLS too), or iterable of
            bytes-like objects. Only a path is opened and closed here.
        max_frame_size: largest payload, in bytes; None allows 4 GiB - 1. Memory grows with what arrives, not with what
            a header claims.
        check_reserved: refuse headers whose bytes 1..3 are not zero.
        truncated: what an end inside a frame is: "error" raises, "ignore" drops the unfinished frame.

    Returns:
        An iterator of Frame. It can be shared between threads.

    Raises:
        FramingError: by `next`, after all frames before the fault. A truncated frame's partial payload is in
            `exc.chunks`.
        DaemonError: by `next`: the stream carried a systemerr frame.
        OSError: by `next`: what the source raised; iteration can go on afterwards (TimeoutError, BlockingIOError).

    >>> for stream, payload in frames(b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi"):
    ...     print(stream.name, bytes(payload))
    STDOUT b'hi'
    """
    opened = open_source(source)
    reader = FrameReader(
        opened.reader(), max_frame_size=max_frame_size, check_reserved=check_reserved, truncated=truncated
    )
    return reader


def copy(
    source: AnySource,
    stdout: AnySink,
    stderr: AnySink = None,
    /,
    *,
    max_frame_size: int | None = None,
    check_reserved: bool = True,
    truncated: Truncated = "error",
    demuxer: Demuxer | None = None,
    delay: float = 0.0,
) -> Copied:
    """Copy the payload of a stream to two sinks, through buffers of fixed size.

    What has been read has been delivered before more is read, so live streams are seen as they come. Within a stream
    the order is the wire's. Across the two it is kept wherever somebody may be watching: only between two different
    regular files or buffers it is not.

    Args:
        source: bytes-like object, path, file descriptor, binary file object, socket (TLS too), or iterable of
            bytes-like objects. Only a path is opened and closed here.
        stdout: where streams 0 and 1 go: binary file object, file descriptor, socket, path, bytearray (grows), other
            writable buffer (filled from its beginning), callable (gets bytes), None (discards), or a tuple or list of
            these (each gets everything). Only paths are opened (truncated) and closed here.
        stderr: where stream 2 goes. It may be the same object as stdout: then the two are merged in wire order.
        max_frame_size: largest payload a header may announce, in bytes. Memory does not depend on it.
        check_reserved: refuse headers whose bytes 1..3 are not zero.
        truncated: what an end inside a frame is: "error" raises, "ignore" returns; the partial payload is delivered
            either way.
        demuxer: a Demuxer to go on with, after a SinkError or a source's TimeoutError; its own settings hold.
        delay: seconds to wait before the next read while a source that gives little at a time has more already, so
            that bytes gather: an engine writes each frame by itself, and a delay of 0.0005 saves most of the reads. An
            idle source is waited for without delay. Only between file descriptors and plain sockets.

    Returns:
        Payload bytes of each stream (discarded ones, too) and whole frames.

    Raises:
        FramingError: the header at `exc.offset` is invalid; what came before it is delivered, `exc.delivered` counts.
        DaemonError: the stream carried a systemerr frame; otherwise as FramingError.
        SinkError: a sink failed; the cause is chained. `exc.undelivered` holds what was read but not delivered.
        OSError: what the source raised, after what came before it was delivered.
        TypeError, ValueError, BufferError: source or a sink is not one, or a file is given twice.

    >>> out, err = bytearray(), bytearray()
    >>> copy(b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi", out, err)
    Copied(stdout_size=2, stderr_size=0, frames=1)
    >>> out
    bytearray(b'hi')
    """
    check_truncated(truncated)
    if not 0 <= delay <= MAX_DELAY:
        raise ValueError(f"delay must be 0 to {MAX_DELAY} seconds, not {delay}")
    if demuxer is None:
        demuxer = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
    elif not hasattr(demuxer, "_feed_into"):  # either twin's will do
        raise TypeError(f"demuxer must be a Demuxer or None, not {type(demuxer).__name__}")
    else:
        demuxer.feed(b"")  # one that takes no more must not cost the source any bytes
    with open_source(source) as opened:
        return copy_on(opened, demuxer, stdout, stderr, truncated=truncated, delay=delay)


def copy_on(
    source: Source,
    demuxer: Demuxer,
    stdout: AnySink,
    stderr: AnySink,
    *,
    truncated: Truncated = "error",
    delay: float = 0.0,
    waiting: deque[Chunk] | None = None,
) -> Copied:
    """Copy what is left of a source, as `copy` does.

    Args:
        source: goes on where it is.
        demuxer: goes on where it is.
        stdout, stderr, truncated, delay: as for `copy`.
        waiting: payload that was decoded before and comes first; what is delivered is taken out.
    """
    with ExitStack() as stack:
        out, err = _open_sinks(stack, source, stdout, stderr)
        delivery = _Delivery(demuxer, out, err)
        if waiting:
            delivery.hand_on(waiting)
        if source.received:
            delivery.deliver(source.take_received())
        if not delivery.pump(source, delay):
            for block in source.blocks():
                delivery.deliver(block)
        delivery.finish(truncated)
        return delivery.copied()


def _open_sinks(stack: ExitStack, source: Source, stdout: AnySink, stderr: AnySink) -> tuple[Sink, Sink]:
    """Open both; cut files opened for paths to nothing, but only after everything else has turned out right."""
    out = open_sink(stdout, "stdout")
    stack.callback(out.close)
    err = out if stderr is stdout and stderr is not None else open_sink(stderr, "stderr")
    stack.callback(err.close)
    for sink, name in ((out, "stdout"), (err, "stderr")):
        if any(each.identity == source.identity is not None for each in sink.opened()):
            raise ValueError(f"source and {name} are the same file")
    is_one_file = out.identity == err.identity is not None and out.opened() and err.opened()
    if is_one_file or (isinstance(stdout, int) and stdout == stderr):
        err = out  # written through two positions, each would overwrite the other
    opened = [each.identity for sink in {out, err} for each in sink.opened() if each.identity is not None]
    if len(set(opened)) < len(opened):
        raise ValueError("a path is given twice: what is written through one would overwrite what is through the other")
    clear(out, err)
    return out, err


class _Delivery:
    """Wire bytes in, payload out to two sinks, with account kept of what was taken."""

    def __init__(self, demuxer: Demuxer, stdout: Sink, stderr: Sink) -> None:
        self._demuxer = demuxer
        self._sinks = (stdout, stderr)
        self._buffers: tuple[memoryview, memoryview] | None = None
        self._sizes = [0, 0]
        self._frames_before = demuxer.frames
        self._is_ordered = None in (stdout.identity, stderr.identity) or stdout.identity == stderr.identity

    def copied(self) -> Copied:
        return Copied(self._sizes[0], self._sizes[1], self._demuxer.frames - self._frames_before)

    def hand_on(self, chunks: deque[Chunk]) -> None:
        """Deliver payload that is decoded already. A chunk is taken out before its sink gets it: see `_fail`."""
        while chunks:
            stream, payload = chunks.popleft()
            pending = [memoryview(b""), memoryview(b"")]
            pending[stream >> 1] = memoryview(payload)
            self._write_out(pending, b"")
        self._flush()

    def deliver(self, block: Buffer) -> None:
        wire = bytes(block) if BACKEND == "python" else memoryview(block)  # the twin slices bytes fastest
        position = self._fill(wire)
        if self._buffers is None and position < len(wire):
            self._buffers = (memoryview(bytearray(BLOCK_SIZE)), memoryview(bytearray(BLOCK_SIZE)))
        while position < len(wire):
            try:
                assert self._buffers is not None
                done = self._demuxer._feed_into(wire, *self._buffers, self._is_ordered, position)
            except (FramingError, DaemonError) as fault:
                if isinstance(fault.delivered, DemuxedInto):  # None: the Demuxer had failed before
                    self._write(fault.delivered, b"")
                    self._flush()
                fault.delivered = self.copied()
                raise
            position += done.consumed
            self._write(done, memoryview(wire)[position:])
        self._flush()

    def _fill(self, wire: Buffer) -> int:
        """Put what fits straight into the sinks' own memory, if both have some; return the position behind it."""
        stdout, stderr = self._sinks
        if stdout is stderr or not isinstance(stdout, Memory) or not isinstance(stderr, Memory):
            return 0
        try:
            done = self._demuxer._feed_into(wire, stdout.free(), stderr.free(), False, 0)
        except (FramingError, DaemonError) as fault:
            if isinstance(fault.delivered, DemuxedInto):  # None: the Demuxer had failed before
                self._count_filled(fault.delivered)
            fault.delivered = self.copied()
            raise
        self._count_filled(done)
        return done.consumed

    def _count_filled(self, done: DemuxedInto) -> None:
        for i, size in enumerate((done.stdout_size, done.stderr_size)):
            self._sinks[i].size += size
            self._sizes[i] += size

    def pump(self, source: Source, delay: float) -> bool:
        """Copy without Python where all three are plain descriptors. Return whether the source is at its end."""
        descriptors = (source.descriptor, self._sinks[0].descriptor, self._sinks[1].descriptor)
        if Pump is None or None in descriptors or not isinstance(self._demuxer, Demuxer):
            return False
        pump = Pump(self._demuxer, *descriptors, BLOCK_SIZE, self._is_ordered, delay)
        before = self._sizes

        def count() -> None:
            self._sizes = [size + more for size, more in zip(before, pump.sizes)]

        try:
            has_ended: bool = pump.run()
        except (FramingError, DaemonError) as fault:
            count()
            fault.delivered = self.copied()
            raise
        except Exception as error:  # of a sink, of the source, or of a signal handler while one of them was waited for
            count()
            pending, rest = pump.pending, pump.rest
            if pump.failed is None and not any(pending) and not rest:
                raise
            self._fail(pump.failed if pump.failed is not None else int(not pending[0]), error, pending, rest)
        count()
        if not has_ended:
            self.deliver(pump.rest)
        return has_ended

    def finish(self, truncated: Truncated) -> None:
        try:
            self._demuxer.feed_eof()
        except (FramingError, DaemonError) as fault:
            fault.delivered = self.copied()
            if truncated == "error" or not isinstance(fault, TruncatedStreamError):
                raise

    def _write(self, done: DemuxedInto, rest: Buffer) -> None:
        """Write out what a call has put into the buffers; rest is the wire behind it."""
        assert self._buffers is not None
        self._write_out([self._buffers[0][: done.stdout_size], self._buffers[1][: done.stderr_size]], rest)

    def _write_out(self, pending: list[memoryview], rest: Buffer) -> None:
        for i, sink in enumerate(self._sinks):
            before = sink.size
            try:
                sink.write(pending[i])
            except Exception as error:
                self._count(i, sink.size - before, pending)
                self._fail(i, error, pending, rest)
            self._count(i, sink.size - before, pending)

    def _count(self, i: int, taken: int, pending: list[memoryview]) -> None:
        self._sizes[i] += taken
        pending[i] = pending[i][taken:]

    def _flush(self) -> None:
        for i, sink in enumerate(self._sinks):
            try:
                sink.flush()
            except Exception as error:
                self._fail(i, error, [], b"")

    def _fail(self, i: int, error: Exception, pending: Sequence[Buffer], rest: Buffer) -> NoReturn:
        undelivered: list[Chunk] = [
            (stream, bytes(payload)) for stream, payload in zip((Stream.STDOUT, Stream.STDERR), pending) if payload
        ]
        try:
            undelivered += self._demuxer.feed(rest)
        except (FramingError, DaemonError) as fault:  # the next copy with this Demuxer raises it
            undelivered += fault.chunks
        raise SinkError(("stdout", "stderr")[i], self.copied(), undelivered, error) from error
