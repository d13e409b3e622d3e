/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernel knows of one TCP connection; apart from the rest because its header fights libuv's. */
#ifndef FERRY_NETLINK_TCP_INFO_H
#define FERRY_NETLINK_TCP_INFO_H

#include <stdint.h>

struct stripe_tcp_info {
    uint32_t rtt_us, min_rtt_us;
    uint32_t retransmits, segments_out;
    uint32_t
        delivered_segments; /* to the peer's TCP since the connection began, also beyond a loss */
    uint32_t segment_bytes;
    uint32_t unsent_bytes; /* given to TCP, and not sent for the first time yet */
    char congestion_control[16];
};

/* All zeroes when the kernel does not answer. */
void tcp_info_read(int fd, struct stripe_tcp_info *ret);

#endif
