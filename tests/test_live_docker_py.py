"""docker-py with muxframe installed, on the engines that the environment names: see live.py."""

from __future__ import annotations

import gc
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import BLOB, ENGINES, Live, blob, engine_host

docker = pytest.importorskip("docker", reason="the package docker is not installed")

from muxframe.compat import docker_py  # noqa: E402

pytestmark = [
    pytest.mark.live,
    pytest.mark.filterwarnings("ignore::muxframe.compat._patching.UncheckedVersionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),  # docker-py leaves sockets to the garbage collector
]

SIZE = 4 * 1024 * 1024
FOREVER = ["sleep", "1000000"]
BLOBS = f"{BLOB} blob 1000000 {SIZE} & blob 4000000 {SIZE} >&2; wait"


@pytest.fixture(params=ENGINES)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    with Live(request.param) as live:
        yield live
    gc.collect()


@pytest.fixture
def client(live: Live) -> Iterator[Any]:
    """docker-py's client, with muxframe installed."""
    with docker_py.install():
        client = docker.DockerClient(base_url=live.host, version="auto")
        yield client
        client.close()


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def digests() -> list[str]:
    return [digest(blob(first, SIZE)) for first in (1000000, 4000000)]


def test_exec_run(live: Live, client: Any) -> None:
    container = client.containers.get(live.run(FOREVER))
    both = ["sh", "-c", "printf out; sleep 0.2; printf err >&2; exit 3"]
    assert container.exec_run(both) == (3, b"outerr")
    assert container.exec_run(both, demux=True) == (3, (b"out", b"err"))
    assert list(container.exec_run(both, stream=True).output) == [b"out", b"err"]
    assert list(container.exec_run(both, stream=True, demux=True).output) == [(b"out", None), (None, b"err")]
    assert container.exec_run(both, stderr=False, demux=True).output == (b"out", None)
    assert container.exec_run("true", demux=True) == (0, (None, None))
    assert container.exec_run("true") == (0, b"")
    words = ["sh", "-c", "echo out; echo err >&2"]
    assert container.exec_run(words, tty=True, demux=True).output == (b"out\r\nerr\r\n", None)


def test_nothing_is_lost_at_the_beginning(live: Live, client: Any) -> None:
    container = client.containers.get(live.run(FOREVER))
    for _ in range(5):
        assert container.exec_run(["echo", "first"]).output == b"first\n"
        _, sock = container.exec_run(["echo", "first"], socket=True)
        assert list(docker.utils.socket.frames_iter(sock, tty=False)) == [(1, b"first\n")]
        sock.close()


def test_both_streams_of_exec(live: Live, client: Any) -> None:
    container = client.containers.get(live.run(FOREVER))
    result = container.exec_run(["sh", "-c", BLOBS], demux=True)
    assert [digest(data) for data in result.output] == digests()
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    for pair in container.exec_run(["sh", "-c", BLOBS], stream=True, demux=True).output:
        for part, data in zip(parts, pair):
            if data is not None:
                part.append(data)
    assert [digest(b"".join(part)) for part in parts] == digests()


def test_attach(live: Live, client: Any) -> None:
    container = client.containers.get(live.create(BLOBS))
    parts: tuple[list[bytes], list[bytes]] = ([], [])
    stream = container.attach(stream=True, demux=True)
    container.start()
    for pair in stream:
        for part, data in zip(parts, pair):
            if data is not None:
                part.append(data)
    assert [digest(b"".join(part)) for part in parts] == digests()


def test_attach_socket(live: Live, client: Any) -> None:
    container = client.containers.get(live.create(["cat"], OpenStdin=True, StdinOnce=True))
    sock = container.attach_socket(params={"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
    container.start()
    sock._sock.sendall(b"hello\n")
    assert docker.utils.socket.next_frame_header(sock) == (1, 6)
    assert docker.utils.socket.read_exactly(sock, 6) == b"hello\n"
    sock._sock.close()
    sock.close()


def test_logs(live: Live, client: Any) -> None:
    script = "echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; exit 3"
    container = client.containers.get(live.run_to_end(script))
    assert container.logs() == b"one\ntwo\nthree\n"
    assert container.logs(demux=True) == (b"one\nthree\n", b"two\n")
    assert container.logs(demux=True, stdout=False) == (None, b"two\n")
    for follow in (False, True):
        assert list(container.logs(stream=True, follow=follow)) == [b"one\n", b"two\n", b"three\n"]
        apart = list(container.logs(stream=True, follow=follow, demux=True))
        assert apart == [(b"one\n", None), (None, b"two\n"), (b"three\n", None)]


def test_logs_of_a_tty(live: Live, client: Any) -> None:
    container = client.containers.get(live.run_to_end("seq 1 2000", Tty=True))
    expected = b"".join(b"%d\r\n" % i for i in range(1, 2001))
    assert container.logs() == expected
    pieces = list(container.logs(stream=True, follow=False))
    assert b"".join(pieces) == expected
    assert {type(piece) for piece in pieces} == {bytes}
    assert len(pieces) <= 2000, "not byte by byte"
    assert container.logs(demux=True) == (expected, None)


@pytest.mark.parametrize("what", ["attach", "logs", "exec"])
def test_cancelling(live: Live, client: Any, what: str) -> None:
    script = "sleep 0.5; echo first; exec sleep 1000"
    container = client.containers.get(live.run(script if what != "exec" else FOREVER))
    stream = {
        "attach": lambda: container.attach(stream=True, logs=False),
        "logs": lambda: container.logs(stream=True),
        "exec": lambda: container.exec_run(["sh", "-c", script], stream=True).output,
    }[what]()
    assert next(stream) == b"first\n"
    threading.Timer(0.3, stream.close).start()
    assert list(stream) == []


def test_a_container_that_is_killed_ends_its_streams(live: Live, client: Any) -> None:
    container = client.containers.get(live.run("sleep 0.3; echo first; exec sleep 1000"))
    attached, logged = container.attach(stream=True, logs=False), container.logs(stream=True)
    assert (next(attached), next(logged)) == (b"first\n", b"first\n")
    container.kill()
    assert (list(attached), list(logged)) == ([], [])


# --- an existing program ---------------------------------------------------------------------------------------------

#: As it was written for docker-py: it runs a command, and reads the log of a container.
PROGRAM = """
import os, sys, time
import docker

client = docker.DockerClient(base_url=sys.argv[1], version="auto")
container = client.containers.get(sys.argv[2])
shell = client.containers.get(sys.argv[3])
started = time.perf_counter(), time.process_time()
size = count = 0
for line in container.logs(stream=True, follow=False):
    count += 1
    size += len(line)
print(count, size, time.perf_counter() - started[0], time.process_time() - started[1])
lost = 0
for _ in range(10):
    lost += shell.exec_run(["echo", "hello"]).output != b"hello\\n"
print(lost)
"""
TWO_LINES = "import muxframe.compat.docker_py\nmuxframe.compat.docker_py.install()\n"
LINES = 20_000


def test_two_lines_make_a_program_faster_and_right(live: Live) -> None:
    arguments = live.host, live.run_to_end(f"seq 1 {LINES}"), live.run(FOREVER)
    plain, installed = (run(code, *arguments) for code in (PROGRAM, TWO_LINES + PROGRAM))
    assert installed[:2] == plain[:2], "the same pieces"
    assert installed[1] == sum(len(f"{i}\n") for i in range(1, LINES + 1))
    assert installed[4] == 0, "nothing is lost"
    wall, cpu = plain[2] / installed[2], plain[3] / installed[3]
    print(f"{live.variable}: wall {wall:.1f}x, CPU {cpu:.1f}x; of 10 outputs of exec {plain[4]:.0f} were lost without")


def run(code: str, *arguments: str) -> list[float]:
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert not done.returncode, done.stderr
    return [float(word) for word in done.stdout.split()]


# --- docker-py's own tests -------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_its_own_tests_pass_as_before() -> None:
    pytest.importorskip("paramiko", reason="docker-py's tests need paramiko")
    engine_host("DOCKER_HOST")
    script = Path(__file__).parent / "peers" / "docker_py.py"
    done = subprocess.run([sys.executable, script], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode == 77:
        pytest.skip(done.stdout.strip())
    assert not done.returncode, done.stdout
    print(done.stdout.splitlines()[-1])
