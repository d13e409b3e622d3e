/* SPDX-License-Identifier: Apache-2.0 */
/* Commands to libvirt about one domain, each a short call on the common worker: see virt.h. */
#include <errno.h>
#include <string.h>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/virt/virt_private.h"

static bool is_running(virDomainPtr dom)
{
    int state = 0;

    return virDomainGetState(dom, &state, NULL, 0) == 0 && state == VIR_DOMAIN_RUNNING;
}

/*
 * QEMU 7.2 frees what its mirror job knows of its requests before the guest's own writes have left it
 * (block/mirror.c, the end of mirror_run): a job that is cancelled, or fails, while a guest writes can crash
 * QEMU. Stopping the guest drains them. libvirt notes that a migration stopped it, and lets it go on when the
 * job has ended; so does our recovery. A job that ended just now does not: then it was stopped as by a user.
 */
static void stop_guest(virDomainPtr dom)
{
    int state = 0, reason = 0;

    if (!is_running(dom) || virDomainSuspend(dom) < 0)
        return;
    if (virDomainGetState(dom, &state, &reason, 0) == 0 && state == VIR_DOMAIN_PAUSED &&
        reason == VIR_DOMAIN_PAUSED_USER)
        virDomainResume(dom);
}

static void work_abort(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (c->number)
        stop_guest(dom);
    if (virDomainAbortJob(dom) < 0)
        virt_fault(c);
}

void virt_abort_job(struct virt *v, const char *uuid, bool stop, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "abort libvirt's job", true, stop, work_abort, done, user);
}

static void work_downtime(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateSetMaxDowntime(dom, c->number, 0) < 0)
        virt_fault(c);
}

void virt_set_downtime(struct virt *v, const char *uuid, unsigned downtime_ms, virt_done_fn done,
                       void *user)
{
    virt_post(v, uuid, "set the downtime limit", false, downtime_ms, work_downtime, done, user);
}

static void work_suspend(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (is_running(dom) && virDomainSuspend(dom) < 0)
        virt_fault(c);
}

void virt_suspend(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "suspend the VM", false, 0, work_suspend, done, user);
}

static void work_xbzrle_cache(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateSetCompressionCache(dom, c->bytes, 0) < 0)
        virt_fault(c);
}

void virt_set_xbzrle_cache(struct virt *v, const char *uuid, uint64_t bytes, virt_done_fn done,
                           void *user)
{
    struct call *c = virt_call_new(v, uuid, "set XBZRLE's cache", work_xbzrle_cache, user);

    c->bytes = bytes;
    c->callback.done = done;
    worker_post(v->worker, &c->job);
}

/* libvirt's own "no limit": what QEMU takes at most. */
enum { SPEED_UNLIMITED_MIB_S = 1 << 20 };

static void work_speed(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateSetMaxSpeed(dom, c->number ? c->number : SPEED_UNLIMITED_MIB_S, 0) < 0)
        virt_fault(c);
}

void virt_set_speed(struct virt *v, const char *uuid, unsigned speed_mib_s, virt_done_fn done,
                    void *user)
{
    virt_post(v, uuid, "set the migration's speed", false, speed_mib_s, work_speed, done, user);
}

/* Why a domain could not be resumed: because there is nothing to resume any more? Worker. */
static void explain_no_resume(struct call *c, virDomainPtr dom)
{
    int state = 0, reason = 0;

    if (virDomainGetState(dom, &state, &reason, 0) < 0)
        return;
    if (state == VIR_DOMAIN_RUNNING || state == VIR_DOMAIN_BLOCKED ||
        (state == VIR_DOMAIN_SHUTOFF && reason == VIR_DOMAIN_SHUTOFF_SHUTDOWN))
        error_clear(&c->err); /* it runs already, or has: what was wanted */
    else if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED)
        c->err.code = -ESRCH;
}

static void work_resume(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainResume(dom) == 0)
        return;
    virt_fault(c);
    explain_no_resume(c, dom);
}

void virt_resume(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "resume the VM", false, 0, work_resume, done, user);
}

