"""The attach wrapper on the engines that the environment names: see live.py."""

from __future__ import annotations

import hashlib
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from live import BLOB, ENGINES, FOREVER, MEGABYTES, PATIENCE, STDIN, TERMINAL, Live, blob, engine_host, eventually

import muxframe
from muxframe import BadRequestError, ConflictError, EngineError, NotFoundError, Stream

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from muxframe.engine import Session

pytestmark = pytest.mark.live



def read_until(session: Session, expected: bytes, seconds: float = PATIENCE) -> bytes:
    """Read pieces of either stream until what is expected is among them; return all of them."""
    session.timeout = seconds
    received = bytearray()
    for _, piece in session.chunks():
        received += piece
        if expected in received:
            break
    else:
        pytest.fail(f"the output ended without {expected!r}: {bytes(received)!r}")
    session.timeout = None
    return bytes(received)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


# --- payload ---------------------------------------------------------------------------------------------------------


class Digests:
    """What each stream brought: its size and its hash."""

    def __init__(self) -> None:
        self._hashes = {Stream.STDOUT: hashlib.sha256(), Stream.STDERR: hashlib.sha256()}
        self._sizes = dict.fromkeys(self._hashes, 0)

    def add(self, stream: int, data: bytes) -> None:
        self._hashes[Stream(stream)].update(data)
        self._sizes[Stream(stream)] += len(data)

    def results(self) -> list[tuple[int, str]]:
        return [(self._sizes[stream], self._hashes[stream].hexdigest()) for stream in self._hashes]


def by_copying(session: Session, digests: Digests, directory: Path) -> None:
    copied = session.copy_to(directory / "out", directory / "err")
    for stream, name in zip((Stream.STDOUT, Stream.STDERR), ("out", "err")):
        digests.add(stream, (directory / name).read_bytes())
    assert (copied.stdout_size, copied.stderr_size) == (MEGABYTES, MEGABYTES)


def by_chunks(session: Session, digests: Digests, _: Path) -> None:
    for stream, data in session.chunks():
        digests.add(stream, data)


def by_frames(session: Session, digests: Digests, _: Path) -> None:
    for stream, data in session:
        digests.add(stream, data)


def at_once(session: Session, digests: Digests, _: Path) -> None:
    for stream, data in zip((Stream.STDOUT, Stream.STDERR), session.read_all()):
        digests.add(stream, data)


@pytest.mark.parametrize("read", [by_copying, by_chunks, by_frames, at_once])
def test_both_streams(live: Live, read: Callable[[Session, Digests, Path], None], tmp_path: Path) -> None:
    script = f"{BLOB} blob 1000000 {MEGABYTES} & blob 4000000 {MEGABYTES} >&2; wait"
    digests = Digests()
    with live.engine.attach(live.create(script), start=True) as session:
        assert (session.stream_type, session.tty) == ("multiplexed", False)
        read(session, digests, tmp_path)
        assert session.wait(PATIENCE) == session.exit_code == 0
    assert digests.results() == [(MEGABYTES, digest(blob(first, MEGABYTES))) for first in (1000000, 4000000)]


# --- stdin -----------------------------------------------------------------------------------------------------------


def echo(session: Session, data: bytes) -> bytes:
    """Write data in a thread of its own, end stdin, and return what comes back."""

    def feed() -> None:
        for i in range(0, len(data), 100_001):
            session.write(data[i : i + 100_001])
        session.close_stdin()

    with ThreadPoolExecutor(1) as pool:
        writing = pool.submit(feed)
        stdout, stderr = session.read_all()
        writing.result(PATIENCE)
    assert stderr == b""
    return stdout


def test_one_stream_alone(live: Live) -> None:
    script = "echo one; echo two >&2"
    with live.engine.attach(live.create(script), start=True, stderr=False) as session:
        assert session.read_all() == (b"one\n", b"")
    with live.engine.attach(live.create(script), start=True, stdout=False) as session:
        assert session.read_all() == (b"", b"two\n")


def test_echo_of_attach(live: Live) -> None:
    data = blob(1000000, MEGABYTES)
    with live.engine.attach(live.create(["cat"], **STDIN), stdin=True, start=True) as session:
        assert digest(echo(session, data)) == digest(data)
        assert session.wait(PATIENCE) == 0


