/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, the receiving side: order, credit, acknowledgements. See session.h for the theory.
 *
 * A frame's payload stays in the memory that it was received into, as a segment: first perhaps among the early
 * ones, which lie beyond receive_next and below the limit told, then among the readable ones, which are
 * [receive_read, receive_next) without gaps. A FIN occupies the offset after the last byte: acknowledging
 * end + 1 acknowledges it.
 *
 * The window of a stream starts small and follows what its reader consumes in a round trip, so that a long
 * fat link fills and a thousand idle streams cost nothing; all windows of a session share one budget.
 */
#include "netlink/session_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

enum {
    /* A smaller piece, or the smaller part of one, is copied behind the one before it, so that what a piece
     * costs beside its bytes is bounded by them, whatever the peer sends. */
    SMALL_PIECE_BYTES = 2048,
    COLLECT_BYTES = 8192,
};

/* --- segments ------------------------------------------------------------------------------ */

struct segment *segment_new(size_t cap)
{
    struct segment *g = malloc(sizeof(*g) + cap);

    if (g) /* not its bytes */
        *g = (struct segment){.cap = (uint32_t)cap};
    return g;
}

static uint64_t segment_end(const struct segment *g)
{
    return g->offset + g->length;
}

static void cut_front(struct segment *g, size_t len)
{
    g->offset += len;
    g->start += (uint32_t)len;
    g->length -= (uint32_t)len;
}

static void append(struct segment *g, const uint8_t *data, size_t len)
{
    memcpy(g->data + g->start + g->length, data, len);
    g->length += (uint32_t)len;
}

static void drop_all(struct segment_list *list)
{
    struct segment *g;

    while ((g = TAILQ_FIRST(list))) {
        TAILQ_REMOVE(list, g, entry);
        free(g);
    }
}

void stream_drop_early(struct stream *st)
{
    drop_all(&st->early);
    st->early_count = 0;
}

void stream_drop_segments(struct stream *st)
{
    stream_drop_early(st);
    drop_all(&st->readable);
}

/* --- reading ------------------------------------------------------------------------------- */

size_t stream_peek(const struct stream *st, const uint8_t **ret_data)
{
    const struct segment *g = TAILQ_FIRST(&st->readable);

    if (!g)
        return 0;
    *ret_data = g->data + g->start;
    return g->length;
}

size_t stream_peek_joined(struct stream *st, size_t want, const uint8_t **ret_data)
{
    size_t have = (size_t)MIN((uint64_t)want, st->receive_next - st->receive_read);
    struct segment *first = TAILQ_FIRST(&st->readable), *joined, *g;

    if (!first || first->length >= have)
        return stream_peek(st, ret_data);
    joined = segment_new(have);
    if (!joined) /* it looks as if no more had come; the next bytes bring the caller back */
        return stream_peek(st, ret_data);
    joined->offset = first->offset;
    while (joined->length < have) {
        size_t n;

        g = TAILQ_FIRST(&st->readable);
        n = MIN(have - joined->length, (size_t)g->length);
        append(joined, g->data + g->start, n);
        cut_front(g, n);
        if (g->length == 0) {
            TAILQ_REMOVE(&st->readable, g, entry);
            free(g);
        }
    }
    TAILQ_INSERT_HEAD(&st->readable, joined, entry);
    return stream_peek(st, ret_data);
}

/* Room for what the sender can have under way while credit travels: four times what is read in that time,
 * looked at twice in it, because a sender that starts doubles its rate meanwhile. */
