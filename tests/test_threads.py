"""Objects shared by threads: nothing lost, nothing twice, nothing but typed errors. With the GIL, and without."""

from __future__ import annotations

import gc
import importlib
import io
import os
import random
import subprocess
import sys
import sysconfig
import threading
import time
from collections import Counter, deque
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
from oracle import pack

import muxframe
from muxframe import DaemonError, FrameWriter, FramingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

IS_FREE_THREADED = bool(sysconfig.get_config_var("Py_GIL_DISABLED"))
HAS_GIL = getattr(sys, "_is_gil_enabled", lambda: True)()
THREADS = 4
BIG = 256 * 1024  # far above what the cores do without giving up the GIL


@pytest.fixture(autouse=True)
def hurry() -> Iterator[None]:
    """Have threads take turns at every opportunity."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-4)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def cores(core: Any) -> Any:
    """All public names of either twin."""
    ending = core.__name__.rpartition("_")[2]
    names: dict[str, Any] = {}
    for name in ("_framing", "_lines", "_batches"):
        names |= vars(importlib.import_module(f"muxframe.{name}_{ending}"))
    return SimpleNamespace(**names)


def together(*works: Callable[[], Any]) -> list[Any]:
    """Run each in a thread, from the same moment; return what they return, or raise the first error."""
    start = threading.Barrier(len(works))
    results: list[Any] = [None] * len(works)
    errors: list[BaseException] = []

    def run(i: int, work: Callable[[], Any]) -> None:
        try:
            start.wait(60)
            results[i] = work()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=each, daemon=True) for each in enumerate(works)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not any(thread.is_alive() for thread in threads), "a thread hangs"
    if errors:
        raise errors[0]
    return results


class Flag:
    """Set while some threads work, for others that watch them."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._lock = threading.Lock()

    def __bool__(self) -> bool:
        return self._workers > 0

    def during(self, work: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            try:
                return work()
            finally:
                with self._lock:
                    self._workers -= 1

        return run


def pieces_of(wire: bytes, sizes: list[int]) -> Callable[[memoryview], int]:
    """Return a readinto that gives wire in pieces of sizes, over and over."""
    position = turn = 0

    def readinto(buffer: memoryview) -> int:
        nonlocal position, turn
        piece = wire[position : position + min(sizes[turn % len(sizes)], len(buffer))]
        turn += 1
        buffer[: len(piece)] = piece
        position += len(piece)
        return len(piece)

    return readinto


# --- the build -------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not IS_FREE_THREADED, reason="this Python has a GIL in any case")
def test_import_leaves_the_gil_disabled() -> None:
    modules = "muxframe, muxframe.aio, muxframe.archive, muxframe.batches, muxframe.engine, muxframe.ingest, sys"
    code = f"import {modules}; print(muxframe.BACKEND, sys._is_gil_enabled())"
    environment = {key: value for key, value in os.environ.items() if key != "PYTHON_GIL"}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, env=environment
    )
    assert done.stdout == f"{muxframe.BACKEND} False\n", done.stderr


def watched(cores: Any, name: str) -> Callable[[], Any]:
    """Return bulk work."""
    wire = b"".join(pack(1 + i % 2, b"x" * 99 + b"\n") for i in range(40_000))
    out, err = bytearray(len(wire)), bytearray(len(wire))
    works: dict[str, Callable[[], Any]] = {
        "demux": lambda: cores.demux(wire),
        "demux_into": lambda: cores.demux_into(wire, out, err),
        "feed_into": lambda: cores.Demuxer().feed_into(wire, out, err),
        "split": lambda: cores.BatchBuilder(max_lines=1_000_000).feed(wire),
        "split raw": lambda: cores.BatchBuilder(max_lines=1_000_000, raw=True).feed(wire),
    }
    return works[name]


@pytest.mark.parametrize("name", ["demux", "demux_into", "feed_into", "split", "split raw"])
def test_bulk_work_holds_no_gil(cores: Any, name: str) -> None:
    """A thread that gives up the GIL whenever it has it runs during the call: nobody would take the GIL away."""
    if cores.Demuxer.__module__.endswith("_py"):
        pytest.skip("the twin is Python")
    work = watched(cores, name)
    sys.setswitchinterval(100)
    ran = 0
    flag = Flag(1)

    def count() -> None:
        nonlocal ran
        while flag:
            ran += 1
            time.sleep(0)

    def run() -> bool:
        for _ in range(100):
            before = ran
            work()
            if ran > before:
                return True
        return False

    assert together(flag.during(run), count)[0]


