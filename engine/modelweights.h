/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder's weights in the form that computing wants: matrices in panels, norms and biases in
 * f32. They are built from a source of named tensors, so that files and random weights take the
 * same path. For the model's own files.
 * Thread rule: built by one thread, then read by any. */
#ifndef BT_ENGINE_MODELWEIGHTS_H
#define BT_ENGINE_MODELWEIGHTS_H
#include "engine/model.h"
#include "engine/tensorops.h"

typedef struct {
    const void *data;  /* [n_rows][n_columns], any alignment; borrowed until the next get */
    baton_dtype dtype; /* F32, BF16 or F16 */
} bt_tensor_data;

/* Where tensors come from. */
typedef struct {
    /* The tensor of that name and Hugging Face's shape, [n_rows][n_columns], or [n_rows] when
     * n_columns is 0. Errors: those of bt_model_load. */
    baton_status (*get)(void *ctx, const char *name, uint32_t n_rows, uint32_t n_columns,
                        bt_tensor_data *out);
    void *ctx; /* borrowed */
} bt_tensor_source;

typedef struct {
    float *attention_norm, *ffn_norm; /* [hidden] */
    bt_matrix qkv;                    /* rows: heads of q, then of k, then of v */
    bt_matrix output;
    bt_matrix gate_up; /* rows: gate, from gate_width on up; both padded to whole panels */
    bt_matrix down;
    float *qkv_bias, *output_bias, *gate_up_bias, *down_bias; /* NULL: none */
} bt_layer;

struct bt_model {
    bt_model_config config;
    uint64_t fingerprint;
    uint32_t q_width, kv_width, qkv_width, gate_width; /* rows of the fused matrices */
    void *embedding;                                   /* [vocab][hidden], element type below */
    baton_dtype embedding_dtype;
    float *final_norm;  /* [hidden] */
    bt_matrix head;     /* [vocab][hidden]; a copy of the embedding when tied */
    bt_layer *layers;   /* [n_layers] */
    float *frequencies; /* [head_dim / 2], RoPE, after scaling */
};

/* *model_p is set only on success. Errors: CONFIG, NO_MEMORY, those of the source. */
baton_status bt_model_build(const bt_model_config *config, const bt_tensor_source *source,
                            bt_model **model_p);

#endif
