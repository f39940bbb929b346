"""What the blocking and the asyncio shell share: what an Engine can be asked, and what a Session is."""

from __future__ import annotations

import math
import time
import warnings
from typing import TYPE_CHECKING, Any, Generic, TypedDict, TypeVar

from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..protocol import DEFAULT_MAX_FRAME_SIZE, Truncated
from . import calls
from .dial import ending

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from typing import Literal

    from ..ingest.following import Following, Until
    from ..ingest.resume import Checkpoint
    from .calls import Api, Flow, Opened
    from .endpoint import Endpoint
    from .handshake import Conversation
    from .parameters import Moment

__all__ = ["DEFAULT_TIMEOUT", "PER_STEP", "TOO_LATE", "Deadline", "EngineBase", "LineOptions", "RunBase", "SessionBase"]

#: Seconds for connecting, and for each answer that is not a stream.
DEFAULT_TIMEOUT = 60.0

#: In place of seconds for the whole of a flow: each step has the engine's timeout. No caller's -1 is taken for it.
PER_STEP = -math.inf

TOO_LATE = "the engine did not answer in time"

S = TypeVar("S")  # what opens a session: the session itself, or what can be awaited for it
F = TypeVar("F")  # what follows a log
G = TypeVar("G")  # what gathers logs


class EngineBase(Generic[S, F, G]):
    """A container engine. It holds no connection: each call makes its own."""

    def __init__(self, endpoint: Endpoint, api: Api, *, auth: Any, timeout: float | None) -> None:
        self._endpoint = endpoint
        self._api = api
        self._auth = auth
        self._timeout = timeout

    def __repr__(self) -> str:
        return f"<Engine {self.host} API {self.api_version}>"

    def _open(self, flow: Flow[Opened], max_frame_size: int | None, truncated: Truncated) -> S:
        raise NotImplementedError

    def _follow(self, following: Following) -> F:
        raise NotImplementedError

    def _gather(self, names: Sequence[str], **options: Any) -> G:
        raise NotImplementedError

    @property
    def host(self) -> str:
        """The engine's address."""
        return str(self._endpoint)

    @property
    def api_version(self) -> str:
        """The version of the API that is spoken, such as "1.41"."""
        return "{}.{}".format(*self._api.version)

    @property
    def is_podman(self) -> bool:
        """Say whether it is Podman."""
        return self._api.podman is not None

    def attach(
        self,
        container: str,
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        stream: bool = True,
        logs: bool = False,
        detach_keys: str | None = None,
        start: bool = False,
        via: Literal["hijack", "websocket"] = "hijack",
        tty: bool | None = None,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        truncated: Truncated = "error",
    ) -> S:
        """Attach to a container that runs, or has not run yet.

        Args:
            container: name or id.
            stdin: whether what is written reaches the container's stdin.
            stdout, stderr: which streams are wanted. Of the output so far Podman sends both, whatever is asked.
            stream: the output from now on.
            logs: the output so far, first.
            detach_keys: that end the session and leave the container running, such as "ctrl-p,ctrl-q".
            start: start the container, once the engine has attached to it: nothing of its output is missed.
            via: "websocket" goes through what passes nothing else; stdout and stderr come merged, as stdout.
            tty: whether the container has a TTY; None asks the engine. Where it is given nothing is asked, and nothing
                is known of the container's state.
            max_frame_size: largest frame that iteration holds in memory, in bytes.
            truncated: what an end inside a frame is: "error" raises, "ignore" ends.

        Raises:
            NotFoundError: no such container.
            ConflictError: it has exited (an engine would wait for its next start), or is paused.
            BadRequestError: bad detach keys, or something this API does not know.
            EngineError, HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
        """
        flow = calls.attach(
            self._api,
            container,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            stream=stream,
            logs=logs,
            detach_keys=detach_keys,
            start=start,
            via=via,
            tty=tty,
        )
        return self._open(flow, max_frame_size, truncated)

    def exec(
        self,
        container: str,
        command: str | Sequence[str],
        *,
        stdin: bool = False,
        stdout: bool = True,
        stderr: bool = True,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        env: Mapping[str, str] | Iterable[str] | None = None,
        user: str = "",
        workdir: str | None = None,
        privileged: bool = False,
        detach_keys: str | None = None,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        truncated: Truncated = "error",
    ) -> S:
        """Run a command in a container that runs.

        A command that cannot be run is no error here: the engine says so in the output; the exit code is 126 or 127.

        Args:
            container: name or id.
            command: words, or one string that is split as a shell would.
            stdin, stdout, stderr: which streams are wanted.
            tty: give the command a TTY: its output is then one stream, not framed.
            size: height and width of that TTY, in characters.
            env: variables, a mapping or "NAME=value" strings.
            user: name or id, with a group if wanted: "user:group".
            workdir: the directory to run it in.
            privileged: with all capabilities.
            detach_keys: as for `attach`.
            max_frame_size, truncated: as for `attach`.

        Raises:
            NotFoundError: no such container.
            ConflictError: it does not run, or is paused.
            EngineError, HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
        """
        flow = calls.exec_(
            self._api,
            container,
            command,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            tty=tty,
            size=size,
            env=env,
            user=user,
            workdir=workdir,
            privileged=privileged,
            detach_keys=detach_keys,
        )
        return self._open(flow, max_frame_size, truncated)

    def logs(
        self,
        name: str,
        *,
        of: Literal["container", "service", "task"] = "container",
        stdout: bool = True,
        stderr: bool = True,
        follow: bool = False,
        since: Moment | None = None,
        until: Moment | None = None,
        tail: int | str = "all",
        timestamps: bool = False,
        details: bool = False,
        tty: bool | None = None,
        max_frame_size: int | None = DEFAULT_MAX_FRAME_SIZE,
        truncated: Truncated = "error",
    ) -> S:
        """Read the log of a container, a service or a task.

        Args:
            name: name or id.
            of: what the name is one of.
            stdout, stderr: which streams are wanted.
            follow: go on with what is written from now on.
            since, until: moments: a datetime (naive: local time), a timedelta (before now), seconds since the epoch, or
                text: RFC 3339, or a duration before now such as "10m". `since` is inclusive.
            tail: how many lines of the end, or "all".
            timestamps: each message begins with its time.
            details: each message carries the labels and variables that the log driver was told to add.
            tty: as for `attach`.
            max_frame_size, truncated: as for `attach`.

        Raises:
            NotFoundError: no such container, service or task.
            EngineError, HandshakeError, ConnectionLostError, TimeoutError: it could not be done.
            TypeError, ValueError: a moment is none.
        """
        flow = calls.logs(
            self._api,
            name,
            of=of,
            stdout=stdout,
            stderr=stderr,
            follow=follow,
            since=since,
            until=until,
            tail=tail,
            timestamps=timestamps,
            details=details,
            tty=tty,
        )
        return self._open(flow, max_frame_size, truncated)

    def follow(
        self,
        container: str,
        *,
        checkpoint: Checkpoint | str | None = None,
        since: Moment | None = None,
        tail: int | str = "all",
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
        until: Until = "removed",
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> F:
        """Read the lines of a container's log for ever: across restarts of engine and container, and lost connections.

        Each line comes once, and those of a stream in their order: docs/ingestion.md says what this rests on.

        Args:
            container: name or id.
            checkpoint: where to go on: a Follower's `checkpoint`, or its text. Then `since` and `tail` do not matter.
            since, tail, stdout, stderr, details: as for `logs`. `tail` holds until a line has come.
            until: when iteration ends: "exited": once the container has stopped, "removed": once it is gone, "end":
                where the log ends now, None: never: a container of the same name that takes its place is followed from
                its beginning.
            max_line_size: largest line in bytes; a longer one comes in pieces. A checkpoint counts pieces: go on with
                the same.

        Returns:
            A Follower: an iterator of Line, with timestamps. Nothing is asked of the engine before the first is wanted.

        Raises:
            NotFoundError: by iteration: there is no such container.
            CheckpointError: by iteration, where it is not None: it is another container than the checkpoint's. At once,
                where the text is no checkpoint.
            EngineError: by iteration: the engine cannot read this log, or failed to answer again and again.
            DaemonError, FramingError: by iteration: the log cannot be read where it was read before.
            TypeError, ValueError: since, tail, until or max_line_size is none.
        """
        from ..ingest.following import Following

        following = Following(
            container,
            checkpoint=checkpoint,
            since=since,
            tail=tail,
            stdout=stdout,
            stderr=stderr,
            details=details,
            until=until,
            max_line_size=max_line_size,
        )
        return self._follow(following)

    def gather(
        self,
        *names: str,
        labels: Mapping[str, str] | Sequence[str] = (),
        checkpoints: Mapping[str, Checkpoint | str] | None = None,
        since: Moment | None = None,
        tail: int | str = "all",
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
        until: Literal["end", "exited"] | Moment | None = None,
        stopped: bool = False,
        max_bytes: int = 64 * 1024 * 1024,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
    ) -> G:
        """Read the lines of many containers at once, as they come and go.

        Each container is followed as by `follow`: what holds for its lines holds here. They come in the order in which
        containers had something to say, a piece of each at a time, so that none keeps another waiting. Who takes no
        lines holds all of them up.

        Args:
            names: names, or ids (twelve digits or more), of the containers that are wanted, now or once they are there.
                Without any: all.
            labels: that they all have: a mapping, or "name" or "name=value".
            checkpoints: where to go on: a gathering's `checkpoints`, or their texts. These containers' logs are read
                even if they have stopped meanwhile.
            since, tail, stdout, stderr, details, max_line_size: as for `follow`, for each container without a
                checkpoint. `tail` is for those that run at the beginning; of others the whole log is read, or from
                their start on where `tail` is given.
            until: when iteration ends: "exited": once none of them runs, "end": where their logs end now, a moment (as
                for `logs`): once it is past and all up to then has come, None: never.
            stopped: read the logs of those, too, that do not run.
            max_bytes: of what has been received and not been taken, for all of them; 4 KiB for each can be added.

        Returns:
            A Gathering: an iterator of (Source, Line). Nothing is asked of the engine before the first is wanted.

        Raises:
            EngineError: by iteration: the engine does not tell which containers there are. What goes wrong with one
                container is in its Source's `error`, and in the log.
            CheckpointError: at once: the text is none.
            TypeError, ValueError: an argument is wrong.
        """
        return self._gather(
            names,
            labels=labels,
            checkpoints=checkpoints,
            since=since,
            tail=tail,
            stdout=stdout,
            stderr=stderr,
            details=details,
            until=until,
            stopped=stopped,
            max_bytes=max_bytes,
            max_line_size=max_line_size,
        )


class RunBase:
    """What performs the steps of one flow, on one connection as long as that is possible.

    Args:
        endpoint: the engine's; None where every Open names its own.
        auth: see `connect`.
        step_timeout: seconds for each exchange.
        timeout: seconds for the whole; PER_STEP: as long as the steps take.
    """

    def __init__(
        self, endpoint: Endpoint | None, auth: Any, step_timeout: float | None, timeout: float | None = PER_STEP
    ) -> None:
        self._endpoint = endpoint
        self._auth = auth
        self._step_timeout = step_timeout
        self._deadline = None if timeout == PER_STEP else Deadline(timeout)
        self._connection: Any = None  # the shell's own kind
        self._conversation: Conversation | None = None

    def close(self) -> None:
        """Close what has not been handed over."""
        if self._connection is not None:
            self._connection.close()
        self._connection = self._conversation = None


class Deadline:
    """A point in time that one exchange must not go beyond."""

    def __init__(self, timeout: float | None) -> None:
        timeout = ending(timeout)
        self._end = None if timeout is None else time.monotonic() + timeout

    def left(self) -> float | None:
        """Return the seconds that are left; None: any number.

        Raises:
            TimeoutError: none are.
        """
        if self._end is None:
            return None
        left = self._end - time.monotonic()
        if left <= 0:
            raise TimeoutError(TOO_LATE)
        return left


class LineOptions(TypedDict):
    """Arguments of `muxframe.lines` and others that a stream decides."""

    raw: bool
    timestamps: bool
    details: bool


class SessionBase:
    """One stream of an engine's.

    Attributes:
        tty: whether the container, or the command, has a TTY.
        stream_type: "multiplexed", or "raw" where everything comes as stdout: of a TTY, or merged.
        exit_code: of an exec, known once its output has ended; of an attach, after `wait`. None before.
        closes_stdin: whether `close_stdin` reaches the other end and the output goes on; None where nobody knows, or
            there is no stdin anyway.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._way: str | None = None  # in which it is read
        self._is_over = False
        self._has_closed_stdin = False
        self.tty: bool = opened.is_tty
        self.stream_type: Literal["multiplexed", "raw"] = "raw" if opened.is_raw else "multiplexed"
        self.exit_code: int | None = None
        self.closes_stdin: bool | None = opened.closes_stdin

    def __repr__(self) -> str:
        state = "closed" if self.closed else "open"
        return f"<Session {self._opened.path} {self.stream_type} {state}>"

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        raise NotImplementedError

    @property
    def line_options(self) -> LineOptions:
        """What `muxframe.lines` and others have to be told of this stream: raw, timestamps and details."""
        opened = self._opened
        return {"raw": opened.is_raw, "timestamps": opened.has_timestamps, "details": opened.has_details}

    def _choose(self, way: str) -> None:
        if self._way not in (None, way):
            raise RuntimeError(f"this session is read as {self._way} already: choose one way")
        self._way = way

    def _check_stdin(self) -> None:
        if not self._opened.has_stdin:
            raise ValueError("this session has no stdin: ask for it with stdin=True")
        if self.closed or self._has_closed_stdin:
            raise ValueError("stdin is closed")

    def _begin_close_stdin(self) -> bool:
        """Check whether stdin can be closed, and say what that will do; return whether it is to be done."""
        if self._has_closed_stdin:
            return False
        self._check_stdin()
        self._opened.check_half_close()
        if self.closes_stdin is False:
            warnings.warn(calls.HALF_CLOSE_ENDS, RuntimeWarning, stacklevel=3)
        self._has_closed_stdin = True
        return True
