/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/link/bandwidth.h"
#include "core/base/macros.h"
#include "core/config.h"

enum kind { KIND_WORD, KIND_SWITCH, KIND_NUMBER, KIND_POWER, KIND_RATE, KIND_PARALLEL };

static const struct setting {
    const char *name;
    enum kind kind;
    const char *words[4]; /* of KIND_WORD, in the order of its enum */
    uint64_t least, most; /* of KIND_NUMBER and KIND_POWER, which is bytes, a power of two */
    uint64_t standard;    /* when nobody says */
    const char *meaning;
} settings[POLICY_SETTINGS] = {
    [POLICY_CONVERGE] = {.name = "converge",
                         .kind = KIND_WORD,
                         .words = {"stun", "auto-converge", "none"},
                         .standard = CONVERGE_STUN,
                         .meaning = "what is done about memory that does not converge"},
    [POLICY_STUN_MAX_PERCENT] = {.name = "stun_max_percent",
                                 .least = 1,
                                 .most = 99,
                                 .kind = KIND_NUMBER,
                                 .standard = 95,
                                 .meaning = "of the guest's processor time, what a stun may take"},
    [POLICY_RESEND_PERCENT] =
        {.name = "resend_percent",
         .kind = KIND_NUMBER,
         .least = 10,
         .most = 10000,
         .standard = 85, /* less than post-copy sends, which fetches what was dirtied once more */
         .meaning = "of what memory's first round takes on the line, what "
                    "a stun aims at for all later ones"},
    [POLICY_AUTO_CONVERGE_INITIAL] = {.name = "auto_converge_initial",
                                      .kind = KIND_NUMBER,
                                      .least = 1,
                                      .most = 99,
                                      .standard = 20,
                                      .meaning =
                                          "percent that QEMU's auto-converge takes at first"},
    [POLICY_AUTO_CONVERGE_INCREMENT] = {.name = "auto_converge_increment",
                                        .kind = KIND_NUMBER,
                                        .least = 1,
                                        .most = 99,
                                        .standard = 10,
                                        .meaning = "and adds, as long as it does not converge"},
    [POLICY_COMPRESSION] = {.name = "compression",
                            .kind = KIND_WORD,
                            .words = {"ferry", "xbzrle", "none"},
                            .standard = COMPRESSION_FERRY,
                            .meaning = "what makes memory smaller on its way"},
    [POLICY_XBZRLE_CACHE] = {.name = "xbzrle_cache",
                             .kind = KIND_POWER,
                             .least = 1 << 20,
                             .most = UINT64_C(1) << 40,
                             .standard = 64 << 20,
                             .meaning = "memory at the source for the pages that XBZRLE compares"},
    [POLICY_DOWNTIME_MS] = {.name = "downtime_ms",
                            .kind = KIND_NUMBER,
                            .least = 1,
                            .most = 60000,
                            .standard = 30,
                            .meaning = "QEMU's limit for the last round, to begin with"},
    [POLICY_DOWNTIME_MAX_MS] = {.name = "downtime_max_ms",
                                .kind = KIND_NUMBER,
                                .least = 1,
                                .most = 60000,
                                .standard = 500,
                                .meaning = "wanted downtime altogether"},
    [POLICY_DOWNTIME_DOUBLE_S] = {.name = "downtime_double_s",
                                  .kind = KIND_NUMBER,
                                  .least = 0,
                                  .most = 86400,
                                  .standard = 0,
                                  .meaning =
                                      "the wanted downtime doubles every so many seconds that "
                                      "memory does not converge; 0: never"},
    [POLICY_DOWNTIME_LAST_MS] = {.name = "downtime_last_ms",
                                 .kind = KIND_NUMBER,
                                 .least = 1,
                                 .most = 60000,
                                 .standard = 2000,
                                 .meaning = "what it may grow to when nothing else helps"},
    [POLICY_TIME_LIMIT_S] = {.name = "time_limit_s",
                             .kind = KIND_NUMBER,
                             .least = 0,
                             .most = 7 * 86400,
                             .standard = 0,
                             .meaning = "seconds that memory may take to converge; 0: no limit"},
    [POLICY_AT_TIME_LIMIT] = {.name = "at_time_limit",
                              .kind = KIND_WORD,
                              .words = {"abort", "stun-harder", "suspend", "post-copy"},
                              .standard = AT_LIMIT_ABORT,
                              .meaning = "what happens then"},
    [POLICY_POST_COPY] = {.name = "post_copy",
                          .kind = KIND_WORD,
                          .words = {"never", "by-hand", "after-first-pass", "after-time"},
                          .standard = POST_COPY_NEVER,
                          .meaning =
                              "whether the VM may run at the target before its memory is there"},
    [POLICY_POST_COPY_AFTER_S] = {.name = "post_copy_after_s",
                                  .kind = KIND_NUMBER,
                                  .least = 1,
                                  .most = 86400,
                                  .standard = 60,
                                  .meaning =
                                      "seconds of sending memory before that, with after-time"},
    [POLICY_WRITE_SLACK_MS] = {.name = "write_slack_ms",
                               .kind = KIND_NUMBER,
                               .least = 0,
                               .most = 10000,
                               .standard = 0,
                               .meaning =
                                   "how much longer 99 of 100 of the guest's writes may take "
                                   "while its disks are copied, slowly if need be; 0: no matter"},
    [POLICY_BWLIMIT] = {.name = "bwlimit",
                        .kind = KIND_RATE,
                        .standard = 0,
                        .meaning = "of the move, beside that of the link"},
    [POLICY_PRIORITY] = {.name = "priority",
                         .kind = KIND_NUMBER,
                         .least = 0,
                         .most = 9,
                         .standard = 5,
                         .meaning = "in an evacuation, higher ones go first"},
    [POLICY_HOLD] = {.name = "hold",
                     .kind = KIND_SWITCH,
                     .meaning = "wait before the switchover for `ferry switchover`"},
    [POLICY_MEMORY_PATH] = {.name = "memory_path",
                            .kind = KIND_WORD,
                            .words = {"tunnel", "direct"},
                            .standard = MEMORY_TUNNEL,
                            .meaning = "through ferry's encrypted link, or from QEMU to QEMU"},
    [POLICY_PARALLEL] = {.name = "parallel",
                         .kind = KIND_PARALLEL,
                         .standard = PARALLEL_OFF,
                         .meaning = "QEMU's own connections for direct memory"},
    [POLICY_ZERO_COPY] = {.name = "zero_copy",
                          .kind = KIND_SWITCH,
                          .meaning = "direct memory is sent from where it lies"},
};

