/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror log of one disk: see mirror_log.h for what it promises and why coalescing is right.
 *
 * Two queues: `unsent` in the order of arrival, whose head may be partly pulled, and `sent` in the order
 * of the stream. Entries of `unsent` that may still coalesce are also in an index, mirror_log_index.c.
 */
#include "storage/mirror_log.h"

#include <assert.h>
#include <errno.h>
#include <string.h>

#include "storage/limits.h"
#include "storage/mirror_log_private.h"
#include "storage/mirror_wire.h"

enum {
    BULK_ALIGN_BYTES = 64 * 1024,
    /* How far behind the highest bulk write another may come: QEMU's 16 requests of 1 MiB reorder. */
    BULK_REORDER_BYTES = 16 * 1024 * 1024,
};

static bool go_on(struct mirror_budget_member *member, uint64_t now_ns);

int mirror_log_new(struct mirror_log **ret_log, struct mirror_budget *budget,
                   struct ack_pacer *pacer, struct mirror_spool *spool,
                   const struct mirror_log_ops *ops, void *owner)
{
    struct mirror_log *log = calloc(1, sizeof(*log));

    if (!log)
        return -ENOMEM;
    log->budget = budget;
    log->pacer = pacer;
    log->spool = spool;
    TAILQ_INIT(&log->resident);
    log->ops = ops;
    log->owner = owner;
    TAILQ_INIT(&log->unsent);
    TAILQ_INIT(&log->sent);
    TAILQ_INIT(&log->seeds);
    TAILQ_INIT(&log->fills);
    TAILQ_INIT(&log->held_guest);
    TAILQ_INIT(&log->held_bulk);
    log->member.go_on = go_on;
    mirror_budget_join(budget, &log->member);
    *ret_log = log;
    return 0;
}

/* --- charging and holding --------------------------------------------------------------------- */

void mirror_log_charge(struct mirror_log *log, uint64_t bytes)
{
    mirror_budget_charge(log->budget, bytes);
    log->stats.fill_bytes += bytes;
    log->stats.fill_peak_bytes = MAX(log->stats.fill_peak_bytes, log->stats.fill_bytes);
}

void mirror_log_give_back(struct mirror_log *log, uint64_t bytes)
{
    assert(bytes <= log->stats.fill_bytes);
    mirror_budget_give_back(log->budget, bytes);
    log->stats.fill_bytes -= bytes;
}

static void stop_waiting(struct mirror_log *log)
{
    log->refused_bytes = 0;
    mirror_budget_leave_line(log->budget, &log->member);
}

bool mirror_log_admit(struct mirror_log *log, uint32_t payload_bytes)
{
    uint64_t bytes = (uint64_t)payload_bytes + LIMIT_LOG_ENTRY_OVERHEAD_BYTES;

    assert(log->reserved_bytes == 0);
    if (log->abandoned)
        return false;
    if (!mirror_budget_may_take(log->budget, &log->member, bytes + mirror_log_spool_reserve(log))) {
        log->refused_bytes = bytes;
        mirror_budget_stand_in_line(log->budget, &log->member);
        return false;
    }
    stop_waiting(log);
    log->reserved_bytes = bytes;
    mirror_log_charge(log, bytes);
    return true;
}

static void drop_reservation(struct mirror_log *log)
{
    mirror_log_give_back(log, log->reserved_bytes);
    log->reserved_bytes = 0;
}

void mirror_log_unadmit(struct mirror_log *log, uint64_t now_ns)
{
    stop_waiting(log);
    drop_reservation(log);
    mirror_budget_settle(log->budget, now_ns);
}

/* May an acknowledgement go, as far as room and pace are concerned? */
static bool may_acknowledge(const struct mirror_log *log, bool bulk, uint64_t now_ns)
{
    if (log->let_go)
        return true;
    if (!mirror_budget_is_below(log->budget, bulk ? MIRROR_BUDGET_BULK : MIRROR_BUDGET_GUEST))
        return false;
    return bulk || !log->pacer || ack_pacer_is_due(log->pacer, now_ns);
}

static uint64_t carried_bytes(const struct entry *e)
{
    return e->payload ? e->length : LIMIT_LOG_ENTRY_OVERHEAD_BYTES;
}

static void pay(struct mirror_log *log, bool bulk, uint64_t bytes, uint64_t now_ns)
{
    if (!bulk && log->pacer)
        ack_pacer_take(log->pacer, bytes, now_ns);
}

