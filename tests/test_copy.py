"""copy and frames on every kind of source and sink, good and bad."""

from __future__ import annotations

import array
import errno
import gc
import gzip
import io
import mmap
import os
import random
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import oracle
import pytest

from muxframe import (
    Copied,
    DaemonError,
    Demuxer,
    FrameTooLargeError,
    ReservedBytesError,
    SinkError,
    Stream,
    TruncatedStreamError,
    UnknownStreamError,
    copy,
    frames,
)
from muxframe.copying import copy_on
from muxframe.sources import open_source

pack = oracle.pack
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX descriptors")
RNG = random.Random(3)
FRAMES = [(RNG.choice((0, 1, 1, 2, 2)), RNG.randbytes(RNG.choice((0, 1, 9, 100, 5000, 40_000)))) for _ in range(200)]
WIRE = b"".join(pack(*frame) for frame in FRAMES)
OUT = b"".join(payload for stream, payload in FRAMES if stream != 2)
ERR = b"".join(payload for stream, payload in FRAMES if stream == 2)
COPIED = Copied(len(OUT), len(ERR), len(FRAMES))


# --- sources ---------------------------------------------------------------------------------------------------------


class Dribble(io.RawIOBase):
    """A raw file that gives a few bytes at a time, and None now and then where it is non-blocking."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._step = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._step += 1
        size = min(1 + self._step * 37 % 9000, len(self._data), len(buffer))
        buffer[:size] = self._data[:size]
        self._data = self._data[size:]
        return size


class OnlyRead:
    def __init__(self, data: bytes) -> None:
        self.read = io.BytesIO(data).read


class OnlyRecv:
    """A socket-like object without recv_into, as paramiko's channels are."""

    def __init__(self, data: bytes) -> None:
        self._file = io.BytesIO(data)

    def recv(self, size: int) -> bytes:
        return self._file.read(min(size, 777))


def feed_in_background(write: Any, close: Any, data: bytes = WIRE) -> threading.Thread:
    def run() -> None:
        rest = memoryview(data)
        while rest:
            size = write(rest[:3001])
            rest = rest[size:]
        close()

    thread = threading.Thread(daemon=True, target=run)
    thread.start()
    return thread


def pipe_source(*, blocking: bool) -> tuple[int, threading.Thread]:
    reading, writing = os.pipe()
    os.set_blocking(reading, blocking)
    return reading, feed_in_background(lambda data: os.write(writing, data), lambda: os.close(writing))


def socket_source(*, timeout: float | None) -> tuple[socket.socket, threading.Thread]:
    ours, theirs = socket.socketpair()
    ours.settimeout(timeout)
    return ours, feed_in_background(theirs.send, theirs.close)


MEMORY: dict[str, Any] = {
    "bytes": lambda: WIRE,
    "bytearray": lambda: bytearray(WIRE),
    "memoryview": lambda: memoryview(WIRE),
    "array": lambda: array.array("B", WIRE),
    "BytesIO": lambda: io.BytesIO(WIRE),
    "BufferedReader": lambda: io.BufferedReader(Dribble(WIRE)),
    "raw file": lambda: Dribble(WIRE),
    "read only": lambda: OnlyRead(WIRE),
    "recv only": lambda: OnlyRecv(WIRE),
    "list": lambda: [WIRE[:5], b"", WIRE[5:5000], bytearray(WIRE[5000:])],
    "generator": lambda: (WIRE[i : i + 1234] for i in range(0, len(WIRE), 1234)),
    "gzip": lambda: gzip.GzipFile(fileobj=io.BytesIO(gzip.compress(WIRE, 1))),
}


@pytest.mark.parametrize("kind", MEMORY)
def test_sources(kind: str) -> None:
    out, err = bytearray(), bytearray()
    assert copy(MEMORY[kind](), out, err) == COPIED
    assert (out, err) == (OUT, ERR)
    assert [(stream, bytes(payload)) for stream, payload in frames(MEMORY[kind]())] == FRAMES


def test_paths(tmp_path: Path) -> None:
    path = tmp_path / "stream.bin"
    path.write_bytes(WIRE)
    for source in (path, str(path)):
        assert copy(source, tmp_path / "out", str(tmp_path / "err")) == COPIED
        assert ((tmp_path / "out").read_bytes(), (tmp_path / "err").read_bytes()) == (OUT, ERR)
        assert sum(len(frame) for frame in frames(source)) == len(OUT) + len(ERR)
    with path.open("rb") as file, path.open("rb", buffering=0) as raw:
        for opened in (file, raw):
            assert copy(opened, None) == COPIED
        raw.seek(0)
        assert copy(raw.fileno(), None) == COPIED
    with path.open("r+b") as writable, mmap.mmap(writable.fileno(), 0) as memory:
        assert copy(memory, None) == COPIED
        assert sum(1 for _ in frames(memory)) == len(FRAMES)


