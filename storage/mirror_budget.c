/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The memory shared by the mirror logs of a site: see mirror_budget.h.
 *
 * Settling. Releasing an acknowledgement makes the client send more, which charges the budget from
 * within the member's go_on(). So a settle never runs inside another one; the outer one starts its
 * round again as long as any member did something.
 */
#include "storage/mirror_budget.h"

#include <assert.h>
#include <errno.h>

#include "core/base/macros.h"
#include "storage/limits.h"
#include "storage/mirror_budget_private.h"

struct mirror_budget {
    uint64_t limit_bytes;
    uint64_t used_bytes;
    uint64_t peak_bytes;
    LIST_HEAD(, mirror_budget_member) members;
    unsigned member_count;
    TAILQ_HEAD(, mirror_budget_member) line; /* those that were refused, first come first served */
    uint64_t now_ns;                         /* the latest time any caller told */
    bool settling;
};

int mirror_budget_new(struct mirror_budget **ret_budget, uint64_t limit_bytes)
{
    struct mirror_budget *b = calloc(1, sizeof(*b));

    if (!b)
        return -ENOMEM;
    LIST_INIT(&b->members);
    TAILQ_INIT(&b->line);
    mirror_budget_set_limit(b, limit_bytes);
    *ret_budget = b;
    return 0;
}

void mirror_budget_free(struct mirror_budget *b)
{
    if (!b)
        return;
    assert(LIST_EMPTY(&b->members) && b->used_bytes == 0);
    free(b);
}

void mirror_budget_set_limit(struct mirror_budget *b, uint64_t limit_bytes)
{
    b->limit_bytes = MAX(limit_bytes, (uint64_t)LIMIT_LOG_LEAST_BYTES);
}

uint64_t mirror_budget_limit_bytes(const struct mirror_budget *b)
{
    return b->limit_bytes;
}

/* What the copy has under way is taken in before a guest's write behind it on the same connection: it must
 * fit between the marks. */
static uint64_t mark_bytes(const struct mirror_budget *b, enum mirror_budget_mark mark)
{
    uint64_t guest = b->limit_bytes / 8 * 7, bulk = b->limit_bytes / 4 * 3;
    uint64_t below = guest > LIMIT_LOG_BURST_BYTES ? guest - LIMIT_LOG_BURST_BYTES : 0;

    if (mark == MIRROR_BUDGET_GUEST)
        return guest;
    return MIN(bulk, MAX(below, b->limit_bytes / 4));
}

uint64_t mirror_budget_plan_bytes(const struct mirror_budget *b, unsigned logs)
{
    return mark_bytes(b, MIRROR_BUDGET_BULK) / 3 * 4 / MAX(b->member_count, MAX(logs, 1u)) * logs;
}

uint64_t mirror_budget_used_bytes(const struct mirror_budget *b)
{
    return b->used_bytes;
}

uint64_t mirror_budget_peak_bytes(const struct mirror_budget *b)
{
    return b->peak_bytes;
}

void mirror_budget_join(struct mirror_budget *b, struct mirror_budget_member *member)
{
    LIST_INSERT_HEAD(&b->members, member, link);
    b->member_count++;
}

void mirror_budget_leave(struct mirror_budget *b, struct mirror_budget_member *member)
{
    mirror_budget_leave_line(b, member);
    LIST_REMOVE(member, link);
    b->member_count--;
}

void mirror_budget_charge(struct mirror_budget *b, uint64_t bytes)
{
    b->used_bytes += bytes;
    b->peak_bytes = MAX(b->peak_bytes, b->used_bytes);
}

void mirror_budget_give_back(struct mirror_budget *b, uint64_t bytes)
{
    assert(bytes <= b->used_bytes);
    b->used_bytes -= bytes;
}

bool mirror_budget_is_below(const struct mirror_budget *b, enum mirror_budget_mark mark)
{
    return b->used_bytes <= mark_bytes(b, mark);
}

bool mirror_budget_wants_spill(const struct mirror_budget *b)
{
    return b->used_bytes > mark_bytes(b, MIRROR_BUDGET_BULK) / 2;
}

bool mirror_budget_has_room(const struct mirror_budget *b, uint64_t bytes)
{
    return b->used_bytes + bytes <= b->limit_bytes;
}

bool mirror_budget_may_take(struct mirror_budget *b, struct mirror_budget_member *member,
                            uint64_t bytes)
{
    struct mirror_budget_member *first = TAILQ_FIRST(&b->line);

    if (first && first != member)
        return false;
    return b->used_bytes == 0 ||
           (b->used_bytes <= b->limit_bytes && bytes <= b->limit_bytes - b->used_bytes);
}

void mirror_budget_stand_in_line(struct mirror_budget *b, struct mirror_budget_member *member)
{
    if (!member->waiting)
        TAILQ_INSERT_TAIL(&b->line, member, line);
    member->waiting = true;
}

void mirror_budget_leave_line(struct mirror_budget *b, struct mirror_budget_member *member)
{
    if (member->waiting)
        TAILQ_REMOVE(&b->line, member, line);
    member->waiting = false;
}

void mirror_budget_settle(struct mirror_budget *b, uint64_t now_ns)
{
    struct mirror_budget_member *member;
    bool again = true;

    b->now_ns = MAX(b->now_ns, now_ns);
    if (b->settling)
        return;
    b->settling = true;
    while (again) {
        again = false;
        LIST_FOREACH(member, &b->members, link)
        again |= member->go_on(member, b->now_ns);
    }
    b->settling = false;
}
