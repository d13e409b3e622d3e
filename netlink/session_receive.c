/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stripe receives, and what it means. See session.h for the theory.
 *
 * A frame is read in two steps, first its header, then its payload into memory of its own, which becomes
 * part of its stream as it is: bytes are copied by nobody between TLS and the stream's reader.
 */
#include "netlink/session_internal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/wire.h"

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
        return session_protocol_fault(s, "data on a stream that was never opened");
    if (id >= s->peer_floor + 2 * SEEN_IDS)
        return session_protocol_fault(s, "stream id too far ahead");
    if (s->stream_count >= LIMIT_SESSION_STREAMS)
        return session_protocol_fault(s, "too many streams");
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

/* @payload of an acknowledgement, @segment of data; what the stream keeps of the latter becomes NULL. */
static int on_stream_frame(struct session *s, const struct wire_header *h, const uint8_t *payload,
                           struct segment **segment)
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
                       : session_protocol_fault(
                             s, "acknowledgement on a stream that was never opened");
        }
        r = accept_stream(s, h->stream, &st);
        if (r < 0)
            return r;
    }
    switch (h->type) {
    case WIRE_DATA:
        r = stream_on_data(st, h, segment, &why);
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
        return session_protocol_fault(s, why);
    if (r == 0)
        stream_collect(st);
    return r;
}

/* Unpacked memory has the size that the header says, which is limited, whatever the frame declares. */
static int on_packed_frame(struct session *s, const struct wire_header *h,
                           const struct segment *packed)
{
    struct segment *g = segment_new(h->raw_length);
    int r;

    if (!s->pack_reader)
        s->pack_reader = pack_reader_new();
    if (!g || !s->pack_reader)
        r = -ENOMEM;
    else if (pack_read(s->pack_reader, packed->data, h->length, g->data, h->raw_length) < 0)
        r = session_protocol_fault(s, "a compressed frame is not what it says");
    else
        r = on_stream_frame(s, h, NULL, &g);
    free(g);
    return r;
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
    session_close_with(s, reason == WIRE_REASON_SHUTDOWN ? WIRE_REASON_SHUTDOWN : WIRE_REASON_NONE,
                       "talk to the peer", line);
}

static int on_frame(struct session *s, struct stripe *stripe, uint64_t now_ns)
{
    const struct wire_header *h = &stripe->header;

    switch (h->type) {
    case WIRE_DATA:
        return h->flags & WIRE_FLAG_ZSTD ? on_packed_frame(s, h, stripe->segment)
                                         : on_stream_frame(s, h, NULL, &stripe->segment);
    case WIRE_ACK:
    case WIRE_RESET:
        return on_stream_frame(s, h, stripe->brief, &stripe->segment);
    case WIRE_PING:
        stripe->pong_owed = true;
        stripe->pong_offset = h->offset;
        return 0;
    case WIRE_PONG:
        on_pong(s, h->offset, now_ns);
        return 0;
    case WIRE_GOODBYE:
        on_goodbye(s, h->offset, stripe->brief, h->length);
        return 0;
    default:
        return session_protocol_fault(s, "greeting inside a session");
    }
}

/* --- a frame's bytes ----------------------------------------------------------------------- */

static void forget_frame(struct stripe *stripe)
{
    free(TAKE_PTR(stripe->segment));
    stripe->received_bytes = 0;
}

static int take_header(struct session *s, struct stripe *stripe)
{
    const char *why = NULL;

    if (wire_get_header(stripe->header_bytes, &stripe->header, &why) < 0) {
        forget_frame(stripe);
        return session_protocol_fault(s, why);
    }
    if (stripe->header.type != WIRE_DATA || stripe->header.length == 0)
        return 0;
    stripe->segment = segment_new(stripe->header.length);
    if (!stripe->segment) {
        forget_frame(stripe);
        return -ENOMEM;
    }
    return 0;
}

static uint8_t *payload_place(struct stripe *stripe)
{
    return stripe->segment ? stripe->segment->data : stripe->brief;
}

size_t session_stripe_room(struct stripe *stripe, uint8_t **ret)
{
    size_t got = stripe->received_bytes;

    if (got < WIRE_HEADER_BYTES) {
        *ret = stripe->header_bytes + got;
        return WIRE_HEADER_BYTES - got;
    }
    *ret = payload_place(stripe) + (got - WIRE_HEADER_BYTES);
    return WIRE_HEADER_BYTES + stripe->header.length - got;
}

int session_stripe_commit(struct session *s, struct stripe *stripe, size_t len, uint64_t now_ns)
{
    int r = 0;

    if (s->closed) { /* whatever else comes does not count */
        forget_frame(stripe);
        return 0;
    }
    stripe->heard_ns = now_ns;
    s->now_ns = now_ns;
    s->stats.wire_received_bytes += len;
    stripe->received_bytes += len;
    if (stripe->received_bytes == WIRE_HEADER_BYTES)
        r = take_header(s, stripe);
    if (r == 0 && stripe->received_bytes >= WIRE_HEADER_BYTES &&
        stripe->received_bytes == WIRE_HEADER_BYTES + stripe->header.length) {
        r = on_frame(s, stripe, now_ns);
        forget_frame(stripe);
    }
    if (r == -ENOMEM)
        session_fail(s, WIRE_REASON_BUSY, "out of memory");
    return r;
}

int session_stripe_feed(struct session *s, struct stripe *stripe, const void *data, size_t len,
                        uint64_t now_ns)
{
    const uint8_t *from = data;
    int r = 0;

    while (r == 0 && len > 0 && !s->closed) {
        uint8_t *at;
        size_t n = MIN(len, session_stripe_room(stripe, &at));

        memcpy(at, from, n);
        r = session_stripe_commit(s, stripe, n, now_ns);
        from += n;
        len -= n;
    }
    return r;
}
