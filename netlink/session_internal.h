/* SPDX-License-Identifier: Apache-2.0 */
/* What session*.c (stripes, frames) and stream*.c (bytes in order) share. Not for others. */
#ifndef FERRY_NETLINK_SESSION_INTERNAL_H
#define FERRY_NETLINK_SESSION_INTERNAL_H

#include <sys/queue.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "netlink/pack.h"
#include "netlink/session.h"
#include "netlink/shaper.h"

/* What a stripe says of its own accord in one go: pings, acknowledgements, resets. */
enum { SESSION_WORDS_BYTES = 8192 };

/* Acknowledgements of one stream are at least this far apart, in time or in bytes: they must neither fill the
 * way back nor let the sender keep what has long arrived. */
#define ACK_INTERVAL_NS (4 * NS_PER_MS)
#define ACK_BYTES (256u * 1024u)

enum range_state {
    RANGE_OPEN,    /* the stream's last: what is written joins it */
    RANGE_CLOSED,  /* plain, may be sent; on session.packables when it may be compressed first */
    RANGE_PACKING, /* at the compressor, which reads its frame */
    RANGE_PACKED,  /* its payload is a zstd frame */
};

/* A piece of a stream that was written and is not acknowledged: one frame, sent once or again. */
struct range {
    TAILQ_ENTRY(range) entry;      /* stream.ranges, in offset order */
    TAILQ_ENTRY(range) pack_entry; /* session.packables, when `packable` */
    struct stream *stream;
    uint64_t offset;
    uint32_t length;      /* bytes of the stream */
    uint32_t wire_length; /* bytes of the payload; differs when packed */
    uint32_t cap;         /* bytes of payload that `frame` has room for */
    enum range_state state;
    bool fin;              /* the stream's end follows */
    bool sent;             /* at least once */
    bool packable;         /* waits for the compressor */
    struct stripe *stripe; /* where it travels; NULL and sent = lost, to be sent again */
    uint16_t carried;      /* by bit `slot`: the stripes it was sent on */
    uint64_t sent_ns;      /* last */
    uint8_t *frame;        /* owned: room for the header, then the payload */
    struct packing *packing;
};

/* A received piece of a stream: as it came, one frame's payload. */
struct segment {
    TAILQ_ENTRY(segment) entry;
    uint64_t offset;        /* in the stream, of the first byte that counts */
    uint32_t start, length; /* the bytes that count: data[start], `length` of them */
    uint32_t cap;
    uint8_t data[];
};

enum stream_events { EVENT_READABLE = 1, EVENT_WRITABLE = 2, EVENT_RESET = 4, EVENT_NEW = 8 };

struct stream {
    struct session *session;
    TAILQ_ENTRY(stream) entry;       /* session.streams */
    TAILQ_ENTRY(stream) event_entry; /* session.events, when events != 0 */
    uint32_t id;
    enum care care;
    struct shaper *shaper; /* of its move; NULL: no limit of its own */
    unsigned events;
    const struct stream_ops *ops;
    void *user;
    bool released;               /* no owner any more */
    bool dead;                   /* reset by either side, or the session is over */
    bool reset_told;             /* on_reset was called or is not owed */
    bool reset_owed, reset_sent; /* we end it: RESET goes out, until the peer answers with one */
    bool end_wanted;             /* the owner said end; the FIN's offset is send_end */
    bool fin_sent, fin_acked;
    bool want_writable; /* the owner met an empty room */
    bool fin_received;  /* in order: receive_next is the stream's end */
    bool fin_known;     /* the end's offset is known, perhaps out of order */
    bool ack_owed;
    bool credit_owed; /* the sender may be waiting for it */

    /* Sending. */
    uint64_t send_acked, send_end;
    uint64_t unsent_bytes;                /* of ranges never sent */
    uint64_t send_limit;                  /* the peer's credit */
    TAILQ_HEAD(range_list, range) ranges; /* all that is not acknowledged */
    struct range *first_unsent;           /* every range before it was sent; NULL: all were */
    unsigned lost_ranges, range_count;
    /* Compression pays or not: after frames that did not shrink, most go without a try. */
    unsigned pack_failures, pack_skips;
    bool packed_already; /* by who writes it: its frames are not tried at all */

