/* SPDX-License-Identifier: Apache-2.0 */
/* Policies: what is said where, what is inherited from where, what is refused, and what is settled. */
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

#include "core/base/macros.h"
#include "core/config.h"
#include "core/policy/policy_json.h"
#include "core/policy/policy_metadata.h"
#include "core/policy/policy_settle.h"
#include "tests/unit/config_text.h"

#define SITE "[site]\nname = a\n"

static void say(struct policy_choices *c, const char *key, const char *value)
{
    if (policy_choices_set(c, key, value) != 1)
        fail_msg("%s = %s", key, value);
}

/* --- where a value comes from -------------------------------------------------------------- */

/* A case of inheritance: what is said where, and which value of downtime_max_ms holds by whom. */
static const struct inheritance {
    const char *conf;
    const char *metadata[2], *request[2]; /* key, value; NULL: nothing */
    uint64_t value;
    const char *from, *chosen_by, *policy;
} cases[] = {
    /* Nobody says anything. */
    {"", {0}, {0}, 500, "default", "default", "wan"},
    /* One level says it. */
    {"[service]\ndowntime_max_ms = 1\n", {0}, {0}, 1, "service", "default", "wan"},
    {"[memory]\ndowntime_max_ms = 1\n", {0}, {0}, 1, "service", "default", "wan"},
    {"[group g]\nvms = vm?\ndowntime_max_ms = 2\n", {0}, {0}, 2, "group g", "default", "wan"},
    {"", {"downtime_max_ms", "3"}, {0}, 3, "vm metadata", "default", "wan"},
    {"[vm vm1]\ndowntime_max_ms = 4\n", {0}, {0}, 4, "vm", "default", "wan"},
    {"", {0}, {"downtime_max_ms", "5"}, 5, "request", "default", "wan"},
    {"[policy wan]\ndowntime_max_ms = 6\n", {0}, {0}, 6, "policy wan (default)", "default", "wan"},
    /* The nearer level wins. */
    {"[service]\ndowntime_max_ms = 1\n[group g]\nvms = vm1\ndowntime_max_ms = 2\n",
     {0},
     {0},
     2,
     "group g",
     "default",
     "wan"},
    {"[group g]\nvms = vm1\ndowntime_max_ms = 2\n",
     {"downtime_max_ms", "3"},
     {0},
     3,
     "vm metadata",
     "default",
     "wan"},
    {"[vm vm1]\ndowntime_max_ms = 4\n", {"downtime_max_ms", "3"}, {0}, 4, "vm", "default", "wan"},
    {"[vm vm1]\ndowntime_max_ms = 4\n",
     {0},
     {"downtime_max_ms", "5"},
     5,
     "request",
     "default",
     "wan"},
    {"[policy wan]\ndowntime_max_ms = 6\n[service]\ndowntime_max_ms = 1\n",
     {0},
     {0},
     1,
     "service",
     "default",
     "wan"},
    /* inherit says nothing, and unsays what stood before it. */
    {"[service]\ndowntime_max_ms = 1\n[group g]\nvms = vm1\ndowntime_max_ms = inherit\n",
     {0},
     {0},
     1,
     "service",
     "default",
     "wan"},
    {"[service]\ndowntime_max_ms = 1\n[vm vm1]\ndowntime_max_ms = 4\ndowntime_max_ms = inherit\n",
     {0},
     {0},
     1,
     "service",
     "default",
     "wan"},
    {"[service]\ndowntime_max_ms = 1\n",
     {"downtime_max_ms", "inherit"},
     {"downtime_max_ms", "inherit"},
     1,
     "service",
     "default",
     "wan"},
    /* A policy counts at the level that names it: below what that level says, above what is further away. */
    {"[service]\npolicy = minimal-downtime\n",
     {0},
     {0},
     300,
     "policy minimal-downtime (service)",
     "service",
     "minimal-downtime"},
    {"[service]\npolicy = minimal-downtime\ndowntime_max_ms = 1\n",
     {0},
     {0},
     1,
     "service",
     "service",
     "minimal-downtime"},
    {"[service]\ndowntime_max_ms = 1\n[group g]\nvms = vm1\npolicy = minimal-downtime\n",
     {0},
     {0},
     300,
     "policy minimal-downtime (group g)",
     "group g",
     "minimal-downtime"},
    {"[group g]\nvms = vm1\ndowntime_max_ms = 2\n",
     {"policy", "minimal-downtime"},
     {0},
     300,
     "policy minimal-downtime (vm metadata)",
     "vm metadata",
     "minimal-downtime"},
    {"[group g]\nvms = vm1\npolicy = minimal-downtime\n[vm vm1]\ndowntime_max_ms = 4\n",
     {0},
     {0},
     4,
     "vm",
     "group g",
     "minimal-downtime"},
    {"[vm vm1]\npolicy = very-large\n",
     {"policy", "minimal-downtime"},
     {0},
     2000,
     "policy very-large (vm)",
     "vm",
     "very-large"},
    {"[vm vm1]\ndowntime_max_ms = 4\n",
     {0},
     {"policy", "minimal-downtime"},
     300,
     "policy minimal-downtime (request)",
     "request",
     "minimal-downtime"},
    /* What the policy in force does not say is inherited as if it were not there; other policies do not count. */
    {"[service]\ndowntime_max_ms = 1\n", {0}, {"policy", "wan"}, 1, "service", "request", "wan"},
    {"[service]\npolicy = minimal-downtime\n",
     {0},
     {"policy", "wan"},
     500,
     "default",
     "request",
     "wan"},
    {"[service]\npolicy = minimal-downtime\n[group g]\nvms = vm1\npolicy = inherit\n",
     {0},
     {0},
     300,
     "policy minimal-downtime (service)",
     "service",
     "minimal-downtime"},
    /* Policies of one's own, and what they are based on. */
    {"[policy mine]\ndowntime_max_ms = 7\n[service]\npolicy = mine\n",
     {0},
     {0},
     7,
     "policy mine (service)",
     "service",
     "mine"},
    {"[policy mine]\nbased_on = minimal-downtime\n[service]\npolicy = mine\n",
     {0},
     {0},
     300,
     "policy mine (service)",
     "service",
     "mine"},
    {"[policy mine]\nbased_on = minimal-downtime\ndowntime_max_ms = inherit\n[service]\npolicy = "
     "mine\n",
     {0},
     {0},
     300,
     "policy mine (service)",
     "service",
     "mine"},
    {"[policy one]\nbased_on = two\n[policy two]\nbased_on = very-large\n[service]\npolicy = one\n",
     {0},
     {0},
     2000,
     "policy one (service)",
     "service",
     "one"},
    {"[policy minimal-downtime]\nstun_max_percent = 50\n[service]\npolicy = minimal-downtime\n",
     {0},
     {0},
     300,
     "policy minimal-downtime (service)",
     "service",
     "minimal-downtime"},
    {"[policy minimal-downtime]\nbased_on = minimal-downtime\ndowntime_max_ms = 8\n"
     "[service]\npolicy = minimal-downtime\n",
     {0},
     {0},
     8,
     "policy minimal-downtime (service)",
     "service",
     "minimal-downtime"},
    {"[policy minimal-downtime]\nbased_on = wan\n[service]\npolicy = minimal-downtime\n",
     {0},
     {0},
     500,
     "default",
     "service",
     "minimal-downtime"},
    /* Of groups the first that fits; a VM in none has none. */
    {"[group g]\nvms = web-*, vm[0-3]\ndowntime_max_ms = 2\n[group h]\nvms = *\ndowntime_max_ms = "
     "9\n",
     {0},
     {0},
     2,
     "group g",
     "default",
     "wan"},
    {"[group g]\nvms = web-* db-?\ndowntime_max_ms = 2\n",
     {0},
     {0},
     500,
     "default",
     "default",
     "wan"},
    {"[vm vm2]\ndowntime_max_ms = 2\n", {0}, {0}, 500, "default", "default", "wan"},
};

