/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams of a session: ranges out, order and credit in. See session.h for the theory.
 *
 * Sender:   send_acked <= (ranges in flight or lost) <= send_next <= send_end, all of it in `send`.
 * Receiver: receive_read <= receive_next; `segments` lie beyond receive_next and below the limit told.
 * A FIN occupies the offset after the last byte: acknowledging end + 1 acknowledges it.
 */
#include "netlink/session_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/wire.h"

/* Frames up to this size of the control class travel on every stripe; see wants_copy(). */
enum { URGENT_COPY_BYTES = 8192 };

struct stream *stream_new(struct session *s, uint32_t id)
{
    struct stream *st = calloc(1, sizeof(*st));

    if (!st)
        return NULL;
    st->session = s;
    st->id = id;
    st->care = CARE_CONTROL;
    st->send_limit = s->config.peer_window_bytes;
    st->receive_limit_told = s->config.window_bytes;
    TAILQ_INIT(&st->ranges);
    TAILQ_INIT(&st->segments);
    TAILQ_INSERT_TAIL(&s->streams, st, entry);
    s->stream_count++;
    return st;
}

static void drop_ranges(struct stream *st)
{
    struct range *r;

    while ((r = TAILQ_FIRST(&st->ranges))) {
        TAILQ_REMOVE(&st->ranges, r, entry);
        free(r);
    }
    st->lost_ranges = 0;
}

static void drop_segments(struct stream *st)
{
    struct segment *g;

    while ((g = TAILQ_FIRST(&st->segments))) {
        TAILQ_REMOVE(&st->segments, g, entry);
        free(g);
    }
}

void stream_free(struct stream *st)
{
    struct session *s = st->session;

    for (int c = 0; c < CARE_CLASSES; c++) {
        if (s->cursor[c] == st)
            s->cursor[c] = NULL;
    }
    if (st->events)
        TAILQ_REMOVE(&s->events, st, event_entry);
    TAILQ_REMOVE(&s->streams, st, entry);
    s->stream_count--;
    drop_ranges(st);
    drop_segments(st);
    buffer_done(&st->send);
    buffer_done(&st->receive);
    free(st);
}

void stream_note(struct stream *st, unsigned events)
{
    if (st->released)
        return;
    if (!st->events)
        TAILQ_INSERT_TAIL(&st->session->events, st, event_entry);
    st->events |= events;
}

void stream_collect(struct stream *st)
{
    if (!st->released)
        return;
    if (st->dead ? !st->reset_owed && !st->reset_sent
                 : st->fin_acked && st->fin_received && !st->ack_owed)
        stream_free(st);
}

/* --- sending ------------------------------------------------------------------------------- */

size_t stream_room(const struct stream *st)
{
    uint64_t unsent = st->send_end - st->send_next;
    uint64_t held = st->send_end - st->send_acked;
    uint64_t cap = st->session->config.unsent_bytes;

    if (st->dead || st->end_wanted || unsent >= cap || held >= LIMIT_STREAM_WINDOW_BYTES)
        return 0;
    return (size_t)MIN(cap - unsent, LIMIT_STREAM_WINDOW_BYTES - held);
}

int stream_write(struct stream *st, const void *data, size_t len)
{
    int r;

    if (st->dead || st->end_wanted)
        return -EPIPE;
    if (len > stream_room(st)) {
        st->want_writable = true;
        return -EAGAIN;
    }
    r = buffer_append(&st->send, data, len);
    if (r < 0)
        return r;
    st->send_end += len;
    if (stream_room(st) == 0)
        st->want_writable = true;
    return 0;
}

void stream_end(struct stream *st)
{
    st->end_wanted = true;
}

bool stream_is_flushed(const struct stream *st)
{
    return st->send_acked == st->send_end && (!st->end_wanted || st->fin_acked);
}

uint64_t stream_sent_acked_bytes(const struct stream *st)
{
    return st->send_acked;
}

static bool has_new_data(const struct stream *st)
{
    if (st->send_next < st->send_end)
        return st->send_next < st->send_limit;
    return st->end_wanted && !st->fin_sent;
}

bool stream_has_data(const struct stream *st)
{
    return !st->dead && (st->lost_ranges > 0 || has_new_data(st));
}

