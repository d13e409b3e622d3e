/* SPDX-License-Identifier: Apache-2.0 */
/* A move at the source: see move_source.h. How it starts is in source_start.c, the VM in source_domain.c, its
 * channels in source_channels.c. */
#include "core/move/move_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"

enum { REPEAT_S = 5, SILENCE_S = 10, REPLY_S = 5 };

static void act(struct move_source *ms, unsigned actions);

static void on_right(struct move *m, enum right now)
{
    struct error why = {0};

    if (!m->source)
        return;
    if (m->source->sw.state == SOURCE_MOVING && (now == RIGHT_KEPT || now == RIGHT_NONE)) {
        error_set(&why, -ECANCELED, "switch over", "see the target's log; start the move again",
                  now == RIGHT_KEPT ? "%s was in doubt and has given it up, through the witness"
                                    : "the witness has lost the key that %s counts on",
                  m->peer);
        move_set_reason(m, &why);
    }
    move_source_step(m->source, (enum switchover_source_event)(SOURCE_ON_RIGHT + now));
}

void move_source_step(struct move_source *ms, enum switchover_source_event event)
{
    enum switchover_source_state before = ms->sw.state;
    unsigned actions = switchover_source_step(&ms->sw, event);

    if (before != ms->sw.state)
        log_info("move %s (%s): switchover %s -> %s", ms->move->id, ms->move->info.name,
                 switchover_source_state_name(before), switchover_source_state_name(ms->sw.state));
    act(ms, actions);
    if (!ms->move->finished)
        move_right_wish(ms->move, switchover_source_wish(&ms->sw));
}

void move_source_fail(struct move_source *ms, const struct error *why)
{
    move_set_reason(ms->move, why);
    move_source_step(ms, SOURCE_ON_FAILURE);
}

/* --- the end ------------------------------------------------------------------------------- */

static void on_timer_closed(uv_handle_t *handle)
{
    struct move_source *ms = handle->data;

    if (--ms->open_timers == 0)
        free(ms);
}

static void dispose(void *arg)
{
    struct move *m = arg;
    struct move_source *ms = m->source;

    if (!ms || m->pending > 0 || ms->migrating) {
        if (ms) /* calls are still under way: they end, by libvirt's keepalive at the latest */
            ms->dispose_wanted = true;
        return;
    }
    m->source = NULL;
    move_right_cancel(m);
    if (ms->armed && !ms->operators_word) /* after that the target may still have to read it */
        move_right_tell(m, RIGHT_WISH_FORGET);
    source_channels_close(ms);
    json_decref(ms->platform);
    if (ms->ls)
        peering_release(ms->ls);
    uv_close((uv_handle_t *)&ms->redial, on_timer_closed);
    uv_close((uv_handle_t *)&ms->tick, on_timer_closed);
    service_trim_memory(m->service);
}

void move_source_note_qmp(const struct move_source *ms, const struct error *err)
{
    if (err->code)
        log_debug("move %s: QMP: %s", ms->move->id, err->why);
}

/* One call of ours came back. */
void move_source_call_returned(struct move_source *ms)
{
    ms->move->pending--;
    if (ms->dispose_wanted)
        service_defer(ms->service, dispose, ms->move);
}

/* The record is written last: until then a restart does the rest again. */
void move_source_finish(struct move_source *ms)
{
    struct move *m = ms->move;

    m->finished = true;
    move_set_phase(m, MOVE_DONE);
    move_right_cancel(m);
    move_journal(m, switchover_source_state_name(ms->sw.state), true, NULL);
    service_defer(ms->service, dispose, m);
}

void move_source_set_outcome(struct move *m, enum move_outcome outcome)
{
    if (m->outcome == outcome)
        return;
    m->outcome = outcome;
    if (!m->ended_ns && outcome != MOVE_OUTCOME_IN_DOUBT && outcome != MOVE_RUNNING)
        m->ended_ns = clock_now_ns();
    if (outcome == MOVE_OUTCOME_COMMITTED || outcome == MOVE_OUTCOME_DRILLED)
        error_clear(&m->reason); /* what was in the way is overcome */
    log_info("move %s (%s): %s", m->id, m->info.name, move_outcome_name(outcome));
}

/* --- messages ------------------------------------------------------------------------------ */

static void schedule_redial(struct move_source *ms, uint64_t delay_ms);

