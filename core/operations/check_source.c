/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/check_source.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/move/move.h"
#include "core/move/move_source.h"
#include "core/operations/guest_load.h"
#include "core/virt/platform_json.h"
#include "core/policy/policy_settle.h"
#include "core/move/source_policy.h"

enum {
    CHECKS_MAX = 16, /* remembered, running ones among them */
    TICK_MS = 100,
    ANSWER_S = 20,
    PROBE_S = 3,
    CLOCK_WARN_MS = 1000,
    RECALL_S = 3600,
};

enum check_state {
    CHECK_DESCRIBING,
    CHECK_ASKING,    /* the target */
    CHECK_MEASURING, /* link and guest */
    CHECK_DONE,
};

struct check {
    TAILQ_ENTRY(check) entry;
    struct service *service;
    char id[9];
    char domain[DOMAIN_NAME_BYTES], peer[WIRE_NAME_BYTES];
    enum check_state state;
    unsigned pending;            /* libvirt's answers under way */
    struct virt_description *vm; /* owned; NULL: not described */
    struct link_session *ls;     /* held while set */
    struct check_report report;
    struct policy_choices request;
    struct policy policy;
    uint64_t asked_ns, rtt_us;
    int64_t asked_ms; /* wall clock */
    bool probing;
    struct guest_load load;
    uint64_t done_ns;
    struct prediction_input in;
    struct prediction prediction;
    uv_timer_t tick;
};

/* --- the list ------------------------------------------------------------------------------ */

static void on_tick_closed(uv_handle_t *handle)
{
    struct check *c = handle->data;

    free(c->vm);
    free(c);
}

static void forget(struct check *c)
{
    TAILQ_REMOVE(&c->service->checks, c, entry);
    if (c->ls)
        peering_release(TAKE_PTR(c->ls));
    uv_close((uv_handle_t *)&c->tick, on_tick_closed);
}

static struct check *find(const struct service *s, const char *id)
{
    struct check *c;

    TAILQ_FOREACH(c, &s->checks, entry)
    {
        if (strcmp(c->id, id) == 0)
            return c;
    }
    return NULL;
}

static bool is_busy(const struct check *c)
{
    return c->state != CHECK_DONE || c->pending > 0 || c->load.asking;
}

bool check_any_running(const struct service *s)
{
    struct check *c;

    TAILQ_FOREACH(c, &s->checks, entry)
    {
        if (is_busy(c))
            return true;
    }
    return false;
}

void check_free_all(struct service *s)
{
    struct check *c;

    while ((c = TAILQ_FIRST(&s->checks)))
        forget(c);
}

static void finish(struct check *c)
{
    c->state = CHECK_DONE;
    c->done_ns = clock_now_ns();
    uv_timer_stop(&c->tick);
    if (c->ls)
        peering_release(TAKE_PTR(c->ls));
}

static void fail_and_finish(struct check *c, const char *name, const struct error *why)
{
    check_fail(&c->report, name, why);
    finish(c);
}

/* --- prediction ---------------------------------------------------------------------------- */

static uint64_t limited(uint64_t rate_bytes_s, uint64_t limit_bytes_s)
{
    return limit_bytes_s ? MIN(rate_bytes_s, limit_bytes_s) : rate_bytes_s;
}

void check_fill_input(const struct policy *policy, const struct domain_info *info,
                      uint64_t resident_bytes, struct prediction_input *in)
{
    in->memory_bytes = resident_bytes;
    in->disk_bytes = 0;
    for (unsigned i = 0; i < info->disk_count; i++)
        in->disk_bytes += MIN(info->disks[i].allocated_bytes, info->disks[i].size_bytes);
    in->stun_max_percent = policy_get(policy, POLICY_CONVERGE) == CONVERGE_NONE
                               ? 0
                               : (unsigned)policy_get(policy, POLICY_STUN_MAX_PERCENT);
    in->resend_percent = (unsigned)policy_get(policy, POLICY_RESEND_PERCENT);
    in->downtime_max_ms = (unsigned)policy_get(policy, POLICY_DOWNTIME_MAX_MS);
}

