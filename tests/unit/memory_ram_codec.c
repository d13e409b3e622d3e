/* SPDX-License-Identifier: Apache-2.0 */
/* The codec's parts: pages looked at, deltas, the index; and when bytes leave the encoder. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/limits.h"
#include "memory/page_content.h"
#include "memory/page_index.h"
#include "memory/ram_codec_format.h"
#include "memory/ram_decoder.h"
#include "memory/ram_encoder.h"
#include "memory/ram_parser.h"

static void fill_random(uint8_t *page)
{
    for (size_t i = 0; i < RAM_PAGE_BYTES; i++)
        page[i] = (uint8_t)(random() >> 8);
}

static void test_page_content(void **state)
{
    uint8_t page[RAM_PAGE_BYTES];

    (void)state;
    srandom(1);
    memset(page, 7, sizeof(page));
    assert_true(page_content_is_constant(page));
    assert_false(page_content_looks_random(page));
    page[RAM_PAGE_BYTES - 1]++;
    assert_false(page_content_is_constant(page));
    for (int i = 0; i < 1000; i++) {
        fill_random(page);
        assert_true(page_content_looks_random(page));
    }
    for (size_t i = 0; i < sizeof(page); i++)
        page[i] = (uint8_t)("etaoin shrdlu"[random() % 13]);
    assert_false(page_content_looks_random(page));
    for (size_t i = 0; i < sizeof(page); i += 8) { /* a table of pointers */
        uint64_t pointer = 0xffff888000000000 + (uint64_t)random() % (1 << 28) * 8;

        memcpy(page + i, &pointer, 8);
    }
    assert_false(page_content_looks_random(page));
}

static void test_deltas(void **state)
{
    uint8_t base[RAM_PAGE_BYTES], page[RAM_PAGE_BYTES], record[PAGE_DELTA_MAX_BYTES];
    size_t written = 0;

    (void)state;
    srandom(2);
    for (int round = 0; round < 20000; round++) {
        struct wire_reader reader;
        size_t len, spots = (size_t)random() % 60, differing = 0;

        fill_random(base);
        memcpy(page, base, sizeof(page));
        for (size_t i = 0; i < spots; i++) {
            size_t at = (size_t)random() % RAM_PAGE_BYTES;

            for (long n = random() % 30; n >= 0 && at < RAM_PAGE_BYTES; n--)
                page[at++] = (uint8_t)random();
        }
        for (size_t i = 0; i < RAM_PAGE_BYTES; i++)
            differing += page[i] != base[i];
        assert_int_equal(page_content_differing_bytes(base, page), differing);
        len = page_content_write_delta(base, page, record);
        assert_true(len <= sizeof(record));
        assert_true(len != 1 || differing == 0);
        if (len == 0)
            continue;
        written++;
        reader = wire_reader_of(record, len);
        assert_true(page_content_apply_delta(&reader, base));
        assert_int_equal(wire_left(&reader), 0);
        assert_memory_equal(base, page, sizeof(page));
    }
    assert_true(written > 1000);
}

static void test_bad_deltas(void **state)
{
    static const uint8_t records[][8] = {
        {1, 0xff, 0xff, 1, 1, 0},    /* a gap beyond the page */
        {1, 0, 0x81, 0x20, 0},       /* longer than the page */
        {1, 0xff, 0x1f, 2, 0},       /* the last byte and one more */
        {2, 0, 1, 9, 0xff, 0x1f, 1}, /* the second span's gap */
        {1, 0, 0},                   /* an empty span */
        {1, 0, 5, 1, 2},             /* bytes missing */
        {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff},
    };
    static const size_t lengths[] = {6, 5, 5, 7, 3, 5, 8};
    uint8_t page[RAM_PAGE_BYTES + 64] = {0};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
        struct wire_reader reader = wire_reader_of(records[i], lengths[i]);

        assert_false(page_content_apply_delta(&reader, page));
        for (size_t k = RAM_PAGE_BYTES; k < sizeof(page); k++)
            assert_int_equal(page[k], 0);
    }
}