/* Sends a word about this move; when the link is down, the machine is asked again once it is up. */
static void send_word(struct move_source *ms, const char *type)
{
    struct error err = {0};

    if (!ms->prepare_sent)
        return;
    if (!ms->ls && peering_dial(ms->service->peering, ms->move->peer, &ms->ls, &err) < 0) {
        ms->ls = NULL;
        schedule_redial(ms, 5000);
        return;
    }
    peering_send(ms->ls, json_pack("{s:s, s:s}", "type", type, "move", ms->move->id));
}

static void on_redial(uv_timer_t *timer)
{
    struct move_source *ms = timer->data;

    if (!ms->move->finished && !ms->ls)
        move_source_step(ms, SOURCE_ON_LINK_UP);
}

static void schedule_redial(struct move_source *ms, uint64_t delay_ms)
{
    uv_timer_start(&ms->redial, on_redial, delay_ms, 0);
}

static void on_commit_durable(void *user)
{
    struct move *m = user;

    failpoint("after-commit-journal");
    m->pending--;
    move_set_phase(m, MOVE_COMMITTED);
    move_source_step(m->source, SOURCE_ON_COMMIT_JOURNALLED);
}

static void on_abort_durable(void *user)
{
    struct move *m = user;

    m->pending--;
    move_source_step(m->source, SOURCE_ON_ABORT_JOURNALLED);
}

static void write_records(struct move_source *ms, unsigned actions)
{
    struct move *m = ms->move;

    if (actions & SOURCE_JOURNAL_COMMIT) {
        failpoint("before-commit-journal");
        m->pending++;
        move_journal(m, "commit", false, on_commit_durable);
    }
    if (actions & SOURCE_JOURNAL_FEEDING) {
        failpoint("before-feeding-journal");
        m->pending++;
        move_journal(m, "feeding", false, on_commit_durable);
    }
    if (actions & (SOURCE_JOURNAL_ABORT | SOURCE_JOURNAL_RESTORE)) {
        m->pending++;
        move_journal(m, actions & SOURCE_JOURNAL_RESTORE ? "restore" : "abort", false,
                     on_abort_durable);
    }
    if (actions & SOURCE_JOURNAL_RELEASED)
        move_journal(m, "released", false, NULL);
}

/* What the operator reads is the machine's state in other words. */
static void show_outcome(struct move_source *ms, unsigned actions)
{
    struct move *m = ms->move;
    struct error why = {0};

    if (ms->sw.state == SOURCE_IN_DOUBT && ms->sw.target_resumed)
        error_set(&why, -ESTALE, "end the move",
                  "stop one of them by hand, then say with `ferry resolve` which one stays",
                  "the VM runs here AND at %s", m->peer);
    else if (ms->sw.state == SOURCE_IN_DOUBT)
        error_set(&why, -ESTALE, "end the move",
                  "look at both sites with `virsh list --all`, then `ferry resolve`",
                  "it was decided, but the VM is off here and libvirt cannot say whether it ran "
                  "since; %s does not say either",
                  m->peer);
    if (why.code) {
        error_clear(&m->reason);
        move_set_reason(m, &why);
        move_source_set_outcome(m, MOVE_OUTCOME_IN_DOUBT);
    } else if (ms->sw.state == SOURCE_COMMITTED) {
        move_source_set_outcome(m, MOVE_OUTCOME_COMMITTED);
    } else if (ms->sw.state == SOURCE_ABORTING && m->outcome == MOVE_OUTCOME_IN_DOUBT) {
        move_source_set_outcome(m, MOVE_RUNNING);
    }
    if (ms->sw.state == SOURCE_ABORTED && (actions & SOURCE_JOURNAL_DONE)) {
        move_source_set_outcome(m, move_outcome_without_commit(m));
        source_domain_rearm(ms);
    }
}

static void close_channels(void *arg)
{
    struct move *m = arg;

    m->pending--;
    if (m->source)
        source_channels_close(m->source);
}

/* Not from inside the channel that brought the reply. libvirt finds its connection gone and lets the VM go on. */
static void end_migration(struct move_source *ms)
{
    failpoint("before-drill-end");
    ms->move->pending++;
    service_defer(ms->service, close_channels, ms->move);
}

static void send_drill(struct move_source *ms)
{
    struct move *m = ms->move;

    if (m->phase < MOVE_DRILLING && m->phase_ns[MOVE_STOPPED])
        m->downtime_ms = (int64_t)((clock_now_ns() - m->phase_ns[MOVE_STOPPED]) / NS_PER_MS);
    move_set_phase(m, MOVE_DRILLING);
    failpoint("before-drill");
    send_word(ms, "drill");
}

