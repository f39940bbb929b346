"""Blocking connections: every kind does the same, with ends, timeouts, interruptions and two threads at once."""

from __future__ import annotations

import os
import shutil
import socket
import ssl
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from servers import (
    FAKE_DOCKER,
    FAKE_SSH,
    Handler,
    add_program,
    answering,
    end,
    read_to_end,
    server_context,
    serving,
    tcp_listener,
    unix_listener,
)

from muxframe import ConnectionLostError
from muxframe.engine.dial import BLOCK_SIZE, Connection, dial, spawn_ssh, ssh_command
from muxframe.engine.endpoint import Endpoint, Tls, find_endpoints, parse_endpoint

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Unix sockets, process streams")

KINDS = ["unix", "tcp", "tls1.2", "tls1.3", "ssh"]
SIZE = 10_000_000


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory that is searched first."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory), prepend=os.pathsep)
    return directory


class Place:
    """A server of one kind, to be had with any handler."""

    def __init__(self, kind: str, request: pytest.FixtureRequest, stack: ExitStack) -> None:
        self.kind = kind
        self.is_tls = kind.startswith("tls")
        self._certificates: Any = request.getfixturevalue("certificates") if self.is_tls else None
        self._directory = request.getfixturevalue("tmp_path")
        if kind == "ssh":
            programs = request.getfixturevalue("programs")
            add_program(programs, "ssh", FAKE_SSH)
            add_program(programs, "docker", FAKE_DOCKER)
        self._stack = stack

    def serve(self, handler: Handler) -> Endpoint:
        if self.kind in ("unix", "ssh"):
            path = self._directory / "a socket"
            self._stack.enter_context(serving(unix_listener(path), handler))
            return parse_endpoint(f"unix://{path}" if self.kind == "unix" else f"ssh://me@far{path}")
        tls = server_context(self._certificates, self.kind[3:]) if self.is_tls else None
        _, port = self._stack.enter_context(serving(tcp_listener(), handler, tls))
        return parse_endpoint(f"tcp://127.0.0.1:{port}", tls=self._certificates)

    def dial(self, handler: Handler, timeout: float | None = 30) -> Connection:
        return self._stack.enter_context(dial(self.serve(handler), timeout))


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    with ExitStack() as stack:
        yield Place(request.param, request, stack)


