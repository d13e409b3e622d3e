/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD server engine's object: input, completions, closing. See nbd_server.h for what it is.
 *
 * The parse loop runs steps until one needs more input, the owner refuses a request, too many requests
 * are open or the connection is over. It may be entered from feed(), complete() and resume(), and the
 * owner may call complete() from inside ops->request(): `running` keeps it from being entered twice, and
 * because the loop looks at the state afresh before each step nothing is missed by that.
 */
#include "storage/nbd_server.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "storage/nbd_server_private.h"

int nbd_server_new(struct nbd_server **ret_server, const struct nbd_server_ops *ops, void *owner)
{
    struct nbd_server *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->ops = ops;
    s->owner = owner;
    s->state = NBD_SERVER_CLIENT_FLAGS;
    nbd_handshake_greet(s);
    if (s->state == NBD_SERVER_CLOSED) {
        nbd_server_free(s);
        return -ENOMEM;
    }
    *ret_server = s;
    return 0;
}

void nbd_server_free(struct nbd_server *s)
{
    if (!s)
        return;
    free(s->current.payload);
    buffer_done(&s->in);
    buffer_done(&s->output);
    free(s);
}

static void set_closed(struct nbd_server *s)
{
    s->state = NBD_SERVER_CLOSED;
    s->refused = false;
    free(TAKE_PTR(s->current.payload));
    buffer_done(&s->in);
    s->fed_len = 0;
}

void nbd_server_close(struct nbd_server *s, const struct error *why)
{
    if (s->state == NBD_SERVER_CLOSED)
        return;
    if (why)
        s->error = *why;
    set_closed(s);
}

void nbd_server_fail(struct nbd_server *s, int code, const char *why)
{
    struct error e = {0};

    if (s->state == NBD_SERVER_CLOSED)
        return;
    error_set(&e, code, "serve an NBD client", NULL, "%s", why);
    nbd_server_close(s, &e);
}

void nbd_server_put(struct nbd_server *s, const void *data, size_t len)
{
    if (buffer_append(&s->output, data, len) < 0)
        nbd_server_fail(s, -ENOMEM, "out of memory for a reply");
}

const uint8_t *nbd_server_peek(struct nbd_server *s, size_t need)
{
    size_t have = buffer_len(&s->in);
    size_t more;

    if (have == 0 && s->fed_len >= need)
        return s->fed;
    if (have < need) {
        more = MIN(need - have, s->fed_len);
        if (more == 0)
            return NULL;
        if (buffer_append(&s->in, s->fed, more) < 0) {
            nbd_server_fail(s, -ENOMEM, "out of memory for a request");
            return NULL;
        }
        s->fed += more;
        s->fed_len -= more;
        have += more;
    }
    return have >= need ? buffer_data(&s->in) : NULL;
}

void nbd_server_skip(struct nbd_server *s, size_t len)
{
    if (buffer_len(&s->in) > 0) {
        buffer_consume(&s->in, len);
        return;
    }
    assert(len <= s->fed_len);
    s->fed += len;
    s->fed_len -= len;
}

size_t nbd_server_take(struct nbd_server *s, uint8_t *to, size_t len)
{
    size_t kept = MIN(len, buffer_len(&s->in));
    size_t fresh = MIN(len - kept, s->fed_len);

    if (kept > 0) {
        if (to)
            memcpy(to, buffer_data(&s->in), kept);
        buffer_consume(&s->in, kept);
    }
    if (fresh > 0) {
        if (to)
            memcpy(to + kept, s->fed, fresh);
        s->fed += fresh;
        s->fed_len -= fresh;
    }
    return kept + fresh;
}

static bool step(struct nbd_server *s)
{
    switch (s->state) {
    case NBD_SERVER_CLIENT_FLAGS:
    case NBD_SERVER_OPTIONS:
        return nbd_handshake_step(s);
    case NBD_SERVER_REQUESTS:
    case NBD_SERVER_PAYLOAD:
    case NBD_SERVER_DISCARD:
        return nbd_transmission_step(s);
    case NBD_SERVER_CLOSED:
        break;
    }
    return false;
}

static void run(struct nbd_server *s)
{
    if (s->running)
        return;
    s->running = true;
    while (nbd_server_wants_input(s) && step(s))
        ;
    s->running = false;
}

int nbd_server_feed(struct nbd_server *s, const void *data, size_t len)
{
    assert(!s->running);
    if (s->state == NBD_SERVER_CLOSED)
        return -ESHUTDOWN;
    s->fed = data;
    s->fed_len = len;
    run(s);
    if (s->state != NBD_SERVER_CLOSED && s->fed_len > 0 &&
        buffer_append(&s->in, s->fed, s->fed_len) < 0)
        nbd_server_fail(s, -ENOMEM, "out of memory for a request");
    s->fed = NULL;
    s->fed_len = 0;
    return s->error.code;
}

void nbd_server_resume(struct nbd_server *s)
{
    s->refused = false;
    run(s);
}

void nbd_server_complete(struct nbd_server *s, uint64_t cookie, int err, const void *data,
                         size_t len)
{
    struct nbd_pending *p = &s->pending[cookie % LIMIT_NBD_REQUESTS_IN_FLIGHT];
    struct nbd_pending done = *p;

    if (cookie == 0 || p->cookie != cookie)
        return;
    memset(p, 0, sizeof(*p));
    s->in_flight--;
    /* Also after DISC: a client that waits for its replies gets them. */
    if (err == 0 && done.command == NBD_CMD_READ && len != done.length)
        err = -EIO;
    nbd_transmission_reply(s, &done, nbd_transmission_error(err), data, len);
    run(s);
}

struct buffer *nbd_server_output(struct nbd_server *s)
{
    return &s->output;
}

bool nbd_server_wants_input(const struct nbd_server *s)
{
    return s->state != NBD_SERVER_CLOSED && !s->refused &&
           s->in_flight < LIMIT_NBD_REQUESTS_IN_FLIGHT;
}

bool nbd_server_is_closed(const struct nbd_server *s)
{
    return s->state == NBD_SERVER_CLOSED;
}

bool nbd_server_in_handshake(const struct nbd_server *s)
{
    return s->state <= NBD_SERVER_OPTIONS;
}

unsigned nbd_server_in_flight(const struct nbd_server *s)
{
    return s->in_flight;
}

const struct error *nbd_server_error(const struct nbd_server *s)
{
    return &s->error;
}
