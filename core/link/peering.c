/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions with peers, messages and labelled streams: see peering.h. */
#include "core/link/peering.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/base/wire.h"

enum { LABEL_MAX_BYTES = 1024, IDLE_CLOSE_MS = 10000, TICK_MS = 2000 };

/* The owner's half of a link_session. */
struct contact {
    TAILQ_ENTRY(contact) entry;
    struct peering *peering;
    struct link_session *ls;
    char peer[WIRE_NAME_BYTES];
    bool dialled;
    unsigned holds;
    uint64_t idle_since_ns;
    struct stream *control_out; /* ours */
    struct stream *control_in;  /* the peer's, once its label was read */
    struct buffer unsent;       /* messages beyond the stream's room */
};

struct peering {
    uv_loop_t *loop;
    struct link *link;
    struct link_limits *limits;
    const struct config *config;
    const struct peering_ops *ops;
    void *user;
    uv_timer_t tick;
    TAILQ_HEAD(, contact) contacts;
};

static struct contact *contact_of(struct link_session *ls)
{
    return link_session_user(ls);
}

/* --- sending ------------------------------------------------------------------------------- */

static void flush_control(struct contact *c)
{
    size_t n;

    while (c->control_out && (n = MIN(buffer_len(&c->unsent), stream_room(c->control_out))) > 0) {
        if (stream_write(c->control_out, buffer_data(&c->unsent), n) < 0)
            break;
        buffer_consume(&c->unsent, n);
    }
}

static void on_control_writable(void *user, struct stream *stream)
{
    (void)stream;
    flush_control(user);
}

static void on_control_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct contact *c = user;

    (void)stream;
    (void)reason;
    /* Control streams live as long as the session: its end is told separately. A peer that resets one
     * alone breaks the protocol. */
    if (!session_is_closed(link_session_engine(c->ls)))
        session_fail(link_session_engine(c->ls), WIRE_REASON_PROTOCOL, "control stream reset");
}

static int write_label(struct stream *stream, json_t *label)
{
    uint8_t length[2];
    char *text = json_dumps(label, JSON_COMPACT);
    int r = -ENOMEM;

    if (text && strlen(text) <= LABEL_MAX_BYTES) {
        put_be16(length, (uint16_t)strlen(text));
        r = stream_write(stream, length, sizeof(length));
        if (r == 0)
            r = stream_write(stream, text, strlen(text));
    }
    free(text);
    json_decref(label);
    return r;
}

int peering_open(struct link_session *ls, enum care care, json_t *label, struct stream **ret)
{
    struct stream *stream;
    int r = stream_open(link_session_engine(ls), care, &stream);

    if (r < 0) {
        json_decref(label);
        return r;
    }
    r = write_label(stream, label);
    if (r < 0) {
        stream_release(stream);
        return r;
    }
    *ret = stream;
    return 0;
}

int peering_send(struct link_session *ls, json_t *msg)
{
    struct contact *c = contact_of(ls);
    char *text = json_dumps(msg, JSON_COMPACT);
    uint8_t length[4];
    int r = -ENOMEM;

    json_decref(msg);
    if (!text || !c->control_out || session_is_closed(link_session_engine(ls))) {
        free(text);
        return -EPIPE;
    }
    if (strlen(text) <= LIMIT_CONTROL_MESSAGE_BYTES &&
        buffer_len(&c->unsent) < 16u * LIMIT_CONTROL_MESSAGE_BYTES) {
        put_be32(length, (uint32_t)strlen(text));
        r = buffer_append(&c->unsent, length, sizeof(length));
        if (r == 0)
            r = buffer_append(&c->unsent, text, strlen(text));
        flush_control(c);
    }
    free(text);
    return r;
}

/* --- receiving ----------------------------------------------------------------------------- */

static void read_messages(struct contact *c, struct stream *stream)
{
    const uint8_t *data = NULL;

    while (!session_is_closed(link_session_engine(c->ls)) &&
           stream_peek_joined(stream, 4, &data) >= 4) {
        uint32_t want = get_be32(data);
        json_error_t fault;
        json_t *msg;

        if (want > LIMIT_CONTROL_MESSAGE_BYTES) {
            session_fail(link_session_engine(c->ls), WIRE_REASON_PROTOCOL,
                         "control message too large");
            return;
        }
        if (stream_peek_joined(stream, 4 + want, &data) < 4 + want)
            return;
        msg = json_loadb((const char *)data + 4, want, JSON_REJECT_DUPLICATES, &fault);
        if (!json_is_object(msg) || !json_is_string(json_object_get(msg, "type"))) {
            json_decref(msg);
            session_fail(link_session_engine(c->ls), WIRE_REASON_PROTOCOL,
                         "malformed control message");
            return;
        }
        stream_consume(stream, 4 + want);
        c->peering->ops->on_message(c->peering->user, c->peer, c->ls, msg);
        json_decref(msg);
    }
}