static struct range *first_lost(struct stream *st)
{
    struct range *r;

    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (!r->stripe)
            return r;
    }
    assert(false);
    return NULL;
}

static struct range *cut_new(struct stream *st)
{
    uint64_t left = MIN(st->send_end, st->send_limit) - MIN(st->send_next, st->send_limit);
    struct range *r = malloc(sizeof(*r));

    if (!r)
        return NULL;
    r->carried = 0;
    r->offset = st->send_next;
    r->length = (uint32_t)MIN(left, LIMIT_FRAME_PAYLOAD_BYTES);
    st->send_next += r->length;
    r->fin = st->end_wanted && st->send_next == st->send_end;
    if (r->fin)
        st->fin_sent = true;
    TAILQ_INSERT_TAIL(&st->ranges, r, entry);
    if (st->want_writable && stream_room(st) > 0) {
        st->want_writable = false;
        stream_note(st, EVENT_WRITABLE);
    }
    return r;
}

static size_t put_range(const struct stream *st, const struct range *r, uint8_t *out)
{
    struct wire_header h = {.type = WIRE_DATA, .care = (uint8_t)st->care, .stream = st->id};

    h.offset = r->offset;
    h.length = h.raw_length = r->length;
    h.flags = r->fin ? WIRE_FLAG_FIN : 0;
    wire_put_header(out, &h);
    if (r->length > 0) /* a lone FIN has no bytes, and perhaps no buffer */
        memcpy(out + WIRE_HEADER_BYTES, buffer_data(&st->send) + (r->offset - st->send_acked),
               r->length);
    return WIRE_HEADER_BYTES + r->length;
}

size_t stream_cut(struct stream *st, struct stripe *stripe, uint8_t *out)
{
    struct range *r;

    if (st->lost_ranges > 0) {
        r = first_lost(st);
        st->lost_ranges--;
        st->session->stats.resent_bytes += r->length;
    } else {
        r = cut_new(st);
        if (!r)
            return 0;
    }
    r->stripe = stripe;
    r->carried = (uint16_t)(1u << stripe->slot);
    return put_range(st, r, out);
}

/* A stripe whose TCP lost a packet delivers nothing for a round trip or more, and an urgent word may be
 * behind it. So urgent words go on every stripe; the first to arrive counts, the others are dropped as
 * repetitions. Only small ones: the class is for words, not for data. */
static bool wants_copy(const struct stream *st, const struct range *r, unsigned slot)
{
    return st->care == CARE_CONTROL && !st->dead && r->stripe && r->length <= URGENT_COPY_BYTES &&
           !(r->carried & (1u << slot));
}

size_t stream_cut_copy(struct stream *st, struct stripe *stripe, uint8_t *out)
{
    struct range *r;

    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (wants_copy(st, r, stripe->slot)) {
            r->carried = (uint16_t)(r->carried | 1u << stripe->slot);
            return put_range(st, r, out);
        }
    }
    return 0;
}

bool stream_owes_copies(const struct stream *st, uint16_t all)
{
    const struct range *r;

    if (st->care != CARE_CONTROL || st->dead)
        return false;
    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (r->stripe && r->length <= URGENT_COPY_BYTES && (r->carried & all) != all)
            return true;
    }
    return false;
}

/* Ranges are acknowledged whole, except that a cumulative point may fall inside one that was sent
 * twice with another partner: then its rest stays in flight. */
static void ack_ranges(struct stream *st)
{
    struct range *r;

    while ((r = TAILQ_FIRST(&st->ranges))) {
        uint64_t end = r->offset + r->length;

        if (end > st->send_acked) {
            if (r->offset < st->send_acked) {
                r->length = (uint32_t)(end - st->send_acked);
                r->offset = st->send_acked;
            }
            return;
        }
        if (r->fin && !st->fin_acked) {
            if (r->length > 0) {
                r->length = 0;
                r->offset = end;
            }
            return;
        }
        if (!r->stripe)
            st->lost_ranges--;
        TAILQ_REMOVE(&st->ranges, r, entry);
        free(r);
    }
}

