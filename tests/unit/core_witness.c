/* SPDX-License-Identifier: Apache-2.0 */
/* Wishes to a real etcd of one member on loopback: answered, refused by nobody, not answered, cancelled. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "core/switchover/witness.h"

enum { PORTS = 3 }; /* etcd's clients, etcd's peers, and one where nobody listens */

static struct {
    char folder[64];
    pid_t etcd;
    unsigned port[PORTS];
    uv_loop_t loop;
    struct witness_config config;
    struct witness *witness;
} t;

struct answer {
    int calls, code;
    enum right now;
};

static void on_answer(void *user, const struct error *err, enum right now)
{
    struct answer *a = user;

    a->calls++;
    a->code = err->code;
    a->now = now;
}

/* Ports that are free now. */
static void find_ports(void)
{
    int fds[PORTS];

    for (int i = 0; i < PORTS; i++) {
        struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
        socklen_t len = sizeof(sin);

        fds[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        assert_int_equal(bind(fds[i], (struct sockaddr *)&sin, sizeof(sin)), 0);
        assert_int_equal(getsockname(fds[i], (struct sockaddr *)&sin, &len), 0);
        t.port[i] = ntohs(sin.sin_port);
    }
    for (int i = 0; i < PORTS; i++)
        close(fds[i]);
}

static void start_etcd(void)
{
    char clients[64], peers[64], cluster[80];

    snprintf(clients, sizeof(clients), "http://127.0.0.1:%u", t.port[0]);
    snprintf(peers, sizeof(peers), "http://127.0.0.1:%u", t.port[1]);
    snprintf(cluster, sizeof(cluster), "m=%s", peers);
    t.etcd = fork();
    assert_true(t.etcd >= 0);
    if (t.etcd > 0)
        return;
    if (!freopen("/dev/null", "w", stderr) || !freopen("/dev/null", "w", stdout))
        _exit(127);
    execlp("etcd", "etcd", "--name", "m", "--data-dir", t.folder, "--listen-client-urls", clients,
           "--advertise-client-urls", clients, "--listen-peer-urls", peers,
           "--initial-advertise-peer-urls", peers, "--initial-cluster", cluster, (char *)NULL);
    _exit(127);
}

static void run_until(const struct answer *a)
{
    while (a->calls == 0)
        assert_true(uv_run(&t.loop, UV_RUN_ONCE) != 0 || a->calls > 0);
}

static struct answer ask(const char *id, enum right_wish wish)
{
    struct answer a = {0};
    struct witness_ask *ask;

    assert_int_equal(witness_ask(t.witness, id, wish, on_answer, &a, &ask), 0);
    assert_int_equal(a.calls, 0);
    run_until(&a);
    assert_int_equal(a.calls, 1);
    return a;
}

static void set_endpoint(unsigned n, unsigned port)
{
    snprintf(t.config.endpoints[n], sizeof(t.config.endpoints[n]), "http://127.0.0.1:%u", port);
}

/* The first endpoint is one where nobody listens: the second answers. */
static int set_up(void **state)
{
    (void)state;
    snprintf(t.folder, sizeof(t.folder), "/tmp/ferry-etcd-XXXXXX");
    assert_non_null(mkdtemp(t.folder));
    find_ports();
    start_etcd();
    assert_int_equal(uv_loop_init(&t.loop), 0);
    t.config.timeout_ms = 1000;
    t.config.endpoint_count = 2;
    set_endpoint(0, t.port[2]);
    set_endpoint(1, t.port[0]);
    assert_int_equal(witness_new(&t.loop, &t.config, &t.witness), 0);
    for (int tries = 0; tries < 60 && ask("start", RIGHT_WISH_ARM).code; tries++)
        assert_int_equal(waitpid(t.etcd, NULL, WNOHANG),
                         0); /* is etcd installed? tools/deps test */
    return 0;
}

static int tear_down(void **state)
{
    char command[128];

    (void)state;
    witness_free(t.witness);
    while (uv_run(&t.loop, UV_RUN_DEFAULT))
        ;
    assert_int_equal(uv_loop_close(&t.loop), 0);
    kill(t.etcd, SIGKILL);
    waitpid(t.etcd, NULL, 0);
    snprintf(command, sizeof(command), "rm -rf %s", t.folder);
    return system(command);
}

static void expect(const char *id, enum right_wish wish, enum right now)
{
    struct answer a = ask(id, wish);

    assert_int_equal(a.code, 0);
    assert_int_equal(a.now, now);
}

static void test_a_committed_move(void **state)
{
    (void)state;
    expect("1", RIGHT_WISH_HOLD, RIGHT_NONE); /* nothing comes of nothing */
    expect("1", RIGHT_WISH_ARM, RIGHT_ARMED);
    expect("1", RIGHT_WISH_ARM, RIGHT_ARMED);
    expect("1", RIGHT_WISH_HOLD, RIGHT_HELD);
    expect("1", RIGHT_WISH_CLAIM, RIGHT_HELD);
    expect("1", RIGHT_WISH_GIVE, RIGHT_GIVEN);
    expect("1", RIGHT_WISH_CLAIM, RIGHT_CLAIMED);
    expect("1", RIGHT_WISH_KEEP, RIGHT_CLAIMED);
    expect("1", RIGHT_WISH_NOTE, RIGHT_RESUMED);
    expect("1", RIGHT_WISH_FORGET, RIGHT_NONE);
    expect("1", RIGHT_WISH_KEEP, RIGHT_NONE);
}

static void test_an_aborted_move(void **state)
{
    (void)state;
    expect("2", RIGHT_WISH_ARM, RIGHT_ARMED);
    expect("2", RIGHT_WISH_CLAIM, RIGHT_KEPT);
    expect("2", RIGHT_WISH_HOLD, RIGHT_KEPT);
    expect("3", RIGHT_WISH_ARM, RIGHT_ARMED);
    expect("3", RIGHT_WISH_HOLD, RIGHT_HELD);
    expect("3", RIGHT_WISH_KEEP, RIGHT_KEPT);
    expect("3", RIGHT_WISH_GIVE, RIGHT_KEPT);
}

/* Both ask at once: one of them gets it, both hear the same. */
static void test_at_the_same_time(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++) {
        struct answer hold = {0}, claim = {0};
        struct witness_ask *a;
        char id[16];

        snprintf(id, sizeof(id), "race%d", i);
        expect(id, RIGHT_WISH_ARM, RIGHT_ARMED);
        witness_ask(t.witness, id, i % 2 ? RIGHT_WISH_HOLD : RIGHT_WISH_CLAIM, on_answer,
                    i % 2 ? &hold : &claim, &a);
        witness_ask(t.witness, id, i % 2 ? RIGHT_WISH_CLAIM : RIGHT_WISH_HOLD, on_answer,
                    i % 2 ? &claim : &hold, &a);
        run_until(&hold);
        run_until(&claim);
        assert_int_equal(hold.code, 0);
        assert_int_equal(hold.now, claim.now);
        assert_true(hold.now == RIGHT_HELD || hold.now == RIGHT_KEPT);
    }
}

