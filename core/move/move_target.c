/* SPDX-License-Identifier: Apache-2.0 */
/* A move at the target: see move_target.h. Its files and its removal are in target_files.c, its channels in
 * target_channels.c. */
#include "core/move/move_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/operations/check_target.h"
#include "core/move/move_target_private.h"
#include "core/virt/platform_json.h"

enum { TICK_MS = 100, ASK_AGAIN_MS = 2000, ASK_FIRST_MS = 10000 };

static void act(struct move_target *mt, unsigned actions);

/* With a drill's verdict: its own word may have been lost. */
static json_t *aborted_word(const struct move *m)
{
    return json_pack("{s:s, s:o*}", "type", "aborted", "drill",
                     m->drill ? drill_to_json(&m->rehearsal) : NULL);
}
static void on_tick(uv_timer_t *timer);

static void on_right(struct move *m, enum right now)
{
    struct error why = {0};

    if (!m->target)
        return;
    if (m->target->sw.state == TARGET_PREPARED && now == RIGHT_KEPT) {
        error_set(&why, -ECANCELED, "receive the VM", "start the move again",
                  "%s does not answer, and by the witness the VM stays there", m->peer);
        move_set_reason(m, &why);
    }
    move_target_step(m->target, (enum switchover_target_event)(TARGET_ON_RIGHT + now));
}

void move_target_step(struct move_target *mt, enum switchover_target_event event)
{
    enum switchover_target_state before = mt->sw.state;
    unsigned actions = switchover_target_step(&mt->sw, event);

    if (before != mt->sw.state)
        log_info("move %s (%s): switchover %s -> %s", mt->move->id, mt->move->info.name,
                 switchover_target_state_name(before), switchover_target_state_name(mt->sw.state));
    act(mt, actions);
    if (!mt->move->finished)
        move_right_wish(mt->move, switchover_target_wish(&mt->sw));
}

/* --- messages ------------------------------------------------------------------------------ */

void move_target_send(struct move_target *mt, json_t *msg)
{
    struct link_session *ls = mt->ls ? mt->ls : peering_any(mt->service->peering, mt->move->peer);

    json_object_set_new(msg, "move", json_string(mt->move->id));
    if (ls)
        peering_send(ls, msg);
    else
        json_decref(msg);
}

void move_target_send_word(struct move_target *mt, const char *type)
{
    move_target_send(mt, json_pack("{s:s}", "type", type));
}

static void send_resumed(struct move_target *mt)
{
    json_t *msg = json_pack("{s:s}", "type", "resumed");
    struct downtime_spans spans;

    if (downtime_spans_of(&mt->moments, &spans))
        json_object_set_new(msg, "spans_us",
                            json_pack("{s:I, s:I, s:I}", "flush", (json_int_t)spans.flush_us,
                                      "load", (json_int_t)spans.load_us, "resume",
                                      (json_int_t)spans.resume_us));
    move_target_send(mt, msg);
}

void move_target_fail(struct move_target *mt, const struct error *why)
{
    if (mt->sw.state == TARGET_RECEIVING || mt->sw.state == TARGET_PREPARING ||
        mt->sw.state == TARGET_SWITCHED) {
        move_set_reason(mt->move, why);
        move_target_send(mt,
                         json_pack("{s:s, s:o}", "type", "failed", "error", error_to_json(why)));
    }
    move_target_step(mt, TARGET_ON_FAILURE);
}

/* Asks the source what it decided, over whatever session there is, dialling one if need be. */
static void ask_source(struct move_target *mt)
{
    struct link_session *ls;
    struct error err;

    mt->ask_at_ns = clock_now_ns() + ASK_AGAIN_MS * NS_PER_MS;
    if (mt->ls || peering_any(mt->service->peering, mt->move->peer)) {
        move_target_send_word(mt, "ask");
    } else if (peering_dial(mt->service->peering, mt->move->peer, &ls, &err) == 0) {
        move_target_send_word(mt, "ask");
        peering_release(
            ls); /* idle sessions live long enough for an answer, and are dialled again */
    }
}

