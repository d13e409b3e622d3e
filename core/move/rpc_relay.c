/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt's RPC over the link: see rpc_relay.h. */
#include "core/move/rpc_relay.h"

#include <errno.h>
#include <string.h>

#include "core/base/limits.h"
#include "core/base/wire.h"

/* One direction: frames come out of the tap, wait here, and leave in order. */
struct direction {
    struct rpc_tap *tap;
    struct buffer ready;  /* may leave */
    struct buffer behind; /* a kept frame and what follows it */
    bool keeping;
};

struct rpc_relay {
    struct local_socket *socket;
    struct stream *stream;
    const struct rpc_relay_ops *ops;
    void *user;
    struct direction outbound, inbound; /* to the link, to libvirtd */
    bool ended;
};

/* What may wait in one direction: one frame of the largest size and a little. */
enum { PENDING_MAX_BYTES = LIMIT_RPC_FRAME_BYTES + 65536 };

static void pump(struct rpc_relay *r);

static void end(struct rpc_relay *r, int code, const char *why)
{
    struct error err = {0};

    if (r->ended)
        return;
    r->ended = true;
    local_socket_want(r->socket, false, false);
    error_set(&err, code, "carry libvirt's RPC", NULL, "%s", why);
    r->ops->on_ended(r->user, &err);
}

static int put_frame(struct direction *d, const struct rpc_frame *frame, enum rpc_verdict verdict)
{
    if (verdict == RPC_DROP)
        return 0;
    if (verdict == RPC_KEEP)
        d->keeping = true;
    if (buffer_len(&d->behind) + buffer_len(&d->ready) > PENDING_MAX_BYTES)
        return -EPROTO;
    return buffer_append(d->keeping ? &d->behind : &d->ready, frame->data, frame->len);
}

/* From the local libvirtd. */
static int on_outbound_frame(void *user, const struct rpc_frame *frame)
{
    struct rpc_relay *r = user;
    uint8_t pong[RPC_KEEPALIVE_FRAME_BYTES];

    if (frame->kind == RPC_KEEPALIVE_PING) {
        rpc_put_keepalive_pong(pong);
        return buffer_append(&r->inbound.ready, pong, sizeof(pong));
    }
    if (frame->kind == RPC_KEEPALIVE_PONG)
        return 0;
    return put_frame(&r->outbound, frame, r->ops->on_outbound(r->user, frame));
}

/* From the link. The other side answers keepalives itself: none should come, none is passed. */
static int on_inbound_frame(void *user, const struct rpc_frame *frame)
{
    struct rpc_relay *r = user;

    if (frame->kind == RPC_KEEPALIVE_PING || frame->kind == RPC_KEEPALIVE_PONG)
        return 0;
    return put_frame(&r->inbound, frame, r->ops->on_inbound(r->user, frame));
}

int rpc_relay_answer(struct rpc_relay *r, const void *frame, size_t len)
{
    return buffer_append(&r->inbound.ready, frame, len);
}

static void release(struct rpc_relay *r, struct direction *d)
{
    if (!d->keeping)
        return;
    d->keeping = false;
    if (buffer_len(&d->behind) > 0 &&
        buffer_append(&d->ready, buffer_data(&d->behind), buffer_len(&d->behind)) < 0) {
        end(r, -ENOMEM, "out of memory");
        return;
    }
    buffer_clear(&d->behind);
    pump(r);
}

void rpc_relay_release_inbound(struct rpc_relay *r)
{
    release(r, &r->inbound);
}

void rpc_relay_release_paused(struct rpc_relay *r)
{
    uint8_t *kept = (uint8_t *)buffer_data(&r->inbound.behind); /* ours: nobody has it yet */

    if (r->inbound.keeping && buffer_len(&r->inbound.behind) > 0)
        rpc_finish_set_paused(kept, get_be32(kept));
    rpc_relay_release_inbound(r);
}

static void pump_to_stream(struct rpc_relay *r)
{
    struct buffer *b = &r->outbound.ready;
    size_t n;

    while ((n = MIN(buffer_len(b), stream_room(r->stream))) > 0) {
        if (stream_write(r->stream, buffer_data(b), n) < 0) {
            end(r, -ECONNRESET, "the link refused bytes");
            return;
        }
        buffer_consume(b, n);
    }
}

