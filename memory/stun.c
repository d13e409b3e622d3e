/* SPDX-License-Identifier: Apache-2.0 */
#include "memory/stun.h"

#include <math.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

/* What the guest may dirty of what the stream carries, of STUN_WHOLE: at most, so that rounds shrink at all, and what is
 * never gone below: lower ends hardly sooner. */
enum { KEEP = 920, AIM_LEAST = 200 };
/* A guest below this share of the stream is left alone: each of its rounds is about half of the last. */
enum { ALONE = 550 };
/* By how much, of STUN_WHOLE of the aim, a second may differ from it to make up for those before. */
enum { MAKE_UP_LEAST = 800, MAKE_UP_MOST = 1250 };
/* So many seconds at the aim are taken for granted before the mean of the real ones counts. */
#define SETTLING_S 3
/* Hundredths of the most that was ever dirtied in a round, which may be all that the guest uses: in a round, a sample. */
enum { ROUND_FULL = 95, SAMPLE_FULL = 90 };
/* Each guess of the guest's own rate counts as much as those before it, up to so many. */
enum { GUESSES_MOST = 3 };

/* So many times less than the mean is a run of pages that costs much less. */
#define CHEAP 1.3
#define RATE_SPAN_NS (1 * NS_PER_S)
/* What has to be sent again before it is known what that costs; and in a later round, for it to count. */
#define RESENT_LEAST_BYTES (UINT64_C(1) << 20)
#define ROUND_LEAST_BYTES (UINT64_C(4) << 20)
/* Less says little of a guest that is held back in steps of tens of milliseconds: shorter rounds are taken together. */
#define ROUNDS_LEAST_NS (1 * NS_PER_S)
#define OUTAGE_NS (1500 * NS_PER_MS)
/* Less than this is no stun; a change by less than a 15th is none. */
#define LEVEL_LEAST 20u
#define LEFT_STEPS 15u
/* Nor is a change of the downtime limit by less than a fourth. */
#define LIMIT_STEPS 4u
/* A round's last ENDING_MS are read in their own time: at each update what is carried in ALLOWANCE_MS, or in a tenth more
 * than passed since the last one. QEMU measures for a tenth of a second. */
enum { ENDING_MS = 600, ALLOWANCE_MS = 110 };
#define SETTLE_NS (200 * NS_PER_MS)
/* At the allowed maximum for so long without converging: more downtime is what is left. */
#define PATIENCE_NS (10 * NS_PER_S)

void stun_start(struct stun *s, const struct stun_config *config, uint64_t now_ns)
{
    *s = (struct stun){.config = *config,
                       .left = STUN_WHOLE,
                       .round_left = STUN_WHOLE,
                       .aim = KEEP,
                       .limit_ms = config->downtime_ms,
                       .limit_said_ms = config->downtime_ms,
                       .iteration = 1,
                       .rate_least = true,
                       .begun_ns = now_ns,
                       .span_ns = now_ns,
                       .seen_ns = now_ns,
                       .moved_ns = now_ns};
}

/* --- rates --------------------------------------------------------------------------------- */

static uint64_t rate_of(uint64_t bytes, uint64_t ns)
{
    return ns ? (uint64_t)((double)bytes * (double)NS_PER_S / (double)ns) : 0;
}

static void remember(struct stun *s, const struct stun_input *in)
{
    s->history[s->history_next] = (struct stun_point){in->now_ns, in->stream_bytes, in->wire_bytes};
    s->history_next = (s->history_next + 1) % STUN_HISTORY;
    if (in->stream_bytes != s->moved_bytes) {
        s->moved_bytes = in->stream_bytes;
        s->moved_ns = in->now_ns;
    }
}

/* The @i-th point before the next; its time is 0 where there is none. */
static const struct stun_point *point(const struct stun *s, unsigned i)
{
    return &s->history[(s->history_next + STUN_HISTORY - 1 - i) % STUN_HISTORY];
}

