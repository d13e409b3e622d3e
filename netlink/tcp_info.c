/* SPDX-License-Identifier: Apache-2.0 */
/* TCP_INFO: see tcp_info.h. */
#include "netlink/tcp_info.h"

#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>

void tcp_info_read(int fd, struct stripe_tcp_info *ret)
{
    struct tcp_info info = {0};
    socklen_t len = sizeof(info);

    memset(ret, 0, sizeof(*ret));
    if (fd < 0 || getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) < 0)
        return;
    ret->rtt_us = info.tcpi_rtt;
    ret->min_rtt_us =
        info.tcpi_min_rtt == UINT32_MAX ? 0 : info.tcpi_min_rtt; /* not measured yet */
    ret->retransmits = info.tcpi_total_retrans;
    ret->segments_out = info.tcpi_segs_out;
    ret->delivered_segments = info.tcpi_delivered;
    ret->segment_bytes = info.tcpi_snd_mss;
    ret->unsent_bytes = info.tcpi_notsent_bytes;
    len = sizeof(ret->congestion_control);
    getsockopt(fd, IPPROTO_TCP, TCP_CONGESTION, ret->congestion_control, &len);
}
