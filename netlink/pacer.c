/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink/pacer.h"

#include <string.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

/* An epoch shows the effect of the one before: longer than a round trip. */
#define EPOCH_LEAST_NS (100 * NS_PER_MS)
#define EPOCH_SLACK_NS (20 * NS_PER_MS)
/* A queue of this length stands; one below the lower mark is noise. */
#define QUEUE_HIGH_NS (9 * NS_PER_MS)
#define QUEUE_LOW_NS (4 * NS_PER_MS)
#define YIELD_NS (5 * NS_PER_S)
#define PROBE_PAUSE_NS (2 * NS_PER_S)
#define PROBE_PAUSE_MOST_NS (128 * NS_PER_S)
/* The span of a rate that is needed at once. */
#define RECENT_NS (40 * NS_PER_MS)
/* Below this a late wake-up looks like a queue. */
#define SEARCH_LEAST_BYTES_S (UINT64_C(125) * 1000)
/* Up to here a start may do as it likes: an overshoot is small. */
#define SEARCH_FREE_BYTES_S (UINT64_C(6) * 1000 * 1000)

enum {
    DRAIN_EPOCHS_MAX = 4,
    CONFIRM_PERCENT = 85,
    DRAIN_PERCENT = 70,
    DOUBT_AFTER_EPOCHS = 11,
    RISE_EPOCHS_FAST = 3,   /* after so many rises in a row the steps grow */
    RISE_EPOCHS_SEARCH = 6, /* and after so many the rate is searched for anew */
    SIGNS = 2,              /* samples in a row that show a queue: one is noise */
    SIGN_EPOCHS = 2,        /* the same, where a start may do as it likes */
    PROBE_EPOCHS = 2,
    PROBE_FIRST_PERCENT = 115,
    PROBE_NEXT_PERCENT = 150,
    PROBE_LEAST_PERCENT = 113, /* of what to go back to, where the cap is not quite reached */
    PROBE_GAIN_PERCENT = 107,  /* so much more was delivered: the line carries more */
    PROBE_LOSS_PERCENT = 92,   /* less than this says nothing of the line */
    DRY_SHARE = 4,        /* of an epoch's samples; above one in so many the host is the limit */
    REACHED_PERCENT = 85, /* of the cap; who sends less makes no queue */
    NEAR_PERCENT = 70,
    SLOW_EPOCHS = 3, /* a queue that is not of the cap's making must stay so long */
};

/* The round trip where no queue stands. */
static uint64_t way_ns(const struct pacer *p, const struct pacer_sample *s)
{
    return MAX(s->rtt_min_ns, p->way_ns);
}

static uint64_t high_mark(const struct pacer *p, const struct pacer_sample *s)
{
    return MAX(QUEUE_HIGH_NS, way_ns(p, s) / 16);
}

static uint64_t low_mark(const struct pacer *p, const struct pacer_sample *s)
{
    return MAX(QUEUE_LOW_NS, way_ns(p, s) / 32);
}

/* What was delivered lately, over a span just long enough to be a rate. */
static uint64_t recent_rate(const struct pacer *p, const struct pacer_sample *s)
{
    uint64_t bytes = 0, ns = 0;

    for (unsigned i = 0; i < PACER_HISTORY && ns < RECENT_NS; i++) {
        const struct pacer_point *at =
            &p->history[(p->history_next + PACER_HISTORY - 1 - i) % PACER_HISTORY];

        if (!at->now_ns)
            break;
        bytes = s->delivered_bytes - at->delivered_bytes;
        ns = s->now_ns - at->now_ns;
    }
    return ns ? (uint64_t)((double)bytes * (double)NS_PER_S / (double)ns) : 0;
}

static void remember(struct pacer *p, const struct pacer_sample *s)
{
    p->history[p->history_next] = (struct pacer_point){s->now_ns, s->delivered_bytes};
    p->history_next = (p->history_next + 1) % PACER_HISTORY;
}

static void begin_epoch(struct pacer *p, const struct pacer_sample *s)
{
    p->since_ns = s->now_ns;
    p->since_bytes = s->delivered_bytes;
    p->least_queue_ns = UINT64_MAX;
    p->busy = true;
    p->samples = p->dry_samples = 0;
}

