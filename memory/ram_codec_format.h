/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the two halves of the RAM codec send: the whole format on one page.
 *
 * A chunk, integers big-endian:
 *
 *    0        1        2        4                  8
 *   +--------+--------+--------+------------------+------------------+
 *   | type 1 | flags  | zero   | decoded bytes    | operation bytes  |
 *   +--------+--------+--------+------------------+------------------+ 12
 *   | data bytes      | control bytes   | pages bytes  | plain bytes  |
 *   +-----------------+-----------------+--------------+--------------+ 28
 *   | checksum of what it decodes to (ram_checksum.h)                          |
 *   +--------------------------------------------------------------------------+ 36
 *   | control: the operations, then their data (zstd; or as they are: CONTROL_RAW) |
 *   | pages: the pages of ZSTD and XOR operations, in order (zstd)                 |
 *   | plain: the pages of PLAIN operations, in order                               |
 *
 * The two zstd streams go on from chunk to chunk, each flushed at its chunk's end; a stream may end its
 * frame there and begin another (a change of level). Windows are at most 2^RAM_WINDOW_LOG_MAX.
 *
 * An operation is one byte (kind | header mode << 4 | slot mode << 6), then, as LEB128 varints, a count
 * and what the modes call for: the header's jump, the slot's jump (both zigzag). Its data are taken from
 * the chunk's data in order.
 *
 *   kind        count of   each decodes to                               data of each
 *   LITERAL     bytes      the bytes                                     the bytes
 *   ZERO        records    header with ZERO, 0x00                        -
 *   CONSTANT    pages      header, an 8-byte pattern 512 times           the pattern
 *   DUPLICATE   pages      header, the slot's page                       -
 *   DELTA       pages      header, the slot's page with spans replaced   varint spans; each: gap, length, bytes
 *   PLAIN       pages      header, a page of `plain`                     -
 *   ZSTD        pages      header, a page of `pages`                     -
 *   XOR         pages      header, a page of `pages` xor the slot's page -
 *   DISK        pages      header, a block of the target's disk          u8 disk, u64 offset, SHA-256 of it
 *
 * Header modes: NONE (a literal before it brought it), NEXT (the page after the previous header's, same
 * block), JUMP. A header is the record's u64: page number * 4096 | PAGE or ZERO | CONTINUE. Slot modes:
 * NONE, NEXT (the slot after the previous one), JUMP. Kinds with page content store what they decode to in
 * their slot, unless it is NONE. In an operation of several, all but the first are NEXT.
 */
#ifndef FERRY_MEMORY_RAM_CODEC_FORMAT_H
#define FERRY_MEMORY_RAM_CODEC_FORMAT_H

#include <stddef.h>
#include <stdint.h>

#include "core/base/wire.h"
#include "memory/ram_codec.h"

enum {
    RAM_CHUNK_TYPE = 1,
    RAM_CHUNK_CONTROL_RAW = 1 << 0, /* flag */
    RAM_CHUNK_HEADER_BYTES = 36,
    RAM_WINDOW_LOG_MAX = 21, /* 2 MiB: what a decoder holds for each of its two streams */
    RAM_WINDOW_LOG = 19,     /* what this encoder uses */
    RAM_REFERENCE_HASH_BYTES = 32,
    RAM_REFERENCE_BYTES = 1 + 8 + RAM_REFERENCE_HASH_BYTES,
    RAM_VARINT_MAX_BYTES = 10,
};

enum ram_header_mode { RAM_HEADER_NONE, RAM_HEADER_NEXT, RAM_HEADER_JUMP, RAM_HEADER_MODES };
enum ram_slot_mode { RAM_SLOT_NONE, RAM_SLOT_NEXT, RAM_SLOT_JUMP, RAM_SLOT_MODES };

/* Page numbers are 52 bits: sums of jumps wrap there. */
#define RAM_PAGE_NUMBER_MASK ((UINT64_C(1) << 52) - 1)

struct ram_chunk_header {
    uint8_t type, flags;
    uint32_t decoded_bytes;
    uint32_t operation_bytes, data_bytes;
    uint32_t control_bytes, pages_bytes, plain_bytes;
    uint64_t checksum;
};

static inline void ram_chunk_header_put(uint8_t *p, const struct ram_chunk_header *h)
{
    p[0] = h->type;
    p[1] = h->flags;
    put_be16(p + 2, 0);
    put_be32(p + 4, h->decoded_bytes);
    put_be32(p + 8, h->operation_bytes);
    put_be32(p + 12, h->data_bytes);
    put_be32(p + 16, h->control_bytes);
    put_be32(p + 20, h->pages_bytes);
    put_be32(p + 24, h->plain_bytes);
    put_be64(p + 28, h->checksum);
}

static inline void ram_chunk_header_get(const uint8_t *p, struct ram_chunk_header *h)
{
    *h = (struct ram_chunk_header){
        .type = p[0],
        .flags = p[1],
        .decoded_bytes = get_be32(p + 4),
        .operation_bytes = get_be32(p + 8),
        .data_bytes = get_be32(p + 12),
        .control_bytes = get_be32(p + 16),
        .pages_bytes = get_be32(p + 20),
        .plain_bytes = get_be32(p + 24),
        .checksum = get_be64(p + 28),
    };
}

/* Returns the bytes written, at most RAM_VARINT_MAX_BYTES. */
static inline size_t ram_varint_put(uint8_t *p, uint64_t v)
{
    size_t n = 0;

    for (; v >= 0x80; v >>= 7)
        p[n++] = (uint8_t)(v | 0x80);
    p[n++] = (uint8_t)v;
    return n;
}

static inline uint64_t ram_varint_get(struct wire_reader *r)
{
    uint64_t v = 0;

    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint8_t byte = wire_u8(r);

        v |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80))
            return v;
    }
    r->bad = true;
    return 0;
}

static inline uint64_t ram_zigzag(uint64_t difference)
{
    return (difference << 1) ^ (uint64_t)((int64_t)difference >> 63);
}

static inline uint64_t ram_unzigzag(uint64_t v)
{
    return (v >> 1) ^ (0 - (v & 1));
}

#endif