def test_echo_of_exec(live: Live) -> None:
    data = blob(1000000, MEGABYTES)
    with live.engine.exec(live.run(FOREVER), ["cat"], stdin=True) as session:
        assert digest(echo(session, data)) == digest(data)
        assert session.exit_code == 0


def test_output_goes_on_behind_the_end_of_stdin(live: Live) -> None:
    script = "cat; sleep 0.5; echo late; exit 3"
    with live.engine.attach(live.create(script, **STDIN), stdin=True, start=True) as session:
        session.write(b"early\n")
        session.close_stdin()
        assert session.read_all() == (b"early\nlate\n", b"")
        assert session.wait(PATIENCE) == 3


def test_end_of_stdin_without_stdin_once(live: Live) -> None:
    container = live.create("cat; echo end; exec sleep 1000", OpenStdin=True)
    with live.engine.attach(container, stdin=True, start=True) as session:
        session.write(b"early\n")
        assert read_until(session, b"early\n") == b"early\n"
        if live.is_podman:
            session.close_stdin()
            assert read_until(session, b"end\n") == b"end\n"
        else:  # Docker ends the output, and the container hears nothing
            with pytest.warns(RuntimeWarning, match="StdinOnce"):
                session.close_stdin()
            assert session.read_all() == (b"", b"")
        assert live.is_running(container)


# --- attach with logs ------------------------------------------------------------------------------------------------


OUTPUTS = {
    "lines": b"first\nsecond\nthird\n",
    "blank lines": b"\n\nafter two\n\n\nafter two\n\n",
    "no final newline": b"first\nand no end",
    "one byte": b"x",
}


@pytest.mark.parametrize("count", [5, pytest.param(50, marks=pytest.mark.slow)])
@pytest.mark.parametrize("output", OUTPUTS.values(), ids=OUTPUTS)
def test_attach_with_logs_right_after_start(live: Live, output: bytes, count: int) -> None:
    # Engines attach before they read the log, so that what is written in between comes twice.
    # Docker logs a line when it is complete: the beginning of one that is not is only had by those attached before.
    certain = output if live.is_podman else output[: output.rfind(b"\n") + 1]
    # Podman's attach may be accepted only after its log was read, in 1 of 200 rounds: then nothing comes at all.
    missing, allowed = 0, 1 + count // 50 if live.is_podman else 0
    for _ in range(count):
        container = live.run(f"printf '{output.decode()}'; exec sleep 1000")
        with live.engine.attach(container, logs=True) as session:
            try:
                received = read_until(session, certain, 10.0) if certain else b""
            except TimeoutError:
                missing += 1
                assert missing <= allowed
            else:
                live.engine.kill(container)
                received += session.read_all().stdout
                assert received.startswith(certain)
                assert output.endswith(received.removeprefix(certain))
        live.remove(container)


def test_replay_and_live_output(live: Live) -> None:
    script = "echo one; echo two >&2; read go; echo three; echo four >&2"
    container = live.run(script, **STDIN)
    eventually(lambda: live.engine.logs(container).read_all() == (b"one\n", b"two\n"))
    with live.engine.attach(container, stdin=True, logs=True) as session:
        session.write(b"go\n")
        assert session.read_all() == (b"one\nthree\n", b"two\nfour\n")


def test_replay_alone(live: Live) -> None:
    container = live.run("echo one; echo two >&2; exec sleep 1000")
    eventually(lambda: live.engine.logs(container).read_all() == (b"one\n", b"two\n"))
    with live.engine.attach(container, stream=False, logs=True) as session:
        session.timeout = PATIENCE
        assert session.read_all() == (b"one\n", b"two\n")


# --- terminals -------------------------------------------------------------------------------------------------------


