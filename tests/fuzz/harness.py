"""What the harnesses share: a seeded random loop, replay of files, libFuzzer by way of atheris.

    python tests/fuzz/fuzz_NAME.py --seconds 60 --seed 1        a seeded random loop
    python tests/fuzz/fuzz_NAME.py FILE...                      replay
    python tests/fuzz/fuzz_NAME.py --atheris -max_total_time=60 CORPUS
                          coverage-guided, with libFuzzer's options; an empty CORPUS is filled with random inputs first

A failing input is kept as a file. In tests/fuzz/cases/NAME/ it is replayed by tests/test_fuzz.py from then on.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import sys
import time
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the oracles


def instrumented() -> Any:
    """Return a context in which to import what is fuzzed, so that atheris sees its branches where it is asked for."""
    if "--atheris" not in sys.argv:
        return nullcontext()
    import atheris  # type: ignore[import-not-found, import-untyped, unused-ignore]

    return atheris.instrument_imports(include=["muxframe"])


def random_cuts(rng: random.Random, wire: bytes) -> list[bytes]:
    """Cut a wire at up to eight places, or none."""
    ends = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(1, 9)))
    return [piece for start, end in zip([0, *ends], [*ends, len(wire)]) if (piece := wire[start:end])]


@dataclass(frozen=True)
class Fuzzer:
    """One target.

    Attributes:
        name: of its directory of cases.
        random_input: makes an input.
        run_one: runs one; what it raises is a finding.
    """

    name: str
    random_input: Callable[[random.Random], bytes]
    run_one: Callable[[bytes], None]

    def run_for(self, seconds: float, seed: int, *, keep_in: Path) -> int:
        """Run random inputs of a seed for a time; return how many. A failing one is reported and kept."""
        deadline = time.monotonic() + seconds
        for number in count():
            if number and time.monotonic() >= deadline:
                return number
            data = self.random_input(random.Random(f"{seed}/{number}"))
            try:
                self.run_one(data)
            except Exception as error:
                error.add_note(f"input {number} of seed {seed}: {self._keep(data, keep_in)}")
                raise
        raise AssertionError

    def _keep(self, data: bytes, directory: Path) -> str:
        """Write an input to a file, and say where and what."""
        path = directory / f"{self.name}-{hashlib.sha256(data).hexdigest()[:12]}.bin"
        path.write_bytes(data)
        shown = data.hex() if len(data) <= 2000 else f"{data[:1000].hex()}... ({len(data)} bytes)"
        return f"{path}\n{shown}"

    def main(self) -> None:
        """Run from the command line."""
        if "--atheris" in sys.argv:
            self._run_atheris([argument for argument in sys.argv[1:] if argument != "--atheris"])
            return
        parser = argparse.ArgumentParser(description=(sys.modules["__main__"].__doc__ or "").partition("\n")[0])
        parser.add_argument("--seconds", type=float, default=60, help="how long to run random inputs")
        parser.add_argument("--seed", type=int, default=random.SystemRandom().getrandbits(32), help="of these inputs")
        parser.add_argument("--keep-in", type=Path, default=Path(os.curdir), help="where a failing input is written")
        parser.add_argument("file", type=Path, nargs="*", help="inputs to replay instead")
        options = parser.parse_args()
        for path in options.file:
            self.run_one(path.read_bytes())
            print(f"{path}: no finding")
        if not options.file:
            started = time.monotonic()
            executions = self.run_for(options.seconds, options.seed, keep_in=options.keep_in)
            rate = executions / (time.monotonic() - started)
            print(f"{self.name}: seed {options.seed}: {executions} executions, {rate:.0f} a second, no finding")

    def _run_atheris(self, arguments: list[str]) -> None:
        """Hand over to libFuzzer, which does not return."""
        import atheris

        for name in arguments:
            corpus = Path(name)
            if not name.startswith("-") and corpus.is_dir() and not any(corpus.iterdir()):
                for number in range(500):
                    (corpus / f"seed-{number}").write_bytes(self.random_input(random.Random(number)))
                break
        atheris.Setup([sys.argv[0], *arguments], self.run_one)
        atheris.Fuzz()
