/* SPDX-License-Identifier: Apache-2.0 */
/* Wishes to the witness: see witness.h. */
#include "core/switchover/witness.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/macros.h"
#include "core/switchover/etcd.h"
#include "core/switchover/http.h"

/* Comparisons of one wish: more than a key has values means that it is not ours. */
enum { TRIES_MAX = 2 * RIGHTS };
/* A told wish is tried so often, with so long between. */
enum { TELL_TRIES = 60, TELL_PAUSE_MS = 5000 };
/* After all members have refused. */
enum { PAUSE_MS = 100 };

struct witness_ask {
    TAILQ_ENTRY(witness_ask) entry;
    struct witness *witness;
    char key[64];
    enum right_wish wish;
    enum right believed;
    unsigned endpoint, comparisons, silent;
    uint64_t deadline_ns;
    struct http_request *request; /* NULL: it waits for its timer */
    witness_done done;            /* NULL: told, not asked */
    void *user;
    struct error why; /* of the last member that did not answer */
    unsigned told_tries;
    uv_timer_t timer;
};

struct witness {
    uv_loop_t *loop;
    const struct witness_config *config;
    struct http *http;
    unsigned endpoint; /* the last that answered */
    struct witness_stats stats;
    TAILQ_HEAD(, witness_ask) asks;
};

static void try_next(struct witness_ask *a);

static void on_timer_closed(uv_handle_t *handle)
{
    free(container_of((uv_timer_t *)handle, struct witness_ask, timer));
}

void witness_cancel(struct witness_ask *a)
{
    if (!a)
        return;
    TAILQ_REMOVE(&a->witness->asks, a, entry);
    http_cancel(a->request);
    uv_close((uv_handle_t *)&a->timer, on_timer_closed);
}

/* --- answers ------------------------------------------------------------------------------- */

static void on_tell_again(uv_timer_t *timer)
{
    struct witness_ask *a = container_of(timer, struct witness_ask, timer);

    a->deadline_ns = clock_now_ns() + a->witness->config->timeout_ms * NS_PER_MS;
    try_next(a);
}

static void finish(struct witness_ask *a, const struct error *err, enum right now)
{
    struct witness *w = a->witness;
    struct error result = *err;
    witness_done done = a->done;
    void *user = a->user;

    w->stats.reachable = !err->code;
    if (err->code)
        w->stats.unanswered++;
    else
        w->stats.answered++;
    if (!done && err->code && ++a->told_tries < TELL_TRIES) {
        uv_timer_start(&a->timer, on_tell_again, TELL_PAUSE_MS, 0);
        return;
    }
    witness_cancel(a);
    if (done)
        done(user, &result, now);
}

static void on_try_again(uv_timer_t *timer)
{
    try_next(container_of(timer, struct witness_ask, timer));
}

static void on_give_up(uv_timer_t *timer)
{
    struct witness_ask *a = container_of(timer, struct witness_ask, timer);
    struct error err = a->why;

    finish(a, &err, RIGHT_NONE);
}

/* This member gave no answer: the next one, while there is time. Members that refuse at once are not asked in a
 * busy loop. */
static void unanswered(struct witness_ask *a, const struct error *why)
{
    unsigned count = a->witness->config->endpoint_count;

    a->why = *why;
    a->endpoint = (a->endpoint + 1) % count;
    if (clock_now_ns() >= a->deadline_ns)
        uv_timer_start(&a->timer, on_give_up, 0, 0);
    else
        uv_timer_start(&a->timer, on_try_again, ++a->silent % count == 0 ? PAUSE_MS : 0, 0);
}

/* What was believed is not so: with what is, it is tried again, or there is nothing to change. */
static void go_on_from(struct witness_ask *a, enum right now)
{
    struct error none = {0}, foreign = {0};

    if (right_after(a->wish, now) == now) {
        finish(a, &none, now);
    } else if (++a->comparisons > TRIES_MAX) {
        error_set(&foreign, -EPROTO, "ask the witness", NULL, "somebody else changes %s", a->key);
        finish(a, &foreign, RIGHT_NONE);
    } else {
        a->believed = now;
        try_next(a);
    }
}

