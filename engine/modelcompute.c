/* SPDX-License-Identifier: Apache-2.0 */
/* One forward pass: all tokens of a batch are rows, and each step below is a loop over rows, over
 * (token block, panel) pairs of a product, or over (query tile, KV head) pairs of attention. Units
 * never share an output, so who computes one does not matter.
 *
 *   x          residual stream       [rows][hidden]
 *   normed     input of products     [rows][hidden]
 *   qkv        projections; attention's result replaces q     [rows][qkv_width]
 *   gate       silu(gate) * up       [rows][gate_width] */
#include "engine/model.h"

#include <math.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/attention.h"
#include "engine/modelweights.h"
#include "engine/threadpool.h"

enum {
    TOKEN_BLOCK = 48, /* rows that a panel of weights is multiplied with while it is in cache */
    DEFAULT_BATCH_TOKENS = 512,
    DEFAULT_BATCH_ITEMS = 64,
    MAX_BATCH = 1 << 20,
};

typedef struct {
    const bt_batch_item *item;
    uint32_t token, position;
} row_info;

typedef struct {
    const bt_batch_item *item;
    uint32_t first_row, first_token, n_tokens;
} query_tile;

struct bt_compute {
    const bt_model *model;
    const bt_ops *ops;
    bt_threadpool *pool;
    uint32_t n_threads, max_tokens, max_items;
    float *x, *normed, *qkv, *gate;
    float *cosine, *sine;           /* [rows][head_dim / 2] */
    row_info *rows;                 /* [max_tokens] */
    query_tile *tiles;              /* [max_tokens] at most */
    uint32_t *last_rows;            /* [max_items], rows whose logits are wanted */
    bt_attention_scratch **scratch; /* [n_threads] */
    /* Of the pass that runs. */
    bt_kv_cache *cache;
    uint32_t n_rows, n_tiles, n_last, layer;
    void (*layer_done)(void *sink, uint32_t layer); /* NULL: nobody watches */
    void *layer_sink;
};

/* --- products ------------------------------------------------------------------------------- */

typedef struct {
    const bt_ops *ops;
    const bt_matrix *matrix;
    const float *x;
    float *out;
    size_t x_stride, out_stride;
    uint32_t n_rows, n_panels;
    bool accumulate;
} product;

static void run_product(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    (void)thread;
    const product *p = ctx;
    for (uint32_t unit = first; unit < end; unit++) {
        uint32_t row = unit / p->n_panels * TOKEN_BLOCK;
        uint32_t n = p->n_rows - row < TOKEN_BLOCK ? p->n_rows - row : TOKEN_BLOCK;
        uint32_t panel = unit % p->n_panels;
        bt_matrix_panel(p->ops, p->matrix, panel, p->x + row * p->x_stride, p->x_stride, n,
                        p->out + row * p->out_stride + (size_t)panel * BT_PANEL, p->out_stride,
                        p->accumulate);
    }
}

/* Units of a product: token blocks times panels. */
static uint32_t n_units(uint32_t n_rows, uint32_t n_panels)
{
    return (n_rows + TOKEN_BLOCK - 1) / TOKEN_BLOCK * n_panels;
}

static uint64_t unit_cost(uint32_t n_rows, uint32_t n_in)
{
    return (uint64_t)(n_rows < TOKEN_BLOCK ? n_rows : TOKEN_BLOCK) * BT_PANEL * n_in;
}

static void multiply(bt_compute *c, const bt_matrix *matrix, const float *x, size_t x_stride,
                     uint32_t n_rows, float *out, size_t out_stride, bool accumulate)
{
    product p = {.ops = c->ops,
                 .matrix = matrix,
                 .x = x,
                 .out = out,
                 .x_stride = x_stride,
                 .out_stride = out_stride,
                 .n_rows = n_rows,
                 .n_panels = bt_panels(matrix->n_out),
                 .accumulate = accumulate};
    bt_parallel_for(c->pool, n_units(n_rows, p.n_panels), unit_cost(n_rows, matrix->n_in),
                    run_product, &p);
}

/* --- rows ----------------------------------------------------------------------------------- */

/* Looks a token up, and the angles of its position. The angle is rounded to f32 first, as the
 * models were trained with it. */
