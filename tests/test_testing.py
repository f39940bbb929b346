"""The loopback engine: what scripts can do, what goes wrong on demand, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import doctest
import gc
import json
import re
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

import muxframe
import muxframe.testing.engine
from muxframe.testing import Container, Fault, Killed, LoopbackEngine, Process, Service, Task, cat, idle, say
from muxframe.testing.routes import ROUTES

UPGRADE = "Connection: Upgrade\r\nUpgrade: tcp\r\n"
BOTH = "stream=1&stdout=1&stderr=1"

needs_unix = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="no unix sockets")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Each test ends with the threads it began with."""
    before = set(threading.enumerate())
    yield
    left = {thread for thread in threading.enumerate() if thread.name.startswith("muxframe.testing")} - before
    assert not left


class Client:
    """A connection to an engine that asserts nothing about what comes over it."""

    def __init__(self, engine: LoopbackEngine) -> None:
        kind, _, address = engine.host.partition("://")
        if kind == "unix":
            self.socket = socket.socket(socket.AF_UNIX)
            self.socket.connect(address)
        else:
            host, _, port = address.partition(":")
            self.socket = socket.create_connection((host, int(port)))
        self.socket.settimeout(10)
        self.buffer = b""

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def ask(self, method: str, path: str, body: Any = None, headers: str = "", version: str = "1.1") -> None:
        payload = b"" if body is None else json.dumps(body).encode()
        head = f"{method} {path} HTTP/{version}\r\nHost: engine\r\n{headers}Content-Length: {len(payload)}\r\n"
        if body is not None:
            head += "Content-Type: application/json\r\n"
        self.socket.sendall(head.encode() + b"\r\n" + payload)

    def until(self, end: bytes) -> bytes:
        while end not in self.buffer:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self.buffer)
            self.buffer += data
        found, _, self.buffer = self.buffer.partition(end)
        return found + end

    def head(self) -> str:
        return self.until(b"\r\n\r\n").decode()

    def read(self) -> bytes:
        """Read up to the end of the connection."""
        while data := self.socket.recv(65536):
            self.buffer += data
        found, self.buffer = self.buffer, b""
        return found

    def answer(self) -> tuple[int, bytes]:
        """Read an answer with its body."""
        head = self.head()
        status = int(head.split()[1])
        length = re.search(r"Content-Length: (\d+)", head)
        if length:
            while len(self.buffer) < int(length[1]):
                self.buffer += self.socket.recv(65536)
            body, self.buffer = self.buffer[: int(length[1])], self.buffer[int(length[1]) :]
            return status, body
        if "chunked" in head:
            body = b""
            while size := int(self.until(b"\r\n"), 16):
                while len(self.buffer) < size + 2:
                    self.buffer += self.socket.recv(65536)
                body, self.buffer = body + self.buffer[:size], self.buffer[size + 2 :]
            self.until(b"\r\n")
            return status, body
        return status, b"" if status in (101, 204, 304) else self.read()


def call(engine: LoopbackEngine, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
    with Client(engine) as client:
        client.ask(method, path, body)
        return client.answer()


def attach(engine: LoopbackEngine, name: str, query: str = BOTH) -> Client:
    client = Client(engine)
    client.ask("POST", f"/containers/{name}/attach?{query}", headers=UPGRADE)
    return client


def attach_all(engine: LoopbackEngine, name: str, query: str = BOTH) -> bytes:
    with attach(engine, name, query) as client:
        client.head()
        return client.read()


def wait_for(container: Container, state: str) -> None:
    with container.changed:
        assert container.changed.wait_for(lambda: container.state == state, 5)


# --- the package -----------------------------------------------------------------------------------------------------


def test_documented_routes() -> None:
    text = (Path(__file__).parent.parent / "docs" / "testing.md").read_text(encoding="utf-8")
    listed = text.partition("The routes are ")[2].partition("and `*`")[0]
    assert re.findall(r"`([\w-]+)`", listed) == [route.name for route in ROUTES]
    assert set(re.findall(r"(\w+)=", " ".join(re.findall(r"^\| `(\w+=.*?)` \|", text, re.MULTILINE)))) == {
        field.name for field in dataclasses.fields(Fault)
    }


def test_import_is_explicit() -> None:
    code = "import muxframe, sys; print([name for name in sys.modules if 'testing' in name or name == 'h11'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_documentation_examples() -> None:
    result = doctest.testmod(muxframe.testing.engine)
    assert result.attempted and not result.failed


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"transport": "pigeon"}, "transport"),
        ({"flavor": "rkt"}, "flavor"),
        ({"api_version": "1.99"}, "api_version"),
        ({"api_version": "new"}, "not a version"),
    ],
)
def test_unknown_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LoopbackEngine(**options)


@needs_unix
def test_unix_socket_is_private_and_removed() -> None:
    with LoopbackEngine() as engine:
        directory = Path(engine.host.removeprefix("unix://")).parent
        assert directory.stat().st_mode & 0o077 == 0
    assert not directory.exists()


def test_tcp() -> None:
    with LoopbackEngine(transport="tcp") as engine:
        assert re.fullmatch(r"tcp://127\.0\.0\.1:\d+", engine.host)
        assert call(engine, "GET", "/_ping") == (200, b"OK")
        host, port = engine.host.removeprefix("tcp://").split(":")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))


# --- scripts ---------------------------------------------------------------------------------------------------------


def test_output_waits_for_the_first_client() -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", output=[(1, b"out\n"), (2, b"err\n"), b"more\n"], exit_code=4))
        assert container.state == "running"
        assert muxframe.demux(attach_all(engine, "web")) == (b"out\nmore\n", b"err\n")
        assert (container.state, container.exit_code) == ("exited", 4), "known before the stream ends"
        assert call(engine, "POST", "/containers/web/wait") == (200, b'{"StatusCode":4}\n')


