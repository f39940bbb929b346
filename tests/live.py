"""What the live tests share: the engines that the environment names, and the containers that a test makes in them.

tests/engines/up starts such engines. Without them a test is skipped, and says which variable is missing. With
MUXFRAME_REQUIRE_ENGINES=1 it fails instead, except for the engines of the newer versions (the *_NEW variables).
"""

from __future__ import annotations

import base64
import functools
import os
import time
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

import muxframe

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Self

ENGINES = {
    "DOCKER_HOST": "docker",
    "PODMAN_HOST": "podman",
    "DOCKER_HOST_NEW": "newer docker",
    "PODMAN_HOST_NEW": "newer podman",
}
REQUIRED = {"DOCKER_HOST", "PODMAN_HOST"}

#: Seconds for what an engine or a container does at once: machines are busy. Only what fails takes as long.
PATIENCE = 90.0

IMAGE = os.environ.get("TEST_IMAGE", "localhost/muxframe-test:latest")


def engine_host(variable: str) -> str:
    """Return the address of an engine, or skip or fail the test."""
    host = os.environ.get(variable, "")
    if not host:
        no_engine(variable, "is not set")
    if not host.startswith("unix://"):
        no_engine(variable, "is not a unix:// address")
    return host


def no_engine(variable: str, why: str) -> NoReturn:
    """Skip the test, or fail it where the engine is required."""
    message = f"{variable} {why}: no {ENGINES[variable]} engine"
    if variable in REQUIRED and os.environ.get("MUXFRAME_REQUIRE_ENGINES") == "1":
        pytest.fail(message)
    pytest.skip(message)


class Live:
    """An engine, and containers in it that do not outlive the `with` block.

    Attributes:
        engine: blocking.
        variable: a key of ENGINES.
        is_podman, is_new: where an expectation depends on the engine.
    """

    def __init__(self, variable: str) -> None:
        self.variable = variable
        self.host = engine_host(variable)
        self.engine = muxframe.connect(self.host)
        self.is_podman = self.engine.is_podman
        self.is_new = variable.endswith("_NEW")
        self._containers: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for container in self._containers:
            self.remove(container)

    def create(self, command: str | list[str], **config: Any) -> str:
        """Create a container; a string is a script for its shell. `config` as in the API."""
        words = ["sh", "-c", command] if isinstance(command, str) else command
        host = {"NetworkMode": "none", **config.pop("HostConfig", {})}
        body = {"Image": IMAGE, "Cmd": words, "HostConfig": host, **config}
        container = str(self.engine.request("POST", "/containers/create", body=body).json()["Id"])
        self._containers.append(container)
        return container

    def run(self, command: str | list[str], **config: Any) -> str:
        """Create a container and start it."""
        container = self.create(command, **config)
        self.engine.start(container)
        return container

    def run_to_end(self, command: str | list[str], **config: Any) -> str:
        """Run a container and wait for its exit."""
        container = self.run(command, **config)
        self.engine.wait(container, timeout=120)
        return container

    def remove(self, container: str) -> None:
        """Kill and remove a container, if it is there."""
        for method, path, query in (
            ("POST", "/unpause", {}),
            ("POST", "/kill", {}),  # Podman would give it ten seconds to stop
            ("DELETE", "", {"force": "1", "v": "1"}),
        ):
            try:
                self.engine.request(method, f"/containers/{container}{path}", query=query)
            except muxframe.EngineError:
                pass

    def is_gone(self, container: str) -> bool:
        try:
            self.engine.inspect(container)
        except muxframe.NotFoundError:
            return True
        return False

    def is_running(self, container: str) -> bool:
        return bool(self.engine.inspect(container)["State"]["Running"])


def eventually(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Wait until a condition holds; fail if it does not."""
    end = time.monotonic() + seconds
    pause = 0.02
    while not condition():
        assert time.monotonic() < end, "it has not happened in time"
        time.sleep(pause)
        pause = min(pause * 1.5, 0.3)


#: A shell function that writes the first $2 bytes of what `blob` computes for $1.
BLOB = "blob() { seq $1 9999999 | tr -d '\\n' | tr 0-9 'AZ+/Kgw8Qi' | base64 -d | head -c $2; }\n"
MEGABYTES = 10 * 1024 * 1024

#: What a container is made with that is to be written to: `docker run -i`, `docker run -it`.
STDIN = {"OpenStdin": True, "StdinOnce": True}
TERMINAL = {"OpenStdin": True, "Tty": True}

FOREVER = ["sleep", "1000000"]

_DIGITS = str.maketrans("0123456789", "AZ+/Kgw8Qi")


@functools.lru_cache(maxsize=4)
def blob(first: int, size: int) -> bytes:
    """Compute bytes, no block of them like another: numbers of seven digits from `first` on, taken for base64."""
    count = size * 4 // 3 // 28 * 4 + 8
    return base64.b64decode("".join(map(str, range(first, first + count))).translate(_DIGITS))[:size]
