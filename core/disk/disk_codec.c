/* SPDX-License-Identifier: Apache-2.0 */
/* Agreement on compressed disk streams: see disk_codec.h. */
#include "core/disk/disk_codec.h"

#include "storage/mirror_pack.h"

enum { VERSION = 1 };

static json_t *to_json(unsigned window_log)
{
    return json_pack("{s:i, s:i}", "version", VERSION, "window_log", (int)window_log);
}

/* A window that either side could have, or none. */
static bool from_json(const json_t *json, unsigned *ret_window_log)
{
    json_int_t log = json_integer_value(json_object_get(json, "window_log"));

    if (json_integer_value(json_object_get(json, "version")) != VERSION ||
        log < MIRROR_WINDOW_LOG_LEAST || log > MIRROR_WINDOW_LOG_MOST)
        return false;
    *ret_window_log = (unsigned)log;
    return true;
}

json_t *disk_codec_offer(const struct config *c, unsigned disks)
{
    return c->link.compress && disks > 0 ? to_json(mirror_pack_window_log(disks)) : NULL;
}

json_t *disk_codec_answer(const struct config *c, unsigned disks, const json_t *offer,
                          struct disk_codec *ret)
{
    unsigned log;

    *ret = (struct disk_codec){0};
    if (!c->link.compress || disks == 0 || !from_json(offer, &log))
        return NULL;
    ret->used = true;
    ret->window_log = MIN(log, mirror_pack_window_log(disks));
    return to_json(ret->window_log);
}

void disk_codec_agree(const struct config *c, unsigned disks, const json_t *answer,
                      struct disk_codec *ret)
{
    unsigned log;

    *ret = (struct disk_codec){0};
    if (!c->link.compress || disks == 0 || !from_json(answer, &log) ||
        log > mirror_pack_window_log(disks))
        return;
    ret->used = true;
    ret->window_log = log;
}
