# cython: language_level=3, binding=True, embedsignature=False, auto_pickle=False
# cython: boundscheck=False, wraparound=False, initializedcheck=False, freethreading_compatible=True
"""The frame core in Cython: the same contract as `_framing_py`, which documents it.

The loops are in `_framing.h`. What is cold (checking arguments, building errors) is the Python twin's own code. Each
`Py_buffer` taken is released in `finally` of the same function. Bulk work runs without the GIL; objects have a lock.
A class's docstring begins with its signature, in the form from which CPython takes it out.
"""

cimport cython
from cpython.buffer cimport (
    PyBUF_FORMAT,
    PyBUF_ND,
    PyBUF_SIMPLE,
    PyBUF_STRIDES,
    PyBUF_WRITABLE,
    PyBuffer_Release,
    PyObject_GetBuffer,
)
from cpython.bytearray cimport PyByteArray_AS_STRING
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from cpython.exc cimport PyErr_CheckSignals
from cpython.mem cimport PyMem_RawFree, PyMem_RawMalloc
from cpython.memoryview cimport PyMemoryView_FromObject
from cpython.pythread cimport (
    NOWAIT_LOCK,
    PyThread_acquire_lock,
    PyThread_allocate_lock,
    PyThread_free_lock,
    PyThread_get_thread_ident,
    PyThread_release_lock,
)
from libc.stdint cimport SIZE_MAX, UINT32_MAX, UINT64_MAX, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy, memset

from os import strerror
from threading import current_thread, main_thread

cdef extern from *:
    ctypedef enum PyLockStatus:
        PY_LOCK_ACQUIRED

    PyLockStatus PyThread_acquire_lock_timed(void *lock, long long microseconds, int intr_flag) nogil
    Py_ssize_t PyNumber_AsSsize_t(object number, void *overflow) except? -1  # with NULL it clips


from . import _framing_py as _py
from ._framing_py import BLOCK_SIZE as _BLOCK_SIZE
from ._framing_py import RECEIVE_BUFFER_SIZE as _RECEIVE_BUFFER_SIZE
from ._framing_py import (
    _decode,
    again,
    check_limit,
    check_rest,
    check_truncated,
    readable,
    writable,
)
from .errors import DaemonError, FramingError, TruncatedStreamError, header_error
from .protocol import (
    DEFAULT_MAX_FRAME_SIZE,
    MAX_PAYLOAD_SIZE,
    Demuxed,
    DemuxedInto,
    Stream,
)
from .protocol import MAX_SYSTEMERR_SIZE as _MAX_SYSTEMERR_SIZE

__all__ = ["Demuxer", "Frame", "FrameReader", "demux", "demux_into", "pack_frame"]

cdef tuple STREAMS = tuple(Stream)
cdef size_t MAX_SYSTEMERR_SIZE = _MAX_SYSTEMERR_SIZE
cdef size_t BLOCK_SIZE = _BLOCK_SIZE
cdef size_t RECEIVE_BUFFER_SIZE = _RECEIVE_BUFFER_SIZE
cdef size_t NOGIL_SIZE = 32 * 1024  # below it, giving up the GIL costs more than it gives
cdef char *FORMAT = "B"
cdef uint8_t NOTHING = 0  # what an empty buffer without memory points to


# --- buffers and locks -----------------------------------------------------------------------------------------------


cdef int acquire(object obj, Py_buffer *view, str name, bint write) except -1:
    """Take C-contiguous memory of any item size; the Python twin says what is wrong with anything else."""
    try:
        PyObject_GetBuffer(obj, view, PyBUF_WRITABLE if write else PyBUF_SIMPLE)
    except (TypeError, BufferError, ValueError):
        if write:
            writable(obj, name)
        else:
            readable(obj, name)
        raise
    return 0


cdef class _Turn:
    """A lock with an owner: calls of several threads take turns, a call from inside another is refused."""

    def __cinit__(self):
        self.lock = PyThread_allocate_lock()
        if self.lock is NULL:
            raise MemoryError

    def __dealloc__(self):
        if self.lock is not NULL:
            PyThread_free_lock(self.lock)

    cdef int enter(self, object obj) except -1:
        cdef uint64_t me = PyThread_get_thread_ident()
        cdef PyLockStatus status
        if not PyThread_acquire_lock(self.lock, NOWAIT_LOCK):
            if mf_look(&self.owner) == me:  # only this thread writes its own number there
                raise RuntimeError(f"{type(obj).__name__} is in use: re-entrant call")
            while True:  # a signal handler may raise here
                with nogil:
                    status = PyThread_acquire_lock_timed(self.lock, -1, 1)
                if status == PY_LOCK_ACQUIRED:
                    break
                PyErr_CheckSignals()
        mf_set(&self.owner, me)
        return 0

    cdef void leave(self) noexcept:
        mf_set(&self.owner, 0)
        PyThread_release_lock(self.lock)


