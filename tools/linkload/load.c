/* SPDX-License-Identifier: Apache-2.0 */
#include "tools/linkload/load_private.h"

#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "core/base/clock.h"
#include "core/base/log.h"
#include "core/base/wire.h"

enum { TICK_MS = 100, QUESTION_BYTES = 16 };

static void finish(struct load *l, const char *why)
{
    if (l->done)
        return;
    l->done = true;
    l->why = why;
    uv_close((uv_handle_t *)&l->tick, NULL);
    uv_close((uv_handle_t *)&l->question, NULL);
    uv_close((uv_handle_t *)&l->deadline, NULL);
    uv_close((uv_handle_t *)&l->terminate, NULL);
    if (l->listens)
        uv_close((uv_handle_t *)&l->input, NULL);
    load_print_end(l);
    link_shutdown(l->link);
}

uint64_t load_bytes(const struct load *l)
{
    uint64_t sum = 0;

    for (unsigned i = 0; i < l->stream_count; i++) {
        const struct load_stream *ls = &l->streams[i];

        if (ls->kind == 'P')
            sum += l->sender && ls->stream ? stream_sent_acked_bytes(ls->stream) : ls->at;
    }
    return sum;
}

/* --- sending ------------------------------------------------------------------------------- */

static bool all_over(const struct load *l)
{
    for (unsigned i = 0; i < l->stream_count; i++) {
        if (l->streams[i].kind == 'P' && !l->streams[i].over)
            return false;
    }
    return true;
}

static void say(struct load_stream *ls)
{
    const struct load *l = ls->load;
    uint64_t size = l->options->bytes ? l->options->bytes : UINT64_MAX;

    while (!l->ending && ls->at < size && stream_room(ls->stream) > 0) {
        size_t n, room = stream_room(ls->stream);
        const uint8_t *data = pattern_at(l->pattern, ls->at, &n);

        n = (size_t)MIN(MIN((uint64_t)n, (uint64_t)room), size - ls->at);
        if (stream_write(ls->stream, data, n) < 0)
            return;
        ls->at += n;
    }
    if (ls->at == size || l->ending)
        stream_end(ls->stream);
}

static void on_writable(void *user, struct stream *stream)
{
    struct load_stream *ls = user;

    if (ls->kind != 'P' || !ls->load->sender)
        return;
    if (stream_is_flushed(stream) && (ls->load->ending || ls->at == ls->load->options->bytes)) {
        ls->over = true;
        if (all_over(ls->load))
            finish(ls->load, "everything was acknowledged");
        return;
    }
    say(ls);
}

/* --- receiving ----------------------------------------------------------------------------- */

static void take_answer(struct load *l, const uint8_t *data)
{
    if (l->answers < LOAD_ANSWERS_MAX)
        l->answer_us[l->answers++] = (uint32_t)((clock_now_ns() - get_be64(data)) / 1000);
}

static void read_questions(struct load_stream *ls, struct stream *stream)
{
    const uint8_t *data = NULL;

    while (stream_peek_joined(stream, QUESTION_BYTES, &data) >= QUESTION_BYTES) {
        if (ls->load->sender)
            take_answer(ls->load, data);
        else
            stream_write(stream, data, QUESTION_BYTES);
        stream_consume(stream, QUESTION_BYTES);
    }
}

static void read_payload(struct load_stream *ls, struct stream *stream)
{
    struct load *l = ls->load;
    const uint8_t *data = NULL;
    size_t n;

    while ((n = stream_peek(stream, &data)) > 0) {
        if (l->options->verify && !pattern_matches(l->pattern, ls->at, data, n))
            l->wrong = true;
        stream_consume(stream, n);
        ls->at += n;
    }
    if (stream_at_end(stream)) {
        ls->over = true;
        stream_end(stream);
    }
}

static void on_readable(void *user, struct stream *stream)
{
    struct load_stream *ls = user;
    const uint8_t *data = NULL;

    if (!ls->kind && stream_peek(stream, &data) > 0) {
        ls->kind = (char)data[0];
        stream_consume(stream, 1);
    }
    if (ls->kind == 'Q')
        read_questions(ls, stream);
    else if (!ls->load->options->stall)
        read_payload(ls, stream);
}

static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct load_stream *ls = user;

    (void)reason;
    ls->at = ls->load->sender ? stream_sent_acked_bytes(stream) : ls->at;
    ls->stream = NULL;
    stream_release(stream);
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable, .on_writable = on_writable, .on_reset = on_reset};

static struct load_stream *add_stream(struct load *l, struct stream *stream, char kind)
{
    struct load_stream *ls = &l->streams[l->stream_count++];

    *ls = (struct load_stream){.load = l, .stream = stream, .kind = kind};
    stream_set_ops(stream, &stream_ops, ls);
    return ls;
}

/* --- the link's owner ---------------------------------------------------------------------- */

static bool on_find_peer(void *user, const struct tls_conn *seen, struct link_peer *ret)
{
    const struct load *l = user;

    *ret = l->options->peer;
    return link_peer_is(ret, seen);
}

static void on_session(void *user, struct link_session *session)
{
    struct load *l = user;

    l->session = session;
}

static void on_stream(void *user, struct link_session *session, struct stream *stream)
{
    struct load *l = user;

    (void)session;
    if (l->stream_count <= LOAD_STREAMS_MAX)
        add_stream(l, stream, 0);
    else
        stream_release(stream);
}

