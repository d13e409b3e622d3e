/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of QEMU's stream on streams made by hand: positions under any cut, lost on the unknown. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buffer.h"
#include "core/base/wire.h"
#include "memory/ram_parser.h"

enum {
    ZERO = 0x02,
    MEM_SIZE = 0x04,
    PAGE = 0x08,
    EOS = 0x10,
    CONTINUE = 0x20,
    XBZRLE = 0x40,
    RAM_ID = 2
};

/* --- making a stream ----------------------------------------------------------------------- */

static void put(struct buffer *b, const void *data, size_t len)
{
    assert_int_equal(buffer_append(b, data, len), 0);
}

static void put8(struct buffer *b, uint8_t v)
{
    put(b, &v, 1);
}

static void put16(struct buffer *b, uint16_t v)
{
    uint8_t raw[2];

    put_be16(raw, v);
    put(b, raw, sizeof(raw));
}

static void put32(struct buffer *b, uint32_t v)
{
    uint8_t raw[4];

    put_be32(raw, v);
    put(b, raw, sizeof(raw));
}

static void put64(struct buffer *b, uint64_t v)
{
    uint8_t raw[8];

    put_be64(raw, v);
    put(b, raw, sizeof(raw));
}

static void put_name(struct buffer *b, const char *name)
{
    put8(b, (uint8_t)strlen(name));
    put(b, name, strlen(name));
}

static void put_footer(struct buffer *b, uint32_t id)
{
    put64(b, EOS);
    put8(b, 0x7e);
    put32(b, id);
}

static void put_header(struct buffer *b)
{
    put32(b, 0x5145564d);
    put32(b, 3);
}

static void put_start(struct buffer *b)
{
    put8(b, 0x01);
    put32(b, RAM_ID);
    put_name(b, "ram");
    put32(b, 0); /* instance */
    put32(b, 4); /* version */
    put64(b, (3 << 20) | MEM_SIZE);
    put_name(b, "pc.ram");
    put64(b, 2 << 20);
    put_name(b, "vga.vram");
    put64(b, 1 << 20);
    put_footer(b, RAM_ID);
}

static void put_section(struct buffer *b, uint8_t type)
{
    put8(b, type);
    put32(b, RAM_ID);
}

static void put_page(struct buffer *b, uint64_t offset, const char *block, uint8_t filler)
{
    uint8_t page[4096];

    memset(page, filler, sizeof(page));
    put64(b, offset | PAGE | (block ? 0 : CONTINUE));
    if (block)
        put_name(b, block);
    put(b, page, sizeof(page));
}

/* A whole migration in small; the tail's offset in *ret_tail. */
static void put_migration(struct buffer *b, size_t *ret_tail)
{
    put_header(b);
    put8(b, 0x07);
    put32(b, 9);
    put(b, "pc-q35-72", 9);
    put8(b, 0x08); /* COMMAND with data, as PING has */
    put16(b, 3);
    put16(b, 4);
    put32(b, 1);
    put_start(b);
    put_section(b, 0x02);
    put_page(b, 0, "pc.ram", 0x7e); /* content that looks like a footer, and like section types */
    put_page(b, 4096, NULL, 0x01);
    put64(b, 8192 | ZERO | CONTINUE);
    put8(b, 0);
    put_footer(b, RAM_ID);
    put_section(b, 0x02);
    put64(b, 4096 | XBZRLE | CONTINUE);
    put8(b, 1);
    put16(b, 5);
    put(b, "delta", 5);
    put64(b, 0 | ZERO);
    put_name(b, "vga.vram");
    put8(b, 0);
    put_footer(b, RAM_ID);
    put_section(b, 0x03);
    put_page(b, 0, "pc.ram", 0);
    put_footer(b, RAM_ID);
    *ret_tail = buffer_len(b);
    put8(b, 0x04); /* a device: no length, so nothing after it can be read */
    put(b, "\x02\x02 anything at all, even \x51\x45\x56\x4d", 30);
}

