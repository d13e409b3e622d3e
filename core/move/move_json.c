/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Moves as JSON: the view that the control API gives, the journal's document, what crosses to the peer.
 *
 * The view of a move, running or past, is one object; docs/json.md lists its members.
 */
#include "core/move/move.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/move/eta.h"
#include "core/json_text.h"
#include "core/move/memory_codec.h"
#include "core/policy/policy_json.h"

/* --- small values -------------------------------------------------------------------------- */

json_t *error_to_json(const struct error *e)
{
    return json_pack("{s:i, s:s, s:s, s:s}", "code", e->code, "what", e->what, "why", e->why,
                     "mend", e->mend);
}

void error_from_json(const json_t *json, struct error *ret)
{
    json_int_t code = json_integer_value(json_object_get(json, "code"));

    memset(ret, 0, sizeof(*ret));
    ret->code = code < 0 && code > -4096 ? (int)code : -EIO;
    json_text_show(json, "what", JSON_TEXT_LINE, ret->what, sizeof(ret->what));
    json_text_show(json, "why", JSON_TEXT_LINE, ret->why, sizeof(ret->why));
    json_text_show(json, "mend", JSON_TEXT_LINE, ret->mend, sizeof(ret->mend));
}

json_t *domain_info_to_json(const struct domain_info *info)
{
    json_t *disks = json_array();

    for (unsigned i = 0; i < info->disk_count; i++) {
        const struct domain_disk *d = &info->disks[i];

        json_array_append_new(disks, json_pack("{s:s, s:s, s:s, s:s, s:I, s:I}", "target",
                                               d->target, "alias", d->alias, "path", d->path,
                                               "format", disk_format_name(d->format), "size",
                                               (json_int_t)d->size_bytes, "allocated",
                                               (json_int_t)d->allocated_bytes));
    }
    return json_pack("{s:s, s:s, s:o}", "name", info->name, "uuid", info->uuid, "disks", disks);
}

static int disk_from_json(const json_t *json, struct domain_disk *d)
{
    json_int_t size = json_integer_value(json_object_get(json, "size"));
    json_int_t allocated = json_integer_value(json_object_get(json, "allocated"));
    char format[16];

    if (json_text_take(json, "target", JSON_TEXT_LINE, d->target, sizeof(d->target)) < 0 ||
        json_text_take(json, "alias", JSON_TEXT_LINE, d->alias, sizeof(d->alias)) < 0 ||
        json_text_take(json, "path", JSON_TEXT_LINE, d->path, sizeof(d->path)) < 0 ||
        json_text_take(json, "format", JSON_TEXT_LINE, format, sizeof(format)) < 0 ||
        disk_format_parse(format, &d->format) < 0)
        return -EPROTO;
    if (size <= 0 || size > (json_int_t)1 << 50 || allocated < 0 || strchr(d->alias, '/'))
        return -EPROTO;
    d->size_bytes = (uint64_t)size;
    d->allocated_bytes = (uint64_t)allocated;
    return 0;
}

int domain_info_from_json(const json_t *json, struct domain_info *ret)
{
    const json_t *disks = json_object_get(json, "disks");
    struct domain_info info = {0};

    if (json_text_take(json, "name", JSON_TEXT_LINE, info.name, sizeof(info.name)) < 0 ||
        json_text_take(json, "uuid", JSON_TEXT_LINE, info.uuid, sizeof(info.uuid)) < 0 ||
        strlen(info.uuid) != 36 || strchr(info.name, '/') || !json_is_array(disks) ||
        json_array_size(disks) > LIMIT_DISKS_PER_MOVE)
        return -EPROTO;
    for (size_t i = 0; i < json_array_size(disks); i++) {
        if (disk_from_json(json_array_get(disks, i), &info.disks[i]) < 0)
            return -EPROTO;
        for (size_t k = 0; k < i; k++) {
            if (strcmp(info.disks[k].alias, info.disks[i].alias) == 0 ||
                strcmp(info.disks[k].path, info.disks[i].path) == 0)
                return -EPROTO;
        }
        info.disk_count++;
    }
    *ret = info;
    return 0;
}

/* --- the view ------------------------------------------------------------------------------ */

static json_int_t span_ms(uint64_t from_ns, uint64_t to_ns)
{
    return from_ns && to_ns > from_ns ? (json_int_t)((to_ns - from_ns) / NS_PER_MS) : 0;
}

