/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One disk of a move at the source: see mirror_source.h.
 *
 * Cookies. A request's cookie is unique on its connection only; with one client after another a late
 * release could hit a request of the next one. So the log is given the cookie with the client's number
 * above it, and what belongs to an earlier client is dropped.
 */
#include "storage/mirror_source.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "core/base/log.h"
#include "storage/limits.h"
#include "storage/mirror_source_private.h"
#include "storage/mirror_wire.h"

enum { CLIENT_SHIFT = 48, LATENCY_BUCKETS = 32 };

struct mirror_source {
    char export_name[LIMIT_EXPORT_NAME_BYTES + 1];
    uint64_t size_bytes;
    bool many_clients;
    void (*content)(void *owner, uint64_t offset, uint32_t length, const uint8_t *data);
    void (*wake)(void *owner, struct mirror_source *m);
    void *owner;

    enum mirror_source_state state;
    struct error error;
    struct mirror_log *log;
    struct mirror_check *check; /* NULL: not verified */
    bool ready;
    struct buffer open_message; /* what of OPEN was not pulled yet */
    struct mirror_wire_decoder decoder;

    const struct mirror_client_ops *client_ops; /* NULL: no client */
    void *client;
    uint64_t client_number;
    uint64_t reads_open_bytes; /* asked for by this client, not answered */
    bool read_refused;

    struct mirror_source_stats stats; /* its log part is filled when asked for */
};

static void on_release(void *owner, uint64_t cookie, bool bulk, uint64_t waited_ns,
                       uint64_t now_ns);
static void on_room(void *owner, uint64_t now_ns);
static void on_unspooled(void *owner, int err, uint64_t now_ns);

static const struct mirror_log_ops log_ops = {
    .release = on_release, .room = on_room, .unspooled = on_unspooled};

const char *mirror_source_state_name(enum mirror_source_state state)
{
    static const char *const names[] = {"wait-client", "mirroring", "closing", "done", "failed"};

    static_assert(ARRAY_SIZE(names) == MIRROR_SOURCE_FAILED + 1, "every state has a name");
    return names[state];
}

/* Which states may follow which, as bits. */
static const unsigned may_follow[] = {
    [MIRROR_SOURCE_WAIT_CLIENT] =
        1u << MIRROR_SOURCE_MIRRORING | 1u << MIRROR_SOURCE_CLOSING | 1u << MIRROR_SOURCE_FAILED,
    [MIRROR_SOURCE_MIRRORING] =
        1u << MIRROR_SOURCE_WAIT_CLIENT | 1u << MIRROR_SOURCE_CLOSING | 1u << MIRROR_SOURCE_FAILED,
    [MIRROR_SOURCE_CLOSING] = 1u << MIRROR_SOURCE_DONE | 1u << MIRROR_SOURCE_FAILED,
    [MIRROR_SOURCE_DONE] = 0,
    [MIRROR_SOURCE_FAILED] = 0,
};

static void set_state(struct mirror_source *m, enum mirror_source_state state)
{
    assert(may_follow[m->state] & (1u << state));
    log_debug("disk %s at the source: %s -> %s", m->export_name, mirror_source_state_name(m->state),
              mirror_source_state_name(state));
    m->state = state;
}

static void wake(struct mirror_source *m)
{
    if (m->wake)
        m->wake(m->owner, m);
}

static int encode_open(struct mirror_source *m)
{
    uint8_t header[MIRROR_WIRE_HEADER_BYTES];
    uint32_t len = (uint32_t)strlen(m->export_name);

    mirror_wire_encode(&(struct mirror_wire_message){.type = MIRROR_WIRE_OPEN,
                                                     .length = len,
                                                     .offset = m->size_bytes},
                       header);
    if (buffer_append(&m->open_message, header, sizeof(header)) < 0)
        return -ENOMEM;
    return buffer_append(&m->open_message, m->export_name, len);
}

int mirror_source_new(struct mirror_source **ret_source, const struct mirror_source_params *params)
{
    struct mirror_source *m;
    size_t name_len = strlen(params->export_name);

    if (name_len == 0 || name_len > LIMIT_EXPORT_NAME_BYTES || params->size_bytes > INT64_MAX)
        return -EINVAL;
    m = calloc(1, sizeof(*m));
    if (!m)
        return -ENOMEM;
    memcpy(m->export_name, params->export_name, name_len + 1);
    m->size_bytes = params->size_bytes;
    m->many_clients = params->many_clients;
    m->content = params->content;
    m->wake = params->wake;
    m->owner = params->owner;
    mirror_wire_decoder_init(&m->decoder, MIRROR_WIRE_TO_SOURCE);
    if (mirror_log_new(&m->log, params->budget, params->pacer, params->spool, &log_ops, m) < 0 ||
        encode_open(m) < 0 || (params->verify && mirror_check_new(&m->check, m->size_bytes) < 0)) {
        mirror_source_free(m);
        return -ENOMEM;
    }
    if (params->seeded)
        mirror_log_set_seeded(m->log);
    *ret_source = m;
    return 0;
}

