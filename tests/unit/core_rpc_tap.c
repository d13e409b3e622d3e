/* SPDX-License-Identifier: Apache-2.0 */
/* The reader of libvirt's RPC: kinds of frames, any cut, and what is not libvirt. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/limits.h"
#include "core/base/wire.h"
#include "core/move/rpc_tap.h"

enum {
    REMOTE = 0x20008086,
    KEEPALIVE = 0x6b656570,
    CALL = 0,
    REPLY = 1,
    MESSAGE = 2,
    PREPARE = 303,
    FINISH = 306
};

struct seen {
    enum rpc_kind kinds[64];
    bool ok[64];
    size_t lens[64];
    unsigned count;
    uint64_t bytes;
    int answer;
};

static int on_frame(void *user, const struct rpc_frame *frame)
{
    struct seen *s = user;

    assert_true(s->count < 64);
    assert_int_equal(get_be32(frame->data), frame->len);
    s->kinds[s->count] = frame->kind;
    s->ok[s->count] = frame->ok;
    s->lens[s->count++] = frame->len;
    s->bytes += frame->len;
    return s->answer;
}

static void put_frame(struct buffer *b, uint32_t program, uint32_t procedure, uint32_t type,
                      uint32_t status, const uint32_t *body, unsigned words)
{
    uint32_t head[7] = {28 + 4 * words, program, 1, procedure, type, 9, status};
    uint8_t raw[4];

    for (unsigned i = 0; i < 7 + words; i++) {
        put_be32(raw, i < 7 ? head[i] : body[i - 7]);
        assert_int_equal(buffer_append(b, raw, 4), 0);
    }
}

static void test_kinds_under_any_cut(void **state)
{
    static const uint32_t go[] = {0, 0, 0x21, 0}, cancelled[] = {0, 0, 0x21, 1};
    static const enum rpc_kind wanted[] = {
        RPC_KEEPALIVE_PING, RPC_KEEPALIVE_PONG, RPC_OTHER,         RPC_PREPARE_CALL,
        RPC_PREPARE_REPLY,  RPC_FINISH_CALL,    RPC_FINISH_CANCEL, RPC_FINISH_CANCEL,
        RPC_FINISH_REPLY,   RPC_FINISH_REPLY,   RPC_OTHER,         RPC_OTHER,
        RPC_OTHER,
    };
    struct buffer b = {0};

    (void)state;
    put_frame(&b, KEEPALIVE, 1, MESSAGE, 0, NULL, 0);
    put_frame(&b, KEEPALIVE, 2, MESSAGE, 0, NULL, 0);
    put_frame(&b, KEEPALIVE, 1, CALL, 0, NULL, 0);
    put_frame(&b, REMOTE, PREPARE, CALL, 0, go, 4);
    put_frame(&b, REMOTE, PREPARE, REPLY, 0, go, 2);
    put_frame(&b, REMOTE, FINISH, CALL, 0, go, 4);
    put_frame(&b, REMOTE, FINISH, CALL, 0, cancelled, 4);
    put_frame(&b, REMOTE, FINISH, CALL, 0, NULL, 0); /* without its argument: not a success */
    put_frame(&b, REMOTE, FINISH, REPLY, 0, go, 1);
    put_frame(&b, REMOTE, FINISH, REPLY, 1, go, 1);
    put_frame(&b, REMOTE, FINISH, 3, 0, go, 1); /* a stream packet */
    put_frame(&b, REMOTE, 11, CALL, 0, go, 1);
    put_frame(&b, 0x20008087, FINISH, CALL, 0, go, 4); /* the QEMU program has other procedures */
    for (size_t most = 1; most <= 200; most += most < 30 ? 1 : 50) {
        struct seen seen = {0};
        struct rpc_tap *tap;

        assert_int_equal(rpc_tap_new(on_frame, &seen, &tap), 0);
        for (size_t at = 0; at < buffer_len(&b); at += most)
            assert_int_equal(
                rpc_tap_feed(tap, buffer_data(&b) + at, MIN(most, buffer_len(&b) - at)), 0);
        assert_int_equal(seen.count, ARRAY_SIZE(wanted));
        assert_memory_equal(seen.kinds, wanted, sizeof(wanted));
        assert_int_equal(seen.bytes, buffer_len(&b));
        assert_true(seen.ok[8]);
        assert_false(seen.ok[9]);
        rpc_tap_free(tap);
    }
    buffer_done(&b);
}

