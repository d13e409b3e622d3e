/* SPDX-License-Identifier: Apache-2.0 */
/* Where seeds are found: see disk_seed.h. */
#include "core/disk/disk_seed.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/base/log.h"
#include "core/disk/disk_files.h"

enum { VERSION = 1 };

/* A file that no QEMU may write: who may, holds a lock on this byte of it (its docs/interop/image-locking.rst,
 * 100 and the number of the permission). It could not do harm, but little of such a file would be of use. */
static int check_file(const char *path)
{
    struct flock writers = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    int r = 0;

    if (fd < 0)
        return -errno;
    if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode))
        r = -EINVAL;
    else if (fcntl(fd, F_OFD_GETLK, &writers) == 0 && writers.l_type != F_UNLCK)
        r = -ETXTBSY;
    close(fd);
    return r;
}

/* -ENOENT without a word: most disks have none. */
static bool is_usable(const char *path)
{
    int r = check_file(path);

    if (r < 0 && r != -ENOENT)
        log_warning("%s is no seed: %s", path,
                    r == -ETXTBSY  ? "it is in use"
                    : r == -EINVAL ? "no file"
                                   : strerror(-r));
    return r == 0;
}

/* By its name: what a guest has written into its disk must not choose how that is opened. */
static enum disk_format format_of(const char *path, const struct domain_disk *disk)
{
    const char *dot = strrchr(path, '.');

    if (dot && strcmp(dot, ".qcow2") == 0)
        return DISK_QCOW2;
    if (dot && (strcmp(dot, ".raw") == 0 || strcmp(dot, ".img") == 0))
        return DISK_RAW;
    return disk->format;
}

static bool find_named(const struct config *config, const char *domain,
                       const struct domain_disk *disk, struct disk_seed *ret)
{
    char name[DOMAIN_NAME_BYTES + sizeof(disk->target) + 1];

    snprintf(name, sizeof(name), "%s/%s", domain, disk->target);
    for (unsigned i = 0; i < config->seed_count; i++) {
        const struct config_seed *seed = &config->seeds[i];

        if (fnmatch(seed->disks, name, 0) != 0)
            continue;
        if (!is_usable(seed->path))
            continue;
        snprintf(ret->path, sizeof(ret->path), "%s", seed->path);
        ret->format = format_of(seed->path, disk);
        return true;
    }
    return false;
}

void disk_seed_find(const struct config *config, const char *domain, const struct domain_disk *disk,
                    struct disk_seed *ret)
{
    *ret = (struct disk_seed){.format = disk->format};
    if (!config->use_seeds || find_named(config, domain, disk, ret))
        return;
    disk_files_old_path(disk->path, ret->path);
    if (!is_usable(ret->path))
        ret->path[0] = '\0';
}

/* --- agreement ------------------------------------------------------------------------------- */

json_t *disk_seeds_offer(void)
{
    return json_integer(VERSION);
}

bool disk_seeds_offered(const json_t *offer)
{
    return json_integer_value(offer) == VERSION;
}

json_t *disk_seeds_answer(const struct domain_info *info, const struct disk_seed *seeds)
{
    json_t *answer = NULL;

    for (unsigned i = 0; i < info->disk_count; i++) {
        if (!seeds[i].path[0])
            continue;
        if (!answer)
            answer = json_array();
        json_array_append_new(answer, json_string(info->disks[i].alias));
    }
    return answer;
}

bool disk_seeds_have(const json_t *answer, const char *alias)
{
    for (size_t i = 0; i < json_array_size(answer); i++) {
        const char *name = json_string_value(json_array_get(answer, i));

        if (name && strcmp(name, alias) == 0)
            return true;
    }
    return false;
}
