/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The VM at the source, at the end of a move: what libvirt says of it, and what is done with it. Each
 * question and each command is asynchronous, is asked again when libvirt cannot answer yet, and ends in an
 * event of the commit protocol.
 *
 * Autostart is taken away before the target is told of the move, and given back when a move ends without a
 * commit: a host that is restarted in between must not run a copy that may be old by then.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/disk/disk_files.h"
#include "core/move/move_source_private.h"

enum { REARM_TRIES = 10 };
/* A host that has just started may lack a disk or a network yet. */
enum { START_TRIES = 20, START_PAUSE_S = 3 };

/* QEMU ends its mirrors within moments; one that does not is not waited for. */
enum { CLOSE_PATIENCE_S = 5 };

/* Of a drill it stays: the copy here never gets old. */
static bool is_armed_domain(const struct move *m)
{
    return m->persistent && m->autostart && !m->drill;
}

/* --- autostart ----------------------------------------------------------------------------- */

static void on_disarmed(void *user, const struct error *err)
{
    struct move_source *ms = user;

    source_right_arm(ms, err);
    move_source_call_returned(ms);
}

void source_domain_disarm(struct move_source *ms)
{
    struct error none = {0};

    if (!is_armed_domain(ms->move) || ms->sw.state != SOURCE_MOVING) {
        source_right_arm(ms, &none);
        return;
    }
    ms->disarmed = true;
    ms->move->pending++;
    virt_set_autostart(ms->service->virt, ms->move->info.uuid, false, on_disarmed, ms);
}

static void on_rearmed(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code && err->code != -ENOENT && ++ms->rearm_tries < REARM_TRIES) {
        ms->rearm_again_ns = clock_now_ns() + NS_PER_S;
    } else {
        if (err->code)
            log_error("move %s (%s): it does not start with this host any more: %s", ms->move->id,
                      ms->move->info.name, error_line(err, line, sizeof(line)));
        move_source_finish(ms);
    }
    move_source_call_returned(ms);
}

