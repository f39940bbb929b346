"""Whatever the bytes and the cuts, both twins and the oracle agree on lines, batches, counts and faults.

An input is 7 bytes of settings and the wire (see `Case.parse`). Each check runs one API on one twin, compares with the
oracle, and returns all it saw; both twins must have seen the same. harness.py says how to run it.
"""

from __future__ import annotations

import importlib
import random
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from harness import Fuzzer, instrumented

import line_oracle  # isort: skip
import oracle  # isort: skip

with instrumented():
    import muxframe  # noqa: F401
    from muxframe import _batches_py, _lines_py
    from muxframe.errors import DaemonError, ReservedBytesError, TruncatedStreamError, UnknownStreamError

if TYPE_CHECKING:
    from collections.abc import Callable

    Twin = tuple[Any, Any]  # two modules: lines, batches
    Check = Callable[[Twin, "Case", line_oracle.Outcome], object]

#: What may be raised, and the oracle's word for it.
FAULTS: dict[type[Exception], str] = {
    UnknownStreamError: "unknown",
    ReservedBytesError: "reserved",
    TruncatedStreamError: "truncated",
    DaemonError: "systemerr",
}
CONTRACT = tuple(FAULTS)

SIZES = (1 << 20, 1 << 20, 1, 2, 5, 20, 64, 1000)
SETTINGS_SIZE = 7


def load_twins() -> list[Twin]:
    """Return the Python twin and, where it was built, the compiled one; a broken one is an error."""
    twins: list[Twin] = [(_lines_py, _batches_py)]
    try:
        twins.append((importlib.import_module("muxframe._lines_c"), importlib.import_module("muxframe._batches_c")))
    except ModuleNotFoundError as error:
        if error.name not in ("muxframe._lines_c", "muxframe._batches_c"):
            raise
        print("fuzz_lines: no compiled twin here: only the Python twin and the oracle are compared", file=sys.stderr)
    return twins


TWINS = load_twins()


# --- inputs ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Case:
    """One input: a log, and how it is split."""

    wire: bytes
    raw: bool
    timestamps: bool
    details: bool
    max_line_size: int
    max_lines: int
    seed: int  #: of cuts and flushes

    @classmethod
    def parse(cls, data: bytes) -> Case:
        """Take an input apart: flags, two sizes, a seed of 4 bytes, the wire."""
        settings, wire = data[:SETTINGS_SIZE].ljust(SETTINGS_SIZE, b"\0"), data[SETTINGS_SIZE:]
        flags = settings[0]
        return cls(
            wire,
            raw=bool(flags & 1),
            timestamps=bool(flags & 2),
            details=bool(flags & 4),
            max_line_size=SIZES[settings[1] % len(SIZES)],
            max_lines=1 + settings[2],
            seed=int.from_bytes(settings[3:], "big"),
        )

    @property
    def options(self) -> dict[str, Any]:
        return {
            "raw": self.raw,
            "timestamps": self.timestamps,
            "details": self.details,
            "max_line_size": self.max_line_size,
        }

    def rng(self) -> random.Random:
        """Return the same random numbers for each twin."""
        return random.Random(self.seed)


def random_input(rng: random.Random) -> bytes:
    """Make an input that `Case.parse` takes."""
    settings = bytes((rng.randrange(8), rng.randrange(len(SIZES)), rng.choice((0, 1, 6, 255)))) + rng.randbytes(4)
    flags = settings[0]
    return settings + line_oracle.random_log(
        rng, raw=bool(flags & 1), timestamps=bool(flags & 2), details=bool(flags & 4)
    )


# --- checks ----------------------------------------------------------------------------------------------------------


def row(line: Any) -> line_oracle.Row:
    return int(line.stream), line.timestamp, line.data, line.partial, line.details


def judge(fault: Exception | None, expected: line_oracle.Outcome) -> object:
    """Compare how a stream ended with how the oracle says it ends; return all there is to a fault."""
    if fault is None:
        assert expected.end == "clean", f"no error, but {expected.end} expected"
        return None
    assert FAULTS[type(fault)] == expected.end, f"{fault!r}, but {expected.end} expected"
    assert fault.offset == expected.offset  # type: ignore[attr-defined]
    return type(fault), fault.args, str(fault), {**vars(fault), "lines": None}


def drain(sink: Any, case: Case, rng: random.Random, found: list[Any], *, flush: bool) -> Exception | None:
    """Feed all of it in random pieces; put what comes out into found, and return the fault if there is one."""
    try:
        for piece in oracle.cuts(case.wire, rng):
            found += sink.feed(piece)
            if flush and rng.random() < 0.3:
                found += sink.flush()
        found += sink.feed_eof()
    except CONTRACT as fault:
        found += fault.lines  # type: ignore[attr-defined]
        return fault
    return None