static json_t *phases_to_json(const struct move *m)
{
    json_t *phases = json_object();

    for (int p = 0; p < MOVE_PHASES; p++) {
        if (m->phase_ns[p])
            json_object_set_new(phases, move_phase_name((enum move_phase)p),
                                json_integer(span_ms(m->phase_ns[MOVE_PREPARING], m->phase_ns[p])));
    }
    return phases;
}

/* Seconds left; -1 = cannot tell. */
static json_int_t eta_s(const struct move *m)
{
    const struct move_progress *p = &m->progress;
    uint64_t over_ms = (clock_now_ns() - m->phase_ns[MOVE_PREPARING]) / NS_PER_MS;
    struct eta_input in = {
        .held = m->held,
        .memory_now = m->phase >= MOVE_MEMORY,
        .disk_done_bytes = p->disk_done,
        .disk_total_bytes = p->disk_total,
        .log_bytes = p->log_fill,
        .memory_left_bytes = m->phase >= MOVE_MEMORY ? p->memory_remaining
                             : m->resident_bytes     ? m->resident_bytes
                                                     : p->memory_total,
        .dirty_bytes_s = p->dirty_rate,
        .payload_bytes_s = p->payload_rate,
        .rtt_us = p->rtt_us,
    };

    if (m->phase >= MOVE_STOPPED || m->finished)
        return 0;
    if (m->phase == MOVE_PREPARING) /* nothing is seen yet but what was expected */
        return m->prediction.known
                   ? (json_int_t)((m->prediction.total_ms - MIN(m->prediction.total_ms, over_ms)) /
                                  1000)
                   : -1;
    for (unsigned i = 0; i < m->info.disk_count; i++)
        in.disk_data_bytes += m->info.disks[i].allocated_bytes;
    return eta_ms(&in) < 0 ? -1 : (json_int_t)(eta_ms(&in) / 1000);
}

static json_t *stun_to_json(const struct stun_report *s)
{
    double mean = s->stunned_ns ? s->level_ns / (double)s->stunned_ns : 0;

    return json_pack(
        "{s:s, s:s, s:f, s:f, s:f, s:I, s:I, s:I, s:I}", "actuator",
        stun_actuator_name(s->actuator ? s->actuator : STUN_ACTUATOR_NONE), "verdict",
        s->verdict ? s->verdict : stun_verdict_name(STUN_UNKNOWN), "percent",
        (double)s->level * 100 / STUN_WHOLE, "max_percent", (double)s->max_level * 100 / STUN_WHOLE,
        "mean_percent", mean * 100, "total_ms", (json_int_t)(s->stunned_ns / NS_PER_MS),
        "cpu_taken_ms", (json_int_t)(s->cpu_taken_ns / (double)NS_PER_MS), "natural_bytes_per_s",
        (json_int_t)s->dirty_before_bytes_s, "dirty_bytes_per_s", (json_int_t)s->dirty_bytes_s);
}

/* {"link": ms, ...} of the reasons there were. */
static json_t *slowed_to_json(const uint64_t ms[CONGESTION_REASONS])
{
    json_t *slowed = json_object();

    for (int r = CONGESTION_NONE + 1; r < CONGESTION_REASONS; r++) {
        if (ms[r])
            json_object_set_new(slowed, congestion_reason_name((enum congestion_reason)r),
                                json_integer((json_int_t)ms[r]));
    }
    return slowed;
}

