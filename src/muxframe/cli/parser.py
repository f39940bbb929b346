"""Every option and its help: the one source of --help, of completion and of the man page."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any

from ..protocol import MAX_PAYLOAD_SIZE
from .files import say

if TYPE_CHECKING:
    from collections.abc import Sequence

#: Arguments with one of these as metavar are files; completion asks.
FILE_METAVARS = ("FILE", "SOURCE", "STDOUT_FILE", "STDERR_FILE")

SHELLS = ("bash", "zsh", "tcsh", "fish")

EXIT_CODES = """\
exit codes:
  0    all is well
  1    the stream is damaged, carries an error of the daemon's, or a file cannot be read or written;
       no engine answers, or it refuses
  2    the command was misused
  130  interrupted (ctrl-C); what had been read was delivered
  141  an output is a pipe whose reader has gone
"""

DEMUX = """\
Take a multiplexed stream of Docker or Podman (attach, exec, logs) apart into stdout and stderr.

Payload is written as it arrives, in the order of the wire. Both outputs may be the same file: then the two
are merged in that order. What comes before a fault is delivered; then the fault is told on stderr.
"""

MUX = """\
Make a multiplexed stream of one or two files: what `muxframe demux` takes apart again.

Pipes and FIFOs are framed as data arrives on either. Of files on a disk a frame is taken from each in turn.
With neither file given, stdin becomes the stream's stdout.
"""

INSPECT = """\
Say what is in a multiplexed stream: frames and bytes of each stream, their sizes, and the first fault.

Memory does not grow with the stream or its frames.
"""

INSPECT_JSON = """\
--json prints one object:
  source       the name as given
  wire_size    bytes up to the end or the first fault (with --recover: all)
  frames       whole frames
  payload_size bytes of payload, those of a frame that was cut off included
  streams      stdin, stdout, stderr, systemerr: {frames, payload_size, empty_frames,
               sizes: [{from, to, frames}]}; sizes holds the ranges that occur (powers of two)
  largest      {stream, offset, size} of the first frame with the largest payload, or null
  smallest     the same of the smallest
  fault        {error, offset, text} of the first fault, or null; error is the class in muxframe
  systemerr    the daemon's error text, or null
  truncated    whether the stream ends inside a frame
  raw_tty      {suspected, reason}: whether this looks like the raw stream of a container with a TTY
  gaps         with --recover [{offset, size, reason}], otherwise null
  interrupted  whether an interrupt ended it early
"""

ATTACH = """\
Attach to a container: its output comes here, and this process's stdin goes there if the container has one.

Where the container has a TTY and stdin is a terminal, that terminal becomes the container's: keys go there as they
are, its size follows, and the detach keys leave the container running. Otherwise signals are passed on.
"""

EXEC = """\
Run a command in a running container. Everything behind CONTAINER belongs to the command.

With -t and -i on a terminal, that terminal becomes the command's, as with attach.
"""

CRI = """\
Look into a container runtime that speaks the CRI: containerd, CRI-O, iSulad. attach and exec lead its containers with
--cri. Needs the extra: pip install 'muxframe[cri]'.

The runtime is at CONTAINER_RUNTIME_ENDPOINT, or the first that answers of /run/containerd/containerd.sock,
/run/crio/crio.sock and /var/run/isulad.sock.
"""

LOGS = """\
Read the log of a container, or those of several: by their names, by labels, or all.

Of one container the log comes as it is. Of several (or with --out, --parquet or --checkpoint) come lines, each with
the container's name before it, from those that have stopped, too; with -f also from those that start later, across
restarts of containers and of the engine, until a signal ends it.

A moment is seconds since the epoch, RFC 3339 (2026-11-21, 2026-11-21T04:36:06Z; local time without a zone), or a
duration before now (90s, 10m, 1h30m).
"""

RECORD = """\
Record a container's log into a new file, with timestamps, and an index of it into FILE.idx.

FILE is compressed if its name ends in .gz or .zst. However the command ends, FILE ends where a frame does, and the
index is right.
"""

INDEX = """\
Make the index of a recorded stream anew: FILE.idx. Say what the log was asked for: nothing is guessed.
"""

LINES = """\
Print the lines of a recorded stream. With an index, what is not of the time asked for is not read.

