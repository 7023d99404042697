/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/modelweights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include <xxhash.h>

#include "core/alloc.h"
#include "core/fail.h"

/* What building carries along. */
typedef struct {
    const bt_tensor_source *source;
    bt_model *model;
    uint32_t layer;
} builder;

enum { NAME_BYTES = 96 };

/* The weight of a name (a bias where it has no columns and is no norm) in layer b->layer, or the
 * tensor of a full name when it is not of a layer. */
static baton_status get(builder *b, const char *pattern, bool of_layer, uint32_t n_rows,
                        uint32_t n_columns, bt_tensor_data *data)
{
    char name[NAME_BYTES];
    if (of_layer)
        snprintf(name, sizeof(name), "model.layers.%u.%s.%s", b->layer, pattern,
                 n_columns == 0 && strstr(pattern, "norm") == NULL ? "bias" : "weight");
    else
        snprintf(name, sizeof(name), "%s", pattern);
    BATON_TRY(b->source->get(b->source->ctx, name, n_rows, n_columns, data));
    size_t n = (size_t)n_rows * (n_columns != 0 ? n_columns : 1);
    b->model->fingerprint =
        XXH3_64bits_withSeed(data->data, n * bt_element_bytes(data->dtype), b->model->fingerprint);
    return BATON_OK;
}

static float *floats(size_t n)
{
    return bt_calloc(n, sizeof(float));
}

/* A vector of the model or layer as f32 into out[n]. */
static baton_status get_vector(builder *b, const char *name, bool of_layer, uint32_t n, float *out)
{
    bt_tensor_data data;
    BATON_TRY(get(b, name, of_layer, n, 0, &data));
    bt_widen(bt_ops_of(BT_SIMD_GENERIC), out, data.data, data.dtype, n);
    return BATON_OK;
}

static baton_status no_memory(void)
{
    return bt_fail(BATON_ERR_NO_MEMORY, "weights: no memory");
}

static baton_status get_norm(builder *b, const char *name, bool of_layer, float **out)
{
    *out = floats(b->model->config.hidden_size);
    if (*out == NULL)
        return no_memory();
    return get_vector(b, name, of_layer, b->model->config.hidden_size, *out);
}

/* Parts of a matrix that is computed as one: rows [first, first + n) are the tensor `name`. */
typedef struct {
    const char *name;
    uint32_t first, n;
} part;

static baton_status get_fused(builder *b, const part *parts, uint32_t n_parts, uint32_t n_out,
                              uint32_t n_in, bt_matrix *matrix)
{
    for (uint32_t i = 0; i < n_parts; i++) {
        bt_tensor_data data;
        BATON_TRY(get(b, parts[i].name, true, parts[i].n, n_in, &data));
        if (i == 0)
            BATON_TRY(bt_matrix_create(data.dtype, n_out, n_in, matrix));
        if (data.dtype != matrix->dtype)
            return bt_fail(BATON_ERR_UNSUPPORTED,
                           "weights: layer %u: %s and %s have different element types", b->layer,
                           parts[0].name, parts[i].name);
        bt_matrix_set_rows(matrix, parts[i].first, data.data, parts[i].n);
    }
    return BATON_OK;
}

static baton_status get_fused_bias(builder *b, const part *parts, uint32_t n_parts, uint32_t n_out,
                                   float **out)
{
    *out = floats(n_out);
    if (*out == NULL)
        return no_memory();
    for (uint32_t i = 0; i < n_parts; i++)
        BATON_TRY(get_vector(b, parts[i].name, true, parts[i].n, *out + parts[i].first));
    return BATON_OK;
}