static bool pump_to_socket(struct rpc_relay *r)
{
    struct buffer *b = &r->inbound.ready;

    while (buffer_len(b) > 0) {
        ssize_t n = local_socket_write(r->socket, buffer_data(b), buffer_len(b));

        if (n == -EAGAIN)
            return false;
        if (n < 0) {
            end(r, -EPIPE, "the local libvirtd closed the connection");
            return true;
        }
        buffer_consume(b, (size_t)n);
    }
    return true;
}

static void pump(struct rpc_relay *r)
{
    bool drained;

    if (r->ended)
        return;
    pump_to_stream(r);
    drained = r->ended || pump_to_socket(r);
    if (!r->ended)
        local_socket_want(r->socket, buffer_len(&r->outbound.ready) < PENDING_MAX_BYTES, !drained);
}

static void on_socket_readable(void *user)
{
    struct rpc_relay *r = user;
    uint8_t chunk[65536];
    ssize_t n = local_socket_read(r->socket, chunk, sizeof(chunk));
    int res;

    if (n == -EAGAIN)
        return;
    if (n <= 0) {
        end(r, -EPIPE, "the local libvirtd closed the connection");
        return;
    }
    res = rpc_tap_feed(r->outbound.tap, chunk, (size_t)n);
    if (res < 0)
        end(r, res, "the local libvirtd sent something that is not its RPC");
    pump(r);
}

static void on_socket_writable(void *user)
{
    pump(user);
}

static const struct local_socket_ops socket_ops = {
    .on_readable = on_socket_readable,
    .on_writable = on_socket_writable,
};

static void on_stream_readable(void *user, struct stream *stream)
{
    struct rpc_relay *r = user;
    const uint8_t *data = NULL;
    size_t len;
    int res;

    while (!r->ended && (len = stream_peek(stream, &data)) > 0) {
        res = rpc_tap_feed(r->inbound.tap, data, len);
        stream_consume(stream, len);
        if (res < 0)
            end(r, res, "the peer sent something that is not libvirt's RPC");
    }
    if (!r->ended && stream_at_end(stream))
        end(r, -ECONNRESET, "the peer closed libvirt's connection");
    pump(r);
}

static void on_stream_writable(void *user, struct stream *stream)
{
    (void)stream;
    pump(user);
}

static void on_stream_reset(void *user, struct stream *stream, uint64_t reason)
{
    (void)stream;
    end(user, -ECONNRESET, wire_reason_name(reason));
}

static const struct stream_ops stream_ops = {
    .on_readable = on_stream_readable,
    .on_writable = on_stream_writable,
    .on_reset = on_stream_reset,
};

int rpc_relay_new(uv_loop_t *loop, int fd, struct stream *stream, const struct rpc_relay_ops *ops,
                  void *user, struct rpc_relay **ret)
{
    struct rpc_relay *r = calloc(1, sizeof(*r));
    int res = r ? 0 : -ENOMEM;

    if (res == 0)
        res = rpc_tap_new(on_outbound_frame, r, &r->outbound.tap);
    if (res == 0)
        res = rpc_tap_new(on_inbound_frame, r, &r->inbound.tap);
    if (res < 0) {
        close(fd);
    } else {
        r->ops = ops;
        r->user = user;
        res = local_socket_new(loop, fd, &socket_ops, r, &r->socket);
    }
    if (res < 0) {
        if (r) {
            rpc_tap_free(r->outbound.tap);
            rpc_tap_free(r->inbound.tap);
        }
        free(r);
        return res;
    }
    r->stream = stream;
    stream_set_ops(stream, &stream_ops, r);
    local_socket_want(r->socket, true, false);
    *ret = r;
    return 0;
}

int rpc_relay_unread(const struct rpc_relay *r)
{
    int unread;

    if (r->ended)
        return -EPIPE;
    unread = local_socket_unread(r->socket);
    return unread < 0 ? unread : unread + (int)buffer_len(&r->inbound.ready);
}

void rpc_relay_detach(struct rpc_relay *r)
{
    if (!r || !r->stream)
        return;
    r->ended = true;
    local_socket_want(r->socket, false, false);
    stream_release(TAKE_PTR(r->stream));
}

void rpc_relay_free(struct rpc_relay *r)
{
    if (!r)
        return;
    rpc_relay_detach(r);
    local_socket_free(r->socket);
    rpc_tap_free(r->outbound.tap);
    rpc_tap_free(r->inbound.tap);
    buffer_done(&r->outbound.ready);
    buffer_done(&r->outbound.behind);
    buffer_done(&r->inbound.ready);
    buffer_done(&r->inbound.behind);
    free(r);
}
