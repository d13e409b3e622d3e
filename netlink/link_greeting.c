/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who may come in, and to which session a connection belongs: certificates, HELLO, WELCOME, REFUSE, and
 * what it means when a connection is lost.
 */
#include "netlink/link_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"

/* --- connections --------------------------------------------------------------------------- */

static void fill_hello(struct link *link, struct wire_hello *h)
{
    *h = (struct wire_hello){.version = WIRE_VERSION,
                             .window_bytes = link_first_window(&link->config)};
    memcpy(h->instance_id, link->instance_id, WIRE_ID_BYTES);
    snprintf(h->name, sizeof(h->name), "%s", link->config.site_name);
}

static int send_hello(struct link_session *ls, struct connection *c)
{
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    struct wire_hello h;

    fill_hello(ls->link, &h);
    h.resume = ls->was_up;
    h.stripe = c->stripe_index;
    memcpy(h.session_id, ls->id, WIRE_ID_BYTES);
    return connection_send(c, frame, wire_put_hello(frame, WIRE_HELLO, &h));
}

bool link_peer_is(const struct link_peer *peer, const struct tls_conn *seen)
{
    const char *fingerprint = peer->fingerprint, *name = peer->certificate_name;

    if (fingerprint[0] && strcmp(fingerprint, tls_conn_peer_fingerprint(seen)) != 0)
        return false;
    if (name[0] && !tls_conn_peer_has_name(seen, name))
        return false;
    return fingerprint[0] || name[0];
}

static int unknown_caller(const struct connection *c, struct error *err)
{
    return error_set(
        err, -EACCES, "accept a connection", "add its [peer] section if it is one of yours",
        "%s has the unknown certificate %s", c->peer_address, tls_conn_peer_fingerprint(c->tls));
}

static int wrong_peer(const struct link_peer *peer, const struct tls_conn *seen, struct error *err)
{
    const char *shown = tls_conn_peer_fingerprint(seen), *doubt = tls_conn_peer_doubt(seen);

    if (peer->fingerprint[0] && strcmp(peer->fingerprint, shown) != 0)
        return error_set(
            err, -EACCES, "verify the peer",
            "compare `ferry identity` there with fingerprint= here; a difference you cannot "
            "explain is an attack",
            "%s at %s shows certificate %s, expected %s", peer->name, peer->address, shown,
            peer->fingerprint);
    return error_set(err, -EACCES, "verify the peer",
                     "look at certificate= there, ca= and certificate_name= here",
                     "%s at %s shows a certificate that %s %s (%s)", peer->name, peer->address,
                     doubt[0] ? "does not count for" : "is not for", peer->certificate_name,
                     doubt[0] ? doubt : shown);
}

static int on_secured(void *owner, struct connection *c, struct error *err)
{
    struct link *link = owner;
    struct link_session *ls = c->context;
    struct link_peer peer;

    if (c->server)
        return link->ops->find_peer(link->user, c->tls, &peer) ? 0 : unknown_caller(c, err);
    if (!link_peer_is(&ls->peer, c->tls))
        return wrong_peer(&ls->peer, c->tls, err);
    /* The first asks for the session; the others are ready by the time the peer knows it. */
    return ls->was_up || c->stripe_index == 0 ? send_hello(ls, c) : 0;
}

static void refuse(struct connection *c, enum wire_reason reason, const char *text)
{
    uint8_t frame[WIRE_HEADER_BYTES + WIRE_TEXT_BYTES];

    connection_send(c, frame, wire_put_text(frame, WIRE_REFUSE, reason, text));
}

/* A peer that was restarted has forgotten the sessions of its earlier run: so do we. */
static void forget_earlier_runs(struct link *link, const struct link_peer *peer,
                                const struct wire_hello *h)
{
    struct link_session *ls, *next;

    for (ls = TAILQ_FIRST(&link->sessions); ls; ls = next) {
        next = TAILQ_NEXT(ls, entry);
        if (!ls->initiator && !ls->closing && strcmp(ls->peer.name, peer->name) == 0 &&
            memcmp(ls->peer_instance, h->instance_id, WIRE_ID_BYTES) != 0)
            link_session_fail(ls, WIRE_REASON_UNKNOWN_SESSION, "the peer's ferryd was restarted");
    }
}

