/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Encoder and decoder back to back over seeded guests: what comes out is what went in, however the
 * stream and the chunks are cut, whatever the store's size and the level; and damaged streams and chunks
 * end in the same bytes or in a clean error.
 *
 * FERRY_SEED runs one seed, FERRY_SEEDS so many, FERRY_MUTATIONS so many mutations of a recorded stream and
 * of seeded ones, FERRY_MUTATIONS_AFTER leaves out so many before them (a million under asan takes an hour of
 * a processor; runs of 100000 one after the other can be stopped in between).
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <zstd.h>

#include "core/base/limits.h"
#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"
#include "tests/engine/memory_ram_guest.h"

struct totals {
    uint64_t count[RAM_OPERATIONS];
};

struct seeds {
    uint64_t first, last;
};

struct pair {
    struct ram_encoder *encoder;
    struct ram_decoder *decoder;
    struct buffer wire, out;
};

static uint64_t number_of(const char *name, uint64_t usual)
{
    const char *text = getenv(name);

    return text ? strtoull(text, NULL, 0) : usual;
}

/* Half of the mutations are of streams, half of chunks. */
static struct seeds mutations(void)
{
    uint64_t after = number_of("FERRY_MUTATIONS_AFTER", 0) / 2;

    return (struct seeds){after + 1, after + number_of("FERRY_MUTATIONS", 3000) / 2};
}

static void pair_new(struct pair *p, uint64_t store_bytes)
{
    struct ram_codec_config config = {.store_bytes = store_bytes};

    memset(p, 0, sizeof(*p));
    assert_int_equal(ram_encoder_new(&config, &p->encoder), 0);
    assert_int_equal(ram_decoder_new(&config, &p->decoder), 0);
}

static void pair_free(struct pair *p)
{
    ram_encoder_free(p->encoder);
    ram_decoder_free(p->decoder);
    buffer_done(&p->wire);
    buffer_done(&p->out);
}

/* 1 to @most, and no more than are left. */
static size_t piece(struct random *random, size_t most, size_t left)
{
    size_t n = 1 + random_below(random, most);

    return MIN(n, left);
}

/* Decodes all that is on the wire, in pieces of up to @most. The decoder's answer. */
static int pair_decode(struct pair *p, struct random *random, size_t most)
{
    int r = 0;

    while (buffer_len(&p->wire) > 0 && r == 0) {
        size_t n = piece(random, most, buffer_len(&p->wire)), taken;
        size_t before = buffer_len(&p->out);

        r = ram_decoder_feed(p->decoder, buffer_data(&p->wire), n, &taken, &p->out);
        assert_true(taken <= n);
        assert_true(buffer_len(&p->out) - before <= LIMIT_RAM_CHUNK_BYTES);
        if (r == 0)
            buffer_consume(&p->wire, taken);
    }
    return r;
}

static void expect_same(uint64_t seed, const uint8_t *data, size_t len, const struct buffer *out)
{
    size_t at = 0;

    if (buffer_len(out) == len && (len == 0 || memcmp(buffer_data(out), data, len) == 0))
        return;
    while (at < MIN(len, buffer_len(out)) && buffer_data(out)[at] == data[at])
        at++;
    fail_msg("seed %" PRIu64 ": %zu bytes in, %zu out, different from %zu", seed, len,
             buffer_len(out), at);
}

/* Passes the stream through a pair and expects it back. */
static void pass(uint64_t seed, const uint8_t *data, size_t len, struct totals *totals)
{
    static const uint64_t stores[] = {0, 4096, 40 * 4096, 200 * 4096, 600 * 4096};
    static const size_t pieces[] = {1, 7, 100, 5000, 70000, 1 << 20};
    struct random random = {seed ^ 0x5eed};
    size_t most_in = pieces[random_below(&random, len < 200000 ? 6 : 5) + (len < 200000 ? 0 : 1)];
    size_t most_out = pieces[random_below(&random, 5) + 1], at = 0, n;
    struct ram_codec_stats stats;
    struct pair p;

    pair_new(&p, stores[random_below(&random, 5)]);
    for (; at < len; at += n) {
        n = piece(&random, most_in, len - at);
        if (random_below(&random, 20) == 0)
            ram_encoder_set_level(p.encoder, (int)random_below(&random, 12) - 7);
        assert_int_equal(ram_encoder_feed(p.encoder, data + at, n, &p.wire), 0);
        if (random_below(&random, 10) == 0)
            assert_int_equal(ram_encoder_flush(p.encoder, &p.wire), 0);
        if (random_below(&random, 50) == 0) {
            assert_int_equal(ram_encoder_finish(p.encoder, &p.wire), 0);
            assert_int_equal(pair_decode(&p, &random, most_out), 0);
            assert_int_equal(buffer_len(&p.out), at + n); /* nothing stays behind */
        }
    }
    assert_int_equal(ram_encoder_finish(p.encoder, &p.wire), 0);
    assert_int_equal(pair_decode(&p, &random, most_out), 0);
    assert_true(ram_decoder_is_at_boundary(p.decoder));
    expect_same(seed, data, len, &p.out);
    ram_decoder_get_stats(p.decoder, &stats);
    for (unsigned op = 0; totals && op < RAM_OPERATIONS; op++)
        totals->count[op] += stats.operation[op].count;
    pair_free(&p);
}

