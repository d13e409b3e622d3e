/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gentle copy's control law around a model of QEMU's copy: bursts of 16 MiB as often as the speed wants, a guest whose
 * writes are late when they come amid one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "core/base/random.h"
#include "storage/guest_care.h"

#define MIB (UINT64_C(1) << 20)
#define MS UINT64_C(1000000)

enum { SLACK_US = 2000, BURST_MIB = 16, USUAL_BIN = 4, LATE_BIN = 20 };

struct world {
    struct guest_care care;
    struct guest_care_counts counts;
    uint64_t random, now_ns, next_burst_ns, speed;
    uint64_t burst_ms, writes_per_s;
    unsigned slow_percent; /* of the guest's writes, whatever is copied */
    uint64_t late, writes, copied_bytes;
};

static uint64_t draw(struct world *w, uint64_t below)
{
    return splitmix64_next(&w->random) % below;
}

static void write_one(struct world *w, bool late)
{
    late = late || draw(w, 100) < w->slow_percent;
    w->counts.writes[late ? LATE_BIN : USUAL_BIN]++;
    w->counts.flushes[USUAL_BIN]++;
    w->writes++;
    w->late += late;
}

/* A millisecond each. */
static void run(struct world *w, uint64_t seconds)
{
    for (uint64_t i = 0; i < seconds * 1000; i++, w->now_ns += MS) {
        bool burst = w->speed > 0 && w->now_ns >= w->next_burst_ns;

        if (burst && w->now_ns >= w->next_burst_ns + w->burst_ms * MS) {
            w->copied_bytes += BURST_MIB * MIB;
            w->next_burst_ns += BURST_MIB * MIB * 1000 / w->speed * MS;
        }
        if (draw(w, 1000) < w->writes_per_s)
            write_one(w, burst);
        if (w->now_ns % (1000 * MS) == 0 && w->speed > 0)
            w->speed = guest_care_update(&w->care, &w->counts, w->copied_bytes, w->now_ns);
    }
}

static void begin(struct world *w, uint64_t burst_ms, uint64_t writes_per_s)
{
    *w = (struct world){.random = 1, .burst_ms = burst_ms, .writes_per_s = writes_per_s};
    run(w, 2);
    guest_care_begin(&w->care, &w->counts, SLACK_US, w->now_ns);
    w->speed = guest_care_update(&w->care, &w->counts, w->copied_bytes, w->now_ns);
    assert_in_range(w->speed, 8 * MIB, 32 * MIB);
    w->next_burst_ns = w->now_ns;
}

/* One write of a hundred may be late, and nearly as much is copied as that allows. */
static void test_late_ones_are_few(void **state)
{
    static const uint64_t bursts_ms[] = {5, 10, 25, 60};
    uint64_t copied;
    struct world w;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(bursts_ms); i++) {
        begin(&w, bursts_ms[i], 100);
        run(&w, 30);
        w.late = w.writes = 0;
        copied = w.copied_bytes;
        run(&w, 300);
        assert_true(w.late * 100 <= w.writes);
        /* At a share of 1 % a burst comes every 100 times as long as it lasts. */
        assert_true(w.copied_bytes - copied >=
                    MIN(300 * 1000 / (bursts_ms[i] * 100) * BURST_MIB * MIB / 3, 300 * 2 * MIB));
    }
}

static void test_guest_that_does_not_write_costs_nothing(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 25, 0);
    run(&w, 40);
    assert_true(w.speed >= 1024 * MIB);
}

/* What is as late without a burst is the guest's own, or its host's. */
static void test_guest_that_is_slow_by_itself(void **state)
{
    struct world w, quick;

    (void)state;
    begin(&quick, 10, 100);
    run(&quick, 300);
    begin(&w, 10, 100);
    w.slow_percent = 5;
    run(&w, 300);
    assert_true(w.copied_bytes > quick.copied_bytes / 3);
}

static void test_counts_that_go_back_are_none(void **state)
{
    struct world w;

    (void)state;
    begin(&w, 10, 100);
    w.counts = (struct guest_care_counts){0};
    run(&w, 20);
    assert_true(w.speed > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_late_ones_are_few),
        cmocka_unit_test(test_guest_that_does_not_write_costs_nothing),
        cmocka_unit_test(test_guest_that_is_slow_by_itself),
        cmocka_unit_test(test_counts_that_go_back_are_none),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