def send_all(connection: Connection, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[connection.send(view) :]


def receive(connection: Connection, size: int = 1 << 62) -> bytes:
    """Read so many bytes, or to the end."""
    buffer, received = memoryview(bytearray(BLOCK_SIZE)), bytearray()
    while len(received) < size and (count := connection.recv_into(buffer[: size - len(received)])):
        received += buffer[:count]
    return bytes(received)


def in_thread(target: Callable[[], Any]) -> Callable[[], Any]:
    """Start it; return what waits for its result, at most for some seconds."""
    results: list[Any] = []

    def run() -> None:
        try:
            results.append(target())
        except BaseException as error:
            results.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()

    def join() -> Any:
        thread.join(10)
        assert results, "still blocked"
        return results[0]

    return join


def descriptors() -> set[str]:
    return set(os.listdir("/dev/fd"))


PATTERN = bytes(range(256)) * 4000  # a megabyte


# --- what all kinds do -----------------------------------------------------------------------------------------------


def test_closing_the_writing_side(place: Place) -> None:
    def handler(conn: socket.socket) -> None:
        request = read_to_end(conn)
        conn.sendall(request + bytes(SIZE))
        end(conn)

    connection = place.dial(handler)
    send_all(connection, b"question")
    connection.close_write()
    connection.close_write()
    with pytest.raises(ValueError, match="the writing side is closed"):
        connection.send(memoryview(b"x"))
    assert receive(connection) == b"question" + bytes(SIZE)
    assert [receive(connection), receive(connection)] == [b"", b""]


def test_reading_and_writing_at_once(place: Place) -> None:
    def handler(conn: socket.socket) -> None:  # reads only while it is read from, and the other way round
        while piece := conn.recv(65536):
            conn.sendall(piece)
        end(conn)

    connection = place.dial(handler, None)

    def write() -> None:
        for _ in range(10):
            send_all(connection, PATTERN)
        connection.close_write()

    join = in_thread(write)
    assert receive(connection) == PATTERN * 10
    assert join() is None


def test_timeout_of_reading(place: Place) -> None:
    may_answer = threading.Event()

    def handler(conn: socket.socket) -> None:
        assert conn.recv(100) == b"question"
        may_answer.wait(30)
        conn.sendall(PATTERN)
        end(conn)

    connection = place.dial(handler)
    send_all(connection, b"question")
    connection.settimeout(0.1)
    for _ in range(2):
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            receive(connection)
        assert 0.09 < time.monotonic() - start < 5
    may_answer.set()
    connection.settimeout(30)
    assert receive(connection) == PATTERN


def test_timeout_of_writing(place: Place) -> None:
    """Nothing that was taken is lost, nothing that was not is sent."""
    may_read = threading.Event()

    def handler(conn: socket.socket) -> None:
        may_read.wait(30)
        conn.sendall(read_to_end(conn))
        end(conn)

    connection = place.dial(handler, 0.2)
    view = memoryview(PATTERN * 20)
    timeouts = 0
    while timeouts < 3:  # in a row: what is between here and there may have been slow to take all it can
        try:
            view = view[connection.send(view) :]
            timeouts = 0
        except TimeoutError:
            timeouts += 1
    assert view
    may_read.set()
    connection.settimeout(30)

    def write() -> None:
        send_all(connection, bytes(view))
        connection.close_write()

    join = in_thread(write)
    assert receive(connection) == PATTERN * 20
    assert join() is None


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("action", ["interrupt", "close"])
def test_ending_a_blocked_read(place: Place, action: str, timeout: float | None) -> None:
    is_over = threading.Event()

    def handler(conn: socket.socket) -> None:
        conn.sendall(b"first")
        is_over.wait(30)

    connection = place.dial(handler, timeout)
    assert receive(connection, 5) == b"first"
    join = in_thread(lambda: connection.recv_into(memoryview(bytearray(10))))
    time.sleep(0.1)
    getattr(connection, action)()
    try:
        assert join() == 0
        if action == "interrupt":
            assert connection.recv_into(memoryview(bytearray(10))) == 0
            connection.interrupt()
    finally:
        is_over.set()


@pytest.mark.parametrize("timeout", [None, 30])
@pytest.mark.parametrize("action", ["interrupt", "close"])
def test_ending_a_blocked_write(place: Place, action: str, timeout: float | None) -> None:
    is_over = threading.Event()

    def handler(conn: socket.socket) -> None:
        is_over.wait(30)

    connection = place.dial(handler, timeout)
    join = in_thread(lambda: send_all(connection, PATTERN * 50))
    time.sleep(0.3)
    getattr(connection, action)()
    try:
        assert isinstance(join(), OSError if action == "interrupt" else (OSError, ValueError))
    finally:
        is_over.set()


def test_closing(place: Place) -> None:
    connection = place.dial(read_to_end)
    connection.close()
    connection.close()
    connection.interrupt()
    for use in (
        lambda: connection.recv_into(memoryview(bytearray(10))),
        lambda: connection.send(memoryview(b"x")),
        lambda: connection.close_write(),
    ):
        with pytest.raises(ValueError, match="the connection is closed"):
            use()
    with pytest.raises(ValueError, match="the connection is closed"), connection.hold:
        pass


def test_the_last_one_out_closes_the_descriptor(place: Place) -> None:
    connection: Any = place.dial(read_to_end)
    sock = connection._socket
    descriptor = sock.fileno()
    with connection.hold:
        connection.close()
        assert sock.fileno() == descriptor
        assert os.fstat(descriptor)
    assert sock.fileno() == -1


@pytest.mark.parametrize("place", ["unix", "tcp", "tls1.2", "tls1.3"], indirect=True)  # of ssh, docker decides
def test_the_peer_resets(place: Place) -> None:
    """What came before is delivered; nobody takes the rest for the end."""

    def handler(conn: socket.socket) -> None:
        conn.sendall(PATTERN[:1000])
        if conn.family != socket.AF_UNIX:
            conn.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        time.sleep(0.1)
        conn.close()  # with something unread, that is a reset

    connection = place.dial(handler)
    send_all(connection, bytes(10))
    assert receive(connection, 1000) == PATTERN[:1000]
    with pytest.raises(OSError):
        receive(connection)


@pytest.mark.skipif(not os.path.isdir("/dev/fd"), reason="descriptors cannot be listed")
def test_no_descriptor_is_left(place: Place) -> None:
    def handler(conn: socket.socket) -> None:
        read_to_end(conn)
        end(conn)

    endpoint = place.serve(handler)
    before = descriptors()
    for _ in range(3):
        with dial(endpoint, 30) as connection:
            send_all(connection, b"x")
            connection.close_write()
            receive(connection)
    wait_until(lambda: len(descriptors()) <= len(before))


@pytest.mark.parametrize("timeout", [0, -1, float("nan")])
def test_timeouts_are_positive(place: Place, timeout: float) -> None:
    endpoint = place.serve(read_to_end)
    with pytest.raises(ValueError, match="timeout must be positive or None"):
        dial(endpoint, timeout)
    with dial(endpoint) as connection, pytest.raises(ValueError, match="timeout must be positive or None"):
        connection.settimeout(timeout)


def test_huge_timeouts(place: Place) -> None:
    connection = place.dial(answering(b"x"), 1e9)
    assert receive(connection) == b"x"


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- sockets ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["unix", "tcp"], indirect=True)
def test_descriptor_of_plain_sockets(place: Place) -> None:
    connection = place.dial(answering(b"answer"))
    assert connection.descriptor is None, "it has a timeout"
    connection.settimeout(None)
    with connection.hold:
        assert connection.descriptor is not None
        assert os.read(connection.descriptor, 100) == b"answer"
    connection.close()
    assert connection.descriptor is None