static void act(struct move_source *ms, unsigned actions)
{
    if (actions & SOURCE_SEND_COMMIT) { /* first: the guest waits for it */
        failpoint("before-commit");
        if (!ms->marks.commit_ns)
            ms->marks.commit_ns = clock_now_ns();
        send_word(ms, "commit");
        failpoint("after-commit");
    }
    write_records(ms, actions);
    if (actions & SOURCE_WRITE_REPLY) {
        failpoint("before-reply");
        source_channels_release_reply(ms);
    }
    if (ms->sw.state != SOURCE_MOVING)
        source_stun_end(ms);
    if (actions & SOURCE_END_MIGRATION && ms->sw.drill)
        end_migration(ms);
    else if (actions & SOURCE_END_MIGRATION &&
             !ms->close_at_ns) /* libvirt's reply may be on its way */
        ms->close_at_ns = clock_now_ns() + REPLY_S * NS_PER_S;
    if (actions & SOURCE_SEND_DRILL)
        send_drill(ms);
    if (actions & SOURCE_STOP_MIGRATION)
        source_domain_stop_migration(ms);
    if (actions & SOURCE_RESUME_DOMAIN)
        source_domain_resume(ms);
    if (actions & SOURCE_START_DOMAIN)
        source_domain_start(ms);
    if (actions & SOURCE_CHECK_DOMAIN)
        source_domain_check(ms);
    if (actions & SOURCE_SEND_ABORT) {
        if (ms->prepare_sent)
            send_word(ms, "abort");
        else if (!ms->sw.target_settled)
            ms->settle_target = true; /* it never heard of this move */
    }
    show_outcome(ms, actions);
    if (actions & SOURCE_WITHDRAW)
        source_domain_withdraw(ms);
    if (ms->settle_target) {
        ms->settle_target = false;
        move_source_step(ms, SOURCE_ON_TARGET_UNKNOWN);
    }
}

/* A word may be lost with its session, and a session may end for one side only: what is waited for is asked
 * for again. A copy that waits for the target's word after a restart waits only so long for a dead line. */
static void ask_again(struct move_source *ms, uint64_t now_ns)
{
    bool up = ms->ls && link_session_is_up(ms->ls);
    bool waiting = ms->sw.state == SOURCE_COMMITTING || ms->sw.state == SOURCE_FEEDING ||
                   ms->sw.state == SOURCE_DRILLING ||
                   (ms->sw.state == SOURCE_ABORTING && !ms->sw.target_settled);

    if (!waiting) {
        ms->waiting_ns = 0;
        return;
    }
    if (!ms->waiting_ns)
        ms->waiting_ns = ms->repeated_ns = now_ns;
    if (ms->sw.waits && !up && now_ns - ms->waiting_ns > SILENCE_S * NS_PER_S)
        move_source_step(ms, SOURCE_ON_TARGET_SILENT);
    if (up && now_ns - ms->repeated_ns > REPEAT_S * NS_PER_S) {
        ms->repeated_ns = now_ns;
        move_source_step(ms, SOURCE_ON_LINK_UP);
    }
}

/* The VM here is safe and the target cannot say more: tell the operator now, go on telling the target. */
static void report_settled(struct move_source *ms, uint64_t now_ns)
{
    if (ms->sw.state != SOURCE_ABORTING || !ms->sw.domain_settled ||
        ms->move->outcome != MOVE_RUNNING)
        return;
    if (!ms->settled_ns)
        ms->settled_ns = now_ns;
    if (!ms->ls || now_ns - ms->settled_ns > 10 * NS_PER_S)
        move_source_set_outcome(ms->move, MOVE_OUTCOME_ABORTED);
}

/* Nothing is decided: it can be given up at once. */
static bool is_undecided(const struct move_source *ms)
{
    return ms->sw.state == SOURCE_MOVING || ms->sw.state == SOURCE_DRILLING;
}

/* Since when the guest waits for the target. One that the time limit has suspended waits for its memory first, and
 * source_limit.c for that. */
static uint64_t stopped_since(const struct move_source *ms)
{
    return ms->suspended ? ms->marks.ram_end_ns : ms->move->phase_ns[MOVE_STOPPED];
}

