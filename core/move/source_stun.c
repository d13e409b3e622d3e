/* SPDX-License-Identifier: Apache-2.0 */
#include "core/move/source_stun.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/move/move_source_private.h"
#include "core/virt/vcpu_groups.h"

enum { VCPUS_MAX = 512, STUN_HARDEST = STUN_WHOLE / 100 * 99 };

/* How often the vCPUs' use is looked at, while they run free. */
#define USE_SPAN_NS (500 * NS_PER_MS)
/* QEMU's samples of the dirty rate: of one second, known a little later; so many pages in all, within what it allows
 * of each GiB. */
#define SAMPLE_NS NS_PER_S
#define SAMPLE_LOOK_NS (1200 * NS_PER_MS)
#define SAMPLE_REFUSED_NS (5 * NS_PER_S)
#define SAMPLE_PAGES UINT64_C(16384)
#define SAMPLE_PAGES_LEAST UINT64_C(128)
#define SAMPLE_PAGES_MOST UINT64_C(16384)
/* How far the limit of processor time may be above what is to be kept, and how fast it goes there. */
#define TRIM_MOST 4.0
#define TRIM_STEP_LEAST 0.8
#define TRIM_STEP_MOST 1.25
/* Beside round trips, of the time the guest stands still: stop, load, resume (docs/benchmarks.md). */
#define OVERHEAD_MS 120

static bool may_ask_qemu(const struct move_source *ms)
{
    return source_disks_may_qmp(ms) && ms->sw.state == SOURCE_MOVING;
}

/* --- asking QEMU --------------------------------------------------------------------------- */

static void give_up(struct move_source *ms, const struct error *err)
{
    char line[1024];

    ms->stun.state = SOURCE_STUN_NONE;
    ms->stun.actuator = STUN_ACTUATOR_NONE;
    ms->stun.control.config.max_level = 0;
    log_info("move %s (%s): the guest cannot be slowed down: %s", ms->move->id, ms->move->info.name,
             error_line(err, line, sizeof(line)));
}

static void ask(struct move_source *ms, const char *command, virt_reply_fn done)
{
    ms->move->pending++;
    virt_qmp(ms->service->virt, ms->move->info.uuid, command, done, ms);
}

static void on_steered(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;

    (void)reply;
    ms->stun.steering = false;
    if (err->code && ms->stun.applied > 0)
        log_warning("move %s (%s): QEMU does not slow the guest down: %s", ms->move->id,
                    ms->move->info.name, err->why);
    move_source_call_returned(ms);
}

static void steer(struct move_source *ms, const char *command)
{
    ms->stun.steering = true;
    ask(ms, command, on_steered);
}

static unsigned read_thread_ids(const char *reply, int ids[VCPUS_MAX])
{
    json_t *document = json_loads(reply, 0, NULL), *item;
    unsigned count = 0;
    size_t i;

    json_array_foreach(json_object_get(document, "return"), i, item)
    {
        json_int_t id = json_integer_value(json_object_get(item, "thread-id"));

        if (id > 0 && id <= INT32_MAX && count < VCPUS_MAX)
            ids[count++] = (int)id;
    }
    json_decref(document);
    return count;
}

/* The best that there is, or the one that the configuration names. */
static enum stun_actuator choose(const struct move_source *ms)
{
    enum stun_actuator wanted = ms->service->config->stun_actuator;
    bool limit = ms->move->info.has_dirty_ring;
    bool groups = vcpu_groups_usable(ms->stun.vcpus);

    switch (wanted) {
    case STUN_ACTUATOR_DIRTY_LIMIT:
        return limit ? wanted : STUN_ACTUATOR_NONE;
    case STUN_ACTUATOR_CGROUP:
        return groups ? wanted : STUN_ACTUATOR_NONE;
    case STUN_ACTUATOR_AUTO_CONVERGE:
        return wanted;
    default:
        return limit    ? STUN_ACTUATOR_DIRTY_LIMIT
               : groups ? STUN_ACTUATOR_CGROUP
                        : STUN_ACTUATOR_AUTO_CONVERGE;
    }
}

