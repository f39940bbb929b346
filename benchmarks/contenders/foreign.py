"""Peers in other languages: small programs of ours (peers/) around the packages that they publish.

They are built when first needed, outside the checkout (in MUXFRAME_BENCH_CACHE, or the user's cache directory), with
the toolchain's own package manager. Each times its own loop over a wire file, and says how many bytes came out, and
their CRC-32.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import Unavailable, WrongOutput

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..workloads import Workload

SOURCES = Path(__file__).resolve().parent.parent / "peers"
BUILD_TIMEOUT, RUN_TIMEOUT = 900, 300  # seconds


@dataclass(frozen=True)
class Foreign:
    """A peer that runs in a process of its own."""

    name: str
    language: str  #: the directory in peers/
    tool: str  #: what builds it
    build: Callable[[Path], list[str]]  #: build in a directory that holds the sources; return the command to run
    large: bool = True  #: takes part in memory-sized workloads, too

    def directory(self) -> Path:
        """Where it is built: another one for other sources."""
        sources = SOURCES / self.language
        content = b"".join(path.read_bytes() for path in sorted(sources.rglob("*")) if path.is_file())
        return cache_directory() / f"{self.language}-{hashlib.sha256(content).hexdigest()[:12]}"

    def command(self, *, build: bool = True) -> list[str]:
        """Return the command that runs it, built if need be.

        Raises:
            Unavailable: the toolchain or the package is missing, or (build=False) nothing has been built yet.
        """
        directory = self.directory()
        done = directory / "command.json"
        if done.exists():
            command: list[str] = json.loads(done.read_text(encoding="utf-8"))
            return command
        if not build:
            raise Unavailable("not built yet: benchmarks/run.py builds it")
        if shutil.which(self.tool) is None:
            raise Unavailable(f"no {self.tool} here")
        shutil.rmtree(directory, ignore_errors=True)
        directory.parent.mkdir(parents=True, exist_ok=True)
        shutil.copytree(SOURCES / self.language, directory, ignore=shutil.ignore_patterns("target", "node_modules"))
        command = self.build(directory)
        done.write_text(json.dumps(command), encoding="utf-8")
        return command

    def run(self, command: list[str], wire: Path, workload: Workload, repeats: int) -> dict[str, Any]:
        """Run it over a wire file that holds the workload; return what it says, checked.

        Raises:
            Unavailable: it failed.
            WrongOutput: what it gave is not what the wire holds.
        """
        said: dict[str, Any] = json.loads(_call([*command, str(wire), str(repeats)], wire.parent, RUN_TIMEOUT))
        for name, expected in (("stdout", workload.stdout), ("stderr", workload.stderr)):
            if said[name] != [len(expected), zlib.crc32(expected)]:
                raise WrongOutput(f"{self.name}, {workload.name}: {name} is {said[name]}")
        return said


def cache_directory() -> Path:
    """Return the directory that peers are built in."""
    chosen = os.environ.get("MUXFRAME_BENCH_CACHE")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(chosen) if chosen else base / "muxframe-benchmarks"


def _call(command: list[str], directory: Path, timeout: float, **environment: str) -> str:
    try:
        done = subprocess.run(
            command,
            cwd=directory,
            env={**os.environ, **environment},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"{command[0]}: {error}") from error
    if done.returncode:
        lines = [line.strip() for line in done.stderr.splitlines() if line.strip()]
        why = next((line for line in lines if "error" in line.lower()), lines[-1] if lines else "no message")
        raise Unavailable(f"{' '.join(command[:2])} failed: {why[:200]}")
    return done.stdout


def _build_go(directory: Path) -> list[str]:
    _call(["go", "build", "-o", "main", "."], directory, BUILD_TIMEOUT, GOFLAGS="-mod=mod")
    return [str(directory / "main")]


def _build_rust(directory: Path) -> list[str]:
    metadata = json.loads(_call(["cargo", "metadata", "--format-version=1"], directory, BUILD_TIMEOUT))
    bollard = next(package for package in metadata["packages"] if package["name"] == "bollard")
    _call(
        ["cargo", "build", "--release", "--quiet"],
        directory,
        BUILD_TIMEOUT,
        BOLLARD_SOURCE=str(Path(bollard["manifest_path"]).parent),
        BOLLARD_VERSION=bollard["version"],
        CARGO_TARGET_DIR=str(directory / "target"),
    )
    return [str(directory / "target" / "release" / "muxframe-benchmarks-bollard")]


def _build_node(directory: Path) -> list[str]:
    if shutil.which("node") is None:
        raise Unavailable("no node here")
    _call(
        ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--no-package-lock", "--omit=optional"],
        directory,
        BUILD_TIMEOUT,
    )
    return ["node", "--stack-size=8000", str(directory / "main.js")]


#: docker-modem copies what is left of its buffer for every frame, which is slow enough to be seen on small wires.
PEERS = (
    Foreign("Moby StdCopy (Go)", "go", "go", _build_go),
    Foreign("bollard decoder (Rust)", "rust", "cargo", _build_rust),
    Foreign("docker-modem demuxStream (Node)", "node", "npm", _build_node, large=False),
)
