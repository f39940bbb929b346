"""Lines: both twins against the oracle, whole, byte by byte, at every two-way cut and at random ones."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import os
import pickle
import random
import threading
from pathlib import Path
from typing import Any

import line_oracle
import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import muxframe
from muxframe import DaemonError, FramingError, Stream, TruncatedStreamError
from muxframe import _lines_py as python

MODULES: list[Any] = [python]
try:
    MODULES.append(importlib.import_module("muxframe._lines_c"))
except ModuleNotFoundError:
    if os.environ.get("MUXFRAME_BACKEND") == "cython":
        raise

T1, T2 = b"2026-11-21T05:46:37.125648057Z ", b"2026-11-21T05:46:37.125648058Z "
N1 = 1_795_239_997_125_648_057
RECORDED = Path(__file__).parent / "logs"
LOGS = sorted(RECORDED.glob("*/*.json"))

out, err = functools.partial(oracle.pack, 1), functools.partial(oracle.pack, 2)


@pytest.fixture(params=MODULES, ids=lambda module: module.__name__.rpartition("_")[2])
def core(request: pytest.FixtureRequest) -> Any:
    """Either twin's module."""
    return request.param


def row(line: Any) -> line_oracle.Row:
    assert type(line.stream) is Stream and type(line.data) is bytes and type(line.partial) is bool
    return int(line.stream), line.timestamp, line.data, line.partial, line.details


def feed(core: Any, pieces: Any, **options: Any) -> tuple[list[line_oracle.Row], int, str, int]:
    """Feed pieces; return the lines, how many timestamps were invalid, how it ended, and the offset."""
    splitter = core.LineSplitter(**options)
    rows: list[line_oracle.Row] = []
    end = "clean"
    try:
        for piece in pieces:
            rows += map(row, splitter.feed(piece))
        rows += map(row, splitter.feed_eof())
    except (FramingError, DaemonError) as fault:
        rows += map(row, fault.lines)
        end = ENDS[type(fault).__name__]
        with pytest.raises(type(fault)) as again:
            splitter.feed(b"")
        assert str(again.value) == str(fault) and again.value.lines == []
        return rows, splitter.invalid_timestamps, end, fault.offset
    with pytest.raises(ValueError, match="feed after feed_eof"):
        splitter.feed(b"")
    return rows, splitter.invalid_timestamps, end, splitter.offset


ENDS = {
    "UnknownStreamError": "unknown",
    "ReservedBytesError": "reserved",
    "TruncatedStreamError": "truncated",
    "DaemonError": "systemerr",
}


def check(core: Any, wire: bytes, pieces: Any, **options: Any) -> None:
    expected = line_oracle.split(wire, **options)
    assert feed(core, pieces, **options) == (expected.lines, expected.invalid, expected.end, expected.offset)


def bytewise(wire: bytes) -> list[bytes]:
    return [wire[i : i + 1] for i in range(len(wire))]


def some_options(rng: random.Random) -> dict[str, Any]:
    return {
        "raw": rng.random() < 0.3,
        "timestamps": rng.random() < 0.6,
        "details": rng.random() < 0.4,
        "max_line_size": rng.choice((1, 2, 5, 20, 1000, 1 << 20)),
    }


def some_log(rng: random.Random, options: dict[str, Any]) -> bytes:
    return line_oracle.random_log(rng, **{name: options[name] for name in ("raw", "timestamps", "details")})


# --- against the oracle ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(20))
def test_random_logs(core: Any, seed: int) -> None:
    rng = random.Random(f"lines/{seed}")
    for _ in range(60):
        options = some_options(rng)
        wire = some_log(rng, options)
        check(core, wire, [wire], **options)
        if len(wire) < 2000:
            check(core, wire, bytewise(wire), **options)
        check(core, wire, oracle.cuts(wire, rng), **options)


@pytest.mark.parametrize("seed", range(6))
def test_every_two_way_cut(core: Any, seed: int) -> None:
    rng = random.Random(f"cut/{seed}")
    wire = b""
    while not 100 < len(wire) < 1000:
        options = some_options(rng)
        wire = some_log(rng, options)
    for cut in range(len(wire) + 1):
        check(core, wire, [wire[:cut], wire[cut:]], **options)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_any_payload(data: st.DataObject) -> None:
    options = {
        "raw": data.draw(st.booleans()),
        "timestamps": data.draw(st.booleans()),
        "details": data.draw(st.booleans()),
        "max_line_size": data.draw(st.integers(1, 40)),
    }
    piece = st.one_of(st.binary(max_size=50), st.sampled_from(line_oracle.TIMES + line_oracle.WORDS + [T1, b"k=v "]))
    payloads = data.draw(st.lists(st.tuples(st.sampled_from((0, 1, 2)), st.lists(piece).map(b"".join)), max_size=6))
    wire = b"".join(text if options["raw"] else oracle.pack(stream, text) for stream, text in payloads)
    cut = data.draw(st.integers(0, len(wire)))
    for core in MODULES:
        check(core, wire, [wire[:cut], wire[cut:]], **options)


