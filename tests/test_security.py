"""What SECURITY.md promises and no other test holds: floods, bombs, slow feeding, terminals, secrets."""

from __future__ import annotations

import asyncio
import copy as copying
import gzip
import json
import logging
import os
import pickle
import re
import ssl
import time
import tracemalloc
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import oracle
import pytest
from servers import read_to_end, server_context, serving, tcp_listener

import muxframe
import muxframe.aio
from muxframe import archive, batches, lines
from muxframe.archive import reading
from muxframe.cli import main
from muxframe.compat.stdcopy import StdCopyError
from muxframe.engine import calls, handshake
from muxframe.engine.calls import Api
from muxframe.engine.dial import dial
from muxframe.engine.endpoint import Tls, find_endpoints, parse_endpoint
from muxframe.engine.handshake import Conversation, Request, Response
from muxframe.engine.hyper import HyperAuth
from muxframe.engine.podman import RepairedReplay
from muxframe.errors import (
    BadRequestError,
    CheckpointError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    HandshakeError,
)
from muxframe.ingest import AsyncGathering, Checkpoint
from muxframe.ingest.following import Ask, Following, Pause
from muxframe.ingest.gather import Source
from muxframe.testing import Container, Fault, LoopbackEngine

#: Clears the screen, hides what was before it, turns text around, and what C1 has for an escape.
NASTY = "no\x1b[2J\rnever mind\x9b1m\u202egnihton"
MESSAGE = f"{NASTY}\nanother line"


def is_harmless(text: str) -> bool:
    return all(each.isprintable() or each in "\n\t" for each in text)


# --- work is linear in what came -------------------------------------------------------------------------------------


def check_is_linear(work: Callable[[int], object], size: int) -> None:
    """Four times as much takes about four times as long; what is quadratic takes sixteen times."""
    seconds = []
    for each in (size, 4 * size):
        begun = time.process_time()
        work(each)
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 8 * seconds[0] + 0.3, seconds


EMPTY = oracle.pack(1, b"")

READERS: dict[str, Callable[[bytes], object]] = {
    "feed": lambda wire: muxframe.Demuxer().feed(wire),
    "demux": lambda wire: [each for each in muxframe.demux(wire) if each],
    "copy": lambda wire: [] if muxframe.copy(wire, None)[:2] == (0, 0) else ["something"],
    "frames": lambda wire: [each for each in muxframe.frames(wire) if bytes(each)],
    "lines": lambda wire: list(lines(wire)),
    "batches": lambda wire: list(batches(wire)),
}


@pytest.mark.parametrize("name", READERS)
def test_empty_frames_without_end(name: str) -> None:
    def read(count: int) -> None:
        assert READERS[name](EMPTY * count) == []

    check_is_linear(read, 50_000)


def test_empty_frames_take_no_memory() -> None:
    wire = EMPTY * 20_000
    demuxer, splitter, builder = muxframe.Demuxer(), muxframe.LineSplitter(), muxframe.BatchBuilder()
    tracemalloc.start()
    try:
        for each in (demuxer, splitter, builder):
            assert each.feed(wire) == []
        assert tracemalloc.get_traced_memory()[0] < 100_000
    finally:
        tracemalloc.stop()


def test_a_session_of_empty_frames() -> None:
    with LoopbackEngine() as engine:
        engine.fault("logs", Fault(garbage=b"HTTP/1.0 200 OK\r\n\r\n" + EMPTY * 100_000 + oracle.pack(1, b"at last\n")))
        engine.add(Container("c"))
        with muxframe.connect(engine.host, timeout=30).logs("c", tty=False) as session:
            assert [line.data for line in session.lines()] == [b"at last"]


def one_by_one(feed: Callable[[bytes], object], data: bytes) -> None:
    for i in range(len(data)):
        feed(data[i : i + 1])


def read_slowly(wire: bytes) -> list[Any]:
    """Read frames from a source that gives one byte at a time."""
    return list(muxframe.frames(wire[i : i + 1] for i in range(len(wire))))


def receive_slowly(head: bytes, data: bytes, *, is_stream: bool) -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/"), stream=is_stream)
    conversation.receive(head)
    if is_stream:
        body = conversation.take_over()[1]
        assert body is not None
        one_by_one(body.feed, data)
    else:
        one_by_one(conversation.receive, data)


