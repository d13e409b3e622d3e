/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The link: this site's listener, its dialled connections, and the sessions that live on them.
 *
 * Whoever wants something from a peer dials a session to it. The dialler (the initiator) also redials:
 * after a loss it connects again until a stripe is back or the outage limit is reached;
 * the other side waits just as long. A session whose first connection fails ends at once with the
 * reason. Authorisation happens here: a connection whose certificate is no configured peer's is
 * dropped before a single frame is read.
 *
 * Thread: the loop thread. Callbacks may call any function of this header and of session.h.
 */
#ifndef FERRY_NETLINK_LINK_H
#define FERRY_NETLINK_LINK_H

#include <uv.h>

#include "core/base/error.h"
#include "netlink/session.h"
#include "netlink/tls.h"

struct link;
struct link_session;

enum { LINK_ADDRESS_BYTES = 264 }; /* host name (253) + ":" + port */

struct link_peer {
    char name[WIRE_NAME_BYTES];
    char address[LINK_ADDRESS_BYTES]; /* "host:port" or "[v6]:port" */
    /* What its certificate must be or say; one of them at least, both when both are set. */
    char fingerprint[TLS_FINGERPRINT_BYTES];
    char certificate_name[TLS_NAME_BYTES];
};

struct link_config {
    char site_name[WIRE_NAME_BYTES];
    char listen[LINK_ADDRESS_BYTES]; /* empty: accept nothing */
    unsigned stripes; /* connections of a session this side dials; 0: as many as help */
    uint32_t
        window_bytes; /* what a session may hold for its readers, and for its peer, all streams together */
    uint32_t unsent_bytes;
    uint32_t socket_buffer_bytes; /* per connection, at most; 0 = the kernel's choice */
    char congestion_control[16];
    bool compress;
    int compression_level;      /* 0: adapts to what the link and the processors give */
    uint64_t stripe_timeout_ns; /* silence after which a connection is given up */
    uint64_t outage_limit_ns;   /* without any connection for this long, the session fails */
};

/* What suits a WAN; names and addresses stay empty. */
void link_config_default(struct link_config *ret);

struct link_ops {
    /* The configured peer that shows itself here, by link_peer_is(); false: none. */
    bool (*find_peer)(void *user, const struct tls_conn *seen, struct link_peer *ret);
    /* A peer opened a session (on_session) or a stream in one, dialled or accepted (on_stream). */
    void (*on_session)(void *user, struct link_session *ls);
    void (*on_stream)(void *user, struct link_session *ls, struct stream *stream);
    /* The session is over (never called for link_session_close()); it is freed after this returns,
     * its streams with it. */
    void (*on_session_closed)(void *user, struct link_session *ls, const struct error *why);
    /* A session and all that it held are freed, however it ended. May be NULL. */
    void (*on_session_freed)(void *user);
};

/* Whoever holds the other end of @seen is this peer. */
bool link_peer_is(const struct link_peer *peer, const struct tls_conn *seen);

/* Starts listening. @id and @ops must outlive the link. */
int link_new(uv_loop_t *loop, const struct link_config *config, struct tls_identity *id,
             const struct link_ops *ops, void *user, struct link **ret, struct error *err);
/* Says goodbye to everybody and closes; the loop must run on until its handles are gone. */
void link_shutdown(struct link *link);
/* After the loop has ended. */
void link_free(struct link *link);

/* Starts a session; usable at once (bytes wait until it is up). Ends through on_session_closed. */
int link_dial(struct link *link, const struct link_peer *peer, struct link_session **ret,
              struct error *err);
/* Ends it on purpose, with a goodbye; freed soon after; no callback. */
void link_session_close(struct link_session *ls);

struct session *link_session_engine(struct link_session *ls);
const char *link_session_peer(const struct link_session *ls);
/* Ours, to keep the owner's object. */
void link_session_set_user(struct link_session *ls, void *user);
void *link_session_user(const struct link_session *ls);
/* While @patient, no outage is too long for it: what hangs on it cannot be given up. */
void link_session_set_patient(struct link_session *ls, bool patient);
bool link_session_is_up(const struct link_session *ls);

struct link_session_info {
    struct session_stats stats;
    unsigned outages;                   /* times it was without any stripe */
    bool was_up;                        /* the peer was reached at least once */
    uint64_t tcp_rtt_us;                /* now, mean of the stripes; 0 = unknown */
    uint64_t tcp_min_rtt_us;            /* smallest of the stripes that are open; 0 = unknown */
    uint64_t retransmits, segments_out; /* of all stripes it ever had */
    uint64_t sent_bytes_s, received_bytes_s; /* payload over the last second */
    uint64_t pacing_bytes_s;     /* the cap that keeps the line's queue short; 0 = none */
    uint64_t capacity_bytes_s;   /* the best rate seen lately while busy; 0 = unknown */
    uint64_t queue_ns;           /* that stands before the line's bottleneck */
    const char *pacer;           /* its state, in a word */
    int compression_level;       /* now; meaningful when frames are compressed */
    char congestion_control[16]; /* of the first stripe */
    char cipher[64];
};
void link_session_get_info(const struct link_session *ls, struct link_session_info *ret);

#endif
