/* The loops of _lines.h give the same rows for every cut of the wire, and _arrow.h exports them and lets them go.
 *
 * Coverage-guided, with libFuzzer:
 *     clang -std=c11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all -Isrc/muxframe \
 *         tests/fuzz/fuzz_lines_h.c -o fuzz_lines_h && ./fuzz_lines_h -max_total_time=60 CORPUS
 * A seeded random loop, with any compiler:
 *     gcc -std=c11 -g -O1 -DSTANDALONE -fsanitize=address,undefined -fno-sanitize-recover=all -Isrc/muxframe \
 *         tests/fuzz/fuzz_lines_h.c -o fuzz_lines_h && ./fuzz_lines_h SECONDS SEED
 *
 * What the lines should be is tests/fuzz/fuzz_lines.py's to know. An input is a byte of flags, one that chooses
 * max_line_size, one max_rows, one that seeds the cuts, and the wire. Every piece of memory is a heap block of its exact
 * size, so that the sanitizer sees the first byte too many.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "_arrow.h"

#define CHECK(condition) \
    do { \
        if (!(condition)) { \
            fprintf(stderr, "%s:%d: not true: %s\n", __FILE__, __LINE__, #condition); \
            abort(); \
        } \
    } while (0)

enum { SETTINGS_SIZE = 4, MAX_WIRE = 4096 };
enum { RAW = 1, TIMESTAMPS = 2, DETAILS = 4, SOURCE = 8, LINE_TYPE = 16 };

static uint32_t next_random(uint32_t *state)
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    *state ^= *state << 5;
    return *state;
}

static void set_up(mfl_splitter *s, mf_state *state, const uint8_t *settings)
{
    static const size_t sizes[] = {1 << 20, 1, 2, 5, 20, 64, 1000};
    memset(s, 0, sizeof *s);
    memset(state, 0, sizeof *state);
    mfl_init(s);
    s->raw = settings[0] & RAW;
    s->timestamps = (settings[0] & TIMESTAMPS) != 0;
    s->details = (settings[0] & DETAILS) != 0;
    s->in_head = s->raw && (s->timestamps || s->details);
    s->max_line_size = sizes[settings[1] % (sizeof sizes / sizeof *sizes)];
    s->max_rows = settings[2] + 1u;
    s->max_bytes = 1 + 100u * settings[2];
    state->limit = UINT32_MAX;
    state->check_reserved = 1;
}

/* Feed some; 0 where the stream is at fault. */
static int feed(mfl_splitter *s, mf_state *state, const uint8_t *data, size_t size)
{
    uint8_t *const exact = malloc(size ? size : 1);
    size_t taken = 0;
    mf_status status = MF_MORE;
    CHECK(exact);
    memcpy(exact, data, size);
    CHECK(mfl_prepare(s, size));
    if (s->raw)
        mfl_feed_raw(s, exact, size);
    else
        status = mfl_feed(s, state, exact, size, &taken);
    CHECK(!s->no_memory);
    CHECK(status != MF_MORE || s->raw || taken == size);
    free(exact);
    return status == MF_MORE;
}

static void finish(mfl_splitter *s, const mf_state *state, int is_fault)
{
    CHECK(mfl_prepare(s, 0));
    mfl_end_prefix(s, s->raw ? 1 : state->header[0] % 3);
    mfl_close_all(s, is_fault);
    mfl_set_aside(s);
    CHECK(!s->no_memory);
}

static void compare(const mfl_splitter *one, const mfl_splitter *other)
{
    const mfl_rows *a = one->full, *b = other->full;
    for (; a && b; a = a->next, b = b->next) {
        CHECK(a->count == b->count && a->count && a->data.size == b->data.size);
        CHECK(!memcmp(a->streams, b->streams, a->count) && !memcmp(a->flags, b->flags, a->count));
        CHECK(!memcmp(a->offsets, b->offsets, (a->count + 1) * sizeof *a->offsets));
        CHECK(!a->data.size || !memcmp(a->data.data, b->data.data, a->data.size));
        CHECK(!a->timestamps || !memcmp(a->timestamps, b->timestamps, a->count * sizeof *a->timestamps));
        CHECK(a->details.size == b->details.size);
        CHECK(!a->details.size || !memcmp(a->details.data, b->details.data, a->details.size));
    }
    CHECK(!a && !b && one->invalid == other->invalid);
}

