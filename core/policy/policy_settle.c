/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_settle.h"

#include <assert.h>
#include <stdio.h>

/* VIR_MIGRATE_POSTCOPY_RESUME; what it needs of QEMU is older than any that it takes. */
enum { POST_COPY_LIBVIRT = 8005000 };
/* VIR_MIGRATE_ZEROCOPY; the parameter zero-copy-send; MSG_ZEROCOPY. */
enum { LIBVIRT_NEEDED = 8005000, QEMU_NEEDED = 7001000, KERNEL_MAJOR = 4, KERNEL_MINOR = 14 };

static void take(struct policy *p, enum policy_setting s, uint64_t value, const char *why)
{
    struct policy_substitution *sub = &p->substitutions[p->substitution_count];

    if (p->of[s].value == value)
        return;
    assert(p->substitution_count < POLICY_SUBSTITUTIONS_MAX); /* each rule below, once */
    *sub = (struct policy_substitution){.setting = s, .wanted = p->of[s].value, .taken = value};
    snprintf(sub->why, sizeof(sub->why), "%s", why);
    p->of[s].value = value;
    p->substitution_count++;
}

/* Why memory cannot go past the link; NULL: it can. */
static const char *no_direct_way(const struct policy *p, const struct policy_facts *f)
{
    if (f->encrypted)
        return f->encrypted;
    if (f->drill)
        return "a drill's memory goes through the link";
    if (f->verify)
        return "disks are compared before memory is let into the link";
    return policy_get(p, POLICY_HOLD) ? "a held move keeps its memory back in the link" : NULL;
}

static void settle_path(struct policy *p, const struct policy_facts *f)
{
    const char *why = no_direct_way(p, f);

    if (why)
        take(p, POLICY_MEMORY_PATH, MEMORY_TUNNEL, why);
}

static void settle_tunnel(struct policy *p, const struct policy_facts *f)
{
    take(p, POLICY_ZERO_COPY, 0, "memory through the link is encrypted");
    take(p, POLICY_PARALLEL, PARALLEL_OFF, "the link has connections of its own");
    if (policy_get(p, POLICY_COMPRESSION) == COMPRESSION_FERRY && !f->codec)
        take(p, POLICY_COMPRESSION, COMPRESSION_NONE, "a site has ferry's codec off");
    if (policy_get(p, POLICY_CONVERGE) == CONVERGE_STUN && !f->monitor)
        take(p, POLICY_CONVERGE, CONVERGE_AUTO_CONVERGE, "a stun needs [libvirt] monitor = yes");
}

static void settle_direct(struct policy *p, const struct policy_facts *f)
{
    if (policy_get(p, POLICY_ZERO_COPY) && f->no_zero_copy)
        take(p, POLICY_ZERO_COPY, 0, f->no_zero_copy);
    if (policy_get(p, POLICY_ZERO_COPY) && !policy_get(p, POLICY_PARALLEL))
        take(p, POLICY_PARALLEL, PARALLEL_AUTO, "zero-copy needs parallel connections");
    if (policy_get(p, POLICY_COMPRESSION) == COMPRESSION_FERRY)
        take(p, POLICY_COMPRESSION, COMPRESSION_NONE, "ferry does not see direct memory");
    else if (policy_get(p, POLICY_PARALLEL))
        take(p, POLICY_COMPRESSION, COMPRESSION_NONE,
             "QEMU sends pages as they are over parallel connections");
    if (policy_get(p, POLICY_CONVERGE) == CONVERGE_STUN)
        take(p, POLICY_CONVERGE, CONVERGE_AUTO_CONVERGE,
             "ferry does not see how direct memory converges");
}

/* After the memory's path is settled. */
static void settle_post_copy(struct policy *p, const struct policy_facts *f)
{
    const char *why = f->drill ? "a drill's clone must have all of its memory"
                      : policy_get(p, POLICY_MEMORY_PATH) == MEMORY_DIRECT
                          ? "what breaks on the way is made again through the link alone"
                      : !f->monitor
                          ? "taking a VM back before the decision needs [libvirt] monitor = yes"
                          : f->no_post_copy;

    if (!why)
        return;
    take(p, POLICY_POST_COPY, POST_COPY_NEVER, why);
    if (policy_get(p, POLICY_AT_TIME_LIMIT) == AT_LIMIT_POST_COPY)
        take(p, POLICY_AT_TIME_LIMIT, AT_LIMIT_ABORT, why);
}

bool policy_may_post_copy(const struct policy *p)
{
    return policy_get(p, POLICY_POST_COPY) != POST_COPY_NEVER ||
           (policy_get(p, POLICY_TIME_LIMIT_S) &&
            policy_get(p, POLICY_AT_TIME_LIMIT) == AT_LIMIT_POST_COPY);
}

const char *policy_no_post_copy(unsigned long libvirt_version, int sysctl, bool privileged)
{
    if (libvirt_version < POST_COPY_LIBVIRT)
        return "post-copy that recovers needs libvirt 8.5 at the target";
    if (sysctl < 0)
        return "the target's kernel has no userfaultfd";
    if (sysctl == 0 && !privileged)
        return "the target's QEMU may not use userfaultfd (sysctl vm.unprivileged_userfaultfd=1)";
    return NULL;
}

void policy_settle(struct policy *p, const struct policy_facts *facts)
{
    p->substitution_count = 0;
    settle_path(p, facts);
    if (policy_get(p, POLICY_MEMORY_PATH) == MEMORY_DIRECT)
        settle_direct(p, facts);
    else
        settle_tunnel(p, facts);
    settle_post_copy(p, facts);
    if (!facts->monitor)
        take(p, POLICY_WRITE_SLACK_MS, 0, "it needs [libvirt] monitor = yes");
}

const char *policy_no_zero_copy(unsigned long libvirt_version, unsigned long qemu_version,
                                const char *kernel_release)
{
    unsigned major = 0, minor = 0;

    if (libvirt_version < LIBVIRT_NEEDED)
        return "zero-copy needs libvirt 8.5";
    if (qemu_version < QEMU_NEEDED)
        return "zero-copy needs QEMU 7.1";
    if (sscanf(kernel_release, "%u.%u", &major, &minor) != 2 || major < KERNEL_MAJOR ||
        (major == KERNEL_MAJOR && minor < KERNEL_MINOR))
        return "zero-copy needs Linux 4.14";
    return NULL;
}