static void test_inheritance(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        const struct inheritance *t = &cases[i];
        struct policy_choices metadata = {0}, request = {0};
        char text[1024], from[256], by[256];
        struct error err = {0};
        struct config *c;
        struct policy p;

        snprintf(text, sizeof(text), SITE "%s", t->conf);
        c = load_good(text);
        if (t->metadata[0])
            say(&metadata, t->metadata[0], t->metadata[1]);
        if (t->request[0])
            say(&request, t->request[0], t->request[1]);
        assert_int_equal(policy_resolve(&c->policies, "vm1", &metadata, &request, &p, &err), 0);
        policy_origin(&p, POLICY_DOWNTIME_MAX_MS, from, sizeof(from));
        policy_chosen_by(&p, by, sizeof(by));
        if (policy_get(&p, POLICY_DOWNTIME_MAX_MS) != t->value || strcmp(from, t->from) != 0 ||
            strcmp(by, t->chosen_by) != 0 || strcmp(p.name, t->policy) != 0)
            fail_msg("case %zu: %llu from %s, policy %s by %s", i,
                     (unsigned long long)policy_get(&p, POLICY_DOWNTIME_MAX_MS), from, p.name, by);
        config_free(c);
    }
}

static void test_nobody_else(void **state)
{
    struct config *c = load_good(SITE "[group g]\nvms = vm1\nhold = yes\n");
    struct error err = {0};
    struct policy p;

    (void)state;
    assert_int_equal(policy_resolve(&c->policies, "vm1", NULL, NULL, &p, &err), 0);
    assert_string_equal(p.group, "g");
    assert_int_equal(policy_get(&p, POLICY_HOLD), 1);
    assert_int_equal(policy_resolve(&c->policies, "vm2", NULL, NULL, &p, &err), 0);
    assert_string_equal(p.group, "");
    assert_int_equal(policy_get(&p, POLICY_HOLD), 0);
    config_free(c);
}

