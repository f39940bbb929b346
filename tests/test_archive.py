"""Archives: recorded, indexed, cut anywhere, damaged on purpose; read whole and in slices, which must be the same.

The oracle is `muxframe.lines` of the whole wire, which tests/test_lines.py holds to an oracle of its own.
"""

from __future__ import annotations

import errno
import gzip
import json
import multiprocessing
import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import line_oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from live import PATIENCE, Live, eventually

import muxframe
from muxframe import archive, pack_frame
from muxframe.archive import index as index_format
from muxframe.archive import recording
from muxframe.testing import Container, LoopbackEngine, Process

COMMAND = [sys.executable, "-m", "muxframe"]
SUFFIXES = ["", ".gz", ".zst"]
MOMENT = 1_795_239_997_000_000_000  # 2026-11-21T05:46:37Z
SHAPES: list[dict[str, Any]] = [
    {"raw": raw, "timestamps": timestamps, "details": details}
    for raw in (False, True)
    for timestamps in (False, True)
    for details in (False, True)
]

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.fixture(params=SUFFIXES, ids=["plain", "gzip", "zstd"])
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Where an archive can be written."""
    if request.param == ".zst" and sys.version_info < (3, 14):
        pytest.importorskip("zstandard")
    return tmp_path / f"log{request.param}"


def content(path: Path) -> bytes:
    """Unpack an archive, by others."""
    data = path.read_bytes()
    if path.suffix == ".gz":
        return gzip.decompress(data) if data else b""
    if path.suffix == ".zst":
        codec = archive.codecs.find_codec(".zst")
        assert codec is not None
        return b"".join(piece for _, piece in archive.codecs.unpacked([data], codec))
    return data


def stamp(nanoseconds: int) -> str:
    """Return a moment as the API takes it."""
    return f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def line_frame(stream: int, timestamp: int, text: bytes) -> bytes:
    """Make a frame of a log with timestamps."""
    seconds = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(timestamp // 10**9))
    return pack_frame(stream, f"{seconds}.{timestamp % 10**9:09d}Z ".encode() + text)


def log(lines: int, *, step: int = 10**9, start: int = MOMENT) -> bytes:
    """Make a log with a line every `step` nanoseconds, every third of stderr."""
    return b"".join(line_frame(1 + (i % 3 == 0), start + i * step, b"line %d\n" % i) for i in range(lines))


def outcome(lines: Iterator[Any]) -> tuple[list[Any], tuple[str, Any] | None]:
    """Return the lines, and the fault behind them."""
    found = []
    try:
        for line in lines:
            found.append(line)
    except (muxframe.FramingError, muxframe.DaemonError) as fault:
        return found, (str(fault), fault.offset)
    return found, None


def check_slices(path: Path, whole: tuple[list[Any], Any], **options: Any) -> archive.Archive:
    """Read an archive in all numbers of slices."""
    opened = archive.open(path)
    most = len(opened.slices())
    for count in {1, 2, 3, most // 2, most - 1, most, most + 1} - {0, -1}:
        slices = pickle.loads(pickle.dumps(opened.slices(count)))
        assert len(slices) == min(count, most)
        assert outcome(line for each in slices for line in each.lines(**options)) == whole
        assert outcome(line for each in slices for batch in each.batches(**options) for line in batch) == whole
    assert outcome(opened.lines(**options)) == whole
    assert outcome(line for batch in opened.batches(**options) for line in batch) == whole
    return opened


# --- whole and in slices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(k for k, v in shape.items() if v) or "framed")
def test_every_line_once(path: Path, shape: dict[str, Any], seed: int) -> None:
    rng = random.Random(f"archive {seed} {shape}")
    wire = b"".join(line_oracle.random_log(rng, **shape) for _ in range(4))
    for interval, max_line_size in ((1, 1 << 20), (rng.randrange(1, 300), 7), (1 << 20, 1 << 20)):
        path.unlink(missing_ok=True)
        pieces = [wire[start : start + 61] for start in range(0, len(wire), 61)]
        recorded = archive_of(pieces, path, shape, interval=interval)
        assert wire.startswith(recorded)
        again = outcome(muxframe.lines(recorded, **shape, max_line_size=max_line_size))
        opened = check_slices(path, again, max_line_size=max_line_size)
        assert (opened.raw, opened.timestamps, opened.details) == tuple(shape.values())


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "-".join(k for k, v in shape.items() if v) or "framed")
def test_index_of_a_file_is_the_recorders(path: Path, shape: dict[str, Any]) -> None:
    wire = line_oracle.random_log(random.Random(5), **shape)
    archive_of(wire, path, shape, interval=30)
    recorded = Path(f"{path}.idx").read_bytes()
    archive.build_index(path, **shape, interval=30)
    assert Path(f"{path}.idx").read_bytes() == recorded
    assert sorted(each.name for each in path.parent.iterdir()) == [path.name, f"{path.name}.idx"]


def archive_of(wire: Any, path: Path, shape: dict[str, Any], **options: Any) -> bytes:
    """Record what can be recorded of a wire; return that."""
    try:
        archive.record(wire, path, **shape, **options, truncated="ignore")
    except (muxframe.FramingError, muxframe.DaemonError):
        pass
    return content(path)


frames = st.lists(
    st.tuples(st.sampled_from([0, 1, 2]), st.sampled_from([b"\n", b"a", b"b\nc", b"d\r\n", b"\r", b"", b"ee" * 30])),
    max_size=60,
)


@settings(deadline=None, max_examples=200)
@given(frames=frames, interval=st.integers(1, 200), piece=st.integers(1, 50), size=st.sampled_from([1, 3, 1 << 20]))
def test_interleaved_unfinished_lines(
    tmp_path_factory: pytest.TempPathFactory, frames: Any, interval: int, piece: int, size: int
) -> None:
    path = tmp_path_factory.mktemp("archive") / "log"
    wire = b"".join(pack_frame(stream, payload) for stream, payload in frames)
    archive.record([wire[i : i + piece] for i in range(0, len(wire), piece)], path, interval=interval)
    assert path.read_bytes() == wire
    check_slices(path, outcome(muxframe.lines(wire, max_line_size=size)), max_line_size=size)


def test_a_prompt_does_not_hinder_slices(path: Path) -> None:
    """A line that is unfinished over most of the archive is finished where it ends, and its beginning is there."""
    wire = pack_frame(2, b"old\npass") + pack_frame(1, b"line\n") * 50 + pack_frame(2, b"word: ") + log(50)
    wire += pack_frame(2, b"ok\n")
    archive.record(wire, path, interval=50)
    opened = check_slices(path, outcome(muxframe.lines(wire)))
    assert len(opened.slices()) > 20
    assert any(each.carry for each in opened.slices())
    check_slices(path, outcome(muxframe.lines(wire, max_line_size=3)), max_line_size=3)


def test_no_cut_in_a_long_line(path: Path) -> None:
    part = pack_frame(1, b"2026-11-21T05:46:37.5Z " + b"x" * 16384)
    wire = log(20) + (part + line_frame(2, MOMENT, b"meanwhile\n")) * 9 + line_frame(1, MOMENT + 5 * 10**8, b"end\n")
    wire += log(20)
    archive.record(wire, path, timestamps=True, interval=100)
    opened = check_slices(path, outcome(muxframe.lines(wire, timestamps=True)))
    assert not any(each.carry for each in opened.slices())
    assert max(len(line.data) for line in opened.lines()) == 9 * 16384 + 3


@pytest.mark.parametrize("shape", SHAPES[::2], ids=lambda shape: "-".join(k for k, v in shape.items() if v) or "framed")
def test_a_line_without_end_is_one_slice(path: Path, shape: dict[str, Any]) -> None:
    payload = b"2026-11-21T05:46:37Z " * shape["timestamps"] + b"\rprogress" * 1000
    archive.record([payload if shape["raw"] else pack_frame(1, payload)], path, **shape, interval=10)
    assert len(archive.open(path).slices()) == 1


def test_other_processes_read_slices(path: Path) -> None:
    archive.record(log(500), path, timestamps=True, interval=1000)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        counts = list(pool.map(count_lines, archive.open(path).slices(4)))
    assert len(counts) == 4
    assert sum(counts) == 500


def count_lines(part: archive.Slice) -> int:
    return sum(batch.num_rows for batch in part.batches())


def test_options_of_batches(path: Path) -> None:
    archive.record(log(10), path, timestamps=True)
    [part] = archive.open(path).slices()
    batches = list(part.batches(max_lines=4, source_name="web-1", line_type="large_utf8"))
    assert [batch.num_rows for batch in batches] == [4, 4, 2]
    assert batches[0].source == "web-1"


def test_empty(path: Path) -> None:
    assert archive.record(b"", path) == archive.Recorded(0, 0)
    opened = archive.open(path)
    assert list(opened.lines()) == []
    assert len(opened.slices(3)) == 1


def test_without_index(path: Path) -> None:
    archive.record(log(9), path, timestamps=True, interval=1)
    for index in (True, False):
        opened = archive.open(path, index=index, timestamps=True)
        assert len(opened.slices()) == (1 if index is False else 9)
        assert [line.timestamp for line in opened.lines()] == [MOMENT + i * 10**9 for i in range(9)]
    Path(f"{path}.idx").unlink()
    assert len(archive.open(path).slices()) == 1
    assert not archive.open(path).timestamps


def test_members_can_be_read_by_others(path: Path) -> None:
    """gzip and zstd read the whole file, whatever they know of indexes."""
    wire = log(100)
    recorded = archive.record(wire, path, timestamps=True, interval=1000)
    assert content(path) == wire
    assert recorded == archive.Recorded(len(wire), path.stat().st_size)


def test_one_member_is_one_slice(tmp_path: Path) -> None:
    path = tmp_path / "log.gz"
    path.write_bytes(gzip.compress(log(1000)))
    archive.build_index(path, timestamps=True, interval=100)
    opened = archive.open(path)
    assert len(opened.slices()) == 1
    assert len(list(opened.lines())) == 1000


@pytest.mark.parametrize("name", ["index", "raw", "timestamps", "details"])
def test_what_is_said_must_be_so(tmp_path: Path, name: str) -> None:
    archive.record(log(9), tmp_path / "log", timestamps=True)
    if name == "index":
        with pytest.raises(FileNotFoundError):
            archive.open(tmp_path / "log", index=tmp_path / "other")
    else:
        with pytest.raises(ValueError, match=f"says {name}="):
            archive.open(tmp_path / "log", **{name: name != "timestamps"})


def test_misuse(tmp_path: Path) -> None:
    path = tmp_path / "log"
    archive.record(log(9), path)
    opened = archive.open(path)
    with pytest.raises(ValueError, match="count must be positive"):
        opened.slices(0)
    with pytest.raises(ValueError, match="has no timestamps"):
        opened.lines(since=0)
    with pytest.raises(ValueError, match="not a moment"):
        opened.lines(since="yesterday")
    with pytest.raises(ValueError, match="interval must be positive"):
        archive.record(b"", tmp_path / "new", interval=0)
    with pytest.raises(ValueError, match="interval must be positive"):
        archive.build_index(path, interval=0)
    with pytest.raises(ValueError, match="truncated"):
        archive.record(b"", tmp_path / "new", truncated="no")  # type: ignore[arg-type]
    assert not (tmp_path / "new").exists()
    with pytest.raises(FileExistsError):
        archive.record(b"", path)
    assert path.read_bytes() == log(9)


# --- from a time -----------------------------------------------------------------------------------------------------


def timed(path: Path, wire: bytes, **options: Any) -> None:
    """Compare time ranges with a filter over all lines; count what is skipped."""
    archive.record(wire, path, timestamps=True, interval=300, **options)
    opened = archive.open(path)
    everything = list(opened.lines())
    times = sorted({line.timestamp for line in everything if line.timestamp is not None})
    for first in (0, times[0], times[len(times) // 3], times[-1], times[-1] + 1):
        for end in (times[0], times[len(times) // 2], times[-1], times[-1] + 1):
            wanted = [line for line in everything if line.timestamp is not None and first <= line.timestamp < end]
            options = {"since": stamp(first), "until": stamp(end)}
            assert list(opened.lines(**options)) == wanted
            for count in (None, 2):
                found = [line for each in opened.slices(count, **options) for line in each.lines(**options)]
                assert found == wanted


def test_from_a_time(path: Path) -> None:
    timed(path, log(200))
    opened = archive.open(path)
    assert len(opened.slices()) > 20
    assert len(opened.slices(since=stamp(MOMENT + 150 * 10**9))) < 10
    assert len(opened.slices(until=stamp(MOMENT + 10 * 10**9))) < 5
    assert opened.slices(since=stamp(MOMENT + 10**12)) == []


def test_a_clock_that_goes_backwards(path: Path) -> None:
    rng = random.Random("clock")
    wire = b"".join(
        line_frame(rng.choice([1, 2]), MOMENT + rng.randrange(30) * 10**9, b"line %d" % i + rng.choice([b"\n", b""]))
        for i in range(300)
    )
    timed(path, wire)


def test_equal_and_missing_timestamps(path: Path) -> None:
    wire = b"".join(
        [log(1, start=MOMENT) * 30, pack_frame(1, b"no time\n") * 30, log(1, start=MOMENT + 1) * 30, log(3)]
    )
    timed(path, wire)
    assert sum(line.timestamp is None for line in archive.open(path).lines()) == 30


def test_pieces_of_an_unfinished_line_have_its_time(path: Path) -> None:
    """They come in the slice before, the line's end in the next: both have lines of its time."""
    wire = log(30) + line_frame(2, MOMENT - 10**9, b"early " * 20) + log(30) + line_frame(2, MOMENT - 10**9, b"end\n")
    archive.record(wire, path, timestamps=True, interval=100)
    opened = archive.open(path)
    assert any(each.carry for each in opened.slices())
    found = list(opened.lines(until=stamp(MOMENT), max_line_size=10))
    assert b"".join(line.data for line in found) == b"early " * 20 + b"end"


