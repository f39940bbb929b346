"""`muxframe cri ps`, and what attach and exec do with --cri: the engine is a container runtime that speaks the CRI."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from .files import Failure, one_line, say
from .sessions import Guidance, Output, exit_code, misuse
from .terminal import terminal_size

if TYPE_CHECKING:
    import argparse

    from ..cri import Runtime

#: Options of exec, and of all engines, for which the CRI has no words.
FOREIGN = ("env", "env_file", "user", "workdir", "privileged", "start", "context")


def run(arguments: argparse.Namespace) -> int:
    """List the containers; return the exit code."""
    rows = [("CONTAINER ID", "STATE", "POD", "NAME", "IMAGE")]
    for each in _find_runtime(arguments).containers(all=arguments.all):
        pod = each.labels.get("io.kubernetes.pod.name") or each.pod[:12]
        rows.append((each.id if arguments.no_trunc else each.id[:12], each.state, pod, each.name, each.image))
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths)).rstrip() for row in rows]
    say("".join(one_line(line) + "\n" for line in lines))
    return 0


def attach(arguments: argparse.Namespace) -> int:
    """Attach to a container; return the exit code."""
    runtime = _find_runtime(arguments)
    with ExitStack() as stack:
        with misuse():
            session = stack.enter_context(runtime.attach(arguments.container, stdin=arguments.stdin))
        output = Output(stack, arguments, has_stdin=arguments.stdin)
        keys = arguments.detach_keys and arguments.detach_keys[1]
        with Guidance(session, has_stdin=arguments.stdin, keys=keys) as guidance:
            guidance.send_size(redraw=True)
            output.deliver(session)
        return exit_code(session, guidance, "container")


def exec_(arguments: argparse.Namespace) -> int:
    """Run a command; return its exit code."""
    runtime = _find_runtime(arguments)
    with ExitStack() as stack:
        output = Output(stack, arguments, has_stdin=arguments.interactive)
        with misuse():
            session = stack.enter_context(
                runtime.exec(
                    arguments.container,
                    arguments.command,
                    stdin=arguments.interactive,
                    tty=arguments.tty,
                    size=terminal_size() if arguments.tty else None,
                )
            )
        keys = arguments.detach_keys and arguments.detach_keys[1]
        with Guidance(session, has_stdin=arguments.interactive, keys=keys) as guidance:
            output.deliver(session)
        return exit_code(session, guidance, "command")


def _find_runtime(arguments: argparse.Namespace) -> Runtime:
    """Return the runtime that the command line asks for.

    Raises:
        Failure: there is an option that only engines know, or a library is missing.
    """
    for name in FOREIGN:
        if getattr(arguments, name, None):
            raise Failure(f"--{name.replace('_', '-')} is not for --cri", 2)
    try:
        from ..cri import connect

        with misuse():
            return connect(arguments.host, tls=arguments.tls)
    except ModuleNotFoundError as error:
        raise Failure(str(error)) from error
