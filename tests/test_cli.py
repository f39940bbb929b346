"""The command line, run as a process of its own: what it writes, what it says, and how it ends."""

from __future__ import annotations

import json
import os
import random
import re
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import muxframe

posix = pytest.mark.skipif(os.name != "posix", reason="needs FIFOs, signals or device files")

if sys.platform != "win32":
    import pty
    import resource


def frame(stream: int, payload: bytes) -> bytes:
    return struct.pack(">BxxxI", stream, len(payload)) + payload


WIRE = frame(1, b"one\n") + frame(2, b"bad\n") + frame(0, b"two\n") + frame(2, b"") + frame(1, b"three\n")
STDOUT, STDERR, MERGED = b"one\ntwo\nthree\n", b"bad\n", b"one\nbad\ntwo\nthree\n"
DAMAGED = WIRE + b"damage" + 4 * frame(1, b"after\n")
COMMAND = [sys.executable, "-m", "muxframe"]
MIB = 1024 * 1024


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run everything outside the checkout, and with short names in messages."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str, wire: bytes = b"", **options: Any) -> subprocess.CompletedProcess[bytes]:
    if "stdin" not in options:
        options["input"] = wire
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60, **options}
    return subprocess.run([*COMMAND, *arguments], **options)


def start(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
    options = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    if os.name == "posix":  # a test run in the background of a shell ignores SIGINT, and so would its children
        options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    return subprocess.Popen([*COMMAND, *arguments], **options)


def environment(**changes: str) -> dict[str, str]:
    return {**os.environ, **changes}


def without(module: str, directory: Path) -> dict[str, str]:
    """An environment in which a module is not installed."""
    hidden = directory / "hidden"
    hidden.mkdir()
    (hidden / f"{module}.py").write_text(f"raise ModuleNotFoundError('hidden', name={module!r})\n")
    return environment(PYTHONPATH=str(hidden))


def sparse(path: Path, size: int, tail: bytes = b"") -> Path:
    """A file that holds one frame of zeros, which takes no room on the disk, and tail."""
    with path.open("wb") as file:
        file.write(struct.pack(">BxxxI", 1, size))
        file.seek(8 + size)
        file.write(tail)
        file.truncate(8 + size + len(tail))
    return path


def write_later(path: str, *pieces: bytes) -> threading.Thread:
    """Open a FIFO and write to it, without waiting for its reader here."""

    def write() -> None:
        with open(path, "wb", buffering=0) as fifo:
            for piece in pieces:
                fifo.write(piece)

    thread = threading.Thread(target=write)
    thread.start()
    return thread


# --- demux -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [(), ("-",)])
def test_demux_goes_from_stdin_to_stdout_and_stderr(arguments: tuple[str, ...]) -> None:
    done = run("demux", *arguments, wire=WIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, STDOUT, STDERR)


def test_demux_reads_a_path_and_writes_paths(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    (tmp_path / "out").write_bytes(b"x" * 1000)  # gone afterwards
    done = run("demux", "in", "-o", "out", "--stderr", "err")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "out").read_bytes() == STDOUT
    assert (tmp_path / "err").read_bytes() == STDERR


def test_demux_merges_on_stdout() -> None:
    done = run("demux", "-e", "-", wire=WIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, MERGED, b"")
    assert run("demux", "--stdout", "-", "--stderr", "-", wire=WIRE).stdout == MERGED


@pytest.mark.parametrize("other", ["both", "./both", "link"])
def test_demux_merges_in_one_file_under_any_name(other: str, tmp_path: Path) -> None:
    (tmp_path / "both").write_bytes(b"x" * 1000)
    os.link("both", "link")
    done = run("demux", "-o", "both", "-e", other, wire=WIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (tmp_path / "both").read_bytes() == MERGED


def test_demux_merges_a_path_with_stdout_redirected_there(tmp_path: Path) -> None:
    with open("both", "wb") as both:
        assert run("demux", "-e", "both", wire=WIRE, stdout=both).returncode == 0
    assert (tmp_path / "both").read_bytes() == MERGED


def test_demux_keeps_the_order_of_one_redirected_file(tmp_path: Path) -> None:
    with open("both", "wb") as both:
        assert run("demux", wire=WIRE, stdout=both, stderr=both).returncode == 0
    assert (tmp_path / "both").read_bytes() == MERGED


def test_demux_delivers_live() -> None:
    process = start("demux", stdin=subprocess.PIPE)
    with process:
        assert process.stdin and process.stdout
        process.stdin.write(frame(1, b"now") + b"\x01\0\0\0\0\0\0\x04un")
        process.stdin.flush()
        assert os.read(process.stdout.fileno(), 100) in (b"now", b"nowun")
        process.stdin.write(b"do")
        process.stdin.close()
        process.stdout.read()
    assert process.returncode == 0


def test_demux_of_a_truncated_stream(tmp_path: Path) -> None:
    (tmp_path / "cut").write_bytes(WIRE[:-3])
    done = run("demux", "cut")
    text = f"stream ends inside a payload: 3 of 6 bytes missing from the frame at offset {len(WIRE) - 14}"
    assert (done.returncode, done.stdout) == (1, STDOUT[:-3])
    assert done.stderr.decode().splitlines() == ["bad", f"muxframe: cut: {text}"]
    done = run("demux", "--truncated=error", wire=WIRE[:-3])
    assert (done.returncode, done.stdout) == (1, STDOUT[:-3])
    assert done.stderr.decode().splitlines() == ["bad", f"muxframe: -: {text}"]


def test_demux_ignores_a_truncated_end_if_told_to() -> None:
    for size in (3, 8):
        done = run("demux", "--truncated=ignore", wire=WIRE[:-size])
        assert (done.returncode, done.stderr) == (0, STDERR)


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (b"x", f"unrecognized stream: 120 at offset {len(WIRE)}"),
        (b"\1\2\3\4\0\0\0\0", f"reserved header bytes are not zero: 02 03 04 at offset {len(WIRE)}"),
        (frame(3, b"no such thing"), "error from daemon in stream: no such thing"),
    ],
)
def test_demux_delivers_what_is_before_a_fault(damage: bytes, text: str) -> None:
    done = run("demux", wire=WIRE + damage + WIRE)
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, STDOUT, f"bad\nmuxframe: -: {text}\n")


