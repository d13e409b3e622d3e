/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The words about references, on the stream `pages` of a move (memory/ram_codec.h says what references are):
 *
 *   target -> source   u32 1 PASSED, u64 count: it needs nothing of the first `count` references any more
 *                      u32 2 WANT, u64 number: that one's page, please; one at a time
 *   source -> target   u64 number, 4096 bytes: the page
 */
#ifndef FERRY_CORE_PAGE_WIRE_H
#define FERRY_CORE_PAGE_WIRE_H

enum {
    PAGE_WORD_PASSED = 1,
    PAGE_WORD_WANT = 2,
    PAGE_WORD_BYTES = 12,
    PAGE_BYTES = 4096,
    PAGE_ANSWER_BYTES = 8 + PAGE_BYTES,
    /* What a source keeps for its target to ask for, in references: 32 MiB. A round trip, the target's disk and what waits
     * before it can come to a second. */
    PAGES_KEPT_MAX = 8192,
};

#endif
