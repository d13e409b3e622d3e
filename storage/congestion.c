/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control law of the bulk copy's speed, step one; and the pace of the guest, step two, which has its
 * own law in guest_pace.h.
 *
 * The plant: what comes in (bulk + guest) minus what is applied accumulates as the log's fill. We can
 * set the bulk's speed u; the guest's rate and the link's are unknown and change. The fill answers late:
 * by a round trip, and by our own sampling.
 *
 * Wanted: fill at a set point T that keeps the link fed (more than rate x RTT) but leaves most of the
 * budget to the guest: one second of the measured applied rate, at least 64 MiB, at most a quarter of
 * the budget. The least is large because QEMU's copy comes in bursts of 16 requests of 1 MiB, with a
 * pause that makes up for them: with a small T a burst would be taken for congestion, and a link that
 * is idle between two bursts for a slow one.
 *
 * The law is proportional, on the measured applied rate r:
 *
 *     u = r (2 - fill / T), at least r / 4, at most 2 r + 8 MiB/s
 *
 * At rest u + guest = r, so fill = T (1 + guest / r), which is below 2 T whatever the guest writes:
 * neither the guest's rate nor the link's needs to be known, and a wrong guess of what is bulk cannot
 * mislead it. An empty log makes u twice the rate, so that it doubles about every second until the link
 * is full; a copy limited by its source's disk never finds a u far above what it uses. While less than
 * T / 4 is in the log there is nothing to protect, and the measured rate says only that nothing was sent
 * (holes cost QEMU's limit, but not the link): u then grows by half a sample, from 32 MiB/s (less with a
 * smaller budget) to 256 MiB/s. Where nine tenths of what comes are holes, QEMU's limit is all that they wait for,
 * and u grows on to twice the budget a second, 512 MiB/s: what comes behind the hole before
 * the next sample is what the log can take in. u never falls below 256 KiB/s, so that the copy always ends. The speed is reported when it fell by a tenth or rose by a quarter: every report is a command
 * to QEMU, and every raise makes it send a burst at once.
 */
#include "storage/congestion.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "core/base/macros.h"
#include "storage/guest_pace.h"

#define SAMPLE_NS UINT64_C(100000000)
#define FIRST_BYTES_PER_S (32.0 * 1024 * 1024)
#define IDLE_MOST_BYTES_PER_S (256.0 * 1024 * 1024)
#define HOLES_BUDGETS_PER_S 2.0
#define HOLES_LEAST_SHARE 0.9
#define HOLES_SMOOTHING_S 0.3
#define FLOOR_BYTES_PER_S (256.0 * 1024)
#define HEADROOM_BYTES_PER_S (8.0 * 1024 * 1024)
#define TARGET_LEAST_BYTES (64.0 * 1024 * 1024)
#define FIRST_LEAST_BYTES_PER_S (4.0 * 1024 * 1024)
#define TARGET_QUEUE_S 0.25
#define TARGET_QUEUE_BYTES (3.0 * 1024 * 1024)
#define RATE_SMOOTHING_S 1.0
#define REPORT_RAISE 0.25
#define REPORT_CUT 0.10

struct congestion {
    bool started;
    uint64_t last_ns;
    uint64_t last_applied_bytes, last_data_bytes, last_hole_bytes;
    double data_bytes_per_s, holes_bytes_per_s; /* taken, smoothed a little */
    double rate_bytes_per_s;                    /* applied, smoothed */
    double speed_bytes_per_s;                   /* u */
    double told_bytes_per_s;
    struct guest_pace guest;
    struct congestion_output output;
};

int congestion_new(struct congestion **ret_congestion)
{
    struct congestion *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    *ret_congestion = c;
    return 0;
}

uint64_t congestion_first_bytes_per_s(uint64_t budget_bytes)
{
    return (uint64_t)MIN(FIRST_BYTES_PER_S, MAX((double)budget_bytes / 8, FIRST_LEAST_BYTES_PER_S));
}

void congestion_free(struct congestion *c)
{
    free(c);
}

const char *congestion_reason_name(enum congestion_reason reason)
{
    static const char *const names[] = {"none", "link", "target disk", "limit", "guest"};

    static_assert(ARRAY_SIZE(names) == CONGESTION_REASONS, "every reason has a name");
    return names[reason];
}

static double smooth(double old, double sample, double weight)
{
    return old + (sample - old) * MIN(weight, 1.0);
}

static void measure(struct congestion *c, const struct congestion_input *in, double dt_s)
{
    double applied = in->applied_bytes > c->last_applied_bytes
                         ? (double)(in->applied_bytes - c->last_applied_bytes)
                         : 0;

    c->rate_bytes_per_s = smooth(c->rate_bytes_per_s, applied / dt_s, dt_s / RATE_SMOOTHING_S);
    c->last_applied_bytes = in->applied_bytes;
    c->data_bytes_per_s =
        smooth(c->data_bytes_per_s, (double)(in->data_bytes - c->last_data_bytes) / dt_s,
               dt_s / HOLES_SMOOTHING_S);
    c->holes_bytes_per_s =
        smooth(c->holes_bytes_per_s, (double)(in->hole_bytes - c->last_hole_bytes) / dt_s,
               dt_s / HOLES_SMOOTHING_S);
    c->last_data_bytes = in->data_bytes;
    c->last_hole_bytes = in->hole_bytes;
}

