/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_link.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/link/link_json.h"

enum { PROBE_SECONDS = 3 };

static const char RATE_MEND[] = "write it as 200M (Mbit/s), 25MB (bytes a second), or off";

static int parse_rate(const json_t *rate, uint64_t *ret, struct error *err)
{
    const char *text = json_string_value(rate);

    if (text && bandwidth_parse_rate(text, ret) == 0)
        return 0;
    return error_set(err, -EINVAL, "limit the bandwidth", RATE_MEND, "'%.64s' is no rate",
                     text ? text : "");
}

int api_set_move_limit(struct move *m, const json_t *rate, struct error *err)
{
    uint64_t bytes_s = 0;
    int r = parse_rate(rate, &bytes_s, err);

    if (r == 0)
        move_set_limit(m, bytes_s);
    return r;
}

static int set_limit(struct service *s, const char *peer, const json_t *body, struct error *err)
{
    const json_t *rate = json_object_get(body, "rate");
    uint64_t bytes_s = 0;
    int r;

    if (json_is_string(rate) && strcmp(json_string_value(rate), "timetable") == 0) {
        link_limits_follow(peering_limits(s->peering), peer);
        return 0;
    }
    r = parse_rate(rate, &bytes_s, err);
    if (r == 0)
        link_limits_set(peering_limits(s->peering), peer, bytes_s);
    return r;
}

static int start_probe(struct service *s, const char *peer, const json_t *body, struct error *err)
{
    const json_t *seconds = json_object_get(body, "seconds");
    json_int_t n = seconds ? json_integer_value(seconds) : PROBE_SECONDS;

    if (n < 1 || n > LINK_PROBE_SECONDS_MAX)
        return error_set(err, -EINVAL, "probe the link", NULL, "\"seconds\" must be 1 to %d",
                         LINK_PROBE_SECONDS_MAX);
    return link_probe_start(s->probes, peer, (unsigned)n, LINK_PROBE_THERE_AND_BACK, err);
}

void api_handle_link(struct service *s, const char *method, const char *rest, const json_t *body,
                     struct api_answer *out)
{
    const char *slash = strchr(rest, '/'), *action = slash ? slash + 1 : "";
    const struct config_peer *peer;
    char name[WIRE_NAME_BYTES];
    struct error err = {0};
    bool post = strcmp(method, "POST") == 0;
    int r = 0;

    snprintf(name, sizeof(name), "%.*s", slash ? (int)(slash - rest) : (int)sizeof(name), rest);
    peer = config_peer_by_name(s->config, name);
    if (!peer)
        r = error_set(&err, -ENOENT, "look at the link", "see `ferry peers`",
                      "no peer is named '%s'", name);
    else if (post && strcmp(action, "probe") == 0)
        r = start_probe(s, name, body, &err);
    else if (post && strcmp(action, "bwlimit") == 0)
        r = set_limit(s, name, body, &err);
    else if (slash || post)
        r = error_set(&err, -EINVAL, "answer", NULL, "that method does not go with that address");
    if (r < 0)
        api_answer_failure(out, &err);
    else
        out->body = link_to_json(s, peer);
}
