/* SPDX-License-Identifier: Apache-2.0 */
/* Verification of one disk, the source's side: see mirror_check.h. */
#include "storage/mirror_check.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/macros.h"
#include "storage/disk_digest.h"
#include "storage/limits.h"

enum { UNIT = DISK_DIGEST_UNIT_BYTES, WORD_BITS = 64 };

struct question {
    LIST_ENTRY(question) link;
    uint64_t id, offset;
    uint32_t length;
    uint8_t digest[DISK_DIGEST_BYTES];
};

struct mirror_check {
    uint64_t size_bytes, units;
    uint64_t *hashes;      /* of a unit, where `known` */
    uint64_t *known, *due; /* bits */
    uint64_t known_units, due_units;
    uint64_t cursor, last_id;
    uint64_t zero_hash;
    LIST_HEAD(, question) questions;
    struct mirror_check_stats stats;
};

int mirror_check_new(struct mirror_check **ret_check, uint64_t size_bytes)
{
    static const uint8_t zeroes[UNIT];
    struct mirror_check *c = calloc(1, sizeof(*c));
    uint64_t words;

    if (!c)
        return -ENOMEM;
    c->size_bytes = size_bytes;
    c->units = (size_bytes + UNIT - 1) / UNIT;
    words = c->units / WORD_BITS + 1;
    c->hashes = calloc(c->units + 1, sizeof(*c->hashes));
    c->known = calloc(words, sizeof(*c->known));
    c->due = calloc(words, sizeof(*c->due));
    c->zero_hash = disk_digest_unit(zeroes, UNIT);
    LIST_INIT(&c->questions);
    if (!c->hashes || !c->known || !c->due) {
        mirror_check_free(c);
        return -ENOMEM;
    }
    *ret_check = c;
    return 0;
}

void mirror_check_free(struct mirror_check *c)
{
    struct question *q;

    if (!c)
        return;
    while ((q = LIST_FIRST(&c->questions))) {
        LIST_REMOVE(q, link);
        free(q);
    }
    free(c->hashes);
    free(c->known);
    free(c->due);
    free(c);
}

static bool get(const uint64_t *bits, uint64_t unit)
{
    return bits[unit / WORD_BITS] >> (unit % WORD_BITS) & 1;
}

/* Sets or clears; keeps the count. */
static void put(uint64_t *bits, uint64_t unit, bool value, uint64_t *count)
{
    uint64_t mask = UINT64_C(1) << (unit % WORD_BITS);

    if (value == get(bits, unit))
        return;
    bits[unit / WORD_BITS] ^= mask;
    *count += value ? 1 : UINT64_MAX;
}

static void set_unit(struct mirror_check *c, uint64_t unit, bool known, uint64_t hash)
{
    c->hashes[unit] = hash;
    put(c->known, unit, known, &c->known_units);
    put(c->due, unit, known, &c->due_units);
}

static uint32_t unit_bytes(const struct mirror_check *c, uint64_t unit)
{
    return (uint32_t)MIN(c->size_bytes - unit * UNIT, (uint64_t)UNIT);
}

static uint64_t zero_of(const struct mirror_check *c, uint64_t unit)
{
    static const uint8_t zeroes[UNIT];
    uint32_t len = unit_bytes(c, unit);

    return len == UNIT ? c->zero_hash : disk_digest_unit(zeroes, len);
}

enum what { DATA, ZEROES, ANYTHING };

static void note(struct mirror_check *c, enum what what, uint64_t offset, uint32_t length,
                 const uint8_t *data)
{
    uint64_t end = offset + length;

    for (uint64_t unit = offset / UNIT; unit * UNIT < end; unit++) {
        uint64_t start = unit * UNIT;
        bool whole = start >= offset && start + unit_bytes(c, unit) <= end;

        if (!whole || what == ANYTHING)
            set_unit(c, unit, false, 0);
        else if (what == ZEROES)
            set_unit(c, unit, true, zero_of(c, unit));
        else
            set_unit(c, unit, true, disk_digest_unit(data + (start - offset), unit_bytes(c, unit)));
    }
}

void mirror_check_write(struct mirror_check *c, uint64_t offset, uint32_t length,
                        const uint8_t *data)
{
    note(c, DATA, offset, length, data);
}

void mirror_check_zero(struct mirror_check *c, uint64_t offset, uint32_t length)
{
    note(c, ZEROES, offset, length, NULL);
}

void mirror_check_trim(struct mirror_check *c, uint64_t offset, uint32_t length)
{
    note(c, ANYTHING, offset, length, NULL);
}

/* The first unit to be checked, from the cursor on and around. */
static uint64_t find_due(const struct mirror_check *c)
{
    uint64_t unit = c->cursor;

    for (;;) {
        if (unit >= c->units)
            unit = 0;
        if (unit % WORD_BITS == 0 && c->due[unit / WORD_BITS] == 0)
            unit += WORD_BITS;
        else if (get(c->due, unit))
            return unit;
        else
            unit++;
    }
}

int mirror_check_next(struct mirror_check *c, uint64_t *ret_offset, uint32_t *ret_length,
                      uint64_t *ret_id)
{
    struct question *q;
    uint64_t first, unit;

    if (c->due_units == 0)
        return -ENOENT;
    q = calloc(1, sizeof(*q));
    if (!q)
        return -ENOMEM;
    first = unit = find_due(c);
    q->offset = first * UNIT;
    while (unit < c->units && get(c->due, unit) && q->length + UNIT <= LIMIT_CHECK_BYTES) {
        q->length += unit_bytes(c, unit);
        put(c->due, unit++, false, &c->due_units);
    }
    c->cursor = unit;
    q->id = ++c->last_id;
    disk_digest_of_units(c->hashes + first, unit - first, q->digest);
    LIST_INSERT_HEAD(&c->questions, q, link);
    c->stats.asked++;
    *ret_offset = q->offset;
    *ret_length = q->length;
    *ret_id = q->id;
    return 0;
}

int mirror_check_answer(struct mirror_check *c, uint64_t id, const uint8_t *digest,
                        uint64_t *ret_offset)
{
    struct question *q;
    bool equal;

    LIST_FOREACH(q, &c->questions, link)
    {
        if (q->id == id)
            break;
    }
    if (!q)
        return -ENOENT;
    equal = memcmp(q->digest, digest, DISK_DIGEST_BYTES) == 0;
    *ret_offset = q->offset;
    c->stats.asked--;
    if (equal)
        c->stats.checked_bytes += q->length;
    LIST_REMOVE(q, link);
    free(q);
    return equal ? 0 : -EILSEQ;
}

void mirror_check_stats(const struct mirror_check *c, struct mirror_check_stats *ret_stats)
{
    *ret_stats = c->stats;
    ret_stats->left_bytes = c->due_units * UNIT;
    ret_stats->unknown_bytes = (c->units - c->known_units) * UNIT;
}
