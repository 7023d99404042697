/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_check.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/kv_index.h"

#include <inttypes.h>

baton_status baton_kv_layers_bytes(const baton_kv_view *view, uint32_t n_layers, uint32_t n_tokens,
                                   uint64_t *bytes)
{
    uint64_t rows = (uint64_t)n_layers * view->n_planes;
    uint64_t row_bytes, total;
    if (!bt_mul_u64(view->n_kv_heads, view->head_bytes, &row_bytes) ||
        !bt_mul_u64(rows, n_tokens, &rows) || !bt_mul_u64(rows, row_bytes, &total))
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "kv: a page of %u layers x %u planes x %u tokens x %u heads x %" PRIu64
                       " bytes passes 64 bit",
                       n_layers, view->n_planes, n_tokens, view->n_kv_heads, view->head_bytes);
    *bytes = total;
    return BATON_OK;
}

baton_status baton_kv_chunk_bytes(const baton_kv_view *view, uint32_t n_tokens, uint64_t *bytes)
{
    return baton_kv_layers_bytes(view, view->n_layers, n_tokens, bytes);
}

static baton_status check_slots(const baton_kv_view *view, const baton_kv_tokens *tokens)
{
    uint64_t n_slots = bt_kv_n_slots(view);
    for (uint32_t t = 0; t < tokens->n_tokens; t++) {
        int64_t slot = tokens->slots[t];
        if (slot >= 0 && (uint64_t)slot >= n_slots)
            return bt_fail(BATON_ERR_OUT_OF_RANGE,
                           "kv: token %u: wanted a slot below %" PRIu64 ", found %" PRId64, t,
                           n_slots, slot);
    }
    return BATON_OK;
}

static baton_status check_blocks(const baton_kv_view *view, const baton_kv_tokens *tokens)
{
    if (tokens->blocks == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted slots or a block table, found neither");
    uint64_t covered = (uint64_t)tokens->n_blocks * view->block_tokens;
    uint64_t end;
    if (!bt_add_u64(tokens->first_token, tokens->n_tokens, &end) || end > covered)
        return bt_fail(BATON_ERR_OUT_OF_RANGE,
                       "kv: tokens %" PRIu64 " + %u: wanted within the %" PRIu64
                       " tokens of %u blocks",
                       tokens->first_token, tokens->n_tokens, covered, tokens->n_blocks);
    uint64_t last = (end - 1) / view->block_tokens;
    for (uint64_t i = tokens->first_token / view->block_tokens; i <= last; i++) {
        if (tokens->blocks[i] >= view->n_blocks)
            return bt_fail(BATON_ERR_OUT_OF_RANGE,
                           "kv: block table entry %" PRIu64 ": wanted a block below %u, found %u",
                           i, view->n_blocks, tokens->blocks[i]);
    }
    return BATON_OK;
}

baton_status bt_kv_copy_check(const baton_kv_view *view, const baton_kv_tokens *tokens,
                              uint32_t first_layer, uint32_t n_layers, const void *page,
                              uint64_t page_bytes)
{
    BATON_TRY(baton_kv_view_check(view));
    if (tokens == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted a token list, found NULL");
    if (first_layer > view->n_layers || n_layers > view->n_layers - first_layer)
        return bt_fail(BATON_ERR_OUT_OF_RANGE,
                       "kv: layers %u + %u: wanted within the view's %u layers", first_layer,
                       n_layers, view->n_layers);
    uint64_t needed;
    BATON_TRY(baton_kv_layers_bytes(view, n_layers, tokens->n_tokens, &needed));
    if (needed == 0)
        return BATON_OK;
    if (page == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted a page, found NULL");
    if (needed > page_bytes)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "kv: wanted a page of %" PRIu64 " bytes for %u layers of %u tokens, found "
                       "%" PRIu64,
                       needed, n_layers, tokens->n_tokens, page_bytes);
    return tokens->slots != NULL ? check_slots(view, tokens) : check_blocks(view, tokens);
}

baton_status bt_kv_host_check(const baton_kv_view *view)
{
    if (view->memory == BATON_MEMORY_CUDA_DEVICE)
        return bt_fail(BATON_ERR_UNSUPPORTED, "kv: paged KV is in device memory, which the CPU "
                                              "cannot touch; use the _cuda functions");
    return BATON_OK;
}
