/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks are put together: see ram_chunk_writer.h. */
#include "memory/ram_chunk_writer.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <zstd.h>

#include "core/base/limits.h"
#include "memory/ram_checksum.h"
#include "memory/ram_codec_format.h"

enum {
    /* A chunk is closed when it decodes to this much, or its operations and data reach as much: large
     * enough for zstd's blocks, small enough to stay in a core's cache at either end. */
    CHUNK_TARGET_BYTES = LIMIT_RAM_CHUNK_BYTES / 2,
    OPERATION_MAX_BYTES = 1 + 3 * RAM_VARINT_MAX_BYTES,
    /* Operations with data shorter than this are not worth a zstd block. */
    CONTROL_RAW_MAX_BYTES = 40,
    PAGES_OUT_BYTES =
        CHUNK_TARGET_BYTES + CHUNK_TARGET_BYTES / 8, /* ZSTD_compressBound() and more */
};

/* The operation being counted up. */
struct run {
    enum ram_operation op;
    uint64_t count;
    enum ram_header_mode header;
    enum ram_slot_mode slot;
    uint64_t header_jump, slot_jump;
};

struct ram_chunk_writer {
    ZSTD_CCtx *pages_zstd, *control_zstd;
    XXH3_state_t *sum; /* of what the chunk decodes to */
    uint64_t checksum; /* of the chunk before */
    struct run run;    /* count 0: none */
    uint64_t next_number;
    uint32_t next_slot;
    size_t decoded;
    size_t operations_fill, data_fill, pages_out_fill, plain_fill;
    size_t pages_in;                      /* bytes given to pages_zstd in this chunk */
    size_t control_share[RAM_OPERATIONS]; /* bytes of operations and data in this chunk */
    size_t pages_share[RAM_OPERATIONS];   /* pages in this chunk, of those compressed */
    int level, level_wanted;
    struct ram_codec_stats stats;
    uint8_t
        operations[CHUNK_TARGET_BYTES + 2 * OPERATION_MAX_BYTES]; /* the last run, and one more */
    uint8_t data[CHUNK_TARGET_BYTES + RAM_LITERAL_MAX_BYTES];
    uint8_t pages_out[PAGES_OUT_BYTES];
    uint8_t plain[CHUNK_TARGET_BYTES + RAM_PAGE_BYTES];
};

static bool set_up_zstd(ZSTD_CCtx *zstd, int level)
{
    ZSTD_CCtx_reset(zstd, ZSTD_reset_session_and_parameters);
    return !ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_compressionLevel, level)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, RAM_WINDOW_LOG)) &&
           !ZSTD_isError(ZSTD_CCtx_setParameter(zstd, ZSTD_c_contentSizeFlag, 0));
}

int ram_chunk_writer_new(int level, struct ram_chunk_writer **ret)
{
    struct ram_chunk_writer *w = calloc(1, sizeof(*w));

    if (!w)
        return -ENOMEM;
    w->pages_zstd = ZSTD_createCCtx();
    w->control_zstd = ZSTD_createCCtx();
    w->sum = XXH3_createState();
    if (!w->pages_zstd || !w->control_zstd || !w->sum || !set_up_zstd(w->pages_zstd, level) ||
        !set_up_zstd(w->control_zstd, level)) {
        ram_chunk_writer_free(w);
        return -ENOMEM;
    }
    XXH3_64bits_reset_withSeed(w->sum, 0);
    w->level = w->level_wanted = level;
    *ret = w;
    return 0;
}

void ram_chunk_writer_free(struct ram_chunk_writer *w)
{
    if (!w)
        return;
    ZSTD_freeCCtx(w->pages_zstd);
    ZSTD_freeCCtx(w->control_zstd);
    XXH3_freeState(w->sum);
    free(w);
}

void ram_chunk_writer_set_level(struct ram_chunk_writer *w, int level)
{
    w->level_wanted = level;
}

/* --- operations ---------------------------------------------------------------------------- */

static void end_run(struct ram_chunk_writer *w)
{
    const struct run *run = &w->run;
    uint8_t *at = w->operations + w->operations_fill;
    size_t n = 0;

    if (run->count == 0)
        return;
    at[n++] = (uint8_t)(run->op | (unsigned)run->header << 4 | (unsigned)run->slot << 6);
    n += ram_varint_put(at + n, run->count);
    if (run->header == RAM_HEADER_JUMP)
        n += ram_varint_put(at + n, ram_zigzag(run->header_jump));
    if (run->slot == RAM_SLOT_JUMP)
        n += ram_varint_put(at + n, ram_zigzag(run->slot_jump));
    w->operations_fill += n;
    w->control_share[run->op] += n;
    w->run.count = 0;
}

static void add_data(struct ram_chunk_writer *w, enum ram_operation op, const uint8_t *data,
                     size_t len)
{
    if (len == 0)
        return;
    memcpy(w->data + w->data_fill, data, len);
    w->data_fill += len;
    w->control_share[op] += len;
}

