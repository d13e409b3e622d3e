/* SPDX-License-Identifier: Apache-2.0 */
#include "core/virt/vcpu_groups.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/base/macros.h"

enum { GROUPS_MAX = 512, QUOTA_LEAST_US = 1000, PERIOD_US = 10000, PERIOD_MAX_US = 100000 };

/* What a group's files say: "-1" / "max" stand for no limit. */
struct bandwidth {
    long long quota_us; /* -1: none */
    long long period_us;
};

struct group {
    char path[PATH_MAX]; /* the group's folder */
    bool v2;
    int thread_id;
    uint64_t used_ns; /* processor time, at the last look */
    struct bandwidth before;
};

struct vcpu_groups {
    unsigned count;
    bool usable, touched;
    uint64_t used_ns; /* of the last look; 0: none yet */
    struct group groups[];
};

/* --- files --------------------------------------------------------------------------------- */

static int read_text(const char *folder, const char *name, char *to, size_t cap)
{
    char path[PATH_MAX + 64];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    n = read(fd, to, cap - 1);
    close(fd);
    if (n < 0)
        return -EIO;
    to[n] = '\0';
    return 0;
}

static int write_text(const char *folder, const char *name, const char *text)
{
    char path[PATH_MAX + 64];
    int fd, r = 0;

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return -errno;
    if (write(fd, text, strlen(text)) < 0)
        r = -errno;
    close(fd);
    return r;
}

static int write_number(const char *folder, const char *name, long long value)
{
    char text[32];

    snprintf(text, sizeof(text), "%lld", value);
    return write_text(folder, name, text);
}

static int get_bandwidth(const char *folder, bool v2, struct bandwidth *ret)
{
    char text[64];
    int r;

    if (v2) {
        r = read_text(folder, "cpu.max", text, sizeof(text));
        ret->quota_us = -1;
        if (r == 0 && sscanf(text, "max %lld", &ret->period_us) != 1 &&
            sscanf(text, "%lld %lld", &ret->quota_us, &ret->period_us) != 2)
            r = -EIO;
        return r;
    }
    r = read_text(folder, "cpu.cfs_quota_us", text, sizeof(text));
    if (r == 0 && sscanf(text, "%lld", &ret->quota_us) != 1)
        r = -EIO;
    if (r == 0)
        r = read_text(folder, "cpu.cfs_period_us", text, sizeof(text));
    if (r == 0 && sscanf(text, "%lld", &ret->period_us) != 1)
        r = -EIO;
    return r;
}

static int set_bandwidth(const char *folder, bool v2, const struct bandwidth *b)
{
    char text[64];
    int r;

    if (v2) {
        if (b->quota_us < 0)
            snprintf(text, sizeof(text), "max %lld", b->period_us);
        else
            snprintf(text, sizeof(text), "%lld %lld", b->quota_us, b->period_us);
        return write_text(folder, "cpu.max", text);
    }
    /* Two files, and a parent's limit holds at every moment between: without a limit first. */
    r = write_number(folder, "cpu.cfs_quota_us", -1);
    if (r == 0)
        r = write_number(folder, "cpu.cfs_period_us", b->period_us);
    if (r == 0 && b->quota_us >= 0)
        r = write_number(folder, "cpu.cfs_quota_us", b->quota_us);
    return r;
}

/* --- finding ------------------------------------------------------------------------------- */

static bool has_word(const char *list, const char *word)
{
    size_t len = strlen(word);

    for (const char *p = list; (p = strstr(p, word)); p += len) {
        if ((p == list || p[-1] == ',') && strchr(",:\n ", p[len]))
            return true;
    }
    return false;
}

/* Where the hierarchy of @v2, or of the cpu controller, is mounted, and which of its groups is the root there. The
 * last mount counts: it may cover an earlier one. */
