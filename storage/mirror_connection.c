/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One client connection of the local NBD endpoint: see mirror_connection.h.
 *
 * `disk` is set while this connection is the client of a disk: from open() until DISC, the end of the
 * socket, a protocol error or the disk's failure, whichever comes first. Each of these detaches once.
 * `feeding` keeps wake() quiet while the owner is calling: it looks anyway when the call returns.
 */
#include "storage/mirror_connection.h"

#include <errno.h>
#include <string.h>

#include "storage/limits.h"
#include "storage/mirror_source_private.h"
#include "storage/nbd_server.h"

struct mirror_connection {
    struct mirror_endpoint *endpoint;
    struct nbd_server *server;
    struct mirror_source *disk;   /* whose client this is now */
    struct mirror_source *chosen; /* and was */
    void (*wake)(void *owner, struct mirror_connection *c);
    void *owner;
    uint64_t now_ns; /* as of the last call in */
    bool feeding;
    bool output_full; /* a READ was refused because the client does not take its data */
};

static void wake(struct mirror_connection *c)
{
    if (c->wake && !c->feeding)
        c->wake(c->owner, c);
}

static void lose_disk(struct mirror_connection *c, int err, const char *why)
{
    struct error e = {0};

    if (!c->disk)
        return;
    error_set(&e, err, "serve the disk's mirror job", NULL, "%s", why);
    mirror_source_detach(TAKE_PTR(c->disk), &e, c->now_ns);
}

/* The server has parsed on: if that ended it, the disk has no client any more. */
static void after_parsing(struct mirror_connection *c)
{
    const struct error *e = nbd_server_error(c->server);

    if (error_is_set(e))
        lose_disk(c, e->code, e->why);
}

/* --- what the disk calls ---------------------------------------------------------------------- */

static void on_complete(void *client, uint64_t cookie, int err, const void *data, size_t len,
                        uint64_t now_ns)
{
    struct mirror_connection *c = client;

    c->now_ns = now_ns;
    nbd_server_complete(c->server, cookie, err, data, len);
    after_parsing(c);
    wake(c);
}

static void on_room(void *client, uint64_t now_ns)
{
    struct mirror_connection *c = client;

    c->now_ns = now_ns;
    nbd_server_resume(c->server);
    after_parsing(c);
    wake(c);
}

static void on_close(void *client, const struct error *why)
{
    struct mirror_connection *c = client;

    c->disk = NULL;
    nbd_server_close(c->server, why);
    wake(c);
}

static const struct mirror_client_ops client_ops = {
    .complete = on_complete, .room = on_room, .close = on_close};

/* --- what the NBD server calls ---------------------------------------------------------------- */

static int on_find(void *owner, const char *name, struct nbd_export *ret_export)
{
    struct mirror_connection *c = owner;
    struct mirror_source *disk = mirror_endpoint_find(c->endpoint, name);

    if (!disk)
        return -ENOENT;
    *ret_export = (struct nbd_export){.size_bytes = mirror_source_size_bytes(disk)};
    return 0;
}

static int on_open(void *owner, const char *name, struct nbd_export *ret_export)
{
    struct mirror_connection *c = owner;
    struct mirror_source *disk;
    int err = on_find(owner, name, ret_export);

    if (err < 0)
        return err;
    disk = mirror_endpoint_find(c->endpoint, name);
    err = mirror_source_attach(disk, &client_ops, c);
    if (err < 0)
        return err;
    c->disk = c->chosen = disk;
    return 0;
}

static const char *on_list(void *owner, unsigned index)
{
    struct mirror_connection *c = owner;
    struct mirror_source *disk = mirror_endpoint_at(c->endpoint, index);

    return disk ? mirror_source_export_name(disk) : NULL;
}

static bool on_admit(void *owner, const struct nbd_request *request)
{
    struct mirror_connection *c = owner;

    if (request->command == NBD_CMD_READ &&
        buffer_len(nbd_server_output(c->server)) > (size_t)LIMIT_READ_AHEAD_BYTES) {
        c->output_full = true;
        return false;
    }
    return c->disk && mirror_source_admit(c->disk, request);
}

static void on_request(void *owner, struct nbd_request *request)
{
    struct mirror_connection *c = owner;

    if (c->disk)
        mirror_source_request(c->disk, request, c->now_ns);
    else
        free(TAKE_PTR(request->payload));
}

static void on_disconnect(void *owner)
{
    struct mirror_connection *c = owner;

    if (c->disk)
        mirror_source_detach(TAKE_PTR(c->disk), NULL, c->now_ns);
}

static const struct nbd_server_ops server_ops = {
    .find = on_find,
    .open = on_open,
    .list = on_list,
    .admit = on_admit,
    .request = on_request,
    .disconnect = on_disconnect,
};

/* --- what the owner calls --------------------------------------------------------------------- */

int mirror_connection_new(struct mirror_connection **ret_connection, struct mirror_endpoint *ep,
                          void (*wake_owner)(void *owner, struct mirror_connection *c), void *owner)
{
    struct mirror_connection *c;
    int err = mirror_endpoint_take_connection(ep);

    if (err < 0)
        return err;
    c = calloc(1, sizeof(*c));
    if (!c || nbd_server_new(&c->server, &server_ops, c) < 0) {
        free(c);
        mirror_endpoint_drop_connection(ep);
        return -ENOMEM;
    }
    c->endpoint = ep;
    c->wake = wake_owner;
    c->owner = owner;
    *ret_connection = c;
    return 0;
}

void mirror_connection_free(struct mirror_connection *c)
{
    if (!c)
        return;
    lose_disk(c, -ECONNRESET, "its connection was dropped");
    nbd_server_free(c->server);
    mirror_endpoint_drop_connection(c->endpoint);
    free(c);
}

int mirror_connection_feed(struct mirror_connection *c, const void *data, size_t len,
                           uint64_t now_ns)
{
    int err;

    c->now_ns = now_ns;
    c->feeding = true;
    err = nbd_server_feed(c->server, data, len);
    after_parsing(c);
    c->feeding = false;
    return err;
}

void mirror_connection_eof(struct mirror_connection *c, int err)
{
    c->feeding = true;
    lose_disk(c, err ? err : -ECONNRESET,
              err ? strerror(-err) : "QEMU closed the connection without saying so");
    nbd_server_close(c->server, NULL);
    c->feeding = false;
}

void mirror_connection_drained(struct mirror_connection *c, uint64_t now_ns)
{
    if (!c->output_full)
        return;
    c->output_full = false;
    c->now_ns = now_ns;
    c->feeding = true;
    nbd_server_resume(c->server);
    after_parsing(c);
    c->feeding = false;
}

struct buffer *mirror_connection_output(struct mirror_connection *c)
{
    return nbd_server_output(c->server);
}

bool mirror_connection_wants_input(const struct mirror_connection *c)
{
    return nbd_server_wants_input(c->server);
}

bool mirror_connection_is_closed(const struct mirror_connection *c)
{
    return nbd_server_is_closed(c->server);
}

bool mirror_connection_in_handshake(const struct mirror_connection *c)
{
    return nbd_server_in_handshake(c->server);
}

const struct error *mirror_connection_error(const struct mirror_connection *c)
{
    return nbd_server_error(c->server);
}

struct mirror_source *mirror_connection_disk(const struct mirror_connection *c)
{
    return c->chosen;
}