cdef class _Outputs:
    """The two outputs of a call: buffers held while it runs."""

    def __cinit__(self, stdout, stderr):
        cdef Py_ssize_t i
        for i, (obj, name) in enumerate(((stdout, "stdout"), (stderr, "stderr"))):
            if obj is None:
                self.outputs[i].room = SIZE_MAX
                continue
            acquire(obj, &self.views[i], name, True)
            self.outputs[i].data = <uint8_t *>self.views[i].buf or &NOTHING
            self.outputs[i].room = <size_t>self.views[i].len

    def __dealloc__(self):
        self.release()

    cdef void release(self) noexcept:
        PyBuffer_Release(&self.views[0])  # does nothing where none is held
        PyBuffer_Release(&self.views[1])

    cdef bytes unshared(self, const uint8_t *src, size_t size):
        """Return a copy of the input where an output shares its memory, or None."""
        cdef int i
        for i in range(2):
            if mf_overlap(src, size, self.outputs[i].data, self.outputs[i].room):
                return copy_bytes(src, size)
        return None

    cdef object done(self, size_t consumed):
        return DemuxedInto(consumed, self.outputs[0].size, self.outputs[1].size)


cdef uint32_t limit_of(object max_frame_size) except? 0:
    check_limit(max_frame_size)
    return UINT32_MAX if max_frame_size is None else min(max_frame_size, MAX_PAYLOAD_SIZE)


# --- the incremental demultiplexer -----------------------------------------------------------------------------------


