"""The loopback engine answers as real engines were recorded to answer: see recorded/record.py."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from muxframe.testing import Container, LoopbackEngine, Script, cat, idle, say

RECORDED = Path(__file__).parent / "recorded"


def load_record() -> ModuleType:
    """Import recorded/record.py, which is a script and in no package."""
    spec = importlib.util.spec_from_file_location("muxframe_tests_record", RECORDED / "record.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


record = load_record()

SCRIPTS: dict[str, Script] = {
    "sleep 1000": idle,
    "cat": cat,
    "true": say(),
    record.SAY: say(b"out\n", (2, b"err\n"), exit_code=3),
    "echo out": say(b"out\n"),
}


def script_of(command: Any, *, tty: bool = False) -> Script | None:
    """Return what does the same as a shell's command."""
    if command[0] != "sh":
        return None
    return say(b"out\r\n") if tty and command[2] == "echo out" else SCRIPTS[command[2]]


def make_containers(engine: LoopbackEngine) -> None:
    for name, (command, config, state) in record.CONTAINERS.items():
        tty = config.get("Tty", False)
        container = Container(
            name,
            script_of(["sh", "-c", command], tty=tty),
            state="created" if state == "exited" else state,
            tty=tty,
            open_stdin=config.get("OpenStdin", False),
            stdin_once=config.get("StdinOnce", False),
            labels=config.get("Labels"),
        )
        engine.add(container)
        if state == "exited":
            container.start()
            wait_for_exit(container)


def wait_for_exit(container: Container) -> None:
    with container.changed:
        assert container.changed.wait_for(lambda: container.state == "exited", 5)


FILES = sorted(RECORDED.glob("*.json"))
CONVERSATIONS = [
    pytest.param(path, name, id=f"{path.stem}: {name}")
    for path in FILES
    for name in json.loads(path.read_text(encoding="utf-8"))["conversations"]
]

pytestmark = pytest.mark.skipif(not hasattr(__import__("socket"), "AF_UNIX"), reason="recorded through unix sockets")


@pytest.mark.parametrize(("path", "name"), CONVERSATIONS)
def test_answers_are_those_of_the_real_engine(path: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded = json.loads(path.read_text(encoding="utf-8"))
    conversation = recorded["conversations"][name]
    tty = any('"Tty": true' in step["request"] for step in conversation["steps"])
    for quiet in (0.1, 2.0):  # the second, should this machine be busy
        monkeypatch.setattr(record, "QUIET", quiet)
        monkeypatch.setattr(record, "HEAD_TIMEOUT", 5 * quiet)
        with LoopbackEngine(**recorded["engine"], on_exec=lambda command: script_of(command, tty=tty)) as engine:
            make_containers(engine)
            answers = record.hold(engine.host, conversation["steps"])
        if answers == conversation["answers"]:
            break
    for step, answer, expected in zip(conversation["steps"], answers, conversation["answers"], strict=True):
        assert answer == expected, step["request"]


def test_there_are_recordings() -> None:
    assert {path.stem.split("-")[0] for path in FILES} == {"docker", "podman"}
