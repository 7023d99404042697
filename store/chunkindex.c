/* SPDX-License-Identifier: Apache-2.0 */
/* The index of landed chunks, by key and (short ones) by parent, and their LRU list. */
#include "store/storeparts.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

bool bt_key_equal(const baton_key *a, const baton_key *b)
{
    return memcmp(a->bytes, b->bytes, BATON_KEY_BYTES) == 0;
}

uint32_t bt_index_hash(const bt_store *store, const baton_key *key)
{
    return (uint32_t)XXH3_64bits_withSeed(key->bytes, BATON_KEY_BYTES, store->hash_seed);
}

static bt_chunk **bucket_of(const bt_store *store, uint32_t hash)
{
    return &store->by_key[hash & (store->n_buckets - 1)];
}

bt_chunk *bt_index_find_hashed(bt_store *store, const baton_key *key, uint32_t hash)
{
    bt_chunk *chunk = *bucket_of(store, hash);
    while (chunk != NULL && (chunk->hash != hash || !bt_key_equal(&chunk->key, key)))
        chunk = chunk->key_next;
    return chunk;
}

bt_chunk *bt_index_find(bt_store *store, const baton_key *key)
{
    return bt_index_find_hashed(store, key, bt_index_hash(store, key));
}

void bt_index_prefetch_bucket(const bt_store *store, uint32_t hash)
{
    __builtin_prefetch(bucket_of(store, hash));
}

/* Hash and link lie in the second line of a chunk, its key in the first. */
void bt_index_prefetch_chunk(const bt_store *store, uint32_t hash)
{
    const bt_chunk *chunk = *bucket_of(store, hash);
    if (chunk != NULL)
        __builtin_prefetch(&chunk->hash);
}

bt_chunk **bt_index_tails(bt_store *store, const baton_key *parent)
{
    return &store->by_parent[bt_index_hash(store, parent) & (store->n_buckets - 1)];
}

static void lru_append(bt_store *store, bt_chunk *chunk)
{
    chunk->lru_prev = store->lru.lru_prev;
    chunk->lru_next = &store->lru;
    store->lru.lru_prev->lru_next = chunk;
    store->lru.lru_prev = chunk;
    store->n_lru++;
}

static void lru_remove(bt_store *store, bt_chunk *chunk)
{
    chunk->lru_prev->lru_next = chunk->lru_next;
    chunk->lru_next->lru_prev = chunk->lru_prev;
    chunk->lru_prev = chunk->lru_next = NULL;
    store->n_lru--;
}

void bt_index_insert(bt_store *store, bt_chunk *chunk)
{
    bt_chunk **bucket = bucket_of(store, chunk->hash);
    chunk->key_next = *bucket;
    *bucket = chunk;
    if (chunk->n_tokens < store->chunk_tokens) {
        bt_chunk **tails = bt_index_tails(store, &chunk->parent);
        chunk->tail_next = *tails;
        *tails = chunk;
    }
    lru_append(store, chunk);
    store->landed_total++;
}

void bt_index_remove(bt_store *store, bt_chunk *chunk)
{
    bt_chunk **link = bucket_of(store, chunk->hash);
    while (*link != chunk)
        link = &(*link)->key_next;
    *link = chunk->key_next;
    if (chunk->n_tokens < store->chunk_tokens) {
        link = bt_index_tails(store, &chunk->parent);
        while (*link != chunk)
            link = &(*link)->tail_next;
        *link = chunk->tail_next;
    }
    lru_remove(store, chunk);
}

bool bt_chunk_is_claimed(const bt_chunk *chunk)
{
    return chunk->n_holds > 0 || chunk->n_pins > 0;
}

void bt_chunk_evict(bt_store *store, bt_chunk *chunk)
{
    assert(!bt_chunk_is_claimed(chunk));
    bt_index_remove(store, chunk);
    bt_page_move(store, chunk->page, BT_PAGE_ON_EVICT);
    store->evicted_total++;
}

/* Called when the last hold or pin of a chunk goes. */
static void unclaimed(bt_store *store, bt_chunk *chunk)
{
    lru_append(store, chunk);
    if (store->regions[chunk->page.region].closed)
        bt_chunk_evict(store, chunk);
}

void bt_chunk_hold(bt_store *store, bt_chunk *chunk)
{
    if (!bt_chunk_is_claimed(chunk))
        lru_remove(store, chunk);
    chunk->n_holds++;
}

void bt_chunk_unhold(bt_store *store, bt_chunk *chunk)
{
    assert(chunk->n_holds > 0);
    chunk->n_holds--;
    if (!bt_chunk_is_claimed(chunk))
        unclaimed(store, chunk);
}

void bt_chunk_pin(bt_store *store, bt_chunk *chunk)
{
    if (!bt_chunk_is_claimed(chunk))
        lru_remove(store, chunk);
    chunk->n_pins++;
}

void bt_chunk_unpin(bt_store *store, bt_chunk *chunk)
{
    assert(chunk->n_pins > 0);
    chunk->n_pins--;
    if (!bt_chunk_is_claimed(chunk))
        unclaimed(store, chunk);
}

void bt_chunk_touch(bt_store *store, bt_chunk *chunk)
{
    if (bt_chunk_is_claimed(chunk))
        return;
    lru_remove(store, chunk);
    lru_append(store, chunk);
}

const baton_key *bt_chunk_key(const bt_chunk *chunk)
{
    return &chunk->key;
}

uint32_t bt_chunk_tokens(const bt_chunk *chunk)
{
    return chunk->n_tokens;
}

bt_page_ref bt_chunk_page(const bt_chunk *chunk)
{
    return chunk->page;
}
