/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/kvcache.h"

#include <string.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/tensorops.h"

enum { DEFAULT_BLOCK_TOKENS = 16 };

static baton_status size_memory(bt_kv_cache *cache)
{
    size_t token_bytes = (size_t)cache->n_kv_heads * cache->head_dim * cache->element_bytes;
    size_t n_slots;
    if (!bt_mul_size(cache->n_blocks, cache->block_tokens, &n_slots) ||
        !bt_mul_size(n_slots, token_bytes, &cache->plane_bytes) ||
        !bt_mul_size(cache->plane_bytes, 2 * (size_t)cache->n_layers, &cache->memory_bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "kv cache: %u blocks of %u tokens overflow a size",
                       cache->n_blocks, cache->block_tokens);
    return BATON_OK;
}

static baton_status make_memory(bt_kv_cache *cache)
{
    BATON_TRY(size_memory(cache));
    cache->memory = bt_aligned_alloc((size_t)sysconf(_SC_PAGESIZE), cache->memory_bytes);
    if (cache->memory == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv cache: %zu bytes for %u blocks",
                       cache->memory_bytes, cache->n_blocks);
    memset(cache->memory, 0, cache->memory_bytes);
    return BATON_OK;
}

baton_status bt_kv_cache_create(const bt_model_config *config, const bt_kv_options *options,
                                bt_kv_cache **cache_p)
{
    baton_dtype dtype = options->dtype == 0 ? BATON_DTYPE_BF16 : options->dtype;
    if (options->n_blocks == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv cache: n_blocks is 0");
    if (bt_element_bytes(dtype) == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv cache: dtype: wanted bf16, f16 or f32, found %d",
                       (int)dtype);
    bt_kv_cache *cache = bt_calloc(1, sizeof(*cache));
    if (cache == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv cache: no memory");
    cache->n_layers = config->n_layers;
    cache->n_blocks = options->n_blocks;
    cache->block_tokens = options->block_tokens == 0 ? DEFAULT_BLOCK_TOKENS : options->block_tokens;
    cache->n_kv_heads = config->n_kv_heads;
    cache->head_dim = config->head_dim;
    cache->dtype = dtype;
    cache->element_bytes = bt_element_bytes(dtype);
    baton_status status = make_memory(cache);
    if (status < 0) {
        bt_kv_cache_destroy(cache);
        return status;
    }
    *cache_p = cache;
    return BATON_OK;
}

uint8_t *bt_kv_cache_plane(const bt_kv_cache *cache, uint32_t layer, uint32_t plane)
{
    return cache->memory + (2 * (size_t)layer + plane) * cache->plane_bytes;
}

size_t bt_kv_cache_token_bytes(const bt_kv_cache *cache)
{
    return (size_t)cache->n_kv_heads * cache->head_dim * cache->element_bytes;
}

baton_status bt_kv_cache_view(const bt_kv_cache *cache, uint32_t first_head, uint32_t n_heads,
                              baton_kv_plane *planes, baton_kv_view *view)
{
    if (n_heads == 0 || first_head > cache->n_kv_heads || n_heads > cache->n_kv_heads - first_head)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "kv cache: view of heads %u + %u, there are %u",
                       first_head, n_heads, cache->n_kv_heads);
    size_t head_bytes = cache->head_dim * cache->element_bytes;
    for (uint32_t layer = 0; layer < cache->n_layers; layer++) {
        planes[layer].k = bt_kv_cache_plane(cache, layer, 0) + first_head * head_bytes;
        planes[layer].v = bt_kv_cache_plane(cache, layer, 1) + first_head * head_bytes;
    }
    *view =
        (baton_kv_view){.n_layers = cache->n_layers,
                        .n_planes = 2,
                        .n_blocks = cache->n_blocks,
                        .block_tokens = cache->block_tokens,
                        .n_kv_heads = n_heads,
                        .head_bytes = head_bytes,
                        .block_stride_bytes = cache->block_tokens * bt_kv_cache_token_bytes(cache),
                        .token_stride_bytes = bt_kv_cache_token_bytes(cache),
                        .head_stride_bytes = head_bytes,
                        .memory = BATON_MEMORY_HOST,
                        .planes = planes};
    return BATON_OK;
}

void bt_kv_cache_destroy(bt_kv_cache *cache)
{
    if (cache == NULL)
        return;
    bt_free(cache->memory);
    bt_free(cache);
}
