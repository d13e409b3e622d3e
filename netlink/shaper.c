/* SPDX-License-Identifier: Apache-2.0 */
#include "netlink/shaper.h"

#include <stddef.h>

#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/macros.h"

/* TLS, TCP and IP add 3.8 % to full segments. A limit is held between what the user gets and what an
 * interface counts, closer to the latter: each is within 3 % of it. */
#define OVERHEAD_NUMERATOR 1025u
#define OVERHEAD_DENOMINATOR 1000u

/* What may be sent at once after a pause: longer than the loop's timers are late. */
#define BURST_NS (20 * NS_PER_MS)

static int64_t burst_bytes(const struct shaper *s)
{
    return (int64_t)MAX(s->rate_bytes_s * BURST_NS / NS_PER_S,
                        (uint64_t)LIMIT_FRAME_PAYLOAD_BYTES / 4);
}

static void fill(struct shaper *s, uint64_t now_ns)
{
    uint64_t elapsed_ns = now_ns > s->filled_ns ? now_ns - s->filled_ns : 0;

    /* Longer than any debt lasts; keeps the product below 2^64 for any rate. */
    elapsed_ns = MIN(elapsed_ns, 10 * NS_PER_S);
    s->tokens_bytes += (int64_t)((double)s->rate_bytes_s * (double)elapsed_ns / (double)NS_PER_S);
    s->tokens_bytes = MIN(s->tokens_bytes, burst_bytes(s));
    s->filled_ns = now_ns;
}

void shaper_set_rate(struct shaper *s, uint64_t rate_bytes_s, uint64_t now_ns)
{
    if (s->rate_bytes_s)
        fill(s, now_ns);
    s->rate_bytes_s = rate_bytes_s;
    s->filled_ns = now_ns;
    /* A debt made at a high rate must not silence a low one for long. */
    s->tokens_bytes = MAX(s->tokens_bytes, -burst_bytes(s));
    s->tokens_bytes = MIN(s->tokens_bytes, burst_bytes(s));
}

bool shaper_allows(struct shaper *s, uint64_t now_ns)
{
    bool allowed;

    if (!s || !s->rate_bytes_s)
        return true;
    /* Small steps would be rounded away. */
    if (now_ns - s->filled_ns >= NS_PER_MS / 4)
        fill(s, now_ns);
    allowed = s->tokens_bytes > 0;
    if (!allowed && !s->waits_since_ns)
        s->waits_since_ns = now_ns;
    if (allowed && s->waits_since_ns) {
        s->waited_ns += now_ns - s->waits_since_ns;
        s->waits_since_ns = 0;
    }
    return allowed;
}

void shaper_charge(struct shaper *s, uint64_t payload_bytes)
{
    if (s && s->rate_bytes_s)
        s->tokens_bytes -= (int64_t)(payload_bytes * OVERHEAD_NUMERATOR / OVERHEAD_DENOMINATOR);
}

uint64_t shaper_deadline(const struct shaper *s)
{
    if (!s || !s->rate_bytes_s || s->tokens_bytes > 0)
        return 0;
    return s->filled_ns +
           (uint64_t)((double)(1 - s->tokens_bytes) / (double)s->rate_bytes_s * (double)NS_PER_S) +
           1;
}
