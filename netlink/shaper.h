/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A bandwidth limit: a token bucket that is paid after sending. Shared by all who send under the limit;
 * its rate may change at any time. An engine: no clock of its own.
 */
#ifndef FERRY_NETLINK_SHAPER_H
#define FERRY_NETLINK_SHAPER_H

#include <stdbool.h>
#include <stdint.h>

struct shaper {
    uint64_t rate_bytes_s; /* 0: no limit */
    int64_t tokens_bytes;  /* below zero: in debt, wait */
    uint64_t filled_ns;    /* when tokens were last added */
    uint64_t waited_ns;    /* statistics: time during which somebody could have sent more */
    uint64_t waits_since_ns;
};

/* NULL stands for "no limit" in all of these. */
void shaper_set_rate(struct shaper *s, uint64_t rate_bytes_s, uint64_t now_ns);
/* May something be sent now? */
bool shaper_allows(struct shaper *s, uint64_t now_ns);
/* @payload_bytes were handed to the wire, with what TLS, TCP and IP add to them. */
void shaper_charge(struct shaper *s, uint64_t payload_bytes);
/* When it allows again; 0: now. */
uint64_t shaper_deadline(const struct shaper *s);

#endif
