"""aiodocker with muxframe's streams, on the engines that the environment names: see live.py."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from live import BLOB, ENGINES, Live, blob, eventually

peer = pytest.importorskip("aiodocker")

from muxframe.compat import aiodocker  # noqa: E402

pytestmark = pytest.mark.live

SIZE = 4 * 1024 * 1024
FOREVER = ["sleep", "1000000"]


@pytest.fixture(params=ENGINES)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with Live(request.param) as live, aiodocker.install():
        yield live


def use(live: Live, work: Callable[[Any], Awaitable[Any]]) -> Any:
    """Let work use aiodocker's client."""

    async def run() -> Any:
        async with asyncio.timeout(60), peer.Docker(url=live.host, api_version="v1.41") as client:
            return await work(client)

    return asyncio.run(run())


async def read_all(stream: Any) -> tuple[bytes, bytes]:
    parts: dict[int, list[bytes]] = {1: [], 2: []}
    while message := await stream.read_out():
        parts[message.stream].append(message.data)
    return b"".join(parts[1]), b"".join(parts[2])


def test_attach(live: Live) -> None:
    container = live.create(f"{BLOB} blob 1111111 {SIZE} & blob 2222222 {SIZE} >&2; wait")

    async def work(client: Any) -> Any:
        one = client.containers.container(container)
        async with one.attach(stdout=True, stderr=True) as stream:
            await one.start()
            return await read_all(stream)

    assert use(live, work) == (blob(1111111, SIZE), blob(2222222, SIZE))


def test_stdin_ends_and_output_goes_on(live: Live) -> None:
    container = live.create("md5sum; echo done", OpenStdin=True, StdinOnce=True)

    async def work(client: Any) -> Any:
        one = client.containers.container(container)
        async with one.attach(stdin=True, stdout=True, stderr=True) as stream:
            await one.start()
            for _ in range(10):
                await stream.write_in(b"hello")
            await stream.write_eof()
            return await read_all(stream)

    expected = f"{hashlib.md5(b'hello' * 10).hexdigest()}  -\ndone\n".encode()
    assert use(live, work) == (expected, b"")


def test_exec(live: Live) -> None:
    container = live.run(FOREVER)

    async def work(client: Any) -> Any:
        one = client.containers.container(container)
        exec = await one.exec(["sh", "-c", "cat; echo oops >&2; exit 3"], stdin=True)
        async with exec.start() as stream:
            await stream.write_in(b"hello\n")
            assert await stream.read_out() == (1, b"hello\n")
            await stream.write_eof()
            output = await read_all(stream)
        return output, (await exec.inspect())["ExitCode"]

    assert use(live, work) == ((b"", b"oops\n"), 3)


def test_exec_that_is_over_at_once(live: Live) -> None:
    container = live.run(FOREVER)

    async def work(client: Any) -> None:
        one = client.containers.container(container)
        for _ in range(5):
            exec = await one.exec(["echo", "hello"])
            async with exec.start() as stream:
                assert await read_all(stream) == (b"hello\n", b"")

    use(live, work)


def test_terminal(live: Live) -> None:
    container = live.run(FOREVER)

    async def work(client: Any) -> Any:
        exec = await client.containers.container(container).exec(["sh", "-c", "tty; echo é"], tty=True)
        async with exec.start() as stream:
            return await read_all(stream)

    stdout, stderr = use(live, work)
    assert stdout.startswith(b"/dev/pts/") and stdout.endswith("\r\né\r\n".encode()) and stderr == b""


def test_logs(live: Live) -> None:
    container = live.run_to_end("for i in $(seq 500); do echo $i; echo -$i >&2; done")

    async def work(client: Any) -> None:
        one = client.containers.container(container)
        text = await one.log(stdout=True, stderr=True)
        messages = await one.log(stdout=True, stderr=True, demux=True)
        followed = [message async for message in one.log(stdout=True, stderr=True, follow=True, demux=True)]
        for got in (messages, followed):
            for stream, sign in ((1, ""), (2, "-")):
                expected = "".join(f"{sign}{i}\n" for i in range(1, 501)).encode()
                assert b"".join(data for number, data in got if number == stream) == expected
        assert sorted("".join(text).split()) == sorted(str(sign * i) for sign in (1, -1) for i in range(1, 501))
        assert "".join(await one.log(stdout=True)) == "".join(f"{i}\n" for i in range(1, 501))

    use(live, work)


def test_cancelled_reads_lose_nothing(live: Live) -> None:
    container = live.run("for i in $(seq 200); do echo $i; sleep 0.002; done", Tty=False)

    async def work(client: Any) -> bytes:
        parts: list[bytes] = []
        async with client.containers.container(container).attach(stdout=True, logs=not live.is_podman) as stream:
            while True:
                try:
                    async with asyncio.timeout(0.001):
                        message = await stream.read_out()
                except TimeoutError:
                    continue
                if message is None:
                    return b"".join(parts)
                parts.append(message.data)

    received = use(live, work)
    assert "".join(f"{i}\n" for i in range(1, 201)).encode().endswith(received) and received


def test_closed_attach_lets_go(live: Live) -> None:
    container = live.run("cat", OpenStdin=True, StdinOnce=True)

    async def work(client: Any) -> None:
        async with client.containers.container(container).attach(stdin=True, stdout=True) as stream:
            await stream.write_in(b"hello\n")
            assert await stream.read_out() == (1, b"hello\n")

    use(live, work)
    eventually(lambda: not live.is_running(container))  # its stdin has ended
