/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry link` and `ferry bwlimit`: what the way to a peer carries, and what it may carry. */
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/ferry/invocation.h"

/* What can be a site's name or a move's id; anything else would change the address. */
static int link_address(const char *name, const char *prefix, const char *action, char path[160],
                        struct error *err)
{
    for (const char *p = name; *p; p++) {
        if (!isalnum((unsigned char)*p) && !strchr("-_.", *p))
            return error_set(err, -ENOENT, "find the link", "see `ferry peers`",
                             "no peer is named '%.64s'", name);
    }
    if (!name[0] || strlen(name) >= 64)
        return error_set(err, -ENOENT, "find the link", "see `ferry peers`",
                         "no peer is named '%.64s'", name);
    snprintf(path, 160, "/v1/%s/%s%s", prefix, name, action);
    return 0;
}

static double number(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key));
}

/* --- link ---------------------------------------------------------------------------------- */

static void print_limit(const json_t *link)
{
    double limit = number(link, "bwlimit_mbit_s");

    if (limit > 0)
        printf("  limit:       %.4g Mbit/s (%s)\n", limit,
               invocation_member(link, "bwlimit_source"));
    else
        printf("  limit:       none\n");
}

static void print_session(const json_t *s)
{
    double pacing = number(s, "pacing_mbit_s"), capacity = number(s, "capacity_mbit_s");

    printf("  round trip:  %.1f ms now, %.1f ms at least\n", number(s, "rtt_ms"),
           number(s, "rtt_min_ms"));
    printf("  goodput:     %.4g Mbit/s out, %.4g Mbit/s in\n", number(s, "goodput_sent_mbit_s"),
           number(s, "goodput_received_mbit_s"));
    printf("  loss:        %.3f %% of the segments sent again by TCP\n", number(s, "loss_percent"));
    printf("  stripes:     %d, %s, %s\n", (int)number(s, "stripes"),
           invocation_member(s, "congestion_control"), invocation_member(s, "cipher"));
    if (capacity > 0)
        printf("  capacity:    %.4g Mbit/s seen while busy", capacity);
    if (capacity > 0 && pacing > 0)
        printf(", paced to %.4g Mbit/s", pacing);
    if (capacity > 0)
        printf("\n");
    printf("  compression: level %d, %.0f %% of what is compressed\n",
           (int)number(s, "compression_level"), 100 * number(s, "compression_ratio"));
    printf("  outages:     %d\n", (int)number(s, "outages"));
}

static void print_link(const json_t *link)
{
    const json_t *probe = json_object_get(link, "probe");
    bool connected = json_is_true(json_object_get(link, "connected"));

    printf("%s at %s: %s\n", invocation_member(link, "peer"), invocation_member(link, "address"),
           connected ? "connected" : "not connected now; sessions start with what needs them");
    print_limit(link);
    if (connected)
        print_session(json_object_get(link, "session"));
    if (json_is_true(json_object_get(probe, "done")) &&
        json_is_null(json_object_get(probe, "error")))
        printf("  probe:       %.4g Mbit/s out, %.4g Mbit/s in\n", number(probe, "sent_mbit_s"),
               number(probe, "received_mbit_s"));
}

/* Waits for a probe's end. */
static int await_probe(struct invocation *in, const char *path, json_t **link, struct error *err)
{
    const json_t *probe = json_object_get(*link, "probe"), *fault;
    int r;

    while (!json_is_true(json_object_get(probe, "done"))) {
        invocation_nap();
        json_decref(*link);
        *link = NULL;
        r = client_call(in->client, path, false, NULL, link, err);
        if (r < 0)
            return r;
        probe = json_object_get(*link, "probe");
    }
    fault = json_object_get(probe, "error");
    if (json_is_null(fault))
        return 0;
    return error_set(err, -ECONNRESET, "probe the link", invocation_member(fault, "mend"), "%s",
                     invocation_member(fault, "why"));
}

int run_link(struct invocation *in)
{
    struct error err = {0};
    json_t *link = NULL;
    char path[160], probe[160];
    int r = link_address(in->argument, "links", "", path, &err);

    if (r == 0)
        r = link_address(in->argument, "links", "/probe", probe, &err);
    if (r == 0 && in->probe)
        r = client_call(in->client, probe, true, json_object(), &link, &err);
    else if (r == 0)
        r = client_call(in->client, path, false, NULL, &link, &err);
    if (r == 0 && in->probe)
        r = await_probe(in, path, &link, &err);
    if (r < 0) {
        json_decref(link);
        return invocation_fail(in, &err);
    }
    if (in->json)
        invocation_print_json(link);
    else
        print_link(link);
    json_decref(link);
    return 0;
}

/* --- bwlimit ------------------------------------------------------------------------------- */

int run_bwlimit(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL;
    char path[160];
    bool of_link = true;
    int r = link_address(in->argument, "links", "/bwlimit", path, &err);

    if (r == 0)
        r = client_call(in->client, path, true, json_pack("{s:s}", "rate", in->second), &answer,
                        &err);
    if (r == -ENOENT) { /* no peer of that name: a move, then */
        of_link = false;
        err = (struct error){0};
        r = link_address(in->argument, "moves", "/bwlimit", path, &err);
        if (r == 0)
            r = client_call(in->client, path, true, json_pack("{s:s}", "rate", in->second), &answer,
                            &err);
    }
    if (r < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(answer);
    else if (of_link)
        print_limit(answer);
    json_decref(answer);
    return 0;
}
