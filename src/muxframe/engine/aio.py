"""The asyncio shell's `connect` and `Engine`: the names, and the behaviour, of the blocking ones.

aio_link.py has the connections, aio_session.py the Session.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from .._framing_py import check_limit, check_truncated
from ..errors import ConnectionLostError
from ..protocol import Truncated
from . import calls
from .aio_link import Link, dial
from .aio_session import Session
from .base import DEFAULT_TIMEOUT, PER_STEP, TOO_LATE, Deadline, EngineBase, RunBase
from .endpoint import Attempts, find_endpoints
from .handshake import Conversation, LateBody, Response
from .session import is_timeout, lost

if TYPE_CHECKING:
    import os
    import ssl
    from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Mapping, Sequence
    from typing import Literal, Self

    from ..ingest.aio import Follower
    from ..ingest.following import Following
    from ..ingest.gather import AsyncGathering
    from .calls import Flow, Opened, Step
    from .handshake import Body

__all__ = [
    "Engine",
    "Opener",
    "Opening",
    "Run",
    "Session",
    "attach",
    "connect",
    "exec",
    "follow",
    "gather",
    "logs",
    "run_flow",
]

T = TypeVar("T")


class Opening(Generic[T]):
    """Something that is still to be opened: `await` it, or `async with` it. Once."""

    def __init__(self, open_it: Callable[[], Awaitable[T]]) -> None:
        self._open: Callable[[], Awaitable[T]] | None = open_it
        self._opened: Any = None

    def __await__(self) -> Generator[Any, None, T]:
        open_it, self._open = self._open, None
        if open_it is None:
            raise RuntimeError("cannot be opened twice: make the call again")
        return open_it().__await__()

    async def __aenter__(self) -> T:
        opened = await self
        self._opened = opened
        await self._opened.__aenter__()
        return opened

    async def __aexit__(self, *error: Any) -> None:
        await self._opened.__aexit__(*error)


def connect(
    host: str | None = None,
    *,
    context: str | None = None,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    api_version: str | None = None,
    auth: Any = None,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> Opening[Engine]:
    """Find an engine and agree on the version of its API: as `muxframe.connect`, to be awaited."""

    async def open_it() -> Engine:
        fixed = calls.fixed_version(api_version)
        attempts = Attempts(ConnectionLostError, TimeoutError)
        for endpoint in find_endpoints(host, context=context, tls=tls):
            engine = Engine(endpoint, calls.Api(), auth=auth, timeout=timeout)
            with attempts.at(endpoint):
                engine._api = await engine._run(calls.negotiate(fixed))
                return engine
        raise attempts.failure()

    return Opening(open_it)


def attach(container: str, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Attach to a container of the engine that `connect(host)` finds; otherwise as `Engine.attach`."""

    async def open_it() -> Session:
        return await (await connect(host)).attach(container, **options)

    return Opening(open_it)


