#!/usr/bin/env python3
"""What an idle stream costs: thousands of containers that say nothing, gathered in one process by one thread.

    python benchmarks/idle.py                       5,000 containers
    python benchmarks/idle.py --count 1000 --top    and where the memory is, by line

The engine is a process of its own, and no more than a few fixed answers. Memory is the process's resident size; the
kernel's own of each socket is not in it. The limit of open files (ulimit -n) must be larger than the count.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import tracemalloc
from pathlib import Path
from urllib.parse import unquote

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from muxframe import aio, pack_frame

FIGURE = 8 * 1024  # bytes a stream
HEAD = (
    "HTTP/1.{minor} 200 OK\r\nApi-Version: 1.45\r\nDate: Sat, 21 Nov 2026 09:00:00 GMT\r\n"
    "Server: Docker/26.1.5 (linux)\r\n"
)


def main() -> int:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=5000, help="containers (default: %(default)s)")
    parser.add_argument("--top", action="store_true", help="show where the memory is (slower)")
    parser.add_argument("--serve", metavar="PATH", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        asyncio.run(serve(arguments.serve, arguments.count))
        return 0
    with tempfile.TemporaryDirectory(prefix="mf-idle-") as directory:
        path = f"{directory}/engine.sock"
        server = subprocess.Popen(
            [sys.executable, __file__, "--serve", path, "--count", str(arguments.count)],
            stdin=subprocess.PIPE,  # it ends with us
            stdout=subprocess.DEVNULL,
        )
        try:
            while not os.path.exists(path):
                time.sleep(0.05)
            return asyncio.run(measure(path, arguments.count, arguments.top))
        finally:
            server.terminate()
            server.wait()


async def measure(path: str, count: int, top: bool) -> int:
    """Gather them, and print what each costs."""
    if top:
        tracemalloc.start()
    async with aio.gather("c0", host=path) as gathering:  # what is made once is made now
        await gathering.read()
    gc.collect()
    begin, first = time.perf_counter(), resident()
    heard: set[str] = set()
    async with aio.gather(host=path) as gathering:
        async for source, _ in gathering:
            heard.add(source.id)
            if len(heard) == count:
                break
        took = time.perf_counter() - begin
        await asyncio.sleep(0.5)
        gc.collect()
        each = (resident() - first) / count
        print(f"{count} idle streams: {each:.0f} bytes each (figure: {FIGURE}), connected in {took:.1f} s")
        before = time.process_time()
        waiting = asyncio.ensure_future(gathering.read())
        await asyncio.sleep(5)
        print(f"CPU while nothing happens: {(time.process_time() - before) / 5:.2%}")
        waiting.cancel()
        if top:
            print(f"{tracemalloc.get_traced_memory()[0] / count:8.0f} bytes each of Python's own")
            for statistic in tracemalloc.take_snapshot().statistics("lineno")[:40]:
                print(f"{statistic.size / count:8.0f} {statistic.count / count:6.2f}  {statistic.traceback}")
    return each > FIGURE


def resident() -> int:
    """Return this process's resident size in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# --- the engine ------------------------------------------------------------------------------------------------------


async def serve(path: str, count: int) -> None:
    """Be an engine of containers that have said one line each."""
    ids = [f"{number:064x}" for number in range(count)]
    listed = json.dumps(
        [{"Id": id, "Names": [f"/c{number}"], "Labels": {}, "State": "running"} for number, id in enumerate(ids)]
    )
    line = pack_frame(1, b"2026-11-21T09:00:00.123456789Z hello\n")

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readuntil(b"\r\n\r\n"):
            target, version = request.split(b" ", 3)[1:3]
            head = HEAD.format(minor=version[7:8].decode())
            what = unquote(target.decode()).partition("?")[0]
            if what.endswith(("/logs", "/events")):
                writer.write(f"{head}\r\n".encode() + (line if what.endswith("/logs") else b""))
                await reader.read()
                break
            body = "OK" if what.endswith("_ping") else listed if what.endswith("/containers/json") else described(what)
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await answer(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async with await asyncio.start_unix_server(serve_one, path, backlog=1024):
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(None, sys.stdin.read)


def described(path: str) -> str:
    """Return what inspect says, about as long as a real one."""
    state = {"Status": "running", "Running": True, "StartedAt": "2026-11-21T09:00:00Z", "FinishedAt": ""}
    config = {"Tty": False, "Env": ["PATH=/usr/bin"] * 50}
    return json.dumps({"Id": path.split("/")[-2], "State": state, "Config": config})


if __name__ == "__main__":
    sys.exit(main())
