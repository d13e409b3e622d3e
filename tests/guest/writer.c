/* SPDX-License-Identifier: Apache-2.0 */
#include "writer.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pace.h"
#include "stamp.h"

#define READ_BYTES (1024u * 1024u)

/* A writer that fell behind by more than this forgets the rest instead of making up for it. */
#define CATCH_UP_NS UINT64_C(100000000)

static unsigned bucket_of(uint64_t us)
{
    unsigned shift = 0;

    if (us > UINT32_MAX)
        us = UINT32_MAX;
    while (us >= 32) {
        us >>= 1;
        shift++;
    }
    return us < 16 ? (unsigned)us : 16 * shift + (unsigned)us;
}

/* The upper edge of a bucket. */
static uint64_t bucket_us(unsigned bucket)
{
    unsigned shift = bucket < 32 ? 0 : bucket / 16 - 1;

    return (((uint64_t)(bucket - 16 * shift) + 1) << shift) - 1;
}

static void latency_count(struct latency *l, uint64_t us)
{
    l->count++;
    l->bucket[bucket_of(us)]++;
    if (us > l->max_us)
        l->max_us = us;
}

void latency_add(struct latency *to, const struct latency *from)
{
    to->count += from->count;
    to->max_us = from->max_us > to->max_us ? from->max_us : to->max_us;
    to->since_ns = from->since_ns;
    for (unsigned i = 0; i < LATENCY_BUCKETS; i++)
        to->bucket[i] += from->bucket[i];
}

uint64_t latency_at(const struct latency *l, double fraction)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < LATENCY_BUCKETS; i++) {
        seen += l->bucket[i];
        if (seen > 0 && (double)seen >= fraction * (double)l->count)
            return bucket_us(i) < l->max_us ? bucket_us(i) : l->max_us;
    }
    return l->max_us;
}

int writer_open(struct writer *w, unsigned disk, const char *path, uint64_t region_bytes)
{
    off_t size;

    w->disk = disk;
    w->fd = open(path, O_RDWR | O_DIRECT | O_DSYNC | O_CLOEXEC);
    if (w->fd < 0 || (size = lseek(w->fd, 0, SEEK_END)) < 0)
        return -errno;
    if ((uint64_t)size < region_bytes)
        return -ENOSPC;
    w->bytes = (uint64_t)size;
    w->blocks = region_bytes / STAMP_BYTES;
    w->acknowledged = calloc(w->blocks, sizeof(*w->acknowledged));
    if (!w->acknowledged)
        return -ENOMEM;
    w->latency.since_ns = now_ns();
    return -pthread_mutex_init(&w->lock, NULL);
}

static void write_one(struct writer *w, void *block)
{
    uint64_t number = ++w->sequence, index = stamp_mix(number) % w->blocks;
    uint64_t started = now_ns();
    ssize_t n;

    stamp_fill(block, STAMP_OWNER_DISK(w->disk), index, number, STAMP_BODY_WORDS);
    n = pwrite(w->fd, block, STAMP_BYTES, (off_t)(index * STAMP_BYTES));
    if (n != STAMP_BYTES) {
        w->errors++;
        return;
    }
    latency_count(&w->latency, (now_ns() - started) / 1000);
    w->acknowledged[index] = number;
    __atomic_store_n(&w->writes, w->writes + 1, __ATOMIC_RELAXED);
}

void *writer_run(void *writer)
{
    struct writer *w = writer;
    void *block = aligned_alloc(STAMP_BYTES, STAMP_BYTES);
    uint64_t due = now_ns();

    while (block) {
        double rate;

        pthread_mutex_lock(&w->lock);
        rate = w->per_second;
        if (rate > 0)
            write_one(w, block);
        pthread_mutex_unlock(&w->lock);
        if (rate <= 0) {
            sleep_ticks(1);
            due = now_ns();
            continue;
        }
        due += (uint64_t)(1e9 / rate);
        if (due + CATCH_UP_NS < now_ns())
            due = now_ns();
        sleep_until(due);
    }
    return NULL;
}

/* Full reads at @offset. 0 or a negative errno. */
static int read_at(int fd, uint8_t *data, size_t len, uint64_t offset)
{
    while (len > 0) {
        ssize_t n = pread(fd, data, len, (off_t)offset);

        if (n <= 0)
            return n < 0 ? -errno : -EIO;
        data += n;
        len -= (size_t)n;
        offset += (size_t)n;
    }
    return 0;
}

static enum stamp_state state_of(const struct writer *w, const uint8_t *block, uint64_t index)
{
    static const uint8_t zeroes[STAMP_BYTES];
    uint64_t number = w->acknowledged[index];

    if (memcmp(block, zeroes, STAMP_BYTES) == 0)
        return number == 0 ? STAMP_GOOD : STAMP_STALE; /* what was acknowledged never arrived */
    return stamp_check(block, STAMP_OWNER_DISK(w->disk), index, number);
}

static void check_block(struct writer *w, const uint8_t *block, uint64_t index,
                        struct writer_findings *f)
{
    enum stamp_state state = state_of(w, block, index);

    f->blocks++;
    if (state == STAMP_GOOD)
        return;
    if (f->lost == 0 && f->bad == 0) {
        f->first.disk = w->disk;
        f->first.block = index;
        f->first.acknowledged = w->acknowledged[index];
        f->first.found = stamp_number(block);
        f->first.whole = state != STAMP_BAD;
    }
    if (state == STAMP_STALE)
        f->lost++;
    else
        f->bad++;
}

int writer_verify(struct writer *w, struct writer_findings *f)
{
    uint8_t *buffer = aligned_alloc(STAMP_BYTES, READ_BYTES);
    uint64_t total = w->blocks * STAMP_BYTES;
    int r = buffer ? 0 : -ENOMEM;

    for (uint64_t at = 0; r == 0 && at < total; at += READ_BYTES) {
        uint64_t len = total - at < READ_BYTES ? total - at : READ_BYTES;

        r = read_at(w->fd, buffer, len, at);
        for (uint64_t i = 0; r == 0 && i < len; i += STAMP_BYTES)
            check_block(w, buffer + i, (at + i) / STAMP_BYTES, f);
    }
    free(buffer);
    return r;
}

int region_hash(int fd, uint64_t from, uint64_t end, uint64_t chunk_bytes,
                void (*each)(void *ctx, uint64_t hash), void *ctx)
{
    uint8_t *buffer = aligned_alloc(STAMP_BYTES, READ_BYTES);
    uint64_t hash = 0;
    int r = buffer ? 0 : -ENOMEM;

    for (uint64_t at = from; r == 0 && at < end;) {
        uint64_t len = end - at < READ_BYTES ? end - at : READ_BYTES;

        r = read_at(fd, buffer, len, at);
        if (r < 0)
            break;
        hash = stamp_hash(hash, buffer, len);
        at += len;
        if ((at - from) % chunk_bytes == 0 || at == end) {
            each(ctx, hash);
            hash = 0;
        }
    }
    free(buffer);
    return r;
}
