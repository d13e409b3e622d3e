/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Bandwidth limits as people write them: rates, and timetables of rates.
 *
 *   rate        200M, 200Mbit, 1.5G: bits per second, decimal, as links are sold; 25MB, 25MiB: bytes per second;
 *               off (also unlimited, 0): none
 *   timetable   ENTRY [ENTRY ...] with ENTRY = [DAY-[DAY-]]HH:MM,RATE: from that minute on, every day or on
 *               these days, in local time:   08:00,200M 18:00,off   Mon-Fri-08:00,200M Sat-00:00,off
 *               What the last entry said holds until the next one, over midnight and over the week's end.
 */
#ifndef FERRY_CORE_BANDWIDTH_H
#define FERRY_CORE_BANDWIDTH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

enum { TIMETABLE_ENTRIES_MAX = 16 };

struct timetable {
    struct timetable_entry {
        uint8_t days;          /* bit 0: Sunday, as tm_wday counts */
        uint16_t minute;       /* of the day */
        uint64_t rate_bytes_s; /* 0: no limit */
    } entries[TIMETABLE_ENTRIES_MAX];
    unsigned count; /* 0: never a limit */
};

/* 0 with bytes per second in *ret (0: no limit), or -EINVAL. */
int bandwidth_parse_rate(const char *text, uint64_t *ret);
/* A timetable, or a single rate that always holds. -EINVAL, -E2BIG: too many entries. */
int timetable_parse(const char *text, struct timetable *ret);
/* The rate that holds at a local time; 0: no limit. */
uint64_t timetable_rate(const struct timetable *t, const struct tm *local);
/* "200 Mbit/s", "no limit". Returns @buf. */
const char *bandwidth_words(uint64_t rate_bytes_s, char *buf, size_t cap);

#endif
