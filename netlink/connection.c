/* SPDX-License-Identifier: Apache-2.0 */
/* One stripe's socket on the libuv loop: see connection.h. */
#include "netlink/connection.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

enum {
    /* A dialled SYN gets this long before another attempt: the kernel's own retries back off too far
     * for a link that was mended a moment ago. */
    CONNECT_DEADLINE_MS = 2000,
    /* TLS and greetings: three round trips of a very long link, with losses. */
    GREETING_DEADLINE_MS = 10000,
    READ_CHUNK_BYTES = 256 * 1024,
    /* What one turn of the loop reads or writes on one connection, so that none hogs the loop. */
    TURN_BYTES = 2 * 1024 * 1024,
    PULL_BYTES = 192 * 1024,
    /* What TCP may hold unsent: an urgent frame waits behind no more than this on its stripe. */
    NOTSENT_LOWAT_BYTES = 256 * 1024,
};

static void on_poll(uv_poll_t *poll, int status, int events);

/* --- end ----------------------------------------------------------------------------------- */

static void on_handle_closed(uv_handle_t *handle)
{
    struct connection *c = handle->data;

    if (--c->open_handles > 0)
        return;
    tls_conn_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    buffer_done(&c->input);
    buffer_done(&c->output);
    free(c);
}

void connection_drop(struct connection *c, const struct error *why)
{
    if (c->state == CONNECTION_CLOSED)
        return;
    c->state = CONNECTION_CLOSED;
    uv_poll_stop(&c->poll);
    c->ops->on_lost(c->owner, c, why);
    c->session = NULL;
    c->stripe = NULL;
    uv_close((uv_handle_t *)&c->poll, on_handle_closed);
    uv_close((uv_handle_t *)&c->deadline, on_handle_closed);
}

static void drop_because(struct connection *c, int code, const char *doing, const char *why)
{
    struct error err = {0};

    error_set(&err, code, doing, NULL, "%s", why);
    connection_drop(c, &err);
}

static void on_deadline(uv_timer_t *timer)
{
    struct connection *c = timer->data;

    drop_because(c, -ETIMEDOUT, "connect",
                 c->state == CONNECTION_CONNECTING
                     ? "no answer from the peer's host"
                     : "the peer did not finish its greeting in time");
}

/* --- start --------------------------------------------------------------------------------- */

static void tune_socket(int fd, const struct connection_config *config)
{
    int one = 1, lowat = NOTSENT_LOWAT_BYTES;

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
    /* All below are wishes: a kernel without them still works, only slower. */
    if (config->congestion_control[0])
        setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, config->congestion_control,
                   (socklen_t)strlen(config->congestion_control));
    if (config->socket_buffer_bytes) {
        int bytes = (int)config->socket_buffer_bytes;

        if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof(bytes)) < 0)
            setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
        if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
            setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    }
}

static void note_address(struct connection *c, const struct sockaddr *address)
{
    const struct sockaddr_in *v4 = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)address;
    char host[INET6_ADDRSTRLEN] = "?";
    uint16_t port = 0;

    if (address->sa_family == AF_INET) {
        uv_ip4_name(v4, host, sizeof(host));
        port = ntohs(v4->sin_port);
    } else if (address->sa_family == AF_INET6) {
        uv_ip6_name(v6, host, sizeof(host));
        port = ntohs(v6->sin6_port);
    }
    snprintf(c->peer_address, sizeof(c->peer_address), "%s:%u", host, port);
}

static void watch(struct connection *c, int events)
{
    if (c->state != CONNECTION_CLOSED && events != c->poll_events) {
        c->poll_events = events;
        uv_poll_start(&c->poll, events, on_poll);
    }
}

/* Owns @fd from here on, whatever happens. */
static int connection_new(uv_loop_t *loop, struct tls_identity *id, int fd, bool server,
                          const struct connection_ops *ops, void *owner, struct connection **ret)
{
    struct connection *c = calloc(1, sizeof(*c));
    int r = c ? 0 : -ENOMEM;

    if (r == 0)
        r = tls_conn_new(id, fd, server, &c->tls);
    if (r == 0)
        r = uv_poll_init_socket(loop, &c->poll, fd);
    if (r < 0) {
        close(fd);
        if (c)
            tls_conn_free(c->tls);
        free(c);
        return r;
    }
    c->fd = fd;
    c->ops = ops;
    c->owner = owner;
    c->server = server;
    uv_timer_init(loop, &c->deadline);
    c->poll.data = c->deadline.data = c;
    c->open_handles = 2;
    *ret = c;
    return 0;
}

