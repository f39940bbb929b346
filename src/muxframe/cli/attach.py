"""`muxframe attach`: lead a container from here."""

from __future__ import annotations

from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

from ..engine.calls import id_of
from .sessions import Guidance, Output, detach_keys, exit_code, find_engine, misuse

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    if arguments.cri:
        from . import cri

        return cri.attach(arguments)
    with ExitStack() as stack:
        with misuse():
            engine = find_engine(arguments)
            info = engine.inspect(arguments.container)
            has_stdin = arguments.stdin and bool((info.get("Config") or {}).get("OpenStdin"))
            keys, codes = detach_keys(engine, arguments) if has_stdin else (None, None)
            session = stack.enter_context(
                engine.attach(
                    arguments.container,
                    stdin=has_stdin,
                    detach_keys=keys,
                    start=arguments.start,
                )
            )
        output = Output(stack, arguments, has_stdin=has_stdin)
        container = id_of(info)  # its name may become another's
        forward = partial(engine.kill, container) if arguments.sig_proxy == "true" else None
        with Guidance(session, has_stdin=has_stdin, keys=codes, forward=forward) as guidance:
            guidance.send_size(redraw=not engine.is_podman)  # whose own attach does not, either
            output.deliver(session)
        return exit_code(session, guidance, "container")