int policy_setting_find(const char *name)
{
    for (int s = 0; s < POLICY_SETTINGS; s++) {
        if (strcmp(settings[s].name, name) == 0)
            return s;
    }
    return -1;
}

const char *policy_setting_name(enum policy_setting s)
{
    return settings[s].name;
}

const char *policy_setting_meaning(enum policy_setting s)
{
    return settings[s].meaning;
}

uint64_t policy_setting_default(enum policy_setting s)
{
    return settings[s].standard;
}

const char *policy_setting_allowed(enum policy_setting s, char *buf, size_t cap)
{
    const struct setting *t = &settings[s];
    char least[24], most[24];

    switch (t->kind) {
    case KIND_WORD:
        if (t->words[3])
            snprintf(buf, cap, "%s, %s, %s or %s", t->words[0], t->words[1], t->words[2],
                     t->words[3]);
        else if (t->words[2])
            snprintf(buf, cap, "%s, %s or %s", t->words[0], t->words[1], t->words[2]);
        else
            snprintf(buf, cap, "%s or %s", t->words[0], t->words[1]);
        break;
    case KIND_SWITCH:
        snprintf(buf, cap, "yes or no");
        break;
    case KIND_NUMBER:
    case KIND_POWER:
        snprintf(buf, cap, "%s%s to %s", t->kind == KIND_POWER ? "a power of two, " : "",
                 policy_setting_format(s, t->least, least, sizeof(least)),
                 policy_setting_format(s, t->most, most, sizeof(most)));
        break;
    case KIND_RATE:
        snprintf(buf, cap, "a rate: 200M (Mbit/s), 25MB (bytes a second), or off");
        break;
    case KIND_PARALLEL:
        snprintf(buf, cap, "off, auto, or 1 to %d", PARALLEL_MOST);
        break;
    }
    return buf;
}

static int parse_number(const char *text, uint64_t least, uint64_t most, uint64_t *ret)
{
    unsigned long long n;
    char *end = NULL;

    if (!isdigit((unsigned char)text[0]))
        return -EINVAL;
    errno = 0;
    n = strtoull(text, &end, 10);
    if (errno || *end || n < least || n > most)
        return -EINVAL;
    *ret = n;
    return 0;
}

