"""`gather`: the lines of many containers at once, as they come and go. The blocking shell runs the asyncio one.

A task follows each container; one more watches which there are. What a container has said waits with its own task until
the caller takes it, in the order in which the containers spoke up: so each holds what one receive gave, no more, and
none can starve another. A container that has stopped costs nothing but its place in a dictionary.
"""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import deque
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import TYPE_CHECKING, Any

from .. import aio as async_sources
from .._lines import LineSplitter
from ..engine import calls
from ..engine.dial import ending
from ..engine.parameters import moment
from ..errors import ConnectionLostError, EngineError, HandshakeError, MuxframeError, NotFoundError, harmless
from .aio import Follower, Room
from .follow import TOO_LATE
from .following import Ask, Backoff, Following, Pause
from .resume import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, Sequence
    from concurrent.futures import Future
    from typing import Literal, Self

    from .._lines_py import Line
    from ..engine.aio import Engine
    from ..engine.parameters import Moment

__all__ = ["AsyncGathering", "Gathering", "Source"]

#: Bytes that may have been received and not been taken yet, for all containers.
DEFAULT_MAX_BYTES = 64 * 1024 * 1024

#: Containers that an engine is asked about at the same time.
CONCURRENCY = 32

#: States of containers, as lists have them.
RUNS = ("running", "paused", "restarting")
NEVER_RAN = ("created", "configured", "initialized")

#: Digits of an id that are shown where it need not be whole.
SHORT_ID_SIZE = 12

_logger = logging.getLogger("muxframe.ingest")


_NO_LABELS: Mapping[str, str] = {}


class Source:
    """A container whose lines are gathered. `str` of it is its name.

    Attributes:
        id: the container's id.
        name: its name.
        labels: its labels.
        error: why its log could not be read any further, or None.
    """

    __slots__ = (
        "_checkpoint",
        "_follower",
        "_is_followed",
        "_is_removed",
        "_is_taken",
        "_started",
        "_starts",
        "error",
        "id",
        "labels",
        "name",
    )

    def __init__(self, info: Mapping[str, Any], checkpoint: Checkpoint | None, started: int | None) -> None:
        self.id: str = info["Id"]
        names: list[str] = [name.removeprefix("/") for name in info.get("Names") or ()]
        self.name: str = min(names, key=lambda name: name.count("/"), default=self.id[:12])  # others are links' names
        self.labels: Mapping[str, str] = info.get("Labels") or _NO_LABELS
        self.error: Exception | None = None
        self._checkpoint = checkpoint
        self._follower: _Member | None = None
        self._is_taken: asyncio.Future[None] | None = None
        self._is_followed = False  # a task does, or will
        self._is_removed = False
        self._started = started  # in seconds since 1970, if it came later than this
        self._starts = 0  # seen so far

    def __str__(self) -> str:
        return self.name

    def __repr__(self) -> str:
        return f"<Source {harmless(self.name)} {self.id[:12]}>"

    @property
    def checkpoint(self) -> Checkpoint | None:
        """Where it is: right behind the last of its lines that was handed out. None before it was found."""
        return self._checkpoint if self._follower is None else self._follower.checkpoint or self._checkpoint


