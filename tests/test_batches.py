"""Batches: both twins against the oracle of lines, and read by those who know Arrow."""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import io
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import line_oracle
import oracle
import pytest

import muxframe
from muxframe import DaemonError, FramingError, Stream, TruncatedStreamError, aio
from muxframe import _batches_py as python

MODULES: list[Any] = [python]
try:
    MODULES.append(importlib.import_module("muxframe._batches_c"))
except ModuleNotFoundError:
    if os.environ.get("MUXFRAME_BACKEND") == "cython":
        raise

T1 = b"2026-11-21T05:46:37.125648057Z "
N1 = 1_795_239_997_125_648_057
LINE_TYPES = ["large_binary", "large_utf8", "binary_view"]

out, err = functools.partial(oracle.pack, 1), functools.partial(oracle.pack, 2)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition("_")[2])
def core(request: pytest.FixtureRequest) -> Any:
    """Either twin's module."""
    return request.param


def build(core: Any, pieces: Any, **options: Any) -> list[Any]:
    """Feed pieces; return the batches, those in a fault included."""
    builder = core.BatchBuilder(**options)
    batches: list[Any] = []
    try:
        for piece in pieces:
            batches += builder.feed(piece)
        batches += builder.feed_eof()
    except (FramingError, DaemonError) as fault:
        batches += fault.lines
    return batches


def rows(batches: Any) -> list[line_oracle.Row]:
    return [
        (int(line.stream), line.timestamp, line.data, line.partial, line.details) for batch in batches for line in batch
    ]


