/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A whole mirror in one process, without sockets, threads or a clock: NBD clients, the local endpoint,
 * the mirror log, a link, the target engine and a disk. All randomness comes from one seed.
 *
 *   client --random pieces--> mirror_connection -> mirror_source --chunks, delayed--> mirror_target
 *      ^                                                                                   |
 *      +-- model image (what the disk must hold)          sim_disk <-- random order, latency
 *
 * Half of the streams are compressed on their way. Half of the targets have a seed: an image of which the client writes parts again, whole or nearly, that may
 * fail, change, end, and be found late.
 *
 * The client keeps up to 16 requests open and counts on their order of arrival, so every request has
 * exactly one right effect, also when requests overlap: the model applies it when it is sent. A TRIM
 * zeroes or does nothing, by seed, on model and disk alike.
 *
 * Included by several tests; each is one translation unit, so everything here is static.
 */
#ifndef FERRY_TESTS_ENGINE_STORAGE_MIRROR_SIM_H
#define FERRY_TESTS_ENGINE_STORAGE_MIRROR_SIM_H

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/wire.h"
#include "core/base/random.h"
#include "storage/limits.h"
#include "storage/mirror_connection.h"
#include "storage/mirror_endpoint.h"
#include "storage/mirror_pack.h"
#include "storage/mirror_source.h"
#include "storage/mirror_target.h"
#include "storage/nbd_proto.h"

enum {
    SIM_DISKS_MAX = 3,
    SIM_DISK_BYTES = 1024 * 1024,
    SIM_CLIENT_IN_FLIGHT = 16,
    SIM_DISK_QUEUE = 64,
    SIM_STEPS_MAX = 400000,
    SIM_SPOOL_SEGMENT_BYTES = 64 * 1024,
    SIM_SPOOL_SEGMENTS_MAX = 48,
    SIM_SPOOL_QUEUE = 64,
};

/* A sanitizer makes a seed ten times as long; thousands run without. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SIM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SIM_SANITIZED 1
#endif
#endif
#ifdef SIM_SANITIZED
enum { SIM_SEEDS_USUAL = 200 };
#else
enum { SIM_SEEDS_USUAL = 2000 };
#endif

struct sim_random {
    uint64_t state;
};

static inline uint64_t sim_next(struct sim_random *r)
{
    return splitmix64_next(&r->state);
}

static inline uint64_t sim_below(struct sim_random *r, uint64_t n)
{
    return sim_next(r) % n;
}

/* 1 to @most bytes, not more than @len. */
static inline size_t sim_piece(struct sim_random *r, size_t len, size_t most)
{
    size_t piece = 1 + sim_below(r, most);

    return MIN(piece, len);
}

struct sim_open {
    bool used;
    unsigned command;
    uint32_t length;
    uint8_t *expected; /* READ: what it must give */
};

struct sim_disk_request {
    bool used;
    uint64_t cookie, due_ns, offset;
    uint32_t length;
    unsigned kind; /* 0 write, 1 zero, 2 trim, 3 flush, 4 read, 5 read of the seed */
    const uint8_t *data;
    uint8_t *into;
    uint64_t effects; /* flush: what it makes durable */
};

struct sim_chunk {
    struct sim_chunk *next;
    uint64_t due_ns;
    size_t len, at;
    uint8_t data[];
};

struct sim_pipe {
    struct sim_chunk *first, *last;
    size_t bytes;
};

struct sim_spool_request {
    struct mirror_spool_io *io;
    uint64_t due_ns;
};

struct sim;

struct sim_lane { /* one disk with all that belongs to it */
    struct sim *sim;
    char name[32];
    struct mirror_source *source;
    struct mirror_connection *connection;
    struct mirror_target *target;
    struct mirror_packer *packers[2]; /* lanes; NULL: the stream goes as it is */
    struct mirror_unpacker *unpacker;
    uint64_t raw_bytes, wire_bytes;
    bool writer_set;
    struct sim_pipe there, back;
    uint8_t *model;
    uint8_t *disk;
    uint8_t *seed; /* NULL: none */
    bool seed_set, seed_gone, seed_fails;
    struct sim_disk_request requests[SIM_DISK_QUEUE];
    unsigned running;
    uint64_t effects,
        durable; /* requests that took effect; of these, before a flush that completed began */
    /* the client */
    struct buffer to_server;
    struct buffer from_server;
    bool structured, negotiated, closed;
    unsigned sent, goal, in_flight, flushes;
    uint64_t handle;
    struct sim_open open[256];
};

