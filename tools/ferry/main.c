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

enum { POLL_MS = 250 };

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

int invocation_show(struct invocation *in, const char *path,
                    void (*print)(const struct invocation *in, const json_t *answer))
{
    struct error err = {0};
    json_t *answer = NULL;

    if (client_call(in->client, path, false, NULL, &answer, &err) < 0)
        return invocation_fail(in, &err);
    if (in->json)
        invocation_print_json(answer);
    else
        print(in, answer);
    json_decref(answer);
    return 0;
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

static void print_peers(const struct invocation *in, const json_t *answer)
{
    const json_t *p;
    size_t i;

    (void)in;
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

static int run_peers(struct invocation *in)
{
    return invocation_show(in, "/v1/peers", print_peers);
}

static void print_identity(const struct invocation *in, const json_t *answer)
{
    (void)in;
    printf("[peer %s]\nfingerprint = %s\n", invocation_member(answer, "name"),
           invocation_member(answer, "fingerprint"));
}

static int run_identity(struct invocation *in)
{
    return invocation_show(in, "/v1/identity", print_identity);
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
     "evacuate --to SITE[,SITE] [--jobs N] [--first VM[,VM]] [--policy NAME] [--set KEY=VALUE] "
     "[--dry-run] | --show "
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
