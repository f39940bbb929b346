"""docker-py with and without `install`: against the loopback engine, and against servers that send what no engine does.

Where docker-py alone loses bytes or says nothing, a test says so, too: it is the reason for what is tested.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import itertools
import json
import os
import pickle
import re
import select
import socket
import ssl
import subprocess
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from servers import server_context, serving

import muxframe
from muxframe import pack_frame
from muxframe.testing import Container, Fault, LoopbackEngine, Process, say

docker = pytest.importorskip("docker", reason="the package docker is not installed")

from muxframe.compat import docker_py  # noqa: E402
from muxframe.compat.docker_py import (  # noqa: E402
    CHECKED_VERSIONS,
    DockerConnectionLostError,
    DockerDaemonError,
    DockerReservedBytesError,
    DockerStreamError,
    DockerTruncatedStreamError,
    DockerUnknownStreamError,
    UncheckedVersionWarning,
    install,
    uninstall,
)

pytestmark = [
    pytest.mark.filterwarnings("ignore::muxframe.compat._patching.UncheckedVersionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # docker-py leaves sockets to the garbage collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),  # and so do responses from 3.13 on
]

OUT, ERR = b"out\n", b"err\n"
BOTH: list[Any] = [(1, OUT), (2, ERR)]
FRAMES = pack_frame(1, OUT) + pack_frame(2, ERR)
LARGE = b"0123456789" * 30_000
TTY = b"$ ls\r\nbin  etc\r\n" * 4096
UPGRADED = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n"
ATTACHED = {"stdout": 1, "stderr": 1, "stream": 1, "stdin": 1}


@pytest.fixture(autouse=True)
def _collect_garbage() -> Iterator[None]:
    yield
    gc.collect()


@pytest.fixture
def installed() -> Iterator[None]:
    with install():
        yield


@pytest.fixture(params=["plain docker-py", "installed"])
def maybe_installed(request: pytest.FixtureRequest) -> Iterator[bool]:
    with install() if request.param == "installed" else contextlib.nullcontext():
        yield request.param == "installed"


@contextlib.contextmanager
def api(engine: LoopbackEngine | str, **options: Any) -> Iterator[Any]:
    """A client that asks for no version."""
    host = engine if isinstance(engine, str) else engine.host
    client = docker.APIClient(base_url=host, version="1.41", timeout=20, **options)
    try:
        yield client
    finally:
        client.close()


def executed(client: Any, command: str = "both", **options: Any) -> Any:
    """What an exec brings in a container that is always there."""
    exec_id = client.exec_create("web", command, tty=options.get("tty", False))
    return client.exec_start(exec_id, **options)


def read_all(sock: Any) -> bytes:
    """Read a socket as users do: the one that is inside."""
    sock = getattr(sock, "_sock", sock)
    received = b""
    while piece := sock.recv(4096):
        received += piece
    return received


@contextlib.contextmanager
def answering(
    wire: bytes, *, head: bytes = UPGRADED, then: Callable[[socket.socket], Any] | None = None
) -> Iterator[str]:
    """A server that answers everything with head and wire in one packet, but for inspect; yields its address."""
    info = json.dumps({"Config": {"Tty": False}}).encode()

    def answer(conn: socket.socket) -> None:
        with conn.makefile("rb") as file:
            lines = list(iter(file.readline, b"\r\n"))
            sizes = [int(line.split()[1]) for line in lines if line.lower().startswith(b"content-length:")]
            file.read(sum(sizes))
        if b"/json" in lines[0]:
            conn.sendall(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b" % (len(info), info))
            return
        conn.sendall(head + wire)
        if then is not None:
            then(conn)

    with serving(socket.create_server(("127.0.0.1", 0)), answer) as (host, port):
        yield f"tcp://{host}:{port}"


# --- the head --------------------------------------------------------------------------------------------------------


def tls_of(certificates: Path) -> Any:
    from docker.tls import TLSConfig

    pair = (str(certificates / "cert.pem"), str(certificates / "key.pem"))
    return TLSConfig(client_cert=pair, ca_cert=str(certificates / "ca.pem"), verify=True)


@pytest.fixture(params=["unix", "tcp", "tls 1.2", "tls 1.3"])
def place(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """An engine whose heads come in one packet with the first frames, and how to reach it."""
    transport, _, version = request.param.partition(" ")
    if transport == "unix" and not hasattr(socket, "AF_UNIX"):
        pytest.skip("there are no unix sockets")
    options: dict[str, Any] = {}
    loopback: dict[str, Any] = {"transport": transport}
    if transport == "tls":
        certificates = request.getfixturevalue("certificates")
        monkeypatch.delenv("REQUESTS_CA_BUNDLE", raising=False)  # requests would believe it more than the client
        monkeypatch.delenv("CURL_CA_BUNDLE", raising=False)
        monkeypatch.setattr("urllib3.util.ssl_.VERIFY_X509_STRICT", 0, raising=False)
        loopback = {"tls": server_context(certificates, version)}
        options = {"tls": tls_of(certificates)}
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}, **loopback) as engine:
        engine.add(Container("web", output=BOTH))
        engine.fault("attach", Fault(join=True))
        engine.fault("exec-start", Fault(join=True))
        yield engine, options


def test_nothing_that_comes_with_the_head_is_lost(place: Any, maybe_installed: bool) -> None:
    engine, options = place
    with api(engine, **options) as client:
        whole = executed(client)
        streamed = b"".join(executed(client, stream=True))
        sock = executed(client, socket=True)
        read = read_all(sock)
        sock.close()
        attached = client.attach("web", stream=True)
        pieces = list(attached)
    if maybe_installed:
        assert (whole, streamed, read, pieces) == (OUT + ERR, OUT + ERR, FRAMES, [OUT, ERR])
    else:
        assert whole != OUT + ERR and streamed != OUT + ERR and read != FRAMES and pieces != [OUT, ERR]


def test_the_head_may_be_cut_anywhere(installed: None) -> None:
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}) as engine:
        engine.add(Container("web", idle_for_ever))
        for fault in (Fault(head_pieces=7), Fault(head_pieces=50, join=True), Fault(dribble=0.0001)):
            engine.clear_faults()
            engine.fault("exec-start", fault)
            with api(engine) as client:
                assert executed(client) == OUT + ERR
                assert executed(client, demux=True) == (OUT, ERR)


def idle_for_ever(process: Process) -> int:
    process.sleep()
    return 0


def test_what_came_with_the_head_wakes_a_select(installed: None) -> None:
    def prompt(process: Process) -> int:
        process.write(b"login: ")
        process.write(process.stdin.readline())
        return 0

    with LoopbackEngine() as engine:
        engine.add(Container("web", prompt, tty=True, open_stdin=True))
        engine.fault("attach", Fault(join=True))
        with api(engine) as client:
            sock = client.attach_socket("web", ATTACHED)
            assert isinstance(sock, socket.SocketIO) and type(sock._sock) is socket.socket  # type: ignore[attr-defined]
            assert sock.fileno() == sock._sock.fileno()  # type: ignore[attr-defined]
            assert select.select([sock], [], [], 5)[0], "a prompt that nothing follows"
            assert sock._sock.recv(100) == b"login: "  # type: ignore[attr-defined]
            sock._sock.sendall(b"me\n")  # type: ignore[attr-defined]
            assert docker.utils.socket.read(sock) == b"me\n"
            sock._sock.shutdown(socket.SHUT_WR)  # type: ignore[attr-defined]
            sock.close()


def test_an_error_in_place_of_an_upgrade(maybe_installed: bool) -> None:
    with LoopbackEngine() as engine, api(engine) as client:
        with pytest.raises(docker.errors.NotFound, match="nosuch"):
            client.attach_socket("nosuch")
        with pytest.raises(docker.errors.NotFound):
            client.exec_start("nosuch")


@pytest.mark.parametrize("stream", [False, True])
def test_a_proxy_that_compresses(stream: bool, maybe_installed: bool) -> None:
    text = b"out\r\nerr\r\n"

    def answer(conn: socket.socket) -> None:
        with conn.makefile("rb") as file:
            lines = list(iter(file.readline, b"\r\n"))
        body, encoding = json.dumps({"Config": {"Tty": True}}).encode() if b"/json" in lines[0] else text, b"identity"
        if any(line.lower().startswith(b"accept-encoding:") and b"gzip" in line for line in lines):
            body, encoding = gzip.compress(body), b"gzip"
        head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n"
        conn.sendall(head % (encoding, len(body)) + body)

    proxy = serving(socket.create_server(("127.0.0.1", 0)), answer)
    with proxy as (host, port), api(f"tcp://{host}:{port}") as client:
        log = client.logs("web", stream=stream)
        if stream:  # docker-py gives characters
            log = b"".join(piece if isinstance(piece, bytes) else piece.encode() for piece in log)
        assert log == text


def test_what_is_no_http(installed: None) -> None:
    import requests

    no_http = answering(b"", head=b"SSH-2.0-x\r\n")
    with no_http as host, api(host) as client, pytest.raises(requests.exceptions.ConnectionError):
        client.exec_start("any")


def test_a_proxy_without_upgrade(maybe_installed: bool) -> None:
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}) as engine:
        engine.add(Container("web", idle_for_ever))
        for fault in (Fault(no_upgrade=True, join=True), Fault(no_upgrade=True, chunked=True, join=True)):
            engine.clear_faults()
            engine.fault("exec-start", fault)
            with api(engine) as client:
                if maybe_installed:
                    assert executed(client, demux=True) == (OUT, ERR)
                    assert list(executed(client, stream=True)) == [OUT, ERR]
                else:
                    with contextlib.suppress(ValueError):  # HTTP's chunks taken for frames
                        assert executed(client, demux=True) != (OUT, ERR)


# --- ssh -------------------------------------------------------------------------------------------------------------

FAKE_SSH = f"""#!{sys.executable}
import os, socket, sys, threading
sock = socket.socket(socket.AF_UNIX)
sock.connect(os.environ["FAR_ENGINE"])
def upload():
    while data := os.read(0, 65536):
        sock.sendall(data)
