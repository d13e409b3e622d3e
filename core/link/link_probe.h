/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A short probe of a link on request: how much it carries now, each way.
 *
 *   asking site                                 peer
 *   stream {"channel":"probe","seconds":S} -->  counts what comes, reads to the end
 *   incompressible bytes for S seconds, end
 *                                          <--  incompressible bytes for S seconds, end;
 *                                               with "back":false the end alone
 *
 * In the class of bulk, so that it takes nothing from a move's guest writes and memory. What counts is what
 * the other side acknowledged, of moves beside it, too, from the second half of each direction's time: by then the rate
 * has been found. Where round trips are long the asking side goes on for a dozen of them more.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_LINK_PROBE_H
#define FERRY_CORE_LINK_PROBE_H

#include <jansson.h>
#include <uv.h>

#include "core/link/peering.h"

enum { LINK_PROBE_SECONDS_MAX = 10 };
enum link_probe_ways { LINK_PROBE_THERE, LINK_PROBE_THERE_AND_BACK };

struct link_probes; /* all of a site: the latest one asked for from each peer, and those served */

struct link_probe_result {
    bool done;
    struct error err;          /* set when it failed */
    uint64_t sent_bytes_s;     /* 0: not known; known before the other */
    uint64_t received_bytes_s; /* once done; 0 if not asked for */
};

/* NULL: out of memory. */
struct link_probes *link_probes_new(uv_loop_t *loop, struct peering *peering);
/* Before the peering ends: all of them stop. Their timers close with the loop. */
void link_probes_free(struct link_probes *all);

/* Starts one; the result of the last one with that peer is forgotten. -EBUSY: one is running. */
int link_probe_start(struct link_probes *all, const char *peer, unsigned seconds,
                     enum link_probe_ways ways, struct error *err);
/* Whether the last one's session stands; false: it does not yet, or the probe is over. */
bool link_probe_is_connected(const struct link_probes *all, const char *peer);
/* NULL: none was asked for. */
const struct link_probe_result *link_probe_result(const struct link_probes *all, const char *peer);
/* A session is over, its streams were reset before: a probe on it has failed, because of @why. */
void link_probes_session_closed(struct link_probes *all, const struct link_session *ls,
                                const struct error *why);
/* The peer's side: takes over the stream with this label. */
void link_probe_serve(struct link_probes *all, const json_t *label, struct stream *stream);

#endif
