/* SPDX-License-Identifier: Apache-2.0 */
/* What a stretch of a disk is compared by: see disk_digest.h. */
#include "storage/disk_digest.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

#include "core/base/macros.h"
#include "storage/limits.h"

uint64_t disk_digest_unit(const uint8_t *data, size_t len)
{
    return XXH3_64bits(data, len);
}

void disk_digest_of_units(const uint64_t *units, size_t count, uint8_t out[DISK_DIGEST_BYTES])
{
    XXH128_canonical_t canonical;

    static_assert(sizeof(canonical) == DISK_DIGEST_BYTES, "XXH3-128 fills it");
    XXH128_canonicalFromHash(&canonical, XXH3_128bits(units, count * sizeof(*units)));
    memcpy(out, &canonical, sizeof(canonical));
}

void disk_digest_of_data(const uint8_t *data, uint32_t len, uint8_t out[DISK_DIGEST_BYTES])
{
    uint64_t units[LIMIT_CHECK_BYTES / DISK_DIGEST_UNIT_BYTES];
    size_t count = 0;

    assert(len <= LIMIT_CHECK_BYTES);
    for (uint32_t at = 0; at < len; at += DISK_DIGEST_UNIT_BYTES)
        units[count++] =
            disk_digest_unit(data + at, MIN(len - at, (uint32_t)DISK_DIGEST_UNIT_BYTES));
    disk_digest_of_units(units, count, out);
}
