/* SPDX-License-Identifier: Apache-2.0 */
/* The sites' agreement on compressed disk streams: the smaller window, and none unless both want it and understand it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/disk/disk_codec.h"
#include "storage/mirror_pack.h"

static struct config on = {.link = {.compress = true}}, off;

static void both_want_it(void **state)
{
    (void)state;
    for (unsigned disks = 1; disks <= 16; disks++) {
        json_t *offer = disk_codec_offer(&on, disks, 1), *answer;
        struct disk_codec target, source;

        assert_non_null(offer);
        answer = disk_codec_answer(&on, disks, offer, &target);
        assert_non_null(answer);
        disk_codec_agree(&on, disks, answer, &source);
        assert_true(source.used && target.used);
        assert_int_equal(source.window_log, target.window_log);
        assert_int_equal(source.lanes, target.lanes);
        assert_true(source.lanes >= 1 && source.lanes <= MIRROR_LANES_MOST);
        assert_true(source.lanes == 1 || source.lanes * disks <= disk_codec_threads());
        assert_int_equal(source.window_log, mirror_pack_window_log(disks * source.lanes));
        json_decref(offer);
        json_decref(answer);
    }
}

static void a_smaller_window_is_taken(void **state)
{
    json_t *offer = json_pack("{s:i, s:i}", "version", 1, "window_log", 21), *answer;
    struct disk_codec target, source;

    (void)state;
    answer = disk_codec_answer(&on, 1, offer, &target);
    assert_non_null(answer);
    assert_int_equal(target.window_log, 21);
    disk_codec_agree(&on, 1, answer, &source);
    assert_true(source.used);
    assert_int_equal(source.window_log, 21);
    json_decref(offer);
    json_decref(answer);
}

/* A target that knows no lanes; a source that asks for more than anyone has; a target that gives more than was asked. */
static void lanes_are_agreed_upon(void **state)
{
    json_t *old = json_pack("{s:i, s:i}", "version", 1, "window_log", 25), *answer;
    json_t *many = json_pack("{s:i, s:i, s:i}", "version", 1, "window_log", 20, "lanes", 1000);
    struct disk_codec c;

    (void)state;
    disk_codec_agree(&on, 1, old, &c);
    assert_true(c.used);
    assert_int_equal(c.lanes, 1);
    answer = disk_codec_answer(&on, 1, many, &c);
    assert_int_equal(c.lanes, MIRROR_LANES_MOST);
    assert_int_equal(json_integer_value(json_object_get(answer, "lanes")), MIRROR_LANES_MOST);
    json_decref(answer);
    answer = disk_codec_answer(&on, 16, many, &c);
    assert_int_equal(c.lanes, 1);
    json_decref(answer);
    disk_codec_agree(&on, 16, many, &c);
    assert_false(c.used);
    json_decref(old);
    json_decref(many);
    many = disk_codec_offer(&on, 1, 8); /* beside seven other moves */
    assert_int_equal(json_integer_value(json_object_get(many, "lanes")), 1);
    json_decref(many);
}

static void either_says_no(void **state)
{
    json_t *offer = disk_codec_offer(&on, 2, 1);
    struct disk_codec c = {.used = true};

    (void)state;
    assert_null(disk_codec_offer(&off, 2, 1));
    assert_null(disk_codec_offer(&on, 0, 1));
    assert_null(disk_codec_answer(&off, 2, offer, &c));
    assert_false(c.used);
    c.used = true;
    assert_null(disk_codec_answer(&on, 2, NULL, &c)); /* a source that knows nothing of it */
    assert_false(c.used);
    c.used = true;
    disk_codec_agree(&on, 2, NULL, &c); /* such a target */
    assert_false(c.used);
    c.used = true;
    disk_codec_agree(&off, 2, offer, &c);
    assert_false(c.used);
    json_decref(offer);
}

static void nonsense_is_a_no(void **state)
{
    static const char *const texts[] = {
        "[]",
        "{\"version\": 2, \"window_log\": 22}",
        "{\"version\": 1}",
        "{\"version\": 1, \"window_log\": 19}",
        "{\"version\": 1, \"window_log\": 26}",
        "{\"version\": 1, \"window_log\": -1}",
        "{\"version\": 1, \"window_log\": 4294967318}",
        "{\"version\": 1, \"window_log\": \"22\"}",
        "{\"version\": 1, \"window_log\": 22, \"lanes\": 0}",
        "{\"version\": 1, \"window_log\": 22, \"lanes\": -1}",
        "{\"version\": 1, \"window_log\": 22, \"lanes\": \"2\"}",
    };
    struct disk_codec c;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(texts); i++) {
        json_t *json = json_loads(texts[i], 0, NULL);

        assert_non_null(json);
        assert_null(disk_codec_answer(&on, 1, json, &c));
        assert_false(c.used);
        disk_codec_agree(&on, 1, json, &c);
        assert_false(c.used);
        json_decref(json);
    }
    /* More than this source would give so many disks. */
    json_t *large = json_pack("{s:i, s:i}", "version", 1, "window_log", 25);

    disk_codec_agree(&on, 16, large, &c);
    assert_false(c.used);
    json_decref(large);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_want_it),          cmocka_unit_test(a_smaller_window_is_taken),
        cmocka_unit_test(lanes_are_agreed_upon), cmocka_unit_test(either_says_no),
        cmocka_unit_test(nonsense_is_a_no),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
