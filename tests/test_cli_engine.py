"""`muxframe attach`, `exec` and `logs`, run as processes: against the loopback engine, and (live) against real ones."""

from __future__ import annotations

import base64
import json
import os
import random
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from live import FOREVER, PATIENCE, STDIN, Live, eventually
from terminals import Terminal, elsewhere, posix, run, start

from muxframe.testing import Container, Fault, LoopbackEngine, Process, cat, say

__all__ = ["elsewhere"]  # a fixture for all tests here

MIB = 1024 * 1024
DETACH = b"\x10\x11"


# --- scripts ---------------------------------------------------------------------------------------------------------


def echo(process: Process) -> int:
    """A shell's stand-in: show what is typed; q ends it with 7."""
    process.write(b"ready\r\n")
    while data := process.stdin.read(4096):
        process.write(b"<%s>" % data)
        if b"q" in data:
            return 7
    return 3


def watch_size(process: Process) -> int:
    process.write(b"ready\r\n")
    while True:
        process.write(b"%d x %d\r\n" % process.wait_for_resize(30))


def ignore_signals(process: Process) -> int:
    """Report each signal and live on, until TERM."""
    from muxframe.testing import Killed

    process.write(b"ready\n")
    while True:
        try:
            process.sleep(0.02)
        except Killed as killed:
            process.write(b"got %d\n" % killed.signal)
            if killed.signal == signal.SIGTERM:
                return 5


def yes(process: Process) -> None:
    while True:
        process.write(b"y\n" * 1000)


COMMANDS: dict[str, Any] = {
    "true": say(),
    "seven": say(b"out\n", (2, b"err\n"), exit_code=7),
    "killed": say(exit_code=137),
    "cat": cat,
    "echo": echo,
    "size": watch_size,
    "sleep": lambda process: process.sleep(),
}


@pytest.fixture(params=["docker", "podman"])
def engine(request: pytest.FixtureRequest) -> Iterator[LoopbackEngine]:
    with LoopbackEngine(flavor=request.param, on_exec=COMMANDS) as engine:
        engine.add(Container("idle"))
        yield engine


@pytest.fixture
def docker() -> Iterator[LoopbackEngine]:
    with LoopbackEngine(on_exec=COMMANDS) as engine:
        engine.add(Container("idle"))
        yield engine


# --- exec ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("command", "code"), [("true", 0), ("seven", 7), ("killed", 137)])
def test_exec_hands_the_exit_code_on(command: str, code: int, engine: LoopbackEngine) -> None:
    done = run(engine.host, "exec", "idle", command)
    assert done.returncode == code
    assert (done.stdout, done.stderr) == ((b"out\n", b"err\n") if code == 7 else (b"", b""))


def test_exec_of_a_missing_command_is_126_or_127(engine: LoopbackEngine) -> None:
    done = run(engine.host, "exec", "idle", "nosuch")
    assert done.returncode in (126, 127)
    assert b"nosuch" in done.stdout + done.stderr


def test_exec_passes_its_options_on(docker: LoopbackEngine) -> None:
    run(
        docker.host, "exec", "-e", "A=b=c", "--env", "HERE", "-e", "NOT_HERE", "-u", "1:2", "-w", "/tmp",
        "--privileged", "--detach-keys", "ctrl-x,a", "-i", "idle", "true", "-e", "--user", "x", "--", "-i",
        env={**os.environ, "HERE": "x y"},
    )  # fmt: skip
    config = docker.execs[-1].config
    assert config["Cmd"] == ["true", "-e", "--user", "x", "--", "-i"]
    assert config["Env"] == ["A=b=c", "HERE=x y"]
    assert (config["User"], config["WorkingDir"], config["Privileged"]) == ("1:2", "/tmp", True)
    assert (config["DetachKeys"], config["AttachStdin"], config["Tty"]) == ("ctrl-x,a", True, False)


def test_exec_reads_files_of_variables(docker: LoopbackEngine, tmp_path: Path) -> None:
    path = tmp_path / "variables"
    path.write_bytes("\ufeffA=1 \r\n# B=2\n\n  C= x=y\u2028z\nHERE\nNOT_HERE\nD=".encode())
    options = ("--env-file", str(path), "-e", "A=2")
    run(docker.host, "exec", *options, "idle", "true", env={**os.environ, "HERE": "x y"})
    assert docker.execs[-1].config["Env"] == ["A=1 ", "C= x=y\u2028z", "HERE=x y", "D=", "A=2"]


