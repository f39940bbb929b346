"""What can be saved of damaged archives: nothing is lost outside the gaps, and every byte is accounted for."""

from __future__ import annotations

import io
import random
import time
from pathlib import Path
from typing import Any

import oracle
import pytest

from muxframe import Gap, recover

pack = oracle.pack


def archive(seed: int, count: int = 300, sizes: tuple[int, ...] = (1, 5, 50, 500, 5000)) -> list[tuple[int, bytes]]:
    rng = random.Random(seed)
    return [(rng.choice((1, 2)), rng.randbytes(rng.choice(sizes))) for _ in range(count)]


def wire_of(frames: list[tuple[int, bytes]]) -> bytearray:
    return bytearray(b"".join(pack(*frame) for frame in frames))


def read(wire: Any, **options: Any) -> tuple[list[tuple[int, bytes]], list[Gap]]:
    """Read an archive in two ways, which must agree, and check that every byte is accounted for, in order."""
    items = list(recover(bytes(wire), **options))
    pieces = [bytes(wire[i : i + 999]) for i in range(0, len(wire), 999)]
    assert items == list(recover(pieces, **options)), "depends on how the source is cut"
    position = 0
    for item in items:
        if isinstance(item, Gap):
            assert item.offset == position
            assert item.reason
            position += item.size
        else:
            assert wire[position : position + 1] == bytes([item.stream])
            position += 8 + len(item)
    assert position == len(wire)
    frames = [(int(item.stream), bytes(item)) for item in items if not isinstance(item, Gap)]
    return frames, [item for item in items if isinstance(item, Gap)]


def test_sound_archives() -> None:
    frames = archive(1)
    assert read(wire_of(frames)) == (frames, [])
    with_empty = [(1, b""), (0, b"typed"), (2, b""), (0, b""), (1, b"x"), (3, b"error"), (1, b"y")]
    assert read(wire_of(with_empty)) == (with_empty, [])
    assert read(b"") == ([], [])


def test_captured_archives() -> None:
    streams = Path(__file__).parent.parent / "examples" / "streams"
    for path in streams.glob("*/*/stream.bin"):
        if path.parent.name != "tty":
            wire = path.read_bytes()
            assert read(wire) == (oracle.decode(wire).frames, [])


def spans(frames: list[tuple[int, bytes]]) -> list[tuple[int, int]]:
    ends = [0]
    for _, payload in frames:
        ends.append(ends[-1] + 8 + len(payload))
    return list(zip(ends, ends[1:], strict=False))


DAMAGE: dict[str, Any] = {
    "zeros": lambda rng: bytes(4096),
    "noise": lambda rng: rng.randbytes(4096),
    "text": lambda rng: b"The quick brown fox. " * 200,
    "small integers": lambda rng: b"".join(i.to_bytes(8, "little") for i in range(500)),
    "ones": lambda rng: b"\xff" * 4096,
}


@pytest.mark.parametrize("kind", DAMAGE)
@pytest.mark.parametrize("seed", range(10))
def test_overwritten_part(kind: str, seed: int) -> None:
    """Every frame that the damage did not touch comes out; at most one is lost beside it on either side."""
    rng = random.Random(seed)
    frames = archive(seed, sizes=(1, 5, 50, 500, 3000))  # so that 4000 bytes always hit a header
    wire = wire_of(frames)
    start = rng.randrange(len(wire) - 5000)
    damage = DAMAGE[kind](rng)
    wire[start : start + len(damage)] = damage
    untouched = [
        frame
        for frame, (begin, end) in zip(frames, spans(frames), strict=True)
        if end <= start or begin >= start + len(damage)
    ]
    got, gaps = read(wire)
    assert gaps
    lost = len(untouched) - sum(1 for frame in got if frame in untouched)
    assert lost <= (0 if kind != "small integers" else 1), (lost, gaps)


@pytest.mark.parametrize("byte", range(8))
@pytest.mark.parametrize("bit", [0, 4, 7])
def test_one_flipped_bit_in_a_header(byte: int, bit: int) -> None:
    frames = archive(5)
    wire = wire_of(frames)
    begin, end = spans(frames)[100]
    wire[begin + byte] ^= 1 << bit
    got, gaps = read(wire)
    others = frames[:100] + frames[101:]
    assert [frame for frame in got if frame in others] == others
    assert sum(gap.size for gap in gaps) <= end - begin
    assert all(begin <= gap.offset <= end for gap in gaps)


