/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ferry policy show`: what would hold for a VM's move, asked of libvirt (its metadata) and the configuration.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_POLICY_QUERY_H
#define FERRY_CORE_POLICY_QUERY_H

#include <jansson.h>

#include "core/service.h"

/* Starts one; ret_id is what policy_query_to_json() is asked for. -EBUSY at the cap. */
int policy_query_start(struct service *s, const char *domain, const struct policy_choices *request,
                       const char **ret_id, struct error *err);
/* {id, domain, done, error | policy}; NULL: it is not known (any more). New reference. */
json_t *policy_query_to_json(struct service *s, const char *id);
bool policy_query_any_running(const struct service *s);
void policy_query_free_all(struct service *s);

#endif
