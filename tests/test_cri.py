"""Container runtimes: each test on the blocking shell and on asyncio, with a runtime on the loopback interface."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from runtime import (
    ALL,
    PING,
    SUCCESS,
    V1,
    V1_BASE64,
    V4,
    V4_BASE64,
    V5,
    Refused,
    Runtime,
    Stream,
    Streams,
    close,
    cri,
    cri_shell,
    silent,
    ws,
)
from servers import server_context

import muxframe
from muxframe import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    HandshakeError,
    NotFoundError,
)

pytest.importorskip("websockets")
pytest.importorskip("grpc")
if not hasattr(socket, "AF_UNIX"):
    pytest.skip("no unix sockets", allow_module_level=True)

from muxframe.cri import messages, rpc
from muxframe.engine.session import Link


@pytest.fixture(params=["blocking", "asyncio"])
def shell(request: pytest.FixtureRequest) -> Iterator[Any]:
    """muxframe.cri, or muxframe.cri.aio to be called without await."""
    with cri_shell(request.param) as module:
        yield module


def shown(value: Any) -> str:
    return repr(getattr(value, "target", value))


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime().running() as running:
        yield running


def collect(session: Any) -> list[tuple[int, bytes]]:
    return [(int(stream), bytes(payload)) for stream, payload in session]


# --- messages --------------------------------------------------------------------------------------------------------


def test_requests() -> None:
    request = messages.attach_request("abc", stdin=True, stdout=True, stderr=False, tty=True)
    assert cri.decode(request) == {1: [b"abc"], 2: [1], 3: [1], 4: [1]}
    words = ["sh", "", "-c", "é" * 100]
    request = messages.exec_request("abc", words, stdin=False, stdout=True, stderr=True, tty=False)
    assert cri.decode(request) == {1: [b"abc"], 2: [word.encode() for word in words], 5: [1], 6: [1]}
    assert messages.list_request(running=False) == b""
    assert messages.list_request(running=True) == cri.encode([(1, [(2, [(1, 1)])])])
    assert messages.status_request("x" * 300, verbose=True) == cri.encode([(1, "x" * 300), (2, 1)])


def test_answers() -> None:
    version = cri.encode([(1, "0.1.0"), (2, "containerd"), (3, "1.6"), (4, "v1"), (99, "unknown"), (98, 7)])
    assert messages.read_version(version, "v1") == ("containerd", "1.6", "v1")
    fields = [(1, "id"), (2, "pod"), (3, [(1, "name"), (2, 3)]), (4, [(1, "image:1")]), (6, 1), (7, 10**18)]
    labels = [(8, [(1, "a"), (2, "b")]), (8, [(1, "c")]), (9, [(1, "no"), (2, "label")])]
    first, second = messages.read_containers(cri.encode([(1, fields + labels), (1, [(1, "x"), (6, 9)])]))
    assert first == messages.Container("id", "name", "pod", "image:1", "running", 10**18, {"a": "b", "c": ""})
    assert second == messages.Container("x", "", "", "", "unknown", 0, {})
    status = cri.encode([(1, [(3, 2), (7, 137), (10, "Error")]), (2, [(1, "info"), (2, "{}")])])
    assert messages.read_status(status) == ("exited", 137, {"info": "{}"})
    negative = cri.encode([(1, [(7, -1)])])
    assert messages.read_status(negative).exit_code == -1
    others = b"\x09" + bytes(8) + b"\x15" + bytes(4)  # 64 and 32 bits, which are in no message here
    assert messages.read_url(others + cri.encode([(1, "first"), (1, "http://x")])) == "http://x"
    assert messages.read_url(b"\x0a\x02\xff\xfe") == "\ufffd\ufffd"


@pytest.mark.parametrize(
    "answer",
    [b"\x0a", b"\x0a\x05abc", b"\x0b", b"\x0f", b"\x80", b"\x08" + b"\xff" * 10, b"\x0a" + b"\xff" * 9 + b"\x01"],
)
def test_broken_answers(answer: bytes) -> None:
    with pytest.raises(HandshakeError, match="the runtime's answer is no message of the CRI"):
        messages.read_url(answer)


def test_messages_as_protobuf_has_them() -> None:
    pytest.importorskip("google.protobuf")
    descriptor_pb2, descriptor_pool, message_factory = (
        importlib.import_module(f"google.protobuf.{name}")
        for name in ("descriptor_pb2", "descriptor_pool", "message_factory")
    )
    file = descriptor_pb2.FileDescriptorProto(name="cri.proto", package="t", syntax="proto3")
    exec_request = file.message_type.add(name="ExecRequest")
    kinds = descriptor_pb2.FieldDescriptorProto
    fields = [("container_id", 1, kinds.TYPE_STRING), ("cmd", 2, kinds.TYPE_STRING)]
    fields += [(name, 3 + i, kinds.TYPE_BOOL) for i, name in enumerate(["tty", "stdin", "stdout", "stderr"])]
    for name, number, kind in fields:
        label = kinds.LABEL_REPEATED if name == "cmd" else kinds.LABEL_OPTIONAL
        exec_request.field.add(name=name, number=number, type=kind, label=label)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    kind = message_factory.GetMessageClass(pool.FindMessageTypeByName("t.ExecRequest"))
    words = ["sh", "", "-c", "é" * 100]
    expected = kind(container_id="abc", cmd=words, stdin=True, stderr=True)
    ours = messages.exec_request("abc", words, stdin=True, stdout=False, stderr=True, tty=False)
    assert kind.FromString(ours) == expected
    assert messages.read_url(expected.SerializeToString()) == "abc"


# --- connecting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("apis", [("v1", "v1alpha2"), ("v1",), ("v1alpha2",)])
def test_version_and_containers(shell: Any, runtime: Runtime, apis: tuple[str, ...]) -> None:
    runtime.apis = apis
    runtime.listed = [[(1, "abc"), (3, [(1, "web")]), (6, 1)]]
    connected = shell.connect(runtime.endpoint)
    assert connected.version() == ("containerd", "1.2.3", apis[0])
    assert [(each.id, each.name, each.state) for each in connected.containers()] == [("abc", "web", "running")]
    connected.containers(all=True)
    assert runtime.asked("ListContainers") == [{1: [cri.encode([(2, [(1, 1)])])]}, {}]
    assert {api for api, _, _ in runtime.calls} == {apis[0]}
    assert connected.host == runtime.endpoint
    assert shown(connected) == f"<Runtime {runtime.endpoint} containerd 1.2.3 {apis[0]}>"


def test_no_cri(shell: Any, runtime: Runtime) -> None:
    runtime.apis = ()
    with pytest.raises(EngineError, match="it speaks no CRI, neither v1 nor v1alpha2"):
        shell.connect(runtime.endpoint)


def test_nobody_there(shell: Any, tmp_path: Path) -> None:
    path = str(tmp_path / "nothing.sock")
    with pytest.raises(ConnectionLostError) as caught:
        shell.connect(path)
    assert str(caught.value) == f"cannot connect to unix://{path} (endpoint argument): No such file or directory"


def test_places(shell: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("CONTAINER_RUNTIME_ENDPOINT", raising=False)
    nothing = f"unix://{tmp_path}/nothing.sock"
    monkeypatch.setattr(rpc, "DEFAULT_URLS", {nothing: "one default", runtime.endpoint: "another"})
    assert shell.connect().host == runtime.endpoint
    monkeypatch.setattr(rpc, "DEFAULT_URLS", {nothing: "one default", nothing + "2": "another"})
    with pytest.raises(ConnectionLostError, match=r"nothing\.sock \(one default\): .*; .*nothing\.sock2 \(another\)"):
        shell.connect()
    monkeypatch.setenv("CONTAINER_RUNTIME_ENDPOINT", runtime.endpoint)
    assert shell.connect().host == runtime.endpoint


def test_any_path(shell: Any, runtime: Runtime, tmp_path: Path) -> None:
    """gRPC's addresses are quoted."""
    place = tmp_path / "a%41 b#c?d é.sock"
    place.symlink_to(runtime.endpoint.removeprefix("unix://"))
    assert shown(shell.connect(str(place))) == f"<Runtime unix://{place} containerd 1.2.3 v1>"


