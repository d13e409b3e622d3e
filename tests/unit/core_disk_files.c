/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Disk files at the target: made with the right size in the right place, and nothing that a move did not
 * make is ever removed.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/macros.h"
#include "core/disk/disk_files.h"

#define ID "0123-move"

struct place {
    char folder[32];
    struct config *config;
    struct domain_info info;
};

static struct place *place_new(void)
{
    struct place *p = calloc(1, sizeof(*p));

    assert_non_null(p);
    strcpy(p->folder, "/tmp/ferry-disks-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    p->config = calloc(1, sizeof(*p->config));
    assert_non_null(p->config);
    strcpy(p->config->name, "site-b");
    strcpy(p->config->directories[0], p->folder);
    p->config->directory_count = 1;
    strcpy(p->info.name, "vm1");
    return p;
}

static void place_free(struct place *p)
{
    char command[PATH_MAX];

    snprintf(command, sizeof(command), "rm -rf %s", p->folder);
    assert_int_equal(system(command), 0);
    free(p->config);
    free(p);
}

static const char *path_of(const struct place *p, const char *name)
{
    static char path[128];

    snprintf(path, sizeof(path), "%s/%s", p->folder, name);
    return path;
}

static struct domain_disk *add_disk(struct place *p, const char *name, enum disk_format format,
                                    uint64_t size_bytes)
{
    struct domain_disk *d = &p->info.disks[p->info.disk_count++];

    *d = (struct domain_disk){.format = format, .size_bytes = size_bytes};
    strcpy(d->path, path_of(p, name));
    return d;
}

static void write_file(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");

    assert_non_null(f);
    fputs(text, f);
    fclose(f);
}

static bool holds(const char *path, const char *text)
{
    char content[64] = {0};
    FILE *f = fopen(path, "r");

    if (!f)
        return false;
    if (!fgets(content, sizeof(content), f))
        content[0] = '\0';
    fclose(f);
    return strcmp(content, text) == 0;
}

static bool exists(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0;
}

static int entries(const struct place *p)
{
    char command[PATH_MAX];
    FILE *f;
    int n = -1;

    snprintf(command, sizeof(command), "ls -A %s | wc -l", p->folder);
    f = popen(command, "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%d", &n), 1);
    pclose(f);
    return n;
}

static void expect_refused(struct place *p, int code, const char *words)
{
    struct error err = {0};
    int before = entries(p);

    assert_int_equal(disk_files_create(p->config, &p->info, ID, &err), code);
    if (!strstr(err.why, words))
        fail_msg("'%s' is not in: %s", words, err.why);
    assert_int_equal(entries(p), before); /* nothing is left */
}

static void create(struct place *p)
{
    struct error err = {0};
    char line[1024];

    if (disk_files_create(p->config, &p->info, ID, &err) < 0)
        fail_msg("%s", error_line(&err, line, sizeof(line)));
}

static void test_create_and_remove(void **state)
{
    struct place *p = place_new();
    struct stat st;

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 12345678);
    add_disk(p, "b.raw", DISK_RAW, 0);
    create(p);
    assert_int_equal(stat(p->info.disks[0].path, &st), 0);
    assert_int_equal(st.st_size, 12345678);
    assert_int_equal(st.st_blocks, 0); /* holes */
    assert_int_equal(st.st_mode & 07777, 0600);
    disk_files_remove(&p->info, "another-move");
    assert_true(exists(p->info.disks[0].path));
    disk_files_remove(&p->info, ID);
    assert_int_equal(entries(p), 0);
    disk_files_remove(&p->info, ID); /* again, as after a crash */
    place_free(p);
}

static void test_qcow2(void **state)
{
    struct place *p = place_new();
    unsigned char head[32];
    int fd;

    (void)state;
    if (system("qemu-img --version >/dev/null 2>&1") != 0)
        skip();
    add_disk(p, "a.qcow2", DISK_QCOW2, 5 << 20);
    create(p);
    fd = open(p->info.disks[0].path, O_RDONLY);
    assert_int_equal(read(fd, head, sizeof(head)), sizeof(head));
    close(fd);
    assert_memory_equal(head, "QFI\xfb", 4);
    assert_int_equal(head[29] << 16 | head[30] << 8 | head[31], 5 << 20);
    disk_files_remove(&p->info, ID);
    assert_int_equal(entries(p), 0);
    place_free(p);
}

static void test_adopt(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    write_file(path_of(p, "a.raw.ferry-old"), "an earlier stay");
    create(p);
    disk_files_adopt(&p->info, ID);
    assert_int_equal(entries(p), 1);
    disk_files_remove(&p->info, ID); /* too late: it is the VM's now */
    assert_true(exists(p->info.disks[0].path));
    place_free(p);
}