static bool release_first(struct mirror_log *log, bool bulk, uint64_t now_ns)
{
    struct held_queue *queue = bulk ? &log->held_bulk : &log->held_guest;
    struct held *h = TAILQ_FIRST(queue);
    uint64_t waited_ns, cookie;

    if (!h || !may_acknowledge(log, bulk, now_ns))
        return false;
    TAILQ_REMOVE(queue, h, link);
    pay(log, bulk, h->bytes, now_ns);
    if (bulk)
        log->bulk_released_ns = now_ns;
    waited_ns = now_ns > h->since_ns ? now_ns - h->since_ns : 0;
    log->stats.held_now--;
    log->stats.held_guest_now -= !bulk;
    log->stats.held_ns += waited_ns;
    log->stats.held_max_ns = MAX(log->stats.held_max_ns, waited_ns);
    cookie = h->cookie;
    free(h);
    log->ops->release(log->owner, cookie, bulk, waited_ns, now_ns);
    return true;
}

/* The budget's turn: guest acknowledgements first, then bulk, then taking in again. */
static bool go_on(struct mirror_budget_member *member, uint64_t now_ns)
{
    struct mirror_log *log = container_of(member, struct mirror_log, member);

    if (release_first(log, false, now_ns) || release_first(log, true, now_ns))
        return true;
    if (log->refused_bytes == 0 ||
        !mirror_budget_may_take(log->budget, &log->member,
                                log->refused_bytes + mirror_log_spool_reserve(log)))
        return false;
    /* It keeps its place in the line until it has asked again. */
    log->refused_bytes = 0;
    log->ops->room(log->owner, now_ns);
    if (log->refused_bytes == 0)
        stop_waiting(log);
    return true;
}

/* Decides on a request that is in the log and charged. */
static enum mirror_log_answer answer(struct mirror_log *log, struct held **held,
                                     const struct entry *e, uint64_t now_ns)
{
    bool bulk = log->last_was_bulk;
    /* The guest comes before the copy by its higher mark. */
    bool others_first = !TAILQ_EMPTY(bulk ? &log->held_bulk : &log->held_guest);
    struct held *h;

    if (!others_first && may_acknowledge(log, bulk, now_ns)) {
        pay(log, bulk, carried_bytes(e), now_ns);
        return MIRROR_LOG_ACKNOWLEDGE;
    }
    h = TAKE_PTR(*held);
    h->cookie = e->cookie;
    h->bytes = carried_bytes(e);
    h->since_ns = now_ns;
    if (bulk)
        TAILQ_INSERT_TAIL(&log->held_bulk, h, link);
    else
        TAILQ_INSERT_TAIL(&log->held_guest, h, link);
    log->stats.held_now++;
    log->stats.held_guest_now += !bulk;
    log->stats.held_count++;
    return MIRROR_LOG_HOLD;
}

/* --- entries ---------------------------------------------------------------------------------- */

void mirror_log_entry_free(struct entry *e)
{
    free(e->payload);
    free(e->digests);
    free(e->hints);
    free(e->fill);
    free(e);
}

bool mirror_log_is_zero(const uint8_t *p, size_t len)
{
    /* Every byte equals its neighbour, and the first is 0. */
    return p[0] == 0 && memcmp(p, p + 1, len - 1) == 0;
}

/* Bulk or guest: see the header. Moves the cursor of the bulk copy. */
static bool guess_bulk(struct mirror_log *log, uint64_t offset, uint32_t length)
{
    uint64_t end = offset + length;
    bool rising = end + BULK_REORDER_BYTES >= log->bulk_next;

    if (log->ready || offset % BULK_ALIGN_BYTES != 0 || length < BULK_ALIGN_BYTES)
        return false;
    /* One that falls behind may be the start of another pass: it counts as the guest's, the next do not. */
    log->bulk_next = rising ? MAX(log->bulk_next, end) : end;
    return rising;
}

static bool is_extent(enum mirror_log_kind kind)
{
    return kind == MIRROR_LOG_WRITE || kind == MIRROR_LOG_ZERO || kind == MIRROR_LOG_TRIM;
}

/* Tells what the disk held at its place in the order: nothing coalesces across it. */
static bool is_answered(enum mirror_log_kind kind)
{
    return kind == MIRROR_LOG_READ || kind == MIRROR_LOG_CHECK;
}

