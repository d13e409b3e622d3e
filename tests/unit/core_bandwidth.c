/* SPDX-License-Identifier: Apache-2.0 */
/* Rates and timetables as operators write them, and every way to write them wrongly. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/link/bandwidth.h"
#include "core/base/macros.h"

static void test_rates(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes_s;
    } good[] = {
        {"200M", 25000000},
        {"200Mbit", 25000000},
        {"200Mbit/s", 25000000},
        {"1.5G", 187500000},
        {"25MB", 25000000},
        {"25MB/s", 25000000},
        {"1MiB", 1048576},
        {"1MiB/s", 1048576},
        {"64k", 8000},
        {"8000000", 1000000},
        {"off", 0},
        {"OFF", 0},
        {"unlimited", 0},
        {"0", 0},
        {"512KiB", 524288},
        {"1T", 125000000000},
    };
    static const char *const bad[] = {"",     "fast", "-1M",  "200X", "200 M", "1e",  "inf",  "nan",
                                      "100T", "1",    "7999", "M",    "200M ", "+5M", "5Mb/h"};
    uint64_t rate;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(good); i++) {
        assert_int_equal(bandwidth_parse_rate(good[i].text, &rate), 0);
        assert_int_equal(rate, good[i].bytes_s);
    }
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(bandwidth_parse_rate(bad[i], &rate), -EINVAL);
}

static uint64_t at(const struct timetable *t, int day, int hour, int minute)
{
    struct tm local = {.tm_wday = day, .tm_hour = hour, .tm_min = minute};

    return timetable_rate(t, &local) * 8 / 1000000;
}

static void test_office_hours(void **state)
{
    struct timetable t;

    (void)state;
    assert_int_equal(timetable_parse("08:00,200M 18:00,off", &t), 0);
    for (int day = 0; day < 7; day++) {
        assert_int_equal(at(&t, day, 7, 59), 0);
        assert_int_equal(at(&t, day, 8, 0), 200);
        assert_int_equal(at(&t, day, 17, 59), 200);
        assert_int_equal(at(&t, day, 18, 0), 0);
        assert_int_equal(at(&t, day, 0, 0), 0);
    }
}

static void test_days(void **state)
{
    struct timetable t;

    (void)state;
    assert_int_equal(timetable_parse("Mon-Fri-08:00,100M Mon-Fri-18:00,400M Sat-00:00,off", &t), 0);
    assert_int_equal(at(&t, 1, 9, 0), 100);
    assert_int_equal(at(&t, 5, 20, 0), 400);
    assert_int_equal(at(&t, 6, 0, 0), 0);
    assert_int_equal(at(&t, 0, 23, 59), 0); /* Sunday: Saturday's word holds */
    assert_int_equal(at(&t, 1, 7, 0), 0);   /* and Monday morning */
    assert_int_equal(at(&t, 2, 3, 0), 400); /* Tuesday night: Monday evening's */
    assert_int_equal(timetable_parse("Sat-Mon-10:00,50M Tue-10:00,off", &t),
                     0); /* over the week's end */
    assert_int_equal(at(&t, 0, 12, 0), 50);
    assert_int_equal(at(&t, 3, 12, 0), 0);
    assert_int_equal(at(&t, 6, 9, 0), 0);
    /* A single entry of a single day holds the whole week, also just before it comes round. */
    assert_int_equal(timetable_parse("Wed-12:00,30M", &t), 0);
    assert_int_equal(at(&t, 3, 11, 59), 30);
    assert_int_equal(at(&t, 3, 12, 0), 30);
}

static void test_single_rate(void **state)
{
    struct timetable t;

    (void)state;
    assert_int_equal(timetable_parse("300M", &t), 0);
    assert_int_equal(at(&t, 4, 4, 4), 300);
    assert_int_equal(timetable_parse("off", &t), 0);
    assert_int_equal(at(&t, 4, 4, 4), 0);
}

static void test_bad_timetables(void **state)
{
    static const char *const bad[] = {
        "",           "8:00,200M",      "08:00",        "08:00,",  "24:00,200M",
        "08:60,200M", "08:00,200M foo", "Foo-08:00,1M", "Mon-,1M", "Mon-Tue-Wed-08:00,1M",
        "08:00;200M", "08-00,200M"};
    struct timetable t;
    char many[512] = "";

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++)
        assert_int_equal(timetable_parse(bad[i], &t), -EINVAL);
    for (int i = 0; i <= TIMETABLE_ENTRIES_MAX; i++)
        strcat(many, "08:00,200M ");
    assert_int_equal(timetable_parse(many, &t), -E2BIG);
}

static void test_words(void **state)
{
    char buf[32];

    (void)state;
    assert_string_equal(bandwidth_words(25000000, buf, sizeof(buf)), "200 Mbit/s");
    assert_string_equal(bandwidth_words(125000, buf, sizeof(buf)), "1.00 Mbit/s");
    assert_string_equal(bandwidth_words(0, buf, sizeof(buf)), "no limit");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rates),          cmocka_unit_test(test_office_hours),
        cmocka_unit_test(test_days),           cmocka_unit_test(test_single_rate),
        cmocka_unit_test(test_bad_timetables), cmocka_unit_test(test_words),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
