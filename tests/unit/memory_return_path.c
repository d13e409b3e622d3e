/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU at the target says back, under any cut: PONG 3 behind the package is found, nothing else is taken for it; and
 * what comes before its last word passes, that word does not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "memory/return_path.h"

/* PONG 1 and 2, a request of pages that holds what looks like PONG 3, PONG 3, and what follows. */
static const uint8_t answers[] = {
    0, 2, 0, 4,  0, 0, 0, 1,                         /* PONG 1 */
    0, 4, 0, 20, 0, 2, 0, 4, 0, 0, 0, 3, 0, 0, 0, 0, /* REQ_PAGES */
    0, 0, 0, 0,  0, 0, 0, 0,                         /* its rest */
    0, 3, 0, 4,  0, 0, 0, 3,                         /* another kind, with a 3 */
    0, 2, 0, 4,  0, 0, 0, 2,                         /* PONG 2 */
    0, 2, 0, 0,                                      /* a PONG without a number */
    0, 2, 0, 4,  0, 0, 0, 3,                         /* PONG 3 */
    9, 9, 9,
};
enum { FOUND_AT = sizeof(answers) - 3 };

static void test_under_any_cut(void **state)
{
    (void)state;
    for (size_t most = 1; most <= sizeof(answers); most++) {
        struct return_path r = {0};

        for (size_t at = 0; at < sizeof(answers); at += most) {
            size_t n = MIN(most, sizeof(answers) - at);

            assert_int_equal(return_path_feed(&r, answers + at, n), at + n >= FOUND_AT);
        }
    }
}

static void test_nothing_else(void **state)
{
    struct return_path r = {0};

    (void)state;
    assert_false(return_path_feed(&r, answers, FOUND_AT - 1));
    assert_false(return_path_feed(&r, answers, 0));
    assert_true(return_path_feed(&r, answers + FOUND_AT - 1, 1));
}

/* Bytes go on as a socket takes them: @most at a time, offered again from the first that was not taken. */
static size_t pass_on(const uint8_t *data, size_t len, size_t most)
{
    struct return_path r = {0};
    size_t at = 0;

    while (at < len) {
        size_t may = return_path_before_shut(&r, at, data + at, len - at);

        if (may == 0)
            break;
        assert_true(may <= len - at);
        at += MIN(may, most);
    }
    return at;
}

static void test_last_word_stays(void **state)
{
    uint8_t said[sizeof(answers) + 8];
    size_t len = FOUND_AT;

    (void)state;
    memcpy(said, answers, len);
    memcpy(said + len, (const uint8_t[]){0, 1, 0, 4, 0, 0, 0, 0}, 8);
    for (size_t most = 1; most <= len + 8; most++) {
        assert_int_equal(pass_on(said, len, most), len);
        /* A type's first byte tells nothing. */
        assert_int_equal(pass_on(said, len + 8, most), len + 1);
    }
}

static void test_last_word_in_pieces(void **state)
{
    static const uint8_t said[] = {0, 2, 0, 4, 0, 0, 0, 1, 0, 1, 0, 4, 0, 0, 0, 0};

    (void)state;
    for (size_t first = 0; first <= 8; first++) {
        struct return_path r = {0};

        assert_int_equal(return_path_before_shut(&r, 0, said, first), first);
        assert_int_equal(return_path_before_shut(&r, first, said + first, sizeof(said) - first),
                         9 - first);
        assert_int_equal(return_path_before_shut(&r, 9, said + 9, sizeof(said) - 9), 0);
    }
}

static void test_end_is_the_last_word(void **state)
{
    struct return_path r = {0};

    (void)state;
    assert_int_equal(return_path_before_shut(&r, 0, return_path_end(), RETURN_PATH_END_BYTES), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_under_any_cut),        cmocka_unit_test(test_nothing_else),
        cmocka_unit_test(test_last_word_stays),      cmocka_unit_test(test_last_word_in_pieces),
        cmocka_unit_test(test_end_is_the_last_word),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
