"""`muxframe index`: the index of an archive."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..archive import build_index
from ..errors import MuxframeError
from .files import Failure, Naming

if TYPE_CHECKING:
    import argparse


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        with Naming(arguments.file):
            build_index(
                arguments.file, raw=arguments.raw, timestamps=arguments.timestamps, details=arguments.details
            )
    except ModuleNotFoundError as error:
        raise Failure(str(error)) from error
    except MuxframeError as error:
        raise Failure(f"{arguments.file}: {error}; the index is of what comes before") from error
    return 0