@pytest.mark.parametrize("line", ["A B=1", "=1", "A =1", "A B", "\xff=1"])
def test_exec_refuses_files_of_something_else(docker: LoopbackEngine, tmp_path: Path, line: str) -> None:
    path = tmp_path / "variables"
    path.write_bytes(line.encode("latin-1"))
    count = len(docker.execs)
    done = run(docker.host, "exec", "--env-file", str(path), "idle", "true")
    assert (done.returncode, done.stdout, len(docker.execs)) == (1, b"", count)
    assert done.stderr.startswith(b"muxframe: %s" % os.fsencode(path))


@pytest.mark.parametrize("arguments", [("idle", "-t", "true"), ("--", "idle", "-t", "true")])
def test_exec_leaves_what_follows_the_container_to_the_command(
    arguments: tuple[str, ...], docker: LoopbackEngine
) -> None:
    run(docker.host, "exec", *arguments)
    assert docker.execs[-1].config["Cmd"] == ["-t", "true"]
    assert docker.execs[-1].config["Tty"] is False


@pytest.mark.parametrize("size", [0, 3, 3 * MIB])
def test_exec_reads_a_pipe_to_its_end(size: int, engine: LoopbackEngine) -> None:
    data = random.Random(size).randbytes(size)
    done = run(engine.host, "exec", "-i", "idle", "cat", input=data)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


def test_exec_reads_a_file_to_its_end(engine: LoopbackEngine) -> None:
    data = random.Random(1).randbytes(200_000)
    Path("in").write_bytes(data)
    with open("in", "rb") as file:
        done = run(engine.host, "exec", "-i", "idle", "cat", stdin=file)
    assert (done.returncode, done.stdout == data, done.stderr) == (0, True, b"")


def test_exec_without_i_leaves_stdin_alone(engine: LoopbackEngine) -> None:
    Path("in").write_bytes(b"mine")
    with open("in", "rb") as file:
        assert run(engine.host, "exec", "idle", "true", stdin=file).returncode == 0
        assert file.read() == b"mine"


@posix
def test_a_stdin_that_cannot_be_read_is_told(engine: LoopbackEngine) -> None:
    with open("written", "wb") as file:
        done = run(engine.host, "exec", "-i", "idle", "cat", stdin=file)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"muxframe: standard input: Bad file descriptor\n"


def test_input_is_not_written_over(engine: LoopbackEngine) -> None:
    Path("in").write_bytes(b"mine")
    with open("in", "rb") as file:
        done = run(engine.host, "exec", "-i", "--stdout", "in", "idle", "cat", stdin=file)
    assert done.returncode == 2
    assert Path("in").read_bytes() == b"mine"
    assert not engine.execs


# --- outputs ---------------------------------------------------------------------------------------------------------


def test_outputs_in_files_are_what_was_written_byte_for_byte(engine: LoopbackEngine) -> None:
    out, err = random.Random(2).randbytes(10 * MIB), random.Random(3).randbytes(MIB)
    engine.on_exec = {"big": say(out[: 5 * MIB], (2, err), out[5 * MIB :])}
    done = run(engine.host, "exec", "--stdout", "out", "--stderr", "err", "idle", "big")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert Path("out").read_bytes() == out
    assert Path("err").read_bytes() == err


def test_outputs_merged_on_stdout(engine: LoopbackEngine) -> None:
    done = run(engine.host, "exec", "--stderr", "-", "idle", "seven")
    assert (done.returncode, done.stdout, done.stderr) == (7, b"out\nerr\n", b"")


@posix
@pytest.mark.parametrize("json_option", [(), ("--json",)])
def test_a_closed_pipe_is_quiet(json_option: tuple[str, ...], engine: LoopbackEngine) -> None:
    engine.on_exec = {"yes": yes}
    process = start(engine.host, "exec", *json_option, "idle", "yes")
    with process:
        assert process.stdout and process.stderr
        process.stdout.read(10)
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 141


def test_a_full_disk_is_named(engine: LoopbackEngine) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    done = run(engine.host, "exec", "--stdout", "/dev/full", "idle", "seven")
    assert done.returncode == 1
    assert re.fullmatch(rb"(err\n)?muxframe: /dev/full: No space left on device \(delivered: .*\)\n", done.stderr)


