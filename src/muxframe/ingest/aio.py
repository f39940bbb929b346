"""`follow` on asyncio: as follow.py, but that nothing blocks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from ..engine.session import RECEIVE_SIZE
from .follow import DELAY, SMALL, TOO_LATE, FollowerBase, discard
from .following import Ask, Following, Pause, Receive

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from typing_extensions import Buffer

    from .._lines_py import Line
    from ..engine.aio import Engine

__all__ = ["Follower", "Room"]

#: Bytes that a connection may receive at once where there is no room left: so that none stands still.
LEAST = 4 * 1024


class Room:
    """The memory that connections share for what they have received and nobody has taken yet, in bytes.

    There is always a little more: LEAST for each of them.
    """

    def __init__(self, size: int) -> None:
        self.left = size

    def next_size(self) -> int:
        """Return how much may be received now."""
        return max(LEAST, min(self.left, RECEIVE_SIZE))


class Follower(FollowerBase):
    """The lines of a container's log: what `muxframe.aio.follow` returns.

    An asynchronous iterator and context manager; otherwise as the blocking Follower. A read that is cancelled, or times
    out, has taken nothing.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Engine]],
        following: Following,
        room: Room | None = None,
    ) -> None:
        super().__init__(following)
        self._connect = connect
        self._engine: Engine | None = None
        self._room = room
        self._inbox: _Inbox | None = None
        self._task: asyncio.Task[Any] | None = None  # does the step

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        if self._inbox is not None:
            await self._inbox.link.wait_closed()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Line:
        """Return the next line. Raises what the blocking Follower raises."""
        if not self._waiting and not await self._load():
            raise StopAsyncIteration
        return self._take()

    async def read(self) -> list[Line]:
        """Return all lines that are there, waiting for the first; none at the end. Raises what iteration raises."""
        return self._take_all() if self._waiting or await self._load() else []

    async def _load(self) -> bool:
        """Go on until there are lines; return False at the end."""
        try:
            async with asyncio.timeout(self.timeout) as limit:
                return await self._run()
        except TimeoutError:
            if limit.expired():
                raise TimeoutError(TOO_LATE) from None
            raise

    async def _run(self) -> bool:
        """Go on until there are lines, however long it takes."""
        if self._engine is None:
            self._engine = await self._connect()
        while (step := self._begin()) is not None:
            if self._has_lines():
                return True
            try:
                if isinstance(step, Receive):
                    result: Any = await self._inbox_of(step.link).take()
                else:
                    result = await self._do(step)  # type: ignore[arg-type]
            except Exception as error:
                self._go_on(None, error)
            else:
                if self._is_closed:
                    discard(result)
                else:
                    self._go_on(result)
                result = None  # it may be large, and the next step may take long
        return False

    def _inbox_of(self, link: Any) -> _Inbox:
        if self._inbox is None or self._inbox.link is not link:
            if self._inbox is not None:
                self._inbox.leave()
            self._inbox = _Inbox(link, self._room)
            link.start_reading(self._inbox)
        return self._inbox

    async def _do(self, step: Ask | Pause) -> Any:
        """Do a step in a task: a caller that gives up waiting does not undo it."""
        if self._task is None:
            doing = asyncio.sleep(step.seconds) if isinstance(step, Pause) else self._ask(step)
            self._task = asyncio.get_running_loop().create_task(doing)
        try:
            result = await asyncio.shield(self._task)
        except asyncio.CancelledError:
            if not (self._is_closed and self._task.cancelled()):
                raise
            return None  # `close` has cancelled it
        except Exception:
            self._task = None
            raise
        self._task = None
        return result

    async def _ask(self, step: Ask) -> Any:
        assert self._engine is not None
        return await self._engine._run(step.begin(self._engine._api))

    def close(self) -> None:
        """Close the connection. What waits for a line in another task ends at once."""
        self._is_closed = True
        if self._task is not None:
            self._task.cancel()
            self._task.add_done_callback(_discard)
        if self._inbox is not None:
            self._inbox.leave()


def _discard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled() and task.exception() is None:
        discard(task.result())


class _Inbox:
    """What was received of one stream: a piece, and nothing more is received before that is taken."""

    __slots__ = ("_data", "_error", "_is_over", "_room", "_size", "_transport", "_waiter", "link")

    def __init__(self, link: Any, room: Room | None) -> None:
        self.link = link
        self._room = room
        self._data = b""
        self._size = 0  # of what takes room: what was taken last, too
        self._error: Exception | None = None
        self._is_over = False
        self._transport: Any = None
        self._waiter: asyncio.Future[None] | None = None
        link.room = room

    async def take(self) -> bytes:
        """Return what was received, waiting for some; nothing at the end.

        Raises:
            ConnectionLostError, EngineError: the connection broke, or it was no stream.
        """
        self._account(len(self._data) - self._size)
        while not self._data:
            if self._error is not None:
                raise self._error
            if self._is_over:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        data, self._data = self._data, b""
        if len(data) < SMALL:
            asyncio.get_running_loop().call_later(DELAY, self._resume)
        else:
            self._resume()
        return data

    def leave(self) -> None:
        """Close the connection; what was received is not wanted any more."""
        self._data = b""
        self._account(-self._size)
        self.link.close()

    def _account(self, size: int) -> None:
        self._size += size
        if self._room is not None:
            self._room.left -= size

    def _resume(self) -> None:
        if not (self._data or self._is_over or self._transport.is_closing()):
            self._transport.resume_reading()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # What an engine's Link says to its reader.

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def data_received(self, data: Buffer) -> None:
        piece = bytes(data)
        self._data = self._data + piece if self._data else piece
        self._account(len(piece))
        if not self._transport.is_closing():
            self._transport.pause_reading()
        self._wake()

    def eof_received(self) -> None:
        self.close()

    def connection_lost(self, error: Exception | None) -> None:
        if not self._is_over:
            self._error = error
        self.close()

    def close(self) -> None:
        self._is_over = True
        self._wake()