def websocket(data: bytes) -> None:
    websockets = pytest.importorskip("muxframe.engine.websocket")
    one_by_one(websockets.WebSocketBody().feed, b"\x82\x7f" + len(data).to_bytes(8, "big") + data)


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"
SLOWLY: dict[str, Callable[[bytes], object]] = {
    "demuxer": lambda data: one_by_one(muxframe.Demuxer().feed, oracle.pack(1, data)),
    "frames": lambda data: read_slowly(oracle.pack(1, data)),
    "a line": lambda data: one_by_one(muxframe.LineSplitter().feed, oracle.pack(1, data)),
    "a batch": lambda data: one_by_one(muxframe.BatchBuilder().feed, oracle.pack(1, data)),
    "a daemon's error": lambda data: one_by_one(muxframe.Demuxer().feed, oracle.pack(3, data)[:-1]),
    "a head": lambda data: receive_slowly(OK, b"X: " + data[:60_000], is_stream=False),
    "a body": lambda data: receive_slowly(OK + b"Content-Length: 1000000\r\n\r\n", data, is_stream=False),
    "a chunk": lambda data: receive_slowly(CHUNKED, b"%x\r\n%s" % (len(data), data), is_stream=True),
    "a replay": lambda data: one_by_one(RepairedReplay().feed, oracle.pack(1, data)),
    "a WebSocket": websocket,
}


@pytest.mark.parametrize("name", SLOWLY)
def test_one_byte_at_a_time(name: str) -> None:
    check_is_linear(lambda size: SLOWLY[name](b"x" * size), 15_000)


def test_messages_without_end() -> None:
    """Empty messages of a WebSocket, whole and in fragments."""
    pytest.importorskip("websockets")
    from muxframe.cri.channel import ChannelBody

    def flood(count: int) -> None:
        for wire in (b"\x82\x00" * count, b"\x02\x00" + b"\x00\x00" * count):
            body = ChannelBody("v5.channel.k8s.io")
            assert b"".join(body.feed(wire[i : i + 65536]) for i in range(0, len(wire), 65536)) == b""

    check_is_linear(flood, 10_000)


# --- memory is bounded -----------------------------------------------------------------------------------------------


