/* SPDX-License-Identifier: Apache-2.0 */
/* libnbd's socket on the loop: polls the connection of a disk_writer_nbd for what it wants. */
#ifndef FERRY_CORE_NBD_POLL_H
#define FERRY_CORE_NBD_POLL_H

#include <uv.h>

#include "storage/disk_writer_nbd.h"

struct nbd_poll;

/* @after is called whenever the connection was served; it may not free. */
int nbd_poll_new(uv_loop_t *loop, struct disk_writer_nbd *nbd, void (*after)(void *user),
                 void *user, struct nbd_poll **ret);
/* To be called after whatever may have changed what the connection wants. NULL is fine. */
void nbd_poll_update(struct nbd_poll *p);
/* Before the connection is freed. NULL is fine. */
void nbd_poll_free(struct nbd_poll *p);

#endif
