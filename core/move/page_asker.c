/* SPDX-License-Identifier: Apache-2.0 */
/* A page from the source, for a thread that waits for it: see page_asker.h. */
#include "core/move/page_asker.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/wire.h"
#include "core/move/page_wire.h"

/* NOTHING -> WANTED (thread) -> ASKED (loop) -> ANSWERED (loop) -> NOTHING (thread) */
enum ask_state { ASK_NOTHING, ASK_WANTED, ASK_ASKED, ASK_ANSWERED };

struct page_asker {
    uv_async_t wake;       /* the thread wants something */
    struct stream *stream; /* NULL: not yet, or gone */
    uint64_t passed, passed_told;

    pthread_mutex_t lock; /* what follows is shared with the thread */
    pthread_cond_t answered;
    enum ask_state state;
    bool cancelled;
    int fault;
    uint64_t number;
    uint8_t page[PAGE_BYTES];
};

static bool send_word(struct page_asker *a, uint32_t kind, uint64_t number)
{
    uint8_t word[PAGE_WORD_BYTES];

    put_be32(word, kind);
    put_be64(word + 4, number);
    return stream_write(a->stream, word, sizeof(word)) == 0;
}

/* Says what is to be said; without room on_writable comes. */
static void speak(struct page_asker *a)
{
    if (!a->stream)
        return;
    if (a->passed > a->passed_told && send_word(a, PAGE_WORD_PASSED, a->passed))
        a->passed_told = a->passed;
    pthread_mutex_lock(&a->lock);
    if (a->state == ASK_WANTED && send_word(a, PAGE_WORD_WANT, a->number))
        a->state = ASK_ASKED;
    pthread_mutex_unlock(&a->lock);
}

static void on_wake(uv_async_t *wake)
{
    speak(wake->data);
}

static void take_answer(struct page_asker *a, uint64_t number, const uint8_t *page)
{
    pthread_mutex_lock(&a->lock);
    if (a->state != ASK_ASKED || number != a->number)
        a->fault = -EPROTO; /* whoever asks next, or now, is told */
    else
        memcpy(a->page, page, PAGE_BYTES);
    if (a->state == ASK_ASKED)
        a->state = ASK_ANSWERED;
    pthread_cond_signal(&a->answered);
    pthread_mutex_unlock(&a->lock);
}

static void on_readable(void *user, struct stream *stream)
{
    struct page_asker *a = user;
    const uint8_t *p = NULL;

    while (stream_peek_joined(stream, PAGE_ANSWER_BYTES, &p) >= PAGE_ANSWER_BYTES) {
        take_answer(a, get_be64(p), p + 8);
        stream_consume(stream, PAGE_ANSWER_BYTES);
    }
}

static void on_writable(void *user, struct stream *stream)
{
    (void)stream;
    speak(user);
}

/* The thread waits on: the move ends by its other streams, and then cancels. */
static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct page_asker *a = user;

    (void)reason;
    if (a->stream == stream)
        stream_release(TAKE_PTR(a->stream));
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_reset = on_reset,
};

int page_asker_new(uv_loop_t *loop, struct page_asker **ret)
{
    struct page_asker *a = calloc(1, sizeof(*a));

    if (!a)
        return -ENOMEM;
    pthread_mutex_init(&a->lock, NULL);
    pthread_cond_init(&a->answered, NULL);
    uv_async_init(loop, &a->wake, on_wake);
    a->wake.data = a;
    *ret = a;
    return 0;
}

static void on_closed(uv_handle_t *handle)
{
    struct page_asker *a = handle->data;

    pthread_mutex_destroy(&a->lock);
    pthread_cond_destroy(&a->answered);
    free(a);
}

void page_asker_free(struct page_asker *a)
{
    if (!a)
        return;
    if (a->stream)
        stream_release(TAKE_PTR(a->stream));
    uv_close((uv_handle_t *)&a->wake, on_closed);
}

int page_asker_set_stream(struct page_asker *a, struct stream *stream)
{
    if (a->stream || a->cancelled)
        return -EEXIST;
    a->stream = stream;
    stream_set_ops(stream, &stream_ops, a);
    speak(a);
    return 0;
}

void page_asker_passed(struct page_asker *a, uint64_t count)
{
    a->passed = count;
    speak(a);
}

void page_asker_cancel(struct page_asker *a)
{
    if (a->stream)
        stream_release(TAKE_PTR(a->stream));
    pthread_mutex_lock(&a->lock);
    a->cancelled = true;
    pthread_cond_signal(&a->answered);
    pthread_mutex_unlock(&a->lock);
}

int page_asker_ask(struct page_asker *a, uint64_t number, uint8_t *ret_page)
{
    int r;

    pthread_mutex_lock(&a->lock);
    a->number = number;
    a->state = ASK_WANTED;
    uv_async_send(&a->wake);
    while (a->state != ASK_ANSWERED && !a->cancelled)
        pthread_cond_wait(&a->answered, &a->lock);
    r = a->cancelled ? -ECANCELED : a->fault;
    if (r == 0)
        memcpy(ret_page, a->page, PAGE_BYTES);
    a->state = ASK_NOTHING;
    pthread_mutex_unlock(&a->lock);
    return r;
}
