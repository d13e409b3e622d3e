/* SPDX-License-Identifier: Apache-2.0 */
/* A configuration from text, for tests of what is in it. */
#ifndef FERRY_TESTS_UNIT_CONFIG_TEXT_H
#define FERRY_TESTS_UNIT_CONFIG_TEXT_H

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/config.h"

static inline int load(const char *text, struct config **ret, struct error *err)
{
    char path[] = "/tmp/ferry-config-XXXXXX";
    int fd = mkstemp(path), r;

    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
    close(fd);
    *err = (struct error){0};
    r = config_load(path, ret, err);
    unlink(path);
    return r;
}

static inline struct config *load_good(const char *text)
{
    struct config *c = NULL;
    struct error err;
    char line[1024];

    if (load(text, &c, &err) < 0)
        fail_msg("%s", error_line(&err, line, sizeof(line)));
    return c;
}

#endif
