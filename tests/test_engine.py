"""attach, exec and logs in both shells, against the loopback engine: over every transport, with everything that can go
wrong on the way."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import inspect
import io
import os
import random
import re
import signal
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import FAKE_DOCKER, FAKE_SSH, VERSIONS, add_program, server_context, serving, tcp_listener
from shells import NAMES, Shell, in_loop, new_loop

import muxframe
import muxframe.aio
from muxframe import Copied, Frame, Stream, pack_frame
from muxframe.engine.endpoint import Tls
from muxframe.errors import (
    BadRequestError,
    ConflictError,
    ConnectionLostError,
    EngineError,
    HandshakeError,
    NotFoundError,
    SinkError,
    TruncatedStreamError,
)
from muxframe.testing import Container, Fault, LoopbackEngine, Process, Service, Task, cat, idle, say

TRANSPORTS = ["unix", "tcp", *(f"tls {version}" for version in VERSIONS)]
OUTPUT = [(1, b"out\n"), (2, b"err\n"), (1, b"more\n")]
WIRE = b"".join(bytes(pack_frame(Stream(stream), payload)) for stream, payload in OUTPUT)
READ = (b"out\nmore\n", b"err\n")


@pytest.fixture(scope="module", params=NAMES)
def shell(request: pytest.FixtureRequest) -> Iterator[Shell]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    shell = Shell(request.param)
    with LoopbackEngine(transport="tcp") as engine:
        engine.add(talker())
        shell.connect(engine.host).attach("c").close()  # what loops make for their first connection stays
    if shell.loop is not None:
        in_loop(shell.loop, lambda: asyncio.to_thread(int))  # as does their first thread
    gc.collect()
    gc.freeze()
    yield shell
    gc.unfreeze()
    shell.close()


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(autouse=True)
def nothing_is_left(shell: Shell) -> Iterator[None]:
    """No test leaves descriptors, threads or tasks behind."""
    before = descriptors(), set(threading.enumerate()), shell.tasks()
    yield
    deadline = time.monotonic() + 30
    while True:
        shell.settle()
        gc.collect()
        left = [thread for thread in set(threading.enumerate()) - before[1] if thread.is_alive()]
        tasks = shell.tasks()
        if (descriptors() <= before[0] and not left and tasks <= before[2]) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert descriptors() <= before[0]
    assert not left
    assert tasks <= before[2]


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if sys.platform == "linux" else 0


class Bench:
    """A loopback engine and a client of it."""

    def __init__(self, shell: Shell, request: pytest.FixtureRequest) -> None:
        self.shell = shell
        self._request = request
        self._stack = ExitStack()

    def __call__(
        self, *containers: Container, transport: str = "unix", timeout: float | None = 10, **options: Any
    ) -> Any:
        """Set an engine up and connect to it."""
        kind, _, version = transport.partition(" ")
        tls: Any = None
        if kind == "tls":
            certificates: Path = self._request.getfixturevalue("certificates")
            tls = Tls.in_directory(certificates).ssl_context
            tls.minimum_version = tls.maximum_version = VERSIONS[version]
            options["tls"] = server_context(certificates, version)
        self.engine = LoopbackEngine(transport="unix" if kind == "unix" else "tcp", **options)
        self._stack.enter_context(self.engine)
        for container in containers:
            self.engine.add(container)
        return self.shell.connect(self.engine.host, tls=tls, timeout=timeout)

    def kill(self) -> None:
        """Kill the container."""
        container = self.engine.find("container", "c")
        assert container is not None
        container.kill()

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def bench(shell: Shell, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(shell, request)
    yield bench
    bench.close()


SAYS = {"say": say(*OUTPUT)}


def talker(**options: Any) -> Container:
    return Container("c", output=OUTPUT, **options)


def reader(**options: Any) -> Container:
    """A container that says what it is told, up to the end."""
    return Container("c", cat, open_stdin=True, stdin_once=True, **options)


def in_thread(function: Callable[[], Any]) -> Callable[[float], Any]:
    """Call a function in a thread; return what waits for its result, or raises its error."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append((function(), None))
        except BaseException as error:
            results.append((None, error))

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join(timeout: float) -> Any:
        thread.join(timeout)
        assert not thread.is_alive(), "it is still waiting"
        result, error = results[0]
        if error is not None:
            raise error
        return result

    return join


# --- ways of reading -------------------------------------------------------------------------------------------------


def read_frames(session: Any) -> tuple[bytes, bytes]:
    return joined(session)


def read_chunks(session: Any) -> tuple[bytes, bytes]:
    return joined(session.chunks())


def read_lines(session: Any) -> tuple[bytes, bytes]:
    return joined((line.stream, line.data + (b"" if line.partial else b"\n")) for line in session.lines())


def read_all(session: Any) -> tuple[bytes, bytes]:
    read: tuple[bytes, bytes] = session.read_all()
    return read


def read_copy(session: Any) -> tuple[bytes, bytes]:
    stdout, stderr = bytearray(), bytearray()
    copied = session.copy_to(stdout, stderr)
    assert (copied.stdout_size, copied.stderr_size) == (len(stdout), len(stderr))
    return bytes(stdout), bytes(stderr)


def joined(items: Any) -> tuple[bytes, bytes]:
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for item in items:
        stream, payload = item
        parts[Stream(stream) >> 1].append(bytes(payload))
    return b"".join(parts[0]), b"".join(parts[1])


WAYS = [read_frames, read_chunks, read_lines, read_copy, read_all]
Way = Callable[[Any], tuple[bytes, bytes]]


@pytest.fixture(params=WAYS, ids=lambda way: way.__name__.removeprefix("read_"))
def way(request: pytest.FixtureRequest) -> Way:
    read: Way = request.param
    return read


def test_attach(bench: Bench, transport: str, way: Way) -> None:
    client = bench(talker(), transport=transport)
    with client.attach("c") as session:
        assert (session.tty, session.stream_type, session.closed) == (False, "multiplexed", False)
        assert way(session) == READ
        assert way(session) == (b"", b"")
    assert session.closed


def test_exec(bench: Bench, transport: str) -> None:
    client = bench(Container("c"), transport=transport, on_exec={"say": say(*OUTPUT, exit_code=3)})
    with client.exec("c", "say") as session:
        assert session.exit_code is None
        assert read_frames(session) == READ
        assert session.exit_code == 3
        assert session.wait() == 3


def test_logs(bench: Bench, transport: str) -> None:
    client = bench(talker(state="exited"), transport=transport)
    with client.logs("c") as session:
        assert read_copy(session) == READ
    with client.logs("c", stdout=False, tail=2) as session:
        assert read_copy(session) == (b"", b"err\n")


