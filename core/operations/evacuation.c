/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/evacuation.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/operations/check_source.h"
#include "core/operations/evacuation_plan.h"
#include "core/move/move.h"
#include "core/move/move_source.h"
#include "core/policy/policy_json.h"

enum { TICK_MS = 100, PLAN_PROBE_S = 3, PROBE_S = 2, JOBS_DEFAULT = 3 };

enum state { PLANNING, PLANNED, RUNNING, STOPPED, DONE };

struct evacuation {
    struct service *service;
    enum state state;
    bool dry_run, stop_wanted, listed, probing;
    bool interrupted;   /* by a restart of ferryd, and not planned since */
    json_t *asked;      /* for, as it came; owned */
    unsigned described; /* of the plan's VMs */
    unsigned pending;   /* libvirt's answers under way */
    int64_t started_ms; /* wall clock */
    uint64_t started_ns, ended_ns;
    struct error err; /* it could not be planned */
    char first[EVACUATION_VMS_MAX][DOMAIN_NAME_BYTES];
    unsigned first_count;
    struct move_wishes wishes; /* of each move: its policy */
    struct {
        char uuid[DOMAIN_UUID_BYTES];
        struct prediction_input in;
    } facts[EVACUATION_VMS_MAX]; /* by evacuation_vm.found */
    struct evacuation_plan plan;
    uv_timer_t tick;
};

static const char *state_name(enum state state)
{
    static const char *const names[] = {"planning", "planned", "running", "stopped", "done"};

    return names[state];
}

static void remember(const struct evacuation *e)
{
    struct journal_record record = {.id = "evacuation",
                                    .role = JOURNAL_EVACUATION,
                                    .finished = e->state == DONE,
                                    .created_ms = e->started_ms};
    json_t *document =
        json_pack("{s:I, s:O}", "started_ms", (json_int_t)e->started_ms, "wishes", e->asked);

    snprintf(record.state, sizeof(record.state), "%s", state_name(e->state));
    record.document = json_dumps(document, JSON_COMPACT);
    if (!record.document || journal_put(e->service->journal, &record, NULL, NULL) < 0)
        abort(); /* see virt_call_new() */
    free(record.document);
    json_decref(document);
}

static void set_state(struct evacuation *e, enum state state)
{
    log_info("evacuation: %s -> %s", state_name(e->state), state_name(state));
    e->state = state;
    e->ended_ns = state == RUNNING ? 0 : clock_now_ns();
    if (!e->dry_run)
        remember(e);
}

bool evacuation_is_under_way(const struct service *s)
{
    const struct evacuation *e = s->evacuation;

    return e && !e->dry_run && (e->state == PLANNING || e->state == RUNNING);
}

bool evacuation_is_busy(const struct service *s)
{
    return s->evacuation && s->evacuation->pending > 0;
}

/* --- the plan ------------------------------------------------------------------------------ */

static void give_up(struct evacuation *e, const struct error *why)
{
    e->err = *why;
    set_state(e, DONE);
}

static unsigned place_among_first(const struct evacuation *e, const char *name)
{
    for (unsigned i = 0; i < e->first_count; i++) {
        if (strcmp(e->first[i], name) == 0)
            return i + 1;
    }
    return 0;
}

/* By what is known of the link now. */
static void predict_all(struct evacuation *e)
{
    for (unsigned i = 0; i < e->plan.count; i++) {
        struct evacuation_vm *vm = &e->plan.vms[i];
        struct link_session *ls = peering_any(e->service->peering, e->plan.sites[0]);
        struct prediction_input in = e->facts[vm->found].in;
        struct prediction p;

        check_recall(e->service, e->facts[vm->found].uuid, e->plan.sites[0], &in);
        if (ls) {
            struct link_session_info info;

            link_session_get_info(ls, &info);
            in.rtt_us = info.stats.rtt_min_ns / 1000;
        }
        prediction_make(&in, &p);
        vm->predicted_ms = p.total_ms;
        vm->bytes = in.disk_bytes + in.memory_bytes;
    }
}

