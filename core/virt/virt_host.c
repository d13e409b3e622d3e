/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libvirt says of a host that is to take a VM: see virt.h. Nothing here changes anything. All of it runs on the
 * common worker, but what starts with done_.
 */
#include <errno.h>
#include <net/if.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/virt/host_room.h"
#include "core/virt/virt_private.h"

static void look_for_namesake(struct virt_host_question *q, virConnectPtr conn)
{
    virDomainPtr found[] = {virDomainLookupByUUIDString(conn, q->uuid),
                            virDomainLookupByName(conn, q->name)};
    struct error err;

    if (found[0] || found[1]) {
        error_set(&err, -EEXIST, "receive the VM", "remove that one first: virsh undefine",
                  "a VM with the name or UUID of %s exists already", q->name);
        check_fail(&q->report, "name", &err);
    } else {
        check_pass(&q->report, "name", "no VM has the name or UUID of %s", q->name);
    }
    for (size_t i = 0; i < ARRAY_SIZE(found); i++) {
        if (found[i])
            virDomainFree(found[i]);
    }
}

static const char *libvirts_words(void)
{
    virErrorPtr e = virGetLastError();

    return e && e->message ? e->message : "unknown error";
}

static void look_at_machine(struct virt_host_question *q, virConnectPtr conn)
{
    const struct domain_platform *p = &q->platform;
    _cleanup_(freep) char *capabilities =
        virConnectGetDomainCapabilities(conn, NULL, p->arch, p->machine, p->type, 0);
    struct error err;

    if (capabilities) {
        check_pass(&q->report, "machine", "runs %s of type %s (%s)", p->arch, p->machine, p->type);
        return;
    }
    error_set(&err, -ENOTSUP, "receive the VM",
              "install a QEMU that has it, or give the VM an older machine type while it is off",
              "this host cannot run %s of type %s (%s): %s", p->arch, p->machine, p->type,
              libvirts_words());
    check_fail(&q->report, "machine", &err);
}

static void look_at_cpu(struct virt_host_question *q, virConnectPtr conn)
{
    const struct domain_platform *p = &q->platform;
    struct error err;
    int r;

    if (!p->cpu[0]) {
        check_pass(&q->report, "cpu", "QEMU's own model, which every host has");
        return;
    }
    r = p->host_cpu ? virConnectCompareCPU(conn, p->cpu, 0)
                    : virConnectCompareHypervisorCPU(conn, NULL, p->arch, NULL, p->type, p->cpu, 0);
    if (r == VIR_CPU_COMPARE_IDENTICAL || r == VIR_CPU_COMPARE_SUPERSET) {
        check_pass(&q->report, "cpu", "the processor has what the VM's model needs%s",
                   p->host_cpu ? " (the source host's own)" : "");
    } else if (r == VIR_CPU_COMPARE_INCOMPATIBLE) {
        error_set(&err, -ENOTSUP, "receive the VM",
                  "give the VM a model that both hosts have: virsh hypervisor-cpu-baseline",
                  "the processor here lacks what the VM's model needs");
        check_fail(&q->report, "cpu", &err);
    } else {
        check_warn(&q->report, "cpu", NULL, "the VM's model cannot be compared: %s",
                   libvirts_words());
    }
}

static bool has_network(virConnectPtr conn, const struct domain_network *n)
{
    virNetworkPtr network;
    bool active;

    if (strcmp(n->kind, "network") != 0) /* a bridge or a device of the host */
        return if_nametoindex(n->name) != 0;
    network = virNetworkLookupByName(conn, n->name);
    active = network && virNetworkIsActive(network) == 1;
    if (network)
        virNetworkFree(network);
    return active;
}

static void look_for_networks(struct virt_host_question *q, virConnectPtr conn)
{
    const struct domain_platform *p = &q->platform;
    struct error err;

    for (unsigned i = 0; i < p->network_count; i++) {
        const struct domain_network *n = &p->networks[i];

        if (has_network(conn, n))
            continue;
        error_set(&err, -ENODEV, "receive the VM",
                  "make and start it there, or name another in networks = of the peer's section at "
                  "the source",
                  "there is no %s %s%s", n->kind, n->name,
                  strcmp(n->kind, "network") == 0 ? " that is active" : "");
        check_fail(&q->report, "networks", &err);
    }
    check_pass_unless_said(&q->report, "networks", "%s",
                           p->network_count ? "all of the VM's are there" : "the VM has none");
}