def test_a_terminal_is_raw() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", output=[b"out\r\n", (2, b"err\r\n")], tty=True))
        assert attach_all(engine, "web") == b"out\r\nerr\r\n"


def test_a_script_reads_stdin() -> None:
    def script(process: Process) -> int:
        first = process.stdin.readline()
        some = process.stdin.read(3)
        rest = list(process.stdin)
        process.write(b"|".join([first, some, *rest]))
        process.write(repr(process.stdin.read()).encode())
        return 7

    with LoopbackEngine() as engine:
        container = engine.add(Container("web", script, open_stdin=True, stdin_once=True))
        with attach(engine, "web", f"{BOTH}&stdin=1") as client:
            client.head()
            client.socket.sendall(b"one\ntwothree\nfour\nfi")
            client.socket.sendall(b"ve")
            client.socket.shutdown(socket.SHUT_WR)
            assert muxframe.demux(client.read()).stdout == b"one\n|two|three\n|four\n|fiveb''"
        assert container.exit_code == 7


def test_each_client_gets_what_is_written_after_it_came() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("cat", cat, open_stdin=True, stdin_once=True))
        with attach(engine, "cat", f"{BOTH}&stdin=1") as first:
            first.head()
            first.socket.sendall(b"1")
            first.until(b"1")
            with attach(engine, "cat") as second, attach(engine, "cat", f"{BOTH}&logs=1") as third:
                second.head()
                third.head()
                first.socket.sendall(b"2\n")
                first.socket.shutdown(socket.SHUT_WR)
                assert muxframe.demux(first.read()).stdout == b"2\n"
                assert muxframe.demux(second.read()).stdout == b"2\n"
                assert muxframe.demux(third.read()).stdout == b"2\n", "half a line is in Docker's log when it is whole"
        assert call(engine, "GET", "/containers/cat/logs?stdout=1")[1] == muxframe.pack_frame(1, b"12\n")


def test_resize() -> None:
    sizes = []

    def script(process: Process) -> None:
        with pytest.raises(TimeoutError):
            process.wait_for_resize(timeout=0.01)
        process.write(b"ready")
        sizes.append(process.wait_for_resize())
        process.write(b"once")
        sizes.append(process.wait_for_resize())

    with LoopbackEngine() as engine:
        container = engine.add(Container("web", script, tty=True))
        with attach(engine, "web") as client:
            client.until(b"ready")
            assert call(engine, "POST", "/containers/web/resize?h=10&w=20")[0] == 200
            client.until(b"once")
            assert call(engine, "POST", "/containers/web/resize?h=30&w=40")[0] == 200
            assert client.read() == b""
        assert sizes == [(10, 20), (30, 40)]
        assert container.process is not None and container.process.size == (30, 40)


def test_signals() -> None:
    def graceful(process: Process) -> int:
        try:
            process.write(b"up")
            process.sleep()
        except Killed as killed:
            process.write(b"signal %d" % killed.signal)
        return 5

    with LoopbackEngine() as engine:
        container = engine.add(Container("graceful", graceful))
        with attach(engine, "graceful") as client:
            client.until(b"up")
            for name in ("SIGUSR1", "winch", "34"):
                assert call(engine, "POST", f"/containers/graceful/kill?signal={name}")[0] == 204
            assert container.state == "running"
            assert call(engine, "POST", "/containers/graceful/stop")[0] == 204
            assert muxframe.demux(client.read()).stdout == b"signal 15"
        assert container.process is not None and container.process.signals == [10, 28, 34, 15]
        assert (container.exit_code, container.process.killed) == (5, False)

        container = engine.add(Container("stubborn", lambda process: stubborn(process)))
        with attach(engine, "stubborn") as client:
            client.until(b"up")
            assert call(engine, "POST", "/containers/stubborn/stop?t=0")[0] == 204
            assert client.read() == b""
        assert container.exit_code == 137

        container = engine.add(Container("idle"))
        call(engine, "POST", "/containers/idle/kill?signal=TERM")
        assert container.exit_code == 143


def stubborn(process: Process) -> None:
    process.write(b"up")
    while not process.killed:
        with contextlib.suppress(Killed):
            process.sleep()


def test_a_slow_client_holds_the_script_up() -> None:
    written = []

    def script(process: Process) -> None:
        for _ in range(100):
            process.write(bytes(1 << 16))
            written.append(1)

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with attach(engine, "web") as client:
            client.head()
            count = -1
            while count != len(written):
                count = len(written)
                time.sleep(0.1)
            assert 0 < count < 100
            assert len(muxframe.demux(client.read()).stdout) == 100 << 16


def test_kill_frees_a_script_whose_client_does_not_read() -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", lambda process: process.write(bytes(10 << 20))))
        with attach(engine, "web") as client:
            client.head()
            assert call(engine, "POST", "/containers/web/kill")[0] == 204
            assert container.exit_code == 137


def test_start_and_start_again() -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", output=[b"x"], state="created"))
        for _ in range(2):
            with attach(engine, "web") as client:
                assert "101 UPGRADED" in client.head()
                assert call(engine, "POST", "/containers/web/start")[0] == 204
                assert muxframe.demux(client.read()).stdout == b"x"
        assert container.exits == 2


def test_an_exited_container_and_its_log() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("old", output=[b"a\nb", (2, b"c\n")], state="exited", exit_code=3))
        assert call(engine, "GET", "/containers/old/logs?stdout=1")[1] == b"".join(
            muxframe.pack_frame(1, data) for data in (b"a\n", b"b")
        )
        state = json.loads(call(engine, "GET", "/containers/old/json")[1])["State"]
        assert (state["Status"], state["ExitCode"]) == ("exited", 3)


