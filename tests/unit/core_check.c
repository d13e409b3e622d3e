/* SPDX-License-Identifier: Apache-2.0 */
/* What a check says: lines, their order, their way to the peer and back; the VM's XML as it is read for it, and as it
 * is written for the target. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/operations/check.h"
#include "core/virt/domain_rewrite.h"
#include "core/virt/host_room.h"
#include "core/virt/platform_json.h"

static struct check_report report;

static void fail_with(const char *name, int code, const char *why)
{
    struct error err;

    error_set(&err, code, "do it", "mend it", "%s", why);
    check_fail(&report, name, &err);
}

static void test_lines(void **state)
{
    struct check_report there = {0};
    struct error err;
    json_t *json;

    (void)state;
    memset(&report, 0, sizeof(report));
    check_pass(&report, "a", "one %d", 1);
    assert_false(check_first_failure(&report, &err));
    check_warn(&report, "b", NULL, "two");
    check_pass_unless_said(&report, "b", "not this");
    check_pass_unless_said(&report, "c", "but this");
    fail_with("d", -ENOSPC, "first");
    fail_with("e", -EPERM, "second");
    assert_int_equal(report.count, 5);
    assert_true(check_first_failure(&report, &err));
    assert_int_equal(err.code, -ENOSPC);
    assert_string_equal(err.why, "first");
    assert_string_equal(err.mend, "mend it");

    json = check_report_to_json(&report);
    check_report_from_json(json, &there);
    json_decref(json);
    assert_int_equal(there.count, 5);
    assert_string_equal(there.lines[2].text, "but this");
    check_append(&report, &there, "site-b");
    assert_int_equal(report.count, 10);
    assert_string_equal(report.lines[9].site, "site-b");
    assert_int_equal(report.lines[9].code, -EPERM);
}

static void test_a_failure_always_has_room(void **state)
{
    struct error err;

    (void)state;
    memset(&report, 0, sizeof(report));
    for (int i = 0; i < CHECK_LINES_MAX + 5; i++)
        check_pass(&report, "many", "line %d", i);
    assert_int_equal(report.count, CHECK_LINES_MAX);
    fail_with("last", -EIO, "heard");
    assert_true(check_first_failure(&report, &err));
    assert_string_equal(err.why, "heard");
}

/* What a peer says that is not understood is no pass, and cannot write on a terminal. */
static void test_a_peers_lines(void **state)
{
    json_t *json =
        json_loads("[{\"name\": \"x\", \"verdict\": \"splendid\", \"text\": \"a\\u001b[2Jb\","
                   " \"code\": 7}, 5, {\"name\": \"y\", \"verdict\": \"pass\"}]",
                   0, NULL);
    struct error err;

    (void)state;
    check_report_from_json(json, &report);
    json_decref(json);
    assert_int_equal(report.count, 3);
    assert_int_equal(report.lines[0].verdict, CHECK_FAIL);
    assert_string_equal(report.lines[0].text, "a?[2Jb");
    assert_int_equal(report.lines[1].verdict, CHECK_FAIL);
    assert_int_equal(report.lines[2].verdict, CHECK_PASS);
    assert_true(check_first_failure(&report, &err));
    assert_int_equal(err.code, -EIO);
}

/* --- the VM's XML -------------------------------------------------------------------------- */

static const char XML[] =
    "<domain type='kvm' id='3'><name>vm1</name><uuid>6e3b1c1e-0000-4000-8000-000000000001</uuid>"
    "<vcpu placement='static' cpuset='0-1,3'>6</vcpu>"
    "<cputune><vcpupin vcpu='0' cpuset='1,8-11'/><emulatorpin cpuset='0'/></cputune>"
    "<numatune><memory mode='strict' nodeset='0'/><memnode cellid='0' nodeset='0-1'/></numatune>"
    "<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><loader readonly='yes' type='pflash'>"
    "/usr/share/OVMF/OVMF_CODE.fd</loader><kernel>/boot/vmlinuz</kernel></os>"
    "<cpu mode='custom' match='exact'><model>Skylake-Client</model></cpu><devices>"
    "<emulator>/usr/bin/qemu-system-x86_64</emulator>"
    "<disk type='block' device='disk'><source dev='/dev/sdb'/><target dev='vda'/></disk>"
    "<disk type='file' device='disk'><driver type='qcow2'/><source file='/srv/b.qcow2'/>"
    "<target dev='vdb'/><alias name='virtio-disk1'/></disk>"
    "<filesystem type='mount'><source dir='/srv'/></filesystem>"
    "<hostdev mode='subsystem' type='pci'/>"
    "<interface type='network'><source network='lan' bridge='virbr0'/></interface>"
    "<interface type='bridge'><source bridge='br0'/><link state='up'/></interface>"
    "</devices></domain>";

