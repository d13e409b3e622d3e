/* SPDX-License-Identifier: Apache-2.0 */
/* The mirror stream's format: round trip under any cut, and every bound of the decoder. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/buffer.h"
#include "core/base/wire.h"
#include "storage/limits.h"
#include "storage/mirror_wire.h"

static const struct mirror_wire_message to_target[] = {
    {.type = MIRROR_WIRE_OPEN, .length = 5, .offset = 1 << 30, .payload = (uint8_t *)"disk0"},
    {.type = MIRROR_WIRE_WRITE,
     .length = 7,
     .seq = 1,
     .offset = 512,
     .payload = (uint8_t *)"content"},
    {.type = MIRROR_WIRE_ZERO,
     .flags = MIRROR_WIRE_MAY_TRIM,
     .length = UINT32_MAX,
     .seq = 2,
     .offset = 0},
    {.type = MIRROR_WIRE_TRIM, .length = 65536, .seq = 3, .offset = UINT64_MAX},
    {.type = MIRROR_WIRE_FLUSH, .seq = 4},
    {.type = MIRROR_WIRE_READ, .length = 1, .seq = 5, .offset = 99},
    {.type = MIRROR_WIRE_CHECK, .length = 1 << 20, .seq = 6, .offset = 4096},
    {.type = MIRROR_WIRE_SEED,
     .length = 65537,
     .seq = 7,
     .offset = 65536,
     .payload = (uint8_t *)"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"},
    {.type = MIRROR_WIRE_FILL,
     .length = 34,
     .seq = 7,
     .offset = 65536,
     .payload = (uint8_t *)"0123456789abcdef0123456789abcdefgh"},
    {.type = MIRROR_WIRE_CLOSE, .seq = 8, .offset = 7},
};

static const struct mirror_wire_message to_source[] = {
    {.type = MIRROR_WIRE_APPLIED, .seq = 3, .offset = 4096},
    {.type = MIRROR_WIRE_READ_DATA, .length = 1, .seq = 5, .payload = (uint8_t *)"x"},
    {.type = MIRROR_WIRE_READ_DATA, .seq = 7, .offset = EIO},
    {.type = MIRROR_WIRE_DIGEST, .length = 16, .seq = 6, .payload = (uint8_t *)"0123456789abcdef"},
    {.type = MIRROR_WIRE_DIGEST, .seq = 8, .offset = EIO},
    {.type = MIRROR_WIRE_CLOSED, .seq = 6},
    {.type = MIRROR_WIRE_ERROR, .length = 4, .offset = ENOSPC, .payload = (uint8_t *)"full"},
    {.type = MIRROR_WIRE_MISS, .length = 8, .seq = 7, .payload = (uint8_t *)"01234567"},
    {.type = MIRROR_WIRE_MISS, .seq = 7, .offset = 65536},
    {.type = MIRROR_WIRE_ERROR, .offset = EIO},
};

static void encode_all(struct buffer *b, const struct mirror_wire_message *m, size_t count)
{
    uint8_t header[MIRROR_WIRE_HEADER_BYTES];

    for (size_t i = 0; i < count; i++) {
        mirror_wire_encode(&m[i], header);
        assert_int_equal(buffer_append(b, header, sizeof(header)), 0);
        if (m[i].payload)
            assert_int_equal(buffer_append(b, m[i].payload, mirror_wire_payload_bytes(&m[i])), 0);
    }
}

static void assert_same(const struct mirror_wire_message *a, const struct mirror_wire_message *b)
{
    assert_int_equal(a->type, b->type);
    assert_int_equal(a->flags, b->flags);
    assert_int_equal(a->length, b->length);
    assert_int_equal(a->seq, b->seq);
    assert_int_equal(a->offset, b->offset);
    assert_int_equal(!a->payload, !b->payload);
    if (a->payload)
        assert_memory_equal(a->payload, b->payload, mirror_wire_payload_bytes(a));
}

/* Decodes the stream in pieces of @piece bytes and compares. */
static void check_round_trip(const struct mirror_wire_message *m, size_t count,
                             enum mirror_wire_direction direction, size_t piece)
{
    struct buffer b = {0};
    struct mirror_wire_decoder d;
    struct mirror_wire_message got;
    struct error e = {0};
    size_t index = 0, offered;
    bool complete;
    ssize_t n;