cdef class Demuxer:
    """Demuxer(*, max_frame_size=None, check_reserved=True, raw=False)\n--\n\n\
    Take a multiplexed stream apart as it arrives, without doing any I/O.

    Feed it what comes off the wire, cut anywhere; it remembers at most an unfinished header (and, of a systemerr
    frame, the text up to 64 KiB). Safe to share between threads: calls take turns.

    Args:
        max_frame_size: largest payload a header may announce, in bytes; None allows the wire's 4 GiB - 1. Memory does
            not depend on it: it is a guard against nonsense.
        check_reserved: refuse headers whose bytes 1..3 are not zero. No engine sends such.
        raw: the stream is that of a TTY, which is not framed: all of it is stdout, and it may end anywhere.

    Raises:
        TypeError, ValueError: max_frame_size is not a size.

    >>> demuxer = Demuxer()
    >>> demuxer.feed(b"\\x01\\0\\0\\0\\0\\0\\0\\x05he")
    [(<Stream.STDOUT: 1>, b'he')]
    >>> demuxer.feed(b"llo\\x02\\0\\0\\0\\0\\0\\0\\x02no")
    [(<Stream.STDOUT: 1>, b'llo'), (<Stream.STDERR: 2>, b'no')]
    >>> demuxer.feed_eof()
    """

    def __cinit__(self):
        self.turn = _Turn()
        self.state.limit = UINT32_MAX

    def __init__(self, *, max_frame_size=None, check_reserved=True, raw=False):
        cdef uint32_t limit = limit_of(max_frame_size)
        cdef bint is_checked = bool(check_reserved), is_raw = bool(raw)
        self.turn.enter(self)
        self.state.limit = limit
        self.state.check_reserved = is_checked
        self.max_frame_size = max_frame_size
        self.raw = is_raw
        if is_raw:  # inside a frame of stdout that never ends
            self.state.header[0] = 1
            self.state.header_size = MF_HEADER_SIZE
            self.state.remaining = UINT64_MAX
        self.turn.leave()

    @property
    def offset(self):
        """Bytes taken off the wire so far."""
        return mf_look(&self.state.offset)

    @property
    def frames(self):
        """Whole frames taken so far, empty ones included."""
        return mf_look(&self.state.frames)

    def feed(self, data, /):
        cdef Py_buffer view
        acquire(data, &view, "data", False)
        try:
            return self.take(<const uint8_t *>view.buf, <size_t>view.len)
        finally:
            PyBuffer_Release(&view)

    def feed_into(self, data, stdout, stderr, /):
        return self.take_into(data, stdout, stderr, False, 0)

    def _feed_into(self, data, stdout, stderr, ordered, start, /):
        return self.take_into(data, stdout, stderr, ordered, start)

    def get_buffer(self, sizehint=-1, /):
        cdef _Block block
        with cython.critical_section(self):  # no turn: a call that takes bytes may last
            if self.receive_buffer is None:
                self.receive_buffer = new_block(RECEIVE_BUFFER_SIZE)
                memset(self.receive_buffer.data, 0, RECEIVE_BUFFER_SIZE)
            block = self.receive_buffer
        return PyMemoryView_FromObject(block)

    def buffer_updated(self, nbytes, /):
        cdef Py_ssize_t size = PyNumber_AsSsize_t(nbytes, NULL)
        cdef _Block block
        with cython.critical_section(self):
            block = self.receive_buffer or NO_BLOCK
        if not 0 <= size <= <Py_ssize_t>block.size:
            raise ValueError(f"nbytes is {nbytes}, the buffer has {block.size}")
        return self.take(block.data, <size_t>size)

    def feed_eof(self):
        self.turn.enter(self)
        try:
            if self.fault is not None:
                raise again(self.fault)
            self.closed = True
            if self.text is not None:
                self.fail(DaemonError(_decode(self.text), self.state.frame_offset))
            if self.state.remaining and not self.raw:
                self.fail(TruncatedStreamError(self.state.frame_offset, self.header(), self.state.remaining))
            if 0 < self.state.header_size < MF_HEADER_SIZE:
                missing = MF_HEADER_SIZE - self.state.header_size
                self.fail(TruncatedStreamError(self.state.frame_offset, self.header(), missing))
        finally:
            self.turn.leave()

    cdef list take(self, const uint8_t *src, size_t size):
        cdef const uint8_t *end = src + size
        cdef mf_state *state = &self.state
        cdef size_t taken = 0
        cdef list chunks = []
        self.begin()
        try:
            while src < end:
                if state.remaining == 0:
                    self.check_header(mf_take_header(state, src, <size_t>(end - src), &taken))
                elif self.text is not None:
                    taken = self.take_text(src, <size_t>(end - src))
                else:
                    taken = <size_t>min(state.remaining, <uint64_t>(end - src))
                    chunks.append((STREAMS[state.header[0]], copy_bytes(src, taken)))
                    state.remaining -= taken
                    mf_count(&state.offset, taken)
                    if state.remaining == 0:
                        mf_count(&state.frames, 1)
                src += taken
        except (FramingError, DaemonError) as fault:
            fault.chunks = chunks
            raise
        except MemoryError:
            self.is_lost = True
            raise
        finally:
            self.turn.leave()
        return chunks

    cdef object take_into(self, object data, object stdout, object stderr, bint ordered, Py_ssize_t start):
        cdef Py_buffer view
        cdef const uint8_t *src
        cdef size_t size, taken = 0, consumed = 0
        cdef uint64_t first
        cdef mf_status status = MF_MORE
        cdef _Outputs held = None
        cdef bytes copied
        acquire(data, &view, "data", False)
        try:
            if not 0 <= start <= view.len:
                raise ValueError("start lies outside of data")
            held = _Outputs(stdout, stderr)
            src = <const uint8_t *>view.buf + start
            size = <size_t>(view.len - start)
            copied = held.unshared(src, size)
            if copied is not None:
                src = <const uint8_t *>PyBytes_AS_STRING(copied)
            self.begin()
            first = self.state.offset
            try:
                if self.text is not None:
                    consumed = self.take_text(src, size)
                if size - consumed >= NOGIL_SIZE:
                    with nogil:
                        status = mf_feed_into(
                            &self.state, src + consumed, size - consumed, held.outputs, ordered, &taken
                        )
                else:
                    status = mf_feed_into(&self.state, src + consumed, size - consumed, held.outputs, ordered, &taken)
                consumed += taken
                self.check_header(status)
                if self.text is not None and consumed < size:
                    consumed += self.take_text(src + consumed, size - consumed)
                return held.done(consumed)
            except (FramingError, DaemonError) as fault:
                fault.delivered = held.done(max(0, fault.offset - first))
                raise
            finally:
                self.turn.leave()
        finally:
            if held is not None:
                held.release()
            PyBuffer_Release(&view)

    cdef int begin(self) except -1:
        """Begin a call that takes bytes; it ends with turn.leave()."""
        self.turn.enter(self)
        try:
            if self.fault is not None:
                raise again(self.fault)
            if self.is_lost:
                raise RuntimeError("the Demuxer ran out of memory inside a call and has lost its place")
            if self.closed:
                raise ValueError("feed after feed_eof")
        except BaseException:
            self.turn.leave()
            raise
        return 0

    cdef int check_header(self, mf_status status) except -1:
        """Act on what a loop has said of the header it stopped at."""
        if status == MF_FAULT:
            self.fail(
                header_error(
                    self.header(),
                    self.state.frame_offset,
                    max_frame_size=self.max_frame_size,
                    check_reserved=self.state.check_reserved,
                )
            )
        if status == MF_TEXT:
            self.text = bytearray()
            self.finish_text()
        return 0

    cdef size_t take_text(self, const uint8_t *src, size_t size) except? 0:
        """Take what there is of a daemon's error text; raise it as soon as enough of it is there."""
        size = min(size, <size_t>self.state.remaining, MAX_SYSTEMERR_SIZE - <size_t>len(self.text))
        self.text += copy_bytes(src, size)
        self.state.remaining -= size
        mf_count(&self.state.offset, size)
        self.finish_text()
        return size

    cdef int finish_text(self) except -1:
        if self.state.remaining == 0 or <size_t>len(self.text) == MAX_SYSTEMERR_SIZE:
            self.fail(DaemonError(_decode(self.text), self.state.frame_offset))
        return 0

    cdef bytes header(self):
        return copy_bytes(self.state.header, self.state.header_size)

    cdef int fail(self, object fault) except -1:
        self.fault = again(fault)  # not fault itself: its traceback would keep frames alive
        raise fault


