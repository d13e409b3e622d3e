/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a move will take: time, downtime, bytes, and whether its memory converges. Pure arithmetic.
 *
 *   prepare    talk and libvirt's work: some round trips and about a second
 *   disks      what they hold, while the guest writes on, at the link's rate less what ramps and stops cost
 *   memory     what the guest has touched, then rounds of what was dirtied meanwhile (memory/stun.h)
 *   downtime   two round trips and libvirt's work
 *
 * The constants are measured ones: docs/benchmarks.md. They hold where link and guest decide; a disk or a
 * processor that is slower than the link makes a move longer than predicted.
 */
#ifndef FERRY_CORE_PREDICTION_H
#define FERRY_CORE_PREDICTION_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

struct prediction_input {
    uint64_t disk_bytes;         /* that the disks hold */
    bool compressed;             /* on the link */
    uint64_t memory_bytes;       /* that the guest has touched */
    uint64_t link_bytes_s;       /* what the link carries, limits counted; 0: not known */
    uint64_t rtt_us;             /* 0: not known */
    uint64_t dirty_bytes_s;      /* of memory, by the guest itself, in a second */
    uint64_t dirty_long_bytes;   /* the same in a longer time; 0: not known */
    unsigned dirty_long_s;       /* that one */
    bool dirty_known;            /* the former was measured */
    uint64_t disk_write_bytes_s; /* by the guest */
    unsigned stun_max_percent;   /* what may be taken of its processor time; 0: no stun */
    unsigned resend_percent;  /* of the first round's bytes, what a stun aims at for later ones */
    uint64_t downtime_max_ms; /* wanted at most: core/config.h */
};

enum prediction_verdict {
    PREDICTION_UNKNOWN, /* the link's rate, or the guest's, is not known */
    PREDICTION_CONVERGES,
    PREDICTION_NEEDS_STUN, /* and the policy allows it */
    PREDICTION_CANNOT,
};

struct prediction {
    bool known; /* else only the verdict holds */
    uint64_t total_ms, prepare_ms, disk_ms, memory_ms, downtime_ms;
    uint64_t bytes; /* on the link */
    enum prediction_verdict verdict;
    unsigned
        stun_percent; /* of the guest's processor time; of NEEDS_STUN, what it takes; of CANNOT, what it would */
};

void prediction_make(const struct prediction_input *in, struct prediction *ret);
const char *prediction_verdict_name(enum prediction_verdict verdict);
json_t *prediction_to_json(const struct prediction *p);

#endif
