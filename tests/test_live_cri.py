"""Attach and exec by the containerds that the environment names, in both shells."""

from __future__ import annotations

import hashlib
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import IMAGE, PATIENCE, Live, blob
from runtime import V1, V1_BASE64, V4, V4_BASE64, cri, cri_shell

import muxframe
from muxframe import BadRequestError, ConflictError, ConnectionLostError, DaemonError, NotFoundError

pytest.importorskip("grpc")
pytest.importorskip("websockets")

pytestmark = pytest.mark.live

PROJECT = Path(__file__).parent.parent
SIZE = 10_000_000


class Pods:
    """A containerd, and pods in it that do not outlive the `with` block. Made by tests/engines/cri."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.client = cri.Client(endpoint, "v1")
        self._containers: list[str] = []

    def __enter__(self) -> Pods:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._containers:
            self.client.remove_pod(self.client.pod_of(container))

    def run(self, command: str | list[str], *, stdin: bool = False, tty: bool = False, start: bool = True) -> str:
        words = ["sh", "-c", command] if isinstance(command, str) else command
        container: str = self.client.run("muxframe", IMAGE, words, stdin, False, tty, start)
        self._containers.append(container)
        return container

    def stop(self, container: str) -> None:
        self.client.call("StopContainer", [(1, container), (2, 0)])

    def is_exited(self, container: str) -> bool:
        return bool(self.client.status(container)["state"] == "EXITED")


@pytest.fixture(params=["CRI_ENDPOINT", "CRI_ENDPOINT_NEW"])
def pods(request: pytest.FixtureRequest) -> Iterator[Pods]:
    endpoint = os.environ.get(request.param, "")
    if not endpoint:
        if request.param == "CRI_ENDPOINT" and os.environ.get("MUXFRAME_REQUIRE_ENGINES") == "1":
            pytest.fail("CRI_ENDPOINT is not set: no containerd")
        pytest.skip(f"{request.param} is not set: no containerd")
    with Pods(endpoint) as made:
        yield made


@pytest.fixture(params=["blocking", "asyncio", "uvloop"])
def shell(request: pytest.FixtureRequest) -> Iterator[Any]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    with cri_shell(request.param) as module:
        yield module


def both_ways(session: Any, data: bytes) -> muxframe.Demuxed:
    writer = threading.Thread(target=lambda: session.write(data), daemon=True)
    writer.start()
    read: muxframe.Demuxed = session.read_all()
    writer.join(PATIENCE)
    assert not writer.is_alive()
    return read


@pytest.mark.parametrize("api", ["v1", "v1alpha2"])
def test_version_and_containers(pods: Pods, shell: Any, api: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("muxframe.cri.calls"), "APIS", (api,))
    created, running = pods.run("true", start=False), pods.run("sleep 100")
    connected = shell.connect(pods.endpoint)
    version = connected.version()
    assert version.name == "containerd" and version.version[0].isdigit() and version.api == api
    listed = {each.id: each for each in connected.containers()}
    assert running in listed and created not in listed
    assert (listed[running].name, listed[running].image, listed[running].state) == ("muxframe", IMAGE, "running")
    assert abs(listed[running].created_at / 1e9 - time.time()) < 600
    assert {each.id: each.state for each in connected.containers(all=True)}[created] == "created"
    with connected.exec(running, "echo hello") as session:
        assert session.read_all() == (b"hello\n", b"")


def test_attach(pods: Pods, shell: Any) -> None:
    container = pods.run("read x; echo out $x; echo err $x >&2; read x; sleep 0.3; exit 7", stdin=True)
    with shell.attach(pods.endpoint, container, stdin=True) as session:
        assert (session.tty, session.stream_type, session.closes_stdin) == (False, "multiplexed", False)
        session.write(b"one\n")
        frames = [(int(stream), bytes(payload)) for stream, payload in (next(iter(session)), next(iter(session)))]
        assert sorted(frames) == [(1, b"out one\n"), (2, b"err one\n")]
        session.write(b"two\n")
        assert list(session) == []
        assert session.exit_code is None
        assert session.wait(PATIENCE) == 7
    with pytest.raises(ConflictError, match="has exited"):
        shell.attach(pods.endpoint, container)
    with pytest.raises(ConflictError, match="CONTAINER_EXITED"):
        shell.attach(pods.endpoint, container, tty=False)


def test_attach_to_terminal(pods: Pods, shell: Any) -> None:
    container = pods.run("read x; until stty size | grep '33 44'; do sleep 0.1; done; exit 3", stdin=True, tty=True)
    with shell.attach(pods.endpoint, container, stdin=True) as session:
        assert session.tty
        session.resize(33, 44)
        session.write(b"go\n")
        assert b"33 44\r\n" in session.read_all().stdout
        assert session.wait(PATIENCE) == 3


def test_terminal_that_is_only_watched(pods: Pods, shell: Any) -> None:
    """Without stdin containerd hangs it up: often before the output, and the container's own terminal at once."""
    container = pods.run("while echo beat; do sleep 0.1; done", stdin=True, tty=True)
    runtime = shell.connect(pods.endpoint)
    for _ in range(8):
        with runtime.exec(container, "echo out", tty=True) as session:
            assert session.read_all()[0] == b"out\r\n"
    with runtime.attach(container) as session:
        assert next(iter(session.lines())).data == b"beat"
        with pytest.raises(ValueError, match="stdin"):
            session.write(b"x")