/* What the last move to @peer carried from its copy's start to the guest's stop; 0: there was none lately. */
static uint64_t rate_of_moves(struct service *s, const char *peer)
{
    struct move *m;

    TAILQ_FOREACH_REVERSE(m, &s->moves, move_list, entry)
    {
        uint64_t from_ns = m->phase_ns[MOVE_COPYING], to_ns = m->phase_ns[MOVE_STOPPED];

        if (m->role == JOURNAL_SOURCE && m->finished && strcmp(m->peer, peer) == 0 && from_ns &&
            to_ns > from_ns)
            return (uint64_t)((double)m->progress.link_wire * 1e9 / (double)(to_ns - from_ns));
    }
    return 0;
}

static void take_load(const struct guest_load_figures *load, struct prediction_input *in)
{
    in->dirty_known = load->dirty_known;
    in->dirty_bytes_s = load->dirty_bytes_s;
    in->dirty_long_bytes = load->dirty_long_bytes;
    in->dirty_long_s = GUEST_LOAD_LONG_S;
    in->disk_write_bytes_s = load->disk_write_bytes_s;
}

void check_recall(struct service *s, const char *uuid, const char *peer,
                  struct prediction_input *in)
{
    const struct link_probe_result *probe = link_probe_result(s->probes, peer);
    const struct shaper *shaper = link_limits_shaper(peering_limits(s->peering), peer);
    struct check *c;

    if (probe && probe->sent_bytes_s)
        in->link_bytes_s = probe->sent_bytes_s;
    else
        in->link_bytes_s = rate_of_moves(s, peer);
    in->link_bytes_s = limited(in->link_bytes_s, shaper ? shaper->rate_bytes_s : 0);
    in->compressed = s->config->link.compress;
    TAILQ_FOREACH(c, &s->checks, entry)
    {
        if (c->state != CHECK_DONE || !c->vm || !c->load.figures.dirty_known ||
            strcmp(c->vm->info.uuid, uuid) != 0 ||
            clock_now_ns() - c->done_ns > RECALL_S * NS_PER_S)
            continue;
        take_load(&c->load.figures, in);
    }
}

static void say_convergence(struct check *c)
{
    const struct prediction *p = &c->prediction;
    double dirty_mib_s = (double)c->in.dirty_bytes_s / (1 << 20);
    struct error err;

    switch (p->verdict) {
    case PREDICTION_CONVERGES:
        check_pass(&c->report, "convergence", "its memory converges unaided");
        break;
    case PREDICTION_NEEDS_STUN:
        check_warn(&c->report, "convergence",
                   "move it when it has less to do, or raise the bandwidth limit",
                   "its memory needs a stun of %u %% of its processor time to converge",
                   p->stun_percent);
        break;
    case PREDICTION_CANNOT:
        error_set(&err, -EDQUOT, "move the VM",
                  "move it when it has less to do, raise the bandwidth limit, or allow more: "
                  "its policy's converge, stun_max_percent",
                  "its memory (%.0f MiB/s dirtied) or its disks (%.1f MiB/s written) outrun the "
                  "link, and a stun of %u %% at most does not suffice",
                  dirty_mib_s, (double)c->in.disk_write_bytes_s / (1 << 20),
                  c->in.stun_max_percent);
        check_fail(&c->report, "convergence", &err);
        break;
    case PREDICTION_UNKNOWN:
        check_warn(&c->report, "convergence", NULL,
                   "cannot be told: the guest's dirty rate is not known");
        break;
    }
}

