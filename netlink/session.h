/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A session: the resumable conversation of two sites, as an engine without sockets or clock.
 *
 *   session   what two ferryds share until one says goodbye; survives the loss of every stripe
 *   stream    one ordered byte sequence each way inside it (netlink/wire.h)
 *   stripe    here: the two ends of one connection, fed with received bytes and pulled for bytes to send
 *
 * Theory of operation. A sender keeps each stream's bytes until they are acknowledged. Frames are cut
 * at the last moment, when a stripe asks for bytes, so that urgent streams go first and nothing waits
 * in a queue that cannot be reordered. Each frame sent is remembered as a range with its stripe; when
 * a stripe is lost, its unacknowledged ranges are sent again on any other, now or when one joins.
 * Receivers put ranges in order, drop repetitions, and grant credit as their reader consumes. Windows grow
 * with what is consumed in a round trip and share one budget: so the memory of either side is bounded
 * whatever the peer does.
 *
 * Whole frames may take a detour through a compressor of the owner's (on_packable) while they wait for
 * their turn; when the compressor is busy and a stripe is free, they go plain: it is never the bottleneck.
 *
 *           stripe_add           feed / pull                      GOODBYE, protocol fault, fail()
 *   (new) ------------> OPEN <----------------> OPEN (0 stripes = outage) ------------------> CLOSED
 *
 * Callbacks are never called from inside feed or pull: events are noted there and delivered by
 * session_dispatch(), from which every function of this header may be called.
 *
 * Thread: all of it on the loop thread. Nothing here blocks.
 */
#ifndef FERRY_NETLINK_SESSION_H
#define FERRY_NETLINK_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include "core/base/error.h"
#include "netlink/wire.h"

struct shaper;
struct range;
struct session;
struct stripe;
struct stream;

struct session_config {
    bool initiator;        /* dialled: numbers its streams 1, 3, 5 ... */
    uint32_t window_bytes; /* what a peer may send on a new stream before any of it is consumed */
    uint32_t window_max_bytes; /* what a stream's window may grow to; 0: does not grow */
    uint64_t budget_bytes; /* all windows together, and what is held for the peer; 0: no bound */
    uint32_t peer_window_bytes; /* the same of the peer, from its greeting */
    uint32_t unsent_bytes;      /* what a writer may queue on a stream ahead of the wire */
    uint32_t frame_bytes;       /* payload of the largest frame sent; 0: the protocol's limit */
};

/* A frame on its way through a compressor, which may run on another thread: it reads these and nothing else. */
struct packing {
    const uint8_t *data;
    uint32_t length;
    /* The session's own. */
    LIST_ENTRY(packing) entry;
    struct session *session; /* NULL: freed meanwhile */
    struct range *range;     /* NULL: not wanted any more */
    uint8_t *frame;
};

struct session_ops {
    /* The peer opened a stream; set its ops and read it from now on. */
    void (*on_stream)(void *user, struct stream *stream);
    /* The session ended: the peer's goodbye, its fault, or session_fail(). Called once. Its streams
     * are dead but stay readable as objects until they are released. */
    void (*on_closed)(void *user, const struct error *why);
    /* Something to compress. True: taken, and session_packed() will follow. False: busy, it may go plain, and
     * is offered again after the next session_packed(). NULL: no compression. */
    bool (*on_packable)(void *user, struct packing *packing);
};

struct stream_ops {
    /* Bytes to read, or the end (stream_at_end()). */
    void (*on_readable)(void *user, struct stream *stream);
    /* stream_room() grew from 0, or everything written was acknowledged. May be NULL. */
    void (*on_writable)(void *user, struct stream *stream);
    /* The stream is over in both directions: the peer's reset or the session's end. Called once. */
    void (*on_reset)(void *user, struct stream *stream, uint64_t reason);
};

struct session_stats {
    uint64_t wire_sent_bytes, wire_received_bytes; /* frames, headers included, TLS not */
    uint64_t resent_bytes;                         /* payload sent again after a loss */
    uint64_t rtt_min_ns, rtt_ns;                   /* 0: not measured yet */
    uint64_t buffered_bytes;                       /* unacknowledged + unread, all streams */
    uint64_t goodput_sent_bytes,
        goodput_received_bytes;              /* stream payload acknowledged / delivered */
    uint64_t packed_raw_bytes, packed_bytes; /* payload that went compressed: before, after */
    uint64_t granted_bytes; /* what the peer may send at most before it hears from us */
    unsigned stripes;
    unsigned streams;
};

int session_new(struct session **ret, const struct session_config *config,
                const struct session_ops *ops, void *user);
/* Frees it with all its stripes and streams. NULL is allowed. */
void session_free(struct session *s);

/* What the peer's greeting says, when it comes after streams were opened; before the first stripe. */
void session_set_peer_window(struct session *s, uint32_t window_bytes);

/* --- stripes: called by the owner of the connections --------------------------------------- */

/* A connection joined (greetings done). All streams are announced on it, lost ranges sent again. */
int session_stripe_add(struct session *s, uint64_t now_ns, struct stripe **ret);
/* A connection is gone; frees the stripe. */
void session_stripe_lost(struct session *s, struct stripe *stripe);

