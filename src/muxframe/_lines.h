/* The hot loops of line splitting, in portable C11 without Python: what `_lines_py.py` specifies, over raw memory.
 *
 * A splitter takes wire (framed or raw) and appends rows: columns, and the lines' bytes one behind the other. A set of
 * rows that is full is put aside and another one begun. Memory is allocated for columns and for unfinished lines, both
 * by doubling: not for each line. Where there is none, `no_memory` is set and what follows is lost.
 */
#ifndef MUXFRAME_LINES_H
#define MUXFRAME_LINES_H

#include <stdlib.h>

#include "_framing.h"

#ifdef __GNUC__
#define MFL_RARE __attribute__((noinline, unused)) /* out of the way of what is done for each line */
#else
#define MFL_RARE inline
#endif

enum {
    MFL_STREAMS = 3,
    MFL_MAX_TIMESTAMP = 64,         /* bytes of a timestamp's text */
    MFL_MAX_DETAILS = 16 * 1024,
    MFL_PART = 16 * 1024,           /* Docker cuts a line's parts so */
    MFL_SLACK = MF_STEP,            /* behind the bytes of lines, so that mf_copy needs no end of its own */
    MFL_KEEP = 4096                 /* what an emptied buffer may keep */
};

/* Flags of a row, and of a part. */
enum {
    MFL_PARTIAL = 1,
    MFL_TIMESTAMP = 2,              /* there is a timestamp */
    MFL_DETAILS = 4,                /* there are details */
    MFL_WHOLE = 8                   /* the timestamp has whole seconds (parts only) */
};

typedef struct {
    uint8_t *data;
    size_t size, room;
} mfl_bytes;

/* A set of completed lines. */
typedef struct mfl_rows {
    struct mfl_rows *next;          /* the set that was put aside after this one */
    size_t count, room;             /* rows */
    int8_t *streams;
    uint8_t *flags;
    int64_t *timestamps;            /* NULL where none are asked for */
    int64_t *offsets;               /* count + 1, into data */
    int64_t *details_offsets;       /* count + 1, into details; NULL where none are asked for */
    mfl_bytes data, details;
    size_t partial, untimed, plain; /* how many rows are partial, have no timestamp, have no details */
} mfl_rows;

/* What a frame begins with: the timestamp and the details of the lines that begin in it. */
typedef struct {
    int64_t timestamp;
    uint8_t flags;
    mfl_bytes details;
} mfl_part;

/* The unfinished line of one stream. */
typedef struct {
    mfl_bytes held;
    uint64_t began;                 /* orders the unfinished lines of all streams */
    int is_cut;                     /* a piece of it was handed out already */
    mfl_part line;                  /* of the part in which it began */
    mfl_part part;                  /* of the part at hand */
} mfl_unfinished;

typedef struct {
    mfl_unfinished unfinished[MFL_STREAMS];
    mfl_rows *rows;                 /* to append to; NULL until needed */
    mfl_rows *full, *last_full;     /* put aside, the oldest first */
    mfl_bytes head;                 /* what came of a prefix, while it may not be all of it */
    int in_head;                    /* a prefix is due */
    int is_midway;                  /* it is that of another part, if it is one */
    size_t part_size;               /* of a raw stream: bytes of the line since its last prefix, up to MFL_PART */
    int raw, timestamps, details, no_memory;
    size_t max_line_size;
    size_t max_rows, max_bytes;     /* of a set of rows */
    size_t rows_hint, bytes_hint;   /* as many as the last set had */
    uint64_t began;                 /* lines begun that did not end in the same piece */
    uint64_t invalid;
    uint64_t offset;                /* of a raw stream */
    uint8_t moment[19];             /* the last timestamp's text up to its seconds */
    int64_t seconds;                /* since the epoch, of it */
} mfl_splitter;

static inline void mfl_init(mfl_splitter *s)
{
    memcpy(s->moment, "1970-01-01T00:00:00", sizeof s->moment); /* any moment whose seconds are known */
    s->seconds = 0;
    s->max_rows = s->max_bytes = SIZE_MAX;
    s->rows_hint = 64;
}

