"""Servers on the loopback interface, for tests: each runs a handler once for each connection, in a thread.

And programs that stand for ssh, and for the docker at its far end.
"""

from __future__ import annotations

import socket
import ssl
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Handler = Callable[[socket.socket], object]

#: What TLS tests run on.
VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}


@contextmanager
def serving(listener: socket.socket, handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[Any]:
    """Answer connections until the end of the block, then raise what a handler has raised. Yields the address."""
    errors: list[BaseException] = []
    threads: list[threading.Thread] = []

    def run(conn: socket.socket) -> None:
        try:
            with conn:
                conn.settimeout(30)
                if tls is None:
                    handler(conn)
                    return
                with tls.wrap_socket(conn, server_side=True, suppress_ragged_eofs=False) as secure:
                    handler(secure)
        except BaseException as error:
            errors.append(error)

    def accept() -> None:
        while True:
            try:
                conn, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=run, args=(conn,), daemon=True))
            threads[-1].start()

    listener.settimeout(None)
    listener.listen()
    acceptor = threading.Thread(target=accept, daemon=True)
    acceptor.start()
    try:
        yield listener.getsockname()
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        acceptor.join()
        listener.close()
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive(), "a handler is still busy"
    if errors:
        raise errors[0]


def tcp_listener(address: str = "127.0.0.1") -> socket.socket:
    listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    listener.bind((address, 0))
    return listener


def unix_listener(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    return listener


def server_context(certificates: Path, version: str = "1.3", name: str = "server") -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    lenience = getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # Python sets it where OpenSSL knows it
    context.options = ssl.Options(context.options & ~lenience)
    context.minimum_version = context.maximum_version = VERSIONS[version]
    context.load_cert_chain(certificates / f"{name}-cert.pem", certificates / f"{name}-key.pem")
    return context


def answering(data: bytes) -> Handler:
    """Send data without being asked, and end."""

    def handler(conn: socket.socket) -> None:
        conn.sendall(data)
        end(conn)

    return handler


def read_to_end(conn: socket.socket) -> bytes:
    """Read to the end that the peer declares; a TLS connection cut off raises."""
    pieces = []
    while piece := conn.recv(65536):
        pieces.append(piece)
    return b"".join(pieces)


def end(conn: socket.socket) -> None:
    """Declare the end, as engines do."""
    if isinstance(conn, ssl.SSLSocket):
        conn.unwrap()
    else:
        conn.shutdown(socket.SHUT_WR)


FAKE_SSH = """#!/bin/sh
# ssh [-l USER] -T [-o ConnectTimeout=N] -- HOST COMMAND...: run the command here, as a login shell over there would.
[ "$1" = -l ] && shift 2
[ "$1" = -T ] || exit 99
shift
[ "$1" = -o ] && shift 2
[ "$1" = -- ] || exit 99
shift 2
exec sh -c "$*"
"""

FAKE_DOCKER = f"""#!{sys.executable} -SI
import os, socket, sys, threading
_, option, host, *rest = sys.argv
assert option == "--host" and host.startswith("unix:///") and rest == ["system", "dial-stdio"], sys.argv
sock = socket.socket(socket.AF_UNIX)
sock.connect(host.removeprefix("unix://"))
def forward():
    while data := os.read(0, 65536):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
threading.Thread(target=forward, daemon=True).start()
while data := sock.recv(65536):
    while data:
        data = data[os.write(1, data):]
os._exit(0)
"""


def add_program(directory: Path, name: str, text: str) -> None:
    (directory / name).write_text(text)
    (directory / name).chmod(0o755)