/* Of the last second, until @in; false: it is not long enough yet. */
static bool recent_rates(const struct stun *s, const struct stun_input *in, uint64_t *ret_stream,
                         uint64_t *ret_wire)
{
    const struct stun_point *from = NULL;

    for (unsigned i = 0; i < STUN_HISTORY && point(s, i)->now_ns; i++) {
        from = point(s, i);
        if (in->now_ns - from->now_ns >= RATE_SPAN_NS)
            break;
    }
    if (!from || in->now_ns - from->now_ns < RATE_SPAN_NS / 2)
        return false;
    *ret_stream = rate_of(in->stream_bytes - from->stream_bytes, in->now_ns - from->now_ns);
    *ret_wire = rate_of(in->wire_bytes - from->wire_bytes, in->now_ns - from->now_ns);
    return true;
}

/* What a byte of the stream costs on the wire; never more than the byte: what seems so was still being encoded before. */
static double cost_of(uint64_t stream, uint64_t wire)
{
    return MIN(MAX((double)wire / (double)stream, 1e-3), 1.0);
}

/* That, when it is sent again: by the second round's dearest part so far, then by the last rounds together, since in one
 * and the other most pages may be unchanged, and cost nothing. 0: it is not known yet. */
static void look_at_cost(struct stun *s, const struct stun_input *in)
{
    uint64_t stream = in->stream_bytes - s->first_stream;

    if (s->first_ns && s->rounds == 0 && stream >= RESENT_LEAST_BYTES)
        s->cost = MAX(s->cost, cost_of(stream, in->wire_bytes - s->first_wire));
    s->dearest = MAX(s->dearest, s->cost);
}

static void add_round(struct stun *s, uint64_t stream, uint64_t wire)
{
    if (stream < ROUND_LEAST_BYTES)
        return;
    s->last[s->rounds++ % STUN_ROUNDS] = (struct stun_round){stream, wire};
    stream = wire = 0;
    for (unsigned i = 0; i < STUN_ROUNDS; i++) {
        stream += s->last[i].stream_bytes;
        wire += s->last[i].wire_bytes;
    }
    s->cost = cost_of(stream, wire);
}

/* What the stream carries of pages that are sent again, bytes a second; 0: it is not known yet. In their first second the
 * line's rate is taken from the first round, at the end of which QEMU may have looked for pages more than sent any. While
 * pages cost much less than the others it is what it was before: the next may cost as much as ever. */
static void look_at_rate(struct stun *s, const struct stun_input *in)
{
    uint64_t stream_s = 0, wire_s = 0;

    look_at_cost(s, in);
    if (!recent_rates(s, in, &stream_s, &wire_s) || s->cost <= 0)
        s->carried_s = 0;
    else if (in->now_ns - s->first_ns < RATE_SPAN_NS)
        s->carried_s = (uint64_t)((double)MAX(wire_s, s->best_wire_s) / s->cost);
    else if ((double)stream_s * s->cost <= (double)wire_s * CHEAP)
        s->carried_s = (uint64_t)((double)wire_s / s->cost);
}

/* --- level --------------------------------------------------------------------------------- */

static unsigned least_left(const struct stun *s)
{
    return STUN_WHOLE - MIN(s->config.max_level, (unsigned)STUN_WHOLE - 1);
}

/* Never more than a fourth or double at a time. */
static void set_left(struct stun *s, uint64_t wanted)
{
    wanted = MAX(MIN(wanted, (uint64_t)s->left * 2), (uint64_t)s->left / 4);
    wanted = MIN(MAX(wanted, (uint64_t)least_left(s)), (uint64_t)STUN_WHOLE);
    if (wanted > STUN_WHOLE - LEVEL_LEAST)
        wanted = STUN_WHOLE;
    if (wanted == STUN_WHOLE || wanted == least_left(s) ||
        wanted > s->left + s->left / LEFT_STEPS || wanted + s->left / LEFT_STEPS < s->left)
        s->left = (unsigned)wanted;
}

/* The aim over all of the time that the guest is held back. What chance, or a guess that was wrong, took too much of is
 * given back, and the other way round. */
static uint64_t wanted_share(const struct stun *s)
{
    double due = s->due_bytes + s->due_bytes_s * SETTLING_S;
    double did = s->did_bytes + s->due_bytes_s * SETTLING_S;
    double make_up = due > 0 && did > 0 ? STUN_WHOLE * due / did : STUN_WHOLE;

    make_up = MIN(MAX(make_up, (double)MAKE_UP_LEAST), (double)MAKE_UP_MOST);
    return (uint64_t)(s->aim * make_up / STUN_WHOLE);
}

