"""Archives as a dask DataFrame: in this thread, and by two workers on this machine."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from test_archive import MOMENT, line_frame, log, stamp

import muxframe
from muxframe import archive

dask = pytest.importorskip("dask")
pytest.importorskip("dask.dataframe")
pytest.importorskip("pyarrow")
read = pytest.importorskip("muxframe.dask").read


@pytest.fixture(autouse=True)
def _in_this_thread() -> Any:
    with dask.config.set(scheduler="synchronous"):
        yield


@pytest.fixture
def logs(tmp_path: Path) -> Path:
    """A directory of three archives, plain and compressed."""
    for number, suffix in enumerate(["", ".gz", ".gz"]):
        path = tmp_path / f"web-{number}{suffix}"
        archive.record(log(300, start=MOMENT + number * 10**12), path, timestamps=True, interval=3000)
    return tmp_path


def expected(directory: Path) -> list[tuple[int, int | None, str, str, bool]]:
    return [
        (int(line.stream), line.timestamp, line.text, f"file://{path}", line.partial)
        for path in sorted(directory.iterdir())
        if path.suffix != ".idx"
        for line in archive.open(path).lines()
    ]


def rows(frame: Any) -> list[Any]:
    frame = frame.compute()
    if "timestamp" in frame:
        frame["timestamp"] = frame["timestamp"].astype("int64")
    return list(frame.itertuples(index=False, name=None))


def test_all_of_it(logs: Path) -> None:
    frame = read(f"{logs}/web-*")
    assert frame.npartitions > 10
    assert list(frame.columns) == ["stream", "timestamp", "line", "source", "partial"]
    types = dict(zip(frame.columns, map(str, frame.dtypes)))
    assert types.pop("line") in ("large_string[pyarrow]", "string")  # dask may convert it
    assert types == {
        "stream": "int8[pyarrow]",
        "timestamp": "timestamp[ns, tz=UTC][pyarrow]",
        "source": "string[pyarrow]",
        "partial": "bool[pyarrow]",
    }
    assert frame.compute().dtypes.equals(frame.dtypes)
    assert rows(frame) == expected(logs)
    assert read([f"{logs}/web-0", f"{logs}/web-1.gz"], partitions=2).npartitions == 4
    assert rows(read(f"{logs}/web-*", partitions=1)) == expected(logs)


def test_some_of_it(logs: Path) -> None:
    frame = read(f"{logs}/web-*", columns=["line"])
    assert list(frame.columns) == ["line"]
    assert [row[0] for row in rows(frame)] == [row[2] for row in expected(logs)]
    since, until = MOMENT + 100 * 10**9, MOMENT + 10**12 + 20 * 10**9
    frame = read(f"{logs}/web-*", since=stamp(since), until=stamp(until))
    assert frame.npartitions < read(f"{logs}/web-*").npartitions / 2
    assert rows(frame) == [row for row in expected(logs) if row[1] is not None and since <= row[1] < until]
    assert rows(read(f"{logs}/web-*", since=stamp(MOMENT * 2 - MOMENT // 2))) == []
    binary = read(f"{logs}/web-0", line_type="large_binary", columns=["line"])
    assert rows(binary)[0] == (b"line 0",)


def test_without_index(logs: Path) -> None:
    for path in logs.glob("*.idx"):
        path.unlink()
    frame = read(f"{logs}/web-*", timestamps=True)
    assert frame.npartitions == 3
    assert len(rows(frame)) == 900
    assert "timestamp" not in read(f"{logs}/web-*").columns


def test_memory_stands_for_object_storage(logs: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in logs.iterdir():
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    try:
        assert [row[:3] for row in rows(read("memory://bucket/web-*"))] == [row[:3] for row in expected(logs)]
    finally:
        memory.rm("/bucket", recursive=True)


def test_misuse(logs: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no such column: lines; there are stream,"):
        read(f"{logs}/web-0", columns=["lines"])
    with pytest.raises(FileNotFoundError):
        read(f"{logs}/none-*")
    with pytest.raises(FileNotFoundError):
        read(f"{logs}/none")
    archive.record(log(3), tmp_path / "plain")
    with pytest.raises(ValueError, match="read them apart"):
        read([f"{logs}/web-0", f"{tmp_path}/plain"])
    with pytest.raises(ValueError, match="has no timestamps"):
        read(f"{tmp_path}/plain", since=0)
    (logs / "web-0.idx").write_bytes(b"nonsense")
    with pytest.raises(muxframe.ArchiveError, match="not an index"):
        read(f"{logs}/web-0")


def test_a_fault_is_raised_by_the_partition(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(log(300) + line_frame(1, MOMENT, b"x")[:-1])
    with pytest.raises(muxframe.TruncatedStreamError):
        archive.build_index(path, timestamps=True, interval=3000)
    frame = read(str(path))
    assert len(frame.partitions[0].compute()) > 10
    with pytest.raises(muxframe.TruncatedStreamError):
        frame.compute()


@pytest.mark.filterwarnings("ignore")  # of a cluster's start and end
def test_two_workers(logs: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    distributed = pytest.importorskip("distributed")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": True, "host": "127.0.0.1"}
    with (
        dask.config.set({"temporary-directory": str(tmp_path_factory.mktemp("dask"))}),
        distributed.LocalCluster(**options, dashboard_address="127.0.0.1:0") as cluster,
        distributed.Client(cluster) as client,
        dask.config.set(scheduler=client),
    ):
        frame = read(f"{logs}/web-*")
        assert rows(frame) == expected(logs)
        assert int(frame["partial"].sum().compute()) == 0
        owners = client.map(lambda _: os.getpid(), range(8), pure=False)
        assert os.getpid() not in client.gather(owners)
