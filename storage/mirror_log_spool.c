/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What of a mirror log goes to the spool, and when it comes back.
 *
 * Spilling starts when the budget is filled to 3/8: above where step one of congestion control keeps it, so
 * that an ordinary move never spills, below where step two delays the guest. It takes the newest payloads,
 * which are needed last, a segment's worth at a time. An entry that is on the spool stays in its place in
 * the queue and in the index, and may coalesce away. Its payload comes back when it is among the first
 * unsent, together with the others of its segment, and does not go again.
 *
 * An entry's payload is freed, and its charge given back, only when it is written; one that is sent or
 * dropped before that just leaves the segment.
 */
#include <assert.h>
#include <errno.h>
#include <string.h>

#include "storage/mirror_spool_private.h"

enum {
    WRITES_MAX = 2,
    READS_MAX = 4,
    /* What is next in line is brought back, no more: 4 segments of bytes, and a bound for the search. */
    LOOK_AHEAD_SEGMENTS = 4,
    LOOK_AHEAD_SHARE =
        8, /* of a small budget: what is brought back must leave the copy its place */
    LOOK_AHEAD_ENTRIES = 1024,
};

/* A read under way is charged from its start. */
static void end_read(struct mirror_log *log)
{
    log->spool_reads--;
    mirror_log_give_back(log, mirror_spool_segment_bytes(log->spool));
}

static void leave(struct mirror_log *log, struct entry *e)
{
    struct mirror_segment *segment = e->segment;

    TAILQ_REMOVE(&segment->entries, e, segment_link);
    e->segment = NULL;
    if (TAILQ_EMPTY(&segment->entries) && segment->state != SEGMENT_FILLING) {
        if (segment->state == SEGMENT_WRITING)
            log->spool_writes--;
        if (segment->state == SEGMENT_READING)
            end_read(log);
        mirror_spool_release(log->spool, segment);
    }
}

void mirror_log_spool_keep(struct mirror_log *log, struct entry *e)
{
    if (!log->spool || !e->payload || e->length > mirror_spool_segment_bytes(log->spool))
        return;
    TAILQ_INSERT_TAIL(&log->resident, e, segment_link);
    e->resident = true;
    log->resident_bytes += e->length;
}

static void unlist(struct mirror_log *log, struct entry *e)
{
    if (!e->resident)
        return;
    TAILQ_REMOVE(&log->resident, e, segment_link);
    e->resident = false;
    log->resident_bytes -= e->length;
}

void mirror_log_spool_forget(struct mirror_log *log, struct entry *e)
{
    unlist(log, e);
    if (mirror_log_is_spooled(e))
        log->stats.spooled_bytes -= e->length;
    if (e->segment)
        leave(log, e);
}

bool mirror_log_is_spooled(const struct entry *e)
{
    return e->segment && !e->payload;
}

/* --- out ------------------------------------------------------------------------------------ */

/* The newest payloads, as many as fit, oldest of them first. */
static void fill(struct mirror_log *log, struct mirror_segment *segment)
{
    uint32_t room = mirror_spool_segment_bytes(log->spool), at = 0;
    struct entry *e;

    while ((e = TAILQ_LAST(&log->resident, entry_queue)) && e->length <= room) {
        unlist(log, e);
        room -= e->length;
        e->segment = segment;
        TAILQ_INSERT_HEAD(&segment->entries, e, segment_link);
    }
    TAILQ_FOREACH(e, &segment->entries, segment_link)
    {
        memcpy(segment->io.data + at, e->payload, e->length);
        e->segment_at = at;
        at += e->length;
    }
    segment->io.length = at;
}

static void drop_segment(struct mirror_log *log, struct mirror_segment *segment)
{
    struct entry *e;

    segment->state = SEGMENT_WRITTEN;
    while ((e = TAILQ_FIRST(&segment->entries))) {
        bool last = !TAILQ_NEXT(e, segment_link);

        leave(log, e);
        if (last)
            break; /* and the segment with it */
    }
}

void mirror_log_spill(struct mirror_log *log)
{
    struct mirror_segment *segment;

    if (!log->spool)
        return;
    while (log->spool_writes < WRITES_MAX &&
           log->resident_bytes >= 2 * (uint64_t)mirror_spool_segment_bytes(log->spool) &&
           mirror_budget_wants_spill(log->budget) &&
           (segment = mirror_spool_take(log->spool, log))) {
        fill(log, segment);
        if (mirror_spool_write(log->spool, segment) < 0) {
            drop_segment(log, segment); /* they stay in memory, for good */
            return;
        }
        log->spool_writes++;
    }
}

