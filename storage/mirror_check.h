/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Verification of one disk, the source's side: what must the target's disk hold, and which of it has been seen?
 *
 *   write, zero --> hash of each unit of 4 KiB, "to be checked"
 *   next()      --> a stretch of units to be checked: their digest is kept, a CHECK goes into the log
 *   answer()    --> the target read its disk at that place in the order of writes: equal?
 *
 * The hashes are of what QEMU handed over, taken before the log; the answers are of what the target's disk
 * gave back. So it covers all that lies between, ferry's part and the target's storage. What it cannot see is
 * whether QEMU read the source's disk right. A CHECK takes its place in the log's order, so it sees exactly
 * what was written before it, and writes go on meanwhile; a unit that is written again is to be checked again.
 *
 * A unit that was written in part, or trimmed, has a content that is not known here: it is left out, and
 * counted. Costs 8.5 bytes of memory a unit: 2.2 MiB a GiB.
 */
#ifndef FERRY_STORAGE_MIRROR_CHECK_H
#define FERRY_STORAGE_MIRROR_CHECK_H

#include <stdbool.h>
#include <stdint.h>

struct mirror_check;

int mirror_check_new(struct mirror_check **ret_check, uint64_t size_bytes);
void mirror_check_free(struct mirror_check *c);

/* The extent now holds @data / zeroes / something. */
void mirror_check_write(struct mirror_check *c, uint64_t offset, uint32_t length,
                        const uint8_t *data);
void mirror_check_zero(struct mirror_check *c, uint64_t offset, uint32_t length);
void mirror_check_trim(struct mirror_check *c, uint64_t offset, uint32_t length);

/* The next stretch that is to be checked, and the @ret_id of its answer. -ENOENT: none; -ENOMEM. */
int mirror_check_next(struct mirror_check *c, uint64_t *ret_offset, uint32_t *ret_length,
                      uint64_t *ret_id);

/* 0; -EILSEQ with *ret_offset: it differs; -ENOENT: nobody asked. */
int mirror_check_answer(struct mirror_check *c, uint64_t id, const uint8_t *digest,
                        uint64_t *ret_offset);

struct mirror_check_stats {
    uint64_t left_bytes;    /* to be checked, not asked for yet */
    uint64_t unknown_bytes; /* cannot be checked */
    uint64_t checked_bytes; /* found equal, ever; what was written again counts again */
    unsigned asked;         /* not answered yet */
};
void mirror_check_stats(const struct mirror_check *c, struct mirror_check_stats *ret_stats);

#endif
