/* SPDX-License-Identifier: Apache-2.0 */
/* A target disk on the loop: see disk_target.h. */
#include "core/disk/disk_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/disk/nbd_poll.h"
#include "storage/disk_writer_nbd.h"
#include "storage/mirror_pack.h"

enum { SEED_OPEN_S = 10 };

struct disk_target {
    uv_loop_t *loop;
    const struct disk_target_ops *ops;
    void *user;
    char export_name[DISK_ALIAS_BYTES];
    uint64_t size_bytes;
    struct stream *stream;
    struct mirror_target *mirror;
    struct mirror_unpacker *unpacker; /* NULL: the stream comes as it is */
    struct disk_writer_nbd *writer;
    struct nbd_poll *poll;
    struct disk_writer_nbd *seed; /* NULL: none */
    struct nbd_poll *seed_poll;
    uint64_t seed_since_ns; /* it is being opened since; 0: no more */
    bool told_done, failed, advancing;
    struct buffer scratch;
};

static void advance(struct disk_target *d);

/* --- QEMU's disk --------------------------------------------------------------------------- */

static void on_served(void *user)
{
    advance(user);
}

static void on_writer_ready(void *owner)
{
    struct disk_target *d = owner;

    mirror_target_set_writer(d->mirror, &disk_writer_nbd_ops, d->writer);
}

static void on_writer_complete(void *owner, uint64_t cookie, int err)
{
    struct disk_target *d = owner;

    mirror_target_complete(d->mirror, cookie, err);
}

static void on_writer_closed(void *owner, const struct error *why)
{
    struct disk_target *d = owner;
    struct error gone = *why;

    if (!error_is_set(&gone))
        error_set(&gone, -ENOTCONN, "write the target's disk", NULL, "QEMU's NBD server ended");
    mirror_target_fail(d->mirror, &gone); /* no-op when the disk is done */
}

static const struct disk_writer_nbd_callbacks writer_callbacks = {
    .ready = on_writer_ready,
    .complete = on_writer_complete,
    .closed = on_writer_closed,
};

int disk_target_connect(struct disk_target *d, const char *socket_path, struct error *err)
{
    struct disk_writer_nbd_params params = {
        .socket_path = socket_path,
        .export_name = d->export_name,
        .size_bytes = d->size_bytes,
        .callbacks = &writer_callbacks,
        .owner = d,
    };
    int r;

    if (d->writer)
        return 0;
    r = disk_writer_nbd_new(&d->writer, &params, err);
    if (r < 0)
        return r;
    r = nbd_poll_new(d->loop, d->writer, on_served, d, &d->poll);
    if (r < 0) {
        disk_writer_nbd_free(TAKE_PTR(d->writer));
        return error_set(err, r, "connect to QEMU's NBD server", NULL, "%s", strerror(-r));
    }
    advance(d);
    return 0;
}

/* --- its seed ------------------------------------------------------------------------------ */

static void on_seed_ready(void *owner)
{
    struct disk_target *d = owner;

    d->seed_since_ns = 0;
    mirror_target_set_seed(d->mirror, &disk_writer_nbd_ops, d->seed,
                           disk_writer_nbd_size_bytes(d->seed));
}

static void on_seed_complete(void *owner, uint64_t cookie, int err)
{
    struct disk_target *d = owner;

    mirror_target_seed_complete(d->mirror, cookie, err);
}

static void without_seed(struct disk_target *d, const struct error *why)
{
    log_warning("disk %s: its seed cannot be read, all is sent: %s", d->export_name, why->why);
    d->seed_since_ns = 0;
    mirror_target_set_seed(d->mirror, NULL, NULL, 0);
}

static void on_seed_closed(void *owner, const struct error *why)
{
    without_seed(owner, why);
}

static const struct disk_writer_nbd_callbacks seed_callbacks = {
    .ready = on_seed_ready,
    .complete = on_seed_complete,
    .closed = on_seed_closed,
};

