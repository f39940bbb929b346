"""follow and gather with real engines: a dockerd of our own is restarted and killed; fifty containers come and go.

A container that is restarted with the engine writes numbered lines to both streams. Every number must come once, and
those of a stream in their order.
"""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from live import ENGINES, IMAGE, PATIENCE, engine_host, eventually

import muxframe
from muxframe import Line, Stream

SCRIPTS = Path(__file__).parent / "engines"
STREAMS = (Stream.STDOUT, Stream.STDERR)

#: Goes on counting where it was when it was stopped: the number is kept before it is written.
COUNT = (
    "trap q=1 TERM; i=0; [ -s /n ] && read i </n; while [ -z \"$q\" ]; do "
    'i=$((i+1)); echo $i >/m; mv /m /n; echo "o $i $PAD"; echo "e $i $PAD" >&2; done'
)


class Dockerd:
    """A dockerd that can be stopped and started: it has the data of the one that tests/engines/up has started."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self.host = f"unix://{directory}/docker/docker.sock"
        self._process: subprocess.Popen[bytes] | None = None
        pid = int((directory / "docker.pid").read_text().split()[0])
        self._command = Path(f"/proc/{pid}/cmdline").read_bytes().rstrip(b"\0").split(b"\0")
        self._stop_first = pid

    def stop(self, number: int = signal.SIGTERM) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(PATIENCE)
            return
        os.kill(self._stop_first, number)
        while Path(f"/proc/{self._stop_first}").exists():
            time.sleep(0.05)

    def start(self) -> None:
        for left in ("dockerd.pid", "exec/containerd/containerd.pid"):  # by one that was killed
            (self._directory / "docker" / left).unlink(missing_ok=True)
        with open(self._directory / "docker.log", "ab") as log:
            self._process = subprocess.Popen(self._command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)


@pytest.fixture(scope="module")
def dockerd() -> Iterator[Dockerd]:
    engine_host("DOCKER_HOST")  # otherwise nobody wants real engines
    if os.geteuid() != 0:
        pytest.skip("an engine of our own needs root")
    with tempfile.TemporaryDirectory(prefix="mf-ingest-", ignore_cleanup_errors=True) as directory:
        environment = {**os.environ, "ENGINES_DIR": directory}
        subprocess.run(
            [SCRIPTS / "up", "--only", "docker", "--no-install"], env=environment, check=True, stdout=subprocess.PIPE
        )
        engine = Dockerd(Path(directory))
        try:
            yield engine
        finally:
            if engine._process is not None:
                engine.stop()
            subprocess.run([SCRIPTS / "down"], env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def container(host: str, script: str, name: str = "", **host_config: Any) -> Iterator[str]:
    engine = muxframe.connect(host)
    config = {
        "Image": IMAGE,
        "Cmd": ["sh", "-c", script],
        "Labels": {"muxframe": "ingest"},
        "HostConfig": {"NetworkMode": "none", **host_config},
    }
    query = {"name": name} if name else {}
    made: str = engine.request("POST", "/containers/create", body=config, query=query).json()["Id"]
    try:
        engine.start(made)
        yield made
    finally:
        try:
            engine.kill(made)
        except muxframe.EngineError:
            pass
        try:
            muxframe.connect(host).request("DELETE", f"/containers/{made}", query={"force": "true"})
        except muxframe.NotFoundError:
            pass


def slowly(milliseconds: int) -> str:
    return COUNT.replace("echo $i >/m", f"sleep 0.{milliseconds:03d}; echo $i >/m").replace(" $PAD", "")


def check(lines: list[Line]) -> None:
    """Every number once, in order, on both streams; the last may be missing on stderr."""
    for stream, letter in ((Stream.STDOUT, b"o"), (Stream.STDERR, b"e")):
        found = [each.data for each in lines if each.stream is stream]
        assert found == [b"%s %d" % (letter, number) for number in range(1, len(found) + 1)]
        assert len(found) > 100


def written(host: str, name: str) -> list[Line]:
    with muxframe.connect(host).logs(name, timestamps=True) as session:
        return list(session.lines())


def follow_while(host: str, name: str, work: Callable[[Callable[[], None]], None]) -> tuple[list[Line], Any]:
    """Follow a container while something is done to it, and a little longer.

    `work` is given a function that waits until some more lines of both streams have come.
    """
    follower = muxframe.follow(name, host=host)
    follower.timeout = PATIENCE
    lines: list[Line] = []
    errors: list[BaseException] = []

    def count() -> int:
        return min(sum(each.stream is stream for each in lines.copy()) for stream in STREAMS)

    def more() -> None:
        wanted = count() + 60
        eventually(lambda: count() >= wanted)

    def do() -> None:
        try:
            work(more)
            more()
        except BaseException as error:
            errors.append(error)
        finally:
            follower.close()

    thread = threading.Thread(target=do, daemon=True)
    thread.start()
    for line in follower:
        lines.append(line)  # others look on
    thread.join()
    if errors:
        raise errors[0]
    return lines, follower


def check_against_the_log(host: str, name: str, lines: list[Line], follower: Any) -> None:
    """What was followed is the log, as far as it goes: engines themselves lose lines when they are killed."""
    log = written(host, name)
    for stream in STREAMS:
        mine = [each for each in lines if each.stream is stream]
        assert mine == [each for each in log if each.stream is stream][: len(mine)]
        assert len(mine) > 100
    assert follower.gaps == 0
    rest = muxframe.follow(name, host=host, checkpoint=str(follower.checkpoint))
    rest.timeout = PATIENCE
    following = [next(rest) for _ in range(50)]
    rest.close()
    for stream in STREAMS:
        whole = [each for each in lines + following if each.stream is stream]
        assert whole == [each for each in written(host, name) if each.stream is stream][: len(whole)]


@pytest.mark.live
def test_the_engine_is_restarted(dockerd: Dockerd) -> None:
    with container(dockerd.host, slowly(2), RestartPolicy={"Name": "always"}) as name:

        def restart_twice(more: Callable[[], None]) -> None:
            for _ in range(2):
                more()
                dockerd.stop()
                time.sleep(0.5)
                dockerd.start()
                muxframe_waits_for(dockerd.host)

        lines, follower = follow_while(dockerd.host, name, restart_twice)
        check(lines)
        check_against_the_log(dockerd.host, name, lines, follower)


@pytest.mark.live
def test_the_engine_is_killed(dockerd: Dockerd) -> None:
    with container(dockerd.host, slowly(2), RestartPolicy={"Name": "always"}) as name:

        def kill(more: Callable[[], None]) -> None:
            more()
            dockerd.stop(signal.SIGKILL)
            dockerd.start()
            muxframe_waits_for(dockerd.host)

        lines, follower = follow_while(dockerd.host, name, kill)
        check_against_the_log(dockerd.host, name, lines, follower)


def muxframe_waits_for(host: str) -> None:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            muxframe.connect(host)
        except (muxframe.ConnectionLostError, muxframe.EngineError):
            assert time.monotonic() < end, "the engine did not come back"
            time.sleep(0.1)
        else:
            return


@pytest.mark.live
@pytest.mark.parametrize("variable", ENGINES)
def test_the_container_is_restarted(variable: str) -> None:
    host = engine_host(variable)
    with container(host, slowly(5)) as name:

        def restart(more: Callable[[], None]) -> None:
            for _ in range(2):
                more()
                muxframe.connect(host).request("POST", f"/containers/{name}/restart", query={"t": "60"})

        lines, follower = follow_while(host, name, restart)
        check(lines)
        check_against_the_log(host, name, lines, follower)


@pytest.mark.live
@pytest.mark.parametrize("variable", ["DOCKER_HOST", "DOCKER_HOST_NEW"])
def test_the_log_is_rotated(variable: str) -> None:
    host = engine_host(variable)
    log = {"Type": "json-file", "Config": {"max-size": "100k", "max-file": "5"}}
    with container(host, slowly(2).replace('"o $i"', f'"o $i {"x" * 300}"'), LogConfig=log) as name:

        def kept(size: int) -> bool:
            return sum(len(each.data) + 80 for each in written(host, name)) > size

        lines, follower = follow_while(host, name, lambda _: eventually(lambda: kept(250_000)))  # two rotations
        for stream, letter in ((Stream.STDOUT, b"o"), (Stream.STDERR, b"e")):
            found = [each.data.split()[:2] for each in lines if each.stream is stream]
            assert found == [[letter, b"%d" % number] for number in range(1, len(found) + 1)]
        checkpoint = follower.checkpoint
        last = lines[-1].timestamp
        assert last is not None
        eventually(
            lambda: all(each.timestamp is None or each.timestamp > last for each in written(host, name)), 2 * PATIENCE
        )
        late = muxframe.follow(name, host=host, checkpoint=checkpoint)
        late.timeout = PATIENCE
        next(late)
        late.close()


@pytest.mark.live
@pytest.mark.parametrize("variable", ENGINES)
def test_fifty_containers_come_and_go(variable: str) -> None:
    host = engine_host(variable)
    engine = muxframe.connect(host)
    label = f"muxframe-{os.getpid()}-{time.monotonic_ns()}"
    script = 'i=0; while [ $i -lt 40 ]; do i=$((i+1)); echo "o $i"; echo "e $i" >&2; done; sleep 0.2'
    heard: dict[str, dict[Stream, list[bytes]]] = {}
    made: list[str] = []

    def make() -> None:
        for number in range(50):
            config = {
                "Image": IMAGE,
                "Cmd": ["sh", "-c", script],
                "Labels": {label: "yes"},
                "HostConfig": {"NetworkMode": "none"},
            }
            id = engine.request("POST", "/containers/create", body=config).json()["Id"]
            made.append(id)
            engine.start(id)
            if number % 10 == 9:
                time.sleep(0.5)

    thread = threading.Thread(target=make, daemon=True)
    try:
        with engine.gather(labels={label: "yes"}) as gathering:
            gathering.timeout = PATIENCE
            thread.start()
            for _ in range(50 * 80):
                try:
                    source, line = next(gathering)
                except TimeoutError:
                    counts = [sum(map(len, heard.get(id, {}).values())) for id in made]
                    errors = [each.error for each in gathering.sources if each.error is not None]
                    pytest.fail(f"lines of each: {counts}; {errors}")
                heard.setdefault(source.id, {}).setdefault(line.stream, []).append(line.data)
            checkpoints = gathering.checkpoints
        thread.join()
        assert set(heard) == set(made)
        for id in made:
            for stream, letter in ((Stream.STDOUT, b"o"), (Stream.STDERR, b"e")):
                assert heard[id][stream] == [b"%s %d" % (letter, number) for number in range(1, 41)]
        with engine.gather(labels=[label], checkpoints=checkpoints, until="exited") as gathering:
            gathering.timeout = PATIENCE
            assert list(gathering) == []
    finally:
        thread.join()
        for id in made:
            try:
                engine.request("DELETE", f"/containers/{id}", query={"force": "true", "t": "0"})
            except muxframe.EngineError:
                pass
