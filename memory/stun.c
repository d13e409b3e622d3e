/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/stun.h"

#include "core/base/clock.h"
#include "core/base/macros.h"

/* What the guest may dirty of what the stream carries, of STUN_WHOLE. Lower ends sooner and takes more. */
enum { KEEP = 880, SATURATED = 950 };

#define RATE_SPAN_NS (1 * NS_PER_S)
#define OUTAGE_NS (1500 * NS_PER_MS)
/* Less than this is no stun; a change by less than a 15th is none. */
#define LEVEL_LEAST 20u
#define LEFT_STEPS 15u
/* At the allowed maximum for so long without converging: more downtime is what is left. */
#define PATIENCE_NS (10 * NS_PER_S)
#define DOWNTIME_LAST_MS UINT64_C(2000)

void stun_start(struct stun *s, const struct stun_config *config, uint64_t now_ns)
{
    *s = (struct stun){.config = *config,
                       .left = STUN_WHOLE,
                       .round_left = STUN_WHOLE,
                       .limit_ms = config->downtime_ms,
                       .iteration = 1,
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

/* What the guest may keep so that it dirties KEEP of @stream_bytes_s. */
static uint64_t fitting_left(const struct stun *s, uint64_t stream_bytes_s)
{
    return s->dirty_bytes_s ? stream_bytes_s * KEEP / s->dirty_bytes_s : STUN_WHOLE;
}

static uint64_t budget_limit_ms(const struct stun *s, uint64_t rtt_ns)
{
    uint64_t spent_ms = rtt_ns * 3 / 2 / NS_PER_MS + s->config.downtime_overhead_ms;
    uint64_t left_ms =
        s->config.downtime_budget_ms > spent_ms ? s->config.downtime_budget_ms - spent_ms : 0;

    return MAX(left_ms, s->config.downtime_ms);
}

static void raise_limit(struct stun *s, const struct stun_input *in)
{
    bool stuck = s->at_max_ns && in->now_ns - s->at_max_ns > PATIENCE_NS;
    uint64_t most = stuck ? DOWNTIME_LAST_MS : budget_limit_ms(s, in->rtt_ns);

    s->limit_ms = MAX(s->limit_ms, MIN(s->limit_ms * 2, most));
}

static void end_round(struct stun *s, const struct stun_input *in)
{
    uint64_t elapsed_ns = in->now_ns - s->round_ns;
    uint64_t carried = rate_of(in->stream_bytes - s->round_bytes, elapsed_ns);
    uint64_t kept = elapsed_ns ? (uint64_t)(s->left_ns / (double)elapsed_ns) : STUN_WHOLE;
    uint64_t share = carried ? in->dirty_bytes_s * STUN_WHOLE / carried : 0;
    bool first = s->iteration <= 1, full = share >= SATURATED;
    unsigned left = s->left;

    s->round_ns = in->now_ns;
    s->round_bytes = in->stream_bytes;
    s->left_ns = 0;
    s->iteration = in->iteration;
    if (!carried || !elapsed_ns) /* an outage filled it: it shows nothing */
        return;
    if (first) { /* it sent all of memory: what was dirtied meanwhile says little of how fast */
        s->dirty_bytes_s = MAX(in->sampled_bytes_s, in->dirty_bytes_s);
        s->rate_known = in->sampled_bytes_s > 0;
    } else if (!full) {
        s->dirty_bytes_s = in->dirty_bytes_s * STUN_WHOLE / MAX(kept, UINT64_C(1));
        s->rate_known = true;
    } else if (s->round_left <=
               s->left + s->left / LEFT_STEPS) { /* else it ruled a part of the round */
        s->rate_known = false;
        set_left(s, s->left / 2);
    }
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
    if (in->iteration > s->iteration)
        end_round(s, in);
    /* Between rounds the line may become faster or slower. */
    if (!away && stream_bytes_s && s->iteration > 1 && s->rate_known)
        set_left(s, fitting_left(s, stream_bytes_s));
    *ret = (struct stun_output){
        .level = away ? 0 : STUN_WHOLE - s->left,
        .downtime_limit_ms = s->limit_ms,
        .verdict = s->verdict,
        .dirty_bytes_s = s->dirty_bytes_s,
    };
}

const char *stun_verdict_name(enum stun_verdict verdict)
{
    static const char *const names[] = {"unknown", "converges", "needs stun", "cannot converge"};

    return names[verdict];
}