static void embed_rows(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    (void)thread;
    bt_compute *c = ctx;
    const bt_model *m = c->model;
    uint32_t hidden = m->config.hidden_size, half = m->config.head_dim / 2;
    size_t row_bytes = hidden * bt_element_bytes(m->embedding_dtype);
    for (uint32_t row = first; row < end; row++) {
        bt_widen(c->ops, c->x + (size_t)row * hidden,
                 (const uint8_t *)m->embedding + c->rows[row].token * row_bytes, m->embedding_dtype,
                 hidden);
        for (uint32_t i = 0; i < half; i++) {
            float angle = (float)c->rows[row].position * m->frequencies[i];
            c->cosine[(size_t)row * half + i] = (float)cos((double)angle);
            c->sine[(size_t)row * half + i] = (float)sin((double)angle);
        }
    }
}

typedef struct {
    bt_compute *compute;
    const float *bias; /* of the product that x has just got; NULL: none */
    const float *weight;
} norm_step;

static void norm_rows(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    (void)thread;
    const norm_step *step = ctx;
    const bt_compute *c = step->compute;
    uint32_t hidden = c->model->config.hidden_size;
    for (uint32_t row = first; row < end; row++) {
        float *x = c->x + (size_t)row * hidden;
        if (step->bias != NULL)
            bt_add(x, step->bias, hidden);
        bt_rms_norm(c->normed + (size_t)row * hidden, x, step->weight, hidden,
                    c->model->config.rms_norm_eps);
    }
}

static void normalise(bt_compute *c, const float *bias, const float *weight)
{
    norm_step step = {.compute = c, .bias = bias, .weight = weight};
    bt_parallel_for(c->pool, c->n_rows, 4 * (uint64_t)c->model->config.hidden_size, norm_rows,
                    &step);
}

static void store_kv(bt_compute *c, uint32_t row, const float *k, const float *v)
{
    bt_kv_cache *cache = c->cache;
    const row_info *info = &c->rows[row];
    size_t slot =
        (size_t)info->item->blocks[info->position / cache->block_tokens] * cache->block_tokens +
        info->position % cache->block_tokens;
    size_t offset = slot * bt_kv_cache_token_bytes(cache);
    bt_narrow(bt_kv_cache_plane(cache, c->layer, 0) + offset, k, cache->dtype, c->model->kv_width);
    bt_narrow(bt_kv_cache_plane(cache, c->layer, 1) + offset, v, cache->dtype, c->model->kv_width);
}

/* Bias, RoPE on q and k, and k and v to the cache. */
static void position_rows(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    (void)thread;
    bt_compute *c = ctx;
    const bt_model *m = c->model;
    uint32_t head_dim = m->config.head_dim, half = head_dim / 2;
    const float *bias = m->layers[c->layer].qkv_bias;
    for (uint32_t row = first; row < end; row++) {
        float *qkv = c->qkv + (size_t)row * m->qkv_width;
        if (bias != NULL)
            bt_add(qkv, bias, m->qkv_width);
        for (uint32_t head = 0; head < m->config.n_heads + m->config.n_kv_heads; head++)
            bt_rope(qkv + (size_t)head * head_dim, c->cosine + (size_t)row * half,
                    c->sine + (size_t)row * half, half);
        store_kv(c, row, qkv + m->q_width, qkv + m->q_width + m->kv_width);
    }
}

/* --- attention and ffn ---------------------------------------------------------------------- */

static void attend_units(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    bt_compute *c = ctx;
    const bt_model *m = c->model;
    uint32_t group = m->config.n_heads / m->config.n_kv_heads;
    for (uint32_t unit = first; unit < end; unit++) {
        const query_tile *tile = &c->tiles[unit % c->n_tiles];
        uint32_t kv_head = unit / c->n_tiles;
        float *q = c->qkv + (size_t)tile->first_row * m->qkv_width +
                   (size_t)kv_head * group * m->config.head_dim;
        bt_attention attention = {.ops = c->ops,
                                  .cache = c->cache,
                                  .layer = c->layer,
                                  .kv_head = kv_head,
                                  .blocks = tile->item->blocks,
                                  .q = q,
                                  .out = q,
                                  .stride = m->qkv_width,
                                  .first_position = tile->item->first_position + tile->first_token,
                                  .n_tokens = tile->n_tokens,
                                  .group = group};
        bt_attention_run(&attention, c->scratch[thread]);
    }
}

