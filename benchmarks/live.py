#!/usr/bin/env python3
"""A million log lines from a real engine, and the cost of attaching: muxframe, curl and docker-py side by side.

    python benchmarks/live.py                       five rounds, with an engine of its own (needs root)
    python benchmarks/live.py --host unix:///...    with an engine that runs; TEST_IMAGE names an image with a shell
    python benchmarks/live.py --json FILE

Each client is a process of its own, and each round runs all of them once, in another order. Wall time is that of the
whole process, start-up included; CPU is the process's own, user and system. What each has read is compared with what
the container wrote.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import muxframe

HERE = Path(__file__).resolve().parent
LINES = 1_000_000
#: 84 bytes with its line end, as the log lines of a chatty service.
LINE = "2026-11-21 12:00:00,000 INFO request handled path=/v1/things/123456 status=200 t=%07d"
SCRIPT = f"exec awk 'BEGIN {{ for (i = 0; i < {LINES}; i++) printf \"{LINE}\\n\", i }}'"

MUXFRAME = """
import os, sys, muxframe
host, container, path = sys.argv[1:]
with muxframe.connect(host).logs(container) as session, open(path, "wb", 0) as sink:
    session.copy_to(sink, sink)
"""
LINES_OF = """
import sys, muxframe
host, container, path = sys.argv[1:]
with muxframe.connect(host).logs(container, timestamps=True) as session, open(path, "wb") as sink:
    for line in session.lines():
        assert line.timestamp
        sink.write(line.data + b"\\n")
"""
AIO = """
import asyncio, sys, muxframe.aio
async def main(host, container, path):
    engine = await muxframe.aio.connect(host)
    async with engine.logs(container) as session:
        with open(path, "wb", 0) as sink:
            await session.copy_to(sink, sink)
asyncio.run(main(*sys.argv[1:]))
"""
DOCKER_PY = """
import sys, docker
host, container, path = sys.argv[1:]
client = docker.APIClient(base_url=host, version="auto")
with open(path, "wb", 0) as sink:
    for piece in client.logs(container, stream=True):
        sink.write(piece)
