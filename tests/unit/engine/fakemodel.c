/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/fakemodel.h"

#include "core/alloc.h"
#include "core/fail.h"

static uint64_t mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static uint64_t extend(uint64_t prefix, uint32_t token)
{
    return mix(prefix * 31 + token + 1);
}

static float logit(uint64_t prefix, uint32_t id)
{
    return (float)(mix(prefix + id * UINT64_C(0x9e3779b97f4a7c15)) >> 48) / 8192.0f;
}

void bt_fake_model_open(bt_fake_model *model, uint32_t n_blocks)
{
    *model = (bt_fake_model){.n_blocks = n_blocks, .fail_after = UINT32_MAX};
    model->kv = bt_calloc((size_t)n_blocks * FAKE_BLOCK_TOKENS, sizeof(*model->kv));
}

void bt_fake_model_close(bt_fake_model *model)
{
    bt_free(model->kv);
}

uint64_t *bt_fake_kv(bt_fake_model *model, const uint32_t *blocks, uint32_t position)
{
    uint32_t block = blocks[position / FAKE_BLOCK_TOKENS];
    return &model->kv[block * FAKE_BLOCK_TOKENS + position % FAKE_BLOCK_TOKENS];
}

static uint64_t compute(bt_fake_model *model, const bt_batch_item *item)
{
    uint64_t prefix =
        item->first_position == 0 ? 0 : *bt_fake_kv(model, item->blocks, item->first_position - 1);
    for (uint32_t i = 0; i < item->n_tokens; i++) {
        prefix = extend(prefix, item->tokens[i]);
        *bt_fake_kv(model, item->blocks, item->first_position + i) = prefix;
    }
    return prefix;
}

baton_status bt_fake_forward(void *ctx, const bt_batch_item *items, uint32_t n_items, float *logits)
{
    bt_fake_model *model = ctx;
    uint32_t n_tokens = 0, row = 0;
    if (model->fail_after == 0)
        return bt_fail(BATON_ERR_IO, "fake model: told to fail");
    if (model->fail_after != UINT32_MAX)
        model->fail_after--;
    for (uint32_t i = 0; i < n_items; i++) {
        uint64_t prefix = compute(model, &items[i]);
        n_tokens += items[i].n_tokens;
        if (!items[i].want_logits)
            continue;
        for (uint32_t id = 0; id < FAKE_VOCAB; id++)
            logits[row * FAKE_VOCAB + id] = logit(prefix, id);
        row++;
    }
    for (uint32_t layer = 0; model->layer_done != NULL && layer < FAKE_LAYERS; layer++)
        model->layer_done(model->layer_sink, layer);
    model->largest_batch = n_tokens > model->largest_batch ? n_tokens : model->largest_batch;
    model->most_items = n_items > model->most_items ? n_items : model->most_items;
    return BATON_OK;
}

void bt_fake_watch(void *ctx, void (*layer_done)(void *sink, uint32_t layer), void *sink)
{
    bt_fake_model *model = ctx;
    model->layer_done = layer_done;
    model->layer_sink = sink;
}

void bt_fake_continue(const uint32_t *tokens, uint32_t n, uint32_t n_output, uint32_t *output)
{
    uint64_t prefix = 0;
    for (uint32_t i = 0; i < n; i++)
        prefix = extend(prefix, tokens[i]);
    for (uint32_t i = 0; i < n_output; i++) {
        uint32_t best = 0;
        for (uint32_t id = 1; id < FAKE_VOCAB; id++)
            if (logit(prefix, id) > logit(prefix, best))
                best = id;
        output[i] = best;
        prefix = extend(prefix, best);
    }
}
