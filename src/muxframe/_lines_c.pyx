# cython: language_level=3, binding=True, embedsignature=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False, freethreading_compatible=True
"""Lines in Cython: the same contract as `_lines_py`, which documents it.

The loops are in `_lines.h`; frames are taken apart by the frame core. What is cold (checking arguments, building
errors) is the Python twin's own code.
"""

cimport cython
from cpython.buffer cimport PyBuffer_Release
from libc.stdint cimport int64_t, uint8_t
from libc.string cimport memset

from ._framing_c cimport Demuxer, _Turn, acquire, copy_bytes, mf_look, mf_status

from sys import maxsize

from . import _lines_py as _py
from ._framing_py import BLOCK_SIZE, again, check_truncated, readable
from ._lines_py import (
    DEFAULT_MAX_LINE_SIZE,
    _rebuild,
    check_bytes,
    check_max_line_size,
    check_timestamp,
    parse_details,
    show_line,
)
from .errors import DaemonError, FramingError, TruncatedStreamError
from .protocol import Stream

__all__ = ["Line", "LineReader", "LineSplitter", "parse_timestamp"]

cdef tuple STREAMS = tuple(Stream)
cdef size_t NOGIL_SIZE = 32 * 1024  # below it, giving up the GIL costs more than it gives


def parse_timestamp(text, /):
    cdef mfl_splitter scratch
    cdef int64_t timestamp = 0
    cdef bint whole = False
    cdef Py_buffer view
    acquire(text, &view, "text", False)
    try:
        memset(&scratch, 0, sizeof(scratch))
        mfl_init(&scratch)
        if mfl_parse_timestamp(&scratch, <const uint8_t *>view.buf, <size_t>view.len, &timestamp, &whole):
            return timestamp
        return None
    finally:
        PyBuffer_Release(&view)


# --- one line --------------------------------------------------------------------------------------------------------


@cython.no_gc
@cython.final
@cython.freelist(256)
cdef class Line:
    """Line(stream, timestamp, data, /, *, partial=False, details=None)\n--\n\n\
    One line of one stream, without its line end.

    Unpacks as `stream, timestamp, data`. Immutable, hashable, equal to a line of the same content.

    Args:
        stream: 0..2.
        timestamp: nanoseconds since 1970-01-01T00:00:00Z (64 bits, signed), or None.
        data: the line's bytes.
        partial: the line goes on: in the next line of this stream, or where a fault cut it off.
        details: the attributes as the engine sent them (`k=v,k=v`), or None.

    >>> stream, timestamp, data = line = Line(Stream.STDOUT, None, b"caf\\xc3\\xa9")
    >>> line.text
    'caf\xe9'
    """

    def __init__(self, stream, timestamp, data, /, *, partial=False, details=None):
        number = Stream(stream)
        timestamp = check_timestamp(timestamp)
        data = check_bytes(data, "data")
        if details is not None:
            details = check_bytes(details, "details")
        partial = bool(partial)
        with cython.critical_section(self):
            if self.content is not None:  # asked last: what is above may have run anything
                raise TypeError("Line is immutable")
            self.number = number
            self.flags = MFL_PARTIAL if partial else 0
            if timestamp is not None:
                self.when = timestamp
                self.flags |= MFL_TIMESTAMP
            self.content = data
            self.prefix = details

    @property
    def stream(self):
        """Which of the container's streams."""
        return STREAMS[self.number]

    @property
    def timestamp(self):
        """When it was written, in nanoseconds since 1970-01-01T00:00:00Z, or None."""
        return self.when if self.flags & MFL_TIMESTAMP else None

    @property
    def data(self):
        """The line's bytes, without the line end."""
        return self.content

    @property
    def partial(self):
        """Whether the line goes on: in the next line of this stream, or where a fault cut it off."""
        return bool(self.flags & MFL_PARTIAL)

    @property
    def details(self):
        """The attributes as the engine sent them, `k=v,k=v` with URL quoting, or None."""
        return self.prefix

    @property
    def text(self):
        """The line as text: UTF-8, with U+FFFD for what is none."""
        return self.content.decode("utf-8", "replace")

    @property
    def attrs(self):
        """The attributes, parsed; empty where there are none."""
        return parse_details(self.prefix or b"")

    def __iter__(self):
        return iter((self.stream, self.timestamp, self.content))

    def _key(self):
        return self.number, self.timestamp, self.content, self.partial, self.prefix

    def __eq__(self, other):
        if not isinstance(other, Line):
            return NotImplemented
        return self._key() == other._key()

    def __hash__(self):
        return hash(self._key())

    def __repr__(self):
        return show_line(self.stream, self.timestamp, self.content, self.partial, self.prefix)

    def __reduce__(self):
        return _rebuild, (type(self), *self._key())


