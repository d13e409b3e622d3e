/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt and QEMU in post-copy: see virt.h. */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <libvirt/libvirt-qemu.h>
#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/virt/virt_private.h"

static void work_start(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateStartPostCopy(dom, 0) < 0)
        virt_fault(c);
}

void virt_start_postcopy(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "switch to post-copy", false, 0, work_start, done, user);
}

unsigned long virt_library_version(void)
{
    unsigned long version = 0;

    return virGetVersion(&version, NULL, NULL) == 0 ? version : 0;
}

/* --- taking back --------------------------------------------------------------------------- */

/* QEMU's migration thread ends within moments of the word. */
enum { CANCEL_TRIES = 100, CANCEL_PAUSE_US = 20000 };

/* 0: the reply has @wanted; -EAGAIN: it has not; else a negative errno, with words. */
static int qmp(struct call *c, virDomainPtr dom, const char *command, const char *wanted)
{
    _cleanup_(freep) char *reply = NULL;

    if (virDomainQemuMonitorCommand(dom, command, &reply, 0) < 0)
        return virt_fault(c);
    return !wanted || strstr(reply, wanted) ? 0 : -EAGAIN;
}

/* In this order: QEMU refuses to run as long as its migration is not over; and libvirt, which is told by QEMU's event that
 * it runs, has nothing left to mend when its own call ends. */
static void work_take_back(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    int state = 0, r = qmp(c, dom, "{\"execute\":\"query-migrate\"}", "postcopy-paused");

    (void)conn;
    if (r ==
        0) { /* QEMU's migration thread sleeps: nothing but those channels, made again, would wake it */
        error_set(
            &c->err, -ENOTRECOVERABLE, c->what,
            "`virsh destroy` and `virsh start` it at the source: it starts from its disks, which "
            "are complete",
            "QEMU lost its channels in post-copy before the decision, and cannot go back any more: "
            "the VM stands still");
        return;
    }
    if (r == -EAGAIN)
        r = qmp(c, dom, "{\"execute\":\"migrate_cancel\"}", NULL);
    for (int i = 0; i < CANCEL_TRIES && r == 0; i++) {
        r = qmp(c, dom, "{\"execute\":\"query-status\"}", "postmigrate");
        if (r != -EAGAIN)
            break;
        r = 0;
        usleep(CANCEL_PAUSE_US);
    }
    if (r == 0)
        r = qmp(c, dom, "{\"execute\":\"cont\"}", NULL);
    for (int i = 0; i < CANCEL_TRIES && r == 0; i++) {
        if (virDomainGetState(dom, &state, NULL, 0) < 0)
            virt_fault(c);
        if (c->err.code || state == VIR_DOMAIN_RUNNING)
            return;
        usleep(CANCEL_PAUSE_US);
    }
    if (!c->err.code)
        error_set(&c->err, -EIO, c->what, "see /var/log/libvirt/qemu/ at the source",
                  "QEMU does not let it go on: libvirt's state %d", state);
}

void virt_take_back(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "take the VM back from post-copy", false, 0, work_take_back, done, user);
}

/* --- pages --------------------------------------------------------------------------------- */

/* A state's reason alone would not do: a guest that was paused for a reason of its own and goes on has lost it. libvirt's
 * job lasts as long as pages are outstanding; of an incoming one it gives no figures, but an error. */
static enum virt_pages pages_of(virDomainPtr dom, int state, int reason)
{
    virDomainJobInfo job;
    bool job_over = virDomainGetJobInfo(dom, &job) == 0 && job.type == VIR_DOMAIN_JOB_NONE;

    virResetLastError();
    if (state == VIR_DOMAIN_SHUTOFF &&
        (reason == VIR_DOMAIN_SHUTOFF_SHUTDOWN || reason == VIR_DOMAIN_SHUTOFF_DESTROYED))
        return VIRT_PAGES_DONE; /* by its guest or by somebody: nothing of it is needed any more */
    if (state == VIR_DOMAIN_SHUTOFF || state == VIR_DOMAIN_CRASHED)
        return VIRT_PAGES_OFF;
    if (state == VIR_DOMAIN_RUNNING && reason == VIR_DOMAIN_RUNNING_POSTCOPY_FAILED)
        return VIRT_PAGES_BROKEN;
    if (job_over && !(state == VIR_DOMAIN_RUNNING && reason == VIR_DOMAIN_RUNNING_POSTCOPY))
        return VIRT_PAGES_DONE;
    return state == VIR_DOMAIN_RUNNING ? VIRT_PAGES_OUTSTANDING : VIRT_PAGES_WAITING;
}

static void work_pages(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    int state = 0, reason = 0;

    (void)conn;
    if (virDomainGetState(dom, &state, &reason, 0) < 0)
        virt_fault(c);
    else
        c->number = pages_of(dom, state, reason);
}

static void done_pages(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    if (c->err.code == -ENOENT) {
        error_clear(&c->err);
        c->number = VIRT_PAGES_MISSING;
    }
    c->callback.pages(c->user, &c->err, (enum virt_pages)c->number);
    virt_call_free(c);
}

void virt_pages(struct virt *v, const char *uuid, virt_pages_fn done, void *user)
{
    struct call *c = virt_call_new(v, uuid, "ask for outstanding pages", work_pages, user);

    c->job.done = done_pages;
    c->callback.pages = done;
    worker_post(v->worker, &c->job);
}