int connection_accept(uv_loop_t *loop, struct tls_identity *id,
                      const struct connection_config *config, int fd,
                      const struct connection_ops *ops, void *owner, struct connection **ret)
{
    struct sockaddr_storage address = {0};
    socklen_t len = sizeof(address);
    int r = connection_new(loop, id, fd, true, ops, owner, ret);

    if (r < 0)
        return r;
    tune_socket(fd, config);
    getpeername(fd, (struct sockaddr *)&address, &len);
    note_address(*ret, (struct sockaddr *)&address);
    (*ret)->state = CONNECTION_HANDSHAKE;
    uv_timer_start(&(*ret)->deadline, on_deadline, GREETING_DEADLINE_MS, 0);
    watch(*ret, UV_READABLE);
    return 0;
}

int connection_dial(uv_loop_t *loop, struct tls_identity *id,
                    const struct connection_config *config, const struct sockaddr *address,
                    socklen_t address_len, const struct connection_ops *ops, void *owner,
                    struct connection **ret)
{
    int fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int r;

    if (fd < 0)
        return -errno;
    tune_socket(fd, config);
    if (connect(fd, address, address_len) < 0 && errno != EINPROGRESS) {
        r = -errno;
        close(fd);
        return r;
    }
    r = connection_new(loop, id, fd, false, ops, owner, ret);
    if (r < 0)
        return r;
    note_address(*ret, address);
    (*ret)->state = CONNECTION_CONNECTING;
    uv_timer_start(&(*ret)->deadline, on_deadline, CONNECT_DEADLINE_MS, 0);
    watch(*ret, UV_WRITABLE);
    return 0;
}

/* --- work ---------------------------------------------------------------------------------- */

int connection_send(struct connection *c, const void *data, size_t len)
{
    int r = buffer_append(&c->output, data, len);

    if (r == 0)
        connection_pump(c);
    return r;
}

int connection_attach(struct connection *c, struct session *session)
{
    int r = session_stripe_add(session, clock_now_ns(), &c->stripe);

    if (r < 0)
        return r;
    c->session = session;
    c->state = CONNECTION_OPEN;
    uv_timer_stop(&c->deadline);
    return 0;
}

static bool fill_output(struct connection *c)
{
    uint8_t *room;

    if (buffer_len(&c->output) > 0)
        return true;
    if (c->state != CONNECTION_OPEN)
        return false;
    room = buffer_reserve(&c->output, PULL_BYTES);
    if (!room)
        return false;
    buffer_commit(&c->output,
                  session_stripe_pull(c->session, c->stripe, room, PULL_BYTES, clock_now_ns()));
    return buffer_len(&c->output) > 0;
}

void connection_pump(struct connection *c)
{
    size_t turn = 0;

    if (c->state != CONNECTION_GREETING && c->state != CONNECTION_OPEN)
        return;
    while (fill_output(c)) {
        ssize_t n = tls_conn_write(c->tls, buffer_data(&c->output), buffer_len(&c->output));

        if (n == -EAGAIN) {
            watch(c, UV_READABLE | UV_WRITABLE);
            return;
        }
        if (n < 0) {
            drop_because(c, (int)n, "send to the peer", tls_conn_why(c->tls));
            return;
        }
        buffer_consume(&c->output, (size_t)n);
        turn += (size_t)n;
        if (turn >= TURN_BYTES) {
            watch(c, UV_READABLE | UV_WRITABLE);
            return;
        }
    }
    watch(c, UV_READABLE);
}

