/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror stream in chunks of a few long zstd streams: see mirror_pack.h. */
#include "storage/mirror_pack.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <xxhash.h>
#include <zstd.h>

#include "core/base/macros.h"
#include "core/base/wire.h"

enum chunk_kind { CHUNK_PLAIN = 1, CHUNK_BEGIN = 2, CHUNK_GO_ON = 3 };

enum {
    WINDOWS_LOG = 26, /* of all lanes of a move together */
    /* Long matches beside zstd's own: found over the whole window, whatever the level. Worth it in a large one. */
    LONG_MATCHES_FROM_LOG = 24,
    /* A smaller piece is a word or two, and the stopped guest may wait for it. */
    LEAST_BYTES = 512,
    /* After so many chunks in a row that did not shrink, this many go without a try, then twice as many ... Files hold
     * stretches of what is compressed already: to give up sooner cost 0.03 of raw. Each lane has its share of both. */
    GIVE_UP = 16,
    FIRST_SKIP = 4,
    SKIP_DOUBLINGS = 3,
    /* ... unless this much from the middle of one shrinks. */
    PROBE_BYTES = 16 << 10,
    PROBE_LEVEL = 1,
};

struct mirror_packer {
    ZSTD_CCtx *zstd;
    ZSTD_CCtx *probe; /* NULL: not needed yet */
    bool begun;
    int level; /* of the frame that was begun */
    unsigned lane, lanes;
    unsigned failures, skips;
};

struct mirror_unpacker {
    struct lane {
        ZSTD_DCtx *zstd;
        bool begun;
    } lanes[MIRROR_LANES_MOST];
    unsigned lane_count;
    struct lane *lane; /* of the chunk that comes */
    uint8_t header[MIRROR_CHUNK_HEADER_BYTES];
    size_t header_fill;
    enum chunk_kind kind;
    uint32_t raw_bytes, wire_left;
    uint64_t checksum;
    uint8_t *data; /* of the chunk, raw_bytes; NULL: between chunks */
    size_t fill;
    size_t consumed;
    bool complete; /* checked, to be consumed */
};

unsigned mirror_pack_window_log(unsigned lanes)
{
    unsigned log = MIRROR_WINDOW_LOG_MOST;

    while (log > MIRROR_WINDOW_LOG_LEAST && (uint64_t)lanes << log > UINT64_C(1) << WINDOWS_LOG)
        log--;
    return log;
}

/* --- packing ------------------------------------------------------------------------------- */

int mirror_packer_new(struct mirror_packer **ret, unsigned window_log, unsigned lane,
                      unsigned lanes)
{
    struct mirror_packer *p;

    if (window_log < MIRROR_WINDOW_LOG_LEAST || window_log > MIRROR_WINDOW_LOG_MOST ||
        lane >= lanes || lanes > MIRROR_LANES_MOST)
        return -EINVAL;
    p = calloc(1, sizeof(*p));
    if (p)
        p->zstd = ZSTD_createCCtx();
    if (!p || !p->zstd) {
        free(p);
        return -ENOMEM;
    }
    p->lane = lane;
    p->lanes = lanes;
    ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_windowLog, (int)window_log);
    ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_contentSizeFlag, 0);
    if (window_log >= LONG_MATCHES_FROM_LOG)
        ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_enableLongDistanceMatching, 1);
    *ret = p;
    return 0;
}

void mirror_packer_free(struct mirror_packer *p)
{
    if (!p)
        return;
    ZSTD_freeCCtx(p->zstd);
    ZSTD_freeCCtx(p->probe);
    free(p);
}

static bool shrinks(size_t len, size_t wire_len)
{
    return wire_len < len - len / 16;
}

/* Does a piece from the middle shrink by itself? */
static bool probe(struct mirror_packer *p, const uint8_t *data, size_t len)
{
    uint8_t scratch[PROBE_BYTES];
    size_t most = MIN(len, sizeof(scratch)), n;

    if (!p->probe)
        p->probe = ZSTD_createCCtx();
    if (!p->probe)
        return true;
    n = ZSTD_compressCCtx(p->probe, scratch, most, data + (len - most) / 2, most, PROBE_LEVEL);
    return !ZSTD_isError(n) && shrinks(most, n);
}

static bool worth_a_try(struct mirror_packer *p, const uint8_t *data, size_t len)
{
    unsigned give_up = GIVE_UP / p->lanes, first = FIRST_SKIP / p->lanes;

    if (len < LEAST_BYTES)
        return false;
    if (p->failures < give_up)
        return true;
    if (p->skips++ < first << MIN(p->failures - give_up, (unsigned)SKIP_DOUBLINGS) &&
        !probe(p, data, len))
        return false;
    p->skips = 0;
    return true;
}

