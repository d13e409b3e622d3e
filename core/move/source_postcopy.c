/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Post-copy at the source: when to switch, and what the VM needs from then on.
 *
 * A move that may switch is started so (VIR_MIGRATE_POSTCOPY). QEMU is told to switch when the operator, the policy or the
 * time limit wants it, once the mirror log is drained: what it holds the stopped guest would wait for. When memory
 * converges before that, the move ends like any other.
 *
 *   MOVING     [wanted] -> asked -> the stream shows the package: switched -> the target is prepared
 *   FEEDING    the target pulls; whatever breaks is made again: libvirt's recovery, over new channels
 *   ABORTING   the target has never run: QEMU's migration comes to its end, and the copy here goes on
 *
 * Until the target is known to have heard the decision QEMU's connections stay open whatever becomes of the link: QEMU,
 * when it loses them in post-copy, waits for others and lets nothing else happen to that copy.
 */
#include <errno.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"

/* The first round is over when QEMU has looked at what was dirtied in it. */
enum { SECOND_ITERATION = 2 };
enum { RECOVER_PAUSE_S = 2, FREE_PAUSE_S = 1, DRAIN_LIMIT_S = 60, TAKE_BACK_PATIENCE_S = 80 };

/* --- switching ----------------------------------------------------------------------------- */

static bool is_wanted(const struct move *m, uint64_t now_ns)
{
    uint64_t after_ns = policy_get(&m->policy, POLICY_POST_COPY_AFTER_S) * NS_PER_S;

    if (m->postcopy_wanted)
        return true;
    switch ((enum post_copy)policy_get(&m->policy, POLICY_POST_COPY)) {
    case POST_COPY_AFTER_FIRST_PASS:
        return m->progress.iterations >= SECOND_ITERATION;
    case POST_COPY_AFTER_TIME:
        return now_ns - m->phase_ns[MOVE_MEMORY] > after_ns;
    default:
        return false;
    }
}

static void on_asked(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code && ms->migrating && ms->sw.state == SOURCE_MOVING) {
        log_warning("move %s (%s): %s", ms->move->id, ms->move->info.name,
                    error_line(err, line, sizeof(line)));
        ms->postcopy.asked = false; /* again with the next tick */
    }
    move_source_call_returned(ms);
}

static void ask_for_switch(struct move_source *ms, uint64_t now_ns)
{
    struct move *m = ms->move;

    if (ms->sw.state != SOURCE_MOVING || !m->may_postcopy || ms->postcopy.asked || !ms->migrating ||
        m->phase != MOVE_MEMORY || !is_wanted(m, now_ns))
        return;
    if (!ms->ls || !link_session_is_up(ms->ls) || source_disks_must_wait(ms))
        return;
    log_info("move %s (%s): switches to post-copy", m->id, m->info.name);
    failpoint("before-postcopy");
    source_stun_end(ms);
    ms->postcopy.asked = true;
    m->pending++;
    virt_start_postcopy(ms->service->virt, m->info.uuid, on_asked, ms);
}

void source_postcopy_switched(struct move_source *ms)
{
    ms->move->switched = true;
    ms->marks.ram_end_ns = clock_now_ns();
    move_set_phase(ms->move, MOVE_STOPPED);
    failpoint("after-package");
}

int move_source_postcopy(struct move *m, struct error *err)
{
    const char *why = NULL;

    if (m->finished || !m->source || m->source->sw.state != SOURCE_MOVING)
        why = m->finished ? "the move has ended" : "it is being decided or undone";
    else if (!m->policy.name[0])
        why = "it has only begun: say it again in a moment";
    else if (!m->may_postcopy)
        why = "it was not begun so that it can switch";
    if (why)
        return error_set(err, -EBUSY, "switch to post-copy",
                         m->finished
                             ? "see `ferry show`"
                             : "move with post_copy = by-hand in its policy: `ferry policies`",
                         "%s", why);
    log_info("move %s (%s): the operator wants post-copy", m->id, m->info.name);
    m->postcopy_wanted = true;
    return 0;
}