void mirror_source_free(struct mirror_source *m)
{
    if (!m)
        return;
    assert(!m->client_ops);
    mirror_log_free(m->log);
    mirror_check_free(m->check);
    mirror_wire_decoder_done(&m->decoder);
    buffer_done(&m->open_message);
    free(m);
}

static bool is_over(const struct mirror_source *m)
{
    return m->state == MIRROR_SOURCE_DONE || m->state == MIRROR_SOURCE_FAILED;
}

/* QEMU 7.2 does not always survive the end of a connection with requests open, so it is left to end its own:
 * what it waits for is answered, and what it still sends. Nothing of that goes anywhere any more. */
static void humour_client(struct mirror_source *m, uint64_t now_ns)
{
    mirror_log_let_go(m->log, now_ns);
    mirror_log_abandon(m->log, now_ns);
    if (m->client_ops)
        m->client_ops->room(m->client, now_ns);
}

/* One that reads, or belongs to a tool, is told. */
static void close_client(struct mirror_source *m, const struct error *why, uint64_t now_ns)
{
    const struct mirror_client_ops *ops = TAKE_PTR(m->client_ops);

    mirror_log_abandon(m->log, now_ns);
    if (ops)
        ops->close(m->client, why);
}

static void fail(struct mirror_source *m, const struct error *why, uint64_t now_ns)
{
    if (is_over(m))
        return;
    m->error = *why;
    set_state(m, MIRROR_SOURCE_FAILED);
    buffer_clear(&m->open_message);
    if (m->many_clients || m->reads_open_bytes > 0)
        close_client(m, why, now_ns);
    else
        humour_client(m, now_ns);
    wake(m);
}

void mirror_source_fail(struct mirror_source *m, const struct error *why)
{
    fail(m, why, 0);
}

/* --- the client ------------------------------------------------------------------------------- */

int mirror_source_attach(struct mirror_source *m, const struct mirror_client_ops *ops, void *client)
{
    if (m->client_ops)
        return -EBUSY;
    if (m->state != MIRROR_SOURCE_WAIT_CLIENT)
        return -ESHUTDOWN;
    m->client_ops = ops;
    m->client = client;
    m->client_number++;
    m->reads_open_bytes = 0;
    m->read_refused = false;
    set_state(m, MIRROR_SOURCE_MIRRORING);
    wake(m);
    return 0;
}

/* An entry without extent or client behind it: FLUSH or CLOSE. */
static int append_mark(struct mirror_source *m, enum mirror_log_kind kind, uint64_t now_ns)
{
    struct mirror_log_request r = {.kind = kind};
    enum mirror_log_answer unused;

    return mirror_log_append(m->log, &r, now_ns, &unused);
}

/* Asks for at most @most more stretches. The cookie of a CHECK is that of client 0, which there is not. */
static int ask(struct mirror_source *m, unsigned most, uint64_t now_ns)
{
    struct mirror_log_request r = {.kind = MIRROR_LOG_CHECK};
    enum mirror_log_answer unused;
    int err = 0;

    while (m->check && most-- > 0 && err == 0) {
        err = mirror_check_next(m->check, &r.offset, &r.length, &r.cookie);
        if (err == 0)
            err = mirror_log_append(m->log, &r, now_ns, &unused);
    }
    return err == -ENOENT ? 0 : err;
}

void mirror_source_verify(struct mirror_source *m)
{
    struct mirror_check_stats s;
    struct error e = {0};
    int err;

    if (!m->check || !m->ready || m->state != MIRROR_SOURCE_MIRRORING)
        return;
    mirror_check_stats(m->check, &s);
    if (s.asked >= LIMIT_CHECKS_IN_FLIGHT || s.left_bytes == 0)
        return;
    err = ask(m, LIMIT_CHECKS_IN_FLIGHT - s.asked, 0);
    if (err < 0) {
        error_set(&e, err, "verify a disk", NULL, "%s", strerror(-err));
        fail(m, &e, 0);
        return;
    }
    wake(m);
}

