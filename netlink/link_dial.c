/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calling a peer, and calling it again: resolve the address, connect the stripes that are missing, often
 * enough that a mended link is found within a second.
 */
#include "netlink/link_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"

enum {
    DIAL_DEADLINE_MS = 5000,
    /* The kernel's own retries back off too far for a link that was mended a moment ago. */
    REDIAL_DEADLINE_MS = 1500,
};

/* Attempts of a session that lost its connections. */
#define REDIAL_NS (250 * NS_PER_MS)
#define RESOLVE_AGAIN_NS (30 * NS_PER_S)

/* --- addresses ----------------------------------------------------------------------------- */

/* "host:port" or "[v6]:port" -> its parts. */
int link_split_address(const char *address, char host[256], char port[8])
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

/* --- dialling ------------------------------------------------------------------------------ */

static int dial_stripe(struct link_session *ls, unsigned index)
{
    struct link *link = ls->link;
    const struct link_address *address = &ls->addresses[ls->address_next % ls->address_count];
    struct connection *c;
    int r = connection_dial(link->loop, link->identity, &link->connection_config,
                            (const struct sockaddr *)&address->storage, address->len,
                            ls->was_up ? REDIAL_DEADLINE_MS : DIAL_DEADLINE_MS,
                            &link_connection_ops, link, &c);

    if (r < 0) {
        ls->address_next++;
        return r;
    }
    c->context = ls;
    c->stripe_index = (uint8_t)index;
    TAILQ_INSERT_TAIL(&ls->connections, c, entry);
    return 0;
}

/* The lowest stripe index that no connection has; @ret_missing: how many below the wanted number. */
static unsigned free_index(const struct link_session *ls, unsigned wanted, unsigned *ret_missing)
{
    const struct connection *c;
    unsigned used = 0, first = wanted;

    TAILQ_FOREACH(c, &ls->connections, entry)
    used |= 1u << c->stripe_index;
    *ret_missing = 0;
    for (unsigned i = wanted; i-- > 0;) {
        if (!(used & (1u << i))) {
            first = i;
            ++*ret_missing;
        }
    }
    return first;
}

unsigned link_wanted_stripes(const struct link_session *ls)
{
    return ls->link->config.stripes ? ls->link->config.stripes : ls->plan.wanted;
}

static int dial_missing(struct link_session *ls, unsigned most)
{
    unsigned wanted = link_wanted_stripes(ls), missing, i = free_index(ls, wanted, &missing);
    int r = 0;

    for (; r == 0 && missing > 0 && most > 0; most--) {
        r = dial_stripe(ls, i);
        i = free_index(ls, wanted, &missing);
    }
    return r;
}

struct resolution {
    uv_getaddrinfo_t request;
    struct link *link;
    uint8_t session_id[WIRE_ID_BYTES]; /* the session may be gone when the answer comes */
};

static void keep_addresses(struct link_session *ls, const struct addrinfo *found)
{
    ls->address_count = ls->address_next = 0;
    for (; found && ls->address_count < ARRAY_SIZE(ls->addresses); found = found->ai_next) {
        struct link_address *to = &ls->addresses[ls->address_count];

        if (found->ai_addrlen > sizeof(to->storage))
            continue;
        memcpy(&to->storage, found->ai_addr, found->ai_addrlen);
        to->len = found->ai_addrlen;
        ls->address_count++;
    }
}

static void on_resolved(uv_getaddrinfo_t *request, int status, struct addrinfo *found)
{
    struct resolution *res = container_of(request, struct resolution, request);
    struct link_session *ls = link_session_by_id(res->link, res->session_id);
    int r = status;

    if (ls && !ls->closing) {
        ls->resolving = false;
        ls->resolved_ns = clock_now_ns();
        if (r == 0)
            keep_addresses(ls, found);
        if (!ls->was_up) {
            /* All at once; the first of them asks for the session, see link_greeting.c. A name with several
             * addresses gets one try each before the peer counts as unreachable. */
            do
                r = status < 0 ? status : dial_missing(ls, LIMIT_SESSION_STRIPES);
            while (r < 0 && status == 0 && ls->address_next < ls->address_count);
            if (r < 0)
                link_session_fail(ls, WIRE_REASON_NONE,
                                  status < 0 ? uv_strerror(status) : strerror(-r));
        }
    }
    uv_freeaddrinfo(found);
    free(res);
}

static int resolve(struct link_session *ls)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    char host[256], port[8];
    struct resolution *res;
    int r;

    if (ls->resolving)
        return 0;
    r = link_split_address(ls->peer.address, host, port);
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

bool link_dial_elsewhere(struct link_session *ls)
{
    ls->address_next++;
    return ls->address_next < ls->address_count && dial_missing(ls, LIMIT_SESSION_STRIPES) == 0;
}

/* Connections that were started while the link was away may sit in the kernel's backed-off retries. */
static void restart_connecting(struct link_session *ls)
{
    struct error why = {.code = -ECONNRESET, .what = "connect", .why = "started anew"};
    struct connection *c, *next;

    for (c = TAILQ_FIRST(&ls->connections); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (c->state == CONNECTION_CONNECTING)
            connection_drop(c, &why);
    }
}

void link_dial_again(struct link_session *ls, uint64_t now_ns)
{
    if (now_ns < ls->redial_at_ns || ls->address_count == 0)
        return;
    if (ls->attached > 0) {
        if (ls->mended)
            restart_connecting(ls);
        ls->mended = false;
        dial_missing(ls, LIMIT_SESSION_STRIPES);
    } else {
        /* One every quarter of a second: some first packet leaves soon after the link is back. */
        ls->mended = true;
        dial_missing(ls, 1);
        if (now_ns - ls->resolved_ns > RESOLVE_AGAIN_NS)
            resolve(ls);
    }
    ls->redial_at_ns = now_ns + REDIAL_NS;
}

/* All stripes are silent: perhaps they only wait for TCP's backed-off timers. One is dialled again beside
 * itself; when it is welcomed, its silent twin goes (link_greeting.c). */
void link_probe_silence(struct link_session *ls, uint64_t now_ns)
{
    const struct connection *c;

    if (now_ns < ls->redial_at_ns || ls->address_count == 0)
        return;
    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        if (c->state != CONNECTION_OPEN)
            return; /* one is on its way */
    }
    ls->mended = true;
    dial_stripe(ls, TAILQ_FIRST(&ls->connections)->stripe_index);
    ls->redial_at_ns = now_ns + REDIAL_NS;
}

int link_dial(struct link *link, const struct link_peer *peer, struct link_session **ret,
              struct error *err)
{
    uint8_t id[WIRE_ID_BYTES];
    int r;

    if (link->shutting_down)
        return error_set(err, -ESHUTDOWN, "call the peer", NULL, "this ferryd is stopping");
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return error_set(err, -EIO, "call the peer", NULL, "no random numbers");
    r = link_session_new(link, peer, true, id, link_first_window(&link->config), ret);
    if (r == 0) {
        r = resolve(*ret);
        if (r < 0)
            link_session_destroy(*ret);
    }
    if (r < 0)
        return error_set(err, r, "call the peer",
                         "check its address in the configuration (host:port)", "%s at %s: %s",
                         peer->name, peer->address, strerror(-r));
    return 0;
}