static void written(struct mirror_log *log, struct mirror_segment *segment)
{
    struct entry *e;

    free(TAKE_PTR(segment->io.data));
    segment->state = SEGMENT_WRITTEN;
    TAILQ_FOREACH(e, &segment->entries, segment_link)
    {
        free(TAKE_PTR(e->payload));
        e->charge_bytes -= e->length;
        mirror_log_give_back(log, e->length);
        log->stats.unsent_bytes -= e->length;
        log->stats.spooled_bytes += e->length;
        log->stats.spooled_ever_bytes += e->length;
    }
}

uint64_t mirror_log_spool_reserve(const struct mirror_log *log)
{
    if (log->stats.spooled_bytes == 0)
        return 0;
    return (uint64_t)READS_MAX * mirror_spool_segment_bytes(log->spool);
}

/* --- back ----------------------------------------------------------------------------------- */

/* Beyond the budget only one, when nothing is under way whose end would make room. */
static bool may_read(struct mirror_log *log, const struct entry *e)
{
    return (e == TAILQ_FIRST(&log->unsent) && TAILQ_EMPTY(&log->sent) && log->spool_reads == 0) ||
           (log->spool_reads < READS_MAX &&
            mirror_budget_has_room(log->budget, mirror_spool_segment_bytes(log->spool)));
}

void mirror_log_unspool(struct mirror_log *log)
{
    struct entry *e;
    uint64_t ahead_bytes = 0, enough_bytes;
    unsigned seen = 0;
    int err;

    if (!log->spool || log->stats.spooled_bytes == 0)
        return;
    enough_bytes = MIN((uint64_t)LOOK_AHEAD_SEGMENTS * mirror_spool_segment_bytes(log->spool),
                       mirror_budget_plan_bytes(log->budget, 1) / LOOK_AHEAD_SHARE);
    TAILQ_FOREACH(e, &log->unsent, link)
    {
        if (seen++ == LOOK_AHEAD_ENTRIES || ahead_bytes >= enough_bytes)
            return;
        ahead_bytes += e->kind == MIRROR_LOG_WRITE ? e->length : 0;
        if (!mirror_log_is_spooled(e) || e->segment->state == SEGMENT_READING)
            continue;
        if (!may_read(log, e))
            return;
        err = mirror_spool_read(log->spool, e->segment);
        if (err == -ENOMEM)
            return; /* tried again */
        if (err < 0) {
            log->ops->unspooled(log->owner, err, 0);
            return;
        }
        log->spool_reads++;
        mirror_log_charge(log, mirror_spool_segment_bytes(log->spool));
    }
}

static bool take_back(struct mirror_log *log, struct mirror_segment *segment, struct entry *e)
{
    e->payload = malloc(e->length);
    if (!e->payload)
        return false;
    memcpy(e->payload, segment->io.data + e->segment_at, e->length);
    e->charge_bytes += e->length;
    mirror_log_charge(log, e->length);
    log->stats.unsent_bytes += e->length;
    log->stats.spooled_bytes -= e->length;
    return true;
}

/* Out of memory: what is not back stays on the spool. */
static void read_back(struct mirror_log *log, struct mirror_segment *segment)
{
    struct entry *e, *next;

    segment->state = SEGMENT_FILLING; /* not to be released while it is walked */
    for (e = TAILQ_FIRST(&segment->entries); e; e = next) {
        next = TAILQ_NEXT(e, segment_link);
        if (take_back(log, segment, e))
            leave(log, e);
    }
    free(TAKE_PTR(segment->io.data));
    segment->state = SEGMENT_WRITTEN;
    if (TAILQ_EMPTY(&segment->entries))
        mirror_spool_release(log->spool, segment);
}

void mirror_log_segment_done(struct mirror_log *log, struct mirror_segment *segment, int err,
                             uint64_t now_ns)
{
    if (segment->io.write) {
        log->spool_writes--;
        if (err == 0)
            written(log, segment);
        else
            drop_segment(log, segment);
        mirror_log_spill(log);
        mirror_budget_settle(log->budget, now_ns);
        return;
    }
    end_read(log);
    if (err == 0) {
        read_back(log, segment);
    } else {
        segment->state = SEGMENT_WRITTEN;
        free(TAKE_PTR(segment->io.data));
    }
    log->ops->unspooled(log->owner, err, now_ns);
}
