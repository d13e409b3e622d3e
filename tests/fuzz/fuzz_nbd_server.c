/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the NBD server engine: the first byte chooses how the rest is cut into pieces and when requests
 * are completed; what arrives at the owner must be within the export.
 *
 * So that the fuzzer gets past the handshake quickly, bit 7 of the first byte does it beforehand.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/wire.h"
#include "storage/nbd_server.h"

enum { SIZE = 1 << 20 };

struct owner {
    struct nbd_server *server;
    uint64_t later[256];
    unsigned later_count;
    unsigned count;
    uint8_t mode;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static int on_find(void *owner, const char *name, struct nbd_export *ret_export)
{
    (void)owner;
    *ret_export = (struct nbd_export){.size_bytes = SIZE, .description = "fuzz"};
    return strcmp(name, "d") == 0 ? 0 : -ENOENT;
}

static const char *on_list(void *owner, unsigned index)
{
    (void)owner;
    return index == 0 ? "d" : NULL;
}

static bool on_admit(void *owner, const struct nbd_request *request)
{
    struct owner *o = owner;

    (void)request;
    return !(o->mode & 0x40) || o->count++ % 3 != 0;
}

static void on_request(void *owner, struct nbd_request *request)
{
    static uint8_t content[SIZE];
    struct owner *o = owner;

    if (request->offset > SIZE || request->length > SIZE - request->offset)
        abort();
    if (request->command == NBD_CMD_WRITE) { /* every byte must be readable */
        memcpy(content, request->payload, request->length);
        free(request->payload);
    }
    if (o->mode & 0x20 && o->later_count < 256)
        o->later[o->later_count++] = request->cookie;
    else
        nbd_server_complete(o->server, request->cookie, o->mode & 0x10 ? -EIO : 0, content,
                            request->length);
}

static void on_disconnect(void *owner)
{
    (void)owner;
}

static const struct nbd_server_ops ops = {.find = on_find,
                                          .open = on_find,
                                          .list = on_list,
                                          .admit = on_admit,
                                          .request = on_request,
                                          .disconnect = on_disconnect};

static void shake_hands(struct owner *o)
{
    uint8_t b[64] = {0, 0, 0, 3};

    nbd_server_feed(o->server, b, 4);
    put_be64(b, NBD_OPTION_MAGIC);
    put_be32(b + 8, NBD_OPT_STRUCTURED_REPLY);
    put_be32(b + 12, 0);
    nbd_server_feed(o->server, b, 16);
    put_be32(b + 8, NBD_OPT_GO);
    put_be32(b + 12, 7);
    put_be32(b + 16, 1);
    b[20] = 'd';
    put_be16(b + 21, 0);
    nbd_server_feed(o->server, b, 23);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct owner o = {0};
    size_t piece, most;

    if (len < 1)
        return 0;
    o.mode = data[0];
    most = 1 + (size_t)(o.mode & 0x0f) * 37;
    if (nbd_server_new(&o.server, &ops, &o) < 0)
        return 0;
    if (o.mode & 0x80)
        shake_hands(&o);
    for (data++, len--; len > 0 && !nbd_server_is_closed(o.server); data += piece, len -= piece) {
        piece = len < most ? len : most;
        if (nbd_server_feed(o.server, data, piece) < 0)
            break;
        if (!nbd_server_wants_input(o.server)) {
            nbd_server_resume(o.server);
            while (o.later_count > 0)
                nbd_server_complete(o.server, o.later[--o.later_count], 0, NULL, 0);
        }
        buffer_clear(nbd_server_output(o.server));
    }
    nbd_server_free(o.server);
    return 0;
}
