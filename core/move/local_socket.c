/* SPDX-License-Identifier: Apache-2.0 */
/* UNIX sockets on the loop: see local_socket.h. */
#include "core/move/local_socket.h"

#include <errno.h>
#include <linux/sockios.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

enum { CONNECT_WITHIN_S = 2 };

struct local_socket {
    uv_poll_t poll;
    int fd;
    int events;
    const struct local_socket_ops *ops;
    void *user;
};

struct local_listener {
    uv_poll_t poll;
    int fd;
    char path[sizeof(((struct sockaddr_un *)0)->sun_path)];
    void (*on_accept)(void *user, int fd);
    void *user;
};

static int fill_address(const char *path, struct sockaddr_un *ret)
{
    memset(ret, 0, sizeof(*ret));
    ret->sun_family = AF_UNIX;
    if (strlen(path) >= sizeof(ret->sun_path))
        return -ENAMETOOLONG;
    memcpy(ret->sun_path, path, strlen(path) + 1);
    return 0;
}

/* --- connections --------------------------------------------------------------------------- */

static void on_socket_closed(uv_handle_t *handle)
{
    struct local_socket *s = handle->data;

    close(s->fd);
    free(s);
}

static void on_socket_poll(uv_poll_t *poll, int status, int events)
{
    struct local_socket *s = poll->data;

    if (status < 0) /* the error shows itself to whoever reads or writes */
        events = s->events;
    if (events & UV_WRITABLE && s->events & UV_WRITABLE)
        s->ops->on_writable(s->user);
    /* on_writable may have freed it: uv_is_closing() is valid until the close callback. */
    if (events & UV_READABLE && !uv_is_closing((uv_handle_t *)poll) && s->events & UV_READABLE)
        s->ops->on_readable(s->user);
}

int local_socket_new(uv_loop_t *loop, int fd, const struct local_socket_ops *ops, void *user,
                     struct local_socket **ret)
{
    struct local_socket *s = calloc(1, sizeof(*s));
    int r = s ? uv_poll_init(loop, &s->poll, fd) : -ENOMEM; /* also makes it nonblocking */

    if (r < 0) {
        close(fd);
        free(s);
        return r;
    }
    s->fd = fd;
    s->ops = ops;
    s->user = user;
    s->poll.data = s;
    *ret = s;
    return 0;
}

int local_connect_fd(const char *path)
{
    static const struct timeval limit = {.tv_sec = CONNECT_WITHIN_S};
    struct sockaddr_un address;
    int r = fill_address(path, &address);
    int fd;

    if (r < 0)
        return r;
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return -errno;
    /* A listener that hangs, its backlog full, holds up nobody for longer. */
    (void)setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof(limit));
    if (connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0) {
        r = -errno;
        close(fd);
        return r;
    }
    return fd;
}

int local_socket_connect(uv_loop_t *loop, const char *path, const struct local_socket_ops *ops,
                         void *user, struct local_socket **ret)
{
    int fd = local_connect_fd(path);

    return fd < 0 ? fd : local_socket_new(loop, fd, ops, user, ret);
}

void local_socket_free(struct local_socket *s)
{
    if (!s)
        return;
    s->events = 0;
    uv_poll_stop(&s->poll);
    shutdown(s->fd, SHUT_RDWR); /* the other end learns now, not when the loop comes round */
    uv_close((uv_handle_t *)&s->poll, on_socket_closed);
}

void local_socket_want(struct local_socket *s, bool readable, bool writable)
{
    int events = (readable ? UV_READABLE : 0) | (writable ? UV_WRITABLE : 0);

    if (events == s->events || uv_is_closing((uv_handle_t *)&s->poll))
        return;
    s->events = events;
    if (events)
        uv_poll_start(&s->poll, events, on_socket_poll);
    else
        uv_poll_stop(&s->poll);
}

ssize_t local_socket_read(struct local_socket *s, void *buf, size_t len)
{
    ssize_t n = read(s->fd, buf, len);

    return n < 0 ? -errno : n;
}

ssize_t local_socket_write(struct local_socket *s, const void *data, size_t len)
{
    ssize_t n = send(s->fd, data, len, MSG_NOSIGNAL);

    return n < 0 ? -errno : n;
}

void local_socket_end(struct local_socket *s)
{
    shutdown(s->fd, SHUT_WR);
}

int local_socket_unread(const struct local_socket *s)
{
    struct pollfd p = {.fd = s->fd, .events = POLLRDHUP};
    int unread = 0;

    if (ioctl(s->fd, SIOCOUTQ, &unread) < 0)
        return -errno;
    /* When the peer closes, what it had not read is thrown away and counts as 0: ask for the hang-up
     * after the count, so that "0 and still there" means that it was read. */
    if (poll(&p, 1, 0) > 0 && p.revents & (POLLHUP | POLLRDHUP | POLLERR))
        return -EPIPE;
    return unread;
}

/* --- listeners ----------------------------------------------------------------------------- */

int local_listen_fd(const char *path, uid_t uid, gid_t gid, mode_t mode, struct error *err)
{
    struct sockaddr_un address;
    int r = fill_address(path, &address);
    int fd = -1;

    if (r == 0) {
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
            r = -errno;
    }
    if (r == 0) {
        unlink(path);
        if (bind(fd, (struct sockaddr *)&address, sizeof(address)) < 0 || chmod(path, mode) < 0 ||
            chown(path, uid, gid) < 0 || listen(fd, 16) < 0)
            r = -errno;
    }
    if (r < 0) {
        if (fd >= 0)
            close(fd);
        return error_set(err, r, "listen on a UNIX socket", NULL, "%s: %s", path, strerror(-r));
    }
    return fd;
}

static void on_listener_poll(uv_poll_t *poll, int status, int events)
{
    struct local_listener *l = poll->data;
    int fd;

    (void)status;
    (void)events;
    fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
    if (fd >= 0)
        l->on_accept(l->user, fd);
}

static void on_listener_closed(uv_handle_t *handle)
{
    free(handle->data);
}

int local_listener_new(uv_loop_t *loop, const char *path, uid_t uid, gid_t gid,
                       void (*on_accept)(void *user, int fd), void *user,
                       struct local_listener **ret, struct error *err)
{
    struct local_listener *l = calloc(1, sizeof(*l));
    int fd;

    if (!l)
        return error_set(err, -ENOMEM, "listen on a UNIX socket", NULL, "out of memory");
    fd = local_listen_fd(path, uid, gid, 0600, err);
    if (fd < 0) {
        free(l);
        return fd;
    }
    l->fd = fd;
    l->on_accept = on_accept;
    l->user = user;
    l->poll.data = l;
    snprintf(l->path, sizeof(l->path), "%s", path);
    uv_poll_init(loop, &l->poll, fd);
    uv_poll_start(&l->poll, UV_READABLE, on_listener_poll);
    *ret = l;
    return 0;
}

void local_listener_free(struct local_listener *l)
{
    if (!l)
        return;
    uv_poll_stop(&l->poll);
    close(l->fd);
    unlink(l->path);
    uv_close((uv_handle_t *)&l->poll, on_listener_closed);
}
