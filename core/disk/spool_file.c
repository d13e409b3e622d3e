/* SPDX-License-Identifier: Apache-2.0 */
/* The spool's file: see spool_file.h. */
#include "core/disk/spool_file.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/worker.h"

/* Large enough for the disk, small enough to be held several times. */
enum { SEGMENT_BYTES = 1024 * 1024 };

struct spool_file {
    struct mirror_spool *spool;
    struct worker *worker; /* NULL: retired */
    int fd;
};

struct io_job {
    struct worker_job job;
    struct spool_file *file;
    struct mirror_spool_io *io; /* NULL: cut the file to nothing */
    int fd;
    int err;
};

/* Worker thread. */
static int transfer(int fd, const struct mirror_spool_io *io)
{
    uint32_t done = 0;

    while (done < io->length) {
        off_t at = (off_t)(io->offset + done);
        ssize_t n = io->write ? pwrite(fd, io->data + done, io->length - done, at)
                              : pread(fd, io->data + done, io->length - done, at);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        done += (uint32_t)n;
    }
    return 0;
}

static void run_io(struct worker_job *job)
{
    struct io_job *j = container_of(job, struct io_job, job);

    if (j->io)
        j->err = transfer(j->fd, j->io);
    else if (ftruncate(j->fd, 0) < 0)
        j->err = -errno;
}

static void on_io_done(struct worker_job *job)
{
    struct io_job *j = container_of(job, struct io_job, job);

    if (j->io)
        mirror_spool_complete(j->file->spool, j->io, j->err, clock_now_ns());
    free(j);
}

static int post(struct spool_file *f, struct mirror_spool_io *io)
{
    struct io_job *j = f->worker ? calloc(1, sizeof(*j)) : NULL;

    if (!j)
        return -ENOMEM;
    *j = (struct io_job){
        .job = {.run = run_io, .done = on_io_done}, .file = f, .io = io, .fd = f->fd};
    worker_post(f->worker, &j->job);
    return 0;
}

static int on_start(void *owner, struct mirror_spool_io *io)
{
    return post(owner, io);
}

static void on_failed(void *owner, int err)
{
    (void)owner;
    log_warning("the spool cannot be written: %s; guests that write much are delayed until it is "
                "empty",
                strerror(-err));
}

static void on_emptied(void *owner)
{
    (void)post(owner, NULL); /* a file that stays long costs nothing but space */
}

static const struct mirror_spool_ops spool_ops = {
    .start = on_start, .failed = on_failed, .emptied = on_emptied};

static int open_unlinked(const char *folder)
{
    char path[PATH_MAX];
    int fd;

    if (snprintf(path, sizeof(path), "%s/ferry-spool-XXXXXX", folder) >= (int)sizeof(path))
        return -ENAMETOOLONG;
    fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0)
        return -errno;
    unlink(path);
    return fd;
}

int spool_file_new(uv_loop_t *loop, const char *folder, uint64_t limit_bytes,
                   struct spool_file **ret, struct error *err)
{
    struct spool_file *f = calloc(1, sizeof(*f));
    int r;

    if (!f)
        return error_set(err, -ENOMEM, "open the spool", NULL, "out of memory");
    f->fd = open_unlinked(folder);
    if (f->fd < 0) {
        r = error_set(err, f->fd, "open the spool",
                      "make that folder, or take spool out of [storage]", "%s: %s", folder,
                      strerror(-f->fd));
        free(f);
        return r;
    }
    r = mirror_spool_new(&f->spool, limit_bytes, SEGMENT_BYTES, &spool_ops, f);
    if (r == 0)
        r = worker_new(loop, "ferry-spool", &f->worker);
    if (r < 0) {
        spool_file_free(f);
        return error_set(err, r, "open the spool", NULL, "%s", strerror(-r));
    }
    *ret = f;
    return 0;
}

struct mirror_spool *spool_file_spool(const struct spool_file *f)
{
    return f ? f->spool : NULL;
}

void spool_file_retire(struct spool_file *f)
{
    if (f && f->worker)
        worker_retire(TAKE_PTR(f->worker));
}

void spool_file_free(struct spool_file *f)
{
    if (!f)
        return;
    mirror_spool_free(f->spool);
    close(f->fd);
    free(f);
}
