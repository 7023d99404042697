/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_plan.h"

#include "core/fail.h"
#include "kernels/kv_index.h"

/* Granlund and Montgomery, "Division by Invariant Integers using Multiplication" (1994), for one
 * bit less than a word: 2^(31+s) / divisor rounded up, 2^s >= divisor, errs by less than 2^s in
 * 2^(31+s), so n times the error stays below one for n < 2^31. */
bt_gpu_divider bt_gpu_divider_of(uint32_t divisor)
{
    uint32_t log = 0;
    while (UINT64_C(1) << log < divisor)
        log++;
    uint64_t power = UINT64_C(1) << (31 + log);
    return (bt_gpu_divider){(uint32_t)((power + divisor - 1) / divisor), 31 + log};
}

baton_status bt_gpu_plan(const baton_kv_view *view, const baton_kv_tokens *tokens,
                         uint32_t n_layers, void *page, bool to_page, bt_gpu_copy *copy)
{
    bool is_cut = view->n_kv_heads > 1 && view->head_stride_bytes != view->head_bytes;
    uint64_t planes = (uint64_t)n_layers * view->n_planes;
    if (planes > UINT32_MAX)
        return bt_fail(BATON_ERR_TOO_LARGE, "kv: %u layers of %u planes pass 32 bit", n_layers,
                       view->n_planes);
    *copy = (bt_gpu_copy){
        .page = page,
        .head_bytes = is_cut ? view->head_bytes : bt_kv_row_bytes(view),
        .head_stride_bytes = is_cut ? view->head_stride_bytes : 0,
        .n_heads = is_cut ? view->n_kv_heads : 1,
        .n_tokens = tokens->n_tokens,
        .n_planes = (uint32_t)planes,
        .to_page = to_page,
    };
    BATON_TRY(baton_kv_layers_bytes(view, n_layers, tokens->n_tokens, &copy->page_bytes));
    copy->is_small = copy->page_bytes <= INT32_MAX;
    if (copy->is_small) { /* and so is each factor */
        copy->by_head_bytes = bt_gpu_divider_of((uint32_t)copy->head_bytes);
        copy->by_heads = bt_gpu_divider_of(copy->n_heads);
        copy->by_tokens = bt_gpu_divider_of(copy->n_tokens);
    }
    return BATON_OK;
}

static uint32_t widest_unit(uint64_t bits)
{
    uint32_t widest = BT_GPU_MAX_UNIT;
    while (bits % widest != 0)
        widest /= 2;
    return widest;
}

/* One token, one head, one plane, and the token is skipped: its bytes are read, and count. */
void bt_gpu_plan_digest(const void *bytes, uint64_t n, bt_gpu_copy *copy, uint32_t *unit)
{
    *copy = (bt_gpu_copy){
        .page = (uint8_t *)(uintptr_t)bytes,
        .page_bytes = n,
        .head_bytes = n,
        .n_heads = 1,
        .n_tokens = 1,
        .n_planes = 1,
        .is_small = n <= INT32_MAX,
        .small_table = {0, BT_GPU_SKIPPED},
    };
    if (copy->is_small) {
        copy->by_head_bytes = bt_gpu_divider_of((uint32_t)n);
        copy->by_heads = copy->by_tokens = bt_gpu_divider_of(1);
    }
    *unit = widest_unit((uintptr_t)bytes | n);
}

void bt_gpu_fill_table(const baton_kv_view *view, const baton_kv_tokens *tokens,
                       uint32_t first_layer, const bt_gpu_copy *copy, uint64_t *table,
                       uint32_t *unit)
{
    /* Bits that are set in any address or step: their lowest one is the alignment. */
    uint64_t bits = (uintptr_t)copy->page | copy->head_bytes | copy->head_stride_bytes;
    for (uint32_t i = 0; i < copy->n_planes; i++) {
        const uint8_t *base =
            bt_kv_plane_base(view, first_layer + i / view->n_planes, i % view->n_planes);
        table[i] = (uintptr_t)base;
        bits |= table[i];
    }
    uint64_t *offsets = table + copy->n_planes;
    for (uint32_t t = 0; t < tokens->n_tokens; t++) {
        int64_t slot = bt_kv_token_slot(view, tokens, t);
        offsets[t] = slot < 0 ? BT_GPU_SKIPPED : bt_kv_slot_offset(view, (uint64_t)slot);
        bits |= slot < 0 ? 0 : offsets[t];
    }
    *unit = widest_unit(bits);
}
