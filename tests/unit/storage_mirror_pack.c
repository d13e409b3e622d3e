/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The compressed mirror stream: what goes in comes out, in whatever pieces and at whatever levels; repeats far back cost
 * nothing, noise costs no tries, lanes do not mix; and no chunk that lies about its lengths, its lane, its window or its
 * bytes gets through.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <xxhash.h>
#include <zstd.h>

#include "core/base/random.h"
#include "core/base/wire.h"
#include "storage/mirror_pack.h"

enum { LOG = MIRROR_WINDOW_LOG_LEAST, MIB = 1 << 20 };

/* Six bits of eight. */
static void fill_text(uint8_t *p, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)('0' + (splitmix64_next(&seed) & 63));
}

static void fill_noise(uint8_t *p, size_t len, uint64_t seed)
{
    for (size_t i = 0; i < len; i++)
        p[i] = (uint8_t)splitmix64_next(&seed);
}

/* 1 to 100000, not more than @len. */
static size_t some(uint64_t *seed, size_t len)
{
    size_t n = 1 + (size_t)(splitmix64_next(seed) % 100000);

    return MIN(n, len);
}

/* All of @wire through an unpacker, in random pieces: @ret gets what comes out. 0 or the error. */
static int unpack(struct mirror_unpacker *u, const struct buffer *wire, uint64_t seed,
                  struct buffer *ret)
{
    const uint8_t *p = buffer_data(wire), *data = NULL;
    size_t left = buffer_len(wire), len;
    struct error e = {0};

    while (left > 0) {
        ssize_t n = mirror_unpacker_feed(u, p, some(&seed, left), &e);

        if (n < 0) {
            assert_true(error_is_set(&e));
            return (int)n;
        }
        p += n;
        left -= (size_t)n;
        while ((len = mirror_unpacker_peek(u, &data)) > 0) {
            assert_int_equal(mirror_unpacker_feed(u, p, left, &e), 0); /* this one first */
            len = some(&seed, len);
            assert_int_equal(buffer_append(ret, data, len), 0);
            mirror_unpacker_consume(u, len);
        }
    }
    return 0;
}

/* @raw in pieces of @piece through both. Returns the bytes between them. */
static size_t there_and_back(const uint8_t *raw, size_t len, size_t piece, bool mixed)
{
    struct mirror_packer *p;
    struct mirror_unpacker *u;
    struct buffer wire = {0}, out = {0};
    uint64_t seed = len + piece;
    size_t total;

    assert_int_equal(mirror_packer_new(&p, LOG, 0, 1), 0);
    assert_int_equal(mirror_unpacker_new(&u, LOG, 1), 0);
    for (size_t at = 0; at < len; at += piece)
        assert_int_equal(mirror_packer_pack(p, mixed ? 1 + (int)(splitmix64_next(&seed) % 4) : 3,
                                            mixed && splitmix64_next(&seed) % 3 == 0, raw + at,
                                            MIN(piece, len - at), &wire),
                         0);
    total = buffer_len(&wire);
    assert_int_equal(unpack(u, &wire, seed, &out), 0);
    assert_int_equal(buffer_len(&out), len);
    assert_memory_equal(buffer_data(&out), raw, len);
    buffer_done(&wire);
    buffer_done(&out);
    mirror_packer_free(p);
    mirror_unpacker_free(u);
    return total;
}

static void what_goes_in_comes_out(void **state)
{
    uint8_t *raw = malloc(3 * MIB);

    (void)state;
    assert_non_null(raw);
    fill_text(raw, MIB, 1);
    fill_noise(raw + MIB, MIB, 2);
    memset(raw + 2 * MIB, 0, MIB / 2);
    fill_text(raw + 2 * MIB + MIB / 2, MIB / 2, 3);
    for (size_t piece = 1; piece <= MIRROR_CHUNK_BYTES; piece = piece * 5 + 3) {
        size_t len = MIN(piece * 600, (size_t)3 * MIB);

        there_and_back(raw, len, piece, false);
        there_and_back(raw, len, piece, true);
    }
    there_and_back(raw, 3 * MIB, MIRROR_CHUNK_BYTES, false);
    free(raw);
}

/* Half a window back: one chunk alone knows nothing of it, the stream does. */
static void the_stream_remembers(void **state)
{
    uint8_t *raw = malloc(MIB);
    size_t alone, twice;

    (void)state;
    assert_non_null(raw);
    fill_text(raw, MIB / 2, 7);
    memcpy(raw + MIB / 2, raw, MIB / 2);
    alone = there_and_back(raw, MIB / 2, 64 << 10, false);
    twice = there_and_back(raw, MIB, 64 << 10, false);
    assert_true(twice < alone + alone / 20);
    free(raw);
}

