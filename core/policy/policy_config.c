/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_config.h"

#include <errno.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>

#include "core/base/macros.h"

/* --- those that are shipped ---------------------------------------------------------------- */

enum { SHIPPED_SAYS_MAX = 12 };

static const struct shipped {
    const char *name, *meaning;
    struct {
        enum policy_setting setting;
        uint64_t value;
    } says[SHIPPED_SAYS_MAX];
    unsigned count;
} shipped[] = {
    {POLICY_STANDARD,
     "any distance: memory through the link, the guest slowed down where it must be",
     {{POLICY_CONVERGE, CONVERGE_STUN},
      {POLICY_COMPRESSION, COMPRESSION_FERRY},
      {POLICY_MEMORY_PATH, MEMORY_TUNNEL}},
     3},
    {"minimal-downtime",
     "stands still for as short as can be; rather given up than long",
     {{POLICY_CONVERGE, CONVERGE_STUN},
      {POLICY_STUN_MAX_PERCENT, 99},
      {POLICY_COMPRESSION, COMPRESSION_FERRY},
      {POLICY_MEMORY_PATH, MEMORY_TUNNEL},
      {POLICY_DOWNTIME_MAX_MS, 300},
      {POLICY_DOWNTIME_LAST_MS, 500},
      {POLICY_TIME_LIMIT_S, 1800},
      {POLICY_AT_TIME_LIMIT, AT_LIMIT_ABORT}},
     8},
    {"suspend-if-needed",
     "comes to an end: a guest that does not converge in time stands still for the rest",
     {{POLICY_CONVERGE, CONVERGE_STUN},
      {POLICY_STUN_MAX_PERCENT, 80},
      {POLICY_COMPRESSION, COMPRESSION_FERRY},
      {POLICY_MEMORY_PATH, MEMORY_TUNNEL},
      {POLICY_TIME_LIMIT_S, 300},
      {POLICY_AT_TIME_LIMIT, AT_LIMIT_SUSPEND}},
     6},
    {"post-copy",
     "one pass, then the VM runs at the target and pulls the rest: until that is there, the loss "
     "of either "
     "site loses the VM",
     {{POLICY_CONVERGE, CONVERGE_NONE},
      {POLICY_COMPRESSION, COMPRESSION_FERRY},
      {POLICY_MEMORY_PATH, MEMORY_TUNNEL},
      {POLICY_POST_COPY, POST_COPY_AFTER_FIRST_PASS}},
     4},
    {"very-large",
     "much memory on a trusted network: direct, parallel, zero-copy, more downtime",
     {{POLICY_CONVERGE, CONVERGE_AUTO_CONVERGE},
      {POLICY_COMPRESSION, COMPRESSION_NONE},
      {POLICY_MEMORY_PATH, MEMORY_DIRECT},
      {POLICY_PARALLEL, PARALLEL_AUTO},
      {POLICY_ZERO_COPY, 1},
      {POLICY_DOWNTIME_MS, 500},
      {POLICY_DOWNTIME_MAX_MS, 2000},
      {POLICY_DOWNTIME_DOUBLE_S, 60},
      {POLICY_DOWNTIME_LAST_MS, 5000}},
     9},
    {"lan-direct",
     "a fast, trusted network: memory from QEMU to QEMU, not encrypted",
     {{POLICY_CONVERGE, CONVERGE_AUTO_CONVERGE},
      {POLICY_COMPRESSION, COMPRESSION_NONE},
      {POLICY_MEMORY_PATH, MEMORY_DIRECT},
      {POLICY_PARALLEL, PARALLEL_AUTO}},
     4},
};

static const struct shipped *find_shipped(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(shipped); i++) {
        if (strcmp(shipped[i].name, name) == 0)
            return &shipped[i];
    }
    return NULL;
}

static const struct policy_own *find_own(const struct policy_config *c, const char *name)
{
    for (unsigned i = 0; i < c->policy_count; i++) {
        if (strcmp(c->policies[i].name, name) == 0)
            return &c->policies[i];
    }
    return NULL;
}

/* --- sections ------------------------------------------------------------------------------ */

/* The name after "policy ", or NULL. */
static const char *rest_of(const char *section, const char *kind)
{
    size_t len = strlen(kind);

    return strncmp(section, kind, len) == 0 && section[len] == ' ' ? section + len + 1 : NULL;
}

