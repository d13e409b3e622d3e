/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The encoder: see ram_encoder.h.
 *
 * The parser walks the stream item by item. Bytes of an item that may become a page's record are held
 * in `held` until it is complete; then the record becomes one operation. Whatever else comes is literal.
 *
 * What a page becomes, the cheapest test first:
 *
 *   repeats 8 bytes                          CONSTANT
 *   is in the store under its own key:
 *     equal                                  DUPLICATE of its own slot
 *     few spans differ                       DELTA
 *     up to half of its bytes differ         XOR
 *   is in the store under another key        DUPLICATE
 *   is known to lie on a disk of the target  DISK
 *   looks random                             PLAIN
 *   else                                     ZSTD
 */
#include "memory/ram_encoder.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "memory/disk_blocks.h"
#include "memory/page_content.h"
#include "memory/page_index.h"
#include "memory/page_store.h"
#include "memory/ram_checksum.h"
#include "memory/ram_chunk_writer.h"
#include "memory/ram_codec_format.h"
#include "memory/ram_parser.h"
#include "memory/ram_reference.h"

enum { HELD_MAX_BYTES = 512 }; /* the parser's longest item and its record's head */

/* Up to this many differing bytes, the difference compresses better than the page. */
enum { XOR_MAX_DIFFERING = RAM_PAGE_BYTES / 2 };

static_assert((int)HELD_MAX_BYTES >= (int)RAM_RECORD_HEAD_MAX_BYTES, "a record's head fits");
static_assert(PAGE_INDEX_NONE == RAM_NO_SLOT, "no slot is no slot");

struct ram_encoder {
    struct ram_parser *parser;
    struct ram_chunk_writer *writer;
    struct page_store store;
    struct page_index *index;
    uint8_t held[HELD_MAX_BYTES]; /* the beginning of a record */
    size_t held_fill;
    bool item_cut;                /* its beginning was sent already: the rest is literal */
    bool page_expected;           /* the record's head is complete (and gone from `held`) */
    struct ram_page id;           /* of the expected page */
    uint8_t page[RAM_PAGE_BYTES]; /* the beginning of the expected page */
    size_t page_fill;
    size_t literal_left; /* of a page whose beginning was sent already */
    uint64_t store_lookups, store_hits;
    const struct disk_blocks *blocks; /* NULL: no references */
    const struct ram_reference_source_ops *reference_ops;
    void *reference_user;
    uint64_t references, references_refused;
};

int ram_encoder_new(const struct ram_codec_config *config, struct ram_encoder **ret)
{
    struct ram_encoder *e = calloc(1, sizeof(*e));
    int r;

    if (!e)
        return -ENOMEM;
    r = page_store_init(&e->store, config->store_bytes);
    if (r == 0)
        r = page_index_new(e->store.slots, &e->index);
    if (r == 0)
        r = ram_parser_new(&e->parser);
    if (r == 0)
        r = ram_chunk_writer_new(RAM_LEVEL_DEFAULT, &e->writer);
    if (r < 0) {
        ram_encoder_free(e);
        return r;
    }
    *ret = e;
    return 0;
}

void ram_encoder_free(struct ram_encoder *e)
{
    if (!e)
        return;
    ram_parser_free(e->parser);
    ram_chunk_writer_free(e->writer);
    page_index_free(e->index);
    page_store_done(&e->store);
    free(e);
}

void ram_encoder_set_blocks(struct ram_encoder *e, const struct disk_blocks *blocks,
                            const struct ram_reference_source_ops *ops, void *user)
{
    e->blocks = blocks;
    e->reference_ops = ops;
    e->reference_user = user;
}

void ram_encoder_set_level(struct ram_encoder *e, int level)
{
    ram_chunk_writer_set_level(e->writer, MIN(MAX(level, RAM_LEVEL_LEAST), RAM_LEVEL_MOST));
}

/* --- output -------------------------------------------------------------------------------- */

static int close_if_full(struct ram_encoder *e, struct buffer *out)
{
    return ram_chunk_writer_is_full(e->writer) ? ram_chunk_writer_close(e->writer, out) : 0;
}

static int add_literal(struct ram_encoder *e, const uint8_t *data, size_t len, struct buffer *out)
{
    int r = 0;

    for (size_t n; len > 0 && r == 0; data += n, len -= n) {
        n = MIN(len, (size_t)RAM_LITERAL_MAX_BYTES);
        ram_chunk_writer_add_literal(e->writer, data, n);
        r = close_if_full(e, out);
    }
    return r;
}

static int add_record(struct ram_encoder *e, const struct ram_record *record, struct buffer *out)
{
    int r = ram_chunk_writer_add(e->writer, record);

    return r < 0 ? r : close_if_full(e, out);
}

