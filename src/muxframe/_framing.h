/* The hot loops of the frame core, in portable C11 without Python: what `_framing_py.py` specifies, over raw memory.
 *
 * A caller gives a state, a piece of wire and two outputs; a loop takes as much as it can and says why it stopped.
 * It allocates nothing, and reads and writes only inside [src, src + size) and [data, data + room).
 * Errors are only noticed here; the caller builds them.
 */
#ifndef MUXFRAME_FRAMING_H
#define MUXFRAME_FRAMING_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { MF_HEADER_SIZE = 8, MF_SYSTEMERR = 3 };

typedef struct {
    uint64_t offset;        /* wire bytes taken */
    uint64_t frame_offset;  /* where the current frame's header begins */
    uint64_t frames;        /* whole frames taken */
    uint64_t remaining;     /* payload bytes of the current frame still due; a raw stream is one that never ends */
    uint32_t limit;         /* largest payload a header may announce */
    uint8_t header[MF_HEADER_SIZE];
    uint8_t header_size;    /* bytes of it that are there; 8: the header of the frame at hand, or of the one before */
    uint8_t check_reserved;
} mf_state;

/* The outputs: [0] for streams 0 and 1, [1] for stream 2; the index is the stream's number >> 1. */
typedef struct {
    uint8_t *data;          /* NULL: discard, room is SIZE_MAX */
    size_t room;
    size_t size;            /* bytes written, or discarded */
} mf_output;

typedef enum {
    MF_MORE,                /* the input is used up */
    MF_FULL,                /* the output needed next is full (or, ordered, it is the other one's turn) */
    MF_FAULT,               /* state->header is no valid header */
    MF_TEXT                 /* inside a systemerr frame: the caller takes its payload */
} mf_status;

