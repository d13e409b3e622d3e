/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: stripes, and what the frames received on them mean. See session.h for the theory.
 */
#include "netlink/session_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

/* A stripe is pinged this often: finds dead ones, keeps middleboxes awake, measures RTT. */
#define PING_INTERVAL_NS (1 * NS_PER_S)

int session_new(struct session **ret, const struct session_config *config,
                const struct session_ops *ops, void *user)
{
    struct session *s = calloc(1, sizeof(*s));

    if (!s)
        return -ENOMEM;
    s->config = *config;
    s->ops = ops;
    s->user = user;
    s->next_id = config->initiator ? 1 : 2;
    s->peer_floor = config->initiator ? 2 : 1;
    TAILQ_INIT(&s->streams);
    TAILQ_INIT(&s->events);
    TAILQ_INIT(&s->stripes);
    TAILQ_INIT(&s->packables);
    LIST_INIT(&s->packings);
    *ret = s;
    return 0;
}

void session_free(struct session *s)
{
    struct stream *st;
    struct stripe *stripe;
    struct packing *packing;

    if (!s)
        return;
    while ((stripe = TAILQ_FIRST(&s->stripes)))
        session_stripe_lost(s, stripe);
    while ((st = TAILQ_FIRST(&s->streams)))
        stream_free(st);
    LIST_FOREACH(packing, &s->packings, entry)
    packing->session = NULL; /* its stream dropped it already; it comes back later */
    pack_reader_free(s->pack_reader);
    free(s->unpacked);
    free(s);
}

void session_set_peer_window(struct session *s, uint32_t window_bytes)
{
    struct stream *st;

    s->config.peer_window_bytes = window_bytes;
    TAILQ_FOREACH(st, &s->streams, entry)
    st->send_limit = window_bytes;
}

void session_set_shaper(struct session *s, struct shaper *shaper)
{
    s->shaper = shaper;
}

void session_set_frame_bytes(struct session *s, uint32_t bytes)
{
    s->config.frame_bytes = bytes;
}

/* --- the end of a session ------------------------------------------------------------------ */

static void close_with(struct session *s, enum wire_reason reason, const char *what,
                       const char *why)
{
    struct stream *st, *next;

    if (s->closed)
        return;
    s->closed = true;
    error_set(&s->close_why, reason == WIRE_REASON_PROTOCOL ? -EPROTO : -ECONNRESET, what, NULL,
              "%s", why);
    for (st = TAILQ_FIRST(&s->streams); st; st = next) {
        next = TAILQ_NEXT(st, entry);
        stream_die(st, reason);
        st->reset_owed = st->reset_sent = false;
        stream_collect(st);
    }
}

static void say_goodbye(struct session *s, enum wire_reason reason, const char *text)
{
    struct stripe *stripe;

    s->close_reason = reason;
    snprintf(s->close_text, sizeof(s->close_text), "%s", text);
    TAILQ_FOREACH(stripe, &s->stripes, entry)
    stripe->goodbye_owed = true;
}

static int protocol_fault(struct session *s, const char *why)
{
    if (!s->closed)
        say_goodbye(s, WIRE_REASON_PROTOCOL, why);
    close_with(s, WIRE_REASON_PROTOCOL, "read the peer's frames", why);
    return -EPROTO;
}

void session_close(struct session *s, enum wire_reason reason, const char *text)
{
    if (s->closed)
        return;
    say_goodbye(s, reason, text);
    s->closed_told = true; /* the owner knows: it asked */
    close_with(s, reason, "close the session", text);
}

void session_fail(struct session *s, enum wire_reason reason, const char *why)
{
    if (s->closed)
        return;
    say_goodbye(s, reason, why);
    close_with(s, reason, "keep the session alive", why);
}

bool session_is_closed(const struct session *s)
{
    return s->closed;
}

/* --- stripes ------------------------------------------------------------------------------- */

