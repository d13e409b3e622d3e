/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move at the source: preflight, channels, libvirt's migration, and the decision.
 *
 *   start -> describe the VM -> call the peer -> journal "moving" -> PREPARE ->
 *   READY -> sockets, streams, virDomainMigrateToURI3 -> ... switchover (core/switchover/switchover.h) -> end
 *
 * Everything that ends is seen in one place, act(), as actions of the commit protocol; callbacks only
 * record what happened and step the machine.
 */
#ifndef FERRY_CORE_MOVE_SOURCE_H
#define FERRY_CORE_MOVE_SOURCE_H

#include <jansson.h>

#include "core/move/move.h"

/* What the operator wants of a move beside where it goes. */
struct move_wishes {
    bool drill; /* it is to end as a drill, with these: */
    struct drill rehearsal;
    bool verify;                   /* compare the disks before the decision */
    struct policy_choices choices; /* a policy, and settings; hold and bwlimit among them */
    int64_t switchover_at_ms; /* a held move goes on at this wall clock time; 0 = by word only */
};

/* Whether VMs may go to that peer, and drills when @drill. *ret_peer: its section; NULL: it has none. */
int move_source_may_use(const struct service *s, const char *name, bool drill,
                        const struct config_peer **ret_peer, struct error *err);
/* Starts a move of a running domain. Its fate is read from the move. @wishes may be NULL. */
int move_source_start(struct service *s, const char *domain, const char *peer,
                      const struct move_wishes *wishes, struct move **ret, struct error *err);
/* Lets it switch to post-copy as soon as it can. -EBUSY: it was not begun so, or is beyond that. */
int move_source_postcopy(struct move *m, struct error *err);
/* Lets a held move switch over; one that is not there yet will not hold. */
int move_source_switchover(struct move *m, struct error *err);
/* Changes settings of a move under way: {KEY: VALUE}, as far as that can be (xbzrle_cache, bwlimit). */
int move_source_set(struct move *m, const json_t *settings, struct error *err);
/* "HH:MM", local time: the next such moment after @now_ms (wall clock). -EINVAL. */
int move_source_parse_time(const char *text, int64_t now_ms, int64_t *ret_ms);
/* After a restart: @state is the journalled one. */
int move_source_recover(struct move *m, const char *state, struct error *err);
/* -ETOOLATE is -EBUSY: the decision is made. */
int move_source_cancel(struct move *m, struct error *err);
/* The operator's word on a move in doubt. */
int move_source_resolve(struct move *m, bool run_at_source, struct error *err);

/* From the peer. */
void move_source_on_message(struct move *m, struct link_session *ls, const char *type,
                            const json_t *msg);
void move_source_on_session_closed(struct move *m, struct link_session *ls,
                                   const struct error *why);
/* From libvirt. */
void move_source_on_suspended(struct move *m);
void move_source_on_stopped(struct move *m);
/* The daemon stops: gives up if that is still possible. */
void move_source_shutdown(struct move *m);

#endif
