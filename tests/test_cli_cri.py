"""`muxframe cri ps`, `attach` and `exec` with --cri, run as processes against a runtime on the loopback interface."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from runtime import Refused, Runtime, Stream

pytest.importorskip("websockets")
pytest.importorskip("grpc")
if not hasattr(socket, "AF_UNIX"):
    pytest.skip("no unix sockets", allow_module_level=True)


@pytest.fixture
def runtime() -> Iterator[Runtime]:
    with Runtime().running() as running:
        yield running


def run(*arguments: str, stdin: bytes = b"", **environ: str) -> tuple[int, bytes, bytes]:
    command = [sys.executable, "-m", "muxframe", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60, env={**os.environ, **environ})
    return done.returncode, done.stdout, done.stderr


def ending(code: int) -> bytes:
    causes = [{"reason": "ExitCode", "message": str(code)}]
    return json.dumps({"status": "Failure", "reason": "NonZeroExitCode", "details": {"causes": causes}}).encode()


def test_ps(runtime: Runtime) -> None:
    labels = [(8, [(1, "io.kubernetes.pod.name"), (2, "web-1")])]
    image = (4, [(1, "image:1")])
    runtime.listed = [
        [(1, "a" * 64), (2, "b" * 64), (3, [(1, "web")]), image, (6, 1), *labels],
        [(1, "c" * 64), (2, "d" * 64), (3, [(1, "job")]), image, (6, 2)],
    ]
    code, out, err = run("cri", "ps", CONTAINER_RUNTIME_ENDPOINT=runtime.endpoint)
    assert (code, err) == (0, b"")
    assert out.decode().splitlines() == [
        "CONTAINER ID  STATE    POD           NAME  IMAGE",
        "aaaaaaaaaaaa  running  web-1         web   image:1",
        "cccccccccccc  exited   dddddddddddd  job   image:1",
    ]
    assert run("cri", "ps", "-H", runtime.endpoint, "--all", "--no-trunc")[1].count(b"a" * 64) == 1
    assert [bool(fields) for fields in runtime.asked("ListContainers")] == [True, False]


@pytest.mark.parametrize(("to", "why"), [("&-", "is closed"), ("/dev/full", "No space left on device")])
def test_ps_into_nothing(to: str, why: str, runtime: Runtime) -> None:
    if to == "/dev/full" and not os.path.exists(to):
        pytest.skip("no /dev/full")
    script = f'"$0" -m muxframe cri ps -H "$1" >{to}'
    command = ["sh", "-c", script, sys.executable, runtime.endpoint]
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (1, f"muxframe: standard output: {why}\n")


def test_attach(runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        assert stream.hear_stdin(6) == b"hello\n"
        stream.say(1, b"out\xff\n")
        stream.say(2, b"err\n")
        stream.end()

    runtime.script = script
    runtime.states = [(1, 0), (1, 0), (2, 7)]
    code, out, err = run("attach", "--cri", "-H", runtime.endpoint, "abc", stdin=b"hello\n")
    assert (code, out) == (7, b"out\xff\n")
    assert b"err\n" in err  # and perhaps that stdin has ended, which nobody over there can be told
    runtime.script = lambda stream: stream.end()
    runtime.states = [(1, 0), (2, 0)]
    assert run("attach", "--cri", "-H", runtime.endpoint, "--no-stdin", "abc") == (0, b"", b"")
    assert [fields.get(2) for fields in runtime.asked("Attach")] == [[1], None]


def test_exec(runtime: Runtime) -> None:
    def script(stream: Stream) -> None:
        stream.say(1, b"one\n")
        stream.say(2, b"two\n")
        stream.end(ending(42))

    runtime.script = script
    at = ["--cri", "-H", runtime.endpoint]
    assert run("exec", *at, "abc", "ls", "-l", "a b") == (42, b"one\n", b"two\n")
    code, out, _ = run("exec", *at, "--json", "abc", "ls")
    assert code == 42
    lines = [json.loads(line) for line in out.splitlines()]
    assert lines == [{"stream": "stdout", "data": "one"}, {"stream": "stderr", "data": "two"}]
    assert runtime.asked("Exec")[0] == {1: [b"abc"], 2: [b"ls", b"-l", b"a b"], 5: [1], 6: [1]}
    runtime.refuse["Exec"] = Refused("NOT_FOUND", "no such container")
    assert run("exec", *at, "abc", "ls") == (1, b"", b"muxframe: no such container\n")


def test_endpoint(runtime: Runtime) -> None:
    """It may stand behind --cri, where an id may stand, too."""
    runtime.script = lambda stream: stream.end()
    path = runtime.endpoint.removeprefix("unix://")
    for endpoint in (runtime.endpoint, path):
        runtime.states = [(1, 0), (2, 0)]
        assert run("attach", "--no-stdin", "--cri", endpoint, "abc") == (0, b"", b"")
        assert run("exec", "--tls", "/none", "--cri", endpoint, "-t", "abc", "/bin/ls", "--cri", path) == (0, b"", b"")
    for option in ("--cri", "--cri --stdout=/dev/null", "--stdout /dev/null --cri"):
        arguments = [*option.split(), "abc", "/bin/ls", "--cri", path]
        assert run("exec", *arguments, CONTAINER_RUNTIME_ENDPOINT=path) == (0, b"", b"")
    assert [fields[2] for fields in runtime.asked("Exec")] == [[b"/bin/ls", b"--cri", path.encode()]] * 5


@pytest.mark.parametrize(
    "arguments", [["exec", "-e", "A=b"], ["exec", "-u", "root"], ["exec", "--privileged"], ["attach", "--start"]]
)
def test_what_a_runtime_does_not_know(arguments: list[str], tmp_path: Path) -> None:
    command = ["ls"] if arguments[0] == "exec" else []
    code, out, err = run(*arguments, "--cri", "-H", str(tmp_path / "nothing"), "abc", *command)
    assert (code, out) == (2, b"")
    assert err.endswith(b"is not for --cri\n")


def test_nobody_there(tmp_path: Path) -> None:
    code, _, err = run("cri", "ps", "-H", str(tmp_path / "nothing"))
    text = f"muxframe: cannot connect to unix://{tmp_path}/nothing (endpoint argument): No such file or directory\n"
    assert (code, err.decode()) == (1, text)