/* The greeting is one frame; whatever follows it belongs to the session. */
static int read_greeting(struct connection *c, struct error *err)
{
    struct wire_header h;
    const char *why = NULL;
    int r;

    if (buffer_len(&c->input) < WIRE_HEADER_BYTES)
        return 0;
    if (wire_get_header(buffer_data(&c->input), &h, &why) < 0)
        return error_set(err, -EPROTO, "read the peer's greeting", NULL, "%s", why);
    if (h.type != WIRE_HELLO && h.type != WIRE_WELCOME && h.type != WIRE_REFUSE)
        return error_set(err, -EPROTO, "read the peer's greeting", NULL,
                         "another frame came first");
    if (buffer_len(&c->input) < WIRE_HEADER_BYTES + h.length)
        return 0;
    r = c->ops->on_greeting(c->owner, c, &h, buffer_data(&c->input) + WIRE_HEADER_BYTES, err);
    if (r < 0 || c->state == CONNECTION_CLOSED)
        return r;
    buffer_consume(&c->input, WIRE_HEADER_BYTES + h.length);
    if (c->session && buffer_len(&c->input) > 0)
        session_stripe_feed(c->session, c->stripe, buffer_data(&c->input), buffer_len(&c->input),
                            clock_now_ns());
    buffer_done(&c->input);
    return 0;
}

static int take_input(struct connection *c, const uint8_t *data, size_t len, struct error *err)
{
    if (c->state == CONNECTION_OPEN) {
        session_stripe_feed(c->session, c->stripe, data, len, clock_now_ns());
        return 0;
    }
    if (buffer_append(&c->input, data, len) < 0)
        return error_set(err, -ENOMEM, "read from the peer", NULL, "out of memory");
    return read_greeting(c, err);
}

static void read_turn(struct connection *c)
{
    static uint8_t chunk[READ_CHUNK_BYTES]; /* loop thread only */
    struct session *session;
    size_t turn = 0;

    while (c->state != CONNECTION_CLOSED && turn < TURN_BYTES) {
        struct error err = {0};
        ssize_t n = tls_conn_read(c->tls, chunk, sizeof(chunk));

        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            session = c->session;
            drop_because(c, n ? (int)n : -ECONNRESET, "read from the peer",
                         n ? tls_conn_why(c->tls) : "the peer closed the connection");
            if (session)
                session_dispatch(session);
            return;
        }
        turn += (size_t)n;
        if (take_input(c, chunk, (size_t)n, &err) < 0) {
            connection_drop(c, &err);
            return;
        }
    }
    if (c->session)
        session_dispatch(c->session);
}

static void advance_handshake(struct connection *c)
{
    struct error err = {0};
    int r = tls_conn_handshake(c->tls);

    if (r == -EAGAIN) {
        watch(c, tls_conn_wants_write(c->tls) ? UV_READABLE | UV_WRITABLE : UV_READABLE);
        return;
    }
    if (r < 0) {
        drop_because(c, r, "secure the connection (TLS)", tls_conn_why(c->tls));
        return;
    }
    c->state = CONNECTION_GREETING;
    if (c->ops->on_secured(c->owner, c, &err) < 0) {
        connection_drop(c, &err);
        return;
    }
    watch(c, UV_READABLE);
    connection_pump(c);
}

static void advance_connect(struct connection *c)
{
    int fault = 0;
    socklen_t len = sizeof(fault);

    getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &fault, &len);
    if (fault) {
        drop_because(c, -fault, "connect", strerror(fault));
        return;
    }
    c->state = CONNECTION_HANDSHAKE;
    uv_timer_start(&c->deadline, on_deadline, GREETING_DEADLINE_MS, 0);
    advance_handshake(c);
}

static void on_poll(uv_poll_t *poll, int status, int events)
{
    struct connection *c = poll->data;

    if (status < 0) { /* libuv stops watching a socket in error: the read below finds out which */
        c->poll_events = 0;
        events = UV_READABLE;
    }
    if (c->state == CONNECTION_CONNECTING) {
        advance_connect(c);
    } else if (c->state == CONNECTION_HANDSHAKE) {
        advance_handshake(c);
    } else {
        if (events & UV_WRITABLE)
            connection_pump(c);
        if (events & UV_READABLE && c->state != CONNECTION_CLOSED)
            read_turn(c);
    }
}
