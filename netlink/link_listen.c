/* SPDX-License-Identifier: Apache-2.0 */
/* Listening for peers: on every address the configured one stands for, and what happens at the door. */
#include "netlink/link_private.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"

enum { LISTEN_BACKLOG = 64 };

/* Without descriptors a waiting connection would wake the loop for nothing, over and over. */
#define PAUSE_NS (1 * NS_PER_S)

static void on_incoming(uv_poll_t *poll, int status, int events)
{
    struct listener *listener = container_of(poll, struct listener, poll);
    struct link *link = poll->data;
    struct connection *c;
    int fd;

    (void)status;
    (void)events;
    while ((fd = accept4(listener->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC)) >= 0) {
        if (link->pending_count >= LIMIT_PENDING_HANDSHAKES || link->shutting_down) {
            close(fd);
            continue;
        }
        if (connection_accept(link->loop, link->identity, &link->connection_config, fd,
                              &link_connection_ops, link, &c) < 0)
            continue;
        TAILQ_INSERT_TAIL(&link->pending, c, entry);
        link->pending_count++;
    }
    if (errno != EMFILE && errno != ENFILE && errno != ENOMEM && errno != ENOBUFS)
        return;
    log_warning("link: cannot accept connections: %s; trying again in a second", strerror(errno));
    link->listen_again_ns = clock_now_ns() + PAUSE_NS;
    for (unsigned i = 0; i < link->listener_count; i++)
        uv_poll_stop(&link->listeners[i].poll);
}

void link_listen_again(struct link *link, uint64_t now_ns)
{
    if (!link->listen_again_ns || now_ns < link->listen_again_ns)
        return;
    link->listen_again_ns = 0;
    for (unsigned i = 0; i < link->listener_count; i++)
        uv_poll_start(&link->listeners[i].poll, UV_READABLE, on_incoming);
}

/* A listening socket, or a negative errno. */
static int open_socket(const struct link *link, const struct addrinfo *at)
{
    int fd = socket(at->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int one = 1, bytes = (int)link->config.socket_buffer_bytes, r;

    if (fd < 0)
        return -errno;
    /* The receive buffer decides the window scale of what is accepted: it must be there before. */
    if (bytes > 0 && setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof(bytes)) < 0)
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    if (at->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) == 0 &&
        bind(fd, at->ai_addr, at->ai_addrlen) == 0 && listen(fd, LISTEN_BACKLOG) == 0)
        return fd;
    r = -errno;
    close(fd);
    return r;
}

static void watch_listeners(struct link *link)
{
    for (unsigned i = 0; i < link->listener_count; i++) {
        struct listener *listener = &link->listeners[i];

        uv_poll_init(link->loop, &listener->poll, listener->fd);
        listener->poll.data = link;
        uv_poll_start(&listener->poll, UV_READABLE, on_incoming);
    }
}

int link_listen(struct link *link, struct error *err)
{
    struct addrinfo hints = {.ai_family = AF_UNSPEC,
                             .ai_socktype = SOCK_STREAM,
                             .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char host[256], port[8];
    int fault = 0, r;

    r = link_split_address(link->config.listen, host, port);
    if (r < 0)
        return error_set(err, r, "listen for peers", "set listen = ADDRESS:PORT in [site]",
                         "'%s' is not an address with a port", link->config.listen);
    r = getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, port, &hints, &found);
    if (r != 0)
        return error_set(err, -EINVAL, "listen for peers", "check listen = in [site]", "%s: %s",
                         link->config.listen, gai_strerror(r));
    for (const struct addrinfo *at = found; at && link->listener_count < LINK_LISTENERS_MAX;
         at = at->ai_next) {
        struct listener *listener = &link->listeners[link->listener_count];
        int fd = open_socket(link, at);

        /* A host without IPv6 refuses that family, and only that. */
        if (fd == -EAFNOSUPPORT || (fd == -EADDRNOTAVAIL && strcmp(host, "*") == 0))
            continue;
        if (fd < 0) {
            fault = fd;
            break;
        }
        listener->fd = fd;
        link->listener_count++;
    }
    freeaddrinfo(found);
    if (fault == 0 && link->listener_count > 0) {
        watch_listeners(link);
        return 0;
    }
    while (link->listener_count > 0)
        close(link->listeners[--link->listener_count].fd);
    return error_set(err, fault ? fault : -EADDRNOTAVAIL, "listen for peers",
                     "is the address this host's, and the port free?", "%s: %s",
                     link->config.listen, strerror(fault ? -fault : EADDRNOTAVAIL));
}

void link_stop_listening(struct link *link)
{
    for (unsigned i = 0; i < link->listener_count; i++) {
        uv_close((uv_handle_t *)&link->listeners[i].poll, NULL);
        close(link->listeners[i].fd);
    }
    link->listener_count = 0;
}
