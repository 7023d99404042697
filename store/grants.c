/* SPDX-License-Identifier: Apache-2.0 */
/* Grants: a request's pages and holds, secured whole. */
#include "store/storeparts.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <assert.h>
#include <string.h>

typedef enum {
    CHUNK_NONE,        /* nothing claimed: before the grant is secured, and after it ended */
    CHUNK_RESERVED,    /* .page */
    CHUNK_HELD,        /* .chunk */
    CHUNK_QUARANTINED, /* .page */
} chunk_state;

typedef struct {
    chunk_state state;
    uint32_t hash; /* of the key */
    bt_page_ref page;
    bt_chunk *chunk;
} grant_chunk;

/* How far ahead of a walk over keys the index is prefetched: its buckets, then their chunks. */
enum { BUCKETS_AHEAD = 16, CHUNKS_AHEAD = 8 };

struct bt_grant {
    uint32_t n_chunks, n_held, last_tokens;
    bool ended;
    baton_key *keys;     /* [n_chunks + 1]; keys[i] is the parent of chunk i, keys[i + 1] its own */
    grant_chunk *chunks; /* [n_chunks] */
};

static void grant_free(bt_grant *grant)
{
    if (grant == NULL)
        return;
    bt_free(grant->keys);
    bt_free(grant->chunks);
    bt_free(grant);
}

static baton_status grant_new(const baton_key *root, const baton_key *keys, uint32_t n_keys,
                              uint32_t last_tokens, bt_grant **grant_p)
{
    bt_grant *grant = bt_calloc(1, sizeof(*grant));
    if (grant == NULL)
        goto no_memory;
    grant->keys = bt_calloc((size_t)n_keys + 1, sizeof(*grant->keys));
    grant->chunks = bt_calloc(n_keys, sizeof(*grant->chunks));
    if (grant->keys == NULL || grant->chunks == NULL)
        goto no_memory;
    grant->n_chunks = n_keys;
    grant->last_tokens = last_tokens;
    grant->keys[0] = *root;
    memcpy(grant->keys + 1, keys, (size_t)n_keys * sizeof(*keys));
    *grant_p = grant;
    return BATON_OK;

no_memory:
    grant_free(grant);
    return bt_fail(BATON_ERR_NO_MEMORY, "store: grant of %u chunks", n_keys);
}

uint32_t bt_grant_tokens_of(const bt_store *store, const bt_grant *grant, uint32_t chunk)
{
    return chunk + 1 == grant->n_chunks ? grant->last_tokens : store->chunk_tokens;
}

static void hold(bt_store *store, bt_grant *grant, uint32_t i, bt_chunk *chunk)
{
    bt_chunk_hold(store, chunk);
    grant->chunks[i].state = CHUNK_HELD;
    grant->chunks[i].chunk = chunk;
    grant->n_held++;
}

/* Last first: the beginning of a prompt, which more requests share, becomes the youngest. */
static void release_holds(bt_store *store, bt_grant *grant)
{
    for (uint32_t i = grant->n_chunks; i-- > 0;) {
        if (grant->chunks[i].state == CHUNK_HELD) {
            bt_chunk_unhold(store, grant->chunks[i].chunk);
            grant->chunks[i].state = CHUNK_NONE;
        }
    }
}

static void prefetch_ahead(bt_store *store, const bt_grant *grant, uint32_t chunk)
{
    uint32_t left = grant->n_chunks - chunk;
    if (left > BUCKETS_AHEAD)
        bt_index_prefetch_bucket(store, grant->chunks[chunk + BUCKETS_AHEAD].hash);
    if (left > CHUNKS_AHEAD) {
        const grant_chunk *ahead = &grant->chunks[chunk + CHUNKS_AHEAD];
        bt_index_prefetch_chunk(store, ahead->hash);
        if (ahead->state == CHUNK_RESERVED)
            __builtin_prefetch(bt_page_chunk(store, ahead->page), 1);
    }
}