cdef Line make_line(const mfl_rows *rows, size_t i):
    """Make a Line of a row."""
    cdef Line line = Line.__new__(Line)
    line.number = <uint8_t>rows.streams[i]
    line.flags = rows.flags[i]
    if line.flags & MFL_TIMESTAMP:
        line.when = rows.timestamps[i]
    line.content = copy_bytes(rows.data.data + rows.offsets[i], <size_t>(rows.offsets[i + 1] - rows.offsets[i]))
    if line.flags & MFL_DETAILS:
        line.prefix = copy_bytes(
            rows.details.data + rows.details_offsets[i], <size_t>(rows.details_offsets[i + 1] - rows.details_offsets[i])
        )
    return line


# --- the incremental splitter ----------------------------------------------------------------------------------------


cdef class _Splitter:
    """What appends rows to its core's: all but handing them out. All of it is called with the lock held."""

    def __cinit__(self):
        self.turn = _Turn()
        mfl_init(&self.core)
        self.core.max_line_size = 1

    def __dealloc__(self):
        mfl_free(&self.core)

    @property
    def offset(self):
        """Bytes taken off the wire so far."""
        if self.core.raw or self.demuxer is None:
            return mf_look(&self.core.offset)
        return mf_look(&self.demuxer.state.offset)

    @property
    def invalid_timestamps(self):
        """How many frames (of a raw stream: lines) had no valid timestamp where one was due."""
        return mf_look(&self.core.invalid)

    cdef int set_up(self, object raw, object timestamps, object details, object max_line_size, object max_frame_size,
                    object check_reserved) except -1:
        cdef size_t largest = min(check_max_line_size(max_line_size), maxsize)
        cdef bint is_raw = bool(raw), with_timestamps = bool(timestamps), with_details = bool(details)
        demuxer = Demuxer(max_frame_size=max_frame_size, check_reserved=check_reserved)
        if self.demuxer is not None:
            raise TypeError(f"{type(self).__name__} is initialised already")
        self.demuxer = demuxer
        self.core.max_line_size = largest
        self.core.raw = is_raw
        self.core.timestamps = with_timestamps
        self.core.details = with_details
        self.core.in_head = is_raw and (with_timestamps or with_details)
        return 0

    cdef int begin(self) except -1:
        """Begin a call that takes bytes; it ends with turn.leave()."""
        self.begin_end()
        try:
            if self.core.no_memory:
                raise RuntimeError(f"the {type(self).__name__} ran out of memory inside a call and has lost its place")
            if self.closed:
                raise ValueError("feed after feed_eof")
        except BaseException:
            self.turn.leave()
            raise
        return 0

    cdef int begin_end(self) except -1:
        """Begin the call that takes the end; it ends with turn.leave()."""
        self.turn.enter(self)
        try:
            if self.demuxer is None:
                raise TypeError(f"{type(self).__name__} is not initialised")
            if self.fault is not None:
                raise again(self.fault)
        except BaseException:
            self.turn.leave()
            raise
        return 0

    cdef int take(self, const uint8_t *src, size_t size) except -1:
        """Take wire bytes."""
        if not mfl_prepare(&self.core, size):
            raise MemoryError
        if not self.core.raw:
            self.take_frames(src, size)
        elif size >= NOGIL_SIZE:
            with nogil:
                mfl_feed_raw(&self.core, src, size)
        else:
            mfl_feed_raw(&self.core, src, size)
        return self.check_memory()

    cdef int take_frames(self, const uint8_t *src, size_t size) except -1:
        cdef size_t taken = 0
        cdef mf_status status
        if self.demuxer.text is not None:
            taken = self.demuxer.take_text(src, size)
            src += taken
            size -= taken
        if size >= NOGIL_SIZE:
            with nogil:
                status = mfl_feed(&self.core, &self.demuxer.state, src, size, &taken)
        else:
            status = mfl_feed(&self.core, &self.demuxer.state, src, size, &taken)
        self.demuxer.check_header(status)
        if self.demuxer.text is not None and taken < size:
            self.demuxer.take_text(src + taken, size - taken)
        return 0

    cdef int finish(self) except -1:
        """Take the end of the stream."""
        self.closed = True
        if not mfl_prepare(&self.core, 0):
            raise MemoryError
        if not self.core.raw:
            self.demuxer.feed_eof()
        mfl_end_prefix(&self.core, 1)
        mfl_close_all(&self.core, False)
        return self.check_memory()

    cdef int check_memory(self) except -1:
        if self.core.no_memory:
            raise MemoryError
        return 0

    cdef int break_off(self, object fault) except -1:
        """Hand out what there is of unfinished lines before a fault, and stay failed."""
        self.fault = again(fault)  # not fault itself: its traceback would keep lines alive
        if not mfl_prepare(&self.core, 0):
            raise MemoryError
        mfl_end_prefix(&self.core, self.demuxer.state.header[0] if self.demuxer.state.header[0] < 3 else 0)
        mfl_close_all(&self.core, True)
        return self.check_memory()


