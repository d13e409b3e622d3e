/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listener, dialling and redialling, and the pairing of connections with sessions: see link.h.
 *
 *   dialled session:   DIALLING --first WELCOME--> UP <--> (no stripe: redial with backoff) --> closed
 *   accepted session:                 HELLO ----> UP <--> (no stripe: wait)                --> closed
 */
#include "netlink/link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "netlink/connection.h"
#include "netlink/tcp_info.h"

enum {
    TICK_MS = 100,
    BACKOFF_FIRST_MS = 100,
    BACKOFF_MAX_MS = 1000, /* a mended link is found within a second */
    LISTEN_BACKLOG = 64,
};

struct link_session {
    TAILQ_ENTRY(link_session) entry;
    struct link *link;
    struct session *engine;
    struct link_peer peer;
    void *user;
    bool initiator;
    bool was_up;  /* had a stripe at least once */
    bool closing; /* on its way out: waits for its connections, then is freed */
    bool told;    /* the owner knows that it is over */
    uint8_t id[WIRE_ID_BYTES];
    uint8_t peer_instance[WIRE_ID_BYTES]; /* accepted sessions: the run of the peer's ferryd that dialled */
    struct connection_list connections; /* attached or (initiator) being dialled */
    unsigned attached;
    unsigned outages;
    uint64_t down_since_ns; /* without a stripe since; 0 = has one */
    uint64_t redial_at_ns;
    unsigned backoff_ms;
    bool resolving;
    uint64_t closing_since_ns;
};

TAILQ_HEAD(link_session_list, link_session);

struct link {
    uv_loop_t *loop;
    struct link_config config;
    struct connection_config connection_config;
    struct tls_identity *identity;
    const struct link_ops *ops;
    void *user;
    uint8_t instance_id[WIRE_ID_BYTES];
    int listen_fd;
    uv_poll_t listener;
    uv_prepare_t prepare;
    uv_timer_t tick;
    bool shutting_down;
    struct link_session_list sessions;
    struct connection_list pending; /* accepted, greeting not read yet */
    unsigned pending_count, session_count;
};

static const struct connection_ops connection_ops;

/* --- addresses ----------------------------------------------------------------------------- */

