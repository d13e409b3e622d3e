/* SPDX-License-Identifier: Apache-2.0 */
/* How many stripes a session takes on lines of several kinds: more where more carry more, and only there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/base/macros.h"
#include "netlink/stripe_plan.h"

#define TICK_NS (20 * NS_PER_MS)

struct line {
    uint64_t stripe_bytes_s; /* what one connection carries */
    uint64_t line_bytes_s;   /* what the line carries; its queue shows when that is reached */
    uint64_t other_bytes_s;  /* what something else lets through (a processor); no queue shows */
    uint64_t rtt_ns;
};

static void run(struct stripe_plan *p, const struct line *l, struct stripe_sample *s,
                uint64_t span_ns)
{
    for (uint64_t end_ns = s->now_ns + span_ns; s->now_ns < end_ns; s->now_ns += TICK_NS) {
        uint64_t rate = MIN(MIN(p->wanted * l->stripe_bytes_s, l->line_bytes_s), l->other_bytes_s);

        s->rtt_ns = l->rtt_ns;
        s->line_is_full = rate == l->line_bytes_s;
        s->delivered_bytes += rate * TICK_NS / NS_PER_S;
        stripe_plan_take(p, s);
    }
}

static unsigned settles_at(const struct line *l, uint64_t span_ns)
{
    struct stripe_plan p = {.wanted = STRIPE_PLAN_FIRST};
    struct stripe_sample s = {.now_ns = NS_PER_S, .busy = true};

    run(&p, l, &s, span_ns);
    return p.wanted;
}

static void test_more_where_more_carry_more(void **state)
{
    struct line l = {.stripe_bytes_s = 2000000,
                     .line_bytes_s = 125000000,
                     .other_bytes_s = UINT64_MAX,
                     .rtt_ns = 100 * NS_PER_MS};

    (void)state;
    assert_int_equal(settles_at(&l, 20 * NS_PER_S), LIMIT_SESSION_STRIPES);
    l.line_bytes_s = 15000000; /* eight fill it */
    assert_int_equal(settles_at(&l, 300 * NS_PER_S), 9);
}

static void test_not_on_a_full_line(void **state)
{
    const struct line l = {.stripe_bytes_s = 50000000,
                           .line_bytes_s = 125000000,
                           .other_bytes_s = UINT64_MAX,
                           .rtt_ns = 100 * NS_PER_MS};

    (void)state;
    assert_int_equal(settles_at(&l, 300 * NS_PER_S), STRIPE_PLAN_FIRST);
}

static void test_not_for_nothing(void **state)
{
    const struct line l = {.stripe_bytes_s = 50000000,
                           .line_bytes_s = 1250000000,
                           .other_bytes_s = 30000000,
                           .rtt_ns = 10 * NS_PER_MS};

    (void)state;
    assert_int_equal(settles_at(&l, 50 * NS_PER_S), 6);  /* tried once */
    assert_int_equal(settles_at(&l, 100 * NS_PER_S), 9); /* and again after a minute */
}

static void test_not_without_need(void **state)
{
    const struct line l = {.stripe_bytes_s = 1000000,
                           .line_bytes_s = 125000000,
                           .other_bytes_s = UINT64_MAX,
                           .rtt_ns = 100 * NS_PER_MS};
    struct stripe_plan p = {.wanted = STRIPE_PLAN_FIRST};
    struct stripe_sample s = {.now_ns = NS_PER_S, .busy = false};

    (void)state;
    run(&p, &l, &s, 100 * NS_PER_S);
    assert_int_equal(p.wanted, STRIPE_PLAN_FIRST);
    /* Short moments of need, with pauses: no span of them is long enough to learn from. */
    for (int i = 0; i < 100; i++) {
        s.busy = true;
        run(&p, &l, &s, NS_PER_S / 2);
        s.busy = false;
        run(&p, &l, &s, NS_PER_S / 2);
    }
    assert_int_equal(p.wanted, STRIPE_PLAN_FIRST);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_more_where_more_carry_more),
        cmocka_unit_test(test_not_on_a_full_line),
        cmocka_unit_test(test_not_for_nothing),
        cmocka_unit_test(test_not_without_need),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
