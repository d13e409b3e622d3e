/* SPDX-License-Identifier: Apache-2.0 */
/* libvirt calls on worker threads: see virt.h; what describes a VM or a host is in virt_describe.c,
 * the simple commands are in virt_commands.c. Everything
 * marked "worker" runs there. */
#include "core/virt/virt.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <libvirt/libvirt.h>
#include <libvirt/virterror.h>

#include "core/base/macros.h"
#include "core/virt/virt_loop.h"
#include "core/virt/virt_private.h"

enum { KEEPALIVE_INTERVAL_S = 5, KEEPALIVE_COUNT = 4, CONNECTIONS_AUTO = 4 };

static void domain_free(virDomainPtr *dom)
{
    if (*dom)
        virDomainFree(*dom);
}

/* libvirt's last error, in our words. Worker. */
int virt_fault(struct call *c)
{
    virErrorPtr e = virGetLastError();
    int code = -EIO;

    if (e && e->code == VIR_ERR_NO_DOMAIN)
        code = -ENOENT;
    else if (e && (e->code == VIR_ERR_OPERATION_INVALID || e->code == VIR_ERR_OPERATION_ABORTED))
        code = -ECANCELED;
    else if (e && e->code == VIR_ERR_OPERATION_TIMEOUT)
        code = -ETIMEDOUT;
    return error_set(&c->err, code, c->what, NULL, "libvirt: %s",
                     e && e->message ? e->message : "unknown error");
}

/* --- connection ---------------------------------------------------------------------------- */

static void on_lifecycle(virConnectPtr conn, virDomainPtr dom, int event, int detail, void *opaque)
{
    struct virt *v = opaque;
    char uuid[VIR_UUID_STRING_BUFLEN];

    (void)conn;
    if (v->retired || virDomainGetUUIDString(dom, uuid) < 0)
        return;
    if (event == VIR_DOMAIN_EVENT_SUSPENDED && detail == VIR_DOMAIN_EVENT_SUSPENDED_MIGRATED)
        v->ops->on_suspended(v->user, uuid);
    else if (event == VIR_DOMAIN_EVENT_STOPPED || event == VIR_DOMAIN_EVENT_CRASHED)
        v->ops->on_stopped(v->user, uuid);
}

static void on_connection_closed(virConnectPtr conn, int reason, void *opaque)
{
    struct virt *v = opaque;

    (void)conn;
    (void)reason;
    if (!v->retired)
        v->ops->on_disconnected(v->user);
}

static void close_connection(struct virt *v)
{
    if (!v->connection)
        return;
    virConnectUnregisterCloseCallback(v->connection, on_connection_closed);
    if (v->lifecycle_id >= 0) /* it holds a reference of the connection */
        virConnectDomainEventDeregisterAny(v->connection, v->lifecycle_id);
    virConnectClose(v->connection);
    v->connection = NULL;
}

static virConnectPtr connection_open(const struct virt *v)
{
    virConnectPtr conn = virConnectOpen(v->uri);

    if (conn)
        virConnectSetKeepAlive(conn, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT);
    return conn;
}

/* A live connection with a reference of the caller's; opens it when needed. Worker. */
static virConnectPtr connection_get(struct virt *v)
{
    virConnectPtr conn = NULL;

    if (v->connection && virConnectIsAlive(v->connection) != 1)
        close_connection(v);
    if (!v->connection && (v->connection = connection_open(v))) {
        virConnectRegisterCloseCallback(v->connection, on_connection_closed, v, NULL);
        v->lifecycle_id =
            virConnectDomainEventRegisterAny(v->connection, NULL, VIR_DOMAIN_EVENT_ID_LIFECYCLE,
                                             VIR_DOMAIN_EVENT_CALLBACK(on_lifecycle), v, NULL);
    }
    if (v->connection && virConnectRef(v->connection) == 0)
        conn = v->connection;
    return conn;
}

/* --- calls --------------------------------------------------------------------------------- */

static virDomainPtr find_domain(virConnectPtr conn, const char *domain)
{
    virDomainPtr dom = NULL;

    if (strlen(domain) == 36)
        dom = virDomainLookupByUUIDString(conn, domain);
    return dom ? dom : virDomainLookupByName(conn, domain);
}

static void call_run(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);
    /* A migration's call lasts for hours, and on a shared connection the replies to others wait for its
     * thread: it has a connection of its own. */
    virConnectPtr conn = c->own_worker ? connection_open(c->virt) : connection_get(c->virt);
    _cleanup_(domain_free) virDomainPtr dom = NULL;

    if (!conn) {
        virt_fault(c);
        c->err.code = -ENOTCONN;
        snprintf(c->err.mend, sizeof(c->err.mend), "is libvirtd running?");
        return;
    }
    dom = c->domain[0] ? find_domain(conn, c->domain) : NULL;
    if (!c->domain[0]) {
        c->work(c, conn, NULL);
    } else if (!dom) {
        virt_fault(c);
        if (c->absent_is_fine && c->err.code == -ENOENT) {
            error_clear(&c->err);
            c->state = VIRT_DOMAIN_OFF;
        }
    } else {
        c->work(c, conn, dom);
    }
    virConnectClose(conn); /* our reference */
}