static int parse_parallel(const char *text, uint64_t *ret)
{
    if (strcmp(text, "off") == 0 || strcmp(text, "auto") == 0) {
        *ret = text[0] == 'o' ? PARALLEL_OFF : PARALLEL_AUTO;
        return 0;
    }
    return parse_number(text, 1, PARALLEL_MOST, ret);
}

int policy_setting_parse(enum policy_setting s, const char *text, uint64_t *ret)
{
    const struct setting *t = &settings[s];
    uint64_t n = 0;
    bool yes;

    switch (t->kind) {
    case KIND_WORD:
        for (; n < ARRAY_SIZE(t->words) && t->words[n]; n++) {
            if (strcmp(t->words[n], text) == 0) {
                *ret = n;
                return 0;
            }
        }
        return -EINVAL;
    case KIND_SWITCH:
        if (config_parse_bool(text, &yes) < 0)
            return -EINVAL;
        *ret = yes;
        return 0;
    case KIND_NUMBER:
        return parse_number(text, t->least, t->most, ret);
    case KIND_POWER:
        if (config_parse_bytes(text, &n) < 0 || n < t->least || n > t->most || (n & (n - 1)) != 0)
            return -EINVAL;
        *ret = n;
        return 0;
    case KIND_RATE:
        return bandwidth_parse_rate(text, ret);
    case KIND_PARALLEL:
        return parse_parallel(text, ret);
    }
    return -EINVAL;
}

static void format_bytes(uint64_t value, char *buf, size_t cap)
{
    static const char units[] = "KMGT";
    unsigned shift = 0;

    while (shift < 4 && value >= 1024 && value % 1024 == 0) {
        value /= 1024;
        shift++;
    }
    snprintf(buf, cap, shift ? "%" PRIu64 "%c" : "%" PRIu64, value, shift ? units[shift - 1] : 0);
}

const char *policy_setting_format(enum policy_setting s, uint64_t value, char *buf, size_t cap)
{
    const struct setting *t = &settings[s];

    switch (t->kind) {
    case KIND_WORD:
        snprintf(buf, cap, "%s", t->words[value]);
        break;
    case KIND_SWITCH:
        snprintf(buf, cap, "%s", value ? "yes" : "no");
        break;
    case KIND_NUMBER:
        snprintf(buf, cap, "%" PRIu64, value);
        break;
    case KIND_POWER:
        format_bytes(value, buf, cap);
        break;
    case KIND_RATE:
        if (value)
            snprintf(buf, cap, "%.6gM", (double)value * 8 / 1e6);
        else
            snprintf(buf, cap, "off");
        break;
    case KIND_PARALLEL:
        if (value == PARALLEL_OFF || value == PARALLEL_AUTO)
            snprintf(buf, cap, "%s", value ? "auto" : "off");
        else
            snprintf(buf, cap, "%" PRIu64, value);
        break;
    }
    return buf;
}

/* --- what a level says --------------------------------------------------------------------- */

bool policy_name_ok(const char *name)
{
    size_t len = strlen(name);

    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return false;
    }
    return len > 0 && len < POLICY_NAME_BYTES && strcmp(name, "inherit") != 0;
}

void policy_choices_say(struct policy_choices *c, enum policy_setting s, uint64_t value)
{
    c->said |= UINT32_C(1) << s;
    c->value[s] = value;
}

static int set_policy(struct policy_choices *c, const char *value)
{
    bool inherit = strcmp(value, "inherit") == 0;

    if (!inherit && !policy_name_ok(value))
        return 0;
    snprintf(c->policy, sizeof(c->policy), "%s", inherit ? "" : value);
    return 1;
}

int policy_choices_set(struct policy_choices *c, const char *key, const char *value)
{
    int s = policy_setting_find(key);
    uint64_t n = 0;

    if (strcmp(key, "policy") == 0)
        return set_policy(c, value);
    if (s < 0)
        return -1;
    if (strcmp(value, "inherit") == 0) {
        c->said &= ~(UINT32_C(1) << s);
        return 1;
    }
    if (policy_setting_parse((enum policy_setting)s, value, &n) < 0)
        return 0;
    policy_choices_say(c, (enum policy_setting)s, n);
    return 1;
}