static void test_guests(void **state)
{
    uint64_t seed = number_of("FERRY_SEED", 1);
    uint64_t seeds = getenv("FERRY_SEED") ? 1 : number_of("FERRY_SEEDS", 150);
    struct totals totals = {0};

    (void)state;
    for (uint64_t end = seed + seeds; seed < end; seed++) {
        struct guest g;

        guest_migrate(&g, seed);
        pass(seed, buffer_data(&g.stream), buffer_len(&g.stream), &totals);
        guest_done(&g);
    }
    for (unsigned op = 0; seeds > 1 && op < RAM_DISK; op++) {
        if (totals.count[op] == 0)
            fail_msg("no guest made the encoder use '%s'", ram_operation_name(op));
    }
}

/* Two feeds, cut at every byte of a small migration; and every beginning of it as a whole stream. */
static void test_every_cut(void **state)
{
    struct ram_codec_config config = {.store_bytes = 64 * 4096};
    struct random random = {1};
    struct guest g;
    size_t len;

    (void)state;
    guest_migrate(&g, 1);
    len = MIN(buffer_len(&g.stream), (size_t)14000);
    for (size_t cut = 0; cut <= len; cut++) {
        struct pair p = {0};

        assert_int_equal(ram_encoder_new(&config, &p.encoder), 0);
        assert_int_equal(ram_decoder_new(&config, &p.decoder), 0);
        assert_int_equal(ram_encoder_feed(p.encoder, buffer_data(&g.stream), cut, &p.wire), 0);
        if (cut % 2)
            assert_int_equal(ram_encoder_finish(p.encoder, &p.wire), 0);
        assert_int_equal(
            ram_encoder_feed(p.encoder, buffer_data(&g.stream) + cut, len - cut, &p.wire), 0);
        assert_int_equal(ram_encoder_finish(p.encoder, &p.wire), 0);
        assert_int_equal(pair_decode(&p, &random, 1 << 20), 0);
        expect_same(cut, buffer_data(&g.stream), len, &p.out);
        pair_free(&p);
    }
    guest_done(&g);
}

/*
 * QEMU 7.2's own stream of a guest of the lab that counts in its pages; cut to every part of the recording with
 * its first pages, the pages that came three times, and the tail.
 */
static void load_recorded(struct buffer *ret)
{
    static const char name[] = "recorded/counter.zst";
    const char *slash = strrchr(__FILE__, '/');
    char path[4096];
    uint8_t raw[512 * 1024];
    size_t len, room = 4 << 20;
    FILE *f;

    snprintf(path, sizeof(path), "%.*s%s", (int)(slash - __FILE__ + 1), __FILE__, name);
    f = fopen(path, "rb");
    if (!f)
        fail_msg("%s is missing", path);
    len = fread(raw, 1, sizeof(raw), f);
    fclose(f);
    assert_non_null(buffer_reserve(ret, room));
    len = ZSTD_decompress(ret->base, room, raw, len);
    assert_false(ZSTD_isError(len));
    buffer_commit(ret, len);
}

static void test_recorded(void **state)
{
    struct buffer stream = {0};
    struct totals totals = {0};

    (void)state;
    load_recorded(&stream);
    for (uint64_t seed = 1; seed <= 20; seed++)
        pass(seed, buffer_data(&stream), buffer_len(&stream), &totals);
    assert_true(totals.count[RAM_DELTA] > 0 && totals.count[RAM_ZSTD] > 0);
    buffer_done(&stream);
}

/* A damaged stream is a stream like any other: it must come out as it went in. */
static void pass_damaged(uint64_t seed, const struct buffer *stream)
{
    struct random random = {seed};
    size_t len = piece(&random, 120000, buffer_len(stream));
    uint8_t *data = malloc(len);

    assert_non_null(data);
    memcpy(data, buffer_data(stream), len);
    for (uint64_t n = 1 + random_below(&random, 20); n > 0; n--) {
        /* the first bytes are where the structure is */
        size_t most = random_below(&random, 2) ? len : MIN(len, 4500u);

        data[random_below(&random, most)] = (uint8_t)random_next(&random);
    }
    pass(seed, data, len, NULL);
    free(data);
}