def test_default_places() -> None:
    places = [str(each) for each in rpc.find_endpoints(None, {})]
    assert places == [
        "unix:///run/containerd/containerd.sock",
        "unix:///run/crio/crio.sock",
        "unix:///var/run/isulad.sock",
    ]


@pytest.mark.parametrize("endpoint", ["http://x", "https://x", "ssh://x", "npipe:////./pipe/x", "tcp://x:1/path", "x"])
def test_no_address(shell: Any, endpoint: str) -> None:
    with pytest.raises(ValueError, match="endpoint argument"):
        shell.connect(endpoint)


@pytest.mark.parametrize(
    ("code", "text", "kind"),
    [
        ("NOT_FOUND", "no such container", NotFoundError),
        ("INVALID_ARGUMENT", "tty and stderr", BadRequestError),
        ("FAILED_PRECONDITION", "not now", ConflictError),
        ("UNKNOWN", "container is in CONTAINER_EXITED state", ConflictError),
        ("UNKNOWN", "something", EngineError),
        ("RESOURCE_EXHAUSTED", "too many", EngineError),
        ("UNAVAILABLE", "going down", ConnectionLostError),
        ("DEADLINE_EXCEEDED", "late", TimeoutError),
    ],
)
def test_refusals(shell: Any, runtime: Runtime, code: str, text: str, kind: type[Exception]) -> None:
    connected = shell.connect(runtime.endpoint)
    runtime.refuse["Attach"] = Refused(code, text)
    with pytest.raises(kind) as caught:
        connected.attach("abc", tty=False)
    assert type(caught.value) is kind
    if isinstance(caught.value, EngineError):
        assert (caught.value.message, caught.value.status, caught.value.reason) == (text, None, code)