def test_terminal_of_attach(live: Live) -> None:
    with live.engine.attach(live.create(["sh"], **TERMINAL), stdin=True, start=True) as session:
        assert (session.stream_type, session.tty) == ("raw", True)
        session.resize(33, 111)
        session.write(b"until stty size | grep -x '33 111'; do sleep 0.1; done\n")  # Podman is not that fast
        read_until(session, b"\r\n33 111\r\n")
        live.engine.resize(session._opened.path.split("/")[-1], 44, 122)
        session.write(b"until stty size | grep -x '44 122'; do sleep 0.1; done; exit 5\n")
        session.timeout = PATIENCE
        pieces = list(session.chunks())
        assert {stream for stream, _ in pieces} == {Stream.STDOUT}
        assert b"\r\n44 122\r\n" in b"".join(piece for _, piece in pieces)
        assert session.wait(PATIENCE) == 5


def test_terminal_of_exec(live: Live) -> None:
    # Where the engine takes no size at the start, it is told right afterwards; Podman lets another take a moment.
    script = (
        "until stty size 2>/dev/null | grep -v '^0 0'; do sleep 0.02; done; read a; "
        "until stty size | grep -v '^21 79'; do sleep 0.02; done; test -t 1 && exit 6"
    )
    with live.engine.exec(live.run(FOREVER), ["sh", "-c", script], stdin=True, tty=True, size=(21, 79)) as session:
        assert (session.stream_type, session.tty) == ("raw", True)
        assert read_until(session, b"\n") == b"21 79\r\n"
        session.resize(22, 80)
        session.write(b"go\n")
        assert session.read_all() == (b"go\r\n22 80\r\n", b"")
        assert session.exit_code == 6


KEYS = {"default": (None, b"\x10\x11"), "chosen": ("ctrl-a,d", b"\x01d")}


@pytest.mark.parametrize(("detach_keys", "typed"), KEYS.values(), ids=KEYS)
def test_detach_keys(live: Live, detach_keys: str | None, typed: bytes) -> None:
    container = live.create(["cat"], **TERMINAL)
    with live.engine.attach(container, stdin=True, start=True, detach_keys=detach_keys) as session:
        session.write(b"hello\n")
        read_until(session, b"hello\r\nhello\r\n")
        rest = b""
        for pause in (0.1, 1.0, 5.0):  # Podman knows a key only if it arrives alone
            for key in typed:
                session.write(bytes([key]))
                time.sleep(pause)
            session.timeout = 10.0
            try:
                rest = session.read_all().stdout
            except TimeoutError:
                assert live.is_podman
            else:
                break
        # Podman 4.3 says it in the stream
        assert rest.endswith(b"Error: detached from container\n" if live.variable == "PODMAN_HOST" else b"")
        assert live.is_podman or rest == b""
        assert live.is_running(container)
        with pytest.raises(TimeoutError):
            session.wait(0.3)
        live.engine.kill(container)
        assert session.wait(PATIENCE) == 137


# --- how containers end ----------------------------------------------------------------------------------------------


def test_killed(live: Live) -> None:
    container = live.create("echo up; exec sleep 1000")
    with live.engine.attach(container, start=True) as session:
        read_until(session, b"up\n")
        live.engine.kill(container)
        assert session.read_all() == (b"", b"")
        assert session.wait(PATIENCE) == 137


def test_signalled(live: Live) -> None:
    container = live.create("trap 'echo usr1; exit 9' USR1; echo up; while :; do sleep 0.05; done")
    with live.engine.attach(container, start=True) as session:
        read_until(session, b"up\n")
        live.engine.kill(container, "USR1")
        assert session.read_all() == (b"usr1\n", b"")
        assert session.wait(PATIENCE) == 9


def test_removed(live: Live) -> None:
    container = live.create("trap 'exit 9' TERM; echo up; while :; do sleep 0.05; done")
    with live.engine.attach(container, start=True) as session:
        read_until(session, b"up\n")
        live.engine.request("DELETE", f"/containers/{container}", query={"force": "1"})
        session.timeout = PATIENCE
        assert session.read_all() == (b"", b"")
        asks_to_stop = live.variable == "PODMAN_HOST_NEW"  # the others kill at once
        assert session.wait(PATIENCE) == (9 if asks_to_stop else 137)


def test_exited_container_is_refused(live: Live) -> None:
    container = live.run_to_end("echo done; exit 4")
    begin = time.monotonic()
    for attach in (
        lambda: live.engine.attach(container),
        lambda: live.engine.attach(container, logs=True),
        lambda: live.engine.attach(container, stdin=True),
    ):
        with pytest.raises(ConflictError, match="exited|stopped"):
            attach()
    assert time.monotonic() - begin < PATIENCE
    assert live.engine.inspect(container)["State"]["ExitCode"] == 4  # Podman's attach would have reset it
    with live.engine.attach(container, stream=False, logs=True) as session:
        assert session.read_all() == (b"done\n", b"")


