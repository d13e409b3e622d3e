/* SPDX-License-Identifier: Apache-2.0 */
#include "core/policy/policy_query.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "core/move/move.h"
#include "core/policy/policy_json.h"

enum { QUERIES_MAX = 16 }; /* remembered, running ones among them */

struct policy_query {
    TAILQ_ENTRY(policy_query) entry;
    struct service *service;
    char id[9];
    char domain[DOMAIN_NAME_BYTES];
    struct policy_choices request;
    bool done;
    struct error err;
    struct policy policy;
};

static struct policy_query *find(const struct service *s, const char *id)
{
    struct policy_query *q;

    TAILQ_FOREACH(q, &s->policy_queries, entry)
    {
        if (strcmp(q->id, id) == 0)
            return q;
    }
    return NULL;
}

static void forget(struct policy_query *q)
{
    TAILQ_REMOVE(&q->service->policy_queries, q, entry);
    free(q);
}

static void on_choices(void *user, const struct error *err, const struct policy_choices *choices)
{
    struct policy_query *q = user;

    q->done = true;
    q->err = *err;
    if (!err->code)
        policy_resolve(&q->service->config->policies, q->domain, choices, &q->request, &q->policy,
                       &q->err);
}

int policy_query_start(struct service *s, const char *domain, const struct policy_choices *request,
                       const char **ret_id, struct error *err)
{
    struct policy_query *q = calloc(1, sizeof(*q)), *old = TAILQ_FIRST(&s->policy_queries), *other;
    unsigned count = 0;
    uint32_t id = 0;

    TAILQ_FOREACH(other, &s->policy_queries, entry)
    count++;
    if (!q || (count >= QUERIES_MAX && !old->done)) {
        free(q);
        return error_set(err, q ? -EBUSY : -ENOMEM, "show the policy", "try again",
                         q ? "libvirt still answers %u others" : "out of memory", count);
    }
    if (count >= QUERIES_MAX)
        forget(old);
    do {
        if (getrandom(&id, sizeof(id), 0) < 0)
            id++;
        snprintf(q->id, sizeof(q->id), "%08x", id);
    } while (find(s, q->id));
    q->service = s;
    q->request = *request;
    snprintf(q->domain, sizeof(q->domain), "%s", domain);
    TAILQ_INSERT_TAIL(&s->policy_queries, q, entry);
    virt_read_choices(s->virt, domain, on_choices, q);
    *ret_id = q->id;
    return 0;
}

json_t *policy_query_to_json(struct service *s, const char *id)
{
    const struct policy_query *q = find(s, id);
    json_t *view;

    if (!q)
        return NULL;
    view = json_pack("{s:s, s:s, s:b}", "id", q->id, "domain", q->domain, "done", q->done);
    if (q->done && error_is_set(&q->err))
        json_object_set_new(view, "error", error_to_json(&q->err));
    else if (q->done)
        json_object_set_new(view, "policy", policy_to_json(&q->policy));
    return view;
}

bool policy_query_any_running(const struct service *s)
{
    const struct policy_query *q;

    TAILQ_FOREACH(q, &s->policy_queries, entry)
    {
        if (!q->done)
            return true;
    }
    return false;
}

void policy_query_free_all(struct service *s)
{
    struct policy_query *q;

    while ((q = TAILQ_FIRST(&s->policy_queries)))
        forget(q);
}