def test_no_answer(shell: Any, runtime: Runtime) -> None:
    connected = shell.connect(runtime.endpoint, timeout=1)
    runtime.delay.clear()
    with pytest.raises(TimeoutError, match="did not answer in time"):
        connected.containers()
    runtime.delay.set()
    assert connected.containers() == []


# --- attach ----------------------------------------------------------------------------------------------------------


def echo(stream: Stream) -> None:
    """Say what is heard, until "end"."""
    stream.say(1, b"")
    while (heard := stream.hear()) is not None:
        number, data = heard
        if number == 0:
            stream.say(1, data)
            stream.say(2, data.upper())
        if data == b"end":
            stream.end()
            return


@pytest.mark.parametrize("protocol", ALL)
def test_attach(shell: Any, runtime: Runtime, protocol: str) -> None:
    runtime.protocols = [protocol]
    runtime.script = echo
    runtime.states = [(1, 0), (1, 0), (2, 7)]
    with shell.attach(runtime.endpoint, "abc", stdin=True, tty=False) as session:
        assert (session.tty, session.stream_type) == (False, "multiplexed")
        assert session.write(b"hello") == 5
        frames = iter(session)
        assert [(int(s), bytes(p)) for s, p in (next(frames), next(frames))] == [(1, b"hello"), (2, b"HELLO")]
        session.write(b"end")
        assert collect(frames) == [(1, b"end"), (2, b"END")]
        assert session.exit_code is None, "an attach always ends well"
        assert session.wait(5) == 7
        assert session.exit_code == 7
    assert runtime.asked("Attach") == [{1: [b"abc"], 2: [1], 4: [1], 5: [1]}]
    assert runtime.opened[0].protocol == protocol
    assert len(runtime.asked("ContainerStatus")) == 3


