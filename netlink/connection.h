/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One stripe's socket: TCP and TLS on the libuv loop, carrying frames between a session engine and
 * the wire. Owned by netlink/link.c; nobody else uses it.
 *
 *   CONNECTING --> HANDSHAKE --> GREETING --(attach)--> OPEN --> CLOSED
 *    (dialled)      (TLS)        (HELLO/WELCOME)         frames     any failure, from any state
 *
 * Up to OPEN a deadline runs. The owner's on_lost is called once, then the object frees itself.
 */
#ifndef FERRY_NETLINK_CONNECTION_H
#define FERRY_NETLINK_CONNECTION_H

#include <netinet/in.h>
#include <sys/queue.h>
#include <sys/socket.h>

#include <uv.h>

#include "core/base/buffer.h"
#include "netlink/session.h"
#include "netlink/tls.h"

struct connection;

struct connection_ops {
    /* TLS is up: check the peer's fingerprint; a negative errno drops the connection (with @err). */
    int (*on_secured)(void *owner, struct connection *c, struct error *err);
    /* The peer's first frame. Attach, or refuse by returning a negative errno (with @err). */
    int (*on_greeting)(void *owner, struct connection *c, const struct wire_header *h,
                       const uint8_t *payload, struct error *err);
    /* The connection is over; its stripe (if attached) is still valid during this call. */
    void (*on_lost)(void *owner, struct connection *c, const struct error *why);
};

struct connection_config {
    uint32_t socket_buffer_bytes; /* 0: the kernel's choice */
    char congestion_control[16];  /* "auto", "bbr", ...; empty: the kernel's choice */
};

/* What TCP may hold unsent: an urgent frame waits behind it on its stripe. */
enum { CONNECTION_UNSENT_FIRST_BYTES = 32 * 1024, CONNECTION_UNSENT_MAX_BYTES = 256 * 1024 };

/* What changes with the link's rate while a connection is open. */
struct connection_tuning {
    uint64_t pacing_bytes_s; /* 0: the congestion control alone decides */
    uint32_t unsent_bytes;   /* what TCP may hold unsent */
    bool bulk;               /* more waits to be sent than the link takes, and the link is long */
};

enum connection_state {
    CONNECTION_CONNECTING,
    CONNECTION_HANDSHAKE,
    CONNECTION_GREETING,
    CONNECTION_OPEN,
    CONNECTION_CLOSED,
};

struct connection {
    TAILQ_ENTRY(connection) entry; /* the owner's list */
    const struct connection_config *config;
    const struct connection_ops *ops;
    void *owner;
    void *context; /* the owner's: its session */
    uint8_t stripe_index;
    bool server;
    enum connection_state state;
    int fd;
    struct tls_conn *tls;
    uv_poll_t poll;
    uv_timer_t deadline;
    int open_handles; /* freed when the last uv handle is closed */
    int poll_events;
    struct connection_tuning tuned;
    bool ran_dry; /* since the owner last looked: TCP had nothing left when it was to get more */
    uint32_t delivered_segments, retransmits, segments_out; /* what the owner last saw of TCP's */
    struct session *session;                                /* when attached */
    struct stripe *stripe;
    struct buffer input;  /* before attachment: the greeting */
    struct buffer output; /* greetings, and the rest of a frame that the socket did not take */
    char peer_address[INET6_ADDRSTRLEN + 8];
};

TAILQ_HEAD(connection_list, connection);

/* @config must outlive the connection. Takes over the accepted socket @fd (closed on failure). */
int connection_accept(uv_loop_t *loop, struct tls_identity *id,
                      const struct connection_config *config, int fd,
                      const struct connection_ops *ops, void *owner, struct connection **ret);
/* @deadline_ms: for the peer's host to answer at all. */
int connection_dial(uv_loop_t *loop, struct tls_identity *id,
                    const struct connection_config *config, const struct sockaddr *address,
                    socklen_t address_len, unsigned deadline_ms, const struct connection_ops *ops,
                    void *owner, struct connection **ret);

/* Queues bytes in front of any frame (greetings, refusals). */
int connection_send(struct connection *c, const void *data, size_t len);
/* Joins the session: from now on frames flow. */
int connection_attach(struct connection *c, struct session *session);
/* Writes what the session has for this stripe, a quantum at most. True: it could write more. */
bool connection_pump(struct connection *c);
/* Follows the link's rate. */
void connection_tune(struct connection *c, const struct connection_tuning *t);
/* Ends it now; on_lost is called before this returns unless it was already. */
void connection_drop(struct connection *c, const struct error *why);

#endif