/* A service may have a /tmp of its own (PrivateTmp), and cannot tell then what is in QEMU's. */
static bool can_be_seen(const char *path)
{
    static const char *const folders[][2] = {{"/tmp", "/proc/1/root/tmp"},
                                             {"/var/tmp", "/proc/1/root/var/tmp"}};
    struct stat here, hosts;

    for (size_t i = 0; i < ARRAY_SIZE(folders); i++) {
        size_t len = strlen(folders[i][0]);

        if (strncmp(path, folders[i][0], len) == 0 && path[len] == '/')
            return stat(folders[i][0], &here) == 0 && stat(folders[i][1], &hosts) == 0 &&
                   here.st_dev == hosts.st_dev && here.st_ino == hosts.st_ino;
    }
    return true;
}

static void look_for_files(struct virt_host_question *q)
{
    const struct domain_platform *p = &q->platform;
    struct error err;

    for (unsigned i = 0; i < p->file_count; i++) {
        const struct domain_file *f = &p->files[i];

        if (access(f->path, F_OK) == 0 || (errno != ENOENT && errno != ENOTDIR))
            continue;
        error_set(&err, -ENOENT, "receive the VM",
                  "install it there, or give the VM another while it is off: virsh edit",
                  "there is no %s, the VM's %s", f->path, f->what);
        if (can_be_seen(f->path))
            check_fail(&q->report, "files", &err);
        else
            check_warn(&q->report, "files", err.mend, "%s", err.why);
    }
    if (p->file_count)
        check_pass_unless_said(&q->report, "files", "what QEMU opens beside the disks is there");
}

/* What is free, and what the kernel gives back when it is asked to. */
static uint64_t free_memory_bytes(virConnectPtr conn)
{
    virNodeMemoryStats stats[16];
    int n = 0;
    uint64_t kib = 0;

    if (virNodeGetMemoryStats(conn, VIR_NODE_MEMORY_STATS_ALL_CELLS, NULL, &n, 0) < 0 ||
        n > (int)ARRAY_SIZE(stats) ||
        virNodeGetMemoryStats(conn, VIR_NODE_MEMORY_STATS_ALL_CELLS, stats, &n, 0) < 0)
        return 0;
    for (int i = 0; i < n; i++) {
        if (strcmp(stats[i].field, VIR_NODE_MEMORY_STATS_TOTAL) != 0)
            kib += stats[i].value;
    }
    return kib * 1024;
}

static void look_at_room(struct virt_host_question *q, virConnectPtr conn)
{
    struct host_room room = {.free_bytes = free_memory_bytes(conn)};
    virNodeInfo info = {0};

    room.cpus = (unsigned)MAX(virNodeGetCPUMap(conn, NULL, NULL, 0), 0);
    if (virNodeGetInfo(conn, &info) == 0)
        room.nodes = info.nodes;
    host_room_check(&room, &q->platform, q->memory_bytes, &q->report);
}

static void look_at_versions(struct virt_host_question *q, virConnectPtr conn)
{
    unsigned long libvirt = 0, qemu = 0;

    virConnectGetLibVersion(conn, &libvirt);
    virConnectGetVersion(conn, &qemu);
    if (libvirt < q->libvirt_version || qemu < q->qemu_version)
        check_warn(
            &q->report, "versions", "install the same versions at both sites",
            "libvirt %lu.%lu.%lu and QEMU %lu.%lu.%lu, older than the source's: it may come, "
            "and it may be refused",
            libvirt / 1000000, libvirt / 1000 % 1000, libvirt % 1000, qemu / 1000000,
            qemu / 1000 % 1000, qemu % 1000);
    else
        check_pass(&q->report, "versions", "libvirt %lu.%lu.%lu, QEMU %lu.%lu.%lu",
                   libvirt / 1000000, libvirt / 1000 % 1000, libvirt % 1000, qemu / 1000000,
                   qemu / 1000 % 1000, qemu % 1000);
}

static void work_host(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)dom;
    look_for_namesake(c->host, conn);
    if (c->host->platform.type[0]) { /* the source said what it needs */
        look_at_versions(c->host, conn);
        look_at_machine(c->host, conn);
        look_at_cpu(c->host, conn);
        look_for_networks(c->host, conn);
        look_for_files(c->host);
        look_at_room(c->host, conn);
    }
    virResetLastError();
}

static void done_host(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.host(c->user, &c->err, &c->host->report);
    virt_call_free(c);
}

void virt_ask_host(struct virt *v, const struct virt_host_question *question, virt_host_fn done,
                   void *user)
{
    struct call *c = virt_call_new(v, "", "look at the host", work_host, user);

    c->host = malloc(sizeof(*question));
    if (!c->host)
        abort(); /* see virt_call_new() */
    *c->host = *question;
    c->job.done = done_host;
    c->callback.host = done;
    worker_post(v->worker, &c->job);
}
