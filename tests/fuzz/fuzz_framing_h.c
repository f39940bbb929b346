/* The loops of _framing.h and a naive decoder that takes one byte at a time agree on every byte, count and fault.
 *
 * Coverage-guided, with libFuzzer:
 *     clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Isrc/muxframe \
 *         tests/fuzz/fuzz_framing_h.c -o fuzz_framing_h && ./fuzz_framing_h -max_total_time=60 CORPUS
 * A seeded random loop, with any compiler:
 *     gcc -std=c11 -g -O1 -DSTANDALONE -fsanitize=address,undefined -fno-sanitize-recover=all -Isrc/muxframe \
 *         tests/fuzz/fuzz_framing_h.c -o fuzz_framing_h && ./fuzz_framing_h SECONDS SEED
 * AFL++ builds the first form with afl-clang-fast -fsanitize=fuzzer.
 *
 * An input is a byte of flags, one that chooses the limit, two bytes of buffer sizes, one that seeds the cuts, and the
 * wire. Every piece of memory is a heap block of its exact size, so that the sanitizer sees the first byte too many.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_framing.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

enum { SETTINGS_SIZE = 5, MAX_WIRE = 4096 };
enum { UNCHECKED = 1, ORDERED = 2, NO_STDOUT = 4, NO_STDERR = 8 };

typedef struct {
    const uint8_t *wire;
    size_t size;
    uint8_t flags;
    uint32_t limit;
    size_t rooms[2];
    uint32_t cuts; /* state of a random number generator, never 0 */
} input;

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static input parse(const uint8_t *data, size_t size)
{
    static const uint32_t limits[] = {UINT32_MAX, UINT32_MAX, UINT32_MAX - 1, 0, 1, 8, 255, 256, 1000, 32768};
    const input in = {
        .wire = data + SETTINGS_SIZE,
        .size = size - SETTINGS_SIZE,
        .flags = data[0],
        .limit = limits[data[1] % (sizeof limits / sizeof *limits)],
        .rooms = {data[2] < 200 ? data[2] : (data[2] - 199u) * 20, data[3] < 200 ? data[3] : (data[3] - 199u) * 20},
        .cuts = data[4] + 1u,
    };
    return in;
}

/* A heap block of exactly this size, filled with a byte. */
static uint8_t *block(size_t size, int fill)
{
    uint8_t *const p = malloc(size); /* malloc(0) gives a block of which not a byte may be touched */
    CHECK(p);
    memset(p, fill, size);
    return p;
}

static uint8_t *copy_of(const uint8_t *src, size_t size)
{
    uint8_t *const p = block(size, 0);
    if (size)
        memcpy(p, src, size);
    return p;
}

/* --- the naive decoder: one byte at a time, nothing shared with _framing.h ---------------------------------------- */

typedef enum { CLEAN, INSIDE_HEADER, INSIDE_PAYLOAD, BAD_HEADER, SYSTEMERR } ending;

typedef struct {
    uint8_t *payload[2]; /* of each output, the unfinished frame's included */
    size_t sizes[2];
    uint8_t *order;      /* the output of each payload byte, in wire order */
    uint64_t frames;     /* whole ones */
    size_t whole_sizes[2]; /* payload of whole frames alone */
    size_t frame_offset; /* where the current, or faulty, frame begins */
    size_t offset;       /* where decoding stopped: behind the byte that decided */
    ending end;
} naive;

static int is_bad(const uint8_t *header, size_t there, const input *in)
{
    if (header[0] != 0 && header[0] != 1 && header[0] != 2 && header[0] != 3)
        return 1;
    if (there < 8)
        return 0;
    if (!(in->flags & UNCHECKED) && (header[1] != 0 || header[2] != 0 || header[3] != 0))
        return 1;
    const uint64_t size = header[4] * 16777216ull + header[5] * 65536ull + header[6] * 256ull + header[7];
    return size > in->limit;
}

static void finish_frame(naive *out)
{
    out->frames++;
    memcpy(out->whole_sizes, out->sizes, sizeof out->sizes);
    out->end = CLEAN;
}

static void decode(const input *in, naive *out)
{
    uint8_t header[8];
    size_t there = 0;
    uint64_t due = 0;
    memset(out, 0, sizeof *out);
    out->payload[0] = block(in->size, 0);
    out->payload[1] = block(in->size, 0);
    out->order = block(in->size, 0);
    size_t total = 0;
    for (size_t i = 0; i < in->size; i++) {
        const uint8_t byte = in->wire[i];
        out->offset = i + 1;
        if (due) {
            const int output = header[0] == 2;
            out->payload[output][out->sizes[output]++] = byte;
            out->order[total++] = (uint8_t)output;
            if (--due == 0)
                finish_frame(out);
            continue;
        }
        if (out->end == CLEAN) {
            out->frame_offset = i;
            there = 0;
        }
        out->end = INSIDE_HEADER;
        header[there++] = byte;
        if (is_bad(header, there, in)) {
            out->end = BAD_HEADER;
            return;
        }
        if (there < 8)
            continue;
        if (header[0] == 3) {
            out->end = SYSTEMERR;
            return;
        }
        due = header[4] * 16777216ull + header[5] * 65536ull + header[6] * 256ull + header[7];
        out->end = INSIDE_PAYLOAD;
        if (!due)
            finish_frame(out);
    }
}