def test_json_of_lines(engine: LoopbackEngine) -> None:
    engine.on_exec = {"x": say("é\n".encode(), (2, b"bad\r\n"), b"\xff\x00\nun", b"finished", exit_code=4)}
    done = run(engine.host, "exec", "--json", "idle", "x")
    assert (done.returncode, done.stderr) == (4, b"")
    assert [json.loads(line) for line in done.stdout.splitlines()] == [
        {"stream": "stdout", "data": "é"},
        {"stream": "stderr", "data": "bad"},
        {"stream": "stdout", "base64": base64.b64encode(b"\xff\x00").decode()},
        {"stream": "stdout", "data": "unfinished"},
    ]


def test_json_of_logs_tells_times_and_details(docker: LoopbackEngine) -> None:
    docker.add(Container("web", state="exited", log=[(1, b"one\n", 10**18 + 5)], log_details={"k": "v"}))
    done = run(docker.host, "logs", "--json", "-t", "--details", "web")
    assert json.loads(done.stdout) == {
        "stream": "stdout",
        "timestamp": "2001-09-09T01:46:40.000000005Z",
        "details": {"k": "v"},
        "data": "one",
    }


def test_json_marks_lines_that_are_cut(docker: LoopbackEngine) -> None:
    docker.on_exec = {"x": say(b"x" * MIB + b"yz\n")}
    first, second = map(json.loads, run(docker.host, "exec", "--json", "idle", "x").stdout.splitlines())
    assert (len(first["data"]), first["partial"]) == (MIB, True)
    assert second == {"stream": "stdout", "data": "yz"}


def test_json_excludes_stderr(docker: LoopbackEngine) -> None:
    assert run(docker.host, "logs", "--json", "--stderr", "x", "idle").returncode == 2
    assert not Path("x").exists()


# --- logs ------------------------------------------------------------------------------------------------------------


def test_logs_pass_their_options_on(docker: LoopbackEngine) -> None:
    docker.add(Container("web", state="exited", log=[(1, b"one\n"), (2, b"two\n")]))
    done = run(docker.host, "logs", "web")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\n", b"two\n")
    plain = docker.requests[-1].query
    assert (plain["follow"], plain["tail"], plain["timestamps"], plain["details"]) == ("0", "all", "0", "0")
    options = ["-f", "-n", "5", "-t", "--details", "--since", "2001-09-09T01:46:40Z", "--until", "1m"]
    assert run(docker.host, "logs", *options, "web").returncode == 0
    query = next(each for each in reversed(docker.requests) if each.path.endswith("/logs")).query
    assert (query["follow"], query["tail"], query["timestamps"], query["details"]) == ("1", "5", "1", "1")
    assert query["since"] == "1000000000.000000000"
    assert abs(float(query["until"]) + 60 - time.time()) < 30


@posix
def test_logs_followed_are_live_and_end_by_an_interrupt(engine: LoopbackEngine) -> None:
    def script(process: Process) -> None:
        process.write(b"one\n")
        process.sleep()

    engine.add(Container("web", script))
    process = start(engine.host, "logs", "--follow", "web")
    with process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert (process.wait(PATIENCE), process.stdout.read(), process.stderr.read()) == (-signal.SIGINT, b"", b"")


# --- errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", [("attach", "nosuch"), ("exec", "nosuch", "ls"), ("logs", "nosuch")])
def test_no_such_container_is_one_line(command: tuple[str, ...], engine: LoopbackEngine) -> None:
    done = run(engine.host, *command)
    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(r"muxframe: 404 .*no such container.*\n", done.stderr.decode(), re.IGNORECASE)


@pytest.mark.parametrize("command", [("attach", "x"), ("exec", "x", "ls"), ("logs", "x")])
def test_no_engine_is_one_line(command: tuple[str, ...]) -> None:
    done = run("unix:///nosuch.sock", *command)
    assert (done.returncode, done.stdout) == (1, b"")
    assert re.fullmatch(rb"muxframe: .*/nosuch\.sock.*\n", done.stderr)


@pytest.mark.parametrize(
    "command",
    [
        ("exec", "idle"),
        ("exec", "--detach-keys", "ctrl-1", "idle", "ls"),
        ("exec", "--detach-keys", "", "idle", "ls"),
        ("exec", "a/b", "ls"),
        ("attach", "--sig-proxy=maybe", "idle"),
        ("attach", ""),
        ("logs", "--since", "yesterday", "idle"),
        ("logs", "--tail", "-1", "idle"),
        ("logs", "--context", "nosuch", "idle"),
    ],
)
def test_misuse_is_2(command: tuple[str, ...], docker: LoopbackEngine) -> None:
    done = run(docker.host, *command)
    assert done.returncode == 2, done.stderr
    assert b"Traceback" not in done.stderr


