/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The pacer over a simulated bottleneck: a line of some rate and round trip with a queue in front, a sender
 * that sends what it may and otherwise grows like a congestion control does. It must fill the line and keep
 * the queue short, follow a change of the rate, and step aside for a queue that is not its own.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/base/random.h"
#include "netlink/pacer.h"

enum { STEP_MS = 20, DELAY_STEPS_MAX = 64, SEEDS = 50 };

struct sim {
    struct pacer pacer;
    uint64_t now_ns, rtt_ns, rtt_min_ns; /* the least that TCP has seen */
    double line_bytes_s;                 /* what the bottleneck carries */
    double others_queue_ns;              /* a queue that is there whatever we do */
    double tcp_bytes_s;                  /* what the congestion control would send */
    double host_bytes_s;                 /* what its processors let it send; 0: all */
    double queue_bytes, queue_max_bytes, delivered_bytes;
    /* What was sent and at what queue it arrived, a round trip ago. */
    struct {
        double bytes, queue_ns;
    } way[DELAY_STEPS_MAX];
    unsigned at;
    double worst_queue_ns, sent_bytes;
    bool busy, dry;
};

static void sim_new(struct sim *s, double line_mbit, unsigned rtt_ms)
{
    *s = (struct sim){.now_ns = NS_PER_S,
                      .rtt_ns = rtt_ms * NS_PER_MS,
                      .rtt_min_ns = rtt_ms * NS_PER_MS,
                      .line_bytes_s = line_mbit * 125000,
                      .tcp_bytes_s = 60000.0 * 1000 / rtt_ms,
                      .queue_max_bytes = line_mbit * 125000 / 20, /* 50 ms */
                      .busy = true};
}

static unsigned delay_steps(const struct sim *s)
{
    return (unsigned)(s->rtt_ns / (STEP_MS * NS_PER_MS));
}

/* The way becomes longer or shorter; TCP's window is that of before. What was under way by a longer one is not counted. */
static void change_rtt(struct sim *s, unsigned rtt_ms)
{
    unsigned before = delay_steps(s);

    s->tcp_bytes_s *= (double)s->rtt_ns / (double)(rtt_ms * NS_PER_MS);
    s->rtt_ns = rtt_ms * NS_PER_MS;
    s->rtt_min_ns = MIN(s->rtt_min_ns, s->rtt_ns);
    for (unsigned i = before; i < DELAY_STEPS_MAX; i++) /* has arrived already */
        s->way[(s->at + DELAY_STEPS_MAX - i) % DELAY_STEPS_MAX].bytes = 0;
}

static void step(struct sim *s)
{
    unsigned delay = delay_steps(s);
    double span_s = STEP_MS / 1e3, rate = s->tcp_bytes_s, out;
    struct pacer_sample sample;

    if (s->pacer.rate_bytes_s)
        rate = MIN(rate, (double)s->pacer.rate_bytes_s);
    if (!s->busy)
        rate = MIN(rate, 100000.0);
    if (s->host_bytes_s > 0)
        rate = MIN(rate, s->host_bytes_s);
    /* Doubles every round trip until the queue is full, then it is as fast as the line. */
    s->tcp_bytes_s = s->queue_bytes >= s->queue_max_bytes
                         ? s->line_bytes_s
                         : MIN(s->tcp_bytes_s * (1 + 0.7 * span_s * 1e9 / (double)s->rtt_ns),
                               2.5 * s->line_bytes_s);
    s->queue_bytes += rate * span_s;
    out = MIN(s->queue_bytes, s->line_bytes_s * span_s);
    s->queue_bytes = MIN(s->queue_bytes - out, s->queue_max_bytes);
    s->at = (s->at + 1) % DELAY_STEPS_MAX;
    s->way[s->at].bytes = out;
    s->way[s->at].queue_ns = s->queue_bytes / s->line_bytes_s * 1e9 + s->others_queue_ns;
    s->worst_queue_ns = MAX(s->worst_queue_ns, s->way[s->at].queue_ns);
    s->now_ns += STEP_MS * NS_PER_MS;
    sample = (struct pacer_sample){
        .now_ns = s->now_ns, .rtt_min_ns = s->rtt_min_ns, .busy = s->busy, .dry = s->dry};
    s->delivered_bytes += s->way[(s->at + DELAY_STEPS_MAX - delay) % DELAY_STEPS_MAX].bytes;
    sample.delivered_bytes = (uint64_t)s->delivered_bytes;
    sample.rtt_ns =
        s->rtt_ns + (uint64_t)s->way[(s->at + DELAY_STEPS_MAX - delay) % DELAY_STEPS_MAX].queue_ns;
    pacer_take(&s->pacer, &sample);
}

