/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The disks of a move at the source: their streams, what holds the copy and the guest back, and when that
 * has lasted too long. The laws are storage's (congestion.h, guest_pace.h); here they meet QEMU.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"
#include "core/disk/spool_file.h"

/* What may still be to be compared when the memory is sent: the guest goes on writing, and it is compared
 * in moments. */
#define CHECK_LEFT_BYTES (UINT64_C(4) << 20)

/* So much of the copy may be missing, at its speed, before a disk counts as copied: QEMU sends 1 MiB at once. */
#define SHARE_IDLE_BYTES (UINT64_C(8) << 20)

/* --- QMP ----------------------------------------------------------------------------------- */

bool source_disks_may_qmp(const struct move_source *ms)
{
    return ms->service->config->monitor && ms->migrating;
}

static void on_qmp(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;

    (void)reply;
    ms->qmp_running = false;
    if (ms->migrating)
        move_source_note_qmp(ms, err);
    move_source_call_returned(ms);
}

static void qmp(struct move_source *ms, const char *command)
{
    ms->qmp_running = true;
    ms->move->pending++;
    virt_qmp(ms->service->virt, ms->move->info.uuid, command, on_qmp, ms);
}

/* A disk that is copied already leaves its share to the others; one of which nothing came for a while is. It may
 * only be slow: then it gets no less than before. */
static unsigned sharing_disks(const struct move_source *ms)
{
    unsigned disks = ms->move->info.disk_count;
    uint64_t share = MAX(ms->bulk_speed / disks, UINT64_C(1));
    uint64_t idle_ns = MAX(2 * NS_PER_S, SHARE_IDLE_BYTES * NS_PER_S / share);

    return MAX(disk_source_copying(ms->disks, idle_ns), 1u);
}

static void set_bulk_speed(struct move_source *ms, uint64_t bytes_per_s, unsigned sharing)
{
    unsigned disks = ms->move->info.disk_count;
    char command[256];

    ms->bulk_speed = bytes_per_s;
    ms->bulk_sharing = sharing;
    ms->move->progress.bulk_speed = bytes_per_s;
    for (unsigned i = 0; i < disks; i++) {
        snprintf(command, sizeof(command),
                 "{\"execute\":\"block-job-set-speed\",\"arguments\":{\"device\":\"%s\",\"speed\":%"
                 "llu}}",
                 ms->move->info.disks[i].alias, (unsigned long long)(bytes_per_s / sharing));
        qmp(ms, command);
    }
}

/* --- disks --------------------------------------------------------------------------------- */

static void on_disks_started(void *user)
{
    struct move_source *ms = user;

    move_set_phase(ms->move, MOVE_COPYING);
    source_channels_set_downtime(ms, policy_get(&ms->move->policy, POLICY_DOWNTIME_MS));
    source_stun_prepare(ms);
    /* The return path costs a round trip of downtime and serves post-copy alone. */
    if (source_disks_may_qmp(ms) && !ms->move->may_postcopy)
        qmp(ms, "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
                "[{\"capability\":\"return-path\",\"state\":false}]}}");
}

static void on_disks_closing(void *user)
{
    struct move_source *ms = user;

    /* QEMU ends its mirrors when the guest has stopped, and also when it gives up; then libvirt's call
     * returns with an error. */
    if ((ms->move->phase >= MOVE_MEMORY || ms->direct.memory) && ms->sw.state == SOURCE_MOVING) {
        move_set_phase(ms->move, MOVE_STOPPED);
        disk_source_set_urgent(ms->disks);
    }
}

static void on_disks_failed(void *user, const struct error *err)
{
    struct move_source *ms = user;
    struct error why = *err;

    /* A client that went away is QEMU ending the job: libvirt says why. */
    if (ms->sw.state != SOURCE_MOVING || err->code == -ECONNRESET || err->code == -EPIPE)
        return;
    error_prefix(&why, ms->move->peer); /* what a mirror meets, it meets there or on the way */
    if (!why.mend[0])
        snprintf(why.mend, sizeof(why.mend),
                 "see ferryd's log and the disk's file system there, then start the move again");
    move_source_fail(ms, &why);
}

static void on_disks_done(void *user)
{
    source_channels_finish(user);
}

