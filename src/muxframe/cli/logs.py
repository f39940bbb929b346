"""`muxframe logs`: read a container's log."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .sessions import Guidance, Output, find_engine, misuse

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with ExitStack() as stack:
        with misuse():
            session = stack.enter_context(
                find_engine(arguments).logs(
                    arguments.container,
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
