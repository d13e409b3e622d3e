/* SPDX-License-Identifier: Apache-2.0 */
/* The right to run at the source: how a move gets a key at the witness before its target hears of it, and what
 * happens when the witness is silent while the guest is stopped. The rest is the machine's (core/switchover/switchover.h). */
#include <errno.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"

static void on_armed(void *user, const struct error *err, enum right now)
{
    struct move *m = user;
    struct move_source *ms = m->source;
    struct error none = {0};
    char line[1024];

    if (err->code) /* whether there is a key is unknown; nobody counts on it */
        log_warning("move %s (%s): goes without the witness: %s", m->id, m->info.name,
                    error_line(err, line, sizeof(line)));
    m->right.agreed = !err->code && now == RIGHT_ARMED;
    move_source_prepare(ms, &none);
    move_source_call_returned(ms);
}

void source_right_arm(struct move_source *ms, const struct error *err)
{
    struct move *m = ms->move;
    struct witness_ask *ask; /* never cancelled: `pending` waits for it */

    if (err->code || ms->sw.state != SOURCE_MOVING || !m->service->witness || m->drill ||
        witness_ask(m->service->witness, m->id, RIGHT_WISH_ARM, on_armed, m, &ask) < 0) {
        move_source_prepare(ms, err);
        return;
    }
    ms->armed = true;
    m->pending++;
}

/* The key counts when the target counts on it, too. */
void source_right_agree(struct move_source *ms, const json_t *ready)
{
    struct move *m = ms->move;

    m->right.agreed = m->right.agreed && json_is_true(json_object_get(ready, "witness"));
    if (m->right.agreed)
        move_source_step(ms, SOURCE_ON_WITNESS_AGREED);
}

/* The guest is stopped, all is there, and the witness does not say that the copy here may be given up: going on
 * without its word could give up both, so the VM stays. */
void source_right_tick(struct move_source *ms, uint64_t now_ns)
{
    enum right_wish wish = switchover_source_wish(&ms->sw);
    unsigned limit_ms = ms->service->config->witness.timeout_ms;
    struct error why = {0};

    move_right_wish(ms->move, wish);
    if (wish != RIGHT_WISH_HOLD || (!ms->sw.finish_ok && !ms->sw.switched)) {
        ms->finish_ns = 0;
        return;
    }
    if (!ms->finish_ns)
        ms->finish_ns = now_ns;
    if (now_ns - ms->finish_ns <= limit_ms * NS_PER_MS)
        return;
    error_set(&why, -ETIMEDOUT, "switch over",
              "see to the witness, or start the move again: without one it goes as if none were "
              "configured",
              "the witness was there when the move began and does not answer now");
    move_source_fail(ms, &why);
}
