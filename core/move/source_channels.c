/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data's way at the source: libvirt's three channels into streams, and the measurements.
 *
 *   libvirtd --virt.sock--> rpc_relay ---------> stream "rpc"      keepalive answered here; the gate
 *   QEMU     --ram.sock---> relay -------------> stream "ram"
 *   QEMU     --disk.sock--> disk_source -------> stream "disk", one each; acknowledged here
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/failpoint.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"

enum {
    STATS_EVERY_TICKS = 3, /* of memory every tick: a round may be over in less */
    RATE_SPAN_TICKS = 2,   /* one rate sample every so many ticks; 16 samples = 3.2 s */
};

/* --- RPC ----------------------------------------------------------------------------------- */

static enum rpc_verdict on_rpc_outbound(void *user, const struct rpc_frame *frame)
{
    struct move_source *ms = user;
    const struct rpc_opening_frame *reply = rpc_opening_answer(&ms->opening, frame);

    if (rpc_opening_learn(&ms->learnt, frame))
        ms->service->rpc_opening = ms->learnt;
    if (reply && rpc_relay_answer(ms->rpc, reply->bytes, reply->len) == 0)
        return RPC_DROP;
    return RPC_PASS;
}

static enum rpc_verdict on_rpc_inbound(void *user, const struct rpc_frame *frame)
{
    struct move_source *ms = user;

    if (frame->kind != RPC_FINISH_REPLY || !frame->ok)
        return RPC_PASS;
    /* Whatever the state: a successful reply reaches libvirt only by SOURCE_WRITE_REPLY, because it
     * makes libvirt give the source up. */
    ms->marks.reply_ns = clock_now_ns();
    if (ms->move->switched) { /* every page is there */
        move_source_step(ms, SOURCE_ON_FINISH_OK);
        return RPC_KEEP;
    }
    ms->finish_waits = true;
    source_channels_finish(ms);
    return RPC_KEEP;
}

void source_channels_finish(struct move_source *ms)
{
    /* The disks' last words come on other streams than the reply: with verification they decide, too. */
    if ((!ms->finish_waits && !ms->prepared_waits) ||
        (ms->move->verify && !disk_source_is_done(ms->disks)))
        return;
    if (ms->prepared_waits) {
        ms->prepared_waits = false;
        move_source_step(ms, SOURCE_ON_TARGET_SWITCHED);
        return;
    }
    ms->finish_waits = false;
    move_set_phase(ms->move, MOVE_PREPARED);
    move_source_step(ms, SOURCE_ON_FINISH_OK);
}

static void close_ended_rpc(void *arg)
{
    struct move *m = arg;
    struct move_source *ms = m->source;

    m->pending--;
    if (!ms || !ms->rpc ||
        ms->close_at_ns) /* the end is under way: the guest stops before QEMU notices */
        return;
    if (ms->sw.state == SOURCE_FEEDING) {
        source_postcopy_broken(ms);
        return;
    }
    rpc_relay_free(TAKE_PTR(ms->rpc)); /* libvirt learns that its connection is gone */
    if (ms->sw.state == SOURCE_DECIDING || ms->sw.state == SOURCE_RELEASING)
        move_source_step(ms, SOURCE_ON_RPC_LOST);
}

static void on_rpc_ended(void *user, const struct error *why)
{
    struct move_source *ms = user;
    struct error lost = {0};

    if (why->code != -EPIPE && ms->sw.state == SOURCE_MOVING && ms->migrating) {
        /* libvirt here does not know it yet, and would end QEMU's mirrors while the guest writes. */
        error_set(&lost, why->code, "move the VM",
                  "see libvirtd's log there, then start the move again",
                  "libvirt's connection to %s: %s", ms->move->peer, why->why);
        ms->reason_is_libvirts = true;
        move_source_fail(ms, &lost);
        return;
    }
    /* What it was is told by libvirt's call, which returns with the consequence, and by the target. */
    ms->move->pending++;
    service_defer(ms->service, close_ended_rpc, ms->move);
}

