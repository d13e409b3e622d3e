/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk of a move at the target, on the loop: a stream of the link, the mirror engine, and libnbd's
 * connection to QEMU's NBD server.
 */
#ifndef FERRY_CORE_DISK_TARGET_H
#define FERRY_CORE_DISK_TARGET_H

#include <stdbool.h>
#include <uv.h>

#include "core/base/error.h"
#include "core/disk/disk_codec.h"
#include "core/disk/disk_seed.h"
#include "netlink/session.h"
#include "storage/mirror_target.h"

struct disk_target;

struct disk_target_ops {
    /* Everything is applied and flushed: disk done. */
    void (*on_done)(void *user, struct disk_target *d);
    /* Called once; do not free in it. */
    void (*on_failed)(void *user, const struct error *err);
};

/* @seed, NULL: none, was announced to the source. */
int disk_target_new(uv_loop_t *loop, const char *export_name, uint64_t size_bytes,
                    const struct disk_seed *seed, const struct disk_target_ops *ops, void *user,
                    struct disk_target **ret);
/* Its stream comes compressed (storage/mirror_pack.h). Before it comes. */
int disk_target_unpack(struct disk_target *d, const struct disk_codec *codec);
/* The stream that carries it; becomes the disk's. */
void disk_target_set_stream(struct disk_target *d, struct stream *stream);
/* QEMU's NBD server is up at @socket_path. */
int disk_target_connect(struct disk_target *d, const char *socket_path, struct error *err);
/* Now and then: gives a seed up that cannot be opened. */
void disk_target_tick(struct disk_target *d);
/* Makes what is applied so far durable now, so that little is left to flush at the switchover. */
void disk_target_flush_ahead(struct disk_target *d);
void disk_target_free(struct disk_target *d);

const char *disk_target_export_name(const struct disk_target *d);
bool disk_target_is_done(const struct disk_target *d);
void disk_target_get_stats(const struct disk_target *d, struct mirror_target_stats *ret);

#endif
