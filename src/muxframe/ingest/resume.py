"""Where one is in a container's log, and how to get back there: no I/O, no clock.

The rules:

- A place in a log is, for each stream, the time of the last line and how many lines of that time there were. Streams
  have a place each, for engines stamp a line before they write it: across streams times are a little out of order.
- A log is asked for again from a time that is safely before all that can be missing: LAG before the newest line. What
  was delivered comes again then, and is dropped: in each stream up to and with the line of its place, which is found by
  its time, by counting and by its content. Nothing behind it is ever dropped.
- Where the clock has been set back, lines before the place may be newer than it: until it is found, what is no newer
  than the newest line that was delivered is dropped, too.
- A place that is gone (the engine has rotated the log away) is a gap: counted, and reading goes on behind it. Of lines
  of one time the engine may have rotated some away, so that counting fails: then the last that is like it is the place.
- Docker 20.10 sends lines again where it rotates a log under somebody who follows it. They have the nanosecond and the
  content of one of the WINDOW lines before: no clock that counts nanoseconds stamps two lines so.
- A line is delivered when its end was seen. What a connection's end cuts off is asked for again, unless the container
  has stopped: then there is no more to come.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, NamedTuple
from zlib import crc32

from ..errors import CheckpointError
from ..protocol import Stream

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .._lines_py import Line

__all__ = ["Checkpoint", "Place", "Repeats", "Replay"]

SECOND = 1_000_000_000  # nanoseconds

#: How much later than a line of one stream an older line of the other may appear in a log.
LAG = 10 * SECOND

#: Bytes of a stream's lines that are held, at most; LINE_SIZE is what a line has beside its own.
MAX_HELD = 4 * 1024 * 1024
LINE_SIZE = 128

#: Nanoseconds: what clocks count in that do not count single ones.
CLOCK_TICK = 100

#: Lines of a stream that are remembered, where an engine may send them again.
WINDOW = 1024

#: Parts of one line may be so far apart in time, where an engine's times have whole seconds.
PART_LAG = 2 * SECOND


class Place(NamedTuple):
    """The last line of a stream that was delivered.

    Attributes:
        timestamp: its time, in nanoseconds since 1970; lines without one have that of the line before.
        number: how many lines of that time came in a row, it included.
        digest: CRC-32 of its data.
        newest: the largest timestamp of this stream so far: later than its own only where the clock was set back.
    """

    timestamp: int
    number: int
    digest: int
    newest: int


def place_after(place: Place | None, lines: Sequence[Line]) -> Place:
    """Return the place behind some lines of one stream."""
    before = place or Place(0, 0, 0, 0)
    times = [line.timestamp for line in lines]
    known: list[int] = _filled(times, before.timestamp) if None in times else times  # type: ignore[assignment]
    last = known[-1]
    number = 0
    for time in reversed(known):
        if time != last:
            break
        number += 1
    else:
        if last == before.timestamp:
            number += before.number
    return Place(last, number, crc32(lines[-1].data), max(before.newest, max(known)))


def _filled(times: Sequence[int | None], before: int) -> list[int]:
    known = []
    for time in times:
        before = before if time is None else time
        known.append(before)
    return known


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """How far a container's log was delivered: small, immutable, and text if need be (`str`, `from_str`).

    Attributes:
        container: the container's id.
        since: where the log was begun, in nanoseconds since 1970; 0 is its beginning.
        stdout, stderr: the place in each stream; None where there was no line yet.

    >>> Checkpoint.from_str(str(Checkpoint("4bd2", since=7))) == Checkpoint("4bd2", since=7)
    True
    """

    container: str
    since: int = 0
    stdout: Place | None = None
    stderr: Place | None = None

    def __str__(self) -> str:
        return json.dumps([1, self.container, self.since, self.stdout, self.stderr], separators=(",", ":"))

    @classmethod
    def from_str(cls, text: str) -> Checkpoint:
        """Read what `str` has written.

        Raises:
            CheckpointError: it is something else.
        """
        try:
            version, container, since, *places = json.loads(text)
            if version != 1 or not isinstance(container, str) or not container or len(places) != 2:
                raise ValueError
            return cls(container, _natural(since), *(None if place is None else _place(place) for place in places))
        except (ValueError, TypeError, RecursionError):
            raise CheckpointError(f"not a checkpoint: {text[:100]!r}") from None

    def after(self, lines: Sequence[Line]) -> Checkpoint:
        """Return the checkpoint behind some lines that follow."""
        if not lines:
            return self
        stderr = [line for line in lines if line.stream is Stream.STDERR]
        stdout = [line for line in lines if line.stream is not Stream.STDERR] if stderr else lines
        return Checkpoint(
            self.container,
            self.since,
            place_after(self.stdout, stdout) if stdout else self.stdout,
            place_after(self.stderr, stderr) if stderr else self.stderr,
        )

    def begun(self, line: Line) -> Checkpoint:
        """Return the checkpoint of a log that was begun with this line."""
        return self if line.timestamp is None else replace(self, since=max(line.timestamp, 0))

    def resume_since(self, unfinished: Sequence[Line] = ()) -> int:
        """Return the time from which the log has to be asked for again, in nanoseconds since 1970.

        Args:
            unfinished: lines that have begun, and are still to be delivered.
        """
        times = [place.timestamp for place in (self.stdout, self.stderr) if place is not None]
        if not times:
            return self.since
        since = max(times) - LAG
        near = [time for time in times if time >= since - PART_LAG]  # it may lie between two parts of a line
        begun = [line.timestamp for line in unfinished if line.timestamp is not None]
        return max(min([since, *(time - SECOND for time in near + begun)]), self.since)


def _place(items: object) -> Place:
    if not isinstance(items, list):
        raise ValueError
    timestamp, number, digest, newest = items
    return Place(_integer(timestamp), _natural(number), _natural(digest), _integer(newest))


def _natural(number: object) -> int:
    if _integer(number) < 0:
        raise ValueError
    return _integer(number)


def _integer(number: object) -> int:
    if type(number) is not int or not -1 << 63 <= number < 1 << 63:
        raise ValueError
    return number


class Replay:
    """A log that is read from a time on: what of it is new.

    Args:
        checkpoint: what was delivered.
        since: the time that was asked for, in nanoseconds.
    """

    __slots__ = ("_stderr", "_stdout", "has_gap")

    def __init__(self, checkpoint: Checkpoint, since: int) -> None:
        self.has_gap: bool = False  #: lines are missing: a place was not there
        self._stdout = _search(checkpoint.stdout, since)
        self._stderr = _search(checkpoint.stderr, since)

    def new(self, lines: list[Line]) -> list[Line]:
        """Return the lines that were not delivered before, as far as that is known yet."""
        if self._stdout is None and self._stderr is None:
            return lines
        return [new for line in lines for new in self._behind_place(line)]

    def finish(self, unfinished: list[Line]) -> list[Line]:
        """Return what is new of the lines that the end has cut off, and before them what was held until then."""
        new = self.new(unfinished)
        for search in (self._stdout, self._stderr):
            if search is not None and search.held:
                self.has_gap |= not search.is_found
                new = search.held + new
        return new

    def _behind_place(self, line: Line) -> list[Line]:
        is_stderr = line.stream is Stream.STDERR
        search = self._stderr if is_stderr else self._stdout
        if search is None:
            return [line]
        behind = search.behind(line)
        if behind:
            self.has_gap |= not search.is_found
            if is_stderr:
                self._stderr = None
            else:
                self._stdout = None
        return behind


def _search(place: Place | None, since: int) -> _Search | None:
    return None if place is None or place.timestamp < since else _Search(place)


class _Search:
    """A stream's place is looked for among what comes.

    Where the log begins with lines of the place's time, the engine may have rotated some of them away, and counting
    does not lead to the place. So they are held until the next time comes: if the place has not been found by then, all
    behind the last that is like it are new, or all of them. Where there are too many, none is.

    Attributes:
        held: what is new, if the place is not found any more.
        is_found: the place was there.
    """

    __slots__ = ("_is_behind", "_is_whole", "_number", "_place", "_room", "_timestamp", "held", "is_found")

    def __init__(self, place: Place) -> None:
        self.held: list[Line] = []
        self._room = MAX_HELD
        self.is_found: bool = False
        self._place = place
        self._timestamp = 0
        self._number = 0  # of lines of this time in a row
        self._is_behind = False
        self._is_whole = place.newest > place.timestamp  # or older lines have come: counting leads to the place

    def behind(self, line: Line) -> list[Line]:
        """Take the next line; return what is known now to come after the place."""
        place = self._place
        timestamp = self._timestamp if line.timestamp is None else line.timestamp
        if self._is_behind or timestamp > place.newest:
            return [*self.held, line]
        if timestamp == place.timestamp:
            self._number = self._number + 1 if timestamp == self._timestamp else 1
            if crc32(line.data) == place.digest:
                self._is_behind = self._number >= place.number
                self.is_found = self._is_behind or not self._is_whole
                self._release()
            elif not self._is_whole:
                self._hold(line)
        elif timestamp < place.timestamp:
            self.is_found, self._is_whole = False, True
            self._release()
        self._timestamp = timestamp
        return []

    def _hold(self, line: Line) -> None:
        self.held.append(line)
        self._room -= len(line.data) + LINE_SIZE
        if self._room < 0:
            self._is_whole = True
            self._release()

    def _release(self) -> None:
        self.held.clear()
        self._room = MAX_HELD


class Repeats:
    """Lines that an engine sends again on the same connection."""

    def __init__(self) -> None:
        self._recent: dict[int, dict[int, int]] = {}  # of each stream: timestamps, and digests of data
        self._counts_nanoseconds = False

    def new(self, lines: list[Line]) -> list[Line]:
        """Return the lines that have not come before."""
        return [line for line in lines if not self._is_repeat(line)]

    def _is_repeat(self, line: Line) -> bool:
        timestamp = line.timestamp
        if timestamp is None or line.partial:
            return False
        self._counts_nanoseconds |= timestamp % CLOCK_TICK != 0
        recent = self._recent.setdefault(line.stream, {})
        digest = crc32(line.data)
        if self._counts_nanoseconds and recent.get(timestamp) == digest:
            return True
        recent[timestamp] = digest
        if len(recent) > WINDOW:
            del recent[next(iter(recent))]
        return False
