/* SPDX-License-Identifier: Apache-2.0 */
/* What linkload sends: bytes that are a function of their place, so that the receiver knows each of them. */
#ifndef FERRY_TOOLS_LINKLOAD_PATTERN_H
#define FERRY_TOOLS_LINKLOAD_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum pattern {
    PATTERN_RANDOM, /* incompressible */
    PATTERN_TEXT,   /* words: about a third of its size under zstd */
    PATTERN_ZERO,
    PATTERN_COUNT,
};

struct pattern_block;

/* NULL: out of memory. The block is a prime number of bytes, over and over: any piece that is lost,
 * repeated or swapped shifts what follows and shows. */
struct pattern_block *pattern_new(enum pattern kind);
void pattern_free(struct pattern_block *p);
/* The longest piece at stream offset @at that lies in one run of memory. */
const uint8_t *pattern_at(const struct pattern_block *p, uint64_t at, size_t *ret_len);
/* True when @data is what belongs at offset @at. */
bool pattern_matches(const struct pattern_block *p, uint64_t at, const uint8_t *data, size_t len);

/* "random", "text", "zero". False: another word. */
bool pattern_parse(const char *word, enum pattern *ret);

#endif