static void begin_drain(struct pacer *p, uint64_t rate)
{
    p->signs = p->sign_epochs = 0;
    p->capacity_bytes_s = p->ceiling_bytes_s = rate;
    p->rate_bytes_s = rate / 100 * DRAIN_PERCENT;
    p->drain_epochs = 0;
    p->doubted = false;
    p->state = PACER_DRAIN;
}

static void begin_cruise(struct pacer *p)
{
    p->rises = p->high_epochs = p->near_epochs = 0;
    p->state = PACER_CRUISE;
}

static void begin_confirm(struct pacer *p, const struct pacer_sample *s, uint64_t rate)
{
    p->signs = p->sign_epochs = 0;
    p->rate_bytes_s = rate / 100 * CONFIRM_PERCENT;
    p->state = PACER_CONFIRM;
    begin_epoch(p, s);
}

/* A congestion control that starts doubles its rate every round trip, and what it overshoots by is under way
 * before the first sign of a queue is back. So the start is held to half as much growth, and its first signs
 * of a queue count, at once: less is sent than arrives, and the next epoch must confirm them. But not those of its
 * beginning, where the round trip as TCP smooths it is still that of another time, or of a processor that was late:
 * there epochs must show them first. */
static void search(struct pacer *p, const struct pacer_sample *s, uint64_t queue_ns)
{
    uint64_t rate = recent_rate(p, s);

    p->signs =
        !s->dry && queue_ns > low_mark(p, s) && rate > SEARCH_FREE_BYTES_S ? p->signs + 1 : 0;
    if (!s->busy)
        p->rate_bytes_s = 0;
    else if (p->signs < SIGNS)
        p->rate_bytes_s = MAX(MAX(rate / 2 * 3, SEARCH_FREE_BYTES_S), p->rate_bytes_s);
    else
        begin_confirm(p, s, rate);
}

static void search_epoch(struct pacer *p, const struct pacer_sample *s, uint64_t rate)
{
    bool queued = p->queue_ns > high_mark(p, s) && rate > SEARCH_LEAST_BYTES_S;

    p->sign_epochs = queued && rate <= SEARCH_FREE_BYTES_S ? p->sign_epochs + 1 : 0;
    if (p->sign_epochs >= SIGN_EPOCHS)
        begin_drain(p, rate);
}

/* A queue that the line made stays, and grows by what is under way; one that a late processor seemed to show is gone with
 * the next acknowledgements. And who runs dry makes none. */
static void confirm(struct pacer *p, const struct pacer_sample *s, uint64_t queue_ns)
{
    if (s->dry || !s->busy || queue_ns <= low_mark(p, s))
        p->state = PACER_SEARCH;
}

static void yield(struct pacer *p, const struct pacer_sample *s)
{
    p->state = PACER_YIELD;
    p->until_ns = s->now_ns + YIELD_NS;
    p->rate_bytes_s = 0;
}

/* A queue of our making shrinks by what is not sent, from the epoch on that shows the drain. */
static bool queue_is_ours(const struct pacer *p, uint64_t span_ns)
{
    uint64_t less_ns = p->drained_from_ns > p->queue_ns ? p->drained_from_ns - p->queue_ns : 0;
    uint64_t expected_ns = (p->drain_epochs - 1) * span_ns / 100 * (100 - DRAIN_PERCENT);

    return less_ns >= MIN(expected_ns, p->drained_from_ns) / 4;
}

static void drain(struct pacer *p, const struct pacer_sample *s)
{
    if (++p->drain_epochs == 1)
        p->drained_from_ns = p->queue_ns;
    if (p->queue_ns > low_mark(p, s) && p->drain_epochs < DRAIN_EPOCHS_MAX)
        return;
    if (p->doubted && p->queue_ns > low_mark(p, s) && !queue_is_ours(p, s->now_ns - p->since_ns)) {
        p->way_ns = way_ns(p, s) + p->queue_ns;
        yield(p, s);
        return;
    }
    p->rate_bytes_s = p->capacity_bytes_s / 100 * 96;
    p->probe_pause_ns = PROBE_PAUSE_NS;
    p->probe_not_before_ns = s->now_ns + PROBE_PAUSE_NS / 4;
    begin_cruise(p);
}