def test_demux_says_what_a_raw_stream_looks_like() -> None:
    done = run("demux", wire=b"\x1b[1mhello")
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"raw (TTY) stream" in done.stderr
    assert b"JSON error body" in run("demux", wire=b'{"message": "no"}').stderr


@pytest.mark.parametrize(("cap", "limit"), [("1k", 1024), ("1K", 1024), ("1025", 1025), ("1M", MIB), ("1G", 1 << 30)])
def test_demux_caps_frames(cap: str, limit: int) -> None:
    wire = struct.pack(">BxxxI", 1, limit + 1) + b"x"
    done = run("demux", "--max-frame-size", cap, wire=wire)
    assert done.returncode == 1
    assert done.stderr.decode() == f"muxframe: -: frame of {limit + 1} bytes at offset 0 is larger than {limit}\n"
    done = run("demux", "--max-frame-size", cap, "--truncated=ignore", wire=struct.pack(">BxxxI", 1, limit) + b"x")
    assert (done.returncode, done.stdout) == (0, b"x")


@pytest.mark.parametrize("size", ["", "k", "-1", "1.5k", "64kb", "1T", "0x10"])
def test_sizes_that_are_none_are_misuse(size: str) -> None:
    done = run("demux", f"--max-frame-size={size}")
    assert done.returncode == 2
    assert b"usage: muxframe demux" in done.stderr and b"is not a size" in done.stderr


