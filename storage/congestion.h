/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Congestion control of the mirror: how fast may the bulk copy run so that the mirror log stays short
 * enough for the guest's writes to find room, and yet never runs dry.
 *
 * A pure controller: the owner tells it what it sees about every 100 ms, and sets the speed it answers
 * (QMP block-job-set-speed). One controller serves all disks of a move; the speed is divided by the
 * owner. See congestion.c for the control law.
 */
#ifndef FERRY_STORAGE_CONGESTION_H
#define FERRY_STORAGE_CONGESTION_H

#include <stdbool.h>
#include <stdint.h>

struct congestion;

enum congestion_reason {
    CONGESTION_NONE,        /* the log is short: nothing holds the copy back */
    CONGESTION_LINK,        /* the link delivers less than is offered */
    CONGESTION_TARGET_DISK, /* the target's disk applies less than the link delivers */
    CONGESTION_LIMIT,       /* the operator's bandwidth limit */
    CONGESTION_GUEST, /* its writes would take longer (guest_care.h); never a reason of this controller's own */
    CONGESTION_REASONS,
};

struct congestion_input {
    uint64_t now_ns;
    uint64_t fill_bytes;             /* of the log(s): mirror_log_stats.fill_bytes */
    uint64_t budget_bytes;           /* what they may hold */
    uint64_t applied_bytes;          /* ever, at the target: mirror_log_stats.applied_bytes */
    uint64_t data_bytes, hole_bytes; /* ever, taken from QEMU: holes cost next to nothing */
    uint64_t target_queue_bytes;     /* received and not applied there: mirror_source_stats */
    uint64_t limit_bytes_per_s;      /* the operator's limit for this; 0 = none */
    bool bulk_running;               /* before READY */
    /* for step two, see guest_pace.h */
    uint64_t spool_bytes;  /* what may go to the spool beside the budget; the fill counts it, too */
    uint64_t unsent_bytes; /* of the fill, not yet on its way */
    uint64_t rtt_ns;       /* of the link */
    uint64_t held_count;   /* acknowledgements held, ever: mirror_log_stats */
    uint64_t held_now;
    bool draining; /* the switchover is near */
};

struct congestion_output {
    bool changed;                 /* since the last output: set it now */
    uint64_t bulk_bytes_per_s;    /* 0 = unlimited */
    uint64_t guest_bytes_per_s;   /* pace of the guest's acknowledgements; 0 = at once */
    uint64_t drained_bytes;       /* the log is short enough for the switchover below this */
    uint64_t applied_bytes_per_s; /* the smoothed rate, for display */
    enum congestion_reason reason;
};

int congestion_new(struct congestion **ret_congestion);
/* The copy's speed before anything is known, by what the logs may hold. */
uint64_t congestion_first_bytes_per_s(uint64_t budget_bytes);
void congestion_free(struct congestion *c);

/* Called earlier than 100 ms after the last time it only repeats its last answer. */
void congestion_update(struct congestion *c, const struct congestion_input *in,
                       struct congestion_output *ret_output);

const char *congestion_reason_name(enum congestion_reason reason);

#endif
