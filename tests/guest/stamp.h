/* SPDX-License-Identifier: Apache-2.0 */
/*
 * 4 KiB whose every byte can be checked: a header that says what it is and which version, then a body
 * that follows from the header. Memory pages and disk blocks of the witness are both made this way, so
 * that a stale, torn, misplaced or damaged one is told apart from a good one without a second copy.
 *
 *      magic | owner | index | number | changed | body: 507 words
 *
 * `number` is the generation of a page, the sequence number of a write. The first `changed` words of the
 * body follow from the number, the others from 0: a page that is dirtied in part.
 */
#ifndef FERRY_TESTS_GUEST_STAMP_H
#define FERRY_TESTS_GUEST_STAMP_H

#include <stddef.h>
#include <stdint.h>

#define STAMP_BYTES 4096u
#define STAMP_HEADER_WORDS 5u
#define STAMP_BODY_WORDS (STAMP_BYTES / 8u - STAMP_HEADER_WORDS)

/* Memory is owner 0, disk N is owner N + 1. */
#define STAMP_OWNER_MEMORY 0u
#define STAMP_OWNER_DISK(n) ((uint64_t)(n) + 1u)

enum stamp_state {
    STAMP_GOOD,
    STAMP_STALE, /* whole, in its place, but of an older number: a write was lost */
    STAMP_NEWER, /* likewise, of a newer one than is known: what knows it lost a store */
    STAMP_BAD,   /* anything else */
};

void stamp_fill(void *at, uint64_t owner, uint64_t index, uint64_t number, uint64_t changed);

/* The number that it says it has. */
uint64_t stamp_number(const void *at);
/* What lies at @at, of which owner, index and number are known. */
enum stamp_state stamp_check(const void *at, uint64_t owner, uint64_t index, uint64_t number);

/* A well mixed value of @x. */
uint64_t stamp_mix(uint64_t x);

/* A fast 64-bit hash (not a cryptographic one) over whole words; @len is a multiple of 32. */
uint64_t stamp_hash(uint64_t hash, const void *data, size_t len);

#endif