static const struct rpc_relay_ops rpc_ops = {
    .on_outbound = on_rpc_outbound,
    .on_inbound = on_rpc_inbound,
    .on_ended = on_rpc_ended,
};

int source_channels_open_stream(struct move_source *ms, enum care care, const char *channel,
                                const char *disk, struct stream **ret)
{
    json_t *label = json_pack("{s:s, s:s}", "channel", channel, "move", ms->move->id);
    int r;

    if (disk)
        json_object_set_new(label, "disk", json_string(disk));
    if (ms->direct.memory)
        json_object_set_new(label, "direct_memory", json_true());
    if (ms->move->may_postcopy)
        json_object_set_new(label, "post_copy", json_true());
    if (ms->sw.state == SOURCE_FEEDING)
        json_object_set_new(label, "again", json_true());
    if (strcmp(channel, "rpc") == 0 && rpc_opening_is_made(&ms->opening))
        json_object_set_new(label, "opened", json_true());
    r = peering_open(ms->ls, care, label, ret);
    if (r == 0)
        stream_set_shaper(*ret, &ms->move->shaper);
    return r;
}

static void on_rpc_accept(void *user, int fd)
{
    struct move_source *ms = user;
    struct stream *stream;

    if (ms->rpc || !ms->ls ||
        source_channels_open_stream(ms, CARE_CONTROL, "rpc", NULL, &stream) < 0) {
        close(fd);
        return;
    }
    if (rpc_relay_new(ms->service->loop, fd, stream, &rpc_ops, ms, &ms->rpc) < 0)
        stream_release(stream);
}

/* --- the reply ----------------------------------------------------------------------------- */

static void free_timer(uv_handle_t *handle)
{
    free(handle);
}

static void stop_reply_timer(struct move_source *ms)
{
    if (ms->reply_timer) {
        uv_timer_stop(ms->reply_timer);
        uv_close((uv_handle_t *)TAKE_PTR(ms->reply_timer), free_timer);
    }
}

static void on_reply_timer(uv_timer_t *timer)
{
    struct move_source *ms = timer->data;
    int unread = ms->rpc ? rpc_relay_unread(ms->rpc) : -EPIPE;

    if (unread > 0)
        return;
    stop_reply_timer(ms);
    if (ms->sw.state != SOURCE_RELEASING)
        return;
    failpoint("after-reply");
    move_source_step(ms, unread == 0 ? SOURCE_ON_REPLY_READ : SOURCE_ON_RPC_LOST);
}

void source_channels_release_reply(struct move_source *ms)
{
    if (!ms->rpc) {
        move_source_step(ms, SOURCE_ON_RPC_LOST);
        return;
    }
    if (ms->move->switched) {
        rpc_relay_release_inbound(ms->rpc);
        return;
    }
    ms->reply_timer = calloc(1, sizeof(*ms->reply_timer));
    if (!ms->reply_timer)
        return; /* libvirt's call will return and decide */
    uv_timer_init(ms->service->loop, ms->reply_timer);
    ms->reply_timer->data = ms;
    rpc_relay_release_inbound(ms->rpc);
    uv_timer_start(ms->reply_timer, on_reply_timer, 0, 1);
}

void source_channels_limit_set(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code)
        log_info("move %s: %s", ms->move->id, error_line(err, line, sizeof(line)));
    move_source_call_returned(ms);
}

/* --- memory -------------------------------------------------------------------------------- */

static void on_memory_sent(void *user, const uint8_t *data, size_t len)
{
    struct move_source *ms = user;
    bool before;

    if (!ms->parser) /* of the channels that were made again */
        return;
    before = ram_parser_tail_offset(ms->parser) != UINT64_MAX;
    ram_parser_feed(ms->parser, data, len);
    if (!ms->move->switched && !ms->postcopy.taken_back &&
        ram_parser_package_offset(ms->parser) != UINT64_MAX)
        source_postcopy_switched(ms);
    if (!before && !ms->move->switched && ram_parser_tail_offset(ms->parser) != UINT64_MAX) {
        ms->marks.ram_end_ns = clock_now_ns();
        move_set_phase(ms->move,
                       MOVE_STOPPED); /* END(ram): the guest has stopped, at the latest now */
    }
}

