/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Writes chunks of the RAM codec: operations, their data, the two zstd streams, the checksum.
 *
 * The encoder decides what each record becomes and says so here; runs of like operations, predicted
 * headers and predicted slots are found here. Format: ram_codec_format.h.
 */
#ifndef FERRY_MEMORY_RAM_CHUNK_WRITER_H
#define FERRY_MEMORY_RAM_CHUNK_WRITER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "memory/ram_codec.h"
#include "memory/ram_parser.h"

struct ram_chunk_writer;

#define RAM_NO_SLOT UINT32_MAX

/* A literal is added in pieces no longer than this. */
enum { RAM_LITERAL_MAX_BYTES = 64 * 1024 };

/* One page's record. */
struct ram_record {
    enum ram_operation op;      /* any but LITERAL */
    const struct ram_page *id;  /* for the header */
    const uint8_t *page;        /* what it decodes to; NULL: ZERO */
    uint64_t hash;              /* ram_checksum_of_page() */
    uint32_t slot;              /* RAM_NO_SLOT: none */
    const uint8_t *data;        /* of CONSTANT, DELTA, DISK */
    size_t data_len;            /* at most PAGE_DELTA_MAX_BYTES */
    const uint8_t *transformed; /* of XOR: the page xor the slot's */
};

int ram_chunk_writer_new(int level, struct ram_chunk_writer **ret);
void ram_chunk_writer_free(struct ram_chunk_writer *w);

/* For the chunks after the current one. */
void ram_chunk_writer_set_level(struct ram_chunk_writer *w, int level);

void ram_chunk_writer_add_literal(struct ram_chunk_writer *w, const uint8_t *data, size_t len);
/* 0, or -EIO: zstd failed, which only happens when memory is out. */
int ram_chunk_writer_add(struct ram_chunk_writer *w, const struct ram_record *record);

bool ram_chunk_writer_is_empty(const struct ram_chunk_writer *w);
/* It must be closed before anything more is added. */
bool ram_chunk_writer_is_full(const struct ram_chunk_writer *w);
/* Appends the chunk to @out and begins the next. */
int ram_chunk_writer_close(struct ram_chunk_writer *w, struct buffer *out);

void ram_chunk_writer_get_stats(const struct ram_chunk_writer *w, struct ram_codec_stats *ret);

#endif
