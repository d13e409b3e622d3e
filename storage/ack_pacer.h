/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Spreads the acknowledgements of guest writes over time: the second step of congestion control. How
 * many bytes a second is guest_pace.h's affair; here is when the next one may go.
 *
 * Shared by the logs of a move. A pacer that was idle lets a few milliseconds' worth go at once, because
 * timers are no finer than that. Plain data, no allocation; a zeroed one paces nothing.
 */
#ifndef FERRY_STORAGE_ACK_PACER_H
#define FERRY_STORAGE_ACK_PACER_H

#include <stdbool.h>
#include <stdint.h>

struct ack_pacer {
    uint64_t bytes_per_s; /* 0 = everything at once */
    uint64_t next_ns;     /* nothing goes before */
};

/* A new rate takes effect for what waits already. */
void ack_pacer_set(struct ack_pacer *p, uint64_t bytes_per_s, uint64_t now_ns);
/* May an acknowledgement go now? */
bool ack_pacer_is_due(const struct ack_pacer *p, uint64_t now_ns);
/* One of @bytes goes now. */
void ack_pacer_take(struct ack_pacer *p, uint64_t bytes, uint64_t now_ns);

#endif
