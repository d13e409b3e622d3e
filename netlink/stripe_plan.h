/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How many stripes a session should have when that is left to it. An engine: no clock of its own.
 *
 * One TCP connection carries what its socket buffers hold in a round trip, and less where packets are lost; a
 * line may take more. Nobody says in advance which holds things up, so it is tried: while bytes wait, no queue
 * shows that the line is full, and the rate does not grow by itself, a few stripes are added. When that gained
 * nothing it was something else, and it is left alone for a while.
 *
 *   HOLD --busy, line not full, rate stands for a span--> TRY --gained 10 %--> HOLD (and on)
 *                                                          `--gained less---> HOLD for a minute
 */
#ifndef FERRY_NETLINK_STRIPE_PLAN_H
#define FERRY_NETLINK_STRIPE_PLAN_H

#include <stdbool.h>
#include <stdint.h>

enum { STRIPE_PLAN_FIRST = 4 };

struct stripe_plan {
    unsigned wanted; /* begin with STRIPE_PLAN_FIRST */
    bool trying;
    uint64_t since_ns, since_bytes; /* of the span that is measured; 0: none begun */
    uint64_t rate_bytes_s;          /* in the span before, 0: none */
    uint64_t again_ns;              /* not before */
};

struct stripe_sample {
    uint64_t now_ns, rtt_ns;
    uint64_t delivered_bytes; /* acknowledged by the peer's TCP since the session began */
    bool busy;                /* bytes wait, all sockets are full */
    bool line_is_full;        /* the pacer has found its rate */
};

/* Call it often (every tick). */
void stripe_plan_take(struct stripe_plan *p, const struct stripe_sample *s);

#endif
