/* SPDX-License-Identifier: Apache-2.0 */
/* The opening of libvirt's connection, made ahead: see rpc_opening.h. Numbers are those of libvirt's remote_protocol.x. */
#include "core/move/rpc_opening.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include "core/base/base64.h"
#include "core/base/clock.h"
#include "core/base/wire.h"
#include "core/move/local_socket.h"

enum {
    MAKE_WITHIN_S = 2,
    /* Procedures. */
    CONNECT_OPEN = 1,
    CONNECT_SUPPORTS_FEATURE = 60,
    AUTH_LIST = 66,
    CONNECT_REGISTER_CLOSE_CALLBACK = 360,
    /* What is asked for. */
    FEATURE_MIGRATION_P2P = 4,
    FEATURE_MIGRATION_V3 = 6,
    FEATURE_PROGRAM_KEEPALIVE = 10,
    FEATURE_MIGRATION_PARAMS = 13,
    FEATURE_REMOTE_EVENT_CALLBACK = 14,
    FEATURE_REMOTE_CLOSE_CALLBACK = 15,
};

/* --- frames -------------------------------------------------------------------------------- */

static bool is_whole(const struct rpc_opening_frame *f, uint32_t type)
{
    return f->len >= RPC_AT_BODY && get_be32(f->bytes + RPC_AT_LEN) == f->len &&
           get_be32(f->bytes + RPC_AT_PROGRAM) == RPC_PROGRAM_REMOTE &&
           get_be32(f->bytes + RPC_AT_TYPE) == type;
}

/* What asks, and what begins a connection; nothing that touches a VM. */
static bool is_of_opening(const struct rpc_opening_frame *f)
{
    static const uint32_t procedures[] = {AUTH_LIST, CONNECT_SUPPORTS_FEATURE, CONNECT_OPEN,
                                          CONNECT_REGISTER_CLOSE_CALLBACK};

    if (!is_whole(f, RPC_TYPE_CALL))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(procedures); i++) {
        if (get_be32(f->bytes + RPC_AT_PROCEDURE) == procedures[i])
            return true;
    }
    return false;
}

static bool is_same_call(const struct rpc_opening_frame *a, const struct rpc_opening_frame *b)
{
    return a->len == b->len && memcmp(a->bytes, b->bytes, RPC_AT_SERIAL) == 0 &&
           memcmp(a->bytes + RPC_AT_STATUS, b->bytes + RPC_AT_STATUS, a->len - RPC_AT_STATUS) == 0;
}

static bool is_reply_to(const struct rpc_opening_frame *reply, const struct rpc_opening_frame *call)
{
    return is_whole(reply, RPC_TYPE_REPLY) &&
           get_be32(reply->bytes + RPC_AT_STATUS) == RPC_STATUS_OK &&
           memcmp(reply->bytes + RPC_AT_PROCEDURE, call->bytes + RPC_AT_PROCEDURE, 4) == 0;
}

static void take(struct rpc_opening_frame *f, const struct rpc_frame *from)
{
    f->len = 0;
    if (from->len > sizeof(f->bytes))
        return;
    memcpy(f->bytes, from->data, from->len);
    f->len = from->len;
}

/* --- JSON ---------------------------------------------------------------------------------- */

static json_t *frame_to_json(const struct rpc_opening_frame *f)
{
    char text[BASE64_TEXT_BYTES(RPC_OPENING_FRAME_BYTES)];

    base64_encode(text, f->bytes, f->len);
    return json_string(text);
}

static bool frame_from_json(struct rpc_opening_frame *f, const json_t *from)
{
    ssize_t len = json_is_string(from)
                      ? base64_decode(json_string_value(from), json_string_length(from), f->bytes,
                                      sizeof(f->bytes))
                      : -EPROTO;

    f->len = len < RPC_AT_BODY ? 0 : (size_t)len;
    return f->len > 0;
}

static void forget_replies(struct rpc_opening *o)
{
    for (unsigned i = 0; i < o->count; i++)
        o->calls[i].reply.len = 0;
}