static void on_control_readable(void *user, struct stream *stream)
{
    read_messages(user, stream);
}

static const struct stream_ops control_ops = {
    .on_readable = on_control_readable,
    .on_writable = on_control_writable,
    .on_reset = on_control_reset,
};

static void take_stream(struct contact *c, json_t *label, struct stream *stream)
{
    const char *channel = json_string_value(json_object_get(label, "channel"));

    if (channel && strcmp(channel, "control") == 0 && !c->control_in) {
        c->control_in = stream;
        stream_set_ops(stream, &control_ops, c);
    } else if (channel) {
        c->peering->ops->on_stream(c->peering->user, c->peer, c->ls, label, stream);
    } else {
        stream_release(stream);
    }
}

static void on_unlabelled_readable(void *user, struct stream *stream)
{
    struct contact *c = user;
    const uint8_t *data = NULL;
    json_t *label;
    uint16_t want;

    if (stream_peek_joined(stream, 2, &data) < 2)
        return;
    want = get_be16(data);
    if (want > LABEL_MAX_BYTES) {
        session_fail(link_session_engine(c->ls), WIRE_REASON_PROTOCOL, "stream label too large");
        return;
    }
    if (stream_peek_joined(stream, 2u + want, &data) < 2u + want)
        return;
    label = json_loadb((const char *)data + 2, want, JSON_REJECT_DUPLICATES, NULL);
    stream_consume(stream, 2u + want);
    take_stream(c, label, stream);
    json_decref(label);
}

static void on_unlabelled_reset(void *user, struct stream *stream, uint64_t reason)
{
    (void)user;
    (void)reason;
    stream_release(stream);
}

static const struct stream_ops unlabelled_ops = {
    .on_readable = on_unlabelled_readable,
    .on_reset = on_unlabelled_reset,
};

/* --- sessions ------------------------------------------------------------------------------ */

static int contact_new(struct peering *p, struct link_session *ls, bool dialled)
{
    struct contact *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return -ENOMEM;
    c->peering = p;
    c->ls = ls;
    c->dialled = dialled;
    c->idle_since_ns = clock_now_ns();
    snprintf(c->peer, sizeof(c->peer), "%s", link_session_peer(ls));
    link_session_set_user(ls, c);
    session_set_shaper(link_session_engine(ls), link_limits_shaper(p->limits, c->peer));
    TAILQ_INSERT_TAIL(&p->contacts, c, entry);
    r = peering_open(ls, CARE_CONTROL, json_pack("{s:s}", "channel", "control"), &c->control_out);
    if (r == 0)
        stream_set_ops(c->control_out, &control_ops, c);
    return r;
}

static void contact_free(struct contact *c)
{
    TAILQ_REMOVE(&c->peering->contacts, c, entry);
    buffer_done(&c->unsent);
    free(c);
}

static bool on_find_peer(void *user, const struct tls_conn *seen, struct link_peer *ret)
{
    struct peering *p = user;
    const struct config_peer *peer = config_peer_by_certificate(p->config, seen);

    if (peer)
        *ret = peer->link;
    return peer != NULL;
}

static void on_session(void *user, struct link_session *ls)
{
    if (contact_new(user, ls, false) < 0)
        session_fail(link_session_engine(ls), WIRE_REASON_BUSY, "out of memory");
}

static void on_stream(void *user, struct link_session *ls, struct stream *stream)
{
    (void)user;
    stream_set_ops(stream, &unlabelled_ops, contact_of(ls));
}

static void on_session_closed(void *user, struct link_session *ls, const struct error *why)
{
    struct peering *p = user;
    struct contact *c = contact_of(ls);

    if (!c)
        return;
    p->ops->on_session_closed(p->user, c->peer, ls, why);
    link_session_set_user(ls, NULL);
    contact_free(c);
}

static void on_session_freed(void *user)
{
    struct peering *p = user;

    p->ops->on_session_freed(p->user);
}

static const struct link_ops link_ops = {
    .find_peer = on_find_peer,
    .on_session = on_session,
    .on_stream = on_stream,
    .on_session_closed = on_session_closed,
    .on_session_freed = on_session_freed,
};