def test_exited_container_is_started_again(live: Live) -> None:
    container = live.run_to_end("echo run; exit 4")
    with live.engine.attach(container, start=True) as session:
        assert session.read_all() == (b"run\n", b"")
        assert session.wait(PATIENCE) == 4


def test_paused_container_is_refused(live: Live) -> None:
    container = live.run(FOREVER)
    live.engine.request("POST", f"/containers/{container}/pause")
    with pytest.raises(ConflictError, match="paused"):
        live.engine.attach(container)
    with pytest.raises(ConflictError, match="paused"):
        live.engine.exec(container, "true")


def test_wait(live: Live) -> None:
    container = live.create("read line; exit 12", **STDIN)
    assert live.engine.wait(container) == (-1 if live.is_podman else 0)  # not running, and never was
    with live.engine.attach(container, stdin=True, start=True) as session:
        with pytest.raises(TimeoutError):
            live.engine.wait(container, timeout=0.3)
        with pytest.raises(TimeoutError):
            session.wait(0.3)
        session.write(b"go\n")
        assert session.wait(PATIENCE) == 12
        assert live.engine.wait(container, timeout=PATIENCE) == 12


def test_wait_for_the_next_exit_and_for_removal(live: Live) -> None:
    container = live.create("exit 13")
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(live.engine.wait, container, "next-exit", timeout=PATIENCE)
        time.sleep(0.5)
        assert not waiting.done()
        while not waiting.done():  # the exit that it waits for is the first after the engine has heard of it
            live.engine.start(container)
            time.sleep(0.2)
        assert waiting.result() == 13
        live.engine.wait(container, timeout=PATIENCE)
        before = len(os.listdir("/proc/self/fd"))
        waiting = pool.submit(live.engine.wait, container, "removed", timeout=PATIENCE)
        eventually(lambda: len(os.listdir("/proc/self/fd")) > before)
        time.sleep(1.0)
        assert not waiting.done()
        live.engine.request("DELETE", f"/containers/{container}")
        waiting.result()


@pytest.mark.parametrize("is_started_before", [False, True], ids=["start", "running"])
def test_exit_code_of_what_removes_itself(live: Live, is_started_before: bool) -> None:
    for _ in range(3):
        container = live.create("read line; echo bye; exit 7", HostConfig={"AutoRemove": True}, **STDIN)
        if is_started_before:
            live.engine.start(container)
        with live.engine.attach(container, stdin=True, start=not is_started_before) as session:
            session.write(b"go\n")
            assert session.read_all() == (b"bye\n", b"")
            eventually(partial(live.is_gone, container))
            assert session.wait(PATIENCE) == 7


# --- exec ------------------------------------------------------------------------------------------------------------


EXITS = {
    "0": (["true"], 0),
    "7": ("sh -c 'exit 7'", 7),  # one string is split as a shell would
    "killed": (["sh", "-c", "kill -9 $$"], 137),
    "not executable": (["/etc/passwd"], 126),
}


@pytest.mark.parametrize(("command", "code"), EXITS.values(), ids=EXITS)
def test_exit_code_of_exec(live: Live, command: str | list[str], code: int) -> None:
    with live.engine.exec(live.run(FOREVER), command) as session:
        assert session.exit_code is None
        stdout, stderr = session.read_all()
        assert session.exit_code == session.wait(PATIENCE) == code
        if code == 126:  # the engine says why, Docker on stdout and Podman on stderr
            assert b"permission denied" in (stderr if live.is_podman else stdout)


def test_command_that_is_not_there(live: Live) -> None:
    with live.engine.exec(live.run(FOREVER), ["/no/such/command"]) as session:
        stdout, stderr = session.read_all()
        assert b"no such file or directory" in (stderr if live.is_podman else stdout)
        # Docker says 127 from version 28 on
        assert session.exit_code == (127 if live.is_podman else 126)