int stream_on_ack(struct stream *st, uint64_t acked, uint64_t limit, const char **ret_why)
{
    uint64_t sent = st->send_next + (st->fin_sent ? 1 : 0);
    uint64_t bytes = MIN(acked, st->send_next);

    if (st->dead)
        return 0;
    if (acked > sent) {
        *ret_why = "acknowledgement of bytes never sent";
        return -EPROTO;
    }
    if (limit > acked + LIMIT_STREAM_WINDOW_BYTES) {
        *ret_why = "credit beyond the limit";
        return -EPROTO;
    }
    st->send_limit = MAX(st->send_limit, limit);
    if (bytes > st->send_acked) {
        st->session->stats.goodput_sent_bytes += bytes - st->send_acked;
        buffer_consume(&st->send, (size_t)(bytes - st->send_acked));
        st->send_acked = bytes;
    }
    if (st->fin_sent && acked == sent)
        st->fin_acked = true;
    ack_ranges(st);
    if (stream_is_flushed(st) || (st->want_writable && stream_room(st) > 0)) {
        st->want_writable = false;
        stream_note(st, EVENT_WRITABLE);
    }
    return 0;
}

void stream_on_stripe_lost(struct stream *st, struct stripe *stripe)
{
    struct range *r;

    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (r->stripe == stripe) {
            r->stripe = NULL;
            st->lost_ranges++;
        }
    }
}

/* --- receiving ----------------------------------------------------------------------------- */

size_t stream_peek(const struct stream *st, const uint8_t **ret_data)
{
    if (buffer_len(&st->receive) > 0)
        *ret_data = buffer_data(&st->receive);
    return buffer_len(&st->receive);
}

void stream_consume(struct stream *st, size_t len)
{
    uint64_t window = st->session->config.window_bytes;

    buffer_consume(&st->receive, len);
    st->receive_read += len;
    /* Credit goes back in quarters of the window: often enough never to stall, seldom enough to be cheap. */
    if (st->receive_read + window >= st->receive_limit_told + window / 4)
        st->ack_owed = true;
}

bool stream_at_end(const struct stream *st)
{
    return st->fin_received && st->receive_read == st->receive_next;
}

size_t stream_put_ack(struct stream *st, uint8_t *out)
{
    struct wire_header h = {.type = WIRE_ACK, .stream = st->id, .length = 8};

    st->ack_owed = false;
    st->receive_limit_told =
        MAX(st->receive_limit_told, st->receive_read + st->session->config.window_bytes);
    h.offset = st->receive_next + (st->fin_received ? 1 : 0);
    wire_put_header(out, &h);
    put_be64(out + WIRE_HEADER_BYTES, st->receive_limit_told);
    return WIRE_HEADER_BYTES + 8;
}

static int take_in_order(struct stream *st, const uint8_t *data, uint64_t len)
{
    int r = buffer_append(&st->receive, data, (size_t)len);

    if (r < 0)
        return r;
    st->receive_next += len;
    st->session->stats.goodput_received_bytes += len;
    if (st->fin_known && st->receive_next == st->fin_offset)
        st->fin_received = true;
    return 0;
}

/* Moves the segments that now join into the readable bytes. */
static int join_segments(struct stream *st)
{
    struct segment *g;

    while ((g = TAILQ_FIRST(&st->segments)) && g->offset <= st->receive_next) {
        uint64_t end = g->offset + g->length;
        int r = 0;

        if (end > st->receive_next) {
            uint64_t skip = st->receive_next - g->offset;

            r = take_in_order(st, g->data + skip, g->length - skip);
        }
        if (r < 0)
            return r;
        TAILQ_REMOVE(&st->segments, g, entry);
        free(g);
    }
    return 0;
}

static int insert_segment(struct stream *st, struct segment *next, uint64_t offset,
                          const uint8_t *data, uint64_t len)
{
    struct segment *g = malloc(sizeof(*g) + len);

    if (!g)
        return -ENOMEM;
    *g = (struct segment){.offset = offset, .length = (uint32_t)len};
    memcpy(g->data, data, len);
    if (next)
        TAILQ_INSERT_BEFORE(next, g, entry);
    else
        TAILQ_INSERT_TAIL(&st->segments, g, entry);
    return 0;
}

/* Keeps what is new of [offset, offset+len), so that kept segments never overlap. What comes early mostly
 * comes last: the search starts at the tail. */
