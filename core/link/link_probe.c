/* SPDX-License-Identifier: Apache-2.0 */
#include "core/link/link_probe.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/random.h>

#include "core/base/clock.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    WATCH_MS = 100,
    GRACE_S = 30,
    RAMP_ROUND_TRIPS = 12, /* until the rate is found, on a long way */
};

/* One direction, measured over the last part of its time: half of what was asked for. */
struct span {
    uint64_t start_ns, half_ns, half_bytes, end_ns, end_bytes;
};

struct link_probe {
    TAILQ_ENTRY(link_probe) entry;
    struct link_probes *all;
    struct link_probe_result result;
    char peer[WIRE_NAME_BYTES];
    struct link_session *ls; /* held by the asking side */
    struct stream *stream;
    bool serving; /* the peer's side: frees itself */
    bool sending, back;
    unsigned seconds;
    uint64_t give_up_ns, received_bytes;
    struct span out, in;
    uv_timer_t watch;
    uint8_t chunk[CHUNK_BYTES];
};

struct link_probes {
    uv_loop_t *loop;
    struct peering *peering;
    TAILQ_HEAD(, link_probe) probes;
};

/* --- measuring ----------------------------------------------------------------------------- */

static void measure(struct span *s, uint64_t from_ns, uint64_t bytes, uint64_t now_ns)
{
    if (!s->start_ns)
        s->start_ns = now_ns;
    if (!s->half_ns && now_ns - s->start_ns >= from_ns) {
        s->half_ns = now_ns;
        s->half_bytes = bytes;
    }
    s->end_ns = now_ns;
    s->end_bytes = bytes;
}

static uint64_t rate_of(const struct span *s)
{
    uint64_t ns = s->half_ns ? s->end_ns - s->half_ns : s->end_ns - s->start_ns;
    uint64_t bytes = s->end_bytes - s->half_bytes;

    return ns ? (uint64_t)((double)bytes * (double)NS_PER_S / (double)ns) : 0;
}

/* --- the end ------------------------------------------------------------------------------- */

static void on_watch_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void let_go(struct link_probe *p)
{
    if (p->stream)
        stream_release(TAKE_PTR(p->stream));
    if (p->ls)
        peering_release(TAKE_PTR(p->ls));
}

static void probe_free(struct link_probe *p)
{
    TAILQ_REMOVE(&p->all->probes, p, entry);
    let_go(p);
    uv_close((uv_handle_t *)&p->watch, on_watch_closed);
}

static void finish(struct link_probe *p, int code, const char *why)
{
    if (p->result.done)
        return;
    p->result.done = true;
    if (code < 0)
        error_set(&p->result.err, code, "probe the link", NULL, "%s: %s", p->peer, why);
    p->result.received_bytes_s = rate_of(&p->in);
    uv_timer_stop(&p->watch);
    if (p->serving)
        probe_free(p);
    else
        let_go(p);
}

/* --- the stream ---------------------------------------------------------------------------- */

/* To the last byte of room: a stream that has some left does not say when there is more. */
static void say(struct link_probe *p)
{
    size_t n;

    while (p->sending && (n = MIN(stream_room(p->stream), (size_t)CHUNK_BYTES)) > 0) {
        if (stream_write(p->stream, p->chunk, n) < 0)
            return;
    }
}

static void end_sending(struct link_probe *p)
{
    p->sending = false;
    p->result.sent_bytes_s = rate_of(&p->out);
    stream_end(p->stream);
}

static void on_writable(void *user, struct stream *stream)
{
    struct link_probe *p = user;

    say(p);
    if (p->serving && !p->sending && stream_is_flushed(stream) && stream_at_end(stream))
        finish(p, 0, "");
}

static void on_readable(void *user, struct stream *stream)
{
    struct link_probe *p = user;
    const uint8_t *data = NULL;
    size_t n;

    while ((n = stream_peek(stream, &data)) > 0) {
        p->received_bytes += n;
        stream_consume(stream, n);
    }
    measure(&p->in, p->seconds * NS_PER_S / 2, p->received_bytes, clock_now_ns());
    if (!stream_at_end(stream))
        return;
    if (!p->serving) {
        finish(p, 0, "");
        return;
    }
    if (!p->back) {
        stream_end(p->stream);
        return;
    }
    p->sending = true;
    p->out.start_ns = clock_now_ns();
    say(p);
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct link_probe *p = user;

    (void)reason;
    if (p->ls && session_is_closed(stream_session(stream))) { /* the reason comes next */
        p->sending = false;
        stream_release(TAKE_PTR(p->stream));
        return;
    }
    finish(p, -ECONNRESET, "the peer ended it; does it run this release of ferry?");
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_reset = on_reset};

/* What was sent, all of the session's, and how long it takes to be at full speed; the side that serves has no session of
 * its own to ask. */
static uint64_t look(const struct link_probe *p, uint64_t *ret_ramp_ns)
{
    struct link_session_info info;

    *ret_ramp_ns = 0;
    if (!p->ls)
        return stream_sent_acked_bytes(p->stream);
    link_session_get_info(p->ls, &info);
    *ret_ramp_ns =
        MIN(RAMP_ROUND_TRIPS * info.tcp_min_rtt_us * 1000, LINK_PROBE_SECONDS_MAX * NS_PER_S);
    return info.stats.goodput_sent_bytes;
}