def check_splitter(twin: Twin, case: Case, expected: line_oracle.Outcome) -> object:
    """LineSplitter gives the oracle's lines."""
    splitter = twin[0].LineSplitter(**case.options)
    lines: list[Any] = []
    fault = drain(splitter, case, case.rng(), lines, flush=False)
    assert list(map(row, lines)) == expected.lines
    assert splitter.invalid_timestamps == expected.invalid
    return judge(fault, expected), list(map(repr, lines)), splitter.offset


def check_flush(twin: Twin, case: Case, expected: line_oracle.Outcome) -> object:
    """Flushes cut lines and lose nothing: what the oracle says a stream holds is there, in order."""
    splitter = twin[0].LineSplitter(**case.options)
    lines: list[Any] = []
    fault = drain(splitter, case, case.rng(), lines, flush=True)
    for stream in range(3):
        ours = b"".join(line.data for line in lines if line.stream == stream).replace(b"\r", b"")
        assert ours == b"".join(expected.of(stream)).replace(b"\r", b"")
    return judge(fault, expected), list(map(row, lines))


def check_reader(twin: Twin, case: Case, expected: line_oracle.Outcome) -> object:
    """LineReader gives the oracle's lines, from memory and from pieces; and then the fault, again and again."""
    rng = case.rng()
    pieces = [piece for piece in oracle.cuts(case.wire, rng) if piece]

    def readinto(buffer: memoryview) -> int:
        if not pieces:
            return 0
        piece = pieces[0][: len(buffer)]
        pieces[0] = pieces[0][len(piece) :]
        if not pieces[0]:
            del pieces[0]
        buffer[: len(piece)] = piece
        return len(piece)

    reader = twin[0].LineReader(rng.choice((readinto, case.wire)), **case.options)
    lines: list[Any] = []
    faults: list[Exception | None] = []
    for _ in range(2):
        try:
            lines.extend(map(row, reader))
            faults.append(None)
        except CONTRACT as fault:
            faults.append(fault)
    assert lines == expected.lines
    return [judge(fault, expected) for fault in faults]


def check_batches(twin: Twin, case: Case, expected: line_oracle.Outcome) -> object:
    """BatchBuilder gives the oracle's lines, in batches that are not too large."""
    rng = case.rng()
    options = {"line_type": rng.choice(_batches_py.LINE_TYPES), "source": rng.choice((None, "a name"))}
    builder = twin[1].BatchBuilder(
        max_lines=case.max_lines, max_bytes=rng.choice((1, 20, 1 << 20)), **options, **case.options
    )
    batches: list[Any] = []
    fault = drain(builder, case, rng, batches, flush=True)
    rows = [row(line) for batch in batches for line in batch]
    if options["line_type"] == "large_utf8":
        wanted = [(*each[:2], each[2].decode("utf-8", "replace").encode(), *each[3:]) for each in expected.lines]
    else:
        wanted = list(expected.lines)
    assert rows == wanted
    assert all(1 <= len(batch) <= case.max_lines for batch in batches)
    for batch in batches[:3]:  # without a reader: their memory is the sanitizers' to watch
        batch.__arrow_c_array__(), batch.__arrow_c_stream__()
    columns = [
        (len(batch), batch.streams.tolist(), batch.offsets.tolist(), bytes(batch.data), batch.partials.tolist())
        for batch in batches
    ]
    return judge(fault, expected), columns


def check_timestamps(twin: Twin, case: Case, expected: line_oracle.Outcome) -> object:
    """parse_timestamp reads what the oracle reads, from anything."""
    text = case.wire[:70].partition(b" ")[0]
    assert twin[0].parse_timestamp(text) == line_oracle.nanoseconds(text)
    return None


CHECKS: tuple[Check, ...] = (check_splitter, check_flush, check_reader, check_batches, check_timestamps)


# --- running ---------------------------------------------------------------------------------------------------------


def run_one(data: bytes) -> None:
    """Run every check on one input.

    Raises:
        AssertionError: a twin differs from the oracle, or from the other twin.
    """
    case = Case.parse(data)
    expected = line_oracle.split(case.wire, **case.options)
    for check in CHECKS:
        seen = [check(twin, case, expected) for twin in TWINS]
        assert all(each == seen[0] for each in seen), f"the twins differ in {check.__name__}: {seen!r:.2000}"


FUZZER = Fuzzer("lines", random_input, run_one)

if __name__ == "__main__":
    print(f"fuzz_lines: {', '.join(twin[0].__name__ for twin in TWINS)}, oracle", file=sys.stderr)
    FUZZER.main()