cdef bytes copy_bytes(const uint8_t *src, size_t size):
    return PyBytes_FromStringAndSize(<const char *>src, <Py_ssize_t>size)


# --- whole buffers ---------------------------------------------------------------------------------------------------


def demux(data, /, *, max_frame_size=None, check_reserved=True, truncated="error"):
    cdef uint32_t limit = limit_of(max_frame_size)
    check_truncated(truncated)
    cdef Py_buffer view
    cdef const uint8_t *src
    cdef size_t taken, size
    cdef size_t sizes[2]
    cdef bint checked = bool(check_reserved)
    cdef Demuxer rest
    acquire(data, &view, "data", False)
    try:
        src = <const uint8_t *>view.buf
        size = <size_t>view.len
        with nogil:
            taken = mf_measure(src, size, sizes, limit, checked)
        rest = Demuxer(max_frame_size=max_frame_size, check_reserved=checked)
        rest.state.offset = taken
        tail = ()
        fault = None
        try:  # at most one frame more: mf_measure stopped at the first that is not whole and valid
            tail = rest.take(src + taken, size - taken)
            rest.feed_eof()
        except (FramingError, DaemonError) as error:
            fault = error
            tail = fault.chunks or tail
        outputs = join(src, taken, sizes, limit, checked, tail)
        if fault is not None and not (truncated == "ignore" and isinstance(fault, TruncatedStreamError)):
            fault.chunks = [pair for pair in zip((Stream.STDOUT, Stream.STDERR), outputs) if pair[1]]
            raise fault
        return Demuxed(*outputs)
    finally:
        PyBuffer_Release(&view)


cdef tuple join(const uint8_t *src, size_t size, size_t sizes[2], uint32_t limit, bint checked, object tail):
    """Copy the payload of measured frames, and of the frame behind them, into one bytes object an output."""
    cdef mf_output outputs[2]
    cdef uint64_t frames = 0
    cdef size_t taken
    cdef int i
    cdef list results = []
    for i in range(2):
        extra = sum([len(payload) for stream, payload in tail if stream >> 1 == i])
        results.append(PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(sizes[i] + <size_t>extra)))
        outputs[i].data = <uint8_t *>PyBytes_AS_STRING(results[i])  # nobody else has seen the object yet
        outputs[i].room = sizes[i]
        outputs[i].size = 0
    with nogil:
        taken = mf_take_whole_frames(src, size, outputs, limit, checked, &frames)
    if taken != size or outputs[0].size != sizes[0] or outputs[1].size != sizes[1]:
        raise BufferError("data was changed during the call")
    for stream, payload in tail:
        i = stream >> 1
        memcpy(outputs[i].data + outputs[i].size, PyBytes_AS_STRING(payload), <size_t>len(payload))
        outputs[i].size += <size_t>len(payload)
    return tuple(results)