static void take_actuator(struct move_source *ms, const struct error *why_no_groups)
{
    ms->stun.actuator = choose(ms);
    if (ms->stun.actuator == STUN_ACTUATOR_NONE) {
        give_up(ms, why_no_groups);
        return;
    }
    ms->stun.state = SOURCE_STUN_READY;
    log_info("move %s (%s): to slow the guest down: %s", ms->move->id, ms->move->info.name,
             stun_actuator_name(ms->stun.actuator));
    if (ms->stun.actuator != STUN_ACTUATOR_AUTO_CONVERGE)
        return;
    ask(ms,
        "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"cpu-throttle-initial\":1,"
        "\"cpu-throttle-increment\":99,\"max-cpu-throttle\":1}}",
        on_steered);
    ask(ms,
        "{\"execute\":\"migrate-set-capabilities\",\"arguments\":{\"capabilities\":"
        "[{\"capability\":\"auto-converge\",\"state\":true}]}}",
        on_steered);
}

static void on_vcpus(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;
    struct error why = *err;
    int ids[VCPUS_MAX];

    if (ms->stun.state == SOURCE_STUN_ASKING) {
        if (!err->code &&
            vcpu_groups_find(ids, read_thread_ids(reply, ids), &ms->stun.vcpus, &why) == 0)
            take_actuator(ms, &why);
        else
            give_up(ms, &why);
    }
    move_source_call_returned(ms);
}

void source_stun_prepare(struct move_source *ms)
{
    struct error none = {.why = "the policy's converge or [libvirt] monitor does not allow it"};

    if (ms->stun.state != SOURCE_STUN_IDLE)
        return;
    if (!may_ask_qemu(ms) || policy_get(&ms->move->policy, POLICY_CONVERGE) != CONVERGE_STUN) {
        give_up(ms, &none);
        return;
    }
    ms->stun.state = SOURCE_STUN_ASKING;
    ask(ms, "{\"execute\":\"query-cpus-fast\"}", on_vcpus);
}

/* --- samples of what the guest dirties ----------------------------------------------------- */

static void on_sample_started(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;
    struct source_sample *sample = &ms->stun.sample;

    (void)reply;
    if (err->code) { /* it takes one for somebody else, or knows none */
        log_debug("move %s: %s", ms->move->id, err->why);
        sample->again_ns = clock_now_ns() + SAMPLE_REFUSED_NS;
        sample->begun_ns = 0;
    } else {
        sample->begun_ns = clock_now_ns();
        sample->look_ns = sample->begun_ns + SAMPLE_LOOK_NS;
        sample->left_ns = 0;
    }
    move_source_call_returned(ms);
}

/* {"return": {"status": "measured", "dirty-rate": MIB_S, ...}} */
static void on_sample(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;
    struct source_sample *sample = &ms->stun.sample;
    json_t *document = json_loads(reply, 0, NULL);
    const json_t *answer = json_object_get(document, "return");
    const char *status = json_string_value(json_object_get(answer, "status"));
    json_int_t rate = json_integer_value(json_object_get(answer, "dirty-rate"));

    if (!err->code && strcmp(status ? status : "", "measuring") == 0)
        sample->look_ns = clock_now_ns() + SAMPLE_LOOK_NS / 4; /* a busy host takes its time */
    else {
        if (!err->code && rate > 0) {
            sample->last.number++;
            sample->last.bytes_s = (uint64_t)rate << 20;
            sample->last.left = (unsigned)(sample->left_ns / SAMPLE_NS);
            log_info("move %s (%s): the guest dirties %lld MiB/s with %u of 1000 of its time",
                     ms->move->id, ms->move->info.name, (long long)rate, sample->last.left);
        }
        sample->begun_ns = 0;
    }
    json_decref(document);
    move_source_call_returned(ms);
}

static void start_sample(struct move_source *ms)
{
    uint64_t gib = (ms->move->progress.memory_total >> 30) + 1;
    uint64_t pages = MIN(MAX(SAMPLE_PAGES / gib, SAMPLE_PAGES_LEAST), SAMPLE_PAGES_MOST);
    char command[160];

    ms->stun.sample.begun_ns = clock_now_ns();
    ms->stun.sample.look_ns = 0;
    snprintf(
        command, sizeof(command),
        "{\"execute\":\"calc-dirty-rate\",\"arguments\":{\"calc-time\":1,\"sample-pages\":%llu}}",
        (unsigned long long)pages);
    ask(ms, command, on_sample_started);
}

