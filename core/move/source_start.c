/* SPDX-License-Identifier: Apache-2.0 */
/* How a move starts at the source: the VM described, the order checked, the peer called, the record, PREPARE. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"
#include "core/virt/platform_json.h"
#include "core/move/source_policy.h"

void move_source_prepare(struct move_source *ms, const struct error *err)
{
    struct move *m = ms->move;

    if (ms->sw.state != SOURCE_MOVING || !ms->ls)
        return;
    if (err->code) {
        move_source_refuse(ms, err);
        return;
    }
    ms->prepare_sent = true;
    ms->opening = ms->service->rpc_opening;
    peering_send(ms->ls,
                 json_pack("{s:s, s:s, s:o, s:o*, s:o*, s:b, s:b, s:b, s:o*, s:o*, s:o, s:o*}",
                           "type", "prepare", "move", m->id, "info", domain_info_to_json(&m->info),
                           "platform", TAKE_PTR(ms->platform), "drill",
                           m->drill ? drill_to_json(&m->rehearsal) : NULL, "persistent",
                           m->persistent, "autostart", m->autostart, "witness", m->right.agreed,
                           "memory_codec",
                           policy_get(&m->policy, POLICY_COMPRESSION) == COMPRESSION_FERRY
                               ? memory_codec_offer(ms->service->config, m->progress.memory_total,
                                                    m->info.disk_count)
                               : NULL,
                           "disk_codec",
                           disk_codec_offer(ms->service->config, m->info.disk_count,
                                            move_count_sending(ms->service)),
                           "seeds", disk_seeds_offer(), "rpc_opening",
                           rpc_opening_calls_to_json(&ms->opening)));
}

static void on_moving_durable(void *user)
{
    struct move *m = user;

    m->pending--;
    source_domain_disarm(m->source);
}

int move_source_may_use(const struct service *s, const char *name, bool drill,
                        const struct config_peer **ret_peer, struct error *err)
{
    const struct config_peer *peer = *ret_peer = config_peer_by_name(s->config, name);

    if (!peer)
        return error_set(err, -ENOENT, "find the target",
                         "see `ferry peers`; add a [peer] section and reload",
                         "no peer is named '%s'", name);
    if (!(peer->permissions & PEER_MAY_MOVE_FROM_HERE))
        return error_set(err, -EPERM, "use the target",
                         "add move-from-here to allow = in its [peer] section",
                         "VMs may not be moved from here to %s", name);
    if (drill && !(peer->permissions & PEER_MAY_DRILL))
        return error_set(err, -EPERM, "use the target",
                         "add drill to allow = in its [peer] section",
                         "drills may not be held from here at %s", name);
    if (!peer->link.address[0])
        return error_set(err, -EINVAL, "call the target",
                         "add address = HOST:PORT to its [peer] section",
                         "%s has no address in the configuration", name);
    return 0;
}

/* What the VM needs of the target's host, in the target's names. */
static json_t *describe_platform(const struct virt_description *d,
                                 const struct config_networks *networks)
{
    struct virt_description *there = malloc(sizeof(*there));
    json_t *platform;

    if (!there)
        abort(); /* see virt_call_new() */
    *there = *d;
    domain_platform_translate(&there->platform, networks);
    platform = platform_to_json(there);
    free(there);
    return platform;
}

static int preflight(struct move_source *ms, const struct virt_description *d, struct error *err)
{
    const struct config_peer *peer;
    struct move *m = ms->move;
    int r = move_source_may_use(ms->service, m->peer, m->drill, &peer, err);

    if (r < 0)
        return r;
    r = move_domain_is_free(ms->service, d->info.name, d->info.uuid, m, err);
    if (r < 0)
        return r;
    if (check_first_failure(&d->report, err)) /* a job of libvirt's may be that move's */
        return err->code;
    m->info = d->info;
    m->persistent = d->persistent;
    m->autostart = d->autostart;
    m->progress.memory_total = d->memory_bytes;
    m->resident_bytes = d->resident_bytes;
    ms->rewrite.networks = peer->networks;
    ms->rewritten = domain_rewrite_needed(&ms->rewrite, &d->platform);
    ms->platform = describe_platform(d, &peer->networks);
    ms->no_zero_copy = source_policy_no_zero_copy(ms->service, d);
    for (unsigned i = 0; i < d->info.disk_count; i++)
        m->progress.disk_total += d->info.disks[i].size_bytes;
    r = source_policy_resolve(ms, &d->choices, err);
    return r < 0 ? r : move_paths_of(ms->service->config, m, &ms->paths, err);
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
        move_source_refuse(ms, &why);
    }
    move_source_call_returned(ms);
}

int move_source_start(struct service *s, const char *domain, const char *peer,
                      const struct move_wishes *wishes, struct move **ret, struct error *err)
{
    int r = move_new(s, JOURNAL_SOURCE, NULL, peer, ret, err);

    if (r < 0)
        return r;
    snprintf((*ret)->info.name, sizeof((*ret)->info.name), "%s", domain);
    if (wishes) {
        (*ret)->drill = wishes->drill;
        (*ret)->rehearsal = wishes->rehearsal;
        (*ret)->request = wishes->choices;
        (*ret)->hold =
            policy_choices_has(&wishes->choices, POLICY_HOLD) && wishes->choices.value[POLICY_HOLD];
        if (policy_choices_has(&wishes->choices, POLICY_BWLIMIT))
            shaper_set_rate(&(*ret)->shaper, wishes->choices.value[POLICY_BWLIMIT], clock_now_ns());
        (*ret)->verify = wishes->verify;
        (*ret)->switchover_at_ms = wishes->switchover_at_ms;
    }
    r = move_source_new(*ret, err);
    if (r < 0) {
        (*ret)->finished = true;
        return r;
    }
    (*ret)->source->sw.drill = (*ret)->drill;
    /* libvirt would not answer questions about a copy that is being received. */
    if (move_domain_is_free(s, domain, domain, *ret, err) < 0) {
        move_source_refuse((*ret)->source, err);
        return 0;
    }
    (*ret)->pending++;
    virt_describe(s->virt, domain, on_described, (*ret)->source);
    return 0;
}
