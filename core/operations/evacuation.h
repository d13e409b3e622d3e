/* SPDX-License-Identifier: Apache-2.0 */
/*
 * `ferry evacuate`: all running VMs of this host leave it, several at a time; no others come meanwhile.
 *
 *   PLANNING -> RUNNING -> DONE
 *      |           |  ^
 *      v      stop v  | resume
 *    PLANNED     STOPPED (when the moves under way have ended; or by a restart of ferryd)
 *
 * One at a time; the last one is remembered until the next. What was asked for is journalled: one that a restart of
 * ferryd interrupts is stopped then, and plans anew what is left when it is resumed.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_EVACUATION_H
#define FERRY_CORE_EVACUATION_H

#include <jansson.h>

#include "core/service.h"

/* @wishes: {"to": [SITE, ...], "jobs": N, "first": [VM, ...], "dry_run": BOOL}. */
int evacuation_start(struct service *s, const json_t *wishes, struct error *err);
/* No further move begins; those under way go on. */
int evacuation_stop(struct service *s, struct error *err);
/* Goes on, also with those that stayed. */
int evacuation_resume(struct service *s, struct error *err);
/* New reference; NULL: there was none. */
json_t *evacuation_to_json(struct service *s);
/* Whether VMs leave now, so that none may come. */
bool evacuation_is_under_way(const struct service *s);
/* Whether libvirt's answers are still to come; with the service's end nothing new begins. */
bool evacuation_is_busy(const struct service *s);
void evacuation_free(struct service *s);

/* At start-up, from the journal's record of one that had not ended. */
int evacuation_recover(struct service *s, const json_t *document, struct error *err);

#endif