/* Marks are our own, few, must get in also when the budget is full, and were not admitted before. */
static bool is_mark(enum mirror_log_kind kind)
{
    return kind == MIRROR_LOG_FLUSH || kind == MIRROR_LOG_CLOSE || kind == MIRROR_LOG_CHECK;
}

static void fill_entry(struct mirror_log *log, struct entry *e, struct mirror_log_request *r)
{
    e->kind = r->kind;
    e->offset = r->offset;
    e->length = r->length;
    e->may_trim = r->may_trim;
    e->cookie = r->cookie;
    e->payload = TAKE_PTR(r->payload);
    e->charge_bytes = is_mark(r->kind) ? 0 : LIMIT_LOG_ENTRY_OVERHEAD_BYTES;
    if (e->kind == MIRROR_LOG_WRITE && mirror_log_is_zero(e->payload, e->length)) {
        free(TAKE_PTR(e->payload));
        e->kind = MIRROR_LOG_ZERO;
        e->may_trim = true;
    }
    if (e->kind == MIRROR_LOG_WRITE) {
        e->charge_bytes += e->length;
        log->stats.in_payload_bytes += e->length;
    }
    if (is_answered(e->kind))
        log->epoch++;
    e->epoch = log->epoch;
    if (is_extent(e->kind)) {
        log->stats.in_bytes += e->length;
        log->last_was_bulk = guess_bulk(log, e->offset, e->length);
    }
    log->stats.in_entries++;
}

int mirror_log_append_entry(struct mirror_log *log, struct mirror_log_request *request,
                            uint64_t now_ns, enum mirror_log_answer *ret_answer)
{
    struct entry *e;
    struct held *held;

    if (log->closed || log->abandoned)
        return -ESHUTDOWN;
    e = calloc(1, sizeof(*e));
    held = calloc(1, sizeof(*held));
    if (!e || !held) {
        free(e);
        free(held);
        return -ENOMEM;
    }
    if (!is_mark(request->kind))
        drop_reservation(log);
    fill_entry(log, e, request);
    if (e->kind == MIRROR_LOG_WRITE || e->kind == MIRROR_LOG_ZERO)
        mirror_log_coalesce(log, e);
    mirror_log_charge(log, e->charge_bytes);
    log->stats.unsent_bytes += e->charge_bytes;
    TAILQ_INSERT_TAIL(&log->unsent, e, link);
    if (is_extent(e->kind))
        mirror_log_index_insert(log, e);
    mirror_log_spool_keep(log, e);
    log->closed = e->kind == MIRROR_LOG_CLOSE;
    if (ret_answer)
        *ret_answer = is_extent(e->kind) ? answer(log, &held, e, now_ns) : MIRROR_LOG_ACKNOWLEDGE;
    free(held);
    mirror_log_spill(log);
    if (ret_answer) /* not between the parts of one that was admitted */
        mirror_budget_settle(log->budget, now_ns); /* coalescing and zeroes may have made room */
    return 0;
}

/* --- onto the wire, and applied --------------------------------------------------------------- */

static void begin_sending(struct mirror_log *log, struct entry *e)
{
    mirror_log_run_began(log, e);
    mirror_log_index_remove(e);
    mirror_log_spool_forget(log, e);
    e->seq = ++log->sent_seq;
    mirror_log_seed_begin(log, e);
    if (e->kind == MIRROR_LOG_WRITE && !e->digests)
        log->sent_payload_bytes += e->length;
    if (e->kind == MIRROR_LOG_CLOSE)
        log->close_seq = e->seq;
}

static struct mirror_wire_message message_of(const struct mirror_log *log, const struct entry *e)
{
    static const enum mirror_wire_type types[] = {
        [MIRROR_LOG_WRITE] = MIRROR_WIRE_WRITE, [MIRROR_LOG_ZERO] = MIRROR_WIRE_ZERO,
        [MIRROR_LOG_TRIM] = MIRROR_WIRE_TRIM,   [MIRROR_LOG_FLUSH] = MIRROR_WIRE_FLUSH,
        [MIRROR_LOG_READ] = MIRROR_WIRE_READ,   [MIRROR_LOG_CLOSE] = MIRROR_WIRE_CLOSE,
        [MIRROR_LOG_CHECK] = MIRROR_WIRE_CHECK,
    };

