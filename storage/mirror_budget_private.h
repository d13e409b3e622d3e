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
    TAILQ_ENTRY(mirror_budget_member) line; /* while `waiting` */
    bool waiting;
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

/*
 * May @member take @bytes in? They must fit below the limit, or be all there is: the bound is the limit or
 * one request, whichever is larger. Members that were told no stand in line, and only the first of them may
 * next, lest small requests of one disk starve a large one of another.
 */
bool mirror_budget_may_take(struct mirror_budget *b, struct mirror_budget_member *member,
                            uint64_t bytes);
void mirror_budget_stand_in_line(struct mirror_budget *b, struct mirror_budget_member *member);
void mirror_budget_leave_line(struct mirror_budget *b, struct mirror_budget_member *member);

/* Is so much used that payloads should go to the spool; would @bytes more still fit? */
bool mirror_budget_wants_spill(const struct mirror_budget *b);
bool mirror_budget_has_room(const struct mirror_budget *b, uint64_t bytes);

enum mirror_budget_mark { MIRROR_BUDGET_BULK, MIRROR_BUDGET_GUEST };

/* Is what is used at or below the mark, so that acknowledgements may be given? */
bool mirror_budget_is_below(const struct mirror_budget *b, enum mirror_budget_mark mark);

#endif
