"""The blocking shell's `connect` and `Engine`: calls are made, time is kept.

What is said to an engine, and what its answers mean, is decided in calls.py and handshake.py.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar

from .._framing_py import check_limit, check_truncated
from ..errors import ConnectionLostError
from ..protocol import Truncated
from . import calls
from .base import DEFAULT_TIMEOUT, PER_STEP, TOO_LATE, Deadline, EngineBase, RunBase
from .dial import dial
from .endpoint import Attempts, find_endpoints
from .handshake import Conversation, LateBody, Response
from .session import RECEIVE_SIZE, Link, Session, is_timeout, lost

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import Mapping, Sequence
    from typing import Literal, Self

    from ..ingest.follow import Follower
    from ..ingest.following import Following
    from ..ingest.gather import Gathering
    from .calls import Flow, Opened, Step
    from .dial import Connection

__all__ = ["Engine", "Opener", "Run", "connect", "run_flow"]

T = TypeVar("T")


def connect(
    host: str | None = None,
    *,
    context: str | None = None,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    api_version: str | None = None,
    auth: Any = None,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> Engine:
    """Find an engine and agree on the version of its API.

    The engine is the one that `host` names, else `context`, DOCKER_HOST, DOCKER_CONTEXT, the current context of
    Docker's configuration, else the first default socket that answers: Docker's, then Podman's (rootful, rootless).

    Args:
        host: unix:///path, tcp://host:port, http(s)://host:port/prefix, ssh://user@host/path, npipe:////./pipe/name, or
            the path of a socket.
        context: a Docker context's name.
        tls: True verifies with the system's authorities or those in DOCKER_CERT_PATH, a path names a directory with
            ca.pem, cert.pem and key.pem, an ssl.SSLContext is used as it is, False is none. None: as environment,
            context or scheme say.
        api_version: speak this one ("1.41"); None takes DOCKER_API_VERSION or the newest that both know.
        auth: called with each Request, as it is sent, returns headers to add: for proxies that want a token or a
            signature (`muxframe.engine.hyper.HyperAuth`).
        timeout: seconds for connecting and for each answer that is not a stream; None waits for ever.

    Raises:
        ConnectionLostError: there is none; the text lists what was tried.
        EngineError: it does not want to talk.
        TimeoutError: it did not answer in time.
        ValueError, OSError: an address, a context or a certificate is not one.
    """
    fixed = calls.fixed_version(api_version)
    attempts = Attempts(ConnectionLostError, TimeoutError)
    for endpoint in find_endpoints(host, context=context, tls=tls):
        engine = Engine(endpoint, calls.Api(), auth=auth, timeout=timeout)
        with attempts.at(endpoint):
            engine._api = engine._run(calls.negotiate(fixed))
            return engine
    raise attempts.failure()


class Opener:
    """What opens sessions, and performs their flows. A context manager, of which nothing needs to be closed."""

    def _open(self, flow: Flow[Opened], max_frame_size: int | None, truncated: Truncated) -> Session:
        check_limit(max_frame_size)
        check_truncated(truncated)
        return Session(self, self._run(flow), max_frame_size, truncated)

    def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""


class Engine(Opener, EngineBase["Session", "Follower", "Gathering"]):
    """A container engine: what `connect` returns. It holds no connection; each call makes its own.

    Safe to use from several threads.
    """

    def _follow(self, following: Following) -> Follower:
        from ..ingest.follow import Follower

        return Follower(self, following)

    def _gather(self, names: Sequence[str], **options: Any) -> Gathering:
        from ..ingest.gather import Gathering
        from . import aio

        async def connect() -> aio.Engine:
            return aio.Engine(self._endpoint, self._api, auth=self._auth, timeout=self._timeout)

        return Gathering(connect, names, **options)

    def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        return self._run(calls.inspect(self._api, container))

    def start(self, container: str) -> None:
        """Start a container; nothing happens if it runs. To see all of its output use `attach(..., start=True)`."""
        self.request("POST", calls.container_path(container, "/start"))

    def kill(self, container: str, signal: str = "KILL") -> None:
        """Send a signal to a container's main process."""
        self.request("POST", calls.container_path(container, "/kill"), query={"signal": signal})

    def resize(self, container: str, height: int, width: int) -> None:
        """Tell a container's TTY how large its terminal is, in characters."""
        self._run(calls.resize(self._api, calls.container_path(container), height, width))

    def wait(
        self,
        container: str,
        condition: Literal["not-running", "next-exit", "removed"] = "not-running",
        *,
        timeout: float | None = None,
    ) -> int:
        """Wait for a container's exit; return its exit code.

        Args:
            container: name or id.
            condition: what to wait for. One that was never started is "not-running" at once.
            timeout: seconds.

        Raises:
            TimeoutError: it has not happened in time.
        """
        path = calls.container_path(container)
        waiting = self._run(calls.open_wait(self._api, path, condition))
        try:
            return self._run(calls.read_wait(waiting), timeout)
        finally:
            waiting.close()

    def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Ask for anything else that the API offers.

        Args:
            method: GET, POST and so on.
            path: below the version: "/containers/json".
            query: parameters, not quoted.
            body: bytes, or what is sent as JSON.
            headers: beyond the usual.

        Returns:
            The answer, whole, of status 200..299, or 304 (nothing was to be done).

        Raises:
            EngineError: or one of its kinds, for any other status.
        """
        request = self._api.request(method, path, query=query or {}, body=body, headers=headers or {})
        return self._run(calls.plain(request))

    def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        """Perform a flow; timeout: seconds for the whole; PER_STEP: the engine's timeout for each exchange."""
        return run_flow(flow, Run(self._endpoint, self._auth, self._timeout, timeout))


