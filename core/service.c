/* SPDX-License-Identifier: Apache-2.0 */
/* The daemon's one-of-each, the routing of messages to moves, start and end: see service.h. */
#include "core/service.h"

#include <errno.h>
#include <malloc.h>
#include <pwd.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "core/api/api.h"
#include "core/operations/check_source.h"
#include "core/operations/check_target.h"
#include "core/base/limits.h"
#include "core/base/log.h"
#include "core/operations/evacuation.h"
#include "core/move/move.h"
#include "core/move/move_source.h"
#include "core/move/move_target.h"
#include "core/policy/policy_query.h"
#include "core/disk/spool_file.h"
#include "core/api/status_page.h"

/* --- deferred work ------------------------------------------------------------------------- */

struct deferred {
    uv_timer_t timer;
    void (*fn)(void *arg);
    void *arg;
};

static void on_deferred_closed(uv_handle_t *handle)
{
    free(handle->data);
}

static void on_deferred(uv_timer_t *timer)
{
    struct deferred *d = timer->data;

    d->fn(d->arg);
    uv_close((uv_handle_t *)timer, on_deferred_closed);
}

int service_defer(struct service *s, void (*fn)(void *arg), void *arg)
{
    struct deferred *d = calloc(1, sizeof(*d));

    if (!d)
        abort(); /* some dozen bytes: nothing can go on, and recovery at the next start settles */
    d->fn = fn;
    d->arg = arg;
    d->timer.data = d;
    uv_timer_init(s->loop, &d->timer);
    uv_timer_start(&d->timer, on_deferred, 0, 0);
    return 0;
}

void service_trim_memory(struct service *s)
{
    if (move_count_sending(s) == 0)
        malloc_trim(0);
}

/* --- from the peers ------------------------------------------------------------------------ */

/* Words of a target's go to our source half, and the other way round. */
static enum journal_role role_for(const char *type)
{
    static const char *const to_target[] = {"commit", "abort", "drill", "unknown-move"};

    for (size_t i = 0; i < ARRAY_SIZE(to_target); i++) {
        if (strcmp(type, to_target[i]) == 0)
            return JOURNAL_TARGET;
    }
    return JOURNAL_SOURCE;
}

static void answer_unknown(struct link_session *ls, const char *type, const char *id,
                           enum journal_role role)
{
    if (strcmp(type, "unknown") == 0 || strcmp(type, "unknown-move") == 0)
        return;
    log_warning("move %s: a peer speaks of it ('%s'), but nothing is known of it here", id, type);
    if (role == JOURNAL_TARGET || strcmp(type, "ask") == 0)
        peering_send(ls,
                     json_pack("{s:s, s:s}", "type",
                               role == JOURNAL_TARGET ? "unknown" : "unknown-move", "move", id));
}

static void on_message(void *user, const char *peer, struct link_session *ls, const json_t *msg)
{
    struct service *s = user;
    const char *type = json_string_value(json_object_get(msg, "type"));
    const char *id = json_string_value(json_object_get(msg, "move"));
    enum journal_role role = role_for(type);
    struct move *m;

    if (strcmp(type, "prepare") == 0) {
        move_target_on_prepare(s, peer, ls, msg);
        return;
    }
    if (strcmp(type, "check") == 0) {
        check_target_on_message(s, peer, ls, msg);
        return;
    }
    if (strcmp(type, "checked") == 0) {
        check_source_on_message(s, peer, ls, msg);
        return;
    }
    if (!id || strlen(id) >= JOURNAL_ID_BYTES)
        return;
    m = move_find(s, id, role);
    if (m && strcmp(m->peer, peer) != 0)
        m = NULL; /* a peer may speak of its own moves only */
    if (!m)
        answer_unknown(ls, type, id, role);
    else if (role == JOURNAL_SOURCE)
        move_source_on_message(m, ls, type, msg);
    else
        move_target_on_message(m, ls, type, msg);
}

