"""The command line: `muxframe demux | mux | inspect | attach | exec | logs | record | index | lines | bench | ...`.

    parser.py    every option and its help: the one source of --help, completion and man page
    demux.py mux.py inspect.py attach.py exec.py logs.py record.py index.py lines.py bench.py manual.py
                                            a command each
    files.py interrupt.py progress.py       what they share
    sessions.py keyboard.py terminal.py signals.py      what attach, exec, logs and record share
    gathered.py printing.py status.py       logs of many containers

Here is what holds for all of them: which module runs, and what an end that is not a success looks like. Everything a
command does not need is imported late or not at all, so that it starts fast.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from importlib import import_module

from ..errors import MuxframeError
from .files import STDOUT_NAME, Failure, complain

__all__ = ["main"]

FAILED, USAGE, CLOSED_PIPE = 1, 2, 141


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    Args:
        argv: arguments without the program's name; None takes the process's.

    Returns:
        0, 1 for an error of the stream or of a file, 2 for misuse, 141 where an output pipe was closed by its reader.
        attach and exec return the exit code of the container or command. An interrupt (ctrl-C) ends the process by
        SIGINT itself, so that a shell sees 130 and stops its script; where that cannot be, 130 is returned.
    """
    try:
        return _run(sys.argv[1:] if argv is None else argv)
    except KeyboardInterrupt as end:
        return _end_by_signal(getattr(end, "signal_number", signal.SIGINT))
    except BrokenPipeError:
        _discard_stdout()
        return CLOSED_PIPE
    except Failure as failure:
        complain(str(failure))
        return failure.status
    except OSError as error:
        if error.filename == STDOUT_NAME:
            _discard_stdout()
        text = error.strerror or str(error)
        complain(text if error.filename is None else f"{os.fsdecode(error.filename)}: {text}")
        return FAILED
    except MuxframeError as error:
        complain(str(error))
        return FAILED


def _run(argv: list[str]) -> int:
    from .parser import parse

    try:
        arguments = parse(argv)
        return int(import_module(f"{__name__}.{arguments.module}").run(arguments))
    except SystemExit as stop:  # argparse's way to say --help, --version and misuse
        return stop.code if isinstance(stop.code, int) else USAGE


def _end_by_signal(number: int) -> int:
    """Die by a signal, as shells expect of a process that was interrupted."""
    if os.name == "posix" and threading.current_thread() is threading.main_thread():
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    return 128 + number


def _discard_stdout() -> None:
    """Let the interpreter's own flush at exit find nothing to complain about."""
    if sys.stdout is not None:
        try:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except (OSError, ValueError):  # replaced by something that is no file
            pass
