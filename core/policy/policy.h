/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Policies: the choices that a move makes, each by name, with what it may be and what it is when nobody says.
 *
 * A choice is said by a policy, by the service, by a group of VMs, by a VM or by a request; what is said nowhere is
 * inherited (core/policy/policy_resolve.h). A value is a number whatever its kind: an index into the words it may be, a
 * count, bytes, bytes a second. Adding a setting is a row of the table in policy.c.
 */
#ifndef FERRY_CORE_POLICY_H
#define FERRY_CORE_POLICY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is done about memory that does not converge. */
enum converge { CONVERGE_STUN, CONVERGE_AUTO_CONVERGE, CONVERGE_NONE };
/* What becomes of memory on its way: ferry's page-aware codec, QEMU's xor against the page sent last, or nothing. */
enum compression { COMPRESSION_FERRY, COMPRESSION_XBZRLE, COMPRESSION_NONE };
enum at_time_limit { AT_LIMIT_ABORT, AT_LIMIT_STUN_HARDER, AT_LIMIT_SUSPEND, AT_LIMIT_POST_COPY };
/* When the guest's processors go before its memory. */
enum post_copy {
    POST_COPY_NEVER,
    POST_COPY_BY_HAND,
    POST_COPY_AFTER_FIRST_PASS,
    POST_COPY_AFTER_TIME
};
/* Through ferry's encrypted link, or from QEMU to QEMU. */
enum memory_path { MEMORY_TUNNEL, MEMORY_DIRECT };

enum { PARALLEL_OFF = 0, PARALLEL_MOST = 64, PARALLEL_AUTO = 65536 };

enum policy_setting {
    POLICY_CONVERGE,
    POLICY_STUN_MAX_PERCENT,
    POLICY_RESEND_PERCENT,
    POLICY_AUTO_CONVERGE_INITIAL,
    POLICY_AUTO_CONVERGE_INCREMENT,
    POLICY_COMPRESSION,
    POLICY_XBZRLE_CACHE,
    POLICY_DOWNTIME_MS,
    POLICY_DOWNTIME_MAX_MS,
    POLICY_DOWNTIME_DOUBLE_S,
    POLICY_DOWNTIME_LAST_MS,
    POLICY_TIME_LIMIT_S,
    POLICY_AT_TIME_LIMIT,
    POLICY_POST_COPY,
    POLICY_POST_COPY_AFTER_S,
    POLICY_WRITE_SLACK_MS,
    POLICY_BWLIMIT,
    POLICY_PRIORITY,
    POLICY_HOLD,
    POLICY_MEMORY_PATH,
    POLICY_PARALLEL,
    POLICY_ZERO_COPY,
    POLICY_SETTINGS
};

enum { POLICY_NAME_BYTES = 64, POLICY_TEXT_BYTES = 128 };

/* What one level says: some settings, and perhaps a policy. */
struct policy_choices {
    char policy[POLICY_NAME_BYTES]; /* empty: none */
    uint32_t said;                  /* bit N: value[N] is said here */
    uint64_t value[POLICY_SETTINGS];
};

/* The setting of that name, or -1. */
int policy_setting_find(const char *name);
const char *policy_setting_name(enum policy_setting s);
/* One line for people. */
const char *policy_setting_meaning(enum policy_setting s);
/* "stun, auto-converge or none": what it may be. Returns @buf. */
const char *policy_setting_allowed(enum policy_setting s, char *buf, size_t cap);
uint64_t policy_setting_default(enum policy_setting s);
/* 0, or -EINVAL. */
int policy_setting_parse(enum policy_setting s, const char *text, uint64_t *ret);
/* The value as it would be written in the configuration. Returns @buf. */
const char *policy_setting_format(enum policy_setting s, uint64_t value, char *buf, size_t cap);

/* A policy's or group's name: letters, digits, "-", "_" and ".". */
bool policy_name_ok(const char *name);
/*
 * Says @key of a level: a setting, or "policy". "inherit" unsays it. 1: said; 0: unusable value; -1: there is no such
 * setting.
 */
int policy_choices_set(struct policy_choices *c, const char *key, const char *value);
void policy_choices_say(struct policy_choices *c, enum policy_setting s, uint64_t value);
static inline bool policy_choices_has(const struct policy_choices *c, enum policy_setting s)
{
    return (c->said & (UINT32_C(1) << s)) != 0;
}

#endif
