/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server engine after the handshake: requests in, replies out.
 *
 * A request is judged completely by its header. A good one is offered to the owner (admit) before
 * memory is taken for its payload; a bad one is answered with an error, its payload, if any, read and
 * thrown away. Only a wrong magic or a payload beyond LIMIT_NBD_WRITE_BYTES ends the connection.
 *
 * Replies: READ and BLOCK_STATUS are structured when that was negotiated (the protocol demands it),
 * everything else is a simple reply, which is always allowed.
 */
#include <errno.h>
#include <string.h>

#include "core/base/wire.h"
#include "storage/nbd_server_private.h"

enum { CONTEXT_ALLOCATION_ID = 1 };

uint16_t nbd_transmission_flags(const struct nbd_server *s)
{
    unsigned flags = NBD_FLAG_HAS_FLAGS | NBD_FLAG_SEND_FLUSH | NBD_FLAG_SEND_FUA |
                     NBD_FLAG_SEND_TRIM | NBD_FLAG_SEND_WRITE_ZEROES | NBD_FLAG_SEND_FAST_ZERO;

    /* Reads are always answered in one piece, so DF costs nothing. CAN_MULTI_CONN is not offered:
     * a disk has one client. */
    if (s->structured)
        flags |= NBD_FLAG_SEND_DF;
    return (uint16_t)flags;
}

uint32_t nbd_transmission_error(int err)
{
    switch (-err) {
    case 0:
        return 0;
    case EPERM:
    case EACCES:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    case EOVERFLOW:
        return NBD_EOVERFLOW;
    case ENOTSUP:
        return NBD_ENOTSUP;
    case ESHUTDOWN:
        return NBD_ESHUTDOWN;
    default:
        return NBD_EIO;
    }
}

static void put_chunk(struct nbd_server *s, const struct nbd_pending *p, uint16_t type,
                      const void *head, size_t head_len, const void *data, size_t len)
{
    uint8_t reply[NBD_STRUCTURED_REPLY_BYTES];

    put_be32(reply, NBD_STRUCTURED_REPLY_MAGIC);
    put_be16(reply + 4, NBD_REPLY_FLAG_DONE);
    put_be16(reply + 6, type);
    put_be64(reply + 8, p->client_cookie);
    put_be32(reply + 16, (uint32_t)(head_len + len));
    nbd_server_put(s, reply, sizeof(reply));
    if (head_len > 0)
        nbd_server_put(s, head, head_len);
    if (len > 0)
        nbd_server_put(s, data, len);
}

static void put_simple(struct nbd_server *s, const struct nbd_pending *p, uint32_t nbd_error,
                       const void *data, size_t len)
{
    uint8_t reply[NBD_SIMPLE_REPLY_BYTES];

    put_be32(reply, NBD_SIMPLE_REPLY_MAGIC);
    put_be32(reply + 4, nbd_error);
    put_be64(reply + 8, p->client_cookie);
    nbd_server_put(s, reply, sizeof(reply));
    if (len > 0)
        nbd_server_put(s, data, len);
}

void nbd_transmission_reply(struct nbd_server *s, const struct nbd_pending *p, uint32_t nbd_error,
                            const void *data, size_t len)
{
    uint8_t head[8];

    if (p->command != NBD_CMD_READ || nbd_error)
        len = 0;
    if (!s->structured || (p->command != NBD_CMD_READ && p->command != NBD_CMD_BLOCK_STATUS)) {
        put_simple(s, p, nbd_error, data, len);
    } else if (nbd_error) {
        put_be32(head, nbd_error);
        put_be16(head + 4, 0); /* length of a text */
        put_chunk(s, p, NBD_REPLY_TYPE_ERROR, head, 6, NULL, 0);
    } else if (len == 0) {
        put_chunk(s, p, NBD_REPLY_TYPE_NONE, NULL, 0, NULL, 0);
    } else {
        put_be64(head, p->offset);
        put_chunk(s, p, NBD_REPLY_TYPE_OFFSET_DATA, head, 8, data, len);
    }
}

static void reply_block_status(struct nbd_server *s, const struct nbd_pending *p)
{
    uint8_t body[12];

    put_be32(body, CONTEXT_ALLOCATION_ID);
    put_be32(body + 4, p->length);
    put_be32(body + 8, 0); /* neither a hole nor zero, as far as anybody promises */
    put_chunk(s, p, NBD_REPLY_TYPE_BLOCK_STATUS, body, sizeof(body), NULL, 0);
}

/* FUA is allowed on every command once offered. */
static uint32_t flags_allowed(const struct nbd_server *s, enum nbd_command command)
{
    switch (command) {
    case NBD_CMD_READ:
        return NBD_CMD_FLAG_FUA | (s->structured ? NBD_CMD_FLAG_DF : 0);
    case NBD_CMD_WRITE_ZEROES:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO;
    case NBD_CMD_BLOCK_STATUS:
        return NBD_CMD_FLAG_FUA | NBD_CMD_FLAG_REQ_ONE;
    default:
        return NBD_CMD_FLAG_FUA;
    }
}