@pytest.mark.parametrize("protocol", [V4, V1, V4_BASE64, V1_BASE64])
def test_exec(pods: Pods, shell: Any, protocol: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.import_module("muxframe.cri.calls"), "OFFERS", ((protocol,),))
    connected = shell.connect(pods.endpoint)
    container = pods.run("sleep 100")
    for command, out, err, code in (
        (["sh", "-c", "printf 'o\\0\\377ut'; echo err >&2; exit 42"], b"o\0\xffut", b"err\n", 42),
        ("true", b"", b"", 0),
        ("sh -c 'kill -9 $$'", b"", b"", 137),
    ):
        with connected.exec(container, command) as session:
            assert session.read_all() == (out, err)
            assert session.exit_code == code == session.wait()
    with connected.exec(container, "nosuch") as session, pytest.raises(DaemonError, match="nosuch"):
        session.read_all()
    with connected.exec(container, "sh -c 'read x; echo $x; echo err >&2'", stdin=True, tty=True) as session:
        session.write(b"word\n")
        stdout, stderr = session.read_all()
        assert stdout.endswith(b"word\r\nerr\r\n") and stderr == b""
    data = blob(1_000_000, 1_000_000)
    with connected.exec(container, f"head -c {len(data)}", stdin=True) as session:
        assert both_ways(session, data).stdout == data
        assert session.exit_code == 0


def test_size_of_terminal(pods: Pods, shell: Any) -> None:
    container = pods.run("sleep 100")
    until = 'until stty size | grep "%s"; do sleep 0.1; done'
    command = ["sh", "-c", f"read x; {until % '33 44'}; read x; {until % '55 66'}"]
    with shell.exec(pods.endpoint, container, command, stdin=True, tty=True, size=(33, 44)) as session:
        session.write(b"\n")
        output = b""
        while b"33 44\r\n" not in output:
            output += bytes(next(iter(session)).payload)
        session.resize(55, 66)
        session.write(b"\n")
        assert b"55 66\r\n" in b"".join(bytes(payload) for _, payload in session)


def test_ten_megabytes_each_way(pods: Pods, shell: Any) -> None:
    data = blob(2_000_000, SIZE)
    container = pods.run(f"head -c {SIZE}; sleep 0.3", stdin=True)
    with shell.attach(pods.endpoint, container, stdin=True) as session:
        out, err = both_ways(session, data)
        assert hashlib.sha256(out).digest() == hashlib.sha256(data).digest() and err == b""
        assert session.wait(PATIENCE) == 0
    container = pods.run("sleep 100")
    with shell.exec(pods.endpoint, container, f"sh -c 'head -c {SIZE} | tee /dev/stderr'", stdin=True) as session:
        assert both_ways(session, data) == (data, data)
        assert session.exit_code == 0


def test_slow_reader_holds_the_command_up(pods: Pods, shell: Any) -> None:
    container = pods.run("sleep 100")
    with shell.exec(pods.endpoint, container, f"head -c {SIZE} /dev/zero") as session:
        first = bytes(next(iter(session)).payload)
        time.sleep(1)
        assert len(first) + sum(len(payload) for _, payload in session) == SIZE
        assert session.exit_code == 0


def test_container_is_stopped(pods: Pods, shell: Any) -> None:
    container = pods.run("echo begin; exec sleep 100")
    with shell.attach(pods.endpoint, container) as session:
        threading.Timer(0.3, pods.stop, [container]).start()
        session.read_all()
        assert session.wait(PATIENCE) == 137


def test_leaving(pods: Pods, shell: Any) -> None:
    """A session that is closed leaves the container running; so does one whose stdin was used."""
    container = pods.run("cat", stdin=True)
    with shell.attach(pods.endpoint, container, stdin=True) as session:
        session.write(b"x")
        assert bytes(next(iter(session)).payload) == b"x"
        with pytest.raises(BadRequestError, match="stdin cannot be closed alone"):
            session.close_stdin()
        with pytest.raises(TimeoutError):
            session.wait(0.3)
    time.sleep(0.3)
    assert not pods.is_exited(container)


