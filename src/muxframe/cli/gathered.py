"""`muxframe logs` of many containers, or into files: lines, gathered across restarts, from where they were left."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from ..engine.parameters import moment
from ..errors import MuxframeError, NotFoundError
from ..ingest.checkpoints import CheckpointFile
from ..ingest.formats import TextLines, json_line
from ..ingest.sinks import Files, Parquet
from .files import STDERR, STDOUT, Failure, Naming, complain, open_outputs
from .interrupt import PATIENCE
from .printing import Printer
from .sessions import find_engine, misuse
from .signals import Signals, start_thread
from .status import PERIOD, Status

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Sequence

    from .._lines_py import Line
    from ..engine import Engine
    from ..ingest import Gathering, Source

#: Seconds after which what was written is flushed, and a checkpoint stored: at the latest, and where nothing comes.
COMMIT_PERIOD = 1.0
IDLE_PERIOD = 0.1

#: The same for Parquet, where each flush makes a file; and lines and bytes that one file has at most.
PARQUET_PERIOD = 60.0
PARQUET_LINES = 500_000
PARQUET_SIZE = 64 * 1024 * 1024

#: Seconds that files get for what they hold when a signal ends the command. For pipes it is less: see interrupt.py.
FILES_PATIENCE = 10.0

#: Seconds between complaints of a connection that is lost.
QUIET_PERIOD = 30.0


def run(arguments: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    with ExitStack() as stack:
        kept = None if arguments.checkpoint is None else CheckpointFile(arguments.checkpoint)
        with misuse():
            engine = find_engine(arguments)
            names = find_containers(engine, arguments)
            if arguments.container and not names:
                return 1
            gathering = stack.enter_context(gather(engine, names, arguments, kept))
        status = stack.enter_context(Status(arguments.status))
        stack.enter_context(complaints(status))
        delivery = Delivery(gathering, open_sinks(stack, arguments, gathering, status), kept, status)
        patience = FILES_PATIENCE if arguments.out or arguments.parquet else PATIENCE
        with Signals({}, lambda: start_thread(gathering.close, "muxframe-close"), patience=patience):
            delivery.run()
    is_complete = len(names) == len(set(arguments.container)) or arguments.follow
    return 0 if is_complete and not any(source.error for source in gathering.sources) else 1


def find_containers(engine: Engine, arguments: argparse.Namespace) -> list[str]:
    """Return the names and ids of those that were asked for by name: those that are there, and those to wait for."""
    found: list[str] = []
    for name in dict.fromkeys(arguments.container):
        try:
            info = engine.inspect(name)
        except NotFoundError:
            complain(f"no such container: {name}" + (" (it is followed once there is one)" if arguments.follow else ""))
            if arguments.follow:
                found.append(name)
        else:
            is_name = name == str(info.get("Name")).removeprefix("/")
            found.append(name if is_name else str(info["Id"]))  # any beginning of an id will do
    return found


def gather(
    engine: Engine, names: Sequence[str], arguments: argparse.Namespace, kept: CheckpointFile | None
) -> Gathering:
    """Begin to gather, or go on."""
    since = None if arguments.since is None else moment(arguments.since)
    tail = arguments.tail
    if kept is not None and kept.is_new:
        kept.since = since
    elif kept is not None:  # what has come since is wanted whole
        since, tail = kept.since, "all"
    until: Any = None if arguments.until is None else moment(arguments.until)
    if not arguments.follow and (until is None or float(until) > time.time()):
        until = "end"
    return engine.gather(
        *names,
        labels=arguments.label,
        checkpoints=None if kept is None else kept.checkpoints,
        since=since,
        tail=tail,
        details=arguments.details,
        until=until,
        stopped=True,
    )


def open_sinks(
    stack: ExitStack, arguments: argparse.Namespace, gathering: Gathering, status: Status
) -> list[tuple[str, Any]]:
    """Open what the lines go to; return it with names for messages."""
    text = TextLines(timestamps=arguments.timestamps, details=arguments.details)
    sinks: list[tuple[str, Any]] = []
    if arguments.out:
        files = Files(
            arguments.out,
            format=json_line if arguments.json else text,
            suffix="jsonl" if arguments.json else "log",
            max_size=arguments.max_size,
            max_files=5 if arguments.max_files is None else arguments.max_files,
        )
        sinks.append((arguments.out, files))
    if arguments.parquet:
        try:
            parquet = Parquet(arguments.parquet, max_rows=2 * PARQUET_LINES, max_bytes=2 * PARQUET_SIZE)
        except ImportError as error:
            raise Failure(str(error)) from error
        sinks.append((arguments.parquet, parquet))
    if not sinks:
        paths = {STDOUT: arguments.stdout, STDERR: arguments.stderr}
        stdout, stderr = open_outputs(stack, paths, [], is_continued=arguments.checkpoint is not None)
        if stdout.has_reader:  # which may write on the same terminal
            status.is_shown = False
        printer = Printer(
            stdout,
            stderr,
            status,
            lambda: gathering.sources,
            json=arguments.json,
            color=arguments.color,
            has_prefix=len(arguments.container) != 1,
            before=text.before if arguments.timestamps or arguments.details else None,
        )
        sinks.append((stdout.name, printer))
    return sinks


class Delivery:
    """Takes lines to sinks, to the end.

    Args:
        gathering: where they come from.
        sinks: where they go to, with names for messages.
        kept: where checkpoints are stored, if they are.
        status: what is told how much has come.
    """

    def __init__(
        self, gathering: Gathering, sinks: Sequence[tuple[str, Any]], kept: CheckpointFile | None, status: Status
    ) -> None:
        self._gathering = gathering
        self._sinks = sinks
        self._kept = kept
        self._status = status
        self._has_parquet = any(isinstance(sink, Parquet) for _, sink in sinks)
        self._period = PARQUET_PERIOD if self._has_parquet else COMMIT_PERIOD
        self._due: float | None = None  # when to commit; None: all is
        self._is_fresh = False  # there may be something to flush
        self._lines = 0  # since the last commit
        self._size = 0

    def run(self) -> None:
        """Deliver all there is, up to the gathering's end."""
        try:
            while (found := self._read()) is not None:
                if found:
                    self._write(*found)
                if self._due is not None and (time.monotonic() >= self._due or self._is_full):
                    self._commit()
                self._status.update(self._gathering)
        except (MuxframeError, KeyboardInterrupt):
            self._flush()
            raise
        self._gathering.close()
        self._commit()

    def _read(self) -> tuple[Source, list[Line]] | tuple[()] | None:
        """Return what comes next; nothing where it is time for something else; None at the end."""
        waits = [PERIOD] if self._status.is_shown else []
        if self._is_fresh:
            waits.append(IDLE_PERIOD)
        if self._due is not None:
            waits.append(max(self._due - time.monotonic(), 0))
        self._gathering.timeout = min(waits, default=None)
        try:
            return self._gathering.read()
        except TimeoutError:
            if self._has_parquet:
                self._flush(but=Parquet)
            else:
                self._commit()
            return ()

    def _write(self, source: Source, lines: list[Line]) -> None:
        for name, sink in self._sinks:
            with Naming(name):
                sink.write_lines(source, lines)
        size = sum([len(line.data) for line in lines]) + len(lines)
        self._status.count(len(lines), size)
        self._lines += len(lines)
        self._size += size
        self._is_fresh = True
        if self._due is None:
            self._due = time.monotonic() + self._period

    @property
    def _is_full(self) -> bool:
        return self._has_parquet and (self._lines >= PARQUET_LINES or self._size >= PARQUET_SIZE)

    def _flush(self, *, but: type | None = None) -> None:
        for name, sink in self._sinks:
            if but is None or not isinstance(sink, but):
                with Naming(name):
                    sink.flush()
        self._is_fresh = False

    def _commit(self) -> None:
        """Let nothing be lost of what was written, and then keep where that is."""
        self._flush()
        if self._kept is not None:
            self._kept.store(self._gathering.checkpoints)
        self._due, self._lines, self._size = None, 0, 0


@contextmanager
def complaints(status: Status) -> Iterator[None]:
    """Tell what goes wrong with single containers, and of connections that are lost, if not each time."""
    logger = logging.getLogger("muxframe.ingest")
    handler = _Complaining(status)
    old = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        yield
    finally:
        logger.level, logger.propagate = old
        logger.removeHandler(handler)


class _Complaining(logging.Handler):
    def __init__(self, status: Status) -> None:
        super().__init__()
        self._status = status
        self._quiet_until = 0.0

    def emit(self, record: logging.LogRecord) -> None:
        if record.levelno < logging.WARNING:
            now = time.monotonic()
            if now < self._quiet_until:
                return
            self._quiet_until = now + QUIET_PERIOD
        with self._status.hidden():
            complain(record.getMessage())
