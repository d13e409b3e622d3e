/* SPDX-License-Identifier: Apache-2.0 */
/* How `ferry` shows a move: a live line on a terminal, a report at the end, a table of many. */
#ifndef FERRY_TOOLS_FERRY_PROGRESS_H
#define FERRY_TOOLS_FERRY_PROGRESS_H

#include <stdbool.h>

#include <jansson.h>

/* A new picture begins in the place of the last one: a line a move. No-op, like the next ones, unless standard output is a
 * terminal. */
void progress_begin(void);
/* A line of it, cut to the terminal's width. */
void progress_line(const char *line);
/* The same, of a move. */
void progress_show(const json_t *move);
/* Removes the live display. */
void progress_end(void);
/* The final report, in words. */
void progress_report(const json_t *move);
void progress_table(const json_t *moves, bool all);

#endif
