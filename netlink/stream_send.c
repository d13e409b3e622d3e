/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, the sending side: what was written becomes ranges, ranges become frames. See session.h.
 *
 * A range is one frame in one piece of memory, header room in front: written into, perhaps compressed in
 * place, handed to TLS from there, kept until it is acknowledged, handed out again when its stripe is lost.
 *
 *   written --> OPEN --full, or wanted--> CLOSED ------------------------------------> sent --> acknowledged
 *                                            \--> PACKING --> PACKED (or CLOSED) --/     ^--lost--|
 */
#include "netlink/session_internal.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/wire.h"

/* Frames up to this size of the control class travel on every stripe; see wants_copy(). */
enum { URGENT_COPY_BYTES = 8192 };

#define LATE_SLACK_NS (30 * NS_PER_MS)

/* What may wait on a stream, in time, and at least. */
#define QUEUE_NS (20 * NS_PER_MS)
#define QUEUE_LEAST_BYTES (64u * 1024u)

enum {
    SMALL_FRAME_BYTES = 512,
    LARGE_WRITE_BYTES =
        4096, /* whoever writes this much writes more: room for a whole frame at once */
};

/* --- ranges -------------------------------------------------------------------------------- */

static void free_range(struct range *r)
{
    struct stream *st = r->stream;

    range_unlist(r);
    if (st->first_unsent == r)
        st->first_unsent = TAILQ_NEXT(r, entry);
    if (!r->sent)
        st->unsent_bytes -= r->length;
    else if (!r->stripe)
        st->lost_ranges--;
    st->session->held_bytes -= r->length;
    st->range_count--;
    TAILQ_REMOVE(&st->ranges, r, entry);
    if (r->packing)
        r->packing->range =
            NULL; /* the compressor still reads the frame: it is freed with the job */
    else
        free(r->frame);
    free(r);
}

void stream_drop_ranges(struct stream *st)
{
    struct range *r;

    while ((r = TAILQ_FIRST(&st->ranges)))
        free_range(r);
}

static struct range *new_range(struct stream *st, uint64_t offset, size_t cap)
{
    struct range *r = calloc(1, sizeof(*r));

    if (r)
        r->frame = malloc(WIRE_HEADER_BYTES + cap);
    if (!r || !r->frame) {
        free(r);
        return NULL;
    }
    r->stream = st;
    r->offset = offset;
    r->cap = (uint32_t)cap;
    r->state = RANGE_OPEN;
    TAILQ_INSERT_TAIL(&st->ranges, r, entry);
    st->range_count++;
    if (!st->first_unsent)
        st->first_unsent = r;
    return r;
}

/* A whole range is shorter than what any window leaves open, so that credit never falls inside one for good. */
static size_t range_bytes_max(const struct stream *st)
{
    const struct session_config *c = &st->session->config;
    size_t most =
        c->frame_bytes ? MIN(c->frame_bytes, LIMIT_FRAME_PAYLOAD_BYTES) : LIMIT_FRAME_PAYLOAD_BYTES;

    return MAX(MIN(most, (size_t)c->peer_window_bytes / 4), (size_t)1);
}

static int widen(struct range *r, size_t most)
{
    size_t cap = MIN(MAX((size_t)r->cap * 4, (size_t)SMALL_FRAME_BYTES), most);
    uint8_t *frame = realloc(r->frame, WIRE_HEADER_BYTES + cap);

    if (!frame)
        return -ENOMEM;
    r->frame = frame;
    r->cap = (uint32_t)cap;
    return 0;
}

/* --- writing ------------------------------------------------------------------------------- */

uint64_t session_queue_bytes(uint64_t rate_bytes_s)
{
    return MAX(rate_bytes_s * QUEUE_NS / NS_PER_S, (uint64_t)QUEUE_LEAST_BYTES);
}

static uint64_t within_limit(uint64_t cap, const struct shaper *limit)
{
    return limit && limit->rate_bytes_s ? MIN(cap, session_queue_bytes(limit->rate_bytes_s)) : cap;
}

size_t stream_room(const struct stream *st)
{
    const struct session *s = st->session;
    uint64_t held = st->send_end - st->send_acked, cap = s->config.unsent_bytes, room, left;

    cap = within_limit(within_limit(cap, s->shaper), st->shaper);
    if (st->dead || st->end_wanted || st->unsent_bytes >= cap || held >= LIMIT_STREAM_WINDOW_BYTES)
        return 0;
    room = MIN(cap - st->unsent_bytes, LIMIT_STREAM_WINDOW_BYTES - held);
    /* Words must get through even when data fills what the session may hold, and no stream's data holds more than it
     * leaves to the others'. */
    if (st->care != CARE_CONTROL && s->config.budget_bytes) {
        left = s->config.budget_bytes - MIN(s->held_bytes, s->config.budget_bytes);
        room = MIN(room, (left - MIN(held, left)) / 2);
    }
    return (size_t)room;
}