    return (struct mirror_wire_message){
        .type = e->digests ? MIRROR_WIRE_SEED : types[e->kind],
        .flags = e->kind == MIRROR_LOG_ZERO && e->may_trim ? MIRROR_WIRE_MAY_TRIM : 0,
        .length = e->length,
        .seq = e->seq,
        .offset = e->kind == MIRROR_LOG_CLOSE ? log->sent_payload_bytes : e->offset,
    };
}

size_t mirror_log_encode(struct buffer *out, size_t max_bytes, const struct mirror_wire_message *m,
                         const uint8_t *body, size_t at)
{
    uint8_t header[MIRROR_WIRE_HEADER_BYTES];
    size_t total = sizeof(header) + (body ? mirror_wire_payload_bytes(m) : 0);
    size_t len = MIN(max_bytes, total - at), head = 0;
    uint8_t *room = len > 0 ? buffer_reserve(out, len) : NULL;

    if (!room)
        return 0;
    if (at < sizeof(header)) {
        mirror_wire_encode(m, header);
        head = MIN(len, sizeof(header) - at);
        memcpy(room, header + at, head);
    }
    if (len > head && body) /* the second only for the analyzer */
        memcpy(room + head, body + (at + head - sizeof(header)), len - head);
    return len;
}

/* Wholly pulled: the session has its bytes now. */
static int finish_sending(struct mirror_log *log, struct entry *e)
{
    struct waiting_read *wait;

    if (is_answered(e->kind)) {
        wait = malloc(sizeof(*wait));
        if (!wait)
            return -ENOMEM;
        *wait = (struct waiting_read){.seq = e->seq, .cookie = e->cookie, .length = e->length};
        LIST_INSERT_HEAD(&log->reads, wait, link);
    }
    if (!e->digests)
        free(TAKE_PTR(e->payload)); /* else the target may lack it */
    log->complete_seq = e->seq;
    log->stats.sent_entries++;
    log->stats.unsent_bytes -= e->charge_bytes;
    TAILQ_REMOVE(&log->unsent, e, link);
    TAILQ_INSERT_TAIL(&log->sent, e, link);
    return 0;
}

/* Pulls from one entry; 0 when out of memory or room. */
static size_t pull_entry(struct mirror_log *log, struct entry *e, struct buffer *out,
                         size_t max_bytes)
{
    struct mirror_wire_message m;
    const uint8_t *body;
    size_t total, len;

    if (max_bytes == 0)
        return 0;
    if (e->seq == 0)
        begin_sending(log, e);
    m = message_of(log, e);
    body = e->digests ? e->digests : e->payload;
    total = MIRROR_WIRE_HEADER_BYTES + (body ? mirror_wire_payload_bytes(&m) : 0);
    len = mirror_log_encode(out, max_bytes, &m, body, e->pulled);
    if (len == 0 || (e->pulled + len == total && finish_sending(log, e) < 0))
        return 0; /* nothing was committed to @out: the same bytes come again */
    buffer_commit(out, len);
    e->pulled += len;
    log->stats.sent_bytes += len;
    return len;
}

/* One message after the other: what has begun ends first, then FILLs, which others wait for at the target. */
static size_t pull_next(struct mirror_log *log, struct buffer *out, size_t max_bytes)
{
    struct entry *e;

    mirror_log_run_choose(log);
    e = TAILQ_FIRST(&log->unsent);
    if (e && e->seq > 0)
        return pull_entry(log, e, out, max_bytes);
    if (!TAILQ_EMPTY(&log->fills))
        return mirror_log_pull_fill(log, out, max_bytes);
    if (!e || mirror_log_is_spooled(e) || !mirror_log_seed_may_send(log, e))
        return 0;
    return pull_entry(log, e, out, max_bytes);
}

size_t mirror_log_pull(struct mirror_log *log, struct buffer *out, size_t max_bytes)
{
    size_t total = 0, len;

    mirror_log_unspool(log);
    while ((len = pull_next(log, out, max_bytes - total)) > 0)
        total += len;
    return total;
}

bool mirror_log_has_unsent(const struct mirror_log *log)
{
    return !TAILQ_EMPTY(&log->unsent) || !TAILQ_EMPTY(&log->fills);
}

