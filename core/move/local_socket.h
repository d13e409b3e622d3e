/* SPDX-License-Identifier: Apache-2.0 */
/*
 * UNIX sockets on the libuv loop: listeners for libvirtd and QEMU at the source, connections to them at
 * the target. Thin: no buffering of its own, so that backpressure passes through unchanged.
 */
#ifndef FERRY_CORE_LOCAL_SOCKET_H
#define FERRY_CORE_LOCAL_SOCKET_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <uv.h>

#include "core/base/error.h"

struct local_socket;
struct local_listener;

struct local_socket_ops {
    void (*on_readable)(void *user); /* local_socket_read() will not give -EAGAIN */
    void (*on_writable)(void *user);
};

/* Owns @fd (made nonblocking). */
int local_socket_new(uv_loop_t *loop, int fd, const struct local_socket_ops *ops, void *user,
                     struct local_socket **ret);
/* Connects to a listening path; local connects do not wait. */
int local_socket_connect(uv_loop_t *loop, const char *path, const struct local_socket_ops *ops,
                         void *user, struct local_socket **ret);
/* Just the connected descriptor (close-on-exec), or a negative errno. */
int local_connect_fd(const char *path);
/* Closes. No callback follows. NULL is allowed. */
void local_socket_free(struct local_socket *s);

/* Which events are wanted from now on. */
void local_socket_want(struct local_socket *s, bool readable, bool writable);
/* Bytes, 0 at the end, or a negative errno (-EAGAIN: later). */
ssize_t local_socket_read(struct local_socket *s, void *buf, size_t len);
ssize_t local_socket_write(struct local_socket *s, const void *data, size_t len);
/* No more bytes from us; the other direction lives on. */
void local_socket_end(struct local_socket *s);
/* Bytes the other end has not read yet; negative errno when it is gone (then unread ones are lost). */
int local_socket_unread(const struct local_socket *s);

/* Listens on @path (replacing a stale socket), owned by @uid:@gid, mode 0600. on_accept owns the fd. */
int local_listener_new(uv_loop_t *loop, const char *path, uid_t uid, gid_t gid,
                       void (*on_accept)(void *user, int fd), void *user,
                       struct local_listener **ret, struct error *err);
/* Closes and removes the path. NULL is allowed. */
void local_listener_free(struct local_listener *l);

/* A bound, listening UNIX socket for others to drive; negative errno. */
int local_listen_fd(const char *path, uid_t uid, gid_t gid, mode_t mode, struct error *err);

#endif
