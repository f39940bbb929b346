"""Sinks for lines, and wait_for: rotation, full disks, hostile names, many threads, slow sinks."""

from __future__ import annotations

import asyncio
import errno
import io
import json
import logging
import os
import random
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import muxframe
from muxframe import Line, NoMatchError, Stream, aio, wait_for
from muxframe._lines_py import parse_timestamp
from muxframe.ingest import Files, JsonLines, Logging, Parquet, Queued, TextLines, json_line, text_line
from muxframe.ingest.formats import rfc3339
from muxframe.ingest.sinks import BUFFER_SIZE, MAX_OPEN, file_name
from muxframe.testing import Container, LoopbackEngine, Process

OUT = Line(1, 1_795_239_997_125_648_057, b"hello")
ERR = Line(2, 1_795_239_997_000_000_000, b"oh \xff no")


def texts(directory: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(directory.iterdir())}


def test_a_file_for_each_container_and_stream(tmp_path: Path) -> None:
    with Files(tmp_path / "logs") as files:
        files.write("web", OUT)
        files.write("web", Line(2, None, b"error"))
        files.write("db", Line(1, None, b"piece", partial=True))
        files.write("db", Line(1, None, b" and rest"))
        files.flush()
        expected = {"db.stdout.log": "piece and rest\n", "web.stderr.log": "error\n", "web.stdout.log": "hello\n"}
        assert texts(tmp_path / "logs") == expected
        files.write("web", OUT)
    assert texts(tmp_path / "logs")["web.stdout.log"] == "hello\nhello\n"


def test_rotation_by_size(tmp_path: Path) -> None:
    with Files(tmp_path, max_size=12, max_files=3) as files:
        for number in range(9):
            files.write("web", Line(1, None, b"line%d" % number))
        files.write("web", Line(1, None, b"longer than a file may be"))
    assert texts(tmp_path) == {
        "web.stdout.log": "longer than a file may be\n",
        "web.stdout.log.1": "line8\n",
        "web.stdout.log.2": "line6\nline7\n",
    }
    with Files(tmp_path, max_size=12, max_files=1) as files:
        files.write("web", Line(1, None, b"new"))
    assert (tmp_path / "web.stdout.log").read_text() == "new\n"


def test_rotation_by_age(tmp_path: Path) -> None:
    now = [time.time()]
    with Files(tmp_path, max_age=60, clock=lambda: now[0]) as files:
        files.write("web", Line(1, None, b"old"))
        now[0] += 59
        files.write("web", Line(1, None, b"not new"))
        now[0] += 1
        files.write("web", Line(1, None, b"new"))
    assert texts(tmp_path) == {"web.stdout.log": "new\n", "web.stdout.log.1": "old\nnot new\n"}


def test_names_stay_inside_the_directory(tmp_path: Path) -> None:
    names = ["../../etc/passwd", "..", ".hidden", "", "a/b", "a\\b", "con", "CON.x", "x" * 300, "x" * 301, "ü", "a b",
             "nul\0", "%2e", "\ud800", "-rf"]  # fmt: skip
    with Files(tmp_path / "in", max_size=None) as files:
        for name in names:
            files.write(name, OUT)
    assert len(list((tmp_path / "in").iterdir())) == len(names)
    assert list(tmp_path.iterdir()) == [tmp_path / "in"]
    assert file_name("web-1_a.b") == "web-1_a.b"
    assert file_name("../x") == "%..%2Fx"


@pytest.mark.skipif(not hasattr(os, "O_NOFOLLOW"), reason="no O_NOFOLLOW")
def test_a_link_is_not_followed(tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_text("")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "web.stdout.log").symlink_to(target)
    files = Files(tmp_path / "logs")
    with pytest.raises(OSError, match="symbolic links|symbolic link"):
        files.write("web", OUT)
    assert target.read_text() == ""


def test_more_files_than_are_open(tmp_path: Path) -> None:
    with Files(tmp_path) as files:
        for _ in range(2):
            for number in range(MAX_OPEN + 20):
                files.write(f"c{number}", OUT)
        assert len(os.listdir("/proc/self/fd")) < MAX_OPEN + 100 if os.path.exists("/proc/self/fd") else True
    assert set(texts(tmp_path).values()) == {"hello\nhello\n"}


