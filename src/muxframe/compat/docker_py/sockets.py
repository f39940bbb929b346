"""docker.utils.socket: the same functions, and what they read from.

All of them wait as long as it takes, whatever timeout the socket has, as docker-py's do. They take from a socket what
they return and nothing more, so that they can be mixed with each other and with reading it directly.
"""

from __future__ import annotations

import socket as plain_sockets  # docker-py's name for the argument is socket
from typing import TYPE_CHECKING, Any

import docker.utils.socket
from docker.utils.socket import SocketError

from ..._framing import FrameReader
from ..._framing_py import RECEIVE_BUFFER_SIZE
from ...errors import FramingError, header_error
from ...protocol import HEADER_SIZE, MAX_SYSTEMERR_SIZE, Stream
from ...sources import Source, open_source, wait_readable
from .errors import DockerDaemonError, DockerTruncatedStreamError, fail

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Iterator

#: What is looked at for whole frames. What is looked at is copied twice, so behind a larger frame nothing is.
_LOOK_SIZE = 8192

_PIPE_ENDED = 109  # pywintypes.error: the other side of a named pipe has closed it


class Patient(Source):
    """What a socket of docker-py's is really read from, without a timeout.

    Args:
        socket: what attach_socket and exec_start(socket=True) return; any socket, file object, or object with fileno.
    """

    def __init__(self, socket: Any) -> None:
        self._inner = open_source(innermost(socket))
        self._is_named_pipe = isinstance(socket, docker.utils.socket.NpipeSocket)

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            try:
                return self._inner.readinto(buffer)
            except TimeoutError:
                pass
            except Exception as error:
                if self._is_named_pipe and error.args[:1] == (_PIPE_ENDED,):
                    return 0
                raise

    def fill(self, buffer: memoryview) -> int:
        """Fill all of buffer, but for the end; return how much came."""
        filled = 0
        while filled < len(buffer) and (size := self.readinto(buffer[filled:])):
            filled += size
        return filled

    def header(self, offset: int) -> bytes:
        """Read a header, which is in order; b"" is the end."""
        header = bytearray(HEADER_SIZE)
        with memoryview(header) as view:
            filled = 0
            while filled < HEADER_SIZE:
                size = self.readinto(view[filled:])
                if not size and filled:
                    raise DockerTruncatedStreamError(offset, bytes(view[:filled]), HEADER_SIZE - filled)
                if not size:
                    return b""
                filled += size
                fault = header_error(bytes(view[:filled]), offset, max_frame_size=None, check_reserved=True)
                if fault is not None:
                    fail(fault)
        return bytes(header)


def innermost(socket: Any) -> Any:
    """Return what is to be read in place of an object that only stands for it."""
    process = getattr(socket, "proc", None)
    if process is not None:  # the ssh command: its socket is a dummy, and its recv waits for all it was asked for
        return process.stdout
    if isinstance(socket, plain_sockets.SocketIO):
        socket.fileno()  # says that it is closed
        return socket._sock  # type: ignore[attr-defined]
    if any(hasattr(socket, name) for name in ("recv", "read", "readinto")):
        return socket
    return socket.fileno()


# --- the functions ---------------------------------------------------------------------------------------------------


def read(socket: Any, n: int = 4096) -> bytes:
    """Read at most n bytes, as soon as there are some; b"" is the end."""
    buffer = bytearray(n)
    with memoryview(buffer) as view:
        return bytes(view[: Patient(socket).readinto(view)]) if n else b""


def read_exactly(socket: Any, n: int) -> bytes:
    """Read n bytes.

    Raises:
        SocketError: fewer came.
    """
    buffer = bytearray(n)
    with memoryview(buffer) as view:
        if Patient(socket).fill(view) < n:
            raise SocketError("Unexpected EOF")
    return bytes(buffer)


def next_frame_header(socket: Any) -> tuple[int, int]:
    """Read a header: the stream and the size of the payload, or (-1, -1) at the end.

    Raises:
        DockerStreamError: the stream ends inside it, or it is no header.
    """
    header = Patient(socket).header(0)
    return (header[0], int.from_bytes(header[4:], "big")) if header else (-1, -1)


def frames_iter(socket: Any, tty: bool) -> Iterator[tuple[int, bytes]]:
    """Iterate over (stream, payload) as it comes; all of a TTY is stream 1."""
    if tty:
        return ((Stream.STDOUT, data) for data in frames_iter_tty(socket))
    return frames_iter_no_tty(socket)


