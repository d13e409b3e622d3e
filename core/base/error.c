/* SPDX-License-Identifier: Apache-2.0 */
/* The operator's view of a failure: see error.h. */
#include "core/base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int error_set(struct error *e, int code, const char *what, const char *mend, const char *why_fmt,
              ...)
{
    va_list ap;

    if (!e)
        return code;
    e->code = code ? code : -EIO;
    snprintf(e->what, sizeof(e->what), "%s", what ? what : "");
    snprintf(e->mend, sizeof(e->mend), "%s", mend ? mend : "");
    va_start(ap, why_fmt);
    vsnprintf(e->why, sizeof(e->why), why_fmt, ap);
    va_end(ap);
    return e->code;
}

void error_prefix(struct error *e, const char *context)
{
    char what[sizeof(e->what)];

    memcpy(what, e->what, sizeof(what));
    snprintf(e->what, sizeof(e->what), "%.60s: %.90s", context, what);
}

void error_clear(struct error *e)
{
    memset(e, 0, sizeof(*e));
}

const char *error_line(const struct error *e, char *buf, size_t cap)
{
    if (e->mend[0])
        snprintf(buf, cap, "%s: %s (%s)", e->what, e->why, e->mend);
    else
        snprintf(buf, cap, "%s: %s", e->what, e->why);
    return buf;
}
