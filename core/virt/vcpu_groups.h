/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The cgroups that libvirt makes for a VM's vCPUs, and how much processor time each may use: the stun's actuator.
 * Version 1 (cpu.cfs_quota_us) and 2 (cpu.max). Only groups named vcpuN are ever touched.
 *
 * What is taken is a share of what the vCPUs use, not of what they might: a guest that is busy a tenth of the time
 * would not notice the loss of half of the rest. Periods are 10 ms, so that a stun is milliseconds; longer where
 * the kernel's least quota (1 ms) makes it necessary.
 *
 * Thread: the loop thread; the files are the kernel's and answer at once.
 */
#ifndef FERRY_CORE_VCPU_GROUPS_H
#define FERRY_CORE_VCPU_GROUPS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "core/base/error.h"

struct vcpu_groups;

/* The groups of these threads (of QEMU's vCPUs). 0 also when they have none to use: then *ret only knows what they
 * use, vcpu_groups_usable() is false, and @err says why. */
int vcpu_groups_find(const int *thread_ids, unsigned count, struct vcpu_groups **ret,
                     struct error *err);
void vcpu_groups_free(struct vcpu_groups *g);
bool vcpu_groups_usable(const struct vcpu_groups *g);
unsigned vcpu_groups_count(const struct vcpu_groups *g);

/* What is to be put back, for the journal: see vcpu_groups_undo(). New reference. */
json_t *vcpu_groups_to_json(const struct vcpu_groups *g);

/* What the vCPUs used since the last call (0 at the first), in processors: all together, and the busiest one. */
void vcpu_groups_use(struct vcpu_groups *g, uint64_t now_ns, double *ret_total,
                     double *ret_busiest);

/* Each vCPU may use @share (0 to 1) of one processor at most; never more than before. -errno. */
int vcpu_groups_limit(struct vcpu_groups *g, double share);
/* Puts back what vcpu_groups_find() found. A group that is gone needs nothing. -errno of the first failure. */
int vcpu_groups_restore(struct vcpu_groups *g);
/* The same from the journal, after a restart. */
int vcpu_groups_undo(const json_t *saved);

#endif