static void account(struct ram_chunk_writer *w, enum ram_operation op, uint64_t count, size_t bytes)
{
    w->decoded += bytes;
    w->stats.stream_bytes += bytes;
    w->stats.operation[op].count += count;
    w->stats.operation[op].stream_bytes += bytes;
}

void ram_chunk_writer_add_literal(struct ram_chunk_writer *w, const uint8_t *data, size_t len)
{
    assert(len <= RAM_LITERAL_MAX_BYTES && !ram_chunk_writer_is_full(w));
    if (len == 0)
        return;
    if (w->run.count == 0 || w->run.op != RAM_LITERAL) {
        end_run(w);
        w->run = (struct run){.op = RAM_LITERAL};
    }
    w->run.count += len;
    ram_checksum_bytes(w->sum, data, len);
    add_data(w, RAM_LITERAL, data, len);
    account(w, RAM_LITERAL, len, len);
}

/* Counts the record into the current run, or begins another with it. */
static void add_to_run(struct ram_chunk_writer *w, const struct ram_record *r)
{
    bool header_follows = r->id->continues && r->id->number == w->next_number;
    bool slot_follows =
        w->run.slot == RAM_SLOT_NONE ? r->slot == RAM_NO_SLOT : r->slot == w->next_slot;

    if (w->run.count > 0 && w->run.op == r->op && w->run.header != RAM_HEADER_NONE &&
        header_follows && slot_follows) {
        w->run.count++;
    } else {
        end_run(w);
        w->run = (struct run){
            .op = r->op,
            .count = 1,
            .header = !r->id->continues ? RAM_HEADER_NONE
                      : header_follows  ? RAM_HEADER_NEXT
                                        : RAM_HEADER_JUMP,
            .slot = r->slot == RAM_NO_SLOT    ? RAM_SLOT_NONE
                    : r->slot == w->next_slot ? RAM_SLOT_NEXT
                                              : RAM_SLOT_JUMP,
            .header_jump = r->id->number - w->next_number,
            .slot_jump = (uint64_t)r->slot - w->next_slot,
        };
    }
    if (r->id->continues)
        w->next_number = (r->id->number + 1) & RAM_PAGE_NUMBER_MASK;
    if (r->slot != RAM_NO_SLOT)
        w->next_slot = r->slot + 1;
}

static int compress(ZSTD_CCtx *zstd, const void *data, size_t len, ZSTD_EndDirective end,
                    uint8_t *out, size_t cap, size_t *fill)
{
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer to = {out, cap, *fill};
    size_t left;

    do {
        left = ZSTD_compressStream2(zstd, &to, &in, end);
        if (ZSTD_isError(left) || (left > 0 && to.pos == to.size))
            return -EIO;
    } while (in.pos < in.size || (end != ZSTD_e_continue && left > 0));
    *fill = to.pos;
    return 0;
}

int ram_chunk_writer_add(struct ram_chunk_writer *w, const struct ram_record *r)
{
    size_t head = r->id->continues ? RAM_PAGE_HEADER_BYTES : 0;
    uint64_t word = r->id->number * RAM_PAGE_BYTES | RAM_FLAG_CONTINUE;
    int res = 0;

    assert(!ram_chunk_writer_is_full(w));
    add_to_run(w, r);
    add_data(w, r->op, r->data, r->data_len);
    if (r->op == RAM_ZERO) {
        ram_checksum_header(w->sum, word | RAM_FLAG_ZERO);
        ram_checksum_bytes(w->sum, "", 1);
        account(w, RAM_ZERO, 1, RAM_ZERO_RECORD_BYTES);
        return 0;
    }
    if (head > 0)
        ram_checksum_header(w->sum, word | RAM_FLAG_PAGE);
    ram_checksum_page(w->sum, r->hash);
    if (r->op == RAM_PLAIN) {
        memcpy(w->plain + w->plain_fill, r->page, RAM_PAGE_BYTES);
        w->plain_fill += RAM_PAGE_BYTES;
    } else if (r->op == RAM_ZSTD || r->op == RAM_XOR) {
        res = compress(w->pages_zstd, r->op == RAM_XOR ? r->transformed : r->page, RAM_PAGE_BYTES,
                       ZSTD_e_continue, w->pages_out, sizeof(w->pages_out), &w->pages_out_fill);
        w->pages_in += RAM_PAGE_BYTES;
        w->pages_share[r->op]++;
    }
    account(w, r->op, 1, head + RAM_PAGE_BYTES);
    return res;
}

/* --- the chunk ----------------------------------------------------------------------------- */

bool ram_chunk_writer_is_empty(const struct ram_chunk_writer *w)
{
    return w->decoded == 0;
}