@POSIX
def test_paths_leave_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "stream.bin"
    path.write_bytes(WIRE + b"\x99")
    before = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else 0
    for _ in range(20):
        with pytest.raises(UnknownStreamError):
            copy(path, tmp_path / "out", tmp_path / "err")
        with pytest.raises(UnknownStreamError):
            list(frames(path))
        next(frames(path))
        with pytest.raises(TypeError):
            copy(path, tmp_path / "out", object())
    gc.collect()  # errors that were caught refer to the frames they came through
    assert before == (len(os.listdir("/proc/self/fd")) if before else 0)


@POSIX
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("read", ["copy", "frames"])
def test_pipes(blocking: bool, read: str) -> None:
    source, thread = pipe_source(blocking=blocking)
    try:
        if read == "copy":
            assert copy(source, None, err := bytearray()) == COPIED
            assert err == ERR
        else:
            assert [(stream, bytes(payload)) for stream, payload in frames(source)] == FRAMES
    finally:
        thread.join()
        os.close(source)


@POSIX
def test_non_blocking_raw_file() -> None:
    source, thread = pipe_source(blocking=False)
    with open(source, "rb", buffering=0) as raw:
        assert copy(raw, out := bytearray()) == COPIED
    thread.join()
    assert out == OUT


def test_non_blocking_without_a_descriptor() -> None:
    class Plain:
        def read(self, size: int) -> None:
            return None

    with pytest.raises(BlockingIOError):
        copy(Plain(), None)


@pytest.mark.parametrize("timeout", [None, 0, 30])
def test_sockets(timeout: float | None) -> None:
    source, thread = socket_source(timeout=timeout)
    with source:
        assert copy(source, out := bytearray(), err := bytearray()) == COPIED
    thread.join()
    assert (out, err) == (OUT, ERR)


def test_socket_file_object() -> None:
    source, thread = socket_source(timeout=None)
    with source, source.makefile("rb") as file:
        assert copy(file, out := bytearray()) == COPIED
    thread.join()
    assert out == OUT


def tls_pair(tmp_path: Path) -> tuple[ssl.SSLSocket, ssl.SSLSocket]:
    """Make a connected pair of TLS sockets with a certificate made on the spot."""
    key, cert = tmp_path / "key.pem", tmp_path / "cert.pem"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=localhost"]
    try:
        subprocess.run([*command, "-keyout", key, "-out", cert], check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.create_default_context(cafile=str(cert))
    server.load_cert_chain(cert, key)
    ours, theirs = socket.socketpair()
    accepted: list[ssl.SSLSocket] = []
    thread = threading.Thread(daemon=True, target=lambda: accepted.append(server.wrap_socket(theirs, server_side=True)))
    thread.start()
    connected = client.wrap_socket(ours, server_hostname="localhost")
    thread.join()
    return connected, accepted[0]


@pytest.mark.parametrize("blocking", [True, False])
def test_tls(tmp_path: Path, blocking: bool) -> None:
    """A TLS socket as source and as sink, over which the stream is multiplexed again."""
    source, theirs = tls_pair(tmp_path)
    source.setblocking(blocking)
    with source, theirs:

        def send() -> None:
            theirs.sendall(WIRE)
            if blocking:
                theirs.unwrap()
            else:
                theirs.close()

        thread = threading.Thread(daemon=True, target=send)
        thread.start()
        assert copy(source, out := bytearray(), err := bytearray()) == COPIED
        assert (out, err) == (OUT, ERR)
        if blocking:
            source.unwrap()
        thread.join()


def test_tls_sink(tmp_path: Path) -> None:
    sink, theirs = tls_pair(tmp_path)
    sink.setblocking(False)
    with sink, theirs:
        received = bytearray()
        thread = threading.Thread(daemon=True, target=_receive, args=(theirs, received, len(OUT)))
        thread.start()
        assert copy(WIRE, sink) == COPIED
        thread.join()
    assert received == OUT


def _receive(sock: socket.socket, received: bytearray, size: int) -> None:
    while len(received) < size:
        received += sock.recv(4096)


def test_source_that_fails_after_delivery() -> None:
    def source() -> Any:
        yield WIRE[:100_000]
        raise ConnectionResetError(errno.ECONNRESET, "reset")

    expected = oracle.decode(WIRE[:100_000])
    with pytest.raises(ConnectionResetError):
        copy(source(), out := bytearray(), err := bytearray())
    assert (out, err) == (expected.stdout, expected.stderr)


def test_timeout_is_no_end_and_copy_goes_on() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.05)
        theirs.sendall(WIRE[:11])
        demuxer = Demuxer()
        with pytest.raises(TimeoutError):
            copy(ours, out := bytearray(), err := bytearray(), demuxer=demuxer)
        thread = feed_in_background(theirs.send, theirs.close, WIRE[11:])
        ours.settimeout(30)
        copy(ours, out, err, demuxer=demuxer)
        thread.join()
    assert (out, err) == (OUT, ERR)


