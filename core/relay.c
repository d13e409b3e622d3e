/* SPDX-License-Identifier: Apache-2.0 */
/* Socket <-> stream: see relay.h. */
#include "core/relay.h"

#include <errno.h>
#include <string.h>

struct relay {
    struct stream *stream;
    struct local_socket *socket;
    const struct relay_ops *ops;
    void *user;
    bool paused;
    bool failed;
    bool socket_ended; /* the socket's end was passed into the stream */
    bool stream_ended; /* the stream's end was passed to the socket */
    bool socket_full;  /* wait until the socket is writable */
    uint64_t sent_bytes, delivered_bytes;
};

enum { CHUNK_BYTES = 256 * 1024 };

static void update_wants(struct relay *r)
{
    if (r->socket)
        local_socket_want(
            r->socket, !r->failed && !r->paused && !r->socket_ended && stream_room(r->stream) > 0,
            !r->failed && r->socket_full);
}

static void fail(struct relay *r, int code, const char *what)
{
    struct error err = {0};

    if (r->failed)
        return;
    r->failed = true;
    update_wants(r);
    error_set(&err, code, "carry the VM's memory", NULL, "%s: %s", what, strerror(-code));
    r->ops->on_failed(r->user, &err);
}

static void pump_to_stream(struct relay *r)
{
    static uint8_t chunk[CHUNK_BYTES]; /* loop thread only */
    size_t room;

    while (!r->failed && !r->paused && !r->socket_ended && (room = stream_room(r->stream)) > 0) {
        ssize_t n = local_socket_read(r->socket, chunk, MIN(room, sizeof(chunk)));

        if (n == -EAGAIN)
            break;
        if (n < 0) {
            fail(r, (int)n, "read from QEMU");
            return;
        }
        if (n == 0) {
            r->socket_ended = true;
            stream_end(r->stream);
            break;
        }
        if (stream_write(r->stream, chunk, (size_t)n) < 0) {
            fail(r, -EPIPE, "write to the link");
            return;
        }
        r->sent_bytes += (size_t)n;
        if (r->ops->on_sent)
            r->ops->on_sent(r->user, chunk, (size_t)n);
    }
    update_wants(r);
}

static void pump_to_socket(struct relay *r)
{
    const uint8_t *data = NULL;
    size_t len;

    r->socket_full = false;
    while (!r->failed && (len = stream_peek(r->stream, &data)) > 0) {
        size_t allowed =
            r->ops->may_deliver ? r->ops->may_deliver(r->user, r->delivered_bytes, data, len) : len;
        ssize_t n;

        if (allowed == 0)
            break;
        n = local_socket_write(r->socket, data, allowed);
        if (n == -EAGAIN) {
            r->socket_full = true;
            break;
        }
        if (n < 0) {
            fail(r, (int)n, "write to QEMU");
            return;
        }
        stream_consume(r->stream, (size_t)n);
        r->delivered_bytes += (size_t)n;
    }
    if (!r->failed && !r->stream_ended && stream_at_end(r->stream)) {
        r->stream_ended = true;
        local_socket_end(r->socket);
        if (r->ops->on_delivered)
            r->ops->on_delivered(r->user);
    }
    update_wants(r);
}

static void on_socket_readable(void *user)
{
    pump_to_stream(user);
}

static void on_socket_writable(void *user)
{
    pump_to_socket(user);
}

static const struct local_socket_ops socket_ops = {
    .on_readable = on_socket_readable,
    .on_writable = on_socket_writable,
};

static void on_stream_readable(void *user, struct stream *stream)
{
    struct relay *r = user;

    (void)stream;
    if (r->socket)
        pump_to_socket(r);
}

static void on_stream_writable(void *user, struct stream *stream)
{
    struct relay *r = user;

    (void)stream;
    if (r->socket)
        pump_to_stream(r);
}

static void on_stream_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct relay *r = user;

    (void)stream;
    if (!(r->socket_ended && r->stream_ended))
        fail(r, -ECONNRESET, wire_reason_name(reason));
}

static const struct stream_ops stream_ops = {
    .on_readable = on_stream_readable,
    .on_writable = on_stream_writable,
    .on_reset = on_stream_reset,
};

int relay_new(struct stream *stream, const struct relay_ops *ops, void *user, struct relay **ret)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->stream = stream;
    r->ops = ops;
    r->user = user;
    stream_set_ops(stream, &stream_ops, r);
    *ret = r;
    return 0;
}

static int start(struct relay *r)
{
    pump_to_socket(r);
    if (!r->failed)
        pump_to_stream(r);
    return 0;
}

int relay_attach(struct relay *r, uv_loop_t *loop, int fd)
{
    int res = local_socket_new(loop, fd, &socket_ops, r, &r->socket);

    return res < 0 ? res : start(r);
}

int relay_connect(struct relay *r, uv_loop_t *loop, const char *path)
{
    int res = local_socket_connect(loop, path, &socket_ops, r, &r->socket);

    return res < 0 ? res : start(r);
}

void relay_kick(struct relay *r)
{
    if (r->socket && !r->failed)
        pump_to_socket(r);
}

void relay_set_paused(struct relay *r, bool paused)
{
    r->paused = paused;
    if (r->socket && !paused && !r->failed)
        pump_to_stream(r);
    update_wants(r);
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    local_socket_free(r->socket);
    stream_release(r->stream);
    free(r);
}

uint64_t relay_sent_bytes(const struct relay *r)
{
    return r->sent_bytes;
}

uint64_t relay_delivered_bytes(const struct relay *r)
{
    return r->delivered_bytes;
}