static int close_log(struct mirror_source *m, uint64_t now_ns)
{
    struct error e = {0};
    int err = ask(m, UINT_MAX, now_ns);

    if (err == 0)
        err = append_mark(m, MIRROR_LOG_CLOSE, now_ns);

    if (err < 0) {
        error_set(&e, err, "close the mirror log", NULL, "%s", strerror(-err));
        fail(m, &e, now_ns);
        return err;
    }
    set_state(m, MIRROR_SOURCE_CLOSING);
    wake(m);
    return 0;
}

int mirror_source_close(struct mirror_source *m)
{
    if (m->state != MIRROR_SOURCE_WAIT_CLIENT)
        return -EBUSY;
    return close_log(m, 0);
}

void mirror_source_detach(struct mirror_source *m, const struct error *why, uint64_t now_ns)
{
    m->client_ops = NULL;
    if (is_over(m))
        return;
    if (why) {
        fail(m, why, now_ns);
    } else if (m->many_clients) {
        mirror_log_unadmit(m->log, now_ns);
        set_state(m, MIRROR_SOURCE_WAIT_CLIENT);
        wake(m);
    } else {
        close_log(m, now_ns);
    }
}

bool mirror_source_admit(struct mirror_source *m, const struct nbd_request *request)
{
    uint32_t payload_bytes = request->command == NBD_CMD_WRITE ? request->length : 0;

    m->read_refused = false;
    if (request->command == NBD_CMD_FLUSH || is_over(m))
        return true;
    if (request->command == NBD_CMD_READ && m->reads_open_bytes > 0 &&
        m->reads_open_bytes + request->length > (uint64_t)LIMIT_READ_AHEAD_BYTES) {
        m->read_refused = true;
        return false;
    }
    return mirror_log_admit(m->log, payload_bytes);
}

static void complete(struct mirror_source *m, uint64_t cookie, int err, const void *data,
                     size_t len, uint64_t now_ns)
{
    uint64_t mask = (UINT64_C(1) << CLIENT_SHIFT) - 1;

    if (m->client_ops && cookie >> CLIENT_SHIFT == (m->client_number & 0xffff))
        m->client_ops->complete(m->client, cookie & mask, err, data, len, now_ns);
}

static void count_write(struct mirror_source *m, bool bulk, uint64_t waited_ns)
{
    uint64_t us = waited_ns / 1000;
    unsigned bucket = 0;

    if (bulk) {
        m->stats.writes_bulk++;
        return;
    }
    while (bucket < LATENCY_BUCKETS - 1 && us >> bucket != 0)
        bucket++;
    m->stats.writes_guest++;
    m->stats.guest_latency_count[bucket]++;
    m->stats.guest_latency_max_us = MAX(m->stats.guest_latency_max_us, us);
}

static enum mirror_log_kind kind_of(enum nbd_command command)
{
    switch (command) {
    case NBD_CMD_WRITE:
        return MIRROR_LOG_WRITE;
    case NBD_CMD_WRITE_ZEROES:
        return MIRROR_LOG_ZERO;
    case NBD_CMD_TRIM:
        return MIRROR_LOG_TRIM;
    default:
        return MIRROR_LOG_READ;
    }
}

static void note_content(struct mirror_source *m, const struct mirror_log_request *r)
{
    if (m->content && r->kind != MIRROR_LOG_READ)
        m->content(m->owner, r->offset, r->length, r->payload);
    if (!m->check)
        return;
    if (r->kind == MIRROR_LOG_WRITE)
        mirror_check_write(m->check, r->offset, r->length, r->payload);
    else if (r->kind == MIRROR_LOG_ZERO)
        mirror_check_zero(m->check, r->offset, r->length);
    else if (r->kind == MIRROR_LOG_TRIM)
        mirror_check_trim(m->check, r->offset, r->length);
}

void mirror_source_request(struct mirror_source *m, struct nbd_request *request, uint64_t now_ns)
{
    uint64_t cookie = request->cookie | (m->client_number & 0xffff) << CLIENT_SHIFT;
    struct mirror_log_request r = {
        .kind = kind_of(request->command),
        .offset = request->offset,
        .length = request->length,
        .may_trim = !(request->flags & NBD_CMD_FLAG_NO_HOLE),
        .payload = TAKE_PTR(request->payload),
        .cookie = cookie,
    };
    enum mirror_log_answer answer;
    int err;

    if (request->command == NBD_CMD_FLUSH || is_over(m)) {
        free(TAKE_PTR(r.payload));
        complete(m, cookie, request->command == NBD_CMD_READ ? -EIO : 0, NULL, 0, now_ns);
        return;
    }
    if (request->command == NBD_CMD_READ)
        m->reads_open_bytes += request->length;
    note_content(m, &r);
    err = mirror_log_append(m->log, &r, now_ns, &answer);
    if (err < 0) {
        free(r.payload);
        mirror_log_unadmit(m->log, now_ns);
        complete(m, cookie, err, NULL, 0, now_ns);
        return;
    }
    wake(m);
    if (request->command == NBD_CMD_READ || answer == MIRROR_LOG_HOLD)
        return;
    count_write(m, mirror_log_last_was_bulk(m->log), 0);
    complete(m, cookie, 0, NULL, 0, now_ns);
}