class _Member(Follower):
    """The Follower of one of many: it waits its turn before it asks the engine, and nobody gives up waiting for it."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[Engine]],
        following: Following,
        room: Room,
        gate: asyncio.Semaphore,
    ) -> None:
        super().__init__(connect, following, room)
        self._gate = gate

    def finish(self) -> None:
        """Read on to where the log ends now, and no further."""
        self._following.finish()
        if self._inbox is not None:
            self._inbox.link.close()

    async def _do(self, step: Ask | Pause) -> Any:
        if isinstance(step, Pause):
            return await asyncio.sleep(step.seconds)
        async with self._gate:
            return await self._ask(step)


class AsyncGathering:
    """What `muxframe.aio.gather` returns: an asynchronous iterator of (source, line), and a context manager.

    Args: as for `gather`.

    Attributes:
        timeout: seconds to wait for a line; None, as at first: for ever.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Engine]],
        names: Sequence[str] = (),
        *,
        labels: Mapping[str, str] | Sequence[str] = (),
        checkpoints: Mapping[str, Checkpoint | str] | None = None,
        since: Moment | None = None,
        tail: int | str = "all",
        stdout: bool = True,
        stderr: bool = True,
        details: bool = False,
        until: Literal["end", "exited"] | Moment | None = None,
        stopped: bool = False,
        max_bytes: int = DEFAULT_MAX_BYTES,
        **options: Any,
    ) -> None:
        self.timeout: float | None = None
        self._connect = connect
        self._engine: Engine | None = None
        self._names = tuple(names)
        self._labels = _labels_of(labels)
        self._options: dict[str, Any] = {"stdout": stdout, "stderr": stderr, "details": details, **options}
        self._begin: dict[str, Any] = {"since": None if since is None else moment(since), "tail": tail}
        self._end: float | None = None  # in seconds since 1970
        if until not in ("end", "exited", None):
            self._options["before"] = before = _moment(until)
            self._end, until = float(before), None
        self._until = until
        self._stopped = stopped
        Following("", **self._begin, **self._options)  # raises what it does not take
        self._checkpoints = {
            key: Checkpoint.from_str(value) if isinstance(value, str) else value
            for key, value in (checkpoints or {}).items()
        }
        self._room = Room(max_bytes)
        self._sources: dict[str, Source] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._watching: asyncio.Task[None] | None = None  # one of them
        self._ready: deque[Source] = deque()
        self._current: Source | None = None  # whose lines are being taken
        self._timer: asyncio.TimerHandle | None = None
        self._wakeup: asyncio.Future[None] | None = None
        self._gate = asyncio.Semaphore(CONCURRENCY)
        self._is_listed = False
        self._is_closed = False
        self._fault: Exception | None = None

    @property
    def sources(self) -> list[Source]:
        """The containers there are, stopped ones included."""
        return list(self._sources.values())

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Where each of them is, by its id: to be given to the next `gather`."""
        found = {source.id: source.checkpoint for source in self.sources}
        return self._checkpoints | {id: checkpoint for id, checkpoint in found.items() if checkpoint is not None}

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._is_closed

    # The caller's side.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()
        await self.wait_closed()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> tuple[Source, Line]:
        """Return the next line, and whose it is.

        Raises:
            TimeoutError: none came in `timeout` seconds.
            EngineError: the engine does not tell which containers there are.
        """
        source = self._current
        if source is None or not source._follower._waiting:  # type: ignore[union-attr]
            source = await self._next()
            if source is None:
                raise StopAsyncIteration
        return source, source._follower._take()  # type: ignore[union-attr]

    async def read(self) -> tuple[Source, list[Line]] | None:
        """Return lines of the next container, all that it has waiting; None at the end. Raises what iteration does."""
        source = self._current
        if source is None or not source._follower._waiting:  # type: ignore[union-attr]
            source = await self._next()
        return None if source is None else (source, source._follower._take_all())  # type: ignore[union-attr]

    async def _next(self) -> Source | None:
        """Turn to the next container that has lines; None: there will be none."""
        if self._engine is None:
            engine = self._engine = await self._connect()
            self._connect = engine._itself  # from now on
            self._watching = self._spawn(self._watch(self._engine))
            if self._end is not None:
                self._timer = asyncio.get_running_loop().call_later(self._end - time.time(), self._finish)
        if self._current is not None:
            _set(self._current._is_taken)
            self._current = None
        while not self._ready:
            if self._fault is not None:
                raise self._fault
            if self._is_closed or (self._until is not None and self._is_listed and not self._followers):
                self.close()
                return None
            self._wakeup = asyncio.get_running_loop().create_future()
            try:
                async with asyncio.timeout(self.timeout):
                    await self._wakeup
            except TimeoutError:
                raise TimeoutError(TOO_LATE) from None
            finally:
                self._wakeup = None
        self._current = self._ready.popleft()
        return self._current

    def close(self) -> None:
        """Close all connections. What waits for a line in another task ends."""
        self._is_closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()
        _set(self._wakeup)

    async def wait_closed(self) -> None:
        """Wait until all connections are gone, after `close`."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # The tasks' side.

    def _spawn(self, work: Any) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._done)
        return task

    @property
    def _followers(self) -> set[asyncio.Task[None]]:
        return self._tasks - {self._watching}

    def _finish(self) -> None:
        """Read on to where the logs end now, and no further."""
        self._until = "end"
        if self._watching is not None and self._is_listed:
            self._watching.cancel()
        for source in self.sources:
            if source._follower is not None:
                source._follower.finish()
        _set(self._wakeup)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fault = error
        _set(self._wakeup)

    async def _follow(self, source: Source) -> None:
        """Follow a container until it has stopped; or read its log to where it ends now."""
        starts = -1
        while starts != source._starts:  # it was started again before its end was seen
            starts = source._starts
            until: Literal["end", "exited"] = "end" if self._until == "end" else "exited"
            begin = self._begin_of(source)
            following = Following(source.id, checkpoint=source._checkpoint, until=until, **begin, **self._options)
            async with _Member(self._connect, following, self._room, self._gate) as follower:
                source._follower = follower
                try:
                    while await follower._run():
                        await self._offer(source)
                except NotFoundError:
                    source._is_removed = True
                except (MuxframeError, OSError) as error:
                    source.error = error
                    _logger.warning("%r: %s", source.name, error)
            source._checkpoint = source.checkpoint
            source._follower = None  # not where this is cancelled: what was offered may still be taken, and is counted
        source._is_followed = False
        if source._is_removed:
            self._forget(source.id)

    async def _offer(self, source: Source) -> None:
        """Wait until the caller has taken what a source has."""
        source._is_taken = asyncio.get_running_loop().create_future()
        self._ready.append(source)
        _set(self._wakeup)
        await source._is_taken
        source._is_taken = None

    def _begin_of(self, source: Source) -> dict[str, Any]:
        if source._checkpoint is not None:
            return {}
        if source._started is None:
            return self._begin
        return {"since": self._begin["since"] or (source._started if self._begin["tail"] != "all" else None)}

    async def _watch(self, engine: Engine) -> None:
        """Learn which containers there are, and which come and go: also while the engine did not tell."""
        backoff = Backoff()
        since: int | None = None  # all that happened before this time is known
        while True:
            try:
                listed, now = await engine._run(calls.containers(engine._api, self._labels))
                self._take_list(listed)
                del listed
                if self._until == "end":
                    return
                since = since or (now and now - 1)
                link = await engine._run(calls.events(engine._api, self._labels, since))
                try:
                    lines = async_sources.LineIterator(link, LineSplitter(raw=True), "ignore")
                    async for line in lines:
                        backoff.reset()
                        since = self._take_event(engine, line.data) or since
                finally:
                    link.close()
            except (ConnectionLostError, TimeoutError, EngineError) as error:
                _check_transient(error)
            await asyncio.sleep(backoff.delay())

    def _take_list(self, listed: list[dict[str, Any]]) -> None:
        for id in {*self._sources, *self._checkpoints} - {info["Id"] for info in listed}:
            self._forget(id)
        for info in listed:
            state = str(info.get("State"))
            has_more = info["Id"] in self._checkpoints or (self._stopped and state not in NEVER_RAN)
            if state in RUNS or (has_more and info["Id"] not in self._sources):
                self._take(info, 0 if self._is_listed else None)
        self._is_listed = True
        _set(self._wakeup)

    def _take_event(self, engine: Engine, data: bytes) -> int | None:
        """Do what an event asks for; return its time, in seconds since 1970."""
        try:
            event = json.loads(data)
            action, id, when = str(event["Action"]), str(event["Actor"]["ID"]), int(event["time"])
            moment(when)  # raises what it does not take
        except (ValueError, TypeError, LookupError, OverflowError, RecursionError):
            _logger.warning("not an event: %r", data[:200])
            return None
        if action != "start":
            self._forget(id)
        elif id in self._sources:
            self._start_again(id)
        else:
            self._spawn(self._find(engine, id, when))
        return when

    async def _find(self, engine: Engine, id: str, when: int) -> None:
        """Follow a container that was started, as soon as it is known which one it is."""
        backoff = Backoff()
        while True:
            try:
                async with self._gate:
                    listed, _ = await engine._run(calls.containers(engine._api, self._labels, id))
                break
            except (ConnectionLostError, TimeoutError, EngineError) as error:
                _check_transient(error)
            await asyncio.sleep(backoff.delay())
        for info in listed:
            if id in self._sources:
                self._start_again(id)
            else:
                self._take(info, when)

    def _start_again(self, id: str) -> None:
        self._sources[id]._starts += 1
        self._spawn_follower(self._sources[id])

    def _take(self, info: Mapping[str, Any], started: int | None = None) -> None:
        """Follow a container, if it is one of those that are wanted."""
        id = info["Id"]
        source = self._sources.get(id) or Source(info, self._checkpoints.get(id), started)
        if not self._names or any(_is_name(name, source) for name in self._names):
            self._sources[id] = source
            self._spawn_follower(source)

    def _spawn_follower(self, source: Source) -> None:
        if not source._is_followed:
            source._is_followed = True
            self._spawn(self._follow(source))

    def _forget(self, id: str) -> None:
        """A container is removed; it may still have something to say."""
        source = self._sources.get(id)
        if source is not None and source._is_followed:
            source._is_removed = True
        else:
            self._sources.pop(id, None)
            self._checkpoints.pop(id, None)


