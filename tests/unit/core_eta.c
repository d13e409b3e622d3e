/* SPDX-License-Identifier: Apache-2.0 */
/* What is left of a move, in time: over disks and memory together, and honest where it cannot be told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/move/eta.h"

#define MIB (UINT64_C(1) << 20)

static const struct eta_input copying = {
    .disk_data_bytes = 600 * MIB,
    .disk_total_bytes = 1000 * MIB,
    .disk_done_bytes = 500 * MIB,
    .memory_left_bytes = 200 * MIB,
    .payload_bytes_s = 100 * MIB,
    .rtt_us = 100000,
};

static void test_disk_and_memory_together(void **state)
{
    struct eta_input in = copying;
    int64_t half = eta_ms(&in);

    (void)state;
    assert_in_range(half, 5000,
                    6500); /* 300 MiB of data and 200 of memory at 100 MiB/s, and the end */
    in.disk_total_bytes = in.disk_data_bytes * 100; /* mostly holes, the same half of them done */
    in.disk_done_bytes = in.disk_total_bytes / 2;
    assert_int_equal(eta_ms(&in), half);
    in = copying;
    in.log_bytes = 100 * MIB;
    assert_int_equal(eta_ms(&in), half + 1000);
    in = copying;
    in.disk_done_bytes = 2000 * MIB; /* the guest's writes count, too */
    assert_in_range(eta_ms(&in), 2000, 3500);
}

static void test_memory_that_is_dirtied_meanwhile(void **state)
{
    struct eta_input in = copying;
    int64_t calm;

    (void)state;
    in.memory_now = true;
    calm = eta_ms(&in);
    assert_in_range(calm, 2000, 3500);
    in.dirty_bytes_s = 50 * MIB;
    assert_int_equal(eta_ms(&in), calm + 2000);
    in.dirty_bytes_s = 100 * MIB;
    assert_int_equal(eta_ms(&in), -1);
    in.dirty_bytes_s = 500 * MIB;
    assert_int_equal(eta_ms(&in), -1);
}

static void test_what_cannot_be_told(void **state)
{
    struct eta_input in = copying;

    (void)state;
    in.payload_bytes_s = 0;
    assert_int_equal(eta_ms(&in), -1);
    in = copying;
    in.held = true;
    assert_int_equal(eta_ms(&in), -1);
    in = (struct eta_input){.payload_bytes_s = 1};
    assert_true(eta_ms(&in) >= 0); /* a VM without disks */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disk_and_memory_together),
        cmocka_unit_test(test_memory_that_is_dirtied_meanwhile),
        cmocka_unit_test(test_what_cannot_be_told),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
