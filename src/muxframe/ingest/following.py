"""What following a container's log consists of, step by step, for the blocking and the asyncio shell: no I/O.

`Following.steps` is a generator. It yields what is to be done next, and is sent what came of it, or thrown what went
wrong:

    Ask(flow, ...)    -> what the flow returns      one of engine/calls.py, and its arguments behind the engine's Api
    Receive(link)     -> bytes                      the next of a stream, as they come; none at its end
    Pause(seconds)    -> None
    a list of Lines   -> None                       new ones, for the caller: sent once all of them are taken
"""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Union

from .._lines import Line, LineSplitter
from .._lines_py import DEFAULT_MAX_LINE_SIZE
from ..engine import calls
from ..engine.parameters import moment, moment_at, nanoseconds, tail_of
from ..errors import (
    CheckpointError,
    ConflictError,
    ConnectionLostError,
    DaemonError,
    EngineError,
    FramingError,
    HandshakeError,
    NotFoundError,
)
from .resume import Checkpoint, Repeats, Replay

if TYPE_CHECKING:
    from ..engine.calls import Api, Flow, Opened
    from ..engine.parameters import Moment

__all__ = ["Ask", "Backoff", "Following", "Pause", "Receive", "Step", "Until"]

#: When a log is at its end: never, where it ends now, once its container has stopped, or once that is removed.
Until = Literal["end", "exited", "removed", None]

#: How often in a row an engine may fail to answer a request (500) before that is the answer.
PATIENCE = 5

_logger = logging.getLogger("muxframe.ingest")


@dataclass(frozen=True, slots=True)
class Ask:
    """Perform a flow."""

    flow: Callable[..., Flow[Any]]
    arguments: tuple[Any, ...]

    def begin(self, api: Api) -> Flow[Any]:
        """Return the flow, for an engine."""
        return self.flow(api, *self.arguments)


@dataclass(frozen=True, slots=True)
class Receive:
    """Receive from a stream."""

    link: Any


@dataclass(frozen=True, slots=True)
class Pause:
    """Wait."""

    seconds: float


Step = Union[Ask, Receive, Pause, list[Line]]


class Backoff:
    """How long to wait: twice as long each time, up to a limit, and never as long as the neighbour.

    Args:
        first, longest: seconds.
        jitter: returns numbers of 0 to 1.
    """

    def __init__(self, first: float = 0.1, longest: float = 5.0, jitter: Callable[[], float] = random.random) -> None:
        self._first = first
        self._longest = longest
        self._jitter = jitter
        self._next = first

    def reset(self) -> None:
        """Begin with the shortest time again."""
        self._next = self._first

    def delay(self) -> float:
        """Return the seconds to wait now."""
        longest, self._next = self._next, min(self._next * 2, self._longest)
        return longest * (0.5 + self._jitter() / 2)


