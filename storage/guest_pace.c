/* SPDX-License-Identifier: Apache-2.0 */
/* The control law of guest acknowledgements: see guest_pace.h. */
#include "storage/guest_pace.h"

#include "core/base/macros.h"

#define LEAST_BYTES_PER_S (256.0 * 1024)
#define UNSENT_BYTES (256.0 * 1024) /* more than this in the log: it waits for the link */
#define QUEUED_BYTES (1024.0 * 1024)
#define LEAVE_SHARE 0.75
#define SMOOTHING_S 1.0
#define QUIET_S 1.0
#define DRAIN_S 0.3
#define DRAIN_LEAST_BYTES (4.0 * 1024 * 1024)
#define DRAIN_SHARE 0.5
#define DRAIN_DISK_SHARE 0.9
#define DRAIN_DISK_S 30.0
#define COPY_LEAST_SHARE 0.25

/* Does more wait than a round trip explains? Then what is applied is what can be applied. */
static bool is_backlogged(const struct guest_pace *p, const struct guest_pace_input *in)
{
    double in_flight = p->sustained_bytes_per_s * ((double)in->rtt_ns / 1e9 + 0.1);

    return (double)in->unsent_bytes > UNSENT_BYTES ||
           (double)in->fill_bytes > in_flight + QUEUED_BYTES;
}

static void learn(struct guest_pace *p, const struct guest_pace_input *in)
{
    double rate = in->applied_bytes_per_s;

    if (rate > p->sustained_bytes_per_s)
        p->sustained_bytes_per_s = rate;
    else if (is_backlogged(p, in))
        p->sustained_bytes_per_s +=
            (rate - p->sustained_bytes_per_s) * MIN(in->dt_s / SMOOTHING_S, 1.0);
    p->waited_s = in->held_now > 0 || in->held_count != p->held_count ? 0 : p->waited_s + in->dt_s;
    p->held_count = in->held_count;
}

uint64_t guest_pace_drained_bytes(const struct guest_pace *p, uint64_t rtt_ns,
                                  uint64_t budget_bytes)
{
    double drained = p->sustained_bytes_per_s * (2 * (double)rtt_ns / 1e9 + DRAIN_S);

    return (uint64_t)MIN(MAX(drained, DRAIN_LEAST_BYTES), (double)budget_bytes / 2);
}

static double set_point(const struct guest_pace *p, const struct guest_pace_input *in)
{
    if (in->draining)
        return (double)guest_pace_drained_bytes(p, in->rtt_ns, in->budget_bytes);
    return (double)in->budget_bytes / 2 + (double)in->spool_bytes / 8 * 7;
}

static double draining_bytes_per_s(const struct guest_pace *p, const struct guest_pace_input *in,
                                   double target)
{
    double most = p->sustained_bytes_per_s, least = most * DRAIN_SHARE;

    if (!in->disk_bound)
        return least;
    return MIN(MAX(most - ((double)in->fill_bytes - target) / DRAIN_DISK_S, least),
               most * DRAIN_DISK_SHARE);
}

uint64_t guest_pace_update(struct guest_pace *p, const struct guest_pace_input *in)
{
    double fill = (double)in->fill_bytes, target, pace;

    learn(p, in);
    target = set_point(p, in);
    if (fill > target)
        p->on = true;
    else if (fill < target * LEAVE_SHARE && p->waited_s >= QUIET_S)
        p->on = false;
    if (!p->on)
        return 0;
    pace = in->draining ? draining_bytes_per_s(p, in, target)
                        : p->sustained_bytes_per_s * MAX(2 - fill / target, COPY_LEAST_SHARE);
    return (uint64_t)MAX(pace, LEAST_BYTES_PER_S);
}
