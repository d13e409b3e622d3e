/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How fast the bulk copy may run so that the guest's writes take hardly longer than before: the control law of a copy
 * that is to be gentle.
 *
 * QEMU copies a disk in bursts: it reads 16 MiB at once and sends them, and then pauses as long as its speed wants. A
 * guest's write that comes amid a burst waits behind it, at the disk and at the mirror's connection; how much of the
 * copy a burst is cannot be said to QEMU through libvirt (9.0), only how often there is one. So the share of writes
 * that are late is about the copy's speed times what a burst takes, and it is the speed that is steered:
 *
 *     every 4 s:  speed = 0.6 % of the guest's writes a second / writes that are late a byte copied
 *                         by no more than 2/5 and 5/4 of the last, at least 2 MiB/s;
 *                 hardly any writes to be late: twice the speed
 *
 * both over the last half minute, because a burst may come only every ten seconds. The rest of the 1 % is for what the
 * move does besides: memory, the switchover.
 *
 * Late is, by QEMU's own histograms, a write or a flush that takes half of the slack longer than 9 of 10 did before the
 * copy: a synchronous write is both, and there is no time to see what one of 100 takes. A guest has late ones of its own,
 * and so has a busy host; what counts is how many more there are in the seconds that have a burst than in those that
 * have none.
 */
#ifndef FERRY_STORAGE_GUEST_CARE_H
#define FERRY_STORAGE_GUEST_CARE_H

#include <stdint.h>

enum { GUEST_CARE_EDGES = 28, GUEST_CARE_BINS = GUEST_CARE_EDGES + 1 };

/* Upper edges of the histograms' bins, in microseconds; the last bin has none. */
extern const uint32_t guest_care_edges_us[GUEST_CARE_EDGES];

/* Counts since QEMU was told to, all disks of the move together. */
struct guest_care_counts {
    uint64_t writes[GUEST_CARE_BINS], flushes[GUEST_CARE_BINS];
};

/* What went on for a while. */
struct guest_care_span {
    double seconds, writes, copied_bytes;
    double burst_writes; /* in the seconds that had a burst */
    double late;         /* of these, more than there would have been without one */
};

/* Embedded; a zeroed one is new. */
struct guest_care {
    struct guest_care_counts last;
    uint64_t last_copied_bytes;
    unsigned write_late, flush_late; /* the first bin that is late; 0: not known yet */
    double speed_bytes_per_s;        /* 0: no limit */
    uint64_t since_ns;               /* of the period */
    struct guest_care_span period, recent;
    double quiet_writes, quiet_late; /* of late, without a burst */
};

/* The copy begins: what came before it is how long the guest's writes take, give or take @slack_us. */
void guest_care_begin(struct guest_care *c, const struct guest_care_counts *before,
                      uint64_t slack_us, uint64_t now_ns);
/* About every second. @copied_bytes: by QEMU, ever. Returns the copy's limit in bytes/s; 0: none. */
uint64_t guest_care_update(struct guest_care *c, const struct guest_care_counts *now,
                           uint64_t copied_bytes, uint64_t now_ns);

#endif
