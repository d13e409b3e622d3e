/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/check_target.h"

#include <errno.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/disk/disk_files.h"
#include "core/operations/evacuation.h"
#include "core/move/move.h"
#include "core/policy/policy_settle.h"
#include "core/virt/platform_json.h"

/* A call back to the source is given this long; beyond, it would not serve a move in doubt either. */
enum { WAY_BACK_TRIES = 25, WAY_BACK_PAUSE_MS = 200 };
/* Of all peers, at a time. */
enum { QUESTIONS_MAX = 16 };

/* --- libvirt, then the folders ------------------------------------------------------------- */

struct look {
    struct worker_job job;
    struct service *service;
    struct domain_info info;
    struct config config;
    uint64_t promised_bytes; /* to others that are coming */
    struct check_report report;
    check_target_done done;
    void *user;
};

static void run_look(struct worker_job *job)
{
    struct look *k = container_of(job, struct look, job);

    disk_files_check(&k->config, &k->info, k->promised_bytes, &k->report);
}

static void done_look(struct worker_job *job)
{
    struct look *k = container_of(job, struct look, job);

    k->done(k->user, &k->report);
    free(k);
}

static void on_host(void *user, const struct error *err, const struct check_report *report)
{
    struct look *k = user;

    if (err->code)
        check_fail(&k->report, "libvirt", err);
    check_append(&k->report, report, NULL);
    worker_post(k->service->files, &k->job);
}

/* What moves under way have yet to write here: room that is free and taken. */
static uint64_t promised_to_others(struct service *s, const struct domain_info *info)
{
    uint64_t promised = 0;
    struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        uint64_t coming = 0;

        if (m->role != JOURNAL_TARGET || m->finished || strcmp(m->info.uuid, info->uuid) == 0)
            continue;
        for (unsigned i = 0; i < m->info.disk_count; i++)
            coming += m->info.disks[i].allocated_bytes;
        promised += coming - MIN(coming, m->progress.disk_payload);
    }
    return promised;
}

void check_target_look(struct service *s, const struct domain_info *info,
                       const struct virt_host_question *question, check_target_done done,
                       void *user)
{
    struct look *k = calloc(1, sizeof(*k));
    struct virt_host_question *q = malloc(sizeof(*q));

    if (!k || !q)
        abort(); /* some hundred KiB; see virt_call_new() */
    k->job = (struct worker_job){.run = run_look, .done = done_look};
    k->service = s;
    k->info = *info;
    k->config = *s->config;
    k->promised_bytes = promised_to_others(s, info);
    k->done = done;
    k->user = user;
    *q = *question;
    snprintf(q->uuid, sizeof(q->uuid), "%s", info->uuid);
    snprintf(q->name, sizeof(q->name), "%s", info->name);
    virt_ask_host(s->virt, q, on_host, k);
    free(q);
}

int check_target_permission(const struct service *s, const char *peer, bool drill,
                            struct error *err)
{
    const struct config_peer *cp = config_peer_by_name(s->config, peer);

    if (evacuation_is_under_way(s))
        return error_set(err, -EBUSY, "receive the VM", "choose another target",
                         "%s is being evacuated", s->config->name);
    if (!cp || !(cp->permissions & PEER_MAY_MOVE_HERE))
        return error_set(err, -EPERM, "receive the VM",
                         "add move-here to allow = in its [peer] section there",
                         "%s does not take VMs from %s", s->config->name, peer);
    if (drill && !(cp->permissions & PEER_MAY_DRILL))
        return error_set(err, -EPERM, "receive the drill",
                         "add drill to allow = in its [peer] section there",
                         "%s does not take drills from %s", s->config->name, peer);
    return 0;
}

/* --- the peer's question ------------------------------------------------------------------- */

struct check_question {
    TAILQ_ENTRY(check_question) entry;
    struct service *service;
    char id[JOURNAL_ID_BYTES], peer[WIRE_NAME_BYTES];
    struct link_session *ls, *back; /* held while set */
    struct check_report report;
    bool permitted, looked;
    unsigned tries;
    uv_timer_t timer;
};

static void free_question(uv_handle_t *handle)
{
    free(handle->data);
}

static const char *no_post_copy(const struct service *s)
{
    FILE *f = fopen("/proc/sys/vm/unprivileged_userfaultfd", "re");
    int allowed = -1;

    if (f && fscanf(f, "%d", &allowed) != 1)
        allowed = -1;
    if (f)
        fclose(f);
    return policy_no_post_copy(virt_library_version(), allowed, s->qemu_uid == 0);
}