def test_control_characters_of_an_engine_are_harmless(docker: LoopbackEngine) -> None:
    docker.fault("logs", Fault(status=500, body="\x1b[2J\nmore\u202e"))
    done = run(docker.host, "logs", "idle")
    assert done.returncode == 1
    assert done.stderr.count(b"\n") == 1
    assert done.stderr.decode().strip().isprintable() and "more" in done.stderr.decode()


def test_a_connection_that_breaks_is_told_after_what_came() -> None:
    with LoopbackEngine(on_exec=COMMANDS) as engine:
        engine.add(Container("web", state="exited", log=[(1, b"whole\n"), (1, b"cut off\n")]))
        engine.fault("logs", Fault(cut=8 + 6 + 8 + 3))
        done = run(engine.host, "logs", "web")
    assert (done.returncode, done.stdout) == (1, b"whole\ncut")
    assert done.stderr.startswith(b"muxframe: stream ends inside a payload")


# --- attach ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 7, 137])
def test_attach_hands_the_exit_code_on(code: int, engine: LoopbackEngine) -> None:
    engine.add(Container("web", output=[(1, b"out\n"), (2, b"err\n")], exit_code=code))
    done = run(engine.host, "attach", "web")
    assert (done.returncode, done.stdout, done.stderr) == (code, b"out\n", b"err\n")


def test_attach_starts_a_container(engine: LoopbackEngine) -> None:
    engine.add(Container("web", say(b"out\n", exit_code=3), state="created"))
    done = run(engine.host, "attach", "--start", "web")
    assert (done.returncode, done.stdout, done.stderr) == (3, b"out\n", b"")


def test_attach_passes_the_end_of_stdin_on(engine: LoopbackEngine) -> None:
    engine.add(Container("web", cat, open_stdin=True, stdin_once=True))
    done = run(engine.host, "attach", "web", input=b"hi\n")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")


def test_attach_reads_on_where_the_end_of_stdin_cannot_be_passed_on(docker: LoopbackEngine) -> None:
    def script(process: Process) -> int:
        data = process.stdin.readline()
        process.sleep(0.5)
        process.write(data * 2)
        return 6

    docker.add(Container("web", script, open_stdin=True))
    done = run(docker.host, "attach", "web", input=b"hi\n")
    assert (done.returncode, done.stdout) == (6, b"hi\nhi\n")
    assert re.fullmatch(rb"muxframe: stdin has ended, but .*\n", done.stderr)


def test_no_engine_looks_for_detach_keys_in_data(engine: LoopbackEngine) -> None:
    engine.add(Container("web", cat, open_stdin=True, stdin_once=True))
    assert run(engine.host, "attach", "web", input=DETACH).stdout == DETACH
    query = next(each for each in engine.requests if each.path.endswith("/attach")).query
    assert query.get("detachKeys") == ("" if engine.flavor == "podman" else None)  # Docker's looks only on a TTY


@pytest.mark.parametrize(("options", "open_stdin"), [(("--no-stdin",), True), ((), False)])
def test_attach_leaves_stdin_alone(options: tuple[str, ...], open_stdin: bool, docker: LoopbackEngine) -> None:
    docker.add(Container("web", say(b"out\n"), open_stdin=open_stdin))
    Path("in").write_bytes(b"mine")
    with open("in", "rb") as file:
        assert run(docker.host, "attach", *options, "web", stdin=file).stdout == b"out\n"
        assert file.read() == b"mine"


def test_an_output_that_ends_before_the_container_is_told(docker: LoopbackEngine) -> None:
    docker.add(Container("web", lambda process: process.sleep()))
    docker.fault("attach", Fault(cut=0))
    began = time.monotonic()
    done = run(docker.host, "attach", "web")
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr == b"muxframe: the output has ended, but the container runs on\n"
    assert time.monotonic() - began < PATIENCE


def test_a_removed_container_is_told(docker: LoopbackEngine) -> None:
    def script(process: Process) -> None:
        process.write(b"ready\n")
        process.sleep()

    container = docker.add(Container("web", script))
    process = start(docker.host, "attach", "web")
    with process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"ready\n"
        docker.discard(container)
        assert process.wait(PATIENCE) == 1
        assert process.stderr.read() == b"muxframe: the container has been removed: its exit code is not known\n"