/* qemu-nbd knows the formats, and what it reads of a broken file harms nobody here. It ends with us. */
static void open_seed(struct disk_target *d, const struct disk_seed *seed)
{
    const char *const server[] = {
        "qemu-nbd",      "--read-only",  "--format", disk_format_name(seed->format),
        "--export-name", d->export_name, seed->path, NULL};
    struct disk_writer_nbd_params params = {
        .server = server,
        .export_name = d->export_name,
        .read_only = true,
        .callbacks = &seed_callbacks,
        .owner = d,
    };
    struct error why = {0};

    d->seed_since_ns = clock_now_ns();
    if (disk_writer_nbd_new(&d->seed, &params, &why) == 0 &&
        nbd_poll_new(d->loop, d->seed, on_served, d, &d->seed_poll) == 0) {
        nbd_poll_update(d->seed_poll);
        return;
    }
    without_seed(d, &why);
}

/* Its server is waited for, and may hang with its storage: not on the loop. */
static void run_close_seed(uv_work_t *work)
{
    disk_writer_nbd_free(work->data);
}

static void on_seed_freed(uv_work_t *work, int status)
{
    (void)status;
    free(work);
}

static void close_seed(struct disk_target *d)
{
    uv_work_t *work = d->seed ? calloc(1, sizeof(*work)) : NULL;

    nbd_poll_free(TAKE_PTR(d->seed_poll));
    if (!work) {
        disk_writer_nbd_free(TAKE_PTR(d->seed));
        return;
    }
    work->data = TAKE_PTR(d->seed);
    if (uv_queue_work(d->loop, work, run_close_seed, on_seed_freed) < 0) {
        run_close_seed(work);
        free(work);
    }
}

/* What cannot be opened in time holds the copy up no longer. Nothing was read from it yet. */
void disk_target_tick(struct disk_target *d)
{
    struct error why = {0};

    if (!d->seed_since_ns || clock_now_ns() < d->seed_since_ns + SEED_OPEN_S * NS_PER_S)
        return;
    error_set(&why, -ETIMEDOUT, "open the seed", NULL, "qemu-nbd did not open it in %u s",
              (unsigned)SEED_OPEN_S);
    close_seed(d);
    without_seed(d, &why);
    advance(d);
}

/* --- the stream ---------------------------------------------------------------------------- */

/* What is unpacked; false: the mirror takes no more of it now. */
static bool feed_unpacked(struct disk_target *d)
{
    const uint8_t *data = NULL;
    size_t len;

    while ((len = mirror_unpacker_peek(d->unpacker, &data)) > 0) {
        ssize_t n = mirror_target_feed(d->mirror, data, len);

        if (n <= 0)
            return false;
        mirror_unpacker_consume(d->unpacker, (size_t)n);
    }
    return true;
}

static void feed_packed(struct disk_target *d)
{
    struct error why = {0};
    const uint8_t *data = NULL;
    size_t len;

    while (feed_unpacked(d) && d->stream && (len = stream_peek(d->stream, &data)) > 0) {
        ssize_t n = mirror_unpacker_feed(d->unpacker, data, len, &why);

        if (n < 0) {
            mirror_target_fail(d->mirror, &why);
            return;
        }
        stream_consume(d->stream, (size_t)n);
    }
}

static void feed_mirror(struct disk_target *d)
{
    const uint8_t *data = NULL;
    size_t len;

    if (d->unpacker) {
        if (mirror_target_state(d->mirror) != MIRROR_TARGET_FAILED)
            feed_packed(d);
        return;
    }
    while (d->stream && (len = stream_peek(d->stream, &data)) > 0) {
        ssize_t n = mirror_target_feed(d->mirror, data, len);

        if (n <= 0)
            break;
        stream_consume(d->stream, (size_t)n);
    }
}

static void pump_replies(struct disk_target *d)
{
    size_t room;

    while (d->stream && (room = stream_room(d->stream)) > 0 &&
           mirror_target_has_output(d->mirror)) {
        buffer_clear(&d->scratch);
        if (mirror_target_pull(d->mirror, &d->scratch, room) == 0)
            break;
        if (stream_write(d->stream, buffer_data(&d->scratch), buffer_len(&d->scratch)) < 0)
            break;
    }
}

