/* SPDX-License-Identifier: Apache-2.0 */
/* A move and its witness: see move_right.h. */
#include "core/move/move_right.h"

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move.h"

/* Between an answer that did not end the wish, or none, and the next question. */
enum { REPEAT_MS = 1000 };

static void on_answer(void *user, const struct error *err, enum right now)
{
    struct move *m = user;
    struct move_right *r = &m->right;
    char line[1024];

    r->ask = NULL;
    r->again_ns = clock_now_ns() + REPEAT_MS * NS_PER_MS;
    if (err->code) {
        if (!error_is_set(&r->why_not))
            log_warning("move %s (%s): the witness is asked to %s and does not answer: %s", m->id,
                        m->info.name, right_wish_name(r->wish),
                        error_line(err, line, sizeof(line)));
        r->why_not = *err;
        return;
    }
    if (!r->answered || r->now != now || error_is_set(&r->why_not))
        log_info("move %s (%s): the witness, asked to %s: the right is %s", m->id, m->info.name,
                 right_wish_name(r->wish), right_name(now));
    error_clear(&r->why_not);
    r->answered = true;
    r->now = now;
    r->on_right(m, now);
}

void move_right_wish(struct move *m, enum right_wish wish)
{
    struct move_right *r = &m->right;

    if (wish != r->wish) { /* what was asked before may still take effect: the machine knows */
        move_right_cancel(m);
        r->wish = wish;
    }
    if (wish == RIGHT_WISH_NOTHING || r->ask || clock_now_ns() < r->again_ns ||
        !m->service->witness)
        return;
    if (witness_ask(m->service->witness, m->id, wish, on_answer, m, &r->ask) < 0)
        r->again_ns = clock_now_ns() + REPEAT_MS * NS_PER_MS;
}

void move_right_cancel(struct move *m)
{
    struct move_right *r = &m->right;

    witness_cancel(r->ask);
    r->ask = NULL;
    r->wish = RIGHT_WISH_NOTHING;
    r->again_ns = 0;
}

void move_right_tell(struct move *m, enum right_wish wish)
{
    if (m->service->witness)
        witness_tell(m->service->witness, m->id, wish);
}

json_t *move_right_to_json(const struct move *m)
{
    const struct move_right *r = &m->right;
    char line[1024];

    if (!r->agreed)
        return NULL;
    return json_pack("{s:s, s:s}", "right", r->answered ? right_name(r->now) : "unknown", "why_not",
                     error_is_set(&r->why_not) ? error_line(&r->why_not, line, sizeof(line)) : "");
}