json_t *check_target_post_copy_answer(const struct service *s)
{
    const char *why = no_post_copy(s);

    return why ? json_string(why) : json_true();
}

static void answer(struct check_question *q)
{
    if (q->back)
        peering_release(q->back);
    if (q->ls) {
        const struct config_peer *peer = config_peer_by_name(q->service->config, q->peer);
        bool direct = peer && (peer->permissions & PEER_MAY_DIRECT_MEMORY);

        peering_send(q->ls,
                     json_pack("{s:s, s:s, s:o, s:I, s:b, s:b, s:s, s:o}", "type", "checked",
                               "check", q->id, "lines", check_report_to_json(&q->report), "now_ms",
                               (json_int_t)clock_wall_ms(), "direct_memory", direct, "witness",
                               q->service->witness != NULL, "version", FERRY_VERSION, "post_copy",
                               check_target_post_copy_answer(q->service)));
        peering_release(q->ls);
    }
    TAILQ_REMOVE(&q->service->questions, q, entry);
    uv_close((uv_handle_t *)&q->timer, free_question);
}

static const char BACK_MEND[] =
    "open the way for connections from there: a move in doubt is ended sooner when both can call";

static void on_timer(uv_timer_t *timer)
{
    struct check_question *q = timer->data;
    bool up = q->back && link_session_is_up(q->back);

    if (!q->looked || (q->back && !up && ++q->tries < WAY_BACK_TRIES))
        return;
    if (up)
        check_pass(&q->report, "way back", "%s can be called from here, too", q->peer);
    else if (q->permitted)
        check_warn(&q->report, "way back", BACK_MEND, "%s cannot be called from here", q->peer);
    uv_timer_stop(timer);
    answer(q);
}

static void on_looked(void *user, const struct check_report *report)
{
    struct check_question *q = user;

    check_append(&q->report, report, NULL);
    q->looked = true;
}

/* A dial of our own, beside the session that the question came on: two sites that both can call find each other
 * again whoever was restarted. */
static void call_back(struct check_question *q)
{
    const struct config_peer *peer = config_peer_by_name(q->service->config, q->peer);
    struct error err;

    if (peer && peer->link.address[0] &&
        peering_dial(q->service->peering, q->peer, &q->back, &err) < 0)
        q->back = NULL;
}

void check_target_on_message(struct service *s, const char *peer, struct link_session *ls,
                             const json_t *msg)
{
    const char *id = json_string_value(json_object_get(msg, "check"));
    struct virt_host_question *host = calloc(1, sizeof(*host));
    struct check_question *q = calloc(1, sizeof(*q));
    struct check_question *other;
    struct domain_info info;
    unsigned count = 0;
    struct error err;

    TAILQ_FOREACH(other, &s->questions, entry)
    count++;
    if (count >= QUESTIONS_MAX || !host || !q || !id || strlen(id) >= sizeof(q->id) ||
        domain_info_from_json(json_object_get(msg, "info"), &info) < 0 ||
        platform_from_json(json_object_get(msg, "platform"), host) < 0) {
        free(host);
        free(q);
        return; /* the asker gives up by itself */
    }
    q->service = s;
    snprintf(q->id, sizeof(q->id), "%s", id);
    snprintf(q->peer, sizeof(q->peer), "%s", peer);
    TAILQ_INSERT_TAIL(&s->questions, q, entry);
    q->ls = ls;
    peering_hold(ls);
    uv_timer_init(s->loop, &q->timer);
    q->timer.data = q;
    uv_timer_start(&q->timer, on_timer, WAY_BACK_PAUSE_MS, WAY_BACK_PAUSE_MS);
    if (check_target_permission(s, peer, json_is_true(json_object_get(msg, "drill")), &err) < 0) {
        check_fail(&q->report, "permission", &err);
        q->looked = true; /* who may send nothing learns nothing else */
    } else {
        check_pass(&q->report, "permission", "takes VMs from %s", peer);
        q->permitted = true;
        call_back(q);
        check_target_look(s, &info, host, on_looked, q);
    }
    free(host);
}

void check_target_on_session_closed(struct service *s, const struct link_session *ls)
{
    struct check_question *q;

    TAILQ_FOREACH(q, &s->questions, entry)
    {
        if (q->ls == ls)
            q->ls = NULL;
        if (q->back == ls)
            q->back = NULL;
    }
}
