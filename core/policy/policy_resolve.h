/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What holds for one move: each setting's value, and who said it.
 *
 *   request  >  [vm NAME]  >  the VM's metadata  >  [group NAME]  >  [service]  >  shipped default
 *
 * One policy is in force, the one that is named nearest to the request; what it says counts just below what the level
 * that named it says itself, and above everything further away. A policy that nobody names is POLICY_STANDARD, below
 * the service. Other policies named further away count for nothing.
 */
#ifndef FERRY_CORE_POLICY_RESOLVE_H
#define FERRY_CORE_POLICY_RESOLVE_H

#include "core/policy/policy_config.h"

enum policy_level {
    POLICY_LEVEL_DEFAULT,
    POLICY_LEVEL_SERVICE,
    POLICY_LEVEL_GROUP,
    POLICY_LEVEL_METADATA,
    POLICY_LEVEL_VM,
    POLICY_LEVEL_REQUEST,
    POLICY_LEVELS
};

enum { POLICY_SUBSTITUTIONS_MAX = 12 };

struct policy {
    char name[POLICY_NAME_BYTES];  /* of the one in force */
    enum policy_level chosen;      /* who named it */
    char group[POLICY_NAME_BYTES]; /* that the VM is in; empty: none */
    struct policy_value {
        uint64_t value;
        enum policy_level level;
        bool by_policy; /* said by the policy that this level named */
    } of[POLICY_SETTINGS];
    /* What could not be had, and what was taken instead: core/policy/policy_settle.h. */
    struct policy_substitution {
        enum policy_setting setting;
        uint64_t wanted, taken;
        char why[160];
    } substitutions[POLICY_SUBSTITUTIONS_MAX];
    unsigned substitution_count;
};

static inline uint64_t policy_get(const struct policy *p, enum policy_setting s)
{
    return p->of[s].value;
}

/* @metadata and @request may be NULL. -ENOENT: one of them names a policy that there is not. */
int policy_resolve(const struct policy_config *c, const char *vm,
                   const struct policy_choices *metadata, const struct policy_choices *request,
                   struct policy *ret, struct error *err);

/* "default", "service", "group web", "vm metadata", "vm", "request", "policy wan (service)". Returns @buf. */
const char *policy_origin(const struct policy *p, enum policy_setting s, char *buf, size_t cap);
/* Who named the policy: as above, without a policy's name. */
const char *policy_chosen_by(const struct policy *p, char *buf, size_t cap);

#endif
