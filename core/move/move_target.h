/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A move at the target: permission, storage, the channels into libvirtd and QEMU, the promise.
 *
 *   PREPARE -> journal "receiving" -> disk files -> READY
 *   streams: rpc -> libvirtd, ram -> QEMU's ram.sock, disk -> QEMU's NBD server
 *   FINISH3 is held until every disk is flushed and RAM is delivered; then core/switchover/switchover.h
 */
#ifndef FERRY_CORE_MOVE_TARGET_H
#define FERRY_CORE_MOVE_TARGET_H

#include <jansson.h>

#include "core/move/move.h"

/* A PREPARE of @peer's on @ls. Answers it. */
void move_target_on_prepare(struct service *s, const char *peer, struct link_session *ls,
                            const json_t *msg);
/* After a restart: @state is the journalled one. */
int move_target_recover(struct move *m, const char *state, struct error *err);
/* The operator's word on a move in doubt. */
int move_target_resolve(struct move *m, bool run_at_source, struct error *err);

void move_target_on_message(struct move *m, struct link_session *ls, const char *type,
                            const json_t *msg);
/* A labelled stream of the move; owned from here on. */
void move_target_on_stream(struct move *m, const json_t *label, struct stream *stream);
void move_target_on_session_closed(struct move *m, struct link_session *ls,
                                   const struct error *why);
/* From libvirt: the VM here ended. */
void move_target_on_stopped(struct move *m);
void move_target_shutdown(struct move *m);

#endif