struct sim {
    struct sim_random random;
    uint64_t seed, now_ns;
    bool trim_zeroes;
    uint64_t delay_ns, disk_ns;
    size_t pipe_max;
    bool verify;
    bool aligned;      /* only whole units of verification, and no TRIM */
    int disk_error_at; /* fail this many-th disk request; -1: none */
    int disk_count;
    struct mirror_budget *budget;
    struct mirror_spool *spool; /* NULL: a site without */
    uint8_t *spool_file;
    struct sim_spool_request spool_queue[SIM_SPOOL_QUEUE]; /* served in order */
    unsigned spool_queued;
    int spool_count, spool_write_error_at, spool_read_error_at; /* fail that request; -1: none */
    uint64_t spool_reads;
    struct mirror_endpoint *endpoint;
    unsigned lane_count;
    struct sim_lane lanes[SIM_DISKS_MAX];
    bool failed;
    char failure[256];
};

static void __attribute__((format(printf, 2, 3))) sim_fail(struct sim *s, const char *fmt, ...)
{
    va_list ap;

    if (s->failed)
        return;
    s->failed = true;
    va_start(ap, fmt);
    vsnprintf(s->failure, sizeof(s->failure), fmt, ap);
    va_end(ap);
}

/* --- the link --------------------------------------------------------------------------------- */

static void sim_pipe_put(struct sim *s, struct sim_pipe *p, struct buffer *b)
{
    size_t len;
    struct sim_chunk *c;

    while ((len = buffer_len(b)) > 0) {
        len = sim_piece(&s->random, len, 20000);
        c = malloc(sizeof(*c) + len);
        if (!c)
            abort();
        *c = (struct sim_chunk){.len = len, .due_ns = s->now_ns + s->delay_ns};
        memcpy(c->data, buffer_data(b), len);
        buffer_consume(b, len);
        if (p->last)
            p->last->next = c;
        else
            p->first = c;
        p->last = c;
        p->bytes += len;
    }
}

static struct sim_chunk *sim_pipe_due(struct sim *s, struct sim_pipe *p)
{
    return p->first && p->first->due_ns <= s->now_ns ? p->first : NULL;
}

static void sim_pipe_took(struct sim_pipe *p, size_t len)
{
    struct sim_chunk *c = p->first;

    c->at += len;
    p->bytes -= len;
    if (c->at < c->len)
        return;
    p->first = c->next;
    if (!p->first)
        p->last = NULL;
    free(c);
}

/* --- the disk --------------------------------------------------------------------------------- */

static void sim_effect(struct sim *s, uint8_t *image, unsigned kind, uint64_t offset,
                       uint32_t length, const uint8_t *data)
{
    if (kind == 0)
        memcpy(image + offset, data, length);
    else if (kind == 1 || (kind == 2 && s->trim_zeroes))
        memset(image + offset, 0, length);
}

static int sim_disk_start(struct sim_lane *l, struct sim_disk_request r)
{
    struct sim *s = l->sim;

    if (r.kind == 5 ? l->seed_fails && sim_below(&s->random, 8) == 0
                    : s->disk_error_at == s->disk_count++)
        return -EIO;
    for (unsigned i = 0; i < SIM_DISK_QUEUE; i++) {
        struct sim_disk_request *q = &l->requests[i];

        if (q->used && r.kind != 3 && q->kind != 3 && r.kind != 5 && q->kind != 5 &&
            q->offset < r.offset + r.length && r.offset < q->offset + q->length)
            sim_fail(s, "two overlapping requests at the disk");
    }
    for (unsigned i = 0; i < SIM_DISK_QUEUE; i++) {
        if (l->requests[i].used)
            continue;
        r.used = true;
        r.effects = l->effects;
        r.due_ns = s->now_ns + sim_below(&s->random, s->disk_ns);
        l->requests[i] = r;
        if (++l->running > LIMIT_WRITER_IN_FLIGHT + 1)
            sim_fail(s, "too many requests at the disk");
        return 0;
    }
    abort();
}

static int sim_write(void *writer, uint64_t cookie, uint64_t offset, uint32_t length,
                     const uint8_t *data)
{
    return sim_disk_start(
        writer, (struct sim_disk_request){
                    .cookie = cookie, .offset = offset, .length = length, .kind = 0, .data = data});
}

static int sim_zero(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, bool may_trim)
{
    (void)may_trim;
    return sim_disk_start(
        writer,
        (struct sim_disk_request){.cookie = cookie, .offset = offset, .length = length, .kind = 1});
}

static int sim_trim(void *writer, uint64_t cookie, uint64_t offset, uint32_t length)
{
    return sim_disk_start(
        writer,
        (struct sim_disk_request){.cookie = cookie, .offset = offset, .length = length, .kind = 2});
}

static int sim_flush(void *writer, uint64_t cookie)
{
    return sim_disk_start(writer, (struct sim_disk_request){.cookie = cookie, .kind = 3});
}

static int sim_read(void *writer, uint64_t cookie, uint64_t offset, uint32_t length, uint8_t *data)
{
    return sim_disk_start(
        writer, (struct sim_disk_request){
                    .cookie = cookie, .offset = offset, .length = length, .kind = 4, .into = data});
}

