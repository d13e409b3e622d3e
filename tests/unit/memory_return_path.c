/* SPDX-License-Identifier: Apache-2.0 */
/* What QEMU at the target says back, under any cut: PONG 3 behind the package is found, nothing else is taken for it. */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_under_any_cut),
        cmocka_unit_test(test_nothing_else),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