/* --- pages --------------------------------------------------------------------------------- */

static void put_in_store(struct ram_encoder *e, uint32_t slot, const uint8_t *page, uint64_t hash,
                         bool again)
{
    if (slot == PAGE_INDEX_NONE)
        return;
    page_store_put(&e->store, slot, page);
    page_index_put(e->index, slot, e->id.key, hash, again);
}

/* The slot that holds exactly this content. */
static uint32_t find_equal(struct ram_encoder *e, const uint8_t *page, uint64_t hash)
{
    uint32_t slot = page_index_find_hash(e->index, hash, PAGE_INDEX_NONE);

    for (unsigned n = 0; slot != PAGE_INDEX_NONE && n < 2; n++) {
        if (memcmp(page_store_at(&e->store, slot), page, RAM_PAGE_BYTES) == 0)
            return slot;
        slot = page_index_find_hash(e->index, hash, slot);
    }
    return PAGE_INDEX_NONE;
}

/* Makes the reference's data, if the page lies on a disk there. */
static bool refer(struct ram_encoder *e, const uint8_t *page, uint64_t hash,
                  uint8_t data[RAM_REFERENCE_BYTES])
{
    uint64_t offset;
    unsigned disk;

    if (ram_parser_package_offset(e->parser) != UINT64_MAX)
        return false; /* in post-copy the target's guest writes to its disks */
    if (!e->blocks || !disk_blocks_find(e->blocks, hash, &disk, &offset))
        return false;
    if (!e->reference_ops->may_refer(e->reference_user)) {
        e->references_refused++;
        return false;
    }
    data[0] = (uint8_t)disk;
    put_be64(data + 1, offset);
    if (!ram_reference_hash(page, data + 9))
        return false;
    e->reference_ops->keep(e->reference_user, e->references++, page);
    return true;
}

static void become_reference(struct ram_record *record, const uint8_t *data)
{
    record->op = RAM_DISK;
    record->data = data;
    record->data_len = RAM_REFERENCE_BYTES;
}

/* Of which nothing is known here. */
static void describe_new(struct ram_encoder *e, struct ram_record *record,
                         uint8_t reference[RAM_REFERENCE_BYTES])
{
    if (refer(e, record->page, record->hash, reference))
        become_reference(record, reference);
    else
        record->op = page_content_looks_random(record->page) ? RAM_PLAIN : RAM_ZSTD;
}

static int add_page(struct ram_encoder *e, const uint8_t *page, struct buffer *out)
{
    struct ram_record record = {.id = &e->id, .page = page, .slot = RAM_NO_SLOT};
    uint8_t delta[PAGE_DELTA_MAX_BYTES], difference[RAM_PAGE_BYTES];
    uint8_t reference[RAM_REFERENCE_BYTES];
    const uint8_t *base = NULL;
    uint32_t own, equal;
    int r;

    record.hash = ram_checksum_of_page(page);
    if (page_content_is_constant(page)) {
        record.op = RAM_CONSTANT;
        record.data = page;
        record.data_len = sizeof(uint64_t);
        return add_record(e, &record, out);
    }
    if (e->store.slots == 0) {
        describe_new(e, &record, reference);
        return add_record(e, &record, out);
    }
    own = page_index_find_key(e->index, e->id.key);
    e->store_lookups++;
    if (own != PAGE_INDEX_NONE) {
        e->store_hits++;
        base = page_store_at(&e->store, own);
        record.data_len = page_content_write_delta(base, page, delta);
        if (record.data_len == 1) { /* no span: equal */
            record.op = RAM_DUPLICATE;
            record.slot = own;
            record.data_len = 0;
            return add_record(e, &record, out);
        }
    }
    if (record.data_len > 0) {
        record.op = RAM_DELTA;
        record.data = delta;
    } else if ((equal = find_equal(e, page, record.hash)) != PAGE_INDEX_NONE) {
        record.op = RAM_DUPLICATE;
        record.slot = equal;
        return add_record(e, &record, out);
    } else if (refer(e, page, record.hash, reference)) {
        become_reference(&record, reference);
    } else if (base && page_content_differing_bytes(base, page) <= XOR_MAX_DIFFERING) {
        record.op = RAM_XOR;
        page_content_xor(difference, base, page);
        record.transformed = difference;
    } else {
        record.op = page_content_looks_random(page) ? RAM_PLAIN : RAM_ZSTD;
    }
    record.slot = own != PAGE_INDEX_NONE ? own : page_index_take(e->index);
    r = add_record(e, &record, out);
    put_in_store(e, record.slot, page, record.hash, own != PAGE_INDEX_NONE);
    return r;
}

