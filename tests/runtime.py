"""A container runtime without containers, for tests: the CRI by gRPC, and streams by a WebSocket server made by hand.

Its messages are written and read by tests/engines/cri, which shares nothing with the package.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import importlib.machinery
import importlib.util
import re
import socket
import ssl
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from servers import end, serving, tcp_listener
from shells import InLoop, Shell

ALL = (
    "v5.channel.k8s.io",
    "v4.channel.k8s.io",
    "channel.k8s.io",
    "v4.base64.channel.k8s.io",
    "base64.channel.k8s.io",
)
V5, V4, V1, V4_BASE64, V1_BASE64 = ALL

CONT, TEXT, DATA, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

SUCCESS = b'{"metadata":{},"status":"Success"}'

Fields = dict[int, list[Any]]


def _load_cri() -> Any:
    path = Path(__file__).parent / "engines" / "cri"
    loader = importlib.machinery.SourceFileLoader("muxframe_tests_cri", str(path))
    spec = importlib.util.spec_from_loader(loader.name, loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


cri = _load_cri()


@contextmanager
def cri_shell(name: str) -> Iterator[Any]:
    """Give muxframe.cri, or muxframe.cri.aio to be called without await."""
    shell = Shell(name)
    try:
        if shell.loop is None:
            yield importlib.import_module("muxframe.cri")
        else:
            yield InLoop(shell.loop, importlib.import_module("muxframe.cri.aio"))
    finally:
        shell.close()


# --- WebSocket frames ------------------------------------------------------------------------------------------------


def ws(data: bytes, opcode: int = DATA, *, fin: bool = True) -> bytes:
    """Make a frame as a server sends it."""
    size = len(data)
    if size < 126:
        head = bytes([size])
    elif size < 65536:
        head = b"\x7e" + size.to_bytes(2, "big")
    else:
        head = b"\x7f" + size.to_bytes(8, "big")
    return bytes([opcode | (0x80 if fin else 0)]) + head + data


def close(code: int | None = 1000, reason: str = "") -> bytes:
    return ws(b"" if code is None else code.to_bytes(2, "big") + reason.encode(), CLOSE)


def message(protocol: str, number: int, data: bytes) -> bytes:
    """Make what a message holds."""
    if "base64" in protocol:
        return str(number).encode() + base64.b64encode(data)
    return bytes([number]) + data


def said(protocol: str, number: int, data: bytes) -> bytes:
    return ws(message(protocol, number, data), TEXT if "base64" in protocol else DATA)


def unmask(data: bytes, mask: bytes) -> bytes:
    size = len(data)
    key = int.from_bytes((mask * (size // 4 + 1))[:size], "big")
    return (int.from_bytes(data, "big") ^ key).to_bytes(size, "big")


def heard(wire: bytes) -> Iterator[tuple[int, bytes]]:
    """Take what a client sends apart: (opcode, data). Everything must be masked and whole."""
    while wire:
        opcode, size = wire[0], wire[1]
        assert opcode & 0x80 and size & 0x80
        size &= 0x7F
        start = {126: 4, 127: 10}.get(size, 2)
        size = int.from_bytes(wire[2:start], "big") if size > 125 else size
        mask, data = wire[start : start + 4], wire[start + 4 : start + 4 + size]
        assert len(data) == size
        yield opcode & 0x0F, unmask(data, mask)
        wire = wire[start + 4 + size :]


class Stream:
    """The server's end of a stream, as a script sees it.

    Attributes:
        path: what was asked for.
        headers: by lower-case name.
        kind: "Attach" or "Exec", with the call's fields in `call`.
        protocol: the one agreed on.
    """

    def __init__(self, conn: socket.socket, path: str, headers: dict[str, str], protocol: str) -> None:
        self.path = path
        self.headers = headers
        self.protocol = protocol
        self.kind = ""
        self.call: Fields = {}
        self._conn = conn
        self._file = conn.makefile("rb")
        self._sending = threading.Lock()
        self.pongs: list[bytes] = []

    def send(self, data: bytes) -> None:
        with self._sending:
            self._conn.sendall(data)

    def say(self, number: int, data: bytes) -> None:
        self.send(said(self.protocol, number, data))

    def end(self, status: bytes | None = None) -> None:
        """Say how it ended, by default that all went well."""
        if status is None and self.protocol not in (V1, V1_BASE64):
            status = SUCCESS
        if status:
            self.say(3, status)
        self.send(close())

    def hear(self) -> tuple[int, bytes] | None:
        """Return the next message, (channel, data); None when the client has closed."""
        while (frame := self._read()) is not None:
            opcode, data = frame
            if opcode in (TEXT, DATA):
                if "base64" in self.protocol:
                    assert opcode == TEXT
                    return data[0] - ord("0"), base64.b64decode(data[1:], validate=True)
                return data[0], data[1:]
            if opcode == PONG:
                self.pongs.append(data)
            if opcode == CLOSE:
                return None
        return None

    def hear_stdin(self, size: int) -> bytes:
        """Return so many bytes of stdin."""
        parts = bytearray()
        while len(parts) < size:
            heard = self.hear()
            assert heard is not None and heard[0] == 0, heard
            parts += heard[1]
        return bytes(parts)

    def hear_pong(self) -> None:
        """Wait for one."""
        frame = self._read()
        assert frame is not None and frame[0] == PONG
        self.pongs.append(frame[1])

    def _read(self) -> tuple[int, bytes] | None:
        head = self._file.read(2)
        if len(head) < 2:
            return None
        assert head[0] & 0x80 and head[1] & 0x80
        size = head[1] & 0x7F
        if size > 125:
            size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
        mask = self._file.read(4)
        return head[0] & 0x0F, unmask(self._file.read(size), mask)

    def close(self) -> None:
        self._file.close()


Script = Callable[[Stream], None]


def silent(stream: Stream) -> None:
    """Wait until the client goes, however rudely."""
    try:
        while stream.hear() is not None:
            pass
    except OSError:
        pass


class Streams:
    """The server of streams.

    Attributes:
        script: what it does with each stream; at its end the connection is closed.
        protocols: what it agrees to; takes_lists: whether it understands an offer of several.
        opened: every Stream.
        answer: what it answers in place of an upgrade, if anything.
    """

    def __init__(self) -> None:
        self.script: Script = silent
        self.protocols: Sequence[str] = ALL[1:]
        self.takes_lists = True
        self.answer: Callable[[str], bytes] | None = None
        self.tokens: dict[str, tuple[str, Fields]] = {}
        self.opened: list[Stream] = []
        self.offers: list[str] = []

    @contextmanager
    def serving(self, tls: ssl.SSLContext | None = None) -> Iterator[str]:
        with serving(tcp_listener(), self._serve, tls) as (_, port):
            yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"

    def _serve(self, conn: socket.socket) -> None:
        head = b""
        while b"\r\n\r\n" not in head:
            piece = conn.recv(1)
            if not piece:
                return
            head += piece
        first, *lines = head.decode().strip().split("\r\n")
        path = first.split()[1]
        headers = {line.partition(":")[0].lower(): line.partition(":")[2].strip() for line in lines}
        offer = headers.get("sec-websocket-protocol", "")
        self.offers.append(offer)
        known = self.tokens.pop(path, None)
        if self.answer is not None:
            conn.sendall(self.answer(path))
            return
        if known is None and path.startswith("/cri/"):
            conn.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 19\r\n\r\n404 page not found\n")
            return
        offered = offer.split(", ")
        agreed = next((each for each in offered if each in self.protocols), None)
        if agreed is None or (len(offered) > 1 and not self.takes_lists):
            conn.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            _end(conn)
            return
        stream = Stream(conn, path, headers, agreed)
        stream.kind, stream.call = known or ("", {})
        self.opened.append(stream)
        digest = hashlib.sha1((headers["sec-websocket-key"] + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11").encode()).digest()
        conn.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: %b\r\nSec-WebSocket-Protocol: %b\r\n\r\n"
            % (base64.b64encode(digest), agreed.encode())
        )
        try:
            self.script(stream)
        except (BrokenPipeError, ConnectionResetError):  # the client is free to go
            pass
        finally:
            stream.close()
            _end(conn)


def _end(conn: socket.socket) -> None:
    """End writing, if somebody is still there."""
    try:
        end(conn)
    except OSError:
        pass


class Refused(Exception):
    """What a method answers with a status of gRPC's, by its name."""

    def __init__(self, code: str, details: str) -> None:
        self.code = code
        self.details = details


