"""Where a gathering is, in a file: read at the start, replaced whole, so that there is always one that is right."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from .resume import Checkpoint

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CheckpointFile"]

VERSION = 1


class CheckpointFile:
    """The checkpoints of the containers of an engine, and from when on logs were wanted at the very first.

    One process at a time may use a file.

    Args:
        path: of a file that is there, or will be.

    Attributes:
        is_new: there was no file.
        since: a moment, or None: from the beginning. To be set where it is new; kept with the checkpoints.
        checkpoints: of each container, by its id: for `gather`.

    Raises:
        CheckpointError: the file is something else, damaged, or of a newer version.
        OSError: it cannot be read, or no other can be written in its place.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.realpath(path)
        self._unfinished = f"{self._path}.part"
        self.since: str | None = None
        self.is_new: bool = False
        self.checkpoints: Mapping[str, Checkpoint] = {}
        try:
            with open(self._path, "rb") as file:
                text = file.read()
        except FileNotFoundError:
            self.is_new = True
        else:
            self._take(text)
        os.close(self._open())
        os.unlink(self._unfinished)

    def _take(self, text: bytes) -> None:
        try:
            document = json.loads(text)
            version, self.since, texts = document["muxframe checkpoints"], document["since"], document["containers"]
            self.checkpoints = {id: Checkpoint.from_str(each) for id, each in texts.items()}
            is_right = all(each.container == id for id, each in self.checkpoints.items())
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, CheckpointError):
            is_right = False
        if not is_right or not isinstance(self.since, (str, type(None))):
            raise CheckpointError(f"{self._path}: not a checkpoint file, or damaged")
        if version != VERSION:
            raise CheckpointError(f"{self._path}: a checkpoint file of another version of muxframe")

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)
        return os.open(self._unfinished, flags, 0o666)

    def store(self, checkpoints: Mapping[str, Checkpoint]) -> None:
        """Keep these from now on; whatever happens meanwhile, these or those before.

        Raises:
            OSError: it could not be written, and is as it was.
        """
        if checkpoints == self.checkpoints and not self.is_new:
            return
        texts = {id: str(checkpoint) for id, checkpoint in checkpoints.items()}
        document: dict[str, Any] = {"muxframe checkpoints": VERSION, "since": self.since, "containers": texts}
        try:
            with open(self._open(), "wb") as file:
                file.write(json.dumps(document, indent=1).encode() + b"\n")
                file.flush()
                os.fsync(file.fileno())
            os.replace(self._unfinished, self._path)
        except OSError as error:
            error.filename = error.filename or self._unfinished
            raise
        self.is_new, self.checkpoints = False, checkpoints
