"""Reading that an interrupt (ctrl-C) ends like the end of the file, so that nothing that was read is lost.

An exception that may come between any two instructions may also come between a read and the write of what was read.
So here the signal only leaves a mark and wakes the poll that waits for input; the loop above sees an end, delivers
what it has, and leaves `with Interrupt(...)` by KeyboardInterrupt. A second interrupt, or an output that takes nothing
for a second, raises it at once. Where there is no poll (Windows), the first one does.
"""

from __future__ import annotations

import os
import select
import signal
import threading
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import TruncatedStreamError
from .files import Naming

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

    from .files import File

PATIENCE = 1  # seconds that what was read has to be delivered in


class Readable(Protocol):
    """What `muxframe.copy` and the others read from."""

    def readinto(self, buffer: memoryview, /) -> int: ...


class Interrupt:
    """Hold interrupts back, and wait for input that can be read.

    Args:
        inputs: what is going to be read.
    """

    def __init__(self, *inputs: File) -> None:
        self.happened = False
        self._inputs = {file.descriptor: file for file in inputs}
        self._poll = select.poll() if hasattr(select, "poll") else None
        if self._poll is not None:
            for descriptor in self._inputs:
                self._poll.register(descriptor, select.POLLIN)

    def __enter__(self) -> Self:
        self._is_held = (
            self._poll is not None
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as after nohup or in ... &
        )
        if self._is_held:
            assert self._poll is not None
            self._wakeup, self._wakeup_end = os.pipe()
            os.set_blocking(self._wakeup, False)
            os.set_blocking(self._wakeup_end, False)
            self._poll.register(self._wakeup, select.POLLIN)
            self._old_wakeup_end = signal.set_wakeup_fd(self._wakeup_end, warn_on_full_buffer=False)
            self._old_alarm: Any = signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._is_held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(0)
            signal.signal(signal.SIGALRM, self._old_alarm)
            signal.set_wakeup_fd(self._old_wakeup_end)
            os.close(self._wakeup)
            os.close(self._wakeup_end)
        if self.happened and (error is None or isinstance(error, TruncatedStreamError)):
            raise KeyboardInterrupt from None

    def _take(self, _: int, __: FrameType | None) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(PATIENCE)

    def ready(self) -> list[File]:
        """Wait until some of the inputs can be read (or are at their end); return those, or none once interrupted."""
        while not self.happened:
            if self._poll is None:
                return list(self._inputs.values())
            events = [descriptor for descriptor, _ in self._poll.poll()]
            files = [self._inputs[descriptor] for descriptor in events if descriptor in self._inputs]
            if files:
                return files
            os.read(self._wakeup, 4096)
        return []

    def forget(self, file: File) -> None:
        """Wait for this input no longer."""
        del self._inputs[file.descriptor]
        if self._poll is not None:
            self._poll.unregister(file.descriptor)


class Input:
    """A binary file object that ends at an interrupt."""

    def __init__(self, file: File, interrupt: Interrupt) -> None:
        self._file = file
        self._interrupt = interrupt

    def readinto(self, buffer: memoryview, /) -> int:
        """Fill the beginning of buffer with what there is; return 0 at the end."""
        while self._interrupt.ready():
            try:
                return self._read(buffer)
            except BlockingIOError:  # another process was faster
                continue
        return 0

    def _read(self, buffer: memoryview) -> int:
        with Naming(self._file.name):
            if hasattr(os, "readv"):
                return os.readv(self._file.descriptor, [buffer])
            data = os.read(self._file.descriptor, len(buffer))
        buffer[: len(data)] = data
        return len(data)