json_t *rpc_opening_calls_to_json(const struct rpc_opening *o)
{
    json_t *list = o->count > 0 ? json_array() : NULL;

    for (unsigned i = 0; i < o->count; i++)
        json_array_append_new(list, frame_to_json(&o->calls[i].call));
    return list;
}

json_t *rpc_opening_replies_to_json(const struct rpc_opening *o)
{
    json_t *list = rpc_opening_is_made(o) ? json_array() : NULL;

    for (unsigned i = 0; list && i < o->count; i++)
        json_array_append_new(list, frame_to_json(&o->calls[i].reply));
    return list;
}

bool rpc_opening_from_json(struct rpc_opening *o, const json_t *calls)
{
    memset(o, 0, sizeof(*o));
    if (json_array_size(calls) > RPC_OPENING_CALLS_MAX)
        return false;
    for (size_t i = 0; i < json_array_size(calls); i++) {
        if (!frame_from_json(&o->calls[i].call, json_array_get(calls, i)) ||
            !is_of_opening(&o->calls[i].call)) {
            o->count = 0;
            return false;
        }
        o->count++;
    }
    return o->count > 0;
}

void rpc_opening_take_replies(struct rpc_opening *o, const json_t *replies)
{
    bool well = json_array_size(replies) == o->count;

    for (unsigned i = 0; well && i < o->count; i++)
        well = frame_from_json(&o->calls[i].reply, json_array_get(replies, i)) &&
               is_reply_to(&o->calls[i].reply, &o->calls[i].call);
    if (!well)
        forget_replies(o);
}

/* --- source -------------------------------------------------------------------------------- */

bool rpc_opening_is_made(const struct rpc_opening *o)
{
    return o->count > 0 && o->calls[0].reply.len > 0;
}

static void put_word(struct rpc_opening_frame *f, uint32_t word)
{
    put_be32(f->bytes + f->len, word);
    f->len += 4;
}

/* XDR: its length, its bytes, and zeroes up to the next word. */
static void put_string(struct rpc_opening_frame *f, const char *text)
{
    size_t len = strlen(text);

    put_word(f, (uint32_t)len);
    memcpy(f->bytes + f->len, text, len);
    f->len += (len + 3) / 4 * 4;
}

void rpc_opening_presume(struct rpc_opening *o)
{
    static const struct {
        uint32_t procedure, feature; /* CONNECT_SUPPORTS_FEATURE's: enum virDrvFeature */
        const char *uri;             /* CONNECT_OPEN's; flags follow, none */
    } calls[] = {
        {AUTH_LIST, 0, NULL},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_PROGRAM_KEEPALIVE, NULL},
        {CONNECT_OPEN, 0, "qemu:///system"},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_REMOTE_EVENT_CALLBACK, NULL},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_REMOTE_CLOSE_CALLBACK, NULL},
        {CONNECT_REGISTER_CLOSE_CALLBACK, 0, NULL},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_MIGRATION_P2P, NULL},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_MIGRATION_V3, NULL},
        {CONNECT_SUPPORTS_FEATURE, FEATURE_MIGRATION_PARAMS, NULL},
    };

    memset(o, 0, sizeof(*o));
    for (; o->count < ARRAY_SIZE(calls); o->count++) {
        struct rpc_opening_frame *f = &o->calls[o->count].call;

        f->len = RPC_AT_BODY;
        put_be32(f->bytes + RPC_AT_PROGRAM, RPC_PROGRAM_REMOTE);
        put_be32(f->bytes + RPC_AT_VERSION, 1);
        put_be32(f->bytes + RPC_AT_PROCEDURE, calls[o->count].procedure);
        put_be32(f->bytes + RPC_AT_SERIAL, o->count);
        if (calls[o->count].uri) {
            put_word(f, 1); /* there is a name */
            put_string(f, calls[o->count].uri);
            put_word(f, 0);
        }
        if (calls[o->count].feature)
            put_word(f, calls[o->count].feature);
        put_be32(f->bytes + RPC_AT_LEN, (uint32_t)f->len);
    }
}

