"""Build the compiled core. MUXFRAME_BUILD: auto (where it can be compiled), require (fail otherwise), pure (never).

With SOURCE_DATE_EPOCH the sdist is the same to the byte, wherever and whenever it is made of the same files; wheels are
by setuptools' own means.
"""

import gzip
import os
import sys
import tarfile

from setuptools import Extension, setup
from setuptools.command.sdist import sdist

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


class Sdist(sdist):  # type: ignore[misc]  # setuptools has no types
    """Leaves out of the archive what differs between two machines: times, owners, a umask."""

    def make_archive(self, base_name: str, format: str, *_: object, base_dir: str, **__: object) -> str:
        epoch = int(os.environ["SOURCE_DATE_EPOCH"]) if "SOURCE_DATE_EPOCH" in os.environ else None

        def plain(entry: tarfile.TarInfo) -> tarfile.TarInfo:
            entry.uid = entry.gid = 0
            entry.uname = entry.gname = ""
            entry.mode = 0o755 if entry.mode & 0o100 else 0o644
            entry.mtime = entry.mtime if epoch is None else epoch
            return entry

        path = f"{base_name}.tar.gz"
        self.mkpath(os.path.dirname(path))
        with (
            gzip.GzipFile(path, "wb", mtime=epoch) as file,
            tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive,
        ):
            archive.add(base_dir, filter=plain)
        return path


setup(ext_modules=[] if mode == "pure" else extensions(), cmdclass={"sdist": Sdist})
