/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration: a minimal file gives the defaults, and everything broken is named. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/base/clock.h"
#include "core/config.h"
#include "tests/unit/config_text.h"

#define FINGERPRINT_A "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

static void expect_refused(const char *text, const char *word)
{
    struct config *c = NULL;
    struct error err;

    if (load(text, &c, &err) >= 0)
        fail_msg("taken: %s", text);
    assert_null(c);
    if (!strstr(err.why, word))
        fail_msg("'%s' is not named in: %s", word, err.why);
    assert_non_null(strstr(err.why, "/tmp/ferry-config-")); /* which file */
}

static void test_defaults(void **state)
{
    struct config *c = load_good("[site]\nname = site-a\n");

    (void)state;
    assert_string_equal(c->name, "site-a");
    assert_string_equal(c->listen, "*:7077");
    assert_string_equal(c->state_dir, "/var/lib/ferry");
    assert_string_equal(c->libvirt_uri, "qemu:///system");
    assert_int_equal(c->log_level, LOG_LEVEL_INFO);
    assert_string_equal(c->status_page, "");
    assert_int_equal(c->link.stripes, 4);
    assert_int_equal(c->directory_count, 1);
    assert_string_equal(c->directories[0], "/var/lib/libvirt/images");
    assert_int_equal(c->old_disks, OLD_DISKS_KEEP);
    assert_int_equal(c->peer_count, 0);
    assert_null(config_peer_by_name(c, "site-b"));
    config_free(c);
    config_free(NULL);
}

static void test_all_settings(void **state)
{
    struct config *c = load_good(
        "; a comment\n"
        "[site]\nname = a.b-c_1\nlisten = [::1]:99\nstate_dir = /s\nrun_dir = /r\n"
        "socket_dir = /k\nlog_level = debug\nstatus_page = [::1]:7078\n"
        "[tls]\nkey = /t/key\ncertificate = /t/cert\nca = /t/ca\ncrl = /t/crl\n"
        "[libvirt]\nuri = test:///default\nsocket = /l\nqemu_user = root\nmonitor = no\n"
        "[link]\nstripes = 16\nwindow = 64M\nsocket_buffer = 0\ncongestion_control = cubic\n"
        "stripe_timeout_s = 2\noutage_limit_s = 86400\n"
        "[storage]\ndirectories = /a /b  /c\nlog_memory = 1G\nstall_limit_s = 3\nspool = "
        "/s\nspool_size = 2G\nold_disks = "
        "remove\n"
        "[memory]\ndowntime_ms = 50\nswitchover_deadline_s = 5\ncodec = no\npage_store = 64M\n"
        "disk_index = 0\n"
        "converge = auto-converge\nstun_actuator = cgroup\nstun_max_percent = 50\ndowntime_max_ms "
        "= 900\n"
        "[peer b]\naddress = b.example:7077\nfingerprint = " FINGERPRINT_A "\n"
        "allow = move-here, drill direct-memory\nmemory_address = fd00::2\nnetworks = lan:lan-b, "
        "br0:br1\ndrill_network = quiet\n"
        "[drill]\ncommands = /d\ntimeout_s = 7\n"
        "[peer c]\ncertificate_name = c.example\n");

    (void)state;
    assert_string_equal(c->listen, "[::1]:99");
    assert_string_equal(c->key, "/t/key");
    assert_false(c->monitor);
    assert_int_equal(c->link.stripes, 16);
    assert_int_equal(c->link.window_bytes, 64 << 20);
    assert_int_equal(c->link.socket_buffer_bytes, 0);
    assert_int_equal(c->link.outage_limit_ns, 86400 * NS_PER_S);
    assert_int_equal(c->directory_count, 3);
    assert_string_equal(c->directories[2], "/c");
    assert_int_equal(c->log_memory_bytes, 1 << 30);
    assert_int_equal(c->stall_limit_s, 3);
    assert_string_equal(c->spool_dir, "/s");
    assert_int_equal(c->spool_bytes, UINT64_C(2) << 30);
    assert_int_equal(c->old_disks, OLD_DISKS_REMOVE);
    assert_int_equal(c->policies.service.value[POLICY_DOWNTIME_MS], 50);
    assert_false(c->codec);
    assert_int_equal(c->policies.service.value[POLICY_CONVERGE], CONVERGE_AUTO_CONVERGE);
    assert_int_equal(c->policies.service.value[POLICY_STUN_MAX_PERCENT], 50);
    assert_string_equal(c->status_page, "[::1]:7078");
    assert_int_equal(c->stun_actuator, STUN_ACTUATOR_CGROUP);
    assert_int_equal(c->policies.service.value[POLICY_DOWNTIME_MAX_MS], 900);
    assert_int_equal(c->page_store_bytes, 64 << 20);
    assert_int_equal(c->disk_index_bytes, 0);
    assert_int_equal(c->peer_count, 2);
    assert_string_equal(c->ca, "/t/ca");
    assert_string_equal(config_peer_by_name(c, "b")->link.fingerprint, FINGERPRINT_A);
    assert_string_equal(config_peer_by_name(c, "c")->link.certificate_name, "c.example");
    assert_int_equal(config_peer_by_name(c, "b")->permissions,
                     PEER_MAY_MOVE_HERE | PEER_MAY_DRILL | PEER_MAY_DIRECT_MEMORY);
    assert_string_equal(config_peer_by_name(c, "b")->memory_address, "fd00::2");
    assert_int_equal(config_peer_by_name(c, "b")->networks.count, 2);
    assert_string_equal(config_peer_by_name(c, "b")->networks.list[1].there, "br1");
    assert_string_equal(config_peer_by_name(c, "b")->drill_network, "quiet");
    assert_string_equal(c->drill_commands, "/d");
    assert_int_equal(c->drill_timeout_s, 7);
    assert_int_equal(config_peer_by_name(c, "c")->permissions, 0); /* nothing unless it is said */
    config_free(c);
}

