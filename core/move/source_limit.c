/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The policy's time limit: what happens to memory that has not converged by then.
 *
 *   abort         the move ends, the VM stays
 *   stun-harder   as much is taken of the guest as can be, and it may stand still for longer
 *   post-copy     the guest goes on at the target, and what is left of its memory follows (source_postcopy.c)
 *   suspend       the guest stands still from now on: what is left is sent once, and the target lets it go on.
 *                 That is downtime; when it has taken as long as the limit itself (a minute at least), the move ends
 *                 and the VM goes on here.
 *
 * libvirt notes of a guest that is suspended in the midst of a migration that the migration did it: whatever ends the
 * move lets it go on, libvirt itself or (after a crash) the recovery of core/switchover/switchover.h.
 */
#include <errno.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"

enum { SUSPENDED_LEAST_S = 60 };

static uint64_t limit_ns(const struct move *m)
{
    return policy_get(&m->policy, POLICY_TIME_LIMIT_S) * NS_PER_S;
}

static void fail(struct move_source *ms, const char *why, uint64_t after_ns)
{
    struct error late = {0};

    error_set(&late, -ETIMEDOUT, "send the memory",
              "move it when it has less to do, or choose another policy: `ferry policies`",
              "its memory %s within %llu s (time_limit_s)", why,
              (unsigned long long)(after_ns / NS_PER_S));
    move_source_fail(ms, &late);
}

static void on_suspend_asked(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code) {
        ms->suspended = false;
        log_warning("move %s (%s): it cannot be suspended: %s", ms->move->id, ms->move->info.name,
                    error_line(err, line, sizeof(line)));
        if (ms->sw.state == SOURCE_MOVING)
            move_source_fail(ms, err);
    }
    move_source_call_returned(ms);
}

static void suspend(struct move_source *ms)
{
    ms->suspended = true;
    ms->move->pending++;
    virt_suspend(ms->service->virt, ms->move->info.uuid, on_suspend_asked, ms);
}

static void act(struct move_source *ms)
{
    static const char *const words[] = {[AT_LIMIT_ABORT] = "the move ends",
                                        [AT_LIMIT_STUN_HARDER] = "the guest is slowed down harder",
                                        [AT_LIMIT_SUSPEND] = "the guest is suspended",
                                        [AT_LIMIT_POST_COPY] = "it switches to post-copy"};
    enum at_time_limit what =
        (enum at_time_limit)policy_get(&ms->move->policy, POLICY_AT_TIME_LIMIT);

    log_info("move %s (%s): memory has not converged in time: %s", ms->move->id,
             ms->move->info.name, words[what]);
    ms->limit_reached = true;
    ms->move->time_limit_reached = true;
    if (what == AT_LIMIT_ABORT)
        fail(ms, "did not converge", limit_ns(ms->move));
    else if (what == AT_LIMIT_STUN_HARDER)
        source_stun_harder(ms);
    else if (what == AT_LIMIT_POST_COPY)
        ms->move->postcopy_wanted = true;
    else
        suspend(ms);
}

void source_limit_tick(struct move_source *ms, uint64_t now_ns)
{
    struct move *m = ms->move;
    uint64_t began_ns = m->phase_ns[MOVE_MEMORY], stopped_ns = m->phase_ns[MOVE_STOPPED];
    uint64_t patience_ns = MAX(limit_ns(m), SUSPENDED_LEAST_S * NS_PER_S);

    if (ms->sw.state != SOURCE_MOVING || !ms->migrating || !began_ns || !limit_ns(m))
        return;
    if (!ms->limit_reached && m->phase == MOVE_MEMORY && now_ns - began_ns > limit_ns(m))
        act(ms);
    else if (ms->suspended && !ms->marks.ram_end_ns && stopped_ns &&
             now_ns - stopped_ns > patience_ns)
        fail(ms, "was not sent, with the guest suspended,", patience_ns);
}
