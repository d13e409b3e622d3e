/* SPDX-License-Identifier: Apache-2.0 */
#include "core/virt/host_room.h"

#include <errno.h>

static void check_processors(const struct host_room *room, const struct domain_platform *p,
                             struct check_report *report)
{
    struct error err;

    if (room->cpus && p->pinned_cpus > room->cpus) {
        error_set(&err, -ENODEV, "receive the VM",
                  "pin it elsewhere: virsh vcpupin, emulatorpin, iothreadpin",
                  "it is pinned to processor %u, and the host has %u", p->pinned_cpus - 1,
                  room->cpus);
        check_fail(report, "processors", &err);
    }
    if (room->nodes && p->pinned_nodes > room->nodes) {
        error_set(&err, -ENODEV, "receive the VM", "bind it elsewhere: virsh numatune",
                  "it is bound to memory node %u, and the host has %u", p->pinned_nodes - 1,
                  room->nodes);
        check_fail(report, "processors", &err);
    }
    if (!room->cpus || !p->vcpus)
        return;
    if (p->vcpus > room->cpus)
        check_warn(report, "processors", "give it fewer: virsh setvcpus",
                   "it has %u, and the host %u: it will be slower there", p->vcpus, room->cpus);
    check_pass_unless_said(report, "processors", "the host has %u, the VM %u", room->cpus,
                           p->vcpus);
}

void host_room_check(const struct host_room *room, const struct domain_platform *p,
                     uint64_t memory_bytes, struct check_report *report)
{
    unsigned long long there = room->free_bytes >> 20, needed = memory_bytes >> 20;

    check_processors(room, p, report);
    if (!room->free_bytes || !memory_bytes)
        return;
    if (room->free_bytes < memory_bytes)
        check_warn(report, "memory", "make room there, or choose another target",
                   "the VM has %llu MiB, and %llu MiB are free there", needed, there);
    else
        check_pass(report, "memory", "%llu MiB are free, the VM has %llu MiB", there, needed);
}
