/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_reference.h"

#include "core/fail.h"
#include "kernels/kv_check.h"
#include "kernels/kv_index.h"

#include <stdbool.h>
#include <string.h>

/* One head of one token; to_page gives the direction. */
static void copy_head(uint8_t *paged, uint8_t *page, uint64_t bytes, bool to_page)
{
    if (to_page)
        memcpy(page, paged, bytes);
    else
        memcpy(paged, page, bytes);
}

static void copy_plane(const baton_kv_view *view, const baton_kv_tokens *tokens, uint8_t *base,
                       uint8_t *page, bool to_page)
{
    for (uint32_t t = 0; t < tokens->n_tokens; t++) {
        int64_t slot = bt_kv_token_slot(view, tokens, t);
        if (slot < 0)
            continue;
        uint8_t *paged = base + bt_kv_slot_offset(view, (uint64_t)slot);
        uint8_t *row = page + t * bt_kv_row_bytes(view);
        for (uint32_t head = 0; head < view->n_kv_heads; head++)
            copy_head(paged + head * view->head_stride_bytes, row + head * view->head_bytes,
                      view->head_bytes, to_page);
    }
}

static void copy_layers(const baton_kv_view *view, const baton_kv_tokens *tokens,
                        uint32_t first_layer, uint32_t n_layers, uint8_t *page, bool to_page)
{
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        for (uint32_t plane = 0; plane < view->n_planes; plane++)
            copy_plane(view, tokens, bt_kv_plane_base(view, first_layer + layer, plane),
                       page + bt_kv_page_offset(view, tokens->n_tokens, layer, plane, 0), to_page);
    }
}

baton_status bt_kv_gather_reference(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                    uint32_t first_layer, uint32_t n_layers, void *page,
                                    uint64_t page_bytes)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_kv_host_check(view));
    copy_layers(view, tokens, first_layer, n_layers, page, true);
    return BATON_OK;
}

baton_status bt_kv_scatter_reference(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                     uint32_t first_layer, uint32_t n_layers, const void *page,
                                     uint64_t page_bytes)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_kv_host_check(view));
    /* The page is only read in this direction. */
    copy_layers(view, tokens, first_layer, n_layers, (uint8_t *)page, false);
    return BATON_OK;
}
