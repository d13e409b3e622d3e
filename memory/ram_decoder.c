/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The decoder: see ram_decoder.h; the format is in ram_codec_format.h.
 *
 * A chunk is decoded in three steps: its header is checked, its two compressed parts are expanded into
 * scratch memory of fixed size, then its operations are carried out straight into the output. Faults set
 * `reader.bad` or return an errno; either ends the decoder for good.
 */
#include "memory/ram_decoder.h"

#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "core/base/limits.h"
#include "memory/page_content.h"
#include "memory/page_store.h"
#include "memory/ram_checksum.h"
#include "memory/ram_codec_format.h"
#include "memory/ram_parser.h"
#include "memory/ram_reference.h"

struct ram_decoder {
    ZSTD_DCtx *pages_zstd, *control_zstd;
    struct page_store store;
    struct buffer wire; /* the beginning of a chunk */
    XXH3_state_t *sum;  /* of the chunk under work */
    uint64_t checksum;  /* of the chunk before */
    uint64_t next_number;
    uint32_t next_slot;
    int fault;                                            /* negative errno, for good */
    const struct ram_reference_target_ops *reference_ops; /* NULL: none may come */
    void *reference_user;
    unsigned disks;
    uint64_t references;
    int lost; /* why one could not be had: negative errno */
    struct ram_codec_stats stats;
    uint8_t control[LIMIT_RAM_CONTROL_BYTES];
    uint8_t pages[LIMIT_RAM_CHUNK_BYTES];
};

/* One chunk under work. */
struct work {
    struct wire_reader operations, data, pages, plain;
    uint8_t *at, *end; /* of the output */
};

/* One operation. */
struct operation {
    enum ram_operation op;
    unsigned header, slot_mode;
    uint64_t count;
    uint32_t slot;
};

static bool set_up_zstd(ZSTD_DCtx *zstd)
{
    return zstd &&
           !ZSTD_isError(ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, RAM_WINDOW_LOG_MAX));
}

int ram_decoder_new(const struct ram_codec_config *config, struct ram_decoder **ret)
{
    struct ram_decoder *d = calloc(1, sizeof(*d));
    int r;

    if (!d)
        return -ENOMEM;
    d->pages_zstd = ZSTD_createDCtx();
    d->control_zstd = ZSTD_createDCtx();
    d->sum = XXH3_createState();
    r = d->sum && set_up_zstd(d->pages_zstd) && set_up_zstd(d->control_zstd) ? 0 : -ENOMEM;
    if (r == 0)
        r = page_store_init(&d->store, config->store_bytes);
    if (r < 0) {
        ram_decoder_free(d);
        return r;
    }
    *ret = d;
    return 0;
}

void ram_decoder_free(struct ram_decoder *d)
{
    if (!d)
        return;
    ZSTD_freeDCtx(d->pages_zstd);
    ZSTD_freeDCtx(d->control_zstd);
    XXH3_freeState(d->sum);
    page_store_done(&d->store);
    buffer_done(&d->wire);
    free(d);
}

void ram_decoder_set_blocks(struct ram_decoder *d, unsigned disks,
                            const struct ram_reference_target_ops *ops, void *user)
{
    d->disks = disks;
    d->reference_ops = ops;
    d->reference_user = user;
}

/* --- operations ---------------------------------------------------------------------------- */

static void account(struct ram_decoder *d, enum ram_operation op, uint64_t count, size_t bytes)
{
    d->stats.operation[op].count += count;
    d->stats.operation[op].stream_bytes += bytes;
}

