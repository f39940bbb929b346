"""asyncio: every source on the standard loop and on uvloop, cancelled, paused, cut off and damaged."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import oracle
import pytest

from muxframe import (
    Copied,
    DaemonError,
    Demuxer,
    FrameTooLargeError,
    SinkError,
    TruncatedStreamError,
    UnknownStreamError,
    aio,
)

pack = oracle.pack
RNG = random.Random(11)
FRAMES = [(RNG.choice((0, 1, 1, 2, 2)), RNG.randbytes(RNG.choice((0, 1, 9, 100, 5000, 40_000)))) for _ in range(200)]
WIRE = b"".join(pack(*frame) for frame in FRAMES)
OUT = b"".join(payload for stream, payload in FRAMES if stream != 2)
ERR = b"".join(payload for stream, payload in FRAMES if stream == 2)
COPIED = Copied(len(OUT), len(ERR), len(FRAMES))

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def sending(wire: bytes, step: int = 3001) -> socket.socket:
    """Return a socket at whose other end a thread sends wire."""
    ours, theirs = socket.socketpair()

    def send() -> None:
        with theirs:
            for start in range(0, len(wire), step):
                try:
                    theirs.sendall(wire[start : start + step])
                except OSError:
                    return

    threading.Thread(target=send, daemon=True).start()
    return ours


def tcp_sending(wire: bytes) -> socket.socket:
    with socket.create_server(("127.0.0.1", 0)) as server:
        ours = socket.create_connection(server.getsockname())
        theirs, _ = server.accept()

    def send() -> None:
        with theirs:
            theirs.sendall(wire)

    threading.Thread(target=send, daemon=True).start()
    return ours


def pipe_sending(wire: bytes) -> Any:
    reading, writing = os.pipe()

    def send() -> None:
        with open(writing, "wb") as file:
            file.write(wire)

    threading.Thread(target=send, daemon=True).start()
    return open(reading, "rb", buffering=0)


async def stream_reader(wire: bytes) -> asyncio.StreamReader:
    reader = asyncio.StreamReader()

    async def feed() -> None:
        async for piece in pieces(wire):
            reader.feed_data(piece)
        reader.feed_eof()

    TASKS.add(task := asyncio.ensure_future(feed()))
    task.add_done_callback(TASKS.discard)
    return reader


TASKS: set[asyncio.Future[None]] = set()


async def pieces(wire: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(wire), 1234):
        yield wire[start : start + 1234]
        await asyncio.sleep(0)


async def source_of(kind: str, wire: bytes) -> Any:
    if kind == "StreamReader":
        return await stream_reader(wire)
    makers: dict[str, Any] = {"unix": sending, "tcp": tcp_sending, "pipe": pipe_sending, "iterable": pieces}
    return makers[kind](wire)


SOURCES = ["unix", "tcp", "StreamReader", "iterable", *(["pipe"] if os.name == "posix" else [])]


@pytest.mark.parametrize("kind", SOURCES)
def test_sources(run: Run, kind: str) -> None:
    async def main() -> None:
        got = [(frame.stream, bytes(frame)) async for frame in aio.frames(await source_of(kind, WIRE))]
        assert got == FRAMES
        parts: list[tuple[int, bytes]] = []
        async for stream, payload in aio.chunks(await source_of(kind, WIRE)):
            parts.append((stream, payload))
        assert b"".join(data for stream, data in parts if stream == 2) == ERR
        assert b"".join(data for _, data in parts) == b"".join(data for _, data in FRAMES)
        assert await aio.copy(await source_of(kind, WIRE), out := bytearray(), err := bytearray()) == COPIED
        assert (out, err) == (OUT, ERR)

    run(main())


@pytest.mark.parametrize("seed", range(30))
def test_against_the_oracle(seed: int) -> None:
    rng = random.Random(seed)
    wire = oracle.random_wire(rng)
    expected = oracle.decode(wire)

    async def cut() -> AsyncIterator[bytes]:
        for piece in oracle.cuts(wire, rng):
            yield piece

    async def main() -> None:
        got: list[tuple[int, bytes]] = []
        fault = None
        reader = aio.frames(cut(), max_frame_size=None)
        try:
            async for frame in reader:
                got.append((frame.stream, bytes(frame)))
        except (ValueError, DaemonError) as error:
            fault = error
        assert got == expected.frames
        assert (fault is None) == (expected.end == "clean")
        if expected.end == "truncated":
            assert isinstance(fault, TruncatedStreamError)
            assert fault.chunks == ([expected.partial] if expected.partial else [])

    asyncio.run(main())


BAD: dict[str, tuple[bytes, Any]] = {
    "unknown": (b"\x99", UnknownStreamError),
    "truncated": (pack(2, b"part", size=9), TruncatedStreamError),
    "systemerr": (pack(3, b"oh dear"), DaemonError),
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("kind", SOURCES)
def test_faults_come_after_what_was_before_and_stay(run: Run, name: str, kind: str) -> None:
    tail, error = BAD[name]
    partial = b"part" if name == "truncated" else b""

    async def main() -> None:
        got: list[tuple[int, bytes]] = []
        reader = aio.frames(await source_of(kind, WIRE + tail))
        with pytest.raises(error) as first:
            async for frame in reader:
                got.append((frame.stream, bytes(frame)))
        assert got == FRAMES
        assert first.value.offset == len(WIRE)
        assert first.value.chunks == ([(2, b"part")] if partial else [])
        with pytest.raises(error) as later:
            await anext(reader)
        assert later.value.chunks == []
        with pytest.raises(error) as caught:
            await aio.copy(await source_of(kind, WIRE + tail), out := bytearray(), err := bytearray())
        assert (out, err) == (OUT, ERR + partial)
        assert caught.value.delivered == Copied(len(OUT), len(err), len(FRAMES))

    run(main())


def test_truncated_on_request(run: Run) -> None:
    async def main() -> None:
        wire = WIRE + pack(2, b"part", size=9)
        assert len([frame async for frame in aio.frames(sending(wire), truncated="ignore")]) == len(FRAMES)
        copied = await aio.copy(sending(wire), None, err := bytearray(), truncated="ignore")
        assert copied.stderr_size == len(err) == len(ERR) + 4
        with pytest.raises(FrameTooLargeError):
            await aio.copy(sending(wire), None, max_frame_size=4999)

    run(main())


def test_a_cancelled_read_loses_nothing(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            async with aio.frames(ours) as reader:
                theirs.send(pack(1, b"first") + pack(2, b"second")[:9])
                assert bytes(await anext(reader)) == b"first"
                for _ in range(3):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.01):
                            await anext(reader)
                theirs.send(pack(2, b"second")[9:])
                assert bytes(await anext(reader)) == b"second"

    run(main())


@pytest.mark.parametrize("steps", range(1, 5))
def test_a_first_read_that_is_cancelled_while_it_connects_loses_nothing(run: Run, steps: int) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            theirs.send(pack(1, b"first"))
            async with aio.frames(ours) as reader:
                reading = asyncio.ensure_future(reader.read())
                for _ in range(steps):
                    await asyncio.sleep(0)
                reading.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    assert await reading
                    return
                assert bytes(await anext(reader)) == b"first"

    run(main())


def test_a_reader_that_is_closed_while_it_connects_closes_the_socket(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            reader = aio.frames(ours)
            reading = asyncio.ensure_future(reader.read())
            await asyncio.sleep(0)
            reading.cancel()
            reader.close()
            assert await reader.read() == []
            await asyncio.sleep(0.05)
            assert ours.fileno() == -1

    run(main())


def test_a_slow_reader_is_backpressure(run: Run) -> None:
    """Receiving pauses: the sender can put no more away than the sockets and HIGH_WATER hold."""
    wire = pack(1, b"x" * 32_000) * 600
    ours, theirs = socket.socketpair()
    sent = [0]

    def send() -> None:
        with theirs:
            for start in range(0, len(wire), 10_000):
                theirs.sendall(wire[start : start + 10_000])
                sent[0] = start

    async def main() -> None:
        threading.Thread(target=send, daemon=True).start()
        async with aio.chunks(ours) as reader:
            _, first = await anext(reader)
            await asyncio.sleep(0.3)
            assert sent[0] < aio.HIGH_WATER + 2_000_000 < len(wire)
            received = len(first)
            while batch := await reader.read():
                received += sum(len(payload) for _, payload in batch)
            assert received == 600 * 32_000

    run(main())


@pytest.mark.parametrize(("read", "piece"), [(aio.frames, pack(1, b"")), (aio.lines, pack(1, b"\n" * 100))])
def test_what_is_empty_is_backpressure_too(run: Run, read: Any, piece: bytes) -> None:
    """Empty frames and lines have no payload, but each takes memory while it waits."""
    wire = piece * (8_000_000 // len(piece))
    ours, theirs = socket.socketpair()
    sent = [0]

    def send() -> None:
        try:
            for start in range(0, len(wire), 10_000):
                theirs.sendall(wire[start : start + 10_000])
                sent[0] = start
        except OSError:  # the reader has left
            pass

    async def main() -> None:
        async with read(ours) as reader:
            thread = threading.Thread(target=send, daemon=True)
            thread.start()
            await anext(reader)
            await asyncio.sleep(0.5)
            assert sent[0] < 2_000_000
        await asyncio.to_thread(thread.join)
        theirs.close()

    run(main())


def test_close_ends_a_read(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            reader = aio.chunks(ours)
            waiting = asyncio.ensure_future(anext(reader, None))
            await asyncio.sleep(0.05)
            reader.close()
            assert await waiting is None
            assert await reader.read() == []
            await asyncio.sleep(0.05)
            assert ours.fileno() == -1

    run(main())


def test_a_reset_connection_is_an_error(run: Run) -> None:
    async def main() -> None:
        ours = tcp_sending(pack(1, b"x", size=9))
        theirs = ours.dup()
        theirs.close()
        with pytest.raises(TruncatedStreamError):
            await aio.copy(ours, out := bytearray())
        assert out == b"x"

    run(main())


@pytest.mark.parametrize("read", [aio.lines, aio.batches])
def test_lines_come_before_a_reset_and_after_close(run: Run, read: Any) -> None:
    def lines(items: list[Any]) -> list[bytes]:
        return [line.data for item in items for line in ([item] if read is aio.lines else item)]

    async def main(ending: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            ours = socket.create_connection(server.getsockname())
            theirs, _ = server.accept()
        expected = [b"one", b"two", b"prompt"] if read is aio.lines else [b"one", b"two"]
        with theirs:
            reader = read(ours)
            reader.timeout = 0.1
            theirs.sendall(pack(1, b"one\ntwo\nprompt"))
            found: list[Any] = []
            with contextlib.suppress(TimeoutError):
                while len(found) < 3:
                    found.append(await anext(reader))
            if ending == "close":
                reader.close()
                assert await reader.read() == []
                assert lines(found + reader.flush()) == expected
                return
            reader.timeout = None
            theirs.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        with pytest.raises(ConnectionResetError):
            while True:
                found.append(await anext(reader))
        assert lines(found) == expected
        assert reader.flush() == []

    for ending in ("reset", "close"):
        run(main(ending))


def test_sinks(run: Run) -> None:
    async def main() -> None:
        ours, theirs = socket.socketpair()
        _, writer = await asyncio.open_connection(sock=ours)
        received = bytearray()

        def drain() -> None:
            while piece := theirs.recv(10_000):
                received.extend(piece)

        thread = threading.Thread(target=drain, daemon=True)
        thread.start()
        seen: list[bytes] = []

        async def take(payload: bytes) -> None:
            await asyncio.sleep(0)
            seen.append(payload)

        assert await aio.copy(sending(WIRE), writer, take) == COPIED
        writer.close()
        await asyncio.to_thread(thread.join)
        theirs.close()
        assert (received, b"".join(seen)) == (OUT, ERR)
        merged: list[bytes] = []
        await aio.copy(sending(WIRE), merged.append, merged.append)
        assert b"".join(merged) == b"".join(payload for _, payload in FRAMES)

    run(main())


def test_a_failed_sink_can_be_replaced(run: Run) -> None:
    async def main() -> None:
        source = pieces(WIRE)
        demuxer = Demuxer()
        room = bytearray(100_000)
        with pytest.raises(SinkError) as caught:
            await aio.copy(source, memoryview(room), err := bytearray(), demuxer=demuxer)
        assert caught.value.delivered.stdout_size == len(room)
        out = bytearray(room)
        for stream, payload in caught.value.undelivered:
            if stream == 2:
                err += payload
            else:
                out += payload
        await aio.copy(source, out, err, demuxer=demuxer)
        assert (out, err) == (OUT, ERR)

    run(main())


@pytest.mark.parametrize("source", [None, b"bytes", "path", object()])
def test_no_source(source: Any) -> None:
    for read in (aio.chunks, aio.frames):
        with pytest.raises(TypeError, match="asynchronously"):
            read(source)
    with pytest.raises(ValueError, match="truncated must be"):
        aio.chunks(pieces(b""), truncated="perhaps")  # type: ignore[arg-type]
