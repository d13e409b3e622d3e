/* SPDX-License-Identifier: Apache-2.0 */
/*
 * zstd for frames: one frame's payload at a time, each for itself. The one place here that knows zstd.
 *
 * Writing is done by workers, a pack_writer each; reading by the session, into a buffer of exactly the
 * declared size, which is at most one frame's. Contexts are reused.
 */
#ifndef FERRY_NETLINK_PACK_H
#define FERRY_NETLINK_PACK_H

#include <stddef.h>
#include <stdint.h>

struct pack_writer;
struct pack_reader;

enum { PACK_LEVEL_MIN = -5, PACK_LEVEL_MAX = 9 };

/* NULL: out of memory. */
struct pack_writer *pack_writer_new(void);
void pack_writer_free(struct pack_writer *w);
/* Compresses into @out; returns the bytes used, or 0 when it would not be at least a sixteenth smaller. */
size_t pack_write(struct pack_writer *w, int level, const void *data, size_t len, void *out,
                  size_t cap);

struct pack_reader *pack_reader_new(void);
void pack_reader_free(struct pack_reader *r);
/* Exactly @raw_len bytes into @out, from one whole zstd frame that says so. 0, or -EPROTO. */
int pack_read(struct pack_reader *r, const void *packed, size_t len, void *out, size_t raw_len);

#endif