static void free_naive(naive *out)
{
    free(out->payload[0]);
    free(out->payload[1]);
    free(out->order);
}

/* --- comparing ----------------------------------------------------------------------------------------------------- */

static void check_order(const naive *expected, size_t start, const mf_output outputs[2])
{
    for (size_t i = 0; i < outputs[0].size + outputs[1].size; i++)
        CHECK(expected->order[start + i] == (outputs[1].size ? 1 : 0)); /* ordered: only one of them got any */
}

static void new_outputs(const input *in, mf_output outputs[2])
{
    for (int i = 0; i < 2; i++) {
        const int is_none = in->flags & (i ? NO_STDERR : NO_STDOUT);
        outputs[i].data = is_none ? NULL : block(in->rooms[i], 0xA5);
        outputs[i].room = is_none ? SIZE_MAX : in->rooms[i];
        outputs[i].size = 0;
    }
}

/* Compare what a call has written with the naive payload from `before` on, and free it. */
static void take_outputs(const naive *expected, size_t before[2], mf_output outputs[2])
{
    for (int i = 0; i < 2; i++) {
        CHECK(outputs[i].size <= outputs[i].room);
        CHECK(before[i] + outputs[i].size <= expected->sizes[i]);
        if (outputs[i].data && outputs[i].size)
            CHECK(!memcmp(outputs[i].data, expected->payload[i] + before[i], outputs[i].size));
        before[i] += outputs[i].size;
        free(outputs[i].data);
    }
}

/* Why a call stopped before the end of a piece: the output needed next is full, or it is the other one's turn. */
static void check_full(const mf_state *state, const mf_output outputs[2], int ordered)
{
    CHECK(state->remaining);
    const mf_output *const needed = &outputs[state->header[0] == 2], *const other = &outputs[state->header[0] != 2];
    CHECK(needed->size == needed->room || (ordered && needed->data && other->data && other->size));
}

static void check_feed_into(const input *in, const naive *expected, int ordered)
{
    mf_state state = {.limit = in->limit, .check_reserved = !(in->flags & UNCHECKED)};
    size_t taken[2] = {0, 0}, position = 0;
    uint32_t random = in->cuts;
    mf_status status = MF_MORE;
    const int can_stall = (!in->rooms[0] && !(in->flags & NO_STDOUT)) || (!in->rooms[1] && !(in->flags & NO_STDERR));
    while (position < in->size && status != MF_FAULT && status != MF_TEXT) {
        size_t piece = in->cuts & 1 ? 1 + next_random(&random) % 40 : in->size;
        if (piece > in->size - position)
            piece = in->size - position;
        uint8_t *const src = copy_of(in->wire + position, piece);
        mf_output outputs[2];
        size_t consumed = SIZE_MAX;
        new_outputs(in, outputs);
        status = mf_feed_into(&state, src, piece, outputs, ordered, &consumed);
        free(src);
        CHECK(consumed <= piece);
        CHECK(status == MF_MORE ? consumed == piece : 1);
        if (status == MF_FULL)
            check_full(&state, outputs, ordered);
        const int both = outputs[0].data && outputs[1].data;
        CHECK(!(ordered && both && outputs[0].size && outputs[1].size));
        if (ordered && both)
            check_order(expected, taken[0] + taken[1], outputs);
        take_outputs(expected, taken, outputs);
        position += consumed;
        CHECK(state.offset == position);
        if (status == MF_FULL && consumed == 0) {
            CHECK(can_stall);
            return;
        }
    }
    CHECK((status == MF_FAULT) == (expected->end == BAD_HEADER));
    CHECK((status == MF_TEXT) == (expected->end == SYSTEMERR));
    CHECK(taken[0] == expected->sizes[0] && taken[1] == expected->sizes[1]);
    CHECK(state.frames == expected->frames);
    if (expected->end != CLEAN)
        CHECK(state.frame_offset == expected->frame_offset);
    if (status == MF_FAULT) /* the part of the header that was in this piece is not counted as taken */
        CHECK(position < expected->offset && position >= expected->frame_offset);
    else
        CHECK(position == expected->offset);
}

