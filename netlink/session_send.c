/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a stripe sends next. See session.h for the theory.
 *
 * Scheduling: control frames first, then strictly by class of care, except that a class which waits
 * is served once after FLOOR_BYTES went to the classes above it: nobody starves, and the urgent lose
 * at most one frame in twenty. Within a class streams take turns.
 */
#include "netlink/session_internal.h"

#include <string.h>

/* What the classes above may send before a waiting lower class gets one frame. */
#define FLOOR_BYTES (20u * LIMIT_FRAME_PAYLOAD_BYTES)

static size_t put_short(uint8_t *out, enum wire_type type, uint32_t stream, uint64_t offset)
{
    struct wire_header h = {.type = (uint8_t)type, .stream = stream, .offset = offset};

    wire_put_header(out, &h);
    return WIRE_HEADER_BYTES;
}

/* Frames about the session itself. Returns their bytes, at most the room a full data frame needs. */
static size_t pull_urgent(struct session *s, struct stripe *stripe, uint8_t *out, size_t cap,
                          uint64_t now_ns)
{
    size_t used = 0;

    if (stripe->goodbye_owed && !used) {
        stripe->goodbye_owed = false;
        return wire_put_text(out, WIRE_GOODBYE, (enum wire_reason)s->close_reason, s->close_text);
    }
    if (s->closed)
        return 0;
    if (stripe->pong_owed) {
        stripe->pong_owed = false;
        used += put_short(out + used, WIRE_PONG, 0, stripe->pong_offset);
    }
    if (stripe->ping_owed) {
        stripe->ping_owed = false;
        used += put_short(out + used, WIRE_PING, 0, now_ns);
    }
    while (s->gone_owed.count > 0 && cap - used >= WIRE_HEADER_BYTES)
        used += put_short(out + used, WIRE_RESET, s->gone_owed.ids[--s->gone_owed.count],
                          WIRE_REASON_GONE);
    return used;
}

/* Acknowledgements and resets of all streams that owe one. */
static size_t pull_stream_words(struct session *s, uint8_t *out, size_t cap)
{
    struct stream *st, *next;
    size_t used = 0;

    for (st = TAILQ_FIRST(&s->streams); st; st = next) {
        next = TAILQ_NEXT(st, entry);
        if (cap - used < WIRE_HEADER_BYTES + 8)
            break;
        if (st->reset_owed) {
            st->reset_owed = false;
            st->reset_sent = true;
            used += put_short(out + used, WIRE_RESET, st->id, st->reset_reason);
        } else if (stream_ack_is_due(st, s->now_ns)) {
            used += stream_put_ack(st, out + used);
            stream_collect(st);
        }
    }
    return used;
}

/* A copy of an urgent word, or of what is late, that went out on another stripe. */
static size_t next_copy(struct session *s, struct stripe *stripe, const uint8_t **ret)
{
    struct stream *st;
    size_t n;

    if (s->stripe_count < 2)
        return 0;
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        n = stream_cut_copy(st, stripe, ret);
        if (n == 0)
            n = stream_cut_late(st, stripe, ret);
        if (n > 0) {
            shaper_charge(s->shaper, n);
            return n;
        }
    }
    return 0;
}

/* Words are few and must not wait; all else keeps to the limits. */
static bool within_limits(const struct session *s, const struct stream *st, uint64_t now_ns)
{
    return st->care == CARE_CONTROL ||
           (shaper_allows(s->shaper, now_ns) && shaper_allows(st->shaper, now_ns));
}

/* The next stream of @care with something to send, after the one served last. */
static struct stream *next_in_class(struct session *s, enum care care, uint64_t now_ns)
{
    struct stream *start = s->cursor[care] ? TAILQ_NEXT(s->cursor[care], entry) : NULL;
    struct stream *st;

    for (st = start; st; st = TAILQ_NEXT(st, entry)) {
        if (st->care == care && stream_has_data(st) && within_limits(s, st, now_ns))
            return st;
    }
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        if (st->care == care && stream_has_data(st) && within_limits(s, st, now_ns))
            return st;
    }
    return NULL;
}

