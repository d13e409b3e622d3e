/* SPDX-License-Identifier: Apache-2.0 */
/*
 * nbd_pair: a whole disk mirror in one process, over real sockets at both ends, for nbd_interop.sh.
 *
 *   NBD client --unix--> [ mirror_connection -> mirror_source ]
 *                               |  a pipe with delay, both ways
 *                        [ mirror_target -> disk_writer_nbd ] --unix--> NBD server (nbdkit, qemu-nbd)
 *
 *   nbd_pair LISTEN-SOCKET EXPORT SIZE-BYTES TARGET-SOCKET TARGET-EXPORT [DELAY-MS [BUDGET-BYTES]]
 *
 * Clients may come and go. SIGTERM closes the mirror: what is acknowledged is applied and flushed, the
 * figures are printed, exit status 0; any failure is printed and gives 1.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "core/base/clock.h"
#include "storage/disk_writer_nbd.h"
#include "storage/limits.h"
#include "storage/mirror_connection.h"
#include "storage/mirror_target.h"

enum { CLIENTS_MAX = 8, READ_BYTES = 64 * 1024, PIPE_BYTES = 8 * 1024 * 1024 };

/* A delayed pipe: bytes, and for each mark the time at which everything before it may come out. */
struct mark {
    struct mark *next;
    uint64_t due_ns, end;
};

struct delay_pipe {
    struct buffer bytes;
    uint64_t in, out; /* ever */
    struct mark *first, *last;
};

struct client {
    int fd;
    struct mirror_connection *connection;
};

static struct mirror_budget *budget;
static struct mirror_endpoint *endpoint;
static struct mirror_source *source;
static struct mirror_target *target;
static struct disk_writer_nbd *writer;
static struct client clients[CLIENTS_MAX];
static struct delay_pipe there, back;
static uint64_t delay_ns;
static bool writer_closed;
static volatile sig_atomic_t terminated;

static void __attribute__((noreturn)) die(const char *what, const char *why)
{
    fprintf(stderr, "nbd_pair: %s: %s\n", what, why);
    exit(1);
}

static void on_signal(int number)
{
    (void)number;
    terminated = 1;
}

/* --- the pipe --------------------------------------------------------------------------------- */

static void pipe_mark(struct delay_pipe *p, size_t added)
{
    struct mark *m;

    if (added == 0)
        return;
    m = malloc(sizeof(*m));
    if (!m)
        die("pipe", "out of memory");
    p->in += added;
    *m = (struct mark){.due_ns = clock_now_ns() + delay_ns, .end = p->in};
    if (p->last)
        p->last->next = m;
    else
        p->first = m;
    p->last = m;
}

/* How many bytes have arrived by now. */
static size_t pipe_due(struct delay_pipe *p)
{
    uint64_t now = clock_now_ns(), end = p->out;

    for (struct mark *m = p->first; m && m->due_ns <= now; m = m->next)
        end = m->end;
    return (size_t)(end - p->out);
}

static void pipe_took(struct delay_pipe *p, size_t len)
{
    struct mark *m;

    buffer_consume(&p->bytes, len);
    p->out += len;
    while ((m = p->first) && m->end <= p->out) {
        p->first = m->next;
        if (!p->first)
            p->last = NULL;
        free(m);
    }
}

/* --- both ends -------------------------------------------------------------------------------- */

static void on_ready(void *owner)
{
    (void)owner;
    mirror_target_set_writer(target, &disk_writer_nbd_ops, writer);
}

static void on_complete(void *owner, uint64_t cookie, int err)
{
    (void)owner;
    mirror_target_complete(target, cookie, err);
}

static void on_closed(void *owner, const struct error *why)
{
    (void)owner;
    writer_closed = true;
    if (error_is_set(why))
        mirror_target_fail(target, why);
}

static const struct disk_writer_nbd_callbacks writer_callbacks = {
    .ready = on_ready, .complete = on_complete, .closed = on_closed};

