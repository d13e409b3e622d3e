/* SPDX-License-Identifier: Apache-2.0 */
/* QEMU's NBD connections: see disk_clients.h. */
#include "core/disk/disk_clients.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>
#include <unistd.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/move/local_socket.h"
#include "storage/mirror_connection.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    HANDSHAKE_S = 10, /* QEMU needs milliseconds; who takes longer only keeps a place */
};

struct client {
    TAILQ_ENTRY(client) entry;
    struct disk_clients *owner;
    struct mirror_connection *connection;
    struct local_socket *socket;
    uint64_t since_ns;
    bool ended; /* waits to be freed outside of callbacks */
};

struct disk_clients {
    uv_loop_t *loop;
    struct mirror_endpoint *endpoint;
    const struct disk_clients_ops *ops;
    void *user;
    struct local_listener *listener;
    TAILQ_HEAD(, client) list;
    uv_idle_t reaper;
};

static void client_free(struct client *c)
{
    TAILQ_REMOVE(&c->owner->list, c, entry);
    mirror_connection_free(c->connection);
    local_socket_free(c->socket);
    free(c);
}

static void on_reap(uv_idle_t *idle)
{
    struct disk_clients *d = idle->data;
    struct client *c, *next;

    for (c = TAILQ_FIRST(&d->list); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (!c->ended)
            continue;
        client_free(c);
    }
    uv_idle_stop(idle);
    d->ops->on_gone(d->user);
}

static void end_client(struct client *c)
{
    c->ended = true;
    local_socket_want(c->socket, false, false);
    uv_idle_start(&c->owner->reaper, on_reap);
}

static void pump_client(struct client *c)
{
    struct buffer *out = mirror_connection_output(c->connection);
    bool full = false;

    while (!c->ended && buffer_len(out) > 0 && !full) {
        ssize_t n = local_socket_write(c->socket, buffer_data(out), buffer_len(out));

        if (n == -EAGAIN) {
            full = true;
        } else if (n < 0) {
            mirror_connection_eof(c->connection, (int)n);
            end_client(c);
        } else {
            buffer_consume(out, (size_t)n);
        }
    }
    if (c->ended)
        return;
    if (mirror_connection_is_closed(c->connection) && buffer_len(out) == 0)
        end_client(c);
    else
        local_socket_want(c->socket, mirror_connection_wants_input(c->connection), full);
}

static void on_client_wake(void *owner, struct mirror_connection *connection)
{
    struct client *c = owner;

    (void)connection;
    if (!c->ended && c->socket)
        pump_client(c);
}

static void on_client_readable(void *user)
{
    static uint8_t chunk[CHUNK_BYTES]; /* loop thread only */
    struct client *c = user;
    struct disk_clients *d = c->owner;
    int turns = 16; /* 1 MiB, then others have their turn */

    while (!c->ended && turns-- > 0 && mirror_connection_wants_input(c->connection)) {
        ssize_t n = local_socket_read(c->socket, chunk, sizeof(chunk));

        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            mirror_connection_eof(c->connection, (int)n);
            end_client(c);
            break;
        }
        if (mirror_connection_feed(c->connection, chunk, (size_t)n, clock_now_ns()) < 0)
            break;
    }
    if (!c->ended)
        pump_client(c);
    d->ops->on_taken(d->user);
}

static void on_client_writable(void *user)
{
    pump_client(user);
}

static const struct local_socket_ops client_ops = {
    .on_readable = on_client_readable,
    .on_writable = on_client_writable,
};

static void on_accept(void *user, int fd)
{
    struct disk_clients *d = user;
    struct client *c = calloc(1, sizeof(*c));

    if (!c || mirror_connection_new(&c->connection, d->endpoint, on_client_wake, c) < 0) {
        close(fd);
        free(c);
        return;
    }
    c->owner = d;
    c->since_ns = clock_now_ns();
    if (local_socket_new(d->loop, fd, &client_ops, c, &c->socket) < 0) {
        mirror_connection_free(c->connection);
        free(c);
        return;
    }
    TAILQ_INSERT_TAIL(&d->list, c, entry);
    pump_client(c); /* the server speaks first */
}

int disk_clients_new(uv_loop_t *loop, struct mirror_endpoint *endpoint,
                     const struct disk_clients_ops *ops, void *user, struct disk_clients **ret)
{
    struct disk_clients *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    d->loop = loop;
    d->endpoint = endpoint;
    d->ops = ops;
    d->user = user;
    TAILQ_INIT(&d->list);
    uv_idle_init(loop, &d->reaper);
    d->reaper.data = d;
    *ret = d;
    return 0;
}

int disk_clients_listen(struct disk_clients *d, const char *path, uid_t uid, gid_t gid,
                        struct error *err)
{
    return local_listener_new(d->loop, path, uid, gid, on_accept, d, &d->listener, err);
}

bool disk_clients_any(const struct disk_clients *d)
{
    return !TAILQ_EMPTY(&d->list);
}

void disk_clients_tick(struct disk_clients *d, uint64_t now_ns)
{
    struct client *c;

    TAILQ_FOREACH(c, &d->list, entry)
    {
        if (!c->ended && mirror_connection_in_handshake(c->connection) &&
            now_ns > c->since_ns + HANDSHAKE_S * NS_PER_S)
            end_client(c);
    }
}

static void on_reaper_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void disk_clients_free(struct disk_clients *d)
{
    struct client *c;

    if (!d)
        return;
    local_listener_free(d->listener);
    while ((c = TAILQ_FIRST(&d->list))) {
        c->ended = true;
        client_free(c);
    }
    uv_close((uv_handle_t *)&d->reaper, on_reaper_closed);
}
