/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The mirror log of one disk: the ordered, bounded buffer of requests acknowledged at the source and
 * not yet applied at the target.
 *
 *                 append                 pull                     APPLIED
 *   QEMU --------> [ unsent ] ---------------> [ sent ] ---------------> gone
 *         payload held, may coalesce   payload gone (the session       charge given back
 *                                      keeps it), charge stays
 *
 * Coalescing. An unsent WRITE or ZERO that is wholly covered by a newer WRITE or ZERO leaves the log.
 * This is correct because an entry gets its wire sequence number only when its first byte is pulled:
 * the numbers stay gapless, nobody waits for an entry that has left, and every byte of the covered
 * extent is overwritten by the coverer, which is later in the stream. Whatever lay between the two in
 * the log and overlaps them is overwritten by the coverer as well, so the final contents are the same
 * (intermediate ones are nobody's business: the target disk is used only after CLOSED). Two fences:
 * a READ or CHECK between the two would see the missing data, so nothing coalesces across one; TRIM does
 * not count as a coverer, because it may leave the old data in place.
 *
 * Acknowledging. The owner asks mirror_log_admit() before it takes a payload into memory and then
 * appends the request, which is charged to the budget; the answer says whether the client gets its
 * acknowledgement now or when ops->release() names its cookie. Held guest writes are released before
 * held bulk writes, each in order of arrival; guest writes also wait for the pacer, when there is one. QEMU keeps at
 * most 16 requests in flight over both kinds, and what overlaps a copy under way waits for it; so holding bulk also holds
 * the guest: it is the safety net, the brake is congestion.h.
 *
 * Entries are pulled in order of arrival, but the copy's go in the order of the disk where that is free to choose:
 * mirror_log_run.c.
 *
 * Bulk or guest is a guess: before READY, extents aligned to 64 KiB of at least 64 KiB in rising order
 * are bulk. A wrong guess costs a delay or a little fairness, never correctness.
 */
#ifndef FERRY_STORAGE_MIRROR_LOG_H
#define FERRY_STORAGE_MIRROR_LOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/base/buffer.h"
#include "storage/ack_pacer.h"
#include "storage/mirror_budget.h"
#include "storage/mirror_spool.h"

struct mirror_log;

struct mirror_log_ops {
    /* The held request may be acknowledged now; it was held for @waited_ns, as bulk copy or the guest's.
     * The callee may append to this log, not free it. */
    void (*release)(void *owner, uint64_t cookie, bool bulk, uint64_t waited_ns, uint64_t now_ns);
    /* admit() said no before and would now say yes. */
    void (*room)(void *owner, uint64_t now_ns);
    /* pull() may go on: something came back from the spool. With @err < 0: it did not, and never will. Only
     * with a spool. The callee may do anything but free the log. */
    void (*unspooled)(void *owner, int err, uint64_t now_ns);
};

/* @pacer of guest acknowledgements, and @spool, outlive the log; NULL: none. */
int mirror_log_new(struct mirror_log **ret_log, struct mirror_budget *budget,
                   struct ack_pacer *pacer, struct mirror_spool *spool,
                   const struct mirror_log_ops *ops, void *owner);
void mirror_log_free(struct mirror_log *log);

enum mirror_log_kind {
    MIRROR_LOG_WRITE,
    MIRROR_LOG_ZERO,
    MIRROR_LOG_TRIM,
    MIRROR_LOG_FLUSH, /* for the target's disk; not what QEMU asks, that is acknowledged at once */
    MIRROR_LOG_READ,
    MIRROR_LOG_CHECK, /* ours, as FLUSH: costs nothing, needs no admit(), few at a time */
    MIRROR_LOG_CLOSE,
};

struct mirror_log_request {
    enum mirror_log_kind kind;
    uint64_t offset;
    uint32_t length;
    bool may_trim;    /* ZERO */
    uint8_t *payload; /* WRITE: malloc'ed; the log's on success, untouched on failure */
    uint64_t cookie;  /* for release(), and mirror_log_read_cookie() */
};

enum mirror_log_answer { MIRROR_LOG_ACKNOWLEDGE, MIRROR_LOG_HOLD };

/* May a request with @payload_bytes be taken into memory now? When not, room() tells. A budget of which
 * nothing is used always has room: a single request passes even when it is larger than the budget. */
bool mirror_log_admit(struct mirror_log *log, uint32_t payload_bytes);

/* What admit() granted last and append() has not used (it is charged from the grant on) is given back:
 * the client went away in the middle of its payload. */
void mirror_log_unadmit(struct mirror_log *log, uint64_t now_ns);

/* 0, -ENOMEM, or -ESHUTDOWN after CLOSE. A write of nothing but zeroes is stored as ZERO,
 * and so are runs of 64 KiB of them within one. FLUSH, READ,
 * CHECK and CLOSE are always answered ACKNOWLEDGE. */
int mirror_log_append(struct mirror_log *log, struct mirror_log_request *request, uint64_t now_ns,
                      enum mirror_log_answer *ret_answer);

/* Encodes the next entries into @out, at most @max_bytes of them; an entry may be cut anywhere and goes
 * on in the next call. Returns the bytes appended; 0 also when out of memory, or when the next has to come
 * back from the spool: unspooled() tells. */
size_t mirror_log_pull(struct mirror_log *log, struct buffer *out, size_t max_bytes);
bool mirror_log_has_unsent(const struct mirror_log *log);

/* The cookie of the READ or CHECK that was sent as @seq, once; -ENOENT when there is none. */
int mirror_log_read_cookie(struct mirror_log *log, uint64_t seq, uint64_t *ret_cookie,
                           uint32_t *ret_length);

/* All but CLOSED may still come: the sequence number that CLOSE has, or will have been given; 0 before. */
uint64_t mirror_log_close_seq(const struct mirror_log *log);

/* The target has applied everything up to @seq. -EPROTO when that was never wholly sent, or goes back. */
int mirror_log_applied(struct mirror_log *log, uint64_t seq, uint64_t now_ns);

/* Everything up to CLOSE was sent and applied. */
bool mirror_log_is_drained(const struct mirror_log *log);

/* A time set by the pacer has come, or a new pace: releases what may go. */
void mirror_log_tick(struct mirror_log *log, uint64_t now_ns);

/* The move is given up: nobody waits for an acknowledgement any more, now or later. */
void mirror_log_let_go(struct mirror_log *log, uint64_t now_ns);

void mirror_log_set_ready(struct mirror_log *log, bool ready);

/* The target has an older copy of this disk: what the copy writes may be sent as a SEED. Before the first pull. */
void mirror_log_set_seeded(struct mirror_log *log);

/* The target lacks something of the SEED that was sent as @seq; *hints (taken on success) are what it has
 * there, none with @hints_bytes 0. -EPROTO when it may not say so. */
int mirror_log_missed(struct mirror_log *log, uint64_t seq, uint8_t **hints, uint32_t hints_bytes);

/* Was the last extent append()ed taken for bulk copy? */
bool mirror_log_last_was_bulk(const struct mirror_log *log);

/* Drops everything and takes nothing any more: for an aborted move. Held requests are forgotten. */
void mirror_log_abandon(struct mirror_log *log, uint64_t now_ns);

struct mirror_log_stats {
    uint64_t in_bytes, in_entries; /* accepted from the client; zeroes count their extent */
    uint64_t in_payload_bytes;     /* of these, bytes of data that had to be carried */
    uint64_t coalesced_bytes, coalesced_entries; /* payload that was never sent */
    uint64_t sent_bytes, sent_entries;           /* stream bytes pulled, headers included */
    uint64_t seed_bytes;                         /* applied from the target's seed, never sent */
    uint64_t applied_bytes, applied_entries;     /* payload bytes applied at the target */
    uint64_t fill_bytes, fill_peak_bytes;        /* charged to the budget now, and at most */
    uint64_t unsent_bytes;                       /* of the fill, not yet pulled */
    uint64_t spooled_bytes, spooled_ever_bytes;  /* payload on the spool, beside the fill */
    uint64_t held_now, held_count, held_ns; /* acknowledgements held: now, ever, their total time */
    uint64_t held_max_ns;
    uint64_t held_guest_now; /* of those held now, the guest's */
    /* Somebody waits since: the guest's request that waits longest, or the copy's, counted from the last time
     * that one of the copy's was released; 0 = nobody. */
    uint64_t held_since_ns;
};
void mirror_log_stats(const struct mirror_log *log, struct mirror_log_stats *ret_stats);

#endif