static void on_memory_failed(void *user, const struct error *err)
{
    struct move_source *ms = user;

    if (ms->sw.state == SOURCE_FEEDING)
        source_postcopy_broken(ms);
    if (ms->sw.state != SOURCE_MOVING)
        return;
    log_info("move %s: memory channel: %s", ms->move->id, err->why);
    if (err->code != -ECONNRESET && err->code != -EPIPE) /* those libvirt and the session explain */
        move_source_fail(ms, err);
}

/* The target's last word waits until the target is known to have heard the decision: libvirt here, when it is left alone
 * with a migration that QEMU calls complete, gives up the copy here. */
static size_t memory_may_deliver(void *user, uint64_t offset, const uint8_t *data, size_t len)
{
    struct move_source *ms = user;
    size_t before = return_path_before_shut(&ms->postcopy.answers, offset, data, len);

    return ms->move->switched && !ms->sw.pulls ? before : len;
}

static const struct relay_ops memory_ops = {
    .on_sent = on_memory_sent,
    .may_deliver = memory_may_deliver,
    .on_failed = on_memory_failed,
};

void source_channels_mirrored(struct move_source *ms)
{
    /* libvirt starts RAM only when every mirror is READY. */
    move_set_phase(ms->move, MOVE_MIRRORING);
    disk_source_set_ready(ms->disks);
    if (!ms->downtime_limit_ms) /* a VM without disks */
        source_channels_set_downtime(ms, policy_get(&ms->move->policy, POLICY_DOWNTIME_MS));
    source_stun_prepare(ms); /* likewise: with disks it has begun with the copy */
}

static void on_memory_accept(void *user, int fd)
{
    struct move_source *ms = user;
    struct stream *stream;

    if (ms->memory || !ms->ls ||
        source_channels_open_stream(ms, CARE_RAM, "ram", NULL, &stream) < 0) {
        close(fd);
        return;
    }
    if (relay_new(stream, &memory_ops, ms, &ms->memory) < 0) {
        stream_release(stream);
        close(fd);
        return;
    }
    if (ms->sw.state == SOURCE_FEEDING) {
        relay_attach(ms->memory, ms->service->loop, fd);
        return;
    }
    source_channels_mirrored(ms);
    if (source_disks_may_qmp(ms)) { /* the limit was the copy's */
        ms->move->pending++;
        virt_set_speed(ms->service->virt, ms->move->info.uuid, 0, source_channels_limit_set, ms);
    }
    if (ms->encoder)
        relay_set_pipe(ms->memory, RAM_PIPE_ENCODER, TAKE_PTR(ms->encoder));
    relay_set_paused(ms->memory, true);
    relay_attach(ms->memory, ms->service->loop, fd);
    source_hold_begin(ms);
}

void source_channels_send_memory(struct move_source *ms)
{
    /* What is in the log when the guest stops, it waits for. */
    ms->memory_waits = source_disks_must_wait(ms);
    if (ms->memory_waits) {
        log_info("move %s (%s): the log drains%s before the memory is sent", ms->move->id,
                 ms->move->info.name, ms->move->verify ? ", and the disks are compared," : "");
        return;
    }
    move_set_phase(ms->move, MOVE_MEMORY);
    if (ms->memory)
        relay_set_paused(ms->memory, false);
}

void source_channels_set_downtime(struct move_source *ms, uint64_t limit_ms)
{
    if (ms->downtime_limit_ms)
        log_debug("move %s: downtime limit %llu -> %llu ms", ms->move->id,
                  (unsigned long long)ms->downtime_limit_ms, (unsigned long long)limit_ms);
    ms->downtime_limit_ms = limit_ms;
    ms->move->pending++;
    virt_set_downtime(ms->service->virt, ms->move->info.uuid, (unsigned)limit_ms,
                      source_channels_limit_set, ms);
}