def demux_into(data, stdout, stderr, /, *, max_frame_size=None, check_reserved=True):
    cdef uint32_t limit = limit_of(max_frame_size)
    cdef bint checked = bool(check_reserved)
    cdef Py_buffer view
    cdef const uint8_t *src
    cdef size_t size, taken
    cdef uint64_t frames = 0
    cdef _Outputs held = None
    cdef bytes copied
    acquire(data, &view, "data", False)
    try:
        held = _Outputs(stdout, stderr)
        src = <const uint8_t *>view.buf
        size = <size_t>view.len
        copied = held.unshared(src, size)
        if copied is not None:
            src = <const uint8_t *>PyBytes_AS_STRING(copied)
        if size >= NOGIL_SIZE:
            with nogil:
                taken = mf_take_whole_frames(src, size, held.outputs, limit, checked, &frames)
        else:
            taken = mf_take_whole_frames(src, size, held.outputs, limit, checked, &frames)
        done = held.done(taken)
        if taken < size:
            rooms = [None if output is None else held.views[i].len for i, output in enumerate((stdout, stderr))]
            rest = readable(data if copied is None else copied)[taken:]
            check_rest(rest, done, rooms, max_frame_size=max_frame_size, check_reserved=check_reserved)
        return done
    finally:
        if held is not None:
            held.release()
        PyBuffer_Release(&view)


def pack_frame(stream, payload, /):
    cdef Py_ssize_t number = PyNumber_AsSsize_t(stream, NULL)
    if not 0 <= number <= MF_SYSTEMERR:
        raise ValueError(f"stream must be 0..3, not {stream}")
    cdef Py_buffer view
    cdef uint8_t *p
    cdef size_t size
    acquire(payload, &view, "payload", False)
    try:
        if view.len > MAX_PAYLOAD_SIZE:
            raise ValueError(f"payload of {view.len} bytes does not fit into a frame")
        size = <size_t>view.len
        frame = PyBytes_FromStringAndSize(NULL, <Py_ssize_t>(MF_HEADER_SIZE + size))
        p = <uint8_t *>PyBytes_AS_STRING(frame)
        p[0] = <uint8_t>number
        p[1] = p[2] = p[3] = 0
        p[4] = size >> 24
        p[5] = (size >> 16) & 0xFF
        p[6] = (size >> 8) & 0xFF
        p[7] = size & 0xFF
        memcpy(p + MF_HEADER_SIZE, <const uint8_t *>view.buf or &NOTHING, size)
        return frame
    finally:
        PyBuffer_Release(&view)


# --- whole frames ----------------------------------------------------------------------------------------------------


cdef int export(Py_buffer *view, object owner, uint8_t *data, size_t size, bint readonly, int flags) except -1:
    """Fill in what __getbuffer__ returns. (PyBuffer_FillInfo would leak the reference Cython has put into view.obj.)"""
    if readonly and flags & PyBUF_WRITABLE:
        raise BufferError("Object is not writable.")
    view.obj = owner
    view.buf = data
    view.len = <Py_ssize_t>size
    view.readonly = readonly
    view.itemsize = 1
    view.format = FORMAT if flags & PyBUF_FORMAT else NULL
    view.ndim = 1
    view.shape = &view.len if flags & PyBUF_ND else NULL
    view.strides = &view.itemsize if (flags & PyBUF_STRIDES) == PyBUF_STRIDES else NULL
    view.suboffsets = NULL
    view.internal = NULL
    return 0


@cython.no_gc
@cython.final
cdef class _Block:
    """Memory that frames point into: its own, or borrowed from an object that exports it."""

    def __cinit__(self):
        self.own = NULL

    def __dealloc__(self):
        PyMem_RawFree(self.own)
        PyBuffer_Release(&self.view)

    def __getbuffer__(self, Py_buffer *view, int flags):
        export(view, self, self.data, self.size, self.own is NULL, flags)