static int sim_seed_read(void *reader, uint64_t cookie, uint64_t offset, uint32_t length,
                         uint8_t *data)
{
    return sim_disk_start(
        reader, (struct sim_disk_request){
                    .cookie = cookie, .offset = offset, .length = length, .kind = 5, .into = data});
}

static const struct disk_writer_ops sim_seed_ops = {.read = sim_seed_read};

static const struct disk_writer_ops sim_disk_ops = {
    .write = sim_write, .zero = sim_zero, .trim = sim_trim, .flush = sim_flush, .read = sim_read};

static int sim_seed_step(struct sim_lane *l, const struct sim_disk_request *r)
{
    if (l->seed_gone || (l->seed_fails && sim_below(&l->sim->random, 8) == 0))
        return -EIO;
    memcpy(r->into, l->seed + r->offset, r->length);
    return 0;
}

static void sim_disk_step(struct sim_lane *l)
{
    struct sim *s = l->sim;
    int err;

    for (unsigned i = 0; i < SIM_DISK_QUEUE; i++) {
        struct sim_disk_request r = l->requests[i];

        if (!r.used || r.due_ns > s->now_ns)
            continue;
        if (r.kind == 5) {
            l->requests[i].used = false;
            l->running--;
            mirror_target_seed_complete(l->target, r.cookie, sim_seed_step(l, &r));
            continue;
        }
        err = s->disk_error_at == s->disk_count++ ? -ENOSPC : 0;
        if (r.kind == 4)
            memcpy(r.into, l->disk + r.offset, r.length);
        else if (r.kind == 3)
            l->durable = MAX(l->durable, r.effects);
        else if (err == 0 && ++l->effects)
            sim_effect(s, l->disk, r.kind, r.offset, r.length, r.data);
        l->requests[i].used = false;
        l->running--;
        mirror_target_complete(l->target, r.cookie, err);
    }
}

/* The seed is found, changes, ends. */
static void sim_seed_change(struct sim_lane *l)
{
    struct sim_random *r = &l->sim->random;

    if (!l->seed)
        return;
    if (!l->seed_set && sim_below(r, 20) == 0) {
        l->seed_set = true;
        if (sim_below(r, 8) == 0)
            mirror_target_set_seed(l->target, NULL, NULL, 0);
        else /* of another size, now and then */
            mirror_target_set_seed(l->target, &sim_seed_ops, l,
                                   SIM_DISK_BYTES >> (sim_below(r, 4) == 0));
    }
    if (sim_below(r, 100) == 0)
        l->seed[sim_below(r, SIM_DISK_BYTES)] ^= 0x21;
    if (l->seed_set && !l->seed_gone && sim_below(r, 4000) == 0) {
        l->seed_gone = true;
        mirror_target_set_seed(l->target, NULL, NULL, 0);
    }
}

/* --- the spool's file ------------------------------------------------------------------------- */

static int sim_spool_start(void *owner, struct mirror_spool_io *io)
{
    struct sim *s = owner;

    if (s->spool_queued == SIM_SPOOL_QUEUE)
        return -ENOMEM;
    s->spool_queue[s->spool_queued++] =
        (struct sim_spool_request){.io = io, .due_ns = s->now_ns + sim_below(&s->random, 20000000)};
    return 0;
}

static void sim_spool_failed(void *owner, int err)
{
    (void)owner;
    (void)err;
}

static void sim_spool_emptied(void *owner)
{
    struct sim *s = owner;

    /* What is read from now on must have been written from now on. */
    memset(s->spool_file, 0xee, (size_t)SIM_SPOOL_SEGMENT_BYTES * SIM_SPOOL_SEGMENTS_MAX);
}

static const struct mirror_spool_ops sim_spool_ops = {
    .start = sim_spool_start, .failed = sim_spool_failed, .emptied = sim_spool_emptied};

static void sim_spool_step(struct sim *s)
{
    while (s->spool_queued > 0 && s->spool_queue[0].due_ns <= s->now_ns) {
        struct mirror_spool_io *io = s->spool_queue[0].io;
        int err = 0;

        memmove(s->spool_queue, s->spool_queue + 1, --s->spool_queued * sizeof(s->spool_queue[0]));
        s->spool_count++;
        if (io->offset + io->length > (uint64_t)SIM_SPOOL_SEGMENT_BYTES * SIM_SPOOL_SEGMENTS_MAX)
            abort();
        if (io->write && s->spool_count == s->spool_write_error_at)
            err = -ENOSPC;
        else if (!io->write && s->spool_read_error_at >= 0 &&
                 s->spool_count >= s->spool_read_error_at)
            err = -EIO;
        else if (io->write)
            memcpy(s->spool_file + io->offset, io->data, io->length);
        else
            memcpy(io->data, s->spool_file + io->offset, io->length);
        s->spool_reads += !io->write;
        mirror_spool_complete(s->spool, io, err, s->now_ns);
    }
}

