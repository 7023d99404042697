/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "engine/prefixcache.h"

enum { TOKENS = 4, BLOCKS = 16 };

static bt_prefix_cache *make(uint32_t n_blocks)
{
    bt_prefix_cache *cache = NULL;
    assert_ok(bt_prefix_cache_create(n_blocks, TOKENS, 1, &cache));
    return cache;
}

static void put_all(bt_block_pool *pool, const uint32_t *blocks, uint32_t n)
{
    while (n-- > 0)
        bt_block_pool_put(pool, blocks[n]);
}

/* Takes blocks for tokens[n * TOKENS] and makes them known. */
static void fill(bt_prefix_cache *cache, const uint32_t *tokens, uint32_t n, uint32_t *blocks)
{
    assert_ok(bt_block_pool_take(bt_prefix_cache_pool(cache), n, blocks));
    bt_prefix_link link = BT_PREFIX_ROOT;
    for (uint32_t i = 0; i < n; i++)
        bt_prefix_cache_insert(cache, &link, tokens + (size_t)i * TOKENS, blocks[i]);
}

static void blocks_come_scattered_and_all_or_none(void **state)
{
    (void)state;
    bt_block_pool *pool;
    assert_ok(bt_block_pool_create(BLOCKS, 3, NULL, NULL, &pool));
    uint32_t blocks[BLOCKS], n_neighbours = 0;
    assert_fails(bt_block_pool_take(pool, BLOCKS + 1, blocks), BATON_ERR_NO_PAGES,
                 "wanted 17, 16 available");
    assert_int_equal(bt_block_pool_available(pool), BLOCKS);
    assert_ok(bt_block_pool_take(pool, BLOCKS, blocks));
    bool seen[BLOCKS] = {false};
    for (uint32_t i = 0; i < BLOCKS; i++) {
        assert_false(seen[blocks[i]]);
        seen[blocks[i]] = true;
        n_neighbours += i > 0 && blocks[i] == blocks[i - 1] + 1;
    }
    assert_true(n_neighbours < BLOCKS / 2);
    put_all(pool, blocks, BLOCKS);
    assert_int_equal(bt_block_pool_available(pool), BLOCKS);
    bt_block_pool_destroy(pool);
}

static void the_longest_known_chain_is_found(void **state)
{
    (void)state;
    bt_prefix_cache *cache = make(BLOCKS);
    bt_block_pool *pool = bt_prefix_cache_pool(cache);
    uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8, 1, 2, 3, 4, 9};
    uint32_t blocks[3], found[3];
    bt_prefix_link end;
    fill(cache, tokens, 3, blocks);
    put_all(pool, blocks, 3);
    assert_int_equal(bt_block_pool_idle(pool), 3);
    assert_int_equal(bt_prefix_cache_match(cache, tokens, 13, found, &end), 3);
    assert_memory_equal(found, blocks, sizeof(blocks));
    assert_int_equal(end.block, blocks[2]);
    put_all(pool, found, 3);
    /* only full blocks; another token ends the match; equal tokens elsewhere in the chain do not */
    assert_int_equal(bt_prefix_cache_match(cache, tokens, 11, found, &end), 2);
    put_all(pool, found, 2);
    tokens[5] = 77;
    assert_int_equal(bt_prefix_cache_match(cache, tokens, 13, found, &end), 1);
    put_all(pool, found, 1);
    assert_int_equal(bt_prefix_cache_match(cache, tokens + 4, 8, found, &end), 0);
    bt_prefix_cache_destroy(cache);
}

static void used_blocks_are_never_evicted_and_the_oldest_goes_first(void **state)
{
    (void)state;
    bt_prefix_cache *cache = make(4);
    bt_block_pool *pool = bt_prefix_cache_pool(cache);
    uint32_t one[] = {1, 1, 1, 1, 2, 2, 2, 2}, two[] = {3, 3, 3, 3, 4, 4, 4, 4};
    uint32_t a[2], b[2], found[2], taken[2];
    bt_prefix_link end;
    fill(cache, one, 2, a);
    fill(cache, two, 2, b);
    put_all(pool, a, 2); /* last block first: the end of a chain is older than its beginning */
    assert_fails(bt_block_pool_take(pool, 3, taken), BATON_ERR_NO_PAGES, NULL);
    assert_ok(bt_block_pool_take(pool, 1, taken));
    assert_int_equal(taken[0], a[1]);
    assert_int_equal(bt_prefix_cache_match(cache, one, 8, found, &end), 1);
    assert_int_equal(bt_prefix_cache_match(cache, two, 8, found, &end), 2);
    bt_prefix_cache_destroy(cache);
}

