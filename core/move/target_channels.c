/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The data's way at the target: streams into libvirtd's socket, QEMU's RAM socket and QEMU's NBD server.
 *
 * The gate. Three things must come together before FINISH3 may pass: the call itself, every disk
 * applied and flushed, RAM delivered to its end. The opaque tail of the RAM stream is held back until
 * the disks are done, so that QEMU cannot finish loading over disks that are not there yet. Memory that goes from QEMU
 * to QEMU is not seen here: what gates it is FINISH3 alone. QEMU touches no disk before it is told to run
 * (late-block-activate, which libvirt always sets), and that is after FINISH3.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_target_private.h"

/* Disks are flushed this often all along: what a guest's stop has to wait for is a second's worth. */
enum { FLUSH_AHEAD_TICKS = 10 };

/* --- RPC ----------------------------------------------------------------------------------- */

/* QEMU and its NBD server are up. Outside of the relay's callback, because connecting may fail the move. */
static void connect_disks(void *arg)
{
    struct move *m = arg;
    struct move_target *mt = m->target;
    struct error err = {0};

    m->pending--;
    if (!mt || mt->sw.state != TARGET_RECEIVING)
        return;
    for (unsigned i = 0; i < mt->disk_count; i++) {
        if (disk_target_connect(mt->disks[i], mt->paths.disk, &err) < 0) {
            move_target_fail(mt, &err);
            return;
        }
    }
}

static enum rpc_verdict on_rpc_inbound(void *user, const struct rpc_frame *frame)
{
    struct move_target *mt = user;

    if (frame->kind == RPC_FINISH_CALL && mt->sw.state != TARGET_PULLING) {
        move_set_phase(mt->move, MOVE_STOPPED);
        if (mt->direct_memory) /* the source's QEMU has sent all; libvirt's Finish waits until it is taken */
            move_target_step(mt, TARGET_ON_MEMORY_DONE);
        move_target_step(mt, TARGET_ON_FINISH_CALL);
        return RPC_KEEP;
    }
    return RPC_PASS; /* a cancelled FINISH3 makes libvirtd give up by itself; then its connection ends */
}

static enum rpc_verdict on_rpc_outbound(void *user, const struct rpc_frame *frame)
{
    struct move_target *mt = user;

    if (frame->kind == RPC_PREPARE_REPLY && frame->ok) {
        move_set_phase(mt->move, MOVE_COPYING);
        mt->move->pending++;
        service_defer(mt->service, connect_disks, mt->move);
    }
    if (frame->kind == RPC_FINISH_REPLY)
        mt->moments.answered_ns = clock_now_ns();
    if (frame->kind == RPC_FINISH_REPLY && mt->sw.state == TARGET_PULLING)
        mt->pages_at_ns = clock_now_ns(); /* it may have been the last page */
    if (frame->kind == RPC_FINISH_REPLY && !frame->ok)
        move_target_step(mt, TARGET_ON_FINISH_FAILED);
    return RPC_PASS;
}

static void close_ended_rpc(void *arg)
{
    struct move *m = arg;
    struct move_target *mt = m->target;
    struct error why = {0};

    m->pending--;
    if (!mt || !mt->rpc)
        return;
    rpc_relay_free(TAKE_PTR(mt->rpc));
    error_set(&why, -ECONNRESET, "receive the VM", "see libvirtd's log at both sites",
              "libvirt ended the migration's connection");
    if (mt->sw.state == TARGET_RECEIVING || mt->sw.state == TARGET_PREPARING ||
        mt->sw.state == TARGET_SWITCHED)
        move_target_fail(mt, &why);
}

static void on_rpc_ended(void *user, const struct error *why)
{
    struct move_target *mt = user;

    (void)why;
    mt->move->pending++;
    service_defer(mt->service, close_ended_rpc, mt->move);
}

static const struct rpc_relay_ops rpc_ops = {
    .on_outbound = on_rpc_outbound,
    .on_inbound = on_rpc_inbound,
    .on_ended = on_rpc_ended,
};

void target_channels_run_finish(struct move_target *mt)
{
    if (mt->rpc)
        rpc_relay_release_inbound(mt->rpc);
}

void target_channels_pass_finish(struct move_target *mt)
{
    if (mt->rpc && mt->move->may_postcopy) /* it was begun without VIR_MIGRATE_PAUSED */
        rpc_relay_release_paused(mt->rpc);
    else
        target_channels_run_finish(mt);
}

/* --- memory -------------------------------------------------------------------------------- */

static size_t memory_may_deliver(void *user, uint64_t offset, const uint8_t *data, size_t len)
{
    struct move_target *mt = user;
    uint64_t tail;

    if (offset + len > mt->parsed_bytes) {
        size_t known = (size_t)(mt->parsed_bytes - offset);

        ram_parser_feed(mt->parser, data + known, len - known);
        mt->parsed_bytes = offset + len;
    }
    tail = MIN(ram_parser_tail_offset(mt->parser), ram_parser_package_offset(mt->parser));
    if (mt->disks_done || tail >= offset + len)
        return len;
    if (!mt->moments.tail_waits_ns)
        mt->moments.tail_waits_ns = clock_now_ns();
    return tail > offset ? (size_t)(tail - offset) : 0;
}

