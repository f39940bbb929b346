"""What callers may say, in the form in which engines want it."""

from __future__ import annotations

import re
import shlex
import time
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Union

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    #: Seconds since the epoch, datetime (naive: local time), timedelta (before now), or text: RFC 3339 with any part of
    #: the time left out, seconds since the epoch, or a duration as Docker writes it ("10m", "1h30m").
    Moment = Union[int, float, str, datetime, timedelta]

__all__ = ["environment", "moment", "moment_at", "nanoseconds", "quoted_name", "tail_of", "words_of"]

_UNITS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION_PART = re.compile(r"(\d+(?:\.\d*)?|\.\d+)(ns|us|µs|ms|s|m|h)")
_NUMBER = re.compile(r"(\d+)(?:\.(\d{1,9})\d*)?")
_RFC3339 = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[Tt ](\d\d)(?::(\d\d))?(?::(\d\d)(?:[.,](\d+))?)?)?(Z|z|[+-]\d\d:\d\d)?"
)
_NAME = re.compile(r"[^/\x00-\x20\x7f\ud800-\udfff]+")


def moment(value: Moment, *, now: int | None = None) -> str:
    """Return a moment as engines take it: "SECONDS.NANOSECONDS" since the epoch.

    Args:
        value: see `Moment`.
        now: nanoseconds since the epoch, for tests.

    Raises:
        TypeError, ValueError: it is none.

    >>> moment("2026-11-21T04:36:06.532584213Z")
    '1795235766.532584213'
    """
    return moment_at(nanoseconds(value, now=now))


def moment_at(since_epoch: int) -> str:
    """Return a number of nanoseconds since the epoch as engines take it."""
    return f"{since_epoch // 10**9}.{since_epoch % 10**9:09d}"


def nanoseconds(value: Moment, *, now: int | None = None) -> int:
    """Return a moment in nanoseconds since the epoch: as `moment`."""
    try:
        since_epoch = _in_nanoseconds(value, time.time_ns() if now is None else now)
    except OverflowError:
        raise ValueError(f"out of range: {value!r}") from None
    if since_epoch < 0:
        raise ValueError(f"before 1970: {value!r}")
    return since_epoch


def _in_nanoseconds(value: Moment, now: int) -> int:
    if isinstance(value, bool):
        raise TypeError("a moment cannot be a bool")
    if isinstance(value, timedelta):
        return now - _nanoseconds(value)
    if isinstance(value, datetime):
        return _since_epoch(value)
    if isinstance(value, int):
        return value * 10**9
    if isinstance(value, float):
        return _nanoseconds(timedelta(seconds=value))
    if isinstance(value, str):
        return _parse(value.strip(), now)
    raise TypeError(f"not a moment: {type(value).__name__}")


def _parse(text: str, now: int) -> int:
    if number := _NUMBER.fullmatch(text):
        return int(number[1]) * 10**9 + int((number[2] or "").ljust(9, "0"))
    parts = _DURATION_PART.findall(text)
    if parts and "".join(map("".join, parts)) == text:
        return now - sum(round(float(amount) * _UNITS[unit]) for amount, unit in parts)
    date = _RFC3339.fullmatch(text)
    if date is None:
        raise ValueError(f"not a moment: {text!r}; give seconds, RFC 3339 or a duration like 10m")
    day, hour, minute, second, fraction, zone = date.groups()
    whole = f"{day}T{hour or '00'}:{minute or '00'}:{second or '00'}{(zone or '').replace('z', 'Z')}"
    try:
        return _since_epoch(datetime.fromisoformat(whole)) + int((fraction or "")[:9].ljust(9, "0"))
    except ValueError as error:
        raise ValueError(f"not a moment: {text!r}: {error}") from None


def _since_epoch(value: datetime) -> int:
    epoch = datetime.fromisoformat("1970-01-01T00:00:00Z")
    return _nanoseconds(value.astimezone(epoch.tzinfo) - epoch)


def _nanoseconds(value: timedelta) -> int:
    return (value.days * 86400 + value.seconds) * 10**9 + value.microseconds * 1000


def tail_of(value: int | str) -> str:
    """Return how many lines of the end: a number, or "all".

    Raises:
        ValueError: it is neither; some engines take nonsense for "all".
    """
    text = str(value)
    if text != "all" and not (text.isascii() and text.isdigit()) or isinstance(value, bool):
        raise ValueError(f'tail must be a number of lines or "all", not {value!r}')
    return text


def words_of(command: str | Sequence[str]) -> list[str]:
    """Return the words of a command; one string is split as a shell would.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(command, (bytes, bytearray)):
        raise TypeError("a command is a str, or a sequence of them")
    words = shlex.split(command) if isinstance(command, str) else [str(word) for word in command]
    if not words:
        raise ValueError("an empty command")
    return words


def environment(value: Mapping[str, str] | Iterable[str] | None) -> list[str]:
    """Return environment variables as engines take them: ["NAME=value"].

    Raises:
        TypeError: it is one string, where a list was probably meant.
    """
    if value is None:
        return []
    if isinstance(value, str):
        raise TypeError("env must be a mapping or a list of NAME=value, not one string")
    pairs: Any = getattr(value, "items", None)
    return [f"{name}={text}" for name, text in pairs()] if pairs is not None else list(value)


def quoted_name(name: str) -> str:
    """Quote a name or id so that it is one segment of a path, whatever it holds.

    Raises:
        TypeError, ValueError: it can be no name: empty, "." or "..", or with a slash, blank, control character or
            surrogate in it.
    """
    from urllib.parse import quote

    if not isinstance(name, str):
        raise TypeError(f"a name or id must be a str, not {type(name).__name__}")
    if name in (".", "..") or not _NAME.fullmatch(name):
        raise ValueError(f"not a name or id: {name!r}")
    return quote(name, safe="")
