"""Every stream in examples/streams, captured from a real engine, gives back what the container wrote."""

from __future__ import annotations

import io
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import muxframe

STREAMS = Path(__file__).parent.parent / "examples" / "streams"
DIRECTORIES = sorted(path for path in STREAMS.glob("*/*") if path.is_dir())
if not DIRECTORIES:
    # An empty parametrization would only be a skip: without the streams this file must not look green.
    raise FileNotFoundError(f"no captured streams in {STREAMS}")

SMALL = 64 * 1024  # bytes; streams up to this size are also fed byte by byte
NAMES = {1: "stdout", 2: "stderr"}


class Example:
    """The files of one captured stream."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "stream.bin"
        self.stream = self.path.read_bytes()
        self.stdout = (directory / "stdout.bin").read_bytes()
        self.stderr = (directory / "stderr.bin").read_bytes()
        self.about: dict[str, Any] = json.loads((directory / "about.json").read_text(encoding="ascii"))

    @property
    def framed(self) -> bool:
        return not self.about["tty"]


EXAMPLES = {"/".join(directory.parts[-2:]): Example(directory) for directory in DIRECTORIES}
FRAMED = sorted(name for name, example in EXAMPLES.items() if example.framed)
RAW = sorted(name for name, example in EXAMPLES.items() if not example.framed)
FRAMED_SMALL = [name for name in FRAMED if len(EXAMPLES[name].stream) <= SMALL]


def test_each_engine_has_framed_and_raw_streams() -> None:
    engines = {name.partition("/")[0] for name in EXAMPLES}
    assert {name.partition("/")[0] for name in FRAMED} == engines
    assert {name.partition("/")[0] for name in RAW} == engines


@pytest.mark.parametrize("name", FRAMED)
def test_demux(name: str) -> None:
    example = EXAMPLES[name]
    result = muxframe.demux(example.stream)
    assert result.stdout == example.stdout
    assert result.stderr == example.stderr


@pytest.mark.parametrize("name", RAW)
def test_demux_refuses_a_terminals_stream(name: str) -> None:
    with pytest.raises(muxframe.FramingError):
        muxframe.demux(EXAMPLES[name].stream)


@pytest.mark.parametrize("name", FRAMED)
def test_copy(name: str, tmp_path: Path) -> None:
    example = EXAMPLES[name]
    out, err = tmp_path / "out", tmp_path / "err"
    with out.open("wb") as out_file, err.open("wb") as err_file:
        copied = muxframe.copy(example.path, out_file, err_file)
    assert out.read_bytes() == example.stdout
    assert err.read_bytes() == example.stderr
    assert (copied.stdout_size, copied.stderr_size) == (len(example.stdout), len(example.stderr))
    assert copied.frames == sum(example.about["frames"].values())


@pytest.mark.parametrize("name", FRAMED)
def test_frames(name: str) -> None:
    example = EXAMPLES[name]
    frames = [(int(stream), bytes(payload)) for stream, payload in muxframe.frames(io.BytesIO(example.stream))]
    assert b"".join(payload for stream, payload in frames if stream == 1) == example.stdout
    assert b"".join(payload for stream, payload in frames if stream == 2) == example.stderr

    counts = Counter(NAMES[stream] for stream, _ in frames)
    sizes = [len(payload) for _, payload in frames]
    assert {stream: counts[stream] for stream in NAMES.values()} == example.about["frames"]
    assert {"largest": max(sizes), "smallest": min(sizes), "zero": sizes.count(0)} == example.about["frame_sizes"]


@pytest.mark.parametrize("name", FRAMED_SMALL)
def test_feed_byte_by_byte(name: str) -> None:
    example = EXAMPLES[name]
    demuxer = muxframe.Demuxer()
    payload = {1: bytearray(), 2: bytearray()}
    for offset in range(len(example.stream)):
        for stream, chunk in demuxer.feed(example.stream[offset : offset + 1]):
            payload[int(stream)] += chunk
    demuxer.feed_eof()
    assert payload[1] == example.stdout
    assert payload[2] == example.stderr
