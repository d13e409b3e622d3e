/* SPDX-License-Identifier: Apache-2.0 */
/* A stream's life: made, told, over, freed. Its bytes: stream_send.c, stream_receive.c. */
#include "netlink/session_internal.h"

#include <errno.h>

struct stream *stream_new(struct session *s, uint32_t id)
{
    struct stream *st = calloc(1, sizeof(*st));

    if (!st)
        return NULL;
    st->session = s;
    st->id = id;
    st->care = CARE_CONTROL;
    st->send_limit = s->config.peer_window_bytes;
    st->window = st->receive_limit_told = s->config.window_bytes;
    s->granted_bytes += st->window;
    TAILQ_INIT(&st->ranges);
    TAILQ_INIT(&st->readable);
    TAILQ_INIT(&st->early);
    TAILQ_INSERT_TAIL(&s->streams, st, entry);
    s->stream_count++;
    return st;
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
    stream_drop_ranges(st);
    stream_drop_segments(st);
    s->granted_bytes -= st->window;
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

/* --- the end ------------------------------------------------------------------------------- */

void stream_die(struct stream *st, uint64_t reason)
{
    if (st->dead)
        return;
    st->dead = true;
    st->reset_reason = reason;
    stream_drop_ranges(st);
    stream_drop_early(st);
    st->ack_owed = false;
    if (!st->reset_told)
        stream_note(st, EVENT_RESET);
}

void stream_on_reset(struct stream *st, uint64_t reason)
{
    st->reset_sent = st->reset_owed = false;
    /* A peer that knows the stream no more had everything: it frees only what is over both ways. */
    if (reason == WIRE_REASON_GONE && st->fin_sent && st->fin_received) {
        st->send_acked = st->send_end;
        st->fin_acked = true;
        st->ack_owed = false;
        stream_drop_ranges(st);
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
    st->shaper = NULL; /* its owner goes */
    if (st->events)
        TAILQ_REMOVE(&st->session->events, st, event_entry);
    st->events = 0;
    if (!st->dead)
        stream_skip(st);
    stream_collect(st);
}