@pytest.mark.parametrize("seed", range(10))
def test_flushes_do_not_change_what_the_lines_are(core: Any, seed: int) -> None:
    rng = random.Random(f"flush/{seed}")
    for _ in range(40):
        options = some_options(rng)
        wire = some_log(rng, options)
        splitter = core.LineSplitter(**options)
        rows: list[line_oracle.Row] = []
        try:
            for piece in oracle.cuts(wire, rng):
                rows += map(row, splitter.feed(piece))
                if rng.random() < 0.5:
                    flushed = [row(line) for line in splitter.flush()]
                    assert all(partial and data and not data.endswith(b"\r") for *_, data, partial, _ in flushed)
                    rows += flushed
            rows += map(row, splitter.feed_eof())
        except (FramingError, DaemonError) as fault:
            rows += map(row, fault.lines)
        assert whole_lines(rows) == whole_lines(line_oracle.split(wire, **options).lines)


def whole_lines(rows: list[line_oracle.Row]) -> dict[int, list[tuple[bytes, Any, Any]]]:
    """Join the pieces of each stream. (CRs at their ends do not count: a cut right behind one keeps it.)"""
    whole: dict[int, list[tuple[bytes, Any, Any]]] = {0: [], 1: [], 2: []}
    pieces = {0: b"", 1: b"", 2: b""}
    last: dict[int, tuple[Any, Any]] = {}
    for stream, timestamp, data, partial, details in rows:
        pieces[stream] += data
        last[stream] = timestamp, details
        if not partial:
            whole[stream].append((pieces[stream].rstrip(b"\r"), timestamp, details))
            pieces[stream] = b""
    for stream, rest in pieces.items():
        if rest:
            whole[stream].append((rest.rstrip(b"\r"), *last[stream]))
    return whole


# --- rules, one by one -----------------------------------------------------------------------------------------------


def texts(core: Any, wire: bytes, **options: Any) -> list[bytes]:
    return [data for _, _, data, _, _ in feed(core, [wire], **options)[0]]


def test_line_ends(core: Any) -> None:
    wire = out(b"a\nb\r\nc\r\r\n\n\r\n10%\r20%\nend\r")
    assert texts(core, wire) == [b"a", b"b", b"c", b"", b"", b"10%\r20%", b"end\r"]
    assert texts(core, out(b"a\r") + out(b"\nb")) == [b"a", b"b"]


def test_streams_are_not_mixed_and_lines_come_as_they_end(core: Any) -> None:
    wire = out(b"caf\xc3") + err(b"price \xe2") + out(b"\xa9") + err(b"\x82\xac\nx") + out(b"\ny")
    lines = core.LineSplitter().feed(wire)
    assert [(line.stream.name, line.text) for line in lines] == [("STDERR", "price €"), ("STDOUT", "café")]
    rows = feed(core, [wire])[0]
    assert [data for _, _, data, _, _ in rows[2:]] == [b"x", b"y"], "unfinished lines come in the order they began"


def test_parts_of_one_timestamp_are_joined(core: Any) -> None:
    wire = out(T1 + b"one ") + err(T1 + b"other ") + out(T1 + b"two ") + err(T2 + b"later\n") + out(T1 + b"three\n")
    assert [row(line)[:3] for line in core.LineSplitter(timestamps=True).feed(wire)] == [
        (2, N1, b"other "),
        (2, N1 + 1, b"later"),
        (1, N1, b"one two three"),
    ]


def test_an_unterminated_last_line_is_not_joined_with_the_first_one_after_a_restart(core: Any) -> None:
    assert texts(core, out(T1 + b"half") + out(T2 + b"again\n"), timestamps=True) == [b"half", b"again"]
    assert texts(core, out(b"half") + out(b"again\n")) == [b"halfagain"], "without timestamps nobody can tell"