/* What QEMU here says back. */
static void on_memory_answered(void *user, const uint8_t *data, size_t len)
{
    struct move_target *mt = user;

    if (!mt->move->may_postcopy || mt->answers.loaded ||
        !return_path_feed(&mt->answers, data, len) ||
        ram_parser_package_offset(mt->parser) == UINT64_MAX)
        return;
    mt->move->switched = true;
    move_set_phase(mt->move, MOVE_STOPPED);
    move_target_step(mt, TARGET_ON_SWITCHED);
}

static void on_memory_delivered(void *user)
{
    move_target_step(((struct move_target *)user), TARGET_ON_MEMORY_DONE);
}

static void on_memory_failed(void *user, const struct error *err)
{
    move_target_fail(user, err);
}

static const struct relay_ops memory_ops = {
    .on_sent = on_memory_answered,
    .may_deliver = memory_may_deliver,
    .on_delivered = on_memory_delivered,
    .on_failed = on_memory_failed,
};

static int add_memory(struct move_target *mt, struct stream *stream)
{
    struct error why = {0};
    int r;

    if (mt->memory)
        return -EEXIST;
    r = relay_new(stream, &memory_ops, mt, &mt->memory);
    if (r < 0)
        return r;
    if (mt->decoder)
        relay_set_pipe(mt->memory, RAM_PIPE_DECODER, TAKE_PTR(mt->decoder));
    move_set_phase(mt->move, MOVE_MEMORY);
    r = relay_connect(mt->memory, mt->service->loop, mt->paths.memory);
    if (r < 0) {
        error_set(&why, r, "reach the new QEMU's memory socket", NULL, "%s: %s", mt->paths.memory,
                  strerror(-r));
        move_target_fail(mt, &why);
    }
    return 0;
}

/* --- disks --------------------------------------------------------------------------------- */

static void kick_memory(void *arg)
{
    struct move *m = arg;

    m->pending--;
    if (m->target && m->target->memory)
        relay_kick(m->target->memory);
}

static void check_disks_done(struct move_target *mt)
{
    for (unsigned i = 0; i < mt->disk_count; i++) {
        if (!disk_target_is_done(mt->disks[i]))
            return;
    }
    if (mt->disks_done)
        return;
    mt->disks_done = true;
    mt->moments.disks_done_ns = clock_now_ns();
    move_target_step(mt, TARGET_ON_DISKS_DONE);
    mt->move->pending++;
    service_defer(mt->service, kick_memory, mt->move);
}

static void on_disk_done(void *user, struct disk_target *d)
{
    (void)d;
    check_disks_done(user);
}

static void on_disk_failed(void *user, const struct error *err)
{
    struct move_target *mt = user;
    struct error why = *err;

    if (!why.mend[0])
        snprintf(why.mend, sizeof(why.mend),
                 "see the disk's file system and /var/log/libvirt/qemu/%.100s.log at the "
                 "target, then start the move again",
                 mt->move->info.name);
    move_target_fail(mt, &why);
}

static const struct disk_target_ops disk_ops = {
    .on_done = on_disk_done,
    .on_failed = on_disk_failed,
};

static int add_disk(struct move_target *mt, const char *alias, struct stream *stream)
{
    for (unsigned i = 0; i < mt->disk_count; i++) {
        if (strcmp(disk_target_export_name(mt->disks[i]), alias) == 0) {
            if (mt->disk_has_stream[i])
                return -EEXIST;
            mt->disk_has_stream[i] = true;
            disk_target_set_stream(mt->disks[i], stream);
            return 0;
        }
    }
    return -ENOENT;
}

/* --- the whole ----------------------------------------------------------------------------- */

int target_channels_open(struct move_target *mt, struct error *err)
{
    const struct domain_info *info = &mt->move->info;
    struct ram_pipe_blocks blocks;
    int r = ram_parser_new(&mt->parser);

    if (r == 0 && mt->codec.references > 0)
        r = target_blocks_new(mt->service->loop, mt->paths.disk, info, &mt->blocks, &blocks);
    if (r == 0 && mt->codec.used) {
        r = ram_pipe_new(mt->service->loop, RAM_PIPE_DECODER, &mt->codec.config,
                         mt->blocks ? &blocks : NULL, &mt->decoder);
        if (r < 0)
            target_blocks_free(TAKE_PTR(mt->blocks));
    }
    for (unsigned i = 0; i < info->disk_count && r == 0; i++) {
        r = disk_target_new(mt->service->loop, info->disks[i].alias, info->disks[i].size_bytes,
                            mt->seeds[i].path[0] ? &mt->seeds[i] : NULL, &disk_ops, mt,
                            &mt->disks[i]);
        if (r == 0)
            mt->disk_count++;
        if (r == 0 && mt->disk_codec.used)
            r = disk_target_unpack(mt->disks[i], &mt->disk_codec);
    }
    if (r < 0)
        return error_set(err, r, "open the move's channels", NULL, "%s", strerror(-r));
    if (info->disk_count == 0)
        check_disks_done(mt);
    return 0;
}

