"""The example scenarios, captured afresh from the engines that the environment names: see live.py."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import test_lines
from live import ENGINES, IMAGE, engine_host

import muxframe
from muxframe.compat.stdcopy import StdCopy


def load_script(path: Path) -> ModuleType:
    """Import a script, which is in no package."""
    spec = importlib.util.spec_from_file_location(f"muxframe_script_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses looks its module up there
    spec.loader.exec_module(module)
    return module


capture = load_script(Path(__file__).parent.parent / "examples" / "capture.py")
logs = load_script(Path(__file__).parent / "logs" / "record.py")


def record(variable: str, scenario: str) -> Any:
    """Capture one scenario now; the capture compares the stream with what the container wrote."""
    engine = capture.Engine(engine_host(variable))
    try:
        return capture.record(engine, capture.SCENARIOS[scenario], IMAGE)
    except capture.ScenarioSkipped as reason:
        pytest.skip(f"{variable}: {scenario}: {reason}")


FRAMED = [name for name, scenario in capture.SCENARIOS.items() if not scenario.tty]
RAW = [name for name, scenario in capture.SCENARIOS.items() if scenario.tty]


@pytest.mark.live
@pytest.mark.parametrize("scenario", FRAMED)
@pytest.mark.parametrize("variable", ENGINES)
def test_framed_stream(variable: str, scenario: str, tmp_path: Path) -> None:
    recording = record(variable, scenario)
    capture.save(recording, tmp_path)
    stream = (tmp_path / "stream.bin").read_bytes()

    result = muxframe.demux(stream)
    assert result.stdout == recording.stdout
    assert result.stderr == recording.stderr

    with (tmp_path / "copy.out").open("wb") as out, (tmp_path / "copy.err").open("wb") as err:
        copied = muxframe.copy(tmp_path / "stream.bin", out, err)
    assert (tmp_path / "copy.out").read_bytes() == recording.stdout
    assert (tmp_path / "copy.err").read_bytes() == recording.stderr
    assert (copied.stdout_size, copied.stderr_size) == (len(recording.stdout), len(recording.stderr))

    with (
        (tmp_path / "stream.bin").open("rb") as source,
        (tmp_path / "std.out").open("wb") as out,
        (tmp_path / "std.err").open("wb") as err,
    ):
        written = StdCopy(out, err, source)
    assert (tmp_path / "std.out").read_bytes() == recording.stdout
    assert (tmp_path / "std.err").read_bytes() == recording.stderr
    assert written == len(recording.stdout) + len(recording.stderr)


@pytest.mark.live
@pytest.mark.parametrize("scenario", RAW)
@pytest.mark.parametrize("variable", ENGINES)
def test_terminal_stream_is_refused(variable: str, scenario: str) -> None:
    recording = record(variable, scenario)
    assert recording.answer.body == recording.stdout
    with pytest.raises(muxframe.FramingError):
        muxframe.demux(recording.answer.body)


@pytest.mark.live
@pytest.mark.parametrize("scenario", logs.SCENARIOS)
@pytest.mark.parametrize("variable", ENGINES)
def test_lines_of_a_log(variable: str, scenario: str) -> None:
    engine = logs.capture.Engine(engine_host(variable))
    if engine.name == "podman" and logs.SCENARIOS[scenario].details:
        pytest.skip("podman sends no details")
    about, wire = logs.record(engine, logs.SCENARIOS[scenario], IMAGE)
    test_lines.check_log(muxframe._lines, about, wire)
