/* The copying loop between file descriptors (POSIX): read, take frames apart, write, without Python.
 *
 * It runs until somebody above has to decide: at the end, at an error, at a signal. Everything needed to go on is in
 * the struct, so a run can be resumed after a signal, and nothing that was read is out of reach after an error.
 */
#ifndef MUXFRAME_PUMP_H
#define MUXFRAME_PUMP_H

#include "_framing.h"

typedef enum {
    MF_PUMP_END,            /* the source has ended; everything is written */
    MF_PUMP_SIGNAL,         /* a signal may have come: let its handlers run, and call again */
    MF_PUMP_FAULT,          /* mf_feed_into stopped at status; everything before is written */
    MF_PUMP_SOURCE,         /* reading failed with error; everything read is written */
    MF_PUMP_SINK,           /* writing to sinks[failed] failed with error */
    MF_PUMP_UNSUPPORTED     /* not on this platform */
} mf_pump_result;

typedef struct {
    int source;             /* file descriptor */
    int sinks[2];           /* file descriptors; -1: discard */
    uint8_t *block;         /* what was read: block[start:end] is to be taken apart */
    size_t block_size;
    size_t start;
    size_t end;
    mf_output outputs[2];   /* what was taken apart: data[written:size] is to be written */
    size_t written[2];
    uint64_t sizes[2];      /* payload bytes written or discarded */
    uint64_t delay;         /* nanoseconds to let bytes gather after a short read, while more are there already */
    int ordered;
    int watch_signals;      /* come back before each read: this thread is the one that runs signal handlers */
    int was_watched;
    int was_short;          /* the last read gave little */
    int failed;
    int error;              /* errno */
    mf_status status;
} mf_pump;

#ifdef _WIN32
static inline mf_pump_result mf_pump_run(mf_pump *pump, mf_state *state)
{
    (void)pump;
    (void)state;
    return MF_PUMP_UNSUPPORTED;
}
#else

#include <errno.h>
#include <poll.h>
#include <time.h>
#include <unistd.h>

enum { MF_SHORT_READ = 16 * 1024 };

/* Wait until the descriptor is ready. Returns 0, or -1 with errno (EINTR among others). */
static int mf_wait(int descriptor, short events)
{
    struct pollfd entry = {descriptor, events, 0};
    return poll(&entry, 1, -1) < 0 ? -1 : 0;
}

/* Write out what output i holds. Returns 0, or -1 with errno: EINTR also where a signal may have cut a write short. */
static int mf_pump_write(mf_pump *pump, int i)
{
    mf_output *const out = &pump->outputs[i];
    if (pump->sinks[i] < 0)
        pump->written[i] = out->size; /* discarded, counted */
    while (pump->written[i] < out->size) {
        const ssize_t n = write(pump->sinks[i], out->data + pump->written[i], out->size - pump->written[i]);
        if (n >= 0) {
            pump->written[i] += (size_t)n;
            pump->sizes[i] += (uint64_t)n;
            if (pump->watch_signals && pump->written[i] < out->size) {
                errno = EINTR;
                return -1;
            }
        } else if ((errno != EAGAIN && errno != EWOULDBLOCK) || mf_wait(pump->sinks[i], POLLOUT) < 0) {
            return -1;
        }
    }
    if (pump->sinks[i] < 0)
        pump->sizes[i] += out->size;
    out->size = pump->written[i] = 0;
    return 0;
}

/* Read a block. Returns the bytes, 0 at the end, or -1 with errno. */
static ssize_t mf_pump_read(mf_pump *pump)
{
    if (pump->delay && pump->was_short) {
        struct pollfd entry = {pump->source, POLLIN, 0};
        if (poll(&entry, 1, 0) > 0) { /* busy: an idle source is waited for without delay */
            const struct timespec delay = {(time_t)(pump->delay / 1000000000u), (long)(pump->delay % 1000000000u)};
            pump->was_short = 0; /* if the sleep is interrupted, the next call reads at once */
            if (nanosleep(&delay, NULL) < 0)
                return -1;
        }
    }
    for (;;) {
        const ssize_t n = read(pump->source, pump->block, pump->block_size);
        if (n >= 0 || (errno != EAGAIN && errno != EWOULDBLOCK) || mf_wait(pump->source, POLLIN) < 0)
            return n;
    }
}

static inline mf_pump_result mf_pump_run(mf_pump *pump, mf_state *state)
{
    for (;;) {
        for (int i = 0; i < 2; i++) {
            if (mf_pump_write(pump, i) < 0) {
                pump->failed = i;
                pump->error = errno;
                return errno == EINTR ? MF_PUMP_SIGNAL : MF_PUMP_SINK;
            }
        }
        if (pump->status == MF_FAULT || pump->status == MF_TEXT)
            return MF_PUMP_FAULT;
        if (pump->start < pump->end) {
            size_t consumed = 0;
            pump->status = mf_feed_into(state, pump->block + pump->start, pump->end - pump->start, pump->outputs,
                                        pump->ordered, &consumed);
            pump->start += consumed; /* consumed <= end - start */
            continue;
        }
        if (pump->watch_signals && !pump->was_watched) { /* handlers run before a read that may block */
            pump->was_watched = 1;
            return MF_PUMP_SIGNAL;
        }
        const ssize_t n = mf_pump_read(pump);
        pump->was_watched = 0;
        if (n == 0)
            return MF_PUMP_END;
        if (n < 0) {
            pump->error = errno;
            return errno == EINTR ? MF_PUMP_SIGNAL : MF_PUMP_SOURCE;
        }
        pump->start = 0;
        pump->end = (size_t)n; /* n <= block_size */
        pump->was_short = n < MF_SHORT_READ;
    }
}

#endif
#endif