static void on_release(void *owner, uint64_t cookie, bool bulk, uint64_t waited_ns, uint64_t now_ns)
{
    struct mirror_source *m = owner;

    count_write(m, bulk, waited_ns);
    complete(m, cookie, 0, NULL, 0, now_ns);
}

static void on_room(void *owner, uint64_t now_ns)
{
    struct mirror_source *m = owner;

    if (m->client_ops)
        m->client_ops->room(m->client, now_ns);
}

static void on_unspooled(void *owner, int err, uint64_t now_ns)
{
    struct mirror_source *m = owner;
    struct error e = {0};

    if (err < 0) {
        error_set(&e, err, "read the spool back", "look at the disk under [storage] spool here",
                  "%s", strerror(-err));
        fail(m, &e, now_ns);
    } else {
        wake(m);
    }
}

/* --- the stream ------------------------------------------------------------------------------- */

size_t mirror_source_pull(struct mirror_source *m, struct buffer *out, size_t max_bytes,
                          uint64_t now_ns)
{
    size_t len = MIN(max_bytes, buffer_len(&m->open_message));

    (void)now_ns; /* for pacing, later */
    if (len > 0) {
        if (buffer_append(out, buffer_data(&m->open_message), len) < 0)
            return 0;
        buffer_consume(&m->open_message, len);
    }
    if (buffer_len(&m->open_message) > 0)
        return len;
    return len + mirror_log_pull(m->log, out, max_bytes - len);
}

bool mirror_source_has_output(const struct mirror_source *m)
{
    return buffer_len(&m->open_message) > 0 || mirror_log_has_unsent(m->log);
}

static int broken(struct error *e, const char *why)
{
    return error_set(e, -EPROTO, "read the mirror stream", "do both sites run the same version?",
                     "%s", why);
}

static int take_read_data(struct mirror_source *m, const struct mirror_wire_message *msg,
                          uint64_t now_ns, struct error *e)
{
    uint64_t cookie;
    uint32_t length;
    int err = -(int)MIN(msg->offset, (uint64_t)4095);

    if (mirror_log_read_cookie(m->log, msg->seq, &cookie, &length) < 0)
        return broken(e, "READ_DATA for no READ of ours");
    if (err == 0 && msg->length != length)
        return broken(e, "READ_DATA of another length than asked for");
    if (cookie >> CLIENT_SHIFT == (m->client_number & 0xffff))
        m->reads_open_bytes -= length;
    complete(m, cookie, err, msg->payload, msg->length, now_ns);
    if (m->read_refused) {
        m->read_refused = false;
        on_room(m, now_ns);
    }
    return 0;
}

static int take_digest(struct mirror_source *m, const struct mirror_wire_message *msg,
                       struct error *e)
{
    uint64_t id, offset = 0;
    uint32_t length;
    int err = -(int)MIN(msg->offset, (uint64_t)4095);

    if (!m->check || mirror_log_read_cookie(m->log, msg->seq, &id, &length) < 0)
        return broken(e, "DIGEST for no CHECK of ours");
    if (err < 0)
        return error_set(e, err, "verify a disk", "look at the target's storage",
                         "disk %s cannot be read at the target: %s", m->export_name,
                         strerror(-err));
    err = mirror_check_answer(m->check, id, msg->payload, &offset);
    if (err == -ENOENT)
        return broken(e, "DIGEST for no CHECK of ours");
    if (err < 0)
        return error_set(e, err, "verify a disk",
                         "look at the target's storage: what was written there is not what it "
                         "gives back",
                         "disk %s differs at the target, within %u bytes at %llu", m->export_name,
                         length, (unsigned long long)offset);
    mirror_source_verify(m);
    return 0;
}

static bool is_verified(const struct mirror_source *m)
{
    struct mirror_check_stats s = {0};

    if (m->check)
        mirror_check_stats(m->check, &s);
    return s.asked == 0 && s.left_bytes == 0;
}