static void on_described(void *user, const struct error *err, const struct virt_description *d);

static void describe_next(struct evacuation *e)
{
    if (e->described == e->plan.count)
        return;
    e->pending++;
    virt_describe(e->service->virt, e->plan.vms[e->described].name, on_described, e);
}

static void on_described(void *user, const struct error *err, const struct virt_description *d)
{
    struct evacuation *e = user;
    struct evacuation_vm *vm = &e->plan.vms[e->described];
    struct policy policy = {0};

    e->pending--;
    if (err->code) { /* it has ended just now: nothing to move */
        *vm = e->plan.vms[--e->plan.count];
    } else {
        vm->found = e->described;
        vm->first = place_among_first(e, vm->name);
        if (policy_resolve(&e->service->config->policies, vm->name, &d->choices, &e->wishes.choices,
                           &policy, &vm->reason) < 0)
            vm->state = VM_STAYS;
        memcpy(e->facts[e->described].uuid, d->info.uuid, sizeof(d->info.uuid));
        check_fill_input(&policy, &d->info, d->resident_bytes, &e->facts[e->described].in);
        vm->priority = (unsigned)policy_get(&policy, POLICY_PRIORITY);
        if (check_first_failure(&d->report, &vm->reason))
            vm->state = VM_STAYS;
        e->described++;
    }
    describe_next(e);
}

static void on_listed(void *user, const struct error *err, const char *names)
{
    struct evacuation *e = user;
    char *copy = strdup(names), *save = NULL;

    e->pending--;
    if (!copy)
        abort(); /* see virt_call_new() */
    if (err->code)
        give_up(e, err);
    for (char *name = strtok_r(copy, "\n", &save); name && e->plan.count < EVACUATION_VMS_MAX;
         name = strtok_r(NULL, "\n", &save)) {
        struct evacuation_vm *vm = &e->plan.vms[e->plan.count++];

        snprintf(vm->name, sizeof(vm->name), "%s", name);
    }
    free(copy);
    e->listed = true;
    describe_next(e);
}

static bool is_measured(const struct link_probe_result *probe)
{
    return !probe || probe->done || probe->sent_bytes_s;
}

/* Planned once the VMs are described, and the link has been measured; but a move spends its first seconds with words, so
 * those that are to run begin as soon as the link is there, and what they will take is said when it is known. */
static void plan_on(struct evacuation *e)
{
    const struct link_probe_result *probe = link_probe_result(e->service->probes, e->plan.sites[0]);
    bool known = is_measured(probe);
    bool there =
        known || (!e->dry_run && link_probe_is_connected(e->service->probes, e->plan.sites[0]));

    if (!e->listed || e->pending > 0 || (e->probing && !there))
        return;
    if (e->probing && probe && probe->err.code && !e->dry_run && e->plan.site_count == 1) {
        give_up(e, &probe->err);
        return;
    }
    e->probing = !known;
    predict_all(e);
    evacuation_order(&e->plan);
    set_state(e, e->dry_run ? PLANNED : RUNNING);
}

static void follow_probe(struct evacuation *e)
{
    const struct link_probe_result *probe = link_probe_result(e->service->probes, e->plan.sites[0]);

    if (!e->probing || !is_measured(probe))
        return;
    e->probing = false;
    predict_all(e);
}

/* --- the moves ----------------------------------------------------------------------------- */

static void start_move(struct evacuation *e, struct evacuation_vm *vm, uint64_t now_ns)
{
    struct error err = {0};
    struct move *m;

    vm->tries++;
    if (move_source_start(e->service, vm->name, e->plan.sites[vm->site], &e->wishes, &m, &err) <
        0) {
        evacuation_failed(&e->plan, vm, &err, now_ns);
        return;
    }
    snprintf(vm->move, sizeof(vm->move), "%s", m->id);
    vm->started_ns = now_ns;
    vm->copied = false;
    vm->state = VM_MOVING;
}

