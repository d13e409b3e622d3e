/* SPDX-License-Identifier: Apache-2.0 */
/*
 * wan: joins two network namespaces by an emulated long line, without root's tc or a netem kernel.
 *
 *   namespace a: wan0 (TUN) --> struct path a_to_b --> wan0 (TUN) :namespace b
 *                wan0 (TUN) <-- struct path b_to_a <-- wan0 (TUN)
 *
 * One thread, one loop: deliver what is due, take in what has arrived, sleep until the next is due.
 * Work is gathered: after a turn in which packets came or went the loop sleeps for a while (gather_ns()),
 * so that a busy line costs the machine a thousand wake-ups a second, not one a packet; a real line costs
 * none. Packets leave on time or late by twice that, never early and never reordered.
 */
#include <errno.h>
#include <getopt.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>

#include "core/base/clock.h"
#include "core/base/macros.h"
#include "tools/wan/control.h"
#include "tools/wan/tun.h"

/* Packets taken in before deliveries get their turn again. */
#define INTAKE_PACKETS 64

enum { POLL_TUN_A, POLL_TUN_B, POLL_CONTROL, POLL_COUNT = POLL_CONTROL + 1 + CONTROL_CLIENTS };

static volatile sig_atomic_t quit;

static void on_signal(int sig)
{
    (void)sig;
    quit = 1;
}

/* What a turn found to do; parts of a turn are put together with |. */
enum { TURN_IDLE = 0, TURN_BUSY = 1, TURN_MORE = 2, TURN_OVER = 4 };

/* A fiftieth of the one-way delay, which no congestion control tells from a host's own jitter; a tenth where that is next
 * to nothing; and never so long that what is gathered would overflow the queue. */
static uint64_t gather_ns(const struct wan *w)
{
    uint64_t delay_ns = w->a_to_b.delay_ns;
    uint64_t gather =
        MAX(MIN(delay_ns / 10, UINT64_C(200000)), MIN(delay_ns / 50, UINT64_C(1000000)));

    return MIN(gather, w->a_to_b.queue_ns / 4);
}

/* A device is gone with its namespace, and does not come back. */
static bool is_gone(ssize_t n)
{
    return n < 0 && (errno == EBADFD || errno == EBADF);
}

static unsigned take_in(struct path *p, int tun)
{
    for (int i = 0; i < INTAKE_PACKETS; i++) {
        ssize_t n = read(tun, path_reserve(p), WAN_PACKET_BYTES);

        if (is_gone(n))
            return TURN_OVER;
        if (n <= 0)
            return i > 0 ? TURN_BUSY : TURN_IDLE;
        path_commit(p, clock_now_ns(), (size_t)n);
    }
    return TURN_MORE;
}

/* A packet that the far device refuses (it is down, out of memory) is lost, as on any network; and counted. */
static unsigned deliver(struct path *p, int tun)
{
    uint64_t now = clock_now_ns();
    unsigned turn = TURN_IDLE;
    const uint8_t *packet;
    size_t len;

    while ((packet = path_due(p, now, &len))) {
        ssize_t n = write(tun, packet, len);

        if (is_gone(n))
            return TURN_OVER;
        p->stats.dropped_device += n < 0;
        path_pop(p);
        turn = TURN_BUSY;
    }
    return turn;
}

/* Signals are let in here only, so that none comes between the look at `quit` and the sleep. */
static void sleep_until_work(const struct wan *w, unsigned last, struct pollfd *fds,
                             const sigset_t *signals)
{
    uint64_t deadline = MIN(path_deadline(&w->a_to_b), path_deadline(&w->b_to_a));
    uint64_t now = clock_now_ns(), wait;
    struct timespec t;

    if (last == TURN_IDLE && deadline == WAN_NEVER) {
        ppoll(fds, POLL_COUNT, NULL, signals);
        return;
    }
    if (last == TURN_IDLE)
        wait = MAX(deadline > now ? deadline - now : 0, gather_ns(w));
    else
        wait = last & TURN_MORE ? 0 : gather_ns(w);
    t = (struct timespec){.tv_sec = (time_t)(wait / NS_PER_S), .tv_nsec = (long)(wait % NS_PER_S)};
    ppoll(fds, POLL_COUNT, &t, signals);
}

/* Until it is asked to end: 0; or a device is gone: -ENODEV. */
static int run(struct wan *w, struct control *c)
{
    struct pollfd fds[POLL_COUNT];
    unsigned turn = TURN_IDLE;
    sigset_t blocked, before;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    while (!quit) {
        fds[POLL_TUN_A] = (struct pollfd){.fd = turn ? -1 : w->tun_a, .events = POLLIN};
        fds[POLL_TUN_B] = (struct pollfd){.fd = turn ? -1 : w->tun_b, .events = POLLIN};
        control_poll(c, fds + POLL_CONTROL);
        sleep_until_work(w, turn, fds, &before);
        turn = deliver(&w->a_to_b, w->tun_b);
        turn |= deliver(&w->b_to_a, w->tun_a);
        turn |= take_in(&w->a_to_b, w->tun_a);
        turn |= take_in(&w->b_to_a, w->tun_b);
        if (turn & TURN_OVER)
            return -ENODEV;
        control_serve(c, fds + POLL_CONTROL, w);
    }
    return 0;
}