static bool read_operation(struct ram_decoder *d, struct wire_reader *r, struct operation *o)
{
    static const struct {
        bool header, slot_allowed, slot_needed;
    } rules[RAM_OPERATIONS] = {
        [RAM_ZERO] = {.header = true},
        [RAM_CONSTANT] = {.header = true},
        [RAM_DUPLICATE] = {.header = true, .slot_allowed = true, .slot_needed = true},
        [RAM_DELTA] = {.header = true, .slot_allowed = true, .slot_needed = true},
        [RAM_PLAIN] = {.header = true, .slot_allowed = true},
        [RAM_ZSTD] = {.header = true, .slot_allowed = true},
        [RAM_XOR] = {.header = true, .slot_allowed = true, .slot_needed = true},
        [RAM_DISK] = {.header = true, .slot_allowed = true},
    };
    uint8_t byte = wire_u8(r);
    unsigned op = byte & 15;

    *o = (struct operation){.header = byte >> 4 & 3, .slot_mode = byte >> 6};
    o->count = ram_varint_get(r);
    if (r->bad || op > (d->reference_ops ? RAM_DISK : RAM_XOR) || o->count == 0 ||
        o->header >= RAM_HEADER_MODES || o->slot_mode >= RAM_SLOT_MODES)
        return false;
    o->op = (enum ram_operation)op;
    if (o->header != RAM_HEADER_NONE && !rules[op].header)
        return false;
    if (o->header == RAM_HEADER_NONE && op != RAM_LITERAL && (o->count != 1 || op == RAM_ZERO))
        return false;
    if (o->slot_mode == RAM_SLOT_NONE ? rules[op].slot_needed : !rules[op].slot_allowed)
        return false;
    if (o->header == RAM_HEADER_JUMP)
        d->next_number = (d->next_number + ram_unzigzag(ram_varint_get(r))) & RAM_PAGE_NUMBER_MASK;
    if (o->slot_mode != RAM_SLOT_NONE) {
        uint64_t slot = d->next_slot;

        if (o->slot_mode == RAM_SLOT_JUMP)
            slot += ram_unzigzag(ram_varint_get(r));
        if (slot >= d->store.slots || o->count > d->store.slots - slot)
            return false;
        o->slot = (uint32_t)slot;
        d->next_slot = (uint32_t)(slot + o->count);
    }
    return !r->bad;
}

static bool write_bytes(struct work *w, const void *data, size_t len)
{
    if ((size_t)(w->end - w->at) < len)
        return false;
    memcpy(w->at, data, len);
    w->at += len;
    return true;
}

static bool write_header(struct ram_decoder *d, struct work *w, const struct operation *o,
                         unsigned flag)
{
    uint64_t word = d->next_number * RAM_PAGE_BYTES | flag | RAM_FLAG_CONTINUE;
    uint8_t head[RAM_PAGE_HEADER_BYTES];

    if (o->header == RAM_HEADER_NONE)
        return true;
    put_be64(head, word);
    ram_checksum_header(d->sum, word);
    d->next_number = (d->next_number + 1) & RAM_PAGE_NUMBER_MASK;
    return write_bytes(w, head, sizeof(head));
}

static bool write_literal(struct ram_decoder *d, struct work *w, const struct operation *o)
{
    const uint8_t *data = o->count <= SIZE_MAX ? wire_bytes(&w->data, (size_t)o->count) : NULL;

    account(d, RAM_LITERAL, o->count, (size_t)o->count);
    if (!data || !write_bytes(w, data, (size_t)o->count))
        return false;
    ram_checksum_bytes(d->sum, data, (size_t)o->count);
    return true;
}

static bool write_zero(struct ram_decoder *d, struct work *w, const struct operation *o)
{
    account(d, RAM_ZERO, 1, RAM_ZERO_RECORD_BYTES);
    if (!write_header(d, w, o, RAM_FLAG_ZERO) || !write_bytes(w, "", 1))
        return false;
    ram_checksum_bytes(d->sum, "", 1);
    return true;
}

static bool write_constant(struct work *w)
{
    const uint8_t *pattern = wire_bytes(&w->data, sizeof(uint64_t));

    if (!pattern || w->end - w->at < RAM_PAGE_BYTES)
        return false;
    for (size_t i = 0; i < RAM_PAGE_BYTES; i += sizeof(uint64_t))
        memcpy(w->at + i, pattern, sizeof(uint64_t));
    w->at += RAM_PAGE_BYTES;
    return true;
}

/* The block, if it is still what the source meant; else the source has the page. */
static bool write_reference(struct ram_decoder *d, struct work *w)
{
    const uint8_t *data = wire_bytes(&w->data, RAM_REFERENCE_BYTES), *hash;
    uint64_t offset, number = d->references++;
    int r;

    if (!data || w->end - w->at < RAM_PAGE_BYTES)
        return false;
    hash = data + 9;
    offset = get_be64(data + 1);
    if (data[0] >= d->disks || offset % RAM_PAGE_BYTES != 0 || offset > INT64_MAX - RAM_PAGE_BYTES)
        return false;
    r = d->reference_ops->read(d->reference_user, data[0], offset, w->at);
    if (r != -ECANCELED && (r < 0 || !ram_reference_is(w->at, hash))) {
        d->stats.references_missed++;
        r = d->reference_ops->ask(d->reference_user, number, w->at);
        if (r == 0 && !ram_reference_is(w->at, hash))
            r = -EBADMSG;
    }
    w->at += RAM_PAGE_BYTES;
    d->lost = r;
    return r == 0;
}