static void widen_window(struct stream *st, size_t len)
{
    struct session *s = st->session;
    uint64_t travel_ns = s->stats.rtt_ns + ACK_INTERVAL_NS,
             elapsed_ns = s->now_ns - st->consumed_since_ns;
    double wanted;
    uint64_t more, left;

    st->consumed_bytes += len;
    if (elapsed_ns < travel_ns / 2)
        return;
    wanted = 4 * (double)st->consumed_bytes * (double)travel_ns / (double)elapsed_ns;
    wanted = MIN(wanted, (double)s->config.window_max_bytes);
    left = s->config.budget_bytes - MIN(s->granted_bytes, s->config.budget_bytes);
    /* No window is larger than half of what it leaves (Choudhury and Hahne's dynamic threshold): credit that was given cannot
     * be taken back, and streams that come later, or have been small, shall find some. */
    if (wanted > (double)st->window && left / 2 > st->window) {
        more = MIN((uint64_t)wanted - st->window, (left - 2 * st->window) / 3);
        st->window += more;
        s->granted_bytes += more;
    }
    st->consumed_bytes = 0;
    st->consumed_since_ns = s->now_ns;
}

void stream_consume(struct stream *st, size_t len)
{
    struct segment *g = TAILQ_FIRST(&st->readable);
    uint64_t window;

    if (len == 0)
        return;
    assert(g && len <= g->length);
    cut_front(g, len);
    if (g->length == 0) {
        TAILQ_REMOVE(&st->readable, g, entry);
        free(g);
    }
    st->receive_read += len;
    widen_window(st, len);
    window = st->window;
    /* Credit goes back in quarters of the window: often enough never to stall, seldom enough to be cheap. */
    if (st->receive_read + window >= st->receive_limit_told + window / 4)
        st->ack_owed = st->credit_owed = true;
}

void stream_skip(struct stream *st)
{
    const struct segment *g;

    while ((g = TAILQ_FIRST(&st->readable)))
        stream_consume(st, g->length);
}

bool stream_at_end(const struct stream *st)
{
    return st->fin_received && st->receive_read == st->receive_next;
}

bool stream_ack_is_due(const struct stream *st, uint64_t now_ns)
{
    if (!st->ack_owed || st->dead)
        return false;
    return st->fin_received || st->credit_owed || !st->ack_told_ns ||
           st->receive_next - st->acked_told >= ACK_BYTES ||
           now_ns - st->ack_told_ns >= ACK_INTERVAL_NS;
}

size_t stream_put_ack(struct stream *st, uint8_t *out)
{
    struct wire_header h = {.type = WIRE_ACK, .stream = st->id, .length = 8};

    st->ack_owed = st->credit_owed = false;
    st->ack_told_ns = st->session->now_ns;
    st->acked_told = st->receive_next;
    st->receive_limit_told = MAX(st->receive_limit_told, st->receive_read + st->window);
    h.offset = st->receive_next + (st->fin_received ? 1 : 0);
    wire_put_header(out, &h);
    put_be64(out + WIRE_HEADER_BYTES, st->receive_limit_told);
    return WIRE_HEADER_BYTES + 8;
}

/* The next bytes of the stream: @g is taken, or its bytes are and it is freed. */
static int take_in_order(struct stream *st, struct segment *g)
{
    struct segment *tail = TAILQ_LAST(&st->readable, segment_list);
    uint32_t len = g->length;

    if (len >= SMALL_PIECE_BYTES && len >= g->cap / 2) {
        TAILQ_INSERT_TAIL(&st->readable, g, entry);
    } else {
        if (!tail || tail->cap - tail->start - tail->length < len) {
            tail = segment_new(MAX((uint32_t)COLLECT_BYTES, len));
            if (!tail)
                return -ENOMEM;
            tail->offset = g->offset;
            TAILQ_INSERT_TAIL(&st->readable, tail, entry);
        }
        append(tail, g->data + g->start, len);
        free(g);
    }
    st->receive_next += len;
    st->session->stats.goodput_received_bytes += len;
    if (st->fin_known && st->receive_next == st->fin_offset)
        st->fin_received = true;
    return 0;
}

/* Moves the early segments that now join to the readable ones. */
static int join_early(struct stream *st)
{
    struct segment *g;
    int r;

    while ((g = TAILQ_FIRST(&st->early)) && g->offset <= st->receive_next) {
        TAILQ_REMOVE(&st->early, g, entry);
        st->early_count--;
        cut_front(g, (size_t)MIN(st->receive_next - g->offset, (uint64_t)g->length));
        if (g->length > 0 && take_in_order(st, g) == 0)
            continue;
        r = g->length > 0 ? -ENOMEM : 0;
        free(g);
        if (r < 0)
            return r;
    }
    return 0;
}