@pytest.mark.parametrize(("query", "wanted"), [("stderr=1&stdout=0", {2}), ("stdout=1", {1, 2}), ("stderr=0", {1})])
def test_podman_selects_what_is_not_refused(query: str, wanted: set[int]) -> None:
    """What a query does not name is wanted, and a replay has both streams."""
    out, err = muxframe.pack_frame(1, b"out\n"), muxframe.pack_frame(2, b"err\n")
    with LoopbackEngine(flavor="podman", server_version="5.4.2") as engine:
        for name in ("live", "replayed"):
            engine.add(Container(name, say(b"out\n", (2, b"err\n")), log=[(2, b"err\n")] if name == "replayed" else []))
        expected = (out if 1 in wanted else b"") + (err if 2 in wanted else b"")
        assert attach_all(engine, "live", f"stream=1&{query}") == expected
        assert attach_all(engine, "replayed", f"stream=1&logs=1&{query}") == err + expected


def test_podman_forgets_a_run_when_attached_to() -> None:
    with LoopbackEngine(flavor="podman") as engine:
        container = engine.add(Container("old", state="exited", exit_code=3))
        with attach(engine, "old") as client:
            client.head()
            assert (container.state, container.exit_code) == ("created", 0)


def test_podman_closes_stdin_when_a_client_leaves() -> None:
    with LoopbackEngine(flavor="podman") as engine:
        container = engine.add(Container("cat", cat, open_stdin=True))
        with attach(engine, "cat") as client:
            client.head()
        wait_for(container, "exited")


def test_pause() -> None:
    gate = threading.Event()

    def script(process: Process) -> None:
        gate.wait(5)
        process.write(b"x")

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with attach(engine, "web") as client:
            client.head()
            assert call(engine, "POST", "/containers/web/pause")[0] == 204
            gate.set()
            client.socket.settimeout(0.1)
            with pytest.raises(TimeoutError):
                client.socket.recv(1)
            assert call(engine, "POST", "/containers/web/unpause")[0] == 204
            client.socket.settimeout(10)
            assert muxframe.demux(client.read()).stdout == b"x"


def test_begin_at_add() -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", output=[b"x\n"], begin="add"))
        wait_for(container, "exited")
        assert call(engine, "GET", "/containers/web/logs?stdout=1")[1] == muxframe.pack_frame(1, b"x\n")


def test_misuse_of_containers() -> None:
    with pytest.raises(TypeError, match="not both"):
        Container("web", idle, output=[b"x"])
    with pytest.raises(ValueError, match="state must be one of created, running, paused, exited, not 'stopped'"):
        Container("web", state="stopped")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="begin"):
        Container("web", begin="later")  # type: ignore[arg-type]
    with LoopbackEngine() as engine:
        container = engine.add(Container("web"))
        with pytest.raises(ValueError, match="there is a container"):
            engine.add(Container("web"))
    with LoopbackEngine() as engine, pytest.raises(ValueError, match="added to an engine before"):
        engine.add(container)


# --- the life of containers ------------------------------------------------------------------------------------------


def test_create_start_wait_remove() -> None:
    seen = []

    def script(process: Process) -> int:
        seen.append((process.command, process.config["Env"], process.tty))
        process.write(b"made\n")
        return 9

    with LoopbackEngine(on_create={"make it": script}) as engine:
        config = {"Image": "any", "Cmd": ["make", "it"], "Env": ["A=1"], "HostConfig": {"AutoRemove": True}}
        status, body = call(engine, "POST", "/v1.41/containers/create?name=job", config)
        assert status == 201
        name = json.loads(body)["Id"]
        with Client(engine) as waiting, Client(engine) as removed, attach(engine, name[:12]) as client:
            waiting.ask("POST", f"/containers/{name}/wait?condition=next-exit")
            removed.ask("POST", "/containers/job/wait?condition=removed")
            assert "Transfer-Encoding: chunked" in waiting.head(), "the head comes at once"
            removed.head()
            client.head()
            assert call(engine, "POST", "/containers/job/start")[0] == 204
            assert muxframe.demux(client.read()).stdout == b"made\n"
            assert waiting.until(b"0\r\n\r\n") == b'11\r\n{"StatusCode":9}\n\r\n0\r\n\r\n'
            assert removed.until(b"0\r\n\r\n") == b'11\r\n{"StatusCode":9}\n\r\n0\r\n\r\n'
        assert call(engine, "GET", "/containers/job/json")[0] == 404
        assert seen == [(("make", "it"), ["A=1"], False)]


def test_a_name_is_taken() -> None:
    for flavor, status in (("docker", 409), ("podman", 500)):
        with LoopbackEngine(flavor=flavor) as engine:  # type: ignore[arg-type]
            engine.add(Container("web"))
            assert call(engine, "POST", "/containers/create?name=web", {"Cmd": ["x"]})[0] == status


def test_swarm() -> None:
    with LoopbackEngine() as engine:
        engine.add(Service("api", output=[b"s\n"], tty=True))
        engine.add(Task("api.1", output=[b"t\n"]))
        assert call(engine, "GET", "/services/api/logs?stdout=1") == (200, b"s\n")
        assert call(engine, "GET", "/tasks/api.1/logs?stdout=1") == (200, muxframe.pack_frame(1, b"t\n"))
        service = json.loads(call(engine, "GET", "/services/api")[1])
        assert service["Spec"]["TaskTemplate"]["ContainerSpec"]["TTY"] is True
        task = json.loads(call(engine, "GET", "/tasks/api.1")[1])
        assert task["Spec"]["ContainerSpec"]["TTY"] is False
        assert call(engine, "GET", "/services/other")[0] == 404
        assert call(engine, "GET", "/containers/api/json")[0] == 404


# --- logs ------------------------------------------------------------------------------------------------------------

