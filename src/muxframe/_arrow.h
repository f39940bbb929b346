/* Batches of lines behind the Arrow C data interface, in portable C11 without Python or an Arrow library.
 *
 * A batch owns its memory and is never changed. It counts its references, atomically: one for each exported array. So
 * arrays are released by any thread, without the GIL, and after the object that exported them.
 *
 * Source: Arrow C data interface, https://arrow.apache.org/docs/format/CDataInterface.html.
 */
#ifndef MUXFRAME_ARROW_H
#define MUXFRAME_ARROW_H

#include "_lines.h"

#ifdef _MSC_VER
#include <intrin.h>
typedef volatile long mfb_count;
#define mfb_up(count) _InterlockedIncrement(count)
#define mfb_down(count) _InterlockedDecrement(count) /* both return the new value */
#else
typedef long mfb_count;
#define mfb_up(count) __atomic_add_fetch(count, 1, __ATOMIC_RELAXED)
#define mfb_down(count) __atomic_sub_fetch(count, 1, __ATOMIC_ACQ_REL)
#endif

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE
#define ARROW_FLAG_NULLABLE 2

struct ArrowSchema {
    const char *format, *name, *metadata;
    int64_t flags, n_children;
    struct ArrowSchema **children, *dictionary;
    void (*release)(struct ArrowSchema *);
    void *private_data;
};

struct ArrowArray {
    int64_t length, null_count, offset, n_buffers, n_children;
    const void **buffers;
    struct ArrowArray **children, *dictionary;
    void (*release)(struct ArrowArray *);
    void *private_data;
};
#endif

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE
struct ArrowArrayStream {
    int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
    int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
    const char *(*get_last_error)(struct ArrowArrayStream *);
    void (*release)(struct ArrowArrayStream *);
    void *private_data;
};
#endif

/* What the lines are as a column. */
typedef enum { MFB_LARGE_BINARY, MFB_LARGE_UTF8, MFB_BINARY_VIEW } mfb_line_type;

/* Which columns there are. */
typedef struct {
    int timestamps, details, source;
    mfb_line_type line_type;
} mfb_shape;

enum { MFB_MAX_COLUMNS = 6, MFB_MAX_BUFFERS = 4, MFB_VIEW_SIZE = 16, MFB_INLINE = 12 };

typedef struct {
    mfb_count references;
    mfb_shape shape;
    mfl_rows *rows;                 /* flags are 0 or 1 in here: partial */
    uint8_t *timed, *attributed;    /* validity bitmaps; NULL where all rows have a timestamp, or details */
    uint8_t *partial;               /* bitmap */
    uint8_t *views;                 /* of the lines; NULL unless the column is a view */
    int64_t view_buffer_size;       /* what the view column says of its one buffer */
    int32_t *zeros;                 /* every row is of the one source; NULL unless there is one */
    int32_t source_offsets[2];
    char *source;                   /* UTF-8 */
} mfb_batch;

static inline void mfb_unref(mfb_batch *batch)
{
    if (!batch || mfb_down(&batch->references))
        return;
    mfl_free_rows(batch->rows);
    free(batch->timed);
    free(batch->attributed);
    free(batch->partial);
    free(batch->views);
    free(batch->zeros);
    free(batch->source);
    free(batch);
}

/* A bitmap of the rows that have a flag. */
static inline uint8_t *mfb_bitmap(const mfl_rows *rows, uint8_t flag)
{
    uint8_t *bits = calloc(rows->count / 8 + 1, 1);
    if (bits)
        for (size_t i = 0; i < rows->count; i++)
            bits[i / 8] |= (uint8_t)((rows->flags[i] & flag ? 1u : 0u) << i % 8);
    return bits;
}

static inline int mfb_bit(const uint8_t *bits, size_t i) /* NULL: all are set */
{
    return !bits || (bits[i / 8] >> i % 8 & 1);
}

static inline void mfb_put_i32(uint8_t *p, size_t value) /* as the machine has it; value fits */
{
    const int32_t v = (int32_t)value;
    memcpy(p, &v, sizeof v);
}

/* Views of the lines: their length, and 12 bytes inline or the first 4 of them and where they are. */
static inline uint8_t *mfb_views(const mfl_rows *rows)
{
    uint8_t *const views = calloc(rows->count ? rows->count : 1, MFB_VIEW_SIZE);
    if (views)
        for (size_t i = 0; i < rows->count; i++) {
            uint8_t *const view = views + i * MFB_VIEW_SIZE;
            const uint8_t *const line = rows->data.data + rows->offsets[i];
            const size_t size = (size_t)(rows->offsets[i + 1] - rows->offsets[i]);
            mfb_put_i32(view, size);
            if (size <= MFB_INLINE) {
                memcpy(view + 4, line, size);
            } else { /* buffer 0; offsets fit: a batch has less than 2 GiB */
                memcpy(view + 4, line, 4);
                mfb_put_i32(view + 12, (size_t)rows->offsets[i]);
            }
        }
    return views;
}