static uint64_t attention_cost(const bt_compute *c)
{
    const query_tile *last = &c->tiles[c->n_tiles - 1];
    uint64_t keys = last->item->first_position + last->first_token + last->n_tokens;
    return keys * (last->n_tokens + 1) * c->model->config.head_dim * 2;
}

/* Panels of gate and up together, so that silu(gate) * up needs no pass of its own. */
static void gate_units(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    (void)thread;
    bt_compute *c = ctx;
    const bt_model *m = c->model;
    const bt_layer *layer = &m->layers[c->layer];
    uint32_t hidden = m->config.hidden_size, n_panels = m->gate_width / BT_PANEL;
    for (uint32_t unit = first; unit < end; unit++) {
        uint32_t panel = unit % n_panels, row = unit / n_panels * TOKEN_BLOCK;
        uint32_t n = c->n_rows - row < TOKEN_BLOCK ? c->n_rows - row : TOKEN_BLOCK;
        const float *x = c->normed + (size_t)row * hidden;
        float *gate = c->gate + (size_t)row * m->gate_width + (size_t)panel * BT_PANEL;
        float up[TOKEN_BLOCK * BT_PANEL];
        bt_matrix_panel(c->ops, &layer->gate_up, panel, x, hidden, n, gate, m->gate_width, false);
        bt_matrix_panel(c->ops, &layer->gate_up, n_panels + panel, x, hidden, n, up, BT_PANEL,
                        false);
        for (uint32_t r = 0; r < n; r++) {
            float *gates = gate + (size_t)r * m->gate_width;
            if (layer->gate_up_bias != NULL) {
                bt_add(gates, layer->gate_up_bias + panel * BT_PANEL, BT_PANEL);
                bt_add(up + r * BT_PANEL, layer->gate_up_bias + m->gate_width + panel * BT_PANEL,
                       BT_PANEL);
            }
            c->ops->silu_multiply(gates, up + r * BT_PANEL, BT_PANEL);
        }
    }
}

static void run_layer(bt_compute *c)
{
    const bt_model *m = c->model;
    const bt_layer *layer = &m->layers[c->layer];
    uint32_t hidden = m->config.hidden_size;
    normalise(c, c->layer > 0 ? m->layers[c->layer - 1].down_bias : NULL, layer->attention_norm);
    multiply(c, &layer->qkv, c->normed, hidden, c->n_rows, c->qkv, m->qkv_width, false);
    bt_parallel_for(c->pool, c->n_rows, 4 * (uint64_t)m->qkv_width, position_rows, c);
    if (c->layer_done != NULL) /* the loops above and below it have all threads in them */
        c->layer_done(c->layer_sink, c->layer);
    bt_parallel_for(c->pool, c->n_tiles * m->config.n_kv_heads, attention_cost(c), attend_units, c);
    multiply(c, &layer->output, c->qkv, m->qkv_width, c->n_rows, c->x, hidden, true);
    normalise(c, layer->output_bias, layer->ffn_norm);
    bt_parallel_for(c->pool, n_units(c->n_rows, m->gate_width / BT_PANEL),
                    2 * unit_cost(c->n_rows, hidden), gate_units, c);
    multiply(c, &layer->down, c->gate, m->gate_width, c->n_rows, c->x, hidden, true);
}

/* --- a pass --------------------------------------------------------------------------------- */

static void write_logits(bt_compute *c, float *logits)
{
    const bt_model *m = c->model;
    uint32_t hidden = m->config.hidden_size;
    const float *bias = m->layers[m->config.n_layers - 1].down_bias;
    for (uint32_t i = 0; i < c->n_last; i++) {
        float *x = c->x + (size_t)c->last_rows[i] * hidden;
        if (bias != NULL)
            bt_add(x, bias, hidden);
        bt_rms_norm(c->normed + (size_t)i * hidden, x, m->final_norm, hidden,
                    m->config.rms_norm_eps);
    }
    multiply(c, &m->head, c->normed, hidden, c->n_last, logits, m->config.vocab_size, false);
}