static void predict(struct check *c)
{
    const struct prediction *p = &c->prediction;
    const struct guest_load_figures *load = &c->load.figures;

    check_fill_input(&c->policy, &c->vm->info, c->vm->resident_bytes, &c->in);
    check_recall(c->service, c->vm->info.uuid, c->peer, &c->in);
    take_load(load, &c->in); /* as measured now */
    c->in.rtt_us = c->rtt_us;
    prediction_make(&c->in, &c->prediction);
    check_pass(&c->report, "load", "dirties %.0f MiB/s of memory, writes %.1f MiB/s to its disks",
               (double)load->dirty_bytes_s / (1 << 20),
               (double)load->disk_write_bytes_s / (1 << 20));
    say_convergence(c);
    if (p->known)
        check_pass(&c->report, "prediction", "%.0f s, downtime %llu ms, %llu MiB on the link",
                   (double)p->total_ms / 1000, (unsigned long long)p->downtime_ms,
                   (unsigned long long)p->bytes >> 20);
}

/* --- measuring ----------------------------------------------------------------------------- */

static void measure(struct check *c)
{
    struct error err = {0};

    c->state = CHECK_MEASURING;
    c->probing = link_probe_start(c->service->probes, c->peer, PROBE_S, LINK_PROBE_THERE_AND_BACK,
                                  &err) == 0;
    if (!c->probing)
        check_warn(&c->report, "link", err.mend, "cannot be probed: %s", err.why);
    guest_load_start(&c->load, c->service->virt, c->vm->info.uuid);
}

static void follow_probe(struct check *c)
{
    const struct link_probe_result *probe = link_probe_result(c->service->probes, c->peer);
    struct link_session_info info;

    if (!c->probing || (probe && !probe->done))
        return;
    c->probing = false;
    link_session_get_info(c->ls, &info);
    if (info.stats.rtt_min_ns)
        c->rtt_us = info.stats.rtt_min_ns / 1000;
    if (!probe || probe->err.code)
        check_warn(&c->report, "link", NULL, "the probe failed: %s",
                   probe ? probe->err.why : "another one took its place");
    else
        check_pass(&c->report, "link", "carries %.4g Mbit/s there, %.4g back; round trip %.1f ms",
                   (double)probe->sent_bytes_s * 8 / 1e6, (double)probe->received_bytes_s * 8 / 1e6,
                   (double)c->rtt_us / 1000);
}

static void on_tick(uv_timer_t *timer)
{
    struct check *c = timer->data;
    uint64_t now_ns = clock_now_ns();
    struct error err;

    if (c->state == CHECK_ASKING && now_ns - c->asked_ns > ANSWER_S * NS_PER_S) {
        error_set(&err, -ETIMEDOUT, "ask the target", "does it run this release of ferry?",
                  "%s does not answer", c->peer);
        fail_and_finish(c, "peer", &err);
    }
    if (c->state != CHECK_MEASURING)
        return;
    follow_probe(c);
    if (!guest_load_goes_on(&c->load) && !c->probing) {
        predict(c);
        finish(c);
    }
}

/* --- the target's answer ------------------------------------------------------------------- */

static void compare_clocks(struct check *c, const json_t *msg)
{
    int64_t there_ms = json_integer_value(json_object_get(msg, "now_ms"));
    int64_t off_ms = there_ms - (c->asked_ms + clock_wall_ms()) / 2;
    int64_t unsure_ms = (int64_t)((clock_now_ns() - c->asked_ns) / NS_PER_MS / 2);

    if (llabs(off_ms) > unsure_ms + CLOCK_WARN_MS)
        check_warn(&c->report, "clock", "set both hosts' clocks (NTP)",
                   "%s's clock is %.1f s off: the guest's may jump, certificates may not count",
                   c->peer, (double)off_ms / 1000);
    else
        check_pass(&c->report, "clock", "agrees with %s's", c->peer);
}

static void compare_witnesses(struct check *c, const json_t *msg)
{
    static const char MEND[] =
        "configure the same [witness] at both sites, and see that it answers";
    bool here = c->service->witness != NULL, there = json_is_true(json_object_get(msg, "witness"));

    if (here != there)
        check_warn(&c->report, "witness", MEND, "only %s has one: moves go without",
                   here ? "this site" : c->peer);
    else if (here && witness_stats(c->service->witness).unanswered > 0 &&
             !witness_stats(c->service->witness).reachable)
        check_warn(&c->report, "witness", MEND, "did not answer when it was last asked");
    else
        check_pass(&c->report, "witness", "%s",
                   here ? "both sites have one" : "none: a doubt is ended by `ferry resolve`");
}