def exec(container: str, command: Any, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Run a command in a container of the engine that `connect(host)` finds; otherwise as `Engine.exec`."""

    async def open_it() -> Session:
        return await (await connect(host)).exec(container, command, **options)

    return Opening(open_it)


def logs(name: str, *, host: str | None = None, **options: Any) -> Opening[Session]:
    """Read the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.logs`."""

    async def open_it() -> Session:
        return await (await connect(host)).logs(name, **options)

    return Opening(open_it)


def follow(container: str, *, host: str | None = None, **options: Any) -> Follower:
    """Follow the log of a container of the engine that `connect(host)` finds; otherwise as `Engine.follow`."""
    from ..ingest.aio import Follower
    from ..ingest.following import Following

    return Follower(lambda: connect(host), Following(container, **options))


def gather(*names: str, host: str | None = None, **options: Any) -> AsyncGathering:
    """Gather the logs of containers of the engine that `connect(host)` finds; otherwise as `Engine.gather`."""
    from ..ingest.gather import AsyncGathering

    return AsyncGathering(lambda: connect(host), names, **options)


class Opener:
    """What opens sessions, and performs their flows: as the blocking Opener."""

    def _open(self, flow: Flow[Opened], max_frame_size: int | None, truncated: Truncated) -> Opening[Session]:
        check_limit(max_frame_size)
        check_truncated(truncated)

        async def open_it() -> Session:
            return Session(self, await self._run(flow), max_frame_size, truncated)

        return Opening(open_it)

    async def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        raise NotImplementedError

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        """Do nothing: there is nothing to close."""


class Engine(Opener, EngineBase["Opening[Session]", "Follower", "AsyncGathering"]):
    """A container engine: what awaiting `connect` returns. It holds no connection; each call makes its own.

    `attach`, `exec` and `logs` return what can be awaited, or used with `async with`, for the Session.
    """

    def _follow(self, following: Following) -> Follower:
        from ..ingest.aio import Follower

        return Follower(self._itself, following)

    def _gather(self, names: Sequence[str], **options: Any) -> AsyncGathering:
        from ..ingest.gather import AsyncGathering

        return AsyncGathering(self._itself, names, **options)

    async def _itself(self) -> Engine:
        return self

    async def inspect(self, container: str) -> dict[str, Any]:
        """Return what the engine knows of a container."""
        return await self._run(calls.inspect(self._api, container))

    async def start(self, container: str) -> None:
        """Start a container; nothing happens if it runs. To see all of its output use `attach(..., start=True)`."""
        await self.request("POST", calls.container_path(container, "/start"))

    async def kill(self, container: str, signal: str = "KILL") -> None:
        """Send a signal to a container's main process."""
        await self.request("POST", calls.container_path(container, "/kill"), query={"signal": signal})

    async def resize(self, container: str, height: int, width: int) -> None:
        """Tell a container's TTY how large its terminal is, in characters."""
        await self._run(calls.resize(self._api, calls.container_path(container), height, width))

    async def wait(
        self,
        container: str,
        condition: Literal["not-running", "next-exit", "removed"] = "not-running",
        *,
        timeout: float | None = None,
    ) -> int:
        """Wait for a container's exit; return its exit code. As the blocking Engine's."""
        waiting = await self._run(calls.open_wait(self._api, calls.container_path(container), condition))
        try:
            return await self._run(calls.read_wait(waiting), timeout)
        finally:
            waiting.close()

    async def request(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        """Ask for anything else that the API offers. As the blocking Engine's."""
        request = self._api.request(method, path, query=query or {}, body=body, headers=headers or {})
        return await self._run(calls.plain(request))

    async def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        """Perform a flow: see the blocking Engine's."""
        return await run_flow(flow, Run(self._endpoint, self._auth, self._timeout, timeout))


async def run_flow(flow: Flow[T], run: Run) -> T:
    """Perform a flow's steps and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                result = await run.perform(step)
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

    async def perform(self, step: Step) -> Any:
        """Perform a step; return what the flow is sent for it."""
        deadline = self._deadline or Deadline(self._step_timeout)
        async with _until(deadline):
            if isinstance(step, calls.Sleep):
                return await asyncio.sleep(step.seconds)
            if isinstance(step, calls.Read):
                return await step.link.read_rest()
            if isinstance(step, calls.Write):
                return await step.link.send(step.packed)
            return await self._exchange(step, deadline)

    async def _exchange(self, step: calls.Call | calls.Open, deadline: Deadline) -> Any:
        endpoint = (step.endpoint if isinstance(step, calls.Open) else None) or self._endpoint
        assert endpoint is not None
        if self._conversation is None or not self._conversation.is_reusable:
            self.close()
            self._connection = await dial(endpoint, deadline)
            self._conversation = Conversation()
        connection, conversation = self._connection, self._conversation
        assert connection is not None
        request = calls.signed(step.request, endpoint, self._auth)
        try:
            await connection.send(conversation.send(request, stream=isinstance(step, calls.Open)))
            if isinstance(step, calls.Open) and step.is_late:
                return await self._hand_over(None, b"", LateBody(conversation))
            while not conversation.is_complete:
                conversation.receive(await connection.receive())
                if conversation.is_stream:
                    return await self._hand_over(conversation.response, *conversation.take_over())
        except ConnectionLostError:
            raise
        except OSError as error:
            if is_timeout(error):
                raise
            raise lost(error) from error
        conversation.check()
        return conversation.response

    async def _hand_over(self, head: Response | None, received: bytes, body: Body | None) -> Link:
        assert self._connection is not None
        connection, self._connection, self._conversation = self._connection, None, None
        link = Link(connection, head, received, body)
        await link.connect()
        return link


@asynccontextmanager
async def _until(deadline: Deadline) -> AsyncIterator[None]:
    """Raise TimeoutError where it takes longer."""
    limit = asyncio.timeout(deadline.left())
    try:
        async with limit:
            yield
    except TimeoutError:
        if limit.expired():
            raise TimeoutError(TOO_LATE) from None
        raise