A moment is as for logs. Lines that have no timestamp are of no time.
"""

LINES_JSON = """\
--json prints an object for each line of output:
  container    with logs of several: its name
  id           the same: its id
  stream       stdout or stderr
  timestamp    with logs --timestamps or of several, and of an archive: RFC 3339, UTC, to the nanosecond; left out where
               there is none
  details      with logs --details: an object of what the log driver was told to add
  data         the line without its end, where it is valid UTF-8
  base64       its bytes, where it is not
  partial      true where the line goes on in the next object of its stream (lines are cut at 1 MiB); else left out
"""

HANDED_ON = """\
The exit code is that of the {0}; 0 after the detach keys, or where the {0} outlives its output.
muxframe's own are below.
"""

BENCH = """\
Measure this machine: a naive loop, memcpy and muxframe, on frames of five sizes. Takes about ten seconds.
"""

BENCH_JSON = """\
--json prints one object:
  muxframe, backend, python, machine
               what was measured, and where
  timings      [{contender, frame_size, frames, payload_size, seconds, nanoseconds_per_frame,
               bytes_per_second}]: frames and bytes in a pass, the seconds of every pass, medians
"""

COMPLETION = """\
Print the completion for a shell. Needs the extra: pip install 'muxframe[cli]'.

  bash   muxframe completion bash > ~/.local/share/bash-completion/completions/muxframe
  zsh    muxframe completion zsh > a directory of $fpath/_muxframe
  tcsh   muxframe completion tcsh > ~/.muxframe.tcsh, and source it in ~/.tcshrc
  fish   muxframe completion fish > ~/.config/fish/completions/muxframe.fish
"""


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse the command line. `module` in the result says who runs."""
    return build_parser().parse_args(_name_endpoint(list(argv)))


def _name_endpoint(words: list[str]) -> list[str]:
    """Write `--cri ENDPOINT` as `--cri --host ENDPOINT`: as the value of --cri argparse would take a container, too.

    An endpoint has a slash, and an id has none. Behind the container all belongs to the command.
    """
    if words[:1] in (["attach"], ["exec"]):
        for i, (before, word, behind) in enumerate(zip(words, words[1:], words[2:])):
            if word == "--cri" and "/" in behind and behind[0] != "-":
                return [*words[: i + 2], "--host", *words[i + 2 :]]
            if word[:1] != "-" and before[:1] != "-":
                break
    return words


def build_parser() -> argparse.ArgumentParser:
    """Build the parser of the whole command line."""
    parser = _Parser(
        prog="muxframe",
        description="Docker's and Podman's multiplexed streams: taken apart, made, looked into, and led from here.",
        epilog=EXIT_CODES,
    )
    parser.add_argument("--version", action=_Version, help="show the version, the backend and Python's version")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_demux(commands)
    _add_mux(commands)
    _add_inspect(commands)
    _add_attach(commands)
    _add_exec(commands)
    _add_logs(commands)
    _add_cri(commands)
    _add_record(commands)
    _add_index(commands)
    _add_lines(commands)
    _add_bench(commands)
    completion = _add(commands, "completion", "manual", "print a shell's completion", COMPLETION)
    completion.add_argument("shell", choices=SHELLS, help="the shell to complete in")
    _add(commands, "man", "manual", "print the manual page (roff)", "Print the manual page: muxframe man | man -l -")
    return parser


def _add_demux(commands: Any) -> None:
    demux = _add(commands, "demux", "demux", "take a stream apart", DEMUX)
    _add_source(demux)
    demux.add_argument("-o", "--stdout", metavar="FILE", help="where stdout goes; - is this process's stdout (default)")
    demux.add_argument(
        "-e", "--stderr", metavar="FILE", help="where stderr goes; - is this process's stdout (default: its stderr)"
    )
    demux.add_argument(
        "--no-progress",
        dest="progress",
        action="store_false",
        help="draw no progress bar (there is one for large files if stderr is a terminal and rich is installed)",
    )
    ends = demux.add_mutually_exclusive_group()
    ends.add_argument(
        "--truncated",
        choices=("error", "ignore"),
        default="error",
        help="what an end inside a frame is; its payload is delivered either way (default: %(default)s)",
    )
    ends.add_argument(
        "--recover",
        action="store_true",
        help="read what can be read of a damaged archive; each gap, and an error of the daemon's, is told on stderr",
    )


