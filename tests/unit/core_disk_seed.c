/* SPDX-License-Identifier: Apache-2.0 */
/* Where seeds are found, in which order, and what is none. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/config_private.h"
#include "core/disk/disk_seed.h"

static char folder[] = "/tmp/ferry-seed-XXXXXX";
static struct config config;
static struct domain_disk disk = {.target = "vda", .format = DISK_RAW};

static const char *in_folder(const char *name)
{
    static char path[256];

    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static int make(const char *name)
{
    int fd = open(in_folder(name), O_RDWR | O_CREAT | O_CLOEXEC, 0600);

    assert_true(fd >= 0);
    return fd;
}

static void expect_found(const char *name, enum disk_format format)
{
    struct disk_seed seed;

    disk_seed_find(&config, "web-1", &disk, &seed);
    assert_string_equal(seed.path, name[0] ? in_folder(name) : "");
    if (name[0])
        assert_int_equal(seed.format, format);
}

static int set_up(void **state)
{
    (void)state;
    config = (struct config){.use_seeds = true};
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    static const char *const names[] = {"d.img.ferry-old", "template.qcow2", "other"};

    (void)state;
    for (unsigned i = 0; i < 3; i++)
        unlink(in_folder(names[i]));
    return rmdir(folder);
}

static void the_order(void **state)
{
    (void)state;
    snprintf(disk.path, sizeof(disk.path), "%s", in_folder("d.img"));
    expect_found("", 0);
    close(make("d.img.ferry-old"));
    expect_found("d.img.ferry-old", DISK_RAW);

    assert_int_equal(config_set(&config, "seeds", "db/vda", in_folder("other")), 1);
    assert_int_equal(config_set(&config, "seeds", "web-*/vd?", in_folder("template.qcow2")), 1);
    assert_int_equal(config_set(&config, "seeds", "web-*/*", in_folder("other")), 1);
    expect_found("d.img.ferry-old", DISK_RAW); /* what is named is not there */
    close(make("other"));
    expect_found("other", DISK_RAW);
    close(make("template.qcow2"));
    expect_found("template.qcow2", DISK_QCOW2);

    config.use_seeds = false;
    expect_found("", 0);
    config.use_seeds = true;
}

static void one_that_is_written(void **state)
{
    struct flock writer = {.l_type = F_RDLCK, .l_whence = SEEK_SET, .l_start = 101, .l_len = 1};
    int fd = make("template.qcow2");

    (void)state;
    assert_int_equal(fcntl(fd, F_OFD_SETLK, &writer), 0);
    expect_found("other", DISK_RAW);
    close(fd);
    expect_found("template.qcow2", DISK_QCOW2);
}

static void bad_settings(void **state)
{
    (void)state;
    assert_int_equal(config_set(&config, "seeds", "vda", "/x"), -1);
    assert_int_equal(config_set(&config, "seeds", "web/vda", "x"), 0);
    assert_int_equal(config_set(&config, "storage", "use_seeds", "perhaps"), 0);
}

static void the_agreement(void **state)
{
    struct domain_info info = {.disk_count = 2, .disks = {{.alias = "a"}, {.alias = "b"}}};
    struct disk_seed seeds[2] = {0};
    json_t *offer = disk_seeds_offer(), *answer;

    (void)state;
    assert_true(disk_seeds_offered(offer));
    assert_false(disk_seeds_offered(NULL));
    assert_null(disk_seeds_answer(&info, seeds));
    snprintf(seeds[1].path, sizeof(seeds[1].path), "/b");
    answer = disk_seeds_answer(&info, seeds);
    assert_false(disk_seeds_have(answer, "a"));
    assert_true(disk_seeds_have(answer, "b"));
    assert_false(disk_seeds_have(NULL, "b"));
    assert_false(disk_seeds_have(offer, "b"));
    json_decref(answer);
    json_decref(offer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_order),
        cmocka_unit_test(one_that_is_written),
        cmocka_unit_test(bad_settings),
        cmocka_unit_test(the_agreement),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
