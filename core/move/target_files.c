/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The target's files, made before a move, removed when it aborts (after what is left of the VM), adopted
 * when it commits. Their work is done on the worker for files; what follows it ends the move.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/disk/disk_files.h"
#include "core/move/move_target_private.h"
#include "core/operations/check_target.h"

struct files_job {
    struct worker_job job;
    struct move *move;
    struct domain_info info;
    struct config config;
    bool keep; /* a drill's disks, which were complete */
    bool seeds_wanted;
    struct disk_seed seeds[LIMIT_DISKS_PER_MOVE];
    struct rpc_opening opening;
    int rpc_fd;
    struct error err;
};

static struct files_job *files_job_new(struct move_target *mt, void (*run)(struct worker_job *),
                                       void (*done)(struct worker_job *))
{
    struct files_job *f = calloc(1, sizeof(*f));

    if (!f)
        abort(); /* some hundred KiB; without it disks would stay behind */
    f->job = (struct worker_job){.run = run, .done = done};
    f->move = mt->move;
    f->info = mt->move->info;
    f->keep = mt->move->drill && mt->move->rehearsal.keep_disk &&
              mt->move->rehearsal.verdict != DRILL_OPEN;
    f->config = *mt->service->config;
    mt->move->pending++;
    return f;
}

static void files_job_end(struct files_job *f)
{
    struct move_target *mt = f->move->target;

    free(f);
    move_target_call_returned(mt);
}

static void run_remove(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);

    if (f->keep)
        disk_files_keep(&f->info, f->move->id);
    else
        disk_files_remove(&f->info, f->move->id);
}

static void done_remove(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);

    move_target_step(f->move->target, TARGET_ON_CLEANED);
    files_job_end(f);
}

static void on_domain_removed(void *user, const struct error *err)
{
    struct move_target *mt = user;
    char line[1024];

    if (err->code) {
        log_warning("move %s: cannot remove the half-made VM yet: %s", mt->move->id,
                    error_line(err, line, sizeof(line)));
        mt->clean_at_ns = clock_now_ns() + NS_PER_S;
    } else {
        worker_post(mt->service->files, &files_job_new(mt, run_remove, done_remove)->job);
    }
    move_target_call_returned(mt);
}

/* Channels first: libvirtd kills an incoming VM whose connection ends. Then what is left of the VM,
 * then its files. */
void target_files_clean_up(void *arg)
{
    struct move *m = arg;
    struct move_target *mt = m->target;
    char clone[DOMAIN_NAME_BYTES];

    if (!mt || mt->creating) { /* files are being made: they are removed when that returns */
        if (mt)
            mt->clean_at_ns = clock_now_ns() + NS_PER_S / 20;
        return;
    }
    mt->clean_at_ns = 0;
    target_channels_close(mt);
    m->pending++;
    drill_clone_name(m->info.name, m->id, clone);
    virt_destroy(mt->service->virt, m->drill ? clone : m->info.uuid, on_domain_removed, mt);
}

static void run_adopt(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);

    disk_files_adopt(&f->info, f->move->id);
}

static void on_autostart_set(void *user, const struct error *err)
{
    struct move_target *mt = user;
    char line[1024];

    if (err->code)
        log_warning("move %s (%s): it does not start with this host: %s", mt->move->id,
                    mt->move->info.name, error_line(err, line, sizeof(line)));
    move_target_finish(mt, MOVE_OUTCOME_COMMITTED);
    move_target_call_returned(mt);
}

static void done_adopt(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);
    struct move_target *mt = f->move->target;

    if (mt->move->persistent && mt->move->autostart) {
        mt->move->pending++;
        virt_set_autostart(mt->service->virt, mt->move->info.uuid, true, on_autostart_set, mt);
    } else {
        move_target_finish(mt, MOVE_OUTCOME_COMMITTED);
    }
    files_job_end(f);
}

static void run_create(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);

    disk_files_create(&f->config, &f->info, f->move->id, &f->err);
    for (unsigned i = 0; i < f->info.disk_count && f->seeds_wanted && !f->err.code; i++)
        disk_seed_find(&f->config, f->info.name, &f->info.disks[i], &f->seeds[i]);
    f->rpc_fd = f->opening.count > 0 && !f->err.code
                    ? rpc_opening_make(&f->opening, f->config.libvirt_socket)
                    : -1;
}

static void take_seeds(struct files_job *f)
{
    struct move *m = f->move;

    memcpy(m->target->seeds, f->seeds, sizeof(f->seeds));
    for (unsigned i = 0; i < f->info.disk_count; i++) {
        if (f->seeds[i].path[0])
            log_info("move %s (%s): what %s holds of %s is not sent again", m->id, m->info.name,
                     f->seeds[i].path, f->info.disks[i].target);
    }
}

bool target_files_may_be_direct(const struct move_target *mt)
{
    const struct config_peer *peer = config_peer_by_name(mt->service->config, mt->move->peer);

    return peer && (peer->permissions & PEER_MAY_DIRECT_MEMORY);
}

static void done_create(struct worker_job *job)
{
    struct files_job *f = container_of(job, struct files_job, job);
    struct move_target *mt = f->move->target;

    mt->creating = false;
    failpoint("before-ready");
    take_seeds(f);
    if (mt->sw.state == TARGET_RECEIVING) {
        if (!f->err.code && move_paths_make(mt->service, &mt->paths, &f->err) == 0 &&
            target_channels_open(mt, &f->err) == 0) {
            mt->rpc_fd = f->rpc_fd;
            f->rpc_fd = -1;
            move_target_send(
                mt, json_pack("{s:s, s:b, s:b, s:o, s:o*, s:o*, s:o*, s:o*, s:o*}", "type", "ready",
                              "direct_memory", target_files_may_be_direct(mt), "witness",
                              mt->move->right.agreed, "post_copy",
                              check_target_post_copy_answer(mt->service), "drill",
                              target_drill_answer(mt), "memory_codec", TAKE_PTR(mt->codec_answer),
                              "disk_codec", TAKE_PTR(mt->disk_codec_answer), "seeds",
                              disk_seeds_answer(&f->info, f->seeds), "rpc_opening",
                              rpc_opening_replies_to_json(&f->opening)));
        }
        if (f->err.code) {
            disk_files_remove(&f->info, f->move->id);
            move_target_refuse(mt, &f->err);
        }
    }
    if (f->rpc_fd >= 0)
        close(f->rpc_fd);
    files_job_end(f);
}

void target_files_create(struct move_target *mt)
{
    struct files_job *f = files_job_new(mt, run_create, done_create);

    f->seeds_wanted = mt->seeds_offered;
    f->opening = mt->opening;
    mt->creating = true;
    worker_post(mt->service->files, &f->job);
}

void target_files_adopt(struct move_target *mt)
{
    worker_post(mt->service->files, &files_job_new(mt, run_adopt, done_adopt)->job);
}