static void on_tick(uv_timer_t *timer)
{
    struct move_source *ms = timer->data;
    uint64_t now_ns = clock_now_ns(), stopped_ns = stopped_since(ms);
    struct error late = {0};

    if (ms->move->finished)
        return;
    source_domain_tick(ms, now_ns);
    source_right_tick(ms, now_ns);
    source_hold_tick(ms);
    source_limit_tick(ms, now_ns);
    source_care_tick(ms, now_ns);
    source_postcopy_tick(ms, now_ns);
    ask_again(ms, now_ns);
    if (ms->sw.state == SOURCE_MOVING && stopped_ns &&
        now_ns - stopped_ns > ms->service->config->switchover_deadline_s * NS_PER_S) {
        error_set(&late, -ETIMEDOUT, "switch over",
                  "see the target's log; try again, or raise switchover_deadline_s",
                  "the target was not ready %u s after the guest had stopped",
                  ms->service->config->switchover_deadline_s);
        move_source_fail(ms, &late);
    }
    report_settled(ms, now_ns);
    source_channels_tick(ms, now_ns);
}

/* --- beginnings --------------------------------------------------------------------------------- */

void move_source_refuse(struct move_source *ms, const struct error *why)
{
    ms->move->refused = true;
    ms->sw.state = SOURCE_ABORTED;
    move_set_reason(ms->move, why);
    move_source_set_outcome(ms->move, MOVE_OUTCOME_ABORTED);
    source_domain_rearm(ms);
}

int move_source_new(struct move *m, struct error *err)
{
    struct move_source *ms = calloc(1, sizeof(*ms));

    if (!ms)
        return error_set(err, -ENOMEM, "start a move", NULL, "out of memory");
    ms->move = m;
    ms->service = m->service;
    m->source = ms;
    m->right.on_right = on_right;
    uv_timer_init(m->service->loop, &ms->tick);
    uv_timer_init(m->service->loop, &ms->redial);
    ms->tick.data = ms->redial.data = ms;
    ms->open_timers = 2;
    uv_timer_start(&ms->tick, on_tick, SOURCE_TICK_MS, SOURCE_TICK_MS);
    return 0;
}

static enum switchover_source_record record_from_name(const char *state)
{
    if (strcmp(state, "commit") == 0)
        return SOURCE_RECORD_COMMIT;
    if (strcmp(state, "released") == 0)
        return SOURCE_RECORD_RELEASED;
    if (strcmp(state, "feeding") == 0)
        return SOURCE_RECORD_FEEDING;
    return strcmp(state, "restore") == 0 ? SOURCE_RECORD_RESTORE : SOURCE_RECORD_MOVING;
}

static bool host_was_restarted(const struct move *m)
{
    char now[BOOT_ID_BYTES];

    boot_id(now);
    return now[0] && m->boot_id[0] && strcmp(now, m->boot_id) != 0;
}

int move_source_recover(struct move *m, const char *state, struct error *err)
{
    enum switchover_source_record record = record_from_name(state);
    int r = move_source_new(m, err);

    if (r < 0)
        return r;
    log_warning("move %s (%s): found unfinished (%s), recovering", m->id, m->info.name, state);
    if (record == SOURCE_RECORD_MOVING && !error_is_set(&m->reason))
        error_set(&m->reason, -EOWNERDEAD, "move the VM", "start the move again",
                  "ferryd was stopped or killed during it");
    m->source->disarmed =
        m->persistent && m->autostart && !m->drill; /* perhaps: arming it again is harmless */
    m->source->prepare_sent = true; /* perhaps: telling a target that never heard is harmless */
    source_stun_recover(m);
    m->switched |= record == SOURCE_RECORD_FEEDING;
    m->may_postcopy |= m->switched;
    if (record == SOURCE_RECORD_FEEDING)
        move_set_phase(m, MOVE_COMMITTED);
    if (move_paths_of(m->service->config, m, &m->source->paths, NULL) == 0)
        move_paths_remove(&m->source->paths);
    /* A record of before the decision may be older than the agreement: keeping the right is never wrong. */
    m->source->armed =
        m->service->witness && !m->drill && (m->right.agreed || record == SOURCE_RECORD_MOVING);
    act(m->source, switchover_source_recover(&m->source->sw, record, m->drill, m->source->armed,
                                             m->source->disarmed && host_was_restarted(m)));
    return 0;
}

/* --- events from outside ------------------------------------------------------------------- */

