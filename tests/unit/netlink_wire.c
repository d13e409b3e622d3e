/* SPDX-License-Identifier: Apache-2.0 */
/* The link's frames: round trips, and every fault that a header or a greeting can have. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "netlink/wire.h"

static void test_headers_round_trip(void **state)
{
    static const struct wire_header headers[] = {
        {.type = WIRE_HELLO, .length = 100},
        {.type = WIRE_WELCOME, .length = WIRE_HELLO_MAX_BYTES},
        {.type = WIRE_REFUSE, .length = WIRE_TEXT_BYTES - 1, .offset = WIRE_REASON_BUSY},
        {.type = WIRE_DATA, .stream = 1, .length = 1, .raw_length = 1},
        {.type = WIRE_DATA,
         .stream = UINT32_MAX,
         .care = CARE_BULK,
         .length = LIMIT_FRAME_PAYLOAD_BYTES,
         .raw_length = LIMIT_FRAME_PAYLOAD_BYTES,
         .offset = UINT64_MAX / 2},
        {.type = WIRE_DATA, .stream = 2, .flags = WIRE_FLAG_FIN},
        {.type = WIRE_DATA,
         .stream = 2,
         .flags = WIRE_FLAG_ZSTD | WIRE_FLAG_FIN,
         .length = 9,
         .raw_length = 10},
        {.type = WIRE_ACK, .stream = 7, .length = 8, .offset = UINT64_MAX},
        {.type = WIRE_RESET, .stream = 7, .offset = WIRE_REASON_GONE},
        {.type = WIRE_PING, .offset = 0x0123456789abcdef},
        {.type = WIRE_PONG, .offset = 1},
        {.type = WIRE_GOODBYE, .length = 0, .offset = WIRE_REASON_SHUTDOWN},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(headers); i++) {
        uint8_t raw[WIRE_HEADER_BYTES];
        struct wire_header h = {0};
        const char *why = NULL;

        wire_put_header(raw, &headers[i]);
        assert_int_equal(wire_get_header(raw, &h, &why), 0);
        assert_int_equal(h.type, headers[i].type);
        assert_int_equal(h.flags, headers[i].flags);
        assert_int_equal(h.care, headers[i].care);
        assert_int_equal(h.length, headers[i].length);
        assert_int_equal(h.stream, headers[i].stream);
        assert_int_equal(h.raw_length, headers[i].raw_length);
        assert_int_equal(h.offset, headers[i].offset);
    }
}

/* The drawing in wire.h is what is on the wire. */
static void test_header_bytes(void **state)
{
    static const uint8_t wanted[WIRE_HEADER_BYTES] = {4, 1, 2, 0, 0, 0, 1, 2, 0, 0, 0, 3,
                                                      0, 0, 1, 2, 0, 0, 0, 0, 0, 1, 0, 5};
    struct wire_header h = {.type = WIRE_DATA,
                            .flags = WIRE_FLAG_FIN,
                            .care = CARE_RAM,
                            .length = 258,
                            .stream = 3,
                            .raw_length = 258,
                            .offset = 65541};
    uint8_t raw[WIRE_HEADER_BYTES];

    (void)state;
    wire_put_header(raw, &h);
    assert_memory_equal(raw, wanted, sizeof(raw));
}