SIGNALS = ["SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGUSR1", "SIGUSR2"]


@posix
@pytest.mark.parametrize("name", SIGNALS)
def test_attach_passes_signals_on(name: str, engine: LoopbackEngine) -> None:
    container = engine.add(Container("web", ignore_signals))
    process = start(engine.host, "attach", "web")
    with process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"ready\n"
        number = getattr(signal, name)
        process.send_signal(number)
        eventually(lambda: container.process is not None and container.process.signals == [number])
        if number != signal.SIGTERM:
            assert process.poll() is None
            process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 5
        assert b"got 15\n" in process.stdout.read()
        assert process.stderr.read() == b""


@posix
@pytest.mark.parametrize("name", SIGNALS)
def test_attach_without_sig_proxy_ends_by_the_signal(name: str, docker: LoopbackEngine) -> None:
    container = docker.add(Container("web", ignore_signals))
    process = start(docker.host, "attach", "--sig-proxy=false", "web")
    with process:
        assert process.stdout and process.stderr
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(getattr(signal, name))
        assert process.wait(PATIENCE) == -getattr(signal, name)
        assert process.stderr.read() == b""
    assert container.process is not None and container.process.signals == []


@posix
def test_a_second_interrupt_ends_attach(docker: LoopbackEngine) -> None:
    container = docker.add(Container("web", ignore_signals))
    process = start(docker.host, "attach", "web")
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline() == b"got 2\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
    assert container.process is not None and container.process.signals == [signal.SIGINT]


@posix
def test_an_interrupt_ends_an_output_that_nobody_takes(docker: LoopbackEngine) -> None:
    docker.on_exec = {"yes": yes}
    process = start(docker.host, "exec", "idle", "yes")
    with process:
        assert process.stdout
        process.stdout.read(1)
        time.sleep(0.3)  # the pipe is full by now
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT


# --- on a terminal ---------------------------------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("command", ["attach", "exec"])
def test_a_terminal_is_raw_and_restored_at_the_end(command: str, engine: LoopbackEngine) -> None:
    engine.add(Container("web", echo, tty=True, open_stdin=True))
    arguments = ("web",) if command == "attach" else ("-it", "idle", "echo")
    with Terminal(engine.host, command, *arguments) as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        terminal.type(b"\x03")  # a byte, no signal
        terminal.expect(b"<\x03>")
        terminal.type(b"a\r")
        terminal.expect(b"<a\r>")
        terminal.type(b"q")
        assert terminal.wait() == 7
        assert terminal.mode == terminal.before


@posix
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT"])
@pytest.mark.parametrize("command", ["attach", "exec"])
def test_a_terminal_is_restored_when_a_signal_ends_it(command: str, name: str, docker: LoopbackEngine) -> None:
    docker.add(Container("web", echo, tty=True, open_stdin=True))
    arguments = ("web",) if command == "attach" else ("-it", "idle", "echo")
    with Terminal(docker.host, command, *arguments) as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        terminal.process.send_signal(getattr(signal, name))
        assert terminal.wait() == -getattr(signal, name)
        assert terminal.mode == terminal.before
        assert b"muxframe" not in terminal.drawn


@posix
def test_a_terminal_is_restored_when_a_signal_ends_it_with_nobody_to_write_to(docker: LoopbackEngine) -> None:
    docker.on_exec = {"yes": yes}
    with Terminal(docker.host, "exec", "-it", "idle", "yes", stdout=subprocess.PIPE) as terminal:
        terminal.wait_raw()
        time.sleep(0.5)  # the pipe is full by now
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == -signal.SIGTERM
        assert terminal.mode == terminal.before


@posix
@pytest.mark.parametrize("fault", [Fault(cut=0), Fault(reset=0)], ids=["cut", "reset"])
def test_a_terminal_is_restored_when_the_connection_is_lost(fault: Fault) -> None:
    with LoopbackEngine(transport="tcp") as engine:
        engine.add(Container("web", echo, tty=True, open_stdin=True))
        engine.fault("attach", fault)
        with Terminal(engine.host, "attach", "web") as terminal:
            assert terminal.wait() in (0, 1)
            assert terminal.mode == terminal.before
            terminal.expect(b"muxframe: ")