static void on_tick(uv_timer_t *timer)
{
    struct peering *p = timer->data;
    uint64_t now_ns = clock_now_ns();
    struct contact *c, *next;

    for (c = TAILQ_FIRST(&p->contacts); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->dialled && c->holds == 0 && now_ns - c->idle_since_ns > IDLE_CLOSE_MS * NS_PER_MS) {
            link_session_set_user(c->ls, NULL);
            link_session_close(c->ls);
            contact_free(c);
        }
    }
}

int peering_new(uv_loop_t *loop, const struct config *config, struct tls_identity *identity,
                const struct peering_ops *ops, void *user, struct peering **ret, struct error *err)
{
    struct link_config lc = config->link;
    struct peering *p = calloc(1, sizeof(*p));
    int r;

    if (!p)
        return error_set(err, -ENOMEM, "start the link", NULL, "out of memory");
    snprintf(lc.site_name, sizeof(lc.site_name), "%s", config->name);
    snprintf(lc.listen, sizeof(lc.listen), "%s", config->listen);
    p->loop = loop;
    p->config = config;
    p->ops = ops;
    p->user = user;
    TAILQ_INIT(&p->contacts);
    r = link_new(loop, &lc, identity, &link_ops, p, &p->link, err);
    if (r == 0 && !(p->limits = link_limits_new(loop, config)))
        r = error_set(err, -ENOMEM, "start the link", NULL, "out of memory");
    if (r < 0) {
        free(p);
        return r;
    }
    uv_timer_init(loop, &p->tick);
    p->tick.data = p;
    uv_timer_start(&p->tick, on_tick, TICK_MS, TICK_MS);
    *ret = p;
    return 0;
}

void peering_reconfigure(struct peering *p, const struct config *config)
{
    struct contact *c, *next;

    p->config = config;
    link_limits_reconfigure(p->limits, config);
    for (c = TAILQ_FIRST(&p->contacts); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (!config_peer_by_name(config, c->peer))
            session_fail(link_session_engine(c->ls), WIRE_REASON_NONE,
                         "the peer was removed from the configuration");
    }
}

void peering_shutdown(struct peering *p)
{
    struct contact *c;

    link_shutdown(p->link);
    link_limits_shutdown(p->limits);
    while ((c = TAILQ_FIRST(&p->contacts)))
        contact_free(c);
    uv_close((uv_handle_t *)&p->tick, NULL);
}

void peering_free(struct peering *p)
{
    if (!p)
        return;
    link_free(p->link);
    link_limits_free(p->limits);
    free(p);
}

int peering_dial(struct peering *p, const char *peer, struct link_session **ret, struct error *err)
{
    const struct config_peer *cp = config_peer_by_name(p->config, peer);
    struct contact *c;
    int r;

    if (!cp)
        return error_set(err, -ENOENT, "call the peer",
                         "add its [peer] section here, and this site's there",
                         "no peer is named '%s'", peer);
    TAILQ_FOREACH(c, &p->contacts, entry)
    {
        if (c->dialled && strcmp(c->peer, peer) == 0 &&
            !session_is_closed(link_session_engine(c->ls))) {
            peering_hold(c->ls);
            *ret = c->ls;
            return 0;
        }
    }
    r = link_dial(p->link, &cp->link, ret, err);
    if (r < 0)
        return r;
    r = contact_new(p, *ret, true);
    if (r < 0) {
        session_fail(link_session_engine(*ret), WIRE_REASON_BUSY, "out of memory");
        return error_set(err, r, "call the peer", NULL, "%s", strerror(-r));
    }
    peering_hold(*ret);
    return 0;
}

void peering_hold(struct link_session *ls)
{
    contact_of(ls)->holds++;
}

void peering_release(struct link_session *ls)
{
    struct contact *c = contact_of(ls);

    if (c && --c->holds == 0)
        c->idle_since_ns = clock_now_ns();
}

struct link_limits *peering_limits(struct peering *p)
{
    return p->limits;
}

struct link_session *peering_any(struct peering *p, const char *peer)
{
    struct link_session *found = NULL;
    struct contact *c;

    TAILQ_FOREACH(c, &p->contacts, entry)
    {
        if (strcmp(c->peer, peer) != 0 || session_is_closed(link_session_engine(c->ls)))
            continue;
        if (link_session_is_up(c->ls))
            return c->ls;
        found = c->ls;
    }
    return found;
}