static struct ram_parser *feed(const struct buffer *b, size_t most)
{
    struct ram_parser *p;

    assert_int_equal(ram_parser_new(&p), 0);
    for (size_t at = 0; at < buffer_len(b);) {
        size_t n = MIN(most, buffer_len(b) - at);

        ram_parser_feed(p, buffer_data(b) + at, n);
        at += n;
    }
    return p;
}

/* --- tests --------------------------------------------------------------------------------- */

static void test_a_migration_under_any_cut(void **state)
{
    static const size_t cuts[] = {1, 2, 3, 7, 64, 4095, 4096, 4097, 1 << 20};
    struct buffer b = {0};
    size_t tail;

    (void)state;
    put_migration(&b, &tail);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct ram_parser *p = feed(&b, cuts[i]);
        struct ram_parser_stats stats;

        assert_false(ram_parser_is_lost(p));
        assert_int_equal(ram_parser_tail_offset(p), tail);
        ram_parser_get_stats(p, &stats);
        assert_int_equal(stats.bytes, buffer_len(&b));
        assert_int_equal(stats.pages, 3);
        assert_int_equal(stats.zero_pages, 2);
        assert_int_equal(stats.xbzrle_pages, 1);
        assert_int_equal(stats.total_bytes, 3 << 20);
        assert_int_equal(stats.parts, 2);
        ram_parser_free(p);
    }
    buffer_done(&b);
}

/* The guest is stopped in post-copy: what may be dirty is discarded, the devices' state comes as a package, then pages. */
static void test_post_copy_under_any_cut(void **state)
{
    static const size_t cuts[] = {1, 2, 3, 7, 64, 4095, 4096, 4097, 1 << 20};
    struct buffer b = {0};
    size_t package, end;

    (void)state;
    put_header(&b);
    put_start(&b);
    put_section(&b, 0x02);
    put_page(&b, 0, "pc.ram", 1);
    put_footer(&b, RAM_ID);
    put8(&b, 0x08); /* discard */
    put16(&b, 6);
    put16(&b, 9);
    put(&b, "\x00\x06pc.ram", 9);
    put8(&b, 0x08);
    put16(&b, 7);
    put16(&b, 4);
    put32(&b, 3000);
    package = buffer_len(&b);
    for (int i = 0; i < 300; i++)
        put(&b, "\x08\x00\x03\x7e\x02\x01\x04\xff\x20\x00", 10); /* anything at all */
    put_section(&b, 0x02);
    put_page(&b, 4096, "pc.ram", 2);
    put_footer(&b, RAM_ID);
    put_section(&b, 0x03);
    put_footer(&b, RAM_ID);
    end = buffer_len(&b);
    put8(&b, 0);
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        struct ram_parser *p = feed(&b, cuts[i]);
        struct ram_parser_stats stats;

        assert_false(ram_parser_is_lost(p));
        assert_int_equal(ram_parser_package_offset(p), package);
        assert_int_equal(ram_parser_tail_offset(p), end);
        ram_parser_get_stats(p, &stats);
        assert_int_equal(stats.pages, 2);
        ram_parser_free(p);
    }
    buffer_done(&b);
}

/* The tail's offset is known with the footer's last byte, not one earlier or later. */
static void test_tail_is_known_in_time(void **state)
{
    struct ram_parser *p;
    struct buffer b = {0};
    size_t tail;

    (void)state;
    put_migration(&b, &tail);
    assert_int_equal(ram_parser_new(&p), 0);
    ram_parser_feed(p, buffer_data(&b), tail - 1);
    assert_true(ram_parser_tail_offset(p) == UINT64_MAX);
    ram_parser_feed(p, buffer_data(&b) + tail - 1, 1);
    assert_int_equal(ram_parser_tail_offset(p), tail);
    ram_parser_free(p);
    buffer_done(&b);
}

