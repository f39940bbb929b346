"""`follow`, blocking: lines of one container's log, for ever. What is done, and in which order, says following.py."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from ..engine import calls
from ..engine.dial import ending
from ..engine.session import RECEIVE_SIZE, is_timeout
from .following import Ask, Following, Pause, Receive, Step

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from typing import Self

    from .._lines_py import Line
    from ..engine.client import Engine
    from .resume import Checkpoint

__all__ = ["Follower", "FollowerBase"]

#: Seconds between reads of less than this: engines write each message by itself.
DELAY = calls.LOG_DELAY
SMALL = RECEIVE_SIZE // 2

TOO_LATE = "no line came in time"


class FollowerBase:
    """What the blocking and the asyncio Follower share: steps to do, and lines that wait to be taken.

    Attributes:
        timeout: seconds to wait for a line; None, as at first: for ever.
    """

    def __init__(self, following: Following) -> None:
        self.timeout: float | None = None
        self._following = following
        self._steps: Generator[Step, Any, None] = following.steps()
        self._step: Step | None = None  # to be done; None: the caller takes lines
        self._batch: Sequence[Line] = ()
        self._index = 0  # in it, of the next line
        self._is_closed = False
        self._has_ended = False
        self._fault: BaseException | None = None

    @property
    def name(self) -> str:
        """The container's name or id, as it was asked for."""
        return self._following.name

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where this is: right behind the last line that was handed out. None before the container was found."""
        checkpoint = self._following.checkpoint
        return None if checkpoint is None else checkpoint.after(self._batch[: self._index])

    @property
    def gaps(self) -> int:
        """How often lines were missing, because the log had been rotated away where this had got to."""
        return self._following.gaps

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._is_closed

    def __repr__(self) -> str:
        return f"<Follower of {self.name} {'closed' if self.closed else 'open'}>"

    def _has_lines(self) -> bool:
        """Make the step's lines those to be taken, if it has any."""
        if not isinstance(self._step, list):
            return False
        self._batch, self._index, self._step = self._step, 0, None
        return True

    def _begin(self) -> Step | None:
        """Return the step to be done now; None at the end."""
        if self._fault is not None:
            raise self._fault
        if self._step is None and not self._is_over:
            self._batch, self._index = (), 0
            self._go_on(None)
        return None if self._is_over else self._step

    def _go_on(self, result: Any, error: BaseException | None = None) -> None:
        """Say what came of a step, and find out what is next."""
        try:
            self._step = self._steps.send(result) if error is None else self._steps.throw(error)
        except StopIteration:
            self._has_ended = True
        except BaseException as fault:
            self._fault = fault
            raise

    @property
    def _is_over(self) -> bool:
        return self._is_closed or self._has_ended

    @property
    def _waiting(self) -> bool:
        """Say whether there are lines to be taken."""
        return self._index < len(self._batch)

    def _take(self) -> Line:
        line = self._batch[self._index]
        self._index += 1
        return line

    def _take_all(self) -> list[Line]:
        lines = list(self._batch[self._index :])
        self._index = len(self._batch)
        return lines


class Follower(FollowerBase):
    """The lines of a container's log: what `follow` returns. An iterator, and a context manager.

    A timeout leaves it as it was: go on. After any other error it stays failed; its checkpoint is where it was.
    """

    def __init__(self, engine: Engine, following: Following) -> None:
        super().__init__(following)
        self._engine = engine
        self._buffer = memoryview(bytearray(RECEIVE_SIZE))
        self._was_small = False
        self._closing = threading.Event()
        self._asking: _Asking | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Line:
        """Return the next line.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            NotFoundError, CheckpointError, EngineError, DaemonError, FramingError: see `follow`.
        """
        if not self._waiting and not self._load():
            raise StopIteration
        return self._take()

    def read(self) -> list[Line]:
        """Return all lines that are there, waiting for the first; none at the end. Raises what iteration raises."""
        return self._take_all() if self._waiting or self._load() else []

    def _load(self) -> bool:
        """Go on until there are lines; return False at the end."""
        timeout = ending(self.timeout)
        end = None if timeout is None else time.monotonic() + timeout
        while (step := self._begin()) is not None:
            if self._has_lines():
                return True
            try:
                result = self._perform(step, None if end is None else end - time.monotonic())
            except _TimeIsOverError:
                raise TimeoutError(TOO_LATE) from None
            except Exception as error:
                self._go_on(None, error)
            else:
                if self._is_closed:
                    discard(result)
                else:
                    self._go_on(result)
        return False

    def _perform(self, step: Step, left: float | None) -> Any:
        if isinstance(step, Ask):
            return self._ask(step, left)
        if left is not None and left <= 0:
            raise _TimeIsOverError
        if isinstance(step, Receive):
            return self._receive(step.link, left)
        assert isinstance(step, Pause)
        seconds = step.seconds if left is None else min(step.seconds, left)
        self._closing.wait(seconds)
        if seconds < step.seconds:
            self._step = Pause(step.seconds - seconds)
            raise _TimeIsOverError
        return None

    def _ask(self, step: Ask, left: float | None) -> Any:
        if self._asking is None:
            self._asking = _Asking(self, step)
            self._asking.start()
        asking = self._asking
        if not self._is_closed and not asking.is_over.wait(left):
            raise _TimeIsOverError  # and it goes on
        self._asking = None
        try:
            if asking.error is not None:
                raise asking.error
            return asking.result
        finally:
            del asking  # the error knows this frame

    def _receive(self, link: Any, left: float | None) -> memoryview:
        if self._was_small:
            time.sleep(DELAY)
        try:
            link.connection.settimeout(left)
            size = link.readinto(self._buffer)
        except (OSError, ValueError) as error:
            if is_timeout(error):
                raise _TimeIsOverError from None
            if self._is_closed:
                return self._buffer[:0]
            raise
        self._was_small = 0 < size < SMALL
        return self._buffer[:size]

    def close(self) -> None:
        """Close the connection. What waits for a line in another thread ends at once."""
        self._is_closed = True
        self._closing.set()
        step, asking = self._step, self._asking
        if asking is not None:
            asking.leave()
        if isinstance(step, Receive):
            step.link.close()


class _Asking(threading.Thread):
    """A request, in a thread of its own: nobody waits for the answer who has given up waiting, or was closed.

    Attributes:
        is_over: it is answered, or nobody wants to know.
        result, error: the answer.
    """

    def __init__(self, follower: Follower, step: Ask) -> None:
        super().__init__(name="muxframe.follow", daemon=True)
        self.is_over = threading.Event()
        self.result: Any = None
        self.error: BaseException | None = None
        self._follower = follower
        self._step = step

    def run(self) -> None:
        engine = self._follower._engine
        try:
            self.result = engine._run(self._step.begin(engine._api))
        except BaseException as error:
            self.error = error
        if self._follower.closed:
            discard(self.result)
        self.is_over.set()

    def leave(self) -> None:
        """The follower is closed."""
        discard(self.result)
        self.is_over.set()


def discard(result: Any) -> None:
    """Close what a step has opened for nobody."""
    if isinstance(result, calls.Opened):
        result.close()


class _TimeIsOverError(Exception):
    """No line came in time."""
