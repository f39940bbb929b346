#!/usr/bin/env python3
"""Run docker-py's own integration tests of attach, exec and logs, without and with muxframe installed.

    python tests/peers/docker_py.py                     against DOCKER_HOST, with TEST_IMAGE in place of theirs
    python tests/peers/docker_py.py --tests DIRECTORY   with the tests of a checkout of docker-py: its directory tests

Without --tests they come from the last source distribution that holds any. Nothing of them is kept. A test that passes
without muxframe and fails with it three times makes this fail (some of theirs depend on the second they run in).
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tarfile
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import docker

#: The last release whose source distribution holds its tests. They fit all of 7: what they test has not changed since.
VERSION = "7.0.0"
FILES = ["api_container_test.py", "api_exec_test.py", "models_containers_test.py"]

#: What they have of attach, exec and logs. (Others would prune the containers of whoever else uses the engine.)
CHOSEN = "LogsTest or AttachContainerTest or ExecTest or ExecDemuxTest or test_run or exec_run or test_logs"
LEFT_OUT = "network or restart"
THEIR_IMAGES = ["alpine:3.10", "alpine:latest"]

RUN = """
import sys, pytest
if sys.argv.pop(1) == "installed":
    import muxframe.compat.docker_py
    muxframe.compat.docker_py.install()
sys.exit(pytest.main(sys.argv[1:]))
"""


class NotFoundError(Exception):
    """The tests cannot be had here."""


def fetch(directory: Path) -> Path:
    """Download the source distribution and unpack its tests; return where they are."""
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", "docker"]
    done = subprocess.run([*command, "--dest", directory, f"docker=={VERSION}"], capture_output=True, text=True)
    found = list(directory.glob("docker-*.tar.gz"))
    if done.returncode or not found:
        raise NotFoundError(f"docker {VERSION} cannot be downloaded: {done.stderr.strip()[-300:]}")
    with tarfile.open(found[0]) as archive:
        top = f"docker-{VERSION}/tests/"
        archive.extractall(directory, [each for each in archive if each.name.startswith(top)], filter="data")
    return directory / top


@contextmanager
def their_images() -> Iterator[None]:
    """Let the image at hand have the names of theirs."""
    client = docker.from_env(version="auto")
    there = {tag for image in client.images.list() for tag in image.tags}
    lent = [name for name in THEIR_IMAGES if name not in there]
    try:
        for name in lent:
            client.images.get(os.environ.get("TEST_IMAGE", "localhost/muxframe-test:latest")).tag(*name.split(":"))
        yield
    finally:
        for name in lent:
            client.images.remove(name, noprune=True)
        client.close()


def run(tests: Path, how: str, scratch: Path, only: set[str] | None = None) -> dict[str, str]:
    """Run them, all or those of these names; return what became of each: "passed", "failed" or "skipped"."""
    report = scratch / "report.xml"
    report.unlink(missing_ok=True)
    (scratch / "pytest.ini").write_text("[pytest]\n")
    options = [f"--rootdir={tests.parent}", f"--config-file={scratch}/pytest.ini", f"--junit-xml={report}"]
    options += ["-q", "--tb=short", "-p", "no:cacheprovider", "-p", "no:benchmark", "--timeout=120"]
    options += ["-k", " or ".join(sorted(only)) if only else f"({CHOSEN}) and not ({LEFT_OUT})"]
    files = [str(tests / "integration" / name) for name in FILES]
    subprocess.run([sys.executable, "-c", RUN, how, *options, *files], cwd=tests.parent, check=False)
    if not report.exists():
        raise RuntimeError(f"pytest has not run ({how})")
    results = {}
    for case in ET.parse(report).iter("testcase"):
        outcomes = {"failure": "failed", "error": "failed", "skipped": "skipped"}
        found = [outcomes[each.tag] for each in case if each.tag in outcomes]
        results[f"{case.get('classname')}.{case.get('name')}"] = found[0] if found else "passed"
    return results


def compare(tests: Path, scratch: Path) -> tuple[int, set[str]]:
    """Run them both ways; return how many pass with muxframe, and those that pass only without it."""
    plain, installed = run(tests, "plain", scratch), run(tests, "installed", scratch)
    for name in sorted(plain):
        if plain[name] != installed.get(name):
            print(f"{name}: {plain[name]} without, {installed.get(name)} with muxframe")
    worse = {name for name in plain if plain[name] == "passed" and installed.get(name) != "passed"}
    for _ in range(2):
        if worse:
            again = run(tests, "installed", scratch, {name.rpartition(".")[2] for name in worse})
            worse = {name for name in worse if again.get(name) != "passed"}
    return sum(result == "passed" for result in installed.values()), worse


def main() -> int:
    """Compare, and say what was found."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tests", type=Path, metavar="DIRECTORY")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="docker-py-") as directory, their_images():
        scratch = Path(directory)
        try:
            tests = arguments.tests.resolve() if arguments.tests is not None else fetch(scratch)
        except NotFoundError as error:
            print(error, file=sys.stderr)
            return 77
        passed, worse = compare(tests, scratch)
    print(f"docker-py {docker.__version__}: {passed} of its tests pass with muxframe; only without it: {sorted(worse)}")
    return 1 if worse or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