@pytest.mark.parametrize(
    ("first", "second", "joined"),
    [
        (b"2026-11-21T04:36:06Z", b"2026-11-21T04:36:06Z", True),
        (b"2026-11-21T04:36:06Z", b"2026-11-21T04:36:07Z", True),
        (b"2026-11-21T04:36:59+00:00", b"2026-11-21T06:07:00+01:30", True),
        (b"2026-11-21T04:36:59+00:00", b"2026-11-21T06:07:00Z", False),
        (b"2026-11-21T04:36:59+00:00", b"2026-11-21T04:37:00Z", True),
        (b"2026-11-21T04:36:06Z", b"2026-11-21T04:36:08Z", False),
        (b"2026-11-21T04:36:06Z", b"2026-11-21T04:36:05Z", False),
        (b"2026-11-21T04:36:06.0Z", b"2026-11-21T04:36:07Z", False),
        (b"2026-11-21T04:36:06Z", b"2026-11-21T04:36:07.0Z", False),
        (b"2026-11-21T04:36:06.5Z", b"2026-11-21T04:36:06.50Z", True),
    ],
)
def test_whole_seconds_may_go_on_in_the_next_one(core: Any, first: bytes, second: bytes, joined: bool) -> None:
    lines = texts(core, out(first + b" a") + out(second + b" b\n"), timestamps=True)
    assert lines == ([b"ab"] if joined else [b"a", b"b"])


def test_a_line_that_goes_on_for_seconds_is_one(core: Any) -> None:
    parts = [out(b"2026-11-21T04:36:%02dZ part%d " % (i, i)) for i in range(50)]
    [line] = core.LineSplitter(timestamps=True).feed(b"".join(parts) + out(b"2026-11-21T04:36:50Z \n"))
    assert line.data == b"".join(b"part%d " % i for i in range(50))
    assert line.timestamp == line_oracle.nanoseconds(b"2026-11-21T04:36:00Z")


def test_a_part_that_is_never_continued_is_delivered(core: Any) -> None:
    assert texts(core, out(T1 + b"x" * 16384), timestamps=True) == [b"x" * 16384]
    assert texts(core, out(T1 + b"x" * 16384) + err(T1 + b"e\n"), timestamps=True) == [b"e", b"x" * 16384]


def test_timestamp_of_each_line_is_that_of_the_frame_it_begins_in(core: Any) -> None:
    rows = feed(core, [out(T1 + b"a\nb") + out(T1 + b"c\nd\n") + out(T2 + b"\n")], timestamps=True)[0]
    assert [(data, timestamp) for _, timestamp, data, _, _ in rows] == [
        (b"a", N1),
        (b"bc", N1),
        (b"d", N1),
        (b"", N1 + 1),
    ]


def test_invalid_timestamps_keep_the_line_and_are_counted(core: Any) -> None:
    splitter = core.LineSplitter(timestamps=True)
    lines = splitter.feed(out(b"no time\n") + out(T1 + b"ok\n") + out(b"2026-13-01T00:00:00Z x\n"))
    lines += splitter.feed(out(b"\n") + out(b"") + out(T1[:-1] + b"\n") + out(b"0001-01-01T00:00:00Z zero\n"))
    assert [(line.timestamp, line.data) for line in lines] == [
        (None, b"no time"),
        (N1, b"ok"),
        (None, b"2026-13-01T00:00:00Z x"),
        (None, b""),
        (None, T1[:-1]),
        (None, b"0001-01-01T00:00:00Z zero"),
    ]
    assert splitter.invalid_timestamps == 5


def test_parts_without_timestamps_are_not_joined_where_they_are_due(core: Any) -> None:
    wire = out(b"a") + out(b"b\n") + out(T1 + b"c") + out(b"d\n")
    assert texts(core, wire, timestamps=True) == [b"a", b"b", b"c", b"d"]


def test_a_clock_that_goes_backwards_and_equal_timestamps(core: Any) -> None:
    stamps = [T2, T1, T1, T1]
    rows = feed(core, [b"".join(out(stamp + b"x\n") for stamp in stamps) * 1000], timestamps=True)[0]
    assert [timestamp - N1 for _, timestamp, *_ in rows if timestamp] == [1, 0, 0, 0] * 1000


def test_details(core: Any) -> None:
    splitter = core.LineSplitter(timestamps=True, details=True)
    first = T1 + b"X=va+l,a=x+y%3D1%2C2%25,b=,c=%C3%A9%22%26%2B "
    lines = splitter.feed(out(first + b"one ") + out(first + b"line\n") + out(T1 + b" none\n") + out(T1 + b"word no\n"))
    assert [(line.data, line.attrs) for line in lines] == [
        (b"one line", {"X": "va l", "a": "x y=1,2%", "b": "", "c": 'é"&+'}),
        (b"none", {}),
        (b"word no", {}),
    ]
    assert [line.details for line in lines][1:] == [b"", None]
    assert texts(core, out(b"k=v line\n") + out(b" line\n"), details=True) == [b"line", b"line"]


