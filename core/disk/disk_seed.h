/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Seeds: older copies of a VM's disks at the target, so that a repeated move sends only what has changed.
 * How they are used, and why they need not be trusted, is in storage/seed_blocks.h; here is where they are found,
 * and how the sites agree on them.
 */
#ifndef FERRY_CORE_DISK_SEED_H
#define FERRY_CORE_DISK_SEED_H

#include <jansson.h>

#include "core/config.h"
#include "core/virt/domain_xml.h"

struct disk_seed {
    char path[PATH_MAX]; /* empty: none */
    enum disk_format format;
};

/*
 * The one place that knows where a seed may lie. In this order: what [seeds] names for the disk, and the copy
 * that was kept when the VM left this site (PATH.ferry-old). *ret has an empty path when there is none, or it
 * is in use. Blocks: for a worker thread.
 */
void disk_seed_find(const struct config *config, const char *domain, const struct domain_disk *disk,
                    struct disk_seed *ret);

/* `seeds` of PREPARE: this source can use them. */
json_t *disk_seeds_offer(void);
bool disk_seeds_offered(const json_t *offer);
/* `seeds` of READY: the aliases of those of @info's disks that have one; NULL: none. */
json_t *disk_seeds_answer(const struct domain_info *info, const struct disk_seed *seeds);
/* Does the target's answer name that disk? */
bool disk_seeds_have(const json_t *answer, const char *alias);

#endif