cdef _Block new_block(size_t size):
    cdef _Block block = _Block.__new__(_Block)
    block.own = PyMem_RawMalloc(size)
    if block.own is NULL:
        raise MemoryError
    block.data = <uint8_t *>block.own
    block.size = size
    return block


cdef _Block NO_BLOCK = new_block(0)


cdef _Block borrow(object data, str name):
    """Borrow an object's memory: it can be neither freed nor resized while the block lives."""
    cdef _Block block = _Block.__new__(_Block)
    acquire(data, &block.view, name, False)
    block.data = <uint8_t *>block.view.buf or &NOTHING
    block.size = <size_t>block.view.len
    return block


@cython.no_gc
@cython.final
@cython.freelist(256)
cdef class Frame:
    """Frame(stream, payload, /)\n--\n\n\
    One whole frame: which stream, and its payload.

    Unpacks as `stream, payload`; `bytes(frame)` copies the payload, `len(frame)` is its size in bytes. Immutable,
    hashable, equal to a frame of the same stream and payload.

    >>> stream, payload = Frame(Stream.STDOUT, b"hi")
    >>> stream, bytes(payload)
    (<Stream.STDOUT: 1>, b'hi')
    """

    def __init__(self, stream, payload, /):
        number = Stream(stream)
        cdef _Block block = borrow(payload, "payload")
        cdef uint8_t value = number
        with cython.critical_section(self):
            if self.block is not None:  # asked last: what is above may have run anything
                raise TypeError("Frame is immutable")  # views of its memory may be around
            self.block = block
            self.number = value
            self.data = block.data
            self.size = block.size

    @property
    def stream(self):
        """Which of the container's streams."""
        return STREAMS[self.number]

    @property
    def payload(self):
        """The payload: a read-only view, which keeps the memory it was received in as long as it lives."""
        return PyMemoryView_FromObject(self)

    def __getbuffer__(self, Py_buffer *view, int flags):
        export(view, self, <uint8_t *>self.data, self.size, True, flags)

    def __iter__(self):
        return iter((STREAMS[self.number], PyMemoryView_FromObject(self)))

    def __bytes__(self):
        return copy_bytes(self.data, self.size)

    def __len__(self):
        return <Py_ssize_t>self.size

    def __eq__(self, other):
        if not isinstance(other, Frame):
            return NotImplemented
        cdef Frame that = other
        return self.number == that.number and self.size == that.size and memcmp(self.data, that.data, self.size) == 0

    def __hash__(self):
        return hash((self.number, copy_bytes(self.data, self.size)))

    def __repr__(self):
        return f"Frame({STREAMS[self.number]!r}, {copy_bytes(self.data, self.size)!r})"

    def __reduce__(self):
        return Frame, (self.number, copy_bytes(self.data, self.size))


