"""`muxframe exec`: run a command in a container."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

from .files import Failure
from .sessions import Guidance, Output, detach_keys, exit_code, find_engine, misuse
from .terminal import terminal_size

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if not arguments.command:
        raise Failure("no command to run in the container", 2)
    if arguments.cri:
        from . import cri

        return cri.exec_(arguments)
    with ExitStack() as stack:
        with misuse():
            engine = find_engine(arguments)
            keys, codes = detach_keys(engine, arguments) if arguments.interactive else (None, None)
        output = Output(stack, arguments, has_stdin=arguments.interactive)
        with misuse():
            session = stack.enter_context(
                engine.exec(
                    arguments.container,
                    arguments.command,
                    stdin=arguments.interactive,
                    tty=arguments.tty,
                    size=terminal_size() if arguments.tty else None,
                    env=_environment(arguments.env),
                    user=arguments.user,
                    workdir=arguments.workdir,
                    privileged=arguments.privileged,
                    detach_keys=keys,
                )
            )
        with Guidance(session, has_stdin=arguments.interactive, keys=codes) as guidance:
            guidance.send_size()
            output.deliver(session)
        return exit_code(session, guidance, "command")


def _environment(variables: Iterable[str]) -> list[str]:
    """Give names without a value the value they have here; leave those out that have none."""
    given = ((name, sign, value) for name, sign, value in (variable.partition("=") for variable in variables))
    return [
        f"{name}={value if sign else os.environ[name]}" for name, sign, value in given if sign or name in os.environ
    ]
