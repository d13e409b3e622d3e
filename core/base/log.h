/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One log for the service, on standard error.
 *
 * Under a service manager that captures the stream (JOURNAL_STREAM set) lines carry the "<N>" level
 * prefix that the journal understands; elsewhere a UTC time stamp and the level's name. Only the
 * owner of an operation logs: library code returns errors. Safe from any thread.
 */
#ifndef FERRY_CORE_BASE_LOG_H
#define FERRY_CORE_BASE_LOG_H

#include "core/base/macros.h"

/* The numbers are syslog's. */
enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7
};

/* Lines above @level are dropped. Default: LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/* "error", "warning", "info", "debug" -> level; -EINVAL for anything else. */
int log_level_parse(const char *name, enum log_level *ret_level);

void log_line(enum log_level level, const char *fmt, ...) FERRY_PRINTF(2, 3);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