def _labels_of(labels: Mapping[str, str] | Sequence[str]) -> list[str]:
    """Return labels as engines want them: "name" or "name=value"."""
    if isinstance(labels, str):
        raise TypeError("labels must be a mapping or a list, not one string")
    pairs: Any = getattr(labels, "items", None)
    listed = list(labels) if pairs is None else [f"{name}={value}" for name, value in pairs()]
    if not all(label.partition("=")[0] for label in listed):
        raise ValueError("a label has a name: NAME or NAME=VALUE")
    return listed


def _moment(until: Moment) -> str:
    try:
        return moment(until)
    except ValueError as error:
        raise ValueError(f'until must be "end", "exited", a moment or None: {error}') from None


def _check_transient(error: Exception) -> None:
    """Raise an error that will be the same another time."""
    is_answer = isinstance(error, EngineError) and not isinstance(error, HandshakeError)
    if is_answer and (error.status is None or error.status < 500):  # type: ignore[attr-defined]
        raise error
    _logger.info("events: %s", error)


def _is_name(name: str, source: Source) -> bool:
    """Say whether a name, or twelve or more digits of an id, is that of a source: "db" is no beginning of an id."""
    return name == source.name or (len(name) >= SHORT_ID_SIZE and source.id.startswith(name))


class Gathering:
    """What `muxframe.gather` returns: an iterator of (source, line), and a context manager. One thread works for it.

    Args: as for AsyncGathering.

    Attributes:
        timeout: seconds to wait for a line; None, as at first: for ever.
    """

    def __init__(self, connect: Callable[[], Awaitable[Engine]], *arguments: Any, **options: Any) -> None:
        self.timeout: float | None = None
        self._gathering = AsyncGathering(connect, *arguments, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._starting = threading.RLock()  # or closing; either may be interrupted by a signal's handler
        self._coming: Future[Source | None] | None = None

    @property
    def sources(self) -> list[Source]:
        """The containers there are, stopped ones included."""
        return self._gathering.sources

    @property
    def checkpoints(self) -> dict[str, Checkpoint]:
        """Where each of them is, by its id: to be given to the next `gather`."""
        return self._gathering.checkpoints

    @property
    def closed(self) -> bool:
        """Say whether `close` was called."""
        return self._gathering.closed

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[Source, Line]:
        """Return the next line, and whose it is. Raises what AsyncGathering raises."""
        source = self._gathering._current
        if source is None or not source._follower._waiting:  # type: ignore[union-attr]
            source = self._next()
            if source is None:
                raise StopIteration
        return source, source._follower._take()  # type: ignore[union-attr]

    def read(self) -> tuple[Source, list[Line]] | None:
        """Return lines of the next container, all that it has waiting; None at the end. Raises what iteration does."""
        source = self._gathering._current
        if source is None or not source._follower._waiting:  # type: ignore[union-attr]
            source = self._next()
        return None if source is None else (source, source._follower._take_all())  # type: ignore[union-attr]

    def _next(self) -> Source | None:
        if self._coming is None:
            with self._starting:
                if self.closed:
                    return None
                self._coming = asyncio.run_coroutine_threadsafe(self._gathering._next(), self._start())
        try:
            source = self._coming.result(ending(self.timeout))
        except FutureTimeoutError:
            if not self._coming.done():
                raise TimeoutError(TOO_LATE) from None  # and it goes on coming
            self._coming = None
            raise
        except BaseException as error:
            if not self._coming.done():  # KeyboardInterrupt: it goes on coming, too
                raise
            self._coming = None
            if isinstance(error, CancelledError) and self.closed:
                return None
            raise
        self._coming = None
        return source

    def _start(self) -> asyncio.AbstractEventLoop:
        """Return the loop, which runs in a thread of its own."""
        if self._loop is None:
            loop = asyncio.new_event_loop()
            thread = threading.Thread(target=self._run, args=(loop,), name="muxframe.gather", daemon=True)
            thread.start()
            self._loop, self._thread = loop, thread
        return self._loop

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.get_loop().run_forever()
            runner.run(self._gathering.wait_closed())

    def close(self) -> None:
        """Close all connections. What waits for a line in another thread ends."""
        with self._starting:
            self._gathering._is_closed = True
            loop, self._loop = self._loop, None
            if loop is not None:
                loop.call_soon_threadsafe(self._gathering.close)
                loop.call_soon_threadsafe(loop.stop)
        if self._thread is not None:
            self._thread.join()


def _set(future: asyncio.Future[None] | None) -> None:
    if future is not None and not future.done():
        future.set_result(None)
