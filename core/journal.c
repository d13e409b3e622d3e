/* SPDX-License-Identifier: Apache-2.0 */
/* The journal on SQLite: see journal.h. */
#include "core/journal.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <sqlite3.h>

#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/worker.h"

enum { SCHEMA_VERSION = 2 };

struct journal {
    sqlite3 *db;
    struct worker *worker;
};

struct put_job {
    struct worker_job job;
    sqlite3 *db;
    struct journal_record record;
    void (*on_durable)(void *user);
    void *user;
    int fault; /* SQLite's code */
    char why[256];
};

/* One transaction: a crash in it leaves no table without its version. */
static const char SCHEMA[] =
    "BEGIN IMMEDIATE;"
    "CREATE TABLE moves("
    " id TEXT NOT NULL, role INTEGER NOT NULL, state TEXT NOT NULL,"
    " finished INTEGER NOT NULL, created_ms INTEGER NOT NULL, document TEXT NOT NULL,"
    " PRIMARY KEY(id, role)) WITHOUT ROWID;"
    "PRAGMA user_version = 2;"
    "COMMIT;";

/* From 1, which knew no evacuations. */
static const char UPGRADE[] = "PRAGMA user_version = 2;";

static int schema_version(sqlite3 *db)
{
    sqlite3_stmt *stmt = NULL;
    int version = -1;

    if (sqlite3_prepare_v2(db, "PRAGMA user_version", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        version = sqlite3_column_int(stmt, 0);
    sqlite3_finalize(stmt);
    return version;
}

static const char DAMAGED[] = "the file is damaged: restore it, or move it away after checking "
                              "with `virsh list --all` on both "
                              "sites that no move is half-done";

/* One that was killed a moment ago holds the journal until the kernel has taken all of its memory back. */
enum { BUSY_MS = 5000 };

/* What an operator can do about SQLite's primary code; NULL: nothing in particular. */
static const char *mend_of(int code)
{
    switch (code & 0xff) {
    case SQLITE_NOTADB:
    case SQLITE_CORRUPT:
        return DAMAGED;
    case SQLITE_FULL:
        return "free space on that file system, then start ferryd again";
    case SQLITE_IOERR:
        return "look at the disk (dmesg), then start ferryd again";
    case SQLITE_BUSY:
        return "is another ferryd running with the same state_dir?";
    case SQLITE_READONLY:
    case SQLITE_CANTOPEN:
        return "see that root may write state_dir";
    default:
        return NULL;
    }
}

static int fault(sqlite3 *db, const char *path, struct error *err)
{
    int code = sqlite3_errcode(db);
    const char *mend = mend_of(code);

    return error_set(err, code == SQLITE_BUSY ? -EBUSY : -EIO, "open the journal", mend, "%s: %s",
                     path, sqlite3_errmsg(db));
}

/* A file that lost its end, or whose pages do not belong together, is found now, not in the middle of a
 * move. The journal is small: this takes milliseconds. */
static int check_whole(sqlite3 *db, const char *path, struct error *err)
{
    sqlite3_stmt *stmt = NULL;
    const char *verdict = NULL;
    int r = 0;

    if (sqlite3_prepare_v2(db, "PRAGMA quick_check(1)", -1, &stmt, NULL) == SQLITE_OK &&
        sqlite3_step(stmt) == SQLITE_ROW)
        verdict = (const char *)sqlite3_column_text(stmt, 0);
    if (!verdict)
        r = fault(db, path, err);
    else if (strcmp(verdict, "ok") != 0)
        r = error_set(err, -EIO, "open the journal", DAMAGED, "%s: %s", path, verdict);
    sqlite3_finalize(stmt);
    return r;
}

static int prepare_schema(sqlite3 *db, const char *path, struct error *err)
{
    int version;

    sqlite3_busy_timeout(db, BUSY_MS);
    if (sqlite3_exec(
            db, "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;",
            NULL, NULL, NULL) != SQLITE_OK)
        return fault(db, path, err);
    version = schema_version(db);
    if (version < 0)
        return fault(db, path, err);
    if (check_whole(db, path, err) < 0)
        return err->code;
    if (version > SCHEMA_VERSION)
        return error_set(err, -EPROTONOSUPPORT, "open the journal",
                         "run the ferry release that wrote it, or newer",
                         "%s has schema %d, this ferryd knows up to %d", path, version,
                         SCHEMA_VERSION);
    if (version < SCHEMA_VERSION &&
        sqlite3_exec(db, version ? UPGRADE : SCHEMA, NULL, NULL, NULL) != SQLITE_OK)
        return fault(db, path, err);
    /* Takes the exclusive lock now, so that a second ferryd on the same state fails at its start. */
    if (sqlite3_exec(db, "BEGIN IMMEDIATE; COMMIT;", NULL, NULL, NULL) != SQLITE_OK)
        return fault(db, path, err);
    return 0;
}

int journal_open(uv_loop_t *loop, const char *path, struct journal **ret, struct error *err)
{
    struct journal *j = calloc(1, sizeof(*j));
    int r;

    if (!j)
        return error_set(err, -ENOMEM, "open the journal", NULL, "out of memory");
    if (sqlite3_open_v2(path, &j->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
                        NULL) != SQLITE_OK)
        r = fault(j->db, path, err);
    else
        r = prepare_schema(j->db, path, err);
    if (r == 0) {
        r = worker_new(loop, "ferry-journal", &j->worker);
        if (r < 0)
            error_set(err, r, "open the journal", NULL, "no thread: %s", strerror(-r));
    }
    if (r < 0) {
        sqlite3_close(j->db);
        free(j);
        return r;
    }
    *ret = j;
    return 0;
}

struct close_job {
    struct worker_job job;
    struct journal *journal;
};

static void run_close(struct worker_job *job)
{
    struct close_job *c = container_of(job, struct close_job, job);

    sqlite3_close(c->journal->db);
}

static void done_close(struct worker_job *job)
{
    struct close_job *c = container_of(job, struct close_job, job);

    free(c->journal);
    free(c);
}

void journal_close(struct journal *j)
{
    struct close_job *c;

    if (!j)
        return;
    c = calloc(1, sizeof(*c));
    if (c) {
        c->job = (struct worker_job){.run = run_close, .done = done_close};
        c->journal = j;
        worker_post(j->worker, &c->job);
    }
    worker_retire(j->worker);
}

void journal_records_free(struct journal_record *records, size_t count)
{
    for (size_t i = 0; i < count; i++)
        free(records[i].document);
    free(records);
}

static int read_row(sqlite3_stmt *stmt, struct journal_record *ret)
{
    memset(ret, 0, sizeof(*ret));
    snprintf(ret->id, sizeof(ret->id), "%s", (const char *)sqlite3_column_text(stmt, 0));
    ret->role = (enum journal_role)sqlite3_column_int(stmt, 1);
    snprintf(ret->state, sizeof(ret->state), "%s", (const char *)sqlite3_column_text(stmt, 2));
    ret->finished = sqlite3_column_int(stmt, 3);
    ret->created_ms = sqlite3_column_int64(stmt, 4);
    ret->document = strdup((const char *)sqlite3_column_text(stmt, 5));
    return ret->document ? 0 : -ENOMEM;
}

int journal_load(struct journal *j, unsigned limit, struct journal_record **ret_records,
                 size_t *ret_count, struct error *err)
{
    static const char SELECT[] =
        "SELECT id, role, state, finished, created_ms, document FROM moves WHERE finished = 0 OR "
        "(id, role) IN"
        " (SELECT id, role FROM moves WHERE finished = 1 ORDER BY created_ms DESC LIMIT ?1)"
        " ORDER BY created_ms";
    struct journal_record *records = NULL;
    sqlite3_stmt *stmt = NULL;
    size_t count = 0;
    int step, r = 0;

    if (sqlite3_prepare_v2(j->db, SELECT, -1, &stmt, NULL) != SQLITE_OK)
        return fault(j->db, "read moves", err);
    sqlite3_bind_int(stmt, 1, (int)limit);
    while (r == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct journal_record *grown = reallocarray(records, count + 1, sizeof(*records));

        if (!grown) {
            r = -ENOMEM;
            break;
        }
        records = grown;
        r = read_row(stmt, &records[count++]);
    }
    if (r == 0 && step != SQLITE_DONE)
        r = fault(j->db, "read moves", err);
    else if (r < 0)
        error_set(err, r, "read the journal", NULL, "out of memory");
    sqlite3_finalize(stmt);
    if (r < 0) {
        journal_records_free(records, count);
        return r;
    }
    *ret_records = records;
    *ret_count = count;
    return 0;
}

static void run_put(struct worker_job *job)
{
    static const char UPSERT[] =
        "INSERT INTO moves(id, role, state, finished, created_ms, document) VALUES(?1, ?2, ?3, ?4, "
        "?5, ?6)"
        " ON CONFLICT(id, role) DO UPDATE SET state = ?3, finished = ?4, document = ?6";
    struct put_job *p = container_of(job, struct put_job, job);
    sqlite3_stmt *stmt = NULL;

    p->fault = sqlite3_prepare_v2(p->db, UPSERT, -1, &stmt, NULL);
    if (p->fault == SQLITE_OK) {
        sqlite3_bind_text(stmt, 1, p->record.id, -1, SQLITE_STATIC);
        sqlite3_bind_int(stmt, 2, (int)p->record.role);
        sqlite3_bind_text(stmt, 3, p->record.state, -1, SQLITE_STATIC);
        sqlite3_bind_int(stmt, 4, p->record.finished);
        sqlite3_bind_int64(stmt, 5, p->record.created_ms);
        sqlite3_bind_text(stmt, 6, p->record.document, -1, SQLITE_STATIC);
        p->fault = sqlite3_step(stmt);
        if (p->fault == SQLITE_DONE)
            p->fault = SQLITE_OK;
    }
    if (p->fault != SQLITE_OK)
        snprintf(p->why, sizeof(p->why), "%s", sqlite3_errmsg(p->db));
    sqlite3_finalize(stmt);
}

static void done_put(struct worker_job *job)
{
    struct put_job *p = container_of(job, struct put_job, job);

    if (p->fault != SQLITE_OK) {
        const char *mend = mend_of(p->fault);

        log_error("journal: cannot record state %s of move %s: %s%s%s; stopping, because promises "
                  "that are not durable must not be made",
                  p->record.state, p->record.id, p->why, mend ? "; " : "", mend ? mend : "");
        _exit(70); /* EX_SOFTWARE; recovery at the next start settles every open move */
    }
    if (p->on_durable)
        p->on_durable(p->user);
    free(p->record.document);
    free(p);
}

int journal_put(struct journal *j, const struct journal_record *record,
                void (*on_durable)(void *user), void *user)
{
    struct put_job *p = calloc(1, sizeof(*p));

    if (!p)
        return -ENOMEM;
    p->job = (struct worker_job){.run = run_put, .done = done_put};
    p->db = j->db;
    p->record = *record;
    p->record.document = strdup(record->document);
    if (!p->record.document) {
        free(p);
        return -ENOMEM;
    }
    p->on_durable = on_durable;
    p->user = user;
    worker_post(j->worker, &p->job);
    return 0;
}
