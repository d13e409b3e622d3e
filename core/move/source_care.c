/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A gentle copy (write_slack_ms): QEMU's histograms of how long the guest's writes and flushes take, asked for every
 * second, and the copy's limit that follows from them (storage/guest_care.h).
 */
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/move/move_source_private.h"

#define ASK_EVERY_NS NS_PER_S

static uint64_t slack_us(const struct move_source *ms)
{
    return policy_get(&ms->move->policy, POLICY_WRITE_SLACK_MS) * 1000;
}

/* The guest's device by its alias: a block job's name is that with "drive-" before. */
static const char *device_of(const struct domain_disk *disk)
{
    return strncmp(disk->alias, "drive-", 6) == 0 ? disk->alias + 6 : disk->alias;
}

/* --- histograms ---------------------------------------------------------------------------- */

static void on_set(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;

    (void)reply;
    move_source_note_qmp(ms, err);
    move_source_call_returned(ms);
}

static void set_histograms(struct move_source *ms, const char *path, bool on)
{
    char arguments[1024] = "", edges[400] = "", command[1400];

    for (size_t i = 0, at = 0; i < GUEST_CARE_EDGES; i++)
        at += (size_t)snprintf(edges + at, sizeof(edges) - at, "%s%u000", i ? "," : "",
                               guest_care_edges_us[i]);
    if (on)
        snprintf(arguments, sizeof(arguments),
                 ",\"boundaries-write\":[%s],\"boundaries-flush\":[%s]", edges, edges);
    snprintf(command, sizeof(command),
             "{\"execute\":\"block-latency-histogram-set\",\"arguments\":{\"id\":\"%s\"%s}}", path,
             arguments);
    ms->move->pending++;
    virt_qmp(ms->service->virt, ms->move->info.uuid, command, on_set, ms);
}

/* "/machine/peripheral/virtio-disk0/virtio-backend" is that of "virtio-disk0". */
static bool is_of(const char *path, const char *device)
{
    size_t len = strlen(device);

    for (const char *p = path; (p = strstr(p, device)); p += len) {
        if ((p == path || p[-1] == '/') && (p[len] == '\0' || p[len] == '/'))
            return true;
    }
    return false;
}

static void add(uint64_t *bins, const json_t *histogram)
{
    const json_t *from = json_object_get(histogram, "bins");

    for (size_t i = 0; i < MIN(json_array_size(from), (size_t)GUEST_CARE_BINS); i++)
        bins[i] += (uint64_t)MAX(json_integer_value(json_array_get(from, i)), 0);
}

static bool is_moved(const struct move_source *ms, const char *path)
{
    for (unsigned i = 0; path && i < ms->move->info.disk_count; i++) {
        if (is_of(path, device_of(&ms->move->info.disks[i])))
            return true;
    }
    return false;
}

/* Also tells QEMU to count, or to count no longer. */
static void count(struct move_source *ms, const json_t *devices, struct guest_care_counts *n)
{
    const json_t *device;
    size_t at;

    json_array_foreach(devices, at, device)
    {
        const char *path = json_string_value(json_object_get(device, "qdev"));
        const json_t *stats = json_object_get(device, "stats");
        const json_t *writes = json_object_get(stats, "wr_latency_histogram");

        if (!is_moved(ms, path))
            continue;
        if (!writes == ms->care.watches)
            set_histograms(ms, path, ms->care.watches);
        add(n->writes, writes);
        add(n->flushes, json_object_get(stats, "flush_latency_histogram"));
    }
}

/* --- the limit ----------------------------------------------------------------------------- */

static void on_stats(void *user, const struct error *err, const char *reply)
{
    struct move_source *ms = user;
    struct guest_care_counts n = {0};
    json_t *json = err->code ? NULL : json_loads(reply, 0, NULL);
    uint64_t now_ns = clock_now_ns();

    ms->care.asking = false;
    count(ms, json_object_get(json, "return"), &n);
    json_decref(json);
    move_source_note_qmp(ms, err);
    if (!err->code && (ms->move->phase < MOVE_COPYING || ms->care.bytes_per_s == 0))
        guest_care_begin(&ms->care.law, &n, slack_us(ms), now_ns);
    if (!err->code && ms->move->phase == MOVE_COPYING)
        ms->care.bytes_per_s =
            guest_care_update(&ms->care.law, &n, ms->move->progress.disk_payload, now_ns);
    move_source_call_returned(ms);
}

void source_care_begin(struct move_source *ms)
{
    ms->care.watches =
        slack_us(ms) > 0 && ms->service->config->monitor && ms->move->info.disk_count;
    source_care_tick(ms, clock_now_ns());
}

uint64_t source_care_limit(const struct move_source *ms)
{
    return ms->care.bytes_per_s;
}

void source_care_tick(struct move_source *ms, uint64_t now_ns)
{
    bool over = ms->move->phase > MOVE_COPYING || ms->sw.state != SOURCE_MOVING;

    if (!ms->care.watches || ms->care.asking || (!over && now_ns < ms->care.ask_at_ns))
        return;
    ms->care.watches = !over; /* then it is asked once more, so that it stops counting */
    ms->care.asking = true;
    ms->care.ask_at_ns = now_ns + ASK_EVERY_NS;
    ms->move->pending++;
    virt_qmp(ms->service->virt, ms->move->info.uuid, "{\"execute\":\"query-blockstats\"}", on_stats,
             ms);
}
