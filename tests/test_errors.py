"""Errors carry data, render it, and pickle."""

from __future__ import annotations

import copy
import errno
import pickle

import pytest

from muxframe import errors
from muxframe.errors import (
    ArchiveError,
    BadRequestError,
    CheckpointError,
    ConflictError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    FrameTooLargeError,
    FramingError,
    HandshakeError,
    MuxframeError,
    NoMatchError,
    NotFoundError,
    ReservedBytesError,
    SinkError,
    TruncatedStreamError,
    UnknownStreamError,
)
from muxframe.protocol import Chunk, Copied, Stream

CHUNKS: list[Chunk] = [(Stream.STDOUT, b"before")]
ALL: list[tuple[MuxframeError, str]] = [
    (MuxframeError("text"), "text"),
    (FramingError(7, b"\1" * 8, CHUNKS), "invalid frame at offset 7"),
    (UnknownStreamError(7, b"\x09", CHUNKS), "unrecognized stream: 9 at offset 7"),
    (
        UnknownStreamError(0, b"hello wo"),
        "unrecognized stream: 104 at offset 0; this looks like a raw (TTY) stream, which is not multiplexed",
    ),
    (
        UnknownStreamError(0, b'{"messag'),
        "unrecognized stream: 123 at offset 0; this looks like a JSON error body, not a multiplexed stream",
    ),
    (ReservedBytesError(7, b"\1\0\xab\0\0\0\0\0"), "reserved header bytes are not zero: 00 ab 00 at offset 7"),
    (FrameTooLargeError(7, b"\1\0\0\0\0\0\1\0", 255, CHUNKS), "frame of 256 bytes at offset 7 is larger than 255"),
    (
        TruncatedStreamError(7, b"\1\0\0", 5),
        "stream ends inside a header: 5 of 8 bytes missing from the frame at offset 7",
    ),
    (
        TruncatedStreamError(7, b"\1\0\0\0\0\0\0\x09", 4),
        "stream ends inside a payload: 4 of 9 bytes missing from the frame at offset 7",
    ),
    (DaemonError("no space", 7, CHUNKS), "error from daemon in stream: no space"),
    (
        SinkError("stderr", Copied(1, 2, 3), CHUNKS, OSError(errno.ENOSPC, "No space left on device")),
        "stderr failed after 1 bytes of stdout and 2 of stderr: No space left on device",
    ),
    (
        SinkError("stdout", Copied(0, 0, 0), [], KeyError("mine")),
        "stdout failed after 0 bytes of stdout and 0 of stderr: 'mine'",
    ),
    (EngineError("broken", 500, "Internal Server Error"), "500 Internal Server Error: broken"),
    (NotFoundError("No such container: x", 404, "Not Found"), "404 Not Found: No such container: x"),
    (ConflictError("is paused", 409, "Conflict"), "409 Conflict: is paused"),
    (BadRequestError("bad keys", 400, "Bad Request"), "400 Bad Request: bad keys"),
    (HandshakeError("not HTTP"), "not HTTP"),
    (ConnectionLostError("reset"), "reset"),
    (CheckpointError("not a checkpoint: ''"), "not a checkpoint: ''"),
    (NoMatchError("ready", []), "the output ended without a line that matches 'ready'"),
    (ArchiveError("a.idx: is damaged"), "a.idx: is damaged"),
]


@pytest.mark.parametrize(("error", "text"), ALL, ids=[type(error).__name__ for error, _ in ALL])
def test_text_and_pickle(error: MuxframeError, text: str) -> None:
    assert str(error) == text
    assert repr(error) == f"{type(error).__name__}({text!r})"
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin) is type(error)
        assert str(twin) == text
        assert twin.__dict__ == error.__dict__
        assert twin.args == error.args
        if isinstance(error, OSError):
            assert isinstance(twin, OSError)
            assert (twin.errno, twin.strerror) == (error.errno, error.strerror)


def test_every_error_is_public_and_has_its_case() -> None:
    import muxframe

    assert {type(error).__name__ for error, _ in ALL} == set(errors.__all__)
    assert set(errors.__all__) <= set(muxframe.__all__)


def test_bases() -> None:
    assert issubclass(FramingError, ValueError)
    assert issubclass(TruncatedStreamError, EOFError)
    assert issubclass(SinkError, OSError)
    assert issubclass(ConnectionLostError, ConnectionError)
    assert not issubclass(DaemonError, FramingError)
    assert all(issubclass(getattr(errors, name), MuxframeError) for name in errors.__all__)


def test_data() -> None:
    too_large = FrameTooLargeError(7, b"\1\0\0\0\0\0\1\0", 255)
    assert (too_large.size, too_large.limit, too_large.offset, too_large.chunks) == (256, 255, 7, [])
    assert UnknownStreamError(0, b"\x09").stream == 9
    sink = SinkError("stdout", Copied(1, 2, 3), CHUNKS, OSError(errno.EPIPE, "Broken pipe"))
    assert (sink.sink, sink.delivered, sink.undelivered, sink.errno) == ("stdout", (1, 2, 3), CHUNKS, errno.EPIPE)
