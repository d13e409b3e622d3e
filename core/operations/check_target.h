/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the target looks at before a VM comes: its libvirt, its folders, its room. Asked for by `ferry check` at the
 * source (message `check`), and by every move before it begins (message `prepare`). Changes nothing.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_CHECK_TARGET_H
#define FERRY_CORE_CHECK_TARGET_H

#include <jansson.h>

#include "core/service.h"

typedef void (*check_target_done)(void *user, const struct check_report *report);

/* Lines "libvirt" (it does not answer), "name", "versions", "machine", "cpu", "networks", "storage", "space".
 * @question has platform and versions; what is about @info is filled in. Calls back once. */
void check_target_look(struct service *s, const struct domain_info *info,
                       const struct virt_host_question *question, check_target_done done,
                       void *user);
/* Whether QEMU here can take a VM in post-copy, for READY and CHECKED: true, or why not. New reference. */
json_t *check_target_post_copy_answer(const struct service *s);
/* Whether @peer may send VMs here, and drill here when @drill. */
int check_target_permission(const struct service *s, const char *peer, bool drill,
                            struct error *err);
/* A `check` of @peer's on @ls: answered with `checked`. */
void check_target_on_message(struct service *s, const char *peer, struct link_session *ls,
                             const json_t *msg);
void check_target_on_session_closed(struct service *s, const struct link_session *ls);

#endif