/* Make a batch of rows, which are its own from now on, also where there is no memory: then NULL. source may be NULL. */
static inline mfb_batch *mfb_new(mfl_rows *rows, mfb_shape shape, const char *source, size_t source_size)
{
    mfb_batch *const batch = calloc(1, sizeof *batch);
    if (!batch) {
        mfl_free_rows(rows);
        return NULL;
    }
    batch->references = 1;
    batch->shape = shape;
    batch->rows = rows;
    batch->view_buffer_size = (int64_t)rows->data.size;
    batch->partial = mfb_bitmap(rows, MFL_PARTIAL);
    int ok = batch->partial != NULL;
    if (ok && shape.timestamps && rows->untimed)
        ok = (batch->timed = mfb_bitmap(rows, MFL_TIMESTAMP)) != NULL;
    if (ok && shape.details && rows->plain)
        ok = (batch->attributed = mfb_bitmap(rows, MFL_DETAILS)) != NULL;
    if (ok && shape.line_type == MFB_BINARY_VIEW)
        ok = (batch->views = mfb_views(rows)) != NULL;
    if (ok && shape.source) {
        ok = (batch->zeros = calloc(rows->count ? rows->count : 1, sizeof(int32_t))) &&
             (batch->source = malloc(source_size ? source_size : 1));
        if (ok && source_size)
            memcpy(batch->source, source, source_size);
        batch->source_offsets[1] = (int32_t)source_size;
    }
    if (!ok) {
        mfb_unref(batch);
        return NULL;
    }
    for (size_t i = 0; i < rows->count; i++)
        rows->flags[i] &= MFL_PARTIAL;
    return batch;
}

/* Is there a byte above 127? */
static inline int mfb_is_ascii(const uint8_t *p, size_t size)
{
    uint64_t seen = 0;
    size_t i = 0;
    for (; i + 8 <= size; i += 8)
        seen |= mfl_le64(p + i);
    for (; i < size; i++)
        seen |= p[i];
    return !(seen & 0x8080808080808080u);
}

/* Is it UTF-8: shortest forms only, no surrogates, nothing above U+10FFFF? */
static inline int mfb_is_utf8(const uint8_t *p, size_t size)
{
    for (size_t i = 0; i < size;) {
        const uint8_t c = p[i++];
        if (c < 0x80)
            continue;
        const int more = c >= 0xF0 ? 3 : c >= 0xE0 ? 2 : 1;
        uint8_t least = 0x80, most = 0xBF; /* of the second byte */
        if (c < 0xC2 || c > 0xF4 || size - i < (size_t)more)
            return 0;
        if (c == 0xE0)
            least = 0xA0;
        if (c == 0xED)
            most = 0x9F;
        if (c == 0xF0)
            least = 0x90;
        if (c == 0xF4)
            most = 0x8F;
        if (p[i] < least || p[i] > most)
            return 0;
        for (int j = 1; j < more; j++)
            if ((p[i + (size_t)j] & 0xC0) != 0x80)
                return 0;
        i += (size_t)more;
    }
    return 1;
}

/* --- schemas ------------------------------------------------------------------------------------------------------ */

static inline void mfb_release_schema(struct ArrowSchema *schema)
{
    for (int64_t i = 0; i < schema->n_children; i++)
        if (schema->children[i]->release)
            schema->children[i]->release(schema->children[i]);
    if (schema->dictionary && schema->dictionary->release)
        schema->dictionary->release(schema->dictionary);
    free(schema->private_data); /* what children and dictionary are in */
    schema->release = NULL;
}

static inline void mfb_fill_schema(struct ArrowSchema *schema, const char *name, const char *format, int64_t flags)
{
    memset(schema, 0, sizeof *schema);
    schema->name = name;
    schema->format = format;
    schema->flags = flags;
    schema->release = mfb_release_schema;
}

/* Fill in a schema; 0 where there is no memory. */
static inline int mfb_export_schema(mfb_shape shape, struct ArrowSchema *out)
{
    static const char *const LINE[] = {"Z", "U", "vz"};
    struct block {
        struct ArrowSchema *pointers[MFB_MAX_COLUMNS];
        struct ArrowSchema columns[MFB_MAX_COLUMNS];
    } *const block = calloc(1, sizeof *block);
    struct ArrowSchema *const words = shape.source ? calloc(1, sizeof *words) : NULL;
    if (!block || (shape.source && !words)) {
        free(block);
        free(words);
        return 0;
    }
    mfb_fill_schema(out, "", "+s", 0);
    out->private_data = block;
    out->children = block->pointers;
    struct ArrowSchema *column = block->columns;
    mfb_fill_schema(column++, "stream", "c", 0);
    if (shape.timestamps)
        mfb_fill_schema(column++, "timestamp", "tsn:UTC", ARROW_FLAG_NULLABLE);
    mfb_fill_schema(column++, "line", LINE[shape.line_type], 0);
    if (shape.source) {
        mfb_fill_schema(words, "", "u", 0);
        mfb_fill_schema(column, "source", "i", 0);
        column->dictionary = words;
        column++->private_data = words; /* the column's to free, also where it is moved away */
    }
    if (shape.details)
        mfb_fill_schema(column++, "attrs", "U", ARROW_FLAG_NULLABLE);
    mfb_fill_schema(column++, "partial", "b", 0);
    out->n_children = column - block->columns;
    for (int64_t i = 0; i < out->n_children; i++)
        block->pointers[i] = &block->columns[i];
    return 1;
}