static void follow(struct evacuation *e, struct evacuation_vm *vm, uint64_t now_ns)
{
    struct move *m = move_find(e->service, vm->move, JOURNAL_SOURCE);
    struct error why = {.code = -EIO};

    if (m && m->outcome == MOVE_OUTCOME_IN_DOUBT) {
        vm->reason = m->reason;
        vm->state = VM_IN_DOUBT;
        return;
    }
    vm->copied = m && m->phase >= MOVE_MEMORY;
    if (m && !m->finished)
        return;
    if (m && m->outcome == MOVE_OUTCOME_COMMITTED) {
        evacuation_moved(vm);
        return;
    }
    if (m && error_is_set(&m->reason))
        why = m->reason;
    if (m && m->refused)
        evacuation_refused(&e->plan, vm, &why);
    else
        evacuation_failed(&e->plan, vm, &why, now_ns);
}

/* A doubt may end by itself. */
static void look_again(struct evacuation *e, struct evacuation_vm *vm)
{
    const struct move *m = move_find(e->service, vm->move, JOURNAL_SOURCE);

    if (m && m->outcome != MOVE_OUTCOME_IN_DOUBT)
        vm->state = VM_MOVING;
}

static void move_on(struct evacuation *e)
{
    uint64_t now_ns = clock_now_ns();
    struct evacuation_vm *vm;

    follow_probe(e);
    for (unsigned i = 0; i < e->plan.count; i++) {
        if (e->plan.vms[i].state == VM_MOVING)
            follow(e, &e->plan.vms[i], now_ns);
        else if (e->plan.vms[i].state == VM_IN_DOUBT)
            look_again(e, &e->plan.vms[i]);
    }
    while (!e->stop_wanted && !e->service->stopping && (vm = evacuation_next(&e->plan, now_ns)))
        start_move(e, vm, now_ns);
    if (evacuation_count(&e->plan, VM_MOVING) > 0)
        return;
    if (evacuation_count(&e->plan, VM_WAITING) == 0)
        set_state(e, DONE);
    else if (e->stop_wanted)
        set_state(e, STOPPED);
}

static void on_tick(uv_timer_t *timer)
{
    struct evacuation *e = timer->data;

    if (e->state == PLANNING)
        plan_on(e);
    else if (e->state == RUNNING)
        move_on(e);
}

/* --- start and end ------------------------------------------------------------------------- */

static int read_names(const json_t *list, void *to, size_t bytes_each, unsigned most,
                      unsigned *ret_count)
{
    size_t i;
    json_t *item;

    *ret_count = 0;
    if (json_array_size(list) > most)
        return -EINVAL;
    json_array_foreach(list, i, item)
    {
        const char *name = json_string_value(item);

        if (!name || !name[0] || strlen(name) >= bytes_each)
            return -EINVAL;
        snprintf((char *)to + i * bytes_each, bytes_each, "%s", name);
        ++*ret_count;
    }
    return 0;
}

static int read_wishes(struct evacuation *e, const json_t *wishes, struct error *err)
{
    const json_t *jobs = json_object_get(wishes, "jobs");
    json_int_t n = jobs ? json_integer_value(jobs) : JOBS_DEFAULT;
    const struct config_peer *peer;

    if (read_names(json_object_get(wishes, "to"), e->plan.sites, sizeof(e->plan.sites[0]),
                   EVACUATION_SITES_MAX, &e->plan.site_count) < 0 ||
        e->plan.site_count == 0 ||
        read_names(json_object_get(wishes, "first"), e->first, sizeof(e->first[0]),
                   EVACUATION_VMS_MAX, &e->first_count) < 0)
        return error_set(err, -EINVAL, "evacuate", NULL,
                         "\"to\" must name one to %d sites, \"first\" VMs", EVACUATION_SITES_MAX);
    if (n < 1 || n > (json_int_t)LIMIT_MOVES)
        return error_set(err, -EINVAL, "evacuate", NULL, "\"jobs\" must be 1 to %u", LIMIT_MOVES);
    if (policy_request_from_json(wishes, &e->wishes.choices, err) < 0)
        return err->code;
    if (e->wishes.choices.policy[0] &&
        !policy_config_knows(&e->service->config->policies, e->wishes.choices.policy))
        return error_set(err, -ENOENT, "evacuate", "see `ferry policies`",
                         "no policy is named '%s'", e->wishes.choices.policy);
    e->plan.jobs = (unsigned)n;
    e->dry_run = json_is_true(json_object_get(wishes, "dry_run"));
    for (unsigned i = 0; i < e->plan.site_count; i++) {
        int r = move_source_may_use(e->service, e->plan.sites[i], false, &peer, err);

        if (r < 0)
            return r;
    }
    return 0;
}

