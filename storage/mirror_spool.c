/* SPDX-License-Identifier: Apache-2.0 */
/* Segments of the spool file, and their reads and writes: see mirror_spool.h. */
#include "storage/mirror_spool.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/macros.h"
#include "storage/mirror_spool_private.h"

struct mirror_spool {
    const struct mirror_spool_ops *ops;
    void *owner;
    uint32_t segment_bytes;
    uint64_t segments;    /* that the limit allows */
    uint64_t used, peak;  /* of them */
    uint64_t *free_stack; /* numbers that were used and are free */
    uint64_t free_count;
    uint64_t fresh; /* the lowest number never used: the file grows no further than needed */
    unsigned running;
    bool failed;
};

int mirror_spool_new(struct mirror_spool **ret_spool, uint64_t limit_bytes, uint32_t segment_bytes,
                     const struct mirror_spool_ops *ops, void *owner)
{
    struct mirror_spool *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->ops = ops;
    s->owner = owner;
    s->segment_bytes = segment_bytes;
    s->segments = limit_bytes / segment_bytes;
    s->free_stack = calloc(s->segments + 1, sizeof(*s->free_stack));
    if (!s->free_stack) {
        free(s);
        return -ENOMEM;
    }
    *ret_spool = s;
    return 0;
}

void mirror_spool_free(struct mirror_spool *s)
{
    if (!s)
        return;
    assert(s->used == 0 && s->running == 0);
    free(s->free_stack);
    free(s);
}

static void free_segment(struct mirror_spool *s, struct mirror_segment *segment)
{
    s->free_stack[s->free_count++] = segment->number;
    s->used--;
    free(segment->io.data);
    free(segment);
    if (s->used > 0)
        return;
    s->failed = false;
    s->ops->emptied(s->owner);
}

struct mirror_segment *mirror_spool_take(struct mirror_spool *s, struct mirror_log *log)
{
    struct mirror_segment *segment;

    if (s->failed || s->used == s->segments)
        return NULL;
    segment = calloc(1, sizeof(*segment));
    if (segment)
        segment->io.data = malloc(s->segment_bytes);
    if (!segment || !segment->io.data) {
        free(segment);
        return NULL;
    }
    segment->number = s->free_count > 0 ? s->free_stack[--s->free_count] : s->fresh++;
    segment->io.offset = segment->number * s->segment_bytes;
    segment->log = log;
    TAILQ_INIT(&segment->entries);
    s->used++;
    s->peak = MAX(s->peak, s->used);
    return segment;
}

uint32_t mirror_spool_segment_bytes(const struct mirror_spool *s)
{
    return s->segment_bytes;
}

static void fail(struct mirror_spool *s, int err)
{
    if (!s->failed)
        s->ops->failed(s->owner, err);
    s->failed = true;
}

int mirror_spool_write(struct mirror_spool *s, struct mirror_segment *segment)
{
    int err;

    segment->io.write = true;
    err = s->ops->start(s->owner, &segment->io);
    if (err < 0) {
        fail(s, err);
        return err;
    }
    segment->state = SEGMENT_WRITING;
    s->running++;
    return 0;
}

int mirror_spool_read(struct mirror_spool *s, struct mirror_segment *segment)
{
    int err;

    segment->io.write = false;
    segment->io.data = malloc(s->segment_bytes);
    if (!segment->io.data)
        return -ENOMEM;
    err = s->ops->start(s->owner, &segment->io);
    if (err < 0) {
        free(TAKE_PTR(segment->io.data));
        return err;
    }
    segment->state = SEGMENT_READING;
    s->running++;
    return 0;
}

void mirror_spool_release(struct mirror_spool *s, struct mirror_segment *segment)
{
    assert(TAILQ_EMPTY(&segment->entries));
    if (segment->state == SEGMENT_WRITING || segment->state == SEGMENT_READING)
        segment->log = NULL; /* its data is still in use: freed at the completion */
    else
        free_segment(s, segment);
}

void mirror_spool_complete(struct mirror_spool *s, struct mirror_spool_io *io, int err,
                           uint64_t now_ns)
{
    struct mirror_segment *segment = container_of(io, struct mirror_segment, io);

    s->running--;
    if (io->write && err < 0)
        fail(s, err);
    if (!segment->log) {
        free_segment(s, segment);
        return;
    }
    mirror_log_segment_done(segment->log, segment, err, now_ns);
}

unsigned mirror_spool_running(const struct mirror_spool *s)
{
    return s->running;
}

uint64_t mirror_spool_limit_bytes(const struct mirror_spool *s)
{
    return s && !s->failed ? s->segments * s->segment_bytes : 0;
}

uint64_t mirror_spool_used_bytes(const struct mirror_spool *s)
{
    return s ? s->used * s->segment_bytes : 0;
}

uint64_t mirror_spool_peak_bytes(const struct mirror_spool *s)
{
    return s ? s->peak * s->segment_bytes : 0;
}