/* 0, or the NBD error with which the request is refused. */
static uint32_t judge(const struct nbd_server *s, const struct nbd_request *r)
{
    bool fits = r->offset <= s->size_bytes && r->length <= s->size_bytes - r->offset;

    switch ((uint32_t)r->command) {
    case NBD_CMD_WRITE:
    case NBD_CMD_WRITE_ZEROES:
        if (!fits)
            return NBD_ENOSPC;
        break;
    case NBD_CMD_READ:
        if (r->length > LIMIT_MIRROR_READ_BYTES)
            return NBD_EOVERFLOW;
        if (!fits)
            return NBD_EINVAL;
        break;
    case NBD_CMD_BLOCK_STATUS:
        if (!fits || r->length == 0 || !s->meta_allocation)
            return NBD_EINVAL;
        break;
    case NBD_CMD_TRIM:
        if (!fits)
            return NBD_EINVAL;
        break;
    case NBD_CMD_FLUSH:
        if (r->offset != 0 || r->length != 0)
            return NBD_EINVAL;
        break;
    default:
        return NBD_EINVAL;
    }
    return r->flags & ~flags_allowed(s, r->command) ? NBD_EINVAL : 0;
}

static void hand_over(struct nbd_server *s, struct nbd_request *r, uint64_t client_cookie)
{
    unsigned slot = 0;
    struct nbd_pending *p;

    while (s->pending[slot].cookie != 0)
        slot++; /* in_flight was checked: there is a free one */
    p = &s->pending[slot];
    /* serial from 1 on, so a cookie is never 0; its slot is its remainder */
    r->cookie = ++s->next_serial * LIMIT_NBD_REQUESTS_IN_FLIGHT + slot;
    *p = (struct nbd_pending){.cookie = r->cookie,
                              .client_cookie = client_cookie,
                              .offset = r->offset,
                              .length = r->length,
                              .command = r->command};
    s->in_flight++;
    s->ops->request(s->owner, r);
}

/* A refused request, or one that needs nobody: answered here, after its payload has gone by. */
static void answer_here(struct nbd_server *s, const struct nbd_pending *p, uint32_t nbd_error)
{
    s->refusal = *p;
    s->refusal_error = nbd_error;
    s->discard_left = p->command == NBD_CMD_WRITE ? p->length : 0;
    s->state = NBD_SERVER_DISCARD;
}

/* The header of `current` was peeked and is good: take it, or leave it where it is. */
static bool accept_request(struct nbd_server *s, struct nbd_request *r, uint64_t client_cookie)
{
    if (!s->ops->admit(s->owner, r)) {
        s->refused = true;
        return false;
    }
    if (r->command != NBD_CMD_WRITE) {
        nbd_server_skip(s, NBD_REQUEST_BYTES);
        hand_over(s, r, client_cookie);
        return true;
    }
    r->payload = malloc(r->length);
    if (!r->payload) {
        nbd_server_fail(s, -ENOMEM, "out of memory for a write");
        return false;
    }
    nbd_server_skip(s, NBD_REQUEST_BYTES);
    s->current = *r;
    s->current.cookie = client_cookie; /* ours is given when it is whole */
    s->payload_fill = 0;
    s->state = NBD_SERVER_PAYLOAD;
    return true;
}

static bool take_request(struct nbd_server *s)
{
    const uint8_t *p = nbd_server_peek(s, NBD_REQUEST_BYTES);
    struct nbd_request r = {0};
    struct nbd_pending here = {0};
    uint32_t nbd_error;

    if (!p)
        return false;
    if (get_be32(p) != NBD_REQUEST_MAGIC) {
        nbd_server_fail(s, -EPROTO, "the client's request has a wrong magic");
        return false;
    }
    r.flags = get_be16(p + 4);
    r.command = get_be16(p + 6);
    here.client_cookie = get_be64(p + 8);
    r.offset = get_be64(p + 16);
    r.length = get_be32(p + 24);
    if (r.command == NBD_CMD_DISC) {
        nbd_server_close(s, NULL);
        s->ops->disconnect(s->owner);
        return false;
    }
    if (r.command == NBD_CMD_WRITE && r.length > LIMIT_NBD_WRITE_BYTES) {
        nbd_server_fail(s, -E2BIG, "the client's write is larger than it was told to be");
        return false;
    }
    here.command = r.command;
    here.offset = r.offset;
    here.length = r.length;
    nbd_error = judge(s, &r);
    if (!nbd_error && r.command != NBD_CMD_BLOCK_STATUS &&
        (r.length > 0 || r.command == NBD_CMD_FLUSH))
        return accept_request(s, &r, here.client_cookie);
    nbd_server_skip(s, NBD_REQUEST_BYTES);
    answer_here(s, &here, nbd_error);
    return true;
}

static bool take_payload(struct nbd_server *s)
{
    struct nbd_request r;
    uint64_t client_cookie;

    s->payload_fill += (uint32_t)nbd_server_take(s, s->current.payload + s->payload_fill,
                                                 s->current.length - s->payload_fill);
    if (s->payload_fill < s->current.length)
        return false;
    r = s->current;
    client_cookie = r.cookie;
    memset(&s->current, 0, sizeof(s->current));
    s->state = NBD_SERVER_REQUESTS;
    hand_over(s, &r, client_cookie);
    return true;
}

static bool take_discard(struct nbd_server *s)
{
    s->discard_left -= (uint32_t)nbd_server_take(s, NULL, s->discard_left);
    if (s->discard_left > 0)
        return false;
    s->state = NBD_SERVER_REQUESTS;
    if (s->refusal.command == NBD_CMD_BLOCK_STATUS && !s->refusal_error)
        reply_block_status(s, &s->refusal);
    else
        nbd_transmission_reply(s, &s->refusal, s->refusal_error, NULL, 0);
    return true;
}

bool nbd_transmission_step(struct nbd_server *s)
{
    switch (s->state) {
    case NBD_SERVER_REQUESTS:
        return take_request(s);
    case NBD_SERVER_PAYLOAD:
        return take_payload(s);
    case NBD_SERVER_DISCARD:
        return take_discard(s);
    default:
        return false;
    }
}