static baton_status build_layer(builder *b, bt_layer *layer)
{
    const bt_model *m = b->model;
    const bt_model_config *c = &m->config;
    const part qkv[] = {{"self_attn.q_proj", 0, m->q_width},
                        {"self_attn.k_proj", m->q_width, m->kv_width},
                        {"self_attn.v_proj", m->q_width + m->kv_width, m->kv_width}};
    const part output = {"self_attn.o_proj", 0, c->hidden_size};
    const part gate_up[] = {{"mlp.gate_proj", 0, c->ffn_size},
                            {"mlp.up_proj", m->gate_width, c->ffn_size}};
    const part down = {"mlp.down_proj", 0, c->hidden_size};
    BATON_TRY(get_norm(b, "input_layernorm", true, &layer->attention_norm));
    BATON_TRY(get_fused(b, qkv, 3, m->qkv_width, c->hidden_size, &layer->qkv));
    BATON_TRY(get_fused(b, &output, 1, c->hidden_size, m->q_width, &layer->output));
    BATON_TRY(get_norm(b, "post_attention_layernorm", true, &layer->ffn_norm));
    BATON_TRY(get_fused(b, gate_up, 2, 2 * m->gate_width, c->hidden_size, &layer->gate_up));
    BATON_TRY(get_fused(b, &down, 1, c->hidden_size, c->ffn_size, &layer->down));
    if (c->qkv_bias)
        BATON_TRY(get_fused_bias(b, qkv, 3, m->qkv_width, &layer->qkv_bias));
    if (c->output_bias)
        BATON_TRY(get_fused_bias(b, &output, 1, c->hidden_size, &layer->output_bias));
    if (c->mlp_bias) {
        BATON_TRY(get_fused_bias(b, gate_up, 2, 2 * m->gate_width, &layer->gate_up_bias));
        BATON_TRY(get_fused_bias(b, &down, 1, c->hidden_size, &layer->down_bias));
    }
    return BATON_OK;
}

static baton_status build_embedding(builder *b)
{
    bt_model *m = b->model;
    uint32_t vocab = m->config.vocab_size, hidden = m->config.hidden_size;
    bt_tensor_data data;
    BATON_TRY(get(b, "model.embed_tokens.weight", false, vocab, hidden, &data));
    size_t bytes = (size_t)vocab * hidden * bt_element_bytes(data.dtype);
    m->embedding = bt_aligned_alloc(64, bytes);
    if (m->embedding == NULL)
        return no_memory();
    memcpy(m->embedding, data.data, bytes);
    m->embedding_dtype = data.dtype;
    if (!m->config.tied_embeddings)
        BATON_TRY(get(b, "lm_head.weight", false, vocab, hidden, &data));
    BATON_TRY(bt_matrix_create(data.dtype, vocab, hidden, &m->head));
    bt_matrix_set_rows(&m->head, 0, data.data, vocab);
    return BATON_OK;
}

/* Llama 3's scaling: wavelengths beyond low are stretched by factor, those below high stay, with a
 * linear passage between (transformers, modeling_rope_utils.py). */
static double scale_llama3(const bt_rope_config *rope, double frequency)
{
    const double pi = 3.14159265358979323846;
    double turns = rope->original_max_positions * frequency / (2 * pi);
    if (turns < rope->low_freq_factor)
        return frequency / rope->factor;
    if (turns > rope->high_freq_factor)
        return frequency;
    double smooth =
        (turns - rope->low_freq_factor) / (rope->high_freq_factor - rope->low_freq_factor);
    return (1 - smooth) * frequency / rope->factor + smooth * frequency;
}

static baton_status build_frequencies(bt_model *model)
{
    const bt_rope_config *rope = &model->config.rope;
    uint32_t head_dim = model->config.head_dim;
    model->frequencies = floats(head_dim / 2);
    if (model->frequencies == NULL)
        return no_memory();
    for (uint32_t i = 0; i < head_dim / 2; i++) {
        double frequency = 1.0 / pow(rope->theta, 2.0 * i / head_dim);
        if (rope->type == BT_ROPE_LINEAR)
            frequency /= rope->factor;
        else if (rope->type == BT_ROPE_LLAMA3)
            frequency = scale_llama3(rope, frequency);
        model->frequencies[i] = (float)frequency;
    }
    return BATON_OK;
}