static void evacuation_drop(struct evacuation *e)
{
    if (e)
        json_decref(e->asked);
    free(e);
}

static void on_closed(uv_handle_t *handle)
{
    evacuation_drop(handle->data);
}

void evacuation_free(struct service *s)
{
    struct evacuation *e = TAKE_PTR(s->evacuation);

    if (e)
        uv_close((uv_handle_t *)&e->tick, on_closed);
}

static int evacuation_new(struct service *s, const json_t *wishes, struct evacuation **ret,
                          struct error *err)
{
    struct evacuation *e = calloc(1, sizeof(*e));
    int r;

    if (!e || !(e->asked = json_deep_copy(wishes))) {
        free(e);
        return error_set(err, -ENOMEM, "evacuate", NULL, "out of memory");
    }
    e->service = s;
    r = read_wishes(e, wishes, err);
    if (r < 0) {
        evacuation_drop(e);
        return r;
    }
    *ret = e;
    return 0;
}

/* The site's, from here on. */
static void adopt(struct evacuation *e)
{
    struct service *s = e->service;

    evacuation_free(s);
    s->evacuation = e;
    uv_timer_init(s->loop, &e->tick);
    e->tick.data = e;
    uv_timer_start(&e->tick, on_tick, TICK_MS, TICK_MS);
}

static void begin_planning(struct evacuation *e)
{
    struct service *s = e->service;
    struct error ignored;

    e->started_ms = clock_wall_ms();
    e->started_ns = clock_now_ns();
    e->probing = link_probe_start(s->probes, e->plan.sites[0], e->dry_run ? PLAN_PROBE_S : PROBE_S,
                                  LINK_PROBE_THERE, &ignored) == 0;
    e->pending++;
    virt_list_running(s->virt, on_listed, e);
    log_info("evacuation%s: to %s%s, %u at a time", e->dry_run ? " (a plan only)" : "",
             e->plan.sites[0], e->plan.site_count > 1 ? " and others" : "", e->plan.jobs);
    if (!e->dry_run)
        remember(e);
}

int evacuation_start(struct service *s, const json_t *wishes, struct error *err)
{
    struct evacuation *e = NULL;
    int r = evacuation_new(s, wishes, &e, err);

    if (r == 0 && s->evacuation && s->evacuation->state <= STOPPED &&
        s->evacuation->state != PLANNED)
        r = error_set(err, -EBUSY, "evacuate", "see `ferry evacuate --show`; --resume or --stop it",
                      "an evacuation is %s", state_name(s->evacuation->state));
    if (r == 0 && evacuation_is_busy(s))
        r = error_set(err, -EBUSY, "evacuate", "try again", "libvirt still answers the last one");
    if (r < 0) {
        evacuation_drop(e);
        return r;
    }
    adopt(e);
    begin_planning(e);
    return 0;
}

int evacuation_recover(struct service *s, const json_t *document, struct error *err)
{
    struct evacuation *e = NULL;
    int r = evacuation_new(s, json_object_get(document, "wishes"), &e, err);

    if (r < 0)
        return r;
    e->state = STOPPED;
    e->interrupted = true;
    e->started_ms = json_integer_value(json_object_get(document, "started_ms"));
    e->started_ns = e->ended_ns = clock_now_ns();
    adopt(e);
    log_warning("evacuation: found unfinished; `ferry evacuate --resume` plans what is left");
    return 0;
}

