/* SPDX-License-Identifier: Apache-2.0 */
/* What a VM needs of the target's host, as it crosses to the peer: in `check` and in `prepare`. */
#ifndef FERRY_CORE_PLATFORM_JSON_H
#define FERRY_CORE_PLATFORM_JSON_H

#include <jansson.h>

#include "core/virt/virt.h"

json_t *platform_to_json(const struct virt_description *d);
/* Fills @ret's platform and versions. -EPROTO: malformed. NULL, from an older ferry, leaves it empty. */
int platform_from_json(const json_t *json, struct virt_host_question *ret);

#endif
