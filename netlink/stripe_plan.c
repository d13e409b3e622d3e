/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink/stripe_plan.h"

#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/macros.h"

/* Long enough for a new connection to reach its pace: a start doubles its rate every round trip. */
#define SPAN_LEAST_NS (1 * NS_PER_S)
#define SPAN_ROUND_TRIPS 10
#define AGAIN_NS (60 * NS_PER_S)

/* More than noise. */
static bool has_grown(uint64_t before, uint64_t now)
{
    return now > before / 10 * 11;
}

static void end_span(struct stripe_plan *p, const struct stripe_sample *s)
{
    uint64_t rate = (uint64_t)((double)(s->delivered_bytes - p->since_bytes) * (double)NS_PER_S /
                               (double)(s->now_ns - p->since_ns));
    uint64_t before = p->rate_bytes_s;

    p->rate_bytes_s = rate;
    if (before == 0 || has_grown(before, rate)) { /* it grows: no need for more, or more helped */
        p->trying = false;
        return;
    }
    if (p->trying) {
        p->trying = false;
        p->again_ns = s->now_ns + AGAIN_NS;
    } else if (s->now_ns >= p->again_ns && p->wanted < LIMIT_SESSION_STRIPES) {
        p->trying = true;
        p->wanted = MIN(p->wanted + MAX(p->wanted / 2, 2u), (unsigned)LIMIT_SESSION_STRIPES);
    }
}

void stripe_plan_take(struct stripe_plan *p, const struct stripe_sample *s)
{
    if (!s->busy || s->line_is_full) { /* nothing to be learned */
        p->since_ns = p->rate_bytes_s = 0;
        p->trying = false;
        return;
    }
    if (p->since_ns) {
        if (s->now_ns - p->since_ns < MAX(SPAN_LEAST_NS, SPAN_ROUND_TRIPS * s->rtt_ns))
            return;
        end_span(p, s);
    }
    p->since_ns = s->now_ns;
    p->since_bytes = s->delivered_bytes;
}
