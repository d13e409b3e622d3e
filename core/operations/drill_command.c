/* SPDX-License-Identifier: Apache-2.0 */
#include "core/operations/drill_command.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/base/macros.h"
#include "core/base/priority.h"
#include "core/operations/drill.h"

struct drill_command {
    uv_process_t process;
    uv_pipe_t pipe; /* its stdout; its stderr is ferryd's */
    uv_timer_t timer;
    unsigned open; /* handles */
    drill_command_end end;
    void *user;
    int status;
    bool exited, ended;
    char output[DRILL_OUTPUT_BYTES]; /* the end of it */
    size_t length;
    char chunk[4096];
};

int drill_command_find(const char *folder, const char *name, char ret[PATH_MAX], struct error *err)
{
    struct stat st;

    if (!drill_is_command(name) || snprintf(ret, PATH_MAX, "%s/%s", folder, name) >= PATH_MAX)
        return error_set(err, -EINVAL, "run the drill's command",
                         "name a file of the target's folder of commands",
                         "'%.64s' is no name of a command", name);
    if (lstat(ret, &st) < 0 || !S_ISREG(st.st_mode) || !(st.st_mode & S_IXUSR))
        return error_set(err, -EPERM, "run the drill's command",
                         "put an executable file of that name there: commands = in [drill]",
                         "there is no command %s at the target", name);
    if (st.st_uid != 0 || st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(err, -EPERM, "run the drill's command",
                         "chown root and chmod go-w it there",
                         "others than root can change the target's command %s", name);
    return 0;
}

/* --- the end ------------------------------------------------------------------------------- */

static void on_closed(uv_handle_t *handle)
{
    struct drill_command *c = handle->data;

    if (--c->open == 0)
        free(c);
}

static void close_all(struct drill_command *c)
{
    uv_close((uv_handle_t *)&c->process, on_closed);
    uv_close((uv_handle_t *)&c->pipe, on_closed);
    uv_close((uv_handle_t *)&c->timer, on_closed);
}

/* Anything but text would not pass as JSON. */
static void clean_output(struct drill_command *c)
{
    c->output[c->length] = '\0';
    for (size_t i = 0; i < c->length; i++) {
        unsigned char b = (unsigned char)c->output[i];

        if (b >= 0x7f || (b < 0x20 && b != '\n' && b != '\t'))
            c->output[i] = '?';
    }
}

/* Over when it has exited; whoever still holds its output is killed with its group. */
static void end(struct drill_command *c)
{
    if (c->ended)
        return;
    c->ended = true;
    kill(-c->process.pid, SIGKILL);
    clean_output(c);
    if (c->end)
        c->end(c->user, c->status, c->output);
    close_all(c);
}

static void on_exited(uv_process_t *process, int64_t status, int signal)
{
    struct drill_command *c = process->data;

    c->exited = true;
    c->status = signal ? 128 + signal : (int)status;
    uv_timer_start(&c->timer, c->timer.timer_cb, 100, 0); /* for what it printed last */
}

static void on_timer(uv_timer_t *timer)
{
    struct drill_command *c = timer->data;

    if (c->exited)
        end(c);
    else
        kill(-c->process.pid, SIGKILL); /* its time is over: the exit comes */
}

/* --- its output ---------------------------------------------------------------------------- */

static void on_alloc(uv_handle_t *handle, size_t wanted, uv_buf_t *ret)
{
    struct drill_command *c = handle->data;

    (void)wanted;
    *ret = uv_buf_init(c->chunk, sizeof(c->chunk));
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buf)
{
    struct drill_command *c = stream->data;
    size_t most = sizeof(c->output) - 1, len = n > 0 ? MIN((size_t)n, most) : 0, drop;

    if (n < 0)
        uv_read_stop(stream);
    if (len == 0)
        return;
    drop = c->length + len > most ? c->length + len - most : 0;
    memmove(c->output, c->output + drop, c->length - drop);
    memcpy(c->output + c->length - drop, buf->base + (size_t)n - len, len);
    c->length += len - drop;
}

/* --- start --------------------------------------------------------------------------------- */

static int spawn(uv_loop_t *loop, struct drill_command *c, const char *path,
                 char *const *environment)
{
    char *argv[] = {(char *)(uintptr_t)path, NULL};
    uv_stdio_container_t stdio[3] = {
        {.flags = UV_IGNORE},
        {.flags = UV_CREATE_PIPE | UV_WRITABLE_PIPE, .data.stream = (uv_stream_t *)&c->pipe},
        {.flags = UV_INHERIT_FD, .data.fd = 2},
    };
    uv_process_options_t options = {
        .exit_cb = on_exited,
        .file = path,
        .args = argv,
        .env = (char **)(uintptr_t)environment,
        .flags = UV_PROCESS_DETACHED,
        .stdio = stdio,
        .stdio_count = 3,
        .cwd = "/",
    };

    int r = uv_spawn(loop, &c->process, &options);

    if (r == 0)
        priority_usual(c->process.pid);
    return r;
}

int drill_command_start(uv_loop_t *loop, const char *path, char *const *environment,
                        unsigned timeout_s, drill_command_end on_end, void *user,
                        struct drill_command **ret, struct error *err)
{
    struct drill_command *c = calloc(1, sizeof(*c));
    int r;

    if (!c)
        return error_set(err, -ENOMEM, "run the drill's command", NULL, "out of memory");
    c->process.data = c->pipe.data = c->timer.data = c;
    c->open = 3;
    uv_pipe_init(loop, &c->pipe, 0);
    uv_timer_init(loop, &c->timer);
    r = spawn(loop, c, path, environment);
    if (r < 0) {
        error_set(err, r, "run the drill's command", NULL, "%s: %s", path, uv_strerror(r));
        close_all(c);
        return r;
    }
    c->end = on_end;
    c->user = user;
    uv_read_start((uv_stream_t *)&c->pipe, on_alloc, on_read);
    uv_timer_start(&c->timer, on_timer, timeout_s * UINT64_C(1000), 0);
    *ret = c;
    return 0;
}

void drill_command_cancel(struct drill_command *c)
{
    if (!c || c->ended)
        return;
    c->end = NULL;
    c->user = NULL;
    kill(-c->process.pid, SIGKILL); /* on_exited() follows, and frees it */
}
