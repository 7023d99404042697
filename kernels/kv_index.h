/* SPDX-License-Identifier: Apache-2.0 */
/* Where a token's bytes lie, on both sides. All products are 64 bit: a plane passes 4 GiB long
 * before its slot count passes 32 bit. Also compiled as CUDA.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_INDEX_H
#define BT_KERNELS_KV_INDEX_H
#include <baton/kv.h>

#ifdef __CUDACC__
#define BT_KV_INLINE static inline __host__ __device__
#else
#define BT_KV_INLINE static inline
#endif

/* Bytes of one token in one plane of a page. */
BT_KV_INLINE uint64_t bt_kv_row_bytes(const baton_kv_view *view)
{
    return (uint64_t)view->n_kv_heads * view->head_bytes;
}

BT_KV_INLINE uint64_t bt_kv_n_slots(const baton_kv_view *view)
{
    return (uint64_t)view->n_blocks * view->block_tokens;
}

/* Offset of a slot from its plane's base, head 0. */
BT_KV_INLINE uint64_t bt_kv_slot_offset(const baton_kv_view *view, uint64_t slot)
{
    return slot / view->block_tokens * view->block_stride_bytes +
           slot % view->block_tokens * view->token_stride_bytes;
}

/* Offset of (layer, plane, token) in a page of n_tokens tokens; layer counts from the page's
 * first. */
BT_KV_INLINE uint64_t bt_kv_page_offset(const baton_kv_view *view, uint32_t n_tokens,
                                        uint32_t layer, uint32_t plane, uint32_t token)
{
    uint64_t row = ((uint64_t)layer * view->n_planes + plane) * n_tokens + token;
    return row * bt_kv_row_bytes(view);
}

/* Slot of token t of the list, negative when it is skipped. */
BT_KV_INLINE int64_t bt_kv_token_slot(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                      uint32_t t)
{
    if (tokens->slots != NULL)
        return tokens->slots[t];
    uint64_t position = tokens->first_token + t;
    uint64_t block = tokens->blocks[position / view->block_tokens];
    return (int64_t)(block * view->block_tokens + position % view->block_tokens);
}

BT_KV_INLINE uint8_t *bt_kv_plane_base(const baton_kv_view *view, uint32_t layer, uint32_t plane)
{
    const baton_kv_plane *base = &view->planes[layer];
    return (uint8_t *)(plane == 0 ? base->k : base->v);
}

#endif
