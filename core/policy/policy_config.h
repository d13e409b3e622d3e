/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies, groups and VMs as the configuration has them:
 *
 *   [service]        what this ferryd says of all its moves: any setting, and policy = NAME
 *   [policy NAME]    a policy of one's own, or a shipped one altered; based_on = NAME of another
 *   [group NAME]     vms = GLOB, GLOB, any setting, and policy =; of two groups that fit the first in the file counts
 *   [vm NAME]        any setting, and policy =
 *
 * Part of struct config; plain values, copied whole at SIGHUP.
 */
#ifndef FERRY_CORE_POLICY_CONFIG_H
#define FERRY_CORE_POLICY_CONFIG_H

#include "core/base/error.h"
#include "core/policy/policy.h"

enum {
    POLICIES_MAX = 32, /* of one's own */
    POLICY_GROUPS_MAX = 64,
    POLICY_VMS_MAX = 256,
    POLICY_DEPTH_MAX = 8, /* policies based on each other */
    POLICY_PATTERNS_BYTES = 512,
    POLICY_VM_BYTES = 128 /* as DOMAIN_NAME_BYTES */
};

/* The policy of whoever names none. */
#define POLICY_STANDARD "wan"

struct policy_config {
    struct policy_choices service;
    struct policy_own {
        char name[POLICY_NAME_BYTES], based_on[POLICY_NAME_BYTES]; /* empty: see policy_base() */
        char meaning[POLICY_TEXT_BYTES];
        struct policy_choices choices;
    } policies[POLICIES_MAX];
    struct policy_group {
        char name[POLICY_NAME_BYTES];
        char vms
            [POLICY_PATTERNS_BYTES]; /* patterns as of the shell, separated by blanks or commas */
        struct policy_choices choices;
    } groups[POLICY_GROUPS_MAX];
    struct policy_vm {
        char name[POLICY_VM_BYTES];
        struct policy_choices choices;
    } vms[POLICY_VMS_MAX];
    unsigned policy_count, group_count, vm_count;
};

/* Whether that section is one of those above. */
bool policy_config_owns(const char *section);
/* 1: set; 0: unusable value, or one section too many; -1: there is no such setting. */
int policy_config_set(struct policy_config *c, const char *section, const char *key,
                      const char *value);
/* Every policy that is named exists, and none is based on itself. @path is for the error. */
int policy_config_check(const struct policy_config *c, const char *path, struct error *err);

/* Whether there is a policy of that name, shipped or one's own. */
bool policy_config_knows(const struct policy_config *c, const char *name);
/* What policy @name, or what it is based on, says of @s. False: nothing. */
bool policy_config_value(const struct policy_config *c, const char *name, enum policy_setting s,
                         uint64_t *ret);
/* The first group that @vm is in; NULL: none. */
const struct policy_group *policy_config_group(const struct policy_config *c, const char *vm);
const struct policy_vm *policy_config_vm(const struct policy_config *c, const char *vm);

/* All of them, one's own after those shipped: its name, or NULL at the end. */
const char *policy_config_name(const struct policy_config *c, unsigned index);
/* "": it does not say. Its base; "": none. Whether ferry ships it. */
const char *policy_config_meaning(const struct policy_config *c, const char *name);
const char *policy_config_base(const struct policy_config *c, const char *name);
bool policy_config_is_shipped(const char *name);

#endif
