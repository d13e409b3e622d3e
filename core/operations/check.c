/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/check.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "core/json_text.h"

static struct check_line *add(struct check_report *r, const char *name, enum check_verdict verdict)
{
    struct check_line *line;

    if (r->count == CHECK_LINES_MAX && verdict != CHECK_FAIL)
        return NULL;
    line = &r->lines[r->count < CHECK_LINES_MAX ? r->count++ : CHECK_LINES_MAX - 1];
    memset(line, 0, sizeof(*line));
    snprintf(line->name, sizeof(line->name), "%s", name);
    line->verdict = verdict;
    return line;
}

static void say(struct check_line *line, const char *mend, const char *format, va_list args)
{
    if (!line)
        return;
    vsnprintf(line->text, sizeof(line->text), format, args);
    snprintf(line->mend, sizeof(line->mend), "%s", mend ? mend : "");
}

void check_pass(struct check_report *r, const char *name, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(add(r, name, CHECK_PASS), NULL, format, args);
    va_end(args);
}

void check_warn(struct check_report *r, const char *name, const char *mend, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    say(add(r, name, CHECK_WARN), mend, format, args);
    va_end(args);
}

void check_fail(struct check_report *r, const char *name, const struct error *why)
{
    struct check_line *line = add(r, name, CHECK_FAIL);

    line->code = why->code;
    snprintf(line->what, sizeof(line->what), "%s", why->what);
    snprintf(line->text, sizeof(line->text), "%s", why->why);
    snprintf(line->mend, sizeof(line->mend), "%s", why->mend);
}

void check_pass_unless_said(struct check_report *r, const char *name, const char *format, ...)
{
    va_list args;

    for (unsigned i = 0; i < r->count; i++) {
        if (strcmp(r->lines[i].name, name) == 0)
            return;
    }
    va_start(args, format);
    say(add(r, name, CHECK_PASS), NULL, format, args);
    va_end(args);
}

void check_append(struct check_report *r, const struct check_report *more, const char *site)
{
    for (unsigned i = 0; i < more->count; i++) {
        struct check_line *line = add(r, more->lines[i].name, more->lines[i].verdict);

        if (!line)
            continue;
        *line = more->lines[i];
        if (site)
            snprintf(line->site, sizeof(line->site), "%s", site);
    }
}

bool check_first_failure(const struct check_report *r, struct error *ret)
{
    for (unsigned i = 0; i < r->count; i++) {
        const struct check_line *line = &r->lines[i];

        if (line->verdict != CHECK_FAIL)
            continue;
        error_set(ret, line->code, line->what, line->mend[0] ? line->mend : NULL, "%s", line->text);
        return true;
    }
    return false;
}

const char *check_verdict_name(enum check_verdict verdict)
{
    static const char *const names[] = {
        [CHECK_PASS] = "pass", [CHECK_WARN] = "warn", [CHECK_FAIL] = "fail"};

    return names[verdict];
}

json_t *check_report_to_json(const struct check_report *r)
{
    json_t *lines = json_array();

    for (unsigned i = 0; i < r->count; i++) {
        const struct check_line *line = &r->lines[i];

        json_array_append_new(lines, json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:i}", "name",
                                               line->name, "site", line->site, "verdict",
                                               check_verdict_name(line->verdict), "text",
                                               line->text, "mend", line->mend, "what", line->what,
                                               "code", line->code));
    }
    return lines;
}

void check_report_from_json(const json_t *lines, struct check_report *ret)
{
    const json_t *item;
    size_t i;

    ret->count = 0;
    json_array_foreach(lines, i, item)
    {
        const char *verdict = json_string_value(json_object_get(item, "verdict"));
        json_int_t code = json_integer_value(json_object_get(item, "code"));
        enum check_verdict v = CHECK_FAIL; /* what is not understood is no pass */
        struct check_line *line;
        char name[sizeof(line->name)] = "";

        for (int k = CHECK_PASS; k <= CHECK_FAIL; k++) {
            if (verdict && strcmp(verdict, check_verdict_name((enum check_verdict)k)) == 0)
                v = (enum check_verdict)k;
        }
        json_text_show(item, "name", JSON_TEXT_LINE, name, sizeof(name));
        line = add(ret, name, v);
        if (!line)
            continue;
        line->code = v != CHECK_FAIL ? 0 : code < 0 && code > -4096 ? (int)code : -EIO;
        json_text_show(item, "what", JSON_TEXT_LINE, line->what, sizeof(line->what));
        json_text_show(item, "text", JSON_TEXT_LINE, line->text, sizeof(line->text));
        json_text_show(item, "mend", JSON_TEXT_LINE, line->mend, sizeof(line->mend));
    }
}