@posix
def test_a_terminal_is_restored_when_the_output_is_closed(docker: LoopbackEngine) -> None:
    reader, writer = os.pipe()
    with Terminal(docker.host, "exec", "-it", "idle", "echo", stdout=writer) as terminal:
        os.close(writer)
        assert os.read(reader, 100) == b"ready\r\n"
        terminal.wait_raw()
        os.close(reader)
        terminal.type(b"x")
        assert terminal.wait() == 141
        assert terminal.mode == terminal.before


@posix
def test_a_terminal_is_cooked_while_stopped(docker: LoopbackEngine) -> None:
    docker.add(Container("web", echo, tty=True, open_stdin=True))
    with Terminal(docker.host, "attach", "web") as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        raw = terminal.mode
        terminal.process.send_signal(signal.SIGTSTP)
        eventually(lambda: os.waitid(os.P_PID, terminal.process.pid, os.WSTOPPED | os.WNOHANG | os.WNOWAIT))
        assert terminal.mode == terminal.before
        terminal.process.send_signal(signal.SIGCONT)
        eventually(lambda: terminal.mode == raw)
        terminal.type(b"q")
        assert terminal.wait() == 7
        assert terminal.mode == terminal.before


@posix
@pytest.mark.parametrize("command", ["attach", "exec"])
def test_the_windows_size_is_followed(command: str, engine: LoopbackEngine) -> None:
    engine.add(Container("web", watch_size, tty=True, open_stdin=True))
    arguments = ("web",) if command == "attach" else ("-it", "idle", "size")
    with Terminal(engine.host, command, *arguments) as terminal:
        terminal.expect(b"31 x 91")
        terminal.wait_raw()
        terminal.resize(32, 92)
        terminal.expect(b"32 x 92")
        terminal.type(DETACH)
        terminal.wait()


@posix
@pytest.mark.parametrize("keys", [None, "ctrl-x,y", "ctrl-x,ctrl-x,z"])
@pytest.mark.parametrize("pieces", ["together", "apart"])
@pytest.mark.parametrize("command", ["attach", "exec"])
def test_detach_keys_leave_it_running(command: str, pieces: str, keys: str | None, engine: LoopbackEngine) -> None:
    container = engine.add(Container("web", echo, tty=True, open_stdin=True))
    codes = {None: DETACH, "ctrl-x,y": b"\x18y", "ctrl-x,ctrl-x,z": b"\x18\x18z"}[keys]
    arguments = ("web",) if command == "attach" else ("-it", "idle", "echo")
    options = () if keys is None else ("--detach-keys", keys)
    with Terminal(engine.host, command, *options, *arguments) as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        terminal.type(codes[:1] + b"a")  # not the sequence: passed on
        terminal.expect(b"<" + codes[:1] + b"a>")
        if pieces == "together":
            terminal.type(codes)
        else:
            for code in codes:
                terminal.type(bytes([code]))
                time.sleep(0.05)
        assert terminal.wait() == 0
        assert b"read escape sequence" in terminal.drawn
        assert terminal.mode == terminal.before
    process = container.process if command == "attach" else engine.execs[-1].process
    assert process is not None
    if command == "attach":
        assert container.state == "running"


@posix
@pytest.mark.parametrize("arguments", [("attach", "web"), ("exec", "-it", "idle", "echo")], ids=["attach", "exec"])
def test_detach_keys_of_dockers_configuration(
    arguments: tuple[str, ...], docker: LoopbackEngine, tmp_path: Path
) -> None:
    docker.add(Container("web", echo, tty=True, open_stdin=True))
    (tmp_path / "config.json").write_text('{"detachKeys": "ctrl-x,y"}')
    with Terminal(docker.host, *arguments) as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        terminal.type(DETACH)
        terminal.expect(b"<" + DETACH + b">")
        terminal.type(b"\x18y")
        assert terminal.wait() == 0
        assert b"read escape sequence" in terminal.drawn


@pytest.mark.parametrize(
    ("settings", "text"), [('"ctrl-1"', b"'ctrl-1' is not a key"), ("5", b"detachKeys is not a string")]
)
def test_broken_detach_keys_of_dockers_configuration(
    settings: str, text: bytes, docker: LoopbackEngine, tmp_path: Path
) -> None:
    docker.add(Container("web", cat, open_stdin=True, stdin_once=True))
    (tmp_path / "config.json").write_text(f'{{"detachKeys": {settings}}}')
    done = run(docker.host, "attach", "web", input=b"hi")
    assert (done.returncode, done.stdout) == (2, b"") and text in done.stderr
    assert run(docker.host, "attach", "--detach-keys", "a,b", "web", input=b"hi").stdout == b"hi"


