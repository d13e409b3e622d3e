/* SPDX-License-Identifier: Apache-2.0 */
/* linkload: puts a known load on the link between two places, for tools/bench and the tests. */
#include <getopt.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "tools/linkload/load.h"
#include "tools/linkload/raw.h"

static const char USAGE[] =
    "usage: linkload identity --dir DIR              makes a key, prints its fingerprint\n"
    "       linkload receive --dir DIR --peer FINGERPRINT --listen HOST:PORT [options]\n"
    "       linkload send --dir DIR --peer FINGERPRINT --to HOST:PORT [options]\n"
    "       linkload raw-receive | raw-send ...      plain OpenSSL on threads, the reference\n"
    "\n"
    "  --seconds S       send for so long (default 10); --bytes N  or so many on each stream\n"
    "  --streams N       payload streams (default 1)\n"
    "  --pattern WORD    random (default), text, zero; the same at both ends\n"
    "  --stripes N       connections (default 4), or auto\n"
    "  --window BYTES    what a session may hold for its readers\n"
    "  --question MS     a small urgent question so often (default: none)\n"
    "  --question-after S  the first of them\n"
    "  --no-verify       receive: do not look at the bytes\n"
    "  --stall           receive: never read the payload\n"
    "  --limit BYTES_S   send: at most so many; lines \"limit BYTES_S\" on standard input change "
    "it\n"
    "  --set KEY=VALUE   outage_limit_s, stripe_timeout_s, socket_buffer, congestion_control,\n"
    "                    compression=off\n"
    "Prints a JSON line every 100 ms and one at the end.\n";

static int set_option(struct load_options *o, const char *pair)
{
    const char *value = strchr(pair, '=');

    if (!value)
        return -1;
    value++;
    if (strncmp(pair, "outage_limit_s=", 15) == 0)
        o->link.outage_limit_ns = strtoull(value, NULL, 10) * NS_PER_S;
    else if (strncmp(pair, "stripe_timeout_s=", 17) == 0)
        o->link.stripe_timeout_ns = strtoull(value, NULL, 10) * NS_PER_S;
    else if (strncmp(pair, "socket_buffer=", 14) == 0)
        o->link.socket_buffer_bytes = (uint32_t)strtoul(value, NULL, 10);
    else if (strncmp(pair, "congestion_control=", 19) == 0)
        snprintf(o->link.congestion_control, sizeof(o->link.congestion_control), "%s", value);
    else if (strcmp(pair, "compression=off") == 0)
        o->link.compress = false;
    else
        return -1;
    return 0;
}

static int usage(void)
{
    fputs(USAGE, stderr);
    return 2;
}

static int take_option(struct load_options *o, int option, const char *value)
{
    switch (option) {
    case 'd':
        o->folder = value;
        return 0;
    case 'p':
        return tls_fingerprint_parse(value, o->peer.fingerprint);
    case 'l':
        snprintf(o->link.listen, sizeof(o->link.listen), "%s", value);
        return 0;
    case 't':
        snprintf(o->peer.address, sizeof(o->peer.address), "%s", value);
        return 0;
    case 's':
        o->seconds = strtod(value, NULL);
        return 0;
    case 'b':
        o->bytes = strtoull(value, NULL, 10);
        o->seconds = 0;
        return 0;
    case 'n':
        o->streams = (unsigned)strtoul(value, NULL, 10);
        return o->streams >= 1 && o->streams <= 200 ? 0 : -1;
    case 'P':
        return pattern_parse(value, &o->pattern) ? 0 : -1;
    case 'S':
        o->link.stripes = (unsigned)strtoul(value, NULL, 10);
        return strcmp(value, "auto") == 0 ||
                       (o->link.stripes >= 1 && o->link.stripes <= LIMIT_SESSION_STRIPES)
                   ? 0
                   : -1;
    case 'w':
        o->link.window_bytes = (uint32_t)strtoul(value, NULL, 10);
        return 0;
    case 'q':
        o->question_ms = (unsigned)strtoul(value, NULL, 10);
        return 0;
    case 'Q':
        o->question_after_s = strtod(value, NULL);
        return 0;
    case 'V':
        o->verify = false;
        return 0;
    case 'z':
        o->stall = true;
        return 0;
    case 'L':
        o->limit_bytes_s = strtoull(value, NULL, 10);
        o->listen_to_stdin = true;
        return 0;
    case 'k':
        return set_option(o, value);
    default:
        return -1;
    }
}

static int print_identity(const struct load_options *o)
{
    char key[4096], certificate[4096], line[1024];
    struct tls_identity *id;
    struct error err = {0};

    snprintf(key, sizeof(key), "%s/key.pem", o->folder);
    snprintf(certificate, sizeof(certificate), "%s/certificate.pem", o->folder);
    if (tls_identity_load(key, certificate, "linkload", &id, &err) < 0) {
        fprintf(stderr, "linkload: %s\n", error_line(&err, line, sizeof(line)));
        return 1;
    }
    puts(tls_identity_fingerprint(id));
    tls_identity_free(id);
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        {"dir", required_argument, NULL, 'd'},
        {"peer", required_argument, NULL, 'p'},
        {"listen", required_argument, NULL, 'l'},
        {"to", required_argument, NULL, 't'},
        {"seconds", required_argument, NULL, 's'},
        {"bytes", required_argument, NULL, 'b'},
        {"streams", required_argument, NULL, 'n'},
        {"pattern", required_argument, NULL, 'P'},
        {"stripes", required_argument, NULL, 'S'},
        {"window", required_argument, NULL, 'w'},
        {"question", required_argument, NULL, 'q'},
        {"question-after", required_argument, NULL, 'Q'},
        {"no-verify", no_argument, NULL, 'V'},
        {"stall", no_argument, NULL, 'z'},
        {"limit", required_argument, NULL, 'L'},
        {"set", required_argument, NULL, 'k'},
        {"help", no_argument, NULL, 'h'},
        {NULL, 0, NULL, 0},
    };
    struct load_options o = {
        .folder = ".", .care = CARE_BULK, .streams = 1, .seconds = 10, .verify = true};
    const char *command = argc > 1 ? argv[1] : "";
    int option;

    link_config_default(&o.link);
    snprintf(o.link.site_name, sizeof(o.link.site_name), "linkload");
    snprintf(o.peer.name, sizeof(o.peer.name), "peer");
    signal(SIGPIPE, SIG_IGN);
    /* As ferryd does: frames from the heap, not from fresh pages of the kernel each time. */
    mallopt(M_MMAP_THRESHOLD, 4 * 1024 * 1024);
    mallopt(M_TRIM_THRESHOLD, 16 * 1024 * 1024);
    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option == 'h') {
            fputs(USAGE, stdout);
            return 0;
        }
        if (take_option(&o, option, optarg) < 0)
            return usage();
    }
    if (strcmp(command, "identity") == 0)
        return print_identity(&o);
    if (strcmp(command, "receive") == 0)
        return load_receive(&o);
    if (strcmp(command, "send") == 0)
        return load_send(&o);
    if (strcmp(command, "raw-receive") == 0)
        return raw_receive(&o);
    if (strcmp(command, "raw-send") == 0)
        return raw_send(&o);
    return usage();
}
