"""What the blocking and the asyncio shell share: what a Runtime can be asked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, TypeVar

from ..protocol import DEFAULT_MAX_FRAME_SIZE, Truncated
from . import calls

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine.calls import Opened
    from ..engine.endpoint import Endpoint
    from .calls import Api

__all__ = ["RuntimeBase"]

S = TypeVar("S")  # what opens a session: the session itself, or what can be awaited for it


class RuntimeBase(Generic[S]):
    """A container runtime. It holds no connection: each call makes its own."""

    _api: Api

    def __init__(self, endpoint: Endpoint | None, timeout: float | None) -> None:
        self._endpoint = endpoint  # None: there are only streams, whose addresses are known
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Runtime {self.host} {' '.join(self._api.version)}>"

    def _open(self, flow: calls.Flow[Opened], max_frame_size: int | None, truncated: Truncated) -> S:
        raise NotImplementedError

    @property
    def host(self) -> str:
        """The runtime's address."""
        return str(self._endpoint)

    def attach(
        self,
        container: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool | None = None,
        tty: bool | None = None,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        truncated: Truncated = "error",
    ) -> S:
        """Attach to a container that runs.

        What the container has written before is not seen. The session ends where the container does; `Session.wait`
        asks the runtime for the exit code.

        Args:
            container: id, or the beginning of one.
            stdin: whether what is written reaches the container's stdin.
            stdout, stderr: which streams are wanted. A TTY has no stderr; None asks for it where there is one.
            tty: whether the container has a TTY; None asks the runtime, and iSulad does not tell.
            max_frame_size: largest message that iteration holds in memory, in bytes.
            truncated: as for `Engine.attach`; messages are never cut.

        Raises:
            NotFoundError: no such container.
            ConflictError: it does not run.
            BadRequestError: no stream is asked for, or stderr of a TTY; the runtime does not tell whether there is one.
            EngineError, HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
        """
        flow = calls.attach(self._api, container, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty)
        return self._open(flow, max_frame_size, truncated)

    def exec(
        self,
        container: str,
        command: str | Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool | None = None,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        truncated: Truncated = "error",
    ) -> S:
        """Run a command in a container that runs.

        The exit code comes behind the output: `Session.exit_code` has it when that has been read. A command that cannot
        be run is a DaemonError at the end of the output.

        Args:
            container: id, or the beginning of one.
            command: words, or one string that is split as a shell would.
            stdin, stdout, stderr, max_frame_size, truncated: as for `attach`.
            tty: give the command a TTY.
            size: height and width of that TTY, in characters.

        Raises:
            NotFoundError: no such container.
            ConflictError: it does not run.
            BadRequestError: no stream is asked for, or stderr of a TTY.
            EngineError, HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
        """
        flow = calls.exec_(
            self._api, container, command, stdin=stdin, stdout=stdout, stderr=stderr, tty=tty, size=size
        )
        return self._open(flow, max_frame_size, truncated)
