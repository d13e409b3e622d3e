/* SPDX-License-Identifier: Apache-2.0 */
/* A move at the source: see move_source.h; its channels are in source_channels.c. */
#include "core/move_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/disk_files.h"
#include "core/move_source_private.h"

static void act(struct move_source *ms, unsigned actions);

void move_source_step(struct move_source *ms, enum switchover_source_event event)
{
    enum switchover_source_state before = ms->sw.state;
    unsigned actions = switchover_source_step(&ms->sw, event);

    if (before != ms->sw.state)
        log_info("move %s (%s): switchover %s -> %s", ms->move->id, ms->move->info.name,
                 switchover_source_state_name(before), switchover_source_state_name(ms->sw.state));
    act(ms, actions);
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
    source_channels_close(ms);
    if (ms->ls)
        peering_release(ms->ls);
    uv_close((uv_handle_t *)&ms->redial, on_timer_closed);
    uv_close((uv_handle_t *)&ms->tick, on_timer_closed);
    service_trim_memory();
}

/* One call of ours came back. */
void move_source_call_returned(struct move_source *ms)
{
    ms->move->pending--;
    if (ms->dispose_wanted)
        service_defer(ms->service, dispose, ms->move);
}

static void finish(struct move_source *ms)
{
    struct move *m = ms->move;

    m->finished = true;
    move_set_phase(m, MOVE_DONE);
    move_journal(m, switchover_source_state_name(ms->sw.state), true, NULL);
    service_defer(ms->service, dispose, m);
}

static void set_outcome(struct move *m, enum move_outcome outcome)
{
    if (m->outcome == outcome)
        return;
    m->outcome = outcome;
    if (!m->ended_ns && outcome != MOVE_OUTCOME_IN_DOUBT)
        m->ended_ns = clock_now_ns();
    log_info("move %s (%s): %s", m->id, m->info.name, move_outcome_name(outcome));
}

/* --- withdrawal of the old copy ------------------------------------------------------------ */

struct retire_job {
    struct worker_job job;
    struct move *move;
    struct domain_info info;
    enum old_disks what;
};

static void run_retire(struct worker_job *job)
{
    struct retire_job *r = container_of(job, struct retire_job, job);

    disk_files_retire(&r->info, r->what);
}

static void done_retire(struct worker_job *job)
{
    struct retire_job *r = container_of(job, struct retire_job, job);
    struct move_source *ms = r->move->source;

    free(r);
    finish(ms);
    move_source_call_returned(ms);
}

static void on_withdrawn(void *user, const struct error *err)
{
    struct move_source *ms = user;
    struct retire_job *r = calloc(1, sizeof(*r));
    char line[1024];

    if (err->code || !r) {
        if (err->code)
            log_warning("move %s: the old definition stays for now: %s", ms->move->id,
                        error_line(err, line, sizeof(line)));
        free(r);
        ms->withdraw_again_ns = clock_now_ns() + NS_PER_S;
        move_source_call_returned(ms);
        return;
    }
    r->job = (struct worker_job){.run = run_retire, .done = done_retire};
    r->move = ms->move;
    r->info = ms->move->info;
    r->what = ms->service->config->old_disks;
    worker_post(ms->service->files, &r->job); /* `pending` passes on to it */
}

/* The target runs. Whatever is left of the VM here is paused or off; anything else is a disaster that
 * must be said, not made worse. */
static void on_withdraw_state(void *user, const struct error *err, enum virt_domain_state state)
{
    struct move_source *ms = user;

    if (err->code || state == VIRT_DOMAIN_BUSY) {
        ms->withdraw_again_ns = clock_now_ns() + NS_PER_S / 5;
    } else if (state == VIRT_DOMAIN_RUNNING) {
        log_error("move %s (%s): the VM runs here AND at %s: stop one by hand, this one is stale",
                  ms->move->id, ms->move->info.name, ms->move->peer);
        set_outcome(ms->move, MOVE_OUTCOME_IN_DOUBT);
        ms->withdraw_again_ns = clock_now_ns() + 10 * NS_PER_S;
    } else {
        virt_destroy(ms->service->virt, ms->move->info.uuid, on_withdrawn, ms);
        return; /* `pending` passes on to it */
    }
    move_source_call_returned(ms);
}

