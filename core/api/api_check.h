/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's part about checks. */
#ifndef FERRY_CORE_API_CHECK_H
#define FERRY_CORE_API_CHECK_H

#include "core/api/api_handlers.h"

/* /v1/checks@rest */
void api_handle_check(struct service *s, const char *method, const char *rest, const json_t *body,
                      struct api_answer *out);

#endif
