/* SPDX-License-Identifier: Apache-2.0 */
/* Regions and the states of their pages. */
#include "store/storeparts.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

#include <assert.h>
#include <sodium.h>

static uint32_t bucket_count(uint32_t max_pages)
{
    uint32_t n = 64;
    while (n < max_pages && n < (1u << 24))
        n *= 2;
    return n;
}

baton_status bt_store_create(uint32_t chunk_tokens, uint32_t max_pages, bt_store **store_p)
{
    if (chunk_tokens == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "store: chunk_tokens is 0");
    if (sodium_init() < 0)
        return bt_fail(BATON_ERR_UNSUPPORTED, "store: libsodium does not start");
    bt_store *store = bt_calloc(1, sizeof(*store));
    if (store == NULL)
        goto no_memory;
    store->chunk_tokens = chunk_tokens;
    store->n_buckets = bucket_count(max_pages);
    store->lru.lru_prev = store->lru.lru_next = &store->lru;
    randombytes_buf(&store->hash_seed, sizeof(store->hash_seed));
    store->by_key = bt_calloc(store->n_buckets, sizeof(bt_chunk *));
    store->by_parent = bt_calloc(store->n_buckets, sizeof(bt_chunk *));
    store->tail_lengths = bt_calloc((size_t)chunk_tokens / 64 + 1, sizeof(uint64_t));
    if (store->by_key == NULL || store->by_parent == NULL || store->tail_lengths == NULL)
        goto no_memory;
    *store_p = store;
    return BATON_OK;

no_memory:
    bt_store_destroy(store);
    return bt_fail(BATON_ERR_NO_MEMORY, "store: index for %u pages", max_pages);
}

static void region_free(bt_store_region *region)
{
    bt_free(region->states);
    bt_free(region->chunks);
    *region = (bt_store_region){0};
}

void bt_store_destroy(bt_store *store)
{
    if (store == NULL)
        return;
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++)
        region_free(&store->regions[i]);
    bt_free(store->by_key);
    bt_free(store->by_parent);
    bt_free(store->tail_lengths);
    bt_free(store);
}

baton_status bt_store_region_add(bt_store *store, uint32_t region, uint32_t n_pages)
{
    if (region >= BT_STORE_REGIONS_MAX || store->regions[region].used || n_pages == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "store: wanted an unused region below %d with pages, found region %u with "
                       "%u pages",
                       BT_STORE_REGIONS_MAX, region, n_pages);
    bt_store_region *new = &store->regions[region];
    new->states = bt_calloc(n_pages, sizeof(*new->states));
    new->chunks = bt_calloc(n_pages, sizeof(*new->chunks));
    if (new->states == NULL || new->chunks == NULL) {
        region_free(new);
        return bt_fail(BATON_ERR_NO_MEMORY, "store: bookkeeping for %u pages", n_pages);
    }
    for (uint32_t i = 0; i < n_pages; i++)
        new->chunks[i].page = (bt_page_ref){.region = region, .page = i};
    new->used = true;
    new->n_pages = n_pages;
    new->n_by_state[BT_PAGE_FREE] = n_pages;
    return BATON_OK;
}

void bt_store_region_close(bt_store *store, uint32_t region)
{
    bt_store_region *closing = &store->regions[region];
    assert(region < BT_STORE_REGIONS_MAX && closing->used);
    closing->closed = true;
    for (uint32_t i = 0; i < closing->n_pages; i++) {
        bt_chunk *chunk = &closing->chunks[i];
        if (closing->states[i] == BT_PAGE_LANDED && chunk->n_holds == 0 && chunk->n_pins == 0)
            bt_chunk_evict(store, chunk);
    }
}

bool bt_store_region_is_closed(const bt_store *store, uint32_t region)
{
    return store->regions[region].closed;
}

bool bt_store_region_is_idle(const bt_store *store, uint32_t region)
{
    const bt_store_region *r = &store->regions[region];
    return r->used && r->n_by_state[BT_PAGE_FREE] + r->n_by_state[BT_PAGE_RETIRED] == r->n_pages;
}

baton_status bt_store_region_remove(bt_store *store, uint32_t region)
{
    bt_store_region *gone = &store->regions[region];
    if (!gone->closed || !bt_store_region_is_idle(store, region))
        return bt_fail(BATON_ERR_STATE, "store: region %u is still in use", region);
    region_free(gone);
    return BATON_OK;
}

uint32_t bt_store_region_retired(const bt_store *store, uint32_t region)
{
    return store->regions[region].n_by_state[BT_PAGE_RETIRED];
}

