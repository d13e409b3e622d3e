/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bandwidth limits of the links: one shaper a peer, shared by its sessions, following the configured
 * timetable until an operator sets a rate by hand.
 *
 * A limit is of what this site sends. Thread: the loop thread.
 */
#ifndef FERRY_CORE_LINK_LIMITS_H
#define FERRY_CORE_LINK_LIMITS_H

#include <uv.h>

#include "core/config.h"
#include "netlink/shaper.h"

struct link_limits;

/* @config as in peering.h. NULL: out of memory. */
struct link_limits *link_limits_new(uv_loop_t *loop, const struct config *config);
/* Timetables were read again; what was set by hand stays. */
void link_limits_reconfigure(struct link_limits *l, const struct config *config);
void link_limits_shutdown(struct link_limits *l);
/* After the sessions, which use the shapers. */
void link_limits_free(struct link_limits *l);

/* The peer's shaper; lives as long as the limits. NULL: out of memory. */
struct shaper *link_limits_shaper(struct link_limits *l, const char *peer);
/* By hand, from now on. */
void link_limits_set(struct link_limits *l, const char *peer, uint64_t rate_bytes_s);
/* Back to the timetable. */
void link_limits_follow(struct link_limits *l, const char *peer);
bool link_limits_is_manual(struct link_limits *l, const char *peer);

#endif