static void add_measurements(const struct move *m, json_t *view)
{
    const struct move_progress *p = &m->progress;
    uint64_t copied_ns =
        m->phase_ns[MOVE_MEMORY] ? m->phase_ns[MOVE_MEMORY] : m->phase_ns[MOVE_STOPPED];

    json_object_set_new(
        view, "disk",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:s, s:I, s:s, s:I, s:I, s:o, s:o}",
                  "bytes", (json_int_t)p->disk_payload, "wire_bytes", (json_int_t)p->disk_wire,
                  "copied_ms", span_ms(m->phase_ns[MOVE_COPYING], copied_ns), "total_bytes",
                  (json_int_t)p->disk_total, "done_bytes", (json_int_t)p->disk_done, "log_bytes",
                  (json_int_t)p->log_fill, "log_peak_bytes", (json_int_t)p->log_peak,
                  "speed_limit_bytes_per_s", (json_int_t)p->bulk_speed, "speed_limit_reason",
                  p->bulk_reason ? p->bulk_reason : "none", "guest_limit_bytes_per_s",
                  (json_int_t)p->guest_speed, "guest_limit_reason",
                  p->guest_reason ? p->guest_reason : "none", "spool_bytes", (json_int_t)p->spooled,
                  "spooled_bytes", (json_int_t)p->spooled_ever, "copy_slowed_ms",
                  slowed_to_json(p->copy_slowed_ms), "guest_slowed_ms",
                  slowed_to_json(p->guest_slowed_ms)));
    json_object_set_new(json_object_get(view, "disk"), "seed_bytes",
                        json_integer((json_int_t)p->disk_seed));
    if (p->disk_pack_level)
        json_object_set_new(json_object_get(view, "disk"), "codec",
                            json_pack("{s:i, s:f}", "level", p->disk_pack_level, "cpu_seconds",
                                      (double)p->disk_pack_cpu_ns / 1e9));
    if (m->verify)
        json_object_set_new(view, "verify",
                            json_pack("{s:I, s:I}", "checked_bytes", (json_int_t)p->checked,
                                      "unchecked_bytes", (json_int_t)p->unchecked));
    json_object_set_new(
        view, "memory",
        json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "bytes", (json_int_t)p->memory_stream,
                  "wire_bytes", (json_int_t)p->memory_wire, "iterations", (json_int_t)p->iterations,
                  "total_bytes", (json_int_t)p->memory_total, "remaining_bytes",
                  (json_int_t)p->memory_remaining, "dirty_bytes_per_s", (json_int_t)p->dirty_rate));
    if (p->memory_codec)
        json_object_set_new(json_object_get(view, "memory"), "codec",
                            memory_codec_to_json(&p->codec, m->role == JOURNAL_SOURCE));
    json_object_set_new(view, "link",
                        json_pack("{s:f, s:I, s:i, s:I}", "rtt_ms", (double)p->rtt_us / 1000.0,
                                  "wire_bytes", (json_int_t)p->link_wire, "outages",
                                  (int)p->outages, "bytes_per_s", (json_int_t)p->rate));
    json_object_set_new(view, "stun", stun_to_json(&m->stun));
    json_object_set_new(view, "guest_write_latency_us",
                        json_pack("{s:I, s:I, s:I, s:I}", "p50", (json_int_t)p->latency_p50_us,
                                  "p99", (json_int_t)p->latency_p99_us, "max",
                                  (json_int_t)p->latency_max_us, "count",
                                  (json_int_t)p->guest_writes));
}

static json_t *downtime_to_json(const struct downtime_parts *d)
{
    return json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f}", "stop", (double)d->stop_us / 1000,
                     "tail", (double)d->tail_us / 1000, "flush", (double)d->flush_us / 1000, "load",
                     (double)d->load_us / 1000, "reply", (double)d->reply_us / 1000, "commit",
                     (double)d->commit_us / 1000, "resume", (double)d->resume_us / 1000);
}

/* Between the decision and the last page the VM is in two places at once, and that is said. */
static json_t *postcopy_to_json(const struct move *m)
{
    bool outstanding = move_is_outstanding(m);
    const char *note =
        outstanding
            ? "not atomic now: pages are outstanding, and the loss of either site loses the VM"
        : m->switched && m->phase >= MOVE_RESUMED ? "all pages arrived"
                                                  : "";

    return json_pack("{s:b, s:b, s:b, s:I, s:i, s:s}", "switched", m->switched, "outstanding",
                     outstanding, "atomic", !m->switched, "outstanding_ms",
                     span_ms(m->phase_ns[MOVE_POSTCOPY], m->phase_ns[MOVE_RESUMED]
                                                             ? m->phase_ns[MOVE_RESUMED]
                                                             : clock_now_ns()),
                     "recoveries", (int)m->recoveries, "note", note);
}

