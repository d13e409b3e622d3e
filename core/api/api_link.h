/* SPDX-License-Identifier: Apache-2.0 */
/* The control API's part about links and limits. */
#ifndef FERRY_CORE_API_LINK_H
#define FERRY_CORE_API_LINK_H

#include "core/api/api_handlers.h"
#include "core/move/move.h"

/* /v1/links/@rest */
void api_handle_link(struct service *s, const char *method, const char *rest, const json_t *body,
                     struct api_answer *out);
/* A move's own limit, from {"rate": "200M"}. */
int api_set_move_limit(struct move *m, const json_t *rate, struct error *err);

#endif
