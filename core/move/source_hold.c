/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Holding a move one step before its switchover.
 *
 * A held move has its disks complete at the target and mirrored from then on; of its memory nothing is
 * read from QEMU, whose migration thread then waits in its write and cannot converge, however idle the
 * guest is. The guest runs as without a move. It goes on by `ferry switchover`, or by the clock; a word or
 * a moment that comes while the disks are still being copied is not lost: then there is no hold.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"

static void release(struct move_source *ms)
{
    bool held = ms->move->held;

    ms->move->hold = ms->move->held = false;
    if (held && ms->sw.state == SOURCE_MOVING && ms->channels_open)
        source_channels_send_memory(ms);
}

void source_hold_begin(struct move_source *ms)
{
    if (!ms->move->hold) {
        source_channels_send_memory(ms);
        return;
    }
    ms->move->held = true;
    log_info("move %s (%s): held before its switchover", ms->move->id, ms->move->info.name);
}

void source_hold_tick(struct move_source *ms)
{
    struct move *m = ms->move;

    if (ms->sw.state != SOURCE_MOVING)
        m->held = false;
    else if (m->hold && m->switchover_at_ms && clock_wall_ms() >= m->switchover_at_ms)
        release(ms);
}

int move_source_switchover(struct move *m, struct error *err)
{
    if (m->finished || !m->source || m->source->sw.state != SOURCE_MOVING || !m->hold)
        return error_set(err, -EBUSY, "switch over", "see `ferry show`", "%s",
                         m->finished ? "the move has ended" : "the move is not to be held");
    log_info("move %s (%s): the operator lets it switch over", m->id, m->info.name);
    release(m->source);
    return 0;
}

int move_source_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms)
{
    time_t now = (time_t)(now_ms / 1000), then;
    char colon, more;
    struct tm day;
    int hour, minute;

    if (strlen(text) != 5 || strspn(text, "0123456789:") != 5 ||
        sscanf(text, "%2d%c%2d%c", &hour, &colon, &minute, &more) != 3 || colon != ':' ||
        hour > 23 || minute > 59 || !localtime_r(&now, &day))
        return -EINVAL;
    day.tm_hour = hour;
    day.tm_min = minute;
    day.tm_sec = 0;
    day.tm_isdst = -1; /* whatever holds at that moment */
    then = mktime(&day);
    if (then <= now) {
        day.tm_mday++;
        day.tm_hour = hour; /* mktime() may have moved it over a change of the clocks */
        day.tm_min = minute;
        day.tm_isdst = -1;
        then = mktime(&day);
    }
    if (then <= now)
        return -EINVAL;
    *ret_ms = (int64_t)then * 1000;
    return 0;
}
