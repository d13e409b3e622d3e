/* SPDX-License-Identifier: Apache-2.0 */
/* --at: which moment "HH:MM" names, today or tomorrow, over changes of the clocks; and what names none. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "core/move/move_source.h"

static int64_t wall_ms(int year, int month, int day, int hour, int minute, int second)
{
    struct tm t = {.tm_year = year - 1900,
                   .tm_mon = month - 1,
                   .tm_mday = day,
                   .tm_hour = hour,
                   .tm_min = minute,
                   .tm_sec = second,
                   .tm_isdst = -1};

    return (int64_t)mktime(&t) * 1000;
}

static int set_clock(void **state)
{
    (void)state;
    setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
    tzset();
    return 0;
}

static void expect_moment(const char *text, int64_t now_ms, int64_t wanted_ms)
{
    int64_t found_ms = 0;

    assert_int_equal(move_source_parse_time(text, now_ms, &found_ms), 0);
    assert_int_equal(found_ms, wanted_ms);
}

static void test_today_and_tomorrow(void **state)
{
    (void)state;
    expect_moment("14:30", wall_ms(2026, 6, 1, 14, 29, 59), wall_ms(2026, 6, 1, 14, 30, 0));
    expect_moment("14:30", wall_ms(2026, 6, 1, 14, 30, 0), wall_ms(2026, 6, 2, 14, 30, 0));
    expect_moment("00:00", wall_ms(2026, 12, 31, 23, 0, 0), wall_ms(2027, 1, 1, 0, 0, 0));
    expect_moment("23:59", wall_ms(2026, 6, 1, 0, 0, 0), wall_ms(2026, 6, 1, 23, 59, 0));
}

static void test_changes_of_the_clocks(void **state)
{
    (void)state;
    /* The evening before the clocks go forward (29 March 2026): tomorrow is 23 hours away. */
    expect_moment("12:00", wall_ms(2026, 3, 28, 13, 0, 0), wall_ms(2026, 3, 29, 12, 0, 0));
    assert_int_equal(wall_ms(2026, 3, 29, 12, 0, 0) - wall_ms(2026, 3, 28, 13, 0, 0),
                     INT64_C(22) * 3600 * 1000);
    /* And before they go back (25 October 2026). */
    expect_moment("12:00", wall_ms(2026, 10, 24, 13, 0, 0), wall_ms(2026, 10, 25, 12, 0, 0));
}

static void test_no_times(void **state)
{
    static const char *const wrong[] = {"",      "1",     "24:00",  "12:60", "1:234",
                                        "12-30", "12:3",  "12:300", "-1:00", "+1:00",
                                        " 1:00", "12:3a", "::::::", "12:3:"};
    int64_t untouched = 7;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
        assert_int_equal(move_source_parse_time(wrong[i], 0, &untouched), -EINVAL);
    assert_int_equal(untouched, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_today_and_tomorrow),
        cmocka_unit_test(test_changes_of_the_clocks),
        cmocka_unit_test(test_no_times),
    };

    return cmocka_run_group_tests(tests, set_clock, NULL);
}
