/* SPDX-License-Identifier: Apache-2.0 */
/* ferryd: command line, signals, the loop. */
#include <errno.h>
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <uv.h>

#include "core/base/log.h"
#include "core/base/priority.h"
#include "core/service.h"
#include "core/service_manager.h"

static const char DEFAULT_CONFIG[] = "/etc/ferry/ferry.conf";

static void print_help(FILE *to)
{
    fprintf(to,
            "usage: ferryd [--config FILE] [--check-config | --identity]\n"
            "Moves running virtual machines to and from other sites; `ferry` is its command.\n"
            "  --config FILE    read FILE (default %s)\n"
            "  --check-config   read it, say what is wrong, and exit\n"
            "  --identity       make this site's key if there is none, print its fingerprint, and "
            "exit\n"
            "  --version, --help\n",
            DEFAULT_CONFIG);
}

static int fail(const struct error *err)
{
    char line[1024];

    fprintf(stderr, "ferryd: %s\n", error_line(err, line, sizeof(line)));
    return EXIT_FAILURE;
}

static int check_config(const char *path)
{
    struct error err = {0};
    struct config *config;

    if (config_load(path, &config, &err) < 0)
        return fail(&err);
    printf("%s: fine; site %s, %u peers\n", path, config->name, config->peer_count);
    config_free(config);
    return EXIT_SUCCESS;
}

static int print_identity(const char *path)
{
    struct error err = {0};
    struct config *config;
    struct tls_identity *identity;
    int r = config_load(path, &config, &err);

    if (r < 0)
        return fail(&err);
    r = tls_identity_load(config->key, config->certificate, config->name, &identity, &err);
    config_free(config);
    if (r < 0)
        return fail(&err);
    printf("%s\n", tls_identity_fingerprint(identity));
    tls_identity_free(identity);
    return EXIT_SUCCESS;
}

static struct {
    struct service *service;
    uv_signal_t handles[3];
} running;

static void on_signal(uv_signal_t *handle, int number)
{
    struct error err = {0};
    char line[1024];

    (void)handle;
    if (number == SIGHUP) {
        service_manager_reloading();
        if (service_reload(running.service, &err) < 0)
            log_error("nothing changed: %s", error_line(&err, line, sizeof(line)));
        service_manager_reloaded();
        return;
    }
    service_manager_stopping();
    service_stop(running.service);
    for (size_t i = 0; i < ARRAY_SIZE(running.handles); i++) {
        if (!uv_is_closing((uv_handle_t *)&running.handles[i]))
            uv_close((uv_handle_t *)&running.handles[i], NULL);
    }
}

static int run(const char *config_path)
{
    static const int signals[] = {SIGHUP, SIGINT, SIGTERM};
    uv_loop_t *loop = uv_default_loop();
    struct error err = {0};

    signal(SIGPIPE, SIG_IGN);
    priority_first();
    /* Payloads of up to 1 MiB come and go a hundred times a second, and the logs that hold them fill and drain: from the
     * heap, not from fresh pages of the kernel each time, which was a tenth of a busy ferryd's time. What is free is
     * given back when no move sends: service_trim_memory(). */
    mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 1024 * 1024 * 1024);
    if (service_new(loop, config_path, &running.service, &err) < 0)
        return fail(&err);
    for (size_t i = 0; i < ARRAY_SIZE(signals); i++) {
        uv_signal_init(loop, &running.handles[i]);
        uv_signal_start(&running.handles[i], on_signal, signals[i]);
    }
    service_manager_ready(loop);
    uv_run(loop, UV_RUN_DEFAULT);
    service_free(running.service);
    uv_loop_close(loop);
    return EXIT_SUCCESS;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"config", required_argument, NULL, 'c'}, {"check-config", no_argument, NULL, 'k'},
        {"identity", no_argument, NULL, 'i'},     {"version", no_argument, NULL, 'v'},
        {"help", no_argument, NULL, 'h'},         {NULL, 0, NULL, 0},
    };
    const char *config_path = DEFAULT_CONFIG;
    int (*action)(const char *path) = run;
    int c;

    while ((c = getopt_long(argc, argv, "c:h", options, NULL)) != -1) {
        switch (c) {
        case 'c':
            config_path = optarg;
            break;
        case 'k':
            action = check_config;
            break;
        case 'i':
            action = print_identity;
            break;
        case 'v':
            printf("ferryd %s\n", FERRY_VERSION);
            return EXIT_SUCCESS;
        case 'h':
            print_help(stdout);
            return EXIT_SUCCESS;
        default:
            print_help(stderr);
            return 2;
        }
    }
    if (optind < argc) {
        print_help(stderr);
        return 2;
    }
    return action(config_path);
}