static void on_disk_content(void *user, unsigned disk, uint64_t offset, uint32_t length,
                            const uint8_t *data)
{
    source_blocks_note(user, disk, offset, length, data);
}

static const struct disk_source_ops disk_ops = {
    .on_content = on_disk_content,
    .on_started = on_disks_started,
    .on_closing = on_disks_closing,
    .on_failed = on_disks_failed,
    .on_done = on_disks_done,
};

int source_disks_open(struct move_source *ms, struct error *err)
{
    struct move *m = ms->move;
    int r = disk_source_new(ms->service->loop, ms->service->budget,
                            spool_file_spool(ms->service->spool), &disk_ops, ms, &ms->disks);

    if (r == 0 && m->verify)
        disk_source_verify(ms->disks);
    if (r == 0 && ms->disk_codec.used)
        r = disk_source_pack(ms->disks, ms->service->config->link.compression_level,
                             &ms->disk_codec);
    for (unsigned i = 0; i < m->info.disk_count && r == 0; i++) {
        const struct domain_disk *d = &m->info.disks[i];
        struct stream *stream;

        r = source_channels_open_stream(ms, CARE_BULK, "disk", d->alias, &stream);
        if (r == 0) {
            r = disk_source_add(ms->disks, d->alias, d->size_bytes, ms->seeded[i], stream);
            if (r < 0)
                stream_release(stream);
        }
    }
    if (r < 0)
        return error_set(err, r, "open the disks' streams", NULL, "%s", strerror(-r));
    return disk_source_listen(ms->disks, ms->paths.disk, ms->service->qemu_uid,
                              ms->service->qemu_gid, err);
}

/* --- holding back -------------------------------------------------------------------------- */

static uint64_t lower_limit(uint64_t a, uint64_t b)
{
    return a == 0 || b == 0 ? MAX(a, b) : MIN(a, b);
}

/* The operator's, of the link or of this move. */
static uint64_t bandwidth_limit(const struct move_source *ms)
{
    struct shaper *link = link_limits_shaper(peering_limits(ms->service->peering), ms->move->peer);

    return lower_limit(link ? link->rate_bytes_s : 0, ms->move->shaper.rate_bytes_s);
}

/* Disks are mirrored and nothing holds the switchover off but what is under way. */
static bool is_draining(const struct move_source *ms)
{
    return ms->move->phase == MOVE_MEMORY || (ms->move->phase == MOVE_MIRRORING && !ms->move->held);
}

static void count_slowed(struct move_progress *p, const struct disk_source_stats *d,
                         enum congestion_reason reason, enum congestion_reason copy_reason,
                         uint64_t held_before)
{
    p->copy_slowed_ms[copy_reason] += SOURCE_TICK_MS;
    if (d->held_guest_now > 0 || d->held_count != held_before)
        p->guest_slowed_ms[reason] += SOURCE_TICK_MS;
}

static void control_congestion(struct move_source *ms, const struct disk_source_stats *d,
                               uint64_t now_ns)
{
    struct move_progress *p = &ms->move->progress;
    struct congestion_input in = {
        .now_ns = now_ns,
        .fill_bytes = d->fill_bytes + d->spooled_bytes,
        .spool_bytes = mirror_spool_limit_bytes(spool_file_spool(ms->service->spool)),
        .budget_bytes = mirror_budget_plan_bytes(ms->service->budget, ms->move->info.disk_count),
        .applied_bytes = d->applied_bytes,
        .data_bytes = d->payload_bytes,
        .hole_bytes = d->in_bytes - d->payload_bytes,
        .target_queue_bytes = d->target_queue_bytes,
        .limit_bytes_per_s = bandwidth_limit(ms),
        .bulk_running = ms->move->phase == MOVE_COPYING,
        .unsent_bytes = d->unsent_bytes,
        .rtt_ns = p->rtt_us * 1000,
        .held_count = d->held_count,
        .held_now = d->held_guest_now,
        .draining = is_draining(ms),
    };
    enum congestion_reason copy_reason = CONGESTION_NONE;
    uint64_t care = source_care_limit(ms), speed;
    struct congestion_output out;
    unsigned sharing;

    congestion_update(ms->congestion, &in, &out);
    if (in.bulk_running)
        copy_reason = care && care < out.bulk_bytes_per_s ? CONGESTION_GUEST : out.reason;
    count_slowed(p, d, out.reason, copy_reason, ms->held_count);
    ms->held_count = d->held_count;
    p->bulk_reason = congestion_reason_name(copy_reason);
    p->guest_speed = out.guest_bytes_per_s;
    ms->drained_bytes = out.drained_bytes;
    p->guest_reason = congestion_reason_name(out.guest_bytes_per_s ? out.reason : CONGESTION_NONE);
    disk_source_set_pace(ms->disks, out.guest_bytes_per_s);
    if (!in.bulk_running || ms->qmp_running || !source_disks_may_qmp(ms))
        return;
    sharing = sharing_disks(ms);
    speed = lower_limit(out.bulk_bytes_per_s, care);
    if (speed != ms->bulk_speed || sharing != ms->bulk_sharing)
        set_bulk_speed(ms, speed, sharing);
}