uint16_t session_all_slots(const struct session *s)
{
    const struct stripe *stripe;
    unsigned all = 0;

    TAILQ_FOREACH(stripe, &s->stripes, entry)
    all |= 1u << stripe->slot;
    return (uint16_t)all;
}

static unsigned free_slot(const struct session *s)
{
    unsigned slot = 0;

    while (session_all_slots(s) & (1u << slot))
        slot++;
    return slot;
}

int session_stripe_add(struct session *s, uint64_t now_ns, struct stripe **ret)
{
    struct stripe *stripe;
    struct stream *st;

    if (s->stripe_count >= LIMIT_SESSION_STRIPES)
        return -EBUSY;
    stripe = calloc(1, sizeof(*stripe));
    if (!stripe)
        return -ENOMEM;
    stripe->session = s;
    stripe->slot = free_slot(s);
    stripe->heard_ns = now_ns;
    stripe->ping_ns = now_ns;
    stripe->ping_owed = true;
    TAILQ_INSERT_TAIL(&s->stripes, stripe, entry);
    s->stripe_count++;
    /* Acknowledgements may have died with other stripes: say again how far each stream has come. */
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        st->ack_owed = !st->dead;
        if (st->reset_sent)
            st->reset_owed = true;
    }
    *ret = stripe;
    return 0;
}

void session_stripe_lost(struct session *s, struct stripe *stripe)
{
    struct stream *st;

    TAILQ_REMOVE(&s->stripes, stripe, entry);
    s->stripe_count--;
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        stream_on_stripe_lost(st, stripe);
        st->ack_owed = !st->dead; /* an acknowledgement may have been on it */
        if (st->reset_sent)
            st->reset_owed = true;
    }
    buffer_done(&stripe->input);
    free(stripe);
}

uint64_t session_stripe_silence_ns(const struct stripe *stripe, uint64_t now_ns)
{
    return now_ns > stripe->heard_ns ? now_ns - stripe->heard_ns : 0;
}

uint64_t session_deadline(const struct session *s)
{
    const struct stripe *stripe;
    uint64_t deadline = UINT64_MAX;

    TAILQ_FOREACH(stripe, &s->stripes, entry)
    {
        deadline = MIN(deadline, stripe->ping_ns + PING_INTERVAL_NS);
    }
    return deadline;
}

/* The last word on a stream (the acknowledgement of its end, the answer to a reset) comes from a side
 * that may have forgotten the stream since, and so cannot know that its word was lost. Who waits for
 * it asks again: a forgotten stream is answered with RESET(GONE). */
static void ask_for_last_words(struct session *s)
{
    struct stream *st;

    TAILQ_FOREACH(st, &s->streams, entry)
    {
        if (st->reset_sent)
            st->reset_owed = true;
        else if (!st->dead && st->fin_sent && !st->fin_acked)
            st->ack_owed = true;
    }
}

void session_tick(struct session *s, uint64_t now_ns)
{
    struct stripe *stripe;
    bool ask = false;

    s->now_ns = now_ns;
    TAILQ_FOREACH(stripe, &s->stripes, entry)
    {
        if (now_ns >= stripe->ping_ns + PING_INTERVAL_NS) {
            stripe->ping_ns = now_ns;
            stripe->ping_owed = true;
            ask = true;
        }
    }
    if (ask)
        ask_for_last_words(s);
}

/* --- receiving ----------------------------------------------------------------------------- */

static struct stream *find_stream(const struct session *s, uint32_t id)
{
    struct stream *st;

    TAILQ_FOREACH(st, &s->streams, entry)
    {
        if (st->id == id)
            return st;
    }
    return NULL;
}

static bool is_peers_id(const struct session *s, uint32_t id)
{
    return (id % 2 == 1) != s->config.initiator;
}

