/* SPDX-License-Identifier: Apache-2.0 */
#include "core/link/bandwidth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "core/base/macros.h"

enum { DAY_MINUTES = 24 * 60, WEEK_DAYS = 7, EVERY_DAY = 0x7f };

/* Ten times the fastest link there is: beyond it a rate is a slip of the keyboard. */
#define RATE_MOST_BITS_S 1e13
/* Below this nothing would end. */
#define RATE_LEAST_BITS_S 8e3

static const char *const day_names[WEEK_DAYS] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};

/* --- rates --------------------------------------------------------------------------------- */

/* Factor to bits per second, 0: no such unit. */
static double unit_factor(const char *unit)
{
    static const char prefixes[] = "KMGT";
    const char *prefix = *unit ? strchr(prefixes, *unit >= 'a' ? *unit - 32 : *unit) : NULL;
    double factor = 1, step = 1000;
    bool bytes = false;

    if (prefix && *prefix)
        unit++;
    else
        prefix = NULL;
    if (prefix && strncasecmp(unit, "ib", 2) == 0 && strncasecmp(unit, "bit", 3) != 0) {
        step = 1024;
        bytes = true;
        unit += 2;
    } else if (strncasecmp(unit, "bit", 3) == 0) {
        unit += 3;
    } else if (*unit == 'B') {
        bytes = true;
        unit++;
    }
    if (strcmp(unit, "/s") == 0)
        unit += 2;
    if (*unit)
        return 0;
    for (int i = prefix ? (int)(prefix - prefixes) + 1 : 0; i > 0; i--)
        factor *= step;
    return bytes ? factor * 8 : factor;
}

int bandwidth_parse_rate(const char *text, uint64_t *ret)
{
    char *end = NULL;
    double value, factor;

    if (strcasecmp(text, "off") == 0 || strcasecmp(text, "unlimited") == 0 ||
        strcmp(text, "0") == 0) {
        *ret = 0;
        return 0;
    }
    if (*text < '0' || *text > '9') /* strtod() also takes signs, "inf" and "nan" */
        return -EINVAL;
    value = strtod(text, &end);
    factor = unit_factor(end);
    if (end == text || factor <= 0)
        return -EINVAL;
    value *= factor;
    if (!(value >= RATE_LEAST_BITS_S && value <= RATE_MOST_BITS_S))
        return -EINVAL;
    *ret = (uint64_t)(value / 8);
    return 0;
}

const char *bandwidth_words(uint64_t rate_bytes_s, char *buf, size_t cap)
{
    double mbit = (double)rate_bytes_s * 8 / 1e6;

    if (rate_bytes_s == 0)
        snprintf(buf, cap, "no limit");
    else
        snprintf(buf, cap, mbit < 10 ? "%.2f Mbit/s" : "%.0f Mbit/s", mbit);
    return buf;
}

/* --- timetables ---------------------------------------------------------------------------- */

/* "Mon-..." -> 1, with *text behind the dash; -1: no day stands here. */
static int take_day(const char **text)
{
    for (int i = 0; i < WEEK_DAYS; i++) {
        if (strncasecmp(*text, day_names[i], 3) == 0 && (*text)[3] == '-') {
            *text += 4;
            return i;
        }
    }
    return -1;
}

static uint8_t take_days(const char **text)
{
    int first = take_day(text), last;
    unsigned days = 0;

    if (first < 0)
        return EVERY_DAY;
    last = take_day(text);
    if (last < 0)
        last = first;
    for (int day = first;; day = (day + 1) % WEEK_DAYS) {
        days |= 1u << day;
        if (day == last)
            return (uint8_t)days;
    }
}

static int parse_entry(const char *word, struct timetable_entry *ret)
{
    unsigned hour, minute;
    int used = 0;

    ret->days = take_days(&word);
    if (strspn(word, "0123456789") != 2 || sscanf(word, "%2u:%2u,%n", &hour, &minute, &used) != 2 ||
        used != 6 || hour > 23 || minute > 59)
        return -EINVAL;
    ret->minute = (uint16_t)(hour * 60 + minute);
    return bandwidth_parse_rate(word + used, &ret->rate_bytes_s);
}

int timetable_parse(const char *text, struct timetable *ret)
{
    struct timetable t = {0};
    char copy[1024], *save = NULL;
    uint64_t rate;
    int r;

    if (bandwidth_parse_rate(text, &rate) == 0) {
        t.entries[0] = (struct timetable_entry){EVERY_DAY, 0, rate};
        t.count = rate ? 1 : 0;
        *ret = t;
        return 0;
    }
    if (strlen(text) >= sizeof(copy))
        return -E2BIG;
    snprintf(copy, sizeof(copy), "%s", text);
    for (char *word = strtok_r(copy, " \t", &save); word; word = strtok_r(NULL, " \t", &save)) {
        if (t.count == TIMETABLE_ENTRIES_MAX)
            return -E2BIG;
        r = parse_entry(word, &t.entries[t.count++]);
        if (r < 0)
            return r;
    }
    if (t.count == 0)
        return -EINVAL;
    *ret = t;
    return 0;
}

/* Minutes since the entry last began; the week goes round. */
static int age_minutes(const struct timetable_entry *e, const struct tm *local)
{
    int now = local->tm_hour * 60 + local->tm_min, age;

    for (int back = 0; back <= WEEK_DAYS; back++) {
        int day = (local->tm_wday - back + WEEK_DAYS) % WEEK_DAYS;

        age = back * DAY_MINUTES + now - e->minute;
        if (e->days & (1u << day) && age >= 0)
            return age;
    }
    return (WEEK_DAYS + 1) * DAY_MINUTES;
}

uint64_t timetable_rate(const struct timetable *t, const struct tm *local)
{
    int best = (WEEK_DAYS + 2) * DAY_MINUTES;
    uint64_t rate = 0;

    for (unsigned i = 0; i < t->count; i++) {
        int age = age_minutes(&t->entries[i], local);

        if (age < best) {
            best = age;
            rate = t->entries[i].rate_bytes_s;
        }
    }
    return rate;
}
