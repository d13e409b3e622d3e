/* SPDX-License-Identifier: Apache-2.0 */
/* Settings that can be changed while a move runs. */
#include <errno.h>
#include <string.h>

#include "core/base/log.h"
#include "core/move/move_source.h"
#include "core/move/move_source_private.h"

static const char WHAT[] = "change the move";

static void on_cache_set(void *user, const struct error *err)
{
    struct move_source *ms = user;
    char line[1024];

    if (err->code)
        log_warning("move %s (%s): %s", ms->move->id, ms->move->info.name,
                    error_line(err, line, sizeof(line)));
    move_source_call_returned(ms);
}

static int set_xbzrle_cache(struct move_source *ms, uint64_t bytes, struct error *err)
{
    if (policy_get(&ms->move->policy, POLICY_COMPRESSION) != COMPRESSION_XBZRLE)
        return error_set(err, -EBUSY, WHAT, "start it with --set compression=xbzrle",
                         "it does not use XBZRLE");
    if (!ms->migrating || ms->sw.state != SOURCE_MOVING)
        return error_set(err, -EBUSY, WHAT, "see `ferry show`", "it is not sending memory");
    ms->move->pending++;
    virt_set_xbzrle_cache(ms->service->virt, ms->move->info.uuid, bytes, on_cache_set, ms);
    return 0;
}

static int set_one(struct move *m, const char *key, const json_t *value, struct error *err)
{
    const char *text = json_string_value(value);
    int s = policy_setting_find(key);
    char allowed[POLICY_TEXT_BYTES];
    uint64_t n = 0;
    int r;

    if (s != POLICY_XBZRLE_CACHE && s != POLICY_BWLIMIT)
        return error_set(err, -EINVAL, WHAT, "xbzrle_cache and bwlimit can be",
                         "%.64s cannot be changed while a move runs", key);
    if (!text || policy_setting_parse((enum policy_setting)s, text, &n) < 0)
        return error_set(err, -EINVAL, WHAT, NULL, "'%.64s' is no value of %s: it may be %s",
                         text ? text : "", key,
                         policy_setting_allowed((enum policy_setting)s, allowed, sizeof(allowed)));
    if (s == POLICY_BWLIMIT) {
        move_set_limit(m, n);
        return 0;
    }
    r = set_xbzrle_cache(m->source, n, err);
    if (r == 0)
        m->policy.of[s] = (struct policy_value){.value = n, .level = POLICY_LEVEL_REQUEST};
    return r;
}

int move_source_set(struct move *m, const json_t *settings, struct error *err)
{
    const char *key;
    json_t *value;
    int r = 0;

    if (!json_is_object(settings) || json_object_size(settings) == 0)
        return error_set(err, -EINVAL, WHAT, NULL, "\"settings\" must be an object of KEY: VALUE");
    if (m->finished || !m->source)
        return error_set(err, -EBUSY, WHAT, "see `ferry show`", "the move has ended");
    json_object_foreach((json_t *)settings, key, value)
    {
        r = set_one(m, key, value, err);
        if (r < 0)
            break;
    }
    return r;
}