    /* Receiving. Bytes [receive_read, receive_next) are in `readable`, what came too early is in `early`. */
    TAILQ_HEAD(segment_list, segment) readable, early; /* in offset order, not overlapping */
    uint64_t receive_read, receive_next;
    uint64_t receive_limit_told;
    uint64_t fin_offset;
    uint64_t ack_told_ns,
        acked_told; /* when the last acknowledgement went out, and how far it said */
    unsigned early_count;
    uint64_t window;                            /* credit granted beyond what was read */
    uint64_t consumed_bytes, consumed_since_ns; /* by the reader, in this round trip */

    uint64_t reset_reason;
};

struct stripe {
    struct session *session;
    uint8_t words[SESSION_WORDS_BYTES]; /* control frames on their way out */
    TAILQ_ENTRY(stripe) entry;
    unsigned slot; /* of this session's stripes: 0 to 15 */
    /* The frame that is being received: its header, then its payload in `segment` (data) or `brief`. */
    uint8_t header_bytes[WIRE_HEADER_BYTES];
    struct wire_header header;
    size_t received_bytes; /* of the frame, header and payload */
    struct segment *segment;
    uint8_t brief[WIRE_HELLO_MAX_BYTES];
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

TAILQ_HEAD(packable_list, range);
LIST_HEAD(packing_list, packing);

struct session {
    struct session_config config;
    uint64_t now_ns;                /* of the latest call that said so */
    struct packable_list packables; /* closed ranges that the compressor had no place for */
    struct packing_list packings;
    struct pack_reader *pack_reader; /* made with the first compressed frame */
    uint64_t granted_bytes;          /* windows of all streams */
    uint64_t held_bytes;             /* written and not acknowledged, all streams */
    struct shaper *shaper;           /* of the link; NULL: no limit */
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

/* session.c. The stripes of the session, a bit each. */
uint16_t session_all_slots(const struct session *s);
/* The session is over; @what failed, because of @why. */
void session_close_with(struct session *s, enum wire_reason reason, const char *what,
                        const char *why);
/* The peer broke the protocol: says so to it and closes. Returns -EPROTO. */
int session_protocol_fault(struct session *s, const char *why);

/* stream*.c */
struct stream *stream_new(struct session *s, uint32_t id);
void stream_free(struct stream *st);
struct segment *segment_new(size_t cap);
/* @segment holds the frame's bytes, NULL when there are none; it becomes NULL when the stream keeps it. */
int stream_on_data(struct stream *st, const struct wire_header *h, struct segment **segment,
                   const char **ret_why);
/* Forgets what came too early; all that was received and not read. */
void stream_drop_early(struct stream *st);
void stream_drop_segments(struct stream *st);
/* Throws away what can be read: nobody will. */
void stream_skip(struct stream *st);
int stream_on_ack(struct stream *st, uint64_t acked, uint64_t limit, const char **ret_why);
void stream_on_reset(struct stream *st, uint64_t reason);
void stream_on_stripe_lost(struct stream *st, struct stripe *stripe);
void stream_die(struct stream *st, uint64_t reason);
/* There is a range that may be sent now. */
bool stream_has_data(const struct stream *st);
/* The next frame for @stripe, valid until the next call of the session. 0: it went to the compressor, or
 * there is no memory. */
size_t stream_cut(struct stream *st, struct stripe *stripe, const uint8_t **ret);
/* Urgent streams: a copy of the first small range in flight that @stripe has not carried, 0 if none. */
size_t stream_cut_copy(struct stream *st, struct stripe *stripe, const uint8_t **ret);
/* A copy of a range that is late on a stripe which delivers later than the others, 0 if none. */
size_t stream_cut_late(struct stream *st, struct stripe *stripe, const uint8_t **ret);
bool stream_is_late(const struct stream *st);
/* Some stripe still owes a copy; @all is the set of the session's slots. */
bool stream_owes_copies(const struct stream *st, uint16_t all);
/* stream_pack.c. A range is complete: it goes to the compressor, or may be sent as it is. */
void range_seal(struct range *r);
/* It does not wait for the compressor any more. */
void range_unlist(struct range *r);
/* Forgets all that is not acknowledged. */
void stream_drop_ranges(struct stream *st);
/* An acknowledgement is owed and may go; not so often that they fill the way back. */
bool stream_ack_is_due(const struct stream *st, uint64_t now_ns);
size_t stream_put_ack(struct stream *st, uint8_t *out);
void stream_note(struct stream *st, unsigned events);
/* Frees the stream when nobody needs it any more. */
void stream_collect(struct stream *st);

#endif