static void expect_refused(uint32_t length)
{
    struct seen seen = {0};
    struct rpc_tap *tap;
    uint8_t raw[4];

    put_be32(raw, length);
    assert_int_equal(rpc_tap_new(on_frame, &seen, &tap), 0);
    assert_int_equal(rpc_tap_feed(tap, raw, 4), -EPROTO);
    assert_int_equal(seen.count, 0);
    rpc_tap_free(tap);
}

static void test_not_libvirt(void **state)
{
    (void)state;
    expect_refused(0);
    expect_refused(27);
    expect_refused(LIMIT_RPC_FRAME_BYTES + 1);
    expect_refused(UINT32_MAX);
    expect_refused(0x47455420); /* "GET " */
}

/* The owner's error ends the feed and comes back; frames after it are not handed out. */
static void test_owner_stops_it(void **state)
{
    struct seen seen = {.answer = -ECANCELED};
    struct buffer b = {0};
    struct rpc_tap *tap;

    (void)state;
    put_frame(&b, REMOTE, 1, CALL, 0, NULL, 0);
    put_frame(&b, REMOTE, 2, CALL, 0, NULL, 0);
    assert_int_equal(rpc_tap_new(on_frame, &seen, &tap), 0);
    assert_int_equal(rpc_tap_feed(tap, buffer_data(&b), buffer_len(&b)), -ECANCELED);
    assert_int_equal(seen.count, 1);
    rpc_tap_free(tap);
    rpc_tap_free(NULL);
    buffer_done(&b);
}

static void test_largest_frame(void **state)
{
    enum { PIECE = 1 << 20 };
    struct seen seen = {0};
    struct rpc_tap *tap;
    uint8_t *piece = calloc(1, PIECE);

    (void)state;
    assert_non_null(piece);
    put_be32(piece, LIMIT_RPC_FRAME_BYTES);
    assert_int_equal(rpc_tap_new(on_frame, &seen, &tap), 0);
    for (uint32_t at = 0; at < LIMIT_RPC_FRAME_BYTES; at += PIECE) {
        assert_int_equal(seen.count, 0);
        assert_int_equal(rpc_tap_feed(tap, piece, PIECE), 0);
    }
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.lens[0], LIMIT_RPC_FRAME_BYTES);
    rpc_tap_free(tap);
    free(piece);
}

static void test_pong_is_a_pong(void **state)
{
    uint8_t pong[RPC_KEEPALIVE_FRAME_BYTES];
    struct seen seen = {0};
    struct rpc_tap *tap;

    (void)state;
    rpc_put_keepalive_pong(pong);
    assert_int_equal(rpc_tap_new(on_frame, &seen, &tap), 0);
    assert_int_equal(rpc_tap_feed(tap, pong, sizeof(pong)), 0);
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.kinds[0], RPC_KEEPALIVE_PONG);
    rpc_tap_free(tap);
}

/* The flags are the last argument but one; nothing else changes. */
static void test_finish_is_made_to_pause(void **state)
{
    uint8_t frame[40], wanted[40];

    (void)state;
    memset(frame, 0xa5, sizeof(frame));
    put_be32(frame, sizeof(frame));
    put_be32(frame + 32, 0x8005); /* POSTCOPY and others */
    put_be32(frame + 36, 0);
    memcpy(wanted, frame, sizeof(frame));
    put_be32(wanted + 32, 0x8005 | 0x20);
    rpc_finish_set_paused(frame, sizeof(frame));
    assert_memory_equal(frame, wanted, sizeof(frame));
    rpc_finish_set_paused(frame, sizeof(frame));
    assert_memory_equal(frame, wanted, sizeof(frame));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kinds_under_any_cut), cmocka_unit_test(test_not_libvirt),
        cmocka_unit_test(test_owner_stops_it),      cmocka_unit_test(test_largest_frame),
        cmocka_unit_test(test_pong_is_a_pong),      cmocka_unit_test(test_finish_is_made_to_pause),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