/* Finds or makes the session that a HELLO asks for. */
static int session_for_hello(struct link *link, struct connection *c, const struct wire_hello *h,
                             struct link_session **ret, struct error *err)
{
    struct link_peer peer;
    struct link_session *ls = link_session_by_id(link, h->session_id);
    int r;

    if (!link->ops->find_peer(link->user, c->tls, &peer))
        return error_set(err, -EACCES, "accept a session", NULL,
                         "the peer was removed from the configuration");
    if (ls && (ls->initiator || ls->closing || strcmp(ls->peer.name, peer.name) != 0))
        ls = NULL;
    if (!ls && h->resume) {
        refuse(c, WIRE_REASON_UNKNOWN_SESSION, "no such session here");
        return error_set(err, -ENOENT, "resume a session", NULL,
                         "%s asks for one that is not known here", peer.name);
    }
    if (!ls) {
        forget_earlier_runs(link, &peer, h);
        r = link->shutting_down
                ? -ESHUTDOWN
                : link_session_new(link, &peer, false, h->session_id, h->window_bytes, &ls);
        if (r < 0) {
            refuse(c, r == -ESHUTDOWN ? WIRE_REASON_SHUTDOWN : WIRE_REASON_BUSY, strerror(-r));
            return error_set(err, r, "accept a session", NULL, "from %s: %s", peer.name,
                             strerror(-r));
        }
        memcpy(ls->peer_instance, h->instance_id, WIRE_ID_BYTES);
        link->ops->on_session(link->user, ls);
    }
    *ret = ls;
    return 0;
}

/* The peer calls anew for a stripe that stands here: it does not hear us on that one. Its frames move. */
static void replace_twin(struct link_session *ls, const struct connection *young, uint8_t index)
{
    struct error why = {
        .code = -ECONNRESET, .what = "hear the peer", .why = "replaced by a new connection"};
    struct connection *c, *next;

    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c != young && c->stripe && c->stripe_index == index)
            connection_drop(c, &why);
    }
}

static int on_hello(struct link *link, struct connection *c, const uint8_t *payload, size_t len,
                    struct error *err)
{
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    struct wire_hello h, answer;
    struct link_session *ls = NULL;
    int r = wire_get_hello(payload, len, &h);

    if (r == -EPROTONOSUPPORT)
        refuse(c, WIRE_REASON_VERSION, "this ferryd speaks link version 1");
    if (r < 0)
        return error_set(err, r, "read the peer's greeting",
                         "run the same ferry release on both sites",
                         r == -EPROTONOSUPPORT ? "it speaks another version" : "it is malformed");
    r = session_for_hello(link, c, &h, &ls, err);
    if (r < 0 || !ls)
        return r;
    replace_twin(ls, c, h.stripe);
    c->stripe_index = h.stripe;
    fill_hello(link, &answer);
    answer.stripe = h.stripe;
    memcpy(answer.session_id, ls->id, WIRE_ID_BYTES);
    r = connection_send(c, frame, wire_put_hello(frame, WIRE_WELCOME, &answer));
    if (r < 0 || c->state == CONNECTION_CLOSED)
        return r;
    r = link_session_attach(ls, c);
    if (r < 0)
        return error_set(err, r, "add a stripe", NULL, "%s", strerror(-r));
    TAILQ_REMOVE(&link->pending, c, entry);
    link->pending_count--;
    c->context = ls;
    TAILQ_INSERT_TAIL(&ls->connections, c, entry);
    return 0;
}

static int on_refuse(struct link_session *ls, uint64_t reason, const uint8_t *payload, size_t len,
                     struct error *err)
{
    char text[WIRE_TEXT_BYTES];

    wire_get_text(payload, len, text);
    error_set(err, -ECONNREFUSED, "open a session", NULL, "%s refuses: %s (%s)", ls->peer.name,
              text, wire_reason_name(reason));
    if (!ls->was_up || reason == WIRE_REASON_UNKNOWN_SESSION)
        link_session_fail(ls, (enum wire_reason)reason, err->why);
    return -ECONNREFUSED;
}