static void withdraw(struct move_source *ms)
{
    ms->withdraw_again_ns = 0;
    if (ms->migrating) { /* libvirt's Confirm is killing the old copy: let it */
        ms->withdraw_again_ns = clock_now_ns() + NS_PER_S / 10;
        return;
    }
    ms->move->pending++;
    virt_state(ms->service->virt, ms->move->info.uuid, on_withdraw_state, ms);
}

/* --- what the domain does ------------------------------------------------------------------ */

static void on_checked(void *user, const struct error *err, enum virt_domain_state state)
{
    struct move_source *ms = user;
    struct error ended = {0};

    ms->check_running = false;
    if (err->code || state == VIRT_DOMAIN_BUSY) {
        ms->check_again_ns = clock_now_ns() + NS_PER_S / 5;
        move_source_call_returned(ms);
        return;
    }
    ms->check_wanted = false;
    switch (state) {
    case VIRT_DOMAIN_RUNNING:
        move_source_step(ms, SOURCE_ON_DOMAIN_RUNNING);
        break;
    case VIRT_DOMAIN_PAUSED:
        move_source_step(ms, SOURCE_ON_DOMAIN_PAUSED);
        break;
    case VIRT_DOMAIN_ENDED: /* by itself, so it ran here until then: for the decision that is "running" */
        error_set(&ended, -ESRCH, "move the VM", "start it again where it belongs",
                  "it ended at the source (shut down, destroyed or crashed)");
        error_clear(&ms->move->reason); /* what was noted before it is its echo */
        move_set_reason(ms->move, &ended);
        move_source_step(ms, ms->sw.state == SOURCE_CHECKING ? SOURCE_ON_DOMAIN_RUNNING
                                                             : SOURCE_ON_DOMAIN_GONE);
        break;
    case VIRT_DOMAIN_GONE:
    case VIRT_DOMAIN_BUSY:
        move_source_step(ms, SOURCE_ON_DOMAIN_GONE);
        break;
    }
    move_source_call_returned(ms);
}

void move_source_check_domain(struct move_source *ms)
{
    ms->check_again_ns = 0;
    if (!ms->check_wanted || ms->check_running)
        return;
    if (ms->migrating || ms->resuming) {
        ms->check_again_ns = clock_now_ns() + NS_PER_S / 20;
        return;
    }
    ms->check_running = true;
    ms->move->pending++;
    virt_state(ms->service->virt, ms->move->info.uuid, on_checked, ms);
}

static void on_source_resumed(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code)
        log_error("move %s (%s): cannot resume the VM here: %s", ms->move->id, ms->move->info.name,
                  error_line(err, line, sizeof(line)));
    ms->resuming = false;
    move_source_call_returned(ms);
}

static void on_job_aborted(void *user, const struct error *err)
{
    struct move_source *ms = user;

    (void)err; /* no job any more is as good */
    ms->close_at_ns = clock_now_ns();
    move_source_call_returned(ms);
}

static void stop_migration(struct move_source *ms)
{
    if (!ms->migrating) {
        ms->close_at_ns = clock_now_ns();
        return;
    }
    /* Closing the channels ends libvirt's job too; asking first gives the cleaner end. */
    ms->close_at_ns = clock_now_ns() + 2 * NS_PER_S;
    ms->move->pending++;
    virt_abort_job(ms->service->virt, ms->move->info.uuid, on_job_aborted, ms);
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
    m->source->move->pending--;
    move_set_phase(m, MOVE_COMMITTED);
    move_source_step(m->source, SOURCE_ON_COMMIT_JOURNALLED);
}