static void test_unknown_policies(void **state)
{
    struct config *c = load_good(SITE);
    struct policy_choices choices = {.policy = "none-such"};
    struct error err = {0};
    struct policy p;

    (void)state;
    assert_int_equal(policy_resolve(&c->policies, "vm1", NULL, &choices, &p, &err), -ENOENT);
    assert_non_null(strstr(err.why, "none-such"));
    assert_non_null(strstr(err.why, "request"));
    assert_int_equal(policy_resolve(&c->policies, "vm1", &choices, NULL, &p, &err), -ENOENT);
    assert_non_null(strstr(err.why, "metadata"));
    config_free(c);
}

/* --- what may be written ------------------------------------------------------------------- */

static void test_values(void **state)
{
    static const struct {
        const char *key, *good, *shown, *bad[4];
    } values[] = {
        {"converge", "auto-converge", "auto-converge", {"maybe", "", "Stun"}},
        {"stun_max_percent", "50", "50", {"0", "100", "-1", "5x"}},
        {"resend_percent", "100", "100", {"9", "10001", "all"}},
        {"auto_converge_initial", "99", "99", {"0", "100", "1.5", " 5"}},
        {"auto_converge_increment", "1", "1", {"0", "100", "+5", ""}},
        {"compression", "xbzrle", "xbzrle", {"zlib", "yes"}},
        {"xbzrle_cache", "131072K", "128M", {"1K", "100M", "2T", "much"}},
        {"downtime_ms", "30", "30", {"0", "60001"}},
        {"downtime_max_ms", "60000", "60000", {"0", "99999999999999999999"}},
        {"downtime_double_s", "0", "0", {"86401", "-1"}},
        {"downtime_last_ms", "2000", "2000", {"0", "x"}},
        {"time_limit_s", "600", "600", {"604801", "10m"}},
        {"at_time_limit", "post-copy", "post-copy", {"resume", "postcopy", ""}},
        {"post_copy", "after-first-pass", "after-first-pass", {"yes", "after", ""}},
        {"post_copy_after_s", "30", "30", {"0", "86401", "30s"}},
        {"write_slack_ms", "2", "2", {"10001", "-1", "2ms"}},
        {"bwlimit", "25MB", "200M", {"fast", "-5M"}},
        {"priority", "9", "9", {"10", "-1", "high"}},
        {"hold", "true", "yes", {"maybe", "2"}},
        {"memory_path", "direct", "direct", {"tunel"}},
        {"parallel", "auto", "auto", {"0", "65", "yes"}},
        {"zero_copy", "no", "no", {"never"}},
    };
    char buf[POLICY_TEXT_BYTES];

    (void)state;
    assert_int_equal(ARRAY_SIZE(values), POLICY_SETTINGS);
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct policy_choices c = {0};
        int s = policy_setting_find(values[i].key);

        assert_true(s >= 0);
        assert_string_equal(policy_setting_name((enum policy_setting)s), values[i].key);
        say(&c, values[i].key, values[i].good);
        assert_true(policy_choices_has(&c, (enum policy_setting)s));
        assert_string_equal(
            policy_setting_format((enum policy_setting)s, c.value[s], buf, sizeof(buf)),
            values[i].shown);
        /* What is shown can be written; so can the default. */
        say(&c, values[i].key, buf);
        policy_setting_format((enum policy_setting)s,
                              policy_setting_default((enum policy_setting)s), buf, sizeof(buf));
        say(&c, values[i].key, buf);
        assert_int_equal(c.value[s], policy_setting_default((enum policy_setting)s));
        for (size_t b = 0; b < ARRAY_SIZE(values[i].bad) && values[i].bad[b]; b++) {
            if (policy_choices_set(&c, values[i].key, values[i].bad[b]) != 0)
                fail_msg("taken: %s = '%s'", values[i].key, values[i].bad[b]);
        }
        say(&c, values[i].key, "inherit");
        assert_false(policy_choices_has(&c, (enum policy_setting)s));
    }
    assert_int_equal(policy_choices_set(&(struct policy_choices){0}, "colour", "red"), -1);
}

