# cython: language_level=3, binding=True, embedsignature=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False, freethreading_compatible=True
"""Columnar batches in Cython: the same contract as `_batches_py`, which documents it.

Rows are made by the loops of `_lines.h`; a batch takes them over as they are. `_arrow.h` exports them.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
)
from cpython.bytes cimport PyBytes_AS_STRING
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.pycapsule cimport PyCapsule_GetPointer, PyCapsule_New
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.errno cimport EIO, ENOMEM
from libc.stdint cimport int64_t, uint8_t
from libc.stdlib cimport calloc, free
from libc.string cimport memcpy, memset

from ._framing_c cimport acquire, copy_bytes
from ._lines_c cimport (
    Line,
    MFL_PARTIAL,
    MFL_TIMESTAMP,
    _Splitter,
    mfl_free_rows,
    mfl_rows,
    mfl_set_aside,
)

from . import _batches_py as _py
from ._batches_py import DEFAULT_MAX_BYTES, DEFAULT_MAX_LINES, LINE_TYPES, check_limits, check_shape
from ._lines_py import DEFAULT_MAX_LINE_SIZE
from .errors import DaemonError, FramingError

__all__ = ["BatchBuilder", "LineBatch", "export_stream"]

cdef const char *SCHEMA = "arrow_schema"
cdef const char *ARRAY = "arrow_array"
cdef const char *STREAM = "arrow_array_stream"
cdef uint8_t NOTHING = 0  # what an empty column points to


# --- a batch ---------------------------------------------------------------------------------------------------------


@cython.final
cdef class _Column:
    """A column's memory, for memoryviews."""

    def __getbuffer__(self, Py_buffer *view, int flags):
        if flags & PyBUF_WRITABLE:
            raise BufferError("Object is not writable.")
        view.obj = self
        view.buf = <void *>self.data
        view.len = self.size
        view.readonly = True
        view.itemsize = self.item_size
        view.format = self.format if flags & PyBUF_FORMAT else NULL
        view.ndim = 1
        view.shape = &self.length if flags & PyBUF_ND else NULL
        view.strides = &self.item_size if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
        view.suboffsets = NULL
        view.internal = NULL