def test_environment_of_exec(live: Live) -> None:
    with live.engine.exec(
        live.run(FOREVER),
        ["sh", "-c", 'echo "$A|$B"; id -u; id -g; pwd; echo oops >&2; exit 2'],
        env={"A": "b c", "B": "é=1"},
        user="nobody:nogroup",
        workdir="/tmp",
    ) as session:
        assert session.read_all() == ("b c|é=1\n65534\n65534\n/tmp\n".encode(), b"oops\n")
        assert session.exit_code == 2


def test_exec_as_user_with_env_as_list(live: Live) -> None:
    command = ["sh", "-c", "echo $A; id -u; id -g"]
    with live.engine.exec(live.run(FOREVER), command, env=["A=1"], user="1234:5678") as session:
        assert session.read_all() == (b"1\n1234\n5678\n", b"")


@pytest.mark.parametrize(("stdout", "stderr"), [(True, False), (False, True)], ids=["stdout", "stderr"])
def test_one_stream_of_exec(live: Live, stdout: bool, stderr: bool) -> None:
    command = ["sh", "-c", "echo out; echo err >&2"]
    with live.engine.exec(live.run(FOREVER), command, stdout=stdout, stderr=stderr) as session:
        assert session.read_all() == (b"out\n" * stdout, b"err\n" * stderr)


# --- errors ----------------------------------------------------------------------------------------------------------


def test_not_found(live: Live) -> None:
    engine = live.engine
    for call in (
        lambda: engine.attach("nosuch"),
        lambda: engine.attach("nosuch", tty=False),  # asks nothing before
        lambda: engine.exec("nosuch", "true"),
        lambda: engine.logs("nosuch"),
        lambda: engine.logs("nosuch", tty=False),
        lambda: engine.inspect("nosuch"),
        lambda: engine.start("nosuch"),
        lambda: engine.kill("nosuch"),
        lambda: engine.wait("nosuch"),
        lambda: engine.resize("nosuch", 10, 10),
    ):
        with pytest.raises(NotFoundError, match="(?i)no such container|no container with"):
            call()


def test_conflict(live: Live) -> None:
    container = live.run_to_end(["true"])
    with pytest.raises(ConflictError, match="not running|state improper"):
        live.engine.exec(container, "true")
    with pytest.raises(ConflictError, match="not running|state improper"):
        live.engine.kill(container)


def test_bad_request(live: Live) -> None:
    container = live.run(FOREVER, **TERMINAL)
    with pytest.raises(BadRequestError, match="bogus-key"):
        live.engine.attach(container, detach_keys="bogus-key")
    with pytest.raises(BadRequestError):
        live.engine.request("GET", f"/containers/{container}/logs")  # of neither stream


def test_resize_without_terminal(live: Live) -> None:
    container = live.run_to_end(["true"], Tty=True)
    with pytest.raises(EngineError):
        live.engine.resize(container, 10, 10)


# --- logs ------------------------------------------------------------------------------------------------------------


def test_log_of_both_streams(live: Live) -> None:
    container = live.run_to_end("echo one; echo two >&2; echo; printf 'no end'")
    engine = live.engine
    assert engine.logs(container).read_all() == (b"one\n\nno end", b"two\n")
    assert engine.logs(container, stderr=False).read_all() == (b"one\n\nno end", b"")
    assert engine.logs(container, stdout=False).read_all() == (b"", b"two\n")


def test_empty_log(live: Live) -> None:
    for container in (live.create(["true"]), live.run_to_end(["true"])):
        assert live.engine.logs(container).read_all() == (b"", b"")
        assert live.engine.logs(container, follow=True).read_all() == (b"", b"")


def test_log_of_terminal(live: Live) -> None:
    container = live.run_to_end("echo one; echo two >&2", Tty=True)
    for tty in (None, True):
        with live.engine.logs(container, tty=tty) as session:
            assert (session.tty, session.stream_type) == (True, "raw")
            assert sorted(session.read_all().stdout.split()) == [b"one", b"two"]


