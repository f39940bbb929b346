"""`muxframe completion` and `muxframe man`: made from the parser, by what the extra `cli` installs."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .files import Failure, say
from .parser import BENCH_JSON, EXIT_CODES, FILE_METAVARS, HANDED_ON, INSPECT_JSON, LINES_JSON, build_parser

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Run either command; return its exit code."""
    parser = build_parser()
    say(completion(parser, arguments.shell) if "shell" in arguments else manual_page(parser))
    return 0


def completion(parser: argparse.ArgumentParser, shell: str) -> str:
    """Make the completion for a shell."""
    shtab = _import("shtab")
    if shell not in shtab.SUPPORTED_SHELLS:
        raise Failure(f"this version of shtab cannot complete in {shell}")
    _complete_files(parser, shtab.FILE)
    return str(shtab.complete(parser, shell=shell))


def manual_page(parser: argparse.ArgumentParser) -> str:
    """Make the manual page, in roff."""
    from .. import __version__

    page = _import("argparse_manpage.manpage").Manpage(parser)
    page.source = f"muxframe {__version__}"
    page.manual = "User Commands"
    page.description = "take Docker's and Podman's multiplexed streams apart, and attach to containers"
    parser.epilog = None  # it would be among COMMENTS; epilogs of commands would be nowhere
    page.add_section("exit status of attach, exec", ">", HANDED_ON.format("container or command"))
    page.add_section("exit status", ">", _verbatim(EXIT_CODES))
    page.add_section("inspect --json", ">", _verbatim(INSPECT_JSON))
    page.add_section("attach --json, exec --json, logs --json, lines --json", ">", _verbatim(LINES_JSON))
    page.add_section("bench --json", ">", _verbatim(BENCH_JSON))
    return str(page)


def _verbatim(text: str) -> str:
    """Keep lines as they are in roff."""
    escaped = text.replace("\\", "\\e").replace("-", "\\-")
    return f".nf\n{escaped}.fi"


def _import(module: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise Failure(f"this needs {package}: pip install 'muxframe[cli]'") from error


def _complete_files(parser: argparse.ArgumentParser, how: Any) -> None:
    for action in parser._actions:
        if action.metavar in FILE_METAVARS:
            action.complete = how  # type: ignore[attr-defined]
        if isinstance(action.choices, dict):  # the commands
            for command in action.choices.values():
                _complete_files(command, how)