SECOND = 10**9
LOG = [(1, b"one\n", SECOND), (2, b"two\n", 2 * SECOND + 5), (1, b"three\n", 3 * SECOND)]


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("stdout=1&stderr=1", [b"one\n", b"two\n", b"three\n"]),
        ("stdout=1", [b"one\n", b"three\n"]),
        ("stdout=1&stderr=1&tail=1", [b"three\n"]),
        ("stderr=1&tail=1", []),
        ("stdout=1&stderr=1&since=2.000000005", [b"two\n", b"three\n"]),
        ("stdout=1&stderr=1&since=2.000000006", [b"three\n"]),
        ("stdout=1&stderr=1&until=2.000000005", [b"one\n", b"two\n"]),
        ("stderr=1&timestamps=1", [b"1970-01-01T00:00:02.000000005Z two\n"]),
        ("stderr=1&timestamps=1&details=1", [b"1970-01-01T00:00:02.000000005Z k=v,l=w two\n"]),
    ],
)
def test_logs(query: str, expected: list[bytes]) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("old", state="exited", log=LOG, log_details={"l": "w", "k": "v"}))
        body = call(engine, "GET", f"/containers/old/logs?{query}")[1]
        assert [bytes(frame) for frame in muxframe.frames(body)] == expected


def test_logs_are_followed() -> None:
    gate = threading.Event()

    def script(process: Process) -> None:
        process.write(b"first\nsec")
        gate.wait(5)
        process.write(b"ond\n", 1)
        process.write(b"x" * 20000 + b"\n")
        process.write(b"end")

    with LoopbackEngine() as engine:
        engine.add(Container("web", script))
        with Client(engine) as client:
            client.ask("GET", "/containers/web/logs?stdout=1&follow=1&since=1", version="1.0")
            assert client.head().startswith("HTTP/1.0 200")
            assert client.until(b"\n") == muxframe.pack_frame(1, b"first\n")
            gate.set()
            found = [bytes(frame) for frame in muxframe.frames(client.read())]
        assert found == [b"second\n", b"x" * 16384, b"x" * (20000 - 16384) + b"\n", b"end"]


@pytest.mark.parametrize("flavor", ["docker", "podman"])
def test_times_of_the_pieces_of_a_line(flavor: Any) -> None:
    def script(process: Process) -> None:
        process.write(b"x" * 40000 + b"\n")
        process.write(b"y" * 16384)
        time.sleep(0.01)
        process.write(b"y\n")

    with LoopbackEngine(flavor=flavor) as engine:
        engine.add(Container("web", script))
        muxframe.connect(engine.host).start("web")
        with muxframe.connect(engine.host).logs("web", follow=True) as session:
            session.read_all()
        [web] = engine.containers()
        entries = web.log.entries
    assert [len(entry.data) for entry in entries] == [16384, 16384, 40001 - 2 * 16384, 16384, 2]
    times = [entry.timestamp for entry in entries]
    assert len(set(times)) == (2 if flavor == "docker" else 5)


def test_a_follower_that_leaves_is_forgotten() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web"))
        before = threading.active_count()
        with Client(engine) as client:
            client.ask("GET", "/containers/web/logs?stdout=1&follow=1")
            client.head()
        deadline = time.monotonic() + 5
        while threading.active_count() > before + 1 and time.monotonic() < deadline:  # and the script's
            time.sleep(0.01)
        assert threading.active_count() <= before + 1


def test_podman_4_follows_without_a_head() -> None:
    gate = threading.Event()

    def script(process: Process) -> None:
        gate.wait(5)
        process.write(b"part")

    with LoopbackEngine(flavor="podman", server_version="4.3.1") as engine:
        engine.add(Container("web", script))
        with Client(engine) as client:
            client.ask("GET", "/containers/web/logs?stdout=1&follow=1")
            client.socket.settimeout(0.2)
            with pytest.raises(TimeoutError):
                client.head()
            client.socket.settimeout(10)
            gate.set()
            assert client.answer() == (200, muxframe.pack_frame(1, b"part"))


# --- exec ------------------------------------------------------------------------------------------------------------


def make_exec(engine: LoopbackEngine, *command: str, **config: Any) -> str:
    body = {"AttachStdout": True, "AttachStderr": True, "Cmd": list(command), **config}
    return str(json.loads(call(engine, "POST", "/containers/web/exec", body)[1])["Id"])


def test_exec() -> None:
    def sh(process: Process) -> int:
        process.write(" ".join([*process.command, str(process.size), str(process.config["User"])]).encode())
        return 6

    with LoopbackEngine(on_exec={"sh": sh, "echo hi": say(b"hi\n")}) as engine:
        engine.add(Container("web"))
        name = make_exec(engine, "sh", "-c", "x", Tty=True, User="me")
        with Client(engine) as client:
            client.ask("POST", f"/exec/{name}/start", {"Tty": True, "ConsoleSize": [5, 6]}, UPGRADE)
            client.head()
            assert client.read() == b"sh -c x (5, 6) me"
        inspected = json.loads(call(engine, "GET", f"/exec/{name}/json")[1])
        assert (inspected["Running"], inspected["ExitCode"]) == (False, 6)
        assert engine.execs[0].exit_code == 6
        with Client(engine) as client:
            client.ask("POST", f"/exec/{make_exec(engine, 'echo', 'hi')}/start", {})
            client.head()
            assert muxframe.demux(client.read()).stdout == b"hi\n"


def test_exec_commands_by_a_function() -> None:
    with LoopbackEngine(on_exec=lambda command: say(command[-1].encode()) if command[0] == "say" else None) as engine:
        engine.add(Container("web"))
        for command, code in ((("say", "x"), 0), (("other",), 126)):
            name = make_exec(engine, *command)
            with Client(engine) as client:
                client.ask("POST", f"/exec/{name}/start", {}, UPGRADE)
                client.head()
                client.read()
            assert json.loads(call(engine, "GET", f"/exec/{name}/json")[1])["ExitCode"] == code


def test_execs_end_with_their_container() -> None:
    with LoopbackEngine(on_exec={"sleep": idle}) as engine:
        container = engine.add(Container("web"))
        with Client(engine) as client:
            client.ask("POST", f"/exec/{make_exec(engine, 'sleep')}/start", {}, UPGRADE)
            client.head()
            container.kill()
            assert client.read() == b""


