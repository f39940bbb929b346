# shellcheck shell=sh
# What the tools share: a Python and virtual environments, steps and their output, what a wheel holds. POSIX sh; sourced,
# not run.

export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1
unset PYTHONPATH PYTHONHOME VIRTUAL_ENV MUXFRAME_BACKEND MUXFRAME_BUILD

die() {
    printf '%s: %s\n' "$0" "$*" >&2
    exit 1
}

is_new_enough() {   # is_new_enough PYTHON
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

pyenv_pythons() {
    for candidate in "${PYENV_ROOT:-${HOME-}/.pyenv}"/versions/*/bin/python; do
        [ ! -x "$candidate" ] || printf '%s\n' "$candidate"
    done
}

find_python() {     # print a Python >= 3.11: $PYTHON, or the first there is
    if [ -n "${PYTHON-}" ]; then
        is_new_enough "$PYTHON" || die "PYTHON=$PYTHON is not a Python 3.11 or newer"
        printf '%s\n' "$PYTHON"
        return
    fi
    for candidate in python3 python3.14 python3.13 python3.12 python3.11 python3.15 python $(pyenv_pythons); do
        if is_new_enough "$candidate"; then
            printf '%s\n' "$candidate"
            return
        fi
    done
    die "no Python 3.11 or newer found (Debian 12, Ubuntu 24.04 and newer: apt install python3-venv); PYTHON=/path/to/python names one"
}

version_of() {      # version_of PYTHON: 3.11, or 3.14t
    "$1" -c 'import sys; print("%d.%d%s" % (*sys.version_info[:2], getattr(sys, "abiflags", "")))'
}

venv_works() {      # venv_works DIRECTORY
    is_new_enough "$1/bin/python" && "$1/bin/python" -m pip --version >/dev/null 2>&1
}

make_venv() {       # make_venv PYTHON DIRECTORY: a new, empty one
    if ! "$1" -c 'import ensurepip, venv' >/dev/null 2>&1; then
        die "$1 has no venv module. Debian and Ubuntu: apt install python$(version_of "$1")-venv"
    fi
    "$1" -m venv --clear "$2" || die "$1 could not make a virtual environment in $2 (Debian and Ubuntu: apt install python$(version_of "$1")-venv)"
}

missing_compiler() {    # missing_compiler PYTHON: print what is missing to build an extension; nothing where all is there
    "$1" - <<'PYTHON'
import os, shlex, shutil, sysconfig

compiler = shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[0]
header = os.path.join(sysconfig.get_path("include"), "Python.h")
if not shutil.which(compiler):
    print(f"no C compiler ({compiler})")
elif not os.path.exists(header):
    print("no Python.h (Debian and Ubuntu: apt install python3-dev)")
PYTHON
}

make_scratch() {    # make_scratch NAME: set $scratch to a directory that goes when the script ends
    scratch=$(mktemp -d "${TMPDIR:-/tmp}/muxframe-$1.XXXXXX")
    scratch=$(cd "$scratch" && pwd -P)
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
}

step() { printf '\n== %s\n' "$*"; }

quiet() {           # quiet COMMAND...: its output only where it fails
    if ! "$@" >"$scratch/log" 2>&1; then
        cat "$scratch/log" >&2
        die "failed: $*"
    fi
}

suite() {           # suite BACKEND PYTHON ARGUMENTS...: much of it waits, so there are more workers than processors
    backend=$1
    interpreter=$2
    shift 2
    MUXFRAME_BACKEND=$backend "$interpreter" -m pytest -p no:cacheprovider -p no:benchmark -n 4 --dist worksteal "$@"
}

check_wheel() {     # check_wheel PYTHON WHEEL cython|pure|fallback: its tag and its content
    "$1" - "$2" "$3" <<'PYTHON'
import re, sys, zipfile

wheel, kind = sys.argv[1:]
names = [name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("/")]
strange = [name for name in names if not name.endswith((".py", ".so", ".pyd", "py.typed")) and ".dist-info/" not in name]
compiled = {name.split("/")[1].partition(".")[0] for name in names if name.endswith((".so", ".pyd"))}
assert not strange, f"should not be in a wheel: {strange}"
assert not [name for name in names if name.startswith(("tests", "examples"))], "tests in the wheel"
assert "muxframe/py.typed" in names, "py.typed is missing"
assert [name for name in names if name.endswith("/licenses/LICENSE")], "the license is missing"
metadata = next(name for name in names if name.endswith(".dist-info/METADATA"))
page = zipfile.ZipFile(wheel).read(metadata).decode().partition("\n\n")[2]
leading_nowhere = re.findall(r"\]\((?!https://|#)[^)]*\)", page)
assert page and not leading_nowhere, f"PyPI shows the page without the files beside it: {leading_nowhere}"
assert compiled == ({"_batches_c", "_framing_c", "_lines_c"} if kind == "cython" else set()), f"compiled: {compiled}"
assert wheel.endswith("-py3-none-any.whl") == (kind == "pure"), f"tag: {wheel}"
print(wheel.rpartition("/")[2])
PYTHON
}
