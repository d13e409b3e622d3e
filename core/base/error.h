/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What an operator must understand about a failure, in one value.
 *
 * Functions return 0 or a negative errno. Where an operator will read the failure, they also fill a
 * struct error: what was attempted on what, why it failed, and what to do. It is a plain value of
 * fixed size: it can be copied, embedded and sent between threads without any ownership question.
 */
#ifndef FERRY_CORE_BASE_ERROR_H
#define FERRY_CORE_BASE_ERROR_H

#include <stdbool.h>

#include "core/base/macros.h"

struct error {
    int code;       /* negative errno; 0 = no error */
    char what[160]; /* the attempt and its object: "create disk /var/lib/x.qcow2 at site-b" */
    char why[512];  /* the cause: "No space left on device" */
    char mend[256]; /* what an operator can do; may be empty */
};

/*
 * Fills *e (NULL is allowed: nothing is filled) and returns @code, so that a caller can write
 * `return error_set(e, -ENOENT, "find domain vm1", "is it defined here?", "no such domain");`.
 * @mend may be NULL. Text that does not fit is cut.
 */
int error_set(struct error *e, int code, const char *what, const char *mend, const char *why_fmt,
              ...) FERRY_PRINTF(5, 6);

/* Puts "@context: " before what was attempted, for a caller that knows more. */
void error_prefix(struct error *e, const char *context);

void error_clear(struct error *e);

static inline bool error_is_set(const struct error *e)
{
    return e->code != 0;
}

/* One line for logs: "WHAT: WHY (MEND)". Returns @buf. */
const char *error_line(const struct error *e, char *buf, size_t cap);

#endif