def frames_iter_tty(socket: Any) -> Iterator[bytes]:
    """Iterate over what a TTY's stream brings, as it comes."""
    wire, block = Patient(socket), memoryview(bytearray(RECEIVE_BUFFER_SIZE))
    while size := wire.readinto(block):
        yield bytes(block[:size])


def frames_iter_no_tty(socket: Any) -> Iterator[tuple[int, bytes]]:
    """Iterate over the (stream, payload) of a multiplexed stream, as it comes: a frame may come in pieces.

    While the iterator lives, what it has given of a plain socket may still lie in it; it is taken when the iterator
    goes on, ends, is closed or dropped.

    Raises:
        DockerStreamError: by `next`, after everything before the fault.
        OSError: by `next`: what the socket raised, except for timeouts.
    """
    wire, block = Patient(socket), memoryview(bytearray(RECEIVE_BUFFER_SIZE))
    plain = innermost(socket)
    can_look = type(plain) is plain_sockets.socket
    offset = size = 0
    while True:
        if can_look and size < _LOOK_SIZE:
            taken = yield from _whole_frames(plain, block[:_LOOK_SIZE])
            offset += taken
            if taken:
                continue
        header = wire.header(offset)
        if not header:
            return
        yield from _payload(wire, block, header, offset)
        size = int.from_bytes(header[4:], "big")
        offset += HEADER_SIZE + size


def _whole_frames(sock: plain_sockets.socket, block: memoryview) -> Generator[tuple[int, bytes], None, int]:
    """Yield the whole frames that lie in a socket, up to what must be looked at closely; return the bytes taken."""
    size = _peek(sock, block)
    frames = FrameReader(
        block[:size].toreadonly(), max_frame_size=None, truncated="ignore", raise_systemerr=False
    )
    taken = 0
    try:
        for stream, payload in frames:
            if stream is Stream.SYSTEMERR:
                break
            taken += HEADER_SIZE + len(payload)
            if payload:
                yield stream, bytes(payload)
    except FramingError:
        pass  # who reads on meets it again
    finally:
        _take(sock, block[:taken])
    return taken


def _peek(sock: plain_sockets.socket, block: memoryview) -> int:
    while True:
        try:
            return sock.recv_into(block, 0, plain_sockets.MSG_PEEK)
        except BlockingIOError:
            wait_readable(sock)
        except TimeoutError:
            pass


def _take(sock: plain_sockets.socket, seen: memoryview) -> None:
    """Take what was seen out of the socket."""
    try:
        while seen and (size := sock.recv_into(seen)):
            seen = seen[size:]
    except OSError:
        pass  # closed meanwhile: nobody can read it any more


def _payload(wire: Patient, block: memoryview, header: bytes, offset: int) -> Iterator[tuple[int, bytes]]:
    stream, left = Stream(header[0]), int.from_bytes(header[4:], "big")
    if stream is Stream.SYSTEMERR:
        text = block[: min(left, MAX_SYSTEMERR_SIZE)]
        raise DockerDaemonError(str(text[: wire.fill(text)], "utf-8", "replace"), offset)
    while left:
        size = wire.readinto(block[:left])
        if not size:
            raise DockerTruncatedStreamError(offset, header, left)
        left -= size
        yield stream, bytes(block[:size])


def consume_socket_output(frames: Iterable[Any], demux: bool = False) -> Any:
    """Join what frames bring.

    Args:
        frames: bytes; with demux (stdout, stderr), one of which is None.
        demux: keep the two apart.

    Returns:
        bytes, or (stdout, stderr), with None for what did not come at all.
    """
    if demux is False:
        return b"".join(frames)
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for out, err in frames:
        if out is not None:
            parts[0].append(out)
        else:
            parts[1].append(err)
    return tuple(b"".join(part) if part else None for part in parts)


def demux_adaptor(stream_id: int, data: bytes) -> tuple[bytes | None, bytes | None]:
    """Return (stdout, stderr), one of which is None.

    Raises:
        ValueError: it is neither.
    """
    if stream_id == Stream.STDERR:
        return None, data
    if stream_id in (Stream.STDIN, Stream.STDOUT):
        return data, None
    raise ValueError(f"{stream_id} is not a valid stream")
