/* SPDX-License-Identifier: Apache-2.0 */
/* What the control API answers; the server around it is api.c. */
#ifndef FERRY_CORE_API_HANDLERS_H
#define FERRY_CORE_API_HANDLERS_H

#include <jansson.h>

#include "core/service.h"

struct api_answer {
    unsigned status; /* HTTP's */
    json_t *body;    /* new reference, always set */
};

/* @body: the request's JSON object, or NULL. */
void api_handle(struct service *s, const char *method, const char *url, const json_t *body,
                struct api_answer *out);
void api_answer_failure(struct api_answer *out, const struct error *err);
void api_answer_error(struct api_answer *out, unsigned status, int code, const char *what,
                      const char *why);

#endif
