/* SPDX-License-Identifier: Apache-2.0 */
/* What session.c (stripes, frames in), session_send.c (frames out) and stream.c (order, credit) share. Not for others. */
#ifndef FERRY_NETLINK_SESSION_INTERNAL_H
#define FERRY_NETLINK_SESSION_INTERNAL_H

#include <sys/queue.h>

#include "core/base/buffer.h"
#include "netlink/session.h"

/* A piece of a stream that was sent and is not acknowledged. */
struct range {
    TAILQ_ENTRY(range) entry;
    uint64_t offset;
    uint32_t length;       /* bytes of payload */
    bool fin;              /* the stream's end follows the payload */
    struct stripe *stripe; /* where it travels; NULL = lost, to be sent again */
    uint16_t carried;      /* by bit `slot`: the stripes it was sent on */
};

/* A received piece that does not join what was received before it. */
struct segment {
    TAILQ_ENTRY(segment) entry;
    uint64_t offset;
    uint32_t length;
    bool fin;
    uint8_t data[];
};

enum stream_events { EVENT_READABLE = 1, EVENT_WRITABLE = 2, EVENT_RESET = 4, EVENT_NEW = 8 };

struct stream {
    struct session *session;
    TAILQ_ENTRY(stream) entry;       /* session.streams */
    TAILQ_ENTRY(stream) event_entry; /* session.events, when events != 0 */
    uint32_t id;
    enum care care;
    unsigned events;
    const struct stream_ops *ops;
    void *user;
    bool released;   /* no owner any more */
    bool dead;       /* reset by either side, or the session is over */
    bool reset_told; /* on_reset was called or is not owed */

    /* Sending. Bytes [send_acked, send_end) are in `send`; those below send_next were cut at least once. */
    struct buffer send;
    uint64_t send_acked, send_next, send_end;
    uint64_t send_limit; /* the peer's credit */
    bool end_wanted;     /* the owner said end; the FIN's offset is send_end */
    bool fin_sent, fin_acked;
    bool want_writable;         /* the owner met an empty room */
    TAILQ_HEAD(, range) ranges; /* in offset order */
    unsigned lost_ranges;

    /* Receiving. Bytes [receive_read, receive_next) are in `receive`. */
    struct buffer receive;
    uint64_t receive_read, receive_next;
    uint64_t receive_limit_told;
    bool fin_received; /* in order: receive_next is the stream's end */
    bool fin_known;    /* the end's offset is known, perhaps out of order */
    uint64_t fin_offset;
    TAILQ_HEAD(segment_list, segment) segments; /* in offset order, not overlapping */
    bool ack_owed;

    bool reset_owed, reset_sent; /* we end it: RESET goes out, until the peer answers with one */
    uint64_t reset_reason;
};

struct stripe {
    struct session *session;
    TAILQ_ENTRY(stripe) entry;
    unsigned slot; /* of this session's stripes: 0 to 15 */
    struct buffer input;
    uint64_t heard_ns; /* last byte received */
    uint64_t ping_ns;  /* last ping noted */
    bool ping_owed;
    bool pong_owed;
    uint64_t pong_offset;
    bool goodbye_owed;
};

TAILQ_HEAD(stream_list, stream);
TAILQ_HEAD(stripe_list, stripe);

/* Ids beyond the peer's lowest never-used one that may already be in use (streams may be announced
 * out of order when stripes differ in speed). */
#define SEEN_IDS (2u * LIMIT_SESSION_STREAMS)

struct session {
    struct session_config config;
    const struct session_ops *ops;
    void *user;
    struct stream_list streams;
    struct stream_list events;
    struct stripe_list stripes;
    struct stream *cursor[CARE_CLASSES]; /* round robin: the stream served last */
    unsigned stream_count, stripe_count;
    uint32_t next_id;                     /* of our next stream */
    uint32_t peer_floor;                  /* every peer's id below this has been used */
    uint8_t peer_seen[SEEN_IDS / 8];      /* bit i: id peer_floor + 2i was used */
    uint64_t starved_bytes[CARE_CLASSES]; /* sent for others since a waiting class was served */
    struct {
        uint32_t ids[16];
        unsigned count;
    } gone_owed; /* RESET(GONE) answers */
    bool closed, closed_told;
    struct error close_why;
    uint64_t close_reason;
    char close_text[WIRE_TEXT_BYTES];
    struct session_stats stats;
};

/* session.c, called by session_send.c: the stripes of the session, a bit each. */
uint16_t session_all_slots(const struct session *s);

/* stream.c, called by session.c and session_send.c */
struct stream *stream_new(struct session *s, uint32_t id);
void stream_free(struct stream *st);
int stream_on_data(struct stream *st, const struct wire_header *h, const uint8_t *payload,
                   const char **ret_why);
int stream_on_ack(struct stream *st, uint64_t acked, uint64_t limit, const char **ret_why);
void stream_on_reset(struct stream *st, uint64_t reason);
void stream_on_stripe_lost(struct stream *st, struct stripe *stripe);
void stream_die(struct stream *st, uint64_t reason);
/* There is a range to send (again) or credit and bytes for a new one. */
bool stream_has_data(const struct stream *st);
/* Cuts the next frame for @stripe into @out (WIRE_FRAME_MAX_BYTES). Returns its length; 0 on -ENOMEM. */
size_t stream_cut(struct stream *st, struct stripe *stripe, uint8_t *out);
/* Urgent streams: a copy of the first small range in flight that @stripe has not carried, 0 if none. */
size_t stream_cut_copy(struct stream *st, struct stripe *stripe, uint8_t *out);
/* Some stripe still owes a copy; @all is the set of the session's slots. */
bool stream_owes_copies(const struct stream *st, uint16_t all);
size_t stream_put_ack(struct stream *st, uint8_t *out);
void stream_note(struct stream *st, unsigned events);
/* Frees the stream when nobody needs it any more. */
void stream_collect(struct stream *st);

#endif
