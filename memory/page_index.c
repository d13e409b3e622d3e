/* SPDX-License-Identifier: Apache-2.0 */
/* Pages by key and by content: see page_index.h. */
#include "memory/page_index.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A content's chain is followed no further: a guest could make many pages of one hash. */
enum { WALK_MAX = 8 };

struct link {
    uint32_t next, previous; /* slots; PAGE_INDEX_NONE at the ends */
};

struct record {
    uint64_t key, hash;
    struct link by_key, by_hash;
    bool used, hot;
};

struct page_index {
    struct record *records; /* owned: one a slot */
    uint32_t *by_key;       /* owned: heads of chains */
    uint32_t *by_hash;      /* owned */
    uint32_t slots, hand;
    unsigned shift; /* of a mixed value, to a chain's number */
};

int page_index_new(uint32_t slots, struct page_index **ret)
{
    struct page_index *ix = calloc(1, sizeof(*ix));
    unsigned bits = 1;

    if (!ix)
        return -ENOMEM;
    while (bits < 31 && (UINT32_C(1) << bits) < slots)
        bits++;
    ix->slots = slots;
    ix->shift = 64 - bits;
    ix->records = calloc((size_t)slots + 1, sizeof(*ix->records));
    ix->by_key = malloc(sizeof(uint32_t) << bits);
    ix->by_hash = malloc(sizeof(uint32_t) << bits);
    if (!ix->records || !ix->by_key || !ix->by_hash) {
        page_index_free(ix);
        return -ENOMEM;
    }
    memset(ix->by_key, 0xff, sizeof(uint32_t) << bits);
    memset(ix->by_hash, 0xff, sizeof(uint32_t) << bits);
    *ret = ix;
    return 0;
}

void page_index_free(struct page_index *ix)
{
    if (!ix)
        return;
    free(ix->records);
    free(ix->by_key);
    free(ix->by_hash);
    free(ix);
}

static uint32_t *key_head(const struct page_index *ix, uint64_t key)
{
    return &ix->by_key[key * UINT64_C(0xd6e8feb86659fd93) >> ix->shift];
}

static uint32_t *hash_head(const struct page_index *ix, uint64_t hash)
{
    return &ix->by_hash[hash >> ix->shift];
}

uint32_t page_index_find_key(const struct page_index *ix, uint64_t key)
{
    uint32_t slot = *key_head(ix, key);

    for (unsigned n = 0; slot != PAGE_INDEX_NONE && n < WALK_MAX; n++) {
        if (ix->records[slot].key == key)
            return slot;
        slot = ix->records[slot].by_key.next;
    }
    return PAGE_INDEX_NONE;
}

uint32_t page_index_find_hash(const struct page_index *ix, uint64_t hash, uint32_t after)
{
    uint32_t slot =
        after == PAGE_INDEX_NONE ? *hash_head(ix, hash) : ix->records[after].by_hash.next;

    for (unsigned n = 0; slot != PAGE_INDEX_NONE && n < WALK_MAX; n++) {
        if (ix->records[slot].hash == hash)
            return slot;
        slot = ix->records[slot].by_hash.next;
    }
    return PAGE_INDEX_NONE;
}

/* The two chains differ only in where their links lie in a record. */
#define UNLINK(ix, slot, head, by)                                                                 \
    do {                                                                                           \
        const struct link *l_ = &(ix)->records[slot].by;                                           \
        if (l_->previous == PAGE_INDEX_NONE)                                                       \
            *(head) = l_->next;                                                                    \
        else                                                                                       \
            (ix)->records[l_->previous].by.next = l_->next;                                        \
        if (l_->next != PAGE_INDEX_NONE)                                                           \
            (ix)->records[l_->next].by.previous = l_->previous;                                    \
    } while (0)

#define LINK(ix, slot, head, by)                                                                   \
    do {                                                                                           \
        (ix)->records[slot].by = (struct link){*(head), PAGE_INDEX_NONE};                          \
        if (*(head) != PAGE_INDEX_NONE)                                                            \
            (ix)->records[*(head)].by.previous = (slot);                                           \
        *(head) = (slot);                                                                          \
    } while (0)

static void forget(struct page_index *ix, uint32_t slot)
{
    struct record *r = &ix->records[slot];

    if (!r->used)
        return;
    UNLINK(ix, slot, key_head(ix, r->key), by_key);
    UNLINK(ix, slot, hash_head(ix, r->hash), by_hash);
    r->used = false;
}

uint32_t page_index_take(struct page_index *ix)
{
    uint32_t slot;

    if (ix->slots == 0)
        return PAGE_INDEX_NONE;
    while (ix->records[ix->hand].hot) { /* each spared page was put here hot: O(1) in the mean */
        ix->records[ix->hand].hot = false;
        ix->hand = (ix->hand + 1) % ix->slots;
    }
    slot = ix->hand;
    ix->hand = (ix->hand + 1) % ix->slots;
    forget(ix, slot);
    return slot;
}

void page_index_put(struct page_index *ix, uint32_t slot, uint64_t key, uint64_t hash, bool hot)
{
    struct record *r = &ix->records[slot];

    if (r->used && r->key == key) { /* the usual rewrite */
        UNLINK(ix, slot, hash_head(ix, r->hash), by_hash);
    } else {
        forget(ix, slot);
        r->key = key;
        LINK(ix, slot, key_head(ix, key), by_key);
    }
    r->hash = hash;
    r->hot = hot;
    r->used = true;
    LINK(ix, slot, hash_head(ix, hash), by_hash);
}

void page_index_forget(struct page_index *ix, uint64_t first, uint64_t count)
{
    uint32_t slot;

    if (count > ix->slots) { /* fewer slots than keys to look for */
        for (slot = 0; slot < ix->slots; slot++) {
            if (ix->records[slot].used && ix->records[slot].key - first < count)
                forget(ix, slot);
        }
        return;
    }
    for (uint64_t key = first; key - first < count; key++) {
        slot = page_index_find_key(ix, key);
        if (slot != PAGE_INDEX_NONE)
            forget(ix, slot);
    }
}

uint64_t page_index_key(const struct page_index *ix, uint32_t slot)
{
    return ix->records[slot].key;
}
