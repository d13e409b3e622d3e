/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Peers as the moves see them: a session to each when one is wanted, JSON messages both ways, and
 * labelled streams.
 *
 * Every stream starts with a label: u16 length and a JSON object, {"channel": NAME, ...}. The channel
 * "control" carries messages, each u32 length and a JSON object with "type" and mostly "move"; each
 * side opens one. All other channels belong to a move and are handed to the owner.
 *
 * A session is dialled when something is sent and none is up, and closed when nobody holds the peer.
 */
#ifndef FERRY_CORE_PEERING_H
#define FERRY_CORE_PEERING_H

#include <jansson.h>
#include <uv.h>

#include "core/config.h"
#include "core/link/link_limits.h"
#include "netlink/link.h"

struct peering;

struct peering_ops {
    /* @msg is borrowed. @ls is the session it came on. */
    void (*on_message)(void *user, const char *peer, struct link_session *ls, const json_t *msg);
    /* A labelled stream of the peer's; the callee owns it (release it if it is of no use). */
    void (*on_stream)(void *user, const char *peer, struct link_session *ls, const json_t *label,
                      struct stream *stream);
    /* The session ended; everything bound to it is dead. */
    void (*on_session_closed)(void *user, const char *peer, struct link_session *ls,
                              const struct error *why);
    /* What a session held is free. */
    void (*on_session_freed)(void *user);
};

/* @config may be replaced later by peering_reconfigure(); it must outlive its use. */
int peering_new(uv_loop_t *loop, const struct config *config, struct tls_identity *identity,
                const struct peering_ops *ops, void *user, struct peering **ret, struct error *err);
void peering_reconfigure(struct peering *p, const struct config *config);
void peering_shutdown(struct peering *p);
void peering_free(struct peering *p);

/* The session this site dialled to the peer, dialling it if there is none; held until released. */
int peering_dial(struct peering *p, const char *peer, struct link_session **ret, struct error *err);
/* Holds an accepted or dialled session against being closed as idle; and lets it go. */
void peering_hold(struct link_session *ls);
void peering_release(struct link_session *ls);
/* The bandwidth limits of the links. */
struct link_limits *peering_limits(struct peering *p);
/* Any session with the peer, up ones first; NULL when there is none. */
struct link_session *peering_any(struct peering *p, const char *peer);

/* Sends a message (stolen). -EPIPE: the session is over. */
int peering_send(struct link_session *ls, json_t *msg);
/* Opens a labelled stream (the label is stolen). */
int peering_open(struct link_session *ls, enum care care, json_t *label, struct stream **ret);

#endif
