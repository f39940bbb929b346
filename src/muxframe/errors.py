"""Every error muxframe raises on its own account.

    MuxframeError
      FramingError(ValueError)              the bytes are not a multiplexed stream
        UnknownStreamError                  first header byte is not 0..3
        ReservedBytesError                  header bytes 1..3 are not zero
        FrameTooLargeError                  announced size is above the cap
        TruncatedStreamError(EOFError)      the stream ends inside a frame
      DaemonError                           the daemon reported an error in the stream (systemerr)
      SinkError(OSError)                    payload could not be delivered
      EngineError                           the engine refused a request
        NotFoundError                       404
        ConflictError                       409
        BadRequestError                     400
        HandshakeError                      the answer was not a usable one
      ConnectionLostError(ConnectionError)  the engine went away
      CheckpointError(ValueError)           not a checkpoint, or another container's
      ArchiveError(ValueError)              an archive's index, or its compression, is damaged, or another's
      NoMatchError(EOFError)                the output ended without what was waited for

Misuse stays TypeError, ValueError, BufferError and RuntimeError. A source's own errors (OSError, TimeoutError)
pass through as they are. Exceptions carry data, render it in `__str__`, and pickle. Their attributes have what engines
and containers said as it came; in their text, which often ends on a terminal, what could act there is escaped.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .protocol import HEADER_SIZE, Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ._lines_py import Line
    from .protocol import Chunk, Copied, DemuxedInto

__all__ = [
    "ArchiveError",
    "BadRequestError",
    "CheckpointError",
    "ConflictError",
    "ConnectionLostError",
    "DaemonError",
    "EngineError",
    "FrameTooLargeError",
    "FramingError",
    "HandshakeError",
    "MuxframeError",
    "NoMatchError",
    "NotFoundError",
    "ReservedBytesError",
    "SinkError",
    "TruncatedStreamError",
    "UnknownStreamError",
]


class MuxframeError(Exception):
    """Base of all errors of this package."""

    def __str__(self) -> str:
        return harmless(super().__str__())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__)


def harmless(text: str) -> str:
    r"""Escape what is not printable, save line feeds and tabs: a terminal would act on it.

    >>> harmless("no\x1b[2J\r\nyes\u202e")
    'no\\x1b[2J\nyes\\u202e'
    """
    if text.isprintable():
        return text
    kept = text.replace("\r\n", "\n")
    return "".join(c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in kept)


def _rebuild(kind: type[MuxframeError], args: tuple[Any, ...], state: dict[str, Any]) -> MuxframeError:
    """Undo `MuxframeError.__reduce__` without calling `__init__`: its arguments are not `args`."""
    error = kind.__new__(kind, *args)
    if isinstance(error, OSError):
        OSError.__init__(error, *args)  # errno and strerror live in the C part of the object
    error.__dict__.update(state)
    return error


class _StreamFault(MuxframeError):
    """What FramingError and DaemonError share: where it is, and what was decoded before it."""

    offset: int
    chunks: list[Chunk]
    delivered: Copied | DemuxedInto | None
    lines: list[Any]

    def _locate(self, offset: int, chunks: Sequence[Chunk]) -> None:
        self.offset = offset
        self.chunks = list(chunks)
        self.delivered = None
        self.lines = []


class FramingError(_StreamFault, ValueError):
    """The bytes are not a multiplexed stream.

    Attributes:
        offset: position in the wire, in bytes, at which the faulty frame begins.
        header: the header's bytes that had arrived, at most 8.
        chunks: payload the failing call had decoded before the fault and has nowhere else to put: (stream, payload)
            pairs. Nothing in it was delivered another way.
        delivered: what the failing call had already put into buffers or sinks (`DemuxedInto` or `Copied`), or None.
        lines: what the failing call had completed before the fault, where lines (or batches) are what it returns.
    """

    def __init__(self, offset: int, header: bytes, chunks: Sequence[Chunk] = ()) -> None:
        super().__init__()
        self.header = header
        self._locate(offset, chunks)

    def __str__(self) -> str:
        return f"invalid frame at offset {self.offset}"


class UnknownStreamError(FramingError):
    """The first byte of a header is not 0..3: mostly a raw (TTY) stream taken for a multiplexed one."""

    @property
    def stream(self) -> int:
        """The byte found where the stream's number belongs."""
        return self.header[0]

    def __str__(self) -> str:
        text = f"unrecognized stream: {self.stream} at offset {self.offset}"
        if self.offset:
            return text
        if self.header[:1] == b"{":
            return f"{text}; this looks like a JSON error body, not a multiplexed stream"
        return f"{text}; this looks like a raw (TTY) stream, which is not multiplexed"


class ReservedBytesError(FramingError):
    """Bytes 1..3 of a header are not zero."""

    def __str__(self) -> str:
        return f"reserved header bytes are not zero: {self.header[1:4].hex(' ')} at offset {self.offset}"


