/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's part about evacuations. */
#ifndef FERRY_CORE_API_EVACUATION_H
#define FERRY_CORE_API_EVACUATION_H

#include "core/api/api_handlers.h"

/* /v1/evacuation@rest */
void api_handle_evacuation(struct service *s, const char *method, const char *rest,
                           const json_t *body, struct api_answer *out);

#endif
