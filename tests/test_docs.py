"""What README.md and docs/ show runs: the Python blocks of each file, in order, and the shell blocks after them."""

from __future__ import annotations

import importlib
import os
import pkgutil
import re
import runpy
import shutil
import subprocess
import sysconfig
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from unittest.mock import patch

import pytest

import muxframe.compat
from muxframe.engine.calls import NEWEST_API, OLDEST_API

PROJECT = Path(__file__).parent.parent
DOCUMENTS = [path for path in (PROJECT / "README.md", *sorted(PROJECT.glob("docs/*.md"))) if path.exists()]
BLOCK = re.compile(r"(?:^<!-- needs ([\w., ]+) -->\n)?^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)#\s]+)(?:#([^)\s]+))?\)")

pytestmark = pytest.mark.skipif(not DOCUMENTS, reason="README.md and docs are not beside the tests")


def name(path: Path) -> str:
    return str(path.relative_to(PROJECT))


def blocks(path: Path, language: str) -> list[tuple[int, str, list[str]]]:
    """List a document's blocks: the number of lines before each, its text, and the modules it needs."""
    text = path.read_text(encoding="utf-8")
    return [
        (text.count("\n", 0, match.start(3)), match[3], (match[1] or "").replace(",", " ").split())
        for match in BLOCK.finditer(text)
        if match[2] == language
    ]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Change to a directory that has what the documents use. What they do to the environment does not last."""
    shutil.copytree(PROJECT / "examples", tmp_path / "examples")
    monkeypatch.chdir(tmp_path)
    with patch.dict(os.environ):
        yield tmp_path


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_blocks_run(path: Path, place: Path) -> None:
    namespace: dict[str, object] = {"__name__": "__main__"}
    left_out = []
    for lines_before, source, needs in blocks(path, "python"):
        missing = [module for module in needs if find_spec(module) is None]
        if missing:
            left_out.append(f"line {lines_before + 1} needs {', '.join(missing)}")
            continue
        code = compile("\n" * lines_before + source, str(path), "exec")
        exec(code, namespace)

    shell = blocks(path, "sh")
    command = Path(sysconfig.get_path("scripts"), "muxframe")
    if shell and (os.name != "posix" or not command.exists()):
        pytest.skip(f"{name(path)}: its shell blocks need a POSIX shell and the muxframe command, installed")
    for lines_before, source, _ in shell:
        environment = {**os.environ, "PATH": f"{command.parent}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
        done = subprocess.run(
            ["sh", "-eu", "-c", source],
            cwd=place,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, f"{path}:{lines_before + 1}: {done.stdout}{done.stderr}"
    if left_out:
        pytest.skip(f"{name(path)} runs but for what is not installed: {'; '.join(left_out)}")


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    if not (PROJECT / "CONTRIBUTING.md").exists():
        pytest.skip("not all that is linked to is beside the tests")
    for target, anchor in LINK.findall(path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        linked = path.parent / target
        assert linked.exists(), f"{name(path)} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", linked.read_text(encoding="utf-8"), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{name(path)} links to {target}#{anchor}"


needs_docs = pytest.mark.skipif(not (PROJECT / "docs").exists(), reason="docs are not beside the tests")


@needs_docs
@pytest.mark.parametrize("document", ["docs/guarantees.md", "SECURITY.md"])
def test_tests_that_are_named_exist(document: str) -> None:
    text = (PROJECT / document).read_text(encoding="utf-8")
    named = set(re.findall(r"`(test_\w+)\.py(?:::(\w+))?`", text))
    assert named
    for file, function in named:
        source = (PROJECT / "tests" / f"{file}.py").read_text(encoding="utf-8")
        assert not function or f"def {function}(" in source, f"{file}.py has no {function}"


@needs_docs
def test_every_option_is_listed() -> None:
    written = runpy.run_path(str(PROJECT / "docs" / "cli_options.py"))
    assert written["PAGE"].read_text(encoding="utf-8") == written["page"](), "run: python docs/cli_options.py"


PUBLIC = [
    "muxframe", "muxframe.aio", "muxframe.archive", "muxframe.cri", "muxframe.cri.aio", "muxframe.dask",
    "muxframe.engine", "muxframe.engine.hyper", "muxframe.ingest", "muxframe.testing",
]
COMPAT = [each.name for each in pkgutil.iter_modules(muxframe.compat.__path__)]
PUBLIC += [f"muxframe.compat.{name}" for name in COMPAT if not name.startswith("_")]


@needs_docs
@pytest.mark.parametrize("module_name", PUBLIC)
def test_reference_has_every_public_name(module_name: str) -> None:
    pages = [path.read_text(encoding="utf-8") for path in PROJECT.glob("docs/api*.md")]
    documented = {name for page in pages for name in re.findall(r"^\.\. (?:auto|py:)\w+:: (\S+)", page, re.MULTILINE)}
    things = []
    for home, _, name in (name.rpartition(".") for name in documented):
        with suppress(ImportError):  # an extra's
            things.append(getattr(importlib.import_module(home), name))
    try:
        module = importlib.import_module(module_name)
    except ImportError as missing:
        pytest.skip(str(missing))
    for name in module.__all__:
        thing = getattr(module, name)
        is_elsewhere = hasattr(thing, "__qualname__") and any(thing is other for other in things)
        assert f"{module_name}.{name}" in documented or is_elsewhere, f"docs/api*.md has no {module_name}.{name}"


@needs_docs
def test_internals_name_what_there_is() -> None:
    package = Path(muxframe.compat.__path__[0]).parent
    sources = [path for path in package.rglob("*") if path.suffix in (".py", ".pyx", ".h")]
    if not any(path.suffix == ".h" for path in sources):
        pytest.skip("the C is not beside the installed package")
    words = {word for path in sources for word in re.findall(r"\w+", path.read_text(encoding="utf-8"))}
    text = (PROJECT / "docs" / "internals.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(\w[\w./]*)`", BLOCK.sub("", text)):
        if "/" in name or name.endswith((".py", ".pyx", ".h", ".md")):
            places = (package / name, PROJECT / name, PROJECT / "docs" / name)
            assert any(path.exists() for path in places), f"there is no {name}"
        else:
            assert set(name.split(".")) <= words, f"nothing is named {name}"


@needs_docs
def test_compatibility_says_what_the_project_does() -> None:
    text = (PROJECT / "docs" / "compatibility.md").read_text(encoding="utf-8")
    assert "API {}.{} to {}.{}".format(*OLDEST_API, *NEWEST_API) in text
    built = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["cibuildwheel"]["build"]
    for minor in re.findall(r"cp3(\d+)-", " ".join(built)):
        assert re.search(rf"CPython 3[^|]*\b3?\.?{minor}\b", text), f"there are wheels for CPython 3.{minor}"