/* --- memory ------------------------------------------------------------------------------------------------------ */

static inline int mfl_reserve(mfl_bytes *bytes, size_t more)
{
    if (bytes->room - bytes->size >= more)
        return 1;
    size_t room = bytes->size + more; /* both are sizes of memory that exists, or nearly: no overflow */
    if (room < 2 * bytes->room)
        room = 2 * bytes->room;
    uint8_t *data = realloc(bytes->data, room);
    if (!data)
        return 0;
    bytes->data = data;
    bytes->room = room;
    return 1;
}

static inline int mfl_append(mfl_bytes *bytes, const uint8_t *data, size_t size)
{
    if (size) {
        if (!mfl_reserve(bytes, size))
            return 0;
        memcpy(bytes->data + bytes->size, data, size); /* size <= room - bytes->size */
        bytes->size += size;
    }
    return 1;
}

static inline void mfl_clear(mfl_bytes *bytes)
{
    bytes->size = 0;
    if (bytes->room > MFL_KEEP) {
        free(bytes->data);
        bytes->data = NULL;
        bytes->room = 0;
    }
}

static inline void mfl_free_rows(mfl_rows *rows)
{
    if (!rows)
        return;
    free(rows->streams);
    free(rows->flags);
    free(rows->timestamps);
    free(rows->offsets);
    free(rows->details_offsets);
    free(rows->data.data);
    free(rows->details.data);
    free(rows);
}

static inline int mfl_resize(void *column, size_t size)
{
    void *grown = realloc(*(void **)column, size);
    if (grown)
        *(void **)column = grown;
    return grown != NULL;
}

static inline int mfl_grow_rows(const mfl_splitter *s, mfl_rows *rows, size_t room)
{
    if (!mfl_resize(&rows->streams, room) || !mfl_resize(&rows->flags, room) ||
        (s->timestamps && !mfl_resize(&rows->timestamps, room * sizeof(int64_t))) ||
        !mfl_resize(&rows->offsets, (room + 1) * sizeof(int64_t)) ||
        (s->details && !mfl_resize(&rows->details_offsets, (room + 1) * sizeof(int64_t))))
        return 0;
    rows->room = room;
    return 1;
}

static inline void mfl_empty_rows(mfl_rows *rows)
{
    rows->count = rows->data.size = rows->details.size = 0;
    rows->partial = rows->untimed = rows->plain = 0;
}

static inline void mfl_free(mfl_splitter *s)
{
    for (int i = 0; i < MFL_STREAMS; i++) {
        free(s->unfinished[i].held.data);
        free(s->unfinished[i].line.details.data);
        free(s->unfinished[i].part.details.data);
    }
    free(s->head.data);
    mfl_free_rows(s->rows);
    while (s->full) {
        mfl_rows *next = s->full->next;
        mfl_free_rows(s->full);
        s->full = next;
    }
}

/* --- rows -------------------------------------------------------------------------------------------------------- */

/* Begin another set, with room for `more` bytes of lines. */
static inline int mfl_begin_rows(mfl_splitter *s, size_t more)
{
    const size_t likely = s->bytes_hint + s->bytes_hint / 8;
    mfl_rows *rows = calloc(1, sizeof *rows);
    if (!rows || !mfl_grow_rows(s, rows, s->rows_hint) ||
        !mfl_reserve(&rows->data, (more > likely ? more : likely) + MFL_SLACK)) {
        mfl_free_rows(rows);
        s->no_memory = 1;
        return 0;
    }
    rows->offsets[0] = 0;
    if (s->details)
        rows->details_offsets[0] = 0;
    s->rows = rows;
    return 1;
}

/* Forget the rows, and keep no more memory than a few of them need. */
static inline void mfl_drop_rows(mfl_splitter *s)
{
    if (s->rows->data.room <= MFL_KEEP && s->rows->room <= MFL_KEEP / 64 && s->rows->details.room <= MFL_KEEP) {
        mfl_empty_rows(s->rows);
    } else {
        s->rows_hint = s->rows->count > 64 ? s->rows->count : 64;
        mfl_free_rows(s->rows);
        s->rows = NULL;
    }
}

