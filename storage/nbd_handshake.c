/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server engine until the client has chosen an export (fixed newstyle negotiation).
 *
 * Every option is received whole before it is looked at (LIMIT_NBD_OPTION_BYTES), at most
 * LIMIT_NBD_OPTIONS of them. An option we do not know or cannot parse gets an error reply and the
 * client goes on; only a wrong magic, an oversized option or too many of them end the connection.
 */
#include <errno.h>
#include <string.h>

#include "core/base/wire.h"
#include "storage/nbd_server_private.h"

#define ALLOCATION "base:allocation"

enum {
    ALLOCATION_ID = 1,
    BLOCK_PREFERRED_BYTES = 64 * 1024, /* the granularity of QEMU's mirror */
};

void nbd_handshake_greet(struct nbd_server *s)
{
    uint8_t greeting[NBD_GREETING_BYTES];

    put_be64(greeting, NBD_INIT_MAGIC);
    put_be64(greeting + 8, NBD_OPTION_MAGIC);
    put_be16(greeting + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    nbd_server_put(s, greeting, sizeof(greeting));
}

static bool take_client_flags(struct nbd_server *s)
{
    const uint8_t *p = nbd_server_peek(s, 4);
    uint32_t flags;

    if (!p)
        return false;
    flags = get_be32(p);
    nbd_server_skip(s, 4);
    if (flags & ~(NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES)) {
        nbd_server_fail(s, -EPROTO, "the client sent unknown handshake flags");
        return false;
    }
    s->no_zeroes = flags & NBD_FLAG_NO_ZEROES;
    s->state = NBD_SERVER_OPTIONS;
    return true;
}

static void reply(struct nbd_server *s, uint32_t option, uint32_t type, const void *data,
                  uint32_t len)
{
    uint8_t head[NBD_OPTION_REPLY_HEADER_BYTES];

    put_be64(head, NBD_OPTION_REPLY_MAGIC);
    put_be32(head + 8, option);
    put_be32(head + 12, type);
    put_be32(head + 16, len);
    nbd_server_put(s, head, sizeof(head));
    if (len > 0)
        nbd_server_put(s, data, len);
}

/* @len bytes of a name as a string; false when it cannot be the name of an export of ours. */
static bool to_name(char name[LIMIT_EXPORT_NAME_BYTES + 1], const uint8_t *data, size_t len)
{
    if (len > LIMIT_EXPORT_NAME_BYTES || (len > 0 && memchr(data, 0, len)))
        return false;
    if (len > 0)
        memcpy(name, data, len);
    name[len] = 0;
    return true;
}

static void start_transmission(struct nbd_server *s, const struct nbd_export *x, const char *name)
{
    s->size_bytes = x->size_bytes;
    if (strcmp(s->meta_name, name) != 0)
        s->meta_allocation = false; /* contexts were set for another export */
    s->state = NBD_SERVER_REQUESTS;
}

static void option_export_name(struct nbd_server *s, const uint8_t *data, uint32_t len)
{
    static const uint8_t zeroes[NBD_EXPORT_NAME_ZEROES];
    char name[LIMIT_EXPORT_NAME_BYTES + 1];
    struct nbd_export x = {0};
    uint8_t answer[10];

    /* This option has no error reply: the only "no" is to hang up. */
    if (!to_name(name, data, len) || s->ops->open(s->owner, name, &x) < 0) {
        nbd_server_fail(s, -ENOENT, "the client asked for an export that it cannot have");
        return;
    }
    put_be64(answer, x.size_bytes);
    put_be16(answer + 8, nbd_transmission_flags(s));
    nbd_server_put(s, answer, sizeof(answer));
    if (!s->no_zeroes)
        nbd_server_put(s, zeroes, sizeof(zeroes));
    if (s->state != NBD_SERVER_CLOSED)
        start_transmission(s, &x, name);
}

static void reply_text(struct nbd_server *s, uint32_t option, uint16_t info, const char *text)
{
    uint8_t data[2 + 4096];
    size_t len = strnlen(text, sizeof(data) - 2);

    put_be16(data, info);
    memcpy(data + 2, text, len);
    reply(s, option, NBD_REP_INFO, data, (uint32_t)len + 2);
}

static void reply_export(struct nbd_server *s, uint32_t option, const struct nbd_export *x)
{
    uint8_t info[12];
    uint8_t sizes[14];

    put_be16(info, NBD_INFO_EXPORT);
    put_be64(info + 2, x->size_bytes);
    put_be16(info + 10, nbd_transmission_flags(s));
    reply(s, option, NBD_REP_INFO, info, sizeof(info));
    put_be16(sizes, NBD_INFO_BLOCK_SIZE);
    put_be32(sizes + 2, 1);
    put_be32(sizes + 6, BLOCK_PREFERRED_BYTES);
    put_be32(sizes + 10, LIMIT_NBD_WRITE_BYTES);
    reply(s, option, NBD_REP_INFO, sizes, sizeof(sizes));
}

/* INFO and GO: u32 name length, name, u16 n, n x u16 what the client wants to know. */
static void option_info(struct nbd_server *s, uint32_t option, const uint8_t *data, uint32_t len)
{
    struct wire_reader r = wire_reader_of(data, len);
    uint32_t name_len = wire_u32(&r);
    const uint8_t *name_bytes = wire_bytes(&r, name_len);
    uint16_t wishes = wire_u16(&r);
    char name[LIMIT_EXPORT_NAME_BYTES + 1];
    struct nbd_export x = {0};
    bool wants_name = false, wants_description = false;
    int err;

    if (r.bad || wire_left(&r) != (size_t)wishes * 2) {
        reply(s, option, NBD_REP_ERR_INVALID, NULL, 0);
        return;
    }
    for (; wishes > 0; wishes--) {
        uint16_t wish = wire_u16(&r);

        wants_name |= wish == NBD_INFO_NAME;
        wants_description |= wish == NBD_INFO_DESCRIPTION;
    }
    if (!to_name(name, name_bytes, name_len))
        err = -ENOENT;
    else if (option == NBD_OPT_GO)
        err = s->ops->open(s->owner, name, &x);
    else
        err = s->ops->find(s->owner, name, &x);
    if (err < 0) {
        reply(s, option, err == -ENOENT ? NBD_REP_ERR_UNKNOWN : NBD_REP_ERR_POLICY, NULL, 0);
        return;
    }
    reply_export(s, option, &x);
    if (wants_name)
        reply_text(s, option, NBD_INFO_NAME, name);
    if (wants_description && x.description)
        reply_text(s, option, NBD_INFO_DESCRIPTION, x.description);
    reply(s, option, NBD_REP_ACK, NULL, 0);
    if (option == NBD_OPT_GO && s->state != NBD_SERVER_CLOSED)
        start_transmission(s, &x, name);
}

static void option_list(struct nbd_server *s)
{
    const char *name;
    uint8_t entry[4 + LIMIT_EXPORT_NAME_BYTES];

    for (unsigned i = 0; (name = s->ops->list(s->owner, i)); i++) {
        size_t len = strnlen(name, LIMIT_EXPORT_NAME_BYTES);

        put_be32(entry, (uint32_t)len);
        memcpy(entry + 4, name, len);
        reply(s, NBD_OPT_LIST, NBD_REP_SERVER, entry, (uint32_t)len + 4);
    }
    reply(s, NBD_OPT_LIST, NBD_REP_ACK, NULL, 0);
}

static bool query_matches(uint32_t option, const uint8_t *query, uint32_t len)
{
    static const char namespace[] = "base:";

    if (len == sizeof(ALLOCATION) - 1 && memcmp(query, ALLOCATION, len) == 0)
        return true;
    return option == NBD_OPT_LIST_META_CONTEXT && len == sizeof(namespace) - 1 &&
           memcmp(query, namespace, len) == 0;
}

/* LIST and SET_META_CONTEXT: u32 name length, name, u32 n, n x (u32 length, query). */
static void option_meta(struct nbd_server *s, uint32_t option, const uint8_t *data, uint32_t len)
{
    struct wire_reader r = wire_reader_of(data, len);
    uint32_t name_len = wire_u32(&r);
    const uint8_t *name_bytes = wire_bytes(&r, name_len);
    uint32_t queries = wire_u32(&r);
    bool match = option == NBD_OPT_LIST_META_CONTEXT && queries == 0;
    char name[LIMIT_EXPORT_NAME_BYTES + 1];
    uint8_t answer[4 + sizeof(ALLOCATION) - 1];
    struct nbd_export x;

    if (option == NBD_OPT_SET_META_CONTEXT)
        s->meta_allocation = false;
    for (; queries > 0 && !r.bad; queries--) {
        uint32_t query_len = wire_u32(&r);
        const uint8_t *query = wire_bytes(&r, query_len);

        match |= query && query_matches(option, query, query_len);
    }
    if (r.bad || wire_left(&r) > 0 || !s->structured) {
        reply(s, option, NBD_REP_ERR_INVALID, NULL, 0);
        return;
    }
    if (!to_name(name, name_bytes, name_len) || s->ops->find(s->owner, name, &x) < 0) {
        reply(s, option, NBD_REP_ERR_UNKNOWN, NULL, 0);
        return;
    }
    if (match) {
        put_be32(answer, option == NBD_OPT_SET_META_CONTEXT ? ALLOCATION_ID : 0);
        memcpy(answer + 4, ALLOCATION, sizeof(ALLOCATION) - 1);
        reply(s, option, NBD_REP_META_CONTEXT, answer, sizeof(answer));
    }
    if (match && option == NBD_OPT_SET_META_CONTEXT) {
        s->meta_allocation = true;
        memcpy(s->meta_name, name, sizeof(name));
    }
    reply(s, option, NBD_REP_ACK, NULL, 0);
}

static void take_option(struct nbd_server *s, uint32_t option, const uint8_t *data, uint32_t len)
{
    bool empty_wanted = option == NBD_OPT_LIST || option == NBD_OPT_STRUCTURED_REPLY;

    if (empty_wanted && len > 0) {
        reply(s, option, NBD_REP_ERR_INVALID, NULL, 0);
        return;
    }
    switch (option) {
    case NBD_OPT_EXPORT_NAME:
        option_export_name(s, data, len);
        break;
    case NBD_OPT_ABORT:
        reply(s, option, NBD_REP_ACK, NULL, 0);
        nbd_server_close(s, NULL);
        break;
    case NBD_OPT_LIST:
        option_list(s);
        break;
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        option_info(s, option, data, len);
        break;
    case NBD_OPT_STRUCTURED_REPLY:
        s->structured = true;
        reply(s, option, NBD_REP_ACK, NULL, 0);
        break;
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        option_meta(s, option, data, len);
        break;
    default:
        reply(s, option, NBD_REP_ERR_UNSUP, NULL, 0);
    }
}

bool nbd_handshake_step(struct nbd_server *s)
{
    const uint8_t *p;
    uint32_t option, len;

    if (s->state == NBD_SERVER_CLIENT_FLAGS)
        return take_client_flags(s);
    p = nbd_server_peek(s, NBD_OPTION_HEADER_BYTES);
    if (!p)
        return false;
    option = get_be32(p + 8);
    len = get_be32(p + 12);
    if (get_be64(p) != NBD_OPTION_MAGIC)
        nbd_server_fail(s, -EPROTO, "the client's option has a wrong magic");
    else if (len > LIMIT_NBD_OPTION_BYTES)
        nbd_server_fail(s, -E2BIG, "the client's option is too long");
    else if (s->options >= LIMIT_NBD_OPTIONS)
        nbd_server_fail(s, -E2BIG, "the client sends options without end");
    if (s->state == NBD_SERVER_CLOSED)
        return false;
    p = nbd_server_peek(s, NBD_OPTION_HEADER_BYTES + (size_t)len);
    if (!p)
        return false;
    s->options++;
    take_option(s, option, p + NBD_OPTION_HEADER_BYTES, len);
    if (s->state != NBD_SERVER_CLOSED)
        nbd_server_skip(s, NBD_OPTION_HEADER_BYTES + (size_t)len);
    return true;
}