static void act(struct move_source *ms, unsigned actions)
{
    struct move *m = ms->move;

    if (actions & SOURCE_JOURNAL_COMMIT) {
        failpoint("before-commit-journal");
        m->pending++;
        move_journal(m, "commit", false, on_commit_durable);
    }
    if (actions & SOURCE_JOURNAL_ABORT)
        move_journal(m, "abort", false, NULL);
    if (actions & SOURCE_WRITE_REPLY) {
        failpoint("before-reply");
        source_channels_release_reply(ms);
    }
    if (actions & SOURCE_STOP_MIGRATION)
        stop_migration(ms);
    if (actions & SOURCE_RESUME_DOMAIN) {
        ms->resuming = true;
        m->pending++;
        virt_resume(ms->service->virt, m->info.uuid, on_source_resumed, ms);
    }
    if (actions & SOURCE_CHECK_DOMAIN) {
        ms->check_wanted = true;
        move_source_check_domain(ms);
    }
    if (actions & SOURCE_SEND_COMMIT) {
        failpoint("before-commit");
        send_word(ms, "commit");
        failpoint("after-commit");
    }
    if (actions & SOURCE_SEND_ABORT) {
        if (ms->prepare_sent)
            send_word(ms, "abort");
        else if (!ms->sw.target_settled)
            ms->settle_target = true; /* it never heard of this move */
    }
    if (ms->sw.state == SOURCE_COMMITTED && m->outcome != MOVE_OUTCOME_COMMITTED)
        set_outcome(m, MOVE_OUTCOME_COMMITTED);
    if (ms->sw.state == SOURCE_IN_DOUBT)
        set_outcome(m, MOVE_OUTCOME_IN_DOUBT);
    if (actions & SOURCE_WITHDRAW)
        withdraw(ms);
    else if (actions & SOURCE_JOURNAL_DONE) {
        set_outcome(m, MOVE_OUTCOME_ABORTED);
        finish(ms);
    }
    if (ms->settle_target) {
        ms->settle_target = false;
        move_source_step(ms, SOURCE_ON_TARGET_UNKNOWN);
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
        set_outcome(ms->move, MOVE_OUTCOME_ABORTED);
}

static void on_tick(uv_timer_t *timer)
{
    struct move_source *ms = timer->data;
    uint64_t now_ns = clock_now_ns();
    struct error late = {0};

    if (ms->move->finished)
        return;
    if (ms->close_at_ns && now_ns >= ms->close_at_ns) {
        ms->close_at_ns = 0;
        source_channels_close(ms);
    }
    if (ms->check_again_ns && now_ns >= ms->check_again_ns)
        move_source_check_domain(ms);
    if (ms->withdraw_again_ns && now_ns >= ms->withdraw_again_ns)
        withdraw(ms);
    if (ms->sw.state == SOURCE_MOVING && ms->move->phase_ns[MOVE_STOPPED] &&
        now_ns - ms->move->phase_ns[MOVE_STOPPED] >
            ms->service->config->switchover_deadline_s * NS_PER_S) {
        error_set(&late, -ETIMEDOUT, "switch over",
                  "see the target's log; try again, or raise switchover_deadline_s",
                  "the target was not ready %u s after the guest had stopped",
                  ms->service->config->switchover_deadline_s);
        move_source_fail(ms, &late);
    }
    report_settled(ms, now_ns);
    source_channels_tick(ms, now_ns);
}

/* --- start --------------------------------------------------------------------------------- */

static void refuse(struct move_source *ms, const struct error *why)
{
    ms->move->refused = true;
    ms->sw.state = SOURCE_ABORTED;
    move_set_reason(ms->move, why);
    set_outcome(ms->move, MOVE_OUTCOME_ABORTED);
    finish(ms);
}

static void on_moving_durable(void *user)
{
    struct move *m = user;
    struct move_source *ms = m->source;

    m->pending--;
    if (ms->sw.state == SOURCE_MOVING && ms->ls) {
        ms->prepare_sent = true;
        peering_send(ms->ls,
                     json_pack("{s:s, s:s, s:o, s:b, s:b, s:o*}", "type", "prepare", "move", m->id,
                               "info", domain_info_to_json(&m->info), "persistent", m->persistent,
                               "autostart", m->autostart, "memory_codec",
                               memory_codec_offer(ms->service->config, m->progress.memory_total)));
    }
}

static int preflight(struct move_source *ms, const struct virt_description *d, struct error *err)
{
    const struct config_peer *peer = config_peer_by_name(ms->service->config, ms->move->peer);
    struct move *m = ms->move;

    if (!peer)
        return error_set(err, -ENOENT, "find the target",
                         "see `ferry peers`; add a [peer] section and reload",
                         "no peer is named '%s'", m->peer);
    if (!(peer->permissions & PEER_MAY_MOVE_FROM_HERE))
        return error_set(err, -EPERM, "use the target",
                         "add move-from-here to allow = in its [peer] section",
                         "VMs may not be moved from here to %s", m->peer);
    if (!peer->link.address[0])
        return error_set(err, -EINVAL, "call the target",
                         "add address = HOST:PORT to its [peer] section",
                         "%s has no address in the configuration", m->peer);
    if (!d->running)
        return error_set(err, -EINVAL, "look at the VM", "resume it first: virsh resume",
                         "%s is paused", d->info.name);
    if (move_of_domain(ms->service, d->info.name, d->info.uuid, m))
        return error_set(err, -EBUSY, "start a move", "see `ferry list`",
                         "another move of %s is not finished", d->info.name);
    m->info = d->info;
    m->persistent = d->persistent;
    m->autostart = d->autostart;
    m->progress.memory_total = d->memory_bytes;
    for (unsigned i = 0; i < d->info.disk_count; i++)
        m->progress.disk_total += d->info.disks[i].size_bytes;
    return move_paths_of(ms->service->config, m, &ms->paths, err);
}

static void on_described(void *user, const struct error *err, const struct virt_description *d)
{
    struct move_source *ms = user;
    struct error why = *err;

    if (ms->sw.state != SOURCE_MOVING) { /* cancelled meanwhile */
        move_source_call_returned(ms);
        return;
    }
    if (!why.code && preflight(ms, d, &why) == 0 &&
        peering_dial(ms->service->peering, ms->move->peer, &ms->ls, &why) == 0) {
        ms->move->pending++;
        move_journal(ms->move, "moving", false, on_moving_durable);
    } else {
        refuse(ms, &why);
    }
    move_source_call_returned(ms);
}

static int source_new(struct move *m, struct error *err)
{
    struct move_source *ms = calloc(1, sizeof(*ms));

    if (!ms)
        return error_set(err, -ENOMEM, "start a move", NULL, "out of memory");
    ms->move = m;
    ms->service = m->service;
    m->source = ms;
    uv_timer_init(m->service->loop, &ms->tick);
    uv_timer_init(m->service->loop, &ms->redial);
    ms->tick.data = ms->redial.data = ms;
    ms->open_timers = 2;
    uv_timer_start(&ms->tick, on_tick, SOURCE_TICK_MS, SOURCE_TICK_MS);
    return 0;
}

int move_source_start(struct service *s, const char *domain, const char *peer, struct move **ret,
                      struct error *err)
{
    int r = move_new(s, JOURNAL_SOURCE, NULL, peer, ret, err);

    if (r < 0)
        return r;
    snprintf((*ret)->info.name, sizeof((*ret)->info.name), "%s", domain);
    r = source_new(*ret, err);
    if (r < 0) {
        (*ret)->finished = true;
        return r;
    }
    (*ret)->pending++;
    virt_describe(s->virt, domain, on_described, (*ret)->source);
    return 0;
}

int move_source_recover(struct move *m, const char *state, struct error *err)
{
    bool commit = strcmp(state, "commit") == 0;
    int r = source_new(m, err);

    if (r < 0)
        return r;
    log_warning("move %s (%s): found unfinished (%s), recovering", m->id, m->info.name, state);
    if (!commit && !error_is_set(&m->reason))
        error_set(&m->reason, -EOWNERDEAD, "move the VM", "start the move again",
                  "ferryd was stopped or killed during it");
    m->source->prepare_sent = true; /* perhaps: telling a target that never heard is harmless */
    if (move_paths_of(m->service->config, m, &m->source->paths, NULL) == 0)
        move_paths_remove(&m->source->paths);
    act(m->source, switchover_source_recover(&m->source->sw, commit));
    return 0;
}

/* --- events from outside ------------------------------------------------------------------- */

int move_source_cancel(struct move *m, struct error *err)
{
    struct error why = {0};

    if (m->finished || !m->source || m->source->sw.state != SOURCE_MOVING)
        return error_set(err, -EBUSY, "cancel the move", "see `ferry show`",
                         m->finished ? "it has ended" : "too late: it is being decided or undone");
    error_set(&why, -ECANCELED, "move the VM", NULL, "cancelled by the operator");
    move_source_fail(m->source, &why);
    return 0;
}

int move_source_resolve(struct move *m, bool run_at_source, struct error *err)
{
    if (m->finished || !m->source || m->source->sw.state != SOURCE_IN_DOUBT)
        return error_set(err, -EINVAL, "resolve the move", "see `ferry show`",
                         "it is not in doubt at this site");
    move_source_step(m->source,
                     run_at_source ? SOURCE_ON_RESOLVE_SOURCE : SOURCE_ON_RESOLVE_TARGET);
    return 0;
}

static void on_target_failed(struct move_source *ms, const json_t *msg)
{
    struct error why;

    error_from_json(json_object_get(msg, "error"), &why);
    error_prefix(&why, ms->move->peer);
    if (ms->sw.state == SOURCE_ABORTING && ms->reason_is_libvirts)
        error_clear(&ms->move->reason); /* the cause itself replaces libvirt's echo of it */
    ms->reason_is_libvirts = false;
    move_source_fail(ms, &why);
}

static void on_target_resumed(struct move_source *ms)
{
    struct move *m = ms->move;

    if (m->phase_ns[MOVE_STOPPED] && m->downtime_ms < 0) {
        uint64_t one_way_ns =
            m->progress.rtt_us * 1000 / 2; /* the word took that long to come here */
        uint64_t span_ns = clock_now_ns() - m->phase_ns[MOVE_STOPPED];

        m->downtime_ms = (int64_t)((span_ns - MIN(one_way_ns, span_ns)) / NS_PER_MS);
    }
    move_set_phase(m, MOVE_RESUMED);
    move_source_step(ms, SOURCE_ON_TARGET_RESUMED);
}

static void on_ready(struct move_source *ms, const json_t *msg)
{
    struct error err = {0};

    if (ms->sw.state != SOURCE_MOVING || ms->migrating || ms->channels_open)
        return;
    memory_codec_agree(ms->service->config, ms->move->progress.memory_total,
                       json_object_get(msg, "memory_codec"), &ms->codec);
    if (source_channels_open(ms, &err) < 0)
        move_source_fail(ms, &err);
}

void move_source_on_message(struct move *m, struct link_session *ls, const char *type,
                            const json_t *msg)
{
    struct move_source *ms = m->source;
    struct error why;

    if (!ms) { /* finished: a target that still asks gets the recorded end */
        if (strcmp(type, "ask") == 0)
            peering_send(ls, json_pack("{s:s, s:s}", "type",
                                       m->outcome == MOVE_OUTCOME_COMMITTED ? "commit" : "abort",
                                       "move", m->id));
        return;
    }
    if (strcmp(type, "ready") == 0) {
        on_ready(ms, msg);
    } else if (strcmp(type, "refused") == 0 && ms->sw.state == SOURCE_MOVING &&
               !ms->channels_open) {
        error_from_json(json_object_get(msg, "error"), &why);
        error_prefix(&why, m->peer);
        refuse(ms, &why);
    } else if (strcmp(type, "failed") == 0) {
        on_target_failed(ms, msg);
    } else if (strcmp(type, "prepared") == 0) {
        move_set_phase(m, MOVE_PREPARED);
    } else if (strcmp(type, "resumed") == 0) {
        on_target_resumed(ms);
    } else if (strcmp(type, "aborted") == 0) {
        move_source_step(ms, SOURCE_ON_TARGET_ABORTED);
    } else if (strcmp(type, "unknown") == 0) {
        move_source_step(ms, SOURCE_ON_TARGET_UNKNOWN);
    } else if (strcmp(type, "ask") == 0) {
        if (ms->ls != ls && !ms->ls) {
            ms->ls = ls;
            peering_hold(ls);
        }
        move_source_step(ms, SOURCE_ON_TARGET_ASKS);
    } else {
        log_warning("move %s: the peer says '%s', which is not known here", m->id, type);
    }
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
        refuse(ms, &lost);
        return;
    }
    if (ms->sw.state == SOURCE_MOVING)
        move_source_fail(ms, &lost);
    source_channels_close(ms); /* its streams end with the session */
    if (ms->sw.state == SOURCE_COMMITTING)
        set_outcome(m, MOVE_OUTCOME_IN_DOUBT);
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

    if (!m->source || m->source->sw.state != SOURCE_MOVING)
        return;
    error_set(&why, -ESRCH, "move the VM", "start it again where it belongs",
              "it ended at the source (shut down, destroyed or crashed)");
    move_source_fail(m->source, &why);
}

void move_source_shutdown(struct move *m)
{
    struct error why = {0};

    if (!m->source || m->source->sw.state != SOURCE_MOVING)
        return;
    error_set(&why, -ESHUTDOWN, "move the VM", "start the move again", "this ferryd was stopped");
    move_source_fail(m->source, &why);
}
