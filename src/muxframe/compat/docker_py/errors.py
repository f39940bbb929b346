"""Faults as docker-py's users catch them: each is muxframe's error of its kind, and docker-py's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from docker.errors import DockerException
from docker.utils.socket import SocketError

from ...errors import (
    ConnectionLostError,
    DaemonError,
    FrameTooLargeError,
    FramingError,
    ReservedBytesError,
    TruncatedStreamError,
    UnknownStreamError,
    _rebuild,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ...protocol import Chunk


class DockerStreamError(DockerException, SocketError):  # type: ignore[misc]
    """A fault in a stream: a DockerException, a SocketError, and muxframe's error of its kind, with what that has."""


class DockerUnknownStreamError(UnknownStreamError, DockerStreamError):
    """A header that is none: mostly a TTY's stream taken for a multiplexed one."""


class DockerReservedBytesError(ReservedBytesError, DockerStreamError):
    """A header whose bytes 1..3 are not zero."""


class DockerFrameTooLargeError(FrameTooLargeError, DockerStreamError):
    """A log message above the cap."""


class DockerTruncatedStreamError(TruncatedStreamError, DockerStreamError):
    """An end inside a frame."""


class DockerDaemonError(DaemonError, DockerStreamError):
    """An error that the daemon reports in the stream."""


class DockerConnectionLostError(ConnectionLostError, DockerStreamError):
    """The connection broke, or an HTTP body ended before its end. The cause is chained."""


_KINDS = {
    UnknownStreamError: DockerUnknownStreamError,
    ReservedBytesError: DockerReservedBytesError,
    FrameTooLargeError: DockerFrameTooLargeError,
    TruncatedStreamError: DockerTruncatedStreamError,
    DaemonError: DockerDaemonError,
}


def fail(fault: FramingError | DaemonError, chunks: Sequence[Chunk] = ()) -> NoReturn:
    """Raise a fault as docker-py's users catch it, with chunks as what was not delivered another way."""
    kind = _KINDS.get(type(fault), type(fault))
    raise _rebuild(kind, fault.args, {**fault.__dict__, "chunks": list(chunks), "delivered": None}) from None


def lose(cause: Exception, chunks: Sequence[Chunk] = ()) -> NoReturn:
    """Say that the connection broke."""
    error = DockerConnectionLostError(f"the stream broke off: {cause!r}")
    error.chunks = list(chunks)
    raise error from cause
