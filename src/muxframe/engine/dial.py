"""Blocking connections to an endpoint: sockets, TLS, ssh's standard streams, named pipes.

To their users all are one thing, a `Connection`. One thread may read while another writes, and any may interrupt or
close. What all of them keep to:

- Nothing waits longer than the timeout. A TimeoutError has lost no byte, and everything goes on afterwards.
- A descriptor is closed by the last one who uses it, so that nobody reads from a number that has become another file.
- Writing can be ended by itself: the peer sees the end of the stream, and reading goes on.
"""

from __future__ import annotations

import errno
import math
import select
import shlex
import socket
import subprocess
import sys
import threading
import time
from typing import TYPE_CHECKING

from ..errors import ConnectionLostError
from ..sources import blocking_descriptor
from .endpoint import reason_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from .endpoint import Endpoint
    from .tls import TlsStream

#: Bytes at a time where they pass through memory of this module.
BLOCK_SIZE = 64 * 1024

#: Bytes of ssh's complaints that are kept: the last ones.
MAX_COMPLAINT_SIZE = 4096

#: Seconds that are waited at a time at most.
MAX_WAIT = 86400.0

#: Seconds; a timeout that is longer is none: systems count milliseconds in 31 bits.
LONGEST_TIMEOUT = 2e6

#: Seconds in which ssh is expected to end after its streams have; then it is terminated, and then killed.
GRACE = 2.0


def dial(endpoint: Endpoint, timeout: float | None = None) -> Connection:
    """Connect to an endpoint.

    Args:
        endpoint: where to.
        timeout: seconds that connecting may take, the TLS handshake included, the resolver not: it has its own. Also
            the connection's first timeout. None waits.

    Raises:
        ConnectionLostError: it cannot be connected; the cause is chained. Of ssh's failures reading tells.
        TimeoutError: it took too long.
        OSError, ValueError: a file of certificates is not usable; a timeout is not positive.
    """
    timeout = check_timeout(timeout)
    deadline = _Deadline(timeout)
    context = endpoint.ssl_context()
    try:
        if endpoint.kind == "ssh":
            return _SshConnection(endpoint, timeout)
        if endpoint.kind == "npipe":
            return _dial_pipe(endpoint, timeout)
        sock = _connect_unix(endpoint, deadline) if endpoint.kind == "unix" else _connect_tcp(endpoint, deadline)
        try:
            if context is None:
                return _SocketConnection(sock, timeout)
            from .tls import TlsStream

            return _TlsConnection(sock, TlsStream(context, endpoint.server_hostname), timeout, deadline)
        except BaseException:
            sock.close()
            raise
    except TimeoutError as error:
        raise TimeoutError(f"no connection to {endpoint} ({endpoint.origin}) within {timeout} s") from error
    except OSError as error:
        raise ConnectionLostError(f"cannot connect to {endpoint} ({endpoint.origin}): {reason_of(error)}") from error


class _Deadline:
    """When waiting is to end."""

    def __init__(self, timeout: float | None) -> None:
        self._at = None if timeout is None else time.monotonic() + timeout

    def left(self, share: int = 1) -> float | None:
        """Return the seconds left, or a share of them; never 0, which would mean not to wait, nor more than C takes."""
        return None if self._at is None else min(max((self._at - time.monotonic()) / share, 0.001), MAX_WAIT)

    def is_over(self) -> bool:
        return self._at is not None and time.monotonic() >= self._at


def check_timeout(timeout: float | None) -> float | None:
    """Refuse what is no positive number of seconds or None; return it, or None for one that never ends."""
    if timeout is not None and not timeout > 0:
        raise ValueError(f"timeout must be positive or None, not {timeout}")
    return ending(timeout)


def ending(timeout: float | None) -> float | None:
    """Return a timeout, or None for one that never ends."""
    return None if timeout is None or timeout > LONGEST_TIMEOUT else timeout


def _connect_unix(endpoint: Endpoint, deadline: _Deadline) -> socket.socket:
    if not hasattr(socket, "AF_UNIX"):
        raise OSError("this Python has no Unix sockets")
    while True:
        try:
            return _connect(socket.AF_UNIX, endpoint.path, deadline.left())
        except BlockingIOError:  # its queue is full, for which Linux lets nobody wait who has a timeout
            if deadline.is_over():
                raise TimeoutError("the socket's queue is full") from None
            time.sleep(0.02)


