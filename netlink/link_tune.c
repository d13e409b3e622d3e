/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a session does to follow its link: looks at its connections' TCP_INFO, asks the pacer, and sets what
 * each connection may send and hold; how large frames are; what `ferry link` shows.
 */
#include "netlink/link_private.h"

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "netlink/tcp_info.h"

/* What a stripe may hold unsent, in time: an urgent frame waits for it. Longer than a busy loop's turn; and on a host
 * whose processors are all busy, where the loop's turn comes late, as much longer as it takes. */
#define UNSENT_NS (4 * NS_PER_MS)
#define UNSENT_MOST_NS (40 * NS_PER_MS)
#define FRAME_NS (5 * NS_PER_MS)
#define UNSENT_LEAST_BYTES (16u * 1024u)
/* What may wait on a stream before the rate is known. */
#define QUEUE_FIRST_BYTES (256u * 1024u)
#define FRAME_LEAST_BYTES (8u * 1024u)
/* Bulk has begun when so many ticks in a row found more to send; it has ended after a while without. */
#define BULK_TICKS 2u
#define BULK_END_NS (1 * NS_PER_S)
/* Without a loss for this long, at a rate that was found: the line is clean. */
#define CLEAN_NS (2 * NS_PER_S)
/* On a shorter way every congestion control fills the link, and pacing by timers costs. */
#define LONG_RTT_NS (2 * NS_PER_MS)

/* How many ticks' memory there is of stripes that ran dry, and from which share on they hold more, or less again. */
enum { DRY_TICKS = 32, DRY_OFTEN_PERMILLE = 150, DRY_SELDOM_PERMILLE = 50 };
/* So much longer than TCP knows the way to be misleads BBR; but it is kept where more packets than this are lost, in so
 * many of the latest eight seconds: a start, a cut or a burst of others' lose many, too, but once. */
enum { LONGER_PERCENT = 125, LOSSY_PERMILLE = 2, LOSSY_SECONDS = 4 };

static uint64_t bytes_in(uint64_t rate_bytes_s, uint64_t ns)
{
    return (uint64_t)((double)rate_bytes_s * (double)ns / (double)NS_PER_S);
}

/* Adds up the connections. False: none is open. @ret_held: each has something to send. */
static bool look(struct link_session *ls, struct pacer_sample *sample, bool *ret_held)
{
    uint64_t rtt_us = 0, rtt_min_us = UINT64_MAX;
    struct stripe_tcp_info info;
    struct connection *c;
    unsigned n = 0;

    *ret_held = true;
    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        if (c->state != CONNECTION_OPEN)
            continue;
        tcp_info_read(c->fd, &info);
        /* 32 bits that go round */
        ls->delivered_bytes +=
            (uint64_t)(info.delivered_segments - c->delivered_segments) * info.segment_bytes;
        ls->retransmits += info.retransmits - c->retransmits;
        ls->segments_out += info.segments_out - c->segments_out;
        c->delivered_segments = info.delivered_segments;
        c->retransmits = info.retransmits;
        c->segments_out = info.segments_out;
        *ret_held = *ret_held && info.unsent_bytes > 0;
        if (info.min_rtt_us == 0)
            continue;
        rtt_us += info.rtt_us;
        rtt_min_us = MIN(rtt_min_us, info.min_rtt_us);
        n++;
    }
    if (n == 0)
        return false;
    sample->rtt_ns = rtt_us * 1000 / n;
    sample->rtt_min_ns = rtt_min_us * 1000;
    sample->delivered_bytes = ls->delivered_bytes;
    ls->rtt_ns = sample->rtt_ns;
    ls->rtt_min_ns = sample->rtt_min_ns;
    return true;
}

/* It is the line that holds things up, not a limit or a turn of the loop. */
static bool sockets_are_full(const struct link_session *ls)
{
    const struct connection *c;

    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        if (c->state == CONNECTION_OPEN && !(c->poll_events & UV_WRITABLE))
            return false;
    }
    return true;
}