/* "host:port" or "[v6]:port" -> its parts. */
static int split_address(const char *address, char host[256], char port[8])
{
    const char *colon = strrchr(address, ':');
    const char *start = address;
    size_t len;

    if (!colon || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return -EINVAL;
    len = (size_t)(colon - address);
    if (len >= 2 && address[0] == '[' && colon[-1] == ']') {
        start++;
        len -= 2;
    }
    if (len == 0 || len >= 256)
        return -EINVAL;
    memcpy(host, start, len);
    host[len] = '\0';
    snprintf(port, 8, "%s", colon + 1);
    return 0;
}

/* --- sessions ------------------------------------------------------------------------------ */

static void on_engine_stream(void *user, struct stream *stream)
{
    struct link_session *ls = user;

    ls->link->ops->on_stream(ls->link->user, ls, stream);
}

static void on_engine_closed(void *user, const struct error *why)
{
    struct link_session *ls = user;

    ls->closing = true;
    if (!ls->told) {
        ls->told = true;
        ls->link->ops->on_session_closed(ls->link->user, ls, why);
    }
}

static const struct session_ops engine_ops = {
    .on_stream = on_engine_stream,
    .on_closed = on_engine_closed,
};

static int session_create(struct link *link, const struct link_peer *peer, bool initiator,
                          const uint8_t id[WIRE_ID_BYTES], uint32_t peer_window, struct link_session **ret)
{
    struct session_config config = {
        .initiator = initiator,
        .window_bytes = link->config.window_bytes,
        .peer_window_bytes = peer_window,
        .unsent_bytes = link->config.unsent_bytes,
        .stripe_timeout_ns = link->config.stripe_timeout_ns,
    };
    struct link_session *ls;
    int r;

    if (link->session_count >= LIMIT_SESSIONS)
        return -EBUSY;
    ls = calloc(1, sizeof(*ls));
    if (!ls)
        return -ENOMEM;
    r = session_new(&ls->engine, &config, &engine_ops, ls);
    if (r < 0) {
        free(ls);
        return r;
    }
    ls->link = link;
    ls->peer = *peer;
    ls->initiator = initiator;
    ls->backoff_ms = BACKOFF_FIRST_MS;
    ls->down_since_ns = clock_now_ns();
    memcpy(ls->id, id, WIRE_ID_BYTES);
    TAILQ_INIT(&ls->connections);
    TAILQ_INSERT_TAIL(&link->sessions, ls, entry);
    link->session_count++;
    *ret = ls;
    return 0;
}

static void session_destroy(struct link_session *ls)
{
    TAILQ_REMOVE(&ls->link->sessions, ls, entry);
    ls->link->session_count--;
    session_free(ls->engine);
    free(ls);
}

static struct link_session *session_by_id(struct link *link, const uint8_t id[WIRE_ID_BYTES])
{
    struct link_session *ls;

    TAILQ_FOREACH (ls, &link->sessions, entry) {
        if (memcmp(ls->id, id, WIRE_ID_BYTES) == 0)
            return ls;
    }
    return NULL;
}

static void fail_session(struct link_session *ls, enum wire_reason reason, const char *why)
{
    session_fail(ls->engine, reason, why);
    session_dispatch(ls->engine);
}

static int attach(struct link_session *ls, struct connection *c)
{
    int r = connection_attach(c, ls->engine);

    if (r < 0)
        return r;
    ls->attached++;
    ls->was_up = true;
    ls->down_since_ns = 0;
    ls->backoff_ms = BACKOFF_FIRST_MS;
    return 0;
}

/* --- dialling ------------------------------------------------------------------------------ */

static int dial_address(struct link_session *ls, const struct sockaddr *address, socklen_t len, uint8_t index)
{
    struct link *link = ls->link;
    struct connection *c;
    int r = connection_dial(link->loop, link->identity, &link->connection_config, address, len,
                            &connection_ops, link, &c);

    if (r < 0)
        return r;
    c->context = ls;
    c->stripe_index = index;
    TAILQ_INSERT_TAIL(&ls->connections, c, entry);
    return 0;
}

static void schedule_redial(struct link_session *ls)
{
    ls->redial_at_ns = clock_now_ns() + ls->backoff_ms * NS_PER_MS;
    ls->backoff_ms = MIN(ls->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
}

/* The lowest stripe index that no connection has. */
static unsigned free_index(const struct link_session *ls)
{
    const struct connection *c;
    unsigned used = 0, i = 0;

    TAILQ_FOREACH (c, &ls->connections, entry)
        used |= 1u << c->stripe_index;
    while (used & (1u << i))
        i++;
    return i;
}

struct resolution {
    uv_getaddrinfo_t request;
    struct link *link;
    uint8_t session_id[WIRE_ID_BYTES]; /* the session may be gone when the answer comes */
};

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct resolution *res = container_of(request, struct resolution, request);
    struct link_session *ls = session_by_id(res->link, res->session_id);
    unsigned wanted, i;

    if (ls && !ls->closing) {
        ls->resolving = false;
        if (status < 0) {
            if (!ls->was_up)
                fail_session(ls, WIRE_REASON_NONE, uv_strerror(status));
            else
                schedule_redial(ls);
        } else {
            /* Before the session is known to the peer one connection asks for it, then the rest join. */
            wanted = ls->was_up ? res->link->config.stripes : 1;
            while ((i = free_index(ls)) < wanted) {
                int r = dial_address(ls, found->ai_addr, found->ai_addrlen, (uint8_t)i);

                if (r < 0 && !ls->was_up)
                    fail_session(ls, WIRE_REASON_NONE, strerror(-r));
                if (r < 0) {
                    schedule_redial(ls);
                    break;
                }
            }
        }
    }
    uv_freeaddrinfo(found);
    free(res);
}

static int start_dialling(struct link_session *ls)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char host[256], port[8];
    struct resolution *res;
    int r;

    if (ls->resolving)
        return 0;
    r = split_address(ls->peer.address, host, port);
    if (r < 0)
        return r;
    res = calloc(1, sizeof(*res));
    if (!res)
        return -ENOMEM;
    res->link = ls->link;
    memcpy(res->session_id, ls->id, WIRE_ID_BYTES);
    r = uv_getaddrinfo(ls->link->loop, &res->request, on_resolved, host, port, &hints);
    if (r < 0) {
        free(res);
        return r;
    }
    ls->resolving = true;
    return 0;
}

