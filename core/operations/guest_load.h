/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a guest does while it is left alone: how much of its memory it dirties in one second and in three, which tells
 * its rate and the set that it works on; and what it writes to its disks meanwhile. About five seconds, in which QEMU
 * samples some pages twice; the guest does not feel it.
 *
 *     count what it wrote --> sample 1 s --> sample 3 s --> count again
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_GUEST_LOAD_H
#define FERRY_CORE_GUEST_LOAD_H

#include "core/virt/virt.h"

enum { GUEST_LOAD_LONG_S = 3 };

struct guest_load_figures {
    bool dirty_known;
    uint64_t dirty_bytes_s;    /* in one second */
    uint64_t dirty_long_bytes; /* in GUEST_LOAD_LONG_S; 0: not known */
    uint64_t disk_write_bytes_s;
};

struct guest_load {
    struct virt *virt;
    char uuid[DOMAIN_UUID_BYTES];
    enum guest_load_stage {
        GUEST_LOAD_OVER,
        GUEST_LOAD_COUNTING,
        GUEST_LOAD_SHORT,
        GUEST_LOAD_LONG,
    } stage;
    bool asking; /* libvirt: this must stay where it is */
    uint64_t begun_ns, written_bytes, sample_ns;
    struct guest_load_figures figures;
};

void guest_load_start(struct guest_load *l, struct virt *virt, const char *uuid);
/* Every 100 ms or so. True: it goes on. */
bool guest_load_goes_on(struct guest_load *l);

#endif