@pytest.mark.parametrize(
    "arguments", [("-o", "in"), ("-e", "in"), ("-o", "./in"), ("-o", "link"), ("-o", "out", "-e", "in")]
)
def test_demux_does_not_write_over_its_source(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    os.link("in", "link")
    done = run("demux", "in", *arguments)
    assert done.returncode == 2
    assert re.fullmatch(rb"muxframe: \S+: is both read and written\n", done.stderr)
    assert (tmp_path / "in").read_bytes() == WIRE


def test_demux_does_not_write_over_its_stdin_or_onto_it(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    with open("in", "rb") as file:
        assert run("demux", "-o", "in", stdin=file).returncode == 2
    with open("in", "ab") as file:
        done = run("demux", "in", stdout=file)
    assert (done.returncode, done.stderr) == (2, b"muxframe: standard output: is both read and written\n")
    assert (tmp_path / "in").read_bytes() == WIRE


def test_a_missing_source_is_one_line_and_leaves_the_outputs_alone(tmp_path: Path) -> None:
    (tmp_path / "out").write_bytes(b"kept")
    done = run("demux", "missing", "-o", "out")
    assert (done.returncode, done.stderr) == (1, b"muxframe: missing: No such file or directory\n")
    assert (tmp_path / "out").read_bytes() == b"kept"
    assert run("inspect", "missing").stderr == b"muxframe: missing: No such file or directory\n"
    assert run("mux", "missing").stderr == b"muxframe: missing: No such file or directory\n"


@posix
@pytest.mark.parametrize("command", ["demux", "inspect", "mux"])
def test_a_directory_is_no_source(command: str, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    done = run(command, "dir")
    assert (done.returncode, done.stdout, done.stderr) == (1, b"", b"muxframe: dir: Is a directory\n")


@posix
def test_outputs_that_cannot_be_opened_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    done = run("demux", "-o", "dir", wire=WIRE)
    assert (done.returncode, done.stderr) == (1, b"muxframe: dir: Is a directory\n")
    done = run("demux", "-o", "missing/out", wire=WIRE)
    assert (done.returncode, done.stderr) == (1, b"muxframe: missing/out: No such file or directory\n")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_a_source_that_may_not_be_read_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "secret").touch(mode=0)
    done = run("demux", "secret")
    assert (done.returncode, done.stderr) == (1, b"muxframe: secret: Permission denied\n")


@posix
@pytest.mark.parametrize("closed", [0, 1])
def test_a_closed_descriptor_is_one_line(closed: int, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    source = "-" if closed == 0 else "in"
    shell = ["sh", "-c", f'exec "$0" -m muxframe demux {source} {closed}<&-', sys.executable]
    done = subprocess.run(shell, stdin=subprocess.DEVNULL, capture_output=True, timeout=60)
    name = "-" if closed == 0 else "standard output"
    assert (done.returncode, done.stderr.decode()) == (1, f"muxframe: {name}: Bad file descriptor\n")


# --- demux --recover -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("from_file", [True, False])
def test_recover_reports_gaps_and_delivers_the_rest(from_file: bool, tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(DAMAGED)
    done = run("demux", "--recover", "in") if from_file else run("demux", "--recover", wire=DAMAGED)
    assert (done.returncode, done.stdout) == (1, STDOUT + 4 * b"after\n")
    bad, gap = done.stderr.decode().splitlines()
    assert bad == "bad"
    assert re.fullmatch(rf"muxframe: {'in' if from_file else '-'}: gap of 6 bytes at offset {len(WIRE)}: .+", gap)


def test_recover_of_a_good_stream_is_a_copy() -> None:
    done = run("demux", "--recover", "-e", "-", wire=WIRE)
    assert (done.returncode, done.stdout, done.stderr) == (0, MERGED, b"")


def test_recover_tells_a_daemons_error_and_goes_on() -> None:
    done = run("demux", "--recover", wire=WIRE + frame(3, b"oh no") + WIRE)
    assert (done.returncode, done.stdout) == (1, 2 * STDOUT)
    assert done.stderr.decode().splitlines() == ["bad", "muxframe: -: error from daemon in stream: oh no", "bad"]


def test_recover_takes_a_cap() -> None:
    wire = frame(1, b"x" * 2000) + 4 * frame(1, b"after")
    done = run("demux", "--recover", "--max-frame-size=1k", wire=wire)
    assert (done.returncode, done.stdout) == (1, 4 * b"after")
    assert b"gap of 2008 bytes at offset 0" in done.stderr


def test_recover_excludes_truncated() -> None:
    assert run("demux", "--recover", "--truncated=ignore").returncode == 2


# --- how it ends -----------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("merged", [True, False])
@pytest.mark.parametrize("options", [(), ("--recover",)])
def test_a_closed_pipe_is_quiet(merged: bool, options: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "big").write_bytes(frame(1, b"line\n" * 1000) * 2000)
    process = start("demux", "big", *options, *(("-e", "-") if merged else ()))
    with process:
        assert process.stdout and process.stderr
        assert process.stdout.read(5) == b"line\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


@posix
@pytest.mark.parametrize(
    "arguments",
    [("--version",), ("--help",), ("inspect", "in"), ("mux", "in"), ("demux", "in"), ("demux", "-e", "-", "in")],
)
def test_a_pipe_closed_from_the_start_is_quiet(arguments: tuple[str, ...], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        done = run(*arguments, stdout=pipe)
    assert (done.returncode, done.stderr) == (141, b"")


@posix
def test_a_closed_stderr_does_not_hide_the_exit_code() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "wb") as pipe:
        assert run("demux", "missing", stderr=pipe).returncode == 1
        assert run("demux", wire=WIRE, stderr=pipe).returncode == 141


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_is_named() -> None:
    done = run("demux", "-o", "/dev/full", wire=WIRE)
    text = "No space left on device (delivered: 0 bytes of stdout, 0 of stderr)"
    assert (done.returncode, done.stderr.decode()) == (1, f"muxframe: /dev/full: {text}\n")
    done = run("demux", "-e", "/dev/full", wire=WIRE)
    text = "No space left on device (delivered: 4 bytes of stdout, 0 of stderr)"
    assert (done.returncode, done.stdout, done.stderr.decode()) == (1, b"one\n", f"muxframe: /dev/full: {text}\n")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
@pytest.mark.parametrize("arguments", [("--version",), ("--help",), ("inspect",), ("mux",), ("demux", "-e", "-")])
def test_a_full_stdout_is_named(arguments: tuple[str, ...]) -> None:
    with open("/dev/full", "wb") as full:
        done = run(*arguments, wire=WIRE, stdout=full)
    assert done.returncode == 1
    assert re.fullmatch(r"muxframe: standard output: No space left on device( \(.*\))?\n", done.stderr.decode())


@posix
def test_what_a_filling_disk_took_is_told(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))  # Python ignores SIGXFSZ

    done = run("demux", "-o", "out", wire=frame(1, b"x" * 6000) * 3, preexec_fn=limit)
    assert done.returncode == 1
    assert re.fullmatch(
        r"muxframe: out: File too large \(delivered: 10000 bytes of stdout, 0 of stderr\)\n", done.stderr.decode()
    )
    assert (tmp_path / "out").read_bytes() == b"x" * 10_000


@posix
@pytest.mark.parametrize("command", [("demux",), ("demux", "--recover")])
def test_an_interrupt_while_waiting_delivers_what_came(command: tuple[str, ...]) -> None:
    os.mkfifo("fifo")
    process = start(*command, "fifo", "-o", "out")
    with process:
        writer = os.open("fifo", os.O_WRONLY)
        os.write(writer, WIRE + b"\x01\0\0\0\0\0\0\x07par")
        wait_until(lambda: queued(writer) == 0)
        time.sleep(0.1)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        os.close(writer)
    assert process.returncode == -signal.SIGINT
    assert (Path("out").read_bytes(), out, err) == (STDOUT + b"par", b"", STDERR)


@posix
@pytest.mark.parametrize("command", ["demux", "inspect", "mux"])
def test_an_interrupt_before_the_first_byte_is_quiet(command: str) -> None:
    os.mkfifo("fifo")
    process = start(command, "fifo")
    with process:
        writer = os.open("fifo", os.O_WRONLY)  # returns when the command has opened it
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
        os.close(writer)
    assert (process.returncode, err) == (-signal.SIGINT, b"")


@posix
def test_an_interrupt_is_not_lost_before_a_fifo_has_a_writer() -> None:
    os.mkfifo("fifo")
    process = start("demux", "fifo")
    with process:
        wait_until_idle(process)
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=60) == (b"", b"")
    assert process.returncode == -signal.SIGINT


@posix
@pytest.mark.parametrize("after", [1, 300_000, 3_000_000])
def test_an_interrupt_in_a_long_copy_delivers_all_that_was_read(after: int, tmp_path: Path) -> None:
    with sparse(tmp_path / "big", 0xFFFF_FFFF).open("rb") as source:
        process = start("demux", stdin=source)
        with process:
            assert process.stdout and process.stderr
            delivered = len(process.stdout.read(after))
            process.send_signal(signal.SIGINT)
            while piece := process.stdout.read(MIB):
                delivered += len(piece)
            assert process.stderr.read() == b""
        assert process.returncode == -signal.SIGINT
        assert delivered == os.lseek(source.fileno(), 0, os.SEEK_CUR) - 8 < 0xFFFF_FFFF


@posix
def test_an_interrupt_ends_a_copy_that_nobody_takes(tmp_path: Path) -> None:
    sparse(tmp_path / "big", 100 * MIB)
    process = start("demux", "big")
    with process:
        assert process.stdout and process.stderr
        process.stdout.read(1)
        time.sleep(0.2)  # the pipe is full by now
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == -signal.SIGINT
        assert process.stderr.read() == b""


@posix
def test_an_ignored_interrupt_stays_ignored() -> None:
    ignore = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_IGN); os.execv(sys.executable, sys.argv[1:])"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", ignore, *COMMAND, "demux"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with process:
        assert process.stdin and process.stdout
        process.stdin.write(frame(1, b"one"))
        process.stdin.flush()
        assert process.stdout.read(3) == b"one"
        process.send_signal(signal.SIGINT)
        process.stdin.write(frame(1, b"two"))
        process.stdin.close()
        assert process.stdout.read() == b"two"
    assert process.returncode == 0


def test_misuse_is_2() -> None:
    for arguments in ((), ("unknown",), ("demux", "--unknown"), ("demux", "--trunc", "ignore"), ("completion", "cmd")):
        done = run(*arguments)
        assert (done.returncode, done.stdout) == (2, b"")
        assert done.stderr.startswith(b"usage: muxframe")


@pytest.mark.parametrize("command", [(), ("demux",), ("mux",), ("inspect",), ("completion",), ("man",)])
def test_help_tells_the_exit_codes(command: tuple[str, ...]) -> None:
    done = run(*command, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert [int(code) for code in re.findall(rb"(?m)^  (\d+)  ", done.stdout)] == [0, 1, 2, 130, 141]


def test_main_returns_its_exit_code(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from muxframe.cli import main

    (tmp_path / "in").write_bytes(WIRE)
    before = signal.getsignal(signal.SIGINT)
    assert main(["demux", "in"]) == 0
    assert capfd.readouterr() == (STDOUT.decode(), STDERR.decode())
    assert main(["demux", "missing"]) == 1
    assert main(["--unknown"]) == 2
    assert main(["--version"]) == 0
    assert signal.getsignal(signal.SIGINT) is before
    results: list[int] = []
    thread = threading.Thread(target=lambda: results.append(main(["demux", "in", "-o", "out"])))
    thread.start()
    thread.join()
    assert results == [0]


# --- version, start-up, progress -------------------------------------------------------------------------------------


def test_version_names_the_backend() -> None:
    python = re.escape(".".join(map(str, sys.version_info[:3])))
    done = run("--version")
    text = {
        "cython": r"cython backend",
        "python": r"python backend(, as MUXFRAME_BACKEND asks|: the compiled core was not built)",
    }[muxframe.BACKEND]
    pattern = rf"muxframe {re.escape(muxframe.__version__)} \({text}\), Python {python} \(\w+\)\n"
    assert (done.returncode, done.stderr) == (0, b"")
    assert re.fullmatch(pattern, done.stdout.decode().replace("\r\n", "\n"))


def test_version_names_the_backend_that_is_asked_for() -> None:
    done = run("--version", env=environment(MUXFRAME_BACKEND="python"))
    assert b" (python backend, as MUXFRAME_BACKEND asks), Python " in done.stdout
    pytest.importorskip("muxframe._framing_c")
    done = run("--version", env=environment(MUXFRAME_BACKEND="cython"))
    assert b" (cython backend), Python " in done.stdout


def test_a_backend_that_is_none_fails() -> None:
    done = run("--version", env=environment(MUXFRAME_BACKEND="fast"))
    assert (done.returncode, done.stdout) == (1, b"")
    assert b"MUXFRAME_BACKEND must be 'cython' or 'python', not 'fast'" in done.stderr


@pytest.mark.parametrize("arguments", [["--version"], ["demux", "in", "-o", "out"], ["mux", "in", "-o", "out"]])
def test_start_up_imports_little(arguments: list[str], tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    program = (
        "import sys; before = set(sys.modules)\n"
        "from muxframe.cli import main\n"
        f"main({arguments})\n"
        "print(*sorted(set(sys.modules) - before), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, timeout=60)
    imported = set(done.stderr.decode().split("\n")[-2].split())
    heavy = {"asyncio", "ssl", "socket", "rich", "typing_extensions", "inspect", "dataclasses", "json", "shtab", "h11"}
    assert "muxframe.cli" in imported
    assert not imported & heavy


def watch_terminal(*arguments: str, **options: Any) -> tuple[int, bytes]:
    """Run with stderr on a terminal; return the exit code and what was drawn."""
    terminal, end = pty.openpty()
    process = start(*arguments, stderr=end, **{"stdout": subprocess.DEVNULL, **options})
    os.close(end)
    drawn = b""
    with process:
        while select.select([terminal], [], [], 60)[0]:
            try:
                piece = os.read(terminal, 4096)
            except OSError:  # Linux's way to say that the other end is closed
                break
            if not piece:
                break
            drawn += piece
    os.close(terminal)
    return process.returncode, drawn


@posix
def test_progress_is_drawn_on_a_terminal(tmp_path: Path) -> None:
    pytest.importorskip("rich")
    sparse(tmp_path / "large", 65 * MIB)
    options = {"env": environment(TERM="xterm", COLUMNS="100")}
    status, drawn = watch_terminal("demux", "large", "-e", "err", **options)
    assert status == 0
    assert b"large" in drawn and b"MiB" in drawn
    assert watch_terminal("demux", "large", "-e", "err", "--no-progress", **options) == (0, b"")


@posix
def test_progress_is_not_drawn_where_it_would_disturb(tmp_path: Path) -> None:
    sparse(tmp_path / "large", 65 * MIB)
    (tmp_path / "small").write_bytes(WIRE)
    options = {"env": environment(TERM="xterm")}
    assert watch_terminal("demux", "large", **options) == (0, b"")  # stderr's payload goes there
    assert watch_terminal("demux", "small", "-e", "err", **options) == (0, b"")
    assert run("demux", "large", "-o", "out").stderr == b""


@posix
def test_progress_does_without_rich(tmp_path: Path) -> None:
    sparse(tmp_path / "large", 65 * MIB)
    assert watch_terminal("demux", "large", "-e", "err", env=without("rich", tmp_path)) == (0, b"")


# --- mux -------------------------------------------------------------------------------------------------------------


def test_mux_of_two_files_is_undone_by_demux(tmp_path: Path) -> None:
    stdout, stderr = random.Random(1).randbytes(200_000), random.Random(2).randbytes(70_000)
    (tmp_path / "out").write_bytes(stdout)
    (tmp_path / "err").write_bytes(stderr)
    wire = run("mux", "out", "err").stdout
    sizes = [(stream, len(payload)) for stream, payload in muxframe.frames(wire)]
    assert sizes[:6] == [(1, 32768), (2, 32768)] * 2 + [(1, 32768), (2, 70_000 - 65536)]
    done = run("demux", wire=wire)
    assert (done.stdout, done.stderr) == (stdout, stderr)
    assert run("mux", "--stdout", "out", "--stderr", "err").stdout == wire
    assert run("mux", "out", "-e", "err", "-o", "wire").returncode == 0
    assert (tmp_path / "wire").read_bytes() == wire


def test_mux_of_one(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    assert run("mux", "text").stdout == frame(1, b"text")
    assert run("mux", "--stderr", "text").stdout == frame(2, b"text")
    assert run("mux", wire=b"text").stdout == frame(1, b"text")
    assert run("mux", "-", wire=b"text").stdout == frame(1, b"text")
    assert run("mux", "--stderr", "-", wire=b"text").stdout == frame(2, b"text")
    assert run("mux", "text", "-", wire=b"").stdout == frame(1, b"text")
    assert run("mux", "--frame-size=3", "text").stdout == frame(1, b"tex") + frame(1, b"t")
    assert run("mux", wire=b"").stdout == b""


def test_mux_misused(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(b"text")
    assert run("mux", "-", "-").returncode == 2
    assert run("mux", "text", "--stdout", "text").returncode == 2
    assert run("mux", "--frame-size=0").returncode == 2
    assert run("mux", "--frame-size=4G").returncode == 2
    assert run("mux", "text", "-o", "text").returncode == 2
    assert (tmp_path / "text").read_bytes() == b"text"


@posix
@pytest.mark.parametrize("first", ["out", "err"])
def test_mux_frames_what_arrives_on_either_fifo(first: str) -> None:
    os.mkfifo("out")
    os.mkfifo("err")
    process = start("mux", "out", "err")
    with process:
        assert process.stdout
        second = "err" if first == "out" else "out"
        fifos = {name: os.open(name, os.O_WRONLY) for name in (first, second)}
        for name, stream in (("err", 2), ("out", 1), ("err", 2)):
            os.write(fifos[name], name.encode())
            assert process.stdout.read(11) == frame(stream, name.encode())
        os.close(fifos["out"])
        os.write(fifos["err"], b"last")
        assert process.stdout.read(12) == frame(2, b"last")
        os.close(fifos["err"])
        assert process.stdout.read() == b""
    assert process.returncode == 0


@posix
def test_mux_to_demux_through_pipes() -> None:
    os.mkfifo("out")
    os.mkfifo("err")
    stdout, stderr = random.Random(3).randbytes(3_000_000), random.Random(4).randbytes(1_000_000)
    writers = [write_later("out", stdout), write_later("err", stderr)]
    with start("mux", "out", "err") as mux, start("demux", "-e", "stderr", stdin=mux.stdout) as demux:
        assert demux.stdout
        assert demux.stdout.read() == stdout
    for writer in writers:
        writer.join()
    assert (mux.returncode, demux.returncode) == (0, 0)
    assert Path("stderr").read_bytes() == stderr


@posix
def test_mux_interrupted_leaves_whole_frames() -> None:
    process = start("mux", "/dev/zero")
    with process:
        assert process.stdout and process.stderr
        wire = process.stdout.read(100_000)
        process.send_signal(signal.SIGINT)
        wire += process.stdout.read()
        assert process.stderr.read() == b""
    assert process.returncode == -signal.SIGINT
    assert not any(muxframe.demux(wire).stdout)


# --- inspect ---------------------------------------------------------------------------------------------------------


def inspect(*arguments: str, wire: bytes = b"", status: int = 0) -> dict[str, Any]:
    done = run("inspect", "--json", *arguments, wire=wire)
    assert (done.returncode, done.stderr) == (status, b"")
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def tally(frames: int, payload_size: int, empty_frames: int = 0, sizes: dict[int, int] | None = None) -> dict[str, Any]:
    return {
        "frames": frames,
        "payload_size": payload_size,
        "empty_frames": empty_frames,
        "sizes": [{"from": low, "to": 2 * low - 1, "frames": count} for low, count in (sizes or {}).items()],
    }


def test_inspect_a_good_stream() -> None:
    assert inspect(wire=WIRE) == {
        "source": "-",
        "wire_size": len(WIRE),
        "frames": 5,
        "payload_size": 18,
        "streams": {
            "stdin": tally(1, 4, 0, {4: 1}),
            "stdout": tally(2, 10, 0, {4: 2}),
            "stderr": tally(2, 4, 1, {4: 1}),
            "systemerr": tally(0, 0),
        },
        "largest": {"stream": "stdout", "offset": 44, "size": 6},
        "smallest": {"stream": "stderr", "offset": 36, "size": 0},
        "fault": None,
        "systemerr": None,
        "truncated": False,
        "raw_tty": {"suspected": False, "reason": None},
        "gaps": None,
        "interrupted": False,
    }


def test_inspect_as_text(tmp_path: Path) -> None:
    (tmp_path / "in").write_bytes(WIRE)
    done = run("inspect", "in")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith(f"in: {len(WIRE)} bytes of wire, 5 frames, 18 bytes of payload\n")
    assert re.search(r"(?m)^stderr +2 +1 +4$", text)
    assert re.search(r"(?m)^ +4 \.\. +7 #+ +2$", text)
    assert re.search(r"(?m)^largest +6 bytes, stdout, at offset 44$", text)
    assert text.endswith("\nno faults\n")


def test_inspect_nothing() -> None:
    report = inspect()
    assert (report["wire_size"], report["frames"], report["fault"], report["largest"]) == (0, 0, None, None)
    assert run("inspect").stdout.endswith(b"0 bytes of payload\n\nno faults\n")


@pytest.mark.parametrize("cut", range(1, 14))
def test_inspect_a_truncated_stream(cut: int) -> None:
    report = inspect(wire=WIRE[:-cut], status=1)
    with pytest.raises(muxframe.TruncatedStreamError) as caught:
        muxframe.demux(WIRE[:-cut])
    assert report["fault"] == {"error": "TruncatedStreamError", "offset": len(WIRE) - 14, "text": str(caught.value)}
    assert (report["truncated"], report["wire_size"], report["frames"]) == (True, len(WIRE) - cut, 4)
    assert report["payload_size"] == 12 + max(0, 6 - cut)
    assert report["largest"]["size"] == 4


@pytest.mark.parametrize(
    "damage", [b"x", b"\4\0", b"\1\0\1", b"\1\0\1\0\0\0\0\0", b"\1\0\0\0\0\0\0\x07", b"hello, this is no frame"]
)
@pytest.mark.parametrize("before", [b"", WIRE])
def test_inspect_says_what_the_library_says(damage: bytes, before: bytes) -> None:
    wire = before + damage
    with pytest.raises(muxframe.FramingError) as caught:
        muxframe.demux(wire, max_frame_size=6)
    report = inspect("--max-frame-size=6", wire=wire, status=1)
    fault = {"error": type(caught.value).__name__, "offset": caught.value.offset, "text": str(caught.value)}
    assert report["fault"] == fault
    assert report["frames"] == (5 if before else 0)
    assert (
        f"fault: {fault['error']}: {fault['text']}\n" in run("inspect", "--max-frame-size=6", wire=wire).stdout.decode()
    )


def test_inspect_suspects_a_raw_stream() -> None:
    report = inspect(wire=b"\x1b[1mhello\r\n", status=1)
    assert report["raw_tty"] == {
        "suspected": True,
        "reason": "the first byte is 0x1b, where a multiplexed stream has a number from 0 to 3",
    }
    assert (report["fault"]["error"], report["fault"]["offset"], report["wire_size"]) == ("UnknownStreamError", 0, 0)
    assert b"\nprobably a raw (TTY) stream: the first byte is 0x1b" in run("inspect", wire=b"\x1b[1mhello").stdout


def test_inspect_does_not_take_an_error_body_or_damage_for_a_raw_stream() -> None:
    report = inspect(wire=b'{"message": "no such container"}', status=1)
    assert not report["raw_tty"]["suspected"]
    assert "JSON error body" in report["fault"]["text"]
    assert not inspect(wire=WIRE + b"hello", status=1)["raw_tty"]["suspected"]


def test_inspect_shows_a_daemons_error() -> None:
    wire = WIRE + frame(3, b"oh no\x1b[2J")
    report = inspect(wire=wire + WIRE, status=1)
    assert report["systemerr"] == "oh no\x1b[2J"
    assert report["fault"]["error"] == "DaemonError" and report["fault"]["offset"] == len(WIRE)
    assert (report["wire_size"], report["streams"]["systemerr"]["frames"]) == (len(wire), 1)
    text = run("inspect", wire=wire).stdout
    assert b"fault: DaemonError: error from daemon in stream: oh no\\x1b[2J\n" in text
    assert inspect(wire=WIRE + frame(3, b""), status=1)["systemerr"] == ""
    report = inspect(wire=wire[:-5], status=1)
    assert (report["systemerr"], report["fault"]["error"]) == ("oh no\x1b[2J"[:-5], "DaemonError")
    endless = inspect(wire=b"\3\0\0\0\xff\xff\xff\xff" + b"x" * 100_000, status=1)
    assert endless["systemerr"] == "x" * 65536


def test_inspect_counts_empty_frames() -> None:
    report = inspect(wire=3 * frame(1, b"") + 2 * frame(2, b""))
    assert report["streams"]["stdout"] == tally(3, 0, 3)
    assert report["streams"]["stderr"] == tally(2, 0, 2)
    assert (report["largest"]["size"], report["smallest"]["offset"]) == (0, 0)


def test_inspect_takes_any_cuts() -> None:
    from muxframe.cli.inspect import inspect_wire

    for wire in (WIRE, WIRE[:-3], WIRE[:-10], WIRE + b"x", WIRE + frame(3, b"text"), WIRE + frame(3, b"text")[:-2]):
        whole = inspect_wire([memoryview(wire)])
        for size in range(1, 20):
            blocks = [memoryview(wire)[start : start + size] for start in range(0, len(wire), size)]
            cut = inspect_wire(blocks)
            assert str(cut.fault) == str(whole.fault)
            cut.fault = whole.fault
            assert cut == whole


def test_inspect_sums_up_many_sizes() -> None:
    wire = b"".join(frame(1 + size % 2, b"x" * size) for size in range(6000))
    report = inspect(wire=wire)
    assert (report["frames"], report["payload_size"]) == (6000, sum(range(6000)))
    assert report["streams"]["stdout"]["sizes"][-1] == {"from": 4096, "to": 8191, "frames": (6000 - 4096) // 2}


@posix
@pytest.mark.slow
def test_inspect_needs_no_memory_for_large_frames_from_a_pipe(tmp_path: Path) -> None:
    sparse(tmp_path / "big", 300 * MIB, tail=WIRE)
    program = (
        "import resource, subprocess, sys\n"
        "cat = subprocess.Popen(['cat', 'big'], stdout=subprocess.PIPE)\n"
        "done = subprocess.run([*sys.argv[1:], 'inspect', '--json'], stdin=cat.stdout, capture_output=True)\n"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)\n"
        "sys.stdout.flush(); sys.stdout.buffer.write(done.stdout)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *COMMAND], capture_output=True, check=True, timeout=60)
    peak, _, text = done.stdout.partition(b"\n")
    report = json.loads(text)
    assert report["largest"] == {"stream": "stdout", "offset": 0, "size": 300 * MIB}
    assert (report["frames"], report["wire_size"]) == (6, 8 + 300 * MIB + len(WIRE))
    assert int(peak) < 100 * 1024 * (1024 if sys.platform == "darwin" else 1)  # KiB, or bytes there


def test_inspect_counts_frames_of_4_gib() -> None:
    from muxframe.cli.inspect import inspect_wire

    zeros = memoryview(bytes(0x10_0000))
    blocks = [memoryview(b"\1\0\0\0\xff\xff\xff\xff"), *[zeros] * 4095, zeros[1:], memoryview(WIRE)]
    report = inspect_wire(blocks)
    assert report.largest is not None and report.largest.size == 0xFFFF_FFFF
    assert (report.frames, report.wire_size, report.fault) == (6, 8 + 0xFFFF_FFFF + len(WIRE), None)


@posix
def test_inspect_interrupted_reports_what_was_there() -> None:
    process = start("inspect", "--json", stdin=subprocess.PIPE)
    with process:
        assert process.stdin and process.stdout
        process.stdin.write(WIRE[:-2])
        process.stdin.flush()
        wait_until(lambda: queued(process.stdin.fileno()) == 0)  # type: ignore[union-attr]
        time.sleep(0.2)
        process.send_signal(signal.SIGINT)
        report = json.loads(process.stdout.read())
    assert process.returncode == -signal.SIGINT
    assert (report["interrupted"], report["fault"], report["frames"]) == (True, None, 4)


def test_inspect_recover_lists_gaps() -> None:
    report = inspect("--recover", wire=DAMAGED + frame(3, b"oh no"), status=1)
    assert [(gap["offset"], gap["size"]) for gap in report["gaps"]] == [(len(WIRE), 6)]
    assert report["gaps"][0]["reason"]
    assert (report["wire_size"], report["frames"]) == (len(DAMAGED) + 13, 10)
    assert (report["fault"]["error"], report["fault"]["offset"]) == ("UnknownStreamError", len(WIRE))
    assert report["systemerr"] == "oh no"
    assert f"\ngap of 6 bytes at offset {len(WIRE)}: " in run("inspect", "--recover", wire=DAMAGED).stdout.decode()


def test_inspect_recover_of_good_and_cut_streams() -> None:
    plain, recovered = inspect(wire=WIRE), inspect("--recover", wire=WIRE)
    assert recovered == {**plain, "gaps": []}
    report = inspect("--recover", wire=WIRE[:-3], status=1)
    assert (report["truncated"], report["frames"], report["payload_size"]) == (True, 4, 15)


# --- completion and man ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh", "fish"])
def test_completion(shell: str) -> None:
    shtab = pytest.importorskip("shtab")
    if shell not in shtab.SUPPORTED_SHELLS:
        pytest.skip(f"this shtab does not know {shell}")
    done = run("completion", shell)
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert all(word in text for word in ("demux", "inspect", "max-frame-size", "truncated"))
    assert shtab.FILE[shell] in text


@posix
def test_bash_completes_commands_options_and_files(tmp_path: Path) -> None:
    pytest.importorskip("shtab")
    (tmp_path / "stream.bin").touch()
    (tmp_path / "muxframe.bash").write_bytes(run("completion", "bash").stdout)
    for words, expected in (
        ("muxframe dem", "demux"),
        ("muxframe demux --trunc", "--truncated"),
        ("muxframe demux st", "stream.bin"),
    ):
        script = (
            f"source ./muxframe.bash; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1))\n"
            "_shtab_muxframe; printf '%s\\n' \"${COMPREPLY[@]}\""
        )
        done = subprocess.run(["bash", "-c", script], capture_output=True, timeout=60)
        assert expected in done.stdout.decode().split(), done.stderr


def test_man_page() -> None:
    pytest.importorskip("argparse_manpage")
    done = run("man")
    text = done.stdout.decode()
    assert (done.returncode, done.stderr) == (0, b"")
    assert text.startswith('.TH MUXFRAME "1"')
    assert all(word in text for word in ("demux", "inspect", "wire_size", "141", "outlives", "contender"))


@pytest.mark.parametrize(("command", "module"), [("completion bash", "shtab"), ("man", "argparse_manpage")])
def test_what_is_not_installed_is_named(command: str, module: str, tmp_path: Path) -> None:
    done = run(*command.split(), env=without(module, tmp_path))
    package = module.replace("_", "-")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode().splitlines() == [f"muxframe: this needs {package}: pip install 'muxframe[cli]'"]


# --- helpers that wait -----------------------------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def wait_until_idle(process: subprocess.Popen[bytes]) -> None:
    """Wait until process has come to where it waits for something: it has worked, and works no more."""
    stat = Path(f"/proc/{process.pid}/stat")
    if not stat.exists():
        time.sleep(1)
        return
    used = [0]  # ticks of processor time
    while not used[-1] or len(set(used[-20:])) > 1:
        time.sleep(0.02)
        used.append(sum(map(int, stat.read_text().rpartition(")")[2].split()[11:13])))


def queued(descriptor: int) -> int:
    """Bytes in a pipe that its reader has not read."""
    import array
    import fcntl
    import termios

    size = array.array("i", [0])
    fcntl.ioctl(descriptor, termios.FIONREAD, size)
    return size[0]
