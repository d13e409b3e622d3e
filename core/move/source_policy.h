/* SPDX-License-Identifier: Apache-2.0 */
/* What two hosts allow of a policy, as the source sees it: shared by moves (source_policy.c) and checks. */
#ifndef FERRY_CORE_SOURCE_POLICY_H
#define FERRY_CORE_SOURCE_POLICY_H

#include <jansson.h>

#include "core/service.h"

/* Why memory to @peer must be encrypted; NULL: both sites let it go without. @said: the peer's READY or CHECKED. */
const char *source_policy_encrypted(const struct service *s, const char *peer, const json_t *said);
/* Why the target cannot take a VM in post-copy, in @buf or constant; NULL: it can. */
const char *source_policy_no_post_copy(const json_t *said, char *buf, size_t cap);
/* Why this host cannot send that VM's memory from where it lies; NULL: it can. */
const char *source_policy_no_zero_copy(const struct service *s, const struct virt_description *d);

#endif