@posix
@pytest.mark.parametrize(
    "arguments",
    [
        ("attach", "plain"),
        ("attach", "--no-stdin", "web"),
        ("exec", "-t", "idle", "echo"),
        ("exec", "-i", "idle", "sleep"),
    ],
    ids=" ".join,
)
def test_a_terminal_stays_as_it_is_where_keys_are_not_passed_on_raw(
    arguments: tuple[str, ...], docker: LoopbackEngine
) -> None:
    docker.add(Container("plain", say(b"ready")))
    docker.add(Container("web", echo, tty=True, open_stdin=True))
    with Terminal(docker.host, *arguments) as terminal:
        deadline = time.monotonic() + 0.7
        while time.monotonic() < deadline:
            assert terminal.mode == terminal.before
            time.sleep(0.02)
        terminal.type(b"\x03")
        assert terminal.wait() in (0, -signal.SIGINT)


@posix
def test_ctrl_c_is_a_signal_for_a_container_without_a_terminal(engine: LoopbackEngine) -> None:
    container = engine.add(Container("web", ignore_signals, open_stdin=True))
    with Terminal(engine.host, "attach", "web") as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        terminal.expect(b"got 2")
        terminal.process.send_signal(signal.SIGTERM)
        assert terminal.wait() == 5
    assert container.process is not None and container.process.signals == [signal.SIGINT, signal.SIGTERM]


# --- real engines ----------------------------------------------------------------------------------------------------


def expect_size(terminal: Terminal, size: bytes) -> None:
    """Let the shell wait until its terminal is of a size, which may take engines a moment."""
    terminal.type(b"until stty size | grep -x '%s'; do sleep 0.1; done\r" % size)
    terminal.expect(b"%s\r\n" % size)  # a prompt may be before it


INTERACTIVE = {"Tty": True, "OpenStdin": True, "StdinOnce": True, "AttachStdin": True}
SHELL = ["sh", "-c", "trap 'echo caught; exit 5' INT; echo ready; while :; do sleep 0.1; done"]


@pytest.mark.live
@posix
def test_live_exit_codes(live: Live) -> None:
    idle = live.run(FOREVER)
    for script, code in (("exit 0", 0), ("exit 7", 7), ("kill -9 $$", 137), ("kill -2 $$", 130)):
        assert run(live.host, "exec", idle, "sh", "-c", script).returncode == code
    assert run(live.host, "exec", idle, "nosuch").returncode in (126, 127)
    for script, code in (("exit 0", 0), ("exit 7", 7), ("exit 130", 130)):
        container = live.create(f"echo out; echo err >&2; {script}")
        done = run(live.host, "attach", "--start", container)
        assert (done.returncode, done.stdout, done.stderr) == (code, b"out\n", b"err\n")
    killed = live.run("while :; do echo tick; sleep 0.1; done")
    process = start(live.host, "attach", killed)
    with process:
        assert process.stdout
        process.stdout.readline()  # it has attached
        live.engine.kill(killed)
        assert process.wait(PATIENCE) == 137


@pytest.mark.live
@posix
def test_live_stdin_and_ten_megabytes(live: Live) -> None:
    data = random.Random(4).randbytes(10 * MIB)
    Path("in").write_bytes(data)
    idle = live.run(FOREVER)
    with open("in", "rb") as file:
        done = run(live.host, "exec", "-i", "--stdout", "out", "--stderr", "err", idle, "sh", "-c",
                   "cat; echo done >&2", stdin=file)  # fmt: skip
    assert (done.returncode, Path("out").read_bytes() == data, Path("err").read_bytes()) == (0, True, b"done\n")
    container = live.run("cat; echo done >&2; exit 3", **STDIN)
    done = run(live.host, "attach", "--stdout", "out", container, input=data)
    assert (done.returncode, Path("out").read_bytes() == data, done.stderr) == (3, True, b"done\n")


@pytest.mark.live
@posix
def test_live_end_of_stdin_that_cannot_be_passed_on_loses_nothing(live: Live) -> None:
    script = "read x; sleep 1; echo got $x; exit 4"
    container = live.run(script, OpenStdin=True)
    done = run(live.host, "attach", container, input=b"hi\n")
    assert (done.returncode, done.stdout) == (4, b"got hi\n")
    container = live.run(script, OpenStdin=True, Tty=True)
    done = run(live.host, "attach", container, input=b"hi\n")
    assert (done.returncode, done.stdout) == (4, b"hi\r\ngot hi\r\n")
    assert b"muxframe: stdin has ended, but" in done.stderr