static int find_mount(bool v2, char point[PATH_MAX], char root[PATH_MAX])
{
    FILE *f = fopen("/proc/self/mountinfo", "re");
    char line[2 * PATH_MAX + 512], kind[64], options[512];
    int r = -ENOENT;

    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f)) {
        const char *dash = strstr(line, " - ");

        if (!dash || sscanf(dash, " - %63s %*s %511s", kind, options) != 2 ||
            !(v2 ? strcmp(kind, "cgroup2") == 0
                 : strcmp(kind, "cgroup") == 0 && has_word(options, "cpu")))
            continue;
        if (sscanf(line, "%*s %*s %*s %4095s %4095s", root, point) == 2)
            r = 0;
    }
    fclose(f);
    return r;
}

/* The thread's group in the hierarchy of the cpu controller, as the kernel names it. */
static int own_group(int thread_id, char group[PATH_MAX], bool *ret_v2)
{
    char path[64], line[PATH_MAX + 128];
    int r = -ENOENT;
    FILE *f;

    snprintf(path, sizeof(path), "/proc/%d/cgroup", thread_id);
    f = fopen(path, "re");
    if (!f)
        return -errno;
    while (fgets(line, sizeof(line), f)) {
        char *first = strchr(line, ':'), *second = first ? strchr(first + 1, ':') : NULL;
        bool v1;

        if (!second)
            continue;
        v1 = has_word(first + 1, "cpu");
        if (!v1 &&
            !(first[1] == ':' && r < 0)) /* a controller is in one version only: v1 goes first */
            continue;
        second[1 + strcspn(second + 1, "\n")] = '\0';
        snprintf(group, PATH_MAX, "%.4000s", second + 1);
        *ret_v2 = !v1;
        r = 0;
        if (v1)
            break;
    }
    fclose(f);
    return r;
}

static int find_group(int thread_id, struct group *ret)
{
    char name[PATH_MAX] = "", point[PATH_MAX], root[PATH_MAX];
    const char *below = name, *last;
    int r = own_group(thread_id, name, &ret->v2);

    if (r == 0)
        r = find_mount(ret->v2, point, root);
    if (r < 0)
        return r;
    last = strrchr(name, '/');
    if (!last || strncmp(last, "/vcpu", 5) != 0) /* another one has more in it than a vCPU */
        return -ENOTSUP;
    if (strcmp(root, "/") != 0) {
        if (strncmp(name, root, strlen(root)) != 0)
            return -ENOTSUP;
        below += strlen(root);
    }
    if ((size_t)snprintf(ret->path, sizeof(ret->path), "%.2000s%.2000s", point, below) >=
        sizeof(ret->path))
        return -ENAMETOOLONG;
    ret->thread_id = thread_id;
    return get_bandwidth(ret->path, ret->v2, &ret->before);
}

int vcpu_groups_find(const int *thread_ids, unsigned count, struct vcpu_groups **ret,
                     struct error *err)
{
    struct vcpu_groups *g;

    if (count == 0 || count > GROUPS_MAX)
        return error_set(err, -ENOTSUP, "find the vCPUs' cgroups", NULL, "%u vCPUs", count);
    g = calloc(1, sizeof(*g) + count * sizeof(g->groups[0]));
    if (!g)
        return error_set(err, -ENOMEM, "find the vCPUs' cgroups", NULL, "out of memory");
    g->usable = true;
    for (; g->count < count; g->count++) {
        int id = thread_ids[g->count], r = find_group(id, &g->groups[g->count]);

        g->groups[g->count].thread_id = id;
        if (r == 0)
            continue;
        g->usable = false;
        error_set(err, -ENOTSUP, "find the vCPUs' cgroups",
                  "let libvirt use the cpu controller (cgroup_controllers in qemu.conf)",
                  "thread %d has no cgroup of its own with the cpu controller: %s", id,
                  strerror(-r));
    }
    *ret = g;
    return 0;
}

bool vcpu_groups_usable(const struct vcpu_groups *g)
{
    return g->usable;
}