/* --- the end ------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void dispose(void *arg)
{
    struct move *m = arg;
    struct move_target *mt = m->target;

    if (!mt)
        return;
    if (m->pending > 0) {
        mt->dispose_wanted = true;
        return;
    }
    m->target = NULL;
    move_right_cancel(m);
    target_channels_close(mt);
    free(mt->host);
    if (mt->ls)
        peering_release(mt->ls);
    uv_close((uv_handle_t *)&mt->tick, on_handle_closed);
    service_trim_memory(m->service);
}

void move_target_call_returned(struct move_target *mt)
{
    mt->move->pending--;
    if (mt->dispose_wanted)
        service_defer(mt->service, dispose, mt->move);
}

void move_target_finish(struct move_target *mt, enum move_outcome outcome)
{
    struct move *m = mt->move;

    m->outcome = outcome;
    m->finished = true;
    m->ended_ns = clock_now_ns();
    move_set_phase(m, MOVE_DONE);
    move_right_cancel(m);
    if (mt->sw.witness && mt->sw.state == TARGET_RESUMED) /* for a source that cannot hear us */
        move_right_tell(m, RIGHT_WISH_NOTE);
    move_journal(m, switchover_target_state_name(mt->sw.state), true, NULL);
    log_info("move %s (%s): %s", m->id, m->info.name, move_outcome_name(outcome));
    move_paths_remove(&mt->paths); /* what is connected stays so */
    mt->dispose_at_ns = clock_now_ns() + (outcome == MOVE_OUTCOME_COMMITTED ? 3 * NS_PER_S : 0);
}

/* --- the promise --------------------------------------------------------------------------- */

static void on_prepared_durable(void *user)
{
    struct move *m = user;

    m->pending--;
    failpoint("after-prepared-journal");
    move_set_phase(m, MOVE_PREPARED);
    move_target_step(m->target, TARGET_ON_PREPARED_JOURNALLED);
}

static void on_committed_durable(void *user)
{
    struct move *m = user;

    m->pending--;
    failpoint("after-committed-journal");
    m->target->moments.committed_ns = clock_now_ns();
    move_set_phase(m, MOVE_COMMITTED);
    move_target_step(m->target, TARGET_ON_COMMITTED_JOURNALLED);
}

static void on_aborting_durable(void *user)
{
    struct move *m = user;

    m->pending--;
    move_target_step(m->target, TARGET_ON_ABORT_JOURNALLED);
}

/* The copy is not there to be resumed: libvirt knows whether it died or never was. */
static enum switchover_target_event why_not_resumed(struct move_target *mt, const struct error *err)
{
    struct error why = {0};

    if (err->code == -ESRCH)
        return TARGET_ON_COPY_LOST;
    if (err->code != -ENOENT)
        return TARGET_ON_RESUME_FAILED;
    error_set(&why, -ENOENT, "run the VM", "ferry resolve --run-at source, here",
              "the target has no copy of it");
    move_set_reason(mt->move, &why);
    mt->move->outcome = MOVE_OUTCOME_IN_DOUBT;
    return TARGET_ON_COPY_MISSING;
}

static void on_resumed(void *user, const struct error *err)
{
    struct move_target *mt = user;

    move_set_trouble(mt->move, err);
    if (err->code) {
        move_target_step(mt, why_not_resumed(mt, err));
    } else {
        mt->moments.resumed_ns = clock_now_ns();
        move_set_phase(mt->move, MOVE_RESUMED);
        failpoint("after-resume");
        move_target_step(mt, TARGET_ON_RESUMED);
    }
    move_target_call_returned(mt);
}

static void resume_domain(struct move_target *mt)
{
    mt->resume_at_ns = 0;
    mt->move->pending++;
    virt_resume(mt->service->virt, mt->move->info.uuid, on_resumed, mt);
}

/* The paused copy died (its QEMU was killed), the source's is given up: its disks are complete here, and
 * from them it starts as after a power failure. */