static bool was_used(const struct session *s, uint32_t id)
{
    uint32_t bit;

    if (!is_peers_id(s, id))
        return id < s->next_id;
    if (id < s->peer_floor)
        return true;
    bit = (id - s->peer_floor) / 2;
    return bit < SEEN_IDS && (s->peer_seen[bit / 8] & (1u << (bit % 8)));
}

/* Marks a peer's id as used and moves the floor over every id that is. */
static void mark_used(struct session *s, uint32_t id)
{
    uint32_t bit = (id - s->peer_floor) / 2;

    s->peer_seen[bit / 8] = (uint8_t)(s->peer_seen[bit / 8] | (1u << (bit % 8)));
    while (s->peer_seen[0] == 0xff) {
        memmove(s->peer_seen, s->peer_seen + 1, sizeof(s->peer_seen) - 1);
        s->peer_seen[sizeof(s->peer_seen) - 1] = 0;
        s->peer_floor += 16;
    }
}

static int accept_stream(struct session *s, uint32_t id, struct stream **ret)
{
    if (!is_peers_id(s, id))
        return protocol_fault(s, "data on a stream that was never opened");
    if (id >= s->peer_floor + 2 * SEEN_IDS)
        return protocol_fault(s, "stream id too far ahead");
    if (s->stream_count >= LIMIT_SESSION_STREAMS)
        return protocol_fault(s, "too many streams");
    *ret = stream_new(s, id);
    if (!*ret)
        return -ENOMEM;
    mark_used(s, id);
    stream_note(*ret, EVENT_NEW);
    return 0;
}

/* A frame of a stream that is over here: the peer missed our last word about it, or will ask again. */
static void owe_gone(struct session *s, uint32_t id)
{
    if (s->gone_owed.count < ARRAY_SIZE(s->gone_owed.ids))
        s->gone_owed.ids[s->gone_owed.count++] = id;
}

static int on_stream_frame(struct session *s, const struct wire_header *h, const uint8_t *payload)
{
    struct stream *st = find_stream(s, h->stream);
    const char *why = "";
    int r = 0;

    if (!st) {
        bool used = was_used(s, h->stream);

        if (h->type == WIRE_RESET) {
            if (h->offset != WIRE_REASON_GONE)
                owe_gone(s, h->stream);
            if (!used && is_peers_id(s, h->stream) && h->stream < s->peer_floor + 2 * SEEN_IDS)
                mark_used(s, h->stream); /* its data may still arrive on a slower stripe */
            return 0;
        }
        if (used) {
            owe_gone(s, h->stream);
            return 0;
        }
        if (h->type == WIRE_ACK) {
            /* The peer's own stream, announced by an acknowledgement before its first data. */
            return is_peers_id(s, h->stream)
                       ? 0
                       : protocol_fault(s, "acknowledgement on a stream that was never opened");
        }
        r = accept_stream(s, h->stream, &st);
        if (r < 0)
            return r;
    }
    switch (h->type) {
    case WIRE_DATA:
        r = stream_on_data(st, h, payload, &why);
        break;
    case WIRE_ACK:
        r = stream_on_ack(st, h->offset, get_be64(payload), &why);
        break;
    case WIRE_RESET:
        if (h->offset != WIRE_REASON_GONE && !st->reset_sent)
            owe_gone(s, h->stream);
        stream_on_reset(st, h->offset);
        break;
    }
    if (r == -EPROTO)
        return protocol_fault(s, why);
    if (r == 0)
        stream_collect(st);
    return r;
}

/* One buffer of the largest size a frame may have, whatever the peer declares. */
static int on_packed_frame(struct session *s, const struct wire_header *h, const uint8_t *payload)
{
    if (!s->pack_reader) {
        s->pack_reader = pack_reader_new();
        s->unpacked = malloc(LIMIT_FRAME_PAYLOAD_BYTES);
        if (!s->pack_reader || !s->unpacked)
            return -ENOMEM;
    }
    if (pack_read(s->pack_reader, payload, h->length, s->unpacked, h->raw_length) < 0)
        return protocol_fault(s, "a compressed frame is not what it says");
    return on_stream_frame(s, h, s->unpacked);
}

