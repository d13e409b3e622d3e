/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness: the only program of the lab's guest. It works like a busy machine and can prove
 * afterwards that nothing was lost.
 *
 *   /dev/ttyS1             a heartbeat every 10 ms: "BEAT ACKNOWLEDGED\n", timed by who reads it outside
 *   /dev/ttyS0 (console)   once a second what was acknowledged, for people
 *   virtio port            commands: "ID WORD [KEY=VALUE]...\n", answered by one line of JSON with that ID
 *
 *   stats     what was done, latencies since the last reset      rate dirty= iops= change=
 *   reset     the latencies                                      quiesce, resume
 *   verify    pause, check every page and every acknowledged block, go on
 *   hash N    of what lies before disk N's witness region, for comparison with the image
 *
 * Parameters come from the kernel's command line: witness.dirty= (MiB/s) witness.set= (MiB)
 * witness.fill= (MiB that never change) witness.change= (bytes of a page that change) witness.iops=
 * witness.region= (MiB at the end of each disk). Outside a guest, `witness hash FILE REGION_MIB` prints
 * what `hash` would answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "dirtier.h"
#include "stamp.h"
#include "writer.h"

#define DISKS_MAX 16
#define BEAT_NS 10000000u
#define CHUNK_BYTES (16u * 1024u * 1024u)
#define PORT_NAME "org.ferry.witness"

static struct dirtier dirtier;
static struct writer writers[DISKS_MAX];
static unsigned disks;
static double dirty_wanted, iops_wanted; /* what resume goes back to */

/* --- small readers ----------------------------------------------------------------------------- */

static double parameter(const char *text, const char *key, double otherwise)
{
    const char *at = strstr(text, key);

    return at ? strtod(at + strlen(key), NULL) : otherwise;
}

static void read_file(const char *path, char *text, size_t cap)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? 0 : read(fd, text, cap - 1);

    text[n > 0 ? n : 0] = '\0';
    text[strcspn(text, "\n")] = '\0';
    if (fd >= 0)
        close(fd);
}

static uint64_t writes_total(void)
{
    uint64_t total = 0;

    for (unsigned i = 0; i < disks; i++)
        total += __atomic_load_n(&writers[i].writes, __ATOMIC_RELAXED);
    return total;
}

/* --- work and its rates ------------------------------------------------------------------------ */

static void hold_all(void)
{
    pthread_mutex_lock(&dirtier.lock);
    for (unsigned i = 0; i < disks; i++)
        pthread_mutex_lock(&writers[i].lock);
}

static void release_all(void)
{
    for (unsigned i = 0; i < disks; i++)
        pthread_mutex_unlock(&writers[i].lock);
    pthread_mutex_unlock(&dirtier.lock);
}

static void set_rates(double dirty, double iops)
{
    hold_all();
    dirtier.mib_per_s = dirty;
    for (unsigned i = 0; i < disks; i++)
        writers[i].per_second = iops / disks;
    release_all();
}

static void set_change(double bytes)
{
    pthread_mutex_lock(&dirtier.lock);
    dirtier.changed = bytes >= STAMP_BYTES ? STAMP_BODY_WORDS : (uint64_t)(bytes / 8);
    pthread_mutex_unlock(&dirtier.lock);
}

/* --- answers ----------------------------------------------------------------------------------- */

struct answer {
    char text[16384];
    size_t len;
};

__attribute__((format(printf, 2, 3))) static void say(struct answer *a, const char *fmt, ...)
{
    va_list ap;
    int n;

    va_start(ap, fmt);
    n = vsnprintf(a->text + a->len, sizeof(a->text) - a->len, fmt, ap);
    va_end(ap);
    if (n > 0 && (size_t)n < sizeof(a->text) - a->len)
        a->len += (size_t)n;
}

static void say_identity(struct answer *a)
{
    char boot_id[64], uptime[64];

    read_file("/proc/sys/kernel/random/boot_id", boot_id, sizeof(boot_id));
    read_file("/proc/uptime", uptime, sizeof(uptime));
    say(a, ", \"boot_id\": \"%s\", \"uptime_s\": %.2f, \"acknowledged\": %lu", boot_id,
        strtod(uptime, NULL), writes_total());
}

