"""The command run as a process, and on a terminal of its own."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from live import PATIENCE, eventually

if sys.platform != "win32":
    import fcntl
    import pty
    import struct
    import termios

posix = pytest.mark.skipif(os.name != "posix", reason="needs terminals or signals")
COMMAND = [sys.executable, "-m", "muxframe"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything outside the checkout, and without the user's own engine."""
    monkeypatch.chdir(tmp_path)
    for name in ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))


def run(host: str, command: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": PATIENCE, **options}
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    return subprocess.run([*COMMAND, command, "-H", host, *arguments], **options)


def start(host: str, command: str, *arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if os.name == "posix":  # a test run in the background of a shell ignores SIGINT, and so would its children
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*COMMAND, command, "-H", host, *arguments], **options)


# --- a terminal ------------------------------------------------------------------------------------------------------

OWN_TERMINAL = (
    "import fcntl, os, signal, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); "
    "signal.signal(signal.SIGINT, signal.SIG_DFL); os.execv(sys.executable, sys.argv[1:])"
)


class Terminal:
    """The command on a terminal of its own, which is looked at from the other side."""

    def __init__(self, host: str, command: str, *arguments: str, size: tuple[int, int] = (31, 91), **options: Any):
        self.ours, self.theirs = pty.openpty()
        self.resize(*size)
        self.before = termios.tcgetattr(self.theirs)
        self.drawn = b""
        options = {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs, **options}
        self.process = subprocess.Popen(
            [sys.executable, "-c", OWN_TERMINAL, *COMMAND, command, "-H", host, *arguments],
            start_new_session=True,
            **options,
        )

    def resize(self, height: int, width: int) -> None:
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", height, width, 0, 0))

    def type(self, keys: bytes) -> None:
        os.write(self.ours, keys)

    @property
    def mode(self) -> list[Any]:
        return termios.tcgetattr(self.theirs)

    @property
    def is_raw(self) -> bool:
        return not self.mode[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_raw(self) -> None:
        eventually(lambda: self.is_raw)

    def read(self, seconds: float) -> bool:
        if not select.select([self.ours], [], [], seconds)[0]:
            return False
        self.drawn += os.read(self.ours, 65536)
        return True

    def expect(self, text: bytes, seconds: float = PATIENCE) -> None:
        deadline = time.monotonic() + seconds
        while text not in self.drawn:
            left = deadline - time.monotonic()
            assert left > 0 and self.read(left), f"{text!r} is not in {self.drawn!r}"

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for the end; return the exit code, minus the signal's number where it was one."""
        deadline = time.monotonic() + seconds
        while self.process.poll() is None:
            self.read(0.02)
            assert time.monotonic() < deadline, f"still running; {self.drawn!r}"
        while self.read(0):
            pass
        return self.process.returncode

    def __enter__(self) -> Terminal:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        os.close(self.ours)
        os.close(self.theirs)
