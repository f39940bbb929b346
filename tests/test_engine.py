"""attach, exec and logs in both shells, against the loopback engine: over every transport, with everything that can go
wrong on the way."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import VERSIONS, server_context
from shells import NAMES, Shell

from muxframe import Stream, pack_frame
from muxframe.engine.endpoint import Tls
from muxframe.testing import Container, Fault, LoopbackEngine, Process, cat

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
    before = descriptors(), set(threading.enumerate())
    yield
    deadline = time.monotonic() + 3
    while True:
        shell.settle()
        gc.collect()
        left = [thread for thread in set(threading.enumerate()) - before[1] if thread.is_alive()]
        tasks = shell.tasks()
        if (descriptors() <= before[0] and not left and not tasks) or time.monotonic() > deadline:
            break
        time.sleep(0.01)
    assert (descriptors(), left, tasks) == (before[0], [], 0)


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

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def bench(shell: Shell, request: pytest.FixtureRequest) -> Iterator[Bench]:
    bench = Bench(shell, request)
    yield bench
    bench.close()


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


def test_exec(bench: Bench, transport: str, way: Way) -> None:
    def script(process: Process) -> int:
        for stream, data in OUTPUT:
            process.write(data, stream)
        return 3

    client = bench(Container("c"), transport=transport, on_exec={"say": script})
    with client.exec("c", "say") as session:
        assert session.exit_code is None
        assert way(session) == READ
        assert session.exit_code == 3
        assert session.wait() == 3


def test_logs(bench: Bench, transport: str, way: Way) -> None:
    client = bench(talker(state="exited"), transport=transport)
    with client.logs("c") as session:
        assert way(session) == READ
    with client.logs("c", stdout=False, tail=2) as session:
        assert way(session) == (b"", b"err\n")


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
@pytest.mark.parametrize("transport", ["unix", "tls 1.3"])
def test_what_makes_no_difference(bench: Bench, transport: str, fault: str, way: Way) -> None:
    client = bench(talker(), transport=transport)
    bench.engine.fault("attach", FAULTS[fault])
    with client.attach("c") as session:
        assert way(session) == READ
