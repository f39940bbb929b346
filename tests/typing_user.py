# pyright: strict
"""What a user's type checker makes of muxframe. Not run: tools/test has it checked, by mypy --strict and by pyright."""

import io
import re
import socket
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any, assert_type

import muxframe
import muxframe.aio
import muxframe.archive
import muxframe.cri
import muxframe.cri.aio
import muxframe.ingest
from muxframe import Checkpoint, Chunk, Copied, Demuxed, DemuxedInto, Frame, Gap, Line, LineBatch, Session, Stream
from muxframe.compat import stdcopy
from muxframe.ingest import Found, Source
from muxframe.testing import Container, Exec, Fault, Killed, LoopbackEngine, Process, Request, cat, say

# --- bytes in memory, files, sockets ---------------------------------------------------------------------------------


def whole_streams(wire: bytes, view: memoryview) -> None:
    parts = assert_type(muxframe.demux(wire), Demuxed)
    assert_type(parts.stdout, bytes)
    stdout, _ = muxframe.demux(view, truncated="ignore")
    assert_type(stdout, bytes)

    done = assert_type(muxframe.demux_into(wire, bytearray(9), None, max_frame_size=1 << 20), DemuxedInto)
    assert_type(done.consumed, int)

    assert_type(muxframe.pack_frame(1, b"text"), bytes)
    assert_type(muxframe.BACKEND, str)


def incremental(connection: socket.socket) -> None:
    demuxer = muxframe.Demuxer(raw=False)
    while data := connection.recv(65536):
        for stream, payload in assert_type(demuxer.feed(data), list[Chunk]):
            assert_type(stream, Stream)
            assert_type(payload, bytes)
    demuxer.feed_eof()
    assert_type(demuxer.feed_into(b"", bytearray(), bytearray()), DemuxedInto)
    assert_type(demuxer.get_buffer(), memoryview)
    assert_type(demuxer.buffer_updated(1), list[Chunk])
    assert_type((demuxer.offset, demuxer.frames), tuple[int, int])


def any_source(path: Path, connection: socket.socket, pieces: list[bytes]) -> None:
    for frame in assert_type(muxframe.frames(path), Iterator[Frame]):
        assert_type(frame.stream, Stream)
        assert_type(frame.payload, memoryview)

    for line in muxframe.lines(connection, timestamps=True):
        assert_type(line, Line)
        assert_type(line.timestamp, int | None)
        assert_type(line.data, bytes)
        assert_type(line.text, str)
        assert_type(line.attrs, dict[str, str])

    for batch in muxframe.batches(pieces, line_type="large_utf8"):
        assert_type(batch, LineBatch)
        assert_type(batch.num_rows, int)

    copied = assert_type(muxframe.copy(path, print, io.BytesIO()), Copied)
    assert_type(copied.stdout_size, int)
    muxframe.copy(0, 1, 2, delay=0.01)
    muxframe.copy(connection, "out", bytearray(), demuxer=muxframe.Demuxer())

    for part in assert_type(muxframe.recover(path), Iterator[Frame | Gap]):
        if isinstance(part, Gap):
            assert_type(part.reason, str)


def splitters(data: bytes) -> None:
    splitter = muxframe.LineSplitter(details=True)
    assert_type(splitter.feed(data) + splitter.flush() + splitter.feed_eof(), list[Line])
    builder = muxframe.BatchBuilder(source="web")
    assert_type(builder.feed(data) + builder.flush() + builder.feed_eof(), list[LineBatch])
    writer = muxframe.FrameWriter(io.BytesIO(), Stream.STDOUT)
    assert_type(writer, muxframe.FrameWriter)


def misspelt() -> None:
    print(muxframe.dmux)  # type: ignore[attr-defined]
    print(muxframe.aio.dmux)  # type: ignore[attr-defined]
    print(muxframe.ingest.dmux)  # type: ignore[attr-defined]


