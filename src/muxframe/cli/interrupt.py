"""An interrupt (ctrl-C) is the end of the input, so that nothing that was read is lost.

An exception that may come between any two instructions may also come between a read and the write of what was read.
So the handler only puts /dev/null in the place of what is read: the loops see an end, deliver what they have, and
leave `with Interrupt(...)` by KeyboardInterrupt. A second interrupt, or an output that takes nothing for a second,
raises it at once. On Windows, where reading is not cut short by a signal, the first one does.
"""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING, Any

from ..errors import TruncatedStreamError

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

    from .files import File

PATIENCE = 1  # seconds that what was read has to be delivered in


class Ended(KeyboardInterrupt):
    """A signal is to end this process, which then does, by that signal."""

    def __init__(self, signal_number: int) -> None:
        super().__init__()
        self.signal_number = signal_number


class Interrupt:
    """Hold an interrupt back until the inputs, which end with it, are dealt with.

    Args:
        inputs: what is being read.
    """

    def __init__(self, *inputs: File) -> None:
        self.happened: bool = False
        self._inputs = inputs

    def __enter__(self) -> Self:
        self._is_held = (
            os.name == "posix"
            and threading.current_thread() is threading.main_thread()
            and signal.getsignal(signal.SIGINT) is signal.default_int_handler  # not ignored, as after nohup or in ... &
        )
        if self._is_held:
            self._nothing = os.open(os.devnull, os.O_RDONLY)
            self._old_alarm: Any = signal.signal(signal.SIGALRM, signal.default_int_handler)
            signal.signal(signal.SIGINT, self._take)
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if self._is_held:
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.alarm(0)
            signal.signal(signal.SIGALRM, self._old_alarm)
            os.close(self._nothing)
        if self.happened and (error is None or isinstance(error, TruncatedStreamError)):
            raise KeyboardInterrupt from None

    def _take(self, _: int, __: FrameType | None) -> None:
        self.happened = True
        signal.signal(signal.SIGINT, signal.default_int_handler)
        signal.alarm(PATIENCE)
        for file in self._inputs:
            os.dup2(self._nothing, file.descriptor)
