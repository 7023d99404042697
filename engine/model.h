/* SPDX-License-Identifier: Apache-2.0 */
/* A Llama-family decoder on the CPU: RMSNorm, RoPE, grouped-query attention, SwiGLU.
 *
 * Invariance: a token's KV bits and logits depend on the weights, the cache's element type and the
 * token's own prefix, and on nothing else: not on what else is in the batch, how a prompt is cut
 * into calls, the number of threads, the block table, or the SIMD level of the CPU (tensorops.h
 * says how). So KV computed here, moved elsewhere and continued there gives the same tokens.
 *
 *   bt_model_create_random / bt_model_load      weights, shared, read only
 *   bt_kv_cache_create                          where KV lies (kvcache.h)
 *   bt_compute_create                           threads and scratch of one engine loop
 *   bt_compute_forward(compute, cache, items, n_items, logits)
 *
 * Thread rule: a model: any thread once it is made; a bt_compute: one thread at a time. */
#ifndef BT_ENGINE_MODEL_H
#define BT_ENGINE_MODEL_H
#include <baton/status.h>
#include <stdbool.h>

#include "engine/kvcache.h"
#include "engine/modelconfig.h"

typedef struct bt_model bt_model;
typedef struct bt_compute bt_compute;

/* model_dir holds config.json and model.safetensors, or model.safetensors.index.json and its
 * shards. The files are closed again on return. *model_p is set only on success. Errors: those of
 * bt_model_config_load; CORRUPT (with the file and the tensor's name: missing, wrong shape, cut
 * off), UNSUPPORTED (element type), NOT_FOUND, IO, NO_MEMORY. */
baton_status bt_model_load(const char *model_dir, bt_model **model_p);
/* Weights drawn from seed, bf16, the same on every machine; greedy output varies and stays within
 * printable ASCII where the vocabulary is that of the byte tokenizer. config is copied.
 * Errors: CONFIG, NO_MEMORY. */
baton_status bt_model_create_random(const bt_model_config *config, uint64_t seed,
                                    bt_model **model_p);
/* Borrowed until destroy. */
const bt_model_config *bt_model_get_config(const bt_model *model);
/* A hash of config and weights: two models that agree give the same tokens. For baton_layout.model
 * and log lines. */
uint64_t bt_model_fingerprint(const bt_model *model);
/* Bytes of weights that one decoded token reads. */
uint64_t bt_model_weight_bytes(const bt_model *model);
void bt_model_destroy(bt_model *model); /* NULL is allowed. */

typedef struct {
    uint32_t n_threads;        /* 0: 1. Counts the calling thread. */
    uint32_t max_batch_tokens; /* most tokens of one call, over all items; 0: 512 */
    uint32_t max_batch_items;  /* most items of one call; 0: 64 */
    const char
        *simd; /* "generic", "avx2" or "avx512"; NULL: the best there is. Bits are the same. */
} bt_compute_options;

/* model is borrowed until destroy. Errors: INVALID_ARG, UNSUPPORTED (a SIMD level that this CPU
 * lacks), NO_MEMORY, IO (a thread cannot start). */
baton_status bt_compute_create(const bt_model *model, const bt_compute_options *options,
                               bt_compute **compute_p);
void bt_compute_destroy(bt_compute *compute); /* NULL is allowed. Ends the threads. */

/* Some consecutive tokens of one sequence. KV of all positions before first_position must be in
 * the cache, at the same block table. Everything is borrowed for the call. */
typedef struct {
    const uint32_t *tokens; /* [n_tokens], each below vocab_size */
    uint32_t n_tokens;      /* not 0 */
    uint32_t first_position;
    const uint32_t *blocks; /* [n_blocks], covers at least first_position + n_tokens positions */
    uint32_t n_blocks;
    bool want_logits; /* of the last token */
} bt_batch_item;

/* Computes the items' tokens, writes their KV, and fills a row of logits [vocab_size] for each item
 * that wants them, in item order: logits [number of items with want_logits][vocab_size], f32; may
 * be NULL when no item wants any. All is checked before the first KV byte is written. Errors:
 * INVALID_ARG (n_tokens 0, cache of another shape), TOO_LARGE (batch), OUT_OF_RANGE (token, block,
 * position). */
baton_status bt_compute_forward(bt_compute *compute, bt_kv_cache *cache, const bt_batch_item *items,
                                uint32_t n_items, float *logits);

/* From then on, a forward calls layer_done(sink, layer) when the KV of a layer has been written for
 * all items, before the next one's is: layer 0 first, on the forward's own thread. */
void bt_compute_watch(bt_compute *compute, void (*layer_done)(void *sink, uint32_t layer),
                      void *sink);

#endif