static void test_header_faults(void **state)
{
    static const struct wire_header faults[] = {
        {.type = 0},
        {.type = WIRE_GOODBYE + 1},
        {.type = WIRE_HELLO, .length = WIRE_HELLO_MAX_BYTES + 1},
        {.type = WIRE_HELLO, .stream = 1},
        {.type = WIRE_HELLO, .care = 1},
        {.type = WIRE_REFUSE, .length = WIRE_TEXT_BYTES},
        {.type = WIRE_GOODBYE, .stream = 1},
        {.type = WIRE_GOODBYE, .raw_length = 1},
        {.type = WIRE_DATA,
         .stream = 1,
         .length = LIMIT_FRAME_PAYLOAD_BYTES + 1,
         .raw_length = LIMIT_FRAME_PAYLOAD_BYTES + 1},
        {.type = WIRE_DATA,
         .stream = 1,
         .flags = WIRE_FLAG_ZSTD,
         .length = 1,
         .raw_length = LIMIT_FRAME_PAYLOAD_BYTES + 1},
        {.type = WIRE_DATA, .stream = 1, .flags = WIRE_FLAG_ZSTD, .length = 10, .raw_length = 10},
        {.type = WIRE_DATA, .stream = 1, .flags = WIRE_FLAG_ZSTD, .length = 0, .raw_length = 10},
        {.type = WIRE_DATA, .stream = 1, .flags = 0x80, .length = 1, .raw_length = 1},
        {.type = WIRE_DATA, .stream = 1, .care = CARE_CLASSES, .length = 1, .raw_length = 1},
        {.type = WIRE_DATA, .stream = 0, .length = 1, .raw_length = 1},
        {.type = WIRE_DATA, .stream = 1},
        {.type = WIRE_DATA,
         .stream = 1,
         .length = 1,
         .raw_length = 1,
         .offset = UINT64_MAX / 2 + 1},
        {.type = WIRE_ACK, .length = 8},
        {.type = WIRE_ACK, .stream = 1},
        {.type = WIRE_ACK, .stream = 1, .length = 8, .flags = 1},
        {.type = WIRE_RESET, .stream = 0},
        {.type = WIRE_RESET, .stream = 1, .length = 1},
        {.type = WIRE_PING, .length = 1},
        {.type = WIRE_PONG, .stream = 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(faults); i++) {
        struct wire_header h = {.type = 77};
        uint8_t raw[WIRE_HEADER_BYTES];
        const char *why = NULL;

        wire_put_header(raw, &faults[i]);
        if (wire_get_header(raw, &h, &why) != -EPROTO)
            fail_msg("fault %zu was taken", i);
        assert_non_null(why);
        assert_int_equal(h.type, 77); /* untouched on failure */
    }
    for (int i = 1; i < 256; i++) {
        uint8_t raw[WIRE_HEADER_BYTES] = {WIRE_PING, 0, 0, (uint8_t)i};
        const char *why = NULL;
        struct wire_header h;

        assert_int_equal(wire_get_header(raw, &h, &why), -EPROTO);
    }
}

static struct wire_hello hello_of(const char *name)
{
    struct wire_hello h = {
        .version = WIRE_VERSION, .resume = true, .stripe = 3, .window_bytes = 12345678};

    memset(h.session_id, 0xaa, sizeof(h.session_id));
    memset(h.instance_id, 0xbb, sizeof(h.instance_id));
    strncpy(h.name, name, sizeof(h.name) - 1);
    return h;
}

static void test_hello_round_trip(void **state)
{
    static const char *const names[] = {
        "", "a", "a-site-with-the-longest-name-that-fits-into-its-field-of-64-xyz"};

    (void)state;
    assert_int_equal(strlen(names[2]), WIRE_NAME_BYTES - 1);
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        struct wire_hello in = hello_of(names[i]), out = {0};
        uint8_t frame[WIRE_HELLO_MAX_BYTES];
        struct wire_header h;
        const char *why;
        size_t n = wire_put_hello(frame, WIRE_HELLO, &in);

        assert_true(n <= sizeof(frame));
        assert_int_equal(wire_get_header(frame, &h, &why), 0);
        assert_int_equal(h.length, n - WIRE_HEADER_BYTES);
        assert_int_equal(wire_get_hello(frame + WIRE_HEADER_BYTES, h.length, &out), 0);
        assert_memory_equal(out.session_id, in.session_id, WIRE_ID_BYTES);
        assert_memory_equal(out.instance_id, in.instance_id, WIRE_ID_BYTES);
        assert_string_equal(out.name, names[i]);
        assert_true(out.resume);
        assert_int_equal(out.stripe, 3);
        assert_int_equal(out.window_bytes, 12345678);
        for (size_t len = 0; len < h.length; len++) /* every cut */
            assert_int_equal(wire_get_hello(frame + WIRE_HEADER_BYTES, len, &out), -EPROTO);
    }
}

