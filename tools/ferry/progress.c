/* SPDX-License-Identifier: Apache-2.0 */
/* Progress, reports and tables for people: see progress.h. */
#include "tools/ferry/progress.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "core/base/macros.h"

enum { BAR_CELLS = 24 };

static unsigned drawn; /* lines on the terminal that the next picture replaces */

static double number(const json_t *move, const char *group, const char *key)
{
    const json_t *o = group ? json_object_get(move, group) : move;

    return json_number_value(json_object_get(o, key));
}

static const char *text(const json_t *move, const char *key)
{
    const char *t = json_string_value(json_object_get(move, key));

    return t ? t : "";
}

/* "1.5 GiB" in a small buffer of the caller's. */
static const char *size(double bytes, char buf[16])
{
    static const char *const units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
    size_t u = 0;

    while (bytes >= 1000 && u + 1 < ARRAY_SIZE(units)) {
        bytes /= 1024;
        u++;
    }
    snprintf(buf, 16, bytes < 10 && u > 0 ? "%.1f %s" : "%.0f %s", bytes, units[u]);
    return buf;
}

/* Of the writes' latencies, in whole microseconds: most are acknowledged in less. */
static const char *latency(const json_t *move, const char *which, char buf[16])
{
    double us = number(move, "guest_write_latency_us", which);

    if (us < 1)
        return "under 1 us";
    snprintf(buf, 16, "%.0f us", us);
    return buf;
}

static void eta_text(double seconds, char buf[32])
{
    if (seconds < 0)
        snprintf(buf, 32, "--");
    else if (seconds < 120)
        snprintf(buf, 32, "%.0f s", seconds);
    else
        snprintf(buf, 32, "%.0f min", seconds / 60);
}

/* The phase, for people. */
static const char *stage(const json_t *move)
{
    return json_is_true(json_object_get(move, "held")) ? "held" : text(move, "phase");
}

/* Disk and memory together, as one share of the whole. */
static double share_done(const json_t *move)
{
    double total = number(move, "disk", "total_bytes") + number(move, "memory", "total_bytes");
    double left = number(move, "disk", "total_bytes") - number(move, "disk", "done_bytes");
    const char *phase = text(move, "phase");

    if (strcmp(phase, "preparing") == 0 || total <= 0)
        return 0;
    if (strcmp(phase, "copying") == 0)
        left += number(move, "memory", "total_bytes");
    else if (strcmp(phase, "mirroring") == 0 || strcmp(phase, "memory") == 0)
        left += number(move, "memory", "remaining_bytes");
    else
        left = 0;
    return MAX(0.0, MIN(1.0, 1 - left / total));
}

static void detail(const json_t *move, char *buf, size_t cap)
{
    const char *phase = text(move, "phase");
    char a[16], b[16], c[16];

    if (strcmp(phase, "copying") == 0)
        snprintf(buf, cap, "disk %s of %s, %s unapplied%s%s%s",
                 size(number(move, "disk", "done_bytes"), a),
                 size(number(move, "disk", "total_bytes"), b),
                 size(number(move, "disk", "log_bytes"), c),
                 strcmp(text(json_object_get(move, "disk"), "speed_limit_reason"), "none")
                     ? ", copy held to the "
                     : "",
                 strcmp(text(json_object_get(move, "disk"), "speed_limit_reason"), "none")
                     ? text(json_object_get(move, "disk"), "speed_limit_reason")
                     : "",
                 number(move, "disk", "guest_limit_bytes_per_s") > 0 ? ", guest too" : "");
    else if (strcmp(phase, "memory") == 0)
        snprintf(buf, cap, "memory %s left, %s/s dirtied, round %.0f, stun %.0f%%",
                 size(number(move, "memory", "remaining_bytes"), a),
                 size(number(move, "memory", "dirty_bytes_per_s"), b),
                 number(move, "memory", "iterations"), number(move, "stun", "percent"));
    else
        buf[0] = '\0';
}

void progress_begin(void)
{
    if (drawn > 0)
        printf("\033[%uA\r\033[J", drawn);
    drawn = 0;
}