/* --- libvirt's migration ------------------------------------------------------------------- */

static void on_migrated(void *user, const struct error *err)
{
    struct move_source *ms = user;

    ms->migrating = false;
    if (ms->sw.state == SOURCE_FEEDING && err->code) {
        source_postcopy_interrupted(ms, err);
    } else if (!err->code) {
        /* libvirt counts the move as done: it has read the reply. */
        if (ms->sw.state == SOURCE_RELEASING || ms->sw.state == SOURCE_CHECKING)
            move_source_step(ms, SOURCE_ON_REPLY_READ);
        else if (ms->sw.state == SOURCE_MOVING)
            log_error("move %s: libvirt ended the migration without our reply", ms->move->id);
    } else if (ms->sw.state == SOURCE_DECIDING || ms->sw.state == SOURCE_RELEASING) {
        move_source_step(ms, SOURCE_ON_RPC_LOST);
    } else if (ms->sw.state == SOURCE_MOVING) {
        ms->reason_is_libvirts = true;
        move_source_fail(ms, err);
    }
    if (ms->check_wanted)
        source_domain_check(ms);
    move_source_call_returned(ms);
}

/* For libvirt and QEMU here. */
static int listen_for_them(struct move_source *ms, struct error *err)
{
    struct service *s = ms->service;
    int r =
        local_listener_new(s->loop, ms->paths.rpc, 0, 0, on_rpc_accept, ms, &ms->rpc_listener, err);

    return r < 0 ? r
                 : local_listener_new(s->loop, ms->paths.memory, s->qemu_uid, s->qemu_gid,
                                      on_memory_accept, ms, &ms->memory_listener, err);
}

static void migrate(struct move_source *ms, struct virt_migration *m, const char *memory_uri)
{
    snprintf(m->uuid, sizeof(m->uuid), "%s", ms->move->info.uuid);
    snprintf(m->destination_uri, sizeof(m->destination_uri), "qemu+unix:///system?socket=%s",
             ms->paths.rpc);
    snprintf(m->memory_uri, sizeof(m->memory_uri), "%s", memory_uri);
    ms->migrating = true;
    ms->move->pending++;
    virt_migrate(ms->service->virt, m, on_migrated, ms);
}

static void start_migration(struct move_source *ms, const char *memory_uri)
{
    struct virt_migration m = {
        .persistent = ms->move->persistent && !ms->move->drill, /* a clone is never defined */
    };
    const struct policy *policy = &ms->move->policy;

    if (policy_get(policy, POLICY_CONVERGE) == CONVERGE_AUTO_CONVERGE) {
        m.auto_converge_initial = (int)policy_get(policy, POLICY_AUTO_CONVERGE_INITIAL);
        m.auto_converge_increment = (int)policy_get(policy, POLICY_AUTO_CONVERGE_INCREMENT);
    }
    if (policy_get(policy, POLICY_COMPRESSION) == COMPRESSION_XBZRLE)
        m.xbzrle_cache_bytes = policy_get(policy, POLICY_XBZRLE_CACHE);

    /* A copy that starts unlimited occupies QEMU's main loop, which then serves neither the guest's
     * disk nor the monitor that is to slow it down. */
    if (ms->service->config->monitor)
        m.speed_mib_s = source_disks_first_speed_mib_s(ms);

    if (ms->move->drill)
        drill_clone_name(ms->move->info.name, ms->move->id, m.target_name);
    m.rewritten = ms->rewritten;
    m.rewrite = ms->rewrite;
    if (ms->direct.memory) {
        m.parallel_connections = (int)policy_get(policy, POLICY_PARALLEL);
        m.zero_copy = policy_get(policy, POLICY_ZERO_COPY);
    }
    snprintf(m.disks_uri, sizeof(m.disks_uri), "unix://%s", ms->paths.disk);
    m.may_postcopy = ms->move->may_postcopy;
    migrate(ms, &m, memory_uri);
}

