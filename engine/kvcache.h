/* SPDX-License-Identifier: Apache-2.0 */
/* An engine's paged KV cache on the host, in vLLM's flash-attention layout:
 *
 *   [n_layers][2][n_blocks][block_tokens][n_kv_heads][head_dim]    plane 0 is K (after RoPE), 1 is
 * V
 *
 * one allocation, page-aligned, so that it can be registered as one region. Which block belongs to
 * whom is the caller's business: position p of a sequence is at offset p % block_tokens of block
 * blocks[p / block_tokens] of its block table.
 *
 * Thread rule: the cache object itself never changes; its bytes are written by bt_compute_forward
 * and by scatter, never both on the same blocks at once. */
#ifndef BT_ENGINE_KVCACHE_H
#define BT_ENGINE_KVCACHE_H
#include <baton/kv.h>
#include <baton/layout.h>

#include "engine/modelconfig.h"

typedef struct {
    uint32_t n_blocks;
    uint32_t block_tokens; /* 0: 16 */
    baton_dtype dtype;     /* BF16, F16 or F32; 0: BF16 */
} bt_kv_options;

typedef struct {
    uint32_t n_layers, n_blocks, block_tokens, n_kv_heads, head_dim;
    baton_dtype dtype;
    size_t element_bytes;
    size_t plane_bytes;  /* of one layer's K or V */
    size_t memory_bytes; /* of all layers */
    uint8_t *memory;     /* owned */
} bt_kv_cache;

/* Zeroed KV for the model's layers and heads. *cache_p is set only on success.
 * Errors: INVALID_ARG, TOO_LARGE, NO_MEMORY. */
baton_status bt_kv_cache_create(const bt_model_config *config, const bt_kv_options *options,
                                bt_kv_cache **cache_p);
/* First byte of one layer's K (plane 0) or V (plane 1), borrowed. */
uint8_t *bt_kv_cache_plane(const bt_kv_cache *cache, uint32_t layer, uint32_t plane);
/* Bytes of one slot (all KV heads of one plane), the distance between neighbouring tokens. */
size_t bt_kv_cache_token_bytes(const bt_kv_cache *cache);
/* A view of KV heads [first_head, first_head + n_heads), for one rank's gather and scatter. Fills
 * planes[n_layers], which must outlive the view, as the cache must. Errors: OUT_OF_RANGE. */
baton_status bt_kv_cache_view(const bt_kv_cache *cache, uint32_t first_head, uint32_t n_heads,
                              baton_kv_plane *planes, baton_kv_view *view);
void bt_kv_cache_destroy(bt_kv_cache *cache); /* NULL is allowed. */

#endif
