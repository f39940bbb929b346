"""`muxframe logs`: read a container's log; or those of many: gathered.py."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .files import Failure
from .sessions import Guidance, Output, find_engine, misuse

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    check_usage(arguments)
    is_one = len(arguments.container) == 1
    if is_one and not (arguments.out or arguments.parquet or arguments.checkpoint):
        return run_one(arguments)
    from .gathered import run

    return run(arguments)


def check_usage(arguments: argparse.Namespace) -> None:
    """Refuse options that have no meaning together."""
    if sum(map(bool, (arguments.container, arguments.label, arguments.all))) != 1:
        raise Failure("the logs of which containers? Give their names, or --label, or --all", 2)
    if (arguments.out or arguments.parquet) and (arguments.stdout or arguments.stderr):
        raise Failure("--stdout and --stderr are for lines that are printed: with --out and --parquet none is", 2)
    if arguments.json and arguments.parquet and not arguments.out:
        raise Failure("--json is for lines that are printed, and for --out", 2)
    if (arguments.max_size and not arguments.out) or (arguments.max_files and not arguments.max_size):
        raise Failure("--max-size is for --out, and --max-files for --max-size", 2)


def run_one(arguments: argparse.Namespace) -> int:
    """Deliver a log as it is, byte by byte."""
    with ExitStack() as stack:
        with misuse():
            session = stack.enter_context(
                find_engine(arguments).logs(
                    arguments.container[0],
                    follow=arguments.follow,
                    since=arguments.since,
                    until=arguments.until,
                    tail=arguments.tail,
                    timestamps=arguments.timestamps,
                    details=arguments.details,
                )
            )
        output = Output(stack, arguments)
        with Guidance(session):
            output.deliver(session)
    return 0
