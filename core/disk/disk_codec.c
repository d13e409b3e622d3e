/* SPDX-License-Identifier: Apache-2.0 */
/* Agreement on compressed disk streams: see disk_codec.h. */
#include "core/disk/disk_codec.h"

#include <uv.h>

#include "core/base/macros.h"
#include "storage/mirror_pack.h"

enum { VERSION = 1 };

unsigned disk_codec_threads(void)
{
    return MIN(MAX(uv_available_parallelism() / 2, 1u), (unsigned)MIRROR_LANES_MOST);
}

static json_t *to_json(const struct disk_codec *c)
{
    return json_pack("{s:i, s:i, s:i}", "version", VERSION, "window_log", (int)c->window_log,
                     "lanes", (int)c->lanes);
}

/* What either side could have, or none. */
static bool from_json(const json_t *json, struct disk_codec *ret)
{
    json_int_t log = json_integer_value(json_object_get(json, "window_log"));
    const json_t *lanes = json_object_get(json, "lanes");
    json_int_t lane_count = lanes ? json_integer_value(lanes) : 1;

    if (json_integer_value(json_object_get(json, "version")) != VERSION ||
        log < MIRROR_WINDOW_LOG_LEAST || log > MIRROR_WINDOW_LOG_MOST || lane_count < 1)
        return false;
    *ret = (struct disk_codec){.used = true,
                               .window_log = (unsigned)log,
                               .lanes = (unsigned)MIN(lane_count, (json_int_t)MIRROR_LANES_MOST)};
    return true;
}

/* A disk's share of the threads. */
static unsigned lanes_most(unsigned disks, unsigned moves)
{
    return MAX(disk_codec_threads() / (disks * MAX(moves, 1u)), 1u);
}

json_t *disk_codec_offer(const struct config *c, unsigned disks, unsigned moves)
{
    struct disk_codec offer = {.used = true};

    if (!c->link.compress || disks == 0)
        return NULL;
    offer.lanes = lanes_most(disks, moves);
    offer.window_log = mirror_pack_window_log(disks * offer.lanes);
    return to_json(&offer);
}

json_t *disk_codec_answer(const struct config *c, unsigned disks, const json_t *offer,
                          struct disk_codec *ret)
{
    struct disk_codec theirs;

    *ret = (struct disk_codec){0};
    if (!c->link.compress || disks == 0 || !from_json(offer, &theirs))
        return NULL;
    ret->used = true;
    ret->lanes = disks * theirs.lanes > MAX(disks, (unsigned)MIRROR_LANES_MOST) ? 1 : theirs.lanes;
    ret->window_log = MIN(theirs.window_log, mirror_pack_window_log(disks * ret->lanes));
    return to_json(ret);
}

void disk_codec_agree(const struct config *c, unsigned disks, const json_t *answer,
                      struct disk_codec *ret)
{
    struct disk_codec theirs;

    *ret = (struct disk_codec){0};
    if (!c->link.compress || disks == 0 || !from_json(answer, &theirs))
        return;
    if (theirs.lanes <= lanes_most(disks, 1) &&
        theirs.window_log <= mirror_pack_window_log(disks * theirs.lanes))
        *ret = theirs;
}
