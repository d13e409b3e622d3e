/* SPDX-License-Identifier: Apache-2.0 */
#include "core/api/metrics.h"

#include <stdio.h>

#include "core/base/macros.h"
#include "core/link/link_json.h"
#include "core/move/move.h"
#include "core/disk/spool_file.h"

void metrics_put_head(FILE *f, const char *name, const char *type, const char *help)
{
    fprintf(f, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

/* A value of a label: VMs' names may hold anything but a slash and a newline. */
static void put_label(FILE *f, const char *name, const char *value)
{
    fprintf(f, "%s=\"", name);
    for (const char *p = value; *p; p++) {
        if (*p == '\n')
            fputs("\\n", f);
        else if (*p == '"' || *p == '\\')
            fprintf(f, "\\%c", *p);
        else
            fputc(*p, f);
    }
    fputc('"', f);
}

/* --- one figure a move --------------------------------------------------------------------- */

static double disk_bytes(const struct move *m)
{
    return (double)m->progress.disk_payload;
}

static double disk_wire_bytes(const struct move *m)
{
    return (double)m->progress.disk_wire;
}

static double disk_seed_bytes(const struct move *m)
{
    return (double)m->progress.disk_seed;
}

static double memory_bytes(const struct move *m)
{
    return (double)m->progress.memory_stream;
}

static double memory_wire_bytes(const struct move *m)
{
    return (double)m->progress.memory_wire;
}

static double codec_seconds(const struct move *m)
{
    return (double)m->progress.codec.cpu_ns / 1e9;
}

static double remaining_bytes(const struct move *m)
{
    const struct move_progress *p = &m->progress;
    uint64_t disk = p->disk_total - MIN(p->disk_done, p->disk_total) + p->log_fill;

    return (double)(disk + (m->phase >= MOVE_MEMORY ? p->memory_remaining : p->memory_total));
}

static double dirty_rate(const struct move *m)
{
    return (double)m->progress.dirty_rate;
}

static double log_fill(const struct move *m)
{
    return (double)m->progress.log_fill;
}

static double stun_level(const struct move *m)
{
    return (double)m->stun.level / STUN_WHOLE;
}

static double copy_limit(const struct move *m)
{
    return (double)m->progress.bulk_speed;
}

static double guest_limit(const struct move *m)
{
    return (double)m->progress.guest_speed;
}

static double outages(const struct move *m)
{
    return (double)m->progress.outages;
}

/* The VM is in two places: the loss of either site loses it. */
static double outstanding(const struct move *m)
{
    return move_is_outstanding(m);
}

static double references(const struct move *m)
{
    return (double)m->progress.codec.codec.operation[RAM_DISK].count;
}

static double references_missed(const struct move *m)
{
    return (double)m->progress.codec.codec.references_missed;
}

static bool is_source(const struct move *m)
{
    return m->role == JOURNAL_SOURCE;
}

static bool has_codec(const struct move *m)
{
    return m->progress.memory_codec;
}

static const struct family {
    const char *name, *type, *help;
    double (*value)(const struct move *m);
    bool (*has)(const struct move *m); /* NULL: every move */
} families[] = {
    {"ferry_move_disk_bytes_total", "counter", "Disk data taken from QEMU.", disk_bytes, is_source},
    {"ferry_move_disk_wire_bytes_total", "counter", "Of disks, into the link or out of it.",
     disk_wire_bytes, NULL},
    {"ferry_move_disk_seed_bytes_total", "counter", "Of disks, that the target had already.",
     disk_seed_bytes, NULL},
    {"ferry_move_memory_bytes_total", "counter", "Of QEMU's memory stream.", memory_bytes, NULL},
    {"ferry_move_memory_wire_bytes_total", "counter", "Of memory, into the link or out of it.",
     memory_wire_bytes, NULL},
    {"ferry_move_memory_codec_cpu_seconds_total", "counter",
     "Processor time of the RAM codec here.", codec_seconds, has_codec},
    {"ferry_move_memory_references_total", "counter",
     "Pages that went as references to the target's disks.", references, has_codec},
    {"ferry_move_memory_references_missed_total", "counter",
     "Of these, those that the target had to ask for.", references_missed, has_codec},
    {"ferry_move_remaining_bytes", "gauge", "Disks, log and memory that are left.", remaining_bytes,
     is_source},
    {"ferry_move_dirty_bytes_per_second", "gauge", "Memory that the guest dirties, by QEMU.",
     dirty_rate, is_source},
    {"ferry_move_log_fill_bytes", "gauge", "Writes acknowledged and not yet applied.", log_fill,
     NULL},
    {"ferry_move_stun_ratio", "gauge", "Share of its processor time that the guest is deprived of.",
     stun_level, is_source},
    {"ferry_move_copy_limit_bytes_per_second", "gauge", "Limit set on the copy; 0: none.",
     copy_limit, is_source},
    {"ferry_move_guest_limit_bytes_per_second", "gauge",
     "Pace of the guest's acknowledged writes; 0: none.", guest_limit, is_source},
    {"ferry_move_pages_outstanding", "gauge",
     "1: post-copy is not over, and the loss of either site loses the VM.", outstanding, NULL},
    {"ferry_move_outages_total", "counter", "Times the link was away.", outages, is_source},
};

static void put_family(FILE *f, const struct service *s, const struct family *of)
{
    const struct move *m;

    metrics_put_head(f, of->name, of->type, of->help);
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (!m->finished && (!of->has || of->has(m)))
            fprintf(f, "%s{move=\"%s\"} %.12g\n", of->name, m->id, of->value(m));
    }
}

/* --- several figures a move ---------------------------------------------------------------- */

static void put_info(FILE *f, const struct service *s)
{
    const struct move *m;

    metrics_put_head(f, "ferry_move_info", "gauge", "1 for each move under way, with what it is.");
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m->finished)
            continue;
        fprintf(f, "ferry_move_info{move=\"%s\",role=\"%s\",kind=\"%s\",phase=\"%s\",", m->id,
                is_source(m) ? "source" : "target", m->drill ? "drill" : "move",
                move_phase_name(m->phase));
        put_label(f, "domain", m->info.name);
        fputc(',', f);
        put_label(f, "peer", m->peer);
        fputs("} 1\n", f);
    }
}

