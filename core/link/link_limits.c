/* SPDX-License-Identifier: Apache-2.0 */
#include "core/link/link_limits.h"

#include <stdio.h>
#include <string.h>
#include <sys/queue.h>
#include <time.h>

#include "core/base/clock.h"
#include "core/base/log.h"

enum { TICK_MS = 1000 };

struct limit {
    TAILQ_ENTRY(limit) entry;
    char peer[WIRE_NAME_BYTES];
    bool manual;
    struct shaper shaper;
};

struct link_limits {
    const struct config *config;
    uv_timer_t tick;
    TAILQ_HEAD(, limit) limits;
};

static void set_rate(struct limit *limit, uint64_t rate_bytes_s, const char *why)
{
    char words[32];

    if (rate_bytes_s == limit->shaper.rate_bytes_s)
        return;
    shaper_set_rate(&limit->shaper, rate_bytes_s, clock_now_ns());
    log_info("link to %s: %s (%s)", limit->peer,
             bandwidth_words(rate_bytes_s, words, sizeof(words)), why);
}

static void follow_timetable(const struct link_limits *l, struct limit *limit)
{
    const struct config_peer *peer = config_peer_by_name(l->config, limit->peer);
    const struct timetable *t = peer && peer->has_bwlimit ? &peer->bwlimit : &l->config->bwlimit;
    time_t now = time(NULL);
    struct tm local;

    if (!limit->manual && localtime_r(&now, &local))
        set_rate(limit, timetable_rate(t, &local), "timetable");
}

static void on_tick(uv_timer_t *timer)
{
    struct link_limits *l = timer->data;
    struct limit *limit;

    TAILQ_FOREACH(limit, &l->limits, entry)
    follow_timetable(l, limit);
}

struct link_limits *link_limits_new(uv_loop_t *loop, const struct config *config)
{
    struct link_limits *l = calloc(1, sizeof(*l));

    if (!l)
        return NULL;
    l->config = config;
    TAILQ_INIT(&l->limits);
    uv_timer_init(loop, &l->tick);
    l->tick.data = l;
    uv_timer_start(&l->tick, on_tick, TICK_MS, TICK_MS);
    return l;
}

void link_limits_reconfigure(struct link_limits *l, const struct config *config)
{
    l->config = config;
    on_tick(&l->tick);
}

void link_limits_shutdown(struct link_limits *l)
{
    uv_close((uv_handle_t *)&l->tick, NULL);
}

void link_limits_free(struct link_limits *l)
{
    struct limit *limit;

    if (!l)
        return;
    while ((limit = TAILQ_FIRST(&l->limits))) {
        TAILQ_REMOVE(&l->limits, limit, entry);
        free(limit);
    }
    free(l);
}

static struct limit *limit_of(struct link_limits *l, const char *peer)
{
    struct limit *limit;

    TAILQ_FOREACH(limit, &l->limits, entry)
    {
        if (strcmp(limit->peer, peer) == 0)
            return limit;
    }
    limit = calloc(1, sizeof(*limit));
    if (!limit)
        return NULL;
    snprintf(limit->peer, sizeof(limit->peer), "%s", peer);
    TAILQ_INSERT_TAIL(&l->limits, limit, entry);
    follow_timetable(l, limit);
    return limit;
}

struct shaper *link_limits_shaper(struct link_limits *l, const char *peer)
{
    struct limit *limit = limit_of(l, peer);

    return limit ? &limit->shaper : NULL;
}

void link_limits_set(struct link_limits *l, const char *peer, uint64_t rate_bytes_s)
{
    struct limit *limit = limit_of(l, peer);

    if (!limit)
        return;
    limit->manual = true;
    set_rate(limit, rate_bytes_s, "set by hand");
}

void link_limits_follow(struct link_limits *l, const char *peer)
{
    struct limit *limit = limit_of(l, peer);

    if (!limit)
        return;
    limit->manual = false;
    follow_timetable(l, limit);
}

bool link_limits_is_manual(struct link_limits *l, const char *peer)
{
    const struct limit *limit = limit_of(l, peer);

    return limit && limit->manual;
}
