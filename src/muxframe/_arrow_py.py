"""Batches behind the Arrow C data interface, by ctypes: what the Python twin exports them with.

Structures are filled in and handed over in capsules. What they point to is kept alive by a number in their private_data
until they are released, which any thread may do: ctypes takes the GIL for it. It may also be done while an exception is
on its way up through the reader's C code. No callback in Python can let that pass: it is printed, as what __del__
raises is, and the reader raises SystemError in its place. (The compiled twin lets it pass.)

Source: Arrow C data interface, https://arrow.apache.org/docs/format/CDataInterface.html.
"""

from __future__ import annotations

import ctypes
from array import array
from itertools import accumulate, pairwise
from struct import Struct
from typing import TYPE_CHECKING, Any

from ._batches_py import bitmap

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ._batches_py import LineBatch, Shape

_LINE_FORMATS = {"large_binary": "Z", "large_utf8": "U", "binary_view": "vz"}
_INLINE = 12  # bytes of a line that fit into its view


class _Schema(ctypes.Structure):
    """struct ArrowSchema."""


class _Array(ctypes.Structure):
    """struct ArrowArray."""


class _Stream(ctypes.Structure):
    """struct ArrowArrayStream."""


_Schema._fields_ = [
    ("format", ctypes.c_char_p),
    ("name", ctypes.c_char_p),
    ("metadata", ctypes.c_void_p),
    ("flags", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("children", ctypes.POINTER(ctypes.POINTER(_Schema))),
    ("dictionary", ctypes.POINTER(_Schema)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.POINTER(_Array)),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]
_Stream._fields_ = [
    ("get_schema", ctypes.c_void_p),
    ("get_next", ctypes.c_void_p),
    ("get_last_error", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_Release = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
_NULLABLE = 2
_EIO = 5
_alive: dict[int, Any] = {}  # what exported structures point to, by the number in their private_data


def _keep(*owned: object) -> int:
    """Keep objects alive until they are forgotten; return a number for them."""
    _alive[id(owned)] = owned
    return id(owned)


def _release(node: Any) -> None:
    """Release an array or a schema with what was not moved away from it, as its release callback must."""
    parts = [node.children[i] for i in range(node.n_children)] + ([node.dictionary] if node.dictionary else [])
    for part in parts:
        if part.contents.release:
            _Release(part.contents.release)(ctypes.addressof(part.contents))
    node.release = None
    del _alive[node.private_data]


_raise_pending = ctypes.PYFUNCTYPE(None)(("Py_IsInitialized", ctypes.pythonapi))


def _whatever_happens(work: Callable[[int], None]) -> Callable[[int], None]:
    """Let a callback do its work while an exception is pending, which would fail its first call."""

    def callback(address: int) -> None:
        pending: BaseException | None = None
        try:
            _raise_pending()  # ctypes does, behind any function of Python's
        except BaseException as error:
            pending = error
        work(address)
        if pending is not None:
            raise pending

    return callback


_release_schema = _Release(_whatever_happens(lambda address: _release(_Schema.from_address(address))))
_release_array = _Release(_whatever_happens(lambda address: _release(_Array.from_address(address))))


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _link(node: Any, children: list[Any], dictionary: Any, release: Any, *owned: object) -> Any:
    """Put parts into an array or a schema, and what they and it point to into its keeping: the node itself may move."""
    kind = type(node)
    pointers = (ctypes.POINTER(kind) * max(1, len(children)))(*map(ctypes.pointer, children))
    node.n_children = len(children)
    node.children = pointers
    if dictionary is not None:
        node.dictionary = ctypes.pointer(dictionary)
    node.release = _address(release)
    node.private_data = _keep(pointers, children, dictionary, *owned)
    return node


def _schema(
    name: str, form: str, *, nullable: bool = False, children: Iterable[Any] = (), dictionary: Any = None
) -> _Schema:
    texts = form.encode(), name.encode()
    node = _Schema(*texts, None, _NULLABLE if nullable else 0)
    return _link(node, list(children), dictionary, _release_schema, texts)  # type: ignore[no-any-return]


def _schema_of(shape: Shape) -> _Schema:
    columns = [_schema("stream", "c")]
    if shape.timestamps:
        columns.append(_schema("timestamp", "tsn:UTC", nullable=True))
    columns.append(_schema("line", _LINE_FORMATS[shape.line_type]))
    if shape.source is not None:
        columns.append(_schema("source", "i", dictionary=_schema("", "u")))
    if shape.details:
        columns.append(_schema("attrs", "U", nullable=True))
    columns.append(_schema("partial", "b"))
    return _schema("", "+s", children=columns)


def _array(
    length: int, *buffers: bytes | None, nulls: int = 0, children: Iterable[Any] = (), dictionary: Any = None
) -> _Array:
    pointers = (ctypes.c_void_p * len(buffers))(*[None if data is None else _data(data) for data in buffers])
    node = _Array(length, nulls, 0, len(buffers), 0, pointers)
    return _link(node, list(children), dictionary, _release_array, pointers, buffers)  # type: ignore[no-any-return]


def _data(data: bytes) -> int:
    """Return where the memory of a bytes object is."""
    return ctypes.cast(ctypes.c_char_p(data), ctypes.c_void_p).value or 0


def _array_of(batch: LineBatch) -> _Array:
    rows, shape = len(batch), batch._shape
    columns = [_array(rows, None, batch._streams)]
    if shape.timestamps:
        nulls = 0 if batch._valid is None else rows - sum(byte.bit_count() for byte in batch._valid)
        columns.append(_array(rows, batch._valid, batch._timestamps, nulls=nulls))
    if shape.line_type == "binary_view":
        sizes = array("q", [len(batch._data)]).tobytes()
        columns.append(_array(rows, None, _views(batch), batch._data, sizes))
    else:
        columns.append(_array(rows, None, batch._offsets, batch._data))
    if shape.source is not None:
        name = shape.source.encode()
        words = _array(1, None, array("i", [0, len(name)]).tobytes(), name)
        columns.append(_array(rows, None, bytes(4 * rows), dictionary=words))
    if shape.details:
        columns.append(_attrs(batch._details))
    columns.append(_array(rows, None, bitmap(batch._partials)))
    return _array(rows, None, children=columns)


def _attrs(details: list[bytes | None]) -> _Array:
    nulls = details.count(None)
    valid = bitmap([each is not None for each in details]) if nulls else None
    offsets = array("q", accumulate((len(each or b"") for each in details), initial=0)).tobytes()
    return _array(len(details), valid, offsets, b"".join(each or b"" for each in details), nulls=nulls)


def _views(batch: LineBatch) -> bytes:
    """Return 16 bytes a line: its size, and itself where it fits, or how it begins and where it is."""
    views = []
    for start, end in pairwise(batch.offsets):
        line = batch._data[start:end]
        rest = line.ljust(_INLINE, b"\0") if len(line) <= _INLINE else line[:4] + _PLACE.pack(0, start)
        views.append(_SIZE.pack(len(line)) + rest)
    return b"".join(views)


_SIZE = Struct("=i")
_PLACE = Struct("=ii")  # buffer, offset


# --- capsules --------------------------------------------------------------------------------------------------------

_SCHEMA, _ARRAY, _STREAM = b"arrow_schema", b"arrow_array", b"arrow_array_stream"


_new_capsule = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)(
    ("PyCapsule_New", ctypes.pythonapi)
)
# of a capsule that is being destroyed there must be no reference: an address stands for it
_name_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(("PyCapsule_GetName", ctypes.pythonapi))
_pointer_of = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_void_p)(
    ("PyCapsule_GetPointer", ctypes.pythonapi)
)


def _capsule(structure: Any, name: bytes) -> object:
    """Wrap a structure; whoever takes it over sets its release callback to NULL."""
    address = ctypes.addressof(structure)
    _capsules[address] = structure
    capsule: object = _new_capsule(address, name, _address(_destroy_capsule))
    return capsule


def _destroy(capsule: int) -> None:
    address = _pointer_of(capsule, _name_of(capsule))
    structure = _capsules.pop(address)
    if structure.release:
        _Release(structure.release)(address)


_destroy_capsule = ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(_whatever_happens(_destroy))
_capsules: dict[int, Any] = {}  # the structures in capsules, by address


def schema_capsule(shape: Shape) -> object:
    """Return a PyCapsule of an ArrowSchema."""
    return _capsule(_schema_of(shape), _SCHEMA)


def array_capsule(batch: LineBatch) -> object:
    """Return a PyCapsule of an ArrowArray."""
    return _capsule(_array_of(batch), _ARRAY)


def stream_capsule(shape: Shape, batches: Iterator[LineBatch]) -> object:
    """Return a PyCapsule of an ArrowArrayStream."""
    structure = _Stream(_address(_get_schema), _address(_get_next), _address(_get_last_error))
    structure.release = _address(_release_stream)
    structure.private_data = _keep(_StreamState(shape, batches))
    return _capsule(structure, _STREAM)


class _StreamState:
    def __init__(self, shape: Shape, batches: Iterator[LineBatch]) -> None:
        self.shape = shape
        self.batches = batches
        self.error = b""


def _state(stream: int) -> _StreamState:
    state: _StreamState = _alive[_Stream.from_address(stream).private_data][0]
    return state


def _hand_out(stream: int, out: int, kind: Any, make: Callable[[_StreamState], Any]) -> int:
    """Make a schema or an array and move it to out."""
    state = _state(stream)
    try:
        made = make(state)
    except StopIteration:
        made = kind()  # a released one is the end
    except BaseException as error:
        state.error = str(error).encode("utf-8", "replace")
        return _EIO
    ctypes.memmove(out, ctypes.addressof(made), ctypes.sizeof(made))
    return 0


def _release_state(stream: int) -> None:
    structure = _Stream.from_address(stream)
    structure.release = None
    del _alive[structure.private_data]


_Take = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
_get_schema = _Take(lambda stream, out: _hand_out(stream, out, _Schema, lambda state: _schema_of(state.shape)))
_get_next = _Take(lambda stream, out: _hand_out(stream, out, _Array, lambda state: _array_of(next(state.batches))))
_get_last_error = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)(lambda stream: _data(_state(stream).error))
_release_stream = _Release(_whatever_happens(_release_state))
