/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Who is sent first: one session, pulled frame by frame, its frames read as they leave.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/wire.h"
#include "netlink/session.h"

enum { WINDOW_BYTES = 64 * 1024 * 1024 };

static void on_stream(void *user, struct stream *stream)
{
    (void)user;
    (void)stream;
}

static void on_closed(void *user, const struct error *why)
{
    (void)user;
    (void)why;
    fail();
}

static const struct session_ops ops = {.on_stream = on_stream, .on_closed = on_closed};

static struct session *new_session(struct stripe **stripe)
{
    struct session_config config = {.initiator = true,
                                    .window_bytes = WINDOW_BYTES,
                                    .peer_window_bytes = WINDOW_BYTES,
                                    .unsent_bytes = WINDOW_BYTES};
    uint8_t out[WIRE_FRAME_MAX_BYTES];
    struct session *s;

    assert_int_equal(session_new(&s, &config, &ops, NULL), 0);
    assert_int_equal(session_stripe_add(s, NS_PER_S, stripe), 0);
    session_stripe_pull(s, *stripe, out, sizeof(out), NS_PER_S); /* the first ping */
    return s;
}

static struct stream *open_with(struct session *s, enum care care, size_t bytes)
{
    uint8_t *data = calloc(1, bytes + 1);
    struct stream *st;

    assert_int_equal(stream_open(s, care, &st), 0);
    assert_int_equal(stream_write(st, data, bytes), 0);
    free(data);
    return st;
}

/* Pulls one data frame; false when there is none. */
static bool pull_one(struct session *s, struct stripe *stripe, struct wire_header *ret)
{
    static uint8_t out[WIRE_FRAME_MAX_BYTES];
    const char *why;
    size_t n = session_stripe_pull(s, stripe, out, sizeof(out), NS_PER_S);

    if (n == 0)
        return false;
    assert_int_equal(wire_get_header(out, ret, &why), 0);
    assert_int_equal(ret->type, WIRE_DATA);
    assert_int_equal(n, WIRE_HEADER_BYTES + ret->length);
    return true;
}

static void test_urgent_before_bulk(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    struct wire_header h;
    struct stream *bulk = open_with(s, CARE_BULK, 5 * LIMIT_FRAME_PAYLOAD_BYTES), *urgent;

    (void)state;
    assert_true(pull_one(s, stripe, &h));
    assert_int_equal(h.stream, stream_id(bulk));
    /* Comes last, goes next: nothing that was queued before stands in its way. */
    urgent = open_with(s, CARE_CONTROL, 100);
    assert_true(pull_one(s, stripe, &h));
    assert_int_equal(h.stream, stream_id(urgent));
    assert_int_equal(h.care, CARE_CONTROL);
    assert_int_equal(h.length, 100);
    assert_true(pull_one(s, stripe, &h));
    assert_int_equal(h.stream, stream_id(bulk));
    session_free(s);
}

