/* SPDX-License-Identifier: Apache-2.0 */
#include "work.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pace.h"
#include "stamp.h"

#define CHUNK_BYTES (16u * 1024u * 1024u)

void read_line(const char *path, char *text, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, cap - 1);

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (fd >= 0)
        close(fd);
}

static double parameter(const char *text, const char *key, double otherwise)
{
    const char *at = strstr(text, key);

    return at ? strtod(at + strlen(key), NULL) : otherwise;
}

uint64_t work_writes(struct work *w)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < w->disks; i++)
        total += __atomic_load_n(&w->writers[i].writes, __ATOMIC_RELAXED);
    return total;
}

/* --- rates -------------------------------------------------------------------------------------- */

/* With all locks held nothing is being written, to memory or to disk. */
static void hold_all(struct work *w)
{
    pthread_mutex_lock(&w->dirtier.lock);
    for (unsigned i = 0; i < w->disks; i++)
        pthread_mutex_lock(&w->writers[i].lock);
}

static void release_all(struct work *w)
{
    for (unsigned i = 0; i < w->disks; i++)
        pthread_mutex_unlock(&w->writers[i].lock);
    pthread_mutex_unlock(&w->dirtier.lock);
}

static void set_rates(struct work *w, double dirty, double iops)
{
    hold_all(w);
    w->dirtier.mib_per_s = dirty;
    for (unsigned i = 0; i < w->disks; i++)
        w->writers[i].per_second = iops / w->disks;
    release_all(w);
}

static void set_change(struct work *w, double bytes)
{
    pthread_mutex_lock(&w->dirtier.lock);
    w->dirtier.changed = bytes >= STAMP_BYTES ? STAMP_BODY_WORDS : (uint64_t)(bytes / 8);
    pthread_mutex_unlock(&w->dirtier.lock);
}

static void on_rate(struct work *w, const char *words)
{
    w->dirty_wanted = parameter(words, " dirty=", w->dirty_wanted);
    w->iops_wanted = parameter(words, " iops=", w->iops_wanted);
    set_rates(w, w->dirty_wanted, w->iops_wanted);
    if (strstr(words, " change="))
        set_change(w, parameter(words, " change=", 0));
}

/* --- answers ------------------------------------------------------------------------------------ */

void answer_say(struct answer *a, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(a->text + a->len, sizeof(a->text) - a->len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < sizeof(a->text) - a->len)
        a->len += (size_t)n;
}