def test_followed_log(live: Live) -> None:
    container = live.run("read a; for i in 1 2 3; do echo out $i; echo err $i >&2; sleep 0.3; done", **STDIN)
    with live.engine.logs(container, follow=True) as session, live.engine.attach(container, stdin=True) as attached:
        attached.write(b"go\n")
        session.timeout = PATIENCE
        assert session.read_all() == (b"out 1\nout 2\nout 3\n", b"err 1\nerr 2\nerr 3\n")


@pytest.fixture(scope="module", params=ENGINES)
def log(request: pytest.FixtureRequest) -> Iterator[tuple[Live, str, list[float]]]:
    """A container that has written a line every two seconds, and moments between: before each and behind the last."""
    with Live(request.param) as live:
        container = live.run_to_end("echo line 1; sleep 2; echo line 2; sleep 2; echo line 3")
        with live.engine.logs(container, timestamps=True) as session:
            times = [(line.timestamp or 0) / 1e9 for line in session.lines()]
        assert len(times) == 3
        before = 0.5 if live.is_podman else 1.0  # it leaves out what a second has passed already
        yield live, container, [*(each - before for each in times), times[-1] + 2]


AS_MOMENT = {
    "number": lambda moment: moment,
    "datetime": lambda moment: datetime.fromtimestamp(moment, UTC),
    "naive datetime": datetime.fromtimestamp,
    "timedelta": lambda moment: timedelta(seconds=time.time() - moment),
    "RFC 3339": lambda moment: datetime.fromtimestamp(moment, UTC).isoformat(),
}


@pytest.mark.parametrize("as_moment", AS_MOMENT.values(), ids=AS_MOMENT)
def test_part_of_log_by_time(log: tuple[Live, str, list[float]], as_moment: Callable[[float], Any]) -> None:
    live, container, moments = log

    def lines(**options: int) -> list[int]:
        given = {name: as_moment(moments[index]) for name, index in options.items()}
        with live.engine.logs(container, **given) as session:
            return [int(line.split()[1]) for line in session.read_all().stdout.splitlines()]

    assert lines(since=0) == [1, 2, 3]
    assert lines(since=1) == [2, 3]
    assert lines(since=3) == []
    assert lines(until=0) == []
    assert lines(until=2) == [1, 2]
    assert lines(since=1, until=2) == [2]


def test_end_of_log(log: tuple[Live, str, list[float]]) -> None:
    live, container, _ = log
    for tail, count in (("all", 3), (5, 3), (2, 2), ("1", 1), (0, 0)):
        expected = b"".join([b"line 1\n", b"line 2\n", b"line 3\n"][3 - count :])
        assert live.engine.logs(container, tail=tail).read_all() == (expected, b"")


def test_timestamps_of_log(log: tuple[Live, str, list[float]]) -> None:
    live, container, _ = log
    lines = live.engine.logs(container, timestamps=True).read_all().stdout.decode().splitlines()
    assert [line.split(" ", 1)[1] for line in lines] == ["line 1", "line 2", "line 3"]
    state = live.engine.inspect(container)["State"]
    texts = [state["StartedAt"], *(line.split()[0] for line in lines), state["FinishedAt"]]
    started, *written, finished = (datetime.fromisoformat(re.sub(r"(\.\d{6})\d*", r"\1", text)) for text in texts)
    second = timedelta(seconds=1)  # Podman says whole ones
    assert started - second < written[0] < written[1] < written[2] < finished + second
    assert written[2] - written[0] >= 3 * second


def test_details_of_log(live: Live) -> None:
    options = {"Labels": {"color": "red"}, "Env": ["SHAPE=round"]}
    log_config = {"Type": "json-file", "Config": {"labels": "color", "env": "SHAPE"}}
    if live.is_podman:  # knows no such options
        log_config = {"Type": "k8s-file", "Config": {}}
    container = live.run_to_end(["echo", "hello"], HostConfig={"LogConfig": log_config}, **options)
    with live.engine.logs(container, details=True) as session:
        assert session.read_all().stdout == (b"hello\n" if live.is_podman else b"SHAPE=round,color=red hello\n")