"""
DOCKER_PY_INSTALLED = "import muxframe.compat.docker_py\nmuxframe.compat.docker_py.install()" + DOCKER_PY


def main() -> int:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--host", help="the engine's address; without it one is started")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    arguments = parser.parse_args()
    with engine(arguments.host) as (host, image):
        samples: dict[str, list[dict[str, float]]] = {}
        with container(host, image, ["sh", "-c", SCRIPT]) as name, tempfile.TemporaryDirectory() as scratch:
            muxframe.connect(host).start(name)
            muxframe.connect(host).wait(name)
            commands = clients(host, name)
            for round_ in range(arguments.rounds):
                for client in random.Random(round_).sample(sorted(commands), len(commands)):
                    output = Path(scratch, "output")
                    samples.setdefault(client, []).append(run(commands[client], output))
                    check(client, output)
        with container(host, image, ["sleep", "600"]) as name:
            muxframe.connect(host).start(name)
            attaching = attach_times(host, name, arguments.rounds * 40)
            muxframe.connect(host).kill(name)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps({"logs": samples, "attach": attaching}, indent=1))
    report(samples, attaching)
    return 0


@contextmanager
def engine(host: str | None) -> Iterator[tuple[str, str]]:
    """Give an engine's address and an image: a dockerd of our own unless there is one to use."""
    if host is not None:
        yield host, os.environ.get("TEST_IMAGE", "localhost/muxframe-test:latest")
        return
    scripts = HERE.parent / "tests" / "engines"
    with tempfile.TemporaryDirectory(prefix="mf-bench-") as directory:
        environment = {**os.environ, "ENGINES_DIR": directory}
        try:
            exports = subprocess.run(
                [scripts / "up", "--only", "docker"], env=environment, check=True, stdout=subprocess.PIPE, text=True
            ).stdout
            words = dict(word.split("=", 1) for word in shlex.split(exports) if "=" in word)
            yield words["DOCKER_HOST"], words["TEST_IMAGE"]
        finally:
            subprocess.run([scripts / "down"], env=environment, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def container(host: str, image: str, command: list[str]) -> Iterator[str]:
    """Make a container, and remove it at the end."""
    engine = muxframe.connect(host)
    config = {"Image": image, "Cmd": command, "HostConfig": {"NetworkMode": "none"}}
    made: str = engine.request("POST", "/containers/create", body=config).json()["Id"]
    try:
        yield made
    finally:
        engine.request("DELETE", f"/containers/{made}", query={"force": "1"})


def clients(host: str, name: str) -> dict[str, list[str]]:
    """List the commands to compare; each gets the output file's name at its end."""
    python = [sys.executable, "-c"]
    target = f"/v1.41/containers/{name}/logs?stdout=1&stderr=1"
    curl = ["curl", "-sf", "--unix-socket", host.removeprefix("unix://"), f"http://d{target}", "--output"]
    return {
        "curl": curl,
        "muxframe": [*python, MUXFRAME, host, name],
        "muxframe.aio": [*python, AIO, host, name],
        "muxframe, lines with timestamps": [*python, LINES_OF, host, name],
        "docker-py": [*python, DOCKER_PY, host, name],
        "docker-py, muxframe installed": [*python, DOCKER_PY_INSTALLED, host, name],
    }


def run(command: list[str], output: Path) -> dict[str, float]:
    """Run a client; return its wall and CPU seconds."""
    started = time.perf_counter()
    child = os.posix_spawnp(command[0], [*command, str(output)], os.environ)
    _, status, usage = os.wait4(child, 0)
    wall = time.perf_counter() - started
    if status:
        raise SystemExit(f"failed: {command[0]}")
    return {"wall": wall, "cpu": usage.ru_utime + usage.ru_stime}


def check(client: str, output: Path) -> None:
    """Make sure that the client has read everything."""
    wire = output.read_bytes()
    payload = b"".join(muxframe.demux(wire)) if client == "curl" else wire  # curl takes nothing apart
    lines = payload.count(b"\n")
    last = (LINE % (LINES - 1)).encode() + b"\n"
    if lines != LINES or not payload.endswith(last):
        raise SystemExit(f"{client} has read {lines} lines of {LINES}")


def attach_times(host: str, name: str, count: int) -> dict[str, list[float]]:
    """Time attaching to an idle container: from a connected client to a stream one can read."""
    import docker

    ours, theirs = muxframe.connect(host), docker.APIClient(base_url=host, version="auto")
    parameters = {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1}

    def attach_ours() -> None:
        ours.attach(name, stdin=True).close()

    def attach_theirs() -> None:
        theirs.attach_socket(name, parameters).close()

    times: dict[str, list[float]] = {"muxframe": [], "docker-py": []}
    for _ in range(count):
        for who, attach in (("muxframe", attach_ours), ("docker-py", attach_theirs)):
            started = time.perf_counter()
            attach()
            times[who].append(time.perf_counter() - started)
    return times


def report(samples: dict[str, list[dict[str, float]]], attaching: dict[str, list[float]]) -> None:
    """Print medians, and the ratios that count: the median of the rounds' ratios."""
    print(f"{LINES:,} log lines, {len(samples['curl'])} rounds\n")
    print("| client | wall s | CPU s | wall of curl's | CPU of docker-py's |")
    print("| --- | --- | --- | --- | --- |")
    for client, runs in samples.items():
        wall = ratio(runs, samples["curl"], "wall")
        cpu = ratio(runs, samples["docker-py"], "cpu")
        medians = [statistics.median(run[key] for run in runs) for key in ("wall", "cpu")]
        print(f"| {client} | {medians[0]:.2f} | {medians[1]:.2f} | {wall:.2f}x | {cpu:.2f}x |")
    middle = {who: statistics.median(times) for who, times in attaching.items()}
    print(f"\nattach to an idle container, median of {len(attaching['muxframe'])}:")
    for who, median in middle.items():
        print(f"  {who} {median * 1e3:.2f} ms ({median / middle['docker-py']:.2f}x docker-py)")


def ratio(ours: list[Any], theirs: list[Any], key: str) -> float:
    """Return the median of the ratios, round by round."""
    return float(statistics.median(mine[key] / other[key] for mine, other in zip(ours, theirs)))


if __name__ == "__main__":
    sys.exit(main())
