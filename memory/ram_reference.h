/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What makes a reference to a block exact: the SHA-256 of the page, checked over the bytes that were read. A weak hash
 * would do against chance, but who runs in a guest could make two blocks of one.
 */
#ifndef FERRY_MEMORY_RAM_REFERENCE_H
#define FERRY_MEMORY_RAM_REFERENCE_H

#include <stdbool.h>
#include <string.h>

#include <openssl/evp.h>

#include "memory/ram_codec_format.h"
#include "memory/ram_parser.h"

/* False: OpenSSL is out of memory. */
static inline bool ram_reference_hash(const uint8_t *page, uint8_t ret[RAM_REFERENCE_HASH_BYTES])
{
    return EVP_Digest(page, RAM_PAGE_BYTES, ret, NULL, EVP_sha256(), NULL) == 1;
}

static inline bool ram_reference_is(const uint8_t *page,
                                    const uint8_t hash[RAM_REFERENCE_HASH_BYTES])
{
    uint8_t own[RAM_REFERENCE_HASH_BYTES];

    return ram_reference_hash(page, own) && memcmp(own, hash, sizeof(own)) == 0;
}

#endif