@pytest.mark.parametrize("short", [0, 3])
def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, short: int) -> None:
    """Writing fails after some bytes: the file ends with a whole line, and nothing is lost once there is room."""
    files = Files(tmp_path)
    files.write("web", Line(1, None, b"one"))
    files.flush()
    write = os.write
    calls = iter([short] if short else [])

    def full(descriptor: int, data: Any) -> int:
        for size in calls:
            return write(descriptor, data[:size])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    files.write("web", Line(1, None, b"two"))
    with pytest.raises(OSError, match="No space"):
        files.flush()
    assert (tmp_path / "web.stdout.log").read_text() == "one\n"
    monkeypatch.setattr(os, "write", write)
    files.write("web", Line(1, None, b"three"))
    files.close()
    assert (tmp_path / "web.stdout.log").read_text() == "one\ntwo\nthree\n"


def test_a_full_disk_does_not_fill_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = Files(tmp_path)
    write = os.write

    def full(descriptor: int, data: Any) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    taken = []
    for number in range(3000):
        line = Line(1, None, b"%d" % number * 20)
        try:
            files.write("web", line)
        except OSError:
            continue  # not taken
        taken.append(line.data)
    assert 0 < sum(map(len, taken)) < BUFFER_SIZE + 1000
    monkeypatch.setattr(os, "write", write)
    files.close()
    assert (tmp_path / "web.stdout.log").read_bytes().split() == taken


