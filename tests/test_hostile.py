"""Cases a hostile tester has found, each once a defect."""

from __future__ import annotations

import io
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import oracle
import pytest

import muxframe
from muxframe import Demuxer, Gap, SinkError, UnknownStreamError, copy, frames, recover

pack = oracle.pack
POSIX = pytest.mark.skipif(os.name != "posix", reason="needs POSIX descriptors")


def preloaded(wire: bytes) -> int:
    """Return a pipe's end from which wire can be read, and then the end."""
    reading, writing = os.pipe()
    os.write(writing, wire)
    os.close(writing)
    return reading


# --- copy ------------------------------------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize("leave", ["close", "detach"])
def test_a_closed_socket_is_no_discard(leave: str) -> None:
    ours, theirs = socket.socketpair()
    left = getattr(ours, leave)()
    source = preloaded(pack(1, b"lost?"))
    with pytest.raises(SinkError, match="Bad file descriptor"):
        copy(source, ours, None)
    with pytest.raises(OSError, match="Bad file descriptor"):
        copy(ours, None, None)
    os.close(source)
    theirs.close()
    if left is not None:
        os.close(left)


@pytest.mark.parametrize("delay", [-1.0, float("nan"), float("inf"), 1e10])
def test_delays_that_are_none(delay: float) -> None:
    with pytest.raises(ValueError, match="delay must be"):
        copy(b"", None, delay=delay)
    with pytest.raises(TypeError):
        copy(b"", None, delay="x")  # type: ignore[arg-type]


def test_a_source_is_never_emptied(tmp_path: Path) -> None:
    path = tmp_path / "stream"
    wire = pack(1, b"precious")
    path.write_bytes(wire)
    keep = tmp_path / "keep"
    keep.write_bytes(b"kept")
    with path.open("rb") as opened, path.open("rb", buffering=0) as raw:
        pairs: list[Any] = [(path, [path]), (opened, path), (raw, path), (raw.fileno(), str(path)), (path, ([path],))]
        for source, stdout in pairs:
            with pytest.raises(ValueError, match="source and stdout are the same file"):
                copy(source, stdout)
    with pytest.raises(TypeError):
        copy(path, keep, 3.5)
    assert path.read_bytes() == wire
    assert keep.read_bytes() == b"kept"


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs /dev/null")
def test_nothing_to_nothing() -> None:
    assert copy("/dev/null", "/dev/null", "/dev/null") == (0, 0, 0)


def test_read1_comes_before_a_readinto_that_waits() -> None:
    """An HTTP response has a readinto that fills the whole buffer, and a read1 that gives what is there."""

    class Response(io.IOBase):
        def __init__(self) -> None:
            self.rest = [pack(1, b"now"), b""]

        def read1(self, size: int) -> bytes:
            return self.rest.pop(0)

        def readinto(self, buffer: Any) -> int:
            raise AssertionError("would wait until the buffer is full")

    assert copy(Response(), out := bytearray()) == (3, 0, 1)
    assert out == b"now"


@POSIX
def test_an_end_is_read_once() -> None:
    """A terminal's ctrl-D is one end: reading on would wait for another."""
    theirs, ours = os.openpty()
    import termios
    import tty

    tty.setraw(ours)
    wire = pack(1, b"typed")
    mode = termios.tcgetattr(ours)
    mode[3] |= termios.ICANON
    termios.tcsetattr(ours, termios.TCSANOW, mode)
    with tempfile.TemporaryFile(buffering=0) as sink:
        done: list[Any] = []
        thread = threading.Thread(daemon=True, target=lambda: done.append(copy(ours, sink, None)))
        thread.start()
        os.write(theirs, wire + b"\x04")  # hands over the unfinished line
        time.sleep(0.2)
        os.write(theirs, b"\x04")  # nothing but the end
        thread.join(10)
        assert done == [(5, 0, 1)]
    os.close(theirs)
    os.close(ours)


@POSIX
def test_a_handler_that_raises_while_a_sink_is_waited_for_loses_nothing() -> None:
    payload = random.Random(1).randbytes(1_000_000)
    source_end, feed_end = os.pipe()
    reading, writing = os.pipe()
    wire = pack(1, payload)

    def feed() -> None:
        with open(feed_end, "wb") as file:
            file.write(wire)

    threading.Thread(daemon=True, target=feed).start()

    def late(*_: object) -> None:
        raise TimeoutError("too slow")

    demuxer = Demuxer()
    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        with pytest.raises(SinkError) as caught:
            copy(source_end, writing, None, demuxer=demuxer)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert isinstance(caught.value.__cause__, TimeoutError)
    received = bytearray()

    def drain() -> None:
        while piece := os.read(reading, 65536):
            received.extend(piece)

    thread = threading.Thread(daemon=True, target=drain)
    thread.start()
    for _, part in caught.value.undelivered:
        os.write(writing, part)
    copy(source_end, writing, None, demuxer=demuxer)
    os.close(writing)
    thread.join(30)
    assert received == payload
    os.close(source_end)
    os.close(reading)


@POSIX
def test_a_demuxer_that_takes_no_more_costs_the_source_nothing() -> None:
    source = preloaded(pack(1, b"x"))
    spent, failed = Demuxer(), Demuxer()
    spent.feed_eof()
    with pytest.raises(UnknownStreamError):
        failed.feed(b"\x99")
    with pytest.raises(ValueError, match="feed after feed_eof"):
        copy(source, None, demuxer=spent)
    with pytest.raises(UnknownStreamError):
        copy(source, None, demuxer=failed)
    with pytest.raises(TypeError, match="demuxer must be"):
        copy(source, None, demuxer=5)  # type: ignore[arg-type]
    assert os.read(source, 100) == pack(1, b"x")
    os.close(source)