/* Put the rows aside, if there are any. */
static inline void mfl_set_aside(mfl_splitter *s)
{
    if (!s->rows || !s->rows->count)
        return;
    s->rows_hint = s->rows->count; /* as many are likely to come again */
    s->bytes_hint = s->rows->data.size;
    *(s->full ? &s->last_full->next : &s->full) = s->rows;
    s->last_full = s->rows;
    s->rows = NULL;
}

/* Append a row: the held bytes and then data. */
static inline void mfl_emit(mfl_splitter *s, int stream, const uint8_t *data, size_t size, size_t readable, int partial)
{
    mfl_unfinished *const u = &s->unfinished[stream];
    size_t held = u->held.size;
    if (!partial) {
        while (size && data[size - 1] == '\r')
            size--;
        if (!size)
            while (held && u->held.data[held - 1] == '\r')
                held--;
    }
    const size_t total = held + size;
    mfl_rows *rows = s->rows;
    if (rows && (rows->count == s->max_rows ||
                 (rows->count && (rows->data.size > s->max_bytes || total > s->max_bytes - rows->data.size)))) {
        mfl_set_aside(s);
        rows = NULL;
    }
    if (!rows) {
        if (!mfl_begin_rows(s, total))
            return;
        rows = s->rows;
    }
    if (rows->count == rows->room && !mfl_grow_rows(s, rows, 2 * rows->room)) {
        s->no_memory = 1;
        return;
    }
    if (rows->data.room - rows->data.size < total + MFL_SLACK && !mfl_reserve(&rows->data, total + MFL_SLACK)) {
        s->no_memory = 1;
        return;
    }
    uint8_t *out = rows->data.data + rows->data.size;
    if (held)
        memcpy(out, u->held.data, held); /* held <= total <= room */
    if (size)
        mf_copy(out + held, size + MFL_SLACK, data, readable, size);
    rows->data.size += total;
    const size_t i = rows->count++;
    rows->streams[i] = (int8_t)stream;
    if (s->timestamps)
        rows->timestamps[i] = u->line.timestamp;
    rows->flags[i] = (uint8_t)((u->line.flags & (MFL_TIMESTAMP | MFL_DETAILS)) | partial);
    rows->offsets[i + 1] = (int64_t)rows->data.size;
    rows->partial += (size_t)partial;
    rows->untimed += !(u->line.flags & MFL_TIMESTAMP);
    if (s->details) {
        rows->plain += !(u->line.flags & MFL_DETAILS);
        if (!mfl_append(&rows->details, u->line.details.data, u->line.details.size))
            s->no_memory = 1;
        rows->details_offsets[i + 1] = (int64_t)rows->details.size;
    }
}

/* --- unfinished lines -------------------------------------------------------------------------------------------- */

static inline int mfl_is_open(const mfl_unfinished *u)
{
    return u->held.size || u->is_cut;
}

/* The next line begins in the part at hand. */
static inline void mfl_begin_line(mfl_splitter *s, mfl_unfinished *u)
{
    u->line.timestamp = u->part.timestamp;
    u->line.flags = u->part.flags;
    if (s->details) {
        u->line.details.size = 0;
        if (!mfl_append(&u->line.details, u->part.details.data, u->part.details.size))
            s->no_memory = 1;
    }
}

/* The bytes of the UTF-8 character that the held bytes and size bytes of data end inside of; 0 where they do not. */
static inline size_t mfl_begun_character(const mfl_bytes *held, const uint8_t *data, size_t size)
{
    for (size_t i = 1; i <= 3 && i <= held->size + size; i++) {
        const uint8_t byte = i <= size ? data[size - i] : held->data[held->size + size - i];
        if ((byte & 0xC0) != 0x80) {
            const uint8_t least = i == 1 ? 0xC2 : i == 2 ? 0xE0 : 0xF0;
            return least <= byte && byte < 0xF5 ? i : 0;
        }
    }
    return 0;
}