FAULTS = {
    "200": Fault(no_upgrade=True),
    "interim": Fault(interim=(100, 103)),
    "head in pieces": Fault(head_pieces=7, head_delay=0.001),
    "one packet": Fault(join=True),
    "byte by byte": Fault(dribble=0.0001),
    "chunked": Fault(chunked=True),
    "chunked, one packet": Fault(chunked=True, join=True),
    "chunked, byte by byte": Fault(chunked=True, dribble=0.0001),
    "late": Fault(delay=0.05),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_makes_no_difference(bench: Bench, fault: str, way: Way) -> None:
    client = bench(talker())
    bench.engine.fault("attach", FAULTS[fault])
    with client.attach("c") as session:
        assert way(session) == READ


# --- the end of the stream -------------------------------------------------------------------------------------------


def before_and_fault(items: Any) -> tuple[list[Any], Exception]:
    """Take items until one raises."""
    seen = []
    try:
        for item in items:
            seen.append(item)
    except Exception as fault:
        return seen, fault
    raise AssertionError("nothing was raised")


@pytest.mark.parametrize("transport", ["unix", "tls 1.2", "tls 1.3"])
def test_end_inside_a_frame(bench: Bench, transport: str) -> None:
    client = bench(Container("c"), transport=transport, on_exec=SAYS)
    bench.engine.fault("exec-start", Fault(cut=len(WIRE) - 2))
    with client.exec("c", "say") as session:
        seen, fault = before_and_fault(session)
        assert isinstance(fault, TruncatedStreamError)
        assert [tuple(frame) for frame in seen] == OUTPUT[:2]
        with pytest.raises(TruncatedStreamError):
            next(session)
    with client.exec("c", "say") as session:
        seen, fault = before_and_fault(session.chunks())
        assert isinstance(fault, TruncatedStreamError)
        assert joined(seen) == (b"out\nmor", b"err\n")
    with client.exec("c", "say") as session:
        with pytest.raises(TruncatedStreamError) as caught:
            session.read_all()
        assert joined(caught.value.chunks) == (b"out\nmor", b"err\n")
    with client.exec("c", "say") as session:
        stdout = bytearray()
        with pytest.raises(TruncatedStreamError) as caught:
            session.copy_to(stdout)
        assert stdout == b"out\nmor"
        assert isinstance(caught.value.delivered, Copied)
        assert caught.value.delivered.stdout_size == 7


def test_end_inside_a_frame_is_ignored_where_it_is_asked(bench: Bench) -> None:
    client = bench(Container("c"), on_exec=SAYS)
    bench.engine.fault("exec-start", Fault(cut=len(WIRE) - 2))
    for read in (read_chunks, read_all, read_copy):
        with client.exec("c", "say", truncated="ignore") as session:
            assert read(session) == (b"out\nmor", b"err\n")
    with client.exec("c", "say", truncated="ignore") as session:
        assert read_frames(session) == (b"out\n", b"err\n")


RESET = Fault(stall=len(WIRE) - 2, reset=len(WIRE) - 2)  # what was not read by then would be lost


def test_reset_inside_a_frame(bench: Bench) -> None:
    client = bench(Container("c"), transport="tcp", on_exec=SAYS)
    bench.engine.fault("exec-start", RESET)
    for read in (iter, lambda session: session.chunks(), lambda session: session.lines()):
        with client.exec("c", "say") as session:
            session.timeout = 0.1
            seen, fault = before_and_fault(read(session))
            assert isinstance(fault, TimeoutError)
            assert len(seen) >= 2
            bench.engine.release()
            for _ in range(2):
                _, fault = before_and_fault(read(session))
                assert isinstance(fault, ConnectionLostError)
                assert fault.__cause__ is not fault


def test_reading_all_of_what_was_lost(bench: Bench) -> None:
    client = bench(Container("c"), transport="tcp", on_exec=SAYS)
    bench.engine.fault("exec-start", RESET)
    with client.exec("c", "say") as session:
        session.timeout = 0.1
        with pytest.raises(TimeoutError):
            session.read_all()
        bench.engine.release()
        for _ in range(2):
            with pytest.raises(ConnectionLostError) as caught:
                session.read_all()
            assert joined(caught.value.chunks) == (b"out\nmor", b"err\n")


@pytest.mark.parametrize("fault", [Fault(chunked=True, cut=20), Fault(chunked=True, reset=20, dribble=0.0003)])
def test_end_inside_a_body(bench: Bench, fault: Fault) -> None:
    client = bench(Container("c"), transport="tcp", on_exec=SAYS)
    bench.engine.fault("exec-start", fault)
    with client.exec("c", "say") as session:
        _, lost = before_and_fault(session.chunks())
        assert isinstance(lost, ConnectionLostError)


@pytest.mark.parametrize("size", [12, 24])
def test_reset_inside_a_body_is_no_end_of_stdin_sessions_either(bench: Bench, size: int) -> None:
    client = bench(Container("c"), transport="tcp", on_exec=SAYS)
    bench.engine.fault("exec-start", Fault(chunked=True, stall=size, reset=size))
    with client.exec("c", "say", stdin=True) as session:
        threading.Timer(0.3, bench.engine.release).start()
        with pytest.raises(ConnectionLostError, match="broke off"):
            session.read_all()


SSH = """#!{python}
import os, sys, time
head = b""
while not head.endswith(b"\\r\\n\\r\\n"):
    head += os.read(0, 1)
if head.startswith(b"GET"):
    os.write(1, b"HTTP/1.1 200 OK\\r\\nContent-Length: 0\\r\\nConnection: close\\r\\n\\r\\n")
    sys.exit()
os.write(1, b"HTTP/1.1 101 UPGRADED\\r\\nConnection: Upgrade\\r\\nUpgrade: tcp\\r\\n\\r\\n" + {wire!r})
time.sleep(0.5)
os.write(2, b"out of memory")
os._exit(3)
"""


def test_ssh_that_dies_with_unread_input(
    bench: Bench, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it leaves unread makes a reset of its end, which is no end of the session."""
    program = tmp_path / "ssh"
    program.write_text(SSH.format(python=sys.executable, wire=WIRE))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    with shell.connect("ssh://h", timeout=10).attach("c", stdin=True, tty=False) as session:
        session.write(b"unread")
        seen, fault = before_and_fault(session)
        assert [tuple(frame) for frame in seen] == OUTPUT
        assert isinstance(fault, ConnectionLostError)
        assert "out of memory" in str(fault)


@pytest.mark.parametrize("is_early", [False, True], ids=["leaves the request unread", "has ended before it is sent"])
def test_ssh_that_gets_nowhere(
    shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_early: bool
) -> None:
    program = tmp_path / "ssh"
    program.write_text(f"#!/bin/sh\n{'' if is_early else 'sleep 0.3'}\necho no such host >&2\nexit 255\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)

    def auth(_: object) -> dict[str, str]:
        time.sleep(0.5 if is_early else 0)
        return {}

    with pytest.raises(ConnectionLostError, match=r"ssh://h \(host.*\): ssh ended with status 255: no such host"):
        shell.connect("ssh://h", timeout=10, auth=auth)


def test_nobody_listens(shell: Shell) -> None:
    with tcp_listener() as listener:
        host = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConnectionLostError, match="refused"):
            shell.connect(host)


def test_what_tells_its_own_end_does_not_wait_for_that_of_ssh(
    bench: Bench, shell: Shell, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench(talker(state="exited"))
    add_program(tmp_path, "ssh", FAKE_SSH)
    add_program(tmp_path, "docker", FAKE_DOCKER)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr("muxframe.engine.dial.GRACE", 20.0)
    engine = shell.connect("ssh://h" + bench.engine.host.removeprefix("unix://"), timeout=15)
    assert engine.wait("c", timeout=10) == 0


def test_connection_that_ends_without_a_word_of_tls(bench: Bench) -> None:
    """Whoever cuts a TLS connection off is not taken for the engine."""
    client = bench(Container("c"), transport="tls 1.3", on_exec=SAYS)
    bench.engine.fault("exec-start", Fault(reset=len(WIRE), dribble=0.0003))
    with client.exec("c", "say") as session, pytest.raises(ConnectionLostError):
        session.read_all()


def test_writing_to_broken_tls(bench: Bench, shell: Shell, certificates: Path) -> None:
    """Somebody in between has ended the connection, without a word of TLS."""
    bench(reader(), transport="tls 1.3")
    address = "127.0.0.1", int(bench.engine.host.rpartition(":")[2])
    cut = threading.Event()

    def relay(conn: socket.socket) -> None:
        with socket.create_connection(address) as upstream:
            join = in_thread(lambda: pass_on(conn, upstream))
            pass_on(upstream, conn, cut)
            join(5)

    with serving(tcp_listener(), relay) as (_, port):
        client = shell.connect(f"tcp://127.0.0.1:{port}", tls=Tls.in_directory(certificates).ssl_context, timeout=10)
        with client.attach("c", stdin=True) as session:
            cut.set()
            with pytest.raises(ConnectionLostError):
                session.read_all()
            with pytest.raises(ConnectionLostError):
                session.write(b"x")


def pass_on(source: socket.socket, target: socket.socket, cut: threading.Event | None = None) -> None:
    """Pass bytes on to their end, or until they are cut off."""
    source.settimeout(0.05)
    while cut is None or not cut.is_set():
        try:
            data = source.recv(65536)
        except TimeoutError:
            continue
        except OSError:
            break
        if not data:
            break
        target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


# --- what answers there are ------------------------------------------------------------------------------------------

REFUSALS = {
    400: BadRequestError,
    401: EngineError,
    403: EngineError,
    404: NotFoundError,
    409: ConflictError,
    429: EngineError,
    500: EngineError,
    503: EngineError,
}


@pytest.mark.parametrize("status", REFUSALS)
@pytest.mark.parametrize("body", ["no", {"message": "no"}], ids=["text", "json"])
def test_refusal(bench: Bench, status: int, body: object) -> None:
    client = bench(talker())
    for route, call in (
        ("attach", lambda: client.attach("c")),
        ("logs", lambda: client.logs("c")),
        ("inspect", lambda: client.inspect("c")),
    ):
        bench.engine.fault(route, Fault(status=status, body=body))
        with pytest.raises(REFUSALS[status]) as caught:
            call()
        assert type(caught.value) is REFUSALS[status]
        assert (caught.value.status, caught.value.message) == (status, "no")


def test_what_is_not_there(bench: Bench) -> None:
    client = bench(Container("c"), Service("s"))
    for call in (client.attach, client.logs, client.inspect, client.start, client.wait):
        with pytest.raises(NotFoundError, match="nobody"):
            call("nobody")
    with pytest.raises(NotFoundError):
        client.exec("nobody", "ls")
    with pytest.raises(NotFoundError):
        client.logs("nobody", of="service")
    with client.exec("c", "nothing") as session:
        assert b"not found" in session.read_all().stdout
        assert session.exit_code in (126, 127)


BAD_ANSWERS = {
    "garbage": Fault(garbage=b"\x00\xffgarbage\r\n\r\n"),
    "another protocol": Fault(garbage=b"220 ready\r\n\r\n"),
    "endless head": Fault(endless_head=True),
    "redirect": Fault(redirect="http://127.0.0.1:1/elsewhere"),
    "redirect in place": Fault(redirect="/elsewhere"),
    "too many interim answers": Fault(interim=(100,) * 40),
}


@pytest.mark.parametrize("fault", BAD_ANSWERS)
def test_bad_answer(bench: Bench, fault: str) -> None:
    client = bench(talker())
    for route, call in (("attach", lambda: client.attach("c")), ("inspect", lambda: client.inspect("c"))):
        bench.engine.fault(route, BAD_ANSWERS[fault])
        before = len(bench.engine.requests)
        with pytest.raises(HandshakeError):
            call()
        assert len(bench.engine.requests) <= before + 2, "nothing is followed"
    bench.engine.fault("ping", BAD_ANSWERS[fault])
    with pytest.raises(HandshakeError):
        bench.shell.connect(bench.engine.host)


def test_no_answer(bench: Bench) -> None:
    client = bench(talker(), timeout=0.5)
    bench.engine.fault("attach", Fault(delay=60))
    with pytest.raises(TimeoutError, match="did not answer in time"):
        client.attach("c")
    bench.engine.fault("inspect", Fault(garbage=b""))
    with pytest.raises(ConnectionLostError):
        client.inspect("c")
    bench.engine.clear_faults()
    bench.engine.fault("inspect", Fault(stall=10))
    with pytest.raises(TimeoutError):
        client.inspect("c")


def test_head_that_does_not_come_to_an_end_in_time(bench: Bench) -> None:
    """The time is the whole answer's, not that of each byte."""
    client = bench(talker(), timeout=0.5)
    bench.engine.fault("attach", Fault(head_pieces=100, head_delay=0.05))
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        client.attach("c")
    assert time.monotonic() - began < 4


def test_reset_in_place_of_an_answer(bench: Bench) -> None:
    client = bench(talker(), transport="tcp")
    bench.engine.fault("inspect", Fault(reset=0))
    with pytest.raises(ConnectionLostError) as caught:
        client.inspect("c")
    assert caught.value.__cause__ is not caught.value


def test_nobody_there(shell: Shell, tmp_path: Path) -> None:
    for host in (f"unix://{tmp_path}/nothing", "tcp://127.0.0.1:1"):
        with pytest.raises(ConnectionLostError, match="cannot connect"):
            shell.connect(host)


def test_server_that_is_not_trusted(bench: Bench, shell: Shell, certificates: Path) -> None:
    bench(transport="tls 1.3")
    with pytest.raises(ConnectionLostError, match=r"(?i)certificate"):
        shell.connect(bench.engine.host, tls=True)
    with pytest.raises((ConnectionLostError, HandshakeError)):
        shell.connect(bench.engine.host, tls=False)


# --- engines ---------------------------------------------------------------------------------------------------------

ENGINES = [("docker", f"1.{minor}") for minor in range(24, 52, 3)]
ENGINES += [("podman", version) for version in ("1.24", "1.40", "1.41", "1.44")]


@pytest.mark.parametrize("engine", ENGINES, ids=" ".join)
@pytest.mark.parametrize("tty", [False, True])
def test_every_engine(bench: Bench, engine: tuple[str, str], tty: bool) -> None:
    """What is framed and what is not is known, whatever the engine calls it."""
    script = talker().script
    containers = [Container(name, script, tty=tty) for name in ("attached", "followed")]
    client = bench(*containers, flavor=engine[0], api_version=engine[1], on_exec={"say": script})
    assert (client.is_podman, client.api_version) == (engine[0] == "podman", engine[1])
    expected = (b"out\nerr\nmore\n", b"") if tty else READ
    with client.attach("attached") as session:
        assert (session.tty, session.stream_type) == (tty, "raw" if tty else "multiplexed")
        assert session.read_all() == expected
    with client.exec("followed", "say", tty=tty) as session:
        assert session.read_all() == expected
    with client.logs("followed", follow=True) as session:
        assert session.read_all() == expected
    with client.logs("followed", tty=tty) as session:
        assert session.read_all() == expected


@pytest.mark.parametrize("of", [Service, Task])
@pytest.mark.parametrize("api_version", ["1.41", "1.45"])
@pytest.mark.parametrize("tty", [False, True])
def test_logs_of_swarms(bench: Bench, of: type[Container], api_version: str, tty: bool) -> None:
    client = bench(of("c", output=OUTPUT, state="exited", tty=tty), api_version=api_version)
    with client.logs("c", of=of.kind) as session:
        assert session.read_all() == ((b"out\nerr\nmore\n", b"") if tty else READ)


@pytest.mark.parametrize("tty", [False, True])
def test_the_wire_itself(bench: Bench, tty: bool) -> None:
    client = bench(talker(tty=tty), Container("idle", cat), on_exec={"say": say(*OUTPUT)})
    with client.attach("c") as session:
        wire = b"".join(session.wire())
        assert wire == (b"out\nerr\nmore\n" if tty else WIRE)
        assert session.line_options == {"raw": tty, "timestamps": False, "details": False}
        assert b"".join(session.wire()) == b""
    with client.exec("idle", "say") as session:
        assert b"".join(session.wire()) == WIRE
        assert session.exit_code == 0
    with client.logs("c", timestamps=True) as session:
        expected = list(session.lines())
    with client.logs("c", timestamps=True) as session:
        wire = b"".join(session.wire())
        assert list(muxframe.lines(wire, **session.line_options)) == expected


def test_a_wire_goes_on_after_a_timeout(bench: Bench) -> None:
    client = bench(talker())
    bench.engine.fault("attach", Fault(stall=11))
    with client.attach("c") as session:
        session.timeout = 0.02
        wire, seen = iter(session.wire()) if bench.shell.loop is None else session.wire(), []
        for _ in range(2):
            with pytest.raises(TimeoutError):
                while True:
                    seen.append(next(wire))
        bench.engine.release()
        session.timeout = 5
        assert b"".join([*seen, *wire]) == WIRE


def test_a_wire_that_nothing_comes_over(bench: Bench) -> None:
    client = bench(Container("c", cat, open_stdin=True))
    with client.attach("c", stdin=True) as session:
        session.timeout = 0.05
        wire = iter(session.wire())
        with pytest.raises(TimeoutError):
            next(wire)
        session.timeout = 30
        session.write(b"x")
        piece = next(iter(session.wire()))
        assert piece == pack_frame(Stream.STDOUT, b"x")[: len(piece)]
        session.close()
        assert list(session.wire()) == []


def test_a_prompt_is_flushed_after_a_timeout(bench: Bench) -> None:
    client = bench(Container("c", cat, open_stdin=True))
    with client.attach("c", stdin=True) as session:
        session.timeout = 0.5
        lines = session.lines()
        session.write(b"hello\nlogin: ")
        prompt: list[Any] = []
        while not prompt or not prompt[-1].partial:  # a busy machine may be late
            with pytest.raises(TimeoutError):
                prompt += lines
            prompt += lines.flush()
        assert b"".join(line.data + b"\n" * (not line.partial) for line in prompt) == b"hello\nlogin: "
        session.timeout = 30
        session.write(b"anne\n")
        assert [next(lines).data, lines.flush()] == [b"anne", []]
        session.close()
        assert list(lines) == lines.flush() == []


def test_batches_do_not_grow_old(bench: Bench) -> None:
    client = bench(Container("c", cat, open_stdin=True))
    with client.attach("c", stdin=True) as session:
        batches = session.batches(max_age=0.01)
        session.write(b"one\n")
        session.timeout = 0.5
        with pytest.raises(TimeoutError):
            next(batches)
        session.timeout = 30
        session.write(b"two\n")
        assert [line.data for line in next(batches)] == [b"one", b"two"]
        session.write(b"three\n")
        session.timeout = 0.5
        late: list[Any] = []
        while not late:
            with pytest.raises(TimeoutError):
                next(batches)
            late += batches.flush()
        assert [line.data for batch in late for line in batch] == [b"three"]


@pytest.mark.parametrize("status", [426, 505])
def test_logs_where_http10_is_refused(bench: Bench, status: int) -> None:
    client = bench(talker(state="exited"))
    bench.engine.fault("logs", Fault(refuse_http10=status))
    with client.logs("c") as session:
        assert session.read_all() == READ
    assert [request.http_version for request in bench.engine.requests if "/logs" in request.path] == ["1.0", "1.1"]


def test_logs_whose_head_is_late(bench: Bench) -> None:
    """Podman 4 answers when there is something to say."""
    go = threading.Event()

    def script(process: Process) -> None:
        while not go.wait(0.01):
            process.sleep(0)
        for stream, data in OUTPUT:
            process.write(data, stream)

    client = bench(Container("c", script), flavor="podman", server_version="4.3.1", timeout=0.5)
    with client.logs("c", follow=True) as session:
        session.timeout = 0.6
        with pytest.raises(TimeoutError):
            session.read_all()
        go.set()
        session.timeout = None
        assert session.read_all() == READ


def test_late_head_may_be_a_refusal(bench: Bench) -> None:
    client = bench(Container("c"), flavor="podman", server_version="4.3.1")
    bench.engine.fault("logs", Fault(status=500, body={"message": "no log driver"}, delay=0.1))
    with client.logs("c", follow=True) as session, pytest.raises(EngineError, match="no log driver"):
        session.read_all()


def test_timestamps_and_details(bench: Bench) -> None:
    log = [(1, b"one\n", 1_795_235_766_532_584_213), (2, b"two\n", 1_795_235_767_000_000_000)]
    client = bench(Container("c", state="exited", log=log, log_details={"k": "v"}))
    with client.logs("c", timestamps=True, details=True) as session:
        lines = list(session.lines())
    assert [(line.stream, line.data, line.timestamp) for line in lines] == log_lines(log)
    assert [line.details for line in lines] == [b"k=v", b"k=v"]
    with client.logs("c", since=1_795_235_767) as session:
        assert read_all(session) == (b"", b"two\n")
    with client.logs("c", until="2026-11-21T04:36:06.6Z") as session:
        assert read_all(session) == (b"one\n", b"")


def log_lines(log: list[tuple[int, bytes, int]]) -> list[tuple[int, bytes, int]]:
    return [(stream, data.rstrip(b"\n"), timestamp) for stream, data, timestamp in log]


# --- states ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("flavor", ["docker", "podman"])
def test_states(bench: Bench, flavor: str) -> None:
    containers = [Container(state, output=OUTPUT, state=state) for state in ("exited", "paused", "created")]  # type: ignore[arg-type]
    client = bench(*containers, flavor=flavor)
    for state in ("exited", "paused"):
        with pytest.raises(ConflictError, match=state):
            client.attach(state)
    with client.attach("exited", stream=False, logs=True) as session:
        assert session.read_all() == READ
    for state in ("created", "exited"):
        with client.attach(state, start=True) as session:
            assert session.read_all() == READ
            assert session.wait(5) == 0
    with pytest.raises(ConflictError):
        client.exec("exited", "ls")


@pytest.mark.parametrize("flavor", ["docker", "podman"])
def test_start_comes_behind_the_head(bench: Bench, flavor: str) -> None:
    client = bench(talker(state="created"), flavor=flavor)
    bench.engine.fault("attach", Fault(head_pieces=5, head_delay=0.02))
    with client.attach("c", start=True) as session:
        assert read_frames(session) == READ
    asked = [request.path.rpartition("/")[2] for request in bench.engine.requests]
    assert asked == ["_ping", "json", "attach", "wait", "start"]


def test_start_of_what_runs(bench: Bench) -> None:
    client = bench(reader())
    client.start("c")
    with client.attach("c", start=True, stdin=True) as session:
        session.write(b"in")
        session.close_stdin()
        assert session.read_all() == (b"in", b"")
        assert session.wait(5) == 0


def test_start_that_fails(bench: Bench) -> None:
    client = bench(talker(state="created"))
    bench.engine.fault("start", Fault(status=500, body={"message": "no such image"}))
    with pytest.raises(EngineError, match="no such image"):
        client.attach("c", start=True)


def test_exit_codes(bench: Bench) -> None:
    def script(process: Process) -> int:
        process.stdin.read(1)
        process.write(b"bye")
        return 42

    client = bench(*(Container(name, script, open_stdin=True, auto_remove=name == "gone") for name in ("c", "gone")))
    for name in ("c", "gone"):
        with client.attach(name, stdin=True) as session:
            with pytest.raises(TimeoutError):
                session.wait(0.05)
            assert session.exit_code is None
            session.write(b"x")
            assert session.read_all() == (b"bye", b"")
            assert session.wait(5) == session.wait() == session.exit_code == 42
    assert client.wait("c", timeout=5) == 42
    with pytest.raises(NotFoundError):
        client.inspect("gone")
    with client.logs("c") as session, pytest.raises(ValueError, match="no exit"):
        session.wait()


def test_wait_of_the_engine(bench: Bench) -> None:
    client = bench(Container("c", state="created"), Container("runs"))
    assert client.wait("c") == 0
    with pytest.raises(TimeoutError):
        client.wait("runs", timeout=0.05)
    with pytest.raises(ValueError, match="not a condition"):
        client.wait("c", "gone")
    begun = time.monotonic()  # what has no time left waits for nothing, least of all for the engine's own ten seconds
    with pytest.raises(TimeoutError):
        client.wait("runs", timeout=-1)
    assert time.monotonic() < begun + 5
    join = in_thread(lambda: client.wait("runs", timeout=5))
    time.sleep(0.05)
    client.kill("runs", "TERM")
    assert join(5) == 143


def test_wait_after_close(bench: Bench) -> None:
    client = bench(talker())
    with client.attach("c") as session:
        assert session.read_all() == READ
    assert session.wait(5) == 0


def test_wait_that_ends_with_the_session_or_the_engine(bench: Bench) -> None:
    client = bench(Container("c"), on_exec={"idle": idle})
    for session in (client.attach("c"), client.exec("c", "idle")):
        join = in_thread(session.wait)
        time.sleep(0.1)
        session.close()
        with pytest.raises((ConnectionLostError, ValueError)):
            join(5)
    with client.attach("c") as session:
        join = in_thread(session.wait)
        time.sleep(0.1)
        bench.engine.close()
        with pytest.raises(ConnectionLostError):
            join(5)


def test_detach(bench: Bench) -> None:
    client = bench(Container("c", cat, open_stdin=True, tty=True))
    with client.attach("c", stdin=True, detach_keys="ctrl-a,b") as session:
        session.write(b"in")
        assert next(session) == Frame(Stream.STDOUT, b"in")
        session.write(b"\x01b")
        read_frames(session)
    assert client.inspect("c")["State"]["Running"]
    with pytest.raises(BadRequestError):
        client.attach("c", detach_keys="nonsense")


def test_resize(bench: Bench) -> None:
    def script(process: Process) -> None:
        process.write(b"%d %d" % process.wait_for_resize(5))

    client = bench(Container("c", script, tty=True), on_exec={"size": script})
    with client.attach("c") as session:
        session.resize(24, 80)
        assert session.read_all() == (b"24 80", b"")
    with pytest.raises(ConflictError):
        client.resize("c", 1, 2)
    client = bench(Container("c", tty=True), on_exec={"size": script})
    for size in (None, (7, 9)):
        with client.exec("c", "size", tty=True, size=size) as session:
            if size is None:
                session.resize(7, 9)
            assert session.read_all() == (b"7 9", b"")


def test_anything_else(bench: Bench) -> None:
    client = bench(Container("c"))
    assert client.request("GET", "/version").json()["ApiVersion"] == client.api_version
    assert client.request("POST", "/containers/c/kill", query={"signal": "TERM"}).status == 204
    assert client.request("POST", "/containers/c/stop").status == 304
    with pytest.raises(NotFoundError):
        client.request("GET", "/nothing")


# --- waiting, going on, giving up ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("offset", [3, len(WIRE) - 1])
def test_timeout_loses_nothing(bench: Bench, transport: str, offset: int, way: Way) -> None:
    client = bench(talker(), transport=transport)
    bench.engine.fault("attach", Fault(stall=offset))
    items: Any = None
    seen: list[Any] = []
    with client.attach("c") as session:
        session.timeout = 0.02
        if way in (read_all, read_copy):
            stdout, stderr = bytearray(), bytearray()
            for _ in range(2):
                with pytest.raises(TimeoutError):
                    session.read_all() if way is read_all else session.copy_to(stdout, stderr)
            bench.engine.release()
            session.timeout = 5
            if way is read_all:
                assert session.read_all() == READ
            else:
                session.copy_to(stdout, stderr)
                assert (stdout, stderr) == READ
            return
        items = session if way is read_frames else session.chunks() if way is read_chunks else session.lines()
        for _ in range(2):
            with pytest.raises(TimeoutError):
                while True:
                    seen.append(next(items))
        bench.engine.release()
        session.timeout = 5
        seen += items
        assert joined(seen if way is not read_lines else ((line.stream, line.data + b"\n") for line in seen)) == READ


@pytest.mark.parametrize("call", [next, read_chunks, read_lines, read_all, lambda session: session.write(MUCH * 9)])
def test_timeouts_say_so(bench: Bench, call: Callable[[Any], Any]) -> None:
    client = bench(Container("c", open_stdin=True))
    with client.attach("c", stdin=True) as session:
        session.timeout = 0.02
        with pytest.raises(TimeoutError, match="timed out"):
            call(session)


def test_ways_of_payload_follow_one_another(bench: Bench) -> None:
    client = bench(talker())
    with client.attach("c") as session:
        stream, first = next(session.chunks())
        stdout, stderr = bytearray(first), bytearray()
        assert stream == Stream.STDOUT
        session.copy_to(stdout, stderr)
        assert (stdout, stderr) == READ
        assert session.read_all() == (b"", b"")
        assert list(session.chunks()) == []


def test_ways_of_reading_do_not_mix(bench: Bench) -> None:
    client = bench(Container("c", cat))
    ways = {
        "frames": lambda session: next(session),
        "lines": lambda session: session.lines(),
        "batches": lambda session: session.batches(),
        "wire": lambda session: session.wire(),
        "payload": lambda session: session.chunks(),
    }
    for chosen in ways:
        with client.attach("c") as session:
            session.timeout = 0.01
            try:
                ways[chosen](session)
            except TimeoutError:
                pass
            for other in ways:
                if other != chosen:
                    with pytest.raises(RuntimeError, match=chosen):
                        ways[other](session)
            if chosen != "payload":
                for read in (session.read_all, lambda: session.copy_to(None)):
                    with pytest.raises(RuntimeError):
                        read()


class Stubborn:
    """A sink that refuses so many writes, after so many bytes."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.data = bytearray()

    def write(self, data: Any) -> int:
        if len(self.data) + len(data) > self.room:
            self.room = 1 << 30
            raise OSError(28, "No space left on device")
        self.data += data
        return len(data)


@pytest.mark.parametrize("room", [0, 4, 5])
def test_sink_that_fails_and_goes_on(bench: Bench, room: int) -> None:
    client = bench(talker())
    with client.attach("c") as session:
        stdout, stderr = Stubborn(room), bytearray()
        with pytest.raises(SinkError, match="No space") as caught:
            session.copy_to(stdout, stderr)
        for stream, payload in caught.value.undelivered:
            (stderr if stream == Stream.STDERR else stdout.data).extend(payload)
        session.copy_to(stdout, stderr)
        assert (stdout.data, stderr) == READ


def endless(process: Process) -> None:
    while True:
        process.write((b"y" * 9999 + b"\n") * 10)


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("call", [next, read_frames, read_chunks, read_lines, read_copy, read_all])
def test_close_ends_a_read(bench: Bench, transport: str, call: Callable[[Any], Any]) -> None:
    client = bench(Container("c"), transport=transport)
    session = client.attach("c")
    join = in_thread(lambda: call(session))
    time.sleep(0.03)
    session.close()
    if call is next:
        with pytest.raises(StopIteration):
            join(1)
    else:
        assert join(1) == (b"", b"")


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("call", [read_frames, read_chunks, read_lines, read_copy, read_all])
def test_close_ends_a_read_of_much(bench: Bench, transport: str, call: Callable[[Any], Any]) -> None:
    client = bench(Container("c"), transport=transport, on_exec={"yes": endless})
    session = client.exec("c", "yes")
    join = in_thread(lambda: call(session))
    time.sleep(0.03)
    session.close()
    stdout, _ = join(1)
    assert not stdout.strip(b"y\n")
    bench.kill()


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_close_ends_a_write(bench: Bench, transport: str) -> None:
    client = bench(Container("c", lambda process: process.sleep(), open_stdin=True), transport=transport)
    session = client.attach("c", stdin=True)
    join = in_thread(lambda: session.write(bytes(30_000_000)))
    time.sleep(0.1)
    session.close()
    with pytest.raises((ConnectionLostError, ValueError)):
        join(1)


@pytest.mark.parametrize("read", ["chunks", "lines", "batches"])
def test_close_inside_a_frame_is_an_end(bench: Bench, read: str) -> None:
    client = bench(Container("c"), on_exec=SAYS)
    bench.engine.fault("exec-start", Fault(stall=len(WIRE) - 2))
    session = client.exec("c", "say")
    join = in_thread(lambda: list(getattr(session, read)()))
    time.sleep(0.2)
    session.close()
    join(5)
    bench.engine.release()


@pytest.mark.parametrize("use", [read_copy, read_all, lambda session: setattr(session, "timeout", 3)])
def test_close_right_behind_the_look_whether_it_is_closed(
    bench: Bench, shell: Shell, use: Callable[[Any], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    if shell.loop is not None:
        pytest.skip("of the blocking shell")
    session = bench(Container("c")).attach("c")
    looks: list[bool] = []

    def closed(session: Any) -> bool:
        looks.append(bool(session._link.is_closed))
        if len(looks) == 1:
            session.close()
        return looks[-1]

    monkeypatch.setattr(type(session), "closed", property(closed))
    assert use(session) in ((b"", b""), None)
    assert looks[:2] == [False, True]


def test_use_after_close(bench: Bench) -> None:
    client = bench(Container("c", cat, open_stdin=True, stdin_once=True))
    session = client.attach("c", stdin=True)
    session.close()
    session.close()
    assert session.closed
    assert "closed" in repr(session)
    for use in (lambda: session.write(b"x"), session.close_stdin):
        with pytest.raises(ValueError, match="closed"):
            use()
    assert session.read_all() == (b"", b"")
    assert list(session.chunks()) == []
    assert session.exit_code is None


def test_no_stdin(bench: Bench) -> None:
    client = bench(reader())
    with client.attach("c") as session:
        for use in (lambda: session.write(b"x"), session.close_stdin):
            with pytest.raises(ValueError, match="no stdin"):
                use()


def test_writing_to_what_has_ended(bench: Bench) -> None:
    client = bench(Container("c", output=OUTPUT, open_stdin=True))
    with client.attach("c", stdin=True) as session:
        assert session.read_all() == READ
        with pytest.raises(ConnectionLostError):
            session.write(b"x")


# --- stdin -----------------------------------------------------------------------------------------------------------

MUCH: bytes = os.urandom(1000) * 10_000


@pytest.mark.parametrize("way_in", ["attach", "exec", "websocket"])
def test_stdin(bench: Bench, transport: str, way_in: str) -> None:
    client = bench(reader(), transport=transport, on_exec={"cat": cat})
    if way_in == "exec":
        session = client.exec("c", "cat", stdin=True)
    else:
        session = client.attach("c", stdin=True, via="hijack" if way_in == "attach" else way_in)
    with session:
        assert session.write(b"one\n") == 4
        assert next(session) == Frame(Stream.STDOUT, b"one\n")
        assert session.write(bytearray(b"two\n")) == session.write(memoryview(b"six\n")) == 4
        assert session.write(b"") == 0
        session.close_stdin()
        session.close_stdin()
        with pytest.raises(ValueError, match="stdin is closed"):
            session.write(b"x")
        assert read_frames(session) == (b"two\nsix\n", b"")


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("via", ["hijack", "websocket"])
def test_writing_while_reading(bench: Bench, transport: str, via: str) -> None:
    client = bench(reader(), transport=transport)
    with client.attach("c", stdin=True, via=via) as session:

        def feed() -> None:
            assert session.write(MUCH) == len(MUCH)
            session.close_stdin()

        join = in_thread(feed)
        stdout, stderr = session.read_all()
        join(5)
    assert stdout == MUCH
    assert stderr == b""


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("via", ["hijack", "websocket"])
def test_timeout_of_a_write(bench: Bench, transport: str, via: str) -> None:
    """What was taken counts, and the rest can be written on."""
    go = threading.Event()

    def script(process: Process) -> None:
        while not go.wait(0.01):
            process.sleep(0)
        cat(process)

    client = bench(Container("c", script, open_stdin=True, stdin_once=True), transport=transport)
    data = MUCH * 2
    with client.attach("c", stdin=True, via=via) as session:
        session.timeout = 0.05
        written = 0
        for _ in range(3):
            with pytest.raises(TimeoutError) as caught:
                session.write(data[written:])
            written += caught.value.characters_written  # type: ignore[attr-defined]
        assert written <= len(data)
        go.set()
        session.timeout = 10

        def feed() -> None:
            session.write(data[written:])
            session.close_stdin()

        join = in_thread(feed)
        assert session.read_all().stdout == data
        join(5)


@pytest.mark.parametrize("flavor", ["docker", "podman"])
def test_half_close_that_does_not_reach_the_container(bench: Bench, flavor: str) -> None:
    client = bench(Container("c", cat, open_stdin=True, tty=True), flavor=flavor)
    with client.attach("c", stdin=True) as session:
        assert session.closes_stdin is False
        with pytest.warns(RuntimeWarning, match="does not pass the end of stdin on"):
            session.close_stdin()


def test_engine_without_websockets(bench: Bench) -> None:
    pytest.importorskip("websockets")
    client = bench(talker(), flavor="podman")
    with pytest.raises(BadRequestError, match="this engine has no attach over a WebSocket"):
        client.attach("c", via="websocket")


def test_websocket(bench: Bench, way: Way) -> None:
    pytest.importorskip("websockets")
    client = bench(talker())
    with client.attach("c", via="websocket") as session:
        assert session.stream_type == "raw"
        assert way(session) == (b"out\nerr\nmore\n", b"")


# --- many, much, and nothing left ------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
def test_who_does_not_read_holds_the_container_up(bench: Bench, transport: str) -> None:
    written = 0

    def script(process: Process) -> None:
        nonlocal written
        while True:
            process.write(bytes(30_000))
            written += 30_000

    client = bench(Container("c", script), transport=transport)
    with client.attach("c") as session:
        taken = len(next(session.chunks())[1])
        seen = -1
        while seen != written:
            seen = written
            time.sleep(0.1)
        assert written < 10_000_000
        for _, payload in session.chunks():
            taken += len(payload)
            if taken > 2 * seen:
                break
    bench.kill()


def test_many_sessions_at_once(bench: Bench) -> None:
    client = bench(*(Container(f"c{i}", output=[b"%d\n" % i] * 10) for i in range(50)))
    sessions = [client.attach(f"c{i}") for i in range(50)]
    joins = [in_thread(session.read_all) for session in sessions]
    for i, join in enumerate(joins):
        assert join(20) == (b"%d\n" % i * 10, b"")
    for session in sessions:
        session.close()


def greet(process: Process) -> None:
    process.write(b"hello\n")
    process.sleep()


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("use", [lambda _: None, next, lambda session: session.write(b"x")])
def test_forgotten_sessions(bench: Bench, transport: str, use: Callable[[Any], Any]) -> None:
    """The garbage collector closes them, and says so, as it does of files."""
    containers = [Container(f"forgotten-{i}", greet, open_stdin=True) for i in range(5)]
    client = bench(*containers, transport=transport)
    before = descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for i in range(5):
            use(client.attach(f"forgotten-{i}", stdin=True))
        for _ in range(3):
            bench.shell.settle()
            gc.collect()
        deadline = time.monotonic() + 30
        while len(bench.engine._wires) and time.monotonic() < deadline:
            bench.shell.settle()
            gc.collect()
            time.sleep(0.01)
        assert len(bench.engine._wires) == 0
    assert descriptors() <= before


def test_a_wait_whose_time_is_over_already(bench: Bench) -> None:
    client = bench(Container("c", cat))
    with pytest.raises(TimeoutError, match="did not answer in time"):
        client.wait("c", timeout=1e-9)


def test_forgotten_sessions_whose_output_has_ended(bench: Bench) -> None:
    """The container runs on, and its exit is still waited for."""
    client = bench(*(Container(f"c{i}", lambda process: process.sleep(), state="created") for i in range(5)))
    bench.engine.fault("attach", Fault(cut=0))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        for i in range(5):
            assert client.attach(f"c{i}", start=True).read_all() == (b"", b"")
        deadline = time.monotonic() + 30
        while bench.engine._wires and time.monotonic() < deadline:
            bench.shell.settle()
            gc.collect()
            time.sleep(0.01)
        assert not bench.engine._wires


# --- one shell alone -------------------------------------------------------------------------------------------------


@pytest.fixture
def blocking_only(shell: Shell) -> None:
    if shell.loop is not None:
        pytest.skip("of the blocking shell")


@pytest.fixture
def loop(shell: Shell) -> asyncio.AbstractEventLoop:
    if shell.loop is None:
        pytest.skip("of the asyncio shell")
    return shell.loop


@contextlib.contextmanager
def interrupts(period: float) -> Iterator[None]:
    """Press ctrl-C every so many seconds until it is taken: Python misses what comes just before a system call."""
    taken = threading.Event()

    def take(*_: object) -> None:
        if not taken.is_set():
            taken.set()
            raise KeyboardInterrupt

    def press(main: int) -> None:
        while not taken.wait(period):
            signal.pthread_kill(main, signal.SIGINT)

    before = signal.signal(signal.SIGINT, take)
    thread = threading.Thread(target=press, args=[threading.main_thread().ident])
    thread.start()
    try:
        yield
    finally:
        taken.set()
        thread.join()
        signal.signal(signal.SIGINT, before)


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads")
@pytest.mark.usefixtures("blocking_only")
@pytest.mark.parametrize("call", [next, read_chunks, read_copy, read_all, lambda session: session.write(MUCH * 3)])
@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
def test_interrupt(bench: Bench, transport: str, call: Callable[[Any], Any]) -> None:
    """ctrl-C ends what waits, and the session goes on."""
    go = threading.Event()

    def script(process: Process) -> None:
        while not go.wait(0.01):
            process.sleep(0)
        for stream, data in OUTPUT:
            process.write(data, stream)

    client = bench(Container("c", script, open_stdin=True), transport=transport)
    with client.attach("c", stdin=True) as session:
        with interrupts(0.05), pytest.raises(KeyboardInterrupt):
            call(session)
        go.set()
        if call in (read_chunks, read_copy, read_all):
            assert call(session) == READ


@pytest.mark.parametrize("way", [read_frames, read_chunks, read_copy, read_all])
def test_exit_code_after_a_cancelled_read(bench: Bench, way: Way, loop: asyncio.AbstractEventLoop) -> None:
    """The output has ended, and the exit code is being asked for, when the reader is cancelled."""
    client = bench(Container("c", cat), on_exec=SAYS)
    bench.engine.fault("exec-inspect", Fault(stall=0), times=1)

    def asked() -> bool:
        return any(re.fullmatch(r".*/exec/\w+/json", request.path) for request in bench.engine.requests)

    async def run() -> None:
        async with client.target.exec("c", "say") as session:
            sink = io.BytesIO()

            async def read() -> Any:
                if way is read_frames:
                    return [frame async for frame in session]
                if way is read_chunks:
                    return [chunk async for chunk in session.chunks()]
                return await (session.read_all() if way is read_all else session.copy_to(sink, sink))

            reading = asyncio.ensure_future(read())
            while not asked():
                await asyncio.sleep(0.01)
            reading.cancel()
            with pytest.raises(asyncio.CancelledError):
                await reading
            assert session.exit_code is None
            bench.engine.release()
            result = await read()
            assert session.exit_code == 0
            if way is read_all:
                assert result == READ

    in_loop(loop, run)


def test_exit_code_that_takes_longer_than_the_reader_waits_at_a_time(
    bench: Bench, loop: asyncio.AbstractEventLoop
) -> None:
    client = bench(Container("c", cat), on_exec=SAYS)
    bench.engine.fault("exec-inspect", Fault(delay=0.5))

    async def run() -> None:
        async with client.target.exec("c", "say") as session:
            for _ in range(200):
                try:
                    async with asyncio.timeout(0.05):
                        assert await session.read_all() == READ
                        break
                except TimeoutError:
                    pass
            assert session.exit_code == 0

    in_loop(loop, run)


def test_close_while_the_exit_code_is_asked_for(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    client = bench(Container("c", cat), on_exec=SAYS)
    bench.engine.fault("exec-inspect", Fault(stall=0))

    async def run() -> None:
        async with client.target.exec("c", "say") as session:
            reading = asyncio.ensure_future(session.read_all())
            while not any(request.path.endswith("/json") for request in bench.engine.requests):
                await asyncio.sleep(0.01)
            session.close()
            assert await asyncio.wait_for(reading, 5) == READ
            assert session.exit_code is None

    in_loop(loop, run)


def test_two_tasks_do_not_read_at_once(bench: Bench, loop: asyncio.AbstractEventLoop) -> None:
    client = bench(Container("c", cat, open_stdin=True, stdin_once=True))

    async def run() -> None:
        async with client.target.attach("c", stdin=True) as session:
            first = asyncio.ensure_future(anext(session))
            await asyncio.sleep(0.01)
            with pytest.raises(RuntimeError):
                await anext(session)
            await session.write(b"in")
            assert await first == Frame(Stream.STDOUT, b"in")

    in_loop(loop, run)


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
def test_cancelled_reads_lose_nothing(
    bench: Bench, transport: str, way: Way, loop: asyncio.AbstractEventLoop
) -> None:
    rng = random.Random(1)
    total = [(1 + i % 2, b"%d " % i * (i % 50) + b"\n") for i in range(600)]

    def script(process: Process) -> None:
        for number, (stream, data) in enumerate(total):
            process.write(data, stream)
            if number % 20 == 0:
                process.sleep(0.001)

    client = bench(Container("c", script), transport=transport)
    expected = tuple(b"".join(data for stream, data in total if stream == number) for number in (1, 2))

    async def run() -> tuple[bytes, bytes]:
        stdout, stderr = bytearray(), bytearray()
        async with client.target.attach("c") as session:
            items = session if way is read_frames else session.lines() if way is read_lines else None
            if way is read_chunks:
                items = session.chunks()
            while True:
                read = (
                    anext(items)
                    if items is not None
                    else session.read_all()
                    if way is read_all
                    else session.copy_to(stdout, stderr)
                )
                task = asyncio.ensure_future(read)
                for _ in range(rng.choice((0, 1, 1, 2, 3, 5))):
                    await asyncio.sleep(0)
                if rng.random() < 0.5:
                    await asyncio.sleep(rng.random() / 1000)
                task.cancel()
                try:
                    item = await task
                except asyncio.CancelledError:
                    continue
                except StopAsyncIteration:
                    return bytes(stdout), bytes(stderr)
                if way is read_all:
                    return bytes(item.stdout), bytes(item.stderr)
                if way is read_copy:
                    return bytes(stdout), bytes(stderr)
                stream, data = (item.stream, item.data + b"\n") if way is read_lines else item
                (stdout, stderr)[stream >> 1].extend(data)

    assert in_loop(loop, run) == expected


@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
@pytest.mark.parametrize("via", ["hijack", "websocket"])
def test_cancelled_writes_count_what_was_taken(
    bench: Bench, transport: str, via: str, loop: asyncio.AbstractEventLoop
) -> None:
    """The connection stays usable: what was begun, a record or a message, is ended before the next."""
    rng = random.Random(2)
    client = bench(reader(), transport=transport)

    async def run() -> None:
        async with client.target.attach("c", stdin=True, via=via) as session:
            reading = asyncio.ensure_future(session.read_all())
            position = 0
            while position < len(MUCH):
                task = asyncio.ensure_future(session.write(MUCH[position : position + 400_000]))
                await asyncio.sleep(rng.random() / 500)
                task.cancel()
                try:
                    position += await task
                except asyncio.CancelledError as cancelled:
                    position += cancelled.characters_written  # type: ignore[attr-defined]
            await session.close_stdin()
            stdout, _ = await reading
            assert len(stdout) == len(MUCH)
            assert stdout == MUCH

    in_loop(loop, run)


@pytest.mark.parametrize("transport", ["unix", "tcp", "tls 1.3"])
@pytest.mark.parametrize("start", [False, True])
def test_cancelled_opening_leaves_nothing(
    bench: Bench, transport: str, start: bool, loop: asyncio.AbstractEventLoop
) -> None:
    """At whatever await it was: `nothing_is_left` counts."""
    client = bench(*(Container(f"c-{i}", cat, state="created" if start else "running") for i in range(60)))

    async def run() -> int:
        opened = 0
        for i in range(60):

            async def open_it(name: str = f"c-{i}") -> None:
                async with client.target.attach(name, start=start):
                    await asyncio.sleep(1)

            task = asyncio.ensure_future(open_it())
            for _ in range(i):
                await asyncio.sleep(0)
            if i % 3 == 0:
                await asyncio.sleep(i / 5000)
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
                opened += 1
        return opened

    assert in_loop(loop, run) == 0


def test_asyncio_session_in_a_loop_of_its_own(shell: Shell) -> None:
    """Nothing is left of a loop that is closed behind a session."""
    if shell.loop is None:
        pytest.skip("of the asyncio shell")

    async def run(host: str) -> tuple[bytes, bytes]:
        async with muxframe.aio.attach("c", host=host) as session:
            read: tuple[bytes, bytes] = await session.read_all()
            return read

    with LoopbackEngine() as engine:
        engine.add(talker())
        loop = new_loop(shell.name)
        try:
            assert loop.run_until_complete(run(engine.host)) == READ
        finally:
            loop.close()


# --- two shells, one interface ---------------------------------------------------------------------------------------


def public(kind: type) -> dict[str, Any]:
    names = {name for each in kind.__mro__ for name in [*vars(each), *getattr(each, "__annotations__", ())]}
    return {name: getattr(kind, name, None) for name in names if not name.startswith("_")}


@pytest.mark.parametrize("name", ["Engine", "Session"])
def test_shells_have_the_same_names_and_parameters(name: str) -> None:
    from muxframe import engine
    from muxframe.engine import aio

    blocking, asynchronous = public(getattr(engine, name)), public(getattr(aio, name))
    own = {"wait_closed"} if name == "Session" else set()  # close() cannot wait there
    assert set(asynchronous) - {"timeout"} == set(blocking) - {"timeout"} | own
    for method in blocking:
        if callable(blocking[method]):
            parameters = inspect.signature(blocking[method]).parameters
            others = inspect.signature(asynchronous[method]).parameters
            assert described(parameters) == described(others), method


def described(parameters: Mapping[str, inspect.Parameter]) -> list[tuple[object, ...]]:
    """Describe all but copy_to's: it has no delay in a loop, which gathers by itself, and takes StreamWriters there."""
    return [
        (each.name, each.kind, each.default, "sink" if "AnySink" in str(each.annotation) else each.annotation)
        for each in parameters.values()
        if each.name != "delay"
    ]


def test_openers_have_the_same_parameters() -> None:
    for name in ("connect", "attach", "exec", "logs"):
        signatures = [inspect.signature(getattr(module, name)) for module in (muxframe, muxframe.aio)]
        assert signatures[0].parameters == signatures[1].parameters


def test_timeouts_are_positive(bench: Bench) -> None:
    with bench(talker()).attach("c") as session:
        for seconds in (0, -1):
            with pytest.raises(ValueError, match="timeout"):
                session.timeout = seconds
        assert session.timeout is None


def test_loop_that_cannot_wait_for_room(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on Windows, whose sockets are not Unix' either."""

    def add_writer(*_: Any) -> None:
        raise NotImplementedError

    async def main(host: str) -> None:
        client = await muxframe.aio.connect(host)
        async with client.attach("c", stdin=True) as session:
            loop = asyncio.get_running_loop()
            monkeypatch.setattr(loop, "add_writer", add_writer)
            data = b"x" * 2_000_000
            writing = asyncio.ensure_future(session.write(data))
            size = 0
            async for _, payload in session.chunks():
                size += len(payload)
                if size == len(data):
                    break
            assert await writing == len(data)
            monkeypatch.delattr("socket.AF_UNIX")
            with pytest.raises(ConnectionLostError, match="no Unix sockets"):
                await muxframe.aio.connect("unix:///x")

    with LoopbackEngine(transport="tcp") as engine:
        engine.add(reader())
        asyncio.run(main(engine.host))