int link_dial(struct link *link, const struct link_peer *peer, struct link_session **ret, struct error *err)
{
    uint8_t id[WIRE_ID_BYTES];
    int r;

    if (link->shutting_down)
        return error_set(err, -ESHUTDOWN, "call the peer", NULL, "this ferryd is stopping");
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return error_set(err, -EIO, "call the peer", NULL, "no random numbers");
    r = session_create(link, peer, true, id, link->config.window_bytes, ret);
    if (r == 0) {
        r = start_dialling(*ret);
        if (r < 0)
            session_destroy(*ret);
    }
    if (r < 0)
        return error_set(err, r, "call the peer", "check its address in the configuration (host:port)",
                         "%s at %s: %s", peer->name, peer->address, strerror(-r));
    return 0;
}

void link_session_close(struct link_session *ls)
{
    ls->told = true;
    ls->closing = true;
    session_close(ls->engine, WIRE_REASON_NONE, "done");
}

/* --- connections --------------------------------------------------------------------------- */

static void fill_hello(struct link *link, struct wire_hello *h)
{
    *h = (struct wire_hello){.version = WIRE_VERSION, .window_bytes = link->config.window_bytes};
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

static int on_secured(void *owner, struct connection *c, struct error *err)
{
    struct link *link = owner;
    const char *seen = tls_conn_peer_fingerprint(c->tls);
    struct link_session *ls = c->context;
    struct link_peer peer;

    if (c->server) {
        if (!link->ops->find_peer(link->user, seen, &peer))
            return error_set(err, -EACCES, "accept a connection", "add its [peer] section if it is one of yours",
                             "%s has the unknown certificate %s", c->peer_address, seen);
        return 0;
    }
    if (strcmp(seen, ls->peer.fingerprint) != 0)
        return error_set(err, -EACCES, "verify the peer",
                         "compare `ferry identity` there with fingerprint= here; a difference you cannot "
                         "explain is an attack",
                         "%s at %s shows certificate %s, expected %s", ls->peer.name, ls->peer.address, seen,
                         ls->peer.fingerprint);
    return send_hello(ls, c);
}

static void refuse(struct connection *c, enum wire_reason reason, const char *text)
{
    uint8_t frame[WIRE_HEADER_BYTES + WIRE_TEXT_BYTES];

    connection_send(c, frame, wire_put_text(frame, WIRE_REFUSE, reason, text));
}

/* A peer that was restarted has forgotten the sessions of its earlier run: so do we. */
static void forget_earlier_runs(struct link *link, const struct link_peer *peer, const struct wire_hello *h)
{
    struct link_session *ls, *next;

    for (ls = TAILQ_FIRST(&link->sessions); ls; ls = next) {
        next = TAILQ_NEXT(ls, entry);
        if (!ls->initiator && !ls->closing && strcmp(ls->peer.fingerprint, peer->fingerprint) == 0 &&
            memcmp(ls->peer_instance, h->instance_id, WIRE_ID_BYTES) != 0)
            fail_session(ls, WIRE_REASON_UNKNOWN_SESSION, "the peer's ferryd was restarted");
    }
}

/* Finds or makes the session that a HELLO asks for. */
static int session_for_hello(struct link *link, struct connection *c, const struct wire_hello *h,
                             struct link_session **ret, struct error *err)
{
    struct link_peer peer;
    struct link_session *ls = session_by_id(link, h->session_id);
    int r;

    if (!link->ops->find_peer(link->user, tls_conn_peer_fingerprint(c->tls), &peer))
        return error_set(err, -EACCES, "accept a session", NULL, "the peer was removed from the configuration");
    if (ls && (ls->initiator || ls->closing || strcmp(ls->peer.fingerprint, peer.fingerprint) != 0))
        ls = NULL;
    if (!ls && h->resume) {
        refuse(c, WIRE_REASON_UNKNOWN_SESSION, "no such session here");
        return error_set(err, -ENOENT, "resume a session", NULL, "%s asks for one that is not known here",
                         peer.name);
    }
    if (!ls) {
        forget_earlier_runs(link, &peer, h);
        r = link->shutting_down ? -ESHUTDOWN
                                : session_create(link, &peer, false, h->session_id, h->window_bytes, &ls);
        if (r < 0) {
            refuse(c, r == -ESHUTDOWN ? WIRE_REASON_SHUTDOWN : WIRE_REASON_BUSY, strerror(-r));
            return error_set(err, r, "accept a session", NULL, "from %s: %s", peer.name, strerror(-r));
        }
        memcpy(ls->peer_instance, h->instance_id, WIRE_ID_BYTES);
        link->ops->on_session(link->user, ls);
    }
    *ret = ls;
    return 0;
}

static int on_hello(struct link *link, struct connection *c, const uint8_t *payload, size_t len,
                    struct error *err)
{
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    struct wire_hello h, answer;
    struct link_session *ls;
    int r = wire_get_hello(payload, len, &h);

    if (r == -EPROTONOSUPPORT)
        refuse(c, WIRE_REASON_VERSION, "this ferryd speaks link version 1");
    if (r < 0)
        return error_set(err, r, "read the peer's greeting", "run the same ferry release on both sites",
                         r == -EPROTONOSUPPORT ? "it speaks another version" : "it is malformed");
    r = session_for_hello(link, c, &h, &ls, err);
    if (r < 0)
        return r;
    fill_hello(link, &answer);
    answer.stripe = h.stripe;
    memcpy(answer.session_id, ls->id, WIRE_ID_BYTES);
    r = connection_send(c, frame, wire_put_hello(frame, WIRE_WELCOME, &answer));
    if (r < 0 || c->state == CONNECTION_CLOSED)
        return r;
    r = attach(ls, c);
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
    error_set(err, -ECONNREFUSED, "open a session", NULL, "%s refuses: %s (%s)", ls->peer.name, text,
              wire_reason_name(reason));
    if (!ls->was_up || reason == WIRE_REASON_UNKNOWN_SESSION)
        fail_session(ls, (enum wire_reason)reason, err->why);
    return -ECONNREFUSED;
}

static int on_welcome(struct link_session *ls, struct connection *c, const uint8_t *payload, size_t len,
                      struct error *err)
{
    bool first = !ls->was_up;
    struct wire_hello h;
    int r = wire_get_hello(payload, len, &h);

    if (r == 0 && memcmp(h.session_id, ls->id, WIRE_ID_BYTES) != 0)
        r = -EPROTO;
    if (r == 0 && first)
        session_set_peer_window(ls->engine, h.window_bytes);
    if (r == 0)
        r = attach(ls, c);
    if (r < 0)
        return error_set(err, r, "read the peer's welcome", NULL, "%s", strerror(-r));
    if (first && ls->link->config.stripes > 1)
        start_dialling(ls);
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

static void on_lost(void *owner, struct connection *c, const struct error *why)
{
    struct link *link = owner;
    struct link_session *ls = c->context;
    char line[1024];

    if (!ls) { /* accepted, never greeted */
        TAILQ_REMOVE(&link->pending, c, entry);
        link->pending_count--;
        log_warning("link: connection from %s dropped: %s", c->peer_address, error_line(why, line, sizeof(line)));
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
            ls->redial_at_ns = 0;
        }
    } else if (ls->initiator && !ls->was_up && !ls->closing) {
        struct error never = *why;

        snprintf(line, sizeof(line), "%s at %s", ls->peer.name, ls->peer.address);
        error_prefix(&never, line);
        if (!never.mend[0])
            snprintf(never.mend, sizeof(never.mend),
                     "is ferryd running there, may this host reach its port, and is "
                     "this site's fingerprint in its configuration? see its log");
        ls->closing = true;
        ls->told = true;
        session_close(ls->engine, WIRE_REASON_NONE, "never up");
        link->ops->on_session_closed(link->user, ls, &never);
        return;
    }
    if (ls->initiator && !ls->closing && ls->redial_at_ns <= clock_now_ns())
        schedule_redial(ls);
}

static const struct connection_ops connection_ops = {
    .on_secured = on_secured,
    .on_greeting = on_greeting,
    .on_lost = on_lost,
};

/* --- the loop's turn ----------------------------------------------------------------------- */

static void drop_silent_stripes(struct link_session *ls, uint64_t now_ns)
{
    struct connection *c, *next;
    struct error why = {0};

    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->stripe && session_stripe_is_dead(ls->engine, c->stripe, now_ns)) {
            error_set(&why, -ETIMEDOUT, "hear the peer", NULL, "silent for %u s",
                      (unsigned)(ls->link->config.stripe_timeout_ns / NS_PER_S));
            connection_drop(c, &why);
        }
    }
}

