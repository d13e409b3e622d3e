/* SPDX-License-Identifier: Apache-2.0 */
/* The source's disks on the loop: see disk_source.h. */
#include "core/disk/disk_source.h"

#include <errno.h>
#include <string.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/disk/disk_clients.h"
#include "core/disk/disk_packer.h"
#include "storage/mirror_endpoint.h"

struct disk {
    struct disk_source *owner;
    struct mirror_source *mirror;
    struct stream *stream;
    struct disk_packer *packer; /* NULL: the stream goes as it is */
    bool ready;
    uint64_t ready_entries;            /* in the log by then */
    uint64_t copied_writes, copied_ns; /* of the copy: as of a tick, and when that last changed */
};

struct disk_source {
    uv_loop_t *loop;
    const struct disk_source_ops *ops;
    void *user;
    struct mirror_budget *budget;
    struct mirror_spool *spool; /* may be NULL */
    struct mirror_endpoint *endpoint;
    struct disk_clients *clients;
    struct disk disks[LIMIT_DISKS_PER_MOVE];
    unsigned disk_count;
    uv_timer_t pace_timer;
    struct ack_pacer pacer;
    struct disk_packing *packing; /* NULL: not compressed */
    bool verify;
    bool urgent; /* a stopped guest waits */
    bool started, closing, failed, done;
    struct buffer scratch;
};

/* --- streams ------------------------------------------------------------------------------- */

static void report(struct disk_source *d)
{
    for (unsigned i = 0; i < d->disk_count && !d->failed; i++) {
        enum mirror_source_state state = mirror_source_state(d->disks[i].mirror);

        if (state != MIRROR_SOURCE_WAIT_CLIENT && !d->started) {
            d->started = true;
            d->ops->on_started(d->user);
        }
        if ((state == MIRROR_SOURCE_CLOSING || state == MIRROR_SOURCE_DONE) && !d->closing) {
            d->closing = true;
            d->ops->on_closing(d->user);
        }
        if (state == MIRROR_SOURCE_FAILED) {
            d->failed = true;
            d->ops->on_failed(d->user, mirror_source_error(d->disks[i].mirror));
        }
    }
    if (d->started && !d->done && !d->failed && disk_source_is_done(d)) {
        d->done = true;
        d->ops->on_done(d->user);
    }
}

void disk_source_let_go(struct disk_source *d)
{
    struct error why = {0};

    error_set(&why, -ECANCELED, "mirror a disk", NULL, "the move is given up");
    d->failed = true;
    for (unsigned i = 0; i < d->disk_count; i++)
        mirror_source_fail(d->disks[i].mirror, &why);
}

void disk_source_detach(struct disk_source *d)
{
    for (unsigned i = 0; i < d->disk_count; i++) {
        if (d->disks[i].stream)
            stream_release(TAKE_PTR(d->disks[i].stream));
    }
}

bool disk_source_has_clients(const struct disk_source *d)
{
    return disk_clients_any(d->clients);
}

bool disk_source_is_done(const struct disk_source *d)
{
    for (unsigned i = 0; i < d->disk_count; i++) {
        if (mirror_source_state(d->disks[i].mirror) != MIRROR_SOURCE_DONE)
            return false;
    }
    return true;
}

void disk_source_verify(struct disk_source *d)
{
    d->verify = true;
}

static void pump_disk(struct disk *disk)
{
    struct buffer *b = &disk->owner->scratch;
    size_t room;

    if (disk->packer && disk->stream) {
        disk_packer_pump(disk->packer, disk->mirror, disk->stream, disk->owner->urgent);
        return;
    }
    while (disk->stream && (room = stream_room(disk->stream)) > 0 &&
           mirror_source_has_output(disk->mirror)) {
        buffer_clear(b);
        if (mirror_source_pull(disk->mirror, b, room, clock_now_ns()) == 0)
            break;
        if (stream_write(disk->stream, buffer_data(b), buffer_len(b)) < 0)
            break;
    }
}