class Following:
    """The log of one container, across whatever happens to the engine, the connection and the container.

    Args: as for `muxframe.follow`; before: only lines up to that moment; backoff: how long to wait before asking again.

    Attributes:
        checkpoint: behind the lines that were taken; None before the container is known.
        gaps: how often lines were missing: see `muxframe.follow`.
    """

    def __init__(
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
        before: Moment | None = None,
        max_line_size: int = DEFAULT_MAX_LINE_SIZE,
        backoff: Backoff | None = None,
    ) -> None:
        if until not in ("end", "exited", "removed", None):
            raise ValueError(f'until must be "end", "exited", "removed" or None, not {until!r}')
        self.name = container
        self.checkpoint = Checkpoint.from_str(checkpoint) if isinstance(checkpoint, str) else checkpoint
        self.gaps: int = 0
        self._since = 0 if since is None else nanoseconds(since)
        self._tail = tail_of(tail) if checkpoint is None else "all"
        self._wanted = stdout, stderr, details
        self._until = until
        self._before = None if before is None else moment(before)
        self._max_line_size = max_line_size
        self._backoff = backoff or Backoff()
        self._is_known = False  # the container was seen
        self._unfinished: Sequence[Line] = ()  # lines that a connection's end has cut off
        self._done: tuple[str, str] | None = None  # the run whose log was read to its end
        self._refusals = 0  # of the engine's to answer, in a row
        self._is_faulty = False  # the stream had an error, and nothing new came since
        LineSplitter(max_line_size=max_line_size)  # raises what it does not take

    def steps(self) -> Generator[Step, Any, None]:
        """Go on for ever, or until the end.

        Raises:
            NotFoundError: there is no such container.
            CheckpointError: it is another one than the checkpoint's.
            EngineError, DaemonError, FramingError: asking again does not help.
        """
        while (yield from self._read_once()):
            yield Pause(self._backoff.delay())

    def finish(self) -> None:
        """Read on to where the log ends now, and no further. A link that follows it is to be closed by the shell."""
        self._until = "end"

    def _read_once(self) -> Generator[Step, Any, bool]:
        """Look at the container, and read what there is of its log; return whether there may be more."""
        try:
            phase, run, is_tty = yield from self._look()
            if phase != "running" and run == self._done:
                return self._until != "end"
            is_all = yield from self._read(phase == "running" and self._until != "end", is_tty)
        except NotFoundError:
            if self._until is not None and not self._is_known:
                raise
            yield from self._deliver_unfinished()
            self._is_known, self._done = False, None
            return self._until is None
        except (ConnectionLostError, TimeoutError, EngineError) as error:
            self._consider(error)
            return True
        if is_all and phase != "running":
            yield from self._deliver_unfinished()
            self._done = run
        return not (is_all and (self._until == "end" or (self._until == "exited" and phase == "stopped")))

    def _look(self) -> Generator[Step, Any, tuple[str, tuple[str, str] | None, bool]]:
        """See whether the container is the right one; return its phase, its run, once that is over, and if on a TTY."""
        name = self.checkpoint.container if self.checkpoint is not None and self._is_known else self.name
        info = yield Ask(calls.inspect, (name,))
        container = name if info.get("Id") == name else calls.id_of(info)
        if self.checkpoint is None:
            self.checkpoint = Checkpoint(container, self._since)
        elif self.checkpoint.container != container:
            if self._until is not None:
                other = self.checkpoint.container[:12]
                raise CheckpointError(f"container {self.name} is {container[:12]}, and the checkpoint is of {other}")
            self.checkpoint = Checkpoint(container)
        self._is_known = True
        phase = calls.phase(info)
        return phase, None if phase == "running" else calls.run_of(info), calls.has_tty(info)

    def _logs(self, api: Api, container: str, since: int, follow: bool, is_tty: bool) -> Flow[Opened]:
        stdout, stderr, details = self._wanted
        return calls.logs(
            api,
            container,
            of="container",
            follow=follow,
            since=moment_at(since) if since else None,
            until=self._before,
            tail=self._tail,
            timestamps=True,
            stdout=stdout,
            stderr=stderr,
            details=details,
            tty=is_tty,
            is_http10=follow,
        )

    def _consider(self, error: Exception) -> None:
        """Raise what will not be another time; otherwise it may get better."""
        if isinstance(error, EngineError) and not isinstance(error, (HandshakeError, ConflictError)):
            self._refusals += 1
            if error.status not in (500, 502, 503, 504) or (error.status == 500 and self._refusals > PATIENCE):
                raise error
        _logger.info("%s: %s", self.name, error)

    def _read(self, follow: bool, is_tty: bool) -> Generator[Step, Any, bool]:
        """Read the log to its end; return whether that certainly is all of it.

        Over HTTP/1.0 an engine's end of a log looks like that of the engine, but frames come at once, without a chunk
        around each: so it is followed. After that the log of a container that has stopped is read once more, from near
        its end, over HTTP/1.1.
        """
        checkpoint = self.checkpoint
        assert checkpoint is not None
        since = checkpoint.resume_since(self._unfinished)
        opened = yield Ask(self._logs, (checkpoint.container, since, follow, is_tty))
        splitter = LineSplitter(
            raw=opened.is_raw, timestamps=True, details=opened.has_details, max_line_size=self._max_line_size
        )
        replay = Replay(checkpoint, since)
        repeats = Repeats() if opened.has_repeats else None
        link = opened.link
        if follow and self._until == "end":  # since it was asked for
            link.close()
            return False
        del opened, checkpoint, since  # this may be here for a long time, and there may be thousands
        has_new = False
        is_whole = False
        try:
            while data := (yield Receive(link)):
                self._refusals = 0
                fault = None
                try:
                    lines = splitter.feed(data)
                except (DaemonError, FramingError) as error:
                    fault, lines = error, _finished(error.lines)
                if repeats is not None:
                    lines = repeats.new(lines)
                if fresh := replay.new(lines):
                    has_new = True
                    self._is_faulty = False
                    self._note_gap(replay)
                    yield from self._deliver(fresh)
                if fault is not None and self._is_faulty:  # it will come again
                    raise fault
                if fault is not None:  # Podman says so, too, that a container was removed just now
                    self._is_faulty = True
                    _logger.info("%s: %s", self.name, fault)
                    return False
                del data, lines, fresh
            self._is_faulty = False
        finally:
            link.close()
            try:
                unfinished = splitter.feed_eof()
                is_whole = True
            except (DaemonError, FramingError) as error:
                unfinished = error.lines
            self._unfinished = replay.finish(unfinished)
            if has_new:
                self._backoff.reset()
        if is_whole and not follow:
            self._note_gap(replay)
        return is_whole and not follow

    def _deliver(self, lines: list[Line]) -> Generator[Step, Any, None]:
        if lines:
            assert self.checkpoint is not None
            if self._tail != "all":
                self.checkpoint = self.checkpoint.begun(lines[0])
                self._tail = "all"
            yield lines
            self.checkpoint = self.checkpoint.after(lines)

    def _deliver_unfinished(self) -> Generator[Step, Any, None]:
        """There is no more to come of them."""
        unfinished, self._unfinished = list(self._unfinished), ()
        yield from self._deliver(unfinished)

    def _note_gap(self, replay: Replay) -> None:
        if replay.has_gap:
            replay.has_gap = False
            self.gaps += 1
            _logger.warning("%s: lines are missing: its log was rotated away", self.name)


def _finished(lines: list[Line]) -> list[Line]:
    """Leave out what a fault has cut off."""
    while lines and lines[-1].partial:
        lines = lines[:-1]
    return lines