# --- one Demuxer -----------------------------------------------------------------------------------------------------


def numbered(thread: int, count: int) -> list[bytes]:
    """Return payloads that no other thread has."""
    return [b"%d:%d:" % (thread, i) + b"z" * (i % 60) for i in range(count)]


def test_one_demuxer_fed_in_every_way(cores: Any) -> None:
    demuxer = cores.Demuxer()
    rounds = 10
    flag = Flag(THREADS)

    def feeder(thread: int) -> Callable[[], None]:
        payloads = numbered(thread, 100)
        wire = b"".join(pack(1 + thread % 2, payload) for payload in payloads)
        out, err = bytearray(2 * len(wire)), bytearray(2 * len(wire))
        large = wire * (BIG // len(wire) + 1)
        room = bytearray(len(large))

        def work() -> None:
            for _ in range(rounds):
                assert [bytes(payload) for _, payload in demuxer.feed(wire)] == payloads
                done = demuxer.feed_into(wire, out, err)
                assert done.consumed == len(wire)
                got = err[: done.stderr_size] if thread % 2 else out[: done.stdout_size]
                assert got == b"".join(payloads)
            done = demuxer.feed_into(large, room, room)
            assert done.consumed == len(large)
            totals.append(rounds * 2 * len(wire) + len(large))
            frames.append(rounds * 2 * len(payloads) + len(payloads) * (len(large) // len(wire)))

        return flag.during(work)

    def watch() -> None:
        last = (0, 0)
        while flag:
            now = (demuxer.offset, demuxer.frames)
            assert now[0] >= last[0] and now[1] >= last[1]
            last = now
            time.sleep(1e-4)

    totals: list[int] = []
    frames: list[int] = []
    together(*map(feeder, range(THREADS)), watch)
    assert (demuxer.offset, demuxer.frames) == (sum(totals), sum(frames))
    demuxer.feed_eof()


def test_one_receive_buffer(cores: Any) -> None:
    """Whoever asks first: all get the same memory, and what is written there is what is taken."""
    for number in range(50):
        demuxer = cores.Demuxer()
        views = together(*[demuxer.get_buffer] * THREADS)
        payload = b"%d" % number
        frame = pack(1, payload)
        views[number % THREADS][: len(frame)] = frame
        assert all(bytes(view[: len(frame)]) == frame for view in views)
        together(*[lambda view=view: view.release() for view in views])
        assert demuxer.buffer_updated(len(frame)) == [(1, payload)]


def test_receive_buffer_updated_by_several(cores: Any) -> None:
    demuxer = cores.Demuxer()
    frame = pack(2, b"again")
    demuxer.get_buffer()[: len(frame)] = frame

    def work() -> int:
        return sum(demuxer.buffer_updated(len(frame)) == [(2, b"again")] for _ in range(200))

    assert together(*[work] * THREADS) == [200] * THREADS
    assert demuxer.frames == 200 * THREADS


def test_the_end_comes_between_calls(cores: Any) -> None:
    for _ in range(20):
        demuxer = cores.Demuxer()
        frame = pack(1, b"data")

        def work(demuxer: Any = demuxer, frame: bytes = frame) -> int:
            taken = 0
            try:
                while True:
                    assert demuxer.feed(frame) == [(1, b"data")]
                    taken += 1
            except ValueError as error:
                assert str(error) == "feed after feed_eof"
            return taken

        taken = together(work, work, demuxer.feed_eof)
        assert demuxer.frames == sum(taken[:2])


def test_a_fault_is_everybodys(cores: Any) -> None:
    good, bad = pack(1, b"data"), b"\x07\0\0\0\0\0\0\0"
    for _ in range(20):
        demuxer = cores.Demuxer()

        def work(demuxer: Any = demuxer) -> tuple[int, int]:
            taken = 0
            while True:
                try:
                    demuxer.feed(good)
                except FramingError as fault:
                    return taken, fault.offset
                taken += 1

        def spoil(demuxer: Any = demuxer) -> int:
            with pytest.raises(FramingError) as caught:
                demuxer.feed(bad)
            return int(caught.value.offset)

        *results, offset = together(work, work, spoil)
        assert demuxer.frames == sum(taken for taken, _ in results)
        assert {where for _, where in results} == {offset} == {demuxer.offset}


# --- iterators -------------------------------------------------------------------------------------------------------

SIZES = [[7], [1, 50_000], [4096], [100, 3, 65_536, 1]]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_frame_reader(cores: Any, sizes: list[int]) -> None:
    """While one thread waits for more, in whatever pieces and blocks, others take what is there."""
    rng = random.Random(str(sizes))
    count = 200 if max(sizes) < 100 else 2000
    payloads = [b"%06d" % i + b"." * rng.choice((0, 10, 300, 300)) for i in range(count)]
    if max(sizes) > 100:
        payloads[::500] = [payload + b"!" * 300_000 for payload in payloads[::500]]  # larger than a block
    reader = cores.FrameReader(pieces_of(b"".join(pack(1 + i % 2, each) for i, each in enumerate(payloads)), sizes))

    def work() -> list[tuple[int, bytes]]:
        held = []
        for frame in reader:
            stream, view = frame
            held.append((int(stream), frame, view, bytes(view)))
        assert all(bytes(frame) == bytes(view) == data for _, frame, view, data in held), "payload has changed"
        return [(stream, data) for stream, _, _, data in held]

    got = [each for part in together(*[work] * THREADS) for each in part]
    assert sorted(got, key=lambda each: each[1]) == [(1 + i % 2, each) for i, each in enumerate(payloads)]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_one_line_reader(cores: Any, sizes: list[int]) -> None:
    count = 500 if max(sizes) < 100 else 5000
    wire = b"".join(pack(1, b"%06d" % i + b"-" * (i % 40) + b"\n") for i in range(count))
    reader = cores.LineReader(pieces_of(wire, sizes))

    def work() -> list[int]:
        numbers = []
        for line in reader:
            number = int(line.data[:6])
            assert line.data[6:] == b"-" * (number % 40)
            numbers.append(number)
            assert reader.invalid_timestamps == 0
        return numbers

    assert sorted(number for part in together(*[work] * THREADS) for number in part) == list(range(count))


def test_a_fault_ends_every_iteration(cores: Any) -> None:
    for kind, payload in ((cores.FrameReader, b"x"), (cores.LineReader, b"x\n")):
        for ending, error in ((b"\x07", FramingError), (pack(3, b"broken"), DaemonError), (b"\x01\0\0", FramingError)):
            reader = kind(pieces_of(pack(1, payload) * 500 + ending, [100]))

            def work(reader: Any = reader, error: type[Exception] = error) -> int:
                taken = 0
                with pytest.raises(error):
                    for _ in reader:
                        taken += 1
                return taken

            assert sum(together(*[work] * THREADS)) == 500


def test_one_batch_reader() -> None:
    """The batches of the backend in use: any thread may ask for the next."""
    wire = b"".join(pack(1, b"%06d\n" % i) for i in range(5_000))
    reader = muxframe.batches(io.BytesIO(wire), max_lines=101)

    def work() -> list[int]:
        return [int(row.data) for batch in reader for row in batch]

    assert sorted(number for part in together(*[work] * THREADS) for number in part) == list(range(5_000))


# --- splitters and builders ------------------------------------------------------------------------------------------


def test_one_splitter_and_one_builder(cores: Any) -> None:
    splitter, builder = cores.LineSplitter(), cores.BatchBuilder(max_lines=97)
    flag = Flag(THREADS)
    wires = [[b"%d:%d" % (thread, i) for i in range(100)] for thread in range(THREADS)]

    def feeder(thread: int) -> Callable[[], list[bytes]]:
        wire = pack(1, b"\n".join(wires[thread]) + b"\n")
        large = wire * (BIG // len(wire) + 1)

        def work() -> list[bytes]:
            found = []
            for _ in range(10):
                assert [line.data for line in splitter.feed(wire)] == wires[thread]
                for batch in builder.feed(wire) + builder.flush():
                    found += [row.data for row in batch]
            assert len(splitter.feed(large)) == 100 * (len(large) // len(wire))
            return found

        return flag.during(work)

    def watch() -> None:
        last = (0, 0)
        while flag:
            assert not splitter.flush()
            now = (splitter.offset, builder.offset)
            assert now[0] >= last[0] and now[1] >= last[1]
            assert splitter.invalid_timestamps == builder.invalid_timestamps == 0
            builder.__arrow_c_schema__()
            last = now
            time.sleep(1e-4)

    results = together(*map(feeder, range(THREADS)), watch)
    found = [data for part in results[:-1] for data in part]
    found += [row.data for batch in builder.feed_eof() for row in batch]
    assert Counter(found) == Counter({data: 10 for wire in wires for data in wire})
    assert splitter.feed_eof() == []


def test_one_batch(cores: Any) -> None:
    batch = a_batch(cores, 100)
    expected = [row.data for row in batch]

    def work() -> None:
        for _ in range(50):
            views = [batch.streams, batch.offsets, batch.data, batch.partials]
            assert bytes(views[2]) == b"".join(expected)
            assert len(batch) == len(views[0]) == len(views[1]) - 1 == batch.num_rows
            for view in views[::2]:
                view.release()
            assert batch[17].data == expected[17]

    together(*[work] * THREADS)


def test_capsules_come_and_go(cores: Any) -> None:
    batch = a_batch(cores, 10)

    def work() -> None:
        held: list[Any] = []
        for _ in range(50):
            held.append((batch.__arrow_c_schema__(), batch.__arrow_c_array__(), batch.__arrow_c_stream__()))
            if len(held) > 5:
                held.pop(0)

    together(*[work] * THREADS)


def a_batch(cores: Any, count: int) -> Any:
    builder = cores.BatchBuilder(source="s")
    builder.feed(pack(1, b"".join(b"line %d\n" % i for i in range(count))))
    return builder.flush()[0]


# --- frames and memory -----------------------------------------------------------------------------------------------


def skip_where_python_counts_without_a_lock(cores: Any) -> None:
    """Views of views are counted by CPython, without the GIL in a way that loses count. The twin is made of them."""
    if not HAS_GIL and cores.Demuxer.__module__.endswith("_py"):
        pytest.skip("CPython counts the views of one memory without a lock")


def test_one_frame(cores: Any) -> None:
    """Its memory is let go once, and only when nobody looks any more."""
    skip_where_python_counts_without_a_lock(cores)
    memory = bytearray(b"payload" * 100)
    content = bytes(memory)
    frames = [cores.Frame(1, memory)]
    other = cores.Frame(1, content)

    def work() -> None:
        [frame] = frames
        for _ in range(200):
            with frame.payload as view:
                assert view == content
            assert frame == other and hash(frame) == hash(other) and len(frame) == 700
            stream, view = frame
            assert stream == 1
            held.append(view)
            if len(held) > 50:
                held.popleft().release()

    held: deque[memoryview] = deque()
    together(*[work] * THREADS)
    with pytest.raises(BufferError):
        memory.append(0)
    held.clear()
    frames.clear()
    gc.collect()
    memory.append(0)


def test_one_output(cores: Any) -> None:
    """Several calls into the same memory mix their payload, and no more."""
    skip_where_python_counts_without_a_lock(cores)
    out, err = memoryview(bytearray(BIG)), memoryview(bytearray(BIG))
    wires = [b"".join(pack(1 + i % 2, bytes([65 + thread]) * 500) for i in range(200)) for thread in range(THREADS)]

    def worker(wire: bytes) -> Callable[[], None]:
        def work() -> None:
            for _ in range(10):
                assert cores.demux_into(wire, out, err) == (len(wire), 50_000, 50_000)
                assert cores.Demuxer().feed_into(wire, out, out)[0] == len(wire)

        return work

    together(*map(worker, wires))
    letters = set(range(65, 65 + THREADS))
    assert set(out[:50_000]) <= letters and set(err[:50_000]) <= letters


def test_wire_that_changes(cores: Any) -> None:
    """Whatever another thread writes into the wire meanwhile: nothing is read or written out of bounds."""
    original = b"".join(pack(1 + i % 2, b"x" * (i % 300) + b"\n") for i in range(300))
    skip_where_python_counts_without_a_lock(cores)
    wire = memoryview(bytearray(original))
    out, err = bytearray(len(wire)), bytearray(len(wire))
    flag = Flag(1)

    def spoil() -> None:
        rng = random.Random(0)
        headers = [0]
        while headers[-1] < len(original):
            headers.append(headers[-1] + 8 + int.from_bytes(original[headers[-1] + 4 : headers[-1] + 8], "big"))
        while flag:
            at = rng.choice(headers[:-1]) + 4
            wire[at : at + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\0\0\1\0", b"\0\1\0\0"))
            wire[at : at + 4] = original[at : at + 4]

    def work() -> None:
        for _ in range(20):
            for call in (
                lambda: cores.demux(wire),
                lambda: cores.demux_into(wire, out, err),
                lambda: cores.Demuxer().feed_into(wire, out, err),
                lambda: cores.Demuxer().feed(wire),
                lambda: cores.BatchBuilder().feed(wire),
                lambda: cores.LineSplitter().feed(wire),
            ):
                try:
                    call()
                except (FramingError, DaemonError):
                    pass
                except BufferError as error:
                    assert str(error) == "data was changed during the call"

    together(flag.during(work), spoil)


@pytest.mark.skipif(not HAS_GIL and sys.version_info < (3, 14), reason="bytearray has no lock of its own here")
def test_wire_that_is_resized(cores: Any) -> None:
    """While it is fed a bytearray cannot be resized; before and after it can."""
    wire = bytearray(pack(1, b"x" * 92) * 500)
    flag = Flag(2)

    def resize() -> None:
        while flag:
            for change in (lambda: wire.extend(bytes(100)), lambda: wire.__delitem__(slice(-100, None))):
                try:
                    change()
                except BufferError:
                    pass

    def work() -> None:
        for _ in range(50):
            try:
                chunks = cores.Demuxer().feed(wire)
                assert all(payload == b"x" * 92 for _, payload in chunks[:490])
                cores.Demuxer().feed_into(wire, None, None)
            except FramingError:
                pass

    together(flag.during(work), flag.during(work), resize)


# --- sources and sinks -----------------------------------------------------------------------------------------------


def test_copies_side_by_side() -> None:
    """Between descriptors, each with its own Demuxer, whose counters others may watch."""
    wire = b"".join(pack(1 + i % 2, b"y" * 1000) for i in range(2000))
    flag = Flag(THREADS)
    demuxers = [muxframe.Demuxer() for _ in range(THREADS)]

    def copier(demuxer: muxframe.Demuxer) -> Callable[[], Any]:
        source, end = os.pipe()

        def feed() -> None:
            with open(end, "wb", buffering=0) as file:
                for start in range(0, len(wire), 50_000):
                    file.write(wire[start : start + 50_000])

        def work() -> Any:
            feeder = threading.Thread(target=feed, daemon=True)
            feeder.start()
            try:
                with open(os.devnull, "wb", buffering=0) as sink:
                    return muxframe.copy(source, sink, sink, demuxer=demuxer)
            finally:
                feeder.join(60)
                os.close(source)

        return flag.during(work)

    def watch() -> None:
        last = [0] * THREADS
        while flag:
            now = [demuxer.offset for demuxer in demuxers]
            assert all(a <= b for a, b in zip(last, now))
            last = now
            time.sleep(1e-4)

    results = together(*map(copier, demuxers), watch)
    assert results[:-1] == [(1_000_000, 1_000_000, 2000)] * THREADS
    assert [demuxer.offset for demuxer in demuxers] == [len(wire)] * THREADS


def test_one_writer() -> None:
    """Frames come out whole, also where the sink takes a part at a time."""
    taken = bytearray()

    class Sink:
        def write(self, data: bytes) -> int:
            part = data[: 1 + len(data) // 2]
            taken.extend(part)
            threading.Event().wait(0)  # let others in
            return len(part)

    writer = FrameWriter(Sink(), 1)

    def worker(thread: int) -> Callable[[], None]:
        def work() -> None:
            for i in range(100):
                assert writer.write(b"%d:%d:" % (thread, i) + b"w" * 200) > 200

        return work

    together(*map(worker, range(THREADS)))
    found = [bytes(frame).rstrip(b"w") for frame in muxframe.frames(bytes(taken))]
    assert sorted(found) == sorted(b"%d:%d:" % (thread, i) for thread in range(THREADS) for i in range(100))
    together(*[writer.close] * THREADS)
