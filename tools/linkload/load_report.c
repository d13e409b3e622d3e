/* SPDX-License-Identifier: Apache-2.0 */
/* What linkload prints: a JSON line every tick, and one at the end. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "tools/linkload/load_private.h"

static void print_line(json_t *line)
{
    json_dumpf(line, stdout, JSON_COMPACT | JSON_REAL_PRECISION(9));
    putchar('\n');
    fflush(stdout);
    json_decref(line);
}

static json_int_t resident_kib(void)
{
    FILE *f = fopen("/proc/self/statm", "re");
    long long size = 0, resident = 0;

    if (f) {
        if (fscanf(f, "%lld %lld", &size, &resident) != 2)
            resident = 0;
        fclose(f);
    }
    return resident * 4;
}

/* The slowest answer since the last line. */
static json_t *worst_since_tick(const struct load *l)
{
    static unsigned told;
    uint32_t worst_us = 0;

    if (l->done || told >= l->answers)
        return json_null();
    for (; told < l->answers; told++)
        worst_us = MAX(worst_us, l->answer_us[told]);
    return json_real((double)worst_us / 1e3);
}

static json_t *describe(const struct load *l, const char *event)
{
    struct link_session_info info = {0};
    json_t *line;

    if (l->session)
        link_session_get_info(l->session, &info);
    line = json_pack("{s:s, s:f, s:I, s:I, s:I, s:I, s:i, s:i}", "event", event, "time_s",
                     (double)clock_now_ns() / 1e9, "bytes", (json_int_t)load_bytes(l),
                     "wire_sent_bytes", (json_int_t)info.stats.wire_sent_bytes, "buffered_bytes",
                     (json_int_t)info.stats.buffered_bytes, "resident_kib", resident_kib(),
                     "stripes", (int)info.stats.stripes, "outages", (int)info.outages);
    json_object_set_new(line, "rtt_min_ms", json_real((double)info.tcp_min_rtt_us / 1e3));
    json_object_set_new(line, "answer_ms", worst_since_tick(l));
    json_object_set_new(line, "ping_ms", json_real((double)info.stats.rtt_ns / 1e6));
    json_object_set_new(line, "rtt_ms", json_real((double)info.tcp_rtt_us / 1e3));
    json_object_set_new(line, "queue_ms", json_real((double)info.queue_ns / 1e6));
    json_object_set_new(line, "pacing_mbit", json_real((double)info.pacing_bytes_s * 8 / 1e6));
    json_object_set_new(line, "pacer", json_string(info.pacer ? info.pacer : ""));
    json_object_set_new(line, "granted_bytes", json_integer((json_int_t)info.stats.granted_bytes));
    json_object_set_new(line, "compression_level", json_integer(info.compression_level));
    json_object_set_new(line, "packed_raw_bytes",
                        json_integer((json_int_t)info.stats.packed_raw_bytes));
    json_object_set_new(line, "packed_bytes", json_integer((json_int_t)info.stats.packed_bytes));
    json_object_set_new(line, "resent_bytes", json_integer((json_int_t)info.stats.resent_bytes));
    json_object_set_new(line, "retransmits", json_integer((json_int_t)info.retransmits));
    return line;
}

void load_print_tick(struct load *l)
{
    if (l->session)
        print_line(describe(l, "tick"));
}

static int by_value(const void *a, const void *b)
{
    const uint32_t *x = a, *y = b;

    return *x < *y ? -1 : *x > *y;
}

static json_t *answer_ms(const struct load *l, double quantile)
{
    unsigned place;

    if (l->answers == 0)
        return json_null();
    place = (unsigned)(quantile * (double)(l->answers - 1) + 0.5);
    return json_real((double)l->answer_us[place] / 1e3);
}

void load_print_end(struct load *l)
{
    json_t *line = describe(l, "end");
    struct rusage usage;
    char words[1024] = "";

    getrusage(RUSAGE_SELF, &usage);
    qsort(l->answer_us, l->answers, sizeof(*l->answer_us), by_value);
    json_object_set_new(line, "why", json_string(l->why));
    if (error_is_set(&l->closed_why))
        json_object_set_new(line, "closed",
                            json_string(error_line(&l->closed_why, words, sizeof(words))));
    json_object_set_new(line, "correct", json_boolean(!l->wrong));
    json_object_set_new(line, "answers", json_integer(l->answers));
    json_object_set_new(line, "answer_p50_ms", answer_ms(l, 0.5));
    json_object_set_new(line, "answer_p99_ms", answer_ms(l, 0.99));
    json_object_set_new(line, "answer_max_ms", answer_ms(l, 1));
    json_object_set_new(line, "cpu_s",
                        json_real((double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
                                  (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6));
    json_object_set_new(line, "peak_resident_kib", json_integer(usage.ru_maxrss));
    print_line(line);
}