static bool sample_is_full(const struct stun *s)
{
    return s->sample_bytes >= s->set_bytes / 100 * SAMPLE_FULL;
}

/* What the guest may keep so that it dirties that of @carried_s. Of one who gets through all it uses in a second only so
 * much is known: half is taken before another round is full. */
static uint64_t fitting_left(const struct stun *s, uint64_t carried_s)
{
    bool unknown = s->rate_least && sample_is_full(s);
    double alone_s = (double)carried_s;

    /* A dip of the line is no reason to begin with, as long as rounds shrink. */
    if (s->shrinks)
        alone_s = MAX(alone_s, (double)s->best_wire_s / s->cost);
    if (s->left == STUN_WHOLE && (double)s->dirty_bytes_s <= alone_s * ALONE / STUN_WHOLE)
        return STUN_WHOLE;
    return MIN(carried_s * wanted_share(s) / MAX(s->dirty_bytes_s, UINT64_C(1)),
               (uint64_t)STUN_WHOLE / (unknown ? 2 : 1));
}

/* --- downtime ------------------------------------------------------------------------------ */

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

/* The allowed maximum is not enough, and has not been for a while. */
static bool is_stuck(const struct stun *s, uint64_t now_ns)
{
    return s->at_max_ns && now_ns - s->at_max_ns > PATIENCE_NS;
}

static uint64_t budget_limit_ms(const struct stun *s, const struct stun_input *in)
{
    uint64_t spent_ms = in->rtt_ns * 3 / 2 / NS_PER_MS + s->config.downtime_overhead_ms;
    uint64_t ms = budget_ms(s, in->now_ns);

    if (is_stuck(s, in->now_ns))
        return s->config.downtime_last_ms;
    return MAX(ms - MIN(ms, spent_ms), s->config.downtime_ms);
}

/* QEMU's next measurement began after the pace was changed, and is over. */
static bool settled(const struct stun *s, uint64_t now_ns)
{
    return now_ns - s->ended_ns >= SETTLE_NS;
}

/* By how much the wire's mean is below its peaks, of STUN_WHOLE, half at least. */
static unsigned evenness(const struct stun *s)
{
    uint64_t peak_s = 0, mean_s;
    unsigned i = 1;

    for (; i < STUN_HISTORY && point(s, i)->now_ns; i++)
        peak_s = MAX(peak_s, rate_of(point(s, i - 1)->wire_bytes - point(s, i)->wire_bytes,
                                     point(s, i - 1)->now_ns - point(s, i)->now_ns));
    mean_s = rate_of(point(s, 0)->wire_bytes - point(s, i - 1)->wire_bytes,
                     point(s, 0)->now_ns - point(s, i - 1)->now_ns);
    return peak_s ? MAX((unsigned)(mean_s * STUN_WHOLE / peak_s), STUN_WHOLE / 2u) : STUN_WHOLE;
}

static uint64_t say_limit(struct stun *s, uint64_t now_ns)
{
    uint64_t ms = s->config.downtime_ms;

    if (s->limit_ms > ms && s->ending && settled(s, now_ns))
        ms = MAX(s->limit_ms * evenness(s) / STUN_WHOLE, ms);
    if (ms == s->config.downtime_ms || ms > s->limit_said_ms + s->limit_said_ms / LIMIT_STEPS ||
        ms + s->limit_said_ms / LIMIT_STEPS < s->limit_said_ms)
        s->limit_said_ms = ms;
    return s->limit_said_ms;
}

/* What QEMU has left of its round, by what was read since it said so. */
static uint64_t round_rest(const struct stun_input *in)
{
    uint64_t read = in->stream_bytes - MIN(in->processed_bytes, in->stream_bytes);

    return in->remaining_bytes - MIN(read, in->remaining_bytes);
}

/* What the stream carries of the dearest pages at the line's best: the last ones may all be such. (By what the line carries
 * just then, what costs nothing would be read more slowly each time.) */
static uint64_t slow_rate(const struct stun *s)
{
    return s->dearest > 0 ? (uint64_t)((double)s->best_wire_s / s->dearest) : 0;
}

static void look_at_rest(struct stun *s, const struct stun_input *in)
{
    bool ending = round_rest(in) <= slow_rate(s) * ENDING_MS / 1000;

    if (ending == s->ending)
        return;
    s->ending = ending;
    s->ended_ns = in->now_ns;
}

