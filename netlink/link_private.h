/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What link.c (sessions, the loop's turn), link_dial.c (calling out) and link_greeting.c (who may come in)
 * share. Not for others.
 */
#ifndef FERRY_NETLINK_LINK_PRIVATE_H
#define FERRY_NETLINK_LINK_PRIVATE_H

#include "netlink/connection.h"
#include "netlink/link.h"
#include "netlink/packer.h"
#include "netlink/pacer.h"
#include "netlink/stripe_plan.h"

/* "*" and host names may stand for several addresses: of both families, for one. */
enum { LINK_LISTENERS_MAX = 4 };

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
    uint8_t peer_instance
        [WIRE_ID_BYTES]; /* accepted sessions: the run of the peer's ferryd that dialled */
    struct connection_list connections; /* attached or (initiator) being dialled */
    unsigned attached;
    unsigned outages;
    bool patient;           /* no outage is too long */
    uint64_t down_since_ns; /* without a stripe since; 0 = has one */
    /* link_dial.c */
    uint64_t redial_at_ns, resolved_ns;
    bool resolving;
    bool mended; /* it was away: what is still connecting is started anew when one is through */
    struct link_address {
        struct sockaddr_storage storage;
        socklen_t len;
    } addresses[4]; /* of the peer, as resolved */
    unsigned address_count, address_next;
    uint64_t closing_since_ns;
    /* link_tune.c */
    struct pacer pacer;
    struct stripe_plan plan; /* when their number is left to the session */
    bool bulk;               /* more waits to be sent than the link takes */
    uint8_t lossy_seconds;   /* of the latest eight, a bit each */
    unsigned busy_ticks;
    uint64_t unsent_ns; /* what a stripe may hold unsent, in time; grows while stripes run dry */
    int dry_permille;   /* of the latest ticks */
    uint64_t busy_ns, unclean_ns, retransmits_seen;
    uint64_t delivered_bytes, retransmits, segments_out; /* of all connections it ever had */
    uint64_t rtt_ns, rtt_min_ns;
    /* What stood at the begin of the running second, and what the last one showed. */
    uint64_t second_since_ns, goodput_sent_bytes, goodput_received_bytes;
    uint64_t second_retransmits, second_segments_out;
    uint64_t sent_bytes_s, received_bytes_s;
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
    struct listener {
        int fd;
        uv_poll_t poll;
    } listeners[LINK_LISTENERS_MAX];
    unsigned listener_count;
    uint64_t listen_again_ns; /* out of descriptors: new connections wait until then */
    struct packer *packer;    /* NULL: no compression */
    uv_prepare_t prepare;
    uv_timer_t tick, output; /* output: when a limit lets more go */
    bool shutting_down;
    struct link_session_list sessions;
    struct connection_list pending; /* accepted, greeting not read yet */
    unsigned pending_count, session_count;
};

/* link.c */
int link_session_new(struct link *link, const struct link_peer *peer, bool initiator,
                     const uint8_t id[WIRE_ID_BYTES], uint32_t peer_window,
                     struct link_session **ret);
/* What a peer may send on a new stream: so many streams fit the session's window. */
uint32_t link_first_window(const struct link_config *config);
void link_session_destroy(struct link_session *ls);
struct link_session *link_session_by_id(struct link *link, const uint8_t id[WIRE_ID_BYTES]);
void link_session_fail(struct link_session *ls, enum wire_reason reason, const char *why);
/* The connection becomes a stripe of the session. */
int link_session_attach(struct link_session *ls, struct connection *c);

/* link_tune.c: every tick of a session that is up. */
void link_session_tune(struct link_session *ls, uint64_t now_ns);

/* link_listen.c */
int link_listen(struct link *link, struct error *err);
/* Every tick: listens again after a pause for want of descriptors. */
void link_listen_again(struct link *link, uint64_t now_ns);
void link_stop_listening(struct link *link);

/* link_dial.c */
/* Connections that a session this side dials should have. */
unsigned link_wanted_stripes(const struct link_session *ls);
/* "host:port" or "[v6]:port" -> its parts. -EINVAL. */
int link_split_address(const char *address, char host[256], char port[8]);
/* Connects what a session that was up misses, when it is time; asks the peer when all stripes are silent. */
void link_dial_again(struct link_session *ls, uint64_t now_ns);
void link_probe_silence(struct link_session *ls, uint64_t now_ns);
/* A session that was never up: calls the peer's next address. False: there is none, or it cannot be called. */
bool link_dial_elsewhere(struct link_session *ls);

/* link_greeting.c: what the connections report. */
extern const struct connection_ops link_connection_ops;

#endif
