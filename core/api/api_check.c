/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_check.h"

#include <errno.h>
#include <string.h>

#include "core/operations/check_source.h"
#include "core/policy/policy_json.h"

static void start(struct service *s, const json_t *body, struct api_answer *out)
{
    const char *domain = json_string_value(json_object_get(body, "domain"));
    const char *to = json_string_value(json_object_get(body, "to"));
    struct policy_choices choices;
    struct error err = {0};
    const char *id;

    if (!domain || !to || !domain[0] || strlen(domain) >= DOMAIN_NAME_BYTES) {
        api_answer_error(out, 400, -EINVAL, "check",
                         "\"domain\" and \"to\" must be given as strings");
    } else if (s->stopping) {
        api_answer_error(out, 409, -ESHUTDOWN, "check", "this ferryd is stopping");
    } else if (policy_request_from_json(body, &choices, &err) < 0) {
        api_answer_failure(out, &err);
    } else if (check_start(s, domain, to, &choices, &id, &err) < 0) {
        api_answer_failure(out, &err);
    } else {
        out->status = 202;
        out->body = json_pack("{s:s}", "id", id);
    }
}

void api_handle_check(struct service *s, const char *method, const char *rest, const json_t *body,
                      struct api_answer *out)
{
    if (!rest[0] && strcmp(method, "POST") == 0)
        start(s, body, out);
    else if (rest[0] == '/' && strcmp(method, "GET") == 0)
        out->body = check_to_json(s, rest + 1);
    else
        api_answer_error(out, 405, -EINVAL, "answer", "that method does not go with that address");
    if (!out->body)
        api_answer_error(out, 404, -ENOENT, "find the check", "no check has that id (any more)");
}