def test_sources_that_return_more_than_asked() -> None:
    class Raw(io.RawIOBase):
        def readinto(self, buffer: Any) -> int:
            return len(buffer) + 1

    class Plain:
        def read(self, size: int) -> bytes:
            return bytes(size + 1)

    for read in (lambda source: copy(source, None), lambda source: list(frames(source))):
        for source in (Raw(), Plain()):
            with pytest.raises(ValueError, match="source returned 262145 bytes where 262144 were asked for"):
                read(source)


def test_source_that_returns_text() -> None:
    class Plain:
        def read(self, size: int) -> str:
            return "text"

    with pytest.raises(TypeError, match="bytes-like object, not str"):
        copy(Plain(), None)
    with pytest.raises(TypeError, match="an item of the source must be a bytes-like object, not str"):
        copy(["text"], None)


@pytest.mark.parametrize("source", [None, 5.0, object(), True, io.StringIO("text")])
def test_no_source(source: Any) -> None:
    for read in (lambda: copy(source, None), lambda: frames(source)):
        with pytest.raises(TypeError):
            read()


def test_sources_that_cannot_be_opened(tmp_path: Path) -> None:
    for read in (lambda source: copy(source, None), lambda source: list(frames(source))):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "missing")
        with pytest.raises(ValueError, match="must not be negative"):
            read(-1)
        with pytest.raises(BufferError, match="source is not C-contiguous"):
            read(memoryview(b"12345678")[::2])