/* Holds what has landed. It goes first, so that making room for the rest cannot evict it. */
static baton_status hold_present(bt_store *store, bt_grant *grant)
{
    for (uint32_t i = 0; i < grant->n_chunks; i++)
        grant->chunks[i].hash = bt_index_hash(store, &grant->keys[i + 1]);
    for (uint32_t i = 0; i < grant->n_chunks; i++) {
        prefetch_ahead(store, grant, i);
        bt_chunk *chunk = bt_index_find_hashed(store, &grant->keys[i + 1], grant->chunks[i].hash);
        if (chunk == NULL)
            continue;
        if (chunk->n_tokens != bt_grant_tokens_of(store, grant, i))
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "store: chunk %u has landed with %u tokens, the request says %u", i,
                           chunk->n_tokens, bt_grant_tokens_of(store, grant, i));
        hold(store, grant, i, chunk);
    }
    return BATON_OK;
}

static uint64_t pages_usable(const bt_store *store)
{
    uint64_t n = 0;
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        const bt_store_region *region = &store->regions[i];
        if (region->used && !region->closed)
            n += region->n_pages - region->n_by_state[BT_PAGE_RETIRED];
    }
    return n;
}

static baton_status make_room(bt_store *store, uint32_t n_wanted)
{
    uint32_t n_free = bt_pages_free(store);
    if (n_wanted > n_free && n_wanted - n_free > store->n_lru)
        return bt_fail(BATON_ERR_NO_PAGES, "store: wanted %u pages, %u free and %u evictable",
                       n_wanted, n_free, store->n_lru);
    for (; n_free < n_wanted; n_free++) { /* a closed region has no chunk in the list */
        bt_chunk *oldest = store->lru.lru_next, *next = oldest->lru_next->lru_next;
        bt_index_prefetch_bucket(store, next->hash);
        __builtin_prefetch(next->lru_next);
        bt_chunk_evict(store, oldest);
    }
    return BATON_OK;
}

baton_status bt_store_grant(bt_store *store, const baton_key *root, const baton_key *keys,
                            uint32_t n_keys, uint32_t last_tokens, bt_grant **grant_p)
{
    if (n_keys == 0 || last_tokens == 0 || last_tokens > store->chunk_tokens)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "store: wanted at least 1 chunk with 1 to %u tokens in the last, found %u "
                       "chunks with %u",
                       store->chunk_tokens, n_keys, last_tokens);
    if (n_keys > pages_usable(store))
        return bt_fail(BATON_ERR_TOO_LARGE, "store: wanted %u pages, the whole pool has %llu",
                       n_keys, (unsigned long long)pages_usable(store));
    bt_grant *grant;
    BATON_TRY(grant_new(root, keys, n_keys, last_tokens, &grant));
    baton_status status = hold_present(store, grant);
    if (status == BATON_OK)
        status = make_room(store, n_keys - grant->n_held);
    if (status != BATON_OK) {
        release_holds(store, grant);
        grant_free(grant);
        return status;
    }
    store->present_total += grant->n_held;
    for (uint32_t i = 0; i < n_keys; i++) {
        if (grant->chunks[i].state == CHUNK_NONE) {
            grant->chunks[i].state = CHUNK_RESERVED;
            grant->chunks[i].page = bt_page_take(store);
        }
    }
    *grant_p = grant;
    return BATON_OK;
}

uint32_t bt_grant_chunks(const bt_grant *grant)
{
    return grant->n_chunks;
}

uint32_t bt_grant_held(const bt_grant *grant)
{
    return grant->n_held;
}

bool bt_grant_page(const bt_grant *grant, uint32_t chunk, bt_page_ref *page)
{
    if (chunk >= grant->n_chunks || (grant->chunks[chunk].state != CHUNK_RESERVED &&
                                     grant->chunks[chunk].state != CHUNK_QUARANTINED))
        return false;
    *page = grant->chunks[chunk].page;
    return true;
}

