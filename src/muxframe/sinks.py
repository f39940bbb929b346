"""Where payload can go, and the way back into frames.

One function, `open_sink`, takes all kinds and gives a `Sink`, whose `write` delivers everything it is given or raises;
`size` then says how much was taken. Short writes and non-blocking sinks are handled. Only what was opened here (paths)
is closed here.
"""

from __future__ import annotations

import io
import os
from _thread import RLock
from typing import TYPE_CHECKING, Any, Union, cast

from ._framing import pack_frame
from ._framing_py import readable, writable
from .protocol import MAX_PAYLOAD_SIZE, Stream
from .sources import (
    blocking_descriptor,
    check_descriptor,
    file_identity,
    identity_of_file,
    is_buffer,
    is_text,
    wait_for_tls,
    wait_writable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from typing_extensions import Buffer

    #: Binary file object, file descriptor, socket, path, bytearray (grows), other writable buffer (filled from its
    #: beginning), callable, None (discards), or a tuple or list of these (each gets everything).
    AnySink = Union[None, int, str, os.PathLike[str], bytearray, Buffer, Callable[[bytes], Any], Sequence[Any], Any]


class Sink:
    """Where payload of a stream goes."""

    #: Bytes taken so far, after a failed write too.
    size: int = 0

    #: Tells two sinks apart whose order nobody can observe (regular files, memory); None where somebody may be
    #: watching (terminals, pipes, sockets, callables).
    identity: Hashable = None

    #: A file descriptor that writing is no more than writing to, or -1 to discard.
    descriptor: int | None = None

    def write(self, data: memoryview) -> None:
        """Deliver all of data.

        Raises:
            Exception: whatever the sink raises; `size` has grown by what it took before.
        """
        while data:
            taken = self._write_some(data)
            if not 0 <= taken <= len(data):
                raise ValueError(f"sink says it took {taken} of {len(data)} bytes")
            self.size += taken
            data = data[taken:]

    def _write_some(self, data: memoryview) -> int:
        """Deliver some of data, waiting where nothing can be taken yet; return how much."""
        raise NotImplementedError

    def flush(self) -> None:
        """Pass on what the sink holds back."""

    def opened(self) -> Sequence[Sink]:
        """List the sinks that were opened for a path: to be cleared before anything is written."""
        return ()

    def close(self) -> None:
        """Close what was opened here."""


def open_sink(sink: AnySink, name: str = "sink") -> Sink:
    """Find out how to write to sink. What is opened for a path keeps its content until `clear`.

    Raises:
        TypeError: it is nothing bytes can be written to, or a text file.
        ValueError: it is a negative file descriptor.
        BufferError: it is memory that is read-only or not C-contiguous.
        OSError: a path cannot be opened.
    """
    if sink is None:
        return _Discard()
    if isinstance(sink, bytearray):
        return _Growing(sink)
    if isinstance(sink, (tuple, list)):
        return _Tee([open_sink(each, name) for each in sink])
    if isinstance(sink, int) and not isinstance(sink, bool):
        return _Descriptor(check_descriptor(sink))
    if isinstance(sink, (str, os.PathLike)):
        return _Path(sink)
    if is_text(sink):
        raise TypeError(f"{name} is a text file: open it in binary mode, or pass its .buffer")
    if hasattr(sink, "sendall"):  # before files: SSLSocket has a write, too
        return _Socket(sink)
    if is_buffer(sink):  # before files: mmap has a write, too
        return _Preallocated(writable(cast("Buffer", sink), name))
    if hasattr(sink, "write"):
        return _File(sink)
    if callable(sink):
        return _Callable(sink)
    raise TypeError(f"cannot write to {name}: {type(sink).__name__}")


class Memory(Sink):
    """Memory that payload can be put straight into."""

    def free(self) -> memoryview | None:
        """Return what is not filled yet; None where nothing is kept and everything fits."""
        raise NotImplementedError


class _Discard(Memory):
    descriptor = -1

    def free(self) -> None:
        return None

    def write(self, data: memoryview) -> None:
        self.size += len(data)


class _Growing(Sink):
    def __init__(self, target: bytearray) -> None:
        self._target = target
        self.identity = id(target)

    def _write_some(self, data: memoryview) -> int:
        self._target += data
        return len(data)


class _Preallocated(Memory):
    def __init__(self, target: memoryview) -> None:
        self._target = target
        self.identity = id(target.obj)

    def free(self) -> memoryview:
        return self._target[self.size :]

    def _write_some(self, data: memoryview) -> int:
        size = min(len(data), len(self._target) - self.size)
        if not size:
            raise BufferError(f"the buffer of {len(self._target)} bytes is full")
        self._target[self.size : self.size + size] = data[:size]
        return size


class _Callable(Sink):
    def __init__(self, target: Callable[[bytes], Any]) -> None:
        self._target = target

    def _write_some(self, data: memoryview) -> int:
        self._target(bytes(data))
        return len(data)


class _Tee(Sink):
    """Several sinks; what counts as taken is what all of them have taken."""

    def __init__(self, sinks: list[Sink]) -> None:
        self._sinks = sinks

    def write(self, data: memoryview) -> None:
        start = self.size
        before = [sink.size for sink in self._sinks]
        try:
            for sink in self._sinks:
                sink.write(data)
        finally:
            taken = [sink.size - size for sink, size in zip(self._sinks, before, strict=True)]
            self.size = start + min(taken, default=len(data))

    def flush(self) -> None:
        for sink in self._sinks:
            sink.flush()

    def opened(self) -> Sequence[Sink]:
        return [each for sink in self._sinks for each in sink.opened()]

    def close(self) -> None:
        for sink in self._sinks:
            sink.close()


class _Descriptor(Sink):
    descriptor: int

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self.identity = object() if _is_null(descriptor) else file_identity(descriptor)

    def _write_some(self, data: memoryview) -> int:
        try:
            return os.write(self.descriptor, data)
        except BlockingIOError:
            wait_writable(self.descriptor)
            return 0


class _Path(_Descriptor):
    def __init__(self, path: str | os.PathLike[str]) -> None:
        flags = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)
        super().__init__(os.open(path, flags, 0o666))
        self._open = True

    def opened(self) -> Sequence[Sink]:
        return [self]

    def close(self) -> None:
        if self._open:
            self._open = False
            os.close(self.descriptor)


