/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What libvirt says of a VM that is to move: see virt.h. Nothing here changes anything. All of it runs on the common
 * worker, but what starts with done_.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/policy/policy_metadata.h"
#include "core/virt/virt_private.h"

/* --- the VM -------------------------------------------------------------------------------- */

static void read_disk_sizes(struct call *c, virDomainPtr dom)
{
    struct domain_info *info = &c->description->info;

    for (unsigned i = 0; i < info->disk_count; i++) {
        virDomainBlockInfo block;

        if (virDomainGetBlockInfo(dom, info->disks[i].target, &block, 0) < 0) {
            virt_fault(c);
            return;
        }
        info->disks[i].size_bytes = block.capacity;
        /* `allocation` of a disk in use only counts what this run of QEMU wrote; `physical` is what the
         * file occupies. */
        info->disks[i].allocated_bytes = block.physical;
    }
}

static void refuse(struct virt_description *d, const char *name, int code, const char *mend,
                   const char *why)
{
    struct error err;

    error_set(&err, code, "look at the VM", mend, "%s %s", d->info.name, why);
    check_fail(&d->report, name, &err);
}

/* What libvirt would refuse to migrate. */
static void look_for_ties(struct virt_description *d, virDomainPtr dom)
{
    virDomainBlockJobInfo block;
    virDomainJobInfo job;
    virDomainCheckpointPtr *checkpoints = NULL;

    if (virDomainSnapshotNum(dom, 0) > 0)
        refuse(d, "snapshots", -ENOTSUP,
               "remove them: virsh snapshot-delete DOMAIN NAME (--metadata keeps their data)",
               "has snapshots, and libvirt does not migrate it with them");
    if (virDomainListAllCheckpoints(dom, &checkpoints, 0) > 0)
        refuse(d, "snapshots", -ENOTSUP, "remove them: virsh checkpoint-delete DOMAIN NAME",
               "has checkpoints, and libvirt does not migrate it with them");
    for (virDomainCheckpointPtr *p = checkpoints; p && *p; p++)
        virDomainCheckpointFree(*p);
    free(checkpoints);
    if (virDomainGetJobInfo(dom, &job) == 0 && job.type != VIR_DOMAIN_JOB_NONE)
        refuse(d, "jobs", -EBUSY, "wait for its end: virsh domjobinfo DOMAIN",
               "is busy with a job of libvirt's");
    for (unsigned i = 0; i < d->info.disk_count; i++) {
        if (virDomainGetBlockJobInfo(dom, d->info.disks[i].target, &block, 0) > 0)
            refuse(d, "jobs", -EBUSY, "wait for its end: virsh blockjob DOMAIN DISK --info",
                   "has a block job on one of its disks");
    }
    virResetLastError();
}

static void read_resident(struct virt_description *d, virDomainPtr dom)
{
    virDomainMemoryStatStruct stats[VIR_DOMAIN_MEMORY_STAT_NR];
    int n = virDomainMemoryStats(dom, stats, VIR_DOMAIN_MEMORY_STAT_NR, 0);

    d->resident_bytes = d->memory_bytes;
    for (int i = 0; i < n; i++) {
        if (stats[i].tag == VIR_DOMAIN_MEMORY_STAT_RSS && stats[i].val > 0)
            d->resident_bytes = MIN(d->memory_bytes, (uint64_t)stats[i].val * 1024);
    }
}

/* Of a VM that sees its host's processor, the target has to compare the host's. */
static void take_host_cpu(struct domain_platform *p, virConnectPtr conn)
{
    _cleanup_(freep) char *xml = virConnectGetCapabilities(conn);
    const char *start = xml ? strstr(xml, "<cpu>") : NULL;
    const char *end = start ? strstr(start, "</cpu>") : NULL;
    size_t len = end ? (size_t)(end - start) + strlen("</cpu>") : 0;

    p->cpu[0] = '\0';
    if (len > 0 && len < sizeof(p->cpu)) {
        memcpy(p->cpu, start, len);
        p->cpu[len] = '\0';
    }
}

/* What it says itself; nothing is fine. */
static int read_choices(virDomainPtr dom, struct policy_choices *ret, struct error *err)
{
    _cleanup_(freep) char *xml =
        virDomainGetMetadata(dom, VIR_DOMAIN_METADATA_ELEMENT, POLICY_METADATA_URI, 0);

    *ret = (struct policy_choices){0};
    if (xml)
        return policy_metadata_parse(xml, ret, err);
    if (virGetLastErrorCode() != VIR_ERR_NO_DOMAIN_METADATA)
        return error_set(err, -EIO, "read the VM's own settings", NULL, "libvirt: %s",
                         virGetLastErrorMessage());
    virResetLastError();
    return 0;
}

static void work_choices(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    read_choices(dom, &c->choices, &c->err);
}

static void done_choices(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.choices(c->user, &c->err, &c->choices);
    virt_call_free(c);
}

void virt_read_choices(struct virt *v, const char *domain, virt_choices_fn done, void *user)
{
    struct call *c = virt_call_new(v, domain, "read the VM's own settings", work_choices, user);

    c->job.done = done_choices;
    c->callback.choices = done;
    worker_post(v->worker, &c->job);
}

