/* SPDX-License-Identifier: Apache-2.0 */
/* The right to run: see right.h. */
#include "core/switchover/right.h"

#include <string.h>

static enum right claimed(enum right now)
{
    return now == RIGHT_ARMED ? RIGHT_KEPT : now == RIGHT_GIVEN ? RIGHT_CLAIMED : now;
}

enum right right_after(enum right_wish wish, enum right now)
{
    switch (wish) {
    case RIGHT_WISH_ARM:
        return now == RIGHT_NONE ? RIGHT_ARMED : now;
    case RIGHT_WISH_HOLD:
        return now == RIGHT_ARMED ? RIGHT_HELD : now;
    case RIGHT_WISH_GIVE:
        return now == RIGHT_HELD ? RIGHT_GIVEN : now;
    case RIGHT_WISH_KEEP:
        return now == RIGHT_ARMED || now == RIGHT_HELD || now == RIGHT_GIVEN ? RIGHT_KEPT : now;
    case RIGHT_WISH_CLAIM:
        return claimed(now);
    case RIGHT_WISH_NOTE:
        return now == RIGHT_NONE || now == RIGHT_KEPT ? now : RIGHT_RESUMED;
    case RIGHT_WISH_FORGET:
        return RIGHT_NONE;
    default:
        return now;
    }
}

enum right right_expected(enum right_wish wish)
{
    switch (wish) {
    case RIGHT_WISH_HOLD:
    case RIGHT_WISH_KEEP:
        return RIGHT_ARMED;
    case RIGHT_WISH_GIVE:
        return RIGHT_HELD;
    case RIGHT_WISH_CLAIM:
    case RIGHT_WISH_NOTE:
    case RIGHT_WISH_FORGET:
        return RIGHT_GIVEN;
    default:
        return RIGHT_NONE;
    }
}

static const char *const names[RIGHTS] = {"none",    "armed",   "held", "given",
                                          "claimed", "resumed", "kept"};

const char *right_name(enum right right)
{
    return right < RIGHTS ? names[right] : "?";
}

bool right_parse(const char *text, enum right *ret)
{
    for (int r = RIGHT_ARMED; r < RIGHTS; r++) {
        if (strcmp(text, names[r]) == 0) {
            *ret = (enum right)r;
            return true;
        }
    }
    return false;
}

const char *right_wish_name(enum right_wish wish)
{
    static const char *const wishes[RIGHT_WISHES] = {"nothing", "arm",   "hold", "give",
                                                     "keep",    "claim", "note", "forget"};

    return wish < RIGHT_WISHES ? wishes[wish] : "?";
}
