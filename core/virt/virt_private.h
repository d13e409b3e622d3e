/* SPDX-License-Identifier: Apache-2.0 */
/* What virt.c (connection, queries, migration), virt_describe.c, virt_host.c, virt_monitor.c, virt_postcopy.c and
 * virt_commands.c (the rest) share. Not for others. */
#ifndef FERRY_CORE_VIRT_PRIVATE_H
#define FERRY_CORE_VIRT_PRIVATE_H

#include <libvirt/libvirt.h>

#include "core/virt/virt.h"
#include "core/worker.h"

struct virt {
    uv_loop_t *loop;
    struct worker *worker;
    char uri[256];
    const struct virt_ops *ops;
    void *user;
    virConnectPtr connection; /* the worker's */
    int lifecycle_id;         /* of the event callback */
    bool retired;
};

/* One call on its way. */
struct call {
    struct worker_job job;
    struct virt *virt;
    void (*work)(struct call *c, virConnectPtr conn, virDomainPtr dom); /* worker */
    const char *what;                                                   /* for the error */
    char domain[DOMAIN_NAME_BYTES]; /* name or UUID; empty: it is about the host */
    bool absent_is_fine;
    union {
        virt_done_fn done;
        virt_described_fn described;
        virt_state_fn state;
        virt_stats_fn stats;
        virt_reply_fn reply;
        virt_load_fn load;
        virt_host_fn host;
        virt_choices_fn choices;
        virt_pages_fn pages;
    } callback;
    void *user;
    struct error err;
    unsigned number;
    uint64_t bytes;
    struct policy_choices choices;
    char *text; /* owned: a QMP command, then its reply */
    enum virt_domain_state state;
    char move_id[64], network[64];        /* of a clone */
    struct virt_description *description; /* owned */
    struct virt_job_stats stats;
    struct virt_load load;
    struct virt_host_question *host;  /* owned; its report is the answer */
    struct virt_migration *migration; /* owned */
    struct worker *own_worker;        /* a migration's */
};

/* libvirt's last error, in our words. Worker. */
int virt_fault(struct call *c);
/* Never NULL: out of memory ends the process. */
struct call *virt_call_new(struct virt *v, const char *domain, const char *what,
                           void (*work)(struct call *, virConnectPtr, virDomainPtr), void *user);
void virt_call_free(struct call *c);
/* A call that only succeeds or fails. */
void virt_post(struct virt *v, const char *domain, const char *what, bool absent_is_fine,
               unsigned number, void (*work)(struct call *, virConnectPtr, virDomainPtr),
               virt_done_fn done, void *user);
/* A call whose callback is reply(), with its text. */
void virt_post_for_reply(struct call *c);

/* One QMP command on the worker: 0 and its reply, to be freed; or a negative errno with c->err filled, also when QEMU
 * refuses. */
int virt_monitor_ask(struct call *c, virDomainPtr dom, const char *command, char **ret_reply);

#endif
