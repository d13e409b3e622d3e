/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry evacuate`: all VMs of this host leave it. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tools/ferry/invocation.h"
#include "tools/ferry/progress.h"

static const char ADDRESS[] = "/v1/evacuation";

static int number(const json_t *j, const char *key)
{
    return (int)json_integer_value(json_object_get(j, key));
}

static double seconds(const json_t *j, const char *key)
{
    return json_number_value(json_object_get(j, key)) / 1000;
}

/* "a,b" as an array; NULL: none. */
static json_t *words(const char *text)
{
    char *copy = text ? strdup(text) : NULL, *save = NULL;
    json_t *list = copy ? json_array() : NULL;

    for (char *word = copy ? strtok_r(copy, ",", &save) : NULL; word;
         word = strtok_r(NULL, ",", &save))
        json_array_append_new(list, json_string(word));
    free(copy);
    return list;
}

static void show_line(const json_t *e)
{
    int eta = number(e, "eta_s"), n;
    char line[1024];
    json_t *vm;
    size_t i;

    n = snprintf(line, sizeof(line), "%s: %d moved, %d waiting, %d stay",
                 invocation_member(e, "state"), number(e, "moved"), number(e, "waiting"),
                 number(e, "stay"));
    if (eta >= 0)
        n += snprintf(line + n, sizeof(line) - (size_t)n, ", ETA %d s", eta);
    json_array_foreach(json_object_get(e, "vms"), i, vm)
    {
        if (strcmp(invocation_member(vm, "state"), "moving") == 0 && n < 700)
            n += snprintf(line + n, sizeof(line) - (size_t)n, "  %.60s %s",
                          invocation_member(vm, "domain"), invocation_member(vm, "phase"));
    }
    progress_begin();
    progress_line(line);
}

static void print_report(const json_t *e)
{
    bool plan = json_is_true(json_object_get(e, "dry_run"));
    json_t *vm;
    size_t i;

    progress_end();
    if (plan)
        printf("The plan, %d at a time; nothing is moved. In all about %d s.\n", number(e, "jobs"),
               number(e, "eta_s"));
    else
        printf("evacuation %s: %d moved, %d waiting, %d stay, %d in doubt, in %.0f s\n",
               invocation_member(e, "state"), number(e, "moved"), number(e, "waiting"),
               number(e, "stay"), number(e, "in_doubt"), seconds(e, "total_ms"));
    if (json_is_true(json_object_get(e, "interrupted"))) {
        printf("A restart of ferryd interrupted it: `ferry evacuate --resume` plans what is left, "
               "and goes on.\n");
        return;
    }
    printf("%-20s %-10s %-12s %-10s %-10s %s\n", "VM", "STATE", "TO", "PREDICTED", "DOWNTIME",
           "WHY");
    json_array_foreach(json_object_get(e, "vms"), i, vm)
    {
        char predicted[32] = "-", downtime[32] = "-";

        if (number(vm, "predicted_ms") > 0)
            snprintf(predicted, sizeof(predicted), "%.0f s", seconds(vm, "predicted_ms"));
        if (number(vm, "downtime_ms") >= 0)
            snprintf(downtime, sizeof(downtime), "%d ms", number(vm, "downtime_ms"));
        printf("%-20s %-10s %-12s %-10s %-10s %s\n", invocation_member(vm, "domain"),
               invocation_member(vm, "state"), invocation_member(vm, "site"), predicted, downtime,
               invocation_member(vm, "reason"));
    }
}

static bool is_settled(const json_t *e)
{
    const char *state = invocation_member(e, "state");

    return strcmp(state, "done") == 0 || strcmp(state, "planned") == 0 ||
           strcmp(state, "stopped") == 0;
}

static int status_of(const json_t *e)
{
    if (json_object_get(e, "error"))
        return EXIT_REFUSED;
    if (json_is_true(json_object_get(e, "dry_run")))
        return 0;
    if (number(e, "in_doubt") > 0)
        return EXIT_IN_DOUBT;
    if (json_is_true(json_object_get(e, "interrupted")))
        return EXIT_FAILED;
    return number(e, "stay") + number(e, "waiting") > 0 ? EXIT_FAILED : 0;
}

static int finish(struct invocation *in, json_t *e)
{
    const json_t *why = json_object_get(e, "error");
    int status = status_of(e);

    if (in->json)
        invocation_print_json(e);
    else if (why)
        fprintf(stderr, "ferry: %s: %s\n", invocation_member(why, "what"),
                invocation_member(why, "why"));
    else
        print_report(e);
    json_decref(e);
    return status;
}

static int follow(struct invocation *in, json_t *e)
{
    struct error err = {0};

    while (!is_settled(e)) {
        if (!in->json)
            show_line(e);
        invocation_nap();
        json_decref(e);
        e = NULL;
        if (client_call(in->client, ADDRESS, false, NULL, &e, &err) < 0)
            return invocation_fail(in, &err);
    }
    return finish(in, e);
}

static json_t *wishes(const struct invocation *in)
{
    return json_pack("{s:o*, s:o*, s:b, s:o*}", "to", words(in->to), "first", words(in->first),
                     "dry_run", in->dry_run, "jobs",
                     in->jobs ? json_integer(strtol(in->jobs, NULL, 10)) : NULL);
}

int run_evacuate(struct invocation *in)
{
    const char *address = in->stop     ? "/v1/evacuation/stop"
                          : in->resume ? "/v1/evacuation/resume"
                                       : ADDRESS;
    bool post = in->to || in->stop || in->resume;
    struct error err = {0};
    json_t *e = NULL, *request = NULL;

    if ((in->to != NULL) + in->stop + in->resume + in->show != 1) {
        fprintf(stderr,
                "ferry: evacuate needs one of --to SITE[,SITE], --show, --stop, --resume\n");
        return EXIT_USAGE;
    }
    if (in->to && invocation_add_policy(in, request = wishes(in)) != 0)
        return EXIT_USAGE;
    if (client_call(in->client, address, post, request, &e, &err) < 0)
        return invocation_fail(in, &err);
    if (in->show || in->detach)
        return finish(in, e);
    return follow(in, e);
}
