"""`muxframe record`: a container's log into an archive."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from ..archive import record
from .files import Failure
from .sessions import Guidance, find_engine, misuse

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
                    timestamps=True,
                    details=arguments.details,
                )
            )
        with Guidance(session):
            try:
                record(session, arguments.file)
            except ModuleNotFoundError as error:
                raise Failure(str(error)) from error
    return 0