/* What the guest keeps in the second that QEMU looks at. */
static void follow_sample(struct source_stun *st, uint64_t now_ns)
{
    struct source_sample *sample = &st->sample;
    uint64_t from_ns = MAX(st->ticked_ns, sample->begun_ns);
    uint64_t to_ns = MIN(now_ns, sample->begun_ns + SAMPLE_NS);

    if (sample->begun_ns && to_ns > from_ns)
        sample->left_ns += (double)(STUN_WHOLE - st->applied) * (double)(to_ns - from_ns);
}

static void tick_sample(struct move_source *ms, uint64_t now_ns)
{
    struct source_sample *sample = &ms->stun.sample;

    if (sample->look_ns && now_ns >= sample->look_ns) {
        sample->look_ns = 0;
        ask(ms, "{\"execute\":\"query-dirty-rate\"}", on_sample);
    } else if (!sample->begun_ns && sample->wanted && now_ns >= sample->again_ns &&
               may_ask_qemu(ms))
        start_sample(ms);
}

static void begin(struct move_source *ms, uint64_t now_ns)
{
    const struct policy *p = &ms->move->policy;
    unsigned percent = (unsigned)policy_get(p, POLICY_STUN_MAX_PERCENT);
    struct stun_config config = {
        .max_level = ms->stun.state == SOURCE_STUN_NONE ? 0 : percent * (STUN_WHOLE / 100),
        .resend_permille = (unsigned)policy_get(p, POLICY_RESEND_PERCENT) * 10,
        .downtime_ms = policy_get(p, POLICY_DOWNTIME_MS),
        .downtime_budget_ms = policy_get(p, POLICY_DOWNTIME_MAX_MS),
        .downtime_double_ns = policy_get(p, POLICY_DOWNTIME_DOUBLE_S) * NS_PER_S,
        .downtime_last_ms = policy_get(p, POLICY_DOWNTIME_LAST_MS),
        .downtime_overhead_ms = OVERHEAD_MS,
    };

    ms->stun.begun_ns = ms->stun.ticked_ns = now_ns;
    ms->stun.trim = 1;
    stun_start(&ms->stun.control, &config, now_ns);
    ms->stun.sample.wanted = true;
}

void source_stun_harder(struct move_source *ms)
{
    struct stun_config *c = &ms->stun.control.config;

    if (c->max_level > 0)
        c->max_level = STUN_HARDEST;
    c->resend_permille = 0;
    c->downtime_budget_ms = MAX(c->downtime_budget_ms, c->downtime_last_ms);
}

/* --- doing it ------------------------------------------------------------------------------ */

/* A limit on the processor time is one that a guest with other work than the copy sees does not use up: what it sleeps
 * through it loses. So the limit is set above what the guest shall keep, until it keeps that. */
static void trim_limit(struct source_stun *st, double busiest)
{
    double wanted = st->used_busiest * (STUN_WHOLE - st->applied) / STUN_WHOLE;
    double missed = MIN(MAX(wanted / MAX(busiest, wanted / 4), TRIM_STEP_LEAST), TRIM_STEP_MOST);

    st->trim = MIN(MAX(st->trim * missed, 1.0), TRIM_MOST);
    vcpu_groups_limit(st->vcpus, wanted * st->trim);
}

/* How busy the vCPUs are by themselves: what is taken is a share of that. */
static void look_at_use(struct source_stun *st, uint64_t now_ns)
{
    double total, busiest;

    if (!st->vcpus || now_ns - st->used_ns < USE_SPAN_NS)
        return;
    st->used_ns = now_ns;
    vcpu_groups_use(st->vcpus, now_ns, &total, &busiest);
    if (st->applied > 0 && st->actuator == STUN_ACTUATOR_CGROUP)
        trim_limit(st, busiest);
    if (st->applied > 0 || busiest <= 0)
        return;
    st->used_total = st->used_total > 0 ? (st->used_total + total) / 2 : total;
    st->used_busiest = st->used_busiest > 0 ? (st->used_busiest + busiest) / 2 : busiest;
}

