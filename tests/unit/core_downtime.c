/* SPDX-License-Identifier: Apache-2.0 */
/* The downtime's parts: they add up to the whole, and nothing a peer reports makes one larger than that. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/move/downtime.h"

enum { MS = 1000 * 1000 };

static uint64_t sum_of(const struct downtime_parts *p)
{
    return p->stop_us + p->tail_us + p->flush_us + p->load_us + p->reply_us + p->commit_us +
           p->resume_us;
}

static const struct downtime_marks marks = {.stopped_ns = 1000 * (uint64_t)MS,
                                            .ram_end_ns = 1030 * (uint64_t)MS,
                                            .reply_ns = 1200 * (uint64_t)MS,
                                            .commit_ns = 1205 * (uint64_t)MS,
                                            .resumed_word_ns = 1325 * (uint64_t)MS};

static void test_a_move_of_100_ms_rtt(void **state)
{
    struct downtime_spans spans = {.flush_us = 10000, .load_us = 40000, .resume_us = 15000};
    struct downtime_parts p;

    (void)state;
    assert_true(downtime_split(&marks, &spans, 100000, &p));
    assert_int_equal(p.stop_us, 30000);
    assert_int_equal(p.flush_us, 10000);
    assert_int_equal(p.load_us, 40000);
    assert_int_equal(p.tail_us, 70000);  /* 170 to the reply, less the way back, flush, load */
    assert_int_equal(p.reply_us, 55000); /* the way back, and 5 */
    assert_int_equal(p.resume_us, 15000);
    assert_int_equal(p.commit_us, 55000); /* 120 to the word, less its way and the resume */
    assert_int_equal(sum_of(&p), 275000); /* 325 less the way of the word */
}

static void test_reports_beyond_reason(void **state)
{
    struct downtime_spans spans = {
        .flush_us = UINT64_C(3600000000), .load_us = UINT64_C(3600000000), .resume_us = 0};
    struct downtime_parts p;

    (void)state;
    assert_true(downtime_split(&marks, &spans, 100000, &p));
    assert_int_equal(p.flush_us, 120000);
    assert_int_equal(p.load_us, 0);
    assert_int_equal(p.tail_us, 0);
    assert_int_equal(sum_of(&p), 275000);
    assert_true(
        downtime_split(&marks, &spans, UINT64_C(10000000), &p)); /* an RTT longer than all */
    assert_int_equal(p.flush_us, 0);
}

static void test_missing_moments(void **state)
{
    struct downtime_target t = {.complete_ns = 5 * (uint64_t)MS,
                                .answered_ns = 9 * (uint64_t)MS,
                                .committed_ns = 20 * (uint64_t)MS};
    struct downtime_marks some = marks;
    struct downtime_spans spans = {0};
    struct downtime_parts p;

    (void)state;
    assert_false(downtime_spans_of(&t, &spans)); /* restarted before it resumed */
    t.resumed_ns = 23 * (uint64_t)MS;
    assert_true(downtime_spans_of(&t, &spans));
    assert_int_equal(spans.flush_us, 0);
    assert_int_equal(spans.load_us, 4000);
    assert_int_equal(spans.resume_us, 3000);
    t.tail_waits_ns = 2 * (uint64_t)MS;
    t.disks_done_ns = 4 * (uint64_t)MS;
    assert_true(downtime_spans_of(&t, &spans));
    assert_int_equal(spans.flush_us, 2000);
    some.reply_ns = 0;
    assert_false(downtime_split(&some, &spans, 100, &p));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_move_of_100_ms_rtt),
        cmocka_unit_test(test_reports_beyond_reason),
        cmocka_unit_test(test_missing_moments),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
