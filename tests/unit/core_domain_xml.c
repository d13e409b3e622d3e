/* SPDX-License-Identifier: Apache-2.0 */
/* What is read from a domain's XML, and the words for each VM that cannot move. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/virt/domain_xml.h"

#define HEAD                                                                                       \
    "<domain type='kvm' "                                                                          \
    "id='3'><name>vm1</name><uuid>6e3b1c1e-0000-4000-8000-000000000001</uuid><devices>"
#define TAIL "</devices></domain>"
#define SYSTEM_DISK                                                                                \
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/>"                           \
    "<source file='/var/lib/libvirt/images/vm1.qcow2' index='1'/><backingStore/>"                  \
    "<target dev='vda' bus='virtio'/><alias name='virtio-disk0'/></disk>"
/* A disk with one part replaced. */
#define DISK(type, device, driver, source, extra)                                                  \
    "<disk type='" type "' device='" device "'>" driver source "<target dev='vdb'/>" extra         \
    "<alias name='virtio-disk1'/></disk>"
#define RAW "<driver type='raw'/>"
#define FILE_SOURCE "<source file='/srv/b &amp; c.raw'/>"

static struct domain_info parse(const char *xml)
{
    struct domain_info info = {0};
    struct error err = {0};
    char line[1024];

    if (domain_xml_parse(xml, &info, &err) < 0)
        fail_msg("%s", error_line(&err, line, sizeof(line)));
    return info;
}

static void expect_refused(const char *xml, int code, const char *words)
{
    struct domain_info info = {.disk_count = 77};
    struct error err = {0};

    assert_int_equal(domain_xml_parse(xml, &info, &err), code);
    if (!strstr(err.why, words))
        fail_msg("'%s' is not in: %s", words, err.why);
    assert_int_equal(info.disk_count, 77); /* untouched */
}

static void test_disks(void **state)
{
    struct domain_info info =
        parse(HEAD SYSTEM_DISK DISK("file", "disk", RAW, FILE_SOURCE, "") TAIL);

    (void)state;
    assert_string_equal(info.name, "vm1");
    assert_string_equal(info.uuid, "6e3b1c1e-0000-4000-8000-000000000001");
    assert_int_equal(info.disk_count, 2);
    assert_string_equal(info.disks[0].target, "vda");
    assert_string_equal(info.disks[0].alias, "drive-virtio-disk0");
    assert_string_equal(info.disks[0].path, "/var/lib/libvirt/images/vm1.qcow2");
    assert_int_equal(info.disks[0].format, DISK_QCOW2);
    assert_int_equal(info.disks[1].format, DISK_RAW);
    assert_string_equal(info.disks[1].path, "/srv/b & c.raw");
    assert_int_equal(info.skipped_count, 0);
}

static void test_empty_drives_are_skipped(void **state)
{
    struct domain_info info = parse(HEAD SYSTEM_DISK DISK("file", "cdrom", RAW, "", "<readonly/>")
                                        DISK("file", "floppy", "", "", "") TAIL);

    (void)state;
    assert_int_equal(info.disk_count, 1);
    assert_int_equal(info.skipped_count, 2);
}

static void test_no_disks(void **state)
{
    struct domain_info info = parse(HEAD "<interface type='network'/>" TAIL);

    (void)state;
    assert_int_equal(info.disk_count, 0);
}