static void test_broken_sections_are_named(void **state)
{
    static const char *const values[][2] = {
        {"[policy p]\nconverge = maybe\n", "'converge' in [policy p]"},
        {"[policy p]\ncolour = red\n", "'colour' in [policy p]"},
        {"[policy p]\npolicy = wan\n", "'policy' in [policy p]"},
        {"[policy p]\nbased_on = none-such\n", "[policy p]: there is no policy 'none-such'"},
        {"[policy p]\nbased_on = p\n", "there is no shipped policy 'p'"},
        {"[policy p]\nbased_on = q\n[policy q]\nbased_on = p\n", "[policy p] leads in a circle"},
        {"[policy p]\nbased_on = a b\n", "'based_on' in [policy p]"},
        {"[policy p]\nmeaning =\n", "'meaning' in [policy p]"},
        {"[policy inherit]\nhold = yes\n", "[policy inherit]"},
        {"[policy a/b]\nhold = yes\n", "[policy a/b]"},
        {"[service]\nhold = perhaps\n", "'hold' in [service]"},
        {"[service]\nvms = *\n", "'vms' in [service]"},
        {"[service]\npolicy = none-such\n", "policy in [service]: there is no policy 'none-such'"},
        {"[group g]\nvms = *\npolicy = none-such\n", "policy in [group g]: there is no policy"},
        {"[group g]\npriority = 3\n", "[group g] has no vms"},
        {"[group g]\nvms =\n", "'vms' in [group g]"},
        {"[group g]\nvms = *\npriority = 11\n", "'priority' in [group g]"},
        {"[vm v]\npolicy = none such\n", "'policy' in [vm v]"},
        {"[vm v]\npolicy = none-such\n", "policy in [vm v]: there is no policy"},
        {"[vm v]\nbwlimit = fast\n", "'bwlimit' in [vm v]"},
        {"[vm ]\nhold = yes\n", "'hold' in [vm"},
        {"[memory]\nstun_max_percent = 100\n", "'stun_max_percent' in [memory]"},
        {"[memory]\ncompression = xbzrle\n", "'compression' in [memory]"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(values); i++) {
        struct config *c = NULL;
        struct error err;
        char text[512];

        snprintf(text, sizeof(text), SITE "%s", values[i][0]);
        if (load(text, &c, &err) >= 0)
            fail_msg("taken: %s", values[i][0]);
        if (!strstr(err.why, values[i][1]))
            fail_msg("'%s' is not named in: %s", values[i][1], err.why);
    }
}

static void test_mend_says_what_may_be(void **state)
{
    struct config *c = NULL;
    struct error err;

    (void)state;
    assert_true(load(SITE "[service]\ncompression = zip\n", &c, &err) < 0);
    assert_non_null(strstr(err.mend, "ferry, xbzrle or none"));
    assert_true(load(SITE "[vm v]\nstun_max_percent = 0\n", &c, &err) < 0);
    assert_non_null(strstr(err.mend, "1 to 99"));
}

static void test_too_many(void **state)
{
    static const struct {
        const char *section;
        int most;
    } kinds[] = {{"policy", POLICIES_MAX}, {"group", POLICY_GROUPS_MAX}, {"vm", POLICY_VMS_MAX}};
    static char text[64 * 1024];

    (void)state;
    for (size_t k = 0; k < ARRAY_SIZE(kinds); k++) {
        struct config *c = NULL;
        struct error err;
        char last[64];

        strcpy(text, SITE);
        for (int i = 0; i <= kinds[k].most; i++)
            snprintf(text + strlen(text), sizeof(text) - strlen(text), "[%s n%d]\npriority = 3\n%s",
                     kinds[k].section, i, k == 1 ? "vms = *\n" : "");
        assert_true(load(text, &c, &err) < 0);
        snprintf(last, sizeof(last), "[%s n%d]", kinds[k].section, kinds[k].most);
        assert_non_null(strstr(err.why, last));
    }
}

static void test_list(void **state)
{
    static const char *const names[] = {"wan",       "minimal-downtime", "suspend-if-needed",
                                        "post-copy", "very-large",       "lan-direct",
                                        "mine"};
    struct config *c =
        load_good(SITE "[policy wan]\nmeaning = ours\n[policy mine]\nbased_on = lan-direct\n");
    uint64_t value = 0;

    (void)state;
    for (unsigned i = 0; i < ARRAY_SIZE(names); i++)
        assert_string_equal(policy_config_name(&c->policies, i), names[i]);
    assert_null(policy_config_name(&c->policies, ARRAY_SIZE(names)));
    assert_string_equal(policy_config_meaning(&c->policies, "wan"), "ours");
    assert_string_equal(policy_config_base(&c->policies, "mine"), "lan-direct");
    assert_true(policy_config_is_shipped("wan") && !policy_config_is_shipped("mine"));
    assert_true(policy_config_value(&c->policies, "mine", POLICY_MEMORY_PATH, &value));
    assert_int_equal(value, MEMORY_DIRECT);
    assert_false(policy_config_value(&c->policies, "mine", POLICY_PRIORITY, &value));
    config_free(c);
}

/* --- the VM's metadata --------------------------------------------------------------------- */

static void test_metadata(void **state)
{
    static const char *const bad[][2] = {
        {"<settings colour='red'/>", "'colour'"},
        {"<settings converge='maybe'/>", "stun, auto-converge or none"},
        {"<settings policy='a b'/>", "a b"},
        {"<settings><hold>yes</hold></settings>", "'hold'"},
        {"<choices hold='yes'/>", "<settings>"},
        {"<settings hold='yes'", "no XML"},
        {"", "no XML"},
        {"<settings xmlns:x='urn:x' x:hold='yes'/>", "'hold'"},
    };
    static char large[POLICY_METADATA_BYTES + 2];
    struct policy_choices c = {0};
    struct error err = {0};

    (void)state;
    assert_int_equal(
        policy_metadata_parse("<settings xmlns='urn:ferry:policy:1' policy='very-large' "
                              "bwlimit='100M' hold='inherit'/>",
                              &c, &err),
        0);
    assert_string_equal(c.policy, "very-large");
    assert_int_equal(c.said, 1u << POLICY_BWLIMIT);
    assert_int_equal(c.value[POLICY_BWLIMIT], 12500000);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        if (policy_metadata_parse(bad[i][0], &c, &err) >= 0)
            fail_msg("taken: %s", bad[i][0]);
        if (!strstr(err.why, bad[i][1]))
            fail_msg("'%s' is not named in: %s", bad[i][1], err.why);
    }
    memset(large, ' ', sizeof(large) - 1);
    assert_int_equal(policy_metadata_parse(large, &c, &err), -E2BIG);
    assert_string_equal(c.policy, "very-large"); /* untouched */
}