def test_the_rest_is_not_read(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.record(log(5000), path, timestamps=True, interval=4000)
    offsets = [each.start for each in archive.open(path).slices()]
    data = bytearray(path.read_bytes())
    data[offsets[3] + 100 : offsets[-4] - 2000] = bytes(offsets[-4] - 2000 - offsets[3] - 100)
    path.write_bytes(data)
    last = MOMENT + 4999 * 10**9
    assert [line.timestamp for line in archive.open(path).lines(since=stamp(last))] == [last]
    with pytest.raises(muxframe.MuxframeError):
        list(archive.open(path).lines())


# --- damaged indexes -------------------------------------------------------------------------------------------------


@pytest.fixture
def sample(tmp_path: Path) -> Path:
    """A small archive with a cut in a line."""
    path = tmp_path / "log"
    wire = log(10) + line_frame(2, MOMENT, b"unfinished") + log(10)
    archive.record(wire, path, timestamps=True, interval=200)
    assert len(archive.open(path).slices()) == 5
    return path


def test_format() -> None:
    """The format, byte by byte: it may not change without a new version."""
    packer = index_format.Packer(index_format.Shape(timestamps=True), ".gz")
    cut = index_format.Cut(5_000_000, -1, 2, b"carry")
    data = packer.head + packer.pack(index_format.Entry(cut, 4_000_000, 0x01020304))
    data += packer.pack(index_format.Entry(index_format.Cut(5_000_001, 9, 9), 4_000_001, 1, True))
    head = b"\x89muxidx\n\x01\x02\x01\x00"
    first = b"\x01\x00\x00\x05" + bytes.fromhex("00000000003d0900 00000000004c4b40 01020304") + b"\xff" * 8
    first += bytes(7) + b"\x02carry"
    last = b"\x02\x00\x00\x00" + bytes.fromhex("00000000003d0901 00000000004c4b41 00000001") + (bytes(7) + b"\x09") * 2
    expected, check = b"", 0
    for part in (head, first, last):
        check = zlib.crc32(part, check)
        expected += part + check.to_bytes(4, "big")
    assert data == expected
    found = index_format.parse(data)
    assert (found.shape, found.suffix) == (index_format.Shape(timestamps=True), ".gz")
    assert [(entry.cut.wire_offset, entry.offset, entry.is_end) for entry in found.entries] == [
        (5_000_000, 4_000_000, False),
        (5_000_001, 4_000_001, True),
    ]
    assert found.entries[0].cut == cut


def test_truncated_index_serves_as_far_as_it_goes(sample: Path) -> None:
    index = Path(f"{sample}.idx")
    data = index.read_bytes()
    expected = list(archive.open(sample).lines())
    counts = set()
    for size in range(len(data)):
        index.write_bytes(data[:size])
        if size < 16:
            with pytest.raises(muxframe.ArchiveError, match="log.idx: "):
                archive.open(sample)
            continue
        opened = archive.open(sample)
        assert list(opened.lines()) == expected
        assert list(opened.lines(since=stamp(MOMENT + 5 * 10**9))) == [
            line for line in expected if line.timestamp is not None and line.timestamp >= MOMENT + 5 * 10**9
        ]
        counts.add(len(opened.slices()))
    assert counts == {1, 2, 3, 4, 5}


def test_damaged_index(sample: Path) -> None:
    """Every bit: it is refused, or (a size that leads beyond the end) read up to there. No line is wrong."""
    index = Path(f"{sample}.idx")
    data = index.read_bytes()
    expected = list(archive.open(sample).lines())
    refused = 0
    for bit in range(len(data) * 8):
        damaged = bytearray(data)
        damaged[bit // 8] ^= 1 << bit % 8
        index.write_bytes(damaged)
        try:
            opened = archive.open(sample)
        except muxframe.ArchiveError:
            refused += 1
            continue
        assert list(opened.lines()) == expected
    assert refused > len(data) * 8 * 0.9


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", "not an index"),
        (b"PK\3\4" * 9, "not an index"),
        (b"\x89muxidx\n", "ends inside its head"),
        (b"\x89muxidx\n\x02\0\0\0\0\0\0\0", "version 2"),
        (b"\x89muxidx\n\x01\0\0\0\0\0\0\0", "damaged at offset 0"),
    ],
)
def test_no_index(sample: Path, data: bytes, text: str) -> None:
    Path(f"{sample}.idx").write_bytes(data)
    with pytest.raises(muxframe.ArchiveError, match=text):
        archive.open(sample)
    assert len(list(archive.open(sample, index=False, timestamps=True).lines())) == 20
    archive.build_index(sample, timestamps=True, interval=200)
    assert len(archive.open(sample).slices()) == 5