def test_raw(core: Any) -> None:
    splitter = core.LineSplitter(raw=True)
    lines = splitter.feed(b"\x1b[1mbold\x1b[0m\r\nprompt> ")
    lines += splitter.flush()
    lines += splitter.feed(b"ls\r\n\x02\x00\x00")
    lines += splitter.feed_eof()
    assert [(line.stream, line.data, line.partial) for line in lines] == [
        (Stream.STDOUT, b"\x1b[1mbold\x1b[0m", False),
        (Stream.STDOUT, b"prompt> ", True),
        (Stream.STDOUT, b"ls", False),
        (Stream.STDOUT, b"\x02\x00\x00", False),
    ]
    rows = feed(core, [T1 + b"a\r\r\n" + T2 + b"b\rc\r\n" + T2 + b"half"], raw=True, timestamps=True)[0]
    assert [(data, timestamp - N1) for _, timestamp, data, _, _ in rows if timestamp] == [
        (b"a", 0),
        (b"b\rc", 1),
        (b"half", 1),
    ]


def test_parts_of_a_raw_line_are_known_by_size_and_timestamp(core: Any) -> None:
    part, half = b"p" * 16384, b"2026-11-21T05:46:37Z "
    for wire, lines in (
        (T1 + part + T1 + part + T1 + b"end\r\n" + T2 + b"next", [part + part + b"end", b"next"]),
        (T1 + part + b"\r\n" + T1 + b"next", [part, b"next"]),
        (T1 + part + T2 + b"end\n", [part + T2 + b"end"]),
        (T1 + part[1:] + T1 + b"end\n", [part[1:] + T1 + b"end"]),
        (half + part + half + b"end\n", [part + half + b"end"]),
        (T1 + part, [part]),
        (T1 + part + T1[:9], [part + T1[:9]]),
        (T1 + part + T1, [part]),
    ):
        for pieces in ([wire], bytewise(wire)):
            assert [row[2] for row in feed(core, pieces, raw=True, timestamps=True)[0]] == lines


def test_cuts_at_max_line_size_are_marked(core: Any) -> None:
    def pieces(text: bytes, size: int) -> list[tuple[bytes, bool]]:
        return [(data, partial) for _, _, data, partial, _ in feed(core, [out(text)], max_line_size=size)[0]]

    assert pieces(b"12345\n", 5) == [(b"12345", False)]
    assert pieces(b"123456\n", 5) == [(b"12345", True), (b"6", False)]
    assert pieces(b"12345\r\n", 5) == [(b"12345", True), (b"", False)]
    assert pieces(b"1234567890ab", 5) == [(b"12345", True), (b"67890", True), (b"ab", False)]
    assert pieces(b"x" * 1000, 1)[-2:] == [(b"x", True), (b"x", False)]


def test_cut_pieces_keep_timestamp_and_details(core: Any) -> None:
    wire = out(T1 + b"k=v 123") + out(T1 + b"k=v 456\n")
    rows = feed(core, [wire], timestamps=True, details=True, max_line_size=4)[0]
    assert rows == [(1, N1, b"1234", True, b"k=v"), (1, N1, b"56", False, b"k=v")]


def test_the_rest_of_a_flushed_line_follows_be_it_empty(core: Any) -> None:
    splitter = core.LineSplitter(timestamps=True)
    assert [line.data for line in splitter.feed(out(T1 + b"a\r")) + splitter.flush() + splitter.flush()] == [b"a"]
    assert [row(line)[2:4] for line in splitter.feed(out(T1 + b"\n"))] == [(b"", False)], "the CR was before LF"
    splitter.feed(out(T1 + b"b"))
    splitter.flush()
    assert [row(line)[2:4] for line in splitter.feed(out(T2 + b"c"))] == [(b"", False)], "another line begins"
    splitter.flush()
    assert [row(line)[2:4] for line in splitter.feed_eof()] == [(b"", False)]


@pytest.mark.parametrize("size", [4, 5, 6, 7, 9])
def test_no_cut_breaks_a_character(core: Any, size: int) -> None:
    text = "aé€🙂" * 20 + "🙂🙂€é"
    data = text.encode()
    for pieces in ([out(data + b"\n")], [out(data[i : i + 1]) for i in range(len(data))]):
        splitter = core.LineSplitter(max_line_size=size)
        lines = [line for piece in pieces for line in splitter.feed(piece)] + splitter.feed_eof()
        assert "".join(line.text for line in lines) == text
        assert all(size - 3 <= len(line.data) <= size for line in lines[:-1])
        splitter = core.LineSplitter()
        lines = [line for piece in pieces for line in splitter.feed(piece) + splitter.flush()] + splitter.feed_eof()
        assert "".join(line.text for line in lines) == text