@contextmanager
def at_most(size: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < size
    finally:
        tracemalloc.stop()


def test_a_body_in_small_chunks_is_no_larger() -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/"))
    conversation.receive(CHUNKED)
    with at_most(500_000):
        for _ in range(40):
            conversation.receive(b"2\r\nxx\r\n" * 500)
    conversation.receive(b"0\r\n\r\n")
    assert conversation.response.body == b"x" * 40_000


@pytest.mark.parametrize("suffix", [".gz", ".zst"])
def test_a_bomb_in_an_archive(tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte is a line, of 64 MiB that are some KiB in the file. Blocks are small here: lines cost time to make."""
    monkeypatch.setattr(archive.codecs, "BLOCK_SIZE", 8192)
    path, plain = tmp_path / f"a{suffix}", b"\n" * (64 << 20)
    if suffix == ".gz":
        path.write_bytes(gzip.compress(plain))
    else:
        path.write_bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(plain))
    assert path.stat().st_size < 100_000
    del plain
    opened = archive.open(path, raw=True)
    for items in (opened.lines(), opened.batches(max_lines=1000)):
        with at_most((8 if suffix == ".gz" else 48) << 20):
            assert next(iter(items))


def test_an_index_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    archive.record(oracle.pack(1, b"line\n"), path)
    size = path.with_name("a.idx").stat().st_size
    monkeypatch.setattr(reading, "MAX_INDEX_SIZE", size)
    assert list(archive.open(path).lines())
    monkeypatch.setattr(reading, "MAX_INDEX_SIZE", size - 1)
    with pytest.raises(muxframe.ArchiveError, match=f"is larger than {size - 1} bytes"):
        archive.open(path)


def test_compression_of_messages_is_off() -> None:
    websocket = pytest.importorskip("muxframe.engine.websocket")
    assert not [name for name in websocket.upgrade_headers() if "extension" in name.lower()]
    body = websocket.WebSocketBody()
    with pytest.raises(ConnectionLostError, match="reserved bits"):
        body.feed(b"\xc2\x03abc")


@pytest.mark.parametrize("text", ["[" * 100_000, '{"a":' * 100_000, '{"Id": %s}' % ("9" * 10_000), '"\\ud800', "NaN,"])
def test_json_that_is_a_bomb(text: str, tmp_path: Path) -> None:
    data = text.encode()
    with pytest.raises(HandshakeError, match="no JSON"):
        Response(200, "OK", {}, data).json()
    with pytest.raises(EngineError):
        Response(500, "", {}, data).check()
    with pytest.raises(CheckpointError):
        Checkpoint.from_str(text)
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match="not valid JSON"):
        find_endpoints(environ={"DOCKER_CONFIG": str(tmp_path)})
    with pytest.raises(ValueError, match="not a configuration of Hyper's"):
        HyperAuth(environ={"HYPER_CONFIG": str(tmp_path)})


@pytest.mark.parametrize("number", ["1e3", "1" * 30, "-1", "true", "null", '"1"'])
def test_a_checkpoint_of_someone_elses_making(number: str) -> None:
    for text in (f'[1,"c",{number},null,null]', f'[1,"c",0,[0,{number},0,0],null]'):
        with pytest.raises(CheckpointError):
            Checkpoint.from_str(text)


# --- a hostile engine ------------------------------------------------------------------------------------------------

LISTED = {"Id": "abc", "Names": ["/web"], "Labels": {}, "State": "running"}


def list_containers(listed: Any) -> Any:
    flow = calls.containers(Api((1, 45)))
    next(flow)
    try:
        flow.send(Response(200, "OK", {"date": "Mon, 01 Jan 0001 00:00:00 -0000"}, json.dumps(listed).encode()))
    except StopIteration as end:
        return end.value
    raise AssertionError


@pytest.mark.parametrize(
    "change",
    [
        *({"Id": value} for value in (["a"], "", "a/../b", "a\n", None)),
        *({"Names": value} for value in (5, [5], "web")),
        {"Labels": [1]},
    ],
)
def test_a_list_of_containers_that_is_none(change: dict[str, Any]) -> None:
    assert list_containers([LISTED])[0] == [LISTED]
    with pytest.raises(HandshakeError, match="no list of containers"):
        list_containers([LISTED, LISTED | change])


def test_a_hundred_thousand_containers() -> None:
    """Those that do not run cost no task and no connection."""

    async def take(count: int) -> None:
        gathering = AsyncGathering(None, ())  # type: ignore[arg-type]
        listed = [LISTED | {"Id": f"{i:064x}", "State": "exited"} for i in range(count)]
        gathering._take_list(list_containers(listed)[0])
        assert not gathering._tasks and not gathering.sources

    check_is_linear(lambda count: asyncio.run(take(count)), 25_000)


@pytest.mark.parametrize(
    "event",
    [
        "[" * 100_000,
        "5",
        '{"Action":"start"}',
        '{"Action":"start","Actor":{"ID":"abc"},"time":"x"}',
        '{"Action":"start","Actor":{"ID":"abc"},"time":[]}',
    ],
)
def test_an_event_that_is_none(event: str, caplog: pytest.LogCaptureFixture) -> None:
    async def take() -> None:
        gathering = AsyncGathering(None, ())  # type: ignore[arg-type]
        gathering._take_event(None, event.encode())  # type: ignore[arg-type]

    with caplog.at_level(logging.WARNING):
        asyncio.run(take())
    assert "not an event" in caplog.text
    assert len(caplog.text) < 1000


@pytest.mark.parametrize("info", [{}, {"Id": None}, {"Id": ""}, {"Id": "../x"}, {"Id": ["a"]}])
def test_a_container_without_an_id(info: dict[str, Any]) -> None:
    steps = Following("web").steps()
    assert isinstance(next(steps), Ask)
    assert isinstance(steps.send(info), Pause), "it is asked again"
    with LoopbackEngine() as engine:
        engine.add(Container("c"))
        body = json.dumps({**info, "State": {"Status": "created"}}).encode()
        engine.fault("inspect", Fault(garbage=OK + b"Content-Length: %d\r\n\r\n" % len(body) + body))
        assert main(["attach", "--no-stdin", "-H", engine.host, "c"]) == 1


@pytest.mark.parametrize("code", [True, "1", 1.5, None, [], 1 << 32, -1 << 40])
def test_an_exit_code_that_is_none(code: Any) -> None:
    flow = calls.read_wait(None)
    next(flow)
    with pytest.raises(HandshakeError):
        flow.send(json.dumps({"StatusCode": code}).encode())


def test_an_answer_of_a_runtime_has_a_cap() -> None:
    pytest.importorskip("grpc")
    from runtime import Runtime

    from muxframe import cri

    with Runtime().running() as runtime:
        runtime.listed = [[(1, "x" * 15_000_000)]]
        assert len(cri.connect(runtime.endpoint).containers()[0].id) == 15_000_000
        runtime.listed = [[(1, "x" * 17_000_000)]]
        with pytest.raises(EngineError, match="larger than max"):
            cri.connect(runtime.endpoint).containers()


def test_fields_without_end() -> None:
    messages = pytest.importorskip("muxframe.cri.messages")
    check_is_linear(lambda count: messages.read_containers(b"\x10\x01" * count + b"\x0a\x00"), 10_000)


@pytest.mark.parametrize("seconds", [float("inf"), 1e10, 1e300])
def test_timeouts_for_ever(seconds: float) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("c", output=[(1, b"out\n")]))
        with muxframe.connect(engine.host, timeout=seconds).logs("c") as session:
            session.timeout = seconds
            assert session.read_all().stdout == b"out\n"

        async def read() -> bytes:
            client = await muxframe.aio.connect(engine.host, timeout=seconds)
            async with client.logs("c") as session:
                session.timeout = seconds
                return (await session.read_all()).stdout

        assert asyncio.run(read()) == b"out\n"
        with muxframe.follow("c", host=engine.host, until="exited") as follower:
            follower.timeout = seconds
            assert next(follower).data == b"out"
        with muxframe.gather("c", host=engine.host) as gathering:
            gathering.timeout = seconds
            assert next(gathering)[1].data == b"out"


# --- what a terminal would act on ------------------------------------------------------------------------------------

DOCUMENT = json.dumps({"message": MESSAGE}).encode()


def raised(call: Callable[[], object]) -> Any:
    with pytest.raises(muxframe.MuxframeError) as caught:
        call()
    return caught.value


@pytest.mark.parametrize("kind", [DaemonError, ConnectionLostError, HandshakeError, muxframe.ArchiveError])
def test_errors_do_nothing_to_a_terminal(kind: Any) -> None:
    error = kind(MESSAGE)
    assert is_harmless(str(error)) and is_harmless(repr(error))
    assert str(error).endswith("no\\x1b[2J\\rnever mind\\x9b1m\\u202egnihton\nanother line")
    assert error.args == (MESSAGE,)
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert str(kind("größe 日本\tok")) .endswith("größe 日本\tok"), "what can be printed is"


def test_what_an_engine_says_does_nothing_to_a_terminal() -> None:
    for status in (400, 404, 409, 500, 501):
        error = raised(Response(status, NASTY, {}, DOCUMENT).check)
        assert error.message == MESSAGE
        assert is_harmless(str(error)) and is_harmless(repr(error))
    assert is_harmless(str(raised(Response(302, NASTY, {"location": f"http://{NASTY}/"}).check)))
    error = raised(lambda: muxframe.demux(oracle.pack(3, MESSAGE.encode())))
    assert error.message == MESSAGE and is_harmless(str(error))
    assert is_harmless(str(StdCopyError(MESSAGE, 0)))
    info = LISTED | {"Names": [f"/{NASTY}"]}
    assert is_harmless(repr(Source(info, None, None)))


def test_the_command_line_does_nothing_to_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("c"))
        engine.fault("logs", Fault(status=500, body={"message": MESSAGE}))
        assert main(["logs", "-H", engine.host, "c"]) == 1
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("muxframe: ") and err.count("\n") == 1
    assert is_harmless(err) and "never mind" in err


def test_names_of_a_runtime_do_nothing_to_a_terminal(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from muxframe.cli import cri

    messages = pytest.importorskip("muxframe.cri.messages")
    container = messages.Container(NASTY, NASTY, NASTY, NASTY, NASTY, 0, {"io.kubernetes.pod.name": NASTY})
    runtime = type("Runtime", (), {"containers": lambda self, all: [container]})
    monkeypatch.setattr(cri, "_find_runtime", lambda _: runtime())
    assert main(["cri", "ps", "--no-trunc"]) == 0
    out, _ = capfd.readouterr()
    assert is_harmless(out) and out.count("\n") == 2


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_requests_show_no_secret() -> None:
    request = Request(
        "POST", "/attach/s3cret", {"token": "s3cret"}, {"X-Registry-Auth": "s3cret"}, {"Env": ["PASSWORD=s3cret"]}
    )
    assert "s3cret" not in repr(request) + repr(calls.Call(request)) + repr(calls.Open(request))


def test_hyper_keys_are_not_shown() -> None:
    auth = HyperAuth("ak", "s3cret")
    assert "s3cret" not in repr(auth) + str(auth)
    for copied in (pickle.dumps, copying.copy, copying.deepcopy):
        with pytest.raises(TypeError, match="holds a secret") as caught:
            copied(auth)
        assert "s3cret" not in str(caught.value)
    assert "s3cret" not in str(auth(Request("GET", "/")))


def test_addresses_of_streams_are_not_shown() -> None:
    pytest.importorskip("websockets")
    from muxframe.cri import connect_stream

    answer = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"

    def handler(conn: Any) -> None:
        assert b"s3cret" in conn.recv(65536)
        conn.sendall(answer)

    with serving(tcp_listener(), handler) as (_, port):
        error = raised(lambda: connect_stream(f"ws://127.0.0.1:{port}/attach/s3cret?token=s3cret", timeout=10))
    assert "s3cret" not in str(error) + repr(error)
    for url in ("ws://127.0.0.1:1/attach/s3cret", "ftp://h/s3cret", "ws://h/s3cret\n", "ws://u:s3cret@h/"):
        error = raised(lambda url=url: connect_stream(url, timeout=1))  # type: ignore[misc]
        assert "s3cret" not in str(error) + repr(error)


def test_sessions_do_not_show_the_address_of_their_stream() -> None:
    pytest.importorskip("websockets")
    from muxframe.cri import calls as cri_calls

    for path, kind in (("attach/s3cret/attach", cri_calls.Attached), ("exec/s3cret", cri_calls.Executed)):
        flow = cri_calls.stream(f"ws://127.0.0.1:1/{path}?s3cret", headers={}, tls=None, stdin=False, tty=False)
        step = next(flow)
        key = step.request.headers["Sec-WebSocket-Key"]
        opened = finish(flow, Link(key))
        assert isinstance(opened, kind) and opened.path == "ws://127.0.0.1:1"


class Link:
    """A WebSocket that was agreed to."""

    def __init__(self, key: str) -> None:
        from websockets.utils import accept_key

        self.head = Response(101, "", {"sec-websocket-accept": accept_key(key)})

    def unpack(self, body: Any) -> None:
        pass

    def close(self) -> None:
        pass


def finish(flow: Any, result: Any) -> Any:
    with pytest.raises(StopIteration) as end:
        flow.send(result)
    return end.value.value


# --- TLS -------------------------------------------------------------------------------------------------------------


def old_server(certificates: Path) -> ssl.SSLContext:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context = server_context(certificates, "1.2")
        context.set_ciphers("DEFAULT@SECLEVEL=0")
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    return context


def test_old_tls_is_refused(certificates: Path) -> None:
    """With a control: whoever asks for it with a context of their own gets it."""

    def shake(conn: Any) -> None:
        try:
            with old_server(certificates).wrap_socket(conn, server_side=True) as secure:
                read_to_end(secure)
        except OSError:
            pass

    with serving(tcp_listener(), shake) as (_, port):
        url = f"tcp://127.0.0.1:{port}"
        context = Tls.in_directory(certificates).ssl_context
        context.set_ciphers("DEFAULT@SECLEVEL=0")  # that would refuse it, too
        with pytest.raises(ConnectionLostError, match="(?i)version|alert"):
            dial(parse_endpoint(url, tls=context), 10)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            context.minimum_version = ssl.TLSVersion.TLSv1
        try:
            dial(parse_endpoint(url, tls=context), 10).close()
        except ConnectionLostError:
            pytest.skip("this OpenSSL knows no old TLS at all")


def test_nothing_is_said_in_plain_where_tls_was_asked_for(certificates: Path) -> None:
    heard: list[bytes] = []

    def refuse(conn: Any) -> None:
        heard.append(conn.recv(65536))
        conn.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")

    with serving(tcp_listener(), refuse) as (_, port):
        for tls in (True, str(certificates)):
            with pytest.raises(ConnectionLostError):
                muxframe.connect(f"tcp://127.0.0.1:{port}", tls=tls, timeout=10)
    assert len(heard) == 2, "it was not tried another way"
    assert all(each.startswith(b"\x16\x03") and b"HTTP" not in each for each in heard)


@pytest.mark.parametrize("size", [1, 7])
def test_plain_to_a_port_of_tls_says_so(size: int) -> None:
    alert = b"\x15\x03\x01\x00\x02\x02\x46"  # protocol_version
    conversation = Conversation()
    conversation.send(Request("GET", "/_ping"))
    with pytest.raises(HandshakeError, match="wants TLS"):
        conversation.receive(alert[:size])


def test_plain_to_docker_s_port_of_tls_says_so() -> None:
    text = b"Client sent an HTTP request to an HTTPS server.\n"
    with pytest.raises(BadRequestError, match="an HTTP request to an HTTPS server"):
        Response(400, "Bad Request", {}, text).check()


def test_what_is_no_http_is_quoted_in_part() -> None:
    conversation = Conversation()
    conversation.send(Request("GET", "/"))
    error = raised(lambda: conversation.receive(b"SSH-2.0-" + b"\x1b" * 5000 + b"\r\n\r\n"))
    assert len(str(error)) < handshake.MAX_QUOTE_SIZE + 100 and is_harmless(str(error))


# --- files and names that others choose ------------------------------------------------------------------------------


def test_a_context_s_name_is_no_path(tmp_path: Path) -> None:
    planted = tmp_path / "planted"
    planted.mkdir()
    (planted / "meta.json").write_text('{"Endpoints": {"docker": {"Host": "tcp://evil:1"}}}')
    (tmp_path / "contexts" / "meta").mkdir(parents=True)
    for name in ("../../planted", str(planted), "../../planted\0", ".."):
        with pytest.raises(ValueError, match="there is no context"):
            find_endpoints(context=name, environ={"DOCKER_CONFIG": str(tmp_path)})
        (tmp_path / "config.json").write_text(json.dumps({"currentContext": name}))
        with pytest.raises(ValueError, match="there is no context"):
            find_endpoints(environ={"DOCKER_CONFIG": str(tmp_path)})


@pytest.mark.skipif(os.name != "posix", reason="needs symbolic links")
def test_no_index_is_written_through_a_link(tmp_path: Path) -> None:
    """Somebody else may have put it there, where a directory is shared."""
    target = tmp_path / "target"
    target.write_text("precious")
    for make in ("record", "build_index"):
        path = tmp_path / make
        for name in (f"{make}.idx", f"{make}.idx.{os.getpid()}"):
            (tmp_path / name).symlink_to(target)
        archive.record(oracle.pack(1, b"line\n"), path)
        if make == "build_index":
            path.with_name("build_index.idx").unlink()
            path.with_name("build_index.idx").symlink_to(target)
            archive.build_index(path)
        assert target.read_text() == "precious"
        assert not path.with_name(f"{make}.idx").is_symlink()
        assert list(archive.open(path).lines())


@pytest.mark.parametrize("value", ["a&b=c", "a b", "x\r\nX-Injected: 1", "#?/%2e", "\u2028"])
def test_parameters_are_quoted(value: str) -> None:
    wire = Conversation().send(Request("GET", "/attach", query={"detachKeys": value}))
    first, *rest = wire.split(b"\r\n")
    assert re.fullmatch(rb"GET /attach\?detachKeys=[A-Za-z0-9%_.~/-]+ HTTP/1.1", first)
    assert not [line for line in rest if line.lower().startswith(b"x-injected")]