/* Runs for a while; the share of the line that was used. */
static double run(struct sim *s, double seconds)
{
    double before = s->delivered_bytes;

    s->worst_queue_ns = 0;
    for (int i = 0; i < seconds * 1000 / STEP_MS; i++)
        step(s);
    return (s->delivered_bytes - before) / seconds / s->line_bytes_s;
}

static void test_fills_and_keeps_the_queue_short(void **state)
{
    static const double rates[] = {10, 100, 1000, 10000};
    static const unsigned rtts_ms[] = {20, 100, 214, 500};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(rtts_ms); k++) {
            struct sim s;

            sim_new(&s, rates[i], rtts_ms[k]);
            run(&s, 40 * rtts_ms[k] / 1e3 + 5); /* to find the rate */
            assert_true(run(&s, 30) > 0.93);
            assert_true(s.worst_queue_ns < 55e6);
        }
    }
}

static void test_follows_the_line(void **state)
{
    struct sim s;

    (void)state;
    sim_new(&s, 200, 100);
    run(&s, 8);
    s.line_bytes_s *= 4;
    run(&s, 8);
    assert_true(run(&s, 5) > 0.9);
    s.line_bytes_s /= 8;
    run(&s, 12); /* the queue that the change leaves looks like somebody else's at first */
    assert_true(run(&s, 5) > 0.85);
    assert_true(s.worst_queue_ns < 60e6);
}

/* Somebody else's queue: sending less does not shorten it, so the cap goes. */
static void test_yields_to_others(void **state)
{
    struct sim s;
    bool yielded = false;

    (void)state;
    sim_new(&s, 1000, 100);
    run(&s, 6);
    s.others_queue_ns = 30e6;
    for (int i = 0; i < 40 && !yielded; i++) {
        run(&s, 0.1);
        yielded = s.pacer.state == PACER_YIELD;
    }
    assert_true(yielded);
    assert_int_equal(s.pacer.rate_bytes_s, 0);
    s.others_queue_ns = 0;
    run(&s, 12);
    assert_true(run(&s, 5) > 0.9);
}

/* The same round trip from now on, whatever we send: no queue, and no reason to yield for long. */
static void test_the_line_becomes_longer(void **state)
{
    static const unsigned before_ms[] = {20, 100, 214}, after_ms[] = {100, 214, 1000};
    static const double rates[] = {20, 200, 1000};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(rates); i++) {
        for (size_t k = 0; k < ARRAY_SIZE(before_ms); k++) {
            struct sim s;

            sim_new(&s, rates[i], before_ms[k]);
            run(&s, 40 * before_ms[k] / 1e3 + 5);
            change_rtt(&s, after_ms[k]);
            run(&s, 60 * after_ms[k] / 1e3 + 5);
            assert_true(run(&s, 30) > 0.9);
            assert_true(s.worst_queue_ns < 55e6);
            change_rtt(&s, before_ms[k]);
            run(&s, 40 * before_ms[k] / 1e3 + 5);
            assert_true(run(&s, 30) > 0.93);
            assert_true(s.worst_queue_ns < 55e6);
        }
    }
}

/* Little to send is no evidence of a slow line. */
static void test_idle_learns_nothing(void **state)
{
    uint64_t rate;
    struct sim s;

    (void)state;
    sim_new(&s, 1000, 100);
    run(&s, 6);
    rate = s.pacer.capacity_bytes_s;
    s.busy = false;
    run(&s, 10);
    assert_int_equal(s.pacer.capacity_bytes_s, rate);
    pacer_pause(&s.pacer);
    s.busy = true;
    run(&s, 1);
    assert_true(run(&s, 2) > 0.85); /* and is no reason to start from nothing */
}

/* Nothing arrives, and the round trip that is seen is the one from before: no evidence either. What is found
 * afterwards, growing from nothing, is neither, even when a late wake-up looks like a queue. */
