#!/usr/bin/env python3
"""Run every benchmark, interleaved, in rounds; say which figures are reached.

    python benchmarks/run.py                                    the tables: ten minutes
    python benchmarks/run.py --quick                            fewer rounds: three minutes
    python benchmarks/run.py --json FILE --plots docs --document docs/performance.md
    python benchmarks/run.py --from FILE --document docs/performance.md       show an earlier run again

Times are printed, never judged by the exit code: compare.py compares two runs.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import subprocess
import sys
import sysconfig
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import muxframe
from benchmarks import contenders, plots, report, rows, workloads
from benchmarks.contenders import Unavailable, foreign, lines, processes, sockets
from benchmarks.measure import Results, Series, run_section, say

GIB = 1024 * 1024 * 1024
SOCKET_SIZE = 16 * workloads.MIB
PIPED = ("16 B", "64 B", workloads.LINES, "32 KiB")
LOG_SIZE = 16 * workloads.MIB
SECTIONS = ("memory", "frames", "lines", "socket", "pieces", "processes")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer rounds and shorter pipes")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every sample")
    parser.add_argument("--plots", type=Path, metavar="DIR", help="draw plots there (needs matplotlib)")
    parser.add_argument("--document", type=Path, metavar="FILE", help="write the tables between a document's markers")
    parser.add_argument("--only", choices=SECTIONS, action="append", help="leave the other sections out")
    parser.add_argument("--rounds", type=int, help="rounds of each section (default: 9; with --quick 3)")
    parser.add_argument("--no-peers", action="store_true", help="build and run nothing in other languages")
    parser.add_argument("--from", dest="earlier", type=Path, metavar="FILE", help="measure nothing: show this JSON")
    arguments = parser.parse_args()

    if arguments.earlier is not None:
        results, about = load(arguments.earlier)
    else:
        about = describe(arguments.quick)
        results = measure(
            arguments.only or SECTIONS,
            rounds=arguments.rounds or (3 if arguments.quick else 9),
            piped=(64 if arguments.quick else 1024) * workloads.MIB,
            peers=() if arguments.no_peers else foreign.PEERS,
        )
    if arguments.json is not None:
        save(arguments.json, results, about)
    if arguments.plots is not None:
        try:
            for path in plots.draw(results, arguments.plots):
                say(f"drawn: {path}")
        except Unavailable as why:
            results.skip("plots", why)
    if arguments.document is not None:
        report.update_document(arguments.document, report.as_blocks(results, about))
    print(report.as_text(results, about), end="")
    return 0


def measure(sections: Any, *, rounds: int, piped: int, peers: tuple[foreign.Foreign, ...]) -> Results:
    """Measure sections, workload by workload."""
    results = Results()
    if "memory" in sections:
        everybody = contenders.in_memory()
        for name in workloads.NAMES:
            large = [contender for contender in everybody if contender.large]
            wire = workloads.make(name, workloads.MEMORY)
            run_section(results, rows.MEMORY, wire, large, [peer for peer in peers if peer.large], rounds=rounds)
            run_section(results, rows.CACHE, workloads.make(name), everybody, peers, rounds=rounds)
    if "frames" in sections:
        for name in ("16 B", "64 B", workloads.LINES, "32 KiB"):
            run_section(results, rows.FRAMES, workloads.make(name), contenders.frame_by_frame(), rounds=rounds)
    if "lines" in sections:
        run_section(results, rows.LINES_OF_LOG, lines.make(LOG_SIZE), lines.LINES, rounds=rounds)
    if "socket" in sections:
        for name in ("64 B", workloads.LINES, "32 KiB"):
            wire = workloads.make(name, SOCKET_SIZE)
            run_section(results, rows.SOCKET, wire, contenders.on_socket(), rounds=rounds)
            filled = sockets.fitting(workloads.make(name))
            run_section(results, rows.FILLED, filled, contenders.on_socket(), rounds=rounds)
    if "pieces" in sections:
        run_section(results, rows.PIECES, workloads.make(workloads.ONE_BYTE), contenders.in_pieces(), rounds=rounds)
    if "processes" in sections:
        _measure_processes(results, rounds, piped)
    return results


def _measure_processes(results: Results, rounds: int, piped: int) -> None:
    for section, files, size in ((rows.TO_NULL, False, piped), (rows.TO_FILES, True, min(piped, GIB // 4))):
        for name in PIPED:
            wire = workloads.make(name, 2 * workloads.BLOCK)
            repeats = max(1, size // len(wire.wire))
            through = processes.through_pipe(repeats, files=files)
            run_section(results, section, wire, through, rounds=max(3, rounds // 2), repeats=repeats)
    nothing = workloads.Workload("empty", b"", b"", b"", 0)
    run_section(results, rows.START, nothing, processes.starting(), rounds=rounds)
    say(rows.PEAK)
    results.values[rows.PEAK] = processes.peak_memory(GIB)


# --- what was measured where, and keeping it -------------------------------------------------------------------------


def describe(quick: bool) -> dict[str, Any]:
    """Say what is measured, and on what."""
    about: dict[str, Any] = {
        "command": "python benchmarks/run.py" + (" --quick" if quick else ""),
        "muxframe": f"{muxframe.__version__}, {muxframe.BACKEND} backend",
        "Python": f"{platform.python_version()} ({platform.python_implementation()})",
        "Cython": _installed("cython"),
        "compiler": _compiler(),
        "machine": f"{platform.system()}, {platform.machine()}",
        "processor": f"{_processor()}, {os.cpu_count()} cores",
        "caches": _caches(),
        "socket holds": f"{sockets.capacity() // 1024} KiB",
    }
    try:
        about["load before"] = "{:.1f} {:.1f} {:.1f}".format(*os.getloadavg())
    except OSError:
        pass
    return about


def _installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed here"


def _compiler() -> str:
    compiler = (os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc").split()[0]
    return f"{_first_line([compiler, '--version'])}, {sysconfig.get_config_var('CFLAGS') or ''}".strip(", ")


def _first_line(command: list[str]) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL)
        return done.stdout.splitlines()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return f"no {command[0]} here"


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or "unknown processor"


def _caches() -> str:
    found = []
    for index in sorted(Path("/sys/devices/system/cpu/cpu0/cache").glob("index*")):
        try:
            level, kind, size = ((index / name).read_text().strip() for name in ("level", "type", "size"))
        except OSError:
            continue
        if kind != "Instruction":
            found.append(f"L{level} {size}")
    return ", ".join(found) or "unknown"


def save(path: Path, results: Results, about: dict[str, Any]) -> None:
    """Write a run."""
    content = {"about": about, **dataclasses.asdict(results)}
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def load(path: Path) -> tuple[Results, dict[str, Any]]:
    """Read a run."""
    content = json.loads(path.read_text(encoding="utf-8"))
    series = [Series(**one) for one in content["series"]]
    return Results(series, content["skipped"], content["values"]), content["about"]


if __name__ == "__main__":
    sys.exit(main())
