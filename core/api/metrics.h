/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The site as Prometheus sees it: the text of /metrics, one family after the other, named as its conventions have it.
 * Of moves only those that are under way have figures of their own; docs/alerts.yml and docs/dashboard.json use them.
 */
#ifndef FERRY_CORE_METRICS_H
#define FERRY_CORE_METRICS_H

#include <stdio.h>

#include "core/service.h"

#define METRICS_TYPE "text/plain; version=0.0.4"

/* The two lines before a family's samples. */
void metrics_put_head(FILE *f, const char *name, const char *type, const char *help);
/* malloc'ed, NULL when there is no memory. */
char *metrics_text(struct service *s);

#endif