class FrameTooLargeError(FramingError):
    """A frame is larger than the cap, or than the buffer that has to hold it whole.

    Attributes:
        size: bytes of payload the header announces.
        limit: bytes allowed.
    """

    def __init__(self, offset: int, header: bytes, limit: int, chunks: Sequence[Chunk] = ()) -> None:
        super().__init__(offset, header, chunks)
        self.limit = limit

    @property
    def size(self) -> int:
        """Bytes of payload the header announces."""
        return int.from_bytes(self.header[4:], "big")

    def __str__(self) -> str:
        return f"frame of {self.size} bytes at offset {self.offset} is larger than {self.limit}"


class TruncatedStreamError(FramingError, EOFError):
    """The stream ends inside a header or a payload.

    Attributes:
        missing: bytes still due of the header, or of the payload where the header is whole.
    """

    def __init__(self, offset: int, header: bytes, missing: int, chunks: Sequence[Chunk] = ()) -> None:
        super().__init__(offset, header, chunks)
        self.missing = missing

    def __str__(self) -> str:
        if len(self.header) < HEADER_SIZE:
            part, size = "header", HEADER_SIZE
        else:
            part, size = "payload", int.from_bytes(self.header[4:], "big")
        return (
            f"stream ends inside a {part}: "
            f"{self.missing} of {size} bytes missing from the frame at offset {self.offset}"
        )


class DaemonError(_StreamFault):
    """The daemon reported an error in the stream (a systemerr frame), which ends it.

    Attributes:
        message: the daemon's text.
        offset: position in the wire, in bytes, of the frame that carried it.
        chunks, delivered, lines: as in FramingError.
    """

    def __init__(self, message: str, offset: int = 0, chunks: Sequence[Chunk] = ()) -> None:
        super().__init__(message)
        self.message = message
        self._locate(offset, chunks)

    def __str__(self) -> str:
        return harmless(f"error from daemon in stream: {self.message}")


class SinkError(MuxframeError, OSError):
    """Payload could not be delivered: disk full, closed pipe, full buffer. The cause is chained.

    `errno` and `strerror` are the cause's where it has them.

    Attributes:
        sink: "stdout" or "stderr".
        delivered: what both sinks had taken before (`Copied`).
        undelivered: what had been read from the source but not taken by its sink: (stream, payload) pairs, for each
            stream in wire order. Deliver these, and a copy with the same Demuxer goes on without a loss.
    """

    def __init__(
        self, sink: str, delivered: Copied, undelivered: Sequence[Chunk] = (), cause: BaseException | None = None
    ) -> None:
        super().__init__(getattr(cause, "errno", None), getattr(cause, "strerror", None) or str(cause or "failed"))
        self.sink = sink
        self.delivered = delivered
        self.undelivered = undelivered

    def __str__(self) -> str:
        taken = self.delivered
        return (
            f"{self.sink} failed after {taken.stdout_size} bytes of stdout "
            f"and {taken.stderr_size} of stderr: {self.strerror}"
        )


class EngineError(MuxframeError):
    """The engine refused a request.

    Attributes:
        status: HTTP status, or None where there was none.
        reason: its reason phrase.
        message: the server's own text.
    """

    def __init__(self, message: str, status: int | None = None, reason: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.reason = reason

    def __str__(self) -> str:
        return harmless(self.message if self.status is None else f"{self.status} {self.reason}: {self.message}")


class NotFoundError(EngineError):
    """404: no such container, exec, service or path."""


class ConflictError(EngineError):
    """409: the container's state does not allow it."""


class BadRequestError(EngineError):
    """400: a parameter the engine does not take."""


class HandshakeError(EngineError):
    """The answer was not one that a stream can follow."""


class ConnectionLostError(MuxframeError, ConnectionError):
    """The connection to the engine broke.

    Attributes:
        chunks: what `Session.read_all` had read before, as in FramingError.
    """

    def __init__(self, *args: object) -> None:
        super().__init__(*args)
        self.chunks: Sequence[Chunk] = []


class CheckpointError(MuxframeError, ValueError):
    """Text that is no checkpoint, or a checkpoint of another container."""


class ArchiveError(MuxframeError, ValueError):
    """An archive whose index is damaged or another archive's, or whose compressed data is damaged."""


class NoMatchError(MuxframeError, EOFError):
    """The output ended without a line that matches.

    Attributes:
        pattern: what was waited for.
        lines: the lines that came, or the last of them.
    """

    def __init__(self, pattern: str | bytes, lines: Sequence[Line]) -> None:
        super().__init__(pattern)
        self.pattern = pattern
        self.lines: list[Line] = list(lines)

    def __str__(self) -> str:
        return f"the output ended without a line that matches {self.pattern!r}"


def header_error(
    header: bytes, offset: int, *, max_frame_size: int | None, check_reserved: bool
) -> FramingError | None:
    """Say what is wrong with a header, or None.

    The stream's number is judged as soon as its byte is there, so that a raw stream is recognised by its first byte;
    the rest needs all 8.
    """
    if header[0] > Stream.SYSTEMERR:
        return UnknownStreamError(offset, header)
    if len(header) < HEADER_SIZE:
        return None
    if check_reserved and any(header[1:4]):
        return ReservedBytesError(offset, header)
    if max_frame_size is not None and int.from_bytes(header[4:], "big") > max_frame_size:
        return FrameTooLargeError(offset, header, max_frame_size)
    return None
