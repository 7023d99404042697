/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/prefixcache.h"

#include <assert.h>
#include <string.h>

#include <xxhash.h>

#include "core/alloc.h"
#include "core/fail.h"

typedef struct {
    bool known;
    uint32_t generation; /* grows whenever the block's entry goes */
    bt_prefix_link before;
    uint32_t bucket, next; /* chain of a bucket; BT_NO_BLOCK ends it */
} entry;

struct bt_prefix_cache {
    bt_block_pool *pool;
    uint32_t block_tokens, n_buckets;
    entry *entries;    /* [n_blocks] */
    uint32_t *tokens;  /* [n_blocks][block_tokens] */
    uint32_t *buckets; /* [n_buckets], a block or BT_NO_BLOCK */
};

static uint32_t bucket_of(const bt_prefix_cache *cache, bt_prefix_link before,
                          const uint32_t *tokens)
{
    uint64_t seed = (uint64_t)before.block << 32 | before.generation;
    uint64_t hash = XXH3_64bits_withSeed(tokens, cache->block_tokens * sizeof(*tokens), seed);
    return (uint32_t)(hash & (cache->n_buckets - 1));
}

static uint32_t find(const bt_prefix_cache *cache, bt_prefix_link before, const uint32_t *tokens)
{
    size_t bytes = cache->block_tokens * sizeof(*tokens);
    uint32_t block = cache->buckets[bucket_of(cache, before, tokens)];
    for (; block != BT_NO_BLOCK; block = cache->entries[block].next) {
        const entry *e = &cache->entries[block];
        if (e->before.block == before.block && e->before.generation == before.generation &&
            memcmp(cache->tokens + (size_t)block * cache->block_tokens, tokens, bytes) == 0)
            return block;
    }
    return BT_NO_BLOCK;
}

static void forget(void *ctx, uint32_t block)
{
    bt_prefix_cache *cache = ctx;
    entry *e = &cache->entries[block];
    assert(e->known);
    uint32_t *at = &cache->buckets[e->bucket];
    while (*at != block)
        at = &cache->entries[*at].next;
    *at = e->next;
    e->known = false;
    e->generation++;
}

baton_status bt_prefix_cache_create(uint32_t n_blocks, uint32_t block_tokens, uint64_t seed,
                                    bt_prefix_cache **cache_p)
{
    size_t n_tokens;
    if (block_tokens == 0 || !bt_mul_size(n_blocks, block_tokens, &n_tokens))
        return bt_fail(BATON_ERR_INVALID_ARG, "prefix cache: %u blocks of %u tokens", n_blocks,
                       block_tokens);
    bt_prefix_cache *cache = bt_calloc(1, sizeof(*cache));
    if (cache == NULL)
        goto no_memory;
    baton_status status = bt_block_pool_create(n_blocks, seed, forget, cache, &cache->pool);
    if (status < 0) {
        bt_prefix_cache_destroy(cache);
        return status;
    }
    for (cache->n_buckets = 1; cache->n_buckets < n_blocks && cache->n_buckets < 1u << 30;)
        cache->n_buckets *= 2;
    cache->block_tokens = block_tokens;
    cache->entries = bt_calloc(n_blocks, sizeof(*cache->entries));
    cache->tokens = bt_calloc(n_tokens, sizeof(*cache->tokens));
    cache->buckets = bt_calloc(cache->n_buckets, sizeof(*cache->buckets));
    if (cache->entries == NULL || cache->tokens == NULL || cache->buckets == NULL)
        goto no_memory;
    memset(cache->buckets, 0xff, cache->n_buckets * sizeof(*cache->buckets));
    *cache_p = cache;
    return BATON_OK;

no_memory:
    bt_prefix_cache_destroy(cache);
    return bt_fail(BATON_ERR_NO_MEMORY, "prefix cache: %u blocks", n_blocks);
}

bt_block_pool *bt_prefix_cache_pool(bt_prefix_cache *cache)
{
    return cache->pool;
}

uint32_t bt_prefix_cache_match(bt_prefix_cache *cache, const uint32_t *tokens, uint32_t n_tokens,
                               uint32_t *blocks, bt_prefix_link *end)
{
    uint32_t n = 0;
    *end = BT_PREFIX_ROOT;
    while (n < n_tokens / cache->block_tokens) {
        uint32_t block = find(cache, *end, tokens + (size_t)n * cache->block_tokens);
        if (block == BT_NO_BLOCK)
            break;
        bt_block_pool_ref(cache->pool, block);
        *end = (bt_prefix_link){block, cache->entries[block].generation};
        blocks[n++] = block;
    }
    return n;
}

void bt_prefix_cache_insert(bt_prefix_cache *cache, bt_prefix_link *link, const uint32_t *tokens,
                            uint32_t block)
{
    uint32_t known = find(cache, *link, tokens);
    if (known == BT_NO_BLOCK) {
        entry *e = &cache->entries[block];
        assert(!e->known);
        e->known = true;
        e->before = *link;
        e->bucket = bucket_of(cache, *link, tokens);
        e->next = cache->buckets[e->bucket];
        cache->buckets[e->bucket] = block;
        memcpy(cache->tokens + (size_t)block * cache->block_tokens, tokens,
               cache->block_tokens * sizeof(*tokens));
        bt_block_pool_keep(cache->pool, block);
        known = block;
    }
    *link = (bt_prefix_link){known, cache->entries[known].generation};
}

void bt_prefix_cache_destroy(bt_prefix_cache *cache)
{
    if (cache == NULL)
        return;
    bt_block_pool_destroy(cache->pool);
    bt_free(cache->entries);
    bt_free(cache->tokens);
    bt_free(cache->buckets);
    bt_free(cache);
}
