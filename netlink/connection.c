/* SPDX-License-Identifier: Apache-2.0 */
/* One stripe's socket on the libuv loop: see connection.h. */
#include "netlink/connection.h"

#include <errno.h>
#include <linux/sockios.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

enum {
    /* TLS and greetings: three round trips of a very long link, with losses. */
    GREETING_DEADLINE_MS = 10000,
    READ_CHUNK_BYTES = 256 * 1024,
    /* What one turn of the loop reads on one connection, so that none hogs the loop. */
    TURN_BYTES = 2 * 1024 * 1024,
    WRITE_QUANTUM_BYTES = 256 * 1024,
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

static void set_number(int fd, int level, int option, uint32_t value)
{
    setsockopt(fd, level, option, &value, sizeof(value));
}

/* SO_SNDBUF or SO_RCVBUF, beyond the system's limit when we may. */
static void set_buffer(int fd, int forced, int allowed, uint32_t bytes)
{
    if (setsockopt(fd, SOL_SOCKET, forced, &bytes, sizeof(bytes)) < 0)
        set_number(fd, SOL_SOCKET, allowed, bytes);
}

/* All of these are wishes: a kernel without them still works, only slower. */
static void tune_socket(int fd, const struct connection_config *config)
{
    set_number(fd, IPPROTO_TCP, TCP_NODELAY, 1);
    set_number(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, CONNECTION_UNSENT_FIRST_BYTES);
    if (config->socket_buffer_bytes) {
        set_buffer(fd, SO_SNDBUFFORCE, SO_SNDBUF, config->socket_buffer_bytes);
        set_buffer(fd, SO_RCVBUFFORCE, SO_RCVBUF, config->socket_buffer_bytes);
    }
}

static bool try_congestion_control(int fd, const char *name)
{
    return setsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, name, (socklen_t)strlen(name)) == 0;
}

/* BBR fills a long link whatever is lost on it. But it takes the rate of a connection that has little to send
 * for the link's, and lets a few kilobytes of answers wait for hundreds of milliseconds: it is for bulk only. */
static void set_congestion_control(struct connection *c, bool bulk)
{
    const char *name = c->config->congestion_control;

    if (name[0] && strcmp(name, "auto") != 0)
        try_congestion_control(c->fd, name);
    else if (name[0] && bulk)
        try_congestion_control(c->fd, "bbr");
    else if (name[0] &&
             !try_congestion_control(c->fd, "cubic")) /* BBR may be the system's choice */
        try_congestion_control(c->fd, "reno");
}

void connection_tune(struct connection *c, const struct connection_tuning *t)
{
    if (c->fd < 0 || c->state != CONNECTION_OPEN)
        return;
    if (t->pacing_bytes_s != c->tuned.pacing_bytes_s) {
        uint64_t rate = t->pacing_bytes_s ? t->pacing_bytes_s : UINT64_MAX;

        setsockopt(c->fd, SOL_SOCKET, SO_MAX_PACING_RATE, &rate, sizeof(rate));
    }
    if (t->bulk != c->tuned.bulk)
        set_congestion_control(c, t->bulk);
    if (t->unsent_bytes != c->tuned.unsent_bytes)
        set_number(c->fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, t->unsent_bytes);
    c->tuned = *t;
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
static int connection_new(uv_loop_t *loop, struct tls_identity *id,
                          const struct connection_config *config, int fd, bool server,
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
    c->config = config;
    c->tuned.unsent_bytes = CONNECTION_UNSENT_FIRST_BYTES;
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
    int r = connection_new(loop, id, config, fd, true, ops, owner, ret);

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
                    socklen_t address_len, unsigned deadline_ms, const struct connection_ops *ops,
                    void *owner, struct connection **ret)
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
    r = connection_new(loop, id, config, fd, false, ops, owner, ret);
    if (r < 0)
        return r;
    note_address(*ret, address);
    (*ret)->state = CONNECTION_CONNECTING;
    uv_timer_start(&(*ret)->deadline, on_deadline, deadline_ms, 0);
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
    set_congestion_control(c, false);
    uv_timer_stop(&c->deadline);
    return 0;
}

