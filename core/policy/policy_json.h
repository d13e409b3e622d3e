/* SPDX-License-Identifier: Apache-2.0 */
/* Policies as the control API has them: docs/json.md lists the members. */
#ifndef FERRY_CORE_POLICY_JSON_H
#define FERRY_CORE_POLICY_JSON_H

#include <jansson.h>

#include "core/base/error.h"
#include "core/policy/policy_resolve.h"

/* What a request says: "policy", "settings" {KEY: VALUE}, and "bwlimit", "hold" beside them. -EINVAL. */
int policy_request_from_json(const json_t *body, struct policy_choices *ret, struct error *err);
/* {name, chosen_by, group, settings: {KEY: {value, from}}, substitutions: [{setting, wanted, taken, why}]} */
json_t *policy_to_json(const struct policy *p);
/* {policies: [{name, meaning, shipped, based_on, settings: {KEY: VALUE}}], settings: {KEY: {default, allowed,
 * meaning}}} */
json_t *policies_to_json(const struct policy_config *c);

#endif
