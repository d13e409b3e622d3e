/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal: what this site has promised, in SQLite (WAL, synchronous=FULL), off the loop thread.
 *
 * One row a move: its role here, its state, and a JSON document with what recovery and history need; and one for
 * the evacuation of this host.
 * A write has happened, and survives a power failure, when its callback runs. A write that fails (a full
 * or broken disk, a failed fsync) stops the daemon with status 70: a site that cannot remember its
 * promises must not make any. Whether that last write is there after the restart is not known; the
 * commit protocol is right either way. A write-ahead log that was torn in the middle of a write counts
 * up to there. A file that is damaged, or of a newer ferry, is refused in words, never repaired.
 */
#ifndef FERRY_CORE_JOURNAL_H
#define FERRY_CORE_JOURNAL_H

#include <stdint.h>
#include <uv.h>

#include "core/base/error.h"

struct journal;

enum { JOURNAL_ID_BYTES = 40, JOURNAL_STATE_BYTES = 24 };

enum journal_role {
    JOURNAL_SOURCE = 0,
    JOURNAL_TARGET = 1,
    JOURNAL_EVACUATION = 2, /* since schema 2 */
};

struct journal_record {
    char id[JOURNAL_ID_BYTES];
    enum journal_role role;
    char state[JOURNAL_STATE_BYTES];
    int finished;       /* nothing is left to do for recovery */
    int64_t created_ms; /* wall clock */
    char *document;     /* JSON; owned by the record */
};

/* Opens or creates the file. -EPROTONOSUPPORT: written by a newer ferry. -EBUSY: another ferryd has it. */
int journal_open(uv_loop_t *loop, const char *path, struct journal **ret, struct error *err);
/* After the last write's callback. */
void journal_close(struct journal *j);

/* All unfinished records and the newest @limit finished ones, oldest first. Blocking; at start-up only. */
int journal_load(struct journal *j, unsigned limit, struct journal_record **ret_records,
                 size_t *ret_count, struct error *err);
void journal_records_free(struct journal_record *records, size_t count);

/*
 * Writes one record (the one with the same id and role is replaced). @on_durable runs on the loop
 * thread, may be NULL, and is called in the order of the puts.
 */
int journal_put(struct journal *j, const struct journal_record *record,
                void (*on_durable)(void *user), void *user);

#endif
