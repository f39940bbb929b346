"""Whatever an archive and its index hold: the lines the oracle says, or a documented error behind some of them.

An input is 6 bytes of settings (what the stream is, how it is compressed, how often the index cuts it, a seed) and the
wire, which is written into an archive. Three things are checked:

- as it is: all of it, and its slices one behind the other, have the oracle's lines and fault;
- cut off at random: what is read is a beginning of these lines, and what is raised is documented;
- with an index that was changed at random, its checks made good again or not: it is refused exactly where `is_valid`, a
  second reader of the format, refuses it, and what reading then raises is documented.

harness.py says how to run it.
"""

from __future__ import annotations

import atexit
import gzip
import io
import random
import shutil
import struct
import tempfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness import Fuzzer, instrumented, random_cuts

import line_oracle  # isort: skip

with instrumented():
    from muxframe import archive
    from muxframe.archive import index
    from muxframe.errors import ArchiveError, DaemonError, FramingError

SETTINGS_SIZE = 6

#: What reading an archive may raise.
CONTRACT = (ArchiveError, FramingError, DaemonError)

HEAD, ENTRY, CHECK = struct.Struct(">8sBBBx"), struct.Struct(">BxHQQIqq"), struct.Struct(">I")
MAGIC = b"\x89muxidx\n"

_directory = tempfile.mkdtemp()
atexit.register(shutil.rmtree, _directory, ignore_errors=True)


@dataclass(frozen=True)
class File:
    """A file that is only in memory."""

    path: str
    content: bytes

    def __enter__(self) -> io.BytesIO:
        return io.BytesIO(self.content)

    def __exit__(self, *_: object) -> None:
        pass


def random_input(rng: random.Random) -> bytes:
    """Make an input."""
    settings = bytes((rng.randrange(16), rng.randrange(256))) + rng.randbytes(4)
    flags = settings[0]
    shape = {"raw": bool(flags & 1), "timestamps": bool(flags & 2), "details": bool(flags & 4)}
    return settings + line_oracle.random_log(rng, **shape)


def run_one(data: bytes) -> None:
    """Run every check on one input."""
    settings, wire = data[:SETTINGS_SIZE].ljust(SETTINGS_SIZE, b"\0"), data[SETTINGS_SIZE:]
    flags, rng = settings[0], random.Random(settings)
    shape = {"raw": bool(flags & 1), "timestamps": bool(flags & 2), "details": bool(flags & 4)}
    name = "a.gz" if flags & 8 else "a"
    content = b"".join(map(gzip.compress, random_cuts(rng, wire))) if flags & 8 else wire
    path = Path(_directory, name)
    path.write_bytes(content)
    try:
        archive.build_index(path, **shape, interval=1 + settings[1])
    except CONTRACT:
        pass
    made = path.with_name(f"{name}.idx").read_bytes()
    assert is_valid(made), "an index that is not as its format says"
    whole, expected = File(str(path), content), line_oracle.split(wire, **shape)
    check_as_it_is(whole, File("", made), expected)
    cut = File(str(path), content[: rng.randrange(len(content) + 1)])
    lines, _ = read(cut, False, shape)
    sure = lines[:-6]  # of each stream the last may be cut, and the one before it without what would have continued it
    assert sure == expected.lines[: len(sure)], "a cut archive has lines of its own"
    check_index(rng, whole, made)


def check_as_it_is(file: File, made: File, expected: line_oracle.Outcome) -> None:
    opened = archive.open(file, index=made)
    for slices in ([opened], opened.slices(), opened.slices(2)):
        lines: list[line_oracle.Row] = []
        fault: Exception | None = None
        for each in slices:
            if fault is None:
                fault = take(each, lines)
        assert lines == expected.lines, f"{len(slices)} slices: {lines!r:.1000}, not {expected.lines!r:.1000}"
        assert (fault is None) == (expected.end == "clean"), f"{fault!r}, but {expected.end} expected"
        assert fault is None or fault.offset == expected.offset  # type: ignore[attr-defined]


