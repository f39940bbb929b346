"""What wire bytes can be read from.

One function, `open_source`, takes them all and gives a `Source`: either memory that is simply there, or a `readinto`
that waits for bytes and returns 0 at the end. Non-blocking sources are waited for; what a source raises (OSError,
TimeoutError) passes through, and reading can go on afterwards. Only what was opened here (paths) is closed here.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
from typing import TYPE_CHECKING, Any, Union, cast

from ._framing_py import BLOCK_SIZE, readable

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterable, Iterator
    from typing import Self

    from typing_extensions import Buffer

    #: Bytes-like object, path, file descriptor, binary file object, socket (TLS too), iterable of bytes-like objects.
    AnySource = Union[Buffer, str, os.PathLike[str], int, Iterable[Buffer], Any]

PIECE_SIZE = 4 * BLOCK_SIZE  # of memory, at once: `SinkError.undelivered` holds no more


class Source:
    """Wire bytes, whatever they come from. A context manager that closes what it opened."""

    #: The whole stream, where it is simply there.
    memory: memoryview | None = None

    #: A file descriptor that reading is no more than reading from.
    descriptor: int | None = None

    #: Tells which regular file is read, if one is.
    identity: Hashable = None

    #: What has been read already and comes before everything else.
    received: memoryview = memoryview(b"")

    def take_received(self) -> memoryview:
        """Return `received`, which is empty then."""
        received, self.received = self.received, memoryview(b"")
        return received

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of buffer with what there is, waiting for at least one byte; return 0 at the end."""
        raise NotImplementedError

    def blocks(self) -> Iterator[memoryview]:
        """Yield the wire piece by piece; each is valid until the next."""
        block = memoryview(bytearray(BLOCK_SIZE))
        while size := self.readinto(block):
            yield block[:size]

    def reader(self) -> memoryview | Callable[[memoryview], int]:
        """Return what a FrameReader reads from."""
        return self.readinto if self.memory is None else self.memory

    def close(self) -> None:
        """Close what was opened here."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_source(source: AnySource) -> Source:
    """Find out how to read from source.

    Raises:
        TypeError: it is nothing bytes can be read from, or a text file.
        ValueError: it is a negative file descriptor.
        BufferError: it is memory that is not C-contiguous.
        OSError: a path cannot be opened.
    """
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _Memory(source)
    if isinstance(source, int) and not isinstance(source, bool):
        return _Descriptor(check_descriptor(source))
    if isinstance(source, (str, os.PathLike)):
        return _Path(source)
    if is_text(source):
        raise TypeError("a text file cannot carry a multiplexed stream: open it in binary mode, or pass its .buffer")
    if hasattr(source, "recv_into") or hasattr(source, "recv"):  # before files: SSLSocket has a read, too
        return _Socket(source)
    if is_buffer(source):  # before files: mmap has a read, too
        return _Memory(cast("Buffer", source))
    if hasattr(source, "readinto") or hasattr(source, "read"):
        return _File(source)
    if hasattr(source, "__iter__"):
        return _Chunks(cast("Iterable[Buffer]", source))
    raise TypeError(f"cannot read a multiplexed stream from {type(source).__name__}")


class _Memory(Source):
    def __init__(self, data: Buffer) -> None:
        self.memory = readable(data, "source")

    def blocks(self) -> Iterator[memoryview]:
        assert self.memory is not None
        for start in range(0, len(self.memory), PIECE_SIZE):
            yield self.memory[start : start + PIECE_SIZE]


class _Descriptor(Source):
    descriptor: int

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.identity = file_identity(descriptor)

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            try:
                if hasattr(os, "readv"):
                    return os.readv(self.descriptor, [buffer])
                data = os.read(self.descriptor, len(buffer))
            except BlockingIOError:
                wait_readable(self.descriptor)
            else:
                buffer[: len(data)] = data
                return len(data)


class _Path(_Descriptor):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        super().__init__(os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0)))
        self._open = True

    def readinto(self, buffer: memoryview, /) -> int:
        size = super().readinto(buffer) if self._open else 0
        if not size:
            self.close()
        return size

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.descriptor)

    def __del__(self) -> None:
        if hasattr(self, "_open"):  # of frames that nobody has read to the end
            self.close()


class _Socket(Source):
    """A socket, or what has its recv_into or recv."""

    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.descriptor = blocking_descriptor(sock)

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            try:
                if hasattr(self._socket, "recv_into"):
                    return check_size(self._socket.recv_into(buffer), buffer)
                return _fill(buffer, self._socket.recv(len(buffer)))
            except BlockingIOError:
                wait_readable(self._socket)
            except OSError as error:
                if not wait_for_tls(self._socket, error):
                    raise


class _File(Source):
    """A binary file object.

    readinto1 and read1 come first: they return what is there, where readinto and read of anything but a raw file wait
    until the whole buffer can be filled.
    """

    def __init__(self, file: Any) -> None:
        self._file = file
        self._readinto = getattr(file, "readinto1", None)
        if self._readinto is None and (isinstance(file, io.RawIOBase) or not hasattr(file, "read1")):
            self._readinto = getattr(file, "readinto", None)
        self._read = getattr(file, "read1", None) or getattr(file, "read", None)
        if type(file) is io.FileIO:
            self.descriptor = file.fileno()
        self.identity = identity_of_file(file)

    def readinto(self, buffer: memoryview, /) -> int:
        while True:
            if self._readinto is not None:
                size = self._readinto(buffer)
                if size is not None:
                    return check_size(size, buffer)
            else:
                assert self._read is not None
                data = self._read(len(buffer))
                if data is not None:
                    return _fill(buffer, data)
            if not hasattr(self._file, "fileno"):  # None: nothing there yet
                raise BlockingIOError("the source is non-blocking, has nothing to read and no fileno to wait for")
            wait_readable(self._file)


class _Chunks(Source):
    """An iterable of bytes-like objects. Empty ones are not the end."""

    def __init__(self, chunks: Iterable[Buffer]) -> None:
        self._chunks = iter(chunks)
        self._rest = memoryview(b"")

    def readinto(self, buffer: memoryview, /) -> int:
        while not self._rest:
            try:
                self._rest = readable(next(self._chunks), "an item of the source")
            except StopIteration:
                return 0
        size = _fill(buffer, self._rest[: len(buffer)])
        self._rest = self._rest[size:]
        return size

    def blocks(self) -> Iterator[memoryview]:
        if self._rest:
            yield self._rest
        for chunk in self._chunks:
            view = readable(chunk, "an item of the source")
            if view:
                yield view


def _fill(buffer: memoryview, data: Buffer) -> int:
    view = readable(data, "what the source returned")
    size = check_size(len(view), buffer)
    buffer[:size] = view
    return size


def check_size(size: int, buffer: memoryview) -> int:
    """Refuse a count that cannot be true."""
    if not 0 <= size <= len(buffer):
        raise ValueError(f"source returned {size} bytes where {len(buffer)} were asked for")
    return size


def check_descriptor(descriptor: int) -> int:
    """Refuse what is no file descriptor."""
    if descriptor < 0:
        raise ValueError(f"file descriptor must not be negative: {descriptor}")
    return descriptor


def blocking_descriptor(sock: Any) -> int | None:
    """Return the descriptor of a plain socket without a timeout: reading and writing it is all there is to it."""
    module = sys.modules.get("socket")  # whoever has a socket has imported it
    if module is None or type(sock) is not module.socket or sock.gettimeout() is not None or os.name != "posix":
        return None
    descriptor = int(sock.fileno())
    return None if descriptor < 0 else descriptor  # a closed one: using it says so


def file_identity(descriptor: int) -> Hashable:
    """Tell one regular file from another; None where it is none, or not open."""
    try:
        status = os.fstat(descriptor)
    except OSError:
        return None
    return (status.st_dev, status.st_ino) if stat.S_ISREG(status.st_mode) else None


def identity_of_file(file: Any) -> Hashable:
    """Tell which regular file a file object stands for; None where it is none, or nobody can tell."""
    try:
        return file_identity(file.fileno())
    except (AttributeError, OSError, TypeError, ValueError):
        return None


def is_text(file: object) -> bool:
    """Say whether a file object gives or takes text."""
    return isinstance(file, io.TextIOBase) or isinstance(getattr(file, "encoding", None), str)


def is_buffer(candidate: object) -> bool:
    """Say whether an object exports its memory."""
    try:
        with memoryview(candidate):  # type: ignore[arg-type]
            return True
    except TypeError:
        return False


# --- waiting for what is non-blocking --------------------------------------------------------------------------------


def wait_readable(file: Any) -> None:
    """Block until there is something to read, or the end."""
    _wait(file, readable=True)


def wait_writable(file: Any) -> None:
    """Block until something can be written, or writing would fail."""
    _wait(file, readable=False)


def _wait(file: Any, *, readable: bool) -> None:
    if hasattr(select, "poll"):
        poll = select.poll()
        poll.register(file, select.POLLIN if readable else select.POLLOUT)
        poll.poll()
    else:
        select.select([file] if readable else [], [] if readable else [file], [])


def wait_for_tls(sock: Any, error: OSError) -> bool:
    """Wait for what a non-blocking TLS socket needs next; return False where the error says something else."""
    ssl = sys.modules.get("ssl")  # whoever has a TLS socket has imported it
    if ssl is None:
        return False
    if isinstance(error, ssl.SSLWantReadError):
        wait_readable(sock)
    elif isinstance(error, ssl.SSLWantWriteError):
        wait_writable(sock)
    else:
        return False
    return True
