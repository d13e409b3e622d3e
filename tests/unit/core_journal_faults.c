/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The journal on a disk that fails: a failed fsync and a full disk stop the daemon before anybody hears
 * that the record is durable, what was durable before is there afterwards, and a torn file is either
 * read up to the tear (the write-ahead log) or refused in words (the database itself).
 *
 * The failing disk is a VFS of SQLite's around the real one.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "core/base/macros.h"
#include "core/journal.h"

/* --- a disk that fails --------------------------------------------------------------------- */

static struct {
    bool sync, write; /* which of them fail from now on */
} broken;

struct faulty_file {
    sqlite3_file base;
    sqlite3_file *real; /* behind this struct */
};

static sqlite3_vfs *real_vfs;

static sqlite3_file *real_of(sqlite3_file *f)
{
    return ((struct faulty_file *)f)->real;
}

static int faulty_close(sqlite3_file *f)
{
    return real_of(f)->pMethods->xClose(real_of(f));
}

static int faulty_read(sqlite3_file *f, void *to, int n, sqlite3_int64 at)
{
    return real_of(f)->pMethods->xRead(real_of(f), to, n, at);
}

static int faulty_write(sqlite3_file *f, const void *from, int n, sqlite3_int64 at)
{
    return broken.write ? SQLITE_FULL : real_of(f)->pMethods->xWrite(real_of(f), from, n, at);
}

static int faulty_truncate(sqlite3_file *f, sqlite3_int64 size)
{
    return real_of(f)->pMethods->xTruncate(real_of(f), size);
}

static int faulty_sync(sqlite3_file *f, int flags)
{
    return broken.sync ? SQLITE_IOERR_FSYNC : real_of(f)->pMethods->xSync(real_of(f), flags);
}

static int faulty_size(sqlite3_file *f, sqlite3_int64 *ret)
{
    return real_of(f)->pMethods->xFileSize(real_of(f), ret);
}

static int faulty_lock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xLock(real_of(f), how);
}

static int faulty_unlock(sqlite3_file *f, int how)
{
    return real_of(f)->pMethods->xUnlock(real_of(f), how);
}

static int faulty_check(sqlite3_file *f, int *ret)
{
    return real_of(f)->pMethods->xCheckReservedLock(real_of(f), ret);
}

static int faulty_control(sqlite3_file *f, int op, void *arg)
{
    return real_of(f)->pMethods->xFileControl(real_of(f), op, arg);
}

static int faulty_sector(sqlite3_file *f)
{
    return real_of(f)->pMethods->xSectorSize(real_of(f));
}

static int faulty_traits(sqlite3_file *f)
{
    return real_of(f)->pMethods->xDeviceCharacteristics(real_of(f));
}

/* Version 1: no shared memory, which the exclusive locking mode does without. */
static const sqlite3_io_methods faulty_methods = {
    .iVersion = 1,
    .xClose = faulty_close,
    .xRead = faulty_read,
    .xWrite = faulty_write,
    .xTruncate = faulty_truncate,
    .xSync = faulty_sync,
    .xFileSize = faulty_size,
    .xLock = faulty_lock,
    .xUnlock = faulty_unlock,
    .xCheckReservedLock = faulty_check,
    .xFileControl = faulty_control,
    .xSectorSize = faulty_sector,
    .xDeviceCharacteristics = faulty_traits,
};

static int faulty_open(sqlite3_vfs *vfs, sqlite3_filename name, sqlite3_file *f, int flags,
                       int *ret_flags)
{
    struct faulty_file *file = (struct faulty_file *)f;
    int r;

    (void)vfs;
    file->base.pMethods = NULL;
    file->real = (sqlite3_file *)(file + 1);
    r = real_vfs->xOpen(real_vfs, name, file->real, flags, ret_flags);
    if (r == SQLITE_OK)
        file->base.pMethods = &faulty_methods;
    return r;
}

