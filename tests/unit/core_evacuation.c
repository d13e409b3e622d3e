/* SPDX-License-Identifier: Apache-2.0 */
/* The plan of an evacuation: its order, its jobs, what a refusal and a failure lead to, its ETA. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/operations/evacuation_plan.h"

static struct evacuation_plan plan;
static const struct error full = {.code = -ENOSPC, .why = "full"};
static const struct error broken = {.code = -ECONNRESET, .why = "the link broke"};
static const struct error cancelled = {.code = -ECANCELED, .why = "cancelled"};

static void add(const char *name, uint64_t predicted_ms, uint64_t bytes, unsigned first)
{
    struct evacuation_vm *vm = &plan.vms[plan.count++];

    snprintf(vm->name, sizeof(vm->name), "%s", name);
    vm->predicted_ms = predicted_ms;
    vm->bytes = bytes;
    vm->first = first;
}

static int setup(void **state)
{
    (void)state;
    memset(&plan, 0, sizeof(plan));
    plan.jobs = 2;
    plan.site_count = 2;
    strcpy(plan.sites[0], "b");
    strcpy(plan.sites[1], "c");
    add("long", 9000, 9, 0);
    add("second", 8000, 8, 2);
    add("short", 1000, 1, 0);
    add("first", 7000, 7, 1);
    evacuation_order(&plan);
    return 0;
}

static struct evacuation_vm *start(uint64_t now_ns)
{
    struct evacuation_vm *vm = evacuation_next(&plan, now_ns);

    if (vm) {
        vm->state = VM_MOVING;
        vm->started_ns = now_ns;
        vm->tries++;
    }
    return vm;
}

static void test_order_and_jobs(void **state)
{
    struct evacuation_vm *vm;

    (void)state;
    vm = start(1);
    assert_string_equal(vm->name, "first");
    assert_string_equal(start(1)->name, "second");
    assert_null(start(1)); /* two at a time */
    evacuation_moved(vm);
    assert_string_equal(start(1)->name, "short");
    assert_int_equal(evacuation_count(&plan, VM_MOVED), 1);
    assert_int_equal(evacuation_count(&plan, VM_MOVING), 2);
}

/* One whose disks are copied leaves its place to the next, but there is an end to it. */
static void test_a_copied_one_makes_room(void **state)
{
    struct evacuation_vm *one = start(1), *two = start(1);

    (void)state;
    add("fifth", 9900, 10, 0);
    assert_null(start(1));
    one->copied = true;
    assert_string_equal(start(1)->name, "short");
    assert_null(start(1));
    two->copied = true;
    assert_string_equal(start(1)->name, "long");
    plan.vms[2].copied = plan.vms[3].copied = true;
    assert_null(start(1)); /* four under way */
    evacuation_moved(one);
    assert_string_equal(start(1)->name, "fifth");
}

/* After those put first, a higher priority goes before a shorter time. */
static void test_order_by_priority(void **state)
{
    (void)state;
    for (unsigned i = 0; i < plan.count; i++)
        plan.vms[i].priority = strcmp(plan.vms[i].name, "long") == 0 ? 9 : 5;
    evacuation_order(&plan);
    plan.jobs = 4;
    assert_string_equal(start(1)->name, "first");
    assert_string_equal(start(1)->name, "second");
    assert_string_equal(start(1)->name, "long");
    assert_string_equal(start(1)->name, "short");
}

/* Without predictions the bytes stand in for them. */
static void test_order_by_bytes(void **state)
{
    (void)state;
    for (unsigned i = 0; i < plan.count; i++)
        plan.vms[i].predicted_ms = plan.vms[i].first = 0;
    evacuation_order(&plan);
    assert_string_equal(plan.vms[0].name, "short");
    assert_string_equal(plan.vms[3].name, "long");
    assert_int_equal(evacuation_eta_ms(&plan, 1), -1);
}

static void test_a_refusal_goes_to_the_next_site(void **state)
{
    struct evacuation_vm *vm = start(1);

    (void)state;
    evacuation_refused(&plan, vm, &full);
    assert_int_equal(vm->state, VM_WAITING);
    assert_int_equal(vm->site, 1);
    assert_ptr_equal(start(1), vm); /* at once */
    evacuation_refused(&plan, vm, &full);
    assert_int_equal(vm->state, VM_STAYS);
    assert_string_equal(vm->reason.why, "full");
    assert_ptr_not_equal(start(1), vm); /* the others go on */
    evacuation_retry(&plan);
    assert_int_equal(vm->state, VM_WAITING);
    assert_int_equal(vm->site, 0);
}

static void test_a_failure_is_tried_again(void **state)
{
    struct evacuation_vm *vm = start(1);

    (void)state;
    plan.jobs = 1;
    plan.count = 1;
    for (unsigned site = 0; site < 2; site++) {
        for (unsigned n = 1; n < EVACUATION_TRIES; n++) {
            evacuation_failed(&plan, vm, &broken, 1);
            assert_null(start(1)); /* after a pause */
            assert_ptr_equal(start(1 + EVACUATION_PAUSE_S * NS_PER_S), vm);
            assert_int_equal(vm->site, site);
        }
        evacuation_failed(&plan, vm, &broken, 1);
        if (site == 0)
            assert_ptr_equal(start(1), vm); /* elsewhere */
    }
    assert_int_equal(vm->state, VM_STAYS);
}

static void test_what_is_not_tried_again(void **state)
{
    struct evacuation_vm *vm = start(1), *other = start(1);

    (void)state;
    evacuation_failed(&plan, vm, &cancelled, 1);
    assert_int_equal(vm->state, VM_STAYS);
    evacuation_failed(&plan, other, &full, 1); /* a site that is full stays so */
    assert_int_equal(other->site, 1);
    assert_int_equal(other->state, VM_WAITING);
}

static void test_eta(void **state)
{
    struct evacuation_vm *vm;

    (void)state;
    assert_int_equal(evacuation_eta_ms(&plan, 0), 12500); /* 25 s over two jobs */
    vm = start(0);
    assert_int_equal(evacuation_eta_ms(&plan, 2 * NS_PER_S), 11500);
    assert_int_equal(evacuation_eta_ms(&plan, 60 * NS_PER_S), 9000); /* late: the rest remains */
    evacuation_moved(vm);
    plan.jobs = 16;
    assert_int_equal(evacuation_eta_ms(&plan, 0), 9000); /* never less than the longest */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_order_and_jobs, setup),
        cmocka_unit_test_setup(test_order_by_bytes, setup),
        cmocka_unit_test_setup(test_order_by_priority, setup),
        cmocka_unit_test_setup(test_a_copied_one_makes_room, setup),
        cmocka_unit_test_setup(test_a_refusal_goes_to_the_next_site, setup),
        cmocka_unit_test_setup(test_a_failure_is_tried_again, setup),
        cmocka_unit_test_setup(test_what_is_not_tried_again, setup),
        cmocka_unit_test_setup(test_eta, setup),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