@pytest.mark.parametrize("place", ["tls1.3", "ssh"], indirect=True)
def test_no_descriptor_where_it_would_not_do(place: Place) -> None:
    assert place.dial(read_to_end, None).descriptor is None


@pytest.mark.parametrize("place", ["tcp", "tls1.3"], indirect=True)
def test_options_of_tcp(place: Place) -> None:
    sock = place.dial(read_to_end)._socket  # type: ignore[attr-defined]
    assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    with tcp_listener() as dead, serving(tcp_listener(), lambda conn: conn.sendall(b"x")) as (_, port):

        def resolve(host: str, *args: Any, **kwargs: Any) -> Any:
            ports = [dead.getsockname()[1], port, dead.getsockname()[1]]
            return [found for each in ports for found in real("127.0.0.1", each, type=socket.SOCK_STREAM)]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        with dial(parse_endpoint("tcp://many.test:1"), 5) as connection:
            assert receive(connection) == b"x"


def test_ipv6() -> None:
    try:
        listener = tcp_listener("::1")
    except OSError:
        pytest.skip("there is no IPv6 here")
    with serving(listener, answering(b"x")) as (_, port, *_):
        connection = dial(parse_endpoint(f"tcp://[::1]:{port}"), 5)
        with connection:
            assert receive(connection) == b"x"


def test_nobody_is_there(tmp_path: Path) -> None:
    with tcp_listener() as listener:  # does not listen
        address = f"tcp://127.0.0.1:{listener.getsockname()[1]}"
        with pytest.raises(ConnectionLostError) as refused:
            dial(parse_endpoint(address, "DOCKER_HOST"), 5)
    assert str(refused.value) == f"cannot connect to {address} (DOCKER_HOST): Connection refused"
    assert isinstance(refused.value.__cause__, ConnectionRefusedError)
    with pytest.raises(ConnectionLostError) as missing:
        dial(Endpoint("unix", f"{tmp_path}/none"), None)
    assert str(missing.value) == f"cannot connect to unix://{tmp_path}/none (host argument): No such file or directory"
    with pytest.raises(ConnectionLostError, match="cannot connect to unix:///xxx"):
        dial(Endpoint("unix", "/" + "x" * 200))
    with pytest.raises(ConnectionLostError, match=r"cannot connect to tcp://none\.invalid:2375"):
        dial(parse_endpoint("tcp://none.invalid"), 5)
    with pytest.raises(ConnectionLostError, match="named pipes exist only on Windows"):
        dial(parse_endpoint("npipe:////./pipe/docker_engine"), 5)


@pytest.mark.skipif(sys.platform != "linux", reason="others do not let a full queue wait")
def test_timeout_of_connecting(tmp_path: Path) -> None:
    path = tmp_path / "s"
    with unix_listener(path) as listener, ExitStack() as stack:
        listener.listen(0)
        stack.enter_context(dial(Endpoint("unix", str(path)), 1))
        start = time.monotonic()
        with pytest.raises(TimeoutError) as caught:
            while True:
                stack.enter_context(dial(Endpoint("unix", str(path)), 0.2))
        assert time.monotonic() - start < 5
    assert str(caught.value) == f"no connection to unix://{path} (host argument) within 0.2 s"


