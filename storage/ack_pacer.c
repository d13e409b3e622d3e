/* SPDX-License-Identifier: Apache-2.0 */
/* When the next acknowledgement may go: see ack_pacer.h. */
#include "storage/ack_pacer.h"

#include "core/base/macros.h"

#define NS_PER_SECOND 1000000000.0
#define BURST_NS UINT64_C(5000000) /* twice what a timer of the loop may be late */

void ack_pacer_set(struct ack_pacer *p, uint64_t bytes_per_s, uint64_t now_ns)
{
    if (p->next_ns > now_ns && p->bytes_per_s > 0 && bytes_per_s > 0)
        p->next_ns = now_ns + (uint64_t)((double)(p->next_ns - now_ns) * (double)p->bytes_per_s /
                                         (double)bytes_per_s);
    else if (bytes_per_s == 0)
        p->next_ns = 0;
    p->bytes_per_s = bytes_per_s;
}

bool ack_pacer_is_due(const struct ack_pacer *p, uint64_t now_ns)
{
    return p->bytes_per_s == 0 || p->next_ns <= now_ns;
}

void ack_pacer_take(struct ack_pacer *p, uint64_t bytes, uint64_t now_ns)
{
    if (p->bytes_per_s == 0)
        return;
    p->next_ns = MAX(p->next_ns, now_ns - MIN(now_ns, BURST_NS)) +
                 (uint64_t)((double)bytes * NS_PER_SECOND / (double)p->bytes_per_s);
}
