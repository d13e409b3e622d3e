/* SPDX-License-Identifier: Apache-2.0 */
/*
 * ferry: the operator's command. Everything it does is a call of ferryd's control API.
 *
 * Exit status: 0 committed (or done); 1 failed, the VM runs at the source; 2 usage; 3 refused by
 * preflight; 4 in doubt; 5 no ferryd; 6 not authorised.
 */
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <curl/curl.h>

#include "core/base/macros.h"
#include "tools/ferry/invocation.h"
#include "tools/ferry/progress.h"

enum { POLL_MS = 250, TIDY_POLLS = 12 };

struct command {
    const char *name;
    const char *usage;
    const char *meaning;
    enum { ARGUMENT_NONE, ARGUMENT_NEEDED, ARGUMENT_TWO, ARGUMENT_OPTIONAL } argument;
    int (*run)(struct invocation *in);
};

static const struct command commands[19]; /* below, with its end marker */

static void print_help(FILE *to)
{
    fprintf(to, "usage: ferry [--socket PATH] [--json] COMMAND\n");
    for (const struct command *c = commands; c->name; c++)
        fprintf(to, "  %-54s %s\n", c->usage, c->meaning);
    fprintf(to, "Exit status: 0 done or committed; 1 failed, the VM runs at the source; 2 usage; 3 "
                "refused by\n"
                "preflight; 4 in doubt; 5 no ferryd; 6 not authorised.\n");
}

void invocation_print_json(const json_t *j)
{
    json_dumpf(j, stdout, JSON_COMPACT | JSON_ENSURE_ASCII);
    putchar('\n');
    fflush(stdout);
}

int invocation_fail(const struct invocation *in, const struct error *err)
{
    char line[1024];

    if (in->json) {
        json_t *j = json_pack("{s:{s:i, s:s, s:s, s:s}}", "error", "code", err->code, "what",
                              err->what, "why", err->why, "mend", err->mend);

        invocation_print_json(j);
        json_decref(j);
    }
    fprintf(stderr, "ferry: %s\n", error_line(err, line, sizeof(line)));
    return err->code == -ENOTCONN ? EXIT_NO_FERRYD
           : err->code == -EACCES ? EXIT_DENIED
           : err->code == -EINVAL ? EXIT_USAGE
                                  : EXIT_FAILED;
}

void invocation_nap(void)
{
    struct timespec t = {.tv_nsec = POLL_MS * 1000000L};

    nanosleep(&t, NULL);
}

const char *invocation_member(const json_t *j, const char *key)
{
    const char *t = json_string_value(json_object_get(j, key));

    return t ? t : "";
}

/* The API's address of a move; what cannot be an id is not asked for. */
static int move_address(const char *id, const char *action, char path[128], struct error *err)
{
    if (!id[0] || strlen(id) > 64 || strspn(id, "0123456789abcdef") != strlen(id))
        return error_set(err, -ENOENT, "find the move", "see `ferry list --all`",
                         "'%.64s' is not the id of a move", id);
    snprintf(path, 128, "/v1/moves/%s%s", id, action);
    return 0;
}

static int get_move(struct invocation *in, const char *id, json_t **ret, struct error *err)
{
    char path[128];
    int r = move_address(id, "", path, err);

    return r < 0 ? r : client_call(in->client, path, false, NULL, ret, err);
}

static int status_of(const json_t *move)
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