def test_exec_resize_waits_for_the_start() -> None:
    with LoopbackEngine(on_exec={"sh": lambda process: process.wait_for_resize() and None}) as engine:
        engine.add(Container("web"))
        name = make_exec(engine, "sh", Tty=True)
        with Client(engine) as early, Client(engine) as client:
            early.ask("POST", f"/exec/{name}/resize?h=1&w=2")
            client.ask("POST", f"/exec/{name}/start", {"Tty": True}, UPGRADE)
            client.head()
            assert client.read() == b""
            assert early.answer()[0] == 200


# --- detach keys -----------------------------------------------------------------------------------------------------


def test_detach_keys() -> None:
    with LoopbackEngine() as engine:
        container = engine.add(Container("cat", cat, open_stdin=True, tty=True))
        with attach(engine, "cat", f"{BOTH}&stdin=1&detachKeys=ctrl-a,x") as client:
            client.head()
            client.socket.sendall(b"1\x01y\x01")
            client.until(b"1\x01y")
            client.socket.sendall(b"x")
            assert client.read() == b""
        assert container.state == "running"


@pytest.mark.parametrize(("version", "farewell"), [("4.3.1", b"Error: detached from container\n"), ("5.4.2", b"")])
def test_podman_wants_each_detach_key_alone(version: str, farewell: bytes) -> None:
    with LoopbackEngine(flavor="podman", server_version=version) as engine:
        engine.add(Container("cat", cat, open_stdin=True, tty=True))
        with attach(engine, "cat", f"{BOTH}&stdin=1") as client:
            client.head()
            client.socket.sendall(b"\x10\x11")
            client.until(b"\x10\x11")
            client.socket.sendall(b"\x10")
            time.sleep(0.1)
            client.socket.sendall(b"\x11")
            assert client.read() == farewell


# --- HTTP ------------------------------------------------------------------------------------------------------------


def test_connections_are_kept() -> None:
    with LoopbackEngine() as engine, Client(engine) as client:
        engine.add(Container("web", output=[b"x\n"]))
        client.ask("GET", "/_ping")
        client.ask("GET", "/containers/web/logs?stdout=1")
        client.ask("GET", "/v1.41/_ping?x=%20y", headers="Connection: close\r\n")
        assert client.answer() == (200, b"OK")
        assert client.answer()[0] == 200
        assert client.answer() == (200, b"OK")
        assert client.read() == b""
        last = engine.requests[-1]
        assert (last.method, last.target, last.path, last.version) == ("GET", "/v1.41/_ping?x=%20y", "/_ping", "1.41")
        assert (last.query, last.headers["host"], last.body, last.http_version) == ({"x": " y"}, "engine", b"", "1.1")


def test_bodies_in_chunks_and_on_demand() -> None:
    with LoopbackEngine() as engine, Client(engine) as client:
        head = b"POST /containers/create?name=a HTTP/1.1\r\nHost: e\r\nTransfer-Encoding: chunked\r\n"
        client.socket.sendall(head + b"Expect: 100-continue\r\n\r\n")
        assert client.head() == "HTTP/1.1 100 \r\n\r\n"
        client.socket.sendall(b'd\r\n{"Cmd": ["x"]\r\n1\r\n}\r\n0\r\n\r\n')
        assert client.answer()[0] == 201
        assert engine.requests[0].json() == {"Cmd": ["x"]}


@pytest.mark.parametrize("garbage", [b"GET /_ping HTTP/1.1\r\n\r\n", b"\x16\x03\x01 hello\r\n\r\n"])
def test_what_is_no_request(garbage: bytes) -> None:
    with LoopbackEngine() as engine, Client(engine) as client:
        client.socket.sendall(garbage)
        assert client.head().startswith("HTTP/1.1 400")


def test_bytes_before_the_answer() -> None:
    for flavor, expected in (("docker", b""), ("podman", b"early")):
        with LoopbackEngine(flavor=flavor) as engine:  # type: ignore[arg-type]
            engine.add(Container("cat", cat, open_stdin=True, stdin_once=True))
            with Client(engine) as client:
                request = f"POST /containers/cat/attach?{BOTH}&stdin=1 HTTP/1.1\r\nHost: e\r\n{UPGRADE}\r\nearly"
                client.socket.sendall(request.encode())
                client.head()
                client.socket.shutdown(socket.SHUT_WR)
                assert muxframe.demux(client.read()).stdout == expected


# --- faults ----------------------------------------------------------------------------------------------------------

OUT = muxframe.pack_frame(1, b"out\n")
WIRE = OUT + muxframe.pack_frame(2, b"err\n")


@contextlib.contextmanager
def faulty(fault: Fault, *, transport: str = "tcp", **more: Any) -> Iterator[tuple[LoopbackEngine, Client]]:
    with LoopbackEngine(transport=transport) as engine:  # type: ignore[arg-type]
        engine.add(Container("web", output=[(1, b"out\n"), (2, b"err\n")], exit_code=4))
        engine.fault("attach", fault, **more)
        with attach(engine, "web") as client:
            yield engine, client


def pieces(client: Client) -> list[bytes]:
    found = []
    while data := client.socket.recv(65536):
        found.append(data)
    return found


def test_fault_head_in_pieces() -> None:
    with faulty(Fault(head_pieces=4, head_delay=0.05)) as (_, client):
        found = pieces(client)
        assert len(found) >= 4
        assert b"".join(found).endswith(b"\r\n\r\n" + WIRE)


def test_fault_head_and_frames_together() -> None:
    with faulty(Fault(join=True)) as (_, client):
        first = client.socket.recv(65536)
        assert first.startswith(b"HTTP/1.1 101") and first.endswith(WIRE)


def test_fault_join_does_not_wait_for_a_start() -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", state="created"))
        engine.fault("attach", Fault(join=True))
        with attach(engine, "web") as client:
            assert "101" in client.head()