static int write_range(struct stream *st, const uint8_t *data, size_t len, size_t *ret_used)
{
    struct range *r = TAILQ_LAST(&st->ranges, range_list);
    size_t most = range_bytes_max(st), n;

    if (!r || r->state != RANGE_OPEN || r->length >= most) {
        r = new_range(st, st->send_end,
                      len < LARGE_WRITE_BYTES ? MIN(MAX(len, (size_t)SMALL_FRAME_BYTES), most)
                                              : most);
        if (!r)
            return -ENOMEM;
    }
    if (r->length == r->cap && widen(r, most) < 0)
        return -ENOMEM;
    n = MIN(len, (size_t)(MIN((size_t)r->cap, most) - r->length));
    memcpy(r->frame + WIRE_HEADER_BYTES + r->length, data, n);
    r->length += (uint32_t)n;
    st->send_end += n;
    st->unsent_bytes += n;
    st->session->held_bytes += n;
    if (r->length >= most)
        range_seal(r);
    *ret_used = n;
    return 0;
}

int stream_write(struct stream *st, const void *data, size_t len)
{
    const uint8_t *from = data;
    size_t n = 0;

    if (st->dead || st->end_wanted)
        return -EPIPE;
    if (len > stream_room(st)) {
        st->want_writable = true;
        return -EAGAIN;
    }
    for (; len > 0; from += n, len -= n) {
        int r = write_range(st, from, len, &n);

        if (r < 0)
            return r;
    }
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

/* --- sending ------------------------------------------------------------------------------- */

static bool within_credit(const struct stream *st, const struct range *r)
{
    return r->length == 0 || r->offset + r->length <= st->send_limit;
}

/* The part of an open range that credit allows becomes a range of its own. */
static bool split(struct range *r)
{
    struct stream *st = r->stream;
    size_t keep = (size_t)(st->send_limit - r->offset);
    struct range *rest = new_range(st, r->offset + keep, r->length - keep);

    if (!rest)
        return false;
    TAILQ_REMOVE(&st->ranges, rest, entry);
    TAILQ_INSERT_AFTER(&st->ranges, r, rest, entry);
    rest->length = rest->wire_length = r->length - (uint32_t)keep;
    rest->state = r->state;
    memcpy(rest->frame + WIRE_HEADER_BYTES, r->frame + WIRE_HEADER_BYTES + keep, rest->length);
    r->length = r->wire_length = (uint32_t)keep;
    r->state = RANGE_CLOSED;
    range_unlist(r);
    return true;
}

/* The end without bytes of its own needs a range too. */
static void add_lone_fin(struct stream *st)
{
    struct range *r;

    if (!st->end_wanted || st->fin_sent || st->first_unsent)
        return;
    r = new_range(st, st->send_end, 0);
    if (r)
        r->state = RANGE_CLOSED;
}

/* Credit that ends inside a range: more is on its way unless nothing else is under way. */
static bool may_split(const struct stream *st, const struct range *r)
{
    return r->offset < st->send_limit && r->state != RANGE_PACKED && TAILQ_FIRST(&st->ranges) == r;
}

/* Peers bound what they keep out of order by pieces: small ones wait until they are large. */
static bool too_many_pieces(const struct stream *st, const struct range *r)
{
    return r->state == RANGE_OPEN && st->range_count >= LIMIT_STREAM_RANGES &&
           r->length < range_bytes_max(st);
}

/* The first range that was never sent and may go now; NULL: none. */
static struct range *next_new(const struct stream *st)
{
    struct range *r = st->first_unsent;

    while (r && (r->sent || r->state == RANGE_PACKING))
        r = TAILQ_NEXT(r, entry);
    if (!r || too_many_pieces(st, r) || (!within_credit(st, r) && !may_split(st, r)))
        return NULL;
    return r;
}

/* The same, made ready: closed, cut to the credit. NULL also when it went to the compressor instead. */
static struct range *take_new(struct stream *st)
{
    struct range *r;

    add_lone_fin(st);
    r = next_new(st);
    if (!r || (!within_credit(st, r) && !split(r)))
        return NULL;
    if (r->state == RANGE_OPEN)
        range_seal(r);
    return r->state == RANGE_PACKING ? NULL : r;
}

static struct range *first_lost(struct stream *st)
{
    struct range *r;

    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (r->sent && !r->stripe)
            return r;
    }
    assert(false);
    return NULL;
}

bool stream_has_data(const struct stream *st)
{
    return !st->dead && (st->lost_ranges > 0 || next_new(st) ||
                         (st->end_wanted && !st->fin_sent && !st->first_unsent));
}