void virt_call_free(struct call *c)
{
    free(c->text);
    free(c->description);
    free(c->host);
    free(c->migration);
    if (c->own_worker)
        worker_retire(c->own_worker);
    free(c);
}

static void call_done(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.done(c->user, &c->err);
    virt_call_free(c);
}

struct call *virt_call_new(struct virt *v, const char *domain, const char *what,
                           void (*work)(struct call *, virConnectPtr, virDomainPtr), void *user)
{
    struct call *c = calloc(1, sizeof(*c));

    if (!c)
        abort(); /* a hundred bytes: nothing in this process can go on */
    c->job = (struct worker_job){.run = call_run, .done = call_done};
    c->virt = v;
    c->work = work;
    c->what = what;
    c->user = user;
    snprintf(c->domain, sizeof(c->domain), "%s", domain);
    return c;
}

void virt_post(struct virt *v, const char *domain, const char *what, bool absent_is_fine,
               unsigned number, void (*work)(struct call *, virConnectPtr, virDomainPtr),
               virt_done_fn done, void *user)
{
    struct call *c = virt_call_new(v, domain, what, work, user);

    c->absent_is_fine = absent_is_fine;
    c->number = number;
    c->callback.done = done;
    worker_post(v->worker, &c->job);
}

/* --- state --------------------------------------------------------------------------------- */

static enum virt_domain_state map_off(int reason)
{
    switch (reason) {
    case VIR_DOMAIN_SHUTOFF_MIGRATED:
        return VIRT_DOMAIN_GONE;
    case VIR_DOMAIN_SHUTOFF_SHUTDOWN:
    case VIR_DOMAIN_SHUTOFF_DESTROYED:
    case VIR_DOMAIN_SHUTOFF_CRASHED:
    case VIR_DOMAIN_SHUTOFF_SAVED:
        return VIRT_DOMAIN_ENDED;
    default: /* libvirtd or the host was restarted since: nobody knows */
        return VIRT_DOMAIN_OFF;
    }
}

static enum virt_domain_state map_state(int state, int reason)
{
    switch (state) {
    case VIR_DOMAIN_PAUSED:
        if (reason == VIR_DOMAIN_PAUSED_POSTCOPY || reason == VIR_DOMAIN_PAUSED_POSTCOPY_FAILED)
            return VIRT_DOMAIN_SWITCHED; /* libvirt's job goes on until the last page */
        return reason == VIR_DOMAIN_PAUSED_MIGRATION ? VIRT_DOMAIN_PAUSED : VIRT_DOMAIN_SUSPENDED;
    case VIR_DOMAIN_SHUTOFF:
        return map_off(reason);
    case VIR_DOMAIN_CRASHED:
        return VIRT_DOMAIN_ENDED;
    default:
        return VIRT_DOMAIN_RUNNING;
    }
}

/* A libvirtd that was restarted shows a stopped domain as paused while it is still deciding whether to
 * let it go on. A query that needs a job of its own waits until that is over. */
static void await_jobs(virDomainPtr dom)
{
    virDomainMemoryStatStruct stats[1];

    virDomainMemoryStats(dom, stats, 1, 0);
}

static void work_state(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    virDomainJobInfo job;
    int state, reason;

    (void)conn;
    if (virDomainGetState(dom, &state, &reason, 0) < 0) {
        virt_fault(c);
        return;
    }
    if (state == VIR_DOMAIN_PAUSED) {
        await_jobs(dom);
        if (virDomainGetState(dom, &state, &reason, 0) < 0) {
            virt_fault(c);
            return;
        }
    }
    c->state = map_state(state, reason);
    if ((c->state == VIRT_DOMAIN_RUNNING || c->state == VIRT_DOMAIN_PAUSED ||
         c->state == VIRT_DOMAIN_SUSPENDED) &&
        virDomainGetJobInfo(dom, &job) == 0 && job.type != VIR_DOMAIN_JOB_NONE)
        c->state = VIRT_DOMAIN_BUSY;
}

static void done_state(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.state(c->user, &c->err, c->state);
    virt_call_free(c);
}

void virt_state(struct virt *v, const char *uuid, virt_state_fn done, void *user)
{
    struct call *c = virt_call_new(v, uuid, "ask for the VM's state", work_state, user);

    c->job.done = done_state;
    c->absent_is_fine = true;
    c->callback.state = done;
    worker_post(v->worker, &c->job);
}