threading.Thread(target=upload, daemon=True).start()
while data := sock.recv(65536):
    os.write(1, data)
"""


@pytest.mark.skipif(os.name != "posix", reason="the ssh command is a script")
def test_the_ssh_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: None) -> None:
    pytest.importorskip("paramiko", reason="docker-py has no ssh without paramiko")
    ssh = tmp_path / "ssh"
    ssh.write_text(FAKE_SSH)
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}) as engine:
        monkeypatch.setenv("FAR_ENGINE", engine.host.removeprefix("unix://"))
        engine.add(Container("web", idle_for_ever))
        engine.add(Container("log", output=BOTH))
        engine.fault("*", Fault(join=True))
        gone = contextlib.suppress(BrokenPipeError)  # docker-py says good-bye to processes that have ended
        with quiet_processes(), gone, api("ssh://far", use_ssh_client=True) as client:
            assert executed(client, demux=True) == (OUT, ERR)
            assert list(executed(client, stream=True)) == [OUT, ERR]
            assert list(client.logs("log", stream=True, follow=False, demux=True)) == [(OUT, None), (None, ERR)]
            sock = executed(client, socket=True)
            assert list(docker.utils.socket.frames_iter(sock, tty=False)) == [(1, OUT), (2, ERR)]


@contextlib.contextmanager
def quiet_processes() -> Iterator[None]:
    """docker-py leaves its ssh processes to the garbage collector."""
    started: list[Any] = []
    original = subprocess.Popen.__init__

    def init(self: Any, *args: Any, **options: Any) -> None:
        started.append(self)
        original(self, *args, **options)

    subprocess.Popen.__init__ = init  # type: ignore[method-assign]
    try:
        yield
    finally:
        subprocess.Popen.__init__ = original  # type: ignore[method-assign]
        for process in started:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                with contextlib.suppress(OSError):
                    pipe.close()


class Channel:
    """What docker-py uses of paramiko's channels, on a socket."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        for name in ("recv", "sendall", "send", "settimeout", "gettimeout", "shutdown", "fileno", "close"):
            setattr(self, name, getattr(sock, name))

    def exec_command(self, command: str) -> None:
        assert command == "docker system dial-stdio"

    def makefile(self, mode: str, *_: Any) -> Any:
        paramiko = pytest.importorskip("paramiko")
        return paramiko.channel.ChannelFile(self, mode)


