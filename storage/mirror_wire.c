/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoding and bounded decoding of the mirror stream: see mirror_wire.h for the format.
 *
 * One table says for every type which way it goes, which fields may be set and how long it may be; the
 * decoder checks a header against it before it takes memory. What depends on the disk (its size, the
 * sequence) is checked by the engine that receives the message.
 */
#include "storage/mirror_wire.h"

#include <errno.h>
#include <string.h>

#include "core/base/wire.h"
#include "storage/disk_digest.h"
#include "storage/limits.h"
#include "storage/seed_blocks.h"

struct type_rule {
    const char *name;
    enum mirror_wire_direction direction;
    uint8_t flags_allowed;
    bool payload;
    uint32_t length_min, length_max;
};

static const struct type_rule rules[] = {
    [MIRROR_WIRE_OPEN] = {"OPEN", MIRROR_WIRE_TO_TARGET, 0, true, 1, LIMIT_EXPORT_NAME_BYTES},
    [MIRROR_WIRE_WRITE] = {"WRITE", MIRROR_WIRE_TO_TARGET, 0, true, 1, LIMIT_NBD_WRITE_BYTES},
    [MIRROR_WIRE_ZERO] = {"ZERO", MIRROR_WIRE_TO_TARGET, MIRROR_WIRE_MAY_TRIM, false, 1,
                          LIMIT_MIRROR_EXTENT_BYTES},
    [MIRROR_WIRE_TRIM] = {"TRIM", MIRROR_WIRE_TO_TARGET, 0, false, 1, LIMIT_MIRROR_EXTENT_BYTES},
    [MIRROR_WIRE_FLUSH] = {"FLUSH", MIRROR_WIRE_TO_TARGET, 0, false, 0, 0},
    [MIRROR_WIRE_READ] = {"READ", MIRROR_WIRE_TO_TARGET, 0, false, 1, LIMIT_MIRROR_READ_BYTES},
    [MIRROR_WIRE_CLOSE] = {"CLOSE", MIRROR_WIRE_TO_TARGET, 0, false, 0, 0},
    [MIRROR_WIRE_CHECK] = {"CHECK", MIRROR_WIRE_TO_TARGET, 0, false, 1, LIMIT_CHECK_BYTES},
    [MIRROR_WIRE_SEED] = {"SEED", MIRROR_WIRE_TO_TARGET, 0, true, 1, SEED_EXTENT_BYTES},
    [MIRROR_WIRE_FILL] = {"FILL", MIRROR_WIRE_TO_TARGET, 0, true, SEED_MAP_BYTES,
                          SEED_MAP_BYTES + SEED_EXTENT_BYTES},
    [MIRROR_WIRE_APPLIED] = {"APPLIED", MIRROR_WIRE_TO_SOURCE, 0, false, 0, 0},
    [MIRROR_WIRE_READ_DATA] = {"READ_DATA", MIRROR_WIRE_TO_SOURCE, 0, true, 0,
                               LIMIT_MIRROR_READ_BYTES},
    [MIRROR_WIRE_CLOSED] = {"CLOSED", MIRROR_WIRE_TO_SOURCE, 0, false, 0, 0},
    [MIRROR_WIRE_ERROR] = {"ERROR", MIRROR_WIRE_TO_SOURCE, 0, true, 0, LIMIT_MIRROR_TEXT_BYTES},
    [MIRROR_WIRE_DIGEST] = {"DIGEST", MIRROR_WIRE_TO_SOURCE, 0, true, 0, DISK_DIGEST_BYTES},
    [MIRROR_WIRE_MISS] = {"MISS", MIRROR_WIRE_TO_SOURCE, 0, true, 0,
                          SEED_EXTENT_BYTES / DISK_DIGEST_UNIT_BYTES *SEED_HINT_BYTES},
};

static const struct type_rule *rule_of(unsigned type)
{
    return type < ARRAY_SIZE(rules) && rules[type].name ? &rules[type] : NULL;
}

const char *mirror_wire_type_name(enum mirror_wire_type type)
{
    const struct type_rule *rule = rule_of(type);

    return rule ? rule->name : "?";
}