static int keep_segment(struct stream *st, uint64_t offset, const uint8_t *data, uint64_t len)
{
    struct segment *next = NULL, *before = TAILQ_LAST(&st->segments, segment_list);
    int r = 0;

    while (before && before->offset + before->length > offset) {
        next = before;
        before = TAILQ_PREV(before, segment_list, entry);
    }
    while (len > 0 && r == 0) {
        uint64_t n = len;

        if (next && next->offset <= offset) { /* known already */
            n = MIN(len, next->offset + next->length - offset);
            next = TAILQ_NEXT(next, entry);
        } else {
            if (next)
                n = MIN(len, next->offset - offset);
            r = insert_segment(st, next, offset, data, n);
        }
        offset += n;
        data += n;
        len -= n;
    }
    return r;
}

static const char *data_misfit(const struct stream *st, const struct wire_header *h)
{
    const struct segment *last = TAILQ_LAST(&st->segments, segment_list);
    uint64_t end = h->offset + h->raw_length;
    bool fin = h->flags & WIRE_FLAG_FIN;

    if (end > st->receive_limit_told)
        return "data beyond the credit granted";
    if (st->fin_known && (end > st->fin_offset || (fin && end != st->fin_offset)))
        return "data beyond the stream's end";
    if (fin && (end < st->receive_next || (last && end < last->offset + last->length)))
        return "end of stream before data already received";
    return NULL;
}

int stream_on_data(struct stream *st, const struct wire_header *h, const uint8_t *payload,
                   const char **ret_why)
{
    uint64_t offset = h->offset, len = h->raw_length;
    bool was_at_end = st->fin_received;
    uint64_t before = st->receive_next;
    int r = 0;

    if (st->dead)
        return 0;
    *ret_why = data_misfit(st, h);
    if (*ret_why)
        return -EPROTO;
    st->ack_owed = true;
    if (h->flags & WIRE_FLAG_FIN) {
        st->fin_known = true;
        st->fin_offset = offset + len;
    }
    if (offset > st->receive_next) {
        r = keep_segment(st, offset, payload, len);
    } else if (offset + len > st->receive_next) {
        uint64_t skip = st->receive_next - offset;

        r = take_in_order(st, payload + skip, len - skip);
        if (r == 0)
            r = join_segments(st);
    }
    if (st->fin_known && st->receive_next == st->fin_offset)
        st->fin_received = true;
    if (r == 0 && (st->receive_next != before || st->fin_received != was_at_end)) {
        if (st->released) /* nobody reads: throw away, keep the credit flowing */
            stream_consume(st, buffer_len(&st->receive));
        else
            stream_note(st, EVENT_READABLE);
    }
    return r;
}

/* --- the end ------------------------------------------------------------------------------- */

void stream_die(struct stream *st, uint64_t reason)
{
    if (st->dead)
        return;
    st->dead = true;
    st->reset_reason = reason;
    drop_ranges(st);
    drop_segments(st);
    buffer_done(&st->send);
    st->ack_owed = false;
    if (!st->reset_told)
        stream_note(st, EVENT_RESET);
}

void stream_on_reset(struct stream *st, uint64_t reason)
{
    st->reset_sent = st->reset_owed = false;
    /* A peer that knows the stream no more had everything: it frees only what is over both ways. */
    if (reason == WIRE_REASON_GONE && st->fin_sent && st->fin_received) {
        st->send_acked = st->send_next;
        buffer_clear(&st->send);
        st->fin_acked = true;
        st->ack_owed = false;
        drop_ranges(st);
        stream_note(st, EVENT_WRITABLE);
        return;
    }
    stream_die(st, reason);
}

void stream_reset(struct stream *st, enum wire_reason reason)
{
    st->reset_told = true;
    if (!st->dead) {
        stream_die(st, reason);
        if (!st->session->closed)
            st->reset_owed = true;
    }
    stream_release(st);
}

void stream_release(struct stream *st)
{
    bool over = st->dead || st->end_wanted;

    if (!over) {
        stream_reset(st, WIRE_REASON_NONE);
        return;
    }
    st->released = true;
    st->ops = NULL;
    if (st->events)
        TAILQ_REMOVE(&st->session->events, st, event_entry);
    st->events = 0;
    if (!st->dead && buffer_len(&st->receive) > 0)
        stream_consume(st, buffer_len(&st->receive));
    stream_collect(st);
}