static void test_survey_names_every_fault(void **state)
{
    static struct domain_platform platform;
    struct domain_info info;
    struct error err;

    (void)state;
    memset(&report, 0, sizeof(report));
    assert_int_equal(domain_xml_survey(XML, &info, &platform, &report, &err), 0);
    assert_int_equal(report.count, 3);
    assert_string_equal(report.lines[0].name, "disks");
    assert_non_null(strstr(report.lines[0].text, "vda is not a file"));
    assert_non_null(strstr(report.lines[1].text, "a folder of the host"));
    assert_non_null(strstr(report.lines[2].text, "a device of the host"));
    assert_int_equal(info.disk_count, 1); /* the one that could move */
    assert_string_equal(platform.machine, "pc-q35-7.2");
    assert_non_null(strstr(platform.cpu, "Skylake-Client"));
    assert_false(platform.host_cpu);
    assert_int_equal(platform.network_count, 2);
    assert_string_equal(platform.networks[0].name, "lan");
    assert_string_equal(platform.networks[1].kind, "bridge");
    assert_int_equal(platform.file_count, 3);
    assert_string_equal(platform.files[0].what, "emulator");
    assert_string_equal(platform.files[0].path, "/usr/bin/qemu-system-x86_64");
    assert_string_equal(platform.files[1].what, "firmware");
    assert_string_equal(platform.files[2].path, "/boot/vmlinuz");
    assert_int_equal(platform.vcpus, 6);
    assert_int_equal(platform.pinned_cpus, 12);
    assert_int_equal(platform.pinned_nodes, 2);
}

static void test_devices_that_cannot_move(void **state)
{
    static const struct {
        const char *device, *why;
    } tied[] = {
        {"<tpm model='tpm-tis'><backend type='passthrough'><device "
         "path='/dev/tpm0'/></backend></tpm>",
         "TPM"},
        {"<input type='evdev'><source dev='/dev/input/event1'/></input>", "keyboard"},
        {"<video><model type='virtio'><acceleration accel3d='yes'/></model></video>",
         "graphics card"},
        {"<memory model='nvdimm'><source><path>/srv/nv</path></source></memory>", "NVDIMM"},
        {"<interface type='vhostuser'><source type='unix' path='/run/v'/></interface>",
         "vhost-user"},
        {"</devices><launchSecurity type='sev'/><devices>", "launchSecurity"},
    };
    static const char *const fine[] = {
        "<tpm model='tpm-tis'><backend type='emulator' version='2.0'/></tpm>",
        "<input type='mouse' bus='ps2'/><memory model='dimm'/>",
        "<video><model type='virtio'><acceleration accel3d='no'/></model></video>",
    };
    struct domain_info info;
    struct error err;
    char xml[1024];

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(tied) + ARRAY_SIZE(fine); i++) {
        snprintf(
            xml, sizeof(xml),
            "<domain><name>vm1</name><uuid>6e3b1c1e-0000-4000-8000-000000000001</uuid><devices>%s"
            "</devices></domain>",
            i < ARRAY_SIZE(tied) ? tied[i].device : fine[i - ARRAY_SIZE(tied)]);
        memset(&report, 0, sizeof(report));
        assert_int_equal(domain_xml_survey(xml, &info, NULL, &report, &err), 0);
        assert_int_equal(report.count, i < ARRAY_SIZE(tied) ? 1 : 0);
        if (i < ARRAY_SIZE(tied))
            assert_non_null(strstr(report.lines[0].text, tied[i].why));
    }
}

static void test_platform_crosses_to_the_peer(void **state)
{
    static struct virt_description here;
    static struct virt_host_question there;
    struct domain_info info;
    struct error err;
    json_t *json;

    (void)state;
    memset(&report, 0, sizeof(report));
    assert_int_equal(domain_xml_survey(XML, &info, &here.platform, &report, &err), 0);
    here.qemu_version = 7002022;
    here.memory_bytes = UINT64_C(8) << 30;
    json = platform_to_json(&here);
    assert_int_equal(platform_from_json(json, &there), 0);
    assert_memory_equal(&there.platform, &here.platform, sizeof(there.platform));
    assert_int_equal(there.qemu_version, 7002022);
    assert_int_equal(there.memory_bytes, UINT64_C(8) << 30);
    json_object_set_new(json_array_get(json_object_get(json, "files"), 0), "path",
                        json_string("../etc/shadow"));
    assert_int_equal(platform_from_json(json, &there), -EPROTO);
    json_object_del(json, "files"); /* as of an older ferry */
    assert_int_equal(platform_from_json(json, &there), 0);
    assert_int_equal(there.platform.file_count, 0);
    json_object_set_new(json, "machine", json_string("pc\x1b"));
    assert_int_equal(platform_from_json(json, &there), -EPROTO);
    json_object_del(json, "machine");
    assert_int_equal(platform_from_json(json, &there), -EPROTO);
    json_decref(json);
    assert_int_equal(platform_from_json(NULL, &there), 0); /* an older ferry says nothing */
}

