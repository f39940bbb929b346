"""Writes docs/cli-options.md from the parser of the command: python docs/cli_options.py. A test compares them."""

from __future__ import annotations

import argparse
from pathlib import Path

from muxframe.cli.parser import EXIT_CODES, build_parser

PAGE = Path(__file__).with_name("cli-options.md")

HEAD = """\
<!-- Written by docs/cli_options.py, do not edit -->

# Every option of the command line

[The command line](cli.md) explains and has examples. `-h`, `--help` of each command prints the same.
"""


def page() -> str:
    parser = build_parser()
    parts = [HEAD, table(parser)]
    [commands] = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for name, command in commands.choices.items():
        parts += [f"## muxframe {name}\n", text(command.description), table(command)]
        parts.append(text((command.epilog or "").removesuffix(EXIT_CODES)))
    return "\n".join(filter(None, [*parts, "## Exit codes\n", text(EXIT_CODES)]))


def text(written: str | None) -> str:
    """Give its paragraphs; what is set in columns stays so."""
    paragraphs = (written or "").strip("\n").split("\n\n")
    return "\n".join(f"```text\n{each}\n```\n" if "\n  " in each else f"{each}\n" for each in paragraphs if each)


def table(command: argparse.ArgumentParser) -> str:
    """List its arguments, then its options."""
    rows = [
        f"| {names(action)} | {(action.help % vars(action)).replace('|', '&#124;')} |"
        for action in sorted(command._actions, key=lambda action: bool(action.option_strings))
        if action.help and not isinstance(action, argparse._HelpAction | argparse._SubParsersAction)
    ]
    return "\n".join(["| | |", "|---|---|", *rows, ""]) if rows else ""


def names(action: argparse.Action) -> str:
    """Write an argument as one would in a line of usage."""
    value = action.metavar or r"\|".join(map(str, action.choices or ()))
    if not action.option_strings:
        end = "..." if action.nargs == argparse.REMAINDER else ""
        return f"`[{value}]`" if action.nargs == "?" else f"`{value}{end}`"
    *short, last = action.option_strings
    return ", ".join(f"`{name}`" for name in [*short, f"{last} {value}".strip()])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