static struct stream *next_stream(struct session *s, uint64_t now_ns)
{
    struct stream *best = NULL;

    for (int c = 0; c < CARE_CLASSES; c++) {
        struct stream *st = next_in_class(s, (enum care)c, now_ns);

        if (!st)
            continue;
        if (!best || s->starved_bytes[c] >= FLOOR_BYTES)
            best = st;
    }
    return best;
}

/* Books @bytes sent for @served: the classes below it that wait have starved for that long. */
static void account(struct session *s, const struct stream *served, size_t bytes)
{
    s->starved_bytes[served->care] = 0;
    for (int c = (int)served->care + 1; c < CARE_CLASSES; c++)
        s->starved_bytes[c] += bytes;
}

/* The next frame of a stream. */
static size_t next_frame(struct session *s, struct stripe *stripe, const uint8_t **ret,
                         uint64_t now_ns)
{
    struct stream *st;
    size_t n = 0;

    /* A stream whose next bytes go to the compressor gives its turn away. */
    for (unsigned tries = 0; n == 0 && tries <= s->stream_count; tries++) {
        st = next_stream(s, now_ns);
        if (!st)
            return 0;
        n = stream_cut(st, stripe, ret);
        s->cursor[st->care] = st;
        if (n == 0)
            continue;
        account(s, st, n);
        shaper_charge(s->shaper, n);
        shaper_charge(st->shaper, n);
    }
    return n;
}

size_t session_stripe_next(struct session *s, struct stripe *stripe, const uint8_t **ret,
                           uint64_t now_ns)
{
    size_t n;

    s->now_ns = now_ns;
    *ret = stripe->words;
    n = pull_urgent(s, stripe, stripe->words, sizeof(stripe->words), now_ns);
    if (!s->closed)
        n += pull_stream_words(s, stripe->words + n, sizeof(stripe->words) - n);
    if (n == 0 && !s->closed)
        n = next_copy(s, stripe, ret);
    if (n == 0 && !s->closed)
        n = next_frame(s, stripe, ret, now_ns);
    s->stats.wire_sent_bytes += n;
    return n;
}

size_t session_stripe_pull(struct session *s, struct stripe *stripe, uint8_t *out, size_t cap,
                           uint64_t now_ns)
{
    const uint8_t *data = NULL;
    size_t used = 0, n;

    while (cap - used >= WIRE_FRAME_MAX_BYTES &&
           (n = session_stripe_next(s, stripe, &data, now_ns)) > 0) {
        memcpy(out + used, data, n);
        used += n;
    }
    return used;
}

uint64_t session_output_deadline(const struct session *s)
{
    const struct stream *st;
    uint64_t deadline = UINT64_MAX;

    if (s->closed)
        return UINT64_MAX;
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        if (st->care != CARE_CONTROL && stream_has_data(st))
            deadline = MIN(deadline, MAX(shaper_deadline(s->shaper), shaper_deadline(st->shaper)));
        if (st->ack_owed && !st->dead)
            deadline = MIN(deadline, st->ack_told_ns + ACK_INTERVAL_NS);
    }
    return deadline;
}

bool session_wants_output(const struct session *s, uint64_t now_ns)
{
    const struct stripe *stripe;
    const struct stream *st;

    TAILQ_FOREACH(stripe, &s->stripes, entry)
    {
        if (stripe->goodbye_owed || (!s->closed && (stripe->pong_owed || stripe->ping_owed)))
            return true;
    }
    if (s->closed)
        return false;
    if (s->gone_owed.count > 0)
        return true;
    TAILQ_FOREACH(st, &s->streams, entry)
    {
        if (st->reset_owed || stream_ack_is_due(st, now_ns) ||
            (stream_has_data(st) && within_limits(s, st, now_ns)) ||
            (s->stripe_count > 1 &&
             (stream_owes_copies(st, session_all_slots(s)) || stream_is_late(st))))
            return true;
    }
    return false;
}