def test_the_ways_to_read(shell: Any, runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        stream.say(1, b"one\ntw")
        stream.say(2, b"err\n")
        stream.say(1, b"o\n")
        stream.end()

    runtime.script = script
    connected = shell.connect(runtime.endpoint)
    assert connected.attach("abc").read_all() == (b"one\ntwo\n", b"err\n")
    out, err = bytearray(), bytearray()
    assert connected.attach("abc").copy_to(out, err) == (8, 4, 3)
    assert (out, err) == (b"one\ntwo\n", b"err\n")
    lines = [(int(line.stream), line.text) for line in connected.attach("abc").lines()]
    assert sorted(lines) == [(1, "one"), (1, "two"), (2, "err")]
    assert b"".join(bytes(piece) for stream, piece in connected.attach("abc").chunks() if stream == 1) == b"one\ntwo\n"


def test_waiting_has_an_end(shell: Any, runtime: Runtime) -> None:
    session = shell.attach(runtime.endpoint, "abc")
    with pytest.raises(TimeoutError):
        session.wait(0.2)
    assert len(runtime.asked("ContainerStatus")) > 2
    runtime.refuse["ContainerStatus"] = Refused("NOT_FOUND", "removed")
    with pytest.raises(NotFoundError, match="removed"):
        session.wait(5)
    session.close()


@pytest.mark.parametrize(
    ("info", "tty"),
    [('{"runtimeSpec":{"process":{"terminal":true}}}', True), ('{"runtimeSpec":{"process":{"cwd":"/"}}}', False)],
)
def test_tty_is_known(shell: Any, runtime: Runtime, info: str, tty: bool) -> None:
    runtime.info = info
    runtime.script = lambda stream: stream.end()
    with shell.attach(runtime.endpoint, "abc") as session:
        assert session.tty is tty
        assert session.stream_type == "multiplexed"
        session.read_all()
    (asked,) = runtime.asked("Attach")
    assert asked == ({1: [b"abc"], 2: [1], 3: [1], 4: [1]} if tty else {1: [b"abc"], 4: [1], 5: [1]})


@pytest.mark.parametrize("info", ["", "{}", "no JSON", '{"runtimeSpec":null}', "[" * 100_000])
def test_tty_is_not_guessed(shell: Any, runtime: Runtime, info: str) -> None:
    runtime.info = info
    with pytest.raises(BadRequestError, match="not say whether container abc has a TTY: tty=True or tty=False does"):
        shell.attach(runtime.endpoint, "abc")
    assert runtime.asked("Attach") == []


def test_streams_that_are_asked_for(shell: Any, runtime: Runtime) -> None:
    connected = shell.connect(runtime.endpoint)
    for options in ({"tty": True, "stderr": True}, {"tty": False, "stdout": False, "stderr": False, "stdin": True}):
        connected.attach("abc", **options).close()
    assert runtime.asked("Attach") == [{1: [b"abc"], 2: [1], 3: [1], 4: [1], 5: [1]}, {1: [b"abc"], 2: [1]}]


def test_exited_container(shell: Any, runtime: Runtime) -> None:
    runtime.states = [(2, 0)]
    with pytest.raises(ConflictError, match="container abc has exited"):
        shell.attach(runtime.endpoint, "abc")


# --- exec ------------------------------------------------------------------------------------------------------------


def status(code: int) -> bytes:
    return (
        b'{"metadata":{},"status":"Failure","message":"command terminated with non-zero exit code: exit code %d",'
        b'"reason":"NonZeroExitCode","details":{"causes":[{"reason":"ExitCode","message":"%d"}]}}' % (code, code)
    )


@pytest.mark.parametrize(
    ("protocol", "ending", "code"),
    [
        (V4, SUCCESS, 0),
        (V4, status(42), 42),
        (V5, status(137), 137),
        (V4_BASE64, status(3), 3),
        (V1, b"", 0),
        (V1, b"command terminated with non-zero exit code: error executing command [x], exit code 5", 5),
        (V1_BASE64, b"", 0),
    ],
)
def test_exit_codes(shell: Any, runtime: Runtime, protocol: str, ending: bytes, code: int) -> None:
    go = threading.Event()

    def script(stream: Stream) -> None:
        stream.say(1, b"out")
        go.wait(10)
        stream.end(ending)

    runtime.protocols = [protocol]
    runtime.script = script
    with shell.exec(runtime.endpoint, "abc", "sh -c 'exit 3'") as session:
        with pytest.raises(ValueError, match="the exit code comes behind the output"):
            session.wait()
        go.set()
        assert session.read_all() == (b"out", b"")
        assert session.exit_code == code
        assert session.wait() == code
    assert runtime.asked("Exec") == [{1: [b"abc"], 2: [b"sh", b"-c", b"exit 3"], 5: [1], 6: [1]}]


def test_command_that_cannot_be_run(shell: Any, runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        stream.say(2, b"before")
        stream.end(b'{"status":"Failure","message":"no such file","reason":"InternalError","code":500}')

    runtime.script = script
    session = shell.exec(runtime.endpoint, "abc", ["nosuch"])
    with pytest.raises(DaemonError, match="error from daemon in stream: no such file") as caught:
        session.read_all()
    assert caught.value.chunks == [(2, b"before")]
    with pytest.raises(EngineError, match="did not say how the command ended"):
        session.wait()
    session.close()


def test_no_status(shell: Any, runtime: Runtime) -> None:
    runtime.script = lambda stream: stream.end(b"")
    session = shell.exec(runtime.endpoint, "abc", "true")
    assert session.read_all() == (b"", b"")
    assert session.exit_code is None
    with pytest.raises(EngineError, match="did not say how the command ended"):
        session.wait()


def test_what_is_no_command(shell: Any, runtime: Runtime) -> None:
    connected = shell.connect(runtime.endpoint)
    command: Any
    for command in ("", []):
        with pytest.raises(ValueError, match="an empty command"):
            connected.exec("abc", command)
    with pytest.raises(TypeError, match="a command is a str"):
        connected.exec("abc", b"ls")


def test_terminal(shell: Any, runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        for _ in range(2):
            heard = stream.hear()
            assert heard is not None and heard[0] == 4
            stream.say(1, heard[1] + b"\r\n")
        stream.end(status(1))

    runtime.script = script
    with shell.exec(runtime.endpoint, "abc", "top", tty=True, size=(24, 80)) as session:
        assert session.tty
        session.resize(50, 132)
        assert session.read_all()[0] == b'{"Width": 80, "Height": 24}\r\n{"Width": 132, "Height": 50}\r\n'
        assert session.exit_code == 1
        with pytest.raises(ValueError, match="height and width"):
            session.resize(-1, 5)
    assert runtime.asked("Exec") == [{1: [b"abc"], 2: [b"top"], 3: [1], 4: [1], 5: [1]}]


# --- stdin -----------------------------------------------------------------------------------------------------------


def test_half_close(shell: Any, runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        while (heard := stream.hear()) != (255, b"\0"):
            assert heard is not None
            stream.say(1, heard[1])
        stream.say(1, b" and on")
        stream.end()

    runtime.protocols = [V5]
    runtime.script = script
    with shell.exec(runtime.endpoint, "abc", "cat", stdin=True) as session:
        session.write(b"hello")
        session.close_stdin()
        session.close_stdin()
        with pytest.raises(ValueError, match="stdin is closed"):
            session.write(b"late")
        assert session.read_all() == (b"hello and on", b"")
        assert session.exit_code == 0


def test_no_half_close(shell: Any, runtime: Runtime) -> None:
    runtime.script = echo
    with shell.exec(runtime.endpoint, "abc", "cat", stdin=True) as session:
        with pytest.raises(BadRequestError, match=r"stdin cannot be closed alone: v4\.channel\.k8s\.io has no words"):
            session.close_stdin()
        session.write(b"end")
        assert session.read_all() == (b"end", b"END")
    with shell.exec(runtime.endpoint, "abc", "cat") as session, pytest.raises(ValueError, match="has no stdin"):
        session.write(b"x")


def both_ways(session: Any, data: bytes) -> tuple[bytes, bytes]:
    """Write in one thread, read in another."""
    errors: list[BaseException] = []

    def write() -> None:
        try:
            assert session.write(data) == len(data)
        except BaseException as error:
            errors.append(error)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    read: tuple[bytes, bytes] = session.read_all()
    writer.join(30)
    assert not writer.is_alive() and not errors
    return read


@pytest.mark.parametrize("protocol", [V4, V4_BASE64])
def test_ten_megabytes_each_way_among_pings(shell: Any, runtime: Runtime, protocol: str) -> None:
    data = random.Random(1).randbytes(10_000_000)

    def script(stream: Stream) -> None:
        size = pings = 0
        while size < len(data):
            heard = stream.hear()
            assert heard is not None and heard[0] == 0
            size += len(heard[1])
            stream.send(ws(b"%d" % pings, PING))
            pings += 1
            stream.say(1, heard[1])
        while len(stream.pongs) < pings:
            stream.send(ws(b"last", PING))
            stream.hear_pong()
        assert stream.pongs[:pings] == [b"%d" % i for i in range(pings)]
        stream.end()

    runtime.protocols = [protocol]
    runtime.script = script
    with shell.exec(runtime.endpoint, "abc", "cat", stdin=True) as session:
        out, err = both_ways(session, data)
        assert out == data and err == b""
        assert session.exit_code == 0


def test_a_write_does_not_fail_for_an_answer_that_nobody_takes_any_more() -> None:
    """The command has read all, and ended, while the last of it was sent: the answer to its Close comes too late."""

    class Ending:
        sent = b""

        def send(self, view: memoryview) -> int:
            if self.sent:
                raise BrokenPipeError(32, "Broken pipe")
            self.sent = bytes(view)
            link._answers.append(b"the answer")  # the reader's, which finds this thread writing
            return len(view)

    connection: Any = Ending()
    link = Link(connection, None, b"", None)
    link.send(b"data")
    assert connection.sent == b"data"
    with pytest.raises(ConnectionLostError, match="Broken pipe"):
        link.send(b"more")


def test_answers_that_nobody_takes_do_not_pile_up(shell: Any, runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        pings = ws(b"p" * 125, PING) * 1000
        with contextlib.suppress(OSError):  # the client has left
            for _ in range(150):
                stream.send(pings)

    runtime.script = script
    session = shell.connect(runtime.endpoint).attach("c", stdin=True)
    with session, pytest.raises(ConnectionLostError, match="takes none of the answers"):
        session.read_all()


def test_pings_do_not_hold_reading_up(shell: Any, runtime: Runtime) -> None:
    """The other side reads nothing while it writes: whoever waited until its pong is taken would wait for ever."""
    data = bytes(40_000_000)

    def script(stream: Stream) -> None:
        assert stream.hear_stdin(5) == b"begin"
        time.sleep(0.2)  # stdin fills every buffer meanwhile
        for i in range(0, 20_000_000, 32768):
            stream.send(ws(b"", PING))
            stream.say(1, data[i : i + 32768])
        stream.hear_stdin(len(data))
        stream.end()
        silent(stream)  # who closes with pongs unread sends a reset, which may overtake the end

    runtime.script = script
    with shell.exec(runtime.endpoint, "abc", "cat", stdin=True) as session:
        session.write(b"begin")
        out, _ = both_ways(session, data)
        assert len(out) >= 20_000_000


# --- streams that are refused or break -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("protocols", "takes_lists", "offers", "agreed"),
    [
        (ALL, True, 1, V5),
        (ALL[1:], True, 1, V4),
        ([V1], True, 1, V1),
        ([V4, V1], False, 2, V4),
        ([V1], False, 3, V1),
    ],
)
def test_offers(
    shell: Any, runtime: Runtime, protocols: list[str], takes_lists: bool, offers: int, agreed: str
) -> None:
    runtime.protocols, runtime.takes_lists = protocols, takes_lists
    runtime.script = lambda stream: stream.end()
    with shell.attach(runtime.endpoint, "abc", tty=False) as session:
        session.read_all()
    assert runtime.offers == [", ".join(ALL), V4, V1][:offers]
    assert max(map(len, runtime.offers)) < 128
    assert runtime.opened[0].protocol == agreed
    assert len(runtime.asked("Attach")) == offers, "an address is good for one try"


def test_no_protocol_in_common(shell: Any, runtime: Runtime) -> None:
    runtime.protocols = []
    with pytest.raises(EngineError, match="403 Forbidden"):
        shell.attach(runtime.endpoint, "abc", tty=False)
    assert len(runtime.offers) == 3


def test_used_token(shell: Any, runtime: Runtime) -> None:
    runtime.script = lambda stream: stream.end()
    with shell.attach(runtime.endpoint, "abc", tty=False) as session:
        session.read_all()
    with pytest.raises(NotFoundError, match="404 Not Found: 404 page not found"):
        shell.connect_stream(runtime._url + runtime.opened[0].path)


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (b"HTTP/1.1 101 Sure\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n", HandshakeError, "not agree"),
        (b"HTTP/1.1 200 OK\r\n\r\nhello", HandshakeError, "did not agree to a WebSocket"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", HandshakeError, "redirected"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", HandshakeError, "not usable HTTP"),
        (b"", ConnectionLostError, "before the answer"),
        (b"HTTP/1.1 500 Oh\r\nContent-Length: 2\r\n\r\nno", EngineError, "500 Oh: no"),
    ],
)
def test_no_websocket(shell: Any, runtime: Runtime, answer: bytes, kind: type[Exception], text: str) -> None:
    runtime.answer = lambda path: answer
    with pytest.raises(kind, match=text) as caught:
        shell.attach(runtime.endpoint, "abc", tty=False)
    assert "SECRET" not in str(caught.value)


def test_protocol_that_was_not_offered(shell: Any, runtime: Runtime, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = importlib.import_module("muxframe.cri.calls")
    monkeypatch.setattr(calls, "OFFERS", ((V4, "v6"),))
    runtime.protocols = ["v6"]
    shell.attach(runtime.endpoint, "abc", tty=False).close()
    monkeypatch.setattr(calls, "OFFERS", (V4,))  # a string: of letters
    with pytest.raises(EngineError):
        shell.attach(runtime.endpoint, "abc", tty=False)


@pytest.mark.parametrize("url", ["", "nonsense", "ftp://x/y", "http:///path", "http://a b/c", "http://h:99999/SECRET"])
def test_address_that_is_none(shell: Any, runtime: Runtime, url: str) -> None:
    runtime._url = ""
    runtime._token = lambda kind, fields: [(1, url)]  # type: ignore[method-assign]
    with pytest.raises(HandshakeError, match="the address of the stream") as caught:
        shell.attach(runtime.endpoint, "abc", tty=False)
    assert "SECRET" not in str(caught.value)


def test_tls_that_is_not_to_be(shell: Any) -> None:
    with pytest.raises(HandshakeError, match="^the address of the stream is not usable: .*: https:// without TLS$"):
        shell.connect_stream("https://localhost:1/exec", tls=False)


@pytest.mark.parametrize("how", ["cut", "reset", "close 1011", "half a message"])
def test_broken_stream(shell: Any, runtime: Runtime, how: str) -> None:
    def script(stream: Stream) -> None:
        stream.say(1, b"delivered")
        if how == "reset":
            stream._conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            time.sleep(0.2)
        elif how == "close 1011":
            stream.send(close(1011, "restart"))
        elif how == "half a message":
            stream.send(ws(b"\x01never whole")[:-1])

    runtime.script = script
    for stdin in (False, True):
        session = shell.attach(runtime.endpoint, "abc", tty=False, stdin=stdin)
        received = []
        with pytest.raises(ConnectionLostError):
            for frame in session:
                received.append(bytes(frame.payload))
        assert received == [b"delivered"]
        assert session.exit_code is None
        session.close()


@pytest.mark.parametrize("fault", [ws(b"")[:1] + b"\x7f\0\0\1\0\0\0\0\0", close(1011)], ids=["oversize", "close 1011"])
def test_fault_right_behind_output_is_not_waited_for(shell: Any, runtime: Runtime, fault: bytes) -> None:
    """Who has broken the protocol may well keep the connection, and say no more."""

    def script(stream: Stream) -> None:
        stream.send(ws(b"\x01delivered") + fault)
        silent(stream)
        left.wait(10)

    runtime.script = script
    left = threading.Event()
    with contextlib.closing(shell.exec(runtime.endpoint, "abc", ["true"])) as session:
        session.timeout = 10
        try:
            with pytest.raises(ConnectionLostError) as caught:
                session.read_all()
        finally:
            left.set()
    assert [bytes(payload) for _, payload in caught.value.chunks] == [b"delivered"]


def test_close_ends_a_read_elsewhere(shell: Any, runtime: Runtime) -> None:
    session = shell.attach(runtime.endpoint, "abc", tty=False)
    threading.Timer(0.2, session.close).start()
    began = time.monotonic()
    assert collect(session) == []
    assert time.monotonic() - began < 5
    assert session.closed


def test_timeout_leaves_the_session_usable(shell: Any, runtime: Runtime) -> None:
    go = threading.Event()

    def script(stream: Stream) -> None:
        stream.send(ws(b"\x01in two pieces")[:6])
        go.wait(10)
        stream.send(ws(b"\x01in two pieces")[6:])
        stream.end()

    runtime.script = script
    with shell.attach(runtime.endpoint, "abc", tty=False) as session:
        session.timeout = 0.1
        for _ in range(2):
            with pytest.raises(TimeoutError):
                session.read_all()
        session.timeout = 5.0
        go.set()
        assert session.read_all() == (b"in two pieces", b"")


def test_nothing_secret_is_shown(shell: Any, runtime: Runtime) -> None:
    session = shell.attach(runtime.endpoint, "abc", tty=False)
    assert "SECRET" in runtime.opened[0].path
    assert "SECRET" not in shown(session) + shown(shell.connect(runtime.endpoint))
    session.close()
    runtime._url = "http://127.0.0.1:1"
    with pytest.raises(ConnectionLostError) as caught:
        shell.attach(runtime.endpoint, "abc", tty=False)
    assert "SECRET" not in str(caught.value)


# --- iSulad ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def isulad(runtime: Runtime) -> Runtime:
    """A runtime in iSulad's manner: v1alpha2 and v1 channels alone, nothing verbose, TEXT, and no Close at the end."""
    runtime.name = "iSulad"
    runtime.apis = ["v1alpha2"]
    runtime.protocols = [V1]
    runtime.info = ""
    return runtime


def speak(*messages: bytes) -> Callable[[Stream], None]:
    """Speak as iSulad does: what C takes for a string, and no more."""

    def script(stream: Stream) -> None:
        for each in messages:
            stream.send(ws(each[:1] + each[1:].partition(b"\0")[0], 1))

    return script


def test_isulad(shell: Any, isulad: Runtime) -> None:
    connected = shell.connect(isulad.endpoint)
    assert connected.version() == ("iSulad", "1.2.3", "v1alpha2")
    with pytest.raises(BadRequestError, match="iSulad does not say whether container abc has a TTY"):
        connected.attach("abc")
    isulad.script = speak(b"\x01out\n", b"\x02err\n", b"\x01cut\0lost", b"\x01Exit code :42\n")
    with connected.exec("abc", "sh") as session:
        assert session.read_all() == (b"out\ncut", b"err\n")
        assert session.exit_code == 42
    isulad.script = speak(b"\x01out\n")
    with connected.exec("abc", "sh", stdin=True) as session:
        with pytest.raises(BadRequestError, match="stdin cannot be closed alone"):
            session.close_stdin()
        assert session.read_all() == (b"out\n", b"")
        assert session.exit_code == 0
    isulad.states = [(1, 0), (2, 9)]
    with connected.attach("abc", tty=False) as session:
        assert session.read_all() == (b"out\n", b"")
        assert session.wait(5) == 9


def test_others_do_not_get_away_with_that(shell: Any, isulad: Runtime) -> None:
    isulad.name = "containerd"
    isulad.script = speak(b"\x01Exit code :42\n")
    session = shell.exec(isulad.endpoint, "abc", "sh")
    with pytest.raises(ConnectionLostError, match="without the WebSocket's Close"):
        session.read_all()
    session.close()


# --- streams whose address is known ----------------------------------------------------------------------------------


def test_api_server(shell: Any, certificates: Path) -> None:
    """As a Kubernetes API server: TLS, a token in a header, everything in the query, and the same address again."""
    server = Streams()
    server.protocols, server.takes_lists = [V5, V4], False
    token = "Bearer t0ken"

    def script(stream: Stream) -> None:
        assert stream.headers["authorization"] == token
        if stream.path.endswith("attach"):
            return silent(stream)
        assert stream.hear_stdin(3) == b"abc"
        stream.say(1, b"out\xff\0")
        stream.end(status(42))

    def refuse(path: str) -> bytes:
        text = b'{"kind":"Status","status":"Failure","message":"pods \\"x\\" not found","reason":"NotFound","code":404}'
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: %d\r\n\r\n%b" % (len(text), text)

    server.script = script
    path = "/api/v1/namespaces/d/pods/x/exec?command=sh&command=-c&command=exit+42&stdin=1&stdout=1"
    with server.serving(server_context(certificates)) as url:
        url = url.replace("127.0.0.1", "localhost")
        tls, headers = str(certificates), {"Authorization": token}
        with shell.connect_stream(url + path, headers=headers, tls=tls, stdin=True) as session:
            session.write(b"abc")
            assert session.read_all() == (b"out\xff\0", b"")
            assert session.exit_code == 42
        assert server.opened[0].path == path
        assert server.offers == [", ".join(ALL), V4]
        with shell.connect_stream(url.replace("https", "wss") + "/pods/x/attach", headers=headers, tls=tls) as session:
            assert session.exit_code is None
            with pytest.raises(ValueError, match="an attach does not tell"):
                session.wait()
        server.answer = refuse
        with pytest.raises(NotFoundError, match='pods "x" not found'):
            shell.connect_stream(url + path, headers=headers, tls=tls)


def test_certificate_nobody_vouches_for(shell: Any, certificates: Path) -> None:
    with (
        pytest.raises(ssl.SSLError, match="(?i)unknown.ca"),  # what the server sees
        Streams().serving(server_context(certificates)) as url,
        pytest.raises(ConnectionLostError, match="certificate"),
    ):
        shell.connect_stream(url.replace("127.0.0.1", "localhost") + "/exec")


# --- the package -----------------------------------------------------------------------------------------------------


def python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=dict(os.environ))
    return done.stdout + done.stderr


def test_import_is_lazy() -> None:
    code = "import sys, muxframe.cri, muxframe.cri.aio; print('grpc' in sys.modules)"
    assert python(code) == "False\n"
    assert python("import sys, muxframe; print('muxframe.cri' in sys.modules)") == "False\n"


@pytest.mark.parametrize(
    ("library", "code", "extra"),
    [
        ("grpc", "import muxframe.cri; muxframe.cri.connect()", "muxframe[cri]"),
        ("websockets", "import muxframe.cri", "muxframe[cri]"),
    ],
)
def test_missing_library(library: str, code: str, extra: str) -> None:
    finder = f"""
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] == "{library}":
            raise ModuleNotFoundError("gone", name="{library}")
sys.meta_path.insert(0, Finder())
"""
    said = python(finder + code)
    assert "ModuleNotFoundError" in said and f'pip install "{extra}"' in said


def test_names() -> None:
    from muxframe import cri as blocking
    from muxframe.cri import aio

    assert blocking.Session is muxframe.Session
    assert aio.Session is importlib.import_module("muxframe.aio").Session
    common = {"Runtime", "Session", "attach", "connect", "connect_stream", "exec"}
    assert common == set(aio.__all__) == set(blocking.__all__) - {"Container", "Version"}
    for name in ("connect", "connect_stream"):
        ours, theirs = (inspect.signature(getattr(module, name)).parameters for module in (blocking, aio))
        assert ours == theirs
