/* SPDX-License-Identifier: Apache-2.0 */
/* Full KV blocks found again by their contents: a block's name is the chain of all tokens up to
 * its end. A hash finds candidates; tokens and predecessor decide, so that no two prompts are ever
 * confused.
 *
 *   root ── [t0..t15] block 7 ── [t16..t31] block 2 ──      an entry: predecessor's block and
 *                            └── [u16..u31] block 9         generation, own tokens
 *
 * Entries live as long as their block keeps its contents (blockpool.h, idle blocks); the entries
 * behind an evicted one cannot be found any more and age out.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_PREFIXCACHE_H
#define BT_ENGINE_PREFIXCACHE_H
#include "engine/blockpool.h"

typedef struct bt_prefix_cache bt_prefix_cache;

/* A place in a chain: the root, or behind a block's entry. */
typedef struct {
    uint32_t block; /* BT_NO_BLOCK: the root */
    uint32_t generation;
} bt_prefix_link;
#define BT_PREFIX_ROOT ((bt_prefix_link){.block = BT_NO_BLOCK})

/* The cache owns a pool of n_blocks. Errors: INVALID_ARG, NO_MEMORY. */
baton_status bt_prefix_cache_create(uint32_t n_blocks, uint32_t block_tokens, uint64_t seed,
                                    bt_prefix_cache **cache_p);
bt_block_pool *bt_prefix_cache_pool(bt_prefix_cache *cache); /* borrowed */

/* The longest known chain of full blocks of tokens[n_tokens]: writes its blocks, with a reference
 * taken for each, to blocks[n_tokens / block_tokens], returns how many, and *end is its end. */
uint32_t bt_prefix_cache_match(bt_prefix_cache *cache, const uint32_t *tokens, uint32_t n_tokens,
                               uint32_t *blocks, bt_prefix_link *end);
/* Makes a used block, whose KV of tokens[block_tokens] is complete, known behind `link`. Moves link
 * on: to this block, or to one with the same contents that was known before. */
void bt_prefix_cache_insert(bt_prefix_cache *cache, bt_prefix_link *link, const uint32_t *tokens,
                            uint32_t block);
void bt_prefix_cache_destroy(bt_prefix_cache *cache); /* NULL is allowed. */

#endif