/* Rows and query tiles of the batch. */
static void lay_out(bt_compute *c, const bt_batch_item *items, uint32_t n_items)
{
    const bt_model_config *config = &c->model->config;
    uint32_t tile_tokens = bt_attention_max_tokens(config->n_heads / config->n_kv_heads);
    c->n_rows = c->n_tiles = c->n_last = 0;
    for (uint32_t i = 0; i < n_items; i++) {
        const bt_batch_item *item = &items[i];
        for (uint32_t t = 0; t < item->n_tokens; t += tile_tokens) {
            uint32_t left = item->n_tokens - t;
            c->tiles[c->n_tiles++] =
                (query_tile){.item = item,
                             .first_row = c->n_rows + t,
                             .first_token = t,
                             .n_tokens = left < tile_tokens ? left : tile_tokens};
        }
        for (uint32_t t = 0; t < item->n_tokens; t++)
            c->rows[c->n_rows++] = (row_info){
                .item = item, .token = item->tokens[t], .position = item->first_position + t};
        if (item->want_logits)
            c->last_rows[c->n_last++] = c->n_rows - 1;
    }
}

static baton_status check_item(const bt_compute *c, const bt_kv_cache *cache,
                               const bt_batch_item *item)
{
    const bt_model_config *config = &c->model->config;
    if (item->n_tokens == 0 || item->tokens == NULL || item->blocks == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "forward: an item without tokens or block table");
    if (item->first_position >= config->max_positions ||
        item->n_tokens > config->max_positions - item->first_position)
        return bt_fail(BATON_ERR_OUT_OF_RANGE,
                       "forward: positions %u + %u, the model has %u (max_position_embeddings)",
                       item->first_position, item->n_tokens, config->max_positions);
    uint32_t last_block = (item->first_position + item->n_tokens - 1) / cache->block_tokens;
    if (last_block >= item->n_blocks)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "forward: wanted %u blocks for %u tokens, found %u",
                       last_block + 1, item->first_position + item->n_tokens, item->n_blocks);
    for (uint32_t i = 0; i <= last_block; i++)
        if (item->blocks[i] >= cache->n_blocks)
            return bt_fail(BATON_ERR_OUT_OF_RANGE, "forward: block %u, the cache has %u",
                           item->blocks[i], cache->n_blocks);
    for (uint32_t i = 0; i < item->n_tokens; i++)
        if (item->tokens[i] >= config->vocab_size)
            return bt_fail(BATON_ERR_OUT_OF_RANGE, "forward: token %u, the vocabulary has %u",
                           item->tokens[i], config->vocab_size);
    return BATON_OK;
}

static baton_status check_batch(const bt_compute *c, const bt_kv_cache *cache,
                                const bt_batch_item *items, uint32_t n_items, const float *logits)
{
    const bt_model_config *config = &c->model->config;
    uint64_t n_tokens = 0;
    bool want_logits = false;
    if (cache->n_layers != config->n_layers || cache->n_kv_heads != config->n_kv_heads ||
        cache->head_dim != config->head_dim)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "forward: the cache has %u layers of %u x %u, the model %u of %u x %u",
                       cache->n_layers, cache->n_kv_heads, cache->head_dim, config->n_layers,
                       config->n_kv_heads, config->head_dim);
    for (uint32_t i = 0; i < n_items; i++) {
        BATON_TRY(check_item(c, cache, &items[i]));
        n_tokens += items[i].n_tokens;
        want_logits = want_logits || items[i].want_logits;
    }
    if (n_items > c->max_items || n_tokens > c->max_tokens)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "forward: %u items with %llu tokens, at most %u with %u fit", n_items,
                       (unsigned long long)n_tokens, c->max_items, c->max_tokens);
    if (want_logits && logits == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "forward: logits are wanted, but the place is NULL");
    return BATON_OK;
}

baton_status bt_compute_forward(bt_compute *compute, bt_kv_cache *cache, const bt_batch_item *items,
                                uint32_t n_items, float *logits)
{
    BATON_TRY(check_batch(compute, cache, items, n_items, logits));
    if (n_items == 0)
        return BATON_OK;
    compute->cache = cache;
    lay_out(compute, items, n_items);
    uint64_t embed_cost = 64 * (uint64_t)compute->model->config.head_dim;
    bt_parallel_for(compute->pool, compute->n_rows, embed_cost, embed_rows, compute);
    for (compute->layer = 0; compute->layer < compute->model->config.n_layers; compute->layer++)
        run_layer(compute);
    if (compute->n_last > 0)
        write_logits(compute, logits);
    return BATON_OK;
}