static void test_broken_things_are_named(void **state)
{
    static const char *const values[][2] = {
        {"[site]\nname = a\ncolour = red\n", "colour"},
        {"[site]\nname = a\n[colours]\nred = 1\n", "colours"},
        {"[site]\nname = a b\n", "name"},
        {"[site]\nname = .a\n", "name"},
        {"[site]\nname = ../a\n", "name"},
        {"[site]\nname = a\nstate_dir = var/lib\n", "state_dir"},
        {"[site]\nname = a\nlog_level = loud\n", "log_level"},
        {"[tls]\nkey = key.pem\n", "key"},
        {"[libvirt]\nmonitor = maybe\n", "monitor"},
        {"[link]\nstripes = 0\n", "stripes"},
        {"[link]\nstripes = 17\n", "stripes"},
        {"[link]\nstripes = many\n", "stripes"},
        {"[link]\nstripes = -1\n", "stripes"},
        {"[link]\nstripes = 4x\n", "stripes"},
        {"[link]\nstripes = \n", "stripes"},
        {"[link]\nwindow = 2G\n", "window"},
        {"[link]\nwindow = 1K\n", "window"},
        {"[link]\ncongestion_control = something-far-too-long\n", "congestion_control"},
        {"[link]\nstripe_timeout_s = 1\n", "stripe_timeout_s"},
        {"[link]\noutage_limit_s = 99999999999999999999\n", "outage_limit_s"},
        {"[storage]\ndirectories = images\n", "directories"},
        {"[storage]\ndirectories =\n", "directories"},
        {"[storage]\nlog_memory = 1M\n", "log_memory"},
        {"[storage]\nstall_limit_s = 0\n", "stall_limit_s"},
        {"[storage]\nspool = spool\n", "spool"},
        {"[storage]\nspool_size = 1M\n", "spool_size"},
        {"[storage]\nold_disks = burn\n", "old_disks"},
        {"[memory]\ndowntime_ms = 0\n", "downtime_ms"},
        {"[memory]\ncodec = perhaps\n", "codec"},
        {"[memory]\nconverge = maybe\n", "converge"},
        {"[memory]\nstun_actuator = none\n", "stun_actuator"},
        {"[memory]\nstun_max_percent = 100\n", "stun_max_percent"},
        {"[site]\nstatus_page = 0.0.0.0:7078\n", "status_page"},
        {"[site]\nstatus_page = 127.0.0.1:0\n", "status_page"},
        {"[site]\nstatus_page = 127.0.0.1:7078x\n", "status_page"},
        {"[site]\nstatus_page = [::1]7078\n", "status_page"},
        {"[memory]\npage_store = 2T\n", "page_store"},
        {"[memory]\ndisk_index = 32G\n", "disk_index"},
        {"[peer b]\nfingerprint = sha256:12\n", "fingerprint"},
        {"[peer b]\nallow = everything\n", "allow"},
        {"[peer b]\nmemory_address = b/c\n", "memory_address"},
        {"[peer b]\nmemory_address =\n", "memory_address"},
        {"[peer b]\nnetworks = lan\n", "networks"},
        {"[peer b]\nnetworks = :lan\n", "networks"},
        {"[peer b]\nnetworks = lan:\n", "networks"},
        {"[drill]\ncommands = relative\n", "commands"},
        {"[drill]\ntimeout_s = 0\n", "timeout_s"},
        {"[peer ]\naddress = b:1\n", "address"},
        {"[peer b]\ncolour = red\n", "colour"},
        {"[site]\nname = a\n[peer b]\naddress = b:1\n", "peer b"},
        {"[site]\nname = a\n[peer a]\nfingerprint = " FINGERPRINT_A "\n", "peer a"},
        {"[site]\nname = a\n[peer b]\nfingerprint = " FINGERPRINT_A
         "\n[peer c]\nfingerprint = " FINGERPRINT_A "\n",
         "peer c"},
        {"[tls]\nca = ca.pem\n", "ca"},
        {"[site]\nname = a\n[tls]\ncrl = /crl\n", "crl"},
        {"[peer b]\ncertificate_name = *.example\n", "certificate_name"},
        {"[site]\nname = a\n[peer b]\ncertificate_name = b.example\n", "no ca"},
        {"[site]\nname = a\n[tls]\nca = /ca\n[peer b]\ncertificate_name = b.example\n"
         "[peer c]\ncertificate_name = B.example\n",
         "peer c"},
        {"[site]\nname = a\nnonsense\n", "line 3"},
        {"[link]\nstripes = 4\n", "no name"},
        {"", "no name"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++)
        expect_refused(values[i][0], values[i][1]);
}

static void test_missing_file(void **state)
{
    struct config *c = NULL;
    struct error err = {0};

    (void)state;
    assert_int_equal(config_load("/nonexistent/ferry.conf", &c, &err), -ENOENT);
    assert_non_null(strstr(err.why, "/nonexistent/ferry.conf: No such file"));
    assert_null(c);
}

/* A line longer than the INI reader takes must not lose its end silently. */
static void test_long_lines(void **state)
{
    char text[2000] = "[site]\nname = a\n[storage]\ndirectories =";

    (void)state;
    for (int i = 0; i < 12; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 " /srv/some/place/for/images/number-%02d", i);
    strcat(text, "\n");
    expect_refused(text, "line 4 is longer");
}

static void test_bytes(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } good[] = {
        {"0", 0},     {"4096", 4096}, {"200M", 200u << 20},       {"1.5G", UINT64_C(3) << 29},
        {"1k", 1024}, {"2KiB", 2048}, {"1TB", UINT64_C(1) << 40}, {"7b", 7}};
    static const char *const bad[] = {"",    "M",   "-1",   "1X",   "1MM", "1Mi",
                                      "nan", "inf", "1e30", "12 M", "0x"};
    uint64_t n;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_int_equal(config_parse_bytes(good[i].text, &n), 0);
        assert_int_equal(n, good[i].bytes);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        if (config_parse_bytes(bad[i], &n) != -EINVAL)
            fail_msg("taken: '%s'", bad[i]);
    }
}