/* Compilers make one load of each, with a byte swap where needed. */
static inline uint32_t mf_le32(const uint8_t *p)
{
    return p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static inline uint32_t mf_be32(const uint8_t *p)
{
    return p[3] | (uint32_t)p[2] << 8 | (uint32_t)p[1] << 16 | (uint32_t)p[0] << 24;
}

/* Counters: written by the one thread that is inside, read by any at any time. They are never torn where the machine
 * can help it; no more is promised. */
#if defined(__GNUC__) && UINTPTR_MAX > UINT32_MAX
static inline uint64_t mf_look(const uint64_t *count)
{
    return __atomic_load_n(count, __ATOMIC_RELAXED);
}

static inline void mf_set(uint64_t *count, uint64_t value)
{
    __atomic_store_n(count, value, __ATOMIC_RELAXED);
}
#else
static inline uint64_t mf_look(const uint64_t *count)
{
    return *(const volatile uint64_t *)count;
}

static inline void mf_set(uint64_t *count, uint64_t value)
{
    *(volatile uint64_t *)count = value;
}
#endif

static inline void mf_count(uint64_t *count, uint64_t more)
{
    mf_set(count, *count + more);
}

/* Keep the compiler from reading a value again: another thread may change the wire, and what is used must be what was
 * checked. */
#ifdef __GNUC__
#define MF_READ_ONCE(value) __asm__("" : "+r"(value))
#else
#define MF_READ_ONCE(value) (void)(value)
#endif

/* Do two regions share memory? An output must not share any with the wire that is being taken apart. */
static inline int mf_overlap(const uint8_t *a, size_t a_size, const uint8_t *b, size_t b_size)
{
    return a && b && a_size && b_size && (uintptr_t)a < (uintptr_t)b + b_size && (uintptr_t)b < (uintptr_t)a + a_size;
}

enum { MF_STEP = 64, MF_INLINE = 64 * 1024 };

/* Copy size bytes. Up to MF_INLINE, where both sides have slack for a last step that is not full, they go in steps of
 * 64 without a library call: payload lies anywhere in the wire, and memcpy is at its best with aligned memory.
 * src_room and dst_room are the bytes readable and writable, both at least size. */
static inline void mf_copy(uint8_t *dst, size_t dst_room, const uint8_t *src, size_t src_room, size_t size)
{
    /* the last step ends at most at size + 63: inside both rooms. size + MF_STEP cannot overflow: size <= MF_INLINE */
    if (size <= MF_INLINE && dst_room >= size + MF_STEP && src_room >= size + MF_STEP) {
        for (size_t i = 0; i < size; i += MF_STEP)
            memcpy(dst + i, src + i, MF_STEP);
    } else {
        memcpy(dst, src, size);
    }
}

/* Take whole, valid frames of streams 0..2 that fit into their output. Stops before the first that is anything else.
 * Returns the wire bytes taken. */
static inline size_t mf_take_whole_frames(const uint8_t *src, size_t size, mf_output outputs[2], uint32_t limit,
                                          int check_reserved, uint64_t *frames)
{
    const uint8_t *p = src, *const end = src + size;
    const uint32_t mask = check_reserved ? 0xFFFFFFFFu : 0xFFu;
    uint64_t count = 0;
    while ((size_t)(end - p) >= MF_HEADER_SIZE) {
        uint32_t kind = mf_le32(p) & mask; /* the stream, and with the mask any reserved byte above it */
        uint32_t payload = mf_be32(p + 4);
        MF_READ_ONCE(kind);
        MF_READ_ONCE(payload);
        if (kind >= MF_SYSTEMERR || payload > limit)
            break;
        const size_t behind = (size_t)(end - p) - MF_HEADER_SIZE; /* >= 0 by the loop's condition */
        mf_output *const out = &outputs[kind >> 1]; /* kind is 0..2 */
        const size_t room = out->room - out->size;
        if (payload > behind || payload > room)
            break;
        p += MF_HEADER_SIZE;
        if (out->data)
            mf_copy(out->data + out->size, room, p, behind, payload); /* payload <= room, payload <= behind */
        out->size += payload;
        p += payload;
        count++;
    }
    *frames += count;
    return (size_t)(p - src);
}

/* How many payload bytes the whole, valid frames of streams 0..2 carry for each output. Returns the wire bytes they take. */
static inline size_t mf_measure(const uint8_t *src, size_t size, size_t sizes[2], uint32_t limit, int check_reserved)
{
    mf_output outputs[2] = {{NULL, SIZE_MAX, 0}, {NULL, SIZE_MAX, 0}};
    uint64_t frames = 0;
    const size_t taken = mf_take_whole_frames(src, size, outputs, limit, check_reserved, &frames);
    sizes[0] = outputs[0].size;
    sizes[1] = outputs[1].size;
    return taken;
}

static inline int mf_header_is_bad(const mf_state *state)
{
    if (state->header[0] > MF_SYSTEMERR)
        return 1;
    if (state->header_size < MF_HEADER_SIZE)
        return 0;
    return (state->check_reserved && (state->header[1] | state->header[2] | state->header[3])) ||
           mf_be32(state->header + 4) > state->limit;
}

/* Take what there is of a header (size > 0, state->remaining == 0). On MF_FAULT the bytes are in state->header but not
 * counted as taken. */
static inline mf_status mf_take_header(mf_state *state, const uint8_t *src, size_t size, size_t *taken)
{
    if (state->header_size == 0 || state->header_size == MF_HEADER_SIZE) { /* the one at hand is an earlier frame's */
        state->header_size = 0;
        state->frame_offset = state->offset;
    }
    size_t n = MF_HEADER_SIZE - (size_t)state->header_size;
    if (n > size)
        n = size;
    memcpy(state->header + state->header_size, src, n); /* n <= 8 - header_size */
    state->header_size = (uint8_t)(state->header_size + n);
    if (mf_header_is_bad(state)) {
        *taken = 0;
        return MF_FAULT;
    }
    *taken = n;
    mf_count(&state->offset, n);
    if (state->header_size == MF_HEADER_SIZE) {
        state->remaining = mf_be32(state->header + 4);
        if (state->header[0] == MF_SYSTEMERR)
            return MF_TEXT;
        if (state->remaining == 0)
            mf_count(&state->frames, 1);
    }
    return MF_MORE;
}

/* As mf_take_whole_frames, but stops before payload of the other output than the one that gets or got some. */
static inline size_t mf_take_run(const uint8_t *src, size_t size, mf_output outputs[2], uint32_t limit,
                                 int check_reserved, uint64_t *frames)
{
    if (size < MF_HEADER_SIZE || src[0] >= MF_SYSTEMERR)
        return 0;
    const int target = outputs[0].size ? 0 : outputs[1].size ? 1 : src[0] >> 1; /* src[0] is 0..2 */
    mf_output *const other = &outputs[1 - target];
    const size_t room = other->room;
    if (outputs[target].data && other->data)
        other->room = other->size; /* room for empty frames only */
    const size_t taken = mf_take_whole_frames(src, size, outputs, limit, check_reserved, frames);
    other->room = room;
    return taken;
}

/* Take wire bytes and copy the payload, whole frames or parts. ordered: stop before payload of the other output than
 * the one that got some in this call. */
static inline mf_status mf_feed_into(mf_state *state, const uint8_t *src, size_t size, mf_output outputs[2], int ordered,
                              size_t *consumed)
{
    const uint8_t *p = src, *const end = src + size;
    mf_status status = MF_MORE;
    while (p < end) {
        if (state->remaining == 0) {
            size_t taken = 0;
            uint64_t frames = 0;
            if (state->header_size == 0 || state->header_size == MF_HEADER_SIZE) {
                taken = (ordered ? mf_take_run : mf_take_whole_frames)(
                    p, (size_t)(end - p), outputs, state->limit, state->check_reserved, &frames);
                mf_count(&state->frames, frames);
                mf_count(&state->offset, taken);
                p += taken;
                if (p == end)
                    break;
            }
            status = mf_take_header(state, p, (size_t)(end - p), &taken);
            p += taken;
            if (status != MF_MORE)
                break;
            continue;
        }
        mf_output *const out = &outputs[state->header[0] >> 1]; /* header[0] is 0..2: MF_TEXT left the loop */
        if (ordered && out->data && outputs[1 - (state->header[0] >> 1)].data &&
            outputs[1 - (state->header[0] >> 1)].size) {
            status = MF_FULL;
            break;
        }
        size_t n = (size_t)(end - p);
        if (n > state->remaining)
            n = (size_t)state->remaining;
        if (n > out->room - out->size)
            n = out->room - out->size;
        if (n == 0) {
            status = MF_FULL;
            break;
        }
        if (out->data)
            memcpy(out->data + out->size, p, n); /* n <= room - size, n <= end - p */
        out->size += n;
        p += n;
        mf_count(&state->offset, n);
        state->remaining -= n; /* n <= remaining */
        if (state->remaining == 0)
            mf_count(&state->frames, 1);
    }
    *consumed = (size_t)(p - src);
    return status;
}

#endif