/* Writes all of it, or keeps the rest for later. 0, -EAGAIN (kept), or the connection is over. */
static int write_all(struct connection *c, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = tls_conn_write(c->tls, data, len);

        if (n == -EAGAIN) {
            if (buffer_append(&c->output, data, len) < 0)
                return -ENOMEM;
            return -EAGAIN;
        }
        if (n < 0)
            return (int)n;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

/* What an earlier turn could not write. */
static int write_kept(struct connection *c)
{
    while (buffer_len(&c->output) > 0) {
        ssize_t n = tls_conn_write(c->tls, buffer_data(&c->output), buffer_len(&c->output));

        if (n < 0)
            return (int)n;
        buffer_consume(&c->output, (size_t)n);
    }
    return 0;
}

/* A quantum of them: the next ones are for the next connection, so that all carry their part and none grows
 * cold. TCP begins anew with a small window on one that was idle, and what it is given then comes late. */
static int write_frames(struct connection *c, bool *ret_more)
{
    const uint8_t *data = NULL;
    size_t written = 0, n;
    int r = 0;

    while (r == 0 && written < WRITE_QUANTUM_BYTES &&
           (n = session_stripe_next(c->session, c->stripe, &data, clock_now_ns())) > 0) {
        r = write_all(c, data, n);
        written += n;
    }
    *ret_more = r == 0 && written >= WRITE_QUANTUM_BYTES;
    return r;
}

bool connection_pump(struct connection *c)
{
    bool more = false;
    int r;

    if (c->state != CONNECTION_GREETING && c->state != CONNECTION_OPEN)
        return false;
    r = write_kept(c);
    if (r == 0 && c->state == CONNECTION_OPEN)
        r = write_frames(c, &more);
    if (r == 0)
        r = tls_conn_flush(c->tls);
    if (r < 0 && r != -EAGAIN)
        drop_because(c, r, "send to the peer", tls_conn_why(c->tls));
    else
        watch(c, r == 0 ? UV_READABLE : UV_READABLE | UV_WRITABLE);
    return r == 0 && more;
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

static void on_read_on(uv_timer_t *timer);

/* Before the session begins, and after it is over. */
static ssize_t read_aside(struct connection *c, struct error *err)
{
    static uint8_t chunk[READ_CHUNK_BYTES]; /* loop thread only */
    ssize_t n = tls_conn_read(c->tls, chunk, sizeof(chunk));
    int r = 0;

    if (n > 0 && c->state != CONNECTION_OPEN)
        r = buffer_append(&c->input, chunk, (size_t)n) < 0
                ? error_set(err, -ENOMEM, "read from the peer", NULL, "out of memory")
                : read_greeting(c, err);
    return r < 0 ? r : n;
}

/* Bytes go from TLS to where the session keeps them. */
static ssize_t read_frames(struct connection *c, bool *ret_dry)
{
    uint64_t now_ns = clock_now_ns();
    size_t used = 0;
    ssize_t n = 0;

    while (used < READ_CHUNK_BYTES && !session_is_closed(c->session)) {
        uint8_t *at;
        size_t room = session_stripe_room(c->stripe, &at);

        n = tls_conn_read(c->tls, at, room);
        if (n <= 0)
            break;
        session_stripe_commit(c->session, c->stripe, (size_t)n, now_ns);
        used += (size_t)n;
    }
    *ret_dry = n == -EAGAIN;
    /* What came before the end counts; the end shows again at the next read. */
    return used > 0 ? (ssize_t)used : n;
}

static void read_turn(struct connection *c)
{
    struct session *session;
    struct error err = {0};
    bool dry = false;
    size_t turn = 0;
    ssize_t n = 0;

    while (c->state != CONNECTION_CLOSED && !dry && turn < TURN_BYTES) {
        bool framed = c->state == CONNECTION_OPEN && !session_is_closed(c->session);

        n = framed ? read_frames(c, &dry) : read_aside(c, &err);
        if (n <= 0)
            break;
        turn += (size_t)n;
        if (c->session) /* at once: the bytes are still in the processor's cache */
            session_dispatch(c->session);
    }
    if (c->state == CONNECTION_CLOSED || n == -EAGAIN || dry)
        return;
    if (n > 0) { /* the turn is over; what TLS has read ahead wakes no poll */
        if (c->state == CONNECTION_OPEN && tls_conn_has_read_ahead(c->tls))
            uv_timer_start(&c->deadline, on_read_on, 0, 0);
        return;
    }
    session = c->session;
    if (err.code)
        connection_drop(c, &err);
    else
        drop_because(c, n ? (int)n : -ECONNRESET, "read from the peer",
                     n ? tls_conn_why(c->tls) : "the peer closed the connection");
    if (session)
        session_dispatch(session);
}

static void on_read_on(uv_timer_t *timer)
{
    struct connection *c = timer->data;

    if (c->state == CONNECTION_OPEN)
        read_turn(c);
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
    read_turn(c); /* the greeting may have come along with the end of the handshake */
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

/* Asked for while there is more to send than TCP took the last time. */
static void note_dry(struct connection *c)
{
    int unsent_bytes = 0;

    if (ioctl(c->fd, SIOCOUTQNSD, &unsent_bytes) == 0 && unsent_bytes == 0)
        c->ran_dry = true;
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
        if (events & UV_WRITABLE) {
            note_dry(c);
            connection_pump(c);
        }
        if (events & UV_READABLE && c->state != CONNECTION_CLOSED)
            read_turn(c);
    }
}