static void enter_state(bt_store_region *region, uint32_t page, bt_page_state state)
{
    region->n_by_state[region->states[page]]--;
    region->n_by_state[state]++;
    region->states[page] = (uint8_t)state;
    if (state == BT_PAGE_FREE && page < region->first_maybe_free)
        region->first_maybe_free = page;
}

bool bt_page_move(bt_store *store, bt_page_ref page, bt_page_change event)
{
    bt_store_region *region = &store->regions[page.region];
    assert(page.region < BT_STORE_REGIONS_MAX && page.page < region->n_pages);
    bt_page_state state = region->states[page.page];
    const bt_move *move = bt_state_next(&bt_page_states, state, event);
    bool holds = move != NULL && (move->guard != BT_PAGE_IF_UNCLAIMED ||
                                  !bt_chunk_is_claimed(&region->chunks[page.page]));
    if (holds) {
        enter_state(region, page.page, move->to);
        return true;
    }
    store->moves_refused_total++;
    bt_error("store: refused: %s of a page that is %s region=%u page=%u",
             bt_state_event_name(&bt_page_states, event), bt_state_name(&bt_page_states, state),
             page.region, page.page);
    return false;
}

uint32_t bt_pages_free(const bt_store *store)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        if (store->regions[i].used && !store->regions[i].closed)
            n += store->regions[i].n_by_state[BT_PAGE_FREE];
    }
    return n;
}

bt_page_ref bt_page_take(bt_store *store)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        bt_store_region *region = &store->regions[i];
        if (!region->used || region->closed || region->n_by_state[BT_PAGE_FREE] == 0)
            continue;
        uint32_t page = region->first_maybe_free;
        while (region->states[page] != BT_PAGE_FREE)
            page++;
        region->first_maybe_free = page + 1;
        bt_page_ref taken = {.region = i, .page = page};
        bt_page_move(store, taken, BT_PAGE_ON_TAKE);
        return taken;
    }
    assert(false && "a free page was promised");
    return (bt_page_ref){0};
}

bt_chunk *bt_page_chunk(bt_store *store, bt_page_ref page)
{
    return &store->regions[page.region].chunks[page.page];
}

void bt_store_get_stats(const bt_store *store, bt_store_stats *stats)
{
    *stats = (bt_store_stats){
        .evicted_total = store->evicted_total,
        .duplicate_total = store->duplicate_total,
        .landed_total = store->landed_total,
        .present_total = store->present_total,
        .moves_refused_total = store->moves_refused_total,
    };
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        if (!store->regions[i].used)
            continue;
        stats->pages_total += store->regions[i].n_pages;
        for (int s = 0; s < BT_N_PAGE_STATES; s++)
            stats->pages[s] += store->regions[i].n_by_state[s];
    }
}

static baton_status verify_region(const bt_store *store, uint32_t region, uint32_t *n_unclaimed)
{
    const bt_store_region *r = &store->regions[region];
    uint32_t n_by_state[BT_N_PAGE_STATES] = {0};
    for (uint32_t i = 0; i < r->n_pages; i++) {
        n_by_state[r->states[i]]++;
        if (r->states[i] != BT_PAGE_LANDED)
            continue;
        const bt_chunk *chunk = &r->chunks[i];
        *n_unclaimed += chunk->n_holds == 0 && chunk->n_pins == 0;
        if (bt_index_find((bt_store *)store, &chunk->key) != chunk)
            return bt_fail(BATON_ERR_CORRUPT,
                           "store: landed page %u of region %u is not in the "
                           "index",
                           i, region);
    }
    for (int s = 0; s < BT_N_PAGE_STATES; s++) {
        if (n_by_state[s] != r->n_by_state[s])
            return bt_fail(BATON_ERR_CORRUPT, "store: region %u state %d: counted %u, noted %u",
                           region, s, n_by_state[s], r->n_by_state[s]);
    }
    return BATON_OK;
}

baton_status bt_store_verify(const bt_store *store)
{
    uint32_t n_unclaimed = 0, n_listed = 0;
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        if (store->regions[i].used)
            BATON_TRY(verify_region(store, i, &n_unclaimed));
    }
    for (const bt_chunk *c = store->lru.lru_next; c != &store->lru; c = c->lru_next)
        n_listed++;
    if (n_listed != store->n_lru || n_listed != n_unclaimed)
        return bt_fail(BATON_ERR_CORRUPT,
                       "store: %u chunks in the LRU list, %u noted, %u landed "
                       "without claim",
                       n_listed, store->n_lru, n_unclaimed);
    return BATON_OK;
}