def test_close_ends_a_read_elsewhere(pods: Pods, shell: Any) -> None:
    container = pods.run("sleep 100")
    session = shell.attach(pods.endpoint, container)
    threading.Timer(0.3, session.close).start()
    assert session.read_all() == (b"", b"")


def test_refusals(pods: Pods, shell: Any) -> None:
    connected = shell.connect(pods.endpoint)
    container = pods.run("sleep 100")
    for tty in (None, False):
        with pytest.raises(NotFoundError, match="not found"):
            connected.attach("f" * 64, tty=tty)
    with pytest.raises(NotFoundError, match="not found"):
        connected.exec("f" * 64, "true")
    with pytest.raises(BadRequestError, match="tty and stderr cannot both be true"):
        connected.exec(container, "true", tty=True, stderr=True)
    with pytest.raises(BadRequestError, match="must be set"):
        connected.attach(container, stdout=False, stderr=False)
    with pytest.raises(ConflictError, match="CONTAINER_CREATED"):
        connected.attach(pods.run("true", start=False))


def test_used_token(pods: Pods, shell: Any) -> None:
    container = pods.run("sleep 100")
    call = [(1, container), (2, "echo"), (2, "once"), (5, True)]
    url = cri.text(pods.client.call("Exec", call), 1)
    with shell.connect_stream(url) as session:
        assert session.read_all() == (b"once\n", b"")
        assert session.exit_code == 0
    with pytest.raises(NotFoundError, match="404"):
        shell.connect_stream(url)


@pytest.mark.slow
@pytest.mark.skipif(os.environ.get("CRI_ENDPOINT", "") == "", reason="CRI_ENDPOINT is not set: no containerd")
def test_runtime_dies_mid_stream() -> None:
    """With a containerd of its own: the others stay as they are."""
    directory = tempfile.mkdtemp(prefix="muxframe-cri-", dir="/tmp")
    environ = {name: value for name, value in os.environ.items() if not name.endswith(("_HOST", "_HOST_NEW"))}
    environ["ENGINES_DIR"] = directory
    engines = PROJECT / "tests" / "engines"
    try:
        up = subprocess.run(
            [engines / "up", "--only", "containerd", "--no-install"], env=environ, capture_output=True, text=True
        )
        if up.returncode:
            pytest.skip(f"no second containerd: {up.stderr[-500:]}")
        endpoint = f"unix://{directory}/containerd/containerd.sock"
        with cri_shell("asyncio") as asynchronous, cri_shell("blocking") as blocking:
            container = Pods(endpoint).run("while :; do echo tick; sleep 0.1; done")
            sessions = [shell.attach(endpoint, container) for shell in (asynchronous, blocking)]
            for session in sessions:
                assert bytes(next(iter(session)).payload) == b"tick\n"
            pid = int((Path(directory) / "containerd.pid").read_text().split()[0])
            os.kill(pid, signal.SIGKILL)
            for session in sessions:
                with pytest.raises(ConnectionLostError):
                    for _, payload in session:
                        assert bytes(payload) == b"tick\n"
                with pytest.raises(ConnectionLostError):
                    session.wait(PATIENCE)
                session.close()
    finally:
        subprocess.run([engines / "down"], env=environ, capture_output=True)
        shutil.rmtree(directory, ignore_errors=True)


# --- the same program for all ----------------------------------------------------------------------------------------

SCRIPT = "sleep {}; echo out; sleep 0.3; echo err >&2; sleep 0.3; exit 7"


@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_HOST_NEW", "PODMAN_HOST", "PODMAN_HOST_NEW"])
def test_the_program_with_an_engine(variable: str) -> None:
    with Live(variable) as live:
        run_program(live.host, live.run, "muxframe")


def test_the_program_with_a_runtime(pods: Pods) -> None:
    run_program(pods.endpoint, pods.run, "muxframe.cri")


def run_program(address: str, run: Callable[[str], str], module: str) -> None:
    """Run examples/read_container.py with one line changed. Nothing tells when it has attached: it gets time to."""
    program = (PROJECT / "examples" / "read_container.py").read_text()
    changed = program.replace("from muxframe import connect", f"from {module} import connect")
    for seconds in (2, 20, 60):
        command = [sys.executable, "-c", changed, address, run(SCRIPT.format(seconds))]
        done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + PATIENCE)
        if "STDOUT out\n" in done.stdout:
            break
    assert done.stdout == "STDOUT out\nSTDERR err\nexit code 7\n", done.stdout + done.stderr
