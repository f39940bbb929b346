"""The package as users meet it: names, light import, choice of the backend, the way back."""

from __future__ import annotations

import doctest
import importlib
import io
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import oracle
import pytest

import muxframe
from muxframe import FrameWriter, Stream, demux

HEAVY = ["asyncio", "ssl", "socket", "argparse", "grpc", "pyarrow", "rich", "h11", "websockets", "typing_extensions"]
HEAVY += ["inspect", "ctypes", "datetime", "numpy", "pandas", "polars", "duckdb", "urllib"]


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={**os.environ, **environment}
    )


def test_import_is_light() -> None:
    done = run(f"import muxframe, sys; print([name for name in {HEAVY} if name in sys.modules])")
    assert done.stdout == "[]\n", done.stdout + done.stderr


def test_names() -> None:
    assert all(hasattr(muxframe, name) for name in muxframe.__all__)
    expected = {"demux", "demux_into", "frames", "copy", "Demuxer", "FrameWriter", "pack_frame", "BACKEND", "recover"}
    expected |= {"lines", "Line", "LineSplitter", "batches", "LineBatch", "BatchBuilder"}
    assert expected <= set(muxframe.__all__)
    assert callable(muxframe.lines) and callable(muxframe.batches), "the functions, not the modules they are in"


def test_forced_backend() -> None:
    forced = os.environ.get("MUXFRAME_BACKEND")
    assert forced in (None, muxframe.BACKEND)
    show = "import muxframe; print(muxframe.BACKEND, muxframe.Demuxer.__module__)"
    assert run(show, MUXFRAME_BACKEND="python").stdout == "python muxframe._framing_py\n"
    done = run(show, MUXFRAME_BACKEND="cython")
    if done.returncode:
        assert "_framing_c" in done.stderr, "a forced backend that is missing fails"
    else:
        assert done.stdout == "cython muxframe._framing_c\n"


@pytest.mark.parametrize("value", ["", "0", "Cython", "auto"])
def test_unknown_backend(value: str) -> None:
    done = run("import muxframe", MUXFRAME_BACKEND=value)
    assert done.returncode == 1
    assert f"MUXFRAME_BACKEND must be 'cython' or 'python', not {value!r}" in done.stderr


def test_broken_core_is_an_error_and_a_missing_one_is_not() -> None:
    hide = "import sys; sys.modules['muxframe._framing_c'] = None\n"
    assert run(hide + "import muxframe; print(muxframe.BACKEND)", MUXFRAME_BACKEND="python").stdout == "python\n"
    finder = """
import sys
class Finder:
    def find_spec(self, name, path, target=None):
        if name == "muxframe._framing_c":
            raise {error}
sys.meta_path.insert(0, Finder())
import muxframe
print(muxframe.BACKEND)
"""
    environment = {name: value for name, value in os.environ.items() if name != "MUXFRAME_BACKEND"}
    for error, returncode in (
        ("ModuleNotFoundError('gone', name=name)", 0),
        ("ModuleNotFoundError('gone', name='another')", 1),
        ("ImportError('undefined symbol')", 1),
        ("ImportError('module does not support loading in subinterpreters')", 0),
    ):
        done = subprocess.run(
            [sys.executable, "-c", finder.format(error=error)], capture_output=True, text=True, env=environment
        )
        assert (done.returncode, done.stdout) == (returncode, "" if returncode else "python\n"), done.stderr


def test_version_is_in_one_place() -> None:
    pyproject = Path(__file__).parent.parent / "pyproject.toml"
    if not pyproject.exists():
        pytest.skip("not in a checkout")
    project = tomllib.loads(pyproject.read_text())
    assert "version" in project["project"]["dynamic"]
    assert project["tool"]["setuptools"]["dynamic"]["version"] == {"attr": "muxframe.__version__"}


PACKAGE = Path(muxframe.__file__).parent
EXAMPLES = [
    ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in path.read_text(encoding="utf-8")
]


@pytest.mark.parametrize("name", EXAMPLES + [name.replace("_py", "_c") for name in EXAMPLES if name.endswith("_py")])
def test_documentation_examples(name: str) -> None:
    try:
        module = importlib.import_module(f"muxframe.{name}")
    except ModuleNotFoundError as missing:  # the compiled core was not built, or another system's module
        pytest.skip(str(missing))
    done = doctest.testmod(module)
    assert done.attempted
    assert not done.failed


# --- FrameWriter -----------------------------------------------------------------------------------------------------


def test_writers_share_a_sink(tmp_path: Path) -> None:
    wire = io.BytesIO()
    out, err = FrameWriter(wire, Stream.STDOUT), FrameWriter(wire, 2)
    assert out.write(b"hello ") == 6
    assert err.write(bytearray(b"oops")) == 4
    assert out.write(b"") == 0
    with io.TextIOWrapper(out, encoding="utf-8", write_through=True) as text:  # type: ignore[type-var]
        print("wörld", file=text, end="")
    assert out.closed
    assert not wire.closed
    assert demux(wire.getvalue()) == ("hello wörld".encode(), b"oops")
    with pytest.raises(ValueError, match="closed"):
        out.write(b"x")
    with FrameWriter(tmp_path / "stream", 1) as writer:
        writer.writelines([b"a", b"b"])
    assert (tmp_path / "stream").read_bytes() == oracle.pack(1, b"a") + oracle.pack(1, b"b")


def test_writer_of_no_stream_or_sink() -> None:
    with pytest.raises(ValueError, match="4 is not a valid Stream"):
        FrameWriter(io.BytesIO(), 4)
    with pytest.raises(TypeError, match="cannot write to sink"):
        FrameWriter(object(), 1)
    with pytest.raises(TypeError, match="not str"):
        FrameWriter(io.BytesIO(), 1).write("text")  # type: ignore[arg-type]


def test_writer_does_not_go_on_behind_half_a_frame() -> None:
    room = memoryview(bytearray(20))
    writer = FrameWriter(room, 1)
    writer.write(b"12")
    with pytest.raises(BufferError, match="full"):
        writer.write(b"345")
    with pytest.raises(ValueError, match="an earlier frame was written in part"):
        writer.write(b"6")

    class Refuses(io.RawIOBase):
        calls = 0

        def write(self, data: object) -> int:
            self.calls += 1
            if self.calls == 1:
                raise OSError("not now")
            return len(bytes(data))  # type: ignore[call-overload, no-any-return]

    writer = FrameWriter(Refuses(), 1)
    with pytest.raises(OSError, match="not now"):
        writer.write(b"x")
    assert writer.write(b"x") == 1, "nothing of the first frame was written"


def test_every_package_is_in_the_wheel() -> None:
    project = Path(__file__).parent.parent
    if not (project / "src").exists():
        pytest.skip("not in a checkout")
    listed = tomllib.loads((project / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(project / "src").parts) for path in project.glob("src/**/__init__.py")}
    assert set(listed) == found