def test_log_of_a_million_lines(live: Live) -> None:
    count = 100_000 if live.is_podman else 1_000_000  # its conmon writes them slowly
    container = live.run_to_end(["seq", str(count)])
    hashed, size = hashlib.sha256(), 0
    with live.engine.logs(container) as session:
        for _, piece in session.chunks():
            hashed.update(piece)
            size += len(piece)
    expected = b"".join(b"%d\n" % i for i in range(1, count + 1))
    assert (size, hashed.hexdigest()) == (len(expected), digest(expected))
    assert live.engine.logs(container, tail=1).read_all() == (b"%d\n" % count, b"")


# --- WebSocket -------------------------------------------------------------------------------------------------------


def test_attach_over_websocket(live: Live) -> None:
    pytest.importorskip("websockets")
    if live.is_podman:
        with pytest.raises(BadRequestError, match="no attach over a WebSocket"):
            live.engine.attach(live.create(["cat"], **STDIN), stdin=True, start=True, via="websocket")
        return
    data = blob(1000000, 1_000_000)
    for _ in range(3):
        container = live.create("cat; sleep 0.3; echo merged >&2; exit 3", **STDIN)
        with live.engine.attach(container, stdin=True, start=True, via="websocket") as session:
            assert (session.stream_type, session.tty) == ("raw", False)
            assert digest(echo(session, data)) == digest(data + b"merged\n")
            assert session.wait(PATIENCE) == 3


def test_replay_over_websocket(live: Live) -> None:
    pytest.importorskip("websockets")
    if live.is_podman:
        pytest.skip("Podman has no attach over a WebSocket")
    container = live.run("echo one; echo two; exec sleep 1000")
    eventually(lambda: live.engine.logs(container).read_all() == (b"one\ntwo\n", b""))
    for _ in range(20):
        with live.engine.attach(container, logs=True, via="websocket") as session:
            assert read_until(session, b"two\n") == b"one\ntwo\n"


def test_terminal_over_websocket(live: Live) -> None:
    pytest.importorskip("websockets")
    if live.is_podman:
        pytest.skip("Podman has no attach over a WebSocket")
    with live.engine.attach(live.create(["sh"], **TERMINAL), stdin=True, start=True, via="websocket") as session:
        session.resize(33, 111)
        session.write(b"until stty size | grep -x '33 111'; do sleep 0.1; done\n")
        read_until(session, b"\r\n33 111\r\n")
        session.write(b"exit 5\n")
        session.read_all()
        assert session.wait(PATIENCE) == 5


# --- sessions as such ------------------------------------------------------------------------------------------------


def test_timeout_leaves_the_session_usable(live: Live) -> None:
    with live.engine.attach(live.create(["cat"], **STDIN), stdin=True, start=True) as session:
        chunks = session.chunks()
        for _ in range(3):
            session.timeout = 0.1
            with pytest.raises(TimeoutError):
                next(chunks)
            session.write(b"piece\n")
            session.timeout = PATIENCE
            assert next(chunks) == (Stream.STDOUT, b"piece\n")
        session.timeout = 0.3
        for data in (b"one", b"two"):
            session.write(data)
            with pytest.raises(TimeoutError):
                session.read_all()
        session.timeout = PATIENCE
        session.close_stdin()
        assert session.read_all() == (b"onetwo", b"")


def test_timeout_within_frames(live: Live) -> None:
    with live.engine.attach(live.create(["cat"], **STDIN), stdin=True, start=True) as session:
        for _ in range(3):
            session.timeout = 0.1
            with pytest.raises(TimeoutError):
                next(session)
            session.write(b"piece\n")
            session.timeout = PATIENCE
            assert tuple(next(session)) == (Stream.STDOUT, b"piece\n")


def test_timeout_of_writing_says_how_much_was_written(live: Live) -> None:
    data = blob(1000000, MEGABYTES)
    container = live.create("sleep 1; exec cat", **STDIN)
    with live.engine.attach(container, stdin=True, start=True) as session:
        session.timeout = 0.3
        with pytest.raises(TimeoutError) as caught:
            session.write(data)
        written = caught.value.characters_written  # type: ignore[attr-defined]
        assert 0 < written < len(data)
        session.timeout = PATIENCE
        assert digest(echo(session, data[written:])) == digest(data)