unsigned vcpu_groups_count(const struct vcpu_groups *g)
{
    return g->count;
}

void vcpu_groups_free(struct vcpu_groups *g)
{
    free(g);
}

/* --- use ----------------------------------------------------------------------------------- */

void vcpu_groups_use(struct vcpu_groups *g, uint64_t now_ns, double *ret_total, double *ret_busiest)
{
    double elapsed = (double)(now_ns - g->used_ns);
    char folder[64], text[128];
    unsigned long long ns;

    *ret_total = *ret_busiest = 0;
    for (unsigned i = 0; i < g->count; i++) {
        struct group *at = &g->groups[i];

        snprintf(folder, sizeof(folder), "/proc/%d", at->thread_id);
        if (read_text(folder, "schedstat", text, sizeof(text)) < 0 ||
            sscanf(text, "%llu", &ns) != 1)
            continue;
        if (g->used_ns && elapsed > 0) {
            *ret_total += (double)(ns - at->used_ns) / elapsed;
            *ret_busiest = MAX(*ret_busiest, (double)(ns - at->used_ns) / elapsed);
        }
        at->used_ns = ns;
    }
    g->used_ns = now_ns;
}

static struct bandwidth bandwidth_for(double share, const struct bandwidth *before)
{
    struct bandwidth b = {.period_us = PERIOD_US};

    if (before->quota_us >= 0)
        share = MIN(share, (double)before->quota_us / (double)before->period_us);
    if (share * PERIOD_US < QUOTA_LEAST_US)
        b.period_us = share * PERIOD_MAX_US > QUOTA_LEAST_US ? (long long)(QUOTA_LEAST_US / share)
                                                             : PERIOD_MAX_US;
    b.quota_us = MAX((long long)(share * (double)b.period_us), (long long)QUOTA_LEAST_US);
    return b;
}

int vcpu_groups_limit(struct vcpu_groups *g, double share)
{
    int r = 0;

    g->touched = true;
    for (unsigned i = 0; i < g->count; i++) {
        struct bandwidth b = bandwidth_for(share, &g->groups[i].before);
        int each = set_bandwidth(g->groups[i].path, g->groups[i].v2, &b);

        r = r < 0 ? r : each;
    }
    return r;
}

static int put_back(const char *path, bool v2, const struct bandwidth *before)
{
    int r = set_bandwidth(path, v2, before);

    return r == -ENOENT ? 0 : r;
}

int vcpu_groups_restore(struct vcpu_groups *g)
{
    int r = 0;

    if (!g->touched)
        return 0;
    for (unsigned i = 0; i < g->count; i++) {
        int each = put_back(g->groups[i].path, g->groups[i].v2, &g->groups[i].before);

        r = r < 0 ? r : each;
    }
    g->touched = r < 0;
    return r;
}

json_t *vcpu_groups_to_json(const struct vcpu_groups *g)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < g->count; i++) {
        const struct group *at = &g->groups[i];

        json_array_append_new(list, json_pack("{s:s, s:b, s:I, s:I}", "path", at->path, "v2",
                                              at->v2, "quota_us", (json_int_t)at->before.quota_us,
                                              "period_us", (json_int_t)at->before.period_us));
    }
    return list;
}

int vcpu_groups_undo(const json_t *saved)
{
    const json_t *item;
    size_t i;
    int r = 0;

    json_array_foreach(saved, i, item)
    {
        const char *path = json_string_value(json_object_get(item, "path"));
        struct bandwidth before = {
            .quota_us = json_integer_value(json_object_get(item, "quota_us")),
            .period_us = json_integer_value(json_object_get(item, "period_us"))};
        int each;

        if (!path || !strstr(path, "/vcpu") || before.period_us <= 0)
            continue;
        each = put_back(path, json_is_true(json_object_get(item, "v2")), &before);
        r = r < 0 ? r : each;
    }
    return r;
}
