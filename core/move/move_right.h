/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a move asks of the witness: one question at a time, again until it is no longer wanted.
 *
 * Both roles use it: the machine says what it wishes (core/switchover/switchover.h), the answer is an event of the machine.
 */
#ifndef FERRY_CORE_MOVE_RIGHT_H
#define FERRY_CORE_MOVE_RIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include <jansson.h>

#include "core/base/error.h"
#include "core/switchover/witness.h"

struct move;

struct move_right {
    bool agreed;   /* both sites count on the key of this move */
    bool answered; /* `now` is what the witness last said */
    enum right now;
    struct error why_not; /* the last question got no answer */
    struct witness_ask *ask;
    enum right_wish wish; /* under way, or answered and repeated */
    uint64_t again_ns;    /* not before */
    void (*on_right)(struct move *m, enum right now);
};

/* Called whenever the machine has moved, and now and then: asks, or stops asking. */
void move_right_wish(struct move *m, enum right_wish wish);
/* The heavy half of the move goes. */
void move_right_cancel(struct move *m);
/* Once, whatever comes of it. */
void move_right_tell(struct move *m, enum right_wish wish);
/* For the view. New reference; NULL when no witness is agreed. */
json_t *move_right_to_json(const struct move *m);

#endif