def entries_of(*entries: tuple[int, int, bool]) -> bytes:
    packer = index_format.Packer(index_format.Shape(), "")
    packed = [
        packer.pack(index_format.Entry(index_format.Cut(wire_offset, 1, 0), offset, 0, is_end))
        for offset, wire_offset, is_end in entries
    ]
    return packer.head + b"".join(packed)


@pytest.mark.parametrize(
    "entries",
    [
        [(0, 0, False)],
        [(5, 5, False), (5, 5, False)],
        [(5, 5, False), (4, 6, False)],
        [(5, 5, False), (6, 4, True)],
        [(5, 5, True), (6, 6, False)],
    ],
)
def test_entries_out_of_order(entries: list[tuple[int, int, bool]]) -> None:
    with pytest.raises(muxframe.ArchiveError, match="out of order"):
        index_format.parse(entries_of(*entries))


def test_index_of_another_archive(path: Path) -> None:
    other = path.with_name("other" + path.suffix)
    archive.record(log(300), path, timestamps=True, interval=1000)
    archive.record(log(300, start=MOMENT + 1), other, timestamps=True, interval=1000)
    Path(f"{other}.idx").replace(f"{path}.idx")
    with pytest.raises(muxframe.ArchiveError, match="is not what its index was made of"):
        archive.open(path)


