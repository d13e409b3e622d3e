/* SPDX-License-Identifier: Apache-2.0 */
/* etcd's transactions in JSON, and the right to run: what each wish may change, and into what. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/switchover/etcd.h"
#include "core/switchover/right.h"

static void expect_transaction(const char *before, const char *after, const char *wanted)
{
    char *text = etcd_transaction("/ferry/right/1234", before, after);

    assert_non_null(text);
    assert_string_equal(text, wanted);
    free(text);
}

#define KEY "\"key\":\"L2ZlcnJ5L3JpZ2h0LzEyMzQ=\""
#define ELSE_READ "\"failure\":[{\"request_range\":{" KEY "}}]"

static void test_transactions(void **state)
{
    (void)state;
    expect_transaction("armed", "held",
                       "{\"success\":[{\"request_put\":{" KEY
                       ",\"value\":\"aGVsZA==\"}}]," ELSE_READ
                       ",\"compare\":[{\"target\":\"VALUE\",\"result\":\"EQUAL\"," KEY
                       ",\"value\":\"YXJtZWQ=\"}]}");
    expect_transaction(NULL, "armed",
                       "{\"success\":[{\"request_put\":{" KEY
                       ",\"value\":\"YXJtZWQ=\"}}]," ELSE_READ
                       ",\"compare\":[{\"target\":\"CREATE\",\"result\":\"EQUAL\"," KEY
                       ",\"create_revision\":\"0\"}]}");
    expect_transaction("given", NULL,
                       "{\"success\":[{\"request_delete_range\":{" KEY "}}]," ELSE_READ "}");
}

static int answer(const char *body, bool *changed, char value[ETCD_VALUE_BYTES])
{
    struct error err = {0};

    return etcd_answer(body, changed, value, &err);
}

/* As etcd 3.4 answers. */
#define HEADER                                                                                     \
    "\"header\":{\"cluster_id\":\"1\",\"member_id\":\"2\",\"revision\":\"3\",\"raft_term\":\"4\"}"

static void test_answers(void **state)
{
    char value[ETCD_VALUE_BYTES];
    bool changed = false;

    (void)state;
    assert_int_equal(answer("{" HEADER ",\"succeeded\":true,\"responses\":[{\"response_put\":{}}]}",
                            &changed, value),
                     0);
    assert_true(changed);
    assert_int_equal(
        answer("{" HEADER ",\"responses\":[{\"response_range\":{" HEADER
               ",\"kvs\":[{\"key\":\"eA==\",\"value\":\"aGVsZA==\"}],\"count\":\"1\"}}]}",
               &changed, value),
        0);
    assert_false(changed);
    assert_string_equal(value, "held");
    assert_int_equal(
        answer("{" HEADER ",\"responses\":[{\"response_range\":{" HEADER "}}]}", &changed, value),
        0);
    assert_false(changed);
    assert_string_equal(value, "");
}

static void test_what_is_no_answer(void **state)
{
    static const char *const bodies[] = {
        "",
        "<html>",
        "[]",
        "{}",
        "{\"error\":\"etcdserver: request timed out\",\"code\":14}",
        "{\"succeeded\":false}",
        "{" HEADER "}",
        "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"key\":\"eA==\"}]}}]}",
        "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"value\":\"aGV\"}]}}]}",
        "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"value\":\"====\"}]}}]}",
        "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"value\":\"!!!!\"}]}}]}",
        "{" HEADER ",\"responses\":[{\"response_range\":{\"kvs\":[{\"value\":"
        "\"YWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYWFhYQ=="
        "\"}"
        "]}}]}",
    };
    char value[ETCD_VALUE_BYTES];
    bool changed = true;

    (void)state;
    for (size_t i = 0; i < sizeof(bodies) / sizeof(bodies[0]); i++)
        assert_int_equal(answer(bodies[i], &changed, value), -EPROTO);
}

/* Whatever is wished, in any order: a value left does not come back, and what excludes each other does. */
static void test_rights(void **state)
{
    enum right right;

    (void)state;
    for (int wish = RIGHT_WISH_ARM; wish < RIGHT_WISH_FORGET; wish++) {
        for (int now = RIGHT_NONE; now < RIGHTS; now++) {
            enum right after = right_after((enum right_wish)wish, (enum right)now);

            if (now == RIGHT_KEPT || now == RIGHT_RESUMED)
                assert_int_equal(after, now);
            if (now == RIGHT_NONE)
                assert_true(after == RIGHT_NONE || wish == RIGHT_WISH_ARM);
            /* Doing it twice is doing it once: an answer that was lost is found again. */
            if (wish != RIGHT_WISH_CLAIM || after != RIGHT_GIVEN)
                assert_int_equal(right_after((enum right_wish)wish, after), after);
        }
        assert_true(right_after((enum right_wish)wish, right_expected((enum right_wish)wish)) !=
                    right_expected((enum right_wish)wish));
    }
    assert_int_equal(right_after(RIGHT_WISH_CLAIM, RIGHT_HELD), RIGHT_HELD);
    assert_int_equal(right_after(RIGHT_WISH_KEEP, RIGHT_CLAIMED), RIGHT_CLAIMED);
    assert_int_equal(right_after(RIGHT_WISH_HOLD, RIGHT_KEPT), RIGHT_KEPT);
    assert_int_equal(right_after(RIGHT_WISH_GIVE, RIGHT_ARMED), RIGHT_ARMED);
    for (int r = RIGHT_ARMED; r < RIGHTS; r++) {
        assert_true(right_parse(right_name((enum right)r), &right));
        assert_int_equal(right, r);
    }
    assert_false(right_parse("none", &right));
    assert_false(right_parse("held ", &right));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_transactions),
        cmocka_unit_test(test_answers),
        cmocka_unit_test(test_what_is_no_answer),
        cmocka_unit_test(test_rights),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
