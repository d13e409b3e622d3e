/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One command of a drill: a file of this site's own folder of commands, chosen by name, without a shell and without
 * arguments; what it is about stands in its environment. It runs in a process group of its own, which is killed when
 * its time is over or the drill ends.
 *
 * Thread: the loop thread.
 */
#ifndef FERRY_CORE_DRILL_COMMAND_H
#define FERRY_CORE_DRILL_COMMAND_H

#include <limits.h>
#include <uv.h>

#include "core/base/error.h"

struct drill_command;

/* @status: its exit status, or 128 and the signal; @output: the end of what it printed, text. The command is over and
 * frees itself. */
typedef void (*drill_command_end)(void *user, int status, const char *output);

/* Its file's path, if this site lets it run: a regular file of root's that nobody else can write. -EPERM with words. */
int drill_command_find(const char *folder, const char *name, char ret[PATH_MAX], struct error *err);
/* @environment: "KEY=VALUE", ended by NULL, all of it. */
int drill_command_start(uv_loop_t *loop, const char *path, char *const *environment,
                        unsigned timeout_s, drill_command_end end, void *user,
                        struct drill_command **ret, struct error *err);
/* Kills it; nobody is called back. NULL is allowed. */
void drill_command_cancel(struct drill_command *c);

#endif