int evacuation_stop(struct service *s, struct error *err)
{
    struct evacuation *e = s->evacuation;

    if (!e || e->state != RUNNING)
        return error_set(err, -EBUSY, "stop the evacuation", NULL, "none is running");
    e->stop_wanted = true;
    return 0;
}

int evacuation_resume(struct service *s, struct error *err)
{
    struct evacuation *e = s->evacuation;

    if (!e || e->dry_run || error_is_set(&e->err) ||
        (e->state != STOPPED && e->state != DONE && !(e->state == RUNNING && e->stop_wanted)))
        return error_set(err, -EBUSY, "resume the evacuation", "ferry evacuate --to SITE",
                         "none was stopped here");
    e->stop_wanted = false;
    if (e->interrupted) {
        e->interrupted = false;
        e->state = PLANNING;
        e->ended_ns = 0;
        begin_planning(e);
        return 0;
    }
    evacuation_retry(&e->plan);
    if (e->state != RUNNING)
        set_state(e, RUNNING);
    return 0;
}

/* --- JSON ---------------------------------------------------------------------------------- */

static json_t *vm_to_json(const struct evacuation *e, const struct evacuation_vm *vm)
{
    struct move *m = vm->move[0] ? move_find(e->service, vm->move, JOURNAL_SOURCE) : NULL;
    char line[1024] = "";

    if (error_is_set(&vm->reason))
        error_line(&vm->reason, line, sizeof(line));
    return json_pack("{s:s, s:s, s:s, s:s, s:i, s:I, s:I, s:s, s:s, s:I}", "domain", vm->name,
                     "state", evacuation_state_name(vm->state), "site", e->plan.sites[vm->site],
                     "move", vm->move, "tries", (int)vm->tries, "predicted_ms",
                     (json_int_t)vm->predicted_ms, "bytes", (json_int_t)vm->bytes, "reason", line,
                     "phase", m ? move_phase_name(m->phase) : "", "downtime_ms",
                     m ? (json_int_t)m->downtime_ms : (json_int_t)-1);
}

json_t *evacuation_to_json(struct service *s)
{
    const struct evacuation *e = s->evacuation;
    json_t *vms = json_array(), *view;
    uint64_t until_ns;
    int64_t eta_ms;

    if (!e) {
        json_decref(vms);
        return NULL;
    }
    until_ns = e->ended_ns ? e->ended_ns : clock_now_ns();
    for (unsigned i = 0; i < e->plan.count && e->state != PLANNING; i++)
        json_array_append_new(vms, vm_to_json(e, &e->plan.vms[i]));
    eta_ms = evacuation_eta_ms(&e->plan, clock_now_ns());
    view = json_pack("{s:s, s:b, s:i, s:I, s:I, s:I, s:i, s:i, s:i, s:i, s:o}", "state",
                     state_name(e->state), "dry_run", e->dry_run, "jobs", (int)e->plan.jobs,
                     "started_ms", (json_int_t)e->started_ms, "total_ms",
                     (json_int_t)((until_ns - e->started_ns) / NS_PER_MS), "eta_s",
                     (json_int_t)(eta_ms < 0 ? -1 : eta_ms / 1000), "moved",
                     (int)evacuation_count(&e->plan, VM_MOVED), "waiting",
                     (int)evacuation_count(&e->plan, VM_WAITING), "stay",
                     (int)evacuation_count(&e->plan, VM_STAYS), "in_doubt",
                     (int)evacuation_count(&e->plan, VM_IN_DOUBT), "vms", vms);
    if (e->interrupted)
        json_object_set_new(view, "interrupted", json_true());
    if (error_is_set(&e->err))
        json_object_set_new(view, "error", error_to_json(&e->err));
    return view;
}