void bt_compute_watch(bt_compute *compute, void (*layer_done)(void *sink, uint32_t layer),
                      void *sink)
{
    compute->layer_done = layer_done;
    compute->layer_sink = sink;
}

/* --- set up --------------------------------------------------------------------------------- */

static float *row_floats(const bt_compute *c, size_t width)
{
    size_t n;
    return bt_mul_size(c->max_tokens, width * sizeof(float), &n) ? bt_aligned_alloc(64, n) : NULL;
}

static bool make_buffers(bt_compute *c)
{
    const bt_model *m = c->model;
    uint32_t half = m->config.head_dim / 2;
    c->x = row_floats(c, m->config.hidden_size);
    c->normed = row_floats(c, m->config.hidden_size);
    c->qkv = row_floats(c, m->qkv_width);
    c->gate = row_floats(c, m->gate_width);
    c->cosine = row_floats(c, half);
    c->sine = row_floats(c, half);
    c->rows = bt_calloc(c->max_tokens, sizeof(*c->rows));
    c->tiles = bt_calloc(c->max_tokens, sizeof(*c->tiles));
    c->last_rows = bt_calloc(c->max_items, sizeof(*c->last_rows));
    c->scratch = bt_calloc(c->n_threads, sizeof(*c->scratch));
    return c->x != NULL && c->normed != NULL && c->qkv != NULL && c->gate != NULL &&
           c->cosine != NULL && c->sine != NULL && c->rows != NULL && c->tiles != NULL &&
           c->last_rows != NULL && c->scratch != NULL;
}

static baton_status set_up(bt_compute *c, const bt_compute_options *options)
{
    BATON_TRY(bt_ops_named(options->simd, &c->ops));
    BATON_TRY(bt_threadpool_create(c->n_threads, &c->pool));
    if (!make_buffers(c))
        return bt_fail(BATON_ERR_NO_MEMORY, "compute: buffers for batches of %u tokens",
                       c->max_tokens);
    for (uint32_t i = 0; i < c->n_threads; i++)
        BATON_TRY(bt_attention_scratch_create(c->model->config.head_dim, &c->scratch[i]));
    return BATON_OK;
}

baton_status bt_compute_create(const bt_model *model, const bt_compute_options *options,
                               bt_compute **compute_p)
{
    if (options->max_batch_tokens > MAX_BATCH || options->max_batch_items > MAX_BATCH)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "compute: wanted batches of at most %d tokens and items, found %u and %u",
                       MAX_BATCH, options->max_batch_tokens, options->max_batch_items);
    bt_compute *c = bt_calloc(1, sizeof(*c));
    if (c == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "compute: no memory");
    c->model = model;
    c->n_threads = options->n_threads != 0 ? options->n_threads : 1;
    c->max_tokens =
        options->max_batch_tokens != 0 ? options->max_batch_tokens : DEFAULT_BATCH_TOKENS;
    c->max_items = options->max_batch_items != 0 ? options->max_batch_items : DEFAULT_BATCH_ITEMS;
    baton_status status = set_up(c, options);
    if (status < 0) {
        bt_compute_destroy(c);
        return status;
    }
    *compute_p = c;
    return BATON_OK;
}

void bt_compute_destroy(bt_compute *compute)
{
    if (compute == NULL)
        return;
    bt_threadpool_destroy(compute->pool);
    for (uint32_t i = 0; compute->scratch != NULL && i < compute->n_threads; i++)
        bt_attention_scratch_destroy(compute->scratch[i]);
    bt_free(compute->scratch);
    bt_free(compute->last_rows);
    bt_free(compute->tiles);
    bt_free(compute->rows);
    bt_free(compute->sine);
    bt_free(compute->cosine);
    bt_free(compute->gate);
    bt_free(compute->qkv);
    bt_free(compute->normed);
    bt_free(compute->x);
    bt_free(compute);
}