/* --- job statistics ------------------------------------------------------------------------ */

static void take_stat(struct virt_job_stats *s, const virTypedParameter *p)
{
    static const struct {
        const char *name;
        size_t offset;
    } fields[] = {
        {VIR_DOMAIN_JOB_MEMORY_TOTAL, offsetof(struct virt_job_stats, memory_total)},
        {VIR_DOMAIN_JOB_MEMORY_PROCESSED, offsetof(struct virt_job_stats, memory_processed)},
        {VIR_DOMAIN_JOB_MEMORY_REMAINING, offsetof(struct virt_job_stats, memory_remaining)},
        {VIR_DOMAIN_JOB_MEMORY_DIRTY_RATE, offsetof(struct virt_job_stats, memory_dirty_rate)},
        {VIR_DOMAIN_JOB_MEMORY_PAGE_SIZE, offsetof(struct virt_job_stats, memory_page_size)},
        {VIR_DOMAIN_JOB_MEMORY_ITERATION, offsetof(struct virt_job_stats, memory_iteration)},
        {VIR_DOMAIN_JOB_DISK_TOTAL, offsetof(struct virt_job_stats, disk_total)},
        {VIR_DOMAIN_JOB_DISK_PROCESSED, offsetof(struct virt_job_stats, disk_processed)},
    };

    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (p->type == VIR_TYPED_PARAM_ULLONG && strcmp(p->field, fields[i].name) == 0)
            memcpy((char *)s + fields[i].offset, &p->value.ul, sizeof(uint64_t));
    }
}

static void work_stats(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    virTypedParameterPtr params = NULL;
    int count = 0, type = VIR_DOMAIN_JOB_NONE;

    (void)conn;
    if (virDomainGetJobStats(dom, &type, &params, &count, 0) < 0) {
        virt_fault(c);
        return;
    }
    c->stats.active = type != VIR_DOMAIN_JOB_NONE;
    for (int i = 0; i < count; i++)
        take_stat(&c->stats, &params[i]);
    virTypedParamsFree(params, count);
}

static void done_stats(struct worker_job *job)
{
    struct call *c = container_of(job, struct call, job);

    c->callback.stats(c->user, &c->err, &c->stats);
    virt_call_free(c);
}

void virt_job_stats(struct virt *v, const char *uuid, virt_stats_fn done, void *user)
{
    struct call *c = virt_call_new(v, uuid, "read the migration's progress", work_stats, user);

    c->job.done = done_stats;
    c->callback.stats = done;
    worker_post(v->worker, &c->job);
}

/* --- migrate ------------------------------------------------------------------------------- */

/* The definitions as they are to be at the target. */
static int add_definitions(struct call *c, virDomainPtr dom, virTypedParameterPtr *params,
                           int *count, int *capacity)
{
    static const struct {
        unsigned flags;
        const char *key;
    } definitions[] = {
        {VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE, VIR_MIGRATE_PARAM_DEST_XML},
        {VIR_DOMAIN_XML_SECURE | VIR_DOMAIN_XML_MIGRATABLE | VIR_DOMAIN_XML_INACTIVE,
         VIR_MIGRATE_PARAM_PERSIST_XML},
    };
    const struct virt_migration *m = c->migration;

    for (size_t i = 0; i < (m->persistent ? 2u : 1u); i++) {
        _cleanup_(freep) char *here = virDomainGetXMLDesc(dom, definitions[i].flags);
        _cleanup_(freep) char *there = NULL;

        if (!here)
            return virt_fault(c);
        if (domain_rewrite(here, &m->rewrite, &there, &c->err) < 0)
            return c->err.code;
        if (virTypedParamsAddString(params, count, capacity, definitions[i].key, there) < 0)
            return virt_fault(c);
    }
    return 0;
}

static int add_modes(const struct virt_migration *m, virTypedParameterPtr *params, int *count,
                     int *capacity)
{
    if (m->auto_converge_initial &&
        (virTypedParamsAddInt(params, count, capacity, VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL,
                              m->auto_converge_initial) < 0 ||
         virTypedParamsAddInt(params, count, capacity, VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT,
                              m->auto_converge_increment) < 0))
        return -1;
    if (m->parallel_connections &&
        virTypedParamsAddInt(params, count, capacity, VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS,
                             m->parallel_connections == PARALLEL_AUTO
                                 ? CONNECTIONS_AUTO
                                 : m->parallel_connections) < 0)
        return -1;
    if (m->xbzrle_cache_bytes &&
        (virTypedParamsAddString(params, count, capacity, VIR_MIGRATE_PARAM_COMPRESSION, "xbzrle") <
             0 ||
         virTypedParamsAddULLong(params, count, capacity,
                                 VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE,
                                 m->xbzrle_cache_bytes) < 0))
        return -1;
    return 0;
}

