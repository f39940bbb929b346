#!/usr/bin/env python3
"""What moving to muxframe gains: each way that is used today beside what takes its place, in one run.

    python benchmarks/migration.py              the table of docs/migration.md: two minutes
    python benchmarks/migration.py --quick      rough: half a minute

As in run.py, everybody has turns in every round, in another order each time, and a gain is the median of the rounds'
ratios. Frames have 20 to 250 bytes, as log lines have. Who is not installed is skipped by name.
"""

from __future__ import annotations

import argparse
import platform
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import muxframe
from benchmarks import workloads
from benchmarks.contenders import Contender, clients, foreign, naive, ours, python_peers, stdcopy
from benchmarks.measure import Results, run_section

MEMORY, SOCKET, CLIENT = "in memory", "from a socket", "attached"
SIZES = {MEMORY: workloads.CACHE, SOCKET: 16 * workloads.MIB, CLIENT: 16 * workloads.MIB}

#: Where, what is used today, and what takes its place.
MOVES = [
    (MEMORY, "Moby StdCopy (Go)", "copy, buffer to buffers"),
    (MEMORY, "Python port of StdCopy", "copy, buffer to buffers"),
    (MEMORY, "Python port of StdCopy", "compat.stdcopy.StdCopy"),
    (MEMORY, "podman-py stream_frames", "frames, all kept as bytes"),
    (MEMORY, "naive loop, BytesIO", "demux"),
    (SOCKET, "naive loop, buffered file", "copy, socket to buffers"),
    (SOCKET, "naive loop, raw socket", "copy, socket to buffers"),
    (SOCKET, "docker-py frames_iter", "copy, socket to buffers"),
    (CLIENT, "docker-py attach", "docker-py attach, installed"),
    (CLIENT, "docker-py attach", "muxframe.attach, copy_to"),
    (CLIENT, "aiodocker attach", "aiodocker attach, installed"),
    (CLIENT, "aiodocker attach", "muxframe.aio.attach, chunks"),
]

EVERYBODY = {
    MEMORY: [*ours.IN_MEMORY, *ours.FRAME_BY_FRAME, *naive.IN_MEMORY, *python_peers.IN_MEMORY, *stdcopy.IN_MEMORY],
    SOCKET: [*ours.ON_SOCKET, *naive.ON_SOCKET, *python_peers.ON_SOCKET],
    CLIENT: clients.CLIENTS,
}


def taking_part(section: str) -> list[Contender]:
    """List the contenders of a section that the table needs."""
    names = {name for where, *pair in MOVES if where == section for name in pair}
    return [contender for contender in EVERYBODY[section] if contender.name in names]


def main() -> int:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--no-peers", action="store_true", help="build and run nothing in other languages")
    arguments = parser.parse_args()
    rounds = 3 if arguments.quick else 9
    results = Results()
    go = [] if arguments.no_peers else [peer for peer in foreign.PEERS if peer.name == MOVES[0][1]]
    for section in EVERYBODY:
        wire = workloads.make(workloads.LINES, SIZES[section])
        run_section(results, section, wire, taking_part(section), go if section == MEMORY else (), rounds=rounds)
    report(results)
    return 0


def report(results: Results) -> None:
    """Print the table."""
    python = f"{platform.python_implementation()} {platform.python_version()}"
    packages = sorted({series.package for series in results.series if series.package})
    print(f"muxframe {muxframe.__version__} ({muxframe.BACKEND} backend), {python}; {', '.join(packages)}\n")
    print("| where | before | ns a frame | after | ns a frame | gain |")
    print("| --- | --- | ---: | --- | ---: | ---: |")
    for section, before, after in MOVES:
        series = [results.find(section, workloads.LINES, name) for name in (before, after)]
        if None in series:
            print(f"| {section} | {before} | | {after} | | not measured |")
            continue
        old, new = (one for one in series if one is not None)
        times = [f"{1e9 * one.median / one.frames:,.1f}" for one in (old, new)]
        print(f"| {section} | {before} | {times[0]} | {after} | {times[1]} | {old.over(new):.1f}x |")
    for name, why in results.skipped.items():
        print(f"\nskipped: {name}: {why}")


if __name__ == "__main__":
    sys.exit(main())