def failures(wire: bytes) -> None:
    try:
        muxframe.demux(wire)
    except muxframe.FramingError as error:
        assert_type(error.offset, int)
    try:
        muxframe.logs("web").close()
    except muxframe.NotFoundError as error:
        assert_type(error.status, int | None)
    except muxframe.NoMatchError as error:
        assert_type(error.lines, list[Line])


# --- engines ---------------------------------------------------------------------------------------------------------


def session(session: Session) -> None:
    assert_type(session.tty, bool)
    assert_type(session.exit_code, int | None)
    assert_type(session.closes_stdin, bool | None)
    assert_type(session.timeout, float | None)
    assert_type(session.write(b"in"), int)
    session.close_stdin()
    session.resize(height=25, width=80)
    for frame in session:
        assert_type(frame, Frame)
    for stream, payload in session.chunks():
        assert_type((stream, payload), Chunk)
    lines: Iterator[Line] = session.lines(max_line_size=1024)
    assert_type(next(lines), Line)
    assert_type(session.lines().flush(), list[Line])
    for batch in session.batches():
        assert_type(batch, LineBatch)
    assert_type(session.copy_to(1, 2), Copied)
    assert_type(session.read_all(), Demuxed)
    assert_type(session.wait(timeout=1), int)
    muxframe.lines(session.wire(), **session.line_options)
    session.close()


def engine() -> None:
    with muxframe.connect("unix:///run/docker.sock", timeout=5) as engine:
        assert_type(engine, muxframe.Engine)
        assert_type(engine.api_version, str)
        assert_type(engine.inspect("web"), dict[str, Any])
        assert_type(engine.wait("web", "removed"), int)
        with engine.attach("web", stdin=True) as attached, engine.exec("web", ["ls"], env={"A": "b"}) as executed:
            assert_type(attached, Session)
            assert_type(executed, Session)
        assert_type(engine.logs("web", follow=True, since=1.5), Session)
    assert_type(muxframe.attach("web", stdin=True), Session)
    assert_type(muxframe.exec("web", "ls -l"), Session)
    assert_type(muxframe.logs("web", tail=10), Session)


def followed(session: Session) -> None:
    with muxframe.follow("web", until="end") as follower:
        for line in follower:
            assert_type(line, Line)
        assert_type(follower.read(), list[Line])
        assert_type(follower.checkpoint, Checkpoint | None)

    with muxframe.gather("web", "db", labels={"tier": "back"}) as gathering:
        for source, line in gathering:
            assert_type(source, Source)
            assert_type(source.name, str)
            assert_type(line, Line)
        assert_type(gathering.read(), tuple[Source, list[Line]] | None)
        assert_type(gathering.checkpoints, dict[str, Checkpoint])

    found = assert_type(muxframe.wait_for(session, re.compile(r"ready in (\d+)"), timeout=30), Found)
    assert_type(found.line, Line)


def kept(source: Source, line: Line, path: Path) -> None:
    checkpoints = muxframe.ingest.CheckpointFile(path / "checkpoints")
    checkpoints.store({"web": Checkpoint("4bd2")})
    sinks: Sequence[muxframe.ingest.LineSink] = (
        muxframe.ingest.Files(path, max_size=1 << 20),
        muxframe.ingest.JsonLines(io.BytesIO()),
        muxframe.ingest.Parquet(path),
        muxframe.ingest.Logging("lines"),
        muxframe.ingest.Queued(muxframe.ingest.Files(path, format=muxframe.ingest.json_line)),
    )
    for sink in sinks:
        sink.write(source, line)
        sink.flush()
        sink.close()


def runtime() -> None:
    with muxframe.cri.connect() as runtime:
        assert_type(runtime.version(), muxframe.cri.Version)
        assert_type(runtime.containers(all=True), list[muxframe.cri.Container])
        assert_type(runtime.exec("c0ffee", ["ls"]), Session)
        assert_type(runtime.attach("c0ffee"), Session)
    assert_type(muxframe.cri.exec(None, "c0ffee", ["ls"]), Session)
    assert_type(muxframe.cri.connect_stream("wss://api", headers={"Authorization": "Bearer x"}), Session)