/* Has a connection run dry since the last look, though there was more to send? */
static bool take_dry(struct link_session *ls)
{
    struct connection *c;
    bool dry = false;

    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        dry |= c->ran_dry;
        c->ran_dry = false;
    }
    return dry;
}

/* More where stripes run dry again and again; an urgent frame should not wait longer for what was a moment's. */
static void follow_lateness(struct link_session *ls, bool dry)
{
    uint64_t ns = ls->unsent_ns;

    ls->dry_permille += ((dry ? 1000 : 0) - ls->dry_permille) / DRY_TICKS;
    if (dry && ls->dry_permille > DRY_OFTEN_PERMILLE)
        ns = ns / 4 * 5;
    else if (ls->dry_permille < DRY_SELDOM_PERMILLE)
        ns -= ns / DRY_TICKS;
    ls->unsent_ns = MAX(MIN(ns, UNSENT_MOST_NS), UNSENT_NS);
}

static void measure_goodput(struct link_session *ls, uint64_t elapsed_ns)
{
    struct session_stats stats;

    session_get_stats(ls->engine, &stats);
    ls->sent_bytes_s = (stats.goodput_sent_bytes - ls->goodput_sent_bytes) * NS_PER_S / elapsed_ns;
    ls->received_bytes_s =
        (stats.goodput_received_bytes - ls->goodput_received_bytes) * NS_PER_S / elapsed_ns;
    ls->goodput_sent_bytes = stats.goodput_sent_bytes;
    ls->goodput_received_bytes = stats.goodput_received_bytes;
}

static void measure_losses(struct link_session *ls)
{
    uint64_t lost = ls->retransmits - ls->second_retransmits,
             sent = ls->segments_out - ls->second_segments_out;

    if (sent > 0)
        ls->lossy_seconds =
            (uint8_t)(ls->lossy_seconds << 1 | (lost * 1000 > sent * LOSSY_PERMILLE));
    ls->second_retransmits = ls->retransmits;
    ls->second_segments_out = ls->segments_out;
}

static void measure_second(struct link_session *ls, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns - ls->second_since_ns;

    if (elapsed_ns < NS_PER_S)
        return;
    measure_goodput(ls, elapsed_ns);
    measure_losses(ls);
    ls->second_since_ns = now_ns;
}

/* Each time bulk begins, BBR begins anew, with its quick search for the link's rate. */
static void note_bulk(struct link_session *ls, bool busy, uint64_t now_ns)
{
    ls->busy_ticks = busy ? ls->busy_ticks + 1 : 0;
    if (ls->busy_ticks >= BULK_TICKS) { /* less is a moment's, as under a bandwidth limit */
        ls->busy_ns = now_ns;
        ls->bulk = true;
    } else if (ls->bulk && now_ns - ls->busy_ns > BULK_END_NS) {
        ls->bulk = false;
        pacer_pause(&ls->pacer);
    }
}

/* Once the rate is found and nothing is lost, the cap alone keeps the line full, and any congestion control
 * will do that leaves it alone. BBR would stop for a fifth of a second every ten, on all stripes together, to
 * look at the round trip. */
static bool runs_clean(struct link_session *ls, uint64_t now_ns)
{
    if (ls->retransmits != ls->retransmits_seen || ls->pacer.state != PACER_CRUISE) {
        ls->retransmits_seen = ls->retransmits;
        ls->unclean_ns = now_ns;
    }
    return now_ns - ls->unclean_ns > CLEAN_NS;
}

/* A way that has become longer is known to the pacer at once, to TCP after minutes: until then BBR keeps less under way
 * than the way holds, takes what comes of that for the link's rate, and so on down. On a line that loses packets it is
 * still the better one: it looks at the round trip anew after ten seconds. */