static void test_outage_learns_nothing(void **state)
{
    uint64_t rate;
    struct sim s;

    (void)state;
    sim_new(&s, 1000, 100);
    run(&s, 8);
    assert_int_equal(s.pacer.state, PACER_CRUISE);
    rate = s.pacer.rate_bytes_s;
    for (int i = 0; i < 60 * 1000 / STEP_MS; i++) {
        struct pacer_sample sample = {.now_ns = s.now_ns += STEP_MS * NS_PER_MS,
                                      .delivered_bytes = (uint64_t)s.delivered_bytes,
                                      .rtt_ns = s.rtt_ns + 30 * NS_PER_MS,
                                      .rtt_min_ns = s.rtt_ns,
                                      .busy = true};

        pacer_take(&s.pacer, &sample);
    }
    assert_int_equal(s.pacer.state, PACER_CRUISE);
    assert_in_range(s.pacer.rate_bytes_s, rate / 100 * 90, rate);
    s.tcp_bytes_s = 600000;
    s.queue_bytes = 0;
    run(&s, 0.4);
    s.others_queue_ns = 20e6;
    run(&s, 0.12);
    s.others_queue_ns = 0;
    assert_in_range(s.pacer.rate_bytes_s, rate / 100 * 85, rate / 100 * 110);
    run(&s, 1.5);
    assert_true(run(&s, 5) > 0.9);
}

/* Looks for more are short and few: what is urgent mostly finds no queue. */
static void test_a_queue_is_rare(void **state)
{
    struct sim s;
    unsigned high = 0, steps = 60 * 1000 / STEP_MS;

    (void)state;
    sim_new(&s, 1000, 100);
    run(&s, 6);
    for (unsigned i = 0; i < steps; i++) {
        step(&s);
        high += s.queue_bytes > s.line_bytes_s * 0.015;
    }
    assert_true(high < steps / 5);
}

/* Processors taken by others, for one moment in @one_in: little is sent although much waits, and what comes back is
 * late. The line has not become slower for that; between two such moments it is to be used. */
static double share_with_late_processors(uint64_t seed, unsigned one_in)
{
    double share = 0, could = 0;
    struct sim s;

    sim_new(&s, 1000, 100);
    for (int i = 0; i < 300; i++) {
        bool late = splitmix64_next(&seed) % one_in == 0;
        double span_s = 0.1 + 0.1 * (double)(splitmix64_next(&seed) % 4);

        s.others_queue_ns = late ? 5e6 + 1e6 * (double)(splitmix64_next(&seed) % 35) : 0;
        s.host_bytes_s = late ? s.line_bytes_s / (double)(2 + splitmix64_next(&seed) % 30) : 0;
        share += span_s * run(&s, span_s);
        could += span_s * (late ? s.host_bytes_s / s.line_bytes_s : 1);
    }
    return share / could;
}

/* The acknowledgements of a start are late now and then, and connections run dry in between: a line of which so little
 * is known is not found to be slow. */
static void test_late_processors_at_the_start(void **state)
{
    double share = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t random = seed;
        double seconds = 0;
        struct sim s;

        sim_new(&s, 1000, 100);
        while (seconds < 6) {
            double quiet_s = 0.04 + 0.02 * (double)(splitmix64_next(&random) % 8);

            s.others_queue_ns = 6e6;
            s.dry = splitmix64_next(&random) % 2 == 0;
            run(&s, 0.06);
            s.others_queue_ns = 0;
            s.dry = false;
            run(&s, quiet_s);
            seconds += 0.06 + quiet_s;
        }
        share += s.delivered_bytes / seconds / s.line_bytes_s;
        assert_true(run(&s, 3) > 0.8);
    }
    assert_true(share / SEEDS > 0.7);
}

static void test_late_processors_are_no_slow_line(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        assert_true(share_with_late_processors(seed, 3) > 0.45);
        assert_true(share_with_late_processors(seed, 10) > 0.85);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fills_and_keeps_the_queue_short),
        cmocka_unit_test(test_follows_the_line),
        cmocka_unit_test(test_yields_to_others),
        cmocka_unit_test(test_the_line_becomes_longer),
        cmocka_unit_test(test_idle_learns_nothing),
        cmocka_unit_test(test_outage_learns_nothing),
        cmocka_unit_test(test_a_queue_is_rare),
        cmocka_unit_test(test_late_processors_at_the_start),
        cmocka_unit_test(test_late_processors_are_no_slow_line),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