@pytest.mark.parametrize(
    ("data", "cut"),
    [
        (b"12\xf0\x9f\x99\x82", b"12\xf0\x9f\x99\x82"),  # whole
        (b"123\xf0\x9f\x99", b"123"),
        (b"1234\xe2\x82", b"1234"),
        (b"12345\xc3", b"12345"),
        (b"1234\xc3\xa9", b"1234\xc3\xa9"),
        (b"12345\xa9", b"12345\xa9"),  # none of these is UTF-8
        (b"12\x99\x99\x99\x99", b"12\x99\x99\x99\x99"),
        (b"12345\xc1", b"12345\xc1"),
        (b"12345\xf5", b"12345\xf5"),
        (b"123\xe2\x82\x82", b"123\xe2\x82\x82"),
        (b"12345\r", b"12345\r"),
    ],
)
def test_where_a_line_is_cut(core: Any, data: bytes, cut: bytes) -> None:
    splitter = core.LineSplitter(max_line_size=6)
    [first] = splitter.feed(out(data + b"x"))
    assert (first.data, first.partial) == (cut, True)
    assert [line.data for line in splitter.feed_eof()] == [data[len(cut) :] + b"x"]


def test_where_there_is_no_room_for_a_character_it_is_broken(core: Any) -> None:
    for size in (1, 2, 3):
        splitter = core.LineSplitter(max_line_size=size)
        assert b"".join(line.data for line in splitter.feed(out("🙂🙂\n".encode()))) == "🙂🙂".encode()


def test_flush_keeps_a_character_that_has_begun_but_no_cr_before_it(core: Any) -> None:
    splitter = core.LineSplitter()
    assert splitter.feed(out(b"a\r\xe2\x82")) == []
    assert [line.data for line in splitter.flush()] == [b"a\r"]
    assert splitter.flush() == []
    assert [line.data for line in splitter.feed(out(b"\xac\n"))] == ["€".encode()]


def test_a_reader_flushes_after_a_timeout_what_has_come(core: Any) -> None:
    pieces: list[Any] = [out(b"one\ntwo\nlog"), TimeoutError, out(b"in: "), TimeoutError, out(b"anne\r\n"), b""]

    def readinto(buffer: memoryview) -> int:
        piece = pieces.pop(0)
        if piece is TimeoutError:
            raise TimeoutError
        buffer[: len(piece)] = piece
        return len(piece)

    reader = core.LineReader(readinto)
    assert reader.flush() == []
    assert next(reader).data == b"one"
    assert [(line.data, line.partial) for line in reader.flush()] == [(b"two", False), (b"log", True)]
    assert reader.flush() == []
    for _ in range(2):
        with pytest.raises(TimeoutError):
            next(reader)
    assert [(line.data, line.partial) for line in reader.flush()] == [(b"in: ", True)]
    assert [(line.data, line.partial) for line in reader] == [(b"anne", False)]
    assert reader.flush() == []


def test_a_reader_flushes_lines_before_a_fault_and_then_raises_it(core: Any) -> None:
    reader = core.LineReader(out(b"one\ntwo\nthr") + b"\x09" * 8)
    assert next(reader).data == b"one"
    assert [(line.data, line.partial) for line in reader.flush()] == [(b"two", False), (b"thr", True)]
    assert reader.flush() == []
    with pytest.raises(muxframe.UnknownStreamError):
        next(reader)
    assert reader.flush() == []


def test_flush_hands_out_in_the_order_of_beginning_and_leaves_prefixes_alone(core: Any) -> None:
    splitter = core.LineSplitter(timestamps=True)
    splitter.feed(err(T1 + b"first") + out(T1 + b"second") + out(T1)[:20])
    assert [line.data for line in splitter.flush()] == [b"first", b"second"]
    assert splitter.flush() == []
    assert splitter.feed(out(T1)[20:] + out(T1 + b"!\n"))[0].data == b"!"


# --- faults ----------------------------------------------------------------------------------------------------------


def test_lines_come_before_the_fault_unfinished_ones_included(core: Any) -> None:
    splitter = core.LineSplitter()
    with pytest.raises(FramingError) as caught:
        splitter.feed(err(b"half of an error") + out(b"one\ntwo") + b"\x07")
    assert [row(line)[2:4] for line in caught.value.lines] == [
        (b"one", False),
        (b"half of an error", True),
        (b"two", True),
    ]
    assert caught.value.chunks == []


