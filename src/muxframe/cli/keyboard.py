"""This process's stdin on its way to a container."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

from .files import STDIN, STDIN_NAME, complain
from .signals import start_thread

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

    from ..engine import Session

READ_SIZE = 64 * 1024

STAYS_OPEN = "stdin has ended, but there is no way to tell the other end so (see muxframe's docs/attach.md): reading on"


class DetachKeys:
    """Finds a sequence of keys in what is typed. What may become the sequence is held back until that is known.

    The engines would look for it, too, but each in its own way: Podman only where every key comes alone, and not for
    an exec; Docker ends an exec that is detached from. Found here, it is the end of the session and nothing else.

    Args:
        codes: what the terminal sends for the sequence.

    >>> keys = DetachKeys(b"\\x10\\x11")
    >>> keys.feed(b"a\\x10"), keys.feed(b"b\\x10"), keys.feed(b"\\x11c")
    ((b'a', False), (b'\\x10b', False), (b'', True))
    """

    def __init__(self, codes: bytes) -> None:
        self._codes = codes
        self._held = b""

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what was typed; return what is to be passed on, and whether the sequence came behind it."""
        data = self._held + data
        position = data.find(self._codes)
        if position >= 0:
            return data[:position], True
        size = next(size for size in range(len(self._codes) - 1, -1, -1) if data.endswith(self._codes[:size]))
        self._held = data[len(data) - size :]
        return data[: len(data) - size], False


class Keyboard:
    """Passes stdin on to a session, in a thread, as it comes. A context manager; leaving it stops the thread.

    Args:
        session: takes it.
        keys: ends it, if it is to be ended by keys.
        detach: called when those were pressed.
    """

    def __init__(self, session: Session, keys: DetachKeys | None, detach: Callable[[], None]) -> None:
        self._session = session
        self._keys = keys
        self._detach = detach

    def __enter__(self) -> Self:
        self._stopped, self._stop = os.pipe()
        self._thread = start_thread(self._pass_on, "muxframe-stdin")
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._stop)
        if os.name == "posix":  # elsewhere a read cannot be ended
            self._thread.join(1)
        if not self._thread.is_alive():
            os.close(self._stopped)

    def _pass_on(self) -> None:
        try:
            while data := self._read():
                is_detached = False
                if self._keys is not None:
                    data, is_detached = self._keys.feed(data)
                if data:
                    self._session.write(data)
                if is_detached:
                    return self._detach()
            if data is not None:
                self._end()
        except (OSError, ValueError):  # the session has ended; whoever reads it knows why
            pass

    def _read(self) -> bytes | None:
        """Read what there is; nothing at the end, None where nobody wants it any more."""
        try:
            while True:
                if os.name == "posix" and self._stopped in select.select([STDIN, self._stopped], [], [])[0]:
                    return None
                try:
                    return os.read(STDIN, READ_SIZE)
                except BlockingIOError:
                    pass
        except OSError as error:
            complain(f"{STDIN_NAME}: {error.strerror}")
            return b""

    def _end(self) -> None:
        if self._session.closes_stdin is not False:
            self._session.close_stdin()
        elif self._keys is None:  # otherwise it was a terminal, which is gone
            complain(STAYS_OPEN)
