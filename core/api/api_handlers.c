/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's answers: see api.h for the table. */
#include "core/api/api_handlers.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/api/api_check.h"
#include "core/api/api_evacuation.h"
#include "core/api/api_link.h"
#include "core/api/api_policy.h"
#include "core/base/clock.h"
#include "core/base/macros.h"
#include "core/link/link_json.h"
#include "core/move/move.h"
#include "core/move/move_source.h"
#include "core/move/move_target.h"
#include "core/policy/policy_json.h"

void api_answer_error(struct api_answer *out, unsigned status, int code, const char *what,
                      const char *why)
{
    struct error err = {0};

    error_set(&err, code, what, NULL, "%s", why);
    out->status = status;
    out->body = json_pack("{s:o}", "error", error_to_json(&err));
}

void api_answer_failure(struct api_answer *out, const struct error *err)
{
    out->status = err->code == -ENOENT                        ? 404
                  : err->code == -ENOMEM || err->code == -EIO ? 500
                                                              : 409;
    out->body = json_pack("{s:o}", "error", error_to_json(err));
}

/* --- the site ------------------------------------------------------------------------------ */

static void get_identity(struct service *s, struct api_answer *out)
{
    out->body = json_pack("{s:s, s:s, s:s, s:s}", "name", s->config->name, "fingerprint",
                          tls_identity_fingerprint(s->identity), "version", FERRY_VERSION, "listen",
                          s->config->listen);
}

static void get_peers(struct service *s, struct api_answer *out)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < s->config->peer_count; i++) {
        const struct config_peer *p = &s->config->peers[i];
        struct link_session *ls = peering_any(s->peering, p->link.name);

        json_array_append_new(
            list, json_pack("{s:s, s:s, s:s, s:s, s:b, s:b, s:b, s:b, s:b}", "name", p->link.name,
                            "address", p->link.address, "fingerprint", p->link.fingerprint,
                            "certificate_name", p->link.certificate_name, "connected",
                            ls && link_session_is_up(ls), "may_move_here",
                            (p->permissions & PEER_MAY_MOVE_HERE) != 0, "may_move_from_here",
                            (p->permissions & PEER_MAY_MOVE_FROM_HERE) != 0, "may_drill",
                            (p->permissions & PEER_MAY_DRILL) != 0, "may_direct_memory",
                            (p->permissions & PEER_MAY_DIRECT_MEMORY) != 0));
    }
    out->body = json_pack("{s:s, s:o}", "site", s->config->name, "peers", list);
}

/* --- moves --------------------------------------------------------------------------------- */

static void get_moves(struct service *s, struct api_answer *out)
{
    json_t *list = json_array();
    struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    json_array_append_new(list, move_to_json(m));
    out->body = json_pack("{s:s, s:o}", "site", s->config->name, "moves", list);
}

static int read_wishes(const json_t *body, struct move_wishes *ret)
{
    const json_t *hold = json_object_get(body, "hold"), *at = json_object_get(body, "at");
    const json_t *verify = json_object_get(body, "verify");
    const json_t *drill = json_object_get(body, "drill");

    if ((drill && !json_is_boolean(drill)) || (hold && !json_is_boolean(hold)) ||
        (verify && !json_is_boolean(verify)) || (at && !json_is_string(at)))
        return -EINVAL;
    ret->verify = json_is_true(verify);
    ret->drill = json_is_true(drill);
    if (ret->drill && drill_from_json(body, &ret->rehearsal) < 0)
        return -EINVAL;
    ret->rehearsal.verdict = DRILL_OPEN;
    if (at)
        policy_choices_say(&ret->choices, POLICY_HOLD, 1);
    return at ? move_source_parse_time(json_string_value(at), clock_wall_ms(),
                                       &ret->switchover_at_ms)
              : 0;
}

static void post_move(struct service *s, const json_t *body, struct api_answer *out)
{
    const char *domain = json_string_value(json_object_get(body, "domain"));
    const char *to = json_string_value(json_object_get(body, "to"));
    const json_t *limit = json_object_get(body, "bwlimit");
    struct move_wishes wishes = {0};
    struct error err = {0};
    struct move *m;

    if (!domain || !to || !domain[0] || strlen(domain) >= DOMAIN_NAME_BYTES) {
        api_answer_error(out, 400, -EINVAL, "start a move",
                         "\"domain\" and \"to\" must be given as strings");
    } else if (limit && (!json_is_string(limit) ||
                         bandwidth_parse_rate(json_string_value(limit), &(uint64_t){0}) < 0)) {
        api_answer_error(
            out, 400, -EINVAL, "start a move",
            "\"bwlimit\" must be a rate: 200M (Mbit/s), 25MB (bytes a second), or off");
    } else if (policy_request_from_json(body, &wishes.choices, &err) < 0) {
        api_answer_failure(out, &err);
    } else if (read_wishes(body, &wishes) < 0) {
        api_answer_error(
            out, 400, -EINVAL, "start a move",
            "\"hold\", \"verify\" and \"drill\" must be true or false, \"at\" a time as HH:MM, "
            "\"command\" a name");
    } else if (s->stopping) {
        api_answer_error(out, 409, -ESHUTDOWN, "start a move", "this ferryd is stopping");
    } else if (move_source_start(s, domain, to, &wishes, &m, &err) < 0) {
        api_answer_failure(out, &err);
    } else {
        out->status = 202;
        out->body = json_pack("{s:s}", "id", m->id);
    }
}

