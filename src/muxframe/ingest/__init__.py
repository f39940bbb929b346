"""Logs, from one container to a fleet: lines that survive restarts, gathered, and kept.

    resume.py       where one is in a log, and how to get back there; no I/O
    following.py    what following one log consists of, step by step; no I/O
    checkpoints.py  a file that keeps where a gathering is
    follow.py aio.py    the two shells around that: Follower, blocking and on asyncio
    gather.py       many containers at once
    formats.py      what a line looks like: text, JSON
    sinks.py        files that rotate, JSON lines, Parquet, the logging module
    waiting.py      wait_for: up to a line that matches
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoints import CheckpointFile
    from .follow import Follower
    from .formats import TextLines, json_line, text_line
    from .gather import AsyncGathering, Gathering, Source
    from .resume import Checkpoint
    from .sinks import Files, JsonLines, LineSink, Logging, Parquet, Queued
    from .waiting import Found, wait_for

__all__ = [
    "AsyncGathering",
    "Checkpoint",
    "CheckpointFile",
    "Files",
    "Follower",
    "Found",
    "Gathering",
    "JsonLines",
    "LineSink",
    "Logging",
    "Parquet",
    "Queued",
    "Source",
    "TextLines",
    "json_line",
    "text_line",
    "wait_for",
]

_HOMES = {
    "checkpoints": ("CheckpointFile",),
    "follow": ("Follower",),
    "formats": ("TextLines", "json_line", "text_line"),
    "gather": ("AsyncGathering", "Gathering", "Source"),
    "resume": ("Checkpoint",),
    "sinks": ("Files", "JsonLines", "LineSink", "Logging", "Parquet", "Queued"),
    "waiting": ("Found", "wait_for"),
}


if not TYPE_CHECKING:  # a type checker would let any misspelt name pass

    def __getattr__(name: str) -> Any:
        """Import what is asked for, and no more: not everybody needs asyncio."""
        for home, names in _HOMES.items():
            if name in names:
                return getattr(import_module(f"{__name__}.{home}"), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