    encode_all(&b, m, count);
    mirror_wire_decoder_init(&d, direction);
    while (buffer_len(&b) > 0) {
        offered = MIN(piece, buffer_len(&b));
        n = mirror_wire_decode(&d, buffer_data(&b), offered, &got, &complete, &e);
        assert_true(n > 0 && (size_t)n <= offered);
        buffer_consume(&b, (size_t)n);
        if (!complete)
            continue;
        assert_true(index < count);
        assert_same(&m[index++], &got);
        free(got.payload);
    }
    assert_int_equal(index, count);
    assert_int_equal(mirror_wire_decoder_bytes(&d), 0);
    mirror_wire_decoder_done(&d);
    buffer_done(&b);
}

static void round_trip_in_any_pieces(void **state)
{
    (void)state;
    for (size_t piece = 1; piece < 80; piece++) {
        check_round_trip(to_target, ARRAY_SIZE(to_target), MIRROR_WIRE_TO_TARGET, piece);
        check_round_trip(to_source, ARRAY_SIZE(to_source), MIRROR_WIRE_TO_SOURCE, piece);
    }
}

static void a_cut_message_is_not_complete(void **state)
{
    struct buffer b = {0};
    struct mirror_wire_decoder d;
    struct mirror_wire_message got;
    struct error e = {0};
    bool complete;

    (void)state;
    encode_all(&b, &to_target[1], 1);
    for (size_t cut = 1; cut < buffer_len(&b); cut++) {
        mirror_wire_decoder_init(&d, MIRROR_WIRE_TO_TARGET);
        assert_int_equal(mirror_wire_decode(&d, buffer_data(&b), cut, &got, &complete, &e), cut);
        assert_false(complete);
        mirror_wire_decoder_done(&d); /* gives a half received payload back */
    }
    buffer_done(&b);
}

static void refuse(struct mirror_wire_message m, enum mirror_wire_direction direction,
                   unsigned reserved)
{
    uint8_t header[MIRROR_WIRE_HEADER_BYTES];
    struct mirror_wire_decoder d;
    struct mirror_wire_message got;
    struct error e = {0};
    bool complete;

    mirror_wire_encode(&m, header);
    header[3] = (uint8_t)reserved;
    mirror_wire_decoder_init(&d, direction);
    assert_int_equal(mirror_wire_decode(&d, header, sizeof(header), &got, &complete, &e), -EPROTO);
    assert_true(error_is_set(&e));
    assert_int_equal(mirror_wire_decoder_bytes(&d), 0);
    mirror_wire_decoder_done(&d);
}

static void what_is_out_of_bounds_is_refused(void **state)
{
    static const struct mirror_wire_message bad[] = {
        {.type = 0},
        {.type = 8},
        {.type = 64},
        {.type = 255},
        {.type = MIRROR_WIRE_APPLIED, .seq = 1}, /* goes the other way */
        {.type = MIRROR_WIRE_OPEN, .length = 0},
        {.type = MIRROR_WIRE_OPEN, .length = LIMIT_EXPORT_NAME_BYTES + 1},
        {.type = MIRROR_WIRE_WRITE, .length = 0},
        {.type = MIRROR_WIRE_WRITE, .length = LIMIT_NBD_WRITE_BYTES + 1},
        {.type = MIRROR_WIRE_WRITE, .length = UINT32_MAX},
        {.type = MIRROR_WIRE_WRITE, .length = 1, .flags = MIRROR_WIRE_MAY_TRIM},
        {.type = MIRROR_WIRE_ZERO, .length = 0},
        {.type = MIRROR_WIRE_ZERO, .length = 1, .flags = 0x80},
        {.type = MIRROR_WIRE_READ, .length = LIMIT_MIRROR_READ_BYTES + 1},
        {.type = MIRROR_WIRE_FLUSH, .length = 1},
        {.type = MIRROR_WIRE_CLOSE, .length = 1},
    };
    static const struct mirror_wire_message bad_back[] = {
        {.type = MIRROR_WIRE_WRITE, .length = 1},
        {.type = MIRROR_WIRE_READ_DATA, .length = 1, .offset = EIO}, /* data and an error */
        {.type = MIRROR_WIRE_READ_DATA},                             /* neither */
        {.type = MIRROR_WIRE_READ_DATA, .length = LIMIT_MIRROR_READ_BYTES + 1},
        {.type = MIRROR_WIRE_ERROR, .length = LIMIT_MIRROR_TEXT_BYTES + 1, .offset = 5},
        {.type = MIRROR_WIRE_CLOSED, .length = 1},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        refuse(bad[i], MIRROR_WIRE_TO_TARGET, 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad_back); i++)
        refuse(bad_back[i], MIRROR_WIRE_TO_SOURCE, 0);
    refuse(to_target[4], MIRROR_WIRE_TO_TARGET, 1); /* the reserved bytes */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip_in_any_pieces),
        cmocka_unit_test(a_cut_message_is_not_complete),
        cmocka_unit_test(what_is_out_of_bounds_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