def by_columns(batch: Any) -> list[tuple[int, Any, bytes, bool]]:
    """Read a batch by its memoryviews."""
    found = []
    valid, timestamps = batch.timestamp_validity, batch.timestamps
    for i in range(batch.num_rows):
        timestamp = None
        if timestamps is not None and (valid is None or valid[i // 8] >> i % 8 & 1):
            timestamp = timestamps[i]
        data = bytes(batch.data[batch.offsets[i] : batch.offsets[i + 1]])
        found.append((batch.streams[i], timestamp, data, batch.partials[i]))
    return found


def as_text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


# --- against the oracle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
def test_random_logs(core: Any, seed: int) -> None:
    rng = random.Random(f"batches/{seed}")
    for _ in range(50):
        kind = {"raw": rng.random() < 0.2, "timestamps": rng.random() < 0.6, "details": rng.random() < 0.4}
        wire = line_oracle.random_log(rng, **kind)
        size = rng.choice((1, 5, 1000))
        expected = line_oracle.split(wire, **kind, max_line_size=size).lines
        max_lines, max_bytes = rng.choice((1, 2, 7, 1000)), rng.choice((1, 10, 100, 10_000))
        limits = {"max_lines": max_lines, "max_bytes": max_bytes, "max_line_size": size}
        batches = build(core, oracle.cuts(wire, rng), **kind, **limits)
        assert rows(batches) == expected
        assert [row[:4] for batch in batches for row in by_columns(batch)] == [row[:4] for row in expected]
        for batch, following in zip(batches, [*batches[1:], None]):
            assert 1 <= len(batch) <= max_lines
            assert len(batch) == 1 or batch.data.nbytes <= max_bytes
            if following is not None:  # it was full
                first = following.offsets[1]
                assert len(batch) == max_lines or batch.data.nbytes + first > max_bytes


def test_many_rows(core: Any) -> None:
    wire = b"".join((err if i % 9 == 0 else out)(T1 + b"%d\n" % i) for i in range(20_000))
    batches = build(core, [wire[i : i + 65536] for i in range(0, len(wire), 65536)], timestamps=True, max_lines=4096)
    assert [len(batch) for batch in batches] == [4096] * 4 + [20_000 - 4 * 4096]
    assert [int(line.data) for batch in batches for line in batch] == list(range(20_000))
    assert {timestamp for batch in batches for timestamp in batch.timestamps} == {N1}


# --- batches ---------------------------------------------------------------------------------------------------------


def test_columns(core: Any) -> None:
    wire = out(T1 + b"a\xff\n") + err(b"bad time\n") + out(T1 + b"k=v half")
    builder = core.BatchBuilder(timestamps=True, details=True, max_line_size=4)
    [batch] = builder.feed(wire) + builder.flush()
    assert (batch.num_rows, len(batch), repr(batch)) == (3, 3, "<LineBatch of 3 rows>")
    assert [view.format for view in (batch.streams, batch.timestamps, batch.offsets, batch.partials)] == list("bqq?")
    assert batch.streams.tolist() == [1, 2, 2]
    assert batch.timestamps.tolist() == [N1, 0, 0]
    assert batch.timestamp_validity.tolist() == [1]
    assert batch.offsets.tolist() == [0, 2, 6, 10]
    assert batch.partials.tolist() == [False, True, False]
    assert bytes(batch.data) == b"a\xffbad time"


def test_rows_are_lines(core: Any) -> None:
    [batch] = build(core, [out(T1 + b"k=v a\n") + err(T1 + b"b")], timestamps=True, details=True)
    assert [(line.stream, line.timestamp, line.data) for line in batch] == [
        (Stream.STDOUT, N1, b"a"),
        (Stream.STDERR, N1, b"b"),
    ]
    assert batch[0].attrs == {"k": "v"}
    assert (batch[-1], batch[1].details) == (batch[1], None)
    for index in (2, -3):
        with pytest.raises(IndexError):
            batch[index]


def test_nothing_changes_under_a_reader(core: Any) -> None:
    builder = core.BatchBuilder(max_lines=2)
    wire = bytearray(out(b"one\ntwo\nthree\n"))
    [batch] = builder.feed(wire)
    data, offsets = batch.data, batch.offsets
    assert data.readonly and offsets.readonly
    wire[:] = bytes(len(wire))
    builder.feed_eof()
    del batch, builder
    gc.collect()
    assert (bytes(data), offsets.tolist()) == (b"onetwo", [0, 3, 6])


def test_flush_hands_out_whole_lines_only(core: Any) -> None:
    builder = core.BatchBuilder()
    assert builder.flush() == []
    assert builder.feed(out(b"one\ntw")) == []
    assert [line.data for batch in builder.flush() for line in batch] == [b"one"]
    assert builder.flush() == []
    assert builder.feed(out(b"o\n")) == []
    assert [line.data for batch in builder.feed_eof() for line in batch] == [b"two"]
    with pytest.raises(ValueError, match="feed after feed_eof"):
        builder.feed(b"")


def test_faults_come_with_the_last_batch(core: Any) -> None:
    builder = core.BatchBuilder(max_lines=2)
    with pytest.raises(FramingError) as caught:
        builder.feed(out(b"1\n2\n3\nhalf") + b"\x09")
    assert [[line.data for line in batch] for batch in caught.value.lines] == [[b"1", b"2"], [b"3", b"half"]]
    assert caught.value.lines[1].partials.tolist() == [False, True]
    for call in (lambda: builder.feed(b""), builder.flush, builder.feed_eof):
        with pytest.raises(FramingError) as again:
            call()
        assert (str(again.value), again.value.lines) == (str(caught.value), [])


def test_only_a_builder_makes_batches(core: Any) -> None:
    with pytest.raises(TypeError, match="only a BatchBuilder makes a LineBatch"):
        core.LineBatch()
    bare = core.LineBatch.__new__(core.LineBatch)
    for name in ("num_rows", "streams", "offsets", "data", "partials", "timestamps"):
        with pytest.raises((TypeError, AttributeError)):
            getattr(bare, name)
    for use in (len, list, bare.__class__.__arrow_c_array__, bare.__class__.__arrow_c_stream__):
        with pytest.raises((TypeError, AttributeError)):
            use(bare)
    builder = core.BatchBuilder.__new__(core.BatchBuilder)
    for call in (lambda: builder.feed(b""), builder.flush, builder.feed_eof):
        with pytest.raises((TypeError, AttributeError)):
            call()


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"line_type": "text"}, ValueError, "line_type must be one of 'large_binary', 'large_utf8', 'binary_view'"),
        ({"source": 5}, TypeError, "source must be a str or None, not int"),
        ({"max_lines": 0}, ValueError, "max_lines must be 1..2147483647, not 0"),
        ({"max_bytes": 1 << 31}, ValueError, "max_bytes must be 1..2147483647, not 2147483648"),
        ({"max_line_size": 1 << 31}, ValueError, "max_line_size must be 1..2147483647"),
        ({"max_lines": "5"}, TypeError, "max_lines must be an int, not str"),
    ],
)
def test_misuse(core: Any, options: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        core.BatchBuilder(**options)


def test_one_builder_shared_by_threads(core: Any) -> None:
    builder = core.BatchBuilder(max_lines=97)
    wire = out(b"".join(b"%d\n" % i for i in range(100)))
    found: list[int] = []

    def work() -> None:
        found.extend(len(batch) for _ in range(50) for batch in builder.feed(wire))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sum(found) + sum(map(len, builder.feed_eof())) == 4 * 50 * 100
    assert set(found) == {97}


# --- the public function ---------------------------------------------------------------------------------------------


def test_sources(tmp_path: Path) -> None:
    wire = out(b"one\ntw") + err(b"x\n") + out(b"o")
    path = tmp_path / "stream"
    path.write_bytes(wire)
    for source in (wire, path, io.BytesIO(wire), iter([wire[:9], wire[9:]])):
        [batch] = muxframe.batches(source)
        assert [line.data for line in batch] == [b"one", b"x", b"two"]


def test_truncated_sources() -> None:
    wire = out(b"one\n") + out(b"two\nthree")[:-2]
    reader = muxframe.batches(wire)
    assert [line.data for line in next(reader)] == [b"one", b"two", b"thr"]
    for _ in range(2):
        with pytest.raises(TruncatedStreamError):
            next(reader)
    [batch] = muxframe.batches(wire, truncated="ignore")
    assert batch.partials.tolist() == [False, False, True]
    with pytest.raises(ValueError, match="truncated must be"):
        muxframe.batches(wire, truncated="perhaps")  # type: ignore[arg-type]


def test_reading_goes_on_after_a_timeout() -> None:
    pieces: list[Any] = [out(b"one\n"), TimeoutError("not yet"), out(b"two\n"), b""]

    class Slow(io.RawIOBase):
        def readinto(self, buffer: Any) -> int:
            piece = pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            buffer[: len(piece)] = piece
            return len(piece)

    reader = muxframe.batches(Slow())
    with pytest.raises(TimeoutError):
        next(reader)
    assert [line.data for batch in reader.flush() for line in batch] == [b"one"]
    assert [line.data for batch in reader for line in batch] == [b"two"]
    assert reader.flush() == []


def test_no_cut_breaks_a_character_of_a_column_of_text(core: Any) -> None:
    text = "aé€🙂" * 20
    builder = core.BatchBuilder(max_line_size=7, line_type="large_utf8")
    batches = builder.feed(out(text.encode() + b"\n")) + builder.feed_eof()
    assert b"".join(bytes(batch.data) for batch in batches).decode() == text


def test_a_batch_is_handed_out_when_it_is_old_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)

    def trickle() -> Iterator[bytes]:
        nonlocal now
        for number in range(10):
            yield out(b"%d\n" % number)
            now += 1.0

    reader = muxframe.batches(trickle(), max_age=2.5)
    assert [[line.data for line in batch] for batch in reader] == [
        [b"0", b"1", b"2", b"3"],
        [b"4", b"5", b"6", b"7"],
        [b"8", b"9"],
    ]
    reader = muxframe.batches(trickle(), max_age=2.5, max_lines=2)  # those are full before
    assert [len(batch) for batch in reader] == [2, 2, 2, 2, 2]
    assert [len(batch) for batch in muxframe.batches(trickle())] == [10]
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="max_age must be positive"):
            muxframe.batches(b"", max_age=wrong)