def run_flow(flow: Flow[T], run: Run) -> T:
    """Perform a flow's steps and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                result = run.perform(step)
            except BaseException as error:
                step = flow.throw(error)
            else:
                step = flow.send(result)
    except StopIteration as end:
        value: T = end.value
        return value
    finally:
        run.close()


class Run(RunBase):
    """What performs the steps of one flow."""

    def perform(self, step: Step) -> Any:
        """Perform a step; return what the flow is sent for it."""
        deadline = self._deadline or Deadline(self._step_timeout)
        if isinstance(step, calls.Sleep):
            left = deadline.left()
            return time.sleep(step.seconds if left is None else min(step.seconds, left))
        if isinstance(step, calls.Read):
            return step.link.read_rest(deadline)
        if isinstance(step, calls.Write):
            return step.link.send(step.packed)
        return self._exchange(step, deadline)

    def _exchange(self, step: calls.Call | calls.Open, deadline: Deadline) -> Any:
        endpoint = (step.endpoint if isinstance(step, calls.Open) else None) or self._endpoint
        assert endpoint is not None
        if self._conversation is None or not self._conversation.is_reusable:
            self.close()
            self._connection = dial(endpoint, deadline.left())
            self._conversation = Conversation()
        connection, conversation = self._connection, self._conversation
        assert connection is not None
        request = calls.signed(step.request, endpoint, self._auth)
        try:
            _send(connection, conversation.send(request, stream=isinstance(step, calls.Open)), deadline)
            if isinstance(step, calls.Open) and step.is_late:
                return self._hand_over(Link(connection, None, b"", LateBody(conversation)))
            buffer = memoryview(bytearray(RECEIVE_SIZE))
            while not conversation.is_complete:
                conversation.receive(buffer[: _receive(connection, buffer, deadline)])
                if conversation.is_stream:
                    return self._hand_over(Link(connection, conversation.response, *conversation.take_over()))
        except ConnectionLostError:
            raise
        except OSError as error:
            if is_timeout(error):
                raise TimeoutError(TOO_LATE) from None
            raise lost(error) from error
        conversation.check()
        return conversation.response

    def _hand_over(self, link: Link) -> Link:
        self._connection = self._conversation = None
        link.connection.settimeout(None)
        return link


def _send(connection: Connection, data: bytes, deadline: Deadline) -> None:
    view = memoryview(data)
    while view:
        connection.settimeout(deadline.left())
        view = view[connection.send(view) :]


def _receive(connection: Connection, buffer: memoryview, deadline: Deadline) -> int:
    connection.settimeout(deadline.left())
    return connection.recv_into(buffer)