static void test_a_host_that_is_too_small(void **state)
{
    static const struct host_room roomy = {.cpus = 16,
                                           .nodes = 2,
                                           .free_bytes = UINT64_C(64) << 30},
                                  small = {.cpus = 4, .nodes = 1, .free_bytes = UINT64_C(1) << 30},
                                  unknown = {0};
    static struct domain_platform platform;
    struct domain_info info;
    struct error err;

    (void)state;
    memset(&report, 0, sizeof(report));
    domain_xml_survey(XML, &info, &platform, &report, &err);
    memset(&report, 0, sizeof(report));
    host_room_check(&roomy, &platform, UINT64_C(8) << 30, &report);
    assert_int_equal(report.count, 2);
    assert_int_equal(report.lines[0].verdict, CHECK_PASS);
    assert_int_equal(report.lines[1].verdict, CHECK_PASS);

    memset(&report, 0, sizeof(report));
    host_room_check(&unknown, &platform, UINT64_C(8) << 30, &report);
    assert_int_equal(report.count, 0);

    host_room_check(&small, &platform, UINT64_C(8) << 30, &report);
    assert_int_equal(report.count, 4);
    assert_int_equal(report.lines[0].verdict, CHECK_FAIL);
    assert_non_null(strstr(report.lines[0].text, "pinned to processor 11, and the host has 4"));
    assert_int_equal(report.lines[1].verdict, CHECK_FAIL);
    assert_non_null(strstr(report.lines[1].text, "memory node 1"));
    assert_int_equal(report.lines[2].verdict, CHECK_WARN);
    assert_non_null(strstr(report.lines[2].text, "it has 6, and the host 4"));
    assert_int_equal(report.lines[3].verdict, CHECK_WARN);
    assert_non_null(strstr(report.lines[3].text, "8192 MiB, and 1024 MiB"));
}

static void test_networks_get_their_names_there(void **state)
{
    struct domain_rewrite w = {.networks = {.list = {{"lan", "lan-b"}}, .count = 1}};
    static struct domain_platform platform;
    struct domain_info info;
    struct error err;
    char *xml;

    (void)state;
    memset(&report, 0, sizeof(report));
    domain_xml_survey(XML, &info, &platform, &report, &err);
    assert_true(domain_rewrite_needed(&w, &platform));
    domain_platform_translate(&platform, &w.networks);
    assert_string_equal(platform.networks[0].name, "lan-b");
    assert_false(domain_rewrite_needed(&w, &platform)); /* nothing is called that any more */
    assert_int_equal(domain_rewrite(XML, &w, &xml, &err), 0);
    assert_non_null(strstr(xml, "network=\"lan-b\""));
    assert_null(strstr(xml, "virbr0")); /* the managed network's own bridge, here */
    assert_non_null(strstr(xml, "bridge=\"br0\""));
    free(xml);
    assert_true(domain_rewrite("<domain>", &w, &xml, &err) < 0);
}

static void test_a_clone_is_isolated_and_marked(void **state)
{
    struct domain_rewrite w = {.drill = true, .move_id = "0123abcd"};
    struct error err;
    char *xml;

    (void)state;
    assert_int_equal(domain_rewrite(XML, &w, &xml, &err), 0);
    assert_int_equal(domain_check_clone(xml, "0123abcd", "", &err), 0);
    assert_int_equal(domain_check_clone(xml, "0123abce", "", &err), -EPERM); /* another drill's */
    free(xml);
    assert_int_equal(domain_check_clone(XML, "0123abcd", "", &err), -EPERM); /* the VM itself */

    strcpy(w.drill_network, "quiet");
    assert_int_equal(domain_rewrite(XML, &w, &xml, &err), 0);
    assert_int_equal(domain_check_clone(xml, "0123abcd", "quiet", &err), 0);
    assert_int_equal(domain_check_clone(xml, "0123abcd", "", &err), -EPERM); /* a link is up */
    assert_int_equal(domain_check_clone(xml, "0123abcd", "other", &err), -EPERM);
    assert_null(strstr(xml, "br0"));
    free(xml);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_a_failure_always_has_room),
        cmocka_unit_test(test_a_peers_lines),
        cmocka_unit_test(test_survey_names_every_fault),
        cmocka_unit_test(test_devices_that_cannot_move),
        cmocka_unit_test(test_platform_crosses_to_the_peer),
        cmocka_unit_test(test_a_host_that_is_too_small),
        cmocka_unit_test(test_networks_get_their_names_there),
        cmocka_unit_test(test_a_clone_is_isolated_and_marked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
