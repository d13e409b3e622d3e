/* SPDX-License-Identifier: Apache-2.0 */
/* What must never be, and what must be in the end: see world.h. */
#include <string.h>

#include "tests/engine/switchover/laws.h"

/* --- checks -------------------------------------------------------------------------------- */

/* In a drill the source's copy is the VM, and the target's never becomes more than a clone. */
static const char *drill_fault_of(const struct world *w)
{
    int counts = w->target.state == TARGET_COMMITTING || w->target.state == TARGET_RESUMING ||
                 w->target.state == TARGET_RESUMED || w->target_journal == TARGET_COMMITTING ||
                 w->target_journal == TARGET_RESUMED || w->words.resumed || w->target_ran;
    int decided = w->source_journal != SJ_MOVING && w->source_journal != SJ_ABORT &&
                  w->source_journal != SJ_ABORTED;

    for (unsigned i = 0; i < w->source_puts.count; i++)
        decided |= w->source_puts.record[i] != SJ_ABORT && w->source_puts.record[i] != SJ_ABORTED;
    if (decided || w->withdraw || w->source_withdrawn || w->reply == REPLY_RELEASED ||
        w->words.commit)
        return "a drill gives the VM up";
    if (counts)
        return "a drill's clone counts as the VM";
    if (w->target_copy == COPY_RUNNING && w->source_copy == COPY_STOPPED)
        return "a clone runs while the VM stands still";
    if (w->memory_lost)
        return "a drill costs the VM's memory";
    return NULL;
}

const char *fault_of(const struct world *w)
{
    if (w->reach & IS_DRILL)
        return drill_fault_of(w);
    if (w->source_copy == COPY_RUNNING && w->target_copy == COPY_RUNNING)
        return "two copies run";
    if (w->target_copy == COPY_RUNNING && w->source_ran)
        return "the target runs without what the source's guest was told since";
    if (w->source_copy == COPY_RUNNING && w->target_ran)
        return "the source runs without what the target's guest was told since";
    if (w->reach & IS_POSTCOPY && w->target_copy == COPY_RUNNING && !w->pages_done &&
        !w->memory_lost && w->source_copy != COPY_STOPPED && w->source_copy != COPY_SWITCHED &&
        !w->pages_lost)
        return "the target runs without the pages that were at the source";
    if (w->source_withdrawn && !w->target_complete)
        return "no complete copy exists";
    if (w->memory_lost && !w->excused)
        return "the VM's memory was given up without need";
    if (w->target_copy == COPY_RUNNING && !w->target_complete && !(w->reach & IS_POSTCOPY))
        return "a copy runs that is not complete";
    return NULL;
}

/* A doubt that stays, although the witness is there to end it. */
static const char *witness_fault_of(const struct world *w)
{
    int asks = w->target.state == TARGET_PREPARED && w->target.in_doubt;
    int both = (w->reach & WITNESS_BY_BOTH) == WITNESS_BY_BOTH;

    if (!(w->reach & WITNESS_AGREED))
        return NULL;
    if (asks && w->reach & WITNESS_BY_TARGET && w->right != RIGHT_HELD && w->right != RIGHT_NONE)
        return "the target stays in doubt although the witness could tell";
    if (asks && both && w->source.state != SOURCE_IN_DOUBT)
        return "the target stays in doubt although both see the witness";
    if (both && w->target.state == TARGET_RESUMED && w->source.state == SOURCE_COMMITTING)
        return "the source stays in doubt although both see the witness";
    return NULL;
}

/* Where nothing more happens by itself. */
const char *quiet_fault_of(const struct world *w)
{
    int running = (w->source_copy == COPY_RUNNING) + (w->target_copy == COPY_RUNNING);
    int doubt = w->source.state == SOURCE_IN_DOUBT ||
                (w->target.state == TARGET_PREPARED && w->target.in_doubt) ||
                switchover_source_waits_for_witness(&w->source) ||
                (w->target.state == TARGET_PULLING && w->target.copy_missing);

    if (witness_fault_of(w))
        return witness_fault_of(w);
    if (w->reach & IS_DRILL) {
        if (doubt)
            return "a drill in doubt";
        if (w->target_copy != COPY_GONE)
            return "a drill leaves its clone behind";
        if (w->source_copy != COPY_RUNNING && !w->aborted_by_death)
            return "a drill leaves the VM standing";
        return w->source_journal == SJ_ABORTED && w->target_journal == TARGET_ABORTED
                   ? NULL
                   : "a drill's quiet end with open journals";
    }
    if (w->pages_lost &&
        w->target.state == TARGET_PULLING) /* it stands still where it misses them */
        return NULL;
    if (w->finish_unread && w->source.state == SOURCE_FEEDING)
        return NULL;
    if (doubt) /* paused or off, until the operator's word */
        return NULL;
    if (w->reach & SITES_PARTED && w->source.state == SOURCE_COMMITTING &&
        w->target.state == TARGET_ABORTED) /* the target's word has no way to the source */
        return NULL;
    if (w->reach & SITES_PARTED && w->source.restarts &&
        w->source.waits) /* for the target's word */
        return NULL;
    if (running != 1 && !(running == 0 && w->aborted_by_death))
        return "in a quiet end not exactly one copy runs";
    if (w->reach & SITES_PARTED)
        return NULL;
    if (w->source_journal < SJ_COMMITTED ||
        (w->target_journal != TARGET_RESUMED && w->target_journal != TARGET_ABORTED))
        return "a quiet end with open journals";
    if ((w->source_journal == SJ_COMMITTED) != (w->target_journal == TARGET_RESUMED))
        return "the sites do not agree on the end";
    return NULL;
}

/* Recovery run twice equals once, for a site that is down in @w. */
const char *recovery_fault_of(const struct world *w)
{
    struct world once = *w, twice = *w;

    if (!w->source_up) {
        restart_source(&once);
        restart_source(&twice);
        crash_source(&twice);
        restart_source(&twice);
        if (memcmp(&once, &twice, sizeof(once)) != 0)
            return "the source's recovery run twice is not the same as once";
    }
    once = twice = *w;
    if (!w->target_up) {
        restart_target(&once);
        restart_target(&twice);
        crash_target(&twice);
        restart_target(&twice);
        if (memcmp(&once, &twice, sizeof(once)) != 0)
            return "the target's recovery run twice is not the same as once";
    }
    return NULL;
}