/* Hand out the held bytes but for so many at their end. */
static MFL_RARE void mfl_emit_held(mfl_splitter *s, int stream, size_t kept)
{
    mfl_bytes *const held = &s->unfinished[stream].held;
    held->size -= kept;
    mfl_emit(s, stream, NULL, 0, 0, MFL_PARTIAL);
    memmove(held->data, held->data + held->size, kept); /* held->size + kept <= room */
    held->size = kept;
    s->unfinished[stream].is_cut = 1;
}

/* Add to the unfinished line of a stream; hand out pieces as long as it is too large. */
static MFL_RARE void mfl_add(mfl_splitter *s, int stream, const uint8_t *data, size_t size)
{
    mfl_unfinished *const u = &s->unfinished[stream];
    if (!mfl_is_open(u))
        u->began = ++s->began;
    while (size > s->max_line_size - u->held.size) { /* held.size <= max_line_size */
        size_t n = s->max_line_size - u->held.size;
        size_t begun = mfl_begun_character(&u->held, data, n);
        if (begun == s->max_line_size)
            begun = 0;
        if (begun > n) {
            mfl_emit_held(s, stream, begun - n);
            continue;
        }
        n -= begun;
        mfl_emit(s, stream, data, n, n, MFL_PARTIAL);
        u->held.size = 0;
        u->is_cut = 1;
        data += n;
        size -= n;
    }
    if (!mfl_append(&u->held, data, size))
        s->no_memory = 1;
}

/* End the line of a stream with data and LF. readable: bytes from data on that may be read. */
static inline void mfl_end_line(mfl_splitter *s, int stream, const uint8_t *data, size_t size, size_t readable)
{
    mfl_unfinished *const u = &s->unfinished[stream];
    if (size > s->max_line_size - u->held.size) {
        mfl_add(s, stream, data, size);
        data += size;
        readable -= size;
        size = 0;
    }
    mfl_emit(s, stream, data, size, readable, 0);
    if (u->held.size)
        mfl_clear(&u->held);
    u->is_cut = 0;
    mfl_begin_line(s, u);
}

/* Hand out the unfinished line of a stream, if there is one; CRs at its end are data: no LF follows. */
static inline void mfl_close(mfl_splitter *s, int stream, int partial)
{
    mfl_unfinished *const u = &s->unfinished[stream];
    if (mfl_is_open(u) && (u->held.size || !partial)) {
        mfl_emit(s, stream, NULL, 0, 0, MFL_PARTIAL); /* partial, for now: so that CRs stay */
        if (!partial && !s->no_memory) {
            s->rows->flags[s->rows->count - 1] &= (uint8_t)~MFL_PARTIAL;
            s->rows->partial--;
        }
        mfl_clear(&u->held);
        u->is_cut = partial;
    }
}

/* --- timestamps and details -------------------------------------------------------------------------------------- */

static inline uint64_t mfl_le64(const uint8_t *p)
{
    return (uint64_t)mf_le32(p) | (uint64_t)mf_le32(p + 4) << 32;
}

/* Read 8 digits at once; 0 where one is none. */
static inline int mfl_eight_digits(const uint8_t *p, uint32_t *value)
{
    uint64_t v = mfl_le64(p);
    const uint64_t high = 0xF0F0F0F0F0F0F0F0u, zeros = 0x3030303030303030u;
    if ((v & high) != zeros || ((v + 0x0606060606060606u) & high) != zeros)
        return 0;
    v = (v & 0x0F0F0F0F0F0F0F0Fu) * (1 + (10 << 8)) >> 8 & 0x00FF00FF00FF00FFu;
    v = v * (1 + (100u << 16)) >> 16 & 0x0000FFFF0000FFFFu;
    *value = (uint32_t)(v * (1 + (UINT64_C(10000) << 32)) >> 32);
    return 1;
}

static inline int mfl_two_digits(const uint8_t *p) /* or something negative */
{
    const unsigned a = p[0] - '0', b = p[1] - '0';
    return a > 9 || b > 9 ? -1 : (int)(a * 10 + b);
}