static void on_watch(uv_timer_t *timer)
{
    struct link_probe *p = timer->data;
    uint64_t now_ns = clock_now_ns(), span_ns = p->seconds * NS_PER_S, ramp_ns, sent;

    if (now_ns > p->give_up_ns) {
        finish(p, -ETIMEDOUT, "no end in sight; is the link up?");
        return;
    }
    if (!p->sending)
        return;
    sent = look(p, &ramp_ns);
    measure(&p->out, ramp_ns + span_ns / 2, sent, now_ns);
    if (now_ns - p->out.start_ns >= ramp_ns + span_ns)
        end_sending(p);
}

/* --- start --------------------------------------------------------------------------------- */

static struct link_probe *probe_new(struct link_probes *all, unsigned seconds)
{
    struct link_probe *p = calloc(1, sizeof(*p));

    if (!p)
        return NULL;
    p->all = all;
    p->seconds = seconds;
    p->give_up_ns = clock_now_ns() + (2 * seconds + GRACE_S) * NS_PER_S;
    if (getrandom(p->chunk, sizeof(p->chunk), 0) < 0)
        memset(p->chunk, 0xa5, sizeof(p->chunk));
    uv_timer_init(all->loop, &p->watch);
    p->watch.data = p;
    uv_timer_start(&p->watch, on_watch, WATCH_MS, WATCH_MS);
    TAILQ_INSERT_TAIL(&all->probes, p, entry);
    return p;
}

static struct link_probe *asked(const struct link_probes *all, const char *peer)
{
    struct link_probe *p;

    TAILQ_FOREACH(p, &all->probes, entry)
    {
        if (!p->serving && strcmp(p->peer, peer) == 0)
            return p;
    }
    return NULL;
}

struct link_probes *link_probes_new(uv_loop_t *loop, struct peering *peering)
{
    struct link_probes *all = calloc(1, sizeof(*all));

    if (!all)
        return NULL;
    all->loop = loop;
    all->peering = peering;
    TAILQ_INIT(&all->probes);
    return all;
}

void link_probes_free(struct link_probes *all)
{
    struct link_probe *p;

    if (!all)
        return;
    while ((p = TAILQ_FIRST(&all->probes)))
        probe_free(p);
    free(all);
}

int link_probe_start(struct link_probes *all, const char *peer, unsigned seconds,
                     enum link_probe_ways ways, struct error *err)
{
    struct link_probe *p = asked(all, peer);
    struct link_session *ls;
    int r;

    if (p && !p->result.done)
        return error_set(err, -EBUSY, "probe the link", "wait for its end",
                         "a probe of %s is running", peer);
    r = peering_dial(all->peering, peer, &ls, err);
    if (r < 0)
        return r;
    if (p)
        probe_free(p);
    p = probe_new(all, seconds);
    if (!p) {
        peering_release(ls);
        return error_set(err, -ENOMEM, "probe the link", NULL, "out of memory");
    }
    p->ls = ls;
    snprintf(p->peer, sizeof(p->peer), "%s", peer);
    r = peering_open(ls, CARE_BULK,
                     json_pack("{s:s, s:i, s:b}", "channel", "probe", "seconds", (int)seconds,
                               "back", ways == LINK_PROBE_THERE_AND_BACK),
                     &p->stream);
    if (r < 0) {
        probe_free(p);
        return error_set(err, r, "probe the link", NULL, "%s: %s", peer, strerror(-r));
    }
    stream_set_ops(p->stream, &stream_ops, p);
    p->sending = true;
    p->out.start_ns = clock_now_ns();
    say(p);
    return 0;
}

void link_probes_session_closed(struct link_probes *all, const struct link_session *ls,
                                const struct error *why)
{
    struct link_probe *p;

    if (!all) /* while ferryd starts */
        return;
    TAILQ_FOREACH(p, &all->probes, entry)
    {
        if (p->ls != ls)
            continue;
        finish(p, -ECONNRESET, "");
        error_set(&p->result.err, why->code, "probe the link", why->mend, "%s: %s: %s", p->peer,
                  why->what, why->why);
    }
}

bool link_probe_is_connected(const struct link_probes *all, const char *peer)
{
    const struct link_probe *p = asked(all, peer);

    return p && p->ls && link_session_is_up(p->ls);
}

const struct link_probe_result *link_probe_result(const struct link_probes *all, const char *peer)
{
    const struct link_probe *p = asked(all, peer);

    return p ? &p->result : NULL;
}

void link_probe_serve(struct link_probes *all, const json_t *label, struct stream *stream)
{
    json_int_t seconds = json_integer_value(json_object_get(label, "seconds"));
    struct link_probe *p;

    if (seconds < 1 || seconds > LINK_PROBE_SECONDS_MAX ||
        !(p = probe_new(all, (unsigned)seconds))) {
        stream_release(stream);
        return;
    }
    p->serving = true;
    p->back = !json_is_false(json_object_get(label, "back"));
    p->stream = stream;
    stream_set_ops(stream, &stream_ops, p);
}