/* --- feeding ------------------------------------------------------------------------------- */

static void on_freed(void *user, const struct error *err)
{
    struct move_source *ms = user;

    ms->postcopy.freed = !err->code || !ms->migrating;
    ms->postcopy.free_at_ns = clock_now_ns() + FREE_PAUSE_S * NS_PER_S;
    source_channels_limit_set(user, err);
}

static void free_postcopy(struct move_source *ms)
{
    if (ms->postcopy.freed || clock_now_ns() < ms->postcopy.free_at_ns)
        return;
    ms->postcopy.freed = true;
    ms->move->pending++;
    virt_free_postcopy(ms->service->virt, ms->move->info.uuid, on_freed, ms);
}

void source_postcopy_pulls(struct move_source *ms, const json_t *msg)
{
    struct move *m = ms->move;
    uint64_t stopped_ns = m->phase_ns[MOVE_STOPPED], one_way_ns = m->progress.rtt_us * 1000 / 2;

    if (ms->sw.state != SOURCE_FEEDING)
        return;
    if (json_is_true(json_object_get(msg, "running")) && m->phase < MOVE_POSTCOPY) {
        uint64_t span_ns = clock_now_ns() - stopped_ns;

        if (stopped_ns && m->downtime_ms < 0)
            m->downtime_ms = (int64_t)((span_ns - MIN(one_way_ns, span_ns)) / NS_PER_MS);
        move_set_phase(m, MOVE_POSTCOPY);
        log_warning(
            "move %s (%s): it runs at %s, and pages are outstanding: the loss of either site "
            "loses the VM until they have arrived",
            m->id, m->info.name, m->peer);
        failpoint("after-pulls");
    }
    move_source_step(ms, SOURCE_ON_TARGET_PULLS);
    free_postcopy(ms);
    if (ms->memory)
        relay_kick(ms->memory); /* the target's last word may have waited */
    if (ms->postcopy.broken)
        source_postcopy_broken(ms);
}

static void close_broken(void *arg)
{
    struct move *m = arg;

    m->pending--;
    if (m->source && m->source->sw.state == SOURCE_FEEDING)
        source_channels_close(m->source);
}

bool source_postcopy_keeps(const struct move_source *ms)
{
    return ms->move->switched && !ms->sw.pulls &&
           (ms->sw.state == SOURCE_DECIDING || ms->sw.state == SOURCE_FEEDING);
}

void source_postcopy_broken(struct move_source *ms)
{
    ms->postcopy.broken = source_postcopy_keeps(ms);
    if (ms->sw.state != SOURCE_FEEDING || ms->postcopy.broken)
        return;
    ms->postcopy.recover_at_ns = clock_now_ns() + RECOVER_PAUSE_S * NS_PER_S;
    ms->move->pending++;
    service_defer(ms->service, close_broken, ms->move);
}

void source_postcopy_interrupted(struct move_source *ms, const struct error *err)
{
    struct error why = {0};

    error_set(&why, err->code, "send the pages that are outstanding",
              "it is tried again; if it stays so, QEMU at the target waits for a page itself and "
              "cannot be told anything: `virsh destroy` and `virsh start` the VM there",
              "%s", err->why);
    error_clear(&ms->move->reason); /* the last one counts */
    move_set_reason(ms->move, &why);
    source_postcopy_broken(ms);
}

/* Both libvirts must have seen that the old channels are gone; where one has not, this fails and is done again. */
static void recover(struct move_source *ms, uint64_t now_ns)
{
    struct error err = {0};

    if (ms->sw.state != SOURCE_FEEDING || ms->migrating || ms->channels_open || !ms->sw.pulls ||
        !ms->ls || !link_session_is_up(ms->ls) || now_ns < ms->postcopy.recover_at_ns)
        return;
    log_info("move %s (%s): makes the channels of post-copy again", ms->move->id,
             ms->move->info.name);
    ms->move->recoveries++;
    ms->postcopy.recover_at_ns = now_ns + RECOVER_PAUSE_S * NS_PER_S;
    if (source_channels_reopen(ms, &err) < 0) {
        log_warning("move %s: %s", ms->move->id, err.why);
        source_channels_close(ms);
    }
}

