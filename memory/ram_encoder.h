/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoding half of the RAM codec: QEMU's stream in, chunks out. See ram_codec.h.
 *
 * When bytes leave. A chunk goes out when it is large enough, and at once at a flush point: the end of a
 * section (QEMU's EOS and footer) or of a command (PING among them), and at the end of every feed once
 * the tail has begun or the stream is not understood. Between flush points the last chunk waits for more
 * pages. ram_encoder_flush() sends what waits when a caller has nothing more to feed; only the beginning
 * of a page's record then stays behind, whose end QEMU is about to write.
 */
#ifndef FERRY_MEMORY_RAM_ENCODER_H
#define FERRY_MEMORY_RAM_ENCODER_H

#include <stddef.h>

#include "core/base/buffer.h"
#include "memory/ram_codec.h"

struct ram_encoder;

/* zstd's levels that make sense between a fast and a slow link. */
enum { RAM_LEVEL_LEAST = -7, RAM_LEVEL_DEFAULT = 1, RAM_LEVEL_MOST = 9 };

/* -ENOMEM, -EINVAL (a store too large). */
int ram_encoder_new(const struct ram_codec_config *config, struct ram_encoder **ret);
void ram_encoder_free(struct ram_encoder *e);

struct disk_blocks;
/* Pages may become references to @blocks from now on. All outlive the encoder. */
void ram_encoder_set_blocks(struct ram_encoder *e, const struct disk_blocks *blocks,
                            const struct ram_reference_source_ops *ops, void *user);

/* Takes effect after the current chunk; each change costs the compressor its memory of the past. */
void ram_encoder_set_level(struct ram_encoder *e, int level);

/* Takes the next bytes of the stream, in any pieces, and appends whole chunks to @out. 0, -ENOMEM or
 * -EIO (zstd failed); after an error the encoder is of no use. */
int ram_encoder_feed(struct ram_encoder *e, const uint8_t *data, size_t len, struct buffer *out);
/* Sends what waits, but for an incomplete record. */
int ram_encoder_flush(struct ram_encoder *e, struct buffer *out);
/* Sends everything: the stream has ended, or stands still amid a record. */
int ram_encoder_finish(struct ram_encoder *e, struct buffer *out);

void ram_encoder_get_stats(const struct ram_encoder *e, struct ram_codec_stats *ret);

#endif