static void on_stats(struct answer *a)
{
    static struct latency all;
    double seconds;
    uint64_t errors = 0;

    memset(&all, 0, sizeof(all));
    hold_all();
    for (unsigned i = 0; i < disks; i++) {
        latency_add(&all, &writers[i].latency);
        errors += writers[i].errors;
    }
    release_all();
    seconds = (double)(now_ns() - all.since_ns) / 1e9;
    say_identity(a);
    say(a,
        ", \"pages_rewritten\": %lu, \"writes\": {\"count\": %lu, \"seconds\": %.3f, "
        "\"per_second\": %.1f, \"p50_us\": %lu, \"p99_us\": %lu, \"max_us\": %lu, \"errors\": %lu}",
        dirtier.rewritten, all.count, seconds, seconds > 0 ? (double)all.count / seconds : 0,
        latency_at(&all, 0.5), latency_at(&all, 0.99), all.max_us, errors);
}

static void on_reset(void)
{
    hold_all();
    for (unsigned i = 0; i < disks; i++)
        writers[i].latency = (struct latency){.since_ns = now_ns()};
    release_all();
}

static void on_verify(struct answer *a)
{
    struct writer_findings f = {0};
    uint64_t bad_pages, errors = 0;
    int r = 0;

    hold_all();
    bad_pages = dirtier_verify(&dirtier);
    for (unsigned i = 0; i < disks && r == 0; i++) {
        r = writer_verify(&writers[i], &f);
        errors += writers[i].errors;
    }
    say_identity(a);
    release_all();
    if (r < 0)
        say(a, ", \"error\": \"read the disk back: %s\"", strerror(-r));
    say(a,
        ", \"pages\": %lu, \"bad_pages\": %lu, \"blocks\": %lu, \"lost_writes\": %lu, "
        "\"bad_blocks\": %lu, \"write_errors\": %lu",
        dirtier.count, bad_pages, f.blocks, f.lost, f.bad, errors);
}

static void say_chunk(void *answer, uint64_t hash)
{
    struct answer *a = answer;

    say(a, "%s\"%016lx\"", a->text[a->len - 1] == '[' ? "" : ", ", hash);
}

static void say_hash(struct answer *a, int fd, uint64_t bytes)
{
    int r;

    say(a, ", \"bytes\": %lu, \"chunk_bytes\": %u, \"chunks\": [", bytes, CHUNK_BYTES);
    r = region_hash(fd, bytes, CHUNK_BYTES, say_chunk, a);
    say(a, "]");
    if (r < 0)
        say(a, ", \"error\": \"hash the disk: %s\"", strerror(-r));
}

static void execute(struct answer *a, char *line)
{
    unsigned long id = strtoul(line, &line, 10);

    line += strspn(line, " ");
    a->len = 0;
    say(a, "{\"id\": %lu", id);
    if (strncmp(line, "stats", 5) == 0) {
        on_stats(a);
    } else if (strncmp(line, "reset", 5) == 0) {
        on_reset();
    } else if (strncmp(line, "verify", 6) == 0) {
        on_verify(a);
    } else if (strncmp(line, "quiesce", 7) == 0) {
        set_rates(0, 0);
    } else if (strncmp(line, "resume", 6) == 0) {
        set_rates(dirty_wanted, iops_wanted);
    } else if (strncmp(line, "rate", 4) == 0) {
        dirty_wanted = parameter(line, " dirty=", dirty_wanted);
        iops_wanted = parameter(line, " iops=", iops_wanted);
        set_rates(dirty_wanted, iops_wanted);
        if (strstr(line, " change="))
            set_change(parameter(line, " change=", 0));
    } else if (strncmp(line, "hash ", 5) == 0 && strtoul(line + 5, NULL, 10) < disks) {
        struct writer *w = &writers[strtoul(line + 5, NULL, 10)];

        say_hash(a, w->fd, w->offset);
    } else {
        say(a, ", \"error\": \"unknown command or disk\"");
    }
    say(a, "}\n");
}

/* --- the three wires --------------------------------------------------------------------------- */