static void put_header(uint8_t *at, enum chunk_kind kind, unsigned lane, const void *data,
                       size_t len, size_t wire_len)
{
    put_be32(at, (uint32_t)kind << 24 | lane);
    put_be32(at + 4, (uint32_t)len);
    put_be32(at + 8, (uint32_t)wire_len);
    put_be64(at + 12, XXH3_64bits(data, len));
}

/* The next piece of the frame, flushed. Its length, 0: zstd failed. */
static size_t compress(struct mirror_packer *p, const void *data, size_t len, uint8_t *to,
                       size_t cap)
{
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer out = {to, cap, 0};
    size_t left = ZSTD_compressStream2(p->zstd, &out, &in, ZSTD_e_flush);

    return left == 0 && in.pos == len ? out.pos : 0;
}

int mirror_packer_pack(struct mirror_packer *p, int level, bool plain, const void *data, size_t len,
                       struct buffer *out)
{
    size_t cap = len + MIRROR_CHUNK_SLACK_BYTES, wire_len;
    enum chunk_kind kind = CHUNK_PLAIN;
    uint8_t *to = buffer_reserve(out, MIRROR_CHUNK_HEADER_BYTES + cap);

    assert(len > 0 && len <= MIRROR_CHUNK_BYTES);
    if (!to)
        return -ENOMEM;
    if (plain || !worth_a_try(p, data, len)) {
        memcpy(to + MIRROR_CHUNK_HEADER_BYTES, data, len);
        wire_len = len;
    } else {
        kind = p->begun && p->level == level ? CHUNK_GO_ON : CHUNK_BEGIN;
        if (kind == CHUNK_BEGIN) {
            ZSTD_CCtx_reset(p->zstd, ZSTD_reset_session_only);
            ZSTD_CCtx_setParameter(p->zstd, ZSTD_c_compressionLevel, level);
        }
        p->begun = true;
        p->level = level;
        wire_len = compress(p, data, len, to + MIRROR_CHUNK_HEADER_BYTES, cap);
        if (wire_len == 0)
            return -ENOMEM; /* the one thing that goes wrong with valid parameters and room enough */
        p->failures = shrinks(len, wire_len) ? 0 : p->failures + 1;
    }
    put_header(to, kind, kind == CHUNK_PLAIN ? 0 : p->lane, data, len, wire_len);
    buffer_commit(out, MIRROR_CHUNK_HEADER_BYTES + wire_len);
    return 0;
}

/* --- unpacking ----------------------------------------------------------------------------- */

int mirror_unpacker_new(struct mirror_unpacker **ret, unsigned window_log, unsigned lanes)
{
    struct mirror_unpacker *u;

    if (window_log < MIRROR_WINDOW_LOG_LEAST || window_log > MIRROR_WINDOW_LOG_MOST || lanes == 0 ||
        lanes > MIRROR_LANES_MOST)
        return -EINVAL;
    u = calloc(1, sizeof(*u));
    if (!u)
        return -ENOMEM;
    for (; u->lane_count < lanes; u->lane_count++) {
        ZSTD_DCtx *zstd = ZSTD_createDCtx();

        if (!zstd) {
            mirror_unpacker_free(u);
            return -ENOMEM;
        }
        ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, (int)window_log);
        u->lanes[u->lane_count].zstd = zstd;
    }
    u->lane = u->lanes;
    *ret = u;
    return 0;
}

void mirror_unpacker_free(struct mirror_unpacker *u)
{
    if (!u)
        return;
    for (unsigned i = 0; i < u->lane_count; i++)
        ZSTD_freeDCtx(u->lanes[i].zstd);
    free(u->data);
    free(u);
}

static int malformed(struct error *e, const char *why)
{
    error_set(e, -EPROTO, "read a disk's compressed stream", "do both sites run the same version?",
              "%s", why);
    return -EPROTO;
}

/* A whole header is there: checked, and room made for what it declares. */
static int begin_chunk(struct mirror_unpacker *u, struct error *e)
{
    uint32_t word = get_be32(u->header), lane = word & 0xffffff;

    u->raw_bytes = get_be32(u->header + 4);
    u->wire_left = get_be32(u->header + 8);
    u->checksum = get_be64(u->header + 12);
    u->kind = (enum chunk_kind)(word >> 24);
    if (u->kind < CHUNK_PLAIN || u->kind > CHUNK_GO_ON)
        return malformed(e, "a chunk of an unknown kind");
    if (lane >= (u->kind == CHUNK_PLAIN ? 1 : u->lane_count))
        return malformed(e, "a chunk of a lane that was not agreed upon");
    u->lane = &u->lanes[lane];
    if (u->raw_bytes == 0 || u->raw_bytes > MIRROR_CHUNK_BYTES || u->wire_left == 0 ||
        u->wire_left > u->raw_bytes + MIRROR_CHUNK_SLACK_BYTES)
        return malformed(e, "a chunk's length is out of bounds");
    if (u->kind == CHUNK_PLAIN && u->wire_left != u->raw_bytes)
        return malformed(e, "a plain chunk of two lengths");
    if (u->kind == CHUNK_GO_ON && !u->lane->begun)
        return malformed(e, "the middle of a frame that never began");
    if (u->kind == CHUNK_BEGIN) {
        ZSTD_DCtx_reset(u->lane->zstd, ZSTD_reset_session_only);
        u->lane->begun = true;
    }
    u->data = malloc(u->raw_bytes);
    if (!u->data) {
        error_set(e, -ENOMEM, "read a disk's compressed stream", NULL, "no memory for %u bytes",
                  u->raw_bytes);
        return -ENOMEM;
    }
    u->fill = u->consumed = 0;
    return 0;
}