static void usage(FILE *out)
{
    fputs("usage: wan --a NETNS --b NETNS --control SOCKET [options] [settings]\n"
          "\n"
          "Joins two network namespaces (paths such as /proc/PID/ns/net) by an emulated line: a\n"
          "TUN device in each, packets forwarded with delay, rate, queue and loss. Addresses are\n"
          "the caller's to set. Ends on SIGTERM.\n"
          "\n"
          "settings: rtt=MS rate=MBIT queue=MS loss=PERCENT (default 0, 1000, 50, 0)\n"
          "options:  --device NAME    in both namespaces (default wan0)\n"
          "          --no-offload     single packets always, not TCP super-packets\n"
          "          --seed N         of the losses\n"
          "\n"
          "The socket takes commands, a line each, and answers each with a line of JSON:\n"
          "set SETTING..., cut [a-to-b|b-to-a], mend [a-to-b|b-to-a], stats.\n",
          out);
}

static int fail(const char *step, const char *object, int error)
{
    fprintf(stderr, "wan: cannot %s%s%s: %s\n", step, object ? " " : "", object ? object : "",
            strerror(-error));
    return 1;
}

struct options {
    const char *a, *b, *control, *device;
    uint64_t seed;
    bool offload;
    struct path_settings settings;
};

/* 0, or the exit status + 1 (so that --help can end well). */
static int parse_options(struct options *o, int argc, char **argv)
{
    static const struct option table[] = {
        {"a", required_argument, NULL, 'a'},       {"b", required_argument, NULL, 'b'},
        {"control", required_argument, NULL, 'c'}, {"device", required_argument, NULL, 'd'},
        {"seed", required_argument, NULL, 's'},    {"no-offload", no_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},          {NULL, 0, NULL, 0},
    };
    const char *problem = NULL;
    int opt;

    while ((opt = getopt_long(argc, argv, "h", table, NULL)) != -1)
        switch (opt) {
        case 'a':
            o->a = optarg;
            break;
        case 'b':
            o->b = optarg;
            break;
        case 'c':
            o->control = optarg;
            break;
        case 'd':
            o->device = optarg;
            break;
        case 's':
            o->seed = strtoull(optarg, NULL, 0);
            break;
        case 'n':
            o->offload = false;
            break;
        case 'h':
            usage(stdout);
            return 1;
        default:
            usage(stderr);
            return 3;
        }
    for (; optind < argc && !problem; optind++)
        problem = wan_parse_setting(&o->settings, argv[optind]);
    if (!problem)
        problem = path_settings_problem(&o->settings);
    if (!problem && (!o->a || !o->b || !o->control))
        problem = "--a, --b and --control are needed";
    if (!problem)
        return 0;
    fprintf(stderr, "wan: %s\n", problem);
    return 3;
}

/* A line does not wait for processors: what it delays for want of one would be taken for a queue. A nice value alone
 * counts only within the session where the kernel groups processes by these. */
static void run_at_once(void)
{
    struct sched_param realtime = {.sched_priority = 1};

    if (sched_setscheduler(0, SCHED_FIFO, &realtime) < 0 && setpriority(PRIO_PROCESS, 0, -10) < 0)
        fprintf(stderr, "wan: no priority over others: a busy machine will delay the packets\n");
}

int main(int argc, char **argv)
{
    struct options o = {.device = "wan0",
                        .offload = true,
                        .seed = 1,
                        .settings = {.rate_mbit = 1000, .queue_ms = 50}};
    static struct wan w; /* large: two scratch packets */
    static struct control c;
    const char *step;
    int r = parse_options(&o, argc, argv);

    if (r)
        return r - 1;
    prctl(PR_SET_TIMERSLACK, 1);
    run_at_once();
    signal(SIGTERM, on_signal);
    signal(SIGINT, on_signal);
    if ((r = tun_open(o.a, o.device, &w.tun_a, &step)) < 0)
        return fail(step, o.a, r);
    if ((r = tun_open(o.b, o.device, &w.tun_b, &step)) < 0)
        return fail(step, o.b, r);
    w.offload = o.offload;
    path_seed(&w.a_to_b, o.seed);
    path_seed(&w.b_to_a, ~o.seed);
    if ((r = wan_apply(&w, &o.settings)) < 0)
        return fail("apply the settings", NULL, r);
    if ((r = control_listen(&c, o.control)) < 0)
        return fail("listen at", o.control, r);
    r = run(&w, &c);
    unlink(o.control);
    path_done(&w.a_to_b);
    path_done(&w.b_to_a);
    return r < 0 ? fail("go on: one end's TUN device is gone", NULL, r) : 0;
}