static void on_pong(struct session *s, uint64_t sent_ns, uint64_t now_ns)
{
    uint64_t rtt = now_ns > sent_ns ? now_ns - sent_ns : 1;

    s->stats.rtt_ns = s->stats.rtt_ns ? (7 * s->stats.rtt_ns + rtt) / 8 : rtt;
    s->stats.rtt_min_ns = s->stats.rtt_min_ns ? MIN(s->stats.rtt_min_ns, rtt) : rtt;
}

static void on_goodbye(struct session *s, uint64_t reason, const uint8_t *text, size_t len)
{
    char why[WIRE_TEXT_BYTES];
    char line[WIRE_TEXT_BYTES + 64];

    wire_get_text(text, len, why);
    snprintf(line, sizeof(line), "the peer ended the session: %s (%s)", why,
             wire_reason_name(reason));
    close_with(s, reason == WIRE_REASON_SHUTDOWN ? WIRE_REASON_SHUTDOWN : WIRE_REASON_NONE,
               "talk to the peer", line);
}

static int on_frame(struct session *s, struct stripe *stripe, const struct wire_header *h,
                    const uint8_t *payload, uint64_t now_ns)
{
    switch (h->type) {
    case WIRE_DATA:
        return h->flags & WIRE_FLAG_ZSTD ? on_packed_frame(s, h, payload)
                                         : on_stream_frame(s, h, payload);
    case WIRE_ACK:
    case WIRE_RESET:
        return on_stream_frame(s, h, payload);
    case WIRE_PING:
        stripe->pong_owed = true;
        stripe->pong_offset = h->offset;
        return 0;
    case WIRE_PONG:
        on_pong(s, h->offset, now_ns);
        return 0;
    case WIRE_GOODBYE:
        on_goodbye(s, h->offset, payload, h->length);
        return 0;
    default:
        return protocol_fault(s, "greeting inside a session");
    }
}

/* Parses one frame at @data if it is whole. Returns its length, 0 for more bytes wanted, or an error. */
static ssize_t parse_frame(struct session *s, struct stripe *stripe, const uint8_t *data,
                           size_t len, uint64_t now_ns)
{
    struct wire_header h;
    const char *why = NULL;
    int r;

    if (len < WIRE_HEADER_BYTES)
        return 0;
    if (wire_get_header(data, &h, &why) < 0)
        return protocol_fault(s, why);
    if (len < WIRE_HEADER_BYTES + h.length)
        return 0;
    r = on_frame(s, stripe, &h, data + WIRE_HEADER_BYTES, now_ns);
    return r < 0 ? r : (ssize_t)(WIRE_HEADER_BYTES + h.length);
}

static int parse_frames(struct session *s, struct stripe *stripe, const uint8_t *data, size_t len,
                        uint64_t now_ns, size_t *ret_used)
{
    *ret_used = 0;
    while (!s->closed) {
        ssize_t used = parse_frame(s, stripe, data + *ret_used, len - *ret_used, now_ns);

        if (used <= 0)
            return (int)used;
        *ret_used += (size_t)used;
    }
    return 0;
}

int session_stripe_feed(struct session *s, struct stripe *stripe, const void *data, size_t len,
                        uint64_t now_ns)
{
    size_t used = 0;
    int r;

    if (s->closed)
        return 0;
    stripe->heard_ns = now_ns;
    s->now_ns = now_ns;
    s->stats.wire_received_bytes += len;
    if (buffer_len(&stripe->input) > 0) {
        /* The rest of a frame that began in an earlier piece. */
        r = buffer_append(&stripe->input, data, len);
        if (r == 0)
            r = parse_frames(s, stripe, buffer_data(&stripe->input), buffer_len(&stripe->input),
                             now_ns, &used);
        if (r == 0)
            buffer_consume(&stripe->input, used);
    } else {
        r = parse_frames(s, stripe, data, len, now_ns, &used);
        if (r == 0)
            r = buffer_append(&stripe->input, (const uint8_t *)data + used, len - used);
    }
    if (r == -ENOMEM)
        session_fail(s, WIRE_REASON_BUSY, "out of memory");
    return r;
}