# --- TLS -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["other", "stranger"])
def test_servers_are_verified(certificates: Path, name: str) -> None:
    alerts: list[str] = []

    def handshake(conn: socket.socket) -> None:
        try:
            server_context(certificates, "1.3", name).wrap_socket(conn, server_side=True)
        except ssl.SSLError as error:
            alerts.append(str(error).lower())

    with serving(tcp_listener(), handshake) as (_, port):
        url = f"https://localhost:{port}"
        with pytest.raises(ConnectionLostError, match=f"cannot connect to {url} .*verify failed") as caught:
            dial(parse_endpoint(url, tls=certificates), 5)
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
    assert "alert" in alerts[0], "the server is told why"


def test_unverified_where_a_context_says_so(certificates: Path) -> None:
    context = server_context(certificates, "1.3", "stranger")
    with serving(tcp_listener(), answering(b"x"), context) as (_, port):
        endpoint = Endpoint("tcp", host="localhost", port=port, tls=Tls(verify=False))
        with dial(endpoint, 5) as connection:
            assert receive(connection) == b"x"
            connection.close_write()


@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_client_certificates(certificates: Path, tmp_path: Path, version: str) -> None:
    context = server_context(certificates, version)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(certificates / "ca.pem")
    shutil.copy(certificates / "ca.pem", tmp_path)

    def handler(conn: socket.socket) -> None:
        with context.wrap_socket(conn, server_side=True) as secure:
            secure.sendall(b"welcome")
            end(secure)

    with serving(tcp_listener(), handler) as (_, port):
        endpoint = parse_endpoint(f"tcp://127.0.0.1:{port}", tls=certificates)
        with dial(endpoint, 5) as connection:
            assert receive(connection, 7) == b"welcome"
            connection.close_write()
            assert receive(connection) == b""

    def refuse(conn: socket.socket) -> None:
        with pytest.raises(ssl.SSLError):
            context.wrap_socket(conn, server_side=True)

    with serving(tcp_listener(), refuse) as (_, port):
        endpoint = parse_endpoint(f"tcp://127.0.0.1:{port}", tls=tmp_path)
        with pytest.raises(OSError, match="(?i)alert|reset"), dial(endpoint, 5) as connection:
            receive(connection)  # on TLS 1.3 only this tells


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.0 400 Bad Request\r\n\r\n"])
def test_no_tls_on_the_other_side(certificates: Path, answer: bytes) -> None:
    def handler(conn: socket.socket) -> None:
        conn.recv(100_000)
        conn.sendall(answer)

    with serving(tcp_listener(), handler) as (_, port):
        url = f"tcp://127.0.0.1:{port}"
        with pytest.raises(ConnectionLostError, match=f"cannot connect to {url}"):
            dial(parse_endpoint(url, tls=certificates), 5)


def test_timeout_of_the_handshake(certificates: Path) -> None:
    with serving(tcp_listener(), read_to_end) as (_, port):
        start = time.monotonic()
        with pytest.raises(TimeoutError, match="no connection to .* within 0.2 s"):
            dial(parse_endpoint(f"tcp://127.0.0.1:{port}", tls=certificates), 0.2)
        assert time.monotonic() - start < 5


@pytest.mark.parametrize("place", ["tls1.2", "tls1.3"], indirect=True)
def test_an_end_that_is_not_declared(place: Place) -> None:
    def handler(conn: socket.socket) -> None:
        conn.sendall(PATTERN)
        socket.socket.shutdown(conn, socket.SHUT_WR)
        with pytest.raises(ssl.SSLError):  # the client says that it does not like that
            read_to_end(conn)

    connection = place.dial(handler)
    assert receive(connection, len(PATTERN)) == PATTERN
    with pytest.raises(ssl.SSLEOFError):
        receive(connection)
    connection.close_write()


