/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What lies where on the target's disks, as far as the source has sent it there: blocks of 4096 bytes, found by the hash of
 * their content. A page of the guest's memory that is such a block can travel as a reference to it.
 *
 * It is a hint: the reference carries the page's own SHA-256, and the target asks for what it does not find (ram_codec.h).
 * So whoever tells it of writes may be late, and a hash here may be weak. Memory is bounded: the oldest blocks go first.
 *
 * What is written is told as notes, hashed where the bytes are, which travel to the thread that has the index.
 *
 * Thread: any, one at a time.
 */
#ifndef FERRY_MEMORY_DISK_BLOCKS_H
#define FERRY_MEMORY_DISK_BLOCKS_H

#include <stdbool.h>
#include <stdint.h>

#include "core/base/buffer.h"

struct disk_blocks;

enum { DISK_BLOCK_BYTES = 4096, DISK_BLOCKS_DISKS_MAX = 256 };

/* @memory_bytes bounds what it takes, at 56 bytes a block. 0, -EINVAL (beyond 2^31 blocks) or -ENOMEM. */
int disk_blocks_new(uint64_t memory_bytes, struct disk_blocks **ret);
void disk_blocks_free(struct disk_blocks *b);

struct disk_note {
    uint64_t offset, length;
    uint64_t hash; /* of one block; 0: nothing is known of this extent any more */
    unsigned disk;
};

/* Appends the notes of a write: whole blocks are known, unless they repeat 8 bytes; those written in part are unknown. 0
 * or -ENOMEM, with some of them missing: then nothing must be referred to any more. */
int disk_notes_write(struct buffer *notes, unsigned disk, uint64_t offset, uint32_t length,
                     const uint8_t *data);
/* Zeroed, trimmed, or unknown from now on. */
int disk_notes_forget(struct buffer *notes, unsigned disk, uint64_t offset, uint64_t length);

/* All of @notes, in order. */
void disk_blocks_take(struct disk_blocks *b, const struct buffer *notes);

/* A block whose content has this hash (ram_checksum_of_page()). False: none is known. */
bool disk_blocks_find(const struct disk_blocks *b, uint64_t hash, unsigned *ret_disk,
                      uint64_t *ret_offset);

#endif
