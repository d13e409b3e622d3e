/* SPDX-License-Identifier: Apache-2.0 */
/* A compressor's level: down when it is what the copy waits for, up when the link is, and never below what pays. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/move/codec_level.h"

enum { LEAST = -5, MODEST = 3, MOST = 7, LOOKS_PER_S = 10 };

struct threads {
    struct codec_level level;
    uint64_t now_ns, work_ns;
};

static void new_threads(struct threads *t, int level)
{
    *t = (struct threads){.level = {.level = level, .least = LEAST, .modest = MODEST, .most = MOST},
                          .now_ns = 5 * NS_PER_S};
}

/* @full of a second's looks find the link full; @busy percent of it they work. */
static void seconds(struct threads *t, unsigned count, unsigned busy, unsigned full, unsigned moves)
{
    for (unsigned i = 0; i < count * LOOKS_PER_S; i++) {
        t->now_ns += NS_PER_S / LOOKS_PER_S;
        t->work_ns += NS_PER_S / LOOKS_PER_S / 100 * busy;
        codec_level_look(&t->level, t->now_ns, t->work_ns, i % LOOKS_PER_S < full, moves);
    }
}

static void busy_threads_go_down_fast_and_no_further_than_pays(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, MOST);
    seconds(&t, 2, 95, 0, 1);
    assert_int_equal(t.level.level, MOST - 2);
    seconds(&t, 30, 100, 0, 1);
    assert_int_equal(t.level.level, MODEST);
}

static void a_link_that_is_full_now_and_then_takes_single_steps(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, MOST);
    seconds(&t, 2, 95, 3, 1);
    assert_int_equal(t.level.level, MOST - 1);
}

static void several_moves_share(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, MOST);
    seconds(&t, 1, 50, 5, 3);
    assert_int_equal(t.level.level, MOST / 3);
    seconds(&t, 30, 100, 0, 3);
    assert_int_equal(t.level.level, LEAST);
    seconds(&t, 2, 100, 0, 1); /* the last one left */
    assert_int_equal(t.level.level, MODEST);
}

static void idle_threads_behind_a_full_link_go_up(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, MODEST);
    seconds(&t, 3, 30, LOOKS_PER_S, 1);
    assert_in_range(t.level.level, MODEST + 2, MODEST + 3);
    seconds(&t, 30, 30, LOOKS_PER_S, 1);
    assert_int_equal(t.level.level, MOST);
}

static void zero_is_no_level(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, 1);
    for (unsigned i = 0; i < 8; i++) {
        seconds(&t, 1, 100, 3, 2);
        assert_int_not_equal(t.level.level, 0);
    }
    for (unsigned i = 0; i < 12; i++) {
        seconds(&t, 1, 10, LOOKS_PER_S, 2);
        assert_int_not_equal(t.level.level, 0);
    }
    assert_int_equal(t.level.level, MOST / 2);
}

static void who_waits_for_neither_stays(void **state)
{
    struct threads t;

    (void)state;
    new_threads(&t, 5);
    seconds(&t, 20, 60, LOOKS_PER_S, 1);
    seconds(&t, 20, 60, 0, 1);
    seconds(&t, 20, 95, LOOKS_PER_S, 1);
    assert_int_equal(t.level.level, 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(busy_threads_go_down_fast_and_no_further_than_pays),
        cmocka_unit_test(a_link_that_is_full_now_and_then_takes_single_steps),
        cmocka_unit_test(several_moves_share),
        cmocka_unit_test(idle_threads_behind_a_full_link_go_up),
        cmocka_unit_test(zero_is_no_level),
        cmocka_unit_test(who_waits_for_neither_stays),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
