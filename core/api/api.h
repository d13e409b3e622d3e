/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The control API: HTTP and JSON on a UNIX socket (RUN_DIR/ferry.sock), by libmicrohttpd in the loop.
 *
 *   GET  /v1/identity                 this site: name, fingerprint, version
 *   GET  /v1/peers                    configured peers and whether they can be reached
 *   GET  /v1/moves                    all moves this ferryd remembers
 *   GET  /v1/moves/ID                 one of them
 *   POST /v1/moves                    {"domain", "to", "hold": true, "at": "HH:MM"}: starts one, answers
 *                                     {"id"}; the last two are optional, and so are, for a drill,
 *                                     "drill": true, "command": NAME, "keep_disk": true; "policy": NAME
 *                                     and "settings": {KEY: VALUE}, as with checks and evacuations
 *   POST /v1/moves/ID/cancel
 *   POST /v1/moves/ID/switchover      lets a held move go on
 *   POST /v1/moves/ID/resolve         {"run_at": "source" | "target"}
 *   POST /v1/moves/ID/bwlimit         {"rate": "200M" | "off"}
 *   POST /v1/moves/ID/set             {"settings": {KEY: VALUE}}: xbzrle_cache, bwlimit
 *   GET  /v1/policies                 {"policies", "settings"}: what there is, and what may be said
 *   POST /v1/policies                 {"domain", "policy", "settings"}: what would hold for it, answers {"id"}
 *   GET  /v1/policies/ID              {"done", "policy" | "error"}
 *   POST /v1/checks                   {"domain", "to"}: starts a check, answers {"id"}
 *   GET  /v1/checks/ID                {"done", "failed", "lines": [{"name", "site", "verdict", "text", "mend"}],
 *                                     "prediction"}
 *   POST /v1/evacuation               {"to": [SITE], "jobs": N, "first": [VM], "dry_run": true}: starts one
 *   GET  /v1/evacuation               the last one: state, eta_s, and each VM with its state and reason
 *   POST /v1/evacuation/stop, /resume
 *   GET  /v1/links/SITE               the link to a peer, and its last probe
 *   POST /v1/links/SITE/probe         {"seconds": N}: measures it both ways; look again for the result
 *   POST /v1/links/SITE/bwlimit       {"rate": "200M" | "off" | "timetable"}
 *   GET  /metrics                     Prometheus' text format
 *
 * Failures have an HTTP status of 4xx or 5xx and {"error": {code, what, why, mend}}. Who may connect is
 * decided by the socket's mode (0660, root's group).
 */
#ifndef FERRY_CORE_API_H
#define FERRY_CORE_API_H

#include "core/service.h"

struct api;

int api_new(struct service *s, struct api **ret, struct error *err);
/* Stops serving; its handles close with the loop. NULL is allowed, as below. */
void api_stop(struct api *a);
void api_free(struct api *a);

#endif
