/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The clone of a drill, from the source's word to the verdict: is it isolated and marked, does it run and go on
 * running, does the guest's agent answer, what does this site's command say. What comes of it is told as one event,
 * after which the clone is destroyed like any other half-made copy (target_files.c).
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/move/move_target_private.h"

/* A guest whose memory or disk is wrong mostly dies of it at once. */
#define SETTLE_NS (2 * NS_PER_S)

static void conclude(struct move_target *mt, enum drill_verdict verdict, const char *why)
{
    struct drill *d = &mt->move->rehearsal;

    if (mt->sw.state != TARGET_DRILLING)
        return;
    d->verdict = verdict;
    snprintf(d->why, sizeof(d->why), "%s", why);
    log_info("move %s (%s): the drill has %s%s%s", mt->move->id, mt->move->info.name,
             drill_verdict_name(verdict), why[0] ? ": " : "", why);
    failpoint("before-drilled");
    move_target_step(mt, TARGET_ON_DRILL_DONE);
}

/* --- the command --------------------------------------------------------------------------- */

static void on_command_end(void *user, int status, const char *output)
{
    struct move_target *mt = user;
    struct drill *d = &mt->move->rehearsal;
    char why[64] = "";

    mt->command = NULL;
    d->exit_status = status & 0xff;
    snprintf(d->output, sizeof(d->output), "%s", output);
    if (status != 0)
        snprintf(why, sizeof(why), "the command ended with status %d", d->exit_status);
    conclude(mt, status == 0 ? DRILL_PASSED : DRILL_FAILED, why);
}

enum { VARIABLES = 9, VARIABLE_BYTES = 512 };

static void run_command(struct move_target *mt)
{
    const struct config *c = mt->service->config;
    const struct move *m = mt->move;
    char text[VARIABLES][VARIABLE_BYTES], clone[DOMAIN_NAME_BYTES], path[PATH_MAX];
    char *environment[VARIABLES + 1] = {NULL};
    struct error err = {0};
    const struct {
        const char *key, *value;
    } variables[VARIABLES] = {
        {"PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        {"LIBVIRT_DEFAULT_URI", c->libvirt_uri},
        {"FERRY_DRILL_ID", m->id},
        {"FERRY_DRILL_CLONE", clone},
        {"FERRY_DRILL_DOMAIN", m->info.name},
        {"FERRY_DRILL_UUID", m->info.uuid},
        {"FERRY_DRILL_FROM", m->peer},
        {"FERRY_DRILL_NETWORK", m->rehearsal.network},
        {"FERRY_DRILL_AGENT", m->rehearsal.agent},
    };

    drill_clone_name(m->info.name, m->id, clone);
    for (unsigned i = 0; i < VARIABLES; i++) {
        snprintf(text[i], VARIABLE_BYTES, "%s=%s", variables[i].key, variables[i].value);
        environment[i] = text[i];
    }
    if (drill_command_find(c->drill_commands, m->rehearsal.command, path, &err) < 0 ||
        drill_command_start(mt->service->loop, path, environment, c->drill_timeout_s,
                            on_command_end, mt, &mt->command, &err) < 0)
        conclude(mt, DRILL_FAILED, err.why);
}

/* --- the clone ----------------------------------------------------------------------------- */

static void on_probed(void *user, const struct error *err, const char *agent)
{
    struct move_target *mt = user;

    snprintf(mt->move->rehearsal.agent, sizeof(mt->move->rehearsal.agent), "%s", agent);
    if (err->code)
        conclude(mt, DRILL_FAILED, err->why);
    else if (mt->sw.state == TARGET_DRILLING && mt->move->rehearsal.command[0])
        run_command(mt);
    else
        conclude(mt, DRILL_PASSED, "");
    move_target_call_returned(mt);
}

static void on_running(void *user, const struct error *err)
{
    struct move_target *mt = user;

    failpoint("after-clone");
    if (err->code) {
        conclude(mt, DRILL_FAILED, err->why);
    } else {
        mt->probe_at_ns = clock_now_ns() + SETTLE_NS;
        log_info("move %s (%s): the clone runs", mt->move->id, mt->move->info.name);
    }
    move_target_call_returned(mt);
}

void target_drill_run(struct move_target *mt)
{
    const struct move *m = mt->move;
    char clone[DOMAIN_NAME_BYTES];

    drill_clone_name(m->info.name, m->id, clone);
    failpoint("before-clone");
    mt->move->pending++;
    virt_run_clone(mt->service->virt, clone, m->id, m->rehearsal.network, on_running, mt);
}

void target_drill_tick(struct move_target *mt, uint64_t now_ns)
{
    char clone[DOMAIN_NAME_BYTES];

    if (!mt->probe_at_ns || now_ns < mt->probe_at_ns || mt->sw.state != TARGET_DRILLING)
        return;
    mt->probe_at_ns = 0;
    drill_clone_name(mt->move->info.name, mt->move->id, clone);
    mt->move->pending++;
    virt_probe_clone(mt->service->virt, clone, on_probed, mt);
}

void target_drill_stop(struct move_target *mt)
{
    mt->probe_at_ns = 0;
    drill_command_cancel(TAKE_PTR(mt->command));
}

json_t *target_drill_answer(const struct move_target *mt)
{
    return mt->move->drill ? json_pack("{s:s}", "network", mt->move->rehearsal.network) : NULL;
}

int target_drill_accept(struct move_target *mt, const json_t *wishes, struct error *err)
{
    const struct config *c = mt->service->config;
    const struct config_peer *peer = config_peer_by_name(c, mt->move->peer);
    struct drill *d = &mt->move->rehearsal;
    char path[PATH_MAX];

    if (!wishes)
        return 0;
    if (drill_from_json(wishes, d) < 0)
        return error_set(err, -EPROTO, "receive the drill", NULL, "its description is malformed");
    mt->move->drill = mt->sw.drill = true;
    mt->move->persistent = mt->move->autostart = mt->move->right.agreed = mt->sw.witness = false;
    snprintf(d->network, sizeof(d->network), "%s", peer ? peer->drill_network : "");
    d->verdict = DRILL_OPEN;
    return d->command[0] ? drill_command_find(c->drill_commands, d->command, path, err) : 0;
}
