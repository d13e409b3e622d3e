/* SPDX-License-Identifier: Apache-2.0 */
/* The journal: what was put is there after a restart, and a file that must not be used is refused in words. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>
#include <sqlite3.h>

#include "core/base/macros.h"
#include "core/journal.h"

struct place {
    char folder[32], path[64];
    uv_loop_t loop;
};

static void place_new(struct place *p)
{
    strcpy(p->folder, "/tmp/ferry-journal-XXXXXX");
    assert_non_null(mkdtemp(p->folder));
    snprintf(p->path, sizeof(p->path), "%s/journal.db", p->folder);
    assert_int_equal(uv_loop_init(&p->loop), 0);
}

static void place_free(struct place *p)
{
    static const char *const endings[] = {"", "-wal", "-shm", "-journal"};
    char path[80];

    uv_run(&p->loop, UV_RUN_DEFAULT);
    assert_int_equal(uv_loop_close(&p->loop), 0);
    for (size_t i = 0; i < ARRAY_SIZE(endings); i++) {
        snprintf(path, sizeof(path), "%s%s", p->path, endings[i]);
        unlink(path);
    }
    assert_int_equal(rmdir(p->folder), 0);
}

static struct journal *open_good(struct place *p)
{
    struct journal *j = NULL;
    struct error err = {0};
    char line[1024];

    if (journal_open(&p->loop, p->path, &j, &err) < 0)
        fail_msg("%s", error_line(&err, line, sizeof(line)));
    return j;
}

static void close_now(struct place *p, struct journal *j)
{
    journal_close(j);
    uv_run(&p->loop, UV_RUN_DEFAULT);
}

static void put(struct journal *j, const char *id, enum journal_role role, const char *state,
                int finished, int64_t created_ms, void (*on_durable)(void *user), void *user)
{
    char document[64];
    struct journal_record r = {
        .role = role, .finished = finished, .created_ms = created_ms, .document = document};

    snprintf(r.id, sizeof(r.id), "%s", id);
    snprintf(r.state, sizeof(r.state), "%s", state);
    snprintf(document, sizeof(document), "{\"state\": \"%s\"}", state);
    assert_int_equal(journal_put(j, &r, on_durable, user), 0);
    memset(document, 'x', sizeof(document) - 1); /* the journal has its own copy */
}

static void test_what_was_put_is_there(void **state)
{
    struct journal_record *records = NULL;
    struct error err = {0};
    struct journal *j;
    struct place p;
    size_t count = 0;

    (void)state;
    place_new(&p);
    j = open_good(&p);
    assert_int_equal(journal_load(j, 10, &records, &count, &err), 0);
    assert_int_equal(count, 0);
    put(j, "b", JOURNAL_SOURCE, "moving", 0, 2000, NULL, NULL);
    put(j, "a", JOURNAL_SOURCE, "moving", 0, 1000, NULL, NULL);
    put(j, "a", JOURNAL_TARGET, "receiving", 0, 1001, NULL,
        NULL); /* both roles of one id: a loop to itself */
    put(j, "b", JOURNAL_SOURCE, "commit", 0, 9999, NULL, NULL); /* the same move goes on */
    close_now(&p, j);

    j = open_good(&p);
    assert_int_equal(journal_load(j, 10, &records, &count, &err), 0);
    assert_int_equal(count, 3);
    assert_string_equal(records[0].id, "a");
    assert_int_equal(records[0].role, JOURNAL_SOURCE);
    assert_int_equal(records[1].role, JOURNAL_TARGET);
    assert_string_equal(records[2].id, "b");
    assert_string_equal(records[2].state, "commit");
    assert_string_equal(records[2].document, "{\"state\": \"commit\"}");
    assert_int_equal(records[2].created_ms, 2000); /* when it began, not when it changed */
    journal_records_free(records, count);
    journal_close(j);
    journal_close(NULL);
    place_free(&p);
}

/* Unfinished ones always, of the finished the newest, all in the order of their beginning. */
static void test_load_is_bounded(void **state)
{
    static const char *const wanted[] = {"m00", "m18", "m19"};
    struct journal_record *records = NULL;
    struct error err = {0};
    struct journal *j;
    struct place p;
    size_t count = 0;

    (void)state;
    place_new(&p);
    j = open_good(&p);
    for (int i = 19; i >= 0; i--) {
        char id[8];

        snprintf(id, sizeof(id), "m%02d", i);
        put(j, id, JOURNAL_SOURCE, "done", i != 0, i, NULL, NULL);
    }
    close_now(&p, j);
    j = open_good(&p);
    assert_int_equal(journal_load(j, 2, &records, &count, &err), 0);
    assert_int_equal(count, ARRAY_SIZE(wanted));
    for (size_t i = 0; i < count; i++)
        assert_string_equal(records[i].id, wanted[i]);
    journal_records_free(records, count);
    journal_close(j);
    place_free(&p);
}

struct order {
    unsigned next;
    const char *path;
    struct {
        struct order *order;
        unsigned number;
    } calls[20];
};

/* What is on disk, seen past the journal: the write-ahead log has grown by then. */
static void on_durable(void *user)
{
    typeof(((struct order *)NULL)->calls[0]) *call = user;
    char wal[80];

    snprintf(wal, sizeof(wal), "%s-wal", call->order->path);
    assert_int_equal(access(wal, F_OK), 0);
    assert_int_equal(call->number, call->order->next);
    call->order->next++;
}