static void test_what_cannot_move(void **state)
{
    (void)state;
    expect_refused(HEAD DISK("block", "disk", RAW, "<source dev='/dev/sdb'/>", "") TAIL, -ENOTSUP,
                   "vdb is not a file");
    expect_refused(HEAD DISK("network", "disk", RAW, "<source protocol='rbd'/>", "") TAIL, -ENOTSUP,
                   "not a file");
    expect_refused(HEAD DISK("file", "disk", "<driver type='vmdk'/>", FILE_SOURCE, "") TAIL,
                   -ENOTSUP, "format");
    expect_refused(HEAD DISK("file", "disk", "", FILE_SOURCE, "") TAIL, -ENOTSUP, "format");
    expect_refused(HEAD DISK("file", "disk", RAW, FILE_SOURCE, "<shareable/>") TAIL, -ENOTSUP,
                   "shareable");
    expect_refused(HEAD DISK("file", "disk", RAW, FILE_SOURCE, "<readonly/>") TAIL, -ENOTSUP,
                   "read-only");
    expect_refused(HEAD DISK("file", "cdrom", RAW, FILE_SOURCE, "<readonly/>") TAIL, -ENOTSUP,
                   "CD-ROM");
    expect_refused(HEAD DISK("network", "cdrom", RAW, "<source protocol='http'/>", "") TAIL,
                   -ENOTSUP, "CD-ROM");
    expect_refused(HEAD DISK("file", "disk", RAW, FILE_SOURCE,
                             "<backingStore type='file'><source file='/base.raw'/></backingStore>")
                       TAIL,
                   -ENOTSUP, "backing file");
    expect_refused(HEAD "<disk type='file' device='disk'>" RAW FILE_SOURCE
                        "<target dev='vdb'/></disk>" TAIL,
                   -ENOTSUP, "not running");
    expect_refused(HEAD SYSTEM_DISK "<hostdev mode='subsystem' type='pci'/>" TAIL, -ENOTSUP,
                   "passed through");
}

static void test_not_a_definition(void **state)
{
    (void)state;
    expect_refused("", -EINVAL, "not well-formed");
    expect_refused("<domain><name>vm1</name>", -EINVAL, "not well-formed");
    expect_refused("<domain/>", -EINVAL, "no name");
    expect_refused("<domain><name>vm1</name><devices/></domain>", -EINVAL, "no name");
    expect_refused("<domain><name>vm1</name><uuid>u</uuid></domain>", -EINVAL, "no name");
}

static void test_too_many_disks(void **state)
{
    static char xml[64 * 1024];

    (void)state;
    strcpy(xml, HEAD);
    for (unsigned i = 0; i < LIMIT_DISKS_PER_MOVE; i++)
        strcat(xml, SYSTEM_DISK);
    strcat(xml, TAIL);
    assert_int_equal(parse(xml).disk_count, LIMIT_DISKS_PER_MOVE);
    xml[strlen(xml) - strlen(TAIL)] = '\0';
    strcat(xml, SYSTEM_DISK TAIL);
    expect_refused(xml, -ENOTSUP, "too many");
}

/* An entity bomb stays small: entities are not expanded without bound. */
static void test_entities(void **state)
{
    static const char bomb[] =
        "<!DOCTYPE d [<!ENTITY a 'aaaaaaaaaaaaaaaa'><!ENTITY b '&a;&a;&a;&a;&a;&a;&a;&a;'>"
        "<!ENTITY c '&b;&b;&b;&b;&b;&b;&b;&b;'>]>"
        "<domain><name>&c;</name><uuid>u</uuid><devices/></domain>";
    struct domain_info info;
    struct error err = {0};

    (void)state;
    if (domain_xml_parse(bomb, &info, &err) == 0)
        assert_true(strlen(info.name) < sizeof(info.name));
}

static void test_formats(void **state)
{
    enum disk_format f;

    (void)state;
    assert_int_equal(disk_format_parse(disk_format_name(DISK_RAW), &f), 0);
    assert_int_equal(f, DISK_RAW);
    assert_int_equal(disk_format_parse(disk_format_name(DISK_QCOW2), &f), 0);
    assert_int_equal(f, DISK_QCOW2);
    assert_int_equal(disk_format_parse("", &f), -EINVAL);
    assert_int_equal(disk_format_parse("RAW", &f), -EINVAL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_disks),
        cmocka_unit_test(test_empty_drives_are_skipped),
        cmocka_unit_test(test_no_disks),
        cmocka_unit_test(test_what_cannot_move),
        cmocka_unit_test(test_not_a_definition),
        cmocka_unit_test(test_too_many_disks),
        cmocka_unit_test(test_entities),
        cmocka_unit_test(test_formats),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
