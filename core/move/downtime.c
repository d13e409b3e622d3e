/* SPDX-License-Identifier: Apache-2.0 */
/* The downtime in its parts: see downtime.h. */
#include "core/move/downtime.h"

#include "core/base/macros.h"

enum { NS_PER_US = 1000 };

static uint64_t span_us(uint64_t from_ns, uint64_t to_ns)
{
    return to_ns > from_ns ? (to_ns - from_ns) / NS_PER_US : 0;
}

static uint64_t less(uint64_t a, uint64_t b)
{
    return a - MIN(a, b);
}

bool downtime_spans_of(const struct downtime_target *t, struct downtime_spans *ret)
{
    if (!t->complete_ns || !t->answered_ns || !t->committed_ns || !t->resumed_ns)
        return false;
    /* The tail may come after the disks: then nothing waited. */
    ret->flush_us = t->tail_waits_ns ? span_us(t->tail_waits_ns, t->disks_done_ns) : 0;
    ret->load_us = span_us(t->complete_ns, t->answered_ns);
    ret->resume_us = span_us(t->committed_ns, t->resumed_ns);
    return true;
}

bool downtime_split(const struct downtime_marks *m, const struct downtime_spans *s, uint64_t rtt_us,
                    struct downtime_parts *ret)
{
    uint64_t crossing_us = rtt_us / 2, whole_us, until_reply_us;

    if (!m->stopped_ns || !m->ram_end_ns || !m->reply_ns || !m->commit_ns || !m->resumed_word_ns)
        return false;
    whole_us = less(span_us(m->stopped_ns, m->resumed_word_ns), crossing_us);
    until_reply_us = less(span_us(m->ram_end_ns, m->reply_ns), crossing_us);
    ret->stop_us = span_us(m->stopped_ns, m->ram_end_ns);
    ret->flush_us = MIN(s->flush_us, until_reply_us);
    ret->load_us = MIN(s->load_us, until_reply_us - ret->flush_us);
    ret->tail_us = until_reply_us - ret->flush_us - ret->load_us;
    ret->reply_us = span_us(m->reply_ns, m->commit_ns) + crossing_us;
    ret->resume_us = s->resume_us;
    ret->commit_us = less(whole_us, ret->stop_us + ret->tail_us + ret->flush_us + ret->load_us +
                                        ret->reply_us + ret->resume_us);
    return true;
}
