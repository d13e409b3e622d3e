/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry list`, `show` and `watch`. */
#include <stdio.h>
#include <string.h>

#include "tools/ferry/invocation.h"
#include "tools/ferry/progress.h"

static void print_list(const struct invocation *in, const json_t *answer)
{
    progress_table(json_object_get(answer, "moves"), in->all);
}

int run_list(struct invocation *in)
{
    return invocation_show(in, "/v1/moves", print_list);
}

int run_show(struct invocation *in)
{
    struct error err = {0};
    json_t *move = NULL, *value;
    const char *phase;

    if (move_get(in, in->argument, &move, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json) {
        invocation_print_json(move);
    } else {
        progress_report(move);
        printf("  phase:  %s", invocation_member(move, "phase"));
        json_object_foreach(json_object_get(move, "phases_ms"), phase, value)
            printf("%s %s at %.1f s", strcmp(phase, "preparing") ? "," : ":", phase,
                   json_number_value(value) / 1000);
        printf("\n");
    }
    json_decref(move);
    return 0;
}

/* One that ran before and has ended: its last word. */
static void show_end(const struct invocation *in, const json_t *move, json_t *watched)
{
    const char *id = invocation_member(move, "id");

    if (!json_is_true(json_object_get(move, "finished")) || !json_object_get(watched, id))
        return;
    json_object_del(watched, id);
    if (in->json)
        invocation_print_json(move);
    else
        progress_report(move);
}

/* Says what there is to say of all moves now; how many still run. @watched: the ids of those that ran before. */
static unsigned show_all(const struct invocation *in, const json_t *moves, json_t *watched)
{
    unsigned running = 0;
    const json_t *move;
    size_t i;

    progress_begin();
    json_array_foreach(moves, i, move) show_end(in, move, watched);
    json_array_foreach(moves, i, move)
    {
        if (json_is_true(json_object_get(move, "finished")))
            continue;
        if (in->json)
            invocation_print_json(move);
        else
            progress_show(move);
        json_object_set_new(watched, invocation_member(move, "id"), json_true());
        running++;
    }
    return running;
}

/* All that run now and begin meanwhile, until none does. */
static int watch_all(struct invocation *in)
{
    json_t *watched = json_object(), *answer = NULL;
    struct error err = {0};
    unsigned running;

    do {
        if (client_call(in->client, "/v1/moves", false, NULL, &answer, &err) < 0) {
            json_decref(watched);
            return invocation_fail(in, &err);
        }
        running = show_all(in, json_object_get(answer, "moves"), watched);
        json_decref(answer);
        answer = NULL;
        if (running > 0)
            invocation_nap();
    } while (running > 0);
    progress_end();
    json_decref(watched);
    return 0;
}

int run_watch(struct invocation *in)
{
    json_t *move = NULL;
    int status;

    if (!in->argument)
        return watch_all(in);
    status = move_follow(in, in->argument, true, &move);

    if (status == 0) {
        if (!in->json)
            progress_report(move);
        status = move_status(move);
    }
    json_decref(move);
    return status;
}