/* --- requests ------------------------------------------------------------------------------ */

static void test_requests(void **state)
{
    static const char *const bad[] = {
        "{\"settings\": [1]}",
        "{\"settings\": {\"colour\": \"red\"}}",
        "{\"settings\": {\"hold\": 1}}",
        "{\"settings\": {\"hold\": \"perhaps\"}}",
        "{\"policy\": 3}",
        "{\"policy\": \"a b\"}",
        "{\"bwlimit\": \"fast\"}",
    };
    struct policy_choices c;
    struct error err = {0};
    json_t *body = json_loads("{\"policy\": \"wan\", \"bwlimit\": \"8M\", \"hold\": true, "
                              "\"settings\": {\"priority\": \"7\"}}",
                              0, NULL);

    (void)state;
    assert_int_equal(policy_request_from_json(body, &c, &err), 0);
    json_decref(body);
    assert_string_equal(c.policy, "wan");
    assert_int_equal(c.said, 1u << POLICY_BWLIMIT | 1u << POLICY_HOLD | 1u << POLICY_PRIORITY);
    assert_int_equal(policy_request_from_json(NULL, &c, &err), 0);
    assert_int_equal(c.said, 0);
    for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
        body = json_loads(bad[i], 0, NULL);
        assert_non_null(body);
        if (policy_request_from_json(body, &c, &err) != -EINVAL)
            fail_msg("taken: %s", bad[i]);
        json_decref(body);
    }
}

