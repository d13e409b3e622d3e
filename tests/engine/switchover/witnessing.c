/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of the witness, and what it answers: see world.h. */
#include "tests/engine/switchover/laws.h"

/* A request takes effect at the witness. */
static int change_right(struct world *w, enum right_wish wish)
{
    uint8_t bit = (uint8_t)(1 << wish), seen = WITNESS_BY_TARGET;
    enum right now = (enum right)w->right, after = right_after(wish, now);
    int heard = (w->asked & bit) != 0;

    if (bit & SOURCE_WISHES)
        seen = WITNESS_BY_SOURCE;
    if (!((w->asked | w->orphaned) & bit) || !(w->reach & seen))
        return 0;
    if (heard)
        w->asked &= (uint8_t)~bit;
    else
        w->orphaned &= (uint8_t)~bit;
    if (wish == RIGHT_WISH_CLAIM && w->bug == BUG_HELD_IS_CLAIMED && now == RIGHT_HELD)
        after = RIGHT_KEPT;
    if (wish == RIGHT_WISH_CLAIM && w->bug == BUG_GIVEN_IS_CLAIMED && now == RIGHT_GIVEN)
        after = now;
    w->right = (uint8_t)after;
    if (heard && bit & SOURCE_WISHES)
        w->source_answer = (uint8_t)(after + 1);
    if (heard && wish == RIGHT_WISH_CLAIM)
        w->target_answer = (uint8_t)(after + 1);
    return 1;
}

/* One question of a side at a time. */
static int ask_witness(struct world *w, int up, enum right_wish wish)
{
    uint8_t bit = (uint8_t)(1 << wish);
    int source = (bit & SOURCE_WISHES) != 0;

    if (!up || wish == RIGHT_WISH_NOTHING || w->orphaned & bit ||
        w->asked & (source ? SOURCE_WISHES : TARGET_WISHES) ||
        (source ? w->source_answer : w->target_answer))
        return 0;
    w->asked |= bit;
    return 1;
}

static int hear_witness(struct world *w, uint8_t *answer, int at_source)
{
    unsigned right = *answer - 1u;

    if (*answer == 0)
        return 0;
    *answer = 0;
    if (at_source)
        source_event(w, (enum switchover_source_event)(SOURCE_ON_RIGHT + right));
    else if (w->bug == BUG_GIVEN_IS_CLAIMED && right == RIGHT_GIVEN)
        target_event(w, (enum switchover_target_event)(TARGET_ON_RIGHT + RIGHT_CLAIMED));
    else
        target_event(w, (enum switchover_target_event)(TARGET_ON_RIGHT + right));
    return 1;
}

int consult(struct world *w, enum happening h)
{
    switch (h) {
    case H_SOURCE_ASKS_WITNESS:
        return ask_witness(w, w->source_up, switchover_source_wish(&w->source));
    case H_TARGET_ASKS_WITNESS:
        return ask_witness(w, w->target_up, switchover_target_wish(&w->target));
    case H_TARGET_NOTES:
        if (w->right == RIGHT_RESUMED || w->right == RIGHT_NONE)
            return 0;
        return ask_witness(w, w->target_up,
                           w->target.state == TARGET_RESUMED && w->target.witness
                               ? RIGHT_WISH_NOTE
                               : RIGHT_WISH_NOTHING);
    case H_RIGHT_HOLD:
        return change_right(w, RIGHT_WISH_HOLD);
    case H_RIGHT_GIVE:
        return change_right(w, RIGHT_WISH_GIVE);
    case H_RIGHT_KEEP:
        return change_right(w, RIGHT_WISH_KEEP);
    case H_RIGHT_CLAIM:
        return change_right(w, RIGHT_WISH_CLAIM);
    case H_RIGHT_NOTE:
        return change_right(w, RIGHT_WISH_NOTE);
    case H_SOURCE_HEARS_WITNESS:
        return hear_witness(w, &w->source_answer, 1);
    case H_TARGET_HEARS_WITNESS:
        return hear_witness(w, &w->target_answer, 0);
    default: /* the guest is stopped and the witness does not answer */
        if (!w->source_up || switchover_source_wish(&w->source) != RIGHT_WISH_HOLD ||
            (!w->source.finish_ok && !w->source.switched))
            return 0;
        if (w->bug == BUG_HELD_UNHEARD)
            source_event(w, (enum switchover_source_event)(SOURCE_ON_RIGHT + RIGHT_HELD));
        else
            source_event(w, SOURCE_ON_FAILURE);
        return 1;
    }
}