static void test_order_of_all_classes(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    struct wire_header h;

    (void)state;
    for (int c = CARE_CLASSES - 1; c >= 0; c--)
        open_with(s, (enum care)c, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    for (int c = 0; c < CARE_CLASSES; c++) {
        for (int i = 0; i < 2; i++) {
            assert_true(pull_one(s, stripe, &h));
            assert_int_equal(h.care, c);
        }
    }
    assert_false(pull_one(s, stripe, &h));
    assert_false(session_wants_output(s, NS_PER_S));
    session_free(s);
}

static void test_care_may_change(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    struct stream *a = open_with(s, CARE_RAM, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    struct stream *b = open_with(s, CARE_BULK, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    struct wire_header h;

    (void)state;
    assert_true(pull_one(s, stripe, &h));
    assert_int_equal(h.stream, stream_id(a));
    stream_set_care(b, CARE_GUEST);
    assert_true(pull_one(s, stripe, &h));
    assert_int_equal(h.stream, stream_id(b));
    session_free(s);
}

/* With more control than the link can carry, each lower class still gets its frame now and then. */
static void test_nobody_starves(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    unsigned served[CARE_CLASSES] = {0}, waited[CARE_CLASSES] = {0}, longest[CARE_CLASSES] = {0};
    struct wire_header h;

    (void)state;
    for (int c = 0; c < CARE_CLASSES; c++)
        open_with(s, (enum care)c, 400 * LIMIT_FRAME_PAYLOAD_BYTES);
    for (int i = 0; i < 300; i++) {
        assert_true(pull_one(s, stripe, &h));
        for (int c = 0; c < CARE_CLASSES; c++) {
            waited[c] = c == h.care ? 0 : waited[c] + 1;
            longest[c] = MAX(longest[c], waited[c]);
        }
        served[h.care]++;
    }
    for (int c = 1; c < CARE_CLASSES; c++) {
        assert_true(served[c] >= 10);
        assert_true(longest[c] <= 25); /* the floor is one frame in about 20 */
    }
    assert_true(served[CARE_CONTROL] >= 250);
    session_free(s);
}

static void test_streams_of_a_class_take_turns(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    unsigned served[8] = {0};
    struct wire_header h;

    (void)state;
    for (int i = 0; i < 3; i++)
        open_with(s, CARE_BULK, 10 * LIMIT_FRAME_PAYLOAD_BYTES);
    for (int i = 0; i < 9; i++) {
        assert_true(pull_one(s, stripe, &h));
        served[h.stream]++;
    }
    assert_int_equal(served[1], 3);
    assert_int_equal(served[3], 3);
    assert_int_equal(served[5], 3);
    session_free(s);
}

/* Without credit a stream waits, and the others do not wait with it. */
static void test_no_credit_no_frame(void **state)
{
    struct stripe *stripe;
    struct session *s = new_session(&stripe);
    struct wire_header h;
    struct stream *a, *b;
    uint64_t sent = 0;

    (void)state;
    session_set_peer_window(s, 100000);
    a = open_with(s, CARE_CONTROL, 1000000);
    b = open_with(s, CARE_BULK, 10);
    while (pull_one(s, stripe, &h) && h.stream == stream_id(a))
        sent += h.length;
    assert_int_equal(sent, 100000);
    assert_int_equal(h.stream, stream_id(b));
    assert_false(session_wants_output(s, NS_PER_S));
    session_free(s);
}

/* After a loss the oldest frames go first, and only those that were not acknowledged whole. */
static void test_lost_ranges_are_sent_again(void **state)
{
    struct stripe *one, *two;
    struct session *s = new_session(&one);
    struct wire_header h;
    struct stream *st = open_with(s, CARE_RAM, 4 * LIMIT_FRAME_PAYLOAD_BYTES);
    struct wire_header ack = {.type = WIRE_ACK, .length = 8, .stream = stream_id(st)};
    uint8_t frame[WIRE_HEADER_BYTES + 8], out[WIRE_FRAME_MAX_BYTES];
    struct session_stats stats;

    (void)state;
    for (int i = 0; i < 3; i++)
        assert_true(pull_one(s, one, &h));
    /* In the middle of the second frame, as after a peer's partial delivery. */
    ack.offset = LIMIT_FRAME_PAYLOAD_BYTES + 1000;
    wire_put_header(frame, &ack);
    put_be64(frame + WIRE_HEADER_BYTES, ack.offset + WINDOW_BYTES);
    assert_int_equal(session_stripe_feed(s, one, frame, sizeof(frame), NS_PER_S), 0);
    session_stripe_lost(s, one);
    assert_int_equal(session_stripe_add(s, NS_PER_S, &two), 0);
    session_stripe_pull(s, two, out, sizeof(out),
                        NS_PER_S); /* a ping, and how far the stream has come */
    assert_true(pull_one(s, two, &h));
    assert_int_equal(h.offset, LIMIT_FRAME_PAYLOAD_BYTES);
    assert_int_equal(h.length, LIMIT_FRAME_PAYLOAD_BYTES);
    assert_true(pull_one(s, two, &h));
    assert_int_equal(h.offset, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    assert_true(pull_one(s, two, &h));
    assert_int_equal(h.offset, 3 * LIMIT_FRAME_PAYLOAD_BYTES);
    assert_false(pull_one(s, two, &h));
    session_get_stats(s, &stats);
    assert_int_equal(stats.resent_bytes, 2 * LIMIT_FRAME_PAYLOAD_BYTES);
    session_free(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_urgent_before_bulk),
        cmocka_unit_test(test_order_of_all_classes),
        cmocka_unit_test(test_care_may_change),
        cmocka_unit_test(test_nobody_starves),
        cmocka_unit_test(test_streams_of_a_class_take_turns),
        cmocka_unit_test(test_no_credit_no_frame),
        cmocka_unit_test(test_lost_ranges_are_sent_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