/* What the policy wants and cannot have between these two hosts. */
static void describe_policy(struct check *c, const json_t *msg)
{
    char post_copy[160];
    struct policy_facts facts = {.monitor = c->service->config->monitor,
                                 .codec = c->service->config->codec,
                                 .encrypted = source_policy_encrypted(c->service, c->peer, msg),
                                 .no_post_copy =
                                     source_policy_no_post_copy(msg, post_copy, sizeof(post_copy)),
                                 .no_zero_copy = source_policy_no_zero_copy(c->service, c->vm)};
    char by[2 * POLICY_NAME_BYTES], wanted[POLICY_TEXT_BYTES], taken[POLICY_TEXT_BYTES];

    policy_settle(&c->policy, &facts);
    check_pass(&c->report, "policy", "%s (%s)", c->policy.name,
               policy_chosen_by(&c->policy, by, sizeof(by)));
    if (policy_may_post_copy(&c->policy))
        check_pass(&c->report, "post-copy",
                   "can be used; while pages are outstanding the loss of either site loses the VM");
    else
        check_pass(&c->report, "post-copy", "not by this policy%s%s",
                   facts.no_post_copy ? "; " : "", facts.no_post_copy ? facts.no_post_copy : "");
    for (unsigned i = 0; i < c->policy.substitution_count; i++) {
        const struct policy_substitution *sub = &c->policy.substitutions[i];

        check_warn(&c->report, "policy", NULL, "%s %s instead of %s: %s",
                   policy_setting_name(sub->setting),
                   policy_setting_format(sub->setting, sub->taken, taken, sizeof(taken)),
                   policy_setting_format(sub->setting, sub->wanted, wanted, sizeof(wanted)),
                   sub->why);
    }
}

void check_source_on_message(struct service *s, const char *peer, struct link_session *ls,
                             const json_t *msg)
{
    const char *id = json_string_value(json_object_get(msg, "check"));
    struct check *c = id ? find(s, id) : NULL;
    struct check_report there;
    struct error first;

    if (!c || strcmp(c->peer, peer) != 0 || c->state != CHECK_ASKING || c->ls != ls)
        return;
    check_report_from_json(json_object_get(msg, "lines"), &there);
    check_append(&c->report, &there, peer);
    compare_clocks(c, msg);
    compare_witnesses(c, msg);
    describe_policy(c, msg);
    if (check_first_failure(&c->report, &first))
        finish(c); /* what was found is mended first */
    else
        measure(c);
}

void check_source_on_session_closed(struct service *s, struct link_session *ls,
                                    const struct error *why)
{
    struct check *c;

    TAILQ_FOREACH(c, &s->checks, entry)
    {
        struct error lost = *why;

        if (c->ls != ls)
            continue;
        c->ls = NULL;
        fail_and_finish(c, "peer", &lost);
    }
}

/* --- the VM, and what is so here ----------------------------------------------------------- */

static void describe_vm(struct check *c)
{
    const struct virt_description *d = c->vm;
    uint64_t bytes = 0;

    for (unsigned i = 0; i < d->info.disk_count; i++)
        bytes += d->info.disks[i].allocated_bytes;
    check_append(&c->report, &d->report, NULL);
    check_pass_unless_said(&c->report, "vm", "%s runs, %llu MiB of memory", d->info.name,
                           (unsigned long long)d->memory_bytes >> 20);
    check_pass_unless_said(&c->report, "disks", "%u, which hold %llu MiB", d->info.disk_count,
                           (unsigned long long)bytes >> 20);
    check_pass_unless_said(&c->report, "devices", "none that ties it to this host");
    check_pass(&c->report, "autostart", "%s",
               !d->persistent ? "it is transient: it will be there, too"
               : d->autostart ? "it starts with its host, and will there"
                              : "it does not start with its host");
}