def test_daemon_error(core: Any) -> None:
    with pytest.raises(DaemonError, match="Error grabbing logs") as caught:
        core.LineSplitter().feed(out(b"a\nb") + oracle.pack(3, b"Error grabbing logs: gone"))
    assert [line.data for line in caught.value.lines] == [b"a", b"b"]


@pytest.mark.parametrize("cut", [1, 8, 20, 39, 42])
def test_truncated(core: Any, cut: int) -> None:
    wire = out(T1 + b"abc\n")
    splitter = core.LineSplitter(timestamps=True)
    assert splitter.feed(wire[:cut]) == []
    with pytest.raises(TruncatedStreamError) as caught:
        splitter.feed_eof()
    assert [line.data for line in caught.value.lines] == {1: [], 8: [], 20: [T1[:12]], 39: [], 42: [b"abc"]}[cut]
    assert all(line.partial for line in caught.value.lines)


def test_faults_pickle_with_their_lines(core: Any) -> None:
    with pytest.raises(FramingError) as caught:
        core.LineSplitter().feed(out(b"one\n") + b"\x09")
    assert pickle.loads(pickle.dumps(caught.value)).lines == caught.value.lines != []


# --- timestamps ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        *line_oracle.TIMES,
        b"1970-01-01T00:00:00Z",
        b"1969-12-31T23:59:59.999999999Z",
        b"2024-02-29T12:00:00.1Z",
        b"2100-02-29T12:00:00Z",
        b"2000-02-29T12:00:00Z",
        b"1900-02-29T12:00:00Z",
        b"9999-12-31T23:59:59Z",
        b"0000-01-01T00:00:00Z",
        b"2026-11-21T24:00:00Z",
        b"2026-11-21T23:60:00Z",
        b"2026-11-21T23:59:61Z",
        b"2026-11-31T00:00:00Z",
        b"2026-00-10T00:00:00Z",
        b"2026-11-00T00:00:00Z",
        b"2026-11-21t00:00:00Z",
        b"2026-11-21T00:00:00z",
        b"2026-11-21 00:00:00Z",
        b"2026-11-21T00:00:00",
        b"2026-11-21T00:00:00.Z",
        b"2026-11-21T00:00:00,5Z",
        b"2026-11-21T00:00:00.12345678Z",
        b"2026-11-21T00:00:00.1234567890Z",
        b"2026-11-21T00:00:00.12345678xZ",
        b"2026-11-21T00:00:00.1234567/9Z",
        b"2026-11-21T00:00:00.123456789+05:30",
        b"2026-11-21T00:00:00-23:59",
        b"2026-11-21T00:00:00+24:00",
        b"2026-11-21T00:00:00+00:60",
        b"2026-11-21T00:00:00+0530",
        b"2026-11-21T00:00:00.5" + b"0" * 42 + b"Z",
        b"2026-11-21T00:00:00.5" + b"0" * 43 + b"Z",
        b"+026-11-21T00:00:00Z",
        "2026-11-2\N{ARABIC-INDIC DIGIT ONE}T00:00:00Z".encode(),
    ],
)
def test_parse_timestamp(core: Any, text: bytes) -> None:
    assert core.parse_timestamp(text) == line_oracle.nanoseconds(text)
    assert core.parse_timestamp(bytearray(text)) == line_oracle.nanoseconds(text)


def test_parse_any_day(core: Any) -> None:
    rng = random.Random("days")
    for _ in range(5000):
        text = b"%04d-%02d-%02dT%02d:%02d:%02d" % (
            rng.randint(1, 9999) if rng.random() < 0.3 else rng.randint(1670, 2270),
            rng.randint(1, 12),
            rng.randint(1, 31),
            rng.randint(0, 23),
            rng.randint(0, 59),
            rng.randint(0, 60),
        )
        text += rng.choice((b"", b".%d" % rng.randrange(10**12), b".%09d" % rng.randrange(10**9)))
        text += rng.choice((b"Z", b"Z", b"%c%02d:%02d" % (rng.choice(b"+-"), rng.randint(0, 23), rng.randint(0, 59))))
        assert core.parse_timestamp(text) == line_oracle.nanoseconds(text), text


def test_parse_timestamp_changed_anywhere(core: Any) -> None:
    for i in range(len(T1) - 1):
        for byte in b"0:9/-+.ZT \x00\xff":
            text = T1[:i] + bytes([byte]) + T1[i + 1 : -1]
            assert core.parse_timestamp(text) == line_oracle.nanoseconds(text), text


