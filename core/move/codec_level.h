/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level of a compressor that has a thread of its own, by what it and the link give now.
 *
 * If it was busy nearly all the time and the link was mostly not full, it is what everything waits for: less. If the
 * link was full and it was idle for half of the time: more. Busy is the thread's CPU time, so that a host whose
 * processors are taken by others is not mistaken for a slow compressor. @most may change while it runs.
 */
#ifndef FERRY_CORE_CODEC_LEVEL_H
#define FERRY_CORE_CODEC_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

struct codec_level {
    int level; /* never 0, which to zstd is its default */
    int least, most;
    uint64_t since_ns, since_cpu_ns;
    unsigned looks, waits; /* since then */
};

/* To be called often: with the CPU time spent until now, and whether the link was full just then. */
void codec_level_look(struct codec_level *l, uint64_t now_ns, uint64_t cpu_ns, bool link_full);

#endif
