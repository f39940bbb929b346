"""TLS without I/O: against Python's server side in memory, cut anywhere; against openssl and Go over sockets."""

from __future__ import annotations

import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from servers import VERSIONS, server_context

from muxframe.engine.dial import dial
from muxframe.engine.endpoint import Tls, parse_endpoint
from muxframe.engine.tls import TlsStream

SIZE = 10_000_000


def client_context(certificates: Path, version: str) -> ssl.SSLContext:
    context = Tls.in_directory(certificates).ssl_context
    context.minimum_version = context.maximum_version = VERSIONS[version]
    return context


class Pair:
    """A TlsStream and a server, connected by hand."""

    def __init__(self, certificates: Path, version: str, *, name: str = "server", piece: int = 1 << 20) -> None:
        self.piece = piece
        self.to_server, self.from_server = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = server_context(certificates, version, name)
        self.server = context.wrap_bio(self.to_server, self.from_server, server_side=True)
        self.client = TlsStream(client_context(certificates, version), "localhost")

    def exchange(self) -> None:
        """Carry what either side has for the other."""
        self.to_server.write(self.client.outgoing())
        while piece := self.from_server.read(self.piece):
            self.client.receive(piece)

    def handshake(self) -> None:
        is_client_done = is_server_done = False
        while not (is_client_done and is_server_done):
            is_client_done = self.client.handshake()
            self.exchange()
            try:
                self.server.do_handshake()
                is_server_done = True
            except ssl.SSLWantReadError:
                pass
        self.exchange()

    def read(self, size: int = 1000) -> bytes | None:
        buffer = bytearray(size)
        count = self.client.read_into(memoryview(buffer))
        return None if count is None else bytes(buffer[:count])


