/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast guest writes may be acknowledged when the log fills although the copy is slowed: the control
 * law of the second step of congestion control.
 *
 * As step one (congestion.c), proportional, on what the link and the target's disk sustain, C:
 *
 *     p = C (2 - fill / T), at least C / 4
 *
 * At rest p + copy = C, so the fill stands between T and 5/4 T, wherever the guest's own rate lies, and
 * p changes smoothly with it: nothing swings. T is half of the budget, and seven eighths of a spool, while
 * the disks are copied, because they are there to be used. Before the switchover (`draining`) T is what drains within two round
 * trips and 0.3 s, because the stopped guest will wait for it, and p is C / 2: the other half drains the log and
 * carries the memory, and the guest, which had 3/4, falls by no more than half. Where the target's disk is what it waits
 * for, nothing is taken from the memory, and the guest keeps what lets the log drain in half a minute:
 *
 *     p = C - (fill - T) / 30 s, at least C / 2, at most 9/10 C
 *
 *
 * C is the applied rate, smoothed; while no more is in the log than is on its way that rate says only what
 * was asked for, so then it can raise C, never lower it.
 *
 * Hysteresis. Pacing begins at fill > T. It ends when fill < 3/4 T (above where step one keeps it, below
 * where step two does) and nobody has waited for a second: then the guest wants less than it may.
 */
#ifndef FERRY_STORAGE_GUEST_PACE_H
#define FERRY_STORAGE_GUEST_PACE_H

#include <stdbool.h>
#include <stdint.h>

/* Embedded; a zeroed one is new. */
struct guest_pace {
    bool on;
    double sustained_bytes_per_s; /* C */
    double waited_s;              /* since an acknowledgement was last held */
    uint64_t held_count;
};

struct guest_pace_input {
    double dt_s;
    double applied_bytes_per_s; /* smoothed */
    uint64_t fill_bytes, unsent_bytes, budget_bytes;
    uint64_t spool_bytes; /* beside the budget; 0 = no spool */
    uint64_t rtt_ns;
    uint64_t held_count; /* acknowledgements held, ever */
    uint64_t held_now;
    bool draining;   /* the switchover is near */
    bool disk_bound; /* it is the target's disk, not the link, that applies no more */
};

/* What the log may hold when the guest is stopped, by what is known so far. */
uint64_t guest_pace_drained_bytes(const struct guest_pace *p, uint64_t rtt_ns,
                                  uint64_t budget_bytes);

/* Returns the rate in bytes/s for guest acknowledgements; 0 = at once. */
uint64_t guest_pace_update(struct guest_pace *p, const struct guest_pace_input *in);

#endif
