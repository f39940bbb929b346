#!/usr/bin/env python3
"""What two threads do in the time of one: bulk work holds no GIL, and objects that are not shared wait for nobody.

    python benchmarks/threads.py              with two threads, nine rounds
    python benchmarks/threads.py --threads 4

Each thread has buffers of its own. A round is the work of one thread alone, and then that of all at once;
the gain is how many times as much is done in the same time, the median of the rounds'. sha256, which waits for no
memory and holds no GIL, shows what the machine's processors can do together. A wire of 32 MiB comes from memory, and
memory is shared: two threads copy less than twice as much there, whoever they are.

Time in which a thread could have run, but others had the processors, does not count where Linux tells it: what is left
is work, and waiting for locks. So the gain can be told on a busy machine, too, if not as exactly. `feed` makes objects
under the GIL, where there is one: its row shows that a gain which is not there is not found.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks.contenders import Job, lines, ours
from benchmarks.workloads import CACHE, LINES, MEMORY, MIB, Workload, make
from muxframe import BACKEND, copy

FIGURE = 1.8
SECONDS = 0.15  # that one thread works in a round, about

#: What is done, and on how large a wire.
WORK: dict[str, Callable[[], Job]] = {
    "sha256, 1 MiB": lambda: Job(lambda data=bytes(MIB): hashlib.sha256(data).digest(), len),
    "demux_into, 20-250 B, 1 MiB": lambda: ours.demux_into(make(LINES, MIB)),
    "demux_into, 20-250 B, 32 MiB": lambda: ours.demux_into(make(LINES, MEMORY)),
    "demux_into, 64 B, 1 MiB": lambda: ours.demux_into(make("64 B", MIB)),
    "feed_into, 20-250 B, 1 MiB": lambda: ours.feed_into(make(LINES, MIB)),
    "feed (makes objects), 20-250 B": lambda: ours.feed(make(LINES, MIB)),
    "copy to buffers, 20-250 B, 1 MiB": lambda: ours.copy(make(LINES, MIB)),
    "copy between descriptors, 20-250 B": lambda: copy_descriptors(make(LINES, MEMORY)),
    "batches, 100 B lines, 4 MiB": lambda: lines.batches(lines.make(CACHE)),
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=2, help="(default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="(default: %(default)s)")
    arguments = parser.parse_args()
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    print(f"Python {sys.version.split()[0]}, {'with' if has_gil else 'without'} the GIL; {BACKEND} backend")
    print(f"{arguments.threads} threads against one, median of {arguments.rounds} rounds; two should reach {FIGURE}x")
    prepared = {name: [work() for _ in range(arguments.threads)] for name, work in WORK.items()}
    gains: dict[str, list[float]] = {name: [] for name in prepared}
    for _ in range(arguments.rounds):
        for name, jobs in prepared.items():
            gains[name].append(gain(jobs))
    for name, found in gains.items():
        print(f"{name:36} {statistics.median(found):5.2f}x   ({min(found):.2f} to {max(found):.2f})")


def gain(jobs: list[Job]) -> float:
    """Return how many times as much all do as one alone, in the same time."""
    times = max(1, round(SECONDS / min(jobs[0].once()[0] for _ in range(3))))
    alone = together(jobs[:1], times)
    return len(jobs) * alone / together(jobs, times)


def together(jobs: list[Job], times: int) -> float:
    """Do each job so many times, in a thread of its own, all at once; return the seconds of the slowest."""
    begin = threading.Barrier(len(jobs))
    seconds = []

    def work(job: Job) -> None:
        arguments = [job.setup() for _ in range(times)]
        begin.wait()
        start = time.perf_counter() - kept_waiting()
        for each in arguments:
            job.run(*each)
            job.teardown(*each)
        seconds.append(time.perf_counter() - kept_waiting() - start)

    threads = [threading.Thread(target=work, args=(job,)) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return max(seconds)


def kept_waiting() -> float:
    """Return the seconds for which this thread was ready to run and had no processor, as far as is known."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_bytes().split()[1]) * 1e-9
    except OSError:
        return 0.0


def copy_descriptors(workload: Workload) -> Job:
    """From a file to nowhere, through the loop between descriptors."""
    source = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115
    source.write(workload.wire)
    sink = open(os.devnull, "wb", buffering=0)  # noqa: SIM115
    return Job(lambda _: copy(source.fileno(), sink.fileno(), sink.fileno()), sum, lambda: (source.seek(0),))


if __name__ == "__main__":
    main()