def _add_mux(commands: Any) -> None:
    mux = _add(commands, "mux", "mux", "make a stream of files", MUX)
    mux.add_argument("stdout_file", metavar="STDOUT_FILE", nargs="?", help="becomes stdout; - is this process's stdin")
    mux.add_argument("stderr_file", metavar="STDERR_FILE", nargs="?", help="becomes stderr; - is this process's stdin")
    mux.add_argument("--stdout", metavar="FILE", help="the same as STDOUT_FILE")
    mux.add_argument("-e", "--stderr", metavar="FILE", help="the same as STDERR_FILE, which it allows to come alone")
    mux.add_argument("-o", "--output", metavar="FILE", help="where the stream goes (default: this process's stdout)")
    mux.add_argument(
        "--frame-size",
        type=frame_size,
        metavar="SIZE",
        default=32 * 1024,
        help="most payload in a frame, in bytes or with k, M or G (default: 32k, as Docker's)",
    )


def _add_inspect(commands: Any) -> None:
    inspect = _add(commands, "inspect", "inspect", "look into a stream", INSPECT, INSPECT_JSON)
    _add_source(inspect)
    inspect.add_argument("--json", action="store_true", help="print one JSON object; its keys are below")
    inspect.add_argument("--recover", action="store_true", help="go on behind a fault, and list the gaps")


def _add_attach(commands: Any) -> None:
    epilog = LINES_JSON + "\n" + HANDED_ON.format("container")
    attach = _add(commands, "attach", "attach", "attach to a container", ATTACH, epilog)
    _add_engine(attach)
    _add_runtime(attach)
    _add_detach_keys(attach)
    attach.add_argument("--no-stdin", dest="stdin", action="store_false", help="do not pass stdin on")
    attach.add_argument(
        "--sig-proxy",
        choices=("true", "false"),
        default="true",
        help="pass signals on to a container without a TTY (default: %(default)s); a second ctrl-C within two "
        "seconds ends muxframe",
    )
    attach.add_argument("--start", action="store_true", help="start the container, once attached to it")
    attach.add_argument("container", metavar="CONTAINER", help="name or id")


def _add_exec(commands: Any) -> None:
    epilog = LINES_JSON + "\n" + HANDED_ON.format("command")
    exec_ = _add(commands, "exec", "exec", "run a command in a container", EXEC, epilog)
    _add_engine(exec_)
    _add_runtime(exec_)
    _add_detach_keys(exec_)
    exec_.add_argument("-i", "--interactive", action="store_true", help="pass stdin on")
    exec_.add_argument("-t", "--tty", action="store_true", help="give the command a TTY")
    exec_.add_argument(
        "-e", "--env", action="append", default=[], metavar="NAME=VALUE", help="a variable; NAME alone: as it is here"
    )
    exec_.add_argument(
        "--env-file", action="append", default=[], metavar="FILE", help="variables, one a line; # begins a comment"
    )
    exec_.add_argument("-u", "--user", default="", metavar="USER", help="its name or id; with a group: USER:GROUP")
    exec_.add_argument("-w", "--workdir", metavar="DIR", help="the directory to run it in")
    exec_.add_argument("--privileged", action="store_true", help="with all capabilities")
    exec_.add_argument("container", metavar="CONTAINER", help="name or id")
    exec_.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="what to run, and its arguments")


def _add_cri(commands: Any) -> None:
    cri = _add(commands, "cri", "cri", "look into a container runtime", CRI)
    cri.add_argument("action", choices=("ps",), help="ps: list its containers")
    cri.add_argument("-H", "--host", metavar="ENDPOINT", help="the runtime's address (default: as told above)")
    cri.add_argument("-a", "--all", action="store_true", help="list those that do not run, too")
    cri.add_argument("--no-trunc", action="store_true", help="show ids whole")
    cri.set_defaults(tls=None)


