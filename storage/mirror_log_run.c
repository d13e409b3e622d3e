/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The copy's writes are sent in the order of the disk, where that is free to choose.
 *
 * QEMU's copy has 16 reads under way and writes what comes back first, so a file's pieces come shuffled; in their own
 * order the compressor finds more (real files: 0.419 of raw instead of 0.427, at level 5), and the target's disk likes it, too. So
 * when the last large extent's successor is among the next in the log, it goes first.
 *
 * That is right because an entry passes only entries of its own epoch (no READ or CHECK between) that it does not
 * overlap, and overlap is all that orders two entries. A FLUSH that is passed has the more before it. Nobody waits for
 * long: the first of the queue is passed at most RUN_PASSES_MAX times.
 */
#include "storage/mirror_log_private.h"

enum {
    RUN_LEAST_BYTES = 64 * 1024, /* smaller ones are the guest's, and do not end a run */
    RUN_LOOK_ENTRIES = 24,       /* QEMU's 16, and some of the guest's */
    RUN_PASSES_MAX = 64,
};

static bool overlap(const struct entry *a, const struct entry *b)
{
    return a->offset < b->offset + b->length && b->offset < a->offset + a->length;
}

/* It may go before everything that stands before it. */
static bool may_pass(const struct mirror_log *log, const struct entry *e)
{
    const struct entry *before;

    TAILQ_FOREACH(before, &log->unsent, link)
    {
        if (before == e)
            return true;
        if (overlap(before, e))
            return false;
    }
    return false;
}

static bool is_next(const struct mirror_log *log, const struct entry *e)
{
    return e->offset == log->run_end && e->length >= RUN_LEAST_BYTES &&
           (e->kind == MIRROR_LOG_ZERO || (e->kind == MIRROR_LOG_WRITE && e->payload));
}

void mirror_log_run_choose(struct mirror_log *log)
{
    struct entry *first = TAILQ_FIRST(&log->unsent), *e = first;

    if (log->ready || !first || first->seq > 0 || is_next(log, first) ||
        log->run_passed >= RUN_PASSES_MAX)
        return;
    for (unsigned n = 0; n < RUN_LOOK_ENTRIES; n++) {
        e = TAILQ_NEXT(e, link);
        if (!e || e->epoch != first->epoch)
            return;
        if (is_next(log, e) && may_pass(log, e)) {
            TAILQ_REMOVE(&log->unsent, e, link);
            TAILQ_INSERT_HEAD(&log->unsent, e, link);
            log->run_passed++;
            return;
        }
    }
}

void mirror_log_run_began(struct mirror_log *log, const struct entry *e)
{
    bool in_run = is_next(log, e);

    if (!in_run)
        log->run_passed = 0;
    if (e->length >= RUN_LEAST_BYTES && (e->kind == MIRROR_LOG_WRITE || e->kind == MIRROR_LOG_ZERO))
        log->run_end = e->offset + e->length;
}
