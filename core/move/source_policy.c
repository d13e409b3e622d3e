/* SPDX-License-Identifier: Apache-2.0 */
/* The policy of a move: resolved when the VM is known, settled when the target is. */
#include "core/move/source_policy.h"

#include <linux/capability.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/json_text.h"
#include "core/move/local_socket.h"
#include "core/move/move_source_private.h"
#include "core/policy/policy_settle.h"

const char *source_policy_encrypted(const struct service *s, const char *peer, const json_t *said)
{
    const struct config_peer *p = config_peer_by_name(s->config, peer);

    if (!p || !(p->permissions & PEER_MAY_DIRECT_MEMORY))
        return "this site wants memory encrypted (no direct-memory in the peer's allow =)";
    if (!json_is_true(json_object_get(said, "direct_memory")))
        return "the target wants memory encrypted (no direct-memory in its allow =)";
    return NULL;
}

/* What follows @key in a line of /proc/PID/@file; false: it cannot be seen. */
static bool read_proc(int pid, const char *file, const char *key, char *buf, size_t cap)
{
    char path[64], line[256];
    bool found = false;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, file);
    f = pid > 0 ? fopen(path, "re") : NULL;
    while (f && !found && fgets(line, sizeof(line), f)) {
        found = strncmp(line, key, strlen(key)) == 0;
        if (found)
            snprintf(buf, cap, "%s", line + strlen(key));
    }
    if (f)
        fclose(f);
    return found;
}

/* Whether libvirtd may allow a process to lock more memory. Who listens on its socket is it, or who started it. What
 * cannot be seen is not held against it. */
static bool libvirtd_may_raise_limits(const char *socket_path)
{
    struct ucred who = {0};
    socklen_t len = sizeof(who);
    int fd = local_connect_fd(socket_path);
    char text[64];

    if (fd >= 0) {
        getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len);
        close(fd);
    }
    return !read_proc((int)who.pid, "status", "CapEff:", text, sizeof(text)) ||
           (strtoull(text, NULL, 16) >> CAP_SYS_RESOURCE & 1);
}

/* What the VM's QEMU may lock now; 0: it cannot be seen. libvirt's file of its pid says which one it is. */
static uint64_t qemu_lock_limit(const char *vm)
{
    char text[PATH_MAX];
    int pid = 0;
    FILE *f;

    snprintf(text, sizeof(text), "/run/libvirt/qemu/%s.pid", vm);
    f = fopen(text, "re");
    if (f && fgets(text, sizeof(text), f))
        pid = (int)strtol(text, NULL, 10);
    if (f)
        fclose(f);
    if (!read_proc(pid, "limits", "Max locked memory", text, sizeof(text)))
        return 0;
    return strstr(text, "unlimited") == text + strspn(text, " ") ? UINT64_MAX
                                                                 : strtoull(text, NULL, 10);
}

const char *source_policy_no_zero_copy(const struct service *s, const struct virt_description *d)
{
    struct utsname host;
    const char *why = policy_no_zero_copy(d->libvirt_version, d->qemu_version,
                                          uname(&host) == 0 ? host.release : "");

    if (!why && qemu_lock_limit(d->info.name) < d->memory_bytes &&
        !libvirtd_may_raise_limits(s->config->libvirt_socket))
        why = "zero-copy locks memory, and libvirtd lacks CAP_SYS_RESOURCE to allow QEMU that";
    return why;
}

int source_policy_resolve(struct move_source *ms, const struct policy_choices *metadata,
                          struct error *err)
{
    struct move *m = ms->move;
    char by[2 * POLICY_NAME_BYTES];
    int r = policy_resolve(&ms->service->config->policies, m->info.name, metadata, &m->request,
                           &m->policy, err);

    if (r < 0)
        return r;
    log_info("move %s (%s): policy %s (%s)", m->id, m->info.name, m->policy.name,
             policy_chosen_by(&m->policy, by, sizeof(by)));
    /* What was asked for counts since the move began, and may have been changed by hand since. */
    if (!policy_choices_has(&m->request, POLICY_HOLD))
        m->hold = policy_get(&m->policy, POLICY_HOLD);
    if (!policy_choices_has(&m->request, POLICY_BWLIMIT) && m->shaper.rate_bytes_s == 0)
        shaper_set_rate(&m->shaper, policy_get(&m->policy, POLICY_BWLIMIT), clock_now_ns());
    return 0;
}

const char *source_policy_no_post_copy(const json_t *said, char *buf, size_t cap)
{
    const json_t *answer = json_object_get(said, "post_copy");

    if (json_is_true(answer))
        return NULL;
    buf[0] = 0;
    json_text_show(said, "post_copy", JSON_TEXT_LINE, buf, cap);
    if (buf[0])
        return buf;
    return "the target's ferryd knows no post-copy";
}

void source_policy_settle(struct move_source *ms, const json_t *ready)
{
    struct policy_facts facts = {
        .drill = ms->move->drill,
        .verify = ms->move->verify,
        .monitor = ms->service->config->monitor,
        .codec = ms->codec.used,
        .encrypted = source_policy_encrypted(ms->service, ms->move->peer, ready),
        .no_post_copy =
            source_policy_no_post_copy(ready, ms->no_postcopy_text, sizeof(ms->no_postcopy_text)),
        .no_zero_copy = ms->no_zero_copy};
    struct policy *p = &ms->move->policy;

    policy_settle(p, &facts);
    ms->move->may_postcopy = policy_may_post_copy(p);
    ms->direct.memory = policy_get(p, POLICY_MEMORY_PATH) == MEMORY_DIRECT;
    if (policy_get(p, POLICY_COMPRESSION) != COMPRESSION_FERRY)
        ms->codec.used = false;
    for (unsigned i = 0; i < p->substitution_count; i++) {
        const struct policy_substitution *sub = &p->substitutions[i];
        char wanted[POLICY_TEXT_BYTES], taken[POLICY_TEXT_BYTES];

        log_warning("move %s (%s): %s %s instead of %s: %s", ms->move->id, ms->move->info.name,
                    policy_setting_name(sub->setting),
                    policy_setting_format(sub->setting, sub->taken, taken, sizeof(taken)),
                    policy_setting_format(sub->setting, sub->wanted, wanted, sizeof(wanted)),
                    sub->why);
    }
}