def test_what_comes_after_a_flush_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("time.monotonic", lambda: now)
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.settimeout(0.01)
        reader = muxframe.batches(ours, max_age=5)
        found = []
        for number in range(6):
            theirs.sendall(out(b"%d\n" % number))
            with pytest.raises(TimeoutError):
                found.append([line.data for line in next(reader)])
            if number == 0:
                assert len(reader.flush()) == 1
                now += 10.0
            now += 1.0
        assert found == []
        assert [len(batch) for batch in reader.flush()] == [5]


def test_asyncio_what_comes_after_a_flush_is_young(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    async def source() -> AsyncIterator[bytes]:
        nonlocal now
        yield out(b"0\n")
        assert len(reader.flush()) == 1
        now += 10.0
        yield out(b"1\n")
        yield out(b"2\n")

    monkeypatch.setattr(sys.modules["muxframe.batches"], "time", SimpleNamespace(monotonic=lambda: now))
    reader = aio.batches(source(), max_age=5)

    async def main() -> list[int]:
        return [len(batch) async for batch in reader]

    assert asyncio.run(main()) == [2]


def test_a_flush_from_inside_a_read_is_refused() -> None:
    class Nosy(io.RawIOBase):
        def readinto(self, buffer: Any) -> int:
            reader.flush()
            return 0

    reader = muxframe.batches(Nosy())
    with pytest.raises(RuntimeError, match="BatchReader is in use: re-entrant call"):
        next(reader)


# --- Arrow -----------------------------------------------------------------------------------------------------------


def sample(core: Any, count: int = 100, **options: Any) -> tuple[Any, list[line_oracle.Row]]:
    """Make a batch of all sorts of lines, and what is in it."""
    rng = random.Random(count)
    frames = []
    for i in range(count):
        text = rng.choice((b"", b"short", b"twelve bytes", b"thirteen byte", b"x" * 100, b"\xff\xfe", "€".encode()))
        time = b"no" if i % 7 == 3 else b"2026-11-21T05:46:%02d.%09dZ" % (i % 60, i)
        details = (b"", b"a=b", b"c=d,e=f")[i % 3] if i % 5 else None
        prefix = time + b" " + (b"" if details is None else details + b" ")
        frames.append(oracle.pack(1 + i % 2, prefix + text + b"\n"))
    wire = b"".join(frames)
    kind = {"timestamps": True, "details": True}
    [batch] = build(core, [wire], **kind, **options)
    return batch, line_oracle.split(wire, **kind).lines


@pytest.mark.parametrize("line_type", LINE_TYPES)
@pytest.mark.parametrize("count", [1, 7, 8, 9, 100, 5000])
def test_pyarrow(core: Any, line_type: str, count: int) -> None:
    pa = pytest.importorskip("pyarrow")
    batch, expected = sample(core, count, line_type=line_type, source="wöb-1")
    arrow = pa.record_batch(batch)
    arrow.validate(full=True)
    assert arrow.schema == pa.schema(batch)
    columns = dict(zip(arrow.schema.names, arrow.columns))
    assert list(columns) == ["stream", "timestamp", "line", "source", "attrs", "partial"]
    assert [str(field.type) for field in arrow.schema][:3] == [
        "int8",
        "timestamp[ns, tz=UTC]",
        {"large_utf8": "large_string"}.get(line_type, line_type),
    ]
    assert columns["stream"].to_pylist() == [row[0] for row in expected]
    assert columns["timestamp"].cast("int64").to_pylist() == [row[1] for row in expected]
    lines = [as_text(row[2]) if line_type == "large_utf8" else row[2] for row in expected]
    assert columns["line"].to_pylist() == lines
    assert columns["source"].to_pylist() == ["wöb-1"] * count
    assert columns["attrs"].to_pylist() == [row[4] if row[4] is None else row[4].decode() for row in expected]
    assert columns["partial"].to_pylist() == [row[3] for row in expected]
    assert columns["timestamp"].null_count == sum(row[1] is None for row in expected)


def test_the_columns_are_those_that_were_asked_for(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    builder = core.BatchBuilder()
    assert pa.schema(builder).names == ["stream", "line", "partial"]
    [batch] = builder.feed(out(b"a\n")) + builder.feed_eof()
    assert batch.timestamps is None and batch.timestamp_validity is None and batch.source is None
    assert pa.record_batch(batch).to_pylist() == [{"stream": 1, "line": b"a", "partial": False}]


@pytest.mark.parametrize("line_type", LINE_TYPES)
def test_long_partial_lines(core: Any, line_type: str) -> None:
    pa = pytest.importorskip("pyarrow")
    [batch] = build(core, [out(b"0123456789" * 5)], max_line_size=20, line_type=line_type)
    arrow = pa.record_batch(batch)
    arrow.validate(full=True)
    assert arrow.column("partial").to_pylist() == [True, True, False]
    assert [len(line) for line in arrow.column("line").to_pylist()] == [20, 20, 10]


@pytest.mark.parametrize(
    "line",
    [
        b"\xc0\x80",
        b"\xe0\x80\x80",
        b"\xed\xa0\x80",
        b"\xf0\x80\x80\x80",
        b"\xf4\x90\x80\x80",
        b"\xf5\x80\x80\x80",
        b"\x80",
        b"ok\xe2\x82",
        b"\xe2\x28\xa1",
        b"\xf0\x9f\x98\x80\xff\xf0\x9f\x98",
        "né€😀\U0010ffff\ud7ff\ue000".encode(),
    ],
)
def test_invalid_utf8_is_replaced_as_python_does(core: Any, line: bytes) -> None:
    pa = pytest.importorskip("pyarrow")
    wire = out(b"before\n" + line + b"\n\xac cut character\n" + line + b"\nafter")
    [batch] = build(core, [wire], line_type="large_utf8")
    arrow = pa.record_batch(batch)
    arrow.validate(full=True)
    expected = ["before", as_text(line), as_text(b"\xac cut character"), as_text(line), "after"]
    assert arrow.column("line").to_pylist() == expected
    assert [each.text for each in batch] == expected


def test_stream_of_batches(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    batches = build(core, [out(b"".join(b"%d\n" % i for i in range(10)))], max_lines=4)
    capsule_source = Capsules(core.export_stream(batches[0], iter(batches)))
    reader = pa.RecordBatchReader.from_stream(capsule_source)
    assert [batch.num_rows for batch in reader] == [4, 4, 2]


def test_a_reader_that_lets_go_on_the_way_of_an_exception(core: Any) -> None:
    """In C a release callback may be called while an exception is pending: all is released, and nothing crashes."""
    pytest.importorskip("pyarrow")
    code = """
import gc, sys
import pyarrow as pa
import muxframe
wire = muxframe.pack_frame(1, b"one\\n")
for read in (
    lambda: pa.table(muxframe.batches(wire + b"\\x09")),
    lambda: list(pa.RecordBatchReader.from_stream(muxframe.batches(wire + b"\\x09"))),
    lambda: pa.record_batch(next(muxframe.batches(wire))).column("nosuch"),
):
    try:
        read()
    except Exception as error:
        print(type(error).__name__)
gc.collect()
exporter = sys.modules.get("muxframe._arrow_py")
print(exporter and len(exporter._alive) + len(exporter._capsules))
"""
    backend = "python" if core is python else "cython"
    environment = {**os.environ, "MUXFRAME_BACKEND": backend}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    if backend == "cython":
        assert (done.stdout, done.stderr) == ("OSError\nOSError\nKeyError\nNone\n", "")
    else:
        assert done.stdout.count("\n") == 4 and done.stdout.endswith("Error\n0\n"), done.stderr
        for text in ("unrecognized stream: 9 at offset 12", "nosuch"):
            assert text in done.stderr


class Capsules:
    """Something that has a stream."""

    def __init__(self, capsule: object) -> None:
        self._capsule = capsule

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._capsule


def test_errors_of_a_stream(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    [first] = build(core, [out(b"one\n")])

    def fail() -> Iterator[Any]:
        yield first
        raise OSError("the disk is gone: é")

    reader = pa.RecordBatchReader.from_stream(Capsules(core.export_stream(first, fail())))
    assert reader.read_next_batch().num_rows == 1
    with pytest.raises(Exception, match="the disk is gone: é"):
        reader.read_next_batch()


def test_unused_capsules_and_moved_children(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    batch, expected = sample(core, 50, source="name")
    for _ in range(20):
        batch.__arrow_c_schema__(), batch.__arrow_c_array__(), batch.__arrow_c_stream__()
    arrow = pa.record_batch(batch)
    column, words = arrow.column("line"), arrow.column("source")
    del arrow, batch
    gc.collect()
    assert column.to_pylist() == [row[2] for row in expected]
    assert words.to_pylist() == ["name"] * 50


def test_released_on_other_threads(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")

    def work() -> None:
        while True:
            try:
                held.pop()
            except IndexError:
                return

    held = [pa.record_batch(sample(core, 20)[0]) for _ in range(100)]
    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not held


@pytest.mark.slow
def test_no_memory_is_lost(core: Any) -> None:
    pa = pytest.importorskip("pyarrow")
    resource = pytest.importorskip("resource")
    wire = b"".join(out(T1 + b"a=b " + b"x" * 90 + b"\n") for _ in range(2000))

    def work(times: int) -> None:
        for i in range(times):
            kind = {"line_type": LINE_TYPES[i % 3], "source": "s", "max_lines": 300}
            for batch in build(core, [wire], timestamps=True, details=True, **kind):
                pa.record_batch(batch)
                batch.__arrow_c_stream__()

    times = 150 if core is not python else 10
    work(times)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(2 * times)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < times * 2 * len(wire) / 1024 / 10


def test_reader_as_a_stream() -> None:
    pa = pytest.importorskip("pyarrow")
    wire = b"".join(out(T1 + b"%d\n" % i) for i in range(1000))
    reader = muxframe.batches(wire, timestamps=True, max_lines=300, source_name="web", line_type="large_utf8")
    assert pa.schema(reader).names == ["stream", "timestamp", "line", "source", "partial"]
    table = pa.table(reader)
    assert table.column("line").to_pylist() == [str(i) for i in range(1000)]
    assert list(reader) == []


def test_fault_of_a_reader_as_a_stream() -> None:
    pa = pytest.importorskip("pyarrow")
    reader = pa.RecordBatchReader.from_stream(muxframe.batches(out(b"one\n") + b"\x09"))
    assert reader.read_next_batch().num_rows == 1
    with pytest.raises(Exception, match="unrecognized stream: 9 at offset 12"):
        reader.read_next_batch()


def test_polars(core: Any) -> None:
    pl = pytest.importorskip("polars")
    for line_type in LINE_TYPES:
        batch, expected = sample(core, 100, line_type=line_type, source="web")
        frame = pl.DataFrame(batch)
        assert frame.columns == ["stream", "timestamp", "line", "source", "attrs", "partial"]
        assert frame["timestamp"].cast(pl.Int64).to_list() == [row[1] for row in expected]
        lines = [as_text(row[2]) if line_type == "large_utf8" else row[2] for row in expected]
        assert frame["line"].to_list() == lines
        assert frame.filter(pl.col("stream") == 2).height == 50
        assert frame["source"].unique().to_list() == ["web"]


def test_polars_reads_a_stream() -> None:
    pl = pytest.importorskip("polars")
    wire = b"".join(out(b"%d\n" % i) for i in range(1000))
    frame = pl.DataFrame(muxframe.batches(wire, max_lines=300))
    assert frame["line"].to_list() == [b"%d" % i for i in range(1000)]


@pytest.mark.parametrize("line_type", LINE_TYPES[:2])
def test_duckdb(core: Any, line_type: str) -> None:
    duckdb = pytest.importorskip("duckdb")
    pytest.importorskip("pyarrow")
    batch, expected = sample(core, 100, line_type=line_type, source="web")
    with duckdb.connect() as connection:
        connection.register("logs", Capsules(batch.__arrow_c_stream__()))
        found = connection.execute("select stream, epoch_ns(timestamp), partial, source from logs").fetchall()
    assert found == [(row[0], row[1], row[3], "web") for row in expected]


def test_pandas(core: Any) -> None:
    pd = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    batch, expected = sample(core, 100)
    frame = pd.DataFrame.from_arrow(batch)
    assert list(frame.columns) == ["stream", "timestamp", "line", "attrs", "partial"]
    assert list(frame["line"]) == [row[2] for row in expected]
    assert frame["timestamp"].isna().sum() == sum(row[1] is None for row in expected)
    valid = frame["timestamp"].dropna().astype("int64")
    assert list(valid) == [row[1] for row in expected if row[1] is not None]


DOCUMENT = Path(__file__).parent.parent / "docs" / "lines.md"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="docs are not beside the tests")
def test_document(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for reader in ("pyarrow", "polars", "duckdb", "pandas"):
        pytest.importorskip(reader)
    shown = re.findall(r"^```py\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert len(shown) == 4
    (tmp_path / "examples").symlink_to(DOCUMENT.parent.parent / "examples")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {}
    for block in shown:
        exec(block, namespace)
    assert namespace["errors"].height == 1
    assert namespace["frame"].shape == (5, 4)


def test_no_arrow_library_is_imported() -> None:
    code = """
import sys, muxframe
for batch in muxframe.batches(b"\\x01\\0\\0\\0\\0\\0\\0\\x04one\\n", timestamps=False):
    batch.__arrow_c_array__(), batch.__arrow_c_stream__(), batch.__arrow_c_schema__()
print([name for name in ("pyarrow", "numpy", "pandas", "polars", "duckdb", "nanoarrow") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr
