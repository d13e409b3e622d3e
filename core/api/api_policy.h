/* SPDX-License-Identifier: Apache-2.0 */
/* /v1/policies: see api.h. */
#ifndef FERRY_CORE_API_POLICY_H
#define FERRY_CORE_API_POLICY_H

#include "core/api/api_handlers.h"

/* @rest: what follows "/v1/policies" in the address. */
void api_handle_policies(struct service *s, const char *method, const char *rest,
                         const json_t *body, struct api_answer *out);

#endif
