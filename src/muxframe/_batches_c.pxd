# The fields of the compiled columnar core, one line each.

from libc.stdint cimport int32_t, int64_t, uint8_t

from ._lines_c cimport _Splitter, mfl_rows


cdef extern from "_arrow.h" nogil:
    struct ArrowSchema:
        void (*release)(ArrowSchema *)

    struct ArrowArray:
        void (*release)(ArrowArray *)

    struct ArrowArrayStream:
        int (*get_schema)(ArrowArrayStream *, ArrowSchema *out)
        int (*get_next)(ArrowArrayStream *, ArrowArray *out)
        const char *(*get_last_error)(ArrowArrayStream *)
        void (*release)(ArrowArrayStream *)
        void *private_data

    ctypedef enum mfb_line_type:
        MFB_LARGE_BINARY
        MFB_LARGE_UTF8
        MFB_BINARY_VIEW

    ctypedef struct mfb_shape:
        bint timestamps
        bint details
        bint source
        mfb_line_type line_type

    ctypedef struct mfb_batch:
        mfb_shape shape
        mfl_rows *rows
        uint8_t *timed          # bitmap of the rows with a timestamp; NULL: all of them
        uint8_t *attributed     # bitmap of the rows with details; NULL: all of them

    mfb_batch *mfb_new(mfl_rows *rows, mfb_shape shape, const char *source, size_t source_size)
    void mfb_unref(mfb_batch *batch)
    bint mfb_bit(const uint8_t *bits, size_t i)
    bint mfb_is_ascii(const uint8_t *p, size_t size)
    bint mfb_is_utf8(const uint8_t *p, size_t size)
    bint mfb_export_schema(mfb_shape shape, ArrowSchema *out)
    bint mfb_export_array(mfb_batch *batch, ArrowArray *out)


cdef class LineBatch:
    cdef object __weakref__
    cdef mfb_batch *batch       # one reference of it is this object's
    cdef object name            # of the source, or None

    cdef mfb_batch *get(self) except NULL
    cdef object column(self, const void *data, size_t size, Py_ssize_t item_size, char *format)


cdef class _Column:
    cdef LineBatch owner        # of the memory
    cdef const void *data
    cdef Py_ssize_t size        # bytes
    cdef Py_ssize_t item_size
    cdef Py_ssize_t length
    cdef char *format


cdef class BatchBuilder(_Splitter):
    cdef mfb_shape shape
    cdef object source          # a str, or None
    cdef bytes source_bytes     # of it in UTF-8

    cdef list completed(self, bint all_of_them)
    cdef LineBatch make_batch(self, mfl_rows *rows)


cdef class _Stream:
    cdef mfb_shape shape
    cdef object batches         # an iterator
    cdef bytes error            # text of the last one
