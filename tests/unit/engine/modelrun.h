/* SPDX-License-Identifier: Apache-2.0 */
/* For tests of the decoder: one sequence at a time, computed in chunks.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_MODELRUN_H
#define BT_TESTS_MODELRUN_H
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>

#include "core/alloc.h"
#include "engine/model.h"

typedef struct {
    bt_model *model; /* borrowed */
    bt_kv_cache *cache;
    bt_compute *compute;
    uint32_t *blocks; /* [n_blocks], of the one sequence */
    uint32_t n_blocks;
} model_run;

/* A cache of n_blocks blocks of block_tokens tokens, of which the sequence has all, in order. */
static inline model_run start_run(bt_model *model, const bt_kv_options *kv,
                                  const bt_compute_options *options)
{
    model_run run = {.model = model, .n_blocks = kv->n_blocks};
    assert_ok(bt_kv_cache_create(bt_model_get_config(model), kv, &run.cache));
    assert_ok(bt_compute_create(model, options, &run.compute));
    run.blocks = bt_calloc(kv->n_blocks, sizeof(*run.blocks));
    assert_non_null(run.blocks);
    for (uint32_t i = 0; i < kv->n_blocks; i++)
        run.blocks[i] = i;
    return run;
}

static inline void end_run(model_run *run)
{
    bt_compute_destroy(run->compute);
    bt_kv_cache_destroy(run->cache);
    bt_free(run->blocks);
}

static inline bt_batch_item run_item(const model_run *run, const uint32_t *tokens,
                                     uint32_t position, uint32_t n)
{
    return (bt_batch_item){.tokens = tokens + position,
                           .n_tokens = n,
                           .first_position = position,
                           .blocks = run->blocks,
                           .n_blocks = run->n_blocks,
                           .want_logits = true};
}

/* Computes tokens[first, end) in chunks; logits [vocab] of the last one. */
static inline void run_chunks(model_run *run, const uint32_t *tokens, uint32_t first, uint32_t end,
                              uint32_t chunk, float *logits)
{
    for (uint32_t at = first; at < end; at += chunk) {
        bt_batch_item item = run_item(run, tokens, at, end - at < chunk ? end - at : chunk);
        assert_ok(bt_compute_forward(run->compute, run->cache, &item, 1, logits));
    }
}

static inline uint32_t run_argmax(const float *logits, uint32_t n)
{
    uint32_t best = 0;
    for (uint32_t i = 1; i < n; i++)
        if (logits[i] > logits[best])
            best = i;
    return best;
}

/* Hash-free comparison of KV: the bytes of all positions in order, [n][planes of all layers]. Owned
 * by the caller. */
static inline uint8_t *run_kv(const model_run *run, uint32_t n_tokens, size_t *n_bytes)
{
    const bt_kv_cache *cache = run->cache;
    size_t token_bytes = bt_kv_cache_token_bytes(cache);
    *n_bytes = token_bytes * n_tokens * 2 * cache->n_layers;
    uint8_t *bytes = bt_calloc(*n_bytes, 1), *out = bytes;
    assert_non_null(bytes);
    for (uint32_t layer = 0; layer < cache->n_layers; layer++)
        for (uint32_t plane = 0; plane < 2; plane++)
            for (uint32_t p = 0; p < n_tokens; p++, out += token_bytes) {
                size_t slot = (size_t)run->blocks[p / cache->block_tokens] * cache->block_tokens +
                              p % cache->block_tokens;
                memcpy(out, bt_kv_cache_plane(cache, layer, plane) + slot * token_bytes,
                       token_bytes);
            }
    return bytes;
}

#endif
