/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sessions: their start and end, their stripes, what their owner is told. See session.h for the theory.
 * Frames that go out: session_send.c; frames that come in: session_receive.c.
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

void session_set_unsent_bytes(struct session *s, uint32_t bytes)
{
    s->config.unsent_bytes = bytes;
}

void session_set_frame_bytes(struct session *s, uint32_t bytes)
{
    s->config.frame_bytes = bytes;
}

/* --- the end of a session ------------------------------------------------------------------ */

void session_close_with(struct session *s, enum wire_reason reason, const char *what,
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

int session_protocol_fault(struct session *s, const char *why)
{
    if (!s->closed)
        say_goodbye(s, WIRE_REASON_PROTOCOL, why);
    session_close_with(s, WIRE_REASON_PROTOCOL, "read the peer's frames", why);
    return -EPROTO;
}

void session_close(struct session *s, enum wire_reason reason, const char *text)
{
    if (s->closed)
        return;
    say_goodbye(s, reason, text);
    s->closed_told = true; /* the owner knows: it asked */
    session_close_with(s, reason, "close the session", text);
}

void session_fail(struct session *s, enum wire_reason reason, const char *why)
{
    if (s->closed)
        return;
    say_goodbye(s, reason, why);
    session_close_with(s, reason, "keep the session alive", why);
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
    free(stripe->segment);
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
    ret->buffered_bytes += st->receive_next - st->receive_read;
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
    if (st->receive_next > st->receive_read || st->fin_received)
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

void stream_set_packed(struct stream *st)
{
    st->packed_already = true;
}

uint32_t stream_id(const struct stream *st)
{
    return st->id;
}

struct session *stream_session(const struct stream *st)
{
    return st->session;
}