/* Follows one move to its outcome. @lines: every change as a line of JSON, else the live display. */
static int follow(struct invocation *in, const char *id, bool lines, json_t **ret)
{
    unsigned polls_since_outcome = 0;
    struct error err = {0};
    json_t *move = NULL;

    for (;;) {
        json_decref(move);
        move = NULL;
        if (get_move(in, id, &move, &err) < 0)
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

/* --- commands ------------------------------------------------------------------------------ */

static int run_move(struct invocation *in)
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
    status = follow(in, id, false, &move);
    if (status != 0)
        return status;
    if (in->json)
        invocation_print_json(move);
    else
        progress_report(move);
    status = status_of(move);
    json_decref(move);
    return status;
}

static int run_drill(struct invocation *in)
{
    in->drill = true;
    return run_move(in);
}

static int run_list(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL;

    if (client_call(in->client, "/v1/moves", false, NULL, &answer, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(answer);
    else
        progress_table(json_object_get(answer, "moves"), in->all);
    json_decref(answer);
    return 0;
}

static int run_show(struct invocation *in)
{
    struct error err = {0};
    json_t *move = NULL, *value;
    const char *phase;

    if (get_move(in, in->argument, &move, &err) < 0)
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

static int run_watch(struct invocation *in)
{
    json_t *move = NULL;
    int status;

    if (!in->argument)
        return watch_all(in);
    status = follow(in, in->argument, true, &move);

    if (status == 0) {
        if (!in->json)
            progress_report(move);
        status = status_of(move);
    }
    json_decref(move);
    return status;
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

static int run_cancel(struct invocation *in)
{
    return post(in, "/cancel", NULL);
}

static int run_postcopy(struct invocation *in)
{
    return post(in, "/postcopy", NULL);
}

static int run_switchover(struct invocation *in)
{
    return post(in, "/switchover", NULL);
}

static int run_set(struct invocation *in)
{
    json_t *settings = invocation_setting(in->second);

    return settings ? post(in, "/set", json_pack("{s:o}", "settings", settings)) : EXIT_USAGE;
}

static int run_resolve(struct invocation *in)
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

static int run_peers(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL, *p;
    size_t i;

    if (client_call(in->client, "/v1/peers", false, NULL, &answer, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json) {
        invocation_print_json(answer);
    } else {
        printf("%-16s %-24s %-10s %s\n", "PEER", "ADDRESS", "CONNECTED", "MAY");
        json_array_foreach(json_object_get(answer, "peers"), i, p)
            printf("%-16s %-24s %-10s%s%s%s%s\n", invocation_member(p, "name"),
                   invocation_member(p, "address"),
                   json_is_true(json_object_get(p, "connected")) ? "yes" : "no",
                   json_is_true(json_object_get(p, "may_move_here")) ? " move-here" : "",
                   json_is_true(json_object_get(p, "may_move_from_here")) ? " move-from-here" : "",
                   json_is_true(json_object_get(p, "may_drill")) ? " drill" : "",
                   json_is_true(json_object_get(p, "may_direct_memory")) ? " direct-memory" : "");
    }
    json_decref(answer);
    return 0;
}

static int run_identity(struct invocation *in)
{
    struct error err = {0};
    json_t *answer = NULL;

    if (client_call(in->client, "/v1/identity", false, NULL, &answer, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(answer);
    else
        printf("[peer %s]\nfingerprint = %s\n", invocation_member(answer, "name"),
               invocation_member(answer, "fingerprint"));
    json_decref(answer);
    return 0;
}

static const struct command commands[] = {
    {"move",
     "move DOMAIN --to SITE [--policy NAME] [--set KEY=VALUE] [--bwlimit RATE] [--verify] "
     "[--detach] [--hold | --at HH:MM]",
     "move a running VM", ARGUMENT_NEEDED, run_move},
    {"drill",
     "drill DOMAIN --to SITE [--run COMMAND] [--keep-disk] [--policy NAME] [--set KEY=VALUE] "
     "[--bwlimit RATE] [--detach]",
     "rehearse a move: the VM stays, an isolated clone runs there, and goes", ARGUMENT_NEEDED,
     run_drill},
    {"evacuate",
     "evacuate --to SITE[,SITE] [--jobs N] [--first VM[,VM]] [--policy NAME] [--set KEY=VALUE] [--dry-run] | --show "
     "| --stop | "
     "--resume",
     "move all VMs of this host", ARGUMENT_NONE, run_evacuate},
    {"check", "check DOMAIN --to SITE [--policy NAME] [--set KEY=VALUE]",
     "what a move would meet; changes nothing", ARGUMENT_NEEDED, run_check},
    {"list", "list [--all]", "moves running now, and past ones", ARGUMENT_NONE, run_list},
    {"show", "show ID", "one move in full", ARGUMENT_NEEDED, run_show},
    {"watch", "watch [ID]", "follow a move to its end, or all that run", ARGUMENT_OPTIONAL,
     run_watch},
    {"cancel", "cancel ID", "give a move up; the VM stays at the source", ARGUMENT_NEEDED,
     run_cancel},
    {"postcopy", "postcopy ID", "let a move switch to post-copy", ARGUMENT_NEEDED, run_postcopy},
    {"switchover", "switchover ID", "let a held move switch over", ARGUMENT_NEEDED, run_switchover},
    {"resolve", "resolve ID --run-at source|target", "end a move in doubt, by your own word",
     ARGUMENT_NEEDED, run_resolve},
    {"bwlimit", "bwlimit ID|SITE RATE",
     "limit a move, or all that goes to a site: 200M, 25MB, off, timetable", ARGUMENT_TWO,
     run_bwlimit},
    {"set", "set ID KEY=VALUE", "change a move under way: xbzrle_cache, bwlimit", ARGUMENT_TWO,
     run_set},
    {"policies", "policies", "the policies there are, and what they say", ARGUMENT_NONE,
     run_policies},
    {"policy", "policy show DOMAIN [--policy NAME]",
     "what holds for a VM's moves, setting by setting, and who says so", ARGUMENT_TWO, run_policy},
    {"link", "link SITE [--probe]",
     "the way to a peer: round trip, rates, loss; measured with --probe", ARGUMENT_NEEDED,
     run_link},
    {"peers", "peers", "the sites this one knows", ARGUMENT_NONE, run_peers},
    {"identity", "identity", "what to paste into a peer's configuration", ARGUMENT_NONE,
     run_identity},
    {NULL, NULL, NULL, ARGUMENT_NONE, NULL},
};

static const struct command *find_command(const char *name)
{
    for (const struct command *c = commands; c->name; c++) {
        if (strcmp(c->name, name) == 0)
            return c;
    }
    return NULL;
}

static int run_command(struct invocation *in, int argc, char **argv)
{
    const struct command *c = find_command(argv[0]);

    if (!c) {
        fprintf(stderr, "ferry: there is no command '%s'\n", argv[0]);
        print_help(stderr);
        return EXIT_USAGE;
    }
    if (c->argument == ARGUMENT_OPTIONAL ? argc > 2
                                         : argc - 1 != (int)c->argument) { /* none, one, two */
        fprintf(stderr, "usage: ferry %s\n", c->usage);
        return EXIT_USAGE;
    }
    in->argument = argc >= 2 ? argv[1] : NULL;
    in->second = argc >= 3 ? argv[2] : NULL;
    return c->run(in);
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"socket", required_argument, NULL, 's'},  {"json", no_argument, NULL, 'j'},
        {"to", required_argument, NULL, 't'},      {"detach", no_argument, NULL, 'd'},
        {"hold", no_argument, NULL, 'H'},          {"verify", no_argument, NULL, 'V'},
        {"at", required_argument, NULL, 'A'},      {"all", no_argument, NULL, 'a'},
        {"bwlimit", required_argument, NULL, 'b'}, {"probe", no_argument, NULL, 'p'},
        {"run", required_argument, NULL, 'R'},     {"keep-disk", no_argument, NULL, 'k'},
        {"dry-run", no_argument, NULL, 'n'},       {"jobs", required_argument, NULL, 'J'},
        {"policy", required_argument, NULL, 'P'},  {"set", required_argument, NULL, 'x'},
        {"first", required_argument, NULL, 'F'},   {"stop", no_argument, NULL, 'S'},
        {"resume", no_argument, NULL, 'E'},        {"show", no_argument, NULL, 'W'},
        {"run-at", required_argument, NULL, 'r'},  {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    const char *socket_path = "/run/ferry/ferry.sock";
    struct invocation in = {0};
    int c, status;

    while ((c = getopt_long(argc, argv, "h", options, NULL)) != -1) {
        switch (c) {
        case 's':
            socket_path = optarg;
            break;
        case 'j':
            in.json = true;
            break;
        case 't':
            in.to = optarg;
            break;
        case 'd':
            in.detach = true;
            break;
        case 'H':
            in.hold = true;
            break;
        case 'V':
            in.verify = true;
            break;
        case 'A':
            in.at = optarg;
            break;
        case 'a':
            in.all = true;
            break;
        case 'b':
            in.bwlimit = optarg;
            break;
        case 'p':
            in.probe = true;
            break;
        case 'R':
            in.run = optarg;
            break;
        case 'k':
            in.keep_disk = true;
            break;
        case 'n':
            in.dry_run = true;
            break;
        case 'J':
            in.jobs = optarg;
            break;
        case 'F':
            in.first = optarg;
            break;
        case 'S':
            in.stop = true;
            break;
        case 'E':
            in.resume = true;
            break;
        case 'W':
            in.show = true;
            break;
        case 'P':
            in.policy = optarg;
            break;
        case 'x':
            if (in.setting_count == INVOCATION_SETTINGS_MAX)
                return EXIT_USAGE;
            in.settings[in.setting_count++] = optarg;
            break;
        case 'r':
            in.run_at = optarg;
            break;
        case 'v':
            printf("ferry %s\n", FERRY_VERSION);
            return 0;
        case 'h':
            print_help(stdout);
            return 0;
        default:
            print_help(stderr);
            return EXIT_USAGE;
        }
    }
    if (optind == argc) {
        print_help(stderr);
        return EXIT_USAGE;
    }
    curl_global_init(CURL_GLOBAL_DEFAULT);
    if (client_new(socket_path, &in.client) < 0) {
        fprintf(stderr, "ferry: cannot use the socket %s\n", socket_path);
        return EXIT_NO_FERRYD;
    }
    status = run_command(&in, argc - optind, argv + optind);
    client_free(in.client);
    curl_global_cleanup();
    return status;
}
