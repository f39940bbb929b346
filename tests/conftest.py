"""What several test files share.

`core` runs a test on both twins directly. Everything else tests the public names on the backend that is in use: the
whole suite is run once with MUXFRAME_BACKEND=python and once with =cython.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from live import ENGINES, PATIENCE, Live

# Whoever starts the tests in the background has them ignore these, and so would the commands that tests interrupt.
for name in ("SIGINT", "SIGQUIT", "SIGHUP"):
    number = getattr(signal, name, None)
    if number is not None and signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL)

#: What goes on above the frame core, and is the same on both backends: its tests get the marker `shells`.
SHELLS = {
    "aiodocker", "calls", "channel", "cli_cri", "cli_engine", "cli_logs", "cri", "dial", "docker_py", "endpoint",
    "engine", "follow", "gather", "handshake", "hyper", "ingest_sinks", "live_aio", "live_aiodocker", "live_cri",
    "live_docker_py", "live_engine", "live_ingest", "recipes", "testing", "testing_recorded", "tls",
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests of shells."""
    for item in items:
        if item.path.stem.removeprefix("test_") in SHELLS:
            item.add_marker("shells")


@pytest.fixture(params=["python", "cython"])
def core(request: pytest.FixtureRequest) -> Any:
    """Either twin's module."""
    if request.param == "python":
        return importlib.import_module("muxframe._framing_py")
    try:
        return importlib.import_module("muxframe._framing_c")
    except ModuleNotFoundError:
        if os.environ.get("MUXFRAME_BACKEND") == "cython":
            raise
        pytest.skip("the compiled core was not built")


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """Run a coroutine on either loop."""
    factory = asyncio.new_event_loop
    if request.param == "uvloop":
        factory = pytest.importorskip("uvloop").new_event_loop

    def run_it(coroutine: Coroutine[Any, Any, Any]) -> Any:
        with asyncio.Runner(loop_factory=factory) as runner:
            return runner.run(asyncio.wait_for(coroutine, 2 * PATIENCE))

    return run_it


@pytest.fixture(params=ENGINES)
def live(request: pytest.FixtureRequest) -> Iterator[Live]:
    """Each of the engines that the environment names."""
    with Live(request.param) as live:
        yield live


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with what tests/tls/make makes."""
    if shutil.which("openssl") is None or os.name != "posix":
        pytest.skip("there is no openssl command to make certificates with")
    directory = tmp_path_factory.mktemp("certificates")
    subprocess.run([Path(__file__).parent / "tls" / "make", directory], check=True)
    return directory
