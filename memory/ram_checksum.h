/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The checksum of a chunk, taken record by record at both ends.
 *
 * It is XXH3-64, seeded with the chunk's before, over the decoded bytes, with the content of each page
 * replaced by that content's own XXH3-64: the encoder has computed it anyway to find duplicates, and each
 * end touches a page's bytes while they are in the core's cache.
 */
#ifndef FERRY_MEMORY_RAM_CHECKSUM_H
#define FERRY_MEMORY_RAM_CHECKSUM_H

#include <xxhash.h>

#include "core/base/wire.h"
#include "memory/ram_parser.h"

static inline uint64_t ram_checksum_of_page(const uint8_t *page)
{
    return XXH3_64bits(page, RAM_PAGE_BYTES);
}

/* A record's header, unless a literal brought it. */
static inline void ram_checksum_header(XXH3_state_t *sum, uint64_t word)
{
    uint8_t raw[8];

    put_be64(raw, word);
    XXH3_64bits_update(sum, raw, sizeof(raw));
}

static inline void ram_checksum_page(XXH3_state_t *sum, uint64_t hash)
{
    ram_checksum_header(sum, hash);
}

static inline void ram_checksum_bytes(XXH3_state_t *sum, const void *data, size_t len)
{
    XXH3_64bits_update(sum, data, len);
}

#endif
