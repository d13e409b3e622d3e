/* SPDX-License-Identifier: Apache-2.0 */
/* What is predicted of a move: it follows link, guest and distance, and says when memory will not converge. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/operations/prediction.h"

#define MIB (UINT64_C(1) << 20)

/* The demo's VM over its line. */
static const struct prediction_input demo = {
    .disk_bytes = 600 * MIB,
    .compressed = true,
    .memory_bytes = 270 * MIB,
    .link_bytes_s = 110 * MIB,
    .rtt_us = 100000,
    .dirty_bytes_s = 20 * MIB,
    .dirty_known = true,
    .disk_write_bytes_s = 400 * 1024,
    .stun_max_percent = 95,
    .resend_percent = 85,
    .downtime_max_ms = 500,
};

static struct prediction predict(struct prediction_input in)
{
    struct prediction p;

    prediction_make(&in, &p);
    return p;
}

static void test_demo(void **state)
{
    struct prediction p = predict(demo);

    (void)state;
    assert_true(p.known);
    assert_int_equal(p.verdict, PREDICTION_CONVERGES);
    assert_int_equal(p.stun_percent, 0);
    assert_in_range(p.total_ms, 8000, 16000);
    assert_in_range(p.downtime_ms, 150, 400);
    assert_in_range(p.bytes, 300 * MIB, 550 * MIB);
    assert_int_equal(p.total_ms, p.prepare_ms + p.disk_ms + p.memory_ms + p.downtime_ms);
}

/* Without compression what is sent is what there is. */
static void test_more_takes_longer(void **state)
{
    struct prediction_input plain = demo, in;
    struct prediction base, other;

    (void)state;
    plain.compressed = false;
    base = predict(plain);
    assert_in_range(base.bytes, 600 * MIB, 900 * MIB);
    in = plain;
    in.disk_bytes *= 4;
    other = predict(in);
    assert_true(other.disk_ms > 3 * base.disk_ms && other.bytes > 3 * base.bytes);
    in = plain;
    in.rtt_us *= 2;
    other = predict(in);
    assert_true(other.prepare_ms > base.prepare_ms && other.downtime_ms > base.downtime_ms + 100);
    in = plain;
    in.link_bytes_s /= 10;
    other = predict(in);
    assert_true(other.disk_ms > 8 * base.disk_ms);
    in = plain;
    in.disk_write_bytes_s = 50 * MIB; /* half of the link is the guest's */
    other = predict(in);
    assert_true(other.disk_ms > base.disk_ms * 3 / 2 && other.bytes > base.bytes + 200 * MIB);
}

static void test_compression_helps_where_the_line_is_slow(void **state)
{
    struct prediction_input in = demo, plain = demo;
    struct prediction packed;

    (void)state;
    plain.compressed = false;
    assert_true(predict(in).disk_ms > predict(plain).disk_ms); /* processors decide there */
    assert_true(predict(plain).bytes > predict(in).bytes + 250 * MIB);
    in.link_bytes_s = plain.link_bytes_s /= 10;
    packed = predict(in);
    assert_in_range(predict(plain).disk_ms, packed.disk_ms * 3 / 2, packed.disk_ms * 5 / 2);
    assert_true(predict(plain).bytes > packed.bytes + 250 * MIB);
}

static void test_verdicts(void **state)
{
    struct prediction_input in = demo;
    struct prediction p;

    (void)state;
    in.dirty_bytes_s = 400 * MIB;
    p = predict(in);
    assert_int_equal(p.verdict, PREDICTION_NEEDS_STUN);
    assert_in_range(p.stun_percent, 70, 95);
    in.stun_max_percent = p.stun_percent - 5; /* it takes longer, and converges */
    p = predict(in);
    assert_int_equal(p.verdict, PREDICTION_NEEDS_STUN);
    assert_int_equal(p.stun_percent, in.stun_max_percent);
    in.stun_max_percent = 60;
    assert_int_equal(predict(in).verdict, PREDICTION_CANNOT);
    in.stun_max_percent = 0;
    assert_int_equal(predict(in).verdict, PREDICTION_CANNOT);
    in.dirty_bytes_s = 1 * MIB; /* no stun is needed where none is allowed */
    assert_int_equal(predict(in).verdict, PREDICTION_CONVERGES);
    in = demo;
    in.dirty_known = false;
    assert_int_equal(predict(in).verdict, PREDICTION_UNKNOWN);
    assert_true(predict(in).known); /* of what is known */
}

/* Who rewrites the same again and again dirties no more in three seconds than that; a second's rate says nothing of it. */
static void test_a_working_set_ends(void **state)
{
    struct prediction_input slow = demo, in;
    struct prediction endless, bounded;

    (void)state;
    slow.link_bytes_s = 25 * MIB;
    slow.dirty_bytes_s = 22 * MIB;
    endless = predict(slow);
    in = slow;
    in.dirty_long_s = 3;
    in.dirty_long_bytes = 66 * MIB; /* no end is seen in it */
    assert_in_range(predict(in).memory_ms, endless.memory_ms * 9 / 10, endless.memory_ms * 11 / 10);
    in.dirty_long_bytes = 30 * MIB; /* 32 MiB in the end */
    bounded = predict(in);
    assert_int_equal(bounded.verdict, endless.verdict);
    assert_true(bounded.memory_ms < endless.memory_ms * 9 / 10);
    assert_true(bounded.bytes < endless.bytes);
    in.dirty_long_bytes = 10 * MIB; /* less than in one second: a sample's error */
    assert_true(predict(in).known);
    assert_true(predict(in).memory_ms < endless.memory_ms * 11 / 10);
}

static void test_what_cannot_be_told(void **state)
{
    struct prediction_input in = demo;
    struct prediction p;

    (void)state;
    in.link_bytes_s = 0;
    p = predict(in);
    assert_false(p.known);
    assert_int_equal(p.verdict, PREDICTION_UNKNOWN);
    in = demo;
    in.disk_write_bytes_s = 200 * MIB; /* more than the link */
    p = predict(in);
    assert_false(p.known);
    assert_int_equal(p.verdict, PREDICTION_CANNOT);
    in = (struct prediction_input){.link_bytes_s = 1};
    p = predict(in);
    assert_int_equal(p.bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_demo),
        cmocka_unit_test(test_more_takes_longer),
        cmocka_unit_test(test_compression_helps_where_the_line_is_slow),
        cmocka_unit_test(test_verdicts),
        cmocka_unit_test(test_a_working_set_ends),
        cmocka_unit_test(test_what_cannot_be_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
