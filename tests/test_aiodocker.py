"""aiodocker with muxframe's streams: against the loopback engine, and against a server that sends any wire."""

from __future__ import annotations

import asyncio
import bisect
import contextlib
import os
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from servers import server_context

from muxframe import (
    ConnectionLostError,
    DaemonError,
    FrameTooLargeError,
    FramingError,
    HandshakeError,
    Stream,
    TruncatedStreamError,
    UnknownStreamError,
    pack_frame,
)
from muxframe.compat import _patching
from muxframe.protocol import HEADER_SIZE
from muxframe.testing import Container, Fault, LoopbackEngine, Process, Service, cat, say

peer = pytest.importorskip("aiodocker")
aiohttp = pytest.importorskip("aiohttp")

from muxframe.compat import aiodocker  # noqa: E402

OUTPUT = [(1, b"out\n"), (2, b"err\n"), (1, b"more\n")]
WIRE = b"".join(pack_frame(stream, data) for stream, data in OUTPUT)
HIJACK = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Type: %s\r\n\r\n"
PLAIN = b"HTTP/1.1 200 OK\r\n\r\n"
RAW, MULTIPLEXED = b"application/vnd.docker.raw-stream", b"application/vnd.docker.multiplexed-stream"

Use = Callable[[Any], Awaitable[Any]]


@pytest.fixture(autouse=True)
def installed() -> Iterator[None]:
    with aiodocker.install():
        yield


@pytest.fixture(params=["unix", "tcp"])
def engine(request: pytest.FixtureRequest) -> Iterator[LoopbackEngine]:
    if request.param == "unix" and os.name != "posix":
        pytest.skip("there are no Unix sockets")
    with LoopbackEngine(transport=request.param, on_exec={"cat": cat}) as engine:
        yield engine


def use(host: str, work: Use) -> Any:
    """Let work use a client."""

    async def run() -> Any:
        async with asyncio.timeout(30), peer.Docker(url=host, api_version="v1.41") as client:
            return await work(client)

    return asyncio.run(run())