static void on_stream(void *user, const char *peer, struct link_session *ls, const json_t *label,
                      struct stream *stream)
{
    const char *channel = json_string_value(json_object_get(label, "channel"));
    const char *id = json_string_value(json_object_get(label, "move"));
    struct move *m = id ? move_find(user, id, JOURNAL_TARGET) : NULL;
    struct service *s = user;

    (void)ls;
    if (channel && strcmp(channel, "probe") == 0)
        link_probe_serve(s->probes, label, stream);
    else if (m && strcmp(m->peer, peer) == 0)
        move_target_on_stream(m, label, stream);
    else
        stream_release(stream);
}

static void on_session_closed(void *user, const char *peer, struct link_session *ls,
                              const struct error *why)
{
    struct service *s = user;
    char line[1024];
    struct move *m;

    if (move_count_running(s) > 0)
        log_warning("link to %s: %s", peer, error_line(why, line, sizeof(line)));
    link_probes_session_closed(s->probes, ls, why);
    check_source_on_session_closed(s, ls, why);
    check_target_on_session_closed(s, ls);
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m->role == JOURNAL_SOURCE)
            move_source_on_session_closed(m, ls, why);
        else
            move_target_on_session_closed(m, ls, why);
    }
}

static void on_session_freed(void *user)
{
    service_trim_memory(
        user); /* frames in flight, windows: megabytes that a move's own end did not see */
}

static const struct peering_ops peering_ops = {
    .on_message = on_message,
    .on_stream = on_stream,
    .on_session_closed = on_session_closed,
    .on_session_freed = on_session_freed,
};

/* --- from libvirt -------------------------------------------------------------------------- */

static struct move *unfinished_move_of(struct service *s, const char *uuid)
{
    struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (!m->finished && strcmp(m->info.uuid, uuid) == 0)
            return m;
    }
    return NULL;
}

static void on_suspended(void *user, const char *uuid)
{
    struct move *m = unfinished_move_of(user, uuid);

    if (m && m->role == JOURNAL_SOURCE)
        move_source_on_suspended(m);
}

static void on_stopped(void *user, const char *uuid)
{
    struct move *m = unfinished_move_of(user, uuid);

    if (m && m->role == JOURNAL_SOURCE)
        move_source_on_stopped(m);
    else if (m)
        move_target_on_stopped(m);
}

static void on_disconnected(void *user)
{
    struct service *s = user;

    if (!s->stopping)
        log_warning("libvirt: the connection to libvirtd was lost");
}

static const struct virt_ops virt_ops = {
    .on_suspended = on_suspended,
    .on_stopped = on_stopped,
    .on_disconnected = on_disconnected,
};

/* --- recovery ------------------------------------------------------------------------------ */

/* Without it nothing is lost but the operator's wish: whatever is wrong with it, ferryd starts. */
static void recover_evacuation(struct service *s, const struct journal_record *record)
{
    json_t *document = json_loads(record->document, 0, NULL);
    struct error err = {0};
    char line[1024];

    if (!record->finished && evacuation_recover(s, document, &err) < 0)
        log_error("the evacuation that was under way is forgotten: %s",
                  error_line(&err, line, sizeof(line)));
    json_decref(document);
}

static int recover_record(struct service *s, const struct journal_record *record, struct error *err)
{
    struct move *m;
    int r;

    if (record->role == JOURNAL_EVACUATION) {
        recover_evacuation(s, record);
        return 0;
    }
    r = move_new(s, record->role, record->id, "?", &m, err);

    if (r < 0)
        return r;
    m->created_ms = record->created_ms;
    m->finished = record->finished;
    r = move_from_document(m, record->document, err);
    if (r < 0) {
        m->finished = true;
        return r;
    }
    if (record->finished) {
        m->phase = MOVE_DONE;
        return 0;
    }
    json_decref(m->past);
    m->past = NULL;
    return record->role == JOURNAL_SOURCE ? move_source_recover(m, record->state, err)
                                          : move_target_recover(m, record->state, err);
}