static void start_domain(struct move_target *mt)
{
    log_error(
        "move %s (%s): the paused copy died before it could run; it starts anew from its disks",
        mt->move->id, mt->move->info.name);
    mt->move->pending++;
    virt_start(mt->service->virt, mt->move->info.uuid, on_resumed, mt);
}

static void write_records(struct move_target *mt, unsigned actions)
{
    struct move *m = mt->move;

    if (actions & TARGET_JOURNAL_PREPARED) {
        mt->moments.complete_ns = clock_now_ns();
        failpoint("before-prepared-journal");
        m->pending++;
        move_journal(m, "prepared", false, on_prepared_durable);
    }
    if (actions & TARGET_JOURNAL_SWITCHED) {
        mt->moments.complete_ns = clock_now_ns();
        failpoint("before-switched-journal");
        m->pending++;
        move_journal(m, "switched", false, on_prepared_durable);
    }
    if (actions & TARGET_JOURNAL_PULLING) {
        m->pending++;
        move_journal(m, "pulling", false, on_committed_durable);
    }
    if (actions & TARGET_JOURNAL_COMMITTED) {
        m->pending++;
        move_journal(m, "committing", false, on_committed_durable);
    }
    if (actions & TARGET_JOURNAL_ABORTING) {
        m->pending++;
        move_journal(m, "aborting", false, on_aborting_durable);
    }
}

static void act(struct move_target *mt, unsigned actions)
{
    struct move *m = mt->move;

    write_records(mt, actions);
    if (actions & TARGET_PASS_FINISH) {
        mt->ask_at_ns = clock_now_ns() + ASK_FIRST_MS * NS_PER_MS;
        move_target_send_word(mt, "prepared");
        target_channels_pass_finish(mt);
    }
    if (actions & TARGET_SEND_SWITCHED)
        move_target_send(mt, json_pack("{s:s, s:b}", "type", "prepared", "switched", 1));
    if (actions & TARGET_RUN_FINISH)
        target_channels_run_finish(mt);
    if (actions & TARGET_SEND_PULLS)
        target_postcopy_say(mt);
    if (actions & TARGET_WATCH_PAGES)
        target_postcopy_watch(mt);
    if (mt->sw.state != TARGET_DRILLING)
        target_drill_stop(mt);
    if (actions & TARGET_RUN_CLONE) {
        move_set_phase(m, MOVE_DRILLING);
        target_drill_run(mt);
    }
    if (actions & TARGET_SEND_DRILLED)
        move_target_send(
            mt, json_pack("{s:s, s:o}", "type", "drilled", "drill", drill_to_json(&m->rehearsal)));
    if (actions & TARGET_RESUME_DOMAIN)
        resume_domain(mt);
    if (actions & TARGET_START_DOMAIN)
        start_domain(mt);
    if (actions & TARGET_RETRY_RESUME)
        mt->resume_at_ns = clock_now_ns() + NS_PER_S / 2;
    if (actions & TARGET_SEND_RESUMED)
        send_resumed(mt);
    if (actions & TARGET_ASK_SOURCE)
        ask_source(mt);
    if (actions & TARGET_CLEAN_UP)
        service_defer(mt->service, target_files_clean_up, m);
    if (actions & TARGET_SEND_ABORTED)
        move_target_send(mt, aborted_word(m));
    if (actions & TARGET_JOURNAL_DONE) {
        if (mt->sw.state == TARGET_RESUMED)
            target_files_adopt(mt);
        else
            move_target_finish(mt, move_outcome_without_commit(m));
    }
    if (mt->sw.in_doubt && m->outcome != MOVE_OUTCOME_IN_DOUBT) {
        log_warning(
            "move %s (%s): in doubt: prepared here, %s does not answer; the VM stays paused", m->id,
            m->info.name, m->peer);
        m->outcome = MOVE_OUTCOME_IN_DOUBT;
    } else if (!mt->sw.in_doubt && !mt->sw.copy_missing && m->outcome == MOVE_OUTCOME_IN_DOUBT) {
        m->outcome = MOVE_RUNNING;
    }
}