@pytest.fixture(params=VERSIONS)
def version(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def pair(certificates: Path, version: str) -> Pair:
    pair = Pair(certificates, version)
    pair.handshake()
    return pair


@pytest.mark.parametrize("piece", [1, 2, 5, 1000])
def test_ciphertext_may_be_cut_anywhere(certificates: Path, version: str, piece: int) -> None:
    pair = Pair(certificates, version, piece=piece)
    pair.handshake()
    assert pair.client.write(b"question") == 8
    pair.exchange()
    assert pair.server.read(100) == b"question"
    pair.server.write(b"answer")
    assert pair.read() is None
    while cipher := pair.from_server.read(piece):
        assert pair.read() is None
        pair.client.receive(cipher)
    assert [pair.read(), pair.read()] == [b"answer", None]


def test_memory_of_any_size_is_filled(pair: Pair) -> None:
    pair.server.write(b"0123456789")
    pair.server.write(b"ab")
    pair.exchange()
    assert [pair.read(size) for size in (3, 1, 100, 1, 100, 100)] == [b"012", b"3", b"456789", b"a", b"b", None]


def test_closing_the_writing_side(pair: Pair) -> None:
    pair.client.write(b"question")
    pair.client.close_write()
    pair.client.close_write()
    pair.exchange()
    assert [pair.server.read(100), pair.server.read(100)] == [b"question", b""], "the end is declared"
    assert pair.read() is None
    for _ in range(3):
        pair.server.write(bytes(SIZE // 100))
        pair.exchange()
        received = 0
        while piece := pair.read(5000):
            received += len(piece)
        assert received == SIZE // 100
    pair.server.unwrap()
    pair.exchange()
    assert [pair.read(), pair.read()] == [b"", b""]


def test_what_was_received_before_closing_is_not_lost(pair: Pair) -> None:
    pair.server.write(b"early")
    pair.server.write(bytes(300_000))
    pair.exchange()
    assert pair.read(2) == b"ea"
    pair.client.close_write()
    assert pair.read(10) == b"rly" + bytes(7)
    pair.server.write(b"late")
    pair.exchange()
    received = b""
    while piece := pair.read(70_000):
        received += piece
    assert received == bytes(300_000 - 7) + b"late"
    pair.exchange()
    assert pair.server.read(100) == b""


def test_closing_in_the_middle_of_a_record(pair: Pair) -> None:
    pair.server.write(b"answer")
    cipher = pair.from_server.read()
    for byte in cipher[:-1]:
        pair.client.receive(bytes([byte]))
    pair.client.close_write()
    assert pair.read() is None
    pair.client.receive(cipher[-1:])
    assert [pair.read(), pair.read()] == [b"answer", None]


def test_closing_after_the_peer_has(pair: Pair) -> None:
    pair.server.write(b"last")
    with pytest.raises(ssl.SSLWantReadError):
        pair.server.unwrap()
    pair.exchange()
    pair.client.write(b"still open this way")
    pair.client.close_write()
    assert [pair.read(2), pair.read(), pair.read()] == [b"la", b"st", b""]
    pair.exchange()
    assert pair.server.read(100) == b"still open this way"


def test_writing_after_closing(pair: Pair) -> None:
    pair.client.close_write()
    with pytest.raises(ValueError, match="the writing side is closed"):
        pair.client.write(b"x")


@pytest.mark.parametrize("closing", ["never", "before", "after"])
def test_an_end_that_is_not_declared_is_an_error(pair: Pair, closing: str) -> None:
    if closing == "before":
        pair.client.close_write()
    pair.server.write(b"first")
    pair.server.write(b"second")
    pair.exchange()
    pair.client.receive(b"")
    if closing == "after":
        pair.client.close_write()
    found = b""
    with pytest.raises(ssl.SSLEOFError):
        while True:
            found += pair.read(100) or b""
    assert found == b"firstsecond"
    for _ in range(2):
        with pytest.raises(ssl.SSLEOFError):
            pair.read()


@pytest.mark.parametrize("closing", [False, True])
def test_tampering_is_an_error(pair: Pair, closing: bool) -> None:
    pair.server.write(b"first")
    pair.server.write(b"second")
    cipher = bytearray(pair.from_server.read())
    cipher[-1] ^= 1
    pair.client.receive(cipher)
    if closing:
        pair.client.close_write()
    assert pair.read() == b"first"
    for _ in range(3):
        with pytest.raises(ssl.SSLError):
            pair.read()


@pytest.mark.parametrize("name", ["other", "stranger"])
def test_servers_are_verified(certificates: Path, version: str, name: str) -> None:
    pair = Pair(certificates, version, name=name)
    with pytest.raises(ssl.SSLCertVerificationError):
        pair.handshake()
    pair.to_server.write(pair.client.outgoing())
    with pytest.raises(ssl.SSLError, match=r"(?i)alert"):  # the server is told why
        pair.server.do_handshake()


def test_reader_and_writer_at_once(pair: Pair) -> None:
    """Two threads of the client, the server in the main one; what each says arrives whole and in order."""
    sending = threading.Lock()
    wire: list[bytes] = []
    has_more = threading.Semaphore(0)
    count, said = 300, bytearray()

    def push() -> None:
        with sending:
            if data := pair.client.outgoing():
                wire.append(data)
                has_more.release()

    def write() -> None:
        for i in range(count):
            pair.client.write(bytes([i % 251]) * 1000)
            push()
        pair.client.close_write()
        push()

    received = bytearray()

    def read() -> None:
        while (piece := pair.read(777)) != b"":
            received.extend(piece or b"")
            if piece is None:
                time.sleep(0.001)

    threads = [threading.Thread(target=target, daemon=True) for target in (write, read)]
    for thread in threads:
        thread.start()
    has_ended = False
    while not has_ended:
        assert has_more.acquire(timeout=30)
        pair.to_server.write(wire.pop(0))
        try:
            while piece := pair.server.read(100_000):
                said += piece
                pair.server.write(piece)
                pair.client.receive(pair.from_server.read())
            has_ended = True
        except ssl.SSLWantReadError:
            pass
    pair.server.unwrap()
    pair.client.receive(pair.from_server.read())
    for thread in threads:
        thread.join(30)
    assert said == received == b"".join(bytes([i % 251]) * 1000 for i in range(count))


# --- other implementations -------------------------------------------------------------------------------------------


class Wire:
    """A TlsStream over a socket, as plainly as can be."""

    def __init__(self, certificates: Path, version: str, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 30)
        self.tls = TlsStream(client_context(certificates, version), "127.0.0.1")
        while not self.tls.handshake():
            self.receive()
        self.send()

    def send(self) -> None:
        self.socket.sendall(self.tls.outgoing())

    def receive(self) -> None:
        self.send()
        self.tls.receive(self.socket.recv(65536))

    def read(self) -> bytes:
        buffer = bytearray(65536)
        while (size := self.tls.read_into(memoryview(buffer))) is None:
            self.receive()
        return bytes(buffer[:size])


@pytest.fixture(scope="session")
def go_server(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The program of tls/server.go."""
    if shutil.which("go") is None:
        pytest.skip("there is no go command to build a server with")
    program = tmp_path_factory.mktemp("go") / "server"
    source = Path(__file__).parent / "tls" / "server.go"
    subprocess.run(["go", "build", "-o", program, source], check=True, timeout=200)
    return program


@pytest.mark.slow  # to build
def test_go(certificates: Path, version: str, go_server: Path) -> None:
    files = [certificates / "server-cert.pem", certificates / "server-key.pem"]
    with subprocess.Popen([go_server, *files, version, str(SIZE)], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        wire = Wire(certificates, version, int(server.stdout.readline()))
        with wire.socket:
            wire.tls.write(b"question")
            wire.tls.close_write()
            wire.send()
            answer = b"".join(iter(wire.read, b""))
        assert server.wait(30) == 0
    assert answer == b"question" + bytes(SIZE)


@pytest.fixture
def openssl_server(certificates: Path, version: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """What is written to its input goes to the client, except for lines that are commands."""
    command = ["openssl", "s_server", "-accept", "127.0.0.1:0", "-naccept", "1", f"-tls{version.replace('.', '_')}"]
    files = ["-cert", f"{certificates}/server-cert.pem", "-key", f"{certificates}/server-key.pem"]
    pipe = subprocess.PIPE
    with subprocess.Popen([*command, *files], stdin=pipe, stdout=pipe, stderr=subprocess.STDOUT, text=True) as server:
        assert server.stdout is not None
        for line in server.stdout:
            if line.startswith("ACCEPT"):
                yield server, int(line.rpartition(":")[2])
                break
        server.kill()


def say(server: subprocess.Popen[str], *lines: str) -> None:
    """Each line in a write of its own: commands are recognised at the beginning of what was read."""
    assert server.stdin is not None
    for line in lines:
        server.stdin.write(line + "\n")
        server.stdin.flush()
        time.sleep(0.1)


def hear(server: subprocess.Popen[str]) -> str:
    """Return what it got and what it says about that. Its input stays open: at the end of that it stops at once."""
    assert server.stdout is not None
    return server.stdout.read()


@pytest.mark.parametrize("version", ["1.3"])
def test_key_updates(certificates: Path, openssl_server: tuple[subprocess.Popen[str], int]) -> None:
    server, port = openssl_server
    wire = Wire(certificates, "1.3", port)
    with wire.socket:
        say(server, "k", "one", "K", "two")
        assert wire.read() == b"one\n"
        assert wire.read() == b"two\n"
        wire.tls.write(b"with the new key\n")
        wire.send()
        say(server, "K", "three")
        time.sleep(0.3)  # for both to arrive
        wire.receive()
        wire.tls.close_write()  # meets the key update and what follows
        assert wire.read() == b"three\n"
        wire.send()
        output = hear(server)
    assert "with the new key\n" in output
    assert "error" not in output.lower(), output
    assert "CONNECTION CLOSED" in output


@pytest.mark.parametrize("version", ["1.2"])
def test_renegotiation(certificates: Path, openssl_server: tuple[subprocess.Popen[str], int]) -> None:
    server, port = openssl_server
    wire = Wire(certificates, "1.2", port)
    with wire.socket:
        say(server, "one", "r")
        assert wire.read() == b"one\n"
        assert wire.tls.read_into(memoryview(bytearray(100))) is None
        assert wire.tls.write(b"too early\n") == 0
        say(server, "two")
        assert wire.read() == b"two\n"
        while not (size := wire.tls.write(b"in time\n")):
            wire.receive()
        assert size == 8
        wire.tls.close_write()
        wire.send()
        output = hear(server)
    assert "in time" in output and "too early" not in output
    assert "error" not in output.lower(), output


@pytest.mark.parametrize("version", ["1.2"])
def test_writing_while_the_peer_renegotiates(
    certificates: Path, openssl_server: tuple[subprocess.Popen[str], int]
) -> None:
    """Without a reader the writer does what is to be done."""
    server, port = openssl_server
    connection: Any = dial(parse_endpoint(f"tcp://127.0.0.1:{port}", tls=certificates), 10)
    with connection:
        say(server, "r")
        time.sleep(0.1)
        connection._tls.receive(connection._socket.recv(65536))
        assert connection._tls.read_into(memoryview(bytearray(100))) is None
        assert connection.send(memoryview(b"question\n")) == 9
        connection.close_write()
        output = hear(server)
    assert "question" in output
    assert "error" not in output.lower(), output