def test_fault_no_upgrade() -> None:
    with faulty(Fault(no_upgrade=True)) as (_, client):
        head = client.head()
        assert head.startswith("HTTP/1.1 200 OK") and "Upgrade" not in head
        assert client.read() == WIRE


def test_fault_chunked() -> None:
    with faulty(Fault(chunked=True)) as (_, client):
        assert client.answer() == (200, WIRE)


def test_fault_headers() -> None:
    with faulty(Fault(headers={"Content-Type": "text/html", "Upgrade": None, "X-More": "1"})) as (_, client):
        head = client.head()
        assert "Content-Type: text/html\r\n" in head and "X-More: 1" in head and "Upgrade:" not in head


def test_fault_interim() -> None:
    with faulty(Fault(interim=(100, 103))) as (_, client):
        assert [client.head().split()[1] for _ in range(3)] == ["100", "103", "101"]


@pytest.mark.parametrize(
    ("body", "content_type", "sent"),
    [("no", "text/plain; charset=utf-8", b"no"), ({"message": "no"}, "application/json", b'{"message":"no"}\n')],
)
def test_fault_status(body: object, content_type: str, sent: bytes) -> None:
    with faulty(Fault(status=503, body=body)) as (engine, client):
        head = client.head()
        assert head.startswith("HTTP/1.1 503 Service Unavailable") and content_type in head
        while len(client.buffer) < len(sent):
            client.buffer += client.socket.recv(100)
        assert client.buffer == sent
        assert engine.find("container", "web").state == "running"  # type: ignore[union-attr]


def test_fault_redirect() -> None:
    with faulty(Fault(redirect="http://elsewhere/")) as (_, client):
        head = client.head()
        assert head.startswith("HTTP/1.1 301") and "Location: http://elsewhere/" in head


def test_fault_garbage() -> None:
    with faulty(Fault(garbage=b"SSH-2.0-x\r\n")) as (_, client):
        assert client.read() == b"SSH-2.0-x\r\n"


def test_fault_refuse_http10() -> None:
    with LoopbackEngine() as engine, Client(engine) as client:
        engine.fault("*", Fault(refuse_http10=426))
        client.ask("GET", "/_ping")
        assert client.answer()[0] == 200
        client.ask("GET", "/_ping", version="1.0")
        assert client.head().startswith("HTTP/1.0 426 Upgrade Required")


def test_fault_endless_head() -> None:
    with faulty(Fault(endless_head=True)) as (_, client), pytest.raises(MemoryError):
        while True:
            client.buffer += client.socket.recv(65536)
            assert b"\r\n\r\n" not in client.buffer
            if len(client.buffer) > 1 << 17:
                raise MemoryError


def test_fault_dribble() -> None:
    with faulty(Fault(dribble=0.001)) as (_, client):
        found = pieces(client)
        assert len(found) > 20
        assert b"".join(found).endswith(WIRE)


def test_fault_stall_and_release() -> None:
    with faulty(Fault(stall=10)) as (engine, client):
        client.head()
        client.socket.settimeout(0.2)
        with pytest.raises(TimeoutError):
            client.read()
        assert client.buffer == WIRE[:10]
        client.socket.settimeout(10)
        engine.release()
        assert client.read() == WIRE


def test_fault_cut() -> None:
    with faulty(Fault(cut=14)) as (_, client):
        client.head()
        assert client.read() == WIRE[:14]


def test_fault_reset() -> None:
    with faulty(Fault(reset=14)) as (_, client):
        client.head()
        with pytest.raises(ConnectionResetError):
            client.read()
        assert client.buffer == WIRE[:14]


@needs_unix
def test_fault_reset_needs_tcp() -> None:
    with LoopbackEngine(transport="unix") as engine, pytest.raises(ValueError, match="needs transport='tcp'"):
        engine.fault("attach", Fault(reset=1))


def test_faults_compose() -> None:
    with faulty(Fault(interim=(103,), head_pieces=3, no_upgrade=True, stall=4, cut=14)) as (engine, client):
        assert "103" in client.head()
        assert "200" in client.head()
        while len(client.buffer) < 4:
            client.buffer += client.socket.recv(100)
        engine.release()
        assert client.read() == WIRE[:14]


def test_fault_for_one_container_and_some_times() -> None:
    with LoopbackEngine() as engine:
        for name in ("one", "two"):
            engine.add(Container(name))
        engine.fault("inspect", Fault(status=500), container="one", times=2)
        engine.fault("inspect", Fault(status=501), container="one")
        status = [call(engine, "GET", f"/containers/{name}/json")[0] for name in ("two", "one", "one", "one")]
        assert status == [200, 500, 500, 501]
        engine.clear_faults()
        assert call(engine, "GET", "/containers/one/json")[0] == 200
        with pytest.raises(ValueError, match="no route"):
            engine.fault("attack", Fault())


# --- the end ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault", [Fault(stall=0), Fault(delay=60), Fault(head_pieces=2, head_delay=60), Fault(dribble=60)], ids=repr
)
def test_close_ends_what_is_stalled(fault: Fault) -> None:
    with LoopbackEngine() as engine:
        engine.add(Container("web", output=[b"x"]))
        engine.fault("attach", fault)
        with attach(engine, "web"):
            time.sleep(0.1)
            start = time.monotonic()
            engine.close()
            assert time.monotonic() - start < muxframe.testing.engine.CLOSING_TIME
            engine.close()
    assert not engine.errors


