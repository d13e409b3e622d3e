/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an extent is compared by when the target may have it already, on a *seed*: an older copy of the disk.
 *
 *   source                          target
 *   SHA-256 of each 64 KiB  ------> reads the seed there: equal, so it writes what it has read
 *                           <------ not equal: 64 bits of XXH3 of each 4 KiB of what the seed holds
 *   the units that differ   ------> puts them in place, compares the SHA-256 again, writes
 *
 * The short hashes only choose what to send. Nothing is written whose SHA-256 was not found equal in the very
 * memory that is written, so a seed may change, or lie, at any time.
 *
 * A *fill* is what answers the short hashes: a map with a bit a unit, the first unit lowest in the first byte,
 * and the data of the units whose bit is set, in rising order.
 */
#ifndef FERRY_STORAGE_SEED_BLOCKS_H
#define FERRY_STORAGE_SEED_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "storage/disk_digest.h"

enum {
    SEED_BLOCK_BYTES = 64 * 1024,    /* QEMU copies in these */
    SEED_EXTENT_BYTES = 1024 * 1024, /* at most: QEMU's largest copy request */
    SEED_DIGEST_BYTES = 32,
    SEED_HINT_BYTES = 8,
    SEED_MAP_BYTES = SEED_EXTENT_BYTES / DISK_DIGEST_UNIT_BYTES / 8,
};

/* Bytes of the digests, and of the short hashes, of an extent of @length. */
uint32_t seed_digests_bytes(uint32_t length);
uint32_t seed_hints_bytes(uint32_t length);

/* False: OpenSSL cannot (memory). */
bool seed_digest(const uint8_t *data, uint32_t length, uint8_t *ret_digests);
bool seed_matches(const uint8_t *data, uint32_t length, const uint8_t *digests);
void seed_hint(const uint8_t *data, uint32_t length, uint8_t *ret_hints);

/* malloc'ed, *ret_bytes long; of all units when @hints is NULL. NULL: no memory. */
uint8_t *seed_fill_new(const uint8_t *data, uint32_t length, const uint8_t *hints,
                       uint32_t *ret_bytes);
/* Is a peer's fill one for an extent of @length? The other functions want such. */
bool seed_fill_is_sound(const uint8_t *fill, uint32_t bytes, uint32_t length);
bool seed_fill_is_whole(const uint8_t *fill, uint32_t length);
/* Puts the units that it has into @data. */
void seed_fill_apply(const uint8_t *fill, uint8_t *data, uint32_t length);

#endif