cdef class FrameReader:
    """FrameReader(source, /, *, max_frame_size=DEFAULT_MAX_FRAME_SIZE, check_reserved=True,
    truncated='error', raise_systemerr=True)\n--\n\n\
    Iterate over whole frames: what `muxframe.frames` returns.

    Args:
        source: memory that holds the whole stream, or a callable `readinto(memoryview) -> int` that fills the
            beginning of the memory it is given and returns 0 at the end. Read-only memory is not copied: frames point
            into it. What readinto raises passes through, and iteration can go on afterwards.
        max_frame_size: largest payload, in bytes; a frame is held in memory whole. None allows 4 GiB - 1.
        check_reserved: as for Demuxer.
        truncated: what an end inside a frame is: "error" raises, "ignore" drops the unfinished frame.
        raise_systemerr: raise a systemerr frame as DaemonError; otherwise it is a frame like any other.

    Raises:
        FramingError, DaemonError: by `next`, after all frames before the fault; every later `next` raises the same.
            A truncated frame's partial payload is in `exc.chunks`.
        ValueError: by `next`: readinto returned more than it was given room for.
    """

    def __cinit__(self):
        self.turn = _Turn()
        self.block = NO_BLOCK
        self.eof = True

    def __init__(
        self,
        source,
        /,
        *,
        max_frame_size=DEFAULT_MAX_FRAME_SIZE,
        check_reserved=True,
        truncated="error",
        raise_systemerr=True,
    ):
        cdef _Block block
        self.turn.enter(self)
        try:
            if self.block is not NO_BLOCK:
                raise TypeError("FrameReader is initialised already")
            self.limit = limit_of(max_frame_size)
            check_truncated(truncated)
            self.max_frame_size = max_frame_size
            self.mask = 0xFFFFFFFF if check_reserved else 0xFF
            self.ignore_truncated = truncated == "ignore"
            self.last_stream = MF_SYSTEMERR - 1 if raise_systemerr else MF_SYSTEMERR
            if callable(source):
                self.readinto = source
                self.put(new_block(BLOCK_SIZE), 0)
                self.eof = False
            else:
                view = readable(source)
                block = borrow(view if view.readonly else bytes(view), "data")
                self.put(block, block.size)
        finally:
            self.turn.leave()

    def __iter__(self):
        return self

    def __next__(self):
        cdef Frame frame
        with cython.critical_section(self):  # any thread may, also while another one reads
            frame = self.take()
        if frame is None:
            frame = self.read_and_take()
        return frame

    cdef int put(self, _Block block, size_t end) except -1:
        """Have frames taken out of another block, from its beginning."""
        cdef _Block _old = self.block  # lives on until the others see the new one
        with cython.critical_section(self):
            self.block = block
            self.position = 0
            self.end = end
        return 0

    cdef Frame take(self):
        """Take a whole, valid frame out of the block, or None: nothing here calls into Python."""
        if self.end - self.position < MF_HEADER_SIZE:  # position <= end
            return None
        cdef const uint8_t *p = self.block.data + self.position
        cdef uint32_t kind = mf_le32(p) & self.mask
        cdef uint32_t size = mf_be32(p + 4)
        MF_READ_ONCE(kind)
        MF_READ_ONCE(size)
        if kind > self.last_stream or size > self.limit or size > self.end - self.position - MF_HEADER_SIZE:
            return None
        cdef Frame frame = Frame.__new__(Frame)
        frame.block = self.block
        frame.number = <uint8_t>kind
        frame.data = p + MF_HEADER_SIZE
        frame.size = size
        self.position += MF_HEADER_SIZE + <size_t>size
        self.offset += MF_HEADER_SIZE + <size_t>size
        return frame

    cdef Frame read_and_take(self):
        """Read until there is a whole frame; raise what is wrong, or StopIteration.

        Where `take` has found none, only this thread, whose turn it is, changes anything until it has read more.
        """
        cdef Frame frame
        cdef size_t needed
        self.turn.enter(self)
        try:
            if self.fault is not None:
                raise again(self.fault)
            while True:
                with cython.critical_section(self):
                    frame = self.take()
                if frame is not None:
                    return frame
                needed = self.next_frame_size()
                if self.eof:
                    self.finish(needed)
                self.read_more(needed)
        finally:
            self.turn.leave()

    cdef size_t next_frame_size(self) except 0:
        """Return the bytes the next frame takes on the wire, as far as its header tells; raise what is wrong in it."""
        cdef bytes header = copy_bytes(self.block.data + self.position, min(MF_HEADER_SIZE, self.end - self.position))
        if not header:
            return MF_HEADER_SIZE
        fault = header_error(
            header, self.offset, max_frame_size=self.max_frame_size, check_reserved=self.mask == 0xFFFFFFFF
        )
        if fault is not None:
            self.fail(fault)
        if len(header) < MF_HEADER_SIZE:
            return MF_HEADER_SIZE
        cdef size_t size = mf_be32(<const uint8_t *>PyBytes_AS_STRING(header) + 4)
        cdef size_t there
        if header[0] > self.last_stream:
            size = min(size, MAX_SYSTEMERR_SIZE)
            there = min(size, self.end - self.position - MF_HEADER_SIZE)
            if there == size or self.eof:
                text = copy_bytes(self.block.data + self.position + MF_HEADER_SIZE, there)
                self.fail(DaemonError(_decode(text), self.offset))
        return MF_HEADER_SIZE + size

    cdef int read_more(self, size_t needed) except -1:
        """Read once, behind what is there; move to a new block where the next frame has no room in this one.

        A new block is twice what has arrived of the frame, not what its header claims.
        """
        cdef size_t have = self.end - self.position
        cdef size_t room = self.block.size - self.position
        cdef _Block block
        if room < needed and (self.end == self.block.size or room < BLOCK_SIZE):
            block = new_block(max(BLOCK_SIZE, min(needed, 2 * have)))
            memcpy(block.data, self.block.data + self.position, have)  # have <= block.size
            self.put(block, have)
        room = self.block.size - self.end
        cdef Py_ssize_t size = self.readinto(PyMemoryView_FromObject(self.block)[self.end :])
        if not 0 <= size <= <Py_ssize_t>room:
            raise ValueError(f"source returned {size} bytes where {room} were asked for")
        with cython.critical_section(self):
            self.end += <size_t>size
        self.eof = size == 0
        return 0

    cdef int finish(self, size_t needed) except -1:
        """End the iteration: nothing is left, or the beginning of a frame."""
        cdef bytes rest = copy_bytes(self.block.data + self.position, self.end - self.position)
        if not rest or self.ignore_truncated:
            raise StopIteration
        header, payload = rest[:MF_HEADER_SIZE], rest[MF_HEADER_SIZE:]
        chunks = [(STREAMS[header[0]], payload)] if payload else []
        self.fail(TruncatedStreamError(self.offset, header, needed - <size_t>len(rest), chunks))

    cdef int fail(self, object fault) except -1:
        self.fault = again(fault)  # not fault itself: its traceback would keep frames alive
        raise fault