/* A page's content; then the slot, if there is one, holds the same. */
static bool write_page(struct ram_decoder *d, struct work *w, const struct operation *o,
                       uint32_t slot)
{
    uint8_t *stored = o->slot_mode == RAM_SLOT_NONE ? NULL : page_store_at(&d->store, slot);
    const uint8_t *page;

    account(d, o->op, 1,
            RAM_PAGE_BYTES + (o->header == RAM_HEADER_NONE ? 0 : RAM_PAGE_HEADER_BYTES));
    switch (o->op) {
    case RAM_CONSTANT:
        return write_constant(w);
    case RAM_DUPLICATE:
        return write_bytes(w, stored, RAM_PAGE_BYTES);
    case RAM_DELTA:
        return page_content_apply_delta(&w->data, stored) && write_bytes(w, stored, RAM_PAGE_BYTES);
    case RAM_XOR:
        page = wire_bytes(&w->pages, RAM_PAGE_BYTES);
        if (!page)
            return false;
        page_content_xor(stored, stored, page);
        return write_bytes(w, stored, RAM_PAGE_BYTES);
    case RAM_DISK:
        if (!write_reference(d, w))
            return false;
        if (stored)
            page_store_put(&d->store, slot, w->at - RAM_PAGE_BYTES);
        return true;
    case RAM_PLAIN:
    case RAM_ZSTD:
        page = wire_bytes(o->op == RAM_PLAIN ? &w->plain : &w->pages, RAM_PAGE_BYTES);
        if (!page || !write_bytes(w, page, RAM_PAGE_BYTES))
            return false;
        if (stored)
            page_store_put(&d->store, slot, page);
        return true;
    default:
        return false;
    }
}

static bool carry_out(struct ram_decoder *d, struct work *w, const struct operation *o)
{
    if (o->op == RAM_LITERAL)
        return write_literal(d, w, o);
    for (uint64_t i = 0; i < o->count; i++) { /* ends at the output's end, whatever the count */
        if (o->op == RAM_ZERO ? !write_zero(d, w, o)
                              : !write_header(d, w, o, RAM_FLAG_PAGE) ||
                                    !write_page(d, w, o, o->slot + (uint32_t)i))
            return false;
        if (o->op != RAM_ZERO)
            ram_checksum_page(d->sum, ram_checksum_of_page(w->at - RAM_PAGE_BYTES));
    }
    return true;
}

/* --- chunks -------------------------------------------------------------------------------- */

static bool header_is_sane(const uint8_t *raw, const struct ram_chunk_header *h)
{
    return h->type == RAM_CHUNK_TYPE && (h->flags & ~RAM_CHUNK_CONTROL_RAW) == 0 && raw[2] == 0 &&
           raw[3] == 0 && h->decoded_bytes > 0 && h->decoded_bytes <= LIMIT_RAM_CHUNK_BYTES &&
           h->operation_bytes > 0 && h->operation_bytes <= LIMIT_RAM_CONTROL_BYTES &&
           h->data_bytes <= LIMIT_RAM_CONTROL_BYTES - h->operation_bytes &&
           h->control_bytes <= ZSTD_COMPRESSBOUND(LIMIT_RAM_CONTROL_BYTES) &&
           h->pages_bytes <= ZSTD_COMPRESSBOUND(LIMIT_RAM_CHUNK_BYTES) &&
           h->plain_bytes <= h->decoded_bytes;
}

/* Expands all of @in, to at most @cap bytes. Their number, or -EPROTO. */
static ssize_t expand(ZSTD_DCtx *zstd, const uint8_t *in, size_t len, uint8_t *out, size_t cap)
{
    ZSTD_inBuffer from = {in, len, 0};
    ZSTD_outBuffer to = {out, cap, 0};

    while (from.pos < len) { /* what gives no progress is an error before long, says zstd */
        if (ZSTD_isError(ZSTD_decompressStream(zstd, &to, &from)))
            return -EPROTO;
    }
    return (ssize_t)to.pos;
}

