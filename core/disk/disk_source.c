/* SPDX-License-Identifier: Apache-2.0 */
/* The source's disks on the loop: see disk_source.h. */
#include "core/disk/disk_source.h"

#include <errno.h>
#include <string.h>
#include <sys/queue.h>

#include "core/base/buffer.h"
#include "core/base/clock.h"
#include "core/base/limits.h"
#include "core/disk/disk_packer.h"
#include "core/move/local_socket.h"
#include "storage/mirror_connection.h"
#include "storage/mirror_endpoint.h"

enum {
    CHUNK_BYTES = 64 * 1024,
    HANDSHAKE_S = 10, /* QEMU needs milliseconds; who takes longer only keeps a place */
};

struct disk {
    struct disk_source *owner;
    struct mirror_source *mirror;
    struct stream *stream;
    struct disk_packer *packer; /* NULL: the stream goes as it is */
    bool ready;
    uint64_t ready_entries;            /* in the log by then */
    uint64_t copied_writes, copied_ns; /* of the copy: as of a tick, and when that last changed */
};

/* One NBD connection. */
struct client {
    TAILQ_ENTRY(client) entry;
    struct disk_source *owner;
    struct mirror_connection *connection;
    struct local_socket *socket;
    uint64_t since_ns;
    bool ended; /* waits to be freed outside of callbacks */
};

struct disk_source {
    uv_loop_t *loop;
    const struct disk_source_ops *ops;
    void *user;
    struct mirror_budget *budget;
    struct mirror_spool *spool; /* may be NULL */
    struct mirror_endpoint *endpoint;
    struct local_listener *listener;
    struct disk disks[LIMIT_DISKS_PER_MOVE];
    unsigned disk_count;
    TAILQ_HEAD(, client) clients;
    uv_idle_t reaper;
    uv_timer_t pace_timer;
    struct ack_pacers pacers;
    unsigned handles;             /* not closed yet */
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
    return !TAILQ_EMPTY(&d->clients);
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

/* --- the pace of acknowledgements ----------------------------------------------------------- */

/* What waits: the guest's, the copy's. */
static void held_now(const struct disk_source *d, uint64_t *ret_guest, uint64_t *ret_bulk)
{
    struct mirror_source_stats s;

    *ret_guest = *ret_bulk = 0;
    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_source_stats(d->disks[i].mirror, &s);
        *ret_guest += s.log.held_guest_now;
        *ret_bulk += s.log.held_now - s.log.held_guest_now;
    }
}

static void on_pace_timer(uv_timer_t *timer);

/* One that is due and still waits, waits for room: what is applied releases it. */
static void schedule(struct disk_source *d)
{
    uint64_t now_ns = clock_now_ns(), next_ns = UINT64_MAX, guest, bulk;

    held_now(d, &guest, &bulk);
    if (guest > 0 && !ack_pacer_is_due(&d->pacers.guest, now_ns))
        next_ns = d->pacers.guest.next_ns;
    if (bulk > 0 && !ack_pacer_is_due(&d->pacers.bulk, now_ns))
        next_ns = MIN(next_ns, d->pacers.bulk.next_ns);
    if (next_ns == UINT64_MAX)
        uv_timer_stop(&d->pace_timer);
    else
        uv_timer_start(&d->pace_timer, on_pace_timer, (next_ns - now_ns) / NS_PER_MS + 1, 0);
}

static void on_pace_timer(uv_timer_t *timer)
{
    struct disk_source *d = timer->data;

    mirror_source_tick(d->disks[0].mirror, clock_now_ns());
    schedule(d);
}

