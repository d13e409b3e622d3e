/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry check`: what could make a move fail or hurt. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tools/ferry/invocation.h"

static void print_line(const json_t *line)
{
    const char *site = invocation_member(line, "site"), *mend = invocation_member(line, "mend");

    printf("  %-4s  %-12s %s%s%s\n", invocation_member(line, "verdict"),
           invocation_member(line, "name"), site, site[0] ? ": " : "",
           invocation_member(line, "text"));
    if (mend[0])
        printf("        %-12s -> %s\n", "", mend);
}

static void print_check(const json_t *check)
{
    json_t *line;
    size_t i;

    printf("%s to %s: %s\n", invocation_member(check, "domain"), invocation_member(check, "to"),
           json_is_true(json_object_get(check, "failed")) ? "it would not move" : "it can move");
    json_array_foreach(json_object_get(check, "lines"), i, line) print_line(line);
}

static int await(struct invocation *in, const char *id, json_t **ret, struct error *err)
{
    char path[64];
    int r;

    snprintf(path, sizeof(path), "/v1/checks/%.32s", id);
    while ((r = client_call(in->client, path, false, NULL, ret, err)) == 0 &&
           !json_is_true(json_object_get(*ret, "done"))) {
        json_decref(*ret);
        *ret = NULL;
        invocation_nap();
    }
    return r;
}

int run_check(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL, *check = NULL, *request;
    int r, status;

    if (!in->to) {
        fprintf(stderr, "ferry: check needs --to SITE\n");
        return EXIT_USAGE;
    }
    request = json_pack("{s:s, s:s}", "domain", in->argument, "to", in->to);
    if (invocation_add_policy(in, request) != 0)
        return EXIT_USAGE;
    r = client_call(in->client, "/v1/checks", true, request, &answer, &err);
    if (r == 0)
        r = await(in, invocation_member(answer, "id"), &check, &err);
    json_decref(answer);
    if (r < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(check);
    else
        print_check(check);
    status = json_is_true(json_object_get(check, "failed")) ? EXIT_REFUSED : 0;
    json_decref(check);
    return status;
}