int source_channels_open(struct move_source *ms, struct error *err)
{
    struct service *s = ms->service;
    struct link_session_info info;
    struct ram_pipe_blocks blocks;
    char memory_uri[256];
    int r = move_paths_make(s, &ms->paths, err);

    if (r == 0 && ms->direct.memory)
        r = source_direct_uri(ms, memory_uri, sizeof(memory_uri), err);
    else
        snprintf(memory_uri, sizeof(memory_uri), "unix://%s", ms->paths.memory);
    ms->channels_open = true;
    if (r == 0 && ms->codec.references > 0 && source_blocks_open(ms, &blocks) < 0)
        r = error_set(err, -EPIPE, "open the move's channels", NULL, "no stream for references");
    if (r == 0 && (ram_parser_new(&ms->parser) < 0 || congestion_new(&ms->congestion) < 0 ||
                   (ms->codec.used && ram_pipe_new(s->loop, RAM_PIPE_ENCODER, &ms->codec.config,
                                                   ms->keeper ? &blocks : NULL, &ms->encoder) < 0)))
        r = error_set(err, -ENOMEM, "open the move's channels", NULL, "out of memory");
    if (r == 0)
        r = listen_for_them(ms, err);
    if (r == 0)
        r = source_disks_open(ms, err);
    if (r < 0)
        return r;
    link_session_get_info(ms->ls, &info);
    ms->wire_base = info.stats.wire_sent_bytes + info.stats.wire_received_bytes;
    start_migration(ms, memory_uri);
    return 0;
}

int source_channels_reopen(struct move_source *ms, struct error *err)
{
    struct virt_migration m = {.resume_postcopy = true, .persistent = ms->move->persistent};
    char memory_uri[256];
    int r;

    ms->opening.count = 0; /* was that of the connection before */
    ms->memory_before = ms->move->progress.memory_stream;
    ms->memory_wire_before = ms->move->progress.memory_wire;
    move_paths_remove(&ms->paths);
    r = move_paths_make(ms->service, &ms->paths, err);
    ms->channels_open = true;
    if (r == 0)
        r = listen_for_them(ms, err);
    if (r < 0)
        return r;
    snprintf(memory_uri, sizeof(memory_uri), "unix://%s", ms->paths.memory);
    migrate(ms, &m, memory_uri);
    return 0;
}

static void measure_memory(struct move_source *ms)
{
    struct move_progress *p = &ms->move->progress;

    if (!ms->memory)
        return;
    p->memory_stream = ms->memory_before + relay_read_bytes(ms->memory);
    p->memory_wire = ms->memory_wire_before + relay_sent_bytes(ms->memory);
    p->memory_codec = relay_pipe(ms->memory) != NULL;
    if (p->memory_codec)
        ram_pipe_get_stats(relay_pipe(ms->memory), &p->codec);
    if (ms->keeper)
        p->codec.codec.references_missed = page_keeper_misses(ms->keeper);
}

void source_channels_detach(struct move_source *ms)
{
    rpc_relay_detach(ms->rpc);
    relay_detach(ms->memory);
    source_blocks_close(ms);
    if (ms->disks)
        disk_source_detach(ms->disks);
}

void source_channels_close(struct move_source *ms)
{
    if (!ms->channels_open)
        return;
    if (ms->learnt.count > 0 && !ms->learnt.over) /* libvirt did not get on: perhaps by our fault */
        ms->service->rpc_opening.count = 0;
    stop_reply_timer(ms);
    source_stun_free(ms);
    local_listener_free(TAKE_PTR(ms->rpc_listener));
    local_listener_free(TAKE_PTR(ms->memory_listener));
    rpc_relay_free(TAKE_PTR(ms->rpc));
    measure_memory(ms);
    relay_free(TAKE_PTR(ms->memory));
    ram_pipe_free(TAKE_PTR(ms->encoder));
    source_blocks_close(ms);
    disk_source_free(TAKE_PTR(ms->disks));
    ram_parser_free(TAKE_PTR(ms->parser));
    congestion_free(TAKE_PTR(ms->congestion));
    move_paths_remove(&ms->paths);
    ms->channels_open = false;
}

