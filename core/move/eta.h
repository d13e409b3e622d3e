/* SPDX-License-Identifier: Apache-2.0 */
/* How long a move that is under way still takes, over disks and memory together. Pure. */
#ifndef FERRY_CORE_ETA_H
#define FERRY_CORE_ETA_H

#include <stdbool.h>
#include <stdint.h>

struct eta_input {
    bool held;       /* it waits for somebody's word */
    bool memory_now; /* memory is being sent: the disks are done */
    /* What the disks hold, and how far through their whole sizes the copy is; acknowledged and not yet applied. */
    uint64_t disk_data_bytes, disk_done_bytes, disk_total_bytes, log_bytes;
    uint64_t memory_left_bytes;
    uint64_t dirty_bytes_s;   /* of memory, in the last round; 0: none is over */
    uint64_t payload_bytes_s; /* of disks and memory, taken from QEMU over the last seconds */
    uint64_t rtt_us;
};

/* Milliseconds; -1: cannot be told. */
int64_t eta_ms(const struct eta_input *in);

#endif