def test_a_channel_of_paramiko(monkeypatch: pytest.MonkeyPatch, maybe_installed: bool) -> None:
    pytest.importorskip("paramiko", reason="docker-py has no ssh without paramiko")
    from docker.transport import SSHHTTPAdapter

    def dial(*_: Any) -> Channel:
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(engine.host.removeprefix("unix://"))
        return Channel(sock)

    transport = SimpleNamespace(open_session=dial)
    monkeypatch.setattr(SSHHTTPAdapter, "_create_paramiko_client", lambda self, url: None)
    monkeypatch.setattr(SSHHTTPAdapter, "_connect", lambda self: None)
    monkeypatch.setattr("docker.transport.sshconn.SSHConnectionPool._new_conn", new_ssh_connection(transport))
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}) as engine:
        engine.add(Container("web", output=BOTH))
        engine.fault("exec-start", Fault(join=True))
        with api("ssh://far") as client:
            whole = executed(client, demux=True)
            read = read_all(executed(client, socket=True))
            logged = list(client.logs("web", stream=True, follow=False))
    assert logged == [OUT, ERR]
    if maybe_installed:
        assert (whole, read) == ((OUT, ERR), FRAMES)
    else:
        assert whole != (OUT, ERR) and read != FRAMES


def new_ssh_connection(transport: Any) -> Callable[[Any], Any]:
    from docker.transport import sshconn

    return lambda pool: sshconn.SSHConnection(transport, pool.timeout, pool.ssh_host)


# --- shapes ----------------------------------------------------------------------------------------------------------


OUTPUTS: dict[str, list[Any]] = {
    "both": BOTH,
    "stdout": [(1, OUT)],
    "stderr": [(2, ERR)],
    "none": [],
    "large": [(1, LARGE), (2, LARGE)],
}


def payload(output: list[Any], stream: int) -> bytes | None:
    """As docker-py has it: None where nothing came."""
    return b"".join(data for each, data in output if each == stream) or None