def _connect_tcp(endpoint: Endpoint, deadline: _Deadline) -> socket.socket:
    """Try every address of the host; each gets its share of the time, so that a dead one leaves some for the others."""
    addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
    for i, (family, _, _, _, address) in enumerate(addresses, 1):
        try:
            sock = _connect(family, address, deadline.left(len(addresses) + 1 - i))
        except OSError:
            if i == len(addresses):
                raise
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            return sock
    raise OSError("the name has no address")


def _connect(family: int, address: object, timeout: float | None) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(address)  # type: ignore[arg-type]
    except BaseException:
        sock.close()
        raise
    return sock


# --- what all connections are ----------------------------------------------------------------------------------------


class _Hold:
    """Counts who uses a descriptor; entered around each use. The last one out closes it, and nobody comes in after."""

    def __init__(self, release: Callable[[], None]) -> None:
        self._release = release
        self._lock = threading.Lock()
        self._users = 0
        self._is_closing = False

    def __enter__(self) -> None:
        with self._lock:
            if self._is_closing:
                raise ValueError("the connection is closed")
            self._users += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._users -= 1
            is_last = self._is_closing and not self._users
        if is_last:
            self._release()

    def close(self) -> None:
        with self._lock:
            is_last = not self._is_closing and not self._users
            self._is_closing = True
        if is_last:
            self._release()