int mirror_log_read_cookie(struct mirror_log *log, uint64_t seq, uint64_t *ret_cookie,
                           uint32_t *ret_length)
{
    struct waiting_read *wait;

    LIST_FOREACH(wait, &log->reads, link)
    {
        if (wait->seq == seq) {
            *ret_cookie = wait->cookie;
            *ret_length = wait->length;
            LIST_REMOVE(wait, link);
            free(wait);
            return 0;
        }
    }
    return -ENOENT;
}

int mirror_log_applied(struct mirror_log *log, uint64_t seq, uint64_t now_ns)
{
    struct entry *e;

    if (seq > log->complete_seq || seq < log->applied_seq)
        return -EPROTO;
    log->applied_seq = seq;
    /* NOLINTNEXTLINE(clang-analyzer-unix.Malloc): freeing unlinks, the analyzer does not see it */
    while ((e = TAILQ_FIRST(&log->sent)) && e->seq <= seq) {
        if (mirror_log_seed_is_owed(e))
            return -EPROTO;
        TAILQ_REMOVE(&log->sent, e, link);
        mirror_log_seed_applied(log, e);
        mirror_log_seed_forget(log, e);
        mirror_log_give_back(log, e->charge_bytes);
        log->stats.applied_entries++;
        if (e->kind == MIRROR_LOG_WRITE)
            log->stats.applied_bytes += e->length;
        mirror_log_entry_free(e);
    }
    mirror_budget_settle(log->budget, now_ns);
    return 0;
}

/* --- the rest --------------------------------------------------------------------------------- */

uint64_t mirror_log_close_seq(const struct mirror_log *log)
{
    return log->close_seq;
}

bool mirror_log_is_drained(const struct mirror_log *log)
{
    return log->closed && TAILQ_EMPTY(&log->unsent) && TAILQ_EMPTY(&log->sent);
}

void mirror_log_let_go(struct mirror_log *log, uint64_t now_ns)
{
    log->let_go = true;
    mirror_budget_settle(log->budget, now_ns);
}

void mirror_log_tick(struct mirror_log *log, uint64_t now_ns)
{
    mirror_budget_settle(log->budget, now_ns);
}

void mirror_log_set_ready(struct mirror_log *log, bool ready)
{
    log->ready = ready;
}

bool mirror_log_last_was_bulk(const struct mirror_log *log)
{
    return log->last_was_bulk;
}

void mirror_log_stats(const struct mirror_log *log, struct mirror_log_stats *ret_stats)
{
    const struct held *guest = TAILQ_FIRST(&log->held_guest);
    const struct held *bulk = TAILQ_FIRST(&log->held_bulk);
    uint64_t bulk_since_ns = bulk ? MAX(bulk->since_ns, log->bulk_released_ns) : 0;

    *ret_stats = log->stats;
    if (guest)
        ret_stats->held_since_ns = guest->since_ns;
    if (bulk && (!guest || bulk_since_ns < guest->since_ns))
        ret_stats->held_since_ns = bulk_since_ns;
}

static void drop_entries(struct mirror_log *log, struct entry_queue *queue)
{
    struct entry *e;

    while ((e = TAILQ_FIRST(queue))) {
        TAILQ_REMOVE(queue, e, link);
        mirror_log_index_remove(e);
        mirror_log_spool_forget(log, e);
        mirror_log_seed_forget(log, e);
        mirror_log_entry_free(e);
    }
}

static void drop_held(struct held_queue *queue)
{
    struct held *h;

    while ((h = TAILQ_FIRST(queue))) {
        TAILQ_REMOVE(queue, h, link);
        free(h);
    }
}

void mirror_log_abandon(struct mirror_log *log, uint64_t now_ns)
{
    struct waiting_read *wait;

    log->abandoned = true;
    drop_entries(log, &log->unsent);
    drop_entries(log, &log->sent);
    drop_held(&log->held_guest);
    drop_held(&log->held_bulk);
    while ((wait = LIST_FIRST(&log->reads))) {
        LIST_REMOVE(wait, link);
        free(wait);
    }
    log->reserved_bytes = 0;
    stop_waiting(log);
    mirror_log_give_back(log, log->stats.fill_bytes);
    log->stats.unsent_bytes = log->stats.held_now = log->stats.held_guest_now = 0;
    mirror_budget_settle(log->budget, now_ns);
}

void mirror_log_free(struct mirror_log *log)
{
    if (!log)
        return;
    mirror_budget_leave(log->budget, &log->member);
    mirror_log_abandon(log, 0);
    free(log);
}