static void insert_early(struct stream *st, struct segment *next, struct segment *g)
{
    st->early_count++;
    if (next)
        TAILQ_INSERT_BEFORE(next, g, entry);
    else
        TAILQ_INSERT_TAIL(&st->early, g, entry);
}

/* A part of @from as a segment of its own. */
static struct segment *copy_part(const struct segment *from, uint64_t offset, size_t len)
{
    struct segment *g = segment_new(len);

    if (g) {
        g->offset = offset;
        append(g, from->data + from->start + (offset - from->offset), len);
    }
    return g;
}

/* Keeps what is new of @g, so that early segments never overlap. What comes early mostly comes last: the
 * search starts at the tail. Takes @g (*ret_taken) when all of it is new. */
static int keep_early(struct stream *st, struct segment *g, bool *ret_taken)
{
    struct segment *next = NULL, *before = TAILQ_LAST(&st->early, segment_list), *part;
    uint64_t at = g->offset, end = segment_end(g), until;

    while (before && segment_end(before) > at) {
        next = before;
        before = TAILQ_PREV(before, segment_list, entry);
    }
    if (!next || next->offset >= end) {
        insert_early(st, next, g);
        *ret_taken = true;
        return 0;
    }
    for (; at < end; at = until) {
        if (next && next->offset <= at) { /* known already */
            until = MIN(end, segment_end(next));
            next = TAILQ_NEXT(next, entry);
            continue;
        }
        until = next ? MIN(end, next->offset) : end;
        part = copy_part(g, at, (size_t)(until - at));
        if (!part)
            return -ENOMEM;
        insert_early(st, next, part);
    }
    return 0;
}

static const char *data_misfit(const struct stream *st, const struct wire_header *h)
{
    const struct segment *last = TAILQ_LAST(&st->early, segment_list);
    uint64_t end = h->offset + h->raw_length;
    bool fin = h->flags & WIRE_FLAG_FIN;

    if (end > st->receive_limit_told)
        return "data beyond the credit granted";
    if (st->early_count > LIMIT_STREAM_RANGES)
        return "too many pieces out of order";
    if (st->fin_known && (end > st->fin_offset || (fin && end != st->fin_offset)))
        return "data beyond the stream's end";
    if (fin && (end < st->receive_next || (last && end < segment_end(last))))
        return "end of stream before data already received";
    return NULL;
}

/* Puts @g where it belongs. Takes it (*ret_taken), or leaves it to the caller. */
static int place(struct stream *st, struct segment *g, bool *ret_taken)
{
    int r;

    if (g->offset > st->receive_next)
        return keep_early(st, g, ret_taken);
    if (segment_end(g) <= st->receive_next)
        return 0; /* a repetition */
    cut_front(g, (size_t)(st->receive_next - g->offset));
    r = take_in_order(st, g);
    *ret_taken = r == 0;
    return r < 0 ? r : join_early(st);
}

int stream_on_data(struct stream *st, const struct wire_header *h, struct segment **segment,
                   const char **ret_why)
{
    bool was_at_end = st->fin_received, taken = false;
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
        st->fin_offset = h->offset + h->raw_length;
    }
    if (*segment) {
        (*segment)->offset = h->offset;
        (*segment)->length = h->raw_length;
        r = place(st, *segment, &taken);
        if (taken)
            *segment = NULL;
    }
    if (st->fin_known && st->receive_next == st->fin_offset)
        st->fin_received = true;
    if (r == 0 && (st->receive_next != before || st->fin_received != was_at_end)) {
        if (st->released) /* nobody reads: throw away, keep the credit flowing */
            stream_skip(st);
        else
            stream_note(st, EVENT_READABLE);
    }
    return r;
}