bool bt_grant_claims(const bt_grant *grant, uint32_t chunk, bt_page_ref *page)
{
    if (bt_grant_page(grant, chunk, page))
        return true;
    if (chunk >= grant->n_chunks || grant->chunks[chunk].state != CHUNK_HELD)
        return false;
    *page = grant->chunks[chunk].chunk->page;
    return true;
}

/* Puts the page's chunk into the index; the caller claims it next. */
static bt_chunk *publish(bt_store *store, const bt_grant *grant, uint32_t i)
{
    bt_page_ref page = grant->chunks[i].page;
    bt_chunk *chunk = bt_page_chunk(store, page);
    *chunk = (bt_chunk){
        .key = grant->keys[i + 1],
        .parent = grant->keys[i],
        .page = page,
        .hash = grant->chunks[i].hash,
        .n_tokens = bt_grant_tokens_of(store, grant, i),
    };
    bt_page_move(store, page, BT_PAGE_ON_PUBLISH);
    bt_index_insert(store, chunk);
    return chunk;
}

baton_status bt_store_commit(bt_store *store, bt_grant *grant, uint32_t chunk, bool *duplicate)
{
    *duplicate = false;
    if (chunk >= grant->n_chunks)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "store: chunk %u of %u", chunk, grant->n_chunks);
    if (grant->chunks[chunk].state == CHUNK_HELD)
        return BATON_OK;
    if (grant->chunks[chunk].state != CHUNK_RESERVED)
        return bt_fail(BATON_ERR_STATE, "store: chunk %u of an ended grant", chunk);
    prefetch_ahead(store, grant, chunk);
    bt_chunk *landed =
        bt_index_find_hashed(store, &grant->keys[chunk + 1], grant->chunks[chunk].hash);
    if (landed != NULL && landed->n_tokens == bt_grant_tokens_of(store, grant, chunk)) {
        *duplicate = true;
        store->duplicate_total++;
        bt_page_move(store, grant->chunks[chunk].page, BT_PAGE_ON_DUPLICATE);
    } else if (landed != NULL) {
        return bt_fail(BATON_ERR_INVALID_ARG, "store: chunk %u has landed with %u tokens", chunk,
                       landed->n_tokens);
    } else {
        landed = publish(store, grant, chunk);
    }
    hold(store, grant, chunk, landed);
    return BATON_OK;
}

/* The event happens to every page of a chunk that is `from`, which then is `to`; returns how many.
 */
static uint32_t move_pages(bt_store *store, bt_grant *grant, chunk_state from, chunk_state to,
                           bt_page_change event)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < grant->n_chunks; i++) {
        if (grant->chunks[i].state != from)
            continue;
        bt_page_move(store, grant->chunks[i].page, event);
        grant->chunks[i].state = to;
        n++;
    }
    return n;
}

bool bt_grant_end(bt_store *store, bt_grant *grant, bool drained)
{
    assert(!grant->ended);
    grant->ended = true;
    release_holds(store, grant);
    uint32_t n_left = 0;
    if (drained)
        move_pages(store, grant, CHUNK_RESERVED, CHUNK_NONE, BT_PAGE_ON_GIVE_BACK);
    else
        n_left = move_pages(store, grant, CHUNK_RESERVED, CHUNK_QUARANTINED, BT_PAGE_ON_ABORT);
    if (n_left == 0)
        grant_free(grant);
    return n_left == 0;
}

void bt_grant_prove(bt_store *store, bt_grant *grant)
{
    assert(grant->ended);
    move_pages(store, grant, CHUNK_QUARANTINED, CHUNK_NONE, BT_PAGE_ON_PROOF);
    grant_free(grant);
}

void bt_grant_retire(bt_store *store, bt_grant *grant)
{
    assert(grant->ended);
    move_pages(store, grant, CHUNK_QUARANTINED, CHUNK_NONE, BT_PAGE_ON_RETIRE);
    grant_free(grant);
}
