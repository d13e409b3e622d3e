/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/stun.h"

#include <math.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

/* What the guest may dirty of what the stream carries, of STUN_WHOLE: on the whole, and at any time. Lower ends sooner
 * and takes more. A round that dirtied SATURATED of that dirtied all it could. */
enum { KEEP = 920, KEEP_LEAST = 750, KEEP_MOST = 1150, SATURATED = 950 };
/* So many seconds at KEEP are taken for granted before the mean of the real ones counts. */
#define SETTLING_S 3
/* A sample of so many hundredths of what the last round saw may be all that the guest uses. */
enum { SAMPLE_FULL = 90 };
/* Each guess of the guest's own rate counts as much as those before it, up to so many. */
enum { GUESSES_MOST = 3 };

#define RATE_SPAN_NS (1 * NS_PER_S)
/* A shorter round says little of a guest that is held back in steps of tens of milliseconds. */
#define ROUND_LEAST_NS (1 * NS_PER_S)
#define OUTAGE_NS (1500 * NS_PER_MS)
/* Less than this is no stun; a change by less than a 15th is none. */
#define LEVEL_LEAST 20u
#define LEFT_STEPS 15u
/* At the allowed maximum for so long without converging: more downtime is what is left. */
#define PATIENCE_NS (10 * NS_PER_S)

void stun_start(struct stun *s, const struct stun_config *config, uint64_t now_ns)
{
    *s = (struct stun){.config = *config,
                       .left = STUN_WHOLE,
                       .round_left = STUN_WHOLE,
                       .limit_ms = config->downtime_ms,
                       .iteration = 1,
                       .rate_least = true,
                       .begun_ns = now_ns,
                       .round_ns = now_ns,
                       .seen_ns = now_ns,
                       .moved_ns = now_ns};
}

static uint64_t rate_of(uint64_t bytes, uint64_t ns)
{
    return ns ? (uint64_t)((double)bytes * (double)NS_PER_S / (double)ns) : 0;
}

static void remember(struct stun *s, const struct stun_input *in)
{
    s->history[s->history_next] = (struct stun_point){in->now_ns, in->stream_bytes};
    s->history_next = (s->history_next + 1) % STUN_HISTORY;
    if (in->stream_bytes != s->moved_bytes) {
        s->moved_bytes = in->stream_bytes;
        s->moved_ns = in->now_ns;
    }
}

static uint64_t recent_rate(const struct stun *s, const struct stun_input *in)
{
    uint64_t bytes = 0, ns = 0;

    for (unsigned i = 0; i < STUN_HISTORY && ns < RATE_SPAN_NS; i++) {
        const struct stun_point *at =
            &s->history[(s->history_next + STUN_HISTORY - 1 - i) % STUN_HISTORY];

        if (!at->now_ns)
            break;
        bytes = in->stream_bytes - at->stream_bytes;
        ns = in->now_ns - at->now_ns;
    }
    return ns >= RATE_SPAN_NS / 2 ? rate_of(bytes, ns) : 0;
}

static unsigned least_left(const struct stun *s)
{
    return STUN_WHOLE - MIN(s->config.max_level, (unsigned)STUN_WHOLE - 1);
}

/* Never more than half or double at a time. */
static void set_left(struct stun *s, uint64_t wanted)
{
    wanted = MAX(MIN(wanted, (uint64_t)s->left * 2), (uint64_t)s->left / 2);
    wanted = MIN(MAX(wanted, (uint64_t)least_left(s)), (uint64_t)STUN_WHOLE);
    if (wanted > STUN_WHOLE - LEVEL_LEAST)
        wanted = STUN_WHOLE;
    if (wanted == STUN_WHOLE || wanted == least_left(s) ||
        wanted > s->left + s->left / LEFT_STEPS || wanted + s->left / LEFT_STEPS < s->left)
        s->left = (unsigned)wanted;
}