static void expect_lost(struct buffer *b)
{
    static const uint8_t more[10000];
    struct ram_parser *p = feed(b, 5);
    struct ram_parser_stats stats;

    assert_true(ram_parser_is_lost(p));
    ram_parser_feed(p, more, sizeof(more));
    assert_true(ram_parser_is_lost(p));
    assert_true(ram_parser_tail_offset(p) == UINT64_MAX);
    ram_parser_get_stats(p, &stats);
    assert_int_equal(stats.bytes, buffer_len(b) + sizeof(more));
    ram_parser_free(p);
    buffer_done(b);
}

static void test_lost_on_the_unknown(void **state)
{
    struct buffer b = {0};

    (void)state;
    put64(&b, 0x5145564d00000002); /* version 2 */
    expect_lost(&b);

    put64(&b, 0x4e42444d41474943);
    expect_lost(&b);

    put_header(&b);
    put8(&b, 0x09);
    expect_lost(&b);

    put_header(&b);
    put8(&b, 0x07);
    put32(&b, 100000); /* a machine's name of 100 kB */
    expect_lost(&b);

    put_header(&b);
    put8(&b, 0x01);
    put32(&b, 5);
    put_name(&b, "dirty-bitmap");
    put64(&b, 0);
    expect_lost(&b);

    put_header(&b);
    put_section(&b, 0x02); /* a PART before any START */
    expect_lost(&b);

    put_header(&b);
    put_start(&b);
    put8(&b, 0x02);
    put32(&b, RAM_ID + 1);
    expect_lost(&b);

    put_header(&b);
    put_start(&b);
    put_section(&b, 0x02);
    put64(&b, PAGE | ZERO | CONTINUE);
    expect_lost(&b);

    put_header(&b);
    put_start(&b);
    put_section(&b, 0x02);
    put64(&b, EOS);
    put8(&b, 0x7e);
    put32(&b, RAM_ID + 1);
    expect_lost(&b);

    put_header(&b);
    put8(&b, 0x01);
    put32(&b, RAM_ID);
    put_name(&b, "ram");
    put64(&b, 4);
    put64(&b, (1 << 20) | MEM_SIZE);
    put_name(&b, "pc.ram");
    put64(&b, 2 << 20); /* more than all of them together */
    expect_lost(&b);
}

static void test_endless_block_lists_are_bounded(void **state)
{
    struct buffer b = {0};

    (void)state;
    put_header(&b);
    put8(&b, 0x01);
    put32(&b, RAM_ID);
    put_name(&b, "ram");
    put64(&b, 4);
    put64(&b, (1 << 20) | MEM_SIZE);
    for (int i = 0; i < 2000; i++) {
        put_name(&b, "empty");
        put64(&b, 0);
    }
    expect_lost(&b);
}

static void test_garbage(void **state)
{
    uint8_t data[3000];

    (void)state;
    srandom(11);
    for (int round = 0; round < 3000; round++) {
        struct buffer b = {0};
        struct ram_parser *p;
        size_t tail;

        if (round % 2) { /* damaged rather than random */
            put_migration(&b, &tail);
            for (int i = 0; i < 3; i++)
                b.base[b.head + (size_t)random() % buffer_len(&b)] = (uint8_t)random();
        } else {
            put_header(&b);
            for (size_t i = 0; i < sizeof(data); i++)
                data[i] = (uint8_t)random();
            data[0] = (uint8_t)(random() % 9);
            put(&b, data, sizeof(data));
        }
        p = feed(&b, 1 + (size_t)random() % 500);
        if (ram_parser_tail_offset(p) != UINT64_MAX)
            assert_true(ram_parser_tail_offset(p) <= buffer_len(&b));
        ram_parser_free(p);
        buffer_done(&b);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_migration_under_any_cut),
        cmocka_unit_test(test_post_copy_under_any_cut),
        cmocka_unit_test(test_tail_is_known_in_time),
        cmocka_unit_test(test_lost_on_the_unknown),
        cmocka_unit_test(test_endless_block_lists_are_bounded),
        cmocka_unit_test(test_garbage),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