static void on_packed(void *user)
{
    struct disk *disk = user;
    struct error why = {0};
    int fault = disk_packer_fault(disk->packer);

    if (fault) {
        error_set(&why, fault, "compress a disk's stream", NULL, "%s", strerror(-fault));
        mirror_source_fail(disk->mirror, &why);
    } else {
        pump_disk(disk);
    }
    report(disk->owner);
}

/* --- the guest's pace ---------------------------------------------------------------------- */

static bool a_guest_waits(const struct disk_source *d)
{
    struct mirror_source_stats s;

    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_source_stats(d->disks[i].mirror, &s);
        if (s.log.held_guest_now > 0)
            return true;
    }
    return false;
}

static void on_pace_timer(uv_timer_t *timer);

/* One that is due and still waits, waits for room: what is applied releases it. */
static void schedule(struct disk_source *d)
{
    uint64_t now_ns = clock_now_ns();

    if (ack_pacer_is_due(&d->pacer, now_ns) || !a_guest_waits(d))
        uv_timer_stop(&d->pace_timer);
    else
        uv_timer_start(&d->pace_timer, on_pace_timer, (d->pacer.next_ns - now_ns) / NS_PER_MS + 1,
                       0);
}

static void on_pace_timer(uv_timer_t *timer)
{
    struct disk_source *d = timer->data;

    mirror_source_tick(d->disks[0].mirror, clock_now_ns());
    schedule(d);
}

void disk_source_set_pace(struct disk_source *d, uint64_t bytes_per_s)
{
    uint64_t now_ns = clock_now_ns();

    if (bytes_per_s == 0 && d->pacer.bytes_per_s == 0)
        return;
    ack_pacer_set(&d->pacer, bytes_per_s, now_ns);
    mirror_source_tick(d->disks[0].mirror, now_ns);
    schedule(d);
}

static void on_mirror_wake(void *owner, struct mirror_source *m)
{
    struct disk *disk = owner;

    (void)m;
    pump_disk(disk);
    report(disk->owner);
}

static void on_content(void *owner, uint64_t offset, uint32_t length, const uint8_t *data)
{
    struct disk *disk = owner;
    struct disk_source *d = disk->owner;

    d->ops->on_content(d->user, (unsigned)(disk - d->disks), offset, length,
                       disk->ready ? NULL : data);
}

static void on_stream_readable(void *user, struct stream *stream)
{
    struct disk *disk = user;
    const uint8_t *data = NULL;
    size_t len;

    while ((len = stream_peek(stream, &data)) > 0) {
        mirror_source_feed(disk->mirror, data, len, clock_now_ns());
        stream_consume(stream, len);
    }
    pump_disk(disk);
    schedule(disk->owner);
    report(disk->owner);
}

static void on_stream_writable(void *user, struct stream *stream)
{
    (void)stream;
    pump_disk(user);
}

static void on_stream_reset(void *user, struct stream *stream, uint64_t reason)
{
    struct disk *disk = user;
    struct error why = {0};

    (void)stream;
    error_set(&why, -ECONNRESET, "mirror a disk", NULL, "the link's stream ended: %s",
              wire_reason_name(reason));
    mirror_source_fail(disk->mirror, &why);
    report(disk->owner);
}

static const struct stream_ops stream_ops = {
    .on_readable = on_stream_readable,
    .on_writable = on_stream_writable,
    .on_reset = on_stream_reset,
};

/* --- QEMU's connections -------------------------------------------------------------------- */

static void on_taken(void *user)
{
    struct disk_source *d = user;

    for (unsigned i = 0; i < d->disk_count; i++)
        pump_disk(&d->disks[i]);
    schedule(d);
    report(d);
}

static void on_gone(void *user)
{
    report(user);
}

static const struct disk_clients_ops client_ops = {.on_taken = on_taken, .on_gone = on_gone};

static void note_copy(struct disk *disk, uint64_t now_ns)
{
    struct mirror_source_stats s;

    mirror_source_stats(disk->mirror, &s);
    if (s.writes_bulk == disk->copied_writes && disk->copied_ns)
        return;
    disk->copied_writes = s.writes_bulk;
    disk->copied_ns = now_ns;
}

