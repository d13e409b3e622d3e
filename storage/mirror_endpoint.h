/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The local NBD endpoint of a move at the source: the set of its disks by export name, which one
 * listening socket serves. A connection chooses its disk by name; each disk has one client at a time,
 * while LIST and INFO are open to everybody.
 */
#ifndef FERRY_STORAGE_MIRROR_ENDPOINT_H
#define FERRY_STORAGE_MIRROR_ENDPOINT_H

#include "storage/mirror_source.h"

struct mirror_endpoint;

int mirror_endpoint_new(struct mirror_endpoint **ret_endpoint);
/* Frees the set, not the disks; connections must be gone. */
void mirror_endpoint_free(struct mirror_endpoint *ep);

/* The disk stays the caller's and must be removed before it is freed. -EEXIST: that export name is
 * taken; -E2BIG: more than LIMIT_DISKS_PER_MOVE. */
int mirror_endpoint_add(struct mirror_endpoint *ep, struct mirror_source *disk);
void mirror_endpoint_remove(struct mirror_endpoint *ep, struct mirror_source *disk);

/* NULL when there is none of that name / beyond the last. */
struct mirror_source *mirror_endpoint_find(const struct mirror_endpoint *ep,
                                           const char *export_name);
struct mirror_source *mirror_endpoint_at(const struct mirror_endpoint *ep, unsigned index);

/* For mirror_connection.c: counts connections; -EMFILE beyond LIMIT_ENDPOINT_CONNECTIONS. */
int mirror_endpoint_take_connection(struct mirror_endpoint *ep);
void mirror_endpoint_drop_connection(struct mirror_endpoint *ep);

#endif