/* --- conflicts ----------------------------------------------------------------------------- */

static struct policy policy_of(const char *const settings[][2], size_t count)
{
    struct policy_choices request = {0};
    struct config *c = load_good(SITE);
    struct error err = {0};
    struct policy p;

    for (size_t i = 0; i < count && settings[i][0]; i++)
        say(&request, settings[i][0], settings[i][1]);
    assert_int_equal(policy_resolve(&c->policies, "vm1", NULL, &request, &p, &err), 0);
    config_free(c);
    return p;
}

static void test_conflicts(void **state)
{
    static const struct policy_facts able = {.monitor = true, .codec = true};
    static const struct policy_facts encrypted = {
        .monitor = true, .codec = true, .encrypted = "encrypted"};
    static const struct policy_facts old = {
        .monitor = true, .codec = true, .no_zero_copy = "too old"};
    static const struct policy_facts drill = {.monitor = true, .codec = true, .drill = true};
    static const struct policy_facts verified = {.monitor = true, .codec = true, .verify = true};
    static const struct policy_facts unable = {
        .monitor = true, .codec = true, .no_post_copy = "no userfaultfd"};
    static const struct policy_facts mute = {.codec = true};
    static const struct policy_facts plain = {.monitor = true};
    static const struct {
        const struct policy_facts *facts;
        const char *settings[4][2];
        const char *substituted[6]; /* "setting=taken", in order; NULL: no more */
    } conflicts[] = {
        {&able, {{0}}, {0}},
        {&able, {{"policy", "lan-direct"}}, {0}},
        {&able, {{"policy", "very-large"}}, {0}},
        /* Parallel is missing: turned on. */
        {&able, {{"policy", "very-large"}, {"parallel", "off"}}, {"parallel=auto"}},
        /* Encryption is required: no direct way, so none of what goes with it. */
        {&encrypted,
         {{"policy", "very-large"}},
         {"memory_path=tunnel", "zero_copy=no", "parallel=off"}},
        {&able, {{"zero_copy", "yes"}}, {"zero_copy=no"}},
        {&able, {{"parallel", "4"}}, {"parallel=off"}},
        /* The host cannot: left out, and parallel stays. */
        {&old, {{"policy", "very-large"}}, {"zero_copy=no"}},
        {&old, {{"policy", "very-large"}, {"parallel", "off"}}, {"zero_copy=no"}},
        /* A held move and a drill go through the link. */
        {&able,
         {{"policy", "lan-direct"}, {"hold", "yes"}},
         {"memory_path=tunnel", "parallel=off"}},
        {&drill, {{"policy", "lan-direct"}}, {"memory_path=tunnel", "parallel=off"}},
        {&verified, {{"policy", "lan-direct"}}, {"memory_path=tunnel", "parallel=off"}},
        /* What ferry does not see it cannot compress or steer. */
        {&able, {{"memory_path", "direct"}}, {"compression=none", "converge=auto-converge"}},
        {&able, {{"memory_path", "direct"}, {"compression", "xbzrle"}, {"converge", "none"}}, {0}},
        {&able, {{"policy", "lan-direct"}, {"compression", "xbzrle"}}, {"compression=none"}},
        {&plain, {{0}}, {"compression=none"}},
        {&plain, {{"compression", "xbzrle"}}, {0}},
        {&mute, {{0}}, {"converge=auto-converge"}},
        {&mute, {{"converge", "none"}}, {0}},
        /* A gentle copy asks QEMU how long the guest's writes take. */
        {&able, {{"write_slack_ms", "2"}}, {0}},
        {&mute, {{"converge", "none"}, {"write_slack_ms", "2"}}, {"write_slack_ms=0"}},
        /* Post-copy through the link, where the target can; a held move may switch, too. */
        {&able, {{"policy", "post-copy"}}, {0}},
        {&able, {{"policy", "post-copy"}, {"hold", "yes"}}, {0}},
        {&able, {{"policy", "post-copy"}, {"compression", "xbzrle"}}, {0}},
        {&able, {{"post_copy", "by-hand"}, {"policy", "lan-direct"}}, {"post_copy=never"}},
        {&able,
         {{"at_time_limit", "post-copy"}, {"policy", "lan-direct"}},
         {"at_time_limit=abort"}},
        {&drill, {{"policy", "post-copy"}}, {"post_copy=never"}},
        {&unable, {{"policy", "post-copy"}}, {"post_copy=never"}},
        {&mute, {{"policy", "post-copy"}}, {"post_copy=never"}},
        {&unable, {{"at_time_limit", "post-copy"}}, {"at_time_limit=abort"}},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(conflicts); i++) {
        struct policy p = policy_of(conflicts[i].settings, ARRAY_SIZE(conflicts[i].settings));
        char seen[512] = "", wanted[512] = "", value[POLICY_TEXT_BYTES];

        policy_settle(&p, conflicts[i].facts);
        for (unsigned k = 0; k < p.substitution_count; k++) {
            const struct policy_substitution *s = &p.substitutions[k];

            snprintf(seen + strlen(seen), sizeof(seen) - strlen(seen), "%s=%s ",
                     policy_setting_name(s->setting),
                     policy_setting_format(s->setting, s->taken, value, sizeof(value)));
            assert_true(s->why[0] && s->wanted != s->taken);
            assert_int_equal(policy_get(&p, s->setting), s->taken);
        }
        for (size_t k = 0; k < ARRAY_SIZE(conflicts[i].substituted); k++) {
            if (conflicts[i].substituted[k])
                snprintf(wanted + strlen(wanted), sizeof(wanted) - strlen(wanted), "%s ",
                         conflicts[i].substituted[k]);
        }
        if (strcmp(seen, wanted) != 0)
            fail_msg("conflict %zu: '%s', not '%s'", i, seen, wanted);
        policy_settle(&p, conflicts[i].facts); /* what is settled stays so */
        assert_int_equal(p.substitution_count, 0);
    }
}