static void test_index(void **state)
{
    struct page_index *ix;
    uint32_t slot;

    (void)state;
    assert_int_equal(page_index_new(4, &ix), 0);
    for (uint64_t key = 0; key < 4; key++) {
        slot = page_index_take(ix);
        assert_int_equal(slot, key); /* in order */
        page_index_put(ix, slot, key, 1000 + key, false);
    }
    assert_int_equal(page_index_find_key(ix, 2), 2);
    assert_int_equal(page_index_find_hash(ix, 1003, PAGE_INDEX_NONE), 3);
    page_index_put(ix, 0, 0, 2000, true); /* rewritten: hot */
    assert_int_equal(page_index_find_hash(ix, 1000, PAGE_INDEX_NONE), PAGE_INDEX_NONE);
    assert_int_equal(page_index_find_hash(ix, 2000, PAGE_INDEX_NONE), 0);
    slot = page_index_take(ix);
    assert_int_equal(slot, 1); /* the hot one is spared */
    assert_int_equal(page_index_find_key(ix, 1), PAGE_INDEX_NONE);
    page_index_put(ix, slot, 9, 1002, false);
    slot = page_index_find_hash(ix, 1002, PAGE_INDEX_NONE); /* two of one hash */
    assert_int_equal(slot, 1);
    assert_int_equal(page_index_find_hash(ix, 1002, slot), 2);
    page_index_free(ix);
    assert_int_equal(page_index_new(0, &ix), 0);
    assert_int_equal(page_index_take(ix), PAGE_INDEX_NONE);
    assert_int_equal(page_index_find_key(ix, 0), PAGE_INDEX_NONE);
    page_index_free(ix);
}

/* --- flush points -------------------------------------------------------------------------- */

struct stream {
    struct ram_encoder *encoder;
    struct buffer wire;
};

static void feed(struct stream *s, const void *data, size_t len)
{
    assert_int_equal(ram_encoder_feed(s->encoder, data, len, &s->wire), 0);
}

static void feed_number(struct stream *s, uint64_t v, size_t bytes)
{
    uint8_t raw[8];

    put_be64(raw, v);
    feed(s, raw + 8 - bytes, bytes);
}

static bool something_left(struct stream *s)
{
    bool any = buffer_len(&s->wire) > 0;

    buffer_clear(&s->wire);
    return any;
}

static void test_what_may_not_wait_leaves_at_once(void **state)
{
    struct ram_codec_config config = {.store_bytes = 1 << 20};
    struct stream s = {0};
    uint8_t page[RAM_PAGE_BYTES];

    (void)state;
    assert_int_equal(ram_encoder_new(&config, &s.encoder), 0);
    feed_number(&s, UINT64_C(0x5145564d00000003), 8);
    assert_false(something_left(&s));
    feed(&s, "\x08\x00\x03\x00\x04ping", 8); /* a PING, but for its last byte */
    assert_false(something_left(&s));
    feed(&s, "g", 1);
    assert_true(something_left(&s));
    feed(&s, "\x01\x00\x00\x00\x07\x03ram\x00\x00\x00\x00\x00\x00\x00\x04", 17);
    feed_number(&s, 0x1000 | 0x04, 8);
    feed(&s, "\x01m", 2);
    feed_number(&s, 0x1000, 8);
    assert_false(something_left(&s));
    feed_number(&s, 0x10, 8); /* EOS */
    feed(&s, "\x7e\x00\x00\x00\x07", 5);
    assert_true(something_left(&s));
    feed(&s, "\x02\x00\x00\x00\x07", 5);
    feed_number(&s, 0x08, 8);
    feed(&s, "\x01m", 2);
    memset(page, 1, sizeof(page));
    feed(&s, page, sizeof(page)); /* one page waits for others ... */
    assert_false(something_left(&s));
    feed_number(&s, 0x1000 | 0x08 | 0x20, 8);
    feed(&s, page, 100);
    assert_int_equal(ram_encoder_flush(s.encoder, &s.wire),
                     0); /* ... until the caller has no more */
    assert_true(something_left(&s));
    assert_int_equal(ram_encoder_flush(s.encoder, &s.wire), 0);
    assert_false(something_left(&s)); /* the page's beginning stays */
    assert_int_equal(ram_encoder_finish(s.encoder, &s.wire), 0);
    assert_true(something_left(&s));
    feed(&s, page, RAM_PAGE_BYTES - 100);
    feed_number(&s, 0x10, 8);
    feed(&s, "\x7e\x00\x00\x00\x07", 5);
    assert_true(something_left(&s));
    feed(&s, "\x03\x00\x00\x00\x07", 5); /* END(ram) */
    feed_number(&s, 0x10, 8);
    feed(&s, "\x7e\x00\x00\x00\x07", 5);
    assert_true(something_left(&s));
    for (int i = 0; i < 10; i++) { /* the tail: every byte */
        feed_number(&s, 4, 1);
        assert_true(something_left(&s));
    }
    ram_encoder_free(s.encoder);
    buffer_done(&s.wire);
}