static void an_entry_behind_an_evicted_one_is_not_found_by_another(void **state)
{
    (void)state;
    bt_prefix_cache *cache = make(2);
    bt_block_pool *pool = bt_prefix_cache_pool(cache);
    uint32_t tokens[] = {1, 1, 1, 1, 2, 2, 2, 2}, other[] = {9, 9, 9, 9, 2, 2, 2, 2};
    uint32_t blocks[2], again[1], found[2];
    bt_prefix_link end;
    fill(cache, tokens, 2, blocks);
    bt_block_pool_put(pool, blocks[0]); /* the beginning goes first */
    assert_ok(bt_block_pool_take(pool, 1, again));
    assert_int_equal(again[0], blocks[0]);
    bt_prefix_link link = BT_PREFIX_ROOT;
    bt_prefix_cache_insert(cache, &link, other, again[0]);
    /* the same block number before it, but other contents */
    assert_int_equal(bt_prefix_cache_match(cache, other, 8, found, &end), 1);
    bt_prefix_cache_destroy(cache);
}

static void equal_contents_keep_the_first_block(void **state)
{
    (void)state;
    bt_prefix_cache *cache = make(BLOCKS);
    bt_block_pool *pool = bt_prefix_cache_pool(cache);
    uint32_t tokens[] = {1, 2, 3, 4, 5, 6, 7, 8}, a[2], b[2], found[2];
    bt_prefix_link end;
    fill(cache, tokens, 2, a);
    fill(cache, tokens, 2, b);
    put_all(pool, b, 2);
    assert_int_equal(bt_block_pool_idle(pool), 0);
    assert_int_equal(bt_prefix_cache_match(cache, tokens, 8, found, &end), 2);
    assert_memory_equal(found, a, sizeof(a));
    bt_prefix_cache_destroy(cache);
}

/* Random requests share a small pool; whatever is found must have been stored for exactly these
 * tokens, and references must add up. */
static void random_requests_agree_with_a_naive_model(void **state)
{
    (void)state;
    enum { ROUNDS = 5000, MAX = 6, LIVE = 3 };
    bt_prefix_cache *cache = make(BLOCKS);
    bt_block_pool *pool = bt_prefix_cache_pool(cache);
    uint32_t stored[BLOCKS][MAX * TOKENS], stored_n[BLOCKS] = {0}; /* chain of each block */
    struct {
        uint32_t blocks[MAX], n;
    } live[LIVE] = {0};
    bt_rng rng = {11};
    for (int round = 0; round < ROUNDS; round++) {
        uint32_t slot = (uint32_t)bt_rng_below(&rng, LIVE), tokens[MAX * TOKENS];
        put_all(pool, live[slot].blocks, live[slot].n);
        live[slot].n = 0;
        uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, MAX);
        for (uint32_t i = 0; i < n * TOKENS; i++)
            tokens[i] = i % TOKENS == 0 ? (uint32_t)bt_rng_below(&rng, 2) : 0;
        bt_prefix_link link;
        uint32_t n_found =
            bt_prefix_cache_match(cache, tokens, n * TOKENS, live[slot].blocks, &link);
        for (uint32_t i = 0; i < n_found; i++) {
            uint32_t block = live[slot].blocks[i];
            assert_int_equal(stored_n[block], i + 1);
            assert_memory_equal(stored[block], tokens, (i + 1) * TOKENS * sizeof(uint32_t));
        }
        live[slot].n = n_found;
        if (bt_block_pool_take(pool, n - n_found, live[slot].blocks + n_found) < 0)
            continue;
        live[slot].n = n;
        for (uint32_t i = n_found; i < n; i++) {
            uint32_t block = live[slot].blocks[i];
            bt_prefix_cache_insert(cache, &link, tokens + (size_t)i * TOKENS, block);
            stored_n[block] = i + 1;
            memcpy(stored[block], tokens, (i + 1) * TOKENS * sizeof(uint32_t));
        }
    }
    for (uint32_t slot = 0; slot < LIVE; slot++)
        put_all(pool, live[slot].blocks, live[slot].n);
    assert_int_equal(bt_block_pool_available(pool), BLOCKS);
    bt_prefix_cache_destroy(cache);
}

static void every_failed_allocation_is_reported(void **state)
{
    (void)state;
    bt_prefix_cache *cache;
    for (uint64_t nth = 1; nth <= 7; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_prefix_cache_create(BLOCKS, TOKENS, 1, &cache), BATON_ERR_NO_MEMORY, NULL);
    }
    bt_alloc_fail_at(0);
    assert_fails(bt_prefix_cache_create(0, TOKENS, 1, &cache), BATON_ERR_INVALID_ARG, "blocks");
    assert_fails(bt_prefix_cache_create(1, 0, 1, &cache), BATON_ERR_INVALID_ARG, "0 tokens");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(blocks_come_scattered_and_all_or_none),
        bt_test(the_longest_known_chain_is_found),
        bt_test(used_blocks_are_never_evicted_and_the_oldest_goes_first),
        bt_test(an_entry_behind_an_evicted_one_is_not_found_by_another),
        bt_test(equal_contents_keep_the_first_block),
        bt_test(random_requests_agree_with_a_naive_model),
        bt_test(every_failed_allocation_is_reported),
    };
    return bt_run_tests(tests);
}