cdef class LineSplitter(_Splitter):
    """LineSplitter(*, raw=False, timestamps=False, details=False, max_line_size=DEFAULT_MAX_LINE_SIZE,
    max_frame_size=None, check_reserved=True)\n--\n\n\
    Take a stream's lines apart as it arrives, without doing any I/O.

    Feed it what comes off the wire, cut anywhere. Of each stream it remembers an unfinished line, up to max_line_size.
    Safe to share between threads: calls take turns.

    Args:
        raw: the stream is a terminal's: no frames, all of it stdout.
        timestamps: the log was asked for with timestamps=1: a prefix to be taken out of the line.
        details: the same for details=1. Podman sends none, whatever it is asked for.
        max_line_size: largest line in bytes, CRs of the line end included; a longer one comes in pieces.
        max_frame_size, check_reserved: as for Demuxer.

    Raises:
        TypeError, ValueError: max_line_size or max_frame_size is not a size.

    >>> splitter = LineSplitter()
    >>> splitter.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x07one\\ntwo")
    [Line(<Stream.STDOUT: 1>, None, b'one')]
    >>> splitter.feed_eof()
    [Line(<Stream.STDOUT: 1>, None, b'two')]
    """

    def __init__(
        self,
        *,
        raw=False,
        timestamps=False,
        details=False,
        max_line_size=DEFAULT_MAX_LINE_SIZE,
        max_frame_size=None,
        check_reserved=True,
    ):
        self.turn.enter(self)
        try:
            self.set_up(raw, timestamps, details, max_line_size, max_frame_size, check_reserved)
        finally:
            self.turn.leave()

    def feed(self, data, /):
        cdef Py_buffer view
        acquire(data, &view, "data", False)
        try:
            self.begin()
            try:
                self.take(<const uint8_t *>view.buf, <size_t>view.len)
                return self.lines()
            except (FramingError, DaemonError) as fault:
                self.break_off(fault)
                fault.lines = self.lines()
                raise
            finally:
                self.turn.leave()
        finally:
            PyBuffer_Release(&view)

    def flush(self):
        self.begin()
        try:
            if not mfl_prepare(&self.core, 0):
                raise MemoryError
            mfl_flush(&self.core)
            self.check_memory()
            return self.lines()
        finally:
            self.turn.leave()

    def feed_eof(self):
        self.begin_end()
        try:
            self.finish()
            return self.lines()
        except (FramingError, DaemonError) as fault:
            self.break_off(fault)
            fault.lines = self.lines()
            raise
        finally:
            self.turn.leave()

    cdef list lines(self):
        """Make objects of the rows, and forget them: an idle splitter shall be small."""
        cdef mfl_rows *rows = self.core.rows
        cdef list lines = []
        cdef size_t i
        try:
            for i in range(rows.count):
                lines.append(make_line(rows, i))
        except MemoryError:
            self.core.no_memory = True
            raise
        mfl_drop_rows(&self.core)
        return lines


