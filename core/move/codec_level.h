/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The level of a compressor that has threads of its own, by what they and the link give now.
 *
 * If they were at work nearly all the time and the link was mostly not full, they are what everything waits for: less,
 * and faster down than up. If the link was full and they were idle for half of the time: more. At work is by the clock,
 * not by CPU time: where others take the processors, a lower level is as right as where the compressor does. And
 * compressors side by side share the processors: `most` is that of one alone, and below `modest`, where there is little
 * left to gain for many more bytes, only several go.
 */
#ifndef FERRY_CORE_CODEC_LEVEL_H
#define FERRY_CORE_CODEC_LEVEL_H

#include <stdbool.h>
#include <stdint.h>

struct codec_level {
    int level; /* never 0, which to zstd is its default */
    int least, modest, most;
    uint64_t since_ns, since_work_ns;
    unsigned looks, waits; /* since then */
};

/* To be called often: with what a thread has been at work until now, by the clock, whether the link was full just then,
 * and how many moves go on side by side. */
void codec_level_look(struct codec_level *l, uint64_t now_ns, uint64_t work_ns, bool link_full,
                      unsigned moves);

#endif