@pytest.mark.parametrize("tty", [False, True])
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_shapes(output: list[Any], tty: bool, installed: None) -> None:
    if tty:
        output = [(1, data) for _, data in output]
    out, err = payload(output, 1), payload(output, 2)
    merged = b"".join(data for _, data in output)
    with LoopbackEngine(on_exec={"both": say(*output)}) as engine, api(engine) as client:
        engine.add(Container("web", idle_for_ever))
        assert executed(client, tty=tty) == merged
        assert executed(client, tty=tty, demux=True) == (out, err)
        for i, demux in enumerate((False, True)):
            engine.add(Container(f"web{i}", say(*output), tty=tty))
            streams = [executed(client, tty=tty, stream=True, demux=demux)]
            streams.append(client.attach(f"web{i}", stream=True, demux=demux))
            for stream in streams:
                assert isinstance(stream, docker.types.CancellableStream)
                pieces = list(stream)
                if demux:
                    assert all((out is None) != (err is None) for out, err in pieces)
                    parts = [[pair[i] for pair in pieces if pair[i] is not None] for i in (0, 1)]
                    assert [b"".join(part) or None for part in parts] == [out, err]
                else:
                    assert b"".join(pieces) == merged


def test_exec_run(installed: None) -> None:
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR), exit_code=3)}) as engine:
        engine.add(Container("web", idle_for_ever))
        client = docker.DockerClient(base_url=engine.host, version="1.41")
        web = client.containers.get("web")
        assert web.exec_run("both") == (3, OUT + ERR)
        assert web.exec_run("both", demux=True) == (3, (OUT, ERR))
        assert list(web.exec_run("both", stream=True, demux=True).output) == [(OUT, None), (None, ERR)]
        client.close()


# --- logs ------------------------------------------------------------------------------------------------------------


def test_logs(maybe_installed: bool) -> None:
    with LoopbackEngine() as engine, api(engine) as client:
        engine.add(Container("web", output=[*BOTH, (1, b"no end")]))
        for follow in (False, True):
            assert client.logs("web", follow=follow) == b"out\nerr\nno end"
            stream = client.logs("web", stream=True, follow=follow)
            assert isinstance(stream, docker.types.CancellableStream)
            assert list(stream) == [OUT, ERR, b"no end"], "a line each"
        assert client.logs("web", stderr=False) == b"out\nno end"
        assert client.logs("web", tail=1) == b"no end"
        with pytest.raises(docker.errors.NotFound):
            client.logs("nosuch")
        with pytest.raises(docker.errors.APIError):
            client.logs("web", stdout=False, stderr=False)


def test_logs_apart(maybe_installed: bool) -> None:
    with LoopbackEngine() as engine, api(engine) as low:
        client = docker.DockerClient(base_url=engine.host, version="1.41")
        client.api.close()
        client.api = low
        engine.add(Container("web", output=BOTH))
        engine.add(Container("mute", output=[(2, ERR)]))
        web, mute = client.containers.get("web"), client.containers.get("mute")
        if not maybe_installed:
            with pytest.raises(TypeError):
                web.logs(demux=True)
            return
        assert web.logs(demux=True) == (OUT, ERR)
        assert mute.logs(demux=True) == (None, ERR)
        assert mute.logs(demux=True, stderr=False) == (None, None)
        assert list(web.logs(demux=True, stream=True)) == [(OUT, None), (None, ERR)]
        assert list(client.api.logs("web", True, True, True, demux=False)) == [OUT, ERR]
        assert web.logs() == OUT + ERR, "nothing is left of it"


def test_a_log_that_somebody_has_read_already(maybe_installed: bool) -> None:
    import requests

    response = requests.Response()
    response.status_code, response._content, response._content_consumed = 200, FRAMES, True  # type: ignore[attr-defined]
    with api("tcp://127.0.0.1:1") as client:
        assert client._get_result_tty(False, response, False) == OUT + ERR
        assert client._get_result_tty(False, response, True) == FRAMES


def test_logs_of_a_tty_come_in_chunks(maybe_installed: bool) -> None:
    with LoopbackEngine() as engine, api(engine) as client:
        engine.add(Container("web", output=[(1, TTY)], tty=True))
        assert client.logs("web") == TTY
        pieces = list(client.logs("web", stream=True))
        assert b"".join(pieces) == TTY
        if maybe_installed:
            assert len(pieces) <= len(TTY) / 16
            assert client.logs("web", demux=True) == (TTY, None)
            assert {err for _, err in client.logs("web", stream=True, demux=True)} == {None}
        else:
            assert len(pieces) == len(TTY), "byte by byte"


def test_logs_are_seen_as_they_come(installed: None) -> None:
    def script(process: Process) -> int:
        process.write(b"first\n")
        seen.wait(10)
        process.write(b"second\n")
        return 0

    seen = threading.Event()
    for tty in (False, True):
        seen.clear()
        with LoopbackEngine() as engine, api(engine) as client:
            engine.add(Container("web", script, tty=tty))
            stream = client.logs("web", stream=True)
            assert next(stream) == b"first\n"
            seen.set()
            assert list(stream) == [b"second\n"]


def test_a_connection_is_used_again_after_logs(installed: None) -> None:
    with LoopbackEngine(transport="tcp") as engine, api(engine) as client:
        engine.add(Container("web", output=BOTH))
        for _ in range(5):
            assert client.logs("web") == OUT + ERR
            assert b"".join(client.logs("web", stream=True)) == OUT + ERR
        pools = client.get_adapter("http://").poolmanager.pools
        (pool,) = (pools[key] for key in pools.keys())  # noqa: SIM118
        assert pool.num_connections <= 2, "one for the log, one for inspect"