static void limit_dirty_rate(struct move_source *ms, double kept)
{
    double bytes_s = (double)ms->move->stun.dirty_before_bytes_s * kept;
    unsigned mib_s = (unsigned)(bytes_s / vcpu_groups_count(ms->stun.vcpus) / (1 << 20));
    char command[128];

    snprintf(command, sizeof(command),
             "{\"execute\":\"set-vcpu-dirty-limit\",\"arguments\":{\"dirty-rate\":%u}}",
             MAX(mib_s, 1u));
    steer(ms, command);
}

/* QEMU takes a share of all time, not of what is used. */
static void limit_throttle(struct move_source *ms, double kept)
{
    double taken = 1 - MIN(kept * ms->stun.used_busiest, 1.0);
    unsigned percent = kept < 1 ? MIN(MAX((unsigned)(taken * 100), 1u), 99u) : 1;
    char command[160];

    snprintf(command, sizeof(command),
             "{\"execute\":\"migrate-set-parameters\",\"arguments\":{\"max-cpu-throttle\":%u}}",
             percent);
    steer(ms, command);
}

/* What fails is tried again at the next tick. */
static int put_back(struct move_source *ms)
{
    struct source_stun *st = &ms->stun;
    int r = 0;

    if (st->actuator == STUN_ACTUATOR_CGROUP)
        r = vcpu_groups_restore(st->vcpus);
    else if (st->actuator == STUN_ACTUATOR_DIRTY_LIMIT)
        steer(ms, "{\"execute\":\"cancel-vcpu-dirty-limit\"}");
    else if (st->actuator == STUN_ACTUATOR_AUTO_CONVERGE && ms->migrating)
        limit_throttle(ms, 1);
    if (r < 0 && !st->stuck)
        log_error("move %s (%s): the vCPUs' limits cannot be put back, trying on: %s", ms->move->id,
                  ms->move->info.name, strerror(-r));
    st->stuck = r < 0;
    if (r == 0)
        st->applied = ms->move->stun.level = 0;
    return r;
}

static void let_go(struct move_source *ms)
{
    if (put_back(ms) == 0)
        log_info("move %s (%s): stun off", ms->move->id, ms->move->info.name);
}

static int take(struct move_source *ms, unsigned level)
{
    double kept = (double)(STUN_WHOLE - level) / STUN_WHOLE;

    if (ms->stun.actuator == STUN_ACTUATOR_CGROUP)
        return vcpu_groups_limit(ms->stun.vcpus, kept * ms->stun.used_busiest * ms->stun.trim);
    if (ms->stun.actuator == STUN_ACTUATOR_DIRTY_LIMIT)
        limit_dirty_rate(ms, kept);
    else
        limit_throttle(ms, kept);
    return 0;
}

static void apply(struct move_source *ms, unsigned level)
{
    struct source_stun *st = &ms->stun;
    struct error err = {0};
    int r;

    if (level == st->applied || st->steering)
        return;
    if (level == 0) {
        let_go(ms);
        return;
    }
    r = take(ms, level);
    if (r < 0) {
        put_back(ms);
        error_set(&err, r, "limit the vCPUs", NULL, "%s", strerror(-r));
        give_up(ms, &err);
        return;
    }
    log_info("move %s (%s): stun %u.%u %% (%s)", ms->move->id, ms->move->info.name, level / 10,
             level % 10, stun_verdict_name(st->control.verdict));
    st->applied = level;
}

static void on_saved(void *user)
{
    struct move *m = user;

    m->pending--;
    if (m->source && m->source->stun.state == SOURCE_STUN_SAVING)
        m->source->stun.state = SOURCE_STUN_ACTIVE;
}

static void save(struct move_source *ms)
{
    struct move *m = ms->move;

    ms->stun.state = SOURCE_STUN_SAVING;
    json_decref(m->stun_undo);
    m->stun_undo = json_pack(
        "{s:s, s:o}", "actuator", stun_actuator_name(ms->stun.actuator), "groups",
        vcpu_groups_usable(ms->stun.vcpus) ? vcpu_groups_to_json(ms->stun.vcpus) : json_array());
    m->pending++;
    move_journal(m, switchover_source_state_name(ms->sw.state), false, on_saved);
}

