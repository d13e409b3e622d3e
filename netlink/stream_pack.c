/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Streams, the detour through the compressor: which ranges are worth it, what becomes of them. See session.h.
 *
 * A range is offered when it is complete. What the owner's compressor does not take at once waits on the
 * session's list of packables, and goes plain if a stripe asks for it before the compressor does.
 */
#include "netlink/session_internal.h"

#include <assert.h>
#include <string.h>

#include "core/base/wire.h"

enum {
    /* Below this a piece is worth neither the compressor's time nor the wait for more bytes. */
    PACK_LEAST_BYTES = 4096,
    /* After so many frames in a row that did not shrink, most go without a try: 7 of 8, then 15 of 16 ... 127 of
     * 128 while they still do not. */
    PACK_GIVE_UP = 4,
    PACK_FIRST_SKIP = 8,
    PACK_SKIP_DOUBLINGS = 4,
};

void range_unlist(struct range *r)
{
    if (r->packable)
        TAILQ_REMOVE(&r->stream->session->packables, r, pack_entry);
    r->packable = false;
}

static bool worth_packing(struct stream *st, const struct range *r)
{
    if (!st->session->ops->on_packable || st->packed_already || st->care == CARE_CONTROL ||
        r->length < PACK_LEAST_BYTES)
        return false;
    if (st->pack_failures >= PACK_GIVE_UP) {
        unsigned wait = PACK_FIRST_SKIP
                        << MIN(st->pack_failures - PACK_GIVE_UP, (unsigned)PACK_SKIP_DOUBLINGS);

        if (++st->pack_skips < wait)
            return false;
        st->pack_skips = 0;
    }
    return true;
}

/* Offers a closed range to the compressor. */
static bool offer(struct range *r)
{
    struct session *s = r->stream->session;
    struct packing *p = calloc(1, sizeof(*p));

    if (!p)
        return false;
    *p = (struct packing){.session = s, .range = r, .frame = r->frame, .length = r->length};
    p->data = r->frame + WIRE_HEADER_BYTES;
    if (!s->ops->on_packable(s->user, p)) {
        free(p);
        return false;
    }
    r->packing = p;
    r->state = RANGE_PACKING;
    LIST_INSERT_HEAD(&s->packings, p, entry);
    return true;
}

void range_seal(struct range *r)
{
    struct stream *st = r->stream;

    r->state = RANGE_CLOSED;
    r->wire_length = r->length;
    if (!worth_packing(st, r) || offer(r))
        return;
    r->packable = true;
    TAILQ_INSERT_TAIL(&st->session->packables, r, pack_entry);
}

static void offer_waiting(struct session *s)
{
    struct range *r;

    while ((r = TAILQ_FIRST(&s->packables)) && offer(r))
        range_unlist(r);
}

void session_packed(struct packing *p, const void *packed, size_t len)
{
    struct range *r = p->range;
    struct session *s = p->session;

    if (s)
        LIST_REMOVE(p, entry);
    if (!r) {
        free(p->frame);
    } else {
        assert(s); /* ranges end with their session */
        r->packing = NULL;
        r->state = RANGE_CLOSED;
        if (len > 0 && len < r->length) {
            memcpy(r->frame + WIRE_HEADER_BYTES, packed, len);
            r->wire_length = (uint32_t)len;
            r->state = RANGE_PACKED;
            s->stats.packed_raw_bytes += r->length;
            s->stats.packed_bytes += len;
            r->stream->pack_failures = 0;
        } else {
            r->stream->pack_failures++;
        }
    }
    free(p);
    if (s && !s->closed)
        offer_waiting(s);
}
