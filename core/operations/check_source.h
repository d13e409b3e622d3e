/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ferry check` at the source: what could make a move fail or hurt, found before it starts; changes nothing.
 *
 *   describe the VM -> call the peer -> `check` -> `checked` -> measure link and guest -> predict
 *
 * Where a line fails, nothing is measured: that is mended first. What was measured is remembered, so that a move of
 * the same VM can say what it expects of itself.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_CHECK_SOURCE_H
#define FERRY_CORE_CHECK_SOURCE_H

#include <jansson.h>

#include "core/policy/policy_resolve.h"
#include "core/operations/prediction.h"
#include "core/service.h"

/* Starts one; ret_id is what check_to_json() is asked for. -EBUSY at the cap. */
int check_start(struct service *s, const char *domain, const char *peer,
                const struct policy_choices *request, const char **ret_id, struct error *err);
/* NULL: it is not known (any more). New reference. */
json_t *check_to_json(struct service *s, const char *id);
bool check_any_running(const struct service *s);
void check_free_all(struct service *s);

void check_source_on_message(struct service *s, const char *peer, struct link_session *ls,
                             const json_t *msg);
void check_source_on_session_closed(struct service *s, struct link_session *ls,
                                    const struct error *why);

/* What is known of the way to @peer and of the guest @uuid without asking anew, into @in: link_bytes_s, limits
 * counted; dirty rate and writes of a check of the last hour. */
void check_recall(struct service *s, const char *uuid, const char *peer,
                  struct prediction_input *in);
/* What the policy and @info say. */
void check_fill_input(const struct policy *policy, const struct domain_info *info,
                      uint64_t resident_bytes, struct prediction_input *in);

#endif