static void tick_session(struct link_session *ls, uint64_t now_ns)
{
    char why[128];

    drop_silent_stripes(ls, now_ns);
    session_tick(ls->engine, now_ns);
    /* It may have begun in this very turn, after @now_ns was taken. */
    if (ls->down_since_ns && now_ns > ls->down_since_ns &&
        now_ns - ls->down_since_ns > ls->link->config.outage_limit_ns) {
        snprintf(why, sizeof(why), "no connection to %s for %u s", ls->peer.name,
                 (unsigned)(ls->link->config.outage_limit_ns / NS_PER_S));
        fail_session(ls, WIRE_REASON_OUTAGE, why);
        return;
    }
    if (ls->initiator && ls->was_up && ls->redial_at_ns && now_ns >= ls->redial_at_ns) {
        ls->redial_at_ns = 0;
        if (start_dialling(ls) < 0)
            schedule_redial(ls);
    }
}

/* A closing session gives its goodbye a moment to leave, then lets go of its connections. */
static void reap_session(struct link_session *ls, uint64_t now_ns)
{
    struct error why = {.code = -ECONNRESET, .what = "talk to the peer", .why = "the session is over"};
    struct connection *c;
    bool pending = session_wants_output(ls->engine);

    if (!ls->closing_since_ns)
        ls->closing_since_ns = now_ns;
    TAILQ_FOREACH (c, &ls->connections, entry)
        pending = pending || (c->stripe && buffer_len(&c->output) > 0);
    if (pending && now_ns - ls->closing_since_ns < NS_PER_S)
        return;
    while ((c = TAILQ_FIRST(&ls->connections)))
        connection_drop(c, &why);
    session_destroy(ls);
}

