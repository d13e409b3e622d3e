/* SPDX-License-Identifier: Apache-2.0 */
/* What a move at the source hears from its target, as events of the commit protocol; and the downtime, which
 * is known once the target says that it runs. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/operations/check_source.h"
#include "core/json_text.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"

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

/* What the target says of its spans is as good as its clock; nothing but the report depends on it. */
static void split_downtime(struct move_source *ms, const json_t *msg)
{
    static const json_int_t hour_us = INT64_C(3600) * 1000 * 1000;
    const json_t *said = json_object_get(msg, "spans_us");
    json_int_t flush = json_integer_value(json_object_get(said, "flush"));
    json_int_t load = json_integer_value(json_object_get(said, "load"));
    json_int_t resume = json_integer_value(json_object_get(said, "resume"));
    struct downtime_spans spans = {(uint64_t)flush, (uint64_t)load, (uint64_t)resume};
    struct move *m = ms->move;

    if (!said || flush < 0 || load < 0 || resume < 0 || MAX(flush, MAX(load, resume)) > hour_us)
        return;
    ms->marks.stopped_ns = m->phase_ns[MOVE_STOPPED];
    ms->marks.resumed_word_ns = clock_now_ns();
    m->downtime_known = downtime_split(&ms->marks, &spans, m->progress.rtt_us, &m->downtime);
}

static void on_target_resumed(struct move_source *ms, const json_t *msg)
{
    struct move *m = ms->move;

    if (m->phase_ns[MOVE_STOPPED] && m->downtime_ms < 0) {
        uint64_t one_way_ns =
            m->progress.rtt_us * 1000 / 2; /* the word took that long to come here */
        uint64_t span_ns = clock_now_ns() - m->phase_ns[MOVE_STOPPED];

        m->downtime_ms = (int64_t)((span_ns - MIN(one_way_ns, span_ns)) / NS_PER_MS);
        split_downtime(ms, msg);
    }
    move_set_phase(m, MOVE_RESUMED);
    move_source_step(ms, SOURCE_ON_TARGET_RESUMED);
}

/* From what is known already: nothing is measured for it. */
static void predict(struct move_source *ms)
{
    struct move *m = ms->move;
    struct link_session_info info;
    struct prediction_input in = {0};

    link_session_get_info(ms->ls, &info);
    check_fill_input(&m->policy, &m->info, m->resident_bytes, &in);
    check_recall(ms->service, m->info.uuid, m->peer, &in);
    if (m->shaper.rate_bytes_s)
        in.link_bytes_s = MIN(in.link_bytes_s, m->shaper.rate_bytes_s);
    in.rtt_us = info.stats.rtt_min_ns / 1000;
    prediction_make(&in, &m->prediction);
}

/* The target's terms of a drill: where its clone may hang. */
static int take_drill_terms(struct move_source *ms, const json_t *msg, struct error *err)
{
    struct drill *d = &ms->move->rehearsal;

    if (json_text_take(json_object_get(msg, "drill"), "network", JSON_TEXT_OPTIONAL, d->network,
                       sizeof(d->network)) < 0)
        return error_set(err, -ENOTSUP, "start the drill", "install this release of ferry there",
                         "%s knows no drills", ms->move->peer);
    snprintf(ms->rewrite.drill_network, sizeof(ms->rewrite.drill_network), "%s", d->network);
    snprintf(ms->rewrite.move_id, sizeof(ms->rewrite.move_id), "%s", ms->move->id);
    ms->rewrite.drill = ms->rewritten = true;
    return 0;
}

/* The clone's end, said twice. Wishes and terms stay what they were here. */
static void on_drilled(struct move_source *ms, const json_t *msg)
{
    struct drill *d = &ms->move->rehearsal, said;

    if (!ms->move->drill || drill_from_json(json_object_get(msg, "drill"), &said) < 0)
        return;
    d->verdict = said.verdict;
    d->exit_status = said.exit_status;
    memcpy(d->agent, said.agent, sizeof(d->agent));
    memcpy(d->output, said.output, sizeof(d->output));
    memcpy(d->why, said.why, sizeof(d->why));
}

static void on_ready(struct move_source *ms, const json_t *msg)
{
    struct error err = {0};

    if (ms->sw.state != SOURCE_MOVING || ms->migrating || ms->channels_open)
        return;
    if (policy_get(&ms->move->policy, POLICY_COMPRESSION) == COMPRESSION_FERRY)
        memory_codec_agree(ms->service->config, ms->move->progress.memory_total,
                           ms->move->info.disk_count, json_object_get(msg, "memory_codec"),
                           &ms->codec);
    rpc_opening_take_replies(&ms->opening, json_object_get(msg, "rpc_opening"));
    disk_codec_agree(ms->service->config, ms->move->info.disk_count,
                     json_object_get(msg, "disk_codec"), &ms->disk_codec);
    for (unsigned i = 0; i < ms->move->info.disk_count; i++)
        ms->seeded[i] =
            disk_seeds_have(json_object_get(msg, "seeds"), ms->move->info.disks[i].alias);
    source_right_agree(ms, msg);
    source_policy_settle(ms, msg);
    source_care_begin(ms);
    predict(ms);
    if (ms->move->drill && take_drill_terms(ms, msg, &err) < 0) {
        move_source_fail(ms, &err);
        return;
    }
    if (source_channels_open(ms, &err) < 0)
        move_source_fail(ms, &err);
}

/* In post-copy the source decides by this word; it is believed when QEMU's stream here has shown the same. */
static void on_target_prepared(struct move_source *ms, const json_t *msg)
{
    move_set_phase(ms->move, MOVE_PREPARED);
    if (json_is_true(json_object_get(msg, "switched")) && ms->move->switched) {
        ms->prepared_waits = ms->sw.state == SOURCE_MOVING;
        source_channels_finish(ms);
    } else {
        move_source_step(ms, SOURCE_ON_TARGET_PREPARED);
    }
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
        move_source_refuse(ms, &why);
    } else if (strcmp(type, "failed") == 0) {
        on_target_failed(ms, msg);
    } else if (strcmp(type, "drilled") == 0) {
        on_drilled(ms, msg);
        failpoint("after-drilled");
    } else if (strcmp(type, "prepared") == 0) {
        on_target_prepared(ms, msg);
    } else if (strcmp(type, "pulls") == 0) {
        source_postcopy_pulls(ms, msg);
    } else if (strcmp(type, "resumed") == 0) {
        on_target_resumed(ms, msg);
    } else if (strcmp(type, "aborted") == 0) {
        on_drilled(ms, msg);
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