uint32_t mirror_wire_payload_bytes(const struct mirror_wire_message *m)
{
    const struct type_rule *rule = rule_of(m->type);

    if (!rule || !rule->payload)
        return 0;
    return m->type == MIRROR_WIRE_SEED ? seed_digests_bytes(m->length) : m->length;
}

void mirror_wire_encode(const struct mirror_wire_message *m, uint8_t out[MIRROR_WIRE_HEADER_BYTES])
{
    out[0] = (uint8_t)m->type;
    out[1] = m->flags;
    put_be16(out + 2, 0);
    put_be32(out + 4, m->length);
    put_be64(out + 8, m->seq);
    put_be64(out + 16, m->offset);
}

void mirror_wire_decoder_init(struct mirror_wire_decoder *d, enum mirror_wire_direction direction)
{
    *d = (struct mirror_wire_decoder){.direction = direction};
}

void mirror_wire_decoder_done(struct mirror_wire_decoder *d)
{
    free(TAKE_PTR(d->message.payload));
}

size_t mirror_wire_decoder_bytes(const struct mirror_wire_decoder *d)
{
    return d->message.payload ? mirror_wire_payload_bytes(&d->message) : 0;
}

static int malformed(struct error *e, const char *type, const char *why)
{
    return error_set(e, -EPROTO, "read the mirror stream", "do both sites run the same version?",
                     "message %s: %s", type, why);
}

/* A whole header is there: check it, and make room for its payload. */
static int begin_message(struct mirror_wire_decoder *d, struct error *e)
{
    struct mirror_wire_message *m = &d->message;
    const struct type_rule *rule = rule_of(d->header[0]);
    uint32_t bytes;

    if (!rule)
        return malformed(e, "?", "unknown type");
    if (rule->direction != d->direction)
        return malformed(e, rule->name, "goes the other way");
    *m = (struct mirror_wire_message){
        .type = d->header[0],
        .flags = d->header[1],
        .length = get_be32(d->header + 4),
        .seq = get_be64(d->header + 8),
        .offset = get_be64(d->header + 16),
    };
    if ((m->flags & ~rule->flags_allowed) || get_be16(d->header + 2) != 0)
        return malformed(e, rule->name, "unknown flags");
    if (m->length < rule->length_min || m->length > rule->length_max)
        return malformed(e, rule->name, "length out of bounds");
    if (m->type == MIRROR_WIRE_READ_DATA && (m->offset != 0) != (m->length == 0))
        return malformed(e, rule->name, "either data or an error");
    if (m->type == MIRROR_WIRE_DIGEST && m->length != (m->offset ? 0 : DISK_DIGEST_BYTES))
        return malformed(e, rule->name, "either a digest or an error");
    bytes = mirror_wire_payload_bytes(m);
    if (bytes == 0)
        return 0;
    m->payload = malloc(bytes);
    if (!m->payload)
        return error_set(e, -ENOMEM, "read the mirror stream", NULL, "no memory for %u bytes",
                         bytes);
    return 0;
}

ssize_t mirror_wire_decode(struct mirror_wire_decoder *d, const void *data, size_t len,
                           struct mirror_wire_message *ret_message, bool *ret_complete,
                           struct error *e)
{
    size_t head, body = 0;
    int err;

    head = MIN(len, MIRROR_WIRE_HEADER_BYTES - d->header_fill);
    if (head > 0)
        memcpy(d->header + d->header_fill, data, head);
    d->header_fill += head;
    *ret_complete = false;
    if (d->header_fill < MIRROR_WIRE_HEADER_BYTES)
        return (ssize_t)head;
    if (head > 0) {
        err = begin_message(d, e);
        if (err < 0)
            return err;
    }
    if (d->message.payload) {
        size_t bytes = mirror_wire_payload_bytes(&d->message);

        body = MIN(len - head, bytes - d->payload_fill);
        if (body > 0)
            memcpy(d->message.payload + d->payload_fill, (const uint8_t *)data + head, body);
        d->payload_fill += body;
        if (d->payload_fill < bytes)
            return (ssize_t)(head + body);
    }
    *ret_message = d->message;
    *ret_complete = true;
    mirror_wire_decoder_init(d, d->direction);
    return (ssize_t)(head + body);
}
