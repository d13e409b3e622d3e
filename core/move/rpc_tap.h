/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Reads along in one direction of a libvirt RPC connection, frame by frame.
 *
 * A frame is big-endian: u32 length (itself included), then program, version, procedure, type, serial,
 * status (u32 each), then the body (RPC_AT_). The tap hands out whole frames; its owner passes them on, keeps
 * them back (the FINISH3 gate), or answers them itself (keepalive: over a WAN outage libvirt would end
 * the connection after 30 s). It changes nothing and knows no sockets.
 */
#ifndef FERRY_CORE_RPC_TAP_H
#define FERRY_CORE_RPC_TAP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"

enum rpc_kind {
    RPC_OTHER,
    RPC_KEEPALIVE_PING,
    RPC_KEEPALIVE_PONG,
    RPC_PREPARE_CALL,
    RPC_PREPARE_REPLY,
    RPC_FINISH_CALL,   /* of a successful perform: the gate's question */
    RPC_FINISH_CANCEL, /* FINISH3 of a failed perform: the target is to give up */
    RPC_FINISH_REPLY,
};

struct rpc_frame {
    enum rpc_kind kind;
    bool ok;             /* replies: status OK */
    const uint8_t *data; /* the whole frame; valid during the callback */
    size_t len;
};

/* Where the words of a frame's header are, and what they may be. */
enum {
    RPC_AT_LEN = 0,
    RPC_AT_PROGRAM = 4,
    RPC_AT_VERSION = 8,
    RPC_AT_PROCEDURE = 12,
    RPC_AT_TYPE = 16,
    RPC_AT_SERIAL = 20,
    RPC_AT_STATUS = 24,
    RPC_AT_BODY = 28,
};
enum { RPC_PROGRAM_REMOTE = 0x20008086, RPC_TYPE_CALL = 0, RPC_TYPE_REPLY = 1, RPC_STATUS_OK = 0 };

enum { RPC_KEEPALIVE_FRAME_BYTES = RPC_AT_BODY };

struct rpc_tap;

/* 0, or a negative errno which ends the feed and is returned by it. */
typedef int (*rpc_tap_frame_fn)(void *user, const struct rpc_frame *frame);

int rpc_tap_new(rpc_tap_frame_fn on_frame, void *user, struct rpc_tap **ret);
void rpc_tap_free(struct rpc_tap *tap);
/* Takes the next bytes in any pieces. -EPROTO: not libvirt RPC, or a frame beyond the limit. */
int rpc_tap_feed(struct rpc_tap *tap, const void *data, size_t len);

/*
 * In a FINISH3 call, whole: sets VIR_MIGRATE_PAUSED, so that libvirt leaves its copy paused when it has finished. libvirt
 * refuses that flag together with post-copy when a migration begins; a migration that was to be able to switch and has not
 * must end with it. A call too short for flags is left to libvirt, which refuses it.
 */
void rpc_finish_set_paused(uint8_t *frame, size_t len);

/* What a whole frame is. */
enum rpc_kind rpc_kind_of(const uint8_t *frame, size_t len);
/* The PONG that answers any PING. */
void rpc_put_keepalive_pong(uint8_t out[RPC_KEEPALIVE_FRAME_BYTES]);

#endif