/* Until the next update. */
static uint64_t allowance(const struct stun *s, const struct stun_input *in)
{
    uint64_t ms = MIN(MAX(s->span_ms * 11 / 10, (uint64_t)ALLOWANCE_MS), UINT64_C(1000));
    uint64_t slow = slow_rate(s) * ms / 1000, rest = round_rest(in);
    uint64_t end = slow_rate(s) * ENDING_MS / 1000;

    if (!s->carried_s || s->iteration <= 1 || s->limit_ms <= s->config.downtime_ms)
        return UINT64_MAX;
    return s->ending || !settled(s, in->now_ns) ? slow : rest - MIN(end, rest) + slow;
}

/* --- aim ----------------------------------------------------------------------------------- */

/* What the guest may dirty so that all that is sent again, from the running round on, is what may be. */
static void set_aim(struct stun *s, const struct stun_input *in, uint64_t carried_s)
{
    double round = (double)s->round_size * s->cost;
    double last = (double)carried_s * s->cost * (double)budget_limit_ms(s, in) / 1e3;
    double may = (double)s->first_wire * s->config.resend_permille / 1e3;
    double again = may - (double)(s->round_wire - s->first_wire);
    double aim = again > last ? STUN_WHOLE * (1 - (round - last) / (again - last)) : 0;

    if (round <= last) /* it is the last one */
        aim = KEEP;
    s->aim = (unsigned)MIN(MAX(aim, (double)AIM_LEAST), (double)KEEP);
}

/* --- what the guest dirties ---------------------------------------------------------------- */

/* What the guest would have dirtied in a round, had it kept @left of its time. */
static uint64_t by_itself(uint64_t bytes_s, uint64_t left)
{
    return bytes_s * STUN_WHOLE / MAX(left, UINT64_C(1));
}

/* A guest has work that it does not put off: held back twice as hard, it may dirty a fourth, and from one second to the
 * next it varies. What it would dirty by itself, in proportion to what it does now, is thus a guess that moves with the
 * level; going all the way to each new one would swing. */
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

/* A sample holds unless the guest got through all it uses in that second, which it did not when a round saw more; then
 * it dirties at least so much. */