static void work_migrate(struct call *c, virConnectPtr conn, virDomainPtr dom)
{
    const struct virt_migration *m = c->migration;
    unsigned flags = VIR_MIGRATE_LIVE | VIR_MIGRATE_PEER2PEER;
    virTypedParameterPtr params = NULL;
    int count = 0, capacity = 0;

    (void)conn;
    if (m->resume_postcopy)
        flags |= VIR_MIGRATE_POSTCOPY | VIR_MIGRATE_POSTCOPY_RESUME;
    else
        flags |= (m->may_postcopy ? VIR_MIGRATE_POSTCOPY : VIR_MIGRATE_PAUSED) |
                 VIR_MIGRATE_NON_SHARED_DISK | VIR_MIGRATE_NON_SHARED_SYNCHRONOUS_WRITES |
                 VIR_MIGRATE_ABORT_ON_ERROR;
    if (m->persistent)
        flags |= VIR_MIGRATE_PERSIST_DEST;
    if (m->auto_converge_initial)
        flags |= VIR_MIGRATE_AUTO_CONVERGE;
    if (m->xbzrle_cache_bytes)
        flags |= VIR_MIGRATE_COMPRESSED;
    if (m->parallel_connections)
        flags |= VIR_MIGRATE_PARALLEL;
    if (m->zero_copy)
        flags |= VIR_MIGRATE_ZEROCOPY;
    if (m->rewritten && add_definitions(c, dom, &params, &count, &capacity) < 0) {
        virTypedParamsFree(params, count);
        return;
    }
    if ((m->speed_mib_s &&
         virTypedParamsAddULLong(&params, &count, &capacity, VIR_MIGRATE_PARAM_BANDWIDTH,
                                 m->speed_mib_s) < 0) ||
        add_modes(m, &params, &count, &capacity) < 0 ||
        (m->target_name[0] &&
         virTypedParamsAddString(&params, &count, &capacity, VIR_MIGRATE_PARAM_DEST_NAME,
                                 m->target_name) < 0) ||
        virTypedParamsAddString(&params, &count, &capacity, VIR_MIGRATE_PARAM_URI, m->memory_uri) <
            0 ||
        (m->disks_uri[0] &&
         virTypedParamsAddString(&params, &count, &capacity, VIR_MIGRATE_PARAM_DISKS_URI,
                                 m->disks_uri) < 0) ||
        virDomainMigrateToURI3(dom, m->destination_uri, params, (unsigned)count, flags) < 0)
        virt_fault(c);
    virTypedParamsFree(params, count);
}

void virt_migrate(struct virt *v, const struct virt_migration *m, virt_done_fn done, void *user)
{
    struct call *c = virt_call_new(v, m->uuid, "migrate the VM", work_migrate, user);

    c->callback.done = done;
    c->migration = malloc(sizeof(*m));
    if (!c->migration || worker_new(v->loop, "ferry-migrate", &c->own_worker) < 0)
        abort(); /* see virt_call_new(); the number of moves is bounded */
    *c->migration = *m;
    worker_post(c->own_worker, &c->job);
}

/* --- start and end ------------------------------------------------------------------------- */

static void silence(void *opaque, virErrorPtr e)
{
    (void)opaque;
    (void)e; /* errors are reported where they are handled */
}

int virt_new(uv_loop_t *loop, const char *uri, const struct virt_ops *ops, void *user,
             struct virt **ret)
{
    struct virt *v = calloc(1, sizeof(*v));
    int r;

    if (!v)
        return -ENOMEM;
    v->loop = loop;
    v->ops = ops;
    v->user = user;
    snprintf(v->uri, sizeof(v->uri), "%s", uri);
    virSetErrorFunc(NULL, silence);
    r = virt_loop_start(loop);
    if (r == 0)
        r = worker_new(loop, "ferry-libvirt", &v->worker);
    if (r < 0) {
        free(v);
        return r;
    }
    *ret = v;
    return 0;
}

struct retire_job {
    struct worker_job job;
    struct virt *virt;
};

static void run_retire(struct worker_job *job)
{
    struct retire_job *j = container_of(job, struct retire_job, job);

    close_connection(j->virt);
}

static void done_retire(struct worker_job *job)
{
    struct retire_job *j = container_of(job, struct retire_job, job);

    virt_loop_stop();
    free(j->virt);
    free(j);
}

void virt_retire(struct virt *v)
{
    struct retire_job *j;

    if (!v || !(j = calloc(1, sizeof(*j))))
        return;
    v->retired = true;
    j->job = (struct worker_job){.run = run_retire, .done = done_retire};
    j->virt = v;
    worker_post(v->worker, &j->job);
    worker_retire(v->worker);
}
