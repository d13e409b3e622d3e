/* SPDX-License-Identifier: Apache-2.0 */
/* The target's disk files: see disk_files.h. */
#include "core/disk/disk_files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/wait.h>

#include "core/base/log.h"
#include "core/base/macros.h"

extern char **environ;

/* Room that stays free on the target's file system, for everything else that lives there. */
#define SPACE_RESERVE_BYTES (UINT64_C(64) << 20)

static void marker_of(const char *path, const char *move_id, char ret[PATH_MAX])
{
    snprintf(ret, PATH_MAX, "%.*s.ferry-%s", PATH_MAX - 64, path, move_id);
}

static void folder_of(const char *path, char ret[PATH_MAX])
{
    char copy[PATH_MAX];

    snprintf(copy, sizeof(copy), "%s", path);
    snprintf(ret, PATH_MAX, "%s", dirname(copy));
}

static void sync_folder(const char *path)
{
    char folder[PATH_MAX];
    int fd;

    folder_of(path, folder);
    fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0) {
        fsync(fd);
        close(fd);
    }
}

/* --- checks -------------------------------------------------------------------------------- */

static int check_place(const struct config *config, const struct domain_disk *disk,
                       struct error *err)
{
    char folder[PATH_MAX], real[PATH_MAX], allowed[PATH_MAX];
    char what[160];

    snprintf(what, sizeof(what), "make disk %.100s at %.40s", disk->path, config->name);
    if (disk->path[0] != '/' || strlen(disk->path) > PATH_MAX - 64)
        return error_set(err, -EINVAL, what, NULL, "not an absolute path, or too long");
    folder_of(disk->path, folder);
    if (!realpath(folder, real))
        return error_set(err, -errno, what, "make that folder there, or mount what belongs there",
                         "%s: %s", folder, strerror(errno));
    for (unsigned i = 0; i < config->directory_count; i++) {
        size_t len;

        if (!realpath(config->directories[i], allowed))
            continue;
        len = strlen(allowed);
        if (strncmp(real, allowed, len) == 0 && (real[len] == '/' || real[len] == '\0' || len == 1))
            return 0;
    }
    return error_set(err, -EPERM, what, "add it to directories = in [storage] at the target",
                     "moves may not create files in %s", folder);
}

static int check_space(const struct config *config, const struct domain_info *info,
                       uint64_t promised_bytes, struct error *err)
{
    for (unsigned i = 0; i < info->disk_count; i++) {
        uint64_t needed = SPACE_RESERVE_BYTES + promised_bytes;
        char folder[PATH_MAX];
        struct statvfs fs, other;

        folder_of(info->disks[i].path, folder);
        if (statvfs(folder, &fs) < 0)
            return error_set(err, -errno, "look for space at the target", NULL, "%s: %s", folder,
                             strerror(errno));
        for (unsigned k = 0; k < info->disk_count; k++) {
            folder_of(info->disks[k].path, folder);
            if (statvfs(folder, &other) == 0 && other.f_fsid == fs.f_fsid)
                needed += info->disks[k].allocated_bytes;
        }
        if (needed / fs.f_frsize >= fs.f_bavail)
            return error_set(
                err, -ENOSPC, "look for space at the target",
                "free space there, or choose another target",
                "%s: %s has %llu MiB free on the file system of %s, %llu MiB are needed",
                info->name, config->name, (unsigned long long)fs.f_bavail * fs.f_frsize >> 20,
                info->disks[i].path, (unsigned long long)needed >> 20);
    }
    return 0;
}

static int check_vacant(const struct config *config, const struct domain_disk *disk,
                        struct error *err)
{
    if (access(disk->path, F_OK) < 0)
        return 0;
    return error_set(err, -EEXIST, "make the VM's disks at the target",
                     "if nothing there uses it, move it away: mv FILE FILE.saved",
                     "%s exists already at %s", disk->path, config->name);
}

