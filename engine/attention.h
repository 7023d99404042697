/* SPDX-License-Identifier: Apache-2.0 */
/* Causal attention over paged KV, for the query heads that share one KV head.
 *
 * Keys come in blocks of BT_KEY_BLOCK positions that begin at multiples of it, whatever the chunk
 * or the paging. A running softmax goes over the blocks in ascending order: new maximum, what was
 * summed so far scaled by exp(old - new), then the block's keys in ascending order. So a query's
 * result depends on the keys up to its own position and on nothing else.
 *
 * Thread rule: any thread with scratch of its own. */
#ifndef BT_ENGINE_ATTENTION_H
#define BT_ENGINE_ATTENTION_H
#include "engine/kvcache.h"
#include "engine/tensorops.h"

enum { BT_ATTENTION_ROWS = 96 }; /* (token, head) rows that share a pass over the keys */

typedef struct bt_attention_scratch bt_attention_scratch;

/* Errors: NO_MEMORY. */
baton_status bt_attention_scratch_create(uint32_t head_dim, bt_attention_scratch **scratch_p);
void bt_attention_scratch_destroy(bt_attention_scratch *scratch); /* NULL is allowed. */

typedef struct {
    const bt_ops *ops;
    const bt_kv_cache *cache;
    uint32_t layer, kv_head;
    const uint32_t *blocks; /* block table of the sequence */
    const float *q;         /* [n_tokens][group][head_dim], after RoPE */
    float *out;             /* the same shape; may be q itself */
    size_t stride;          /* floats from one token to the next, in q and in out */
    uint32_t first_position, n_tokens;
    uint32_t group; /* query heads of the KV head */
} bt_attention;

/* Most tokens of one call. */
uint32_t bt_attention_max_tokens(uint32_t group);
/* K and V of all positions up to the last token's must be in the cache. */
void bt_attention_run(const bt_attention *attention, bt_attention_scratch *scratch);

#endif