def use_wire(*pieces: bytes, work: Use, tty: bool = False) -> Any:
    """Let work use a client whose container's streams are these pieces, head and all."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer):
            try:
                while (await reader.readuntil(b"\r\n\r\n")).split(b" ")[1].endswith(b"/json"):
                    body = b'{"Id":"c","Config":{"Tty":%s}}' % (b"true" if tty else b"false")
                    kind = b"Content-Type: application/json\r\nContent-Length: %d" % len(body)
                    writer.write(b"HTTP/1.1 200 OK\r\n%s\r\n\r\n%s" % (kind, body))
            except asyncio.IncompleteReadError:
                return
            for piece in pieces:
                writer.write(piece)
                await asyncio.sleep(0.001)
            await writer.drain()

    async def run() -> Any:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        address, port = server.sockets[0].getsockname()
        url = f"http://{address}:{port}"
        async with asyncio.timeout(30), server, peer.Docker(url, api_version="v1.41") as client:
            return await work(client.containers.container("c"))

    return asyncio.run(run())


async def read_all(stream: Any) -> list[tuple[int, bytes]]:
    """Read to the end, as programs do."""
    messages = []
    while (message := await stream.read_out()) is not None:
        messages.append((message.stream, message.data))
    return messages


async def attach_to_end(container: Any) -> list[tuple[int, bytes]]:
    async with container.attach(stdout=True, stderr=True) as stream:
        return await read_all(stream)


async def fault_of(stream: Any) -> tuple[list[tuple[int, bytes]], Exception]:
    """Read up to a fault, which every later call raises, too."""
    messages = []
    with pytest.raises((FramingError, DaemonError, ConnectionLostError)) as caught:
        while message := await stream.read_out():
            messages.append((message.stream, message.data))
    with pytest.raises(type(caught.value)):
        await stream.read_out()
    return messages, caught.value


# --- installing ------------------------------------------------------------------------------------------------------


def test_uninstall_puts_everything_back() -> None:
    aiodocker.uninstall()
    places = (
        *(sys.modules[f"aiodocker.{name}"] for name in ("stream", "containers", "execs", "multiplexed", "services")),
        peer.containers.DockerContainer,
        peer.services.DockerServices,
        peer.docker.Docker,
    )
    before = [dict(vars(place)) for place in places]
    aiodocker.install()
    aiodocker.install()
    changed = [{name for name in old if vars(place)[name] is not old[name]} for place, old in zip(places, before)]
    results = {"multiplexed_result_stream", "multiplexed_result_list"}
    assert changed == [{"Stream"}, {"Stream", *results}, {"Stream"}, results, results, {"log"}, {"logs"}, set()]
    aiodocker.uninstall()
    aiodocker.uninstall()
    assert [dict(vars(place)) for place in places] == before


def test_context_manager() -> None:
    aiodocker.uninstall()
    own = peer.stream.Stream
    with aiodocker.install():
        assert peer.stream.Stream is aiodocker.Stream is not own
        with aiodocker.install():  # has nothing to do, and nothing to undo
            pass
        assert peer.stream.Stream is aiodocker.Stream
    assert peer.stream.Stream is own
    assert issubclass(aiodocker.Stream, own)


def test_unknown_version(monkeypatch: pytest.MonkeyPatch) -> None:
    aiodocker.uninstall()
    monkeypatch.setattr(_patching, "version", lambda package: f"99.0 of {package}")
    text = r"checked with aiodocker .*0\.27\.0, and this is 99\.0 of aiodocker"
    with pytest.warns(aiodocker.UncheckedVersionWarning, match=text) as caught:
        aiodocker.install()
    assert caught[0].filename == __file__


def test_patching() -> None:
    class Base:
        inherited = 1

    class Place(Base):
        own = staticmethod(len)

    before = dict(vars(Place))
    replacements: list[tuple[Any, str, Any]] = [(Place, "own", 2), (Place, "inherited", 3)]
    with _patching.Patch("aiodocker", aiodocker.CHECKED_VERSIONS, replacements).install():
        assert (Place.own, Place.inherited) == (2, 3)  # type: ignore[comparison-overlap]
    assert dict(vars(Place)) == before
    with pytest.raises(AttributeError, match="unheard"):
        _patching.Patch("aiodocker", aiodocker.CHECKED_VERSIONS, [*replacements, (Place, "unheard", 4)]).install()
    assert dict(vars(Place)) == before


def test_without_aiodocker() -> None:
    code = (
        "import sys, muxframe, muxframe.aio, muxframe.compat; assert 'aiodocker' not in sys.modules\n"
        "sys.modules['aiodocker'] = None\n"
        "import muxframe.compat.aiodocker"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "ModuleNotFoundError: muxframe.compat.aiodocker needs aiodocker: pip install aiodocker" in done.stderr


# --- payload ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        None,
        Fault(no_upgrade=True),
        Fault(no_upgrade=True, chunked=True),
        Fault(join=True),
        Fault(join=True, no_upgrade=True),
        Fault(dribble=0.0005),
        Fault(dribble=0.0005, no_upgrade=True),
        Fault(headers={"Content-Type": MULTIPLEXED.decode()}),
    ],
    ids=["101", "200", "chunked", "joined", "200 joined", "dribbled", "200 dribbled", "content type"],
)
def test_attach(engine: LoopbackEngine, fault: Fault | None) -> None:
    engine.add(Container("web", output=OUTPUT))
    if fault is not None:
        engine.fault("attach", fault)

    async def work(client: Any) -> Any:
        return await attach_to_end(client.containers.container("web"))

    assert use(engine.host, work) == OUTPUT


def test_all_in_one_packet() -> None:
    """Head, stream and end are there before anybody asks for them."""
    for head in (HIJACK % RAW, PLAIN, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(WIRE)):
        assert use_wire(head + WIRE, work=attach_to_end) == OUTPUT


@pytest.mark.parametrize("head", [HIJACK % RAW, PLAIN], ids=["101", "200"])
def test_every_cut(head: bytes) -> None:
    for cut in range(len(WIRE) + 1):
        assert use_wire(head + WIRE[:cut], WIRE[cut:], work=attach_to_end) == OUTPUT


def test_large_frames_are_whole() -> None:
    frame = bytes(range(256)) * 4096
    wire = pack_frame(1, frame) + WIRE
    assert use_wire(HIJACK % RAW, wire[:100], wire[100:300_000], wire[300_000:], work=attach_to_end) == [
        (1, frame),
        *OUTPUT,
    ]


def test_terminal() -> None:
    async def joined(container: Any) -> bytes:
        return b"".join(data for stream, data in await attach_to_end(container) if stream == 1)

    text = b"$ \xc3\xa4\x01\x00\x00\r\n"
    assert use_wire(HIJACK % RAW, text[:3], text[3:], work=joined, tty=True) == text
    assert use_wire(PLAIN + text, work=joined, tty=True) == text
    assert use_wire(HIJACK % MULTIPLEXED + WIRE, work=attach_to_end, tty=True) == OUTPUT  # some engines frame it


def test_messages_are_aiodockers() -> None:
    async def first(container: Any) -> Any:
        async with container.attach(stdout=True) as stream:
            assert isinstance(stream, aiodocker.Stream)
            return await stream.read_out()

    message = use_wire(HIJACK % RAW + WIRE, work=first)
    assert isinstance(message, peer.stream.Message) and message == (1, b"out\n") and type(message.data) is bytes
    assert message.stream is Stream.STDOUT


@pytest.mark.parametrize("no_upgrade", [False, True])
def test_stdin_ends_and_output_goes_on(engine: LoopbackEngine, no_upgrade: bool) -> None:
    engine.add(Container("idle"))
    engine.fault("exec-start", Fault(no_upgrade=no_upgrade))
    data = bytes(range(256)) * 8000

    async def work(client: Any) -> Any:
        exec = await client.containers.container("idle").exec(["cat"], stdin=True)
        async with exec.start() as stream, asyncio.TaskGroup() as tasks:

            async def feed() -> None:
                for start in range(0, len(data), 50_000):
                    await stream.write_in(data[start : start + 50_000])
                await stream.write_eof()
                with pytest.raises(RuntimeError):
                    await stream.write_in(b"too late")

            tasks.create_task(feed())
            return b"".join([piece for _, piece in await read_all(stream)])

    assert use(engine.host, work) == data


def test_half_close_over_tls_is_refused(certificates: Any) -> None:
    trusted = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
    trusted.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 wants more than openssl's defaults write
    with LoopbackEngine(tls=server_context(certificates), on_exec={"cat": cat}) as engine:
        engine.add(Container("idle"))
        host = engine.host.replace("tcp://", "https://")

        async def work() -> Any:
            async with asyncio.timeout(30), peer.Docker(host, ssl_context=trusted) as client:
                exec = await client.containers.container("idle").exec(["cat"], stdin=True)
                async with exec.start() as stream:
                    await stream.write_in(b"hello")
                    message = await stream.read_out()
                    with pytest.raises(NotImplementedError, match="TLS"):
                        await stream.write_eof()
            await asyncio.sleep(0.2)  # aiohttp does not wait for the ends of TLS
            return message

        assert asyncio.run(work()) == (1, b"hello")


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("no_upgrade", [False, True])
def test_end_inside_a_frame(engine: LoopbackEngine, no_upgrade: bool) -> None:
    starts = (0, 12, 24, len(WIRE))
    for cut in range(len(WIRE) + 1):
        engine.add(Container(f"c{cut}", output=OUTPUT))
        engine.fault("attach", Fault(cut=cut, no_upgrade=no_upgrade), times=1)

        async def work(client: Any, cut: int = cut) -> None:
            stream = client.containers.container(f"c{cut}").attach(stdout=True, stderr=True)
            async with stream:
                if cut in starts:
                    assert await read_all(stream) == OUTPUT[: starts.index(cut)]
                    return
                messages, fault = await fault_of(stream)
            whole = bisect.bisect(starts, cut) - 1
            assert isinstance(fault, TruncatedStreamError) and fault.offset == starts[whole]
            part = WIRE[starts[whole] + HEADER_SIZE : cut]
            assert messages == OUTPUT[:whole] + ([(OUTPUT[whole][0], part)] if part else [])

        use(engine.host, work)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (b"\x01\0\0\0\xff\xff\xff\xff" + bytes(1000), FrameTooLargeError),
        (b"HTTP", UnknownStreamError),
        (pack_frame(3, b"no such driver"), DaemonError),
    ],
    ids=["4 GiB", "no frame", "daemon"],
)
def test_bad_frames(bad: bytes, error: type[Exception]) -> None:
    async def work(container: Any) -> Any:
        async with container.attach(stdout=True, stderr=True) as stream:
            return await fault_of(stream)

    messages, fault = use_wire(HIJACK % RAW, WIRE + bad, WIRE, work=work)
    assert messages == OUTPUT and isinstance(fault, error)


@pytest.mark.parametrize("no_upgrade", [False, True])
def test_broken_connection_is_no_end(no_upgrade: bool) -> None:
    with LoopbackEngine(transport="tcp") as engine:
        engine.add(Container("web", output=[b"out\n", b"more\n"]))
        engine.fault("attach", Fault(reset=12, no_upgrade=no_upgrade))

        async def work(client: Any) -> Any:
            async with client.containers.container("web").attach(stdout=True) as stream:
                return await fault_of(stream)

        messages, fault = use(engine.host, work)
        assert isinstance(fault, ConnectionLostError) and messages in ([], [(1, b"out\n")])  # a reset may overtake


def test_upgrade_that_is_none() -> None:
    with pytest.raises(HandshakeError, match="speak of no upgrade"):
        use_wire(b"HTTP/1.1 101 UPGRADED\r\n\r\n", work=attach_to_end)


def test_refusals_are_aiodockers(engine: LoopbackEngine) -> None:
    engine.add(Container("paused", state="paused"))

    async def work(client: Any) -> None:
        stream = client.containers.container("paused").attach(stdout=True)
        for _ in range(2):
            with pytest.raises(peer.DockerError) as caught:
                await stream.read_out()
            assert caught.value.status == 409
        await stream.close()

    use(engine.host, work)


# --- tasks -----------------------------------------------------------------------------------------------------------


def test_cancelled_reads_lose_nothing(engine: LoopbackEngine) -> None:
    output = [(1 + i % 2, b"%d\n" % i) for i in range(300)]

    def slowly(process: Process) -> int:
        for stream, data in output:
            process.write(data, stream=stream)
            time.sleep(0.001)
        return 0

    engine.add(Container("web", slowly))

    async def work(client: Any) -> Any:
        cancelled, messages = 0, list[Any]()
        async with client.containers.container("web").attach(stdout=True, stderr=True) as stream:
            while True:
                try:
                    async with asyncio.timeout((0, 0.0005, 0.002)[len(messages) % 3 + cancelled % 2 - 1]):
                        message = await stream.read_out()
                except TimeoutError:
                    cancelled += 1
                else:
                    if message is None:
                        break
                    messages.append(message)
        assert cancelled > 50
        return messages

    assert use(engine.host, work) == output


def test_cancelled_opening_goes_on(engine: LoopbackEngine) -> None:
    """A command is started once, whoever gave up waiting for it."""
    engine.add(Container("idle"))
    engine.fault("exec-start", Fault(delay=0.2))

    async def work(client: Any) -> Any:
        exec = await client.containers.container("idle").exec(["cat"], stdin=True)
        stream = exec.start()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02):
                await stream.read_out()
        reading = asyncio.ensure_future(stream.read_out())
        await stream.write_in(b"hello")
        message = await reading
        await stream.close()
        return message

    assert use(engine.host, work) == (1, b"hello")
    assert sum(request.path.endswith("/start") for request in engine.requests) == 1


def test_given_up_opening_leaves_nothing(engine: LoopbackEngine) -> None:
    engine.add(Container("web", output=OUTPUT))
    engine.fault("attach", Fault(delay=0.3))

    async def work(client: Any) -> None:
        stream = client.containers.container("web").attach(stdout=True)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.02), stream:
                pass
        other = client.containers.container("web").attach(stdout=True)
        reading = asyncio.ensure_future(other.read_out())
        await asyncio.sleep(0.02)
        await other.close()
        with pytest.raises(ConnectionLostError, match="closed while it was being opened"):
            await reading
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    use(engine.host, work)


@pytest.mark.parametrize("no_upgrade", [False, True])
def test_close_ends_a_blocked_read(engine: LoopbackEngine, no_upgrade: bool) -> None:
    engine.add(Container("idle", open_stdin=True))
    engine.fault("attach", Fault(no_upgrade=no_upgrade))

    async def work(client: Any) -> None:
        async with client.containers.container("idle").attach(stdout=True, stdin=True) as stream:
            reading = asyncio.ensure_future(stream.read_out())
            await asyncio.sleep(0.02)
            await stream.close()
            await stream.close()
            assert await reading is None
            assert await stream.read_out() is None
            with pytest.raises(RuntimeError, match="closed"):
                await stream.write_in(b"x")

    use(engine.host, work)


def test_writing_to_nobody(engine: LoopbackEngine) -> None:
    engine.add(Container("web", output=OUTPUT, open_stdin=True))

    async def work(client: Any) -> None:
        async with client.containers.container("web").attach(stdout=True, stderr=True, stdin=True) as stream:
            assert await read_all(stream) == OUTPUT
            with pytest.raises((ConnectionLostError, ConnectionError)):
                await stream.write_in(b"x")

    use(engine.host, work)


@pytest.mark.parametrize("no_upgrade", [False, True])
def test_slow_reader_holds_the_engine_back(engine: LoopbackEngine, no_upgrade: bool) -> None:
    total, piece = 0, bytes(32 * 1024)
    is_done = threading.Event()

    def pour(process: Process) -> int:
        nonlocal total
        while total < 24 * 1024 * 1024:
            process.write(piece)
            total += len(piece)
        is_done.set()
        return 0

    engine.add(Container("web", pour))
    engine.fault("attach", Fault(no_upgrade=no_upgrade))

    async def work(client: Any) -> int:
        async with client.containers.container("web").attach(stdout=True) as stream:
            read = len((await stream.read_out()).data)
            await asyncio.sleep(0.3)
            assert not is_done.is_set() and total < 12 * 1024 * 1024
            return read + sum([len(data) for _, data in await read_all(stream)])

    assert use(engine.host, work) == 24 * 1024 * 1024


# --- logs ------------------------------------------------------------------------------------------------------------


def test_log(engine: LoopbackEngine) -> None:
    engine.add(Container("web", state="exited", output=OUTPUT))

    async def work(client: Any) -> None:
        web = client.containers.container("web")
        assert await web.log(stdout=True, stderr=True) == ["out\n", "err\n", "more\n"]
        assert await web.log(stderr=True) == ["err\n"]
        assert [text async for text in web.log(stdout=True, stderr=True, follow=True)] == ["out\n", "err\n", "more\n"]
        assert await web.log(stdout=True, stderr=True, demux=True) == OUTPUT
        assert await web.log(stdout=True, stderr=True, demux=True, tail=1) == OUTPUT[-1:]
        messages = [message async for message in web.log(stdout=True, stderr=True, follow=True, demux=True)]
        assert messages == OUTPUT and isinstance(messages[0], peer.stream.Message)
        with pytest.raises(TypeError, match="Need one of stdout or stderr"):
            web.log(demux=True)

    use(engine.host, work)


def test_log_of_a_service() -> None:
    with LoopbackEngine() as engine:
        engine.add(Service("web", state="exited", output=OUTPUT))

        async def work(client: Any) -> None:
            assert await client.services.logs("web", stdout=True, stderr=True) == ["out\n", "err\n", "more\n"]
            assert await client.services.logs("web", stdout=True, stderr=True, demux=True) == OUTPUT
            followed = client.services.logs("web", stdout=True, stderr=True, follow=True, demux=True)
            assert [message async for message in followed] == OUTPUT

        use(engine.host, work)


def test_characters_are_decoded_by_stream() -> None:
    """A character of stdout is cut by a frame of stderr."""
    pieces = [(1, b"\xe2\x82"), (2, b"\xc3\xa4"), (1, b"\xac \xff"), (2, b"\xc3")]
    wire = b"".join(pack_frame(stream, piece) for stream, piece in pieces)

    async def text(container: Any) -> Any:
        return await container.log(stdout=True, stderr=True)

    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"
    assert use_wire(answer % (len(wire), wire), work=text) == ["ä", "€ \ufffd", "\ufffd"]
    assert "".join(use_wire(answer % (4, b"\xe2\x82\xac\n"), work=text, tty=True)) == "€\n"


def test_end_inside_a_frame_of_a_log() -> None:
    async def work(container: Any) -> None:
        with pytest.raises(TruncatedStreamError) as caught:
            await container.log(stdout=True, stderr=True, demux=True)
        assert caught.value.chunks == [*OUTPUT[:2], (1, b"mo")]
        with pytest.raises(TruncatedStreamError):
            await container.log(stdout=True, stderr=True)
        texts = []
        with pytest.raises(TruncatedStreamError):
            async for text in container.log(stdout=True, stderr=True, follow=True):
                texts.append(text)
        assert texts == ["out\n", "err\n", "mo"]

    use_wire(PLAIN + WIRE[:34], work=work)


def test_log_left_early_is_closed(engine: LoopbackEngine) -> None:
    engine.add(Container("web", say(b"line\n")))

    async def work(client: Any) -> None:
        async for message in client.containers.container("web").log(stdout=True, follow=True, demux=True):
            assert message == (1, b"line\n")
            break

    use(engine.host, work)


def test_timeout_of_a_log_is_no_end(engine: LoopbackEngine) -> None:
    engine.add(Container("web", output=OUTPUT, state="exited"))
    engine.fault("logs", Fault(stall=40))

    async def work(client: Any) -> None:
        timeout = aiohttp.ClientTimeout(sock_read=0.2)
        log = client.containers.container("web").log(stdout=True, stderr=True, follow=True, demux=True, timeout=timeout)
        messages = []
        with pytest.raises(TimeoutError):
            async for message in log:
                messages.append(message)
        assert messages and messages == OUTPUT[: len(messages)]

    use(engine.host, work)
    engine.release()