bool policy_config_owns(const char *section)
{
    return strcmp(section, "service") == 0 || rest_of(section, "policy") ||
           rest_of(section, "group") || rest_of(section, "vm");
}

/* 1: taken; 0: empty, or too long. */
static int set_text(char *to, size_t cap, const char *value)
{
    if (!value[0] || strlen(value) >= cap)
        return 0;
    memcpy(to, value, strlen(value) + 1);
    return 1;
}

static int set_policy(struct policy_config *c, const char *name, const char *key, const char *value)
{
    struct policy_own *p = (struct policy_own *)find_own(c, name);

    if (!p && (!policy_name_ok(name) || c->policy_count == POLICIES_MAX))
        return 0;
    if (!p) {
        p = &c->policies[c->policy_count++];
        snprintf(p->name, sizeof(p->name), "%s", name);
    }
    if (strcmp(key, "based_on") == 0)
        return policy_name_ok(value) ? set_text(p->based_on, sizeof(p->based_on), value) : 0;
    if (strcmp(key, "meaning") == 0)
        return set_text(p->meaning, sizeof(p->meaning), value);
    if (strcmp(key, "policy") == 0)
        return -1;
    return policy_choices_set(&p->choices, key, value);
}

static int set_group(struct policy_config *c, const char *name, const char *key, const char *value)
{
    struct policy_group *g = c->groups;

    while (g < c->groups + c->group_count && strcmp(g->name, name) != 0)
        g++;
    if (g == c->groups + POLICY_GROUPS_MAX || !policy_name_ok(name))
        return 0;
    if (g == c->groups + c->group_count) {
        c->group_count++;
        snprintf(g->name, sizeof(g->name), "%s", name);
    }
    if (strcmp(key, "vms") == 0)
        return set_text(g->vms, sizeof(g->vms), value);
    return policy_choices_set(&g->choices, key, value);
}

static int set_vm(struct policy_config *c, const char *name, const char *key, const char *value)
{
    struct policy_vm *vm = (struct policy_vm *)policy_config_vm(c, name);

    if (!vm && (c->vm_count == POLICY_VMS_MAX || !name[0] || strlen(name) >= sizeof(vm->name)))
        return 0;
    if (!vm) {
        vm = &c->vms[c->vm_count++];
        snprintf(vm->name, sizeof(vm->name), "%s", name);
    }
    return policy_choices_set(&vm->choices, key, value);
}

int policy_config_set(struct policy_config *c, const char *section, const char *key,
                      const char *value)
{
    const char *name;

    if (strcmp(section, "service") == 0)
        return policy_choices_set(&c->service, key, value);
    if ((name = rest_of(section, "policy")))
        return set_policy(c, name, key, value);
    if ((name = rest_of(section, "group")))
        return set_group(c, name, key, value);
    name = rest_of(section, "vm");
    return name ? set_vm(c, name, key, value) : -1;
}

/* --- the whole ----------------------------------------------------------------------------- */

static const char WHAT[] = "read the configuration";

/* What an own policy goes on to; empty: nothing. One that has a shipped one's name alters that. */
static const char *base_of(const struct policy_own *p)
{
    return p->based_on[0] ? p->based_on : find_shipped(p->name) ? p->name : "";
}

static bool is_last(const struct policy_own *p, const char *base)
{
    return strcmp(base, p->name) == 0; /* the shipped one of its name */
}

static int check_bases(const struct policy_config *c, const struct policy_own *p, const char *path,
                       struct error *err)
{
    const struct policy_own *at = p;
    const char *base = base_of(p);

    for (unsigned depth = 0; base[0]; depth++) {
        if (depth == POLICY_DEPTH_MAX)
            return error_set(err, -EINVAL, WHAT, "let one of them be based on none",
                             "%s: based_on in [policy %s] leads in a circle, or over more than %d "
                             "policies",
                             path, p->name, POLICY_DEPTH_MAX);
        if (is_last(at, base) ? !find_shipped(base) : !policy_config_knows(c, base))
            return error_set(err, -EINVAL, WHAT, "`ferry policies` lists them",
                             "%s: based_on in [policy %s]: there is no%s policy '%s'", path,
                             at->name, is_last(at, base) ? " shipped" : "", base);
        if (is_last(at, base) || !(at = find_own(c, base)))
            break;
        base = base_of(at);
    }
    return 0;
}