/* --- what a peer may say ------------------------------------------------------------------- */

static int decode(const struct ram_chunk_header *h, const void *body, size_t len)
{
    struct ram_codec_config config = {.store_bytes = 4 * RAM_PAGE_BYTES};
    struct ram_decoder *d;
    struct buffer wire = {0}, out = {0};
    size_t taken;
    int r;

    assert_int_equal(ram_decoder_new(&config, &d), 0);
    assert_non_null(buffer_reserve(&wire, RAM_CHUNK_HEADER_BYTES));
    ram_chunk_header_put(wire.base, h);
    buffer_commit(&wire, RAM_CHUNK_HEADER_BYTES);
    assert_int_equal(buffer_append(&wire, body, len), 0);
    r = ram_decoder_feed(d, buffer_data(&wire), buffer_len(&wire), &taken, &out);
    assert_int_equal(buffer_len(&out), 0);
    ram_decoder_free(d);
    buffer_done(&wire);
    buffer_done(&out);
    return r;
}

/* Operations without data that decode to @decoded bytes. */
static int decode_operations(const char *operations, size_t len, uint32_t decoded)
{
    struct ram_chunk_header h = {
        .type = RAM_CHUNK_TYPE,
        .flags = RAM_CHUNK_CONTROL_RAW,
        .decoded_bytes = decoded,
        .operation_bytes = (uint32_t)len,
        .control_bytes = (uint32_t)len,
    };

    return decode(&h, operations, len);
}

static void test_malformed_chunks(void **state)
{
    const struct ram_chunk_header good = {.type = RAM_CHUNK_TYPE,
                                          .flags = RAM_CHUNK_CONTROL_RAW,
                                          .decoded_bytes = 9,
                                          .operation_bytes = 2,
                                          .control_bytes = 2};
    struct ram_chunk_header h = good;

    (void)state;
    /* one zero page: everything right but the checksum */
    assert_int_equal(decode(&h, "\x11\x01", 2), -EBADMSG);
    h.type = 2;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.flags = 0x80;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.decoded_bytes = LIMIT_RAM_CHUNK_BYTES + 1;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.operation_bytes = UINT32_MAX;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.data_bytes = UINT32_MAX;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.control_bytes = h.pages_bytes = h.plain_bytes = UINT32_MAX;
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    h = good;
    h.flags = 0; /* not zstd */
    assert_int_equal(decode(&h, "\x11\x01", 2), -EPROTO);
    assert_int_equal(decode_operations("\x11\x01", 2, 8), -EPROTO);        /* more than announced */
    assert_int_equal(decode_operations("\x11\x01", 2, 10), -EPROTO);       /* less */
    assert_int_equal(decode_operations("\x11\x00", 2, 9), -EPROTO);        /* none */
    assert_int_equal(decode_operations("\x1f\x01", 2, 9), -EPROTO);        /* no such operation */
    assert_int_equal(decode_operations("\x18\x01", 2, 4104), -EPROTO);     /* a disk: none agreed */
    assert_int_equal(decode_operations("\x31\x01", 2, 9), -EPROTO);        /* no such header mode */
    assert_int_equal(decode_operations("\xc5\x01", 2, 9), -EPROTO);        /* no such slot mode */
    assert_int_equal(decode_operations("\x13\x01", 2, 4104), -EPROTO);     /* of no slot */
    assert_int_equal(decode_operations("\x53\x05", 2, 20520), -EPROTO);    /* beyond the store */
    assert_int_equal(decode_operations("\x93\x01\x08", 3, 4104), -EPROTO); /* the same, by a jump */
    assert_int_equal(decode_operations("\x93\x01\x01", 3, 4104), -EPROTO); /* before it */
    assert_int_equal(decode_operations("\x00\x04", 2, 4), -EPROTO);        /* no data */
    assert_int_equal(decode_operations("\x15\x01", 2, 4104), -EPROTO);     /* no plain page */
    assert_int_equal(decode_operations("\x16\x01", 2, 4104), -EPROTO);     /* no compressed page */
    assert_int_equal(decode_operations("\x01\x02", 2, 18),
                     -EPROTO); /* zero pages without headers */
    assert_int_equal(decode_operations("\x11\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12, 9),
                     -EPROTO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_page_content),
        cmocka_unit_test(test_deltas),
        cmocka_unit_test(test_bad_deltas),
        cmocka_unit_test(test_index),
        cmocka_unit_test(test_what_may_not_wait_leaves_at_once),
        cmocka_unit_test(test_malformed_chunks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
