/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control law of the bulk copy's speed.
 *
 * The plant: what comes in (bulk + guest) minus what is applied accumulates as the log's fill. We can
 * set the bulk's speed u; the guest's rate and the link's are unknown and change. The fill answers late:
 * by a round trip, and by our own sampling.
 *
 * Wanted: fill at a set point T that keeps the link fed (more than rate x RTT) but leaves most of the
 * budget to the guest. T = one second of the measured applied rate, at least 4 MiB, at most a quarter
 * of the budget. No RTT beyond a second is expected between two hosts.
 *
 * The law works on the change of u, per second:
 *
 *     du/dt = B (T - fill) / s^2  -  A dfill/dt / s            A = 1.0, B = 0.25
 *
 * With dfill/dt = u + guest - link this is a damped oscillator (2 sqrt(B) = A: critically damped)
 * whatever the guest and the link are: its only rest is fill = T with u = link - guest. Neither needs
 * to be measured, and a wrong guess of what is bulk cannot mislead it. Three corrections:
 *
 *   growing   while the fill is under half of T the link is not full; u grows by a quarter per 100 ms
 *             instead, as TCP's slow start does, because from 32 MiB/s to the link's 10 Gbit/s the
 *             linear law would take long
 *   windup    u stays within twice the applied rate plus 8 MiB/s: a copy limited by its source disk
 *             does not use its u, and must not find a huge one when it could
 *   draining  above twice T u is cut by a fifth per 100 ms in addition: the budget is at stake
 *
 * and u never falls below 256 KiB/s, so that the copy always ends. The speed is reported when it moved
 * by more than a tenth, since every report is a command to QEMU.
 */
#include "storage/congestion.h"

#include <errno.h>
#include <stdlib.h>

#include "core/base/macros.h"

#define SAMPLE_NS UINT64_C(100000000)
#define FIRST_BYTES_PER_S (32.0 * 1024 * 1024)
#define FLOOR_BYTES_PER_S (256.0 * 1024)
#define HEADROOM_BYTES_PER_S (8.0 * 1024 * 1024)
#define TARGET_LEAST_BYTES (4.0 * 1024 * 1024)
#define RATE_SMOOTHING_S 0.5
#define GAIN_DAMPING 1.0
#define GAIN_FILL 0.25
#define REPORT_STEP 0.10

struct congestion {
    bool started;
    uint64_t last_ns;
    uint64_t last_applied_bytes;
    double last_fill_bytes;
    double rate_bytes_per_s;  /* applied, smoothed */
    double slope_bytes_per_s; /* of the fill, smoothed */
    double speed_bytes_per_s; /* u */
    double told_bytes_per_s;
    struct congestion_output output;
};

int congestion_new(struct congestion **ret_congestion)
{
    struct congestion *c = calloc(1, sizeof(*c));

    if (!c)
        return -ENOMEM;
    c->speed_bytes_per_s = FIRST_BYTES_PER_S;
    *ret_congestion = c;
    return 0;
}

void congestion_free(struct congestion *c)
{
    free(c);
}

const char *congestion_reason_name(enum congestion_reason reason)
{
    static const char *const names[] = {"none", "link", "target disk", "limit"};

    return names[reason];
}

static double smooth(double old, double sample, double dt_s)
{
    double weight = MIN(dt_s / RATE_SMOOTHING_S, 1.0);

    return old + (sample - old) * weight;
}

static void measure(struct congestion *c, const struct congestion_input *in, double dt_s)
{
    double applied = in->applied_bytes > c->last_applied_bytes
                         ? (double)(in->applied_bytes - c->last_applied_bytes)
                         : 0;
    double fill = (double)in->fill_bytes;

    c->rate_bytes_per_s = smooth(c->rate_bytes_per_s, applied / dt_s, dt_s);
    c->slope_bytes_per_s = smooth(c->slope_bytes_per_s, (fill - c->last_fill_bytes) / dt_s, dt_s);
    c->last_applied_bytes = in->applied_bytes;
    c->last_fill_bytes = fill;
}

static double set_point(const struct congestion *c, const struct congestion_input *in)
{
    double wanted = MAX(c->rate_bytes_per_s, TARGET_LEAST_BYTES);

    return MIN(wanted, (double)in->budget_bytes / 4);
}

static void steer(struct congestion *c, const struct congestion_input *in, double target,
                  double dt_s)
{
    double fill = (double)in->fill_bytes;
    double u = c->speed_bytes_per_s;
    double most = 2 * c->rate_bytes_per_s + HEADROOM_BYTES_PER_S;

    if (fill < target / 2)
        u *= 1 + 2.5 * dt_s;
    else
        u += (GAIN_FILL * (target - fill) - GAIN_DAMPING * c->slope_bytes_per_s) * dt_s;
    if (fill > 2 * target)
        u *= 1 - MIN(2.0 * dt_s, 0.5);
    if (c->last_ns != 0 && c->rate_bytes_per_s > 0)
        u = MIN(u, MAX(most, FIRST_BYTES_PER_S));
    c->speed_bytes_per_s = MAX(u, FLOOR_BYTES_PER_S);
}

static enum congestion_reason judge(const struct congestion *c, const struct congestion_input *in,
                                    double target)
{
    if ((double)in->fill_bytes < target / 2)
        return CONGESTION_NONE;
    if (in->limit_bytes_per_s > 0 && c->rate_bytes_per_s > 0.8 * (double)in->limit_bytes_per_s)
        return CONGESTION_LIMIT;
    /* Most of the log already lies at the target and waits for its disk. */
    if (in->target_queue_bytes > in->fill_bytes / 2)
        return CONGESTION_TARGET_DISK;
    return CONGESTION_LINK;
}

static void report(struct congestion *c, const struct congestion_input *in, double target)
{
    double step = c->speed_bytes_per_s - c->told_bytes_per_s;
    bool moved =
        step > c->told_bytes_per_s * REPORT_STEP || -step > c->told_bytes_per_s * REPORT_STEP;

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
            steer(c, in, set_point(c, in), dt_s);
    } else {
        c->last_applied_bytes = in->applied_bytes;
        c->last_fill_bytes = (double)in->fill_bytes;
    }
    c->started = true;
    c->last_ns = in->now_ns;
    report(c, in, set_point(c, in));
    *ret_output = c->output;
}