static void check_whole_frames(const input *in, const naive *expected)
{
    mf_output outputs[2];
    uint64_t frames = 0;
    size_t taken[2] = {0, 0}, sizes[2];
    uint8_t *const src = copy_of(in->wire, in->size);
    const int check_reserved = !(in->flags & UNCHECKED);
    const size_t measured = mf_measure(src, in->size, sizes, in->limit, check_reserved);
    CHECK(measured == (expected->end == CLEAN ? in->size : expected->frame_offset));
    CHECK(sizes[0] == expected->whole_sizes[0] && sizes[1] == expected->whole_sizes[1]);

    new_outputs(in, outputs);
    const size_t consumed =
        mf_take_whole_frames(src, in->size, outputs, in->limit, check_reserved, &frames);
    CHECK(consumed <= measured && consumed == 8 * frames + outputs[0].size + outputs[1].size);
    if (consumed < measured) { /* the next frame is whole and valid, so it does not fit */
        const mf_output *const needed = &outputs[src[consumed] == 2];
        CHECK(mf_be32(src + consumed + 4) > needed->room - needed->size);
    } else {
        CHECK(frames == expected->frames);
    }
    take_outputs(expected, taken, outputs);
    free(src);
}

static void check_overlap_test(const input *in)
{
    uint32_t random = in->cuts;
    uint8_t *const memory = block(64, 0), *const marks = block(64, 0);
    const size_t a = next_random(&random) % 64, a_size = next_random(&random) % (65 - a);
    const size_t b = next_random(&random) % 64, b_size = next_random(&random) % (65 - b);
    int shared = 0;
    memset(marks + a, 1, a_size);
    for (size_t i = 0; i < b_size; i++)
        shared |= marks[b + i];
    CHECK(!!mf_overlap(memory + a, a_size, memory + b, b_size) == shared);
    CHECK(!mf_overlap(NULL, SIZE_MAX, memory, 64) && !mf_overlap(memory, 64, NULL, SIZE_MAX));
    free(memory);
    free(marks);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < SETTINGS_SIZE || size > MAX_WIRE + SETTINGS_SIZE)
        return 0;
    const input in = parse(data, size);
    naive expected;
    decode(&in, &expected);
    check_whole_frames(&in, &expected);
    check_feed_into(&in, &expected, (in.flags & ORDERED) != 0);
    check_overlap_test(&in);
    free_naive(&expected);
    return 0;
}

#ifdef STANDALONE
#include <time.h>

static size_t random_frame(uint8_t *p, size_t room, uint32_t *random)
{
    static const uint16_t sizes[] = {0, 0, 1, 2, 7, 8, 9, 31, 32, 33, 63, 64, 65, 223, 224, 225, 255, 256, 257, 1000};
    size_t size = sizes[next_random(random) % (sizeof sizes / sizeof *sizes)];
    if (room < 8)
        return 0;
    if (size > room - 8)
        size = room - 8;
    const uint8_t header[8] = {(uint8_t)(next_random(random) % 3), 0, 0, 0, 0, 0, (uint8_t)(size >> 8), (uint8_t)size};
    memcpy(p, header, 8);
    for (size_t i = 0; i < size; i++)
        p[8 + i] = (uint8_t)next_random(random);
    return 8 + size;
}

static size_t random_input(uint8_t *data, uint32_t *random)
{
    size_t size = SETTINGS_SIZE, last = SETTINGS_SIZE;
    for (int i = 0; i < SETTINGS_SIZE; i++)
        data[i] = (uint8_t)next_random(random);
    for (uint32_t frames = next_random(random) % 12; frames; frames--) {
        last = size;
        size += random_frame(data + size, MAX_WIRE + SETTINGS_SIZE - size, random);
    }
    const uint32_t damage = next_random(random) % 8;
    if (damage == 0 && size > last) /* cut the last frame */
        size = last + next_random(random) % (size - last);
    if (damage == 1 && size > last) /* damage its header */
        data[last + next_random(random) % 8 % (size - last)] = (uint8_t)next_random(random);
    if (damage == 2 && size > last) /* a systemerr frame */
        data[last] = 3;
    if (damage == 3 && size >= last + 8) /* a giant */
        memset(data + last + 4, 0xFF, 1 + next_random(random) % 4);
    return size;
}

int main(int count, char **arguments)
{
    const double seconds = count > 1 ? atof(arguments[1]) : 10;
    uint32_t random = (count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 0) : 1) * 2654435761u | 1;
    static uint8_t data[MAX_WIRE + SETTINGS_SIZE];
    const time_t start = time(NULL);
    uint64_t executions = 0;
    do {
        for (int i = 0; i < 1000; i++, executions++) {
            const size_t size = random_input(data, &random);
            uint8_t *const exact = copy_of(data, size);
            LLVMFuzzerTestOneInput(exact, size);
            free(exact);
        }
    } while (difftime(time(NULL), start) < seconds);
    printf("%llu executions, about %.0f a second, no difference\n", (unsigned long long)executions,
           (double)executions / (difftime(time(NULL), start) + 0.5));
    return 0;
}
#endif