@pytest.mark.live
@posix
def test_live_attach_on_a_terminal(live: Live) -> None:
    container = live.run(["sh"], **INTERACTIVE)
    with Terminal(live.host, "attach", container) as terminal:
        terminal.expect(b"# ")
        terminal.wait_raw()
        expect_size(terminal, b"31 91")
        terminal.resize(32, 92)
        expect_size(terminal, b"32 92")
        terminal.type(b"echo s$((1+1)); sleep 1000\r")
        terminal.expect(b"s2")
        time.sleep(0.3)
        terminal.type(b"\x03")
        terminal.type(b"echo a$((6*7))b\r")
        terminal.expect(b"a42b")
        terminal.type(DETACH)
        assert terminal.wait() == 0
        assert b"read escape sequence" in terminal.drawn
        assert terminal.mode == terminal.before
    assert live.is_running(container)
    with Terminal(live.host, "attach", "--detach-keys", "ctrl-x,q", container) as terminal:
        terminal.wait_raw()
        terminal.type(b"echo a$((6*7))b\r")
        terminal.expect(b"a42b")
        terminal.type(b"\x18q")
        assert terminal.wait() == 0
        assert terminal.mode == terminal.before
    assert live.is_running(container)
    with Terminal(live.host, "attach", container) as terminal:
        terminal.wait_raw()
        terminal.type(b"exit 7\r")
        assert terminal.wait() == 7
        assert terminal.mode == terminal.before


@pytest.mark.live
@posix
def test_live_exec_on_a_terminal(live: Live) -> None:
    idle = live.run(FOREVER)
    with Terminal(live.host, "exec", "-it", idle, "sh") as terminal:
        terminal.expect(b"# ")
        terminal.wait_raw()
        expect_size(terminal, b"31 91")
        terminal.resize(32, 92)
        expect_size(terminal, b"32 92")
        # Not a shell that reads on: now and then Docker ends its input when the client leaves.
        terminal.type(b"echo $$ > /pid; trap '' HUP; echo d$((1+1)); while :; do sleep 0.1; done\r")
        terminal.expect(b"d2")
        terminal.type(DETACH)
        assert terminal.wait() == 0
        assert terminal.mode == terminal.before
    assert run(live.host, "exec", idle, "sh", "-c", "kill -0 $(cat /pid)").returncode == 0
    with Terminal(live.host, "exec", "-it", idle, "sh", "-c", "exit 9") as terminal:
        assert terminal.wait() == 9
        assert terminal.mode == terminal.before


@pytest.mark.live
@posix
def test_live_ctrl_c_with_and_without_a_terminal(live: Live) -> None:
    with_terminal = live.create(SHELL, **INTERACTIVE)
    with Terminal(live.host, "attach", "--start", with_terminal) as terminal:
        terminal.expect(b"ready")
        terminal.wait_raw()
        terminal.type(b"\x03")
        terminal.expect(b"caught")
        assert terminal.wait() == 5
        assert terminal.mode == terminal.before
    without = live.create(SHELL)
    with Terminal(live.host, "attach", "--start", without) as terminal:
        terminal.expect(b"ready")
        terminal.type(b"\x03")
        terminal.expect(b"caught")
        assert terminal.wait() == 5


@pytest.mark.live
@posix
def test_live_logs(live: Live) -> None:
    container = live.run("echo one; sleep 0.2; echo two >&2; sleep 0.2; echo three; sleep 1000")
    eventually(lambda: run(live.host, "logs", container).stdout == b"one\nthree\n")
    done = run(live.host, "logs", container)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"one\nthree\n", b"two\n")
    done = run(live.host, "logs", "-n", "1", "-t", "--json", container)
    (line,) = map(json.loads, done.stdout.splitlines())
    assert (line["stream"], line["data"]) == ("stdout", "three")
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z", line["timestamp"])
    assert run(live.host, "logs", "--since", "2099-01-01", container).stdout == b""
    process = start(live.host, "logs", "-f", container)
    with process:
        assert process.stdout
        assert process.stdout.readline() == b"one\n"
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE) == -signal.SIGINT