static bool bbr_is_misled(const struct link_session *ls)
{
    return ls->pacer.way_ns > ls->rtt_min_ns / 100 * LONGER_PERCENT &&
           __builtin_popcount(ls->lossy_seconds) < LOSSY_SECONDS;
}

/* Urgent bytes wait for what a socket holds unsent, and for one frame; a guest that has stopped, for what its
 * streams have queued. */
static void size_for_rate(struct link_session *ls, uint64_t rate, struct connection_tuning *ret)
{
    uint32_t most = ls->link->config.unsent_bytes;
    uint64_t unsent = bytes_in(rate / ls->attached, UNSENT_NS), frame = bytes_in(rate, FRAME_NS);

    unsent = MAX(MIN(unsent, (uint64_t)CONNECTION_UNSENT_MAX_BYTES), (uint64_t)UNSENT_LEAST_BYTES);
    unsent = unsent * ls->unsent_ns / UNSENT_NS;
    frame = MAX(MIN(frame, (uint64_t)LIMIT_FRAME_PAYLOAD_BYTES), (uint64_t)FRAME_LEAST_BYTES);
    session_set_unsent_bytes(ls->engine, (uint32_t)MIN(session_queue_bytes(rate), (uint64_t)most));
    ret->unsent_bytes = (uint32_t)unsent & ~0xfffu; /* coarse: not a system call every time */
    session_set_frame_bytes(ls->engine, (uint32_t)frame);
}

/* On a short way one stripe fills the line as well as many. */
static void plan_stripes(struct link_session *ls, const struct pacer_sample *seen)
{
    struct stripe_sample sample = {
        .now_ns = seen->now_ns,
        .rtt_ns = ls->rtt_ns,
        .delivered_bytes = seen->delivered_bytes,
        .busy = ls->bulk && ls->attached >= link_wanted_stripes(ls),
        .line_is_full = ls->pacer.state != PACER_SEARCH || ls->rtt_min_ns < LONG_RTT_NS,
    };

    stripe_plan_take(&ls->plan, &sample);
}

void link_session_tune(struct link_session *ls, uint64_t now_ns)
{
    struct pacer_sample sample = {.now_ns = now_ns, .dry = take_dry(ls)};
    struct connection_tuning tuning = {.unsent_bytes = CONNECTION_UNSENT_FIRST_BYTES};
    bool held, full = sockets_are_full(ls);
    struct connection *c;
    uint64_t rate;

    measure_second(ls, now_ns);
    if (!look(ls, &sample, &held)) {
        pacer_pause(&ls->pacer);
        return;
    }
    sample.busy = session_wants_output(ls->engine, now_ns);
    if (sample.busy)
        follow_lateness(ls, sample.dry);
    note_bulk(ls, sample.busy && (full || sample.dry), now_ns);
    sample.dry = sample.dry || (!full && !held);
    pacer_take(&ls->pacer, &sample);
    plan_stripes(ls, &sample);
    if (ls->rtt_min_ns < LONG_RTT_NS) {
        tuning.unsent_bytes = CONNECTION_UNSENT_MAX_BYTES;
        session_set_unsent_bytes(ls->engine, ls->link->config.unsent_bytes);
    } else {
        rate = MAX(ls->pacer.rate_bytes_s, ls->pacer.capacity_bytes_s);
        if (rate)
            size_for_rate(ls, rate, &tuning);
        else
            session_set_unsent_bytes(ls->engine,
                                     MIN(ls->link->config.unsent_bytes, QUEUE_FIRST_BYTES));
        tuning.bulk = ls->bulk && !runs_clean(ls, now_ns) && !bbr_is_misled(ls);
        tuning.pacing_bytes_s = ls->pacer.rate_bytes_s / ls->attached;
    }
    TAILQ_FOREACH(c, &ls->connections, entry)
    {
        if (c->state == CONNECTION_OPEN)
            connection_tune(c, &tuning);
    }
}
