/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The right to run: one key a move at the witness, and who may change it from what to what. Pure.
 *
 *                 HOLD (source)            GIVE (source)          CLAIM (target)
 *   ARMED ----------------------> HELD -----------------> GIVEN -----------------> CLAIMED
 *     |                             |                       |                         |
 *     | KEEP (source)               | KEEP                  | KEEP (by the operator's | NOTE (target:
 *     | CLAIM (target, in doubt)    |                       |  word)                  |  it runs)
 *     v                             v                       v                         v
 *   KEPT <-------------------------------------------------'                       RESUMED
 *
 *   ARMED    the source will ask before it gives its copy up
 *   HELD     it is about to: the target may neither run nor give up
 *   GIVEN    the source's copy can never run again: the target may
 *   CLAIMED  the target does: the source may not take it back
 *   RESUMED  the target runs. NOTE comes here from any value but KEPT, because a word of the source itself, or of
 *            the operator, needs no witness
 *   KEPT     the target's copy never runs, without the source's or the operator's explicit word
 *   NONE     no key: no witness was agreed, or all is over (FORGET). Nobody may conclude anything from it
 *
 * No value comes back, so a change that compares the old value cannot mistake it; and a request that took effect
 * without its answer is found done when it is asked again, or can do no harm: whoever wants the opposite has to
 * win the same comparison.
 */
#ifndef FERRY_CORE_RIGHT_H
#define FERRY_CORE_RIGHT_H

#include <stdbool.h>

enum right {
    RIGHT_NONE,
    RIGHT_ARMED,
    RIGHT_HELD,
    RIGHT_GIVEN,
    RIGHT_CLAIMED,
    RIGHT_RESUMED,
    RIGHT_KEPT,
    RIGHTS,
};

enum right_wish {
    RIGHT_WISH_NOTHING,
    RIGHT_WISH_ARM,
    RIGHT_WISH_HOLD,
    RIGHT_WISH_GIVE,
    RIGHT_WISH_KEEP,
    RIGHT_WISH_CLAIM,
    RIGHT_WISH_NOTE,
    RIGHT_WISH_FORGET,
    RIGHT_WISHES,
};

/* What @wish makes of @now; @now itself: it may not, or need not, change it. */
enum right right_after(enum right_wish wish, enum right now);
/* The value that @wish most likely meets: the first comparison to try. */
enum right right_expected(enum right_wish wish);

/* As it stands in the key. */
const char *right_name(enum right right);
/* False: not a value of ours. */
bool right_parse(const char *text, enum right *ret);
const char *right_wish_name(enum right_wish wish);

#endif
