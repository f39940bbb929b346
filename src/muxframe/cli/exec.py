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
                    env=_environment(arguments.env_file, arguments.env),
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


def _environment(files: Iterable[str], variables: Iterable[str]) -> list[str]:
    """Give names without a value the value they have here; leave those out that have none. Later ones count."""
    all_ = [line for path in files for line in _read_variables(path)] + list(variables)
    given = ((name, sign, value) for name, sign, value in (variable.partition("=") for variable in all_))
    return [
        f"{name}={value if sign else os.environ[name]}" for name, sign, value in given if sign or name in os.environ
    ]


def _read_variables(path: str) -> list[str]:
    """Read a file of variables, by Docker's rules: one a line, and comments, which begin with #."""
    try:
        with open(path, encoding="utf-8-sig", newline="\n") as file:
            lines = [line.rstrip("\r\n").lstrip(" \t") for line in file]
    except UnicodeDecodeError:
        raise Failure(f"{path} is not UTF-8") from None
    variables = [line for line in lines if line and not line.startswith("#")]
    for variable in variables:
        name = variable.partition("=")[0]
        if not name or name != "".join(name.split()):
            raise Failure(f"{path}: {name!r} is no name of a variable")
    return variables