/* Whatever happened: move bytes both ways until nothing moves, then tell the owner news. */
static void advance(struct disk_target *d)
{
    enum mirror_target_state state;

    if (d->advancing) /* mirror_target calls wake() from within what we do here */
        return;
    d->advancing = true;
    feed_mirror(d);
    while (d->writer && disk_writer_nbd_has_completions(d->writer)) {
        disk_writer_nbd_dispatch(d->writer, 0);
        feed_mirror(d);
    }
    while (d->seed && disk_writer_nbd_has_completions(d->seed)) {
        disk_writer_nbd_dispatch(d->seed, 0);
        feed_mirror(d);
    }
    pump_replies(d);
    nbd_poll_update(d->poll);
    nbd_poll_update(d->seed_poll);
    d->advancing = false;
    state = mirror_target_state(d->mirror);
    if (state == MIRROR_TARGET_DONE && !d->told_done) {
        d->told_done = true;
        d->ops->on_done(d->user, d);
    } else if (state == MIRROR_TARGET_FAILED && !d->failed) {
        d->failed = true;
        d->ops->on_failed(d->user, mirror_target_error(d->mirror));
    }
}

static void on_mirror_wake(void *owner, struct mirror_target *t)
{
    (void)t;
    advance(owner);
}

static void on_stream_event(void *user, struct stream *stream)
{
    (void)stream;
    advance(user);
}

static void on_stream_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct disk_target *d = user;
    struct error why = {0};

    (void)stream;
    error_set(&why, -ECONNRESET, "receive a disk", NULL, "the link's stream ended: %s",
              wire_reason_name(reason));
    mirror_target_fail(d->mirror, &why);
    advance(d);
}

static const struct stream_ops stream_ops = {
    .on_readable = on_stream_event,
    .on_writable = on_stream_event,
    .on_reset = on_stream_reset,
};

void disk_target_set_stream(struct disk_target *d, struct stream *stream)
{
    d->stream = stream;
    stream_set_ops(stream, &stream_ops, d);
}

/* --- the whole ----------------------------------------------------------------------------- */

int disk_target_new(uv_loop_t *loop, const char *export_name, uint64_t size_bytes,
                    const struct disk_seed *seed, const struct disk_target_ops *ops, void *user,
                    struct disk_target **ret)
{
    struct disk_target *d = calloc(1, sizeof(*d));
    struct mirror_target_params params = {
        .alias = export_name,
        .size_bytes = size_bytes,
        .seeded = seed != NULL,
        .wake = on_mirror_wake,
        .owner = d,
    };
    int r = d ? mirror_target_new(&d->mirror, &params) : -ENOMEM;

    if (r < 0) {
        free(d);
        return r;
    }
    d->loop = loop;
    d->ops = ops;
    d->user = user;
    d->size_bytes = size_bytes;
    snprintf(d->export_name, sizeof(d->export_name), "%s", export_name);
    if (seed)
        open_seed(d, seed);
    *ret = d;
    return 0;
}

int disk_target_unpack(struct disk_target *d, const struct disk_codec *codec)
{
    return mirror_unpacker_new(&d->unpacker, codec->window_log, codec->lanes);
}

void disk_target_flush_ahead(struct disk_target *d)
{
    if (mirror_target_state(d->mirror) == MIRROR_TARGET_APPLYING && d->writer) {
        mirror_target_flush_ahead(d->mirror);
        advance(d);
    }
}

void disk_target_free(struct disk_target *d)
{
    if (!d)
        return;
    d->told_done = d->failed = d->advancing = true; /* nobody is told any more */
    nbd_poll_free(d->poll);
    disk_writer_nbd_free(d->writer);
    close_seed(d);
    mirror_target_free(d->mirror);
    mirror_unpacker_free(d->unpacker);
    if (d->stream)
        stream_release(d->stream);
    buffer_done(&d->scratch);
    free(d);
}

const char *disk_target_export_name(const struct disk_target *d)
{
    return d->export_name;
}

bool disk_target_is_done(const struct disk_target *d)
{
    return mirror_target_state(d->mirror) == MIRROR_TARGET_DONE;
}

void disk_target_get_stats(const struct disk_target *d, struct mirror_target_stats *ret)
{
    mirror_target_stats(d->mirror, ret);
}
