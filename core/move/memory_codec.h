/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How the two sites of a move agree on the RAM codec, and what is reported of it.
 *
 * The source offers {"version": 1, "page_store": BYTES} in its prepare message, the target answers with the
 * same and its own smaller page store in ready. Either may add "references", the number of the VM's disks:
 * pages may then be references to blocks of them (page_wire.h). A side that does not know it, does not want it, or knows
 * another version leaves it out: then the stream travels as it is.
 */
#ifndef FERRY_CORE_MEMORY_CODEC_H
#define FERRY_CORE_MEMORY_CODEC_H

#include <jansson.h>

#include "core/config.h"
#include "core/move/ram_pipe.h"

struct memory_codec {
    bool used;
    struct ram_codec_config config; /* as agreed */
    unsigned references;            /* disks that may be referred to; 0: none */
};

/* The source's offer for a guest with @memory_bytes and @disks; NULL: none. */
json_t *memory_codec_offer(const struct config *c, uint64_t memory_bytes, unsigned disks);
/* The target's answer to @offer (NULL: there was none); NULL: no. *ret says what was agreed. */
json_t *memory_codec_answer(const struct config *c, unsigned disks, const json_t *offer,
                            struct memory_codec *ret);
/* What the target's answer to our offer for @memory_bytes comes to. */
void memory_codec_agree(const struct config *c, uint64_t memory_bytes, unsigned disks,
                        const json_t *answer, struct memory_codec *ret);

/* Operations, hit rate, CPU time. New reference. */
json_t *memory_codec_to_json(const struct ram_pipe_stats *s, bool encoder);

#endif
