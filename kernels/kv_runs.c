/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_runs.h"

#include "kernels/kv_index.h"

/* The tokens from t on that are certainly neighbours: consecutive slots inside one block. */
static uint32_t neighbours(const baton_kv_view *view, const baton_kv_tokens *tokens, uint32_t t,
                           uint64_t slot)
{
    uint32_t left_in_block = view->block_tokens - (uint32_t)(slot % view->block_tokens);
    uint32_t left = tokens->n_tokens - t;
    uint32_t most = left < left_in_block ? left : left_in_block;
    if (tokens->slots == NULL)
        return most;
    uint32_t n = 1;
    while (n < most && tokens->slots[t + n] == tokens->slots[t] + n)
        n++;
    return n;
}

uint32_t bt_kv_collect_runs(const baton_kv_view *view, const baton_kv_tokens *tokens,
                            uint32_t *next, bt_kv_run runs[BT_KV_RUNS_PER_BATCH])
{
    uint32_t n_runs = 0;
    uint32_t t = *next;
    while (t < tokens->n_tokens) {
        int64_t slot = bt_kv_token_slot(view, tokens, t);
        if (slot < 0) {
            t++;
            continue;
        }
        uint32_t n = neighbours(view, tokens, t, (uint64_t)slot);
        uint64_t paged = bt_kv_slot_offset(view, (uint64_t)slot);
        bt_kv_run *last = n_runs > 0 ? &runs[n_runs - 1] : NULL;
        if (last != NULL && last->token + last->n_tokens == t &&
            last->paged_bytes + last->n_tokens * view->token_stride_bytes == paged) {
            last->n_tokens += n;
        } else {
            if (n_runs == BT_KV_RUNS_PER_BATCH)
                break;
            runs[n_runs++] = (bt_kv_run){paged, t, n};
        }
        t += n;
    }
    *next = t;
    return n_runs;
}