static int recover(struct service *s, struct error *err)
{
    struct journal_record *records = NULL;
    size_t count = 0;
    char line[1024];
    int r = journal_load(s->journal, LIMIT_MOVES_REMEMBERED / 2, &records, &count, err);

    if (r < 0)
        return r;
    for (size_t i = 0; i < count && r == 0; i++) {
        struct error one = {0};

        if (recover_record(s, &records[i], &one) == 0)
            continue;
        log_error("recovery of move %s: %s", records[i].id, error_line(&one, line, sizeof(line)));
        if (!records[i].finished) { /* to forget a promise would be worse than not to start */
            *err = one;
            r = one.code;
        }
    }
    journal_records_free(records, count);
    return r;
}

/* --- start and end ------------------------------------------------------------------------- */

static int make_folder(const char *path, mode_t mode, struct error *err)
{
    if (mkdir(path, mode) < 0 && errno != EEXIST)
        return error_set(err, -errno, "make a folder", NULL, "%s: %s", path, strerror(errno));
    return 0;
}

static int find_qemu_user(struct service *s, struct error *err)
{
    struct passwd *pw = getpwnam(s->config->qemu_user);

    if (!pw)
        return error_set(err, -ENOENT, "find QEMU's user",
                         "set qemu_user in [libvirt] to what /etc/libvirt/qemu.conf "
                         "says",
                         "there is no user '%s'", s->config->qemu_user);
    s->qemu_uid = pw->pw_uid;
    s->qemu_gid = pw->pw_gid;
    return 0;
}

static int open_state(struct service *s, struct error *err)
{
    char path[PATH_MAX + 32];
    int r = make_folder(s->config->state_dir, 0700, err);

    if (r == 0)
        r = make_folder(s->config->run_dir, 0755, err);
    if (r == 0)
        r = find_qemu_user(s, err);
    if (r == 0)
        r = tls_identity_load(s->config->key, s->config->certificate, s->config->name, &s->identity,
                              err);
    if (r == 0 && s->config->ca[0])
        r = tls_identity_trust(s->identity, s->config->ca, s->config->crl, err);
    if (r == 0) {
        snprintf(path, sizeof(path), "%s/journal.sqlite", s->config->state_dir);
        r = journal_open(s->loop, path, &s->journal, err);
    }
    return r;
}

static int start_parts(struct service *s, struct error *err)
{
    int r = open_state(s, err);

    rpc_opening_presume(&s->rpc_opening);
    if (r == 0 && ((r = mirror_budget_new(&s->budget, s->config->log_memory_bytes)) < 0 ||
                   (r = worker_new(s->loop, "ferry-files", &s->files)) < 0 ||
                   (r = virt_new(s->loop, s->config->libvirt_uri, &virt_ops, s, &s->virt)) < 0))
        error_set(err, r, "start", NULL, "%s", strerror(-r));
    if (r == 0 && s->config->spool_dir[0])
        r = spool_file_new(s->loop, s->config->spool_dir, s->config->spool_bytes, &s->spool, err);
    if (r == 0)
        r = peering_new(s->loop, s->config, s->identity, &peering_ops, s, &s->peering, err);
    if (r == 0 && !(s->probes = link_probes_new(s->loop, s->peering)))
        r = error_set(err, -ENOMEM, "start", NULL, "out of memory");
    if (r == 0 && s->config->witness.endpoint_count > 0 &&
        (r = witness_new(s->loop, &s->config->witness, &s->witness)) < 0)
        error_set(err, r, "start", NULL, "%s", strerror(-r));
    if (r == 0)
        r = recover(s, err);
    if (r == 0)
        r = api_new(s, &s->api, err);
    if (r == 0 && s->config->status_page[0])
        r = status_page_new(s, s->config->status_page, &s->status_page, err);
    return r;
}

