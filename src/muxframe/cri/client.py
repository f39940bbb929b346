"""The blocking shell's `connect` and `Runtime`: calls are made, time is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from ..engine.base import DEFAULT_TIMEOUT, PER_STEP, Deadline
from ..engine.client import Opener, Run, run_flow
from ..engine.endpoint import Attempts
from ..engine.session import Session
from ..errors import ConnectionLostError, EngineError
from ..protocol import DEFAULT_MAX_FRAME_SIZE, Truncated
from . import calls
from .base import RuntimeBase

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Mapping

    from ..engine.endpoint import Endpoint
    from .calls import Flow
    from .messages import Container, Version
    from .rpc import Caller

__all__ = ["Runtime", "connect", "connect_stream"]

T = TypeVar("T")


def connect(
    endpoint: str | None = None,
    *,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> Runtime:
    """Find a container runtime and agree on the version of the CRI.

    Args:
        endpoint: unix:///path, tcp://host:port, or the path of a socket. None: CONTAINER_RUNTIME_ENDPOINT, else the
            first that answers of containerd's, CRI-O's and iSulad's usual sockets.
        tls: for streams that the runtime serves with https: as for `muxframe.connect`. Calls go without TLS.
        timeout: seconds for connecting and for each answer that is not a stream; None waits for ever.

    Raises:
        ConnectionLostError: there is none; the text lists what was tried.
        EngineError: it speaks no CRI.
        TimeoutError: it did not answer in time.
        ValueError: an address is not one.
        ModuleNotFoundError: grpcio or websockets is not installed: `muxframe[cri]`.
    """
    from .rpc import find_endpoints

    attempts = Attempts(ConnectionLostError, TimeoutError, EngineError)
    for each in find_endpoints(endpoint):
        runtime = Runtime(each, timeout)
        with attempts.at(each):
            runtime._api = runtime._run(calls.negotiate(tls))
            return runtime
    raise attempts.failure()


def connect_stream(
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    stdin: bool = False,
    tty: bool = False,
    timeout: float | None = DEFAULT_TIMEOUT,
    max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
    truncated: Truncated = "error",
) -> Session:
    """Open a stream whose address is known: attach and exec of a Kubernetes API server, or what a runtime has given.

    Args:
        url: ``https://...`` or ``http://...`` (``wss://...`` or ``ws://...``), with the query: which container, which
            streams, which command.
        headers: to send with it, such as Authorization.
        tls: as for `muxframe.connect`.
        stdin, tty: whether the query asks for them.
        timeout: seconds until the stream begins; None waits for ever.
        max_frame_size, truncated: as for `Engine.attach`.

    Returns:
        A session. Where the path ends in "/attach" nothing tells the exit code; otherwise as of `Runtime.exec`.

    Raises:
        NotFoundError, ConflictError, BadRequestError, EngineError: the server refuses, by its status.
        HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
    """
    flow = calls.stream(url, headers=headers or {}, tls=tls, stdin=stdin, tty=tty)
    return Runtime(None, timeout)._open(flow, max_frame_size, truncated)


class Runtime(Opener, RuntimeBase["Session"]):
    """A container runtime: what `connect` returns. It holds no connection; each call makes its own.

    Safe to use from several threads.
    """

    def version(self) -> Version:
        """Ask what the runtime is: (name, version, api)."""
        return self._run(calls.version(self._api))

    def containers(self, *, all: bool = False) -> list[Container]:
        """List the containers that run; all: those that do not, too."""
        return self._run(calls.containers(self._api, all=all))

    def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        """Perform a flow; timeout: seconds for the whole; PER_STEP: the runtime's timeout for each step."""
        return run_flow(flow, _Run(self._endpoint, self._timeout, timeout))


class _Run(Run):
    """What performs the steps of one flow, calls of gRPC among them."""

    def __init__(self, endpoint: Endpoint | None, step_timeout: float | None, timeout: float | None) -> None:
        super().__init__(None, None, step_timeout, timeout)
        self._runtime = endpoint
        self._caller: Caller | None = None

    def perform(self, step: Any) -> Any:
        if not isinstance(step, calls.Ask):
            return super().perform(step)
        from .rpc import Caller, RpcError, refuse

        deadline = self._deadline or Deadline(self._step_timeout)
        if self._caller is None:
            assert self._runtime is not None
            self._caller = Caller(self._runtime)
        try:
            return self._caller.begin(step.path, step.message, deadline.left()).result()
        except RpcError as error:
            refuse(error, self._caller.endpoint)

    def close(self) -> None:
        super().close()
        if self._caller is not None:
            self._caller.close()
            self._caller = None