unsigned disk_source_copying(const struct disk_source *d, uint64_t idle_ns)
{
    uint64_t now_ns = clock_now_ns();
    unsigned count = 0;

    for (unsigned i = 0; i < d->disk_count; i++)
        count += now_ns < d->disks[i].copied_ns + idle_ns;
    return count;
}

/* The link is full when some disk's bytes stand before it. */
static void look_at_level(struct disk_source *d, uint64_t now_ns, unsigned moves)
{
    bool full = false;

    for (unsigned i = 0; i < d->disk_count; i++)
        full |= disk_packer_waits(d->disks[i].packer);
    disk_packing_look(d->packing, now_ns, full, moves);
}

void disk_source_tick(struct disk_source *d, unsigned moves)
{
    uint64_t now_ns = clock_now_ns();

    if (d->packing)
        look_at_level(d, now_ns, moves);

    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_source_verify(d->disks[i].mirror);
        note_copy(&d->disks[i], now_ns);
    }
    disk_clients_tick(d->clients, now_ns);
}

/* --- the whole ----------------------------------------------------------------------------- */

int disk_source_new(uv_loop_t *loop, struct mirror_budget *budget, struct mirror_spool *spool,
                    const struct disk_source_ops *ops, void *user, struct disk_source **ret)
{
    struct disk_source *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    if (mirror_endpoint_new(&d->endpoint) < 0 ||
        disk_clients_new(loop, d->endpoint, &client_ops, d, &d->clients) < 0) {
        mirror_endpoint_free(d->endpoint);
        free(d);
        return -ENOMEM;
    }
    d->loop = loop;
    d->budget = budget;
    d->spool = spool;
    d->ops = ops;
    d->user = user;
    uv_timer_init(loop, &d->pace_timer);
    d->pace_timer.data = d;
    *ret = d;
    return 0;
}

int disk_source_add(struct disk_source *d, const char *export_name, uint64_t size_bytes,
                    bool seeded, struct stream *stream)
{
    struct mirror_source_params params = {
        .export_name = export_name,
        .size_bytes = size_bytes,
        .budget = d->budget,
        .pacer = &d->pacer,
        .spool = d->spool,
        .verify = d->verify,
        .seeded = seeded,
        .content = on_content,
        .wake = on_mirror_wake,
        .owner = &d->disks[d->disk_count],
    };
    struct disk *disk = &d->disks[d->disk_count];
    int r;

    if (d->disk_count == LIMIT_DISKS_PER_MOVE)
        return -E2BIG;
    disk->owner = d;
    disk->stream = stream;
    if (d->packing) {
        r = disk_packer_new(d->packing, on_packed, disk, &disk->packer);
        if (r < 0)
            return r;
        stream_set_packed(stream);
    }
    r = mirror_source_new(&disk->mirror, &params);
    if (r == 0) {
        r = mirror_endpoint_add(d->endpoint, disk->mirror);
        if (r < 0)
            mirror_source_free(disk->mirror);
    }
    if (r < 0) {
        disk_packer_free(TAKE_PTR(disk->packer));
        return r;
    }
    d->disk_count++;
    stream_set_ops(stream, &stream_ops, disk);
    pump_disk(disk);
    return 0;
}

int disk_source_listen(struct disk_source *d, const char *path, uid_t uid, gid_t gid,
                       struct error *err)
{
    return disk_clients_listen(d->clients, path, uid, gid, err);
}

static void on_timer_closed(uv_handle_t *handle)
{
    free(handle->data);
}

void disk_source_free(struct disk_source *d)
{
    if (!d)
        return;
    d->failed = d->started = d->closing = d->done = true; /* nobody is told any more */
    disk_clients_free(d->clients);
    disk_source_detach(d);
    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_endpoint_remove(d->endpoint, d->disks[i].mirror);
        mirror_source_free(d->disks[i].mirror);
        disk_packer_free(d->disks[i].packer);
    }
    disk_packing_free(d->packing);
    mirror_endpoint_free(d->endpoint);
    buffer_done(&d->scratch);
    uv_close((uv_handle_t *)&d->pace_timer, on_timer_closed);
}