static void test_zero_copy_needs(void **state)
{
    (void)state;
    assert_null(policy_no_zero_copy(9000000, 7002000, "6.1.0-18-amd64"));
    assert_null(policy_no_zero_copy(8005000, 7001000, "4.14"));
    assert_non_null(strstr(policy_no_zero_copy(8004000, 7002000, "6.1"), "libvirt"));
    assert_non_null(strstr(policy_no_zero_copy(9000000, 7000000, "6.1"), "QEMU"));
    assert_non_null(strstr(policy_no_zero_copy(9000000, 7002000, "4.13.9"), "Linux"));
    assert_non_null(strstr(policy_no_zero_copy(9000000, 7002000, "?"), "Linux"));
}

static void test_post_copy_needs(void **state)
{
    (void)state;
    assert_null(policy_no_post_copy(9000000, 1, false));
    assert_null(policy_no_post_copy(8005000, 0, true));
    assert_non_null(strstr(policy_no_post_copy(8004000, 1, false), "libvirt"));
    assert_non_null(strstr(policy_no_post_copy(9000000, 0, false), "vm.unprivileged_userfaultfd"));
    assert_non_null(strstr(policy_no_post_copy(9000000, -1, true), "kernel"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_inheritance),
        cmocka_unit_test(test_nobody_else),
        cmocka_unit_test(test_unknown_policies),
        cmocka_unit_test(test_values),
        cmocka_unit_test(test_broken_sections_are_named),
        cmocka_unit_test(test_mend_says_what_may_be),
        cmocka_unit_test(test_too_many),
        cmocka_unit_test(test_list),
        cmocka_unit_test(test_metadata),
        cmocka_unit_test(test_requests),
        cmocka_unit_test(test_conflicts),
        cmocka_unit_test(test_zero_copy_needs),
        cmocka_unit_test(test_post_copy_needs),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