static int check_choices(const struct policy_config *c, const struct policy_choices *choices,
                         const char *kind, const char *name, const char *path, struct error *err)
{
    if (!choices->policy[0] || policy_config_knows(c, choices->policy))
        return 0;
    return error_set(err, -EINVAL, WHAT, "`ferry policies` lists them",
                     "%s: policy in [%s%s%s]: there is no policy '%s'", path, kind,
                     name[0] ? " " : "", name, choices->policy);
}

int policy_config_check(const struct policy_config *c, const char *path, struct error *err)
{
    int r = check_choices(c, &c->service, "service", "", path, err);

    for (unsigned i = 0; r == 0 && i < c->policy_count; i++)
        r = check_bases(c, &c->policies[i], path, err);
    for (unsigned i = 0; r == 0 && i < c->group_count; i++) {
        r = check_choices(c, &c->groups[i].choices, "group", c->groups[i].name, path, err);
        if (r == 0 && !c->groups[i].vms[0])
            r = error_set(err, -EINVAL, WHAT, "add vms = PATTERN, PATTERN",
                          "%s: [group %s] has no vms", path, c->groups[i].name);
    }
    for (unsigned i = 0; r == 0 && i < c->vm_count; i++)
        r = check_choices(c, &c->vms[i].choices, "vm", c->vms[i].name, path, err);
    return r;
}

/* --- questions ----------------------------------------------------------------------------- */

bool policy_config_knows(const struct policy_config *c, const char *name)
{
    return find_own(c, name) || find_shipped(name);
}

static bool shipped_value(const char *name, enum policy_setting s, uint64_t *ret)
{
    const struct shipped *p = find_shipped(name);

    for (unsigned i = 0; p && i < p->count; i++) {
        if (p->says[i].setting == s) {
            *ret = p->says[i].value;
            return true;
        }
    }
    return false;
}

bool policy_config_value(const struct policy_config *c, const char *name, enum policy_setting s,
                         uint64_t *ret)
{
    const struct policy_own *p = find_own(c, name);

    for (unsigned depth = 0; p && depth <= POLICY_DEPTH_MAX; depth++) {
        if (policy_choices_has(&p->choices, s)) {
            *ret = p->choices.value[s];
            return true;
        }
        name = base_of(p);
        p = is_last(p, name) ? NULL : find_own(c, name);
    }
    return !p && shipped_value(name, s, ret);
}

static bool fits(const char *patterns, const char *vm)
{
    char copy[POLICY_PATTERNS_BYTES], *save = NULL;

    snprintf(copy, sizeof(copy), "%s", patterns);
    for (char *word = strtok_r(copy, " ,", &save); word; word = strtok_r(NULL, " ,", &save)) {
        if (fnmatch(word, vm, 0) == 0)
            return true;
    }
    return false;
}

const struct policy_group *policy_config_group(const struct policy_config *c, const char *vm)
{
    for (unsigned i = 0; i < c->group_count; i++) {
        if (fits(c->groups[i].vms, vm))
            return &c->groups[i];
    }
    return NULL;
}

const struct policy_vm *policy_config_vm(const struct policy_config *c, const char *vm)
{
    for (unsigned i = 0; i < c->vm_count; i++) {
        if (strcmp(c->vms[i].name, vm) == 0)
            return &c->vms[i];
    }
    return NULL;
}

const char *policy_config_name(const struct policy_config *c, unsigned index)
{
    if (index < ARRAY_SIZE(shipped))
        return shipped[index].name;
    index -= (unsigned)ARRAY_SIZE(shipped);
    for (unsigned i = 0; i < c->policy_count; i++) {
        if (!find_shipped(c->policies[i].name) && index-- == 0)
            return c->policies[i].name;
    }
    return NULL;
}

const char *policy_config_meaning(const struct policy_config *c, const char *name)
{
    const struct policy_own *own = find_own(c, name);
    const struct shipped *p = find_shipped(name);

    return own && own->meaning[0] ? own->meaning : p ? p->meaning : "";
}

const char *policy_config_base(const struct policy_config *c, const char *name)
{
    const struct policy_own *own = find_own(c, name);

    return own ? base_of(own) : "";
}

bool policy_config_is_shipped(const char *name)
{
    return find_shipped(name) != NULL;
}