def _add_logs(commands: Any) -> None:
    logs = _add(commands, "logs", "logs", "read containers' logs", LOGS, LINES_JSON)
    _add_engine(logs)
    logs.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    logs.add_argument("--since", metavar="MOMENT", help="only what was written from then on")
    logs.add_argument("--until", metavar="MOMENT", help="only what was written before")
    logs.add_argument("-n", "--tail", default="all", metavar="LINES", help="only so many at the end (default: all)")
    logs.add_argument("-t", "--timestamps", action="store_true", help="put its time before each line")
    logs.add_argument("--details", action="store_true", help="show what the log driver was told to add")
    logs.add_argument(
        "--label",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="of all that have this label; of several, all of them",
    )
    logs.add_argument("--all", action="store_true", help="of all containers")
    logs.add_argument(
        "--out", metavar="DIR", help="keep lines in DIR, a file for each container and stream; with --json as objects"
    )
    logs.add_argument(
        "--max-size", type=positive_size, metavar="SIZE", help="with --out: begin another file then (default: never)"
    )
    logs.add_argument(
        "--max-files", type=count, metavar="COUNT", help="with --max-size: how many are kept of each (default: 5)"
    )
    logs.add_argument("--parquet", metavar="DIR", help="keep lines in DIR as Parquet files (muxframe[parquet])")
    logs.add_argument(
        "--checkpoint",
        metavar="FILE",
        help="keep in FILE how far they were read, and go on there the next time; what --stdout and --stderr name is "
        "then written on",
    )
    logs.add_argument(
        "--color", choices=("auto", "always", "never"), default="auto", help="names of several (default: %(default)s)"
    )
    logs.add_argument(
        "--no-status", dest="status", action="store_false", help="do not show on a terminal how much comes of several"
    )
    logs.add_argument("container", metavar="CONTAINER", nargs="*", help="name or id")


def _add_record(commands: Any) -> None:
    record = _add(commands, "record", "record", "record a container's log", RECORD)
    _add_host(record)
    record.add_argument("-f", "--follow", action="store_true", help="go on with what is written from now on")
    record.add_argument("--since", metavar="MOMENT", help="only what was written from then on: as for logs")
    record.add_argument("--until", metavar="MOMENT", help="only what was written before")
    record.add_argument("-n", "--tail", default="all", metavar="LINES", help="only so many at the end (default: all)")
    record.add_argument("--details", action="store_true", help="record what the log driver was told to add, too")
    record.add_argument("container", metavar="CONTAINER", help="name or id")
    record.add_argument("file", metavar="FILE", help="the archive; it must not exist")


def _add_index(commands: Any) -> None:
    index = _add(commands, "index", "index", "make the index of a recorded stream", INDEX)
    index.add_argument("--raw", action="store_true", help="it is a terminal's: no frames")
    index.add_argument("-t", "--timestamps", action="store_true", help="it has timestamps")
    index.add_argument("--details", action="store_true", help="it has details")
    index.add_argument("file", metavar="FILE", help="the archive")


def _add_lines(commands: Any) -> None:
    lines = _add(commands, "lines", "lines", "print the lines of a recorded stream", LINES, LINES_JSON)
    lines.add_argument("--since", metavar="MOMENT", help="only lines from then on")
    lines.add_argument("--until", metavar="MOMENT", help="only lines before")
    lines.add_argument("-t", "--timestamps", action="store_true", help="put its time before each line that has one")
    _add_outputs(lines)
    lines.add_argument("file", metavar="FILE", help="the archive")


def _add_engine(command: argparse.ArgumentParser) -> None:
    """Add what is the same wherever a session's output is delivered."""
    _add_host(command)
    _add_outputs(command)


def _add_host(command: argparse.ArgumentParser) -> None:
    """Add what is the same wherever an engine is asked."""
    engine = command.add_mutually_exclusive_group()
    engine.add_argument(
        "-H", "--host", metavar="URL", help="the engine's address (default: as the environment and contexts say)"
    )
    engine.add_argument("--context", metavar="NAME", help="the engine of this Docker context")
    command.add_argument("--tls", metavar="DIR", help="verify with the ca.pem, cert.pem and key.pem in it")


def _add_outputs(command: argparse.ArgumentParser) -> None:
    """Add what is the same wherever lines are delivered."""
    command.add_argument("--stdout", metavar="FILE", help="where stdout goes; - is this process's stdout (default)")
    ways = command.add_mutually_exclusive_group()
    ways.add_argument(
        "--stderr", metavar="FILE", help="where stderr goes; - is this process's stdout (default: its stderr)"
    )
    ways.add_argument("--json", action="store_true", help="print a JSON object for each line; its keys are below")


def _add_runtime(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--cri",
        action="store_true",
        help="the engine is a container runtime: see muxframe cri; its endpoint comes next, or is -H's",
    )