/* --- measurements -------------------------------------------------------------------------- */

static void on_job_stats(void *user, const struct error *err, const struct virt_job_stats *stats)
{
    struct move_source *ms = user;
    struct move_progress *p = &ms->move->progress;

    ms->stats_running = false;
    if (!err->code && stats->active) {
        if (stats->memory_total)
            p->memory_total = stats->memory_total;
        p->memory_remaining = stats->memory_remaining;
        p->memory_processed = stats->memory_processed;
        p->iterations = MAX(p->iterations, stats->memory_iteration);
        p->dirty_rate = stats->memory_dirty_rate * stats->memory_page_size;
        if (ms->direct.memory && stats->memory_iteration > 0) {
            p->memory_stream = p->memory_wire = stats->memory_processed;
            source_direct_begin(ms);
        }
        if (ms->move->phase == MOVE_COPYING &&
            stats->disk_total) /* it counts the guest's writes, too */
            p->disk_done = MIN(MAX(p->disk_done, stats->disk_processed), p->disk_total);
    }
    if (ms->move->phase >= MOVE_MEMORY)
        p->disk_done = p->disk_total;
    move_source_call_returned(ms);
}

static uint64_t rate_since(uint64_t before_bytes, uint64_t now_bytes, uint64_t span_ns)
{
    return (now_bytes - MIN(before_bytes, now_bytes)) * NS_PER_MS / (span_ns / 1000 + 1);
}

static void measure_link(struct move_source *ms, uint64_t now_ns)
{
    struct move_progress *p = &ms->move->progress;
    struct link_session_info info;
    unsigned slot = ms->ticks / RATE_SPAN_TICKS % ARRAY_SIZE(ms->rate_ns);
    uint64_t wire;

    if (!ms->ls)
        return;
    link_session_get_info(ms->ls, &info);
    wire = info.stats.wire_sent_bytes + info.stats.wire_received_bytes;
    p->link_wire = wire - MIN(ms->wire_base, wire);
    p->outages = info.outages;
    p->rtt_us = info.stats.rtt_min_ns / 1000;
    if (ms->ticks % RATE_SPAN_TICKS == 0) {
        uint64_t payload = p->disk_payload + p->memory_stream;

        if (ms->rate_ns[slot]) {
            p->rate = rate_since(ms->rate_bytes[slot], p->link_wire, now_ns - ms->rate_ns[slot]);
            p->payload_rate =
                rate_since(ms->payload_bytes[slot], payload, now_ns - ms->rate_ns[slot]);
        }
        ms->rate_bytes[slot] = p->link_wire;
        ms->payload_bytes[slot] = payload;
        ms->rate_ns[slot] = now_ns;
    }
}

void source_channels_tick(struct move_source *ms, uint64_t now_ns)
{
    ms->ticks++;
    if (!ms->channels_open)
        return;
    measure_link(ms, now_ns);
    measure_memory(ms);
    if (ms->memory && relay_pipe(ms->memory))
        ram_pipe_adapt(relay_pipe(ms->memory), now_ns, relay_waits_for_link(ms->memory),
                       move_count_sending(ms->service));
    if (ms->disks)
        source_disks_tick(ms, now_ns);
    source_blocks_tick(ms);
    if (ms->memory_waits && !source_disks_must_wait(ms))
        source_channels_send_memory(ms);
    source_direct_tick(ms);
    source_stun_tick(ms, now_ns);
    if (ms->migrating && !ms->stats_running &&
        (ms->move->phase == MOVE_MEMORY || ms->ticks % STATS_EVERY_TICKS == 0)) {
        ms->stats_running = true;
        ms->move->pending++;
        virt_job_stats(ms->service->virt, ms->move->info.uuid, on_job_stats, ms);
    }
}
