/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The NBD connections of a move's QEMU on the loop: bytes between their sockets and the endpoint (mirror_endpoint.h).
 *
 * A connection that fails or ends is freed outside of its own callbacks. One that never chooses an export is ended.
 */
#ifndef FERRY_CORE_DISK_CLIENTS_H
#define FERRY_CORE_DISK_CLIENTS_H

#include <stdbool.h>
#include <stdint.h>

#include <sys/types.h>
#include <uv.h>

#include "core/base/error.h"
#include "storage/mirror_endpoint.h"

struct disk_clients;

/* Never called from inside the functions below. */
struct disk_clients_ops {
    void (*on_taken)(void *user); /* requests came, or a turn's worth of them */
    void (*on_gone)(void *user);  /* a connection is no more */
};

/* @endpoint and @ops outlive it. */
int disk_clients_new(uv_loop_t *loop, struct mirror_endpoint *endpoint,
                     const struct disk_clients_ops *ops, void *user, struct disk_clients **ret);
/* Its connections end. No callbacks follow. NULL is allowed. */
void disk_clients_free(struct disk_clients *d);

int disk_clients_listen(struct disk_clients *d, const char *path, uid_t uid, gid_t gid,
                        struct error *err);
bool disk_clients_any(const struct disk_clients *d);
/* To be called now and then: ends those that take too long to choose. */
void disk_clients_tick(struct disk_clients *d, uint64_t now_ns);

#endif