static double set_point(const struct congestion *c, const struct congestion_input *in)
{
    double wanted = MAX(c->rate_bytes_per_s, TARGET_LEAST_BYTES);

    return MIN(wanted, (double)in->budget_bytes / 4);
}

/* How far u may grow while hardly anything is in the log. */
static double idle_most(const struct congestion *c, const struct congestion_input *in)
{
    double all = c->data_bytes_per_s + c->holes_bytes_per_s;

    return all > 0 && c->holes_bytes_per_s > HOLES_LEAST_SHARE * all
               ? MAX(IDLE_MOST_BYTES_PER_S, HOLES_BUDGETS_PER_S * (double)in->budget_bytes)
               : IDLE_MOST_BYTES_PER_S;
}

static void steer(struct congestion *c, const struct congestion_input *in, double target)
{
    double fill = (double)in->fill_bytes;
    double first = (double)congestion_first_bytes_per_s(in->budget_bytes);
    double u = c->rate_bytes_per_s * MAX(2 - fill / target, 0.25);

    if (fill < target / 2)
        u += HEADROOM_BYTES_PER_S;
    if (fill < target / 4)
        u = MAX(u, MIN(MAX(c->speed_bytes_per_s * 1.5, first), idle_most(c, in)));
    c->speed_bytes_per_s = MAX(u, FLOOR_BYTES_PER_S);
}

/* More lies at the target than its disk writes in a moment: the link is not what it waits for. */
static bool is_disk_bound(const struct congestion *c, const struct congestion_input *in)
{
    return (double)in->target_queue_bytes >
           MAX(c->rate_bytes_per_s * TARGET_QUEUE_S, TARGET_QUEUE_BYTES);
}

static enum congestion_reason judge(const struct congestion *c, const struct congestion_input *in,
                                    double target)
{
    if ((double)in->fill_bytes < target / 2 && c->output.guest_bytes_per_s == 0)
        return CONGESTION_NONE;
    if (in->limit_bytes_per_s > 0 && c->rate_bytes_per_s > 0.8 * (double)in->limit_bytes_per_s)
        return CONGESTION_LIMIT;
    return is_disk_bound(c, in) ? CONGESTION_TARGET_DISK : CONGESTION_LINK;
}

static void pace_guest(struct congestion *c, const struct congestion_input *in, double dt_s)
{
    struct guest_pace_input pace = {
        .dt_s = dt_s,
        .applied_bytes_per_s = c->rate_bytes_per_s,
        .fill_bytes = in->fill_bytes,
        .unsent_bytes = in->unsent_bytes,
        .budget_bytes = in->budget_bytes,
        .spool_bytes = in->spool_bytes,
        .rtt_ns = in->rtt_ns,
        .held_count = in->held_count,
        .held_now = in->held_now,
        .draining = in->draining,
        .disk_bound = is_disk_bound(c, in),
    };

    c->output.guest_bytes_per_s = guest_pace_update(&c->guest, &pace);
    c->output.drained_bytes = guest_pace_drained_bytes(&c->guest, in->rtt_ns, in->budget_bytes);
}

static void report(struct congestion *c, const struct congestion_input *in, double target)
{
    double step = c->speed_bytes_per_s - c->told_bytes_per_s;
    bool moved =
        step > c->told_bytes_per_s * REPORT_RAISE || -step > c->told_bytes_per_s * REPORT_CUT;

    c->output.changed = in->bulk_running && moved;
    if (c->output.changed)
        c->told_bytes_per_s = c->speed_bytes_per_s;
    c->output.bulk_bytes_per_s = (uint64_t)c->told_bytes_per_s;
    c->output.applied_bytes_per_s = (uint64_t)c->rate_bytes_per_s;
    c->output.reason = judge(c, in, target);
}

void congestion_update(struct congestion *c, const struct congestion_input *in,
                       struct congestion_output *ret_output)
{
    double dt_s;

    if (c->started && in->now_ns < c->last_ns + SAMPLE_NS) {
        *ret_output = c->output;
        ret_output->changed = false;
        return;
    }
    if (c->started) {
        dt_s = MIN((double)(in->now_ns - c->last_ns) / 1e9, 1.0);
        measure(c, in, dt_s);
        if (in->bulk_running)
            steer(c, in, set_point(c, in));
        pace_guest(c, in, dt_s);
    } else {
        c->last_applied_bytes = in->applied_bytes;
        c->last_data_bytes = in->data_bytes;
        c->last_hole_bytes = in->hole_bytes;
        c->speed_bytes_per_s = (double)congestion_first_bytes_per_s(in->budget_bytes);
    }
    c->started = true;
    c->last_ns = in->now_ns;
    report(c, in, set_point(c, in));
    *ret_output = c->output;
}