def test_buffered_sinks_are_flushed_before_a_fault(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as sink:
        with pytest.raises(UnknownStreamError) as caught:
            copy(pack(1, b"hello") + b"\x99", sink)
        assert (tmp_path / "out").read_bytes() == b"hello"
        assert caught.value.delivered == (5, 0, 1)


def test_temporary_files_are_files() -> None:
    with tempfile.NamedTemporaryFile() as sink:
        copy(pack(1, b"seen"), sink)
        assert Path(sink.name).read_bytes() == b"seen"
    with tempfile.NamedTemporaryFile("w") as text, pytest.raises(TypeError, match="text file"):
        copy(pack(1, b"x"), text)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_memory_as_a_source_is_not_copied_whole() -> None:
    import mmap
    import tracemalloc

    with mmap.mmap(-1, 1 << 27) as memory:
        memory[:8] = pack(1, b"", size=(1 << 27) - 8)
        tracemalloc.start()
        try:
            assert copy(memory, None).stdout_size == (1 << 27) - 8
            assert tracemalloc.get_traced_memory()[1] < 8 << 20
        finally:
            tracemalloc.stop()


# --- recover ---------------------------------------------------------------------------------------------------------


def test_looking_ahead_skips_nothing() -> None:
    good = pack(1, b"0123456789abcdefg") * 5000
    junk = b"\xff" * 500_000 + pack(1, b"", size=900_000)[:8] + b"\xff" * 24_292
    items = list(recover(pack(1, b"first") + junk + good * 20))
    assert [item for item in items if isinstance(item, Gap)] == [Gap(13, len(junk), items[1].reason)]  # type: ignore[union-attr]


def test_candidates_may_overlap() -> None:
    items = list(recover(b"\xff\xff\1\0\0\0" + 10 * pack(1, b"good line\n"), max_frame_size=32 << 20))
    assert isinstance(items[0], Gap)
    assert (items[0].size, len(items)) == (6, 11)


def test_empty_frames_without_end() -> None:
    wire = pack(1, b"x") + b"\xff" * 3 + pack(1, b"") * 100_000 + b"\xff"
    start = time.process_time()
    assert sum(item.size for item in recover(wire) if isinstance(item, Gap)) == len(wire) - 9
    assert time.process_time() - start < 30
    with pytest.raises(TypeError, match="max_frame_size must be an int"):
        recover(wire, max_frame_size=None)  # type: ignore[arg-type]


# --- the core's memory -----------------------------------------------------------------------------------------------


def test_a_receive_buffer_that_was_resized(core: Any) -> None:
    demuxer = core.Demuxer()
    view = demuxer.get_buffer()
    memory = view.obj
    view.release()
    if not isinstance(memory, bytearray):
        pytest.skip("it is not one that can be resized")
    del memory[8:]
    with pytest.raises(ValueError, match="nbytes is 60008, the buffer has 8"):
        demuxer.buffer_updated(60_008)


def test_numbers_that_lie(core: Any) -> None:
    class Liar(int):
        def __le__(self, other: object) -> bool:
            return True

        __ge__ = __lt__ = __gt__ = __le__

    demuxer = core.Demuxer()
    demuxer.get_buffer()
    try:
        chunks = demuxer.buffer_updated(Liar(1 << 40))
    except ValueError:
        chunks = []
    assert chunks == []


def test_a_frame_is_made_once(core: Any) -> None:
    if core.__name__.endswith("_py"):
        pytest.skip("nothing to free behind a view's back")
    frame = core.Frame.__new__(core.Frame)
    views: list[memoryview] = []

    class Evil:
        def __hash__(self) -> int:
            frame.__init__(1, bytearray(b"A" * 100_000))
            views.append(memoryview(frame))
            return 1

        def __eq__(self, other: object) -> bool:
            return other == 1

    with pytest.raises(TypeError, match="Frame is immutable"):
        frame.__init__(Evil(), b"x")
    assert bytes(views[0]) == b"A" * 100_000


def test_data_that_changes_meanwhile(core: Any) -> None:
    wire = bytearray(pack(1, b"x" * 1000) * 100)

    class Changes:
        calls = 0

        def __bool__(self) -> bool:
            self.calls += 1
            if self.calls > 1:
                wire[:8] = pack(1, b"", size=len(wire) - 8)[:8]
            return True

    try:
        assert set(core.demux(wire, check_reserved=Changes()).stdout) == {ord("x")}
    except BufferError:
        pass


def test_objects_that_were_never_initialised() -> None:
    compiled = pytest.importorskip("muxframe._framing_c", reason="the compiled core was not built")
    assert list(compiled.FrameReader.__new__(compiled.FrameReader)) == []
    assert bytes(compiled.Frame.__new__(compiled.Frame)) == b""
    assert compiled.Demuxer.__new__(compiled.Demuxer).feed(pack(1, b"x")) == [(1, b"x")]
    with pytest.raises(TypeError, match="not initialised"):
        compiled.Pump.__new__(compiled.Pump).run()


@POSIX
@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux's signals to threads")
def test_waiting_for_another_threads_turn_can_be_interrupted() -> None:
    reading, writing = os.pipe()
    shared = frames(reading)
    thread = threading.Thread(daemon=True, target=lambda: next(shared, None))
    thread.start()
    time.sleep(0.2)

    def late(*_: object) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, late)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeoutError):
            next(shared)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        os.close(writing)
        thread.join(30)
        os.close(reading)
    assert muxframe.BACKEND in ("cython", "python")