static void take_sample(struct stun *s, const struct stun_input *in, uint64_t carried_s)
{
    uint64_t bytes_s = by_itself(in->sample.bytes_s, in->sample.left);

    if (in->sample.number == s->samples)
        return;
    s->samples = in->sample.number;
    s->sample_bytes = in->sample.bytes_s;
    if (s->left < STUN_WHOLE && in->sample.left < s->left + s->left / 4 && carried_s) {
        s->due_bytes_s = (double)carried_s * s->aim / STUN_WHOLE;
        s->due_bytes += s->due_bytes_s;
        s->did_bytes += (double)in->sample.bytes_s;
    }
    if (!sample_is_full(s))
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

/* What was dirtied in the round that ended since the last word of QEMU's: what remains now, and what of it was sent
 * already, after the rest of the old. */
static uint64_t dirtied(const struct stun *s, const struct stun_input *in)
{
    uint64_t sent = in->processed_bytes - MIN(s->told_processed, in->processed_bytes);

    return in->remaining_bytes + (sent - MIN(sent, s->told_remaining));
}

static void end_first_round(struct stun *s, const struct stun_input *in, uint64_t bytes_s)
{
    s->first_ns = in->now_ns;
    s->first_stream = in->stream_bytes;
    s->first_wire = in->wire_bytes;
    /* It sent all of memory: what was dirtied meanwhile says little of how fast. */
    s->dirty_bytes_s = MAX(s->dirty_bytes_s, bytes_s);
    s->rate_known = s->samples > 0;
    s->rate_least = true;
}

/* @at_max: no more could be taken while it was dirtied. */
static void judge(struct stun *s, const struct stun_input *in, uint64_t share, bool at_max)
{
    if (share > KEEP / 2)
        s->limit_ms = MAX(s->limit_ms, MIN(s->limit_ms * 2, budget_limit_ms(s, in)));
    s->shrinks = share <= KEEP;
    if (s->shrinks)
        s->at_max_ns = 0;
    else if (at_max && !s->at_max_ns)
        s->at_max_ns = in->now_ns;
    s->verdict = is_stuck(s, in->now_ns) ? STUN_CANNOT
                 : s->left < STUN_WHOLE  ? STUN_NEEDED
                                         : STUN_CONVERGES;
}

/* @size bytes were dirtied in the round that ended, @carried were sent. */
static void look_at_round(struct stun *s, const struct stun_input *in, uint64_t size,
                          uint64_t carried)
{
    uint64_t span_ns = in->now_ns - s->span_ns, kept;
    bool first = s->first_ns == 0;
    bool full = !first && size >= MAX(s->set_bytes, carried) / 100 * ROUND_FULL;

    s->span_bytes += size;
    kept = span_ns ? (uint64_t)(s->left_ns / (double)span_ns) : STUN_WHOLE;
    if (!first && !full && carried && span_ns < ROUNDS_LEAST_NS && kept < STUN_WHOLE)
        return;
    if (first && carried)
        end_first_round(s, in, rate_of(size, span_ns));
    else if (full && carried)
        end_full_round(s);
    else if (carried)
        learn(s, by_itself(rate_of(s->span_bytes, span_ns), kept));
    s->span_ns = in->now_ns;
    s->span_bytes = 0;
    s->left_ns = 0;
}

static void end_round(struct stun *s, const struct stun_input *in)
{
    uint64_t size = dirtied(s, in), carried = in->stream_bytes - s->round_bytes;
    bool first = s->iteration <= 1;
    unsigned left = s->left;

    s->iteration = in->iteration;
    if (!first)
        add_round(s, carried, in->wire_bytes - s->round_wire);
    look_at_round(s, in, size, carried);
    s->set_bytes = MAX(s->set_bytes, size);
    s->round_size = size;
    s->round_bytes = in->stream_bytes;
    s->round_wire = in->wire_bytes;
    if (!carried) /* an outage filled it: it shows nothing */
        return;
    judge(s, in, first ? KEEP : size * STUN_WHOLE / carried, s->round_left <= least_left(s));
    s->round_left = left;
}

void stun_update(struct stun *s, const struct stun_input *in, struct stun_output *ret)
{
    uint64_t carried_s, stream_s = 0, wire_s = 0;
    bool away;

    remember(s, in);
    away = in->now_ns - s->moved_ns > OUTAGE_NS;
    s->left_ns += (double)s->left * (double)(in->now_ns - s->seen_ns);
    s->span_ms = (in->now_ns - s->seen_ns) / NS_PER_MS;
    s->seen_ns = in->now_ns;
    if (recent_rates(s, in, &stream_s, &wire_s))
        s->best_wire_s = MAX(s->best_wire_s, wire_s);
    look_at_rate(s, in);
    take_sample(s, in, s->carried_s);
    if (in->iteration > s->iteration)
        end_round(s, in);
    s->told_remaining = in->remaining_bytes;
    s->told_processed = in->processed_bytes;
    look_at_rate(s, in);
    carried_s = s->carried_s;
    look_at_rest(s, in);
    /* Between rounds the line may become faster or slower. */
    if (!away && carried_s && s->rate_known) {
        set_aim(s, in, carried_s);
        set_left(s, fitting_left(s, carried_s));
    }
    if (s->left < STUN_WHOLE) {
        s->limit_ms = MAX(s->limit_ms, budget_limit_ms(s, in));
        s->verdict = is_stuck(s, in->now_ns) ? STUN_CANNOT : STUN_NEEDED;
    }
    *ret = (struct stun_output){
        .level = away ? 0 : STUN_WHOLE - s->left,
        .downtime_limit_ms = say_limit(s, in->now_ns),
        .allowance_bytes = away ? UINT64_MAX : allowance(s, in),
        .verdict = s->verdict,
        .may_need_stun = s->rate_known && s->iteration <= 1 &&
                         s->dirty_bytes_s > s->best_wire_s * ALONE / STUN_WHOLE,
        .wants_sample = s->rate_least || s->left < STUN_WHOLE,
        .dirty_bytes_s = s->dirty_bytes_s,
    };
}

const char *stun_verdict_name(enum stun_verdict verdict)
{
    static const char *const names[] = {"unknown", "converges", "needs stun", "cannot converge"};

    return names[verdict];
}