void progress_line(const char *line)
{
    struct winsize w = {0};
    int columns;

    if (!isatty(STDOUT_FILENO))
        return;
    columns = ioctl(STDOUT_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
    printf("%.*s\n", columns - 1, line);
    fflush(stdout);
    drawn++;
}

void progress_show(const json_t *move)
{
    char bar[BAR_CELLS + 1], rate[16], eta[32], more[160], line[512];
    double share = share_done(move);

    if (!isatty(STDOUT_FILENO))
        return;
    for (int i = 0; i < BAR_CELLS; i++)
        bar[i] = i < (int)(share * BAR_CELLS + 0.5) ? '#' : '.';
    bar[BAR_CELLS] = '\0';
    eta_text(number(move, NULL, "eta_s"), eta);
    detail(move, more, sizeof(more));
    snprintf(line, sizeof(line), "%s -> %s  %-9s [%s] %3.0f%%  %s/s  ETA %s  %s",
             text(move, "domain"), text(move, "to"), stage(move), bar, share * 100,
             size(number(move, "link", "bytes_per_s"), rate), eta, more);
    progress_line(line);
}

void progress_end(void)
{
    progress_begin();
    fflush(stdout);
}

/* In the order in which they follow each other. */
static void print_downtime(const json_t *parts)
{
    const char *name;
    json_t *value;

    if (!parts)
        return;
    printf("  down:  ");
    json_object_foreach((json_t *)parts, name, value) printf(
        "%s %s %.0f ms", strcmp(name, "stop") == 0 ? "" : ",", name, json_number_value(value));
    printf("\n");
}

/* "  slowed: the guest for 12 s by the link" */
static void print_slowed(const json_t *move, const char *who, const char *key)
{
    const char *reason;
    json_t *ms;

    json_object_foreach(json_object_get(json_object_get(move, "disk"), key), reason, ms) printf(
        "  slowed: the %s for %.1f s by the %s\n", who, json_number_value(ms) / 1000, reason);
}

static void print_hold(const json_t *move)
{
    time_t at = (time_t)(number(move, NULL, "switchover_at_ms") / 1000);
    char when[32] = "";
    struct tm day;

    if (at && localtime_r(&at, &day))
        strftime(when, sizeof(when), "until %H:%M, or ", &day);
    printf("  held:   disks are mirrored, %suntil `ferry switchover %s`\n", when, text(move, "id"));
}

static void print_witness(const json_t *witness)
{
    if (!witness)
        return;
    printf("  right:  %s, by the witness", text(witness, "right"));
    if (text(witness, "why_not")[0])
        printf(", which does not answer now: %s", text(witness, "why_not"));
    printf("\n");
}

/* What was expected beside what came of it. */
static void print_prediction(const json_t *move)
{
    const json_t *p = json_object_get(move, "prediction");
    char a[16];

    if (p)
        printf("  expect: %.1f s, downtime %.0f ms, %s on the link, memory %s\n",
               number(p, NULL, "total_ms") / 1000, number(p, NULL, "downtime_ms"),
               size(number(p, NULL, "bytes"), a), text(p, "verdict"));
}

/* Between two places, or how long it was. */
static void print_postcopy(const json_t *postcopy)
{
    if (!json_is_true(json_object_get(postcopy, "switched")))
        return;
    printf("  pages:  post-copy: %s; outstanding for %.1f s", text(postcopy, "note"),
           number(postcopy, NULL, "outstanding_ms") / 1000);
    if (number(postcopy, NULL, "recoveries") > 0)
        printf(", made again %.0f times", number(postcopy, NULL, "recoveries"));
    printf("\n");
}

static void print_drill(const json_t *drill)
{
    const char *why = text(drill, "why"), *output = text(drill, "output");

    printf("  drill:  %s%s%s", text(drill, "verdict"), why[0] ? ": " : "", why);
    if (text(drill, "agent")[0])
        printf("; the guest's agent: %s", text(drill, "agent"));
    if (json_is_true(json_object_get(drill, "keep_disk")))
        printf("; its disks are kept there as FILE.ferry-old");
    printf("\n");
    if (output[0])
        printf("--- what %s printed\n%s%s---\n", text(drill, "command"), output,
               output[strlen(output) - 1] == '\n' ? "" : "\n");
}

/* What was wanted and could not be had. */
static void print_policy(const json_t *policy)
{
    const json_t *item;
    size_t i;

    if (!policy)
        return;
    printf("  policy: %s (%s)\n", text(policy, "name"), text(policy, "chosen_by"));
    json_array_foreach(json_object_get(policy, "substitutions"), i, item)
        printf("          %s %s instead of %s: %s\n", text(item, "setting"), text(item, "taken"),
               text(item, "wanted"), text(item, "why"));
}

static void print_guest_writes(const json_t *move)
{
    double count = number(move, "guest_write_latency_us", "count");
    char p50[16], p99[16], max[16];

    printf("  guest:  %.0f writes acknowledged", count);
    if (count > 0)
        printf(", p50 %s, p99 %s, max %s", latency(move, "p50", p50), latency(move, "p99", p99),
               latency(move, "max", max));
    printf("\n");
}

void progress_report(const json_t *move)
{
    const char *outcome = text(move, "outcome");
    char a[16], b[16];

    printf("%s: %s from %s to %s in %.1f s", text(move, "domain"), outcome, text(move, "from"),
           text(move, "to"), number(move, NULL, "total_ms") / 1000);
    if (number(move, NULL, "downtime_ms") >= 0)
        printf(", downtime %.0f ms", number(move, NULL, "downtime_ms"));
    printf("  (move %s)\n", text(move, "id"));
    if (json_is_true(json_object_get(move, "held")))
        print_hold(move);
    print_policy(json_object_get(move, "policy"));
    print_postcopy(json_object_get(move, "postcopy"));
    if (strcmp(outcome, "running") == 0 && text(move, "reason")[0])
        printf("  now:    %s\n", text(move, "reason"));
    if (text(move, "trouble")[0])
        printf("  trying again: %s\n", text(move, "trouble"));
    if (strcmp(outcome, "drilled") == 0) {
        print_drill(json_object_get(move, "drill"));
    } else if (strcmp(outcome, "committed") != 0 && strcmp(outcome, "running") != 0) {
        printf("  why:    %s\n", text(move, "reason"));
        print_witness(json_object_get(move, "witness"));
        if (strcmp(outcome, "aborted") == 0)
            printf("  %s at %s; nothing of it is left at %s\n",
                   (int)number(move, "error", "code") == -ESRCH             ? "the VM is off"
                   : (int)number(move, "error", "code") == -ENOTRECOVERABLE ? "the VM stands still"
                                                                            : "the VM runs on",
                   text(move, "from"), text(move, "to"));
        else
            printf("  IN DOUBT: do not start the VM by hand; see `ferry show %s` at both sites\n",
                   text(move, "id"));
    }
    if (number(move, "disk", "bytes") == 0 && number(move, "memory", "bytes") == 0)
        return;
    printf("  disk:   %s of data", size(number(move, "disk", "bytes"), a));
    if (number(move, "disk", "seed_bytes") > 0)
        printf(", %s of it there already", size(number(move, "disk", "seed_bytes"), a));
    printf(", %s on the link, copied in %.1f s\n", size(number(move, "disk", "wire_bytes"), a),
           number(move, "disk", "copied_ms") / 1000);
    if (json_object_get(move, "verify"))
        printf("  verify: %s compared and equal, %s not compared\n",
               size(number(move, "verify", "checked_bytes"), a),
               size(number(move, "verify", "unchecked_bytes"), b));
    printf("  memory: %s", size(number(move, "memory", "bytes"), a));
    printf(", %s on the link, %.0f rounds\n", size(number(move, "memory", "wire_bytes"), b),
           number(move, "memory", "iterations"));
    printf("  link:   RTT %.1f ms, %s in all, %.0f outages\n", number(move, "link", "rtt_ms"),
           size(number(move, "link", "wire_bytes"), a), number(move, "link", "outages"));
    print_prediction(move);
    print_downtime(json_object_get(move, "downtime_parts_ms"));
    print_slowed(move, "copy", "copy_slowed_ms");
    print_slowed(move, "guest", "guest_slowed_ms");
    print_guest_writes(move);
}

void progress_table(const json_t *moves, bool all)
{
    size_t i;
    json_t *m;

    printf("%-10s %-20s %-12s %-12s %-10s %-10s %s\n", "ID", "VM", "FROM", "TO", "PHASE", "OUTCOME",
           "TIME");
    json_array_foreach(moves, i, m)
    {
        if (!all && json_is_true(json_object_get(m, "finished")))
            continue;
        printf("%-10s %-20s %-12s %-12s %-10s %-10s %.1f s\n", text(m, "id"), text(m, "domain"),
               text(m, "from"), text(m, "to"), stage(m), text(m, "outcome"),
               number(m, NULL, "total_ms") / 1000);
    }
}