class _Socket(Sink):
    def __init__(self, sock: Any) -> None:
        self._socket = sock
        self.descriptor = blocking_descriptor(sock)

    def _write_some(self, data: memoryview) -> int:
        try:
            return int(self._socket.send(data))
        except BlockingIOError:
            wait_writable(self._socket)
        except OSError as error:
            if not wait_for_tls(self._socket, error):
                raise
        return 0


class _File(Sink):
    def __init__(self, file: Any) -> None:
        inner = getattr(file, "file", None)  # of tempfile's wrappers
        if isinstance(inner, io.IOBase):
            file = inner
        self._file = file
        self._takes_views = isinstance(file, io.IOBase)  # other objects get bytes, which they may expect
        self._is_raw = isinstance(file, io.RawIOBase)
        self._is_buffered = isinstance(file, (io.BufferedWriter, io.BufferedRandom))
        self.identity = id(file) if isinstance(file, io.BytesIO) else identity_of_file(file)
        if type(file) is io.FileIO:
            self.descriptor = file.fileno()

    def _write_some(self, data: memoryview) -> int:
        try:
            taken = self._file.write(data if self._takes_views else bytes(data))
        except BlockingIOError as error:
            wait_writable(self._file)
            return getattr(error, "characters_written", 0)
        if taken is not None:
            return int(taken)
        if not self._is_raw:  # an object whose write returns nothing has taken everything
            return len(data)
        wait_writable(self._file)
        return 0

    def flush(self) -> None:
        """Flush a BufferedWriter, so that what has arrived is seen; compressors and the like keep their pace."""
        while self._is_buffered:
            try:
                self._file.flush()
            except BlockingIOError:
                wait_writable(self._file)
            else:
                break


def clear(*sinks: Sink) -> None:
    """Cut the regular files that were opened for paths to nothing."""
    for sink in sinks:
        for each in sink.opened():
            if each.descriptor is not None and file_identity(each.descriptor) is not None:
                os.ftruncate(each.descriptor, 0)


def _is_null(descriptor: int) -> bool:
    """Say whether this is /dev/null, where the order of writes matters to nobody."""
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(os.devnull))
    except (OSError, AttributeError):
        return False


class FrameWriter(io.RawIOBase):
    """A binary file object that multiplexes: each write becomes one frame, written to sink at once.

    Several writers, one for each stream, may share a sink. Closing the writer does not close it. Safe to share between
    threads: writes take turns. Writers that share a sink know nothing of each other: in several threads they need one
    lock, unless what the sink is takes each frame whole.

    Args:
        sink: anything `copy` can write to.
        stream: 0..3.

    Raises:
        TypeError, ValueError, BufferError: sink or stream is not one.

    >>> wire = io.BytesIO()
    >>> FrameWriter(wire, Stream.STDOUT).write(b"hi")
    2
    >>> wire.getvalue()
    b'\\x01\\x00\\x00\\x00\\x00\\x00\\x00\\x02hi'
    """

    def __init__(self, sink: AnySink, stream: int) -> None:
        self._stream = Stream(stream)
        self._sink = open_sink(sink)
        self._lock = RLock()
        clear(self._sink)
        self._is_broken = False
        super().__init__()

    def writable(self) -> bool:
        """Return True."""
        return True

    def write(self, data: Buffer, /) -> int:
        """Write data as one frame; nothing at all where it is empty.

        Args:
            data: C-contiguous bytes-like object. Only above 4 GiB - 1 bytes it takes more than one frame.

        Returns:
            Bytes of data written: all of them. The 8 bytes of the header do not count.

        Raises:
            ValueError: the writer is closed, or an earlier frame was written in part: what follows would be misread.
            OSError: what the sink raised.

        Source: Moby's stdcopy, stdWriter.Write.
        """
        with self._lock:
            if self.closed:
                raise ValueError("write to a closed FrameWriter")
            if self._is_broken:
                raise ValueError("an earlier frame was written in part")
            view = readable(data)
            for start in range(0, len(view), MAX_PAYLOAD_SIZE):
                size = self._sink.size
                try:
                    self._sink.write(memoryview(pack_frame(self._stream, view[start : start + MAX_PAYLOAD_SIZE])))
                except BaseException:
                    self._is_broken = self._sink.size > size
                    raise
            self._sink.flush()
            return len(view)

    def close(self) -> None:
        """Refuse further writes; close what was opened for a path."""
        if not hasattr(self, "_lock"):  # __init__ has failed
            return super().close()
        with self._lock:
            if not self.closed:
                super().close()
                self._sink.close()
