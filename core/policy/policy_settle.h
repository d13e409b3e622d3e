/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Conflicts of a policy with itself, with the two hosts, and with what the move is: each is settled by taking the
 * nearest thing that can be had, and noted; the move goes on in every case. Pure.
 *
 *   wanted                          | taken when                                    | instead
 *   --------------------------------+-----------------------------------------------+------------------
 *   memory_path direct              | a site requires encryption; the move is to be | tunnel
 *                                   | held, or verified; it is a drill              |
 *   zero_copy, parallel             | memory goes through the tunnel                | none: the link has its own
 *   zero_copy without parallel      |                                               | parallel turned on
 *   zero_copy                       | the host's QEMU, libvirt or kernel cannot     | left out
 *   compression                     | parallel: QEMU sends pages as they are        | none
 *   compression ferry               | memory is direct; a site has no codec         | none
 *   post_copy, and as at_time_limit | it is a drill; memory is direct; the monitor is  | never; abort
 *                                   | not allowed; the target's host or ferryd cannot |
 *   converge stun                   | memory is direct; the monitor is not allowed  | auto-converge
 *   write_slack_ms                  | the monitor is not allowed                    | 0: the copy is not slowed
 */
#ifndef FERRY_CORE_POLICY_SETTLE_H
#define FERRY_CORE_POLICY_SETTLE_H

#include "core/policy/policy_resolve.h"

struct policy_facts {
    bool drill, verify;       /* it is a drill; its disks are to be compared */
    bool monitor, codec;      /* QMP may be used; both sites have ferry's codec */
    const char *encrypted;    /* why memory must be encrypted; NULL: it need not be */
    const char *no_post_copy; /* why the target's host cannot; NULL: it can */
    const char *no_zero_copy; /* why the host cannot; NULL: it can */
};

void policy_settle(struct policy *p, const struct policy_facts *facts);

/* Whether a move by that policy may come to switch. */
bool policy_may_post_copy(const struct policy *p);
/*
 * Why this host's QEMU cannot take a VM in post-copy; NULL: it can. @libvirt_version: as below. @sysctl:
 * vm.unprivileged_userfaultfd, -1: the kernel has no userfaultfd. @privileged: QEMU runs as root.
 */
const char *policy_no_post_copy(unsigned long libvirt_version, int sysctl, bool privileged);

/* Why this host cannot send memory from where it lies, by versions (1000000 * major + ...); NULL: it can. */
const char *policy_no_zero_copy(unsigned long libvirt_version, unsigned long qemu_version,
                                const char *kernel_release);

#endif
