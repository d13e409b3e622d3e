/* SPDX-License-Identifier: Apache-2.0 */
/* The set of disks behind one local NBD socket: see mirror_endpoint.h. */
#include "storage/mirror_endpoint.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "storage/limits.h"

struct mirror_endpoint {
    struct mirror_source *disks[LIMIT_DISKS_PER_MOVE];
    unsigned disk_count;
    unsigned connections;
};

int mirror_endpoint_new(struct mirror_endpoint **ret_endpoint)
{
    struct mirror_endpoint *ep = calloc(1, sizeof(*ep));

    if (!ep)
        return -ENOMEM;
    *ret_endpoint = ep;
    return 0;
}

void mirror_endpoint_free(struct mirror_endpoint *ep)
{
    assert(!ep || ep->connections == 0);
    free(ep);
}

int mirror_endpoint_add(struct mirror_endpoint *ep, struct mirror_source *disk)
{
    if (mirror_endpoint_find(ep, mirror_source_export_name(disk)))
        return -EEXIST;
    if (ep->disk_count == LIMIT_DISKS_PER_MOVE)
        return -E2BIG;
    ep->disks[ep->disk_count++] = disk;
    return 0;
}

void mirror_endpoint_remove(struct mirror_endpoint *ep, struct mirror_source *disk)
{
    for (unsigned i = 0; i < ep->disk_count; i++) {
        if (ep->disks[i] == disk) {
            ep->disks[i] = ep->disks[--ep->disk_count];
            return;
        }
    }
}

struct mirror_source *mirror_endpoint_find(const struct mirror_endpoint *ep,
                                           const char *export_name)
{
    for (unsigned i = 0; i < ep->disk_count; i++) {
        if (strcmp(mirror_source_export_name(ep->disks[i]), export_name) == 0)
            return ep->disks[i];
    }
    return NULL;
}

struct mirror_source *mirror_endpoint_at(const struct mirror_endpoint *ep, unsigned index)
{
    return index < ep->disk_count ? ep->disks[index] : NULL;
}

int mirror_endpoint_take_connection(struct mirror_endpoint *ep)
{
    if (ep->connections >= LIMIT_ENDPOINT_CONNECTIONS)
        return -EMFILE;
    ep->connections++;
    return 0;
}

void mirror_endpoint_drop_connection(struct mirror_endpoint *ep)
{
    assert(ep->connections > 0);
    ep->connections--;
}