def test_shrunk_archive(path: Path) -> None:
    archive.record(log(300), path, timestamps=True, interval=1000)
    os.truncate(path, path.stat().st_size - 1)
    with pytest.raises(muxframe.ArchiveError, match="is not what its index was made of"):
        archive.open(path)


def test_archive_that_shrinks_while_it_is_read(path: Path) -> None:
    archive.record(log(300), path, timestamps=True, interval=1000)
    slices = archive.open(path).slices()
    os.truncate(path, slices[5].start - 10)
    assert list(slices[0].lines())
    for each in slices[4:]:
        with pytest.raises(muxframe.ArchiveError):
            list(each.lines())


def test_grown_archive(path: Path) -> None:
    """What the index does not know is in the last slice, whatever its time."""
    archive.record(log(100), path, timestamps=True, interval=1000)
    more = path.with_name("more" + path.suffix)
    archive.record(line_frame(1, MOMENT - 5 * 10**9, b"early\n") + log(50), more, timestamps=True)
    with path.open("ab") as file:
        file.write(more.read_bytes())
    wire = content(path)
    opened = check_slices(path, outcome(muxframe.lines(wire, timestamps=True)))
    assert [line.data for line in opened.lines(until=stamp(MOMENT))] == [b"early"]


def test_rewritten_archive(tmp_path: Path) -> None:
    """Written over inside, but not at its end: the slices that are there no more are refused."""
    path = tmp_path / "log"
    data = log(300)
    archive.record(data, path, timestamps=True, interval=3000)
    start = archive.open(path).slices()[2].start
    path.write_bytes(data[: start - 9] + b"damage!!\n" + data[start:])
    with pytest.raises(muxframe.ArchiveError, match="is not what its index was made of"):
        list(archive.open(path).slices()[2].lines())
    path.write_bytes(pack_frame(1, b"x" * (start - 8 - 1500)) + data[start - 1500 :])  # sizes that lead elsewhere
    with pytest.raises(muxframe.MuxframeError):
        list(archive.open(path).slices()[1].lines())
    last = max(data.rfind(header, 0, start) for header in (b"\1\0\0\0", b"\2\0\0\0"))
    path.write_bytes(data[: last + 7] + b"\xff" + data[last + 8 :])  # it would go on behind the cut
    with pytest.raises(muxframe.ArchiveError, match="is not what its index was made of"):
        list(archive.open(path).slices()[1].lines())