static void test_damaged_streams(void **state)
{
    struct seeds seeds = mutations();
    struct buffer recorded = {0};

    (void)state;
    load_recorded(&recorded);
    for (uint64_t seed = seeds.first; seed <= seeds.last;) {
        struct guest g;

        guest_migrate(&g, seed);
        for (unsigned i = 0; i < 100 && seed <= seeds.last; i++, seed++)
            pass_damaged(seed, seed % 2 ? &recorded : &g.stream);
        guest_done(&g);
    }
    buffer_done(&recorded);
}

static void test_garbage(void **state)
{
    uint8_t *data = malloc(300000);

    (void)state;
    assert_non_null(data);
    for (uint64_t seed = 1; seed <= 30; seed++) {
        struct guest g = {.random = {seed}};

        guest_fill(&g, data, 300000);
        if (seed % 2) /* looks like the real thing at first */
            put_be64(data, UINT64_C(0x5145564d00000003));
        pass(seed, data, 1 + random_below(&g.random, 300000), NULL);
    }
    free(data);
}

/* Damaged chunks: the same bytes, or a clean error with nothing but right bytes before it. */
static void mutate_chunks(uint64_t seed, const uint8_t *data, size_t len, const struct buffer *wire,
                          uint64_t store_bytes)
{
    struct random random = {seed};
    struct ram_codec_config config = {.store_bytes = store_bytes};
    struct pair p = {0};
    size_t wire_len = buffer_len(wire);

    assert_int_equal(ram_decoder_new(&config, &p.decoder), 0);
    assert_int_equal(buffer_append(&p.wire, buffer_data(wire), wire_len), 0);
    for (uint64_t n = 1 + random_below(&random, 4); n > 0; n--)
        p.wire.base[random_below(&random,
                                 random_below(&random, 2) ? wire_len : MIN(wire_len, 80u))] ^=
            (uint8_t)(1 + random_below(&random, 255));
    (void)pair_decode(&p, &random, 1 << 20);
    if (buffer_len(&p.out) > len ||
        (buffer_len(&p.out) > 0 && memcmp(buffer_data(&p.out), data, buffer_len(&p.out)) != 0))
        fail_msg("seed %" PRIu64 ": wrong bytes were delivered", seed);
    pair_free(&p);
}

static void test_damaged_chunks(void **state)
{
    struct seeds seeds = mutations();
    const uint64_t store_bytes = 100 * 4096;
    struct buffer recorded = {0};

    (void)state;
    load_recorded(&recorded);
    for (uint64_t seed = seeds.first; seed <= seeds.last;) {
        const struct buffer *stream = &recorded;
        struct guest g;
        struct pair p;

        guest_migrate(&g, seed);
        if (seed / 100 % 2)
            stream = &g.stream;
        pair_new(&p, store_bytes);
        assert_int_equal(ram_encoder_feed(p.encoder, buffer_data(stream),
                                          MIN(buffer_len(stream), 300000u), &p.wire),
                         0);
        for (unsigned i = 0; i < 100 && seed <= seeds.last; i++, seed++)
            mutate_chunks(seed, buffer_data(stream), buffer_len(stream), &p.wire, store_bytes);
        pair_free(&p);
        guest_done(&g);
    }
    buffer_done(&recorded);
}

/* Chunks lost, repeated or exchanged: the chained checksum sees it. */
static void test_chunks_out_of_order(void **state)
{
    struct ram_codec_config config = {.store_bytes = 100 * 4096};
    struct random random = {1};
    struct buffer first = {0}, second = {0};
    struct guest g;
    struct pair p;

    (void)state;
    guest_migrate(&g, 3);
    pair_new(&p, config.store_bytes);
    assert_int_equal(ram_encoder_feed(p.encoder, buffer_data(&g.stream), 50000, &first), 0);
    assert_int_equal(ram_encoder_finish(p.encoder, &first), 0);
    assert_int_equal(ram_encoder_feed(p.encoder, buffer_data(&g.stream) + 50000, 50000, &second),
                     0);
    assert_int_equal(ram_encoder_finish(p.encoder, &second), 0);
    assert_int_equal(buffer_append(&p.wire, buffer_data(&second), buffer_len(&second)), 0);
    assert_true(pair_decode(&p, &random, 1 << 20) < 0);
    assert_int_equal(buffer_len(&p.out), 0);
    buffer_clear(&p.wire);
    assert_int_equal(buffer_append(&p.wire, buffer_data(&first), buffer_len(&first)), 0);
    assert_true(pair_decode(&p, &random, 1 << 20) < 0); /* a fault is for good */
    buffer_done(&first);
    buffer_done(&second);
    pair_free(&p);
    guest_done(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guests),
        cmocka_unit_test(test_every_cut),
        cmocka_unit_test(test_recorded),
        cmocka_unit_test(test_damaged_streams),
        cmocka_unit_test(test_garbage),
        cmocka_unit_test(test_damaged_chunks),
        cmocka_unit_test(test_chunks_out_of_order),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
