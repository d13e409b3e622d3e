/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Between a disk at the source and the connection that is its client: what mirror_connection.c calls,
 * and what it is called with.
 */
#ifndef FERRY_STORAGE_MIRROR_SOURCE_PRIVATE_H
#define FERRY_STORAGE_MIRROR_SOURCE_PRIVATE_H

#include "storage/mirror_source.h"
#include "storage/nbd_server.h"

struct mirror_client_ops {
    void (*complete)(void *client, uint64_t cookie, int err, const void *data, size_t len,
                     uint64_t now_ns);
    /* mirror_source_admit() said no before and would now say yes. */
    void (*room)(void *client, uint64_t now_ns);
    /* The disk failed: end the connection. The client is detached already. */
    void (*close)(void *client, const struct error *why);
};

/* -EBUSY: it has a client; -ESHUTDOWN: it is past having one. */
int mirror_source_attach(struct mirror_source *m, const struct mirror_client_ops *ops,
                         void *client);
/* The client is gone: by DISC (@why NULL) or otherwise. */
void mirror_source_detach(struct mirror_source *m, const struct error *why, uint64_t now_ns);

bool mirror_source_admit(struct mirror_source *m, const struct nbd_request *request);
void mirror_source_request(struct mirror_source *m, struct nbd_request *request, uint64_t now_ns);

#endif
