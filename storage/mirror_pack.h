/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror stream to the target, compressed: a few long zstd streams (lanes) over all of a disk's messages, so that what
 * a message repeats of the megabytes before it costs almost nothing, and as many processors can compress as there are
 * lanes. (The link compresses too, but frame by frame: 64 KiB that know nothing of each other.) The one place in storage/
 * that knows zstd.
 *
 *   bytes of the mirror stream --pieces, in order--> chunks --link--> pieces, checked --> mirror_target
 *
 *     0      1       4              8               12                20
 *     +------+-------+--------------+---------------+-----------------+------------------------
 *     | kind | lane  | raw bytes u32| wire bytes u32| XXH3-64 of raw  | `wire bytes` of payload
 *     +------+-------+--------------+---------------+-----------------+------------------------
 *
 *   1 PLAIN  the bytes as they are; no zstd stream sees them, and the lane is 0
 *   2 BEGIN  a new zstd frame begins in this lane, whatever went before in it is forgotten
 *   3 GO_ON  the lane's frame goes on
 *
 * Chunks come in the order of the bytes, whichever lane they went through. The lane is a u24.
 * A chunk ends with a flush: everything in it can be decoded from it and what went before, and the frame itself
 * never ends. The session below delivers every byte once and in order, so that the stream outlives the loss of any
 * connection; a new session is a new mirror with new contexts.
 *
 * Where bytes do not shrink for long, fewer and fewer chunks are tried, but for a look at some bytes of each. What was
 * tried is sent as zstd has it, shorter or not: the other side's window must see it.
 *
 * Bounds. A chunk holds at most MIRROR_CHUNK_BYTES, and its wire form at most what zstd's bound adds. The window is agreed
 * (mirror_pack_window_log()): the unpacker refuses a frame that wants a larger one before it allocates. It decodes
 * into one buffer of exactly the declared size, which is handed on only when all of it is there and the checksum right.
 *
 * Thread: any, one at a time.
 */
#ifndef FERRY_STORAGE_MIRROR_PACK_H
#define FERRY_STORAGE_MIRROR_PACK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "core/base/buffer.h"
#include "core/base/error.h"

enum {
    MIRROR_CHUNK_HEADER_BYTES = 20,
    MIRROR_CHUNK_BYTES = 256 << 10,
    /* What zstd may add to bytes that do not shrink, its own frame header included. */
    MIRROR_CHUNK_SLACK_BYTES = 2048,

    MIRROR_WINDOW_LOG_LEAST = 20,
    MIRROR_WINDOW_LOG_MOST = 25,

    MIRROR_LANES_MOST = 4,
};

/*
 * The window for each of @lanes, those of all disks of a move: together at most 64 MiB an end, beside 3 to 12 MiB a lane
 * (by level) of zstd's tables at the source.
 */
unsigned mirror_pack_window_log(unsigned lanes);

/* One lane of a disk. */
struct mirror_packer;

/* @lane of @lanes, at most MIRROR_LANES_MOST. 0, -EINVAL or -ENOMEM. zstd's memory is taken when first used. */
int mirror_packer_new(struct mirror_packer **ret, unsigned window_log, unsigned lane,
                      unsigned lanes);
void mirror_packer_free(struct mirror_packer *p);

/*
 * Appends @len bytes, 1 to MIRROR_CHUNK_BYTES, as one chunk to @out. @plain: as they are; else at @level of zstd, if it is
 * worth a try. 0 or -ENOMEM, after which the packer is of no more use.
 */
int mirror_packer_pack(struct mirror_packer *p, int level, bool plain, const void *data, size_t len,
                       struct buffer *out);

/* All lanes of a disk. */
struct mirror_unpacker;

/* @lanes: as agreed, 1 to MIRROR_LANES_MOST; the others are refused. 0, -EINVAL or -ENOMEM. */
int mirror_unpacker_new(struct mirror_unpacker **ret, unsigned window_log, unsigned lanes);
void mirror_unpacker_free(struct mirror_unpacker *u);

/*
 * Takes bytes up to the end of at most one chunk. Returns how many; 0 when @len is 0 or a chunk waits to be
 * consumed. -EPROTO, -EBADMSG (checksum) or -ENOMEM with *e filled: the stream cannot be read on.
 */
ssize_t mirror_unpacker_feed(struct mirror_unpacker *u, const void *data, size_t len,
                             struct error *e);
/* What of the last chunk was not consumed: 0, none. Valid until consumed. */
size_t mirror_unpacker_peek(const struct mirror_unpacker *u, const uint8_t **ret_data);
void mirror_unpacker_consume(struct mirror_unpacker *u, size_t len);

#endif
