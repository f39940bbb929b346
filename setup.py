"""Build the compiled core. MUXFRAME_BUILD: auto (where it can be compiled), require (fail otherwise), pure (never)."""

import os
import sys

from setuptools import Extension, setup

MODES = ("auto", "require", "pure")
mode = os.environ.get("MUXFRAME_BUILD", "auto")
if mode not in MODES:
    sys.exit(f"MUXFRAME_BUILD must be one of {', '.join(MODES)}, not {mode!r}")


def extensions() -> list[Extension]:
    from Cython.Build import cythonize

    core = Extension(
        "muxframe._framing_c",
        ["src/muxframe/_framing_c.pyx"],
        depends=["src/muxframe/_framing.h", "src/muxframe/_pump.h", "src/muxframe/_framing_c.pxd"],
    )
    modules: list[Extension] = cythonize([core], build_dir="build/cython")
    for module in modules:
        module.optional = mode == "auto"  # cythonize drops the option
    return modules


setup(ext_modules=[] if mode == "pure" else extensions())
