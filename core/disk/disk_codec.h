/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the two sites of a move agree on compressing the disks' streams (storage/mirror_pack.h).
 *
 * The source offers {"version": 1, "window_log": N, "lanes": L} in its prepare message, the target answers with the same
 * and perhaps a smaller window or fewer lanes in ready; no lanes are one. A side that does not know it, whose [link]
 * says compression = off, or that knows another version leaves it out: then the streams travel as they are, and the
 * link compresses frames.
 */
#ifndef FERRY_CORE_DISK_CODEC_H
#define FERRY_CORE_DISK_CODEC_H

#include <jansson.h>
#include <stdbool.h>

#include "core/config.h"

struct disk_codec {
    bool used;
    unsigned window_log, lanes; /* as agreed, of each disk */
};

/* How many threads of a move's source compress: half of the processors, guests run on the others; a few at most. */
unsigned disk_codec_threads(void);

/* The source's offer for a guest with @disks: a lane a thread, and where there are many disks, or @moves under way with this
 * one, which share the processors, one a disk. NULL: none. */
json_t *disk_codec_offer(const struct config *c, unsigned disks, unsigned moves);
/* The target's answer to @offer (NULL: there was none); NULL: no. *ret says what was agreed. */
json_t *disk_codec_answer(const struct config *c, unsigned disks, const json_t *offer,
                          struct disk_codec *ret);
/* What the target's answer to our offer comes to. */
void disk_codec_agree(const struct config *c, unsigned disks, const json_t *answer,
                      struct disk_codec *ret);

#endif