static void on_session_closed(void *user, struct link_session *session, const struct error *why)
{
    struct load *l = user;

    (void)session;
    l->session = NULL;
    l->closed_why = *why;
    finish(l, "the session ended");
}

static const struct link_ops link_ops = {.find_peer = on_find_peer,
                                         .on_session = on_session,
                                         .on_stream = on_stream,
                                         .on_session_closed = on_session_closed};

/* --- timers -------------------------------------------------------------------------------- */

static void on_tick(uv_timer_t *timer)
{
    load_print_tick(timer->data);
}

static void on_question(uv_timer_t *timer)
{
    struct load *l = timer->data;
    struct load_stream *ls = &l->streams[0];
    uint8_t question[QUESTION_BYTES] = {0};

    put_be64(question, clock_now_ns());
    if (ls->stream && stream_room(ls->stream) >= sizeof(question))
        stream_write(ls->stream, question, sizeof(question));
}

static void on_deadline(uv_timer_t *timer)
{
    struct load *l = timer->data;

    l->ending = true;
    for (unsigned i = 0; i < l->stream_count; i++) {
        if (l->streams[i].kind == 'P' && l->streams[i].stream)
            say(&l->streams[i]);
    }
}

static void on_terminate(uv_signal_t *handle, int number)
{
    (void)number;
    finish(handle->data, "told to stop");
}

/* One line: "limit BYTES_S". */
static void on_input(uv_poll_t *poll, int status, int events)
{
    struct load *l = poll->data;
    char line[128];
    ssize_t n = read(STDIN_FILENO, line, sizeof(line) - 1);

    (void)status;
    (void)events;
    if (n <= 0) {
        uv_poll_stop(poll);
        return;
    }
    line[n] = '\0';
    if (strncmp(line, "limit ", 6) == 0)
        shaper_set_rate(&l->limit, strtoull(line + 6, NULL, 10), clock_now_ns());
}

/* --- start --------------------------------------------------------------------------------- */

static int start(struct load *l, const struct load_options *o, bool sender)
{
    char key[PATH_MAX], certificate[PATH_MAX];
    struct error err = {0};
    char line[1024];

    l->options = o;
    l->sender = sender;
    l->answer_us = calloc(LOAD_ANSWERS_MAX, sizeof(*l->answer_us));
    l->pattern = pattern_new(o->pattern);
    if (!l->answer_us || !l->pattern || uv_loop_init(&l->loop) < 0)
        return -ENOMEM;
    snprintf(key, sizeof(key), "%s/key.pem", o->folder);
    snprintf(certificate, sizeof(certificate), "%s/certificate.pem", o->folder);
    if (tls_identity_load(key, certificate, o->link.site_name, &l->identity, &err) < 0 ||
        link_new(&l->loop, &o->link, l->identity, &link_ops, l, &l->link, &err) < 0) {
        fprintf(stderr, "linkload: %s\n", error_line(&err, line, sizeof(line)));
        return err.code;
    }
    uv_timer_init(&l->loop, &l->tick);
    uv_timer_init(&l->loop, &l->question);
    uv_timer_init(&l->loop, &l->deadline);
    uv_signal_init(&l->loop, &l->terminate);
    l->tick.data = l->question.data = l->deadline.data = l->terminate.data = l;
    uv_timer_start(&l->tick, on_tick, TICK_MS, TICK_MS);
    uv_signal_start(&l->terminate, on_terminate, SIGTERM);
    return 0;
}

static int run(struct load *l)
{
    uv_run(&l->loop, UV_RUN_DEFAULT);
    uv_loop_close(&l->loop);
    link_free(l->link);
    tls_identity_free(l->identity);
    pattern_free(l->pattern);
    free(l->answer_us);
    return l->wrong || (l->sender && !all_over(l)) ? 1 : 0;
}

int load_receive(const struct load_options *o)
{
    static struct load l;

    return start(&l, o, false) < 0 ? 1 : run(&l);
}

int load_send(const struct load_options *o)
{
    static struct load l;
    struct error err = {0};
    struct stream *stream;
    char line[1024];

    if (start(&l, o, true) < 0)
        return 1;
    if (link_dial(l.link, &o->peer, &l.session, &err) < 0) {
        fprintf(stderr, "linkload: %s\n", error_line(&err, line, sizeof(line)));
        return 1;
    }
    shaper_set_rate(&l.limit, o->limit_bytes_s, clock_now_ns());
    session_set_shaper(link_session_engine(l.session), &l.limit);
    l.listens = o->listen_to_stdin &&
                uv_poll_init(&l.loop, &l.input, STDIN_FILENO) == 0; /* not from a file */
    if (l.listens) {
        l.input.data = &l;
        uv_poll_start(&l.input, UV_READABLE, on_input);
    }
    for (unsigned i = 0; i <= o->streams; i++) {
        char kind = i == 0 ? 'Q' : 'P';

        if (stream_open(link_session_engine(l.session), i == 0 ? CARE_CONTROL : o->care, &stream) <
            0)
            return 1;
        stream_write(stream, &kind, 1);
        add_stream(&l, stream, kind);
    }
    for (unsigned i = 1; i <= o->streams; i++)
        say(&l.streams[i]);
    if (o->question_ms)
        uv_timer_start(&l.question, on_question,
                       o->question_ms + (uint64_t)(o->question_after_s * 1000), o->question_ms);
    if (o->seconds > 0)
        uv_timer_start(&l.deadline, on_deadline, (uint64_t)(o->seconds * 1000), 0);
    return run(&l);
}