/* Days from 1970-01-01 to a date of the proleptic Gregorian calendar. */
static inline int64_t mfl_days(int year, int month, int day)
{
    const int y = year - (month <= 2); /* the year begins in March, and leap days are at its end */
    const int era = (y >= 0 ? y : y - 399) / 400, of_era = y - era * 400;
    const int of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return (int64_t)era * 146097 + (of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468;
}

/* Read `YYYY-MM-DDTHH:MM:SS` as seconds since the epoch; 0 where there is no such moment. */
static inline int mfl_parse_moment(const uint8_t *p, int64_t *seconds)
{
    static const uint8_t DAYS[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const int century = mfl_two_digits(p), of_century = mfl_two_digits(p + 2), month = mfl_two_digits(p + 5),
              day = mfl_two_digits(p + 8), hour = mfl_two_digits(p + 11), minute = mfl_two_digits(p + 14),
              second = mfl_two_digits(p + 17);
    if ((century | of_century | month | day | hour | minute | second) < 0 || p[4] != '-' || p[7] != '-' ||
        p[10] != 'T' || p[13] != ':' || p[16] != ':')
        return 0;
    const int year = century * 100 + of_century;
    if (year < 1 || month < 1 || month > 12 || day < 1 || hour > 23 || minute > 59 || second > 60)
        return 0;
    const int is_leap = year % 4 == 0 && (year % 100 || year % 400 == 0);
    if (day > DAYS[month - 1] + (month == 2 && is_leap))
        return 0;
    *seconds = ((mfl_days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second;
    return 1;
}

/* Put seconds and nanoseconds together; 0 where they do not fit into 64 bits. */
static inline int mfl_join_time(int64_t seconds, uint32_t nanoseconds, int64_t *timestamp)
{
    const int64_t limit = INT64_MAX / 1000000000;
    if (seconds >= -limit && seconds < limit) {
        *timestamp = seconds * 1000000000 + (int64_t)nanoseconds;
        return 1;
    }
    if (seconds == limit && nanoseconds <= (uint32_t)(INT64_MAX % 1000000000)) {
        *timestamp = limit * 1000000000 + (int64_t)nanoseconds;
        return 1;
    }
    if (seconds == -limit - 1 && nanoseconds >= (uint32_t)(1000000000 + INT64_MIN % 1000000000)) {
        *timestamp = INT64_MIN + (int64_t)(nanoseconds - (uint32_t)(1000000000 + INT64_MIN % 1000000000));
        return 1;
    }
    return 0;
}

/* Read an RFC 3339 timestamp of exactly size bytes; 0 where it is none, or does not fit. */
static inline int mfl_parse_timestamp(mfl_splitter *s, const uint8_t *p, size_t size, int64_t *timestamp, int *whole)
{
    if (size < 20 || size > MFL_MAX_TIMESTAMP)
        return 0;
    if (memcmp(p, s->moment, sizeof s->moment) != 0) {
        int64_t seconds;
        if (!mfl_parse_moment(p, &seconds))
            return 0;
        s->seconds = seconds;
        memcpy(s->moment, p, sizeof s->moment);
    }
    const uint8_t *const end = p + size;
    int64_t seconds = s->seconds;
    uint32_t nanoseconds = 0;
    p += 19;
    *whole = *p != '.';
    if (!*whole) {
        const uint8_t *const first = ++p;
        if (end - p > 9 && mfl_eight_digits(p, &nanoseconds) && (unsigned)(p[8] - '0') <= 9) {
            nanoseconds = nanoseconds * 10 + (uint32_t)(p[8] - '0');
            p += 9;
        } else {
            nanoseconds = 0;
            uint32_t unit = 100000000;
            for (; p < end && (unsigned)(*p - '0') <= 9; p++, unit /= 10)
                nanoseconds += unit * (uint32_t)(*p - '0');
        }
        while (p < end && (unsigned)(*p - '0') <= 9)
            p++;
        if (p == first)
            return 0;
    }
    if (end - p == 6 && (*p == '+' || *p == '-')) {
        const int hours = mfl_two_digits(p + 1), minutes = mfl_two_digits(p + 4);
        if ((hours | minutes) < 0 || hours > 23 || minutes > 59 || p[3] != ':')
            return 0;
        seconds -= (*p == '+' ? 60 : -60) * (int64_t)(hours * 60 + minutes);
    } else if (end - p != 1 || *p != 'Z') {
        return 0;
    }
    return mfl_join_time(seconds, nanoseconds, timestamp);
}

/* May it be in details? What url.QueryEscape leaves, '=' and ','. */
static inline int mfl_is_detail(uint8_t c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '.' ||
           c == '~' || c == '%' || c == '+' || c == '=' || c == ',' || c == '-';
}

/* Is it nothing, or `k=v` and more of them behind commas? */
static inline int mfl_are_details(const uint8_t *p, size_t size)
{
    int equals = 0;
    for (size_t i = 0; i < size; i++) {
        if (p[i] == '=')
            equals++;
        if (p[i] == ',') {
            if (equals != 1)
                return 0;
            equals = 0;
        }
        if (equals > 1)
            return 0;
    }
    return !size || equals == 1;
}

typedef struct {
    size_t size;                    /* of all of it */
    int64_t timestamp;
    uint8_t flags;
    const uint8_t *details;
    size_t details_size;
} mfl_prefix;

/* Read the prefix at p; 0 where more must come before it is known. is_end: no more will. */
static inline int mfl_parse_prefix(mfl_splitter *s, const uint8_t *p, size_t size, int is_end, mfl_prefix *prefix)
{
    prefix->size = prefix->details_size = 0;
    prefix->flags = 0;
    prefix->timestamp = 0;
    prefix->details = NULL;
    if (s->timestamps) {
        int whole = 0;
        if (size > 30 && p[30] == ' ' && mfl_parse_timestamp(s, p, 30, &prefix->timestamp, &whole)) {
            prefix->size = 31; /* as engines write it; what parses has no blank in it */
        } else {
            const size_t within = size < MFL_MAX_TIMESTAMP + 1 ? size : MFL_MAX_TIMESTAMP + 1;
            const uint8_t *const blank = memchr(p, ' ', within);
            if (!blank && size <= MFL_MAX_TIMESTAMP && !is_end && !memchr(p, '\n', size))
                return 0;
            if (!blank || !mfl_parse_timestamp(s, p, (size_t)(blank - p), &prefix->timestamp, &whole)) {
                prefix->timestamp = 0;
                return 1;
            }
            prefix->size = (size_t)(blank - p) + 1;
        }
        prefix->flags = (uint8_t)(MFL_TIMESTAMP | (whole ? MFL_WHOLE : 0));
    }
    if (s->details) {
        const size_t from = prefix->size;
        size_t i = from;
        while (i < size && i - from < MFL_MAX_DETAILS && mfl_is_detail(p[i]))
            i++;
        if (i == size && !is_end)
            return 0;
        if (i < size && p[i] == ' ' && mfl_are_details(p + from, i - from)) {
            prefix->details = p + from;
            prefix->details_size = i - from;
            prefix->flags |= MFL_DETAILS;
            prefix->size = i + 1;
        }
    }
    return 1;
}

/* Does a part with this prefix continue the unfinished line? */
static inline int mfl_continues(const mfl_splitter *s, const mfl_unfinished *u, const mfl_prefix *prefix)
{
    if (!mfl_is_open(u))
        return 0;
    if (!s->timestamps)
        return 1;
    if (!(prefix->flags & u->part.flags & MFL_TIMESTAMP))
        return 0;
    if (prefix->timestamp == u->part.timestamp)
        return 1;
    return (prefix->flags & u->part.flags & MFL_WHOLE) && prefix->timestamp > u->part.timestamp &&
           (uint64_t)prefix->timestamp - (uint64_t)u->part.timestamp == 1000000000u;
}

static inline void mfl_begin_part(mfl_splitter *s, int stream, const mfl_prefix *prefix)
{
    mfl_unfinished *const u = &s->unfinished[stream];
    const int continues = mfl_continues(s, u, prefix);
    if (!continues)
        mfl_close(s, stream, 0);
    u->part.timestamp = prefix->timestamp;
    u->part.flags = prefix->flags;
    if (s->details) {
        u->part.details.size = 0;
        if (!mfl_append(&u->part.details, prefix->details, prefix->details_size))
            s->no_memory = 1;
    }
    if (!continues)
        mfl_begin_line(s, u);
}

/* Begin a part with its prefix; return the bytes of data that belong to it, or SIZE_MAX where more must come before it
 * is known. */
static inline size_t mfl_take_prefix(mfl_splitter *s, int stream, const uint8_t *data, size_t size, int is_end)
{
    mfl_prefix prefix;
    const size_t earlier = s->head.size;
    int known;
    if (!earlier) {
        known = mfl_parse_prefix(s, data, size, is_end, &prefix);
    } else { /* enough to decide in any case */
        const size_t enough = MFL_MAX_TIMESTAMP + MFL_MAX_DETAILS + 4;
        if (!mfl_append(&s->head, data, size < enough ? size : enough)) {
            s->no_memory = 1;
            return SIZE_MAX;
        }
        known = mfl_parse_prefix(s, s->head.data, s->head.size, is_end, &prefix);
    }
    if (!known) {
        if (!earlier && !mfl_append(&s->head, data, size))
            s->no_memory = 1;
        return SIZE_MAX;
    }
    s->in_head = 0;
    if (s->is_midway) {
        s->is_midway = 0;
        if ((prefix.flags & (MFL_TIMESTAMP | MFL_WHOLE)) != MFL_TIMESTAMP ||
            !(s->unfinished[stream].part.flags & MFL_TIMESTAMP) ||
            prefix.timestamp != s->unfinished[stream].part.timestamp) { /* no other part */
            mfl_add(s, stream, s->head.data, earlier); /* there is no LF in them */
            mfl_clear(&s->head);
            return 0;
        }
    }
    s->part_size = prefix.size < earlier ? earlier - prefix.size : 0;
    if (s->timestamps && !(prefix.flags & MFL_TIMESTAMP))
        mf_count(&s->invalid, 1);
    mfl_begin_part(s, stream, &prefix);
    if (prefix.size < earlier) /* no prefix after all, or no details: these bytes are the line's. There is no LF in them. */
        mfl_add(s, stream, s->head.data + prefix.size, earlier - prefix.size);
    mfl_clear(&s->head);
    return prefix.size > earlier ? prefix.size - earlier : 0;
}

/* --- the wire ---------------------------------------------------------------------------------------------------- */

/* Take payload. is_end: up to its frame's end. readable: bytes from data on that may be read. */
static inline void mfl_take(mfl_splitter *s, int stream, const uint8_t *data, size_t size, size_t readable, int is_end)
{
    const uint8_t *const behind = data + readable, *const end = data + size;
    while (data < end) {
        if (s->in_head) {
            const size_t taken = mfl_take_prefix(s, stream, data, (size_t)(end - data), is_end);
            if (taken == SIZE_MAX)
                return;
            data += taken;
            if (data == end)
                return;
        }
        const uint8_t *stop = end;
        const int is_counting = s->raw && s->timestamps && s->part_size < MFL_PART;
        if (is_counting && MFL_PART - s->part_size < (size_t)(end - data))
            stop = data + (MFL_PART - s->part_size);
        const uint8_t *const lf = memchr(data, '\n', (size_t)(stop - data));
        if (lf) {
            mfl_end_line(s, stream, data, (size_t)(lf - data), (size_t)(behind - data));
            data = lf + 1;
            if (s->raw)
                s->in_head = s->timestamps || s->details;
            continue;
        }
        mfl_add(s, stream, data, (size_t)(stop - data));
        if (is_counting) {
            s->part_size += (size_t)(stop - data);
            s->in_head = s->is_midway = s->part_size == MFL_PART;
        }
        data = stop;
    }
}

/* Make room for the lines that size bytes of wire can complete. */
static inline int mfl_prepare(mfl_splitter *s, size_t size)
{
    size_t more = size + MFL_SLACK;
    for (int i = 0; i < MFL_STREAMS; i++)
        more += s->unfinished[i].held.size;
    more += s->head.size;
    if (!s->rows)
        return mfl_begin_rows(s, more);
    if (s->max_bytes == SIZE_MAX && !mfl_reserve(&s->rows->data, more))
        s->no_memory = 1;
    return !s->no_memory;
}

/* Take wire bytes of a framed stream. MF_MORE: all of them. MF_FAULT: state->header is no valid header. MF_TEXT: inside
 * a systemerr frame. */
static inline mf_status mfl_feed(mfl_splitter *s, mf_state *state, const uint8_t *src, size_t size, size_t *consumed)
{
    const uint8_t *p = src, *counted = src, *const end = src + size; /* state->offset is that of counted */
    const uint32_t mask = state->check_reserved ? 0xFFFFFFFFu : 0xFFu;
    const int has_prefix = s->timestamps || s->details;
    mf_status status = MF_MORE;
    while (p < end && !s->no_memory) {
        const size_t left = (size_t)(end - p);
        if (state->remaining) {
            const size_t n = left < state->remaining ? left : state->remaining;
            state->remaining -= (uint32_t)n; /* n <= remaining */
            mfl_take(s, state->header[0], p, n, left, state->remaining == 0); /* header[0] is 0..2 */
            state->frames += state->remaining == 0;
            p += n;
            continue;
        }
        if (left >= MF_HEADER_SIZE && (state->header_size == 0 || state->header_size == MF_HEADER_SIZE)) {
            uint32_t kind = mf_le32(p) & mask, payload = mf_be32(p + 4);
            MF_READ_ONCE(kind);
            MF_READ_ONCE(payload);
            if (kind < MF_SYSTEMERR && payload <= state->limit && payload <= left - MF_HEADER_SIZE) { /* whole, valid */
                if (payload) {
                    s->in_head = has_prefix;
                    mfl_take(s, (int)kind, p + MF_HEADER_SIZE, payload, left - MF_HEADER_SIZE, 1);
                }
                state->frames++;
                p += MF_HEADER_SIZE + (size_t)payload;
                continue;
            }
        }
        size_t taken = 0;
        mf_count(&state->offset, (size_t)(p - counted));
        status = mf_take_header(state, p, left, &taken);
        p = counted = p + taken;
        if (status != MF_MORE)
            break;
        if (state->remaining)
            s->in_head = has_prefix;
    }
    mf_count(&state->offset, (size_t)(p - counted));
    *consumed = (size_t)(p - src);
    return status;
}

/* Take bytes of a raw stream. */
static inline void mfl_feed_raw(mfl_splitter *s, const uint8_t *src, size_t size)
{
    mf_count(&s->offset, size);
    mfl_take(s, 1, src, size, size, 0);
}

/* Return the stream whose unfinished line began first after `after`, or -1. */
static inline int mfl_next_open(const mfl_splitter *s, uint64_t after)
{
    int found = -1;
    for (int i = 0; i < MFL_STREAMS; i++)
        if (mfl_is_open(&s->unfinished[i]) && s->unfinished[i].began > after &&
            (found < 0 || s->unfinished[i].began < s->unfinished[found].began))
            found = i;
    return found;
}

/* Begin a part whose prefix will not go on; it is stream's. */
static inline void mfl_end_prefix(mfl_splitter *s, int stream)
{
    if (s->head.size)
        mfl_take_prefix(s, stream, NULL, 0, 1);
}

/* End all unfinished lines; partial: where a fault cuts them off. */
static inline void mfl_close_all(mfl_splitter *s, int partial)
{
    uint64_t after = 0;
    for (int i; (i = mfl_next_open(s, after)) >= 0;) {
        after = s->unfinished[i].began;
        mfl_close(s, i, partial);
    }
}

/* Hand out what there is of unfinished lines, but for CRs, or a character that has only begun, at their end. */
static inline void mfl_flush(mfl_splitter *s)
{
    uint64_t after = 0;
    for (int i; (i = mfl_next_open(s, after)) >= 0;) {
        mfl_unfinished *const u = &s->unfinished[i];
        size_t kept = mfl_begun_character(&u->held, NULL, 0);
        after = u->began;
        if (!kept)
            while (kept < u->held.size && u->held.data[u->held.size - 1 - kept] == '\r')
                kept++;
        if (kept < u->held.size)
            mfl_emit_held(s, i, kept);
    }
}

#endif
