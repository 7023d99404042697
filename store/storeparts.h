/* SPDX-License-Identifier: Apache-2.0 */
/* What the files of the store share: its structs, and the three parts that the public calls of
 * store.h are put together from: pages of regions, the index, the LRU list.
 * Thread rule: as store.h. */
#ifndef BT_STORE_STOREPARTS_H
#define BT_STORE_STOREPARTS_H
#include "store/store.h"

/* One per page, so that publishing a chunk never allocates. */
struct bt_chunk {
    baton_key key, parent;
    bt_page_ref page;
    uint32_t n_tokens, n_holds, n_pins;
    uint32_t hash;       /* of key: bt_index_hash */
    bt_chunk *key_next;  /* same bucket of by_key */
    bt_chunk *tail_next; /* same bucket of by_parent; only chunks shorter than chunk_tokens */
    bt_chunk *lru_prev, *lru_next; /* in the list exactly while landed without hold and pin */
};

typedef struct {
    bool used, closed;
    uint32_t n_pages;
    uint32_t first_maybe_free; /* no free page lies before it */
    uint32_t n_by_state[BT_N_PAGE_STATES];
    uint8_t *states;  /* [n_pages] bt_page_state */
    bt_chunk *chunks; /* [n_pages]; entry i describes page i while it is LANDED */
} bt_store_region;

struct bt_store {
    uint32_t chunk_tokens;
    uint64_t hash_seed;   /* random: keys come from peers, who must not choose the bucket */
    uint32_t n_buckets;   /* power of two */
    bt_chunk **by_key;    /* [n_buckets] */
    bt_chunk **by_parent; /* [n_buckets] */
    uint64_t
        *tail_lengths; /* [chunk_tokens / 64 + 1] scratch of a lookup: bit n, length n is there */
    bt_chunk lru;      /* list head: lru_next is the least recently used */
    uint32_t n_lru;
    bt_store_region regions[BT_STORE_REGIONS_MAX];
    uint64_t evicted_total, duplicate_total, landed_total, present_total, moves_refused_total;
};

/* Pages. */
/* The only way that a page changes its state. False: the event is not legal there; that is counted,
 * and changes nothing. */
bool bt_page_move(bt_store *store, bt_page_ref page, bt_page_change event);
uint32_t bt_pages_free(const bt_store *store); /* of regions that are not closed */
/* Takes the lowest free page, so that neighbours come together; there must be one. */
bt_page_ref bt_page_take(bt_store *store);
bt_chunk *bt_page_chunk(bt_store *store, bt_page_ref page);

/* Index. */
uint32_t bt_index_hash(const bt_store *store, const baton_key *key);
bt_chunk *bt_index_find(bt_store *store, const baton_key *key);
/* As find, with the key's hash at hand. */
bt_chunk *bt_index_find_hashed(bt_store *store, const baton_key *key, uint32_t hash);
/* Brings what find will look at nearer, in two steps that are some keys apart: a large index is not
 * in the cache, and a long list of keys would wait for it once per key. */
void bt_index_prefetch_bucket(const bt_store *store, uint32_t hash);
void bt_index_prefetch_chunk(const bt_store *store, uint32_t hash);
void bt_index_insert(bt_store *store, bt_chunk *chunk);
void bt_index_remove(bt_store *store, bt_chunk *chunk);
bt_chunk **bt_index_tails(bt_store *store, const baton_key *parent); /* head of the bucket's list */
bool bt_key_equal(const baton_key *a, const baton_key *b);

/* A hold or a pin is on it. */
bool bt_chunk_is_claimed(const bt_chunk *chunk);
/* Claims keep a chunk out of the LRU list; without any it goes to the list's young end, or, in a
 * closed region, is evicted at once. */
void bt_chunk_hold(bt_store *store, bt_chunk *chunk);
void bt_chunk_unhold(bt_store *store, bt_chunk *chunk);
void bt_chunk_evict(bt_store *store, bt_chunk *chunk);
void bt_chunk_touch(bt_store *store, bt_chunk *chunk);

#endif