static int break_disks(void **state)
{
    static sqlite3_vfs vfs;

    (void)state;
    real_vfs = sqlite3_vfs_find(NULL);
    vfs = *real_vfs;
    vfs.zName = "faulty";
    vfs.pNext = NULL;
    vfs.szOsFile = (int)sizeof(struct faulty_file) + real_vfs->szOsFile;
    vfs.xOpen = faulty_open;
    return sqlite3_vfs_register(&vfs, 1) == SQLITE_OK ? 0 : -1;
}

/* --- a place for a journal ----------------------------------------------------------------- */

struct place {
    char folder[32], path[64], wal[72], words[64];
};

static void place_new(struct place *p)
{
    strcpy(p->folder, "/tmp/ferry-faults-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof(p->path), "%s/journal.db", p->folder);
    snprintf(p->wal, sizeof(p->wal), "%s-wal", p->path);
    snprintf(p->words, sizeof(p->words), "%s/words", p->folder);
}

static void place_free(struct place *p)
{
    unlink(p->path);
    unlink(p->wal);
    unlink(p->words);
    assert_int_equal(rmdir(p->folder), 0);
}

static void put(struct journal *j, const char *id, const char *state, int filler,
                void (*on_durable)(void *user), void *user)
{
    char document[8192] = "{}";
    struct journal_record r = {.role = JOURNAL_SOURCE, .document = document};

    memset(document + 2, ' ', (size_t)filler);
    document[2 + filler] = '\0';
    snprintf(r.id, sizeof(r.id), "%s", id);
    snprintf(r.state, sizeof(r.state), "%s", state);
    assert_int_equal(journal_put(j, &r, on_durable, user), 0);
}

enum { CHILD_DURABLE = 3 };

static void on_told_durable(void *user)
{
    (void)user;
    _exit(CHILD_DURABLE);
}

struct daemon {
    struct journal *journal;
    void (*wound)(void);
};

static void on_first_durable(void *user)
{
    struct daemon *d = user;

    if (!d->wound)
        _exit(CHILD_DURABLE);
    d->wound();
    put(d->journal, "a", "commit", 0, on_told_durable, NULL);
}

/* A daemon that records "moving", is wounded, and records "commit". Returns how it ended; its words are
 * in the place. */
static int run_daemon(struct place *p, void (*wound)(void))
{
    int status;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        struct daemon d = {.wound = wound};
        struct error err = {0};
        uv_loop_t loop;
        int fd = open(p->words, O_WRONLY | O_CREAT | O_TRUNC, 0600);

        dup2(fd, STDERR_FILENO);
        uv_loop_init(&loop);
        if (journal_open(&loop, p->path, &d.journal, &err) < 0)
            _exit(1);
        put(d.journal, "a", "moving", 0, on_first_durable, &d);
        uv_run(&loop, UV_RUN_DEFAULT);
        _exit(2);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void expect_words(struct place *p, const char *const *wanted, size_t count)
{
    char text[2048] = {0};
    int fd = open(p->words, O_RDONLY);

    assert_true(read(fd, text, sizeof(text) - 1) > 0);
    close(fd);
    for (size_t i = 0; i < count; i++) {
        if (!strstr(text, wanted[i]))
            fail_msg("'%s' is not in: %s", wanted[i], text);
    }
}

static void expect_state(struct place *p, const char *id, const char *one, const char *other)
{
    struct journal_record *records = NULL;
    struct journal *j = NULL;
    struct error err = {0};
    size_t count = 0;
    uv_loop_t loop;

    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(journal_open(&loop, p->path, &j, &err), 0);
    assert_int_equal(journal_load(j, 10, &records, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_string_equal(records[0].id, id);
    assert_true(strcmp(records[0].state, one) == 0 || strcmp(records[0].state, other) == 0);
    journal_records_free(records, count);
    journal_close(j);
    uv_run(&loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&loop), 0);
}

/* --- the cases ----------------------------------------------------------------------------- */

static void break_sync(void)
{
    broken.sync = true;
}

static void fill_disk(void)
{
    broken.write = true;
}

static void break_nothing(void)
{
}

static void test_whole_disk(void **state)
{
    struct place p;

    (void)state;
    place_new(&p);
    assert_int_equal(run_daemon(&p, break_nothing), CHILD_DURABLE);
    expect_state(&p, "a", "commit", "commit");
    place_free(&p);
}

static void test_failed_fsync_stops_the_daemon(void **state)
{
    static const char *const words[] = {"cannot record state commit of move a", "dmesg",
                                        "promises that are not durable must not be made"};
    struct place p;

    (void)state;
    place_new(&p);
    assert_int_equal(run_daemon(&p, break_sync), 70);
    expect_words(&p, words, ARRAY_SIZE(words));
    expect_state(&p, "a", "moving", "commit"); /* nobody was told which */
    place_free(&p);
}

static void test_full_disk_stops_the_daemon(void **state)
{
    static const char *const words[] = {"cannot record state commit of move a", "full",
                                        "free space"};
    struct place p;

    (void)state;
    place_new(&p);
    assert_int_equal(run_daemon(&p, fill_disk), 70);
    expect_words(&p, words, ARRAY_SIZE(words));
    expect_state(&p, "a", "moving", "moving");
    place_free(&p);
}

static void test_full_disk_at_the_start(void **state)
{
    struct journal *j = NULL;
    struct error err = {0};
    struct place p;
    uv_loop_t loop;

    (void)state;
    place_new(&p);
    assert_int_equal(uv_loop_init(&loop), 0);
    broken.write = true;
    assert_true(journal_open(&loop, p.path, &j, &err) < 0);
    broken.write = false;
    assert_null(j);
    assert_non_null(strstr(err.why, p.path));
    assert_non_null(strstr(err.mend, "free space"));
    assert_int_equal(uv_loop_close(&loop), 0);
    place_free(&p);
}

/* The last write was under way when the power failed: any part of it may be missing. */
static void test_torn_log_counts_up_to_the_tear(void **state)
{
    struct stat before, after;
    struct place p;

    (void)state;
    for (int lost = 1; lost < 4096; lost += 511) {
        place_new(&p);
        assert_int_equal(run_daemon(&p, NULL), CHILD_DURABLE); /* a crash: "moving", in the log */
        assert_int_equal(stat(p.wal, &before), 0);
        assert_int_equal(run_daemon(&p, break_nothing), CHILD_DURABLE);
        assert_int_equal(stat(p.wal, &after), 0);
        assert_true(after.st_size > lost);
        assert_int_equal(truncate(p.wal, after.st_size - lost), 0);
        expect_state(&p, "a", "moving", "moving");
        place_free(&p);
    }
}

static void test_torn_file_is_refused(void **state)
{
    struct journal *j = NULL;
    struct error err = {0};
    struct stat st;
    struct place p;
    uv_loop_t loop;

    (void)state;
    place_new(&p);
    assert_int_equal(uv_loop_init(&loop), 0);
    assert_int_equal(journal_open(&loop, p.path, &j, &err), 0);
    for (int i = 0; i < 20; i++) {
        char id[8];

        snprintf(id, sizeof(id), "m%02d", i);
        put(j, id, "moving", 4000, NULL, NULL);
    }
    journal_close(j);
    uv_run(&loop, UV_RUN_DEFAULT);
    j = NULL;
    assert_int_equal(stat(p.path, &st), 0);
    assert_int_equal(truncate(p.path, st.st_size / 2), 0);
    assert_true(journal_open(&loop, p.path, &j, &err) < 0);
    assert_null(j);
    assert_non_null(strstr(err.why, p.path));
    assert_non_null(strstr(err.mend, "damaged"));
    assert_int_equal(uv_loop_close(&loop), 0);
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_whole_disk),
        cmocka_unit_test(test_failed_fsync_stops_the_daemon),
        cmocka_unit_test(test_full_disk_stops_the_daemon),
        cmocka_unit_test(test_full_disk_at_the_start),
        cmocka_unit_test(test_torn_log_counts_up_to_the_tear),
        cmocka_unit_test(test_torn_file_is_refused),
    };

    return cmocka_run_group_tests(tests, break_disks, NULL);
}
