/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The page-aware codec of QEMU's migration stream: what its two halves have in common.
 *
 * The encoder (ram_encoder.h) turns the stream into chunks, the decoder (ram_decoder.h) turns chunks into
 * the identical stream. Both keep a page store of the same size in step: the encoder says in which slot
 * the content of a page goes, and the decoder puts there what it decoded. The encoder's parser
 * (ram_parser.h) is only a hint about where pages are; what it does not understand travels as literal
 * bytes. Every chunk carries a checksum of what it decodes to, chained to the one before, and nothing of a
 * chunk is delivered before that is right. The format is drawn in ram_codec_format.h.
 *
 * References. With disk_blocks.h the encoder sends a page that lies on a disk of the target as its place and SHA-256. The
 * decoder reads the block there, and when it is not what the hash says (it was written over since, or cannot be
 * read) asks for the page. Until the target is known to have passed it, the source keeps what it may be asked
 * for: the owner does, by the number that references have in their order from 0 on.
 *
 * Neither half knows sockets, threads or the time. One object is used by one thread at a time.
 */
#ifndef FERRY_MEMORY_RAM_CODEC_H
#define FERRY_MEMORY_RAM_CODEC_H

#include <stdbool.h>
#include <stdint.h>

/* What both ends must agree on before the first byte. */
struct ram_codec_config {
    uint64_t store_bytes; /* of the page store at each end; 0: no deltas, no duplicates */
};

enum ram_operation {
    RAM_LITERAL,
    RAM_ZERO,
    RAM_CONSTANT,
    RAM_DUPLICATE,
    RAM_DELTA,
    RAM_PLAIN,
    RAM_ZSTD,
    RAM_XOR,
    RAM_DISK,
    RAM_OPERATIONS
};

struct ram_codec_stats {
    uint64_t stream_bytes; /* QEMU's */
    uint64_t wire_bytes;   /* of chunks */
    uint64_t chunks;
    struct {
        uint64_t count;        /* pages; of LITERAL: bytes */
        uint64_t stream_bytes; /* what they stand for */
        uint64_t wire_bytes;   /* encoder only; shares of compressed parts in proportion */
    } operation[RAM_OPERATIONS];
    uint64_t references_missed;         /* decoder only: asked for */
    uint64_t references_refused;        /* encoder only: found, and too many were under way */
    uint64_t store_lookups, store_hits; /* encoder only: pages sought in the store, found */
};

/* The source's side of references. */
struct ram_reference_source_ops {
    /* May one more be made? The owner bounds what it keeps. */
    bool (*may_refer)(void *user);
    /* It was made: @page, 4096 bytes, is what the target may ask for. */
    void (*keep)(void *user, uint64_t number, const uint8_t *page);
};

/* The target's side, on the decoder's thread, which they may block. 0 or a negative errno; -ECANCELED ends the decoder. */
struct ram_reference_target_ops {
    int (*read)(void *user, unsigned disk, uint64_t offset, uint8_t *ret_page);
    /* Of the source. */
    int (*ask)(void *user, uint64_t number, uint8_t *ret_page);
};

const char *ram_operation_name(enum ram_operation op);

#endif