def _add_detach_keys(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--detach-keys",
        type=key_codes,
        metavar="KEYS",
        help="keys that leave it running: characters and ctrl-X, with commas between (default: ctrl-p,ctrl-q)",
    )


def _add_bench(commands: Any) -> None:
    bench = _add(commands, "bench", "bench", "measure this machine", BENCH, BENCH_JSON)
    takes = "about how long it takes (default: %(default)g)"
    bench.add_argument("--seconds", type=seconds, metavar="SECONDS", default=10.0, help=takes)
    bench.add_argument("--json", action="store_true", help="print one JSON object; its keys are below")


def _add_source(command: argparse.ArgumentParser) -> None:
    command.add_argument("source", metavar="SOURCE", nargs="?", default="-", help="the stream; - is stdin (default)")
    command.add_argument(
        "--max-frame-size",
        type=size,
        metavar="SIZE",
        help="most payload a header may announce, in bytes or with k, M or G (default: 4G-1; with --recover 1M)",
    )


def _add(
    commands: Any, name: str, module: str, summary: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    command: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, epilog="\n".join(filter(None, (epilog, EXIT_CODES)))
    )
    command.set_defaults(module=module)
    return command


def size(text: str) -> int:
    """Read a number of bytes: 4096, 64k, 16M, 1G (powers of 1024)."""
    digits, shift = text, 0
    if text[-1:].lower() in ("k", "m", "g"):
        digits, shift = text[:-1], {"k": 10, "m": 20, "g": 30}[text[-1].lower()]
    if not (digits.isascii() and digits.isdigit()):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size: 4096, 64k, 16M or 1G")
    return int(digits) << shift


def positive_size(text: str) -> int:
    """Read a size of something that there is."""
    value = size(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text!r} is not positive")
    return value


def count(text: str) -> int:
    """Read how many there are to be."""
    if not (text.isascii() and text.isdigit() and int(text)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number")
    return int(text)


def seconds(text: str) -> float:
    """Read a time of up to an hour."""
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 3600:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds from 0 to 3600")
    return value


def key_codes(text: str) -> tuple[str, bytes]:
    """Read a sequence of keys: return it as it is, and what a terminal sends for it."""
    return text, bytes(map(_key_code, text.split(",")))


def _key_code(key: str) -> int:
    if len(key) == 1 and key.isascii():
        return ord(key)
    control, character = key[:5].lower(), key[5:].upper()
    if control == "ctrl-" and len(character) == 1 and "@" <= character <= "_":
        return ord(character) & 0x1F
    raise argparse.ArgumentTypeError(f"{key!r} is not a key: one character, or ctrl- and a letter or one of @[\\]^_")


def frame_size(text: str) -> int:
    """Read a size that a frame can have."""
    value = size(text)
    if not 0 < value <= MAX_PAYLOAD_SIZE:
        raise argparse.ArgumentTypeError(f"{text!r} is not between 1 and {MAX_PAYLOAD_SIZE}")
    return value


def version_text() -> str:
    """Say which muxframe this is, and why the backend is the one it is."""
    from .. import BACKEND, __version__

    why = ""
    if BACKEND == "python":
        asked = os.environ.get("MUXFRAME_BACKEND") == "python"
        why = ", as MUXFRAME_BACKEND asks" if asked else ": the compiled core was not built"
    python = ".".join(map(str, sys.version_info[:3]))
    return f"muxframe {__version__} ({BACKEND} backend{why}), Python {python} ({sys.implementation.name})\n"


class _Parser(argparse.ArgumentParser):
    """Texts as they are written; no guessing from the beginnings of options."""

    def __init__(self, **options: Any) -> None:
        super().__init__(formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False, **options)

    def print_help(self, file: Any = None) -> None:
        """Print the help; unlike argparse's, which hides it, a failure to is one."""
        if file is None:
            say(self.format_help())
        else:
            super().print_help(file)


class _Version(argparse.Action):
    """As argparse's own, without breaking the line."""

    def __init__(self, option_strings: Sequence[str], dest: str, help: str | None = None) -> None:
        super().__init__(option_strings, dest=argparse.SUPPRESS, default=argparse.SUPPRESS, nargs=0, help=help)

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        say(version_text())
        parser.exit()