@pytest.mark.parametrize("seed", range(10))
def test_missing_and_inserted_bytes(seed: int) -> None:
    rng = random.Random(seed)
    frames = archive(seed)
    begin, end = spans(frames)[rng.randrange(50, 250)]
    shorter, longer = wire_of(frames), wire_of(frames)
    del shorter[begin + 3 : begin + 3 + rng.randrange(1, 2000)]
    longer[end:end] = rng.randbytes(rng.randrange(1, 2000))
    for wire in (shorter, longer):
        got, gaps = read(wire)
        assert 1 <= len(gaps) <= 2
        first = next((i for i, pair in enumerate(zip(got, frames, strict=False)) if pair[0] != pair[1]), len(got))
        assert spans(frames)[first - 1][1] >= begin, "all before the damage"
        after = next((i for i in range(1, len(got)) if got[-i] != frames[-i]), len(got))
        assert spans(frames)[-after + 1][0] <= end + 2000 + 5008, "all behind it"


@pytest.mark.parametrize("cut", [1, 7, 11, 12, 13, 19])
def test_cut_off_end(cut: int) -> None:
    frames = [(1, b"first"), (2, b"x" * 12)]
    got, [gap] = read(wire_of(frames)[:-cut])
    if cut < 12:
        assert got == [(1, b"first"), (2, b"x" * (12 - cut))]
        assert gap == Gap(33 - cut, 0, f"{cut} bytes missing from the frame at offset 13")
    elif cut == 12:
        assert (got, gap) == ([(1, b"first"), (2, b"")], Gap(21, 0, "12 bytes missing from the frame at offset 13"))
    else:
        assert (got, gap) == ([(1, b"first")], Gap(13, 20 - cut, "ends inside the header at offset 13"))


def test_nothing_to_save() -> None:
    for wire in (b"a raw terminal stream\r\n" * 50, bytes(100_000), b"\xff" * 1000, b"\1\0\0", b"\1"):
        frames, [gap] = read(wire)
        assert frames == []
        assert (gap.offset, gap.size) == (0, len(wire))


def test_damage_at_the_very_beginning() -> None:
    frames = archive(3, 50)
    assert read(b"garbage" + wire_of(frames)) == (frames, [Gap(0, 7, GARBAGE)])


GARBAGE = "unrecognized stream: 103 at offset 0; this looks like a raw (TTY) stream, which is not multiplexed"


def test_few_frames_behind_damage_end_with_the_archive() -> None:
    frames = [(1, b"before"), (2, b"behind")]
    wire = pack(*frames[0]) + b"DAMAGE" + pack(*frames[1])
    assert read(wire)[0] == frames


def test_options() -> None:
    wire = wire_of([(1, b"x" * 2000)] * 10)
    assert read(wire, max_frame_size=1999)[0] == []
    assert len(read(b"junk" + wire, min_frames=10)[0]) == 10
    for options in ({"min_frames": 0}, {"max_frame_size": -1}):
        with pytest.raises(ValueError, match="min_frames|max_frame_size"):
            recover(b"", **options)


def test_hostile_archives_take_linear_time() -> None:
    """A payload full of headers before a fault, zeros, and candidates without end: no work is repeated."""
    nested = pack(1, b"x") * 100_000
    for wire in (
        pack(1, nested[:1_000_000]) + b"\xff" * 20 + nested[:1000],
        bytes(3_000_000),
        b"\1\0\0\0\0\0\0" * 300_000,
        (b"\1\0\0\0\0\0\0\1" * 3 + b"\xff") * 50_000,
    ):
        start = time.process_time()
        for _ in recover(wire):
            pass
        assert time.process_time() - start < 20


def test_memory_is_flat() -> None:
    import tracemalloc

    block = random.Random(1).randbytes(1 << 20)
    tracemalloc.start()
    try:
        gaps = [item for item in recover(block for _ in range(40)) if isinstance(item, Gap)]
        assert sum(gap.size for gap in gaps) > 35 << 20
        assert tracemalloc.get_traced_memory()[1] < 12 << 20
    finally:
        tracemalloc.stop()


def test_source_that_fails(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        recover(tmp_path / "missing")
    source = io.BytesIO(b"")
    source.close()
    with pytest.raises(ValueError, match="closed"):
        next(recover(source))
