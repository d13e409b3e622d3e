/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's half of seeds (storage/seed_blocks.h): SEED operations. In the order of operations they are
 * writes, whose data comes from here or from the source.
 *
 *   READY --> read the seed --> equal --------------------------> write the disk --> finished
 *     ^                           | not equal                          ^
 *     |                           v                                    | equal
 *     +----- FILL ----- AWAITING (MISS was said) --- whole FILL --> compare
 *
 * While it is AWAITING it holds no memory: with a FILL of some units the seed is read once more, and if it
 * has changed meanwhile a whole FILL is asked for. A seed that cannot be read is one that has nothing.
 */
#include <errno.h>
#include <string.h>

#include "storage/mirror_target_private.h"
#include "storage/seed_blocks.h"

/* 0: it waits for a FILL. */
static int miss(struct mirror_target *t, struct operation *op, bool hinted)
{
    uint8_t hints[SEED_EXTENT_BYTES / DISK_DIGEST_UNIT_BYTES * SEED_HINT_BYTES];
    struct mirror_wire_message m = {.type = MIRROR_WIRE_MISS, .seq = op->seq, .offset = op->offset};

    if (hinted) {
        seed_hint(op->data, op->length, hints);
        m.length = seed_hints_bytes(op->length);
    }
    mirror_target_let_go(t, op);
    op->hinted = hinted;
    op->misses++;
    op->stage = STAGE_AWAITING;
    t->stats.seed_misses++;
    return mirror_target_put(t, &m, hints);
}

/* Its data is verified. */
static int write_disk(struct mirror_target *t, struct operation *op)
{
    int err = t->writer_ops->write(t->writer, op->seq, op->offset, op->length, op->data);

    return err < 0 ? err : 1;
}

static int apply_whole_fill(struct mirror_target *t, struct operation *op)
{
    if (!mirror_target_hold(t, op))
        return -ENOMEM;
    seed_fill_apply(op->fill, op->data, op->length);
    if (!seed_matches(op->data, op->length, op->digests))
        return -EBADMSG;
    return write_disk(t, op);
}

static bool is_within_seed(const struct mirror_target *t, const struct operation *op)
{
    return op->offset <= t->seed_size_bytes && op->length <= t->seed_size_bytes - op->offset;
}

int mirror_target_start_seed(struct mirror_target *t, struct operation *op)
{
    int err;

    if (op->fill && seed_fill_is_whole(op->fill, op->length))
        return apply_whole_fill(t, op);
    if (!t->seed_ops || !is_within_seed(t, op))
        return miss(t, op, false);
    if (!mirror_target_hold(t, op))
        return -ENOMEM;
    op->reading = true;
    err = t->seed_ops->read(t->seed, op->seq, op->offset, op->length, op->data);
    if (err == 0)
        return 1;
    op->reading = false;
    return miss(t, op, false);
}

/* What the seed has is in memory. */
static int compare(struct mirror_target *t, struct operation *op)
{
    bool filled = op->fill;

    if (filled)
        seed_fill_apply(op->fill, op->data, op->length);
    if (seed_matches(op->data, op->length, op->digests)) {
        t->stats.seed_bytes += op->length - (filled ? op->fill_bytes - SEED_MAP_BYTES : 0);
        return write_disk(t, op);
    }
    return miss(t, op, !filled);
}

void mirror_target_seed_complete(struct mirror_target *t, uint64_t cookie, int err)
{
    struct operation *op;

    TAILQ_FOREACH(op, &t->operations, link)
    {
        if (op->seq == cookie && op->stage == STAGE_RUNNING && op->reading)
            break;
    }
    if (!op)
        return;
    op->reading = false;
    t->stats.in_flight--;
    if (t->state == MIRROR_TARGET_FAILED) {
        mirror_target_drop(t, op);
        return;
    }
    err = err < 0 ? miss(t, op, false) : compare(t, op);
    if (err > 0) {
        t->stats.in_flight++;
    } else if (err < 0) {
        op->stage = STAGE_QUEUED;
        mirror_target_fail_disk(t, op, err);
    }
    mirror_target_go_on(t);
}

int mirror_target_take_fill(struct mirror_target *t, struct mirror_wire_message *m)
{
    struct operation *op;

    TAILQ_FOREACH(op, &t->operations, link)
    {
        if (op->seq == m->seq)
            break;
    }
    if (!op || op->stage != STAGE_AWAITING || op->offset != m->offset)
        return mirror_target_fail_stream(t, "a FILL that nobody waits for");
    if (!seed_fill_is_sound(m->payload, m->length, op->length) ||
        (!op->hinted && !seed_fill_is_whole(m->payload, op->length)))
        return mirror_target_fail_stream(t, "a FILL that does not fit its SEED");
    op->fill = TAKE_PTR(m->payload);
    op->fill_bytes = m->length;
    t->stats.queue_bytes += m->length;
    t->stats.queue_peak_bytes = MAX(t->stats.queue_peak_bytes, t->stats.queue_bytes);
    mirror_target_make_ready(t, op);
    return 0;
}

void mirror_target_set_seed(struct mirror_target *t, const struct disk_writer_ops *ops, void *seed,
                            uint64_t size_bytes)
{
    t->seed_settled = true;
    t->seed_ops = ops;
    t->seed = seed;
    t->seed_size_bytes = size_bytes;
    mirror_target_go_on(t);
}