# --- between descriptors ---------------------------------------------------------------------------------------------


cdef class Pump:
    """Copy between file descriptors without the GIL: what `copy` uses where it can. The Python twin has none.

    Args:
        demuxer: takes the wire apart.
        source: file descriptor to read; non-blocking ones are waited for.
        stdout, stderr: file descriptors to write, or -1 to discard.
        block_size: bytes read at once.
        ordered: keep the order across the two sinks.
        delay: seconds to let bytes gather after a short read of a source that already has more.
    """

    def __init__(self, Demuxer demuxer not None, int source, int stdout, int stderr, size_t block_size, bint ordered,
                 double delay):
        cdef uint8_t *memory
        cdef int i
        if self.demuxer is not None:
            raise TypeError("Pump is initialised already")
        self.memory = bytearray(3 * block_size)
        memory = <uint8_t *>PyByteArray_AS_STRING(self.memory)
        self.demuxer = demuxer
        self.pump.source = source
        self.pump.sinks = [stdout, stderr]
        self.pump.block = memory
        self.pump.block_size = block_size
        for i in range(2):
            self.pump.outputs[i].data = memory + (i + 1) * block_size
            self.pump.outputs[i].room = block_size
        self.pump.ordered = ordered
        self.pump.delay = <uint64_t>(delay * 1e9)
        self.pump.watch_signals = current_thread() is main_thread()

    @property
    def sizes(self):
        """Payload bytes written or discarded, of each output."""
        return self.pump.sizes[0], self.pump.sizes[1]

    @property
    def pending(self):
        """What was taken apart but not written, of each output."""
        cdef mf_output *out = self.pump.outputs
        cdef size_t *written = self.pump.written
        return [copy_bytes(out[i].data + written[i], out[i].size - written[i]) for i in range(2)]

    @property
    def rest(self):
        """What was read but not taken apart."""
        return copy_bytes(self.pump.block + self.pump.start, self.pump.end - self.pump.start)

    def run(self):
        """Copy until the source ends.

        Returns:
            True at the end; False where others have to go on with `rest`: inside a systemerr frame, or where this
            platform has no such loop.

        Raises:
            FramingError, DaemonError: as Demuxer.feed; everything before is written.
            OSError: the source failed and everything read is written; or a sink did: then `failed` says which, and
                `pending` and `rest` hold what was not delivered.
            Exception: whatever a signal handler raised; another call goes on.
        """
        cdef mf_pump_result result = MF_PUMP_SIGNAL
        if self.demuxer is None:
            raise TypeError("Pump is not initialised")
        self.demuxer.begin()
        try:
            if self.demuxer.text is not None:
                return False
            while result == MF_PUMP_SIGNAL:
                with nogil:
                    result = mf_pump_run(&self.pump, &self.demuxer.state)
                PyErr_CheckSignals()
            if result == MF_PUMP_FAULT:
                self.demuxer.check_header(self.pump.status)
            elif result == MF_PUMP_SINK:
                self.failed = self.pump.failed
            if result in (MF_PUMP_SINK, MF_PUMP_SOURCE):
                raise OSError(self.pump.error, strerror(self.pump.error))
            return result == MF_PUMP_END
        finally:
            self.demuxer.turn.leave()


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