static void on_tick(uv_timer_t *timer)
{
    struct move_target *mt = timer->data;
    uint64_t now_ns = clock_now_ns();

    if (mt->clean_at_ns && now_ns >= mt->clean_at_ns)
        target_files_clean_up(mt->move);
    if (mt->resume_at_ns && now_ns >= mt->resume_at_ns)
        resume_domain(mt);
    if (mt->sw.state == TARGET_PREPARED && now_ns >= mt->ask_at_ns)
        ask_source(mt);
    if (!mt->move->finished)
        move_right_wish(mt->move, switchover_target_wish(&mt->sw));
    if (mt->dispose_at_ns && now_ns >= mt->dispose_at_ns && mt->move->finished) {
        mt->dispose_at_ns = UINT64_MAX;
        service_defer(mt->service, dispose, mt->move);
        return;
    }
    target_drill_tick(mt, now_ns);
    target_postcopy_tick(mt, now_ns);
    target_channels_tick(mt);
}

/* --- start --------------------------------------------------------------------------------- */

static int target_new(struct move *m)
{
    struct move_target *mt = calloc(1, sizeof(*mt));

    if (!mt)
        return -ENOMEM;
    mt->move = m;
    mt->service = m->service;
    mt->rpc_fd = -1;
    m->target = mt;
    m->right.on_right = on_right;
    uv_timer_init(m->service->loop, &mt->tick);
    mt->tick.data = mt;
    uv_timer_start(&mt->tick, on_tick, TICK_MS, TICK_MS);
    return 0;
}

void move_target_refuse(struct move_target *mt, const struct error *why)
{
    move_set_reason(mt->move, why);
    mt->move->refused = true;
    move_target_send(mt, json_pack("{s:s, s:o}", "type", "refused", "error", error_to_json(why)));
    mt->sw.state = TARGET_ABORTED;
    move_target_finish(mt, MOVE_OUTCOME_ABORTED);
}

static void on_receiving_durable(void *user)
{
    struct move *m = user;
    struct move_target *mt = m->target;

    m->pending--;
    if (mt->sw.state != TARGET_RECEIVING)
        return;
    target_files_create(mt);
}

/* What `ferry check` would have said: above all that the same VM is not here already, under its UUID or its name,
 * because an abort removes the target's VM, and must never meet one that it did not make. */
static void on_looked(void *user, const struct check_report *report)
{
    struct move_target *mt = user;
    struct error why;

    if (mt->sw.state != TARGET_RECEIVING) {
        /* aborted meanwhile */
    } else if (check_first_failure(report, &why)) {
        move_target_refuse(mt, &why);
    } else {
        mt->move->pending++;
        move_journal(mt->move, "receiving", false, on_receiving_durable);
    }
    move_target_call_returned(mt);
}

static int check_prepare(struct move_target *mt, const char *peer, const json_t *msg,
                         struct error *err)
{
    struct move *m = mt->move;
    struct domain_info info;
    const json_t *drill = json_object_get(msg, "drill");
    int r = check_target_permission(mt->service, peer, drill != NULL, err);

