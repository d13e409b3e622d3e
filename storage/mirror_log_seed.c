/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a mirror log sends as a SEED, because the target may have it on an older copy of the disk.
 *
 *   unsent --SEED--> asked --APPLIED--> gone
 *                      |  ^
 *                 MISS |  | (once more, when the seed has changed)
 *                      v  |
 *                     owed --FILL--> filled --APPLIED--> gone
 *
 * An entry that was sent as a SEED keeps its payload, which its charge still counts, until it is applied or
 * sent whole. FILLs go before everything that is unsent: others may wait for them at the target.
 *
 * Asking costs a round trip where the seed has nothing, so it is given up in steps: `seed_hope` follows what
 * the last answers saved, and when that is little only every 16th is asked. Never once the disk is mirrored:
 * what the guest writes then is new, and a round trip would be downtime.
 */
#include <errno.h>

#include "storage/limits.h"
#include "storage/mirror_log_private.h"
#include "storage/mirror_wire.h"
#include "storage/seed_blocks.h"

enum {
    HOPE_WHOLE = 256, /* all that was asked for lately came from the seed */
    HOPE_LITTLE = 32,
    HOPE_WEIGHT = 16, /* answers that it remembers */
    ASK_SELDOM = 16,
};

void mirror_log_set_seeded(struct mirror_log *log)
{
    log->seeded = true;
    log->seed_hope = HOPE_WHOLE;
}

static bool overlaps_a_seed(const struct mirror_log *log, const struct entry *e)
{
    const struct entry *seed;

    TAILQ_FOREACH(seed, &log->seeds, seed_link)
    {
        if (seed->offset < e->offset + e->length && e->offset < seed->offset + seed->length)
            return true;
    }
    return false;
}

static bool wants_seed(struct mirror_log *log, const struct entry *e)
{
    if (!log->seeded || log->ready || e->kind != MIRROR_LOG_WRITE ||
        e->offset % SEED_BLOCK_BYTES != 0 || e->length < SEED_BLOCK_BYTES ||
        e->length > SEED_EXTENT_BYTES)
        return false;
    return log->seed_hope >= HOPE_LITTLE || ++log->seeds_passed % ASK_SELDOM == 0;
}

bool mirror_log_seed_may_send(const struct mirror_log *log, const struct entry *e)
{
    if (log->seed_count == 0)
        return true;
    if (e->kind == MIRROR_LOG_READ || e->kind == MIRROR_LOG_CHECK)
        return false;
    if (log->seed_count >= LIMIT_SEEDS_IN_FLIGHT)
        return false;
    if (e->length == 0 || !overlaps_a_seed(log, e))
        return true;
    return log->behind_count < LIMIT_SEED_BEHIND_OPERATIONS &&
           log->behind_bytes + e->length <= LIMIT_SEED_BEHIND_BYTES;
}

void mirror_log_seed_begin(struct mirror_log *log, struct entry *e)
{
    e->behind = log->seed_count > 0 && e->length > 0 && overlaps_a_seed(log, e);
    if (e->behind) {
        log->behind_count++;
        log->behind_bytes += e->length;
    }
    if (!wants_seed(log, e))
        return;
    e->digests = malloc(seed_digests_bytes(e->length));
    if (!e->digests || !seed_digest(e->payload, e->length, e->digests)) {
        free(TAKE_PTR(e->digests)); /* then it goes as it is */
        return;
    }
    e->seed = SEED_ASKED;
    TAILQ_INSERT_TAIL(&log->seeds, e, seed_link);
    log->seed_count++;
}

void mirror_log_seed_forget(struct mirror_log *log, struct entry *e)
{
    if (e->behind) {
        log->behind_count--;
        log->behind_bytes -= e->length;
        e->behind = false;
    }
    if (e->seed == SEED_NONE)
        return;
    if (e->seed == SEED_OWED)
        TAILQ_REMOVE(&log->fills, e, fill_link);
    TAILQ_REMOVE(&log->seeds, e, seed_link);
    log->seed_count--;
    e->seed = SEED_NONE;
}

bool mirror_log_seed_is_owed(const struct entry *e)
{
    return e->seed == SEED_OWED;
}

void mirror_log_seed_applied(struct mirror_log *log, struct entry *e)
{
    uint32_t saved = e->length - e->filled_bytes;

    if (e->seed == SEED_NONE)
        return;
    log->stats.seed_bytes += saved;
    log->seed_hope +=
        ((int)((uint64_t)saved * HOPE_WHOLE / e->length) - log->seed_hope) / HOPE_WEIGHT;
}

/* --- what the seed lacks -------------------------------------------------------------------- */

int mirror_log_missed(struct mirror_log *log, uint64_t seq, uint8_t **hints, uint32_t hints_bytes)
{
    struct entry *e;

    TAILQ_FOREACH(e, &log->seeds, seed_link)
    {
        if (e->seq == seq)
            break;
    }
    if (!e || e->seq > log->complete_seq || e->seed == SEED_OWED || !e->payload)
        return -EPROTO;
    if (hints_bytes != 0 && (hints_bytes != seed_hints_bytes(e->length) || e->seed != SEED_ASKED))
        return -EPROTO;
    e->seed = SEED_OWED;
    e->hints = hints_bytes ? TAKE_PTR(*hints) : NULL;
    TAILQ_INSERT_TAIL(&log->fills, e, fill_link);
    return 0;
}

/* Built when its turn comes: at most one is in memory twice. */
static bool build(struct entry *e)
{
    if (!e->fill)
        e->fill = seed_fill_new(e->payload, e->length, e->hints, &e->fill_bytes);
    return e->fill;
}

static void finish(struct mirror_log *log, struct entry *e)
{
    bool whole = !e->hints;

    TAILQ_REMOVE(&log->fills, e, fill_link);
    e->seed = SEED_FILLED;
    e->filled_bytes = MIN(e->fill_bytes - SEED_MAP_BYTES, e->length);
    e->fill_pulled = 0;
    free(TAKE_PTR(e->fill));
    free(TAKE_PTR(e->hints));
    if (whole)
        free(TAKE_PTR(e->payload)); /* nothing more can be asked for */
}

size_t mirror_log_pull_fill(struct mirror_log *log, struct buffer *out, size_t max_bytes)
{
    struct entry *e = TAILQ_FIRST(&log->fills);
    struct mirror_wire_message m = {.type = MIRROR_WIRE_FILL};
    size_t len;

    if (!build(e))
        return 0;
    m.length = e->fill_bytes;
    m.seq = e->seq;
    m.offset = e->offset;
    len = mirror_log_encode(out, max_bytes, &m, e->fill, e->fill_pulled);
    buffer_commit(out, len);
    e->fill_pulled += len;
    log->stats.sent_bytes += len;
    if (e->fill_pulled == MIRROR_WIRE_HEADER_BYTES + (size_t)e->fill_bytes)
        finish(log, e);
    return len;
}