cdef class LineReader:
    """LineReader(source, /, *, raw=False, timestamps=False, details=False, max_line_size=DEFAULT_MAX_LINE_SIZE,
    max_frame_size=None, check_reserved=True, truncated='error')\n--\n\n\
    Iterate over lines: what `muxframe.lines` returns.

    Args:
        source: memory that holds the whole stream, or a callable `readinto(memoryview) -> int` that fills the
            beginning of the memory it is given and returns 0 at the end. What it raises passes through, and iteration
            can go on afterwards.
        truncated: what an end inside a frame is: "error" raises, "ignore" ends the iteration. The unfinished lines come
            before, either way.
        raw, timestamps, details, max_line_size, max_frame_size, check_reserved: as for LineSplitter.

    Raises:
        FramingError, DaemonError: by `next`, after all lines before the fault; every later `next` raises the same.
        ValueError: by `next`: readinto returned more than it was given room for.
    """

    def __cinit__(self):
        self.turn = _Turn()
        self.eof = True

    def __init__(
        self,
        source,
        /,
        *,
        raw=False,
        timestamps=False,
        details=False,
        max_line_size=DEFAULT_MAX_LINE_SIZE,
        max_frame_size=None,
        check_reserved=True,
        truncated="error",
    ):
        cdef _Splitter splitter = _Splitter()
        check_truncated(truncated)
        splitter.set_up(raw, timestamps, details, max_line_size, max_frame_size, check_reserved)
        readinto = source if callable(source) else None
        block = memoryview(bytearray(BLOCK_SIZE)) if callable(source) else readable(source)
        self.turn.enter(self)
        try:
            if self.splitter is not None:
                raise TypeError("LineReader is initialised already")
            self.splitter = splitter
            self.ignore_truncated = truncated == "ignore"
            self.readinto = readinto
            self.block = block
            self.eof = False
        finally:
            self.turn.leave()

    @property
    def invalid_timestamps(self):
        """How many frames (of a raw stream: lines) had no valid timestamp where one was due."""
        return 0 if self.splitter is None else mf_look(&self.splitter.core.invalid)

    def __iter__(self):
        return self

    def __next__(self):
        cdef Line line = None
        while line is None:
            with cython.critical_section(self):
                line = self.take()
            if line is None:
                self.read()
        return line

    def flush(self):
        cdef list lines = []
        self.turn.enter(self)
        try:
            self.take_all(lines)
            if not self.eof:
                self.split_off()
                self.take_all(lines)
            return lines
        finally:
            self.turn.leave()

    cdef int take_all(self, list lines) except -1:
        cdef Line line
        while True:
            with cython.critical_section(self):
                line = self.take()
            if line is None:
                return 0
            lines.append(line)

    cdef int split_off(self) except -1:
        """Make rows of the unfinished lines."""
        with cython.critical_section(self):
            self.next = self.count = 0
        if self.splitter.core.rows is not NULL:
            mfl_empty_rows(self.splitter.core.rows)
        if not mfl_prepare(&self.splitter.core, 0):
            raise MemoryError
        mfl_flush(&self.splitter.core)
        self.splitter.check_memory()
        with cython.critical_section(self):
            self.count = self.splitter.core.rows.count
        return 0

    cdef Line take(self):
        """Make a Line of the next row, or None: nothing here calls into Python."""
        if self.next == self.count:
            return None
        cdef Line line = make_line(self.splitter.core.rows, self.next)
        self.next += 1
        return line

    cdef int read(self) except -1:
        """Read once, and split what there is; raise what is wrong, or StopIteration."""
        cdef bint is_empty
        self.turn.enter(self)
        try:
            with cython.critical_section(self):
                is_empty = self.next == self.count
            if not is_empty:  # another thread has read
                return 0
            if self.fault is not None:
                raise again(self.fault)
            if self.eof:
                raise StopIteration
            self.read_piece()
        finally:
            self.turn.leave()
        return 0

    cdef int read_piece(self) except -1:
        """Make rows of the next piece, and let go of it: views of one memory are counted without a lock by CPython."""
        cdef Py_buffer view
        piece = self.next_piece()
        acquire(piece, &view, "source", False)
        try:
            with cython.critical_section(self):
                self.next = self.count = 0
            self.split(<const uint8_t *>view.buf, <size_t>view.len)
            with cython.critical_section(self):
                self.count = self.splitter.core.rows.count
        finally:
            PyBuffer_Release(&view)
        return 0

    cdef object next_piece(self):
        cdef Py_ssize_t size
        if self.readinto is None:
            piece = self.block[self.position : self.position + BLOCK_SIZE]
            self.position += <Py_ssize_t>len(piece)
            return piece
        size = self.readinto(self.block)
        if not 0 <= size <= <Py_ssize_t>len(self.block):
            raise ValueError(f"source returned {size} bytes where {len(self.block)} were asked for")
        return self.block[:size]

    cdef int split(self, const uint8_t *src, size_t size) except -1:
        """Make rows of a piece of wire; an empty one is the end."""
        if self.splitter.core.rows is not NULL:
            mfl_empty_rows(self.splitter.core.rows)
        self.eof = not size
        try:
            if size:
                self.splitter.take(src, size)
            else:
                self.splitter.finish()
        except (FramingError, DaemonError) as fault:
            self.eof = True
            self.splitter.break_off(fault)
            if not (self.ignore_truncated and isinstance(fault, TruncatedStreamError)):
                self.fault = again(fault)
        return 0


def _take_documentation():
    """Document methods and functions as the twin does: it is where the documentation lives."""
    for name in __all__:
        ours, theirs = globals()[name], getattr(_py, name)
        if not isinstance(ours, type):
            ours.__doc__ = theirs.__doc__
            continue
        for attribute, value in vars(theirs).items():
            method = vars(ours).get(attribute)
            if callable(method) and not attribute.startswith("__"):
                method.__doc__ = value.__doc__


_take_documentation()