/* What the guest is to dirty of what is carried: KEEP over all of the time that it is held back. What chance, or a
 * guess that was wrong, took too much of is given back, and the other way round. */
static uint64_t wanted_share(const struct stun *s)
{
    double carried = s->carried_bytes + s->carried_bytes_s * SETTLING_S;
    double did = s->did_bytes + s->carried_bytes_s * SETTLING_S * KEEP / STUN_WHOLE;
    double share = carried > 0 && did > 0 ? KEEP * (KEEP * carried / STUN_WHOLE / did) : KEEP;

    return (uint64_t)MIN(MAX(share, (double)KEEP_LEAST), (double)KEEP_MOST);
}

/* What the guest may keep so that it dirties that of @stream_bytes_s. */
static uint64_t fitting_left(const struct stun *s, uint64_t stream_bytes_s)
{
    return s->dirty_bytes_s ? stream_bytes_s * wanted_share(s) / s->dirty_bytes_s : STUN_WHOLE;
}

/* The wanted downtime by now. */
static uint64_t budget_ms(const struct stun *s, uint64_t now_ns)
{
    const struct stun_config *c = &s->config;
    uint64_t steps = c->downtime_double_ns ? (now_ns - s->begun_ns) / c->downtime_double_ns : 0;
    uint64_t ms = c->downtime_budget_ms;

    for (; steps > 0 && ms < c->downtime_last_ms; steps--)
        ms = MIN(ms * 2, c->downtime_last_ms);
    return ms;
}

static uint64_t budget_limit_ms(const struct stun *s, const struct stun_input *in)
{
    uint64_t spent_ms = in->rtt_ns * 3 / 2 / NS_PER_MS + s->config.downtime_overhead_ms;
    uint64_t ms = budget_ms(s, in->now_ns);

    return MAX(ms - MIN(ms, spent_ms), s->config.downtime_ms);
}

static void raise_limit(struct stun *s, const struct stun_input *in)
{
    bool stuck = s->at_max_ns && in->now_ns - s->at_max_ns > PATIENCE_NS;
    uint64_t most = stuck ? s->config.downtime_last_ms : budget_limit_ms(s, in);

    s->limit_ms = MAX(s->limit_ms, MIN(s->limit_ms * 2, most));
}

/* What the guest would have dirtied in a round, had it kept @left of its time. */
static uint64_t by_itself(uint64_t bytes_s, uint64_t left)
{
    return bytes_s * STUN_WHOLE / MAX(left, UINT64_C(1));
}

/* A guest has work that it does not put off: held back twice as hard, it may dirty a fourth, and from one second to the
 * next it varies. What it would dirty by itself, seen from what it does now, is thus a guess that moves with the level;
 * going all the way to each new one would swing. */
static void learn(struct stun *s, uint64_t bytes_s)
{
    double known = (double)s->dirty_bytes_s;
    double times = known > 0 ? MIN(MAX((double)bytes_s / known, 0.5), 2.0) : 1;

    s->guesses = MIN(s->guesses + 1, GUESSES_MOST);
    s->dirty_bytes_s =
        s->rate_known ? (uint64_t)(known * pow(times, 1.0 / (s->guesses + 1))) : bytes_s;
    s->rate_known = s->dirty_bytes_s > 0;
    s->rate_least = false;
}

/* A sample holds unless the guest got through all it uses in that second, which it did not when the last round saw
 * more; then it dirties at least so much. */
static void take_sample(struct stun *s, const struct stun_input *in, uint64_t stream_bytes_s)
{
    uint64_t bytes_s = by_itself(in->sample.bytes_s, in->sample.left);

    if (in->sample.number == s->samples)
        return;
    s->samples = in->sample.number;
    if (s->left < STUN_WHOLE && in->sample.left < s->left + s->left / 4 && stream_bytes_s) {
        s->did_bytes += (double)in->sample.bytes_s;
        s->carried_bytes += (double)stream_bytes_s;
        s->carried_bytes_s = (double)stream_bytes_s;
    }
    if (in->sample.bytes_s < s->round_dirtied / 100 * SAMPLE_FULL)
        learn(s, bytes_s);
    else if (s->rate_least) {
        s->dirty_bytes_s = MAX(s->dirty_bytes_s, bytes_s);
        s->rate_known = s->dirty_bytes_s > 0;
    }
}

