"""TLS of a client, without I/O: ciphertext in and out by method calls, plaintext likewise.

`ssl.SSLSocket` cannot end writing and read on: its shutdown(SHUT_WR) cuts the connection off without a close_notify,
and its unwrap() waits for the peer's, losing what the peer says before. `ssl.SSLObject` over `ssl.MemoryBIO` can, with
care. This is that care, once for blocking sockets and for asyncio.
"""

from __future__ import annotations

import ssl
import threading
from typing import TYPE_CHECKING, cast

if TYPE_CHECKING:
    from typing_extensions import Buffer

DRAIN_SIZE = 64 * 1024


class TlsStream:
    """A client's side of one TLS connection.

    Methods may be called from several threads; each is done when it returns, and none waits. Whoever calls any of them
    has to see to it that `outgoing` is sent, in the order in which it was taken: take it and send it under one lock, or
    in one thread. Reading, too, makes something to send, if seldom: answers to key updates and renegotiations.

    Example, the loop of a reader:

        while (size := stream.read_into(view)) is None:
            send(stream.outgoing())
            stream.receive(sock.recv(65536))

    Args:
        context: for the client's side of connections.
        server_hostname: whom the server's certificate must name, if the context checks that.
    """

    def __init__(self, context: ssl.SSLContext, server_hostname: str) -> None:
        self._lock = threading.Lock()
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname=server_hostname)
        self._plain = memoryview(b"")  # decrypted early, by close_write
        self._end: ssl.SSLError | None = None  # what came after it
        self._is_write_closed = False
        self._is_connected = False
        self._broken: ssl.SSLError | None = None  # the transport ended, and the peer had not said so

    def handshake(self) -> bool:
        """Take the handshake as far as it goes; return whether it is done. If not, it wants to `receive` more.

        Raises:
            ssl.SSLError: it failed; `outgoing` holds the alert that tells the peer.
        """
        with self._lock:
            try:
                self._tls.do_handshake()
            except ssl.SSLWantReadError:
                return False
            self._is_connected = True
            return True

    def receive(self, data: Buffer, /) -> None:
        """Take ciphertext from the peer; none is the end of the transport."""
        with self._lock:
            if memoryview(data).nbytes:
                self._incoming.write(data)
            elif not self._is_connected:
                self._incoming.write_eof()
            elif self._end is None:
                self._drain()
                if self._end is None:  # OpenSSL may be told to take this for a proper end, and by Python it is
                    self._broken = self._end = ssl.SSLEOFError(
                        ssl.SSL_ERROR_EOF, "EOF occurred in violation of protocol"
                    )

    def outgoing(self) -> bytes:
        """Return ciphertext to send to the peer; empty if there is none. It is handed out once."""
        with self._lock:
            return self._outgoing.read()

    @property
    def has_outgoing(self) -> bool:
        """Say whether there is something to send."""
        return self._outgoing.pending > 0

    def read_into(self, view: memoryview, /) -> int | None:
        """Fill the beginning of view with plaintext.

        Returns:
            Its size, 0 at the end that the peer has declared; None if more must be received first.

        Raises:
            ssl.SSLEOFError: the transport has ended, but the peer has not declared the end: something may be missing.
            ssl.SSLError: the peer ended the connection with an error, or something tampered with it.
        """
        with self._lock:
            if self._plain:
                size = min(len(view), len(self._plain))
                view[:size] = self._plain[:size]
                self._plain = self._plain[size:]
                return size
            try:
                if self._end is not None:
                    raise self._end
                return cast(int, self._tls.read(len(view), view))  # typeshed: bytes
            except ssl.SSLWantReadError:
                return None
            except ssl.SSLZeroReturnError:
                return 0

    def write(self, data: Buffer, /) -> int:
        """Encrypt plaintext; return how much of it was taken: 0 while a renegotiation needs to `receive` more first.

        Raises:
            ValueError: writing has been closed.
            ssl.SSLEOFError: the transport has ended, and the peer had not declared it.
        """
        with self._lock:
            if self._is_write_closed:
                raise ValueError("the writing side is closed")
            if self._broken is not None:
                raise self._broken
            try:
                return self._tls.write(data)
            except ssl.SSLWantReadError:
                return 0

    def close_write(self) -> None:
        """Tell the peer that nothing more will be written (close_notify). Reading goes on. Again: no effect."""
        with self._lock:
            if not self._is_write_closed:
                if self._broken is None:
                    self._drain()
                    self._shut_down()
                self._is_write_closed = True

    def _drain(self) -> None:
        """Decrypt all that was received: `_shut_down` must not meet any of it."""
        pieces = []
        try:
            while piece := self._tls.read(DRAIN_SIZE):
                pieces.append(piece)
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError as error:
            self._end = error
        self._plain = memoryview(b"".join([self._plain, *pieces]))

    def _shut_down(self) -> None:
        # unwrap calls SSL_shutdown twice. The first sends close_notify; the second looks for the peer's, and would
        # throw away data it meets on the way. Here it meets none.
        try:
            self._tls.unwrap()
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:
            if self._end is None:
                raise