@cython.final
cdef class LineBatch:
    """LineBatch()\n--\n\n\
    Lines as columns. Immutable; its memory lives as long as anything that was made of it does.

    `len(batch)` is its number of rows, `batch[i]` one of them as a Line. The columns are there as memoryviews, and for
    Arrow's readers (pyarrow, polars, duckdb, pandas, nanoarrow) through the PyCapsule interface. Only a BatchBuilder
    makes batches.

    >>> [batch] = BatchBuilder(max_lines=1).feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x08one\\ntwo\\n")
    >>> batch.num_rows, bytes(batch.data)
    (1, b'one')
    """

    def __init__(self):
        raise TypeError("only a BatchBuilder makes a LineBatch")

    def __dealloc__(self):
        mfb_unref(self.batch)

    cdef mfb_batch *get(self) except NULL:
        if self.batch is NULL:
            raise TypeError("LineBatch is not initialised")
        return self.batch

    cdef object column(self, const void *data, size_t size, Py_ssize_t item_size, char *format):
        cdef _Column column = _Column.__new__(_Column)
        column.owner = self
        column.data = data if data is not NULL else &NOTHING
        column.size = <Py_ssize_t>size
        column.item_size = item_size
        column.length = <Py_ssize_t>size // item_size
        column.format = format
        return PyMemoryView_FromObject(column)

    @property
    def num_rows(self):
        """How many lines."""
        return self.get().rows.count

    @property
    def source(self):
        """The name in the source column, or None where there is none."""
        return self.name

    @property
    def streams(self):
        """The stream of each row: int8."""
        return self.column(self.get().rows.streams, self.get().rows.count, 1, "b")

    @property
    def timestamps(self):
        """Nanoseconds since 1970-01-01T00:00:00Z of each row: int64, 0 where it has none; None without the column."""
        if not self.get().shape.timestamps:
            return None
        return self.column(self.get().rows.timestamps, 8 * self.get().rows.count, 8, "q")

    @property
    def timestamp_validity(self):
        """Bitmap of the rows that have a timestamp, lowest bit first; None where all have one."""
        if self.get().timed is NULL:
            return None
        return self.column(self.get().timed, self.get().rows.count // 8 + 1, 1, "B")

    @property
    def offsets(self):
        """Where each line begins in `data`, and the last one ends: int64, one more than there are rows."""
        return self.column(self.get().rows.offsets, 8 * (self.get().rows.count + 1), 8, "q")

    @property
    def data(self):
        """The bytes of all lines, one behind the other."""
        return self.column(self.get().rows.data.data, self.get().rows.data.size, 1, "B")

    @property
    def partials(self):
        """Whether each row's line goes on: bool, one byte each."""
        return self.column(self.get().rows.flags, self.get().rows.count, 1, "?")

    def __len__(self):
        return <Py_ssize_t>self.get().rows.count

    def __getitem__(self, index):
        cdef size_t i = range(len(self))[index]
        cdef mfl_rows *rows = self.get().rows
        cdef Line line = Line.__new__(Line)
        line.number = <uint8_t>rows.streams[i]
        line.flags = rows.flags[i] & MFL_PARTIAL
        if self.get().shape.timestamps and mfb_bit(self.get().timed, i):
            line.flags |= MFL_TIMESTAMP
            line.when = rows.timestamps[i]
        line.content = copy_bytes(rows.data.data + rows.offsets[i], <size_t>(rows.offsets[i + 1] - rows.offsets[i]))
        if self.get().shape.details and mfb_bit(self.get().attributed, i):
            line.prefix = copy_bytes(
                rows.details.data + rows.details_offsets[i],
                <size_t>(rows.details_offsets[i + 1] - rows.details_offsets[i]),
            )
        return line

    def __iter__(self):
        return (self[row] for row in range(len(self)))

    def __repr__(self):
        return f"<LineBatch of {len(self)} rows>"

    def __arrow_c_schema__(self):
        return schema_capsule(self.get().shape)

    def __arrow_c_array__(self, requested_schema=None):
        schema = schema_capsule(self.get().shape)
        cdef ArrowArray *array = <ArrowArray *>allocate(sizeof(ArrowArray))
        if not mfb_export_array(self.get(), array):
            free(array)
            raise MemoryError
        return schema, capsule(array, ARRAY, destroy_array)

    def __arrow_c_stream__(self, requested_schema=None):
        return export_stream(self, iter((self,)))


# --- the builder -----------------------------------------------------------------------------------------------------


cdef class BatchBuilder(_Splitter):
    """BatchBuilder(*, raw=False, timestamps=False, details=False, line_type='large_binary', source=None,
    max_lines=DEFAULT_MAX_LINES, max_bytes=DEFAULT_MAX_BYTES, max_line_size=DEFAULT_MAX_LINE_SIZE,
    max_frame_size=None, check_reserved=True)\n--\n\n\
    Make batches of a stream's lines as it arrives, without doing any I/O. Safe to share between threads.

    Args:
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved: as for LineSplitter.
        line_type: what lines are as a column: "large_binary", "large_utf8" or "binary_view".
        source: a name for a column that says where lines are from, or None for no such column.
        max_lines: rows of a batch.
        max_bytes: bytes of its lines; one line alone may be larger.

    Raises:
        TypeError, ValueError: an option is not what it should be. Sizes end at 2 GiB - 1.

    >>> builder = BatchBuilder()
    >>> builder.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo")
    []
    >>> builder.feed_eof()
    [<LineBatch of 2 rows>]
    """

    def __init__(
        self,
        *,
        raw=False,
        timestamps=False,
        details=False,
        line_type="large_binary",
        source=None,
        max_lines=DEFAULT_MAX_LINES,
        max_bytes=DEFAULT_MAX_BYTES,
        max_line_size=DEFAULT_MAX_LINE_SIZE,
        max_frame_size=None,
        check_reserved=True,
    ):
        shape = check_shape(timestamps, details, line_type, source)
        check_limits(max_lines, max_bytes, max_line_size)
        source_bytes = b"" if source is None else source.encode()
        self.turn.enter(self)
        try:
            self.set_up(raw, timestamps, details, max_line_size, max_frame_size, check_reserved)
            self.core.max_rows = max_lines
            self.core.max_bytes = max_bytes
            self.shape.timestamps = shape.timestamps
            self.shape.details = shape.details
            self.shape.line_type = LINE_TYPES.index(line_type)
            self.shape.source = source is not None
            self.source = source
            self.source_bytes = source_bytes
        finally:
            self.turn.leave()

    def feed(self, data, /):
        cdef Py_buffer view
        acquire(data, &view, "data", False)
        try:
            self.begin()
            try:
                self.take(<const uint8_t *>view.buf, <size_t>view.len)
                return self.completed(False)
            except (FramingError, DaemonError) as fault:
                self.break_off(fault)
                fault.lines = self.completed(True)
                raise
            finally:
                self.turn.leave()
        finally:
            PyBuffer_Release(&view)

    def flush(self):
        self.begin()
        try:
            return self.completed(True)
        finally:
            self.turn.leave()

    def feed_eof(self):
        self.begin_end()
        try:
            self.finish()
            return self.completed(True)
        except (FramingError, DaemonError) as fault:
            self.break_off(fault)
            fault.lines = self.completed(True)
            raise
        finally:
            self.turn.leave()

    def __arrow_c_schema__(self):
        return schema_capsule(self.shape)

    cdef list completed(self, bint all_of_them):
        """Make batches of the rows that are full, or of all."""
        cdef mfl_rows *rows
        cdef list batches = []
        if all_of_them:
            mfl_set_aside(&self.core)
        try:
            while self.core.full is not NULL:
                rows = self.core.full
                self.core.full = rows.next
                batches.append(self.make_batch(rows))
        except MemoryError:
            self.core.no_memory = True
            raise
        return batches

    cdef LineBatch make_batch(self, mfl_rows *rows):
        """Make a batch that takes rows over, in any case."""
        cdef LineBatch batch = LineBatch.__new__(LineBatch)
        if self.shape.line_type == MFB_LARGE_UTF8:
            try:
                make_utf8(rows)
            except BaseException:
                mfl_free_rows(rows)
                raise
        batch.batch = mfb_new(
            rows, self.shape, PyBytes_AS_STRING(self.source_bytes), <size_t>len(self.source_bytes)
        )
        if batch.batch is NULL:
            raise MemoryError
        batch.name = self.source
        return batch


cdef int make_utf8(mfl_rows *rows) except -1:
    """Put U+FFFD in the place of what is no UTF-8: as Python does, line by line."""
    cdef const uint8_t *data = rows.data.data
    cdef size_t i
    cdef int64_t start, end
    if mfb_is_ascii(data, rows.data.size):
        return 0
    lines = None
    for i in range(rows.count):
        start, end = rows.offsets[i], rows.offsets[i + 1]
        if not mfb_is_utf8(data + start, <size_t>(end - start)):
            if lines is None:
                lines = {}
            lines[i] = copy_bytes(data + start, <size_t>(end - start)).decode("utf-8", "replace").encode()
    if lines is not None:
        replace_lines(rows, lines)
    return 0


cdef int replace_lines(mfl_rows *rows, dict lines) except -1:
    """Put other lines in the place of some, which are not longer than these."""
    cdef size_t more = 0, size = 0, room, i
    cdef uint8_t *data
    cdef int64_t start = 0, end
    cdef bytes line
    for line in lines.values():
        more += <size_t>len(line)
    room = rows.data.size + more
    data = <uint8_t *>allocate(room)
    for i in range(rows.count):
        end = rows.offsets[i + 1]
        line = lines.get(i)
        if line is None:
            memcpy(data + size, rows.data.data + start, <size_t>(end - start))  # room has the sizes of old and new
            size += <size_t>(end - start)
        else:
            memcpy(data + size, PyBytes_AS_STRING(line), <size_t>len(line))
            size += <size_t>len(line)
        start = end
        rows.offsets[i + 1] = <int64_t>size
    free(rows.data.data)
    rows.data.data = data
    rows.data.size = size
    rows.data.room = room
    return 0


# --- capsules --------------------------------------------------------------------------------------------------------


cdef void *allocate(size_t size) except NULL:
    cdef void *memory = calloc(1, size if size else 1)
    if memory is NULL:
        raise MemoryError
    return memory


cdef object capsule(void *structure, const char *name, void (*destroy)(object) noexcept):
    """Wrap a structure; whoever takes it over sets its release callback to NULL."""
    return PyCapsule_New(structure, name, <void (*)(object) noexcept>destroy)


cdef void destroy_schema(object capsule) noexcept:
    cdef ArrowSchema *schema = <ArrowSchema *>PyCapsule_GetPointer(capsule, SCHEMA)
    if schema.release is not NULL:
        schema.release(schema)
    free(schema)


cdef void destroy_array(object capsule) noexcept:
    cdef ArrowArray *array = <ArrowArray *>PyCapsule_GetPointer(capsule, ARRAY)
    if array.release is not NULL:
        array.release(array)
    free(array)


cdef void destroy_stream(object capsule) noexcept:
    cdef ArrowArrayStream *stream = <ArrowArrayStream *>PyCapsule_GetPointer(capsule, STREAM)
    if stream.release is not NULL:
        stream.release(stream)
    free(stream)


cdef object schema_capsule(mfb_shape shape):
    cdef ArrowSchema *schema = <ArrowSchema *>allocate(sizeof(ArrowSchema))
    if not mfb_export_schema(shape, schema):
        free(schema)
        raise MemoryError
    return capsule(schema, SCHEMA, destroy_schema)


# --- streams ---------------------------------------------------------------------------------------------------------


@cython.final
cdef class _Stream:
    """What a stream's private_data points to, with a reference."""


def export_stream(first, batches, /):
    cdef _Stream state = _Stream.__new__(_Stream)
    cdef ArrowArrayStream *stream
    if isinstance(first, BatchBuilder):
        state.shape = (<BatchBuilder>first).shape
    else:
        state.shape = (<LineBatch?>first).get().shape
    state.batches = batches
    state.error = b""
    stream = <ArrowArrayStream *>allocate(sizeof(ArrowArrayStream))
    stream.get_schema = get_schema
    stream.get_next = get_next
    stream.get_last_error = get_last_error
    stream.release = release_stream
    stream.private_data = <void *>state
    Py_INCREF(state)
    return capsule(stream, STREAM, destroy_stream)


cdef int get_schema(ArrowArrayStream *stream, ArrowSchema *out) noexcept with gil:
    return 0 if mfb_export_schema((<_Stream>stream.private_data).shape, out) else ENOMEM


cdef int get_next(ArrowArrayStream *stream, ArrowArray *out) noexcept with gil:
    cdef _Stream state = <_Stream>stream.private_data
    cdef LineBatch batch
    try:
        batch = next(state.batches)
        if not mfb_export_array(batch.get(), out):
            raise MemoryError
    except StopIteration:
        memset(out, 0, sizeof(ArrowArray))  # a released one is the end
    except BaseException as error:
        state.error = str(error).encode("utf-8", "replace")
        return EIO
    return 0


cdef const char *get_last_error(ArrowArrayStream *stream) noexcept with gil:
    return PyBytes_AS_STRING((<_Stream>stream.private_data).error)


cdef void release_stream(ArrowArrayStream *stream) noexcept with gil:
    cdef _Stream state = <_Stream>stream.private_data
    stream.release = NULL
    Py_DECREF(state)


def _take_documentation():
    """Document methods and functions as the twin does: it is where the documentation lives."""
    for name in __all__:
        ours, theirs = globals()[name], getattr(_py, name)
        if not isinstance(ours, type):
            ours.__doc__ = theirs.__doc__
            continue
        for attribute, value in vars(theirs).items():
            method = vars(ours).get(attribute)
            if callable(method) and (not attribute.startswith("__") or attribute.startswith("__arrow")):
                method.__doc__ = value.__doc__


_take_documentation()