/* The guest rewrote all it uses in the round that ended. A sample says how fast, if one can. */
static void end_full_round(struct stun *s)
{
    bool sampled = !s->rate_least;

    s->rate_least = true;
    /* Else an earlier level may have ruled a part of the round. */
    if (sampled || s->round_left > s->left + s->left / LEFT_STEPS)
        return;
    s->rate_known = false;
    set_left(s, s->left / 2);
}

static void end_round(struct stun *s, const struct stun_input *in)
{
    uint64_t elapsed_ns = in->now_ns - s->round_ns;
    uint64_t carried = rate_of(in->stream_bytes - s->round_bytes, elapsed_ns);
    uint64_t kept = elapsed_ns ? (uint64_t)(s->left_ns / (double)elapsed_ns) : STUN_WHOLE;
    uint64_t share = carried ? in->dirty_bytes_s * STUN_WHOLE / carried : 0;
    bool first = s->iteration <= 1;
    unsigned left = s->left;

    s->left_ns = 0;
    s->iteration = in->iteration;
    if (carried &&
        first) { /* it sent all of memory: what was dirtied meanwhile says little of how fast */
        s->dirty_bytes_s = MAX(s->dirty_bytes_s, in->dirty_bytes_s);
        s->rate_known = s->samples > 0;
        s->rate_least = true;
    } else if (carried && share < SATURATED && elapsed_ns >= ROUND_LEAST_NS) {
        learn(s, by_itself(in->dirty_bytes_s, kept));
    } else if (carried && share >= SATURATED)
        end_full_round(s);
    s->round_dirtied =
        (uint64_t)((double)in->dirty_bytes_s * (double)elapsed_ns / (double)NS_PER_S);
    s->round_ns = in->now_ns;
    s->round_bytes = in->stream_bytes;
    if (!carried) /* an outage filled it: it shows nothing */
        return;
    s->round_left = left;
    if (share > KEEP / 2)
        raise_limit(s, in);
    if (share <= KEEP || first)
        s->at_max_ns = 0;
    else if (s->left <= least_left(s) && !s->at_max_ns)
        s->at_max_ns = in->now_ns;
    s->verdict = s->at_max_ns ? STUN_CANNOT : s->left < STUN_WHOLE ? STUN_NEEDED : STUN_CONVERGES;
}

void stun_update(struct stun *s, const struct stun_input *in, struct stun_output *ret)
{
    uint64_t stream_bytes_s = recent_rate(s, in);
    bool away;

    remember(s, in);
    away = in->now_ns - s->moved_ns > OUTAGE_NS;
    s->left_ns += (double)s->left * (double)(in->now_ns - s->seen_ns);
    s->seen_ns = in->now_ns;
    take_sample(s, in, stream_bytes_s);
    if (in->iteration > s->iteration)
        end_round(s, in);
    /* Between rounds the line may become faster or slower. */
    if (!away && stream_bytes_s && s->iteration > 1 && s->rate_known)
        set_left(s, fitting_left(s, stream_bytes_s));
    *ret = (struct stun_output){
        .level = away ? 0 : STUN_WHOLE - s->left,
        .downtime_limit_ms = s->limit_ms,
        .verdict = s->verdict,
        .wants_sample = s->rate_least || s->left < STUN_WHOLE,
        .dirty_bytes_s = s->dirty_bytes_s,
    };
}

const char *stun_verdict_name(enum stun_verdict verdict)
{
    static const char *const names[] = {"unknown", "converges", "needs stun", "cannot converge"};

    return names[verdict];
}
