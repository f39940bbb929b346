# The fields of the compiled line core, one line each.

from libc.stdint cimport int8_t, int64_t, uint8_t, uint64_t

from ._framing_c cimport Demuxer, _Turn, mf_state, mf_status


cdef extern from "_lines.h" nogil:
    enum:
        MFL_PARTIAL
        MFL_TIMESTAMP
        MFL_DETAILS

    ctypedef struct mfl_bytes:
        uint8_t *data
        size_t size
        size_t room

    ctypedef struct mfl_rows:
        mfl_rows *next              # the set that was put aside after this one
        size_t count                # rows
        int8_t *streams
        uint8_t *flags
        int64_t *timestamps
        int64_t *offsets            # count + 1, into data
        int64_t *details_offsets    # count + 1, into details; NULL where none are asked for
        mfl_bytes data
        mfl_bytes details
        size_t partial              # how many rows are partial
        size_t untimed              # how many have no timestamp
        size_t plain                # how many have no details

    ctypedef struct mfl_splitter:
        mfl_rows *rows              # to append to; NULL until needed
        mfl_rows *full              # put aside, the oldest first
        bint in_head                # a prefix is due
        bint raw
        bint timestamps
        bint details
        bint no_memory
        size_t max_line_size
        size_t max_rows
        size_t max_bytes
        uint64_t invalid
        uint64_t offset             # of a raw stream

    void mfl_init(mfl_splitter *s)
    void mfl_free(mfl_splitter *s)
    void mfl_empty_rows(mfl_rows *rows)
    void mfl_drop_rows(mfl_splitter *s)
    void mfl_free_rows(mfl_rows *rows)
    void mfl_set_aside(mfl_splitter *s)
    bint mfl_prepare(mfl_splitter *s, size_t size)
    mf_status mfl_feed(mfl_splitter *s, mf_state *state, const uint8_t *src, size_t size, size_t *consumed)
    void mfl_feed_raw(mfl_splitter *s, const uint8_t *src, size_t size)
    void mfl_end_prefix(mfl_splitter *s, int stream)
    void mfl_close_all(mfl_splitter *s, bint partial)
    void mfl_flush(mfl_splitter *s)
    bint mfl_parse_timestamp(mfl_splitter *s, const uint8_t *p, size_t size, int64_t *timestamp, bint *whole)


cdef class Line:
    cdef uint8_t number         # 0..2
    cdef uint8_t flags          # MFL_PARTIAL, MFL_TIMESTAMP
    cdef int64_t when           # valid with MFL_TIMESTAMP
    cdef bytes content          # data
    cdef bytes prefix           # details


cdef class _Splitter:
    cdef object __weakref__
    cdef _Turn turn
    cdef Demuxer demuxer        # takes the frames apart
    cdef mfl_splitter core
    cdef object fault           # what every later call raises
    cdef bint closed            # feed_eof was called

    cdef int set_up(self, object raw, object timestamps, object details, object max_line_size, object max_frame_size,
                    object check_reserved) except -1
    cdef int begin(self) except -1
    cdef int begin_end(self) except -1
    cdef int take(self, const uint8_t *src, size_t size) except -1
    cdef int take_frames(self, const uint8_t *src, size_t size) except -1
    cdef int finish(self) except -1
    cdef int check_memory(self) except -1
    cdef int break_off(self, object fault) except -1


cdef class LineSplitter(_Splitter):
    cdef list lines(self)


cdef class LineReader:
    cdef object __weakref__
    cdef _Turn turn
    cdef _Splitter splitter
    cdef object readinto        # None where the block is all there is
    cdef object block           # a memoryview: to read into, or all there is
    cdef Py_ssize_t position    # in a block that is all there is
    cdef size_t next            # row of the splitter to hand out
    cdef size_t count           # of its rows
    cdef object fault           # raised when they are handed out
    cdef bint ignore_truncated
    cdef bint eof

    cdef int take_all(self, list lines) except -1
    cdef int split_off(self) except -1
    cdef Line take(self)
    cdef int read(self) except -1
    cdef int read_piece(self) except -1
    cdef object next_piece(self)
    cdef int split(self, const uint8_t *src, size_t size) except -1