    if (r < 0)
        return r;
    mt->host = calloc(1, sizeof(*mt->host));
    if (!mt->host)
        return error_set(err, -ENOMEM, "receive the VM", NULL, "out of memory");
    if (platform_from_json(json_object_get(msg, "platform"), mt->host) < 0 ||
        domain_info_from_json(json_object_get(msg, "info"), &info) < 0)
        return error_set(err, -EPROTO, "receive the VM", NULL, "its description is malformed");
    if (move_of_domain(mt->service, info.name, info.uuid, m))
        return error_set(err, -EBUSY, "receive the VM", "see `ferry list` there",
                         "another move of %s is not finished at %s", info.name,
                         mt->service->config->name);
    m->info = info;
    m->persistent = json_is_true(json_object_get(msg, "persistent"));
    m->autostart = json_is_true(json_object_get(msg, "autostart"));
    m->right.agreed = mt->service->witness && json_is_true(json_object_get(msg, "witness"));
    mt->sw.witness = m->right.agreed;
    mt->codec_answer = memory_codec_answer(mt->service->config, info.disk_count,
                                           json_object_get(msg, "memory_codec"), &mt->codec);
    mt->disk_codec_answer = disk_codec_answer(mt->service->config, info.disk_count,
                                              json_object_get(msg, "disk_codec"), &mt->disk_codec);
    rpc_opening_from_json(&mt->opening, json_object_get(msg, "rpc_opening"));
    mt->seeds_offered = disk_seeds_offered(json_object_get(msg, "seeds"));
    for (unsigned i = 0; i < info.disk_count; i++)
        m->progress.disk_total += info.disks[i].size_bytes;
    r = target_drill_accept(mt, drill, err);
    return r < 0 ? r : move_paths_of(mt->service->config, m, &mt->paths, err);
}

void move_target_on_prepare(struct service *s, const char *peer, struct link_session *ls,
                            const json_t *msg)
{
    const char *id = json_string_value(json_object_get(msg, "move"));
    struct error err = {0};
    struct move *m;

    if (!id || strlen(id) < 4 || strlen(id) >= JOURNAL_ID_BYTES ||
        strspn(id, "0123456789abcdef") != strlen(id))
        return;
    if (s->stopping || move_new(s, JOURNAL_TARGET, id, peer, &m, &err) < 0 || target_new(m) < 0) {
        if (!err.code)
            error_set(&err, -ESHUTDOWN, "receive the VM", NULL, "the target's ferryd is stopping");
        peering_send(ls, json_pack("{s:s, s:s, s:o}", "type", "refused", "move", id, "error",
                                   error_to_json(&err)));
        return;
    }
    m->target->ls = ls;
    peering_hold(ls);
    if (check_prepare(m->target, peer, msg, &err) < 0) {
        move_target_refuse(m->target, &err);
        return;
    }
    log_info("move %s (%s): from %s, %u disks", m->id, m->info.name, peer, m->info.disk_count);
    m->pending++;
    check_target_look(s, &m->info, m->target->host, on_looked, m->target);
    free(TAKE_PTR(m->target->host));
}

static enum switchover_target_state state_from_name(const char *name)
{
    for (int st = TARGET_RECEIVING; st <= TARGET_PULLING; st++) {
        if (strcmp(name, switchover_target_state_name((enum switchover_target_state)st)) == 0)
            return (enum switchover_target_state)st;
    }
    return TARGET_PREPARED; /* unknown: the state that does nothing by itself */
}

int move_target_recover(struct move *m, const char *state, struct error *err)
{
    if (target_new(m) < 0)
        return error_set(err, -ENOMEM, "recover a move", NULL, "out of memory");
    log_warning("move %s (%s): found unfinished (%s), recovering", m->id, m->info.name, state);
    m->switched |= state_from_name(state) == TARGET_PULLING;
    m->may_postcopy |= m->switched;
    if (state_from_name(state) == TARGET_PULLING)
        move_set_phase(m, MOVE_COMMITTED);
    if (move_paths_of(m->service->config, m, &m->target->paths, NULL) == 0)
        move_paths_remove(&m->target->paths);
    act(m->target, switchover_target_recover(&m->target->sw, state_from_name(state), m->drill,
                                             m->right.agreed && m->service->witness));
    return 0;
}

/* --- events from outside ------------------------------------------------------------------- */

int move_target_resolve(struct move *m, bool run_at_source, struct error *err)
{
    struct move_target *mt = m->target;
    bool missing = mt && (mt->sw.state == TARGET_RESUMING || mt->sw.state == TARGET_PULLING) &&
                   mt->sw.copy_missing;

    if (m->finished || !mt || (mt->sw.state != TARGET_PREPARED && !(missing && run_at_source)))
        return error_set(err, -EBUSY, "resolve the move", "see `ferry show`",
                         "it is not in doubt at this site");
    log_warning("move %s (%s): the operator says: run at the %s", m->id, m->info.name,
                run_at_source ? "source" : "target");
    move_target_step(mt, run_at_source ? TARGET_ON_RESOLVE_SOURCE : TARGET_ON_RESOLVE_TARGET);
    return 0;
}