static void say_identity(struct work *w, struct answer *a)
{
    char boot_id[64], uptime[64];

    read_line("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
    read_line("/proc/uptime", uptime, sizeof(uptime));
    answer_say(a, ", \"boot_id\": \"%s\", \"uptime_s\": %.2f, \"acknowledged\": %lu", boot_id,
               strtod(uptime, NULL), work_writes(w));
}

static void on_stats(struct work *w, struct answer *a)
{
    struct latency all = {0};
    uint64_t errors = 0, rewritten;
    double seconds;

    hold_all(w);
    for (unsigned i = 0; i < w->disks; i++) {
        latency_add(&all, &w->writers[i].latency);
        errors += w->writers[i].errors;
    }
    rewritten = w->dirtier.rewritten;
    release_all(w);
    seconds = (double)(now_ns() - all.since_ns) / 1e9;
    say_identity(w, a);
    answer_say(a, ", \"pages_rewritten\": %lu", rewritten);
    answer_say(a, ", \"writes\": {\"count\": %lu, \"seconds\": %.3f, \"per_second\": %.1f",
               all.count, seconds, seconds > 0 ? (double)all.count / seconds : 0);
    answer_say(a, ", \"p50_us\": %lu, \"p99_us\": %lu, \"max_us\": %lu, \"errors\": %lu}",
               latency_at(&all, 0.5), latency_at(&all, 0.99), all.max_us, errors);
}

static void on_reset(struct work *w)
{
    hold_all(w);
    for (unsigned i = 0; i < w->disks; i++)
        w->writers[i].latency = (struct latency){.since_ns = now_ns()};
    release_all(w);
}

static void on_verify(struct work *w, struct answer *a)
{
    struct writer_findings f = {0};
    uint64_t bad_pages, errors = 0;
    int r = 0;

    hold_all(w);
    bad_pages = dirtier_verify(&w->dirtier);
    for (unsigned i = 0; i < w->disks && r == 0; i++) {
        r = writer_verify(&w->writers[i], &f);
        errors += w->writers[i].errors;
    }
    say_identity(w, a);
    release_all(w);
    if (r < 0)
        answer_say(a, ", \"error\": \"read the disk back: %s\"", strerror(-r));
    answer_say(a, ", \"pages\": %lu, \"bad_pages\": %lu", w->dirtier.count, bad_pages);
    answer_say(
        a, ", \"blocks\": %lu, \"lost_writes\": %lu, \"bad_blocks\": %lu, \"write_errors\": %lu",
        f.blocks, f.lost, f.bad, errors);
    if (f.lost || f.bad)
        answer_say(a,
                   ", \"first\": {\"disk\": %u, \"block\": %lu, \"acknowledged\": %lu, \"found\": "
                   "%lu, \"whole\": %s}",
                   f.first.disk, f.first.block, f.first.acknowledged, f.first.found,
                   f.first.whole ? "true" : "false");
}

static void say_chunk(void *answer, uint64_t hash)
{
    struct answer *a = answer;

    answer_say(a, "%s\"%016lx\"", a->text[a->len - 1] == '[' ? "" : ", ", hash);
}

void answer_hash(struct answer *a, int fd, uint64_t from, uint64_t end)
{
    int r;

    answer_say(a, ", \"bytes\": %lu, \"chunk_bytes\": %u, \"chunks\": [", end - from, CHUNK_BYTES);
    r = region_hash(fd, from, end, CHUNK_BYTES, say_chunk, a);
    answer_say(a, "]");
    if (r < 0)
        answer_say(a, ", \"error\": \"hash the disk: %s\"", strerror(-r));
}

static void on_hash(struct work *w, struct answer *a, const char *words)
{
    unsigned long disk = strtoul(words, NULL, 10);

    if (disk < w->disks)
        answer_hash(a, w->writers[disk].fd, w->writers[disk].blocks * STAMP_BYTES,
                    w->writers[disk].bytes);
    else
        answer_say(a, ", \"error\": \"there is no disk %lu\"", disk);
}

/* Reads a disk through the page cache, as a server of files would have; its reopened fd has no O_DIRECT. */
static void on_cache(struct work *w, struct answer *a, const char *words)
{
    static char chunk[1 << 20];
    unsigned long disk = strtoul(words, NULL, 10);
    uint64_t bytes = 0;
    char path[16];
    ssize_t n = 0;
    int fd;

    snprintf(path, sizeof(path), "/dev/vd%c", (char)('a' + disk));
    fd = disk < w->disks ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (fd >= 0)
        lseek(fd, (off_t)(w->writers[disk].blocks * STAMP_BYTES), SEEK_SET);
    while (fd >= 0 && (n = read(fd, chunk, sizeof(chunk))) > 0)
        bytes += (uint64_t)n;
    /* Left open: the cache of a block device goes with its last user. */
    answer_say(a, ", \"cached_bytes\": %lu", bytes);
    if (fd < 0 || n < 0)
        answer_say(a, ", \"error\": \"cannot read disk %lu\"", disk);
}

void work_execute(struct work *w, struct answer *a, char *line)
{
    unsigned long id = strtoul(line, &line, 10);
    char *words;

    line += strspn(line, " ");
    words = line + strcspn(line, " ");
    a->len = 0;
    answer_say(a, "{\"id\": %lu", id);
    if (strcmp(line, "stats") == 0)
        on_stats(w, a);
    else if (strcmp(line, "reset") == 0)
        on_reset(w);
    else if (strcmp(line, "verify") == 0)
        on_verify(w, a);
    else if (strcmp(line, "quiesce") == 0)
        set_rates(w, 0, 0);
    else if (strcmp(line, "resume") == 0)
        set_rates(w, w->dirty_wanted, w->iops_wanted);
    else if (strncmp(line, "rate ", 5) == 0)
        on_rate(w, words);
    else if (strncmp(line, "hash ", 5) == 0)
        on_hash(w, a, words);
    else if (strncmp(line, "cache ", 6) == 0)
        on_cache(w, a, words);
    else
        answer_say(a, ", \"error\": \"unknown command\"");
    answer_say(a, "}\n");
}

/* --- start -------------------------------------------------------------------------------------- */

static bool open_disks(struct work *w, uint64_t region_bytes)
{
    char path[] = "/dev/vda";

    for (; w->disks < DISKS_MAX; w->disks++) {
        int r;

        path[sizeof(path) - 2] = (char)('a' + w->disks);
        if (access(path, F_OK) != 0)
            break;
        if ((r = writer_open(&w->writers[w->disks], w->disks, path, region_bytes)) < 0) {
            printf("witness: cannot use disk %s: %s\n", path, strerror(-r));
            return false;
        }
    }
    return true;
}

bool work_open(struct work *w, const char *cmdline)
{
    uint64_t set = (uint64_t)parameter(cmdline, " witness.set=", 0);
    uint64_t fill = (uint64_t)parameter(cmdline, " witness.fill=", 0);
    int r = dirtier_open(&w->dirtier, set, fill);

    if (r < 0) {
        printf("witness: cannot fill %lu MiB of memory: %s\n", set + fill, strerror(-r));
        return false;
    }
    if (!open_disks(w, (uint64_t)parameter(cmdline, " witness.region=", 16) << 20))
        return false;
    w->dirty_wanted = parameter(cmdline, " witness.dirty=", 0);
    w->iops_wanted = parameter(cmdline, " witness.iops=", 0);
    set_change(w, parameter(cmdline, " witness.change=", STAMP_BYTES));
    set_rates(w, w->dirty_wanted, w->iops_wanted);
    return true;
}

bool work_thread(void *(*body)(void *), void *arg, bool urgent)
{
    struct sched_param first = {.sched_priority = 10};
    pthread_t thread;

    return pthread_create(&thread, NULL, body, arg) == 0 &&
           (!urgent || pthread_setschedparam(thread, SCHED_FIFO, &first) == 0);
}

bool work_start(struct work *w)
{
    bool ok = work_thread(dirtier_run, &w->dirtier, false);

    for (unsigned i = 0; ok && i < w->disks; i++)
        ok = work_thread(writer_run, &w->writers[i], false);
    return ok;
}