def test_close_ends_clients_and_scripts() -> None:
    def flood(process: Process) -> None:
        while True:
            process.write(bytes(1 << 16))

    with LoopbackEngine() as engine:
        for name, script in (("flood", flood), ("cat", cat), ("idle", idle)):
            engine.add(Container(name, script, open_stdin=True, state="created" if name == "idle" else "running"))
        with contextlib.ExitStack() as stack:
            names = ("flood", "cat", "idle")
            clients = [stack.enter_context(attach(engine, name, f"{BOTH}&stdin=1")) for name in names]
            for client in clients:
                client.head()
            clients[2].socket.settimeout(0.2)
            with pytest.raises(TimeoutError):  # nobody reads it
                clients[2].socket.sendall(bytes(10 << 20))
            for path in ("logs?stdout=1&follow=1", "wait"):
                client = stack.enter_context(Client(engine))
                client.ask("GET" if "logs" in path else "POST", f"/containers/cat/{path}")
                client.head()
            stack.enter_context(Client(engine))  # says nothing
            start = time.monotonic()
            engine.close()
            assert time.monotonic() - start < muxframe.testing.engine.CLOSING_TIME
    assert not engine.errors


def test_errors_of_scripts_are_raised_at_the_end() -> None:
    def broken(process: Process) -> None:
        raise ZeroDivisionError("script")

    engine = LoopbackEngine()
    with pytest.raises(ZeroDivisionError, match="script"), engine:
        container = engine.add(Container("web", broken))
        assert attach_all(engine, "web") == b""
        assert container.exit_code == 1
    with pytest.raises(KeyError), LoopbackEngine() as engine:
        engine.add(Container("web", broken))
        attach_all(engine, "web")
        raise KeyError("the test's own error comes first")
    assert len(engine.errors) == 1
    with pytest.raises(ExceptionGroup), LoopbackEngine() as engine:
        for name in ("one", "two"):
            engine.add(Container(name, broken))
            attach_all(engine, name)


def test_a_script_that_does_not_end_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(muxframe.testing.engine, "CLOSING_TIME", 0.1)
    gate = threading.Event()
    with LoopbackEngine() as engine:
        container = engine.add(Container("web", lambda process: gate.wait(10) and None, begin="add"))
        engine.close()
        assert "still running: muxframe.testing: script of web" in str(engine.errors.pop())
        gate.set()
        assert container._thread is not None
        container._thread.join()


# --- TLS -------------------------------------------------------------------------------------------------------------


def contexts(certificates: Path, version: ssl.TLSVersion) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificates / "server-cert.pem", certificates / "server-key.pem")
    server.load_verify_locations(certificates / "ca.pem")
    server.verify_mode = ssl.CERT_REQUIRED
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.load_verify_locations(certificates / "ca.pem")
    client.load_cert_chain(certificates / "cert.pem", certificates / "key.pem")
    client.minimum_version = client.maximum_version = version
    return server, client


