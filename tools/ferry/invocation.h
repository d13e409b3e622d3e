/* SPDX-License-Identifier: Apache-2.0 */
/* One call of `ferry`: what was asked for, and what its commands share. */
#ifndef FERRY_TOOLS_FERRY_INVOCATION_H
#define FERRY_TOOLS_FERRY_INVOCATION_H

#include <stdbool.h>

#include "tools/ferry/client.h"

enum {
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_REFUSED = 3,
    EXIT_IN_DOUBT = 4,
    EXIT_NO_FERRYD = 5,
    EXIT_DENIED = 6
};

enum { INVOCATION_SETTINGS_MAX = 32 };

struct invocation {
    struct client *client;
    bool json;
    bool all, detach, hold, probe, verify;
    bool drill, keep_disk, dry_run, stop, resume, show;
    const char *to, *run_at, *at, *bwlimit, *run, *jobs, *first;
    const char *policy;
    const char *settings[INVOCATION_SETTINGS_MAX]; /* KEY=VALUE, of --set */
    unsigned setting_count;
    const char *argument; /* DOMAIN, ID or SITE */
    const char *second;   /* the second argument: bwlimit's rate, what set sets, policy's domain */
};

/* main.c: says what went wrong, as JSON too when asked for; the exit status that goes with it. */
int invocation_fail(const struct invocation *in, const struct error *err);
void invocation_print_json(const json_t *j);
void invocation_nap(void);
/* Asks ferryd at @path, and prints what it answers: as JSON when asked for, else with @print. The exit status. */
int invocation_show(struct invocation *in, const char *path,
                    void (*print)(const struct invocation *in, const json_t *answer));
/* A member as text; "" when it is none. */
const char *invocation_member(const json_t *j, const char *key);

/* move.c */
int move_get(struct invocation *in, const char *id, json_t **ret, struct error *err);
/* Follows it to its outcome. @lines: every change as a line of JSON, else the live display. */
int move_follow(struct invocation *in, const char *id, bool lines, json_t **ret);
/* The exit status that says how it ended. */
int move_status(const json_t *move);
int run_move(struct invocation *in);
int run_drill(struct invocation *in);
int run_cancel(struct invocation *in);
int run_postcopy(struct invocation *in);
int run_switchover(struct invocation *in);
int run_set(struct invocation *in);
int run_resolve(struct invocation *in);

/* watch.c */
int run_list(struct invocation *in);
int run_show(struct invocation *in);
int run_watch(struct invocation *in);

/* check.c */
int run_check(struct invocation *in);

/* evacuate.c */
int run_evacuate(struct invocation *in);

/* policy.c */
/* Adds --policy and --set to a request. EXIT_USAGE, with words: one of them is not KEY=VALUE. */
int invocation_add_policy(const struct invocation *in, json_t *request);
/* A document of one KEY=VALUE; NULL, with words: it is none. */
json_t *invocation_setting(const char *words);
int run_policies(struct invocation *in);
int run_policy(struct invocation *in);

/* link.c */
int run_link(struct invocation *in);
int run_bwlimit(struct invocation *in);

#endif
