/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level of a compressor that has threads of its own, by what they and the link give now.
 *
 * If they were busy nearly all the time and the link was mostly not full, they are what everything waits for: less. If the
 * link was full and they were idle for half of the time: more. Busy is the threads' CPU time, so that a host whose
 * processors are taken by others is not mistaken for a slow compressor; but the levels above `modest`, which cost much for
 * little, are left when the threads are merely occupied, be it with waiting for a processor. And compressors side by side
 * share the processors: `most` is that of one alone.
 */
#ifndef FERRY_CORE_CODEC_LEVEL_H
#define FERRY_CORE_CODEC_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

struct codec_level {
    int level; /* never 0, which to zstd is its default */
    int least, modest, most;
    uint64_t since_ns, since_cpu_ns, since_work_ns;
    unsigned looks, waits; /* since then */
};

/* To be called often: with what a thread has spent until now, of CPU time and by the clock, whether the link was full
 * just then, and how many moves go on side by side. */
void codec_level_look(struct codec_level *l, uint64_t now_ns, uint64_t cpu_ns, uint64_t work_ns,
                      bool link_full, unsigned moves);

#endif