def test_source_closed_before_or_after(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(WIRE)
    with path.open("rb") as file:
        pass
    with pytest.raises(ValueError, match="closed file"):
        copy(file, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        copy(2**30, None)


# --- sinks -----------------------------------------------------------------------------------------------------------


class ShortWrites(io.RawIOBase):
    """A raw file that takes a few bytes at a time."""

    def __init__(self) -> None:
        self.taken = bytearray()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        size = min(len(data), 1 + len(self.taken) * 7 % 5000)
        self.taken += data[:size]
        return size


class SaysNothing:
    """An object whose write returns nothing, and which expects bytes."""

    def __init__(self) -> None:
        self.taken = b""

    def write(self, data: bytes) -> None:
        self.taken = self.taken + data


def test_memory_sinks() -> None:
    grown, filled, raw = bytearray(b"before "), bytearray(len(ERR) + 5), array.array("B", bytes(len(OUT)))
    assert copy(WIRE, grown, memoryview(filled)) == COPIED
    assert grown == b"before " + OUT
    assert filled == ERR + bytes(5)
    assert copy(WIRE, raw, None) == COPIED
    assert raw.tobytes() == OUT
    with mmap.mmap(-1, len(OUT)) as memory:
        copy(WIRE, memory)
        assert memory[:] == OUT


def test_file_sinks(tmp_path: Path) -> None:
    short, silent, plain = ShortWrites(), SaysNothing(), io.BytesIO()
    assert copy(WIRE, short, silent) == COPIED
    assert (short.taken, silent.taken) == (OUT, ERR)
    assert copy(WIRE, plain) == COPIED
    assert plain.getvalue() == OUT
    with open(tmp_path / "buffered", "wb") as buffered, open(tmp_path / "raw", "wb", buffering=0) as unbuffered:
        assert copy(WIRE, buffered, unbuffered) == COPIED
        assert (tmp_path / "buffered").read_bytes() == OUT, "flushed before copy returns"
    assert (tmp_path / "raw").read_bytes() == ERR
    with gzip.open(tmp_path / "zipped", "wb") as zipped:
        copy(WIRE, zipped)
    assert gzip.decompress((tmp_path / "zipped").read_bytes()) == OUT


def test_callables_and_tees() -> None:
    pieces: list[bytes] = []
    copy(WIRE, pieces.append)
    assert all(type(piece) is bytes for piece in pieces)
    assert b"".join(pieces) == OUT
    one, two = bytearray(), io.BytesIO()
    assert copy(WIRE, (one, [two, None])) == COPIED
    assert one == two.getvalue() == OUT


@pytest.mark.parametrize(
    "sinks", [lambda path: ([path], path), lambda path: ([path, path], None), lambda path: ((path,), [path])]
)
def test_a_path_twice_among_tees(sinks: Any, tmp_path: Path) -> None:
    path = tmp_path / "out"
    path.write_bytes(b"before")
    with pytest.raises(ValueError, match="a path is given twice"):
        copy(WIRE, *sinks(path))
    assert path.read_bytes() == b"before"
    assert copy(WIRE, [os.devnull, os.devnull], [os.devnull]) == COPIED


@POSIX
@pytest.mark.parametrize("blocking", [True, False])
@pytest.mark.parametrize("kind", ["descriptor", "raw", "buffered", "socket"])
def test_slow_readers(kind: str, blocking: bool) -> None:
    """A full pipe or socket is waited for, blocking or not."""
    ours: Any
    theirs: Any
    ours, theirs = socket.socketpair() if kind == "socket" else os.pipe()[::-1]
    received = bytearray()

    def drain() -> None:
        while piece := (theirs.recv(5000) if kind == "socket" else os.read(theirs, 5000)):
            received.extend(piece)
            time.sleep(0.0001)

    thread = threading.Thread(daemon=True, target=drain)
    thread.start()
    if kind == "socket":
        ours.setblocking(blocking)
        sink: Any = ours
    else:
        os.set_blocking(ours, blocking)
        buffering = 0 if kind == "raw" else 8192
        sink = ours if kind == "descriptor" else open(ours, "wb", buffering=buffering)  # noqa: SIM115
    assert copy(WIRE, sink) == COPIED
    os.close(sink) if isinstance(sink, int) else sink.close()
    thread.join()
    theirs.close() if kind == "socket" else os.close(theirs)
    assert received == OUT


def test_same_sink_twice_keeps_wire_order(tmp_path: Path) -> None:
    merged = b"".join(payload for _, payload in FRAMES)
    grown, plain, path = bytearray(), io.BytesIO(), tmp_path / "merged"
    assert copy(WIRE, grown, grown) == COPIED
    assert copy(WIRE, plain, plain) == COPIED
    assert grown == plain.getvalue() == merged
    for stdout, stderr in ((str(path), str(path)), (path, tmp_path / "x" / ".." / "merged")):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert copy(WIRE, stdout, stderr) == COPIED
        assert path.read_bytes() == merged
    with open(path, "wb") as file, open(path, "ab", buffering=0) as same_file:
        copy(WIRE, file.fileno(), file.fileno())
        assert path.read_bytes() == merged
        copy(pack(1, b"a") + pack(2, b"b"), same_file, same_file)


def test_observable_order_is_kept() -> None:
    seen: list[tuple[str, bytes]] = []
    copy(WIRE, lambda data: seen.append(("out", data)), lambda data: seen.append(("err", data)))
    assert b"".join(data for _, data in seen) == b"".join(payload for _, payload in FRAMES)
    assert b"".join(data for name, data in seen if name == "err") == ERR


def test_live_output_is_not_held_back() -> None:
    """What has been read is delivered before more is waited for, through buffered files too."""
    reading, writing = os.pipe()
    ours, theirs = socket.socketpair()
    with ours, theirs, open(writing, "wb") as sink:
        thread = threading.Thread(daemon=True, target=copy, args=(ours, sink))
        thread.start()
        theirs.sendall(pack(1, b"$ ") + pack(1, b"", size=100))
        assert os.read(reading, 100) == b"$ "
        theirs.sendall(b"par")
        assert os.read(reading, 100) == b"par"
        theirs.sendall(b"x" * 97)
        theirs.close()
        thread.join()
    os.close(reading)


@pytest.mark.parametrize("sink", [5.0, object(), True, io.StringIO()])
def test_no_sink(sink: Any) -> None:
    with pytest.raises(TypeError):
        copy(WIRE, sink)
    with pytest.raises(TypeError):
        copy(WIRE, None, sink)


def test_sinks_that_are_refused() -> None:
    with pytest.raises(BufferError, match="stderr is read-only"):
        copy(WIRE, None, memoryview(b"123"))
    with pytest.raises(BufferError, match="stdout is not C-contiguous"):
        copy(WIRE, memoryview(bytearray(10))[::2])
    with pytest.raises(ValueError, match="must not be negative"):
        copy(WIRE, -5)


def test_source_is_not_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    path.write_bytes(WIRE)
    (tmp_path / "link").symlink_to(path)
    for sinks, name in (((path, None), "stdout"), ((None, str(tmp_path / "link")), "stderr")):
        with pytest.raises(ValueError, match=f"source and {name} are the same file"):
            copy(path, *sinks)
    assert path.read_bytes() == WIRE


# --- between descriptors ---------------------------------------------------------------------------------------------


def pour(wire: bytes, out: Any, err: Any, *, step: int = 3001, **options: Any) -> Copied:
    """Copy from a pipe that gets step bytes at a time."""
    reading, writing = os.pipe()

    def write(data: memoryview) -> int:
        return os.write(writing, data[:step])

    thread = feed_in_background(write, lambda: os.close(writing), wire)
    try:
        return copy(reading, out, err, **options)
    finally:
        while thread.is_alive() and os.read(reading, 1 << 20):  # let the writer end after an error
            pass
        thread.join()
        os.close(reading)


@POSIX
@pytest.mark.parametrize("step", [1, 7, 3001, 1 << 20])
@pytest.mark.parametrize("delay", [0.0, 0.0005])
def test_descriptors_to_files(tmp_path: Path, step: int, delay: float) -> None:
    frames, wire, copied = (FRAMES[:9], oracle_wire(FRAMES[:9]), None) if step < 10 else (FRAMES, WIRE, COPIED)
    with open(tmp_path / "out", "wb", buffering=0) as out:
        done = pour(wire, out, tmp_path / "err", step=step, delay=delay)
    assert copied in (None, done)
    assert done.frames == len(frames)
    assert (tmp_path / "out").read_bytes() == b"".join(data for stream, data in frames if stream != 2)
    assert (tmp_path / "err").read_bytes() == b"".join(data for stream, data in frames if stream == 2)


def oracle_wire(frames: list[tuple[int, bytes]]) -> bytes:
    return b"".join(pack(*frame) for frame in frames)


@POSIX
def test_descriptors_keep_the_order_into_one_pipe() -> None:
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    received = bytearray()

    def drain() -> None:
        while piece := os.read(reading, 999):
            received.extend(piece)

    thread = threading.Thread(daemon=True, target=drain)
    thread.start()
    assert pour(WIRE, writing, writing) == COPIED
    os.close(writing)
    thread.join()
    os.close(reading)
    assert received == b"".join(payload for _, payload in FRAMES)


@POSIX
def test_sockets_to_sockets() -> None:
    source, thread = socket_source(timeout=None)
    ours, theirs = socket.socketpair()
    received = bytearray()
    drain = threading.Thread(daemon=True, target=_receive, args=(theirs, received, len(OUT)))
    drain.start()
    with source, ours, theirs:
        assert copy(source, ours, None) == COPIED
        drain.join()
    thread.join()
    assert received == OUT


@POSIX
@pytest.mark.parametrize("name", ["unknown stream", "reserved", "truncated header", "truncated payload", "systemerr"])
def test_bad_wire_between_descriptors(name: str, tmp_path: Path) -> None:
    tail, kind, text = BAD[name]
    partial = b"part" if name == "truncated payload" else b""
    for step in (1000, 1 << 20):
        with pytest.raises(kind, match=text) as caught:
            pour(WIRE + tail, tmp_path / "out", tmp_path / "err", step=step)
        assert (tmp_path / "out").read_bytes() == OUT + partial
        assert (tmp_path / "err").read_bytes() == ERR
        assert caught.value.offset == len(WIRE)
        assert caught.value.delivered == Copied(len(OUT) + len(partial), len(ERR), len(FRAMES))


@POSIX
@pytest.mark.parametrize("size", [10, 65536, 100_000])
def test_systemerr_in_pieces_between_descriptors(size: int, tmp_path: Path) -> None:
    with pytest.raises(DaemonError) as caught:
        pour(pack(1, b"before") + pack(3, b"e" * size), tmp_path / "out", None, step=9)
    assert caught.value.message == "e" * min(size, 65536)
    assert (tmp_path / "out").read_bytes() == b"before"


@POSIX
@pytest.mark.parametrize("which", [0, 1])
def test_failed_descriptor_can_be_replaced(which: int, tmp_path: Path) -> None:
    """A pipe whose reader leaves: what it took, what comes with the error and the next copy are the whole stream."""
    reading, writing = os.pipe()
    source, thread = pipe_source(blocking=True)
    taken = bytearray()

    def leave() -> None:
        while len(taken) < 100_000:
            taken.extend(os.read(reading, 5000))
        os.close(reading)

    leaver = threading.Thread(daemon=True, target=leave)
    leaver.start()
    demuxer = Demuxer()
    good = tmp_path / "good"
    with pytest.raises(SinkError) as caught:
        copy(source, *((writing, good) if which == 0 else (good, writing)), demuxer=demuxer)
    leaver.join()
    os.close(writing)
    error = caught.value
    assert error.sink == ("stdout", "stderr")[which]
    assert error.delivered[1 - which] == good.stat().st_size
    rest = [bytearray(), bytearray()]
    for stream, payload in error.undelivered:
        rest[stream >> 1] += payload
    copy(source, *rest, demuxer=demuxer)
    thread.join()
    os.close(source)
    whole = (OUT, ERR)
    assert good.read_bytes() + rest[1 - which] == whole[1 - which]
    assert whole[which].startswith(taken)
    assert error.delivered[which] >= len(taken), "what the pipe held when its reader left is lost with it"
    assert whole[which][error.delivered[which] :] == rest[which]


@POSIX
def test_descriptor_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    with pytest.raises(OSError, match="Bad file descriptor") as caught:
        copy(writing, None, None)
    assert not isinstance(caught.value, SinkError)
    os.write(writing, pack(2, b"x"))
    with pytest.raises(SinkError, match="Bad file descriptor"):
        copy(reading, None, reading)
    os.close(reading)
    os.close(writing)
    with pytest.raises(IsADirectoryError):
        copy(tmp_path, None, None)


@POSIX
def test_delay_gathers_but_does_not_hold_back() -> None:
    """A byte that comes alone is through long before an absurd delay."""
    reading, writing = os.pipe()
    theirs, ours = os.pipe()
    thread = threading.Thread(daemon=True, target=copy, args=(reading, ours, None), kwargs={"delay": 3})
    thread.start()
    start = time.monotonic()
    os.write(writing, pack(1, b"a"))
    assert os.read(theirs, 100) == b"a"
    assert time.monotonic() - start < 2.5
    for piece in (b"b", b"c", b"d"):
        os.write(writing, pack(1, piece))
    os.close(writing)
    seen = b""
    while len(seen) < 3:
        seen += os.read(theirs, 100)
    assert seen == b"bcd"
    thread.join()
    for descriptor in (reading, theirs, ours):
        os.close(descriptor)


# --- sinks that fail -------------------------------------------------------------------------------------------------


class FailsAt(io.RawIOBase):
    """Takes some bytes, then fails."""

    def __init__(self, room: int, error: Exception) -> None:
        self.taken = bytearray()
        self._room = room
        self._error = error

    def write(self, data: Any) -> int:
        size = min(len(data), self._room - len(self.taken))
        if not size and len(data):
            raise self._error
        self.taken += data[:size]
        return size


@pytest.mark.parametrize("room", [0, 1, 5000, 300_000, 600_000])
@pytest.mark.parametrize("which", ["stdout", "stderr"])
@pytest.mark.parametrize("step", [1 << 30, 10_000])
def test_resuming_after_a_failed_sink(room: int, which: str, step: int) -> None:
    """What both sinks took, what comes with the error, and what a second copy brings are the whole stream."""
    failing = FailsAt(room, OSError(errno.ENOSPC, "No space left on device"))
    other = bytearray()
    sinks: tuple[Any, Any] = (failing, other) if which == "stdout" else (other, failing)
    source = iter([WIRE[i : i + step] for i in range(0, len(WIRE), step)])
    demuxer = Demuxer()
    with pytest.raises(SinkError) as caught:
        copy(source, *sinks, demuxer=demuxer)
    error = caught.value
    assert (error.sink, error.errno, error.strerror) == (which, errno.ENOSPC, "No space left on device")
    assert isinstance(error.__cause__, OSError)
    sizes = (len(failing.taken), len(other)) if which == "stdout" else (len(other), len(failing.taken))
    assert error.delivered[:2] == sizes
    out, err = (failing.taken, other) if which == "stdout" else (other, failing.taken)
    for stream, payload in error.undelivered:
        assert isinstance(stream, Stream)
        if stream == Stream.STDERR:
            err += payload
        else:
            out += payload
    copy(source, out, err, demuxer=demuxer)
    assert (out, err) == (OUT, ERR)


def test_full_buffer() -> None:
    filled = bytearray(10)
    with pytest.raises(SinkError, match="the buffer of 10 bytes is full") as caught:
        copy(pack(1, b"12345") * 3, memoryview(filled))
    assert filled == b"1234512345"
    assert caught.value.delivered.stdout_size == 10
    assert caught.value.undelivered == [(Stream.STDOUT, b"12345")]
    assert isinstance(caught.value.__cause__, BufferError)


def test_fault_behind_a_failed_sink_is_raised_by_the_next_copy() -> None:
    demuxer = Demuxer()
    with pytest.raises(SinkError) as caught:
        wire = pack(1, b"123") + pack(2, b"x") + pack(1, b"4") + b"\x99"
        copy(wire, memoryview(bytearray(2)), print, demuxer=demuxer)
    assert [(s, bytes(p)) for s, p in caught.value.undelivered] == [(1, b"3"), (2, b"x"), (1, b"4")]
    with pytest.raises(UnknownStreamError):
        copy(b"", None, demuxer=demuxer)


@POSIX
@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_closed_reader(kind: str) -> None:
    if kind == "pipe":
        reading, sink = os.pipe()
        os.close(reading)
    else:
        ours, theirs = socket.socketpair()
        theirs.close()
        sink = ours.fileno()
    with pytest.raises(SinkError) as caught:
        copy(WIRE, None, sink)
    assert isinstance(caught.value.__cause__, BrokenPipeError)
    assert caught.value.sink == "stderr"
    os.close(sink) if kind == "pipe" else ours.close()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("buffering", [-1, 0])
def test_full_device(buffering: int) -> None:
    file = open("/dev/full", "wb", buffering=buffering)  # noqa: SIM115
    with pytest.raises(SinkError) as caught:
        copy(pack(1, b"x"), file)
    assert caught.value.errno == errno.ENOSPC
    with pytest.raises(OSError, match="No space") if buffering else _nothing():
        file.close()


def _nothing() -> Any:
    import contextlib

    return contextlib.nullcontext()


def test_disk_full(tmp_path: Path) -> None:
    """A real file system of 64 KiB: delivered is what lies on it."""
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", tmp_path], capture_output=True).returncode:
        pytest.skip("mounting a tmpfs is not permitted")
    try:
        with pytest.raises(SinkError) as caught:
            copy(WIRE, tmp_path / "out", None)
        assert caught.value.errno == errno.ENOSPC
        assert caught.value.delivered.stdout_size == (tmp_path / "out").stat().st_size == 65536
        assert (tmp_path / "out").read_bytes() == OUT[:65536]
    finally:
        subprocess.run(["umount", tmp_path], check=True)


def test_sink_used_after_close() -> None:
    sink = io.BytesIO()
    sink.close()
    with pytest.raises(SinkError, match="closed file"):
        copy(WIRE, sink)


@pytest.mark.parametrize("answer", [-1, 10, "many"])
def test_sink_that_lies(answer: Any) -> None:
    class Liar(io.RawIOBase):
        def write(self, data: Any) -> Any:
            return answer

    with pytest.raises(SinkError) as caught:
        copy(pack(1, b"abc"), Liar())
    assert isinstance(caught.value.__cause__, (TypeError, ValueError))
    assert caught.value.delivered.stdout_size == 0


def test_callable_that_raises() -> None:
    def refuse(data: bytes) -> None:
        raise KeyError("mine")

    with pytest.raises(SinkError) as caught:
        copy(WIRE, refuse)
    assert isinstance(caught.value.__cause__, KeyError)


def test_tee_counts_what_all_have_taken() -> None:
    first, second = bytearray(), memoryview(bytearray(4))
    with pytest.raises(SinkError) as caught:
        copy(pack(1, b"123456"), (first, second))
    assert caught.value.delivered.stdout_size == 4
    assert caught.value.undelivered == [(1, b"56")]


# --- bad wire --------------------------------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, Any, str]] = {
    "unknown stream": (b"\x04\0\0\0\0\0\0\0", UnknownStreamError, "unrecognized stream: 4 at offset"),
    "stream 255": (b"\xff", UnknownStreamError, "unrecognized stream: 255 at offset"),
    "reserved": (b"\x01\0\x09\0\0\0\0\0", ReservedBytesError, "reserved header bytes are not zero: 00 09 00 at offset"),
    "truncated header": (b"\x01\0\0\0\0", TruncatedStreamError, "ends inside a header: 3 of 8 bytes missing"),
    "truncated payload": (pack(1, b"part", size=9), TruncatedStreamError, "inside a payload: 5 of 9 bytes missing"),
    "4 GiB": (pack(2, b"part", size=0xFFFF_FFFF), TruncatedStreamError, "4294967291 of 4294967295 bytes missing"),
    "systemerr": (pack(3, b"oh dear"), DaemonError, "error from daemon in stream: oh dear"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_wire_after_good(name: str) -> None:
    """What came before is delivered, then the typed error with its offset; partial payload is delivered, too."""
    tail, kind, text = BAD[name]
    partial = b"part" if name in ("truncated payload", "4 GiB") else b""
    on_stderr = name == "4 GiB"
    with pytest.raises(kind, match=text) as caught:
        copy([WIRE, tail], out := bytearray(), err := bytearray())
    assert out == OUT + (b"" if on_stderr else partial)
    assert err == ERR + (partial if on_stderr else b"")
    assert caught.value.offset == len(WIRE)
    assert caught.value.delivered == Copied(len(out), len(err), len(FRAMES))
    collected = []
    with pytest.raises(kind, match=text) as caught:
        for frame in frames([WIRE, tail], max_frame_size=None):
            collected.append((frame.stream, bytes(frame)))
    assert collected == FRAMES
    assert caught.value.offset == len(WIRE)


def test_bad_wire_at_the_beginning() -> None:
    for wire, text in (
        (b"root@f00:/# ls\r\n", r"unrecognized stream: 114 at offset 0; this looks like a raw \(TTY\) stream"),
        (b"$", r"unrecognized stream: 36 at offset 0; this looks like a raw \(TTY\) stream"),
        (b'{"message":"no such container"}', "this looks like a JSON error body"),
    ):
        for read in (lambda: copy(wire, None), lambda: list(frames(wire))):  # noqa: B023
            with pytest.raises(UnknownStreamError, match=text):
                read()


def test_empty_source() -> None:
    assert copy(b"", bytearray(), bytearray()) == (0, 0, 0)
    assert copy(io.BytesIO(), None) == (0, 0, 0)
    assert copy([], None) == (0, 0, 0)
    assert list(frames(b"")) == list(frames([b"", b""])) == []


def test_truncated_on_request() -> None:
    partial = WIRE + pack(1, b"part", size=9)
    assert copy(partial, out := bytearray(), truncated="ignore") == (len(OUT) + 4, len(ERR), 200)
    assert out == OUT + b"part"
    assert copy(WIRE + b"\1\0", None, truncated="ignore") == COPIED
    assert len(list(frames(partial, truncated="ignore"))) == 200
    with pytest.raises(UnknownStreamError):
        copy(WIRE + b"\x99", None, truncated="ignore")
    with pytest.raises(DaemonError):
        copy(WIRE + pack(3, b"x", size=9), None, truncated="ignore")


def test_cap() -> None:
    with pytest.raises(FrameTooLargeError) as caught:
        copy(WIRE, None, max_frame_size=39_999)
    assert caught.value.size == 40_000
    assert copy(WIRE, None, max_frame_size=40_000) == COPIED
    with pytest.raises(ValueError, match="truncated must be"):
        copy(WIRE, None, truncated="perhaps")  # type: ignore[arg-type]


# --- memory, signals -------------------------------------------------------------------------------------------------

GIANT = """
import resource, sys, muxframe
def source():
    yield b"\\x01\\0\\0\\0\\x40\\0\\0\\0"
    block = bytes(1 << 20)
    for _ in range(1024):
        yield block
def peak():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))
before = peak()
copied = muxframe.copy(source(), sys.argv[1])
assert copied == (1 << 30, 0, 1), copied
print(peak() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_frame_of_1_gib_takes_8_mib_at_most() -> None:
    done = subprocess.run([sys.executable, "-c", GIANT, os.devnull], capture_output=True, text=True, check=True)
    assert int(done.stdout) <= 8 * 1024, done.stdout


INTERRUPTED = """
import os, signal, sys, muxframe
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job is started with it ignored
signal.signal(signal.SIGUSR1, lambda *_: print("handled", flush=True))
print("ready", flush=True)
try:
    muxframe.copy(0, None)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""


@POSIX
def test_signals_while_waiting() -> None:
    """A handler runs in the middle of a wait, which then goes on; ctrl-C ends it."""
    command = [sys.executable, "-c", INTERRUPTED]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        os.write(process.stdin.fileno(), pack(1, b"x" * 100, size=1000))
        assert process.stdout.readline() == "ready\n"
        time.sleep(0.3)  # it waits by now
        process.send_signal(signal.SIGUSR1)
        assert process.stdout.readline() == "handled\n"
        time.sleep(0.3)  # and again
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == "interrupted\n"
        process.stdin.close()
        assert process.wait() == 0


def test_what_was_received_before_counts(tmp_path: Path) -> None:
    """A session has received some with the head of an answer; the rest goes between descriptors."""
    ours, theirs = socket.socketpair()
    with ours, theirs, (tmp_path / "out").open("wb", 0) as out, (tmp_path / "err").open("wb", 0) as err:
        theirs.sendall(pack(1, b"later") + pack(2, b"oh no"))
        theirs.shutdown(socket.SHUT_WR)
        source = open_source(ours)
        source.received = memoryview(pack(1, b"first, ") + pack(2, b"well, "))
        waiting = deque([(Stream.STDERR, b"decoded, "), (Stream.STDOUT, b"decoded, ")])
        assert copy_on(source, Demuxer(), out, err, waiting=waiting) == Copied(21, 20, 4)
    assert not waiting
    assert (tmp_path / "out").read_bytes() == b"decoded, first, later"
    assert (tmp_path / "err").read_bytes() == b"decoded, well, oh no"


def test_decoded_payload_that_a_sink_refuses_is_kept() -> None:
    def refuse(payload: bytes) -> None:
        raise OSError(errno.ENOSPC, "full")

    waiting = deque([(Stream.STDOUT, b"one"), (Stream.STDERR, b"two"), (Stream.STDOUT, b"three")])
    with pytest.raises(SinkError) as caught:
        copy_on(open_source(b""), Demuxer(), bytearray(), refuse, waiting=waiting)
    assert caught.value.delivered == Copied(3, 0, 0)
    assert caught.value.undelivered == [(Stream.STDERR, b"two")]
    assert list(waiting) == [(Stream.STDOUT, b"three")]