static int expand_parts(struct ram_decoder *d, const uint8_t *body,
                        const struct ram_chunk_header *h, struct work *w)
{
    size_t control = (size_t)h->operation_bytes + h->data_bytes;
    const uint8_t *at = body;
    ssize_t n;

    if (h->flags & RAM_CHUNK_CONTROL_RAW) {
        if (h->control_bytes != control)
            return -EPROTO;
    } else {
        n = expand(d->control_zstd, body, h->control_bytes, d->control, control);
        if (n != (ssize_t)control)
            return -EPROTO;
        at = d->control;
    }
    w->operations = wire_reader_of(at, h->operation_bytes);
    w->data = wire_reader_of(at + h->operation_bytes, h->data_bytes);
    body += h->control_bytes;
    n = expand(d->pages_zstd, body, h->pages_bytes, d->pages, h->decoded_bytes);
    if (n < 0)
        return (int)n;
    w->pages = wire_reader_of(d->pages, (size_t)n);
    w->plain = wire_reader_of(body + h->pages_bytes, h->plain_bytes);
    return 0;
}

static int decode_chunk(struct ram_decoder *d, const uint8_t *raw, const struct ram_chunk_header *h,
                        struct buffer *out)
{
    struct operation o;
    struct work w;
    uint8_t *start;
    int r = expand_parts(d, raw + RAM_CHUNK_HEADER_BYTES, h, &w);

    if (r < 0)
        return r;
    start = buffer_reserve(out, h->decoded_bytes);
    if (!start)
        return -ENOMEM;
    XXH3_64bits_reset_withSeed(d->sum, d->checksum);
    w.at = start;
    w.end = start + h->decoded_bytes;
    while (wire_left(&w.operations) > 0) {
        if (!read_operation(d, &w.operations, &o) || !carry_out(d, &w, &o))
            return d->lost < 0 ? d->lost : -EPROTO;
    }
    if (w.at != w.end || wire_left(&w.data) > 0 || wire_left(&w.pages) > 0 ||
        wire_left(&w.plain) > 0)
        return -EPROTO;
    if (XXH3_64bits_digest(d->sum) != h->checksum)
        return -EBADMSG;
    d->checksum = h->checksum;
    buffer_commit(out, h->decoded_bytes);
    d->stats.stream_bytes += h->decoded_bytes;
    d->stats.chunks++;
    return 0;
}

/* Adds to `wire` until it holds @want bytes. True: it does. */
static int collect(struct ram_decoder *d, size_t want, const uint8_t *data, size_t len,
                   size_t *taken)
{
    size_t n = MIN(want - MIN(want, buffer_len(&d->wire)), len - *taken);

    if (buffer_append(&d->wire, data + *taken, n) < 0)
        return -ENOMEM;
    *taken += n;
    return buffer_len(&d->wire) >= want;
}

static int feed(struct ram_decoder *d, const uint8_t *data, size_t len, size_t *taken,
                struct buffer *out)
{
    bool direct = buffer_len(&d->wire) == 0 && len >= RAM_CHUNK_HEADER_BYTES;
    const uint8_t *raw = data;
    struct ram_chunk_header h;
    size_t whole;
    int r;

    if (!direct) {
        r = collect(d, RAM_CHUNK_HEADER_BYTES, data, len, taken);
        if (r <= 0)
            return r;
        raw = buffer_data(&d->wire);
    }
    ram_chunk_header_get(raw, &h);
    if (!header_is_sane(raw, &h))
        return -EPROTO;
    whole = RAM_CHUNK_HEADER_BYTES + (size_t)h.control_bytes + h.pages_bytes + h.plain_bytes;
    if (!direct || len < whole) {
        r = collect(d, whole, data, len, taken);
        if (r <= 0)
            return r;
        raw = buffer_data(&d->wire);
    } else {
        *taken = whole;
    }
    d->stats.wire_bytes += whole;
    r = decode_chunk(d, raw, &h, out);
    d->wire.head = d->wire.tail = 0; /* its memory is kept for the next */
    return r;
}

int ram_decoder_feed(struct ram_decoder *d, const uint8_t *data, size_t len, size_t *ret_taken,
                     struct buffer *out)
{
    *ret_taken = 0;
    if (d->fault == 0 && len > 0)
        d->fault = feed(d, data, len, ret_taken, out);
    return d->fault;
}

bool ram_decoder_is_at_boundary(const struct ram_decoder *d)
{
    return buffer_len(&d->wire) == 0;
}

void ram_decoder_get_stats(const struct ram_decoder *d, struct ram_codec_stats *ret)
{
    *ret = d->stats;
}