bool rpc_opening_learn(struct rpc_opening *o, const struct rpc_frame *frame)
{
    struct rpc_opening_frame f = {0};

    if (o->over)
        return false;
    take(&f, frame);
    o->over = o->count == RPC_OPENING_CALLS_MAX || !is_of_opening(&f);
    if (!o->over)
        o->calls[o->count++].call = f;
    return o->over;
}

const struct rpc_opening_frame *rpc_opening_answer(struct rpc_opening *o,
                                                   const struct rpc_frame *frame)
{
    struct rpc_opening_frame f;

    take(&f, frame);
    for (unsigned i = 0; i < o->count; i++) {
        struct rpc_opening_call *c = &o->calls[i];

        if (c->answered || c->reply.len == 0 || !is_same_call(&c->call, &f))
            continue;
        c->answered = true;
        memcpy(c->reply.bytes + RPC_AT_SERIAL, f.bytes + RPC_AT_SERIAL, 4);
        return &c->reply;
    }
    return NULL;
}

/* --- target -------------------------------------------------------------------------------- */

static int write_all(int fd, const uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = send(fd, data, len, MSG_NOSIGNAL);

        if (n < 0)
            return -errno;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int read_all(int fd, uint8_t *data, size_t len)
{
    while (len > 0) {
        ssize_t n = recv(fd, data, len, 0);

        if (n <= 0)
            return n < 0 ? -errno : -EPIPE;
        data += n;
        len -= (size_t)n;
    }
    return 0;
}

static int read_reply(int fd, struct rpc_opening_call *c)
{
    struct rpc_opening_frame *f = &c->reply;
    int r = read_all(fd, f->bytes, 4);

    f->len = r < 0 ? 0 : get_be32(f->bytes);
    if (r < 0 || f->len < RPC_AT_BODY || f->len > sizeof(f->bytes))
        return r < 0 ? r : -EPROTO;
    r = read_all(fd, f->bytes + 4, f->len - 4);
    return r < 0 || is_reply_to(f, &c->call) ? r : -EPROTO;
}

/* What blocks on the socket, at most. */
static int set_limit_ns(int fd, uint64_t limit_ns)
{
    struct timeval t = {.tv_sec = (time_t)(limit_ns / NS_PER_S),
                        .tv_usec = (suseconds_t)(limit_ns % NS_PER_S / 1000)};

    return setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &t, sizeof(t)) < 0 ||
                   setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof(t)) < 0
               ? -errno
               : 0;
}

/* One after the other: libvirtd works at the calls of a connection side by side. */
static int make_calls(struct rpc_opening *o, int fd, uint64_t until_ns)
{
    int r = 0;

    for (unsigned i = 0; i < o->count && r == 0; i++) {
        struct rpc_opening_call *c = &o->calls[i];
        uint64_t now_ns = clock_now_ns();

        r = now_ns + NS_PER_MS > until_ns ? -EAGAIN : set_limit_ns(fd, until_ns - now_ns);
        if (r == 0)
            r = write_all(fd, c->call.bytes, c->call.len);
        if (r == 0)
            r = read_reply(fd, c);
    }
    return r < 0 ? r : set_limit_ns(fd, 0);
}

void rpc_opening_keep_alive(int fd)
{
    uint8_t frame[RPC_KEEPALIVE_FRAME_BYTES], pong[RPC_KEEPALIVE_FRAME_BYTES];

    rpc_put_keepalive_pong(pong);
    while (recv(fd, frame, sizeof(frame), MSG_DONTWAIT | MSG_PEEK) == sizeof(frame) &&
           rpc_kind_of(frame, sizeof(frame)) == RPC_KEEPALIVE_PING &&
           recv(fd, frame, sizeof(frame), MSG_DONTWAIT) == sizeof(frame)) {
        if (send(fd, pong, sizeof(pong), MSG_DONTWAIT | MSG_NOSIGNAL) != sizeof(pong))
            return;
    }
}

int rpc_opening_make(struct rpc_opening *o, const char *path)
{
    int fd = local_connect_fd(path);
    int r = fd < 0 ? fd : make_calls(o, fd, clock_now_ns() + MAKE_WITHIN_S * NS_PER_S);

    if (r == 0)
        return fd;
    forget_replies(o);
    if (fd >= 0)
        close(fd);
    return r;
}
