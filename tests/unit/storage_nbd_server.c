/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server engine against a hand-written client: the handshake, every request, replies in both
 * forms, malformed input, and all of it again fed byte by byte.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/wire.h"
#include "storage/limits.h"
#include "storage/nbd_server.h"

enum { SIZE = 1 << 20 };

/* The owner: one export "disk0", and whatever happened last. */
struct owner {
    struct nbd_server *server;
    unsigned opened, disconnected, requests, asked;
    bool refuse, complete_at_once;
    struct nbd_request last;
    uint64_t cookies[256];
    uint8_t content[64];
};

static int on_find(void *owner, const char *name, struct nbd_export *ret_export)
{
    (void)owner;
    if (strcmp(name, "disk0") != 0)
        return -ENOENT;
    *ret_export = (struct nbd_export){.size_bytes = SIZE, .description = "a disk"};
    return 0;
}

static int on_open(void *owner, const char *name, struct nbd_export *ret_export)
{
    struct owner *o = owner;

    if (strcmp(name, "busy") == 0)
        return -EBUSY;
    if (on_find(owner, name, ret_export) < 0)
        return -ENOENT;
    o->opened++;
    return 0;
}

static const char *on_list(void *owner, unsigned index)
{
    (void)owner;
    return index == 0 ? "disk0" : index == 1 ? "busy" : NULL;
}

static bool on_admit(void *owner, const struct nbd_request *request)
{
    struct owner *o = owner;

    assert_null(request->payload);
    o->asked++;
    return !o->refuse;
}

static void on_request(void *owner, struct nbd_request *request)
{
    struct owner *o = owner;

    assert_true(request->offset + request->length <= SIZE);
    o->last = *request;
    if (request->payload)
        memcpy(o->content, request->payload, MIN(request->length, sizeof(o->content)));
    free(TAKE_PTR(request->payload));
    o->cookies[o->requests++ % 256] = request->cookie;
    if (o->complete_at_once)
        nbd_server_complete(o->server, request->cookie, 0, o->content, request->length);
}

static void on_disconnect(void *owner)
{
    ((struct owner *)owner)->disconnected++;
}

static const struct nbd_server_ops ops = {.find = on_find,
                                          .open = on_open,
                                          .list = on_list,
                                          .admit = on_admit,
                                          .request = on_request,
                                          .disconnect = on_disconnect};

static struct owner *owner_new(void)
{
    struct owner *o = calloc(1, sizeof(*o));

    assert_non_null(o);
    assert_int_equal(nbd_server_new(&o->server, &ops, o), 0);
    return o;
}

static void owner_free(struct owner *o)
{
    nbd_server_free(o->server);
    free(o);
}

/* --- the client ------------------------------------------------------------------------------- */

static bool byte_by_byte;

static int feed(struct owner *o, const void *data, size_t len)
{
    const uint8_t *p = data;
    uint8_t *alone;
    int err = 0;

    if (!byte_by_byte)
        return nbd_server_feed(o->server, data, len);
    for (size_t i = 0; i < len && err == 0; i++) {
        alone = malloc(1); /* so that a sanitizer sees a read beyond it */
        assert_non_null(alone);
        *alone = p[i];
        err = nbd_server_feed(o->server, alone, 1);
        free(alone);
        if (nbd_server_is_closed(o->server))
            break;
    }
    return err;
}

static void expect(struct owner *o, const void *data, size_t len)
{
    struct buffer *out = nbd_server_output(o->server);

    assert_true(buffer_len(out) >= len);
    assert_memory_equal(buffer_data(out), data, len);
    buffer_consume(out, len);
}

static void expect_nothing(struct owner *o)
{
    assert_int_equal(buffer_len(nbd_server_output(o->server)), 0);
}

