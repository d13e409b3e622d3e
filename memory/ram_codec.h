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
 * Neither half knows sockets, threads or the time. One object is used by one thread at a time.
 */
#ifndef FERRY_MEMORY_RAM_CODEC_H
#define FERRY_MEMORY_RAM_CODEC_H

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
    uint64_t store_lookups, store_hits; /* encoder only: pages sought in the store, found */
};

const char *ram_operation_name(enum ram_operation op);

#endif
