"""The attach wrapper's asyncio shell on the engines that the environment names: see live.py."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live import BLOB, FOREVER, MEGABYTES, PATIENCE, STDIN, TERMINAL, Live, blob

import muxframe.aio
from muxframe import BadRequestError, ConflictError, NotFoundError, Stream

if TYPE_CHECKING:
    from muxframe.engine.aio import Session

pytestmark = pytest.mark.live

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


async def read_until(session: Session, expected: bytes) -> bytes:
    """Read pieces of either stream until what is expected is among them; return all of them."""
    received = bytearray()
    async with asyncio.timeout(PATIENCE):
        async for _, piece in session.chunks():
            received += piece
            if expected in received:
                return bytes(received)
    pytest.fail(f"the output ended without {expected!r}: {bytes(received)!r}")


async def echo(session: Session, data: bytes) -> bytes:
    """Write data in a task of its own, end stdin, and return what comes back."""

    async def feed() -> None:
        for i in range(0, len(data), 100_001):
            await session.write(data[i : i + 100_001])
        await session.close_stdin()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(feed())
        stdout, stderr = await session.read_all()
    assert stderr == b""
    return stdout


# --- payload ---------------------------------------------------------------------------------------------------------


async def by_copying(session: Session, directory: Path) -> list[bytes]:
    copied = await session.copy_to(directory / "out", directory / "err")
    assert (copied.stdout_size, copied.stderr_size) == (MEGABYTES, MEGABYTES)
    return [(directory / "out").read_bytes(), (directory / "err").read_bytes()]


async def by_chunks(session: Session, _: Path) -> list[bytes]:
    received = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    async for stream, data in session.chunks():
        received[stream] += data
    return [bytes(data) for data in received.values()]


async def by_frames(session: Session, _: Path) -> list[bytes]:
    received = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    async for stream, data in session:
        received[Stream(stream)] += data
    return [bytes(data) for data in received.values()]


async def by_cancelled_reads(session: Session, _: Path) -> list[bytes]:
    """Read with timeouts that mostly pass, of this session's and of asyncio's."""
    received = {Stream.STDOUT: bytearray(), Stream.STDERR: bytearray()}
    chunks, count, rng = session.chunks(), 0, random.Random(5)
    while True:
        session.timeout = rng.choice((None, 0.0005))
        try:
            async with asyncio.timeout(rng.choice((0, 0.0002, 0.001))):
                stream, data = await anext(chunks)
        except TimeoutError:
            count += 1
        except StopAsyncIteration:
            break
        else:
            received[stream] += data
    assert count > 0
    return [bytes(data) for data in received.values()]


@pytest.mark.parametrize("read", [by_copying, by_chunks, by_frames, by_cancelled_reads])
def test_both_streams(
    live: Live, run: Run, read: Callable[[Session, Path], Coroutine[Any, Any, list[bytes]]], tmp_path: Path
) -> None:
    container = live.create(f"{BLOB} blob 1000000 {MEGABYTES} & blob 4000000 {MEGABYTES} >&2; wait; exit 3")

    async def main() -> None:
        async with (
            muxframe.aio.connect(live.host) as engine,
            engine.attach(container, start=True) as session,
        ):
            assert (session.stream_type, session.tty) == ("multiplexed", False)
            received = await read(session, tmp_path)
            assert await session.wait(PATIENCE) == 3
        assert [digest(data) for data in received] == [digest(blob(first, MEGABYTES)) for first in (1000000, 4000000)]

    run(main())


# --- stdin -----------------------------------------------------------------------------------------------------------


def test_echo_of_attach(live: Live, run: Run) -> None:
    data = blob(1000000, MEGABYTES)
    container = live.create(["cat"], **STDIN)

    async def main() -> None:
        async with muxframe.aio.attach(container, host=live.host, stdin=True, start=True) as session:
            assert digest(await echo(session, data)) == digest(data)
            assert await session.wait(PATIENCE) == 0

    run(main())


def test_echo_of_exec(live: Live, run: Run) -> None:
    data = blob(1000000, MEGABYTES)
    container = live.run(FOREVER)

    async def main() -> None:
        async with muxframe.aio.exec(container, "cat", host=live.host, stdin=True) as session:
            assert digest(await echo(session, data)) == digest(data)
            assert session.exit_code == 0

    run(main())


def test_echo_over_websocket(live: Live, run: Run) -> None:
    pytest.importorskip("websockets")
    data = blob(1000000, 1_000_000)
    container = live.create("cat; sleep 0.3; echo merged >&2", **STDIN)

    async def main() -> None:
        engine = await muxframe.aio.connect(live.host)
        if live.is_podman:
            with pytest.raises(BadRequestError, match="no attach over a WebSocket"):
                await engine.attach(container, stdin=True, start=True, via="websocket")
            return
        async with engine.attach(container, stdin=True, start=True, via="websocket") as session:
            assert digest(await echo(session, data)) == digest(data + b"merged\n")
            assert await session.wait(PATIENCE) == 0

    run(main())


def test_timeout_of_writing_says_how_much_was_written(live: Live, run: Run) -> None:
    data = blob(1000000, MEGABYTES)
    container = live.create("sleep 1; exec cat", **STDIN)

    async def main() -> None:
        async with muxframe.aio.attach(container, host=live.host, stdin=True, start=True) as session:
            session.timeout = 0.3
            with pytest.raises(TimeoutError) as caught:
                await session.write(data)
            written = caught.value.characters_written  # type: ignore[attr-defined]
            assert 0 < written < len(data)
            session.timeout = PATIENCE
            assert digest(await echo(session, data[written:])) == digest(data)

    run(main())


# --- terminals, exits, errors ----------------------------------------------------------------------------------------


def test_terminal(live: Live, run: Run) -> None:
    container = live.create(["sh"], **TERMINAL)

    async def main() -> None:
        async with muxframe.aio.attach(container, host=live.host, stdin=True, start=True) as session:
            assert (session.stream_type, session.tty) == ("raw", True)
            await session.resize(33, 111)
            await session.write(b"until stty size | grep -x '33 111'; do sleep 0.1; done\n")  # Podman is not that fast
            await read_until(session, b"\r\n33 111\r\n")
            await session.write(b"exit 5\n")
            await session.read_all()
            assert await session.wait(PATIENCE) == 5

    run(main())


def test_exit_codes_of_exec(live: Live, run: Run) -> None:
    container = live.run(FOREVER)

    async def exit_code(command: str) -> int | None:
        async with muxframe.aio.exec(container, command, host=live.host) as session:
            await session.read_all()
            assert session.exit_code == await session.wait(PATIENCE)
            return session.exit_code

    async def main() -> None:
        not_found = 127 if live.is_podman else 126  # Docker says 127 from version 28 on
        expected = {
            "true": 0,
            "sh -c 'exit 7'": 7,
            "sh -c 'kill -9 $$'": 137,
            "/etc/passwd": 126,
            "/no/such/command": not_found,
        }
        assert await asyncio.gather(*map(exit_code, expected)) == list(expected.values())

    run(main())


def test_errors(live: Live, run: Run) -> None:
    container = live.run_to_end(["true"])

    async def main() -> None:
        engine = await muxframe.aio.connect(live.host)
        for open_it in (
            lambda: engine.attach("nosuch"),
            lambda: engine.exec("nosuch", "true"),
            lambda: engine.logs("nosuch"),
        ):
            with pytest.raises(NotFoundError):
                await open_it()
        with pytest.raises(ConflictError):
            await engine.attach(container)
        with pytest.raises(ConflictError):
            await engine.exec(container, "true")

    run(main())


def test_followed_log(live: Live, run: Run) -> None:
    container = live.run("read a; for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.3; done; exit 4", **STDIN)

    async def main() -> None:
        engine = await muxframe.aio.connect(live.host)
        async with engine.logs(container, follow=True) as log, engine.attach(container, stdin=True) as session:
            await session.write(b"go\n")
            assert await log.read_all() == (b"out 1\nout 2\nout 3\n", b"err 1\nerr 2\nerr 3\n")
            assert await session.wait(PATIENCE) == 4

    run(main())


# --- sessions as such ------------------------------------------------------------------------------------------------


def test_timeout_leaves_the_session_usable(live: Live, run: Run) -> None:
    container = live.create(["cat"], **STDIN)

    async def main() -> None:
        async with muxframe.aio.attach(container, host=live.host, stdin=True, start=True) as session:
            session.timeout = 0.2
            for data in (b"one", b"two"):
                await session.write(data)
                with pytest.raises(TimeoutError):
                    await session.read_all()
            session.timeout = PATIENCE
            await session.close_stdin()
            assert await session.read_all() == (b"onetwo", b"")

    run(main())


@pytest.mark.parametrize("way", ["frames", "chunks", "read_all", "wait", "write"])
def test_close_from_another_task(live: Live, way: str) -> None:
    container = live.run(FOREVER, **STDIN)

    async def main() -> None:
        session = await muxframe.aio.attach(container, host=live.host, stdin=True)
        asyncio.get_running_loop().call_later(0.3, session.close)
        async with asyncio.timeout(PATIENCE):
            if way == "frames":
                assert [frame async for frame in session] == []
            elif way == "chunks":
                assert [chunk async for chunk in session.chunks()] == []
            elif way == "read_all":
                assert await session.read_all() == (b"", b"")
            else:
                with pytest.raises((ValueError, muxframe.ConnectionLostError)):
                    await (session.wait() if way == "wait" else session.write(bytes(MEGABYTES)))
        assert session.closed
        await session.wait_closed()

    asyncio.run(main())


def test_fifty_sessions_at_once(live: Live, run: Run) -> None:
    container = live.run(FOREVER)

    async def session(number: int) -> None:
        data = b"session %d\n" % number * 5000
        async with muxframe.aio.exec(container, "cat", host=live.host, stdin=True) as session:
            assert await echo(session, data) == data
            assert session.exit_code == 0

    async def main() -> None:
        await session(0)  # a loop opens what it needs when it needs it
        before = len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())
        await asyncio.gather(*map(session, range(50)))
        assert (len(os.listdir("/proc/self/fd")), len(asyncio.all_tasks())) == before

    run(main())