static void greet(struct owner *o, uint32_t flags)
{
    uint8_t b[NBD_GREETING_BYTES];

    put_be64(b, NBD_INIT_MAGIC);
    put_be64(b + 8, NBD_OPTION_MAGIC);
    put_be16(b + 16, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    expect(o, b, sizeof(b));
    put_be32(b, flags);
    assert_int_equal(feed(o, b, 4), 0);
}

static int option(struct owner *o, uint32_t type, const void *data, uint32_t len)
{
    uint8_t b[NBD_OPTION_HEADER_BYTES + 1024];

    put_be64(b, NBD_OPTION_MAGIC);
    put_be32(b + 8, type);
    put_be32(b + 12, len);
    assert_true(len <= 1024);
    if (len > 0)
        memcpy(b + NBD_OPTION_HEADER_BYTES, data, len);
    return feed(o, b, NBD_OPTION_HEADER_BYTES + len);
}

/* Takes one option reply; returns its type. */
static uint32_t reply(struct owner *o, uint32_t type, uint8_t *data, uint32_t cap)
{
    struct buffer *out = nbd_server_output(o->server);
    const uint8_t *p = buffer_data(out);
    uint32_t code, len;

    assert_true(buffer_len(out) >= NBD_OPTION_REPLY_HEADER_BYTES);
    assert_int_equal(get_be64(p), NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(get_be32(p + 8), type);
    code = get_be32(p + 12);
    len = get_be32(p + 16);
    assert_true(buffer_len(out) >= NBD_OPTION_REPLY_HEADER_BYTES + len);
    if (data)
        memcpy(data, p + NBD_OPTION_REPLY_HEADER_BYTES, MIN(len, cap));
    buffer_consume(out, NBD_OPTION_REPLY_HEADER_BYTES + len);
    return code;
}

static int go(struct owner *o, uint32_t type, const char *name)
{
    uint8_t b[300];
    uint32_t len = (uint32_t)strlen(name);

    put_be32(b, len);
    memcpy(b + 4, name, len);
    put_be16(b + 4 + len, 2);
    put_be16(b + 6 + len, NBD_INFO_BLOCK_SIZE);
    put_be16(b + 8 + len, NBD_INFO_NAME);
    return option(o, type, b, len + 10);
}

static struct owner *connected(bool structured)
{
    struct owner *o = owner_new();

    greet(o, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    if (structured) {
        assert_int_equal(option(o, NBD_OPT_STRUCTURED_REPLY, NULL, 0), 0);
        assert_int_equal(reply(o, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
    }
    assert_int_equal(go(o, NBD_OPT_GO, "disk0"), 0);
    for (int i = 0; i < 3; i++) /* export, block size, name */
        assert_int_equal(reply(o, NBD_OPT_GO, NULL, 0), NBD_REP_INFO);
    assert_int_equal(reply(o, NBD_OPT_GO, NULL, 0), NBD_REP_ACK);
    expect_nothing(o);
    assert_int_equal(o->opened, 1);
    return o;
}

static int request(struct owner *o, unsigned command, unsigned flags, uint64_t offset, uint32_t len,
                   const void *payload)
{
    static uint8_t b[NBD_REQUEST_BYTES + 4096];
    size_t total = NBD_REQUEST_BYTES;

    put_be32(b, NBD_REQUEST_MAGIC);
    put_be16(b + 4, (uint16_t)flags);
    put_be16(b + 6, (uint16_t)command);
    put_be64(b + 8, 0xabcdef);
    put_be64(b + 16, offset);
    put_be32(b + 24, len);
    if (payload) {
        memcpy(b + NBD_REQUEST_BYTES, payload, len);
        total += len;
    }
    return feed(o, b, total);
}

static void expect_simple(struct owner *o, uint32_t error)
{
    uint8_t b[NBD_SIMPLE_REPLY_BYTES];

    put_be32(b, NBD_SIMPLE_REPLY_MAGIC);
    put_be32(b + 4, error);
    put_be64(b + 8, 0xabcdef);
    expect(o, b, sizeof(b));
    expect_nothing(o);
}

/* --- handshake -------------------------------------------------------------------------------- */

static void options_are_answered(void **state)
{
    struct owner *o = owner_new();
    uint8_t data[64];

    (void)state;
    greet(o, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    assert_int_equal(option(o, NBD_OPT_STARTTLS, NULL, 0), 0);
    assert_int_equal(reply(o, NBD_OPT_STARTTLS, NULL, 0), NBD_REP_ERR_UNSUP);
    assert_int_equal(option(o, 4711, "what", 4), 0);
    assert_int_equal(reply(o, 4711, NULL, 0), NBD_REP_ERR_UNSUP);
    assert_int_equal(option(o, NBD_OPT_LIST, NULL, 0), 0);
    assert_int_equal(reply(o, NBD_OPT_LIST, data, sizeof(data)), NBD_REP_SERVER);
    assert_memory_equal(data, "\0\0\0\5disk0", 9);
    assert_int_equal(reply(o, NBD_OPT_LIST, NULL, 0), NBD_REP_SERVER);
    assert_int_equal(reply(o, NBD_OPT_LIST, NULL, 0), NBD_REP_ACK);
    assert_int_equal(option(o, NBD_OPT_LIST, "x", 1), 0);
    assert_int_equal(reply(o, NBD_OPT_LIST, NULL, 0), NBD_REP_ERR_INVALID);
    assert_int_equal(go(o, NBD_OPT_INFO, "nothing"), 0);
    assert_int_equal(reply(o, NBD_OPT_INFO, NULL, 0), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(go(o, NBD_OPT_GO, "busy"), 0);
    assert_int_equal(reply(o, NBD_OPT_GO, NULL, 0), NBD_REP_ERR_POLICY);
    assert_int_equal(go(o, NBD_OPT_INFO, "disk0"), 0);
    assert_int_equal(reply(o, NBD_OPT_INFO, data, sizeof(data)), NBD_REP_INFO);
    assert_int_equal(get_be64(data + 2), SIZE);
    assert_int_equal(reply(o, NBD_OPT_INFO, data, sizeof(data)), NBD_REP_INFO);
    assert_int_equal(get_be32(data + 2), 1);
    assert_int_equal(get_be32(data + 10), LIMIT_NBD_WRITE_BYTES);
    assert_int_equal(reply(o, NBD_OPT_INFO, NULL, 0), NBD_REP_INFO);
    assert_int_equal(reply(o, NBD_OPT_INFO, NULL, 0), NBD_REP_ACK);
    assert_int_equal(o->opened, 0); /* INFO claims nothing */
    assert_int_equal(option(o, NBD_OPT_ABORT, NULL, 0), 0);
    assert_int_equal(reply(o, NBD_OPT_ABORT, NULL, 0), NBD_REP_ACK);
    assert_true(nbd_server_is_closed(o->server));
    assert_int_equal(nbd_server_error(o->server)->code, 0);
    owner_free(o);
}

static void export_name_starts_at_once(void **state)
{
    static const uint8_t zeroes[NBD_EXPORT_NAME_ZEROES];

    (void)state;
    for (int no_zeroes = 0; no_zeroes < 2; no_zeroes++) {
        struct owner *o = owner_new();
        uint8_t size[8];

        greet(o, NBD_FLAG_FIXED_NEWSTYLE | (no_zeroes ? NBD_FLAG_NO_ZEROES : 0));
        assert_int_equal(option(o, NBD_OPT_EXPORT_NAME, "disk0", 5), 0);
        put_be64(size, SIZE);
        expect(o, size, 8);
        buffer_consume(nbd_server_output(o->server), 2);
        if (!no_zeroes)
            expect(o, zeroes, sizeof(zeroes));
        expect_nothing(o);
        assert_false(nbd_server_in_handshake(o->server));
        owner_free(o);
    }
}

static void meta_contexts(void **state)
{
    static const uint8_t query[] = "\0\0\0\5disk0\0\0\0\2\0\0\0\5other\0\0\0\17base:allocation";
    struct owner *o = owner_new();
    uint8_t data[64];

    (void)state;
    greet(o, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
    /* without structured replies there are none */
    assert_int_equal(option(o, NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1), 0);
    assert_int_equal(reply(o, NBD_OPT_SET_META_CONTEXT, NULL, 0), NBD_REP_ERR_INVALID);
    option(o, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
    assert_int_equal(reply(o, NBD_OPT_STRUCTURED_REPLY, NULL, 0), NBD_REP_ACK);
    assert_int_equal(option(o, NBD_OPT_LIST_META_CONTEXT, "\0\0\0\5disk0\0\0\0\0", 13), 0);
    assert_int_equal(reply(o, NBD_OPT_LIST_META_CONTEXT, NULL, 0), NBD_REP_META_CONTEXT);
    assert_int_equal(reply(o, NBD_OPT_LIST_META_CONTEXT, NULL, 0), NBD_REP_ACK);
    assert_int_equal(option(o, NBD_OPT_SET_META_CONTEXT, query, sizeof(query) - 1), 0);
    assert_int_equal(reply(o, NBD_OPT_SET_META_CONTEXT, data, sizeof(data)), NBD_REP_META_CONTEXT);
    assert_memory_equal(data, "\0\0\0\1base:allocation", 19);
    assert_int_equal(reply(o, NBD_OPT_SET_META_CONTEXT, NULL, 0), NBD_REP_ACK);
    /* cut anywhere it is invalid, not read beyond */
    for (uint32_t len = 0; len < sizeof(query) - 1; len += 5) {
        struct owner *p = owner_new();

        greet(p, NBD_FLAG_FIXED_NEWSTYLE | NBD_FLAG_NO_ZEROES);
        option(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        reply(p, NBD_OPT_STRUCTURED_REPLY, NULL, 0);
        assert_int_equal(option(p, NBD_OPT_SET_META_CONTEXT, query, len), 0);
        assert_int_equal(reply(p, NBD_OPT_SET_META_CONTEXT, NULL, 0), NBD_REP_ERR_INVALID);
        owner_free(p);
    }
    go(o, NBD_OPT_GO, "disk0");
    buffer_clear(nbd_server_output(o->server));
    assert_int_equal(request(o, NBD_CMD_BLOCK_STATUS, 0, 4096, 8192, NULL), 0);
    expect(o, "\x66\x8e\x33\xef\0\1\0\5\0\0\0\0\0\xab\xcd\xef\0\0\0\14\0\0\0\1\0\0\x20\0\0\0\0\0",
           32);
    expect_nothing(o);
    owner_free(o);
}

static void a_broken_handshake_ends_it(void **state)
{
    uint8_t b[NBD_OPTION_HEADER_BYTES] = {0};
    struct owner *o = owner_new();

    (void)state;
    put_be32(b, 0x80);
    buffer_clear(nbd_server_output(o->server));
    assert_int_equal(feed(o, b, 4), -EPROTO); /* unknown client flags */
    assert_true(nbd_server_is_closed(o->server));
    assert_int_equal(feed(o, b, 1), -ESHUTDOWN);
    owner_free(o);

    o = owner_new();
    greet(o, NBD_FLAG_FIXED_NEWSTYLE);
    assert_int_equal(feed(o, b, sizeof(b)), -EPROTO); /* no magic */
    owner_free(o);

    o = owner_new();
    greet(o, NBD_FLAG_FIXED_NEWSTYLE);
    put_be64(b, NBD_OPTION_MAGIC);
    put_be32(b + 12, LIMIT_NBD_OPTION_BYTES + 1);
    assert_int_equal(feed(o, b, sizeof(b)), -E2BIG);
    owner_free(o);

    o = owner_new();
    greet(o, NBD_FLAG_FIXED_NEWSTYLE);
    for (unsigned i = 0; i < LIMIT_NBD_OPTIONS; i++)
        assert_int_equal(option(o, NBD_OPT_LIST, NULL, 0), 0);
    assert_int_equal(option(o, NBD_OPT_LIST, NULL, 0), -E2BIG);
    owner_free(o);

    o = owner_new();
    greet(o, NBD_FLAG_FIXED_NEWSTYLE);
    assert_int_equal(option(o, NBD_OPT_EXPORT_NAME, "nothing", 7), -ENOENT);
    owner_free(o);
}

/* --- transmission ----------------------------------------------------------------------------- */

static void requests_and_replies(void **state)
{
    (void)state;
    for (int structured = 0; structured < 2; structured++) {
        struct owner *o = connected(structured);

        assert_int_equal(request(o, NBD_CMD_WRITE, NBD_CMD_FLAG_FUA, 512, 5, "hello"), 0);
        assert_int_equal(o->last.offset, 512);
        assert_memory_equal(o->content, "hello", 5);
        assert_int_equal(nbd_server_in_flight(o->server), 1);
        expect_nothing(o);
        nbd_server_complete(o->server, o->last.cookie, 0, NULL, 0);
        expect_simple(o, 0);
        nbd_server_complete(o->server, o->last.cookie, 0, NULL, 0); /* twice is harmless */
        expect_nothing(o);
        assert_int_equal(request(o, NBD_CMD_WRITE_ZEROES,
                                 NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO, 0, SIZE, NULL),
                         0);
        assert_int_equal(o->last.flags, NBD_CMD_FLAG_NO_HOLE | NBD_CMD_FLAG_FAST_ZERO);
        nbd_server_complete(o->server, o->last.cookie, -ENOSPC, NULL, 0);
        expect_simple(o, NBD_ENOSPC);
        assert_int_equal(request(o, NBD_CMD_TRIM, 0, 1, 1, NULL), 0);
        nbd_server_complete(o->server, o->last.cookie, -ENOTCONN, NULL, 0);
        expect_simple(o, NBD_EIO);
        assert_int_equal(request(o, NBD_CMD_FLUSH, 0, 0, 0, NULL), 0);
        nbd_server_complete(o->server, o->last.cookie, 0, NULL, 0);
        expect_simple(o, 0);
        assert_int_equal(request(o, NBD_CMD_READ, 0, 1000, 4, NULL), 0);
        nbd_server_complete(o->server, o->last.cookie, 0, "data", 4);
        if (structured)
            expect(o,
                   "\x66\x8e\x33\xef\0\1\0\1\0\0\0\0\0\xab\xcd\xef\0\0\0\14\0\0\0\0\0\0\3\xe8"
                   "data",
                   32);
        else
            expect(o,
                   "\x67\x44\x66\x98\0\0\0\0\0\0\0\0\0\xab\xcd\xef"
                   "data",
                   20);
        expect_nothing(o);
        assert_int_equal(request(o, NBD_CMD_READ, 0, 1000, 4, NULL), 0);
        nbd_server_complete(o->server, o->last.cookie, -EIO, NULL, 0);
        if (structured)
            expect(o, "\x66\x8e\x33\xef\0\1\x80\1\0\0\0\0\0\xab\xcd\xef\0\0\0\6\0\0\0\5\0\0", 26);
        else
            expect_simple(o, NBD_EIO);
        assert_int_equal(request(o, NBD_CMD_DISC, 0, 0, 0, NULL), 0);
        assert_int_equal(o->disconnected, 1);
        assert_true(nbd_server_is_closed(o->server));
        assert_int_equal(nbd_server_error(o->server)->code, 0);
        owner_free(o);
    }
}

static void bad_requests_get_errors(void **state)
{
    static const struct {
        unsigned command, flags;
        uint64_t offset;
        uint32_t length, error;
    } bad[] = {
        {NBD_CMD_WRITE, 0, SIZE - 1, 2, NBD_ENOSPC},
        {NBD_CMD_WRITE, 0, UINT64_MAX, 2, NBD_ENOSPC},
        {NBD_CMD_WRITE, 0, UINT64_MAX - 1, 4, NBD_ENOSPC}, /* would wrap around */
        {NBD_CMD_WRITE, NBD_CMD_FLAG_NO_HOLE, 0, 2, NBD_EINVAL},
        {NBD_CMD_WRITE_ZEROES, 0, 1, SIZE, NBD_ENOSPC},
        {NBD_CMD_WRITE_ZEROES, 0x8000, 1, 1, NBD_EINVAL},
        {NBD_CMD_TRIM, 0, SIZE, 1, NBD_EINVAL},
        {NBD_CMD_READ, 0, SIZE, 1, NBD_EINVAL},
        {NBD_CMD_READ, NBD_CMD_FLAG_DF, 0, 1, NBD_EINVAL}, /* without structured replies */
        {NBD_CMD_READ, 0, 0, LIMIT_MIRROR_READ_BYTES + 1, NBD_EOVERFLOW},
        {NBD_CMD_FLUSH, 0, 0, 1, NBD_EINVAL},
        {NBD_CMD_BLOCK_STATUS, 0, 0, 1, NBD_EINVAL}, /* not negotiated */
        {NBD_CMD_CACHE, 0, 0, 1, NBD_EINVAL},
        {999, 0, 0, 1, NBD_EINVAL},
        {NBD_CMD_WRITE, 0, 10, 0, 0}, /* nothing to do: done */
        {NBD_CMD_TRIM, 0, SIZE, 0, 0},
    };
    struct owner *o = connected(false);

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        const void *payload = bad[i].command == NBD_CMD_WRITE && bad[i].length ? "some" : NULL;

        assert_int_equal(
            request(o, bad[i].command, bad[i].flags, bad[i].offset, bad[i].length, payload), 0);
        expect_simple(o, bad[i].error);
    }
    assert_int_equal(o->requests, 0);
    /* and the connection is still in step */
    assert_int_equal(request(o, NBD_CMD_WRITE, 0, SIZE - 4, 4, "last"), 0);
    assert_int_equal(o->requests, 1);
    owner_free(o);
}

static void a_broken_protocol_ends_it(void **state)
{
    uint8_t b[NBD_REQUEST_BYTES] = {0};
    struct owner *o = connected(true);

    (void)state;
    assert_int_equal(feed(o, b, sizeof(b)), -EPROTO);
    assert_int_equal(o->disconnected, 0);
    assert_true(error_is_set(nbd_server_error(o->server)));
    owner_free(o);
    o = connected(true);
    assert_int_equal(request(o, NBD_CMD_WRITE, 0, 0, LIMIT_NBD_WRITE_BYTES + 1, NULL), -E2BIG);
    owner_free(o);
    o = connected(true); /* freed in the middle of a payload */
    put_be32(b, NBD_REQUEST_MAGIC);
    put_be16(b + 6, NBD_CMD_WRITE);
    put_be32(b + 24, 1000);
    assert_int_equal(feed(o, b, sizeof(b)), 0);
    owner_free(o);
}

static void refused_requests_wait(void **state)
{
    struct owner *o = connected(true);

    (void)state;
    o->refuse = true;
    assert_int_equal(request(o, NBD_CMD_WRITE, 0, 0, 3, "one"), 0);
    assert_false(nbd_server_wants_input(o->server));
    assert_int_equal(request(o, NBD_CMD_WRITE, 0, 0, 3, "two"), 0);
    assert_int_equal(o->requests, 0);
    assert_int_equal(o->asked, 1);
    o->refuse = false;
    nbd_server_resume(o->server);
    assert_int_equal(o->requests, 2);
    assert_memory_equal(o->content, "two", 3);
    assert_true(nbd_server_wants_input(o->server));
    owner_free(o);
}

static void too_many_requests_wait(void **state)
{
    struct owner *o = connected(true);

    (void)state;
    for (unsigned i = 0; i < LIMIT_NBD_REQUESTS_IN_FLIGHT + 5; i++)
        assert_int_equal(request(o, NBD_CMD_WRITE, 0, i, 1, "x"), 0);
    assert_int_equal(o->requests, LIMIT_NBD_REQUESTS_IN_FLIGHT);
    assert_false(nbd_server_wants_input(o->server));
    for (unsigned i = 0; i < o->requests; i++)
        nbd_server_complete(o->server, o->cookies[i], 0, NULL, 0);
    assert_int_equal(o->requests, LIMIT_NBD_REQUESTS_IN_FLIGHT + 5);
    assert_int_equal(o->last.offset, LIMIT_NBD_REQUESTS_IN_FLIGHT + 4);
    assert_int_equal(nbd_server_in_flight(o->server), 0);
    owner_free(o);
}

static void completion_inside_the_request(void **state)
{
    struct owner *o = connected(false);
    struct buffer all = {0};
    uint8_t b[NBD_REQUEST_BYTES];

    (void)state;
    o->complete_at_once = true;
    put_be32(b, NBD_REQUEST_MAGIC);
    put_be32(b + 4, NBD_CMD_TRIM);
    put_be64(b + 8, 0xabcdef);
    put_be64(b + 16, 0);
    put_be32(b + 24, 1);
    for (int i = 0; i < 1000; i++) /* would overflow the stack if it recursed; many at once */
        buffer_append(&all, b, sizeof(b));
    assert_int_equal(feed(o, buffer_data(&all), buffer_len(&all)), 0);
    assert_int_equal(o->requests, 1000);
    assert_int_equal(buffer_len(nbd_server_output(o->server)), 1000 * NBD_SIMPLE_REPLY_BYTES);
    buffer_done(&all);
    owner_free(o);
}

static int whole(void **state)
{
    (void)state;
    byte_by_byte = false;
    return 0;
}

static int split(void **state)
{
    (void)state;
    byte_by_byte = true;
    return 0;
}

#define BOTH(test) cmocka_unit_test_setup(test, whole), cmocka_unit_test_setup(test, split)

int main(void)
{
    const struct CMUnitTest tests[] = {
        BOTH(options_are_answered),
        BOTH(export_name_starts_at_once),
        BOTH(meta_contexts),
        BOTH(a_broken_handshake_ends_it),
        BOTH(requests_and_replies),
        BOTH(bad_requests_get_errors),
        BOTH(a_broken_protocol_ends_it),
        BOTH(refused_requests_wait),
        BOTH(too_many_requests_wait),
        BOTH(completion_inside_the_request),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
