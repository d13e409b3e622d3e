/* SPDX-License-Identifier: Apache-2.0 */
/* A target disk on the loop: see disk_target.h. */
#include "core/disk_target.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/domain_xml.h"
#include "storage/disk_writer_nbd.h"

struct disk_target {
    uv_loop_t *loop;
    const struct disk_target_ops *ops;
    void *user;
    char export_name[DISK_ALIAS_BYTES];
    uint64_t size_bytes;
    struct stream *stream;
    struct mirror_target *mirror;
    struct disk_writer_nbd *writer;
    uv_poll_t
        *poll; /* of the writer's fd; its own allocation, so that it can outlive this by a turn */
    int poll_events;
    bool told_done, failed, advancing;
    struct buffer scratch;
};

static void advance(struct disk_target *d);

/* --- libnbd's socket ----------------------------------------------------------------------- */

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct disk_target *d = poll->data;
    unsigned ready = (events & UV_READABLE ? DISK_WRITER_READABLE : 0) |
                     (events & UV_WRITABLE ? DISK_WRITER_WRITABLE : 0);

    if (status < 0)
        ready = DISK_WRITER_READABLE;
    disk_writer_nbd_dispatch(d->writer, ready);
    advance(d);
}

static void on_poll_closed(uv_handle_t *handle)
{
    free(handle);
}

static void stop_poll(struct disk_target *d)
{
    if (!d->poll)
        return;
    uv_poll_stop(d->poll);
    uv_close((uv_handle_t *)d->poll, on_poll_closed);
    d->poll = NULL;
}

static void update_poll(struct disk_target *d)
{
    unsigned wants;
    int events;

    if (!d->writer || !d->poll)
        return;
    if (disk_writer_nbd_fd(d->writer) < 0) {
        stop_poll(d);
        return;
    }
    wants = disk_writer_nbd_wants(d->writer);
    events = (wants & DISK_WRITER_READABLE ? UV_READABLE : 0) |
             (wants & DISK_WRITER_WRITABLE ? UV_WRITABLE : 0);
    if (events == d->poll_events)
        return;
    d->poll_events = events;
    if (events)
        uv_poll_start(d->poll, events, on_poll);
    else
        uv_poll_stop(d->poll);
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
    d->poll = calloc(1, sizeof(*d->poll));
    if (!d->poll || uv_poll_init(d->loop, d->poll, disk_writer_nbd_fd(d->writer)) < 0) {
        free(d->poll);
        d->poll = NULL;
        disk_writer_nbd_free(TAKE_PTR(d->writer));
        return error_set(err, -ENOMEM, "connect to QEMU's NBD server", NULL, "out of memory");
    }
    d->poll->data = d;
    advance(d);
    return 0;
}

/* --- the stream ---------------------------------------------------------------------------- */

static void feed_mirror(struct disk_target *d)
{
    const uint8_t *data = NULL;
    size_t len;

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
    pump_replies(d);
    update_poll(d);
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
                    const struct disk_target_ops *ops, void *user, struct disk_target **ret)
{
    struct disk_target *d = calloc(1, sizeof(*d));
    struct mirror_target_params params = {
        .alias = export_name,
        .size_bytes = size_bytes,
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
    *ret = d;
    return 0;
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
    stop_poll(d);
    disk_writer_nbd_free(d->writer);
    mirror_target_free(d->mirror);
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
