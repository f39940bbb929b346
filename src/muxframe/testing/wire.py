"""One connection, as the server sees it: plain, or with TLS."""

from __future__ import annotations

import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import ssl

RECV_SIZE = 1 << 16


class GoneError(Exception):
    """The connection has ended, from the other side or because the engine is closed."""


class Wire:
    """A connection. One thread may send while another receives; `abort` ends both, from any thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._sending = threading.Lock()  # held while the client does not read
        if sock.family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handshake(self) -> None:
        """Do what comes before the first request."""

    def recv(self) -> bytes:
        """Return what has come, waiting for it; b"" once the client sends no more."""
        try:
            return self._socket.recv(RECV_SIZE)
        except OSError as error:
            raise GoneError from error

    def send(self, data: bytes) -> None:
        """Send it all."""
        with self._sending:
            self._send(data)

    def _send(self, data: bytes) -> None:
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise GoneError from error

    def finish(self) -> None:
        """Tell the client that no more comes."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def has_left(self) -> bool:
        """Say whether the client sends no more, without waiting."""
        try:
            if not hasattr(socket, "MSG_DONTWAIT") and not select.select([self._socket], [], [], 0)[0]:
                return False
            return not self._socket.recv(1, socket.MSG_PEEK | getattr(socket, "MSG_DONTWAIT", 0))
        except BlockingIOError:
            return False
        except OSError:
            return True

    def abort(self) -> None:
        """Wake whoever waits for this connection: there is no more to it."""
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass

    def reset(self) -> None:
        """Break it, as a host that dies does: TCP's RST."""
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._socket.shutdown(socket.SHUT_RD)  # wakes who receives: it is not closed before
        self._socket.close()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()


class TlsWire(Wire):
    """A connection with TLS that outlives the client's end, as Go's does.

    A client's close_notify is the end of what it sends and nothing more; it still gets answers. SSLSocket cannot do
    that, so TLS works on memory here.
    """

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        import ssl

        super().__init__(sock)
        self._ssl = ssl
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._state = threading.Lock()  # of the three above; held for moments

    def handshake(self) -> None:
        while True:
            try:
                self._tls.do_handshake()
            except self._ssl.SSLWantReadError:
                self._flush()
                if not self._receive():
                    raise GoneError from None
            except self._ssl.SSLError as error:  # a client that does not trust us, mostly: its business
                self._flush()
                raise GoneError from error
            else:
                return self._flush()

    def recv(self) -> bytes:
        while True:
            with self._state:
                try:
                    return self._tls.read(RECV_SIZE)
                except (self._ssl.SSLZeroReturnError, self._ssl.SSLEOFError):
                    return b""
                except self._ssl.SSLWantReadError:
                    pass
                except self._ssl.SSLError as error:
                    raise GoneError from error
            self._receive()

    def _receive(self) -> bytes:
        data = super().recv()
        with self._state:
            if data:
                self._incoming.write(data)
            else:
                self._incoming.write_eof()
        return data

    def send(self, data: bytes) -> None:
        with self._sending:  # keeps records in order
            with self._state:
                try:
                    if data:
                        self._tls.write(data)
                except self._ssl.SSLError as error:
                    raise GoneError from error
                records = self._outgoing.read()
            self._send(records)

    def _flush(self) -> None:
        self.send(b"")

    def finish(self) -> None:
        with self._state:
            try:
                self._tls.unwrap()
            except self._ssl.SSLError:
                pass  # the client's own close_notify is still to come
        try:
            self._flush()
        except GoneError:
            pass
        super().finish()
