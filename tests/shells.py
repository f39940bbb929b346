"""Both shells of the attach wrapper under one set of names: the asyncio one does its work in a thread of its own."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Callable
from typing import Any, Self

import muxframe
import muxframe.aio

#: How the shells are run. On "asyncio" the event loop is in debug mode.
NAMES = ["blocking", "asyncio", "uvloop"]


class Shell:
    """`connect`, and what it gives, to be called without await."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.loop = None if name == "blocking" else new_loop(name, debug=name == "asyncio")
        if self.loop is not None:
            self._thread = threading.Thread(target=self.loop.run_forever, name="shell", daemon=True)
            self._thread.start()

    def connect(self, host: str, **options: Any) -> Any:
        if self.loop is None:
            return muxframe.connect(host, **options)
        return InLoop(self.loop, muxframe.aio.connect(host, **options)).open()

    def tasks(self) -> int:
        """Count what is still at work in the loop."""
        return 0 if self.loop is None else int(in_loop(self.loop, lambda: len(asyncio.all_tasks()) - 1))

    def settle(self) -> None:
        """Let the loop do what it has put off."""
        if self.loop is not None:
            for _ in range(3):
                in_loop(self.loop, lambda: None)

    def close(self) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()


def new_loop(name: str, *, debug: bool = False) -> asyncio.AbstractEventLoop:
    if name == "uvloop":
        import uvloop

        loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    loop.set_debug(debug)
    loop.slow_callback_duration = 10
    return loop


def in_loop(loop: asyncio.AbstractEventLoop, function: Callable[[], Any]) -> Any:
    """Call a function in a loop, await what it returns where that can be awaited, and return what comes of it."""

    async def call() -> tuple[Any, BaseException | None]:
        try:
            result = function()
            return (await result) if inspect.isawaitable(result) else result, None
        except BaseException as error:  # the way out through a future would change some
            return None, error

    result, error = asyncio.run_coroutine_threadsafe(call(), loop).result(60)
    if error is not None:
        raise error
    return result


class InLoop:
    """Something of asyncio's, used from another thread like its blocking twin."""

    def __init__(self, loop: asyncio.AbstractEventLoop, target: Any) -> None:
        self.__dict__.update(loop=loop, target=target)

    def open(self) -> Any:
        return self._call(lambda: self.target)

    def _call(self, function: Callable[[], Any]) -> Any:
        result = in_loop(self.loop, function)
        return InLoop(self.loop, result) if hasattr(result, "__aenter__") or hasattr(result, "__anext__") else result

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.target, name)
        if not callable(value):
            return value
        return lambda *args, **options: self._call(lambda: value(*args, **options))

    def __repr__(self) -> str:
        return repr(self.target)

    def __setattr__(self, name: str, value: Any) -> None:
        setattr(self.target, name, value)

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        async def take() -> Any:
            try:
                return await anext(self.target)
            except StopAsyncIteration:
                return None

        item = in_loop(self.loop, take)
        if item is None:
            raise StopIteration
        return item

    def __enter__(self) -> Self:
        in_loop(self.loop, self.target.__aenter__)
        return self

    def __exit__(self, *error: Any) -> None:
        in_loop(self.loop, lambda: self.target.__aexit__(*error))
