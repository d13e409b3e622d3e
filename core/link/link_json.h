/* SPDX-License-Identifier: Apache-2.0 */
/* What people and programs see of a link: `ferry link` and the metrics. */
#ifndef FERRY_CORE_LINK_JSON_H
#define FERRY_CORE_LINK_JSON_H

#include <stdio.h>

#include <jansson.h>

#include "core/service.h"

/* The link to a configured peer; rates in Mbit/s, times in ms. NULL: out of memory. */
json_t *link_to_json(struct service *s, const struct config_peer *peer);
/* Its families of /metrics (metrics.h), all peers. */
void link_put_metrics(FILE *out, const struct service *s);

#endif