static void test_callbacks_come_in_order(void **state)
{
    struct order order = {0};
    struct journal *j;
    struct place p;

    (void)state;
    place_new(&p);
    j = open_good(&p);
    order.path = p.path;
    for (unsigned i = 0; i < ARRAY_SIZE(order.calls); i++) {
        order.calls[i].order = &order;
        order.calls[i].number = i;
        put(j, "a", JOURNAL_SOURCE, "moving", 0, i, on_durable, &order.calls[i]);
    }
    assert_int_equal(order.next, 0); /* never before the loop turns */
    while (order.next < ARRAY_SIZE(order.calls))
        uv_run(&p.loop, UV_RUN_ONCE);
    journal_close(j);
    place_free(&p);
}

static void on_survived(void *user)
{
    (void)user;
    _exit(0); /* no closing, no flushing: as a crash right after the promise */
}

static void test_survives_a_crash_after_the_callback(void **state)
{
    struct journal_record *records = NULL;
    struct error err = {0};
    struct journal *j;
    struct place p;
    size_t count = 0;
    int status;
    pid_t pid;

    (void)state;
    place_new(&p);
    assert_int_equal(uv_loop_close(&p.loop), 0);
    pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        uv_loop_init(&p.loop);
        j = open_good(&p);
        put(j, "a", JOURNAL_TARGET, "prepared", 0, 1, on_survived, NULL);
        uv_run(&p.loop, UV_RUN_DEFAULT);
        _exit(1);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(uv_loop_init(&p.loop), 0);
    j = open_good(&p);
    assert_int_equal(journal_load(j, 10, &records, &count, &err), 0);
    assert_int_equal(count, 1);
    assert_string_equal(records[0].state, "prepared");
    journal_records_free(records, count);
    journal_close(j);
    place_free(&p);
}

static void test_second_opener_is_refused(void **state)
{
    struct journal *j, *second = NULL;
    struct error err = {0};
    struct place p;

    (void)state;
    place_new(&p);
    j = open_good(&p);
    assert_int_equal(journal_open(&p.loop, p.path, &second, &err), -EBUSY);
    assert_null(second);
    assert_non_null(strstr(err.why, p.path));
    close_now(&p, j);
    j = open_good(&p); /* and free again afterwards */
    journal_close(j);
    place_free(&p);
}

static void run_sql(const char *path, const char *sql)
{
    sqlite3 *db;

    assert_int_equal(sqlite3_open(path, &db), SQLITE_OK);
    assert_int_equal(sqlite3_exec(db, sql, NULL, NULL, NULL), SQLITE_OK);
    sqlite3_close(db);
}

static void test_newer_schema_is_refused(void **state)
{
    struct journal *j = NULL;
    struct error err = {0};
    struct place p;

    (void)state;
    place_new(&p);
    close_now(&p, open_good(&p));
    run_sql(p.path, "PRAGMA user_version = 3");
    assert_int_equal(journal_open(&p.loop, p.path, &j, &err), -EPROTONOSUPPORT);
    assert_non_null(strstr(err.why, "schema 3"));
    assert_non_null(strstr(err.mend, "newer"));
    run_sql(p.path, "PRAGMA user_version = 1");
    journal_close(open_good(&p)); /* refusing changed nothing; an older one is brought up to date */
    place_free(&p);
}

static void test_damaged_file(void **state)
{
    static char noise[8192];
    struct journal *j = NULL;
    struct error err = {0};
    struct place p;
    int fd;

    (void)state;
    place_new(&p);
    memset(noise, '#', sizeof(noise));
    fd = open(p.path, O_WRONLY | O_CREAT, 0600);
    assert_int_equal(write(fd, noise, sizeof(noise)), sizeof(noise));
    close(fd);
    assert_int_equal(journal_open(&p.loop, p.path, &j, &err), -EIO);
    assert_non_null(strstr(err.why, p.path));
    assert_non_null(strstr(err.mend, "virsh list"));
    place_free(&p);
}

static void test_no_folder(void **state)
{
    struct journal *j = NULL;
    struct error err = {0};
    struct place p;

    (void)state;
    place_new(&p);
    assert_true(journal_open(&p.loop, "/nonexistent/journal.db", &j, &err) < 0);
    assert_non_null(strstr(err.why, "/nonexistent/journal.db"));
    place_free(&p);
}

/* A file that a first start made and did not fill. */
static void test_empty_file(void **state)
{
    struct place p;

    (void)state;
    place_new(&p);
    run_sql(p.path, "PRAGMA journal_mode=WAL");
    journal_close(open_good(&p));
    place_free(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_was_put_is_there),
        cmocka_unit_test(test_load_is_bounded),
        cmocka_unit_test(test_callbacks_come_in_order),
        cmocka_unit_test(test_survives_a_crash_after_the_callback),
        cmocka_unit_test(test_second_opener_is_refused),
        cmocka_unit_test(test_newer_schema_is_refused),
        cmocka_unit_test(test_damaged_file),
        cmocka_unit_test(test_no_folder),
        cmocka_unit_test(test_empty_file),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
