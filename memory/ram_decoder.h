/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoding half of the RAM codec: chunks in, QEMU's stream out. See ram_codec.h.
 *
 * The peer is not trusted: every length is checked before it is used, memory is bounded by one chunk and
 * the page store, and a chunk whose checksum is wrong delivers nothing.
 */
#ifndef FERRY_MEMORY_RAM_DECODER_H
#define FERRY_MEMORY_RAM_DECODER_H

#include <stdbool.h>
#include <stddef.h>

#include "core/base/buffer.h"
#include "memory/ram_codec.h"

struct ram_decoder;

/* -ENOMEM, -EINVAL (a store too large). Without references. */
int ram_decoder_new(const struct ram_codec_config *config, struct ram_decoder **ret);
void ram_decoder_free(struct ram_decoder *d);
/* References may come from now on, to the first @disks disks. */
void ram_decoder_set_blocks(struct ram_decoder *d, unsigned disks,
                            const struct ram_reference_target_ops *ops, void *user);

/*
 * Takes bytes up to the end of one chunk at most, says how many, and appends what a completed chunk
 * decodes to (at most LIMIT_RAM_CHUNK_BYTES) to @out. 0; -EPROTO: malformed; -EBADMSG: the checksum is
 * wrong, the two ends are out of step; -ENOMEM. After an error nothing more is decoded: the same again.
 */
int ram_decoder_feed(struct ram_decoder *d, const uint8_t *data, size_t len, size_t *ret_taken,
                     struct buffer *out);
/* Nothing of a chunk waits for its rest: the stream may end here. */
bool ram_decoder_is_at_boundary(const struct ram_decoder *d);

void ram_decoder_get_stats(const struct ram_decoder *d, struct ram_codec_stats *ret);

#endif
