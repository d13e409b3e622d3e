/* SPDX-License-Identifier: Apache-2.0 */
/* Is a host large enough for a VM, disks apart? What it lacks becomes lines "processors" and "memory" of a check. */
#ifndef FERRY_CORE_HOST_ROOM_H
#define FERRY_CORE_HOST_ROOM_H

#include "core/virt/domain_xml.h"

struct host_room {
    unsigned cpus, nodes; /* processors that are there; memory nodes. 0: not known */
    uint64_t
        free_bytes; /* of memory, with what the kernel gives back when asked to; 0: not known */
};

/* @memory_bytes: that the VM has; 0: not known. To be pinned to what is not there fails, as libvirt would; fewer
 * processors and less memory than the VM has are warnings: a host may be overcommitted on purpose. */
void host_room_check(const struct host_room *room, const struct domain_platform *platform,
                     uint64_t memory_bytes, struct check_report *report);

#endif
