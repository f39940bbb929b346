#!/usr/bin/env python3
"""Count instructions a frame: what a noisy machine cannot hide. Needs valgrind; skipped by name without it.

    python benchmarks/callgrind.py              count, and compare with instructions.json
    python benchmarks/callgrind.py --update     count, and write instructions.json

Each count is the difference between a process that does the work 2N times and one that does it N times, so that the
interpreter's start and the imports cancel out. Counts depend on the compiler, its options, Python's version and the C
library: what is stored is a limit for one kind of build, with slack, not a figure of merit.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import workloads
from benchmarks.contenders import lines

LIMITS = Path(__file__).resolve().with_name("instructions.json")
SLACK = 1.10
WIRE = 256 * workloads.KIB  # so long that what a call costs does not count
TIMEOUT = 300  # seconds

LOG = "100 B lines"

#: name: (workload, repeats, program). The program is run with `wire`, `out`, `err`; a repeat takes the whole wire.
LOOPS = {
    "demux_into, 64 B": ("64 B", 20, "muxframe.demux_into(wire, out, err)"),
    "demux_into, 20-250 B": (workloads.LINES, 20, "muxframe.demux_into(wire, out, err)"),
    "frames, 64 B": ("64 B", 2, "for frame in muxframe.frames(wire): pass"),
    "frames, bytes(frame), 64 B": ("64 B", 2, "for frame in muxframe.frames(wire): bytes(frame)"),
    "batches, 100 B lines": (LOG, 10, "for batch in muxframe.batches(wire, timestamps=True): pass"),
    "lines, 100 B lines": (LOG, 2, "for line in muxframe.lines(wire, timestamps=True): pass"),
}

PROGRAM = """
import sys
import muxframe
wire = open(sys.argv[1], "rb").read()
out, err = bytearray(len(wire)), bytearray(len(wire))
def work():
    {work}
for _ in range(int(sys.argv[2])):
    work()
"""


def instructions(work: str, wire: Path, repeats: int) -> int:
    """Return the instructions that a whole process takes."""
    done = subprocess.run(
        [
            "valgrind",
            "--tool=callgrind",
            f"--callgrind-out-file={os.devnull}",
            sys.executable,
            "-c",
            PROGRAM.format(work=work),
            str(wire),
            str(repeats),
        ],
        env={**os.environ, "PYTHONHASHSEED": "0"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
    )
    found = re.search(r"Collected\s*:\s*(\d+)", done.stderr)
    if done.returncode or not found:
        raise RuntimeError(f"valgrind failed: {done.stderr[-500:]}")
    return int(found[1])


def count() -> dict[str, float]:
    """Return instructions a frame for each loop."""
    counts = {}
    with tempfile.TemporaryDirectory(prefix="muxframe-bench-") as scratch:
        for name, (workload_name, repeats, work) in LOOPS.items():
            workload = lines.make(WIRE) if workload_name == LOG else workloads.make(workload_name, WIRE)
            wire = Path(scratch, "wire")
            wire.write_bytes(workload.wire)
            once, twice = (instructions(work, wire, times * repeats) for times in (1, 2))
            counts[name] = round((twice - once) / (repeats * workload.frames), 2)
    return counts


def main() -> int:
    """Count and compare; return 1 where a limit is exceeded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--update", action="store_true", help="write the counts as the new limits' base")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("skipped: callgrind: no valgrind here")
        return 0
    import muxframe

    if muxframe.BACKEND != "cython":
        print("skipped: callgrind: it counts the compiled core's instructions, and the backend is Python")
        return 0
    counts = count()
    if arguments.update:
        stored = {
            "build": f"{platform.machine()}, Python {platform.python_version()}",
            "slack": SLACK,
            "instructions a frame": counts,
        }
        LIMITS.write_text(json.dumps(stored, indent=2) + "\n", encoding="utf-8")
    limits = json.loads(LIMITS.read_text(encoding="utf-8"))
    exceeded = False
    print(f"instructions a frame; stored for {limits['build']}, slack {limits['slack']:g}")
    for name, measured in counts.items():
        base = limits["instructions a frame"][name]
        over = measured > base * limits["slack"]
        exceeded |= over
        print(f"  {name:30} {measured:10.2f}  stored {base:10.2f}  {'OVER THE LIMIT' if over else 'ok'}")
    return 1 if exceeded else 0


if __name__ == "__main__":
    sys.exit(main())