# --- asyncio ---------------------------------------------------------------------------------------------------------


async def asynchronous(pieces: AsyncIterator[bytes]) -> None:
    async for stream, payload in muxframe.aio.chunks(pieces):
        assert_type((stream, payload), Chunk)
    async for frame in muxframe.aio.frames(pieces):
        assert_type(frame, Frame)
    async with muxframe.aio.lines(pieces) as lines:
        assert_type(await lines.read(), list[Line])
    async for batch in muxframe.aio.batches(pieces):
        assert_type(batch, LineBatch)
    assert_type(await muxframe.aio.copy(pieces, 1, None), Copied)


async def asynchronous_engine() -> None:
    async with muxframe.aio.connect() as engine:
        assert_type(engine, muxframe.aio.Engine)
        assert_type(await engine.inspect("web"), dict[str, Any])
        async with engine.exec("web", "cat", stdin=True) as session:
            assert_type(session, muxframe.aio.Session)
            assert_type(await session.write(b"in"), int)
            await session.close_stdin()
            async for frame in session:
                assert_type(frame, Frame)
            async for stream, payload in session.chunks():
                assert_type((stream, payload), Chunk)
            lines: AsyncIterator[Line] = session.lines()
            assert_type(await anext(lines), Line)
            assert_type(session.lines().flush(), list[Line])
            assert_type(await session.copy_to(1, 2), Copied)
            assert_type(await session.read_all(), Demuxed)
            assert_type(await session.wait(), int)
    session = await muxframe.aio.logs("web")
    assert_type(session, muxframe.aio.Session)
    found = await muxframe.aio.wait_for(session, "ready", timeout=1)
    assert_type(found, Found)

    async with muxframe.aio.follow("web") as follower:
        async for line in follower:
            assert_type(line, Line)
    async with muxframe.aio.gather(labels=["tier=back"]) as gathering:
        async for source, line in gathering:
            assert_type((source, line), tuple[Source, Line])

    async with muxframe.cri.aio.connect() as runtime:
        assert_type(await runtime.containers(), list[muxframe.cri.Container])
        async with runtime.exec("c0ffee", ["ls"]) as session:
            assert_type(session, muxframe.aio.Session)


# --- archives, other libraries' names, tests -------------------------------------------------------------------------


def archives(session: Session, path: Path) -> None:
    recorded = muxframe.archive.record(session, path)
    assert_type(recorded.wire_size, int)
    archive = assert_type(muxframe.archive.open(path), muxframe.archive.Archive)
    assert_type(archive.raw, bool)
    assert_type(archive.lines(since=0), Iterator[Line])
    assert_type(archive.batches(), Iterator[LineBatch])
    assert_type(archive.slices(8), list[muxframe.archive.Slice])


def moby(source: io.BufferedReader) -> None:
    assert_type(stdcopy.StdCopy(io.BytesIO(), None, source), int)
    writer = assert_type(stdcopy.NewStdWriter(io.BytesIO(), stdcopy.Stderr), stdcopy.StdWriter)
    assert_type(writer.write(b"text"), int)


def script(process: Process) -> int:
    for line in process.stdin:
        process.write(line, stream=2)
    raise Killed(9)


def tested() -> None:
    with LoopbackEngine(flavor="podman", on_exec={"cat": cat}) as engine:
        assert_type(engine.host, str)
        container = engine.add(Container("web", script, log=[(1, b"ready\n")], labels={"tier": "front"}))
        assert_type(container, Container)
        assert_type(container.exit_code, int)
        engine.add(Container("db", say((1, b"text"), exit_code=3)))
        engine.fault("logs", Fault(), times=1)
        assert_type(engine.requests, list[Request])
        assert_type(engine.execs, list[Exec])
