/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The witness at a third site: an etcd cluster that keeps the right to run of each move (core/switchover/right.h), one key
 * without lease, changed by compare-and-swap only.
 *
 * A wish is tried at one member after the other until one gives a definite answer or its time is over. A
 * request without an answer may have taken effect: what comes of it is unknown until the key has been read
 * again, which every further try does. So an error means "unknown", never "no".
 *
 * Thread: the loop thread. Callbacks never run from inside witness_ask().
 */
#ifndef FERRY_CORE_WITNESS_H
#define FERRY_CORE_WITNESS_H

#include <limits.h>
#include <stdint.h>
#include <uv.h>

#include "core/base/error.h"
#include "core/base/limits.h"
#include "core/switchover/right.h"

enum { WITNESS_URL_BYTES = 256 };

struct witness_config {
    char endpoints[LIMIT_WITNESS_ENDPOINTS][WITNESS_URL_BYTES]; /* http(s)://HOST:PORT */
    unsigned endpoint_count;                                    /* 0 = no witness */
    char ca[PATH_MAX], certificate[PATH_MAX], key[PATH_MAX];    /* or empty */
    unsigned timeout_ms; /* of one wish, all members together */
};

struct witness;
struct witness_ask;

/* @err: code 0 and @now is the key's value after the wish; else nobody knows. */
typedef void (*witness_done)(void *user, const struct error *err, enum right now);

/* @config must outlive it. */
int witness_new(uv_loop_t *loop, const struct witness_config *config, struct witness **ret);
/* Nobody gets an answer any more. */
void witness_free(struct witness *w);

int witness_ask(struct witness *w, const char *move_id, enum right_wish wish, witness_done done,
                void *user, struct witness_ask **ret);
/* Its answer is not wanted any more; it may still take effect. NULL is fine. */
void witness_cancel(struct witness_ask *ask);
/* A wish whose answer nobody needs, tried for some minutes. */
void witness_tell(struct witness *w, const char *move_id, enum right_wish wish);

struct witness_stats {
    uint64_t answered, unanswered; /* wishes */
    bool reachable;                /* the last one was answered */
};
struct witness_stats witness_stats(const struct witness *w);

#endif