/* --- events -------------------------------------------------------------------------------- */

static void deliver(struct session *s, struct stream *st)
{
    unsigned events = st->events;

    TAILQ_REMOVE(&s->events, st, event_entry);
    st->events = 0;
    /* Each callback may release the stream (ops becomes NULL) or note new events. A stream that is
     * still owned cannot be freed, so it is safe to look at it between callbacks; after a release
     * it may be gone, which is why the remaining events are put back before each call. */
    if (events & EVENT_NEW) {
        if (events & ~(unsigned)EVENT_NEW)
            stream_note(st, events & ~(unsigned)EVENT_NEW);
        s->ops->on_stream(s->user, st);
        return;
    }
    if (!st->ops)
        return;
    if (events & EVENT_READABLE) {
        if (events & ~(unsigned)EVENT_READABLE)
            stream_note(st, events & ~(unsigned)EVENT_READABLE);
        if (st->ops->on_readable)
            st->ops->on_readable(st->user, st);
        return;
    }
    if (events & EVENT_WRITABLE) {
        if (events & EVENT_RESET)
            stream_note(st, EVENT_RESET);
        if (st->ops->on_writable)
            st->ops->on_writable(st->user, st);
        return;
    }
    if (events & EVENT_RESET && !st->reset_told) {
        st->reset_told = true;
        if (st->ops->on_reset)
            st->ops->on_reset(st->user, st, st->reset_reason);
    }
}

void session_dispatch(struct session *s)
{
    struct stream *st;

    if (s->closed_told) /* the owner has let go of it */
        return;
    while ((st = TAILQ_FIRST(&s->events)))
        deliver(s, st);
    if (s->closed && !s->closed_told) {
        s->closed_told = true;
        s->ops->on_closed(s->user, &s->close_why);
    }
}

bool session_has_events(const struct session *s)
{
    return !s->closed_told && (!TAILQ_EMPTY(&s->events) || s->closed);
}

void session_get_stats(const struct session *s, struct session_stats *ret)
{
    const struct stream *st;

    *ret = s->stats;
    ret->stripes = s->stripe_count;
    ret->streams = s->stream_count;
    ret->granted_bytes = s->granted_bytes;
    ret->buffered_bytes = s->held_bytes;
    TAILQ_FOREACH(st, &s->streams, entry)
    ret->buffered_bytes += buffer_len(&st->receive);
}

/* --- streams as the owner sees them -------------------------------------------------------- */

int stream_open(struct session *s, enum care care, struct stream **ret)
{
    struct stream *st;

    if (s->closed)
        return -EPIPE;
    if (s->stream_count >= LIMIT_SESSION_STREAMS / 2)
        return -EBUSY;
    st = stream_new(s, s->next_id);
    if (!st)
        return -ENOMEM;
    s->next_id += 2;
    st->care = care;
    *ret = st;
    return 0;
}

void stream_set_ops(struct stream *st, const struct stream_ops *ops, void *user)
{
    st->ops = ops;
    st->user = user;
    if (buffer_len(&st->receive) > 0 || st->fin_received)
        stream_note(st, EVENT_READABLE);
    if (st->dead && !st->reset_told)
        stream_note(st, EVENT_RESET);
}

void stream_set_shaper(struct stream *st, struct shaper *shaper)
{
    st->shaper = shaper;
}

void stream_set_care(struct stream *st, enum care care)
{
    st->care = care;
}

uint32_t stream_id(const struct stream *st)
{
    return st->id;
}

struct session *stream_session(const struct stream *st)
{
    return st->session;
}