/* --- the stream ---------------------------------------------------------------------------- */

/* The item that ended is whole in `held`, or lies in @data. */
static int add_item(struct ram_encoder *e, enum ram_item item, const uint8_t *data, size_t len,
                    struct buffer *out)
{
    struct ram_record record = {.op = RAM_ZERO, .id = &e->id, .slot = RAM_NO_SLOT};

    if (item == RAM_ITEM_PAGE || item == RAM_ITEM_ZERO)
        ram_parser_get_page(e->parser, &e->id);
    if (e->item_cut)
        e->id.continues = e->item_cut = false;
    if (item == RAM_ITEM_ZERO && e->id.continues && len == RAM_ZERO_RECORD_BYTES &&
        data[RAM_PAGE_HEADER_BYTES] == 0)
        return add_record(e, &record, out);
    if (item == RAM_ITEM_PAGE) {
        e->page_expected = true;
        ram_parser_take_page(e->parser);
        if (e->id.continues)
            return 0;
    }
    return add_literal(e, data, len, out);
}

static int flush_point(struct ram_encoder *e, struct buffer *out)
{
    return ram_chunk_writer_is_empty(e->writer) ? 0 : ram_chunk_writer_close(e->writer, out);
}

static int take_page(struct ram_encoder *e, const uint8_t *data, size_t len, size_t *ret_taken,
                     struct buffer *out)
{
    size_t n = MIN(len, RAM_PAGE_BYTES - e->page_fill);

    *ret_taken = n;
    if (e->page_fill == 0 && n == RAM_PAGE_BYTES) {
        e->page_expected = false;
        return add_page(e, data, out);
    }
    memcpy(e->page + e->page_fill, data, n);
    e->page_fill += n;
    if (e->page_fill < RAM_PAGE_BYTES)
        return 0;
    e->page_fill = 0;
    e->page_expected = false;
    return add_page(e, e->page, out);
}

static int take_item(struct ram_encoder *e, const uint8_t *data, size_t len, size_t *ret_taken,
                     struct buffer *out)
{
    enum ram_item item;
    size_t n = ram_parser_next(e->parser, data, len, &item);
    int r;

    *ret_taken = n;
    if (item == RAM_ITEM_NONE || e->held_fill > 0) {
        assert(n <= sizeof(e->held) - e->held_fill);
        memcpy(e->held + e->held_fill, data, n);
        e->held_fill += n;
        data = e->held;
        n = e->held_fill;
    }
    if (item == RAM_ITEM_NONE)
        return 0;
    e->held_fill = 0;
    r = add_item(e, item, data, n, out);
    return r == 0 && item == RAM_ITEM_PAUSE ? flush_point(e, out) : r;
}

int ram_encoder_feed(struct ram_encoder *e, const uint8_t *data, size_t len, struct buffer *out)
{
    size_t taken;
    int r = 0;

    for (; len > 0 && r == 0; data += taken, len -= taken) {
        if (e->literal_left > 0) {
            taken = MIN(len, e->literal_left);
            e->literal_left -= taken;
            r = add_literal(e, data, taken, out);
        } else if (e->page_expected) {
            r = take_page(e, data, len, &taken, out);
        } else {
            r = take_item(e, data, len, &taken, out);
        }
    }
    if (r == 0 && ram_parser_is_opaque(e->parser))
        r = flush_point(e, out);
    return r;
}

int ram_encoder_flush(struct ram_encoder *e, struct buffer *out)
{
    return flush_point(e, out);
}

int ram_encoder_finish(struct ram_encoder *e, struct buffer *out)
{
    uint8_t head[RAM_PAGE_HEADER_BYTES];
    int r = 0;

    if (e->held_fill > 0) {
        r = add_literal(e, e->held, e->held_fill, out);
        e->held_fill = 0;
        e->item_cut = true;
    }
    if (r == 0 && e->page_expected) {
        if (e->id.continues) {
            put_be64(head, e->id.number * RAM_PAGE_BYTES | RAM_FLAG_PAGE | RAM_FLAG_CONTINUE);
            r = add_literal(e, head, sizeof(head), out);
        }
        if (r == 0)
            r = add_literal(e, e->page, e->page_fill, out);
        e->literal_left = RAM_PAGE_BYTES - e->page_fill;
        e->page_fill = 0;
        e->page_expected = false;
    }
    return r < 0 ? r : flush_point(e, out);
}

void ram_encoder_get_stats(const struct ram_encoder *e, struct ram_codec_stats *ret)
{
    ram_chunk_writer_get_stats(e->writer, ret);
    ret->store_lookups = e->store_lookups;
    ret->store_hits = e->store_hits;
    ret->references_refused = e->references_refused;
}