void disk_files_check(const struct config *config, const struct domain_info *info,
                      uint64_t promised_bytes, struct check_report *report)
{
    struct error err = {0};

    for (unsigned i = 0; i < info->disk_count; i++) {
        if (check_place(config, &info->disks[i], &err) < 0 ||
            check_vacant(config, &info->disks[i], &err) < 0)
            check_fail(report, "storage", &err);
    }
    check_pass_unless_said(report, "storage", "%u disks can be made", info->disk_count);
    if (error_is_set(&err))
        return; /* without their places there is no telling of space */
    if (check_space(config, info, promised_bytes, &err) < 0)
        check_fail(report, "space", &err);
    check_pass_unless_said(report, "space", "the disks fit");
}

/* --- creation ------------------------------------------------------------------------------ */

static int run_qemu_img(const char *path, uint64_t size_bytes)
{
    char size[32];
    char *argv[] = {"qemu-img", "create", "-q", "-f", "qcow2", (char *)(uintptr_t)path, size, NULL};
    int status = 0, r;
    pid_t pid;

    snprintf(size, sizeof(size), "%llu", (unsigned long long)size_bytes);
    r = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
    if (r != 0)
        return -r;
    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -errno;
    }
    return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EIO;
}

static int make_file(const struct domain_disk *disk, const char *marker)
{
    int fd = open(marker, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    int r = fd < 0 ? -errno : 0;

    if (r == 0 && disk->format == DISK_RAW && ftruncate(fd, (off_t)disk->size_bytes) < 0)
        r = -errno;
    if (fd >= 0)
        close(fd);
    if (r == 0 && disk->format == DISK_QCOW2)
        r = run_qemu_img(marker, disk->size_bytes);
    if (r == 0 && link(marker, disk->path) < 0)
        r = -errno;
    if (r == 0)
        sync_folder(disk->path);
    return r;
}

int disk_files_create(const struct config *config, const struct domain_info *info,
                      const char *move_id, struct error *err)
{
    struct check_report report = {0};
    struct error why;
    int r = 0;

    disk_files_check(config, info, 0, &report);
    if (check_first_failure(&report, &why)) {
        r = why.code;
        if (err)
            *err = why;
    }
    for (unsigned i = 0; i < info->disk_count && r == 0; i++) {
        char marker[PATH_MAX];

        marker_of(info->disks[i].path, move_id, marker);
        r = make_file(&info->disks[i], marker);
        if (r < 0) {
            error_set(err, r, "make the VM's disks at the target", NULL, "%s: %s",
                      info->disks[i].path, strerror(-r));
            disk_files_remove(info, move_id);
        }
    }
    return r;
}

/* --- the end of a move --------------------------------------------------------------------- */

void disk_files_old_path(const char *path, char ret[PATH_MAX])
{
    snprintf(ret, PATH_MAX, "%.*s.ferry-old", PATH_MAX - 64, path);
}

static void clear(const struct domain_info *info, const char *move_id, bool keep)
{
    for (unsigned i = 0; i < info->disk_count; i++) {
        const char *path = info->disks[i].path;
        char marker[PATH_MAX], old[PATH_MAX];
        struct stat ours, there;

        marker_of(path, move_id, marker);
        disk_files_old_path(path, old);
        if (lstat(marker, &ours) < 0)
            continue;
        if (lstat(path, &there) == 0 && there.st_ino == ours.st_ino &&
            there.st_dev == ours.st_dev && (!keep || rename(path, old) < 0))
            unlink(path);
        unlink(marker);
        sync_folder(path);
    }
}

void disk_files_remove(const struct domain_info *info, const char *move_id)
{
    clear(info, move_id, false);
}

void disk_files_keep(const struct domain_info *info, const char *move_id)
{
    clear(info, move_id, true);
}

void disk_files_adopt(const struct domain_info *info, const char *move_id)
{
    for (unsigned i = 0; i < info->disk_count; i++) {
        char name[PATH_MAX];

        marker_of(info->disks[i].path, move_id, name);
        unlink(name);
        disk_files_old_path(info->disks[i].path, name);
        unlink(name);
    }
}

void disk_files_retire(const struct domain_info *info, enum old_disks what)
{
    for (unsigned i = 0; i < info->disk_count; i++) {
        const char *path = info->disks[i].path;
        char old[PATH_MAX];

        disk_files_old_path(path, old);
        if ((what == OLD_DISKS_KEEP ? rename(path, old) : unlink(path)) < 0 && errno != ENOENT)
            log_warning("cannot put %s aside: %s", path, strerror(errno));
        sync_folder(path);
    }
}