def chunked(*pieces: bytes, end: bytes = b"0\r\n\r\n") -> bytes:
    return b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces) + end


LOGS_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "wire",
    [
        chunked(FRAMES),
        chunked(*[FRAMES[i : i + 1] for i in range(len(FRAMES))]),
        chunked(pack_frame(1, OUT), pack_frame(2, ERR)),
        chunked(FRAMES, end=b"000\r\nA-Trailer: 1\r\n\r\n"),
        b"18 ; name=value\r\n%b\r\n0\r\n\r\n" % FRAMES,
    ],
    ids=["one", "bytes", "two", "trailer", "extension"],
)
def test_http_chunks_of_logs_may_be_cut_anywhere(wire: bytes) -> None:
    from muxframe.compat.docker_py.streams import _ChunkedBody

    def read(*pieces: bytes, room: int = 100) -> bytes:
        source = iter([*pieces, b""])
        http = SimpleNamespace(fp=SimpleNamespace(read1=lambda _: next(source)), closed=False)
        http.isclosed, http.close = lambda: http.closed, lambda: setattr(http, "closed", True)
        body = _ChunkedBody(SimpleNamespace(raw=SimpleNamespace(_fp=http)))
        received, buffer = b"", memoryview(bytearray(room))
        while size := body.readinto(buffer):
            received += buffer[:size]
        assert http.closed
        return received

    assert len(FRAMES) == 0x18
    assert read(*[wire[i : i + 1] for i in range(len(wire))]) == FRAMES
    for room in (1, 3, 100):
        for i in range(len(wire)):
            assert read(*filter(None, [wire[:i], wire[i:]]), room=room) == FRAMES