/* Small steps first, larger ones while nothing answers; and small ones again near the rate at which a queue
 * stood the last time, until that rate proves to be history. */
static void rise(struct pacer *p)
{
    uint64_t near = p->ceiling_bytes_s / 100 * 98, step = 2;

    p->rises++;
    if (p->ceiling_bytes_s && p->rate_bytes_s >= near) {
        p->rate_bytes_s += p->rate_bytes_s / 100;
        if (p->rate_bytes_s > p->ceiling_bytes_s / 100 * 106)
            p->ceiling_bytes_s = 0;
        return;
    }
    if (p->rises > RISE_EPOCHS_SEARCH && !p->ceiling_bytes_s) {
        p->state = PACER_SEARCH;
        return;
    }
    if (p->rises > RISE_EPOCHS_FAST)
        step = MIN(5 * (uint64_t)(p->rises - RISE_EPOCHS_FAST), (uint64_t)25);
    p->rate_bytes_s += p->rate_bytes_s / 100 * step;
    if (p->ceiling_bytes_s)
        p->rate_bytes_s = MIN(p->rate_bytes_s, near);
}

/* Is it the line that carries no more? Sent more, it delivers what it did, and the rest stands. What looked like a queue
 * and was late processors, or others, answers with more delivered. */
static void probe(struct pacer *p, uint64_t rate, uint64_t back, unsigned percent)
{
    p->probe_from_bytes_s = rate;
    p->probe_back_bytes_s = back;
    p->rate_bytes_s = MAX(rate / 100 * percent, back / 100 * PROBE_LEAST_PERCENT);
    p->probe_epochs = 0;
    p->state = PACER_PROBE;
}

static void cruise(struct pacer *p, const struct pacer_sample *s, uint64_t rate)
{
    bool reached = rate >= p->rate_bytes_s / 100 * REACHED_PERCENT;
    bool near =
        p->queue_ns <= low_mark(p, s) && !reached && rate > p->rate_bytes_s / 100 * NEAR_PERCENT;

    p->near_epochs = near ? p->near_epochs + 1 : 0;
    if (p->queue_ns > high_mark(p, s)) {
        p->rises = 0;
        /* What is seen now left before the last cut: every other epoch shows its effect. And who sends far less
         * than the cap allows makes no queue: the line has become slower, or processors that are late look like it.
         * A queue that stays tells. */
        if (reached ? p->high_epochs % 2 == 0
                    : p->high_epochs >= SLOW_EPOCHS && p->high_epochs % 2 == SLOW_EPOCHS % 2) {
            p->ceiling_bytes_s = reached ? p->capacity_bytes_s : 0;
            /* What was delivered may have been all there was to send: by no more than half at a time. */
            p->rate_bytes_s =
                MAX(MIN(p->rate_bytes_s, p->capacity_bytes_s) / 100 * 96, p->rate_bytes_s / 2);
        }
        if (++p->high_epochs >= DOUBT_AFTER_EPOCHS) {
            begin_drain(p, p->capacity_bytes_s);
            p->doubted = true;
        }
        return;
    }
    p->high_epochs = 0;
    if (p->queue_ns > low_mark(p, s)) {
        p->rises = 0;
        return;
    }
    /* Only a cap that is reached is worth raising. One that is nearly reached may be all that a congestion control
     * makes of it that repairs losses, or of an epoch that an outage cut short: a second one tells. */
    if (!reached && !near)
        return;
    if (s->now_ns >= p->probe_not_before_ns)
        probe(p, rate, MAX(rate / 100 * 98, p->rate_bytes_s / 100 * 96), PROBE_FIRST_PERCENT);
    else if (p->near_epochs != 1)
        rise(p);
}

static void end_probe(struct pacer *p, const struct pacer_sample *s)
{
    p->probe_not_before_ns = s->now_ns + p->probe_pause_ns;
    p->rate_bytes_s = p->probe_back_bytes_s;
    begin_cruise(p);
}