static void on_answer(void *user, const struct error *err, long status, const char *body)
{
    struct witness_ask *a = user;
    char value[ETCD_VALUE_BYTES];
    struct error why = *err;
    bool changed = false;
    enum right now = RIGHT_NONE;

    a->request = NULL;
    if (!why.code && status != 200)
        error_set(&why, -EIO, "ask the witness", "see etcd's log there",
                  "%s: HTTP status %ld: %.100s", a->witness->config->endpoints[a->endpoint], status,
                  body);
    if (!why.code && etcd_answer(body, &changed, value, &why) == 0 && !changed && value[0] &&
        !right_parse(value, &now))
        error_set(&why, -EPROTO, "ask the witness", "who else writes there?",
                  "%s holds '%s', which is not ferry's", a->key, value);
    if (why.code) {
        unanswered(a, &why);
        return;
    }
    a->witness->endpoint = a->endpoint;
    if (changed)
        finish(a, &why, right_after(a->wish, a->believed));
    else
        go_on_from(a, now);
}

/* --- questions ----------------------------------------------------------------------------- */

static void try_next(struct witness_ask *a)
{
    const struct witness_config *c = a->witness->config;
    enum right after = right_after(a->wish, a->believed);
    char *body = etcd_transaction(a->key, a->believed ? right_name(a->believed) : NULL,
                                  after ? right_name(after) : NULL);
    unsigned share_ms = MAX(c->timeout_ms / MAX(c->endpoint_count, 2u), 50u);
    char url[WITNESS_URL_BYTES + 16];
    struct error err;

    snprintf(url, sizeof(url), "%s/v3/kv/txn", c->endpoints[a->endpoint]);
    if (!body || http_post(a->witness->http, url, body, share_ms, on_answer, a, &a->request) < 0) {
        error_set(&err, -ENOMEM, "ask the witness", NULL, "out of memory");
        a->request = NULL;
        unanswered(a, &err);
    }
    free(body);
}

static struct witness_ask *ask_new(struct witness *w, const char *move_id, enum right_wish wish)
{
    struct witness_ask *a = calloc(1, sizeof(*a));

    if (!a)
        return NULL;
    a->witness = w;
    a->wish = wish;
    a->believed = right_expected(wish);
    a->endpoint = w->endpoint;
    a->deadline_ns = clock_now_ns() + w->config->timeout_ms * NS_PER_MS;
    snprintf(a->key, sizeof(a->key), "/ferry/right/%s", move_id);
    uv_timer_init(w->loop, &a->timer);
    TAILQ_INSERT_TAIL(&w->asks, a, entry);
    try_next(a);
    return a;
}

int witness_ask(struct witness *w, const char *move_id, enum right_wish wish, witness_done done,
                void *user, struct witness_ask **ret)
{
    struct witness_ask *a = ask_new(w, move_id, wish);

    if (!a)
        return -ENOMEM;
    a->done = done;
    a->user = user;
    *ret = a;
    return 0;
}

void witness_tell(struct witness *w, const char *move_id, enum right_wish wish)
{
    if (!ask_new(w, move_id, wish))
        log_warning("move %s: no memory to tell the witness '%s'", move_id, right_wish_name(wish));
}

/* --- the whole ----------------------------------------------------------------------------- */

int witness_new(uv_loop_t *loop, const struct witness_config *config, struct witness **ret)
{
    struct witness *w = calloc(1, sizeof(*w));
    int r;

    if (!w)
        return -ENOMEM;
    w->loop = loop;
    w->config = config;
    TAILQ_INIT(&w->asks);
    r = http_new(loop, (struct http_tls){config->ca, config->certificate, config->key}, &w->http);
    if (r < 0) {
        free(w);
        return r;
    }
    *ret = w;
    return 0;
}

void witness_free(struct witness *w)
{
    if (!w)
        return;
    while (!TAILQ_EMPTY(&w->asks))
        witness_cancel(TAILQ_FIRST(&w->asks));
    http_free(w->http);
    free(w);
}

struct witness_stats witness_stats(const struct witness *w)
{
    return w->stats;
}
