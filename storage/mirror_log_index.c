/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The index of a mirror log's unsent entries: which of them does a new write cover? (Why they may then go
 * is argued in mirror_log.h.)
 *
 * A hash of the 128 KiB region in which an entry begins. The extents that a new write covers begin inside
 * it, so the regions it touches are all there is to look at; an exact rewrite removes its predecessor, so
 * regions do not fill up with old versions. An entry leaves the index when its first byte is pulled.
 */
#include <assert.h>

#include "storage/mirror_log_private.h"

enum { REGION_SHIFT = 17 };

static struct entry_list *index_head(struct mirror_log *log, uint64_t region)
{
    /* Fibonacci hashing: neighbours spread over the heads */
    return &log->index[(region * UINT64_C(0x9e3779b97f4a7c15)) >> 52];
}
static_assert(MIRROR_LOG_INDEX_HEADS == 1u << (64 - 52),
              "the hash gives as many bits as there are heads");

void mirror_log_index_remove(struct entry *e)
{
    if (e->indexed)
        LIST_REMOVE(e, region);
    e->indexed = false;
}

void mirror_log_index_insert(struct mirror_log *log, struct entry *e)
{
    LIST_INSERT_HEAD(index_head(log, e->offset >> REGION_SHIFT), e, region);
    e->indexed = true;
}

static bool covers(const struct entry *newer, const struct entry *older)
{
    return older->epoch == newer->epoch && older->offset >= newer->offset &&
           older->offset + older->length <= newer->offset + newer->length;
}

static void drop_unsent(struct mirror_log *log, struct entry *e)
{
    mirror_log_index_remove(e);
    mirror_log_spool_forget(log, e);
    TAILQ_REMOVE(&log->unsent, e, link);
    mirror_log_give_back(log, e->charge_bytes);
    log->stats.unsent_bytes -= e->charge_bytes;
    log->stats.coalesced_entries++;
    if (e->kind == MIRROR_LOG_WRITE)
        log->stats.coalesced_bytes += e->length;
    mirror_log_entry_free(e);
}

static void coalesce_list(struct mirror_log *log, struct entry_list *list,
                          const struct entry *newer)
{
    struct entry *e = LIST_FIRST(list), *next;

    for (; e; e = next) {
        next = LIST_NEXT(e, region);
        if (covers(newer, e))
            drop_unsent(log, e);
    }
}

void mirror_log_coalesce(struct mirror_log *log, const struct entry *newer)
{
    uint64_t first = newer->offset >> REGION_SHIFT;
    uint64_t last = (newer->offset + newer->length - 1) >> REGION_SHIFT;

    if (last - first >= MIRROR_LOG_INDEX_HEADS) {
        for (unsigned i = 0; i < MIRROR_LOG_INDEX_HEADS; i++)
            coalesce_list(log, &log->index[i], newer);
        return;
    }
    for (uint64_t region = first; region <= last; region++)
        coalesce_list(log, index_head(log, region), newer);
}
