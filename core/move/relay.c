/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Socket <-> stream: see relay.h.
 *
 *   socket --read--> [encoder] --> stream          socket <--write-- [decoder] <-- stream
 *
 * Without a pipe the bytes go straight across. Each side of a pipe is pumped by itself, whenever the loop
 * says that something has changed there.
 */
#include "core/move/relay.h"

#include <errno.h>
#include <string.h>

struct relay {
    struct stream *stream;
    struct local_socket *socket;
    const struct relay_ops *ops;
    void *user;
    struct ram_pipe *encoder, *decoder; /* owned; NULL: bytes pass as they are */
    bool paused;
    uint64_t allowance; /* may yet be read from the socket; UINT64_MAX: any */
    bool failed;
    bool discards;
    bool socket_ended;                 /* the socket's end was passed into the stream */
    bool stream_ended;                 /* the stream's end was passed to the socket */
    bool encoder_ended, decoder_ended; /* the end was passed on behind, or into, a pipe */
    bool socket_full;                  /* wait until the socket is writable */
    uint64_t read_bytes, sent_bytes, received_bytes, delivered_bytes;
};

enum { CHUNK_BYTES = 256 * 1024 };

static uint8_t chunk[CHUNK_BYTES]; /* loop thread only */

/* Where bytes from the socket go next, and how many can. */
static size_t room_outbound(struct relay *r, uint8_t **ret)
{
    size_t room;

    if (r->encoder) {
        room = ram_pipe_room(r->encoder, ret);
    } else {
        *ret = chunk;
        room = MIN(stream_room(r->stream), sizeof(chunk));
    }
    return (size_t)MIN((uint64_t)room, r->allowance);
}