static void account(struct move_source *ms, uint64_t now_ns)
{
    struct stun_report *r = &ms->move->stun;
    double span_ns = (double)(now_ns - ms->stun.ticked_ns);
    double level = (double)ms->stun.applied / STUN_WHOLE;

    follow_sample(&ms->stun, now_ns);
    ms->stun.ticked_ns = now_ns;
    r->level = ms->stun.applied;
    r->max_level = MAX(r->max_level, ms->stun.applied);
    if (ms->stun.applied == 0)
        return;
    r->level_ns += level * span_ns;
    r->stunned_ns += (uint64_t)span_ns;
    r->cpu_taken_ns += level * ms->stun.used_total * span_ns;
}

static void follow(struct move_source *ms, uint64_t now_ns)
{
    const struct move_progress *p = &ms->move->progress;
    struct stun_input in = {
        .now_ns = now_ns,
        .rtt_ns = p->rtt_us * 1000,
        .stream_bytes = p->memory_stream,
        .wire_bytes = p->memory_wire,
        .iteration = p->iterations,
        .remaining_bytes = p->memory_remaining,
        .processed_bytes = p->memory_processed,
        .sample = ms->stun.sample.last,
    };
    struct stun_output out;

    stun_update(&ms->stun.control, &in, &out);
    ms->stun.sample.wanted = out.wants_sample;
    ms->move->stun.verdict = stun_verdict_name(out.verdict);
    ms->move->stun.dirty_before_bytes_s = out.dirty_bytes_s;
    ms->move->stun.dirty_bytes_s = p->dirty_rate;
    if (out.downtime_limit_ms != ms->downtime_limit_ms)
        source_channels_set_downtime(ms, out.downtime_limit_ms);
    if (ms->memory)
        relay_set_allowance(ms->memory, out.allowance_bytes);
    if ((out.level > 0 || out.may_need_stun) && ms->stun.state == SOURCE_STUN_READY &&
        ms->stun.used_busiest > 0)
        save(ms);
    if (ms->stun.state == SOURCE_STUN_ACTIVE) {
        ms->move->stun.actuator = ms->stun.actuator;
        apply(ms, out.level);
    } else if (ms->stun.state == SOURCE_STUN_NONE)
        source_stun_end(ms);
}

void source_stun_tick(struct move_source *ms, uint64_t now_ns)
{
    struct source_stun *st = &ms->stun;

    if (ms->move->phase != MOVE_MEMORY || ms->sw.state != SOURCE_MOVING || !ms->migrating ||
        ms->postcopy.asked) {
        if (ms->memory)
            relay_set_allowance(ms->memory, UINT64_MAX);
        source_stun_end(ms);
        return;
    }
    if (!st->begun_ns)
        begin(ms, now_ns);
    account(ms, now_ns);
    look_at_use(st, now_ns);
    tick_sample(ms, now_ns);
    follow(ms, now_ns);
}

void source_stun_end(struct move_source *ms)
{
    if (ms->stun.applied == 0)
        return;
    account(ms, clock_now_ns());
    let_go(ms);
}

void source_stun_free(struct move_source *ms)
{
    source_stun_end(ms);
    vcpu_groups_free(TAKE_PTR(ms->stun.vcpus));
    if (ms->stun.state > SOURCE_STUN_NONE)
        ms->stun.state = SOURCE_STUN_NONE;
}

static void on_limit_cancelled(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;
    const struct move *m = ms->move;

    (void)reply;
    if (err->code) /* the VM may have ended */
        log_warning("move %s (%s): QEMU's dirty limit is not known to be off: %s", m->id,
                    m->info.name, err->why);
    move_source_call_returned(ms);
}

void source_stun_recover(struct move *m)
{
    const char *actuator = json_string_value(json_object_get(m->stun_undo, "actuator"));
    int r;

    if (!actuator)
        return;
    if (strcmp(actuator, stun_actuator_name(STUN_ACTUATOR_DIRTY_LIMIT)) == 0)
        ask(m->source, "{\"execute\":\"cancel-vcpu-dirty-limit\"}", on_limit_cancelled);
    r = vcpu_groups_undo(json_object_get(m->stun_undo, "groups"));
    if (r < 0)
        log_error("move %s (%s): the vCPUs' limits cannot be put back: %s", m->id, m->info.name,
                  strerror(-r));
    else
        log_info("move %s (%s): the vCPUs' limits are put back", m->id, m->info.name);
}
