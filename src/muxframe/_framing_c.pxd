# The fields of the compiled core, one line each.

from libc.stdint cimport uint8_t, uint32_t, uint64_t

cdef extern from "_framing.h" nogil:
    enum:
        MF_HEADER_SIZE
        MF_SYSTEMERR

    ctypedef struct mf_state:
        uint64_t offset         # wire bytes taken
        uint64_t frame_offset   # where the current frame's header begins
        uint64_t frames         # whole frames taken
        uint64_t remaining      # payload bytes of the current frame still due
        uint32_t limit          # largest payload a header may announce
        uint8_t header[8]       # of the current frame
        uint8_t header_size     # bytes of it that are there
        uint8_t check_reserved

    ctypedef struct mf_output:
        uint8_t *data           # NULL: discard
        size_t room
        size_t size

    ctypedef enum mf_status:
        MF_MORE
        MF_FULL
        MF_FAULT
        MF_TEXT

    uint64_t mf_look(const uint64_t *count)
    void mf_set(uint64_t *count, uint64_t value)
    void mf_count(uint64_t *count, uint64_t more)
    void MF_READ_ONCE(uint32_t value)
    uint32_t mf_le32(const uint8_t *p)
    uint32_t mf_be32(const uint8_t *p)
    bint mf_overlap(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
    size_t mf_measure(const uint8_t *src, size_t size, size_t *sizes, uint32_t limit, bint check_reserved)
    size_t mf_take_whole_frames(const uint8_t *src, size_t size, mf_output *outputs, uint32_t limit,
                                bint check_reserved, uint64_t *frames)
    mf_status mf_take_header(mf_state *state, const uint8_t *src, size_t size, size_t *taken)
    mf_status mf_feed_into(mf_state *state, const uint8_t *src, size_t size, mf_output *outputs, bint ordered,
                           size_t *consumed)


cdef extern from "_pump.h" nogil:
    ctypedef enum mf_pump_result:
        MF_PUMP_END
        MF_PUMP_SIGNAL
        MF_PUMP_FAULT
        MF_PUMP_SOURCE
        MF_PUMP_SINK
        MF_PUMP_UNSUPPORTED

    ctypedef struct mf_pump:
        int source              # file descriptor
        int sinks[2]            # file descriptors; -1: discard
        uint8_t *block          # block[start:end] was read and is to be taken apart
        size_t block_size
        size_t start
        size_t end
        mf_output outputs[2]    # data[written:size] is to be written
        size_t written[2]
        uint64_t sizes[2]       # payload bytes written or discarded
        uint64_t delay          # nanoseconds
        int ordered
        int watch_signals       # this thread is the one that runs signal handlers
        int failed              # which sink
        int error               # errno
        mf_status status        # why mf_feed_into stopped

    mf_pump_result mf_pump_run(mf_pump *pump, mf_state *state)


cdef int acquire(object obj, Py_buffer *view, str name, bint write) except -1
cdef bytes copy_bytes(const uint8_t *src, size_t size)


cdef class _Turn:
    cdef void *lock             # PyThread_type_lock
    cdef uint64_t owner         # the thread inside, 0 for none

    cdef int enter(self, object obj) except -1
    cdef void leave(self) noexcept


cdef class _Outputs:
    cdef Py_buffer views[2]     # held from construction to release()
    cdef mf_output outputs[2]   # into them

    cdef void release(self) noexcept
    cdef bytes unshared(self, const uint8_t *src, size_t size)
    cdef object done(self, size_t consumed)


cdef class _Block:
    cdef void *own              # allocated here, or NULL
    cdef Py_buffer view         # borrowed, or empty
    cdef uint8_t *data
    cdef size_t size


cdef class Demuxer:
    cdef object __weakref__
    cdef _Turn turn
    cdef mf_state state
    cdef object max_frame_size  # as given; state.limit is what the loops compare with
    cdef bytearray text         # of a systemerr frame, while inside one
    cdef object fault           # what every later call raises
    cdef bint is_lost           # memory ran out inside feed
    cdef bint raw               # not framed: all of it is stdout
    cdef bint closed            # feed_eof was called
    cdef _Block receive_buffer  # None until it is asked for

    cdef list take(self, const uint8_t *src, size_t size)
    cdef object take_into(self, object data, object stdout, object stderr, bint ordered, Py_ssize_t start)
    cdef int begin(self) except -1
    cdef int check_header(self, mf_status status) except -1
    cdef size_t take_text(self, const uint8_t *src, size_t size) except? 0
    cdef int finish_text(self) except -1
    cdef bytes header(self)
    cdef int fail(self, object fault) except -1


cdef class Frame:
    cdef _Block block           # owns the memory
    cdef const uint8_t *data    # the payload, inside block
    cdef size_t size
    cdef uint8_t number         # 0..3


cdef class FrameReader:
    cdef object __weakref__
    cdef _Turn turn             # held while reading
    cdef object readinto        # None where the block is all there is
    cdef _Block block           # frames[position:end] are to come
    cdef size_t position        # of the next header; <= end
    cdef size_t end             # of what was read; <= block.size
    cdef uint64_t offset        # in the wire, of position
    cdef object max_frame_size  # as given
    cdef uint32_t limit
    cdef uint32_t mask          # which header bits must be 0..2: all four bytes, or the first
    cdef uint32_t last_stream   # that is a frame like any other: 2, or 3
    cdef bint ignore_truncated
    cdef bint eof
    cdef object fault           # what every later call raises

    cdef Frame take(self)
    cdef int put(self, _Block block, size_t end) except -1
    cdef Frame read_and_take(self)
    cdef size_t next_frame_size(self) except 0
    cdef int read_more(self, size_t needed) except -1
    cdef int finish(self, size_t needed) except -1
    cdef int fail(self, object fault) except -1


cdef class Pump:
    cdef Demuxer demuxer
    cdef mf_pump pump
    cdef bytearray memory       # block and both outputs, in one
    cdef readonly object failed  # index of the sink that failed, or None