/* What decides over KV and logits besides the weights, as text: padding of a struct must not. */
static uint64_t hash_config(const bt_model_config *c)
{
    char text[512];
    int n =
        snprintf(text, sizeof(text),
                 "v1 %u %u %u %u %u %u %u eps %.17g rope %d %.17g %.17g %.17g %.17g %u "
                 "flags %d%d%d%d",
                 c->vocab_size, c->hidden_size, c->ffn_size, c->n_layers, c->n_heads, c->n_kv_heads,
                 c->head_dim, c->rms_norm_eps, (int)c->rope.type, c->rope.theta, c->rope.factor,
                 c->rope.low_freq_factor, c->rope.high_freq_factor, c->rope.original_max_positions,
                 c->tied_embeddings, c->qkv_bias, c->output_bias, c->mlp_bias);
    return XXH3_64bits(text, (size_t)n);
}

static baton_status build(builder *b)
{
    bt_model *m = b->model;
    const bt_model_config *c = &m->config;
    m->fingerprint = hash_config(c);
    m->q_width = c->n_heads * c->head_dim;
    m->kv_width = c->n_kv_heads * c->head_dim;
    m->qkv_width = m->q_width + 2 * m->kv_width;
    m->gate_width = bt_panels(c->ffn_size) * BT_PANEL;
    m->layers = bt_calloc(c->n_layers, sizeof(*m->layers));
    if (m->layers == NULL)
        return no_memory();
    BATON_TRY(build_frequencies(m));
    BATON_TRY(build_embedding(b));
    for (b->layer = 0; b->layer < c->n_layers; b->layer++)
        BATON_TRY(build_layer(b, &m->layers[b->layer]));
    return get_norm(b, "model.norm.weight", false, &m->final_norm);
}

baton_status bt_model_build(const bt_model_config *config, const bt_tensor_source *source,
                            bt_model **model_p)
{
    BATON_TRY(bt_model_config_check(config));
    bt_model *model = bt_calloc(1, sizeof(*model));
    if (model == NULL)
        return no_memory();
    model->config = *config;
    builder b = {.source = source, .model = model};
    baton_status status = build(&b);
    if (status < 0) {
        bt_model_destroy(model);
        return status;
    }
    *model_p = model;
    return BATON_OK;
}

const bt_model_config *bt_model_get_config(const bt_model *model)
{
    return &model->config;
}

uint64_t bt_model_fingerprint(const bt_model *model)
{
    return model->fingerprint;
}

uint64_t bt_model_weight_bytes(const bt_model *model)
{
    uint64_t bytes = bt_matrix_bytes(&model->head);
    for (uint32_t i = 0; i < model->config.n_layers; i++) {
        const bt_layer *layer = &model->layers[i];
        bytes += bt_matrix_bytes(&layer->qkv) + bt_matrix_bytes(&layer->output) +
                 bt_matrix_bytes(&layer->gate_up) + bt_matrix_bytes(&layer->down);
    }
    return bytes;
}

static void clear_layer(bt_layer *layer)
{
    bt_matrix_clear(&layer->qkv);
    bt_matrix_clear(&layer->output);
    bt_matrix_clear(&layer->gate_up);
    bt_matrix_clear(&layer->down);
    bt_free(layer->attention_norm);
    bt_free(layer->ffn_norm);
    bt_free(layer->qkv_bias);
    bt_free(layer->output_bias);
    bt_free(layer->gate_up_bias);
    bt_free(layer->down_bias);
}

void bt_model_destroy(bt_model *model)
{
    if (model == NULL)
        return;
    for (uint32_t i = 0; model->layers != NULL && i < model->config.n_layers; i++)
        clear_layer(&model->layers[i]);
    bt_free(model->layers);
    bt_matrix_clear(&model->head);
    bt_free(model->embedding);
    bt_free(model->final_norm);
    bt_free(model->frequencies);
    bt_free(model);
}