/* Three sites of four have a spool, small or large; it fails at some write in one of four of these. */
static void sim_spool_begin(struct sim *s)
{
    s->spool_write_error_at = s->spool_read_error_at = -1;
    if (sim_below(&s->random, 4) == 0)
        return;
    s->spool_file = malloc((size_t)SIM_SPOOL_SEGMENT_BYTES * SIM_SPOOL_SEGMENTS_MAX);
    if (!s->spool_file || mirror_spool_new(&s->spool,
                                           SIM_SPOOL_SEGMENT_BYTES *
                                               (1 + sim_below(&s->random, SIM_SPOOL_SEGMENTS_MAX)),
                                           SIM_SPOOL_SEGMENT_BYTES, &sim_spool_ops, s) < 0)
        abort();
    if (sim_below(&s->random, 4) == 0)
        s->spool_write_error_at = 1 + (int)sim_below(&s->random, 20);
}

static void sim_spool_end(struct sim *s)
{
    while (s->spool_queued > 0) {
        s->now_ns = s->spool_queue[0].due_ns;
        sim_spool_step(s);
    }
    mirror_spool_free(s->spool);
    free(s->spool_file);
}

/* --- the client ------------------------------------------------------------------------------- */

static void sim_put_option(struct buffer *b, uint32_t option, const void *data, uint32_t len)
{
    uint8_t head[16];

    put_be64(head, NBD_OPTION_MAGIC);
    put_be32(head + 8, option);
    put_be32(head + 12, len);
    buffer_append(b, head, sizeof(head));
    if (len > 0)
        buffer_append(b, data, len);
}