static void close_opened(struct move_target *mt)
{
    if (mt->rpc_fd >= 0)
        close(mt->rpc_fd);
    mt->rpc_fd = -1;
}

int target_channels_connect_rpc(struct move_target *mt, struct stream *stream)
{
    struct error why = {0};
    int fd = mt->rpc_fd >= 0 ? mt->rpc_fd : local_connect_fd(mt->service->config->libvirt_socket);
    int r = fd < 0 ? fd : rpc_relay_new(mt->service->loop, fd, stream, &rpc_ops, mt, &mt->rpc);

    mt->rpc_fd = -1;
    if (r < 0) {
        error_set(&why, r, "reach libvirtd at the target", "is it running there?", "%s: %s",
                  mt->service->config->libvirt_socket, strerror(-r));
        move_target_fail(mt, &why);
    }
    return r;
}

int target_channels_add(struct move_target *mt, const json_t *label, struct stream *stream)
{
    const char *channel = json_string_value(json_object_get(label, "channel"));
    const char *disk = json_string_value(json_object_get(label, "disk"));
    struct error why = {0};

    if (strcmp(channel, "disk") == 0 && disk)
        return add_disk(mt, disk, stream);
    if (strcmp(channel, "ram") == 0)
        return add_memory(mt, stream);
    if (strcmp(channel, "pages") == 0)
        return mt->blocks ? target_blocks_set_stream(mt->blocks, stream) : -EPROTO;
    if (strcmp(channel, "rpc") != 0 || mt->rpc)
        return -EPROTO;
    mt->direct_memory = json_is_true(json_object_get(label, "direct_memory"));
    mt->move->may_postcopy = json_is_true(json_object_get(label, "post_copy"));
    if (!json_is_true(json_object_get(label, "opened"))) /* the source cannot use what was opened */
        close_opened(mt);
    if (mt->direct_memory && !target_files_may_be_direct(mt)) {
        error_set(&why, -EPERM, "receive the VM",
                  "add direct-memory to allow = in the source's [peer] section here",
                  "memory from %s may not come without encryption", mt->move->peer);
        move_target_fail(mt, &why);
        return -EPERM;
    }
    return target_channels_connect_rpc(mt, stream);
}

void target_channels_tick(struct move_target *mt)
{
    struct move_progress *p = &mt->move->progress;
    struct ram_parser_stats ram;

    if (mt->rpc_fd >= 0)
        rpc_opening_keep_alive(mt->rpc_fd);
    if (mt->sw.state == TARGET_RECEIVING && ++mt->ticks % FLUSH_AHEAD_TICKS == 0) {
        for (unsigned i = 0; i < mt->disk_count; i++)
            disk_target_flush_ahead(mt->disks[i]);
    }

    if (mt->memory && mt->parser) {
        p->memory_stream = relay_delivered_bytes(mt->memory);
        p->memory_wire = relay_received_bytes(mt->memory);
        p->memory_codec = relay_pipe(mt->memory) != NULL;
        if (p->memory_codec)
            ram_pipe_get_stats(relay_pipe(mt->memory), &p->codec);
        ram_parser_get_stats(mt->parser, &ram);
        p->memory_total = ram.total_bytes;
    }
    if (mt->disk_count == 0)
        return;
    p->disk_payload = p->disk_done = p->log_fill = p->disk_seed = 0;
    for (unsigned i = 0; i < mt->disk_count; i++) {
        struct mirror_target_stats d;

        disk_target_tick(mt->disks[i]);
        disk_target_get_stats(mt->disks[i], &d);
        p->disk_payload += d.applied_bytes;
        p->disk_seed += d.seed_bytes;
        p->disk_done += d.applied_bytes + d.zeroed_bytes;
        p->log_fill += d.queue_bytes;
    }
    p->disk_done = MIN(p->disk_done, p->disk_total);
}

void target_channels_close(struct move_target *mt)
{
    rpc_relay_free(TAKE_PTR(mt->rpc));
    close_opened(mt);
    relay_free(TAKE_PTR(mt->memory));
    ram_pipe_free(TAKE_PTR(mt->decoder));
    mt->blocks = NULL; /* went with it */
    json_decref(TAKE_PTR(mt->codec_answer));
    json_decref(TAKE_PTR(mt->disk_codec_answer));
    ram_parser_free(TAKE_PTR(mt->parser));
    while (mt->disk_count > 0) {
        mt->disk_count--;
        disk_target_free(TAKE_PTR(mt->disks[mt->disk_count]));
    }
    move_paths_remove(&mt->paths);
}
