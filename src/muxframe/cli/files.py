"""What commands read from and write to: opened once, named in every error, and never written over by themselves."""

from __future__ import annotations

import errno
import os
import select
import stat
import sys
from typing import TYPE_CHECKING

from .._framing_py import BLOCK_SIZE
from ..errors import harmless
from ..sources import wait_readable

if TYPE_CHECKING:
    from contextlib import ExitStack
    from typing import Self

    from ..errors import SinkError

STDIN, STDOUT, STDERR = 0, 1, 2
STDIN_NAME, STDOUT_NAME, STDERR_NAME = "standard input", "standard output", "standard error"

#: Opening a FIFO must not wait for its writer: a poll can be interrupted, and watches two at once.
_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0) | (os.O_NONBLOCK if hasattr(select, "poll") else 0)
_WRITE = os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0)


class Failure(Exception):
    """One line for the user, and the exit code."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def complain(text: str) -> None:
    """Print a line on this process's stderr, as far as there is one. What could act on a terminal is escaped."""
    try:
        if sys.stderr is not None:
            print(f"muxframe: {one_line(text.rstrip())}", file=sys.stderr, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), STDERR)  # so that the interpreter can flush at exit


def one_line(text: str) -> str:
    r"""Escape what is not printable, line ends too: others (engines, containers) have a say in it.

    >>> one_line("no\x1b[2J\n")
    'no\\x1b[2J\\n'
    """
    return harmless(text).replace("\n", "\\n").replace("\t", "\\t")


class Naming:
    """Put a file's name into the OSErrors of a block. A class, since a generator costs each small write more."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, OSError) and error.filename is None:
            error.filename = self._name


def say(text: str) -> None:
    """Print a result on this process's stdout, now, so that what goes wrong is known here."""
    if sys.stdout is None:
        raise Failure(f"{STDOUT_NAME}: is closed")
    encoding = sys.stdout.encoding or "utf-8"
    with Naming(STDOUT_NAME):
        sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding))
        sys.stdout.flush()


class File:
    """A descriptor with a name for messages; a context manager that closes what was opened here."""

    def __init__(self, name: str, descriptor: int, *, is_owned: bool) -> None:
        self.name = name
        self.descriptor = descriptor
        self._is_owned = is_owned
        with Naming(name):
            self.status: os.stat_result = os.fstat(descriptor)

    @property
    def is_regular(self) -> bool:
        """Whether it is a file on a disk: it has a size, and reading it does not wait."""
        return stat.S_ISREG(self.status.st_mode)

    @property
    def has_reader(self) -> bool:
        """Whether it is a pipe or a socket: what is written goes to another process."""
        return stat.S_ISFIFO(self.status.st_mode) or stat.S_ISSOCK(self.status.st_mode)

    def await_writer(self) -> None:
        """Wait for a FIFO's first writer: it was opened without, and looks ended until then."""
        if stat.S_ISFIFO(self.status.st_mode):
            wait_readable(self.descriptor)

    def widen(self) -> None:
        """Let a pipe hold a whole block, as far as the system does: writer and reader then wait less for each other."""
        if stat.S_ISFIFO(self.status.st_mode) and sys.platform == "linux":
            import fcntl

            try:
                fcntl.fcntl(self.descriptor, fcntl.F_SETPIPE_SZ, BLOCK_SIZE)
            except OSError:  # too many such pipes already
                pass

    def is_same(self, other: File) -> bool:
        """Say whether both are one regular file, under whatever names."""
        return self.is_regular and os.path.samestat(self.status, other.status)

    def clear(self) -> None:
        """Cut a regular file that was opened here to nothing."""
        if self._is_owned and self.is_regular:
            with Naming(self.name):
                os.ftruncate(self.descriptor, 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_owned:
            with Naming(self.name):  # a disk on the network may only now say that it is full
                os.close(self.descriptor)


def _open(path: str, flags: int) -> int:
    """Open a file, but not as stdin, stdout or stderr, which the system may give away where they are closed."""
    taken = [os.open(path, flags, 0o666)]
    while taken[-1] <= STDERR:
        taken.append(os.dup(taken[-1]))
    for descriptor in taken[:-1]:
        os.close(descriptor)
    return taken[-1]


def open_input(path: str) -> File:
    """Open a file to read; - is this process's stdin."""
    if path == "-":
        return File(path, STDIN, is_owned=False)
    file = File(path, _open(path, _READ), is_owned=True)
    if stat.S_ISDIR(file.status.st_mode):
        with file:
            raise Failure(f"{path}: Is a directory")
    return file


def delivery_failure(error: SinkError, stdout: File, stderr: File) -> Exception:
    """Return what to raise for a sink that has failed."""
    if error.errno == errno.EPIPE:
        return BrokenPipeError()
    output = stdout if error.sink == "stdout" else stderr
    taken = error.delivered
    sizes = f"delivered: {taken.stdout_size} bytes of stdout, {taken.stderr_size} of stderr"
    return Failure(f"{output.name}: {error.strerror} ({sizes})")


def open_outputs(
    stack: ExitStack, paths: dict[int, str | None], inputs: list[File], *, is_continued: bool = False
) -> list[File]:
    """Open the files to write, emptied; but first make sure that none of them is being read.

    Args:
        stack: closes them.
        paths: by the descriptor of this process that serves where there is no path; - is this process's stdout.
        inputs: open files that must stay as they are.
        is_continued: keep what is in the files, and write behind it.

    Returns:
        A File for each path. Where two paths lead to the same file, both are the same object: opened twice, each would
        write over what the other has written.

    Raises:
        Failure: an output is one of the inputs.
        OSError: a file cannot be opened.
    """
    outputs: list[File] = []
    for default, path in paths.items():
        if path is None or path == "-":
            descriptor = default if path is None else STDOUT
            name = STDERR_NAME if descriptor == STDERR else STDOUT_NAME
            file = File(name, descriptor, is_owned=False)
        else:
            flags = _WRITE | os.O_APPEND if is_continued else _WRITE
            file = stack.enter_context(File(path, _open(path, flags), is_owned=True))
        if any(file.is_same(source) for source in inputs):
            raise Failure(f"{file.name}: is both read and written", 2)
        outputs.append(next((other for other in outputs if file.is_same(other)), file))
    if not is_continued:
        for file in outputs:
            file.clear()
    return outputs