static void sim_client_hello(struct sim_lane *l)
{
    uint8_t flags[4], go[64];
    uint32_t len = (uint32_t)strlen(l->name);

    put_be32(flags, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    buffer_append(&l->to_server, flags, 4);
    if (l->structured)
        sim_put_option(&l->to_server, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    put_be32(go, len);
    memcpy(go + 4, l->name, len);
    put_be16(go + 4 + len, 0);
    sim_put_option(&l->to_server, NBD_OPT_GO, go, len + 6);
}

static void sim_send(struct sim_lane *l, unsigned command, unsigned flags, uint64_t offset,
                     uint32_t length, const void *data)
{
    uint8_t head[NBD_REQUEST_BYTES];
    struct sim_open *o = &l->open[l->handle % ARRAY_SIZE(l->open)];

    put_be32(head, NBD_REQUEST_MAGIC);
    put_be16(head + 4, (uint16_t)flags);
    put_be16(head + 6, (uint16_t)command);
    put_be64(head + 8, l->handle++);
    put_be64(head + 16, offset);
    put_be32(head + 24, length);
    buffer_append(&l->to_server, head, sizeof(head));
    if (data)
        buffer_append(&l->to_server, data, length);
    if (command == NBD_CMD_DISC)
        return;
    if (o->used)
        abort();
    *o = (struct sim_open){.used = true, .command = command, .length = length};
    if (command == NBD_CMD_READ) {
        o->expected = malloc(length);
        if (!o->expected)
            abort();
        memcpy(o->expected, l->model + offset, length);
    }
    l->in_flight++;
}

static void sim_send_random(struct sim_lane *l)
{
    static uint8_t data[256 * 1024];
    struct sim_random *r = &l->sim->random;
    uint64_t what = sim_below(r, 100);
    uint32_t most = what < 15 ? 200000 : 6000; /* now and then one like the bulk copy's */
    uint32_t length = 1 + (uint32_t)sim_below(r, most);
    /* half of them in a small region, to overlap */
    uint64_t span = sim_below(r, 2) ? SIM_DISK_BYTES - length : 40000;
    uint64_t offset = sim_below(r, MIN(span, (uint64_t)(SIM_DISK_BYTES - length)));

    if (sim_below(r, 3) == 0) {
        offset &= ~UINT64_C(4095); /* aligned and of equal length: exact rewrites happen */
        length = 4096;
    }
    if (what < 10) {
        length = 65536 * (1 + (uint32_t)sim_below(r, 3)); /* bulk, in the log's eyes */
        offset = 65536 * sim_below(r, SIM_DISK_BYTES / 65536 - 2);
    }
    if (l->sim->aligned) {
        offset &= ~UINT64_C(4095);
        length = (length + 4095) & ~UINT32_C(4095);
        what = what >= 82 && what < 90 ? 75 : what;
    }
    if (what < 70) {
        uint64_t word = sim_next(r);

        /* half of it compresses */
        for (uint32_t i = 0; i < length; i += 8, word = what & 2 ? word : word * 5 + 1)
            memcpy(data + i, &word, 8);
        if (what < 10 && l->seed && sim_below(r, 4) > 0) {
            memcpy(data, l->seed + offset, length);
            if (sim_below(r, 2) == 0)
                data[sim_below(r, length)] ^= 0x42;
        }
        if (what == 7)
            memset(data, 0, length);
        else if (length >= 131072 && (what & 1))
            memset(data + 65536 * sim_below(r, 2), 0, 65536);
        sim_effect(l->sim, l->model, 0, offset, length, data);
        sim_send(l, NBD_CMD_WRITE, 0, offset, length, data);
    } else if (what < 82) {
        sim_effect(l->sim, l->model, 1, offset, length, NULL);
        sim_send(l, NBD_CMD_WRITE_ZEROES, what & 1 ? NBD_CMD_FLAG_NO_HOLE : 0, offset, length,
                 NULL);
    } else if (what < 90) {
        sim_effect(l->sim, l->model, 2, offset, length, NULL);
        sim_send(l, NBD_CMD_TRIM, 0, offset, length, NULL);
    } else if (what < 96) {
        sim_send(l, NBD_CMD_FLUSH, 0, 0, 0, NULL);
    } else {
        sim_send(l, NBD_CMD_READ, 0, offset, length, NULL);
    }
}

static void sim_client_work(struct sim_lane *l)
{
    if (!l->negotiated || l->closed)
        return;
    while (l->sent < l->goal && l->in_flight < SIM_CLIENT_IN_FLIGHT &&
           sim_below(&l->sim->random, 4) > 0) {
        sim_send_random(l);
        l->sent++;
    }
    if (l->sent < l->goal || l->in_flight > 0)
        return;
    if (l->flushes++ < 4) { /* as QEMU at the switchover */
        sim_send(l, NBD_CMD_FLUSH, 0, 0, 0, NULL);
    } else {
        sim_send(l, NBD_CMD_DISC, 0, 0, 0, NULL);
        l->closed = true;
    }
}

static void sim_client_reply(struct sim_lane *l, uint64_t handle, uint32_t error,
                             const uint8_t *data, size_t len)
{
    struct sim_open *o = &l->open[handle % ARRAY_SIZE(l->open)];

    if (!o->used || handle >= l->handle) {
        sim_fail(l->sim, "a reply nobody asked for");
        return;
    }
    if (error)
        sim_fail(l->sim, "command %u answered with error %u", o->command, error);
    else if (o->command == NBD_CMD_READ &&
             (len != o->length || memcmp(data, o->expected, len) != 0))
        sim_fail(l->sim, "a READ saw something else than was written before it");
    free(o->expected);
    memset(o, 0, sizeof(*o));
    l->in_flight--;
}

static bool sim_client_handshake(struct sim_lane *l)
{
    const uint8_t *p = buffer_data(&l->from_server);
    size_t have = buffer_len(&l->from_server);
    size_t at = NBD_GREETING_BYTES, len;

    while (have >= at + NBD_OPTION_REPLY_HEADER_BYTES) {
        len = get_be32(p + at + 16);
        if (have < at + NBD_OPTION_REPLY_HEADER_BYTES + len)
            return false;
        if (get_be32(p + at + 8) == NBD_OPT_GO && get_be32(p + at + 12) == NBD_REP_ACK) {
            buffer_consume(&l->from_server, at + NBD_OPTION_REPLY_HEADER_BYTES + len);
            l->negotiated = true;
            return true;
        }
        if (get_be32(p + at + 12) & UINT32_C(0x80000000))
            sim_fail(l->sim, "the handshake was refused");
        at += NBD_OPTION_REPLY_HEADER_BYTES + len;
    }
    return false;
}

/* One reply of the server; false when it is not whole yet. */
static bool sim_client_parse(struct sim_lane *l)
{
    const uint8_t *p = buffer_data(&l->from_server);
    size_t have = buffer_len(&l->from_server), len = 0;
    uint64_t handle;

    if (have < NBD_SIMPLE_REPLY_BYTES)
        return false;
    handle = get_be64(p + 8);
    if (get_be32(p) == NBD_SIMPLE_REPLY_MAGIC) {
        if (l->open[handle % ARRAY_SIZE(l->open)].command == NBD_CMD_READ && !get_be32(p + 4))
            len = l->open[handle % ARRAY_SIZE(l->open)].length;
        if (have < NBD_SIMPLE_REPLY_BYTES + len)
            return false;
        sim_client_reply(l, handle, get_be32(p + 4), p + NBD_SIMPLE_REPLY_BYTES, len);
        buffer_consume(&l->from_server, NBD_SIMPLE_REPLY_BYTES + len);
        return true;
    }
    if (get_be32(p) != NBD_STRUCTURED_REPLY_MAGIC || have < NBD_STRUCTURED_REPLY_BYTES) {
        if (have >= NBD_STRUCTURED_REPLY_BYTES)
            sim_fail(l->sim, "a reply without magic");
        return false;
    }
    len = get_be32(p + 16);
    if (have < NBD_STRUCTURED_REPLY_BYTES + len)
        return false;
    if (get_be16(p + 6) == NBD_REPLY_TYPE_OFFSET_DATA)
        sim_client_reply(l, handle, 0, p + NBD_STRUCTURED_REPLY_BYTES + 8, len - 8);
    else
        sim_client_reply(l, handle, get_be32(p + NBD_STRUCTURED_REPLY_BYTES), NULL, 0);
    buffer_consume(&l->from_server, NBD_STRUCTURED_REPLY_BYTES + len);
    return true;
}

/* --- the loop --------------------------------------------------------------------------------- */

static void sim_client_step(struct sim_lane *l)
{
    struct sim *s = l->sim;
    struct buffer *out;
    size_t len;

    sim_client_work(l);
    len = buffer_len(&l->to_server);
    if (len > 0 && mirror_connection_wants_input(l->connection)) {
        len = sim_piece(&s->random, len, 60000);
        mirror_connection_feed(l->connection, buffer_data(&l->to_server), len, s->now_ns);
        buffer_consume(&l->to_server, len);
    }
    out = mirror_connection_output(l->connection);
    len = buffer_len(out);
    if (len > 0) {
        len = 1 + sim_below(&s->random, len);
        buffer_append(&l->from_server, buffer_data(out), len);
        buffer_consume(out, len);
        mirror_connection_drained(l->connection, s->now_ns);
    }
    while (buffer_len(&l->from_server) > 0 && !s->failed)
        if (!(l->negotiated ? sim_client_parse(l) : sim_client_handshake(l)))
            break;
}

static void sim_pull(struct sim_lane *l)
{
    struct sim *s = l->sim;
    size_t most = 1 + sim_below(&s->random, s->pipe_max - l->there.bytes), len;
    struct buffer raw = {0}, out = {0};

    if (!l->packers[0]) {
        mirror_source_pull(l->source, &out, most, s->now_ns);
    } else {
        len = mirror_source_pull(l->source, &raw, MIN(most, (size_t)MIRROR_CHUNK_BYTES), s->now_ns);
        /* the level changes now and then, and some pieces go plain */
        if (len > 0 && mirror_packer_pack(
                           l->packers[sim_below(&s->random, 2)], sim_below(&s->random, 10) ? 1 : -1,
                           sim_below(&s->random, 8) == 0, buffer_data(&raw), len, &out) < 0)
            abort();
        l->raw_bytes += len;
        l->wire_bytes += buffer_len(&out);
    }
    sim_pipe_put(s, &l->there, &out);
    buffer_done(&raw);
    buffer_done(&out);
}

/* False: the target takes no more of it now. */
static bool sim_feed_unpacked(struct sim_lane *l)
{
    const uint8_t *data = NULL;
    size_t len;

    while ((len = mirror_unpacker_peek(l->unpacker, &data)) > 0) {
        ssize_t n = mirror_target_feed(l->target, data, len);

        if (n <= 0)
            return false;
        mirror_unpacker_consume(l->unpacker, (size_t)n);
    }
    return true;
}

static ssize_t sim_feed(struct sim_lane *l, const uint8_t *data, size_t len)
{
    struct error e = {0};
    ssize_t n;

    if (!l->unpacker)
        return mirror_target_feed(l->target, data, len);
    if (!sim_feed_unpacked(l))
        return 0;
    n = mirror_unpacker_feed(l->unpacker, data, len, &e);
    if (n < 0)
        sim_fail(l->sim, "%s: %s", l->name, e.why);
    return n;
}

static void sim_link_step(struct sim_lane *l)
{
    struct sim *s = l->sim;
    struct buffer out = {0};
    struct sim_chunk *c;
    ssize_t n;

    if (l->there.bytes < s->pipe_max)
        sim_pull(l);
    while ((c = sim_pipe_due(s, &l->there))) {
        n = sim_feed(l, c->data + c->at, c->len - c->at);
        if (n <= 0)
            break;
        sim_pipe_took(&l->there, (size_t)n);
    }
    if (l->unpacker)
        sim_feed_unpacked(l);
    mirror_target_pull(l->target, &out, 1 + sim_below(&s->random, 100000));
    sim_pipe_put(s, &l->back, &out);
    while ((c = sim_pipe_due(s, &l->back))) {
        mirror_source_feed(l->source, c->data + c->at, c->len - c->at, s->now_ns);
        sim_pipe_took(&l->back, c->len - c->at);
    }
    buffer_done(&out);
}

static void sim_step(struct sim *s)
{
    s->now_ns += 1 + sim_below(&s->random, 2000000);
    sim_spool_step(s);
    for (unsigned i = 0; i < s->lane_count; i++) {
        struct sim_lane *l = &s->lanes[i];

        /* the disk of the target appears only after a while */
        if (!l->writer_set && sim_below(&s->random, 20) == 0) {
            l->writer_set = true;
            mirror_target_set_writer(l->target, &sim_disk_ops, l);
        }
        sim_seed_change(l);
        sim_client_step(l);
        sim_link_step(l);
        sim_disk_step(l);
        if (sim_below(&s->random, 50) == 0)
            mirror_target_flush_ahead(l->target);
        if (!l->closed && l->negotiated && sim_below(&s->random, 200) == 0)
            mirror_source_flush_ahead(l->source);
        if (s->verify && !s->aligned && sim_below(&s->random, 30) == 0) {
            mirror_source_set_ready(l->source, true);
            mirror_source_verify(l->source);
        }
    }
}

static bool sim_is_over(const struct sim *s)
{
    for (unsigned i = 0; i < s->lane_count; i++) {
        enum mirror_source_state state = mirror_source_state(s->lanes[i].source);

        if (state != MIRROR_SOURCE_DONE && state != MIRROR_SOURCE_FAILED)
            return false;
    }
    return true;
}

static void sim_lane_new(struct sim *s, struct sim_lane *l, unsigned index, unsigned goal)
{
    l->sim = s;
    snprintf(l->name, sizeof(l->name), "drive-virtio-disk%u", index);
    l->goal = goal;
    l->structured = sim_below(&s->random, 2);
    if (sim_below(&s->random, 2)) {
        l->seed = malloc(SIM_DISK_BYTES);
        for (uint32_t i = 0; l->seed && i < SIM_DISK_BYTES; i += 8) {
            uint64_t word = sim_next(&s->random);

            memcpy(l->seed + i, &word, 8);
        }
        l->seed_fails = sim_below(&s->random, 4) == 0;
    }
    if (sim_below(&s->random, 2) &&
        (mirror_packer_new(&l->packers[0], MIRROR_WINDOW_LOG_LEAST, 0, 2) < 0 ||
         mirror_packer_new(&l->packers[1], MIRROR_WINDOW_LOG_LEAST, 1, 2) < 0 ||
         mirror_unpacker_new(&l->unpacker, MIRROR_WINDOW_LOG_LEAST, 2) < 0))
        abort();
    l->model = calloc(1, SIM_DISK_BYTES);
    l->disk = calloc(1, SIM_DISK_BYTES);
    if (!l->model || !l->disk ||
        mirror_source_new(&l->source, &(struct mirror_source_params){.export_name = l->name,
                                                                     .size_bytes = SIM_DISK_BYTES,
                                                                     .budget = s->budget,
                                                                     .spool = s->spool,
                                                                     .verify = s->verify,
                                                                     .seeded = l->seed != NULL}) <
            0 ||
        mirror_endpoint_add(s->endpoint, l->source) < 0 ||
        mirror_connection_new(&l->connection, s->endpoint, NULL, NULL) < 0 ||
        mirror_target_new(&l->target, &(struct mirror_target_params){.alias = l->name,
                                                                     .size_bytes = SIM_DISK_BYTES,
                                                                     .seeded = l->seed != NULL}) <
            0)
        abort();
    sim_client_hello(l);
}

static void sim_pipe_done(struct sim_pipe *p)
{
    while (p->first)
        sim_pipe_took(p, p->first->len - p->first->at);
}

static void sim_lane_free(struct sim_lane *l)
{
    mirror_connection_free(l->connection);
    mirror_endpoint_remove(l->sim->endpoint, l->source);
    mirror_source_free(l->source);
    mirror_target_free(l->target);
    mirror_packer_free(l->packers[0]);
    mirror_packer_free(l->packers[1]);
    mirror_unpacker_free(l->unpacker);
    sim_pipe_done(&l->there);
    sim_pipe_done(&l->back);
    buffer_done(&l->to_server);
    buffer_done(&l->from_server);
    for (unsigned i = 0; i < ARRAY_SIZE(l->open); i++)
        free(l->open[i].expected);
    free(l->model);
    free(l->disk);
    free(l->seed);
}

static void sim_check_lane(struct sim *s, struct sim_lane *l)
{
    struct mirror_source_stats source;
    struct mirror_target_stats target;

    mirror_source_stats(l->source, &source);
    mirror_target_stats(l->target, &target);
    if (mirror_source_state(l->source) != MIRROR_SOURCE_DONE)
        sim_fail(s, "%s: source %s: %s", l->name,
                 mirror_source_state_name(mirror_source_state(l->source)),
                 mirror_source_error(l->source)->why);
    else if (mirror_target_state(l->target) != MIRROR_TARGET_DONE)
        sim_fail(s, "%s: target is %s", l->name,
                 mirror_target_state_name(mirror_target_state(l->target)));
    else if (memcmp(l->model, l->disk, SIM_DISK_BYTES) != 0)
        sim_fail(s, "%s: the disks differ", l->name);
    else if (l->durable != l->effects)
        sim_fail(s, "%s: done without a flush of everything", l->name);
    else if (source.log.held_now != 0 || source.log.fill_bytes != 0 ||
             source.log.unsent_bytes != 0 || source.log.spooled_bytes != 0)
        sim_fail(s, "%s: the log is done and not empty", l->name);
    else if (target.queue_bytes != 0 || target.queue_operations != 0 || target.in_flight != 0)
        sim_fail(s, "%s: the target is done and not empty", l->name);
    else if (target.queue_peak_bytes > LIMIT_TARGET_QUEUE_BYTES)
        sim_fail(s, "%s: the target held too much", l->name);
}

/* What happened over all seeds, so that a test can see that it tested something. */
struct sim_totals {
    uint64_t held, coalesced, applied, spooled, spool_reads, checked, seeded, missed;
    uint64_t packed_raw, packed; /* of the compressed streams: before, after */
};

static void sim_count(struct sim *s, struct sim_totals *totals)
{
    struct mirror_source_stats stats;
    struct mirror_target_stats target;

    for (unsigned i = 0; i < s->lane_count; i++) {
        mirror_source_stats(s->lanes[i].source, &stats);
        totals->held += stats.log.held_count;
        totals->coalesced += stats.log.coalesced_entries;
        totals->applied += stats.log.applied_entries;
        totals->spooled += stats.log.spooled_ever_bytes;
        totals->checked += stats.check.checked_bytes;
        totals->seeded += stats.log.seed_bytes;
        mirror_target_stats(s->lanes[i].target, &target);
        totals->missed += target.seed_misses;
        totals->packed_raw += s->lanes[i].raw_bytes;
        totals->packed += s->lanes[i].wire_bytes;
    }
    totals->spool_reads += s->spool_reads;
}

static void sim_begin_as(struct sim *s, uint64_t seed, bool aligned)
{
    memset(s, 0, sizeof(*s));
    s->aligned = aligned;
    s->seed = s->random.state = seed;
    s->now_ns = 1000000000;
    s->disk_error_at = -1;
    s->trim_zeroes = sim_below(&s->random, 2);
    s->delay_ns = sim_below(&s->random, 3) * 40000000;
    s->disk_ns = 1 + sim_below(&s->random, 30000000);
    s->pipe_max = 1000 + sim_below(&s->random, 300000);
    if (mirror_budget_new(&s->budget, LIMIT_LOG_LEAST_BYTES) < 0 ||
        mirror_endpoint_new(&s->endpoint) < 0)
        abort();
    sim_spool_begin(s);
    s->verify = aligned || sim_below(&s->random, 2);
    s->lane_count = 1 + (unsigned)sim_below(&s->random, SIM_DISKS_MAX);
    for (unsigned i = 0; i < s->lane_count; i++)
        sim_lane_new(s, &s->lanes[i], i, 20 + (unsigned)sim_below(&s->random, 200));
}

static void sim_begin(struct sim *s, uint64_t seed)
{
    sim_begin_as(s, seed, false);
}

static void sim_run(struct sim *s)
{
    for (unsigned i = 0; i < SIM_STEPS_MAX && !s->failed && !sim_is_over(s); i++)
        sim_step(s);
    if (!s->failed && !sim_is_over(s))
        sim_fail(s, "it does not end");
}

static void sim_end(struct sim *s)
{
    for (unsigned i = 0; i < s->lane_count; i++)
        sim_lane_free(&s->lanes[i]);
    mirror_endpoint_free(s->endpoint);
    mirror_budget_free(s->budget);
    sim_spool_end(s);
}

/* A whole mirror without faults must end with equal disks. False: s->failure says what went wrong. */
static inline bool sim_mirror(struct sim *s, uint64_t seed, struct sim_totals *totals)
{
    sim_begin(s, seed);
    sim_run(s);
    for (unsigned i = 0; i < s->lane_count; i++)
        sim_check_lane(s, &s->lanes[i]);
    /* A disk whose next bytes are on the spool may read them whatever else is held. */
    if (mirror_budget_peak_bytes(s->budget) >
        mirror_budget_limit_bytes(s->budget) +
            (s->spool ? s->lane_count * (uint64_t)SIM_SPOOL_SEGMENT_BYTES : 0))
        sim_fail(s, "the logs held %" PRIu64 " bytes, more than their budget",
                 mirror_budget_peak_bytes(s->budget));
    sim_count(s, totals);
    sim_end(s);
    return !s->failed;
}

/* FERRY_SEED runs one seed, FERRY_SEEDS so many. */
static inline void sim_seeds(uint64_t usual, uint64_t *ret_first, uint64_t *ret_count)
{
    const char *one = getenv("FERRY_SEED"), *many = getenv("FERRY_SEEDS");

    *ret_first = one ? strtoull(one, NULL, 0) : 1;
    *ret_count = one ? 1 : many ? strtoull(many, NULL, 0) : usual;
}

#endif
