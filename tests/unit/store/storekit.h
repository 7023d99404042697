/* SPDX-License-Identifier: Apache-2.0 */
/* What the store's tests share: keys of numbered prompts, and a store of one region.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_STOREKIT_H
#define BT_TESTS_STOREKIT_H
#include "support/test.h"

#include "store/store.h"

enum { KIT_CHUNK = 8, KIT_MAX_CHUNKS = 16 };

static inline baton_key_chain kit_root(void)
{
    const baton_layout layout = {
        .model = "kit",
        .dtype = BATON_DTYPE_BF16,
        .n_layers = 1,
        .n_planes = 2,
        .n_kv_heads = 1,
        .head_dim = 8,
        .chunk_tokens = KIT_CHUNK,
        .block_tokens = 4,
        .tp_size = 1,
        .pp_size = 1,
    };
    baton_key_chain chain;
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    return chain;
}

/* Tokens of prompt `id`: two prompts agree exactly in the first `shared` tokens. */
static inline void kit_tokens(uint32_t id, uint32_t shared, uint32_t n, uint32_t *tokens)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = i < shared ? i : 1000 * (id + 1) + i;
}

static inline baton_status kit_grant(bt_store *store, const uint32_t *tokens, uint32_t n,
                                     bt_grant **grant_p)
{
    baton_key_chain root = kit_root();
    baton_key keys[KIT_MAX_CHUNKS];
    uint32_t n_keys, last;
    assert_ok(baton_keys_of_tokens(&root, tokens, n, keys, KIT_MAX_CHUNKS, &n_keys, &last));
    return bt_store_grant(store, &root.last, keys, n_keys, last, grant_p);
}

static inline void kit_commit_all(bt_store *store, bt_grant *grant)
{
    bool duplicate;
    for (uint32_t i = 0; i < bt_grant_chunks(grant); i++)
        assert_ok(bt_store_commit(store, grant, i, &duplicate));
}

/* Publishes a prompt and drops its hold. */
static inline void kit_land(bt_store *store, const uint32_t *tokens, uint32_t n)
{
    bt_grant *grant;
    assert_ok(kit_grant(store, tokens, n, &grant));
    kit_commit_all(store, grant);
    assert_true(bt_grant_end(store, grant, true));
}

static inline bt_store *kit_store(uint32_t n_pages)
{
    bt_store *store;
    assert_ok(bt_store_create(KIT_CHUNK, n_pages, &store));
    assert_ok(bt_store_region_add(store, 0, n_pages));
    return store;
}

static inline uint64_t kit_pages(const bt_store *store, bt_page_state state)
{
    bt_store_stats stats;
    bt_store_get_stats(store, &stats);
    uint64_t sum = 0;
    for (int s = 0; s < BT_N_PAGE_STATES; s++)
        sum += stats.pages[s];
    assert_int_equal(sum, stats.pages_total);
    assert_ok(bt_store_verify(store));
    return stats.pages[state];
}

#endif
