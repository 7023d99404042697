/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/attention.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"

struct bt_attention_scratch {
    uint32_t head_dim, padded_dim; /* the latter a multiple of BT_PANEL, hence of BT_LANES */
    float *q;                      /* [BT_ATTENTION_ROWS][head_dim], scaled */
    float *keys;                   /* [padded_dim][BT_KEY_BLOCK] */
    float *rows;                   /* [BT_LANES][padded_dim], keys before they are transposed */
    float *values;                 /* [BT_KEY_BLOCK][padded_dim] */
    float *scores;                 /* [BT_ATTENTION_ROWS][BT_KEY_BLOCK] */
    float *out;                    /* [BT_ATTENTION_ROWS][padded_dim] */
    float max[BT_ATTENTION_ROWS], sum[BT_ATTENTION_ROWS];
};

static float *floats(size_t n)
{
    float *block = bt_aligned_alloc(64, n * sizeof(float));
    if (block != NULL)
        memset(block, 0, n * sizeof(float));
    return block;
}

baton_status bt_attention_scratch_create(uint32_t head_dim, bt_attention_scratch **scratch_p)
{
    bt_attention_scratch *s = bt_calloc(1, sizeof(*s));
    if (s == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "attention: scratch memory");
    s->head_dim = head_dim;
    s->padded_dim = bt_panels(head_dim) * BT_PANEL;
    s->q = floats((size_t)BT_ATTENTION_ROWS * head_dim);
    s->keys = floats((size_t)BT_KEY_BLOCK * s->padded_dim);
    s->values = floats((size_t)BT_KEY_BLOCK * s->padded_dim);
    s->rows = floats((size_t)BT_LANES * s->padded_dim);
    s->scores = floats((size_t)BT_ATTENTION_ROWS * BT_KEY_BLOCK);
    s->out = floats((size_t)BT_ATTENTION_ROWS * s->padded_dim);
    if (s->q == NULL || s->keys == NULL || s->values == NULL || s->rows == NULL ||
        s->scores == NULL || s->out == NULL) {
        bt_attention_scratch_destroy(s);
        return bt_fail(BATON_ERR_NO_MEMORY, "attention: scratch memory");
    }
    *scratch_p = s;
    return BATON_OK;
}

void bt_attention_scratch_destroy(bt_attention_scratch *scratch)
{
    if (scratch == NULL)
        return;
    bt_free(scratch->q);
    bt_free(scratch->keys);
    bt_free(scratch->values);
    bt_free(scratch->rows);
    bt_free(scratch->scores);
    bt_free(scratch->out);
    bt_free(scratch);
}

uint32_t bt_attention_max_tokens(uint32_t group)
{
    return group >= BT_ATTENTION_ROWS ? 1 : BT_ATTENTION_ROWS / group;
}

static uint32_t position_of(const bt_attention *a, uint32_t row)
{
    return a->first_position + row / a->group;
}

/* Scaled queries as dense rows; empty sums. */
static void begin(const bt_attention *a, bt_attention_scratch *s, uint32_t n_rows)
{
    float scale = (float)(1.0 / sqrt((double)s->head_dim));
    for (uint32_t row = 0; row < n_rows; row++) {
        const float *q = a->q + row / a->group * a->stride + row % a->group * s->head_dim;
        for (uint32_t i = 0; i < s->head_dim; i++)
            s->q[row * s->head_dim + i] = q[i] * scale;
        s->max[row] = -INFINITY;
        s->sum[row] = 0;
    }
    memset(s->out, 0, (size_t)n_rows * s->padded_dim * sizeof(float));
}

/* The head of one position in one plane. */
static const uint8_t *head_at(const bt_attention *a, uint32_t plane, uint32_t position)
{
    const bt_kv_cache *cache = a->cache;
    size_t slot = (size_t)a->blocks[position / cache->block_tokens] * cache->block_tokens +
                  position % cache->block_tokens;
    return bt_kv_cache_plane(cache, a->layer, plane) + slot * bt_kv_cache_token_bytes(cache) +
           a->kv_head * cache->head_dim * cache->element_bytes;
}

/* K, transposed, and V of positions [first, first + n) in f32. What lies behind n is stale but
 * never shows: a row uses only the scores and values of its own positions. */
static void load_keys(const bt_attention *a, bt_attention_scratch *s, uint32_t first, uint32_t n)
{
    baton_dtype dtype = a->cache->dtype;
    for (uint32_t j = 0; j < n; j += BT_LANES) {
        uint32_t n_rows = n - j < BT_LANES ? n - j : BT_LANES;
        for (uint32_t r = 0; r < n_rows; r++) {
            bt_widen(a->ops, s->rows + (size_t)r * s->padded_dim, head_at(a, 0, first + j + r),
                     dtype, s->head_dim);
            bt_widen(a->ops, s->values + (size_t)(j + r) * s->padded_dim,
                     head_at(a, 1, first + j + r), dtype, s->head_dim);
        }
        for (uint32_t i = 0; i < s->head_dim; i += BT_LANES)
            a->ops->transpose(s->keys + (size_t)i * BT_KEY_BLOCK + j, BT_KEY_BLOCK, s->rows + i,
                              s->padded_dim);
    }
}