/* --- arrays ------------------------------------------------------------------------------------------------------- */

/* What an array owns: with it, it can be moved away from its parent. */
typedef struct {
    mfb_batch *batch;
    const void *buffers[MFB_MAX_BUFFERS];
    struct ArrowArray *pointers[MFB_MAX_COLUMNS], *columns; /* allocated, or NULL */
    struct ArrowArray *words;                               /* dictionary, allocated, or NULL */
} mfb_node;

static inline void mfb_release_array(struct ArrowArray *array)
{
    mfb_node *const node = array->private_data;
    for (int64_t i = 0; i < array->n_children; i++)
        if (array->children[i]->release)
            array->children[i]->release(array->children[i]);
    if (array->dictionary && array->dictionary->release)
        array->dictionary->release(array->dictionary);
    free(node->columns);
    free(node->words);
    mfb_unref(node->batch);
    free(node);
    array->release = NULL;
}

/* Fill in an array without buffers; 0 where there is no memory. */
static inline int mfb_fill_array(struct ArrowArray *array, mfb_batch *batch, size_t length, size_t nulls)
{
    mfb_node *const node = calloc(1, sizeof *node);
    memset(array, 0, sizeof *array);
    if (!node)
        return 0;
    mfb_up(&batch->references);
    node->batch = batch;
    array->length = (int64_t)length;
    array->null_count = (int64_t)nulls;
    array->n_buffers = 1;
    array->buffers = node->buffers;
    array->private_data = node;
    array->release = mfb_release_array;
    return 1;
}

static inline void mfb_add_buffer(struct ArrowArray *array, const void *buffer)
{
    static const uint64_t NOTHING[2] = {0, 0};
    array->buffers[array->n_buffers++] = buffer ? buffer : NOTHING; /* at most MFB_MAX_BUFFERS are added */
}

/* Add the columns to out->children; 0 where there is no memory. */
static inline int mfb_add_columns(mfb_batch *batch, struct ArrowArray *out)
{
    const mfl_rows *const rows = batch->rows;
    mfb_node *const node = out->private_data;
    struct ArrowArray *const columns = calloc(MFB_MAX_COLUMNS, sizeof *columns);
    if (!(node->columns = columns))
        return 0;
    out->children = node->pointers;
    for (int i = 0; i < MFB_MAX_COLUMNS; i++)
        node->pointers[i] = &columns[i];

#define MFB_ADD(nulls) \
    struct ArrowArray *const column = &columns[out->n_children]; \
    if (!mfb_fill_array(column, batch, rows->count, nulls)) \
        return 0; \
    out->n_children++;

    {
        MFB_ADD(0)
        mfb_add_buffer(column, rows->streams);
    }
    if (batch->shape.timestamps) {
        MFB_ADD(rows->untimed)
        column->buffers[0] = batch->timed;
        mfb_add_buffer(column, rows->timestamps);
    }
    {
        MFB_ADD(0)
        mfb_add_buffer(column, batch->views ? (const void *)batch->views : (const void *)rows->offsets);
        mfb_add_buffer(column, rows->data.data);
        if (batch->views)
            mfb_add_buffer(column, &batch->view_buffer_size);
    }
    if (batch->shape.source) {
        MFB_ADD(0)
        mfb_add_buffer(column, batch->zeros);
        struct ArrowArray *const words = calloc(1, sizeof *words);
        if (!words || !mfb_fill_array(words, batch, 1, 0)) {
            free(words);
            return 0;
        }
        ((mfb_node *)column->private_data)->words = column->dictionary = words;
        mfb_add_buffer(words, batch->source_offsets);
        mfb_add_buffer(words, batch->source);
    }
    if (batch->shape.details) {
        MFB_ADD(rows->plain)
        column->buffers[0] = batch->attributed;
        mfb_add_buffer(column, rows->details_offsets);
        mfb_add_buffer(column, rows->details.data);
    }
    {
        MFB_ADD(0)
        mfb_add_buffer(column, batch->partial);
    }
#undef MFB_ADD
    return 1;
}

/* Fill in an array; 0 where there is no memory. */
static inline int mfb_export_array(mfb_batch *batch, struct ArrowArray *out)
{
    if (!mfb_fill_array(out, batch, batch->rows->count, 0))
        return 0;
    if (!mfb_add_columns(batch, out)) {
        out->release(out);
        return 0;
    }
    return 1;
}

#endif
