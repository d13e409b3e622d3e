/* SPDX-License-Identifier: Apache-2.0 */
/* Agreement on the RAM codec: see memory_codec.h. */
#include "core/move/memory_codec.h"

enum { VERSION = 1 };

/* More than the guest has is of no use. */
static uint64_t store_for(const struct config *c, uint64_t memory_bytes)
{
    return memory_bytes ? MIN(c->page_store_bytes, memory_bytes) : c->page_store_bytes;
}

static json_t *to_json(uint64_t store_bytes, unsigned references)
{
    json_t *json =
        json_pack("{s:i, s:I}", "version", VERSION, "page_store", (json_int_t)store_bytes);

    if (references > 0)
        json_object_set_new(json, "references", json_integer((json_int_t)references));
    return json;
}

/* Both mean the same disks, or none. */
static unsigned references_of(const json_t *json, unsigned disks)
{
    return json_integer_value(json_object_get(json, "references")) == (json_int_t)disks ? disks : 0;
}

static bool from_json(const json_t *json, uint64_t *ret_store_bytes)
{
    const json_t *version = json_object_get(json, "version");
    const json_t *store = json_object_get(json, "page_store");

    if (json_integer_value(version) != VERSION || !json_is_integer(store) ||
        json_integer_value(store) < 0)
        return false;
    *ret_store_bytes = (uint64_t)json_integer_value(store);
    return true;
}

json_t *memory_codec_offer(const struct config *c, uint64_t memory_bytes, unsigned disks)
{
    return c->codec ? to_json(store_for(c, memory_bytes), c->disk_index_bytes > 0 ? disks : 0)
                    : NULL;
}

json_t *memory_codec_answer(const struct config *c, unsigned disks, const json_t *offer,
                            struct memory_codec *ret)
{
    uint64_t store_bytes;

    *ret = (struct memory_codec){0};
    if (!c->codec || !from_json(offer, &store_bytes))
        return NULL;
    ret->used = true;
    ret->config.store_bytes = MIN(store_bytes, c->page_store_bytes);
    ret->references = references_of(offer, disks);
    return to_json(ret->config.store_bytes, ret->references);
}

void memory_codec_agree(const struct config *c, uint64_t memory_bytes, unsigned disks,
                        const json_t *answer, struct memory_codec *ret)
{
    uint64_t store_bytes;

    *ret = (struct memory_codec){0};
    if (!c->codec || !from_json(answer, &store_bytes) || store_bytes > store_for(c, memory_bytes))
        return;
    ret->used = true;
    ret->config.store_bytes = store_bytes;
    ret->references = c->disk_index_bytes > 0 ? references_of(answer, disks) : 0;
}

json_t *memory_codec_to_json(const struct ram_pipe_stats *s, bool encoder)
{
    const struct ram_codec_stats *c = &s->codec;
    json_t *operations = json_object(), *json;

    for (unsigned op = 0; op < RAM_OPERATIONS; op++) {
        json_t *one = json_pack("{s:I, s:I}", "count", (json_int_t)c->operation[op].count, "bytes",
                                (json_int_t)c->operation[op].stream_bytes);

        if (encoder)
            json_object_set_new(one, "wire_bytes",
                                json_integer((json_int_t)c->operation[op].wire_bytes));
        json_object_set_new(operations, ram_operation_name((enum ram_operation)op), one);
    }
    json =
        json_pack("{s:o, s:f, s:I}", "operations", operations, "cpu_seconds",
                  (double)s->cpu_ns / 1e9, "references_missed", (json_int_t)c->references_missed);
    if (encoder) {
        json_object_set_new(json, "level", json_integer(s->level));
        json_object_set_new(json, "store_lookups", json_integer((json_int_t)c->store_lookups));
        json_object_set_new(json, "references_refused",
                            json_integer((json_int_t)c->references_refused));
        json_object_set_new(json, "store_hits", json_integer((json_int_t)c->store_hits));
    }
    return json;
}