static void put_slowed(FILE *f, const struct service *s, const char *name, const char *help,
                       const uint64_t *(*spans)(const struct move *m))
{
    const struct move *m;

    metrics_put_head(f, name, "counter", help);
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        for (int r = CONGESTION_NONE + 1; !m->finished && is_source(m) && r < CONGESTION_REASONS;
             r++)
            fprintf(f, "%s{move=\"%s\",reason=\"%s\"} %.1f\n", name, m->id,
                    congestion_reason_name((enum congestion_reason)r), (double)spans(m)[r] / 1000);
    }
}

static const uint64_t *copy_slowed(const struct move *m)
{
    return m->progress.copy_slowed_ms;
}

static const uint64_t *guest_slowed(const struct move *m)
{
    return m->progress.guest_slowed_ms;
}

static void put_operations(FILE *f, const struct service *s, const char *name, const char *help,
                           bool wire)
{
    const struct move *m;

    metrics_put_head(f, name, "counter", help);
    TAILQ_FOREACH(m, &s->moves, entry)
    {
        if (m->finished || !has_codec(m) || (wire && !is_source(m)))
            continue;
        for (unsigned op = 0; op < RAM_OPERATIONS; op++)
            fprintf(f, "%s{move=\"%s\",operation=\"%s\"} %llu\n", name, m->id,
                    ram_operation_name((enum ram_operation)op),
                    (unsigned long long)(wire
                                             ? m->progress.codec.codec.operation[op].wire_bytes
                                             : m->progress.codec.codec.operation[op].stream_bytes));
    }
}

/* --- the site ------------------------------------------------------------------------------ */

static void put_moves(FILE *f, const struct service *s)
{
    unsigned counts[MOVE_OUTCOME_DRILLED + 1] = {0};
    unsigned troubled = 0;
    const struct move *m;

    TAILQ_FOREACH(m, &s->moves, entry)
    {
        counts[m->outcome]++;
        troubled += move_is_troubled(m);
    }
    metrics_put_head(f, "ferry_moves", "gauge", "Moves that this ferryd remembers, by their end.");
    for (int o = MOVE_RUNNING; o <= MOVE_OUTCOME_DRILLED; o++)
        fprintf(f, "ferry_moves{outcome=\"%s\"} %u\n", move_outcome_name((enum move_outcome)o),
                counts[o]);
    metrics_put_head(f, "ferry_moves_troubled", "gauge",
                     "Moves whose end waits for something that failed and is tried again.");
    fprintf(f, "ferry_moves_troubled %u\n", troubled);
}

static void put_witness(FILE *f, const struct witness *w)
{
    struct witness_stats stats;

    if (!w)
        return;
    stats = witness_stats(w);
    metrics_put_head(f, "ferry_witness_reachable", "gauge",
                     "Whether the third site answered last time.");
    fprintf(f, "ferry_witness_reachable %d\n", stats.reachable);
    metrics_put_head(f, "ferry_witness_questions_total", "counter", "Questions to the third site.");
    fprintf(f, "ferry_witness_questions_total{answered=\"yes\"} %llu\n",
            (unsigned long long)stats.answered);
    fprintf(f, "ferry_witness_questions_total{answered=\"no\"} %llu\n",
            (unsigned long long)stats.unanswered);
}

char *metrics_text(struct service *s)
{
    char *text = NULL;
    size_t len = 0;
    FILE *f = open_memstream(&text, &len);

    if (!f)
        return NULL;
    metrics_put_head(f, "ferry_build_info", "gauge", "1, with the version that runs.");
    fprintf(f, "ferry_build_info{version=\"%s\"} 1\n", FERRY_VERSION);
    put_moves(f, s);
    metrics_put_head(f, "ferry_log_memory_bytes", "gauge", "Of [storage] log_memory, in use.");
    fprintf(f, "ferry_log_memory_bytes %llu\n",
            (unsigned long long)mirror_budget_used_bytes(s->budget));
    metrics_put_head(f, "ferry_spool_bytes", "gauge", "Of the spool's file, in use.");
    fprintf(f, "ferry_spool_bytes %llu\n",
            (unsigned long long)mirror_spool_used_bytes(spool_file_spool(s->spool)));
    put_witness(f, s->witness);
    put_info(f, s);
    for (size_t i = 0; i < ARRAY_SIZE(families); i++)
        put_family(f, s, &families[i]);
    put_slowed(f, s, "ferry_move_copy_slowed_seconds_total", "The copy was slowed, by reason.",
               copy_slowed);
    put_slowed(f, s, "ferry_move_guest_slowed_seconds_total",
               "The guest's writes were slowed, by reason.", guest_slowed);
    put_operations(f, s, "ferry_move_memory_operation_bytes_total",
                   "Of the memory stream, by the codec's operation.", false);
    put_operations(f, s, "ferry_move_memory_operation_wire_bytes_total",
                   "What that became on the wire.", true);
    link_put_metrics(f, s);
    fclose(f);
    return text;
}
