/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The inside of a mirror log, shared by its files: mirror_log.c (the queues, acknowledging, the wire),
 * mirror_log_index.c (finding what a new write covers), mirror_log_spool.c (payloads on the spool),
 * mirror_log_split.c (zeroes within a write), mirror_log_run.c (the copy in the order of the disk), mirror_log_seed.c (what the target may have already).
 */
#ifndef FERRY_STORAGE_MIRROR_LOG_PRIVATE_H
#define FERRY_STORAGE_MIRROR_LOG_PRIVATE_H

#include <sys/queue.h>

#include "storage/mirror_budget_private.h"
#include "storage/mirror_log.h"
#include "storage/mirror_wire.h"

enum { MIRROR_LOG_INDEX_HEADS = 4096 };

/* Drawn in mirror_log_seed.c. */
enum entry_seed { SEED_NONE, SEED_ASKED, SEED_OWED, SEED_FILLED };

struct entry {
    TAILQ_ENTRY(entry) link;         /* in unsent or sent */
    LIST_ENTRY(entry) region;        /* in the index, while `indexed` */
    TAILQ_ENTRY(entry) segment_link; /* in `resident` or in its segment's list */
    struct mirror_segment *segment;  /* being written to the spool, on it, or being read from it */
    uint32_t segment_at;             /* its payload there */
    bool resident;                   /* in memory, and may go to the spool */
    enum mirror_log_kind kind;
    bool may_trim;
    bool indexed;
    uint32_t length;
    uint64_t offset;
    uint64_t epoch; /* the count of READs before it: no coalescing across */
    uint64_t seq;   /* given with the first byte pulled; 0 before */
    uint64_t charge_bytes;
    uint64_t cookie;  /* READ */
    uint8_t *payload; /* WRITE, until it is wholly pulled; NULL while it is on the spool */
    size_t pulled;    /* bytes of header and payload */

    /* of one that is sent as a SEED */
    TAILQ_ENTRY(entry) seed_link, fill_link; /* in `seeds`, and in `fills` while OWED */
    enum entry_seed seed;
    bool behind; /* was sent after a SEED that it overlaps */
    uint8_t *digests;
    uint8_t *hints; /* OWED: what the target has; NULL: it wants all */
    uint8_t *fill;  /* while it is pulled */
    uint32_t fill_bytes, filled_bytes;
    size_t fill_pulled;
};
TAILQ_HEAD(entry_queue, entry);
LIST_HEAD(entry_list, entry);

/* A request in the log whose acknowledgement waits for room; its entry may be gone already. */
struct held {
    TAILQ_ENTRY(held) link;
    uint64_t cookie;
    uint64_t since_ns;
    uint64_t bytes; /* what the pacer counts */
};
TAILQ_HEAD(held_queue, held);

/* A READ that was sent and not answered. */
struct waiting_read {
    LIST_ENTRY(waiting_read) link;
    uint64_t seq;
    uint64_t cookie;
    uint32_t length;
};

struct mirror_log {
    struct mirror_budget_member member;
    struct mirror_budget *budget;
    struct ack_pacer *pacer;    /* may be NULL */
    struct mirror_spool *spool; /* may be NULL */
    struct entry_queue resident;
    uint64_t resident_bytes;
    unsigned spool_writes, spool_reads; /* segments under way */
    const struct mirror_log_ops *ops;
    void *owner;
    struct entry_queue unsent, sent;
    struct held_queue held_guest, held_bulk;
    LIST_HEAD(, waiting_read) reads;
    struct mirror_log_stats stats;
    uint64_t reserved_bytes; /* granted by admit(), not yet appended */
    uint64_t refused_bytes;  /* what admit() was asked for last when it said no; 0 = nobody waits */
    uint64_t epoch;
    uint64_t sent_seq;     /* last given */
    uint64_t complete_seq; /* last wholly pulled */
    uint64_t applied_seq;
    uint64_t close_seq;
    uint64_t sent_payload_bytes;
    uint64_t bulk_released_ns; /* when an acknowledgement of the copy was last let go */
    uint64_t bulk_next;        /* end of the highest bulk write seen */
    bool let_go, closed, abandoned, ready, last_was_bulk;
    uint64_t run_end;         /* of the last large extent that was sent */
    unsigned run_passed;      /* how often the first of `unsent` was passed since */
    bool seeded;              /* the target has an older copy of the disk */
    struct entry_queue seeds; /* sent as SEED, not applied */
    struct entry_queue fills; /* of these, those of which the target lacks something */
    unsigned seed_count, behind_count, seeds_passed;
    uint64_t behind_bytes;
    int seed_hope;
    struct entry_list index[MIRROR_LOG_INDEX_HEADS];
};

/* Charges @bytes more to the log and its budget, or gives them back. */
void mirror_log_charge(struct mirror_log *log, uint64_t bytes);
void mirror_log_give_back(struct mirror_log *log, uint64_t bytes);
void mirror_log_entry_free(struct entry *e);
bool mirror_log_is_zero(const uint8_t *p, size_t len);
/* As mirror_log_append(), as one entry. @ret_answer NULL: a part, another follows, nobody is answered. */
int mirror_log_append_entry(struct mirror_log *log, struct mirror_log_request *request,
                            uint64_t now_ns, enum mirror_log_answer *ret_answer);

/* mirror_log_spool.c; without a spool they do nothing. */
/* A new entry, which may be spooled. */
void mirror_log_spool_keep(struct mirror_log *log, struct entry *e);
/* It is being sent or dropped: the spool is through with it. */
void mirror_log_spool_forget(struct mirror_log *log, struct entry *e);
bool mirror_log_is_spooled(const struct entry *e);
/* Room that is kept for what has to come back. */
uint64_t mirror_log_spool_reserve(const struct mirror_log *log);
/* Writes to the spool while the budget is too full / reads back what is sent next. */
void mirror_log_spill(struct mirror_log *log);
void mirror_log_unspool(struct mirror_log *log);

/* Appends at most @max_bytes of a message from byte @at on to @out, without committing them; 0: no memory. */
size_t mirror_log_encode(struct buffer *out, size_t max_bytes, const struct mirror_wire_message *m,
                         const uint8_t *body, size_t at);

/* mirror_log_seed.c */
/* May it go, as far as SEEDs that are not applied are concerned? */
bool mirror_log_seed_may_send(const struct mirror_log *log, const struct entry *e);
/* Its first byte is pulled: decides whether it goes as a SEED. */
void mirror_log_seed_begin(struct mirror_log *log, struct entry *e);
/* A FILL is due: it cannot be applied yet. */
bool mirror_log_seed_is_owed(const struct entry *e);
void mirror_log_seed_applied(struct mirror_log *log, struct entry *e);
/* It leaves the log. */
void mirror_log_seed_forget(struct mirror_log *log, struct entry *e);
size_t mirror_log_pull_fill(struct mirror_log *log, struct buffer *out, size_t max_bytes);

/* mirror_log_run.c */
/* Puts what continues the copy's run first, if that is free to choose. */
void mirror_log_run_choose(struct mirror_log *log);
/* The first byte of @e is pulled. */
void mirror_log_run_began(struct mirror_log *log, const struct entry *e);

/* mirror_log_index.c */
void mirror_log_index_insert(struct mirror_log *log, struct entry *e);
/* No-op when it is not indexed. */
void mirror_log_index_remove(struct entry *e);
/* Drops every indexed entry that @newer, not yet in the log, covers. */
void mirror_log_coalesce(struct mirror_log *log, const struct entry *newer);

#endif
