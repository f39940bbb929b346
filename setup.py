"""Build the compiled core. MUXFRAME_BUILD: auto (where it can be compiled), require (fail otherwise), pure (never).

And give the package README.md for its page on PyPI, where no file is beside it.
"""

import os
import re
import sys
from pathlib import Path

from setuptools import Extension, setup

MODES = ("auto", "require", "pure")
mode = os.environ.get("MUXFRAME_BUILD", "auto")
if mode not in MODES:
    sys.exit(f"MUXFRAME_BUILD must be one of {', '.join(MODES)}, not {mode!r}")


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

    headers = [f"src/muxframe/{name}" for name in ("_framing.h", "_pump.h", "_framing_c.pxd")]
    of_lines = [*headers, *(f"src/muxframe/{name}" for name in ("_lines.h", "_lines_c.pxd"))]
    of_batches = [*of_lines, *(f"src/muxframe/{name}" for name in ("_arrow.h", "_batches_c.pxd"))]
    cores = [
        Extension("muxframe._framing_c", ["src/muxframe/_framing_c.pyx"], depends=headers),
        Extension("muxframe._lines_c", ["src/muxframe/_lines_c.pyx"], depends=of_lines),
        Extension("muxframe._batches_c", ["src/muxframe/_batches_c.pyx"], depends=of_batches),
    ]
    modules: list[Extension] = cythonize(cores, build_dir="build/cython")
    for module in modules:
        module.optional = mode == "auto"  # cythonize drops the option
    return modules


def readme() -> str:
    text = Path("README.md").read_text(encoding="utf-8")
    return re.sub(r"\]\((?!https:|#)", "](https://github.com/muxframe/muxframe/blob/main/", text)


setup(
    ext_modules=[] if mode == "pure" else extensions(),
    long_description=readme(),
    long_description_content_type="text/markdown",
)
