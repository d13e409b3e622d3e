/* SPDX-License-Identifier: Apache-2.0 */
/* What a compressor's level follows: see codec_level.h. */
#include "core/move/codec_level.h"

#include "core/base/clock.h"
#include "core/base/macros.h"

enum {
    /* A change costs the compressor what it remembers. */
    ADAPT_EVERY_MS = 1000,
    BUSY_PERMILLE = 850,  /* the compressor holds the link up: less */
    SPARE_PERMILLE = 500, /* the link holds the compressor up: more */
    SELDOM = 8,           /* full in fewer than one look of so many: two steps at a time */
};

void codec_level_look(struct codec_level *l, uint64_t now_ns, uint64_t work_ns, bool link_full,
                      unsigned moves)
{
    uint64_t span_ns = now_ns - l->since_ns, busy;
    int least = moves > 1 ? l->least : l->modest, most = MAX(l->most / (int)MAX(moves, 1u), 1);
    int level = l->level;

    l->level = MIN(level, most);
    l->looks++;
    l->waits += link_full;
    if (span_ns < ADAPT_EVERY_MS * NS_PER_MS)
        return;
    busy = (work_ns - l->since_work_ns) * 1000 / span_ns;
    if (l->since_ns && busy > BUSY_PERMILLE && l->waits * 2 < l->looks)
        level -= l->waits * SELDOM < l->looks ? 2 : 1;
    else if (l->since_ns && busy < SPARE_PERMILLE && l->waits * 2 > l->looks)
        level++;
    if (level == 0)
        level = l->level > 0 ? -1 : 1;
    l->level = MIN(MAX(level, least), most);
    l->since_ns = now_ns;
    l->since_work_ns = work_ns;
    l->looks = l->waits = 0;
}
