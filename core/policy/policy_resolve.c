/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_resolve.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const level_names[POLICY_LEVELS] = {
    [POLICY_LEVEL_DEFAULT] = "default", [POLICY_LEVEL_SERVICE] = "service",
    [POLICY_LEVEL_GROUP] = "group",     [POLICY_LEVEL_METADATA] = "vm metadata",
    [POLICY_LEVEL_VM] = "vm",           [POLICY_LEVEL_REQUEST] = "request"};

static int choose(const struct policy_config *c, const char *vm,
                  const struct policy_choices *const levels[POLICY_LEVELS], struct policy *ret,
                  struct error *err)
{
    snprintf(ret->name, sizeof(ret->name), "%s", POLICY_STANDARD);
    for (int l = POLICY_LEVELS - 1; l > POLICY_LEVEL_DEFAULT; l--) {
        if (!levels[l] || !levels[l]->policy[0])
            continue;
        if (!policy_config_knows(c, levels[l]->policy))
            return error_set(err, -ENOENT, "choose the policy",
                             "see `ferry policies`; add a [policy] section and reload",
                             "no policy is named '%s', as the %s of %s says", levels[l]->policy,
                             level_names[l], vm);
        snprintf(ret->name, sizeof(ret->name), "%s", levels[l]->policy);
        ret->chosen = (enum policy_level)l;
        return 0;
    }
    return 0;
}

static void resolve_one(const struct policy_config *c,
                        const struct policy_choices *const levels[POLICY_LEVELS],
                        struct policy *ret, enum policy_setting s)
{
    struct policy_value *v = &ret->of[s];

    for (int l = POLICY_LEVELS - 1; l >= POLICY_LEVEL_DEFAULT; l--) {
        v->level = (enum policy_level)l;
        if (levels[l] && policy_choices_has(levels[l], s)) {
            v->value = levels[l]->value[s];
            return;
        }
        if (ret->chosen == v->level && policy_config_value(c, ret->name, s, &v->value)) {
            v->by_policy = true;
            return;
        }
    }
    v->value = policy_setting_default(s);
}

int policy_resolve(const struct policy_config *c, const char *vm,
                   const struct policy_choices *metadata, const struct policy_choices *request,
                   struct policy *ret, struct error *err)
{
    const struct policy_group *group = policy_config_group(c, vm);
    const struct policy_vm *one = policy_config_vm(c, vm);
    const struct policy_choices *const levels[POLICY_LEVELS] = {
        [POLICY_LEVEL_SERVICE] = &c->service,
        [POLICY_LEVEL_GROUP] = group ? &group->choices : NULL,
        [POLICY_LEVEL_METADATA] = metadata,
        [POLICY_LEVEL_VM] = one ? &one->choices : NULL,
        [POLICY_LEVEL_REQUEST] = request};
    struct policy p = {.chosen = POLICY_LEVEL_DEFAULT};
    int r = choose(c, vm, levels, &p, err);

    if (r < 0)
        return r;
    if (group)
        snprintf(p.group, sizeof(p.group), "%s", group->name);
    for (int s = 0; s < POLICY_SETTINGS; s++)
        resolve_one(c, levels, &p, (enum policy_setting)s);
    *ret = p;
    return 0;
}

static const char *level_text(const struct policy *p, enum policy_level level, char *buf,
                              size_t cap)
{
    snprintf(buf, cap, "%s%s%s", level_names[level], level == POLICY_LEVEL_GROUP ? " " : "",
             level == POLICY_LEVEL_GROUP ? p->group : "");
    return buf;
}

const char *policy_origin(const struct policy *p, enum policy_setting s, char *buf, size_t cap)
{
    const struct policy_value *v = &p->of[s];
    char level[POLICY_NAME_BYTES + 16];

    level_text(p, v->level, level, sizeof(level));
    if (v->by_policy)
        snprintf(buf, cap, "policy %s (%s)", p->name, level);
    else
        snprintf(buf, cap, "%s", level);
    return buf;
}

const char *policy_chosen_by(const struct policy *p, char *buf, size_t cap)
{
    return level_text(p, p->chosen, buf, cap);
}
