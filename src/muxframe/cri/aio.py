"""The asyncio shell: `connect` and `Runtime` under the names, and with the behaviour, of the blocking ones.

grpcio's own asyncio API is not used: its poller serves one event loop of a process well. A future of the blocking API
wakes any.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, TypeVar

from ..engine.aio import Opener, Opening, Run, Session, run_flow
from ..engine.base import DEFAULT_TIMEOUT, PER_STEP, Deadline
from ..engine.endpoint import Attempts
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

__all__ = ["Runtime", "Session", "attach", "connect", "connect_stream", "exec"]

T = TypeVar("T")


def connect(
    endpoint: str | None = None,
    *,
    tls: bool | str | os.PathLike[str] | ssl.SSLContext | None = None,
    timeout: float | None = DEFAULT_TIMEOUT,
) -> Opening[Runtime]:
    """Find a container runtime and agree on the version of the CRI: as `muxframe.cri.connect`, to be awaited."""

    async def open_it() -> Runtime:
        from .rpc import find_endpoints

        attempts = Attempts(ConnectionLostError, TimeoutError, EngineError)
        for each in find_endpoints(endpoint):
            runtime = Runtime(each, timeout)
            with attempts.at(each):
                runtime._api = await runtime._run(calls.negotiate(tls))
                return runtime
        raise attempts.failure()

    return Opening(open_it)


def attach(endpoint: str | None, container: str, **options: Any) -> Opening[Session]:
    """Attach to a container of the runtime that `connect(endpoint)` finds; otherwise as `Runtime.attach`."""

    async def open_it() -> Session:
        return await (await connect(endpoint)).attach(container, **options)

    return Opening(open_it)


def exec(endpoint: str | None, container: str, command: Any, **options: Any) -> Opening[Session]:
    """Run a command in a container of the runtime that `connect(endpoint)` finds; otherwise as `Runtime.exec`."""

    async def open_it() -> Session:
        return await (await connect(endpoint)).exec(container, command, **options)

    return Opening(open_it)


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
) -> Opening[Session]:
    """Open a stream whose address is known: as `muxframe.cri.connect_stream`, to be awaited."""
    flow = calls.stream(url, headers=headers or {}, tls=tls, stdin=stdin, tty=tty)
    return Runtime(None, timeout)._open(flow, max_frame_size, truncated)


class Runtime(Opener, RuntimeBase["Opening[Session]"]):
    """A container runtime: what awaiting `connect` returns. It holds no connection; each call makes its own.

    `attach` and `exec` return what can be awaited, or used with `async with`, for the Session.
    """

    async def version(self) -> Version:
        """Ask what the runtime is: (name, version, api)."""
        return await self._run(calls.version(self._api))

    async def containers(self, *, all: bool = False) -> list[Container]:
        """List the containers that run; all: those that do not, too."""
        return await self._run(calls.containers(self._api, all=all))

    async def _run(self, flow: Flow[T], timeout: float | None = PER_STEP) -> T:
        """Perform a flow: see the blocking Runtime's."""
        return await run_flow(flow, _Run(self._endpoint, self._timeout, timeout))


class _Run(Run):
    """What performs the steps of one flow, calls of gRPC among them."""

    def __init__(self, endpoint: Endpoint | None, step_timeout: float | None, timeout: float | None) -> None:
        super().__init__(None, None, step_timeout, timeout)
        self._runtime = endpoint
        self._caller: Caller | None = None

    async def perform(self, step: Any) -> Any:
        if not isinstance(step, calls.Ask):
            return await super().perform(step)
        from .rpc import Caller, RpcError, refuse

        deadline = self._deadline or Deadline(self._step_timeout)
        if self._caller is None:
            assert self._runtime is not None
            self._caller = Caller(self._runtime)
        call = self._caller.begin(step.path, step.message, deadline.left())
        try:
            await _done(call)
            return call.result()
        except RpcError as error:
            refuse(error, self._caller.endpoint)

    def close(self) -> None:
        super().close()
        if self._caller is not None:
            self._caller.close()
            self._caller = None


async def _done(call: Any) -> None:
    """Wait until a call of grpcio's is done; cancelled, cancel it."""
    loop = asyncio.get_running_loop()
    is_done = asyncio.Event()

    def wake(_: Any) -> None:
        try:
            loop.call_soon_threadsafe(is_done.set)
        except RuntimeError:  # the loop was closed meanwhile
            pass

    call.add_done_callback(wake)
    try:
        await is_done.wait()
    finally:
        call.cancel()  # nothing happens where it is done
