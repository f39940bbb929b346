#!/usr/bin/env python3
"""Records the logs beside this file, byte for byte, from a running Docker or Podman, with the lines they hold.

    python3 tests/logs/record.py --host unix:///var/run/docker.sock --name docker-20.10 --image localhost/busybox

For each scenario a container runs a script, some of them twice, and NAME/ gets:

    SCENARIO.bin    what GET /containers/{id}/logs sent; nothing added, nothing removed
    SCENARIO.json   the request, the options that muxframe.lines needs for it, and the lines of each stream: what the
                    script says it writes, not what was found in the stream ([TEXT, N]: N times the text)

It uses examples/capture.py to talk to the engine, and nothing of muxframe.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent.parent / "examples"))

import capture  # type: ignore[import-not-found, unused-ignore]  # noqa: E402

PAUSE = 2.5  # seconds between runs: more than what whole seconds allow a line to go on for
LABELS = {"a": "x y=1,2%", "b": "", "c": 'é"&+'}


@dataclass(frozen=True)
class Scenario:
    """A script, the lines it writes in each of its runs, and how its log is asked for."""

    script: str
    stdout: list[Any]
    stderr: list[Any] = field(default_factory=list)
    runs: int = 1
    timestamps: bool = True
    details: bool = False
    tty: bool = False


LONG = "head -c 20000 /dev/zero | tr '\\0' x; echo"
SCENARIOS = {
    "restart": Scenario("echo start; printf half; printf 'also half' >&2", ["start", "half"], ["also half"], runs=2),
    "line-ends": Scenario("printf 'a\\r\\nb\\rc\\r\\n\\n\\r\\nd\\r\\r\\n'", ["a", "b\rc", "", "", "d"]),
    "long": Scenario(f"{LONG}; echo middle >&2; {LONG}", [["x", 20000]] * 2, ["middle"]),
    "long-without-timestamps": Scenario(f"{LONG}; echo end", [["x", 20000], "end"], timestamps=False),
    "details": Scenario(f"echo hi; {LONG}; echo bye >&2", ["hi", ["x", 20000]], ["bye"], details=True),
    "tty": Scenario("printf 'a\\r\\nb\\rc\\n'; echo d >&2; printf half", ["a", "b\rc", "d", "half"], tty=True),
}


def record(engine: capture.Engine, scenario: Scenario, image: str) -> tuple[dict[str, Any], bytes]:
    """Run a scenario; return what is known of its log, and the log."""
    config: dict[str, Any] = {
        "Image": image,
        "Cmd": ["sh", "-c", scenario.script],
        "Tty": scenario.tty,
        "HostConfig": {"NetworkMode": "none"},
    }
    if scenario.details:
        config["Labels"] = LABELS
        config["Env"] = ["X=va l"]
        config["HostConfig"]["LogConfig"] = {"Type": "json-file", "Config": {"labels": ",".join(LABELS), "env": "X"}}
    container = engine.call("POST", "/containers/create", config)["Id"]
    query = f"stdout=1&stderr=1{'&timestamps=1' * scenario.timestamps}{'&details=1' * scenario.details}"
    about: dict[str, Any] = {
        "engine": {"name": engine.name, "version": engine.version},
        "command": ["sh", "-c", scenario.script],
        "request": f"GET /containers/{{id}}/logs?{query}",
        "options": {"raw": scenario.tty, "timestamps": scenario.timestamps, "details": scenario.details},
        "lines": {"1": scenario.stdout * scenario.runs, "2": scenario.stderr * scenario.runs},
    }
    if scenario.details:
        about["attrs"] = {**LABELS, "X": "va l"}
    try:
        for run in range(scenario.runs):
            time.sleep(PAUSE if run else 0)
            engine.run(container)
        with engine.get_raw(f"/containers/{container}/logs?{query}") as stream:
            return about, stream.read()
    finally:
        engine._remove(container)


def main() -> None:
    """Record all scenarios of one engine."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--host", required=True, help="unix:// address of the engine")
    parser.add_argument("--name", required=True, help="directory name of the engine, such as docker-20.10")
    parser.add_argument("--image", required=True, help="an image with a shell; it is not pulled")
    options = parser.parse_args()
    engine = capture.Engine(options.host)
    directory = HERE / options.name
    directory.mkdir(exist_ok=True)
    for name, scenario in SCENARIOS.items():
        if scenario.details and engine.name == "podman":  # it has none
            continue
        about, log = record(engine, scenario, options.image)
        (directory / f"{name}.bin").write_bytes(log)
        text = json.dumps(about, indent=2, sort_keys=True)
        (directory / f"{name}.json").write_text(text + "\n", encoding="ascii", newline="\n")
        print(f"{options.name}/{name}: {len(log)} bytes")


if __name__ == "__main__":
    main()