static void score(const bt_attention *a, bt_attention_scratch *s, uint32_t first_row,
                  uint32_t n_rows)
{
    for (uint32_t column = 0; column < BT_KEY_BLOCK; column += BT_PANEL) {
        bt_tile tile = {.x = s->q + (size_t)first_row * s->head_dim,
                        .x_stride = s->head_dim,
                        .w = s->keys + column,
                        .w_stride = BT_KEY_BLOCK,
                        .out = s->scores + (size_t)first_row * BT_KEY_BLOCK + column,
                        .out_stride = BT_KEY_BLOCK,
                        .n_rows = n_rows,
                        .n_in = s->head_dim};
        a->ops->tile_f32(&tile);
    }
}

/* Scores of n_keys keys become weights; what the row summed so far is scaled to the new maximum. */
static void soften(const bt_attention *a, bt_attention_scratch *s, uint32_t row, uint32_t n_keys)
{
    float *scores = s->scores + (size_t)row * BT_KEY_BLOCK;
    float block_max = a->ops->max_block(scores, n_keys);
    float sum, old = s->max[row];
    if (block_max > old) {
        if (old != -INFINITY) { /* else nothing is summed yet */
            float before[BT_KEY_BLOCK] = {old};
            float fade = a->ops->exp_block(before, 1, block_max);
            s->sum[row] *= fade;
            bt_scale(s->out + (size_t)row * s->padded_dim, fade, s->head_dim);
        }
        s->max[row] = block_max;
    }
    sum = a->ops->exp_block(scores, n_keys, s->max[row]);
    s->sum[row] += sum;
}

/* Adds n_keys weighted values to the sums of n_rows rows. */
static void weigh(const bt_attention *a, bt_attention_scratch *s, uint32_t first_row,
                  uint32_t n_rows, uint32_t n_keys)
{
    for (uint32_t column = 0; column < s->padded_dim; column += BT_PANEL) {
        bt_tile tile = {.x = s->scores + (size_t)first_row * BT_KEY_BLOCK,
                        .x_stride = BT_KEY_BLOCK,
                        .w = s->values + column,
                        .w_stride = s->padded_dim,
                        .out = s->out + (size_t)first_row * s->padded_dim + column,
                        .out_stride = s->padded_dim,
                        .n_rows = n_rows,
                        .n_in = n_keys,
                        .accumulate = true};
        a->ops->tile_f32(&tile);
    }
}

/* One block of keys, for the rows that see any of it. */
static void attend(const bt_attention *a, bt_attention_scratch *s, uint32_t first_key,
                   uint32_t n_rows)
{
    uint32_t last = position_of(a, n_rows - 1), row = 0;
    uint32_t n = last - first_key < BT_KEY_BLOCK ? last - first_key + 1 : BT_KEY_BLOCK;
    load_keys(a, s, first_key, n);
    while (position_of(a, row) < first_key)
        row++;
    score(a, s, row, n_rows - row);
    for (uint32_t r = row; r < n_rows; r++) {
        uint32_t seen = position_of(a, r) - first_key + 1;
        soften(a, s, r, seen < BT_KEY_BLOCK ? seen : BT_KEY_BLOCK);
    }
    /* Rows of one token see the same keys; rows that see the whole block go together. */
    while (row < n_rows) {
        uint32_t seen = position_of(a, row) - first_key + 1;
        bool whole = seen >= BT_KEY_BLOCK;
        uint32_t n_same = whole || n_rows - row < a->group ? n_rows - row : a->group;
        weigh(a, s, row, n_same, whole ? BT_KEY_BLOCK : seen);
        row += n_same;
    }
}

static void finish(const bt_attention *a, const bt_attention_scratch *s, uint32_t n_rows)
{
    for (uint32_t row = 0; row < n_rows; row++) {
        float *out = a->out + row / a->group * a->stride + row % a->group * s->head_dim;
        const float *sum = s->out + (size_t)row * s->padded_dim;
        for (uint32_t i = 0; i < s->head_dim; i++)
            out[i] = sum[i] / s->sum[row];
    }
}

void bt_attention_run(const bt_attention *attention, bt_attention_scratch *scratch)
{
    uint32_t n_rows = attention->n_tokens * attention->group;
    assert(n_rows <= BT_ATTENTION_ROWS);
    begin(attention, scratch, n_rows);
    uint32_t last = position_of(attention, n_rows - 1);
    for (uint32_t key = 0; key <= last; key += BT_KEY_BLOCK)
        attend(attention, scratch, key, n_rows);
    finish(attention, scratch, n_rows);
}