static void move_stream(void)
{
    size_t len;
    ssize_t n;

    len = buffer_len(&there.bytes);
    if (len < PIPE_BYTES)
        pipe_mark(&there,
                  mirror_source_pull(source, &there.bytes, PIPE_BYTES - len, clock_now_ns()));
    while ((len = pipe_due(&there)) > 0) {
        n = mirror_target_feed(target, buffer_data(&there.bytes), len);
        if (n <= 0)
            break;
        pipe_took(&there, (size_t)n);
    }
    while (disk_writer_nbd_has_completions(writer))
        disk_writer_nbd_dispatch(writer, 0);
    pipe_mark(&back, mirror_target_pull(target, &back.bytes, PIPE_BYTES));
    len = pipe_due(&back);
    if (len > 0) {
        mirror_source_feed(source, buffer_data(&back.bytes), len, clock_now_ns());
        pipe_took(&back, len);
    }
}

static void client_close(struct client *c)
{
    mirror_connection_free(c->connection);
    close(c->fd);
    *c = (struct client){.fd = -1};
}

static void client_write(struct client *c)
{
    struct buffer *out = mirror_connection_output(c->connection);
    ssize_t n;

    while (buffer_len(out) > 0) {
        n = send(c->fd, buffer_data(out), buffer_len(out), MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n <= 0) {
            if (errno != EAGAIN)
                mirror_connection_eof(c->connection, -errno);
            break;
        }
        buffer_consume(out, (size_t)n);
        mirror_connection_drained(c->connection, clock_now_ns());
    }
    if (mirror_connection_is_closed(c->connection) && (buffer_len(out) == 0 || errno != EAGAIN))
        client_close(c);
}

static void client_read(struct client *c)
{
    static uint8_t bytes[READ_BYTES];
    ssize_t n = recv(c->fd, bytes, sizeof(bytes), MSG_DONTWAIT);

    if (n > 0)
        mirror_connection_feed(c->connection, bytes, (size_t)n, clock_now_ns());
    else if (n == 0 || errno != EAGAIN)
        mirror_connection_eof(c->connection, n == 0 ? 0 : -errno);
}

static void client_accept(int listener)
{
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    for (unsigned i = 0; i < CLIENTS_MAX && fd >= 0; i++) {
        if (clients[i].fd >= 0)
            continue;
        if (mirror_connection_new(&clients[i].connection, endpoint, NULL, NULL) < 0)
            break;
        clients[i].fd = fd;
        return;
    }
    if (fd >= 0)
        close(fd);
}

/* --- the loop --------------------------------------------------------------------------------- */

static void turn(int listener)
{
    struct pollfd fds[CLIENTS_MAX + 2];
    unsigned wants = disk_writer_nbd_wants(writer);
    bool moving = there.first || back.first;

    fds[0] = (struct pollfd){.fd = listener, .events = POLLIN};
    fds[1] = (struct pollfd){.fd = disk_writer_nbd_fd(writer),
                             .events = (short)((wants & DISK_WRITER_READABLE ? POLLIN : 0) |
                                               (wants & DISK_WRITER_WRITABLE ? POLLOUT : 0))};
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        struct client *c = &clients[i];
        short events = 0;

        if (c->fd >= 0 && mirror_connection_wants_input(c->connection))
            events |= POLLIN;
        if (c->fd >= 0 && buffer_len(mirror_connection_output(c->connection)) > 0)
            events |= POLLOUT;
        fds[i + 2] = (struct pollfd){.fd = c->fd, .events = events};
    }
    if (poll(fds, CLIENTS_MAX + 2, moving ? 1 : 50) < 0 && errno != EINTR)
        die("poll", strerror(errno));
    if (fds[0].revents & POLLIN)
        client_accept(listener);
    if (fds[1].revents)
        disk_writer_nbd_dispatch(
            writer, (fds[1].revents & (POLLIN | POLLHUP | POLLERR) ? DISK_WRITER_READABLE : 0) |
                        (fds[1].revents & POLLOUT ? DISK_WRITER_WRITABLE : 0));
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (fds[i + 2].fd >= 0 && (fds[i + 2].revents & POLLIN))
            client_read(&clients[i]);
    }
    move_stream();
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (clients[i].fd >= 0)
            client_write(&clients[i]);
    }
}

static int listen_at(const char *path)
{
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (strlen(path) >= sizeof(a.sun_path))
        die(path, "the path is too long");
    strcpy(a.sun_path, path);
    if (fd < 0 || bind(fd, (struct sockaddr *)&a, sizeof(a)) < 0 || listen(fd, 16) < 0)
        die(path, strerror(errno));
    return fd;
}