/* A greeting with one byte changed. */
static int get_changed(size_t at, uint8_t value)
{
    struct wire_hello in = hello_of("site"), out;
    uint8_t frame[WIRE_HELLO_MAX_BYTES];
    size_t n = wire_put_hello(frame, WIRE_HELLO, &in);

    frame[WIRE_HEADER_BYTES + at] = value;
    return wire_get_hello(frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES, &out);
}

static void test_hello_faults(void **state)
{
    enum {
        AT_MAGIC = 0,
        AT_VERSION = 9,
        AT_FLAGS = 10,
        AT_STRIPE = 11,
        AT_WINDOW = 12,
        AT_NAME_LEN = 48
    };
    struct wire_hello in = hello_of("site"), out;
    uint8_t frame[WIRE_HELLO_MAX_BYTES + 1] = {0};
    size_t n = wire_put_hello(frame, WIRE_HELLO, &in);

    (void)state;
    assert_int_equal(get_changed(AT_MAGIC, 'X'), -EPROTO);
    assert_int_equal(get_changed(AT_VERSION, WIRE_VERSION + 1), -EPROTONOSUPPORT);
    assert_int_equal(get_changed(AT_VERSION, 0), -EPROTONOSUPPORT);
    assert_int_equal(get_changed(AT_FLAGS, 2), -EPROTO);
    assert_int_equal(get_changed(AT_STRIPE, LIMIT_SESSION_STRIPES), -EPROTO);
    assert_int_equal(get_changed(AT_STRIPE, LIMIT_SESSION_STRIPES - 1), 0);
    assert_int_equal(get_changed(AT_WINDOW, 0xff), -EPROTO);
    assert_int_equal(get_changed(AT_NAME_LEN, 3), -EPROTO);
    assert_int_equal(get_changed(AT_NAME_LEN, 5), -EPROTO);
    assert_int_equal(get_changed(AT_NAME_LEN, 255), -EPROTO);
    assert_int_equal(wire_get_hello(frame + WIRE_HEADER_BYTES, n - WIRE_HEADER_BYTES + 1, &out),
                     -EPROTO);
}

static void test_text(void **state)
{
    uint8_t frame[WIRE_HEADER_BYTES + WIRE_TEXT_BYTES];
    char text[WIRE_TEXT_BYTES], longer[1000];
    struct wire_header h;
    const char *why;

    (void)state;
    assert_int_equal(wire_put_text(frame, WIRE_REFUSE, WIRE_REASON_BUSY, "no"),
                     WIRE_HEADER_BYTES + 2);
    assert_int_equal(wire_get_header(frame, &h, &why), 0);
    assert_int_equal(h.offset, WIRE_REASON_BUSY);
    wire_get_text(frame + WIRE_HEADER_BYTES, h.length, text);
    assert_string_equal(text, "no");

    memset(longer, 'x', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_true(wire_put_text(frame, WIRE_GOODBYE, WIRE_REASON_NONE, longer) < sizeof(frame));
    assert_int_equal(wire_get_header(frame, &h, &why), 0); /* cut so that the peer takes it */
    wire_get_text((const uint8_t *)longer, sizeof(longer), text);
    assert_int_equal(strlen(text), WIRE_TEXT_BYTES - 1);
    wire_get_text((const uint8_t *)"a\n\x1b[2J\xc3\xa4\0b", 10,
                  text); /* nothing that a terminal would act on */
    assert_string_equal(text, "a??[2J???b");
}

static void test_reasons_have_names(void **state)
{
    (void)state;
    for (uint64_t i = 0; i <= WIRE_REASON_OUTAGE; i++)
        assert_string_not_equal(wire_reason_name(i), "unknown reason");
    assert_string_equal(wire_reason_name(UINT64_MAX), "unknown reason");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_headers_round_trip), cmocka_unit_test(test_header_bytes),
        cmocka_unit_test(test_header_faults),      cmocka_unit_test(test_hello_round_trip),
        cmocka_unit_test(test_hello_faults),       cmocka_unit_test(test_text),
        cmocka_unit_test(test_reasons_have_names),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
