/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How libvirt's connection to another libvirtd begins: calls that are the same each time, a round trip each.
 *
 *   source   offers with PREPARE the calls that its libvirtd will make
 *   target   makes them at its own libvirtd, while it makes the disks, and says with READY what was replied
 *   source   answers its libvirtd from that; the first other call goes over the link, onto that same connection
 *
 * A call is known by its bytes, all but the serial, whatever the order. One that was not foreseen goes over the link, as
 * all would without this; one that was foreseen and does not come has only asked something. What will be called is what
 * was called last time, and the first time what libvirt 9 calls. CONNECT_OPEN alone must be foreseen: libvirtd takes it
 * once a connection. A libvirt that puts it otherwise ends the move before anything was begun, and nothing is foreseen
 * until one was heard.
 */
#ifndef FERRY_CORE_RPC_OPENING_H
#define FERRY_CORE_RPC_OPENING_H

#include <jansson.h>

#include "core/move/rpc_tap.h"

enum { RPC_OPENING_CALLS_MAX = 16, RPC_OPENING_FRAME_BYTES = 128 };

struct rpc_opening_frame {
    uint8_t bytes[RPC_OPENING_FRAME_BYTES];
    size_t len; /* 0: none */
};

struct rpc_opening {
    struct rpc_opening_call {
        struct rpc_opening_frame call, reply;
        bool answered;
    } calls[RPC_OPENING_CALLS_MAX];
    unsigned count;
    bool over; /* of one that is learned: a call came that does not belong to it */
};

/* --- source -------------------------------------------------------------------------------- */

/* Whether the target has made it. */
bool rpc_opening_is_made(const struct rpc_opening *o);
/* What libvirt 9 calls. */
void rpc_opening_presume(struct rpc_opening *o);
/* Takes note of a frame on its way to the link. True with the first that is not of the opening: it is known now. */
bool rpc_opening_learn(struct rpc_opening *o, const struct rpc_frame *frame);
/* The replies that READY brought; malformed ones, or none, leave an opening that answers nothing. */
void rpc_opening_take_replies(struct rpc_opening *o, const json_t *replies);
/* The reply to that call, with its serial, valid until the next call of this; NULL: not foreseen, or not replied to. */
const struct rpc_opening_frame *rpc_opening_answer(struct rpc_opening *o,
                                                   const struct rpc_frame *frame);

/* --- target -------------------------------------------------------------------------------- */

/* False: none came, or what came is no opening. */
bool rpc_opening_from_json(struct rpc_opening *o, const json_t *calls);
/* Connects to libvirtd at @path and makes the calls; blocks for two seconds at most, and two to connect. The connection,
 * or a negative errno, and then no reply is left. */
int rpc_opening_make(struct rpc_opening *o, const char *path);
/* Answers libvirtd's keepalives on a connection that waits to be used, or libvirtd closes it after 30 s; to be called every
 * few seconds. */
void rpc_opening_keep_alive(int fd);

/* Calls, or replies; NULL when there are none. */
json_t *rpc_opening_calls_to_json(const struct rpc_opening *o);
json_t *rpc_opening_replies_to_json(const struct rpc_opening *o);

#endif