static void noise_costs_next_to_nothing(void **state)
{
    uint8_t *raw = malloc(8 * MIB);
    struct mirror_packer *p;
    struct buffer wire = {0};
    unsigned tried = 0, chunks = 0;

    (void)state;
    assert_non_null(raw);
    fill_noise(raw, 8 * MIB, 9);
    assert_int_equal(mirror_packer_new(&p, LOG, 0, 1), 0);
    for (size_t at = 0; at < 8 * MIB; at += 64 << 10, chunks++) {
        size_t before = buffer_len(&wire);

        assert_int_equal(mirror_packer_pack(p, 3, false, raw + at, 64 << 10, &wire), 0);
        tried += buffer_data(&wire)[before] != 1;
    }
    assert_true(tried >= 16 && tried < chunks / 4);
    assert_true(buffer_len(&wire) < 8 * MIB + 8 * MIB / 200);
    /* What shrinks again is found at once. */
    fill_text(raw, 8 * MIB, 10);
    tried = 0;
    for (size_t at = 0; at < 8 * MIB; at += 64 << 10) {
        size_t before = buffer_len(&wire);

        assert_int_equal(mirror_packer_pack(p, 3, false, raw + at, 64 << 10, &wire), 0);
        tried += buffer_data(&wire)[before] != 1;
    }
    assert_true(tried == chunks);
    buffer_done(&wire);
    mirror_packer_free(p);
    free(raw);
}

/* Pieces through lanes by turns and by chance: in order, and each lane remembers its own. */
static void lanes_keep_the_order(void **state)
{
    enum { LANES = 3, PIECE = 50000 };
    struct mirror_packer *p[LANES];
    struct mirror_unpacker *u;
    struct buffer wire = {0}, out = {0};
    uint8_t *raw = malloc(2 * MIB);
    uint64_t seed = 8;

    (void)state;
    assert_non_null(raw);
    fill_text(raw, 2 * MIB, 12);
    for (unsigned i = 0; i < LANES; i++)
        assert_int_equal(mirror_packer_new(&p[i], LOG, i, LANES), 0);
    assert_int_equal(mirror_unpacker_new(&u, LOG, LANES), 0);
    for (size_t at = 0, turn = 0; at < 2 * MIB; at += PIECE, turn++) {
        size_t len = MIN((size_t)PIECE, 2 * MIB - at), before = buffer_len(&wire);
        unsigned lane = (unsigned)(turn < 20 ? turn : splitmix64_next(&seed)) % LANES;
        bool plain = turn % 7 == 3;

        assert_int_equal(
            mirror_packer_pack(p[lane], turn == 25 ? 5 : 3, plain, raw + at, len, &wire), 0);
        assert_int_equal(get_be32(buffer_data(&wire) + before) & 0xffffff, plain ? 0 : lane);
    }
    assert_int_equal(unpack(u, &wire, 77, &out), 0);
    assert_int_equal(buffer_len(&out), 2 * MIB);
    assert_memory_equal(buffer_data(&out), raw, 2 * MIB);
    for (unsigned i = 0; i < LANES; i++)
        mirror_packer_free(p[i]);
    mirror_unpacker_free(u);
    buffer_done(&wire);
    buffer_done(&out);
    free(raw);
}

/* --- what a peer could send ---------------------------------------------------------------- */

/* @kind: with a lane beside it, as KIND(). */
#define KIND(kind, lane) ((uint32_t)(kind) << 24 | (lane))

static void put_chunk(struct buffer *b, uint32_t kind, size_t raw, const void *wire, size_t len,
                      uint64_t checksum)
{
    uint8_t head[MIRROR_CHUNK_HEADER_BYTES];

    put_be32(head, kind);
    put_be32(head + 4, (uint32_t)raw);
    put_be32(head + 8, (uint32_t)len);
    put_be64(head + 12, checksum);
    assert_int_equal(buffer_append(b, head, sizeof(head)), 0);
    assert_int_equal(buffer_append(b, wire, len), 0);
}

static void expect(struct buffer *wire, int code)
{
    struct mirror_unpacker *u;
    struct buffer out = {0};

    assert_int_equal(mirror_unpacker_new(&u, LOG, 2), 0);
    assert_int_equal(unpack(u, wire, 5, &out), code);
    mirror_unpacker_free(u);
    buffer_done(&out);
    buffer_done(wire);
}

/* A zstd frame of @len bytes of @raw, flushed and not ended (or ended). */
static size_t frame(const void *raw, size_t len, unsigned window_log, bool end, uint8_t *to,
                    size_t cap)
{
    ZSTD_CCtx *zstd = ZSTD_createCCtx();
    ZSTD_inBuffer in = {raw, len, 0};
    ZSTD_outBuffer out = {to, cap, 0};

    assert_non_null(zstd);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_windowLog, (int)window_log);
    ZSTD_CCtx_setParameter(zstd, ZSTD_c_contentSizeFlag, 0);
    assert_int_equal(ZSTD_compressStream2(zstd, &out, &in, end ? ZSTD_e_end : ZSTD_e_flush), 0);
    ZSTD_freeCCtx(zstd);
    return out.pos;
}