static void on_tick(uv_timer_t *timer)
{
    struct link *link = timer->data;
    uint64_t now_ns = clock_now_ns();
    struct link_session *ls, *next;

    for (ls = TAILQ_FIRST(&link->sessions); ls; ls = next) {
        next = TAILQ_NEXT(ls, entry);
        if (ls->closing)
            reap_session(ls, now_ns);
        else
            tick_session(ls, now_ns);
    }
}

/* Runs before the loop sleeps: whatever this turn's callbacks queued leaves now. */
static void on_prepare(uv_prepare_t *prepare)
{
    struct link *link = prepare->data;
    struct link_session *ls;
    struct connection *c, *next;

    TAILQ_FOREACH (ls, &link->sessions, entry) {
        if (!ls->closing)
            session_dispatch(ls->engine);
        if (!session_wants_output(ls->engine))
            continue;
        for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
            next = TAILQ_NEXT(c, entry);
            if (!(c->poll_events & UV_WRITABLE))
                connection_pump(c);
        }
    }
}

static void on_incoming(uv_poll_t *poll, int status, int events)
{
    struct link *link = poll->data;
    struct connection *c;
    int fd;

    (void)status;
    (void)events;
    while ((fd = accept4(link->listen_fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (link->pending_count >= LIMIT_PENDING_HANDSHAKES || link->shutting_down) {
            close(fd);
            continue;
        }
        if (connection_accept(link->loop, link->identity, &link->connection_config, fd, &connection_ops, link,
                              &c) < 0)
            continue;
        TAILQ_INSERT_TAIL(&link->pending, c, entry);
        link->pending_count++;
    }
}

/* --- start and end ------------------------------------------------------------------------- */

static int open_listener(struct link *link, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[256], port[8];
    const char *why;
    int one = 1, fd, r;

    r = split_address(link->config.listen, host, port);
    if (r < 0)
        return error_set(err, r, "listen for peers", "set listen = ADDRESS:PORT in [site]",
                         "'%s' is not an address with a port", link->config.listen);
    r = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (r != 0)
        return error_set(err, -EINVAL, "listen for peers", "check listen = in [site]", "%s: %s",
                         link->config.listen, gai_strerror(r));
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
        bind(fd, found->ai_addr, found->ai_addrlen) < 0 || listen(fd, LISTEN_BACKLOG) < 0) {
        r = -errno;
        why = strerror(errno);
        freeaddrinfo(found);
        if (fd >= 0)
            close(fd);
        return error_set(err, r, "listen for peers", "is the address this host's, and the port free?", "%s: %s",
                         link->config.listen, why);
    }
    freeaddrinfo(found);
    link->listen_fd = fd;
    return 0;
}

int link_new(uv_loop_t *loop, const struct link_config *config, struct tls_identity *id,
             const struct link_ops *ops, void *user, struct link **ret, struct error *err)
{
    struct link *link = calloc(1, sizeof(*link));
    int r = 0;

    if (!link)
        return error_set(err, -ENOMEM, "start the link", NULL, "out of memory");
    *link = (struct link){.loop = loop, .config = *config, .identity = id, .ops = ops, .user = user,
                          .listen_fd = -1};
    link->connection_config.socket_buffer_bytes = config->socket_buffer_bytes;
    memcpy(link->connection_config.congestion_control, config->congestion_control,
           sizeof(config->congestion_control));
    TAILQ_INIT(&link->sessions);
    TAILQ_INIT(&link->pending);
    if (getrandom(link->instance_id, WIRE_ID_BYTES, 0) != WIRE_ID_BYTES)
        r = error_set(err, -EIO, "start the link", NULL, "no random numbers");
    if (r == 0 && config->listen[0])
        r = open_listener(link, err);
    if (r < 0) {
        free(link);
        return r;
    }
    if (link->listen_fd >= 0) {
        uv_poll_init(loop, &link->listener, link->listen_fd);
        link->listener.data = link;
        uv_poll_start(&link->listener, UV_READABLE, on_incoming);
    }
    uv_prepare_init(loop, &link->prepare);
    uv_timer_init(loop, &link->tick);
    link->prepare.data = link->tick.data = link;
    uv_prepare_start(&link->prepare, on_prepare);
    uv_timer_start(&link->tick, on_tick, TICK_MS, TICK_MS);
    *ret = link;
    return 0;
}

void link_shutdown(struct link *link)
{
    struct error why = {.code = -ESHUTDOWN, .what = "serve the peer", .why = "this ferryd is stopping"};
    struct link_session *ls;
    struct connection *c;

    link->shutting_down = true;
    TAILQ_FOREACH (ls, &link->sessions, entry) {
        ls->told = true;
        session_close(ls->engine, WIRE_REASON_SHUTDOWN, "stopping");
        ls->closing = true;
        TAILQ_FOREACH (c, &ls->connections, entry)
            connection_pump(c);
    }
    while ((ls = TAILQ_FIRST(&link->sessions))) {
        while ((c = TAILQ_FIRST(&ls->connections)))
            connection_drop(c, &why);
        session_destroy(ls);
    }
    while ((c = TAILQ_FIRST(&link->pending)))
        connection_drop(c, &why);
    if (link->listen_fd >= 0) {
        uv_close((uv_handle_t *)&link->listener, NULL);
        close(link->listen_fd);
        link->listen_fd = -1;
    }
    uv_close((uv_handle_t *)&link->prepare, NULL);
    uv_close((uv_handle_t *)&link->tick, NULL);
}

void link_free(struct link *link)
{
    free(link);
}

/* --- what the owner asks ------------------------------------------------------------------- */

struct session *link_session_engine(struct link_session *ls)
{
    return ls->engine;
}

const char *link_session_peer(const struct link_session *ls)
{
    return ls->peer.name;
}

void link_session_set_user(struct link_session *ls, void *user)
{
    ls->user = user;
}

void *link_session_user(const struct link_session *ls)
{
    return ls->user;
}

bool link_session_is_up(const struct link_session *ls)
{
    return ls->attached > 0;
}

void link_session_get_info(const struct link_session *ls, struct link_session_info *ret)
{
    const struct connection *c;

    memset(ret, 0, sizeof(*ret));
    session_get_stats(ls->engine, &ret->stats);
    ret->outages = ls->outages;
    ret->was_up = ls->was_up;
    TAILQ_FOREACH (c, &ls->connections, entry) {
        struct stripe_tcp_info tcp;

        if (!c->stripe)
            continue;
        tcp_info_read(c->fd, &tcp);
        if (tcp.min_rtt_us && (!ret->tcp_min_rtt_us || tcp.min_rtt_us < ret->tcp_min_rtt_us))
            ret->tcp_min_rtt_us = tcp.min_rtt_us;
        ret->retransmits += tcp.retransmits;
        ret->segments_out += tcp.segments_out;
        if (!ret->congestion_control[0]) {
            memcpy(ret->congestion_control, tcp.congestion_control, sizeof(tcp.congestion_control));
            snprintf(ret->cipher, sizeof(ret->cipher), "%s", tls_conn_cipher(c->tls));
        }
    }
}