static void work_describe(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    _cleanup_(freep) char *xml = NULL;
    struct virt_description *d;
    struct error err = {0};
    virDomainInfo info;
    int autostart = 0;

    d = c->description = calloc(1, sizeof(*d));
    xml = virDomainGetXMLDesc(dom, 0);
    if (!d || !xml || virDomainGetInfo(dom, &info) < 0) {
        virt_fault(c);
        return;
    }
    d->active = virDomainIsActive(dom) == 1;
    d->running = info.state == VIR_DOMAIN_RUNNING || info.state == VIR_DOMAIN_BLOCKED;
    d->persistent = virDomainIsPersistent(dom) == 1;
    if (d->persistent && virDomainGetAutostart(dom, &autostart) == 0)
        d->autostart = autostart;
    d->memory_bytes = (uint64_t)info.memory * 1024;
    if (!d->active) {
        error_set(&c->err, -ESRCH, c->what, "start it, or copy its disks while it is off",
                  "%s is not running", virDomainGetName(dom));
        return;
    }
    if (domain_xml_survey(xml, &d->info, &d->platform, &d->report, &c->err) < 0)
        return;
    if (!d->running)
        refuse(d, "vm", -EINVAL, "resume it first: virsh resume", "is paused");
    if (d->platform.host_cpu)
        take_host_cpu(&d->platform, conn);
    virConnectGetLibVersion(conn, &d->libvirt_version);
    virConnectGetVersion(conn, &d->qemu_version);
    read_resident(d, dom);
    if (read_choices(dom, &d->choices, &err) < 0)
        check_fail(&d->report, "policy", &err);
    look_for_ties(d, dom);
    read_disk_sizes(c, dom);
}

static void done_describe(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.described(c->user, &c->err, c->description);
    virt_call_free(c);
}

void virt_describe(struct virt *v, const char *domain, virt_described_fn done, void *user)
{
    struct call *c = virt_call_new(v, domain, "look at the VM", work_describe, user);

    c->job.done = done_describe;
    c->callback.described = done;
    worker_post(v->worker, &c->job);
}

/* --- all of them --------------------------------------------------------------------------- */

static void work_list(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    virDomainPtr *domains = NULL;
    int n = virConnectListAllDomains(conn, &domains, VIR_CONNECT_LIST_DOMAINS_ACTIVE);
    size_t len = 0;
    FILE *f = open_memstream(&c->text, &len);

    (void)dom;
    if (n < 0)
        virt_fault(c);
    for (int i = 0; i < n; i++) {
        if (f)
            fprintf(f, "%s\n", virDomainGetName(domains[i]));
        virDomainFree(domains[i]);
    }
    free(domains);
    if (f)
        fclose(f);
}

static void done_list(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.reply(c->user, &c->err, c->text ? c->text : "");
    virt_call_free(c);
}

void virt_list_running(struct virt *v, virt_reply_fn done, void *user)
{
    struct call *c = virt_call_new(v, "", "list the VMs", work_list, user);

    c->job.done = done_list;
    c->callback.reply = done;
    worker_post(v->worker, &c->job);
}

/* --- what the guest does ------------------------------------------------------------------- */

static void work_load_start(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainStartDirtyRateCalc(dom, (int)c->number, 0) < 0)
        virt_fault(c);
}

void virt_load_start(struct virt *v, const char *uuid, unsigned seconds, virt_done_fn done,
                     void *user)
{
    virt_post(v, uuid, "sample the guest's dirty rate", false, seconds, work_load_start, done,
              user);
}

static void take_load(struct virt_load *load, const virTypedParameter *p)
{
    if (p->type == VIR_TYPED_PARAM_LLONG &&
        strcmp(p->field, "dirtyrate.megabytes_per_second") == 0 && p->value.l >= 0) {
        load->dirty_known = true;
        load->dirty_bytes_s = (uint64_t)p->value.l << 20;
    } else if (p->type == VIR_TYPED_PARAM_ULLONG && strncmp(p->field, "block.", 6) == 0 &&
               strstr(p->field, ".wr.bytes")) {
        load->written_bytes += p->value.ul;
    }
}

static void work_load_read(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    virDomainPtr one[] = {dom, NULL};
    virDomainStatsRecordPtr *records = NULL;
    int n = virDomainListGetStats(one, VIR_DOMAIN_STATS_DIRTYRATE | VIR_DOMAIN_STATS_BLOCK,
                                  &records, 0);

    (void)conn;
    if (n != 1)
        virt_fault(c);
    for (int i = 0; n == 1 && i < records[0]->nparams; i++)
        take_load(&c->load, &records[0]->params[i]);
    virDomainStatsRecordListFree(records);
}

static void done_load(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.load(c->user, &c->err, &c->load);
    virt_call_free(c);
}

void virt_load_read(struct virt *v, const char *uuid, virt_load_fn done, void *user)
{
    struct call *c = virt_call_new(v, uuid, "read what the guest does", work_load_read, user);

    c->job.done = done_load;
    c->callback.load = done;
    worker_post(v->worker, &c->job);
}
