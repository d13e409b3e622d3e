/* SPDX-License-Identifier: Apache-2.0 */
/* The control law of a gentle copy: see guest_care.h. */
#include "storage/guest_care.h"

#include "core/base/clock.h"
#include "core/base/macros.h"

#define PERIOD_NS (4 * NS_PER_S)
#define FIRST_BYTES_PER_S (16.0 * 1024 * 1024)
#define LEAST_BYTES_PER_S (2.0 * 1024 * 1024)
#define MOST_BYTES_PER_S (1024.0 * 1024 * 1024)
#define BURST_BYTES                                                                                \
    (UINT64_C(8) << 20) /* of QEMU's 16 MiB: more than a guest writes in a second that minds */
#define FEW_WRITES_PER_S 2.0
#define WANTED_SHARE 0.006
#define LOWER 0.4
#define RAISE 1.25
#define FORGET 0.95        /* a second */
#define FORGET_PERIOD 0.87 /* half of it in 20 s */
#define LATE_LEAST 0.1     /* a burst may have hit no write at all */
#define USUAL_SHARE 0.1
#define UNKNOWN_US 2000 /* what 9 of 10 take when there were too few to tell */
#define KNOWN_COUNT 20

const uint32_t guest_care_edges_us[GUEST_CARE_EDGES] = {
    250,   500,   750,   1000,  1250,   1500,   1750,   2000,    2250,  2500,
    2750,  3000,  3500,  4000,  4500,   5000,   6000,   8000,    10000, 13000,
    16000, 20000, 30000, 50000, 100000, 200000, 500000, 1000000,
};

static uint64_t sum(const uint64_t *bins, unsigned from)
{
    uint64_t n = 0;

    for (unsigned i = from; i < GUEST_CARE_BINS; i++)
        n += bins[i];
    return n;
}

static struct guest_care_counts since(const struct guest_care_counts *now,
                                      const struct guest_care_counts *before)
{
    struct guest_care_counts n = {0};

    for (unsigned i = 0; i < GUEST_CARE_BINS; i++) {
        n.writes[i] = now->writes[i] - MIN(before->writes[i], now->writes[i]);
        n.flushes[i] = now->flushes[i] - MIN(before->flushes[i], now->flushes[i]);
    }
    return n;
}

/* The last bin that so many or more of the counts lie in or above. */
static unsigned bin_of(const uint64_t *bins, double share)
{
    unsigned bin = GUEST_CARE_BINS - 1;

    while (bin > 0 && (double)sum(bins, bin) < share * (double)sum(bins, 0))
        bin--;
    return bin;
}

static unsigned late_from(const uint64_t *bins, uint64_t slack_us)
{
    unsigned usual = bin_of(bins, USUAL_SHARE), bin = 1;
    uint64_t usual_us = sum(bins, 0) >= KNOWN_COUNT
                            ? guest_care_edges_us[MIN(usual, GUEST_CARE_EDGES - 1u)]
                            : UNKNOWN_US;

    while (bin < GUEST_CARE_BINS - 1 && guest_care_edges_us[bin - 1] < usual_us + slack_us / 2)
        bin++;
    return bin;
}

void guest_care_begin(struct guest_care *c, const struct guest_care_counts *before,
                      uint64_t slack_us, uint64_t now_ns)
{
    c->write_late = late_from(before->writes, slack_us);
    c->flush_late = late_from(before->flushes, slack_us);
    c->last = *before;
    c->since_ns = now_ns;
    c->speed_bytes_per_s = FIRST_BYTES_PER_S;
}

static void note(struct guest_care *c, const struct guest_care_counts *now, uint64_t copied_bytes)
{
    struct guest_care_counts n = since(now, &c->last);
    double writes = (double)sum(n.writes, 0);
    double late = (double)(sum(n.writes, c->write_late) + sum(n.flushes, c->flush_late));

    c->period.writes += writes;
    c->period.copied_bytes += (double)(copied_bytes - c->last_copied_bytes);
    if (copied_bytes - c->last_copied_bytes >= BURST_BYTES) {
        c->period.burst_writes += writes;
        c->period.late += late;
    } else {
        c->quiet_writes = c->quiet_writes * FORGET + writes;
        c->quiet_late = c->quiet_late * FORGET + late;
    }
    c->last = *now;
    c->last_copied_bytes = copied_bytes;
}

static void fade(struct guest_care_span *to, const struct guest_care_span *n)
{
    *to = (struct guest_care_span){
        .seconds = to->seconds * FORGET_PERIOD + n->seconds,
        .writes = to->writes * FORGET_PERIOD + n->writes,
        .copied_bytes = to->copied_bytes * FORGET_PERIOD + n->copied_bytes,
        .burst_writes = to->burst_writes * FORGET_PERIOD + n->burst_writes,
        .late = to->late * FORGET_PERIOD + n->late,
    };
}

static void steer(struct guest_care *c)
{
    double own = c->quiet_late / MAX(c->quiet_writes, 1.0), speed = c->speed_bytes_per_s, allowed;
    struct guest_care_span *r = &c->recent;

    c->period.late = MAX(c->period.late - own * c->period.burst_writes, 0);
    fade(r, &c->period);
    allowed = WANTED_SHARE * r->writes / r->seconds * r->copied_bytes / MAX(r->late, LATE_LEAST);
    c->speed_bytes_per_s = MAX(MIN(MAX(allowed, speed * LOWER), speed * RAISE), LEAST_BYTES_PER_S);
}

uint64_t guest_care_update(struct guest_care *c, const struct guest_care_counts *now,
                           uint64_t copied_bytes, uint64_t now_ns)
{
    struct guest_care_span *p = &c->period;

    if (c->write_late == 0)
        return 0;
    note(c, now, copied_bytes);
    if (now_ns < c->since_ns + PERIOD_NS)
        return (uint64_t)c->speed_bytes_per_s;
    p->seconds = (double)(now_ns - c->since_ns) / (double)NS_PER_S;
    if (p->writes < FEW_WRITES_PER_S * p->seconds)
        c->speed_bytes_per_s = MIN(c->speed_bytes_per_s * 2, MOST_BYTES_PER_S);
    else
        steer(c);
    *p = (struct guest_care_span){0};
    c->since_ns = now_ns;
    return (uint64_t)c->speed_bytes_per_s;
}