static void work_run_clone(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    _cleanup_(freep) char *xml = virDomainGetXMLDesc(dom, 0);

    (void)conn;
    if (xml && virDomainIsPersistent(dom) != 0)
        error_set(&c->err, -EPERM, c->what, NULL, "it is defined: only the VM itself may be");
    else if (!xml || (domain_check_clone(xml, c->move_id, c->network, &c->err) == 0 &&
                      virDomainResume(dom) < 0))
        virt_fault(c);
}

void virt_run_clone(struct virt *v, const char *name, const char *move_id, const char *network,
                    virt_done_fn done, void *user)
{
    struct call *c = virt_call_new(v, name, "run the clone", work_run_clone, user);

    snprintf(c->move_id, sizeof(c->move_id), "%s", move_id);
    snprintf(c->network, sizeof(c->network), "%s", network);
    c->callback.done = done;
    worker_post(v->worker, &c->job);
}

enum { AGENT_TIMEOUT_S = 2 };

static void work_probe_clone(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    int state = 0, reason = 0;
    char *reply;
    bool silent;

    (void)conn;
    if (virDomainGetState(dom, &state, &reason, 0) < 0) {
        virt_fault(c);
        return;
    }
    if (state != VIR_DOMAIN_RUNNING && state != VIR_DOMAIN_BLOCKED) {
        error_set(&c->err, -ESRCH, c->what, "see /var/log/libvirt/qemu/ at the target",
                  "the clone did not run for long: libvirt's state %d, reason %d", state, reason);
        return;
    }
    reply = virDomainQemuAgentCommand(dom, "{\"execute\":\"guest-ping\"}", AGENT_TIMEOUT_S, 0);
    silent = !reply && (virGetLastErrorCode() == VIR_ERR_AGENT_UNRESPONSIVE ||
                        virGetLastErrorCode() == VIR_ERR_OPERATION_TIMEOUT);
    c->text = strdup(reply ? "answers" : silent ? "silent" : "none");
    virResetLastError();
    free(reply);
}

static void work_start(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainCreate(dom) < 0 && virDomainIsActive(dom) != 1)
        virt_fault(c);
}

void virt_start(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "start the VM", false, 0, work_start, done, user);
}

static void work_autostart(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainSetAutostart(dom, (int)c->number) < 0)
        virt_fault(c);
}

void virt_set_autostart(struct virt *v, const char *uuid, bool on, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "set the VM's autostart", false, on, work_autostart, done, user);
}

static void undefine(struct call *c, virDomainPtr dom)
{
    if (virDomainIsPersistent(dom) != 1)
        return;
    virDomainSetAutostart(dom, 0);
    if (virDomainUndefineFlags(dom, VIR_DOMAIN_UNDEFINE_MANAGED_SAVE | VIR_DOMAIN_UNDEFINE_NVRAM |
                                        VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA |
                                        VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA) < 0)
        virt_fault(c);
}

static void work_destroy(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainIsActive(dom) == 1 && virDomainDestroy(dom) < 0 && virDomainIsActive(dom) == 1)
        virt_fault(c);
    else
        undefine(c, dom);
    if (c->err.code == -ENOENT)
        error_clear(&c->err); /* a transient domain is gone with its process */
}

void virt_destroy(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "remove the VM's copy", true, 0, work_destroy, done, user);
}

static void work_undefine(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainIsActive(dom) == 1)
        error_set(&c->err, -EBUSY, c->what, NULL, "the VM is active");
    else
        undefine(c, dom);
}

void virt_undefine(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "remove the VM's definition", true, 0, work_undefine, done, user);
}

static void done_with_reply(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.reply(c->user, &c->err, c->text ? c->text : "");
    virt_call_free(c);
}

void virt_post_for_reply(struct call *c)
{
    c->job.done = done_with_reply;
    worker_post(c->virt->worker, &c->job);
}

void virt_probe_clone(struct virt *v, const char *name, virt_reply_fn done, void *user)
{
    struct call *c = virt_call_new(v, name, "look at the clone", work_probe_clone, user);

    c->callback.reply = done;
    virt_post_for_reply(c);
}
