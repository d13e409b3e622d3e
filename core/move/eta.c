/* SPDX-License-Identifier: Apache-2.0 */
#include "core/move/eta.h"

#include "core/base/macros.h"

/* Beside bytes: the ends of rounds, and the switchover with libvirt's work. */
enum { END_ROUND_TRIPS = 8, END_WORK_MS = 300 };

int64_t eta_ms(const struct eta_input *in)
{
    double rate = (double)in->payload_bytes_s, left = (double)in->memory_left_bytes;

    if (in->held || in->payload_bytes_s == 0)
        return -1;
    if (in->memory_now) {
        rate -= (double)in->dirty_bytes_s; /* what is dirtied meanwhile is sent again */
        if (rate < (double)in->payload_bytes_s / 20)
            return -1;
    } else {
        uint64_t done = MIN(in->disk_done_bytes, in->disk_total_bytes);

        if (in->disk_total_bytes) /* holes take no time */
            left += (double)in->disk_data_bytes * (1 - (double)done / (double)in->disk_total_bytes);
        left += (double)in->log_bytes;
    }
    return (int64_t)(1000 * left / rate) + END_ROUND_TRIPS * (int64_t)in->rtt_us / 1000 +
           END_WORK_MS;
}
