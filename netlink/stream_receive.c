/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, the receiving side: order, credit, acknowledgements. See session.h for the theory.
 *
 * receive_read <= receive_next; `segments` lie beyond receive_next and below the limit told. A FIN occupies
 * the offset after the last byte: acknowledging end + 1 acknowledges it.
 *
 * The window of a stream starts small and follows what its reader consumes in a round trip, so that a long
 * fat link fills and a thousand idle streams cost nothing; all windows of a session share one budget.
 */
#include "netlink/session_internal.h"

#include <errno.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

size_t stream_peek(const struct stream *st, const uint8_t **ret_data)
{
    if (buffer_len(&st->receive) > 0)
        *ret_data = buffer_data(&st->receive);
    return buffer_len(&st->receive);
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
    if (wanted > (double)st->window) {
        left = s->config.budget_bytes > s->granted_bytes ? s->config.budget_bytes - s->granted_bytes
                                                         : 0;
        more = MIN((uint64_t)wanted - st->window, left);
        st->window += more;
        s->granted_bytes += more;
    }
    st->consumed_bytes = 0;
    st->consumed_since_ns = s->now_ns;
}

void stream_consume(struct stream *st, size_t len)
{
    uint64_t window;

    buffer_consume(&st->receive, len);
    st->receive_read += len;
    widen_window(st, len);
    window = st->window;
    /* Credit goes back in quarters of the window: often enough never to stall, seldom enough to be cheap. */
    if (st->receive_read + window >= st->receive_limit_told + window / 4)
        st->ack_owed = st->credit_owed = true;
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
        st->segment_count--;
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
    st->segment_count++;
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
    if (st->segment_count > LIMIT_STREAM_RANGES)
        return "too many pieces out of order";
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
