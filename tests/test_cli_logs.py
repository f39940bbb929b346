"""`muxframe logs` of many containers: on the terminal, into files, from checkpoints; and (live) from real engines."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from live import ENGINES, Live, eventually
from terminals import Terminal, elsewhere, posix, run, start

from muxframe.cli import main
from muxframe.cli.status import in_units
from muxframe.testing import Container, Fault, LoopbackEngine, Process

__all__ = ["elsewhere"]  # a fixture for all tests here

T0 = 1_795_239_990 * 10**9
Call = Callable[..., tuple[int, str, str]]


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], engine: LoopbackEngine) -> Call:
    """Run the command in this process; return its exit code and what it has written."""

    def call(*arguments: str) -> tuple[int, str, str]:
        code = main(["logs", "-H", engine.host, *arguments])
        return code, *capfd.readouterr()

    return call


def numbers(count: int, stream: int = 1, first: int = 0) -> list[tuple[int, bytes, int]]:
    return [(stream, b"%d\n" % number, T0 + number * 10**9) for number in range(first, first + count)]


@pytest.fixture
def engine() -> Iterator[LoopbackEngine]:
    """Two that run, and one that has stopped."""
    with LoopbackEngine() as engine:
        engine.add(Container("web-1", log=numbers(3), labels={"app": "shop", "tier": "front"}))
        engine.add(Container("db", log=[*numbers(2, 2), *numbers(1, 1, 2)], labels={"app": "shop"}))
        engine.add(Container("job", log=numbers(1), state="exited"))
        engine.add(Container("never", state="created"))
        yield engine


def find(engine: LoopbackEngine, name: str) -> Container:
    return next(each for each in engine.containers() if each.name == name)


def said(text: str) -> dict[str, list[str]]:
    """Sort printed lines by their containers."""
    found: dict[str, list[str]] = {}
    for line in text.splitlines():
        name, data = line.split(" | ")
        found.setdefault(name, []).append(data)
    return found


# --- which, and how they look ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("web-1", "--all"),
        ("--label", "app", "--all"),
        ("--all", "--out", "d", "--stdout", "f"),
        ("--all", "--parquet", "d", "--json"),
        ("--all", "--max-size", "1k"),
        ("web-1", "--max-size", "1k"),
        ("--all", "--out", "d", "--max-files", "2"),
        ("--all", "--out", "d", "--max-size", "0"),
        ("--all", "--out", "d", "--max-size", "1k", "--max-files", "0"),
        ("--all", "--since", "yesterday"),
        ("--all", "--until", "tomorrow"),
        ("--all", "-n", "some"),
        ("web-1", "we/b"),
        ("--all", "--host", "nothing://like.it"),
    ],
)
def test_misuse(arguments: tuple[str, ...], call: Call) -> None:
    code, out, err = call(*arguments)
    assert (code, out) == (2, "")
    assert "muxframe" in err
    assert not list(Path().iterdir())


def test_names_are_before_the_lines_and_streams_apart(call: Call) -> None:
    assert call("job", "web-1") == (0, *reordered("job   | 0\nweb-1 | 0\nweb-1 | 1\nweb-1 | 2\n", ""))
    code, out, err = call("--all")
    assert code == 0
    assert said(out) == {"web-1": ["0", "1", "2"], "db   ": ["2"], "job  ": ["0"]}
    assert said(err) == {"db   ": ["0", "1"]}
    code, out, err = call("--all", "--stderr", "-")
    assert (code, err) == (0, "")
    assert said(out) == {"web-1": ["0", "1", "2"], "db   ": ["0", "1", "2"], "job  ": ["0"]}


def reordered(out: str, err: str) -> tuple[Any, str]:
    """Compare lines in any order."""

    class Text(str):
        def __eq__(self, other: object) -> bool:
            return isinstance(other, str) and sorted(self.splitlines()) == sorted(other.splitlines())

        __hash__ = str.__hash__

    return Text(out), err


def test_one_container_stays_as_it_is(call: Call) -> None:
    assert call("web-1") == (0, "0\n1\n2\n", "")
    assert call("db") == (0, "2\n", "0\n1\n")


def test_by_labels(call: Call) -> None:
    assert call("--label", "app", "--label", "tier=front")[:2] == (0, "web-1 | 0\nweb-1 | 1\nweb-1 | 2\n")
    assert set(said(call("--label", "app=shop")[1])) == {"web-1", "db   "}
    assert call("--label", "app=none") == (0, "", "")


def test_by_the_beginning_of_an_id(call: Call, engine: LoopbackEngine) -> None:
    ids = [engine.add(Container(name, log=numbers(1))).id for name in ("a", "b")]
    assert said(call(ids[0][:8], ids[1])[1]) == {"a": ["0"], "b": ["0"]}


def test_times_and_details(call: Call, engine: LoopbackEngine) -> None:
    engine.add(Container("more", log=numbers(1), log_details={"a": "b"}))
    code, out, _ = call("more", "job", "-t", "--details")
    assert code == 0
    first = "2026-11-21T05:46:30.000000000Z"
    assert said(out) == {"more": [f"{first} a=b 0"], "job ": [f"{first} 0"]}


def test_which_lines(call: Call) -> None:
    assert said(call("web-1", "job", "-n", "1")[1]) == {"web-1": ["2"], "job  ": ["0"]}
    assert said(call("web-1", "job", "--since", "2026-11-21T05:46:31Z")[1]) == {"web-1": ["1", "2"]}
    assert said(call("web-1", "job", "--until", "1795239991.5")[1]) == {"web-1": ["0", "1"], "job  ": ["0"]}
    assert said(call("web-1", "job", "--until", "2099-01-01")[1]) == {"web-1": ["0", "1", "2"], "job  ": ["0"]}
    assert said(call("web-1", "job", "-f", "--until", "1795239991.5")[1]) == {"web-1": ["0", "1"], "job  ": ["0"]}


def test_json(call: Call, engine: LoopbackEngine) -> None:
    code, out, err = call("--all", "--json")
    assert (code, err) == (0, "")
    found = [json.loads(line) for line in out.splitlines()]
    assert len(found) == 7
    assert next(each for each in found if each["stream"] == "stderr") == {
        "container": "db",
        "id": find(engine, "db").id,
        "stream": "stderr",
        "timestamp": "2026-11-21T05:46:30.000000000Z",
        "data": "0",
    }


def test_one_that_is_missing_does_not_stop_the_others(call: Call) -> None:
    code, out, err = call("job", "nosuch", "web-1", "job")
    assert (code, err) == (1, "muxframe: no such container: nosuch\n")
    assert said(out) == {"web-1": ["0", "1", "2"], "job  ": ["0"]}
    code, out, err = call("no1", "no2")
    assert (code, out) == (1, "")
    assert err.count("no such container") == 2


def test_one_that_cannot_be_read_does_not_stop_the_others(call: Call, engine: LoopbackEngine) -> None:
    mute = engine.add(Container("mute", log=numbers(1)))
    engine.fault("logs", Fault(status=501, body={"message": "no\x1b[2Jgo"}), container=mute.id)
    code, out, err = call("mute", "job")
    assert (code, said(out)) == (1, {"job ": ["0"]})
    assert err.startswith("muxframe: 'mute': ")
    assert "no\\x1b[2Jgo" in err


def test_names_cannot_move_the_cursor(call: Call, engine: LoopbackEngine) -> None:
    engine.add(Container("\x1b[2Jx", log=[(1, b"\x1b[1mbold\n")], labels={"hostile": ""}))
    engine.add(Container("y" * 50, log=numbers(1), labels={"hostile": ""}))
    _, out, _ = call("--label", "hostile")
    assert sorted(out.splitlines()) == ["\\x1b[2Jx | \x1b[1mbold", "y" * 50 + " | 0"]  # too long to be padded for


def test_a_line_longer_than_memory_wants_to_hold(call: Call, engine: LoopbackEngine) -> None:
    """Printed, its pieces are lines of their own: others come in between. A file has it as it was."""
    long = b"x" * 16_384
    log = [(1, long, T0)] * 80 + [(1, b"end\n", T0)]
    engine.add(Container("long", log=log))
    _, out, _ = call("long", "job")
    pieces = said(out)["long"]
    assert len(pieces) == 2
    assert "".join(pieces).encode() == long * 80 + b"end"
    assert call("long", "--out", "logs", "-t")[0] == 0
    assert Path("logs/long.stdout.log").read_bytes() == b"2026-11-21T05:46:30.000000000Z " + long * 80 + b"end\n"


COLORED = re.compile(r"\x1b\[(\d+)m(\S+) *\|\x1b\[0m \d")


def test_colors_if_asked_for(call: Call) -> None:
    assert "\x1b" not in call("--all")[1]
    _, out, err = call("--all", "--color", "always")
    colors = {name: color for color, name in COLORED.findall(out + err)}
    assert len(colors) == len(set(colors.values())) == 3
    assert len(COLORED.findall(out)) == 5
    assert "\x1b" not in call("--all", "--color", "always", "--json")[1]


@posix
@pytest.mark.parametrize(
    ("environment", "arguments", "has_colors"),
    [
        ({}, (), True),
        ({"NO_COLOR": ""}, (), True),
        ({"NO_COLOR": "1"}, (), False),
        ({"NO_COLOR": "1"}, ("--color", "always"), True),
        ({"TERM": "dumb"}, (), False),
        ({}, ("--color", "never"), False),
    ],
)
def test_colors_on_a_terminal(
    environment: dict[str, str], arguments: tuple[str, ...], has_colors: bool, engine: LoopbackEngine
) -> None:
    environment = {**os.environ, "TERM": "xterm", **environment}
    with Terminal(engine.host, "logs", "--all", "--no-status", *arguments, env=environment) as terminal:
        assert terminal.wait() == 0
        separator = b" |\x1b[0m " if has_colors else b" | "
        assert terminal.drawn.count(separator) == 7
        assert (b"\x1b[36m" in terminal.drawn) is has_colors


# --- into files ------------------------------------------------------------------------------------------------------


def texts(directory: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in sorted(Path(directory).iterdir())}


def test_a_file_for_each(call: Call) -> None:
    assert call("--all", "--out", "logs") == (0, "", "")
    assert texts("logs") == {
        "db.stderr.log": "0\n1\n",
        "db.stdout.log": "2\n",
        "job.stdout.log": "0\n",
        "web-1.stdout.log": "0\n1\n2\n",
    }
    assert call("job", "--out", "logs") == (0, "", "")
    assert texts("logs")["job.stdout.log"] == "0\n0\n"
    assert call("job", "--out", "json", "--json", "-t") == (0, "", "")
    assert json.loads(texts("json")["job.stdout.jsonl"])["container"] == "job"


def test_files_rotate_if_asked_to(call: Call) -> None:
    assert call("web-1", "--out", "logs", "--max-size", "2", "--max-files", "2") == (0, "", "")
    assert texts("logs") == {"web-1.stdout.log": "2\n", "web-1.stdout.log.1": "1\n"}


def test_parquet(call: Call) -> None:
    pytest.importorskip("pyarrow")
    import pyarrow.parquet

    assert call("--all", "--parquet", "columns", "--out", "columns") == (0, "", "")
    (path,) = Path("columns").glob("*.parquet")
    rows = pyarrow.parquet.read_table(path).to_pylist()
    assert sorted((row["source"], row["stream"], row["line"]) for row in rows) == [
        ("db", 1, b"2"),
        ("db", 2, b"0"),
        ("db", 2, b"1"),
        ("job", 1, b"0"),
        ("web-1", 1, b"0"),
        ("web-1", 1, b"1"),
        ("web-1", 1, b"2"),
    ]
    assert Path("columns/db.stdout.log").read_text() == "2\n"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk(call: Call) -> None:
    code, _, err = call("--all", "--stdout", "/dev/full", "--checkpoint", "kept")
    assert (code, err) == (1, "muxframe: /dev/full: No space left on device\n")
    assert not Path("kept").exists()


@posix
def test_a_file_that_cannot_grow(engine: LoopbackEngine) -> None:
    import resource

    engine.add(Container("much", log=[(1, b"x" * 99 + b"\n")] * 100))
    limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (5000, 5000))  # noqa: E731
    done = run(engine.host, "logs", "much", "--out", "logs", "--checkpoint", "kept", preexec_fn=limit)
    assert (done.returncode, done.stderr) == (1, b"muxframe: logs: File too large\n")
    assert not Path("kept").exists()
    assert len(Path("logs/much.stdout.log").read_bytes()) % 100 == 0


def test_a_closed_pipe(engine: LoopbackEngine) -> None:
    engine.add(Container("much", log=[(1, b"x" * 999 + b"\n")] * 2000))
    process = start(engine.host, "logs", "much", "job")
    with process:
        assert process.stdout and process.stderr
        process.stdout.readline()
        process.stdout.close()
        assert process.wait(20) == 141
        assert process.stderr.read() == b""


# --- from checkpoints ------------------------------------------------------------------------------------------------


def test_each_line_once_however_often_it_is_run(call: Call, engine: LoopbackEngine) -> None:
    arguments = ("--label", "app", "--stderr", "-", "--checkpoint", "kept", "-n", "2")
    assert said(call(*arguments)[1]) == {"web-1": ["1", "2"], "db   ": ["1", "2"]}
    assert call(*arguments) == (0, "", "")
    find(engine, "web-1")._write(1, b"new\n")
    engine.add(Container("later", log=numbers(9), labels={"app": ""}))
    assert said(call(*arguments)[1]) == {"web-1": ["new"], "later": list("012345678")}
    assert call(*arguments) == (0, "", "")
    assert not Path("kept.part").exists()


def test_what_was_wanted_at_first_is_what_is_wanted(call: Call, engine: LoopbackEngine) -> None:
    arguments = ("--all", "--checkpoint", "kept", "--stderr", "-", "--since", "1795239992")
    assert said(call(*arguments)[1]) == {"web-1": ["2"], "db   ": ["2"]}
    engine.add(Container("later", log=numbers(4)))
    assert said(call(*arguments[:-2])[1]) == {"later": ["2", "3"]}


def test_a_file_is_written_on(call: Call, engine: LoopbackEngine) -> None:
    arguments = ("web-1", "--checkpoint", "kept", "--stdout", "out")
    for count in range(3):
        assert call(*arguments) == (0, "", "")
        assert Path("out").read_text().splitlines() == ["0", "1", "2", *["more"] * count]  # one container: no name
        find(engine, "web-1")._write(1, b"more\n")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\xff\xfe",
        b"{}",
        b"[]",
        b"[" * 100_000,
        b'{"muxframe checkpoints": 1, "since": null, "containers": []}',
        b'{"muxframe checkpoints": 1, "since": 5, "containers": {}}',
        b'{"muxframe checkpoints": 1, "since": null, "containers": {"a": "[1,\\"b\\",0,null,null]"}}',
        b'{"muxframe checkpoints": 1, "since": null, "containers": {"a": "[1,\\"a\\",0,null"}}',
        b'{"muxframe checkpoints": 2, "since": null, "containers": {}}',
    ],
)
def test_a_checkpoint_file_that_is_none(content: bytes, call: Call) -> None:
    Path("kept").write_bytes(content)
    Path("out").write_text("mine")
    code, out, err = call("--all", "--checkpoint", "kept", "--stdout", "out")
    assert (code, out) == (1, "")
    assert re.match(r"muxframe: \S+kept: (not a checkpoint file, or damaged|.*another version)", err)
    assert Path("kept").read_bytes() == content
    assert Path("out").read_text() == "mine"


def test_a_checkpoint_file_that_cannot_be(call: Call) -> None:
    assert call("--all", "--checkpoint", "no/kept")[0] == 1
    Path("directory").mkdir()
    code, out, err = call("--all", "--checkpoint", "directory")
    assert (code, out) == (1, "")
    assert "directory: " in err


@posix
def test_a_checkpoint_file_behind_a_link(call: Call) -> None:
    Path("there").mkdir()
    Path("kept").symlink_to("there/kept")
    assert call("--all", "--checkpoint", "kept")[0] == 0
    assert Path("kept").is_symlink()
    assert call("--all", "--checkpoint", "there/kept") == (0, "", "")


# --- following -------------------------------------------------------------------------------------------------------


@pytest.fixture
def following(engine: LoopbackEngine) -> Iterator[Callable[..., subprocess.Popen[bytes]]]:
    """Return a function that starts the command with -f."""
    started: list[subprocess.Popen[bytes]] = []

    def follow(*arguments: str, **options: Any) -> subprocess.Popen[bytes]:
        started.append(start(engine.host, "logs", "-f", *arguments, **options))
        return started[-1]

    yield follow
    for process in started:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[bytes]) -> bytes:
    assert process.stdout
    return process.stdout.readline()


@posix
def test_those_that_come_are_followed(engine: LoopbackEngine, following: Any) -> None:
    process = following("--label", "app")
    first = sorted(line_of(process) for _ in range(4))
    assert first == [b"db    | 2\n", b"web-1 | 0\n", b"web-1 | 1\n", b"web-1 | 2\n"]
    later = engine.add(Container("later-on", output=[b"one\n"], labels={"app": "x"}, begin="add"))
    assert line_of(process) == b"later-on | one\n"
    later.start()
    assert line_of(process) == b"later-on | one\n"
    find(engine, "web-1")._write(1, b"3\n")
    assert line_of(process) == b"web-1    | 3\n"
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == -signal.SIGINT


@posix
def test_a_missing_one_is_waited_for(engine: LoopbackEngine, following: Any) -> None:
    process = following("job", "later")
    assert line_of(process) == b"job | 0\n"
    assert process.stderr.readline() == b"muxframe: no such container: later (it is followed once there is one)\n"
    engine.add(Container("later", log=numbers(1)))
    find(engine, "later").kill()
    find(engine, "later").start()
    assert line_of(process) == b"later | 0\n"


@posix
def test_the_engine_goes_and_comes(engine: LoopbackEngine, following: Any) -> None:
    process = following("web-1", "job")
    for _ in range(4):
        line_of(process)
    engine.stop()
    assert process.stderr.readline().startswith(b"muxframe: ")
    engine.restart()
    find(engine, "web-1")._write(1, b"back\n")
    assert line_of(process) == b"web-1 | back\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(20) == -signal.SIGTERM
    assert process.stderr.read() == b""  # one complaint is enough


@posix
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("where", ["stdout", "out"])
def test_nothing_is_lost_and_nothing_comes_twice(
    number: signal.Signals, where: str, engine: LoopbackEngine, following: Any
) -> None:
    """Killed while it works: what it had not yet kept track of comes again."""
    is_over = threading.Event()

    def write(process: Process) -> None:
        count = 0
        while not is_over.is_set():
            process.write(b"%d\n" % count)
            count += 1
            time.sleep(0.001)
        process.write(b"end\n")

    for name in ("one", "two"):
        engine.add(Container(name, write, labels={"count": ""}))
    wanted = ("--stdout", "lines") if where == "stdout" else ("--out", "files")
    path = Path("lines" if where == "stdout" else "files/two.stdout.log")
    size = 0
    for _ in range(3):
        process = following("--label", "count", "--checkpoint", "kept", *wanted)
        eventually(lambda: path.exists() and path.stat().st_size > size + 500 and Path("kept").exists())  # noqa: B023
        process.send_signal(number)
        assert process.wait(20) == -number
        size = path.stat().st_size
    is_over.set()
    done = run(engine.host, "logs", "--label", "count", "--checkpoint", "kept", *wanted)
    assert (done.returncode, done.stderr) == (0, b"")
    for name in ("one", "two"):
        if where == "stdout":
            lines = said(Path("lines").read_text())[name]
        else:
            lines = Path(f"files/{name}.stdout.log").read_text().splitlines()
        once = lines if number != signal.SIGKILL else list(dict.fromkeys(lines))
        assert once == [*map(str, range(len(once) - 1)), "end"]
        assert len(once) > 100


@posix
def test_a_signal_finds_nobody_who_reads(engine: LoopbackEngine, following: Any) -> None:
    engine.add(Container("much", log=[(1, b"x" * 999 + b"\n")] * 2000))
    process = following("much", "job", "--checkpoint", "kept")
    eventually(lambda: select.select([process.stdout], [], [], 0)[0])
    time.sleep(0.2)
    process.send_signal(signal.SIGTERM)
    assert process.wait(8) == -signal.SIGTERM


@posix
def test_what_comes_is_in_the_files_at_once(engine: LoopbackEngine, following: Any) -> None:
    following("web-1", "--out", "logs", *(("--parquet", "columns") if find_spec("pyarrow") else ()))
    path = Path("logs/web-1.stdout.log")
    eventually(lambda: path.exists() and path.read_text() == "0\n1\n2\n")


# --- the status line -------------------------------------------------------------------------------------------------

STATUS = rb"\r\x1b\[K\d+ containers?, \d+ lines, \d+ B; \d+ lines/s, \d+ B/s"


@posix
def test_status_of_what_goes_into_files(engine: LoopbackEngine) -> None:
    with Terminal(engine.host, "logs", "-f", "--all", "--out", "logs", env={**os.environ, "TERM": "xterm"}) as terminal:
        terminal.expect(b" lines/s")
        assert re.fullmatch(STATUS, terminal.drawn)
        terminal.expect(b"3 containers, 7 lines, 14 B;")
        terminal.type(b"\x03")
        assert terminal.wait() == -signal.SIGINT
        assert re.search(rb"B/s(\^C)?\r\x1b\[K$", terminal.drawn)


@posix
def test_status_below_what_is_printed(engine: LoopbackEngine) -> None:
    with Terminal(
        engine.host, "logs", "-f", "web-1", "nosuch", size=(20, 40), env={**os.environ, "TERM": "xterm"}
    ) as terminal:
        terminal.expect(b" lines, 6 B;")
        find(engine, "web-1")._write(1, b"more\n")
        terminal.expect(b"more")
        terminal.expect(b" lines, 11 B;")
        terminal.type(b"\x03")
        assert terminal.wait() == -signal.SIGINT
    drawn = terminal.drawn.replace(b"^C", b"")
    assert screen(drawn) == [
        "muxframe: no such container: nosuch (it is followed once there is one)",
        *(f"web-1 | {text}" for text in ("0", "1", "2", "more")),
        "",
    ]
    assert max(map(len, re.findall(rb"1 container, [^\r]*", drawn))) == 37


def screen(drawn: bytes) -> list[str]:
    """Return what stays of what was drawn: lines, of which some were erased."""
    text = re.sub(rb"\x1b\[\d+m", b"", drawn)
    return [re.sub(rb".*\r\x1b\[K", b"", line).decode() for line in text.split(b"\r\n")]


@posix
def test_no_status_where_another_program_may_write(engine: LoopbackEngine) -> None:
    with Terminal(
        engine.host, "logs", "-f", "--all", stdout=subprocess.PIPE, env={**os.environ, "TERM": "xterm"}
    ) as terminal:
        terminal.expect(b" 1\r\n")
        time.sleep(0.7)
        terminal.type(b"\x03")
        assert terminal.wait() == -signal.SIGINT
        assert b"lines" not in terminal.drawn


@posix
@pytest.mark.parametrize(("arguments", "term"), [(("--no-status",), "xterm"), ((), "dumb")])
def test_no_status(arguments: tuple[str, ...], term: str, engine: LoopbackEngine) -> None:
    with Terminal(
        engine.host, "logs", "-f", "--all", "--out", "logs", *arguments, env={**os.environ, "TERM": term}
    ) as terminal:
        eventually(lambda: len(list(Path().glob("logs/*"))) == 4)
        time.sleep(0.7)
        terminal.type(b"\x03")
        assert terminal.wait() == -signal.SIGINT
        assert terminal.drawn.replace(b"^C", b"") == b""


@pytest.mark.parametrize(
    ("size", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_940, "999.9 kB"), (999_960, "1.0 MB"), (5e17, "500000.0 TB")],
)
def test_sizes_for_people(size: float, text: str) -> None:
    assert in_units(size) == text


# --- real engines ----------------------------------------------------------------------------------------------------

COUNT = (
    "trap q=1 TERM; i=0; [ -s /n ] && read i </n; while [ -z \"$q\" ]; do sleep 0.02; "
    'i=$((i+1)); echo $i >/m; mv /m /n; echo "o $i"; echo "e $i" >&2; done'
)


@pytest.mark.live
@posix
@pytest.mark.parametrize("variable", ENGINES)
def test_live(variable: str) -> None:
    """Three containers, one of which is restarted and one comes later; the command is restarted, too."""
    label = f"muxframe-clilogs-{os.getpid()}-{time.monotonic_ns()}"
    with Live(variable) as live:
        first = [live.run(COUNT, Labels={label: "yes"}) for _ in range(2)]
        arguments = ("--label", f"{label}=yes", "--json", "--checkpoint", "kept", "--stdout", "lines")

        def read() -> list[dict[str, str]]:
            text = Path("lines").read_text()
            return [json.loads(line) for line in text[: text.rfind("\n") + 1].splitlines()]  # it is being written

        def has_more(count: int) -> bool:
            return len(read()) > count and {each["id"] for each in read()} == set(first)

        for again in range(2):
            with start(live.host, "logs", "-f", *arguments) as process:
                eventually(lambda: Path("lines").exists() and has_more(0))
                if again:
                    first.append(live.run(COUNT, Labels={label: "yes"}))
                else:
                    live.engine.request("POST", f"/containers/{first[0]}/restart", query={"t": "5"})
                eventually(partial(has_more, len(read()) + 100))
                process.send_signal(signal.SIGTERM)
                assert process.wait(20) == -signal.SIGTERM
        for container in first:
            live.engine.kill(container, "TERM")
            live.engine.wait(container, timeout=20)
        done = run(live.host, "logs", *arguments)
        assert (done.returncode, done.stderr) == (0, b"")
        lines = read()
        assert {each["id"] for each in lines} == set(first)
        for container in first:
            for stream in ("stdout", "stderr"):
                found = [each["data"] for each in lines if (each["id"], each["stream"]) == (container, stream)]
                assert found == [f"{stream[3]} {number}" for number in range(1, len(found) + 1)]
                assert len(found) > 1
        done = run(live.host, "logs", "-n", "1", *first)
        assert (done.returncode, done.stdout.count(b" | o ") + done.stderr.count(b" | e ")) == (0, 3)