void disk_source_set_ready(struct disk_source *d)
{
    for (unsigned i = 0; i < d->disk_count; i++) {
        struct mirror_source_stats s;

        mirror_source_stats(d->disks[i].mirror, &s);
        d->disks[i].ready = true;
        d->disks[i].ready_entries = s.log.in_entries;
        mirror_source_set_ready(d->disks[i].mirror, true);
        stream_set_care(d->disks[i].stream, CARE_GUEST);
    }
}

bool disk_source_copy_is_applied(const struct disk_source *d)
{
    for (unsigned i = 0; i < d->disk_count; i++) {
        struct mirror_source_stats s;

        mirror_source_stats(d->disks[i].mirror, &s);
        if (!d->disks[i].ready ||
            s.log.applied_entries + s.log.coalesced_entries < d->disks[i].ready_entries)
            return false;
    }
    return true;
}

int disk_source_pack(struct disk_source *d, int level, const struct disk_codec *codec)
{
    return disk_packing_new(d->loop, level, codec, &d->packing);
}

void disk_source_set_urgent(struct disk_source *d)
{
    d->urgent = true;
    for (unsigned i = 0; i < d->disk_count; i++)
        stream_set_care(d->disks[i].stream, CARE_CONTROL);
}

/* The latency below which @share of the counted writes were acknowledged: the upper bound of the
 * histogram's bucket. */
static uint64_t percentile(const uint64_t counts[32], uint64_t total, double share)
{
    uint64_t seen = 0;

    for (unsigned i = 0; i < 32; i++) {
        seen += counts[i];
        if (total > 0 && (double)seen >= share * (double)total)
            return UINT64_C(1) << i;
    }
    return 0;
}

void disk_source_get_stats(const struct disk_source *d, struct disk_source_stats *ret)
{
    uint64_t counts[32] = {0}, total = 0;

    memset(ret, 0, sizeof(*ret));
    if (d->packing) {
        ret->pack_level = disk_packing_level(d->packing);
        ret->pack_cpu_ns = disk_packing_cpu_ns(d->packing);
    }
    for (unsigned i = 0; i < d->disk_count; i++) {
        struct mirror_source_stats s;

        mirror_source_stats(d->disks[i].mirror, &s);
        ret->in_bytes += s.log.in_bytes;
        ret->payload_bytes += s.log.in_payload_bytes;
        ret->sent_bytes +=
            d->disks[i].packer ? disk_packer_sent_bytes(d->disks[i].packer) : s.log.sent_bytes;
        ret->seed_bytes += s.log.seed_bytes;
        ret->applied_bytes += s.log.applied_bytes;
        ret->fill_bytes += s.log.fill_bytes;
        ret->fill_peak_bytes += s.log.fill_peak_bytes;
        ret->target_queue_bytes += s.target_queue_bytes;
        ret->guest_writes += s.writes_guest;
        ret->check.left_bytes += s.check.left_bytes;
        ret->check.unknown_bytes += s.check.unknown_bytes;
        ret->check.checked_bytes += s.check.checked_bytes;
        ret->held_count += s.log.held_count;
        ret->spooled_bytes += s.log.spooled_bytes;
        ret->spooled_ever_bytes += s.log.spooled_ever_bytes;
        ret->unsent_bytes += s.log.unsent_bytes;
        if (d->disks[i].packer)
            ret->unsent_bytes += disk_packer_held_bytes(d->disks[i].packer);
        ret->held_guest_now += s.log.held_guest_now;
        if (s.log.held_since_ns)
            ret->held_since_ns = ret->held_since_ns ? MIN(ret->held_since_ns, s.log.held_since_ns)
                                                    : s.log.held_since_ns;
        ret->latency_max_us = MAX(ret->latency_max_us, s.guest_latency_max_us);
        for (unsigned k = 0; k < 32; k++) {
            counts[k] += s.guest_latency_count[k];
            total += s.guest_latency_count[k];
        }
    }
    /* A bucket's bound may lie above the slowest write there was. */
    ret->latency_p50_us = MIN(percentile(counts, total, 0.50), ret->latency_max_us);
    ret->latency_p99_us = MIN(percentile(counts, total, 0.99), ret->latency_max_us);
}
