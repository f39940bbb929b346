"""The twins are one: names, signatures, documentation, and the texts of errors."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
from typing import Any

import pytest

from muxframe import _batches_py, _framing_py, _lines_py

pytest.importorskip("muxframe._framing_c", reason="the compiled core was not built")

#: Both twins of each core.
TWINS: list[tuple[Any, Any]] = [
    (twin, importlib.import_module(twin.__name__.removesuffix("_py") + "_c"))
    for twin in (_framing_py, _lines_py, _batches_py)
]
python, cython = TWINS[0]
NAMES = [(name, twins) for twins in TWINS for name in twins[0].__all__]
CLASSES = [(name, twins) for name, twins in NAMES if isinstance(getattr(twins[0], name), type)]
FUNCTIONS = [(name, twins) for name, twins in NAMES if not isinstance(getattr(twins[0], name), type)]


def each(pairs: list[tuple[str, tuple[Any, Any]]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(("name", "twins"), pairs, ids=[name for name, _ in pairs])


def members(kind: Any) -> dict[str, Any]:
    """Return the public members, those of bases included."""
    found = {name: value for base in reversed(kind.__mro__[:-1]) for name, value in vars(base).items()}
    return {name: value for name, value in found.items() if not name.startswith("_") or name.startswith("__arrow")}


def test_names() -> None:
    for ours, theirs in TWINS:
        assert ours.__all__ == theirs.__all__
    for name, (ours, theirs) in CLASSES:
        assert set(members(getattr(ours, name))) == set(members(getattr(theirs, name)))


@each(NAMES)
def test_documentation(name: str, twins: tuple[Any, Any]) -> None:
    assert inspect.getdoc(getattr(twins[0], name)) == inspect.getdoc(getattr(twins[1], name))
    assert inspect.getdoc(getattr(twins[0], name))


@each(CLASSES)
def test_documentation_of_members(name: str, twins: tuple[Any, Any]) -> None:
    ours, theirs = (members(getattr(twin, name)) for twin in twins)
    for member, value in ours.items():
        if callable(value) or isinstance(value, property):
            assert value.__doc__
            assert inspect.cleandoc(value.__doc__) == inspect.cleandoc(theirs[member].__doc__)


def parameters(function: Any) -> list[tuple[str, Any, Any]]:
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@each(FUNCTIONS)
def test_signatures_of_functions(name: str, twins: tuple[Any, Any]) -> None:
    assert parameters(getattr(twins[0], name)) == parameters(getattr(twins[1], name))


@each(CLASSES)
def test_signatures_of_classes(name: str, twins: tuple[Any, Any]) -> None:
    ours, theirs = (getattr(twin, name) for twin in twins)
    assert parameters(ours) == parameters(theirs)
    options = {name: default for name, kind, default in parameters(ours) if kind is inspect.Parameter.KEYWORD_ONLY}
    required = {"Frame": (1, b""), "FrameReader": (b"",), "Line": (1, None, b""), "LineReader": (b"",)}
    if name != "LineBatch":  # which only builders make
        theirs(*required.get(name, ()), **options)  # what is documented is what there is


@each(CLASSES)
def test_kinds_of_members(name: str, twins: tuple[Any, Any]) -> None:
    """A property is one in both, and cannot be written; a method can be called."""
    ours, theirs = (members(getattr(twin, name)) for twin in twins)
    for member, value in ours.items():
        assert callable(value) == callable(theirs[member])
        if not callable(value):
            assert inspect.isdatadescriptor(value) and inspect.isdatadescriptor(theirs[member])
            assert isinstance(value, property) and value.fset is None


@each(CLASSES)
def test_special_methods(name: str, twins: tuple[Any, Any]) -> None:
    """What the language does with an object it does with both."""
    ours, theirs = (getattr(twin, name) for twin in twins)
    own = {member for base in ours.__mro__[:-1] for member, value in vars(base).items() if inspect.isfunction(value)}
    unneeded = {"__init__", "__reduce__"}  # in C: objects have no copies unless they are told how
    for member in {member for member in own if member.startswith("__")} - unneeded:
        assert getattr(theirs, member, None) is not getattr(object, member, None), member


UNIQUE: dict[str, Any] = {
    "Demuxer": lambda core: core.Demuxer(),
    "FrameReader": lambda core: core.FrameReader(b""),
    "LineSplitter": lambda core: core.LineSplitter(),
    "LineReader": lambda core: core.LineReader(b""),
    "BatchBuilder": lambda core: core.BatchBuilder(),
    "LineBatch": lambda core: core.BatchBuilder(raw=True).feed(b"x\n" * 99_999)[0],
}


@each([(name, twins) for name, twins in CLASSES if name in UNIQUE])
@pytest.mark.parametrize("way", [copy.copy, copy.deepcopy, pickle.dumps])
def test_what_has_no_copy(name: str, twins: tuple[Any, Any], way: Any) -> None:
    for core in twins:
        with pytest.raises(TypeError, match=rf"cannot pickle '.*{name}' object"):
            way(UNIQUE[name](core))


@each(CLASSES)
def test_signatures_of_methods(name: str, twins: tuple[Any, Any]) -> None:
    for member in members(getattr(twins[0], name)):
        ours, theirs = (getattr(getattr(twin, name), member) for twin in twins)
        if callable(ours):
            assert parameters(ours) == parameters(theirs)


MISUSE: list[tuple[str, Any]] = [
    ("feed text", lambda core: core.Demuxer().feed("text")),
    ("feed nothing", lambda core: core.Demuxer().feed()),
    ("feed non-contiguous", lambda core: core.Demuxer().feed(memoryview(b"1234")[::2])),
    ("feed after the end", lambda core: [d := core.Demuxer(), d.feed_eof(), d.feed(b"")]),
    ("positional option", lambda core: core.Demuxer(5)),
    ("unknown option", lambda core: core.Demuxer(limit=5)),
    ("negative limit", lambda core: core.Demuxer(max_frame_size=-1)),
    ("limit of text", lambda core: core.FrameReader(b"", max_frame_size="5")),
    ("read-only output", lambda core: core.Demuxer().feed_into(b"", b"x", None)),
    ("output of no buffer", lambda core: core.demux_into(b"", None, 7)),
    ("non-contiguous output", lambda core: core.demux_into(b"", memoryview(bytearray(4))[::2], None)),
    ("truncated", lambda core: core.demux(b"", truncated="perhaps")),
    ("stream 4", lambda core: core.pack_frame(4, b"")),
    ("stream of text", lambda core: core.pack_frame("1", b"")),
    ("payload of text", lambda core: core.pack_frame(1, "x")),
    ("frame of stream 4", lambda core: core.Frame(4, b"")),
    ("frame of text", lambda core: core.Frame(1, "x")),
    ("immutable frame", lambda core: setattr(core.Frame(1, b""), "stream", 2)),
    ("no source", lambda core: core.FrameReader(7)),
    ("lying source", lambda core: next(core.FrameReader(lambda buffer: -1))),
    ("source of nothing", lambda core: next(core.FrameReader(lambda buffer: None))),
    ("buffer of nothing", lambda core: core.Demuxer().buffer_updated(1)),
    ("buffer_updated text", lambda core: core.Demuxer().buffer_updated("1")),
    ("stream that no C integer holds", lambda core: core.pack_frame(1 << 70, b"")),
    ("size that no C integer holds", lambda core: core.Demuxer().buffer_updated(-(1 << 70))),
]


@pytest.mark.parametrize(("name", "misuse"), MISUSE, ids=[name for name, _ in MISUSE])
def test_misuse(name: str, misuse: Any) -> None:
    errors = []
    for core in (python, cython):
        with pytest.raises((TypeError, ValueError, BufferError, AttributeError)) as caught:
            misuse(core)
        errors.append(caught.value)
    assert type(errors[0]) is type(errors[1])
    if name not in INTERPRETERS_OWN:
        assert str(errors[0]) == str(errors[1])


#: Errors of the argument parsing, which CPython and Cython word differently.
INTERPRETERS_OWN = {
    "feed nothing",
    "positional option",
    "unknown option",
    "stream of text",
    "immutable frame",
    "source of nothing",
    "buffer_updated text",
}


@pytest.mark.parametrize("twin", TWINS[1])
def test_a_line_takes_what_subclasses_hold(twin: Any) -> None:
    class Bytes(bytes):
        pass

    line = twin.Line(1, True, Bytes(b"x"), details=Bytes(b"a=b"))
    assert [type(value) for value in (line.timestamp, line.data, line.details)] == [int, bytes, bytes]
    assert line == twin.Line(1, 1, b"x", details=b"a=b")


@pytest.mark.parametrize("twin", TWINS[1])
def test_a_line_may_be_larger_than_any_memory(twin: Any) -> None:
    [line] = twin.LineReader(b"x", raw=True, max_line_size=1 << 70)
    assert line.data == b"x"


@pytest.mark.parametrize("twin", TWINS[2])
def test_a_source_that_is_no_text_is_refused_at_once(twin: Any) -> None:
    with pytest.raises(UnicodeEncodeError):
        twin.BatchBuilder(source="\ud800")