def check_index(rng: random.Random, file: File, made: bytes) -> None:
    """Read a changed index, and the archive by it."""
    changed = change(rng, made)
    try:
        index.parse(changed)
    except ArchiveError:
        assert not is_valid(changed), f"refused: {changed.hex()}"
    else:
        assert is_valid(changed), f"accepted: {changed.hex()}"
    read(file, File("", changed), {})


def change(rng: random.Random, made: bytes) -> bytes:
    """Change some bytes; half of the time make the checks good again, so that what they protect is looked at."""
    changed = bytearray(made)
    for _ in range(rng.choice((1, 1, 2, 5))):
        position = rng.randrange(len(changed))
        change = rng.choice((0, 1, 0x80, 0xFF, rng.randrange(256)))
        changed[position] = change if rng.random() < 0.5 else (changed[position] + rng.choice((1, 255))) & 255
    if rng.random() < 0.3:
        del changed[rng.randrange(len(changed) + 1) :]
    if rng.random() < 0.3:
        begin = min(len(changed), HEAD.size + CHECK.size)
        changed += changed[begin : begin + rng.choice((48, 200))]
    return checked(bytes(changed)) if rng.random() < 0.7 else bytes(changed)


def checked(data: bytes) -> bytes:
    """Make the checks of an index good."""
    fixed, check, position, size = b"", 0, 0, HEAD.size
    while len(data) - position >= size + CHECK.size:
        part = data[position : position + size]
        check = zlib.crc32(part, check)
        fixed += part + CHECK.pack(check)
        position += size + CHECK.size
        following = data[position : position + ENTRY.size].ljust(ENTRY.size, b"\0")
        size = ENTRY.size + ENTRY.unpack(following)[1]
    return fixed + data[position:]


def is_valid(data: bytes) -> bool:
    """Say whether this is an index: by archive/index.py's first page."""
    if len(data) < HEAD.size + CHECK.size:
        return False
    magic, version, flags, codec = HEAD.unpack_from(data)
    check = zlib.crc32(data[: HEAD.size])
    if (magic, version) != (MAGIC, 1) or flags > 7 or codec > 2 or data[HEAD.size : HEAD.size + 4] != CHECK.pack(check):
        return False
    offset = wire_offset = 0
    has_ended = False
    rest = data[HEAD.size + CHECK.size :]
    while len(rest) >= ENTRY.size:
        kind, carry, at, wire_at = ENTRY.unpack_from(rest)[:4]
        size = ENTRY.size + carry
        if len(rest) < size + CHECK.size:
            break
        check = zlib.crc32(rest[:size], check)
        grows = at > offset and wire_at > wire_offset
        stays = at >= offset and wire_at >= wire_offset
        if has_ended or rest[size : size + 4] != CHECK.pack(check) or not (grows if kind == 1 else kind == 2 and stays):
            return False
        offset, wire_offset, has_ended = at, wire_at, kind == 2
        rest = rest[size + CHECK.size :]
    return True


def read(file: File, made: File | bool, shape: dict[str, Any]) -> tuple[list[line_oracle.Row], Exception | None]:
    """Read an archive as far as it goes."""
    lines: list[line_oracle.Row] = []
    try:
        opened = archive.open(file, index=made, **shape)
    except ArchiveError as error:
        return lines, error
    return lines, take(opened, lines)


def take(part: Any, lines: list[line_oracle.Row]) -> Exception | None:
    """Add an archive's or a slice's lines; return what it ends with."""
    try:
        for line in part.lines():
            lines.append((int(line.stream), line.timestamp, line.data, line.partial, line.details))
    except CONTRACT as error:
        assert len(str(error)) < 70_000, "an error keeps too much"
        return error
    return None


FUZZER = Fuzzer("archive", random_input, run_one)

if __name__ == "__main__":
    FUZZER.main()
