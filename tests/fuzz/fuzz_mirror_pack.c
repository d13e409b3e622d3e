/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fuzzes the reader of a compressed mirror stream. The first byte chooses: even, the rest is what a peer sends, whose
 * checksums are made right, so that zstd sees what it must; odd, the rest is packed and must come out again, whatever the
 * pieces and levels.
 */
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>

#include "core/base/wire.h"
#include "storage/mirror_pack.h"

enum { LANES = 2 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

/* All of it, in pieces of @piece; what comes out is compared with @expected, if there is one. */
static void unpack(const uint8_t *data, size_t len, size_t piece, const uint8_t *expected,
                   size_t expected_len)
{
    struct mirror_unpacker *u;
    const uint8_t *out = NULL;
    struct error e = {0};
    size_t total = 0, n;
    ssize_t taken = 0;

    if (mirror_unpacker_new(&u, MIRROR_WINDOW_LOG_LEAST, LANES) < 0)
        abort();
    while (len > 0 && (taken = mirror_unpacker_feed(u, data, MIN(len, piece), &e)) >= 0) {
        data += taken;
        len -= (size_t)taken;
        n = mirror_unpacker_peek(u, &out);
        if (n == 0)
            continue;
        if (n > MIRROR_CHUNK_BYTES ||
            (expected && (n > expected_len - total || memcmp(out, expected + total, n) != 0)))
            abort();
        total += n;
        mirror_unpacker_consume(u, n);
    }
    if (taken < 0 && !error_is_set(&e))
        abort();
    if (expected && (taken < 0 || total != expected_len))
        abort();
    mirror_unpacker_free(u);
}

static void pack_and_unpack(const uint8_t *data, size_t len)
{
    struct mirror_packer *lanes[LANES];
    struct buffer wire = {0};
    size_t at = 0;

    for (unsigned i = 0; i < LANES; i++) {
        if (mirror_packer_new(&lanes[i], MIRROR_WINDOW_LOG_LEAST, i, LANES) < 0)
            abort();
    }
    while (at < len) {
        size_t n = MIN(len - at, (size_t)1 + data[at] * 16u);

        if (mirror_packer_pack(lanes[data[at] / 16 % LANES], 1 + data[at] % 3, data[at] % 5 == 0,
                               data + at, n, &wire) < 0)
            abort();
        at += n;
    }
    if (len > 0)
        unpack(buffer_data(&wire), buffer_len(&wire), 1 + len % 777, data, len);
    buffer_done(&wire);
    for (unsigned i = 0; i < LANES; i++)
        mirror_packer_free(lanes[i]);
}

/* Plain chunks, at least, are to pass their checksum. */
static void mend(uint8_t *data, size_t len)
{
    while (len > MIRROR_CHUNK_HEADER_BYTES) {
        size_t n = get_be32(data + 8);

        n = MIN(n, len - MIRROR_CHUNK_HEADER_BYTES);
        if (data[0] == 1)
            put_be64(data + 12, XXH3_64bits(data + MIRROR_CHUNK_HEADER_BYTES, n));
        data += MIRROR_CHUNK_HEADER_BYTES + n;
        len -= MIRROR_CHUNK_HEADER_BYTES + n;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    uint8_t *copy;

    if (len < 2)
        return 0;
    if (data[0] & 1) {
        pack_and_unpack(data + 1, len - 1);
        return 0;
    }
    copy = malloc(len - 1);
    if (!copy)
        return 0;
    memcpy(copy, data + 1, len - 1);
    mend(copy, len - 1);
    unpack(copy, len - 1, 1 + data[0], NULL, 0);
    free(copy);
    return 0;
}