static void *beat(void *unused)
{
    int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    struct timespec t;
    struct termios raw;
    char line[64];

    (void)unused;
    if (fd >= 0 && tcgetattr(fd, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(fd, TCSANOW, &raw);
    }
    clock_gettime(CLOCK_MONOTONIC, &t);
    for (uint64_t n = 1; fd >= 0; n++) {
        int len = snprintf(line, sizeof(line), "%lu %lu\n", n, writes_total());

        if (write(fd, line, (size_t)len) < 0)
            break;
        if (n % 100 == 0)
            printf("witness: %lu writes acknowledged\n", writes_total());
        t.tv_nsec += BEAT_NS;
        if (t.tv_nsec >= 1000000000) {
            t.tv_nsec -= 1000000000;
            t.tv_sec++;
        }
        clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
    }
    printf("witness: the heartbeat's port ttyS1 cannot be used: %s\n", strerror(errno));
    return NULL;
}

static int open_port(void)
{
    char name[64], path[64];
    glob_t found;
    int fd = -1;

    if (glob("/sys/class/virtio-ports/*/name", 0, NULL, &found) != 0)
        return -1;
    for (size_t i = 0; i < found.gl_pathc && fd < 0; i++) {
        const char *dir = found.gl_pathv[i] + strlen("/sys/class/virtio-ports/");

        read_file(found.gl_pathv[i], name, sizeof(name));
        snprintf(path, sizeof(path), "/dev/%.*s", (int)strcspn(dir, "/"), dir);
        if (strcmp(name, PORT_NAME) == 0)
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    globfree(&found);
    return fd;
}

static void write_all(int fd, const char *text, size_t len)
{
    while (len > 0) {
        ssize_t n = write(fd, text, len);

        if (n <= 0)
            return;
        text += n;
        len -= (size_t)n;
    }
}

/* While nobody outside has the port open, reads end at once and are tried again. */
static void serve(int fd)
{
    static struct answer answer;
    static char line[256];
    size_t len = 0;

    for (;;) {
        ssize_t n = read(fd, line + len, 1);

        if (n <= 0) {
            usleep(20000);
            continue;
        }
        if (line[len] != '\n') {
            len = len + 1 < sizeof(line) - 1 ? len + 1 : 0;
            continue;
        }
        line[len] = '\0';
        len = 0;
        execute(&answer, line);
        write_all(fd, answer.text, answer.len);
    }
}

/* --- start ------------------------------------------------------------------------------------- */

static bool start_thread(void *(*body)(void *), void *arg, bool urgent)
{
    struct sched_param first = {.sched_priority = 10};
    pthread_t thread;

    if (pthread_create(&thread, NULL, body, arg) != 0)
        return false;
    /* the heartbeat must not wait for the dirtier: it would look like downtime */
    return !urgent || pthread_setschedparam(thread, SCHED_FIFO, &first) == 0;
}

static bool open_disks(uint64_t region_bytes)
{
    char path[] = "/dev/vda";

    for (; disks < DISKS_MAX; disks++) {
        int r;

        path[sizeof(path) - 2] = (char)('a' + disks);
        if (access(path, F_OK) != 0)
            break;
        if ((r = writer_open(&writers[disks], disks, path, region_bytes)) < 0) {
            printf("witness: cannot use disk %s: %s\n", path, strerror(-r));
            return false;
        }
    }
    return true;
}

static int hash_image(const char *path, const char *region_mib)
{
    static struct answer answer;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? -1 : lseek(fd, 0, SEEK_END);
    uint64_t region = strtoull(region_mib, NULL, 10) << 20;

    if (size < 0 || (uint64_t)size < region) {
        fprintf(stderr, "witness: cannot hash %s: %s\n", path,
                size < 0 ? strerror(errno) : "too small");
        return 1;
    }
    say(&answer, "{\"id\": 0");
    say_hash(&answer, fd, (uint64_t)size - region);
    say(&answer, "}\n");
    fputs(answer.text, stdout);
    return 0;
}

int main(int argc, char **argv)
{
    char cmdline[2048];
    bool ok;
    int port;

    if (argc == 4 && strcmp(argv[1], "hash") == 0)
        return hash_image(argv[2], argv[3]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_file("/proc/cmdline", cmdline, sizeof(cmdline));
    dirty_wanted = parameter(cmdline, " witness.dirty=", 0);
    iops_wanted = parameter(cmdline, " witness.iops=", 0);
    dirtier.changed = STAMP_BODY_WORDS;
    ok = dirtier_open(&dirtier, (uint64_t)parameter(cmdline, " witness.set=", 0),
                      (uint64_t)parameter(cmdline, " witness.fill=", 0)) == 0 &&
         open_disks((uint64_t)parameter(cmdline, " witness.region=", 16) << 20);
    if (ok) {
        set_change(parameter(cmdline, " witness.change=", STAMP_BYTES));
        set_rates(dirty_wanted, iops_wanted);
        ok = start_thread(beat, NULL, true) && start_thread(dirtier_run, &dirtier, false);
    }
    for (unsigned i = 0; ok && i < disks; i++)
        ok = start_thread(writer_run, &writers[i], false);
    port = ok ? open_port() : -1;
    if (port < 0) {
        printf("witness: cannot start: %s\n", strerror(errno));
        return 1; /* the kernel panics without its init, and the domain ends */
    }
    printf("witness: ready\n");
    serve(port);
    return 0;
}
