/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the witness does, all of it: one dirtier, a writer per disk, and the commands that steer them.
 */
#ifndef FERRY_TESTS_GUEST_WORK_H
#define FERRY_TESTS_GUEST_WORK_H

#include <stdbool.h>
#include <stddef.h>

#include "dirtier.h"
#include "writer.h"

#define DISKS_MAX 16

struct work {
    struct dirtier dirtier;
    struct writer writers[DISKS_MAX];
    unsigned disks;
    double dirty_wanted; /* MiB/s; what resume goes back to */
    double iops_wanted;
};

/* One line of JSON under construction; what does not fit is left out. */
struct answer {
    char text[16384];
    size_t len;
};

/* Makes everything ready as the kernel's command line says. False (and a word on stdout) on failure. */
bool work_open(struct work *w, const char *cmdline);

/* Starts the threads. */
bool work_start(struct work *w);

/* Writes acknowledged in all. */
uint64_t work_writes(struct work *w);

/* Starts a detached thread; an urgent one runs before all the others. */
bool work_thread(void *(*body)(void *), void *arg, bool urgent);

/* Executes "ID WORD [KEY=VALUE]..." and makes the answer. */
void work_execute(struct work *w, struct answer *a, char *line);

/* Appends the hashes of a disk from @from to @end. */
void answer_hash(struct answer *a, int fd, uint64_t from, uint64_t end);

__attribute__((format(printf, 2, 3))) void answer_say(struct answer *a, const char *fmt, ...);

/* The first line of a small file; empty when it cannot be read. */
void read_line(const char *path, char *text, size_t cap);

#endif
