/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What mirror_log.c sees of a budget: membership and charging.
 */
#ifndef FERRY_STORAGE_MIRROR_BUDGET_PRIVATE_H
#define FERRY_STORAGE_MIRROR_BUDGET_PRIVATE_H

#include <sys/queue.h>

#include "storage/mirror_budget.h"

/* Embedded in each log. */
struct mirror_budget_member {
    LIST_ENTRY(mirror_budget_member) link;
    /* Room may have appeared: goes on by one step; true when it did something. */
    bool (*go_on)(struct mirror_budget_member *member, uint64_t now_ns);
};

void mirror_budget_join(struct mirror_budget *b, struct mirror_budget_member *member);
void mirror_budget_leave(struct mirror_budget *b, struct mirror_budget_member *member);

void mirror_budget_charge(struct mirror_budget *b, uint64_t bytes);
void mirror_budget_give_back(struct mirror_budget *b, uint64_t bytes);

/* After giving back: lets members go on, round robin, until none has anything to do. @now_ns may be 0
 * where no time is at hand: the latest one told is used. */
void mirror_budget_settle(struct mirror_budget *b, uint64_t now_ns);

enum mirror_budget_mark { MIRROR_BUDGET_BULK, MIRROR_BUDGET_GUEST, MIRROR_BUDGET_FULL };

/* Would @more bytes on top of what is used stay at or below the mark? */
bool mirror_budget_fits(const struct mirror_budget *b, enum mirror_budget_mark mark, uint64_t more);

#endif