int move_source_cancel(struct move *m, struct error *err)
{
    struct error why = {0};

    if (m->finished || !m->source || !is_undecided(m->source))
        return error_set(err, -EBUSY, "cancel the move", "see `ferry show`",
                         m->finished ? "it has ended" : "too late: it is being decided or undone");
    error_set(&why, -ECANCELED, "move the VM", NULL, "cancelled by the operator");
    move_source_fail(m->source, &why);
    return 0;
}

/* In doubt, or giving up while the target cannot be reached: then the source may go on without its word. */
static bool may_resolve(const struct move_source *ms, bool run_at_source)
{
    switch (ms->sw.state) {
    case SOURCE_IN_DOUBT:
        return true;
    case SOURCE_COMMITTING:
        return ms->move->outcome == MOVE_OUTCOME_IN_DOUBT;
    case SOURCE_FEEDING: /* by hand only where nobody has seen it run there */
        return run_at_source && !ms->sw.pulls && !(ms->ls && link_session_is_up(ms->ls));
    case SOURCE_ABORTING:
        return run_at_source && !ms->sw.target_settled;
    default:
        return false;
    }
}

int move_source_resolve(struct move *m, bool run_at_source, struct error *err)
{
    if (!m->finished && m->source && switchover_source_waits_for_witness(&m->source->sw))
        return error_set(
            err, -EAGAIN, "resolve the move",
            "mend the way to the witness; if it is lost for good, remove [witness] at both "
            "sites, restart both ferryd, and say it again",
            "your word is known, and waits for the witness's: the right to run is with %s",
            m->peer);
    if (m->finished || !m->source || !may_resolve(m->source, run_at_source))
        return error_set(err, -EBUSY, "resolve the move", "see `ferry show`",
                         "it is not in doubt at this site");
    log_warning("move %s (%s): the operator says: run at the %s", m->id, m->info.name,
                run_at_source ? "source" : "target");
    m->source->operators_word = true;
    move_source_step(m->source,
                     run_at_source ? SOURCE_ON_RESOLVE_SOURCE : SOURCE_ON_RESOLVE_TARGET);
    return 0;
}

void move_source_on_session_closed(struct move *m, struct link_session *ls, const struct error *why)
{
    struct move_source *ms = m->source;
    struct error lost = *why;
    struct link_session_info info;

    if (!ms || ms->ls != ls)
        return;
    link_session_get_info(ls, &info);
    m->progress.outages = info.outages;
    ms->ls = NULL;
    error_prefix(&lost, "the link");
    if (!lost.mend[0])
        snprintf(lost.mend, sizeof(lost.mend),
                 "see what cut it off, here and there, then start the move again");
    if ((!ms->prepare_sent || !info.was_up) && ms->sw.state == SOURCE_MOVING) {
        source_channels_close(ms);
        move_source_refuse(ms, &lost);
        return;
    }
    if (is_undecided(ms))
        move_source_fail(ms, &lost);
    /* Its streams end with the session. QEMU may not see its connections end before the guest stands still. */
    source_channels_detach(ms);
    if (!ms->close_at_ns && !source_postcopy_keeps(ms))
        source_channels_close(ms);
    source_postcopy_broken(ms);
    if (ms->sw.state == SOURCE_COMMITTING) {
        move_set_reason(m, &lost);
        move_source_set_outcome(m, MOVE_OUTCOME_IN_DOUBT);
    }
    if (!m->finished)
        schedule_redial(ms, 1000);
}

void move_source_on_suspended(struct move *m)
{
    if (m->source && m->source->sw.state == SOURCE_MOVING)
        move_set_phase(m, MOVE_STOPPED);
}

void move_source_on_stopped(struct move *m)
{
    struct error why = {0};

    if (m->source && m->source->sw.state == SOURCE_FEEDING)
        source_postcopy_check(m->source);
    if (!m->source || m->source->sw.state != SOURCE_MOVING)
        return;
    error_set(&why, -ESRCH, "move the VM", "start it again where it belongs",
              "it ended at the source (shut down, destroyed or crashed)");
    move_source_fail(m->source, &why);
}

void move_source_shutdown(struct move *m)
{
    struct error why = {0};

    if (!m->source || !is_undecided(m->source))
        return;
    error_set(&why, -ESHUTDOWN, "move the VM", "start the move again", "this ferryd was stopped");
    move_source_fail(m->source, &why);
}