static void print_figures(void)
{
    struct mirror_source_stats s;
    struct mirror_target_stats t;

    mirror_source_stats(source, &s);
    mirror_target_stats(target, &t);
    printf("entries %" PRIu64 " (coalesced %" PRIu64 "), data %" PRIu64
           " bytes, on the wire %" PRIu64 " bytes, zeroed %" PRIu64 " bytes\n",
           s.log.in_entries, s.log.coalesced_entries, s.log.in_payload_bytes, s.log.sent_bytes,
           t.zeroed_bytes);
    printf("log at most %" PRIu64 " bytes, target queue at most %" PRIu64
           " bytes, %u requests in flight, "
           "%" PRIu64 " acknowledgements held\n",
           s.log.fill_peak_bytes, t.queue_peak_bytes, t.in_flight_peak, s.log.held_count);
}

static void set_up(char **args, int count)
{
    uint64_t size = strtoull(args[3], NULL, 10);
    uint64_t limit = count > 7 ? strtoull(args[7], NULL, 10) : LIMIT_LOG_DEFAULT_BYTES;
    struct error e = {0};
    char line[1024];

    delay_ns = count > 6 ? strtoull(args[6], NULL, 10) * NS_PER_MS : 0;
    if (mirror_budget_new(&budget, limit) < 0 || mirror_endpoint_new(&endpoint) < 0 ||
        mirror_source_new(&source, &(struct mirror_source_params){.export_name = args[2],
                                                                  .size_bytes = size,
                                                                  .budget = budget,
                                                                  .many_clients = true}) < 0 ||
        mirror_endpoint_add(endpoint, source) < 0 ||
        mirror_target_new(&target,
                          &(struct mirror_target_params){.alias = args[2], .size_bytes = size}) < 0)
        die("set up", "out of memory");
    if (disk_writer_nbd_new(&writer,
                            &(struct disk_writer_nbd_params){.socket_path = args[4],
                                                             .export_name = args[5],
                                                             .size_bytes = size,
                                                             .callbacks = &writer_callbacks},
                            &e) < 0)
        die("connect", error_line(&e, line, sizeof(line)));
}

static bool is_over(void)
{
    enum mirror_source_state state = mirror_source_state(source);

    return state == MIRROR_SOURCE_DONE || state == MIRROR_SOURCE_FAILED;
}

static void tear_down(void)
{
    for (unsigned i = 0; i < CLIENTS_MAX; i++) {
        if (clients[i].fd >= 0)
            client_close(&clients[i]);
    }
    mirror_endpoint_remove(endpoint, source);
    disk_writer_nbd_free(writer);
    mirror_source_free(source);
    mirror_target_free(target);
    mirror_endpoint_free(endpoint);
    mirror_budget_free(budget);
    pipe_took(&there, buffer_len(&there.bytes));
    pipe_took(&back, buffer_len(&back.bytes));
    buffer_done(&there.bytes);
    buffer_done(&back.bytes);
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_signal};
    char line[1024];
    int listener, status;

    if (argc < 6 || argc > 8) {
        fprintf(
            stderr,
            "usage: nbd_pair LISTEN EXPORT SIZE TARGET TARGET-EXPORT [DELAY-MS [BUDGET-BYTES]]\n");
        return 2;
    }
    sigaction(SIGTERM, &action, NULL);
    for (unsigned i = 0; i < CLIENTS_MAX; i++)
        clients[i].fd = -1;
    set_up(argv, argc);
    listener = listen_at(argv[1]);
    while (!is_over()) {
        if (terminated && mirror_source_state(source) == MIRROR_SOURCE_WAIT_CLIENT)
            mirror_source_close(source);
        turn(listener);
    }
    status = mirror_source_state(source) == MIRROR_SOURCE_DONE ? 0 : 1;
    if (status)
        fprintf(stderr, "nbd_pair: %s\n",
                error_line(mirror_source_error(source), line, sizeof(line)));
    disk_writer_nbd_disconnect(writer);
    while (!writer_closed)
        turn(listener);
    print_figures();
    close(listener);
    tear_down();
    return status;
}