bool ram_chunk_writer_is_full(const struct ram_chunk_writer *w)
{
    return w->decoded >= CHUNK_TARGET_BYTES ||
           w->operations_fill + w->data_fill >= CHUNK_TARGET_BYTES;
}

/* A stream at another level is a new frame: this chunk ends the old one. */
static ZSTD_EndDirective end_directive(const struct ram_chunk_writer *w)
{
    return w->level == w->level_wanted ? ZSTD_e_flush : ZSTD_e_end;
}

static int write_control(struct ram_chunk_writer *w, struct buffer *out,
                         struct ram_chunk_header *header)
{
    size_t len = w->operations_fill + w->data_fill, cap = ZSTD_compressBound(len) + 64, fill = 0;
    uint8_t *at = buffer_reserve(out, cap);
    int r = 0;

    if (!at)
        return -ENOMEM;
    if (len <= CONTROL_RAW_MAX_BYTES && w->level == w->level_wanted) {
        header->flags |= RAM_CHUNK_CONTROL_RAW;
        memcpy(at, w->operations, w->operations_fill);
        memcpy(at + w->operations_fill, w->data, w->data_fill);
        fill = len;
    } else {
        r = compress(w->control_zstd, w->operations, w->operations_fill, ZSTD_e_continue, at, cap,
                     &fill);
        if (r == 0)
            r = compress(w->control_zstd, w->data, w->data_fill, end_directive(w), at, cap, &fill);
    }
    if (r < 0)
        return r;
    buffer_commit(out, fill);
    header->control_bytes = (uint32_t)fill;
    return 0;
}

/* Compressed parts are shared out over operations by what each put in. */
static void account_chunk(struct ram_chunk_writer *w, const struct ram_chunk_header *h)
{
    size_t control = RAM_CHUNK_HEADER_BYTES + h->control_bytes;
    size_t control_in = h->operation_bytes + h->data_bytes, pages_in = 0;

    for (unsigned op = 0; op < RAM_OPERATIONS; op++)
        pages_in += w->pages_share[op];
    for (unsigned op = 0; op < RAM_OPERATIONS; op++) {
        uint64_t *wire = &w->stats.operation[op].wire_bytes;

        *wire += control * w->control_share[op] / control_in;
        if (pages_in > 0)
            *wire += h->pages_bytes * w->pages_share[op] / pages_in;
        w->control_share[op] = w->pages_share[op] = 0;
    }
    w->stats.operation[RAM_PLAIN].wire_bytes += h->plain_bytes;
    w->stats.wire_bytes += control + h->pages_bytes + h->plain_bytes;
    w->stats.chunks++;
}

static void begin_next(struct ram_chunk_writer *w)
{
    w->decoded = w->operations_fill = w->data_fill = 0;
    w->pages_out_fill = w->plain_fill = w->pages_in = 0;
    XXH3_64bits_reset_withSeed(w->sum, w->checksum);
}

int ram_chunk_writer_close(struct ram_chunk_writer *w, struct buffer *out)
{
    struct ram_chunk_header header = {.type = RAM_CHUNK_TYPE};
    size_t start = buffer_len(out);
    int r = 0;

    assert(w->decoded > 0 && w->decoded <= LIMIT_RAM_CHUNK_BYTES);
    end_run(w);
    if (w->pages_in > 0 || w->level != w->level_wanted)
        r = compress(w->pages_zstd, NULL, 0, end_directive(w), w->pages_out, sizeof(w->pages_out),
                     &w->pages_out_fill);
    if (r == 0 && !buffer_reserve(out, RAM_CHUNK_HEADER_BYTES))
        r = -ENOMEM;
    if (r < 0)
        return r;
    buffer_commit(out, RAM_CHUNK_HEADER_BYTES);
    r = write_control(w, out, &header);
    if (r == 0)
        r = buffer_append(out, w->pages_out, w->pages_out_fill);
    if (r == 0)
        r = buffer_append(out, w->plain, w->plain_fill);
    if (r < 0)
        return r;
    w->checksum = XXH3_64bits_digest(w->sum);
    header.decoded_bytes = (uint32_t)w->decoded;
    header.operation_bytes = (uint32_t)w->operations_fill;
    header.data_bytes = (uint32_t)w->data_fill;
    header.pages_bytes = (uint32_t)w->pages_out_fill;
    header.plain_bytes = (uint32_t)w->plain_fill;
    header.checksum = w->checksum;
    ram_chunk_header_put(out->base + out->head + start, &header);
    account_chunk(w, &header);
    if (w->level != w->level_wanted) {
        w->level = w->level_wanted;
        if (!set_up_zstd(w->pages_zstd, w->level) || !set_up_zstd(w->control_zstd, w->level))
            return -EIO;
    }
    begin_next(w);
    return 0;
}

void ram_chunk_writer_get_stats(const struct ram_chunk_writer *w, struct ram_codec_stats *ret)
{
    *ret = w->stats;
}