static void on_checked(void *user, const struct error *err, enum virt_domain_state state)
{
    struct move_source *ms = user;
    struct error why = {0};

    if (ms->sw.state == SOURCE_FEEDING && !err->code &&
        (state == VIRT_DOMAIN_ENDED || state == VIRT_DOMAIN_OFF)) {
        error_set(
            &why, -ESRCH, "send the pages that are outstanding",
            "at the target: `virsh destroy` and `virsh start` it, from its disks, which are "
            "complete",
            "the copy at the source ended before all of them had left: what runs at %s stands "
            "still where it misses one",
            ms->move->peer);
        move_set_reason(ms->move, &why);
        move_source_set_outcome(ms->move, MOVE_OUTCOME_IN_DOUBT);
    }
    move_source_call_returned(ms);
}

void source_postcopy_check(struct move_source *ms)
{
    ms->move->pending++;
    virt_state(ms->service->virt, ms->move->info.uuid, on_checked, ms);
}

/* --- taking back --------------------------------------------------------------------------- */

static void on_taken_back(void *user, const struct error *err)
{
    struct move_source *ms = user;

    move_set_trouble(ms->move, err);
    ms->postcopy.taking_back = ms->resuming = false;
    if (ms->channels_open)
        ms->close_at_ns = clock_now_ns(); /* libvirt's call ends with its connection */
    move_source_call_returned(ms);
}

static void take_back(struct move_source *ms, bool connected)
{
    ms->postcopy.drain_until_ns = 0;
    ms->move->pending++;
    virt_take_back(ms->service->virt, ms->move->info.uuid, connected, on_taken_back, ms);
}

/* QEMU's migration is to fail, and in one place only: where it has sent everything and waits for the target's last word.
 * There it hears that the target has failed; anywhere else it would wait for new channels. So it sends the rest, for
 * nobody. */
void source_postcopy_take_back(struct move_source *ms)
{
    if (ms->postcopy.taken_back)
        return;
    ms->postcopy.taken_back = ms->postcopy.taking_back = true;
    ms->resuming = true; /* libvirt's word of the domain waits for the outcome */
    ms->close_at_ns = clock_now_ns() + TAKE_BACK_PATIENCE_S * NS_PER_S;
    if (!ms->memory) {
        take_back(ms, false);
        return;
    }
    ms->postcopy.drain_until_ns = clock_now_ns() + DRAIN_LIMIT_S * NS_PER_S;
    relay_discard(ms->memory);
    free_postcopy(ms);
}

static void drain(struct move_source *ms, uint64_t now_ns)
{
    bool all_sent = ms->parser && ram_parser_tail_offset(ms->parser) != UINT64_MAX;

    if (!ms->postcopy.drain_until_ns)
        return;
    if (!ms->memory || relay_is_at_end(ms->memory)) {
        take_back(ms, false);
    } else if (all_sent) {
        relay_say_last(ms->memory, return_path_end(), RETURN_PATH_END_BYTES);
        take_back(ms, true);
    } else if (now_ns >= ms->postcopy.drain_until_ns) {
        take_back(ms, true);
    } else {
        free_postcopy(ms);
    }
}

void source_postcopy_tick(struct move_source *ms, uint64_t now_ns)
{
    if (ms->ls && ms->move->switched)
        link_session_set_patient(ms->ls, ms->sw.state == SOURCE_FEEDING);
    ask_for_switch(ms, now_ns);
    if (ms->sw.state == SOURCE_FEEDING && ms->sw.pulls)
        free_postcopy(ms);
    drain(ms, now_ns);
    recover(ms, now_ns);
}
