/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/blockpool.h"

#include <assert.h>

#include "core/alloc.h"
#include "core/fail.h"

typedef struct {
    uint32_t refs;
    bool kept;
    uint32_t older, newer; /* idle blocks, as a list */
} block;

struct bt_block_pool {
    uint32_t n_blocks, n_free, n_idle;
    block *blocks;           /* [n_blocks] */
    uint32_t *free;          /* [n_blocks]; the first n_free entries are the free indices */
    uint32_t oldest, newest; /* of the idle ones */
    uint64_t random;
    bt_block_evict_fn on_evict;
    void *ctx;
};

static uint64_t next_random(bt_block_pool *pool)
{
    uint64_t z = pool->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

baton_status bt_block_pool_create(uint32_t n_blocks, uint64_t seed, bt_block_evict_fn on_evict,
                                  void *ctx, bt_block_pool **pool_p)
{
    if (n_blocks == 0 || n_blocks == BT_NO_BLOCK)
        return bt_fail(BATON_ERR_INVALID_ARG, "blocks: wanted 1 or more, found %u", n_blocks);
    bt_block_pool *pool = bt_calloc(1, sizeof(*pool));
    if (pool == NULL)
        goto no_memory;
    pool->blocks = bt_calloc(n_blocks, sizeof(*pool->blocks));
    pool->free = bt_calloc(n_blocks, sizeof(*pool->free));
    if (pool->blocks == NULL || pool->free == NULL)
        goto no_memory;
    pool->n_blocks = pool->n_free = n_blocks;
    pool->oldest = pool->newest = BT_NO_BLOCK;
    pool->random = seed;
    pool->on_evict = on_evict;
    pool->ctx = ctx;
    for (uint32_t i = 0; i < n_blocks; i++)
        pool->free[i] = i;
    *pool_p = pool;
    return BATON_OK;

no_memory:
    bt_block_pool_destroy(pool);
    return bt_fail(BATON_ERR_NO_MEMORY, "blocks: bookkeeping for %u", n_blocks);
}

static void unlink_idle(bt_block_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    *(b->older != BT_NO_BLOCK ? &pool->blocks[b->older].newer : &pool->oldest) = b->newer;
    *(b->newer != BT_NO_BLOCK ? &pool->blocks[b->newer].older : &pool->newest) = b->older;
    pool->n_idle--;
}

static void link_idle(bt_block_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    b->older = pool->newest;
    b->newer = BT_NO_BLOCK;
    *(pool->newest != BT_NO_BLOCK ? &pool->blocks[pool->newest].newer : &pool->oldest) = index;
    pool->newest = index;
    pool->n_idle++;
}

static uint32_t evict_oldest(bt_block_pool *pool)
{
    uint32_t index = pool->oldest;
    unlink_idle(pool, index);
    pool->blocks[index].kept = false;
    pool->on_evict(pool->ctx, index);
    return index;
}

baton_status bt_block_pool_take(bt_block_pool *pool, uint32_t n, uint32_t *blocks)
{
    if (n > pool->n_free + pool->n_idle)
        return bt_fail(BATON_ERR_NO_PAGES, "blocks: wanted %u, %u available", n,
                       pool->n_free + pool->n_idle);
    for (uint32_t i = 0; i < n; i++) {
        if (pool->n_free != 0) {
            uint32_t at = (uint32_t)(next_random(pool) % pool->n_free);
            blocks[i] = pool->free[at];
            pool->free[at] = pool->free[--pool->n_free];
        } else {
            blocks[i] = evict_oldest(pool);
        }
        pool->blocks[blocks[i]].refs = 1;
    }
    return BATON_OK;
}

void bt_block_pool_ref(bt_block_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    assert(index < pool->n_blocks && (b->refs != 0 || b->kept));
    if (b->refs++ == 0)
        unlink_idle(pool, index);
}

void bt_block_pool_put(bt_block_pool *pool, uint32_t index)
{
    block *b = &pool->blocks[index];
    assert(index < pool->n_blocks && b->refs != 0);
    if (--b->refs != 0)
        return;
    if (b->kept)
        link_idle(pool, index);
    else
        pool->free[pool->n_free++] = index;
}

void bt_block_pool_keep(bt_block_pool *pool, uint32_t index)
{
    assert(index < pool->n_blocks && pool->blocks[index].refs != 0);
    pool->blocks[index].kept = true;
}

uint32_t bt_block_pool_available(const bt_block_pool *pool)
{
    return pool->n_free + pool->n_idle;
}

uint32_t bt_block_pool_idle(const bt_block_pool *pool)
{
    return pool->n_idle;
}

uint32_t bt_block_pool_total(const bt_block_pool *pool)
{
    return pool->n_blocks;
}

void bt_block_pool_destroy(bt_block_pool *pool)
{
    if (pool == NULL)
        return;
    bt_free(pool->blocks);
    bt_free(pool->free);
    bt_free(pool);
}
