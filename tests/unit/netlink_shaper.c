/* SPDX-License-Identifier: Apache-2.0 */
/* A bandwidth limit holds over every second, follows a change at once, and never owes for long. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "netlink/shaper.h"

enum { FRAME_BYTES = 65536 };

/* Sends as much as is allowed for a while; returns the bytes. Time goes in steps of @step_ns. */
static uint64_t send_for(struct shaper *s, uint64_t *now_ns, uint64_t span_ns, uint64_t step_ns)
{
    uint64_t end_ns = *now_ns + span_ns, bytes = 0;

    for (; *now_ns < end_ns; *now_ns += step_ns) {
        while (shaper_allows(s, *now_ns)) {
            shaper_charge(s, FRAME_BYTES);
            bytes += FRAME_BYTES;
        }
    }
    return bytes;
}

static void test_rate_holds(void **state)
{
    static const uint64_t rates[] = {1000000, 25000000, 62500000, 1250000000};
    static const uint64_t steps_ns[] = {NS_PER_MS / 10, NS_PER_MS, 7 * NS_PER_MS};

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        for (size_t k = 0; k < 3; k++) {
            struct shaper s = {0};
            uint64_t now_ns = NS_PER_S;

            shaper_set_rate(&s, rates[i], now_ns);
            send_for(&s, &now_ns, NS_PER_S, steps_ns[k]);
            for (int second = 0; second < 5; second++) {
                double got = (double)send_for(&s, &now_ns, NS_PER_S, steps_ns[k]) * 1.025;

                assert_true(got > 0.93 * (double)rates[i] &&
                            got < 1.07 * (double)rates[i] + FRAME_BYTES);
            }
        }
    }
}

static void test_no_limit(void **state)
{
    struct shaper s = {0};

    (void)state;
    assert_true(shaper_allows(NULL, 1));
    assert_true(shaper_allows(&s, 1));
    shaper_charge(NULL, 1);
    shaper_charge(&s, UINT64_C(1) << 40);
    assert_true(shaper_allows(&s, 2));
    assert_int_equal(shaper_deadline(NULL), 0);
}

static void test_change_is_followed(void **state)
{
    struct shaper s = {0};
    uint64_t now_ns = NS_PER_S, bytes;

    (void)state;
    shaper_set_rate(&s, 125000000, now_ns);
    send_for(&s, &now_ns, NS_PER_S, NS_PER_MS);
    shaper_set_rate(&s, 1250000, now_ns);
    bytes = send_for(&s, &now_ns, NS_PER_S, NS_PER_MS);
    assert_in_range(bytes, 1000000, 1400000);
    shaper_set_rate(&s, 0, now_ns);
    assert_true(shaper_allows(&s, now_ns));
}

/* After a long pause only a short burst is free. */
static void test_burst_is_short(void **state)
{
    struct shaper s = {0};
    uint64_t now_ns = NS_PER_S;

    (void)state;
    shaper_set_rate(&s, 25000000, now_ns);
    now_ns += 3600 * NS_PER_S;
    assert_in_range(send_for(&s, &now_ns, 1, 1), FRAME_BYTES, 25000000 / 50 + 2 * FRAME_BYTES);
}

static void test_deadline(void **state)
{
    struct shaper s = {0};
    uint64_t now_ns = NS_PER_S, at;

    (void)state;
    shaper_set_rate(&s, 1000000, now_ns);
    now_ns += 50 * NS_PER_MS;
    while (shaper_allows(&s, now_ns))
        shaper_charge(&s, FRAME_BYTES);
    assert_false(shaper_allows(&s, now_ns));
    at = shaper_deadline(&s);
    assert_true(at > now_ns && at < now_ns + NS_PER_S);
    assert_true(shaper_allows(&s, at + NS_PER_MS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rate_holds),         cmocka_unit_test(test_no_limit),
        cmocka_unit_test(test_change_is_followed), cmocka_unit_test(test_burst_is_short),
        cmocka_unit_test(test_deadline),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