@pytest.mark.parametrize("place", ["tls1.2", "tls1.3"], indirect=True)
def test_reading_sends_what_was_taken(place: Place) -> None:
    """A peer that answers only to all of it must not be waited for in vain."""
    may_read = threading.Event()
    size = 0

    def handler(conn: socket.socket) -> None:
        may_read.wait(30)
        left = size
        while left:
            left -= len(conn.recv(min(left, 65536)))
        conn.sendall(b"answer")
        read_to_end(conn)

    connection = place.dial(handler, 0.1)
    with pytest.raises(TimeoutError):
        while True:
            size += connection.send(memoryview(PATTERN))
    connection.settimeout(5)
    join = in_thread(lambda: receive(connection, 6))
    time.sleep(0.1)
    may_read.set()
    assert join() == b"answer"


@pytest.mark.parametrize("place", ["tls1.2", "tls1.3"], indirect=True)
def test_closing_declares_the_end(place: Place) -> None:
    received: list[bytes] = []
    connection = place.dial(lambda conn: received.append(read_to_end(conn)))  # which raises if it is not declared
    send_all(connection, b"last words")
    connection.close()
    wait_until(lambda: received == [b"last words"])


@pytest.mark.parametrize("place", ["tls1.2", "tls1.3"], indirect=True)
def test_records_that_arrive_slowly(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """A timeout in the middle of a record loses nothing."""
    sockets: list[socket.socket] = []

    def handler(conn: socket.socket) -> None:
        conn.sendall(PATTERN[:5000])
        end(conn)

    def drip(source: socket.socket, target: socket.socket) -> None:
        while data := source.recv(65536):
            for i in range(0, len(data), 700):
                target.sendall(data[i : i + 700])
                time.sleep(0.02)
        target.shutdown(socket.SHUT_WR)

    endpoint = place.serve(handler)

    def relay(conn: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", endpoint.port), 30) as upstream:
            sockets.append(upstream)
            join = in_thread(lambda: drip(conn, upstream))
            drip(upstream, conn)
            join()

    with serving(tcp_listener(), relay) as (_, port):
        slow = Endpoint("tcp", host="127.0.0.1", port=port, tls=endpoint.tls)
        with dial(slow, 30) as connection:
            connection.settimeout(0.01)
            received, timeouts, buffer = bytearray(), 0, memoryview(bytearray(600))
            while True:
                try:
                    if not (size := connection.recv_into(buffer)):
                        break
                    received += buffer[:size]
                except TimeoutError:
                    timeouts += 1
            connection.settimeout(30)
            connection.close_write()
    assert received == PATTERN[:5000]
    assert timeouts > 3


# --- ssh -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "timeout", "command"),
    [
        ("ssh://h", None, "ssh -T -- h docker system dial-stdio"),
        ("ssh://u@h:2222", 2.5, "ssh -l u -p 2222 -T -o ConnectTimeout=3 -- h docker system dial-stdio"),
        ("ssh://[::1]", 0.1, "ssh -T -o ConnectTimeout=1 -- ::1 docker system dial-stdio"),
        ("ssh://h/run/d.sock", None, "ssh -T -- h docker --host unix:///run/d.sock system dial-stdio"),
        ("ssh://h/it's $(a)", None, "ssh -T -- h docker --host 'unix:///it'\"'\"'s $(a)' system dial-stdio"),
    ],
)
def test_ssh_command(url: str, timeout: float | None, command: str) -> None:
    assert " ".join(ssh_command(parse_endpoint(url), timeout)) == command


def test_ssh_gets_these_arguments(programs: Path, tmp_path: Path) -> None:
    add_program(programs, "ssh", f'#!/bin/sh\nprintf "%s\\n" "$@" >"{tmp_path}/arguments"\n')
    with dial(parse_endpoint("ssh://u@h:22/a b"), 7) as connection:
        assert receive(connection) == b"", "an end is one where ssh is content"
    expected = ["-l", "u", "-p", "22", "-T", "-o", "ConnectTimeout=7", "--", "h", "docker", "--host"]
    assert (tmp_path / "arguments").read_text().splitlines() == [*expected, "'unix:///a b'", "system", "dial-stdio"]


@pytest.mark.parametrize("is_late", [False, True])
@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("echo 'me@h: Permission denied (publickey).' >&2; exit 255", "255: me@h: Permission denied (publickey)."),
        ("echo 'sh: docker: command not found' >&2; exit 127", "127: sh: docker: command not found"),
        ("exit 1", "1"),
        ("yes x | head -c 200000 >&2; echo over >&2; exit 3", "x\n" * 2000 + "over"),
    ],
)
def test_failures_of_ssh(programs: Path, script: str, said: str, is_late: bool) -> None:
    add_program(programs, "ssh", f"#!/bin/sh\n{'echo answer' if is_late else ''}\n{script}\n")
    with dial(parse_endpoint("ssh://h"), 10) as connection:
        if is_late:
            assert receive(connection, 7) == b"answer\n"
        with pytest.raises(ConnectionLostError) as caught:
            receive(connection)
    text = str(caught.value)
    assert text.startswith("ssh://h (host argument): ssh ended with status ")
    assert text.endswith(said)
    assert len(text) < 4200