class Runtime(Streams):
    """A container runtime.

    Attributes:
        endpoint: its address.
        name: what it says that it is.
        apis: which versions of the CRI it speaks.
        calls: every call, (api, method, fields).
        refuse: method -> Refused.
        states: what ContainerStatus says, one after the other, the last one again and again: (state, exit code).
        info: its verbose part.
        listed: what ListContainers lists, encoded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.name = "containerd"
        self.apis: Sequence[str] = ("v1", "v1alpha2")
        self.calls: list[tuple[str, str, Fields]] = []
        self.refuse: dict[str, Refused] = {}
        self.delay = threading.Event()  # set: nothing is delayed
        self.delay.set()
        self.states: list[tuple[int, int]] = [(1, 0)]
        self.info = '{"runtimeSpec":{"process":{}}}'
        self.listed: list[Any] = []
        self.scheme = "http"

    @contextmanager
    def running(self, tls: ssl.SSLContext | None = None) -> Iterator[Runtime]:
        from concurrent.futures import ThreadPoolExecutor

        import grpc

        runtime = self

        class Handler(grpc.GenericRpcHandler):  # type: ignore[misc]
            def service(self, details: Any) -> Any:
                match = re.fullmatch(r"/runtime\.(\w+)\.RuntimeService/(\w+)", details.method)
                if match is None or match[1] not in runtime.apis:
                    return None
                api, method = match.groups()
                return grpc.unary_unary_rpc_method_handler(lambda *call: answer(api, method, *call))

        def answer(api: str, method: str, message: bytes, context: Any) -> bytes:
            fields = cri.decode(message)
            runtime.calls.append((api, method, fields))
            runtime.delay.wait(10)
            if method in runtime.refuse:
                refused = runtime.refuse[method]
                context.abort(getattr(grpc.StatusCode, refused.code), refused.details)
            return bytes(cri.encode(getattr(runtime, f"_{method.lower()}")(fields)))

        with ExitStack() as stack:
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="muxframe-"))
            self._url = stack.enter_context(self.serving(tls))
            self.endpoint = f"unix://{directory}/cri.sock"
            pool = stack.enter_context(ThreadPoolExecutor(4))
            server = grpc.server(pool, handlers=[Handler()])
            server.add_insecure_port(f"unix:{directory}/cri.sock")
            server.start()
            stack.callback(lambda: server.stop(None).wait())
            stack.callback(self.delay.set)
            yield self

    def _version(self, fields: Fields) -> list[Any]:
        return [(1, "0.1.0"), (2, self.name), (3, "1.2.3"), (4, "v1")]

    def _listcontainers(self, fields: Fields) -> list[Any]:
        return [(1, each) for each in self.listed]

    def _containerstatus(self, fields: Fields) -> list[Any]:
        state, code = self.states[0]
        if len(self.states) > 1:
            del self.states[0]
        info = [(2, [(1, "info"), (2, self.info)])] if fields.get(2) == [1] and self.info else []
        return [(1, [(1, "abc"), (3, state), (7, code)]), *info]

    def _attach(self, fields: Fields) -> list[Any]:
        return self._token("Attach", fields)

    def _exec(self, fields: Fields) -> list[Any]:
        return self._token("Exec", fields)

    def _token(self, kind: str, fields: Fields) -> list[Any]:
        path = f"/cri/{kind.lower()}/SECRET{len(self.calls)}"
        self.tokens[path] = (kind, fields)
        return [(1, self._url + path)]

    def asked(self, method: str) -> list[Fields]:
        return [fields for _, name, fields in self.calls if name == method]