static size_t put_header(const struct stream *st, struct range *r, const uint8_t **ret)
{
    struct wire_header h = {.type = WIRE_DATA, .care = (uint8_t)st->care, .stream = st->id};

    h.offset = r->offset;
    h.length = r->wire_length;
    h.raw_length = r->length;
    h.flags =
        (uint8_t)((r->fin ? WIRE_FLAG_FIN : 0) | (r->state == RANGE_PACKED ? WIRE_FLAG_ZSTD : 0));
    wire_put_header(r->frame, &h);
    *ret = r->frame;
    return WIRE_HEADER_BYTES + r->wire_length;
}

static void note_sent(struct stream *st, struct range *r)
{
    r->sent = true;
    r->fin = st->end_wanted && r->offset + r->length == st->send_end && !TAILQ_NEXT(r, entry);
    if (r->fin)
        st->fin_sent = true;
    range_unlist(r);
    st->unsent_bytes -= r->length;
    while (st->first_unsent && st->first_unsent->sent)
        st->first_unsent = TAILQ_NEXT(st->first_unsent, entry);
    if (st->want_writable && stream_room(st) > 0) {
        st->want_writable = false;
        stream_note(st, EVENT_WRITABLE);
    }
}

size_t stream_cut(struct stream *st, struct stripe *stripe, const uint8_t **ret)
{
    struct range *r;

    if (st->lost_ranges > 0) {
        r = first_lost(st);
        st->lost_ranges--;
        st->session->stats.resent_bytes += r->length;
    } else {
        r = take_new(st);
        if (!r)
            return 0;
        note_sent(st, r);
    }
    r->stripe = stripe;
    r->carried = (uint16_t)(1u << stripe->slot);
    r->sent_ns = st->session->now_ns;
    return put_header(st, r, ret);
}

/* Late: not acknowledged well after a round trip. */
static bool is_late(const struct range *r)
{
    const struct session *s = r->stream->session;

    return r->sent && r->stripe && s->stats.rtt_ns &&
           s->now_ns - r->sent_ns > s->stats.rtt_ns * 3 / 2 + LATE_SLACK_NS;
}

bool stream_is_late(const struct stream *st)
{
    const struct range *first = TAILQ_FIRST(&st->ranges);

    return !st->dead && first && is_late(first) && !(first->carried & (first->carried - 1));
}

/* The oldest range holds up all that came after it. A stripe delivers in order: what is as old on the same
 * stripe waits there too (BBR looks at its round trip and sends next to nothing, or TCP repairs a loss).
 * Each goes once more, on another stripe. */
size_t stream_cut_late(struct stream *st, struct stripe *stripe, const uint8_t **ret)
{
    const struct range *first = TAILQ_FIRST(&st->ranges);
    struct range *r;

    if (st->dead || !first || !is_late(first) || first->stripe == stripe)
        return 0;
    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (r->stripe != first->stripe)
            continue;
        if (!is_late(r))
            return 0;
        if (r->carried & (r->carried - 1)) /* a second stripe has it */
            continue;
        r->carried = (uint16_t)(r->carried | 1u << stripe->slot);
        st->session->stats.resent_bytes += r->length;
        return put_header(st, r, ret);
    }
    return 0;
}

/* A stripe whose TCP lost a packet delivers nothing for a round trip or more, and an urgent word may be
 * behind it. So urgent words go on every stripe; the first to arrive counts, the others are dropped as
 * repetitions. Only small ones: the class is for words, not for data. */
static bool wants_copy(const struct range *r, unsigned slot)
{
    return r->stripe && r->length <= URGENT_COPY_BYTES && !(r->carried & (1u << slot));
}

size_t stream_cut_copy(struct stream *st, struct stripe *stripe, const uint8_t **ret)
{
    struct range *r;

    if (st->care != CARE_CONTROL || st->dead)
        return 0;
    TAILQ_FOREACH(r, &st->ranges, entry)
    {
        if (wants_copy(r, stripe->slot)) {
            r->carried = (uint16_t)(r->carried | 1u << stripe->slot);
            return put_header(st, r, ret);
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

/* --- what the peer says -------------------------------------------------------------------- */

int stream_on_ack(struct stream *st, uint64_t acked, uint64_t limit, const char **ret_why)
{
    uint64_t fin_offset = st->send_end + (st->fin_sent ? 1 : 0);
    uint64_t bytes = MIN(acked, st->send_end);
    struct range *r;

    if (st->dead)
        return 0;
    if (acked > (st->first_unsent ? st->first_unsent->offset : fin_offset)) {
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
        st->send_acked = bytes;
    }
    if (st->fin_sent && acked == fin_offset)
        st->fin_acked = true;
    /* A point inside a range leaves all of it in flight: it would be sent again whole. */
    while ((r = TAILQ_FIRST(&st->ranges)) && r->sent && r->offset + r->length <= st->send_acked &&
           (!r->fin || st->fin_acked))
        free_range(r);
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