# --- damaged archives ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end",
    [b"\xffgarbage" + log(5), pack_frame(3, b"the daemon's") + log(5), log(1)[:-3], b"\1\0\0"],
    ids=["garbage", "daemon", "payload", "header"],
)
def test_index_up_to_a_fault(path: Path, end: bytes) -> None:
    wire = log(50) + end
    expected = outcome(muxframe.lines(wire, timestamps=True))
    pack: Callable[[bytes], bytes] = {".gz": gzip.compress}.get(path.suffix, bytes)
    if path.suffix == ".zst":
        codec = archive.codecs.find_codec(".zst")
        assert codec is not None
        compressor = codec.compressor()
        path.write_bytes(compressor.compress(wire) + compressor.flush(codec.end))
    else:
        path.write_bytes(pack(wire))
    with pytest.raises((muxframe.FramingError, muxframe.DaemonError)) as caught:
        archive.build_index(path, timestamps=True, interval=300)
    assert (str(caught.value), caught.value.offset) == expected[1]
    opened = check_slices(path, expected)
    assert outcome(opened.lines(since=stamp(MOMENT + 10**15))) == ([], expected[1])


def test_truncated_member(path: Path) -> None:
    if not path.suffix:
        pytest.skip("plain")
    archive.record(log(1000), path, timestamps=True, interval=10_000)
    whole = list(archive.open(path).lines())
    data = path.read_bytes()
    for size in (len(data) - 1, len(data) // 2, 30):
        path.write_bytes(data[:size])
        found = []
        with pytest.raises(muxframe.ArchiveError, match="ends inside the member"):
            for line in archive.open(path, index=False, timestamps=True).lines():
                found.append(line)
        assert whole[: len(found)] == found
        with pytest.raises(muxframe.ArchiveError, match="ends inside the member"):
            archive.build_index(path, timestamps=True, interval=10_000)
        assert len(archive.open(path).slices()) >= 1
        Path(f"{path}.idx").unlink()


def test_damaged_member(path: Path) -> None:
    if not path.suffix:
        pytest.skip("plain")
    archive.record(log(1000), path, timestamps=True, interval=10_000)
    slices = archive.open(path).slices()
    data = bytearray(path.read_bytes())
    data[slices[2].start + 50] ^= 0xFF
    path.write_bytes(data)
    slices = archive.open(path).slices()
    with pytest.raises(muxframe.MuxframeError):
        list(slices[2].lines())
    assert list(slices[1].lines())
    assert list(slices[4].lines())


# --- recording -------------------------------------------------------------------------------------------------------


def check_recorded(path: Path, wire: bytes, **shape: Any) -> int:
    """An archive is the beginning of a wire, up to the end of a frame, and its index is right; return its size."""
    recorded = content(path)
    assert wire.startswith(recorded)
    muxframe.demux(recorded)
    assert Path(f"{path}.idx").exists()
    check_slices(path, outcome(muxframe.lines(recorded, **shape)))
    index = index_format.parse(Path(f"{path}.idx").read_bytes())
    if index.entries and index.entries[-1].is_end:
        assert index.entries[-1].offset == path.stat().st_size
        assert index.entries[-1].cut.wire_offset == len(recorded)
    return len(recorded)


class Disk:
    """Stands for `open`: takes a few bytes at a time, and no more than there is room for."""

    def __init__(self, room: int, error: BaseException) -> None:
        self.room = room
        self.error = error

    def __call__(self, path: str, mode: str, **options: Any) -> Any:
        file = open(path, mode, **options)  # noqa: SIM115
        return _OnDisk(file, self) if "b" in mode and "r" not in mode else file


class _OnDisk:
    def __init__(self, file: Any, disk: Disk) -> None:
        self._file = file
        self._disk = disk

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)

    def write(self, data: Any) -> int:
        size = min(len(data), self._disk.room, 1 + len(data) // 2)
        if not size:
            raise self._disk.error
        self._disk.room -= size
        return int(self._file.write(data[:size]))

    def truncate(self, size: int) -> None:
        self._disk.room += self._file.seek(0, os.SEEK_END) - size
        self._file.truncate(size)


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()], ids=repr)
def test_disk_full_and_short_writes(path: Path, error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    wire = log(120)
    pieces = [wire[start : start + 97] for start in range(0, len(wire), 97)]
    archive.record(pieces, path, timestamps=True, interval=500)
    total = path.stat().st_size + Path(f"{path}.idx").stat().st_size
    sizes = set()
    for room in range(17, total - 60, total // 40):
        monkeypatch.setattr(recording, "open_file", Disk(room, error))
        path.unlink(missing_ok=True)
        with pytest.raises(type(error)) as caught:
            archive.record(pieces, path, timestamps=True, interval=500)
        if isinstance(caught.value, OSError):
            assert caught.value.errno == errno.ENOSPC
            assert str(caught.value.filename).startswith(str(path))
        sizes.add(check_recorded(path, wire, timestamps=True))
    assert len(sizes) > 5


@pytest.mark.parametrize(
    ("end", "error"),
    [
        (b"\xffgarbage", muxframe.UnknownStreamError),
        (b"\1\0\1\0\0\0\0\0", muxframe.ReservedBytesError),
        (b"\1\0\0\0\2\0\0\0", muxframe.FrameTooLargeError),
        (b"\1\0\0\0\0\0\0\7abc", muxframe.TruncatedStreamError),
        (b"\1\0\0\0", muxframe.TruncatedStreamError),
        (b"\3\0\0\0\0\0\0\7dae", muxframe.DaemonError),
    ],
)
def test_faults_of_the_stream(path: Path, end: bytes, error: type[muxframe.FramingError]) -> None:
    wire = log(20)
    expected = outcome(muxframe.frames(wire + end))[1]
    for pieces in ([wire + end], [wire[:50], wire[50:], *(end[i : i + 1] for i in range(len(end)))]):
        path.unlink(missing_ok=True)
        with pytest.raises(error) as caught:
            archive.record(pieces, path, timestamps=True, interval=100)
        assert (str(caught.value), caught.value.offset) == expected
        assert check_recorded(path, wire, timestamps=True) == len(wire)
    path.unlink()
    if error is muxframe.TruncatedStreamError:
        archive.record(wire + end, path, timestamps=True, truncated="ignore")
        assert check_recorded(path, wire, timestamps=True) == len(wire)


def test_the_daemons_message_is_recorded(path: Path) -> None:
    wire = log(20) + pack_frame(3, b"the disk is gone")
    with pytest.raises(muxframe.DaemonError, match="the disk is gone") as caught:
        archive.record(wire + log(3), path, timestamps=True, interval=100)
    assert caught.value.offset == len(log(20))
    assert content(path) == wire
    assert outcome(archive.open(path).lines())[1] == (str(caught.value), len(log(20)))


def test_errors_of_the_source(path: Path) -> None:
    def pieces() -> Iterator[bytes]:
        yield log(20) + b"\1\0"
        raise TimeoutError("nothing came")

    with pytest.raises(TimeoutError, match="nothing came"):
        archive.record(pieces(), path, timestamps=True, interval=100)
    assert check_recorded(path, log(20), timestamps=True) == len(log(20))


def test_what_has_come_can_be_read_at_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recording, "MAX_AGE", -1.0)
    seen = []

    def pieces() -> Iterator[bytes]:
        for number in range(3):
            yield line_frame(1, MOMENT + number, b"line\n")
            seen.append(0)
            try:
                for _ in archive.open(path, timestamps=True).lines():
                    seen[-1] += 1
            except muxframe.ArchiveError:
                assert path.suffix  # the member has not ended

    archive.record(pieces(), path, timestamps=True)
    assert seen == [1, 2, 3]


# --- sessions --------------------------------------------------------------------------------------------------------


@pytest.fixture
def engine() -> Iterator[LoopbackEngine]:
    """An engine with a log."""
    with LoopbackEngine() as engine:
        entries = [(1 + number % 2, b"line %d\n" % number, MOMENT + number * 10**9) for number in range(200)]
        engine.add(Container("web", state="exited", log=entries))
        engine.add(Container("tty", state="exited", log=[(1, b"one\r\n", MOMENT), (1, b"two\r\n", MOMENT)], tty=True))
        yield engine


@pytest.mark.parametrize("container", ["web", "tty"])
@pytest.mark.parametrize("timestamps", [False, True])
def test_session(container: str, timestamps: bool, path: Path, engine: LoopbackEngine) -> None:
    client = muxframe.connect(engine.host)
    with client.logs(container, timestamps=timestamps) as session:
        archive.record(session, path, interval=1)
        with pytest.raises(RuntimeError, match="choose one way"):
            session.read_all()
    with client.logs(container, timestamps=timestamps) as session:
        expected = list(session.lines())
    opened = check_slices(path, (expected, None))
    assert (opened.raw, opened.timestamps, opened.details) == (container == "tty", timestamps, False)
    assert len(expected) == (200 if container == "web" else 2)
    assert len(opened.slices()) == len(expected)


def test_session_that_is_closed_ends_the_recording(path: Path) -> None:
    def script(process: Process) -> None:
        process.write(b"one\n")
        process.sleep()

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with muxframe.connect(engine.host).logs("web", follow=True, timestamps=True) as session:
            threading.Timer(0.5, session.close).start()
            archive.record(session, path)
    assert [line.data for line in archive.open(path).lines()] == [b"one"]


# --- the command line ------------------------------------------------------------------------------------------------


def run(*arguments: str | Path, code: int = 0) -> tuple[bytes, bytes]:
    done = subprocess.run([*COMMAND, *map(str, arguments)], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == code, done.stderr
    return done.stdout, done.stderr


def test_command_line(path: Path, engine: LoopbackEngine) -> None:
    assert run("record", "-H", engine.host, "-n", "100", "web", path) == (b"", b"")
    assert engine.requests[-1].query["tail"] == "100"
    expected = [b"line %d\n" % number for number in range(100, 200)]
    assert run("lines", path) == (b"".join(expected[::2]), b"".join(expected[1::2]))
    assert run("lines", "--stdout", "-", "--stderr", "-", path)[0] == b"".join(expected)
    since, until = "2026-11-21T05:48:17Z", "2026-11-21T05:48:20Z"
    assert run("lines", "--since", since, "--until", until, "-t", path) == (
        b"2026-11-21T05:48:17.000000000Z line 100\n2026-11-21T05:48:19.000000000Z line 102\n",
        b"2026-11-21T05:48:18.000000000Z line 101\n",
    )
    shown = run("lines", "--since", since, "--until", until, "--json", path)[0]
    assert [json.loads(line) for line in shown.splitlines()] == [
        {"stream": "stdout", "timestamp": "2026-11-21T05:48:17.000000000Z", "data": "line 100"},
        {"stream": "stderr", "timestamp": "2026-11-21T05:48:18.000000000Z", "data": "line 101"},
        {"stream": "stdout", "timestamp": "2026-11-21T05:48:19.000000000Z", "data": "line 102"},
    ]
    Path(f"{path}.idx").unlink()
    assert b"has no timestamps" in run("lines", "--since", since, path, code=2)[1]
    assert run("index", "--timestamps", path) == (b"", b"")
    assert run("lines", "--since", "2026-11-21T05:49:56Z", path) == (b"", b"line 199\n")


def test_command_line_of_a_terminal(path: Path, engine: LoopbackEngine) -> None:
    run("record", "-H", engine.host, "tty", path)
    assert run("lines", path) == (b"one\ntwo\n", b"")
    Path(f"{path}.idx").unlink()
    run("index", "--raw", "-t", path)
    assert run("lines", path) == (b"one\ntwo\n", b"")


def test_command_line_errors(tmp_path: Path, engine: LoopbackEngine) -> None:
    path = tmp_path / "log"
    assert b"No such container" in run("record", "-H", engine.host, "none", path, code=1)[1]
    assert not path.exists()
    path.write_bytes(b"mine")
    assert b"log: File exists" in run("record", "-H", engine.host, "web", path, code=1)[1]
    assert path.read_bytes() == b"mine"
    assert b"looks like a raw (TTY) stream; " not in run("index", path, code=1)[1]
    assert b"log: No such file" in run("lines", tmp_path / "none" / "log", code=1)[1]
    path.write_bytes(log(3) + b"\xffgarbage")
    assert run("index", "-t", path, code=1)[1].endswith(b"the index is of what comes before\n")
    out, err = run("lines", path, code=1)
    assert out == b"line 1\nline 2\n"
    assert err.decode() == f"line 0\nmuxframe: {path}: unrecognized stream: 255 at offset 138\n"
    assert b"not a moment" in run("lines", "--since", "never", path, code=2)[1]
    Path(f"{path}.idx").write_bytes(b"nonsense")
    assert b"log.idx: not an index" in run("lines", path, code=1)[1]


@pytest.mark.skipif(not os.path.exists("/dev/stdin"), reason="no /dev/stdin")
@pytest.mark.parametrize("command", ["lines", "index"])
def test_what_cannot_be_positioned_is_named(command: str) -> None:
    done = subprocess.run([*COMMAND, command, "/dev/stdin"], input=log(3), capture_output=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"muxframe: /dev/stdin: Illegal seek\n")


def test_lines_of_pieces_are_not_broken(tmp_path: Path) -> None:
    path = tmp_path / "log"
    text = b"x" * (1 << 20) + b"yz"
    archive.record(line_frame(1, MOMENT, text + b"\n"), path, timestamps=True)
    assert run("lines", "-t", path)[0] == b"2026-11-21T05:46:37.000000000Z " + text + b"\n"


@contextmanager
def recording_process(host: str, container: str, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run the command until something has been recorded; kill it in the end."""
    command = [*COMMAND, "record", "-f", "-H", host, container, str(path)]
    with subprocess.Popen(command, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)) as process:
        try:
            eventually(lambda: path.exists() and path.stat().st_size > 0)
            yield process
        finally:
            process.kill()


@posix
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_recording_ends_by_a_signal(path: Path, number: int) -> None:
    def script(process: Process) -> None:
        for line in range(1000):
            process.write(b"line %d\n" % line)
        process.write(b"unfinished")
        process.sleep()

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with recording_process(engine.host, "web", path) as process:
            time.sleep(0.3)
            process.send_signal(number)
            assert process.wait(20) == -number
    lines = list(check_slices(path, outcome(archive.open(path).lines())).lines())
    assert [line.data for line in lines] == [b"line %d" % each for each in range(len(lines))]
    index = index_format.parse(Path(f"{path}.idx").read_bytes())
    assert index.entries[-1].is_end
    assert index.entries[-1].offset == path.stat().st_size


@posix
def test_recording_that_is_killed_can_be_read(path: Path) -> None:
    def script(process: Process) -> None:
        for line in range(100):
            process.write(b"line %d\n" % line)
        process.sleep()

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with recording_process(engine.host, "web", path):
            pass
    found = []
    try:
        for line in archive.open(path).lines():
            found.append(line.data)
    except muxframe.MuxframeError:
        pass
    assert found == [b"line %d" % each for each in range(len(found))]
    assert found


# --- real engines ----------------------------------------------------------------------------------------------------

NUMBERS = "i=0; while [ $i -lt {0} ]; do echo out $i; echo err $i >&2; i=$((i+1)); done"


@pytest.mark.live
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_live_recording(live: Live, path: Path) -> None:
    container = live.run(NUMBERS.format(2000))
    live.engine.wait(container, timeout=PATIENCE)
    eventually(lambda: b"err 1999" in run("logs", "-H", live.host, container)[1])
    run("record", "-H", live.host, container, path)
    archive.build_index(path, timestamps=True, interval=10_000)
    with live.engine.logs(container, timestamps=True) as session:
        expected = list(session.lines())
    check_slices(path, (expected, None))
    for stream, name in ((1, b"out"), (2, b"err")):
        assert [line.data for line in expected if line.stream == stream] == [b"%s %d" % (name, i) for i in range(2000)]
    middle = expected[len(expected) // 2].timestamp
    assert middle is not None
    found = list(archive.open(path).lines(since=stamp(middle)))
    assert found == [line for line in expected if line.timestamp is not None and line.timestamp >= middle]


@pytest.mark.live
@pytest.mark.skipif(os.name != "posix", reason="needs signals")
def test_live_recording_that_is_interrupted(live: Live, path: Path) -> None:
    container = live.run(NUMBERS.format(500) + "; sleep 1000")
    with recording_process(live.host, container, path) as process:
        time.sleep(1)
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == -signal.SIGINT
    lines = [line.data for line in archive.open(path).lines() if line.stream == 1]
    assert lines == [b"out %d" % each for each in range(len(lines))]
    assert lines