class Connection:
    """A connected stream of bytes. One thread may read while another writes; any may interrupt or close.

    Used after it was closed it raises ValueError; what else its methods raise is OSError.

    Attributes:
        hold: a context manager; entered, the descriptor stays open, however long others may have closed the
            connection. For those who use `descriptor`.
    """

    def __init__(self, timeout: float | None) -> None:
        self.hold: _Hold = _Hold(self._release)
        self._timeout = timeout
        self._is_interrupted = False
        self._is_write_closed = False

    @property
    def descriptor(self) -> int | None:
        """A file descriptor that reading and writing is no more than reading from and writing to, if there is one."""
        return None

    @property
    def timeout(self) -> float | None:
        """What `settimeout` was told; None for what never ends."""
        return self._timeout

    def recv_into(self, view: memoryview, /) -> int:
        """Fill the beginning of view with what there is, waiting for at least one byte.

        Returns:
            Its size; 0 at the end, and after `interrupt`.

        Raises:
            TimeoutError: nothing came in time. Nothing is lost; call again.
            ConnectionLostError, OSError: the connection broke. What came before was returned.
        """
        raise NotImplementedError

    def send(self, view: memoryview, /) -> int:
        """Take bytes from the beginning of view, at least one, and return how many: they need not be sent again.

        Raises:
            TimeoutError: none was taken in time; call again.
            ValueError: writing has been closed.
            OSError: the connection broke or was interrupted.
        """
        raise NotImplementedError

    def close_write(self) -> None:
        """End writing: the peer reads the end of the stream, and what it sends can be read on. Again: no effect.

        Raises:
            TimeoutError: bytes taken before were not sent in time; call again.
        """
        raise NotImplementedError

    def settimeout(self, timeout: float | None) -> None:
        """Set the seconds that recv_into, send and close_write wait from now on; None waits for ever."""
        self._timeout = check_timeout(timeout)

    def interrupt(self) -> None:
        """End all reading and writing for good, and at once what is blocked in it. Callable from any thread."""
        self._is_interrupted = True
        try:
            with self.hold:
                self._unblock()
        except (OSError, ValueError):  # disconnected or closed: there is nothing to interrupt
            pass

    def close(self) -> None:
        """Interrupt, and close as soon as nobody uses the connection. Callable from any thread; again: no effect."""
        self.interrupt()
        self.hold.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _check_writable(self) -> None:
        if self._is_write_closed:
            raise ValueError("the writing side is closed")

    def _unblock(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        raise NotImplementedError


# --- sockets ---------------------------------------------------------------------------------------------------------


class _SocketConnection(Connection):
    def __init__(self, sock: socket.socket, timeout: float | None) -> None:
        super().__init__(timeout)
        self._socket = sock
        sock.settimeout(timeout)

    @property
    def descriptor(self) -> int | None:
        return blocking_descriptor(self._socket)

    def recv_into(self, view: memoryview, /) -> int:
        with self.hold:
            return 0 if self._is_interrupted else self._socket.recv_into(view)

    def send(self, view: memoryview, /) -> int:
        with self.hold:
            self._check_writable()
            return self._socket.send(view)

    def close_write(self) -> None:
        with self.hold:
            self._is_write_closed = True
            _shutdown(self._socket, socket.SHUT_WR)

    def settimeout(self, timeout: float | None) -> None:
        with self.hold:
            super().settimeout(timeout)
            self._socket.settimeout(self._timeout)

    def _unblock(self) -> None:
        _shutdown(self._socket, socket.SHUT_RDWR)

    def _release(self) -> None:
        self._socket.close()


def _shutdown(sock: socket.socket, how: int) -> None:
    try:
        sock.shutdown(how)
    except OSError as error:
        if error.errno != errno.ENOTCONN:  # the peer was first
            raise


# --- TLS -------------------------------------------------------------------------------------------------------------


class _TlsConnection(Connection):
    """TLS over a socket that never blocks: reader and writer each wait for what the protocol needs next."""

    def __init__(self, sock: socket.socket, tls: TlsStream, timeout: float | None, deadline: _Deadline) -> None:
        super().__init__(timeout)
        sock.settimeout(0)
        self._socket = sock
        self._tls = tls
        self._received = memoryview(bytearray(BLOCK_SIZE))
        self._reading = threading.Lock()
        self._sending = threading.Lock()  # taken only for sending that does not wait
        self._unsent = memoryview(b"")
        try:
            while not tls.handshake():
                self._receive(deadline)
            self._flush(deadline)
        except OSError:
            self._say_goodbye()  # tells the server why
            raise

    def recv_into(self, view: memoryview, /) -> int:
        with self.hold, self._reading:
            deadline = _Deadline(self._timeout)
            while not self._is_interrupted:
                size = self._tls.read_into(view)
                if size is not None:
                    return size
                self._receive(deadline)
            return 0

    def send(self, view: memoryview, /) -> int:
        with self.hold:
            deadline = _Deadline(self._timeout)
            self._flush(deadline)
            while not (size := self._tls.write(view[:BLOCK_SIZE])):
                self._renegotiate(deadline)
            try:
                self._flush(deadline)
            except TimeoutError:
                pass  # encrypted is taken: the rest goes out with the next call, of recv_into, too
            return size

    def close_write(self) -> None:
        with self.hold:
            self._tls.close_write()
            self._flush(_Deadline(self._timeout))

    def close(self) -> None:
        try:
            with self.hold:
                self._tls.close_write()
                self._say_goodbye()
        except (OSError, ValueError):
            pass
        super().close()

    def _receive(self, deadline: _Deadline) -> None:
        """Wait for ciphertext. Meanwhile what waits to be sent is sent: the peer may need that first."""
        while True:
            try:
                is_all_sent = self._push()
            except OSError:
                is_all_sent = True  # who takes no more may still have something to say
            try:
                size = self._socket.recv_into(self._received)
            except BlockingIOError:
                _wait(self._socket, True, not is_all_sent, deadline)
            else:
                self._tls.receive(self._received[:size])
                return

    def _renegotiate(self, deadline: _Deadline) -> None:
        """Receive what writing needs, or let the reader do it if there is one."""
        if self._reading.acquire(timeout=0.01):
            try:
                self._receive(deadline)
            finally:
                self._reading.release()
        elif deadline.is_over():
            raise TimeoutError("timed out")

    def _flush(self, deadline: _Deadline) -> None:
        while not self._push():
            _wait(self._socket, False, True, deadline)

    def _push(self) -> bool:
        """Send what the socket takes without waiting. Return whether that was all."""
        with self._sending:
            try:
                while self._unsent or self._refill():
                    self._unsent = self._unsent[self._socket.send(self._unsent) :]
            except BlockingIOError:
                return False
            return True

    def _refill(self) -> bool:
        self._unsent = memoryview(self._tls.outgoing())
        return bool(self._unsent)

    def _say_goodbye(self) -> None:
        try:
            self._push()
        except OSError:
            pass

    def _unblock(self) -> None:
        _shutdown(self._socket, socket.SHUT_RDWR)

    def _release(self) -> None:
        self._socket.close()


def _wait(sock: socket.socket, readable: bool, writable: bool, deadline: _Deadline) -> None:
    """Wait until a socket is one of what is asked for, or has failed."""
    if deadline.is_over():
        raise TimeoutError("timed out")
    seconds = deadline.left()
    if sys.platform == "win32":
        select.select([sock] if readable else [], [sock] if writable else [], [], seconds)
    else:  # not select: descriptors may be above 1023
        poll = select.poll()
        poll.register(sock, (select.POLLIN if readable else 0) | (select.POLLOUT if writable else 0))
        poll.poll(None if seconds is None else math.ceil(seconds * 1000))


# --- ssh -------------------------------------------------------------------------------------------------------------


def ssh_command(endpoint: Endpoint, timeout: float | None = None) -> list[str]:
    """Return the command that connects its standard streams to the engine of another machine."""
    command = ["ssh"]
    if endpoint.user:
        command += ["-l", endpoint.user]
    if endpoint.port is not None:
        command += ["-p", str(endpoint.port)]
    command += ["-T"]
    if timeout is not None:
        command += ["-o", f"ConnectTimeout={math.ceil(timeout)}"]
    docker = ["docker"] + (["--host", f"unix://{endpoint.path}"] if endpoint.path else [])
    return [*command, "--", endpoint.host, *map(shlex.quote, [*docker, "system", "dial-stdio"])]


def spawn_ssh(endpoint: Endpoint, timeout: float | None = None) -> tuple[socket.socket, SshProcess]:
    """Start ssh with one end of a socket pair as its standard input and output.

    Args:
        endpoint: an ssh:// one.
        timeout: seconds ssh may take to reach the other machine; None leaves that to ssh.

    Returns:
        The other end, and the process. Both are to be closed, the socket first.

    Raises:
        OSError: ssh cannot be started.
    """
    if sys.platform == "win32":
        raise OSError("ssh:// needs socket pairs that a process can have as its standard streams; Windows has none")
    ours, theirs = socket.socketpair()
    complaints, their_complaints = socket.socketpair()
    try:
        stdio, stderr = theirs.fileno(), their_complaints.fileno()
        process = subprocess.Popen(ssh_command(endpoint, timeout), stdin=stdio, stdout=stdio, stderr=stderr)
    except BaseException as error:
        ours.close()
        complaints.close()
        if isinstance(error, FileNotFoundError):
            raise FileNotFoundError("there is no ssh command") from error
        raise
    finally:
        theirs.close()
        their_complaints.close()
    return ours, SshProcess(endpoint, process, complaints)


class SshProcess:
    """A running ssh. A thread keeps what it says on standard error and takes its exit code, so that no zombie stays."""

    def __init__(self, endpoint: Endpoint, process: subprocess.Popen[bytes], complaints: socket.socket) -> None:
        self._endpoint = endpoint
        self._process = process
        self._complaints = complaints  # a socket, for closing a pipe would not end reading
        self._said = b""
        self._has_ended = threading.Event()
        threading.Thread(target=self._watch, name="muxframe-ssh", daemon=True).start()

    def failure(self) -> str | None:
        """Say, after its standard output has ended, what went wrong; None if nothing did. Waits for it to exit."""
        try:
            status = self._process.wait(GRACE)
        except subprocess.TimeoutExpired:
            return None
        if status == 0:
            return None
        self._has_ended.wait(0.5)  # there may be more to read; processes that ssh left behind may keep it open
        said = self._said.decode(errors="replace").strip()
        how = f"ended with status {status}" if status > 0 else f"was ended by signal {-status}"
        return f"{self._endpoint} ({self._endpoint.origin}): ssh {how}" + (f": {said}" if said else "")

    def close(self) -> None:
        """Let it end, make it if it does not: in the background. Callable from any thread; again: no effect."""
        try:
            self._complaints.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass  # it has closed its end, or this was called before
        if not self._has_ended.is_set():
            threading.Thread(target=self._end, name="muxframe-ssh-end", daemon=True).start()

    def _watch(self) -> None:
        with self._complaints:
            try:
                while piece := self._complaints.recv(MAX_COMPLAINT_SIZE):
                    self._said = (self._said + piece)[-MAX_COMPLAINT_SIZE:]
            except OSError:
                pass
            self._process.wait()
        self._has_ended.set()

    def _end(self) -> None:
        for stop in (self._process.terminate, self._process.kill):
            if not self._has_ended.wait(GRACE):
                stop()


class _SshConnection(_SocketConnection):
    """The descriptor is kept back: whether an end of the stream is one, only ssh's exit status tells."""

    def __init__(self, endpoint: Endpoint, timeout: float | None) -> None:
        sock, self._process = spawn_ssh(endpoint, timeout)
        super().__init__(sock, timeout)

    @property
    def descriptor(self) -> int | None:
        return None

    def recv_into(self, view: memoryview, /) -> int:
        try:
            size = super().recv_into(view)
        except ConnectionError as error:  # it has ended and left something unread
            self._check(error)
            raise
        if not size:
            self._check(None)
        return size

    def send(self, view: memoryview, /) -> int:
        try:
            return super().send(view)
        except ConnectionError as error:
            self._check(error)
            raise

    def _check(self, error: Exception | None) -> None:
        failure = None if self._is_interrupted else self._process.failure()
        if failure is not None:
            raise ConnectionLostError(failure) from error

    def _release(self) -> None:
        super()._release()
        self._process.close()


# --- named pipes -----------------------------------------------------------------------------------------------------

if sys.platform != "win32":

    def _dial_pipe(endpoint: Endpoint, timeout: float | None) -> Connection:
        raise OSError("named pipes exist only on Windows")

else:
    import _winapi

    def _dial_pipe(endpoint: Endpoint, timeout: float | None) -> Connection:
        return _PipeConnection(_open_pipe(endpoint.path, _Deadline(timeout)), timeout)

    SECURITY_SQOS_PRESENT = 0x00100000  # with none of the levels above anonymous: the server cannot act as the user

    def _open_pipe(path: str, deadline: _Deadline) -> int:
        access = _winapi.GENERIC_READ | _winapi.GENERIC_WRITE
        flags = _winapi.FILE_FLAG_OVERLAPPED | SECURITY_SQOS_PRESENT
        while True:
            try:
                return _winapi.CreateFile(path, access, 0, 0, _winapi.OPEN_EXISTING, flags, 0)
            except OSError as error:
                if error.winerror != _winapi.ERROR_PIPE_BUSY:
                    raise
            try:
                _winapi.WaitNamedPipe(path, _milliseconds(deadline))
            except OSError as error:
                if error.winerror != _winapi.ERROR_SEM_TIMEOUT:
                    raise
            if deadline.is_over():
                raise TimeoutError("all instances of the pipe are busy")

    def _milliseconds(deadline: _Deadline) -> int:
        left = deadline.left()
        return _winapi.INFINITE if left is None else math.ceil(left * 1000)

    class _PipeConnection(Connection):
        """A named pipe with overlapped I/O, so that reading and writing do not wait for each other.

        As Docker's daemon uses them: of messages, where an empty one is the end of the stream. A pipe of bytes cannot
        be half closed. Ctrl-C does not end waiting; `interrupt` does.
        """

        def __init__(self, handle: int, timeout: float | None) -> None:
            super().__init__(timeout)
            self._handle = handle
            self._lock = threading.Lock()  # orders the start of operations and their cancellation
            self._reading: _winapi.Overlapped | None = None
            self._writing: _winapi.Overlapped | None = None
            self._rest = memoryview(b"")  # read, but not taken
            self._has_ended = False

        def recv_into(self, view: memoryview, /) -> int:
            with self.hold:
                if not self._rest and not self._has_ended and not self._is_interrupted:
                    self._rest = memoryview(self._read())
                    self._has_ended = not self._rest
                size = min(len(view), len(self._rest))
                view[:size] = self._rest[:size]
                self._rest = self._rest[size:]
                return size

        def _read(self) -> bytes:
            try:
                with self._lock:
                    if self._reading is None:  # one that timed out is waited for again
                        self._reading, _ = _winapi.ReadFile(self._handle, BLOCK_SIZE, overlapped=True)
                    reading = self._reading
                    if self._is_interrupted:
                        reading.cancel()
                if _winapi.WaitForSingleObject(reading.event, _milliseconds(_Deadline(self._timeout))):
                    raise TimeoutError("timed out")
                self._reading = None
                reading.GetOverlappedResult(True)
                return reading.getbuffer() or b""
            except BrokenPipeError:
                return b""

        def send(self, view: memoryview, /) -> int:
            with self.hold:
                self._check_writable()
                return self._write(bytes(view[:BLOCK_SIZE])) if view else 0

        def close_write(self) -> None:
            with self.hold:
                if not self._is_write_closed:
                    self._write(b"")
                    self._is_write_closed = True

        def _write(self, data: bytes) -> int:
            with self._lock:
                writing, _ = _winapi.WriteFile(self._handle, data, overlapped=True)
                self._writing = writing
                if self._is_interrupted:
                    writing.cancel()
            is_late = _winapi.WaitForSingleObject(writing.event, _milliseconds(_Deadline(self._timeout)))
            if is_late:
                writing.cancel()
            size, code = writing.GetOverlappedResult(True)
            self._writing = None
            if code != _winapi.ERROR_OPERATION_ABORTED or size:
                return size
            if is_late:
                raise TimeoutError("timed out")
            raise BrokenPipeError(errno.EPIPE, "interrupted")

        def _unblock(self) -> None:
            with self._lock:
                for operation in (self._reading, self._writing):
                    if operation is not None:
                        operation.cancel()

        def _release(self) -> None:
            _winapi.CloseHandle(self._handle)