static void test_cancelled(void **state)
{
    struct answer a = {0};
    struct witness_ask *ask_;

    (void)state;
    assert_int_equal(witness_ask(t.witness, "4", RIGHT_WISH_ARM, on_answer, &a, &ask_), 0);
    witness_cancel(ask_);
    expect("5", RIGHT_WISH_ARM, RIGHT_ARMED);
    assert_int_equal(a.calls, 0);
}

/* A member that hangs, then one that is gone: no answer is an error, and is counted as one. */
static void test_no_answer(void **state)
{
    struct witness_stats before = witness_stats(t.witness);

    (void)state;
    assert_true(before.reachable);
    kill(t.etcd, SIGSTOP);
    assert_true(ask("6", RIGHT_WISH_ARM).code < 0);
    assert_false(witness_stats(t.witness).reachable);
    assert_int_equal(witness_stats(t.witness).unanswered, before.unanswered + 1);
    kill(t.etcd, SIGCONT);
    /* The request of before may have taken effect or not: the answer is the same. */
    expect("6", RIGHT_WISH_ARM, RIGHT_ARMED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_committed_move), cmocka_unit_test(test_an_aborted_move),
        cmocka_unit_test(test_at_the_same_time), cmocka_unit_test(test_cancelled),
        cmocka_unit_test(test_no_answer),
    };

    return cmocka_run_group_tests(tests, set_up, tear_down);
}