static void test_retire(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    write_file(p->info.disks[0].path, "new");
    write_file(path_of(p, "a.raw.ferry-old"), "old");
    disk_files_retire(&p->info, OLD_DISKS_KEEP);
    assert_int_equal(entries(p), 1);
    assert_true(holds(path_of(p, "a.raw.ferry-old"), "new"));
    disk_files_retire(&p->info, OLD_DISKS_KEEP); /* nothing there any more: the copy stays */
    assert_true(holds(path_of(p, "a.raw.ferry-old"), "new"));
    write_file(p->info.disks[0].path, "newer");
    disk_files_retire(&p->info, OLD_DISKS_REMOVE);
    assert_false(exists(p->info.disks[0].path));
    place_free(p);
}

static void test_what_is_there_stays(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    add_disk(p, "b.raw", DISK_RAW, 4096);
    write_file(path_of(p, "b.raw"), "mine");
    expect_refused(p, -EEXIST, "b.raw exists already");
    disk_files_remove(&p->info, ID);
    assert_true(holds(path_of(p, "b.raw"), "mine"));
    place_free(p);
}

/* After a crash somebody put another file in the place of ours: only the marker goes. */
static void test_replaced_file_stays(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    create(p);
    assert_int_equal(unlink(p->info.disks[0].path), 0);
    write_file(p->info.disks[0].path, "mine");
    disk_files_remove(&p->info, ID);
    assert_true(holds(path_of(p, "a.raw"), "mine"));
    assert_int_equal(entries(p), 1);
    place_free(p);
}

static void test_links_are_not_followed(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    write_file(path_of(p, "precious"), "mine");
    assert_int_equal(symlink("precious", p->info.disks[0].path), 0);
    expect_refused(p, -EEXIST, "a.raw");
    unlink(p->info.disks[0].path);
    assert_int_equal(symlink("nowhere", p->info.disks[0].path), 0); /* a dangling one */
    expect_refused(p, -EEXIST, "a.raw");
    assert_false(exists(path_of(p, "nowhere")));
    unlink(p->info.disks[0].path);
    assert_int_equal(symlink("precious", path_of(p, "a.raw.ferry-" ID)),
                     0); /* in the marker's place */
    assert_int_equal(disk_files_create(p->config, &p->info, ID, &(struct error){0}), -EEXIST);
    assert_true(holds(path_of(p, "precious"), "mine"));
    place_free(p);
}

static void test_two_disks_of_one_name(void **state)
{
    struct place *p = place_new();

    (void)state;
    add_disk(p, "a.raw", DISK_RAW, 4096);
    add_disk(p, "a.raw", DISK_RAW, 4096);
    expect_refused(p, -EEXIST, "a.raw");
    place_free(p);
}

static void test_folders(void **state)
{
    struct place *p = place_new();
    struct domain_disk *d = add_disk(p, "sub/a.raw", DISK_RAW, 4096);
    char sub[128];

    (void)state;
    expect_refused(p, -ENOENT, "sub");
    strcpy(sub, path_of(p, "sub"));
    assert_int_equal(mkdir(sub, 0700), 0);
    create(p); /* folders below an allowed one are allowed */
    disk_files_remove(&p->info, ID);

    strcpy(p->config->directories[0], "/nonexistent");
    expect_refused(p, -EPERM, "may not create files");
    strcpy(p->config->directories[0], path_of(p, "su")); /* a prefix is not a parent */
    expect_refused(p, -EPERM, "may not create files");
    strcpy(p->config->directories[0], sub);
    snprintf(d->path, sizeof(d->path), "%s/../a.raw", sub); /* out of it by the back door */
    expect_refused(p, -EPERM, "may not create files");
    assert_int_equal(symlink("/tmp", path_of(p, "sub/link")), 0);
    snprintf(d->path, sizeof(d->path), "%s/link/ferry-test-a.raw", sub);
    expect_refused(p, -EPERM, "may not create files");
    strcpy(d->path, "relative.raw");
    expect_refused(p, -EINVAL, "absolute");
    d->path[0] = '\0';
    expect_refused(p, -EINVAL, "absolute");
    memset(d->path, 'a', sizeof(d->path) - 1);
    d->path[0] = '/';
    expect_refused(p, -EINVAL, "too long");
    place_free(p);
}

static void test_space(void **state)
{
    struct place *p = place_new();

    (void)state;
    if (mount("ferry-test", p->folder, "tmpfs", 0, "size=80m") < 0) {
        place_free(p);
        skip();
    }
    add_disk(p, "a.raw", DISK_RAW, 1 << 30)->allocated_bytes = 10 << 20;
    create(p); /* a thin disk counts by what it holds */
    disk_files_remove(&p->info, ID);
    add_disk(p, "b.raw", DISK_RAW, 1 << 30)->allocated_bytes = 10 << 20;
    expect_refused(p, -ENOSPC, "84 MiB are needed"); /* both, and the reserve */
    assert_int_equal(umount(p->folder), 0);
    place_free(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_create_and_remove),
        cmocka_unit_test(test_qcow2),
        cmocka_unit_test(test_adopt),
        cmocka_unit_test(test_retire),
        cmocka_unit_test(test_what_is_there_stays),
        cmocka_unit_test(test_replaced_file_stays),
        cmocka_unit_test(test_links_are_not_followed),
        cmocka_unit_test(test_two_disks_of_one_name),
        cmocka_unit_test(test_folders),
        cmocka_unit_test(test_space),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