static void lies_are_refused(void **state)
{
    static uint8_t raw[300000], packed[300000];
    struct buffer b = {0};
    uint64_t sum;
    size_t n;

    (void)state;
    fill_text(raw, sizeof(raw), 3);
    sum = XXH3_64bits(raw, 10000);
    n = frame(raw, 10000, LOG, false, packed, sizeof(packed));
    put_chunk(&b, KIND(2, 0), 10000, packed, n, sum);
    expect(&b, 0);
    /* kinds, lengths */
    put_chunk(&b, KIND(0, 0), 10, raw, 10, XXH3_64bits(raw, 10));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(4, 0), 10, raw, 10, XXH3_64bits(raw, 10));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(1, 0), 10, raw, 9, XXH3_64bits(raw, 10));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(1, 0), 0, raw, 0, XXH3_64bits(raw, 0));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(1, 0), MIRROR_CHUNK_BYTES + 1, raw, MIRROR_CHUNK_BYTES + 1, 0);
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(2, 0), 10, raw, 10 + MIRROR_CHUNK_SLACK_BYTES + 1, 0);
    expect(&b, -EPROTO);
    /* the middle of nothing */
    put_chunk(&b, KIND(3, 0), 10000, packed, n, sum);
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(2, 0), 10000, packed, n, sum);
    put_chunk(&b, KIND(3, 1), 10000, packed, n, sum); /* that began in another lane */
    expect(&b, -EPROTO);
    /* lanes: of those agreed upon, and none for what no lane sees */
    put_chunk(&b, KIND(2, 1), 10000, packed, n, sum);
    expect(&b, 0);
    put_chunk(&b, KIND(2, 2), 10000, packed, n, sum);
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(2, 0x800000), 10000, packed, n, sum);
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(1, 1), 10, raw, 10, XXH3_64bits(raw, 10));
    expect(&b, -EPROTO);
    /* more or less than declared, other bytes */
    put_chunk(&b, KIND(2, 0), 9999, packed, n, XXH3_64bits(raw, 9999));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(2, 0), 10001, packed, n, XXH3_64bits(raw, 10001));
    expect(&b, -EPROTO);
    put_chunk(&b, KIND(2, 0), 10000, packed, n, sum + 1);
    expect(&b, -EBADMSG);
    put_chunk(&b, KIND(1, 0), 100, raw, 100, 0);
    expect(&b, -EBADMSG);
    put_chunk(&b, KIND(2, 0), 100, raw, 100, XXH3_64bits(raw, 100));
    expect(&b, -EPROTO);
    /* a frame that ends; one whose window is larger than agreed */
    n = frame(raw, 10000, LOG, true, packed, sizeof(packed));
    put_chunk(&b, KIND(2, 0), 10000, packed, n, sum);
    expect(&b, -EPROTO);
    n = frame(raw, 10000, LOG + 1, false, packed, sizeof(packed));
    put_chunk(&b, KIND(2, 0), 10000, packed, n, sum);
    expect(&b, -EPROTO);
    /* a bomb: a few bytes that are a megabyte */
    memset(raw, 0, sizeof(raw));
    n = frame(raw, sizeof(raw), LOG, false, packed, sizeof(packed));
    assert_true(n < 100);
    put_chunk(&b, KIND(2, 0), 1000, packed, n, XXH3_64bits(raw, 1000));
    expect(&b, -EPROTO);
}

static void windows_are_bounded(void **state)
{
    struct mirror_packer *p;
    struct mirror_unpacker *u;

    (void)state;
    assert_int_equal(mirror_pack_window_log(1), MIRROR_WINDOW_LOG_MOST);
    for (unsigned disks = 1; disks <= 64; disks++)
        assert_true((uint64_t)disks << mirror_pack_window_log(disks) <= UINT64_C(64) * MIB);
    assert_int_equal(mirror_packer_new(&p, MIRROR_WINDOW_LOG_MOST + 1, 0, 1), -EINVAL);
    assert_int_equal(mirror_unpacker_new(&u, MIRROR_WINDOW_LOG_LEAST - 1, 1), -EINVAL);
    assert_int_equal(mirror_packer_new(&p, LOG, 2, 2), -EINVAL);
    assert_int_equal(mirror_packer_new(&p, LOG, 0, MIRROR_LANES_MOST + 1), -EINVAL);
    assert_int_equal(mirror_unpacker_new(&u, LOG, 0), -EINVAL);
    assert_int_equal(mirror_unpacker_new(&u, LOG, MIRROR_LANES_MOST + 1), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_goes_in_comes_out),
        cmocka_unit_test(the_stream_remembers),
        cmocka_unit_test(noise_costs_next_to_nothing),
        cmocka_unit_test(lanes_keep_the_order),
        cmocka_unit_test(lies_are_refused),
        cmocka_unit_test(windows_are_bounded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