void source_domain_rearm(struct move_source *ms)
{
    ms->rearm_again_ns = 0;
    if (!ms->disarmed) {
        move_source_finish(ms);
        return;
    }
    ms->move->pending++;
    virt_set_autostart(ms->service->virt, ms->move->info.uuid, true, on_rearmed, ms);
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
    move_source_finish(ms);
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
 * must be said, and is mended by the operator's word alone. */
static void on_withdraw_state(void *user, const struct error *err, enum virt_domain_state state)
{
    struct move_source *ms = user;

    if (err->code || state == VIRT_DOMAIN_BUSY) {
        ms->withdraw_again_ns = clock_now_ns() + NS_PER_S / 5;
    } else if (state == VIRT_DOMAIN_RUNNING && !ms->operators_word) {
        log_error("move %s (%s): the VM runs here AND at %s: stop one by hand, this one is stale",
                  ms->move->id, ms->move->info.name, ms->move->peer);
        move_source_set_outcome(ms->move, MOVE_OUTCOME_IN_DOUBT);
        ms->withdraw_again_ns = clock_now_ns() + 10 * NS_PER_S;
    } else {
        virt_destroy(ms->service->virt, ms->move->info.uuid, on_withdrawn, ms);
        return; /* `pending` passes on to it */
    }
    move_source_call_returned(ms);
}

void source_domain_withdraw(struct move_source *ms)
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

/* It is off, and not because it migrated: whatever was noted before is an echo of that. */
static void note_end(struct move_source *ms, const char *why)
{
    struct error ended = {0};

    error_set(&ended, -ESRCH, "move the VM", "start it again where it belongs", "%s", why);
    error_clear(&ms->move->reason);
    move_set_reason(ms->move, &ended);
}

static void note_restart(struct move_source *ms)
{
    struct error why = {0};

    error_set(
        &why, -EOWNERDEAD, "move the VM", "start the move again",
        "the source's host was restarted; the VM starts with it, once %s has said that it does "
        "not run it",
        ms->move->peer);
    error_clear(&ms->move->reason);
    move_set_reason(ms->move, &why);
}

static void report(struct move_source *ms, enum virt_domain_state state)
{
    ms->postcopy.domain_switched = state == VIRT_DOMAIN_SWITCHED;
    switch (state) {
    case VIRT_DOMAIN_BUSY:
        break;
    case VIRT_DOMAIN_RUNNING:
        move_source_step(ms, SOURCE_ON_DOMAIN_RUNNING);
        break;
    case VIRT_DOMAIN_PAUSED:
        move_source_step(ms, SOURCE_ON_DOMAIN_PAUSED);
        break;
    case VIRT_DOMAIN_SWITCHED: /* what cannot go back is left to the operator as it is */
        move_source_step(ms, ms->postcopy.cannot_go_back ? SOURCE_ON_DOMAIN_SUSPENDED
                                                         : SOURCE_ON_DOMAIN_PAUSED);
        break;
    case VIRT_DOMAIN_SUSPENDED:
        move_source_step(ms, SOURCE_ON_DOMAIN_SUSPENDED);
        break;
    case VIRT_DOMAIN_ENDED:
        note_end(ms, "it ended at the source (shut down, destroyed or crashed)");
        move_source_step(ms, SOURCE_ON_DOMAIN_ENDED);
        break;
    case VIRT_DOMAIN_OFF:
        if (ms->sw.state == SOURCE_ABORTING && ms->sw.restarts && !ms->sw.started)
            note_restart(ms);
        else if (ms->sw.state == SOURCE_ABORTING && !ms->sw.start_wanted)
            note_end(ms, "it ended at the source (or its host was restarted)");
        move_source_step(ms, SOURCE_ON_DOMAIN_OFF);
        break;
    case VIRT_DOMAIN_GONE:
        move_source_step(ms, SOURCE_ON_DOMAIN_GONE);
        break;
    }
}

static void on_checked(void *user, const struct error *err, enum virt_domain_state state)
{
    struct move_source *ms = user;

    ms->check_running = false;
    if (err->code || state == VIRT_DOMAIN_BUSY) {
        ms->check_again_ns = clock_now_ns() + NS_PER_S / 5;
    } else {
        ms->check_wanted = false;
        report(ms, state);
    }
    move_source_call_returned(ms);
}

void source_domain_check(struct move_source *ms)
{
    ms->check_wanted = true;
    ms->check_again_ns = 0;
    if (ms->check_running)
        return;
    if (ms->migrating || ms->resuming) {
        ms->check_again_ns = clock_now_ns() + NS_PER_S / 20;
        return;
    }
    ms->check_running = true;
    ms->move->pending++;
    virt_state(ms->service->virt, ms->move->info.uuid, on_checked, ms);
}

static void on_going(void *user, const struct error *err)
{
    struct move_source *ms = user;

    if (err->code == -ENOTRECOVERABLE) { /* nothing is tried again */
        error_clear(&ms->move->trouble);
        ms->postcopy.cannot_go_back = true;
        error_clear(&ms->move->reason);
        move_set_reason(ms->move, err);
    } else {
        move_set_trouble(ms->move, err);
    }
    if (err->code && ms->sw.restarts && ms->sw.started && ++ms->start_tries < START_TRIES)
        ms->start_again_ns = clock_now_ns() + START_PAUSE_S * NS_PER_S;
    else
        ms->resuming = false;
    move_source_call_returned(ms);
}

void source_domain_resume(struct move_source *ms)
{
    ms->resuming = true;
    ms->move->pending++;
    if (ms->postcopy.domain_switched)
        virt_take_back(ms->service->virt, ms->move->info.uuid, false, on_going, ms);
    else
        virt_resume(ms->service->virt, ms->move->info.uuid, on_going, ms);
}

void source_domain_start(struct move_source *ms)
{
    log_warning("move %s (%s): the copy here is %s; it is started again from its disks",
                ms->move->id, ms->move->info.name,
                ms->sw.restarts ? "off since its host's restart" : "given up");
    ms->resuming = true;
    ms->start_again_ns = 0;
    ms->move->pending++;
    virt_start(ms->service->virt, ms->move->info.uuid, on_going, ms);
}

static void on_job_aborted(void *user, const struct error *err)
{
    struct move_source *ms = user;

    /* No job any more is as good; but in post-copy libvirt calls nothing off. */
    if (err->code && ms->postcopy.asked && ms->migrating)
        source_postcopy_take_back(ms);
    else
        ms->job_aborted = true;
    move_source_call_returned(ms);
}

void source_domain_stop_migration(struct move_source *ms)
{
    if (ms->disks)
        disk_source_let_go(ms->disks);
    if (ms->move->switched && ms->channels_open) {
        source_postcopy_take_back(ms);
        return;
    }
    if (!ms->migrating) {
        ms->close_at_ns = clock_now_ns();
        return;
    }
    /* Closing the channels ends libvirt's job, too; but first QEMU is to end its mirrors and their connections. */
    ms->close_at_ns = clock_now_ns() + CLOSE_PATIENCE_S * NS_PER_S;
    ms->move->pending++;
    virt_abort_job(ms->service->virt, ms->move->info.uuid,
                   ms->disks && disk_source_has_clients(ms->disks), on_job_aborted, ms);
}

static bool may_close(const struct move_source *ms, uint64_t now_ns)
{
    if (now_ns >= ms->close_at_ns || (!ms->migrating && !ms->postcopy.taking_back))
        return true;
    return ms->job_aborted && !(ms->disks && disk_source_has_clients(ms->disks));
}

void source_domain_tick(struct move_source *ms, uint64_t now_ns)
{
    if (ms->close_at_ns && may_close(ms, now_ns)) {
        ms->close_at_ns = 0;
        source_channels_close(ms);
    }
    if (ms->check_again_ns && now_ns >= ms->check_again_ns && ms->check_wanted)
        source_domain_check(ms);
    if (ms->withdraw_again_ns && now_ns >= ms->withdraw_again_ns)
        source_domain_withdraw(ms);
    if (ms->start_again_ns && now_ns >= ms->start_again_ns)
        source_domain_start(ms);
    if (ms->rearm_again_ns && now_ns >= ms->rearm_again_ns)
        source_domain_rearm(ms);
}
