/* SPDX-License-Identifier: Apache-2.0 */
/* A model whose "KV" of a position is a hash of the whole prefix, read and written through the
 * block table like real KV. Whoever gets a block wrong, too early or twice gets other tokens.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_ENGINE_FAKEMODEL_H
#define BT_TESTS_ENGINE_FAKEMODEL_H
#include "engine/model.h"
#include "engine/scheduler.h"

enum { FAKE_VOCAB = 300, FAKE_BLOCK_TOKENS = 4, FAKE_LAYERS = 5 };

typedef struct {
    uint64_t *kv; /* [n_blocks * FAKE_BLOCK_TOKENS] */
    uint32_t n_blocks;
    uint32_t largest_batch, most_items; /* seen */
    uint32_t fail_after;                /* forward calls that still succeed; UINT32_MAX: all */
    void (*layer_done)(void *sink, uint32_t layer); /* told of FAKE_LAYERS; NULL: nobody */
    void *layer_sink;
} bt_fake_model;

void bt_fake_model_open(bt_fake_model *model, uint32_t n_blocks);
void bt_fake_model_close(bt_fake_model *model);
/* For bt_scheduler_options; ctx is the bt_fake_model. */
baton_status bt_fake_forward(void *ctx, const bt_batch_item *items, uint32_t n_items,
                             float *logits);
void bt_fake_watch(void *ctx, void (*layer_done)(void *sink, uint32_t layer), void *sink);
/* The KV of a position, through a block table. */
uint64_t *bt_fake_kv(bt_fake_model *model, const uint32_t *blocks, uint32_t position);
/* The greedy continuation of tokens[n], n_output ids, as the model defines it. */
void bt_fake_continue(const uint32_t *tokens, uint32_t n, uint32_t n_output, uint32_t *output);

#endif
