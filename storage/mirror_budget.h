/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory that all mirror logs of a site share. A log charges what it holds; when something is
 * given back, every log of the budget is asked in turn whether it can go on.
 *
 * Three marks, from the bottom: up to `bulk` (3/4; lower in a small budget, so that the requests which QEMU
 * has under way fit below the next mark) the bulk copy's writes are acknowledged at once, up to `guest`
 * (7/8) any write is; between that and the limit requests are still taken in, but their
 * acknowledgement is held until room appears; at the limit nothing is taken in.
 */
#ifndef FERRY_STORAGE_MIRROR_BUDGET_H
#define FERRY_STORAGE_MIRROR_BUDGET_H

#include <stdbool.h>
#include <stdint.h>

struct mirror_budget;
struct mirror_budget_member;

int mirror_budget_new(struct mirror_budget **ret_budget, uint64_t limit_bytes);
/* All logs must be gone. */
void mirror_budget_free(struct mirror_budget *b);

/* A lower limit takes effect as logs drain. */
void mirror_budget_set_limit(struct mirror_budget *b, uint64_t limit_bytes);
uint64_t mirror_budget_limit_bytes(const struct mirror_budget *b);
/* What congestion control of @logs of its logs may plan with while all of them are busy: their share of
 * what there would be if the mark `bulk` stood at 3/4 of it. */
uint64_t mirror_budget_plan_bytes(const struct mirror_budget *b, unsigned logs);
uint64_t mirror_budget_used_bytes(const struct mirror_budget *b);
uint64_t mirror_budget_peak_bytes(const struct mirror_budget *b);

#endif
