/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_policy.h"

#include <errno.h>
#include <string.h>

#include "core/policy/policy_json.h"
#include "core/policy/policy_query.h"

static void start(struct service *s, const json_t *body, struct api_answer *out)
{
    const char *domain = json_string_value(json_object_get(body, "domain"));
    struct policy_choices request;
    struct error err = {0};
    const char *id;

    if (!domain || !domain[0] || strlen(domain) >= DOMAIN_NAME_BYTES) {
        api_answer_error(out, 400, -EINVAL, "show the policy",
                         "\"domain\" must be given as a string");
    } else if (s->stopping) {
        api_answer_error(out, 409, -ESHUTDOWN, "show the policy", "this ferryd is stopping");
    } else if (policy_request_from_json(body, &request, &err) < 0 ||
               policy_query_start(s, domain, &request, &id, &err) < 0) {
        api_answer_failure(out, &err);
    } else {
        out->status = 202;
        out->body = json_pack("{s:s}", "id", id);
    }
}

void api_handle_policies(struct service *s, const char *method, const char *rest,
                         const json_t *body, struct api_answer *out)
{
    bool get = strcmp(method, "GET") == 0;

    if (!rest[0] && get)
        out->body = policies_to_json(&s->config->policies);
    else if (!rest[0] && strcmp(method, "POST") == 0)
        start(s, body, out);
    else if (rest[0] == '/' && get)
        out->body = policy_query_to_json(s, rest + 1);
    else
        api_answer_error(out, 405, -EINVAL, "answer", "that method does not go with that address");
    if (!out->body)
        api_answer_error(out, 404, -ENOENT, "show the policy", "nothing of that id is known");
}
