#!/usr/bin/env python3
"""Compare two runs: fail where muxframe has become slower, measured against the limit or the naive loop beside it.

    python benchmarks/compare.py BASE.json NEW.json [--threshold 1.25]

Absolute times depend on the machine and on what else it does, so they are not looked at: of each series of ours the
median is divided by the median of its reference in the same run (memcpy, recv_into and discard, cat; for what a Python
loop decides, the naive loop), and those quotients are compared.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from benchmarks import rows
from benchmarks.report import REFERENCES
from benchmarks.run import load

if TYPE_CHECKING:
    from benchmarks.measure import Results

NAIVE = "naive loop, BytesIO"
SLOW = ("Python twin", "Demuxer.feed,")  # beginnings of names: what makes an object a frame is no rival of memcpy


def reference_of(section: str, contender: str) -> str:
    """Return what a contender is measured against."""
    if section in (rows.MEMORY, rows.CACHE) and contender.startswith(SLOW):
        return NAIVE
    return REFERENCES[section]


def quotients(results: Results) -> dict[tuple[str, str, str], float]:
    """Return each series of ours over its reference."""
    found = {}
    for series in results.series:
        if series.kind not in ("muxframe", "twin"):
            continue
        reference = reference_of(series.section, series.contender)
        quotient = rows.ratio(results, series.section, series.workload, series.contender, reference)
        if quotient is not None:
            found[series.section, series.workload, series.contender] = quotient[0]
    return found


def compare(base: Results, new: Results, threshold: float) -> list[str]:
    """Describe what has become slower by more than the threshold."""
    before, after = quotients(base), quotients(new)
    slower = []
    for key in sorted(before.keys() & after.keys()):
        change = after[key] / before[key]
        if change > threshold:
            name = ", ".join(key)
            against = reference_of(key[0], key[2])
            slower.append(f"{name}: {before[key]:.2f} -> {after[key]:.2f} times {against} ({change:.2f}x)")
    return slower


def main() -> int:
    """Compare; return 1 where something has become slower."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--threshold", type=float, default=1.25, help="what is still noise (default: %(default)s)")
    arguments = parser.parse_args()
    base, new = load(arguments.base)[0], load(arguments.new)[0]
    common = quotients(base).keys() & quotients(new).keys()
    if not common:
        print("the two runs have nothing in common")
        return 2
    slower = compare(base, new, arguments.threshold)
    print(f"{len(common)} series compared, {len(slower)} slower by more than {arguments.threshold:g}x")
    for line in slower:
        print(f"  {line}")
    return 1 if slower else 0


if __name__ == "__main__":
    sys.exit(main())