/* Make batches of all rows, export them, move a child away, and let go in the other order. */
static void export_all(mfl_splitter *s, const uint8_t *settings)
{
    const mfb_shape shape = {s->timestamps, s->details, (settings[0] & SOURCE) != 0, settings[0] / LINE_TYPE % 3};
    while (s->full) {
        mfl_rows *const rows = s->full;
        struct ArrowSchema schema;
        struct ArrowArray array, child;
        s->full = rows->next;
        mfb_batch *const batch = mfb_new(rows, shape, "name", 4);
        CHECK(batch && mfb_export_schema(shape, &schema) && mfb_export_array(batch, &array));
        CHECK(schema.n_children == array.n_children && array.length == (int64_t)rows->count);
        mfb_unref(batch);
        child = *array.children[array.n_children / 2];
        array.children[array.n_children / 2]->release = NULL;
        array.release(&array);
        CHECK(child.length > 0 && child.buffers[1]);
        child.release(&child);
        schema.release(&schema);
        CHECK(!array.release && !child.release && !schema.release);
    }
}

static void run_one(const uint8_t *data, size_t size)
{
    if (size < SETTINGS_SIZE || size > MAX_WIRE)
        return;
    const uint8_t *const wire = data + SETTINGS_SIZE;
    const size_t wire_size = size - SETTINGS_SIZE;
    uint32_t cuts = data[3] + 1u;
    mfl_splitter whole, cut;
    mf_state whole_state, cut_state;
    set_up(&whole, &whole_state, data);
    set_up(&cut, &cut_state, data);
    const int ok = feed(&whole, &whole_state, wire, wire_size);
    finish(&whole, &whole_state, !ok);
    int same = 1;
    for (size_t position = 0; position < wire_size && same;) {
        size_t n = 1 + next_random(&cuts) % (data[3] % 2 ? 3 : 200);
        if (n > wire_size - position)
            n = wire_size - position;
        same = feed(&cut, &cut_state, wire + position, n);
        position += n;
    }
    CHECK(same == ok);
    finish(&cut, &cut_state, !ok);
    compare(&whole, &cut);
    export_all(&whole, data);
    mfl_free(&whole);
    mfl_free(&cut);
}

#ifndef STANDALONE
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    run_one(data, size);
    return 0;
}
#else
#include <time.h>

static size_t put(uint8_t *out, size_t size, const char *text, size_t text_size)
{
    if (text_size > MAX_WIRE - size)
        return size;
    memcpy(out + size, text, text_size);
    return size + text_size;
}

/* Words as logs have them, in frames, or in what looks like frames. */
static size_t random_input(uint8_t *out, uint32_t *rng)
{
    static const char *const words[] = {
        "2026-11-21T05:46:37.125648057Z ", "2026-11-21T05:46:37Z ", "2026-11-21T05:46:38Z ", "k=v,a=b ", "k=v", "a", "\n",
        "\r\n", "\n", "hello world", " ", "2026-11-21T05:46:37.125648057+05:30 ", "\xff", "", "2262-04-11T23:47:16.9Z ",
        "0123456789012345678901234567890123456789012345678901234567890123456789",
    };
    size_t size = 0;
    while (size < SETTINGS_SIZE)
        out[size++] = (uint8_t)next_random(rng);
    for (uint32_t frames = next_random(rng) % 12; frames; frames--) {
        char payload[1024];
        size_t length = 0;
        for (uint32_t n = next_random(rng) % 7; n; n--) {
            const char *const word = words[next_random(rng) % (sizeof words / sizeof *words)];
            memcpy(payload + length, word, strlen(word));
            length += strlen(word);
        }
        if (!(out[0] & RAW)) {
            const uint32_t odd = next_random(rng) % 40;
            const uint8_t header[8] = {(uint8_t)(odd ? next_random(rng) % 3 : next_random(rng) % 5), 0, 0, 0, 0, 0,
                                       (uint8_t)(length >> 8), (uint8_t)(length + (odd == 1))};
            size = put(out, size, (const char *)header, sizeof header);
        }
        size = put(out, size, payload, length);
    }
    return size;
}

int main(int count, char **arguments)
{
    const double seconds = count > 1 ? atof(arguments[1]) : 10;
    uint32_t rng = (count > 2 ? (uint32_t)strtoul(arguments[2], NULL, 10) : 1u) * 2654435761u + 1u;
    const time_t end = time(NULL) + (time_t)seconds;
    uint64_t runs = 0;
    uint8_t data[MAX_WIRE];
    rng = rng ? rng : 1u;
    while (time(NULL) < end)
        for (int i = 0; i < 1000; i++, runs++)
            run_one(data, random_input(data, &rng));
    printf("%llu runs, no difference\n", (unsigned long long)runs);
    return 0;
}
#endif
