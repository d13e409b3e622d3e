/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a check found: lines, each with a verdict, what is so, and how to mend it.
 *
 * `ferry check` shows all of them; a move is refused by the first that fails. A plain value of fixed size: it is
 * filled on worker threads and goes back by copy.
 */
#ifndef FERRY_CORE_CHECK_H
#define FERRY_CORE_CHECK_H

#include <jansson.h>
#include <stdbool.h>

#include "core/base/error.h"

/* More lines than that are dropped, but a failure: it takes the last one's place. */
enum { CHECK_LINES_MAX = 40 };

enum check_verdict {
    CHECK_PASS,
    CHECK_WARN, /* the move goes, but something may hurt */
    CHECK_FAIL, /* the move would fail, or is not allowed */
};

struct check_line {
    char name[24]; /* what was looked at: "space"; one name may have several lines */
    char site[64]; /* where; empty: here */
    enum check_verdict verdict;
    int code;       /* of a failure: negative errno */
    char what[160]; /* of a failure: the attempt */
    char text[512]; /* what is so */
    char mend[256]; /* what an operator can do; may be empty */
};

struct check_report {
    struct check_line lines[CHECK_LINES_MAX];
    unsigned count;
};

void check_pass(struct check_report *r, const char *name, const char *format, ...)
    FERRY_PRINTF(3, 4);
/* @mend may be NULL. */
void check_warn(struct check_report *r, const char *name, const char *mend, const char *format, ...)
    FERRY_PRINTF(4, 5);
void check_fail(struct check_report *r, const char *name, const struct error *why);
/* Passes with these words when nothing of that name has been said. */
void check_pass_unless_said(struct check_report *r, const char *name, const char *format, ...)
    FERRY_PRINTF(3, 4);
/* All of @more's lines, said to be of @site (NULL: as they are). */
void check_append(struct check_report *r, const struct check_report *more, const char *site);

/* The first failure, as the error it is; false: there is none. */
bool check_first_failure(const struct check_report *r, struct error *ret);
const char *check_verdict_name(enum check_verdict verdict);

/* An array of {name, site, verdict, text, mend, what, code}; and back, cleaned of control characters. */
json_t *check_report_to_json(const struct check_report *r);
void check_report_from_json(const json_t *lines, struct check_report *ret);

#endif