/* Received bytes, in any pieces. 0, or -EPROTO / -ENOMEM: the session is closed and says why. */
int session_stripe_feed(struct session *s, struct stripe *stripe, const void *data, size_t len,
                        uint64_t now_ns);
/* The same without a copy: where the next bytes go (never none), and that @len of them are there. */
size_t session_stripe_room(struct stripe *stripe, uint8_t **ret);
int session_stripe_commit(struct session *s, struct stripe *stripe, size_t len, uint64_t now_ns);
/* The next whole frames for this stripe, at most @cap (>= WIRE_FRAME_MAX_BYTES). 0: nothing to send. */
size_t session_stripe_pull(struct session *s, struct stripe *stripe, uint8_t *out, size_t cap,
                           uint64_t now_ns);
/* The same without a copy, a piece at a time: *ret is valid until the next call of the session. */
size_t session_stripe_next(struct session *s, struct stripe *stripe, const uint8_t **ret,
                           uint64_t now_ns);
/* True when a pull on some stripe would give bytes. */
bool session_wants_output(const struct session *s, uint64_t now_ns);
/* When more may go than now: a bandwidth limit allows it, an acknowledgement is due. UINT64_MAX: never by
 * itself. */
uint64_t session_output_deadline(const struct session *s);

/* A packing has come back, on the loop thread: its compressed form, or @len 0 when that did not pay. Frees it. */
void session_packed(struct packing *packing, const void *packed, size_t len);
/* Bandwidth limits, shared with others and owned by the caller: of the whole session, of one stream. NULL: none. */
void session_set_shaper(struct session *s, struct shaper *shaper);
void stream_set_shaper(struct stream *stream, struct shaper *shaper);
/* What may wait on a stream where so much is carried: when a guest is stopped, what is queued is downtime. */
uint64_t session_queue_bytes(uint64_t rate_bytes_s);
/* What a writer may queue on a stream ahead of the wire, from now on. */
void session_set_unsent_bytes(struct session *s, uint32_t bytes);
/* The largest frame from now on: an urgent one waits behind at most one on its stripe. */
void session_set_frame_bytes(struct session *s, uint32_t bytes);

/* Timers: call session_tick() at or after the deadline (UINT64_MAX: none). Tick sends pings. */
uint64_t session_deadline(const struct session *s);
void session_tick(struct session *s, uint64_t now_ns);
/* For how long nothing has come on it; pings are answered, so beyond a second or two it means something. */
uint64_t session_stripe_silence_ns(const struct stripe *stripe, uint64_t now_ns);

/* Delivers noted events. Call after feed, pull, tick and after any stream call. */
void session_dispatch(struct session *s);
/* There is something to dispatch. */
bool session_has_events(const struct session *s);

/* Says goodbye on every stripe and closes (the owner pulls once more before it drops the stripes). */
void session_close(struct session *s, enum wire_reason reason, const char *text);
/* Closes because of something outside the engine (an outage beyond its limit). */
void session_fail(struct session *s, enum wire_reason reason, const char *why);
bool session_is_closed(const struct session *s);

void session_get_stats(const struct session *s, struct session_stats *ret);

/* --- streams ------------------------------------------------------------------------------- */

/* Opens a stream. The first bytes written announce it to the peer. -EBUSY at the limit, -EPIPE when
 * the session is closed. The stream belongs to the session; release it when done with it. */
int stream_open(struct session *s, enum care care, struct stream **ret);
void stream_set_ops(struct stream *stream, const struct stream_ops *ops, void *user);
/* The class of care may change at any time; it holds for bytes not yet cut into frames. */
void stream_set_care(struct stream *stream, enum care care);
/* What is written is compressed already: no frame of it goes through the compressor. */
void stream_set_packed(struct stream *stream);
uint32_t stream_id(const struct stream *stream);
struct session *stream_session(const struct stream *stream);

/* Bytes that stream_write() will take now. */
size_t stream_room(const struct stream *stream);
/* Queues all of @len <= stream_room() bytes. 0, -EAGAIN (too much), -EPIPE (over), -ENOMEM. */
int stream_write(struct stream *stream, const void *data, size_t len);
/* No more bytes will follow in this direction. */
void stream_end(struct stream *stream);
/* Everything written (and the end, if said) has been acknowledged by the peer. */
bool stream_is_flushed(const struct stream *stream);
uint64_t stream_sent_acked_bytes(const struct stream *stream);

/* The first piece of what can be read now, 0 if nothing; valid until the next consume, peek or dispatch. More
 * may follow when it is consumed. */
size_t stream_peek(const struct stream *stream, const uint8_t **ret_data);
/* The same, with what follows joined to it up to @want bytes at least, as far as it is here. */
size_t stream_peek_joined(struct stream *stream, size_t want, const uint8_t **ret_data);
/* Gives credit back for @len <= peeked bytes. */
void stream_consume(struct stream *stream, size_t len);
/* All bytes up to the peer's end have been consumed. */
bool stream_at_end(const struct stream *stream);

/* Ends both directions at once; the peer's owner is told @reason. The stream is released. */
void stream_reset(struct stream *stream, enum wire_reason reason);
/* The owner needs it no more: no callbacks from now on. It is freed when both directions are over;
 * a stream released before it was ended is reset. */
void stream_release(struct stream *stream);

#endif
