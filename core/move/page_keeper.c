/* SPDX-License-Identifier: Apache-2.0 */
/* What the target may ask for: see page_keeper.h. A ring by number; memory is taken with the first page. */
#include "core/move/page_keeper.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/base/macros.h"
#include "core/base/wire.h"
#include "core/move/page_wire.h"
#include "core/move/ram_pipe.h"

enum {
    /* So many misses end it, unless they are few of many. */
    MISSES_MAX = 16,
    MISSES_SHARE = 1024,
    /* Where nothing is known of the disks there, few are under way; then sixteen more for each that was passed. */
    FIRST_ROOM = 64,
    ROOM_FOR_PASSED = 16,
    /* As many as the encoder may make at a time. */
    ROOM_LEAST = RAM_PIPE_INPUT_BYTES / PAGE_BYTES,
};

struct page_keeper {
    struct stream *stream;
    const struct page_keeper_ops *ops;
    void *user;
    uint8_t *pages; /* PAGES_KEPT_MAX of them; NULL: none yet */
    uint64_t passed, made;
    uint64_t misses;
    bool wanted; /* an answer is owed */
    uint64_t wanted_number;
    bool over; /* the stream broke: no more references */
};

static void fail(struct page_keeper *k, const char *why)
{
    struct error e = {0};

    if (k->over)
        return;
    k->over = true;
    error_set(&e, -EPROTO, "send references to the target's disks",
              "do both sites run the same version?", "%s", why);
    k->ops->on_failed(k->user, &e);
}

static void answer(struct page_keeper *k)
{
    uint8_t text[PAGE_ANSWER_BYTES];

    if (!k->wanted || k->over || !k->stream)
        return;
    put_be64(text, k->wanted_number);
    memcpy(text + 8, k->pages + k->wanted_number % PAGES_KEPT_MAX * PAGE_BYTES, PAGE_BYTES);
    /* Without room on_writable comes. */
    if (stream_write(k->stream, text, sizeof(text)) == 0)
        k->wanted = false;
}

static void take_word(struct page_keeper *k, uint32_t kind, uint64_t number)
{
    uint64_t most = k->wanted ? k->wanted_number : k->made;

    if (kind == PAGE_WORD_PASSED && number >= k->passed && number <= most) {
        k->passed = number;
    } else if (kind == PAGE_WORD_WANT && number >= k->passed && number < k->made && !k->wanted) {
        k->misses++;
        k->wanted = true;
        k->wanted_number = number;
        answer(k);
    } else {
        fail(k, "the target asked for a page that was not referred to");
    }
}

static void on_readable(void *user, struct stream *stream)
{
    struct page_keeper *k = user;
    const uint8_t *p = NULL;

    while (!k->over && stream_peek_joined(stream, PAGE_WORD_BYTES, &p) >= PAGE_WORD_BYTES) {
        uint32_t kind = get_be32(p);
        uint64_t number = get_be64(p + 4);

        stream_consume(stream, PAGE_WORD_BYTES);
        take_word(k, kind, number);
    }
    if (!k->over)
        k->ops->on_room(k->user);
}

static void on_writable(void *user, struct stream *stream)
{
    (void)stream;
    answer(user);
}

/* The move's other streams say why. */
static void on_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct page_keeper *k = user;

    (void)stream;
    (void)reason;
    k->over = true;
}

static const struct stream_ops stream_ops = {
    .on_readable = on_readable,
    .on_writable = on_writable,
    .on_reset = on_reset,
};

int page_keeper_new(struct stream *stream, const struct page_keeper_ops *ops, void *user,
                    struct page_keeper **ret)
{
    struct page_keeper *k = calloc(1, sizeof(*k));

    if (!k)
        return -ENOMEM;
    k->stream = stream;
    k->ops = ops;
    k->user = user;
    stream_set_ops(stream, &stream_ops, k);
    *ret = k;
    return 0;
}

void page_keeper_free(struct page_keeper *k)
{
    if (!k)
        return;
    if (k->stream)
        stream_release(k->stream);
    free(k->pages);
    free(k);
}

static bool ended(const struct page_keeper *k)
{
    return k->over || (k->misses >= MISSES_MAX && k->misses * MISSES_SHARE > k->made);
}

bool page_keeper_is_full(const struct page_keeper *k)
{
    return !ended(k) && k->made > k->passed && page_keeper_room(k) < ROOM_LEAST;
}

unsigned page_keeper_room(const struct page_keeper *k)
{
    uint64_t under_way = k->made - k->passed, most;

    if (ended(k))
        return 0;
    most = MIN(FIRST_ROOM + k->passed * ROOM_FOR_PASSED, (uint64_t)PAGES_KEPT_MAX);
    return most > under_way ? (unsigned)(most - under_way) : 0;
}

void page_keeper_put(struct page_keeper *k, const uint8_t *pages, unsigned count)
{
    assert(count <= PAGES_KEPT_MAX - (k->made - k->passed));
    if (count > 0 && !k->pages)
        k->pages = malloc((size_t)PAGES_KEPT_MAX * PAGE_BYTES);
    if (count > 0 && !k->pages) {
        fail(k, "no memory to keep what the target may ask for");
        return;
    }
    for (unsigned i = 0; i < count; i++, k->made++)
        memcpy(k->pages + k->made % PAGES_KEPT_MAX * PAGE_BYTES, pages + (size_t)i * PAGE_BYTES,
               PAGE_BYTES);
}

uint64_t page_keeper_misses(const struct page_keeper *k)
{
    return k->misses;
}