@pytest.mark.parametrize("way", ["frames", "chunks", "read_all", "wait", "write"])
def test_close_from_another_thread(live: Live, way: str) -> None:
    container = live.run(FOREVER, **STDIN)
    session = live.engine.attach(container, stdin=True)
    closing = threading.Timer(0.3, session.close)
    begin = time.monotonic()
    closing.start()
    if way == "frames":
        assert list(session) == []
    elif way == "chunks":
        assert list(session.chunks()) == []
    elif way == "read_all":
        assert session.read_all() == (b"", b"")
    else:
        with pytest.raises((ValueError, muxframe.ConnectionLostError)):
            session.wait() if way == "wait" else session.write(bytes(MEGABYTES))
    assert 0.2 < time.monotonic() - begin < PATIENCE
    closing.join()
    assert session.closed


def test_slow_reader_holds_the_container_up(live: Live) -> None:
    size = 2 * MEGABYTES
    container = live.create(f"{BLOB} blob 1000000 {size}; touch /tmp/written; exec sleep 1000")

    def has_written() -> bool:
        with live.engine.exec(container, ["test", "-e", "/tmp/written"]) as session:
            return session.wait(PATIENCE) == 0

    hashed, left, before, most = hashlib.sha256(), size, resident(), 0
    with live.engine.attach(container, start=True) as session:
        for i, (_, piece) in enumerate(session.chunks()):
            if i in (0, 10):
                time.sleep(1.0)
                assert not has_written()
            hashed.update(piece)
            left -= len(piece)
            most = max(most, resident())
            if not left:
                break
    assert hashed.hexdigest() == digest(blob(1000000, size))
    assert most - before < 8 * 1024 * 1024


def resident() -> int:
    """Return the size of this process in memory, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_fifty_sessions_at_once(live: Live) -> None:
    container = live.run(FOREVER)

    def session(number: int) -> None:
        data = b"session %d\n" % number * 5000
        with live.engine.exec(container, "cat", stdin=True) as session:
            assert echo(session, data) == data
            assert session.exit_code == 0

    def used() -> tuple[int, int]:
        return len(os.listdir("/proc/self/fd")), threading.active_count()

    before = used()
    with ThreadPoolExecutor(50) as pool:
        list(pool.map(session, range(50)))
    assert used() == before


# --- an engine that goes away ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["docker", "podman"])
def test_engine_goes_away(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with own_engine(name, monkeypatch) as (live, process):
        script = "i=0; while :; do i=$((i+1)); echo $i; sleep 0.05; done"
        container = live.create(script)
        with live.engine.attach(container, start=True) as session, live.engine.logs(container, follow=True) as log:
            read_until(session, b"3\n")
            read_until(log, b"3\n")
            with ThreadPoolExecutor(1) as pool:
                waiting = pool.submit(session.wait, PATIENCE)
                os.kill(process, signal.SIGKILL)
                for one in (session, log):
                    one.timeout = PATIENCE
                    try:
                        one.read_all()  # nothing in the stream tells the engine's end from the container's
                    except muxframe.ConnectionLostError:
                        pass
                with pytest.raises(muxframe.ConnectionLostError):
                    waiting.result()
            with pytest.raises(muxframe.ConnectionLostError):
                session.wait(PATIENCE)
        with pytest.raises(muxframe.ConnectionLostError):
            live.engine.attach(container)


@contextmanager
def own_engine(name: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Live, int]]:
    """Start an engine that no other test uses; yield it and its process."""
    variable = f"{name.upper()}_HOST"
    engine_host(variable)  # where there is none, none can be started
    directory = tempfile.mkdtemp(prefix="muxframe-", dir="/tmp")
    monkeypatch.setenv("ENGINES_DIR", directory)
    scripts = Path(__file__).parent / "engines"
    try:
        up: list[str | Path] = [scripts / "up", "--only", name, "--no-install", "--no-smoke"]
        lines = subprocess.run(up, check=True, stdout=subprocess.PIPE, text=True).stdout.splitlines()
        exported = dict(line.removeprefix("export ").split("=", 1) for line in lines)
        monkeypatch.setenv(variable, shlex.split(exported[variable])[0])
        live = Live(variable)  # not entered: at the end there is no engine to remove containers from
        yield live, int((Path(directory) / f"{name}.pid").read_text().split()[0])
    finally:
        subprocess.run([scripts / "down"], check=True, stdout=subprocess.DEVNULL)
