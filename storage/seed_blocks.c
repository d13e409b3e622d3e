/* SPDX-License-Identifier: Apache-2.0 */
/* What an extent is compared by with a seed: see seed_blocks.h. */
#include "storage/seed_blocks.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/sha.h>

#include "core/base/macros.h"
#include "core/base/wire.h"

enum { UNIT = DISK_DIGEST_UNIT_BYTES };

uint32_t seed_digests_bytes(uint32_t length)
{
    return (length + SEED_BLOCK_BYTES - 1) / SEED_BLOCK_BYTES * SEED_DIGEST_BYTES;
}

static uint32_t units_of(uint32_t length)
{
    return (length + UNIT - 1) / UNIT;
}

uint32_t seed_hints_bytes(uint32_t length)
{
    return units_of(length) * SEED_HINT_BYTES;
}

static uint32_t unit_bytes(uint32_t length, uint32_t unit)
{
    return MIN(length - unit * UNIT, (uint32_t)UNIT);
}

bool seed_digest(const uint8_t *data, uint32_t length, uint8_t *ret_digests)
{
    static_assert(SEED_DIGEST_BYTES == SHA256_DIGEST_LENGTH, "SHA-256 fills it");
    for (uint32_t at = 0; at < length; at += SEED_BLOCK_BYTES) {
        if (!SHA256(data + at, MIN(length - at, (uint32_t)SEED_BLOCK_BYTES), ret_digests))
            return false;
        ret_digests += SEED_DIGEST_BYTES;
    }
    return true;
}

bool seed_matches(const uint8_t *data, uint32_t length, const uint8_t *digests)
{
    uint8_t own[SEED_EXTENT_BYTES / SEED_BLOCK_BYTES * SEED_DIGEST_BYTES];

    return seed_digest(data, length, own) && memcmp(own, digests, seed_digests_bytes(length)) == 0;
}

void seed_hint(const uint8_t *data, uint32_t length, uint8_t *ret_hints)
{
    for (uint32_t unit = 0; unit < units_of(length); unit++)
        put_be64(ret_hints + (size_t)unit * SEED_HINT_BYTES,
                 disk_digest_unit(data + (size_t)unit * UNIT, unit_bytes(length, unit)));
}

/* --- fills ---------------------------------------------------------------------------------- */

static bool has_unit(const uint8_t *fill, uint32_t unit)
{
    return fill[unit / 8] >> (unit % 8) & 1;
}

uint8_t *seed_fill_new(const uint8_t *data, uint32_t length, const uint8_t *hints,
                       uint32_t *ret_bytes)
{
    uint8_t *fill = calloc(1, SEED_MAP_BYTES + (size_t)length);
    size_t at = SEED_MAP_BYTES;

    if (!fill)
        return NULL;
    for (uint32_t unit = 0; unit < units_of(length); unit++) {
        const uint8_t *from = data + (size_t)unit * UNIT;
        uint32_t bytes = unit_bytes(length, unit);

        if (hints &&
            get_be64(hints + (size_t)unit * SEED_HINT_BYTES) == disk_digest_unit(from, bytes))
            continue;
        fill[unit / 8] |= (uint8_t)(1u << (unit % 8));
        memcpy(fill + at, from, bytes);
        at += bytes;
    }
    *ret_bytes = (uint32_t)at;
    return fill;
}

bool seed_fill_is_sound(const uint8_t *fill, uint32_t bytes, uint32_t length)
{
    uint64_t needed = SEED_MAP_BYTES;

    if (bytes < SEED_MAP_BYTES)
        return false;
    for (uint32_t unit = 0; unit < SEED_MAP_BYTES * 8; unit++) {
        if (!has_unit(fill, unit))
            continue;
        if (unit >= units_of(length))
            return false;
        needed += unit_bytes(length, unit);
    }
    return needed == bytes;
}

bool seed_fill_is_whole(const uint8_t *fill, uint32_t length)
{
    for (uint32_t unit = 0; unit < units_of(length); unit++) {
        if (!has_unit(fill, unit))
            return false;
    }
    return true;
}

void seed_fill_apply(const uint8_t *fill, uint8_t *data, uint32_t length)
{
    const uint8_t *from = fill + SEED_MAP_BYTES;

    for (uint32_t unit = 0; unit < units_of(length); unit++) {
        uint32_t bytes = unit_bytes(length, unit);

        if (!has_unit(fill, unit))
            continue;
        memcpy(data + (size_t)unit * UNIT, from, bytes);
        from += bytes;
    }
}
