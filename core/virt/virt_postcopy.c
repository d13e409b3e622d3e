/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt and QEMU in post-copy: see virt.h. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/virt/virt_private.h"

/* As long as nothing is decided QEMU is to have something left to send: once it waits for the target's last word it does
 * not notice any more that its channels have gone. What the target asks for is not held up by this. */
enum { UNDECIDED_MIB_S = 1, UNLIMITED = 0 };
/* With less than that outstanding QEMU sends the rest in one go, in which it answers nobody, and waits for that word. */
enum { LAST_GO_MS = 1 };

static void work_start(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateSetMaxSpeed(dom, UNDECIDED_MIB_S, VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY) <
            0 ||
        virDomainMigrateStartPostCopy(dom, 0) < 0)
        virt_fault(c);
}

void virt_start_postcopy(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "switch to post-copy", false, 0, work_start, done, user);
}

static void work_free(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    (void)conn;
    if (virDomainMigrateSetMaxSpeed(dom, UNLIMITED, VIR_DOMAIN_MIGRATE_MAX_SPEED_POSTCOPY) < 0 ||
        virDomainMigrateSetMaxDowntime(dom, LAST_GO_MS, 0) < 0)
        virt_fault(c);
}

void virt_free_postcopy(struct virt *v, const char *uuid, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "lift post-copy's limit", false, 0, work_free, done, user);
}

unsigned long virt_library_version(void)
{
    unsigned long version = 0;

    return virGetVersion(&version, NULL, NULL) == 0 ? version : 0;
}

/* --- taking back --------------------------------------------------------------------------- */

/* QEMU's migration thread ends within moments of the word. */
enum { END_TRIES = 250, END_PAUSE_US = 20000 };

/* 0: the reply has @wanted; -EAGAIN: it has not; else a negative errno, with words. */
static int qmp(struct call *c, virDomainPtr dom, const char *command, const char *wanted)
{
    _cleanup_(freep) char *reply = NULL;
    char line[128];
    int r;

    snprintf(line, sizeof(line), "{\"execute\":\"%s\"}", command);
    r = virt_monitor_ask(c, dom, line, &reply);
    return r == 0 && wanted && !strstr(reply, wanted) ? -EAGAIN : r;
}

static int wait_for_its_end(struct call *c, virDomainPtr dom)
{
    int r = -EAGAIN;

    for (int i = 0; i < END_TRIES && r == -EAGAIN; i++) {
        r = qmp(c, dom, "query-status", "postmigrate");
        if (r == -EAGAIN)
            usleep(END_PAUSE_US);
    }
    return r;
}

static void cannot_go_back(struct call *c)
{
    error_clear(&c->err);
    error_set(&c->err, -ENOTRECOVERABLE, c->what,
              "`virsh destroy` and `virsh start` it at the source: it starts from its disks, which "
              "are complete",
              "QEMU lost its channels in post-copy before the decision, and cannot go back any "
              "more: the VM stands still");
}

/* In this order: QEMU refuses to run as long as its migration is not over; and libvirt, which is told by QEMU's event that
 * it runs, has nothing left to mend when its own call ends.
 *
 * migrate_cancel is the second choice: it closes QEMU's channels first, and only then says why, and a thread of QEMU's that
 * this wakes in between takes it for a broken line, and waits for another one for good. */
static void work_take_back(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    int state = 0, r = qmp(c, dom, "query-migrate", "postcopy-paused");
    bool connected = c->number;

    (void)conn;
    if (r == 0) { /* its thread sleeps: nothing but those channels, made again, would wake it */
        cannot_go_back(c);
        return;
    }
    if (r == -EAGAIN && connected)
        r = wait_for_its_end(c, dom);
    if (r == -EAGAIN)
        r = qmp(c, dom, "migrate_cancel", NULL) < 0 ? -EIO : wait_for_its_end(c, dom);
    if (r == -EAGAIN && !connected) { /* the same, but not said */
        cannot_go_back(c);
        return;
    }
    if (r == 0 || r == -EAGAIN)
        r = qmp(c, dom, "cont", NULL);
    for (int i = 0; i < END_TRIES && r == 0; i++) {
        if (virDomainGetState(dom, &state, NULL, 0) < 0)
            virt_fault(c);
        if (c->err.code || state == VIR_DOMAIN_RUNNING)
            return;
        usleep(END_PAUSE_US);
    }
    if (!c->err.code)
        error_set(&c->err, -EIO, c->what, "see /var/log/libvirt/qemu/ at the source",
                  "QEMU does not let it go on: libvirt's state %d", state);
}

void virt_take_back(struct virt *v, const char *uuid, bool connected, virt_done_fn done, void *user)
{
    virt_post(v, uuid, "take the VM back from post-copy", false, connected, work_take_back, done,
              user);
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