json_t *move_to_json(struct move *m)
{
    const char *here = m->service->config->name;
    uint64_t until = m->ended_ns ? m->ended_ns : clock_now_ns();
    bool source = m->role == JOURNAL_SOURCE;
    json_t *view;

    if (m->past)
        return json_incref(m->past);
    view = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b, s:b, s:I, s:I, s:I, s:o, s:I}",
                     "id", m->id, "domain", m->info.name, "uuid", m->info.uuid, "from",
                     source ? here : m->peer, "to", source ? m->peer : here, "role",
                     source ? "source" : "target", "phase", move_phase_name(m->phase), "outcome",
                     move_outcome_name(m->outcome), "finished", m->finished, "refused", m->refused,
                     "started_ms", (json_int_t)m->created_ms, "total_ms",
                     span_ms(m->phase_ns[MOVE_PREPARING], until), "downtime_ms",
                     (json_int_t)m->downtime_ms, "phases_ms", phases_to_json(m), "eta_s", eta_s(m));
    if (m->downtime_known)
        json_object_set_new(view, "downtime_parts_ms", downtime_to_json(&m->downtime));
    json_object_set_new(view, "held", json_boolean(m->held));
    if (m->policy.name[0]) {
        json_object_set_new(view, "policy", policy_to_json(&m->policy));
        json_object_set_new(view, "time_limit_reached", json_boolean(m->time_limit_reached));
    }
    if (m->may_postcopy)
        json_object_set_new(view, "postcopy", postcopy_to_json(m));
    if (m->drill)
        json_object_set_new(view, "drill", drill_to_json(&m->rehearsal));
    if (m->right.agreed)
        json_object_set_new(view, "witness", move_right_to_json(m));
    if (m->switchover_at_ms)
        json_object_set_new(view, "switchover_at_ms", json_integer(m->switchover_at_ms));
    if (error_is_set(&m->reason)) {
        char line[1024];

        json_object_set_new(view, "reason",
                            json_string(error_line(&m->reason, line, sizeof(line))));
        json_object_set_new(view, "error", error_to_json(&m->reason));
    } else {
        json_object_set_new(view, "reason", json_string(""));
    }
    if (move_is_troubled(m)) {
        char line[1024];

        json_object_set_new(view, "trouble",
                            json_string(error_line(&m->trouble, line, sizeof(line))));
    }
    if (m->prediction.known)
        json_object_set_new(view, "prediction", prediction_to_json(&m->prediction));
    add_measurements(m, view);
    return view;
}

/* --- the journal's document ---------------------------------------------------------------- */

json_t *move_to_document(struct move *m)
{
    json_t *document =
        json_pack("{s:s, s:o, s:b, s:b, s:b, s:s, s:s, s:o}", "peer", m->peer, "info",
                  domain_info_to_json(&m->info), "persistent", m->persistent, "autostart",
                  m->autostart, "witness", m->right.agreed, "boot_id", m->boot_id, "outcome",
                  move_outcome_name(m->outcome), "view", move_to_json(m));

    if (m->may_postcopy)
        json_object_set_new(document, "switched", json_boolean(m->switched));
    if (m->drill)
        json_object_set_new(document, "drill", drill_to_json(&m->rehearsal));
    if (m->stun_undo && !m->finished)
        json_object_set(document, "stun_undo", m->stun_undo);
    return document;
}

static enum move_outcome outcome_from_name(const char *name)
{
    for (int o = MOVE_RUNNING; o <= MOVE_OUTCOME_DRILLED; o++) {
        if (name && strcmp(name, move_outcome_name((enum move_outcome)o)) == 0)
            return (enum move_outcome)o;
    }
    return MOVE_RUNNING;
}

int move_from_document(struct move *m, const char *text, struct error *err)
{
    json_t *document = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    const json_t *info = json_object_get(document, "info");
    int r = json_text_take(document, "peer", JSON_TEXT_LINE, m->peer, sizeof(m->peer));

    if (r == 0 && m->finished) /* history: a move refused early may know little of its VM */
        json_text_show(info, "name", JSON_TEXT_LINE, m->info.name, sizeof(m->info.name));
    else if (r == 0)
        r = domain_info_from_json(info, &m->info);
    if (r == 0) {
        m->persistent = json_is_true(json_object_get(document, "persistent"));
        m->autostart = json_is_true(json_object_get(document, "autostart"));
        json_text_show(document, "boot_id", JSON_TEXT_LINE, m->boot_id, sizeof(m->boot_id));
        m->right.agreed = json_is_true(json_object_get(document, "witness"));
        m->may_postcopy = json_object_get(document, "switched") != NULL;
        m->switched = json_is_true(json_object_get(document, "switched"));
        m->outcome = outcome_from_name(json_string_value(json_object_get(document, "outcome")));
        m->past = json_incref(json_object_get(document, "view"));
        m->drill = drill_from_json(json_object_get(document, "drill"), &m->rehearsal) == 0;
        m->stun_undo = json_incref(json_object_get(document, "stun_undo"));
    } else {
        error_set(
            err, r, "read the journal",
            "restore the file; or move it away after you have seen with `virsh list --all` on both "
            "sites that no move is half-done",
            "the record of move %s is malformed", m->id);
    }
    json_decref(document);
    return r;
}
