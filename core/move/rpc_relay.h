/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Carries libvirt's RPC between the two libvirtds, frame by frame, and is the gate of the switchover.
 *
 * The same object at both sites: at the source its socket is the connection that the source's libvirtd
 * made to us; at the target it is our connection to the local libvirtd. Keepalives are answered here.
 * The owner decides about each frame; a frame it keeps back holds up all that follow it in that
 * direction, until rpc_relay_release(); one that it drops has never been.
 */
#ifndef FERRY_CORE_RPC_RELAY_H
#define FERRY_CORE_RPC_RELAY_H

#include "core/move/local_socket.h"
#include "core/move/rpc_tap.h"
#include "netlink/session.h"

struct rpc_relay;

enum rpc_verdict { RPC_PASS, RPC_KEEP, RPC_DROP };

struct rpc_relay_ops {
    /* A frame on its way to the link / to the local libvirtd. */
    enum rpc_verdict (*on_outbound)(void *user, const struct rpc_frame *frame);
    enum rpc_verdict (*on_inbound)(void *user, const struct rpc_frame *frame);
    /* -EPIPE: the local libvirtd closed; else the stream ended or broke, or a frame was malformed, and
     * the socket is open until the relay is freed. Once. */
    void (*on_ended)(void *user, const struct error *why);
};

/* @fd: a connected socket, owned from here on, as is the stream. */
int rpc_relay_new(uv_loop_t *loop, int fd, struct stream *stream, const struct rpc_relay_ops *ops,
                  void *user, struct rpc_relay **ret);
/* A frame of our own for the local libvirtd, from on_outbound: the reply to a call that is dropped. */
int rpc_relay_answer(struct rpc_relay *r, const void *frame, size_t len);
/* The frame kept back on its way to the local libvirtd goes, and what waited behind it. */
void rpc_relay_release_inbound(struct rpc_relay *r);
/* The same, of a FINISH3 call: libvirt is to leave its copy paused. */
void rpc_relay_release_paused(struct rpc_relay *r);
/* Bytes for the local libvirtd that it has not read; -EPIPE when it is gone, so that nobody knows. */
int rpc_relay_unread(const struct rpc_relay *r);
/* The stream goes, the socket stays open and is not read any more; as relay_detach(). NULL is allowed. */
void rpc_relay_detach(struct rpc_relay *r);
/* Closes both ends. NULL is allowed. */
void rpc_relay_free(struct rpc_relay *r);

#endif