unsigned source_disks_first_speed_mib_s(const struct move_source *ms)
{
    uint64_t plan = mirror_budget_plan_bytes(ms->service->budget, ms->move->info.disk_count);

    return (unsigned)MAX(congestion_first_bytes_per_s(plan) >> 20, UINT64_C(1));
}

bool source_disks_must_wait(const struct move_source *ms)
{
    struct disk_source_stats d;

    if (ms->sw.state != SOURCE_MOVING || !ms->disks)
        return false;
    /* A quarter more than what the guest is then kept to; half of it is on its way. */
    disk_source_get_stats(ms->disks, &d);
    if (d.check.left_bytes > CHECK_LEFT_BYTES)
        return true;
    return d.fill_bytes + d.spooled_bytes > ms->drained_bytes + ms->drained_bytes / 4;
}

/* Nothing waits longer than the operator allows: rather no move than a dead guest. The copy's writes count
 * as well, when none of them goes on: QEMU lets the guest's wait for one that is under way at the same place,
 * and keeps 16 in all. */
static void limit_stall(struct move_source *ms, const struct disk_source_stats *d, uint64_t now_ns)
{
    uint64_t limit_s = ms->service->config->stall_limit_s;
    struct error why = {0};

    if (!d->held_since_ns || ms->sw.state != SOURCE_MOVING || ms->move->phase >= MOVE_STOPPED ||
        now_ns < d->held_since_ns + limit_s * NS_PER_S)
        return;
    error_set(
        &why, -ETIMEDOUT, "mirror the disks",
        "raise stall_limit_s or log_memory in [storage], give it a spool, or move when the guest "
        "writes "
        "less",
        "a write has waited %llu s for its acknowledgement: the log holds %llu MiB that are not "
        "applied at %s "
        "(held back by the %s)",
        (unsigned long long)limit_s, (unsigned long long)((d->fill_bytes + d->spooled_bytes) >> 20),
        ms->move->peer, ms->move->progress.guest_reason);
    move_source_fail(ms, &why);
}

void source_disks_tick(struct move_source *ms, uint64_t now_ns)
{
    struct move_progress *p = &ms->move->progress;
    struct disk_source_stats d;

    disk_source_tick(ms->disks, move_count_sending(ms->service));
    disk_source_get_stats(ms->disks, &d);
    p->disk_payload = d.payload_bytes;
    p->disk_wire = d.sent_bytes;
    p->disk_pack_level = d.pack_level;
    p->disk_pack_cpu_ns = d.pack_cpu_ns;
    p->disk_seed = d.seed_bytes;
    p->log_fill = d.fill_bytes + d.spooled_bytes;
    p->spooled = d.spooled_bytes;
    p->spooled_ever = d.spooled_ever_bytes;
    p->log_peak = d.fill_peak_bytes;
    p->latency_p50_us = d.latency_p50_us;
    p->latency_p99_us = d.latency_p99_us;
    p->latency_max_us = d.latency_max_us;
    p->guest_writes = d.guest_writes;
    p->checked = d.check.checked_bytes;
    p->unchecked = d.check.left_bytes + d.check.unknown_bytes;
    if (ms->move->phase >= MOVE_COPYING && ms->move->phase < MOVE_STOPPED)
        control_congestion(ms, &d, now_ns);
    else
        disk_source_set_pace(ms->disks, 0); /* the guest has stopped: nothing is to be delayed */
    limit_stall(ms, &d, now_ns);
}