static void update_wants(struct relay *r)
{
    uint8_t *at;

    if (r->socket && r->discards)
        local_socket_want(r->socket, !r->socket_ended, false);
    else if (r->socket)
        local_socket_want(r->socket,
                          !r->failed && !r->paused && !r->socket_ended && room_outbound(r, &at) > 0,
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

/* From the encoder into the stream. */
static void drain_encoder(struct relay *r)
{
    const uint8_t *data;
    size_t len;

    while (!r->failed &&
           (len = MIN(ram_pipe_peek(r->encoder, &data), stream_room(r->stream))) > 0) {
        if (stream_write(r->stream, data, len) < 0) {
            fail(r, -EPIPE, "write to the link");
            return;
        }
        ram_pipe_consume(r->encoder, len);
        r->sent_bytes += len;
    }
    if (!r->failed && !r->encoder_ended && ram_pipe_is_at_end(r->encoder)) {
        r->encoder_ended = true;
        stream_end(r->stream);
    }
}

static void pass_outbound(struct relay *r, const uint8_t *data, size_t len)
{
    r->read_bytes += len;
    if (r->allowance != UINT64_MAX)
        r->allowance -= len;
    if (r->ops->on_sent)
        r->ops->on_sent(r->user, data, len);
    if (r->encoder) {
        ram_pipe_commit(r->encoder, len);
    } else if (stream_write(r->stream, data, len) < 0) {
        fail(r, -EPIPE, "write to the link");
    } else {
        r->sent_bytes += len;
    }
}

static void throw_away(struct relay *r)
{
    ssize_t n = local_socket_read(r->socket, chunk, sizeof(chunk));

    if (n > 0) {
        r->read_bytes += (uint64_t)n;
        if (r->ops->on_sent)
            r->ops->on_sent(r->user, chunk, (size_t)n);
    }
    r->socket_ended = n <= 0 && n != -EAGAIN;
    update_wants(r);
}

static void pump_to_stream(struct relay *r)
{
    uint8_t *at;
    size_t room;

    if (r->encoder)
        drain_encoder(r);
    while (!r->failed && !r->paused && !r->socket_ended && (room = room_outbound(r, &at)) > 0) {
        ssize_t n = local_socket_read(r->socket, at, room);

        if (n == -EAGAIN)
            break;
        /* It closed with something of ours unread, as QEMU does when an earlier migration of this process was
         * called off and left its return path half open. What it wrote has all been read before this. */
        if (n == -ECONNRESET)
            n = 0;
        if (n < 0) {
            fail(r, (int)n, "read from QEMU");
            return;
        }
        if (n == 0) {
            r->socket_ended = true;
            if (r->encoder)
                ram_pipe_end(r->encoder);
            else
                stream_end(r->stream);
            break;
        }
        pass_outbound(r, at, (size_t)n);
    }
    update_wants(r);
}

/* From the stream into the decoder. */
static void fill_decoder(struct relay *r)
{
    const uint8_t *data = NULL;
    uint8_t *at;
    size_t len;

    while (!r->failed && (len = ram_pipe_room(r->decoder, &at)) > 0 &&
           (len = MIN(len, stream_peek(r->stream, &data))) > 0) {
        memcpy(at, data, len);
        stream_consume(r->stream, len);
        r->received_bytes += len;
        ram_pipe_commit(r->decoder, len);
    }
    if (!r->failed && !r->decoder_ended && stream_at_end(r->stream)) {
        r->decoder_ended = true;
        ram_pipe_end(r->decoder);
    }
}

static size_t peek_inbound(struct relay *r, const uint8_t **ret)
{
    return r->decoder ? ram_pipe_peek(r->decoder, ret) : stream_peek(r->stream, ret);
}

static void consume_inbound(struct relay *r, size_t len)
{
    if (r->decoder) {
        ram_pipe_consume(r->decoder, len);
    } else {
        stream_consume(r->stream, len);
        r->received_bytes += len;
    }
    r->delivered_bytes += len;
}

static bool inbound_is_at_end(const struct relay *r)
{
    return r->decoder ? ram_pipe_is_at_end(r->decoder) : stream_at_end(r->stream);
}

static void pump_to_socket(struct relay *r)
{
    const uint8_t *data = NULL;
    size_t len;

    if (r->decoder)
        fill_decoder(r);
    r->socket_full = false;
    while (!r->failed && (len = peek_inbound(r, &data)) > 0) {
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
        if (n == -EPIPE &&
            !r->ops->on_delivered) /* it is gone, and nobody counts on what goes there */
            n = (ssize_t)allowed;
        if (n < 0) {
            fail(r, (int)n, "write to QEMU");
            return;
        }
        consume_inbound(r, (size_t)n);
    }
    if (r->decoder)
        fill_decoder(r); /* delivering made room */
    if (!r->failed && !r->stream_ended && inbound_is_at_end(r)) {
        r->stream_ended = true;
        local_socket_end(r->socket);
        if (r->ops->on_delivered)
            r->ops->on_delivered(r->user);
    }
    update_wants(r);
}

static void on_socket_readable(void *user)
{
    struct relay *r = user;

    if (r->discards)
        throw_away(r);
    else
        pump_to_stream(r);
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

static void on_encoder_progress(void *user)
{
    struct relay *r = user;

    if (r->socket)
        pump_to_stream(r);
}

static void on_encoder_failed(void *user, int code)
{
    fail(user, code, "encode");
}

static const struct ram_pipe_ops encoder_ops = {
    .on_progress = on_encoder_progress,
    .on_failed = on_encoder_failed,
};

static void on_decoder_progress(void *user)
{
    struct relay *r = user;

    if (r->socket)
        pump_to_socket(r);
}

static void on_decoder_failed(void *user, int code)
{
    fail(user, code, "decode what the peer sent");
}

static const struct ram_pipe_ops decoder_ops = {
    .on_progress = on_decoder_progress,
    .on_failed = on_decoder_failed,
};

void relay_set_pipe(struct relay *r, enum ram_pipe_kind kind, struct ram_pipe *pipe)
{
    if (kind == RAM_PIPE_ENCODER)
        r->encoder = pipe;
    else
        r->decoder = pipe;
    ram_pipe_set_ops(pipe, kind == RAM_PIPE_ENCODER ? &encoder_ops : &decoder_ops, r);
}

int relay_new(struct stream *stream, const struct relay_ops *ops, void *user, struct relay **ret)
{
    struct relay *r = calloc(1, sizeof(*r));

    if (!r)
        return -ENOMEM;
    r->stream = stream;
    r->allowance = UINT64_MAX;
    r->ops = ops;
    r->user = user;
    stream_set_ops(stream, &stream_ops, r);
    *ret = r;
    return 0;
}

static int start(struct relay *r)
{
    if (r->encoder && ram_pipe_fault(r->encoder))
        on_encoder_failed(r, ram_pipe_fault(r->encoder));
    if (r->decoder && ram_pipe_fault(r->decoder))
        on_decoder_failed(r, ram_pipe_fault(r->decoder));
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

void relay_set_allowance(struct relay *r, uint64_t bytes)
{
    r->allowance = bytes;
    if (r->socket && !r->failed)
        pump_to_stream(r);
}

void relay_detach(struct relay *r)
{
    if (!r || !r->stream)
        return;
    r->failed = true;
    update_wants(r);
    stream_release(TAKE_PTR(r->stream));
}

void relay_discard(struct relay *r)
{
    r->discards = true;
    r->failed = true; /* no callback but on_sent() follows */
    update_wants(r);
}

ssize_t relay_say_last(struct relay *r, const uint8_t *data, size_t len)
{
    return r->socket ? local_socket_write(r->socket, data, len) : -ENOTCONN;
}

bool relay_is_at_end(const struct relay *r)
{
    return !r->socket || r->socket_ended;
}

void relay_free(struct relay *r)
{
    if (!r)
        return;
    relay_detach(r);
    local_socket_free(r->socket);
    ram_pipe_free(r->encoder);
    ram_pipe_free(r->decoder);
    free(r);
}

uint64_t relay_read_bytes(const struct relay *r)
{
    return r->read_bytes;
}

uint64_t relay_sent_bytes(const struct relay *r)
{
    return r->sent_bytes;
}

uint64_t relay_received_bytes(const struct relay *r)
{
    return r->received_bytes;
}

uint64_t relay_delivered_bytes(const struct relay *r)
{
    return r->delivered_bytes;
}

struct ram_pipe *relay_pipe(const struct relay *r)
{
    return r->encoder ? r->encoder : r->decoder;
}

bool relay_waits_for_link(const struct relay *r)
{
    const uint8_t *data;

    return r->encoder && r->stream && ram_pipe_peek(r->encoder, &data) > 0 &&
           stream_room(r->stream) == 0;
}