def test_failure_of_ssh_shows_in_writing(programs: Path) -> None:
    add_program(programs, "ssh", "#!/bin/sh\necho no such host >&2\nexit 255\n")
    with dial(parse_endpoint("ssh://h"), 10) as connection, pytest.raises(ConnectionLostError, match="no such host"):
        send_all(connection, PATTERN)


def test_ssh_is_killed(programs: Path) -> None:
    add_program(programs, "ssh", "#!/bin/sh\nkill -9 $$\n")
    with dial(parse_endpoint("ssh://h"), 10) as connection, pytest.raises(ConnectionLostError, match="signal 9"):
        receive(connection)


def test_no_ssh(programs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(programs))
    before = descriptors()
    with pytest.raises(ConnectionLostError, match="cannot connect to ssh://h .*: there is no ssh command"):
        dial(parse_endpoint("ssh://h"), 10)
    assert len(descriptors()) == len(before)


@pytest.mark.parametrize(
    "script", ["exec cat", "exec cat >/dev/null; exit 3", "exec sleep 60", "trap '' TERM; while :; do sleep 0.1; done"]
)
def test_no_process_is_left(programs: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muxframe.engine.dial.GRACE", 1)
    add_program(programs, "ssh", f"#!/bin/sh\n{script}\n")
    sock, process = spawn_ssh(parse_endpoint("ssh://h"))
    time.sleep(0.1)
    start = time.monotonic()
    sock.close()
    process.close()
    process.close()
    assert time.monotonic() - start < 0.9, "closing does not wait"
    pid = process._process.pid
    wait_until(lambda: process._process.returncode is not None)
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_bytes_written_before_closing_arrive(programs: Path, tmp_path: Path) -> None:
    add_program(programs, "ssh", f'#!/bin/sh\nsleep 0.3\ncat >"{tmp_path}/stdin"\n')
    with dial(parse_endpoint("ssh://h"), 10) as connection:
        send_all(connection, b"last words")
    wait_until(lambda: (tmp_path / "stdin").exists() and (tmp_path / "stdin").read_bytes() == b"last words")


def test_a_process_that_ssh_leaves_behind(programs: Path) -> None:
    """As with ControlPersist: it keeps standard error open."""
    add_program(programs, "ssh", "#!/bin/sh\nsleep 3 </dev/null >/dev/null &\necho problem >&2\nexit 255\n")
    before = descriptors()
    start = time.monotonic()
    with dial(parse_endpoint("ssh://h"), 10) as connection, pytest.raises(ConnectionLostError, match="problem"):
        receive(connection)
    wait_until(lambda: len(descriptors()) <= len(before))
    assert time.monotonic() - start < 2.5


@pytest.mark.live
def test_docker_over_ssh(programs: Path) -> None:
    """The real `docker system dial-stdio` with a real engine behind it; only ssh is not real."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command")
    host = os.environ.get("DOCKER_HOST", "")
    if not host.startswith("unix://"):
        message = "DOCKER_HOST is not a unix:// address: no docker engine"
        if os.environ.get("MUXFRAME_REQUIRE_ENGINES") == "1":
            pytest.fail(message)
        pytest.skip(message)
    add_program(programs, "ssh", FAKE_SSH)
    [endpoint] = find_endpoints(f"ssh://me@far{host.removeprefix('unix://')}")
    with dial(endpoint, 30) as connection:
        for _ in range(2):
            send_all(connection, b"GET /_ping HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = b""
            while not answer.endswith(b"\r\n\r\nOK"):
                answer += receive(connection, 1)
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        connection.close_write()
        assert receive(connection) == b""
    missing = parse_endpoint("ssh://me@far/nonexistent/docker.sock")
    with dial(missing, 30) as connection, pytest.raises(ConnectionLostError, match="/nonexistent/docker.sock"):
        receive(connection)