static int take_closed(struct mirror_source *m, const struct mirror_wire_message *msg,
                       uint64_t now_ns, struct error *e)
{
    if (!is_verified(m))
        return broken(e, "CLOSED before every CHECK was answered");
    if (msg->seq == 0 || msg->seq != mirror_log_close_seq(m->log) ||
        mirror_log_applied(m->log, msg->seq, now_ns) < 0)
        return broken(e, "CLOSED without the CLOSE it belongs to");
    assert(mirror_log_is_drained(m->log));
    if (m->state == MIRROR_SOURCE_CLOSING)
        set_state(m, MIRROR_SOURCE_DONE);
    return 0;
}

static int take_error(const struct mirror_wire_message *msg, struct error *e)
{
    int err = -(int)MIN(MAX(msg->offset, (uint64_t)1), (uint64_t)4095);

    for (uint32_t i = 0; i < msg->length; i++) {
        if (msg->payload[i] < ' ' || msg->payload[i] > '~')
            msg->payload[i] = '?'; /* it goes to logs and terminals */
    }
    return error_set(e, err, "write the disk at the target", NULL, "%.*s", (int)msg->length,
                     msg->payload ? (const char *)msg->payload : "");
}

static int take_message(struct mirror_source *m, struct mirror_wire_message *msg, uint64_t now_ns,
                        struct error *e)
{
    switch (msg->type) {
    case MIRROR_WIRE_APPLIED:
        m->stats.target_queue_bytes = msg->offset;
        if (mirror_log_applied(m->log, msg->seq, now_ns) < 0)
            return broken(e, "APPLIED for what was not sent");
        return 0;
    case MIRROR_WIRE_READ_DATA:
        return take_read_data(m, msg, now_ns, e);
    case MIRROR_WIRE_CLOSED:
        return take_closed(m, msg, now_ns, e);
    case MIRROR_WIRE_DIGEST:
        return take_digest(m, msg, e);
    case MIRROR_WIRE_MISS:
        if (mirror_log_missed(m->log, msg->seq, &msg->payload, msg->length) < 0)
            return broken(e, "MISS of what is no SEED, or was sent");
        return 0;
    case MIRROR_WIRE_ERROR:
        return take_error(msg, e);
    default:
        return broken(e, "a message that goes the other way");
    }
}

int mirror_source_feed(struct mirror_source *m, const void *data, size_t len, uint64_t now_ns)
{
    const uint8_t *p = data;
    struct mirror_wire_message msg;
    struct error e = {0};
    bool complete_message;
    ssize_t taken;
    int err = 0;

    while (len > 0 && !is_over(m)) {
        taken = mirror_wire_decode(&m->decoder, p, len, &msg, &complete_message, &e);
        err = taken < 0 ? (int)taken : 0;
        if (taken > 0) {
            p += taken;
            len -= (size_t)taken;
        }
        if (!err && complete_message) {
            err = take_message(m, &msg, now_ns, &e);
            free(msg.payload);
        }
        if (err < 0)
            fail(m, &e, now_ns);
    }
    if (m->state == MIRROR_SOURCE_FAILED)
        return m->error.code;
    wake(m);
    return 0;
}

/* --- the rest --------------------------------------------------------------------------------- */

void mirror_source_set_ready(struct mirror_source *m, bool ready)
{
    m->ready = ready;
    mirror_log_set_ready(m->log, ready);
    mirror_source_verify(m);
}

void mirror_source_tick(struct mirror_source *m, uint64_t now_ns)
{
    mirror_log_tick(m->log, now_ns);
}

int mirror_source_flush_ahead(struct mirror_source *m)
{
    int err = append_mark(m, MIRROR_LOG_FLUSH, 0);

    if (err == 0)
        wake(m);
    return err;
}

enum mirror_source_state mirror_source_state(const struct mirror_source *m)
{
    return m->state;
}

const char *mirror_source_export_name(const struct mirror_source *m)
{
    return m->export_name;
}

uint64_t mirror_source_size_bytes(const struct mirror_source *m)
{
    return m->size_bytes;
}

const struct error *mirror_source_error(const struct mirror_source *m)
{
    return &m->error;
}

void mirror_source_stats(const struct mirror_source *m, struct mirror_source_stats *ret_stats)
{
    *ret_stats = m->stats;
    mirror_log_stats(m->log, &ret_stats->log);
    if (m->check)
        mirror_check_stats(m->check, &ret_stats->check);
}
