/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/wan/control.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "tools/wan/tun.h"

#define ANSWER_BYTES 1024

int wan_apply(struct wan *w, const struct path_settings *s)
{
    bool segmentation = w->offload && s->loss_percent <= 0;
    int r;

    if ((r = path_configure(&w->a_to_b, s)) < 0 || (r = path_configure(&w->b_to_a, s)) < 0)
        return r;
    if ((r = tun_set_offload(w->tun_a, segmentation)) < 0 ||
        (r = tun_set_offload(w->tun_b, segmentation)) < 0)
        return r;
    w->settings = *s;
    return 0;
}

const char *wan_parse_setting(struct path_settings *s, const char *word)
{
    const char *equals = strchr(word, '=');
    double *field;
    char *end;

    if (!equals)
        return "a setting is written key=value";
    if (strncmp(word, "rtt=", 4) == 0)
        field = &s->rtt_ms;
    else if (strncmp(word, "rate=", 5) == 0)
        field = &s->rate_mbit;
    else if (strncmp(word, "queue=", 6) == 0)
        field = &s->queue_ms;
    else if (strncmp(word, "loss=", 5) == 0)
        field = &s->loss_percent;
    else
        return "settings are rtt, rate, queue and loss";
    *field = strtod(equals + 1, &end);
    return end == equals + 1 || *end ? "a setting's value is a number" : NULL;
}

static int on_set(struct wan *w, char *words, const char **ret_problem)
{
    struct path_settings s = w->settings;
    char *save = NULL;

    for (char *word = strtok_r(words, " ", &save); word; word = strtok_r(NULL, " ", &save))
        if ((*ret_problem = wan_parse_setting(&s, word)))
            return -EINVAL;
    if ((*ret_problem = path_settings_problem(&s)))
        return -EINVAL;
    return wan_apply(w, &s);
}

static int on_cut(struct wan *w, const char *direction, bool cut, const char **ret_problem)
{
    bool both = *direction == '\0';

    if (!both && strcmp(direction, "a-to-b") != 0 && strcmp(direction, "b-to-a") != 0) {
        *ret_problem = "a direction is a-to-b or b-to-a";
        return -EINVAL;
    }
    if (both || strcmp(direction, "a-to-b") == 0)
        w->a_to_b.cut = cut;
    if (both || strcmp(direction, "b-to-a") == 0)
        w->b_to_a.cut = cut;
    return 0;
}

static int print_path(char *out, size_t cap, const char *name, const struct path *p)
{
    const struct path_stats *s = &p->stats;

    return snprintf(out, cap,
                    ", \"%s\": {\"cut\": %s, \"packets\": %lu, \"segments\": %lu, \"bytes\": %lu, "
                    "\"dropped_queue\": %lu, \"dropped_loss\": %lu, \"dropped_cut\": %lu, "
                    "\"dropped_memory\": %lu, \"dropped_device\": %lu}",
                    name, p->cut ? "true" : "false", s->packets, s->segments, s->bytes,
                    s->dropped_queue, s->dropped_loss, s->dropped_cut, s->dropped_memory,
                    s->dropped_device);
}

/* The answer has a fixed shape: 20 numbers of at most 20 digits fit ANSWER_BYTES with their names. */
static void print_stats(char *out, const struct wan *w)
{
    int n = snprintf(out, ANSWER_BYTES,
                     "{\"rtt\": %g, \"rate\": %g, \"queue\": %g, \"loss\": %g, \"offload\": %s",
                     w->settings.rtt_ms, w->settings.rate_mbit, w->settings.queue_ms,
                     w->settings.loss_percent,
                     w->offload && w->settings.loss_percent <= 0 ? "true" : "false");

    n += print_path(out + n, ANSWER_BYTES - (size_t)n, "a_to_b", &w->a_to_b);
    n += print_path(out + n, ANSWER_BYTES - (size_t)n, "b_to_a", &w->b_to_a);
    snprintf(out + n, ANSWER_BYTES - (size_t)n, "}\n");
}

static void execute(struct wan *w, char *line, char *answer)
{
    char *rest = line + strcspn(line, " ");
    const char *problem = NULL;
    int r = 0;

    if (*rest)
        *rest++ = '\0';
    if (strcmp(line, "set") == 0)
        r = on_set(w, rest, &problem);
    else if (strcmp(line, "cut") == 0 || strcmp(line, "mend") == 0)
        r = on_cut(w, rest, strcmp(line, "cut") == 0, &problem);
    else if (strcmp(line, "stats") != 0)
        problem = "commands are set, cut, mend and stats";
    if (problem || r < 0)
        snprintf(answer, ANSWER_BYTES, "{\"error\": \"%s\"}\n", problem ? problem : strerror(-r));
    else
        print_stats(answer, w);
}

int control_listen(struct control *c, const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};

    for (int i = 0; i < CONTROL_CLIENTS; i++)
        c->clients[i].fd = -1;
    if (strlen(path) >= sizeof(addr.sun_path))
        return -ENAMETOOLONG;
    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    unlink(path);
    c->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (c->listener < 0 || bind(c->listener, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
        listen(c->listener, CONTROL_CLIENTS) < 0)
        return -errno;
    return 0;
}

void control_poll(const struct control *c, struct pollfd *fds)
{
    bool full = true;

    for (int i = 0; i < CONTROL_CLIENTS; i++) {
        fds[1 + i] = (struct pollfd){.fd = c->clients[i].fd, .events = POLLIN};
        full = full && c->clients[i].fd >= 0;
    }
    fds[0] = (struct pollfd){.fd = full ? -1 : c->listener, .events = POLLIN};
}

static void client_drop(struct control_client *client)
{
    close(client->fd);
    client->fd = -1;
    client->len = 0;
}

/* Reads what is there and answers each complete line. A client that does not read its answers (a few
 * hundred bytes each) or sends endless lines is dropped. */
static void client_serve(struct control_client *client, struct wan *w)
{
    ssize_t n = recv(client->fd, client->line + client->len, sizeof(client->line) - client->len - 1,
                     MSG_DONTWAIT);
    char answer[ANSWER_BYTES], *end;

    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        client_drop(client);
        return;
    }
    client->len += (size_t)n;
    while ((end = memchr(client->line, '\n', client->len))) {
        size_t used = (size_t)(end + 1 - client->line);

        *end = '\0';
        execute(w, client->line, answer);
        if (send(client->fd, answer, strlen(answer), MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
            client_drop(client);
            return;
        }
        client->len -= used;
        memmove(client->line, client->line + used, client->len);
    }
    if (client->len == sizeof(client->line) - 1)
        client_drop(client);
}

void control_serve(struct control *c, const struct pollfd *fds, struct wan *w)
{
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (fds[1 + i].fd >= 0 && fds[1 + i].revents)
            client_serve(&c->clients[i], w);
    if (fds[0].fd < 0 || !fds[0].revents)
        return;
    for (int i = 0; i < CONTROL_CLIENTS; i++)
        if (c->clients[i].fd < 0) {
            c->clients[i].fd = accept4(c->listener, NULL, NULL, SOCK_CLOEXEC);
            return;
        }
}