/* All of @len goes into the frame, and no more comes out than there is room for. */
static int decompress(struct mirror_unpacker *u, const uint8_t *data, size_t len, struct error *e)
{
    ZSTD_inBuffer in = {data, len, 0};
    ZSTD_outBuffer out = {u->data, u->raw_bytes, u->fill};

    while (in.pos < len) {
        size_t at = in.pos, filled = out.pos,
               hint = ZSTD_decompressStream(u->lane->zstd, &out, &in);

        if (ZSTD_isError(hint))
            return malformed(e, ZSTD_getErrorName(hint));
        if (hint == 0)
            return malformed(e, "a frame that ends");
        if (in.pos == at && out.pos == filled)
            return malformed(e, "a chunk holds more than it declares");
    }
    u->fill = out.pos;
    return 0;
}

static int take_payload(struct mirror_unpacker *u, const uint8_t *data, size_t len, struct error *e)
{
    int err = 0;

    if (u->kind == CHUNK_PLAIN) {
        memcpy(u->data + u->fill, data, len);
        u->fill += len;
    } else {
        err = decompress(u, data, len, e);
    }
    u->wire_left -= (uint32_t)len;
    return err;
}

/* What zstd still holds of it: with the last byte it must all have come out. */
static int drain(struct mirror_unpacker *u, struct error *e)
{
    uint8_t beyond;
    ZSTD_inBuffer in = {NULL, 0, 0};
    ZSTD_outBuffer out = {u->data, u->raw_bytes, u->fill};
    size_t before, hint;

    if (u->kind == CHUNK_PLAIN)
        return 0;
    do {
        before = out.pos;
        hint = ZSTD_decompressStream(u->lane->zstd, &out, &in);
    } while (!ZSTD_isError(hint) && out.pos > before);
    u->fill = out.pos;
    if (u->fill < u->raw_bytes)
        return malformed(e, "a chunk holds less than it declares");
    out = (ZSTD_outBuffer){&beyond, 1, 0};
    hint = ZSTD_decompressStream(u->lane->zstd, &out, &in);
    if (out.pos > 0)
        return malformed(e, "a chunk holds more than it declares");
    (void)hint; /* that it can give nothing may be an error to it, and is what is wanted */
    return 0;
}

static int end_chunk(struct mirror_unpacker *u, struct error *e)
{
    int err = drain(u, e);

    if (err < 0)
        return err;
    if (XXH3_64bits(u->data, u->raw_bytes) != u->checksum)
        return error_set(e, -EBADMSG, "read a disk's compressed stream",
                         "look at the memory of both hosts",
                         "a chunk decodes to other bytes than were sent");
    u->complete = true;
    return 0;
}

ssize_t mirror_unpacker_feed(struct mirror_unpacker *u, const void *data, size_t len,
                             struct error *e)
{
    const uint8_t *p = data;
    size_t head, body;
    int err = 0;

    if (u->complete || len == 0)
        return 0;
    head = MIN(len, sizeof(u->header) - u->header_fill);
    memcpy(u->header + u->header_fill, p, head);
    u->header_fill += head;
    if (u->header_fill < sizeof(u->header))
        return (ssize_t)head;
    if (!u->data)
        err = begin_chunk(u, e);
    if (err < 0)
        return err;
    body = MIN(len - head, (size_t)u->wire_left);
    if (body > 0)
        err = take_payload(u, p + head, body, e);
    if (err == 0 && u->wire_left == 0)
        err = end_chunk(u, e);
    return err < 0 ? err : (ssize_t)(head + body);
}

size_t mirror_unpacker_peek(const struct mirror_unpacker *u, const uint8_t **ret_data)
{
    if (!u->complete)
        return 0;
    *ret_data = u->data + u->consumed;
    return u->raw_bytes - u->consumed;
}

void mirror_unpacker_consume(struct mirror_unpacker *u, size_t len)
{
    assert(u->complete && len <= u->raw_bytes - u->consumed);
    u->consumed += len;
    if (u->consumed < u->raw_bytes)
        return;
    free(TAKE_PTR(u->data));
    u->header_fill = 0;
    u->complete = false;
}