static void ask_target(struct check *c, const struct config_peer *peer)
{
    struct error err;

    if (peering_dial(c->service->peering, c->peer, &c->ls, &err) < 0) {
        c->ls = NULL;
        fail_and_finish(c, "peer", &err);
        return;
    }
    domain_platform_translate(&c->vm->platform, &peer->networks);
    c->state = CHECK_ASKING;
    c->asked_ns = clock_now_ns();
    c->asked_ms = clock_wall_ms();
    peering_send(c->ls,
                 json_pack("{s:s, s:s, s:o, s:o}", "type", "check", "check", c->id, "info",
                           domain_info_to_json(&c->vm->info), "platform", platform_to_json(c->vm)));
}

static void on_described(void *user, const struct error *err, const struct virt_description *d)
{
    struct check *c = user;
    const struct config_peer *peer;
    struct error why = *err;

    c->pending--;
    if (err->code) {
        fail_and_finish(c, "vm", err);
        return;
    }
    c->vm = malloc(sizeof(*d));
    if (!c->vm)
        abort(); /* see virt_call_new() */
    *c->vm = *d;
    describe_vm(c);
    if (move_domain_is_free(c->service, d->info.name, d->info.uuid, NULL, &why) < 0)
        check_fail(&c->report, "jobs", &why);
    if (policy_resolve(&c->service->config->policies, d->info.name, &d->choices, &c->request,
                       &c->policy, &why) < 0)
        fail_and_finish(c, "policy", &why);
    else if (move_source_may_use(c->service, c->peer, false, &peer, &why) < 0)
        fail_and_finish(c, peer ? "permission" : "peer", &why);
    else
        ask_target(c, peer);
}

int check_start(struct service *s, const char *domain, const char *peer,
                const struct policy_choices *request, const char **ret_id, struct error *err)
{
    struct check *c = calloc(1, sizeof(*c)), *old;
    unsigned count = 0;
    uint32_t id = 0;

    if (!c)
        return error_set(err, -ENOMEM, "check", NULL, "out of memory");
    TAILQ_FOREACH(old, &s->checks, entry)
    count++;
    old = TAILQ_FIRST(&s->checks);
    if (count >= CHECKS_MAX && is_busy(old)) {
        free(c);
        return error_set(err, -EBUSY, "check", "wait for one to end", "%u checks run already",
                         count);
    }
    if (count >= CHECKS_MAX)
        forget(old);
    do {
        if (getrandom(&id, sizeof(id), 0) < 0)
            id++;
        snprintf(c->id, sizeof(c->id), "%08x", id);
    } while (find(s, c->id));
    c->service = s;
    c->request = *request;
    snprintf(c->domain, sizeof(c->domain), "%s", domain);
    snprintf(c->peer, sizeof(c->peer), "%s", peer);
    TAILQ_INSERT_TAIL(&s->checks, c, entry);
    uv_timer_init(s->loop, &c->tick);
    c->tick.data = c;
    uv_timer_start(&c->tick, on_tick, TICK_MS, TICK_MS);
    *ret_id = c->id;
    /* libvirt would not answer questions about a copy that is being received. */
    if (move_domain_is_free(s, domain, domain, NULL, err) < 0) {
        fail_and_finish(c, "jobs", err);
        return 0;
    }
    c->pending++;
    virt_describe(s->virt, domain, on_described, c);
    return 0;
}

json_t *check_to_json(struct service *s, const char *id)
{
    struct check *c = find(s, id);
    struct error first;

    if (!c)
        return NULL;
    return json_pack("{s:s, s:s, s:s, s:b, s:b, s:o, s:o}", "id", c->id, "domain", c->domain, "to",
                     c->peer, "done", c->state == CHECK_DONE, "failed",
                     check_first_failure(&c->report, &first), "lines",
                     check_report_to_json(&c->report), "prediction",
                     c->prediction.known ? prediction_to_json(&c->prediction) : json_null());
}
