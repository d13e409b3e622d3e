/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The downtime in its parts: from the guest's last instruction at the source to its first at the target.
 *
 *   source   stopped ---- RAM ends -----------------------------> reply ---- COMMIT sent --------> RESUMED
 *                  stop           \ tail, flush          reply  /                     \ commit  / (word)
 *   target                         `--> complete ---> answered-'                      `--> resumed
 *                                               load                                       resume
 *
 *   stop    from libvirt's event that the guest is stopped (or what tells it first: the end of a disk's mirror)
 *           until the last RAM page has left QEMU, as the stream's parser sees it
 *   tail    until the target has disks, memory and FINISH3 call; without
 *   flush   the time in which the stream's opaque tail was there and waited for the disks
 *   load    until the target's libvirt has answered FINISH3: PREPARED on its disk, and QEMU's loading
 *   reply   half a round trip back, COMMIT on the source's disk, and libvirt's reading of the reply
 *   commit  half a round trip, and COMMITTED on the target's disk
 *   resume  virDomainResume at the target, until it returns
 *
 * The two clocks are never compared: the target reports spans of its own, the source has the whole by its
 * own clock, and a crossing counts half of the shortest round trip the link has seen. So the parts add up
 * to the downtime, and what a crossing took longer than that is in tail, reply or commit.
 */
#ifndef FERRY_CORE_DOWNTIME_H
#define FERRY_CORE_DOWNTIME_H

#include <stdbool.h>
#include <stdint.h>

/* At the source, its clock; 0 = not seen. */
struct downtime_marks {
    uint64_t stopped_ns, ram_end_ns, reply_ns, commit_ns, resumed_word_ns;
};

/* At the target: moments of its clock while it runs, then the spans it reports. */
struct downtime_target {
    uint64_t tail_waits_ns, disks_done_ns, complete_ns, answered_ns, committed_ns, resumed_ns;
};
struct downtime_spans {
    uint64_t flush_us, load_us, resume_us;
};

struct downtime_parts {
    uint64_t stop_us, tail_us, flush_us, load_us, reply_us, commit_us, resume_us;
};

/* False when a moment is missing, as after a restart in between. */
bool downtime_spans_of(const struct downtime_target *t, struct downtime_spans *ret);
bool downtime_split(const struct downtime_marks *m, const struct downtime_spans *s, uint64_t rtt_us,
                    struct downtime_parts *ret);

#endif