# --- memory, arguments, threads --------------------------------------------------------------------------------------


def test_memory_is_bounded_by_max_line_size(core: Any) -> None:
    import tracemalloc

    splitter = core.LineSplitter(max_line_size=100_000)
    header = b"\x01\0\0\0\xff\xff\xff\xff"
    block = b"x" * 65536
    splitter.feed(header)
    tracemalloc.start()
    sizes = [len(line.data) for _ in range(200) for line in splitter.feed(block)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert set(sizes) == {100_000} and len(sizes) == 200 * 65536 // 100_000
    assert peak < 1_500_000


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read from /proc")
def test_idle_splitters_are_small(core: Any) -> None:
    def resident() -> int:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    wire = out(b"x" * 99 + b"\n") * 600
    splitters = [core.LineSplitter() for _ in range(500)]
    splitters[0].feed(wire)
    before = resident()
    for splitter in splitters:
        splitter.feed(wire)
    assert resident() - before < 500 * 8192


@pytest.mark.parametrize("size", [0, -1])
def test_no_cap(core: Any, size: int) -> None:
    with pytest.raises(ValueError, match="max_line_size must be positive"):
        core.LineSplitter(max_line_size=size)


def test_misuse(core: Any) -> None:
    for wrong in ("5", None, 1.5):
        with pytest.raises(TypeError, match="max_line_size must be an int"):
            core.LineSplitter(max_line_size=wrong)
    with pytest.raises(TypeError, match="max_frame_size"):
        core.LineSplitter(max_frame_size="1")
    with pytest.raises(TypeError, match="data must be a bytes-like object, not str"):
        core.LineSplitter().feed("text")
    with pytest.raises(BufferError, match="not C-contiguous"):
        core.LineSplitter().feed(memoryview(b"1234")[::2])
    with pytest.raises(ValueError, match="truncated must be"):
        core.LineReader(b"", truncated="perhaps")
    with pytest.raises(ValueError, match="source returned -1 bytes"):
        next(core.LineReader(lambda buffer: -1))


def test_uninitialised_objects_are_harmless(core: Any) -> None:
    errors = (TypeError, AttributeError, StopIteration)
    for kind in (core.LineSplitter, core.LineReader, core.Line):
        bare = kind.__new__(kind)
        for use in (lambda x: x.feed(b""), lambda x: x.feed_eof(), lambda x: x.flush(), next, repr, hash, list):
            with contextlib.suppress(*errors):
                use(bare)
        for name in ("offset", "invalid_timestamps", "text", "attrs", "stream", "timestamp", "data"):
            with contextlib.suppress(*errors):
                getattr(bare, name)


def test_nothing_is_initialised_twice(core: Any) -> None:
    if core is python:
        pytest.skip("in Python nothing is at stake")
    for kind, arguments in ((core.LineSplitter, ()), (core.LineReader, (b"",)), (core.Line, (1, None, b""))):
        made = kind(*arguments)
        with pytest.raises(TypeError, match="immutable|initialised already"):
            made.__init__(*arguments)


def test_line_objects(core: Any) -> None:
    line = core.Line(1, 5, b"caf\xc3\xa9\xff", partial=True, details=b"a=b")
    assert repr(line) == r"Line(<Stream.STDOUT: 1>, 5, b'caf\xc3\xa9\xff', partial=True, details=b'a=b')"
    assert (line.text, line.attrs, tuple(line)) == ("café\N{REPLACEMENT CHARACTER}", {"a": "b"}, (1, 5, line.data))
    same = pickle.loads(pickle.dumps(line))
    assert same == line and hash(same) == hash(line) and same is not line
    for other in (
        core.Line(2, 5, line.data, partial=True, details=b"a=b"),
        core.Line(1, None, line.data, partial=True, details=b"a=b"),
        core.Line(1, 5, b"", partial=True, details=b"a=b"),
        core.Line(1, 5, line.data, details=b"a=b"),
        core.Line(1, 5, line.data, partial=True),
        "line",
    ):
        assert line != other
    with pytest.raises(AttributeError):
        line.data = b"x"
    for arguments in ((4, None, b""), (1, 1 << 63, b"")):
        with pytest.raises(ValueError, match=r"Stream|64 bits"):
            core.Line(*arguments)
    for wrong in ((1, "5", b""), (1, None, "x"), (1, None, bytearray())):
        with pytest.raises(TypeError, match="must be"):
            core.Line(*wrong)


def test_one_splitter_shared_by_threads(core: Any) -> None:
    splitter = core.LineSplitter()
    wire = out(b"".join(b"%d\n" % i for i in range(100)))
    counts: list[int] = []

    def work() -> None:
        counts.append(sum(len(splitter.feed(wire)) for _ in range(50)))

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert counts == [5000] * 4


def test_one_reader_shared_by_threads(core: Any) -> None:
    wire = b"".join(out(b"%d\n" % i) for i in range(50_000))
    reader = core.LineReader(wire)
    seen: list[list[int]] = []

    def work() -> None:
        seen.append([int(line.data) for line in reader])

    threads = [threading.Thread(target=work, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(number for numbers in seen for number in numbers) == list(range(50_000))


def test_reentrant_reading_is_refused(core: Any) -> None:
    def readinto(buffer: memoryview) -> int:
        next(reader)
        return 0

    reader = core.LineReader(readinto)
    with pytest.raises(RuntimeError, match="LineReader is in use: re-entrant call"):
        next(reader)


# --- the public function ---------------------------------------------------------------------------------------------


def test_sources(tmp_path: Path) -> None:
    wire = out(b"one\ntw") + err(b"x\n") + out(b"o")
    path = tmp_path / "stream"
    path.write_bytes(wire)
    for source in (wire, bytearray(wire), path, io.BytesIO(wire), iter(bytewise(wire))):
        assert [line.data for line in muxframe.lines(source)] == [b"one", b"x", b"two"]


def test_iteration_goes_on_after_a_timeout() -> None:
    wire = out(T1 + b"one\n") + out(T1 + b"two\n")
    pieces: list[Any] = [wire[:50], TimeoutError("not yet"), wire[50:], b""]

    class Slow(io.RawIOBase):
        def readinto(self, buffer: Any) -> int:
            piece = pieces.pop(0)
            if isinstance(piece, Exception):
                raise piece
            buffer[: len(piece)] = piece
            return len(piece)

    reader = muxframe.lines(Slow(), timestamps=True)
    assert next(reader).data == b"one"
    with pytest.raises(TimeoutError):
        next(reader)
    assert [line.data for line in reader] == [b"two"]


def test_truncated_sources() -> None:
    wire = out(b"one\n") + out(b"two\nthree")[:-2]
    reader = muxframe.lines(wire)
    assert [next(reader).data for _ in range(3)] == [b"one", b"two", b"thr"]
    for _ in range(2):
        with pytest.raises(TruncatedStreamError):
            next(reader)
    lines = list(muxframe.lines(wire, truncated="ignore"))
    assert [(line.data, line.partial) for line in lines] == [(b"one", False), (b"two", False), (b"thr", True)]


def test_invalid_timestamps_of_a_reader() -> None:
    reader = muxframe.lines(out(b"x\n") * 3, timestamps=True)
    assert len(list(reader)) == 3 == reader.invalid_timestamps


# --- what engines sent -----------------------------------------------------------------------------------------------


def check_log(core: Any, about: dict[str, Any], wire: bytes) -> None:
    """Compare the lines in a log with those that the container wrote."""
    options = about["options"]
    for pieces in ([wire], bytewise(wire), oracle.cuts(wire, random.Random(0))):
        rows, invalid, end, _ = feed(core, pieces, **options)
        assert (invalid, end) == (0, "clean")
        for stream in (1, 2):
            lines = [data.decode() for number, _, data, _, _ in rows if number == stream]
            assert lines == [expand(line) for line in about["lines"][str(stream)]]
        assert not any(partial for *_, partial, _ in rows)
        if options["timestamps"]:
            assert all(timestamp is not None for _, timestamp, *_ in rows)
        parsed = [core.Line(*fields[:3], details=fields[4]).attrs for fields in rows]
        assert all(attrs == about.get("attrs", {}) for attrs in parsed)


@pytest.mark.parametrize("path", LOGS, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_recorded_logs(core: Any, path: Path) -> None:
    check_log(core, json.loads(path.read_text()), path.with_suffix(".bin").read_bytes())


def expand(line: Any) -> str:
    return line if isinstance(line, str) else line[0] * line[1]


def test_there_are_recorded_logs() -> None:
    assert len(LOGS) >= 12


STREAMS = Path(__file__).parent.parent / "examples" / "streams"


@pytest.mark.parametrize("directory", sorted(STREAMS.glob("*/long-line-timestamps")), ids=lambda path: path.parent.name)
def test_captured_long_line(core: Any, directory: Path) -> None:
    wire = (directory / "stream.bin").read_bytes()
    rows = feed(core, [wire], timestamps=True)[0]
    written = (directory / "lines.txt").read_bytes()
    assert b"".join(data + b"\n" for stream, _, data, _, _ in rows if stream == 1) == written