@pytest.mark.parametrize(
    "wire",
    [
        chunked(FRAMES, end=b""),
        chunked(FRAMES)[:-1],
        chunked(FRAMES, pack_frame(1, b"x" * 100))[:60],
        chunked(FRAMES)[:-5] + b"zz\r\nqq\r\n",
        chunked(FRAMES)[:-5] + b"-5\r\nhello\r\n",
        b"1_0\r\n\r\n\r\n",
        chunked(FRAMES)[:-5] + b"1" * 20000,
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_logs_that_break_off(wire: bytes, stream: bool, installed: None) -> None:
    with answering(wire, head=LOGS_HEAD) as host, api(host) as client:
        with pytest.raises(DockerConnectionLostError) as caught:
            list(client.logs("any", stream=stream))
        assert isinstance(caught.value, (muxframe.ConnectionLostError, docker.errors.DockerException))
        if not stream and not wire.startswith(b"1_0"):
            assert caught.value.chunks[:2] == [(1, OUT), (2, ERR)]


def test_logs_that_break_off_look_complete_to_docker_py() -> None:
    with answering(chunked(FRAMES, end=b""), head=LOGS_HEAD) as host, api(host) as client:
        assert list(client.logs("any", stream=True)) == [OUT, ERR]


# --- faults ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cut", [3, 8, 10, len(FRAMES) - 1])
def test_an_end_inside_a_frame(cut: int, maybe_installed: bool) -> None:
    with LoopbackEngine(on_exec={"both": say(OUT, (2, ERR))}) as engine, api(engine) as client:
        engine.add(Container("web", output=BOTH))
        for route in ("exec-start", "attach"):
            engine.fault(route, Fault(cut=cut))
        if not maybe_installed:
            assert len(b"".join(executed(client, stream=True))) < len(OUT + ERR), "and nobody is told"
            assert len(b"".join(client.attach("web", stream=True))) < len(OUT + ERR)
            return
        engine.add(Container("other", output=BOTH))
        for begin in (lambda: executed(client, stream=True), lambda: client.attach("other", stream=True)):
            received = b""
            with pytest.raises(DockerTruncatedStreamError) as caught:
                for piece in begin():
                    received += piece
            assert received == (OUT + ERR)[: max(0, cut - 8) if cut < 12 else cut - 16], "as much as came"
            assert caught.value.chunks == []
            assert caught.value.offset == (0 if cut < 12 else 12)
        with pytest.raises(DockerTruncatedStreamError) as caught:
            executed(client, demux=True)
        assert b"".join(data for _, data in caught.value.chunks) == received


@pytest.mark.parametrize(
    ("wire", "kind", "base"),
    [
        (b"$ prompt", DockerUnknownStreamError, muxframe.UnknownStreamError),
        (b"\1\0\1\0\0\0\0\1x", DockerReservedBytesError, muxframe.ReservedBytesError),
        (pack_frame(3, b"disk full"), DockerDaemonError, muxframe.DaemonError),
        (pack_frame(1, b"more")[:-1], DockerTruncatedStreamError, muxframe.TruncatedStreamError),
    ],
)
def test_faults_are_errors_of_both(wire: bytes, kind: type[Exception], base: type[Exception], installed: None) -> None:
    with answering(FRAMES + wire) as host, api(host) as client:
        for demux in (False, True):
            with pytest.raises(kind) as caught:
                client.exec_start("any", demux=demux)
            fault: Any = caught.value
            for each in (base, docker.errors.DockerException, docker.utils.socket.SocketError, DockerStreamError):
                assert isinstance(fault, each)
            assert fault.offset == len(FRAMES)
            assert fault.chunks[:2] == [(1, OUT), (2, ERR)]
            copy = pickle.loads(pickle.dumps(fault))
            assert (type(copy), str(copy), copy.chunks) == (kind, str(fault), fault.chunks)
        for begin in (
            lambda: iter(client.exec_start("any", stream=True)),
            lambda: docker.utils.socket.frames_iter(client.exec_start("any", socket=True), tty=False),
        ):
            received = []
            with pytest.raises(kind) as caught:
                for each in begin():
                    received.append(each)
            fault = caught.value
            assert received[:2] in ([OUT, ERR], [(1, OUT), (2, ERR)])
            assert (fault.offset, fault.chunks) == (len(FRAMES), [])


def test_a_prompt_is_not_waited_for_to_become_a_header(installed: None) -> None:
    with answering(b"$ ", then=lambda conn: conn.recv(1)) as host, api(host) as client:
        sock = client.exec_start("any", socket=True)
        with pytest.raises(DockerUnknownStreamError):
            next(docker.utils.socket.frames_iter(sock, tty=False))
        sock._sock.close()
        sock.close()


def test_logs_with_faults(installed: None) -> None:
    for wire, kind in ((pack_frame(3, b"no"), DockerDaemonError), (b"\1\0\0", DockerTruncatedStreamError)):
        with answering(chunked(FRAMES + wire), head=LOGS_HEAD) as host, api(host) as client:
            with pytest.raises(kind) as caught:
                client.logs("any")
            assert caught.value.chunks == [(1, OUT), (2, ERR)]  # type: ignore[attr-defined]
            stream = client.logs("any", stream=True)
            assert [next(stream), next(stream)] == [OUT, ERR]
            with pytest.raises(kind):
                next(stream)


def test_a_connection_that_is_reset(maybe_installed: bool) -> None:
    with LoopbackEngine(transport="tcp", on_exec={"both": say(OUT, (2, ERR))}) as engine, api(engine) as client:
        engine.add(Container("web", idle_for_ever))
        engine.fault("exec-start", Fault(reset=len(FRAMES)))
        if maybe_installed:
            with pytest.raises(DockerConnectionLostError) as caught:
                list(executed(client, stream=True))
            assert isinstance(caught.value.__cause__, OSError)
        else:
            assert len(list(executed(client, stream=True))) <= 2, "the end, as far as docker-py knows"


def test_a_read_of_a_log_that_takes_too_long(installed: None) -> None:
    import requests

    with LoopbackEngine() as engine:
        engine.add(Container("web", output=BOTH))
        engine.fault("logs", Fault(stall=5))
        client = docker.APIClient(base_url=engine.host, version="1.41", timeout=0.5)
        with pytest.raises(requests.exceptions.ConnectionError):
            client.logs("web")
        engine.release()
        client.close()


def test_streams_wait_longer_than_the_clients_timeout(installed: None) -> None:
    with LoopbackEngine(on_exec={"both": say_late}) as engine:
        engine.add(Container("web", say_late))
        client = docker.APIClient(base_url=engine.host, version="1.41", timeout=0.5)
        assert executed(client) == OUT
        assert list(executed(client, stream=True)) == [OUT]
        assert list(docker.utils.socket.frames_iter(executed(client, socket=True), tty=False)) == [(1, OUT)]
        assert list(client.logs("web", stream=True)) == [OUT]
        client.close()


def say_late(process: Process) -> int:
    process.sleep(0.8)
    process.write(OUT)
    return 0


# --- leaving early ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["attach", "exec", "logs"])
def test_close_from_another_thread(what: str, installed: None) -> None:
    def script(process: Process) -> int:
        process.write(OUT)
        process.sleep()
        return 0

    with LoopbackEngine(on_exec={"both": script}) as engine, api(engine) as client:
        engine.add(Container("web", script))
        if what == "exec":
            engine.fault("exec-start", Fault(stall=len(pack_frame(1, OUT)) + 3))
        stream = {
            "attach": lambda: client.attach("web", stream=True),
            "exec": lambda: executed(client, stream=True),
            "logs": lambda: client.logs("web", stream=True),
        }[what]()
        assert next(stream) == OUT
        threading.Timer(0.1, stream.close).start()
        assert list(stream) == []
        stream.close()
        assert list(stream) == []


def test_a_stream_that_is_dropped_closes_its_connection(installed: None) -> None:
    gone = threading.Event()

    def then(conn: socket.socket) -> None:
        if not conn.recv(1):
            gone.set()

    with answering(FRAMES, then=then) as host, api(host) as client:
        stream = client.exec_start("any", stream=True)
        assert next(stream) == OUT
        response = stream._response
        del stream
        assert gone.wait(5)
        response.close()


# --- docker.utils.socket ---------------------------------------------------------------------------------------------


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


def test_reading_takes_no_more_than_it_gives(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(FRAMES * 4 + b"rest")
    assert docker_py.next_frame_header(ours) == (1, 4)
    assert docker_py.read_exactly(ours, 4) == OUT
    assert next(docker_py.frames_iter(ours, tty=False)) == (2, ERR)
    frames = docker_py.frames_iter(ours, False)
    assert [next(frames), next(frames)] == [(1, OUT), (2, ERR)]
    frames.close()  # type: ignore[attr-defined]
    with ours.makefile("rb", 0) as file:
        assert list(itertools.islice(docker_py.frames_iter(file, False), 4)) == [(1, OUT), (2, ERR)] * 2
    assert docker_py.read(ours, 2) == b"re"
    assert ours.recv(100) == b"st"


@pytest.mark.parametrize("tls", [False, True])
def test_frames_iter(tls: bool, certificates: Path) -> None:
    frames = [(1, OUT), (2, ERR), (1, b""), (0, b"in"), (1, LARGE), (2, b"x" * 70000), (1, b"last")]
    wire = b"".join(pack_frame(*frame) for frame in frames)

    def send(conn: socket.socket) -> None:
        for start in range(0, len(wire), 9001):
            conn.sendall(wire[start : start + 9001])

    context = server_context(certificates, "1.3") if tls else None
    with serving(socket.create_server(("127.0.0.1", 0)), send, context) as address, contextlib.ExitStack() as stack:
        sock = stack.enter_context(socket.create_connection(address))
        if tls:
            client = ssl.create_default_context(cafile=str(certificates / "ca.pem"))
            client.verify_flags &= ~getattr(ssl, "VERIFY_X509_STRICT", 0)
            sock = stack.enter_context(client.wrap_socket(sock, server_hostname="localhost"))
        got = list(docker_py.frames_iter(sock, tty=False))
    assert got[:2] == [(1, OUT), (2, ERR)] and (1, b"") not in got
    for stream in (0, 1, 2):
        expected = b"".join(data for each, data in frames if each == stream)
        assert b"".join(data for each, data in got if each == stream) == expected


@pytest.mark.parametrize("timeout", [0.0, 0.05])
def test_sockets_with_a_timeout_are_waited_for(pair: Any, timeout: float) -> None:
    ours, theirs = pair
    ours.settimeout(timeout)

    def send() -> None:
        for i in range(len(FRAMES)):
            time.sleep(0.01 if i else 0.2)
            theirs.sendall(FRAMES[i : i + 1])
        theirs.shutdown(socket.SHUT_WR)

    thread = threading.Thread(target=send)
    thread.start()
    got = list(docker_py.frames_iter(ours, tty=False))
    thread.join()
    assert docker_py.consume_socket_output((docker_py.demux_adaptor(*each) for each in got), demux=True) == (OUT, ERR)


def test_ends(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(b"\1\0\0")
    theirs.close()
    with pytest.raises(DockerTruncatedStreamError, match="header"):
        docker_py.next_frame_header(ours)
    assert docker_py.next_frame_header(ours) == (-1, -1)
    assert docker_py.read(ours) == b""
    assert docker_py.read(ours, 0) == b"" and docker_py.read_exactly(ours, 0) == b""
    assert list(docker_py.frames_iter(ours, tty=True)) == list(docker_py.frames_iter(ours, tty=False)) == []
    with pytest.raises(docker.utils.socket.SocketError, match="Unexpected EOF"):
        docker_py.read_exactly(ours, 1)


def test_a_socket_that_is_closed_under_an_iterator(pair: Any) -> None:
    ours, theirs = pair
    theirs.sendall(FRAMES)
    frames = docker_py.frames_iter(ours, tty=False)
    next(frames)
    ours.close()
    with pytest.raises(OSError):
        list(frames)


def test_what_can_be_read(pair: Any, tmp_path: Path) -> None:
    ours, theirs = pair
    path = tmp_path / "wire"
    path.write_bytes(FRAMES)
    theirs.sendall(FRAMES)
    with path.open("rb") as file, path.open("rb") as other:
        descriptor = SimpleNamespace(fileno=other.fileno)
        for source in (file, descriptor, io.BytesIO(FRAMES)):
            assert list(docker_py.frames_iter(source, tty=False)) == [(1, OUT), (2, ERR)]
    tty = docker_py.frames_iter(ours, tty=True)
    assert next(tty) == (1, FRAMES)
    raw = ours.makefile("rb", 0)
    raw.close()
    with pytest.raises(ValueError, match="closed"):
        docker_py.read(raw)


def test_a_named_pipe_that_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        """As docker-py's on Windows: its end is an error."""

        recv = None

        def recv_into(self, buffer: Any) -> int:
            raise RuntimeError(109, "ReadFile", "The pipe has been ended.")

    with pytest.raises(RuntimeError):
        docker_py.read(Pipe())
    monkeypatch.setattr(docker.utils.socket, "NpipeSocket", Pipe)
    assert docker_py.read(Pipe()) == b""


def test_consume_socket_output_and_demux_adaptor() -> None:
    ours, theirs = docker_py, docker.utils.socket
    for frames in ([], [b"a", b"b"]):
        assert ours.consume_socket_output(frames) == theirs.consume_socket_output(frames)
        assert ours.consume_socket_output(frames, False) == theirs.consume_socket_output(frames, False)
    for pairs in ([], [(b"a", None)], [(None, b"b")], [(b"a", None), (None, b"b"), (b"c", None)]):
        assert ours.consume_socket_output(pairs, True) == theirs.consume_socket_output(pairs, True)
    for stream in (1, 2):
        assert ours.demux_adaptor(stream, b"x") == theirs.demux_adaptor(stream, b"x")
    assert ours.demux_adaptor(0, b"x") == (b"x", None), "as Moby has it"
    for adaptor in (ours.demux_adaptor, theirs.demux_adaptor):
        with pytest.raises(ValueError, match="3 is not a valid stream"):
            adaptor(3, b"x")


# --- install and uninstall -------------------------------------------------------------------------------------------


def everything() -> dict[Any, dict[str, Any]]:
    """Whatever could be replaced, as it is."""
    import http.client

    import urllib3.connection
    from docker.api import client, container, exec_api
    from docker.models import containers
    from docker.types import daemon

    owners = [client, container, exec_api, containers, daemon, docker.utils.socket, docker.types, http.client]
    owners += [urllib3.connection, urllib3.connection.HTTPConnection, urllib3.connection.HTTPSConnection]
    owners += [client.APIClient, container.ContainerApiMixin, exec_api.ExecApiMixin, containers.Container]
    owners += [daemon.CancellableStream, http.client.HTTPConnection, http.client.HTTPResponse]
    return {owner: dict(vars(owner)) for owner in owners}


def test_uninstall_leaves_nothing() -> None:
    before = everything()
    install()
    assert everything() != before
    uninstall()
    assert everything() == before
    uninstall()
    assert everything() == before


def test_install_within_install() -> None:
    before = everything()
    with install():
        inside = everything()
        with install():
            install()
            assert everything() == inside
        assert everything() == inside, "it was not the inner one's to undo"
        uninstall()
        assert everything() == before
    assert everything() == before
    with pytest.raises(RuntimeError, match="mine"), install():
        raise RuntimeError("mine")
    assert everything() == before


def test_the_end_of_a_block_leaves_a_later_install_alone() -> None:
    before = everything()
    with install():
        uninstall()
        install()
        inside = everything()
    assert everything() == inside != before, "it was not the block's to undo"
    uninstall()
    assert everything() == before


def test_what_does_not_fit_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(docker.api.client.APIClient, "_get_result_tty")
    before = everything()
    with pytest.raises(AttributeError, match="_get_result_tty"):
        install()
    assert everything() == before


def test_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxframe.compat._patching.version", lambda package: {"docker": "7.99.0"}[package])
    with pytest.warns(UncheckedVersionWarning, match=r"docker 7\.0\.0, .* this is 7\.99\.0") as caught, install():
        pass
    assert caught[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for checked in CHECKED_VERSIONS:
            monkeypatch.setattr("muxframe.compat._patching.version", lambda package, version=checked: version)
            with install():
                pass
    assert issubclass(UncheckedVersionWarning, UserWarning)


def test_others_who_use_urllib3_are_left_alone(installed: None) -> None:
    import requests

    with LoopbackEngine(transport="tcp") as engine:
        answer = requests.get(engine.host.replace("tcp", "http") + "/version", timeout=10)
        assert answer.json()["ApiVersion"]


def run_python(code: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, timeout=60)


def test_muxframe_does_not_import_docker() -> None:
    run = run_python("import muxframe, muxframe.compat, muxframe.engine, sys; assert 'docker' not in sys.modules")
    assert run.returncode == 0, run.stderr


def test_without_docker_the_error_is_clear() -> None:
    run = run_python("import sys; sys.modules['docker'] = None; import muxframe.compat.docker_py")
    assert "ImportError: muxframe.compat.docker_py needs docker-py 7 (pip install docker)" in run.stderr


def test_the_names_are_there() -> None:
    for name in docker_py.__all__:
        assert getattr(docker_py, name) is not None


DOCUMENT = Path(__file__).parent.parent / "docs" / "docker-py.md"


@pytest.mark.skipif(not DOCUMENT.exists(), reason="docs are not beside the tests")
def test_the_documents_examples_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "")
    source = "".join(re.findall(r"^```py\n(.*?)^```$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL))
    assert "install()" in source
    try:
        exec(compile(source, str(DOCUMENT), "exec"), {"__name__": "__main__"})
    finally:
        uninstall()
