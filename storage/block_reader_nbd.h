/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads blocks of a move's disks at the target, on a worker's thread, over NBD connections of its own beside those that
 * write. What is read is a hint (memory/ram_codec.h checks it), so a disk that cannot be reached, or answers late, is
 * given up for good.
 *
 * Neighbours are read along: what lies together on a disk often lies together in a guest's memory.
 */
#ifndef FERRY_STORAGE_BLOCK_READER_NBD_H
#define FERRY_STORAGE_BLOCK_READER_NBD_H

#include <stdint.h>

enum { BLOCK_READER_BYTES = 4096 };

struct block_reader_nbd;

/* The server's socket and the disks' exports, copied. Connects when it first reads. 0 or -ENOMEM. */
int block_reader_nbd_new(const char *socket_path, const char *const *export_names, unsigned disks,
                         struct block_reader_nbd **ret);
/* Nothing reads any more. */
void block_reader_nbd_free(struct block_reader_nbd *r);

/* A whole block. 0; -ECANCELED; or another negative errno: not to be had. Blocks for thirty seconds at most. */
int block_reader_nbd_read(struct block_reader_nbd *r, unsigned disk, uint64_t offset,
                          uint8_t ret_block[BLOCK_READER_BYTES]);
/* Of any thread: who reads now, or will, comes back soon. */
void block_reader_nbd_cancel(struct block_reader_nbd *r);

#endif
