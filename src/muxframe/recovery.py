"""What can be saved of a damaged archive: explicit, and never what the rest of the package does.

A header says little: a stream's number, three zeros and a size. So it is believed here only in company:

- A frame is believed if another header, or the end, follows it.
- After a fault, the first offset counts again from which `min_frames` headers of non-empty frames follow one another,
  or a shorter run of them ends exactly where the archive ends. (Empty frames prove nothing: small 64-bit integers in
  binary payload look like them.)
- A frame that no header follows may have a wrong size: if such a run begins inside it and goes on behind its end,
  the frame is damaged; otherwise the damage begins behind it.

What is between is a gap. Memory is bounded by a few times min_frames times max_frame_size, time by the archive's size.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from ._framing import Frame
from ._framing_py import BLOCK_SIZE, check_limit
from .errors import header_error
from .protocol import HEADER_SIZE, Stream
from .sources import Source, open_source

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .sources import AnySource

__all__ = ["Gap", "recover"]

EMPTY_FRAMES = 8  # for each frame that counts, so many are looked at: a run of empty ones must not be followed for ever


class Gap(NamedTuple):
    """A part of an archive that cannot be read as frames."""

    offset: int  #: where it begins, in bytes
    size: int  #: bytes; 0 where bytes are missing at the end
    reason: str


def recover(
    source: AnySource, /, *, max_frame_size: int = 1024 * 1024, min_frames: int = 3
) -> Iterator[Frame | Gap]:
    """Read what can be read of a damaged archive.

    Outside the gaps nothing is lost: frames and gaps together account for every byte, in order. Of a frame that the
    end cuts off, what is there comes as a frame, with a gap of size 0 behind it. Systemerr frames come as frames.

    Args:
        source: anything `copy` can read from.
        max_frame_size: payload, in bytes, above which a size is not believed. Engines send at most 32 KiB a frame.
        min_frames: consecutive headers of non-empty frames it takes to believe an offset after a fault.

    Returns:
        An iterator of Frame and Gap.

    Raises:
        ValueError: min_frames is not positive, or max_frame_size not a size.
        OSError: by `next`: what the source raised.

    >>> wire = b"\\x01\\0\\0\\0\\0\\0\\0\\x02hi" + b"damage" + 3 * b"\\x02\\0\\0\\0\\0\\0\\0\\x02no"
    >>> for item in recover(wire):
    ...     print(item if isinstance(item, Gap) else bytes(item))
    b'hi'
    Gap(offset=10, size=6, reason='unrecognized stream: 100 at offset 10')
    b'no'
    b'no'
    b'no'
    """
    check_limit(max_frame_size)
    if max_frame_size is None:
        raise TypeError("max_frame_size must be an int: without a cap any size would be believed")
    if min_frames < 1:
        raise ValueError("min_frames must be positive")
    return _recover(open_source(source), max_frame_size, min_frames)


def _recover(source: Source, max_frame_size: int, min_frames: int) -> Iterator[Frame | Gap]:
    with source:
        archive = _Archive(source, max_frame_size, min_frames)
        position = 0
        while archive.has(position, 1):
            archive.forget(position)
            fault = archive.fault(position)
            if fault is not None:
                resumed = archive.find(position + 1)
                yield Gap(position, resumed - position, fault)
                position = resumed
                continue
            end = archive.frame_end(position)
            if not archive.continues(end):
                inner = archive.find_inside(position, end)
                if inner is not None:
                    yield Gap(position, inner - position, f"wrong size in the frame at offset {position}")
                    position = inner
                    continue
            yield archive.frame(position)
            if not archive.has(position, end - position):
                missing = end - archive.end
                yield Gap(archive.end, 0, f"{missing} bytes missing from the frame at offset {position}")
                return
            position = end


class _Archive:
    """A window onto the source, and what its bytes may mean."""

    def __init__(self, source: Source, max_frame_size: int, min_frames: int) -> None:
        self._pieces = _pieces(source)
        self._max_frame_size = max_frame_size
        self._min_frames = min_frames
        self._window = bytearray()
        self._start = 0  # offset of the window
        import re  # here, since it takes as long as importing the rest of the package

        highest = re.escape(bytes([min(max_frame_size >> 24, 255)]))  # first byte of a size
        self._candidate = re.compile(rb"[\x01-\x03](?=\0\0\0[\0-" + highest + b"])")  # one byte: they may overlap

    @property
    def end(self) -> int:
        """Offset behind what has been read."""
        return self._start + len(self._window)

    def has(self, position: int, size: int) -> bool:
        """Read until there are size bytes at position; say whether there are."""
        while self.end < position + size:
            piece = next(self._pieces, None)
            if piece is None:
                return False
            self._window += piece
        return True

    def forget(self, position: int) -> None:
        """Drop what is before position, now and then."""
        if position - self._start > BLOCK_SIZE:
            del self._window[: position - self._start]
            self._start = position

    def bytes_at(self, position: int, size: int) -> bytes:
        start = position - self._start
        return bytes(self._window[start : start + size])

    def header(self, position: int) -> bytes:
        self.has(position, HEADER_SIZE)
        return self.bytes_at(position, HEADER_SIZE)

    def frame_end(self, position: int) -> int:
        return position + HEADER_SIZE + int.from_bytes(self.header(position)[4:], "big")

    def frame(self, position: int) -> Frame:
        """Return the frame at position, as much as there is of it."""
        payload = self.bytes_at(position + HEADER_SIZE, self.frame_end(position) - position - HEADER_SIZE)
        return Frame(self.header(position)[0], payload)

    def fault(self, position: int) -> str | None:
        """Say why no frame can begin at position, or None."""
        header = self.header(position)
        error = header_error(header, position, max_frame_size=self._max_frame_size, check_reserved=True)
        if error is not None:
            return str(error)
        if len(header) < HEADER_SIZE:
            return f"ends inside the header at offset {position}"
        if not any(header) and not self.resumes(position + HEADER_SIZE):
            return f"zeros in place of a header at offset {position}"
        return None

    def continues(self, position: int) -> bool:
        """Say whether a header, its beginning, or the end is at position.

        A header of stdin is mostly zeros, and nobody sends it: it needs a second one behind it.
        """
        if not self._is_plausible(position):
            return False
        header = self.header(position)
        if len(header) < HEADER_SIZE or header[0] != Stream.STDIN:
            return True
        return any(header) and self._is_plausible(self.frame_end(position))

    def _is_plausible(self, position: int) -> bool:
        if not self.has(position, 1):
            return self.end == position
        header = self.header(position)
        return header_error(header, position, max_frame_size=self._max_frame_size, check_reserved=True) is None

    def resumes(self, position: int) -> bool:
        """Say whether enough headers follow one another from position, with not too many empty frames among them."""
        frames = 0
        for _ in range(EMPTY_FRAMES * self._min_frames):
            if frames == self._min_frames:
                return True
            if not self.has(position, 1):
                return self.end == position and frames > 0
            if not self.continues(position) or not self.has(position, HEADER_SIZE):
                return False
            end = self.frame_end(position)
            frames += end > position + HEADER_SIZE
            position = end
        return False

    def find(self, position: int) -> int:
        """Return the first offset from position on at which frames resume, or the end."""
        while self.has(position, HEADER_SIZE):
            self.forget(position)
            self.has(position, BLOCK_SIZE)
            end = self.end  # looking ahead from a candidate reads on
            for candidate in self._candidates(position, end):
                if self.resumes(candidate):
                    return candidate
            position = max(position + 1, end - HEADER_SIZE + 1)
        return self.end

    def find_inside(self, position: int, end: int) -> int | None:
        """Return the first offset inside a frame from which frames follow one another past its end, or None."""
        self.has(position, end + HEADER_SIZE - position)
        stop = min(end, self.end)
        dead: set[int] = set()  # where a run came by that did not get past the end: so each offset is tried once
        for candidate in self._candidates(position + 1, stop):
            run = candidate
            while run < stop and run not in dead and self.continues(run):
                dead.add(run)
                run = self.frame_end(run)
            if run >= stop and self.continues(run) and self.resumes(candidate):
                return candidate
        return None

    def _candidates(self, position: int, end: int) -> list[int]:
        """List where something like a header begins in a part of the window."""
        found = self._candidate.finditer(self._window, position - self._start, end + HEADER_SIZE - self._start)
        return [offset for match in found if (offset := self._start + match.start()) < end]


def _pieces(source: Source) -> Iterator[memoryview]:
    for block in source.blocks():
        for start in range(0, len(block), BLOCK_SIZE):
            yield block[start : start + BLOCK_SIZE]