def test_many_threads_and_rotation(tmp_path: Path) -> None:
    files = Files(tmp_path, max_size=1000, max_files=1000)

    def write(letter: bytes) -> None:
        for number in range(500):
            files.write("web", Line(1, None, b"%s %d" % (letter, number)))

    threads = [threading.Thread(target=write, args=(bytes([65 + each]),)) for each in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    files.close()
    paths = sorted(tmp_path.iterdir(), key=lambda path: -int(path.suffix[1:]) if path.suffix != ".log" else 0)
    lines = b"".join(path.read_bytes() for path in paths).splitlines()
    assert len(lines) == 4000
    for each in range(8):
        mine = [line for line in lines if line[0] == 65 + each]
        assert mine == [b"%c %d" % (65 + each, number) for number in range(500)]


def test_json_lines() -> None:
    class Source:
        id = "4bd2"

        def __str__(self) -> str:
            return "web"

    target = io.BytesIO()
    sink = JsonLines(target)
    sink.write(Source(), OUT)
    sink.write("db", Line(2, None, b"oh \xff", partial=True, details=b"a=b"))
    sink.close()
    first, second = map(json.loads, target.getvalue().splitlines())
    assert first == {
        "timestamp": "2026-11-21T05:46:37.125648057Z",
        "container": "web",
        "id": "4bd2",
        "stream": "stdout",
        "data": "hello",
    }
    assert second == {
        "container": "db",
        "stream": "stderr",
        "base64": "b2gg/w==",
        "partial": True,
        "details": {"a": "b"},
    }


@pytest.mark.parametrize(
    ("source", "line", "text"),
    [
        (None, Line(1, None, b"x"), '{"stream": "stdout", "data": "x"}'),
        (None, Line(2, 5, b""), '{"stream": "stderr", "timestamp": "1970-01-01T00:00:00.000000005Z", "data": ""}'),
        ('a"\n', Line(1, None, "ü\x1b".encode()), r'{"container": "a\"\n", "stream": "stdout", "data": "ü\u001b"}'),
        ("\ud800", Line(1, None, b"\xed\xa0\x80"), '{"container": "?", "stream": "stdout", "base64": "7aCA"}'),
        (None, Line(1, None, b"x", details=b""), '{"stream": "stdout", "details": {}, "data": "x"}'),
    ],
)
def test_a_line_as_json(source: str | None, line: Line, text: str) -> None:
    assert json_line(source, line).decode() == text + "\n"
    assert json.loads(text)["stream"] == line.stream.name.lower()


@pytest.mark.parametrize(
    ("timestamp", "text"),
    [
        (0, "1970-01-01T00:00:00.000000000Z"),
        (-1, "1969-12-31T23:59:59.999999999Z"),
        (1_795_239_997_125_648_057, "2026-11-21T05:46:37.125648057Z"),
        (-(1 << 63), "1677-09-21T00:12:43.145224192Z"),
        ((1 << 63) - 1, "2262-04-11T23:47:16.854775807Z"),
    ],
)
def test_timestamps_as_text(timestamp: int, text: str) -> None:
    assert rfc3339(timestamp) == text
    assert parse_timestamp(text.encode()) == timestamp


def test_lines_as_text() -> None:
    pieces = [Line(1, 1, b"a", partial=True), Line(2, 2, b"err"), Line(1, 3, b"b", partial=True), Line(1, 4, b"c")]
    assert b"".join(text_line("web", each) for each in pieces) == b"aerr\nbc\n"
    dated = TextLines(timestamps=True)
    epoch = b"1970-01-01T00:00:00.00000000"
    written = b"".join(dated("web", each) for each in [*pieces, Line(1, 5, b"d"), Line(1, None, b"e")])
    assert written == b"%b1Z a%b2Z err\nbc\n%b5Z d\ne\n" % (epoch, epoch, epoch)
    full = TextLines(timestamps=True, details=True)
    assert full("web", Line(1, 5, b"d", details=b"a=b,c=d")) == b"%b5Z a=b,c=d d\n" % epoch
    assert full("web", Line(1, None, b"d", details=b"")) == b"d\n"


def test_many_lines_are_written_as_one_by_one(tmp_path: Path) -> None:
    """Rotation, too, comes where it comes between single ones."""
    rng = random.Random(7)
    lines = [Line(rng.choice([1, 2]), number, b"%d" % number * rng.randrange(9)) for number in range(500)]

    def write_all(directory: Path, is_apart: bool) -> dict[str, str]:
        target = io.BytesIO()
        sinks: list[Any] = [
            Files(directory, max_size=300, max_files=1000),
            Files(directory, format=json_line, suffix="jsonl", max_size=None),
            JsonLines(target),
            Queued(Files(directory, suffix="queued")),
        ]
        for sink in sinks:
            for start in range(0, 500, 50):
                part = lines[start : start + 50]
                if is_apart:
                    for line in part:
                        sink.write("web", line)
                else:
                    sink.write_lines("web", part)
            sink.close()
        return texts(directory) | {"JsonLines": target.getvalue().decode()}

    assert write_all(tmp_path / "apart", True) == write_all(tmp_path / "together", False)


def test_json_files(tmp_path: Path) -> None:
    with Files(tmp_path, format=json_line, suffix="jsonl") as files:
        files.write("web", ERR)
    assert json.loads((tmp_path / "web.stderr.jsonl").read_bytes())["base64"] == "b2gg/yBubw=="


def test_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    with pytest.raises(OSError, match="exists|directory"):
        (tmp_path / "file").write_text("")
        Parquet(tmp_path / "file")
    sink = Parquet(tmp_path / "lines", max_rows=3)
    for number in range(7):
        sink.write("web" if number % 2 else "db", Line(1 + number % 2, number, b"%d" % number))
    sink.write_lines("web", [Line(1, None, b"\xff", partial=True, details=b"k=%2C,\xff=")])
    sink.close()
    sink.flush()
    paths = sorted((tmp_path / "lines").iterdir())
    assert [pyarrow.parquet.read_metadata(path).num_rows for path in paths] == [3, 3, 2]
    table = pyarrow.parquet.read_table(tmp_path / "lines")
    assert table["line"].to_pylist() == [b"%d" % number for number in range(7)] + [b"\xff"]
    assert table["stream"].to_pylist() == [1, 2, 1, 2, 1, 2, 1, 1]
    assert table["source"].to_pylist() == ["db", "web", "db", "web", "db", "web", "db", "web"]
    assert table["timestamp"].cast("int64").to_pylist() == [*range(7), None]
    assert table["partial"].to_pylist() == [False] * 7 + [True]
    assert table["attrs"].to_pylist() == [None] * 7 + ["k=%2C,\ufffd="]
    everything = Parquet(tmp_path / "more", max_rows=3)
    everything.write_lines("\ud800", [Line(1, number, b"x") for number in range(7)])
    everything.close()
    more = [pyarrow.parquet.read_table(path) for path in sorted((tmp_path / "more").iterdir())]
    assert [each.num_rows for each in more] == [3, 3, 1]
    assert more[0]["source"].to_pylist() == ["?"] * 3
    assert more[0].schema == table.schema
    batch = pyarrow.table(muxframe.batches(b"", timestamps=True, details=True, source_name="web"))
    assert batch.schema.names == table.schema.names
    assert batch.schema.field("attrs").type == table.schema.field("attrs").type


def test_parquet_by_age_and_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pyarrow")
    now = [0.0]
    sink = Parquet(tmp_path, max_age=10, clock=lambda: now[0])
    sink.write("web", OUT)
    now[0] = 11
    monkeypatch.setattr(Path, "replace", _fail)
    with pytest.raises(OSError, match="No space"):
        sink.write("web", ERR)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.undo()
    sink.write("web", ERR)
    sink.close()
    assert len(list(tmp_path.iterdir())) == 2


def _fail(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_logging(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    sink = Logging("containers", stderr=logging.ERROR)
    sink.write("web", OUT)
    sink.write("web", Line(2, None, b"100% wrong"))
    sink.close()
    first, second = caplog.records
    assert (first.name, first.levelno, first.getMessage()) == ("containers", logging.INFO, "hello")
    assert (first.container, first.stream) == ("web", "stdout")  # type: ignore[attr-defined]
    assert first.created == pytest.approx(1_795_239_997.125648)
    assert first.msecs == 125
    assert (second.levelno, second.getMessage()) == (logging.ERROR, "100% wrong")


def test_a_slow_sink_holds_nobody_up() -> None:
    go_on = threading.Event()
    seen: list[bytes] = []

    def slow(_: Any, line: Line) -> None:
        go_on.wait(10)
        seen.append(line.data)

    sink = Queued(slow, max_bytes=5000)
    for number in range(100):
        sink.write("web", Line(1, None, b"%d" % number))
    assert sink.dropped > 50
    go_on.set()
    sink.flush()
    assert len(seen) + sink.dropped == 100
    assert seen == [b"%d" % number for number in range(len(seen))]
    sink.close()
    with pytest.raises(ValueError, match="closed"):
        sink.write("web", OUT)


def test_a_slow_sink_that_is_waited_for() -> None:
    seen: list[bytes] = []

    def slow(_: Any, line: Line) -> None:
        time.sleep(0.001)
        seen.append(line.data)

    sink = Queued(slow, max_bytes=2000, full="wait")
    for number in range(100):
        sink.write("web", Line(1, None, b"%d" % number))
    sink.close()
    assert seen == [b"%d" % number for number in range(100)]
    assert sink.dropped == 0


def test_a_queued_sink_that_fails() -> None:
    seen: list[bytes] = []

    def fail_once(_: Any, line: Line) -> None:
        if line.data == b"bad":
            raise OSError(errno.ENOSPC, "No space left on device")
        seen.append(line.data)

    sink = Queued(fail_once)
    for data in (b"one", b"bad", b"two"):
        sink.write("web", Line(1, None, data))
        time.sleep(0.01) if data != b"bad" else None
    with pytest.raises(OSError, match="No space"):
        sink.flush()
    sink.flush()
    assert seen == [b"one", b"two"]
    sink.close()


# --- wait_for --------------------------------------------------------------------------------------------------------


def starting(process: Process) -> None:
    process.write(b"starting\n")
    time.sleep(0.05)
    process.write(b"listening on port 8080\n", stream=2)
    time.sleep(0.05)
    process.write(b"first request\n")


def test_wait_for_a_line() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", starting))
        with muxframe.attach("web", host=engine.host) as session:
            found = wait_for(session, r"port (\d+)", timeout=10)
            assert found.match[1] == "8080"
            assert found.line.stream is Stream.STDERR
            assert [line.data for line in found.lines] == [b"starting", b"listening on port 8080"]
            assert session.timeout is None
            assert next(session.lines()).data == b"first request"
            with pytest.raises(NoMatchError, match="'never'") as caught:
                wait_for(session, "never", timeout=10)
            assert caught.value.lines == []


def test_wait_for_with_a_follower_and_bytes() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", starting))
        with muxframe.follow("web", host=engine.host, until="exited") as follower:
            assert wait_for(follower, rb"^first", timeout=10).line.data == b"first request"
            with pytest.raises(NoMatchError):
                wait_for(follower, "x")


def test_wait_for_in_vain() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", log=[(1, b"one\n")]))
        with muxframe.logs("web", host=engine.host, follow=True) as session:
            with pytest.raises(TimeoutError, match="'never' came in time") as caught:
                wait_for(session, "never", timeout=0.2)
            assert [line.data for line in caught.value.lines] == [b"one"]  # type: ignore[attr-defined]


def test_wait_for_on_asyncio() -> None:
    async def main(host: str) -> None:
        async with aio.attach("web", host=host) as session:
            found = await aio.wait_for(session, r"port (\d+)", timeout=10)
            assert found.match[1] == "8080"
            with pytest.raises(NoMatchError):
                await aio.wait_for(session, "never")
        async with aio.logs("idle", host=host, follow=True) as session:
            with pytest.raises(TimeoutError, match="came in time"):
                await aio.wait_for(session, "never", timeout=0.1)

    with LoopbackEngine() as engine:
        engine.add(Container("web", starting))
        engine.add(Container("idle"))
        asyncio.run(main(engine.host))