void disk_source_set_pace(struct disk_source *d, uint64_t guest_bytes_per_s,
                          uint64_t bulk_bytes_per_s)
{
    uint64_t now_ns = clock_now_ns();

    if (guest_bytes_per_s == 0 && d->pacers.guest.bytes_per_s == 0 && bulk_bytes_per_s == 0 &&
        d->pacers.bulk.bytes_per_s == 0)
        return;
    ack_pacer_set(&d->pacers.guest, guest_bytes_per_s, now_ns);
    ack_pacer_set(&d->pacers.bulk, bulk_bytes_per_s, now_ns);
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

static void on_reap(uv_idle_t *idle)
{
    struct disk_source *d = idle->data;
    struct client *c, *next;

    for (c = TAILQ_FIRST(&d->clients); c; c = next) {
        next = TAILQ_NEXT(c, entry);
        if (!c->ended)
            continue;
        TAILQ_REMOVE(&d->clients, c, entry);
        mirror_connection_free(c->connection);
        local_socket_free(c->socket);
        free(c);
    }
    uv_idle_stop(idle);
    report(d);
}

static void end_client(struct client *c)
{
    c->ended = true;
    local_socket_want(c->socket, false, false);
    uv_idle_start(&c->owner->reaper, on_reap);
}

static void pump_client(struct client *c)
{
    struct buffer *out = mirror_connection_output(c->connection);
    bool full = false;

    while (!c->ended && buffer_len(out) > 0 && !full) {
        ssize_t n = local_socket_write(c->socket, buffer_data(out), buffer_len(out));

        if (n == -EAGAIN) {
            full = true;
        } else if (n < 0) {
            mirror_connection_eof(c->connection, (int)n);
            end_client(c);
        } else {
            buffer_consume(out, (size_t)n);
        }
    }
    if (c->ended)
        return;
    if (mirror_connection_is_closed(c->connection) && buffer_len(out) == 0)
        end_client(c);
    else
        local_socket_want(c->socket, mirror_connection_wants_input(c->connection), full);
}

static void on_client_wake(void *owner, struct mirror_connection *connection)
{
    struct client *c = owner;

    (void)connection;
    if (!c->ended && c->socket)
        pump_client(c);
}

static void on_client_readable(void *user)
{
    static uint8_t chunk[CHUNK_BYTES]; /* loop thread only */
    struct client *c = user;
    struct disk_source *d = c->owner;
    int turns = 16; /* 1 MiB, then others have their turn */

    while (!c->ended && turns-- > 0 && mirror_connection_wants_input(c->connection)) {
        ssize_t n = local_socket_read(c->socket, chunk, sizeof(chunk));

        if (n == -EAGAIN)
            break;
        if (n <= 0) {
            mirror_connection_eof(c->connection, (int)n);
            end_client(c);
            break;
        }
        if (mirror_connection_feed(c->connection, chunk, (size_t)n, clock_now_ns()) < 0)
            break;
    }
    if (!c->ended)
        pump_client(c);
    for (unsigned i = 0; i < d->disk_count; i++)
        pump_disk(&d->disks[i]);
    schedule(d);
    report(d);
}

static void on_client_writable(void *user)
{
    pump_client(user);
}

static const struct local_socket_ops client_ops = {
    .on_readable = on_client_readable,
    .on_writable = on_client_writable,
};

static void on_accept(void *user, int fd)
{
    struct disk_source *d = user;
    struct client *c = calloc(1, sizeof(*c));

    if (!c || mirror_connection_new(&c->connection, d->endpoint, on_client_wake, c) < 0) {
        close(fd);
        free(c);
        return;
    }
    c->owner = d;
    c->since_ns = clock_now_ns();
    if (local_socket_new(d->loop, fd, &client_ops, c, &c->socket) < 0) {
        mirror_connection_free(c->connection);
        free(c);
        return;
    }
    TAILQ_INSERT_TAIL(&d->clients, c, entry);
    pump_client(c); /* the server speaks first */
}

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
static void look_at_level(struct disk_source *d, uint64_t now_ns)
{
    bool full = false;

    for (unsigned i = 0; i < d->disk_count; i++)
        full |= disk_packer_waits(d->disks[i].packer);
    disk_packing_look(d->packing, now_ns, full);
}

void disk_source_tick(struct disk_source *d)
{
    uint64_t now_ns = clock_now_ns();
    struct client *c;

    if (d->packing)
        look_at_level(d, now_ns);

    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_source_verify(d->disks[i].mirror);
        note_copy(&d->disks[i], now_ns);
    }
    TAILQ_FOREACH(c, &d->clients, entry)
    {
        if (!c->ended && mirror_connection_in_handshake(c->connection) &&
            now_ns > c->since_ns + HANDSHAKE_S * NS_PER_S)
            end_client(c);
    }
}

/* --- the whole ----------------------------------------------------------------------------- */

int disk_source_new(uv_loop_t *loop, struct mirror_budget *budget, struct mirror_spool *spool,
                    const struct disk_source_ops *ops, void *user, struct disk_source **ret)
{
    struct disk_source *d = calloc(1, sizeof(*d));

    if (!d)
        return -ENOMEM;
    if (mirror_endpoint_new(&d->endpoint) < 0) {
        free(d);
        return -ENOMEM;
    }
    d->loop = loop;
    d->budget = budget;
    d->spool = spool;
    d->ops = ops;
    d->user = user;
    TAILQ_INIT(&d->clients);
    uv_idle_init(loop, &d->reaper);
    uv_timer_init(loop, &d->pace_timer);
    d->reaper.data = d->pace_timer.data = d;
    d->handles = 2;
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
        .pacers = &d->pacers,
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
    return local_listener_new(d->loop, path, uid, gid, on_accept, d, &d->listener, err);
}

static void on_handle_closed(uv_handle_t *handle)
{
    struct disk_source *d = handle->data;

    if (--d->handles == 0)
        free(d);
}

void disk_source_free(struct disk_source *d)
{
    struct client *c;

    if (!d)
        return;
    d->failed = d->started = d->closing = d->done = true; /* nobody is told any more */
    local_listener_free(d->listener);
    while ((c = TAILQ_FIRST(&d->clients))) {
        TAILQ_REMOVE(&d->clients, c, entry);
        c->ended = true;
        mirror_connection_free(c->connection);
        local_socket_free(c->socket);
        free(c);
    }
    disk_source_detach(d);
    for (unsigned i = 0; i < d->disk_count; i++) {
        mirror_endpoint_remove(d->endpoint, d->disks[i].mirror);
        mirror_source_free(d->disks[i].mirror);
        disk_packer_free(d->disks[i].packer);
    }
    disk_packing_free(d->packing);
    mirror_endpoint_free(d->endpoint);
    buffer_done(&d->scratch);
    uv_close((uv_handle_t *)&d->reaper, on_handle_closed);
    uv_close((uv_handle_t *)&d->pace_timer, on_handle_closed);
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

int disk_source_pack(struct disk_source *d, int level, unsigned window_log)
{
    return disk_packing_new(d->loop, level, window_log, &d->packing);
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
        ret->held_guest_count += s.log.held_guest_count;
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
