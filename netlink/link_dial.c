/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Calling a peer, and calling it again: resolve the address, connect the stripes that are missing, back
 * off between attempts so that a mended link is found within a second.
 */
#include "netlink/link_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/base/clock.h"

enum { BACKOFF_MAX_MS = 1000 };

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

static int dial_address(struct link_session *ls, const struct sockaddr *address, socklen_t len,
                        uint8_t index)
{
    struct link *link = ls->link;
    struct connection *c;
    int r = connection_dial(link->loop, link->identity, &link->connection_config, address, len,
                            &link_connection_ops, link, &c);

    if (r < 0)
        return r;
    c->context = ls;
    c->stripe_index = index;
    TAILQ_INSERT_TAIL(&ls->connections, c, entry);
    return 0;
}

void link_schedule_redial(struct link_session *ls)
{
    ls->redial_at_ns = clock_now_ns() + ls->backoff_ms * NS_PER_MS;
    ls->backoff_ms = MIN(ls->backoff_ms * 2, (unsigned)BACKOFF_MAX_MS);
}

/* The lowest stripe index that no connection has. */
static unsigned free_index(const struct link_session *ls)
{
    const struct connection *c;
    unsigned used = 0, i = 0;

    TAILQ_FOREACH(c, &ls->connections, entry)
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
    struct link_session *ls = link_session_by_id(res->link, res->session_id);
    unsigned wanted, i;

    if (ls && !ls->closing) {
        ls->resolving = false;
        if (status < 0) {
            if (!ls->was_up)
                link_session_fail(ls, WIRE_REASON_NONE, uv_strerror(status));
            else
                link_schedule_redial(ls);
        } else {
            /* Before the session is known to the peer one connection asks for it, then the rest join. */
            wanted = ls->was_up ? res->link->config.stripes : 1;
            while ((i = free_index(ls)) < wanted) {
                int r = dial_address(ls, found->ai_addr, found->ai_addrlen, (uint8_t)i);

                if (r < 0 && !ls->was_up)
                    link_session_fail(ls, WIRE_REASON_NONE, strerror(-r));
                if (r < 0) {
                    link_schedule_redial(ls);
                    break;
                }
            }
        }
    }
    uv_freeaddrinfo(found);
    free(res);
}

int link_start_dialling(struct link_session *ls)
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

int link_dial(struct link *link, const struct link_peer *peer, struct link_session **ret,
              struct error *err)
{
    uint8_t id[WIRE_ID_BYTES];
    int r;

    if (link->shutting_down)
        return error_set(err, -ESHUTDOWN, "call the peer", NULL, "this ferryd is stopping");
    if (getrandom(id, sizeof(id), 0) != sizeof(id))
        return error_set(err, -EIO, "call the peer", NULL, "no random numbers");
    r = link_session_new(link, peer, true, id, link->config.window_bytes, ret);
    if (r == 0) {
        r = link_start_dialling(*ret);
        if (r < 0)
            link_session_destroy(*ret);
    }
    if (r < 0)
        return error_set(err, r, "call the peer",
                         "check its address in the configuration (host:port)", "%s at %s: %s",
                         peer->name, peer->address, strerror(-r));
    return 0;
}