static int resolve(struct move *m, const json_t *body, struct error *err)
{
    const char *at = json_string_value(json_object_get(body, "run_at"));

    if (!at || (strcmp(at, "source") != 0 && strcmp(at, "target") != 0))
        return error_set(err, -EINVAL, "resolve the move",
                         "ferry resolve ID --run-at source|target",
                         "\"run_at\" must be \"source\" or \"target\"");
    return m->role == JOURNAL_SOURCE ? move_source_resolve(m, strcmp(at, "source") == 0, err)
                                     : move_target_resolve(m, strcmp(at, "source") == 0, err);
}

static void post_action(struct move *m, const char *action, const json_t *body,
                        struct api_answer *out)
{
    struct error err = {0};
    int r;

    if (strcmp(action, "cancel") == 0 && m->role == JOURNAL_SOURCE)
        r = move_source_cancel(m, &err);
    else if (strcmp(action, "cancel") == 0)
        r = error_set(&err, -EPERM, "cancel the move", "cancel it at the source",
                      "this site is its target");
    else if (strcmp(action, "switchover") == 0)
        r = m->role == JOURNAL_SOURCE
                ? move_source_switchover(m, &err)
                : error_set(&err, -EPERM, "switch over", "say it at the source",
                            "this site is the move's target");
    else if (strcmp(action, "postcopy") == 0)
        r = m->role == JOURNAL_SOURCE
                ? move_source_postcopy(m, &err)
                : error_set(&err, -EPERM, "switch to post-copy", "say it at the source",
                            "this site is the move's target");
    else if (strcmp(action, "resolve") == 0)
        r = resolve(m, body, &err);
    else if (strcmp(action, "bwlimit") == 0)
        r = m->role == JOURNAL_SOURCE
                ? api_set_move_limit(m, json_object_get(body, "rate") ?: json_null(), &err)
                : error_set(&err, -EPERM, "limit the move", "say it at the source",
                            "this site is the move's target");
    else if (strcmp(action, "set") == 0)
        r = m->role == JOURNAL_SOURCE
                ? move_source_set(m, json_object_get(body, "settings"), &err)
                : error_set(&err, -EPERM, "change the move", "say it at the source",
                            "this site is the move's target");
    else
        r = error_set(&err, -ENOENT, "act on the move", NULL, "there is no action '%s'", action);
    if (r < 0)
        api_answer_failure(out, &err);
    else
        out->body = move_to_json(m);
}

static void handle_one(struct service *s, const char *method, const char *rest, const json_t *body,
                       struct api_answer *out)
{
    char id[JOURNAL_ID_BYTES];
    const char *slash = strchr(rest, '/');
    size_t len = slash ? (size_t)(slash - rest) : strlen(rest);
    struct move *m;

    snprintf(id, sizeof(id), "%.*s", (int)MIN(len, sizeof(id) - 1), rest);
    m = move_lookup(s, id);
    if (!m)
        api_answer_error(out, 404, -ENOENT, "find the move",
                         "no move has that id, or more than one begins so");
    else if (!slash && strcmp(method, "GET") == 0)
        out->body = move_to_json(m);
    else if (slash && strcmp(method, "POST") == 0)
        post_action(m, slash + 1, body, out);
    else
        api_answer_error(out, 405, -EINVAL, "answer", "that method does not go with that address");
}

void api_handle(struct service *s, const char *method, const char *url, const json_t *body,
                struct api_answer *out)
{
    bool get = strcmp(method, "GET") == 0, post = strcmp(method, "POST") == 0;

    if (strcmp(url, "/v1/identity") == 0 && get)
        get_identity(s, out);
    else if (strcmp(url, "/v1/peers") == 0 && get)
        get_peers(s, out);
    else if (strcmp(url, "/v1/moves") == 0 && get)
        get_moves(s, out);
    else if (strcmp(url, "/v1/moves") == 0 && post)
        post_move(s, body, out);
    else if (strncmp(url, "/v1/checks", 10) == 0 && (!url[10] || url[10] == '/'))
        api_handle_check(s, method, url + 10, body, out);
    else if (strncmp(url, "/v1/evacuation", 14) == 0 && (!url[14] || url[14] == '/'))
        api_handle_evacuation(s, method, url + 14, body, out);
    else if (strncmp(url, "/v1/policies", 12) == 0 && (!url[12] || url[12] == '/'))
        api_handle_policies(s, method, url + 12, body, out);
    else if (strncmp(url, "/v1/links/", 10) == 0)
        api_handle_link(s, method, url + 10, body, out);
    else if (strncmp(url, "/v1/moves/", 10) == 0)
        handle_one(s, method, url + 10, body, out);
    else
        api_answer_error(out, 404, -ENOENT, "answer", "there is nothing at that address");
}