def exchange(sock: socket.socket, context: ssl.SSLContext, request: bytes, stdin: bytes) -> bytes:
    """Talk TLS with a half-close, as an SSLSocket cannot; return everything up to the server's close_notify."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname="127.0.0.1")

    def flush() -> None:
        sock.sendall(outgoing.read())

    def receive() -> None:
        data = sock.recv(65536)
        incoming.write(data) if data else incoming.write_eof()

    def retry(step: Any) -> Any:
        while True:
            try:
                return step()
            except ssl.SSLWantReadError:
                flush()
                receive()

    retry(tls.do_handshake)
    tls.write(request)
    flush()
    found = b""
    while b"\r\n\r\n" not in found:
        found += retry(lambda: tls.read(65536))
    tls.write(stdin)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.unwrap()  # our close_notify; the server's comes at the end
    flush()
    with contextlib.suppress(ssl.SSLZeroReturnError):
        while data := retry(lambda: tls.read(65536)):
            found += data
    return found


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=lambda each: each.name)
def test_tls_goes_on_after_the_client_has_ended(certificates: Path, version: ssl.TLSVersion) -> None:
    server, client = contexts(certificates, version)
    lines: list[bytes] = []

    def script(process: Process) -> None:
        lines.extend(process.stdin)
        process.write(bytes(100_000))

    with LoopbackEngine(tls=server) as engine:
        engine.add(Container("web", script, open_stdin=True, stdin_once=True))
        with Client(engine) as plain:
            request = f"POST /containers/web/attach?{BOTH}&stdin=1 HTTP/1.1\r\nHost: e\r\n{UPGRADE}\r\n"
            found = exchange(plain.socket, client, request.encode(), b"hello\n")
            head, _, body = found.partition(b"\r\n\r\n")
            assert b"101 UPGRADED" in head
            assert muxframe.demux(body).stdout == bytes(100_000)
            assert lines == [b"hello\n"]


def test_tls_with_an_ordinary_client(certificates: Path) -> None:
    server, context = contexts(certificates, ssl.TLSVersion.TLSv1_3)
    with LoopbackEngine(tls=server) as engine:
        engine.add(Container("web", output=[bytes(1 << 20)]))
        with Client(engine) as client:
            client.socket = context.wrap_socket(client.socket, server_hostname="127.0.0.1")
            client.ask("POST", f"/containers/web/attach?{BOTH}", headers=UPGRADE)
            client.head()
            assert muxframe.demux(client.read()).stdout == bytes(1 << 20), "up to a proper end"
        with Client(engine) as client, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(client.socket, server_hostname="127.0.0.1")
        with Client(engine) as client:
            client.socket.sendall(b"GET / HTTP/1.1\r\n\r\n")
            client.read()
    with pytest.raises(ValueError, match="needs transport='tcp'"):
        LoopbackEngine(tls=server, transport="unix")


# --- other people's clients ------------------------------------------------------------------------------------------


@pytest.fixture(params=[("docker", "1.24"), ("docker", "1.41"), ("docker", "1.51"), ("podman", "1.41")], ids="-".join)
def engine(request: pytest.FixtureRequest) -> Iterator[LoopbackEngine]:
    flavor, version = request.param
    commands = {"echo hi": say(b"hi\n", (2, b"oops\n"), exit_code=3), "cat": cat}
    with LoopbackEngine(flavor=flavor, api_version=version, on_exec=commands, on_create={"cat": cat}) as engine:
        yield engine


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # sockets that docker-py forgets
def test_docker_py(engine: LoopbackEngine) -> None:
    docker = pytest.importorskip("docker")
    use_docker_py(docker, engine)
    gc.collect()  # here, where the warnings are ignored


def use_docker_py(docker: Any, engine: LoopbackEngine) -> None:
    engine.add(Container("web", output=[b"out\n", (2, b"err\n")], exit_code=4))
    engine.add(Container("idle"))
    version = engine.personality.api_version
    with contextlib.closing(docker.DockerClient(base_url=engine.host, version=version)) as client:
        web = client.containers.get("web")
        assert web.status == "running"
        frames = web.attach(stdout=True, stderr=True, stream=True, demux=True)
        assert list(frames) == [(b"out\n", None), (None, b"err\n")]
        assert web.wait()["StatusCode"] == 4
        assert web.logs(stdout=True, stderr=False) == b"out\n"
        assert b"".join(web.logs(stream=True, follow=True)) == b"out\nerr\n"
        idle_one = client.containers.get("idle")
        assert idle_one.exec_run("echo hi", demux=True) == (3, (b"hi\n", b"oops\n"))
        assert idle_one.exec_run("nosuch").exit_code in (126, 127)
        idle_one.kill()
        idle_one.remove()
        with pytest.raises(docker.errors.NotFound):
            client.containers.get("idle")
        created = client.api.create_container("any", "cat", name="made", stdin_open=True)
        params = {"stdin": 1, "stdout": 1, "stream": 1}
        with contextlib.closing(client.api.attach_socket(created, params=params)) as file:
            client.api.start(created)
            sock = getattr(file, "_sock", file)
            sock.sendall(b"hello")
            sock.shutdown(socket.SHUT_WR)
            assert muxframe.demux(file.read()).stdout == b"hello"


def test_aiodocker(engine: LoopbackEngine) -> None:
    aiodocker = pytest.importorskip("aiodocker")
    engine.add(Container("web", output=[b"out\n", (2, b"err\n")], exit_code=4))
    engine.add(Container("idle"))

    async def use() -> None:
        async with aiodocker.Docker(url=engine.host, api_version=f"v{engine.personality.api_version}") as client:
            web = await client.containers.get("web")
            async with web.attach(stdout=True, stderr=True) as stream:
                messages = []
                while message := await stream.read_out():
                    messages.append((message.stream, message.data))
            assert messages == [(1, b"out\n"), (2, b"err\n")]
            assert (await web.wait())["StatusCode"] == 4
            assert await web.log(stdout=True, stderr=True) == ["out\n", "err\n"]
            exec = await (await client.containers.get("idle")).exec(["cat"], stdin=True)
            async with exec.start() as stream:
                await stream.write_in(b"hello")
                await stream.write_in(b"")
                message = await stream.read_out()
                assert message is not None and message.data == b"hello"

    asyncio.run(use())


def test_websocket() -> None:
    client = pytest.importorskip("websockets.sync.client")
    closed = pytest.importorskip("websockets.exceptions").ConnectionClosedOK
    with LoopbackEngine(transport="tcp") as engine:
        engine.add(Container("cat", cat, open_stdin=True))
        for name in ("new", "old"):
            engine.add(Container(name, output=[b"out\xff\n", (2, b"err\n")]))
        base = f"ws://{engine.host.removeprefix('tcp://')}"
        with client.connect(f"{base}/containers/cat/attach/ws?stream=1&stdin=1&stdout=1", compression=None) as one:
            one.send(b"bytes")
            assert one.recv(5) == b"bytes"
            one.send("text")
            assert one.recv(5) == b"text"
            assert one.ping().wait(5)
        with client.connect(f"{base}/containers/new/attach/ws?stream=1&stderr=1", subprotocols=["x"]) as one:
            assert one.subprotocol == "x"
            assert one.recv(5) == b"err\n"
            with pytest.raises(closed) as raised:
                one.recv(5)
            assert raised.value.rcvd.code == 1000
        with client.connect(f"{base}/v1.27/containers/old/attach/ws?stream=1&stdout=1") as one:
            assert one.recv(5, decode=False) == b"out\xff\n", "text that is none"
        with Client(engine) as plain:
            plain.ask("GET", "/containers/cat/attach/ws?stream=1")
            assert plain.head() == "HTTP/1.1 400 Bad Request\r\n\r\n"
            assert plain.read() == b"not websocket protocol"


def test_websocket_output_goes_on_after_the_client_has_closed() -> None:
    frames = pytest.importorskip("websockets.frames")

    def script(process: Process) -> None:
        process.write(process.stdin.read().upper())

    with LoopbackEngine() as engine, Client(engine) as client:
        engine.add(Container("web", script, open_stdin=True, stdin_once=True))
        headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
        headers += "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
        client.ask("GET", "/containers/web/attach/ws?stream=1&stdin=1&stdout=1", headers=headers)
        assert "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" in client.head()
        for opcode, data in ((frames.Opcode.TEXT, b"hello"), (frames.Opcode.CLOSE, b"\x03\xe8")):
            client.socket.sendall(frames.Frame(opcode, data).serialize(mask=True))
        assert client.read() == b"\x82\x05HELLO\x88\x02\x03\xe8"




def test_no_event_is_left_out_that_comes_while_others_are_sent() -> None:
    with LoopbackEngine(transport="tcp") as engine:
        stream = HTTPConnection(engine.host.removeprefix("tcp://"), timeout=60)
        stream.request("GET", "/v1.41/events?since=1")
        answer = stream.getresponse()
        for number in range(300):
            engine.add(Container(f"c{number}", say(b"x\n"), begin="add"))
        started: list[str] = []
        while len(started) < 300:
            event = json.loads(answer.readline())
            if event["Action"] == "start":
                started.append(event["Actor"]["Attributes"]["name"])
        assert started == [f"c{number}" for number in range(300)]
        stream.close()
