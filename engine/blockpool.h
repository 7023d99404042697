/* SPDX-License-Identifier: Apache-2.0 */
/* Which blocks of the paged KV cache are in use, by counted reference. It deals in indices and
 * never touches the cache's memory.
 *
 *   free ──take──▶ used (references > 0) ──last put──▶ free, or idle when its contents are kept
 *                     ▲──────── ref ──────────────────── idle, least recently used first
 *   free ◀── evicted (on_evict) by a take that finds nothing free
 *
 * Free blocks are handed out in a scattered order on purpose: code that takes neighbouring tokens
 * for neighbouring blocks must not work by accident.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_BLOCKPOOL_H
#define BT_ENGINE_BLOCKPOOL_H
#include <baton/status.h>
#include <stdbool.h>

#define BT_NO_BLOCK UINT32_MAX

typedef struct bt_block_pool bt_block_pool;
/* An idle block loses its contents. */
typedef void (*bt_block_evict_fn)(void *ctx, uint32_t block);

/* Every block starts free. on_evict may be NULL when bt_block_pool_keep is not used.
 * Errors: INVALID_ARG, NO_MEMORY. */
baton_status bt_block_pool_create(uint32_t n_blocks, uint64_t seed, bt_block_evict_fn on_evict,
                                  void *ctx, bt_block_pool **pool_p);
/* Takes n blocks with one reference each, all or none; writes them to blocks[n]. Evicts idle ones
 * when there are too few free. Errors: NO_PAGES. */
baton_status bt_block_pool_take(bt_block_pool *pool, uint32_t n, uint32_t *blocks);
/* One more reference to a used or idle block. */
void bt_block_pool_ref(bt_block_pool *pool, uint32_t block);
/* One reference less; with the last, the block is free, or idle when it is kept. */
void bt_block_pool_put(bt_block_pool *pool, uint32_t block);
/* The contents of a used block are to survive its last reference, until the room is needed. */
void bt_block_pool_keep(bt_block_pool *pool, uint32_t block);

/* Free and idle: what take can give. */
uint32_t bt_block_pool_available(const bt_block_pool *pool);
uint32_t bt_block_pool_idle(const bt_block_pool *pool);
uint32_t bt_block_pool_total(const bt_block_pool *pool);
void bt_block_pool_destroy(bt_block_pool *pool); /* NULL is allowed. */

#endif