/* The second epoch shows what the larger cap gave. */
static void probe_epoch(struct pacer *p, const struct pacer_sample *s, uint64_t rate)
{
    if (++p->probe_epochs < PROBE_EPOCHS)
        return;
    if (rate > p->probe_from_bytes_s / 100 * PROBE_GAIN_PERCENT) {
        p->ceiling_bytes_s = 0;
        p->probe_pause_ns = PROBE_PAUSE_NS;
        probe(p, rate, rate / 100 * 98, PROBE_NEXT_PERCENT);
        return;
    }
    if (rate > p->probe_from_bytes_s / 100 * PROBE_LOSS_PERCENT)
        p->probe_pause_ns = MIN(p->probe_pause_ns * 4, PROBE_PAUSE_MOST_NS);
    end_probe(p, s);
}

static void end_epoch(struct pacer *p, const struct pacer_sample *s)
{
    uint64_t elapsed_ns = s->now_ns - p->since_ns;
    uint64_t rate = (uint64_t)((double)(s->delivered_bytes - p->since_bytes) * (double)NS_PER_S /
                               (double)elapsed_ns);

    if (s->delivered_bytes == p->since_bytes) /* an outage; the round trip is that of before */
        return;
    p->queue_ns = p->least_queue_ns;
    if (!p->busy || p->dry_samples * DRY_SHARE > p->samples) {
        if (p->state == PACER_PROBE) /* it would say nothing, but a queue stands meanwhile */
            end_probe(p, s);
        return;
    }
    memmove(p->recent_bytes_s + 1, p->recent_bytes_s,
            sizeof(p->recent_bytes_s) - sizeof(p->recent_bytes_s[0]));
    p->recent_bytes_s[0] = rate;
    if (p->state != PACER_DRAIN)
        p->capacity_bytes_s =
            MAX(MAX(p->recent_bytes_s[0], p->recent_bytes_s[1]), p->recent_bytes_s[2]);
    switch (p->state) {
    case PACER_SEARCH: /* looked at with every sample, too */
        search_epoch(p, s, rate);
        break;
    case PACER_CONFIRM: /* it stood all the time */
        begin_drain(p, p->capacity_bytes_s);
        break;
    case PACER_DRAIN:
        drain(p, s);
        break;
    case PACER_CRUISE:
        cruise(p, s, rate);
        break;
    case PACER_PROBE:
        probe_epoch(p, s, rate);
        break;
    case PACER_YIELD:
        if (s->now_ns >= p->until_ns)
            p->state = PACER_SEARCH;
        break;
    }
}

/* A doubted queue may be the way itself, which is longer than it is known to be. */
static uint64_t epoch_ns(const struct pacer *p, const struct pacer_sample *s)
{
    uint64_t rtt_ns = p->state == PACER_DRAIN && p->doubted ? s->rtt_ns : way_ns(p, s);

    return MAX(EPOCH_LEAST_NS, rtt_ns + EPOCH_SLACK_NS);
}

bool pacer_take(struct pacer *p, const struct pacer_sample *s)
{
    uint64_t before = p->rate_bytes_s, queue_ns;

    p->way_ns = MIN(p->way_ns, s->rtt_ns);
    queue_ns = s->rtt_ns > way_ns(p, s) ? s->rtt_ns - way_ns(p, s) : 0;
    if (!p->since_ns || s->delivered_bytes < p->since_bytes)
        begin_epoch(p, s);
    if (p->state == PACER_SEARCH)
        search(p, s, queue_ns);
    else if (p->state == PACER_CONFIRM)
        confirm(p, s, queue_ns);
    remember(p, s);
    p->least_queue_ns = MIN(p->least_queue_ns, queue_ns);
    p->busy = p->busy && s->busy;
    p->samples++;
    p->dry_samples += s->dry;
    if (s->now_ns - p->since_ns >= epoch_ns(p, s)) {
        end_epoch(p, s);
        begin_epoch(p, s);
    }
    return p->rate_bytes_s != before;
}

void pacer_pause(struct pacer *p)
{
    /* What the link carried a moment ago is a better start than none. */
    if (p->state != PACER_SEARCH && p->capacity_bytes_s) {
        p->state = PACER_CRUISE;
        p->rate_bytes_s = p->capacity_bytes_s / 100 * 96;
        p->rises = 0;
    }
    p->since_ns = 0;
    p->high_epochs = 0;
    memset(p->history, 0, sizeof(p->history));
}

const char *pacer_state_name(enum pacer_state state)
{
    static const char *const names[] = {"search", "confirm", "drain", "cruise", "probe", "yield"};

    return names[state];
}