void move_target_on_message(struct move *m, struct link_session *ls, const char *type,
                            const json_t *msg)
{
    struct move_target *mt = m->target;

    (void)msg;
    if (!mt) { /* finished: the recorded end again, for a source that missed it */
        json_t *end = m->outcome == MOVE_OUTCOME_COMMITTED ? json_pack("{s:s}", "type", "resumed")
                                                           : aborted_word(m);

        json_object_set_new(end, "move", json_string(m->id));
        peering_send(ls, end);
        return;
    }
    if (mt->ls != ls) { /* the source is back, on a new session: answers go there */
        peering_hold(ls);
        if (mt->ls)
            peering_release(mt->ls);
        mt->ls = ls;
    }
    if (strcmp(type, "commit") == 0)
        move_target_step(mt, TARGET_ON_COMMIT);
    else if (strcmp(type, "abort") == 0)
        move_target_step(mt, TARGET_ON_ABORT);
    else if (strcmp(type, "drill") == 0)
        move_target_step(mt, TARGET_ON_DRILL);
    else if (strcmp(type, "unknown-move") == 0)
        log_warning(
            "move %s (%s): %s does not know this move; it stays in doubt until `ferry resolve`",
            m->id, m->info.name, m->peer);
    else
        log_warning("move %s: the peer says '%s', which is not known here", m->id, type);
}

void move_target_on_session_closed(struct move *m, struct link_session *ls, const struct error *why)
{
    struct move_target *mt = m->target;

    if (!mt || mt->ls != ls)
        return;
    mt->ls = NULL;
    if (mt->sw.state == TARGET_RECEIVING || mt->sw.state == TARGET_PREPARING)
        move_set_reason(m, why);
    target_channels_close(mt); /* their streams end with the session */
    if (!m->finished)
        move_target_step(mt, TARGET_ON_LINK_LOST);
}

void move_target_on_stream(struct move *m, const json_t *label, struct stream *stream)
{
    struct move_target *mt = m->target;
    int r = -EPROTO;

    if (mt && mt->sw.state == TARGET_RECEIVING)
        r = target_channels_add(mt, label, stream);
    else if (mt && mt->sw.state == TARGET_PULLING && json_is_true(json_object_get(label, "again")))
        r = target_postcopy_add(mt, json_string_value(json_object_get(label, "channel")), stream);
    if (r < 0)
        stream_release(stream);
}

void move_target_on_stopped(struct move *m)
{
    struct error why = {0};

    if (m->target && m->target->sw.state == TARGET_PULLING)
        target_postcopy_watch(m->target); /* libvirt knows how it ended */
    if (!m->target ||
        (m->target->sw.state != TARGET_PREPARED && m->target->sw.state != TARGET_DRILLING &&
         m->target->sw.state != TARGET_SWITCHED))
        return; /* before, libvirt's connection ends, too; later, resuming it fails */
    error_set(&why, -ESRCH, "keep the prepared copy",
              "see /var/log/libvirt/qemu/ there, and start the move again",
              "its QEMU ended before it could run");
    move_set_reason(m, &why);
    move_target_send(m->target,
                     json_pack("{s:s, s:o}", "type", "failed", "error", error_to_json(&why)));
    move_target_step(m->target, TARGET_ON_COPY_LOST);
}

void move_target_shutdown(struct move *m)
{
    struct error why = {0};

    if (!m->target)
        return;
    error_set(&why, -ESHUTDOWN, "receive the VM", "start the move again",
              "the target's ferryd was stopped");
    if (m->drill)
        move_target_step(m->target, TARGET_ON_ABORT);
    move_target_fail(m->target, &why);
}