static void greet_on_the_rest(struct link_session *ls)
{
    struct connection *c, *next;

    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->state == CONNECTION_GREETING)
            send_hello(ls, c); /* a failure ends that connection alone */
    }
}

static int on_welcome(struct link_session *ls, struct connection *c, const uint8_t *payload,
                      size_t len, struct error *err)
{
    bool first = !ls->was_up;
    struct wire_hello h;
    int r = wire_get_hello(payload, len, &h);

    if (r == 0 && memcmp(h.session_id, ls->id, WIRE_ID_BYTES) != 0)
        r = -EPROTO;
    if (r == 0)
        replace_twin(ls, c, c->stripe_index);
    if (r == 0 && first)
        session_set_peer_window(ls->engine, h.window_bytes);
    if (r == 0)
        r = link_session_attach(ls, c);
    if (r < 0)
        return error_set(err, r, "read the peer's welcome", NULL, "%s", strerror(-r));
    if (first)
        greet_on_the_rest(ls);
    return 0;
}

static int on_greeting(void *owner, struct connection *c, const struct wire_header *h,
                       const uint8_t *payload, struct error *err)
{
    struct link_session *ls = c->context;

    if (c->server && h->type == WIRE_HELLO)
        return on_hello(owner, c, payload, h->length, err);
    if (!c->server && h->type == WIRE_REFUSE)
        return on_refuse(ls, h->offset, payload, h->length, err);
    if (!c->server && h->type == WIRE_WELCOME)
        return on_welcome(ls, c, payload, h->length, err);
    return error_set(err, -EPROTO, "read the peer's greeting", NULL, "wrong frame for this side");
}

/* A name with several addresses: the peer is unreachable only when none of them answers. */
static bool try_elsewhere(struct link_session *ls, const struct error *why)
{
    bool unreachable = why->code == -ETIMEDOUT || why->code == -ECONNREFUSED ||
                       why->code == -EHOSTUNREACH || why->code == -ENETUNREACH;

    return unreachable && link_dial_elsewhere(ls);
}

static void on_lost(void *owner, struct connection *c, const struct error *why)
{
    struct link *link = owner;
    struct link_session *ls = c->context;
    char line[1024];

    if (!ls) { /* accepted, never greeted */
        TAILQ_REMOVE(&link->pending, c, entry);
        link->pending_count--;
        log_warning("link: connection from %s dropped: %s", c->peer_address,
                    error_line(why, line, sizeof(line)));
        return;
    }
    TAILQ_REMOVE(&ls->connections, c, entry);
    if (c->stripe) {
        session_stripe_lost(ls->engine, c->stripe);
        ls->attached--;
        if (!ls->closing)
            log_warning("link: stripe %u to %s lost: %s", c->stripe_index, ls->peer.name,
                        error_line(why, line, sizeof(line)));
        if (ls->attached == 0 && !ls->closing) {
            ls->outages++;
            ls->down_since_ns = clock_now_ns();
        }
    } else if (ls->initiator && !ls->was_up && !ls->closing && c->stripe_index == 0 &&
               !try_elsewhere(ls, why)) {
        struct error never = *why;

        snprintf(line, sizeof(line), "%s at %s", ls->peer.name, ls->peer.address);
        error_prefix(&never, line);
        if (!never.mend[0])
            snprintf(never.mend, sizeof(never.mend),
                     "is ferryd running there, may this host reach its port, and is "
                     "this site's fingerprint in its configuration? see its log");
        ls->closing = true;
        ls->told = true;
        session_fail(ls->engine, WIRE_REASON_NONE, never.why);
        session_dispatch(ls->engine); /* streams that were opened already */
        link->ops->on_session_closed(link->user, ls, &never);
        return;
    }
}

const struct connection_ops link_connection_ops = {
    .on_secured = on_secured,
    .on_greeting = on_greeting,
    .on_lost = on_lost,
};