int service_new(uv_loop_t *loop, const char *config_path, struct service **ret, struct error *err)
{
    struct service *s = calloc(1, sizeof(*s));
    int r;

    if (!s)
        return error_set(err, -ENOMEM, "start", NULL, "out of memory");
    s->loop = loop;
    s->config_path = config_path;
    TAILQ_INIT(&s->moves);
    TAILQ_INIT(&s->checks);
    TAILQ_INIT(&s->questions);
    TAILQ_INIT(&s->policy_queries);
    r = config_load(config_path, &s->config, err);
    if (r == 0) {
        log_set_level(s->config->log_level);
        r = start_parts(s, err);
    }
    if (r < 0)
        return r; /* the process ends: whatever was opened goes with it */
    log_info("site %s: listening on %s, %u peers, identity %s", s->config->name, s->config->listen,
             s->config->peer_count, tls_identity_fingerprint(s->identity));
    *ret = s;
    return 0;
}

int service_reload(struct service *s, struct error *err)
{
    struct config *fresh;
    int r = config_load(s->config_path, &fresh, err);

    if (r < 0)
        return r;
    memcpy(s->config->peers, fresh->peers, sizeof(fresh->peers));
    s->config->bwlimit = fresh->bwlimit;
    s->config->peer_count = fresh->peer_count;
    memcpy(s->config->seeds, fresh->seeds, sizeof(fresh->seeds));
    s->config->seed_count = fresh->seed_count;
    s->config->policies = fresh->policies;
    s->config->log_level = fresh->log_level;
    log_set_level(fresh->log_level);
    config_free(fresh);
    peering_reconfigure(s->peering, s->config);
    log_info("configuration read again: %u peers", s->config->peer_count);
    return 0;
}

static void close_parts(struct service *s)
{
    status_page_stop(TAKE_PTR(s->status_page));
    api_stop(s->api);
    check_free_all(s);
    policy_query_free_all(s);
    evacuation_free(s);
    link_probes_free(TAKE_PTR(s->probes));
    peering_shutdown(s->peering);
    witness_free(TAKE_PTR(s->witness));
    virt_retire(s->virt);
    worker_retire(s->files);
    spool_file_retire(s->spool);
    journal_close(s->journal);
}

/* Lets moves that give up reach a settled state, for a bounded time; the journal settles the rest. */
static void on_stop_tick(uv_timer_t *timer)
{
    struct service *s = timer->data;
    struct move *m;
    bool busy = false;

    TAILQ_FOREACH(m, &s->moves, entry)
    busy = busy || m->source || m->target;
    busy = busy || check_any_running(s) || evacuation_is_busy(s) || policy_query_any_running(s) ||
           !TAILQ_EMPTY(&s->questions);
    if (busy && s->stop_ticks++ < 100)
        return;
    if (busy) {
        log_warning("stopping with unfinished moves: they are settled at the next start");
        _exit(0);
    }
    uv_timer_stop(timer);
    uv_close((uv_handle_t *)timer, NULL);
    close_parts(s);
}

void service_stop(struct service *s)
{
    struct move *m;

    if (s->stopping)
        return;
    s->stopping = true;
    log_info("stopping");
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m->role == JOURNAL_SOURCE)
            move_source_shutdown(m);
        else
            move_target_shutdown(m);
    }
    uv_timer_init(s->loop, &s->stop_timer);
    s->stop_timer.data = s;
    uv_timer_start(&s->stop_timer, on_stop_tick, 0, 100);
}

void service_free(struct service *s)
{
    struct move *m;

    if (!s)
        return;
    while ((m = TAILQ_FIRST(&s->moves))) {
        TAILQ_REMOVE(&s->moves, m, entry);
        json_decref(m->past);
        json_decref(m->stun_undo);
        free(m);
    }
    peering_free(s->peering);
    mirror_budget_free(s->budget);
    spool_file_free(s->spool);
    tls_identity_free(s->identity);
    api_free(s->api);
    config_free(s->config);
    free(s);
}
