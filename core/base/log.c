/* SPDX-License-Identifier: Apache-2.0 */
/* The service's log: see log.h. One write(2) a line keeps lines of several threads whole. */
#include "core/base/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

static atomic_int max_level = LOG_LEVEL_INFO;

static const char *level_name(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return "error";
    case LOG_LEVEL_WARNING:
        return "warning";
    case LOG_LEVEL_INFO:
        return "info";
    case LOG_LEVEL_DEBUG:
        return "debug";
    }
    return "?";
}

void log_set_level(enum log_level level)
{
    atomic_store(&max_level, (int)level);
}

int log_level_parse(const char *name, enum log_level *ret_level)
{
    static const enum log_level levels[] = {LOG_LEVEL_ERROR, LOG_LEVEL_WARNING, LOG_LEVEL_INFO,
                                            LOG_LEVEL_DEBUG};

    for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
        if (strcmp(name, level_name(levels[i])) == 0) {
            *ret_level = levels[i];
            return 0;
        }
    }
    return -EINVAL;
}

void log_line(enum log_level level, const char *fmt, ...)
{
    char line[2048];
    size_t used;
    va_list ap;
    int n;

    if ((int)level > atomic_load(&max_level))
        return;
    if (getenv("JOURNAL_STREAM")) {
        n = snprintf(line, sizeof(line), "<%d>", (int)level);
        used = (size_t)n;
    } else {
        struct timespec now;
        struct tm tm;

        clock_gettime(CLOCK_REALTIME, &now);
        gmtime_r(&now.tv_sec, &tm);
        used = strftime(line, sizeof(line), "%Y-%m-%dT%H:%M:%S", &tm);
        n = snprintf(line + used, sizeof(line) - used, ".%03ldZ %s: ", now.tv_nsec / 1000000,
                     level_name(level));
        used += (size_t)n;
    }
    va_start(ap, fmt);
    n = vsnprintf(line + used, sizeof(line) - used - 1, fmt, ap);
    va_end(ap);
    used += MIN((size_t)MAX(n, 0), sizeof(line) - used - 2);
    line[used++] = '\n';
    if (write(STDERR_FILENO, line, used) < 0) {
        /* nowhere left to say it */
    }
}
