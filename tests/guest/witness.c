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
 *   hash N    of disk N beyond the witness's region, for comparison with the image
 *   cache N   read that part of disk N through the page cache, which keeps it
 *
 * Parameters come from the kernel's command line: witness.dirty= (MiB/s) witness.set= (MiB)
 * witness.fill= (MiB that never change) witness.change= (bytes of a page that change) witness.iops=
 * witness.region= (MiB at the start of each disk). Outside a guest, `witness hash FILE REGION_MIB`
 * prints what `hash` would answer.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "pace.h"
#include "work.h"

#define BEATS_PER_WORD_ON_CONSOLE 100u
#define TICKS_WHILE_NOBODY_ASKS 5u
#define PORT_NAME "org.ferry.witness"
#define PORT_FOLDER "/sys/class/virtio-ports/"
#define PORT_WAIT_TICKS 1000u

/* Runs before all other threads: if it waited for the dirtier, that would look like downtime. */
static void *beat(void *work)
{
    int fd = open("/dev/ttyS1", O_WRONLY | O_NOCTTY | O_CLOEXEC);
    struct termios raw;
    char line[64];

    if (fd >= 0 && tcgetattr(fd, &raw) == 0) {
        cfmakeraw(&raw);
        tcsetattr(fd, TCSANOW, &raw);
    }
    for (uint64_t n = 1; fd >= 0; n++) {
        int len = snprintf(line, sizeof(line), "%lu %lu\n", n, work_writes(work));

        if (write(fd, line, (size_t)len) < 0)
            break;
        if (n % BEATS_PER_WORD_ON_CONSOLE == 0)
            printf("witness: %lu writes acknowledged\n", work_writes(work));
        sleep_ticks(1);
    }
    printf("witness: the heartbeat's port ttyS1 cannot be used: %s\n", strerror(errno));
    return NULL;
}

static int open_port(void)
{
    char name[64], path[64];
    glob_t found;
    int fd = -1;

    if (glob(PORT_FOLDER "*/name", 0, NULL, &found) != 0)
        return -1;
    for (size_t i = 0; i < found.gl_pathc && fd < 0; i++) {
        const char *port = found.gl_pathv[i] + strlen(PORT_FOLDER);

        read_line(found.gl_pathv[i], name, sizeof(name));
        snprintf(path, sizeof(path), "/dev/%.*s", (int)strcspn(port, "/"), port);
        if (strcmp(name, PORT_NAME) == 0)
            fd = open(path, O_RDWR | O_CLOEXEC);
    }
    globfree(&found);
    return fd;
}

/* Its driver is there before the host has told of the port and its name. */
static int wait_for_port(void)
{
    int fd = open_port();

    for (unsigned i = 0; fd < 0 && i < PORT_WAIT_TICKS; i++) {
        sleep_ticks(1);
        fd = open_port();
    }
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
static void serve(struct work *w, int fd)
{
    static struct answer answer;
    char line[256];
    size_t len = 0;

    for (;;) {
        ssize_t n = read(fd, line + len, 1);

        if (n <= 0) {
            sleep_ticks(TICKS_WHILE_NOBODY_ASKS);
            continue;
        }
        if (line[len] != '\n') {
            len = len + 1 < sizeof(line) - 1 ? len + 1 : 0;
            continue;
        }
        line[len] = '\0';
        if (len > 0)
            work_execute(w, &answer, line);
        if (len > 0)
            write_all(fd, answer.text, answer.len);
        len = 0;
    }
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
    answer_say(&answer, "{\"id\": 0");
    answer_hash(&answer, fd, region, (uint64_t)size);
    answer_say(&answer, "}\n");
    fputs(answer.text, stdout);
    return 0;
}

/* Returns only on failure; the kernel panics without its first process, and that ends the domain. */
int main(int argc, char **argv)
{
    static struct work work;
    char cmdline[2048];
    int port;

    if (argc == 4 && strcmp(argv[1], "hash") == 0)
        return hash_image(argv[2], argv[3]);
    setvbuf(stdout, NULL, _IOLBF, 0);
    read_line("/proc/cmdline", cmdline, sizeof(cmdline));
    if (!work_open(&work, cmdline))
        return 1;
    port = wait_for_port();
    if (port < 0)
        printf("witness: no port %s in %s\n", PORT_NAME, PORT_FOLDER);
    if (port < 0 || !work_thread(beat, &work, true) || !work_start(&work)) {
        printf("witness: cannot start: %s\n", strerror(errno));
        return 1;
    }
    printf("witness: ready\n");
    serve(&work, port);
    return 0;
}