static void test_too_many_peers(void **state)
{
    char text[64 * 1024] = "[site]\nname = a\n";

    (void)state;
    for (int i = 0; i <= CONFIG_PEERS_MAX; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text),
                 "[peer p%d]\nfingerprint = sha256:%064d\n", i, i);
    expect_refused(text, "p64");
}

static void test_witness(void **state)
{
    struct config *c = load_good("[site]\nname = a\n");

    (void)state;
    assert_int_equal(c->witness.endpoint_count, 0);
    config_free(c);
    c = load_good("[site]\nname = a\n[witness]\nendpoints = http://w1:2379 https://[fd00::1]:2379\n"
                  "ca = /etc/ca.pem\ncertificate = /etc/c.pem\nkey = /etc/k.pem\n"
                  "timeout_ms = 500\n");
    assert_int_equal(c->witness.endpoint_count, 2);
    assert_string_equal(c->witness.endpoints[1], "https://[fd00::1]:2379");
    assert_string_equal(c->witness.ca, "/etc/ca.pem");
    assert_int_equal(c->witness.timeout_ms, 500);
    config_free(c);
    expect_refused("[site]\nname = a\n[witness]\nendpoints = w1:2379\n", "endpoints");
    expect_refused("[site]\nname = a\n[witness]\nendpoints = http://w1:2379/\n", "endpoints");
    expect_refused("[site]\nname = a\n[witness]\nendpoints =\n", "endpoints");
    expect_refused(
        "[site]\nname = a\n[witness]\nendpoints = http://a http://b http://c http://d http://e "
        "http://f http://g http://h http://i http://j\n",
        "endpoints");
    expect_refused("[site]\nname = a\n[witness]\ntimeout_ms = 5\n", "timeout_ms");
    expect_refused("[site]\nname = a\n[witness]\nca = relative.pem\n", "ca");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_all_settings),
        cmocka_unit_test(test_broken_things_are_named),
        cmocka_unit_test(test_missing_file),
        cmocka_unit_test(test_long_lines),
        cmocka_unit_test(test_bytes),
        cmocka_unit_test(test_too_many_peers),
        cmocka_unit_test(test_witness),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
