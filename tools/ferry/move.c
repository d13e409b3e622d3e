/* SPDX-License-Identifier: Apache-2.0 */
/* `ferry move`, `drill` and what is said to a move under way. */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "core/base/macros.h"
#include "tools/ferry/invocation.h"
#include "tools/ferry/progress.h"

enum { TIDY_POLLS = 12 };

/* The API's address of a move; what cannot be an id is not asked for. */
static int move_address(const char *id, const char *action, char path[128], struct error *err)
{
    if (!id[0] || strlen(id) > 64 || strspn(id, "0123456789abcdef") != strlen(id))
        return error_set(err, -ENOENT, "find the move", "see `ferry list --all`",
                         "'%.64s' is not the id of a move", id);
    snprintf(path, 128, "/v1/moves/%s%s", id, action);
    return 0;
}

int move_get(struct invocation *in, const char *id, json_t **ret, struct error *err)
{
    char path[128];
    int r = move_address(id, "", path, err);

    return r < 0 ? r : client_call(in->client, path, false, NULL, ret, err);
}

int move_status(const json_t *move)
{
    const char *outcome = invocation_member(move, "outcome");

    const char *verdict = invocation_member(json_object_get(move, "drill"), "verdict");

    if (strcmp(outcome, "committed") == 0)
        return 0;
    if (strcmp(outcome, "drilled") == 0)
        return strcmp(verdict, "passed") == 0 ? 0 : EXIT_FAILED;
    if (strcmp(outcome, "in-doubt") == 0)
        return EXIT_IN_DOUBT;
    return json_is_true(json_object_get(move, "refused")) ? EXIT_REFUSED : EXIT_FAILED;
}

/* Whether there is nothing more to wait for. With the outcome known the sites tidy up, so that the next
 * command meets no half-finished move: that is waited for, but not for long. */
static bool is_over(const json_t *move, unsigned *polls_since_outcome)
{
    const char *outcome = invocation_member(move, "outcome");

    if (strcmp(outcome, "running") == 0)
        return false;
    return json_is_true(json_object_get(move, "finished")) || strcmp(outcome, "in-doubt") == 0 ||
           ++*polls_since_outcome > TIDY_POLLS;
}

int move_follow(struct invocation *in, const char *id, bool lines, json_t **ret)
{
    unsigned polls_since_outcome = 0;
    struct error err = {0};
    json_t *move = NULL;

    for (;;) {
        json_decref(move);
        move = NULL;
        if (move_get(in, id, &move, &err) < 0)
            return invocation_fail(in, &err);
        if (lines && in->json)
            invocation_print_json(move);
        else if (!in->json) {
            progress_begin();
            progress_show(move);
        }
        if (is_over(move, &polls_since_outcome))
            break;
        invocation_nap();
    }
    progress_end();
    *ret = move;
    return 0;
}

int run_move(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL, *move = NULL, *request;
    char id[64];
    int status;

    if (!in->to) {
        fprintf(stderr, "ferry: %s needs --to SITE\n", in->drill ? "drill" : "move");
        return EXIT_USAGE;
    }
    request =
        json_pack("{s:s, s:s, s:b, s:b, s:s*, s:s*, s:b, s:b, s:s*}", "domain", in->argument, "to",
                  in->to, "hold", in->hold, "verify", in->verify, "at", in->at, "bwlimit",
                  in->bwlimit, "drill", in->drill, "keep_disk", in->keep_disk, "command", in->run);
    if (invocation_add_policy(in, request) != 0)
        return EXIT_USAGE;
    if (client_call(in->client, "/v1/moves", true, request, &answer, &err) < 0)
        return invocation_fail(in, &err);
    snprintf(id, sizeof(id), "%s", invocation_member(answer, "id"));
    if (in->detach) {
        if (in->json)
            invocation_print_json(answer);
        else
            printf("%s\n", id);
        json_decref(answer);
        return 0;
    }
    json_decref(answer);
    status = move_follow(in, id, false, &move);
    if (status != 0)
        return status;
    if (in->json)
        invocation_print_json(move);
    else
        progress_report(move);
    status = move_status(move);
    json_decref(move);
    return status;
}

int run_drill(struct invocation *in)
{
    in->drill = true;
    return run_move(in);
}

static int post(struct invocation *in, const char *action, json_t *body)
{
    struct error err = {0};
    json_t *answer = NULL;
    char path[128];

    if (move_address(in->argument, action, path, &err) < 0) {
        json_decref(body);
        return invocation_fail(in, &err);
    }
    if (client_call(in->client, path, true, body, &answer, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(answer);
    json_decref(answer);
    return 0;
}

int run_cancel(struct invocation *in)
{
    return post(in, "/cancel", NULL);
}

int run_postcopy(struct invocation *in)
{
    return post(in, "/postcopy", NULL);
}

int run_switchover(struct invocation *in)
{
    return post(in, "/switchover", NULL);
}

int run_set(struct invocation *in)
{
    json_t *settings = invocation_setting(in->second);

    return settings ? post(in, "/set", json_pack("{s:o}", "settings", settings)) : EXIT_USAGE;
}

int run_resolve(struct invocation *in)
{
    int status;

    if (!in->run_at || (strcmp(in->run_at, "source") != 0 && strcmp(in->run_at, "target") != 0)) {
        fprintf(stderr, "ferry: resolve needs --run-at source or --run-at target; before you say "
                        "it, make sure with\n"
                        "your own eyes that the VM does not run at the other side\n");
        return EXIT_USAGE;
    }
    status = post(in, "/resolve", json_pack("{s:s}", "run_at", in->run_at));
    if (status == 0)
        fprintf(
            stderr,
            "ferry: by your word it runs at the %s. The other side is told when it can be reached; "
            "if the VM\nruns there, too, it exists twice now: look once more, and stop that one.\n",
            in->run_at);
    return status;
}
