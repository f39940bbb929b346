"""Whole processes at the end of a pipe: the command beside `cat`. And what a process takes: time to start, memory."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Contender, Job, Unavailable, sockets

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..workloads import Workload

MUXFRAME = [sys.executable, "-m", "muxframe"]

# Writes the same wire again and again, so that a long stream needs no long file.
_WRITER = """
import os, sys
wire = memoryview(open(sys.argv[1], "rb").read())
for _ in range(int(sys.argv[2])):
    rest = wire
    while rest:
        rest = rest[os.write(1, rest):]
"""

_PEAK = """
import os, sys
import muxframe

def peak():
    try:
        status = open("/proc/self/status").read()
        return int(status.split("VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        import resource
        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return size if sys.platform == "darwin" else size * 1024

before = peak()
with open(os.devnull, "wb") as null:
    copied = muxframe.copy(0, null.fileno(), null.fileno())
print(peak() - before, copied.stdout_size)
"""


def to_null(command: Callable[[], list[str]], repeats: int) -> Callable[[Workload], Job]:
    """Make a job: the wire, repeats times, through a pipe into a command whose output goes to /dev/null."""

    def prepare(workload: Workload) -> Job:
        argv = command()

        def run(writer: subprocess.Popen[bytes]) -> None:
            subprocess.run(argv, stdin=writer.stdout, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)

        return _Piped(workload, argv, run, repeats)

    return prepare


def to_files(command: Callable[[], list[str]], repeats: int) -> Callable[[Workload], Job]:
    """The same with files, in memory where the system has such."""

    def prepare(workload: Workload) -> Job:
        argv = command()

        def run(writer: subprocess.Popen[bytes]) -> None:
            with _output() as out, _output() as err:
                subprocess.run(argv, stdin=writer.stdout, stdout=out, stderr=err, check=True)

        return _Piped(workload, argv, run, repeats)

    return prepare


def cat() -> list[str]:
    found = shutil.which("cat")
    if found is None:
        raise Unavailable("no cat here")
    return [found]


def demux_command() -> list[str]:
    return [*MUXFRAME, "demux", "--no-progress"]


def _output() -> Any:
    return tempfile.TemporaryFile(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)


class _Piped(Job):
    """A command behind a writer that has begun to write."""

    def __init__(self, workload: Workload, argv: list[str], run: Callable[..., None], repeats: int) -> None:
        super().__init__(run, int, self._start, self._stop)
        self._argv = argv
        self._wire = sockets.wire_file(workload)
        self._repeats = repeats

    def _start(self) -> tuple[subprocess.Popen[bytes]]:
        writer = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", _WRITER, self._wire, str(self._repeats)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        assert writer.stdout is not None
        select.select([writer.stdout], [], [])
        return (writer,)

    def _stop(self, writer: subprocess.Popen[bytes]) -> None:
        assert writer.stdout is not None
        writer.stdout.close()
        writer.wait()

    def check(self, workload: Workload) -> None:
        """Compare both outputs of one wire; of cat, the wire itself."""
        with open(self._wire, "rb") as wire:
            done = subprocess.run(self._argv, stdin=wire, capture_output=True, check=True)
        expected = [(workload.wire, b""), (workload.stdout, workload.stderr)]
        if (done.stdout, done.stderr) not in expected:
            raise AssertionError(f"{self._argv}: {len(done.stdout)} and {len(done.stderr)} bytes")


def through_pipe(repeats: int, *, files: bool) -> list[Contender]:
    """List who stands at the end of a pipe."""
    job = to_files if files else to_null
    return [
        Contender("cat", "limit", job(cat, repeats)),
        Contender("muxframe demux", "muxframe", job(demux_command, repeats)),
    ]


def starting() -> list[Contender]:
    """List what starts and ends with nothing to do."""

    def prepare(argv: list[str]) -> Callable[[Workload], Job]:
        def run() -> int:
            return subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, check=True).returncode

        return lambda _: Job(run, int)

    return [
        Contender("python -c pass", "limit", prepare([sys.executable, "-c", "pass"])),
        Contender("muxframe demux, empty stream", "muxframe", prepare(demux_command())),
    ]


def peak_memory(payload_size: int) -> int:
    """Return the bytes of memory that copying one frame takes at its peak, over what importing muxframe takes."""
    with tempfile.TemporaryDirectory(prefix="muxframe-bench-") as scratch:
        piece = Path(scratch, "piece")
        size = 1024 * 1024
        piece.write_bytes(bytes(size))
        header = Path(scratch, "header")
        header.write_bytes(b"\x01\0\0\0" + payload_size.to_bytes(4, "big"))
        program = f"import os, sys; os.write(1, open(sys.argv[3], 'rb').read())\n{_WRITER}"
        writer = subprocess.Popen(
            [sys.executable, "-S", "-E", "-c", program, str(piece), str(payload_size // size), str(header)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
        )
        done = subprocess.run([sys.executable, "-c", _PEAK], stdin=writer.stdout, capture_output=True, check=True)
        assert writer.stdout is not None
        writer.stdout.close()
        writer.wait()
    peak, copied = map(int, done.stdout.split())
    if copied != payload_size:
        raise AssertionError(f"{copied} bytes copied instead of {payload_size}")
    return peak
