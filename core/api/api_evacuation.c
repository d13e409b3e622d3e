/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/api_evacuation.h"

#include <errno.h>
#include <string.h>

#include "core/operations/evacuation.h"

void api_handle_evacuation(struct service *s, const char *method, const char *rest,
                           const json_t *body, struct api_answer *out)
{
    bool post = strcmp(method, "POST") == 0;
    struct error err = {0};
    int r = 0;

    if (post && s->stopping)
        r = error_set(&err, -ESHUTDOWN, "evacuate", NULL, "this ferryd is stopping");
    else if (post && !rest[0])
        r = evacuation_start(s, body, &err);
    else if (post && strcmp(rest, "/stop") == 0)
        r = evacuation_stop(s, &err);
    else if (post && strcmp(rest, "/resume") == 0)
        r = evacuation_resume(s, &err);
    else if (post || rest[0])
        r = error_set(&err, -EINVAL, "answer", NULL, "that method does not go with that address");
    if (r < 0) {
        api_answer_failure(out, &err);
        return;
    }
    out->body = evacuation_to_json(s);
    if (!out->body)
        api_answer_error(out, 404, -ENOENT, "find the evacuation",
                         "none was started here since ferryd's start");
}
