/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/evacuation_plan.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/macros.h"

const char *evacuation_state_name(enum evacuation_state state)
{
    static const char *const names[] = {
        [VM_WAITING] = "waiting", [VM_MOVING] = "moving",     [VM_MOVED] = "moved",
        [VM_STAYS] = "stays",     [VM_IN_DOUBT] = "in-doubt",
    };

    return names[state];
}

static int compare(const void *a, const void *b)
{
    const struct evacuation_vm *x = a, *y = b;
    unsigned first_x = x->first ? x->first : UINT32_MAX, first_y = y->first ? y->first : UINT32_MAX;

    if (first_x != first_y)
        return first_x < first_y ? -1 : 1;
    if (x->priority != y->priority)
        return x->priority > y->priority ? -1 : 1;
    if (x->predicted_ms != y->predicted_ms && x->predicted_ms && y->predicted_ms)
        return x->predicted_ms < y->predicted_ms ? -1 : 1;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? -1 : 1;
    return strcmp(x->name, y->name);
}

void evacuation_order(struct evacuation_plan *p)
{
    qsort(p->vms, p->count, sizeof(p->vms[0]), compare);
}

unsigned evacuation_count(const struct evacuation_plan *p, enum evacuation_state state)
{
    unsigned n = 0;

    for (unsigned i = 0; i < p->count; i++)
        n += p->vms[i].state == state;
    return n;
}

struct evacuation_vm *evacuation_next(struct evacuation_plan *p, uint64_t now_ns)
{
    unsigned moving = evacuation_count(p, VM_MOVING), copied = 0;

    for (unsigned i = 0; i < p->count; i++)
        copied += p->vms[i].state == VM_MOVING && p->vms[i].copied;
    if (moving - copied >= p->jobs || moving >= 2 * p->jobs)
        return NULL;
    for (unsigned i = 0; i < p->count; i++) {
        if (p->vms[i].state == VM_WAITING && now_ns >= p->vms[i].not_before_ns)
            return &p->vms[i];
    }
    return NULL;
}

void evacuation_moved(struct evacuation_vm *vm)
{
    vm->state = VM_MOVED;
    error_clear(&vm->reason);
}

void evacuation_refused(struct evacuation_plan *p, struct evacuation_vm *vm,
                        const struct error *why)
{
    vm->reason = *why;
    vm->tries = 0;
    vm->not_before_ns = 0;
    vm->state = VM_WAITING;
    if (++vm->site >= p->site_count) {
        vm->site = p->site_count - 1; /* the last one that was asked */
        vm->state = VM_STAYS;
    }
}

/* What an operator called off, or what has ended, is not tried again. */
static bool may_succeed(const struct error *why)
{
    return why->code != -ECANCELED && why->code != -ESRCH;
}

void evacuation_failed(struct evacuation_plan *p, struct evacuation_vm *vm, const struct error *why,
                       uint64_t now_ns)
{
    if (!may_succeed(why)) {
        vm->reason = *why;
        vm->state = VM_STAYS;
    } else if (vm->tries >= EVACUATION_TRIES || why->code == -ENOSPC) { /* that one is full */
        evacuation_refused(p, vm, why);
    } else {
        vm->reason = *why;
        vm->state = VM_WAITING;
        vm->not_before_ns = now_ns + EVACUATION_PAUSE_S * NS_PER_S;
    }
}

void evacuation_retry(struct evacuation_plan *p)
{
    for (unsigned i = 0; i < p->count; i++) {
        struct evacuation_vm *vm = &p->vms[i];

        if (vm->state != VM_STAYS)
            continue;
        vm->state = VM_WAITING;
        vm->site = vm->tries = 0;
        vm->not_before_ns = 0;
    }
}

int64_t evacuation_eta_ms(const struct evacuation_plan *p, uint64_t now_ns)
{
    uint64_t work_ms = 0, longest_ms = 0;

    for (unsigned i = 0; i < p->count; i++) {
        const struct evacuation_vm *vm = &p->vms[i];
        uint64_t over_ms = 0, left_ms;

        if (vm->state != VM_WAITING && vm->state != VM_MOVING)
            continue;
        if (vm->predicted_ms == 0)
            return -1;
        if (vm->state == VM_MOVING)
            over_ms = (now_ns - MIN(vm->started_ns, now_ns)) / NS_PER_MS;
        left_ms = vm->predicted_ms - MIN(over_ms, vm->predicted_ms);
        work_ms += left_ms;
        longest_ms = MAX(longest_ms, left_ms);
    }
    return (int64_t)MAX(work_ms / MAX(p->jobs, 1u), longest_ms);
}
