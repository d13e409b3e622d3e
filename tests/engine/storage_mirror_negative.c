/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The negative check of storage_mirror.c: the same simulation over a target engine whose order of
 * overlapping operations is switched off must find a failure, and soon. The engine's source is compiled
 * into this test with the switch; the library's own copy is then not linked.
 */
#define FERRY_TEST_NO_OVERLAP_ORDER 1
#include "storage/mirror_target.c" /* NOLINT(bugprone-suspicious-include) */

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/storage_mirror_sim.h"

static void lost_order_is_found(void **state)
{
    struct sim_totals totals = {0};
    static struct sim s;
    unsigned found = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= 20; seed++)
        found += !sim_mirror(&s, seed, &totals);
    print_message("%u of 20 seeds found it\n", found);
    assert_true(found >= 15);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(lost_order_is_found)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
